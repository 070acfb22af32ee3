// longconv_fused_cuda.cu: causal long convolution by a right-angle transform that stays in one
// block, on tensor cores, CUDA.
//     y[b,c,t] = sum_{s=0..t} h[c,s] u[b,c,t-s] + d[c] u[b,c,t]   u,y (B,D,L)  f16 bf16
//     h (D,L), d (D) float32
// Method    N = R 256 points, N >= L: no zero padding (fused/mma.cuh); kernels: fused/rows.cuh.
//           h is measured (powers of two), transformed to half2 in the kernels' own order, d added
//           to h[0]; then one kernel reads u and writes y.
// Cost      a sample 8 R + 512 flop of tensor cores, 4 bytes of device memory and 4 / B more.
//           Workspace: 4 N bytes a channel (the spectrum); backward, N > 16384, WORK bytes more.
//           Backward: du as forward with the conjugate spectrum; dh two transforms there a row.
// Source    Poli et al. 2023, arXiv:2302.10866; Fu et al. 2023, arXiv:2311.05908 (Monarch order on
//           tensor cores); Nicholson 1971 and Crandall, Fagin 1994 for right-angle convolution.
// Accuracy  rel. L2, emulated: f16 7.5e-4, bf16 1.8e-3, dh 7e-4.
// Refuses   f32, f64, L > 32768.
#include <stdio.h>

#include "fused/rows_dh.cuh"

// Rows of G by length: the shortest N = R 256 >= L. (Measured times go beside this table.)
static const int CHOICE[] = { 4, 8, 16, 32, 48, 64, 96, 128 };
enum { MAX_L = 128 * 256, BLOCKS = 2112 };     // blocks that keep a GPU busy: 132 x 16
static const int64_t WORK = 52 << 20;          // bytes for hb_rows_dh at most (L2 has 50 MB)

struct state {
    const struct hb_host *host;    // borrowed until destroy
    enum hb_dtype dtype;
    int64_t B, L, D;
    int R;
    bool fixed, backward;
    int dh_blocks;
    float4 *scratch;               // owned, or NULL: hb_rows_dh
    uint4 *matrix, *spectrum;      // owned; spectrum (D, N) half2
    float *factors;                // owned: scale (D), gain (D), undo (D)
};

static const char *refuses(const struct hb_problem *p)
{
    if (p->L > MAX_L) return "L > 32768";
    if (p->D > INT32_MAX || p->B > INT32_MAX / 2) return "B or D beyond 2^30";
    return NULL;
}

static int choose(int64_t L)
{
    size_t i = 0;
    while (CHOICE[i] * 256 < L) i++;
    return CHOICE[i];
}

// --- launches -----------------------------------------------------------------------------------
static void launch_spectrum(const struct state *s, const float *h, const float *d,
                            cudaStream_t stream)
{
    float *const scale = s->factors, *const gain = scale + s->D, *const undo = gain + s->D;
    hb_measure_filter<<<(unsigned)s->D, 256, 0, stream>>>(scale, gain, undo, h, d, s->L,
                                                         (float)(s->R * 256));
    const struct hb_fused_job job = { .in = h, .si = { 0, s->L }, .spectrum = s->spectrum, .d = d,
                                      .scale = scale, .gain = gain, .matrix = s->matrix,
                                      .D = (int)s->D, .L = (int)s->L };
    hb_by_rows(s->R, [&](auto r) {
        constexpr int R = decltype(r)::value;
        hb_rows_spectrum<R><<<(unsigned)((s->D + HB_PACK<R> - 1) / HB_PACK<R>), HB_ROWS_THREADS<R>,
                              HB_ROWS_SHARED<R>, stream>>>(job);
    });
}

static void launch_rows(const struct state *s, struct hb_fused_job job, cudaStream_t stream)
{
    job.spectrum = s->spectrum;
    job.undo = s->factors + 2 * s->D;
    job.matrix = s->matrix;
    job.B = (int)s->B;
    job.D = (int)s->D;
    job.L = (int)s->L;
    hb_by_rows(s->R, [&](auto r) {
        constexpr int R = decltype(r)::value;
        const int64_t tiles = (s->B + HB_PACK<R> - 1) / HB_PACK<R>;
        int64_t chunks = (BLOCKS + s->D - 1) / s->D;
        if (chunks > tiles) chunks = tiles;
        job.tiles = (int)((tiles + chunks - 1) / chunks);
        job.chunks = (int)((tiles + job.tiles - 1) / job.tiles);
        const unsigned grid = (unsigned)(s->D * job.chunks);
        if (s->dtype == HB_F16)
            hb_rows<__half, R><<<grid, HB_ROWS_THREADS<R>, HB_ROWS_SHARED<R>, stream>>>(job);
        else
            hb_rows<__nv_bfloat16, R><<<grid, HB_ROWS_THREADS<R>, HB_ROWS_SHARED<R>, stream>>>(job);
    });
}

// A fresh spectrum has d in it; a fixed one cannot.
static const float *skip_of(const struct state *s, const struct hb_longconv_io *v)
{
    return s->fixed ? (const float *)v->d : NULL;
}

static void launch_dh(const struct state *s, const struct hb_longconv_io *v, cudaStream_t stream)
{
    const struct hb_fused_dh job = { .dy = v->dy, .sdy = v->sdy, .u = v->u, .su = v->su,
                                     .dh = (float *)v->dh, .dd = (float *)v->dd,
                                     .matrix = s->matrix, .scratch = s->scratch,
                                     .B = (int)s->B, .D = (int)s->D, .L = (int)s->L };
    hb_by_rows(s->R, [&](auto r) {
        constexpr int R = decltype(r)::value;
        const unsigned grid = (unsigned)s->dh_blocks;
        if (s->dtype == HB_F16)
            hb_rows_dh<__half, R><<<grid, HB_ROWS_THREADS<R>, HB_DH_SHARED<R>, stream>>>(job);
        else
            hb_rows_dh<__nv_bfloat16, R><<<grid, HB_ROWS_THREADS<R>, HB_DH_SHARED<R>,
                                          stream>>>(job);
    });
}

static int forward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    const struct hb_longconv_io *v = &io->conv;
    const cudaStream_t stream = (cudaStream_t)io->stream;
    if (!s->fixed) launch_spectrum(s, (const float *)v->h, (const float *)v->d, stream);
    launch_rows(s, { .in = v->u, .si = v->su, .out = v->y, .so = v->sy, .d = skip_of(s, v) },
                stream);
    return hb_cuda_launched(s->host, "longconv_fused_cuda forward");
}

// The forward before it left the spectrum.
static int backward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    const struct hb_longconv_io *v = &io->conv;
    const cudaStream_t stream = (cudaStream_t)io->stream;
    if (!s->backward)
        return s->host->fail(s->host, HB_ERR_INPUT,
                             "longconv_fused_cuda: not planned for backward");
    launch_rows(s, { .in = v->dy, .si = v->sdy, .out = v->du, .so = v->sdu, .d = skip_of(s, v),
                     .adjoint = true }, stream);
    launch_dh(s, v, stream);
    return hb_cuda_launched(s->host, "longconv_fused_cuda backward");
}

static int set_filter(void *st, const void *h)
{
    const struct state *s = (const struct state *)st;
    launch_spectrum(s, (const float *)h, NULL, (cudaStream_t)s->host->device->stream);
    return hb_cuda_launched(s->host, "longconv_fused_cuda set_filter");
}

// --- plan ---------------------------------------------------------------------------------------
static void destroy(void *st)
{
    struct state *s = (struct state *)st;
    if (!s) return;
    const struct hb_device *dev = s->host->device;
    void *const owned[] = { s->matrix, s->spectrum, s->factors, s->scratch };
    for (void *p : owned)
        if (p) dev->free(dev, p);
    s->host->free(s->host, s);
}

// The constants, from float64.
static int upload_matrix(struct state *s)
{
    const struct hb_device *dev = s->host->device;
    const size_t bytes = (size_t)hb_fused_words(s->R) * sizeof(uint32_t);
    s->matrix = (uint4 *)dev->alloc(dev, bytes);
    uint32_t *const words = (uint32_t *)s->host->alloc(s->host, bytes);
    int rc = s->matrix && words ? HB_OK : HB_ERR_OOM;
    if (!rc) {
        hb_fused_constants(words, s->R, 0.25);
        rc = dev->upload(dev, s->matrix, words, bytes, dev->stream);
        if (!rc) rc = dev->sync(dev, dev->stream);
    }
    s->host->free(s->host, words);
    return rc;
}

// Kernels may use as much shared memory as they need; a GPU with less of it is refused here.
static int allow_shared(const struct state *s)
{
    int dev, most = 0;
    int rc = HB_CUDA(s->host, cudaGetDevice(&dev));
    if (!rc)
        rc = HB_CUDA(s->host, cudaDeviceGetAttribute(
            &most, cudaDevAttrMaxSharedMemoryPerBlockOptin, dev));
    hb_by_rows(s->R, [&](auto r) {
        constexpr int R = decltype(r)::value;
        const void *const kernels[] = { (const void *)hb_rows<__half, R>,
                                        (const void *)hb_rows<__nv_bfloat16, R>,
                                        (const void *)hb_rows_spectrum<R>,
                                        (const void *)hb_rows_dh<__half, R>,
                                        (const void *)hb_rows_dh<__nv_bfloat16, R> };
        if (!rc && most < (s->backward ? HB_DH_SHARED<R> : HB_ROWS_SHARED<R>))
            rc = s->host->fail(s->host, HB_ERR_REFUSED,
                               "longconv_fused_cuda: L %lld needs %d bytes of"
                               " shared memory, there are %d", (long long)s->L,
                               s->backward ? HB_DH_SHARED<R> : HB_ROWS_SHARED<R>, most);
        for (size_t i = 0; i < (s->backward ? 5 : 3); i++)
            if (!rc)
                rc = HB_CUDA(s->host, cudaFuncSetAttribute(
                    kernels[i], cudaFuncAttributeMaxDynamicSharedMemorySize,
                    i < 3 ? HB_ROWS_SHARED<R> : HB_DH_SHARED<R>));
    });
    return rc;
}

// Blocks of hb_rows_dh: one a channel, or where they need device memory as many as run at a time.
static int take_scratch(struct state *s)
{
    int rc = HB_OK;
    s->dh_blocks = (int)s->D;
    hb_by_rows(s->R, [&](auto r) {
        constexpr int R = decltype(r)::value;
        if (HB_DH_NEAR<R>) return;
        const int64_t fits = WORK / (HB_DH_SCRATCH<R> + 1);
        if (s->dh_blocks > fits) s->dh_blocks = (int)fits;
        const struct hb_device *dev = s->host->device;
        s->scratch = (float4 *)dev->alloc(dev, (size_t)s->dh_blocks * HB_DH_SCRATCH<R>);
        if (!s->scratch) rc = HB_ERR_OOM;
    });
    return rc;
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    struct state *s = (struct state *)host->alloc(host, sizeof *s);
    if (!s) return HB_ERR_OOM;
    *s = { .host = host, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D, .R = choose(p->L),
           .fixed = p->filter == HB_FILTER_FIXED, .backward = p->backward };
    const struct hb_device *dev = host->device;
    s->spectrum = (uint4 *)dev->alloc(dev, (size_t)(s->D * s->R * 256 * 4));
    s->factors = (float *)dev->alloc(dev, (size_t)(s->D * 3) * sizeof(float));
    int rc = s->spectrum && s->factors ? HB_OK : HB_ERR_OOM;
    if (!rc) rc = upload_matrix(s);
    if (!rc) rc = allow_shared(s);
    if (!rc && s->backward) rc = take_scratch(s);
    if (rc) {
        destroy(s);
        return rc;
    }
    *st = s;
    return HB_OK;
}

static int describe(const void *st, char *buf, size_t cap)
{
    const struct state *s = (const struct state *)st;
    snprintf(buf, cap, "N = %d x 256, right angle, half2 in shared memory, mma", s->R);
    return HB_OK;
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "longconv_fused_cuda",
    .op = HB_LONGCONV,
    .device = "cuda",
    .dtypes = 1u << HB_F16 | 1u << HB_BF16,
    .source = "Poli et al. 2023, arXiv:2302.10866; right-angle transform on tensor cores",
    .complexity = "O(L log L)",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .set_filter = set_filter,
    .describe = describe,
};
