// cuda_seq.cu: the short depthwise filter on the CUDA device, alone and with the gate behind it.
//
// Method    A thread has one vector of positions and reads its neighbours' again from the cache;
//           3 taps in registers, other numbers by a plain loop. Sums over batch and time: a block
//           adds up one share of one channel, a second kernel adds the shares (scratch) in order.
// Cost      2 C B L elements, backward 3; of two signals and their gate 3, backward 5.
// Accuracy  float32 inside; a thread's part of a share one after the other, then pairwise, shares
//           in float64.
#include "cuda.h"
#include "cuda_vec.cuh"

enum { THREADS = 256,
       TOTALS = 8,               // sums per block of the second kernel, a warp each
       SHARE = 16384,            // elements of a channel that a block adds up, where there are many
       GRID_Y = 65535 };         // CUDA: largest gridDim.y

// Rows (c,b) of L positions, one after the other. `n` items of W positions in a row; a block is
// (x, 256/x): items along a row, rows.
struct rows { int64_t C, B, L, n; int x; };

static struct rows rows_of(int64_t C, int64_t B, int64_t L, int W)
{
    struct rows a = { C, B, L, L / W, 1 };
    while (a.x < THREADS && a.x < a.n) a.x *= 2;
    return a;
}

// Positions t0 - U W .. t0 + W of a row that starts at p, plus bias; 0 before t = 0.
template <class T, int W, int U>
__device__ __forceinline__ void window_before(float (&x)[(U + 1) * W], const T *p, float bias,
                                              int64_t t0)
{
    #pragma unroll
    for (int u = 0; u <= U; u++) {
        const int64_t t = t0 - (U - u) * W;
        float v[W] = {};
        if (t >= 0) load_v(v, p + t);
        #pragma unroll
        for (int j = 0; j < W; j++) x[u * W + j] = t >= 0 ? v[j] + bias : 0.0f;
    }
}

// Positions t0 .. t0 + (U+1) W; 0 from L on.
template <class T, int W, int U>
__device__ __forceinline__ void window_after(float (&x)[(U + 1) * W], const T *p, int64_t t0,
                                             int64_t L)
{
    #pragma unroll
    for (int u = 0; u <= U; u++) {
        float v[W] = {};
        if (t0 + u * W < L) load_v(v, p + t0 + u * W);
        #pragma unroll
        for (int j = 0; j < W; j++) x[u * W + j] = v[j];
    }
}

// Grid (rows, items). K taps, or K = 0: `taps` of them, W = 1.
template <class T, int W, int K>
static __global__ void __launch_bounds__(THREADS)
    short_fwd(T *y, const T *p, const float *bp, const float *w, const float *bs, struct rows a,
              int taps)
{
    const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= a.C * a.B) return;
    const int64_t c = quotient(row, a.B);
    const float bias = bp ? bp[c] : 0.0f, base = bs[c];
    const T *pr = p + row * a.L;
    T *yr = y + row * a.L;
    float k[K + 1];
    #pragma unroll
    for (int j = 0; j < K; j++) k[j] = w[c * K + j];
    for (int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x; i < a.n;
         i += (int64_t)gridDim.y * blockDim.x) {
        const int64_t t0 = i * W;
        float sum[W];
        #pragma unroll
        for (int i1 = 0; i1 < W; i1++) sum[i1] = base;
        if constexpr (K > 0) {
            constexpr int U = (K - 1 + W - 1) / W;
            float x[(U + 1) * W];
            window_before<T, W, U>(x, pr, bias, t0);
            #pragma unroll
            for (int i1 = 0; i1 < W; i1++)
                #pragma unroll
                for (int j = 0; j < K; j++) sum[i1] += k[j] * x[U * W + i1 - (K - 1) + j];
        } else {
            for (int j = 0; j < taps; j++) {
                const int64_t t = t0 - (taps - 1) + j;
                if (t >= 0) sum[0] += w[c * taps + j] * (hb_load(pr[t]) + bias);
            }
        }
        store_v(yr + t0, sum);
    }
}

static dim3 row_grid(const struct rows *a)
{
    return dim3((unsigned)pieces(a->C * a->B, THREADS / a->x),
                (unsigned)least(pieces(a->n, a->x), GRID_Y));
}

void cuda_shortconv_fwd(void *y, const void *p, const float *bp, const float *w, const float *bs,
                        int64_t C, int64_t B, int64_t L, int K, struct hb_on on)
{
    if (C <= 0 || B <= 0 || L <= 0) return;
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        constexpr int V = HB_VEC<T>;
        T *to = (T *)y;
        const T *from = (const T *)p;
        cudaStream_t s = (cudaStream_t)on.stream;
        const bool wide = K == 3 && L % V == 0 && on_16(y) && on_16(p);
        const struct rows a = rows_of(C, B, L, wide ? V : 1);
        const dim3 grid = row_grid(&a), block((unsigned)a.x, (unsigned)(THREADS / a.x));
        if (wide) short_fwd<T, V, 3><<<grid, block, 0, s>>>(to, from, bp, w, bs, a, K);
        else if (K == 3) short_fwd<T, 1, 3><<<grid, block, 0, s>>>(to, from, bp, w, bs, a, K);
        else short_fwd<T, 1, 0><<<grid, block, 0, s>>>(to, from, bp, w, bs, a, K);
    });
    cuda_launched("shortconv_fwd");
}

// --- its backward pass ---------------------------------------------------------------------------
//   dp[t] = sum_j w[j] dy[t+K-1-j]           dw[j] = sum_{b,t} dy[b,t] pb[b,t-(K-1)+j]
//   dbs = sum dy                             dbp = sum dp
// pb is 0 before t = 0, where bp has no gradient either.

// A channel is cut into steps: (rows of the block) x (items of the block). A share is so many
// steps; shares per channel.
struct shares { int64_t tiles, steps, share, n; };

// The sums of a channel, K + 2 of them: where the total of sum i goes.
struct short_grads { float *dw, *dbs, *dbp; };
__device__ __forceinline__ void add_grad(struct short_grads g, int64_t c, int K, int i, float total)
{
    if (i < K) g.dw[c * K + i] += total;
    else if (i == K) g.dbs[c] += total;
    else if (g.dbp) g.dbp[c] += total;
}

// Of the whole block, to thread 0. `all` is the block's; two barriers.
__device__ __forceinline__ float block_sum(float x, float *all)
{
    const int tid = threadIdx.y * blockDim.x + threadIdx.x;
    x = warp_sum(x);
    __syncthreads();                             // nobody still reads the last call's
    if (tid % WARP == 0) all[tid / WARP] = x;
    __syncthreads();
    float sum = 0;
    if (tid == 0)
        #pragma unroll
        for (int i = 0; i < THREADS / WARP; i++) sum += all[i];
    return sum;
}

// Row and item of this thread in a step; false: it has none.
__device__ __forceinline__ bool place(const struct rows &a, const struct shares &h, int64_t step,
                                      int64_t *b, int64_t *t, int W)
{
    const int64_t group = quotient(step, h.tiles);
    const int64_t i = (step - group * h.tiles) * blockDim.x + threadIdx.x;
    *b = group * blockDim.y + threadIdx.y;
    *t = i * W;
    return *b < a.B && i < a.n;
}

// Block c h.n + k adds up share k of channel c: to part (C, h.n, K+2), or to g if h.n = 1.
template <class T, int W, int K>
static __global__ void __launch_bounds__(THREADS)
    short_bwd(T *dp, struct short_grads g, float *part, const T *dy, const T *p, const float *bp,
              const float *w, struct rows a, struct shares h)
{
    constexpr int U = (K - 1 + W - 1) / W;
    __shared__ float all[THREADS / WARP];
    const int64_t c = quotient(blockIdx.x, h.n), mine = blockIdx.x - c * h.n;
    const float bias = bp ? bp[c] : 0.0f;
    float k[K], sum[K + 2] = {};
    #pragma unroll
    for (int j = 0; j < K; j++) k[j] = w[c * K + j];
    const int64_t end = least((mine + 1) * h.share, h.steps);
    for (int64_t step = mine * h.share; step < end; step++) {
        int64_t b, t0;
        if (!place(a, h, step, &b, &t0, W)) continue;
        const int64_t row = (c * a.B + b) * a.L;
        float x[(U + 1) * W], e[(U + 1) * W], d[W];
        window_before<T, W, U>(x, p + row, bias, t0);
        window_after<T, W, U>(e, dy + row, t0, a.L);
        #pragma unroll
        for (int i = 0; i < W; i++) {
            d[i] = 0;
            #pragma unroll
            for (int j = 0; j < K; j++) {
                d[i] += k[j] * e[i + K - 1 - j];
                sum[j] += e[i] * x[U * W + i - (K - 1) + j];
            }
            sum[K] += e[i];
            sum[K + 1] += d[i];
        }
        store_v(dp + row + t0, d);
    }
    #pragma unroll
    for (int i = 0; i < K + 2; i++) {
        const float total = block_sum(sum[i], all);
        if (threadIdx.x + threadIdx.y) continue;
        if (part) part[blockIdx.x * (int64_t)(K + 2) + i] = total;
        else add_grad(g, c, K, i, total);
    }
}

// The same for any K, W = 1: one sum after the other, dp with the last.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    short_bwd_any(T *dp, struct short_grads g, float *part, const T *dy, const T *p,
                  const float *bp, const float *w, int K, struct rows a, struct shares h)
{
    __shared__ float all[THREADS / WARP];
    const int64_t c = quotient(blockIdx.x, h.n), mine = blockIdx.x - c * h.n;
    const float bias = bp ? bp[c] : 0.0f;
    const int64_t end = least((mine + 1) * h.share, h.steps);
    for (int q = 0; q < K + 2; q++) {
        float sum = 0;
        for (int64_t step = mine * h.share; step < end; step++) {
            int64_t b, t;
            if (!place(a, h, step, &b, &t, 1)) continue;
            const int64_t row = (c * a.B + b) * a.L, s = t - (K - 1) + q;
            if (q < K) {
                if (s >= 0) sum += hb_load(dy[row + t]) * (hb_load(p[row + s]) + bias);
            } else if (q == K) {
                sum += hb_load(dy[row + t]);
            } else {
                float d = 0;
                for (int j = K - 1; j >= 0 && t + K - 1 - j < a.L; j--)
                    d += w[c * K + j] * hb_load(dy[row + t + K - 1 - j]);
                dp[row + t] = hb_store<T>(d);
                sum += d;
            }
        }
        const float total = block_sum(sum, all);
        if (threadIdx.x + threadIdx.y) continue;
        if (part) part[blockIdx.x * (int64_t)(K + 2) + q] = total;
        else add_grad(g, c, K, q, total);
    }
}

// A warp per sum of a channel adds the shares' partial sums.
static __global__ void __launch_bounds__(WARP *TOTALS)
    short_total(struct short_grads g, const float *part, int64_t C, int64_t n, int K)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (i >= C * (K + 2)) return;
    const int64_t c = quotient(i, K + 2);
    const int q = (int)(i - c * (K + 2));
    double sum = 0;
    for (int64_t k = threadIdx.x; k < n; k += WARP) sum += (double)part[(c * n + k) * (K + 2) + q];
    sum = warp_sum(sum);
    if (threadIdx.x == 0) add_grad(g, c, K, q, (float)sum);
}

// Shares depend on the shape only: about SHARE elements each, smaller where that leaves SMs idle,
// as many as the scratch block holds.
static struct shares shares_of(const struct rows *a, int W, int K, size_t bytes)
{
    struct shares h = { .tiles = pieces(a->n, a->x) };
    h.steps = pieces(a->B, THREADS / a->x) * h.tiles;
    const int64_t n = most(pieces(h.steps, SHARE / (THREADS * W)), pieces(2048, a->C));
    const int64_t fit = least(1024, (int64_t)bytes / (4 * (K + 2) * a->C));
    h.share = pieces(h.steps, most(1, least(n, fit)));
    h.n = pieces(h.steps, h.share);
    return h;
}

void cuda_shortconv_bwd(void *dp, float *dw, float *dbs, float *dbp, const void *dy,
                        const void *p, const float *bp, const float *w, int64_t C, int64_t B,
                        int64_t L, int K, struct hb_on on)
{
    if (C <= 0 || B <= 0 || L <= 0) return;
    size_t bytes;
    float *scratch = (float *)cuda_scratch(&bytes, on.stream);
    const struct short_grads g = { dw, dbs, dbp };
    cudaStream_t s = (cudaStream_t)on.stream;
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        constexpr int V = HB_VEC<T>;
        T *to = (T *)dp;
        const T *e = (const T *)dy, *x = (const T *)p;
        const bool wide = K == 3 && L % V == 0 && on_16(dp) && on_16(dy) && on_16(p);
        const struct rows a = rows_of(C, B, L, wide ? V : 1);
        const struct shares h = shares_of(&a, wide ? V : 1, K, bytes);
        float *part = h.n > 1 ? scratch : NULL;
        const unsigned grid = (unsigned)(C * h.n);
        const dim3 block((unsigned)a.x, (unsigned)(THREADS / a.x));
        if (wide) short_bwd<T, V, 3><<<grid, block, 0, s>>>(to, g, part, e, x, bp, w, a, h);
        else if (K == 3) short_bwd<T, 1, 3><<<grid, block, 0, s>>>(to, g, part, e, x, bp, w, a, h);
        else short_bwd_any<T><<<grid, block, 0, s>>>(to, g, part, e, x, bp, w, K, a, h);
        const dim3 warps(WARP, TOTALS);
        if (part)
            short_total<<<(unsigned)pieces(C * (K + 2), TOTALS), warps, 0, s>>>(g, part, C, h.n, K);
    });
    cuda_launched("shortconv_bwd");
}

// --- gate behind short filters -------------------------------------------------------------------
//   y = tap(a) tap(b);   da' = dy tap(b), db' = dy tap(a), and each back through its own filter.
// A filter that is absent is one tap of 1 in the last place.

// One filter of channel c in registers; K = 0: `taps` of them, in memory.
template <int K> struct tap_reg {
    float k[K + 1], bias, base;
    const float *w;

    __device__ __forceinline__ tap_reg(const struct hb_conv_tap &f, int64_t c, int taps)
        : bias(f.bp && f.w ? f.bp[c] : 0.0f), base(f.w ? f.bs[c] : 0.0f),
          w(f.w ? f.w + c * taps : NULL)
    {
        #pragma unroll
        for (int j = 0; j < K; j++) k[j] = w ? w[j] : j == K - 1 ? 1.0f : 0.0f;
    }
    // At position i of a window that begins K-1 before position 0.
    template <int N> __device__ __forceinline__ float at(const float (&x)[N], int i) const
    {
        float sum = base;
        #pragma unroll
        for (int j = 0; j < K; j++) sum += k[j] * x[i + j];
        return sum;
    }
    // At position t of the row p, whatever the number of taps.
    template <class T> __device__ float any(const T *p, int64_t t, int taps) const
    {
        if (!w) return hb_load(p[t]);
        float sum = base;
        for (int j = 0; j < taps; j++) {
            const int64_t s = t - (taps - 1) + j;
            if (s >= 0) sum += w[j] * (hb_load(p[s]) + bias);
        }
        return sum;
    }
};

// x[i] = position t0 - (K-1) + i of the row p plus bias, 0 outside of it: N of them. W positions
// are read at once, and t0 and L are multiples of W.
template <class T, int W, int K, int N>
__device__ __forceinline__ void window_around(float (&x)[N], const T *p, float bias, int64_t t0,
                                              int64_t L)
{
    constexpr int U = (K - 1 + W - 1) / W, V = (N - (K - 1) + W - 1) / W;
    #pragma unroll
    for (int u = -U; u < V; u++) {
        const int64_t t = t0 + u * W;
        const bool in = t >= 0 && t < L;
        float v[W] = {};
        if (in) load_v(v, p + t);
        #pragma unroll
        for (int j = 0; j < W; j++) {
            const int i = u * W + j + K - 1;
            if (i >= 0 && i < N) x[i] = in ? v[j] + bias : 0.0f;
        }
    }
}

// Grid (rows, items), as short_fwd.
template <class T, int W, int K>
static __global__ void __launch_bounds__(THREADS)
    pair_fwd(T *y, const T *a, const T *b, struct hb_conv_tap ta, struct hb_conv_tap tb,
             struct rows r, int taps)
{
    const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= r.C * r.B) return;
    const int64_t c = quotient(row, r.B);
    const tap_reg<K> fa(ta, c, taps), fb(tb, c, taps);
    const T *ar = a + row * r.L, *br = b + row * r.L;
    for (int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x; i < r.n;
         i += (int64_t)gridDim.y * blockDim.x) {
        const int64_t t0 = i * W;
        float out[W];
        if constexpr (K > 0) {
            float x[W + K - 1], z[W + K - 1];
            window_around<T, W, K>(x, ar, fa.bias, t0, r.L);
            window_around<T, W, K>(z, br, fb.bias, t0, r.L);
            #pragma unroll
            for (int j = 0; j < W; j++) out[j] = fa.at(x, j) * fb.at(z, j);
        } else {
            out[0] = fa.any(ar, t0, taps) * fb.any(br, t0, taps);
        }
        store_v(y + row * r.L + t0, out);
    }
}

// From dy the gradients of both; their sums to part_a and part_b, or to the filters' gradients if
// part_a is NULL. Blocks as in short_bwd.
template <class T, int W, int K>
static __global__ void __launch_bounds__(THREADS)
    pair_bwd(T *da, T *db, float *part_a, float *part_b, const T *dy, const T *a, const T *b,
             struct hb_conv_tap ta, struct hb_conv_tap tb, struct rows r, struct shares h)
{
    constexpr int N = W + K - 1;                 // positions whose dy is needed
    __shared__ float all[THREADS / WARP];
    const int64_t c = quotient(blockIdx.x, h.n), mine = blockIdx.x - c * h.n;
    const tap_reg<K> fa(ta, c, K), fb(tb, c, K);
    float sum[2][K + 2] = {};
    const int64_t end = least((mine + 1) * h.share, h.steps);
    for (int64_t step = mine * h.share; step < end; step++) {
        int64_t i, t0;
        if (!place(r, h, step, &i, &t0, W)) continue;
        const int64_t row = (c * r.B + i) * r.L;
        float x[2][N + K - 1], e[N], g[2][N];
        window_around<T, W, K>(x[0], a + row, fa.bias, t0, r.L);
        window_around<T, W, K>(x[1], b + row, fb.bias, t0, r.L);
        window_around<T, W, 1>(e, dy + row, 0.0f, t0, r.L);
        #pragma unroll
        for (int j = 0; j < N; j++) {
            g[0][j] = e[j] * fb.at(x[1], j);
            g[1][j] = e[j] * fa.at(x[0], j);
        }
        #pragma unroll
        for (int q = 0; q < 2; q++) {
            float d[W];
            #pragma unroll
            for (int j = 0; j < W; j++) {
                d[j] = 0;
                #pragma unroll
                for (int k = 0; k < K; k++) {
                    d[j] += (q ? fb : fa).k[k] * g[q][j + K - 1 - k];
                    sum[q][k] += g[q][j] * x[q][j + k];
                }
                sum[q][K] += g[q][j];
                sum[q][K + 1] += d[j];
            }
            store_v((q ? db : da) + row + t0, d);
        }
    }
    #pragma unroll
    for (int q = 0; q < 2; q++) {
        const struct hb_conv_tap &f = q ? tb : ta;
        if (!f.w) continue;
        float *part = q ? part_b : part_a;
        const struct short_grads grads = { f.dw, f.dbs, f.bp ? f.dbp : NULL };
        #pragma unroll
        for (int i = 0; i < K + 2; i++) {
            const float total = block_sum(sum[q][i], all);
            if (threadIdx.x + threadIdx.y) continue;
            if (part) part[blockIdx.x * (int64_t)(K + 2) + i] = total;
            else add_grad(grads, c, K, i, total);
        }
    }
}

// One of the two for any K, W = 1: da from dy and tap(b); one sum after the other, da last.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    pair_bwd_any(T *da, float *part, const T *dy, const T *a, const T *b, struct hb_conv_tap ta,
                 struct hb_conv_tap tb, int K, struct rows r, struct shares h)
{
    __shared__ float all[THREADS / WARP];
    const int64_t c = quotient(blockIdx.x, h.n), mine = blockIdx.x - c * h.n;
    const tap_reg<0> fa(ta, c, K), fb(tb, c, K);
    const struct short_grads grads = { ta.dw, ta.dbs, ta.bp ? ta.dbp : NULL };
    const int64_t end = least((mine + 1) * h.share, h.steps);
    for (int q = fa.w ? 0 : K + 1; q < K + 2; q++) {
        float sum = 0;
        for (int64_t step = mine * h.share; step < end; step++) {
            int64_t i, t;
            if (!place(r, h, step, &i, &t, 1)) continue;
            const int64_t row = (c * r.B + i) * r.L, s = t - (K - 1) + q;
            const T *e = dy + row, *br = b + row;
            if (q <= K) {
                if (s < 0) continue;             // q = K: s > t >= 0
                const float g = hb_load(e[t]) * fb.any(br, t, K);
                sum += q < K ? g * (hb_load(a[row + s]) + fa.bias) : g;
                continue;
            }
            float d = 0;
            for (int j = fa.w ? 0 : K - 1; j < K; j++) {
                const int64_t at = t + K - 1 - j;
                if (at < r.L) d += (fa.w ? fa.w[j] : 1.0f) * hb_load(e[at]) * fb.any(br, at, K);
            }
            da[row + t] = hb_store<T>(d);
            sum += d;
        }
        if (!fa.w) continue;
        const float total = block_sum(sum, all);
        if (threadIdx.x + threadIdx.y) continue;
        if (part) part[blockIdx.x * (int64_t)(K + 2) + q] = total;
        else add_grad(grads, c, K, q, total);
    }
}

// Positions at once: 8 or 16 bytes, and the window around them stays in registers.
enum { PAIR = 4 };
template <class T> static bool pairs_fit(int K, int64_t L, const void *a, const void *b,
                                         const void *c)
{
    const uintptr_t all = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c;
    return K == 3 && L % PAIR == 0 && all % (PAIR * sizeof(T)) == 0;
}

void cuda_taps_fwd(void *y, const void *a, struct hb_conv_tap ta, const void *b,
                   struct hb_conv_tap tb, int64_t C, int64_t B, int64_t L, int K,
                   struct hb_on on)
{
    if (C <= 0 || B <= 0 || L <= 0) return;
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        T *to = (T *)y;
        const T *x = (const T *)a, *w = (const T *)b;
        cudaStream_t s = (cudaStream_t)on.stream;
        const bool wide = pairs_fit<T>(K, L, y, a, b);
        const struct rows r = rows_of(C, B, L, wide ? PAIR : 1);
        const dim3 grid = row_grid(&r), block((unsigned)r.x, (unsigned)(THREADS / r.x));
        if (wide) pair_fwd<T, PAIR, 3><<<grid, block, 0, s>>>(to, x, w, ta, tb, r, K);
        else if (K == 3) pair_fwd<T, 1, 3><<<grid, block, 0, s>>>(to, x, w, ta, tb, r, K);
        else pair_fwd<T, 1, 0><<<grid, block, 0, s>>>(to, x, w, ta, tb, r, K);
    });
    cuda_launched("taps_fwd");
}

void cuda_taps_bwd(void *da, void *db, const void *dy, const void *a, struct hb_conv_tap ta,
                   const void *b, struct hb_conv_tap tb, int64_t C, int64_t B, int64_t L, int K,
                   struct hb_on on)
{
    if (C <= 0 || B <= 0 || L <= 0) return;
    size_t bytes;
    float *scratch = (float *)cuda_scratch(&bytes, on.stream);
    cudaStream_t s = (cudaStream_t)on.stream;
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        T *ga = (T *)da, *gb = (T *)db;
        const T *e = (const T *)dy, *x = (const T *)a, *w = (const T *)b;
        const bool wide = pairs_fit<T>(K, L, dy, a, b) && pairs_fit<T>(K, L, da, db, NULL);
        const struct rows r = rows_of(C, B, L, wide ? PAIR : 1);
        const struct shares h = shares_of(&r, wide ? PAIR : 1, K, bytes / 2);
        float *pa = h.n > 1 ? scratch : NULL, *pb = pa ? pa + C * h.n * (K + 2) : NULL;
        const unsigned grid = (unsigned)(C * h.n), sums = (unsigned)pieces(C * (K + 2), TOTALS);
        const dim3 block((unsigned)r.x, (unsigned)(THREADS / r.x)), warps(WARP, TOTALS);
        if (wide) {
            pair_bwd<T, PAIR, 3><<<grid, block, 0, s>>>(ga, gb, pa, pb, e, x, w, ta, tb, r, h);
        } else if (K == 3) {
            pair_bwd<T, 1, 3><<<grid, block, 0, s>>>(ga, gb, pa, pb, e, x, w, ta, tb, r, h);
        } else {
            pair_bwd_any<T><<<grid, block, 0, s>>>(ga, pa, e, x, w, ta, tb, K, r, h);
            pair_bwd_any<T><<<grid, block, 0, s>>>(gb, pb, e, w, x, tb, ta, K, r, h);
        }
        const struct short_grads to_a = { ta.dw, ta.dbs, ta.bp ? ta.dbp : NULL };
        const struct short_grads to_b = { tb.dw, tb.dbs, tb.bp ? tb.dbp : NULL };
        if (pa && ta.w) short_total<<<sums, warps, 0, s>>>(to_a, pa, C, h.n, K);
        if (pb && tb.w) short_total<<<sums, warps, 0, s>>>(to_b, pb, C, h.n, K);
    });
    cuda_launched("taps_bwd");
}
