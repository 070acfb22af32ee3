// longconv_fused_cuda.cu: causal long convolution that reads u and writes y once, on tensor cores,
// CUDA. This file chooses the method and is what the suite sees; the methods are in fused/.
//     y[b,c,t] = sum_{s=0..t} h[c,s] u[b,c,t-s] + d[c] u[b,c,t]   u,y (B,D,L)  f16 bf16 f32
//     h (D,L), d (D) float32; with gates and short filters (hb.h) L <= 32768, forward 131072
// Method    Short rows (fused/toeplitz_method.cuh): by definition, as Toeplitz products.
//           Right-angle transform (fused/mma.cuh): N >= L points and no zero padding.
//           L <= 32768 (fused/rows.cuh): N = R 256 in the shared memory of one block.
//           L <= 524288 (fused/cluster.cuh): N = K R 256 in that of a cluster of K blocks.
//           Longer (fused/long.cuh): N = R1 (R 256), three phases over chunks that stay in L2.
//           f32 (fused/f32.cuh): the same in float32, by FMA.
// Cost      fused/rows.cuh, fused/long.cuh; README.md. At most 64 MB of workspace beside the
//           spectra, which are 4 bytes a point and channel. A plan says what it took.
// Source    Poli et al. 2023, arXiv:2302.10866, section 2; Fu et al. 2023, arXiv:2311.05908
//           (Monarch order on tensor cores); Nicholson 1971 and Crandall, Fagin 1994 (right angle).
// Accuracy  rel. L2, emulated: f16 7.5e-4, bf16 1.8e-3, dh 8e-4.
// Refuses   f64; L > 2^22; gates with L > 32768 (forward: 131072), more than 3 taps or a fixed
//           filter; gradients with a fixed filter beyond 2^21; GPUs other than Hopper (compute
//           capability 9.0).
// hb-arch: 90a
#include "fused/method.h"
#include "fused/toeplitz_method.cuh"
#include "fused/f32.cuh"
#include "fused/rows_method.cuh"
#include "fused/cluster_method.cuh"
#include "fused/long_dh.cuh"

// The first row whose types, length and method fit does the problem. Measured beside each: forward,
// cold, f16, at README.md's B and D, ms. "-": not measured yet.
enum { F16 = 1u << HB_F16, BF16 = 1u << HB_BF16, F32 = 1u << HB_F32 };
static const struct fused_choice CHOICES[] = {
    // types          L  method        R1    R         ms
    { F16 | BF16,   1024, &fused_toeplitz, 0, 0 },  //  .124
    { F16 | BF16,   1536, &fused_toeplitz_batch, 0, 0 },    // .24, B >= 8; 2048 .378
    { F16 | BF16,   1024, &fused_rows,   1,   4 },  //  -
    { F16 | BF16,   2048, &fused_rows,   1,   8 },  //  .333
    { F16 | BF16,   4096, &fused_rows,   1,  16 },  //  .621
    { F16 | BF16,   8192, &fused_rows,   1,  32 },  //  .876
    { F16 | BF16,  12288, &fused_rows,   1,  48 },  //  -
    { F16 | BF16,  16384, &fused_rows,   1,  64 },  //  .981
    { F16 | BF16,  24576, &fused_rows,   1,  96 },  //  -
    { F16 | BF16,  32768, &fused_rows,   1, 128 },  //  1.446
    { F16 | BF16,  49152, &fused_cluster,  4,  48 },  //  -
    { F16 | BF16,  65536, &fused_cluster,  4,  64 },  //  1.330
    { F16 | BF16,  98304, &fused_cluster,  8,  48 },  //  -
    { F16 | BF16, 131072, &fused_cluster,  8,  64 },  //  1.419
    { F16 | BF16, 196608, &fused_cluster, 16,  48 },  //  -
    { F16 | BF16, 262144, &fused_cluster, 16,  64 },  //  1.555
    { F16 | BF16, 393216, &fused_long,  32,  48 },  //  -
    { F16 | BF16, 524288, &fused_cluster, 16, 128 },  //  2.077; three phases: 2.09 .. 2.10
    { F16 | BF16, 524288, &fused_long,  64,  32 },  //  with gradients; 32 x 64 bwd: 5.34
    { F16 | BF16, 786432, &fused_long,  64,  48 },  //  -
    { F16 | BF16, 1 << 20, &fused_long,  64,  64 },  //  2.124
    { F16 | BF16, 3 << 19, &fused_long, 128,  48 },  //  -
    { F16 | BF16, 1 << 21, &fused_long, 128,  64 },  //  2.251
    { F16 | BF16, 3 << 20, &fused_long, 256,  48 },  //  -
    { F16 | BF16, 1 << 22, &fused_long, 256,  64 },  //  -
    // f32: R1 columns of R points
    { F32,             64, &fused_f32,    1,    64 },  //  -
    { F32,            128, &fused_f32,    1,   128 },  //  -
    { F32,            256, &fused_f32,    1,   256 },  //  -
    { F32,            512, &fused_f32,    1,   512 },  //  -
    { F32,           1024, &fused_f32,    1,  1024 },  //  -
    { F32,           2048, &fused_f32,    1,  2048 },  //  -
    { F32,           4096, &fused_f32,    1,  4096 },  //  -
    { F32,           8192, &fused_f32,    1,  8192 },  //  -
    { F32,          16384, &fused_f32,    1, 16384 },  //  -
    { F32,          24576, &fused_f32,    3,  8192 },  //  -
    { F32,          32768, &fused_f32,    4,  8192 },  //  -
    { F32,          49152, &fused_f32,    6,  8192 },  //  -
    { F32,          65536, &fused_f32,    8,  8192 },  //  -
    { F32,          98304, &fused_f32,   12,  8192 },  //  -
    { F32,         131072, &fused_f32,   16,  8192 },  //  -
    { F32,         196608, &fused_f32,   24,  8192 },  //  -
    { F32,         262144, &fused_f32,   32,  8192 },  //  -
    { F32,         393216, &fused_f32,   48,  8192 },  //  -
    { F32,        1 << 19, &fused_f32,   64,  8192 },  //  -
    { F32,        3 << 18, &fused_f32,   96,  8192 },  //  -
    { F32,        1 << 20, &fused_f32,  128,  8192 },  //  -
    { F32,        3 << 19, &fused_f32,  192,  8192 },  //  -
    { F32,        1 << 21, &fused_f32,  256,  8192 },  //  -
    { F32,        3 << 20, &fused_f32,  384,  8192 },  //  -
    { F32,        1 << 22, &fused_f32,  512,  8192 },  //  -
};

// Its row of the table, or NULL and *why: what the first that fits has against it.
static const struct fused_choice *choose(const struct hb_problem *p, const char **why)
{
    *why = NULL;
    for (const struct fused_choice &c : CHOICES) {
        if (!(c.dtypes >> p->dtype & 1) || p->L > c.L) continue;
        const char *const not_this = c.method->refuses(p);
        if (!not_this) return &c;
        if (!*why) *why = not_this;
    }
    if (!*why) *why = "no method for this type and length";
    return NULL;
}

// The kernels use what Hopper alone has (wgmma).
static int check_gpu(const struct hb_host *host)
{
    int dev, major = 0, minor = 0;
    int rc = HB_CUDA(host, cudaGetDevice(&dev));
    if (!rc) rc = HB_CUDA(host, cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor,
                                                       dev));
    if (!rc) rc = HB_CUDA(host, cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor,
                                                       dev));
    return rc || (major == 9 && minor == 0) ? rc
         : host->fail(host, HB_ERR_REFUSED, "longconv_fused_cuda: needs a GPU of compute capability"
                      " 9.0 (Hopper), this one has %d.%d", major, minor);
}

#define FUSED_NAME "longconv_fused_cuda"
#include "fused/impl.h"

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "longconv_fused_cuda",
    .op = HB_LONGCONV,
    .device = "cuda",
    .dtypes = F16 | BF16 | F32,
    .source = "Poli et al. 2023, arXiv:2302.10866; right-angle transform on tensor cores",
    .complexity = "O(L log L)",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .set_filter = set_filter,
    .describe = describe,
    .gates = true,
};
