// signals.cuh: signals in device memory, four neighbours a lane: as they are, or as the product of
// two that each have hyena's short filter (hb.h, hb_conv_gates), and the way back through those.
//     v[t] = tap(a)[n + t] tap(b)[n + t],   tap(p)[t] = bs + sum_j w[j] (p[t - 2 + j] + bp)
// Method    All is float32 between load and store. The filter of a channel is eight floats in
//           shared memory (a broadcast to read); one that is absent is (0, 0, 1). A window of six
//           samples is 8 + 4 bytes where rows are 8-byte aligned, else read one by one.
// Cost      a sample and factor: about 8 instructions; device memory 2 bytes (neighbours: L1).
// Limits    HB_TAPS taps; shorter filters have zeros in front.
#ifndef HB_FUSED_SIGNALS_CUH
#define HB_FUSED_SIGNALS_CUH

#include "mma.cuh"

enum { HB_TAPS = 3 };
template <class T> constexpr bool HB_IS_HALF = false;
template <> constexpr bool HB_IS_HALF<__half> = true;

// --- rows in device memory ----------------------------------------------------------------------
// All rows of a signal are 8-byte aligned, and so is their end.
template <class T>
__device__ __forceinline__ bool hb_even(const void *x, struct hb_strides s, int L)
{
    return (((uintptr_t)x | (uintptr_t)s.b * sizeof(T) | (uintptr_t)s.c * sizeof(T)) & 7) == 0
        && L % 4 == 0;
}

// Four halves of the eight in lo, hi, from the one at `off` = 0 .. 3 on.
__device__ __forceinline__ uint2 hb_shifted(uint2 lo, uint2 hi, int off)
{
    const bool far = off & 2;
    const uint32_t w[3] = { far ? lo.y : lo.x, far ? hi.x : lo.y, far ? hi.y : hi.x };
    const uint32_t by = off & 1 ? 0x5432 : 0x3210;
    return make_uint2(__byte_perm(w[0], w[1], by), __byte_perm(w[1], w[2], by));
}

// Elements of a row before the boundary of 8 bytes below it.
__device__ __forceinline__ int hb_below(const void *row) { return (int)((uintptr_t)row >> 1 & 3); }

// Four halves from `off` = 0 .. 3 after a boundary of 8 bytes on: of the 8 bytes a there (off 2, 3:
// after the next one), and of the pair b behind them (before them).
__device__ __forceinline__ uint2 hb_of_words(uint2 a, uint32_t b, int off)
{
    const bool far = off & 2;
    const uint32_t by = off == 0 ? 0x3210 : off == 1 ? 0x5432 : off == 2 ? 0x7654 : 0x1076;
    return make_uint2(__byte_perm(a.x, far ? b : a.y, by), __byte_perm(a.y, far ? a.x : b, by));
}

// Four neighbours n .. n+3 of a row as bits (n a multiple of 4), one by one; 0 from L on.
template <class T> __device__ __forceinline__ uint2 hb_load4_each(const T *row, int n, int L)
{
    uint32_t v[4];
#pragma unroll
    for (int t = 0; t < 4; t++) v[t] = n + t < L ? ((const unsigned short *)row)[n + t] : 0;
    return make_uint2(v[0] | v[1] << 16, v[2] | v[3] << 16);
}

// The same at once. `vec`: the row is 8-byte aligned. If it is not, they are in two words of 8
// bytes: where these are within the row or have its first element, they are read whole.
template <class T>
__device__ __forceinline__ uint2 hb_load4(const T *row, int n, int L, bool vec)
{
    if (vec && n + 4 <= L) return *(const uint2 *)(row + n);
    if (!vec && n + 8 <= L) {
        const int off = hb_below(row);
        const uint2 *const at = (const uint2 *)(row + n - off);
        return hb_shifted(at[0], at[1], off);
    }
    return hb_load4_each(row, n, L);
}

// Four neighbours n .. of a row of floats, one by one; 0 from L on.
__device__ __forceinline__ float4 hb_load4_floats(const float *row, int n, int L)
{
    float v[4];
#pragma unroll
    for (int t = 0; t < 4; t++) v[t] = n + t < L ? row[n + t] : 0.0f;
    return make_float4(v[0], v[1], v[2], v[3]);
}

// Four floats of the eight in lo, hi, from the one at `off` = 0 .. 3 on.
__device__ __forceinline__ float4 hb_shifted(float4 lo, float4 hi, int off)
{
    const float w[8] = { lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w };
    float v[5];
#pragma unroll
    for (int i = 0; i < 5; i++) v[i] = off & 2 ? w[i + 2] : w[i];
    const bool one = off & 1;
    return make_float4(one ? v[1] : v[0], one ? v[2] : v[1], one ? v[3] : v[2], one ? v[4] : v[3]);
}

// x[j], j < COUNT: four neighbours of rows of floats, n[j] .. of row[j]; 0 from L on, and where
// !is[j]. EVEN: all rows begin and end on 16 bytes. No branches between the loads; what the
// end of a row cuts comes afterwards.
template <bool EVEN, int COUNT>
__device__ __forceinline__ void hb_read_floats(float4 (&x)[COUNT], const float *const (&row)[COUNT],
                                               const int (&n)[COUNT], const bool (&is)[COUNT],
                                               int L)
{
    float4 more[COUNT];
#pragma unroll
    for (int j = 0; j < COUNT; j++) {
        x[j] = more[j] = make_float4(0, 0, 0, 0);
        const int from = n[j] - (EVEN ? 0 : (int)((uintptr_t)row[j] >> 2 & 3));
        const float4 *const at = (const float4 *)(row[j] + from);
        if (is[j] && from + 4 <= L) x[j] = at[0];
        if (!EVEN && is[j] && from + 8 <= L) more[j] = at[1];
    }
    if constexpr (!EVEN) {
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            const int off = (int)((uintptr_t)row[j] >> 2 & 3);
            x[j] = hb_shifted(x[j], more[j], off);
            if (is[j] && n[j] < L && n[j] - off + 8 > L) x[j] = hb_load4_floats(row[j], n[j], L);
        }
    }
}

// Two floats as a pair of T, the first one low.
template <class T> __device__ __forceinline__ uint32_t hb_pair_of(float lo, float hi)
{
    if constexpr (HB_IS_HALF<T>) return hb_pack(lo, hi);
    alignas(4) T x[2] = { hb_store<T>(lo), hb_store<T>(hi) };
    return *(const uint32_t *)x;
}

template <class T> __device__ __forceinline__ uint2 hb_four_of(const float (&v)[4])
{
    return make_uint2(hb_pair_of<T>(v[0], v[1]), hb_pair_of<T>(v[2], v[3]));
}

template <class T>
__device__ __forceinline__ void hb_store4(T *row, int n, int L, bool vec, const float (&v)[4])
{
    if (vec && n + 4 <= L) {
        *(uint2 *)(row + n) = hb_four_of<T>(v);
    } else {
#pragma unroll
        for (int t = 0; t < 4; t++)
            if (n + t < L) row[n + t] = hb_store<T>(v[t]);
    }
}

// `count` of the four halves of x, one by one.
__device__ __forceinline__ void hb_store_some(unsigned short *to, uint2 x, int count)
{
#pragma unroll
    for (int t = 0; t < 4; t++)
        if (t < count) to[t] = (unsigned short)((t < 2 ? x.x : x.y) >> 16 * (t % 2));
}

// How four lanes (q = 0 .. 3) store the results they have at 16 e + 4 q .. + 3 of 32 neighbours,
// whose first lies on any 2-byte boundary: in aligned words of 8 bytes, which begin 0 .. 2 behind
// a lane's four or (back) 1 before it, with what these lack from the lane beside; what is left at
// both ends goes as a pair and a single one. The same for all rows that lie alike.
struct hb_run {
    int from, at;              // lane beside; where words begin, from the lane's first on
    int pair, single;          // where these begin, from the first of the 32 on
    uint32_t word_by, pair_by, single_by;        // __byte_perm
    bool back, first, here[2], has_pair, has_single;
};

__device__ __forceinline__ hb_run hb_run_of(const void *row, int q)
{
    const int s = -(int)((uintptr_t)row >> 1) & 3;       // before the first aligned word
    const bool first = q == 0, last = q == 3, back = s == 3, short_end = s == 1 || s == 2;
    hb_run run = { (int)(threadIdx.x & 28) | ((q + (back ? 3 : 1)) & 3), back ? -1 : s,
                   first ? s - 2 : 28 + s, first ? 0 : 31,
                   s == 0 ? 0x3210u : s == 1 ? 0x5432u : s == 2 ? 0x7654u : 0x1076u,
                   s != 2 ? 0x5432u : first ? 0x3210u : 0x7654u, first ? 0x3210u : 0x5476u,
                   back, first, { !(back && first), !(short_end && last) },
                   (first && s >= 2) || (last && short_end), (first || last) && (s & 1) };
    // Registers of their own: they are not made again for each use.
    asm volatile("" : "+r"(run.from), "+r"(run.at), "+r"(run.pair), "+r"(run.word_by),
                      "+r"(run.pair_by));
    return run;
}

// row: at the first of 32, of which `left` are there; where not all are, they go one by one. All
// lanes of a warp call it.
template <class T>
__device__ __forceinline__ void hb_store_run(const hb_run &run, T *row, int left,
                                             const float (&v)[2][4], int q)
{
    const uint2 x[2] = { hb_four_of<T>(v[0]), hb_four_of<T>(v[1]) };
    unsigned short *const to = (unsigned short *)row;
    // The neighbour of four 3 of the first 16 is four 0 of the others.
    const uint32_t give[2] = { run.back ? x[0].y : run.first ? x[1].x : x[0].x,
                               !run.back ? x[1].x : q == 3 ? x[0].y : x[1].y };
    uint2 word[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const uint32_t beside = __shfl_sync(~0u, give[e], run.from);
        word[e] = make_uint2(__byte_perm(x[e].x, run.back ? beside : x[e].y, run.word_by),
                             __byte_perm(x[e].y, run.back ? x[e].x : beside, run.word_by));
    }
    if (left < 32) {
#pragma unroll
        for (int e = 0; e < 2; e++)
            hb_store_some(to + 16 * e + 4 * q, x[e], left - 16 * e - 4 * q);
        return;
    }
    const uint2 end = run.first ? x[0] : x[1];
#pragma unroll
    for (int e = 0; e < 2; e++)
        if (run.here[e])
            *(uint64_t *)(to + 16 * e + 4 * q + run.at) = (uint64_t)word[e].y << 32 | word[e].x;
    if (run.has_pair) *(uint32_t *)(to + run.pair) = __byte_perm(end.x, end.y, run.pair_by);
    if (run.has_single)
        to[run.single] = (unsigned short)__byte_perm(end.x, end.y, run.single_by);
}

// Larger of m and the two magnitudes of a pair, as bits in the upper half.
__device__ __forceinline__ uint32_t hb_larger(uint32_t m, uint32_t w)
{
    return max(m, max(w & 0x7fff0000u, w << 16 & 0x7fff0000u));
}

// Bits of hb_larger to float; of float: its own.
template <class T> __device__ __forceinline__ float hb_magnitude(uint32_t m)
{
    if constexpr (HB_IS_HALF<T>) return hb_unpack(m).y;
    else return __uint_as_float(m);
}

// A pair of T to floats.
template <class T> __device__ __forceinline__ float2 hb_two(uint32_t w)
{
    if constexpr (HB_IS_HALF<T>) return hb_unpack(w);
    else return make_float2(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u));
}

// A pair of T to halves, times scale where T is bf16 (f16 is scaled after the product).
template <class T> __device__ __forceinline__ uint32_t hb_halves(uint32_t w, float scale)
{
    if constexpr (HB_IS_HALF<T>) return w;
    const float2 x = hb_two<T>(w);
    return hb_pack(x.x * scale, x.y * scale);
}

// Products of two pairs of T, added.
template <class T> __device__ __forceinline__ float hb_product(uint32_t a, uint32_t b)
{
    const float2 x = hb_two<T>(a), y = hb_two<T>(b);
    return x.x * y.x + x.y * y.y;
}

// --- short filters and gates --------------------------------------------------------------------
// One filter of one channel; base: bs and bp through all taps, edge[t]: how much of that is not
// there at t = 0, 1.
struct alignas(16) hb_taps { float w[3], base, edge[2], bias, unused; };

// K taps or none at all (f.w NULL).
__device__ __forceinline__ void hb_taps_init(hb_taps &k, const struct hb_conv_tap &f, int64_t c,
                                             int K)
{
    float w[3] = { 0, 0, 1 }, bias = 0, base = 0;
    if (f.w) {                    // all that is read before any of it is used
        bias = f.bp ? f.bp[c] : 0;
        base = f.bs[c];
#pragma unroll
        for (int j = 0; j < 3; j++) w[2 - j] = j < K ? f.w[c * K + K - 1 - j] : 0;
    }
    k = { { w[0], w[1], w[2] }, base + (w[0] + w[1] + w[2]) * bias,
          { (w[0] + w[1]) * bias, w[0] * bias }, bias, 0 };
}

// Of all rows: signal and filter. x NULL: 1 everywhere.
struct hb_factor { const void *x; struct hb_strides s; const hb_taps *k; };

template <class T>
__device__ __forceinline__ const T *hb_row_at(const hb_factor &f, int64_t c, int64_t b)
{
    return (const T *)f.x + c * f.s.c + b * f.s.b;
}

// Pairs (row[n - 2 + 2 i], the next one) as bits, 0 outside of [0, L); COUNT = 3 or 4. n is a
// multiple of 4.
template <class T, int COUNT>
__device__ __forceinline__ void hb_window_words(uint32_t (&w)[COUNT], const T *row, int n, int L)
{
    if (((uintptr_t)row & 7) == 0 && n + 2 * COUNT - 2 <= L) {
        const uint2 v = *(const uint2 *)(row + n);
        w[0] = n ? *(const uint32_t *)(row + n - 2) : 0;
        w[1] = v.x;
        w[2] = v.y;
        if constexpr (COUNT == 4) w[3] = *(const uint32_t *)(row + n + 4);
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const int t = n - 2 + 2 * i;
            const unsigned short *const at = (const unsigned short *)row + t;
            w[i] = t >= 0 && t < L ? at[0] : 0;
            if (t >= 0 && t + 1 < L) w[i] |= (uint32_t)at[1] << 16;
        }
    }
}

template <class T, int N>
__device__ __forceinline__ void hb_window_floats(float (&x)[N], const uint32_t (&w)[N / 2])
{
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        const float2 v = hb_two<T>(w[i]);
        x[2 * i] = v.x;
        x[2 * i + 1] = v.y;
    }
}

// x[i] = row[n - 2 + i], 0 outside of [0, L); N = 6 or 8. n is a multiple of 4.
template <class T, int N>
__device__ __forceinline__ void hb_window(float (&x)[N], const T *row, int n, int L)
{
    uint32_t w[N / 2];
    hb_window_words<T, N / 2>(w, row, n, L);
    hb_window_floats<T>(x, w);
}

// v[t] = the filter at n + t of the window x.
template <int COUNT, int N>
__device__ __forceinline__ void hb_filter(float (&v)[COUNT], const float (&x)[N], const hb_taps &k,
                                          int n)
{
#pragma unroll
    for (int t = 0; t < COUNT; t++)
        v[t] = k.base + k.w[0] * x[t] + k.w[1] * x[t + 1] + k.w[2] * x[t + 2];
    if (n) return;
    v[0] -= k.edge[0];
    v[1] -= k.edge[1];
}

// v *= tap(f) at n .. n+3, or = where `first`; from the window's words. Anything from L on.
template <class T, bool FIRST>
__device__ __forceinline__ void hb_by_words(float (&v)[4], const uint32_t (&w)[3], const hb_taps &k,
                                            int n)
{
    float x[6], y[4];
    hb_window_floats<T>(x, w);
    hb_filter(y, x, k, n);
#pragma unroll
    for (int t = 0; t < 4; t++) v[t] = FIRST ? y[t] : v[t] * y[t];
}

// The same from the signal.
template <class T, bool FIRST>
__device__ __forceinline__ void hb_by_factor(float (&v)[4], const hb_factor &f, int64_t c,
                                             int64_t b, int n, int L)
{
    uint32_t w[3];
    hb_window_words<T, 3>(w, hb_row_at<T>(f, c, b), n, L);
    hb_by_words<T, FIRST>(v, w, *f.k, n);
}

// Windows of COUNT places at once, at(j, row, n): the row and the place of the j-th, n < 0 where
// there is none (words 0). Even loads are predicated, no branches: all of them are under way.
template <class T, int COUNT, class AT>
__device__ __forceinline__ void hb_windows(uint32_t (&w)[COUNT][3], const hb_factor &f, int64_t c,
                                           int L, AT at)
{
    const bool even = hb_even<T>(f.x, f.s, L);
#pragma unroll
    for (int j = 0; j < COUNT; j++) w[j][0] = w[j][1] = w[j][2] = 0;
    if (even) {
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            int row, n;
            at(j, row, n);
            const T *const from = hb_row_at<T>(f, c, row) + n;
            const bool is = n >= 0 && n < L;
            uint2 v = make_uint2(0, 0);
            if (is && n) w[j][0] = *(const uint32_t *)(from - 2);
            if (is) v = *(const uint2 *)from;
            w[j][1] = v.x;
            w[j][2] = v.y;
        }
    } else {
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            int row, n;
            at(j, row, n);
            if (n >= 0 && n < L)
                hb_window_words<T, 3>(w[j], hb_row_at<T>(f, c, row), n, L);
        }
    }
}

// v = tap(f) tap(g) at n .. n+3, 0 from L on.
template <class T>
__device__ __forceinline__ void hb_product4(float (&v)[4], const hb_factor &f, const hb_factor &g,
                                            int64_t c, int64_t b, int n, int L)
{
#pragma unroll
    for (int t = 0; t < 4; t++) v[t] = 0;
    if (n >= L) return;
    hb_by_factor<T, true>(v, f, c, b, n, L);
    if (g.x) hb_by_factor<T, false>(v, g, c, b, n, L);
#pragma unroll
    for (int t = 0; t < 4; t++)
        if (n + t >= L) v[t] = 0;
}

// Sums for the gradients of one filter: dw, dbs, dbp.
struct hb_tap_sums { float w[3], bs, bp; };

// The way back: e[i] = gradient of tap(p) at n + i, 0 from L on; x: the window of p. dp[n..n+3] =
// ..., sums += ...
template <class T, int N>
__device__ __forceinline__ void hb_filter_back(T *dp, hb_tap_sums &sum, const float (&e)[6],
                                               const float (&x)[N], const hb_taps &k, int n, int L)
{
    float d[4];
#pragma unroll
    for (int t = 0; t < 4; t++) {
        d[t] = k.w[2] * e[t] + k.w[1] * e[t + 1] + k.w[0] * e[t + 2];
#pragma unroll
        for (int j = 0; j < 3; j++)
            if (n + t + j >= 2) sum.w[j] += e[t] * (x[t + j] + k.bias);
        sum.bs += e[t];
        sum.bp += d[t];
    }
    hb_store4(dp, n, L, ((uintptr_t)dp & 7) == 0, d);
}

// A channel's sums to the filter's gradients. K taps.
__device__ __forceinline__ void hb_tap_gradients(const struct hb_conv_tap &f, const float *sum,
                                                 int64_t c, int K)
{
    if (!f.w) return;
    for (int j = 0; j < K; j++) f.dw[c * K + j] += sum[3 - K + j];
    f.dbs[c] += sum[3];
    if (f.bp) f.dbp[c] += sum[4];
}

#endif
