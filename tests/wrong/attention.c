// attention.c: the shelf of wrong implementations, causal attention. How it works: longconv.c.
// defects: right zeros not_causal no_scale sees_one_ahead no_max_shift last_row_lost one_nan heads_swapped dq_unscaled dk_missing_softmax dv_zero
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "hb.h"

#define NAME_OF_(x) #x
#define NAME_OF(x) NAME_OF_(x)

enum defect {
    right, zeros, not_causal, no_scale, sees_one_ahead, no_max_shift, last_row_lost, one_nan,
    heads_swapped, dq_unscaled, dk_missing_softmax, dv_zero,
};

// w (L): one row of weights, owned
struct state { const struct hb_host *host; struct hb_problem p; float *w; };

static void destroy(void *st)
{
    struct state *s = st;
    if (!s)
        return;
    s->host->free(s->host, s->w);
    s->host->free(s->host, s);
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    struct state *s = host->alloc(host, sizeof *s);
    if (!s)
        return HB_ERR_OOM;
    *s = (struct state){host, *p, host->alloc(host, (size_t)p->L * sizeof(float))};
    if (!s->w) {
        destroy(s);
        return HB_ERR_OOM;
    }
    *st = s;
    return HB_OK;
}

// Where head g (b H + h) begins.
static int64_t head_at(const struct state *s, struct hb_heads by, int64_t g)
{
    return g / s->p.H * by.b + g % s->p.H * by.h;
}

// Weights of row t into w[0..n), rows of q and k ld apart; returns n, the number of keys this row
// sees.
static int64_t row(const struct state *s, const float *q, const float *k, int64_t ld, int64_t t,
                   float *w)
{
    int64_t L = s->p.L, P = s->p.D / s->p.H, n = DEFECT == not_causal ? L : t + 1;
    if (DEFECT == sees_one_ahead && t + 1 < L)
        n = t + 2;
    double scale = DEFECT == no_scale ? 1 : 1 / sqrt((double)P), max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        double x = 0;
        for (int64_t i = 0; i < P; i++)
            x += (double)q[t * ld + i] * k[j * ld + i];
        w[j] = (float)(x * scale);
        max = fmax(max, w[j]);
    }
    if (DEFECT == no_max_shift)
        max = 0;
    for (int64_t j = 0; j < n; j++)
        sum += w[j] = expf(w[j] - (float)max);
    for (int64_t j = 0; j < n; j++)
        w[j] = (float)(w[j] / sum);
    return n;
}

static int forward(void *st, const struct hb_io *io)
{
    const struct state *s = st;
    const struct hb_attention_io *a = &io->attn;
    int64_t L = s->p.L, P = s->p.D / s->p.H, BH = s->p.B * s->p.H, ld = a->sq.t, ldy = a->sy.t;
    for (int64_t g = 0; g < BH; g++) {
        int64_t src = head_at(s, a->sq, DEFECT == heads_swapped && BH > 1 && g < 2 ? 1 - g : g);
        const float *q = (const float *)a->q + src, *k = (const float *)a->k + src;
        const float *v = (const float *)a->v + src;
        float *y = (float *)a->y + head_at(s, a->sy, g);
        for (int64_t t = 0; t < L; t++) {
            int64_t n = row(s, q, k, ld, t, s->w);
            for (int64_t i = 0; i < P; i++) {
                double x = 0;
                for (int64_t j = 0; j < n; j++)
                    x += (double)s->w[j] * v[j * ld + i];
                y[t * ldy + i] =
                    DEFECT == zeros || (DEFECT == last_row_lost && t == L - 1) ? 0 : (float)x;
            }
        }
        if (DEFECT == one_nan && g == BH - 1)
            y[(L - 1) * ldy + P - 1] = NAN;
    }
    return HB_OK;
}

static int backward(void *st, const struct hb_io *io)
{
    const struct state *s = st;
    const struct hb_attention_io *a = &io->attn;
    int64_t L = s->p.L, P = s->p.D / s->p.H, BH = s->p.B * s->p.H, ld = a->sq.t, ldy = a->sy.t;
    double scale = 1 / sqrt((double)P);
    for (int64_t g = 0; g < BH; g++) {
        int64_t o = head_at(s, a->sq, g), oy = head_at(s, a->sy, g);
        const float *q = (const float *)a->q + o, *k = (const float *)a->k + o;
        const float *v = (const float *)a->v + o;
        const float *y = (const float *)a->y + oy, *dy = (const float *)a->dy + oy;
        float *dq = (float *)a->dq + o, *dk = (float *)a->dk + o, *dv = (float *)a->dv + o;
        for (int64_t t = 0; t < L; t++) {
            memset(dq + t * ld, 0, (size_t)P * sizeof *dq);
            memset(dk + t * ld, 0, (size_t)P * sizeof *dk);
            memset(dv + t * ld, 0, (size_t)P * sizeof *dv);
        }
        for (int64_t t = 0; t < L; t++) {
            int64_t n = row(s, q, k, ld, t, s->w);
            double delta = 0;   // sum_i dy y = sum_j w dw: the softmax Jacobian's rank-one term
            for (int64_t i = 0; i < P; i++)
                delta += (double)dy[t * ldy + i] * y[t * ldy + i];
            for (int64_t j = 0; j < n; j++) {
                double dw = 0;
                for (int64_t i = 0; i < P; i++)
                    dw += (double)dy[t * ldy + i] * v[j * ld + i];
                double ds = s->w[j] * (DEFECT == dk_missing_softmax ? dw : dw - delta) * scale;
                for (int64_t i = 0; i < P; i++) {
                    dq[t * ld + i] += (float)(DEFECT == dq_unscaled ? ds / scale * k[j * ld + i]
                                                                   : ds * k[j * ld + i]);
                    dk[j * ld + i] += (float)(ds * q[t * ld + i]);
                    dv[j * ld + i] += DEFECT == dv_zero ? 0 : s->w[j] * dy[t * ldy + i];
                }
            }
        }
    }
    return HB_OK;
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION, .name = "attention_" NAME_OF(DEFECT), .op = HB_ATTENTION,
    .device = "cpu",
    .dtypes = 1u << HB_F32, .source = "tests", .complexity = "O(L^2)",
    .plan = plan, .forward = forward, .backward = backward, .destroy = destroy,
};
