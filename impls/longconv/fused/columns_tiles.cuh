// columns_tiles.cuh: columns_out_in and columns_out of columns.cuh for R1 = 128, f16 and bf16,
// through shared memory, CUDA.
// Included by columns.cuh, whose constants and notation it uses.
// Method    A block has TILE_PASSES times 64 columns (a line of 128 bytes of each row) of all R1,
//           and does them one pass after the other: out, then in.
//           Everything comes as copies of 16 bytes that are under way from the start: mid of all
//           passes, each with the signal that is added (a pass waits for its own); the next chunk's
//           row in the place of mid's first pass as soon as that is in work. Results go back to
//           shared memory and leave from there 16 bytes a thread, while what comes next is in work:
//           mid's by halves of a pass, so that little is left for the end.
//           Rows that are not 16-byte aligned come through registers, shifted.
//           Eight warps: four times 16 columns, twice half the results, so that a fragment of G
//           is read for two tiles and all sums of a warp fit in its registers.
// Place     Of 16 bytes of a row of a pass: tile_at. Rows of one ldmatrix or stmatrix differ in
//           bits 0 1 2, 1 2 3, 3 4 5 or 0 4 5 of their number: in no case do two meet in a bank.
// Cost      About 41 instructions a sample out and in (SASS; columns_out_in 55); rows that are
//           aligned: loads and stores of 16 bytes. With it, L = 2^21, f16: 2.239 ms, 2.45 before;
//           of that .023 by column_parts' loads, .017 by the last chunk's way out.
// Not here  R1 = 64: out and in alone 20.7 us a chunk for 21.6, but the launches before and after
//           overlap less with blocks of this size: 524288 as a whole 2.091 -> 2.211 ms. In alone,
//           u and dy: 18.3 -> 25 us. Mid by four parts of a pass: no gain (2.259 for 2.256).
// Limits    R1 = 128; f16, bf16; N2 a multiple of 256.
#ifndef HB_FUSED_COLUMNS_TILES_CUH
#define HB_FUSED_COLUMNS_TILES_CUH

#include "rows_pair.cuh"

template <int STEPS> constexpr bool COLUMN_TILES = STEPS == 8;
enum { TILE_THREADS = 256, TILE_WIDTH = 64, TILE_PASSES = 2, TILE_COLUMNS = 128, TILE_PARTS = 2 };
// Bytes of a signal's columns of a pass; of mid's.
template <int STEPS> constexpr int TILE_HALF = 16 * STEPS * 128;
template <int STEPS> constexpr int TILE_UNIT = 2 * TILE_HALF<STEPS>;
// A block has mid of all passes, a signal, G.
template <int STEPS> constexpr int TILE_SIGNAL = TILE_PASSES * TILE_UNIT<STEPS>;
template <int STEPS> constexpr int TILE_NEAR = TILE_SIGNAL<STEPS> + TILE_PASSES * TILE_HALF<STEPS>;
template <int STEPS> constexpr int TILE_SHARED = TILE_NEAR<STEPS> + 16 * COLUMN_NEAR_WORDS<STEPS>;

// --- shared memory and device memory -------------------------------------------------------------
__device__ __forceinline__ int tile_flip(int row)
{
    return (row ^ row >> 3 ^ (row >> 1 & 4)) & 7;
}

// Byte of chunk c (8 columns) of a row of a pass.
__device__ __forceinline__ int tile_at(int row, int c)
{
    return row * 128 + ((c ^ tile_flip(row)) << 4);
}

// The same of row i + more, where i has none of the bits of `more`.
__device__ __forceinline__ uint32_t tile_further(uint32_t at, int more)
{
    return (at ^ (uint32_t)tile_flip(more) << 4) + 128 * more;
}

// f(byte, row, column, number) for this thread's 16 bytes of ROWS rows, TILE_MINE of them.
template <int ROWS> constexpr int TILE_MINE = (8 * ROWS + TILE_THREADS - 1) / TILE_THREADS;
template <int ROWS, class F> __device__ __forceinline__ void tile_deal(F f)
{
    const int chunk = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < TILE_MINE<ROWS>; i++) {
        const int row = (int)threadIdx.x / 8 + i * (TILE_THREADS / 8);
        if (ROWS % (TILE_THREADS / 8) == 0 || row < ROWS)
            f(tile_at(row, chunk), row, 8 * chunk, i);
    }
}

// A group of copies ends; all but the last n groups of this thread are there.
__device__ __forceinline__ void tile_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int n> __device__ __forceinline__ void tile_wait()
{
    asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory");
}

// Eight halves of the sixteen in a and b, from the one at `off` = 0 .. 7 on.
__device__ __forceinline__ uint4 tile_shifted(uint4 a, uint4 b, int off)
{
    uint32_t w[8] = { a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w };
#pragma unroll
    for (int i = 0; i < 6; i++) w[i] = off & 4 ? w[i + 2] : w[i];
#pragma unroll
    for (int i = 0; i < 5; i++) w[i] = off & 2 ? w[i + 1] : w[i];
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = off & 1 ? __byte_perm(w[i], w[i + 1], 0x5432) : w[i];
    return make_uint4(w[0], w[1], w[2], w[3]);
}

// The first n of eight halves, and 0.
__device__ __forceinline__ uint4 tile_first(uint4 v, int n)
{
    uint32_t w[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = 2 * i + 1 < n ? w[i] : 2 * i < n ? w[i] & 0xffff : 0;
    return make_uint4(w[0], w[1], w[2], w[3]);
}

// Columns r .. of a pass of a row of the signal: on their way, or (rows not aligned) there. From L
// on 0.
template <class T, int STEPS>
__device__ __forceinline__ void tile_read(unsigned char *to, const T *row, int L, int N2, int r)
{
    constexpr int ROWS = 16 * STEPS, MINE = TILE_MINE<ROWS>;
    const uint32_t there = hb_shared_address(to);
    const int off = (int)((uintptr_t)row % 16 / 2);
    if (off == 0) {
        tile_deal<ROWS>([&](int at, int a, int n, int) {
            n += a * N2 + r;
            hb_copy(there + at, n < L ? row + n : row, n < L ? 2 * min(8, L - n) : 0);
        });
        return;
    }
    // In two words, of which the row has at least something.
    uint32_t lo[MINE][4], hi[MINE][4];
    tile_deal<ROWS>([&](int, int a, int n, int i) {
        n += a * N2 + r - off;
        read_words(lo[i], row + n, n < L);
        read_words(hi[i], row + n + 8, n + 8 < L);
    });
    tile_deal<ROWS>([&](int at, int a, int n, int i) {
        const auto &x = lo[i], &y = hi[i];
        const uint4 v = tile_shifted(make_uint4(x[0], x[1], x[2], x[3]),
                                       make_uint4(y[0], y[1], y[2], y[3]), off);
        *(uint4 *)(to + at) = tile_first(v, L - (a * N2 + r + n));
    });
}

// Eight results of row a of a pass, from column n on, to row[n] ..; `left` of the row from its
// column 0 on are there. Those beyond the pass are its first ones.
template <class T>
__device__ __forceinline__ void tile_write_each(const unsigned char *from, T *row, int a, int n,
                                                  int left)
{
#pragma unroll 1
    for (int i = n; i < n + 8; i++) {
        const int x = i % TILE_WIDTH;
        if (x < left) row[x] = *(const T *)(from + tile_at(a, x / 8) + x % 8 * 2);
    }
}

// A pass of results to the signal. A thread stores the eight that begin on the first 16 bytes
// behind its own eight; a row's last thread has what is left at both ends.
template <class T, int STEPS>
__device__ __forceinline__ void tile_write(const unsigned char *from, T *row, int L, int N2,
                                             int r)
{
    const int ahead = (int)((0 - (uintptr_t)row) % 16 / 2);
    if (ahead == 0) {
        tile_deal<16 * STEPS>([&](int at, int a, int n, int) {
            const int first = a * N2 + r + n, left = L - first;
            if (left >= 8) __stcs((uint4 *)(row + first), *(const uint4 *)(from + at));
            else if (left > 0) tile_write_each(from, row + first - n, a, n, left + n);
        });
        return;
    }
    tile_deal<16 * STEPS>([&](int at, int a, int n, int) {
        T *const to = row + a * N2 + r;
        const int left = L - (a * N2 + r), first = n + ahead;
        if (left <= 0) return;
        if (first + 8 <= min(left, (int)TILE_WIDTH)) {
            const uint4 v = *(const uint4 *)(from + at);
            const uint4 w = *(const uint4 *)(from + tile_at(a, n / 8 + 1));
            __stcs((uint4 *)(to + first), tile_shifted(v, w, ahead));
        } else {
            tile_write_each(from, to, a, first, left);
        }
    });
}

// A pass of mid, r: its first column.
template <int STEPS>
__device__ __forceinline__ void tile_read_mid(unsigned char *to, const __half *mid, int N2)
{
    const uint32_t there = hb_shared_address(to);
    tile_deal<32 * STEPS>([&](int at, int k, int n, int) {
        hb_copy(there + at, mid + k * N2 + n, 16);
    });
}

// One of TILE_PARTS of it, a part of k1.
template <int STEPS>
__device__ __forceinline__ void tile_write_mid(const unsigned char *from, __half *mid, int N2,
                                               int part)
{
    constexpr int ROWS = 32 * STEPS / TILE_PARTS;
    from += part * ROWS * 128;
    mid += part * ROWS * N2;
    tile_deal<ROWS>([&](int at, int k, int n, int) {
        *(uint4 *)(mid + k * N2 + n) = *(const uint4 *)(from + at);
    });
}

// Fragments of G for the way out, or (half as many) in: on their way.
template <int STEPS, bool IN>
__device__ __forceinline__ void tile_read_near(uint4 *near, const uint4 *G)
{
    const uint32_t to = hb_shared_address(near) + 16 * threadIdx.x;
#pragma unroll
    for (int i = 0; i < COLUMN_NEAR_WORDS<STEPS> / (IN ? 2 : 1); i += TILE_THREADS)
        hb_copy(to + 16 * i, G + threadIdx.x + i, 16);
}

// What a warp does of a pass: columns 16 group .., half z of the results.
struct tile_share { int group, z, lane, g, q; };

__device__ __forceinline__ struct tile_share tile_share_of()
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    return { warp % 4, warp / 4, lane, lane / 4, lane % 4 };
}

// --- out -----------------------------------------------------------------------------------------
// From a pass of mid to its results, times by; where `add`, with d times what is in their place.
template <class T, int STEPS>
__device__ __forceinline__ void tile_out(const unsigned char *mid, unsigned char *y,
                                         const uint4 *near, float by, float d, bool add)
{
    const struct tile_share my = tile_share_of();
    const int j = my.lane % 8, h = my.lane / 8 % 2, t = my.lane / 16, c = 2 * my.group;
    // Of step s: h: the other 4 of its 8 k1, t: tile.
    const uint32_t from = hb_shared_address(mid)
                          + tile_at(2 * STEPS * (4 * h + j / 2) + j % 2, c + t);
    const uint4 *const A = near + my.lane + 64 * STEPS * my.z;
    float acc[STEPS][2][4] = {};
#pragma unroll
    for (int s = 0; s < 2 * STEPS; s++) {
        const uint4 v = A[32 * s];
        const uint32_t a[4] = { v.x, v.y, v.z, v.w };
        uint32_t b[4];
        hb_load_trans(b, tile_further(from, s / 2 * 2 + s % 2 * 16 * STEPS));
        hb_mma(acc[s / 2][0], a, b[0], b[1]);
        hb_mma(acc[s / 2][1], a, b[2], b[3]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {                          // tile i / 2, its column 2 q + i % 2
        float2 z[STEPS];
#pragma unroll
        for (int x = 0; x < STEPS; x++)
            z[x] = make_float2(acc[x][i / 2][i % 2], acc[x][i / 2][2 + i % 2]);
        column_dft<STEPS, true>(z);
#pragma unroll
        for (int m = 0; m < STEPS; m++) {
            const float2 u = column_shift<STEPS>(m), v = z[column_place<STEPS>(m)];
            acc[m][i / 2][i % 2] = (u.x * v.x + u.y * v.y) * by;
        }
    }
    // Rows 16 m + 8 z + g; of ldmatrix and stmatrix: t: next m, h: tile.
    const uint32_t to = hb_shared_address(y) + tile_at(16 * t + 8 * my.z + j, c + h);
#pragma unroll
    for (int m = 0; m < STEPS; m += 2) {
        const uint32_t at = tile_further(to, 16 * m);
        uint32_t x[4];
        if (add) {
            hb_load_matrices(x, at);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float (&v)[4] = acc[m + i / 2][i % 2];
                const float2 u = hb_two<T>(x[i]);
                x[i] = hb_pair_of<T>(v[0] + d * u.x, v[1] + d * u.y);
            }
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float (&v)[4] = acc[m + i / 2][i % 2];
                x[i] = hb_pair_of<T>(v[0], v[1]);
            }
        }
        hb_store_matrices(at, x);
    }
}

// --- in ------------------------------------------------------------------------------------------
// What a lane needs of the table: T of k1 = g and what turns it to k1 + 8, at its columns.
struct tile_table { float2 first[2][2], eight[2][2]; };

// turns: at the first column of a pass.
__device__ __forceinline__ void tile_read_table(struct tile_table &w, const float2 *turns, int N2)
{
    const struct tile_share my = tile_share_of();
    turns += 16 * my.group + 2 * my.q;
#pragma unroll
    for (int t = 0; t < 2; t++) {
        read_turns(w.first[t], turns + my.g * N2 + 8 * t);
        read_turns(w.eight[t], turns + 8 * N2 + 8 * t);
    }
}

// A column's turns, k1 = 16 m + ..: of m, of m + 1; 2 cos of the step:
// w[m + 1] = twice w[m] - w[m - 1].
struct tile_turn { float2 now, next; float twice; };

template <class T, int STEPS>
__device__ __forceinline__ void tile_turns(struct tile_turn (&w)[4], struct tile_table &table,
                                           float scale, int z)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        scale_turns<T>(table.first[t], scale);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float2 first = table.first[t][e], eight = table.eight[t][e];
            const float2 step = hb_cmul(hb_cmul(eight, eight), column_shift<STEPS>(1));
            const float2 now = z ? hb_cmul(first, eight) : first;
            w[2 * t + e] = { now, hb_cmul(now, step), 2 * step.x };
        }
    }
}

__device__ __forceinline__ void tile_turned(struct tile_turn &w)
{
    const float2 now = w.next;
    w.next = make_float2(w.twice * now.x - w.now.x, w.twice * now.y - w.now.y);
    w.now = now;
}

// This lane's four columns of one k1 to mid, and w to the next. acc: (tile; Re 2, Im 2).
__device__ __forceinline__ void tile_to_mid(uint32_t at, const float (&acc)[2][4],
                                              struct tile_turn (&w)[4])
{
    uint32_t x[4];
#pragma unroll
    for (int t = 0; t < 2; t++) {
        const float2 a = hb_cmul(make_float2(acc[t][0], acc[t][2]), w[2 * t].now);
        const float2 b = hb_cmul(make_float2(acc[t][1], acc[t][3]), w[2 * t + 1].now);
        x[2 * t] = hb_pack(a.x, b.x);
        x[2 * t + 1] = hb_pack(a.y, b.y);
    }
    hb_store_matrices(at, x);
#pragma unroll
    for (int i = 0; i < 4; i++) tile_turned(w[i]);
}

// From a pass of a signal to mid; leave(part): of TILE_PARTS, it is done (tile_write_mid).
template <class T, int STEPS, class F>
__device__ __forceinline__ void tile_in(const unsigned char *u, unsigned char *mid,
                                        const uint4 *near, struct tile_table &table, float scale,
                                        F leave)
{
    const struct tile_share my = tile_share_of();
    const int j = my.lane % 8, h = my.lane / 8 % 2, t = my.lane / 16, c = 2 * my.group;
    const uint32_t from = hb_shared_address(u) + tile_at(STEPS * (8 * h + j), c + t);
    const uint4 *const A = near + my.lane + 32 * STEPS * my.z;
    float acc[STEPS][2][4] = {};
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const uint4 v = A[32 * s];
        const uint32_t a[4] = { v.x, v.y, v.z, v.w };
        uint32_t b[4];
        hb_load_trans(b, tile_further(from, s));
#pragma unroll
        for (int i = 0; i < 4; i++) b[i] = hb_halves<T>(b[i], scale);
        hb_mma(acc[s][0], a, b[0], b[1]);
        hb_mma(acc[s][1], a, b[2], b[3]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 z[STEPS];
#pragma unroll
        for (int x = 0; x < STEPS; x++)
            z[x] = make_float2(acc[x][i / 2][i % 2], acc[x][i / 2][2 + i % 2]);
        column_dft<STEPS, false>(z);
#pragma unroll
        for (int m = 0; m < STEPS; m++) {
            acc[m][i / 2][i % 2] = z[column_place<STEPS>(m)].x;
            acc[m][i / 2][2 + i % 2] = z[column_place<STEPS>(m)].y;
        }
    }
    struct tile_turn w[4];
    tile_turns<T, STEPS>(w, table, scale, my.z);
    // k1 = 16 m + 8 z + g; of stmatrix: h: imaginary part, t: tile.
    const uint32_t to = hb_shared_address(mid) + tile_at(16 * my.z + 2 * j + h, c + t);
#pragma unroll
    for (int m = 0; m < STEPS; m++) {
        tile_to_mid(tile_further(to, 32 * m), acc[m], w);
        if (m % (STEPS / TILE_PARTS) == STEPS / TILE_PARTS - 1) leave(m / (STEPS / TILE_PARTS));
    }
}

// --- the kernel ----------------------------------------------------------------------------------
// Lines of the columns of a block, r .. of each R1, are to come into the L2 cache.
template <class T, int STEPS>
__device__ __forceinline__ void tile_prefetch(const T *row, int L, int N2, int r)
{
    for (int i = (int)threadIdx.x; i < 16 * STEPS * TILE_PASSES; i += TILE_THREADS) {
        const int n = i / TILE_PASSES * N2 + r + i % TILE_PASSES * TILE_WIDTH;
        if (n < L) hb_prefetch_line(row + n);
    }
}

// Row i out, columns r ..; meanwhile the row `in` (or NULL) begins to come to the first places, and
// its G.
template <class T, int STEPS>
__device__ __forceinline__ void tile_row_out(unsigned char *shared, const struct column_chunks &all,
                                             const struct column_tables &k, int i, int r,
                                             const T *in)
{
    constexpr int UNIT = TILE_UNIT<STEPS>, HALF = TILE_HALF<STEPS>;
    const struct column_rows &j = all.out;
    uint4 *const near = (uint4 *)(shared + TILE_NEAR<STEPS>);
    unsigned char *const y = shared + TILE_SIGNAL<STEPS>;
    const int N2 = k.N2;
    const unsigned c = (unsigned)i / (unsigned)j.batch;
    T *const row = (T *)column_row<T>(j, i);
    const bool add = all.skip.d != NULL;
    const T *const added = column_added<T>(j, all.skip, i);
    tile_read_near<STEPS, false>(near, k.out);
    if (add) {
        tile_read<T, STEPS>(y, added, j.L, N2, r);
        tile_prefetch<T, STEPS>(added, j.L, N2, r);
    }
    if (in) tile_prefetch<T, STEPS>(in, all.in.L, N2, r);
    launch_wait();
    const __half *const mid = j.mid + i * j.apart + r;
#pragma unroll 1
    for (int p = 0; p < TILE_PASSES; p++) {
        if (add && p > 0) tile_read<T, STEPS>(y + p * HALF, added, j.L, N2, r + p * TILE_WIDTH);
        tile_read_mid<STEPS>(shared + p * UNIT, mid + p * TILE_WIDTH, N2);
        tile_commit();
    }
    const float d = add ? all.skip.d[c] : 0;
    const float by = all.back[c] * (j.boost ? hb_inverse(j.boost[i]) : 1) * hb_inverse(j.scale[i]);
#pragma unroll 1
    for (int p = 0; p < TILE_PASSES; p++) {
        tile_wait<TILE_PASSES - 1>();                      // one more group each time
        __syncthreads();                                   // it is there, the one before done
        if (in && p == 1)
#pragma unroll
            for (int e = 0; e < TILE_PASSES; e++)
                tile_read<T, STEPS>(shared + e * HALF, in, all.in.L, N2, r + e * TILE_WIDTH);
        tile_commit();
        if (p > 0)
            tile_write<T, STEPS>(y + (p - 1) * HALF, row, j.L, N2, r + (p - 1) * TILE_WIDTH);
        tile_out<T, STEPS>(shared + p * UNIT, y + p * HALF, near, by, d, add);
    }
    __syncthreads();
    if (in) tile_read_near<STEPS, true>(near, k.in);
    tile_write<T, STEPS>(y + (TILE_PASSES - 1) * HALF, row, j.L, N2,
                         r + (TILE_PASSES - 1) * TILE_WIDTH);
}

// Columns r .. of row i in; they and G are on their way. Results go where mid's last passes and
// what was added have been.
template <class T, int STEPS>
__device__ __forceinline__ void tile_row_in(unsigned char *shared, const struct column_rows &j,
                                            const struct column_tables &k, int i, int r,
                                            float scale)
{
    const uint4 *const near = (const uint4 *)(shared + TILE_NEAR<STEPS>);
    __half *const mid = j.mid + i * j.apart + r;
    struct tile_table table;
    tile_read_table(table, k.turn + r, k.N2);
    hb_copied();
    __syncthreads();
#pragma unroll 1
    for (int p = 0; p < TILE_PASSES; p++) {
        unsigned char *const to = shared + (TILE_PASSES / 2 + p) * TILE_UNIT<STEPS>;
        tile_in<T, STEPS>(shared + p * TILE_HALF<STEPS>, to, near, table, scale, [&](int part) {
            if (part == TILE_PARTS - 1 && p + 1 < TILE_PASSES)
                tile_read_table(table, k.turn + r + (p + 1) * TILE_WIDTH, k.N2);
            __syncthreads();
            tile_write_mid<STEPS>(to, mid + p * TILE_WIDTH, k.N2, part);
        });
    }
}

// Grid (the more rows, blocks of columns), blocks first. A block takes from mid what it then writes
// over. No launch of the call writes u or (in) its scale: they are read before launch_wait.
template <class T, int STEPS>
__global__ void __launch_bounds__(TILE_THREADS, 2)
columns_tiles(const __grid_constant__ struct column_chunks all, struct column_tables k)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    const unsigned blocks = (unsigned)k.N2 / TILE_COLUMNS;
    const int i = (int)(blockIdx.x / blocks), r = (int)(blockIdx.x % blocks) * TILE_COLUMNS;
    const T *const u = i < all.in_rows ? column_row<T>(all.in, i) : NULL;
    const float scale = u ? all.in.scale[i] * HB_MID_TOP : 0;
    if (i < all.out_rows) {
        tile_row_out<T, STEPS>(shared, all, k, i, r, u);
    } else {
        tile_read_near<STEPS, true>((uint4 *)(shared + TILE_NEAR<STEPS>), k.in);
#pragma unroll 1
        for (int p = 0; p < TILE_PASSES; p++)
            tile_read<T, STEPS>(shared + p * TILE_HALF<STEPS>, u, all.in.L, k.N2,
                                r + p * TILE_WIDTH);
        launch_wait();
    }
    if (u) tile_row_in<T, STEPS>(shared, all.in, k, i, r, scale);
}

// --- host ----------------------------------------------------------------------------------------
// Before the first launch; a failure is found by hb_cuda_launched.
template <class T, int STEPS> static inline void tile_allow(void)
{
    (void)cudaFuncSetAttribute((const void *)columns_tiles<T, STEPS>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, TILE_SHARED<STEPS>);
}

template <class T, int STEPS>
static inline void tile_launch(const struct column_chunks *all, const struct column_tables *k,
                               cudaStream_t stream)
{
    const int64_t rows = all->out_rows > all->in_rows ? all->out_rows : all->in_rows;
    launch_next(true, columns_tiles<T, STEPS>, rows * (k->N2 / TILE_COLUMNS), TILE_THREADS,
                TILE_SHARED<STEPS>, stream, *all, *k);
}
#endif
