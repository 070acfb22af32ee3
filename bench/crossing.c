// crossing.c: where two measured curves cross, and how sure that is.
//
// Method    a length is decided when the two intervals do not overlap. Crossings are sign changes
//           in the sequence of decided lengths, so noise on a plateau makes no crossing. The last
//           one lies between two decided lengths of opposite sign; inside, log(time ratio) is
//           linear in log L between neighbours.
// Interval  every log time is drawn from a normal around it (sigma = half the log width of its ci95
//           / 1.96); L_star and ci95 are the 50, 2.5 and 97.5 % quantiles of the last zero over
//           2000 draws.
// Without a crossing L_star, ci95 and bracket are 0; but if lengths at the end of the range are
// undecided, the bracket spans them: measure there.
#include <math.h>
#include <string.h>

#include "../impls/core/rng.h"
#include "stats.h"

enum { DRAWS = 2000, MAX_POINTS = 512 };

// +1: a is better, -1: b is better, 0: the intervals overlap.
static int decide(const struct hb_curve_pt *c)
{
    return c->a_hi < c->b_lo ? 1 : c->b_hi < c->a_lo ? -1 : 0;
}

static double sigma(double lo, double hi)
{
    return lo > 0 && hi > lo ? (log(hi) - log(lo)) / 2 / 1.96 : 0;
}

// Last zero of d (n values at log lengths x), linear between them; NAN if the sign never changes.
static double last_zero(const double *x, const double *d, size_t n)
{
    for (size_t i = n - 1; i > 0; i--)
        if ((d[i - 1] > 0) != (d[i] > 0))
            return x[i - 1] + (x[i] - x[i - 1]) * d[i - 1] / (d[i - 1] - d[i]);
    return NAN;
}

// Quantiles of the last zero between the decided lengths c[0] and c[n-1].
static void locate(const struct hb_curve_pt *c, size_t n, uint64_t seed, struct hb_crossing *out)
{
    double x[MAX_POINTS], d[MAX_POINTS], zero[DRAWS];
    size_t found = 0;
    for (size_t i = 0; i < n; i++) x[i] = log(c[i].L);
    for (uint64_t k = 0; k < DRAWS; k++) {
        for (size_t i = 0; i < n; i++)
            d[i] = log(c[i].b) - log(c[i].a)
                   + sigma(c[i].a_lo, c[i].a_hi) * hb_rng_normal(seed, k, 2 * i)
                   - sigma(c[i].b_lo, c[i].b_hi) * hb_rng_normal(seed, k, 2 * i + 1);
        double z = last_zero(x, d, n);
        if (isfinite(z)) zero[found++] = z;
    }
    if (found == 0) {                       // cannot happen with medians inside their intervals
        zero[found++] = x[0];
        zero[found++] = x[n - 1];
    }
    out->L_star = exp(hb_quantile(zero, found, 0.5));
    out->ci95.lo = exp(hb_quantile(zero, found, 0.025));
    out->ci95.hi = exp(hb_quantile(zero, found, 0.975));
    out->bracket_lo = c[0].L;
    out->bracket_hi = c[n - 1].L;
    for (size_t i = 0; i < n; i++) {
        if (c[i].L <= out->L_star) out->bracket_lo = c[i].L;
        if (c[n - 1 - i].L >= out->L_star) out->bracket_hi = c[n - 1 - i].L;
    }
}

void hb_cross(const struct hb_curve_pt *c, size_t n, uint64_t seed, struct hb_crossing *out)
{
    *out = (struct hb_crossing){ .kind = HB_CROSS_TIE };
    // Decided lengths: around the last change of sign, the first, the last.
    size_t before = 0, after = 0, first = n, last = n;
    for (size_t i = 0; i < n; i++) {
        int s = decide(&c[i]);
        if (s == 0) {
            out->n_tied++;
            continue;
        }
        if (first == n) first = i;
        if (last < n && s != decide(&c[last])) {
            out->n_crossings++;
            before = last;
            after = i;
        }
        last = i;
    }
    if (first == n) return;
    int a_wins_last = decide(&c[last]) > 0;
    out->b_wins_after = !a_wins_last;
    if (out->n_crossings == 0) {
        out->kind = a_wins_last ? HB_CROSS_NONE_A : HB_CROSS_NONE_B;
        if (last + 1 < n) { out->bracket_lo = c[last].L; out->bracket_hi = c[n - 1].L; }
        else if (first > 0) { out->bracket_lo = c[0].L; out->bracket_hi = c[first].L; }
        return;
    }
    out->kind = out->n_crossings == 1 ? HB_CROSS_SINGLE : HB_CROSS_MULTIPLE;
    size_t span = after - before + 1;
    // More lengths than fit are all undecided but the two ends: the ones next to `after` decide the
    // last zero.
    if (span > MAX_POINTS) { before = after + 1 - MAX_POINTS; span = MAX_POINTS; }
    locate(c + before, span, seed, out);
}
