// columns.cuh: the outermost digit of a long right-angle transform, on tensor cores, CUDA.
//     N = R1 N2, n = a N2 + r, x real; G, T, mid and the exponents: mma.cuh
//     columns_in    mid[k1][r] = T(k1, r) sum_a G[k1][a] x[a N2 + r]
//     columns_out   y[a N2 + r] = Re sum_k1 conj(G)[k1][a] mid[k1][r]
// Between the two, rows.cuh.
// Method    One warp owns R1 x 32 samples (R1 = 256: 16) in registers and nothing passes through
//           shared memory: columns are dealt to the tiles of mma m16n8k16 so that a lane has
//           neighbours in memory: column g of tile t is r = TILES g + t, so a lane loads TILES
//           samples at once and stores 2 TILES results. Tables belong to columns, so a warp does
//           the same columns of several rows, one after the other; it loads the next row before it
//           works on one (R1 <= 32). G waits in shared memory (R1 <= 64).
//           In: rows i of A are Re and rows i + 8 Im of one k1, so that a lane has both. Out: the
//           (Re, Im) of a k1 are a pair of B; A has (cos, -sin). T starts from a table made in
//           float64, for k1 < 8, and is turned by T(8, r) / T(0, r) from one eight to the next.
//           R1 = 128 by classes, Q = R1 / 16. With a = Q pi + c, k1 = kappa + 16 m
//               (k1 - 1/4) (a - 1/4) / R1 = (kappa - 1/4) (a - 1/4) / R1 + m (c - 1/4) / Q + m pi
//               sum_a = e(m / 4 Q) sum_c e(-m c / Q) sum_pi G[kappa][Q pi + c] x[(Q pi + c) N2 + r]
//           : mma with Q matrices of 16 x 16, a DFT of Q of their accumulators; e(m / 4 Q) is part
//           of what turns T from one 16 to the next. Back with k1 = Q kappa + c, a = pi + 16 m.
//           f16 goes into the product as it is, its exponent into T.
//           R1 = 128, f16 and bf16, out, and out and in: columns_tiles.cuh.
//           All loads of a warp are under way before anything waits: u before the kernel before
//           has ended, on the way out as copies to shared memory (the skip term).
// Exponents column_parts (parts.cuh).
// Cost      4 R1 flop a sample each way; bytes a sample 2 (twice, from L2) + 4 in, 4 + 2 out.
//           Instructions a sample (SASS, R1 = 16, f16): see README.md.
// Accuracy  whole convolution, simulated with half storage and largest |x| at 2^14: 8.1e-4 at 2^16,
//           7.6e-4 at 2^21; constants 9.1e-4; one outlier of 1e4, amplitudes 1e-3, 1e3: no worse.
// Limits    R1 = 16, 32, 64, 128, 256; N2 a multiple of 256; N <= 2^23; L <= N; rows < 2^31.
#ifndef HB_FUSED_COLUMNS_CUH
#define HB_FUSED_COLUMNS_CUH

#include "parts.cuh"

enum {
    COLUMN_WARPS = 4,                    // in a block, side by side
    COLUMN_THREADS = 32 * COLUMN_WARPS,
};
// Tiles of 8 columns that a warp has, in and out: as many as registers hold. STEPS = R1 / 16.
template <int STEPS> constexpr int IN_TILES = STEPS > 4 ? 2 : 4;
template <int STEPS> constexpr int OUT_TILES = STEPS > 4 ? 2 : 4;
// Blocks of columns_in that an SM is to hold.
template <int STEPS> constexpr int IN_BLOCKS = STEPS > 8 ? 2 : STEPS > 1 ? 4 : 6;
// It loads a row while it works on the one before: as long as there are registers.
template <int STEPS> constexpr bool IN_AHEAD = STEPS <= 2;

// G by classes of 16: see the head.
template <int STEPS> constexpr bool COLUMN_CLASSES = STEPS == 8;
static inline __host__ __device__ bool column_classes(int R1) { return R1 == 128; }

// Constants of one (R1, N2), in device memory.
struct column_tables {
    int R1, N2;
    const float2 *turn;                  // (9, N2): T(k1, r), k1 < 8; then T(8, r) / T(0, r)
    const uint4 *in, *out;               // fragments of G: (R1/8, R1/16, 32), (R1/16, R1/8, 32);
                                         // by classes: (2, R1/16, 32), (2, R1/16, 2, 32)
};

struct column_skip { const void *u; struct hb_strides su; const float *d; };

// --- samples -----------------------------------------------------------------------------------
// Neighbouring words, or a half word; 0 and nothing read where not `there`.
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

__device__ __forceinline__ uint32_t read_short(const void *p, bool there)
{
    uint16_t x;
    asm volatile("{.reg .pred q; setp.ne.s32 q, %2, 0; mov.b16 %0, 0;"
                 " @q ld.global.b16 %0, [%1];}"
                 : "=h"(x) : "l"(p), "r"((int)there) : "memory");
    return x;
}

// Samples n .. of a row as they lie in memory, 4 WORDS bytes; 0 from L on. VEC: rows are aligned
// and L is a multiple of that many samples.
template <class T, bool VEC, int WORDS>
__device__ __forceinline__ void read_samples(uint32_t (&x)[WORDS], const T *row, int n, int L)
{
    if constexpr (VEC) {
        read_words(x, row + n, n < L);
    } else {
#pragma unroll
        for (int i = 0; i < WORDS; i++) {
            if constexpr (sizeof(T) == 4) {
                uint32_t one[1];
                read_words(one, row + n + i, n + i < L);
                x[i] = one[0];
            } else {
                x[i] = read_short(row + n + 2 * i, n + 2 * i < L)
                       | read_short(row + n + 2 * i + 1, n + 2 * i + 1 < L) << 16;
            }
        }
    }
}

// Pair i of them as halves: f16 as it is, others times scale.
template <class T, int WORDS>
__device__ __forceinline__ uint32_t sample_pair(const uint32_t (&x)[WORDS], int i, float scale)
{
    if constexpr (sizeof(T) == 4)
        return hb_pack(__uint_as_float(x[2 * i]) * scale, __uint_as_float(x[2 * i + 1]) * scale);
    else
        return hb_halves<T>(x[i], scale);
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

// --- in ----------------------------------------------------------------------------------------
// What a lane reads of a row: [step][h]: neighbours at 16 step + 8 h + 2 q, and one further; by
// classes at STEPS (8 h + 2 q) + step, and STEPS further.
template <class T, int STEPS> struct column_raw {
    static constexpr int WORDS = IN_TILES<STEPS> * (int)sizeof(T) / 4;
    uint32_t x[STEPS][2][WORDS], y[STEPS][2][WORDS];
};

template <class T, int STEPS, bool VEC>
__device__ __forceinline__ void read_columns(struct column_raw<T, STEPS> &raw, const T *row, int L,
                                             int N2, int first)
{
    const int q = threadIdx.x % 4;
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            constexpr int NEXT = COLUMN_CLASSES<STEPS> ? STEPS : 1;
            const int n = (COLUMN_CLASSES<STEPS> ? STEPS * (8 * h + 2 * q) + s
                                                 : 16 * s + 8 * h + 2 * q) * N2 + first;
            read_samples<T, VEC>(raw.x[s][h], row, n, L);
            read_samples<T, VEC>(raw.y[s][h], row, n + NEXT * N2, L);
        }
}

template <class T, int STEPS>
__device__ __forceinline__ void read_row(struct column_raw<T, STEPS> &raw,
                                         const struct column_rows &j, int i, int N2, int first)
{
    constexpr int TILES = IN_TILES<STEPS>;
    const T *const row = column_row<T>(j, i);
    if (j.L % TILES == 0 && (uintptr_t)row % (TILES * sizeof(T)) == 0)
        read_columns<T, STEPS, true>(raw, row, j.L, N2, first);
    else
        read_columns<T, STEPS, false>(raw, row, j.L, N2, first);
}

// b[step][tile]: columns first .. first + tiles - 1.
template <class T, int STEPS>
__device__ __forceinline__ void pair_columns(uint32_t (&b)[STEPS][IN_TILES<STEPS>][2],
                                             const struct column_raw<T, STEPS> &raw, float scale)
{
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int t = 0; t < IN_TILES<STEPS>; t += 2) {
                const uint32_t x = sample_pair<T>(raw.x[s][h], t / 2, scale);
                const uint32_t y = sample_pair<T>(raw.y[s][h], t / 2, scale);
                b[s][t][h] = hb_low(x, y);
                b[s][t + 1][h] = hb_high(x, y);
            }
}

// This lane's row k1 = g of T and what turns it to k1 + 8, at n neighbours.
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

// n results as halves, at once: to[x] = y[x].x or .y.
template <int n>
__device__ __forceinline__ void put_halves(__half *to, const float (&v)[n])
{
    struct alignas(2 * n) all { uint32_t x[n / 2]; } all;
#pragma unroll
    for (int x = 0; x < n; x += 2)
        all.x[x / 2] = hb_pack(v[x], v[x + 1]);
    *(struct all *)to = all;
}

// Fragments of G: in shared memory, as long as they are few; near_wait before they are read.
template <int STEPS> constexpr bool COLUMN_NEAR = STEPS <= 4 || COLUMN_CLASSES<STEPS>;
template <int STEPS>
constexpr int COLUMN_NEAR_WORDS = COLUMN_CLASSES<STEPS> ? 128 * STEPS :
                                  COLUMN_NEAR<STEPS> ? 64 * STEPS * STEPS : 1;

template <int STEPS>
__device__ __forceinline__ const uint4 *column_near(uint4 (&near)[COLUMN_NEAR_WORDS<STEPS>],
                                                    const uint4 *G)
{
    if constexpr (COLUMN_NEAR<STEPS>) {
        constexpr int WORDS = COLUMN_NEAR_WORDS<STEPS>;
        const uint32_t to = hb_shared_address(near) + 16 * threadIdx.x;
        if (WORDS >= COLUMN_THREADS || (int)threadIdx.x < WORDS)
#pragma unroll
            for (int i = 0; i < WORDS; i += COLUMN_THREADS)
                hb_copy<16>(to + 16 * i, G + threadIdx.x + i, 16);
        return near;
    } else {
        return G;
    }
}

// Before they are read. In the loop that reads them: before it, other loads would wait for it.
__device__ __forceinline__ void near_wait()
{
    hb_copied();
    __syncthreads();
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
    static_assert(Q == 8);
    constexpr float COS[9] = { 1, 0.98078528f, 0.92387953f, 0.83146961f, 0.70710678f, 0.55557023f,
                               0.38268343f, 0.19509032f, 0 };
    return make_float2(COS[m], COS[8 - m]);
}

// What of the rows of a launch a block does: `each` rows of columns from r0 on, of signal j.
struct column_share { int signal, first, end, r0; };

// Blocks count columns first, then rows, then signals.
template <int TILES>
__device__ __forceinline__ struct column_share column_share_of(int rows, int each, int N2)
{
    constexpr int WIDTH = 8 * TILES;
    const unsigned blocks = (unsigned)N2 / (COLUMN_WARPS * WIDTH);
    const unsigned groups = ((unsigned)rows + each - 1) / each, group = blockIdx.x / blocks;
    const int first = (int)(group % groups) * each;
    return { (int)(group / groups), first, min(rows, first + each),
             (int)(blockIdx.x % blocks * COLUMN_WARPS + threadIdx.x / 32) * WIDTH };
}

// One or two signals of as many rows.
struct column_signals {
    struct column_rows j[2];
    int rows, each;                      // each: 1 without IN_AHEAD
    bool early;                          // the launch before does not write scale (nor x, ever)
};

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

// The products with G and turns w (those of k1 = g; from one eight to the next: turn), to `out`:
// this lane's place in k1 = g. All of a block call it.
template <class T, int STEPS>
__device__ __forceinline__ void columns_through(const uint32_t (&b)[STEPS][IN_TILES<STEPS>][2],
                                                float2 (&w)[2 * IN_TILES<STEPS>],
                                                const float2 (&turn)[2 * IN_TILES<STEPS>],
                                                const uint4 *G, __half *out, int N2)
{
    constexpr int R1 = 16 * STEPS, TILES = IN_TILES<STEPS>, UNROLL = STEPS == 1 ? 2 : 1;
    const uint4 *A = G;
#pragma unroll UNROLL
    for (int m = 0; m < R1 / 8; m++, out += 16 * N2, A += 32 * STEPS) {
        if (m == 0) near_wait();
        float acc[TILES][4] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const uint4 v = A[32 * s];
            const uint32_t a[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
            for (int t = 0; t < TILES; t++)
                hb_mma(acc[t], a, b[s][t][0], b[s][t][1]);
        }
        float re[2 * TILES], im[2 * TILES];
#pragma unroll
        for (int x = 0; x < 2 * TILES; x++) {          // tile x % TILES, its column x / TILES
            const float *u = acc[x % TILES];
            const float2 y = hb_cmul({ u[x / TILES], u[2 + x / TILES] }, w[x]);
            re[x] = y.x;
            im[x] = y.y;
            w[x] = hb_cmul(w[x], turn[x]);
        }
        put_halves(out, re);
        put_halves(out + N2, im);
    }
}

// The same by classes, with the turns' table at this lane's columns.
template <class T, int Q>
__device__ __forceinline__ void columns_by_class(const uint32_t (&b)[Q][IN_TILES<Q>][2],
                                                 float2 (&w)[2 * IN_TILES<Q>],
                                                 float2 (&turn)[2 * IN_TILES<Q>],
                                                 const float2 *turns, float scale, const uint4 *G,
                                                 __half *out, int N2)
{
    constexpr int TILES = IN_TILES<Q>;
    const int g = threadIdx.x % 32 / 4;
#pragma unroll 1
    for (int h = 0; h < 2; h++, G += 32 * Q, out += 16 * N2) {
        if (h == 0) near_wait();
        float acc[Q][TILES][4] = {};
#pragma unroll
        for (int c = 0; c < Q; c++) {
            const uint4 v = G[32 * c];
            const uint32_t a[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
            for (int t = 0; t < TILES; t++)
                hb_mma(acc[c][t], a, b[c][t][0], b[c][t][1]);
        }
        scale_turns<T>(w, scale);
#pragma unroll
        for (int x = 0; x < 2 * TILES; x++) {
            if (h) w[x] = hb_cmul(w[x], turn[x]);          // k1 = 8 h + g; turn: to k1 + 16
            turn[x] = hb_cmul(hb_cmul(turn[x], turn[x]), column_shift<Q>(1));
        }
        float2 y[2 * TILES][Q];
#pragma unroll
        for (int x = 0; x < 2 * TILES; x++) {              // tile x % TILES, its column x / TILES
#pragma unroll
            for (int c = 0; c < Q; c++) {
                const float *u = acc[c][x % TILES];
                y[x][c] = make_float2(u[x / TILES], u[2 + x / TILES]);
            }
            column_dft<Q, false>(y[x]);
        }
#pragma unroll
        for (int m = 0; m < Q; m++) {
            float re[2 * TILES], im[2 * TILES];
#pragma unroll
            for (int x = 0; x < 2 * TILES; x++) {
                const float2 z = hb_cmul(y[x][column_place<Q>(m)], w[x]);
                re[x] = z.x;
                im[x] = z.y;
                w[x] = hb_cmul(w[x], turn[x]);
            }
            put_halves(out + 32 * m * N2, re);
            put_halves(out + 32 * m * N2 + N2, im);
        }
        if (h) break;
        read_turns(w, turns + g * N2);
        read_turns(turn, turns + 8 * N2);
    }
}

// Grid: column_share_of.
template <class T, int STEPS>
__global__ void __launch_bounds__(COLUMN_THREADS, IN_BLOCKS<STEPS>)
columns_in(const __grid_constant__ struct column_signals all, struct column_tables k)
{
    constexpr int TILES = IN_TILES<STEPS>;
    constexpr bool AHEAD = IN_AHEAD<STEPS>;
    __shared__ uint4 near[COLUMN_NEAR_WORDS<STEPS>];
    const int N2 = k.N2, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const struct column_share my = column_share_of<TILES>(all.rows, all.each, N2);
    const struct column_rows &j = all.j[my.signal];
    const int first = my.r0 + TILES * g;
    // This lane's results: k1 = 8 m + g, columns r0 + 2 TILES q + {0 ..}.
    const float2 *const turns = k.turn + my.r0 + 2 * TILES * q;
    const uint4 *const G = column_near<STEPS>(near, k.in) + lane;
    struct column_raw<T, STEPS> raw;
    read_row<T, STEPS>(raw, j, my.first, N2, first);
    float2 turn[2 * TILES], w[2 * TILES];
    read_turns(turn, turns + 8 * N2);
    if (!AHEAD) read_turns(w, turns + g * N2);
    float next = all.early ? j.scale[my.first] : 0;
    launch_wait();
    if (!all.early) next = j.scale[my.first];
#pragma unroll 1
    for (int i = my.first; i < my.end; i++) {
        const float scale = next * HB_MID_TOP;
        uint32_t b[STEPS][TILES][2];
        pair_columns<T, STEPS>(b, raw, scale);
        if (AHEAD && i + 1 < my.end) {
            read_row<T, STEPS>(raw, j, i + 1, N2, first);
            next = j.scale[i + 1];
        }
        __half *out = j.mid + i * j.apart + (int64_t)g * 2 * N2 + my.r0 + 2 * TILES * q;
        if constexpr (COLUMN_CLASSES<STEPS>) {
            columns_by_class<T, STEPS>(b, w, turn, turns, scale, G, out, N2);
        } else {
            if (AHEAD) read_turns(w, turns + g * N2);
            scale_turns<T>(w, scale);
            columns_through<T, STEPS>(b, w, turn, G, out, N2);
        }
    }
}

// --- out ---------------------------------------------------------------------------------------
// n neighbours of a row from sample t on.
// STREAM: nobody reads them soon, other things shall stay in the L2 cache.
template <class T, int n, bool STREAM = false>
__device__ __forceinline__ void put_columns(T *row, int t, int L, const float (&v)[n])
{
    struct alignas(n * sizeof(T)) all { T x[n]; } x;
    struct alignas(2 * sizeof(T)) two { T x[2]; };
#pragma unroll
    for (int i = 0; i < n; i++)
        x.x[i] = hb_store<T>(v[i]);
    if (t + n <= L && (uintptr_t)(row + t) % sizeof x == 0) {
        if constexpr (STREAM && sizeof x == 16) __stcs((uint4 *)(row + t), *(const uint4 *)&x);
        else if constexpr (STREAM && sizeof x == 8) __stcs((uint2 *)(row + t), *(const uint2 *)&x);
        else *(struct all *)(row + t) = x;
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

// n neighbours of a row from sample t on; anything from L on.
template <class T, int n> struct column_old { alignas(n * sizeof(T)) T x[n]; };

template <class T, int n>
__device__ __forceinline__ void get_columns(struct column_old<T, n> &v, const T *row, int t, int L)
{
    if (t + n <= L && (uintptr_t)(row + t) % sizeof v == 0) {
        v = *(const struct column_old<T, n> *)(row + t);
    } else {
#pragma unroll
        for (int i = 0; i < n; i++)
            v.x[i] = t + i < L ? row[t + i] : hb_store<T>(0.0f);
    }
}

// A row of the signal that is added, in shared memory: of each lane's 2 TILES neighbours a piece,
// and of four lanes that follow each other one more, so that they may begin anywhere in the first:
// rows are not always aligned, pieces are.
template <class T, int STEPS> struct column_staged {
    enum { TILES = OUT_TILES<STEPS>, WORDS = TILES, BYTES = 4 * WORDS };
    struct alignas(BYTES) piece { uint32_t x[WORDS]; };
    struct piece at[COLUMN_WARPS][2 * STEPS][8][5];
};
struct column_not_staged {};

// Elements of a row before the piece that it begins in.
template <int BYTES> __device__ __forceinline__ int column_off(const void *row)
{
    return (int)((uintptr_t)row % BYTES / 2);
}

// Columns r0 .. of `row` are on their way: all of a warp call it, hb_copied and __syncwarp after.
template <class T, int STEPS>
__device__ __forceinline__ void stage_row(struct column_staged<T, STEPS> &s, const T *row, int L,
                                          int N2, int r0)
{
    constexpr int BYTES = column_staged<T, STEPS>::BYTES, N = BYTES / 2;
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4, off = column_off<BYTES>(row);
    const uint32_t to = hb_shared_address(&s.at[threadIdx.x / 32][0][g][q]);
    const int n = g * N2 + r0 + N * q - off;               // may begin before the row
    const T *from = row + n;
    int left = L - n;
    if (off == 0 && L % N == 0) {
#pragma unroll
        for (int a = 0; a < 2 * STEPS; a++, from += 8 * N2, left -= 8 * N2)
            if (left > 0) hb_copy<BYTES>(to + a * 40 * BYTES, from, BYTES);
        return;
    }
#pragma unroll 1
    for (int a = 0; a < 2 * STEPS; a++, from += 8 * N2, left -= 8 * N2) {
        if (left > 0) hb_copy<BYTES>(to + a * 40 * BYTES, from, min(BYTES, 2 * left));
        if (q == 3 && left > N)
            hb_copy<BYTES>(to + a * 40 * BYTES + BYTES, from + N, min(BYTES, 2 * (left - N)));
    }
}

// This lane's neighbours 8 a + g of it, times d, are added to v.
template <class T, int STEPS, int n>
__device__ __forceinline__ void add_staged(float (&v)[n], const struct column_staged<T, STEPS> &s,
                                           int a, int off, float d)
{
    constexpr int WORDS = column_staged<T, STEPS>::WORDS;
    const int lane = threadIdx.x % 32;
    const auto *const at = &s.at[threadIdx.x / 32][a][lane / 4][lane % 4];
    struct column_staged<T, STEPS>::piece x = *at;
    if (off) {
        const uint32_t *const from = at->x + off / 2, by = off % 2 ? 0x5432 : 0x3210;
        uint32_t w[WORDS + 1];
#pragma unroll
        for (int i = 0; i <= WORDS; i++) w[i] = from[i];
#pragma unroll
        for (int i = 0; i < WORDS; i++) x.x[i] = __byte_perm(w[i], w[i + 1], by);
    }
#pragma unroll
    for (int i = 0; i < WORDS; i++) {
        const float2 y = hb_two<T>(x.x[i]);
        v[2 * i] += d * y.x;
        v[2 * i + 1] += d * y.y;
    }
}

// Row i of the signal that is added.
template <class T>
__device__ __forceinline__ const T *column_added(const struct column_rows &j,
                                                 const struct column_skip &skip, unsigned i)
{
    const unsigned c = i / (unsigned)j.batch, e = i % (unsigned)j.batch;
    return (const T *)skip.u + c * skip.su.c + e * skip.su.b;
}

// What a block of columns_out has in shared memory.
template <class T, int STEPS> struct column_out_shared {
    static constexpr bool ADD = sizeof(T) == 4;            // no exponents of rows
    uint4 near[COLUMN_NEAR_WORDS<STEPS>];
    std::conditional_t<ADD, column_not_staged, column_staged<T, STEPS>> more;
};

// What of `row` i is added is on its way.
template <class T, int STEPS>
__device__ __forceinline__ void stage_added(struct column_out_shared<T, STEPS> &s,
                                            const struct column_rows &j,
                                            const struct column_skip &skip, int i, int N2, int r0)
{
    if constexpr (sizeof(T) != 4)
        if (skip.d) stage_row<T, STEPS>(s.more, column_added<T>(j, skip, i), j.L, N2, r0);
}

// From b to the results of columns r0 .. of `row`, by classes.
template <class T, int Q>
__device__ __forceinline__ void columns_back_by_class(const uint32_t (&b)[2 * Q][OUT_TILES<Q>][2],
                                                      const struct column_out_shared<T, Q> &shared,
                                                      const uint4 *G, T *row, int L, int N2, int r0,
                                                      float by, float d, bool add, int off)
{
    constexpr int TILES = OUT_TILES<Q>;
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    if (N2 > 0) near_wait();                               // a branch: loads stay before it
    float y[2][Q][2 * TILES];                              // [h]: rows 16 m + 8 h + g
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++) {                  // b of a tile is needed no more then
        const int t = i / 2, h = i % 2;
        __syncwarp();                                      // lest all accumulators live at once
        float acc[Q][4] = {};
#pragma unroll
        for (int s = 0; s < 2 * Q; s++) {
            const uint4 v = G[64 * Q * h + 32 * s];
            const uint32_t a[4] = { v.x, v.y, v.z, v.w };
            hb_mma(acc[s / 2], a, b[s][t][0], b[s][t][1]);
        }
#pragma unroll
        for (int e = 0; e < 2; e++) {                      // its column e: 2 TILES q + ..
            float2 z[Q];
#pragma unroll
            for (int c = 0; c < Q; c++) z[c] = make_float2(acc[c][e], acc[c][2 + e]);
            column_dft<Q, true>(z);
#pragma unroll
            for (int m = 0; m < Q; m++) {
                const float2 u = column_shift<Q>(m), v = z[column_place<Q>(m)];
                y[h][m][e * TILES + t] = (u.x * v.x + u.y * v.y) * by;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2 * Q; i++) {
        const int n = (8 * i + g) * N2 + r0 + 2 * TILES * q;
        if (i == 0) __syncwarp();
        float (&v)[2 * TILES] = y[i % 2][i / 2];
        if (8 * i * N2 + r0 >= L) break;
        if constexpr (sizeof(T) == 4) {                    // to what is there
            struct column_old<T, 2 * TILES> old;
            get_columns(old, row, n, L);
#pragma unroll
            for (int x = 0; x < 2 * TILES; x++) v[x] += old.x[x];
        } else if (add) {
            add_staged<T, Q>(v, shared.more, i, off, d);
        }
        put_columns<T, 2 * TILES, sizeof(T) != 4>(row, n, L, v);
    }
}

// Columns r0 .. of row i, which is staged; all of a block call it. j ..: columns_out.
template <class T, int STEPS>
__device__ __forceinline__ void columns_back(const struct column_out_shared<T, STEPS> &shared,
                                             const uint4 *G, const struct column_rows &j, int i,
                                             int N2, int r0, const float *back,
                                             const struct column_skip &skip)
{
    constexpr int t1 = OUT_TILES<STEPS>;
    constexpr bool ADD = sizeof(T) == 4;
    struct alignas(2 * t1) words { uint32_t x[t1 / 2]; };
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const unsigned c = (unsigned)i / (unsigned)j.batch, e = (unsigned)i % (unsigned)j.batch;
    T *const row = (T *)j.x + c * j.sx.c + e * j.sx.b;
    const float d = !ADD && skip.d ? skip.d[c] : 0;
    float by = back[c];
    if constexpr (!ADD) by *= (j.boost ? hb_inverse(j.boost[i]) : 1) * hb_inverse(j.scale[i]);

    // b[step][tile]: columns r0 + t1 g + tile; pairs (Re, Im) of k1 = 8 step + q + {0, 4}.
    uint32_t b[2 * STEPS][t1][2];
    const __half *from = j.mid + i * j.apart + (int64_t)(COLUMN_CLASSES<STEPS> ? STEPS : 1) * q
                         * 2 * N2 + r0 + t1 * g;
#pragma unroll
    for (int s = 0; s < 2 * STEPS; s++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int k1 = COLUMN_CLASSES<STEPS> ? STEPS * (s % 2 * 8 + 4 * h) + s / 2
                                                 : 8 * s + 4 * h;
            const __half *at = from + (int64_t)k1 * 2 * N2;
            const struct words re = *(const struct words *)at;
            const struct words im = *(const struct words *)(at + N2);
#pragma unroll
            for (int t = 0; t < t1; t += 2) {
                b[s][t][h] = hb_low(re.x[t / 2], im.x[t / 2]);
                b[s][t + 1][h] = hb_high(re.x[t / 2], im.x[t / 2]);
            }
        }

    const int off = ADD ? 0 : column_off<4 * t1>(column_added<T>(j, skip, i));
    if constexpr (COLUMN_CLASSES<STEPS>) {
        columns_back_by_class<T, STEPS>(b, shared, G, row, j.L, N2, r0, by, d,
                                        skip.d != NULL, off);
        return;
    }
    const uint4 *A = G;
#pragma unroll 1
    for (int m = 0; m < STEPS; m++, A += 64 * STEPS) {
        if (m == 0) near_wait();
        if (16 * m * N2 + r0 >= j.L) break;
        const int n = (16 * m + g) * N2 + r0 + 2 * t1 * q;
        struct column_old<T, 2 * t1> old[2];
        if constexpr (ADD) {                           // their way is long
            get_columns(old[0], row, n, j.L);
            get_columns(old[1], row, n + 8 * N2, j.L);
        }
        float acc[t1][4] = {};
#pragma unroll
        for (int s = 0; s < 2 * STEPS; s++) {
            const uint4 v = A[32 * s];
            const uint32_t a[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
            for (int t = 0; t < t1; t++)
                hb_mma(acc[t], a, b[s][t][0], b[s][t][1]);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[2 * t1];
#pragma unroll
            for (int x = 0; x < 2 * t1; x++)           // 2 t1 q + x: tile x % t1, its x / t1
                v[x] = acc[x % t1][2 * h + x / t1] * by;
            if constexpr (ADD) {
#pragma unroll
                for (int x = 0; x < 2 * t1; x++)
                    v[x] += old[h].x[x];
            } else if (skip.d) {
                add_staged<T, STEPS>(v, shared.more, 2 * m + h, off, d);
            }
            put_columns<T, 2 * t1, !ADD>(row, n + 8 * h * N2, j.L, v);
        }
    }
}

// Grid as columns_in. j: the results, but scale and boost are those of the rows that went in. back
// (channels). skip: d (channels) times u is added, exactly; or d NULL. No launch of the call writes
// u, so it is read before launch_wait.
template <class T, int STEPS>
__global__ void __launch_bounds__(COLUMN_THREADS, STEPS > 8 ? 2 : 4)
columns_out(struct column_rows j, int rows, int each, struct column_tables k, const float *back,
            struct column_skip skip)
{
    __shared__ struct column_out_shared<T, STEPS> shared;
    const int N2 = k.N2;
    const struct column_share my = column_share_of<OUT_TILES<STEPS>>(rows, each, N2);
    const uint4 *const G = column_near<STEPS>(shared.near, k.out) + threadIdx.x % 32;
    stage_added(shared, j, skip, my.first, N2, my.r0);
    launch_wait();
#pragma unroll 1
    for (int i = my.first; i < my.end; i++) {
        columns_back<T, STEPS>(shared, G, j, i, N2, my.r0, back, skip);
        __syncwarp();                                      // everybody has read what was staged
        if (i + 1 < my.end) stage_added(shared, j, skip, i + 1, N2, my.r0);
    }
}

// --- out and in --------------------------------------------------------------------------------
// COLUMN_BOTH: a warp has the same columns in and out.
template <int STEPS> constexpr bool COLUMN_BOTH = IN_TILES<STEPS> == OUT_TILES<STEPS>
                                                  && COLUMN_NEAR<STEPS> && !IN_AHEAD<STEPS>;

// Lines of the columns of a block, r0 .. of each R1, are to come into the L2 cache.
template <class T, int STEPS>
__device__ __forceinline__ void prefetch_columns(const T *row, int L, int N2, int r0)
{
    constexpr int BYTES = COLUMN_WARPS * 8 * IN_TILES<STEPS> * (int)sizeof(T), LINES = BYTES / 128;
    for (int i = (int)threadIdx.x; i < 16 * STEPS * LINES; i += COLUMN_THREADS) {
        const int n = i / LINES * N2 + r0 + i % LINES * 128 / (int)sizeof(T);
        if (n < L) hb_prefetch_line(row + n);
    }
}

// columns_out of a chunk, then columns_in of the next, in one: a warp takes from mid what it then
// writes over, so nothing lies between. Both: their arguments; each is 1. Grid (the more rows,
// blocks of columns).
struct column_chunks {
    struct column_rows out, in;
    int out_rows, in_rows;
    const float *back;
    struct column_skip skip;
};

template <class T, int STEPS>
__global__ void __launch_bounds__(COLUMN_THREADS, IN_BLOCKS<STEPS>)
columns_out_in(const __grid_constant__ struct column_chunks all, struct column_tables k)
{
    constexpr int TILES = IN_TILES<STEPS>;
    __shared__ struct column_out_shared<T, STEPS> shared;
    const int N2 = k.N2, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const struct column_share my = column_share_of<TILES>(max(all.out_rows, all.in_rows), 1, N2);
    const int i = my.first, r0 = my.r0;
    const bool in = i < all.in_rows;
    if (i < all.out_rows) {
        const uint4 *const G = column_near<STEPS>(shared.near, k.out) + lane;
        stage_added(shared, all.out, all.skip, i, N2, r0);
        if (in)
            prefetch_columns<T, STEPS>(column_row<T>(all.in, i), all.in.L, N2,
                                       r0 - (int)threadIdx.x / 32 * 8 * TILES);
        launch_wait();
        columns_back<T, STEPS>(shared, G, all.out, i, N2, r0, all.back, all.skip);
        __syncthreads();                                   // near is free
    } else {
        launch_wait();
    }
    if (!in) return;
    const uint4 *const G = column_near<STEPS>(shared.near, k.in) + lane;
    struct column_raw<T, STEPS> raw;
    read_row<T, STEPS>(raw, all.in, i, N2, r0 + TILES * g);
    const float2 *const turns = k.turn + r0 + 2 * TILES * q;
    float2 turn[2 * TILES], w[2 * TILES];
    read_turns(turn, turns + 8 * N2);
    read_turns(w, turns + g * N2);
    const float scale = all.in.scale[i] * HB_MID_TOP;
    uint32_t b[STEPS][TILES][2];
    pair_columns<T, STEPS>(b, raw, scale);
    __half *const out = all.in.mid + i * all.in.apart + (int64_t)g * 2 * N2 + r0 + 2 * TILES * q;
    if constexpr (COLUMN_CLASSES<STEPS>) {
        columns_by_class<T, STEPS>(b, w, turn, turns, scale, G, out, N2);
    } else {
        scale_turns<T>(w, scale);
        columns_through<T, STEPS>(b, w, turn, G, out, N2);
    }
}

#include "columns_tiles.cuh"

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

// Fills `mem` (column_tables_bytes, 16-byte aligned). Before the first launch.
static inline struct column_tables column_tables_make(void *mem, int R1, int N2,
                                                      cudaStream_t stream)
{
    float2 *const turn = (float2 *)mem;
    uint4 *const in = (uint4 *)(turn + (size_t)9 * N2), *const out = in + R1 * R1 / 4;
    const int n = 9 * N2 > R1 * R1 / 4 ? 9 * N2 : R1 * R1 / 4;
    column_constants<<<(n + 127) / 128, 128, 0, stream>>>(turn, in, out, R1, N2);
    by_steps(R1, [](auto x) {
        constexpr int STEPS = decltype(x)::value;
        if constexpr (COLUMN_TILES<STEPS>) {
            tile_allow<__half, STEPS>();
            tile_allow<__nv_bfloat16, STEPS>();
        }
    });
    return { R1, N2, turn, in, out };
}

// Rows that a block does, where a row each would be `blocks` blocks and `fits` run at once.
static inline int column_each(int64_t rows, int64_t blocks, int64_t fits)
{
    const int64_t n = (blocks + fits - 1) / fits;
    return n < rows ? (int)n : (int)rows;
}

// j[signals], 1 or 2, of as many rows; early: column_signals.
template <class T>
static inline void launch_in(const struct column_rows *j, int signals, int64_t rows, bool early,
                             const struct column_tables *k, int sms, cudaStream_t stream)
{
    by_steps(k->R1, [&](auto x) {
        constexpr int STEPS = decltype(x)::value;
        const int64_t blocks = k->N2 / (COLUMN_WARPS * 8 * IN_TILES<STEPS>);
        const int each = IN_AHEAD<STEPS>
            ? column_each(rows, rows * signals * blocks, IN_BLOCKS<STEPS> * sms) : 1;
        const int64_t grid = signals * ((rows + each - 1) / each) * blocks;
        const struct column_signals all = { { j[0], j[signals - 1] }, (int)rows, each, early };
        launch_next(true, columns_in<T, STEPS>, grid, COLUMN_THREADS, 0, stream, all, *k);
    });
}

template <class T>
static inline void launch_out(const struct column_rows *j, int64_t rows,
                              const struct column_tables *k, int sms, const float *back,
                              struct column_skip skip, cudaStream_t stream)
{
    by_steps(k->R1, [&](auto x) {
        constexpr int STEPS = decltype(x)::value;
        if constexpr (COLUMN_TILES<STEPS> && sizeof(T) == 2) {
            const struct column_chunks all = { .out = *j, .out_rows = (int)rows, .back = back,
                                               .skip = skip };
            tile_launch<T, STEPS>(&all, k, stream);
        } else {
            const int64_t blocks = k->N2 / (COLUMN_WARPS * 8 * OUT_TILES<STEPS>);
            const int each = column_each(rows, rows * blocks, 16 * sms);
            const int64_t grid = (rows + each - 1) / each * blocks;
            launch_next(true, columns_out<T, STEPS>, grid, COLUMN_THREADS, 0, stream, *j, (int)rows,
                        each, *k, back, skip);
        }
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
        if constexpr (COLUMN_TILES<STEPS>) {
            tile_launch<T, STEPS>(all, k, stream);
        } else if constexpr (COLUMN_BOTH<STEPS>) {
            const int64_t rows = all->out_rows > all->in_rows ? all->out_rows : all->in_rows;
            launch_next(true, columns_out_in<T, STEPS>,
                        rows * (k->N2 / (COLUMN_WARPS * 8 * IN_TILES<STEPS>)), COLUMN_THREADS, 0,
                        stream, *all, *k);
        }
    });
}
#endif
