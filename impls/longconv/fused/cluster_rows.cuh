// cluster_rows.cuh: spectra and convolutions of rows in a cluster of blocks (cluster.cuh), CUDA.
#ifndef HB_FUSED_CLUSTER_ROWS_CUH
#define HB_FUSED_CLUSTER_ROWS_CUH

#include "cluster_steps.cuh"
#include "cluster_units.cuh"

// A thread's items of a row, times scale, to the planes of all blocks.
template <class S>
__device__ __forceinline__ void cluster_send_all(const cluster_block &k,
                                                 const cluster_item<float, S::K> (&x)[S::ITEMS],
                                                 float scale)
{
    cluster_expect_z<S>(k);
#pragma unroll
    for (int m = 0; m < S::ITEMS; m++) {
        const int i = threadIdx.x + m * S::THREADS;
        if (i < 8 * S::R) cluster_send<S>(k, x[m], i, scale);
    }
}

// Spectra of all h (+ d at lag 0), and undo. Grid D clusters of K, the rest as below. No warp reads
// of a spectrum but what it wrote.
template <class S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS) cluster_spectrum(struct cluster_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int K = S::K, R = S::R;
    const int64_t c = blockIdx.x / K;
    cluster_block k;
    cluster_begin<S>(k, shared);
    cluster_item<float, K> x[S::ITEMS];                    // under way while constants are made
    const float *const h = job.h + c * job.L;
    if (cluster_is_even<float, CLUSTER_WIDTH<K>>(h, job.L))
        cluster_load<true, float, S>(x, h, job.L, k.rank);
    else cluster_load<false, float, S>(x, h, job.L, k.rank);
    const float d = job.d ? job.d[c] : 0;
    cluster_init<S>(k, job.matrix);
    if (c + job.ahead < job.D)    // what comes to this place next is to be in L2
        cluster_prefetch<float, S>(job.h, { 0, job.L }, c + job.ahead, 0, job.L, k.rank);
    cluster_meet();               // all blocks are there
    launch_wait();                // lets the rows' kernel begin, too
    if (k.rank == 0 && threadIdx.x == 0)
        x[0][0].x[0] = __float_as_uint(__uint_as_float(x[0][0].x[0]) + d);
    float2 mark = make_float2(0, 0);
#pragma unroll
    for (int m = 0; m < S::ITEMS; m++) cluster_measure<S>(mark, x[m]);
    mark = cluster_together<float, S>(k, 0, mark);
    const float in = fminf(hb_fused_scale(mark.x, 0), 0x1p100f), all = hb_fused_scale(mark.y, 15);
    cluster_send_all<S>(k, x, in * (CLUSTER_TOP / K));
    cluster_await(k, CLUSTER_Z);  // planes hold z
    cluster_outer<S, false>(k);
    __syncthreads();
    cluster_keep<S>(k, job.spectrum + (int64_t)blockIdx.x * R * 64 + k.me.lane,
                    all / in * (K * R / 16.0f / (CLUSTER_TOP * CLUSTER_TOP)));
    if (k.rank == 0 && threadIdx.x == 0)
        job.undo[c] = make_float2(4 / all, mark.x > 0 ? mark.y / mark.x : 1);
}                                 // whatever comes here has come: nobody reads from others

// --- rows ----------------------------------------------------------------------------------------
// GATED: what is read of row b of channel c, to L2.
template <class T, class S>
__device__ __forceinline__ void cluster_prefetch_gates(const cluster_job &job, int64_t c, int b,
                                                       int rank)
{
    cluster_prefetch<T, S>(job.in, job.si, c, b, job.L, rank);
    cluster_prefetch<T, S>(job.gates.pre.x, job.gates.pre.sx, c, b, job.L, rank);
    cluster_prefetch<T, S>(job.gates.post.x, job.gates.post.sx, c, b, job.L, rank);
}

// A row that has been asked for, there. Returns 2^eu / CLUSTER_IN.
template <class T, class S>
__device__ __forceinline__ float
cluster_there_units(cluster_block &k, const cluster_part<S::K> (&x)[CLUSTER_UNITS<S>])
{
    uint32_t peak = 0;
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++)
#pragma unroll
        for (int s = 0; s < S::K / 4; s++)
#pragma unroll
            for (int w = 0; w < 4; w++) peak = __vmaxu2(peak, x[m][s].x[w] & 0x7fff7fffu);
    const float top = cluster_together<T, S>(k, peak, make_float2(0, 0)).x;
    const float scale = fminf(hb_fused_scale(top, 10), 0x1p30f);
    cluster_send_units<T, S>(k, x, scale);
    return scale * (1 / CLUSTER_IN);
}

// The factors of a channel.
struct cluster_factors { hb_factor u, pre, post; };

// GATED: of a unit this lane's samples of a factor, two at a time; the first two are those before.
template <class S> using cluster_window = uint32_t[S::K / 4][5];

// EVEN: rows begin on 16 bytes, L is a multiple of 8. No branches then: loads of several units are
// under way.
template <bool EVEN, class T, class S>
__device__ __forceinline__ void cluster_window_load(cluster_window<S> &w, const cluster_block &k,
                                                    const hb_factor &f, int64_t c, int64_t b,
                                                    int unit, int L)
{
    int n[S::K / 4];
    cluster_lane_samples<S>(n, unit, k);
    const T *const row = hb_row_at<T>(f, c, b);
#pragma unroll
    for (int s = 0; s < S::K / 4; s++) {
        const bool is = cluster_is_unit<S>(unit) && n[s] < L;
        uint4 v = make_uint4(0, 0, 0, 0);
        w[s][0] = 0;
        if constexpr (EVEN) {
            if (is && n[s]) w[s][0] = *(const uint32_t *)(row + n[s] - 2);
            if (is) v = *(const uint4 *)(row + n[s]);
        } else if (is) {
            uint32_t x[3], y[3];
            hb_window_words<T, 3>(x, row, n[s], L);
            hb_window_words<T, 3>(y, row, n[s] + 4, L);
            w[s][0] = x[0];
            v = make_uint4(x[1], x[2], y[1], y[2]);
        }
        w[s][1] = v.x;
        w[s][2] = v.y;
        w[s][3] = v.z;
        w[s][4] = v.w;
    }
}

// v *= tap(f) (FIRST: =) at n .. n + 7, of one segment's window.
template <class T, bool FIRST>
__device__ __forceinline__ void cluster_by_window(float (&v)[8], const uint32_t (&w)[5],
                                                  const hb_taps &k, int n)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t x[3] = { w[2 * i], w[2 * i + 1], w[2 * i + 2] };
        hb_by_words<T, FIRST>(*(float (*)[4])(v + 4 * i), x, k, n + 4 * i);
    }
}

// GATED: whether cluster_window_load may be EVEN.
template <class T> __device__ __forceinline__ bool cluster_even_factor(const hb_factor &f, int L)
{
    return !f.x || (((uintptr_t)f.x % 16 | f.s.c % 8 | f.s.b % 8 | L % 8) == 0);
}

// GATED: this warp's units of row b of r; 0 from L on and beyond the last. A unit is asked for
// while the one before it is multiplied.
template <bool EVEN, class T, class S>
__device__ __forceinline__ void cluster_products_of(float (&r)[CLUSTER_UNITS<S>][S::K / 4][8],
                                                    const cluster_block &k,
                                                    const cluster_factors &f, int64_t c, int64_t b,
                                                    int L)
{
    constexpr int UNITS = CLUSTER_UNITS<S>;
    const int first = cluster_anew(k.warp);
    cluster_window<S> u[2], pre[2];
    const auto load = [&](int m) {
        const int unit = first + m * S::WARPS;
        cluster_window_load<EVEN, T, S>(u[m % 2], k, f.u, c, b, unit, L);
        if (f.pre.x) cluster_window_load<EVEN, T, S>(pre[m % 2], k, f.pre, c, b, unit, L);
    };
    load(0);
#pragma unroll
    for (int m = 0; m < UNITS; m++) {
        const int unit = first + m * S::WARPS;
        int n[S::K / 4];
        if (m + 1 < UNITS) load(m + 1);
        cluster_lane_samples<S>(n, unit, k);
#pragma unroll
        for (int s = 0; s < S::K / 4; s++) {
            float (&v)[8] = r[m][s];
            cluster_by_window<T, true>(v, u[m % 2][s], *f.u.k, n[s]);
            if (f.pre.x) cluster_by_window<T, false>(v, pre[m % 2][s], *f.pre.k, n[s]);
#pragma unroll
            for (int t = 0; t < 8; t++)
                if (!cluster_is_unit<S>(unit) || n[s] + t >= L) v[t] = 0;
        }
    }
}

// GATED: row b there; returns the same.
template <class T, class S>
__device__ __forceinline__ float cluster_there_products(cluster_block &k, const cluster_factors &f,
                                                        int64_t c, int64_t b, int L)
{
    constexpr int UNITS = CLUSTER_UNITS<S>, PARTS = S::K / 4;
    float r[UNITS][PARTS][8], top = 0;
    if (cluster_even_factor<T>(f.u, L) && cluster_even_factor<T>(f.pre, L))
        cluster_products_of<true, T, S>(r, k, f, c, b, L);
    else
        cluster_products_of<false, T, S>(r, k, f, c, b, L);
#pragma unroll
    for (int i = 0; i < UNITS * PARTS * 8; i++)
        top = fmaxf(top, fabsf(r[i / (8 * PARTS)][i / 8 % PARTS][i % 8]));
    top = cluster_together<float, S>(k, 0, make_float2(top, 0)).x;
    const float scale = fminf(hb_fused_scale(top, 10), 0x1p100f);
    const int first = cluster_anew(k.warp);
    cluster_expect_z<S>(k);
#pragma unroll
    for (int m = 0; m < UNITS; m++) {
        uint32_t v[PARTS][4];
#pragma unroll
        for (int i = 0; i < S::K; i++) {
            const float (&x)[8] = r[m][i / 4];
            v[i / 4][i % 4] = hb_pack(x[i % 4 * 2] * scale, x[i % 4 * 2 + 1] * scale);
        }
        if (cluster_is_unit<S>(first + m * S::WARPS))
            cluster_send_halves<S>(k, v, first + m * S::WARPS);
    }
    cluster_await(k, CLUSTER_Z);  // planes hold z
    return scale * (1 / CLUSTER_IN);
}

// GATED: row b to y; what tap(post) wants is asked for before the planes are there. EACH units'
// planes are under way at once.
template <bool EVEN, class T, class S>
__device__ __forceinline__ void cluster_leave_gated(const cluster_block &k, const cluster_job &job,
                                                    const hb_factor &post, int64_t c, int64_t b,
                                                    float by)
{
    constexpr int PARTS = S::K / 4, UNITS = CLUSTER_UNITS<S>, EACH = 8 / S::K > 0 ? 8 / S::K : 1;
    const int first = cluster_anew(k.warp);
    cluster_window<S> w[UNITS];
#pragma unroll
    for (int m = 0; m < UNITS; m++)
        if (post.x)
            cluster_window_load<EVEN, T, S>(w[m], k, post, c, b, first + m * S::WARPS, job.L);
    cluster_meet();               // planes hold w
    T *const y = (T *)job.out + c * job.so.c + b * job.so.b;
#pragma unroll
    for (int m = 0; m < UNITS; m += EACH) {
        uint32_t z[EACH][2][PARTS][4];
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (m + i < UNITS && cluster_is_unit<S>(first + (m + i) * S::WARPS))
                cluster_fetch_words<S>(z[i], k, first + (m + i) * S::WARPS);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int unit = first + (m + i) * S::WARPS;
            if (m + i >= UNITS || !cluster_is_unit<S>(unit)) break;
            float v[PARTS][8];
            int n[PARTS];
            cluster_back_unit<S>(v, k, z[i], unit, by);
            cluster_lane_samples<S>(n, unit, k);
#pragma unroll
            for (int s = 0; s < PARTS; s++) {
                if (post.x) cluster_by_window<T, false>(v[s], w[m + i][s], *post.k, n[s]);
                put_columns<T, 8>(y, n[s], job.L, v[s]);
            }
        }
    }
}

template <class T, class S>
__device__ __forceinline__ void cluster_leave_products(const cluster_block &k,
                                                       const cluster_job &job,
                                                       const hb_factor &post, int64_t c, int64_t b,
                                                       float by)
{
    if (cluster_even_factor<T>(post, job.L))
        cluster_leave_gated<true, T, S>(k, job, post, c, b, by);
    else
        cluster_leave_gated<false, T, S>(k, job, post, c, b, by);
}

// y = h * u + d u, or gated. Grid D B clusters of K, block S::THREADS, shared S::SHARED. A cluster
// has a row, rows of a channel come one after the other: its spectrum is in L2 then. At 1.55 ms
// (L = 65536, B 8, D 384, f16, with spectra) four rows a cluster had 1.61, ones that stay and share
// all rows 1.79. The row that comes to this place next is brought to L2, which saves 1 %; of gated
// rows (B 1: three signals and a spectrum each) that cost 5 % more.
template <class T, class S, bool GATED>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS) cluster_rows(struct cluster_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int K = S::K, R = S::R;
    const int row = blockIdx.x / K, c = row / job.B, b = row % job.B;
    cluster_block k;
    cluster_begin<S>(k, shared);
    const cluster_factors f = {
        { job.in, job.si, k.taps + HB_TAP_U },
        { job.gates.pre.x, job.gates.pre.sx, k.taps + HB_TAP_PRE },
        { job.gates.post.x, job.gates.post.sx, k.taps + HB_TAP_POST },
    };
    cluster_part<K> x[CLUSTER_UNITS<S>];                   // under way while constants are made
    if constexpr (!GATED) cluster_enter_units<T, S>(x, k, f.u, c, b, job.L);
    else cluster_prefetch_gates<T, S>(job, c, b, k.rank);
    cluster_init<S>(k, job.matrix);
    cluster_dft_init<S>(k);
    if constexpr (GATED) hb_filters_init(k.taps, job.gates, c, job.taps);
    launch_wait();                // for the spectra
    const uint4 *const spectrum = job.spectrum + (int64_t)(c * K + k.rank) * R * 64 + k.me.lane;
    const float undo = job.undo[c].x;
    cluster_meet();               // all blocks are there, and their constants
    float scale;
    if constexpr (!GATED) scale = cluster_there_units<T, S>(k, x);
    else scale = cluster_there_products<T, S>(k, f, c, b, job.L);
    if constexpr (!GATED)
        if (const int next = row + job.ahead; next < job.D * job.B)
            cluster_prefetch<T, S>(job.in, job.si, next / job.B, next % job.B, job.L, k.rank);
    cluster_outer<S, false>(k);
    __syncthreads();
    cluster_slots<S>(k, [&](hb_tile &z, const hb_inner &inner, int slot) {
        cluster_transform<S>(z, k, inner, slot);
        hb_times(z, spectrum + slot * 64, false, 1);
    });
    __syncthreads();
    cluster_outer<S, true>(k);
    if constexpr (!GATED) cluster_leave_units<T, S>(k, job, f.u, c, b, undo / scale);
    else cluster_leave_products<T, S>(k, job, f.post, c, b, undo / scale);
    cluster_meet();               // nobody leaves while others read what it has
}
#endif
