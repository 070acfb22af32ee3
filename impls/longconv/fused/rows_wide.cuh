// rows_wide.cuh: the outer steps of long rows in the gradients' kernel (rows_dh.cuh), whose sums
// leave shared memory for one block an SM only: R = 48, 64 and, with a cluster of two blocks for a
// row, 96 and 128.
// Method    As rows.cuh, with 16 warps, each all row tiles of 16 columns: column g of tile t is
//           r = 16 warp + 2 g + t, so that a lane reads two neighbours and writes four.
//           R >= 96: block `part` of the cluster has the slots from part R / 2 on of planes,
//           spectrum and sums, and the same rows of G. On the way there both read all of the row;
//           on the way back a block makes its half of the signal, from its own planes and from the
//           other's (distributed shared memory). Pointers to planes are such that slots count from
//           the row's first; between real and imaginary planes lies G.
// Cost      a sample of the row, each way: shared memory for G (two fragments for 4 mma) twice that
//           of rows.cuh; R >= 96: distributed shared memory 4 bytes on the way back.
// Accuracy  see mma.cuh.
#ifndef HB_FUSED_ROWS_WIDE_CUH
#define HB_FUSED_ROWS_WIDE_CUH

#include "rows.cuh"

template <int R> constexpr bool HB_WIDE = R >= 48;
template <int R> constexpr int HB_PARTS = R >= 96 ? 2 : 1;                 // blocks of a row
template <int R> constexpr int HB_PART_SLOTS = HB_SLOTS<R> / HB_PARTS<R>;
template <int R> constexpr int HB_PART_PLANE = HB_PLANE<R> / HB_PARTS<R>;
template <int R> constexpr int HB_PART_MATRIX = HB_MATRIX<R> / HB_PARTS<R>;
constexpr int HB_WIDE_THREADS = 512, HB_WIDE_WARPS = HB_WIDE_THREADS / 32;
// Bytes: planes and G; everything.
template <int R> constexpr int HB_WIDE_PLANES =
    HB_PARTS<R> == 1 ? 2 * HB_PLANE<R> + HB_MATRIX<R> : HB_PLANE<R> + HB_PART_PLANE<R>;
template <int R> constexpr int HB_WIDE_SHARED =
    HB_WIDE_PLANES<R> + HB_PEAKS + HB_FILTERS * (int)sizeof(hb_taps) + HB_TURNS;

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

// matrix: all R x R of it, and F behind.
template <int R>
__device__ __forceinline__ void hb_wide_init(hb_block<R> &k, unsigned char *shared,
                                             const uint4 *matrix)
{
    constexpr int PART = HB_PART_MATRIX<R> / 16;
    static_assert(HB_PARTS<R> == 1 || HB_PART_MATRIX<R> <= HB_PART_PLANE<R>);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, part = hb_part<R>();
    k.me = { lane, lane >> 2, lane & 3, warp, part };
    k.planes = shared - part * HB_PART_PLANE<R>;
    k.matrix = (uint4 *)(shared + (HB_PARTS<R> == 1 ? 2 * HB_PLANE<R> : HB_PART_PLANE<R>));
    k.peaks = (uint32_t *)(shared + HB_WIDE_PLANES<R>);
    k.taps = (hb_taps *)((unsigned char *)k.peaks + HB_PEAKS);
    k.constants = (uint4 *)(k.taps + HB_FILTERS);
    for (int i = threadIdx.x; i < PART; i += HB_WIDE_THREADS)
        k.matrix[i] = matrix[part * PART + i];
    hb_inner inner;
    hb_inner_init(inner, matrix + HB_MATRIX<R> / 16, k.me);
    if (warp == 0) hb_turns_store(k.constants, inner, k.me);
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

// Outer step from halves: x[kt] slots 2q, 2q+1, 2q+8, 2q+9 of row tile kt, columns 16 group + 2g,
// + 1; the results times `there` to the planes.
template <int R>
__device__ __forceinline__ void hb_wide_outer(const hb_block<R> &k,
                                              const uint32_t (&x)[R / 16][4], float there)
{
    constexpr int KT = R / 16, MT = HB_PART_SLOTS<R> / 16, n = 1024 * R;
    const hb_lane me = k.me;
    uint32_t b[KT][2][2];
#pragma unroll
    for (int kt = 0; kt < KT; kt++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            b[kt][0][j] = hb_low(x[kt][2 * j], x[kt][2 * j + 1]);
            b[kt][1][j] = hb_high(x[kt][2 * j], x[kt][2 * j + 1]);
            asm volatile("" : "+r"(b[kt][0][j]), "+r"(b[kt][1][j]));     // not once more a tile
        }
#pragma unroll 1
    for (int mt = 0; mt < MT; mt++) {
        float re[2][4] = {}, im[2][4] = {};
#pragma unroll
        for (int kt = 0; kt < KT; kt++) {
            uint32_t gr[4], gi[4];
            hb_fragment(gr, k.matrix[(mt * KT + kt) * 64 + me.lane]);
            hb_fragment(gi, k.matrix[(mt * KT + kt) * 64 + 32 + me.lane]);
#pragma unroll
            for (int t = 0; t < 2; t++) {
                hb_mma(re[t], gr, b[kt][t][0], b[kt][t][1]);
                hb_mma(im[t], gi, b[kt][t][0], b[kt][t][1]);
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int slot = me.half * HB_PART_SLOTS<R> + 16 * mt + me.g + 8 * h;
            const int f = 4 * slot - 1, r = 16 * me.group + 4 * me.q;
            const float2 unit = hb_unit(f * (r + 64), n);
            float2 w[4], v[4];
            hb_four(w, make_float2(unit.x * there, unit.y * there), hb_unit(f, n));
#pragma unroll
            for (int t = 0; t < 4; t++)
                v[t] = hb_cmul(make_float2(re[t % 2][2 * h + t / 2], im[t % 2][2 * h + t / 2]),
                               w[t]);
            unsigned char *const at = k.planes + hb_place(slot, r >> 3) + 8 * (me.q & 1);
            *(uint2 *)at = make_uint2(hb_pack(v[0].x, v[1].x), hb_pack(v[2].x, v[3].x));
            *(uint2 *)(at + HB_PLANE<R>) =
                make_uint2(hb_pack(v[0].y, v[1].y), hb_pack(v[2].y, v[3].y));
        }
    }
}

// Row b of channel c, where hb_wide_outer wants it.
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
__device__ __forceinline__ void hb_wide_enter(const hb_block<R> &k, uint32_t (&x)[R / 16][4],
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
    if constexpr (!HB_IS_HALF<T>)
#pragma unroll
        for (int i = 0; i < R / 4; i++)
            x[i / 4][i % 4] = hb_halves<T>(x[i / 4][i % 4], scale[0]);
    hb_wide_outer<R>(k, x, HB_IS_HALF<T> ? scale[0] / R : 1.0f / R);
}

// hb_enter_product of row b of channel c; each block makes its half of the product.
template <class T, int R>
__device__ __forceinline__ void hb_wide_product(const hb_block<R> &k, const hb_factor &f,
                                                const hb_factor &g, int64_t c, int64_t b, int L,
                                                float (&scale)[2])
{
    constexpr int KT = R / 16, EACH = HB_PART_SLOTS<R> * 64 / HB_WIDE_THREADS;
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
    uint32_t x[KT][4];
#pragma unroll
    for (int i = 0; i < 4 * KT; i++) {
        const int slot = i / 4 * 16 + 2 * me.q + i % 2 + i % 4 / 2 * 8;
        const float2 v = ((const float2 *)hb_fours<R>(k, slot, 4 * me.group + me.g / 2))[me.g % 2];
        x[i / 4][i % 4] = hb_pack(v.x * scale[0], v.y * scale[0]);
    }
    hb_meet<R>();                 // everybody has read
    hb_wide_outer<R>(k, x, 1.0f / R);
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

// re += the part of the results that is from those.
template <int R>
__device__ __forceinline__ void hb_wide_add(float (&re)[HB_PART_SLOTS<R> / 16][2][4],
                                            const hb_block<R> &k, const uint32_t (&x)[2][4], int kt)
{
    uint32_t b[2][2][2];                         // [real, imaginary][t]
#pragma unroll
    for (int i = 0; i < 4; i++) {
        b[i / 2][0][i % 2] = hb_low(x[i / 2][i % 2 * 2], x[i / 2][i % 2 * 2 + 1]);
        b[i / 2][1][i % 2] = hb_high(x[i / 2][i % 2 * 2], x[i / 2][i % 2 * 2 + 1]);
    }
#pragma unroll
    for (int mt = 0; mt < HB_PART_SLOTS<R> / 16; mt++) {
        uint32_t gr[4], gi[4];
        hb_fragment(gr, k.matrix[(mt * (R / 16) + kt) * 64 + k.me.lane]);
        hb_fragment(gi, k.matrix[(mt * (R / 16) + kt) * 64 + 32 + k.me.lane]);
#pragma unroll
        for (int t = 0; t < 2; t++) {
            hb_mma(re[mt][t], gr, b[0][t][0], b[0][t][1]);
            hb_mma(re[mt][t], gi, b[1][t][0], b[1][t][1]);
        }
    }
}

// Row tiles of this block's part of the signal, [tile][t][c], as hb_outer_back. What the other
// block has is on its way while this one's is worked on.
template <int R>
__device__ __forceinline__ void hb_wide_back(float (&re)[HB_PART_SLOTS<R> / 16][2][4],
                                             const hb_block<R> &k)
{
    constexpr int MT = HB_PART_SLOTS<R> / 16;
    const int mine = k.me.half * MT, others = (1 - k.me.half) * MT;
    const unsigned char *const other = hb_planes_of(k, HB_PARTS<R> - 1 - k.me.half);
#pragma unroll 2
    for (int i = 0; i < MT; i++) {
        uint32_t x[2][4], y[2][4];
        if constexpr (HB_PARTS<R> == 2) hb_wide_words<R>(y, other, others + i, k.me);
        hb_wide_words<R>(x, k.planes, mine + i, k.me);
        hb_wide_add<R>(re, k, x, mine + i);
        if constexpr (HB_PARTS<R> == 2) hb_wide_add<R>(re, k, y, others + i);
    }
}

#endif
