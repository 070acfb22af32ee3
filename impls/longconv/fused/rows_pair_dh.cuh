// rows_pair_dh.cuh: all gradients of short rows without gates, R = 4, 8, 16, with rows_pair.cuh's
// tables and tiles.
//     du = adjoint of dy     dh[s] += sum_b sum_n dy[n] u[n - s]     dd += sum_b sum_n dy[n] u[n]
// Method    A tile is 16 slots of u and, 16 further, the same of dy. A warp does a slot of both:
//           adds conj(U) DY to its sums, in registers, and sends DY times conj(H) back; du takes
//           dy's place. A block does a channel, the batch in order; at its end the sums go back.
//           Barriers a tile: as hb_rows_pair's. dd: a sum of its own, as in rows_dh.cuh.
// Cost      as hb_rows_pair. A sample of u: about 88 instructions (SASS, counted). Measured: R 16
//           1.10 ms for 201M samples, R 8 .576 ms for 101M.
// Accuracy  as rows_dh.cuh.
#ifndef HB_FUSED_ROWS_PAIR_DH_CUH
#define HB_FUSED_ROWS_PAIR_DH_CUH

#include "rows_dh.cuh"
#include "rows_pair.cuh"

// This thread's part of the sum of the products of both signals of a tile.
template <class T>
__device__ __forceinline__ float hb_pair_dot(const hb_pairs &k, int buffer)
{
    const unsigned char *const at = k.shared + HB_PAIR_TILES + buffer * HB_PAIR_PLANE + k.chunk;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint4 a = *(const uint4 *)(at + 4096 * i), b = *(const uint4 *)(at + 4096 * (i + 2));
        sum += hb_product<T>(a.x, b.x) + hb_product<T>(a.y, b.y) + hb_product<T>(a.z, b.z)
             + hb_product<T>(a.w, b.w);
    }
    return sum;
}

// sum += conj(u) dy f
__device__ __forceinline__ void hb_pair_correlate(hb_tile &sum, const hb_tile &u, const hb_tile &dy,
                                                  float f)
{
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 x = hb_cmul(make_float2(dy.re[t][i], dy.im[t][i]),
                                     make_float2(u.re[t][i], -u.im[t][i]));
            sum.re[t][i] += x.x * f;
            sum.im[t][i] += x.y * f;
        }
}

// Where a warp's i-th slot lies in the planes; its k1.
__device__ __forceinline__ uint32_t hb_pair_planes(const hb_pairs &k, int i)
{
    return k.base + hb_place(k.warp, 2 * (k.lane & 15) + (k.lane >> 4)) + 4096 * i;
}

template <int R> __device__ __forceinline__ int hb_pair_k1(const hb_pairs &k, int i)
{
    return R == 16 ? k.warp + 8 * i : k.warp % R;
}

// Step 2 of hb_rows_pair for both signals; sum: of the slots warp and warp + 8.
template <class T, int R>
__device__ __forceinline__ void hb_pair_rows_dh(const hb_pairs &k, hb_inner inner,
                                                hb_tile (&sum)[2], const uint4 *spectrum,
                                                int buffer)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t at = hb_pair_planes(k, i);
        const int k1 = hb_pair_k1<R>(k, i), turns = HB_PAIR_TURNS + 2048 * k1;
        const int slot = k.warp + 8 * i;
        const uint4 h[2] = { hb_flipped(spectrum[64 * k1], 0x80000000u),
                             hb_flipped(spectrum[64 * k1 + 32], 0x80000000u) };
        hb_tile z[2];
        hb_pair_turn<false>(inner.w, k.shared, turns + k.there);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            uint32_t xr[4], xi[4];
            hb_load_trans(xr, at + 8192 * m);
            hb_load_trans(xi, at + 8192 * m + HB_PAIR_PLANE);
            hb_inner_forth(z[m], inner, xr, xi);
        }
        hb_pair_correlate(sum[i], z[0], z[1],
                          hb_inverse(hb_pair_scale<T, R>(k, buffer, slot))
                              * hb_inverse(hb_pair_scale<T, R>(k, buffer, slot + 16)));
        hb_times(z[1], h, 1);
        hb_pair_turn<true>(inner.w, k.shared, turns + k.back);
        hb_inner_and_back(z[0], inner, z[1]);
        hb_store_tiles(at + 8192, z[0].re);
        hb_store_tiles(at + 8192 + HB_PAIR_PLANE, z[0].im);
    }
}

// Sum of all |z| of the block's sums, and lag0 of all threads. part: 16 floats; a barrier.
__device__ __forceinline__ float hb_pair_size(const hb_pairs &k, const hb_tile (&sum)[2],
                                              float *part, float &lag0)
{
    float all = 0;
#pragma unroll
    for (int i = 0; i < 16; i++)
        all += fabsf(sum[i / 8].re[i / 4 % 2][i % 4]) + fabsf(sum[i / 8].im[i / 4 % 2][i % 4]);
#pragma unroll
    for (int x = 1; x < 32; x *= 2) {
        all += __shfl_xor_sync(~0u, all, x);
        lag0 += __shfl_xor_sync(~0u, lag0, x);
    }
    if (k.lane == 0) {
        part[k.warp] = all;
        part[8 + k.warp] = lag0;
    }
    __syncthreads();
    all = lag0 = 0;
    for (int w = 0; w < 8; w++) {
        all += part[w];
        lag0 += part[8 + w];
    }
    return all;
}

// dh[c] += transform back of the sums. The sums of rows with the same k1 meet in the planes' place.
// A barrier before.
template <int R>
__device__ __forceinline__ void hb_pair_dh_leave(const hb_pairs &k, hb_inner inner,
                                                 hb_tile (&sum)[2], float all, float *dh, int L)
{
    float4 *const there = (float4 *)k.shared + k.lane;
#pragma unroll
    for (int i = 0; i < 8; i++) {                // slot, t, part
        const float (&v)[4] = i % 2 ? sum[i / 4].im[i / 2 % 2] : sum[i / 4].re[i / 2 % 2];
        there[(k.warp + 8 * (i / 4)) * 128 + 32 * (i % 4)] = make_float4(v[0], v[1], v[2], v[3]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int slot = k.warp + 8 * i;
        sum[i] = {};
        if (slot < R)
#pragma unroll
            for (int j = 0; j < 16 / R; j++)
                hb_take(sum[i], there + (slot + j * R) * 128, all, j > 0);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        hb_tile x;
        hb_pair_turn<true>(inner.w, k.shared,
                           HB_PAIR_TURNS + 2048 * hb_pair_k1<R>(k, i) + k.back);
        hb_inner_and_back(x, inner, sum[i]);
        hb_store_tiles(hb_pair_planes(k, i), x.re);
        hb_store_tiles(hb_pair_planes(k, i) + HB_PAIR_PLANE, x.im);
    }
    __syncthreads();
    const float undo = 4 * (256.0f * R / 4096) * R * hb_inverse(all);
    float old[2][8];                             // read at once, as a store would hold up a load
    int n[2][8];
#pragma unroll
    for (int i = 0; i < 16; i++) {               // e, t, h, column
        const int x = i % 8, slot = k.lane / 4 + x / 2 % 2 * 8;
        const int r = 32 * k.warp + 16 * (i / 8) + x / 4 * 8 + 2 * (k.lane & 3) + x % 2;
        n[i / 8][x] = slot < R ? slot * 256 + r : L;
        old[i / 8][x] = n[i / 8][x] < L ? dh[n[i / 8][x]] : 0;
    }
#pragma unroll
    for (int e = 0; e < 2; e++) {
        uint32_t gr[4], gi[4];
        float re[2][4] = {};
        hb_pair_matrix_back(gr, gi, k, e);
        hb_pair_results(re, gr, gi, k.base + (k.at ^ 32 * e));
#pragma unroll
        for (int x = 0; x < 8; x++)
            if (n[e][x] < L) dh[n[e][x]] = old[e][x] + re[x / 4][x % 4] * undo;
    }
}

// Grid D, block 256, shared HB_PAIR_SHARED. job.matrix: hb_pair_tables. The loop is hb_rows_pair's.
template <class T, int R>
__global__ void __launch_bounds__(256, 2) hb_rows_pair_dh(hb_fused_dh job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    hb_pairs k;
    hb_inner inner;
    unsigned *const peaks = hb_pair_begin<R>(k, inner, shared, job.matrix);
    const int64_t c = blockIdx.x;
    const hb_pair_signal in[2] = { { job.u, job.su }, { job.dy, job.sdy } };
    const hb_pair_signal out = { job.du, job.sdu };
    const bool whole_in = hb_pair_whole(job.u, job.su) && hb_pair_whole(job.dy, job.sdy);
    const bool whole_out = hb_pair_whole(job.du, job.sdu) && job.L % 8 == 0;
    const uint4 *const spectrum = job.spectrum + c * (64 * R) + k.lane;
    const float undo = job.undo[c], skip = job.d ? job.d[c] : 0;
    hb_tile sum[2] = {};
    float lag0 = 0;
    hb_pair_fetch<R>(k, 0, in, job.B, job.L, { c, 0 }, whole_in);
    __syncthreads();              // no peaks, and the tables
#pragma unroll 1
    for (int b0 = 0, buffer = 0;; b0 += 16 / R, buffer ^= 1) {
        if (b0 < job.B) {
            hb_copied();
            if (!whole_in) {
                __syncthreads();  // everybody's copies
                hb_pair_shift<R>(k, buffer, in, job.B, { c, b0 });
            }
            hb_pair_measure<R>(k, buffer);
            if (job.dd) lag0 += hb_pair_dot<T>(k, buffer);
        }
        __syncthreads();
        if (b0 > 0)
            hb_pair_leave<R, 2>(k, buffer ^ 1, out, job.B, job.L, { c, b0 - 16 / R }, whole_out);
        if (b0 >= job.B) break;
        hb_pair_enter<T, R>(k, buffer);
        if (threadIdx.x < 8) peaks[8 * (buffer ^ 1) + threadIdx.x] = 0;
        __syncthreads();
        if (b0 + 16 / R < job.B)
            hb_pair_fetch<R>(k, buffer ^ 1, in, job.B, job.L, { c, b0 + 16 / R }, whole_in);
        hb_pair_rows_dh<T, R>(k, inner, sum, spectrum, buffer);
        __syncthreads();
        hb_pair_back<T, R, 2>(k, buffer, undo, skip);
    }
    const float all = hb_fused_scale(hb_pair_size(k, sum, (float *)peaks, lag0), 15);
    hb_pair_dh_leave<R>(k, inner, sum, all, job.dh + c * job.L, job.L);
    if (job.dd && threadIdx.x == 0) job.dd[c] += lag0;
}

#endif
