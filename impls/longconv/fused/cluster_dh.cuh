// cluster_dh.cuh: all gradients of rows in a cluster of blocks in one kernel (cluster.cuh), CUDA.
//     du = correlation of h and dy + d dy, dh += sum over the batch of that of u and dy, dd
#ifndef HB_FUSED_CLUSTER_DH_CUH
#define HB_FUSED_CLUSTER_DH_CUH

#include "cluster_steps.cuh"
#include "cluster_units.cuh"

struct cluster_dh_job {
    struct cluster_job du;     // as of cluster_rows: du from dy; d is in no spectrum
    const void *u;   struct hb_strides su;
    float *dh, *dd;            // (D,L) +=, (D) += or NULL
    uint4 *kept;               // [cluster] as the spectrum: transforms of u
    int between;               // R = 32: 16: the spectrum is that of clusters of K / 2 with R = 64;
                               // 0: of these
};

// The spectrum of clusters of H = K / 2 with R = 64 has all that those of K with R = 32 want:
// k = j + K k' = j % H + H (2 k' + j / H), and so, rows being class by class in both, row p of
// block j is row p + (p & 16) + 16 (j / H) of block j % H. Of this lane: row 0.
template <class S>
__device__ __forceinline__ const uint4 *cluster_spectrum_of(const cluster_dh_job &job,
                                                            const cluster_block &k, int64_t c)
{
    constexpr int K = S::K, R = S::R, HALF = K / 2;
    int64_t row = (c * K + k.rank) * R;
    if (R == 32 && job.between)
        row = (c * HALF + k.rank % HALF) * 2 * R + k.rank / HALF * 16;
    return job.du.spectrum + row * 64 + k.me.lane;
}

// Where the sums of tile t of a slot are: real parts; 32 further, imaginary.
__device__ __forceinline__ float4 *cluster_sums(const cluster_block &k, int slot, int t)
{
    return k.sums + (slot * 4 + 2 * t) * 32 + k.me.lane;
}

// to += by x; start: = instead.
__device__ __forceinline__ void cluster_plus(float4 &to, const float (&x)[4], float by, bool start)
{
    float4 v = make_float4(0, 0, 0, 0);
    if (!start) v = to;
    to = make_float4(v.x + by * x[0], v.y + by * x[1], v.z + by * x[2], v.w + by * x[3]);
}

// sums += conj(u) z by; u as hb_keep left it. start: = instead.
__device__ __forceinline__ void cluster_correlate(const cluster_block &k, const hb_tile &z,
                                                  const uint4 (&u)[2], int slot, float by,
                                                  bool start)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        uint32_t v[4];
        float re[4], im[4];
        hb_fragment(v, u[t]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 x = hb_cmul(hb_conj(hb_unpack(v[i])),
                                     make_float2(z.re[t][i], z.im[t][i]));
            re[i] = x.x;
            im[i] = x.y;
        }
        float4 *const at = cluster_sums(k, slot, t);
        cluster_plus(at[0], re, by, start);
        cluster_plus(at[32], im, by, start);
    }
}

// Of a slot the transform of u, as hb_keep left it, and the spectrum of h, for this lane. They are
// asked for a slot ahead.
struct cluster_spectra_of { uint4 u[2], h[2]; };

__device__ __forceinline__ void cluster_spectra_load(cluster_spectra_of &x, const uint4 *u,
                                                     const uint4 *h, int slot, int between)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        x.u[t] = u[slot * 64 + 32 * t];
        x.h[t] = h[(slot + (slot & between)) * 64 + 32 * t];
    }
}

// z = sums, scaled.
__device__ __forceinline__ void cluster_summed(hb_tile &z, const cluster_block &k, int slot,
                                               float scale)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        const float4 re = cluster_sums(k, slot, t)[0], im = cluster_sums(k, slot, t)[32];
        const float a[4] = { re.x, re.y, re.z, re.w }, b[4] = { im.x, im.y, im.z, im.w };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            z.re[t][i] = a[i] * scale;
            z.im[t][i] = b[i] * scale;
        }
    }
}

template <class T> __device__ __forceinline__ float cluster_top(uint32_t peak)
{
    return hb_magnitude<T>(max(peak & 0xffff0000u, peak << 16));
}

// Sum dy u of this warp's samples, of each lane its part. f16: it is on the diagonal of the product
// of eight lines by eight, of four lanes each; products are exact, sums f32.
template <class T, class S>
__device__ __forceinline__ float cluster_dot(const cluster_part<S::K> (&u)[CLUSTER_UNITS<S>],
                                             const cluster_part<S::K> (&dy)[CLUSTER_UNITS<S>],
                                             hb_lane me)
{
    float sum = 0, c[2][4] = {};
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++)
#pragma unroll
        for (int s = 0; s < S::K / 4; s++)
#pragma unroll
            for (int w = 0; w < 4; w += 2) {
                const uint32_t (&v)[4] = u[m][s].x, (&z)[4] = dy[m][s].x;
                if constexpr (HB_IS_HALF<T>)
                    hb_mma(c[w / 2], { v[w], 0, v[w + 1], 0 }, z[w], z[w + 1]);
                else
                    sum += hb_product<T>(v[w], z[w]) + hb_product<T>(v[w + 1], z[w + 1]);
            }
    if (me.q == me.g / 2) sum += me.g % 2 ? c[0][1] + c[1][1] : c[0][0] + c[1][0];
    return sum;
}

// Row b of u there; dot += sum dy u of this thread's samples. Returns the scales of u and dy.
template <class T, class S>
__device__ __forceinline__ float2 cluster_first(cluster_block &k, const hb_factor &u,
                                                const hb_factor &dy, int64_t c, int64_t b, int L,
                                                float &dot)
{
    cluster_part<S::K> x[CLUSTER_UNITS<S>], y[CLUSTER_UNITS<S>];
    cluster_enter_units<T, S>(x, k, u, c, b, L);
    cluster_enter_units<T, S>(y, k, dy, c, b, L);
    uint32_t peak_u = 0, peak_dy = 0;
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++)
#pragma unroll
        for (int s = 0; s < S::K / 4; s++)
#pragma unroll
            for (int w = 0; w < 4; w++) {
                const uint32_t v = x[m][s].x[w], z = y[m][s].x[w];
                peak_u = __vmaxu2(peak_u, v & 0x7fff7fffu);
                peak_dy = __vmaxu2(peak_dy, z & 0x7fff7fffu);
            }
    dot += cluster_dot<T, S>(x, y, k.me);
    const float2 top = cluster_together<float, S, false>(
        k, 0, make_float2(cluster_top<T>(peak_u), cluster_top<T>(peak_dy)));
    const float2 scale = make_float2(fminf(hb_fused_scale(top.x, 10), 0x1p30f),
                                     fminf(hb_fused_scale(top.y, 10), 0x1p30f));
    cluster_send_units<T, S>(k, x, scale.x);
    return scale;
}

// Row b of dy there after it.
template <class T, class S>
__device__ __forceinline__ void cluster_second(cluster_block &k, const hb_factor &dy, int64_t c,
                                               int64_t b, int L, float scale)
{
    cluster_part<S::K> y[CLUSTER_UNITS<S>];
    cluster_enter_units<T, S>(y, k, dy, c, b, L);
    cluster_meet();               // everybody has taken u's transform from the planes
    cluster_send_units<T, S>(k, y, scale);
}

// dh += of a channel from the sums: at most 2^15 on the way back, as mma.cuh's head says of y.
template <class S>
__device__ __forceinline__ void cluster_return(cluster_block &k, float *dh, int L)
{
    cluster_meet();               // everybody has the last row: its planes are free
    float2 mark = make_float2(0, 0);
    for (int slot = k.warp; slot < S::R; slot += S::WARPS) {
        hb_tile z;
        cluster_summed(z, k, slot, 1);
#pragma unroll
        for (int x = 0; x < 8; x++) mark.y += fabsf(z.re[x / 4][x % 4]) + fabsf(z.im[x / 4][x % 4]);
    }
    const float scale = hb_fused_scale(cluster_together<float, S>(k, 0, mark).y, 15);
    cluster_slots<S>(k, [&](hb_tile &z, const hb_inner &, int slot) {
        cluster_summed(z, k, slot, scale);
    });
    __syncthreads();
    cluster_outer<S, true>(k);
    cluster_meet();               // planes hold w
    const float by = S::K * S::R / (4 * CLUSTER_TOP * CLUSTER_TOP) / scale;
#pragma unroll 1
    for (int unit = k.warp; unit < 4 * S::R / S::K; unit += S::WARPS) {
        float v[S::K / 4][8];
        int n[S::K / 4];
        uint32_t z[2][S::K / 4][4];
        cluster_fetch_words<S>(z, k, unit);
        cluster_back_unit<S>(v, k, z, unit, by);
        cluster_lane_samples<S>(n, unit, k);
#pragma unroll
        for (int s = 0; s < S::K / 4; s++)
#pragma unroll
            for (int w = 0; w < 8; w++)
                if (n[s] + w < L) dh[n[s] + w] += v[s][w];
    }
}

// du = adjoint, dh += sum over the batch, in order, of conj(U) DY, dd += sum of dy u. Grid: as
// many clusters of K as run at a time, or D; the rest as cluster_rows. Two transforms and one way
// back a row, and one more way back a channel.
template <class T, class S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS) cluster_gradients(cluster_dh_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int K = S::K, R = S::R;
    cluster_block k;
    cluster_begin<S>(k, shared);
    cluster_init<S>(k, job.du.matrix);
    uint4 *const kept = job.kept + (int64_t)blockIdx.x * R * 64 + k.me.lane;
    const int L = job.du.L;
    const hb_factor u = { job.u, job.su, NULL }, dy = { job.du.in, job.du.si, NULL };
    const int between = R == 32 ? job.between : 0;
    cluster_dft_init<S>(k);
    cluster_meet();               // all blocks are there, and their constants
    const int cluster = blockIdx.x / K, clusters = gridDim.x / K;
    for (int64_t c = cluster; c < job.du.D; c += clusters) {
        const uint4 *const spectrum = cluster_spectrum_of<S>(job, k, c);
        const float undo = job.du.undo[c].x;
        float dot = 0;
        for (int b = 0; b < job.du.B; b++) {
            cluster_know(k);
            const float2 scale = cluster_first<T, S>(k, u, dy, c, b, L, dot);
            const bool more = b + 1 < job.du.B;
            const int64_t next = more ? c : c + clusters;
            if (next < job.du.D) {
                cluster_prefetch<T, S>(job.u, job.su, next, more ? b + 1 : 0, L, k.rank);
                cluster_prefetch<T, S>(job.du.in, job.du.si, next, more ? b + 1 : 0, L, k.rank);
            }
            cluster_outer<S, false>(k);
            __syncthreads();
            cluster_keep<S>(k, kept, 1);
            cluster_second<T, S>(k, dy, c, b, L, scale.y);
            cluster_outer<S, false>(k);
            __syncthreads();
            const float back = CLUSTER_IN * hb_inverse(scale.y);
            const float by = CLUSTER_IN * hb_inverse(scale.x) * back;
            cluster_spectra_of x;
            cluster_spectra_load(x, kept, spectrum, k.warp, between);
            cluster_slots<S>(k, [&](hb_tile &z, const hb_inner &inner, int slot) {
                cluster_transform<S>(z, k, inner, slot);
                cluster_correlate(k, z, x.u, slot, by, b == 0);
                hb_times<true>(z, x.h, 1);
                cluster_spectra_load(x, kept, spectrum, cluster_after<S>(slot), between);
            });
            __syncthreads();
            cluster_outer<S, true>(k);
            cluster_leave_units<T, S>(k, job.du, dy, c, b, undo * back);
        }
        cluster_return<S>(k, job.dh + c * L, L);
        if (job.dd) {
            dot = cluster_together<float, S>(k, 0, make_float2(0, dot)).y;
            if (k.rank == 0 && threadIdx.x == 0) job.dd[c] += dot;
        }
        cluster_meet();           // everybody has read the marks and what others have
    }
}
#endif
