// rows_wide.cuh: the outer steps of long rows in the gradients' kernel (rows_dh.cuh), whose sums
// leave shared memory for one block an SM only: R = 48, 64 and, with a cluster of two blocks for a
// row, 96 and 128.
// Method    As rows.cuh, with 16 warps, each all row tiles of 16 columns: column g of tile t is
//           r = 16 warp + 2 g + t, so that a lane reads two neighbours and writes four.
//           R >= 96: block p of the cluster has the slots k1 = 2 j + p, j < S = R / 2, of planes,
//           spectrum and sums: the outer step is one of length 2 between the blocks and one of S
//           in each. With w = (-1)^k1 e^{i pi / 4} and e = p / 2 - 1/8
//               there  U[k1] = T sum_{a < S} M[j][a] (x[a] + w x[a + S])
//               back   P = sum_j conj(M[a][j]) conj(T) V[k1] in each block,
//                      y[a] = Re(P0 + P1), y[a + S] = Re(e^{-i pi / 4} (P0 - P1))
//               M[j][a] = e^{-2 pi i (j + e)(a + e) / S}    symmetric; T: r - 256 e for r + 64
//           Block 0 makes y[a], block 1 y[a + S]; each gives the other, as floats in the planes'
//           place, what it needs of P. On the way there both read all of the row. Pointers to
//           planes are such that slots p S + j count from the row's first; between real and
//           imaginary planes lie M and the rows' constants.
// Cost      a sample of the row, each way: R >= 96: shared memory for M as rows.cuh for G;
//           distributed shared memory 4 bytes on the way back. Else twice that of rows.cuh.
// Accuracy  see mma.cuh. R >= 96: x[a] + w x[a + S] is rounded to half; f16 without gates: so is
//           Re w, by 1.1e-4 of it.
#ifndef HB_FUSED_ROWS_WIDE_CUH
#define HB_FUSED_ROWS_WIDE_CUH

#include "rows.cuh"

template <int R> constexpr bool HB_WIDE = R >= 48;
template <int R> constexpr int HB_PARTS = R >= 96 ? 2 : 1;                 // blocks of a row
template <int R> constexpr int HB_PART_SLOTS = HB_SLOTS<R> / HB_PARTS<R>;
template <int R> constexpr int HB_PART_PLANE = HB_PLANE<R> / HB_PARTS<R>;
template <int R> constexpr int HB_PART_MATRIX = HB_PART_SLOTS<R> * HB_PART_SLOTS<R> * 4;
constexpr int HB_WIDE_THREADS = 512, HB_WIDE_WARPS = HB_WIDE_THREADS / 32;
// Bytes: planes and G; everything.
template <int R> constexpr int HB_WIDE_PLANES =
    HB_PARTS<R> == 1 ? 2 * HB_PLANE<R> + HB_MATRIX<R> : HB_PLANE<R> + HB_PART_PLANE<R>;
template <int R> constexpr int HB_WIDE_SHARED =
    HB_WIDE_PLANES<R> + HB_PEAKS + HB_FILTERS * (int)sizeof(hb_taps)
    + (HB_PARTS<R> == 1 ? HB_CONSTANTS<R> + HB_STEPS<R> : 0);

// --- the cluster --------------------------------------------------------------------------------
// This block's number in it.
template <int R> __device__ __forceinline__ int hb_part()
{
    return (int)(blockIdx.x % HB_PARTS<R>);
}

// Barrier of all threads of a row: what they wrote to shared memory before is there.
template <int R> __device__ __forceinline__ void hb_meet()
{
    if constexpr (HB_PARTS<R> == 1)
        __syncthreads();
    else
        asm volatile("barrier.cluster.arrive.release.aligned;\n"
                     "barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Two blocks: hb_freed says that this one has read the other's planes, hb_free waits for the other
// to say so. Nothing was written that the other would have to see.
template <int R> __device__ __forceinline__ void hb_freed()
{
    if constexpr (HB_PARTS<R> == 2)
        asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

template <int R> __device__ __forceinline__ void hb_free()
{
    if constexpr (HB_PARTS<R> == 2)
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The first half of a hb_meet, hb_free being the other, for what this block has written to its own
// shared memory only: release of all memory would wait for stores to device memory.
template <int R> __device__ __forceinline__ void hb_wrote()
{
    if constexpr (HB_PARTS<R> == 2)
        asm volatile("fence.release.sync_restrict::shared::cta.cluster;\n"
                     "barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

// What block `part` of the cluster has at `p` of this block's shared memory.
template <int R, class P> __device__ __forceinline__ P *hb_of_part(P *p, int part)
{
    if constexpr (HB_PARTS<R> == 1) return p;
    uint64_t there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(p), "r"(part));
    return (P *)there;
}

// --- where things are ---------------------------------------------------------------------------
// First byte of the planes of a block, of which the pointer for all slots is `planes`.
template <int R, class P> __device__ __forceinline__ P *hb_first(P *planes, int part)
{
    return planes + part * HB_PART_PLANE<R>;
}

// The planes of block `part`, for all slots.
template <int R>
__device__ __forceinline__ unsigned char *hb_planes_of(const hb_block<R> &k, int part)
{
    if (HB_PARTS<R> == 1 || part == k.me.half) return k.planes;
    return hb_of_part<R>(hb_first<R>(k.planes, k.me.half), part) - part * HB_PART_PLANE<R>;
}

// Four neighbours of a slot as floats, in the planes' place (hb_four_at).
template <int R>
__device__ __forceinline__ float4 *hb_fours(const hb_block<R> &k, int slot, int i)
{
    if constexpr (HB_PARTS<R> == 1) return (float4 *)k.planes + hb_four_at(slot, i);
    constexpr int HALF = HB_PART_SLOTS<R> / 2;
    const int part = slot / (2 * HALF), here = slot % (2 * HALF);
    unsigned char *const at = hb_first<R>(hb_planes_of(k, part), part)
                            + here / HALF * HB_PLANE<R>;
    return (float4 *)at + hb_four_at(here % HALF, i);
}

// k1 of a slot of block `part`; what its T adds to r.
template <int R> __device__ __forceinline__ int hb_k1(int slot, int part)
{
    return HB_PARTS<R> == 1 ? slot % R : 2 * slot - part * (R - 1);
}

template <int R> __device__ __forceinline__ int hb_turn_from(int part)
{
    return HB_PARTS<R> == 1 ? 64 : 32 - 128 * part;
}

// As hb_block_init, of this block's slots: the other half's place is not used.
template <int R> __device__ __forceinline__ void hb_wide_steps_init(const hb_block<R> &k)
{
    constexpr int OWN = HB_PART_SLOTS<R>;
    const int i = threadIdx.x, slot = k.me.half * OWN + i % OWN;
    if (i < 2 * OWN)
        hb_steps_in<R>(k)[i / OWN * R + i % OWN] =
            hb_steps_of<R>(i / OWN, 4 * hb_k1<R>(slot, k.me.half) - 1);
}

// M of block `part`, in the order of its fragments (hb_fused_matrix).
template <int R> __device__ __forceinline__ void hb_half_matrix(uint4 *matrix, int part)
{
    constexpr int S = HB_PART_SLOTS<R>, n = 64 * S;
    const int e = 4 * part - 1;                                        // 8 e
    uint32_t *const words = (uint32_t *)matrix;
    for (int w = threadIdx.x; w < S * S / 2; w += HB_WIDE_THREADS) {
        const int tile = w / 128, lane = w / 4 % 32, i = w % 4;
        const int row = 8 * (tile / (S / 16) * 16 + lane / 4 + i % 2 * 8) + e;
        const int col = 8 * (tile % (S / 16) * 16 + lane % 4 * 2 + i / 2 * 8) + e;
        const float2 a = hb_unit(row * col % n, n), b = hb_unit(row * (col + 8) % n, n);
        words[256 * tile + w % 128] = hb_pack(a.x, b.x);
        words[256 * tile + 128 + w % 128] = hb_pack(a.y, b.y);
    }
}

// matrix: all R x R of it, and F behind.
template <int R>
__device__ __forceinline__ void hb_wide_init(hb_block<R> &k, unsigned char *shared,
                                             const uint4 *matrix)
{
    constexpr int WORDS = HB_PART_MATRIX<R> / 16;
    static_assert(HB_PARTS<R> == 1 || HB_PART_MATRIX<R> + HB_CONSTANTS<R> + HB_STEPS<R>
                                          <= HB_PART_PLANE<R>);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, part = hb_part<R>();
    k.me = { lane, lane >> 2, lane & 3, warp, part };
    k.planes = shared - part * HB_PART_PLANE<R>;
    k.matrix = (uint4 *)(shared + (HB_PARTS<R> == 1 ? 2 * HB_PLANE<R> : HB_PART_PLANE<R>));
    k.peaks = (uint32_t *)(shared + HB_WIDE_PLANES<R>);
    k.taps = (hb_taps *)((unsigned char *)k.peaks + HB_PEAKS);
    k.constants = HB_PARTS<R> == 1 ? (uint4 *)(k.taps + HB_FILTERS) : k.matrix + WORDS;
    if constexpr (HB_PARTS<R> == 2)
        hb_half_matrix<R>(k.matrix, part);
    else
        for (int i = threadIdx.x; i < WORDS; i += HB_WIDE_THREADS) k.matrix[i] = matrix[i];
    hb_inner inner;
    hb_inner_init(inner, matrix + HB_MATRIX<R> / 16, k.me);
    if (warp == 0) hb_inner_store(k.constants, inner, k.me);
    hb_wide_steps_init(k);
}

// --- there --------------------------------------------------------------------------------------
// Two neighbours of a row as bits, 0 from L on. EVEN: the row is 4-byte aligned and L even.
template <bool EVEN>
__device__ __forceinline__ uint32_t hb_load2(const unsigned short *row, int n, int L)
{
    uint32_t v = 0;
    if constexpr (EVEN) {
        if (n < L) v = *(const uint32_t *)(row + n);
    } else {
        if (n < L) v = row[n];
        if (n + 1 < L) v |= (uint32_t)row[n + 1] << 16;
    }
    return v;
}

// Fragments of B from halves: y[i] slots 2q, 2q+1, 2q+8, 2q+9 of a row tile, columns 16 group + 2g,
// + 1.
__device__ __forceinline__ void hb_wide_columns(uint32_t (&b)[2][2], const uint32_t (&y)[4])
{
#pragma unroll
    for (int j = 0; j < 2; j++) {
        b[0][j] = hb_low(y[2 * j], y[2 * j + 1]);
        b[1][j] = hb_high(y[2 * j], y[2 * j + 1]);
        asm volatile("" : "+r"(b[0][j]), "+r"(b[1][j]));     // not once more a tile
    }
}

// Sums of row tile mt of this block times T and `there`, to the planes.
template <int R>
__device__ __forceinline__ void hb_wide_leave(const hb_block<R> &k, const float (&re)[2][4],
                                              const float (&im)[2][4], int mt, float there)
{
    constexpr int n = 1024 * R;
    const hb_lane me = k.me;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int own = 16 * mt + me.g + 8 * h, slot = me.half * HB_PART_SLOTS<R> + own;
        const int f = 4 * hb_k1<R>(slot, me.half) - 1, r = 16 * me.group + 4 * me.q;
        const float4 step = hb_steps_in<R>(k)[own];
        const float2 unit = hb_unit(f * (r + hb_turn_from<R>(me.half)), n);
        float2 w[4], v[4];
        hb_four(w, make_float2(unit.x * there, unit.y * there), make_float2(step.x, step.y),
                make_float2(step.z, step.w));
#pragma unroll
        for (int t = 0; t < 4; t++)
            v[t] = hb_cmul(make_float2(re[t % 2][2 * h + t / 2], im[t % 2][2 * h + t / 2]), w[t]);
        unsigned char *const at = k.planes + hb_place(slot, r >> 3) + 8 * (me.q & 1);
        *(uint2 *)at = make_uint2(hb_pack(v[0].x, v[1].x), hb_pack(v[2].x, v[3].x));
        *(uint2 *)(at + HB_PLANE<R>) =
            make_uint2(hb_pack(v[0].y, v[1].y), hb_pack(v[2].y, v[3].y));
    }
}

// Outer step from halves, x[kt] of row tile kt (hb_wide_columns); the results times `there` to the
// planes. One block.
template <int R>
__device__ __forceinline__ void hb_wide_outer(const hb_block<R> &k,
                                              const uint32_t (&x)[R / 16][4], float there)
{
    constexpr int KT = R / 16;
    uint32_t b[KT][2][2];
#pragma unroll
    for (int kt = 0; kt < KT; kt++) hb_wide_columns(b[kt], x[kt]);
#pragma unroll 1
    for (int mt = 0; mt < KT; mt++) {
        float re[2][4] = {}, im[2][4] = {};
#pragma unroll
        for (int kt = 0; kt < KT; kt++) {
            uint32_t gr[4], gi[4];
            hb_fragment(gr, k.matrix[(mt * KT + kt) * 64 + k.me.lane]);
            hb_fragment(gi, k.matrix[(mt * KT + kt) * 64 + 32 + k.me.lane]);
#pragma unroll
            for (int t = 0; t < 2; t++) {
                hb_mma(re[t], gr, b[kt][t][0], b[kt][t][1]);
                hb_mma(im[t], gi, b[kt][t][0], b[kt][t][1]);
            }
        }
        hb_wide_leave<R>(k, re, im, mt, there);
    }
}

// What one of two blocks has of x: y[a] = x[a] + w x[a + S] of row tile kt, real and imaginary.
template <int R> using hb_half_words = uint32_t[HB_PART_SLOTS<R> / 16][4];

// Re w = Im w.
__device__ __forceinline__ float hb_half_turn(hb_lane me)
{
    return me.half ? -0.70710678f : 0.70710678f;
}

// A pair of y from those of x, times `by`.
__device__ __forceinline__ void hb_half_pair(uint32_t &re, uint32_t &im, float2 lo, float2 hi,
                                             float by, hb_lane me)
{
    const float turn = by * hb_half_turn(me), x = hi.x * turn, y = hi.y * turn;
    re = hb_pack(lo.x * by + x, lo.y * by + y);
    im = hb_pack(x, y);
}

// The same of pairs of halves; by: a power of two.
__device__ __forceinline__ void hb_half_pair(uint32_t &re, uint32_t &im, uint32_t lo, uint32_t hi,
                                             float by, hb_lane me)
{
    const float w = by * hb_half_turn(me);
    const __half2 once = __floats2half2_rn(by, by), turn = __floats2half2_rn(w, w);
    const __half2 far = *(const __half2 *)&hi;
    const __half2 x = __hfma2(far, turn, __hmul2(*(const __half2 *)&lo, once));
    const __half2 y = __hmul2(far, turn);
    re = *(const uint32_t *)&x;
    im = *(const uint32_t *)&y;
}

// hb_wide_outer of one of two blocks, from y.
template <int R>
__device__ __forceinline__ void hb_half_outer(const hb_block<R> &k, const hb_half_words<R> &yr,
                                              const hb_half_words<R> &yi, float there)
{
    constexpr int KT = HB_PART_SLOTS<R> / 16;
    uint32_t br[KT][2][2], bi[KT][2][2];
#pragma unroll
    for (int kt = 0; kt < KT; kt++) {
        hb_wide_columns(br[kt], yr[kt]);
        hb_wide_columns(bi[kt], yi[kt]);
    }
#pragma unroll 1
    for (int mt = 0; mt < KT; mt++) {
        float re[2][4] = {}, im[2][4] = {};
#pragma unroll
        for (int kt = 0; kt < KT; kt++) {
            uint32_t gi[4];
            hb_fragment(gi, k.matrix[(mt * KT + kt) * 64 + 32 + k.me.lane]);
#pragma unroll
            for (int t = 0; t < 2; t++) {
                hb_mma(re[t], gi, bi[kt][t][0], bi[kt][t][1]);
                hb_mma(im[t], gi, br[kt][t][0], br[kt][t][1]);
            }
        }
#pragma unroll
        for (int i = 0; i < 8; i++) re[i / 4][i % 4] = -re[i / 4][i % 4];
#pragma unroll
        for (int kt = 0; kt < KT; kt++) {
            uint32_t gr[4];
            hb_fragment(gr, k.matrix[(mt * KT + kt) * 64 + k.me.lane]);
#pragma unroll
            for (int t = 0; t < 2; t++) {
                hb_mma(re[t], gr, br[kt][t][0], br[kt][t][1]);
                hb_mma(im[t], gr, bi[kt][t][0], bi[kt][t][1]);
            }
        }
        hb_wide_leave<R>(k, re, im, mt, there);
    }
}

// Either, from pairs of T; scale: of the row.
template <class T, int R>
__device__ __forceinline__ void hb_wide_pairs(const hb_block<R> &k, const uint32_t (&x)[R / 16][4],
                                              float scale)
{
    if constexpr (HB_PARTS<R> == 1) {
        uint32_t y[R / 16][4];
#pragma unroll
        for (int i = 0; i < R / 4; i++) y[i / 4][i % 4] = hb_halves<T>(x[i / 4][i % 4], scale);
        hb_wide_outer<R>(k, y, HB_IS_HALF<T> ? scale / R : 1.0f / R);
    } else {
        constexpr int KT = HB_PART_SLOTS<R> / 16;
        // f16: so that results and factors are normal halves
        const float by = HB_IS_HALF<T> ? fminf(fmaxf(scale, 0.25f), 16384.0f) : scale;
        hb_half_words<R> yr, yi;
#pragma unroll
        for (int kt = 0; kt < KT; kt++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t lo = x[kt][i], hi = x[kt + KT][i];
                if constexpr (HB_IS_HALF<T>)
                    hb_half_pair(yr[kt][i], yi[kt][i], lo, hi, by, k.me);
                else
                    hb_half_pair(yr[kt][i], yi[kt][i], hb_two<T>(lo), hb_two<T>(hi), by, k.me);
            }
        hb_half_outer<R>(k, yr, yi, scale * hb_inverse(by) / R);
    }
}

// Row b of channel c, where hb_wide_columns wants it.
template <class T, int R>
__device__ __forceinline__ void hb_wide_read(uint32_t (&x)[R / 16][4], const void *in,
                                             struct hb_strides si, int64_t c, int64_t b, int L,
                                             hb_lane me)
{
    const T *const row = (const T *)in + c * si.c + b * si.b;
    const auto read = [&](auto even) {           // no branches between: all loads are under way
#pragma unroll
        for (int i = 0; i < R / 4; i++) {
            const int n = (i / 4 * 16 + 2 * me.q + i % 2 + i % 4 / 2 * 8) * 256
                        + 16 * me.group + 2 * me.g;
            x[i / 4][i % 4] = hb_load2<decltype(even)::value>((const unsigned short *)row, n, L);
        }
    };
    if ((((uintptr_t)row & 3) | (L & 1)) == 0) read(hb_constant<1>());
    else read(hb_constant<0>());
}

// hb_enter of a row that hb_wide_read has read. FIRST: after the planes have been read for another
// row, hb_freed.
template <class T, int R, bool FIRST>
__device__ __forceinline__ void hb_wide_enter(const hb_block<R> &k,
                                              const uint32_t (&x)[R / 16][4],
                                              float (&scale)[2])
{
    uint32_t peak = 0;
#pragma unroll
    for (int i = 0; i < R / 4; i++) peak = __vmaxu2(peak, x[i / 4][i % 4] & 0x7fff7fffu);
    peak = __reduce_max_sync(~0u, max(peak << 16, peak & 0xffff0000u));
    if (k.me.lane == 0) k.peaks[4 * k.me.group] = peak;
    __syncthreads();
    if constexpr (FIRST) hb_free<R>();
    scale[0] = scale[1] = hb_row_scale<T, HB_WIDE_WARPS>(k.peaks, 0);
    hb_wide_pairs<T, R>(k, x, scale[0]);
}

// hb_enter_product of row b of channel c; each block makes its half of the product.
template <class T, int R>
__device__ __forceinline__ void hb_wide_product(const hb_block<R> &k, const hb_factor &f,
                                                const hb_factor &g, int64_t c, int64_t b, int L,
                                                float (&scale)[2])
{
    constexpr int EACH = HB_PART_SLOTS<R> * 64 / HB_WIDE_THREADS;
    const hb_lane me = k.me;
    float peak = 0;
#pragma unroll 2
    for (int m = 0; m < EACH; m++) {
        const int i = threadIdx.x + m * HB_WIDE_THREADS;
        const int slot = me.half * HB_PART_SLOTS<R> + i / 64;
        float v[4];
        hb_product4<T>(v, f, g, c, b, slot * 256 + i % 64 * 4, L);
        *hb_fours<R>(k, slot, i % 64) = make_float4(v[0], v[1], v[2], v[3]);
        peak = fmaxf(fmaxf(fmaxf(peak, fabsf(v[0])), fmaxf(fabsf(v[1]), fabsf(v[2]))), fabsf(v[3]));
    }
#pragma unroll
    for (int l = 1; l < 32; l *= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, l));
    if (me.lane == 0) k.peaks[4 * me.group] = __float_as_uint(peak);
    hb_meet<R>();
    uint32_t m = 0;
#pragma unroll
    for (int part = 0; part < HB_PARTS<R>; part++) {
        const uint32_t *const peaks = hb_of_part<R>(k.peaks, part);
#pragma unroll
        for (int w = 0; w < HB_WIDE_WARPS; w++) m = max(m, peaks[4 * w]);
    }
    scale[0] = scale[1] = hb_fused_scale(__uint_as_float(m), 0);
    const auto pair = [&](int i) {               // those of hb_wide_columns, floats
        const int slot = i / 4 * 16 + 2 * me.q + i % 2 + i % 4 / 2 * 8;
        return ((const float2 *)hb_fours<R>(k, slot, 4 * me.group + me.g / 2))[me.g % 2];
    };
    if constexpr (HB_PARTS<R> == 1) {
        uint32_t x[R / 16][4];
#pragma unroll
        for (int i = 0; i < R / 4; i++) {
            const float2 v = pair(i);
            x[i / 4][i % 4] = hb_pack(v.x * scale[0], v.y * scale[0]);
        }
        __syncthreads();          // everybody has read
        hb_wide_outer<R>(k, x, 1.0f / R);
    } else {
        hb_half_words<R> yr, yi;
#pragma unroll
        for (int i = 0; i < R / 8; i++)
            hb_half_pair(yr[i / 4][i % 4], yi[i / 4][i % 4], pair(i), pair(i + R / 8), scale[0],
                         me);
        hb_meet<R>();             // everybody has read
        hb_half_outer<R>(k, yr, yi, 1.0f / R);
    }
}

// --- back ---------------------------------------------------------------------------------------
// Words of row tile kt of planes: [real, imaginary][slots 2q, 2q + 1, 2q + 8, 2q + 9].
template <int R>
__device__ __forceinline__ void hb_wide_words(uint32_t (&x)[2][4], const unsigned char *planes,
                                              int kt, hb_lane me)
{
    const unsigned char *const at = planes + 4 * (me.g & 3);
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i / 4][i % 4] = *(const uint32_t *)(at + i / 4 * HB_PLANE<R>
            + hb_place(16 * kt + 2 * me.q + i % 2 + i % 4 / 2 * 8, 2 * me.group + (me.g >> 2)));
}

// Row tiles of the results, [tile][t][c], as hb_outer_back. One block.
template <int R>
__device__ __forceinline__ void hb_wide_back(float (&re)[R / 16][2][4], const hb_block<R> &k)
{
    constexpr int KT = R / 16;
#pragma unroll 2
    for (int kt = 0; kt < KT; kt++) {
        uint32_t x[2][4], br[2][2], bi[2][2];
        hb_wide_words<R>(x, k.planes, kt, k.me);
        hb_wide_columns(br, x[0]);
        hb_wide_columns(bi, x[1]);
#pragma unroll
        for (int mt = 0; mt < KT; mt++) {
            uint32_t gr[4], gi[4];
            hb_fragment(gr, k.matrix[(mt * KT + kt) * 64 + k.me.lane]);
            hb_fragment(gi, k.matrix[(mt * KT + kt) * 64 + 32 + k.me.lane]);
#pragma unroll
            for (int t = 0; t < 2; t++) {
                hb_mma(re[mt][t], gr, br[t][0], br[t][1]);
                hb_mma(re[mt][t], gi, bi[t][0], bi[t][1]);
            }
        }
    }
}

// P of one of two blocks.
template <int R>
__device__ __forceinline__ void hb_half_back(float (&re)[HB_PART_SLOTS<R> / 16][2][4],
                                             float (&im)[HB_PART_SLOTS<R> / 16][2][4],
                                             const hb_block<R> &k)
{
    constexpr int KT = HB_PART_SLOTS<R> / 16;
#pragma unroll
    for (int kt = 0; kt < KT; kt++) {
        uint32_t x[2][4], br[2][2], bi[2][2];
        hb_wide_words<R>(x, k.planes, k.me.half * KT + kt, k.me);
        hb_wide_columns(br, x[0]);
        hb_wide_columns(bi, x[1]);
#pragma unroll
        for (int mt = 0; mt < KT; mt++) {
            uint32_t gr[4], gi[4];
            hb_fragment(gr, k.matrix[(mt * KT + kt) * 64 + k.me.lane]);
            hb_fragment(gi, k.matrix[(mt * KT + kt) * 64 + 32 + k.me.lane]);
#pragma unroll
            for (int t = 0; t < 2; t++) {
                hb_mma(re[mt][t], gr, br[t][0], br[t][1]);
                hb_mma(im[mt][t], gr, bi[t][0], bi[t][1]);
                hb_mma(re[mt][t], gi, bi[t][0], bi[t][1]);
                hb_mma(im[mt][t], gi, hb_minus(br[t][0]), hb_minus(br[t][1]));
            }
        }
    }
}

// v[i]: the i-th four of this lane's results of two blocks, from P. Between writing for the other
// block and waiting for it: meanwhile().
template <int R, class MEANWHILE>
__device__ __forceinline__ void hb_half_results(float (&v)[HB_PART_SLOTS<R> / 8][4],
                                                const hb_block<R> &k, MEANWHILE meanwhile)
{
    constexpr int N = HB_PART_SLOTS<R> / 8;
    float re[N / 2][2][4] = {}, im[N / 2][2][4] = {};
    hb_half_back<R>(re, im, k);
    float4 *const mine = (float4 *)hb_first<R>(k.planes, k.me.half) + threadIdx.x;
    const float4 *const theirs = hb_of_part<R>(mine, 1 - k.me.half);
    const auto place = [](int i) {
        return i / (N / 2) * (HB_PLANE<R> / 16) + i % (N / 2) * HB_WIDE_THREADS;
    };
    __syncthreads();              // everybody has read the planes
    const auto give = [&](auto part) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            float to[4];
#pragma unroll
            for (int t = 0; t < 4; t++) {
                const float x = re[i / 2][t % 2][i % 2 * 2 + t / 2];
                const float turned = (x + im[i / 2][t % 2][i % 2 * 2 + t / 2]) * 0.70710678f;
                v[i][t] = decltype(part)::value ? -turned : x;
                to[t] = decltype(part)::value ? x : turned;
            }
            mine[place(i)] = make_float4(to[0], to[1], to[2], to[3]);
        }
    };
    if (k.me.half) give(hb_constant<1>());
    else give(hb_constant<0>());
    hb_wrote<R>();
    meanwhile();
    hb_free<R>();
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float4 x = theirs[place(i)];
        v[i][0] += x.x;
        v[i][1] += x.y;
        v[i][2] += x.z;
        v[i][3] += x.w;
    }
}

#endif
