// mha.c: multi-head causal attention with its projections over the device interface, any attention
// inside (problem.inner).
//     q,k,v = [short](Wqkv u + b), rotated if rope
//     y = Wout attention(q,k,v) + bout                u,y (B,L,D)  float32
// Method    the projection is written channel first so that the optional short filter runs along
//           contiguous time; heads are then split out of it, turned by their positions on the way.
// Cost      8 B L D^2 flop of GEMM and one attention.
// Memory    in units of B L D floats: forward 6 (7 with the short filter), with backward 12 (15).
// Source    Vaswani et al. 2017, arXiv:1706.03762, section 3.2; rotary positions Su et al. 2021,
//           arXiv:2104.09864, section 3.4.2, pairs (i, i+P/2), theta 10000.
// Accuracy  float32.
// Refuses   dtypes other than f32; D not a multiple of H; odd P with rope; filter = fixed.
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
    bool backward, rope;
    float *p, *s;                          // owned: (3D,B,L) before (if any) and after short filter
    float *qkv, *y;                        // owned: three (B,H,L,P); attention's output or NULL
    float *dqkv, *dy, *tmp;                // owned: backward scratch; tmp (B,L,D)
    float *sink;                           // owned: where gradients that nobody wants go
};

static const char *refuses(const struct hb_problem *p)
{
    struct hb_oper_opts o = hb_oper_resolve(p);
    if (p->dtype != HB_F32) return "mha computes in float32 only";
    if (p->filter == HB_FILTER_FIXED) return "mha has no long filter that could be fixed";
    if (p->H < 1 || p->D % p->H) return "mha needs heads H that divide D";
    if (o.rope && (p->D / p->H) % 2) return "rotary positions need an even head width D/H";
    if (o.short_taps < 0) return "mha needs short_taps >= 0";
    if (!p->inner[0]) return "mha needs an attention: mha:NAME";
    return NULL;
}

static int tensors(const struct hb_problem *p, struct hb_tensor *out, int cap)
{
    struct hb_oper_opts o = hb_oper_resolve(p);
    int64_t D = p->D, K = o.short_taps;
    float aD = (float)(1 / sqrt((double)D)), aK = K ? (float)(1 / sqrt((double)K)) : 0;
    const enum hb_init U = HB_INIT_UNIFORM, G = HB_INIT_NORMAL, O = HB_INIT_ZERO;
    const bool no = false, yes = true;
    // name, shape, rank; initialisation alone and inside a language model; residual_out, trainable,
    // filter_group
    const struct hb_tensor all[HB_MHA_COUNT] = {
        [HB_MHA_WIN]  = { "Wqkv.weight", { 3 * D, D }, 2, U, aD, G, 0.02f, no, yes, no },
        [HB_MHA_BIN]  = { "Wqkv.bias", { 3 * D }, 1, U, aD, O, 0, no, yes, no },
        [HB_MHA_WOUT] = { "out_proj.weight", { D, D }, 2, U, aD, G, 0.02f, yes, yes, no },
        [HB_MHA_BOUT] = { "out_proj.bias", { D }, 1, U, aD, O, 0, no, yes, no },
        [HB_MHA_WS]   = { "short_filter.weight", { 3 * D, 1, K }, 3, U, aK, U, aK, no, yes, no },
        [HB_MHA_BS]   = { "short_filter.bias", { 3 * D }, 1, U, aK, U, aK, no, yes, no },
    };
    int n = o.short_taps ? HB_MHA_COUNT : HB_MHA_WS;
    for (int i = 0; i < n && i < cap; i++) out[i] = all[i];
    return n;
}

static struct hb_proj_params proj_params(const struct state *st, void *const *t)
{
    bool taps = st->proj.taps > 0;
    return (struct hb_proj_params){ t[HB_MHA_WIN], t[HB_MHA_BIN], t[HB_MHA_WOUT], t[HB_MHA_BOUT],
                                    taps ? t[HB_MHA_WS] : NULL, taps ? t[HB_MHA_BS] : NULL };
}

// --- plan ----------------------------------------------------------------------------------------

static void destroy(void *state)
{
    struct state *st = state;
    if (!st) return;
    if (st->attn) st->inner->destroy(st->attn);
    void *const mem[] = { st->p, st->s, st->qkv, st->y, st->dqkv, st->dy, st->tmp, st->sink };
    hb_free_all(st->dev, mem, sizeof mem / sizeof *mem);
    st->host->free(st->host, st);
}

static int plan_inner(struct state *st, const struct hb_problem *p)
{
    struct hb_problem in = { .op = HB_ATTENTION, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D,
                             .H = p->H, .threads = p->threads, .planning = p->planning,
                             .backward = p->backward };
    int rc = hb_inner_open(st->host, "mha", "an attention", p->inner, &in, &st->inner);
    return rc ? rc : st->inner->plan(st->host, &in, &st->attn);
}

static int allocate(struct state *st)
{
    int64_t one = st->BLD, D = st->proj.D, K = st->proj.taps;
    bool bwd = st->backward;
    const struct hb_need need[] = {
        { &st->s, 3 * one }, { &st->p, K ? (bwd ? 3 : 1) * one : 0 }, { &st->qkv, 3 * one },
        { &st->y, bwd ? one : 0 }, { &st->dqkv, bwd ? 3 * one : 0 }, { &st->dy, bwd ? one : 0 },
        { &st->tmp, bwd ? one : 0 }, { &st->sink, bwd ? 3 * D * (D > K ? D : K) : 0 },
    };
    return hb_need_alloc(st->dev, need, sizeof need / sizeof *need);
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **out)
{
    const char *why = refuses(p);
    if (why) return host->fail(host, HB_ERR_REFUSED, "%s", why);
    struct hb_oper_opts o = hb_oper_resolve(p);
    struct state *st = host->alloc(host, sizeof *st);
    *out = NULL;
    if (!st) return HB_ERR_OOM;
    *st = (struct state){ .host = host, .dev = host->device, .H = p->H, .P = p->D / p->H,
                          .BLD = p->B * p->L * p->D, .backward = p->backward, .rope = o.rope };
    st->proj = (struct hb_proj){ .dev = st->dev, .B = p->B, .L = p->L, .D = p->D, .n = 3,
                                 .taps = o.short_taps, .keep = p->backward };
    int rc = plan_inner(st, p);
    if (!rc) rc = allocate(st);
    if (rc) destroy(st);
    else *out = st;
    return rc;
}

// --- forward and backward ------------------------------------------------------------------------

// Once the heads are split, s is free: its second block takes the joined output, its first the
// attention's output where that is not kept.
static struct hb_attention_io attn_io(const struct state *st)
{
    int64_t n = st->BLD;
    return (struct hb_attention_io){ .q = st->qkv, .k = st->qkv + n, .v = st->qkv + 2 * n,
                                     .y = st->backward ? st->y : st->s };
}

static int forward(void *state, const struct hb_io *io)
{
    struct state *st = state;
    const struct hb_device *dev = st->dev;
    void *s = io->stream;
    int64_t n = st->BLD, B = st->proj.B, L = st->proj.L;
    struct hb_proj_params pp = proj_params(st, io->oper.params);
    struct hb_io ai = { .stream = s, .attn = attn_io(st) };
    st->proj.stream = s;
    hb_proj_in(&st->proj, st->s, st->p, io->oper.u, pp);
    dev->heads_split(st->qkv, st->qkv + n, st->qkv + 2 * n, st->s, B, st->H, L, st->P, st->rope, s);
    int rc = st->inner->forward(st->attn, &ai);
    if (rc) return rc;
    dev->heads_join(st->s + n, ai.attn.y, B, st->H, L, st->P, s);
    hb_proj_out(&st->proj, false, io->oper.y, st->s + n, pp);
    return 0;
}

static int backward(void *state, const struct hb_io *io)
{
    struct state *st = state;
    const struct hb_device *dev = st->dev;
    void *s = io->stream, *g[HB_MHA_COUNT];
    int64_t n = st->BLD, B = st->proj.B, L = st->proj.L;
    if (!st->backward)
        return st->host->fail(st->host, HB_ERR_INPUT, "mha: planned without a backward pass");
    for (int i = 0; i < (st->proj.taps ? HB_MHA_COUNT : HB_MHA_WS); i++)
        g[i] = io->oper.grads[i] ? io->oper.grads[i] : st->sink;
    struct hb_proj_params pp = proj_params(st, io->oper.params), pg = proj_params(st, g);
    struct hb_io ai = { .stream = s, .attn = attn_io(st) };
    ai.attn.dy = st->dy;
    ai.attn.dq = st->dqkv; ai.attn.dk = st->dqkv + n; ai.attn.dv = st->dqkv + 2 * n;
    st->proj.stream = s;
    dev->heads_join(st->s, st->y, B, st->H, L, st->P, s);    // again: s is scratch here
    hb_proj_out_bwd(&st->proj, false, st->tmp, io->oper.dy, st->s, pp, pg);
    dev->heads_unjoin(st->dy, st->tmp, B, st->H, L, st->P, s);
    int rc = st->inner->backward(st->attn, &ai);
    if (rc) return rc;
    dev->heads_merge(st->s, st->dqkv, st->dqkv + n, st->dqkv + 2 * n, B, st->H, L, st->P, st->rope,
                     s);
    for (int i = 0; i < 3; i++)
        hb_proj_in_bwd(&st->proj, i, i == 0, io->oper.du, st->s + i * n, st->tmp, st->p, io->oper.u,
                       pp, pg);
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
    .abi = HB_ABI_VERSION, .name = "mha", .op = HB_MHA, .device = "cpu", .dtypes = 1u << HB_F32,
    .source = "Vaswani et al. 2017, arXiv:1706.03762; over OpenBLAS and OpenMP",
    .complexity = "O(L D^2) and that of its attention",
    .refuses = refuses, .plan = plan, .forward = forward, .backward = backward, .destroy = destroy,
    .tensors = tensors, .describe = describe,
};
