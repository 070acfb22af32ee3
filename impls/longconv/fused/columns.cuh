// columns.cuh: the outermost digit of a long right-angle transform, on tensor cores, CUDA.
//     N = R1 N2, n = a N2 + r, x real; G, T, mid and the exponents: mma.cuh
//     columns_in    mid[k1][r] = T(k1, r) sum_a G[k1][a] x[a N2 + r]
//     columns_out   y[a N2 + r] = Re sum_k1 conj(G)[k1][a] mid[k1][r]
//     columns_out_in    a row out, and the next chunk's row in, over it
// Between the two, mid.cuh.
// Method    A block has 64 PASSES columns of all R1. It does 64 at a time (a line of 128 bytes of
//           each row of halves), one pass after the other.
//           Everything comes to shared memory as copies of 16 bytes that are under way from the
//           start: mid of all passes (a pass waits for its own), the signal that is added, and,
//           before the kernel before has ended, the signal that goes in; out and in: in the place
//           of mid's first passes as soon as these are in work. Results go back to shared memory
//           and leave from there 16 bytes a thread, while the next pass is in work. Rows that are
//           not 16-byte aligned come through registers, shifted; so do filters (float), to be made
//           halves. Gradients of filters (float) are added from registers to what is there.
//           Eight warps: four times 16 columns, twice half the results, so that a fragment of G
//           is read for two tiles of mma m16n8k16 and all sums of a warp fit in its registers.
//           In: rows i of A are Re and rows i + 8 Im of one k1, so that a lane has both. Out: the
//           (Re, Im) of a k1 are a pair of B; A has (cos, -sin). T starts from a table made in
//           float64, for k1 < 8, and is turned by T(8, r) / T(0, r) from one eight to the next.
//           R1 = 64, 128 by classes, Q = R1 / 16. With a = Q pi + c, k1 = kappa + 16 m
//               (k1 - 1/4) (a - 1/4) / R1 = (kappa - 1/4) (a - 1/4) / R1 + m (c - 1/4) / Q + m pi
//               sum_a = e(m / 4 Q) sum_c e(-m c / Q) sum_pi G[kappa][Q pi + c] x[(Q pi + c) N2 + r]
//           : mma with Q matrices of 16 x 16, a DFT of Q of their accumulators; e(m / 4 Q) is part
//           of what turns T from one 16 to the next. Back with k1 = Q kappa + c, a = pi + 16 m.
//           f16 goes into the product as it is, its exponent into T.
// Place     Of 16 bytes of a row of a pass: column_at. Rows of one ldmatrix or stmatrix differ in
//           bits 0 1 2, 1 2 3, 2 3 4, 3 4 5, 0 3 4 or 0 4 5 of their number: in no case do two of
//           them meet in a bank.
// Exponents column_parts (parts.cuh).
// Cost      4 R1 flop a sample each way (by classes 1 / Q and 2 / Q of it and a DFT); bytes a
//           sample 2 (twice, from L2) + 4 in, 4 + 2 out.
// Accuracy  whole convolution, simulated with half storage and largest |x| at 2^14: 8.1e-4 at 2^16,
//           7.6e-4 at 2^21; constants 9.1e-4; one outlier of 1e4, amplitudes 1e-3, 1e3: no worse.
// Limits    R1 = 16, 32, 64, 128, 256; N2 a multiple of 256; N <= 2^23; L <= N; rows < 2^31.
#ifndef HB_FUSED_COLUMNS_CUH
#define HB_FUSED_COLUMNS_CUH

#include "parts.cuh"
#include "rows_pair.cuh"

// STEPS = R1 / 16. G by classes of 16: see the head.
template <int STEPS> constexpr bool COLUMN_CLASSES = STEPS == 4 || STEPS == 8;
static inline __host__ __device__ bool column_classes(int R1) { return R1 == 64 || R1 == 128; }

enum { COLUMN_THREADS = 256, COLUMN_WIDTH = 64 };          // columns of a pass
template <class T, int STEPS>
constexpr int COLUMN_PASSES = STEPS > 8 ? 1 : STEPS > 4 || sizeof(T) == 4 ? 2 : 4;
template <class T, int STEPS>
constexpr int COLUMN_COLUMNS = COLUMN_WIDTH * COLUMN_PASSES<T, STEPS>;
// Bytes of a signal's halves of a pass; of mid's.
template <int STEPS> constexpr int COLUMN_HALF = 16 * STEPS * 128;
template <int STEPS> constexpr int COLUMN_UNIT = 2 * COLUMN_HALF<STEPS>;
// Shared memory: mid of all passes, a signal, fragments of G, as long as they are few.
template <int STEPS> constexpr bool COLUMN_NEAR = STEPS <= 8;
template <int STEPS>
constexpr int COLUMN_NEAR_WORDS = COLUMN_CLASSES<STEPS> ? 128 * STEPS :
                                  COLUMN_NEAR<STEPS> ? 64 * STEPS * STEPS : 0;
template <class T, int STEPS>
constexpr int COLUMN_SIGNAL = COLUMN_PASSES<T, STEPS> * COLUMN_UNIT<STEPS>;
template <class T, int STEPS>
constexpr int COLUMN_G = COLUMN_SIGNAL<T, STEPS> + COLUMN_PASSES<T, STEPS> * COLUMN_HALF<STEPS>;
template <class T, int STEPS>
constexpr int COLUMN_SHARED = COLUMN_G<T, STEPS> + 16 * COLUMN_NEAR_WORDS<STEPS>;
// Where a pass of the signal that goes in is, and then its results: where nobody needs anything.
template <class T, int STEPS> __device__ __forceinline__ int column_in_at(int pass)
{
    return (COLUMN_PASSES<T, STEPS> == 1 ? COLUMN_SIGNAL<T, STEPS> : 0) + pass * COLUMN_HALF<STEPS>;
}

template <class T, int STEPS> __device__ __forceinline__ int column_mid_at(int pass)
{
    return (COLUMN_PASSES<T, STEPS> / 2 + pass) * COLUMN_UNIT<STEPS>;
}

// Constants of one (R1, N2), in device memory.
struct column_tables {
    int R1, N2;
    const float2 *turn;                  // (9, N2): T(k1, r), k1 < 8; then T(8, r) / T(0, r)
    const uint4 *in, *out;               // fragments of G: (R1/8, R1/16, 32), (R1/16, R1/8, 32);
                                         // by classes: (2, R1/16, 32), (2, R1/16, 2, 32)
};

struct column_skip { const void *u; struct hb_strides su; const float *d; };

// columns_out of a chunk, then columns_in of the next, in one. Both: their arguments.
struct column_chunks {
    struct column_rows out, in;
    int out_rows, in_rows;
    const float *back;                   // (channels)
    struct column_skip skip;             // d (channels) times u is added, exactly; or d NULL
};

// One or two signals of as many rows.
struct column_signals {
    struct column_rows j[2];
    int rows;
    bool early;                          // the launch before does not write scale (nor x, ever)
};

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
    const int lane = i % 32, g = lane / 4, q = lane % 4, Q = R1 / 16;
    const bool classes = column_classes(R1);
    {                                                              // (R1/8, R1/16): Re over Im
        const int step = i / 32 % (R1 / 16), k1 = i / 32 / (R1 / 16) * 8 + g;
        float2 v[4];
        for (int e = 0; e < 4; e++) {
            const int pi = 2 * q + e % 2 + e / 2 * 8;
            v[e] = column_g(R1, k1, classes ? Q * pi + step : 16 * step + pi);
        }
        in[i] = { hb_pack(v[0].x, v[1].x), hb_pack(v[0].y, v[1].y),
                  hb_pack(v[2].x, v[3].x), hb_pack(v[2].y, v[3].y) };
    }
    if (classes) {                         // (2, Q, 2): (Re, Im) pairs, for Re, for Im
        const int c = i / 64 % Q, pi = i / 64 / Q * 8 + g;
        uint32_t v[4];
        for (int e = 0; e < 4; e++) {
            const float2 z = column_g(R1, Q * (i / 32 % 2 * 8 + q + e / 2 * 4) + c, pi);
            v[e] = e % 2 ? hb_pack(-z.y, z.x) : hb_pack(z.x, z.y);
        }
        out[i] = { v[0], v[1], v[2], v[3] };
    } else {                                                       // (R1/16, R1/8): (Re, Im) pairs
        const int step = i / 32 % (R1 / 8), a = i / 32 / (R1 / 8) * 16 + g;
        uint32_t v[4];
        for (int e = 0; e < 4; e++) {
            const float2 z = column_g(R1, 8 * step + q + e / 2 * 4, a + e % 2 * 8);
            v[e] = hb_pack(z.x, z.y);
        }
        out[i] = { v[0], v[1], v[2], v[3] };
    }
}

// --- classes ------------------------------------------------------------------------------------
// DFT of Q = 4, 8 points in registers, with e(-mc/Q), BACK: e(mc/Q). Result m is at
// column_place(m).
template <int Q> __device__ __forceinline__ int column_place(int m)
{
    static_assert(Q == 4 || Q == 8);
    return Q == 4 ? m % 2 * 2 + m / 2 : m % 2 * 4 + m / 2 % 2 * 2 + m / 4;
}

template <int Q, bool BACK> __device__ __forceinline__ void column_dft(float2 (&x)[Q])
{
    constexpr float HALF = 0.70710678f, SIGN = BACK ? -1 : 1;
#pragma unroll
    for (int n = Q; n > 1; n /= 2)
#pragma unroll
        for (int i = 0; i < Q / 2; i++) {
            const int j = i % (n / 2), at = i / (n / 2) * n + j;
            const float2 a = x[at], b = x[at + n / 2];
            const float2 v = make_float2(a.x - b.x, a.y - b.y);
            x[at] = make_float2(a.x + b.x, a.y + b.y);
            const int turn = 8 / n * j;                    // eighths
            x[at + n / 2] = turn == 0 ? v
                : turn == 1 ? make_float2((v.x + SIGN * v.y) * HALF, (v.y - SIGN * v.x) * HALF)
                : turn == 2 ? make_float2(SIGN * v.y, -SIGN * v.x)
                : make_float2((SIGN * v.y - v.x) * HALF, (-SIGN * v.x - v.y) * HALF);
        }
}

// e(m / (4 Q)) for what is known when it is compiled.
template <int Q> __device__ __forceinline__ float2 column_shift(int m)
{
    static_assert(Q == 4 || Q == 8);
    constexpr float COS[9] = { 1, 0.98078528f, 0.92387953f, 0.83146961f, 0.70710678f, 0.55557023f,
                               0.38268343f, 0.19509032f, 0 };
    return make_float2(COS[m * (8 / Q)], COS[8 - m * (8 / Q)]);
}

// --- shared memory and device memory -------------------------------------------------------------
__device__ __forceinline__ int column_flip(int row)
{
    return (row ^ row >> 3 ^ (row >> 1 & 4)) & 7;
}

// Byte of chunk c (8 columns) of a row of a pass.
__device__ __forceinline__ int column_at(int row, int c)
{
    return row * 128 + ((c ^ column_flip(row)) << 4);
}

// The same of row i + more, where i has none of the bits of `more`.
__device__ __forceinline__ uint32_t column_further(uint32_t at, int more)
{
    return (at ^ (uint32_t)column_flip(more) << 4) + 128 * more;
}

// f(byte, row, column, number) for this thread's 16 bytes of ROWS rows, COLUMN_MINE of them.
template <int ROWS> constexpr int COLUMN_MINE = (8 * ROWS + COLUMN_THREADS - 1) / COLUMN_THREADS;
template <int ROWS, class F> __device__ __forceinline__ void column_deal(F f)
{
    const int chunk = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < COLUMN_MINE<ROWS>; i++) {
        const int row = (int)threadIdx.x / 8 + i * (COLUMN_THREADS / 8);
        if (ROWS % (COLUMN_THREADS / 8) == 0 || row < ROWS)
            f(column_at(row, chunk), row, 8 * chunk, i);
    }
}

// A group of copies ends; all but the last n groups of this thread are there.
__device__ __forceinline__ void column_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int n> __device__ __forceinline__ void column_wait()
{
    asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory");
}

// Eight halves of the sixteen in a and b, from the one at `off` = 0 .. 7 on.
__device__ __forceinline__ uint4 column_shifted(uint4 a, uint4 b, int off)
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

// Neighbouring words; 0 and nothing read where not `there`.
template <int n>
__device__ __forceinline__ void read_words(uint32_t (&x)[n], const void *p, bool there)
{
    if constexpr (n == 1)
        asm volatile("{.reg .pred q; setp.ne.s32 q, %2, 0; mov.b32 %0, 0;"
                     " @q ld.global.b32 %0, [%1];}"
                     : "=r"(x[0]) : "l"(p), "r"((int)there) : "memory");
    else if constexpr (n == 2)
        asm volatile("{.reg .pred q; setp.ne.s32 q, %3, 0; mov.b32 %0, 0; mov.b32 %1, 0;"
                     " @q ld.global.v2.b32 {%0, %1}, [%2];}"
                     : "=r"(x[0]), "=r"(x[1]) : "l"(p), "r"((int)there) : "memory");
    else
        asm volatile("{.reg .pred q; setp.ne.s32 q, %5, 0; mov.b32 %0, 0; mov.b32 %1, 0;"
                     " mov.b32 %2, 0; mov.b32 %3, 0;"
                     " @q ld.global.v4.b32 {%0, %1, %2, %3}, [%4];}"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "l"(p), "r"((int)there) : "memory");
}

// The first n of eight halves, and 0.
__device__ __forceinline__ uint4 column_first(uint4 v, int n)
{
    uint32_t w[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = 2 * i + 1 < n ? w[i] : 2 * i < n ? w[i] & 0xffff : 0;
    return make_uint4(w[0], w[1], w[2], w[3]);
}

// Columns r .. of a pass of a row of the signal: on their way, or (rows not aligned) there. From L
// on 0.
template <class T, int STEPS>
__device__ __forceinline__ void column_read(unsigned char *to, const T *row, int L, int N2, int r)
{
    constexpr int ROWS = 16 * STEPS, MINE = COLUMN_MINE<ROWS>;
    const uint32_t there = hb_shared_address(to);
    const int off = (int)((uintptr_t)row % 16 / 2);
    if (off == 0) {
        column_deal<ROWS>([&](int at, int a, int n, int) {
            n += a * N2 + r;
            hb_copy(there + at, n < L ? row + n : row, n < L ? 2 * min(8, L - n) : 0);
        });
        return;
    }
    // In two words, of which the row has at least something.
    uint32_t lo[MINE][4], hi[MINE][4];
    column_deal<ROWS>([&](int, int a, int n, int i) {
        n += a * N2 + r - off;
        read_words(lo[i], row + n, n < L);
        read_words(hi[i], row + n + 8, n + 8 < L);
    });
    column_deal<ROWS>([&](int at, int a, int n, int i) {
        const auto &x = lo[i], &y = hi[i];
        const uint4 v = column_shifted(make_uint4(x[0], x[1], x[2], x[3]),
                                       make_uint4(y[0], y[1], y[2], y[3]), off);
        *(uint4 *)(to + at) = column_first(v, L - (a * N2 + r + n));
    });
}

// What a thread holds of a filter till its size is known.
template <int STEPS> struct column_held {
    uint32_t x[COLUMN_PASSES<float, STEPS>][COLUMN_MINE<16 * STEPS>][8];
};

template <int STEPS>
__device__ __forceinline__ void column_hold(struct column_held<STEPS> &held, const float *row,
                                            int L, int N2, int r)
{
    const bool even = (uintptr_t)row % 16 == 0 && L % 4 == 0;
#pragma unroll
    for (int p = 0; p < COLUMN_PASSES<float, STEPS>; p++)
        column_deal<16 * STEPS>([&](int, int a, int n, int mine) {
            auto &x = held.x[p][mine];
            n += a * N2 + r + p * COLUMN_WIDTH;
            if (even) {
                uint32_t v[4], w[4];
                read_words(v, row + n, n < L);
                read_words(w, row + n + 4, n + 4 < L);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    x[i] = v[i];
                    x[4 + i] = w[i];
                }
            } else {
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    uint32_t one[1];
                    read_words(one, row + n + i, n + i < L);
                    x[i] = one[0];
                }
            }
        });
}

// It goes to the place of a signal, times scale.
template <int STEPS>
__device__ __forceinline__ void column_put_held(unsigned char *shared,
                                                const struct column_held<STEPS> &held, float scale)
{
#pragma unroll
    for (int p = 0; p < COLUMN_PASSES<float, STEPS>; p++)
        column_deal<16 * STEPS>([&](int at, int, int, int mine) {
            const auto &x = held.x[p][mine];
            uint32_t v[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = hb_pack(__uint_as_float(x[2 * i]) * scale,
                               __uint_as_float(x[2 * i + 1]) * scale);
            *(uint4 *)(shared + column_in_at<float, STEPS>(p) + at)
                = make_uint4(v[0], v[1], v[2], v[3]);
        });
}

// Eight results of row a of a pass, from column n on, to row[n] ..; `left` of the row from its
// column 0 on are there. Those beyond the pass are its first ones.
template <class T>
__device__ __forceinline__ void column_write_each(const unsigned char *from, T *row, int a, int n,
                                                  int left)
{
#pragma unroll 1
    for (int i = n; i < n + 8; i++) {
        const int x = i % COLUMN_WIDTH;
        if (x < left) row[x] = *(const T *)(from + column_at(a, x / 8) + x % 8 * 2);
    }
}

// A pass of results to the signal. A thread stores the eight that begin on the first 16 bytes
// behind its own eight; a row's last thread has what is left at both ends.
template <class T, int STEPS>
__device__ __forceinline__ void column_write(const unsigned char *from, T *row, int L, int N2,
                                             int r)
{
    const int ahead = (int)((0 - (uintptr_t)row) % 16 / 2);
    if (ahead == 0) {
        column_deal<16 * STEPS>([&](int at, int a, int n, int) {
            const int first = a * N2 + r + n, left = L - first;
            if (left >= 8) __stcs((uint4 *)(row + first), *(const uint4 *)(from + at));
            else if (left > 0) column_write_each(from, row + first - n, a, n, left + n);
        });
        return;
    }
    column_deal<16 * STEPS>([&](int at, int a, int n, int) {
        T *const to = row + a * N2 + r;
        const int left = L - (a * N2 + r), first = n + ahead;
        if (left <= 0) return;
        if (first + 8 <= min(left, (int)COLUMN_WIDTH)) {
            const uint4 v = *(const uint4 *)(from + at);
            const uint4 w = *(const uint4 *)(from + column_at(a, n / 8 + 1));
            __stcs((uint4 *)(to + first), column_shifted(v, w, ahead));
        } else {
            column_write_each(from, to, a, first, left);
        }
    });
}

// A pass of mid, r: its first column.
template <int STEPS>
__device__ __forceinline__ void column_read_mid(unsigned char *to, const __half *mid, int N2)
{
    const uint32_t there = hb_shared_address(to);
    column_deal<32 * STEPS>([&](int at, int k, int n, int) {
        hb_copy(there + at, mid + k * N2 + n, 16);
    });
}

template <int STEPS>
__device__ __forceinline__ void column_write_mid(const unsigned char *from, __half *mid, int N2)
{
    column_deal<32 * STEPS>([&](int at, int k, int n, int) {
        *(uint4 *)(mid + k * N2 + n) = *(const uint4 *)(from + at);
    });
}

// Fragments of G: on their way, where they are few. By classes the way in has half as many.
template <int STEPS, bool IN>
__device__ __forceinline__ void column_read_near(uint4 *near, const uint4 *G)
{
    constexpr int WORDS = COLUMN_NEAR_WORDS<STEPS> / (COLUMN_CLASSES<STEPS> && IN ? 2 : 1);
    const uint32_t to = hb_shared_address(near);
#pragma unroll
    for (int i = (int)threadIdx.x; i < WORDS; i += COLUMN_THREADS) hb_copy(to + 16 * i, G + i, 16);
}

// What a warp does of a pass: columns 16 group .., half z of the results.
struct column_share { int group, z, lane, g, q; };

__device__ __forceinline__ struct column_share column_share_of()
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    return { warp % 4, warp / 4, lane, lane / 4, lane % 4 };
}

// --- out -----------------------------------------------------------------------------------------
// Results [x][i] of a warp are of row 16 m + first z + apart (i / 2) + g, m = 2 x, columns 2 q and
// 2 q + 1 of tile i % 2.
template <int STEPS> constexpr int COLUMN_FIRST = COLUMN_CLASSES<STEPS> ? 8 : 16;
template <int STEPS> constexpr int COLUMN_APART = COLUMN_CLASSES<STEPS> ? 16 : 8;

// put(m, v): results v[x][i] of m, m + 2, .. of a pass of mid, times by.
template <int STEPS, class F>
__device__ __forceinline__ void column_pass_out(const unsigned char *mid, const uint4 *G, float by,
                                                F put)
{
    constexpr bool CLASSES = COLUMN_CLASSES<STEPS>;
    const struct column_share my = column_share_of();
    const int j = my.lane % 8, h = my.lane / 8 % 2, t = my.lane / 16;
    // Of step s: h: the other 4 of its 8 k1, t: tile.
    const uint32_t from = hb_shared_address(mid)
        + column_at(CLASSES ? 2 * STEPS * (4 * h + j / 2) + j % 2 : 8 * h + j, 2 * my.group + t);
    const uint4 *A = G + my.lane + 64 * STEPS * my.z;
    const auto step = [&](int s, float (&acc)[2][4]) {
        const uint4 v = A[32 * s];
        const uint32_t a[4] = { v.x, v.y, v.z, v.w };
        uint32_t b[4];
        hb_load_trans(b, column_further(from, CLASSES ? s / 2 * 2 + s % 2 * 16 * STEPS : 16 * s));
        hb_mma(acc[0], a, b[0], b[1]);
        hb_mma(acc[1], a, b[2], b[3]);
    };
    if constexpr (CLASSES) {
        float acc[STEPS][2][4] = {};
        float2 y[STEPS / 2][4];
#pragma unroll
        for (int s = 0; s < 2 * STEPS; s++) step(s, acc[s / 2]);
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
                float2 &to = y[m / 2][m % 2 * 2 + i / 2];
                (i % 2 ? to.y : to.x) = (u.x * v.x + u.y * v.y) * by;
            }
        }
        put(0, y);
    } else {
#pragma unroll 1
        for (int m = 0; m + my.z < STEPS; m += 2, A += 128 * STEPS) {
            float acc[2][4] = {};
            float2 y[1][4];
#pragma unroll
            for (int s = 0; s < 2 * STEPS; s++) step(s, acc);
#pragma unroll
            for (int i = 0; i < 4; i++)
                y[0][i] = make_float2(acc[i % 2][i / 2 * 2] * by, acc[i % 2][i / 2 * 2 + 1] * by);
            put(m, y);
        }
    }
}

// To a pass in shared memory, with d times what is there where `add`.
template <class T, int STEPS, int M>
__device__ __forceinline__ void column_put(unsigned char *y, int m, const float2 (&v)[M][4],
                                           float d, bool add)
{
    const struct column_share my = column_share_of();
    const int j = my.lane % 8, tile = my.lane / 8 % 2, next = my.lane / 16;
    const int row = COLUMN_FIRST<STEPS> * my.z + COLUMN_APART<STEPS> * next + j;
    const uint32_t to = hb_shared_address(y) + column_at(row, 2 * my.group + tile);
#pragma unroll
    for (int i = 0; i < M; i++) {
        const uint32_t at = column_further(to, 16 * m + 32 * i);
        uint32_t x[4];
        if (add) {
            hb_load_matrices(x, at);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float2 u = hb_two<T>(x[e]);
                x[e] = hb_pair_of<T>(v[i][e].x + d * u.x, v[i][e].y + d * u.y);
            }
        } else {
#pragma unroll
            for (int e = 0; e < 4; e++) x[e] = hb_pair_of<T>(v[i][e].x, v[i][e].y);
        }
        hb_store_matrices(at, x);
    }
}

// To what is in device memory, row: at column r of the pass.
template <int STEPS, int M>
__device__ __forceinline__ void column_add(float *row, int m, const float2 (&v)[M][4], int L,
                                           int N2, int r)
{
    const struct column_share my = column_share_of();
    const bool even = (uintptr_t)row % 8 == 0 && L % 2 == 0;
    const auto place = [&](int i, int e) {
        const int a = 16 * m + 32 * i + COLUMN_FIRST<STEPS> * my.z + COLUMN_APART<STEPS> * (e / 2)
                      + my.g;
        return a * N2 + r + 16 * my.group + 8 * (e % 2) + 2 * my.q;
    };
    uint32_t old[M][4][2];
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int n = place(i, e);
            if (even) {
                read_words(old[i][e], row + n, n < L);
            } else {
                uint32_t x[1], y[1];
                read_words(x, row + n, n < L);
                read_words(y, row + n + 1, n + 1 < L);
                old[i][e][0] = x[0];
                old[i][e][1] = y[0];
            }
        }
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int n = place(i, e);
            const float x = __uint_as_float(old[i][e][0]) + v[i][e].x;
            const float y = __uint_as_float(old[i][e][1]) + v[i][e].y;
            if (even) {
                if (n < L) *(float2 *)(row + n) = make_float2(x, y);
            } else {
                if (n < L) row[n] = x;
                if (n + 1 < L) row[n + 1] = y;
            }
        }
}

// --- in ------------------------------------------------------------------------------------------
// A column's turns, k1 = 16 m + ..: of m, of m + 1; 2 cos of the step:
// w[m + 1] = twice w[m] - w[m - 1].
struct column_turn { float2 now, next; float twice; };

// n neighbours of the table.
template <int n>
__device__ __forceinline__ void read_turns(float2 (&w)[n], const float2 *at)
{
#pragma unroll
    for (int x = 0; x < n; x += 2) {
        const float4 v = *(const float4 *)(at + x);
        w[x] = make_float2(v.x, v.y);
        w[x + 1] = make_float2(v.z, v.w);
    }
}

// Turns of a row that goes in with `scale`.
template <class T, int n>
__device__ __forceinline__ void scale_turns(float2 (&w)[n], float scale)
{
    if constexpr (HB_IS_HALF<T>) {
#pragma unroll
        for (int x = 0; x < n; x++)
            w[x] = make_float2(w[x].x * scale, w[x].y * scale);
    }
}

// Of the columns of this lane; turns: there. scale: f16 only.
template <class T, int STEPS>
__device__ __forceinline__ void column_turns(struct column_turn (&w)[4], const float2 *turns,
                                             int N2, float scale, const struct column_share &my)
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

__device__ __forceinline__ void column_turned(struct column_turn &w)
{
    const float2 now = w.next;
    w.next = make_float2(w.twice * now.x - w.now.x, w.twice * now.y - w.now.y);
    w.now = now;
}

// This lane's four columns of one k1 to mid, and w to the next. acc: (tile; Re 2, Im 2).
__device__ __forceinline__ void column_to_mid(uint32_t at, const float (&acc)[2][4],
                                              struct column_turn (&w)[4])
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
    for (int i = 0; i < 4; i++) column_turned(w[i]);
}

// B of both tiles for sixteen rows of a signal.
template <class T>
__device__ __forceinline__ void column_sixteen(uint32_t (&b)[4], uint32_t at, float scale)
{
    hb_load_trans(b, at);
    if constexpr (sizeof(T) == 4) return;                  // done already
    else
#pragma unroll
        for (int i = 0; i < 4; i++) b[i] = hb_halves<T>(b[i], scale);
}

// From a pass of a signal to mid. turns: at its first column.
template <class T, int STEPS>
__device__ __forceinline__ void column_pass_in(const unsigned char *u, unsigned char *mid,
                                               const uint4 *G, const float2 *turns, int N2,
                                               float scale)
{
    constexpr bool CLASSES = COLUMN_CLASSES<STEPS>;
    const struct column_share my = column_share_of();
    const int j = my.lane % 8, h = my.lane / 8 % 2, t = my.lane / 16, c = 2 * my.group;
    struct column_turn w[4];
    column_turns<T, STEPS>(w, turns + 16 * my.group + 2 * my.q, N2, scale, my);
    const uint32_t from = hb_shared_address(u)
                          + column_at(CLASSES ? STEPS * (8 * h + j) : 8 * h + j, c + t);
    // k1 = 16 m + 8 z + g; of stmatrix: h: imaginary part, t: tile.
    const uint32_t to = hb_shared_address(mid) + column_at(16 * my.z + 2 * j + h, c + t);
    const uint4 *A = G + my.lane + 32 * STEPS * my.z;
    const auto step = [&](int s, float (&acc)[2][4]) {
        const uint4 v = A[32 * s];
        const uint32_t a[4] = { v.x, v.y, v.z, v.w };
        uint32_t b[4];
        column_sixteen<T>(b, column_further(from, CLASSES ? s : 16 * s), scale);
        hb_mma(acc[0], a, b[0], b[1]);
        hb_mma(acc[1], a, b[2], b[3]);
    };
    if constexpr (CLASSES) {
        float acc[STEPS][2][4] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++) step(s, acc[s]);
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
        for (int m = 0; m < STEPS; m++) column_to_mid(column_further(to, 32 * m), acc[m], w);
    } else {
#pragma unroll 1
        for (int m = 0; m < STEPS; m++, A += 64 * STEPS) {
            float acc[2][4] = {};
#pragma unroll
            for (int s = 0; s < STEPS; s++) step(s, acc);
            column_to_mid(column_further(to, 32 * m), acc, w);
        }
    }
}

// --- kernels -------------------------------------------------------------------------------------
// Row i of the signal that is added.
template <class T>
__device__ __forceinline__ const T *column_added(const struct column_rows &j,
                                                 const struct column_skip &skip, unsigned i)
{
    const unsigned c = i / (unsigned)j.batch, e = i % (unsigned)j.batch;
    return (const T *)skip.u + c * skip.su.c + e * skip.su.b;
}

// Lines of the columns of a block, r .. of each R1, are to come into the L2 cache.
template <class T, int STEPS>
__device__ __forceinline__ void column_prefetch(const T *row, int L, int N2, int r)
{
    constexpr int EACH = 128 / (int)sizeof(T), LINES = COLUMN_COLUMNS<T, STEPS> / EACH;
    for (int i = (int)threadIdx.x; i < 16 * STEPS * LINES; i += COLUMN_THREADS) {
        const int n = i / LINES * N2 + r + i % LINES * EACH;
        if (n < L) hb_prefetch_line(row + n);
    }
}

// Where a block finds G.
template <class T, int STEPS>
__device__ __forceinline__ const uint4 *column_near(const unsigned char *shared, const uint4 *G)
{
    return COLUMN_NEAR<STEPS> ? (const uint4 *)(shared + COLUMN_G<T, STEPS>) : G;
}

// Rows out: as column_chunks.
struct column_outs {
    struct column_rows j;
    const float *back;
    struct column_skip skip;
};

// What is needed before mid: G, what is added.
template <class T, int STEPS>
__device__ __forceinline__ void column_begin_out(unsigned char *shared, const struct column_outs &o,
                                                 const struct column_tables &k, int i, int r)
{
    column_read_near<STEPS, false>((uint4 *)(shared + COLUMN_G<T, STEPS>), k.out);
    if constexpr (sizeof(T) == 4) {
        column_prefetch<T, STEPS>(column_row<T>(o.j, i), o.j.L, k.N2, r);
    } else if (o.skip.d) {
#pragma unroll 1
        for (int p = 0; p < COLUMN_PASSES<T, STEPS>; p++)
            column_read<T, STEPS>(shared + COLUMN_SIGNAL<T, STEPS> + p * COLUMN_HALF<STEPS>,
                                  column_added<T>(o.j, o.skip, i), o.j.L, k.N2,
                                  r + p * COLUMN_WIDTH);
    }
}

// Row i out, columns r ..; meanwhile the row `in` (or NULL) and, at the end, its G begin to come.
// column_begin_out and launch_wait before.
template <class T, int STEPS>
__device__ __forceinline__ void column_row_out(unsigned char *shared, const struct column_outs &o,
                                               const struct column_tables &k, int i, int r,
                                               const T *in, int in_L)
{
    constexpr int PASSES = COLUMN_PASSES<T, STEPS>, HALF = COLUMN_HALF<STEPS>;
    constexpr bool ADD = sizeof(T) == 4;                   // and no exponents of rows
    const struct column_rows &j = o.j;
    unsigned char *const y = shared + COLUMN_SIGNAL<T, STEPS>;
    const uint4 *const G = column_near<T, STEPS>(shared, k.out);
    const __half *const mid = j.mid + i * j.apart + r;
#pragma unroll 1
    for (int p = 0; p < PASSES; p++) {
        column_read_mid<STEPS>(shared + p * COLUMN_UNIT<STEPS>, mid + p * COLUMN_WIDTH, k.N2);
        column_commit();
    }
    const unsigned c = (unsigned)i / (unsigned)j.batch;
    T *const row = (T *)column_row<T>(j, i);
    const bool add = o.skip.d != NULL;
    const float d = add ? o.skip.d[c] : 0;
    float by = o.back[c];
    if constexpr (!ADD) by *= (j.boost ? hb_inverse(j.boost[i]) : 1) * hb_inverse(j.scale[i]);
    const auto leave = [&](int p) {
        if constexpr (!ADD) column_write<T, STEPS>(y + p * HALF, row, j.L, k.N2,
                                                   r + p * COLUMN_WIDTH);
    };
#pragma unroll 1
    for (int p = 0; p < PASSES; p++) {
        column_wait<PASSES - 1>();                         // one more group each time
        __syncthreads();                                   // it is there, the one before done
        if constexpr (!ADD && PASSES > 1) {
            if (in && p > 0 && p <= PASSES / 2)
#pragma unroll
                for (int e = 2 * p - 2; e < 2 * p; e++)
                    column_read<T, STEPS>(shared + column_in_at<T, STEPS>(e), in, in_L, k.N2,
                                          r + e * COLUMN_WIDTH);
        }
        column_commit();
        if (p > 0) leave(p - 1);
        column_pass_out<STEPS>(shared + p * COLUMN_UNIT<STEPS>, G, by, [&](int m, const auto &v) {
            if constexpr (ADD) column_add<STEPS>(row, m, v, j.L, k.N2, r + p * COLUMN_WIDTH);
            else column_put<T, STEPS>(y + p * HALF, m, v, d, add);
        });
    }
    __syncthreads();
    if (in) column_read_near<STEPS, true>((uint4 *)(shared + COLUMN_G<T, STEPS>), k.in);
    leave(PASSES - 1);
}

// Columns r .. of row i in; they and G are on their way.
template <class T, int STEPS>
__device__ __forceinline__ void column_row_in(unsigned char *shared, const struct column_rows &j,
                                              const struct column_tables &k, int i, int r,
                                              float scale)
{
    const uint4 *const G = column_near<T, STEPS>(shared, k.in);
    __half *const mid = j.mid + i * j.apart + r;
    hb_copied();
    __syncthreads();
#pragma unroll 1
    for (int p = 0; p < COLUMN_PASSES<T, STEPS>; p++) {
        unsigned char *const to = shared + column_mid_at<T, STEPS>(p);
        column_pass_in<T, STEPS>(shared + column_in_at<T, STEPS>(p), to, G,
                                 k.turn + r + p * COLUMN_WIDTH, k.N2, scale);
        __syncthreads();
        column_write_mid<STEPS>(to, mid + p * COLUMN_WIDTH, k.N2);
    }
}

// Blocks of a launch: columns from r on, then rows.
struct column_block { int row, r; };

template <class T, int STEPS>
__device__ __forceinline__ struct column_block column_block_of(const struct column_tables &k)
{
    const unsigned blocks = (unsigned)k.N2 / COLUMN_COLUMNS<T, STEPS>;
    return { (int)(blockIdx.x / blocks), (int)(blockIdx.x % blocks) * COLUMN_COLUMNS<T, STEPS> };
}

// Grid (signals, rows, blocks of columns), blocks first. No launch of the call writes a signal, so
// it is read before launch_wait.
template <class T, int STEPS>
__global__ void __launch_bounds__(COLUMN_THREADS, 2)
columns_in(const __grid_constant__ struct column_signals all, struct column_tables k)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    const struct column_block my = column_block_of<T, STEPS>(k);
    const bool second = my.row >= all.rows;
    const int i = my.row - (second ? all.rows : 0);
    const struct column_rows &j = all.j[second];
    const T *const u = column_row<T>(j, i);
    float scale = all.early ? j.scale[i] : 0;
    column_read_near<STEPS, true>((uint4 *)(shared + COLUMN_G<T, STEPS>), k.in);
    if constexpr (sizeof(T) == 4) {
        struct column_held<STEPS> held;
        column_hold(held, u, j.L, k.N2, my.r);
        launch_wait();
        if (!all.early) scale = j.scale[i];
        column_put_held(shared, held, scale * HB_MID_TOP);
    } else {
#pragma unroll 1
        for (int p = 0; p < COLUMN_PASSES<T, STEPS>; p++)
            column_read<T, STEPS>(shared + column_in_at<T, STEPS>(p), u, j.L, k.N2,
                                  my.r + p * COLUMN_WIDTH);
        launch_wait();
        if (!all.early) scale = j.scale[i];
    }
    column_row_in<T, STEPS>(shared, j, k, i, my.r, scale * HB_MID_TOP);
}

// Grid (rows, blocks of columns).
template <class T, int STEPS>
__global__ void __launch_bounds__(COLUMN_THREADS, 2)
columns_out(const __grid_constant__ struct column_outs o, struct column_tables k)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    const struct column_block my = column_block_of<T, STEPS>(k);
    column_begin_out<T, STEPS>(shared, o, k, my.row, my.r);
    launch_wait();
    column_row_out<T, STEPS>(shared, o, k, my.row, my.r, (const T *)NULL, 0);
}

// COLUMN_BOTH: there is room for it.
template <int STEPS> constexpr bool COLUMN_BOTH = COLUMN_PASSES<__half, STEPS> > 1;

// A block takes from mid what it then writes over, so nothing lies between. Grid (the more rows,
// blocks of columns).
template <class T, int STEPS>
__global__ void __launch_bounds__(COLUMN_THREADS, 2)
columns_out_in(const __grid_constant__ struct column_outs o, int out_rows,
               const __grid_constant__ struct column_rows j, int in_rows, struct column_tables k)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    const struct column_block my = column_block_of<T, STEPS>(k);
    const int i = my.row;
    const bool in = i < in_rows;
    const T *const u = in ? column_row<T>(j, i) : NULL;
    const float scale = in ? j.scale[i] : 0;               // the launch before does not write it
    if (i < out_rows) {
        column_begin_out<T, STEPS>(shared, o, k, i, my.r);
        if (in) column_prefetch<T, STEPS>(u, j.L, k.N2, my.r);
        launch_wait();
        column_row_out<T, STEPS>(shared, o, k, i, my.r, u, j.L);
    } else {
        column_read_near<STEPS, true>((uint4 *)(shared + COLUMN_G<T, STEPS>), k.in);
#pragma unroll 1
        for (int p = 0; p < COLUMN_PASSES<T, STEPS>; p++)
            column_read<T, STEPS>(shared + column_in_at<T, STEPS>(p), u, j.L, k.N2,
                                  my.r + p * COLUMN_WIDTH);
        launch_wait();
    }
    if (in) column_row_in<T, STEPS>(shared, j, k, i, my.r, scale * HB_MID_TOP);
}

// --- host --------------------------------------------------------------------------------------
// Calls f with STEPS as a constant.
template <class F> static inline void by_steps(int R1, F f)
{
    if (R1 == 16) f(std::integral_constant<int, 1>());
    else if (R1 == 32) f(std::integral_constant<int, 2>());
    else if (R1 == 64) f(std::integral_constant<int, 4>());
    else if (R1 == 128) f(std::integral_constant<int, 8>());
    else f(std::integral_constant<int, 16>());
}

static inline size_t column_tables_bytes(int R1, int N2)
{
    return (size_t)9 * N2 * sizeof(float2) + (size_t)2 * (R1 * R1 / 4) * sizeof(uint4);
}

// Kernels may have their shared memory; hb_cuda_launched says what failed.
template <class K> static inline void column_allow(K kernel, int bytes)
{
    (void)cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               bytes);
}

template <class T, int STEPS> static inline void column_allow_all(void)
{
    column_allow(columns_in<T, STEPS>, COLUMN_SHARED<T, STEPS>);
    column_allow(columns_out<T, STEPS>, COLUMN_SHARED<T, STEPS>);
    if constexpr (sizeof(T) == 2 && COLUMN_BOTH<STEPS>)
        column_allow(columns_out_in<T, STEPS>, COLUMN_SHARED<T, STEPS>);
}

// Fills `mem` (column_tables_bytes, 16-byte aligned). Before the first launch.
static inline struct column_tables column_tables_make(void *mem, int R1, int N2,
                                                      cudaStream_t stream)
{
    float2 *const turn = (float2 *)mem;
    uint4 *const in = (uint4 *)(turn + (size_t)9 * N2), *const out = in + R1 * R1 / 4;
    const int n = 9 * N2 > R1 * R1 / 4 ? 9 * N2 : R1 * R1 / 4;
    column_constants<<<(n + 127) / 128, 128, 0, stream>>>(turn, in, out, R1, N2);
    by_steps(R1, [](auto x) {
        column_allow_all<float, decltype(x)::value>();
        column_allow_all<__half, decltype(x)::value>();
        column_allow_all<__nv_bfloat16, decltype(x)::value>();
    });
    return { R1, N2, turn, in, out };
}

template <class T, int STEPS>
static inline int64_t column_grid(const struct column_tables *k, int64_t rows)
{
    return rows * (k->N2 / COLUMN_COLUMNS<T, STEPS>);
}

// j[signals], 1 or 2, of as many rows; early: column_signals.
template <class T>
static inline void launch_in(const struct column_rows *j, int signals, int64_t rows, bool early,
                             const struct column_tables *k, int, cudaStream_t stream)
{
    by_steps(k->R1, [&](auto x) {
        constexpr int STEPS = decltype(x)::value;
        const struct column_signals all = { { j[0], j[signals - 1] }, (int)rows, early };
        launch_next(true, columns_in<T, STEPS>, column_grid<T, STEPS>(k, signals * rows),
                    COLUMN_THREADS, COLUMN_SHARED<T, STEPS>, stream, all, *k);
    });
}

// j: the results, but scale and boost are those of the rows that went in.
template <class T>
static inline void launch_out(const struct column_rows *j, int64_t rows,
                              const struct column_tables *k, int, const float *back,
                              struct column_skip skip, cudaStream_t stream)
{
    by_steps(k->R1, [&](auto x) {
        constexpr int STEPS = decltype(x)::value;
        const struct column_outs o = { *j, back, skip };
        launch_next(true, columns_out<T, STEPS>, column_grid<T, STEPS>(k, rows), COLUMN_THREADS,
                    COLUMN_SHARED<T, STEPS>, stream, o, *k);
    });
}

// Whether launch_out_in does this R1.
static inline bool column_both(int R1)
{
    bool both = false;
    by_steps(R1, [&](auto x) { both = COLUMN_BOTH<decltype(x)::value>; });
    return both;
}

template <class T>
static inline void launch_out_in(const struct column_chunks *all, const struct column_tables *k,
                                 cudaStream_t stream)
{
    by_steps(k->R1, [&](auto x) {
        constexpr int STEPS = decltype(x)::value;
        if constexpr (COLUMN_BOTH<STEPS>) {
            const struct column_outs o = { all->out, all->back, all->skip };
            const int64_t rows = all->out_rows > all->in_rows ? all->out_rows : all->in_rows;
            launch_next(true, columns_out_in<T, STEPS>, column_grid<T, STEPS>(k, rows),
                        COLUMN_THREADS, COLUMN_SHARED<T, STEPS>, stream, o, all->out_rows, all->in,
                        all->in_rows, *k);
        }
    });
}
#endif
