// rows_dh.cuh: the filter's gradient of rows that fit into one block (rows.cuh).
//     dh[s] += sum_b sum_n dy[n] u[n - s]     dd += sum_b sum_n dy[n] u[n]
// Method    For each row of the batch in order: transforms of u (kept as half2) and of dy, sums of
//           conj(U) DY in f32, in the order of the fragments, so that a lane has its own; then one
//           transform back. Nothing depends on the order of execution. dd: a sum of its own.
// Cost      a sample of u: mma as forward twice there; L2 4 bytes again for dd; R >= 96 24 more for
//           sums and U. Predicted 5 ps (R <= 64); 9 ps above, where registers spill, too.
#ifndef HB_FUSED_ROWS_DH_CUH
#define HB_FUSED_ROWS_DH_CUH

#include "rows.cuh"

struct hb_fused_dh {
    const void *dy;  struct hb_strides sdy;
    const void *u;   struct hb_strides su;
    float *dh, *dd;            // (D,L) +=, (D) += or NULL
    const uint4 *matrix;
    float4 *scratch;           // R >= 96: HB_DH_SCRATCH bytes a block; else unused
    int B, D, L;
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

// dh[s] += sum_b sum_n dy[n] u[n - s]; dd += the sum at s = 0. Any grid: block j does channels j,
// j + grid, ..., the batch in order. Sums over the batch in f32: 4096 conj(U) DY / N^2.
template <class T, int R>
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
    for (int64_t c = blockIdx.x; c < job.D; c += gridDim.x) {
        float lag0 = 0;
        for (int b0 = 0; b0 < job.B; b0 += PACK) {
            float scale[2], f[PACK > 1 ? OWN : 1];
            uint4 u[NEAR ? OWN : 1][2];
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
                    f[i] = 1 / hb_row_scale<T>(k.peaks, hb_row_of<R>(warp + i * WARPS));
            }
            }
            __syncthreads();      // peaks and planes have been read
            hb_enter<T, R>(k, job.dy, job.sdy, c, b0, job.B, job.L, scale);
            hb_prefetch<T, R>(job.u, job.su, c, b0 + PACK, job.B, job.L);
            hb_prefetch<T, R>(job.dy, job.sdy, c, b0 + PACK, job.B, job.L);
            if (job.dd) lag0 += hb_dot<T, R>(job, c, b0);
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
                    ? f[PACK > 1 ? i : 0] / hb_row_scale<T>(k.peaks, hb_row_of<R>(slot))
                    : f[0] / scale[0];
                hb_correlate(sums + slot * 128 + me.lane, u[NEAR ? i : 0], z, g, b0 == 0);
            }
            __syncthreads();      // the next tile may write peaks
        }
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
        if (job.dd && threadIdx.x == 0) job.dd[c] += lag0;
        __syncthreads();          // the next channel may write planes
    }
}

#endif
