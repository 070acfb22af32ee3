// long_dh.cuh: gradient of the filter where rows do not fit into one block, CUDA.
//     dh[c,s] += sum_b sum_t dy[b,c,t] u[b,c,t-s]         dd[c] += sum_b sum_t dy[b,c,t] u[b,c,t]
// Method    For a group of channels and part of the batch: u and dy go through columns_in and the
//           rows' transform (rows.cuh in spectrum mode, in place: one block reads and writes the
//           same N2 half2), then sums (f32) += conj(U) DY, the batch in order. At the end: sums to
//           half2 as a filter's spectrum, whose product with an impulse in each row k1 (its
//           transform is the same number everywhere) comes back through rows and columns_out.
//           dd is summed from the signals: the error of lag 0 would be that of the largest dh.
// Cost      two forward passes without their way back, and 16 bytes a sample of L2 for the sums.
// Accuracy  emulated, f16: dh 5e-4 .. 8.1e-4, dd 3e-7.
#ifndef HB_FUSED_LONG_DH_CUH
#define HB_FUSED_LONG_DH_CUH

#include "long.cuh"

constexpr float LONG_KEEP = 1.0f / 16;     // spectrum mode's gain: transforms stay below 2^14
constexpr float LONG_IMPULSE = 32768;

// One float for every row: the gain of the spectra.
static __global__ void long_fill(float *x, float v, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = v;
}

// sums (channels, quads, 2) of float4 (+)= conj(u) dy of rows (channels, batch, quads) of 4 half2.
// Grid (channels quads / 256).
static __global__ void __launch_bounds__(256)
long_correlate(float4 *sums, const uint4 *u, const uint4 *dy, struct column_rows ju,
               struct column_rows jdy, int quads, bool start)
{
    const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x, c = at / quads, x = at % quads;
    float4 re = make_float4(0, 0, 0, 0), im = re;
    if (!start) {
        re = sums[2 * at];
        im = sums[2 * at + 1];
    }
    for (int b = 0; b < ju.batch; b++) {
        const int64_t i = c * ju.batch + b;
        const float fu = 1 / column_scale(ju, i), fd = 1 / column_scale(jdy, i);
        uint32_t p[4], q[4];
        float2 v[4];
        hb_fragment(p, u[i * quads + x]);
        hb_fragment(q, dy[i * quads + x]);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            v[k] = hb_cmul(hb_conj(hb_unpack(p[k])), hb_unpack(q[k]));
            v[k] = make_float2(v[k].x * fu * fd, v[k].y * fu * fd);
        }
        re = make_float4(re.x + v[0].x, re.y + v[1].x, re.z + v[2].x, re.w + v[3].x);
        im = make_float4(im.x + v[0].y, im.y + v[1].y, im.z + v[2].y, im.w + v[3].y);
    }
    sums[2 * at] = re;
    sums[2 * at + 1] = im;
}

// The scale that takes a channel's sums, at most `top` and of sum |.| `all`, to half: nothing on
// the way back exceeds 2^15, as LONG_IMPULSE / (16 R 4096) sum |.| of a row is what may come
// together.
__device__ __forceinline__ float long_scale(const float2 *part, int pieces)
{
    float top = 0, all = 0;
    for (int p = 0; p < pieces; p++) {
        top = fmaxf(top, part[p].x);
        all += part[p].y;
    }
    return fminf(hb_fused_scale(all, 20), hb_fused_scale(top, 15));
}

// spectrum (channels, quads) of 4 half2 = sums, scaled. Grid as long_correlate.
static __global__ void __launch_bounds__(256)
long_halve(uint4 *spectrum, const float4 *sums, const float2 *part, int pieces, int quads)
{
    const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    const float s = long_scale(part + at / quads * pieces, pieces);
    const float4 re = sums[2 * at], im = sums[2 * at + 1];
    spectrum[at] = make_uint4(hb_pack(re.x * s, im.x * s), hb_pack(re.y * s, im.y * s),
                              hb_pack(re.z * s, im.z * s), hb_pack(re.w * s, im.w * s));
}

// back (channels) for columns_out.
static __global__ void long_backs(float *back, const float2 *part, int pieces, int channels,
                                  float by)
{
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c < channels) back[c] = by / long_scale(part + c * pieces, pieces);
}

// mid (rows k1, 2, N2): an impulse in every row. Grid (rows N2 / 1024): 16 bytes a thread.
static __global__ void __launch_bounds__(256) long_impulses(uint4 *mid, int N2)
{
    const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    mid[at] = make_uint4(at % (N2 / 4) == 0 ? hb_pack(LONG_IMPULSE, 0) : 0, 0, 0, 0);
}

// part (channels, pieces).x (+)= sum of dy u of a piece of all rows. Grid (channels pieces).
template <class T>
__global__ void __launch_bounds__(256)
long_dot(float *part, struct column_rows ju, struct column_rows jdy, bool start)
{
    __shared__ float sums[8];
    const int64_t c = blockIdx.x / (unsigned)ju.pieces;
    const int piece = (int)(blockIdx.x % (unsigned)ju.pieces);
    const int per = (ju.L + ju.pieces - 1) / ju.pieces;
    const int to = min(ju.L, (piece + 1) * per);
    float sum = 0;
    for (int b = 0; b < ju.batch; b++) {
        const T *u = (const T *)ju.x + c * ju.sx.c + b * ju.sx.b;
        const T *dy = (const T *)jdy.x + c * jdy.sx.c + b * jdy.sx.b;
        for (int t = piece * per + (int)threadIdx.x; t < to; t += 256)
            sum += hb_load(u[t]) * hb_load(dy[t]);
    }
#pragma unroll
    for (int w = 16; w; w /= 2)
        sum += __shfl_xor_sync(~0u, sum, w);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < 8; w++)
        sum += sums[w];
    part[blockIdx.x] = sum + (start ? 0 : part[blockIdx.x]);
}

static __global__ void long_add(float *dd, const float *part, int pieces, int channels)
{
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    float sum = 0;
    for (int p = 0; p < pieces; p++)
        sum += part[c * pieces + p];
    dd[c] += sum;
}

// --- host --------------------------------------------------------------------------------------
// Rows of j to their transforms in `mid` (in place), in the rows' own order.
template <class T>
static inline void long_transform(const struct long_plan *s, struct column_rows j, int64_t rows,
                                  __half *mid, cudaStream_t stream)
{
    launch_parts<T>(j, rows, stream);
    launch_in<T>(j, rows, &s->columns, mid, stream);
    const struct hb_fused_mid m = { .mid = mid, .spectrum = mid, .gain = s->keep,
                                    .matrix = s->matrix, .channels = rows, .batch = 1,
                                    .R1 = s->columns.R1, .R = s->R };
    hb_fused_mid_spectrum(&m, stream);
}

// dh of n channels: sums to dh (n,L) +=.
static inline void long_return(const struct long_plan *s, float *dh, int64_t n, cudaStream_t stream)
{
    const int quads = (int)(s->N / 4), N2 = s->columns.N2;
    const unsigned grid = (unsigned)(n * (quads / 256));
    // Parts of the sums, as those of rows of 2 N floats.
    const struct column_rows all = { s->sums, { 0, 2 * s->N }, s->part, 1, (int)(2 * s->N),
                                     COLUMN_PIECES, NULL, NULL };
    launch_parts<float>(all, n, stream);
    long_halve<<<grid, 256, 0, stream>>>((uint4 *)s->other, s->sums, s->part, COLUMN_PIECES, quads);
    const float by = 2.0f * s->R * (float)s->N / (16384.0f * 16384.0f);
    long_backs<<<(unsigned)((n + 127) / 128), 128, 0, stream>>>(s->back_dh, s->part, COLUMN_PIECES,
                                                              (int)n, by);
    long_impulses<<<grid, 256, 0, stream>>>((uint4 *)s->mid, N2);
    struct hb_fused_mid m = long_mid(s, 0, n, 1);
    m.spectrum = s->other;
    hb_fused_mid_convolve(&m, false, stream);
    const struct column_rows j = { dh, { 0, s->L }, s->part, 1, (int)s->L, s->pieces,
                                   NULL, NULL };
    launch_out<float>(j, n, &s->columns, s->mid, s->back_dh, { NULL, { 0, 0 }, NULL }, stream);
}

template <class T>
static inline void long_gradient_of(const struct long_plan *s, const struct hb_longconv_io *io,
                                    cudaStream_t stream)
{
    const int quads = (int)(s->N / 4);
    for (int64_t c = 0; c < s->D; c += s->dh.channels) {
        const int64_t n = s->D - c < s->dh.channels ? s->D - c : s->dh.channels;
        for (int64_t b = 0; b < s->B; b += s->dh.batch) {
            const int64_t batch = s->B - b < s->dh.batch ? s->B - b : s->dh.batch;
            const struct column_rows ju = { (T *)io->u + c * io->su.c + b * io->su.b, io->su,
                                            s->part, (int)batch, (int)s->L, s->pieces,
                                            NULL, NULL };
            const struct column_rows jdy = { (T *)io->dy + c * io->sdy.c + b * io->sdy.b, io->sdy,
                                             s->part_dy, (int)batch, (int)s->L, s->pieces,
                                             NULL, NULL };
            long_transform<T>(s, ju, n * batch, s->other, stream);
            long_transform<T>(s, jdy, n * batch, s->mid, stream);
            long_correlate<<<(unsigned)(n * (quads / 256)), 256, 0, stream>>>(
                s->sums, (const uint4 *)s->other, (const uint4 *)s->mid, ju, jdy, quads, b == 0);
            if (io->dd)
                long_dot<T><<<(unsigned)(n * s->pieces), 256, 0, stream>>>(s->dots, ju, jdy,
                                                                          b == 0);
        }
        long_return(s, (float *)io->dh + c * s->L, n, stream);
        if (io->dd)
            long_add<<<(unsigned)((n + 127) / 128), 128, 0, stream>>>((float *)io->dd + c, s->dots,
                                                                    s->pieces, (int)n);
    }
}

// dh += ..., dd += ...
static inline void long_gradient(const struct long_plan *s, const struct hb_longconv_io *io,
                                 cudaStream_t stream)
{
    if (s->dtype == HB_F16) long_gradient_of<__half>(s, io, stream);
    else long_gradient_of<__nv_bfloat16>(s, io, stream);
}

// --- the method --------------------------------------------------------------------------------
static const char *long_refuses(const struct hb_problem *p)
{
    if (p->gated) return "gates beyond L = 32768";
    return p->filter == HB_FILTER_FIXED && p->backward && p->L > 1 << 21
           ? "gradients with a fixed filter beyond L = 2^21: more than 64 MB of workspace" : NULL;
}

static int long_plan_make(const struct hb_host *host, const struct hb_problem *p,
                          const struct fused_choice *choice, void **st)
{
    struct long_plan *s = (struct long_plan *)host->alloc(host, sizeof *s);
    *st = s;
    if (!s) return HB_ERR_OOM;
    const int R1 = choice->R1, N2 = choice->R * 256;
    *s = { .host = host, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D,
           .N = (int64_t)R1 * N2, .R = choice->R, .fixed = p->filter == HB_FILTER_FIXED,
           .pieces = column_pieces(p->L) };
    long_sizes(s);
    const struct hb_device *dev = host->device;
    const cudaStream_t stream = (cudaStream_t)dev->stream;
    int rc = long_take_all(s, p->backward);
    if (!rc) {
        s->tables = dev->alloc(dev, column_tables_bytes(R1, N2));
        if (!s->tables) rc = HB_ERR_OOM;
    }
    if (!rc) rc = hb_fused_sms(host, &s->sms);
    if (!rc) rc = hb_fused_constants(host, &s->matrix, s->R, 0);
    if (!rc) rc = hb_fused_mid_init(host, s->R);
    if (rc) return rc;
    s->columns = column_tables_make(s->tables, R1, N2, stream);
    const int rows_dh = (int)(s->dh.channels * s->dh.batch);
    if (p->backward)
        long_fill<<<(rows_dh + 127) / 128, 128, 0, stream>>>(s->keep, LONG_KEEP, rows_dh);
    rc = hb_cuda_launched(host, "longconv_fused_cuda plan");
    return rc ? rc : dev->sync(dev, stream);
}

static void long_forward(const void *st, const struct hb_longconv_io *v, cudaStream_t stream)
{
    long_run((const struct long_plan *)st, (const float *)v->h, (const float *)v->d, v->u, v->su,
             v->y, v->sy, false, stream);
}

static void long_backward(const void *st, const struct hb_longconv_io *v, cudaStream_t stream)
{
    const struct long_plan *s = (const struct long_plan *)st;
    long_run(s, (const float *)v->h, (const float *)v->d, v->dy, v->sdy, v->du, v->sdu, true,
             stream);
    long_gradient(s, v, stream);
}

static void long_set_filter(const void *st, const float *h, cudaStream_t stream)
{
    long_filter((const struct long_plan *)st, h, stream);
}

static int long_describe(const void *st, char *buf, size_t cap)
{
    const struct long_plan *s = (const struct long_plan *)st;
    return snprintf(buf, cap, "N = %d x %d x 256, chunks of %lld channels by %lld",
                    s->columns.R1, s->R, (long long)s->chunk.channels, (long long)s->chunk.batch);
}

static const struct fused_method fused_long = {
    .name = "three phases", .refuses = long_refuses, .plan = long_plan_make,
    .forward = long_forward, .backward = long_backward, .set_filter = long_set_filter,
    .describe = long_describe, .free = long_free,
};
#endif
