// hb-link: -ldl
// attention_cudnn_cuda.cu: causal softmax attention by cuDNN's fused kernels.
//     y = softmax(q k' / sqrt(P), causal) v, per head       q,k,v,y (B,H,L,P)     float16, bfloat16
// Method    cuDNN's graph API (C backend): the formula as an operation graph of matrix products,
//           pointwise operations and reductions, in the order in which cuDNN recognises attention;
//           its heuristics choose the engine. Forward keeps log-sum-exp of each row; backward
//           computes the probabilities again from it, dq is summed in float32 with atomics. The
//           plans are for the strides that the problem announces: q,k,v head first, or as a
//           projection writes them (B,L,3,H,P).
// Cost      forward 2 P L^2, backward 5 P L^2 flop per head (half of the square); memory 4 B H L
//           bytes, backward also 4 B H L (P + 1) and cuDNN's workspace.
// Source    NVIDIA cuDNN 9 (opened at run time, version in the record); the graphs follow the
//           pattern documented for scaled dot-product attention in cuDNN's graph API. Dao et al.
//           2022, arXiv:2205.14135, for the method.
// Accuracy  scores, sums and statistics in float32; probabilities and their gradients are rounded
//           to the type of the signals before their products. Backward is not deterministic.
// Refuses   float32, P not a multiple of 8, P > 256, backward at L = 1; cuDNN before 9.10.2.
#include <math.h>
#include "cuda.cuh"

#if __has_include(<cudnn.h>)
#include "cudnn_plan.h"

// Tensors with memory of their own, by uid.
enum {
    T_Q, T_K, T_V, T_Y, T_STATS, T_DY, T_DQ, T_DK, T_DV, T_DQ32, T_DELTA, T_LEN_Q, T_LEN_K,
    T_SCALE, T_MASKED, T_ONE, T_COUNT
};

struct layout { struct hb_heads q, y; };

struct state {
    const struct hb_host *host;          // borrowed until destroy
    struct cudnn_lib lib;
    cudnnHandle_t handle;                // owned
    void *stream;                        // the handle's
    bool stream_set;
    int64_t B, H, L, P;
    cudnnDataType_t type;
    bool padded;                         // backward: lengths given as tensors
    struct layout layout;
    struct cudnn_graph fwd, bwd;         // owned
    float scale, masked, one;            // read by cuDNN at every call
    float *stats;                        // (B,H,L) log-sum-exp of the rows, owned; backward only:
    float *dq32;                         // (B,H,L,P), owned
    float *delta;                        // (B,H,L) sum_p dy y, owned
    int32_t *lengths;                    // (2,B) all L, owned; only if padded
    void *workspace;                     // owned
};

static const char *refuses(const struct hb_problem *p)
{
    const int64_t P = p->H > 0 ? p->D / p->H : 0;
    if (p->dtype != HB_F16 && p->dtype != HB_BF16) return "float16 and bfloat16 only";
    if (P % 8 != 0) return "head dimension not a multiple of 8";
    if (P > 256) return "head dimension over 256";
    if (p->backward && p->L == 1) return "no backward pass at length 1";
    return NULL;
}

static void destroy(void *vst)
{
    struct state *const st = (struct state *)vst;
    if (!st)
        return;
    const struct hb_host *const host = st->host;
    const struct hb_device *const dev = host->device;
    cg_destroy(&st->fwd);
    cg_destroy(&st->bwd);
    if (st->handle)
        st->lib.Destroy(st->handle);
    dev->free(dev, st->stats);
    dev->free(dev, st->dq32);
    dev->free(dev, st->delta);
    dev->free(dev, st->lengths);
    dev->free(dev, st->workspace);
    host->free(host, st);
}

// --- the graphs ----------------------------------------------------------------------------------
// A signal of strides s: (B,H,L,P), or with its last two axes exchanged.
static struct cg_tensor signal(const struct state *st, struct cudnn_graph *g, const char *name,
                               int uid, struct hb_heads s, bool transposed)
{
    const int64_t dim[4] = { st->B, st->H, transposed ? st->P : st->L, transposed ? st->L : st->P };
    const int64_t stride[4] = { s.b, s.h, transposed ? 1 : s.t, transposed ? s.t : 1 };
    return cg_tensor(g, name, CG_REAL_TENSOR, uid, st->type, dim, stride);
}

// Shapes inside: scores (B,H,L,L), one number a row (B,H,L,1).
static struct cg_tensor scores(const struct state *st, struct cudnn_graph *g, const char *step,
                               cudnnDataType_t type)
{
    const int64_t L = st->L, dim[4] = { st->B, st->H, L, L };
    const int64_t stride[4] = { st->H * L * L, L * L, L, 1 };
    return cg_tensor(g, step, CG_VIRTUAL, 0, type, dim, stride);
}

static struct cg_tensor rows(const struct state *st, struct cudnn_graph *g, const char *step,
                             enum cg_kind kind, int uid)
{
    const int64_t L = st->L, dim[4] = { st->B, st->H, L, 1 }, stride[4] = { st->H * L, L, 1, 1 };
    return cg_tensor(g, step, kind, uid, CUDNN_DATA_FLOAT, dim, stride);
}

// y = mode(x, b), a new float32 tensor of the shape of x.
static struct cg_tensor apply(struct cudnn_graph *g, const char *step, cudnnPointwiseMode_t mode,
                              const struct cg_tensor *x, const struct cg_tensor *b)
{
    const struct cg_tensor y = cg_like(g, step, CUDNN_DATA_FLOAT, x);
    cg_pointwise(g, step, mode, CUDNN_DATA_FLOAT, x, b, NULL, &y, -1);
    return y;
}

// The number of each row (axis 2) or column (axis 3) of s.
static struct cg_tensor number(struct cudnn_graph *g, const char *step, const struct cg_tensor *s,
                               int axis, cudnnDataType_t prec)
{
    const struct cg_tensor y = cg_like(g, step, CUDNN_DATA_INT32, s);
    cg_pointwise(g, step, CUDNN_POINTWISE_GEN_INDEX, prec, s, NULL, NULL, &y, axis);
    return y;
}

static struct cg_tensor boolean(struct cudnn_graph *g, const char *step, cudnnPointwiseMode_t mode,
                                const struct cg_tensor *x, const struct cg_tensor *b)
{
    const struct cg_tensor y = cg_like(g, step, CUDNN_DATA_BOOLEAN, x);
    cg_pointwise(g, step, mode, CUDNN_DATA_BOOLEAN, x, b, NULL, &y, -1);
    return y;
}

static struct cg_tensor select(struct cudnn_graph *g, const char *step, const struct cg_tensor *s,
                               const struct cg_tensor *masked, const struct cg_tensor *where)
{
    const struct cg_tensor y = cg_like(g, step, CUDNN_DATA_FLOAT, s);
    cg_pointwise(g, step, CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, s, masked, where, &y,
                 -1);
    return y;
}

// s where column <= row, else -inf.
static struct cg_tensor causal(struct cudnn_graph *g, const struct cg_tensor *s,
                               const struct cg_tensor *masked)
{
    const struct cg_tensor row = number(g, "causal row", s, 2, CUDNN_DATA_FLOAT);
    const struct cg_tensor col = number(g, "causal column", s, 3, CUDNN_DATA_FLOAT);
    const struct cg_tensor in = boolean(g, "row >= column", CUDNN_POINTWISE_CMP_GE, &row, &col);
    return select(g, "causal mask", s, masked, &in);
}

// s where row and column are below the lengths, else -inf.
static struct cg_tensor within(struct cudnn_graph *g, const struct cg_tensor *s,
                               const struct cg_tensor *len_q, const struct cg_tensor *len_k,
                               const struct cg_tensor *masked)
{
    const struct cg_tensor row = number(g, "padding row", s, 2, CUDNN_DATA_INT32);
    const struct cg_tensor col = number(g, "padding column", s, 3, CUDNN_DATA_INT32);
    const struct cg_tensor a = boolean(g, "row < length", CUDNN_POINTWISE_CMP_LT, &row, len_q);
    const struct cg_tensor b = boolean(g, "column < length", CUDNN_POINTWISE_CMP_LT, &col, len_k);
    const struct cg_tensor in = boolean(g, "padding and", CUDNN_POINTWISE_LOGICAL_AND, &a, &b);
    return select(g, "padding mask", s, masked, &in);
}

// s = mask(q k' scale);  m = max s, z = sum exp(s - m), stats = m + log z;  y = (exp(s - m) / z) v
static void forward_graph(const struct state *st, struct cudnn_graph *g, const struct layout *at,
                          bool stats)
{
    const struct cg_tensor q = signal(st, g, "q", T_Q, at->q, false);
    const struct cg_tensor kt = signal(st, g, "k'", T_K, at->q, true);
    const struct cg_tensor v = signal(st, g, "v", T_V, at->q, false);
    const struct cg_tensor y = signal(st, g, "y", T_Y, at->y, false);
    const struct cg_tensor scale = cg_value(g, "scale", T_SCALE);
    const struct cg_tensor masked = cg_value(g, "masked", T_MASKED);

    const struct cg_tensor qk = scores(st, g, "q k'", CUDNN_DATA_FLOAT);
    cg_matmul(g, "q k'", &q, &kt, &qk, NULL, NULL, NULL);
    const struct cg_tensor scaled = apply(g, "scaled", CUDNN_POINTWISE_MUL, &qk, &scale);
    const struct cg_tensor s = causal(g, &scaled, &masked);

    const struct cg_tensor m = rows(st, g, "row maximum", CG_VIRTUAL, 0);
    cg_reduce(g, "row maximum", CUDNN_REDUCE_TENSOR_MAX, &s, &m);
    const struct cg_tensor below = apply(g, "s - maximum", CUDNN_POINTWISE_SUB, &s, &m);
    const struct cg_tensor e = apply(g, "exp", CUDNN_POINTWISE_EXP, &below, NULL);
    const struct cg_tensor z = rows(st, g, "row sum", CG_VIRTUAL, 0);
    cg_reduce(g, "row sum", CUDNN_REDUCE_TENSOR_ADD, &e, &z);
    const struct cg_tensor log_z = apply(g, "log", CUDNN_POINTWISE_LOG, &z, NULL);
    const struct cg_tensor lse = rows(st, g, "statistics", stats ? CG_REAL_TENSOR : CG_VIRTUAL,
                                      T_STATS);   // never left out: else no engine knows the graph
    cg_pointwise(g, "statistics", CUDNN_POINTWISE_ADD, CUDNN_DATA_FLOAT, &m, &log_z, NULL, &lse,
                 -1);
    const struct cg_tensor w = scores(st, g, "probabilities", st->type);
    cg_pointwise(g, "probabilities", CUDNN_POINTWISE_DIV, CUDNN_DATA_FLOAT, &e, &z, NULL, &w, -1);
    cg_matmul(g, "w v", &w, &v, &y, NULL, NULL, NULL);
}

// delta = sum_p dy y;  w = exp(mask(q k' scale) - stats);  dv = w' dy
// ds = (dy v' - delta) w scale;  dk = ds' q;  dq = ds k
static void backward_graph(const struct state *st, struct cudnn_graph *g, const struct layout *at)
{
    const int64_t B = st->B, H = st->H, L = st->L, P = st->P;
    const struct cg_tensor q = signal(st, g, "q", T_Q, at->q, false);
    const struct cg_tensor kt = signal(st, g, "k'", T_K, at->q, true);
    const struct cg_tensor vt = signal(st, g, "v'", T_V, at->q, true);
    const struct cg_tensor y = signal(st, g, "y", T_Y, at->y, false);
    const struct cg_tensor dy = signal(st, g, "dy", T_DY, at->y, false);
    const struct cg_tensor dq = signal(st, g, "dq", T_DQ, at->q, false);
    const struct cg_tensor dk = signal(st, g, "dk", T_DK, at->q, false);
    const struct cg_tensor dv = signal(st, g, "dv", T_DV, at->q, false);
    const struct cg_tensor lse = rows(st, g, "statistics", CG_REAL_TENSOR, T_STATS);
    const struct cg_tensor scale = cg_value(g, "scale", T_SCALE);
    const struct cg_tensor masked = cg_value(g, "masked", T_MASKED);
    const struct cg_tensor one = cg_value(g, "one", T_ONE);
    struct cg_tensor len_q, len_k;
    const struct cg_tensor *nq = NULL, *nk = NULL;
    if (st->padded) {
        const int64_t dim[4] = { B, 1, 1, 1 }, stride[4] = { 1, 1, 1, 1 };
        len_q = cg_tensor(g, "length of q", CG_REAL_TENSOR, T_LEN_Q, CUDNN_DATA_INT32, dim, stride);
        len_k = cg_tensor(g, "length of k", CG_REAL_TENSOR, T_LEN_K, CUDNN_DATA_INT32, dim, stride);
        nq = &len_q;
        nk = &len_k;
    }

    // delta; the product by one stands where a dropout factor would
    const int64_t pdim[4] = { B, H, L, P }, pstride[4] = { H * L * P, L * P, H * P, 1 };
    const struct cg_tensor dyy = cg_tensor(g, "dy y", CG_VIRTUAL, 0, CUDNN_DATA_FLOAT, pdim,
                                           pstride);
    cg_pointwise(g, "dy y", CUDNN_POINTWISE_MUL, CUDNN_DATA_FLOAT, &dy, &y, NULL, &dyy, -1);
    const struct cg_tensor sum = rows(st, g, "sum dy y", CG_VIRTUAL, 0);
    cg_reduce(g, "sum dy y", CUDNN_REDUCE_TENSOR_ADD, &dyy, &sum);
    const struct cg_tensor delta = rows(st, g, "delta", CG_REAL_TENSOR, T_DELTA);
    cg_pointwise(g, "delta", CUDNN_POINTWISE_MUL, CUDNN_DATA_FLOAT, &sum, &one, NULL, &delta, -1);

    // w, dv
    const struct cg_tensor qk = scores(st, g, "q k'", CUDNN_DATA_FLOAT);
    cg_matmul(g, "q k'", &q, &kt, &qk, nq, nk, NULL);
    struct cg_tensor s = apply(g, "scaled", CUDNN_POINTWISE_MUL, &qk, &scale);
    if (st->padded)
        s = within(g, &s, nq, nk, &masked);
    s = apply(g, "s - statistics", CUDNN_POINTWISE_SUB, &s, &lse);
    s = causal(g, &s, &masked);
    const struct cg_tensor w = apply(g, "exp", CUDNN_POINTWISE_EXP, &s, NULL);
    const int64_t tdim[4] = { B, H, L, L }, tstride[4] = { H * L * L, L * L, 1, L };
    const struct cg_tensor wt = cg_tensor(g, "w'", CG_VIRTUAL, 0, st->type, tdim, tstride);
    cg_reshape(g, "w'", &w, &wt);
    cg_matmul(g, "w' dy", &wt, &dy, &dv, nk, NULL, nq);

    // ds, dk
    const struct cg_tensor dw = scores(st, g, "dy v'", CUDNN_DATA_FLOAT);
    cg_matmul(g, "dy v'", &dy, &vt, &dw, nq, nk, NULL);
    struct cg_tensor ds = apply(g, "dw - delta", CUDNN_POINTWISE_SUB, &dw, &delta);
    ds = apply(g, "(dw - delta) w", CUDNN_POINTWISE_MUL, &ds, &w);
    ds = apply(g, "ds", CUDNN_POINTWISE_MUL, &ds, &scale);
    const struct cg_tensor dst = cg_tensor(g, "ds'", CG_VIRTUAL, 0, st->type, tdim, tstride);
    cg_reshape(g, "ds'", &ds, &dst);
    cg_matmul(g, "ds' q", &dst, &q, &dk, nk, NULL, nq);

    // dq, by way of float32
    const int64_t kstride[4] = { at->q.b, at->q.h, at->q.t, 1 };
    const struct cg_tensor k = cg_tensor(g, "k", CG_VIRTUAL, 0, st->type, pdim, kstride);
    cg_reshape(g, "k", &kt, &k);
    const int64_t fstride[4] = { H * L * P, L * P, P, 1 };
    const struct cg_tensor dq32 = cg_tensor(g, "dq, float32", CG_REAL_TENSOR, T_DQ32,
                                            CUDNN_DATA_FLOAT, pdim, fstride);
    cg_matmul(g, "ds k", &ds, &k, &dq32, nq, NULL, nk);
    cg_pointwise(g, "dq", CUDNN_POINTWISE_IDENTITY, CUDNN_DATA_FLOAT, &dq32, NULL, NULL, &dq, -1);
}

// --- plan ----------------------------------------------------------------------------------------
static struct layout layout_of(bool packed, const struct state *st)
{
    const int64_t H = st->H, L = st->L, P = st->P, D = H * P;
    const struct hb_heads first = { H * L * P, L * P, P };
    if (!packed)
        return { first, first };
    return { { L * 3 * D, P, 3 * D }, { L * D, P, D } };
}

static int open_cudnn(struct state *st, const struct hb_problem *p)
{
    const struct hb_host *const host = st->host;
    char buf[400];
    if (cudnn_open(&st->lib, buf, sizeof buf))
        return host->fail(host, HB_ERR_MISSING, "attention_cudnn_cuda: %s", buf);
    const size_t version = st->lib.GetVersion();
    if (version < 91002)
        return host->fail(host, HB_ERR_MISSING, "attention_cudnn_cuda: cuDNN 9.10.2 or newer is "
                          "needed, this is %zu", version);
    // Up to 9.15 the backward pass reads beyond lengths that are no multiple of 128.
    st->padded = p->backward && p->L % 128 != 0 && version <= 91500;
    const cudnnStatus_t s = st->lib.Create(&st->handle);
    if (s == CUDNN_STATUS_SUCCESS)
        return HB_OK;
    st->handle = NULL;
    return host->fail(host, HB_ERR_RUN, "attention_cudnn_cuda: cuDNN %zu: cudnnCreate: %s", version,
                      cg_status(&st->lib, s, buf, sizeof buf));
}

static int build_plans(struct state *st, const struct hb_problem *p)
{
    cg_init(&st->fwd, &st->lib, p->packed ? "forward, packed" : "forward, head first");
    cg_init(&st->bwd, &st->lib, p->packed ? "backward, packed" : "backward, head first");
    st->layout = layout_of(p->packed, st);
    forward_graph(st, &st->fwd, &st->layout, p->backward);
    cg_build(&st->fwd, st->handle, NULL);
    if (p->backward && st->fwd.plan) {
        backward_graph(st, &st->bwd, &st->layout);
        cg_build(&st->bwd, st->handle, NULL);
    }
    const struct cudnn_graph *const bad = !st->fwd.plan ? &st->fwd
                                          : p->backward && !st->bwd.plan ? &st->bwd : NULL;
    return !bad ? HB_OK
           : st->host->fail(st->host, HB_ERR_REFUSED, "attention_cudnn_cuda: cuDNN %zu: %s",
                            st->lib.GetVersion(), bad->why);
}

static int allocate(struct state *st, const struct hb_problem *p)
{
    const struct hb_device *const dev = st->host->device;
    const int64_t fwd = st->fwd.workspace, bwd = st->bwd.workspace;      // 0 without a plan
    const int64_t workspace = fwd > bwd ? fwd : bwd;
    if (workspace > 0 && !(st->workspace = dev->alloc(dev, (size_t)workspace)))
        return HB_ERR_OOM;
    if (!p->backward)
        return HB_OK;
    const size_t n = sizeof(float) * (size_t)(st->B * st->H * st->L);
    if (!(st->stats = (float *)dev->alloc(dev, n)) || !(st->delta = (float *)dev->alloc(dev, n))
        || !(st->dq32 = (float *)dev->alloc(dev, n * (size_t)st->P)))
        return HB_ERR_OOM;
    if (!st->padded)
        return HB_OK;
    const size_t bytes = sizeof(int32_t) * (size_t)st->B * 2;
    int32_t *const len = (int32_t *)st->host->alloc(st->host, bytes);
    if (!len)
        return HB_ERR_OOM;
    for (int64_t i = 0; i < 2 * st->B; i++)
        len[i] = (int32_t)st->L;
    st->lengths = (int32_t *)dev->alloc(dev, bytes);
    const int rc = !st->lengths ? HB_ERR_OOM
                   : dev->upload(dev, st->lengths, len, bytes, dev->stream);
    st->host->free(st->host, len);
    return rc;
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **out)
{
    struct state *const st = (struct state *)host->alloc(host, sizeof *st);
    if (!st)
        return HB_ERR_OOM;
    memset(st, 0, sizeof *st);
    st->host = host;
    st->B = p->B;
    st->H = p->H;
    st->L = p->L;
    st->P = p->D / p->H;
    st->type = p->dtype == HB_F16 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16;
    st->scale = (float)(1.0 / sqrt((double)st->P));
    st->masked = -INFINITY;
    st->one = 1.0f;
    int rc = open_cudnn(st, p);
    if (!rc)
        rc = build_plans(st, p);
    if (!rc)
        rc = allocate(st, p);
    if (rc) {
        destroy(st);
        return rc;
    }
    *out = st;
    return HB_OK;
}

// --- execution -----------------------------------------------------------------------------------
// Strides along an axis of extent 1 mean nothing.
static bool same(const struct state *st, struct hb_heads a, struct hb_heads b)
{
    return (st->B == 1 || a.b == b.b) && (st->H == 1 || a.h == b.h) && (st->L == 1 || a.t == b.t);
}

static int execute(struct state *st, const struct hb_io *io, const struct cudnn_graph *g, void **at)
{
    const struct hb_host *const host = st->host;
    const struct hb_heads q = io->attn.sq, y = io->attn.sy;
    if (!same(st, st->layout.q, q) || !same(st, st->layout.y, y))
        return host->fail(host, HB_ERR_INPUT, "attention_cudnn_cuda: %s: strides (b,h,t) of q "
                          "(%lld,%lld,%lld) and y (%lld,%lld,%lld) are not those planned for",
                          g->name, (long long)q.b, (long long)q.h, (long long)q.t, (long long)y.b,
                          (long long)y.h, (long long)y.t);
    if (!g->plan)
        return host->fail(host, HB_ERR_INPUT, "attention_cudnn_cuda: %s: not planned", g->name);
    at[T_SCALE] = &st->scale;
    at[T_MASKED] = &st->masked;
    at[T_ONE] = &st->one;
    at[T_STATS] = st->stats;
    char buf[480];
    const char *wrong = NULL;
    if (!st->stream_set || st->stream != io->stream) {
        const cudnnStatus_t s = st->lib.SetStream(st->handle, (cudaStream_t)io->stream);
        st->stream_set = s == CUDNN_STATUS_SUCCESS;
        st->stream = io->stream;
        if (!st->stream_set)
            wrong = cg_status(&st->lib, s, buf, sizeof buf);
    }
    if (!wrong)
        wrong = cg_execute(g, st->handle, at, st->workspace, buf, sizeof buf);
    return !wrong ? HB_OK
           : host->fail(host, HB_ERR_RUN, "attention_cudnn_cuda: %s, %s: %s", g->name, g->tag,
                        wrong);
}

static int forward(void *vst, const struct hb_io *io)
{
    struct state *const st = (struct state *)vst;
    const struct hb_attention_io *const a = &io->attn;
    void *at[T_COUNT] = { NULL };
    at[T_Q] = (void *)a->q;
    at[T_K] = (void *)a->k;
    at[T_V] = (void *)a->v;
    at[T_Y] = a->y;
    return execute(st, io, &st->fwd, at);
}

static int backward(void *vst, const struct hb_io *io)
{
    struct state *const st = (struct state *)vst;
    const struct hb_attention_io *const a = &io->attn;
    void *at[T_COUNT] = { NULL };
    at[T_Q] = (void *)a->q;
    at[T_K] = (void *)a->k;
    at[T_V] = (void *)a->v;
    at[T_Y] = a->y;
    at[T_DY] = (void *)a->dy;
    at[T_DQ] = a->dq;
    at[T_DK] = a->dk;
    at[T_DV] = a->dv;
    at[T_DQ32] = st->dq32;
    at[T_DELTA] = st->delta;
    at[T_LEN_Q] = st->lengths;
    at[T_LEN_K] = st->padded ? st->lengths + st->B : NULL;
    return execute(st, io, &st->bwd, at);
}

static int describe(const void *vst, char *buf, size_t cap)
{
    const struct state *const st = (const struct state *)vst;
    const size_t v = st->lib.GetVersion();
    int n = snprintf(buf, cap, "cuDNN %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    const struct cudnn_graph *const two[2] = { &st->fwd, &st->bwd };
    for (int i = 0; i < 2; i++)
        if (two[i]->plan && n >= 0 && (size_t)n < cap)
            n += snprintf(buf + n, cap - (size_t)n, "; %s %s", two[i]->name, two[i]->tag);
    if (st->padded && n >= 0 && (size_t)n < cap)
        n += snprintf(buf + n, cap - (size_t)n, "; backward with lengths");
    return n;
}

#else   // built where cuDNN's header is not

static const char *refuses(const struct hb_problem *) { return "built without cuDNN's header"; }
static int plan(const struct hb_host *host, const struct hb_problem *, void **)
{
    return host->fail(host, HB_ERR_MISSING, "attention_cudnn_cuda: built without cuDNN's header");
}
static int forward(void *, const struct hb_io *) { return HB_ERR_MISSING; }
static int backward(void *, const struct hb_io *) { return HB_ERR_MISSING; }
static void destroy(void *) {}
static int describe(const void *, char *buf, size_t cap) { return snprintf(buf, cap, "no cuDNN"); }

#endif

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "attention_cudnn_cuda",
    .op = HB_ATTENTION,
    .device = "cuda",
    .dtypes = 1u << HB_F16 | 1u << HB_BF16,
    .source = "NVIDIA cuDNN 9, graph API; method of Dao et al. 2022, arXiv:2205.14135",
    .complexity = "O(B H L^2 P) time, O(B H L P) memory",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .describe = describe,
};
