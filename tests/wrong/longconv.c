// longconv.c: the shelf of wrong implementations, causal long convolution.
// A plain, correct loop with one defect switched in by -DDEFECT=name: the build makes one plug-in
// of each name in the next line. The checker must reject all of them and accept `right`, so that a
// rejection is due to the defect alone.
// defects: right zeros circular lag_plus_1 future_leak last_tile_lost one_nan missing_scale no_skip ignores_strides half_precision writes_past_end allocates last_sample_unwritten reversed_filter du_without_skip du_causal dh_overwritten dh_first_batch_only dh_lag_plus_1 dd_missing du_nan one_channel_swapped
#include <math.h>
#include <stdlib.h>
#include "hb.h"

#define NAME_OF_(x) #x
#define NAME_OF(x) NAME_OF_(x)

enum defect {
    right, zeros, circular, lag_plus_1, future_leak, last_tile_lost, one_nan, missing_scale,
    no_skip, ignores_strides, half_precision, writes_past_end, allocates, last_sample_unwritten,
    reversed_filter, du_without_skip, du_causal, dh_overwritten, dh_first_batch_only, dh_lag_plus_1,
    dd_missing, du_nan, one_channel_swapped,
};

struct state { const struct hb_host *host; struct hb_problem p; };

static int plan(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    struct state *s = host->alloc(host, sizeof *s);
    if (!s)
        return HB_ERR_OOM;
    *s = (struct state){host, *p};
    *st = s;
    return HB_OK;
}

static void destroy(void *st)
{
    struct state *s = st;
    if (s)
        s->host->free(s->host, s);
}

// x[t], zero outside (circular if so broken).
static double at(const float *x, int64_t t, int64_t L)
{
    if (DEFECT == circular)
        t = (t % L + L) % L;
    return t < 0 || t >= L ? 0 : x[t];
}

static float spoil(double v, int64_t b, int64_t c, int64_t t, const struct hb_problem *p)
{
    bool last = b == p->B - 1 && c == p->D - 1 && t == p->L - 1;
    switch (DEFECT) {
    case zeros: return 0;
    case one_nan: return last ? NAN : (float)v;
    case missing_scale: return (float)(v * 2 * p->L);
    case half_precision: return (float)ldexp(nearbyint(ldexp(v, 10)), -10);
    case last_tile_lost: return t >= p->L / 8 * 8 && p->L > 8 ? 0 : (float)v;
    default: return (float)v;
    }
}

static int forward(void *st, const struct hb_io *io)
{
    const struct state *s = st;
    const struct hb_longconv_io *c = &io->conv;
    int64_t L = s->p.L;
    if (DEFECT == allocates)
        s->host->free(s->host, s->host->alloc(s->host, 64));
    for (int64_t b = 0; b < s->p.B; b++)
        for (int64_t ch = 0; ch < s->p.D; ch++) {
            struct hb_strides su = c->su;
            if (DEFECT == ignores_strides)
                su = (struct hb_strides){s->p.D * L, L};
            int64_t src = DEFECT == one_channel_swapped && ch < 2 && s->p.D > 1 ? 1 - ch : ch;
            const float *u = (const float *)c->u + b * su.b + src * su.c;
            const float *h = (const float *)c->h + ch * L;
            float *y = (float *)c->y + b * c->sy.b + ch * c->sy.c;
            for (int64_t t = 0; t < L; t++) {
                double v = c->d && DEFECT != no_skip ? ((const float *)c->d)[ch] * (double)u[t] : 0;
                int64_t first = DEFECT == circular ? t - L + 1 : 0;
                for (int64_t q = first; q <= t; q++) {
                    int64_t lag = DEFECT == lag_plus_1 ? t - q - 1 : t - q;
                    v += at(h, DEFECT == reversed_filter ? L - 1 - lag : lag, L) * at(u, q, L);
                }
                if (DEFECT == future_leak && t + 1 < L)
                    v += 1e-4 * u[t + 1];
                if (!(DEFECT == last_sample_unwritten && t == L - 1))
                    y[t] = spoil(v, b, ch, t, &s->p);
            }
            if (DEFECT == writes_past_end && b == s->p.B - 1 && ch == s->p.D - 1)
                y[L] = 0;
        }
    return HB_OK;
}

static int backward(void *st, const struct hb_io *io)
{
    const struct state *s = st;
    const struct hb_longconv_io *c = &io->conv;
    int64_t L = s->p.L;
    for (int64_t ch = 0; ch < s->p.D; ch++)
        for (int64_t b = 0; b < s->p.B; b++) {
            const float *u = (const float *)c->u + b * c->su.b + ch * c->su.c;
            const float *h = (const float *)c->h + ch * L;
            const float *dy = (const float *)c->dy + b * c->sdy.b + ch * c->sdy.c;
            float *du = (float *)c->du + b * c->sdu.b + ch * c->sdu.c;
            float *dh = (float *)c->dh + ch * L;
            double dd = 0;
            for (int64_t t = 0; t < L; t++) {
                double x = c->d && DEFECT != du_without_skip
                         ? ((const float *)c->d)[ch] * (double)dy[t] : 0;
                double g = 0;
                for (int64_t q = t; q < L; q++) {
                    x += DEFECT == du_causal ? h[q - t] * (double)dy[L - 1 - q + t]
                                             : h[q - t] * (double)dy[q];
                    g += dy[q] * at(u, DEFECT == dh_lag_plus_1 ? q - t - 1 : q - t, L);
                }
                du[t] = DEFECT == du_nan && t == L - 1 ? NAN : (float)x;
                if (DEFECT == dh_overwritten && b == 0)
                    dh[t] = (float)g;
                else if (!(DEFECT == dh_first_batch_only && b > 0))
                    dh[t] += (float)g;
                dd += (double)dy[t] * u[t];
            }
            if (c->dd && DEFECT != dd_missing)
                ((float *)c->dd)[ch] += (float)dd;
        }
    return HB_OK;
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION, .name = "longconv_" NAME_OF(DEFECT), .op = HB_LONGCONV, .device = "cpu",
    .dtypes = 1u << HB_F32,
    .source = "tests", .complexity = "O(L^2)",
    .plan = plan, .forward = forward, .backward = backward, .destroy = destroy,
};
