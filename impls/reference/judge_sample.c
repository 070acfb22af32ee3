// judge_sample.c: float64 judges of chosen rows, for problems whose whole judge would take too
// long.
//     longconv   y[t] = sum_{s<=t} h[s] u[t-s] + d u[t]           u,h (L), one channel
//     attention  y[t] = sum_{s<=t} p[t,s] v[s], p = softmax       q,k,v (L,P), one head
// Backward  with dy zero except at the chosen rows every gradient is a sum over those rows only.
// Cost      longconv 2 n L forward, 4 n L backward; attention backward 10 n L P; memory O(L).
// Source    the definitions; for attention the derivative of softmax, ds = p (dp - sum p dp).
// Accuracy  sums of L terms in parts of 64: relative error below 1e-14 for normal inputs.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "judge.h"

enum { PART = 64 };  // a part is summed plainly, parts are added: error grows with 64 + L/64

// sum_{i<n} a[i] b[i * step], step 1 or -1
static double dot(const double *a, const double *b, int step, int64_t n)
{
    double sum = 0;
    for (int64_t i0 = 0; i0 < n; i0 += PART) {
        int64_t end = i0 + PART < n ? i0 + PART : n;
        double part = 0;
        for (int64_t i = i0; i < end; i++) part += a[i] * b[i * step];
        sum += part;
    }
    return sum;
}

void hb_judge_conv_at(const double *u, const double *h, double d, const int64_t *rows, int64_t n,
                      double *y)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t t = rows[i];
        y[i] = dot(h, u + t, -1, t + 1) + d * u[t];
    }
}

double hb_judge_conv_bwd_at(const double *u, const double *h, double d, const double *dy,
                            const int64_t *rows, int64_t n, double *du, double *dh, int64_t L)
{
    double dd = 0;
    memset(du, 0, (size_t)L * sizeof *du);
    for (int64_t i = 0; i < n; i++) {
        int64_t q = rows[i];
        for (int64_t t = 0; t <= q; t++) du[t] += h[q - t] * dy[i];
        for (int64_t s = 0; s <= q; s++) dh[s] += u[q - s] * dy[i];
        du[q] += d * dy[i];
        dd += u[q] * dy[i];
    }
    return dd;
}

// Row t: p (t+1) the probabilities, ds (t+1) the gradient of the scaled scores.
static void attention_row(const double *q, const double *k, const double *v, const double *dy,
                          int64_t t, int64_t P, double *p, double *ds)
{
    double scale = 1 / sqrt((double)P), top = -INFINITY;
    for (int64_t s = 0; s <= t; s++) {
        p[s] = scale * dot(q, k + s * P, 1, P);
        top = fmax(top, p[s]);
    }
    for (int64_t s = 0; s <= t; s++) p[s] = exp(p[s] - top);
    static const double one = 1;
    double norm = dot(p, &one, 0, t + 1);
    for (int64_t s = 0; s <= t; s++) {
        p[s] /= norm;
        ds[s] = dot(dy, v + s * P, 1, P);
    }
    double mean = dot(p, ds, 1, t + 1);
    for (int64_t s = 0; s <= t; s++) ds[s] = p[s] * (ds[s] - mean) * scale;
}

int hb_judge_attention_bwd_at(const double *q, const double *k, const double *v, const double *dy,
                              const int64_t *rows, int64_t n, double *dq, double *dk, double *dv,
                              int64_t L, int64_t P)
{
    double *p = malloc(2 * (size_t)L * sizeof *p);
    if (!p) return HB_ERR_OOM;
    double *ds = p + L;
    memset(dq, 0, (size_t)(n * P) * sizeof *dq);
    memset(dk, 0, (size_t)(L * P) * sizeof *dk);
    memset(dv, 0, (size_t)(L * P) * sizeof *dv);
    for (int64_t i = 0; i < n; i++) {
        int64_t t = rows[i];
        attention_row(q + t * P, k, v, dy + i * P, t, P, p, ds);
        for (int64_t s = 0; s <= t; s++)
            for (int64_t c = 0; c < P; c++) {
                dq[i * P + c] += ds[s] * k[s * P + c];
                dk[s * P + c] += ds[s] * q[t * P + c];
                dv[s * P + c] += p[s] * dy[i * P + c];
            }
    }
    free(p);
    return 0;
}
