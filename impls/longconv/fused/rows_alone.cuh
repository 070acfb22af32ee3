// rows_alone.cuh: gated rows (rows.cuh) where a channel has only one: B = 1, no backward to come.
// One block makes the spectrum of the filter and the convolution with it.
// Method    As in rows.cuh, filter and row side by side, each in planes of its own: everything is
//           read at once, measured with one barrier, and both slots of k1 are transformed one after
//           the other by the same warp, which keeps the filter's in registers. The spectrum is
//           rounded to halves as where it goes through memory: the results are the same.
//           The rows of the block that follows on the same SM are asked for in L2.
// Cost      a sample: device memory 4 bytes (h) + 8; instructions those of both kernels of rows.cuh
//           without what goes between them; barriers 4. Shared memory R KB more.
// Accuracy  see mma.cuh.
#ifndef HB_FUSED_ROWS_ALONE_CUH
#define HB_FUSED_ROWS_ALONE_CUH

#include "rows.cuh"

// Two blocks share an SM, and a lane keeps its columns of both.
template <int R> constexpr bool HB_ALONE = R == 16 || R == 32;
template <int R> constexpr int HB_ALONE_SHARED = HB_ROWS_SHARED<R> + 2 * HB_PLANE<R>;

// Asks for what of these bytes is whole sixteens, all at once: one thread.
__device__ __forceinline__ void hb_prefetch_bytes(const void *p, int64_t bytes)
{
    const uintptr_t from = ((uintptr_t)p + 15) & ~(uintptr_t)15;
    const uintptr_t to = ((uintptr_t)p + bytes) & ~(uintptr_t)15;
    if (from < to)
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;"
                     :: "l"(from), "r"((uint32_t)(to - from)) : "memory");
}

template <class T>
__device__ __forceinline__ void hb_prefetch_factor(const hb_factor &f, int64_t c, int L)
{
    if (f.x) hb_prefetch_bytes(hb_row_at<T>(f, c, 0), (int64_t)L * sizeof(T));
}

// All slots: the filter's spectrum, and the row's with it and back.
template <int R>
__device__ __forceinline__ void hb_slots_alone(const hb_block<R> &k, const unsigned char *filter,
                                               float gain)
{
    const hb_inner inner = hb_inner_of(k);
#pragma unroll 1
    for (int slot = threadIdx.x >> 5; slot < HB_SLOTS<R>; slot += HB_ROWS_THREADS<R> / 32) {
        uint32_t xr[2][4], xi[2][4];             // both are under way together
        hb_inner_points(xr[0], xi[0], hb_shared_address(filter), HB_PLANE<R>, slot, k.me);
        hb_inner_points(xr[1], xi[1], hb_shared_address(k.planes), HB_PLANE<R>, slot, k.me);
        hb_tile z[2];
#pragma unroll
        for (int i = 0; i < 2; i++) hb_inner_forth(z[i], inner, xr[i], xi[i]);
        uint4 h[2];
        hb_round(h, z[0], gain);
        hb_times(z[1], h, 1);
        __syncwarp();             // everybody has read the slot
        hb_slot_back<R>(k, z[1], inner, slot);
    }
}

// y = tap(post) (h * tap(u) tap(pre)), hd at lag 0 of h. Grid D, block HB_ROWS_THREADS, shared
// HB_ALONE_SHARED.
template <class T, int R>
__global__ void __launch_bounds__(HB_ROWS_THREADS<R>, HB_ROWS_BLOCKS<R>)
hb_rows_alone(hb_fused_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int KT = HB_SLOTS<R> / 16, THREADS = HB_ROWS_THREADS<R>;
    static_assert(THREADS == 256 && HB_PEAKS >= 4 * (32 + 2 * THREADS / 32));
    hb_block<R> k;
    const int64_t c = blockIdx.x, later = c + job.ahead;
    const hb_lane me = { (int)threadIdx.x & 31, (int)(threadIdx.x & 31) >> 2, (int)threadIdx.x & 3,
                         (int)threadIdx.x >> 5, 0 };
    float4 x[KT][4];
    if (hb_even_filters(job)) hb_own_filter<R, true>(x, job, c, me);
    else hb_own_filter<R, false>(x, job, c, me);
    const float2 first = hb_filter_first<R>(job, c, me);
    hb_block_init<R>(k, shared, job.matrix);
    hb_filters_init(k.taps, job.gates, c, job.K);
    const hb_factor u = { job.in, job.si, k.taps + HB_TAP_U };
    const hb_factor pre = { job.gates.pre.x, job.gates.pre.sx, k.taps + HB_TAP_PRE };
    const hb_factor post = { job.gates.post.x, job.gates.post.sx, k.taps + HB_TAP_POST };
    float *const part = (float *)k.peaks + 32;   // behind the peaks of eight warps
    float v[KT][4][4];
    hb_own_product<T, R>(v, k, u, pre, c, 0, 1, job.L, true);
    hb_add_first(x[0], first);                   // here: h has been under way with u and pre
    const float2 mine = hb_measure_own(x);
    hb_leave_measured<THREADS>(mine.x, mine.y, part);
    if (threadIdx.x == 0) {
        hb_prefetch_factor<T>(post, c, job.L);
        if (later < job.D) {
            hb_prefetch_bytes(job.h + later * job.L, (int64_t)job.L * sizeof(float));
            hb_prefetch_factor<T>(u, later, job.L);
            hb_prefetch_factor<T>(pre, later, job.L);
        }
    }
    __syncthreads();
    const hb_exponents of[1] = { hb_exponents_of(hb_take_measured<THREADS>(part), 256.0f * R) };
    uint32_t b[2][KT][4][2];                     // of the filter, of the row
    uint2 halves[KT][4];
    float scale[2];
#pragma unroll
    for (int kt = 0; kt < KT; kt++) hb_filter_columns<R>(b[0][kt], x[kt], of, me);
    hb_own_halves<R>(halves, k, v, scale);
#pragma unroll
    for (int kt = 0; kt < KT; kt++) hb_columns(b[1][kt], halves[kt]);
    const float there[2] = { 1.0f / R, 1.0f / R };
    unsigned char *const filter = shared + HB_ROWS_SHARED<R>;
    hb_outer<R, KT>({ filter, k.planes }, k.matrix, b, there, hb_steps_in<R>(k), me);
    __syncthreads();
    hb_slots_alone<R>(k, filter, of[0].gain);
    __syncthreads();
    hb_leave<T, R, true>(k, job, post, c, 0, 1, scale, of[0].undo, 0);
}

#endif
