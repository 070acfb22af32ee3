// cuda_xent.cu: softmax cross-entropy on the CUDA device.
//
// Method    up to 1024 columns: a warp per row, the row in registers. Beyond: a block per row; the
//           running maximum and the sum of exp(z - maximum) are taken while the row is read, and
//           the row stays in shared memory for dz, if it fits; else it is read twice.
// Cost      R V elements read and, with dz, R V written. Rows may begin anywhere: what is in front
//           of the first and behind the last whole 16 bytes goes element by element.
// Accuracy  float32. The target is left out of the sum and added last, so that p - 1 = -(share of
//           the others) and -log p = log(1 + others) do not cancel when the model is nearly sure.
//           exp: exp_for in cuda_vec.cuh.
#include <float.h>

#include "cuda.h"
#include "cuda_vec.cuh"

enum { ROW_WARPS = 4,            // rows per block where a warp has one
       WARP_V = 1024,            // longest row of a warp, 32 floats per lane
       SMALL_V = 8192,           // shorter rows have blocks of SMALL threads, others of LARGE
       SMALL = 128, LARGE = 512,
       UNROLL = 4 };             // vectors on their way per thread

// The largest of some elements and the sum of exp(z - top) over them, without the target's.
// -FLT_MAX, not -Inf: a row may begin with -Inf.
struct softmax { float top, others; };

template <class T, int N>
__device__ __forceinline__ void take(softmax &s, float (&x)[N], int64_t i0, int target)
{
    float top = x[0];
    #pragma unroll
    for (int j = 1; j < N; j++) top = fmaxf(top, x[j]);
    if (top > s.top) {
        s.others *= exp_for<T>(s.top - top);
        s.top = top;
    }
    const int64_t k = target - i0;
    if (k >= 0 && k < N)
        #pragma unroll
        for (int j = 0; j < N; j++)
            if (j == k) x[j] = -INFINITY;
    #pragma unroll
    for (int j = 0; j < N; j++) s.others += exp_for<T>(x[j] - s.top);
}

__device__ __forceinline__ float nll_of(softmax s, float sum, float zt)
{
    return zt == s.top ? log1pf(s.others) : logf(sum) + (s.top - zt);
}

// --- a warp per row ------------------------------------------------------------------------------

// E elements per lane, W at a time, V <= 32 E. dz may be z: a lane has read what it writes.
template <class T, int E, int W>
static __global__ void __launch_bounds__(WARP *ROW_WARPS)
    xent_warp(float *nll, T *dz, const T *z, const int32_t *target, float scale, int64_t R, int V)
{
    const int64_t r = (int64_t)blockIdx.x * ROW_WARPS + threadIdx.y;
    if (r >= R) return;
    const int lane = threadIdx.x, t = target[r];
    float x[E / W][W], top = -FLT_MAX, others = 0;
    #pragma unroll
    for (int k = 0; k < E / W; k++) {
        #pragma unroll
        for (int j = 0; j < W; j++) x[k][j] = t < 0 ? 0.0f : -INFINITY;
        if ((k * WARP + lane) * W < V && t >= 0) load_v(x[k], z + r * V + (k * WARP + lane) * W);
    }
    if (t >= 0) {                                        // the same for the whole warp
        const float zt = hb_load(z[r * V + t]);
        #pragma unroll
        for (int k = 0; k < E / W; k++)
            #pragma unroll
            for (int j = 0; j < W; j++) top = fmaxf(top, x[k][j]);
        top = warp_max(top);
        #pragma unroll
        for (int k = 0; k < E / W; k++)
            #pragma unroll
            for (int j = 0; j < W; j++) {
                x[k][j] = exp_for<T>(x[k][j] - top);
                others += (k * WARP + lane) * W + j == t ? 0.0f : x[k][j];
            }
        others = warp_sum(others);
        const float sum = others + exp_for<T>(zt - top), share = scale / sum;
        #pragma unroll
        for (int k = 0; k < E / W; k++)
            #pragma unroll
            for (int j = 0; j < W; j++)
                x[k][j] = (k * WARP + lane) * W + j == t ? -(others * share) : x[k][j] * share;
        if (lane == 0) nll[r] = nll_of({ top, others }, sum, zt);
    } else if (lane == 0) nll[r] = 0;
    if (!dz) return;
    __syncwarp();                                        // every lane has read z[target]
    #pragma unroll
    for (int k = 0; k < E / W; k++)
        if ((k * WARP + lane) * W < V) store_v(dz + r * V + (k * WARP + lane) * W, x[k]);
}

// --- a block per row -----------------------------------------------------------------------------

// A row of V elements: `lead` in front of the first 16-byte boundary, n vectors, the rest from
// `tail`.
struct cut { int64_t lead, n, tail; };
template <class T> __device__ __forceinline__ cut cut_row(const T *p, int64_t V)
{
    int64_t lead = (int64_t)((16 - (uintptr_t)p % 16) % 16 / sizeof(T));
    if (lead > V) lead = V;
    const int64_t n = (V - lead) / HB_VEC<T>;
    return { lead, n, lead + n * HB_VEC<T> };
}

// The one element beside the vectors that thread tid has, or -1; they are fewer than 16.
__device__ __forceinline__ int64_t edge_of(cut c, int64_t V, int tid)
{
    if (tid < c.lead) return tid;
    const int64_t i = c.tail + tid - c.lead;
    return i < V ? i : -1;
}

// The block's softmax from its threads', to every thread, in the order of lanes and warps' numbers.
template <class T, int THREADS> static __device__ softmax together(softmax s)
{
    __shared__ softmax parts[THREADS / WARP];
    float top = warp_max(s.top);
    const float others = warp_sum(s.others * exp_for<T>(s.top - top));
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = { top, others };
    __syncthreads();
    const int lane = threadIdx.x % WARP;                 // every warp adds up the warps' sums
    s = lane < THREADS / WARP ? parts[lane] : softmax{ -FLT_MAX, 0 };
    top = warp_max(s.top);
    return { top, warp_sum(s.others * exp_for<T>(s.top - top)) };
}

// Block r owns row r. KEEP: the row fits the dynamic shared memory of V + HB_VEC elements; element
// i at kept[pad + i], so that vectors are on 16-byte boundaries there too.
template <class T, int THREADS, bool KEEP>
static __global__ void __launch_bounds__(THREADS)
    xent_block(float *nll, T *dz, const T *z, const int32_t *target, float scale, int64_t V)
{
    constexpr int W = HB_VEC<T>;
    extern __shared__ __align__(16) unsigned char shared[];
    const int64_t r = blockIdx.x;
    const int tid = threadIdx.x, t = target[r];
    const T *zr = z + r * V;
    T *dr = dz ? dz + r * V : NULL;
    const cut c = cut_row(zr, V);
    const bool wide = dr && ((uintptr_t)dr - (uintptr_t)zr) % 16 == 0;   // cut alike
    if (t < 0) {
        if (tid == 0) nll[r] = 0;
        for (int64_t i = tid; dr && i < V; i += THREADS) dr[i] = hb_store<T>(0);
        return;
    }
    T *kept = (T *)shared + (W - c.lead % W) % W;
    const float zt = hb_load(zr[t]);
    softmax s = { -FLT_MAX, 0 };
    const int64_t edge = edge_of(c, V, tid);
    if (edge >= 0) {
        float x[1] = { hb_load(zr[edge]) };
        if (KEEP) kept[edge] = zr[edge];
        take<T>(s, x, edge, t);
    }
    for (int64_t v0 = tid; v0 < c.n; v0 += UNROLL * THREADS) {
        cuda_pack<T, W> p[UNROLL];
        #pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (v0 + u * THREADS < c.n) p[u] = load_pack<W>(zr + c.lead + (v0 + u * THREADS) * W);
        #pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            const int64_t i = c.lead + (v0 + u * THREADS) * W;
            if (v0 + u * THREADS >= c.n) break;
            if (KEEP) *reinterpret_cast<cuda_pack<T, W> *>(kept + i) = p[u];
            float x[W];
            unpack(x, p[u]);
            take<T>(s, x, i, t);
        }
    }
    s = together<T, THREADS>(s);                         // a barrier: z[target] has been read
    const float sum = s.others + exp_for<T>(zt - s.top), share = scale / sum;
    if (dr) {
        const T *from = KEEP ? kept : zr;
        for (int64_t v = tid; v < c.n; v += THREADS) {
            const int64_t i = c.lead + v * W;
            float x[W];
            load_v(x, from + i);
            #pragma unroll
            for (int j = 0; j < W; j++) x[j] = exp_for<T>(x[j] - s.top) * share;
            if (wide) store_v(dr + i, x);
            else
                #pragma unroll
                for (int j = 0; j < W; j++) dr[i + j] = hb_store<T>(x[j]);
        }
        if (edge >= 0) dr[edge] = hb_store<T>(exp_for<T>(hb_load(from[edge]) - s.top) * share);
        __syncthreads();                                 // over what was written just now
        if (tid == 0) dr[t] = hb_store<T>(-(s.others * share));
    }
    if (tid == 0) nll[r] = nll_of(s, sum, zt);
}

// --- launchers -----------------------------------------------------------------------------------

// 16-byte vectors where every row allows it, else elements one by one.
template <class T>
static void by_warps(float *nll, T *dz, const T *z, const int32_t *target, float scale, int64_t R,
                     int V, cudaStream_t s)
{
    constexpr int W = HB_VEC<T>;
    const unsigned blocks = (unsigned)pieces(R, ROW_WARPS);
    const dim3 threads(WARP, ROW_WARPS);
    const bool wide = V % W == 0 && on_16(z) && on_16(dz);
    if (wide && V <= 8 * WARP)
        xent_warp<T, 8, W><<<blocks, threads, 0, s>>>(nll, dz, z, target, scale, R, V);
    else if (wide)
        xent_warp<T, 32, W><<<blocks, threads, 0, s>>>(nll, dz, z, target, scale, R, V);
    else if (V <= 8 * WARP)
        xent_warp<T, 8, 1><<<blocks, threads, 0, s>>>(nll, dz, z, target, scale, R, V);
    else xent_warp<T, 32, 1><<<blocks, threads, 0, s>>>(nll, dz, z, target, scale, R, V);
}

template <class T, int THREADS, bool KEEP>
static void by_blocks(float *nll, T *dz, const T *z, const int32_t *target, float scale, int64_t R,
                      int64_t V, size_t bytes, cudaStream_t s)
{
    if (bytes > 48 << 10) {                              // more must be asked for
        auto *k = xent_block<T, THREADS, KEEP>;
        cuda_note(cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                  "xent");
        cuda_note(cudaFuncSetAttribute(k, cudaFuncAttributePreferredSharedMemoryCarveout, 100),
                  "xent");                               // two blocks of it on an SM
    }
    xent_block<T, THREADS, KEEP><<<(unsigned)R, THREADS, bytes, s>>>(nll, dz, z, target, scale, V);
}

void cuda_xent(float *nll, void *dz, const void *z, const int32_t *target, float scale, int64_t R,
               int64_t V, struct hb_on on)
{
    if (R <= 0 || V <= 0) return;
    int most_shared = 0;
    cuda_note(cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                     gpu.ordinal), "xent");
    hb_by_type(on.t, [&](auto x) {
        using T = decltype(x);
        T *to = (T *)dz;
        const T *from = (const T *)z;
        cudaStream_t s = (cudaStream_t)on.stream;
        const size_t bytes = (size_t)(V + 2 * HB_VEC<T>) * sizeof(T);
        const size_t fixed = 1 << 10;                    // together's is counted with it
        if (V <= WARP_V) by_warps<T>(nll, to, from, target, scale, R, (int)V, s);
        else if (V <= SMALL_V)
            by_blocks<T, SMALL, true>(nll, to, from, target, scale, R, V, bytes, s);
        else if (dz && bytes + fixed <= (size_t)most_shared)
            by_blocks<T, LARGE, true>(nll, to, from, target, scale, R, V, bytes, s);
        else by_blocks<T, LARGE, false>(nll, to, from, target, scale, R, V, 0, s);
    });
    cuda_launched("xent");
}
