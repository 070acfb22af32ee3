// cuda_hidden.cuh: the three hidden layers of the implicit filter, layer after layer in the shared
// memory of a block, for signals of 16 bits (cuda_generate.cuh, cuda_descend.cuh):
//     x1 = W1 z' + b1, a1 = sin(f x1);  x2 = W2 a1 + b2, a2 = sin(f x2);  x3, a3 likewise
// Method    A block has TILE positions; each warp has 16 features and ACROSS of the positions at a
//           time, on the float64 tensor cores: an error in the first layer is some hundred times as
//           large in h, since f is about 14, and these products are a small part of the filter's.
//           f x is brought near zero in float64; its sine is then taken in float32, by a polynomial
//           that needs no table and no branch.
// Cost      2 (E W + 2 W^2) flop a position; 2 HSTRIDE doubles of shared memory for each feature.
// Accuracy  a: 1.2e-7, for |f x| below 2^28.
// Refuses   W or E above HIDDEN_MOST (the caller takes the float64 path).
#ifndef HB_DEVICE_CUDA_HIDDEN_CUH
#define HB_DEVICE_CUDA_HIDDEN_CUH

#include "cuda_tile64.cuh"

enum {
    HIDDEN_MOST = 128,           // features
    WIDE = 16,                   // warps of a block
    WIDE_THREADS = 32 * WIDE,
    ACROSS = 16,                 // positions of a warp: with 64 features one piece for each warp
    SIDE = TILE / ACROSS,        // warps side by side
};
// Doubles of a row of TILE positions: 4 mod 16, so that the 16 lanes of a half warp hit 16 pairs of
// banks.
constexpr int HSTRIDE = TILE + 4;

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

// Rows of features (or of z) that a block's arrays need.
static inline __host__ __device__ int hidden_rows(int W, int E)
{
    return ((W > E ? W : E) + 15) / 16 * 16;
}

// z of TILE positions (zeros from n on), feature by feature; zeros up to a multiple of 8 features.
static __device__ __forceinline__ void hidden_table(double *to, const struct hidden_net &g,
                                                    int64_t p0, int64_t n)
{
    const int up = (g.E + 7) / 8 * 8;
    for (int i = (int)threadIdx.x; i < up * TILE; i += WIDE_THREADS) {
        const int p = i / up, e = i - p * up;
        to[e * HSTRIDE + p] = e < g.E && p0 + p < n ? g.z[(p0 + p) * g.E + e] : 0.0f;
    }
}

// Layer l (0, 1, 2) by all warps, from the rows of `below` (zeros up to a multiple of 8): calls
// take(feature, position, x0, x1, a0, a1) for each two neighbours in time of each feature, up to a
// multiple of 16 (a is zero there, nothing else).
template <class F>
static __device__ __forceinline__ void hidden_layer(const struct hidden_net &g, int l,
                                                    const double *below, F take)
{
    constexpr int N = ACROSS / 8;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int row = lane / 4, t = lane % 4, p0 = warp % SIDE * ACROSS, K = l ? g.W : g.E;
    const float *w = g.w[l];
    for (int r0 = warp / SIDE * 16; r0 < g.W; r0 += WIDE / SIDE * 16) {
        double c[N][4] = {};
        #pragma unroll 4
        for (int k = 0; k < K; k += 8) {
            double a[4];
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                const int r = r0 + row + i % 2 * 8, at = k + t + i / 2 * 4;
                a[i] = r < g.W && at < K ? w[r * K + at] : 0.0f;
            }
            #pragma unroll
            for (int n = 0; n < N; n++) {
                const double *from = below + (k + t) * HSTRIDE + p0 + 8 * n + row;
                const double b[2] = { from[0], from[4 * HSTRIDE] };
                mma(c[n], a, b);
            }
        }
        #pragma unroll
        for (int h = 0; h < 2; h++) {
            const int r = r0 + row + 8 * h;
            const bool in = r < g.W;
            const double f = in ? g.freq[r] : 0.0, bias = in ? g.b[l][r] : 0.0;
            #pragma unroll
            for (int n = 0; n < N; n++) {
                const double x0 = c[n][2 * h] + bias, x1 = c[n][2 * h + 1] + bias;
                take(r, p0 + 8 * n + 2 * t, x0, x1, in ? sine(f * x0) : 0.0f,
                     in ? sine(f * x1) : 0.0f);
            }
        }
    }
}

// What becomes the next layer's `below`.
static __device__ __forceinline__ void hidden_keep(double *to, int r, int p, float a0, float a1)
{
    to[r * HSTRIDE + p] = a0;
    to[r * HSTRIDE + p + 1] = a1;
}

static inline size_t hidden_bytes(int W, int E)
{
    return (size_t)(2 * HSTRIDE * hidden_rows(W, E)) * sizeof(double);
}

#endif
