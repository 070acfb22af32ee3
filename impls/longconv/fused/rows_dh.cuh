// rows_dh.cuh: the filter's gradient of rows that fit into one block (rows.cuh); with gates, all
// gradients.
//     dh[s] += sum_b sum_n dy[n] u[n - s]     dd += sum_b sum_n dy[n] u[n]
//     GATED: r = tap(u) tap(pre) for u, g = dy tap(post) for dy; and (z = h * r + d r, dr its
//     adjoint of g) dpost, dpre, du: dy z, dr tap(u), dr tap(pre), each back through its filter
// Method    For each row of the batch in order: transforms of u (kept as half2) and of dy, sums of
//           conj(U) DY in f32, in the order of the fragments, so that a lane has its own; then one
//           transform back. Nothing depends on the order of execution. dd: a sum of its own.
//           GATED: the two transforms also go their way back, after the product with the spectrum,
//           to z (the forward keeps nothing) and dr. These become float rows in the planes' place,
//           in the order of time, for the filters' way back: four neighbours a thread.
// Cost      a sample of u: mma as forward twice there; L2 4 bytes again for dd; R >= 96 24 more for
//           sums and U. Predicted 5 ps (R <= 64); 9 ps above, where registers spill, too.
//           GATED: mma twice that; device memory 14 bytes (of four signals, to three), L2 12 more;
//           about 230 instructions. Predicted 9 ps (R <= 64), 15 above.
#ifndef HB_FUSED_ROWS_DH_CUH
#define HB_FUSED_ROWS_DH_CUH

#include <type_traits>

#include "rows.cuh"

struct hb_fused_dh {
    const void *dy;  struct hb_strides sdy;
    const void *u;   struct hb_strides su;
    float *dh, *dd;            // (D,L) +=, (D) += or NULL
    const uint4 *matrix;
    float4 *scratch;           // R >= 96: HB_DH_SCRATCH bytes a block; else unused
    int B, D, L;
    const uint4 *spectrum;     // GATED, from here on: the forward's, with d in it
    const float *undo;
    void *du;  struct hb_strides sdu;
    struct hb_conv_gates gates;
    int K;
};

// Where sums (f32) and the transform of u (half2) of a block's slots are: R <= 64 shared memory and
// registers, above that both in device memory, hopefully in L2. Bytes.
template <int R> constexpr bool HB_DH_NEAR = R <= 64;
template <int R> constexpr int HB_DH_SUMS = HB_SLOTS<R> * 2048;
template <int R> constexpr int HB_DH_SCRATCH = HB_DH_NEAR<R> ? 0 : HB_SLOTS<R> * 3072;
template <int R> constexpr int HB_DH_SHARED =
    HB_ROWS_SHARED<R> + (HB_DH_NEAR<R> ? HB_DH_SUMS<R> : 0);
template <int R> constexpr int HB_DH_BLOCKS = R > 32 ? 1 : 2;

// z into this lane's half2 (two uint4) and back.
__device__ __forceinline__ void hb_halve(uint4 (&v)[2], const hb_tile &z)
{
#pragma unroll
    for (int t = 0; t < 2; t++)
        v[t] = make_uint4(hb_pack(z.re[t][0], z.im[t][0]), hb_pack(z.re[t][1], z.im[t][1]),
                          hb_pack(z.re[t][2], z.im[t][2]), hb_pack(z.re[t][3], z.im[t][3]));
}

// sum (four float4, 32 apart: re, im of each tile) += conj(u) dy f; `start`: instead of +=.
__device__ __forceinline__ void hb_correlate(float4 *sum, const uint4 (&u)[2], const hb_tile &dy,
                                             float f, bool start)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        uint32_t v[4];
        float re[4], im[4];
        hb_fragment(v, u[t]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 x = hb_cmul(make_float2(dy.re[t][i], dy.im[t][i]),
                                     hb_conj(hb_unpack(v[i])));
            re[i] = x.x * f;
            im[i] = x.y * f;
        }
        const float4 zero = make_float4(0, 0, 0, 0);
        const float4 a = start ? zero : sum[64 * t], b = start ? zero : sum[64 * t + 32];
        sum[64 * t] = make_float4(a.x + re[0], a.y + re[1], a.z + re[2], a.w + re[3]);
        sum[64 * t + 32] = make_float4(b.x + im[0], b.y + im[1], b.z + im[2], b.w + im[3]);
    }
}

// z = sum f (added to what is there where `more`).
__device__ __forceinline__ void hb_take(hb_tile &z, const float4 *sum, float f, bool more)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        const float4 a = sum[64 * t], b = sum[64 * t + 32];
        const float re[4] = { a.x, a.y, a.z, a.w }, im[4] = { b.x, b.y, b.z, b.w };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            z.re[t][i] = re[i] * f + (more ? z.re[t][i] : 0.0f);
            z.im[t][i] = im[i] * f + (more ? z.im[t][i] : 0.0f);
        }
    }
}

// This thread's part of sum dy u over a tile of rows, which have just been read: lag 0 for dd,
// whose error would else be that of the largest dh.
template <class T, int R>
__device__ __forceinline__ float hb_dot(const hb_fused_dh &job, int64_t c, int b0)
{
    float sum = 0;
    for (int row = b0; row < min(b0 + HB_PACK<R>, job.B); row++) {
        const T *const u = (const T *)job.u + c * job.su.c + row * job.su.b;
        const T *const dy = (const T *)job.dy + c * job.sdy.c + row * job.sdy.b;
        for (int n = 4 * threadIdx.x; n < job.L; n += 4 * HB_ROWS_THREADS<R>) {
            const uint2 x = hb_load4(u, n, job.L, ((uintptr_t)u & 7) == 0);
            const uint2 y = hb_load4(dy, n, job.L, ((uintptr_t)dy & 7) == 0);
            sum += hb_product<T>(x.x, y.x) + hb_product<T>(x.y, y.y);
        }
    }
    return sum;
}

// Power of two that takes the sum of all |z| of the block's sums into (2^14, 2^15]: nothing on the
// way back exceeds that. lag0: summed over the block. Uses `peaks` (32 floats); two barriers.
template <int R>
__device__ __forceinline__ float hb_sums_scale(const hb_block<R> &k, const float4 *sums,
                                               float &lag0)
{
    constexpr int WARPS = HB_ROWS_THREADS<R> / 32;
    float *const part = (float *)k.peaks;
    float all = 0;
#pragma unroll 1
    for (int slot = threadIdx.x >> 5; slot < HB_SLOTS<R>; slot += WARPS)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float4 v = sums[slot * 128 + 32 * i + k.me.lane];
            all += fabsf(v.x) + fabsf(v.y) + fabsf(v.z) + fabsf(v.w);
        }
#pragma unroll
    for (int x = 1; x < 32; x *= 2) {
        all += __shfl_xor_sync(~0u, all, x);
        lag0 += __shfl_xor_sync(~0u, lag0, x);
    }
    __syncthreads();              // peaks have been read
    if (k.me.lane == 0) {
        part[threadIdx.x >> 5] = all;
        part[16 + (threadIdx.x >> 5)] = lag0;
    }
    __syncthreads();
    all = lag0 = 0;
    for (int w = 0; w < WARPS; w++) {
        all += part[w];
        lag0 += part[16 + w];
    }
    return hb_fused_scale(all, 15);
}

// --- gates: the way back through them ------------------------------------------------------------
// This thread's sums, over all rows of a channel.
struct hb_gate_sums { hb_tap_sums u, pre, post; float dd; };
constexpr int HB_GATE_SUMS = sizeof(hb_gate_sums) / sizeof(float);

// Results of the tile to floats in the planes' place, not scaled. Barriers before and after.
template <int R> __device__ __forceinline__ void hb_to_floats(const hb_block<R> &k)
{
    constexpr int MINE = HB_SLOTS<R> / 16 / HB_SPLIT<R>;
    const hb_lane me = k.me;
    float re[MINE][4][4] = {}, im[1][4][4];
    hb_outer_back<R, false, MINE>(re, im, k.planes, k.matrix, me.half * MINE, me);
    __syncthreads();              // everybody has read the planes
#pragma unroll
    for (int i = 0; i < MINE; i++)
#pragma unroll
        for (int x = 0; x < 4; x++) {
            const int slot = 16 * (me.half * MINE + i) + me.g + x / 2 * 8;
            ((float4 *)k.planes)[hb_four_at(slot, 8 * me.group + 4 * (x % 2) + me.q)] =
                make_float4(re[i][0][x], re[i][1][x], re[i][2][x], re[i][3][x]);
        }
    __syncthreads();
}

// Calls f(row, n, e) for four neighbours at a time of the tile's rows: e[i] the results at n + i as
// signals, 0 from L on. scale: of the one row, where there is one.
template <int R, class F>
__device__ __forceinline__ void hb_from_floats(const hb_block<R> &k, int b0, int B, int L,
                                               float undo, float scale, F f)
{
    const float4 *const row = (const float4 *)k.planes;
#pragma unroll 1
    for (int i = threadIdx.x; i < HB_SLOTS<R> * 64; i += HB_ROWS_THREADS<R>) {
        const int slot = i / 64, b = b0 + hb_row_of<R>(slot), n = slot % R * 256 + i % 64 * 4;
        if (b >= B || n >= L) continue;
        const float by = undo
            / (R < 16 ? hb_row_scale<float>(k.peaks, hb_row_of<R>(slot)) : scale);
        const float4 x = row[hb_four_at(slot, i % 64)];
        float4 y = make_float4(0, 0, 0, 0);
        if (n + 4 < L) y = row[hb_four_at((i + 1) / 64, (i + 1) % 64)];
        float e[6] = { x.x, x.y, x.z, x.w, y.x, y.y };
#pragma unroll
        for (int t = 0; t < 6; t++) e[t] = n + t < L ? e[t] * by : 0.0f;
        f(b, n, e);
    }
}

// From z: dpost and its filter's gradients.
template <class T, int R>
__device__ __forceinline__ void hb_back_post(const hb_block<R> &k, const hb_fused_dh &job,
                                             int64_t c, int b0, float scale, hb_gate_sums &sum)
{
    const struct hb_conv_gate &g = job.gates.post;
    hb_from_floats<R>(k, b0, job.B, job.L, job.undo[c], scale, [&](int b, int n, float (&e)[6]) {
        float dy[8], x[6];
        hb_window(dy, (const T *)job.dy + c * job.sdy.c + b * job.sdy.b, n, job.L);
        hb_window(x, (const T *)g.x + c * g.sx.c + b * g.sx.b, n, job.L);
#pragma unroll
        for (int t = 0; t < 6; t++) e[t] *= dy[2 + t];
        hb_filter_back((T *)g.dx + c * g.sdx.c + b * g.sdx.b, sum.post, e, x, k.taps[HB_TAP_POST],
                       n, job.L);
    });
}

// From dr: du, dpre and their filters' gradients; dd. dy, post: the factors of g.
template <class T, int R>
__device__ __forceinline__ void hb_back_pre(const hb_block<R> &k, const hb_fused_dh &job, int64_t c,
                                            int b0, float scale, const hb_factor &dy,
                                            const hb_factor &post, hb_gate_sums &sum)
{
    const struct hb_conv_gate &g = job.gates.pre;
    hb_from_floats<R>(k, b0, job.B, job.L, job.undo[c], scale, [&](int b, int n, float (&e)[6]) {
        float x[8], r[6], to_pre[6];
        hb_window(x, (const T *)job.u + c * job.su.c + b * job.su.b, n, job.L);
        hb_filter(r, x, k.taps[HB_TAP_U], n);
        if (g.x) {
            float y[8], pre[6];
            hb_window(y, (const T *)g.x + c * g.sx.c + b * g.sx.b, n, job.L);
            hb_filter(pre, y, k.taps[HB_TAP_PRE], n);
#pragma unroll
            for (int t = 0; t < 6; t++) {
                to_pre[t] = e[t] * r[t];
                e[t] *= pre[t];
                r[t] *= pre[t];
            }
            hb_filter_back((T *)g.dx + c * g.sdx.c + b * g.sdx.b, sum.pre, to_pre, y,
                           k.taps[HB_TAP_PRE], n, job.L);
        }
        hb_filter_back((T *)job.du + c * job.sdu.c + b * job.sdu.b, sum.u, e, x, k.taps[HB_TAP_U],
                       n, job.L);
        if (!job.dd) return;
        float v[4];
        hb_product4<T>(v, dy, post, c, b, n, job.L);
#pragma unroll
        for (int t = 0; t < 4; t++) sum.dd += v[t] * r[t];
    });
}

// The block's sums to the gradients of channel c. Uses the planes; a barrier before and after.
template <int R>
__device__ __forceinline__ void hb_gate_totals(const hb_block<R> &k, const hb_fused_dh &job,
                                               int64_t c, const hb_gate_sums &sum)
{
    constexpr int WARPS = HB_ROWS_THREADS<R> / 32;
    float *const part = (float *)k.planes, *const total = part + WARPS * HB_GATE_SUMS;
    const float *const mine = (const float *)&sum;
#pragma unroll
    for (int i = 0; i < HB_GATE_SUMS; i++) {
        float x = mine[i];
#pragma unroll
        for (int w = 1; w < 32; w *= 2) x += __shfl_xor_sync(~0u, x, w);
        if (k.me.lane == 0) part[(threadIdx.x >> 5) * HB_GATE_SUMS + i] = x;
    }
    __syncthreads();
    if (threadIdx.x < HB_GATE_SUMS) {
        float x = 0;
        for (int w = 0; w < WARPS; w++) x += part[w * HB_GATE_SUMS + threadIdx.x];
        total[threadIdx.x] = x;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        hb_tap_gradients(job.gates.u, total, c, job.K);
        if (job.gates.pre.x) hb_tap_gradients(job.gates.pre.tap, total + 5, c, job.K);
        if (job.gates.post.x) hb_tap_gradients(job.gates.post.tap, total + 10, c, job.K);
        if (job.dd) job.dd[c] += total[15];
    }
    __syncthreads();
}

// dh[s] += sum_b sum_n dy[n] u[n - s]; dd += the sum at s = 0; GATED: everything else, too. Any
// grid: block j does channels j, j + grid, ..., the batch in order. Sums over the batch in f32:
// 4096 conj(U) DY / N^2.
template <class T, int R, bool GATED>
__global__ void __launch_bounds__(HB_ROWS_THREADS<R>, HB_DH_BLOCKS<R>) hb_rows_dh(hb_fused_dh job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int SLOTS = HB_SLOTS<R>, WARPS = HB_ROWS_THREADS<R> / 32, OWN = SLOTS / WARPS;
    constexpr int KT = SLOTS / 16, PACK = HB_PACK<R>, MINE = KT / HB_SPLIT<R>;
    constexpr int COUNT = MINE % 2 ? 1 : 2;      // row tiles at a time on the way back
    constexpr bool NEAR = HB_DH_NEAR<R>;
    constexpr int UNROLL = NEAR ? OWN : 1;      // registers are no array
    hb_block<R> k;
    hb_block_init<R>(k, shared, job.matrix);
    const hb_lane me = k.me;
    const uint32_t planes = hb_shared_address(k.planes);
    const int warp = threadIdx.x >> 5;
    float4 *const sums = NEAR ? (float4 *)(shared + HB_ROWS_SHARED<R>)
                              : job.scratch + blockIdx.x * (int64_t)(HB_DH_SCRATCH<R> / 16);
    uint4 *const far = (uint4 *)(sums + HB_DH_SUMS<R> / 16) + me.lane;   // not NEAR
    using PEAK = std::conditional_t<GATED, float, T>;
    const hb_factor u_ = { job.u, job.su, k.taps + HB_TAP_U };           // GATED
    const hb_factor pre = { job.gates.pre.x, job.gates.pre.sx, k.taps + HB_TAP_PRE };
    const hb_factor dy = { job.dy, job.sdy, k.taps + HB_TAP_NONE };
    const hb_factor post = { job.gates.post.x, job.gates.post.sx, k.taps + HB_TAP_POST };
    for (int64_t c = blockIdx.x; c < job.D; c += gridDim.x) {
        const uint4 *const spectrum = job.spectrum + c * R * 64 + me.lane;
        hb_gate_sums gates = {};
        float lag0 = 0;
        if constexpr (GATED) {
            hb_filters_init(k.taps, job.gates, c, job.K);
            __syncthreads();
        }
        for (int b0 = 0; b0 < job.B; b0 += PACK) {
            float scale[2], f[PACK > 1 ? OWN : 1];
            uint4 u[NEAR ? OWN : 1][2];
            if constexpr (GATED)
                hb_enter_product<T, R>(k, u_, pre, c, b0, job.B, job.L, scale);
            else
                hb_enter<T, R>(k, job.u, job.su, c, b0, job.B, job.L, scale);
            __syncthreads();
            f[0] = 1 / scale[0];
            {
            const hb_inner inner = hb_inner_of(k);
#pragma unroll UNROLL
            for (int i = 0; i < OWN; i++) {
                hb_tile z;
                hb_inner_there(z, inner, planes, HB_PLANE<R>, warp + i * WARPS, me);
                hb_halve(u[NEAR ? i : 0], z);
                if constexpr (!NEAR) {
                    far[(warp + i * WARPS) * 64] = u[0][0];
                    far[(warp + i * WARPS) * 64 + 32] = u[0][1];
                }
                if constexpr (PACK > 1)
                    f[i] = 1 / hb_row_scale<PEAK>(k.peaks, hb_row_of<R>(warp + i * WARPS));
                if constexpr (GATED) {
                    if (!post.x) continue;
                    hb_times(z, spectrum + (warp + i * WARPS) % R * 64, false, 1);
                    __syncwarp();             // everybody has read the slot
                    hb_inner_back<R, false>(k.planes, z, inner, warp + i * WARPS, me);
                }
            }
            }
            __syncthreads();      // peaks and planes have been read; or the planes are full again
            if constexpr (GATED) {
                if (post.x) {
                    hb_to_floats<R>(k);
                    hb_back_post<T, R>(k, job, c, b0, scale[0], gates);
                    __syncthreads();
                }
                hb_enter_product<T, R>(k, dy, post, c, b0, job.B, job.L, scale);
                if (pre.x) hb_prefetch<T, R>(pre.x, pre.s, c, b0 + PACK, job.B, job.L);
                if (post.x) hb_prefetch<T, R>(post.x, post.s, c, b0 + PACK, job.B, job.L);
            } else {
                hb_enter<T, R>(k, job.dy, job.sdy, c, b0, job.B, job.L, scale);
                if (job.dd) lag0 += hb_dot<T, R>(job, c, b0);
            }
            hb_prefetch<T, R>(job.u, job.su, c, b0 + PACK, job.B, job.L);
            hb_prefetch<T, R>(job.dy, job.sdy, c, b0 + PACK, job.B, job.L);
            __syncthreads();
            const hb_inner inner = hb_inner_of(k);
#pragma unroll UNROLL
            for (int i = 0; i < OWN; i++) {
                const int slot = warp + i * WARPS;
                hb_tile z;
                hb_inner_there(z, inner, planes, HB_PLANE<R>, slot, me);
                if constexpr (!NEAR) {
                    u[0][0] = far[slot * 64];
                    u[0][1] = far[slot * 64 + 32];
                }
                const float g = PACK > 1
                    ? f[PACK > 1 ? i : 0] / hb_row_scale<PEAK>(k.peaks, hb_row_of<R>(slot))
                    : f[0] / scale[0];
                hb_correlate(sums + slot * 128 + me.lane, u[NEAR ? i : 0], z, g, b0 == 0);
                if constexpr (GATED) {
                    hb_times(z, spectrum + slot % R * 64, true, 1);
                    __syncwarp();
                    hb_inner_back<R, false>(k.planes, z, inner, slot, me);
                }
            }
            __syncthreads();      // the next tile may write peaks; or the planes are full again
            if constexpr (GATED) {
                hb_to_floats<R>(k);
                hb_back_pre<T, R>(k, job, c, b0, scale[0], dy, post, gates);
                __syncthreads();
            }
        }
        if constexpr (GATED) hb_gate_totals<R>(k, job, c, gates);
        const float all = hb_sums_scale<R>(k, sums, lag0);
        const hb_inner inner = hb_inner_of(k);
#pragma unroll 1
        for (int slot = warp; slot < SLOTS; slot += WARPS) {
            hb_tile z = {};
            if (slot < R)
#pragma unroll
                for (int i = 0; i < PACK; i++)
                    hb_take(z, sums + (slot + i * R) * 128 + me.lane, all, i > 0);
            hb_inner_back<R, false>(k.planes, z, inner, slot, me);
        }
        __syncthreads();
        const float undo = 4 * (256.0f * R / 4096) / all;
#pragma unroll 1
        for (int mt = me.half * MINE; mt < (me.half + 1) * MINE; mt += COUNT) {
            float re[COUNT][4][4] = {}, im[1][4][4];
            hb_outer_back<R, false, COUNT>(re, im, k.planes, k.matrix, mt, me);
#pragma unroll
            for (int i = 0; i < COUNT; i++)
#pragma unroll
                for (int x = 0; x < 16; x++) {      // t, then e, then h
                    const int slot = 16 * (mt + i) + me.g + x / 8 * 8;
                    const int n = slot * 256 + 32 * me.group + x / 4 % 2 * 16 + 4 * me.q + x % 4;
                    if (slot >= R || n >= job.L) continue;
                    job.dh[c * job.L + n] += re[i][x % 4][x / 8 * 2 + x / 4 % 2] * undo;
                }
        }
        if (!GATED && job.dd && threadIdx.x == 0) job.dd[c] += lag0;
        __syncthreads();          // the next channel may write planes
    }
}

#endif
