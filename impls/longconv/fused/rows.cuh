// rows.cuh: a transform, the product with a spectrum and the way back, of rows that fit into one
// block: N = R 256 points, R = 4, 8, 16, 32, 48, 64, 96, 128; the right-angle convolution of
// mma.cuh. Without gates, rows of R <= 16 are in rows_pair.cuh. MID: for mid.cuh's complex rows.
// Method    One block has a row in shared memory as half planes [slot][256] real, then imaginary; a
//           slot is k1 (R < 16: 16 / R rows of the batch stand above each other, G is block
//           diagonal). Three steps with a barrier between them:
//           1 outer: 8 groups of 32 columns r, one a warp (R >= 96: two warps, half the k1 each).
//             Inputs go from global memory straight into B fragments: column g of tile t is
//             r = 32 group + 4 perm(g) + t, perm(g) = g / 2 + 4 (g % 2), so that a lane reads and
//             writes 4 neighbours at once and 4 lanes a whole sector (32 bytes).
//           2 rows: a warp a slot, 256 points r = 16 p + s in registers: contract p, turn, contract
//             s (C as A), times the spectrum, contract k3 (C as B of the transpose), turn, contract
//             k2 (the same again), turn by conj(T), back to where it came from.
//           3 outer back, groups as in 1.
//           GATED (hb.h, hb_conv_gates; signals.cuh): before 1 a lane makes tap(u) tap(pre) of its
//           own columns, in registers till its largest is known (R >= 96, where two warps want it:
//           in the order of time, as floats in the planes' place); tap(post) multiplies the results
//           of 3 as they are stored.
//           The spectra come from a kernel before, which is waited for after step 1; where a
//           channel has one row, rows_alone.cuh makes them in the same block.
//           Shared memory: 16-byte chunk c of slot k lies at c ^ (c / 8 % 2) ^ f(k), f three bits
//           (k1 bit 2, bits 0 + 2, bit 1): 8-byte writes of 1 (4 slots x 2 chunks), 8-byte reads
//           of 3 (slots 0,2,4,6 x chunks 0,2), ldmatrix (chunks 2 i + h) and 4-byte writes (chunks
//           2 p + t) of 2 have no bank conflicts.
// Cost      (f16, R 64, sm_90) 124 registers, two blocks an SM; R >= 96 one of 16 warps.
//           A sample: mma 8 R + 512 flop (R 32: 768, 64: 1024, 128: 1536); device memory 4 bytes +
//           spectrum 4 / B; L2 the spectrum again, 4, and u for the skip term, 2; shared memory 16
//           bytes and 2 x R / 8 of G; instructions (R 32) 72, (128) 84 (SASS, counted).
//           GATED: device memory 8 bytes (u, pre, post, y) for 4, about 25 instructions more;
//           R >= 96: shared memory 8 bytes more, two barriers more a tile.
//           Odd rows: u in a word of 8 bytes and a pair, y in words of 8 bytes with what a lane
//           lacks from the one beside; odd filters float by float. The cost is in README.md.
// Accuracy  see mma.cuh.
#ifndef HB_FUSED_ROWS_CUH
#define HB_FUSED_ROWS_CUH

#include "launch.cuh"
#include "signals.cuh"

struct hb_fused_job {
    const void *in;  struct hb_strides si;   // u (f16, bf16)
    void *out;       struct hb_strides so;   // like u
    uint4 *spectrum;           // [D][k < R][2 tiles][32 lanes] of 4 half2: fragments of C
    const float *d;            // or NULL; y += d u
    float *undo;               // (D), SPECTRUM: out; CONVOLVE: 4 2^-e1
    const uint4 *matrix;       // hb_fused_constants(R, 0.25)
    int B, D, L;
    int tiles;                 // of PACK rows, that one block does
    int chunks;                // blocks for one channel
    int ahead;                 // blocks that run at a time: what the one so much later will read
                               // first is asked for
    struct hb_conv_gates gates;              // GATED only: as hb.h says; d is in the spectrum
    int K;                     // taps
    const float *h, *hd;       // SPECTRUM: (D,L); (D) or NULL, added at lag 0
};

constexpr int HB_GROUPS = 8;                                        // of 32 columns
template <int R> constexpr int HB_SLOTS = R < 16 ? 16 : R;
template <int R> constexpr int HB_PACK = HB_SLOTS<R> / R;           // rows of a tile
template <int R> constexpr int HB_SPLIT = R >= 96 ? 2 : 1;          // warps of a group
template <int R> constexpr int HB_ROWS_THREADS = HB_GROUPS * HB_SPLIT<R> * 32;
template <int R> constexpr int HB_PLANE = HB_SLOTS<R> * 512;        // bytes
template <int R> constexpr int HB_MATRIX = HB_SLOTS<R> * HB_SLOTS<R> * 4;
constexpr int HB_PEAKS = 4 * 16 * 4;
enum { HB_TAP_U, HB_TAP_PRE, HB_TAP_POST, HB_TAP_NONE, HB_FILTERS };   // of a channel, in shared
// The rows' constants of each lane, 24 words; R < 32: they stay in registers.
template <int R> constexpr int HB_CONSTANTS = R < 32 ? 0 : 6 * 32 * 16;
// Steps of T of each slot, behind them: [0]: a column, 2 columns; [1]: 8, 128 columns.
template <int R> constexpr int HB_STEPS = R < 32 ? 0 : 2 * R * 16;
template <int R> constexpr int HB_ROWS_SHARED =
    2 * HB_PLANE<R> + HB_MATRIX<R> + HB_PEAKS + HB_FILTERS * (int)sizeof(hb_taps)
    + HB_CONSTANTS<R> + HB_STEPS<R>;

// Byte of chunk c (8 halves) of slot k in a plane.
__device__ __forceinline__ int hb_place(int k, int c)
{
    const int f = (k << 1 & 6) ^ (k >> 2 & 1) * 3;
    return k * 512 + ((c ^ (c >> 3 & 1) ^ f) << 4);
}

// --- fragments ----------------------------------------------------------------------------------
// B of 16 slots x 32 columns from this lane's rows 2q, 2q+1, 2q+8, 2q+9 (x[0..3]).
__device__ __forceinline__ void hb_columns(uint32_t (&b)[4][2], const uint2 (&x)[4])
{
#pragma unroll
    for (int j = 0; j < 2; j++) {
        b[0][j] = hb_low(x[2 * j].x, x[2 * j + 1].x);
        b[1][j] = hb_high(x[2 * j].x, x[2 * j + 1].x);
        b[2][j] = hb_low(x[2 * j].y, x[2 * j + 1].y);
        b[3][j] = hb_high(x[2 * j].y, x[2 * j + 1].y);
    }
}

__device__ __forceinline__ void hb_fragment(uint32_t (&a)[4], uint4 v)
{
    a[0] = v.x; a[1] = v.y; a[2] = v.z; a[3] = v.w;
}

__device__ __forceinline__ void hb_negated(uint32_t (&a)[4], const uint32_t (&v)[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = hb_minus(v[i]);
}

// w[t] = base step^t; twice: step^2
__device__ __forceinline__ void hb_four(float2 (&w)[4], float2 base, float2 step, float2 twice)
{
    w[0] = base;
    w[1] = hb_cmul(base, step);
    w[2] = hb_cmul(base, twice);
    w[3] = hb_cmul(w[1], twice);
}

__device__ __forceinline__ void hb_four(float2 (&w)[4], float2 base, float2 step)
{
    hb_four(w, base, step, hb_cmul(step, step));
}

// Half `which` of HB_STEPS of a slot's f = 4 k1 - 1.
template <int R> __device__ __forceinline__ float4 hb_steps_of(int which, int f)
{
    const float2 a = hb_unit((which ? 8 : 1) * f, 1024 * R);
    const float2 b = hb_unit((which ? 128 : 2) * f, 1024 * R);
    return make_float4(a.x, a.y, b.x, b.y);
}

// k1 of a slot.
template <int R> __device__ __forceinline__ int hb_k1(int slot) { return R < 16 ? slot % R : slot; }

// What a thread knows of itself and keeps.
struct hb_lane { int lane, g, q, group, half; };

// --- 1: columns to planes -----------------------------------------------------------------------
// b: B fragments of the group's columns, of N signals, each to its own planes. scale[h]: factor of
// rows g + 8 h of a tile (they differ only where rows are packed).
template <int R, int KT, int N>
__device__ __forceinline__ void hb_outer(unsigned char *const (&planes)[N], const uint4 *matrix,
                                         const uint32_t (&b)[N][KT][4][2],
                                         const float (&scale)[2], const float4 *steps,
                                         hb_lane me)
{
    constexpr int mine = KT / HB_SPLIT<R>, n = 1024 * R;
#pragma unroll 1
    for (int i = 0; i < mine; i++) {
        const int mt = me.half * mine + i;
        float re[N][4][4] = {}, im[N][4][4] = {};
#pragma unroll
        for (int kt = 0; kt < KT; kt++) {
            uint32_t gr[4], gi[4];
            hb_fragment(gr, matrix[(mt * KT + kt) * 64 + me.lane]);
            hb_fragment(gi, matrix[(mt * KT + kt) * 64 + 32 + me.lane]);
#pragma unroll
            for (int t = 0; t < 4 * N; t++) {
                const uint32_t (&from)[2] = b[t / 4][kt][t % 4];
                hb_mma(re[t / 4][t % 4], gr, from[0], from[1]);
                hb_mma(im[t / 4][t % 4], gi, from[0], from[1]);
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int slot = 16 * mt + me.g + 8 * h;
            const int f = 4 * hb_k1<R>(slot) - 1;
            const float4 step = HB_STEPS<R> ? steps[slot] : hb_steps_of<R>(0, f);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const int r = 32 * me.group + 16 * e + 4 * me.q;
                const float2 unit = hb_unit(f * (r + 64), n);
                float2 w[4], v[4];
                hb_four(w, make_float2(unit.x * scale[h], unit.y * scale[h]),
                        make_float2(step.x, step.y), make_float2(step.z, step.w));
#pragma unroll
                for (int s = 0; s < N; s++) {
#pragma unroll
                    for (int t = 0; t < 4; t++)
                        v[t] = hb_cmul(make_float2(re[s][t][2 * h + e], im[s][t][2 * h + e]), w[t]);
                    unsigned char *at = planes[s] + hb_place(slot, r >> 3) + 8 * (me.q & 1);
                    *(uint2 *)at = make_uint2(hb_pack(v[0].x, v[1].x), hb_pack(v[2].x, v[3].x));
                    *(uint2 *)(at + HB_PLANE<R>) =
                        make_uint2(hb_pack(v[0].y, v[1].y), hb_pack(v[2].y, v[3].y));
                }
            }
        }
    }
}

// --- 2: the 256 points of a slot ----------------------------------------------------------------
// F and the turns e^{-2 pi i k2 s / 256} / (4 size^2) of this lane's elements,
// the same for both ways.
struct hb_inner { uint32_t fr[4], fi[4], minus[4]; float2 w[2][4]; };

__device__ __forceinline__ void hb_inner_matrix(hb_inner &k, const uint4 *matrix, int lane)
{
    hb_fragment(k.fr, matrix[lane]);
    hb_fragment(k.fi, matrix[32 + lane]);
    hb_negated(k.minus, k.fi);
}

__device__ __forceinline__ void hb_inner_init(hb_inner &k, const uint4 *matrix, hb_lane me)
{
    hb_inner_matrix(k, matrix, me.lane);
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 w = hb_unit((me.g + i / 2 * 8) * (2 * me.q + 8 * t + i % 2), 256);
            constexpr float size = (float)(0.25 / (HB_F_SIZE * HB_F_SIZE));
            k.w[t][i] = make_float2(w.x * size, w.y * size);
        }
}

// The turns to and from shared memory, [4][32 lanes].
constexpr int HB_TURNS = 4 * 32 * 16;
__device__ __forceinline__ void hb_turns_store(uint4 *to, const hb_inner &k, hb_lane me)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 a = k.w[i / 2][i % 2 * 2], b = k.w[i / 2][i % 2 * 2 + 1];
        ((float4 *)to)[32 * i + me.lane] = make_float4(a.x, a.y, b.x, b.y);
    }
}

__device__ __forceinline__ void hb_turns_load(hb_inner &k, const uint4 *from, hb_lane me)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float4 v = ((const float4 *)from)[32 * i + me.lane];
        k.w[i / 2][i % 2 * 2] = make_float2(v.x, v.y);
        k.w[i / 2][i % 2 * 2 + 1] = make_float2(v.z, v.w);
    }
}

// Everything, [6][32 lanes].
__device__ __forceinline__ void hb_inner_store(uint4 *to, const hb_inner &k, hb_lane me)
{
    to[me.lane] = make_uint4(k.fr[0], k.fr[1], k.fr[2], k.fr[3]);
    to[32 + me.lane] = make_uint4(k.fi[0], k.fi[1], k.fi[2], k.fi[3]);
    hb_turns_store(to + 64, k, me);
}

__device__ __forceinline__ void hb_inner_load(hb_inner &k, const uint4 *from, hb_lane me)
{
    hb_inner_matrix(k, from, me.lane);
    hb_turns_load(k, from + 64, me);
}

struct hb_tile { float re[2][4], im[2][4]; };     // 16 x 16, two tiles of C

__device__ __forceinline__ uint32_t hb_pair(const float (&c)[4], int h)
{
    return hb_pack(c[2 * h], c[2 * h + 1]);
}

// z = F x, CONJ: conj(F) x; x as B: xr[2 t + j] is word j of tile t.
template <bool CONJ>
__device__ __forceinline__ void hb_from_left(hb_tile &z, const hb_inner &k, const uint32_t (&xr)[4],
                                             const uint32_t (&xi)[4])
{
    z = {};
#pragma unroll
    for (int t = 0; t < 2; t++) {
        hb_mma(z.re[t], k.fr, xr[2 * t], xr[2 * t + 1]);
        hb_mma(z.im[t], k.fr, xi[2 * t], xi[2 * t + 1]);
        hb_mma(z.re[t], CONJ ? k.fi : k.minus, xi[2 * t], xi[2 * t + 1]);
        hb_mma(z.im[t], CONJ ? k.minus : k.fi, xr[2 * t], xr[2 * t + 1]);
    }
}

// C as B of the transpose.
__device__ __forceinline__ void hb_transposed(uint32_t (&xr)[4], uint32_t (&xi)[4],
                                              const hb_tile &z)
{
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            xr[2 * t + j] = hb_pair(z.re[j], t);
            xi[2 * t + j] = hb_pair(z.im[j], t);
        }
}

// Transform of the 256 points [p][s], as B: z[k2][k3].
__device__ __forceinline__ void hb_inner_forth(hb_tile &z, const hb_inner &k,
                                               const uint32_t (&xr)[4], const uint32_t (&xi)[4])
{
    hb_tile y;                                             // [k2][s]
    hb_from_left<false>(y, k, xr, xi);
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 v = hb_cmul(make_float2(y.re[t][i], y.im[t][i]), k.w[t][i]);
            y.re[t][i] = v.x;
            y.im[t][i] = v.y;
        }
    const uint32_t ar[4] = { hb_pair(y.re[0], 0), hb_pair(y.re[0], 1),
                             hb_pair(y.re[1], 0), hb_pair(y.re[1], 1) };
    const uint32_t ai[4] = { hb_pair(y.im[0], 0), hb_pair(y.im[0], 1),
                             hb_pair(y.im[1], 0), hb_pair(y.im[1], 1) };
    z = {};
#pragma unroll
    for (int t = 0; t < 2; t++) {
        hb_mma(z.re[t], ar, k.fr[t], k.fr[t + 2]);
        hb_mma(z.im[t], ar, k.fi[t], k.fi[t + 2]);
        hb_mma(z.re[t], ai, k.minus[t], k.minus[t + 2]);
        hb_mma(z.im[t], ai, k.fr[t], k.fr[t + 2]);
    }
}

// A slot's points as B.
__device__ __forceinline__ void hb_inner_points(uint32_t (&xr)[4], uint32_t (&xi)[4],
                                                uint32_t planes, int plane_bytes, int slot,
                                                hb_lane me)
{
    const uint32_t at = planes + hb_place(slot, 2 * (me.lane & 15) + (me.lane >> 4));
    hb_load_trans(xr, at);
    hb_load_trans(xi, at + plane_bytes);
}

// Transform of a slot, 64 times (MID: also 1 / R1 is in it) sum / N.
__device__ __forceinline__ void hb_inner_there(hb_tile &z, const hb_inner &k, uint32_t planes,
                                               int plane_bytes, int slot, hb_lane me)
{
    uint32_t xr[4], xi[4];
    hb_inner_points(xr, xi, planes, plane_bytes, slot, me);
    hb_inner_forth(z, k, xr, xi);
}

// Four half2 with the bits of `flip` turned over: 0x80000000 conjugates.
__device__ __forceinline__ uint4 hb_flipped(uint4 v, uint32_t flip)
{
    return make_uint4(v.x ^ flip, v.y ^ flip, v.z ^ flip, v.w ^ flip);
}

// z = z times the spectrum h (of this lane, a tile in each uint4), CONJ: its conjugate, by `by`.
template <bool CONJ = false>
__device__ __forceinline__ void hb_times(hb_tile &z, const uint4 (&h)[2], float by)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        uint32_t v[4];
        hb_fragment(v, h[t]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 w = CONJ ? hb_conj(hb_unpack(v[i])) : hb_unpack(v[i]);
            const float2 x = hb_cmul(make_float2(z.re[t][i] * by, z.im[t][i] * by), w);
            z.re[t][i] = x.x;
            z.im[t][i] = x.y;
        }
    }
}

// The same; h: in memory, the other tile 32 uint4 further.
__device__ __forceinline__ void hb_times(hb_tile &z, const uint4 *h, bool adjoint, float by)
{
    const uint32_t flip = adjoint ? 0x80000000u : 0;
    const uint4 v[2] = { hb_flipped(h[0], flip), hb_flipped(h[32], flip) };
    hb_times(z, v, by);
}

// A spectrum from what hb_inner_there gives, and to memory.
__device__ __forceinline__ void hb_round(uint4 (&h)[2], const hb_tile &z, float gain)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        uint32_t v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = hb_pack(z.re[t][i] * gain, z.im[t][i] * gain);
        h[t] = make_uint4(v[0], v[1], v[2], v[3]);
    }
}

__device__ __forceinline__ void hb_keep(uint4 *h, const hb_tile &z, float gain)
{
    uint4 v[2];
    hb_round(v, z, gain);
    h[0] = v[0];
    h[32] = v[1];
}

// Transform back: x[p][s].
__device__ __forceinline__ void hb_inner_and_back(hb_tile &x, const hb_inner &k, const hb_tile &z)
{
    uint32_t xr[4], xi[4];
    hb_tile y;                                             // [s][k2]
    hb_transposed(xr, xi, z);
    hb_from_left<true>(y, k, xr, xi);
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 v = hb_cmul(make_float2(y.re[t][i], y.im[t][i]), hb_conj(k.w[t][i]));
            y.re[t][i] = v.x;
            y.im[t][i] = v.y;
        }
    hb_transposed(xr, xi, y);
    hb_from_left<true>(x, k, xr, xi);
}

// T of a slot: in this lane's first column 16 g + 2 q; from a column to those 1, 8, 128 further.
struct hb_steps { float2 first, one, tile, down; };

// Back to the planes, turned by conj(T) R; steps(): hb_steps.
template <int R, class STEPS>
__device__ __forceinline__ void hb_inner_leave(unsigned char *planes, const hb_tile &z,
                                               const hb_inner &k, int slot, hb_lane me,
                                               STEPS steps)
{
    hb_tile x;                                             // [p][s]
    hb_inner_and_back(x, k, z);
    const hb_steps by = steps();
    float2 w[2];
    w[0] = by.first;
#pragma unroll
    for (int t = 0; t < 2; t++) {
        w[1] = w[0];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float2 even = hb_conj(w[1]), odd = hb_conj(hb_cmul(w[1], by.one));
            const float2 v0 = hb_cmul(make_float2(x.re[t][2 * h], x.im[t][2 * h]), even);
            const float2 v1 = hb_cmul(make_float2(x.re[t][2 * h + 1], x.im[t][2 * h + 1]), odd);
            unsigned char *at = planes + hb_place(slot, 2 * (me.g + 8 * h) + t) + 4 * me.q;
            *(uint32_t *)at = hb_pack(v0.x, v1.x);
            *(uint32_t *)(at + HB_PLANE<R>) = hb_pack(v0.y, v1.y);
            w[1] = hb_cmul(w[1], by.down);
        }
        w[0] = hb_cmul(w[0], by.tile);
    }
}

template <int R, bool MID>
__device__ __forceinline__ void hb_inner_back(unsigned char *planes, const hb_tile &z,
                                              const hb_inner &k, int slot, hb_lane me)
{
    constexpr int n = 1024 * R;
    const int f = MID ? 4 * hb_k1<R>(slot) : 4 * hb_k1<R>(slot) - 1;
    const int r = 16 * me.g + 2 * me.q + (MID ? 0 : 64);
    hb_inner_leave<R>(planes, z, k, slot, me, [&] {
        return hb_steps{ hb_unit(f * r, n), hb_unit(f, n), hb_unit(8 * f, n),
                         hb_unit(128 * f, n) };
    });
}

// --- 3: planes to columns -----------------------------------------------------------------------
// Sums of `COUNT` row tiles from `first` on; re (MID: and im) [tile][t][c].
template <int R, bool MID, int COUNT>
__device__ __forceinline__ void hb_outer_back(float (&re)[COUNT][4][4],
                                              float (&im)[MID ? COUNT : 1][4][4],
                                              const unsigned char *planes, const uint4 *matrix,
                                              int first, hb_lane me)
{
    constexpr int KT = HB_SLOTS<R> / 16;
    const int chunk = 4 * me.group + (me.g >> 2) + 2 * (me.g & 1), byte = (me.g >> 1 & 1) * 8;
#pragma unroll 1
    for (int kt = 0; kt < KT; kt++) {
        uint32_t br[4][2], bi[4][2];
        uint2 x[4];
#pragma unroll
        for (int part = 0; part < 2; part++) {
#pragma unroll
            for (int j = 0; j < 4; j++)
                x[j] = *(const uint2 *)(planes + part * HB_PLANE<R> + byte
                       + hb_place(16 * kt + 2 * me.q + j % 2 + j / 2 * 8, chunk));
            hb_columns(part ? bi : br, x);
        }
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            uint32_t gr[4], gi[4], minus[4];
            hb_fragment(gr, matrix[((first + i) * KT + kt) * 64 + me.lane]);
            hb_fragment(gi, matrix[((first + i) * KT + kt) * 64 + 32 + me.lane]);
            hb_negated(minus, gi);
#pragma unroll
            for (int t = 0; t < 4; t++) {
                hb_mma(re[i][t], gr, br[t][0], br[t][1]);
                hb_mma(re[i][t], gi, bi[t][0], bi[t][1]);
                if constexpr (MID) {
                    hb_mma(im[i][t], gr, bi[t][0], bi[t][1]);
                    hb_mma(im[i][t], minus, br[t][0], br[t][1]);
                }
            }
        }
    }
}

// --- the kernels --------------------------------------------------------------------------------
// What is the same in all: where things lie in shared memory, constants, the rows' step.
template <int R> struct hb_block {
    unsigned char *planes;
    uint4 *matrix;                // G
    uint32_t *peaks;              // [warp][4]
    hb_taps *taps;                // [HB_FILTERS], GATED
    uint4 *constants;             // R >= 32
    hb_lane me;
    hb_inner inner;               // R < 32
};

template <int R> __device__ __forceinline__ float4 *hb_steps_in(const hb_block<R> &k)
{
    return (float4 *)(k.constants + HB_CONSTANTS<R> / 16);
}

template <int R>
__device__ __forceinline__ void hb_block_init(hb_block<R> &k, unsigned char *shared,
                                              const uint4 *matrix)
{
    k.planes = shared;
    k.matrix = (uint4 *)(shared + 2 * HB_PLANE<R>);
    k.peaks = (uint32_t *)(shared + 2 * HB_PLANE<R> + HB_MATRIX<R>);
    k.taps = (hb_taps *)((unsigned char *)k.peaks + HB_PEAKS);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    k.me = { lane, lane >> 2, lane & 3, warp % HB_GROUPS, warp / HB_GROUPS };
    for (int i = threadIdx.x; i < HB_MATRIX<R> / 16; i += HB_ROWS_THREADS<R>)
        k.matrix[i] = matrix[i];
    hb_inner inner;
    hb_inner_init(inner, matrix + HB_MATRIX<R> / 16, k.me);
    k.constants = (uint4 *)(k.taps + HB_FILTERS);
    if constexpr (HB_CONSTANTS<R> == 0) k.inner = inner;
    else if (warp == 0) hb_inner_store(k.constants, inner, k.me);
    const int i = threadIdx.x;
    if (HB_STEPS<R> && i < 2 * R) hb_steps_in<R>(k)[i] = hb_steps_of<R>(i / R, 4 * (i % R) - 1);
}

// The rows' constants; where they are in shared memory, after a barrier only.
template <int R> __device__ __forceinline__ hb_inner hb_inner_of(const hb_block<R> &k)
{
    if constexpr (HB_CONSTANTS<R> == 0) return k.inner;
    hb_inner inner;
    hb_inner_load(inner, k.constants, k.me);
    return inner;
}

// A slot back to the planes (hb_inner_back), with the block's steps.
template <int R>
__device__ __forceinline__ void hb_slot_back(const hb_block<R> &k, const hb_tile &z,
                                             const hb_inner &inner, int slot)
{
    if constexpr (HB_STEPS<R> == 0) {
        hb_inner_back<R, false>(k.planes, z, inner, slot, k.me);
    } else {
        hb_inner_leave<R>(k.planes, z, inner, slot, k.me, [&] {
            const float4 a = hb_steps_in<R>(k)[slot], b = hb_steps_in<R>(k)[R + slot];
            const int r = 16 * k.me.g + 2 * k.me.q + 64;
            return hb_steps{ hb_unit((4 * slot - 1) * r, 1024 * R), make_float2(a.x, a.y),
                             make_float2(b.x, b.y), make_float2(b.z, b.w) };
        });
    }
}

// The rows' step: all slots of the block. spectrum: of this lane, slot k1 = 0.
template <int R>
__device__ __forceinline__ void hb_slots(const hb_block<R> &k, const uint4 *spectrum)
{
    const uint32_t planes = hb_shared_address(k.planes);
    const hb_inner inner = hb_inner_of(k);
#pragma unroll 1
    for (int slot = threadIdx.x >> 5; slot < HB_SLOTS<R>; slot += HB_ROWS_THREADS<R> / 32) {
        hb_tile z;
        hb_inner_there(z, inner, planes, HB_PLANE<R>, slot, k.me);
        hb_times(z, spectrum + hb_k1<R>(slot) * 64, false, 1);
        __syncwarp();             // everybody has read the slot
        hb_slot_back<R>(k, z, inner, slot);
    }
}

// First of this lane's four neighbouring columns, as inputs of B; as results the columns are
// 32 group + 4 q and 16 further.
__device__ __forceinline__ int hb_column(hb_lane me)
{
    return 32 * me.group + 4 * ((me.g >> 1) + 4 * (me.g & 1));
}

// The row i of a tile that slot k belongs to.
template <int R> __device__ __forceinline__ int hb_row_of(int slot)
{
    return R < 16 ? slot / R : 0;
}

// Scale of row i of a tile from the warps' peaks: bits of T (hb_larger) or of float.
template <class T, int WARPS = HB_GROUPS>
__device__ __forceinline__ float hb_row_scale(const uint32_t *peaks, int i)
{
    uint32_t m = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) m = max(m, peaks[4 * w + i]);
    return hb_fused_scale(hb_magnitude<T>(m), 0);
}

// Leaves in `peaks` what the group found in its columns, from each lane's own (`peak`: in its slots
// 2q, 2q + 1; in those 8 further); each row of a tile has its own.
template <int R>
__device__ __forceinline__ void hb_peaks(uint32_t *peaks, uint32_t (&peak)[2], hb_lane me)
{
    if (R >= 16) peak[0] = max(peak[0], peak[1]);
#pragma unroll
    for (int h = 0; h < (R < 16 ? 2 : 1); h++) {
#pragma unroll
        for (int x = 4; x < 32; x *= 2) peak[h] = max(peak[h], __shfl_xor_sync(~0u, peak[h], x));
        peak[h] = max(peak[h], __shfl_xor_sync(~0u, peak[h], 1));
        if (R != 4) peak[h] = max(peak[h], __shfl_xor_sync(~0u, peak[h], 2));
        if (me.g == 0 && me.half == 0)
            peaks[4 * me.group + hb_row_of<R>(2 * me.q + 8 * h)] = peak[h];
    }
}

// Outer step of a tile from its halves: slots 2q, 2q+1, 2q+8, 2q+9 of each row tile.
template <int R>
__device__ __forceinline__ void hb_enter_halves(const hb_block<R> &k,
                                                const uint2 (&x)[HB_SLOTS<R> / 16][4],
                                                const float (&there)[2])
{
    constexpr int KT = HB_SLOTS<R> / 16;
    uint32_t b[1][KT][4][2];
#pragma unroll
    for (int kt = 0; kt < KT; kt++) hb_columns(b[0][kt], x[kt]);
    hb_outer<R, KT>({ k.planes }, k.matrix, b, there, hb_steps_in<R>(k), k.me);
}

// scale[h]: 2^eu of the row that slots g + 8 h belong to. T: what the peaks are of; those of float
// are of all warps, else the two warps of a group have the same.
template <class T, int R>
__device__ __forceinline__ void hb_scales(float (&scale)[2], const hb_block<R> &k)
{
    constexpr int WARPS = sizeof(T) == 4 ? HB_ROWS_THREADS<R> / 32 : HB_GROUPS;
    scale[0] = hb_row_scale<T, WARPS>(k.peaks, hb_row_of<R>(k.me.g));
    scale[1] = R < 16 ? hb_row_scale<T>(k.peaks, hb_row_of<R>(k.me.g + 8)) : scale[0];
}

// x[i][j]: four neighbours n .. of the row that at(i, j, n, is) returns; it sets n (multiple of 4)
// and whether there are any; 0 from L on. EVEN: hb_even. ONE: they are of one row, and n does not
// fall with j. No branches between the loads, and (ONE) an address in front of all of them, so that
// all of BATCH i are under way. What the end of a row cuts comes last.
template <class T, bool EVEN, int BATCH, bool ONE, int N, int M, class AT>
__device__ __forceinline__ void hb_read_fours(uint2 (&x)[N][M], int L, AT at)
{
    int n0, n, last;
    bool is;
    const T *const row0 = at(0, 0, n0, is);
    int four, pair;                              // where hb_of_words' begin, of the four at `from`
    const auto words = [&](const T *row, int from) {
        const int off = EVEN ? 0 : hb_below(row);
        four = from - off + (off & 2 ? 4 : 0);
        pair = from - off + (off & 2 ? 2 : 4);
    };
    words(row0, n0);
    if (ONE && !EVEN) {                          // they stay: registers of their own
        asm volatile("" : "+r"(four), "+r"(pair));
    }
    const auto read = [&](int i, int j, uint2 &a, uint32_t &b) {
        const T *const row = ONE ? row0 : at(i, j, n, is);
        at(i, j, n, is);
        const int from = ONE ? n0 : 0, off = EVEN ? 0 : hb_below(row);
        if (!ONE) words(row, 0);
        a = make_uint2(0, 0);
        b = 0;
        if (!is || n - from >= L - from - (EVEN ? 0 : 7 - off)) return;
        a = *(const uint2 *)(row + four + (n - from));
        if (!EVEN) b = *(const uint32_t *)(row + pair + (n - from));
    };
#pragma unroll
    for (int i0 = 0; i0 < N; i0 += BATCH) {
        uint32_t b[BATCH][M];
#pragma unroll
        for (int i = 0; i < BATCH && i0 + i < N; i++)
#pragma unroll
            for (int j = 0; j < M; j++) read(i0 + i, j, x[i0 + i][j], b[i][j]);
        if constexpr (!EVEN) {
#pragma unroll
            for (int i = 0; i < BATCH && i0 + i < N; i++)
#pragma unroll
                for (int j = 0; j < M; j++) {
                    const T *const row = ONE ? row0 : at(i0 + i, j, n, is);
                    x[i0 + i][j] = hb_of_words(x[i0 + i][j], b[i][j], hb_below(row));
                }
        }
    }
    if constexpr (!EVEN) {
        at(N - 1, M - 1, last, is);
        if (ONE && last + 8 <= L) return;
#pragma unroll
        for (int i = 0; i < N; i++) {
            at(i, 0, n, is);
            at(i, M - 1, last, is);
            if (ONE && (n >= L || last + 8 <= L)) continue;
#pragma unroll
            for (int j = 0; j < M; j++) {
                const T *const row = at(i, j, n, is);
                if (is && n < L && n - hb_below(row) + 8 > L) x[i][j] = hb_load4_each(row, n, L);
            }
        }
    }
}

// Reads the tile of rows b0 .. of channel c (in: f16 or bf16; rows from `end` on are 0) and leaves
// its outer step in the planes; another barrier, and they may be read. scale: hb_scales.
template <class T, int R>
__device__ __forceinline__ void hb_enter(const hb_block<R> &k, const void *in, struct hb_strides si,
                                         int64_t c, int b0, int end, int L, float (&scale)[2])
{
    constexpr int KT = HB_SLOTS<R> / 16, PACK = HB_PACK<R>;
    const hb_lane me = k.me;
    uint2 raw[KT][4];
    uint32_t peak[2] = { 0, 0 };
    const auto read = [&](auto even) {
        hb_read_fours<T, decltype(even)::value, KT, R >= 16>(raw, L, [&](int kt, int j, int &n,
                                                                     bool &is) {
            const int slot = 16 * kt + 2 * me.q + j % 2 + j / 2 * 8, b = b0 + hb_row_of<R>(slot);
            n = hb_k1<R>(slot) * 256 + hb_column(me);
            is = PACK == 1 || b < end;
            return (const T *)in + c * si.c + (is ? b : b0) * si.b;
        });
    };
    if (hb_even<T>(in, si, L)) read(hb_constant<1>());
    else read(hb_constant<0>());
#pragma unroll
    for (int kt = 0; kt < KT; kt++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            peak[j / 2] = hb_larger(hb_larger(peak[j / 2], raw[kt][j].x), raw[kt][j].y);
    hb_peaks<R>(k.peaks, peak, me);
    __syncthreads();
    hb_scales<T, R>(scale, k);
    if constexpr (!HB_IS_HALF<T>) {
#pragma unroll
        for (int kt = 0; kt < KT; kt++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float s = PACK == 1 ? scale[0]
                    : hb_row_scale<T>(k.peaks, hb_row_of<R>(2 * me.q + j / 2 * 8));
                // what the peaks have made of it must not be kept for this
                asm volatile("" : "+r"(raw[kt][j].x), "+r"(raw[kt][j].y));
                raw[kt][j].x = hb_halves<T>(raw[kt][j].x, s);
                raw[kt][j].y = hb_halves<T>(raw[kt][j].y, s);
            }
    }
    const float there[2] = { HB_IS_HALF<T> ? scale[0] / R : 1.0f / R,
                             HB_IS_HALF<T> ? scale[1] / R : 1.0f / R };
    hb_enter_halves<R>(k, raw, there);
}

// tap(f) tap(g) of this lane's own columns of the tile of rows b0 .., four neighbours of slots 2q,
// 2q + 1, 2q + 8, 2q + 9 of each row tile; what it finds is left in the peaks. first: inside is the
// barrier after which the filters may be read, while the first loads are under way.
template <class T, int R>
__device__ __forceinline__ void hb_own_product(float (&v)[HB_SLOTS<R> / 16][4][4],
                                               const hb_block<R> &k, const hb_factor &f,
                                               const hb_factor &g, int64_t c, int b0, int end,
                                               int L, bool first)
{
    constexpr int KT = HB_SLOTS<R> / 16, PACK = HB_PACK<R>;
    constexpr int BATCH = KT == 2 ? 2 : 1;       // row tiles whose loads are under way together
    const hb_lane me = k.me;
    float peak[2] = { 0, 0 };
#pragma unroll
    for (int kt = 0; kt < KT; kt += BATCH) {
        uint32_t x[4 * BATCH][3], y[4 * BATCH][3];
        const auto at = [&](int j, int &row, int &n) {
            const int slot = 16 * kt + j / 4 * 16 + 2 * me.q + j % 2 + j % 4 / 2 * 8;
            row = b0 + hb_row_of<R>(slot);
            n = PACK == 1 || row < end ? hb_k1<R>(slot) * 256 + hb_column(me) : -1;
        };
        hb_windows<T>(x, f, c, L, at);
        if (g.x) hb_windows<T>(y, g, c, L, at);
        if (first && kt == 0) __syncthreads();
#pragma unroll
        for (int j = 0; j < 4 * BATCH; j++) {
            float (&to)[4] = v[kt + j / 4][j % 4];
            int row, n;
            at(j, row, n);
            // Only slots that are a multiple of R begin a row; those of odd j are odd.
            const bool begins = j % 2 == 0 && (PACK > 1 || (kt == 0 && j == 0));
            const int left = PACK > 1 && n < 0 ? 0 : L - n;
            hb_by_words<T, true>(to, x[j], *f.k, begins ? n : 1);
            if (g.x) hb_by_words<T, false>(to, y[j], *g.k, begins ? n : 1);
#pragma unroll
            for (int t = 0; t < 4; t++) {
                if (t >= left) to[t] = 0;
                peak[j % 4 / 2] = fmaxf(peak[j % 4 / 2], fabsf(to[t]));
            }
        }
    }
    uint32_t bits[2] = { __float_as_uint(peak[0]), __float_as_uint(peak[1]) };
    hb_peaks<R>(k.peaks, bits, me);
}

// Those as halves, after a barrier. scale: hb_scales.
template <int R>
__device__ __forceinline__ void hb_own_halves(uint2 (&x)[HB_SLOTS<R> / 16][4], const hb_block<R> &k,
                                              const float (&v)[HB_SLOTS<R> / 16][4][4],
                                              float (&scale)[2])
{
    hb_scales<float, R>(scale, k);
#pragma unroll
    for (int i = 0; i < HB_SLOTS<R> / 4; i++) {
        const float s = HB_PACK<R> == 1 ? scale[0]
            : hb_row_scale<float>(k.peaks, hb_row_of<R>(2 * k.me.q + i % 4 / 2 * 8));
        const float (&from)[4] = v[i / 4][i % 4];
        x[i / 4][i % 4] = make_uint2(hb_pack(from[0] * s, from[1] * s),
                                     hb_pack(from[2] * s, from[3] * s));
    }
}

// Four neighbours of a slot as floats, in the planes' place: slots of 64 float4, swapped so that
// eight lanes with slots 2 q or g and g + 1 do not meet in a bank.
__device__ __forceinline__ int hb_four_at(int slot, int i)
{
    return slot * 64 + (i ^ ((slot >> 1 & 3) | (slot & 1) << 2));
}

// The same where two warps need the same columns (R >= 96). Both factors are read in the order of
// time, the product waits in the planes' place, as floats, till its largest is known. Inside is the
// barrier after which the planes are free and the filters there, while the first loads are under
// way.
template <class T, int R>
__device__ __forceinline__ void hb_enter_shared_product(const hb_block<R> &k, const hb_factor &f,
                                                        const hb_factor &g, int64_t c, int b0,
                                                        int end, int L, float (&scale)[2])
{
    constexpr int KT = HB_SLOTS<R> / 16, THREADS = HB_ROWS_THREADS<R>;
    constexpr int EACH = HB_SLOTS<R> * 64 / THREADS;                   // fours of a thread
    static_assert(EACH % 4 == 0 && HB_PACK<R> == 1);
    const hb_lane me = k.me;
    float4 *const wait = (float4 *)k.planes;
    float peak = 0;
    constexpr int BATCH = EACH % 8 ? 1 : 2;      // of four: so many loads are under way
#pragma unroll 1
    for (int m = 0; m < EACH; m += 4 * BATCH) {
        uint32_t x[BATCH][4][3], y[BATCH][4][3];
        const auto at = [&](int j, int &row, int &n) {
            const int i = threadIdx.x + (m + j) * THREADS, slot = i / 64;
            row = b0;
            n = b0 < end ? slot * 256 + i % 64 * 4 : -1;
        };
#pragma unroll
        for (int k4 = 0; k4 < BATCH; k4++) {
            const auto here = [&](int j, int &row, int &n) { at(4 * k4 + j, row, n); };
            hb_windows<T>(x[k4], f, c, L, here);
            if (g.x) hb_windows<T>(y[k4], g, c, L, here);
        }
        if (m == 0) __syncthreads();
#pragma unroll
        for (int j = 0; j < 4 * BATCH; j++) {
            const int i = threadIdx.x + (m + j) * THREADS;
            int row, n;
            at(j, row, n);
            float v[4];
            hb_by_words<T, true>(v, x[j / 4][j % 4], *f.k, n);
            if (g.x) hb_by_words<T, false>(v, y[j / 4][j % 4], *g.k, n);
#pragma unroll
            for (int t = 0; t < 4; t++)
                if (n < 0 || n + t >= L) v[t] = 0;
            wait[hb_four_at(i / 64, i % 64)] = make_float4(v[0], v[1], v[2], v[3]);
            peak = fmaxf(fmaxf(fmaxf(peak, fabsf(v[0])), fmaxf(fabsf(v[1]), fabsf(v[2]))),
                         fabsf(v[3]));
        }
    }
#pragma unroll
    for (int x = 1; x < 32; x *= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, x));
    if (me.lane == 0) k.peaks[threadIdx.x / 32 * 4] = __float_as_uint(peak);
    __syncthreads();
    hb_scales<float, R>(scale, k);
    uint2 x[KT][4];
#pragma unroll
    for (int kt = 0; kt < KT; kt++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int slot = 16 * kt + 2 * me.q + j % 2 + j / 2 * 8;
            const float4 v = wait[hb_four_at(slot, hb_column(me) / 4)];
            const float s = scale[0];
            x[kt][j] = make_uint2(hb_pack(v.x * s, v.y * s), hb_pack(v.z * s, v.w * s));
        }
    __syncthreads();              // everybody has read
    const float there[2] = { 1.0f / R, 1.0f / R };
    hb_enter_halves<R>(k, x, there);
}

// hb_enter of the product of two factors. first: the block's first tile, or false where a barrier
// has come before (R < 96).
template <class T, int R>
__device__ __forceinline__ void hb_enter_product(const hb_block<R> &k, const hb_factor &f,
                                                 const hb_factor &g, int64_t c, int b0, int end,
                                                 int L, float (&scale)[2], bool first = false)
{
    if constexpr (HB_SPLIT<R> == 1) {
        float v[HB_SLOTS<R> / 16][4][4];
        uint2 x[HB_SLOTS<R> / 16][4];
        const float there[2] = { 1.0f / R, 1.0f / R };
        hb_own_product<T, R>(v, k, f, g, c, b0, end, L, first);
        __syncthreads();
        hb_own_halves<R>(x, k, v, scale);
        hb_enter_halves<R>(k, x, there);
    } else {
        hb_enter_shared_product<T, R>(k, f, g, c, b0, end, L, scale);
    }
}

// The filters of channel c, a lane each, all read at once; of the second warp, as the first has the
// rows' constants to make. A barrier, and they may be read.
__device__ __forceinline__ void hb_filters_init(hb_taps *taps, const struct hb_conv_gates &gates,
                                                int64_t c, int K)
{
    const int i = (int)threadIdx.x - 32;
    if (i < 0 || i >= HB_FILTERS) return;
    struct hb_conv_tap f = { NULL, NULL, NULL, NULL, NULL, NULL };
    if (i == HB_TAP_U) f = gates.u;
    if (i == HB_TAP_PRE) f = gates.pre.tap;
    if (i == HB_TAP_POST) f = gates.post.tap;
    hb_taps_init(taps[i], f, c, K);
}

// Asks for the tile of rows b0 .. to be brought to L2: a thread a line of 128 bytes.
template <class T, int R>
__device__ __forceinline__ void hb_prefetch(const void *in, struct hb_strides si, int64_t c, int b0,
                                            int end, int L)
{
    const int row = b0 + threadIdx.x / (4 * R), n = threadIdx.x % (4 * R) * 64;
    if (threadIdx.x >= 4 * HB_SLOTS<R> || row >= end || n >= L) return;
    hb_prefetch_line((const T *)in + c * si.c + row * si.b + n);
}

// The rows from b0 on of channel c that come after those of this block's tile at b0: of its own or,
// after its last, of the block that follows on it, whose spectrum is asked for, too.
struct hb_rows_next { int64_t c; int b0, end; };

template <int R>
__device__ __forceinline__ hb_rows_next hb_next_rows(const hb_fused_job &job, int64_t c, int b0,
                                                     int end)
{
    if (b0 + HB_PACK<R> < end) return { c, b0 + HB_PACK<R>, end };
    const int64_t block = blockIdx.x + (int64_t)job.ahead;
    if (block >= gridDim.x) return { c, 0, 0 };
    const int rows = job.tiles * HB_PACK<R>, from = (int)(block % job.chunks) * rows;
    const int64_t other = block / job.chunks;
    for (int i = threadIdx.x; i < 8 * R; i += HB_ROWS_THREADS<R>)      // lines of 128 bytes
        hb_prefetch_line(job.spectrum + other * R * 64 + 8 * i);
    return { other, from, min(from + rows, job.B) };
}

// x[i][2 h + e]: the signal where a lane has the results of row tiles from mt on.
template <class T, int R, bool EVEN, int COUNT>
__device__ __forceinline__ void hb_read_results(uint2 (&x)[COUNT][4], const void *in,
                                                struct hb_strides si, int64_t c, int b0, int end,
                                                int mt, int L, hb_lane me)
{
    hb_read_fours<T, EVEN, 2, R >= 16>(x, L, [&](int i, int j, int &n, bool &is) {
        const int slot = 16 * (mt + i) + me.g + j / 2 * 8, b = b0 + hb_row_of<R>(slot);
        n = hb_k1<R>(slot) * 256 + 32 * me.group + 4 * me.q + j % 2 * 16;
        is = HB_PACK<R> == 1 || b < end;
        return (const T *)in + c * si.c + (is ? b : b0) * si.b;
    });
}

// v[e]: 16 e + 4 q .. + 3 of `to`, of which `left` are there; all lanes of the warp. EVEN: hb_even.
template <bool EVEN, class T>
__device__ __forceinline__ void hb_store_results(T *to, int left, const float (&v)[2][4], int q,
                                                 const hb_run &run)
{
    if constexpr (!EVEN) {
        hb_store_run(run, to, left, v, q);
    } else {
#pragma unroll
        for (int e = 0; e < 2; e++)
            if (16 * e + 4 * q < left) {
                const uint2 x = hb_four_of<T>(v[e]);         // as one number: stored at once
                *(uint64_t *)(to + 16 * e + 4 * q) = (uint64_t)x.y << 32 | x.x;
            }
    }
}

template <int R> constexpr int HB_ROWS_BLOCKS = R >= 96 ? 1 : 2;

// Largest of the threads' first values and sum of their second, for all of them: left in `part`,
// two floats a warp, and taken from it after a barrier.
template <int THREADS>
__device__ __forceinline__ void hb_leave_measured(float peak, float sum, float *part)
{
#pragma unroll
    for (int x = 1; x < 32; x *= 2) {
        peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, x));
        sum += __shfl_xor_sync(~0u, sum, x);
    }
    if ((threadIdx.x & 31) == 0) {
        part[threadIdx.x >> 5] = peak;
        part[THREADS / 32 + (threadIdx.x >> 5)] = sum;
    }
}

template <int THREADS> __device__ __forceinline__ float2 hb_take_measured(const float *part)
{
    float peak = 0, sum = 0;
    for (int w = 0; w < THREADS / 32; w++) {
        peak = fmaxf(peak, part[w]);
        sum += part[THREADS / 32 + w];
    }
    return make_float2(peak, sum);
}

// Both, with two barriers, the second after everybody's last use of `part`.
template <int THREADS>
__device__ __forceinline__ float2 hb_measured(float peak, float sum, float *part)
{
    hb_leave_measured<THREADS>(peak, sum, part);
    __syncthreads();
    const float2 m = hb_take_measured<THREADS>(part);
    __syncthreads();
    return m;
}

// Largest |x| and sum of |x| of a row of L <= 256 R floats, R < 16, `first` added to x[0]; as
// hb_measured. A thread's loads are under way together.
template <int R>
__device__ __forceinline__ float2 hb_measure(const float *row, float first, int L, float *part)
{
    constexpr int THREADS = HB_ROWS_THREADS<R>;
    float peak = 0, sum = 0;
#pragma unroll
    for (int i = 0; i < R * 256 / THREADS; i++) {
        const int n = threadIdx.x + i * THREADS;
        float x = n < L ? row[n] : 0;
        if (n == 0) x += first;
        peak = fmaxf(peak, fabsf(x));
        sum += fabsf(x);
    }
    return hb_measured<THREADS>(peak, sum, part);
}

// a[i] of a few, in registers.
template <class V, int COUNT>
__device__ __forceinline__ V hb_one_of(const V (&a)[COUNT], int i)
{
    V v = a[0];
#pragma unroll
    for (int j = 1; j < COUNT; j++)
        if (i == j) v = a[j];
    return v;
}

// From those: the scale of a channel's filter, the gain of its spectrum, what undoes it (mma.cuh).
// N: points of the whole transform.
struct hb_exponents { float scale, gain, undo; };

__device__ __forceinline__ hb_exponents hb_exponents_of(float2 m, float N)
{
    const float in = hb_fused_scale(m.x, 0), all = hb_fused_scale(m.y, 15);
    return { in, all / in * (N / 4096), 4 / all };
}

// Slots 2q, 2q + 1, 2q + 8, 2q + 9 of row tile kt of the filters of channels c0 .. (rows apart by
// L).
template <int R, bool EVEN>
__device__ __forceinline__ void hb_read_filter(float4 (&x)[4], const hb_fused_job &job, int64_t c0,
                                               int kt, hb_lane me)
{
    const float *row[4];
    int n[4];
    bool is[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int slot = 16 * kt + 2 * me.q + j % 2 + j / 2 * 8;
        const int64_t c = c0 + hb_row_of<R>(slot);
        n[j] = hb_k1<R>(slot) * 256 + hb_column(me);
        is[j] = c < job.D;
        row[j] = job.h + (is[j] ? c : c0) * job.L;
    }
    hb_read_floats<EVEN>(x, row, n, is, job.L);
}

// What is to be added to the first of slots 2q and 2q + 8 of row tile 0: d, where a row begins.
template <int R>
__device__ __forceinline__ float2 hb_filter_first(const hb_fused_job &job, int64_t c0, hb_lane me)
{
    float first[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int slot = 2 * me.q + 8 * i;
        const int64_t c = c0 + hb_row_of<R>(slot);
        const bool is = hb_k1<R>(slot) == 0 && hb_column(me) == 0 && c < job.D && job.hd;
        first[i] = is ? job.hd[c] : 0.0f;
    }
    return make_float2(first[0], first[1]);
}

__device__ __forceinline__ void hb_add_first(float4 (&x)[4], float2 first)
{
    x[0].x += first.x;
    x[2].x += first.y;
}

// B of those, scaled.
template <int R>
__device__ __forceinline__ void hb_filter_columns(uint32_t (&b)[4][2], const float4 (&x)[4],
                                                  const hb_exponents (&of)[HB_PACK<R>], hb_lane me)
{
    uint2 halves[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float s = hb_one_of(of, hb_row_of<R>(2 * me.q + j % 2 + j / 2 * 8)).scale;
        halves[j] = make_uint2(hb_pack(x[j].x * s, x[j].y * s), hb_pack(x[j].z * s, x[j].w * s));
    }
    hb_columns(b, halves);
}

// Exponents of the filters of channels c0 .., R < 16: they are read for these alone.
template <int R>
__device__ __forceinline__ void hb_measure_filters(hb_exponents (&of)[HB_PACK<R>],
                                                   const hb_block<R> &k, const hb_fused_job &job,
                                                   int64_t c0)
{
#pragma unroll
    for (int i = 0; i < HB_PACK<R>; i++) {
        if (c0 + i >= job.D) break;
        const float2 m = hb_measure<R>(job.h + (c0 + i) * job.L,
                                       job.hd ? job.hd[c0 + i] : 0.0f, job.L, (float *)k.peaks);
        of[i] = hb_exponents_of(m, 256.0f * R);
    }
}

// A lane's columns of filter c, without d.
template <int R, bool EVEN>
__device__ __forceinline__ void hb_own_filter(float4 (&x)[HB_SLOTS<R> / 16][4],
                                              const hb_fused_job &job, int64_t c, hb_lane me)
{
#pragma unroll
    for (int kt = 0; kt < HB_SLOTS<R> / 16; kt++)
        hb_read_filter<R, EVEN>(x[kt], job, c, kt, me);
}

// Largest |x| and sum of |x| of those.
template <int KT>
__device__ __forceinline__ float2 hb_measure_own(const float4 (&x)[KT][4])
{
    float peak = 0, sum = 0;
#pragma unroll
    for (int i = 0; i < 4 * KT; i++) {
        const float4 v = x[i / 4][i % 4];
        peak = fmaxf(fmaxf(fmaxf(peak, fabsf(v.x)), fmaxf(fabsf(v.y), fabsf(v.z))), fabsf(v.w));
        sum += (fabsf(v.x) + fabsf(v.y)) + (fabsf(v.z) + fabsf(v.w));
    }
    return make_float2(peak, sum);
}

// All rows of filters begin and end on 16 bytes.
__device__ __forceinline__ bool hb_even_filters(const hb_fused_job &job)
{
    return ((uintptr_t)job.h & 15) == 0 && job.L % 4 == 0;
}

// B of all columns of channel c's filter and its exponents, where two warps want the same columns
// (R >= 96) or rows are not EVEN: it is read in the order of time, EVEN four at a time, else one by
// one, whatever its alignment, and waits in the planes' place till all of it is measured.
template <int R, bool EVEN>
__device__ __forceinline__ void hb_enter_shared_filter(uint32_t (&b)[HB_SLOTS<R> / 16][4][2],
                                                       hb_exponents &of, const hb_block<R> &k,
                                                       const hb_fused_job &job, int64_t c)
{
    constexpr int THREADS = HB_ROWS_THREADS<R>, WORD = EVEN ? 4 : 1;
    constexpr int EACH = R * 256 / WORD / THREADS, BATCH = EACH / 2;   // words; under way together
    const hb_lane me = k.me;
    const float first = job.hd && threadIdx.x == 0 ? job.hd[c] : 0.0f;
    const float *const row = job.h + c * job.L + WORD * threadIdx.x;
    const int left = job.L - WORD * (int)threadIdx.x;
    float *const wait = (float *)k.planes;
    float peak = 0, sum = 0;
#pragma unroll
    for (int m = 0; m < EACH; m += BATCH) {
        float x[BATCH][WORD];
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            const int from = WORD * (m + j) * THREADS;
            if constexpr (EVEN) {
                float4 v = make_float4(0, 0, 0, 0);
                if (from < left) v = *(const float4 *)(row + from);
                x[j][0] = v.x, x[j][1] = v.y, x[j][2] = v.z, x[j][3] = v.w;
            } else {
                x[j][0] = from < left ? row[from] : 0.0f;
            }
        }
        if (m == 0) x[0][0] += first;
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            const int n = WORD * ((int)threadIdx.x + (m + j) * THREADS);
            float *const to = wait + 4 * hb_four_at(n / 256, n / 4 % 64) + n % 4;
#pragma unroll
            for (int t = 0; t < WORD; t++) {
                peak = fmaxf(peak, fabsf(x[j][t]));
                sum += fabsf(x[j][t]);
            }
            if constexpr (EVEN) *(float4 *)to = make_float4(x[j][0], x[j][1], x[j][2], x[j][3]);
            else *to = x[j][0];
        }
    }
    hb_leave_measured<THREADS>(peak, sum, (float *)k.peaks);
    __syncthreads();
    of = hb_exponents_of(hb_take_measured<THREADS>((const float *)k.peaks), 256.0f * R);
    const hb_exponents only[1] = { of };
#pragma unroll
    for (int kt = 0; kt < HB_SLOTS<R> / 16; kt++) {
        float4 x[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int slot = 16 * kt + 2 * me.q + j % 2 + j / 2 * 8;
            x[j] = ((const float4 *)wait)[hb_four_at(slot, hb_column(me) / 4)];
        }
        hb_filter_columns<R>(b[kt], x, only, me);
    }
    __syncthreads();              // everybody has read
}

// B of all columns of the filters of channels c0 .., R >= 16: and their exponents.
template <int R, bool EVEN>
__device__ __forceinline__ void hb_enter_filter(uint32_t (&b)[HB_SLOTS<R> / 16][4][2],
                                                hb_exponents (&of)[HB_PACK<R>],
                                                const hb_block<R> &k, const hb_fused_job &job,
                                                int64_t c0)
{
    constexpr int KT = HB_SLOTS<R> / 16;
    if constexpr (HB_PACK<R> > 1) {
        float4 x[4];
        hb_read_filter<R, EVEN>(x, job, c0, 0, k.me);
        hb_add_first(x, hb_filter_first<R>(job, c0, k.me));
        hb_filter_columns<R>(b[0], x, of, k.me);
    } else if constexpr (HB_SPLIT<R> == 2 || !EVEN) {
        hb_enter_shared_filter<R, EVEN>(b, of[0], k, job, c0);
    } else {
        float4 x[KT][4];
        hb_own_filter<R, EVEN>(x, job, c0, k.me);
        hb_add_first(x[0], hb_filter_first<R>(job, c0, k.me));
        const float2 m = hb_measure_own(x);
        of[0] = hb_exponents_of(hb_measured<HB_ROWS_THREADS<R>>(m.x, m.y, (float *)k.peaks),
                                256.0f * R);
#pragma unroll
        for (int kt = 0; kt < KT; kt++) hb_filter_columns<R>(b[kt], x[kt], of, k.me);
    }
}

// Spectrum of h (+ hd at lag 0) and its undo. Grid ceil(D / PACK), block HB_ROWS_THREADS, shared
// HB_ROWS_SHARED.
template <int R>
__global__ void __launch_bounds__(HB_ROWS_THREADS<R>, HB_ROWS_BLOCKS<R>)
hb_rows_spectrum(hb_fused_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int KT = HB_SLOTS<R> / 16, PACK = HB_PACK<R>;
    hb_block<R> k;
    hb_block_init<R>(k, shared, job.matrix);
    launch_wait();
    const hb_lane me = k.me;
    const int64_t c0 = (int64_t)blockIdx.x * PACK;
    const int64_t later = c0 + (int64_t)job.ahead * PACK;
    for (int64_t i = threadIdx.x; i < (int64_t)PACK * job.L / 32; i += HB_ROWS_THREADS<R>)
        if (later + PACK <= job.D)               // rows of h follow on each other
            hb_prefetch_line(job.h + later * job.L + 32 * i);
    hb_exponents of[PACK] = {};
    if constexpr (PACK > 1) hb_measure_filters<R>(of, k, job, c0);
    uint32_t b[1][KT][4][2];
    if (hb_even_filters(job)) hb_enter_filter<R, true>(b[0], of, k, job, c0);
    else hb_enter_filter<R, false>(b[0], of, k, job, c0);
    if (threadIdx.x < PACK && c0 + threadIdx.x < job.D)
        job.undo[c0 + threadIdx.x] = hb_one_of(of, threadIdx.x).undo;
    const float there[2] = { 1.0f / R, 1.0f / R };
    hb_outer<R, KT>({ k.planes }, k.matrix, b, there, hb_steps_in<R>(k), me);
    __syncthreads();
    const hb_inner inner = hb_inner_of(k);
#pragma unroll 1
    for (int slot = threadIdx.x >> 5; slot < HB_SLOTS<R>; slot += HB_ROWS_THREADS<R> / 32) {
        const int64_t c = c0 + hb_row_of<R>(slot);
        if (c >= job.D) break;
        hb_tile z;
        hb_inner_there(z, inner, hb_shared_address(k.planes), HB_PLANE<R>, slot, me);
        hb_keep(job.spectrum + (c * R + hb_k1<R>(slot)) * 64 + me.lane, z,
                hb_one_of(of, hb_row_of<R>(slot)).gain);
    }
}

// Step 3 of the tile of rows b0 .., all of it: y. post, GATED: or x NULL; skip, else: d. EVEN: rows
// of y and, where they are read again, of u (hb_even).
template <class T, int R, bool GATED, bool EVEN>
__device__ __forceinline__ void hb_leave(const hb_block<R> &k, const hb_fused_job &job,
                                         const hb_factor &post, int64_t c, int b0, int end,
                                         const float (&scale)[2], float undo, float skip)
{
    constexpr int MINE = HB_SLOTS<R> / 16 / HB_SPLIT<R>;
    constexpr int COUNT = MINE % 4 == 0 ? 4 : MINE;          // row tiles at a time
    constexpr bool EARLY = COUNT <= 2;           // there are registers for their inputs meanwhile
    const hb_lane me = k.me;
    T *const out = (T *)job.out + c * job.so.c + b0 * job.so.b;
#pragma unroll 1
    for (int mt = me.half * MINE; mt < (me.half + 1) * MINE; mt += COUNT) {
        float re[COUNT][4][4] = {}, im[1][4][4];
        uint2 x[COUNT][4] = {};                  // u once more
        uint32_t w[EARLY ? COUNT : 1][4][3];     // windows of post: h, e
        const auto read_post = [&](int i) {
            hb_windows<T>(w[EARLY ? i : 0], post, c, job.L, [&](int j, int &row, int &n) {
                const int slot = 16 * (mt + i) + me.g + j / 2 * 8;
                row = b0 + hb_row_of<R>(slot);
                n = row < end ? hb_k1<R>(slot) * 256 + 32 * me.group + j % 2 * 16 + 4 * me.q : -1;
            });
        };
        if (!GATED && EARLY && job.d)
            hb_read_results<T, R, EVEN>(x, job.in, job.si, c, b0, end, mt, job.L, me);
        if (GATED && EARLY && post.x) {
#pragma unroll
            for (int i = 0; i < COUNT; i++) read_post(i);
        }
        hb_outer_back<R, false, COUNT>(re, im, k.planes, k.matrix, mt, me);
        if (!GATED && !EARLY && job.d)
            hb_read_results<T, R, EVEN>(x, job.in, job.si, c, b0, end, mt, job.L, me);
        hb_run run = hb_run_of(out, me.q);
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            if (GATED && !EARLY && post.x) read_post(i);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int slot = 16 * (mt + i) + me.g + 8 * h;
                const int n = hb_k1<R>(slot) * 256 + 32 * me.group;
                const int row = b0 + hb_row_of<R>(slot), at = row < end ? row : b0;
                const float f = undo * hb_inverse(scale[h]);
                float v[2][4];
#pragma unroll
                for (int e = 0; e < 2; e++) {
#pragma unroll
                    for (int t = 0; t < 4; t++) v[e][t] = re[i][t][2 * h + e] * f;
                    if constexpr (GATED) {
                        if (post.x)
                            hb_by_words<T, false>(v[e], w[EARLY ? i : 0][2 * h + e], *post.k,
                                                  n + 16 * e + 4 * me.q);
                    } else {
                        const uint2 pairs = x[i][2 * h + e];
                        const float2 lo = hb_two<T>(pairs.x), hi = hb_two<T>(pairs.y);
                        v[e][0] += skip * lo.x;
                        v[e][1] += skip * lo.y;
                        v[e][2] += skip * hi.x;
                        v[e][3] += skip * hi.y;
                    }
                }
                T *const y = out + (at - b0) * job.so.b;
                if (HB_PACK<R> > 1) run = hb_run_of(y, me.q);
                hb_store_results<EVEN>(y + n, row < end ? job.L - n : 0, v, me.q, run);
            }
        }
    }
}

template <class T, int R, bool GATED>
__device__ __forceinline__ void hb_leave(const hb_block<R> &k, const hb_fused_job &job,
                                         const hb_factor &post, int64_t c, int b0, int end,
                                         const float (&scale)[2], float undo, float skip)
{
    const bool even = hb_even<T>(job.out, job.so, job.L)
                   && (GATED || !job.d || hb_even<T>(job.in, job.si, job.L));
    if (even) hb_leave<T, R, GATED, true>(k, job, post, c, b0, end, scale, undo, skip);
    else hb_leave<T, R, GATED, false>(k, job, post, c, b0, end, scale, undo, skip);
}

// y = h * u; GATED: y = tap(post) (h * tap(u) tap(pre)). Grid D chunks, block HB_ROWS_THREADS,
// shared HB_ROWS_SHARED: block (c, chunk) does `tiles` tiles of PACK rows of channel c. Barriers a
// tile: peaks are there; planes are full; planes hold the rows transformed back. The next tile's
// first barrier frees the planes.
template <class T, int R, bool GATED>
__global__ void __launch_bounds__(HB_ROWS_THREADS<R>, HB_ROWS_BLOCKS<R>) hb_rows(hb_fused_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int PACK = HB_PACK<R>;
    hb_block<R> k;
    hb_block_init<R>(k, shared, job.matrix);
    const int64_t c = blockIdx.x / job.chunks;
    const int first = (int)(blockIdx.x % job.chunks) * job.tiles * PACK;
    const int end = min(first + job.tiles * PACK, job.B);
    const uint4 *const spectrum = job.spectrum + c * R * 64 + k.me.lane;
    const float skip = job.d ? job.d[c] : 0;
    const hb_factor u = { job.in, job.si, k.taps + HB_TAP_U };
    const hb_factor pre = { job.gates.pre.x, job.gates.pre.sx, k.taps + HB_TAP_PRE };
    const hb_factor post = { job.gates.post.x, job.gates.post.sx, k.taps + HB_TAP_POST };
    float undo = 0;
    if constexpr (GATED) hb_filters_init(k.taps, job.gates, c, job.K);

    for (int b0 = first; b0 < end; b0 += PACK) {
        float scale[2];
        if constexpr (GATED) {
            hb_enter_product<T, R>(k, u, pre, c, b0, end, job.L, scale, b0 == first);
        } else {
            hb_enter<T, R>(k, job.in, job.si, c, b0, end, job.L, scale);
        }
        const hb_rows_next next = hb_next_rows<R>(job, c, b0, end);
        if (GATED && pre.x) hb_prefetch<T, R>(pre.x, pre.s, next.c, next.b0, next.end, job.L);
        if (GATED && post.x) hb_prefetch<T, R>(post.x, post.s, next.c, next.b0, next.end, job.L);
        hb_prefetch<T, R>(job.in, job.si, next.c, next.b0, next.end, job.L);
        if (b0 == first) {                       // what the kernel before has made
            launch_wait();
            undo = job.undo[c];
        }
        __syncthreads();
        hb_slots<R>(k, spectrum);
        __syncthreads();
        hb_leave<T, R, GATED>(k, job, post, c, b0, end, scale, undo, skip);
    }
}

// --- launching ----------------------------------------------------------------------------------
// Calls f with R as a constant; f(hb_constant<16>()) and so on. MID: R >= 16 only.
template <class F> static inline void hb_by_rows(int R, F f)
{
    switch (R) {
    case 4: f(hb_constant<4>()); break;
    case 8: f(hb_constant<8>()); break;
    case 16: f(hb_constant<16>()); break;
    case 32: f(hb_constant<32>()); break;
    case 48: f(hb_constant<48>()); break;
    case 64: f(hb_constant<64>()); break;
    case 96: f(hb_constant<96>()); break;
    default: f(hb_constant<128>()); break;
    }
}

template <class F> static inline void hb_by_mid_rows(int R, F f)
{
    switch (R) {
    case 16: f(hb_constant<16>()); break;
    case 32: f(hb_constant<32>()); break;
    case 48: f(hb_constant<48>()); break;
    default: f(hb_constant<64>()); break;
    }
}

#endif
