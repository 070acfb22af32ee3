// cuda_hidden.cuh: the three hidden layers of the implicit filter, layer after layer in the shared
// memory of a block, for signals of 16 bits (cuda_generate.cuh, cuda_descend.cuh):
//     x1 = W1 z' + b1, a1 = sin(f x1);  x2 = W2 a1 + b2, a2 = sin(f x2);  x3, a3 likewise
// Method    A block has TILE positions; each warp has 16 features by ACROSS positions, on the
//           float64 tensor cores: an error in the first layer is some hundred times as large in h,
//           since f is about 14, and these products are a small part of the filter's. All weights
//           are in shared memory first, as floats; they become doubles on their way into fragments.
//           f x is brought near zero in float64; its sine is then taken in float32, by a polynomial
//           that needs no table and no branch.
// Cost      2 (E W + 2 W^2) flop a position; HIDDEN_BYTES of shared memory.
// Accuracy  a: 1.2e-7, for |f x| below 2^28.
// Refuses   W or E above HIDDEN_MOST (the caller takes the float64 path).
#ifndef HB_DEVICE_CUDA_HIDDEN_CUH
#define HB_DEVICE_CUDA_HIDDEN_CUH

#include "cuda_tile64.cuh"

enum {
    HIDDEN_MOST = 64,            // features
    WIDE = 16,                   // warps of a block
    WIDE_THREADS = 32 * WIDE,
    ACROSS = 16,                 // positions of a warp: with 64 features one piece for each warp
    SIDE = TILE / ACROSS,        // warps side by side
    // Doubles of a row of TILE positions: 4 mod 16, so that the 16 lanes of a half warp hit 16
    // pairs of banks. Floats of a row of weights, at most: 4 mod 8, and 32 lanes hit 32 banks.
    HSTRIDE = TILE + 4,
    HARRAY = HIDDEN_MOST * HSTRIDE,      // numbers of an array of either kind
    HIDDEN_BYTES = 2 * HARRAY * 8 + 3 * HARRAY * 4 + 4 * HIDDEN_MOST * 4,
};

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

// Where a block has it in shared memory; b: of the layers, and then freq.
struct hidden_space { double *one, *other; float *w, *b; };
static __device__ __forceinline__ hidden_space hidden_share(unsigned char *shared)
{
    double *const one = (double *)shared;
    float *const w = (float *)(one + 2 * HARRAY);
    return { one, one + HARRAY, w, w + 3 * HARRAY };
}

static __device__ __forceinline__ int up_to_8(int n) { return (n + 7) / 8 * 8; }

// The weights of all layers, and z of TILE positions (zeros from n on) to h.one, a row a feature.
// Zeros up to a multiple of 16 rows and 8 columns of weights, 8 rows of z. A thread has one column
// and all loads are under way before the first is waited for.
static __device__ __forceinline__ void hidden_load(const hidden_space &h,
                                                   const struct hidden_net &g, int64_t p0,
                                                   int64_t n)
{
    constexpr int DOWN = WIDE_THREADS / HIDDEN_MOST, EACH_ROW = HIDDEN_MOST / DOWN;
    static_assert(TILE == HIDDEN_MOST);
    const int k = (int)threadIdx.x % HIDDEN_MOST, r0 = (int)threadIdx.x / HIDDEN_MOST;
    const float *const w[3] = { g.w[0], g.w[1], g.w[2] };
    float v[4][EACH_ROW], b = 0;
    #pragma unroll
    for (int i = 0; i < EACH_ROW; i++) {
        const int r = r0 + i * DOWN;
        #pragma unroll
        for (int l = 0; l < 3; l++) {
            const int K = l ? g.W : g.E;
            v[l][i] = r < g.W && k < K ? w[l][r * K + k] : 0.0f;
        }
        v[3][i] = k < g.E && p0 + r < n ? g.z[(p0 + r) * g.E + k] : 0.0f;
    }
    if (r0 < 4 && k < g.W) b = (r0 < 3 ? g.b[r0] : g.freq)[k];
    if (r0 < 4) h.b[r0 * HIDDEN_MOST + k] = b;
    #pragma unroll
    for (int i = 0; i < EACH_ROW; i++) {
        const int r = r0 + i * DOWN;
        #pragma unroll
        for (int l = 0; l < 3; l++) {
            const int wide = up_to_8(l ? g.W : g.E);
            if (k < wide) h.w[l * HARRAY + r * (wide + 4) + k] = v[l][i];
        }
        if (k < up_to_8(g.E)) h.one[k * HSTRIDE + r] = v[3][i];
    }
}

// Layer l (0, 1, 2) by all warps, from the rows of `below` (zeros up to a multiple of 8): calls
// take(feature, position, x0, x1, a0, a1) for each two neighbours in time of each feature, up to a
// multiple of 16 (a is zero there, nothing else).
template <class F>
static __device__ __forceinline__ void hidden_layer(const hidden_space &h,
                                                    const struct hidden_net &g, int l,
                                                    const double *below, F take)
{
    constexpr int N = ACROSS / 8;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int row = lane / 4, t = lane % 4, p0 = warp % SIDE * ACROSS, r0 = warp / SIDE * 16;
    const int wide = up_to_8(l ? g.W : g.E), stride = wide + 4;
    if (r0 >= g.W) return;
    const float *w = h.w + l * HARRAY + (r0 + row) * stride + t;
    const double *from = below + t * HSTRIDE + p0 + row;
    double c[N][4] = {};
    #pragma unroll 4
    for (int k = 0; k < wide; k += 8, w += 8, from += 8 * HSTRIDE) {
        const double a[4] = { w[0], w[8 * stride], w[4], w[8 * stride + 4] };
        #pragma unroll
        for (int n = 0; n < N; n++) {
            const double b[2] = { from[8 * n], from[8 * n + 4 * HSTRIDE] };
            mma(c[n], a, b);
        }
    }
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = r0 + row + 8 * i;
        const bool in = r < g.W;
        const double f = h.b[3 * HIDDEN_MOST + r], bias = h.b[l * HIDDEN_MOST + r];
        #pragma unroll
        for (int n = 0; n < N; n++) {
            const double x0 = c[n][2 * i] + bias, x1 = c[n][2 * i + 1] + bias;
            take(r, p0 + 8 * n + 2 * t, x0, x1, in ? sine(f * x0) : 0.0f,
                 in ? sine(f * x1) : 0.0f);
        }
    }
}

// What becomes the next layer's `below`.
static __device__ __forceinline__ void hidden_keep(double *to, int r, int p, float a0, float a1)
{
    to[r * HSTRIDE + p] = a0;
    to[r * HSTRIDE + p + 1] = a1;
}

#endif
