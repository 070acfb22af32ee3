// cluster_units.cuh: 16-bit signals into the planes of a cluster and out of them, with the DFT of K
// (cluster.cuh) by mma, CUDA.
#ifndef HB_FUSED_CLUSTER_UNITS_CUH
#define HB_FUSED_CLUSTER_UNITS_CUH

#include "cluster.cuh"

// Asks for this block's share of a row to be brought to L2: a thread a line of 128 bytes. x NULL:
// there is none.
template <class T, class S>
__device__ __forceinline__ void cluster_prefetch(const void *x, struct hb_strides s, int64_t c,
                                                 int64_t b, int L, int rank)
{
    constexpr int K = S::K, R = S::R;
    constexpr int EACH = 128 / (int)sizeof(T), LINES = R * 256 / EACH;   // all K segments'
    constexpr int OF_ONE = LINES / K;
    const T *const row = (const T *)x + c * s.c + b * s.b;
    for (int i = threadIdx.x; x && i < LINES; i += S::THREADS) {
        const int n = i / OF_ONE * R * 256 + rank * (R / K) * 256 + i % OF_ONE * EACH;
        if (n < L) hb_prefetch_line(row + n);
    }
}

// --- the DFT of K by mma -------------------------------------------------------------------------
// A unit is 64 columns of one row of planes, of all segments: one warp's. Of segments (planes)
// 2q, 2q+1, 2q+8, 2q+9 a lane has columns 8g .. 8g+7, 16 bytes each: tile t = 0..3 of 16 columns
// has rows g: 8g + t and g + 8: 8g + t + 4, and puts and gets of a warp are 128 bytes a block.
// There A = samples, B = constants e^{-2 pi i a (j - 1/4) / K}; back A = what planes have, B the
// same transposed. A constant is the sum of two halves: where K = 8, the second one is in the rows
// that 8 segments leave free. K = 4: a lane has segment (plane) q alone, and 8 columns of A do.
template <int K> using cluster_part = cluster_words<__half, 8>[K / 4];

// What samples are times as they go in; the constants undo it. So what is 2^-24 of the largest is
// normal.
constexpr float CLUSTER_IN = 1024;

// Segment or plane s of a lane.
template <int K> __device__ __forceinline__ int cluster_segment(int s, hb_lane me)
{
    return K == 4 ? me.q : 2 * me.q + s % 2 + s / 2 * 8;
}

// The row of planes of a unit, and this lane's first column.
template <class S>
__device__ __forceinline__ void cluster_lane_place(int &p, int &column, int unit,
                                                   const cluster_block &k)
{
    p = k.rank * (S::R / S::K) + (unit >> 2);
    column = (unit & 3) * 64 + 8 * k.me.g;
}

// Places of this lane's samples of a unit, n: of segments from 2q on.
template <class S>
__device__ __forceinline__ void cluster_lane_samples(int (&n)[S::K / 4], int unit,
                                                     const cluster_block &k)
{
    int p, column;
    cluster_lane_place<S>(p, column, unit, k);
#pragma unroll
    for (int s = 0; s < S::K / 4; s++)
        n[s] = (cluster_segment<S::K>(s, k.me) * S::R + p) * 256 + column;
}

// e^{-2 pi i (a + m / Q)(j - 1/4) / K}, (a + 1)(4 j + 1) Q < 2^31.
template <class S> __device__ __forceinline__ float2 cluster_factor(int a, int j, int m)
{
    constexpr int n = 4 * S::K * S::Q;
    return hb_unit((a * S::Q + m) * (4 * j - 1) % n, n);
}

// Two neighbours in k of one constant, real or imaginary part: as half, and what is missing. There,
// or back for rows from p = 16 of on (of is 0 on the way there).
template <class S>
__device__ __forceinline__ void cluster_constant(uint32_t &high, uint32_t &low, bool back, int of,
                                                 bool imaginary, int n, int m)
{
    constexpr int K = S::K;
    float x[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int a = back ? n : m + i, j = back ? m + i : n;
        const float2 e = cluster_factor<S>(a, j, of);
        x[i] = (imaginary ? e.y : e.x) * (back ? 1 : CLUSTER_TOP / K / CLUSTER_IN);
    }
    high = hb_pack(x[0], x[1]);
    const float2 v = hb_unpack(high);
    low = hb_pack(x[0] - v.x, x[1] - v.y);
}

// As hb_mma, for the first 8 columns of A.
__device__ __forceinline__ void cluster_mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(b));
}

// B of K = 4. There, rows: segment q, high and low half of the constant; columns: block g / 2, real
// or imaginary part. Back, rows: block q, real and imaginary; columns: segment g / 2, high or low.
template <class S>
__device__ __forceinline__ uint32_t cluster_four(bool back, int of, hb_lane me)
{
    const int a = back ? me.g / 2 : me.q, j = back ? me.q : me.g / 2;
    const float2 e = cluster_factor<S>(a, j, of);
    if (back) {
        const float2 high = hb_unpack(hb_pack(e.x, e.y));
        return me.g % 2 ? hb_pack(e.x - high.x, e.y - high.y) : hb_pack(e.x, e.y);
    }
    const float x = (me.g % 2 ? e.y : e.x) * (CLUSTER_TOP / 4 / CLUSTER_IN);
    return hb_pack(x, x - hb_unpack(hb_pack(x, 0)).x);
}

// m = p / 16 of a block's first row.
template <class S> __device__ __forceinline__ int cluster_first_m(const cluster_block &k)
{
    return k.rank * (S::R / S::K) / 16;
}

// Fragments of B: there, then back, for each m of this block. K = 8: real high, low, imaginary
// high, low; K = 16: [columns 8 ..][imaginary] high (rows 2q, 2q+8), low.
template <class S> __device__ __forceinline__ void cluster_dft_init(const cluster_block &k)
{
    constexpr int K = S::K, COUNT = CLUSTER_DFT_FRAGMENTS<K>;
    for (int i = k.warp; i < (1 + CLUSTER_DFT_BACK<S::R>) * COUNT; i += S::WARPS) {
        uint4 v;
        const bool back = i >= COUNT;
        const int of = back ? cluster_first_m<S>(k) + i / COUNT - 1 : 0;
        const int f = i % COUNT, n = k.me.g + f / 2 * 8, m = 2 * k.me.q;
        if constexpr (K == 4) {
            v = make_uint4(cluster_four<S>(back, of, k.me), 0, 0, 0);
        } else if constexpr (K == 8) {
            cluster_constant<S>(v.x, v.y, back, of, false, n, m);
            cluster_constant<S>(v.z, v.w, back, of, true, n, m);
        } else {
            cluster_constant<S>(v.x, v.z, back, of, f % 2, n, m);
            cluster_constant<S>(v.y, v.w, back, of, f % 2, n, m + 8);
        }
        k.dft[32 * i + k.me.lane] = v;
    }
}

// Those of the way back of a unit, of this lane.
template <class S>
__device__ __forceinline__ const uint4 *cluster_dft_back(const cluster_block &k, int unit)
{
    int m = 0, p, column;
    cluster_lane_place<S>(p, column, unit, k);
    if (CLUSTER_DFT_BACK<S::R> > 1) m = p / 16 - cluster_first_m<S>(k);
    return k.dft + 32 * CLUSTER_DFT_FRAGMENTS<S::K> * (1 + m) + k.me.lane;
}

// Of tile t a pair of neighbours in k, in rows g and g + 8, from words of the two.
__device__ __forceinline__ void cluster_pairs(uint32_t &up, uint32_t &down, const uint32_t (&x)[4],
                                              const uint32_t (&y)[4], int t)
{
    const int w = t / 2;
    up = t % 2 ? hb_high(x[w], y[w]) : hb_low(x[w], y[w]);
    down = t % 2 ? hb_high(x[w + 2], y[w + 2]) : hb_low(x[w + 2], y[w + 2]);
}

// Two samples times scale, as halves; f16: scale is a power of two up to 2^15.
template <class T> __device__ __forceinline__ uint32_t cluster_scaled(uint32_t x, float scale)
{
    if constexpr (HB_IS_HALF<T>) {
        const __half2 v = __hmul2(*(const __half2 *)&x, __floats2half2_rn(scale, scale));
        return *(const uint32_t *)&v;
    } else {
        const float2 v = hb_two<T>(x);
        return hb_pack(v.x * scale, v.y * scale);
    }
}

// Column e of sums: to block `to`; at: its place here.
template <int E>
__device__ __forceinline__ void cluster_send_part(const cluster_block &k, uint32_t at, int to,
                                                  const float (&c)[4][4])
{
    const uint32_t x[4] = { hb_pack(c[0][E], c[1][E]), hb_pack(c[2][E], c[3][E]),
                            hb_pack(c[0][2 + E], c[1][2 + E]), hb_pack(c[2][2 + E], c[3][2 + E]) };
    cluster_put(cluster_address(at, to), x, cluster_address(k.counts + 8 * CLUSTER_Z, to));
}

// One of the constants' fragments.
template <class S, int J, bool IMAGINARY>
__device__ __forceinline__ void cluster_send_some(const cluster_block &k, uint32_t at,
                                                  const uint32_t (&a)[4][4])
{
    const uint4 f = k.dft[32 * (S::K == 8 ? 0 : 2 * J + IMAGINARY) + k.me.lane];
    float c[4][4] = {};
#pragma unroll
    for (int t = 0; t < 4; t++) {
        if constexpr (S::K == 8) hb_mma(c[t], a[t], IMAGINARY ? f.z : f.x, IMAGINARY ? f.w : f.y);
        else hb_mma(c[t], a[t], f.x, f.y);
    }
#pragma unroll
    for (int t = 0; t < 4; t++)
        if constexpr (S::K == 16) hb_mma(c[t], a[t], f.z, f.w);
    const int to = 8 * J + 2 * k.me.q;
    cluster_send_part<0>(k, at + (IMAGINARY ? HB_PLANE<S::R> : 0), to, c);
    cluster_send_part<1>(k, at + (IMAGINARY ? HB_PLANE<S::R> : 0), to + 1, c);
}

// K = 4: v: this lane's 8 samples, scaled.
template <int R>
__device__ __forceinline__ void cluster_send_four(const cluster_block &k, uint32_t at,
                                                  const uint32_t (&v)[4])
{
    const uint32_t f = k.dft[k.me.lane].x;
    float c[4][4] = {};
#pragma unroll
    for (int t = 0; t < 4; t++) {
        uint32_t up, down;
        cluster_pairs(up, down, v, v, t);
        cluster_mma(c[t], up, down, f);
    }
    cluster_send_part<0>(k, at, k.me.q, c);
    cluster_send_part<1>(k, at + HB_PLANE<R>, k.me.q, c);
}

// A unit of a row of halves, times CLUSTER_TOP / K / CLUSTER_IN, by the DFT of K into the planes.
template <class S>
__device__ __forceinline__ void cluster_send_halves(const cluster_block &k,
                                                    const uint32_t (&v)[S::K / 4][4], int unit)
{
    constexpr int K = S::K;
    uint32_t a[4][4];
    int p, column;
    cluster_lane_place<S>(p, column, unit, k);
    const uint32_t at = hb_shared_address(k.planes) + cluster_at(cluster_row<S::R>(p), column >> 3);
    if constexpr (K == 4) {
        cluster_send_four<S::R>(k, at, v[0]);
    } else {
#pragma unroll
        for (int t = 0; t < 4; t++) {
            cluster_pairs(a[t][0], a[t][1], v[0], v[1], t);
            cluster_pairs(a[t][2], a[t][3], v[K / 4 - 2], v[K / 4 - 1], t);
        }
        cluster_send_some<S, 0, false>(k, at, a);
        cluster_send_some<S, 0, true>(k, at, a);
        if constexpr (K == 16) {
            cluster_send_some<S, 1, false>(k, at, a);
            cluster_send_some<S, 1, true>(k, at, a);
        }
    }
}

// The same of samples of either type, times scale.
template <class T, class S>
__device__ __forceinline__ void cluster_send_unit(const cluster_block &k,
                                                  const cluster_part<S::K> &x, int unit,
                                                  float scale)
{
    constexpr int K = S::K;
    uint32_t v[K / 4][4];
    const float some = HB_IS_HALF<T> ? fminf(scale, 0x1p15f) : scale;
#pragma unroll
    for (int i = 0; i < K; i++) v[i / 4][i % 4] = cluster_scaled<T>(x[i / 4].x[i % 4], some);
    if (scale > some)             // small samples: to 2^30
#pragma unroll
        for (int i = 0; i < K; i++)
            v[i / 4][i % 4] = cluster_scaled<T>(v[i / 4][i % 4], scale * hb_inverse(some));
    cluster_send_halves<S>(k, v, unit);
}

// K = 8 and 16: v from words x of planes, real and imaginary.
template <int K>
__device__ __forceinline__ void cluster_fetch_some(float (&v)[K / 4][8], const uint4 *dft,
                                                   const uint32_t (&x)[2][K / 4][4], float by)
{
    constexpr int PARTS = K / 4;
    float c[K / 8][4][4] = {};
#pragma unroll
    for (int part = 0; part < K / 8; part++)               // K = 16: real, imaginary
#pragma unroll
        for (int n = 0; n < K / 8; n++) {
            const uint4 f = dft[32 * (2 * n + part)];
#pragma unroll
            for (int t = 0; t < 4; t++) {
                uint32_t a[4];
                cluster_pairs(a[0], a[1], x[part][0], x[part][1], t);
                if constexpr (K == 8) cluster_pairs(a[2], a[3], x[1][0], x[1][1], t);
                else cluster_pairs(a[2], a[3], x[part][PARTS - 2], x[part][PARTS - 1], t);
                hb_mma(c[n][t], a, f.x, K == 8 ? f.z : f.y);
                hb_mma(c[n][t], a, K == 8 ? f.y : f.z, f.w);
            }
        }
#pragma unroll
    for (int s = 0; s < PARTS; s++)
#pragma unroll
        for (int t = 0; t < 4; t++) {
            v[s][t] = c[s / 2][t][s % 2] * by;
            v[s][t + 4] = c[s / 2][t][2 + s % 2] * by;
        }
}

// What planes have of a unit: x[real, imaginary][s], of segment s of this lane.
template <class S>
__device__ __forceinline__ void cluster_fetch_words(uint32_t (&x)[2][S::K / 4][4],
                                                    const cluster_block &k, int unit)
{
    int p, column;
    cluster_lane_place<S>(p, column, unit, k);
    const uint32_t at = hb_shared_address(k.planes) + cluster_at(cluster_row<S::R>(p), column >> 3);
#pragma unroll
    for (int s = 0; s < S::K / 4; s++) {
        const uint32_t there = cluster_address(at, cluster_segment<S::K>(s, k.me));
        cluster_get(x[0][s], there);
        cluster_get(x[1][s], there + HB_PLANE<S::R>);
    }
}

// The way back: of a unit v[s]: this lane's samples of segment s, times `by`.
template <class S>
__device__ __forceinline__ void cluster_back_unit(float (&v)[S::K / 4][8], const cluster_block &k,
                                                  const uint32_t (&x)[2][S::K / 4][4], int unit,
                                                  float by)
{
    const uint4 *const dft = cluster_dft_back<S>(k, unit);
    if constexpr (S::K == 4) {
        const uint32_t f = dft->x;
#pragma unroll
        for (int t = 0; t < 4; t++) {
            uint32_t up, down;
            float c[4] = {};
            cluster_pairs(up, down, x[0][0], x[1][0], t);
            cluster_mma(c, up, down, f);
            v[0][t] = (c[0] + c[1]) * by;
            v[0][t + 4] = (c[2] + c[3]) * by;
        }
    } else {
        cluster_fetch_some<S::K>(v, dft, x, by);
    }
}

// --- rows ----------------------------------------------------------------------------------------
template <class S> constexpr int CLUSTER_UNITS = (4 * S::R / S::K - 1) / S::WARPS + 1;  // of a warp

// Whether there is such a unit of a warp; no question where all warps have equally many.
template <class S> __device__ __forceinline__ bool cluster_is_unit(int unit)
{
    return 4 * S::R / S::K % S::WARPS == 0 || unit < 4 * S::R / S::K;
}

// This warp's units of a row; 0 from L on and beyond the last. EVEN: cluster_is_even.
template <bool EVEN, class S>
__device__ __forceinline__ void cluster_load_units(cluster_part<S::K> (&x)[CLUSTER_UNITS<S>],
                                                   const cluster_block &k, const __half *row, int L)
{
    const int first = cluster_anew(k.warp);
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++) {
        const int unit = first + m * S::WARPS;
        int n[S::K / 4];
        cluster_lane_samples<S>(n, unit, k);
        cluster_load_from<EVEN, __half, 8>(x[m], row, n, cluster_is_unit<S>(unit) ? L : 0);
    }
}

// The same of row b of channel c, of either 16-bit type.
template <class T, class S>
__device__ __forceinline__ void cluster_enter_units(cluster_part<S::K> (&x)[CLUSTER_UNITS<S>],
                                                    const cluster_block &k, const hb_factor &f,
                                                    int64_t c, int64_t b, int L)
{
    const __half *const row = (const __half *)hb_row_at<T>(f, c, b);
    if (cluster_is_even<__half, 8>(row, L)) cluster_load_units<true, S>(x, k, row, L);
    else cluster_load_units<false, S>(x, k, row, L);
}

// All of a row, times scale, to the planes, which may be read then.
template <class T, class S>
__device__ __forceinline__ void cluster_send_units(cluster_block &k,
                                                   const cluster_part<S::K> (&x)[CLUSTER_UNITS<S>],
                                                   float scale)
{
    const int first = cluster_anew(k.warp);
    cluster_expect_z<S>(k);
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++) {
        const int unit = first + m * S::WARPS;
        if (cluster_is_unit<S>(unit)) cluster_send_unit<T, S>(k, x[m], unit, scale);
    }
    cluster_await(k, CLUSTER_Z);  // planes hold z
}

// A unit of a row of results, + d x where `skip`, from words of the planes.
template <class T, class S>
__device__ __forceinline__ void cluster_leave_unit(const cluster_block &k, T *to, int L, int unit,
                                                   const uint32_t (&z)[2][S::K / 4][4], float by,
                                                   const cluster_part<S::K> &x, float d, bool skip)
{
    float v[S::K / 4][8];
    int n[S::K / 4];
    cluster_back_unit<S>(v, k, z, unit, by);
    cluster_lane_samples<S>(n, unit, k);
#pragma unroll
    for (int s = 0; s < S::K / 4; s++) {
#pragma unroll
        for (int w = 0; w < 4; w++) {
            if (!skip) break;
            const float2 u = hb_two<T>(x[s].x[w]);
            v[s][2 * w] += d * u.x;
            v[s][2 * w + 1] += d * u.y;
        }
        put_columns<T, 8>(to, n[s], L, v[s]);
    }
}

// Row b of du from the planes; dy for the skip term is asked for before they are there.
template <class T, class S>
__device__ __forceinline__ void cluster_leave_units(const cluster_block &k, const cluster_job &job,
                                                    const hb_factor &dy, int64_t c, int64_t b,
                                                    float by)
{
    cluster_part<S::K> x[CLUSTER_UNITS<S>];
    const float d = job.d ? job.d[c] : 0;
    if (job.d) cluster_enter_units<T, S>(x, k, dy, c, b, job.L);
    cluster_meet();               // planes hold w
    T *const to = (T *)job.out + c * job.so.c + b * job.so.b;
    const int first = cluster_anew(k.warp);
    constexpr int UNITS = CLUSTER_UNITS<S>, EACH = 16 / S::K;
#pragma unroll
    for (int m = 0; m < UNITS; m += EACH) {                // EACH units are under way at once
        uint32_t z[EACH][2][S::K / 4][4];
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (m + i < UNITS && cluster_is_unit<S>(first + (m + i) * S::WARPS))
                cluster_fetch_words<S>(z[i], k, first + (m + i) * S::WARPS);
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (m + i < UNITS && cluster_is_unit<S>(first + (m + i) * S::WARPS))
                cluster_leave_unit<T, S>(k, to, job.L, first + (m + i) * S::WARPS, z[i], by,
                                         x[m + i < UNITS ? m + i : 0], d, job.d);
    }
}
#endif
