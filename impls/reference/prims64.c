// prims64.c: the device primitives in float64, written from their contracts in core/device.h and
// the formulas of the specification. Slow on purpose: one loop per index, nothing shared with a
// device.
#include <math.h>
#include <string.h>

#include "prims64.h"

static double at(const double *A, int64_t ld, bool t, int64_t i, int64_t j)
{
    return t ? A[j * ld + i] : A[i * ld + j];
}

void hb64_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const double *A,
               int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++) sum += at(A, lda, ta, i, l) * at(B, ldb, tb, l, j);
            C[i * ldc + j] = alpha * sum
                             + (beta == 0 ? 0 : beta * C[i * ldc + j]);  // beta 0: C may be NaN
        }
}

void hb64_bias_fwd(double *y, const double *b, int64_t R, int64_t C)
{
    for (int64_t i = 0; i < R * C; i++) y[i] += b[i % C];
}

void hb64_bias_bwd(double *db, const double *dy, int64_t R, int64_t C)
{
    for (int64_t i = 0; i < R * C; i++) db[i % C] += dy[i];
}

void hb64_rowbias_fwd(double *y, const double *b, int64_t C, int64_t R)
{
    for (int64_t i = 0; i < C * R; i++) y[i] += b[i / R];
}

void hb64_rowbias_bwd(double *db, const double *dy, int64_t C, int64_t R)
{
    for (int64_t i = 0; i < C * R; i++) db[i / R] += dy[i];
}

// --- layer norm ----------------------------------------------------------------------------------

static void moments(const double *x, int64_t C, double *mean, double *rstd)
{
    double m = 0, var = 0;
    for (int64_t c = 0; c < C; c++) m += x[c] / (double)C;
    for (int64_t c = 0; c < C; c++) var += (x[c] - m) * (x[c] - m) / (double)C;
    *mean = m;
    *rstd = 1 / sqrt(var + 1e-5);
}

void hb64_layernorm_fwd(double *y, double *mean, double *rstd, const double *x, const double *g,
                        const double *b, int64_t R, int64_t C)
{
    for (int64_t r = 0; r < R; r++) {
        moments(x + r * C, C, &mean[r], &rstd[r]);
        for (int64_t c = 0; c < C; c++)
            y[r * C + c] = (x[r * C + c] - mean[r]) * rstd[r] * g[c] + b[c];
    }
}

// d y_c / d x_i = g_c rstd (delta_ci - 1/C - n_c n_i / C),  n = (x - mean) rstd
void hb64_layernorm_bwd(double *dx, double *dg, double *db, const double *dy, const double *x,
                        const double *g, int64_t R, int64_t C)
{
    for (int64_t r = 0; r < R; r++) {
        const double *xr = x + r * C, *e = dy + r * C;
        double mean, rstd, sum = 0, sum_n = 0;
        moments(xr, C, &mean, &rstd);
        for (int64_t c = 0; c < C; c++) {
            double n = (xr[c] - mean) * rstd;
            sum += e[c] * g[c];
            sum_n += e[c] * g[c] * n;
            dg[c] += e[c] * n;
            db[c] += e[c];
        }
        for (int64_t i = 0; i < C; i++)
            dx[r * C + i] +=
                rstd * (e[i] * g[i] - sum / (double)C - (xr[i] - mean) * rstd * sum_n / (double)C);
    }
}

// --- GELU: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) -----------------------------------------

static const double ROOT_2_PI = 0.79788456080286535588;

// (1 + tanh v) / 2 without cancellation for negative v
static double half_tanh(double x)
{
    return 1 / (1 + exp(-2 * ROOT_2_PI * (x + 0.044715 * x * x * x)));
}

void hb64_gelu_fwd(double *y, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * half_tanh(x[i]);
}

void hb64_gelu_bwd(double *dx, const double *dy, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double s = half_tanh(x[i]), rest = half_tanh(-x[i]);            // the second is 1 - s
        dx[i] = dy[i] * (s + x[i] * s * rest * 2 * ROOT_2_PI * (1 + 3 * 0.044715 * x[i] * x[i]));
    }
}

// --- GEMM with what stands around it -------------------------------------------------------------

void hb64_gemm_full(const struct hb_gemm *g)
{
    const double *bias = g->bias;
    for (int64_t b = 0; b < (g->batch > 1 ? g->batch : 1); b++) {
        double *D = (double *)g->D + b * g->sD;
        for (int64_t i = 0; i < g->m && g->C && g->beta != 0; i++)
            memcpy(D + i * g->ldd, (const double *)g->C + b * g->sD + i * g->ldd,
                   (size_t)g->n * sizeof *D);
        hb64_gemm(g->ta, g->tb, g->m, g->n, g->k, (double)g->alpha,
                  (const double *)g->A + b * g->sA, g->lda, (const double *)g->B + b * g->sB,
                  g->ldb, (double)g->beta, D, g->ldd);
        for (int64_t i = 0; i < g->m; i++) {
            double *d = D + i * g->ldd;
            int64_t at_row = b * g->sD + i * g->ldd;
            if (bias) hb64_bias_fwd(d, bias, 1, g->n);
            if (g->gelu_in) {
                memcpy((double *)g->gelu_in + at_row, d, (size_t)g->n * sizeof *d);
                hb64_gelu_fwd(d, d, g->n);
            } else if (g->dgelu) {
                hb64_gelu_bwd(d, d, (const double *)g->dgelu + at_row, g->n);
            }
        }
    }
}

// --- along the sequence --------------------------------------------------------------------------

void hb64_shortconv_fwd(double *y, const double *p, const double *bp, const double *w,
                        const double *bs, int64_t C, int64_t B, int64_t L, int K)
{
    for (int64_t i = 0; i < C * B * L; i++) {
        int64_t c = i / (B * L), t = i % L;
        y[i] = bs[c];
        for (int lag = 0; lag < K && lag <= t; lag++)
            y[i] += w[c * K + K - 1 - lag] * (p[i - lag] + (bp ? bp[c] : 0));
    }
}

void hb64_shortconv_bwd(double *dp, double *dw, double *dbs, double *dbp, const double *dy,
                        const double *p, const double *bp, const double *w, int64_t C, int64_t B,
                        int64_t L, int K)
{
    memset(dp, 0, (size_t)(C * B * L) * sizeof *dp);
    for (int64_t i = 0; i < C * B * L; i++) {
        int64_t c = i / (B * L), t = i % L;
        dbs[c] += dy[i];
        for (int lag = 0; lag < K && lag <= t; lag++) {
            double *tap = dw + c * K + K - 1 - lag, back = w[c * K + K - 1 - lag] * dy[i];
            *tap += dy[i] * (p[i - lag] + (bp ? bp[c] : 0));
            dp[i - lag] += back;
            if (dbp) dbp[c] += back;
        }
    }
}

// Where channel i of head h, tensor n lies in the projection, and in a head's tensor.
static int64_t in_proj(int n, int64_t b, int64_t h, int64_t t, int64_t i, int64_t B, int64_t H,
                       int64_t L, int64_t P)
{
    return (((n * H + h) * P + i) * B + b) * L + t;
}

static int64_t in_head(int64_t b, int64_t h, int64_t t, int64_t i, int64_t H, int64_t L, int64_t P)
{
    return ((b * H + h) * L + t) * P + i;
}

// One channel after a turn by sign * t theta^(-2i/P): pair (lo, hi) -> (c lo - s hi, s lo + c hi).
static double turned(double own, double other, int64_t t, int64_t i, int64_t P, double sign)
{
    int64_t pair = i < P / 2 ? i : i - P / 2;
    double angle = sign * (double)t * pow(10000, -2.0 * (double)pair / (double)P);
    return i < P / 2 ? cos(angle) * own - sin(angle) * other
                     : sin(angle) * other + cos(angle) * own;
}

void hb64_heads_split(double *q, double *k, double *v, const double *p, int64_t B, int64_t H,
                      int64_t L, int64_t P, bool rope)
{
    double *out[3] = { q, k, v };
    for (int n = 0; n < 3; n++)
        for (int64_t b = 0; b < B; b++)
            for (int64_t h = 0; h < H; h++)
                for (int64_t t = 0; t < L; t++)
                    for (int64_t i = 0; i < P; i++) {
                        double x = p[in_proj(n, b, h, t, i, B, H, L, P)];
                        if (rope && n < 2)
                            x = turned(x, p[in_proj(n, b, h, t, (i + P / 2) % P, B, H, L, P)], t, i,
                                       P, 1);
                        out[n][in_head(b, h, t, i, H, L, P)] = x;
                    }
}

void hb64_heads_merge(double *dp, const double *dq, const double *dk, const double *dv, int64_t B,
                      int64_t H, int64_t L, int64_t P, bool rope)
{
    const double *in[3] = { dq, dk, dv };
    for (int n = 0; n < 3; n++)
        for (int64_t b = 0; b < B; b++)
            for (int64_t h = 0; h < H; h++)
                for (int64_t t = 0; t < L; t++)
                    for (int64_t i = 0; i < P; i++) {
                        double x = in[n][in_head(b, h, t, i, H, L, P)];
                        if (rope && n < 2)
                            x = turned(x, in[n][in_head(b, h, t, (i + P / 2) % P, H, L, P)], t, i,
                                       P, -1);
                        dp[in_proj(n, b, h, t, i, B, H, L, P)] = x;
                    }
}

void hb64_heads_join(double *y, const double *x, int64_t B, int64_t H, int64_t L, int64_t P)
{
    for (int64_t b = 0; b < B; b++)
        for (int64_t h = 0; h < H; h++)
            for (int64_t t = 0; t < L; t++)
                for (int64_t i = 0; i < P; i++)
                    y[((b * L + t) * H + h) * P + i] = x[in_head(b, h, t, i, H, L, P)];
}

void hb64_swap(double *y, const double *x, int64_t a, int64_t i, int64_t j, int64_t k)
{
    hb64_heads_join(y, x, a, i, j, k);
}

void hb64_rope(double *x, int64_t R, int64_t L, int64_t H, int64_t P, int64_t ld, bool inverse)
{
    for (int64_t r = 0; r < R; r++)
        for (int64_t h = 0; h < H; h++)
            for (int64_t i = 0; i < P / 2; i++) {
                double *lo = x + r * ld + h * P + i, *hi = lo + P / 2, sign = inverse ? -1 : 1;
                double a = turned(*lo, *hi, r % L, i, P, sign);
                double b = turned(*hi, *lo, r % L, i + P / 2, P, sign);
                *lo = a;
                *hi = b;
            }
}

// --- language model ------------------------------------------------------------------------------

void hb64_embed_fwd(double *x, const double *W, const double *pos, const int32_t *tok, int64_t R,
                    int64_t L, int64_t C)
{
    for (int64_t r = 0; r < R; r++)
        for (int64_t c = 0; c < C; c++)
            x[r * C + c] = W[tok[r] * C + c] + (pos ? pos[(r % L) * C + c] : 0);
}

void hb64_embed_bwd(double *dW, double *dpos, const double *dx, const int32_t *tok, int64_t R,
                    int64_t L, int64_t C)
{
    for (int64_t r = 0; r < R; r++)
        for (int64_t c = 0; c < C; c++) {
            dW[tok[r] * C + c] += dx[r * C + c];
            if (dpos) dpos[(r % L) * C + c] += dx[r * C + c];
        }
}

void hb64_xent(double *nll, double *dz, const double *z, const int32_t *target, double scale,
               int64_t R, int64_t V)
{
    for (int64_t r = 0; r < R; r++) {
        const double *zr = z + r * V;
        double top = zr[0], sum = 0, others = 0;
        nll[r] = 0;
        if (dz) memset(dz + r * V, 0, (size_t)V * sizeof *dz);
        if (target[r] < 0) continue;
        for (int64_t v = 0; v < V; v++) top = fmax(top, zr[v]);
        for (int64_t v = 0; v < V; v++) {
            sum += exp(zr[v] - top);
            if (v != target[r]) others += exp(zr[v] - top);
        }
        nll[r] = log(sum) + top - zr[target[r]];
        for (int64_t v = 0; dz && v < V; v++)
            dz[r * V + v] = scale * (v == target[r] ? -others : exp(zr[v] - top)) / sum;
    }
}

void hb64_adamw(double *w, double *m, double *v, const double *g, double gscale, struct hb_adamw o,
                int64_t n)
{
    double b1 = (double)o.beta1, b2 = (double)o.beta2, lr = (double)o.lr;
    for (int64_t i = 0; i < n; i++) {
        double e = g[i] * gscale;
        m[i] = b1 * m[i] + (1 - b1) * e;
        v[i] = b2 * v[i] + (1 - b2) * e * e;
        double mean = m[i] / (1 - pow(b1, (double)o.step)),
               square = v[i] / (1 - pow(b2, (double)o.step));
        w[i] -= lr * ((double)o.weight_decay * w[i] + mean / (sqrt(square) + (double)o.eps));
    }
}
