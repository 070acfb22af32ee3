// columns.cuh: the outermost digit of a long right-angle transform, tensor cores, CUDA.
//     N = R1 N2,  n = a N2 + r,  k = k1 + R1 k2,  x real
//     columns_in    V[k1][r] = 1/R1 T[k1][r] sum_a G[k1][a] x[a N2 + r]                 half2
//     columns_out   y[a N2 + r] = Re sum_k1 conj(G[k1][a] T[k1][r]) W[k1][r]            W half2
//     G[k1][a] = e(-a (4 k1 - 1) / (4 R1)),  T[k1][r] = e(-r (4 k1 - 1) / (4 N)),
//     e(x) = e^{2 pi i x}
// The twist e(n / 4N) of the right-angle convolution is in G and T: frequencies are k - 1/4.
// Between the two somebody transforms each row k1 (N2 points, complex), multiplies by the filter's
// spectrum (got from h by columns_in too) and transforms back.
// Method    One warp owns R1 x 32 samples in registers and nothing passes through shared memory:
//           columns are dealt to the tiles of mma.sync m16n8k16 so that a lane's pairs are
//           neighbours in memory, for loads and for stores (whole 32-byte sectors). In: rows i of A
//           are Re and i + 8 Im of one k1, so that a lane has both parts. Out: the half2 (Re, Im)
//           of k1 is a pair of B, A has (cos, -sin). T starts from a table (made in float64) for
//           k1 < 8 and is turned by e(-8 r / N) from one eight to the next, in float32.
// Exponents Row i of x is scaled by 2^e, its largest |x| to [2^14, 2^15) (column_tops; integer
//           maximum, so the order does not matter), and |V| stays below. W[k1] = true 2^exps[k1].
// Cost      4 R1 flop a sample each; bytes a sample 2 + 4 and 4 + 2 (V, W: in L2).
// Accuracy  whole convolution, simulated with half storage: 8.1e-4 at N = 2^16, 7.6e-4 at 2^21;
//           constants 9.1e-4; one outlier of 1e4, amplitudes 1e-3 and 1e3: no worse.
// Limits    R1 = 16, 32, 64, 128; N2 a multiple of 256; N <= 2^23; L <= N.
#ifndef HB_FUSED_COLUMNS_CUH
#define HB_FUSED_COLUMNS_CUH

#include "../../core/cuda.cuh"

enum {
    COLUMN_TILES = 4,                    // of 8 columns, a warp
    COLUMN_WIDTH = 8 * COLUMN_TILES,
    COLUMN_WARPS = 4,                    // in a block: 128 neighbouring columns
    COLUMN_THREADS = 32 * COLUMN_WARPS,
};

// Constants of one (R1, N2), in device memory.
struct column_tables {
    int R1, N2;
    const float2 *turn;                  // (9, N2): T[k1][r], k1 < 8; then e(-8 r / N)
    const uint4 *in, *out;               // fragments of G: (R1/8, R1/16, 32), (R1/16, R1/8, 32)
};

// Rows i = 0 .. of a chunk: channel i / batch, batch entry i % batch, both counted from x. Strides
// in elements. `tops`: bits of the largest |x| of row i, at
// i / batch * stop.c + i % batch * stop.b.
struct column_rows {
    void *x;
    struct hb_strides sx;
    unsigned *tops;
    struct hb_strides stop;
    int batch, L;
};

// --- pieces ------------------------------------------------------------------------------------
template <class T> constexpr bool COLUMN_HALF = false;
template <> constexpr bool COLUMN_HALF<__half> = true;

// c (16 x 8) += a (16 x 16) b (16 x 8)
__device__ __forceinline__ void column_mma(float (&c)[4], const uint4 &a, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// A word, or a half word, that is read once; 0 and nothing read where not `there`.
__device__ __forceinline__ uint32_t read_word(const void *p, bool there)
{
    uint32_t x;
    asm volatile("{.reg .pred q; setp.ne.s32 q, %2, 0; mov.b32 %0, 0;"
                 " @q ld.global.cs.b32 %0, [%1];}"
                 : "=r"(x) : "l"(p), "r"((int)there) : "memory");
    return x;
}

__device__ __forceinline__ uint32_t read_short(const void *p, bool there)
{
    uint16_t x;
    asm volatile("{.reg .pred q; setp.ne.s32 q, %2, 0; mov.b16 %0, 0;"
                 " @q ld.global.b16 %0, [%1];}"
                 : "=h"(x) : "l"(p), "r"((int)there) : "memory");
    return x;
}

__device__ __forceinline__ float word_float(uint32_t x) { return __uint_as_float(x); }

__device__ __forceinline__ uint32_t pack_halves(float x, float y)
{
    const __half2 v = __floats2half2_rn(x, y);
    return (uint32_t)__half_as_ushort(v.x) | (uint32_t)__half_as_ushort(v.y) << 16;
}

__device__ __forceinline__ float2 unpack_halves(uint32_t w)
{
    return { __half2float(__ushort_as_half((unsigned short)w)),
             __half2float(__ushort_as_half((unsigned short)(w >> 16))) };
}

__device__ __forceinline__ float2 times(float2 a, float2 b)
{
    return { a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x };
}

// 2^e for e in [-126, 127].
__device__ __forceinline__ float power(int e)
{
    return __uint_as_float((unsigned)(e + 127) << 23);
}

// e such that x 2^e < 2^15 for the largest |x|, given as bits; a row of zeros: 0.
__device__ __forceinline__ int column_exponent(unsigned top)
{
    const int e = top ? 14 + 127 - (int)(top >> 23) : 0;
    return e > 126 ? 126 : e;
}

// Samples n and n + 1 of a row, scaled, as a pair of halves. PAIRS: n and L are even and pairs lie
// at multiples of their size. d: added to sample 0 of float rows (the skip term is a tap).
template <class T, bool PAIRS>
__device__ __forceinline__ uint32_t read_pair(const T *row, int n, int L, float scale, float d)
{
    float x, y;
    if constexpr (sizeof(T) == 4) {
        x = word_float(read_word(row + n, n < L)) + (n == 0 ? d : 0);
        y = word_float(read_word(row + n + 1, n + 1 < L));
    } else {
        uint32_t w;
        if constexpr (PAIRS) w = read_word(row + n, n < L);
        else w = read_short(row + n, n < L) | read_short(row + n + 1, n + 1 < L) << 16;
        if constexpr (COLUMN_HALF<T>) {
            const float2 v = unpack_halves(w);
            x = v.x;
            y = v.y;
        } else {
            x = word_float(w << 16);
            y = word_float(w & 0xffff0000u);
        }
    }
    return pack_halves(x * scale, y * scale);
}

// --- constants ---------------------------------------------------------------------------------
__device__ __forceinline__ float2 unit(double turns)               // e(turns)
{
    double s, c;
    sincospi(2 * turns, &s, &c);
    return { (float)c, (float)s };
}

// G[k1][a], exactly reduced.
__device__ __forceinline__ float2 column_g(int R1, int k1, int a)
{
    const int m = (int)((int64_t)a * (4 * k1 - 1) % (4 * R1));     // -1 .. 4 R1 - 1
    return unit(-(double)m / (4 * R1));
}

// Grid covers max(9 N2, R1 R1 / 4) threads.
__global__ void column_constants(float2 *turn, uint4 *in, uint4 *out, int R1, int N2)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const double N = (double)R1 * N2;
    if (i < 9 * N2) {
        const int k1 = i / N2, r = i % N2;
        turn[i] = k1 < 8 ? unit(-(double)r * (4 * k1 - 1) / (4 * N)) : unit(-8.0 * r / N);
    }
    if (i >= R1 * R1 / 4) return;
    const int lane = i % 32, g = lane / 4, q = lane % 4;
    {                                                              // (R1/8, R1/16): Re over Im
        const int step = i / 32 % (R1 / 16), k1 = i / 32 / (R1 / 16) * 8 + g;
        float2 v[4];
        for (int e = 0; e < 4; e++)
            v[e] = column_g(R1, k1, 16 * step + 2 * q + e % 2 + e / 2 * 8);
        in[i] = { pack_halves(v[0].x, v[1].x), pack_halves(v[0].y, v[1].y),
                  pack_halves(v[2].x, v[3].x), pack_halves(v[2].y, v[3].y) };
    }
    {                                                              // (R1/16, R1/8): (Re, Im) pairs
        const int step = i / 32 % (R1 / 8), a = i / 32 / (R1 / 8) * 16 + g;
        uint32_t v[4];
        for (int e = 0; e < 4; e++) {
            const float2 z = column_g(R1, 8 * step + q + e / 2 * 4, a + e % 2 * 8);
            v[e] = pack_halves(z.x, z.y);
        }
        out[i] = { v[0], v[1], v[2], v[3] };
    }
}

// Bits of the largest |x| of every row into tops, which were 0. Grid (rows pieces).
template <class T>
__global__ void __launch_bounds__(256) column_tops(struct column_rows j, int pieces, const float *d)
{
    __shared__ unsigned tops[8];
    const int64_t i = blockIdx.x / (unsigned)pieces;
    const int piece = (int)(blockIdx.x % (unsigned)pieces);
    const int64_t c = i / j.batch, b = i % j.batch;
    const T *row = (const T *)j.x + c * j.sx.c + b * j.sx.b;
    const int per = ((j.L + pieces - 1) / pieces + 7) / 8 * 8;
    const int from = piece * per, to = min(j.L, from + per);
    unsigned top = 0;
    constexpr int VEC = HB_VEC<T>;
    int t = from;
    if ((uintptr_t)row % 16 == 0) {
        const int whole = to > from ? from + (to - from) / VEC * VEC : from;
#pragma unroll 4
        for (int i = from + (int)threadIdx.x * VEC; i < whole; i += 256 * VEC) {
            const struct hb_vec<T> v = *(const struct hb_vec<T> *)(row + i);
#pragma unroll
            for (int e = 0; e < VEC; e++)
                top = max(top, __float_as_uint(hb_load(v.x[e])) & 0x7fffffffu);
        }
        t = whole;
    }
    for (int i = t + (int)threadIdx.x; i < to; i += 256)
        top = max(top, __float_as_uint(hb_load(row[i])) & 0x7fffffffu);
    if (d && piece == 0 && threadIdx.x == 0)
        top = max(top, __float_as_uint(hb_load(row[0]) + d[c]) & 0x7fffffffu);
    for (int w = 16; w; w /= 2)
        top = max(top, __shfl_xor_sync(~0u, top, w));
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 0; w < 8; w++)
        top = max(top, tops[w]);
    if (top) atomicMax(j.tops + c * j.stop.c + b * j.stop.b, top);
}

// --- in ----------------------------------------------------------------------------------------
// b[step][tile]: columns r0 + 16 p + 2 g + {0, 1} of tiles 2 p, 2 p + 1; rows 16 step + 2 q ...
template <class T, int STEPS, bool PAIRS>
__device__ __forceinline__ void read_columns(uint32_t (&b)[STEPS][COLUMN_TILES][2], const T *row,
                                             int L, int N2, int first, float scale, float d)
{
    const int q = threadIdx.x % 4;
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
        for (int p = 0; p < COLUMN_TILES / 2; p++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int n = (16 * s + 8 * h + 2 * q) * N2 + first + 16 * p;
                const uint32_t x = read_pair<T, PAIRS>(row, n, L, scale, d);
                const uint32_t y = read_pair<T, PAIRS>(row, n + N2, L, scale, d);
                b[s][2 * p][h] = __byte_perm(x, y, 0x5410);
                b[s][2 * p + 1][h] = __byte_perm(x, y, 0x7632);
            }
}

// Grid (rows N2 / 128); block: 128 columns of one row. z (rows, R1, N2).
template <class T, int STEPS>
__global__ void __launch_bounds__(COLUMN_THREADS)
columns_in(struct column_rows j, struct column_tables k, const float *d, uint32_t *z)
{
    constexpr int R1 = 16 * STEPS;
    const int blocks = k.N2 / (8 * COLUMN_TILES * COLUMN_WARPS), N2 = k.N2;
    const int64_t i = blockIdx.x / blocks, c = i / j.batch, e = i % j.batch;
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const int r0 = (int)(blockIdx.x % blocks * COLUMN_WARPS + threadIdx.x / 32) * COLUMN_WIDTH;
    const T *row = (const T *)j.x + c * j.sx.c + e * j.sx.b;
    const float scale = power(column_exponent(j.tops[c * j.stop.c + e * j.stop.b]));
    const float tap = sizeof(T) == 4 && d ? d[c] : 0;

    uint32_t b[STEPS][COLUMN_TILES][2];
    if (j.L % 2 == 0 && (uintptr_t)row % 4 == 0)
        read_columns<T, STEPS, true>(b, row, j.L, N2, r0 + 2 * g, scale, tap);
    else
        read_columns<T, STEPS, false>(b, row, j.L, N2, r0 + 2 * g, scale, tap);

    // This lane's results: k1 = 8 m + g, columns r0 + 16 p + 4 q + {0 .. 3}.
    float2 w[COLUMN_TILES / 2][4], turn[COLUMN_TILES / 2][4];
    constexpr float by = 1.0f / R1;
#pragma unroll
    for (int p = 0; p < COLUMN_TILES / 2; p++) {
        const float2 *at = k.turn + r0 + 16 * p + 4 * q;
#pragma unroll
        for (int x = 0; x < 4; x += 2) {
            const float4 a = *(const float4 *)(at + g * N2 + x);
            const float4 t = *(const float4 *)(at + 8 * N2 + x);
            w[p][x] = { a.x * by, a.y * by };
            w[p][x + 1] = { a.z * by, a.w * by };
            turn[p][x] = { t.x, t.y };
            turn[p][x + 1] = { t.z, t.w };
        }
    }
    uint32_t *out = z + (i * R1 + g) * N2 + r0 + 4 * q;
    const uint4 *A = k.in + lane;
#pragma unroll 1
    for (int m = 0; m < R1 / 8; m++, out += 8 * N2, A += 32 * STEPS) {
        float acc[COLUMN_TILES][4] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const uint4 a = A[32 * s];
#pragma unroll
            for (int t = 0; t < COLUMN_TILES; t++)
                column_mma(acc[t], a, b[s][t][0], b[s][t][1]);
        }
#pragma unroll
        for (int p = 0; p < COLUMN_TILES / 2; p++) {
            uint32_t v[4];
#pragma unroll
            for (int x = 0; x < 4; x++) {                  // column x: tile x % 2, its column x / 2
                const float *u = acc[2 * p + x % 2];
                const float2 y = times({ u[x / 2], u[2 + x / 2] }, w[p][x]);
                v[x] = pack_halves(y.x, y.y);
                w[p][x] = times(w[p][x], turn[p][x]);
            }
            *(uint4 *)(out + 16 * p) = { v[0], v[1], v[2], v[3] };
        }
    }
}

// --- out ---------------------------------------------------------------------------------------
// Eight neighbours of a row from sample n on; v[t] is n + t.
template <class T>
__device__ __forceinline__ void put_columns(T *row, int n, int L, const float (&v)[8])
{
    struct hb_vec<T> x;
    static_assert(HB_VEC<T> == 8);
#pragma unroll
    for (int t = 0; t < 8; t++)
        x.x[t] = hb_store<T>(v[t]);
    if (n + 8 <= L && (uintptr_t)(row + n) % 16 == 0) {
        *(struct hb_vec<T> *)(row + n) = x;
        return;
    }
#pragma unroll
    for (int t = 0; t < 8; t += 2) {
        struct alignas(4) two { T x[2]; };
        if (n + t + 1 < L && (uintptr_t)(row + n) % 4 == 0) {
            *(struct two *)(row + n + t) = { x.x[t], x.x[t + 1] };
        } else {
            if (n + t < L) row[n + t] = x.x[t];
            if (n + t + 1 < L) row[n + t + 1] = x.x[t + 1];
        }
    }
}

// Grid as columns_in. exps (rows, R1); `filter`: tops of the channels' filters. Each result is
// multiplied by N and by what undoes the exponents.
template <class T, int STEPS>
__global__ void __launch_bounds__(COLUMN_THREADS)
columns_out(struct column_rows j, struct column_tables k, const uint32_t *z, const int *exps,
            const unsigned *filter)
{
    constexpr int R1 = 16 * STEPS;
    const int blocks = k.N2 / (8 * COLUMN_TILES * COLUMN_WARPS), N2 = k.N2;
    const int64_t i = blockIdx.x / blocks, c = i / j.batch, e = i % j.batch;
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const int r0 = (int)(blockIdx.x % blocks * COLUMN_WARPS + threadIdx.x / 32) * COLUMN_WIDTH;
    T *row = (T *)j.x + c * j.sx.c + e * j.sx.b;

    exps += i * R1;
    int least = exps[lane % R1];
#pragma unroll
    for (int s = 32; s < R1; s += 32)
        least = min(least, exps[s + lane]);
#pragma unroll
    for (int s = 16; s; s /= 2)
        least = min(least, __shfl_xor_sync(~0u, least, s));

    // b[step][tile]: columns r0 + 4 g + {0 .. 3} of tiles 0 .. 3; pairs k1 = 8 step + q + {0, 4}.
    uint32_t b[2 * STEPS][COLUMN_TILES][2];
    const uint32_t *from = z + (i * R1 + q) * N2 + r0 + 4 * g;
#pragma unroll
    for (int s = 0; s < 2 * STEPS; s++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint4 v = *(const uint4 *)(from + (int64_t)(8 * s + 4 * h) * N2);
            b[s][0][h] = v.x;
            b[s][1][h] = v.y;
            b[s][2][h] = v.z;
            b[s][3][h] = v.w;
        }
#pragma unroll
    for (int h = 0; h < 2; h++) {                          // times conj(T) and to one exponent
        const float2 *at = k.turn + r0 + 4 * g;
        float2 w[4], turn[4];
#pragma unroll
        for (int x = 0; x < 4; x++) {
            w[x] = at[(q + 4 * h) * N2 + x];
            turn[x] = at[8 * N2 + x];
        }
#pragma unroll
        for (int s = 0; s < 2 * STEPS; s++) {
            const float by = power(max(least - exps[8 * s + 4 * h + q], -126));
#pragma unroll
            for (int x = 0; x < 4; x++) {
                const float2 v = times(unpack_halves(b[s][x][h]), { w[x].x, -w[x].y });
                b[s][x][h] = pack_halves(v.x * by, v.y * by);
                w[x] = times(w[x], turn[x]);
            }
        }
    }

    const int undo = column_exponent(j.tops[c * j.stop.c + e * j.stop.b])
                     + column_exponent(filter[c]) + least;
    const int half = undo / 2;
    const float down = power(max(min(-half, 126), -126));
    const float by = (float)R1 * N2 * power(max(min(half - undo, 100), -126));
    const uint4 *A = k.out + lane;
#pragma unroll 1
    for (int m = 0; m < STEPS; m++, A += 64 * STEPS) {
        const int n = (16 * m + g) * N2 + r0 + 8 * q;      // and 8 N2 further
        if ((int64_t)16 * m * N2 + r0 >= j.L) break;
        float acc[COLUMN_TILES][4] = {};
#pragma unroll
        for (int s = 0; s < 2 * STEPS; s++) {
            const uint4 a = A[32 * s];
#pragma unroll
            for (int t = 0; t < COLUMN_TILES; t++)
                column_mma(acc[t], a, b[s][t][0], b[s][t][1]);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[8];
#pragma unroll
            for (int x = 0; x < 8; x++)                    // 8 q + x: tile x % 4, its x / 4
                v[x] = acc[x % 4][2 * h + x / 4] * down * by;
            put_columns<T>(row, n + 8 * h * N2, j.L, v);
        }
    }
}
#endif
