// columns.cuh: the outermost digit of a long right-angle transform, on tensor cores, CUDA.
//     N = R1 N2, n = a N2 + r, x real; G, T, mid and the exponents: mma.cuh
//     columns_in    mid[k1][r] = T(k1, r) sum_a G[k1][a] x[a N2 + r]
//     columns_out   y[a N2 + r] = Re sum_k1 conj(G)[k1][a] mid[k1][r]
// Between the two, rows.cuh.
// Method    One warp owns R1 x 32 samples (R1 = 256: 16) in registers and nothing passes through
//           shared memory: columns are dealt to the tiles of mma m16n8k16 so that a lane's pairs
//           are neighbours in memory, for loads and for stores (whole 32-byte sectors).
//           In: rows i of A are Re and rows i + 8 Im of one k1, so that a lane has both. Out: the
//           (Re, Im) of a k1 are a pair of B; A has (cos, -sin). T starts from a table made in
//           float64, for k1 < 8, and is turned by T(8, r) / T(0, r) from one eight to the next.
// Exponents column_parts: max |x| and sum |x| of pieces of rows; no atomics.
// Cost      4 R1 flop a sample each way; bytes a sample 2 (twice, from L2) + 4 in, 4 + 2 out.
// Accuracy  whole convolution, simulated with half storage and largest |x| at 2^14: 8.1e-4 at 2^16,
//           7.6e-4 at 2^21; constants 9.1e-4; one outlier of 1e4, amplitudes 1e-3, 1e3: no worse.
// Limits    R1 = 16, 32, 64, 128, 256; N2 a multiple of 256; N <= 2^23; L <= N.
#ifndef HB_FUSED_COLUMNS_CUH
#define HB_FUSED_COLUMNS_CUH

#include <type_traits>

#include "mma.cuh"

enum {
    COLUMN_WARPS = 4,                    // in a block, side by side
    COLUMN_THREADS = 32 * COLUMN_WARPS,
    COLUMN_PIECES = 32,                  // parts of a row at most: a warp reads them at once
};
// Tiles of 8 columns that a warp has, in and out: as many as registers hold. STEPS = R1 / 16.
template <int STEPS> constexpr int IN_TILES = STEPS > 8 ? 2 : 4;
template <int STEPS> constexpr int OUT_TILES = STEPS > 4 ? 2 : 4;

// Constants of one (R1, N2), in device memory.
struct column_tables {
    int R1, N2;
    const float2 *turn;                  // (9, N2): T(k1, r), k1 < 8; then T(8, r) / T(0, r)
    const uint4 *in, *out;               // fragments of G: (R1/8, R1/16, 32), (R1/16, R1/8, 32)
};

// Rows i = 0 .. of a chunk: channel i / batch, batch entry i % batch, counted from x. Strides in
// elements. part (rows, pieces): largest |x| and sum |x|.
struct column_rows {
    void *x;
    struct hb_strides sx;
    float2 *part;
    int batch, L, pieces;
    float *boost;                        // (rows): columns_in writes, columns_out undoes; or NULL
    const float *length;                 // (channels), column_gains
};

struct column_skip { const void *u; struct hb_strides su; const float *d; };

// --- pieces ------------------------------------------------------------------------------------
template <class T> constexpr bool COLUMN_HALF = false;
template <> constexpr bool COLUMN_HALF<__half> = true;

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

// The power of two that row i goes in with, without HB_MID_TOP; the whole warp asks.
__device__ __forceinline__ float column_scale(const struct column_rows &j, int64_t i)
{
    const int lane = threadIdx.x % 32;
    float top = lane < j.pieces ? j.part[i * j.pieces + lane].x : 0;
#pragma unroll
    for (int w = 16; w; w /= 2)
        top = fmaxf(top, __shfl_xor_sync(~0u, top, w));
    return fminf(hb_fused_scale(top, 0), 0x1p100f);
}

// Where few samples of row i are large, its results are far below what is possible with its largest
// |u|: |y| <= sum |u| max |h|, too, which is less than sum |h| max |u| by sum |h| / max |h|
// (`length`) over the same of u. The power of two in that; the whole warp asks.
__device__ __forceinline__ float column_boost(const struct column_rows &j, int64_t i, float length)
{
    const int lane = threadIdx.x % 32;
    const float2 part = lane < j.pieces ? j.part[i * j.pieces + lane] : make_float2(0, 0);
    float top = part.x, sum = part.y;
#pragma unroll
    for (int w = 16; w; w /= 2) {
        top = fmaxf(top, __shfl_xor_sync(~0u, top, w));
        sum += __shfl_xor_sync(~0u, sum, w);
    }
    const float more = 0.5f * length / (sum / top);        // a half: sums are rounded
    return more >= 2 && more < 0x1p30f ? 0.5f / hb_fused_scale(more, 0) : 1;
}

// Samples n and n + 1 of a row, scaled, as a pair of halves. PAIRS: n and L are even and pairs lie
// at multiples of their size.
template <class T, bool PAIRS>
__device__ __forceinline__ uint32_t read_pair(const T *row, int n, int L, float scale)
{
    float x, y;
    if constexpr (sizeof(T) == 4) {
        x = __uint_as_float(read_word(row + n, n < L));
        y = __uint_as_float(read_word(row + n + 1, n + 1 < L));
    } else {
        uint32_t w;
        if constexpr (PAIRS) w = read_word(row + n, n < L);
        else w = read_short(row + n, n < L) | read_short(row + n + 1, n + 1 < L) << 16;
        if constexpr (COLUMN_HALF<T>) {
            const float2 v = hb_unpack(w);
            x = v.x;
            y = v.y;
        } else {
            x = __uint_as_float(w << 16);
            y = __uint_as_float(w & 0xffff0000u);
        }
    }
    return hb_pack(x * scale, y * scale);
}

// --- constants ---------------------------------------------------------------------------------
__device__ __forceinline__ float2 unit(double turns)               // e(turns)
{
    double s, c;
    sincospi(2 * turns, &s, &c);
    return { (float)c, (float)s };
}

// e(-x / y) for x that may be negative, exactly reduced.
__device__ __forceinline__ float2 unit_of(int64_t x, int64_t y)
{
    return unit(-(double)(x % y) / (double)y);
}

// G[k1][a]
__device__ __forceinline__ float2 column_g(int R1, int k1, int a)
{
    return unit_of((int64_t)(4 * k1 - 1) * (4 * a - 1), 16 * R1);
}

// Grid covers max(9 N2, R1 R1 / 4) threads.
static __global__ void column_constants(float2 *turn, uint4 *in, uint4 *out, int R1, int N2)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < 9 * N2) {
        const int k1 = i / N2, r = i % N2 + N2 / 4;
        const float2 v = unit_of((int64_t)r * (k1 < 8 ? 4 * k1 - 1 : 32), (int64_t)4 * R1 * N2);
        const float by = k1 < 8 ? 1.0f / R1 : 1.0f;
        turn[i] = { v.x * by, v.y * by };
    }
    if (i >= R1 * R1 / 4) return;
    const int lane = i % 32, g = lane / 4, q = lane % 4;
    {                                                              // (R1/8, R1/16): Re over Im
        const int step = i / 32 % (R1 / 16), k1 = i / 32 / (R1 / 16) * 8 + g;
        float2 v[4];
        for (int e = 0; e < 4; e++)
            v[e] = column_g(R1, k1, 16 * step + 2 * q + e % 2 + e / 2 * 8);
        in[i] = { hb_pack(v[0].x, v[1].x), hb_pack(v[0].y, v[1].y),
                  hb_pack(v[2].x, v[3].x), hb_pack(v[2].y, v[3].y) };
    }
    {                                                              // (R1/16, R1/8): (Re, Im) pairs
        const int step = i / 32 % (R1 / 8), a = i / 32 / (R1 / 8) * 16 + g;
        uint32_t v[4];
        for (int e = 0; e < 4; e++) {
            const float2 z = column_g(R1, 8 * step + q + e / 2 * 4, a + e % 2 * 8);
            v[e] = hb_pack(z.x, z.y);
        }
        out[i] = { v[0], v[1], v[2], v[3] };
    }
}

// Grid (rows pieces).
template <class T>
__global__ void __launch_bounds__(256) column_parts(struct column_rows j)
{
    constexpr int VEC = HB_VEC<T>;
    __shared__ float2 parts[8];
    const int64_t i = blockIdx.x / (unsigned)j.pieces, c = i / j.batch, b = i % j.batch;
    const int piece = (int)(blockIdx.x % (unsigned)j.pieces);
    const T *row = (const T *)j.x + c * j.sx.c + b * j.sx.b;
    const int per = ((j.L + j.pieces - 1) / j.pieces + 7) / 8 * 8;
    const int from = piece * per, to = min(j.L, from + per);
    float top = 0, sum = 0;
    auto take = [&](float x) {
        top = fmaxf(top, fabsf(x));
        sum += fabsf(x);
    };
    int t = from;
    if ((uintptr_t)row % 16 == 0 && to > from) {
        t = from + (to - from) / VEC * VEC;
#pragma unroll 4
        for (int n = from + (int)threadIdx.x * VEC; n < t; n += 256 * VEC) {
            const struct hb_vec<T> v = *(const struct hb_vec<T> *)(row + n);
#pragma unroll
            for (int e = 0; e < VEC; e++)
                take(hb_load(v.x[e]));
        }
    }
    for (int n = t + (int)threadIdx.x; n < to; n += 256)
        take(hb_load(row[n]));
#pragma unroll
    for (int w = 16; w; w /= 2) {
        top = fmaxf(top, __shfl_xor_sync(~0u, top, w));
        sum += __shfl_xor_sync(~0u, sum, w);
    }
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = { top, sum };
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < 8; w++) {
        top = fmaxf(top, parts[w].x);
        sum += parts[w].y;
    }
    j.part[blockIdx.x] = { top, sum };
}

// gain (channels) for the spectrum, back for columns_out, length for columns_in, from the filters'
// parts.
static __global__ void column_gains(float *gain, float *back, float *length, const float2 *part,
                                    int pieces, int channels, float N)
{
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    float top = 0, sum = 0;
    for (int p = 0; p < pieces; p++) {
        top = fmaxf(top, part[c * pieces + p].x);
        sum += part[c * pieces + p].y;
    }
    const float scale = hb_fused_scale(sum, 15);
    const float in = fminf(hb_fused_scale(top, 0), 0x1p100f) * HB_MID_TOP;
    gain[c] = N / 4096 * (scale / in);
    back[c] = 4 / scale;
    length[c] = top > 0 ? sum / top : 1;
}

// --- in ----------------------------------------------------------------------------------------
// b[step][tile]: columns first + 16 p + {0, 1} of tiles 2 p, 2 p + 1; rows 16 step + 2 q ...
template <class T, int STEPS, bool PAIRS>
__device__ __forceinline__ void read_columns(uint32_t (&b)[STEPS][IN_TILES<STEPS>][2], const T *row,
                                             int L, int N2, int first, float scale)
{
    const int q = threadIdx.x % 4;
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
        for (int p = 0; p < IN_TILES<STEPS> / 2; p++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int n = (16 * s + 8 * h + 2 * q) * N2 + first + 16 * p;
                const uint32_t x = read_pair<T, PAIRS>(row, n, L, scale);
                const uint32_t y = read_pair<T, PAIRS>(row, n + N2, L, scale);
                b[s][2 * p][h] = hb_low(x, y);
                b[s][2 * p + 1][h] = hb_high(x, y);
            }
}

// Grid (rows N2 / columns of a block). mid (rows, R1, 2, N2).
template <class T, int STEPS>
__global__ void __launch_bounds__(COLUMN_THREADS)
columns_in(struct column_rows j, struct column_tables k, __half *mid)
{
    constexpr int R1 = 16 * STEPS, PAIRS = IN_TILES<STEPS> / 2, WIDTH = 16 * PAIRS;
    const int N2 = k.N2, blocks = N2 / (COLUMN_WARPS * WIDTH);
    const int64_t i = blockIdx.x / (unsigned)blocks, c = i / j.batch;
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const int r0 = (int)(blockIdx.x % (unsigned)blocks * COLUMN_WARPS + threadIdx.x / 32) * WIDTH;
    const T *row = (const T *)j.x + c * j.sx.c + i % j.batch * j.sx.b;
    const float scale = column_scale(j, i) * HB_MID_TOP;
    if (j.boost && r0 == 0) {
        const float boost = column_boost(j, i, j.length[c]);
        if (lane == 0) j.boost[i] = boost;
    }

    uint32_t b[STEPS][IN_TILES<STEPS>][2];
    if (j.L % 2 == 0 && (uintptr_t)row % 4 == 0)
        read_columns<T, STEPS, true>(b, row, j.L, N2, r0 + 2 * g, scale);
    else
        read_columns<T, STEPS, false>(b, row, j.L, N2, r0 + 2 * g, scale);

    // This lane's results: k1 = 8 m + g, columns r0 + 16 p + 4 q + {0 .. 3}.
    float2 w[PAIRS][4], turn[PAIRS][4];
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        const float2 *at = k.turn + r0 + 16 * p + 4 * q;
#pragma unroll
        for (int x = 0; x < 4; x += 2) {
            const float4 a = *(const float4 *)(at + g * N2 + x);
            const float4 t = *(const float4 *)(at + 8 * N2 + x);
            w[p][x] = make_float2(a.x, a.y);
            w[p][x + 1] = make_float2(a.z, a.w);
            turn[p][x] = make_float2(t.x, t.y);
            turn[p][x + 1] = make_float2(t.z, t.w);
        }
    }
    __half *out = mid + (i * R1 + g) * 2 * N2 + r0 + 4 * q;
    const uint4 *A = k.in + lane;
#pragma unroll 1
    for (int m = 0; m < R1 / 8; m++, out += 16 * N2, A += 32 * STEPS) {
        float acc[IN_TILES<STEPS>][4] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const uint4 v = __ldg(A + 32 * s);
            const uint32_t a[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
            for (int t = 0; t < IN_TILES<STEPS>; t++)
                hb_mma(acc[t], a, b[s][t][0], b[s][t][1]);
        }
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            float2 y[4];
#pragma unroll
            for (int x = 0; x < 4; x++) {                  // column x: tile x % 2, its column x / 2
                const float *u = acc[2 * p + x % 2];
                y[x] = hb_cmul({ u[x / 2], u[2 + x / 2] }, w[p][x]);
                w[p][x] = hb_cmul(w[p][x], turn[p][x]);
            }
            *(uint2 *)(out + 16 * p) = { hb_pack(y[0].x, y[1].x), hb_pack(y[2].x, y[3].x) };
            *(uint2 *)(out + 16 * p + N2) = { hb_pack(y[0].y, y[1].y), hb_pack(y[2].y, y[3].y) };
        }
    }
}

// --- out ---------------------------------------------------------------------------------------
// n neighbours of a row from sample t on.
template <class T, int n>
__device__ __forceinline__ void put_columns(T *row, int t, int L, const float (&v)[n])
{
    struct alignas(n * sizeof(T)) all { T x[n]; } x;
    struct alignas(2 * sizeof(T)) two { T x[2]; };
#pragma unroll
    for (int i = 0; i < n; i++)
        x.x[i] = hb_store<T>(v[i]);
    if (t + n <= L && (uintptr_t)(row + t) % sizeof x == 0) {
        *(struct all *)(row + t) = x;
        return;
    }
    const bool even = (uintptr_t)(row + t) % sizeof(struct two) == 0;
#pragma unroll
    for (int i = 0; i < n; i += 2) {
        if (even && t + i + 1 < L) {
            *(struct two *)(row + t + i) = { x.x[i], x.x[i + 1] };
        } else {
            if (t + i < L) row[t + i] = x.x[i];
            if (t + i + 1 < L) row[t + i + 1] = x.x[i + 1];
        }
    }
}

// Adds d times those of u.
template <class T, int n>
__device__ __forceinline__ void add_skip(float (&v)[n], const T *u, int t, int L, float d)
{
    struct alignas(n * sizeof(T)) all { T x[n]; };
    if (t + n <= L && (uintptr_t)(u + t) % sizeof(struct all) == 0) {
        const struct all x = *(const struct all *)(u + t);
#pragma unroll
        for (int i = 0; i < n; i++)
            v[i] += d * hb_load(x.x[i]);
    } else {
#pragma unroll
        for (int i = 0; i < n; i++)
            if (t + i < L) v[i] += d * hb_load(u[t + i]);
    }
}

// Grid as columns_in. j: the results, but part is that of the rows that went in. back (channels).
// skip: d (channels) times u is added, exactly; or d NULL.
template <class T, int STEPS>
__global__ void __launch_bounds__(COLUMN_THREADS)
columns_out(struct column_rows j, struct column_tables k, const __half *mid, const float *back,
            struct column_skip skip)
{
    constexpr int R1 = 16 * STEPS, t1 = OUT_TILES<STEPS>, WIDTH = 8 * t1;
    const int N2 = k.N2, blocks = N2 / (COLUMN_WARPS * WIDTH);
    const int64_t i = blockIdx.x / (unsigned)blocks, c = i / j.batch;
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const int r0 = (int)(blockIdx.x % (unsigned)blocks * COLUMN_WARPS + threadIdx.x / 32) * WIDTH;
    T *row = (T *)j.x + c * j.sx.c + i % j.batch * j.sx.b;
    constexpr bool ADD = sizeof(T) == 4;                   // float results are added, unscaled
    const float down = back[c] / (j.boost ? j.boost[i] : 1), by = ADD ? 1 : 1 / column_scale(j, i);

    // b[step][tile]: columns r0 + t1 g + tile; pairs (Re, Im) of k1 = 8 step + q + {0, 4}.
    struct alignas(2 * t1) words { uint32_t x[t1 / 2]; };
    uint32_t b[2 * STEPS][t1][2];
    const __half *from = mid + (i * R1 + q) * 2 * N2 + r0 + t1 * g;
#pragma unroll
    for (int s = 0; s < 2 * STEPS; s++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const __half *at = from + (int64_t)(8 * s + 4 * h) * 2 * N2;
            const struct words re = *(const struct words *)at;
            const struct words im = *(const struct words *)(at + N2);
#pragma unroll
            for (int t = 0; t < t1; t += 2) {
                b[s][t][h] = hb_low(re.x[t / 2], im.x[t / 2]);
                b[s][t + 1][h] = hb_high(re.x[t / 2], im.x[t / 2]);
            }
        }

    const uint4 *A = k.out + lane;
#pragma unroll 1
    for (int m = 0; m < STEPS; m++, A += 64 * STEPS) {
        if (16 * m * N2 + r0 >= j.L) break;
        float acc[t1][4] = {};
#pragma unroll
        for (int s = 0; s < 2 * STEPS; s++) {
            const uint4 v = __ldg(A + 32 * s);
            const uint32_t a[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
            for (int t = 0; t < t1; t++)
                hb_mma(acc[t], a, b[s][t][0], b[s][t][1]);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[2 * t1];
#pragma unroll
            for (int x = 0; x < 2 * t1; x++)               // 2 t1 q + x: tile x % t1, its x / t1
                v[x] = acc[x % t1][2 * h + x / t1] * down * by;
            const int n = (16 * m + 8 * h + g) * N2 + r0 + 2 * t1 * q;
            if (skip.d)
                add_skip<T, 2 * t1>(v, (const T *)skip.u + c * skip.su.c + i % j.batch * skip.su.b,
                                    n, j.L, skip.d[c]);
            if constexpr (ADD) add_skip<T, 2 * t1>(v, row, n, j.L, 1);
            put_columns<T, 2 * t1>(row, n, j.L, v);
        }
    }
}

// --- host --------------------------------------------------------------------------------------
static inline size_t column_tables_bytes(int R1, int N2)
{
    return (size_t)9 * N2 * sizeof(float2) + (size_t)2 * (R1 * R1 / 4) * sizeof(uint4);
}

// Fills `mem` (column_tables_bytes, 16-byte aligned).
static inline struct column_tables column_tables_make(void *mem, int R1, int N2,
                                                      cudaStream_t stream)
{
    float2 *const turn = (float2 *)mem;
    uint4 *const in = (uint4 *)(turn + (size_t)9 * N2), *const out = in + R1 * R1 / 4;
    const int n = 9 * N2 > R1 * R1 / 4 ? 9 * N2 : R1 * R1 / 4;
    column_constants<<<(n + 127) / 128, 128, 0, stream>>>(turn, in, out, R1, N2);
    return { R1, N2, turn, in, out };
}

// Calls f with STEPS as a constant.
template <class F> static inline void by_steps(int R1, F f)
{
    if (R1 == 16) f(std::integral_constant<int, 1>());
    else if (R1 == 32) f(std::integral_constant<int, 2>());
    else if (R1 == 64) f(std::integral_constant<int, 4>());
    else if (R1 == 128) f(std::integral_constant<int, 8>());
    else f(std::integral_constant<int, 16>());
}

// Pieces of a row of L for column_parts, so that few rows have many blocks.
static inline int column_pieces(int64_t L)
{
    const int64_t n = (L + 16383) / 16384;
    return n > COLUMN_PIECES ? COLUMN_PIECES : (int)n;
}

template <class T>
static inline void launch_parts(struct column_rows j, int64_t rows, cudaStream_t stream)
{
    column_parts<T><<<(unsigned)(rows * j.pieces), 256, 0, stream>>>(j);
}

template <class T>
static inline void launch_in(struct column_rows j, int64_t rows, const struct column_tables *k,
                             void *mid, cudaStream_t stream)
{
    by_steps(k->R1, [&](auto x) {
        constexpr int STEPS = decltype(x)::value;
        const int64_t grid = rows * (k->N2 / (COLUMN_WARPS * 8 * IN_TILES<STEPS>));
        columns_in<T, STEPS><<<(unsigned)grid, COLUMN_THREADS, 0, stream>>>(j, *k, (__half *)mid);
    });
}

template <class T>
static inline void launch_out(struct column_rows j, int64_t rows, const struct column_tables *k,
                              const void *mid, const float *back, struct column_skip skip,
                              cudaStream_t stream)
{
    by_steps(k->R1, [&](auto x) {
        constexpr int STEPS = decltype(x)::value;
        const int64_t grid = rows * (k->N2 / (COLUMN_WARPS * 8 * OUT_TILES<STEPS>));
        columns_out<T, STEPS><<<(unsigned)grid, COLUMN_THREADS, 0, stream>>>(
            j, *k, (const __half *)mid, back, skip);
    });
}
#endif
