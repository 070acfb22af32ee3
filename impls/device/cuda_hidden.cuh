// cuda_hidden.cuh: the three hidden layers of the implicit filter, layer after layer in the shared
// memory of a block, for signals of 16 bits (cuda_generate.cuh, cuda_descend.cuh):
//     x1 = W1 z' + b1, a1 = sin(f x1);  x2 = W2 a1 + b2, a2 = sin(f x2);  x3, a3 likewise
// Method    A block has P positions; each of its warps has 16 features by ACROSS positions, on the
//           float64 tensor cores: an error in the first layer is some hundred times as large in h,
//           since f is about 14, and these products are a small part of the filter's. All weights
//           are in shared memory first, as floats; they become doubles on their way into fragments.
//           f x / pi is a whole number and a fraction after one addition in float64, which leaves
//           them in two words; the sine is then taken in float32, by a polynomial that needs no
//           table and no branch.
// Cost      2 (E W + 2 W^2) flop a position; shared memory HIDDEN_WEIGHTS and the rows.
// Accuracy  a: 1.2e-7, for |f x| below 2^20.
// Refuses   W or E above HIDDEN_MOST (the caller takes the float64 path).
#ifndef HB_DEVICE_CUDA_HIDDEN_CUH
#define HB_DEVICE_CUDA_HIDDEN_CUH

#include <type_traits>

#include "cuda_tile64.cuh"

enum {
    HIDDEN_MOST = 64,            // features
    // Floats of a layer's weights. A row has at most 64 of them and 4 more: 4 mod 8, and the 32
    // lanes of a fragment hit 32 banks.
    HIDDEN_LAYER = HIDDEN_MOST * (HIDDEN_MOST + 4),
    HIDDEN_WEIGHTS = (3 * HIDDEN_LAYER + 4 * HIDDEN_MOST) * 4,   // bytes
};
// Doubles of a row of P positions: 4 mod 16, so that the 16 lanes of a half warp hit 16 pairs of
// banks; and of the rows of all features.
template <int P> constexpr int HIDDEN_STRIDE = P + 4;
template <int P> constexpr int HIDDEN_ROWS = HIDDEN_MOST * HIDDEN_STRIDE<P>;

// The network; z: the row of the first position that is wanted.
struct hidden_net {
    const float *z, *w[3], *b[3], *freq;
    int W, E;
};

// sin(pi y), given t = y + SINE_ZERO: the low word of t has y less its whole part, in units of
// 2^-32, and bit 0 of the high word tells whether the whole part is odd. The high word as a float
// is NaN if t is NaN or infinite, and finite else. The polynomial is within 2.7e-8.
constexpr double SINE_ZERO = 1572864.0;          // 1.5 2^20
constexpr double PER_PI = 0.31830988618379067;
static __device__ __forceinline__ float sine(double t)
{
    const int whole = __double2hiint(t);
    const float v = fabsf((float)__double2loint(t)) * 0x1p-32f, s = v * v;
    const float p = fmaf(fmaf(fmaf(0.0785397141f, s, -0.598704865f), s, 2.55013624f), s,
                         -5.16771248f);
    const float q = fmaf(p, s, -8.74227766e-8f);           // pi less its float
    const float y = fmaf(__int_as_float(whole), 0.0f, fmaf(v, 3.14159274f, v * q));
    return __uint_as_float(__float_as_uint(y) ^ (unsigned)whole << 31);
}

// Where a block has the weights in shared memory, HIDDEN_WEIGHTS; b: of the layers, and then freq.
struct hidden_space { float *w, *b; };
static __device__ __forceinline__ hidden_space hidden_share(void *shared)
{
    float *const w = (float *)shared;
    return { w, w + 3 * HIDDEN_LAYER };
}

static __device__ __forceinline__ int up_to_8(int n) { return (n + 7) / 8 * 8; }

// A layer's weights, (W,K): a thread's share of them, by one (N float) or by four neighbours
// (float4: rows lie at multiples of 16 bytes), and then this to shared memory, with zeros up to 64
// rows and a multiple of 8 columns.
template <int WARPS, class N> struct hidden_matrix {
    static constexpr int V = sizeof(N) / sizeof(float), ACROSS = HIDDEN_MOST / V;
    static constexpr int DOWN = 32 * WARPS / ACROSS, SHARE = HIDDEN_MOST / DOWN;
    N v[SHARE];

    __device__ __forceinline__ void fetch(const float *w, int W, int K)
    {
        const int k = (int)threadIdx.x % ACROSS * V, r0 = (int)threadIdx.x / ACROSS;
        const int rows = k < K ? W - r0 : 0;     // may be negative
        const float *from = w + r0 * K + k;
        const int64_t step = K * DOWN;
        #pragma unroll
        for (int i = 0; i < SHARE; i++, from += step)
            v[i] = i * DOWN < rows ? *(const N *)from : N{};
    }
    __device__ __forceinline__ void put(float *to, int K) const
    {
        const int k = (int)threadIdx.x % ACROSS * V, stride = up_to_8(K) + 4;
        to += (int)threadIdx.x / ACROSS * stride + k;
        if (k >= stride - 4) return;
        #pragma unroll
        for (int i = 0; i < SHARE; i++) *(N *)(to + stride * (i * DOWN)) = v[i];
    }
};

// The weights of all layers by WARPS; all loads are under way before the first is waited for.
// VECTORS: w[1] and w[2] lie at multiples of 16 bytes, W is a multiple of 4.
template <int WARPS, bool VECTORS>
static __device__ __forceinline__ void hidden_load(const hidden_space &h,
                                                   const struct hidden_net &g)
{
    using N = std::conditional_t<VECTORS, float4, float>;
    const int k = (int)threadIdx.x % HIDDEN_MOST, which = (int)threadIdx.x / HIDDEN_MOST;
    hidden_matrix<WARPS, float> first;
    hidden_matrix<WARPS, N> second, third;
    first.fetch(g.w[0], g.W, g.E);
    second.fetch(g.w[1], g.W, g.W);
    third.fetch(g.w[2], g.W, g.W);
    if (which < 4)
        h.b[which * HIDDEN_MOST + k] = k >= g.W ? 0.0f : which == 0 ? g.b[0][k]
                                       : which == 1 ? g.b[1][k] : which == 2 ? g.b[2][k]
                                                                             : g.freq[k];
    first.put(h.w, g.E);
    second.put(h.w + HIDDEN_LAYER, g.W);
    third.put(h.w + 2 * HIDDEN_LAYER, g.W);
}

// z of P positions from p0 on (zeros from n on): a thread's share of it, and then this as rows of
// features, with zeros up to a multiple of 8.
template <int P, int WARPS> struct hidden_table {
    static constexpr int DOWN = 32 * WARPS / HIDDEN_MOST, SHARE = P / DOWN;
    float v[SHARE];

    __device__ __forceinline__ void fetch(const struct hidden_net &g, int64_t p0, int64_t n)
    {
        const int k = (int)threadIdx.x % HIDDEN_MOST, r0 = (int)threadIdx.x / HIDDEN_MOST;
        const float *from = g.z + (p0 + r0) * g.E + k;
        const int64_t step = g.E * DOWN;
        const int rows = k < g.E ? (int)min(n - p0, (int64_t)P) - r0 : 0;    // may be negative
        #pragma unroll
        for (int i = 0; i < SHARE; i++, from += step)
            v[i] = i * DOWN < rows ? *from : 0.0f;
    }
    __device__ __forceinline__ void put(double *to, const struct hidden_net &g) const
    {
        const int k = (int)threadIdx.x % HIDDEN_MOST, r0 = (int)threadIdx.x / HIDDEN_MOST;
        if (k >= up_to_8(g.E)) return;
        #pragma unroll
        for (int i = 0; i < SHARE; i++) to[k * HIDDEN_STRIDE<P> + r0 + i * DOWN] = v[i];
    }
};

// A warp's piece of a layer, of P positions: features from r0 on by positions from p0 on.
template <int P, int WARPS> struct hidden_piece {
    static constexpr int SIDE = 16 * WARPS / HIDDEN_MOST, ACROSS = P / SIDE, N = ACROSS / 8;
    int row, t, r0, p0;
    double c[N][4];

    __device__ __forceinline__ hidden_piece()
    {
        const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
        row = lane / 4, t = lane % 4, r0 = warp / SIDE * 16, p0 = warp % SIDE * ACROSS;
    }
    // c = the weights of layer l (0, 1, 2) by the rows of `below`, zeros up to a multiple of 8.
    __device__ __forceinline__ void multiply(const hidden_space &h, const struct hidden_net &g,
                                             int l, const double *below)
    {
        const int wide = up_to_8(l ? g.W : g.E), stride = wide + 4;
        #pragma unroll
        for (int i = 0; i < 4 * N; i++) c[i / 4][i % 4] = 0;
        if (r0 >= g.W) return;
        const float *w = h.w + l * HIDDEN_LAYER + (r0 + row) * stride + t;
        const double *from = below + t * HIDDEN_STRIDE<P> + p0 + row;
        #pragma unroll 2
        for (int k = 0; k < wide; k += 8, w += 8, from += 8 * HIDDEN_STRIDE<P>) {
            const double a[4] = { w[0], w[8 * stride], w[4], w[8 * stride + 4] };
            #pragma unroll
            for (int n = 0; n < N; n++) {
                const double b[2] = { from[8 * n], from[8 * n + 4 * HIDDEN_STRIDE<P>] };
                mma(c[n], a, b);
            }
        }
    }
    // The feature of rows i of c, the first position of columns n.
    __device__ __forceinline__ int feature(int i) const { return r0 + row + 8 * i; }
    __device__ __forceinline__ int position(int n) const { return p0 + 2 * t + 8 * n; }
    // Calls take(i, n, x0, x1, a0, a1) for feature(i) at position(n) and after it, all lanes at
    // once. From W to a multiple of 16 weights, bias and frequency are zero, and so is a.
    template <class F>
    __device__ __forceinline__ void finish(const hidden_space &h, const struct hidden_net &g,
                                           int l, F take) const
    {
        if (r0 >= g.W) return;
        #pragma unroll
        for (int i = 0; i < 2; i++) {
            const double turns = h.b[3 * HIDDEN_MOST + feature(i)] * PER_PI;
            const double bias = h.b[l * HIDDEN_MOST + feature(i)];
            const double first = fma(bias, turns, SINE_ZERO);
            #pragma unroll
            for (int n = 0; n < N; n++) {
                const double x0 = c[n][2 * i], x1 = c[n][2 * i + 1];
                take(i, n, x0 + bias, x1 + bias, sine(fma(x0, turns, first)),
                     sine(fma(x1, turns, first)));
            }
        }
    }
    // As the next layer's `below`.
    __device__ __forceinline__ void keep(double *rows, int i, int n, float a0, float a1) const
    {
        double *const to = rows + (r0 + row) * HIDDEN_STRIDE<P> + p0 + 2 * t;
        *(double2 *)(to + 8 * i * HIDDEN_STRIDE<P> + 8 * n) = make_double2(a0, a1);
    }
};

#endif
