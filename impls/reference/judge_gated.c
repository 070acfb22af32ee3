// judge_gated.c: float64 judge of the long convolution with gates and short filters:
//     r = tap(u) tap(pre),   z = h * r + d r,   y = tap(post) z
// Method    the operator's own composition: short filter, gate, long convolution, gate; and back.
// Cost      that of judge_conv.c; nine arrays of B D L.
#include "judge.h"
#include "judge64.h"
#include "prims64.h"

// s, g: tap(u), tap(pre), or s alone; r their product; z, p: of the last gate; dz, ds: gradients.
struct all { double *s, *g, *r, *z, *p, *dz, *dr, *ds; };

static void tap(double *s, const double *x, const struct hb_judge_tap *f,
                const struct hb_judge_gated *g)
{
    const int64_t n = g->B * g->D * g->L;
    if (f->w) hb64_shortconv_fwd(s, x, f->bp, f->w, f->bs, g->D, g->B, g->L, g->taps);
    else for (int64_t i = 0; i < n; i++) s[i] = x[i];
}

static void tap_bwd(double *dx, const double *ds, const double *x, const struct hb_judge_tap *f,
                    const struct hb_judge_gated *g)
{
    const int64_t n = g->B * g->D * g->L;
    if (f->w)
        hb64_shortconv_bwd(dx, f->dw, f->dbs, f->dbp, ds, x, f->bp, f->w, g->D, g->B, g->L,
                           g->taps);
    else for (int64_t i = 0; i < n; i++) dx[i] = ds[i];
}

static void forward(const struct hb_judge_gated *g, struct all a)
{
    const int64_t n = g->B * g->D * g->L;
    tap(a.s, g->u, &g->tap_u, g);
    if (g->pre) tap(a.g, g->pre, &g->tap_pre, g);
    if (g->post) tap(a.p, g->post, &g->tap_post, g);
    for (int64_t i = 0; i < n; i++) a.r[i] = g->pre ? a.s[i] * a.g[i] : a.s[i];
    for (int64_t i = 0; i < g->B * g->D; i++)
        hb_judge_conv_channel(a.r + i * g->L, g->h + i / g->B * g->L, g->d ? g->d[i / g->B] : 0,
                              a.z + i * g->L, g->L);
    for (int64_t i = 0; i < n; i++) g->y[i] = g->post ? a.p[i] * a.z[i] : a.z[i];
}

static void backward(const struct hb_judge_gated *g, struct all a)
{
    const int64_t n = g->B * g->D * g->L;
    for (int64_t i = 0; i < n; i++) {
        a.dz[i] = g->post ? g->dy[i] * a.p[i] : g->dy[i];
        a.ds[i] = g->dy[i] * a.z[i];
    }
    if (g->post) tap_bwd(g->dpost, a.ds, g->post, &g->tap_post, g);
    for (int64_t i = 0; i < g->B * g->D; i++) {
        const int64_t c = i / g->B, at = i * g->L;
        const double dd = hb_judge_conv_channel_bwd(a.r + at, g->h + c * g->L, g->d ? g->d[c] : 0,
                                                    a.dz + at, a.dr + at, g->dh + c * g->L, g->L);
        if (g->dd) g->dd[c] += dd;
    }
    for (int64_t i = 0; i < n; i++) a.ds[i] = a.dr[i] * a.s[i];
    if (g->pre) tap_bwd(g->dpre, a.ds, g->pre, &g->tap_pre, g);
    for (int64_t i = 0; i < n; i++) a.ds[i] = g->pre ? a.dr[i] * a.g[i] : a.dr[i];
    tap_bwd(g->du, a.ds, g->u, &g->tap_u, g);
}

int hb_judge_gated(const struct hb_judge_gated *g)
{
    const int64_t n = g->B * g->D * g->L;
    struct pool64 p = { .n = 0 };
    struct all a = { take64(&p, n), take64(&p, n), take64(&p, n), take64(&p, n),
                     take64(&p, n), take64(&p, n), take64(&p, n), take64(&p, n) };
    if (!p.failed) {
        forward(g, a);
        if (g->dy) backward(g, a);
    }
    free64(&p);
    return p.failed ? HB_ERR_OOM : 0;
}
