// cuda_hidden.cuh: the three hidden layers of the implicit filter, layer after layer in the shared
// memory of a block, for signals of 16 bits (cuda_generate.cuh, cuda_descend.cuh):
//     x1 = W1 z' + b1, a1 = sin(f x1);  x2 = W2 a1 + b2, a2 = sin(f x2);  x3, a3 likewise
// Method    A block has P positions; each of its warps has 16 features by ACROSS positions, on the
//           float64 tensor cores: an error in the first layer is some hundred times as large in h,
//           since f is about 14, and these products are a small part of the filter's. All weights
//           are in shared memory first, as floats; they become doubles on their way into fragments.
//           f x is brought near zero in float64; its sine is then taken in float32, by a polynomial
//           that needs no table and no branch.
// Cost      2 (E W + 2 W^2) flop a position; shared memory HIDDEN_WEIGHTS and the rows.
// Accuracy  a: 1.2e-7, for |f x| below 2^28.
// Refuses   W or E above HIDDEN_MOST (the caller takes the float64 path).
#ifndef HB_DEVICE_CUDA_HIDDEN_CUH
#define HB_DEVICE_CUDA_HIDDEN_CUH

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

// sin(x) = (-1)^k sin(r), x = k pi + r. Adding 1.5 2^52 makes k whole and leaves it in low bits.
// The polynomial is within 2.7e-8 on |r| <= pi/2.
static __device__ __forceinline__ float sine(double x)
{
    const double round = 6755399441055744.0, k = fma(x, 0.31830988618379067, round);
    const float r = (float)fma(k - round, -3.1415926535897931, x), s = r * r;
    const float p = fmaf(fmaf(fmaf(2.63475636e-6f, s, -1.98227397e-4f), s, 8.3332425e-3f), s,
                         -0.166666657f);
    const float y = fmaf(r * s, p, r);
    return __uint_as_float(__float_as_uint(y) ^ (unsigned)__double2loint(k) << 31);
}

// Where a block has the weights in shared memory, HIDDEN_WEIGHTS; b: of the layers, and then freq.
struct hidden_space { float *w, *b; };
static __device__ __forceinline__ hidden_space hidden_share(void *shared)
{
    float *const w = (float *)shared;
    return { w, w + 3 * HIDDEN_LAYER };
}

static __device__ __forceinline__ int up_to_8(int n) { return (n + 7) / 8 * 8; }

// The weights of all layers, with zeros up to 64 rows and a multiple of 8 columns. A thread of
// WARPS has one column and all its loads are under way before the first is waited for.
template <int WARPS>
static __device__ __forceinline__ void hidden_load(const hidden_space &h,
                                                   const struct hidden_net &g)
{
    constexpr int DOWN = 32 * WARPS / HIDDEN_MOST, EACH_ROW = HIDDEN_MOST / DOWN;
    const int k = (int)threadIdx.x % HIDDEN_MOST, r0 = (int)threadIdx.x / HIDDEN_MOST;
    float v[3][EACH_ROW], b = 0;
    #pragma unroll
    for (int l = 0; l < 3; l++) {
        const int K = l ? g.W : g.E, rows = k < K ? g.W - r0 : 0;
        const float *from = g.w[l] + r0 * K + k;
        const int64_t step = K * DOWN;
        #pragma unroll
        for (int i = 0; i < EACH_ROW; i++, from += step)
            v[l][i] = i * DOWN < rows ? *from : 0.0f;
    }
    if (r0 < 4 && k < g.W) b = (r0 == 0 ? g.b[0] : r0 == 1 ? g.b[1] : r0 == 2 ? g.b[2]
                                                                              : g.freq)[k];
    if (r0 < 4) h.b[r0 * HIDDEN_MOST + k] = b;
    #pragma unroll
    for (int l = 0; l < 3; l++) {
        const int wide = up_to_8(l ? g.W : g.E);
        float *const to = h.w + l * HIDDEN_LAYER + r0 * (wide + 4) + k;
        if (k >= wide) continue;
        #pragma unroll
        for (int i = 0; i < EACH_ROW; i++) to[(wide + 4) * (i * DOWN)] = v[l][i];
    }
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
            const double f = h.b[3 * HIDDEN_MOST + feature(i)];
            const double bias = h.b[l * HIDDEN_MOST + feature(i)];
            #pragma unroll
            for (int n = 0; n < N; n++) {
                const double x0 = c[n][2 * i] + bias, x1 = c[n][2 * i + 1] + bias;
                take(i, n, x0, x1, sine(f * x0), sine(f * x1));
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
