// mid.cuh: complex rows between the columns of three phases: transform, product, back, CUDA.
//     mid [channels][batch][R1][2][N2] halves in place, N2 = R 256, R = 16, 32, 48, 64; N = R1 N2
// Method    As rows.cuh, with plain transforms: outer step, rows' step (a warp a slot), outer step
//           back; what leaves is multiplied by conj(T)(k1, r) R1 of the columns, in f32, before
//           rounding, so that the columns' way back is only conj(G) and y's factor.
//           R = 16: the turns T(k, r) of the rows' own outer step, f32, wait in shared memory; a
//           block does several rows, so they are made once: about 25 of 95 instructions a sample.
//           R > 16: outer steps by classes, Q = R / 16. With p = Q pi + c, k = kappa + 16 m
//               k p / R = kappa (Q pi + c) / R + m c / Q + m pi
//               out[k] = sum_c e(-m c / Q) P_c[kappa],  P_c = A_c x[Q pi + c]
//               A_c[kappa][pi] = e(-kappa (Q pi + c) / R): Q matrices of 16 x 16, in registers.
//           The sum over c is a few additions of accumulators, mma are 1 / Q of the whole matrix'.
//           Back the same, k = Q kappa + c, p = pi + 16 m, everything conjugated.
//           A row is copied to the planes as it lies (cp.async); a warp has 32 columns of all
//           slots, 8 at a time by ldmatrix and stmatrix, in place, and copies its own out again.
//           T(kappa + 8 x, r): w[x + 1] = 2 cos(16 pi r / N2) w[x] - w[x - 1]. On the way back
//           conj(T)(k1, 256 p + r) is a factor of p, beside what the outer step leaves, and one of
//           r, which goes into the turns of the rows' step: e((k + (k1 - 1/4) / R1) r / N2).
// Cost      mma 16 R + 512 (R > 16: 768) flop a sample; L2 8 bytes and the spectrum 4.
#ifndef HB_FUSED_MID_CUH
#define HB_FUSED_MID_CUH

#include "parts.cuh"
#include "rows_pair.cuh"

template <int R> constexpr bool MID_TABLE = R == 16;
template <int R> constexpr int MID_CLASSES = R / 16;
// R = 16: G for the way there, divided by R; turns [slot][r] float2.
template <int R> constexpr int MID_THERE = HB_ROWS_SHARED<R>;
template <int R> constexpr int MID_TURNS = MID_THERE<R> + HB_MATRIX<R>;
// R > 16: what the device has (mid_constants): [c][real, imaginary][32 lanes] fragments of A_c,
// hb_inner as hb_inner_store leaves it, 2 cos(16 pi r / N2) [r < 256]; then what belongs to k1, for
// each slot: steps of the turns on the way back, factors of what leaves (mid_steps).
template <int R> constexpr int MID_WORDS = MID_CLASSES<R> * 256 + 6 * 32 * 4 + 256;
template <int R> constexpr int MID_STEPS = 2 * HB_PLANE<R> + 4 * MID_WORDS<R>;
template <int R> constexpr int MID_SHARED = MID_TABLE<R> ? MID_TURNS<R> + R * 2048
                                                         : MID_STEPS<R> + R * 32;
// mid_rows has planes for two rows where two blocks an SM then still fit: the next one is copied
// while the rows' step works.
template <int R> constexpr bool MID_TWO = R == 32 || R == 48;
template <int R> constexpr int MID_ROWS_SHARED = MID_SHARED<R> + (MID_TWO<R> ? 2 * HB_PLANE<R> : 0);
static_assert(MID_SHARED<32> % 128 == 0 && MID_SHARED<48> % 128 == 0);
static_assert(MID_TURNS<16> % 16 == 0 && HB_MATRIX<16> == 4 * HB_ROWS_THREADS<16>);

// Size of A_c, so that it is rounded by 3e-5, 6e-5, 8e-5 (rms; 1.1e-4 .. 1.3e-4 without); the turns
// that follow take it out again.
template <int R> constexpr double MID_SIZE = R == 32 ? 0.557601 : R == 48 ? 0.961908 : 0.918476;

// Of a slot: from a column to those 1, 8, 128 further; conj(T)'s factor of p = slot.
struct mid_steps { float2 one, tile, down, leave; };

// What a block has: rows.cuh's, and where MID_TABLE the two above. Bytes where this lane's numbers
// lie, in the planes (of what hb_place and mid_turn_at say, the rest is added or flips bits):
template <int R> struct mid_block : hb_block<R> {
    int load;                  // of slot `warp`: ldmatrix
    // R = 16
    uint4 *there;
    unsigned char *turns;
    int enter, enter_turn;     // of (slot g, r = 32 group + 4 q)
    int back, back_turn;       // of slot `warp`: (p = g, s = 2 q)
    // R > 16
    const float *twice;        // 2 cos(16 pi r / N2)
    const mid_steps *steps;    // [slot]
    int f, R1;                 // 4 k1 - 1
    float turn;                // -2 pi / (4 N)
};

// R = 16, B fragments of a row: of 32 columns a warp. Others are in the planes.
template <int R> struct mid_row {};
template <> struct mid_row<16> { uint32_t re[4][2], im[4][2]; };

// --- R = 16 --------------------------------------------------------------------------------------
// Place of the turns of (slot, r), (slot, r + 1): eight lanes of the outer step (2 slots x 4 chunks
// 2 q) and of the rows' way back (2 x 4 neighbours, 8 chunks apart) meet in no bank.
__device__ __forceinline__ int mid_turn_at(int slot, int r)
{
    const int chunk = r >> 1;
    return slot * 128 + (chunk ^ (slot & 1) ^ (chunk >> 1 & 4));
}

// The turns of two neighbours at byte `at` of the table.
template <int R>
__device__ __forceinline__ void mid_turn(float2 &a, float2 &b, const mid_block<R> &k, int at)
{
    const float4 v = *(const float4 *)(k.turns + at);
    a = make_float2(v.x, v.y);
    b = make_float2(v.z, v.w);
}

// Where the turns of (slot g + 8 h, r + 16 e) of the outer step begin; those of r + 2 are at ^ 16.
template <int R> __device__ __forceinline__ int mid_enter_turn(const mid_block<R> &k, int h, int e)
{
    return (k.enter_turn ^ (e * 192)) + h * 16384;
}

template <int R>
__device__ __forceinline__ void mid_table_init(mid_block<R> &k, unsigned char *shared,
                                               const uint4 *matrix)
{
    const hb_lane me = k.me;
    const int warp = threadIdx.x / 32, r = 32 * me.group + 4 * me.q;
    k.enter = hb_place(me.g, r >> 3) + 8 * (me.q & 1);
    k.load = hb_place(warp, 2 * (me.lane & 15) + (me.lane >> 4));
    k.back = hb_place(warp, 2 * me.g) + 4 * me.q;
    k.there = (uint4 *)(shared + MID_THERE<R>);
    k.turns = shared + MID_TURNS<R>;
    k.enter_turn = 16 * mid_turn_at(me.g, r);
    k.back_turn = 16 * mid_turn_at(warp, 16 * me.g + 2 * me.q);
    const __half2 part = __floats2half2_rn(1.0f / R, 1.0f / R);
    const __half2 v = __hmul2(((const __half2 *)matrix)[threadIdx.x], part);
    ((__half2 *)k.there)[threadIdx.x] = v;
#pragma unroll
    for (int x = 0; x < 4; x++) {
        const int slot = me.g + x / 2 * 8, at = mid_enter_turn(k, x / 2, x % 2);
        float2 w[4];
        hb_four(w, hb_unit(4 * slot * (r + x % 2 * 16), 1024 * R), hb_unit(4 * slot, 1024 * R));
        *(float4 *)(k.turns + at) = make_float4(w[0].x, w[0].y, w[1].x, w[1].y);
        *(float4 *)(k.turns + (at ^ 16)) = make_float4(w[2].x, w[2].y, w[3].x, w[3].y);
    }
}

// Real or imaginary parts of a row.
__device__ __forceinline__ void mid_read_columns(uint32_t (&x)[4][2], const unsigned short *mid,
                                                 hb_lane me)
{
    uint2 raw[4];
#pragma unroll
    for (int j = 0; j < 4; j++)
        raw[j] = *(const uint2 *)(mid + hb_column(me) + (2 * me.q + j % 2 + j / 2 * 8) * 256);
    hb_columns(x, raw);
}

template <int R>
__device__ __forceinline__ void mid_table_enter(const mid_block<R> &k, const mid_row<R> &x)
{
    float re[4][4] = {}, im[4][4] = {};
    uint32_t gr[4], gi[4], minus[4];
    __syncthreads();
    hb_fragment(gr, k.there[k.me.lane]);
    hb_fragment(gi, k.there[32 + k.me.lane]);
    hb_negated(minus, gi);
#pragma unroll
    for (int t = 0; t < 4; t++) {
        hb_mma(re[t], gr, x.re[t][0], x.re[t][1]);
        hb_mma(im[t], gi, x.re[t][0], x.re[t][1]);
        hb_mma(re[t], minus, x.im[t][0], x.im[t][1]);
        hb_mma(im[t], gr, x.im[t][0], x.im[t][1]);
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int turns = mid_enter_turn(k, h, e);
            float2 w[4], v[4];
            mid_turn(w[0], w[1], k, turns);
            mid_turn(w[2], w[3], k, turns ^ 16);
#pragma unroll
            for (int t = 0; t < 4; t++)
                v[t] = hb_cmul(make_float2(re[t][2 * h + e], im[t][2 * h + e]), w[t]);
            unsigned char *at = k.planes + (k.enter ^ (32 * e)) + 4096 * h;
            *(uint2 *)at = make_uint2(hb_pack(v[0].x, v[1].x), hb_pack(v[2].x, v[3].x));
            *(uint2 *)(at + HB_PLANE<R>) =
                make_uint2(hb_pack(v[0].y, v[1].y), hb_pack(v[2].y, v[3].y));
        }
    __syncthreads();
}

template <int R>
__device__ __forceinline__ void mid_table_back(const mid_block<R> &k, const hb_tile &x, int i)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int t = j / 2, h = j % 2;
        float2 a, b;
        mid_turn(a, b, k, (k.back_turn ^ (64 * t)) + 1024 * h + 16384 * i);
        a = hb_cmul(make_float2(x.re[t][2 * h], x.im[t][2 * h]), hb_conj(a));
        b = hb_cmul(make_float2(x.re[t][2 * h + 1], x.im[t][2 * h + 1]), hb_conj(b));
        unsigned char *at = k.planes + (k.back ^ (16 * t)) + 256 * h + 4096 * i;
        *(uint32_t *)at = hb_pack(a.x, b.x);
        *(uint32_t *)(at + HB_PLANE<R>) = hb_pack(a.y, b.y);
    }
}

template <int R>
__device__ __forceinline__ void mid_table_leave(unsigned short *mid, const mid_block<R> &k, int k1,
                                                int R1)
{
    constexpr int N2 = 256 * R;
    const hb_lane me = k.me;
    const int n = 4 * R1 * N2, f = 4 * k1 - 1;
    const float2 step = hb_unit(f, n), next = hb_unit(16 * f, n);
    float re[1][4][4] = {}, im[1][4][4] = {};
    hb_outer_back<R, true, 1>(re, im, k.planes, k.matrix, 0, me);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int r = (me.g + 8 * h) * 256 + 32 * me.group + 4 * me.q;
        float2 w[4];
        hb_four(w, hb_unit(f * (r + N2 / 4), n), step);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float2 v[4];
#pragma unroll
            for (int t = 0; t < 4; t++) {
                v[t] = hb_cmul(make_float2(re[0][t][2 * h + e], im[0][t][2 * h + e]),
                               hb_conj(w[t]));
                w[t] = hb_cmul(w[t], next);
            }
            unsigned short *const to = mid + r + 16 * e;
            *(uint2 *)to = make_uint2(hb_pack(v[0].x, v[1].x), hb_pack(v[2].x, v[3].x));
            *(uint2 *)(to + N2) = make_uint2(hb_pack(v[0].y, v[1].y), hb_pack(v[2].y, v[3].y));
        }
    }
}

// --- R > 16 --------------------------------------------------------------------------------------
// Byte of chunk c (8 halves) of a slot in a plane: eight slots that follow each other meet in no
// bank, nor do eight that are R / 16 apart; of a slot, nor do chunks 2 i.
template <int R> __device__ __forceinline__ int mid_flip(int slot)
{
    return (R == 48 ? slot : slot ^ (slot >> 3 & 3)) & 7;
}

template <int R> __device__ __forceinline__ int mid_place(int slot, int c)
{
    return slot * 512 + ((c ^ (c >> 3 & 1) ^ mid_flip<R>(slot)) << 4);
}

// The same 8 n slots further: adding them may not carry.
template <int R> __device__ __forceinline__ uint32_t mid_further(uint32_t at, int n)
{
    return (at ^ (uint32_t)mid_flip<R>(8 * n) << 4) + 4096 * n;
}

// e^{-2 pi i m / (4 N)}
template <int R> __device__ __forceinline__ float2 mid_unit(const mid_block<R> &k, int m)
{
    const float x = (float)m * k.turn;
    return make_float2(__cosf(x), __sinf(x));
}

template <int Q> struct mid_matrix { uint32_t re[Q][4], im[Q][4]; };

template <int R>
__device__ __forceinline__ void mid_matrix_load(mid_matrix<MID_CLASSES<R>> &A,
                                                const mid_block<R> &k)
{
#pragma unroll
    for (int c = 0; c < MID_CLASSES<R>; c++) {
        hb_fragment(A.re[c], k.matrix[64 * c + k.me.lane]);
        hb_fragment(A.im[c], k.matrix[64 * c + 32 + k.me.lane]);
    }
}

// Where this lane's rows of the warp's first chunk lie, for ldmatrix and stmatrix of a real and an
// imaginary tile: of classes; of slots 0 .. 15, others are further. Chunk t is at ^ 16 t.
template <int R> struct mid_columns { uint32_t from[MID_CLASSES<R>], to; };

template <int R>
__device__ __forceinline__ void mid_columns_init(mid_columns<R> &at, const mid_block<R> &k)
{
    const int i = k.me.lane & 15, chunk = 4 * k.me.group;
    const uint32_t plane = hb_shared_address(k.planes) + (k.me.lane >> 4) * HB_PLANE<R>;
#pragma unroll
    for (int c = 0; c < MID_CLASSES<R>; c++)
        at.from[c] = plane + mid_place<R>(MID_CLASSES<R> * i + c, chunk);
    at.to = plane + mid_place<R>(i, chunk);
}

// P_c of chunk t; BACK: with conj(A).
template <int R, bool BACK>
__device__ __forceinline__ void mid_products(float (&re)[MID_CLASSES<R>][4],
                                             float (&im)[MID_CLASSES<R>][4],
                                             const mid_matrix<MID_CLASSES<R>> &A,
                                             const mid_columns<R> &at, int t)
{
#pragma unroll
    for (int c = 0; c < MID_CLASSES<R>; c++) {
        uint32_t x[4];                                     // real, imaginary
        hb_load_trans(x, at.from[c] ^ 16 * t);
#pragma unroll
        for (int i = 0; i < 4; i++) re[c][i] = im[c][i] = 0;
        hb_mma(re[c], A.re[c], x[0], x[1]);
        hb_mma(im[c], A.re[c], x[2], x[3]);
        if constexpr (BACK) {
            hb_mma(re[c], A.im[c], x[2], x[3]);
            hb_mma(im[c], A.im[c], hb_minus(x[0]), hb_minus(x[1]));
        } else {
            hb_mma(re[c], A.im[c], hb_minus(x[2]), hb_minus(x[3]));
            hb_mma(im[c], A.im[c], x[0], x[1]);
        }
    }
}

// a + i b, BACK: a - i b
template <bool BACK> __device__ __forceinline__ float2 mid_plus_i(float2 a, float2 b)
{
    return BACK ? make_float2(a.x + b.y, a.y - b.x) : make_float2(a.x - b.y, a.y + b.x);
}

__device__ __forceinline__ float2 mid_plus(float2 a, float2 b)
{
    return make_float2(a.x + b.x, a.y + b.y);
}

__device__ __forceinline__ float2 mid_minus(float2 a, float2 b)
{
    return make_float2(a.x - b.x, a.y - b.y);
}

// out[m] = sum_c e^{-2 pi i m c / Q} x[c], BACK: conjugated; Q = 2, 3, 4.
template <bool BACK, int Q> __device__ __forceinline__ void mid_sums(float2 (&x)[Q])
{
    if constexpr (Q == 2) {
        const float2 a = x[0], b = x[1];
        x[0] = mid_plus(a, b);
        x[1] = mid_minus(a, b);
    } else if constexpr (Q == 3) {
        constexpr float side = 0.8660254037844386f;
        const float2 a = x[0], sum = mid_plus(x[1], x[2]), d = mid_minus(x[1], x[2]);
        const float2 b = make_float2(a.x - 0.5f * sum.x, a.y - 0.5f * sum.y);
        const float2 s = make_float2(side * d.x, side * d.y);
        x[0] = mid_plus(a, sum);
        x[1] = mid_plus_i<!BACK>(b, s);
        x[2] = mid_plus_i<BACK>(b, s);
    } else {
        const float2 a = mid_plus(x[0], x[2]), b = mid_minus(x[0], x[2]);
        const float2 c = mid_plus(x[1], x[3]), d = mid_minus(x[1], x[3]);
        x[0] = mid_plus(a, c);
        x[1] = mid_plus_i<!BACK>(b, d);
        x[2] = mid_minus(a, c);
        x[3] = mid_plus_i<BACK>(b, d);
    }
}

// Outer step of chunk t, in place; turn(v, e, w): this lane's slots g + 8 x, column 8 t + 2 q + e.
template <int R, bool BACK, class F>
__device__ __forceinline__ void mid_outer(const mid_matrix<MID_CLASSES<R>> &A,
                                          const mid_columns<R> &at, int t, F turn)
{
    constexpr int Q = MID_CLASSES<R>;
    float re[Q][4], im[Q][4];
    mid_products<R, BACK>(re, im, A, at, t);
#pragma unroll
    for (int e = 0; e < 2; e++) {
        float2 v[2 * Q];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 x[Q];
#pragma unroll
            for (int c = 0; c < Q; c++) x[c] = make_float2(re[c][2 * h + e], im[c][2 * h + e]);
            mid_sums<BACK>(x);
#pragma unroll
            for (int m = 0; m < Q; m++) v[2 * m + h] = x[m];
        }
        turn(v, e);
#pragma unroll
        for (int x = 0; x < 2 * Q; x++) {
            re[x / 2][x % 2 * 2 + e] = v[x].x;
            im[x / 2][x % 2 * 2 + e] = v[x].y;
        }
    }
#pragma unroll
    for (int m = 0; m < Q; m++) {
        const uint32_t words[4] = { hb_pair(re[m], 0), hb_pair(re[m], 1),
                                    hb_pair(im[m], 0), hb_pair(im[m], 1) };
        hb_store_matrices(mid_further<R>(at.to ^ 16 * t, 2 * m), words);
    }
}

// Calls f(byte in the planes, where in the row) for each 16 bytes of this lane, of its warp's
// columns: eight lanes meet in no bank and have two runs of 64 bytes.
template <int R, class T, class F>
__device__ __forceinline__ void mid_own(const mid_block<R> &k, T *mid, F f)
{
    const int row = (k.me.lane >> 3) + (k.me.lane & 4), chunk = 4 * k.me.group + (k.me.lane & 3);
    const uint32_t at = mid_place<R>(row, chunk);
    mid += row * 256 + chunk * 8;
#pragma unroll
    for (int part = 0; part < 2; part++)
#pragma unroll
        for (int n = 0; n < R / 8; n++)
            f(mid_further<R>(at, n) + part * HB_PLANE<R>, mid + (part * R + 8 * n) * 256);
}

template <int R>
__device__ __forceinline__ void mid_classes_init(mid_block<R> &k, unsigned char *shared,
                                                 const uint4 *matrix, int k1, int R1)
{
    const int i = threadIdx.x, warp = i >> 5, lane = i & 31;
    k.planes = shared;
    k.matrix = (uint4 *)(shared + 2 * HB_PLANE<R>);
    k.constants = k.matrix + 64 * MID_CLASSES<R>;
    k.twice = (const float *)(k.constants + 6 * 32);
    k.me = { lane, lane >> 2, lane & 3, warp, 0 };
    k.load = mid_place<R>(warp, 2 * (lane & 15) + (lane >> 4));
    k.f = 4 * k1 - 1;
    k.R1 = R1;
    k.turn = -6.283185307179586f / (1024 * R) * hb_inverse((float)R1);
    mid_steps *const steps = (mid_steps *)(shared + MID_STEPS<R>);
    k.steps = steps;
#pragma unroll
    for (int j = 0; j < MID_WORDS<R> / 4; j += HB_ROWS_THREADS<R>)
        if (i + j < MID_WORDS<R> / 4) k.matrix[i + j] = matrix[i + j];
    if (i < R) {
        const int f = 4 * R1 * i + k.f;
        const float2 leave = mid_unit(k, k.f * (256 * i + 64 * R));
        constexpr float size = (float)(1 / MID_SIZE<R>);
        steps[i] = { mid_unit(k, f), mid_unit(k, 8 * f), mid_unit(k, 128 * f),
                     make_float2(leave.x * size, leave.y * size) };
    }
}

// Outer step of this warp's columns, in place, when their copies are there.
template <int R> __device__ __forceinline__ void mid_classes_enter(const mid_block<R> &k)
{
    constexpr int n = 256 * R;
    constexpr float size = (float)(1 / (R * MID_SIZE<R>));
    const hb_lane me = k.me;
    const int r = 32 * me.group + 2 * me.q;
    mid_matrix<MID_CLASSES<R>> A;
    mid_columns<R> at;
    float2 w[2][2], step[2];                               // [slot g + 8 h][column r + e]
    mid_matrix_load(A, k);
    mid_columns_init(at, k);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int slot = me.g + 8 * h;
        step[h] = hb_unit(8 * slot, n);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float2 v = hb_unit(slot * (r + e), n);
            w[h][e] = make_float2(v.x * size, v.y * size);
        }
    }
    hb_copied();
    __syncwarp();
#pragma unroll 1
    for (int t = 0; t < 4; t++) {
        const float2 both = *(const float2 *)(k.twice + r + 8 * t);
        mid_outer<R, false>(A, at, t, [&](float2 (&v)[2 * MID_CLASSES<R>], int e) {
            const float twice = e ? both.y : both.x;
            float2 a = w[0][e], b = w[1][e];
#pragma unroll
            for (int x = 0; x < 2 * MID_CLASSES<R>; x++) {
                v[x] = hb_cmul(v[x], a);
                const float2 c = make_float2(twice * b.x - a.x, twice * b.y - a.y);
                a = b;
                b = c;
            }
#pragma unroll
            for (int h = 0; h < 2; h++) w[h][e] = hb_cmul(w[h][e], step[h]);
        });
    }
}

// x, turned, to slot warp + 8 i.
template <int R>
__device__ __forceinline__ void mid_classes_back(const mid_block<R> &k, hb_tile &x, int i)
{
    const int slot = threadIdx.x / 32 + 8 * i;
    const mid_steps by = k.steps[slot];
    float2 w = mid_unit(k, (4 * k.R1 * slot + k.f) * (16 * k.me.g + 2 * k.me.q));
#pragma unroll
    for (int t = 0; t < 2; t++) {
        float2 even = w;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float2 odd = hb_cmul(even, by.one);
            const float2 a = hb_cmul(make_float2(x.re[t][2 * h], x.im[t][2 * h]), hb_conj(even));
            const float2 b = hb_cmul(make_float2(x.re[t][2 * h + 1], x.im[t][2 * h + 1]),
                                     hb_conj(odd));
            x.re[t][2 * h] = a.x;
            x.im[t][2 * h] = a.y;
            x.re[t][2 * h + 1] = b.x;
            x.im[t][2 * h + 1] = b.y;
            even = hb_cmul(even, by.down);
        }
        w = hb_cmul(w, by.tile);
    }
    const uint32_t at = hb_shared_address(k.planes) + mid_slot(k, i);
    hb_store_tiles(at, x.re);
    hb_store_tiles(at + HB_PLANE<R>, x.im);
}

// Outer step back of this warp's columns, in place, and out.
template <int R>
__device__ __forceinline__ void mid_classes_leave(unsigned short *mid, const mid_block<R> &k)
{
    constexpr int SLOTS = R / 8;
    mid_matrix<MID_CLASSES<R>> A;
    mid_columns<R> at;
    float2 w[SLOTS];
    mid_matrix_load(A, k);
    mid_columns_init(at, k);
#pragma unroll
    for (int x = 0; x < SLOTS; x++) w[x] = hb_conj(k.steps[k.me.g + 8 * x].leave);
#pragma unroll 1
    for (int t = 0; t < 4; t++)
        mid_outer<R, true>(A, at, t, [&](float2 (&v)[SLOTS], int) {
#pragma unroll
            for (int x = 0; x < SLOTS; x++) v[x] = hb_cmul(v[x], w[x]);
        });
    __syncwarp();
    mid_own(k, mid, [&](uint32_t at, unsigned short *to) {
        *(uint4 *)to = *(const uint4 *)(k.planes + at);
    });
}

// --- both ---------------------------------------------------------------------------------------
// After a barrier (in mid_read, mid_enter) it may be used.
template <int R>
__device__ __forceinline__ void mid_block_init(mid_block<R> &k, unsigned char *shared,
                                               const uint4 *matrix, int k1, int R1)
{
    if constexpr (MID_TABLE<R>) {
        hb_block_init<R>(k, shared, matrix);
        mid_table_init<R>(k, shared, matrix);
    } else {
        mid_classes_init<R>(k, shared, matrix, k1, R1);
    }
}

// R = 16: to registers. R > 16: begins to copy it to the planes, after a barrier.
template <int R>
__device__ __forceinline__ void mid_read(mid_row<R> &x, const mid_block<R> &k,
                                         const unsigned short *mid)
{
    if constexpr (MID_TABLE<R>) {
        mid_read_columns(x.re, mid, k.me);
        mid_read_columns(x.im, mid + 256 * R, k.me);
    } else {
        const uint32_t planes = hb_shared_address(k.planes);
        __syncthreads();
        mid_own(k, mid, [&](uint32_t at, const unsigned short *x) { hb_copy(planes + at, x, 16); });
    }
}

// Outer step, to the planes; a barrier after it, R = 16: and before.
template <int R>
__device__ __forceinline__ void mid_enter(const mid_block<R> &k, const mid_row<R> &x)
{
    if constexpr (MID_TABLE<R>) {
        mid_table_enter(k, x);
    } else {
        mid_classes_enter(k);
        __syncthreads();
    }
}

// Byte in the planes of this lane's 16 of slot warp + 8 i, for ldmatrix and stmatrix.
template <int R> __device__ __forceinline__ int mid_slot(const mid_block<R> &k, int i)
{
    return MID_TABLE<R> ? k.load + 4096 * i : (int)mid_further<R>(k.load, i);
}

// Transform of slot warp + 8 i.
template <int R>
__device__ __forceinline__ void mid_there(hb_tile &z, const mid_block<R> &k, const hb_inner &inner,
                                          int i)
{
    const uint32_t at = hb_shared_address(k.planes) + mid_slot(k, i);
    uint32_t xr[4], xi[4];
    hb_load_trans(xr, at);
    hb_load_trans(xi, at + HB_PLANE<R>);
    hb_inner_forth(z, inner, xr, xi);
}

// Its way back, to the planes.
template <int R>
__device__ __forceinline__ void mid_back(const mid_block<R> &k, const hb_tile &z,
                                         const hb_inner &inner, int i)
{
    hb_tile x;                                             // [p][s]
    hb_inner_and_back(x, inner, z);
    if constexpr (MID_TABLE<R>) mid_table_back(k, x, i);
    else mid_classes_back(k, x, i);
}

// From the planes to row k1 of mid, turned by conj(T)(k1, r) R1; barrier before.
template <int R>
__device__ __forceinline__ void mid_leave(unsigned short *mid, const mid_block<R> &k, int k1,
                                          int R1)
{
    __syncthreads();
    if constexpr (MID_TABLE<R>) mid_table_leave(mid, k, k1, R1);
    else mid_classes_leave(mid, k);
}

// --- the convolution -----------------------------------------------------------------------------
struct mid_job {
    unsigned short *mid;
    uint4 *spectrum;           // (channels, R1, R, 2, 32), in fragments: rows.cuh
    const float *gain;         // (channels): spectrum only, of its filter
    const float *boost;        // (channels, batch): convolve only, times rows' products
    const uint4 *matrix;       // mid_constants
    int channels, batch, R1;
    int tiles, parts;          // rows of the batch a block does, blocks of a channel and k1
    bool adjoint;              // conj(spectrum)
};

// Grid (channels, parts, R1). SPECTRUM: it is a filter's (batch 1) and goes to job.spectrum; else
// in place.
template <int R, bool SPECTRUM>
__global__ void __launch_bounds__(HB_ROWS_THREADS<R>, 2) mid_rows(struct mid_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    mid_block<R> k;
    const int warp = threadIdx.x / 32, k1 = (int)(blockIdx.x % (unsigned)job.R1);
    mid_block_init<R>(k, shared, job.matrix, k1, job.R1);
    const int part = (int)(blockIdx.x / (unsigned)job.R1 % (unsigned)job.parts);
    const int64_t c = blockIdx.x / (unsigned)job.R1 / (unsigned)job.parts;
    const int first = part * job.tiles, end = min(first + job.tiles, job.batch);
    uint4 *const spectrum = job.spectrum + ((c * job.R1 + k1) * R + warp) * 64 + k.me.lane;
    const int64_t apart = (int64_t)job.R1 * 512 * R;
    unsigned short *mid = job.mid + (c * job.batch + first) * apart + k1 * 512 * R;
    const auto turn_to = [&](int b) {                      // to the planes of row b
        if constexpr (MID_TWO<R>) k.planes = shared + (b - first) % 2 * MID_SHARED<R>;
    };
    mid_row<R> x;
    launch_wait();
    mid_read<R>(x, k, mid);
#pragma unroll 1
    for (int b = first; b < end; b++, mid += apart) {
        mid_enter<R>(k, x);
        if (MID_TWO<R> && b + 1 < end) {
            turn_to(b + 1);
            mid_read<R>(x, k, mid + apart);
            turn_to(b);
        }
        const hb_inner inner = hb_inner_of(k);
        const float by = SPECTRUM ? job.gain[c] : job.boost[c * job.batch + b] / HB_MID_TOP;
#pragma unroll 1
        for (int i = 0; i < R / 8; i++) {
            uint4 *const h = spectrum + i * 512;
            hb_tile z;
            if constexpr (SPECTRUM) {
                mid_there(z, k, inner, i);
                hb_keep(h, z, by);
            } else {
                const uint4 v[2] = { h[0], h[32] };        // under way
                mid_there(z, k, inner, i);
                if (job.adjoint) hb_times<true>(z, v, by);
                else hb_times<false>(z, v, by);
                __syncwarp();     // everybody has read the slot
                mid_back(k, z, inner, i);
            }
        }
        if constexpr (!SPECTRUM) mid_leave<R>(mid, k, k1, job.R1);
        turn_to(b + 1);
        if (!MID_TWO<R> && b + 1 < end) mid_read<R>(x, k, mid + apart);
    }
}

// --- host ----------------------------------------------------------------------------------------
// A_c, the turns of hb_inner_init, the cosines: MID_WORDS.
template <int R> static inline void mid_words(uint32_t *words)
{
    constexpr int Q = MID_CLASSES<R>;
    for (int c = 0; c < Q; c++, words += 256)
        hb_fused_tile(words, [=](int kappa, int pi, bool imaginary) {
            const double x = -2 * M_PI * kappa * (Q * pi + c) / R;
            return MID_SIZE<R> * (imaginary ? sin(x) : cos(x));
        });
    hb_fused_matrix(words, 16, 0, HB_F_SIZE);
    float *const turns = (float *)(words + 256), *const twice = turns + 512;
    for (int i = 0; i < 256; i++) {                        // of hb_turns_store
        const int lane = i / 2 % 32, e = i % 2, h = i / 64 % 2, t = i / 128;
        const double x = -2 * M_PI / 256 * (lane / 4 + 8 * h) * (2 * (lane % 4) + 8 * t + e);
        const double size = 0.25 / (HB_F_SIZE * HB_F_SIZE);
        turns[2 * i] = (float)(size * cos(x));
        turns[2 * i + 1] = (float)(size * sin(x));
        twice[i] = (float)(2 * cos(16 * M_PI * i / (256 * R)));
    }
}

// They are put on the device: *matrix.
static inline int mid_constants(const struct hb_host *host, uint4 **matrix, int R)
{
    if (R == 16) return hb_fused_constants(host, matrix, R, 0);
    int rc = 0;
    hb_by_mid_rows(R, [&](auto r) {
        constexpr int ROWS = decltype(r)::value;
        rc = hb_fused_table(host, matrix, 4 * MID_WORDS<ROWS>, mid_words<ROWS>);
    });
    return rc;
}

// Before the first launch (not while capturing).
static inline int mid_init(const struct hb_host *host, int R)
{
    int rc = 0;
    hb_by_mid_rows(R, [&](auto r) {
        constexpr int ROWS = decltype(r)::value;
        rc = hb_fused_allow(host, (const void *)mid_rows<ROWS, true>,
                            MID_ROWS_SHARED<ROWS>);
        if (!rc) rc = hb_fused_allow(host, (const void *)mid_rows<ROWS, false>,
                                    MID_ROWS_SHARED<ROWS>);
    });
    return rc;
}

// How a batch is dealt to blocks, `parts` (at most `most`) of `tiles` rows for each of `blocks`, of
// which `slots` run at once: the least waves of blocks times rows of a block, each with the cost of
// its start and end. Returns that, in times of a row.
static inline float mid_deal(int *tiles, int *parts, int64_t batch, int64_t blocks, int64_t slots,
                             int64_t most)
{
    float best = 0;
    for (int64_t t = batch; t > 0; t--) {
        const int64_t n = (batch + t - 1) / t;
        if (n > 1 && n > most) break;
        const float cost = (float)((blocks * n + slots - 1) / slots) * ((float)t + 0.5f);
        if (best > 0 && cost >= best) continue;
        best = cost;
        *tiles = (int)t;
        *parts = (int)n;
    }
    return best;
}

// SPECTRUM: spectra of mid (batch 1), times gain; mid is left alone. Else mid = transformed back of
// its transform times spectrum.
template <bool SPECTRUM>
static inline void mid_launch(struct mid_job job, int R, int sms, cudaStream_t stream)
{
    mid_deal(&job.tiles, &job.parts, job.batch, (int64_t)job.channels * job.R1, 2 * sms, job.batch);
    hb_by_mid_rows(R, [&](auto r) {
        constexpr int ROWS = decltype(r)::value;
        launch_next(true, mid_rows<ROWS, SPECTRUM>, (int64_t)job.channels * job.parts * job.R1,
                    HB_ROWS_THREADS<ROWS>, MID_ROWS_SHARED<ROWS>, stream, job);
    });
}
#endif
