// stats.h: the statistics of the suite. Pure functions over arrays; none changes its input.
#ifndef HB_STATS_H
#define HB_STATS_H

#include <stddef.h>
#include <stdint.h>

struct hb_interval { double lo, hi; };
struct hb_summary { size_t n; double median, min, max, q1, q3, mad; struct hb_interval ci95; };

double hb_quantile(const double *x, size_t n, double q);           // type 7 (linear), n >= 1
double hb_median(const double *x, size_t n);
// 95 % percentile-bootstrap interval of the median, `draws` resamples, seeded. n == 1: [x, x].
struct hb_interval hb_median_ci(const double *x, size_t n, int draws, uint64_t seed);
struct hb_summary hb_summarise(const double *x, size_t n, uint64_t seed);
// Ratio of medians a/b with a bootstrap interval: independent samples, or pairs (same round) if
// paired (then the median of the per-pair ratios).
struct hb_ratio { double r; struct hb_interval ci95; };
struct hb_ratio hb_ratio_of(const double *a, size_t na, const double *b, size_t nb, int paired,
                            uint64_t seed);
// Two-sided, exact for n <= 20.
double hb_mann_whitney_p(const double *a, size_t na, const double *b, size_t nb);
// y = c x^e by least squares in log-log; interval of e by t quantile. n >= 3.
struct hb_powerfit { double exponent, coef, r2; struct hb_interval ci95; };
int hb_powerfit(const double *x, const double *y, size_t n, struct hb_powerfit *out);
// Student t quantile, two-sided 95 %, df >= 1.
double hb_t975(double df);
void hb_sort(double *x, size_t n);
// Ascending, each value once; returns how many are left.
size_t hb_sort_unique(int64_t *x, size_t n);

// Where do two curves cross? Lengths ascending; time of a and b with intervals at the common
// lengths. Log-log interpolation between neighbours; the interval by resampling within each point's
// ci95 (seeded).
enum hb_cross_kind {
    HB_CROSS_SINGLE, HB_CROSS_MULTIPLE, HB_CROSS_NONE_A, HB_CROSS_NONE_B, HB_CROSS_TIE
};
struct hb_curve_pt { double L, a, a_lo, a_hi, b, b_lo, b_hi; };
struct hb_crossing {
    enum hb_cross_kind kind;     // NONE_A: a is better everywhere; TIE: all intervals overlap
    double L_star;               // the last crossing, b better after it (see b_wins_after); 0: none
    struct hb_interval ci95;
    int n_crossings;
    size_t n_tied;               // lengths at which the two intervals overlap: undecided
    int b_wins_after;            // 1 if b is the better one beyond L_star
    double bracket_lo, bracket_hi;   // measured lengths around it (for refinement); without
                                     // a crossing an undecided end of the range, or 0
};
void hb_cross(const struct hb_curve_pt *c, size_t n, uint64_t seed, struct hb_crossing *out);

#endif
