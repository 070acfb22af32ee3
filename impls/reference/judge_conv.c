// judge_conv.c: float64 judge of the causal long convolution, forward and backward, by channels.
//     y[t]  = sum_{s<=t} h[s] u[t-s] + d u[t]
//     du[t] = sum_{q>=t} h[q-t] dy[q] + d dy[t]
//     dh[s] += sum_{q>=s} dy[q] u[q-s]      dd = sum_t dy[t] u[t]
// Method    the sums as they stand, 16 outputs side by side so that the compiler can use vectors.
// Cost      2 flop a term: L(L+1) forward, 2 L(L+1) backward. No memory beyond the stack.
// Accuracy  plain sums of 64 terms, added with compensation (two-sum): rel. L2 against __float128
//           measured at most 2e-15 up to L = 65536, also when all terms are equal.
#include "judge.h"

enum { WIDE = 16, CHUNK = 64 };

// A sum and what rounding took from it (Knuth's two-sum: exact, no branch).
static inline void add_exact(double *sum, double *lost, double x)
{
    const double t = *sum + x, z = t - *sum;
    *lost += (*sum - (t - z)) + (x - z);
    *sum = t;
}

// start + the sum over s < n of a[s] x[step * s].
static double one(double start, const double *a, const double *x, int step, int64_t n)
{
    double total = start, lost = 0;
    for (int64_t s0 = 0; s0 < n; s0 += CHUNK) {
        const int64_t end = n - s0 < CHUNK ? n : s0 + CHUNK;
        double part = 0;
        for (int64_t s = s0; s < end; s++)
            part += a[s] * x[step * s];
        add_exact(&total, &lost, part);
    }
    return total + lost;
}

// For j < WIDE: total[j] = the sum over s < n of a[s] x[j + step * s].
static void many(double *total, const double *a, const double *x, int step, int64_t n)
{
    double sum[WIDE] = { 0 }, lost[WIDE] = { 0 };
    for (int64_t s0 = 0; s0 < n; s0 += CHUNK) {
        const int64_t end = n - s0 < CHUNK ? n : s0 + CHUNK;
        double part[WIDE] = { 0 };
        for (int64_t s = s0; s < end; s++) {
            const double *xs = x + step * s, as = a[s];
#pragma GCC unroll 16
            for (int j = 0; j < WIDE; j++)
                part[j] += as * xs[j];
        }
        for (int j = 0; j < WIDE; j++)
            add_exact(&sum[j], &lost[j], part[j]);
    }
    for (int j = 0; j < WIDE; j++)
        total[j] = sum[j] + lost[j];
}

// y[t] = sum over s <= t of h[s] u[t-s]
static void convolve(const double *h, const double *u, double *y, int64_t L)
{
    int64_t t = 0;
    for (; t + WIDE <= L; t += WIDE) {
        many(y + t, h, u + t, -1, t + 1);   // the taps that all 16 outputs have, then the others
        for (int j = 1; j < WIDE; j++)
            y[t + j] = one(y[t + j], h + t + 1, u + j - 1, -1, j);
    }
    for (; t < L; t++)
        y[t] = one(0, h, u + t, -1, t + 1);
}

// y[t] += sum over s < L-t of a[s] x[t+s]
static void correlate(const double *a, const double *x, double *y, int64_t L)
{
    int64_t t = 0;
    for (; t + WIDE <= L; t += WIDE) {
        const int64_t n = L - t - WIDE + 1;
        double common[WIDE];
        many(common, a, x + t, 1, n);
        for (int j = 0; j < WIDE; j++)
            y[t + j] += one(common[j], a + n, x + t + j + n, 1, WIDE - 1 - j);
    }
    for (; t < L; t++)
        y[t] += one(0, a, x + t, 1, L - t);
}

void hb_judge_conv_channel(const double *u, const double *h, double d, double *y, int64_t L)
{
    convolve(h, u, y, L);
    for (int64_t t = 0; t < L; t++)
        y[t] += d * u[t];
}

double hb_judge_conv_channel_bwd(const double *u, const double *h, double d, const double *dy,
                                 double *du, double *dh, int64_t L)
{
    for (int64_t t = 0; t < L; t++)
        du[t] = d * dy[t];
    correlate(h, dy, du, L);
    correlate(u, dy, dh, L);
    return one(0, u, dy, 1, L);
}
