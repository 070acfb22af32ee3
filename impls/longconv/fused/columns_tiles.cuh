// columns_tiles.cuh: columns.cuh's sums, f16 and bf16, R1 to 128, through shared memory, CUDA.
// Included by columns.cuh, whose constants and notation it uses.
// Method    A block has 64 TILE_PASSES columns of all R1. It does 64 at a time (a line of 128 bytes
//           of each row), one pass after the other: out, then in with the next chunk's row, whose
//           results take mid's place; either may be left out.
//           Everything comes as copies of 16 bytes that are under way from the start: mid of all
//           passes (a pass waits for its own), the signal that is added; the next row in the place
//           of mid's first passes as soon as these are in work. Results go back to shared memory
//           and leave from there 16 bytes a thread, while the next pass is in work.
//           Rows that are not 16-byte aligned come through registers, shifted.
//           Eight warps: four times 16 columns, twice half the results, so that a fragment of G
//           is read for two tiles and all sums of a warp fit in its registers.
// Place     Bytes 16 c of row i of a pass: tile_place. Rows of one ldmatrix or stmatrix differ in
//           bits 0 1 2, 1 2 3, 2 3 4, 3 4 5, 0 3 4 or 0 4 5 of i: in no case do two meet in a bank.
// Cost      L2 as columns.cuh; no instruction loads or stores less than 16 bytes.
// Limits    R1 = 16 .. 128; N2 a multiple of 256.
#ifndef HB_FUSED_COLUMNS_TILES_CUH
#define HB_FUSED_COLUMNS_TILES_CUH

#include "rows_pair.cuh"

enum { TILE_THREADS = 256, TILE_WIDTH = 64 };
template <int STEPS> constexpr int TILE_PASSES = STEPS > 4 ? 2 : 4;
template <int STEPS> constexpr int TILE_COLUMNS = TILE_WIDTH * TILE_PASSES<STEPS>;
// Bytes of a signal's columns of a pass; mid's are twice that.
template <int STEPS> constexpr int TILE_HALF = 16 * STEPS * 128;
template <int STEPS> constexpr int TILE_UNIT = 2 * TILE_HALF<STEPS>;
// A block has mid of all passes, a signal, G.
template <int STEPS> constexpr int TILE_SIGNAL = TILE_PASSES<STEPS> * TILE_UNIT<STEPS>;
template <int STEPS> constexpr int TILE_NEAR = TILE_SIGNAL<STEPS>
                                               + TILE_PASSES<STEPS> * TILE_HALF<STEPS>;
template <int STEPS> constexpr int TILE_SHARED = TILE_NEAR<STEPS> + 16 * COLUMN_NEAR_WORDS<STEPS>;
template <class T, int STEPS> constexpr bool COLUMN_TILES = sizeof(T) == 2 && STEPS <= 8;

// Rows out and, of one or two signals, in. early: columns_in.
struct column_work {
    struct column_rows out, in[2];
    int out_rows, in_rows, signals;
    bool early;
    const float *back;
    struct column_skip skip;
};

// --- tiles in shared memory ----------------------------------------------------------------------
__device__ __forceinline__ int tile_flip(int row)
{
    return (row ^ row >> 3 ^ (row >> 1 & 4)) & 7;
}

// Byte of chunk c (8 columns) of a row of a pass.
__device__ __forceinline__ int tile_place(int row, int c)
{
    return row * 128 + ((c ^ tile_flip(row)) << 4);
}

// The same of row i + more, where i has none of the bits of `more`.
__device__ __forceinline__ uint32_t tile_further(uint32_t at, int more)
{
    return (at ^ (uint32_t)tile_flip(more) << 4) + 128 * more;
}

// f(byte, row, column) for this thread's 16 bytes of ROWS rows.
template <int ROWS, class F> __device__ __forceinline__ void tile_deal(F f)
{
    const int chunk = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < ROWS; i += TILE_THREADS / 8) {
        const int row = (int)threadIdx.x / 8 + i;
        if (ROWS >= TILE_THREADS / 8 || row < ROWS) f(tile_place(row, chunk), row, 8 * chunk);
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

// Samples n .. n + 7 of a row as they lie in memory, n a multiple of 8; 0 from L on.
template <class T> __device__ __forceinline__ uint4 tile_samples(const T *row, int n, int L)
{
    if (n + 16 <= L) {                                     // both words have something of the row
        const int off = (int)((uintptr_t)row % 16 / 2);
        const uint4 *const at = (const uint4 *)(row + n - off);
        return tile_shifted(at[0], at[1], off);
    }
    uint32_t v[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        v[i] = read_short(row + n + 2 * i, n + 2 * i < L)
               | read_short(row + n + 2 * i + 1, n + 2 * i + 1 < L) << 16;
    return make_uint4(v[0], v[1], v[2], v[3]);
}

// Columns r .. of a pass of a row of the signal: on their way, or (rows not aligned) there.
template <class T, int STEPS>
__device__ __forceinline__ void tile_read(unsigned char *to, const T *row, int L, int N2, int r)
{
    const uint32_t there = hb_shared_address(to);
    if ((uintptr_t)row % 16 == 0)
        tile_deal<16 * STEPS>([&](int at, int a, int n) {
            n += a * N2 + r;
            hb_copy(there + at, n < L ? row + n : row, n < L ? 2 * min(8, L - n) : 0);
        });
    else
        tile_deal<16 * STEPS>([&](int at, int a, int n) {
            *(uint4 *)(to + at) = tile_samples(row, a * N2 + r + n, L);
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
        if (x < left) row[x] = *(const T *)(from + tile_place(a, x / 8) + x % 8 * 2);
    }
}

// A pass of results to the signal. A thread stores the eight that begin on the first 16 bytes
// behind its own eight; a row's last thread has what is left at both ends.
template <class T, int STEPS>
__device__ __forceinline__ void tile_write(const unsigned char *from, T *row, int L, int N2, int r)
{
    const int ahead = (int)((0 - (uintptr_t)row) % 16 / 2);
    if (ahead == 0) {
        tile_deal<16 * STEPS>([&](int at, int a, int n) {
            const int first = a * N2 + r + n, left = L - first;
            if (left >= 8) __stcs((uint4 *)(row + first), *(const uint4 *)(from + at));
            else if (left > 0) tile_write_each(from, row + first - n, a, n, left + n);
        });
        return;
    }
    tile_deal<16 * STEPS>([&](int at, int a, int n) {
        T *const to = row + a * N2 + r;
        const int left = L - (a * N2 + r), first = n + ahead;
        if (left <= 0) return;
        if (first + 8 <= min(left, (int)TILE_WIDTH)) {
            const uint4 v = *(const uint4 *)(from + at);
            const uint4 w = *(const uint4 *)(from + tile_place(a, n / 8 + 1));
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
    tile_deal<32 * STEPS>([&](int at, int k, int n) { hb_copy(there + at, mid + k * N2 + n, 16); });
}

template <int STEPS>
__device__ __forceinline__ void tile_write_mid(const unsigned char *from, __half *mid, int N2)
{
    tile_deal<32 * STEPS>([&](int at, int k, int n) {
        *(uint4 *)(mid + k * N2 + n) = *(const uint4 *)(from + at);
    });
}

// G's fragments are on their way.
template <int STEPS>
__device__ __forceinline__ void tile_read_near(uint4 *near, const uint4 *G, bool in)
{
    // By classes the way in has half as many.
    const int words = COLUMN_NEAR_WORDS<STEPS> / (COLUMN_CLASSES<STEPS> && in ? 2 : 1);
    const uint32_t to = hb_shared_address(near);
    for (int i = (int)threadIdx.x; i < words; i += TILE_THREADS) hb_copy(to + 16 * i, G + i, 16);
}

// What a warp does of a pass: columns 16 group .., half z of the results.
struct tile_share { int group, z, lane, g, q; };

__device__ __forceinline__ struct tile_share tile_share_of()
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    return { warp % 4, warp / 4, lane, lane / 4, lane % 4 };
}

// --- out -----------------------------------------------------------------------------------------
// Pairs of neighbours v, as ldmatrix has them in the tile: what is there times d added, in its
// place.
template <class T>
__device__ __forceinline__ void tile_results(uint32_t at, const float2 (&v)[4], float d, bool add)
{
    uint32_t x[4];
    if (add) {
        hb_load_matrices(x, at);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 u = hb_two<T>(x[i]);
            x[i] = hb_pair_of<T>(v[i].x + d * u.x, v[i].y + d * u.y);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = hb_pair_of<T>(v[i].x, v[i].y);
    }
    hb_store_matrices(at, x);
}

// From a pass of mid to its results, beside which is the signal that is added.
template <class T, int STEPS>
__device__ __forceinline__ void tile_out(const unsigned char *mid, unsigned char *y,
                                         const uint4 *near, float by, float d, bool add)
{
    constexpr bool CLASSES = COLUMN_CLASSES<STEPS>;
    const struct tile_share my = tile_share_of();
    const int j = my.lane % 8, h = my.lane / 8 % 2, t = my.lane / 16, c = 2 * my.group;
    // Of step s: h: the other 4 of its 8 k1, t: tile.
    const uint32_t from = hb_shared_address(mid)
        + tile_place(CLASSES ? 2 * STEPS * (4 * h + j / 2) + j % 2 : 8 * h + j, c + t);
    const auto row = [](int s) { return CLASSES ? s / 2 * 2 + s % 2 * 16 * STEPS : 16 * s; };
    const uint4 *A = near + my.lane;
    if constexpr (CLASSES) {
        A += 64 * STEPS * my.z;
        float acc[STEPS][2][4] = {};
#pragma unroll
        for (int s = 0; s < 2 * STEPS; s++) {
            const uint4 v = A[32 * s];
            const uint32_t a[4] = { v.x, v.y, v.z, v.w };
            uint32_t b[4];
            hb_load_trans(b, tile_further(from, row(s)));
            hb_mma(acc[s / 2][0], a, b[0], b[1]);
            hb_mma(acc[s / 2][1], a, b[2], b[3]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {                      // tile i / 2, its column 2 q + i % 2
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
        // Rows 16 m + 8 z + g; of stmatrix: t: next m, h: tile.
        const uint32_t to = hb_shared_address(y) + tile_place(16 * t + 8 * my.z + j, c + h);
#pragma unroll
        for (int m = 0; m < STEPS; m += 2) {
            float2 v[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = make_float2(acc[m + i / 2][i % 2][0], acc[m + i / 2][i % 2][1]);
            tile_results<T>(tile_further(to, 16 * m), v, d, add);
        }
    } else {
        const uint32_t to = hb_shared_address(y) + tile_place(16 * my.z + 8 * t + j, c + h);
        A += 64 * STEPS * my.z;
#pragma unroll
        for (int m = 0; m < STEPS; m += 2, A += 128 * STEPS) {
            if (m + my.z >= STEPS) break;
            float acc[2][4] = {};
#pragma unroll
            for (int s = 0; s < 2 * STEPS; s++) {
                const uint4 v = A[32 * s];
                const uint32_t a[4] = { v.x, v.y, v.z, v.w };
                uint32_t b[4];
                hb_load_trans(b, tile_further(from, row(s)));
                hb_mma(acc[0], a, b[0], b[1]);
                hb_mma(acc[1], a, b[2], b[3]);
            }
            float2 v[4];                                   // tile i % 2, row 16 m + 8 (i / 2) + g
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = make_float2(acc[i % 2][i / 2 * 2] * by, acc[i % 2][i / 2 * 2 + 1] * by);
            tile_results<T>(tile_further(to, 16 * m), v, d, add);
        }
    }
}

// --- in ------------------------------------------------------------------------------------------
// A column's turns, k1 = 16 m + ..: of m, of m + 1; 2 cos of the step:
// w[m + 1] = twice w[m] - w[m - 1].
struct tile_turn { float2 now, next; float twice; };

// Of the columns of this lane, r .. of the table. scale: f16 only.
template <class T, int STEPS>
__device__ __forceinline__ void tile_turns(struct tile_turn (&w)[4], const float2 *turns, int N2,
                                           float scale, const struct tile_share &my)
{
    constexpr bool CLASSES = COLUMN_CLASSES<STEPS>;
#pragma unroll
    for (int t = 0; t < 2; t++) {
        float2 first[2], eight[2];
        read_turns(first, turns + my.g * N2 + 8 * t);
        read_turns(eight, turns + 8 * N2 + 8 * t);
        scale_turns<T>(first, scale);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float2 step = hb_cmul(eight[e], eight[e]);
            if constexpr (CLASSES) step = hb_cmul(step, column_shift<STEPS>(1));
            const float2 now = my.z ? hb_cmul(first[e], eight[e]) : first[e];
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

// B of both tiles for sixteen rows of a signal.
template <class T>
__device__ __forceinline__ void tile_signal(uint32_t (&b)[4], uint32_t at, float scale)
{
    hb_load_trans(b, at);
#pragma unroll
    for (int i = 0; i < 4; i++) b[i] = hb_halves<T>(b[i], scale);
}

// From a pass of a signal to mid. turns: at its first column.
template <class T, int STEPS>
__device__ __forceinline__ void tile_in(const unsigned char *u, unsigned char *mid,
                                        const uint4 *near, const float2 *turns, int N2, float scale)
{
    constexpr bool CLASSES = COLUMN_CLASSES<STEPS>;
    const struct tile_share my = tile_share_of();
    const int j = my.lane % 8, h = my.lane / 8 % 2, t = my.lane / 16, c = 2 * my.group;
    struct tile_turn w[4];
    tile_turns<T, STEPS>(w, turns + 16 * my.group + 2 * my.q, N2, scale, my);
    const uint32_t from = hb_shared_address(u)
                          + tile_place(CLASSES ? STEPS * (8 * h + j) : 8 * h + j, c + t);
    // k1 = 16 m + 8 z + g; of stmatrix: h: imaginary part, t: tile.
    const uint32_t to = hb_shared_address(mid) + tile_place(16 * my.z + 2 * j + h, c + t);
    const uint4 *A = near + my.lane + 32 * STEPS * my.z;
    if constexpr (CLASSES) {
        float acc[STEPS][2][4] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const uint4 v = A[32 * s];
            const uint32_t a[4] = { v.x, v.y, v.z, v.w };
            uint32_t b[4];
            tile_signal<T>(b, tile_further(from, s), scale);
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
#pragma unroll
        for (int m = 0; m < STEPS; m++) tile_to_mid(tile_further(to, 32 * m), acc[m], w);
    } else {
#pragma unroll
        for (int m = 0; m < STEPS; m++, A += 64 * STEPS) {
            float acc[2][4] = {};
#pragma unroll
            for (int s = 0; s < STEPS; s++) {
                const uint4 v = A[32 * s];
                const uint32_t a[4] = { v.x, v.y, v.z, v.w };
                uint32_t b[4];
                tile_signal<T>(b, tile_further(from, 16 * s), scale);
                hb_mma(acc[0], a, b[0], b[1]);
                hb_mma(acc[1], a, b[2], b[3]);
            }
            tile_to_mid(tile_further(to, 32 * m), acc, w);
        }
    }
}

// --- the kernel ----------------------------------------------------------------------------------
// Lines of the columns of a block, r .. of each R1, are to come into the L2 cache.
template <class T, int STEPS>
__device__ __forceinline__ void tile_prefetch(const T *row, int L, int N2, int r)
{
    constexpr int LINES = TILE_PASSES<STEPS>;
    for (int i = (int)threadIdx.x; i < 16 * STEPS * LINES; i += TILE_THREADS) {
        const int n = i / LINES * N2 + r + i % LINES * TILE_WIDTH;
        if (n < L) hb_prefetch_line(row + n);
    }
}

// Row i out, columns r ..; meanwhile row `in` (or NULL) begins to come to the first places.
template <class T, int STEPS>
__device__ __forceinline__ void tile_rows_out(unsigned char *shared, const struct column_work &all,
                                              const struct column_tables &k, int i, int r,
                                              const T *in, int in_L)
{
    constexpr int PASSES = TILE_PASSES<STEPS>, UNIT = TILE_UNIT<STEPS>, HALF = TILE_HALF<STEPS>;
    const struct column_rows &j = all.out;
    uint4 *const near = (uint4 *)(shared + TILE_NEAR<STEPS>);
    unsigned char *const y = shared + TILE_SIGNAL<STEPS>;
    const int N2 = k.N2;
    const unsigned c = (unsigned)i / (unsigned)j.batch;
    T *const row = (T *)column_row<T>(j, i);
    const bool add = all.skip.d != NULL;
    tile_read_near<STEPS>(near, k.out, false);
    if (add)
#pragma unroll 1
        for (int p = 0; p < PASSES; p++)
            tile_read<T, STEPS>(y + p * HALF, column_added<T>(j, all.skip, i), j.L, N2,
                                r + p * TILE_WIDTH);
    if (in) tile_prefetch<T, STEPS>(in, in_L, N2, r);
    launch_wait();
    const __half *const mid = j.mid + i * j.apart + r;
#pragma unroll 1
    for (int p = 0; p < PASSES; p++) {
        tile_read_mid<STEPS>(shared + p * UNIT, mid + p * TILE_WIDTH, N2);
        tile_commit();
    }
    const float d = add ? all.skip.d[c] : 0;
    const float by = all.back[c] * (j.boost ? hb_inverse(j.boost[i]) : 1) * hb_inverse(j.scale[i]);
#pragma unroll 1
    for (int p = 0; p < PASSES; p++) {
        tile_wait<PASSES - 1>();                           // one more group each time
        __syncthreads();                                   // it is there, the one before done
        if (in && p > 0 && p <= PASSES / 2)
#pragma unroll
            for (int h = 0; h < 2; h++)
                tile_read<T, STEPS>(shared + (2 * p - 2 + h) * HALF, in, in_L, N2,
                                    r + (2 * p - 2 + h) * TILE_WIDTH);
        tile_commit();
        if (p > 0)
            tile_write<T, STEPS>(y + (p - 1) * HALF, row, j.L, N2, r + (p - 1) * TILE_WIDTH);
        tile_out<T, STEPS>(shared + p * UNIT, y + p * HALF, near, by, d, add);
    }
    __syncthreads();
    if (in) tile_read_near<STEPS>(near, k.in, true);
    tile_write<T, STEPS>(y + (PASSES - 1) * HALF, row, j.L, N2, r + (PASSES - 1) * TILE_WIDTH);
}

// Columns r .. of row i in; they and G are on their way, to the first places.
template <class T, int STEPS>
__device__ __forceinline__ void tile_rows_in(unsigned char *shared, const struct column_rows &j,
                                             const struct column_tables &k, int i, int r,
                                             float scale)
{
    constexpr int PASSES = TILE_PASSES<STEPS>, UNIT = TILE_UNIT<STEPS>, HALF = TILE_HALF<STEPS>;
    const uint4 *const near = (const uint4 *)(shared + TILE_NEAR<STEPS>);
    __half *const mid = j.mid + i * j.apart + r;
    hb_copied();
    __syncthreads();
#pragma unroll 1
    for (int p = 0; p < PASSES; p++) {
        unsigned char *const to = shared + (PASSES / 2 + p) * UNIT;
        tile_in<T, STEPS>(shared + p * HALF, to, near, k.turn + r + p * TILE_WIDTH, k.N2,
                          scale * HB_MID_TOP);
        __syncthreads();
        tile_write_mid<STEPS>(to, mid + p * TILE_WIDTH, k.N2);
    }
}

// columns_out of a chunk and columns_in of the next, in one: a block takes from mid what it then
// writes over. Grid (signals, rows, blocks of columns), blocks first.
template <class T, int STEPS>
__global__ void __launch_bounds__(TILE_THREADS, 2)
columns_tiles(const __grid_constant__ struct column_work all, struct column_tables k)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    const unsigned blocks = (unsigned)k.N2 / TILE_COLUMNS<STEPS>, row = blockIdx.x / blocks;
    const int r = (int)(blockIdx.x % blocks) * TILE_COLUMNS<STEPS>;
    const bool second = all.signals == 2 && (int)row >= all.in_rows;
    const int i = (int)row - (second ? all.in_rows : 0);
    const struct column_rows &j = all.in[second];
    const bool in = i < all.in_rows;
    const T *const u = in ? column_row<T>(j, i) : NULL;
    float scale = in && all.early ? j.scale[i] : 0;
    if (i < all.out_rows) {
        tile_rows_out<T, STEPS>(shared, all, k, i, r, u, j.L);
    } else {
        if (in) {
            tile_read_near<STEPS>((uint4 *)(shared + TILE_NEAR<STEPS>), k.in, true);
#pragma unroll 1
            for (int p = 0; p < TILE_PASSES<STEPS>; p++)
                tile_read<T, STEPS>(shared + p * TILE_HALF<STEPS>, u, j.L, k.N2,
                                    r + p * TILE_WIDTH);
        }
        launch_wait();
    }
    if (!in) return;
    if (!all.early) scale = j.scale[i];
    tile_rows_in<T, STEPS>(shared, j, k, i, r, scale);
}

// --- host ----------------------------------------------------------------------------------------
// Of f16 and bf16, before the first launch. A failure is found by hb_cuda_launched.
template <int STEPS> static inline void tile_allow(void)
{
    if constexpr (STEPS <= 8) {
        (void)cudaFuncSetAttribute((const void *)columns_tiles<__half, STEPS>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   TILE_SHARED<STEPS>);
        (void)cudaFuncSetAttribute((const void *)columns_tiles<__nv_bfloat16, STEPS>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   TILE_SHARED<STEPS>);
    }
}

template <class T, int STEPS>
static inline void tile_launch(const struct column_work *all, const struct column_tables *k,
                               cudaStream_t stream)
{
    const int64_t in = (int64_t)all->in_rows * all->signals;
    const int64_t rows = in > all->out_rows ? in : all->out_rows;
    launch_next(true, columns_tiles<T, STEPS>, rows * (k->N2 / TILE_COLUMNS<STEPS>), TILE_THREADS,
                TILE_SHARED<STEPS>, stream, *all, *k);
}
#endif
