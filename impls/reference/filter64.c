// filter64.c: the implicit filter in float64, forward and backward (contract: prims64.h).
// Method    whole arrays with positions first, (L,W), float64 GEMMs, libm's sin, cos and exp at
//           every element.
// Cost      9 arrays (L,W) and one (L,C) of doubles in the backward pass.
// Source    Poli et al. 2023, arXiv:2302.10866, section 3.3; published code's decay rates and
//           normalised time.
#include <cblas.h>
#include <math.h>
#include <stdlib.h>

#include "prims64.h"

struct work {
    int64_t L, W, E, C;
    int threads;
    double *x[3], *a[3];     // (L,W) before and after each sine
};

static void free_work(struct work *k)
{
    for (int l = 0; l < 3; l++) {
        free(k->x[l]);
        free(k->a[l]);
    }
}

static void dgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const double *A, int64_t lda,
                  const double *B, int64_t ldb, double beta, double *C)
{
    cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
                (int)m, (int)n, (int)k, 1, A, (int)lda, B, (int)ldb, beta, C, (int)n);
}

static double window(const struct hb_filter_shape *f, int64_t j, int64_t c)
{
    double slow = -log(0.01) / 1.5, fast = -log(0.01) / 0.3;
    double delta = f->channels > 1 ? slow + (fast - slow) * (double)c / (double)(f->channels - 1)
                                   : slow;
    double t = f->lmax > 1 ? (double)j / (double)(f->lmax - 1) : 0;
    return f->window ? exp(-t * delta) + (double)f->shift : 1;
}

static int mlp(struct work *k, const struct hb_filter_shape *f, const struct hb64_filter *p,
               int threads)
{
    const double *w[3] = { p->w1, p->w2, p->w3 }, *b[3] = { p->b1, p->b2, p->b3 };
    int64_t L = f->L, W = f->width;
    *k = (struct work){ .L = L, .W = W, .E = f->emb_dim, .C = f->channels, .threads = threads };
    for (int l = 0; l < 3; l++) {
        double *x = k->x[l] = malloc((size_t)(L * W) * sizeof *x),
               *a = k->a[l] = malloc((size_t)(L * W) * sizeof *a);
        if (!x || !a) return HB_ERR_OOM;
        if (l == 0) dgemm(false, true, L, W, k->E, p->z, k->E, w[0], k->E, 0, x);
        else dgemm(false, true, L, W, W, k->a[l - 1], W, w[l], W, 0, x);
        #pragma omp parallel for num_threads(threads)
        for (int64_t i = 0; i < L * W; i++) {
            x[i] += b[l][i % W];
            a[i] = sin(p->freq[i % W] * x[i]);
        }
    }
    return 0;
}

int hb64_filter_fwd(double *h, const struct hb_filter_shape *f, const struct hb64_filter *p,
                    int threads)
{
    struct work k;
    int rc = mlp(&k, f, p, threads);
    if (!rc) {
        dgemm(false, true, k.C, k.L, k.W, p->w4, k.W, k.a[2], k.W, 0, h);
        #pragma omp parallel for num_threads(threads)
        for (int64_t i = 0; i < k.C * k.L; i++) h[i] *= window(f, i % k.L, i / k.L);
    }
    free_work(&k);
    return rc;
}

// Sine layer l: da (L,W) becomes dx; the gradients of freq, bias and weight; `in` (L,n_in) is the
// layer's input.
static void layer_bwd(const struct work *k, const struct hb64_filter *p, int l, double *da,
                      const double *in, int64_t n_in, double *dw, double *db, double *dfreq)
{
    for (int64_t i = 0; i < k->L * k->W; i++) {
        int64_t w = i % k->W;
        double e = cos(p->freq[w] * k->x[l][i]) * da[i];
        if (dfreq) dfreq[w] += k->x[l][i] * e;
        da[i] = p->freq[w] * e;
        if (db) db[w] += da[i];
    }
    if (dw) dgemm(true, false, k->W, n_in, k->L, da, k->W, in, n_in, 1, dw);
}

static void mlp_bwd(const struct work *k, const struct hb64_filter *p, const struct hb64_filter *g,
                    double *da, double *next)
{
    layer_bwd(k, p, 2, da, k->a[1], k->W, g->w3, g->b3, g->freq);
    dgemm(false, false, k->L, k->W, k->W, da, k->W, p->w3, k->W, 0, next);
    layer_bwd(k, p, 1, next, k->a[0], k->W, g->w2, g->b2, g->freq);
    dgemm(false, false, k->L, k->W, k->W, next, k->W, p->w2, k->W, 0, da);
    layer_bwd(k, p, 0, da, p->z, k->E, g->w1, g->b1, g->freq);
    if (g->z) dgemm(false, false, k->L, k->E, k->W, da, k->W, p->w1, k->E, 1, g->z);
}

int hb64_filter_bwd(const double *dh, const struct hb_filter_shape *f, const struct hb64_filter *p,
                    const struct hb64_filter *g, int threads)
{
    struct work k;
    int rc = mlp(&k, f, p, threads);
    double *dg = malloc((size_t)(k.C * k.L) * sizeof *dg);
    double *da = malloc((size_t)(k.L * k.W) * sizeof *da),
           *next = malloc((size_t)(k.L * k.W) * sizeof *next);
    if (!rc && dg && da && next) {
        #pragma omp parallel for num_threads(threads)
        for (int64_t i = 0; i < k.C * k.L; i++) dg[i] = dh[i] * window(f, i % k.L, i / k.L);
        if (g->w4) dgemm(false, false, k.C, k.W, k.L, dg, k.L, k.a[2], k.W, 1, g->w4);
        dgemm(true, false, k.L, k.W, k.C, dg, k.L, p->w4, k.W, 0, da);
        mlp_bwd(&k, p, g, da, next);
    } else rc = HB_ERR_OOM;
    free(dg);
    free(da);
    free(next);
    free_work(&k);
    return rc;
}
