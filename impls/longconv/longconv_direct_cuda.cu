// longconv_direct_cuda.cu: causal long convolution by its definition, as Toeplitz products, CUDA.
//     y[b,c,t] = sum_{s=0..t} h[c,s] u[b,c,t-s] + d[c] u[b,c,t]   u,y (B,D,L)  f16 bf16 f32
//     h (D,L), d (D) float32
// Method    The Toeplitz method of longconv_fused_cuda at every length: fused/toeplitz_method.cuh,
//           kernels beside it.
// Cost      about B D L (L + 64) flop a pass (bf16: y and du twice), triangle only; workspace: the
//           windows (4 L bytes a channel; bf16 8 L, f32 4 L), backward 8 L bytes a channel, both at
//           most 64 MB by taking groups of channels, except for fixed filters.
// Source    Poli et al. 2023, arXiv:2302.10866, section 2, equation 1; PTX ISA, mma.m16n8k16,
//           wgmma.m64n64k16 and its 128-byte swizzle.
// Accuracy  rel. L2: f16 4e-4, bf16 1.7e-3 (rounding of the output), f32 5e-7 (sums of 64 terms,
//           added with compensation). Tensor cores truncate: equal terms drift by 2e-4 at 2^17.
// Refuses   f64; L > 2^18, where nobody should do this (and the drift would show).
// hb-arch: 90a 80
#include "fused/toeplitz_method.cuh"

struct state {
    const struct hb_host *host;    // borrowed until destroy
    bool backward;
    void *toeplitz;                // owned
};

static const char *refuses(const struct hb_problem *p) { return fused_toeplitz.refuses(p); }

static void destroy(void *st)
{
    struct state *s = (struct state *)st;
    if (!s) return;
    fused_toeplitz.free(s->toeplitz);
    s->host->free(s->host, s);
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    struct state *s = (struct state *)host->alloc(host, sizeof *s);
    if (!s) return HB_ERR_OOM;
    *s = { .host = host, .backward = p->backward };
    const int rc = fused_toeplitz.plan(host, p, NULL, &s->toeplitz);
    if (rc) {
        destroy(s);
        return rc;
    }
    *st = s;
    return HB_OK;
}

static int forward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    fused_toeplitz.forward(s->toeplitz, &io->conv, (cudaStream_t)io->stream);
    return hb_cuda_launched(s->host, "longconv_direct_cuda forward");
}

static int backward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    if (!s->backward)
        return s->host->fail(s->host, HB_ERR_INPUT,
                             "longconv_direct_cuda: not planned for backward");
    fused_toeplitz.backward(s->toeplitz, &io->conv, (cudaStream_t)io->stream);
    return hb_cuda_launched(s->host, "longconv_direct_cuda backward");
}

static int set_filter(void *st, const void *h)
{
    const struct state *s = (const struct state *)st;
    fused_toeplitz.set_filter(s->toeplitz, (const float *)h,
                              (cudaStream_t)s->host->device->stream);
    return hb_cuda_launched(s->host, "longconv_direct_cuda set_filter");
}

static int describe(const void *st, char *buf, size_t cap)
{
    fused_toeplitz.describe(((const struct state *)st)->toeplitz, buf, cap);
    return HB_OK;
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "longconv_direct_cuda",
    .op = HB_LONGCONV,
    .device = "cuda",
    .dtypes = 1u << HB_F32 | 1u << HB_F16 | 1u << HB_BF16,
    .source = "Poli et al. 2023, arXiv:2302.10866, sec. 2; Toeplitz products on tensor cores",
    .complexity = "O(L^2)",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .set_filter = set_filter,
    .describe = describe,
};
