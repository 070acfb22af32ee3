// test_stats.c: the statistics against values from SciPy 1.10.1 and cases with a known answer.
#include "../bench/stats.h"
#include "../impls/core/rng.h"
#include "tests.h"

static const double a[] = {12.1, 11.9, 12.4, 12.0, 12.2, 13.9, 11.8, 12.3};
static const double b[] = {12.6, 12.9, 13.1, 12.5, 14.2, 12.8, 13.0};
enum { NA = 8, NB = 7 };

static void near(const char *what, double got, double want, double tol)
{
    cr_expect(fabs(got - want) <= tol * fmax(1, fabs(want)), "%s: got %.15g, expected %.15g", what,
              got, want);
}

Test(stats, quantiles)
{
    static const double q[] = {0, .1, .25, .5, .75, .9, 1};
    static const double want[] = {11.8, 11.87, 11.975, 12.15, 12.325, 12.85, 13.9};
    for (int i = 0; i < 7; i++)
        near("quantile", hb_quantile(a, NA, q[i]), want[i], 1e-13);
    near("one number", hb_quantile(a, 1, .3), 12.1, 0);
    near("median", hb_median(b, NB), 12.9, 1e-15);
    struct hb_summary s = hb_summarise(a, NA, 7);
    near("mad", s.mad, 0.2, 1e-12);
    near("min", s.min, 11.8, 0);
    near("max", s.max, 13.9, 0);
    cr_expect(a[0] == 12.1 && a[5] == 13.9, "the input was changed");
}

Test(stats, mann_whitney)
{
    static const double lo[] = {1, 2, 3, 4}, hi[] = {5, 6, 7, 8};
    near("exact", hb_mann_whitney_p(a, NA, b, NB), 0.009324009324009324, 1e-12);
    near("3 against 3", hb_mann_whitney_p(lo, 3, hi, 3), 0.1, 1e-12);
    near("4 against 4", hb_mann_whitney_p(lo, 4, hi, 4), 0.02857142857142857, 1e-12);
    double x[30], y[30];
    for (int i = 0; i < 30; i++)
        x[i] = i + 1, y[i] = 1.1 * (i + 1) + 2.05;
    near("asymptotic", hb_mann_whitney_p(x, 30, y, 30), 0.1536672354850899, 1e-9);
    near("identical", hb_mann_whitney_p(x, 30, x, 30), 1, 1e-9);
}

Test(stats, student_t)
{
    static const double df[] = {1, 2, 3, 5, 10, 30, 100};
    static const double want[] = {12.706204736432095, 4.302652729911275,  3.182446305284263,
                                  2.5705818366147395, 2.2281388519649385, 2.0422724563012373,
                                  1.9839715184496334};
    for (int i = 0; i < 7; i++)
        near("t quantile", hb_t975(df[i]), want[i], 1e-6);
}

Test(stats, power_fit)
{
    static const double L[] = {1024, 2048, 4096, 8192, 16384}, t[] = {1.1, 2.3, 4.4, 9.7, 19.0};
    struct hb_powerfit f;
    cr_assert_eq(hb_powerfit(L, t, 5, &f), 0);
    near("exponent", f.exponent, 1.0297198865517418, 1e-12);
    near("coefficient", log(f.coef), -7.039691491890275, 1e-12);
    near("r2", f.r2, 0.9993064536399562, 1e-12);
    near("lower", f.ci95.lo, 0.9798764520579512, 1e-6);
    near("upper", f.ci95.hi, 1.0795633210455324, 1e-6);
    cr_expect(hb_powerfit(L, t, 2, &f) != 0, "two points fix no interval");
}

// The 95 % interval of the median covers the true median in about 95 of 100 samples (binomial: 400
// trials, standard error 1.1 points; the percentile bootstrap at n = 30 is a little narrow).
Test(stats, bootstrap_covers)
{
    int covered = 0;
    enum { TRIALS = 400, N = 30 };
    for (int trial = 0; trial < TRIALS; trial++) {
        double x[N];
        for (int i = 0; i < N; i++)
            x[i] = exp(0.3 * hb_rng_normal(99, (uint64_t)trial, (uint64_t)i));
        struct hb_interval ci = hb_median_ci(x, N, 1000, (uint64_t)trial);
        covered += ci.lo <= 1 && 1 <= ci.hi;
    }
    cr_expect(covered >= 360 && covered <= 398, "covered %d of 400", covered);
    struct hb_interval one = hb_median_ci(a, 1, 1000, 3), again = hb_median_ci(a, NA, 1000, 3);
    struct hb_interval same = hb_median_ci(a, NA, 1000, 3);
    cr_expect(one.lo == a[0] && one.hi == a[0], "n = 1");
    cr_expect(again.lo == same.lo && again.hi == same.hi, "the same seed gives the same interval");
}

Test(stats, ratio)
{
    double x[40], y[40];
    for (int i = 0; i < 40; i++) {
        double drift = 1 + i * 0.05;   // the machine slows down during the run
        x[i] = 2 * drift * (1 + 0.01 * hb_rng_normal(5, 1, (uint64_t)i));
        y[i] = 1 * drift * (1 + 0.01 * hb_rng_normal(5, 2, (uint64_t)i));
    }
    struct hb_ratio paired = hb_ratio_of(x, 40, y, 40, 1, 1);
    struct hb_ratio apart = hb_ratio_of(x, 40, y, 40, 0, 1);
    near("paired", paired.r, 2, 0.01);
    cr_expect(paired.ci95.lo <= 2 && 2 <= paired.ci95.hi, "[%g, %g]", paired.ci95.lo,
              paired.ci95.hi);
    cr_expect(paired.ci95.hi - paired.ci95.lo < 0.2 * (apart.ci95.hi - apart.ci95.lo),
              "pairs cancel the drift");
}

static struct hb_crossing cross(double (*fa)(double), double (*fb)(double), double noise)
{
    struct hb_curve_pt c[9];
    for (int i = 0; i < 9; i++) {
        double L = 128 << i;
        c[i] = (struct hb_curve_pt){L, fa(L), fa(L) * (1 - noise), fa(L) * (1 + noise),
                                    fb(L), fb(L) * (1 - noise), fb(L) * (1 + noise)};
    }
    struct hb_crossing x;
    hb_cross(c, 9, 1, &x);
    return x;
}
static double quadratic(double L) { return L * L; }
static double linear(double L) { return 3000 * L; }          // crosses L^2 at 3000
static double tiny(double L) { return L; }
static double nearly_quadratic(double L) { return 1.001 * L * L; }
static double wavy(double L) { return 3000 * L * (L > 300 && L < 1500 ? 0.05 : 1); }

Test(stats, crossover)
{
    struct hb_crossing x = cross(quadratic, linear, 0.02);
    cr_expect_eq(x.kind, HB_CROSS_SINGLE);
    near("L*", x.L_star, 3000, 0.01);
    cr_expect(x.ci95.lo < 3000 && 3000 < x.ci95.hi && x.ci95.hi - x.ci95.lo < 400, "[%g, %g]",
              x.ci95.lo, x.ci95.hi);
    cr_expect(x.b_wins_after && x.bracket_lo == 2048 && x.bracket_hi == 4096, "bracket %g %g",
              x.bracket_lo, x.bracket_hi);
    cr_expect_eq(cross(linear, tiny, 0.02).kind, HB_CROSS_NONE_B, "b is always faster");
    cr_expect_eq(cross(tiny, linear, 0.02).kind, HB_CROSS_NONE_A, "a is always faster");
    cr_expect_eq(cross(quadratic, nearly_quadratic, 0.05).kind, HB_CROSS_TIE,
                 "intervals overlap everywhere");
    cr_expect(x.n_tied <= 1, "clear curves: %zu undecided", x.n_tied);
    cr_expect_eq(cross(quadratic, nearly_quadratic, 0.05).n_tied, 9);
    struct hb_crossing m = cross(quadratic, wavy, 0.001);
    cr_expect(m.kind == HB_CROSS_MULTIPLE && m.n_crossings == 3, "kind %d, %d crossings",
              (int)m.kind, m.n_crossings);
}
