// cuda_generate.cuh: the implicit filter in one kernel, for signals of 16 bits (cuda_filter.cu):
//     h[c,j] = (W4 a3)[c,j] (exp(-t_j delta_c) + shift),  a3: cuda_hidden.cuh
// Method    Two blocks an SM, so that one has products where the other waits. A block keeps the
//           hidden layers' weights and takes P positions after P positions: their hidden layers in
//           shared memory, each over the one before, then channel after channel, 64 for four warps.
//           W4 and a3 are cut into two halves each, high and low (22 bits), and three of the four
//           products of halves are added; each channel of W4 is scaled by a power of two, so that
//           halves hold it. `cut_kernel` does that once, in the order in which lanes want it; a
//           warp has its channels in registers and fetches the next ones as it goes. The products
//           are wgmma with a3 in shared memory, 128-byte swizzle; on other devices mma. Where L
//           gives fewer pieces of P positions than there is room for blocks, several blocks share
//           the channels and each has the hidden layers.
// Cost      2 L (E W + 2 W^2) flop in float64, 6 L W C in halves; device memory 4 L C bytes; a
//           workspace of 272 C bytes. A tile of 64 x 64: 12 wgmma, 8 + 8 accesses of 16 bytes a
//           lane. Measured, W = 64, C = 768, at L = 8192 and 65536: by blocks of 16 warps, one an
//           SM, that cut W4 again for each 64 positions, 29 and 204 us; with wgmma and blocks for
//           two an SM 20.7 and 108 (predicted 16 and 92), and 4.3 for cut_kernel alone. Not yet
//           measured: all of an SM's shared memory asked for (were there two?), fewer instructions
//           before the first product and for a sine.
// Accuracy  about 1e-6 of h, most of it from the hidden layers (emulated).
// Refuses   as cuda_hidden.cuh.
#ifndef HB_DEVICE_CUDA_GENERATE_CUH
#define HB_DEVICE_CUDA_GENERATE_CUH

#include "../longconv/fused/toeplitz_pieces.cuh"
#include "cuda_hidden.cuh"

enum {
    GENERATE_WARPS = 8, GENERATE_THREADS = 32 * GENERATE_WARPS,
    GENERATE_RESIDENT = 2,       // blocks an SM
    STEPS = HIDDEN_MOST / 16,    // of 16 features; beyond W there are zeros
    UNIT = 64,                   // channels of four warps, 16 each
    UNITS = GENERATE_WARPS / 4,  // at once
};
// a3 as halves: high, and then low. A row of HIDDEN_MOST features for each column of the product
// (column_of), in 128-byte swizzle: 16 bytes of a row are where 8 rows have them in all banks.
template <int P> constexpr int HALF_BYTES = P * HIDDEN_MOST * 2;
template <int P> constexpr int GENERATE_BYTES = HIDDEN_ROWS<P> * 8 + 2 * HALF_BYTES<P>
                                                + HIDDEN_WEIGHTS;

// W4 of 16 channels in halves, for the lanes (row, t): high and low of rows row, row + 8 (of 16) at
// k = 2t, 2t + 1; the same at 2t + 8, 2t + 9.
struct cut_weights { uint4 of[STEPS][2][32]; };

// Of a channel: the inverse of its scale; what the window goes by from one position to the next and
// to the one 16 later; its rate of decay.
struct alignas(16) channel { float back, next, leap, rate; };

struct generate_args {
    struct hidden_net net;
    float *h;                    // (C,L)
    const float *w4;             // (C,W)
    struct cut_weights *cut;     // C rounded up to UNIT, by 16
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
            const int k = 16 * (i / 4) + 2 * t + i % 4 / 2 * 8 + i % 2;
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
                                                   const float (&sums)[P / 2], int at)
{
    const float shift = g.win.on ? g.win.shift * of.back : 0.0f;
    const float next2 = of.next * of.next, next3 = next2 * of.next;
    float v = expf(-(float)p * of.rate) * of.back;
    #pragma unroll
    for (int m = 0; m < P / 16; m++, v *= of.leap) {
        const float y[4] = { sums[8 * m + at] * (v + shift),
                             sums[8 * m + at + 1] * fmaf(v, of.next, shift),
                             sums[8 * m + at + 4] * fmaf(v, next2, shift),
                             sums[8 * m + at + 5] * fmaf(v, next3, shift) };
        if constexpr (VECTORS) {
            put_vector(to + 16 * m, p + 16 * m < g.L, y);
        } else {
            #pragma unroll
            for (int i = 0; i < 4; i++)
                if (p + 16 * m + i < g.L) to[16 * m + i] = y[i];
        }
    }
}

// The column of the products at which a position is: those of a lane, 2t and 2t + 1 of each 8, are
// 4t .. 4t+3 of each 16 positions.
static __device__ __forceinline__ int column_of(int p)
{
    return p / 16 * 16 + p % 4 / 2 * 8 + p % 16 / 4 * 2 + p % 2;
}

// sums (16 channels a warp by P columns) = w a3. Element 4n + 2h + i of sums: channel row + 8h of
// the warp's, column 8n + 2t + i.
template <int P>
static __device__ __forceinline__ void multiply_halves(float (&sums)[P / 2],
                                                       const uint4 (&w)[STEPS][2],
                                                       const unsigned char *halves)
{
    #pragma unroll
    for (int i = 0; i < P / 2; i++) sums[i] = 0;
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const uint64_t above = toeplitz::tile_of(halves), below = above + HALF_BYTES<P> / 16;
    toeplitz::wgmma_begin();
    #pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const uint4 h = w[s][0], l = w[s][1];
        const uint32_t high[4] = { h.x, h.y, h.z, h.w }, low[4] = { l.x, l.y, l.z, l.w };
        toeplitz::wgmma<__half, P / 2>(sums, low, above + 2 * s);
        toeplitz::wgmma<__half, P / 2>(sums, high, below + 2 * s);
        toeplitz::wgmma<__half, P / 2>(sums, high, above + 2 * s);
    }
    toeplitz::wgmma_commit();
    toeplitz::wgmma_done<0>();
#else
    const int lane = (int)threadIdx.x % 32, row = lane / 4;
    halves += row * 128 + lane % 4 * 4;
    #pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const uint4 h = w[s][0], l = w[s][1];
        const uint32_t high[4] = { h.x, h.y, h.z, h.w }, low[4] = { l.x, l.y, l.z, l.w };
        #pragma unroll
        for (int n = 0; n < P / 8; n++) {
            const unsigned char *const at = halves + n * 1024;
            const int first = (2 * s ^ row) * 16, second = (2 * s + 1 ^ row) * 16;
            const uint32_t a0 = *(const uint32_t *)(at + first);
            const uint32_t a1 = *(const uint32_t *)(at + second);
            const uint32_t b0 = *(const uint32_t *)(at + HALF_BYTES<P> + first);
            const uint32_t b1 = *(const uint32_t *)(at + HALF_BYTES<P> + second);
            float (&c)[4] = *(float (*)[4])&sums[4 * n];
            toeplitz::mma<__half>(c, low, a0, a1);
            toeplitz::mma<__half>(c, high, b0, b1);
            toeplitz::mma<__half>(c, high, a0, a1);
        }
    }
#endif
}

// This block's channels at P positions.
template <int P, bool VECTORS>
static __device__ __forceinline__ void last_layer(const struct generate_args &g, int64_t p0,
                                                  const unsigned char *halves)
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int units = (int)((g.C + UNIT - 1) / UNIT), step = UNITS * (int)gridDim.y;
    int unit = warp / 4 * (int)gridDim.y + (int)blockIdx.y;
    if (unit >= units) return;
    const int64_t p = p0 + lane % 4 * 4;
    const struct cut_weights *cut = g.cut + unit * 4 + warp % 4;
    uint4 w[STEPS][2];
    #pragma unroll
    for (int i = 0; i < 2 * STEPS; i++) w[i / 2][i % 2] = fetch(&cut->of[i / 2][i % 2][lane]);
    #pragma unroll 1
    for (; unit < units; unit += step) {
        const int64_t c = UNIT * (int64_t)unit + warp % 4 * 16 + lane / 4;
        const struct channel of[2] = { g.channels[c], g.channels[c + 8] };
        float sums[P / 2];
        multiply_halves<P>(sums, w, halves);
        if (unit + step < units) cut += step * 4;
        #pragma unroll
        for (int i = 0; i < 2 * STEPS; i++) w[i / 2][i % 2] = fetch(&cut->of[i / 2][i % 2][lane]);
        #pragma unroll
        for (int h = 0; h < 2; h++)
            if (c + 8 * h < g.C)
                put_channel<P, VECTORS>(g, g.h + (c + 8 * h) * g.L + p, of[h], p, sums, 2 * h);
    }
}

// Where a lane writes a3 of its first feature (even, of two) at position p.
static __device__ __forceinline__ unsigned char *halves_of(unsigned char *halves, int feature,
                                                           int p)
{
    const int column = column_of(p);
    return halves + column * 128 + (feature / 8 ^ column % 8) * 16 + feature % 8 * 2;
}

// Writes a3 of a feature at two neighbouring positions: two lanes, of neighbouring features,
// exchange, and each has both features at one position. odd: is it the second feature?
template <int P>
static __device__ __forceinline__ void halves_keep(unsigned char *to, int odd, float a0, float a1)
{
    const float other = __shfl_xor_sync(0xffffffffu, odd ? a0 : a1, 4);
    uint32_t high, low;
    cut_halves(high, low, odd ? other : a0, odd ? a1 : other);
    *(uint32_t *)to = high;
    *(uint32_t *)(to + HALF_BYTES<P>) = low;
}

// Grid (blocks, shares of the channels). Dynamic shared: GENERATE_BYTES. VECTORS: of h, and of the
// hidden layers' weights.
template <int P, bool VECTORS>
static __global__ __launch_bounds__(GENERATE_THREADS, GENERATE_RESIDENT) void generate_kernel(
    const __grid_constant__ struct generate_args g)
{
    extern __shared__ __align__(1024) unsigned char space[];
    double *const rows = (double *)space;
    unsigned char *const halves = space + HIDDEN_ROWS<P> * 8;
    static_assert(HIDDEN_ROWS<P> * 8 % 1024 == 0 && HALF_BYTES<P> % 1024 == 0);   // swizzle
    const hidden_space h = hidden_share(halves + 2 * HALF_BYTES<P>);
    hidden_table<P, GENERATE_WARPS> table;
    hidden_piece<P, GENERATE_WARPS> piece;
    int64_t p0 = blockIdx.x * (int64_t)P;
    table.fetch(g.net, p0, g.L);
    hidden_load<GENERATE_WARPS, VECTORS>(h, g.net);
    if (g.net.W < HIDDEN_MOST)                   // features that there are not remain zeros
        for (int i = (int)threadIdx.x; i < 2 * HALF_BYTES<P> / 4; i += GENERATE_THREADS)
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
            const int odd = piece.row % 2;
            halves_keep<P>(halves_of(halves, piece.feature(i) - odd, piece.position(n) + odd), odd,
                           a0, a1);
        });
        toeplitz::publish();
        __syncthreads();
        table.put(rows, g.net);
        cut_wait();
        last_layer<P, VECTORS>(g, p0, halves);
    }
}

#endif
