// radix.cuh: complex numbers in registers, and the stage of radix R = 16 or 32 that twist does
// before cuFFT's transforms and untwist after them: the DFT of a column and its twiddles; the
// algebra is in longconv_cufft_cuda.cu. R = 1: the twist alone.
// Accuracy  roots and the table of twiddles are rounded to float32 from float64; a column's
//           twiddles are products of at most eight of the table.
#ifndef HB_CUFFT_RADIX_CUH
#define HB_CUFFT_RADIX_CUH

#include "cuda.cuh"

__device__ __forceinline__ float2 operator+(float2 a, float2 b)
{
    return make_float2(a.x + b.x, a.y + b.y);
}

__device__ __forceinline__ float2 operator-(float2 a, float2 b)
{
    return make_float2(a.x - b.x, a.y - b.y);
}

__device__ __forceinline__ float2 operator*(float2 a, float2 b)
{
    return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

// conj(a) b
__device__ __forceinline__ float2 conj_times(float2 a, float2 b)
{
    return make_float2(a.x * b.x + a.y * b.y, a.x * b.y - a.y * b.x);
}

// ROOTS.w[e] = exp(2 pi i e / 128): all that the stages up to R = 32 and their twist need.
struct roots { float2 w[64]; };

static constexpr struct roots make_roots()
{
    struct roots r = {};
    for (int e = 0; e < 64; e++) {
        const double x = 3.14159265358979323846 * e / 64;
        double c = 0, s = 0, term = 1;          // of the Taylor series; x < pi: 40 terms are plenty
        for (int k = 0; k < 40; k++) {
            (k % 2 ? s : c) += k / 2 % 2 ? -term : term;
            term *= x / (k + 1);
        }
        r.w[e].x = (float)c;
        r.w[e].y = (float)s;
    }
    return r;
}

static __constant__ struct roots ROOTS = make_roots();

// x exp(-+ 2 pi i e / 128), e a constant after unrolling.
template <bool INVERSE> __device__ __forceinline__ float2 rotate(float2 x, int e)
{
    if (e == 0) return x;
    if (e == 32) return INVERSE ? make_float2(-x.y, x.x) : make_float2(x.y, -x.x);
    return INVERSE ? ROOTS.w[e] * x : conj_times(ROOTS.w[e], x);
}

// DFT of R points in registers, decimation in frequency: place p has frequency reversed<R>(p).
template <int R, int H = R / 2> __device__ __forceinline__ void dft(float2 (&v)[R])
{
#pragma unroll
    for (int i = 0; i < R / 2; i++) {
        const int j = i % H, a = 2 * i - j;
        const float2 x = v[a], y = v[a + H];
        v[a] = x + y;
        v[a + H] = rotate<false>(x - y, 64 / H * j);
    }
    if constexpr (H > 1) dft<R, H / 2>(v);
}

// The inverse, times R, from that order.
template <int R, int H = 1> __device__ __forceinline__ void inverse_dft(float2 (&v)[R])
{
#pragma unroll
    for (int i = 0; i < R / 2; i++) {
        const int j = i % H, a = 2 * i - j;
        const float2 x = v[a], y = rotate<true>(v[a + H], 64 / H * j);
        v[a] = x + y;
        v[a + H] = x - y;
    }
    if constexpr (2 * H < R) inverse_dft<R, 2 * H>(v);
}

template <int R> __device__ __forceinline__ int reversed(int p)
{
    static_assert(R == 16 || R == 32, "bits");
    const int r = (p & 1) << 4 | (p & 2) << 2 | (p & 4) | (p & 8) >> 2 | (p & 16) >> 4;
    return R == 32 ? r : r >> 1;
}

// turns (planes,N2): exp(2 pi i n2 / 4N), then for R > 1 exp(-2 pi i m n2 / N), m = 1, 4, 16.
// Grid (blocks of N2, planes).
__global__ void fill_turns(float2 *turns, int64_t N, int N2)
{
    const int n2 = blockIdx.x * blockDim.x + threadIdx.x;
    if (n2 >= N2) return;
    const int64_t m = blockIdx.y == 0 ? 0 : 1 << 2 * (blockIdx.y - 1);
    const double x = m ? -2.0 * (double)(m * n2 % N) / (double)N : (double)n2 / (double)(2 * N);
    double sin, cos;
    sincospi(x, &sin, &cos);
    turns[(int64_t)blockIdx.y * N2 + n2] = make_float2((float)cos, (float)sin);
}

// A column's twiddles exp(2 pi i n2 (1/4 - k1) / N), k1 = 0 .. R-1, as few products of the table's.
template <int R> struct column {
    float2 low[4], high[R / 4];
    __device__ __forceinline__ column(const float2 *__restrict__ turns, int N2, int n2)
    {
        const float2 one = turns[N2 + n2], four = turns[2 * N2 + n2];
        low[0] = turns[n2];
        low[1] = low[0] * one;
        low[2] = low[0] * (one * one);
        low[3] = low[1] * (one * one);
        high[1] = four;
        high[2] = four * four;
        high[3] = high[2] * four;
        if constexpr (R == 32) {
            high[4] = turns[3 * N2 + n2];
#pragma unroll
            for (int i = 1; i < 4; i++)
                high[4 + i] = high[4] * high[i];
        }
    }
    __device__ __forceinline__ float2 at(int k) const
    {
        return k < 4 ? low[k] : low[k & 3] * high[k >> 2];
    }
};

template <> struct column<1> {
    float2 w;
    __device__ __forceinline__ column(const float2 *__restrict__ turns, int, int n2)
        : w(turns[n2]) {}
};

#endif
