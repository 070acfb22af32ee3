// judge_hyena.c: the whole Hyena operator in float64, forward and all gradients (contract:
// judge.h).
//     s = short(Win u' + bin);  v_0 = last block of s;  r_o = v_o x^{N-1-o};  v_{o+1} = h_o * r_o +
//     d_o r_o; y = Wout (v_{N-1} x^0) + bout
// Method    whole arrays, channel first (C,B,L), float64 GEMMs; the convolution by judge_conv.c,
//           the filter by filter64.c. Projections and gates are computed again in the backward pass
//           where that saves memory.
// Cost      (N-1) D B L(L+1) flop of convolution, three times that with gradients; about 2N+6
//           arrays (B,L,D).
// Source    Poli et al. 2023, arXiv:2302.10866; gradients derived by hand, checked by central
//           differences.
#include <string.h>

#include "../core/oper.h"
#include "judge.h"
#include "judge64.h"
#include "prims64.h"

struct judge {
    int64_t B, L, D, R, BLD, C;              // R = B L, C = (N-1) D filter channels
    int N, K, threads;
    bool package, no_long;
    struct hb_filter_shape fs;
    const double *u;
    double *const *par;
    double *s, *v;                           // (N+1,D,B,L), (N-1,D,B,L): v_1 .. v_{N-1}
    double *h, *dh;                          // (C,L)
    double *t[5];                            // (D,B,L) scratch
};

static struct hb64_filter filter_of(double *const *t)
{
    return (struct hb64_filter){ t[HB_HY_Z],  t[HB_HY_W1], t[HB_HY_B1], t[HB_HY_W2],  t[HB_HY_B2],
                                 t[HB_HY_W3], t[HB_HY_B3], t[HB_HY_W4], t[HB_HY_FREQ] };
}

static struct judge describe(const struct hb_problem *p, const double *u, double *const *par)
{
    struct hb_oper_opts o = hb_oper_resolve(p);
    return (struct judge){
        .B = p->B,
        .L = p->L,
        .D = p->D,
        .R = p->B * p->L,
        .BLD = p->B * p->L * p->D,
        .C = (o.order - 1) * p->D,
        .N = o.order,
        .K = o.short_taps,
        .threads = p->threads > 0 ? p->threads : 1,
        .package = o.package_layout,
        .no_long = o.no_long,
        .u = u,
        .par = par,
        .fs = { p->L, o.lmax, (o.order - 1) * (int)p->D, o.emb_dim, o.filter_width, o.shift,
                !o.no_window },
    };
}

// Filter channel of step o, model channel c.
static int64_t channel(const struct judge *j, int o, int64_t c)
{
    return j->package ? c * (j->N - 1) + o : o * j->D + c;
}

// x^q, or v_0 for q = N.
static double *block(const struct judge *j, int q)
{
    return j->s + q * j->BLD;
}
static double *v_at(const struct judge *j, int o)
{
    return o ? j->v + (o - 1) * j->BLD : block(j, j->N);
}

static void times(double *y, const double *a, const double *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

// Block q of the projection with its bias, (D,B,L).
static void project(const struct judge *j, int q, double *p)
{
    gemm64(false, true, j->D, j->R, j->D, j->par[HB_HY_WIN] + q * j->D * j->D, j->u, 0, p);
    hb64_rowbias_fwd(p, j->par[HB_HY_BIN] + q * j->D, j->D, j->R);
}

static const double *taps(const struct judge *j, int q)
{
    return j->par[HB_HY_WS] + q * j->D * j->K;
}

// --- forward -------------------------------------------------------------------------------------

static void long_conv(const struct judge *j, int o, const double *r, double *y)
{
    if (j->no_long) {
        memcpy(y, r, (size_t)j->BLD * sizeof *y);
        return;
    }
    #pragma omp parallel for num_threads(j->threads) schedule(dynamic)
    for (int64_t i = 0; i < j->D * j->B; i++) {
        int64_t f = channel(j, o, i / j->B);
        hb_judge_conv_channel(r + i * j->L, j->h + f * j->L, j->par[HB_HY_D][f], y + i * j->L,
                              j->L);
    }
}

static int judge_fwd(struct judge *j, double *y)
{
    double *p = j->t[0];
    if (!j->no_long) {
        struct hb64_filter fp = filter_of(j->par);
        int rc = hb64_filter_fwd(j->h, &j->fs, &fp, j->threads);
        if (rc) return rc;
    }
    for (int q = 0; q <= j->N; q++) {
        project(j, q, p);
        hb64_shortconv_fwd(block(j, q), p, NULL, taps(j, q), j->par[HB_HY_BS] + q * j->D, j->D,
                           j->B, j->L, j->K);
    }
    for (int o = 0; o < j->N - 1; o++) {
        times(j->t[0], v_at(j, o), block(j, j->N - 1 - o), j->BLD);
        long_conv(j, o, j->t[0], v_at(j, o + 1));
    }
    times(j->t[0], v_at(j, j->N - 1), block(j, 0), j->BLD);
    gemm64(true, true, j->R, j->D, j->D, j->t[0], j->par[HB_HY_WOUT], 0, y);
    hb64_bias_fwd(y, j->par[HB_HY_BOUT], j->R, j->D);
    return 0;
}

// --- backward ------------------------------------------------------------------------------------

// e = dv_{o+1} -> dr; dh, dd of the step.
static void long_conv_bwd(const struct judge *j, int o, const double *r, const double *e,
                          double *dr, double *dd)
{
    if (j->no_long) {
        memcpy(dr, e, (size_t)j->BLD * sizeof *dr);
        return;
    }
    #pragma omp parallel for num_threads(j->threads) schedule(dynamic)
    for (int64_t c = 0; c < j->D; c++) {
        int64_t f = channel(j, o, c);
        double sum = 0;
        for (int64_t i = c * j->B; i < (c + 1) * j->B; i++)
            sum += hb_judge_conv_channel_bwd(r + i * j->L, j->h + f * j->L, j->par[HB_HY_D][f],
                                             e + i * j->L, dr + i * j->L, j->dh + f * j->L, j->L);
        if (dd) dd[f] = sum;
    }
}

// Block q: ds -> the gradients of its projection, short filter and of u. g has an array for every
// parameter.
static void project_bwd(const struct judge *j, int q, const double *ds, double *du,
                        double *const *g)
{
    double *p = j->t[3], *dp = j->t[4];
    int64_t D = j->D;
    project(j, q, p);
    hb64_shortconv_bwd(dp, g[HB_HY_WS] + q * D * j->K, g[HB_HY_BS] + q * D, NULL, ds, p, NULL,
                       taps(j, q), D, j->B, j->L, j->K);
    hb64_rowbias_bwd(g[HB_HY_BIN] + q * D, dp, D, j->R);
    gemm64(false, false, D, D, j->R, dp, j->u, 0, g[HB_HY_WIN] + q * D * D);
    gemm64(true, false, j->R, D, D, dp, j->par[HB_HY_WIN] + q * D * D, q ? 1 : 0, du);
}

static int judge_bwd(struct judge *j, const double *dy, double *du, double *const *g)
{
    double *e = j->t[0], *r = j->t[1], *dx = j->t[2], *dr = j->t[3];
    int64_t D = j->D, n = j->BLD;
    times(r, v_at(j, j->N - 1), block(j, 0), n);
    hb64_bias_bwd(g[HB_HY_BOUT], dy, j->R, D);
    gemm64(true, true, D, D, j->R, dy, r, 0, g[HB_HY_WOUT]);
    gemm64(true, true, D, j->R, D, j->par[HB_HY_WOUT], dy, 0, e);
    times(dx, e, v_at(j, j->N - 1), n);
    times(e, e, block(j, 0), n);
    project_bwd(j, 0, dx, du, g);
    for (int o = j->N - 2; o >= 0; o--) {
        double *x = block(j, j->N - 1 - o);
        times(r, v_at(j, o), x, n);
        long_conv_bwd(j, o, r, e, dr, j->no_long ? NULL : g[HB_HY_D]);
        times(dx, dr, v_at(j, o), n);
        times(e, dr, x, n);
        project_bwd(j, j->N - 1 - o, dx, du, g);
    }
    project_bwd(j, j->N, e, du, g);
    if (j->no_long) return 0;
    struct hb64_filter fp = filter_of(j->par), fg = filter_of(g);
    return hb64_filter_bwd(j->dh, &j->fs, &fp, &fg, j->threads);
}

// Gradients for everybody: the caller's arrays, zeroed, or scratch where the caller wants none (z:
// none at all).
static void gradients(const struct judge *j, struct pool64 *pool, double *const *wanted, double **g)
{
    int64_t D = j->D, Q = (j->N + 1) * D, W = j->fs.width, E = j->fs.emb_dim;
    const int64_t size[HB_HY_COUNT] = {
        [HB_HY_WIN] = Q * D,   [HB_HY_BIN] = Q,    [HB_HY_WOUT] = D * D, [HB_HY_BOUT] = D,
        [HB_HY_WS] = Q * j->K, [HB_HY_BS] = Q,     [HB_HY_D] = j->C,     [HB_HY_Z] = j->fs.lmax * E,
        [HB_HY_W1] = W * E,    [HB_HY_B1] = W,     [HB_HY_FREQ] = W,     [HB_HY_W2] = W * W,
        [HB_HY_B2] = W,        [HB_HY_W3] = W * W, [HB_HY_B3] = W,       [HB_HY_W4] = j->C * W,
    };
    for (int i = 0; i < (j->no_long ? HB_HY_D : HB_HY_COUNT); i++) {
        g[i] = wanted[i] || i == HB_HY_Z ? wanted[i] : take64(pool, size[i]);
        if (g[i]) memset(g[i], 0, (size_t)size[i] * sizeof *g[i]);
    }
}

int hb_judge_hyena(const struct hb_problem *p, const double *u, double *const *params, double *y,
                   const double *dy, double *du, double *const *grads)
{
    struct judge j = describe(p, u, params);
    struct pool64 pool = { .n = 0 };
    double *g[HB_HY_COUNT] = { 0 };
    j.s = take64(&pool, (j.N + 1) * j.BLD);
    j.v = take64(&pool, (j.N - 1) * j.BLD);
    for (int i = 0; i < (dy ? 5 : 1); i++) j.t[i] = take64(&pool, j.BLD);
    if (!j.no_long) j.h = take64(&pool, j.C * j.L);
    if (!j.no_long && dy) j.dh = take64(&pool, j.C * j.L);
    if (dy) gradients(&j, &pool, grads, g);
    int rc = pool.failed ? HB_ERR_OOM : judge_fwd(&j, y);
    if (!rc && dy) rc = judge_bwd(&j, dy, du, g);
    free64(&pool);
    return rc;
}
