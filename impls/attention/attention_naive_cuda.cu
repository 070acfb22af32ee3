// attention_naive_cuda.cu: causal softmax attention with its L x L probabilities kept, CUDA.
//     y = softmax(q k' / sqrt(P), causal) v, per head      q,k,v,y (B,H,L,P)    f32, f16, bf16
// Method    as it is written down: s = q k' / sqrt(P) by the device's batched matrix product,
//           softmax of each row over j <= t, zeros beyond, y = w v by another product; backward by
//           four more products with the kept w. The products are full squares: nothing above the
//           diagonal is skipped. Heads that lie evenly are one batch, else one batch for each b.
//           Scores are float32; where the signals are not, a few heads at a time, since in bfloat16
//           two scores of 500 and 501 are the same.
// Cost      forward 4 P L^2, backward 8 P L^2 flop per head; memory B H L^2 elements, backward
//           twice that; for 16-bit types a buffer of 256 MiB or of one head.
// Source    Vaswani et al. 2017, arXiv:1706.03762, equation 1.
// Accuracy  probabilities and their gradients are rounded to the type of the signals; rows are
//           summed in float32 in a fixed order.
// Refuses   nothing. Memory is asked for in plan: long L fails there, at once.
#include <math.h>
#include <stdio.h>
#include "cuda.cuh"

static const int64_t MOST_SCORES = 1 << 26;   // 256 MiB of float32: large enough products

struct state {
    const struct hb_host *host;   // borrowed until destroy
    int64_t B, H, L, P;
    enum hb_dtype t;
    float scale;                  // 1/sqrt(P)
    void *w;                      // (B,H,L,L) probabilities, owned
    void *dw;                     // (B,H,L,L) their gradients, owned; only for backward
    float *s;                     // (group,L,L) scores, owned; NULL: float32 anyway, they are in w
    int64_t group;                // heads whose scores are made at once
};

static void destroy(void *vst)
{
    struct state *const st = (struct state *)vst;
    if (!st)
        return;
    const struct hb_host *const host = st->host;
    host->device->free(host->device, st->w);
    host->device->free(host->device, st->dw);
    host->device->free(host->device, st->s);
    host->free(host, st);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// (heads,L,L) elements of `size` bytes, or HB_ERR_OOM.
static int squares(const struct state *st, void **to, int64_t heads, size_t size)
{
    const struct hb_device *const dev = st->host->device;
    size_t n;
    if (__builtin_mul_overflow((size_t)st->L, (size_t)st->L, &n)
        || __builtin_mul_overflow(n, (size_t)heads, &n) || __builtin_mul_overflow(n, size, &n))
        return st->host->fail(st->host, HB_ERR_OOM, "attention_naive_cuda: %lld x %lld x %lld "
                              "scores exceed the address space", (long long)heads,
                              (long long)st->L, (long long)st->L);
    *to = dev->alloc(dev, n);
    return *to ? HB_OK : HB_ERR_OOM;
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **out)
{
    struct state *const st = (struct state *)host->alloc(host, sizeof *st);
    if (!st)
        return HB_ERR_OOM;
    const int64_t P = p->D / p->H, heads = p->B * p->H;
    const size_t size = hb_dtype_size(p->dtype);
    *st = { host, p->B, p->H, p->L, P, p->dtype, (float)(1.0 / sqrt((double)P)) };
    int rc = squares(st, &st->w, heads, size);
    if (!rc && p->backward)
        rc = squares(st, &st->dw, heads, size);
    st->group = heads;
    if (!rc && p->dtype != HB_F32) {
        const int64_t fit = MOST_SCORES / p->L / p->L;
        st->group = fit < 1 ? 1 : least(fit, heads);
        rc = squares(st, (void **)&st->s, st->group, sizeof *st->s);
    }
    if (rc) {
        destroy(st);
        return rc;
    }
    *out = st;
    return HB_OK;
}

// --- rows ----------------------------------------------------------------------------------------
enum { THREADS = 256, WARPS = THREADS / 32 };
constexpr int64_t MAX_BLOCKS = 1 << 20;     // more rows than this: each block takes several in turn

struct add { __device__ float operator()(float a, float b) const { return a + b; } };
struct larger { __device__ float operator()(float a, float b) const { return fmaxf(a, b); } };

// f over the block, the same for every thread. `part`: WARPS floats of shared memory, free again
// after the next barrier.
template <class F> __device__ static float over_block(float x, F f, float *part)
{
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        x = f(x, __shfl_xor_sync(0xffffffffu, x, d));
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
#pragma unroll
    for (int i = 1; i < WARPS; i++)
        x = f(x, part[i]);
    return x;
}

// V elements that lie side by side, read and written at once. V = 1 where rows are not aligned.
template <class T, int V> struct alignas(sizeof(T) * V) piece { T x[V]; };

// One block a row of (rows,L): scores s to probabilities w over the first t + 1 elements,
// t = row % L; zeros beyond. V divides L. w may be s.
template <class T, int V> __global__ void __launch_bounds__(THREADS)
softmax_rows(T *w, const float *s, int64_t rows, int64_t L)
{
    __shared__ float part[WARPS];
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        piece<T, V> *const to = (piece<T, V> *)(w + r * L);
        const piece<float, V> *const from = (const piece<float, V> *)(s + r * L);
        const int64_t seen = r % L + 1, used = (seen + V - 1) / V;    // elements, pieces
        float top = -INFINITY, sum = 0;
        for (int64_t i = threadIdx.x; i < used; i += THREADS) {
            const piece<float, V> x = from[i];
#pragma unroll
            for (int j = 0; j < V; j++)
                if (i * V + j < seen)
                    top = fmaxf(top, x.x[j]);
        }
        top = over_block(top, larger(), part);
        for (int64_t i = threadIdx.x; i < used; i += THREADS) {
            const piece<float, V> x = from[i];
#pragma unroll
            for (int j = 0; j < V; j++)
                if (i * V + j < seen)
                    sum += expf(x.x[j] - top);
        }
        const float scale = 1.0f / over_block(sum, add(), part);
        for (int64_t i = threadIdx.x; i < L / V; i += THREADS) {
            piece<float, V> x;
            piece<T, V> y;
            if (i < used)
                x = from[i];
#pragma unroll
            for (int j = 0; j < V; j++)
                y.x[j] = hb_store<T>(i * V + j < seen ? expf(x.x[j] - top) * scale : 0.0f);
            to[i] = y;
        }
    }
}

// One block a row, in place: dw to ds = w (dw - delta), delta = sum_j w dw / sum_j w. Where one w
// is nearly 1 that difference is all rounding, so it is taken again from what the first left over.
// w is rounded, so its sum is not quite 1. The factor 1/sqrt(P) is left to the products.
template <class T, int V> __global__ void __launch_bounds__(THREADS)
gradient_rows(T *dw, const T *w, int64_t rows, int64_t L)
{
    __shared__ float part[WARPS];
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        piece<T, V> *const d = (piece<T, V> *)(dw + r * L);
        const piece<T, V> *const p = (const piece<T, V> *)(w + r * L);
        const int64_t seen = r % L + 1, used = (seen + V - 1) / V;
        float dot = 0, mass = 0, rest = 0;
        for (int64_t i = threadIdx.x; i < used; i += THREADS) {
            const piece<T, V> a = d[i], b = p[i];
#pragma unroll
            for (int j = 0; j < V; j++)
                if (i * V + j < seen) {
                    dot += hb_load(a.x[j]) * hb_load(b.x[j]);
                    mass += hb_load(b.x[j]);
                }
        }
        mass = over_block(mass, add(), part);
        const float delta = over_block(dot, add(), part) / mass;
        for (int64_t i = threadIdx.x; i < used; i += THREADS) {
            const piece<T, V> a = d[i], b = p[i];
#pragma unroll
            for (int j = 0; j < V; j++)
                if (i * V + j < seen)
                    rest += hb_load(b.x[j]) * (hb_load(a.x[j]) - delta);
        }
        rest = over_block(rest, add(), part) / mass;
        for (int64_t i = threadIdx.x; i < L / V; i += THREADS) {
            piece<T, V> a, b;
            if (i < used) {
                a = d[i];
                b = p[i];
            }
#pragma unroll
            for (int j = 0; j < V; j++)
                a.x[j] = hb_store<T>(i * V + j < seen
                                     ? hb_load(b.x[j]) * (hb_load(a.x[j]) - delta - rest) : 0.0f);
            d[i] = a;
        }
    }
}

// Of `heads` heads: softmax of the scores s into w, or, where s is NULL, the gradient in dw.
static int run_rows(const struct state *st, int64_t heads, const float *s, void *w, void *dw,
                    void *stream)
{
    const int64_t L = st->L, rows = heads * L;
    const unsigned blocks = (unsigned)least(rows, MAX_BLOCKS);
    const cudaStream_t on = (cudaStream_t)stream;
    hb_by_type(st->t, [&](auto x) {
        using T = decltype(x);
        constexpr int V = HB_VEC<T>;
        T *const a = (T *)w, *const b = (T *)dw;
        if (s && L % V == 0) softmax_rows<T, V><<<blocks, THREADS, 0, on>>>(a, s, rows, L);
        else if (s) softmax_rows<T, 1><<<blocks, THREADS, 0, on>>>(a, s, rows, L);
        else if (L % V == 0) gradient_rows<T, V><<<blocks, THREADS, 0, on>>>(b, a, rows, L);
        else gradient_rows<T, 1><<<blocks, THREADS, 0, on>>>(b, a, rows, L);
    });
    return hb_cuda_launched(st->host, s ? "attention_naive_cuda: softmax"
                                        : "attention_naive_cuda: gradient of softmax");
}

// --- products ------------------------------------------------------------------------------------
// A matrix for each of several heads, at strides of head and row.
struct matrix { void *x; int64_t head, row; };

// From head i = b H + h on.
static struct matrix signal(const struct state *st, const void *x, struct hb_heads s, int64_t i)
{
    const int64_t at = i / st->H * s.b + i % st->H * s.h;
    return { (char *)x + at * (int64_t)hb_dtype_size(st->t), s.h, s.t };
}

static struct matrix square(const struct state *st, void *x, int64_t i)
{
    const int64_t n = st->L * st->L;
    return { (char *)x + i * n * (int64_t)hb_dtype_size(st->t), n, st->L };
}

// Heads from head i on that lie evenly, at most `most`.
static int64_t run(const struct state *st, const struct hb_attention_io *a, int64_t i, int64_t most)
{
    const bool even = st->B == 1 || (a->sq.b == st->H * a->sq.h && a->sy.b == st->H * a->sy.h);
    return least(most, even ? st->B * st->H - i : st->H - i % st->H);
}

// d (m,n) = alpha op(a) op(b), m, n and k, for `heads` heads. An axis of extent 1 may come with any
// stride; a product wants a row length of at least the row.
static void product(const struct state *st, int64_t heads, bool ta, bool tb, int64_t m, int64_t n,
                    int64_t k, float alpha, struct matrix a, struct matrix b, struct matrix d,
                    bool out_f32, void *stream)
{
    struct hb_gemm g = { };
    g.ta = ta;
    g.tb = tb;
    g.m = m;
    g.n = n;
    g.k = k;
    g.alpha = alpha;
    g.A = a.x;
    g.lda = st->L > 1 ? a.row : ta ? m : k;
    g.B = b.x;
    g.ldb = st->L > 1 ? b.row : tb ? k : n;
    g.D = d.x;
    g.ldd = st->L > 1 ? d.row : n;
    g.out_f32 = out_f32;
    g.batch = heads;
    g.sA = a.head;
    g.sB = b.head;
    g.sD = d.head;
    st->host->device->gemm(&g, { st->t, stream });
}

// s = q k' scale,  w = softmax(s),  y = w v
static int forward(void *vst, const struct hb_io *io)
{
    const struct state *const st = (const struct state *)vst;
    const struct hb_attention_io *const a = &io->attn;
    const int64_t L = st->L, P = st->P, heads = st->B * st->H;
    for (int64_t i = 0, n; i < heads; i += n) {
        n = run(st, a, i, st->group);
        const struct matrix w = square(st, st->w, i);
        const struct matrix s = { st->s ? st->s : w.x, w.head, w.row };
        product(st, n, false, true, L, L, P, st->scale, signal(st, a->q, a->sq, i),
                signal(st, a->k, a->sq, i), s, true, io->stream);
        const int rc = run_rows(st, n, (const float *)s.x, w.x, NULL, io->stream);
        if (rc)
            return rc;
    }
    for (int64_t i = 0, n; i < heads; i += n) {
        n = run(st, a, i, heads);
        product(st, n, false, false, L, P, L, 1.0f, square(st, st->w, i),
                signal(st, a->v, a->sq, i), signal(st, a->y, a->sy, i), false, io->stream);
    }
    return HB_OK;
}

// dv = w' dy,  dw = dy v',  ds = w (dw - delta),  dq = scale ds k,  dk = scale ds' q
static int backward(void *vst, const struct hb_io *io)
{
    const struct state *const st = (const struct state *)vst;
    const struct hb_attention_io *const a = &io->attn;
    const int64_t L = st->L, P = st->P, heads = st->B * st->H;
    for (int64_t i = 0, n; i < heads; i += n) {
        n = run(st, a, i, heads);
        const struct matrix w = square(st, st->w, i), dw = square(st, st->dw, i);
        const struct matrix dy = signal(st, a->dy, a->sy, i);
        product(st, n, true, false, L, P, L, 1.0f, w, dy, signal(st, a->dv, a->sq, i), false,
                io->stream);
        product(st, n, false, true, L, L, P, 1.0f, dy, signal(st, a->v, a->sq, i), dw, false,
                io->stream);
        const int rc = run_rows(st, n, NULL, w.x, dw.x, io->stream);
        if (rc)
            return rc;
        product(st, n, false, false, L, P, L, st->scale, dw, signal(st, a->k, a->sq, i),
                signal(st, a->dq, a->sq, i), false, io->stream);
        product(st, n, true, false, L, P, L, st->scale, dw, signal(st, a->q, a->sq, i),
                signal(st, a->dk, a->sq, i), false, io->stream);
    }
    return HB_OK;
}

static int describe(const void *vst, char *buf, size_t cap)
{
    const struct state *const st = (const struct state *)vst;
    return snprintf(buf, cap, "full squares, scores of %lld heads at once", (long long)st->group);
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "attention_naive_cuda",
    .op = HB_ATTENTION,
    .device = "cuda",
    .dtypes = 1u << HB_F32 | 1u << HB_F16 | 1u << HB_BF16,
    .source = "Vaswani et al. 2017, arXiv:1706.03762; matrix products of the device",
    .complexity = "O(B H L^2 P) time, O(B H L^2) memory",
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .describe = describe,
};
