// stats.c: quantiles, bootstrap intervals, the U-test, power-law fits.
//
// Method    medians everywhere; intervals by the percentile bootstrap (Efron 1979), drawn from
//           hb_rng, so the same samples and seed give the same interval on every machine.
// U-test    Mann and Whitney 1947. Both samples <= 20: the exact permutation distribution of the
//           rank sum, ties included (midranks); larger: normal approximation with tie and
//           continuity correction.
// Exact     against scipy 1.10: quantiles to the last bit, U-test 1e-12 relative, t quantile 1e-10.
// Memory    scratch of the size of the input; if it cannot be had the answer is NAN.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../impls/core/hb.h"
#include "../impls/core/rng.h"
#include "host.h"
#include "stats.h"

enum { DRAWS = 2000, EXACT_MAX = 20 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void hb_sort(double *x, size_t n)
{
    if (n > 1) qsort(x, n, sizeof *x, by_value);
}

static int by_integer(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

size_t hb_sort_unique(int64_t *x, size_t n)
{
    size_t kept = 0;
    if (n > 1) qsort(x, n, sizeof *x, by_integer);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || x[i] != x[kept - 1]) x[kept++] = x[i];
    return kept;
}

// Ascending copy of x, owned by the caller; NULL if there is no memory.
static double *sorted_copy(const double *x, size_t n)
{
    double *s = malloc((n ? n : 1) * sizeof *s);
    if (!s) return NULL;
    memcpy(s, x, n * sizeof *s);
    hb_sort(s, n);
    return s;
}

// Type 7 of Hyndman and Fan 1996: linear between the order statistics around (n-1) q.
static double quantile_of_sorted(const double *s, size_t n, double q)
{
    double pos = (double)(n - 1) * q;
    size_t i = (size_t)floor(pos);
    if (i + 1 >= n) return s[n - 1];
    return s[i] + (pos - (double)i) * (s[i + 1] - s[i]);
}

double hb_quantile(const double *x, size_t n, double q)
{
    if (n == 0) return NAN;
    double *s = sorted_copy(x, n);
    if (!s) return NAN;
    double r = quantile_of_sorted(s, n, q);
    free(s);
    return r;
}

double hb_median(const double *x, size_t n)
{
    return hb_quantile(x, n, 0.5);
}

// Median of one resample of the ascending s. The drawn indices are counted, not sorted: O(n).
//   count (n)   scratch
static double resampled_median(const double *s, size_t n, uint32_t *count, uint64_t seed,
                               uint64_t draw)
{
    memset(count, 0, n * sizeof *count);
    for (size_t i = 0; i < n; i++) count[hb_rng_below(seed, draw, i, n)]++;
    size_t lower = (n - 1) / 2, upper = n / 2, seen = 0;   // middle ranks, equal for odd n
    double lo = s[n - 1], hi = s[n - 1];
    for (size_t i = 0; i < n; i++) {
        size_t before = seen;
        seen += count[i];
        if (before <= lower && lower < seen) lo = s[i];
        if (before <= upper && upper < seen) { hi = s[i]; break; }
    }
    return 0.5 * (lo + hi);
}

// `draws` medians of resamples of x into med.
static int bootstrap_medians(const double *x, size_t n, int draws, uint64_t seed, double *med)
{
    double *s = sorted_copy(x, n);
    uint32_t *count = malloc(n * sizeof *count);
    int rc = s && count ? 0 : HB_ERR_OOM;
    for (int k = 0; rc == 0 && k < draws; k++)
        med[k] = resampled_median(s, n, count, seed, (uint64_t)k);
    free(count);
    free(s);
    return rc;
}

static struct hb_interval percentile_interval(double *v, size_t n)
{
    hb_sort(v, n);
    return (struct hb_interval){ quantile_of_sorted(v, n, 0.025), quantile_of_sorted(v, n, 0.975) };
}

struct hb_interval hb_median_ci(const double *x, size_t n, int draws, uint64_t seed)
{
    struct hb_interval r = { NAN, NAN };
    if (n == 0 || draws < 1) return r;
    if (n == 1) return (struct hb_interval){ x[0], x[0] };
    double *med = malloc((size_t)draws * sizeof *med);
    if (med && bootstrap_medians(x, n, draws, seed, med) == 0)
        r = percentile_interval(med, (size_t)draws);
    free(med);
    return r;
}

struct hb_summary hb_summarise(const double *x, size_t n, uint64_t seed)
{
    struct hb_summary r = { n, NAN, NAN, NAN, NAN, NAN, NAN, { NAN, NAN } };
    double *s = n ? sorted_copy(x, n) : NULL;
    if (!s) return r;
    r.median = quantile_of_sorted(s, n, 0.5);
    r.min = s[0];
    r.max = s[n - 1];
    r.q1 = quantile_of_sorted(s, n, 0.25);
    r.q3 = quantile_of_sorted(s, n, 0.75);
    for (size_t i = 0; i < n; i++) s[i] = fabs(s[i] - r.median);
    r.mad = hb_median(s, n);
    free(s);
    r.ci95 = hb_median_ci(x, n, DRAWS, seed);
    return r;
}

static struct hb_ratio ratio_of_pairs(const double *a, const double *b, size_t n, uint64_t seed)
{
    struct hb_ratio r = { NAN, { NAN, NAN } };
    double *q = malloc(n * sizeof *q);
    if (!q) return r;
    for (size_t i = 0; i < n; i++) q[i] = a[i] / b[i];
    r.r = hb_median(q, n);
    r.ci95 = hb_median_ci(q, n, DRAWS, seed);
    free(q);
    return r;
}

struct hb_ratio hb_ratio_of(const double *a, size_t na, const double *b, size_t nb, int paired,
                            uint64_t seed)
{
    struct hb_ratio r = { NAN, { NAN, NAN } };
    if (na == 0 || nb == 0) return r;
    if (paired) return ratio_of_pairs(a, b, na < nb ? na : nb, seed);
    double *ma = malloc(2 * DRAWS * sizeof *ma);
    if (!ma) return r;
    double *mb = ma + DRAWS;
    // Streams of a and b must differ, or equal samples would be resampled alike.
    if (bootstrap_medians(a, na, DRAWS, seed, ma) == 0
        && bootstrap_medians(b, nb, DRAWS, ~seed, mb) == 0) {
        for (int k = 0; k < DRAWS; k++) ma[k] /= mb[k];
        r.r = hb_median(a, na) / hb_median(b, nb);
        r.ci95 = percentile_interval(ma, DRAWS);
    }
    free(ma);
    return r;
}

// --- Mann-Whitney --------------------------------------------------------------------------------

// Twice the midranks (integers) of a's and b's values in the joint order, a's first. Returns the
// tie sum of t^3 - t over groups of equal values, or -1 if there is no memory.
static double double_midranks(const double *a, size_t na, const double *b, size_t nb,
                              int64_t *rank2)
{
    size_t n = na + nb;
    double *all = malloc(n * sizeof *all), *s = NULL, ties = 0;
    if (!all) return -1;
    memcpy(all, a, na * sizeof *all);
    memcpy(all + na, b, nb * sizeof *all);
    s = sorted_copy(all, n);
    if (!s) { free(all); return -1; }
    for (size_t i = 0; i < n; ) {
        size_t j = i;
        while (j < n && s[j] == s[i]) j++;
        double t = (double)(j - i);
        ties += t * t * t - t;
        for (size_t k = 0; k < n; k++)
            if (all[k] == s[i]) rank2[k] = (int64_t)(i + 1 + j);   // twice their mean rank
        i = j;
    }
    free(s);
    free(all);
    return ties;
}

// Exact two-sided p: how many of the C(n,na) choices of na ranks have a sum at least as extreme.
static double exact_p(const int64_t *rank2, int na, int n, int64_t observed)
{
    int64_t top = 0;
    for (int i = 0; i < n; i++) top += rank2[i];
    size_t width = (size_t)top + 1;
    double *ways = calloc((size_t)(na + 1) * width, sizeof *ways);   // ways[k * width + sum]
    if (!ways) return NAN;
    ways[0] = 1;
    for (int i = 0; i < n; i++)
        for (int k = i + 1 < na ? i + 1 : na; k >= 1; k--)
            for (int64_t s = top; s >= rank2[i]; s--)
                ways[(size_t)k * width + (size_t)s] +=
                    ways[(size_t)(k - 1) * width + (size_t)(s - rank2[i])];
    const double *w = ways + (size_t)na * width;
    double below = 0, above = 0, all = 0;
    for (int64_t s = 0; s <= top; s++) {
        all += w[s];
        if (s <= observed) below += w[s];
        if (s >= observed) above += w[s];
    }
    free(ways);
    return fmin(1, 2 * fmin(below, above) / all);
}

double hb_mann_whitney_p(const double *a, size_t na, const double *b, size_t nb)
{
    if (na == 0 || nb == 0) return NAN;
    size_t n = na + nb;
    int64_t *rank2 = malloc(n * sizeof *rank2), sum2 = 0;
    if (!rank2) return NAN;
    double ties = double_midranks(a, na, b, nb, rank2), p = NAN;
    for (size_t i = 0; i < na; i++) sum2 += rank2[i];
    if (ties < 0) {
        p = NAN;
    } else if (na <= EXACT_MAX && nb <= EXACT_MAX) {
        p = exact_p(rank2, (int)na, (int)n, sum2);
    } else {
        double m = (double)na, k = (double)nb, N = (double)n;
        double u = 0.5 * (double)sum2 - m * (m + 1) / 2, mean = m * k / 2;
        double var = m * k / 12 * (N + 1 - ties / (N * (N - 1)));
        double z = var > 0 ? fmax(0, fabs(u - mean) - 0.5) / sqrt(var) : 0;
        p = fmin(1, erfc(z / sqrt(2)));
    }
    free(rank2);
    return p;
}

// --- Student t and the power law -----------------------------------------------------------------

// Regularised incomplete beta I_x(a,b) by its continued fraction (Lentz), for x < (a+1)/(a+b+2).
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double f = d;
    for (int m = 1; m < 10000; m++) {
        for (int odd = 0; odd < 2; odd++) {
            double num = odd ? -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
                             : m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
            d = 1 + num * d;
            c = 1 + num / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            if (fabs(c) < tiny) c = tiny;
            f *= c * d;
        }
        if (fabs(c * d - 1) < 1e-15) break;
    }
    return f * exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a;
}

// P(T > t) of Student's t, t >= 0.
static double t_tail(double t, double df)
{
    double x = df / (df + t * t), a = df / 2, b = 0.5;
    double i = x < (a + 1) / (a + b + 2) ? beta_fraction(a, b, x) : 1 - beta_fraction(b, a, 1 - x);
    return 0.5 * i;
}

double hb_t975(double df)
{
    if (!(df >= 1)) return NAN;
    if (df > 1e7) return 1.959963984540054; // the normal quantile; the difference is below 1e-7
    double lo = 1.9, hi = 12.8;                      // df = 1: 12.706
    for (int i = 0; i < 100 && hi - lo > 1e-13; i++) {
        double mid = 0.5 * (lo + hi);
        if (t_tail(mid, df) > 0.025) lo = mid; else hi = mid;
    }
    return 0.5 * (lo + hi);
}

int hb_powerfit(const double *x, const double *y, size_t n, struct hb_powerfit *out)
{
    if (n < 3) return hb_fail(HB_ERR_INPUT, "power-law fit: %zu points, at least 3 expected", n);
    double mx = 0, my = 0, sxx = 0, sxy = 0, syy = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(x[i] > 0 && y[i] > 0 && isfinite(x[i]) && isfinite(y[i])))
            return hb_fail(HB_ERR_INPUT, "power-law fit: point (%g, %g), positive numbers expected",
                           x[i], y[i]);
        mx += log(x[i]) / (double)n;
        my += log(y[i]) / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        double dx = log(x[i]) - mx, dy = log(y[i]) - my;
        sxx += dx * dx;
        sxy += dx * dy;
        syy += dy * dy;
    }
    if (!(sxx > 0))
        return hb_fail(HB_ERR_INPUT, "power-law fit: every x is %g, different ones expected", x[0]);
    double e = sxy / sxx, rest = fmax(0, syy - e * sxy);
    double half = hb_t975((double)n - 2) * sqrt(rest / ((double)n - 2) / sxx);
    *out = (struct hb_powerfit){ .exponent = e,
                                 .coef = exp(my - e * mx),
                                 .r2 = syy > 0 ? 1 - rest / syy : 1,
                                 .ci95 = { e - half, e + half } };
    return 0;
}
