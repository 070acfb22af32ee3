// f32_rows.cuh: rows of N = R1 R2 R3 points in the shared memory of one block, float32, CUDA.
//     short rows: x real, N >= L      out = x * h (or its adjoint), or one half of that
//     one block of a long row: complex, mod z^N - e^{i angle}, in place     (f32_columns.cuh)
// Method    f32_fft.cuh in three passes there (radix R1, R2, R3) and three back; the last one
//           there, the product and the first one back are one. A pass takes its points from shared
//           memory and puts them back in the same place, so there is one barrier a pass. Row r of
//           R3 points lies at r R3 with its columns exchanged by r (XOR): no bank conflicts.
//           Blocks are persistent, and the next short row comes meanwhile by one bulk copy, from
//           the 16-byte boundary before it to the one behind it: `shift` samples too early.
// Spectra   float2, [column of a thread][pair of points][thread] float4: whole lines; with 1/N.
// Cost      counted in the machine code, instructions a sample: N = 16384 (32 32 16) 128, of which
//           102 FMA, FADD, FMUL; 4096 (16 16 16) 119; 1024 (32 32) 98; 256 (16 16) 92. Shared
//           memory 76, 76, 44, 44 bytes a sample; L2 20 to 24 (u, y, spectrum, twiddles).
//           For 16384 (132 SMs, 1.7 GHz) 4.5 ps of issue, 2.6 of shared memory, 2.4 of device
//           memory. Measured, with the filter's transform: 8.7 ps, 31 % of the floor; 4096: 6.1 ps,
//           1024: 6.2 ps, 43 %.
// Registers (nvcc 13.0, sm_90) 128, 16 warps an SM; 80 where 16 points are most, 24 warps. Spills:
//           16 bytes at N = 16384, else none.
// Accuracy  rel. L2, emulated: 3e-7 at N = 16384.
#ifndef HB_FUSED_F32_ROWS_CUH
#define HB_FUSED_F32_ROWS_CUH

#include <type_traits>

#include "f32_fft.cuh"

// R2 = 1: two passes. T threads a row; where these are few, a block has several rows.
template <int R1_, int R2_, int R3_, int T_> struct f32_shape {
    static constexpr int R1 = R1_, R2 = R2_, R3 = R3_, T = T_, N = R1 * R2 * R3;
    static constexpr int THREADS = T < 128 ? 128 : T, SLOTS = THREADS / T;
    static constexpr int K1 = N / R1 / T, K2 = N / R2 / T, K3 = N / R3 / T;   // columns of a thread
    // Of an SM: so many that a thread has 128 registers, or 80 where 16 points are most.
    static constexpr int BLOCKS = (R1 > 16 || R2 > 16 || R3 > 16 ? 512 : 768) / THREADS;
    static constexpr int PITCH = N + (T < 16 ? 8 : 0);        // float2 from row to row of a block
    static constexpr int X_PITCH = N + (T < 32 ? T : 4);      // floats, the same: 3 and a shift
    static constexpr int X = SLOTS * PITCH * 8, BARS = X + SLOTS * X_PITCH * 4;      // in bytes
    static constexpr int SHARED = BARS + SLOTS * 8;
    static constexpr int LONG_SHARED = SLOTS * PITCH * 8;
    static_assert(R2 == 1 || R2 % 16 == 0 || R3 < 16, "else there are bank conflicts");
    static_assert(T <= 32 || SLOTS == 1, "rows of a block wait for themselves only");
};

// Constants of a shape, in device memory, a point's twiddles together.
struct f32_tables {
    const float4 *second, *third;      // t_l of blocks: (R1), (R1 R2)
    const float4 *back, *last;         // of positions: (R3), (R2 R3); last: and the untwist
    const float2 *roots;               // long rows: t_l of the whole row, (blocks of a row, 16)
};

enum f32_mode { F32_CONVOLVE, F32_TRANSFORM, F32_INVERT };

struct f32_job {
    enum f32_mode mode;
    bool adjoint, add;                 // conjugate spectrum; out += (F32_INVERT)
    int rows, batch, L;                // row i: channel i / batch, entry i % batch
    const float *in;  struct hb_strides si;
    float *out;       struct hb_strides so;
    float2 *mid;                       // long rows: (rows, parts, N), instead of in and out
    int parts;                         // blocks that a long row has; else 1
    float4 *spectrum;                  // (channels, parts, N); TRANSFORM, INVERT: (rows, parts, N)
    float gain;                        // TRANSFORM: what is written is multiplied by it
    const float *d;                    // CONVOLVE: (channels) or NULL, added to the spectrum
    float d_gain;                      // d is multiplied by it
    struct f32_tables k;
};

// Shared memory by bytes from its start.
template <class X> __device__ __forceinline__ X &f32_shared_at(int at)
{
    extern __shared__ float4 f32_shared[];
    return *(X *)((char *)f32_shared + at);
}

// A barrier in shared memory on which one thread announces a bulk copy, and on which others wait.
__device__ __forceinline__ void f32_bar_init(uint32_t bar)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(bar) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Starts the copy of `bytes` from src to dst, all multiples of 16; what was written there is over.
__device__ __forceinline__ void f32_bulk(uint32_t dst, const void *src, uint32_t bytes,
                                         uint32_t bar)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(bar), "r"(bytes) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1], %2, [%3];"
                 :: "r"(dst), "l"(src), "r"(bytes), "r"(bar) : "memory");
}

// Has the copy of this parity arrived (0 for the first, 1, 0, ..)?
__device__ __forceinline__ bool f32_bar_done(uint32_t bar, uint32_t parity)
{
    uint32_t done;
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;"
                 " selp.u32 %0, 1, 0, p;}"
                 : "=r"(done) : "r"(bar), "r"(parity) : "memory");
    return done;
}

// Waits for the other threads of a row.
template <class S> __device__ __forceinline__ void f32_wait(void)
{
    if constexpr (S::T > 32) __syncthreads();
    else __syncwarp();
}

// Where the points of a row lie in shared memory: in bytes, from z on. Point `col` of row `row` of
// R3 points is at f32_at(z, row, col). What is k rows or columns further (k a constant, no carry
// in the low bits) takes one XOR at most, f32_step.
template <class S> constexpr int F32_MASK = S::R3 < 16 ? S::R3 - 1 : 15;

template <class S> __device__ __forceinline__ int f32_at(int z, int row, int col)
{
    return z + 8 * (row * S::R3 + (col ^ (row & F32_MASK<S>)));
}

template <class S> __device__ __forceinline__ float2 &f32_step(int at, int k, int points)
{
    return f32_shared_at<float2>((at ^ (8 * (k & F32_MASK<S>))) + 8 * points);
}

// Point a of column r of the first and last passes, of column p of block b of the second, and of
// row c of the third. `at`: of point 0.
template <class S> __device__ __forceinline__ int f32_outer(int z, int r)
{
    return f32_at<S>(z, r / S::R3, r % S::R3);
}

template <class S> __device__ __forceinline__ float2 &f32_outer_point(int at, int a)
{
    return f32_step<S>(at, a * S::R2, a * S::R2 * S::R3);
}

template <class S> __device__ __forceinline__ float2 &f32_second_point(int at, int a)
{
    return f32_step<S>(at, a, a * S::R3);
}

template <class S> __device__ __forceinline__ float2 &f32_third_point(int at, int a)
{
    return f32_step<S>(at, a, a & ~F32_MASK<S>);
}

// Twiddles of a point; of blocks of long rows turned by those of the row, whose levels above are
// `above`.
template <int LOG, bool LONG>
__device__ __forceinline__ f32_powers<LOG> f32_twiddles(const float4 *at, const float2 *root,
                                                        int above)
{
    f32_powers<LOG> w = f32_read<LOG>(at);
    if constexpr (LONG) {
#pragma unroll
        for (int l = 0; l < LOG; l++)
            w.t[l] = hb_cmul(w.t[l], __ldg(root + above + l));
    }
    return w;
}

// How many of the samples r, r + N / R1, .. lie before L.
template <class S> __device__ __forceinline__ int f32_inside(int L, int r)
{
    constexpr int stride = S::N / S::R1;
    return L > r ? (L - r + stride - 1) / stride : 0;
}

// Where a thread is: its row in the block, that row's points, samples and barrier in shared memory,
// and the row of the problem: channel c, batch entry b.
struct f32_place { int slot, t, z, x, c, b; uint32_t bar; };

__device__ __forceinline__ const float *f32_row(const f32_job &j, int c, int b)
{
    return j.in + c * j.si.c + b * j.si.b;
}

// Samples by which a row lies behind a 16-byte boundary.
__device__ __forceinline__ int f32_shift(const float *row) { return (int)((uintptr_t)row / 4 % 4); }

__device__ __forceinline__ void f32_fetch(const f32_place &me, const float *row, int L)
{
    const int shift = f32_shift(row);
    if (me.t == 0)
        f32_bulk(hb_shared_address(&f32_shared_at<float>(me.x)), row - shift,
                 (uint32_t)(shift + L + 3) / 4 * 16, me.bar);
}

// Waits for it; zero behind it, where another row may have been (each thread does its own).
template <class S>
__device__ __forceinline__ void f32_arrived(const f32_place &me, int shift, int L, uint32_t parity)
{
    while (!f32_bar_done(me.bar, parity)) { }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int n = L + i;
        if (n < S::N && n % (S::N / S::R1) % S::T == me.t)
            f32_shared_at<float>(me.x + 4 * (n + shift)) = 0;
    }
}

// All that is behind any row.
template <class S> __device__ __forceinline__ void f32_clear(const f32_place &me, int L)
{
    for (int n = L + me.t; n < S::X_PITCH; n += S::T)
        f32_shared_at<float>(me.x + 4 * n) = 0;
}

// --- passes ------------------------------------------------------------------------------------
// First: from x, or from a long row's `mid`, to z.
template <class S, bool LONG>
__device__ __forceinline__ void f32_first(int z, int x, const float2 *mid, const float2 *root)
{
    constexpr int stride = S::N / S::R1;
    const int t = threadIdx.x % S::T;
#pragma unroll
    for (int k = 0; k < S::K1; k++) {
        const int r = t + S::T * k;
        float2 c[S::R1];
        if constexpr (LONG) {
            f32_powers<f32_log(S::R1)> w;
#pragma unroll
            for (int l = 0; l < f32_log(S::R1); l++)
                w.t[l] = __ldg(root + l);
#pragma unroll
            for (int a = 0; a < S::R1; a++)
                c[a] = mid[a * stride + r];
            f32_split<S::R1, 1, 0>(c, w);
        } else {
            float v[S::R1];
#pragma unroll
            for (int a = 0; a < S::R1; a++)
                v[a] = f32_shared_at<float>(x + 4 * (a * stride + r));
            f32_split_real<S::R1>(c, v);
        }
#pragma unroll
        for (int a = 0; a < S::R1; a++)
            f32_outer_point<S>(f32_outer<S>(z, r), a) = c[a];
    }
}

// Second, and the last but one, in place.
template <class S, bool LONG, bool BACK>
__device__ __forceinline__ void f32_second(int z, const f32_tables &tables, const float2 *root)
{
    constexpr int LOG = f32_log(S::R2), QUADS = f32_quads(LOG);
    const int t = threadIdx.x % S::T;
    f32_powers<LOG> w[S::K2];                        // on their way while the others arrive
#pragma unroll
    for (int k = 0; k < S::K2; k++) {
        const int b = (t + S::T * k) / S::R3, p = (t + S::T * k) % S::R3;
        w[k] = BACK ? f32_read<LOG>(tables.back + p * QUADS)
                    : f32_twiddles<LOG, LONG>(tables.second + b * QUADS, root, f32_log(S::R1));
    }
    f32_wait<S>();
#pragma unroll
    for (int k = 0; k < S::K2; k++) {
        const int b = (t + S::T * k) / S::R3, p = (t + S::T * k) % S::R3;
        const int at = z + 8 * (b * S::R2 * S::R3 + p);
        float2 c[S::R2];
#pragma unroll
        for (int a = 0; a < S::R2; a++)
            c[a] = f32_second_point<S>(at, a);
        if constexpr (BACK) f32_merge<S::R2, 1, 0>(c, w[k]);
        else f32_split<S::R2, 1, 0>(c, w[k]);
#pragma unroll
        for (int a = 0; a < S::R2; a++)
            f32_second_point<S>(at, a) = c[a];
    }
}

// What the spectrum does to a column: writes it, takes its place, or is multiplied with it. From
// here on everything is conjugated.
template <class S>
__device__ __forceinline__ void f32_product(float2 (&c)[S::R3], const f32_job &j, float4 *spectrum,
                                            float d)
{
    const float sign = j.adjoint ? -1 : 1;
#pragma unroll
    for (int a = 0; a < S::R3; a += 2) {
        const float4 h = spectrum[a / 2 * S::T];
        const float2 two[2] = { { h.x, h.y }, { h.z, h.w } };
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float2 v = c[a + e];
            const float re = two[e].x + d, im = two[e].y * sign;
            c[a + e] = j.mode == F32_INVERT ? hb_conj(two[e])
                     : make_float2(fmaf(v.x, re, -v.y * im), -fmaf(v.x, im, v.y * re));
        }
    }
}

// Third and its way back, in place; or to the spectrum.
template <class S, bool LONG>
__device__ __forceinline__ void f32_third(int z, const f32_job &j, const float2 *root,
                                          float4 *spectrum, float d, bool there)
{
    constexpr int LOG = f32_log(S::R3), QUADS = f32_quads(LOG);
    const int t = threadIdx.x % S::T;
    f32_powers<LOG> w[S::K3];
#pragma unroll
    for (int k = 0; k < S::K3; k++)
        w[k] = f32_twiddles<LOG, LONG>(j.k.third + (t + S::T * k) * QUADS, root,
                                       f32_log(S::R1 * S::R2));
    f32_wait<S>();
#pragma unroll
    for (int k = 0; k < S::K3; k++) {
        const int from = f32_at<S>(z, t + S::T * k, 0);
        float2 c[S::R3];
        float4 *const at = spectrum + k * (S::R3 / 2) * S::T + t;
        if (j.mode != F32_INVERT) {
#pragma unroll
            for (int a = 0; a < S::R3; a++)
                c[a] = f32_third_point<S>(from, a);
            f32_split<S::R3, 1, 0>(c, w[k]);
        }
        if (j.mode == F32_TRANSFORM) {
#pragma unroll
            for (int a = 0; a < S::R3; a += 2)
                if (there)
                    at[a / 2 * S::T] = make_float4(c[a].x * j.gain, c[a].y * j.gain,
                                                   c[a + 1].x * j.gain, c[a + 1].y * j.gain);
            continue;
        }
        f32_product<S>(c, j, at, d);
        f32_merge<S::R3, 1, 0>(c, f32_root<0>());
#pragma unroll
        for (int a = 0; a < S::R3; a++)
            f32_third_point<S>(from, a) = c[a];
    }
}

// Last: to `out`, or to a long row's `mid`.
template <class S, bool LONG>
__device__ __forceinline__ void f32_last(int z, const f32_job &j, float *out, int L,
                                         float2 *mid)
{
    constexpr int stride = S::N / S::R1, LOG = f32_log(S::R1) + 1, QUADS = f32_quads(LOG);
    const int t = threadIdx.x % S::T;
    f32_powers<LOG> w[S::K1];
#pragma unroll
    for (int k = 0; k < S::K1; k++)
        w[k] = f32_read<LOG>(j.k.last + (t + S::T * k) * QUADS);
    f32_wait<S>();
#pragma unroll
    for (int k = 0; k < S::K1; k++) {
        const int r = t + S::T * k;
        float2 c[S::R1];
#pragma unroll
        for (int a = 0; a < S::R1; a++)
            c[a] = f32_outer_point<S>(f32_outer<S>(z, r), a);
        f32_merge<S::R1, 1, 0>(c, w[k]);
        if constexpr (LONG) {
#pragma unroll
            for (int a = 0; a < S::R1; a++)
                mid[a * stride + r] = c[a];
        } else {
            const int n = f32_inside<S>(L, r);
            float y[S::R1];
            f32_untwist(y, c, w[k].t[LOG - 1]);
#pragma unroll
            for (int a = 0; a < S::R1; a++)
                if (j.add && a < n) y[a] += out[a * stride + r];
#pragma unroll
            for (int a = 0; a < S::R1; a++)
                if (a < n) out[a * stride + r] = y[a];
        }
    }
}

// Rows, or (LONG) blocks of rows. Any grid; dynamic shared memory S::SHARED or S::LONG_SHARED.
template <class S, bool LONG>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS) f32_rows(struct f32_job j)
{
    const unsigned all = (unsigned)(j.rows * j.parts), step = gridDim.x * S::SLOTS;
    const unsigned batch = (unsigned)j.batch;
    const bool reads = !LONG && j.mode != F32_INVERT;
    f32_place me;
    me.slot = threadIdx.x / S::T;
    me.t = threadIdx.x % S::T;
    me.z = me.slot * S::PITCH * 8;
    me.x = S::X + me.slot * S::X_PITCH * 4;
    me.bar = hb_shared_address(&f32_shared_at<char>(S::BARS + me.slot * 8));
    unsigned i = blockIdx.x * S::SLOTS + me.slot;
    me.c = (int)(i / batch);
    me.b = (int)(i % batch);
    if (reads) {
        f32_clear<S>(me, j.L);
        if (me.t == 0) f32_bar_init(me.bar);
        f32_wait<S>();
        if (i < all) f32_fetch(me, f32_row(j, me.c, me.b), j.L);
    }
    uint32_t parity = 0;
    for (unsigned at = blockIdx.x * S::SLOTS; at < all; at += step, i += step, parity ^= 1) {
        const bool there = i < all;
        const unsigned part = LONG ? i % (unsigned)j.parts : 0;
        const int64_t here = there ? i : 0;
        if constexpr (LONG) me.c = (int)(i / (unsigned)j.parts / batch);
        const int c = there ? me.c : 0, b = there ? me.b : 0;
        const float2 *const root = LONG ? j.k.roots + part * 16 : NULL;
        float2 *const mid = LONG ? j.mid + here * S::N : NULL;
        const int64_t which = j.mode == F32_CONVOLVE ? (int64_t)c * j.parts + part : here;
        const float *const row = reads ? f32_row(j, c, b) : NULL;
        // The next row's place.
        me.c += (int)(step / batch);
        me.b += (int)(step % batch);
        if (me.b >= (int)batch) {
            me.b -= (int)batch;
            me.c++;
        }
        if (j.mode != F32_INVERT) {
            const int shift = reads ? f32_shift(row) : 0;
            if (reads && there) f32_arrived<S>(me, shift, j.L, parity);
            f32_first<S, LONG>(me.z, me.x + 4 * shift, mid, root);
            if constexpr (S::R2 > 1) f32_second<S, LONG, false>(me.z, j.k, root);
        }
        f32_third<S, LONG>(me.z, j, root, j.spectrum + which * (S::N / 2),
                           j.d ? j.d[c] * j.d_gain : 0, there);
        // All threads of the row have their samples of this one.
        if (reads && i + step < all) f32_fetch(me, f32_row(j, me.c, me.b), j.L);
        if (j.mode != F32_TRANSFORM) {
            if constexpr (S::R2 > 1) f32_second<S, LONG, true>(me.z, j.k, root);
            f32_last<S, LONG>(me.z, j, LONG ? NULL : j.out + c * j.so.c + b * j.so.b,
                              there ? j.L : 0, mid);
        }
        // The first pass writes where the last one of this thread read; but the third of other
        // threads may still read where there was none.
        if (j.mode == F32_TRANSFORM) f32_wait<S>();
    }
}

// --- host --------------------------------------------------------------------------------------
static inline int64_t f32_table_quads(int R1, int R2, int R3)
{
    const int a = f32_quads(f32_log(R1) + 1), b = f32_quads(f32_log(R2));
    const int c = f32_quads(f32_log(R3));
    return R1 * b + R1 * R2 * c + R3 * b + R2 * R3 * a;
}

// Twiddles 1 .. log of n blocks (2^bits of z^N - e^{i angle}).
static inline float4 *f32_block_table(float4 *to, double angle, int n, int log)
{
    for (int b = 0; b < n; b++, to += f32_quads(log))
        for (int l = 1; l <= log; l++)
            f32_write((float2 *)to + l - 1, f32_angle(angle, b, f32_log(n)) / (double)(1 << l));
    return to;
}

// Twiddles of n positions; untwist > 0: e^{i pi p / (2 untwist)} behind them.
static inline float4 *f32_position_table(float4 *to, int n, int log, int untwist)
{
    for (int p = 0; p < n; p++, to += f32_quads(log + (untwist > 0))) {
        for (int l = 1; l <= log; l++)
            f32_write((float2 *)to + l - 1, 2 * M_PI * p / ((double)(1 << l) * n));
        if (untwist) f32_write((float2 *)to + log, M_PI * p / (2.0 * untwist));
    }
    return to;
}

// Fills `to` on the host (f32_table_quads); the pointers count from `device`.
static inline struct f32_tables f32_fill(float4 *to, const float4 *device, int R1, int R2, int R3,
                                         bool is_long)
{
    const double angle = is_long ? 0 : M_PI / 2;
    float4 *const third = f32_block_table(to, angle, R1, f32_log(R2));
    float4 *const back = f32_block_table(third, angle, R1 * R2, f32_log(R3));
    float4 *const last = f32_position_table(back, R3, f32_log(R2), 0);
    f32_position_table(last, R2 * R3, f32_log(R1), R1 * R2 * R3);
    return { device, device + (third - to), device + (back - to), device + (last - to), NULL };
}

// Calls f with the shape of rows of N points.
template <class F> static inline void f32_by_points(int N, F f)
{
    if (N <= 64) f(f32_shape<8, 1, 8, 8>());
    else if (N <= 128) f(f32_shape<16, 1, 8, 8>());
    else if (N <= 256) f(f32_shape<16, 1, 16, 16>());
    else if (N <= 512) f(f32_shape<32, 1, 16, 16>());
    else if (N <= 1024) f(f32_shape<32, 1, 32, 32>());
    else if (N <= 2048) f(f32_shape<8, 16, 16, 128>());
    else if (N <= 4096) f(f32_shape<16, 16, 16, 256>());
    else if (N <= 8192) f(f32_shape<32, 16, 16, 256>());
    else f(f32_shape<32, 32, 16, 512>());
}
#endif
