// mha.c: multi-head causal attention with its projections over the device interface, any attention
// inside (problem.inner).
//     q,k,v = [short](Wqkv u + b), rotated if rope
//     y = Wout attention(q,k,v) + bout (+ res)        u,y (B,L,D)
// Method    one product writes q, k and v side by side, x (B,L,3,H,P), and the attention reads them
//           there by strides; its output (B,L,H,P) is what the last product reads. With a short
//           filter the projection is written channel first, so that the filter runs along
//           contiguous time, and then turned.
// Cost      8 B L D^2 flop of GEMM and one attention.
// Memory    in units of B L D elements: forward 4 (with the short filter 7 or 9), with
//           backward 8 (15).
// Source    Vaswani et al. 2017, arXiv:1706.03762, section 3.2; rotary positions Su et al. 2021,
//           arXiv:2104.09864, section 3.4.2, pairs (i, i+P/2), theta 10000.
// Accuracy  stored in the problem's dtype (f32, f16, bf16), summed in float32.
// Refuses   dtypes that the device or the attention inside lacks; D not a multiple of H; odd P with
//           rope; B L >= 2^31; filter = fixed.
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
    const struct hb_impl *inner;           // borrowed
    void *attn;                            // owned
    struct hb_proj proj;
    int64_t H, P, BLD;
    size_t size;                           // bytes of one element of an activation
    bool backward, rope;
    void *x, *y;                           // owned: q,k,v (B,L,3,H,P); attention's output (B,L,D)
    void *dx, *dy;                         // owned: their gradients; with backward
    void *p, *s, *tmp;                     // owned, with a short filter: before and after it, both
                                           // (3D,B,L); backward scratch (D,B,L)
    float *sink;                           // owned: where gradients that nobody wants go
};

static const char *refuses(const struct hb_problem *p)
{
    struct hb_oper_opts o = hb_oper_resolve(p);
    if (p->dtype == HB_F64) return "mha does not compute in float64";
    if (p->filter == HB_FILTER_FIXED) return "mha has no long filter that could be fixed";
    if (p->H < 1 || p->D % p->H) return "mha needs heads H that divide D";
    if (o.rope && (p->D / p->H) % 2) return "rotary positions need an even head width D/H";
    if (o.short_taps < 0) return "mha needs short_taps >= 0";
    if (!p->inner[0]) return "mha needs an attention: mha:NAME";
    return hb_proj_refuses(p);
}

static int tensors(const struct hb_problem *p, struct hb_tensor *out, int cap)
{
    struct hb_oper_opts o = hb_oper_resolve(p);
    int64_t D = p->D, K = o.short_taps;
    float aD = (float)(1 / sqrt((double)D)), aK = K ? (float)(1 / sqrt((double)K)) : 0;
    const enum hb_init U = HB_INIT_UNIFORM, G = HB_INIT_NORMAL, O = HB_INIT_ZERO;
    const bool no = false, yes = true;
    // name, shape, rank; initialisation alone and inside a language model; residual_out, trainable,
    // filter_group, cast: the short filter folds the bias in front of it, in float32
    const struct hb_tensor all[HB_MHA_COUNT] = {
        [HB_MHA_WIN]  = { "Wqkv.weight", { 3 * D, D }, 2, U, aD, G, 0.02f, no, yes, no, yes },
        [HB_MHA_BIN]  = { "Wqkv.bias", { 3 * D }, 1, U, aD, O, 0, no, yes, no, !K },
        [HB_MHA_WOUT] = { "out_proj.weight", { D, D }, 2, U, aD, G, 0.02f, yes, yes, no, yes },
        [HB_MHA_BOUT] = { "out_proj.bias", { D }, 1, U, aD, O, 0, no, yes, no, yes },
        [HB_MHA_WS]   = { "short_filter.weight", { 3 * D, 1, K }, 3, U, aK, U, aK, no, yes, no,
                          no },
        [HB_MHA_BS]   = { "short_filter.bias", { 3 * D }, 1, U, aK, U, aK, no, yes, no, no },
    };
    int n = o.short_taps ? HB_MHA_COUNT : HB_MHA_WS;
    for (int i = 0; i < n && i < cap; i++) out[i] = all[i];
    return n;
}

// Parameters or gradients; those of a short filter that is not there stay NULL.
static struct hb_proj_params proj_params(const struct state *st, void *const *t)
{
    bool taps = st->proj.taps > 0;
    return (struct hb_proj_params){ .win = t[HB_MHA_WIN], .bin = t[HB_MHA_BIN],
                                    .wout = t[HB_MHA_WOUT], .bout = t[HB_MHA_BOUT],
                                    .ws = taps ? t[HB_MHA_WS] : NULL,
                                    .bs = taps ? t[HB_MHA_BS] : NULL };
}

static struct hb_proj_grads proj_grads(const struct state *st, void *const *t)
{
    bool taps = st->proj.taps > 0;
    return (struct hb_proj_grads){ .win = t[HB_MHA_WIN], .bin = t[HB_MHA_BIN],
                                   .wout = t[HB_MHA_WOUT], .bout = t[HB_MHA_BOUT],
                                   .ws = taps ? t[HB_MHA_WS] : NULL,
                                   .bs = taps ? t[HB_MHA_BS] : NULL };
}

// --- plan ----------------------------------------------------------------------------------------

static void destroy(void *state)
{
    struct state *st = state;
    if (!st) return;
    if (st->attn) st->inner->destroy(st->attn);
    void *const mem[] = { st->x, st->y, st->dx, st->dy, st->p, st->s, st->tmp, st->sink };
    hb_free_all(st->dev, mem, sizeof mem / sizeof *mem);
    st->host->free(st->host, st);
}

static int plan_inner(struct state *st, const struct hb_problem *p)
{
    struct hb_problem in = { .op = HB_ATTENTION, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D,
                             .H = p->H, .threads = p->threads, .planning = p->planning,
                             .backward = p->backward, .packed = true };
    int rc = hb_inner_open(st->host, "mha", "an attention", p->inner, &in, &st->inner);
    return rc ? rc : st->inner->plan(st->host, &in, &st->attn);
}

// Without a backward pass the attention's output takes the place of s, which is turned by then.
static int allocate(struct state *st)
{
    int64_t one = st->BLD, D = st->proj.D, K = st->proj.taps;
    size_t size = st->size;
    bool bwd = st->backward;
    const struct hb_need need[] = {
        { &st->x, 3 * one, size }, { &st->y, bwd || !K ? one : 0, size },
        { &st->dx, bwd ? 3 * one : 0, size }, { &st->dy, bwd ? one : 0, size },
        { &st->p, K ? (st->proj.all ? 3 : 1) * one : 0, size }, { &st->s, K ? 3 * one : 0, size },
        { &st->tmp, K && bwd ? one : 0, size },
        { &st->sink, bwd ? 3 * D * (D > K ? D : K) : 0, sizeof(float) },
    };
    return hb_need_alloc(st->dev, need, sizeof need / sizeof *need);
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **out)
{
    const char *why = refuses(p);
    if (!why) why = hb_device_refuses(host->device, p);
    if (why) return host->fail(host, HB_ERR_REFUSED, "mha: %s", why);
    struct hb_oper_opts o = hb_oper_resolve(p);
    struct state *st = host->alloc(host, sizeof *st);
    *out = NULL;
    if (!st) return HB_ERR_OOM;
    *st = (struct state){ .host = host, .dev = host->device, .H = p->H, .P = p->D / p->H,
                          .BLD = p->B * p->L * p->D, .size = hb_dtype_size(p->dtype),
                          .backward = p->backward, .rope = o.rope };
    st->proj = (struct hb_proj){ .dev = st->dev, .on = { p->dtype, NULL }, .B = p->B, .L = p->L,
                                 .D = p->D, .n = 3, .taps = o.short_taps,
                                 .all = hb_proj_all(st->dev, p, 3) };
    int rc = plan_inner(st, p);
    if (!rc) rc = allocate(st);
    if (rc) destroy(st);
    else *out = st;
    return rc;
}

// --- forward and backward ------------------------------------------------------------------------

static struct hb_attention_io attn_io(const struct state *st)
{
    int64_t L = st->proj.L, D = st->proj.D;
    return (struct hb_attention_io){
        .q = st->x, .k = hb_at(st->x, D, st->size), .v = hb_at(st->x, 2 * D, st->size),
        .sq = { L * 3 * D, st->P, 3 * D }, .y = st->y ? st->y : st->s, .sy = { L * D, st->P, D },
    };
}

// x (B,L,3D) = u Wqkv' + b, through the short filter if there is one.
static void project(struct state *st, const void *u, struct hb_proj_params w)
{
    const struct hb_proj *j = &st->proj;
    int64_t D = j->D, R = j->B * j->L;
    if (j->taps) {
        hb_proj_in(j, st->s, st->p, u, w);
        j->dev->swap(st->x, st->s, 1, 3 * D, R, 1, j->on);
        return;
    }
    struct hb_gemm g = { .tb = true, .m = R, .n = 3 * D, .k = D, .alpha = 1, .A = u, .lda = D,
                         .B = w.win, .ldb = D, .D = st->x, .ldd = 3 * D, .bias = w.bin };
    j->dev->gemm(&g, j->on);
}

// From dx: du = ..., the gradients of Wqkv, b and the short filter += ...
static void project_bwd(struct state *st, void *du, const void *u, struct hb_proj_params w,
                        struct hb_proj_grads g)
{
    const struct hb_proj *j = &st->proj;
    int64_t D = j->D, R = j->B * j->L;
    if (j->taps) {
        j->dev->swap(st->s, st->dx, 1, R, 3 * D, 1, j->on);
        for (int i = 0; i < 3; i++)
            hb_proj_in_bwd(j, i, i == 0, du, hb_at(st->s, i * st->BLD, st->size), st->tmp, st->p, u,
                           w, g);
        return;
    }
    struct hb_gemm weight = { .ta = true, .m = 3 * D, .n = D, .k = R, .alpha = 1, .beta = 1,
                              .A = st->dx, .lda = 3 * D, .B = u, .ldb = D, .D = g.win, .ldd = D,
                              .out_f32 = true };
    struct hb_gemm input = { .m = R, .n = D, .k = 3 * D, .alpha = 1, .A = st->dx, .lda = 3 * D,
                             .B = w.win, .ldb = D, .D = du, .ldd = D };
    j->dev->bias_bwd(g.bin, st->dx, R, 3 * D, j->on);
    j->dev->gemm(&weight, j->on);
    j->dev->gemm(&input, j->on);
}

// q and k: the first 2H of the 3H heads of every row.
static void turn(struct state *st, void *x, bool inverse)
{
    const struct hb_proj *j = &st->proj;
    if (st->rope)
        j->dev->rope(x, j->B * j->L, j->L, 2 * st->H, st->P, 3 * j->D, inverse, j->on);
}

static int forward(void *state, const struct hb_io *io)
{
    struct state *st = state;
    struct hb_proj_params pp = proj_params(st, io->oper.params);
    struct hb_io ai = { .stream = io->stream, .attn = attn_io(st) };
    st->proj.on.stream = io->stream;
    project(st, io->oper.u, pp);
    turn(st, st->x, false);
    int rc = st->inner->forward(st->attn, &ai);
    if (rc) return rc;
    hb_proj_out(&st->proj, false, io->oper.y, ai.attn.y, io->oper.res, pp);
    return 0;
}

static int backward(void *state, const struct hb_io *io)
{
    struct state *st = state;
    void *g[HB_MHA_COUNT] = { NULL };
    if (!st->backward)
        return st->host->fail(st->host, HB_ERR_INPUT, "mha: planned without a backward pass");
    for (int i = 0; i < (st->proj.taps ? HB_MHA_COUNT : HB_MHA_WS); i++)
        g[i] = io->oper.grads[i] ? io->oper.grads[i] : st->sink;
    struct hb_proj_params pp = proj_params(st, io->oper.params);
    struct hb_proj_grads pg = proj_grads(st, g);
    struct hb_io ai = { .stream = io->stream, .attn = attn_io(st) };
    ai.attn.dy = st->dy;
    ai.attn.dq = st->dx;
    ai.attn.dk = hb_at(st->dx, st->proj.D, st->size);
    ai.attn.dv = hb_at(st->dx, 2 * st->proj.D, st->size);
    st->proj.on.stream = io->stream;
    hb_proj_out_bwd(&st->proj, false, st->dy, io->oper.dy, st->y, pp, pg);
    int rc = st->inner->backward(st->attn, &ai);
    if (rc) return rc;
    turn(st, st->dx, true);
    project_bwd(st, io->oper.du, io->oper.u, pp, pg);
    return 0;
}

static int describe(const void *state, char *buf, size_t cap)
{
    const struct state *st = state;
    int n = snprintf(buf, cap, "%s%s", st->rope ? "rotary positions; " : "",
                     st->proj.taps ? "short filter; " : "");
    if (!st->inner->describe || n < 0 || (size_t)n >= cap) return n;
    return n + st->inner->describe(st->attn, buf + n, cap - (size_t)n);
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION, .name = "mha", .op = HB_MHA, .device = "any",
    .dtypes = 1u << HB_F32 | 1u << HB_F16 | 1u << HB_BF16,
    .source = "Vaswani et al. 2017, arXiv:1706.03762; over the device's primitives",
    .complexity = "O(L D^2) and that of its attention",
    .refuses = refuses, .plan = plan, .forward = forward, .backward = backward, .destroy = destroy,
    .tensors = tensors, .describe = describe,
};
