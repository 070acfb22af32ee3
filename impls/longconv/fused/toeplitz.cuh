// toeplitz.cuh: y and du by definition, any length: Toeplitz products of tiles that go through a
// ring in shared memory.
//
// Rows are cut into blocks of TIME samples; (batch, block) pairs are the rows of a matrix, COLS of
// them a tile, so that one row fills it as well as 64. For block n,
//     Y_n = sum_q U_{n-q} T_q           T_q[k][i] = h[q TIME + i - k]
// on tensor cores (mma.sync m16n8k16, sums in f32). The fragment of T that a thread needs for 16 x
// 8 elements is two words, and a word depends on the diagonal (i - k) / 8 only: 15 words serve a
// warp's 64 outputs and 64 inputs. They are read from a window of the filter, reversed, that lies
// in memory twice, the second time one element further, so that every pair is a word. U goes from
// memory to shared memory in a ring of STAGES. Hopper, where tiles are full (or nearly): the same
// as wgmma m64n64k16 of T' (fragments in registers, 9 words a warp for 16 outputs and 64 inputs)
// and U (in shared memory). Adjoint (du): the same with T_q[k][i] = h[q TIME + k - i] and U_{n+q}.
// f32 has the same tiles and windows with FMA on 8 x 4 sums a thread. h is rounded to the signals'
// type: f16 after scaling by a power of two for each channel (undone in f32), bf16 as two terms,
// whose second product doubles the work: one term has an error of up to 3.9e-3, which a filter of
// few large taps would show.
// Shift: a convolution does not care where time starts, so each row starts at the last 16-byte
// boundary before it: rows of any alignment are moved by 16 bytes at once.
// Registers (nvcc 13.0): 128 in 16 bits, two blocks of 256 an SM; f32 164, one.
#ifndef HB_TOEPLITZ_CUH
#define HB_TOEPLITZ_CUH

#include "toeplitz_pieces.cuh"

namespace toeplitz {

enum {
    TIME = 256,               // outputs of a tile in a row
    STEPS = TIME / STEP,
    WINDOW = TIME + STEP,     // taps that a stage needs: lags differ by TIME + STEP - 1
};

template <class T> constexpr int COLS = IS_16<T> ? 64 : 32;  // rows of U in a tile
// 64 bytes between two copies: even and odd lanes then read from different banks.
template <class T> constexpr int COPY_BYTES = WINDOW * (int)sizeof(T) + (IS_16<T> ? 64 : 0);
template <class T> constexpr int TILE_BYTES = COLS<T> * STEP * (int)sizeof(T);
// Swizzled tiles of wgmma start at multiples of 1024 bytes.
template <class T> constexpr int STAGE_BYTES =
    (TILE_BYTES<T> + TERMS<T> * COPIES<T> * COPY_BYTES<T> + 1023) / 1024 * 1024;
constexpr int OUT_PITCH = TIME * 2 + 16;      // bytes, wgmma: from row to row of the results

// One product with Toeplitz matrices: out = in * h, or its adjoint. Strides in elements.
struct job {
    const void *in;  struct hb_strides si;
    void *out;       struct hb_strides so;
    const void *taps;          // (D, TERMS, COPIES, width): h[origin - x], adjoint h[x - origin]
    const float2 *scale;       // (D): taps were multiplied by .x; .y undoes it
    const float *d;            // or NULL
    int B, L, reach;           // reach: L, or more where rows do not start at 16-byte boundaries
    int blocks;                // of TIME samples in `reach`
    int log_batch;             // a tile has 2^log_batch of the batch and COLS / that blocks
    int col_tiles, batch_tiles;
    int64_t width, origin;
};

// --- the filter's windows --------------------------------------------------------------------
// Block c: taps (TERMS, COPIES, width) and scale of channel c from h (D,L).
template <class T, bool ADJOINT>
__global__ void __launch_bounds__(THREADS) prepare(T *taps, float2 *scale, const float *h, int L,
                                                   int64_t width, int64_t origin)
{
    __shared__ float tops[THREADS / 32];
    const int64_t c = blockIdx.x;
    const float2 by = make_window<T, ADJOINT>(taps + c * TERMS<T> * COPIES<T> * width, width,
                                              h + c * L, 0.0f, L, width, origin, tops);
    if (threadIdx.x == 0) scale[c] = by;
}

// --- y and du: the Toeplitz product ----------------------------------------------------------
// Sums of a thread. 16 bits: [16 rows][8 times][fragment]; f32: [row][time], in two levels.
template <class T> struct sums { float a[2][8][4]; };
template <> struct sums<float> { float a[4][8], total[4][8], lost[4][8]; };

// What a warp does in a tile.
struct part {
    int row;                   // its first row of U in the tile
    int time;                  // its first output in the block, over STEP; f32: the lane's
};

template <class T> __device__ __forceinline__ struct part part_of(int warp, int lane)
{
    if (!IS_16<T>) return { 4 * warp, 8 * lane / STEP };
    // Late outputs have more inputs: each of the four schedulers gets a short and a long column.
    return { 32 * (warp / 4), warp < 4 ? warp % 4 : 3 - warp % 4 };
}

// Sums of 16-row fragments FIRST .. FIRST + COUNT - 1 += the stage's product with one term of h.
template <class T, int FIRST, int COUNT>
__device__ __forceinline__ void multiply(struct sums<T> &y, const unsigned char *stage,
                                         struct part w, int term)
{
    const int lane = threadIdx.x % 32, g = lane / 4, odd = g & 1;
    const unsigned char *copy = stage + TILE_BYTES<T> + (2 * term + odd) * COPY_BYTES<T>;
    const uint32_t *word = (const uint32_t *)copy + (TIME - STEP * w.time - g - odd) / 2 + lane % 4;
    uint32_t tap[15];              // [7 + m]: input minus output = 8 m + 2 (lane % 4) - g
#pragma unroll
    for (int m = -7; m <= 7; m++)
        tap[7 + m] = word[4 * m];
    const uint32_t tile = hb_shared_address(stage);
#pragma unroll
    for (int k = 0; k < STEP / 16; k++)
#pragma unroll
        for (int i = FIRST; i < FIRST + COUNT; i++) {
            uint32_t u[4];
            const int row = w.row + 16 * i + lane % 16;
            load_matrices<false>(u, tile + place<T>(row, 2 * STEP, 2 * k + lane / 16));
#pragma unroll
            for (int j = 0; j < 8; j++)
                mma<T>(y.a[i][j], u, tap[7 + 2 * k - j], tap[8 + 2 * k - j]);
        }
}

// f32: 4 rows by 8 outputs. Taps x - 8 .. x + 3 of the window serve inputs 4 k .. 4 k + 3.
__device__ __forceinline__ void multiply_f32(struct sums<float> &y, const unsigned char *stage,
                                             struct part w)
{
    const int lane = threadIdx.x % 32;
    const float *h = (const float *)(stage + TILE_BYTES<float>) + TIME - 8 * lane;
    const float *u = (const float *)stage + w.row * STEP;
    float4 far = *(const float4 *)(h - 8), mid = *(const float4 *)(h - 4);
#pragma unroll
    for (int k = 0; k < STEP / 4; k++) {
        const float4 near = *(const float4 *)(h + 4 * k);
        const float tap[12] = { far.x, far.y, far.z, far.w, mid.x, mid.y, mid.z, mid.w,
                                near.x, near.y, near.z, near.w };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float4 v = *(const float4 *)(u + i * STEP + 4 * k);
#pragma unroll
            for (int t = 0; t < 8; t++) {
                y.a[i][t] = fmaf(tap[8 - t], v.x, y.a[i][t]);
                y.a[i][t] = fmaf(tap[9 - t], v.y, y.a[i][t]);
                y.a[i][t] = fmaf(tap[10 - t], v.z, y.a[i][t]);
                y.a[i][t] = fmaf(tap[11 - t], v.w, y.a[i][t]);
            }
        }
        far = mid;
        mid = near;
    }
}

// The skip term: sums += d u, where the stage has the inputs of the outputs' own times.
template <class T>
__device__ __forceinline__ void add_skip(struct sums<T> &y, const unsigned char *stage,
                                         struct part w, float d)
{
    const int lane = threadIdx.x % 32;
    if constexpr (IS_16<T>) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = w.row + 8 * i + lane / 4;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const T *u = (const T *)(stage + place<T>(row, 2 * STEP, j)) + 2 * (lane % 4);
                y.a[i / 2][j][i % 2 * 2] += d * hb_load(u[0]);
                y.a[i / 2][j][i % 2 * 2 + 1] += d * hb_load(u[1]);
            }
        }
    } else {
        const float *u = (const float *)stage + w.row * STEP + 8 * lane % STEP;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int t = 0; t < 8; t++)
                y.a[i][t] = fmaf(d, u[i * STEP + t], y.a[i][t]);
    }
}

__device__ __forceinline__ void next_level(struct sums<float> &y)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int t = 0; t < 8; t++) {
            add_exact(&y.total[i][t], &y.lost[i][t], y.a[i][t]);
            y.a[i][t] = 0;
        }
}

// Words w[j] of lane t become w[t] of lane j, among four lanes.
__device__ __forceinline__ void transpose4(uint32_t (&w)[4], int t)
{
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (j & bit) continue;
            const bool up = t & bit;
            const uint32_t got = __shfl_xor_sync(~0u, up ? w[j] : w[j + bit], bit);
            if (up) w[j] = got;
            else w[j + bit] = got;
        }
}

// A row of a tile: where its samples are, in the time that starts at a 16-byte boundary.
template <class T> struct place_of { const T *in; T *out; int block, from, end; };

template <class T>
__device__ __forceinline__ struct place_of<T> row_of(const struct job &j, int64_t c, int b0,
                                                     int first, int row)
{
    const int64_t b = b0 + (row & ((1 << j.log_batch) - 1));
    const int block = first + (row >> j.log_batch);
    if (b >= j.B || block >= j.blocks) return { (const T *)j.in, (T *)j.out, block, 0, 0 };
    const T *in = (const T *)j.in + b * j.si.b + c * j.si.c;
    const int from = shift_of(in);
    return { in - from, (T *)j.out + b * j.so.b + c * j.so.c - from, block, from, j.L + from };
}

template <class T>
__device__ __forceinline__ void store(struct sums<T> &y, const struct job &j, int64_t c, int b0,
                                      int first, struct part w, float scale)
{
    const int lane = threadIdx.x % 32;
    if constexpr (IS_16<T>) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const struct place_of<T> r = row_of<T>(j, c, b0, first, w.row + 8 * i + lane / 4);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                uint32_t word[4];
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    const float *a = y.a[i / 2][4 * half + n] + i % 2 * 2;
                    const T pair[2] = { hb_store<T>(a[0] * scale), hb_store<T>(a[1] * scale) };
                    memcpy(&word[n], pair, sizeof pair);
                }
                transpose4(word, lane % 4);
                struct hb_vec<T> v;
                memcpy(&v, word, sizeof v);
                const int t = r.block * TIME + w.time * STEP + 32 * half + 8 * (lane % 4);
                put<T>(r.out + t, t, r.from, r.end, v);
            }
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const struct place_of<T> r = row_of<T>(j, c, b0, first, w.row + i);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                struct hb_vec<T> v;
#pragma unroll
                for (int n = 0; n < 4; n++)
                    v.x[n] = y.total[i][4 * half + n];
                const int t = r.block * TIME + 8 * lane + 4 * half;
                put<T>(r.out + t, t, r.from, r.end, v);
            }
        }
    }
}

// Rows lo .. lo + n - 1 of the tile have something at lag block q.
template <bool ADJOINT>
__device__ __forceinline__ bool useful(const struct job &j, int b0, int first, int lo, int n, int q)
{
    const int early = first + (lo >> j.log_batch), late = first + ((lo + n - 1) >> j.log_batch);
    if (early >= j.blocks || b0 + (lo & ((1 << j.log_batch) - 1)) >= j.B) return false;
    return ADJOINT ? early + q < j.blocks : late >= q;
}

// --- the same with wgmma: four warps and 64 rows of U, two 64 x 64 sums each ---------------------
// Products FIRST .. LAST - 1 of 64 times each; words [m + 1] as in `multiply`, of 16 times.
template <class T, int FIRST, int LAST>
__device__ __forceinline__ void multiply_group(float (&y)[2][32], const unsigned char *stage,
                                               const int (&time)[2], int term)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, g = lane / 4, odd = g & 1;
    const unsigned char *copy = stage + TILE_BYTES<T> + (2 * term + odd) * COPY_BYTES<T>;
    const uint32_t *word = (const uint32_t *)copy + (TIME - g - odd) / 2 + lane % 4;
    uint32_t tap[2][9];
#pragma unroll
    for (int i = FIRST; i < LAST; i++)
#pragma unroll
        for (int m = -1; m <= 7; m++)
            tap[i][m + 1] = word[4 * (m - 8 * time[i] - 2 * warp)];
    const uint64_t tile = tile_of(stage);
    wgmma_begin();
#pragma unroll
    for (int i = FIRST; i < LAST; i++)
#pragma unroll
        for (int k = 0; k < STEP / 16; k++)
            wgmma<T, 32>(y[i], tap[i][2 * k + 1], tap[i][2 * k], tap[i][2 * k + 2],
                         tile + 2 * k);
    wgmma_commit();
    wgmma_done<0>();
}

template <class T>
__device__ __forceinline__ void add_skip_group(float (&y)[32], const unsigned char *stage, float d)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int e = 0; e < 32; e++) {
        const int row = e / 4 * 8 + lane % 4 * 2 + e % 2, piece = 2 * warp + e / 2 % 2;
        y[e] += d * hb_load(((const T *)(stage + place<T>(row, 2 * STEP, piece)))[lane / 4]);
    }
}

// Through shared memory, so that 16 bytes of a row are in one thread.
template <class T>
__device__ __forceinline__ void store_group(const float (&y)[2][32], const struct job &j, int64_t c,
                                            int b0, int first, const int (&time)[2], float scale,
                                            unsigned char *ring)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    __syncthreads();                           // nobody reads the last stages any more
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            uint32_t word[4];                  // rows 8 n .., early and late times; 8 rows on
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const float *a = y[i] + 4 * n + 2 * r;
                const T pair[2] = { hb_store<T>(a[0] * scale), hb_store<T>(a[1] * scale) };
                memcpy(&word[r], pair, sizeof pair);
            }
            const int row = 8 * (n + lane / 16) + lane % 8;
            const int t = time[i] * STEP + 16 * warp + lane / 8 % 2 * 8;
            store_matrices(hb_shared_address(ring) + row * OUT_PITCH + 2 * t, word);
        }
    __syncthreads();
    for (int n = threadIdx.x; n < COLS<T> * TIME / 8; n += THREADS) {
        const struct place_of<T> r = row_of<T>(j, c, b0, first, n / (TIME / 8));
        const int p = n % (TIME / 8), t = r.block * TIME + 8 * p;
        const unsigned char *from = ring + n / (TIME / 8) * OUT_PITCH + 16 * p;
        put<T>(r.out + t, t, r.from, r.end, *(const struct hb_vec<T> *)from);
    }
}

// --- the kernels ---------------------------------------------------------------------------------
// A tile: rows of U from batch b0 and block `first` on, of channel c.
struct tile { int64_t c; int b0, first, lags, stages; };

template <class T, bool ADJOINT> __device__ __forceinline__ struct tile tile_at(const struct job &j)
{
    const int n = blockIdx.x % j.col_tiles, wide = COLS<T> >> j.log_batch;
    struct tile t;
    t.b0 = blockIdx.x / j.col_tiles % j.batch_tiles << j.log_batch;
    t.c = blockIdx.x / j.col_tiles / j.batch_tiles;
    t.first = (ADJOINT ? n : j.col_tiles - 1 - n) * wide;      // long ones start first
    t.lags = ADJOINT ? j.blocks - t.first : min(t.first + wide, j.blocks);
    t.stages = t.lags * STEPS;
    if (ADJOINT || t.first == j.blocks - 1)                    // the last block may be short
        t.stages += (j.reach + STEP - 1) / STEP - j.blocks * STEPS;
    return t;
}

// What a thread moves. Stage `it` has samples [64 it, 64 it + 64) of every row, from the tile's
// first input on. Lag block q falls with it (forward) or rises (adjoint); taps move the same way.
template <class T> constexpr int PIECES = STEP / HB_VEC<T>;
template <class T> constexpr int PER = COLS<T> * PIECES<T> / THREADS;
constexpr int ROUND = THREADS * 16;       // a multiple of eight rows: `place` repeats
template <class T> struct feed {
    struct piece<T> src[PER<T>];
    int to;                    // where src[0] goes; src[1]: ROUND bytes further
    const T *tap;              // NULL: this thread has none
    int tap_to;
};

template <class T, bool ADJOINT>
__device__ __forceinline__ struct feed<T> feed_of(const struct job &j, const struct tile &tile)
{
    struct feed<T> f;
#pragma unroll
    for (int r = 0; r < PER<T>; r++) {
        const int p = threadIdx.x % PIECES<T>;
        const int row = threadIdx.x / PIECES<T> + r * (THREADS / PIECES<T>);
        const struct place_of<T> at = row_of<T>(j, tile.c, tile.b0, tile.first, row);
        const int t = (ADJOINT ? at.block : at.block - (tile.lags - 1)) * TIME + p * HB_VEC<T>;
        f.src[r] = { at.in + t, t, at.from, at.end };
        if (r == 0) f.to = place<T>(row, STEP * (int)sizeof(T), p);
    }
    constexpr int TAP_PIECES = WINDOW / HB_VEC<T>;
    const int copy = threadIdx.x / TAP_PIECES, p = threadIdx.x % TAP_PIECES;
    f.tap_to = TILE_BYTES<T> + copy * COPY_BYTES<T> + 16 * p;
    f.tap = NULL;
    if (copy < TERMS<T> * COPIES<T>)
        f.tap = (const T *)j.taps + (tile.c * TERMS<T> * COPIES<T> + copy) * j.width
                + (ADJOINT ? 0 : j.origin - (int64_t)tile.lags * TIME) + p * HB_VEC<T>;
    return f;
}

template <class T>
__device__ __forceinline__ void load_stage(struct feed<T> &f, unsigned char *stage, const void *any)
{
#pragma unroll
    for (int r = 0; r < PER<T>; r++) {
        fetch<T>(f.src[r], stage + f.to + r * ROUND, any);
        f.src[r].p += STEP;
        f.src[r].t += STEP;
    }
    if (f.tap) {
        copy_async(stage + f.tap_to, f.tap, 16);
        f.tap += STEP;
    }
}

// Grid (channels x batch_tiles x col_tiles), block THREADS, dynamic shared STAGES * STAGE_BYTES.
template <class T, bool ADJOINT, bool GROUPS>
__global__ void __launch_bounds__(THREADS, IS_16<T> ? 2 : 1) tiles(const struct job j)
{
    extern __shared__ __align__(1024) unsigned char ring[];
    const struct tile tile = tile_at<T, ADJOINT>(j);
    const float2 scale = j.scale[tile.c];
    const float d = j.d ? j.d[tile.c] * scale.x : 0;
    const int first = tile.first;
    struct feed<T> f = feed_of<T, ADJOINT>(j, tile);
    for (int it = 0; it < STAGES - 1; it++) {
        if (it < tile.stages) load_stage<T>(f, ring + it * STAGE_BYTES<T>, j.taps);
        commit();
    }
    // The next stage: it is there, and all have left the one before, which is filled again.
    auto turn = [&](int it) {
        arrived<STAGES - 2>();
        if (GROUPS) publish();
        __syncthreads();
        const int ahead = it + STAGES - 1;
        if (ahead < tile.stages)
            load_stage<T>(f, ring + ahead % STAGES * STAGE_BYTES<T>, j.taps);
        commit();
        return (const unsigned char *)ring + it % STAGES * STAGE_BYTES<T>;
    };
    const int own0 = ADJOINT ? 0 : (tile.lags - 1) * STEPS;    // stage of the block's first inputs

    if constexpr (GROUPS) {
        // Each group of warps has a short and a long column: late outputs have more inputs.
        // The shuffle tells the compiler that a warp is in one group.
        const int group = __shfl_sync(~0u, threadIdx.x / 128, 0), time[2] = { group, 3 - group };
        const int own_a = own0 + time[0], own_b = own0 + time[1];
        const bool in_a = first * TIME + time[0] * STEP < j.reach;
        const bool in_b = first * TIME + time[1] * STEP < j.reach;
        float y[2][32] = {};
        for (int it = 0; it < tile.stages; it++) {
            const unsigned char *stage = turn(it);
            const bool a = in_a && (ADJOINT ? it >= own_a : it <= own_a);
            const bool b = in_b && (ADJOINT ? it >= own_b : it <= own_b);
#pragma unroll 1
            for (int term = 0; term < TERMS<T>; term++)
                if (a && b) multiply_group<T, 0, 2>(y, stage, time, term);
                else if (a) multiply_group<T, 0, 1>(y, stage, time, term);
                else if (b) multiply_group<T, 1, 2>(y, stage, time, term);
            if (it == own_a && d != 0) add_skip_group<T>(y[0], stage, d);
            if (it == own_b && d != 0) add_skip_group<T>(y[1], stage, d);
        }
        store_group<T>(y, j, tile.c, tile.b0, first, time, scale.y, ring);
    } else {
        const struct part w = part_of<T>(threadIdx.x / 32, threadIdx.x % 32);
        const int own = own0 + w.time;                         // stage of its own times
        const bool idle = IS_16<T> && first * TIME + w.time * STEP >= j.reach;
        struct sums<T> y = {};
        for (int it = 0; it < tile.stages; it++) {
            const unsigned char *stage = turn(it);
            const int q = ADJOINT ? it / STEPS : tile.lags - 1 - it / STEPS;
            if constexpr (IS_16<T>) {
                if (idle || (ADJOINT ? it < own : it > own)) continue;
                const bool a = useful<ADJOINT>(j, tile.b0, first, w.row, 16, q);
                const bool b = useful<ADJOINT>(j, tile.b0, first, w.row + 16, 16, q);
#pragma unroll 1
                for (int term = 0; term < TERMS<T>; term++)
                    if (a && b) multiply<T, 0, 2>(y, stage, w, term);
                    else if (a) multiply<T, 0, 1>(y, stage, w, term);
                    else if (b) multiply<T, 1, 1>(y, stage, w, term);
                if (it == own && d != 0) add_skip<T>(y, stage, w, d);
            } else if (useful<ADJOINT>(j, tile.b0, first, w.row, 4, q)) {
                multiply_f32(y, stage, w);
                if (it == own && d != 0) add_skip<T>(y, stage, w, d);
                next_level(y);
            }
        }
        store<T>(y, j, tile.c, tile.b0, first, w, scale.y);
    }
}

} // namespace toeplitz

#endif
