// f32.cuh: convolutions in float32, which tensor cores cannot do to 2e-6: FFT by FMA, CUDA.
//     y = h * u + d u, du = correlation of h with dy, dh, dd      any L up to 2^22
//     choice    R1: columns in front of the rows (1: a row fits into a block), else R1 = Q1 Q2 with
//               Q1 = 3 .. 32 and Q2 = 1 or 16; R: points of a row of columns
// Method    N = R1 R >= L points, right angle (f32_fft.cuh). R1 = 1: one kernel (f32_rows.cuh) for
//           the spectra of h, one for the rows. Longer: columns, rows, columns (f32_columns.cuh)
//           for groups of channels and parts of the batch, whose `mid` stays in the L2 cache.
//           d is added to the spectrum where it is used.
//           dh: transforms of u and dy, sums of conj(U) DY over the batch in order, and one way
//           back a channel. dd: in float64 from the signals, because an error of dh[0] would be
//           that of the largest dh.
// Cost      f32_rows.cuh, f32_columns.cuh. Workspace: spectra 8 N bytes a channel (long rows: a
//           group of channels), `mid` F32_CHUNK bytes or a row where that is more (8 N bytes);
//           backward two and a third of these.
// Accuracy  rel. L2, emulated: 3e-7 up to 2^14, 4e-7 at 2^17; 7e-7 with all
//           equal or amplitudes far apart; dh the same, dd 1e-7.
#ifndef HB_FUSED_F32_CUH
#define HB_FUSED_F32_CUH

#include "f32_columns.cuh"
#include "method.h"

static const int64_t F32_CHUNK = 24 << 20;

struct f32_plan {
    const struct hb_host *host;          // borrowed until free
    int64_t B, L, D, N;
    int Q1, Q2, N2;                      // N = Q1 Q2 N2; one block: Q1 = Q2 = 1
    int sms, per_sm;                     // blocks of f32_rows that an SM holds
    bool fixed;
    int64_t channels, batch;             // of a chunk
    float4 *quads;                       // owned, and so is what follows: f32_tables
    struct f32_tables tables;
    float2 *roots;                       // (Q1 Q2, 16), then (Q1, 16)
    float4 *spectrum;                    // one block or fixed: (D, N), else (channels, N)
    float2 *mid, *other;                 // (channels, batch, N); other: backward only
    float4 *sums;                        // (channels, N), backward only
};

static const char *f32_refuses(const struct hb_problem *p)
{
    if (p->gated) return "gates";
    if (p->D > INT32_MAX / 1024 / p->B || p->D > INT32_MAX / 1024) return "B D beyond 2^21";
    return NULL;
}

// Calls f with the shape and LONG.
template <class F> static inline void f32_by_plan(const struct f32_plan *s, F f)
{
    if (s->Q1 > 1) f(f32_shape<32, 16, 16, 256>(), std::true_type());
    else f32_by_points(s->N2, [&](auto shape) { f(shape, std::false_type()); });
}

// --- launches ----------------------------------------------------------------------------------
// Rows of the chunk or, where a row fits into a block, of everything: fills in what the plan knows.
static void f32_launch_rows(const struct f32_plan *s, struct f32_job job, cudaStream_t stream)
{
    job.L = (int)s->L;
    job.parts = s->Q1 * s->Q2;
    job.k = s->tables;
    f32_by_plan(s, [&](auto shape, auto is_long) {
        using S = decltype(shape);
        constexpr bool LONG = decltype(is_long)::value;
        const int64_t want = ((int64_t)job.rows * job.parts + S::SLOTS - 1) / S::SLOTS;
        const int64_t most = (int64_t)s->sms * s->per_sm;
        f32_rows<S, LONG><<<(unsigned)(want < most ? want : most), S::THREADS,
                            LONG ? S::LONG_SHARED : S::SHARED, stream>>>(job);
    });
}

// A signal as rows: channels from c on, batch entries from b on.
struct f32_signal { float *x; struct hb_strides s; };

static struct f32_signal f32_part(const void *x, struct hb_strides s, int64_t c, int64_t b)
{
    return { (float *)x + c * s.c + b * s.b, s };
}

static struct f32_columns f32_columns_of(const struct f32_plan *s, float2 *mid, int64_t channels,
                                         int64_t batch)
{
    return { .rows = (int)(channels * batch), .batch = (int)batch, .L = (int)s->L, .N = s->N,
             .mid = mid };
}

static void f32_second_step(const struct f32_plan *s, struct f32_columns j, bool back,
                            cudaStream_t stream)
{
    const unsigned grid = f32_column_grid(&j, F32_Q2);
    const float2 *const roots = s->roots + s->Q1 * s->Q2 * 16;
    if (s->Q2 == 1) return;
    if (back) f32_columns_second<true><<<grid, F32_COLUMN_THREADS, 0, stream>>>(j, roots, s->Q1);
    else f32_columns_second<false><<<grid, F32_COLUMN_THREADS, 0, stream>>>(j, roots, s->Q1);
}

// Long rows: real x to mid, all that comes before the rows.
static void f32_columns_there(const struct f32_plan *s, struct f32_columns j, struct f32_signal x,
                              cudaStream_t stream)
{
    j.in = x.x;
    j.si = x.s;
    f32_by_columns(s->Q1, [&](auto q) {
        constexpr int R = decltype(q)::value;
        f32_columns_in<R><<<f32_column_grid(&j, R), F32_COLUMN_THREADS, 0, stream>>>(j);
    });
    f32_second_step(s, j, false, stream);
}

// And mid to real y.
static void f32_columns_back(const struct f32_plan *s, struct f32_columns j, struct f32_signal y,
                             bool add, cudaStream_t stream)
{
    f32_second_step(s, j, true, stream);
    j.out = y.x;
    j.so = y.s;
    j.add = add;
    f32_by_columns(s->Q1, [&](auto q) {
        constexpr int R = decltype(q)::value;
        f32_columns_out<R><<<f32_column_grid(&j, R), F32_COLUMN_THREADS, 0, stream>>>(j);
    });
}

// Spectra of rows, times gain, in `to` (channels, batch, N).
static void f32_transform(const struct f32_plan *s, float2 *to, struct f32_signal x,
                          int64_t channels, int64_t batch, float gain, cudaStream_t stream)
{
    if (s->Q1 > 1)
        f32_columns_there(s, f32_columns_of(s, to, channels, batch), x, stream);
    f32_launch_rows(s, { .mode = F32_TRANSFORM, .rows = (int)(channels * batch),
                         .batch = (int)batch, .in = x.x, .si = x.s, .mid = to,
                         .spectrum = (float4 *)to, .gain = gain }, stream);
}

static void f32_spectrum(const struct f32_plan *s, const float *h, int64_t c, int64_t channels,
                         int64_t kept, cudaStream_t stream)
{
    f32_transform(s, (float2 *)s->spectrum + kept * s->N, f32_part(h, { 0, s->L }, c, 0), channels,
                  1, 1 / (float)s->N, stream);
}

// Rows through the spectra kept from `kept` on; d (channels) or NULL.
static void f32_convolve(const struct f32_plan *s, struct f32_signal in, struct f32_signal out,
                         int64_t channels, int64_t batch, int64_t kept, const float *d,
                         bool adjoint, cudaStream_t stream)
{
    const struct f32_columns j = f32_columns_of(s, s->mid, channels, batch);
    if (s->Q1 > 1) f32_columns_there(s, j, in, stream);
    f32_launch_rows(s, { .mode = F32_CONVOLVE, .adjoint = adjoint, .rows = (int)(channels * batch),
                         .batch = (int)batch, .in = in.x, .si = in.s, .out = out.x, .so = out.s,
                         .mid = s->mid, .spectrum = s->spectrum + kept * (s->N / 2), .d = d,
                         .d_gain = 1 / (float)s->N }, stream);
    if (s->Q1 > 1) f32_columns_back(s, j, out, false, stream);
}

// All rows: y = h * u + d u, or (u is dy, y is du) its adjoint. `ready`: the spectra are there.
static void f32_run(const struct f32_plan *s, const struct hb_longconv_io *v, bool adjoint,
                    bool ready, cudaStream_t stream)
{
    const void *const u = adjoint ? v->dy : v->u;
    void *const y = adjoint ? v->du : v->y;
    const struct hb_strides su = adjoint ? v->sdy : v->su, sy = adjoint ? v->sdu : v->sy;
    const float *const d = (const float *)v->d;
    const bool near = s->Q1 == 1;                         // no chunks
    const int64_t group = near ? s->D : s->channels, part = near ? s->B : s->batch;
    for (int64_t c = 0; c < s->D; c += group) {
        const int64_t n = s->D - c < group ? s->D - c : group, kept = s->fixed ? c : 0;
        if (!ready) f32_spectrum(s, (const float *)v->h, c, n, 0, stream);
        for (int64_t b = 0; b < s->B; b += part)
            f32_convolve(s, f32_part(u, su, c, b), f32_part(y, sy, c, b), n,
                         s->B - b < part ? s->B - b : part, kept, d ? d + c : NULL, adjoint,
                         stream);
    }
}

static void f32_forward(const void *st, const struct hb_longconv_io *io, cudaStream_t stream)
{
    const struct f32_plan *s = (const struct f32_plan *)st;
    f32_run(s, io, false, s->fixed, stream);
}

static void f32_set_filter(const void *st, const float *h, cudaStream_t stream)
{
    const struct f32_plan *s = (const struct f32_plan *)st;
    for (int64_t c = 0; c < s->D; c += s->channels)
        f32_spectrum(s, h, c, s->D - c < s->channels ? s->D - c : s->channels, c, stream);
}

// --- gradients of the filter -------------------------------------------------------------------
// sum += x, with what got lost the last time.
__device__ __forceinline__ void f32_add(float &sum, float &lost, float x)
{
    const float y = x - lost, t = sum + y;
    lost = (t - sum) - y;
    sum = t;
}

// sums (channels, quads) of 2 complex (+)= conj(u) dy of rows (channels, batch, quads), the batch
// in order and with compensation: equal terms drift. Grid covers channels quads threads.
static __global__ void __launch_bounds__(256)
f32_correlate(float4 *sums, const float4 *u, const float4 *dy, int64_t quads, int channels,
              int batch, bool start)
{
    const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x, c = at / quads, x = at % quads;
    if (c >= channels) return;
    float4 sum = start ? make_float4(0, 0, 0, 0) : sums[at], lost = make_float4(0, 0, 0, 0);
    for (int b = 0; b < batch; b++) {
        const float4 p = u[(c * batch + b) * quads + x], q = dy[(c * batch + b) * quads + x];
        f32_add(sum.x, lost.x, fmaf(p.x, q.x, p.y * q.y));
        f32_add(sum.y, lost.y, fmaf(p.x, q.y, -p.y * q.x));
        f32_add(sum.z, lost.z, fmaf(p.z, q.z, p.w * q.w));
        f32_add(sum.w, lost.w, fmaf(p.z, q.w, -p.w * q.z));
    }
    sums[at] = sum;
}

// dd[c] += sum of u dy; products are exact in float64. Grid (D).
static __global__ void __launch_bounds__(256)
f32_dot(float *dd, struct f32_signal u, struct f32_signal dy, int batch, int L)
{
    __shared__ double sums[256];
    const int64_t c = blockIdx.x;
    double sum = 0;
    for (int b = 0; b < batch; b++) {
        const float *const p = u.x + c * u.s.c + b * u.s.b;
        const float *const q = dy.x + c * dy.s.c + b * dy.s.b;
#pragma unroll 4
        for (int t = threadIdx.x; t < L; t += 256)
            sum += (double)p[t] * (double)q[t];
    }
    sums[threadIdx.x] = sum;
    for (int n = 128; n; n /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < n) sums[threadIdx.x] += sums[threadIdx.x + n];
    }
    if (threadIdx.x == 0) dd[c] += (float)sums[0];
}

static void f32_gradient(const struct f32_plan *s, const struct hb_longconv_io *v, int64_t c,
                         int64_t n, cudaStream_t stream)
{
    const int64_t quads = s->N / 2;
    for (int64_t b = 0; b < s->B; b += s->batch) {
        const int64_t batch = s->B - b < s->batch ? s->B - b : s->batch;
        f32_transform(s, s->other, f32_part(v->u, v->su, c, b), n, batch, 1 / (float)s->N, stream);
        f32_transform(s, s->mid, f32_part(v->dy, v->sdy, c, b), n, batch, 1, stream);
        f32_correlate<<<(unsigned)((n * quads + 255) / 256), 256, 0, stream>>>(
            s->sums, (const float4 *)s->other, (const float4 *)s->mid, quads, (int)n, (int)batch,
            b == 0);
    }
    const struct f32_signal dh = f32_part(v->dh, { 0, s->L }, c, 0);
    f32_launch_rows(s, { .mode = F32_INVERT, .add = true, .rows = (int)n, .batch = 1, .out = dh.x,
                         .so = dh.s, .mid = s->mid, .spectrum = s->sums }, stream);
    if (s->Q1 > 1) f32_columns_back(s, f32_columns_of(s, s->mid, n, 1), dh, true, stream);
}

// Where a row fits into a block all spectra are still there; of long rows only if fixed.
static void f32_backward(const void *st, const struct hb_longconv_io *io, cudaStream_t stream)
{
    const struct f32_plan *s = (const struct f32_plan *)st;
    f32_run(s, io, true, s->fixed || s->Q1 == 1, stream);
    for (int64_t c = 0; c < s->D; c += s->channels)
        f32_gradient(s, io, c, s->D - c < s->channels ? s->D - c : s->channels, stream);
    if (io->dd)
        f32_dot<<<(unsigned)s->D, 256, 0, stream>>>(
            (float *)io->dd, f32_part(io->u, io->su, 0, 0), f32_part(io->dy, io->sdy, 0, 0),
            (int)s->B, (int)s->L);
}

// --- plan --------------------------------------------------------------------------------------
static void f32_free(void *st)
{
    struct f32_plan *s = (struct f32_plan *)st;
    if (!s) return;
    hb_fused_free(s->host, { s->quads, s->roots, s->spectrum, s->mid, s->other, s->sums });
    s->host->free(s->host, s);
}

// Rows of a chunk: all of the batch if it fits, then as many channels as fit.
static void f32_chunk(struct f32_plan *s)
{
    const int64_t fits = F32_CHUNK / (8 * s->N) > 1 ? F32_CHUNK / (8 * s->N) : 1;
    const int64_t parts = (s->B + fits - 1) / fits;
    s->batch = (s->B + parts - 1) / parts;
    s->channels = fits / (s->batch + (s->Q1 > 1 && !s->fixed));
    if (s->channels < 1) s->channels = 1;
    if (s->channels > s->D) s->channels = s->D;
}

static int f32_take(struct f32_plan *s, bool backward)
{
    const struct hb_device *dev = s->host->device;
    const size_t row = (size_t)s->N * sizeof(float2);
    const size_t rows = (size_t)(s->channels * s->batch) * row;
    const size_t kept = (size_t)(s->Q1 == 1 || s->fixed ? s->D : s->channels) * row;
    s->spectrum = (float4 *)dev->alloc(dev, kept);
    if (!s->spectrum) return HB_ERR_OOM;
    if (s->Q1 > 1 || backward) {
        s->mid = (float2 *)dev->alloc(dev, rows);
        if (!s->mid) return HB_ERR_OOM;
    }
    if (!backward) return HB_OK;
    s->other = (float2 *)dev->alloc(dev, rows);
    s->sums = (float4 *)dev->alloc(dev, (size_t)s->channels * row);
    return s->other && s->sums ? HB_OK : HB_ERR_OOM;
}

// Twiddles, from float64.
static int f32_constants(struct f32_plan *s)
{
    const struct hb_host *host = s->host;
    int R1 = 0, R2 = 0, R3 = 0;
    f32_by_plan(s, [&](auto shape, auto) {
        R1 = shape.R1;
        R2 = shape.R2;
        R3 = shape.R3;
    });
    const int Q = s->Q1 * s->Q2;
    const size_t bytes = (size_t)f32_table_quads(R1, R2, R3) * sizeof(float4);
    const size_t roots = (size_t)(Q + s->Q1) * 16 * sizeof(float2);
    float4 *const quads = (float4 *)host->alloc(host, bytes);
    float2 *const angles = (float2 *)host->alloc(host, roots);
    int rc = quads && angles ? HB_OK : HB_ERR_OOM;
    if (!rc) {
        memset(quads, 0, bytes);                         // there are gaps
        f32_fill(quads, NULL, R1, R2, R3, s->Q1 > 1);
        rc = hb_fused_upload(host, (void **)&s->quads, quads, bytes);
    }
    if (!rc) {
        s->tables = f32_fill(quads, s->quads, R1, R2, R3, s->Q1 > 1);
        f32_root_table(angles, Q);
        f32_root_table(angles + Q * 16, s->Q1);
        rc = hb_fused_upload(host, (void **)&s->roots, angles, roots);
        s->tables.roots = s->roots;
    }
    host->free(host, quads);
    host->free(host, angles);
    return rc;
}

static int f32_allow(struct f32_plan *s)
{
    int rc = hb_fused_sms(s->host, &s->sms);
    f32_by_plan(s, [&](auto shape, auto is_long) {
        using S = decltype(shape);
        constexpr bool LONG = decltype(is_long)::value;
        constexpr int bytes = LONG ? S::LONG_SHARED : S::SHARED;
        const void *const kernel = (const void *)f32_rows<S, LONG>;
        if (!rc) rc = hb_fused_allow(s->host, kernel, bytes);
        if (!rc)
            rc = HB_CUDA(s->host, cudaOccupancyMaxActiveBlocksPerMultiprocessor(
                &s->per_sm, kernel, S::THREADS, bytes));
    });
    return rc;
}

static int f32_make(const struct hb_host *host, const struct hb_problem *p,
                    const struct fused_choice *choice, void **st)
{
    struct f32_plan *s = (struct f32_plan *)host->alloc(host, sizeof *s);
    *st = s;
    if (!s) return HB_ERR_OOM;
    const int Q2 = choice->R1 > 32 ? F32_Q2 : 1;
    *s = { .host = host, .B = p->B, .L = p->L, .D = p->D, .N = (int64_t)choice->R1 * choice->R,
           .Q1 = choice->R1 / Q2, .Q2 = Q2, .N2 = choice->R,
           .fixed = p->filter == HB_FILTER_FIXED };
    f32_chunk(s);
    int rc = f32_take(s, p->backward);
    if (!rc) rc = f32_constants(s);
    return rc ? rc : f32_allow(s);
}

static int f32_describe(const void *st, char *buf, size_t cap)
{
    const struct f32_plan *s = (const struct f32_plan *)st;
    return snprintf(buf, cap, "N = %d x %d, right angle, float32 in shared memory, FMA",
                    s->Q1 * s->Q2, s->N2);
}

static const struct fused_method fused_f32 = {
    .name = "f32",
    .refuses = f32_refuses,
    .plan = f32_make,
    .forward = f32_forward,
    .backward = f32_backward,
    .set_filter = f32_set_filter,
    .describe = f32_describe,
    .free = f32_free,
};
#endif
