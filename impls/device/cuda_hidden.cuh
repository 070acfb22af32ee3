// cuda_hidden.cuh: the three hidden layers of the implicit filter in one kernel, for signals of 16
// bits (cuda_filter.cu):
//     x1 = W1 z' + b1, a1 = sin(f x1);  x2 = W2 a1 + b2, a2 = sin(f x2);  x3, a3 likewise
// Method    A block has POSITIONS positions; their activations go from layer to layer in shared
//           memory. Each warp has 16 features at a time, on the float64 tensor cores: an error in
//           the first layer is some hundred times as large in h, since f is about 14, and these
//           products are a small part of the filter's. f x is brought near zero in float64; its
//           sine is then taken in float32. x and a are stored as float32.
// Cost      2 (E W + 2 W^2) flop a position; 40 KiB of shared memory at most.
// Accuracy  a: 1e-7.
// Refuses   W or E above HIDDEN_MOST (the caller takes the float64 path).
#ifndef HB_DEVICE_CUDA_HIDDEN_CUH
#define HB_DEVICE_CUDA_HIDDEN_CUH

#include "cuda_tile64.cuh"

enum {
    POSITIONS = 16,              // of a block: 64 blocks at L = 1024
    HIDDEN_MOST = 128,           // features
    HSTRIDE = POSITIONS + 4,     // 4 mod 16: the 16 lanes of a half warp hit 16 pairs of banks
};

// sin(x): |x| below 2^31 or so, error about 1e-7.
static __device__ __forceinline__ float sine(double x)
{
    const double turns = rint(x * 0.31830988618379067);              // 1 / pi
    const double r = fma(turns, -1.2246467991473532e-16, fma(turns, -3.1415926535897931, x));
    const float s = sinf((float)r);              // |r| <= pi/2
    return (long long)turns & 1 ? -s : s;
}

struct hidden_args {
    float *x[3], *a[3];          // (W,ld); NULL: not wanted
    const float *z;              // the chunk's first row
    const float *w[3], *b[3], *freq;
    int64_t W, E;
    struct chunk s;
};

// One layer: rows of `below` (K up to a multiple of 8, HSTRIDE) to rows of `above`.
static __device__ __forceinline__ void hidden_layer(const struct hidden_args &g, int l, int64_t K,
                                                    const double *below, double *above)
{
    const int me = (int)threadIdx.x % 32, row = me / 4, t = me % 4;
    const float *w = g.w[l];
    for (int64_t r0 = (int64_t)threadIdx.x / 32 * 16; r0 < g.W; r0 += THREADS / 32 * 16) {
        double c[2][4] = {};
        #pragma unroll 4
        for (int64_t k = 0; k < K; k += 8) {
            double a[4], b[2][2];
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                const int64_t r = r0 + row + i % 2 * 8, at = k + t + i / 2 * 4;
                a[i] = r < g.W && at < K ? w[r * K + at] : 0.0f;
            }
            #pragma unroll
            for (int i = 0; i < 4; i++)
                b[i / 2][i % 2] = below[(k + t + i % 2 * 4) * HSTRIDE + i / 2 * 8 + row];
            mma(c[0], a, b[0]);
            mma(c[1], a, b[1]);
        }
        #pragma unroll
        for (int i = 0; i < 4; i++) {            // i/2: which 8 of the rows, i%2: of the positions
            const int64_t r = r0 + row + i / 2 * 8, p = blockIdx.x * (int64_t)POSITIONS;
            const int col = i % 2 * 8 + 2 * t;
            const bool in = r < g.W;
            const double f = in ? g.freq[r] : 0.0, bias = in ? g.b[l][r] : 0.0;
            const double x0 = c[i % 2][i / 2 * 2] + bias, x1 = c[i % 2][i / 2 * 2 + 1] + bias;
            const float s0 = in ? sine(f * x0) : 0.0f, s1 = in ? sine(f * x1) : 0.0f;
            if (above) {
                above[r * HSTRIDE + col] = s0;   // zeros up to the next multiple of 16 rows
                above[r * HSTRIDE + col + 1] = s1;
            }
            if (!in) continue;
            const int64_t at = r * g.s.ld + p + col;
            if (g.x[l]) *(float2 *)(g.x[l] + at) = make_float2((float)x0, (float)x1);
            if (g.a[l]) *(float2 *)(g.a[l] + at) = make_float2(s0, s1);
        }
    }
}

// Grid (ld / POSITIONS). Dynamic shared: hidden_bytes.
static __global__ __launch_bounds__(THREADS) void hidden_kernel(const struct hidden_args g)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const int64_t tall = ((g.W > g.E ? g.W : g.E) + 15) / 16 * 16;
    double *one = (double *)shared, *other = one + tall * HSTRIDE;
    const int64_t p0 = blockIdx.x * (int64_t)POSITIONS, all = (g.E + 7) / 8 * 8 * POSITIONS;
    for (int64_t i = threadIdx.x; i < all; i += THREADS) {
        const int64_t p = i % POSITIONS, e = i / POSITIONS;
        one[e * HSTRIDE + p] = e < g.E && p0 + p < g.s.n ? g.z[(p0 + p) * g.E + e] : 0.0f;
    }
    __syncthreads();
    hidden_layer(g, 0, g.E, one, other);
    __syncthreads();
    hidden_layer(g, 1, g.W, other, one);
    __syncthreads();
    hidden_layer(g, 2, g.W, one, NULL);
}

static inline size_t hidden_bytes(int64_t W, int64_t E)
{
    return (size_t)(2 * HSTRIDE * (((W > E ? W : E) + 15) / 16 * 16)) * sizeof(double);
}

#endif
