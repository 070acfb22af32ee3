// cpu_filter.c: Hyena's implicit filter on the CPU, forward and backward, in float64.
//     x1 = W1 z' + b1, a1 = sin(f x1);  x2 = W2 a1 + b2, a2 = sin(f x2);
//     x3 = W3 a2 + b3, a3 = sin(f x3);
//     h[c,j] = (W4 a3)[c,j] (exp(-t_j delta_c) + shift)
// Method    blocks of positions, each whole inside one thread's cache: features first (W,n), dgemm
//           for the products, polynomial sin and cos that vectorise, the window by its ratio from
//           step to step. The backward pass computes its block's forward again: nothing is kept
//           between the passes.
// Cost      2 L (E W + 2 W^2 + W C) flop forward in double, about four times that backward; scratch
//           per thread (7 W + E + CHUNK) BLOCK doubles, backward also one copy of the parameters'
//           gradients.
// Source    Poli et al. 2023, arXiv:2302.10866, section 3.3 and appendix D.3, with the published
//           code's table.
// Accuracy  that of float64; h is rounded once. In float32 the gradients would miss 1e-5.
#include <assert.h>
#include <cblas.h>
#include <math.h>
#include <string.h>

#include "../core/oper.h"
#include "cpu.h"
#include "cpu_math.h"

enum {
    BLOCK = 128,                 // positions: seven (W,BLOCK) arrays of W = 64 fill 460 KB of L2
    CHUNK = 64,                  // filter channels whose (CHUNK,BLOCK) piece is held at once
    LANES = 8,                   // window values advanced together
};

// Parameters, or their gradients, in double.
struct params64 { double *w[3], *b[3], *w4, *freq; };  // w (W,E) (W,W) (W,W), b (W), w4 (C,W)

// One thread's arrays.
struct scratch {
    double *z;                   // (n,E)
    double *x[3], *a[3];         // (W,n) before and after each sine
    double *da;                  // (W,n)
    double *g;                   // (CHUNK,n)
    struct params64 grad;
};

static size_t count_params(const struct hb_filter_shape *f)
{
    size_t W = (size_t)f->width, E = (size_t)f->emb_dim, C = (size_t)f->channels;
    return W * E + 2 * W * W + 3 * W + C * W + W;
}

static size_t count_scratch(const struct hb_filter_shape *f)
{
    return (size_t)BLOCK * (7 * (size_t)f->width + (size_t)f->emb_dim + CHUNK) + count_params(f);
}

size_t cpu_filter_ws(struct hb_filter_shape f)
{
    return (count_params(&f) + (size_t)cpu_all_threads() * count_scratch(&f)) * sizeof(double);
}

static double *place_params(struct params64 *p, double *at, const struct hb_filter_shape *f)
{
    size_t W = (size_t)f->width, E = (size_t)f->emb_dim, C = (size_t)f->channels;
    for (int l = 0; l < 3; l++) {
        p->w[l] = at;
        p->b[l] = at + W * (l ? W : E);
        at = p->b[l] + W;
    }
    p->w4 = at;
    p->freq = at + C * W;
    return p->freq + W;
}

static void place_scratch(struct scratch *sc, double *at, const struct hb_filter_shape *f)
{
    size_t wn = (size_t)f->width * BLOCK;
    sc->z = at;
    at += (size_t)f->emb_dim * BLOCK;
    for (int l = 0; l < 3; l++, at += 2 * wn) {
        sc->x[l] = at;
        sc->a[l] = at + wn;
    }
    sc->da = at;
    sc->g = at + wn;
    place_params(&sc->grad, sc->g + (size_t)CHUNK * BLOCK, f);
}

static void widen(double *to, const float *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++) to[i] = (double)from[i];
}

static void load_params(struct params64 *to, const struct hb_filter_params *p,
                        const struct hb_filter_shape *f)
{
    int64_t W = f->width;
    const float *w[3] = { p->w1, p->w2, p->w3 }, *b[3] = { p->b1, p->b2, p->b3 };
    for (int l = 0; l < 3; l++) {
        widen(to->w[l], w[l], W * (l ? W : f->emb_dim));
        widen(to->b[l], b[l], W);
    }
    widen(to->w4, p->w4, f->channels * W);
    widen(to->freq, p->freq, W);
}

static void dgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const double *A, int64_t lda,
                  const double *B, int64_t ldb, double beta, double *C, int64_t ldc)
{
    cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
                (int)m, (int)n, (int)k, 1.0, A, (int)lda, B, (int)ldb, beta, C, (int)ldc);
}

// y[i] = sin(f x[i]), or cos.
static void trig_row(double *y, const double *x, double f, int64_t n, bool cosine)
{
    double top = 0, shift = cosine ? 0.5 : 0.0;
    #pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < n; i++) top = fabs(f * x[i]) > top ? fabs(f * x[i]) : top;
    if (top >= CPU_TRIG_MAX) {  // no network that trains gets here; the answer is still right
        for (int64_t i = 0; i < n; i++) y[i] = cosine ? cos(f * x[i]) : sin(f * x[i]);
        return;
    }
    #pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = cpu_trig(f * x[i], shift);
}

// win[j] = exp(-t_{j0+j} delta_c) + shift for j < n: neighbours have a constant ratio. n rounded up
// to LANES.
static void window_row(double *win, const struct hb_filter_shape *f, int64_t c, int64_t j0,
                       int64_t n)
{
    double delta = hb_decay(c, f->channels), ratio = exp(-delta * hb_time(1, f->lmax)), leap = 1;
    double first = exp(-delta * hb_time(j0, f->lmax));
    for (int i = 0; i < LANES; i++, leap *= ratio) win[i] = first * leap;
    #pragma omp simd safelen(8)
    for (int64_t j = LANES; j < n; j++) win[j] = win[j - LANES] * leap;
    #pragma omp simd
    for (int64_t j = 0; j < n; j++) win[j] += (double)f->shift;
}

// z, x[0..2], a[0..2] of the n positions from j0.
static void mlp_fwd(struct scratch *sc, const struct params64 *p, const struct hb_filter_shape *f,
                    const float *z, int64_t j0, int64_t n)
{
    int64_t W = f->width, E = f->emb_dim;
    widen(sc->z, z + j0 * E, n * E);
    for (int l = 0; l < 3; l++) {
        for (int64_t w = 0; w < W; w++)
            for (int64_t j = 0; j < n; j++) sc->x[l][w * n + j] = p->b[l][w];
        if (l == 0) dgemm(false, true, W, n, E, p->w[0], E, sc->z, E, 1.0, sc->x[0], n);
        else dgemm(false, false, W, n, W, p->w[l], W, sc->a[l - 1], n, 1.0, sc->x[l], n);
        for (int64_t w = 0; w < W; w++)
            trig_row(sc->a[l] + w * n, sc->x[l] + w * n, p->freq[w], n, false);
    }
}

// --- forward -------------------------------------------------------------------------------------

static void block_fwd(float *h, struct scratch *sc, const struct params64 *p,
                      const struct hb_filter_shape *f, const float *z, int64_t j0, int64_t n)
{
    int64_t W = f->width;
    double win[BLOCK + LANES];
    mlp_fwd(sc, p, f, z, j0, n);
    for (int64_t c0 = 0; c0 < f->channels; c0 += CHUNK) {
        int64_t m = f->channels - c0 < CHUNK ? f->channels - c0 : CHUNK;
        dgemm(false, false, m, n, W, p->w4 + c0 * W, W, sc->a[2], n, 0.0, sc->g, n);
        for (int64_t c = 0; c < m; c++) {
            float *row = h + (c0 + c) * f->L + j0;
            const double *g = sc->g + c * n;
            if (f->window) {
                window_row(win, f, c0 + c, j0, n);
                for (int64_t j = 0; j < n; j++) row[j] = (float)(g[j] * win[j]);
            } else {
                for (int64_t j = 0; j < n; j++) row[j] = (float)g[j];
            }
        }
    }
}

int cpu_filter_fwd(const struct hb_device *d, float *h, struct hb_filter_shape f,
                   struct hb_filter_params p, void *ws, struct hb_on on)
{
    (void)d; (void)on;
    struct params64 p64;
    double *scratch = place_params(&p64, ws, &f);
    int64_t blocks = (f.L + BLOCK - 1) / BLOCK;
    int T = cpu_threads(f.L * f.channels);
    load_params(&p64, &p, &f);
    #pragma omp parallel for num_threads(T) schedule(static, 1)
    for (int i = 0; i < T; i++) {
        struct scratch sc;
        place_scratch(&sc, scratch + (size_t)i * count_scratch(&f), &f);
        for (int64_t k = blocks * i / T; k < blocks * (i + 1) / T; k++) {
            int64_t n = f.L - k * BLOCK < BLOCK ? f.L - k * BLOCK : BLOCK;
            block_fwd(h, &sc, &p64, &f, p.z, k * BLOCK, n);
        }
    }
    return 0;
}

// --- backward ------------------------------------------------------------------------------------

// dW4 += dg a3', da = W4' dg, with dg = dh window.
static void last_layer_bwd(struct scratch *sc, const struct params64 *p,
                           const struct hb_filter_shape *f, const float *dh, int64_t j0, int64_t n)
{
    int64_t W = f->width;
    double win[BLOCK + LANES];
    for (int64_t c0 = 0; c0 < f->channels; c0 += CHUNK) {
        int64_t m = f->channels - c0 < CHUNK ? f->channels - c0 : CHUNK;
        for (int64_t c = 0; c < m; c++) {
            const float *row = dh + (c0 + c) * f->L + j0;
            double *g = sc->g + c * n;
            if (f->window) {
                window_row(win, f, c0 + c, j0, n);
                for (int64_t j = 0; j < n; j++) g[j] = (double)row[j] * win[j];
            } else {
                widen(g, row, n);
            }
        }
        dgemm(false, true, m, W, n, sc->g, n, sc->a[2], n, 1.0, sc->grad.w4 + c0 * W, W);
        dgemm(true, false, W, n, m, p->w4 + c0 * W, W, sc->g, n, c0 ? 1.0 : 0.0, sc->da, n);
    }
}

// Through sine l, da becomes dx = f cos(f x) da; df += sum x cos(f x) da, db += sum dx. a[l] holds
// the cosine.
static void sine_bwd(struct scratch *sc, const struct params64 *p, int l, int64_t W, int64_t n)
{
    for (int64_t w = 0; w < W; w++) {
        double *da = sc->da + w * n, *cosine = sc->a[l] + w * n, df = 0, db = 0;
        const double *x = sc->x[l] + w * n;
        trig_row(cosine, x, p->freq[w], n, true);
        #pragma omp simd reduction(+ : df, db)
        for (int64_t j = 0; j < n; j++) {
            double e = cosine[j] * da[j];
            df += x[j] * e;
            da[j] = p->freq[w] * e;
            db += da[j];
        }
        sc->grad.freq[w] += df;
        sc->grad.b[l][w] += db;
    }
}

static void block_bwd(const float *dh, struct scratch *sc, const struct params64 *p,
                      const struct hb_filter_shape *f, const float *z, float *dz, int64_t j0,
                      int64_t n)
{
    int64_t W = f->width, E = f->emb_dim;
    mlp_fwd(sc, p, f, z, j0, n);
    last_layer_bwd(sc, p, f, dh, j0, n);
    for (int l = 2; l > 0; l--) {
        sine_bwd(sc, p, l, W, n);
        dgemm(false, true, W, W, n, sc->da, n, sc->a[l - 1], n, 1.0, sc->grad.w[l], W);
        dgemm(true, false, W, n, W, p->w[l], W, sc->da, n, 0.0, sc->x[l], n);  // x[l] is free now
        double *next = sc->x[l];
        sc->x[l] = sc->da;
        sc->da = next;
    }
    sine_bwd(sc, p, 0, W, n);
    dgemm(false, false, W, E, n, sc->da, n, sc->z, E, 1.0, sc->grad.w[0], E);
    if (!dz) return;
    dgemm(true, false, n, E, W, sc->da, n, p->w[0], E, 0.0, sc->z, E);
    for (int64_t i = 0; i < n * E; i++) dz[j0 * E + i] += (float)sc->z[i];
}

// to[i] += sum over threads, in their order.
static void gather(float *to, const double *first, int64_t n, int T, size_t stride)
{
    for (int64_t i = 0; to && i < n; i++) {
        double sum = 0;
        for (int k = 0; k < T; k++) sum += first[(size_t)k * stride + (size_t)i];
        to[i] += (float)sum;
    }
}

int cpu_filter_bwd(const struct hb_device *d, const float *dh, struct hb_filter_shape f,
                   struct hb_filter_params p, struct hb_filter_params grads, void *ws,
                   struct hb_on on)
{
    (void)d; (void)on;
    struct params64 p64;
    struct scratch first;
    double *scratch = place_params(&p64, ws, &f);
    size_t stride = count_scratch(&f);
    int64_t blocks = (f.L + BLOCK - 1) / BLOCK, W = f.width;
    int T = cpu_threads(f.L * f.channels);
    load_params(&p64, &p, &f);
    #pragma omp parallel for num_threads(T) schedule(static, 1)
    for (int i = 0; i < T; i++) {
        struct scratch sc;
        place_scratch(&sc, scratch + (size_t)i * stride, &f);
        memset(sc.grad.w[0], 0, count_params(&f) * sizeof(double));  // they lie one after the other
        for (int64_t k = blocks * i / T; k < blocks * (i + 1) / T; k++) {
            int64_t n = f.L - k * BLOCK < BLOCK ? f.L - k * BLOCK : BLOCK;
            block_bwd(dh, &sc, &p64, &f, p.z, grads.z, k * BLOCK, n);
        }
    }
    place_scratch(&first, scratch, &f);
    float *w[3] = { grads.w1, grads.w2, grads.w3 }, *b[3] = { grads.b1, grads.b2, grads.b3 };
    for (int l = 0; l < 3; l++) {
        gather(w[l], first.grad.w[l], W * (l ? W : f.emb_dim), T, stride);
        gather(b[l], first.grad.b[l], W, T, stride);
    }
    gather(grads.w4, first.grad.w4, f.channels * W, T, stride);
    gather(grads.freq, first.grad.freq, W, T, stride);
    return 0;
}
