// cuda_generate.cuh: the implicit filter in one kernel, for signals of 16 bits (cuda_filter.cu):
//     h[c,j] = (W4 a3)[c,j] (exp(-t_j delta_c) + shift),  a3: cuda_hidden.cuh
// Method    A block has 64 positions: their hidden layers in shared memory, then channel after
//           channel, 16 a warp. W4 and a3 are cut into two halves each, high and low (22 bits), and
//           three of the four products of halves are added; each channel of W4 is scaled by a power
//           of two, so that halves hold it. A lane has four neighbours in k: its part of W4 is one
//           access, and both halves of its part of a3 are another. Where L gives fewer blocks than
//           there are SMs, several blocks share the channels and each has the hidden layers.
// Cost      2 L (E W + 2 W^2) flop in float64, 6 L W C in halves; device memory 4 L C bytes; no
//           workspace. A tile of 16 x 64: 96 products, 32 + 8 + 8 accesses of 16 bytes.
//           Measured, W = 64, C = 768, with a branch for each access: 29 us at L = 8192, 205 at
//           65536. Predicted without: 20 and 140.
// Accuracy  about 1e-6 of h, most of it from the hidden layers (emulated).
// Refuses   as cuda_hidden.cuh.
#ifndef HB_DEVICE_CUDA_GENERATE_CUH
#define HB_DEVICE_CUDA_GENERATE_CUH

#include "cuda_hidden.cuh"

struct generate_args {
    struct hidden_net net;
    float *h;                    // (C,L)
    const float *w4;             // (C,W)
    int64_t C, L;
    struct window<float> win;
    bool vectors;                // rows of h and w4 lie at multiples of 16 bytes
};

// a3 as halves: a position has 16 bytes for each four features, high and then low. The distance of
// two positions is an odd multiple of 64 bytes: 8 lanes (2 positions, 4 times 4 features) hit all
// banks.
enum { HALF_STRIDE = 4 * HIDDEN_MOST + 64 };

// Two floats as pairs of halves: x = high + low.
static __device__ __forceinline__ void cut_halves(uint32_t &high, uint32_t &low, float x0, float x1)
{
    const __half2 h = __floats2half2_rn(x0, x1);
    const float2 back = __half22float2(h);
    const __half2 l = __floats2half2_rn(x0 - back.x, x1 - back.y);
    high = *(const uint32_t *)&h;
    low = *(const uint32_t *)&l;
}

// c (16,8) += a (16,16) b (16,8), of halves. Lane (g,t) = (lane/4, lane%4) holds of a, by pairs,
// rows g, g+8, g, g+8 at k = 2t, 2t, 2t+8, 2t+8; of b column g at k = 2t, 2t+8; of c what `mma` of
// floats has. Which k those are does not matter, if they are the same in a and b.
static __device__ __forceinline__ void mma_halves(float (&c)[4], const uint32_t (&a)[4],
                                                  uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Asks for n floats that later steps read to be brought to L2, a share for each of the blocks.
static __device__ __forceinline__ void ask_for(const float *p, int64_t n, int64_t block,
                                               int64_t blocks)
{
    const int64_t step = blocks * WIDE_THREADS * 32;                      // a line has 32
    for (int64_t i = (block * WIDE_THREADS + threadIdx.x) * 32; i < n; i += step)
        asm volatile("prefetch.global.L2 [%0];" :: "l"(p + i));
}

// w[k .. k+3] of a row of W; beyond it others of the row, since a3 is zero there. VECTORS: rows lie
// at multiples of 16 bytes.
template <bool VECTORS>
static __device__ __forceinline__ float4 four_weights(const float *w, int k, int W)
{
    if constexpr (VECTORS) return *(const float4 *)(w + min(k, W - 4));
    else return make_float4(w[min(k, W - 1)], w[min(k + 1, W - 1)], w[min(k + 2, W - 1)],
                            w[min(k + 3, W - 1)]);
}

// The power of two that takes m into [1, 2), and its inverse; m normal and not extremely large.
static __device__ __forceinline__ float to_one(float m, float *back)
{
    const uint32_t e = min(max(__float_as_uint(m) >> 23, 1u), 253u);
    *back = __uint_as_float(e << 23);
    return __uint_as_float((254 - e) << 23);
}

// h of a channel at this lane's positions p .. p+3, p+16 .. p+19, ...: the products (sums of two
// tiles, at `at` and after it) by `back` and the window. VECTORS: all are there, whole vectors.
template <bool VECTORS>
static __device__ __forceinline__ void put_channel(const struct generate_args &g, int64_t channel,
                                                   int64_t p, const float (&sums)[8][4], int at,
                                                   float back)
{
    const float c = (float)channel, j = (float)p;
    const float leap = g.win.along_j(16, c), next = g.win.along_j(1, c);
    const float shift = g.win.on ? g.win.shift * back : 0.0f;
    float v = g.win.at(j, c) * back;
    float *to = g.h + channel * g.L + p;
    #pragma unroll
    for (int m = 0; m < 4; m++, v *= leap) {
        const float v1 = v * next, v2 = v1 * next, v3 = v2 * next;
        const float y[4] = { sums[2 * m][at] * (v + shift), sums[2 * m][at + 1] * (v1 + shift),
                             sums[2 * m + 1][at] * (v2 + shift),
                             sums[2 * m + 1][at + 1] * (v3 + shift) };
        if constexpr (VECTORS) {
            *(float4 *)(to + 16 * m) = make_float4(y[0], y[1], y[2], y[3]);
        } else {
            #pragma unroll
            for (int i = 0; i < 4; i++)
                if (p + 16 * m + i < g.L) to[16 * m + i] = y[i];
        }
    }
}

// 16 channels from c0 on at the block's positions. Column (row) of tile n is the position
// 16 (n / 2) + 4 (row / 2) + 2 (n % 2) + row % 2, so that a lane's results are neighbours, too.
template <bool VECTORS>
static __device__ __forceinline__ void last_layer(const struct generate_args &g, int64_t c0,
                                                  int64_t p0, const unsigned char *halves)
{
    constexpr int STEPS = HIDDEN_MOST / 16;
    const int lane = (int)threadIdx.x % 32, row = lane / 4, t = lane % 4, W = g.net.W;
    float4 w[2][STEPS];
    float scale[2], back[2], sums[8][4] = {};
    #pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t c = c0 + row + 8 * h;
        const float *const from = g.w4 + (c < g.C ? c : g.C - 1) * W;
        #pragma unroll
        for (int s = 0; s < STEPS; s++) w[h][s] = four_weights<VECTORS>(from, 16 * s + 4 * t, W);
    }
    #pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = 0;
        #pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const float4 v = w[h][s];
            top = fmaxf(top, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
        }
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        scale[h] = to_one(top, &back[h]);
    }
    halves += (4 * (row / 2) + row % 2) * HALF_STRIDE + t * 16;
    #pragma unroll
    for (int s = 0; s < STEPS; s++) {
        if (16 * s >= W) break;
        uint32_t high[4], low[4];
        #pragma unroll
        for (int h = 0; h < 2; h++) {
            const float4 v = w[h][s];
            cut_halves(high[h], low[h], v.x * scale[h], v.y * scale[h]);
            cut_halves(high[h + 2], low[h + 2], v.z * scale[h], v.w * scale[h]);
        }
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            const int p = 16 * (n / 2) + 2 * (n % 2);
            const uint4 a = *(const uint4 *)(halves + p * HALF_STRIDE + 64 * s);
            mma_halves(sums[n], low, a.x, a.y);
            mma_halves(sums[n], high, a.z, a.w);
            mma_halves(sums[n], high, a.x, a.y);
        }
    }
    #pragma unroll
    for (int h = 0; h < 2; h++)
        if (c0 + row + 8 * h < g.C)
            put_channel<VECTORS>(g, c0 + row + 8 * h, p0 + 4 * t, sums, 2 * h, back[h]);
}

// Grid (n in tiles, shares of the channels). Dynamic shared: HIDDEN_BYTES.
static __global__ __launch_bounds__(WIDE_THREADS, 1) void generate_kernel(
    const __grid_constant__ struct generate_args g)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const hidden_space h = hidden_share(shared);
    unsigned char *const halves = (unsigned char *)h.other;    // fits where `other` does
    const int64_t p0 = blockIdx.x * (int64_t)TILE;
    ask_for(g.w4, g.C * g.net.W, blockIdx.x, gridDim.x);
    hidden_load(h, g.net, p0, g.L);
    __syncthreads();
    #pragma unroll 1
    for (int l = 0; l < 2; l++) {
        double *const below = l ? h.other : h.one, *const above = l ? h.one : h.other;
        hidden_layer(h, g.net, l, below, [&](int r, int p, double, double, float a0, float a1) {
            hidden_keep(above, r, p, a0, a1);
        });
        __syncthreads();
    }
    hidden_layer(h, g.net, 2, h.one, [&](int r, int p, double, double, float a0, float a1) {
        uint32_t high, low;
        cut_halves(high, low, a0, a1);
        unsigned short *at = (unsigned short *)(halves + p * HALF_STRIDE + r / 4 * 16) + r % 4;
        at[0] = (unsigned short)high;
        at[4] = (unsigned short)low;
        at += HALF_STRIDE / 2;
        at[0] = (unsigned short)(high >> 16);
        at[4] = (unsigned short)(low >> 16);
    });
    __syncthreads();
    const int64_t first = (int64_t)(threadIdx.x / 32) * gridDim.y + blockIdx.y;
    const bool vectors = g.vectors && p0 + TILE <= g.L;
    #pragma unroll 1
    for (int64_t c0 = 16 * first; c0 < g.C; c0 += 16 * WIDE * gridDim.y)
        if (vectors) last_layer<true>(g, c0, p0, halves);
        else last_layer<false>(g, c0, p0, halves);
}

#endif
