// cuda_generate.cuh: the implicit filter in one kernel, for signals of 16 bits (cuda_filter.cu):
//     h[c,j] = (W4 a3)[c,j] (exp(-t_j delta_c) + shift),  a3: cuda_hidden.cuh
// Method    Two blocks an SM, so that one has products where the other waits. A block keeps the
//           hidden layers' weights and takes P positions after P positions: their hidden layers in
//           shared memory, each over the one before, then channel after channel, 16 a warp. W4 and
//           a3 are cut into two halves each, high and low (22 bits), and three of the four products
//           of halves are added; each channel of W4 is scaled by a power of two, so that halves
//           hold it. `cut_kernel` does that once, in the order in which lanes want it; a warp has
//           its channels in registers and fetches the next ones as it goes. A lane has four
//           neighbours in k: both halves of its part of a3 are one access. Where L gives fewer
//           pieces of P positions than there is room for blocks, several blocks share the channels
//           and each has the hidden layers.
// Cost      2 L (E W + 2 W^2) flop in float64, 6 L W C in halves; device memory 4 L C bytes; a
//           workspace of 272 C bytes. A tile of 16 x 64: 96 products, 32 + 8 + 8 accesses of 16
//           bytes. Measured, W = 64, C = 768, by blocks of 16 warps, one an SM, that cut W4 again
//           for each 64 positions: 29 us at L = 8192, 204 at 65536. Predicted now: 18 and 110.
// Accuracy  about 1e-6 of h, most of it from the hidden layers (emulated).
// Refuses   as cuda_hidden.cuh.
#ifndef HB_DEVICE_CUDA_GENERATE_CUH
#define HB_DEVICE_CUDA_GENERATE_CUH

#include "cuda_hidden.cuh"

enum {
    GENERATE_WARPS = 8, GENERATE_THREADS = 32 * GENERATE_WARPS,
    GENERATE_RESIDENT = 2,       // blocks an SM
    STEPS = HIDDEN_MOST / 16,    // of 16 features; beyond W there are zeros
    // a3 as halves. A pair of positions: 64 bytes for each 16 features of the one, and 64 of the
    // other; of these 16 for four features each, high and then low. 8 lanes (2 positions, 4 times 4
    // features) read all banks. 32 bytes between pairs: 32 lanes write two words a bank.
    PAIR_STRIDE = 8 * HIDDEN_MOST + 32,
};
template <int P> constexpr int HALVES_BYTES = P / 2 * PAIR_STRIDE;
template <int P> constexpr int GENERATE_BYTES = HIDDEN_ROWS<P> * 8 + HALVES_BYTES<P>
                                                + HIDDEN_WEIGHTS;

// W4 of 16 channels in halves, for the lanes (row, t): high and low of rows row, row + 8 (of 16) at
// k = 4t, 4t + 1; the same at 4t + 2, 4t + 3.
struct cut_weights { uint4 of[STEPS][2][32]; };

// Of a channel: the inverse of its scale; what the window goes by from one position to the next and
// to the one 16 later; its rate of decay.
struct alignas(16) channel { float back, next, leap, rate; };

struct generate_args {
    struct hidden_net net;
    float *h;                    // (C,L)
    const float *w4;             // (C,W)
    struct cut_weights *cut;     // C rounded up to 16
    struct channel *channels;    // the same
    int64_t C, L;
    struct window<float> win;
};

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

// The power of two that takes m into [1, 2), and its inverse; m normal and not extremely large.
static __device__ __forceinline__ float to_one(float m, float *back)
{
    const uint32_t e = min(max(__float_as_uint(m) >> 23, 1u), 253u);
    *back = __uint_as_float(e << 23);
    return __uint_as_float((254 - e) << 23);
}

// The kernel of the hidden and last layers may begin, for the hidden layers need nothing of
// `cut_kernel`; and it waits until `cut_kernel` has ended.
static __device__ __forceinline__ void cut_begun()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
static __device__ __forceinline__ void cut_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// W4 in halves. Grid (groups of 16 channels), a warp.
static __global__ void cut_kernel(const __grid_constant__ struct generate_args g)
{
    const int lane = (int)threadIdx.x, row = lane / 4, t = lane % 4, W = g.net.W;
    cut_begun();
    float w[2][STEPS][4], scale[2];
    #pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t c = 16 * (int64_t)blockIdx.x + row + 8 * h;
        const float *const from = g.w4 + c * W;
        float top = 0;
        #pragma unroll
        for (int i = 0; i < 4 * STEPS; i++) {
            const int k = 16 * (i / 4) + 4 * t + i % 4;
            w[h][i / 4][i % 4] = c < g.C && k < W ? from[k] : 0.0f;
        }
        #pragma unroll
        for (int i = 0; i < 4 * STEPS; i++) top = fmaxf(top, fabsf(w[h][i / 4][i % 4]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        struct channel at;
        scale[h] = to_one(top, &at.back);
        at.rate = g.win.on ? g.win.dt * (g.win.slow + (float)c * g.win.step) : 0.0f;
        at.next = g.win.along_j(1, (float)c);
        at.leap = g.win.along_j(16, (float)c);
        if (t == 0) g.channels[c] = at;
    }
    #pragma unroll
    for (int s = 0; s < STEPS; s++) {
        uint32_t high[4], low[4];
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            const float (&v)[4] = w[i % 2][s];
            const int k = i / 2 * 2;
            cut_halves(high[i], low[i], v[k] * scale[i % 2], v[k + 1] * scale[i % 2]);
        }
        struct cut_weights *const to = g.cut + blockIdx.x;
        to->of[s][0][lane] = make_uint4(high[0], high[1], high[2], high[3]);
        to->of[s][1][lane] = make_uint4(low[0], low[1], low[2], low[3]);
    }
}

// 16 bytes of device memory, asked for here and nowhere later.
static __device__ __forceinline__ uint4 fetch(const uint4 *p)
{
    uint4 v;
    asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

// Writes 16 bytes to device memory if `in`: one store, no branch.
static __device__ __forceinline__ void put_vector(float *to, bool in, const float (&y)[4])
{
    asm volatile("{ .reg .pred in; setp.ne.s32 in, %0, 0;"
                 " @in st.global.v4.f32 [%1], {%2,%3,%4,%5}; }"
                 :: "r"((int)in), "l"(to), "f"(y[0]), "f"(y[1]), "f"(y[2]), "f"(y[3]));
}

// h of a channel at this lane's positions p .. p+3, p+16 .. p+19, ...: the products (sums of two
// tiles, at `at` and after it) by `back` and the window. VECTORS: h and L are multiples of 16 bytes
// and of 4.
template <int P, bool VECTORS>
static __device__ __forceinline__ void put_channel(const struct generate_args &g, float *to,
                                                   const struct channel &of, int64_t p,
                                                   const float (&sums)[P / 8][4], int at)
{
    const float shift = g.win.on ? g.win.shift * of.back : 0.0f;
    const float next2 = of.next * of.next, next3 = next2 * of.next;
    float v = expf(-(float)p * of.rate) * of.back;
    #pragma unroll
    for (int m = 0; m < P / 16; m++, v *= of.leap) {
        const float y[4] = { sums[2 * m][at] * (v + shift),
                             sums[2 * m][at + 1] * fmaf(v, of.next, shift),
                             sums[2 * m + 1][at] * fmaf(v, next2, shift),
                             sums[2 * m + 1][at + 1] * fmaf(v, next3, shift) };
        if constexpr (VECTORS) {
            put_vector(to + 16 * m, p + 16 * m < g.L, y);
        } else {
            #pragma unroll
            for (int i = 0; i < 4; i++)
                if (p + 16 * m + i < g.L) to[16 * m + i] = y[i];
        }
    }
}

// This block's channels at P positions. Column (row) of tile n is the position 16 (n / 2) +
// 4 (row / 2) + 2 (n % 2) + row % 2, so that a lane's results are neighbours, too.
template <int P, bool VECTORS>
static __device__ __forceinline__ void last_layer(const struct generate_args &g, int64_t p0,
                                                  const unsigned char *halves)
{
    const int lane = (int)threadIdx.x % 32, row = lane / 4, t = lane % 4;
    const int groups = (int)((g.C + 15) / 16), step = GENERATE_WARPS * (int)gridDim.y;
    int group = (int)(threadIdx.x / 32 * gridDim.y + blockIdx.y);
    if (group >= groups) return;
    const int64_t p = p0 + 4 * t;
    uint4 w[STEPS][2];
    #pragma unroll
    for (int i = 0; i < 2 * STEPS; i++)
        w[i / 2][i % 2] = fetch(&g.cut[group].of[i / 2][i % 2][lane]);
    halves += row / 2 * 2 * PAIR_STRIDE + row % 2 * 64 + t * 16;
    #pragma unroll 1
    for (; group < groups; group += step) {
        const int64_t c = 16 * (int64_t)group + row;
        const struct channel of[2] = { g.channels[c], g.channels[c + 8] };
        const struct cut_weights *const then = g.cut + min(group + step, groups - 1);
        float sums[P / 8][4] = {};
        #pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const uint4 h = w[s][0], l = w[s][1];
            const uint32_t high[4] = { h.x, h.y, h.z, h.w }, low[4] = { l.x, l.y, l.z, l.w };
            #pragma unroll
            for (int half = 0; half < P / 8; half += 4) {
                uint4 a[4];
                #pragma unroll
                for (int i = 0; i < 4; i++)
                    a[i] = *(const uint4 *)(halves + 128 * s
                                            + ((half + i) / 2 * 8 + i % 2) * PAIR_STRIDE);
                #pragma unroll
                for (int i = 0; i < 4; i++) mma_halves(sums[half + i], low, a[i].x, a[i].y);
                #pragma unroll
                for (int i = 0; i < 4; i++) mma_halves(sums[half + i], high, a[i].z, a[i].w);
                #pragma unroll
                for (int i = 0; i < 4; i++) mma_halves(sums[half + i], high, a[i].x, a[i].y);
            }
            w[s][0] = fetch(&then->of[s][0][lane]);
            w[s][1] = fetch(&then->of[s][1][lane]);
        }
        #pragma unroll
        for (int h = 0; h < 2; h++)
            if (c + 8 * h < g.C)
                put_channel<P, VECTORS>(g, g.h + (c + 8 * h) * g.L + p, of[h], p, sums, 2 * h);
    }
}

// Where a lane writes a3 of its first feature and position, of the two that halves_keep leaves it.
template <class T>
static __device__ __forceinline__ unsigned char *halves_of(unsigned char *halves, const T &piece)
{
    return halves + (piece.p0 / 2 + piece.t) * PAIR_STRIDE + piece.r0 / 16 * 128
           + piece.row % 2 * 64 + piece.row / 4 * 16 + piece.row % 4 / 2 * 4;
}

// Writes a3 of a feature at two neighbouring positions: two lanes, of neighbouring features,
// exchange, and each has both features at one position. odd: is it the second feature?
static __device__ __forceinline__ void halves_keep(unsigned char *to, int odd, float a0, float a1)
{
    const float other = __shfl_xor_sync(0xffffffffu, odd ? a0 : a1, 4);
    uint32_t high, low;
    cut_halves(high, low, odd ? other : a0, odd ? a1 : other);
    *(uint32_t *)to = high;
    *(uint32_t *)(to + 8) = low;
}

// Grid (blocks, shares of the channels). Dynamic shared: GENERATE_BYTES.
template <int P, bool VECTORS>
static __global__ __launch_bounds__(GENERATE_THREADS, GENERATE_RESIDENT) void generate_kernel(
    const __grid_constant__ struct generate_args g)
{
    extern __shared__ __align__(16) unsigned char shared[];
    double *const rows = (double *)shared;
    unsigned char *const halves = shared + HIDDEN_ROWS<P> * 8;
    const hidden_space h = hidden_share(halves + HALVES_BYTES<P>);
    hidden_table<P, GENERATE_WARPS> table;
    hidden_piece<P, GENERATE_WARPS> piece;
    unsigned char *const halves_at = halves_of(halves, piece);
    int64_t p0 = blockIdx.x * (int64_t)P;
    table.fetch(g.net, p0, g.L);
    hidden_load<GENERATE_WARPS>(h, g.net);
    if (g.net.W < HIDDEN_MOST)                   // features that there are not remain zeros
        for (int i = (int)threadIdx.x; i < HALVES_BYTES<P> / 4; i += GENERATE_THREADS)
            ((uint32_t *)halves)[i] = 0;
    table.put(rows, g.net);
    #pragma unroll 1
    for (; p0 < g.L; p0 += gridDim.x * (int64_t)P) {
        __syncthreads();                         // the rows are there; the halves are free
        #pragma unroll 1
        for (int l = 0; l < 2; l++) {
            piece.multiply(h, g.net, l, rows);
            __syncthreads();                     // the rows are read
            piece.finish(h, g.net, l, [&](int i, int n, double, double, float a0, float a1) {
                piece.keep(rows, i, n, a0, a1);
            });
            __syncthreads();
        }
        table.fetch(g.net, p0 + gridDim.x * (int64_t)P, g.L);
        piece.multiply(h, g.net, 2, rows);
        piece.finish(h, g.net, 2, [&](int i, int n, double, double, float a0, float a1) {
            halves_keep(halves_at + n * 4 * PAIR_STRIDE + i * 32, piece.row % 2, a0, a1);
        });
        __syncthreads();
        table.put(rows, g.net);
        cut_wait();
        last_layer<P, VECTORS>(g, p0, halves);
    }
}

#endif
