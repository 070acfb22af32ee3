// proj.h: the projections around a mixer, over the device interface; the same in hyena and mha.
//     in    p = W u' + b,  s = short filter (p)     u (B,L,D) -> p, s: n blocks of (D,B,L)
//     out   y = Wout q + bout                       q (D,B,L) or (B,L,D) -> y (B,L,D)
// One block at a time: a plan without backward keeps one block of p, one with backward all of them.
#ifndef HB_PROJ_H
#define HB_PROJ_H

#include "device.h"

struct hb_proj {
    const struct hb_device *dev;
    void *stream;
    int64_t B, L, D;
    int n, taps;                 // blocks; taps 0: no short filter, then s = p
    bool keep;                   // p has n blocks (for the backward pass), not one
};
// Parameters, or gradients. ws, bs are not looked at where taps is 0.
struct hb_proj_params { float *win, *bin, *wout, *bout, *ws, *bs; };

static inline void hb_proj_in(const struct hb_proj *j, float *s, float *p, const float *u,
                              struct hb_proj_params w)
{
    const struct hb_device *d = j->dev;
    int64_t D = j->D, R = j->B * j->L;
    for (int i = 0; i < j->n; i++) {
        float *si = s + i * D * R, *pi = j->taps ? p + (j->keep ? i * D * R : 0) : si;
        d->gemm(false, true, D, R, D, 1, w.win + i * D * D, D, u, D, 0, pi, R, j->stream);
        if (j->taps)
            d->shortconv_fwd(si, pi, w.bin + i * D, w.ws + i * D * j->taps, w.bs + i * D, D, j->B,
                             j->L, j->taps, j->stream);
        else d->rowbias_fwd(si, w.bin + i * D, D, R, j->stream);
    }
}

// Block i: ds (D,B,L) is the gradient of its s, dp (D,B,L) scratch (not used where taps is 0).
// du = ... if first, else du += ...; the parameters' gradients += ...
static inline void hb_proj_in_bwd(const struct hb_proj *j, int i, bool first, float *du,
                                  const float *ds, float *dp, const float *p, const float *u,
                                  struct hb_proj_params w, struct hb_proj_params g)
{
    const struct hb_device *d = j->dev;
    int64_t D = j->D, R = j->B * j->L;
    if (j->taps) {
        d->shortconv_bwd(dp, g.ws + i * D * j->taps, g.bs + i * D, g.bin + i * D, ds, p + i * D * R,
                         w.bin + i * D, w.ws + i * D * j->taps, D, j->B, j->L, j->taps, j->stream);
        ds = dp;
    } else d->rowbias_bwd(g.bin + i * D, ds, D, R, j->stream);
    d->gemm(false, false, D, D, R, 1, ds, R, u, D, 1, g.win + i * D * D, D, j->stream);
    d->gemm(true, false, R, D, D, 1, ds, R, w.win + i * D * D, D, first ? 0 : 1, du, D, j->stream);
}

// channel_first: q, dq are (D,B,L); else (B,L,D).
static inline void hb_proj_out(const struct hb_proj *j, bool channel_first, float *y,
                               const float *q, struct hb_proj_params w)
{
    int64_t D = j->D, R = j->B * j->L;
    j->dev->gemm(channel_first, true, R, D, D, 1, q, channel_first ? R : D, w.wout, D, 0, y, D,
                 j->stream);
    j->dev->bias_fwd(y, w.bout, R, D, j->stream);
}

static inline void hb_proj_out_bwd(const struct hb_proj *j, bool channel_first, float *dq,
                                   const float *dy, const float *q, struct hb_proj_params w,
                                   struct hb_proj_params g)
{
    const struct hb_device *d = j->dev;
    int64_t D = j->D, R = j->B * j->L;
    d->bias_bwd(g.bout, dy, R, D, j->stream);
    d->gemm(true, channel_first, D, D, R, 1, dy, D, q, channel_first ? R : D, 1, g.wout, D,
            j->stream);
    if (channel_first) d->gemm(true, true, D, R, D, 1, w.wout, D, dy, D, 0, dq, R, j->stream);
    else d->gemm(false, false, R, D, D, 1, dy, D, w.wout, D, 0, dq, D, j->stream);
}

#endif
