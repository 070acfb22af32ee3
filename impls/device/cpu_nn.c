// cpu_nn.c: the language model's primitives on the CPU: layer norm, GELU, embedding, cross-entropy,
// AdamW.
//
// Column sums (dg, db, embedding gradients) give each thread columns of its own and walk the rows
// in order, so they do not depend on the number of threads.
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "cpu_math.h"

enum { COLS = 32 };              // columns one thread sums at a time: two cache lines per row
static const double LN_EPS = 1e-5;

// --- layer norm ----------------------------------------------------------------------------------

void cpu_layernorm_fwd(void *vy, float *mean, float *rstd, const void *vx, const float *g,
                       const float *b, int64_t R, int64_t C, struct hb_on on)
{
    float *y = cpu_act(vy, on);
    const float *x = vx;
    #pragma omp parallel for num_threads(cpu_threads(R * C))
    for (int64_t r = 0; r < R; r++) {
        const float *xr = x + r * C;
        double m = 0, var = 0;
        #pragma omp simd reduction(+ : m)
        for (int64_t c = 0; c < C; c++) m += (double)xr[c];
        m /= (double)C;
        #pragma omp simd reduction(+ : var)
        for (int64_t c = 0; c < C; c++) var += ((double)xr[c] - m) * ((double)xr[c] - m);
        double inv = 1.0 / sqrt(var / (double)C + LN_EPS);
        mean[r] = (float)m;
        rstd[r] = (float)inv;
        #pragma omp simd
        for (int64_t c = 0; c < C; c++)
            y[r * C + c] = (float)(((double)xr[c] - m) * inv) * g[c] + b[c];
    }
}

// With n = (x - mean) rstd and e = dy g:   dx += rstd (e - avg(e) - n avg(e n)),  dg += dy n,  db
//                                          += dy
void cpu_layernorm_bwd(void *vdx, float *dg, float *db, const void *vdy, const void *vx,
                       const float *mean, const float *rstd, const float *g, int64_t R, int64_t C,
                       struct hb_on on)
{
    float *dx = cpu_act(vdx, on);
    const float *dy = vdy, *x = vx;
    #pragma omp parallel for num_threads(cpu_threads(R * C))
    for (int64_t r = 0; r < R; r++) {
        const float *xr = x + r * C, *dyr = dy + r * C;
        double e_avg = 0, en_avg = 0;
        #pragma omp simd reduction(+ : e_avg, en_avg)
        for (int64_t c = 0; c < C; c++) {
            double e = (double)dyr[c] * (double)g[c];
            e_avg += e;
            en_avg += e * (double)((xr[c] - mean[r]) * rstd[r]);
        }
        float ea = (float)(e_avg / (double)C), ena = (float)(en_avg / (double)C);
        #pragma omp simd
        for (int64_t c = 0; c < C; c++)
            dx[r * C + c] += rstd[r] * (dyr[c] * g[c] - ea - (xr[c] - mean[r]) * rstd[r] * ena);
    }
    #pragma omp parallel for num_threads(cpu_threads(R * C))
    for (int64_t c0 = 0; c0 < C; c0 += COLS) {
        int64_t n = C - c0 < COLS ? C - c0 : COLS;
        double sg[COLS] = {0}, sb[COLS] = {0};
        for (int64_t r = 0; r < R; r++)
            for (int64_t c = 0; c < n; c++) {
                float e = dy[r * C + c0 + c];
                sg[c] += (double)(e * ((x[r * C + c0 + c] - mean[r]) * rstd[r]));
                sb[c] += (double)e;
            }
        for (int64_t c = 0; c < n; c++) {
            dg[c0 + c] += (float)sg[c];
            db[c0 + c] += (float)sb[c];
        }
    }
}

// --- embedding -----------------------------------------------------------------------------------

void cpu_embed_fwd(void *vx, const void *vW, const void *vpos, const int32_t *tok, int64_t R,
                   int64_t L, int64_t C, struct hb_on on)
{
    float *x = cpu_act(vx, on);
    const float *W = vW, *pos = vpos;
    #pragma omp parallel for num_threads(cpu_threads(R * C))
    for (int64_t r = 0; r < R; r++) {
        memcpy(x + r * C, W + tok[r] * C, (size_t)C * sizeof *x);
        if (!pos) continue;
        #pragma omp simd
        for (int64_t c = 0; c < C; c++) x[r * C + c] += pos[(r % L) * C + c];
    }
}

void cpu_embed_bwd(float *dW, float *dpos, const void *vdx, const int32_t *tok, int64_t R,
                   int64_t L, int64_t C, int64_t V, struct hb_on on)
{
    const float *dx = cpu_act_const(vdx, on);
    (void)V;
    #pragma omp parallel for num_threads(cpu_threads(R * C))
    for (int64_t c0 = 0; c0 < C; c0 += COLS) {
        int64_t n = C - c0 < COLS ? C - c0 : COLS;
        for (int64_t r = 0; r < R; r++) {
            const float *e = dx + r * C + c0;
            float *w = dW + tok[r] * C + c0;
            for (int64_t c = 0; c < n; c++) w[c] += e[c];
            if (!dpos) continue;
            float *q = dpos + (r % L) * C + c0;
            for (int64_t c = 0; c < n; c++) q[c] += e[c];
        }
    }
}

// --- softmax cross-entropy -----------------------------------------------------------------------

// One row; dz (V) may be z or NULL. Returns -log softmax(z)[target].
static float xent_row(float *dz, const float *z, int32_t target, float scale, int64_t V)
{
    float top = z[0];
    #pragma omp simd reduction(max : top)
    for (int64_t v = 0; v < V; v++) top = z[v] > top ? z[v] : top;
    double sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int64_t v = 0; v < V; v++) sum += (double)cpu_expf(z[v] - top);
    float nll = (float)(log(sum) + (double)top - (double)z[target]);
    if (!dz) return nll;
    float zt = z[target], inv = (float)(1.0 / sum);
    #pragma omp simd
    for (int64_t v = 0; v < V; v++) dz[v] = cpu_expf(z[v] - top) * inv * scale;
    // The target's entry again: p - 1 cancels when the model is nearly sure, minus the others'
    // share does not.
    dz[target] = (float)(((double)cpu_expf(zt - top) - sum) / sum * (double)scale);
    return nll;
}

void cpu_xent(float *nll, void *vdz, const void *vz, const int32_t *target, float scale, int64_t R,
              int64_t V, struct hb_on on)
{
    float *dz = cpu_act(vdz, on);
    const float *z = vz;
    #pragma omp parallel for num_threads(cpu_threads(R * V))
    for (int64_t r = 0; r < R; r++) {
        float *dzr = dz ? dz + r * V : NULL;
        nll[r] = 0;
        if (target[r] >= 0) nll[r] = xent_row(dzr, z + r * V, target[r], scale, V);
        else if (dzr) memset(dzr, 0, (size_t)V * sizeof *dzr);
    }
}

// --- AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2) ---------------------------

void cpu_adamw(float *w, float *m, float *v, void *low, const float *g, float gscale,
               struct hb_adamw o, int64_t n, struct hb_on on)
{
    double c1 = 1.0 - pow((double)o.beta1, (double)o.step),
           c2 = 1.0 - pow((double)o.beta2, (double)o.step);
    float step = (float)((double)o.lr / c1), root = (float)(1.0 / sqrt(c2)),
          keep = 1.0f - o.lr * o.weight_decay;
    #pragma omp parallel for simd num_threads(cpu_threads(n))
    for (int64_t i = 0; i < n; i++) {
        float e = g[i] * gscale;
        m[i] = o.beta1 * m[i] + (1.0f - o.beta1) * e;
        v[i] = o.beta2 * v[i] + (1.0f - o.beta2) * e * e;
        w[i] = w[i] * keep - step * m[i] / (sqrtf(v[i]) * root + o.eps);
    }
    if (low) memcpy(cpu_act(low, on), w, (size_t)n * sizeof *w);
}
