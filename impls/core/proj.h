// proj.h: the projections around a mixer, over the device interface; the same in hyena and mha.
//     in    p = W u',  s = short filter (p + b)   u (B,L,D) -> p, s: n blocks of (D,B,L)
//     out   y = Wout q + bout (+ res)             q (D,B,L) or (B,L,D) -> y (B,L,D)
// With all blocks of p there is one product for all of them; with room for one only (a large plan
// without backward) they come one at a time. On the cpu, where nothing is launched, always: a block
// is still in cache when its filter comes.
// Activations, win, wout and bout are of the type on.t; the rest and all gradients are float32.
#ifndef HB_PROJ_H
#define HB_PROJ_H

#include "device.h"
#include "inner.h"

struct hb_proj {
    const struct hb_device *dev;
    struct hb_on on;
    int64_t B, L, D;
    int n, taps;                 // blocks; taps of the short filter
    bool all;                    // p has n blocks (hb_proj_all), not one
};
struct hb_proj_params { const void *win, *wout, *bout; const float *bin, *ws, *bs; };
struct hb_proj_grads { float *win, *wout, *bout, *bin, *ws, *bs; };

// The longest row of a matrix product here is B L; BLAS libraries count in int. NULL = it fits.
static inline const char *hb_proj_refuses(const struct hb_problem *p)
{
    return p->B > INT32_MAX / p->L ? "B L is more than 2^31 - 1, a row too long for BLAS" : NULL;
}

// Does p have all its n blocks? For the backward pass; and where they are small, since on a device
// with launches (it has a stream) each product of its own costs one.
enum { HB_PROJ_SMALL = 16 << 20 };           // bytes: of the order of a device's last cache
static inline bool hb_proj_all(const struct hb_device *d, const struct hb_problem *p, int n)
{
    int64_t bytes = p->B * p->L * p->D * n * (int64_t)hb_dtype_size(p->dtype);
    return p->backward || (d->stream && bytes <= HB_PROJ_SMALL);
}

// s NULL: no short filter, p is wanted (it has all blocks).
static inline void hb_proj_in(const struct hb_proj *j, void *s, void *p, const void *u,
                              struct hb_proj_params w)
{
    int64_t D = j->D, R = j->B * j->L;
    int64_t C = j->all && j->dev->stream ? j->n * D : D;             // channels at a time
    size_t size = hb_dtype_size(j->on.t);
    for (int64_t c = 0; c < j->n * D; c += C) {
        void *pc = hb_at(p, j->all ? c * R : 0, size);
        struct hb_gemm g = { .tb = true, .m = C, .n = R, .k = D, .alpha = 1,
                             .A = hb_at(w.win, c * D, size), .lda = D, .B = u, .ldb = D,
                             .D = pc, .ldd = R };
        j->dev->gemm(&g, j->on);
        if (!s) continue;
        j->dev->shortconv_fwd(hb_at(s, c * R, size), pc, w.bin + c, w.ws + c * j->taps, w.bs + c, C,
                              j->B, j->L, j->taps, j->on);
    }
}

// Block i: ds (D,B,L) is the gradient of its s, dp (D,B,L) scratch.
// du = ... if first, else du += ...; the parameters' gradients += ...
static inline void hb_proj_in_bwd(const struct hb_proj *j, int i, bool first, void *du,
                                  const void *ds, void *dp, const void *p, const void *u,
                                  struct hb_proj_params w, struct hb_proj_grads g)
{
    int64_t D = j->D, R = j->B * j->L;
    size_t size = hb_dtype_size(j->on.t);
    j->dev->shortconv_bwd(dp, g.ws + i * D * j->taps, g.bs + i * D, g.bin + i * D, ds,
                          hb_at(p, i * D * R, size), w.bin + i * D, w.ws + i * D * j->taps, D, j->B,
                          j->L, j->taps, j->on);
    struct hb_gemm weight = { .m = D, .n = D, .k = R, .alpha = 1, .beta = 1, .A = dp, .lda = R,
                              .B = u, .ldb = D, .D = g.win + i * D * D, .ldd = D, .out_f32 = true };
    struct hb_gemm input = { .ta = true, .m = R, .n = D, .k = D, .alpha = 1,
                             .beta = first ? 0 : 1, .A = dp, .lda = R,
                             .B = hb_at(w.win, i * D * D, size), .ldb = D, .D = du, .ldd = D };
    j->dev->gemm(&weight, j->on);
    j->dev->gemm(&input, j->on);
}

// All blocks behind the short filter: dp is p's gradient. du = ..., win's gradient += ...
static inline void hb_proj_raw_bwd(const struct hb_proj *j, void *du, const void *dp, const void *u,
                                   struct hb_proj_params w, struct hb_proj_grads g)
{
    int64_t D = j->D, R = j->B * j->L, Q = j->n * D;
    struct hb_gemm weight = { .m = Q, .n = D, .k = R, .alpha = 1, .beta = 1, .A = dp, .lda = R,
                              .B = u, .ldb = D, .D = g.win, .ldd = D, .out_f32 = true };
    struct hb_gemm input = { .ta = true, .m = R, .n = D, .k = Q, .alpha = 1, .A = dp, .lda = R,
                             .B = w.win, .ldb = D, .D = du, .ldd = D };
    j->dev->gemm(&weight, j->on);
    j->dev->gemm(&input, j->on);
}

// channel_first: q, dq are (D,B,L); else (B,L,D). res: NULL, or (B,L,D) that is added.
static inline void hb_proj_out(const struct hb_proj *j, bool channel_first, void *y,
                               const void *q, const void *res, struct hb_proj_params w)
{
    int64_t D = j->D, R = j->B * j->L;
    struct hb_gemm g = { .ta = channel_first, .tb = true, .m = R, .n = D, .k = D, .alpha = 1,
                         .beta = res ? 1 : 0, .A = q, .lda = channel_first ? R : D, .B = w.wout,
                         .ldb = D, .C = res, .D = y, .ldd = D, .bias = w.bout };
    j->dev->gemm(&g, j->on);
}

static inline void hb_proj_out_bwd(const struct hb_proj *j, bool channel_first, void *dq,
                                   const void *dy, const void *q, struct hb_proj_params w,
                                   struct hb_proj_grads g)
{
    int64_t D = j->D, R = j->B * j->L, ld = channel_first ? R : D;
    struct hb_gemm weight = { .ta = true, .tb = channel_first, .m = D, .n = D, .k = R, .alpha = 1,
                              .beta = 1, .A = dy, .lda = D, .B = q, .ldb = ld, .D = g.wout,
                              .ldd = D, .out_f32 = true };
    struct hb_gemm rows = { .m = R, .n = D, .k = D, .alpha = 1, .A = dy, .lda = D, .B = w.wout,
                            .ldb = D, .D = dq, .ldd = D };
    struct hb_gemm channels = { .ta = true, .tb = true, .m = D, .n = R, .k = D, .alpha = 1,
                                .A = w.wout, .lda = D, .B = dy, .ldb = D, .D = dq, .ldd = R };
    j->dev->bias_bwd(g.bout, dy, R, D, j->on);
    j->dev->gemm(&weight, j->on);
    j->dev->gemm(channel_first ? &channels : &rows, j->on);
}

#endif
