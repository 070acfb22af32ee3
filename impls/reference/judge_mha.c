// judge_mha.c: multi-head causal attention with its projections in float64 (contract: judge.h).
//     q,k,v = heads of [short](Wqkv u' + b);  y = Wout attention(q,k,v) + bout
// Method    whole arrays, float64 GEMMs, one head at a time through judge_attention.c.
// Cost      2 B L (L+1) D flop of attention, about 4.5 times that with gradients; about 20 arrays
//           (B,L,D).
// Source    Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864.
#include <string.h>

#include "../core/oper.h"
#include "judge.h"
#include "judge64.h"
#include "prims64.h"

struct judge {
    int64_t B, L, D, H, P, R, BLD;           // R = B L
    int K;                                   // taps of the short filter, 0: none
    bool rope;
    const double *u;
    double *const *par;
    double *p, *s;  // (3D,B,L) before and after the short filter (the same if none)
    double *qkv, *a;                         // 3 x (B,H,L,P), (B,H,L,P): the attention's output
    double *joined;                          // (B,L,D)
    int64_t *all;                            // 0..L-1
};

static int attention(const struct judge *j)
{
    int64_t row = j->L * j->P;
    int rc = 0;
    for (int64_t i = 0; i < j->B * j->H && !rc; i++) {
        const double *q = j->qkv + i * row;
        rc = hb_judge_attention_rows(q, q + j->BLD, q + 2 * j->BLD, j->all, j->L, j->a + i * row,
                                     j->L, j->P);
    }
    return rc;
}

static int judge_fwd(const struct judge *j, double *y)
{
    int64_t D = j->D, n = j->BLD;
    gemm64(false, true, 3 * D, j->R, D, j->par[HB_MHA_WIN], j->u, 0, j->p);
    hb64_rowbias_fwd(j->p, j->par[HB_MHA_BIN], 3 * D, j->R);
    if (j->K)
        hb64_shortconv_fwd(j->s, j->p, NULL, j->par[HB_MHA_WS], j->par[HB_MHA_BS], 3 * D, j->B,
                           j->L, j->K);
    hb64_heads_split(j->qkv, j->qkv + n, j->qkv + 2 * n, j->s, j->B, j->H, j->L, j->P, j->rope);
    int rc = attention(j);
    hb64_heads_join(j->joined, j->a, j->B, j->H, j->L, j->P);
    gemm64(false, true, j->R, D, D, j->joined, j->par[HB_MHA_WOUT], 0, y);
    hb64_bias_fwd(y, j->par[HB_MHA_BOUT], j->R, D);
    return rc;
}

// dqkv 3 x (B,H,L,P), da (B,H,L,P), ds, dp (3D,B,L): scratch. g has an array for every parameter.
static int judge_bwd(const struct judge *j, const double *dy, double *du, double *const *g,
                     double *dqkv, double *da, double *ds, double *dp)
{
    int64_t D = j->D, n = j->BLD, row = j->L * j->P;
    int rc = 0;
    hb64_bias_bwd(g[HB_MHA_BOUT], dy, j->R, D);
    gemm64(true, false, D, D, j->R, dy, j->joined, 0, g[HB_MHA_WOUT]);
    gemm64(false, false, j->R, D, D, dy, j->par[HB_MHA_WOUT], 0,
           j->joined);  // now the gradient of itself
    hb64_heads_join(da, j->joined, j->B, j->L, j->H, j->P);
    for (int64_t i = 0; i < j->B * j->H && !rc; i++) {
        const double *q = j->qkv + i * row;
        double *dq = dqkv + i * row;
        rc = hb_judge_attention_bwd(q, q + n, q + 2 * n, da + i * row, dq, dq + n, dq + 2 * n, j->L,
                                    j->P);
    }
    hb64_heads_merge(ds, dqkv, dqkv + n, dqkv + 2 * n, j->B, j->H, j->L, j->P, j->rope);
    if (j->K)
        hb64_shortconv_bwd(dp, g[HB_MHA_WS], g[HB_MHA_BS], NULL, ds, j->p, NULL, j->par[HB_MHA_WS],
                           3 * D, j->B, j->L, j->K);
    hb64_rowbias_bwd(g[HB_MHA_BIN], dp, 3 * D, j->R);
    gemm64(false, false, 3 * D, D, j->R, dp, j->u, 0, g[HB_MHA_WIN]);
    gemm64(true, false, j->R, D, 3 * D, dp, j->par[HB_MHA_WIN], 0, du);
    return rc;
}

int hb_judge_mha(const struct hb_problem *p, const double *u, double *const *params, double *y,
                 const double *dy, double *du, double *const *grads)
{
    struct hb_oper_opts o = hb_oper_resolve(p);
    int64_t D = p->D, n = p->B * p->L * D;
    struct pool64 pool = { .n = 0 };
    struct judge j = { .B = p->B,
                       .L = p->L,
                       .D = D,
                       .H = p->H,
                       .P = D / p->H,
                       .R = p->B * p->L,
                       .BLD = n,
                       .K = o.short_taps,
                       .rope = o.rope,
                       .u = u,
                       .par = params };
    const int64_t size[HB_MHA_COUNT] = { 3 * D * D, 3 * D, D * D, D, 3 * D * j.K, 3 * D };
    double *g[HB_MHA_COUNT] = { 0 }, *dqkv = NULL, *da = NULL, *ds = NULL, *dp = NULL;
    j.p = take64(&pool, 3 * n);
    j.s = j.K ? take64(&pool, 3 * n) : j.p;
    j.qkv = take64(&pool, 3 * n);
    j.a = take64(&pool, n);
    j.joined = take64(&pool, n);
    j.all = malloc((size_t)p->L * sizeof *j.all);
    for (int64_t t = 0; t < p->L && j.all; t++) j.all[t] = t;
    for (int i = 0; dy && i < (j.K ? HB_MHA_COUNT : HB_MHA_WS); i++) {
        g[i] = grads[i] ? grads[i] : take64(&pool, size[i]);
        if (g[i]) memset(g[i], 0, (size_t)size[i] * sizeof *g[i]);
    }
    if (dy) {
        dqkv = take64(&pool, 3 * n);
        da = take64(&pool, n);
        ds = take64(&pool, 3 * n);
        dp = j.K ? take64(&pool, 3 * n) : ds;
    }
    int rc = pool.failed || !j.all ? HB_ERR_OOM : judge_fwd(&j, y);
    if (!rc && dy) rc = judge_bwd(&j, dy, du, g, dqkv, da, ds, dp);
    free(j.all);
    free64(&pool);
    return rc;
}
