// rows_pair.cuh: the convolution of rows.cuh for short rows, R = 4, 8, 16, without gates: 32 slots,
// that is 32 / R rows of the batch, at a time.
//     y = h * u + d u         u, y (B,D,L) f16, bf16; spectrum and undo by hb_rows_spectrum
// Method    The three steps of rows.cuh. What it computes again for each row comes from tables here
//           that a block puts into shared memory once, for all of its tiles:
//           - T(k1, 16 p + s) = A(k1, p) B(k1, s). A is a part of G: there is one G for each p,
//             that is for 16 columns. B is a part of the turns between the rows' two contractions:
//             they are different for each k1. Nothing is left to do between outer step and rows.
//           - A warp does two slots of the same k1, of two rows: spectrum and turns are read once.
//           - A tile of u comes by asynchronous copies of 16 bytes while the one before is worked
//             on; y takes its place and leaves in whole lines. Rows that do not begin on a boundary
//             of 16 bytes are copied from the one below and shifted in shared memory, y likewise.
//           - From step to step by ldmatrix and stmatrix only; everything lies as hb_place says.
//           Grid: the blocks that run at a time; each does its share of all tiles, channel after
//           channel. Barriers a tile: u and its peaks are there, and the planes are free; the
//           planes are full, and the other tile is free; the rows are transformed back.
// Cost      Two blocks an SM, 112 KB (R 16) each. A sample: device memory and mma as rows.cuh;
//           about 50 instructions (SASS, counted). L 4096, B 64, D 768: predicted .48 ms, measured
//           .61.
// Accuracy  as rows.cuh: G and A are rounded to halves once, together.
#ifndef HB_FUSED_ROWS_PAIR_CUH
#define HB_FUSED_ROWS_PAIR_CUH

#include "rows.cuh"

constexpr int HB_PAIR_PLANE = 32 * 512;                  // 32 slots of halves; so is a tile of u
constexpr int HB_PAIR_TILES = 2 * HB_PAIR_PLANE;         // where these begin
constexpr int HB_PAIR_MATRICES = 4 * HB_PAIR_PLANE;      // [p][real, imaginary][16 k1][16] halves
constexpr int HB_PAIR_TURNS = HB_PAIR_MATRICES + 16 * 1024;     // [k1][k2][s] complex, hb_turn_at
template <int R> constexpr int HB_PAIR_TABLES = 16 * 1024 + R * 2048;      // bytes of both
template <int R> constexpr int HB_PAIR_PEAKS = HB_PAIR_MATRICES + HB_PAIR_TABLES<R>;    // [2][8]
template <int R> constexpr int HB_PAIR_ENDS = HB_PAIR_PEAKS<R> + 64;       // [8] uint4
template <int R> constexpr int HB_PAIR_SHARED = HB_PAIR_ENDS<R> + 128;
template <int R> constexpr bool HB_PAIRED = R <= 16;     // rows without gates are done here

// --- shared memory ------------------------------------------------------------------------------
// As hb_load_trans, without transposing: a fragment of A, or what two tiles of C are.
__device__ __forceinline__ void hb_load_matrices(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// Two tiles of C as halves, where hb_load_trans or hb_load_matrices would find them.
__device__ __forceinline__ void hb_store_tiles(uint32_t at, const float (&c)[2][4])
{
    const uint32_t r[4] = { hb_pair(c[0], 0), hb_pair(c[0], 1),
                            hb_pair(c[1], 0), hb_pair(c[1], 1) };
    hb_store_matrices(at, r);
}

// Eight halves of the sixteen in lo, hi, from the one at `off` = 0 .. 7 on.
__device__ __forceinline__ uint4 hb_shifted(uint4 lo, uint4 hi, int off)
{
    uint32_t w[8] = { lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w };
#pragma unroll
    for (int i = 0; i < 6; i++) w[i] = off & 4 ? w[i + 2] : w[i];
#pragma unroll
    for (int i = 0; i < 5; i++) w[i] = off & 2 ? w[i + 1] : w[i];
#pragma unroll
    for (int i = 0; i < 4; i++)
        w[i] = __byte_perm(w[i], w[i + 1], off & 1 ? 0x5432 : 0x3210);
    return make_uint4(w[0], w[1], w[2], w[3]);
}

// What a thread knows of itself. Copies, peaks and stores: it has chunk `lane` of the slots warp +
// 8 i, i < 4. at: in a plane, of the outer steps' matrices; e = 1: ^ 32, the lower rows + 8192.
// there, back: this lane's first turns of a k1.
struct hb_pairs { unsigned char *shared; uint32_t base; int lane, warp, chunk, at, there, back; };

// Byte of turn (k2, s) of a k1: 16-byte chunk s / 2 is swapped, so that neither lanes with rows k2
// and columns s of C nor those with rows s and columns k2 meet in a bank. s + 8: ^ 64; k2 + 1, if
// k2 is even: ^ 64, + 128; k2 + 8: + 1024.
__host__ __device__ __forceinline__ int hb_turn_at(int k2, int s)
{
    return 128 * k2 + (((s >> 1) ^ (k2 & 6) ^ ((k2 & 1) << 2)) << 4) + 8 * (s & 1);
}

__device__ __forceinline__ void hb_pair_init(hb_pairs &k, unsigned char *shared)
{
    k.shared = shared;
    k.base = hb_shared_address(shared);
    k.lane = threadIdx.x & 31;
    k.warp = threadIdx.x >> 5;
    k.chunk = hb_place(k.warp, k.lane);
    k.at = hb_place(k.lane & 15, 4 * k.warp + (k.lane >> 4));
    k.there = hb_turn_at(k.lane >> 2, 2 * (k.lane & 3));
    k.back = hb_turn_at(2 * (k.lane & 3), k.lane >> 2);
}

// Rows b0 .. of channel c: 32 / R of them, those from B on are absent. Or 16 / R of each of two
// signals: slots of the second one are 16 further.
struct hb_pair_tile { int64_t c; int b0; };
struct hb_pair_signal { const void *x; struct hb_strides s; };

template <int R> __device__ __forceinline__ void hb_pair_next(hb_pair_tile &t, int B)
{
    t.b0 += 32 / R;
    if (t.b0 < B) return;
    t.b0 = 0;
    t.c++;
}

// Row and slot of the row of a thread's i-th chunk: the same for a warp, the row for a block, too,
// where that can be.
template <int R> __device__ __forceinline__ int hb_pair_row(const hb_pairs &k, int i)
{
    return R == 16 ? i / 2 : R == 8 ? i : 2 * i + k.warp / 4;
}

template <int R> __device__ __forceinline__ int hb_pair_slot(const hb_pairs &k, int i)
{
    return R == 16 ? k.warp + i % 2 * 8 : R == 8 ? k.warp : k.warp % 4;
}

// Address of row i of a tile; absent ones: the first.
__device__ __forceinline__ uintptr_t hb_pair_address(const void *x, struct hb_strides s,
                                                     hb_pair_tile t, int i, int B)
{
    return (uintptr_t)x + 2 * (t.c * s.c + t.b0 * s.b) + (t.b0 + i < B ? 2 * i * s.b : 0);
}

// All rows of a signal of 2-byte numbers begin on a boundary.
__device__ __forceinline__ bool hb_pair_whole(const void *x, struct hb_strides s)
{
    return (((uintptr_t)x | (uintptr_t)s.b * 2 | (uintptr_t)s.c * 2) & 15) == 0;
}

// --- from and to device memory ------------------------------------------------------------------
// Address of row i of a tile of signals, and whether it is there; j: half of the tile it is in.
template <int R, int COUNT>
__device__ __forceinline__ uintptr_t hb_pair_find(const hb_pair_signal (&from)[COUNT],
                                                  hb_pair_tile t, int i, int j, int B, bool &is)
{
    const hb_pair_signal x = COUNT == 2 && j == 1 ? from[COUNT - 1] : from[0];
    const int row = COUNT == 2 ? i - j * (16 / R) : i;
    is = t.b0 + row < B;
    return hb_pair_address(x.x, x.s, t, row, B);
}

// Begins to copy the tile to tile `buffer`, rows from the boundary below on; what of a row comes
// after its last slot goes to the ends (not `whole`).
template <int R, int COUNT>
__device__ __forceinline__ void hb_pair_fetch(const hb_pairs &k, int buffer,
                                              const hb_pair_signal (&from)[COUNT], int B, int L,
                                              hb_pair_tile t, bool whole)
{
    const auto copy = [&](uint32_t to, int row, int half, int at) {
        bool is;
        const uintptr_t x = hb_pair_find<R>(from, t, row, half, B, is);
        const int off = (int)(x & 15);
        const int have = is ? 2 * L + off - at : 0;
        hb_copy(to, (const void *)(x - off + at), min(max(have, 0), 16));
    };
    const uint32_t to = k.base + HB_PAIR_TILES + buffer * HB_PAIR_PLANE + k.chunk;
#pragma unroll
    for (int i = 0; i < 4; i++)
        copy(to + 4096 * i, hb_pair_row<R>(k, i), i / 2,
             hb_pair_slot<R>(k, i) * 512 + 16 * k.lane);
    if (!whole && threadIdx.x < 32 / R)
        copy(k.base + HB_PAIR_ENDS<R> + 16 * threadIdx.x, threadIdx.x, threadIdx.x / (16 / R),
             512 * R);
}

// Shifts the rows of the tile to where they would be if they began on a boundary. A barrier before
// and inside.
template <int R, int COUNT>
__device__ __forceinline__ void hb_pair_shift(const hb_pairs &k, int buffer,
                                              const hb_pair_signal (&from)[COUNT], int B,
                                              hb_pair_tile t)
{
    unsigned char *const tile = k.shared + HB_PAIR_TILES + buffer * HB_PAIR_PLANE;
    uint4 v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int slot = k.warp + 8 * i, row = hb_pair_row<R>(k, i);
        const unsigned char *after = tile + hb_place(slot, k.lane + 1);
        if (k.lane == 31)
            after = hb_pair_slot<R>(k, i) < R - 1 ? tile + hb_place(slot + 1, 0)
                                                  : k.shared + HB_PAIR_ENDS<R> + 16 * row;
        bool is;
        v[i] = hb_shifted(*(const uint4 *)(tile + k.chunk + 4096 * i), *(const uint4 *)after,
                          (int)(hb_pair_find<R>(from, t, row, i / 2, B, is) >> 1 & 7));
    }
    __syncthreads();              // everybody has read
#pragma unroll
    for (int i = 0; i < 4; i++) *(uint4 *)(tile + k.chunk + 4096 * i) = v[i];
}

// The peaks of the tile's rows: largest magnitudes of T as bits. peaks: 0 before.
template <int R>
__device__ __forceinline__ void hb_pair_measure(const hb_pairs &k, int buffer)
{
    const unsigned char *const tile = k.shared + HB_PAIR_TILES + buffer * HB_PAIR_PLANE;
    unsigned *const peaks = (unsigned *)(k.shared + HB_PAIR_PEAKS<R>) + 8 * buffer;
    constexpr int SAME = R == 16 ? 2 : 1;        // slots of a thread that are of one row
#pragma unroll
    for (int i = 0; i < 4; i += SAME) {
        uint32_t m = 0;
#pragma unroll
        for (int j = i; j < i + SAME; j++) {
            const uint4 v = *(const uint4 *)(tile + k.chunk + 4096 * j);
            m = __vmaxu2(m, __vmaxu2(v.x & 0x7fff7fffu, v.y & 0x7fff7fffu));
            m = __vmaxu2(m, __vmaxu2(v.z & 0x7fff7fffu, v.w & 0x7fff7fffu));
        }
        m = __reduce_max_sync(~0u, max(m & 0xffffu, m >> 16));
        if (k.lane == 0) atomicMax(peaks + (k.warp + 8 * i) / R, m);
    }
}

// Scale of the row that slot k is of.
template <class T, int R>
__device__ __forceinline__ float hb_pair_scale(const hb_pairs &k, int buffer, int slot)
{
    const unsigned *const peaks = (const unsigned *)(k.shared + HB_PAIR_PEAKS<R>) + 8 * buffer;
    return hb_fused_scale(hb_magnitude<T>(peaks[slot / R] << 16), 0);
}

// Halves `first` .. `last` - 1 of v, one by one.
__device__ __forceinline__ void hb_store_some(unsigned short *to, uint4 v, int first, int last)
{
    const uint32_t w[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
    for (int t = 0; t < 8; t++)
        if (t >= first && t < last) to[t] = (unsigned short)(w[t / 2] >> 16 * (t % 2));
}

// Chunk i of this thread to a row that does not begin on a boundary, or ends off one: the 16 bytes
// from the boundary below it on, with what the chunk before has of them.
template <int R>
__device__ __forceinline__ void hb_pair_leave_any(const hb_pairs &k, const unsigned char *tile,
                                                  int i, uintptr_t row, int L)
{
    const int slot = k.warp + 8 * i, k1 = hb_pair_slot<R>(k, i), n = 256 * k1 + 8 * k.lane;
    const int off = (int)(row >> 1 & 7), from = n - off;
    unsigned short *const y = (unsigned short *)row;
    uint4 v = *(const uint4 *)(tile + k.chunk + 4096 * i), before = v;
    if (k.lane > 0) before = *(const uint4 *)(tile + hb_place(slot, k.lane - 1));
    else if (k1 > 0) before = *(const uint4 *)(tile + hb_place(slot - 1, 31));
    if (off > 0) {
        if (k1 == R - 1 && k.lane == 31) hb_store_some(y + n, v, 8 - off, L - n);
        v = hb_shifted(before, v, 8 - off);
    }
    if (from >= 0 && from + 8 <= L) *(uint4 *)(y + from) = v;
    else hb_store_some(y + from, v, -from, L - from);
}

// The tile of results to device memory; COUNT 2: what lies in the place of the second signal.
// whole: all rows begin and end on a boundary.
template <int R, int COUNT>
__device__ __forceinline__ void hb_pair_leave(const hb_pairs &k, int buffer,
                                              const hb_pair_signal &to, int B, int L,
                                              hb_pair_tile t, bool whole)
{
    constexpr int FIRST = COUNT == 2 ? 2 : 0;
    const unsigned char *const tile = k.shared + HB_PAIR_TILES + buffer * HB_PAIR_PLANE;
    if (whole) {
#pragma unroll
        for (int i = FIRST; i < 4; i++) {
            const int row = hb_pair_row<R>(k, i - FIRST);
            const int n = 256 * hb_pair_slot<R>(k, i) + 8 * k.lane;
            const uintptr_t y = hb_pair_address(to.x, to.s, t, row, B);
            const uint4 v = *(const uint4 *)(tile + k.chunk + 4096 * i);
            if (n < L && t.b0 + row < B) *(uint4 *)(y + 2 * n) = v;
        }
    } else {
#pragma unroll 1
        for (int i = FIRST; i < 4; i++) {
            const int row = hb_pair_row<R>(k, i - FIRST);
            if (t.b0 + row < B)
                hb_pair_leave_any<R>(k, tile, i, hb_pair_address(to.x, to.s, t, row, B), L);
        }
    }
}

// --- the three steps ----------------------------------------------------------------------------
// A pair of T to halves, times a power of two; of those a half cannot hold all.
template <class T> struct hb_half_scale { float by; };
template <> struct hb_half_scale<__half> { __half2 by, more; };

template <class T> __device__ __forceinline__ hb_half_scale<T> hb_half_scale_of(float by)
{
    if constexpr (HB_IS_HALF<T>) {
        const float some = fminf(by, 4096.0f), more = by * hb_inverse(some);
        return { __floats2half2_rn(some, some), __floats2half2_rn(more, more) };
    } else {
        return { by };
    }
}

template <class T>
__device__ __forceinline__ uint32_t hb_scaled(uint32_t w, const hb_half_scale<T> &s)
{
    if constexpr (HB_IS_HALF<T>) {
        const __half2 x = __hmul2(__hmul2(*(const __half2 *)&w, s.by), s.more);
        return *(const uint32_t *)&x;
    } else {
        return hb_halves<T>(w, s.by);
    }
}

// Step 1: the tile to the planes.
template <class T, int R>
__device__ __forceinline__ void hb_pair_enter(const hb_pairs &k, int buffer)
{
    hb_half_scale<T> scale[2][2];                // rows of the upper, the lower 16 slots; of these
#pragma unroll                                   // the upper, the lower 8
    for (int i = 0; i < 4; i++)
        scale[i / 2][i % 2] = R == 16 && i % 2 ? scale[i / 2][0]
            : hb_half_scale_of<T>(hb_pair_scale<T, R>(k, buffer, 8 * i + 2 * (k.lane & 3)));
    const uint32_t matrix = k.base + HB_PAIR_MATRICES + 2048 * k.warp + 32 * (k.lane & 15)
                            + (((k.lane >> 4) ^ (k.lane >> 2 & 1)) << 4);
    uint32_t gr[2][4], gi[2][4], x[2][2][4];     // all is asked for before the first wait
#pragma unroll
    for (int e = 0; e < 2; e++) {                // p = 2 warp + e
#pragma unroll
        for (int m = 0; m < 2; m++)
            hb_load_trans(x[e][m], k.base + 8192 * m + (k.at ^ 32 * e) + HB_PAIR_TILES
                                   + buffer * HB_PAIR_PLANE);
        hb_load_matrices(gr[e], matrix + 1024 * e);
        hb_load_matrices(gi[e], matrix + 1024 * e + 512);
    }
#pragma unroll
    for (int e = 0; e < 2; e++)
#pragma unroll
        for (int m = 0; m < 2; m++) {
            const uint32_t at = k.base + 8192 * m + (k.at ^ 32 * e);
            float re[2][4] = {}, im[2][4] = {};
#pragma unroll
            for (int j = 0; j < 4; j++) x[e][m][j] = hb_scaled<T>(x[e][m][j], scale[m][j % 2]);
#pragma unroll
            for (int t = 0; t < 2; t++) {
                hb_mma(re[t], gr[e], x[e][m][2 * t], x[e][m][2 * t + 1]);
                hb_mma(im[t], gi[e], x[e][m][2 * t], x[e][m][2 * t + 1]);
            }
            hb_store_tiles(at, re);
            hb_store_tiles(at + HB_PAIR_PLANE, im);
        }
}

// Turns of this lane's elements of C [k2][s]; BACK: [s][k2]. turns: at the first of them, which is
// k.there or k.back of a k1.
template <bool BACK>
__device__ __forceinline__ void hb_pair_turn(float2 (&w)[2][4], const unsigned char *shared,
                                             int turns)
{
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            if constexpr (BACK) {
#pragma unroll
                for (int e = 0; e < 2; e++)
                    w[t][2 * h + e] = *(const float2 *)(shared + (turns ^ 64 * (h ^ e)) + 1024 * t
                                                        + 128 * e);
            } else {
                const float4 v = *(const float4 *)(shared + (turns ^ 64 * t) + 1024 * h);
                w[t][2 * h] = make_float2(v.x, v.y);
                w[t][2 * h + 1] = make_float2(v.z, v.w);
            }
        }
}

// Step 2. spectrum: of this lane, slot k1 = 0; inner: F.
template <int R>
__device__ __forceinline__ void hb_pair_rows(const hb_pairs &k, hb_inner inner,
                                             const uint4 *spectrum)
{
    int turns = HB_PAIR_TURNS + 2048 * (k.warp % R);
    uint32_t at = k.base + hb_place(k.warp, 2 * (k.lane & 15) + (k.lane >> 4));
    spectrum += 64 * (k.warp % R);
#pragma unroll 1
    for (int i = 0; i < 2; i++) {                // slots warp, warp + 8, and 16 further
        const uint4 h[2] = { spectrum[0], spectrum[32] };
        uint32_t xr[2][4], xi[2][4];
        hb_tile z[2], x[2];
#pragma unroll
        for (int m = 0; m < 2; m++) {
            hb_load_trans(xr[m], at + 8192 * m);
            hb_load_trans(xi[m], at + 8192 * m + HB_PAIR_PLANE);
        }
        hb_pair_turn<false>(inner.w, k.shared, turns + k.there);
#pragma unroll
        for (int m = 0; m < 2; m++) hb_inner_forth(z[m], inner, xr[m], xi[m]);
#pragma unroll
        for (int m = 0; m < 2; m++) hb_times(z[m], h, 1);
        hb_pair_turn<true>(inner.w, k.shared, turns + k.back);
#pragma unroll
        for (int m = 0; m < 2; m++) hb_inner_and_back(x[m], inner, z[m]);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            hb_store_tiles(at + 8192 * m, x[m].re);
            hb_store_tiles(at + 8192 * m + HB_PAIR_PLANE, x[m].im);
        }
        at += 4096;
        if (R == 16) turns += 8 * 2048;
        if (R == 16) spectrum += 8 * 64;
    }
}

// A thread's matrices of step 3, of p = 2 warp + e, transposed.
__device__ __forceinline__ void hb_pair_matrix_back(uint32_t (&gr)[4], uint32_t (&gi)[4],
                                                    const hb_pairs &k, int e)
{
    const uint32_t matrix = k.base + HB_PAIR_MATRICES + 2048 * k.warp + 32 * (k.lane & 7)
                            + 256 * (k.lane >> 4)
                            + (((k.lane >> 3 & 1) ^ (k.lane >> 2 & 1)) << 4) + 1024 * e;
    hb_load_trans(gr, matrix);
    hb_load_trans(gi, matrix + 512);
}

// Results of 16 slots from their planes' B.
__device__ __forceinline__ void hb_pair_results(float (&re)[2][4], const uint32_t (&gr)[4],
                                                const uint32_t (&gi)[4], const uint32_t (&vr)[4],
                                                const uint32_t (&vi)[4])
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        hb_mma(re[t], gr, vr[2 * t], vr[2 * t + 1]);
        hb_mma(re[t], gi, vi[2 * t], vi[2 * t + 1]);
    }
}

// The same; planes at `at`.
__device__ __forceinline__ void hb_pair_results(float (&re)[2][4], const uint32_t (&gr)[4],
                                                const uint32_t (&gi)[4], uint32_t at)
{
    uint32_t vr[4], vi[4];
    hb_load_trans(vr, at);
    hb_load_trans(vi, at + HB_PAIR_PLANE);
    hb_pair_results(re, gr, gi, vr, vi);
}

// Step 3: the planes to y, where u was: y = results 2^-eu undo + skip u. COUNT 2: of the second
// signal only.
template <class T, int R, int COUNT>
__device__ __forceinline__ void hb_pair_back(const hb_pairs &k, int buffer, float undo, float skip)
{
    float f[2][2];
#pragma unroll
    for (int i = 0; i < 4; i++)                  // the matrices have 1 / R in them
        f[i / 2][i % 2] = R == 16 && i % 2 ? f[i / 2][0]
            : undo * R * hb_inverse(hb_pair_scale<T, R>(k, buffer, 8 * i + (k.lane >> 2)));
    uint32_t gr[2][4], gi[2][4], v[2][2][2][4], u[2][2][4] = {};     // all is asked for at first
#pragma unroll
    for (int e = 0; e < 2; e++) {
        hb_pair_matrix_back(gr[e], gi[e], k, e);
#pragma unroll
        for (int m = COUNT - 1; m < 2; m++) {
            const uint32_t at = k.base + 8192 * m + (k.at ^ 32 * e);
            hb_load_trans(v[e][m][0], at);
            hb_load_trans(v[e][m][1], at + HB_PAIR_PLANE);
        }
    }
    if (skip != 0) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i % 2 >= COUNT - 1)
                hb_load_matrices(u[i / 2][i % 2], k.base + 8192 * (i % 2) + (k.at ^ 32 * (i / 2))
                                                  + HB_PAIR_TILES + buffer * HB_PAIR_PLANE);
    }
#pragma unroll
    for (int e = 0; e < 2; e++)
#pragma unroll
        for (int m = COUNT - 1; m < 2; m++) {
            uint32_t y[4];
            float re[2][4] = {};
            hb_pair_results(re, gr[e], gi[e], v[e][m][0], v[e][m][1]);
#pragma unroll
            for (int i = 0; i < 4; i++) {        // t, h
                const float2 x = hb_two<T>(u[e][m][i]);
                const float *const c = re[i / 2] + i % 2 * 2;
                y[i] = hb_pair_of<T>(c[0] * f[m][i % 2] + skip * x.x,
                                     c[1] * f[m][i % 2] + skip * x.y);
            }
            hb_store_matrices(k.base + 8192 * m + (k.at ^ 32 * e) + HB_PAIR_TILES
                              + buffer * HB_PAIR_PLANE, y);
        }
}

// What a block keeps for all of its tiles; its peaks. matrix: hb_pair_tables.
template <int R>
__device__ __forceinline__ unsigned *hb_pair_begin(hb_pairs &k, hb_inner &inner,
                                                   unsigned char *shared, const uint4 *matrix)
{
    hb_pair_init(k, shared);
    for (int i = threadIdx.x; i < HB_PAIR_TABLES<R> / 16; i += 256)
        ((uint4 *)(shared + HB_PAIR_MATRICES))[i] = matrix[i];
    unsigned *const peaks = (unsigned *)(shared + HB_PAIR_PEAKS<R>);
    if (threadIdx.x < 16) peaks[threadIdx.x] = 0;
    hb_inner_matrix(inner, matrix + HB_PAIR_TABLES<R> / 16, k.lane);
    return peaks;
}

// y = h * u + d u. job.matrix: hb_pair_tables; job.tiles: of 32 / R rows, of a channel. Any grid.
template <class T, int R>
__global__ void __launch_bounds__(256, 2) hb_rows_pair(hb_fused_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    hb_pairs k;
    hb_inner inner;
    unsigned *const peaks = hb_pair_begin<R>(k, inner, shared, job.matrix);
    const bool whole_in = hb_pair_whole(job.in, job.si);
    const bool whole_out = hb_pair_whole(job.out, job.so) && job.L % 8 == 0;
    const int64_t all = (int64_t)job.D * job.tiles, first = blockIdx.x * all / gridDim.x;
    const int count = (int)((blockIdx.x + 1) * all / gridDim.x - first);
    if (count == 0) return;
    hb_pair_tile before = {}, now = { first / job.tiles, (int)(first % job.tiles) * (32 / R) };
    const hb_pair_signal in[1] = { { job.in, job.si } }, out = { job.out, job.so };
    hb_pair_fetch<R>(k, 0, in, job.B, job.L, now, whole_in);
    __syncthreads();              // no peaks, and the tables
#pragma unroll 1
    for (int i = 0;; i++) {
        const int buffer = i & 1;
        if (i < count) {
            hb_copied();
            if (!whole_in) {
                __syncthreads();  // everybody's copies
                hb_pair_shift<R>(k, buffer, in, job.B, now);
            }
            hb_pair_measure<R>(k, buffer);
        }
        __syncthreads();
        if (i > 0)
            hb_pair_leave<R, 1>(k, buffer ^ 1, out, job.B, job.L, before, whole_out);
        if (i == count) break;
        hb_pair_enter<T, R>(k, buffer);
        if (threadIdx.x < 8) peaks[8 * (buffer ^ 1) + threadIdx.x] = 0;
        __syncthreads();
        before = now;
        hb_pair_next<R>(now, job.B);
        if (i + 1 < count)
            hb_pair_fetch<R>(k, buffer ^ 1, in, job.B, job.L, now, whole_in);
        const float undo = job.undo[before.c], skip = job.d ? job.d[before.c] : 0;
        hb_pair_rows<R>(k, inner, job.spectrum + before.c * (64 * R) + k.lane);
        __syncthreads();
        hb_pair_back<T, R, 1>(k, buffer, undo, skip);
    }
}

// --- tables -------------------------------------------------------------------------------------
// Words on the device: HB_PAIR_TABLES, then F's fragments.
static inline int64_t hb_pair_words(int R) { return 16 * 256 + R * 512 + 256; }

// G with A(k1, p) for each p, by 1 / R; 16-byte chunk c of row k1 lies at c ^ (k1 / 4 % 2).
static inline void hb_pair_matrices(unsigned short *out, int R)
{
    for (int i = 0; i < 16 * 2 * 256; i++) {
        const int p = i / 512, part = i / 256 % 2, row = i / 16 % 16, col = i % 16;
        const double k = row % R - 0.25, a = col % R - 0.25;
        const double x = -2 * M_PI * k * (a / R + (p + 4) / (16.0 * R));
        const double v = row / R != col / R ? 0 : (part ? sin(x) : cos(x)) / R;
        const __half h = __double2half(v);
        out[i - col + (col ^ ((row << 1) & 8))] = *(const unsigned short *)&h;
    }
}

// The rows' turns with B(k1, s), by 1 / (4 size^2), as hb_turn_at says.
static inline void hb_pair_turns(float *out, int R)
{
    constexpr double size = 0.25 / (HB_F_SIZE * HB_F_SIZE);
    for (int i = 0; i < R * 256; i++) {
        const int k1 = i / 256, k2 = i / 16 % 16, s = i % 16;
        const double x = -2 * M_PI * s * (k2 / 256.0 + (k1 - 0.25) / (256.0 * R));
        float *const to = out + 512 * k1 + hb_turn_at(k2, s) / 4;
        to[0] = (float)(size * cos(x));
        to[1] = (float)(size * sin(x));
    }
}

// They are put on the device: *tables, hb_pair_words.
static inline int hb_pair_tables(const struct hb_host *host, uint4 **tables, int R)
{
    const size_t bytes = (size_t)hb_pair_words(R) * sizeof(uint32_t);
    return hb_fused_table(host, tables, bytes, [=](uint32_t *words) {
        hb_pair_matrices((unsigned short *)words, R);
        hb_pair_turns((float *)(words + 16 * 256), R);
        hb_fused_matrix(words + hb_pair_words(R) - 256, 16, 0, HB_F_SIZE);
    });
}

#endif
