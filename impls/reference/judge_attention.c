// judge_attention.c: the float64 judge of causal softmax attention, one head.
//     y[t] = sum_{j<=t} w[t,j] v[j],   w[t,:] = softmax_{j<=t}(q[t].k[j] / sqrt(P))   q,k,v,y (L,P)
// Method    each query row whole: scores, their maximum, libm exp, weighted sum. Sums over keys or
//           queries go in blocks of BLOCK terms whose totals are then added. The backward pass goes
//           over rows for dq and over blocks of keys for dk, dv, with the weights afresh in each.
// Cost      per row 4 P (t+1) flop; backward 14 P L (L+1)/2 flop; memory O(L) per thread.
// Source    the definition; Vaswani et al. 2017, arXiv:1706.03762, equation 1.
// Accuracy  relative L2 near 1e-15 for scores of order 1 (error of a score s: about 1e-16 |s|).
// Errors    HB_ERR_OOM without a message (it has no host to tell); the caller names the problem.
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "judge.h"

enum { BLOCK = 64 };

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

// s[j] = scale a . x[j] for j in [0,n): four rows of x at a time, so that four sums are in flight.
static void dots(double *s, const double *a, const double *x, double scale, int64_t n, int64_t P)
{
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
        const double *const x0 = x + j * P;
        double d0 = 0, d1 = 0, d2 = 0, d3 = 0;
#pragma omp simd reduction(+ : d0, d1, d2, d3)
        for (int64_t p = 0; p < P; p++) {
            d0 += a[p] * x0[p];
            d1 += a[p] * x0[P + p];
            d2 += a[p] * x0[2 * P + p];
            d3 += a[p] * x0[3 * P + p];
        }
        s[j] = scale * d0, s[j + 1] = scale * d1, s[j + 2] = scale * d2, s[j + 3] = scale * d3;
    }
    for (; j < n; j++) {
        double d = 0;
#pragma omp simd reduction(+ : d)
        for (int64_t p = 0; p < P; p++)
            d += a[p] * x[j * P + p];
        s[j] = scale * d;
    }
}

// y (P) += w . x: sum over j in [0,n) of w[j] x[j], blocked; `part` (P) is scratch.
static void weigh(double *y, double *part, const double *w, const double *x, int64_t n, int64_t P)
{
    for (int64_t j0 = 0; j0 < n; j0 += BLOCK) {
        memset(part, 0, sizeof *part * (size_t)P);
        for (int64_t j = j0; j < min64(n, j0 + BLOCK); j++)
            for (int64_t p = 0; p < P; p++)
                part[p] += w[j] * x[j * P + p];
        for (int64_t p = 0; p < P; p++)
            y[p] += part[p];
    }
}

// Sum of a[j] b[j], blocked; b NULL: sum of a.
static double block_sum(const double *a, const double *b, int64_t n)
{
    double total = 0;
    for (int64_t j0 = 0; j0 < n; j0 += BLOCK) {
        double part = 0;
        for (int64_t j = j0; j < min64(n, j0 + BLOCK); j++)
            part += b ? a[j] * b[j] : a[j];
        total += part;
    }
    return total;
}

// w[j] = softmax over j in [0,n) of scale q . k[j]. Returns log sum exp.
static double weights(double *w, const double *q, const double *k, int64_t n, int64_t P)
{
    dots(w, q, k, 1.0 / sqrt((double)P), n, P);
    double top = w[0];
    for (int64_t j = 1; j < n; j++)
        top = w[j] > top ? w[j] : top;
    for (int64_t j = 0; j < n; j++)
        w[j] = exp(w[j] - top);
    const double sum = block_sum(w, NULL, n);
    for (int64_t j = 0; j < n; j++)
        w[j] /= sum;
    return top + log(sum);
}

// Scratch of every thread, in one piece: `each` doubles per thread. NULL: no memory.
static double *scratch(int64_t each)
{
    return calloc((size_t)omp_get_max_threads() * (size_t)each, sizeof(double));
}

int hb_judge_attention_rows(const double *q, const double *k, const double *v, const int64_t *rows,
                            int64_t n, double *y, int64_t L, int64_t P)
{
    double *const all = scratch(L + P);
    if (!all)
        return HB_ERR_OOM;
#pragma omp parallel for schedule(dynamic, 8)
    for (int64_t r = 0; r < n; r++) {
        double *const w = all + omp_get_thread_num() * (L + P), *const part = w + L;
        weights(w, q + rows[r] * P, k, rows[r] + 1, P);
        memset(y + r * P, 0, sizeof *y * (size_t)P);
        weigh(y + r * P, part, w, v, rows[r] + 1, P);
    }
    free(all);
    return HB_OK;
}

// Rows: dp[t,j] = dy[t].v[j],  delta[t] = sum_j w[t,j] dp[t,j],
// dq[t] = scale sum_j w (dp - delta) k[j], and lse[t].     all: 2 L + P doubles per thread
static void rows_bwd(const double *q, const double *k, const double *v, const double *dy,
                     double *dq, double *lse, double *delta, double *all, int64_t L, int64_t P)
{
    const double scale = 1.0 / sqrt((double)P);
#pragma omp parallel for schedule(dynamic, 8)
    for (int64_t t = 0; t < L; t++) {
        double *const w = all + omp_get_thread_num() * (2 * L + P), *const dp = w + L;
        double *const part = dp + L;
        lse[t] = weights(w, q + t * P, k, t + 1, P);
        dots(dp, dy + t * P, v, 1.0, t + 1, P);
        delta[t] = block_sum(w, dp, t + 1);
        for (int64_t j = 0; j <= t; j++)
            w[j] *= scale * (dp[j] - delta[t]);
        memset(dq + t * P, 0, sizeof *dq * (size_t)P);
        weigh(dq + t * P, part, w, k, t + 1, P);
    }
}

// Keys: dv[j] = sum_{t>=j} w[t,j] dy[t],   dk[j] = scale sum_{t>=j} w (dp - delta) q[t]
// by blocks of keys, each one thread's; sums over BLOCK queries at a time.  all: 2 (BLOCK,P) each
static void keys_bwd(const double *q, const double *k, const double *v, const double *dy,
                     double *dk, double *dv, const double *lse, const double *delta, double *all,
                     int64_t L, int64_t P)
{
    const double scale = 1.0 / sqrt((double)P);
    memset(dk, 0, sizeof *dk * (size_t)(L * P));
    memset(dv, 0, sizeof *dv * (size_t)(L * P));
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t j0 = 0; j0 < L; j0 += BLOCK) {
        double *const pk = all + omp_get_thread_num() * 2 * BLOCK * P, *const pv = pk + BLOCK * P;
        double w[BLOCK], dp[BLOCK];
        for (int64_t t0 = j0; t0 < L; t0 += BLOCK) {
            memset(pk, 0, sizeof *pk * 2 * BLOCK * (size_t)P);
            for (int64_t t = t0; t < min64(L, t0 + BLOCK); t++) {
                const int64_t n = min64(BLOCK, t - j0 + 1);
                dots(w, q + t * P, k + j0 * P, scale, n, P);
                dots(dp, dy + t * P, v + j0 * P, 1.0, n, P);
                for (int64_t j = 0; j < n; j++) {
                    const double wj = exp(w[j] - lse[t]), ds = wj * scale * (dp[j] - delta[t]);
                    for (int64_t p = 0; p < P; p++) {
                        pv[j * P + p] += wj * dy[t * P + p];
                        pk[j * P + p] += ds * q[t * P + p];
                    }
                }
            }
            for (int64_t e = 0; e < min64(BLOCK, L - j0) * P; e++) {
                dk[j0 * P + e] += pk[e];
                dv[j0 * P + e] += pv[e];
            }
        }
    }
}

int hb_judge_attention_bwd(const double *q, const double *k, const double *v, const double *dy,
                           double *dq, double *dk, double *dv, int64_t L, int64_t P)
{
    const int64_t each = 2 * L + P > 2 * BLOCK * P ? 2 * L + P : 2 * BLOCK * P;
    double *const all = scratch(each), *const lse = calloc((size_t)L * 2, sizeof *lse);
    if (!all || !lse) {
        free(all);
        free(lse);
        return HB_ERR_OOM;
    }
    rows_bwd(q, k, v, dy, dq, lse, lse + L, all, L, P);
    keys_bwd(q, k, v, dy, dk, dv, lse, lse + L, all, L, P);
    free(all);
    free(lse);
    return HB_OK;
}
