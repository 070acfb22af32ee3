// rows_dh.cuh: all gradients of rows that fit into one block or two (rows.cuh, rows_wide.cuh).
//     dh[s] += sum_b sum_n dy[n] u[n - s]     dd += sum_b sum_n dy[n] u[n]     du = adjoint of dy
//     GATED: r = tap(u) tap(pre) for u, g = dy tap(post) for dy; and (z = h * r + d r, dr its
//     adjoint of g) dpost, dpre, du: dy z, dr tap(u), dr tap(pre), each back through its filter
// Method    For each row of the batch in order: transforms of u (kept as half2) and of dy, sums of
//           conj(U) DY in f32, in the order of the fragments, so that a lane has its own; the
//           product of DY with the spectrum goes on, back to du. At the end one transform back, of
//           the sums. Nothing depends on the order of execution. dd: a sum of its own, lag 0, whose
//           error would else be that of the largest dh.
//           GATED: u's transform, too, goes its way back, to z (the forward keeps nothing). z and
//           dr become float rows in the planes' place, in the order of time, for the filters' way
//           back: four neighbours a thread.
//           Sums are in shared memory, 8 bytes a point beside the planes' 4: that is why R >= 96
//           takes a cluster of two blocks for a row, each with half of the slots. U is in
//           registers.
// Cost      a sample of u: what forward does one and a half times, and 14 instructions: 163 at
//           R = 128 (counted by a profile). Measured at R = 128: 2.56 ms for 201M samples; when
//           each block had half of G and read the other's planes 2.87, 39 % of issue slots.
//           GATED: mma twice forward's; device memory 14 bytes (of four signals, to three), L2 12
//           more; about 230 instructions (predicted).
#ifndef HB_FUSED_ROWS_DH_CUH
#define HB_FUSED_ROWS_DH_CUH

#include <type_traits>

#include "rows_wide.cuh"

struct hb_fused_dh {
    const void *dy;  struct hb_strides sdy;
    const void *u;   struct hb_strides su;
    void *du;        struct hb_strides sdu;
    float *dh, *dd;            // (D,L) +=, (D) += or NULL
    const float *d;            // or NULL; not GATED: du += d dy
    const uint4 *matrix;
    const uint4 *spectrum;     // the forward's; GATED: with d in it
    const float *undo;
    int B, D, L;
    struct hb_conv_gates gates;              // GATED, from here on
    int K;
};

template <int R> constexpr int HB_DH_THREADS = HB_WIDE<R> ? HB_WIDE_THREADS : HB_ROWS_THREADS<R>;
template <int R> constexpr int HB_DH_BLOCKS = HB_WIDE<R> ? 1 : 2;
// Bytes: sums of a block (after what rows have), all.
template <int R> constexpr int HB_DH_SUMS = HB_PART_SLOTS<R> * 2048;
template <int R> constexpr int HB_DH_BEFORE = HB_WIDE<R> ? HB_WIDE_SHARED<R> : HB_ROWS_SHARED<R>;
template <int R> constexpr int HB_DH_SHARED = HB_DH_BEFORE<R> + HB_DH_SUMS<R>;

// --- a block, narrow or wide --------------------------------------------------------------------
template <int R>
__device__ __forceinline__ void hb_dh_init(hb_block<R> &k, unsigned char *shared,
                                           const uint4 *matrix)
{
    if constexpr (HB_WIDE<R>) hb_wide_init<R>(k, shared, matrix);
    else hb_block_init<R>(k, shared, matrix);
}

// A slot's transform back to the planes.
template <int R>
__device__ __forceinline__ void hb_dh_back(const hb_block<R> &k, const hb_tile &z,
                                           const hb_inner &inner, int slot)
{
    if constexpr (!HB_WIDE<R>) {
        hb_slot_back<R>(k, z, inner, slot);
    } else {
        const int part = k.me.half, own = slot - part * HB_PART_SLOTS<R>;
        const int r = 16 * k.me.g + 2 * k.me.q + hb_turn_from<R>(part);
        hb_inner_leave<R>(k.planes, z, inner, slot, k.me, [&] {
            const float4 a = hb_steps_in<R>(k)[own], b = hb_steps_in<R>(k)[R + own];
            return hb_steps{ hb_unit((4 * hb_k1<R>(slot, part) - 1) * r, 1024 * R),
                             make_float2(a.x, a.y), make_float2(b.x, b.y),
                             make_float2(b.z, b.w) };
        });
    }
}

// Where the i-th four of this lane's results belong: columns r .. r + 3 of a slot, slot % 16 =
// g + 8 h.
template <int R> constexpr int HB_RESULTS =
    HB_WIDE<R> ? HB_PART_SLOTS<R> / 8 : HB_SLOTS<R> / 4;
struct hb_spot { int slot, h, r; };

template <int R> __device__ __forceinline__ hb_spot hb_result_at(int i, hb_lane me)
{
    if constexpr (HB_WIDE<R>)
        return { me.half * HB_PART_SLOTS<R> + 8 * i + me.g, i % 2, 16 * me.group + 4 * me.q };
    else
        return { i / 2 * 8 + me.g, i / 2 % 2, 32 * me.group + 16 * (i % 2) + 4 * me.q };
}

// Outer step back: f(i, v) for the lane's results; before that, when this thread has read what it
// needs of shared memory, between(). meanwhile(): where loads have time to come.
template <int R, class MEANWHILE, class BETWEEN, class F>
__device__ __forceinline__ void hb_results(const hb_block<R> &k, MEANWHILE meanwhile,
                                           BETWEEN between, F f)
{
    if constexpr (HB_PARTS<R> == 2) {
        float v[HB_RESULTS<R>][4];
        hb_half_results<R>(v, k, meanwhile);
        between();
#pragma unroll
        for (int i = 0; i < HB_RESULTS<R>; i++) f(i, v[i]);
    } else if constexpr (HB_WIDE<R>) {
        meanwhile();
        float re[R / 16][2][4] = {};
        hb_wide_back<R>(re, k);
        between();
#pragma unroll
        for (int i = 0; i < HB_RESULTS<R>; i++) {
            const int h = i % 2;
            const float v[4] = { re[i / 2][0][2 * h], re[i / 2][1][2 * h],
                                 re[i / 2][0][2 * h + 1], re[i / 2][1][2 * h + 1] };
            f(i, v);
        }
    } else {
        meanwhile();
        constexpr int MT = HB_SLOTS<R> / 16;
        float re[MT][4][4] = {}, im[1][4][4];
        hb_outer_back<R, false, MT>(re, im, k.planes, k.matrix, 0, k.me);
        between();
#pragma unroll
        for (int i = 0; i < HB_RESULTS<R>; i++) {
            const int x = i % 4;                 // h, e
            const float v[4] = { re[i / 4][0][x], re[i / 4][1][x], re[i / 4][2][x],
                                 re[i / 4][3][x] };
            f(i, v);
        }
    }
}

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

// Power of two that takes the sum of all |z| of the row's sums into (2^14, 2^15]: nothing on the
// way back exceeds that. lag0: summed over all threads. Uses `peaks` (32 floats); two barriers.
template <int R>
__device__ __forceinline__ float hb_sums_scale(const hb_block<R> &k, const float4 *sums,
                                               float &lag0)
{
    constexpr int WARPS = HB_DH_THREADS<R> / 32;
    const int warp = threadIdx.x >> 5;
    float *const mine = (float *)k.peaks;
    float all = 0;
#pragma unroll 1
    for (int slot = warp; slot < HB_PART_SLOTS<R>; slot += WARPS)
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
        mine[warp] = all;
        mine[16 + warp] = lag0;
    }
    hb_meet<R>();
    all = lag0 = 0;
    for (int p = 0; p < HB_PARTS<R>; p++) {
        const float *const part = hb_of_part<R>(mine, p);
        for (int w = 0; w < WARPS; w++) {
            all += part[w];
            lag0 += part[16 + w];
        }
    }
    return hb_fused_scale(all, 15);
}

// x[i / 2][i % 2]: a signal where a lane has its i-th results.
template <int R> using hb_there = uint2[HB_RESULTS<R> / 2][2];

template <class T, int R>
__device__ __forceinline__ void hb_read_there(hb_there<R> &x, const void *in,
                                              struct hb_strides si, int64_t c, int b0, int B, int L,
                                              hb_lane me)
{
    const auto read = [&](auto even) {
        hb_read_fours<T, decltype(even)::value, 2, R >= 16>(x, L, [&](int i, int j, int &n,
                                                                  bool &is) {
            const hb_spot at = hb_result_at<R>(2 * i + j, me);
            const int b = b0 + hb_row_of<R>(at.slot);
            n = at.slot % R * 256 + at.r;
            is = HB_PACK<R> == 1 || b < B;
            return (const T *)in + c * si.c + (is ? b : b0) * si.b;
        });
    };
    if (hb_even<T>(in, si, L)) read(hb_constant<1>());
    else read(hb_constant<0>());
}

// du of a tile of rows, and this thread's part of sum dy u.
template <class T, int R>
__device__ __forceinline__ void hb_leave(const hb_block<R> &k, const hb_fused_dh &job, int64_t c,
                                         int b0, const float (&scale)[2], float &lag0)
{
    const float undo = job.undo[c], skip = job.d ? job.d[c] : 0;
    const bool even = hb_even<T>(job.du, job.sdu, job.L);
    hb_there<R> u = {}, dy = {};
    const auto read = [&] {
        if (!job.d) return;
        hb_read_there<T, R>(dy, job.dy, job.sdy, c, b0, job.B, job.L, k.me);
        hb_read_there<T, R>(u, job.u, job.su, c, b0, job.B, job.L, k.me);
    };
    hb_results<R>(k, read, [] {}, [&](int i, const float (&v)[4]) {
        const hb_spot at = hb_result_at<R>(i, k.me);
        const int64_t row = b0 + hb_row_of<R>(at.slot);
        const int n = at.slot % R * 256 + at.r;
        const float f = undo * hb_inverse(scale[at.h]);
        const uint2 a = dy[i / 2][i % 2], b = u[i / 2][i % 2];
        const float2 lo = hb_two<T>(a.x), hi = hb_two<T>(a.y);
        const float x[4] = { v[0] * f + skip * lo.x, v[1] * f + skip * lo.y,
                             v[2] * f + skip * hi.x, v[3] * f + skip * hi.y };
        lag0 += hb_product<T>(a.x, b.x) + hb_product<T>(a.y, b.y);
        if (row >= job.B || n >= job.L) return;
        T *const du = (T *)job.du + c * job.sdu.c + row * job.sdu.b;
        if (even) *(uint2 *)(du + n) = hb_four_of<T>(x);
        else hb_store4(du, n, job.L, ((uintptr_t)du & 7) == 0, x);
    });
    __syncwarp();
    hb_freed<R>();    // what came from the other block is in the stores: it has been read
}

// --- gates: the way back through them ------------------------------------------------------------
// This thread's sums, over all rows of a channel.
struct hb_gate_sums { hb_tap_sums u, pre, post; float dd; };
constexpr int HB_GATE_SUMS = sizeof(hb_gate_sums) / sizeof(float);

// Results of the tile to floats in the planes' place, not scaled. Barriers before and after.
template <int R> __device__ __forceinline__ void hb_to_floats(const hb_block<R> &k)
{
    hb_results<R>(k, [] {}, [] { hb_meet<R>(); }, [&](int i, const float (&v)[4]) {
        const hb_spot at = hb_result_at<R>(i, k.me);
        *hb_fours<R>(k, at.slot, at.r / 4) = make_float4(v[0], v[1], v[2], v[3]);
    });
    hb_meet<R>();
}

// Calls f(row, n, e) for four neighbours at a time of this block's part of the tile's rows: e[i]
// the results at n + i as signals, 0 from L on. scale: of the one row, where there is one.
template <int R, class F>
__device__ __forceinline__ void hb_from_floats(const hb_block<R> &k, int b0, int B, int L,
                                               float undo, float scale, F f)
{
    const int first = hb_part<R>() * HB_PART_SLOTS<R> * 64;
#pragma unroll 1
    for (int j = threadIdx.x; j < HB_PART_SLOTS<R> * 64; j += HB_DH_THREADS<R>) {
        const int i = first + j, slot = i / 64, b = b0 + hb_row_of<R>(slot);
        const int n = slot % R * 256 + i % 64 * 4;
        if (b >= B || n >= L) continue;
        const float by = undo * hb_inverse(
            R < 16 ? hb_row_scale<float>(k.peaks, hb_row_of<R>(slot)) : scale);
        const float4 x = *hb_fours<R>(k, slot, i % 64);
        float4 y = make_float4(0, 0, 0, 0);
        if (n + 4 < L) y = *hb_fours<R>(k, (i + 1) / 64, (i + 1) % 64);
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

// All sums to the gradients of channel c. Uses the planes; a barrier before and after.
template <int R>
__device__ __forceinline__ void hb_gate_totals(const hb_block<R> &k, const hb_fused_dh &job,
                                               int64_t c, const hb_gate_sums &sum)
{
    constexpr int WARPS = HB_DH_THREADS<R> / 32;
    float *const part = (float *)hb_first<R>(k.planes, hb_part<R>());
    float *const total = part + WARPS * HB_GATE_SUMS;
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
    hb_meet<R>();
    if (threadIdx.x == 0 && hb_part<R>() == 0) {
        if (HB_PARTS<R> == 2) {
            const float *const more = hb_of_part<R>(total, 1);
            for (int i = 0; i < HB_GATE_SUMS; i++) total[i] += more[i];
        }
        hb_tap_gradients(job.gates.u, total, c, job.K);
        if (job.gates.pre.x) hb_tap_gradients(job.gates.pre.tap, total + 5, c, job.K);
        if (job.gates.post.x) hb_tap_gradients(job.gates.post.tap, total + 10, c, job.K);
        if (job.dd) job.dd[c] += total[15];
    }
    hb_meet<R>();
}

// --- the kernel ---------------------------------------------------------------------------------
// A channel: what its block, or the two of its cluster, keep from row to row.
template <int R> struct hb_dh_block {
    hb_block<R> k;
    float4 *sums;                 // of this lane, of slot `first`
    const uint4 *spectrum;        // of this lane, k1 = 0
    int64_t c;
    int first;                    // this warp's first slot; then every WARPS
};

// What has been read of a row before it is needed: wide, not GATED.
template <int R, bool GATED> using hb_ahead = uint32_t[HB_WIDE<R> && !GATED ? R / 16 : 1][4];

template <class T, int R, bool GATED>
__device__ __forceinline__ void hb_dh_read(const hb_dh_block<R> &s, hb_ahead<R, GATED> &ahead,
                                           const hb_factor &x, int b0, int L)
{
    if constexpr (HB_WIDE<R> && !GATED)
        hb_wide_read<T, R>(ahead, x.x, x.s, s.c, b0, L, s.k.me);
}

// Planes from row b0 .. of a signal: x itself, GATED: the product of x and `by`. FIRST: u. Returns
// what the rows' step needs.
template <class T, int R, bool GATED, bool FIRST>
__device__ __forceinline__ hb_inner hb_dh_enter(const hb_dh_block<R> &s, const hb_factor &x,
                                            const hb_factor &by, int b0, const hb_fused_dh &job,
                                            hb_ahead<R, GATED> &ahead, float (&scale)[2])
{
    if constexpr (HB_WIDE<R> && GATED)
        hb_wide_product<T, R>(s.k, x, by, s.c, b0, job.L, scale);
    else if constexpr (HB_WIDE<R>)
        hb_wide_enter<T, R, FIRST>(s.k, ahead, scale);
    else if constexpr (GATED)
        hb_enter_product<T, R>(s.k, x, by, s.c, b0, job.B, job.L, scale);
    else
        hb_enter<T, R>(s.k, x.x, x.s, s.c, b0, job.B, job.L, scale);
    const hb_inner inner = hb_inner_of(s.k);         // under way at the barrier
    __syncthreads();
    return inner;
}

// 1 / scale of this warp's i-th slot (hb_scales).
template <int R> __device__ __forceinline__ float hb_slot_inverse(const float (&scale)[2], int i)
{
    if constexpr (R >= 16) return hb_inverse(scale[0]);
    return hb_inverse(__shfl_sync(~0u, scale[i], threadIdx.x / 128 * 16));
}

// dh[c] += transform back of the sums.
template <int R>
__device__ __forceinline__ void hb_dh_leave(const hb_dh_block<R> &s, const hb_fused_dh &job,
                                            float all)
{
    constexpr int WARPS = HB_DH_THREADS<R> / 32, PACK = HB_PACK<R>;
    const hb_inner inner = hb_inner_of(s.k);
#pragma unroll 1
    for (int i = 0; i < HB_PART_SLOTS<R> / WARPS; i++) {
        const int slot = s.first + i * WARPS;
        hb_tile z = {};
        if (slot < R)
#pragma unroll
            for (int j = 0; j < PACK; j++)
                hb_take(z, s.sums + (i * WARPS + j * R) * 128, all, j > 0);
        hb_dh_back<R>(s.k, z, inner, slot);
    }
    __syncthreads();
    const float undo = 4 * (256.0f * R / 4096) * hb_inverse(all);
    float *const dh = job.dh + s.c * job.L;
    const bool even = (((uintptr_t)dh & 15) | (job.L & 3)) == 0;
    float4 old[HB_RESULTS<R>];                   // read at once, as a store would hold up a load
    const auto read = [&] {
#pragma unroll
        for (int i = 0; i < HB_RESULTS<R>; i++) {
            const hb_spot at = hb_result_at<R>(i, s.k.me);
            old[i] = make_float4(0, 0, 0, 0);
            const int n = at.slot * 256 + at.r;
            if (at.slot >= R || n >= job.L) continue;
            old[i] = even ? *(const float4 *)(dh + n) : hb_load4_floats(dh, n, job.L);
        }
    };
    hb_results<R>(s.k, read, [] {}, [&](int i, const float (&v)[4]) {
        const hb_spot at = hb_result_at<R>(i, s.k.me);
        const int n = at.slot * 256 + at.r;
        const float x[4] = { old[i].x + v[0] * undo, old[i].y + v[1] * undo,
                             old[i].z + v[2] * undo, old[i].w + v[3] * undo };
        if (at.slot >= R || n >= job.L) return;
        if (even) *(float4 *)(dh + n) = make_float4(x[0], x[1], x[2], x[3]);
        else
#pragma unroll
            for (int t = 0; t < 4; t++)
                if (n + t < job.L) dh[n + t] = x[t];
    });
}

// Grid D HB_PARTS, block HB_DH_THREADS, shared HB_DH_SHARED: a block, or the two of a cluster, do a
// channel, the batch in order. Sums over the batch in f32: 4096 conj(U) DY / N^2.
template <class T, int R, bool GATED>
__global__ void __cluster_dims__(HB_PARTS<R>, 1, 1)
__launch_bounds__(HB_DH_THREADS<R>, HB_DH_BLOCKS<R>) hb_rows_dh(hb_fused_dh job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int WARPS = HB_DH_THREADS<R> / 32, OWN = HB_PART_SLOTS<R> / WARPS, PACK = HB_PACK<R>;
    hb_dh_block<R> s;
    hb_dh_init<R>(s.k, shared, job.matrix);
    const hb_block<R> &k = s.k;
    const hb_lane me = k.me;
    const int warp = threadIdx.x >> 5;
    s.c = blockIdx.x / HB_PARTS<R>;
    s.first = hb_part<R>() * HB_PART_SLOTS<R> + warp;
    s.sums = (float4 *)(shared + HB_DH_BEFORE<R>) + warp * 128 + me.lane;
    s.spectrum = job.spectrum + s.c * R * 64 + me.lane;
    const uint32_t planes = hb_shared_address(k.planes);
    const hb_factor u_ = { job.u, job.su, k.taps + HB_TAP_U };
    const hb_factor pre = { job.gates.pre.x, job.gates.pre.sx, k.taps + HB_TAP_PRE };
    const hb_factor dy = { job.dy, job.sdy, k.taps + HB_TAP_NONE };
    const hb_factor post = { job.gates.post.x, job.gates.post.sx, k.taps + HB_TAP_POST };
    hb_gate_sums gates = {};
    float lag0 = 0;
    if constexpr (GATED) hb_filters_init(k.taps, job.gates, s.c, job.K);
    if constexpr (GATED) hb_meet<R>();
    else hb_freed<R>();
    for (int b0 = 0; b0 < job.B; b0 += PACK) {
        float scale[2], there[PACK > 1 ? OWN : 1];
        uint4 u[OWN][2];
        hb_ahead<R, GATED> ahead;
        hb_dh_read<T, R, GATED>(s, ahead, u_, b0, job.L);
        hb_inner inner = hb_dh_enter<T, R, GATED, true>(s, u_, pre, b0, job, ahead, scale);
        hb_dh_read<T, R, GATED>(s, ahead, dy, b0, job.L);
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const int slot = s.first + i * WARPS;
            hb_tile z;
            hb_inner_there(z, inner, planes, HB_PLANE<R>, slot, me);
            hb_halve(u[i], z);
            if (i < (PACK > 1 ? OWN : 1)) there[i] = hb_slot_inverse<R>(scale, i);
            if constexpr (GATED) {
                if (!post.x) continue;
                hb_times(z, s.spectrum + hb_k1<R>(slot, hb_part<R>()) * 64, false, 1);
                __syncwarp();     // everybody has read the slot
                hb_dh_back<R>(k, z, inner, slot);
            }
        }
        if constexpr (GATED) {
            __syncthreads();      // the planes have been read; or they are full again
            if (post.x) {
                hb_to_floats<R>(k);
                hb_back_post<T, R>(k, job, s.c, b0, scale[0], gates);
                hb_meet<R>();
            }
            if (pre.x) hb_prefetch<T, R>(pre.x, pre.s, s.c, b0 + PACK, job.B, job.L);
            if (post.x) hb_prefetch<T, R>(post.x, post.s, s.c, b0 + PACK, job.B, job.L);
        }
        inner = hb_dh_enter<T, R, GATED, false>(s, dy, post, b0, job, ahead, scale);
        hb_prefetch<T, R>(job.u, job.su, s.c, b0 + PACK, job.B, job.L);
        hb_prefetch<T, R>(job.dy, job.sdy, s.c, b0 + PACK, job.B, job.L);
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const int slot = s.first + i * WARPS;
            const uint4 *const at = s.spectrum + hb_k1<R>(slot, hb_part<R>()) * 64;
            const uint4 h[2] = { at[0], at[32] };
            hb_tile z;
            hb_inner_there(z, inner, planes, HB_PLANE<R>, slot, me);
            hb_correlate(s.sums + i * WARPS * 128, u[i], z,
                         there[PACK > 1 ? i : 0] * hb_slot_inverse<R>(scale, i), b0 == 0);
            hb_times<true>(z, h, 1);
            __syncwarp();
            hb_dh_back<R>(k, z, inner, slot);
        }
        __syncthreads();
        if constexpr (GATED) {
            hb_to_floats<R>(k);
            hb_back_pre<T, R>(k, job, s.c, b0, scale[0], dy, post, gates);
            hb_meet<R>();         // the planes are free
        } else {
            hb_leave<T, R>(k, job, s.c, b0, scale, lag0);
        }
    }
    if constexpr (GATED) hb_gate_totals<R>(k, job, s.c, gates);
    else hb_free<R>();
    const float4 *const all_sums = (const float4 *)(shared + HB_DH_BEFORE<R>);
    hb_dh_leave(s, job, hb_sums_scale<R>(k, all_sums, lag0));
    if (!GATED && job.dd && threadIdx.x == 0 && hb_part<R>() == 0) job.dd[s.c] += lag0;
    if constexpr (HB_PARTS<R> == 2) hb_meet<R>();     // the other block has read this one's planes
}

#endif
