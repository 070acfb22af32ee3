// f32_fft.cuh: float32 transforms of a few points in registers, of which the f32 kernels are made.
//
// Right angle as a tree: x(z) mod z^N - i, taken apart by
//     z^2m - w^2 = (z^m - w)(z^m + w):   (a, b) -> (a + w b, a - w b),   a + z^m b in front
// down to single points (f32_split). One w serves a whole block, whatever the position in it, so
// the first levels have constants and nothing is twisted. What comes out is in bit-reversed order;
// the way back (f32_merge) starts from there and is a plain transform, decimated in time, whose
// twiddles depend on the position and not on the block; at its end y_n takes its share of the
// right angle, e^{-i pi n / 2N}. All butterflies are 6 FMA: (a + w b, 2 a - (a + w b)).
// On the way back everything is conjugated (from the product of the spectra on), so that one set of
// constants, all of them e^{+i ..}, serves both.
//
// A root: the level l of a tree (1, 2, ..) has w = t_l e^{2 pi i q / 2^l}, q < 2^(l-1). Going there
// t_l = e^{i A / 2^l} for the block z^n - e^{i A}, q the bit-reversed number of the block; going
// back t_l = e^{2 pi i p / (2^l s)} for position p of blocks of s points, q s added to it.
#ifndef HB_FUSED_F32_FFT_CUH
#define HB_FUSED_F32_FFT_CUH

#include "mma.cuh"

// --- constants ---------------------------------------------------------------------------------
// Cosine at compile time, |x| <= 2 pi, by its series: 1e-13.
constexpr double f32_cosine(double x)
{
    double term = 1, sum = 1;
    for (int k = 1; k < 25; k++) {
        term *= -x * x / (double)((2 * k - 1) * (2 * k));
        sum += term;
    }
    return sum;
}

// e^{i pi K / 192}: 64ths of a half turn for powers of two, 3rds of them for 3 times such.
template <int K> struct f32_unit {
    static constexpr float x = (float)f32_cosine(M_PI * K / 192);
    static constexpr float y = (float)f32_cosine(M_PI * (K - 96) / 192);
};
enum { F32_TURN = 384, F32_RIGHT = 96 };       // a whole turn, a right angle

__device__ __forceinline__ float2 f32_times(float2 a, float x, float y)
{
    return make_float2(fmaf(a.x, x, -a.y * y), fmaf(a.x, y, a.y * x));
}

template <int K> __device__ __forceinline__ float2 f32_turned(float2 a)
{
    if constexpr (K == 0) return a;
    else if constexpr (K == F32_RIGHT) return make_float2(-a.y, a.x);
    else return f32_times(a, f32_unit<K>::x, f32_unit<K>::y);
}

// --- butterflies -------------------------------------------------------------------------------
// Twiddles: one known at compile time, and any.
template <int K> struct f32_known {};
struct f32_any { float2 w; };

template <int K> __device__ __forceinline__ f32_known<K + F32_RIGHT> f32_by_i(f32_known<K>)
{
    return {};
}

__device__ __forceinline__ f32_any f32_by_i(f32_any v)
{
    return { make_float2(-v.w.y, v.w.x) };
}

// (a, b) = (a + w b, a - w b)
__device__ __forceinline__ void f32_pair(float2 &a, float2 &b, float x, float y)
{
    const float re = fmaf(x, b.x, fmaf(-y, b.y, a.x)), im = fmaf(x, b.y, fmaf(y, b.x, a.y));
    b = make_float2(fmaf(2, a.x, -re), fmaf(2, a.y, -im));
    a = make_float2(re, im);
}

__device__ __forceinline__ void f32_pair(float2 &a, float2 &b, f32_any v)
{
    f32_pair(a, b, v.w.x, v.w.y);
}

template <int K> __device__ __forceinline__ void f32_pair(float2 &a, float2 &b, f32_known<K>)
{
    if constexpr (K == 0 || K == F32_RIGHT) {
        const float2 c = f32_turned<K>(b);
        b = make_float2(a.x - c.x, a.y - c.y);
        a = make_float2(a.x + c.x, a.y + c.y);
    } else {
        f32_pair(a, b, f32_unit<K>::x, f32_unit<K>::y);
    }
}

// Roots: of angle pi A / 192, known; and by its powers t[l - 1] = t_l.
template <int A> struct f32_root {
    template <int L, int Q> __device__ f32_known<(A >> L) + (F32_TURN * Q >> L)> at() const
    {
        return {};
    }
};

template <int LOG> struct f32_powers {
    float2 t[LOG ? LOG : 1];
    template <int L, int Q> __device__ f32_any at() const
    {
        return { f32_turned<(F32_TURN * Q >> L)>(t[L - 1]) };
    }
};

__host__ __device__ constexpr int f32_log(int n) { return n < 2 ? 0 : 1 + f32_log(n / 2); }

// The lowest `bits` bits of q, the other way round.
__host__ __device__ constexpr int f32_reversed(int q, int bits)
{
    return bits ? (q % 2) << (bits - 1) | f32_reversed(q / 2, bits - 1) : 0;
}

// Levels L, L + 1, .. of R points z[from] .. of a block with root w. The twiddles of blocks 2 j and
// 2 j + 1 of a level differ by a factor i.
template <int R, int L, int Q, class W, int M>
__device__ __forceinline__ void f32_split(float2 (&z)[M], const W &w, int from = 0)
{
    constexpr int twiddles = L > 2 ? 1 << (L - 2) : 1;       // and as many times i
    if constexpr (1 << L <= R) {
        constexpr int span = R >> L, j = f32_reversed(Q, L - 1);
        const auto v = w.template at<L, Q>();
#pragma unroll
        for (int i = 0; i < span; i++) {
            float2 *const a = z + from + 2 * j * span + i;
            f32_pair(a[0], a[span], v);
            if constexpr (L > 1) f32_pair(a[2 * span], a[3 * span], f32_by_i(v));
        }
        if constexpr (Q + 1 < twiddles) f32_split<R, L, Q + 1>(z, w, from);
        else f32_split<R, L + 1, 0>(z, w, from);
    }
}

// And back: from R blocks, in the order that f32_split leaves them, one point each at a position.
template <int R, int L, int Q, class W, int M>
__device__ __forceinline__ void f32_merge(float2 (&z)[M], const W &w, int from = 0)
{
    constexpr int twiddles = L > 2 ? 1 << (L - 2) : 1;
    if constexpr (1 << L <= R) {
        constexpr int span = 1 << (L - 1);
        const auto v = w.template at<L, Q>();
#pragma unroll
        for (int i = 0; i < R; i += 2 * span) {
            float2 *const a = z + from + i + Q;
            f32_pair(a[0], a[span], v);
            if constexpr (L > 1) f32_pair(a[span / 2], a[span / 2 + span], f32_by_i(v));
        }
        if constexpr (Q + 1 < twiddles) f32_merge<R, L, Q + 1>(z, w, from);
        else f32_merge<R, L + 1, 0>(z, w, from);
    }
}

// The whole tree of z^N - i over R real samples.
template <int R>
__device__ __forceinline__ void f32_split_real(float2 (&z)[R], const float (&x)[R])
{
    constexpr float w = f32_unit<F32_RIGHT / 2>::x;                      // sqrt(1/2)
#pragma unroll
    for (int i = 0; i < R / 2; i++) {
        const float c = w * x[i + R / 2];
        z[i] = make_float2(x[i] + c, c);
        z[i + R / 2] = make_float2(x[i] - c, -c);
    }
    f32_split<R, 2, 0>(z, f32_root<F32_RIGHT>());
}

// Re e^{i pi a / 2R} c z[a] for all a < R.
template <int R, int A = 0>
__device__ __forceinline__ void f32_untwist(float (&y)[R], const float2 (&z)[R], float2 c)
{
    if constexpr (A < R) {
        const float2 v = f32_turned<F32_RIGHT * A / R>(c);
        y[A] = fmaf(v.x, z[A].x, -v.y * z[A].y);
        f32_untwist<R, A + 1>(y, z, c);
    }
}

// --- tables ------------------------------------------------------------------------------------
// float4 that n twiddles take, and those of a point that has LOG of them.
__host__ __device__ constexpr int f32_quads(int n) { return (n + 1) / 2; }

template <int LOG>
__device__ __forceinline__ f32_powers<LOG> f32_read(const float4 *at)
{
    f32_powers<LOG> w;
#pragma unroll
    for (int l = 0; l < LOG; l += 2) {
        const float4 v = __ldg(at + l / 2);
        w.t[l] = make_float2(v.x, v.y);
        if (l + 1 < LOG) w.t[l + 1] = make_float2(v.z, v.w);
    }
    return w;
}

// The angle of block b of 2^bits into which z^N - e^{i angle} has been split.
static inline double f32_angle(double angle, int b, int bits)
{
    return (angle + 2 * M_PI * f32_reversed(b, bits)) / (double)(1 << bits);
}

static inline void f32_write(float2 *at, double angle)
{
    *at = make_float2((float)cos(angle), (float)sin(angle));
}
#endif
