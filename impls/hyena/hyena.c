// hyena.c: the Hyena operator over the device interface, with any longconv inside (problem.inner).
//     x^0 .. x^{N-1}, v = short(Win u + bin);  v_0 = v;  for o < N-1:  r_o = v_o x^{N-1-o},
//     v_{o+1} = h_o * r_o + d_o r_o;   y = Wout (v_{N-1} x^0) + bout (+ res)          u,y (B,L,D)
// Method    channel first throughout, (channels,B,L): the first GEMM writes that layout and the
//           last reads it, so nothing is transposed and the long convolution sees contiguous time
//           (strides b L, c B L). The filter is made beside the first projection, its gradients
//           beside those of the last blocks of it (the device's fork).
//           A longconv that takes gates (hb_conv_gates) does a step in one call, from the raw
//           projections; around the others the short filters and gates are one pass each way. What
//           they read is kept, what they compute inside is not.
// Cost      2 B L D^2 (N+2) flop of GEMM, N-1 long convolutions, one filter generation (once for
//           all b).
// Memory    in units of B L D elements: N+3, with backward 4N+3 (p and its gradient; r_o; v_{o+1};
//           q; scratch); with gates N+2 (order > 2: N+3), with backward 3N+2 (order > 2: 3N+3); the
//           filter h (C,L), C = (N-1) D, and its gradient, in float32.
// Source    Poli et al. 2023, arXiv:2302.10866, section 3; N-1 long convolutions as the published
//           code has.
// Accuracy  the filter in float64, or near float32 where signals have 16 bits; the rest is stored
//           in the problem's dtype (f32, f16, bf16) and summed in float32.
// Refuses   dtypes that the device or the longconv inside lacks, order < 2, even E, lmax < L,
//           B L >= 2^31, filter = fixed (the filter is a parameter here).
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "inner.h"
#include "oper.h"
#include "proj.h"

struct state {
    const struct hb_host *host;            // borrowed
    const struct hb_device *dev;           // borrowed
    const struct hb_impl *inner;           // borrowed; NULL without long convolution
    void **conv;                           // owned: N-1 states; one if there is no backward pass
    int n_conv;
    struct hb_proj proj;
    struct hb_filter_shape fs;
    int N;
    bool backward;
    bool gated;                            // the longconv takes gates
    bool permute;                          // filter channels come as c*(N-1)+o, wanted as o*D+c
    int64_t BLD;
    size_t size;                           // bytes of one element of an activation
    void *p;                               // owned: N+1 blocks
    void *r, *v;                           // owned: r_o, v_{o+1}: N-1 blocks, forward only one;
                                           // gated: no r, forward only one or two of v; without
                                           // long convolution: r only without backward
    void *q;                               // v_{N-1} x^0; owned where backward and not gated
    float *h, *dh;                         // owned: (C,L), the second with backward
    float *h_raw, *d, *dd;                 // owned, if permute: (C,L), (C), (2C)
    void *e, *f, *dp;                      // owned: backward: one block each, dp N+1
    float *sink;                           // owned: where gradients that nobody wants go
    void *ws;                              // owned
};

static const char *refuses(const struct hb_problem *p)
{
    struct hb_oper_opts o = hb_oper_resolve(p);
    if (p->dtype == HB_F64) return "hyena does not compute in float64";
    if (p->filter == HB_FILTER_FIXED)
        return "hyena makes its filter from its parameters at every call";
    if (o.order < 2) return "hyena needs order >= 2";
    if (o.emb_dim < 3 || o.emb_dim % 2 == 0) return "hyena needs an odd emb_dim >= 3";
    if (o.filter_width < 1) return "hyena needs filter_width >= 1";
    if (o.short_taps < 1) return "hyena needs short_taps >= 1";
    if (o.lmax < p->L) return "hyena needs lmax >= L";
    if (!p->inner[0] && !o.no_long) return "hyena needs a long convolution: hyena:NAME";
    return hb_proj_refuses(p);
}

// --- parameters ----------------------------------------------------------------------------------

#define MLP "filter_fn.implicit_filter."

static int tensors(const struct hb_problem *p, struct hb_tensor *out, int cap)
{
    struct hb_oper_opts o = hb_oper_resolve(p);
    int64_t D = p->D, Q = (o.order + 1) * D, C = (o.order - 1) * D, W = o.filter_width;
    int64_t E = o.emb_dim, taps = o.short_taps, lmax = o.lmax;
    float aD = (float)(1 / sqrt((double)D)), aK = (float)(1 / sqrt((double)o.short_taps));
    float aE = (float)(1 / sqrt((double)E)), aW = (float)(1 / sqrt((double)W));
    const enum hb_init U = HB_INIT_UNIFORM, G = HB_INIT_NORMAL, O = HB_INIT_ZERO, K = HB_INIT_CONST,
                       P = HB_INIT_POSEMB;
    const bool no = false, yes = true;
    // name, shape, rank; initialisation alone and inside a language model; residual_out, trainable,
    // filter_group, cast
    const struct hb_tensor all[HB_HY_COUNT] = {
        [HB_HY_WIN]  = { "in_proj.weight", { Q, D }, 2, U, aD, G, 0.02f, no, yes, no, yes },
        [HB_HY_BIN]  = { "in_proj.bias", { Q }, 1, U, aD, O, 0, no, yes, no, no },
        [HB_HY_WOUT] = { "out_proj.weight", { D, D }, 2, U, aD, G, 0.02f, yes, yes, no, yes },
        [HB_HY_BOUT] = { "out_proj.bias", { D }, 1, U, aD, O, 0, no, yes, no, yes },
        [HB_HY_WS]   = { "short_filter.weight", { Q, 1, taps }, 3, U, aK, U, aK, no, yes, no, no },
        [HB_HY_BS]   = { "short_filter.bias", { Q }, 1, U, aK, U, aK, no, yes, no, no },
        [HB_HY_D]    = { "filter_fn.bias", { C }, 1, G, 1, G, 1, no, yes, no, no },
        [HB_HY_Z]    = { "filter_fn.pos_emb.z", { 1, lmax, E }, 3, P, 0, P, 0, no, o.train_z, yes,
                         no },
        [HB_HY_W1]   = { MLP "0.weight", { W, E }, 2, U, aE, G, 0.02f, no, yes, yes, no },
        [HB_HY_B1]   = { MLP "0.bias", { W }, 1, U, aE, O, 0, no, yes, yes, no },
        [HB_HY_FREQ] = { MLP "1.freq", { 1, W }, 2, K, o.w, K, o.w, no, yes, yes, no },
        [HB_HY_W2]   = { MLP "2.weight", { W, W }, 2, U, aW, G, 0.02f, no, yes, yes, no },
        [HB_HY_B2]   = { MLP "2.bias", { W }, 1, U, aW, O, 0, no, yes, yes, no },
        [HB_HY_W3]   = { MLP "4.weight", { W, W }, 2, U, aW, G, 0.02f, no, yes, yes, no },
        [HB_HY_B3]   = { MLP "4.bias", { W }, 1, U, aW, O, 0, no, yes, yes, no },
        [HB_HY_W4]   = { MLP "6.weight", { C, W }, 2, U, aW, G, 0.02f, no, yes, yes, no },
    };
    int n = o.no_long ? HB_HY_D : HB_HY_COUNT;
    for (int i = 0; i < n && i < cap; i++) out[i] = all[i];
    return n;
}

static int64_t count(const struct hb_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

static struct hb_proj_params proj_params(void *const *t)
{
    return (struct hb_proj_params){ .win = t[HB_HY_WIN], .bin = t[HB_HY_BIN],
                                    .wout = t[HB_HY_WOUT], .bout = t[HB_HY_BOUT],
                                    .ws = t[HB_HY_WS], .bs = t[HB_HY_BS] };
}

static struct hb_proj_grads proj_grads(void *const *t)
{
    return (struct hb_proj_grads){ .win = t[HB_HY_WIN], .bin = t[HB_HY_BIN],
                                   .wout = t[HB_HY_WOUT], .bout = t[HB_HY_BOUT],
                                   .ws = t[HB_HY_WS], .bs = t[HB_HY_BS] };
}

static struct hb_filter_params filter_params(void *const *t)
{
    return (struct hb_filter_params){ t[HB_HY_Z],  t[HB_HY_W1], t[HB_HY_B1],
                                      t[HB_HY_W2], t[HB_HY_B2], t[HB_HY_W3],
                                      t[HB_HY_B3], t[HB_HY_W4], t[HB_HY_FREQ] };
}

// --- plan ----------------------------------------------------------------------------------------

static bool own_q(const struct state *st) { return st->backward && !st->gated; }

// Block i of `x`.
static void *block(const struct state *st, const void *x, int i)
{
    return hb_at(x, i * st->BLD, st->size);
}

static void destroy(void *state)
{
    struct state *st = state;
    if (!st) return;
    for (int i = 0; st->conv && i < st->n_conv; i++) st->inner->destroy(st->conv[i]);
    st->host->free(st->host, st->conv);
    void *const mem[] = { st->p, st->r, st->v, own_q(st) ? st->q : NULL, st->h, st->dh, st->h_raw,
                          st->d, st->dd, st->e, st->f, st->dp, st->sink, st->ws };
    hb_free_all(st->dev, mem, sizeof mem / sizeof *mem);
    st->host->free(st->host, st);
}

// The states of the long convolutions: each step needs its own where the backward pass looks back
// at it.
static int plan_inner(struct state *st, const struct hb_problem *p)
{
    struct hb_problem in = { .op = HB_LONGCONV, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D,
                             .threads = p->threads, .planning = p->planning,
                             .backward = p->backward };
    const struct hb_host *host = st->host;
    int rc = hb_inner_open(host, "hyena", "a longconv", p->inner, &in, &st->inner);
    if (rc) return rc;
    if (st->inner->gates) {
        in.gated = true;
        in.taps = st->proj.taps;
        st->gated = !st->inner->refuses || !st->inner->refuses(&in);
        if (!st->gated) in.gated = false, in.taps = 0;
    }
    int n = p->backward ? st->N - 1 : 1;
    st->conv = host->alloc(host, (size_t)n * sizeof *st->conv);
    if (!st->conv) return HB_ERR_OOM;
    for (; st->n_conv < n; st->n_conv++) {
        st->conv[st->n_conv] = NULL;
        rc = st->inner->plan(host, &in, &st->conv[st->n_conv]);
        if (rc) return rc;
    }
    return 0;
}

static int64_t sink_size(const struct hb_problem *p)
{
    struct hb_tensor t[HB_HY_COUNT];
    int64_t most = 0;
    int n = tensors(p, t, HB_HY_COUNT);
    for (int i = 0; i < n; i++)
        if (i != HB_HY_Z && count(&t[i]) > most) most = count(&t[i]);   // z: nothing is computed
    return most;
}

// v_{o+1} of step o, but with gates its last is q. Without a backward pass: of what takes gates or
// is no convolution, so that it is not what step o reads, every other one.
static void *v_after(const struct state *st, int o)
{
    if (st->backward) return block(st, st->v, o);
    if (st->gated) return block(st, st->v, o % 2);
    return !st->inner && o % 2 ? st->r : st->v;
}

static int allocate(struct state *st, const struct hb_problem *p, bool no_long)
{
    int64_t one = st->BLD, steps = st->N - 1, C = steps * p->D, filter = no_long ? 0 : C * p->L;
    bool bwd = st->backward, perm = st->permute;
    size_t size = st->size, f32 = sizeof(float);
    int64_t n_r = st->gated ? 0 : bwd ? no_long ? 0 : steps : 1;
    int64_t n_v = bwd ? steps : st->gated && steps > 1 ? 2 : 1;
    const struct hb_need need[] = {
        { &st->p, (steps + 2) * one, size }, { &st->r, n_r * one, size },
        { &st->v, n_v * one, size }, { &st->q, own_q(st) ? one : 0, size },
        { &st->h, filter, f32 }, { &st->h_raw, perm ? filter : 0, f32 },
        { &st->dh, bwd ? filter : 0, f32 }, { &st->d, perm ? C : 0, f32 },
        { &st->dd, perm && bwd ? 2 * C : 0, f32 }, { &st->e, bwd ? one : 0, size },
        { &st->f, bwd && !(st->gated && steps == 1) ? one : 0, size },
        { &st->dp, bwd ? (steps + 2) * one : 0, size },
        { &st->sink, bwd ? sink_size(p) : 0, f32 },
    };
    int rc = hb_need_alloc(st->dev, need, sizeof need / sizeof *need);
    // Written by the last step, when block N of p has been read.
    if (!own_q(st)) st->q = st->gated ? v_after(st, st->N - 2) : block(st, st->p, st->N);
    if (rc || no_long) return rc;
    st->ws = st->dev->alloc(st->dev, st->dev->filter_ws(st->fs));
    return st->ws ? 0 : HB_ERR_OOM;
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **out)
{
    const char *why = refuses(p);
    if (!why) why = hb_device_refuses(host->device, p);
    if (why) return host->fail(host, HB_ERR_REFUSED, "hyena: %s", why);
    struct hb_oper_opts o = hb_oper_resolve(p);
    struct state *st = host->alloc(host, sizeof *st);
    *out = NULL;
    if (!st) return HB_ERR_OOM;
    *st = (struct state){ .host = host, .dev = host->device, .N = o.order,
                          .permute = o.package_layout && o.order > 2 && !o.no_long,
                          .backward = p->backward, .BLD = p->B * p->L * p->D,
                          .size = hb_dtype_size(p->dtype) };
    st->proj = (struct hb_proj){ .dev = st->dev, .on = { p->dtype, NULL }, .B = p->B, .L = p->L,
                                 .D = p->D, .n = o.order + 1, .taps = o.short_taps,
                                 .all = true };
    st->fs = (struct hb_filter_shape){ .L = p->L, .lmax = o.lmax, .shift = o.shift,
                                       .channels = (o.order - 1) * (int)p->D,
                                       .emb_dim = o.emb_dim, .width = o.filter_width,
                                       .window = !o.no_window };
    int rc = o.no_long ? 0 : plan_inner(st, p);
    if (!rc) rc = allocate(st, p, o.no_long);
    if (rc) destroy(st);
    else *out = st;
    return rc;
}

// --- forward -------------------------------------------------------------------------------------

// h (C,L) and d (C) in the order o*D+c; on the stream s.
static int make_filter(struct state *st, void *const *par, const float **d, void *s)
{
    int64_t D = st->proj.D, L = st->proj.L;
    float *raw = st->permute ? st->h_raw : st->h;
    struct hb_on on = { st->proj.on.t, s };
    int rc = st->dev->filter_fwd(st->dev, raw, st->fs, filter_params(par), st->ws, on);
    *d = par[HB_HY_D];
    if (rc || !st->permute) return rc;
    struct hb_on f32 = { HB_F32, s };
    st->dev->swap(st->h, raw, 1, D, st->N - 1, L, f32);
    st->dev->swap(st->d, par[HB_HY_D], 1, D, st->N - 1, 1, f32);
    *d = st->d;
    return 0;
}

static struct hb_longconv_io conv_io(const struct state *st, int o, const void *r, const float *d,
                                     void *v)
{
    int64_t D = st->proj.D, L = st->proj.L;
    struct hb_strides cf = { L, st->proj.B * L };
    struct hb_longconv_io io = { .u = r, .su = cf, .y = v, .sy = cf };
    if (!st->inner) return io;
    io.h = st->h + o * D * L;
    io.d = d + o * D;
    return io;
}

// The short filter of block i; g NULL: no gradients.
static struct hb_conv_tap tap_of(const struct state *st, int i, void *const *par, void *const *g)
{
    int64_t c = i * st->proj.D, w = c * st->proj.taps;
    struct hb_proj_params p = proj_params(par);
    struct hb_conv_tap t = { .w = p.ws + w, .bs = p.bs + c, .bp = p.bin + c };
    if (!g) return t;
    struct hb_proj_grads dp = proj_grads(g);
    t.dw = dp.ws + w;
    t.dbs = dp.bs + c;
    t.dbp = dp.bin + c;
    return t;
}

// Block i of the projections as a gate; its gradient goes to block i of st->dp.
static struct hb_conv_gate gate_of(const struct state *st, int i, void *const *par, void *const *g)
{
    struct hb_strides cf = { st->proj.L, st->proj.B * st->proj.L };
    return (struct hb_conv_gate){ .x = block(st, st->p, i), .sx = cf,
                                  .dx = g ? block(st, st->dp, i) : NULL, .sdx = cf,
                                  .tap = tap_of(st, i, par, g) };
}

// Step o as one gated convolution: *io and *gates, without what concerns y's and u's gradients.
static void step_io(const struct state *st, int o, const float *d, void *const *par,
                    void *const *g, struct hb_io *io, struct hb_conv_gates *gates)
{
    int N = st->N;
    const void *u = o ? v_after(st, o - 1) : block(st, st->p, N);
    *gates = (struct hb_conv_gates){ .pre = gate_of(st, N - 1 - o, par, g) };
    if (o == 0) gates->u = tap_of(st, N, par, g);
    if (o == N - 2) gates->post = gate_of(st, 0, par, g);
    io->conv = conv_io(st, o, u, d, o == N - 2 ? st->q : v_after(st, o));
    io->conv.gates = gates;
}

// r_o of step o where the longconv takes no gates.
static void *r_of(const struct state *st, int o)
{
    return !st->inner ? v_after(st, o) : st->backward ? block(st, st->r, o) : st->r;
}

// The same from the device's primitives and a longconv without gates, or none.
static int compose(struct state *st, int o, const struct hb_io *io)
{
    const struct hb_device *dev = st->dev;
    const struct hb_longconv_io *c = &io->conv;
    const struct hb_conv_gates *g = c->gates;
    const struct hb_conv_tap none = { .w = NULL };
    int64_t D = st->proj.D, B = st->proj.B, L = st->proj.L;
    int K = st->proj.taps, rc = 0;
    dev->taps_fwd(r_of(st, o), c->u, g->u, g->pre.x, g->pre.tap, D, B, L, K, st->proj.on);
    if (st->inner) {
        struct hb_io ci = { .stream = io->stream, .conv = *c };
        ci.conv.u = r_of(st, o);
        ci.conv.y = v_after(st, o);
        ci.conv.gates = NULL;
        rc = st->inner->forward(st->conv[st->backward ? o : 0], &ci);
    }
    if (!rc && g->post.x)
        dev->taps_fwd(c->y, v_after(st, o), none, g->post.x, g->post.tap, D, B, L, K, st->proj.on);
    return rc;
}

static int forward(void *state, const struct hb_io *io)
{
    struct state *st = state;
    const struct hb_device *dev = st->dev;
    void *s = io->stream, *side = s, *const *par = io->oper.params;
    const float *d = NULL;
    int rc = 0;
    st->proj.on = (struct hb_on){ st->proj.on.t, s };
    if (st->inner) {
        side = dev->fork(dev, s);
        rc = make_filter(st, par, &d, side);
    }
    hb_proj_in(&st->proj, NULL, st->p, io->oper.u, proj_params(par));
    if (st->inner) dev->join(dev, side, s);
    for (int o = 0; o < st->N - 1 && !rc; o++) {
        struct hb_conv_gates gates;
        struct hb_io ci = { .stream = s };
        step_io(st, o, d, par, NULL, &ci, &gates);
        rc = st->gated ? st->inner->forward(st->conv[st->backward ? o : 0], &ci)
                       : compose(st, o, &ci);
    }
    if (!rc) hb_proj_out(&st->proj, true, io->oper.y, st->q, io->oper.res, proj_params(par));
    return rc;
}

// --- backward ------------------------------------------------------------------------------------

// dh, dd (order o*D+c) -> the parameters' gradients; on the stream s.
static int filter_grads(struct state *st, void *const *par, void *const *g, void *s)
{
    const struct hb_device *dev = st->dev;
    int64_t D = st->proj.D, L = st->proj.L, C = st->fs.channels;
    struct hb_on on = { st->proj.on.t, s };
    float *dh = st->dh;
    if (st->permute) {
        dh = st->h_raw;                                          // its h is in st->h
        struct hb_on f32 = { HB_F32, s };
        dev->swap(dh, st->dh, 1, st->N - 1, D, L, f32);
        dev->swap(st->dd + C, st->dd, 1, st->N - 1, D, 1, f32);
        dev->add(g[HB_HY_D], st->dd + C, C, f32);
    }
    return dev->filter_bwd(dev, dh, st->fs, filter_params(par), filter_params(g), st->ws, on);
}

struct back {                          // what the steps of a backward pass share
    void *const *par, *const *g;
    const float *d;
    float *dd;
    void *dv, *spare;                      // dv_{o+1}, in one of two blocks, and the other
    void *side;                            // the stream of the filter's gradients, once forked
};

static int conv_bwd(struct state *st, int o, struct hb_io *io, struct back *b, void *du)
{
    struct hb_longconv_io *c = &io->conv;
    c->dy = b->dv; c->sdy = c->su;
    c->du = du; c->sdu = c->su;
    c->dh = st->dh + o * st->proj.D * st->proj.L;
    c->dd = b->dd + o * st->proj.D;
    return st->inner->backward(st->conv[o], io);
}

static void swap_blocks(struct back *b)
{
    void *x = b->dv;
    b->dv = b->spare;
    b->spare = x;
}

// compose's: b->dv becomes the gradient of the step's u, in `du` if that is not NULL.
static int compose_bwd(struct state *st, int o, const struct hb_io *io, struct back *b, void *du)
{
    const struct hb_device *dev = st->dev;
    const struct hb_longconv_io *c = &io->conv;
    const struct hb_conv_gates *g = c->gates;
    const struct hb_conv_tap none = { .w = NULL };
    int64_t D = st->proj.D, B = st->proj.B, L = st->proj.L;
    int K = st->proj.taps, rc = 0;
    if (g->post.x) {
        dev->taps_bwd(b->spare, g->post.dx, b->dv, v_after(st, o), none, g->post.x, g->post.tap, D,
                      B, L, K, st->proj.on);
        swap_blocks(b);
    }
    if (st->inner) {
        struct hb_io ci = { .stream = io->stream, .conv = *c };
        ci.conv.u = r_of(st, o);
        ci.conv.y = v_after(st, o);
        ci.conv.gates = NULL;
        rc = conv_bwd(st, o, &ci, b, b->spare);
        swap_blocks(b);
    }
    if (!rc)
        dev->taps_bwd(du ? du : b->spare, g->pre.dx, b->dv, c->u, g->u, g->pre.x, g->pre.tap, D, B,
                      L, K, st->proj.on);
    if (!du) swap_blocks(b);
    return rc;
}

// From b->dv, the gradient of q: all of st->dp, dh, dd; the filter's gradients begin beside.
static int steps_bwd(struct state *st, struct back *b, void *s)
{
    int rc = 0;
    for (int o = st->N - 2; o >= 0 && !rc; o--) {
        struct hb_conv_gates gates;
        struct hb_io ci = { .stream = s };
        void *du = o ? NULL : block(st, st->dp, st->N);
        step_io(st, o, b->d, b->par, b->g, &ci, &gates);
        if (st->gated) {
            rc = conv_bwd(st, o, &ci, b, du ? du : b->spare);
            swap_blocks(b);
        } else {
            rc = compose_bwd(st, o, &ci, b, du);
        }
    }
    if (rc || !st->inner) return rc;
    b->side = st->dev->fork(st->dev, s);
    return filter_grads(st, b->par, b->g, b->side);
}

static int backward(void *state, const struct hb_io *io)
{
    struct state *st = state;
    const struct hb_device *dev = st->dev;
    void *s = io->stream, *const *par = io->oper.params, *g[HB_HY_COUNT];
    int64_t C = st->fs.channels;
    int n_par = st->inner ? HB_HY_COUNT : HB_HY_D;
    if (!st->backward)
        return st->host->fail(st->host, HB_ERR_INPUT, "hyena: planned without a backward pass");
    for (int i = 0; i < n_par; i++)
        g[i] = io->oper.grads[i] || i == HB_HY_Z ? io->oper.grads[i] : st->sink;
    struct back b = { .par = par, .g = g, .dv = st->e, .spare = st->f,
                      .d = st->permute ? st->d : st->inner ? par[HB_HY_D] : NULL,
                      .dd = st->permute ? st->dd : NULL };
    struct hb_proj_params pp = proj_params(par);
    struct hb_proj_grads pg = proj_grads(g);
    st->proj.on = (struct hb_on){ st->proj.on.t, s };
    if (st->inner) {
        if (!b.dd) b.dd = g[HB_HY_D];
        else dev->zero(b.dd, (size_t)C * sizeof *b.dd, s);
        dev->zero(st->dh, (size_t)(C * st->fs.L) * sizeof *st->dh, s);
    }
    hb_proj_out_bwd(&st->proj, true, b.dv, io->oper.dy, st->q, pp, pg);
    int rc = steps_bwd(st, &b, s);
    if (!rc) hb_proj_raw_bwd(&st->proj, io->oper.du, st->dp, io->oper.u, pp, pg);
    if (b.side) dev->join(dev, b.side, s);
    return rc;
}

static int describe(const void *state, char *buf, size_t cap)
{
    const struct state *st = state;
    if (!st->inner) return snprintf(buf, cap, "order %d, no long convolution", st->N);
    int n = snprintf(buf, cap, "order %d, filter %d x %d%s; ", st->N, st->fs.emb_dim,
                     st->fs.width, st->gated ? ", gates inside" : "");
    if (!st->inner->describe || n < 0 || (size_t)n >= cap) return n;
    return n + st->inner->describe(st->conv[0], buf + n, cap - (size_t)n);
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION, .name = "hyena", .op = HB_HYENA, .device = "any",
    .dtypes = 1u << HB_F32 | 1u << HB_F16 | 1u << HB_BF16,
    .source = "Poli et al. 2023, arXiv:2302.10866; channel first over the device's primitives",
    .complexity = "O(L D^2) and that of its long convolution",
    .refuses = refuses, .plan = plan, .forward = forward, .backward = backward, .destroy = destroy,
    .tensors = tensors, .describe = describe,
};
