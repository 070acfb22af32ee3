// mma.cuh: what the kernels of longconv_fused_cuda share: fragments, constants, turns, exponents.
//
// Right angle: W[k] = sum_n x[n] e^{-2 pi i n (k - 1/4) / N} is the transform of x twisted by
// e^{i pi n / 2N}. The product of two such, transformed back, is the causal convolution plus i
// times what wrapped around, so its real part is what we want and N >= L is enough.
//
// Outer step (for N = R 256 in one block and for R columns of N2 in three phases), n = a N2 + r,
// k = k1 + R k':
//     U[k1][r] = T(k1, r) sum_a G[k1][a] x[a N2 + r]
//     G[k][a]  = e^{-2 pi i (k - 1/4)(a - 1/4) / R}          symmetric: G serves the way back, too
//     T(k, r)  = e^{-2 pi i (k - 1/4)(r + N2 / 4) / N} / R       (hb_unit, in f32 on the sums)
// and back y[a N2 + r] = Re sum_k1 conj(G)[a][k1] conj(T)(k1, r) R V[k1][r]. Between the two each
// row k1 has a plain complex transform of length N2.
//
// What lies between outer step and rows is complex and half, in two planes: row k1 is N2 real
// parts, then N2 imaginary parts. In device memory (three phases): mid [row][k1][2][N2].
// Exponents: a row of the signal is scaled by the power of two that takes its largest |x| into
// (1/2, 1] (hb_fused_scale); then |U| <= 1 (each stage divides by its length). A channel's filter
// is scaled so that sum |h| lies in (2^14, 2^15], hence nothing on the way back exceeds 2^15 and
// most of the range below is left. The rows multiply by 4 more on the way there, 1/4 on the way
// back:
//     spectrum as stored = (sum of the rows' last stage) * gain[c]
//     gain[c] = N 2^(e1 - eh) / 4096      2^eh: scale of h as it went in, 2^e1: of sum |h|
//     y = 4 2^-e1 2^-eu Re(...)           2^eu: scale of u as it went in
// Simulated (all of it in fp16, sums f32), N = 1024 .. 32768: normal, outlier 1e4, amplitudes 1e-3
// and 1e3: 5.5e-4 .. 7.4e-4. A constant through a white filter: 5e-4 .. 7.5e-4 over many channels,
// single ones to 2e-3 (the result is then small against sum |h u|).
#ifndef HB_FUSED_MMA_CUH
#define HB_FUSED_MMA_CUH

#include <math.h>

#include "method.h"

// A number as a type, for generic lambdas.
template <int N> struct hb_constant { static constexpr int value = N; };

// Fragments of mma.m16n8k16, lane = 4 g + q (g = 0..7, q = 0..3), halves in pairs (low, high):
//   A  a[0]: row g, cols 2q,2q+1   a[1]: row g+8   a[2]: row g, cols +8   a[3]: row g+8, cols +8
//   B  b0: rows 2q,2q+1, col g     b1: rows +8
//   C  c[0],c[1]: row g, cols 2q,2q+1   c[2],c[3]: row g+8
// Hence packed accumulators of two neighbouring tiles (16 x 16) are either
//   A of the same matrix:      a = { lo.c01, lo.c23, hi.c01, hi.c23 }   (contract its columns), or
//   B of its transpose:  left tile (rows 0-7) b = { lo.c01, hi.c01 }, right { lo.c23, hi.c23 }
// and a symmetric constant has B = { a[0], a[2] }, { a[1], a[3] }.
__device__ __forceinline__ void hb_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices, transposed; lane l gives the shared address of row l % 8 of matrix l / 8.
// With rows along k this is B: lane's word i is (rows 2q,2q+1, col g) of matrix i.
__device__ __forceinline__ void hb_load_trans(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// Back to four 8 x 8 matrices: lane 4 g + q has (row g, cols 2q,2q+1) of each, and lane l gives the
// shared address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void hb_store_matrices(uint32_t at, const uint32_t (&r)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};"
                 :: "r"(at), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}

__device__ __forceinline__ uint32_t hb_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ void hb_prefetch_line(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" :: "l"(p));
}

// n (8 or 16) bytes from device memory to the shared address `to`, of which `bytes` are read and
// the others 0; both ends so aligned. They are there after hb_copied.
template <int n = 16>
__device__ __forceinline__ void hb_copy(uint32_t to, const void *from, int bytes)
{
    static_assert(n == 8 || n == 16);
    if constexpr (n == 8)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"
                     :: "r"(to), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :: "r"(to), "l"(from), "r"(bytes) : "memory");
}

// This thread's copies are there.
__device__ __forceinline__ void hb_copied()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

// Two floats as a pair of halves, the first one low.
__device__ __forceinline__ uint32_t hb_pack(float lo, float hi)
{
    const __half2 h = __floats2half2_rn(lo, hi);
    return *(const uint32_t *)&h;
}

__device__ __forceinline__ float2 hb_unpack(uint32_t w)
{
    return __half22float2(*(const __half2 *)&w);
}

// What comes from columns is this much larger than mma.cuh's head says, till the product: there are
// more stages, and one outlier must not push the rest of a row below what a half can hold.
constexpr float HB_MID_TOP = 4096;

// Minus a pair of halves; of a fragment.
__device__ __forceinline__ uint32_t hb_minus(uint32_t w) { return w ^ 0x80008000u; }

// (a.lo, b.lo) and (a.hi, b.hi): turns two rows' neighbours into two columns' pairs.
__device__ __forceinline__ uint32_t hb_low(uint32_t a, uint32_t b)
{
    return __byte_perm(a, b, 0x5410);
}

__device__ __forceinline__ uint32_t hb_high(uint32_t a, uint32_t b)
{
    return __byte_perm(a, b, 0x7632);
}

__device__ __forceinline__ float2 hb_cmul(float2 a, float2 b)
{
    return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

__device__ __forceinline__ float2 hb_conj(float2 a) { return make_float2(a.x, -a.y); }

// e^{-2 pi i m / n} for -n / 2 <= m < 2 n, n <= 2^24. The special function unit takes turns, whole
// ones fall away in it: the angle is within 4e-6 (at two turns), a hundredth of a half's rounding.
__device__ __forceinline__ float2 hb_unit(int m, int n)
{
    const float x = (float)m * (-6.283185307179586f / (float)n);
    return make_float2(__cosf(x), __sinf(x));
}

// The power of two that takes m into (top / 2, top] (top a power of two); 1 for zero. It stays
// within 2^+-126, so that it and its inverse are normal numbers. Infinities and NaN stay so.
__device__ __forceinline__ float hb_fused_scale(float m, int log_top)
{
    if (!(m > 0) || m > 3e38f) return 1.0f;
    const int up = (int)((__float_as_uint(m) + 0x7fffffu) >> 23) - 127;    // 2^up >= m
    int e = log_top - up;
    e = e < -126 ? -126 : e > 126 ? 126 : e;
    return __uint_as_float((uint32_t)(e + 127) << 23);
}

// 1 / x of a power of two between 2^-126 and 2^126.
__device__ __forceinline__ float hb_inverse(float x)
{
    return __uint_as_float(0x7f000000u - __float_as_uint(x));
}

// A constant of 16 x 16 in the order of its fragments, [real, imaginary][32 lanes] uint4 = a[0..3]:
// value(row, column, imaginary), float64, on the host.
template <class F> static inline void hb_fused_tile(uint32_t *out, F value)
{
    for (int w = 0; w < 2 * 32 * 4; w++) {
        const int lane = w / 4 % 32, i = w % 4, row = lane / 4 + i % 2 * 8;
        out[w] = 0;
        for (int e = 0; e < 2; e++) {
            const __half h = __double2half(value(row, 2 * (lane % 4) + i / 2 * 8 + e, w >= 128));
            out[w] |= (uint32_t)*(const unsigned short *)&h << 16 * e;
        }
    }
}

// A symmetric R x R constant, in device memory: [R / 16 row tiles][R / 16 column tiles] of
// hb_fused_tile. `shift` 0.25: G above; 0: plain DFT. R < 16: 16 / R of them on the diagonal of a
// tile. Everything is multiplied by `size`.
static inline void hb_fused_matrix(uint32_t *out, int R, double shift, double size)
{
    const int tiles = R < 16 ? 1 : R / 16;
    for (int tile = 0; tile < tiles * tiles; tile++)
        hb_fused_tile(out + 256 * tile, [=](int i, int j, bool imaginary) {
            const int row = tile / tiles * 16 + i, col = tile % tiles * 16 + j;
            const double x = -2 * M_PI * (row % R - shift) * (col % R - shift) / R;
            return row / R != col / R ? 0 : size * (imaginary ? sin(x) : cos(x));
        });
}

// Size of F, the 16 x 16 constant of the rows: so its four magnitudes (1, cos and sin of pi / 8,
// sqrt(1/2)) are halves within 1.7e-5 instead of 3.0e-4, and F contributes no error. The turns
// between its two uses take it out again.
constexpr double HB_F_SIZE = 1.86033 / 2;

// Words of the constants of rows with R: G (or the plain DFT, shift 0), then F.
static inline int64_t hb_fused_words(int R)
{
    const int64_t slots = R < 16 ? 16 : R;
    return slots * slots + 256;
}

// They are put on the device: *matrix.
static inline int hb_fused_constants(const struct hb_host *host, uint4 **matrix, int R,
                                     double shift)
{
    const size_t bytes = (size_t)hb_fused_words(R) * sizeof(uint32_t);
    return hb_fused_table(host, matrix, bytes, [=](uint32_t *words) {
        hb_fused_matrix(words, R, shift, 1);
        hb_fused_matrix(words + hb_fused_words(R) - 256, 16, 0, HB_F_SIZE);
    });
}

#endif
