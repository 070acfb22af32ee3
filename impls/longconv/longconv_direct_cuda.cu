// longconv_direct_cuda.cu: causal long convolution by its definition, as Toeplitz products, CUDA.
//     y[b,c,t] = sum_{s=0..t} h[c,s] u[b,c,t-s] + d[c] u[b,c,t]   u,y (B,D,L)  f16 bf16 f32
//     h (D,L), d (D) float32
// Method    The Toeplitz method of longconv_fused_cuda at every length: fused/toeplitz_method.cuh,
//           kernels beside it.
// Cost      about B D L (L + 64) flop a pass (bf16 above 3072: y and du twice), triangle only; the
//           windows (4 L bytes a channel; bf16 8 L, f32 4 L), backward 8 L bytes a channel, each at
//           most 64 MB by taking groups of channels, except for fixed filters.
// Source    Poli et al. 2023, arXiv:2302.10866, section 2, equation 1; PTX ISA, mma.m16n8k16,
//           wgmma.m64n64k16 and its 128-byte swizzle.
// Accuracy  rel. L2: f16 4e-4, bf16 1.7e-3 (rounding of the output), f32 5e-7 (sums of 64 terms,
//           added with compensation). Tensor cores truncate: equal terms drift by 2e-4 at 2^17.
// Refuses   f64; L > 2^18, where nobody should do this (and the drift would show).
// hb-arch: 90a 80
#include "fused/toeplitz_method.cuh"

#define FUSED_NAME "longconv_direct_cuda"
static const struct fused_choice CHOICE = { 0, toeplitz::MAX_L, &fused_toeplitz, 0, 0 };

static const struct fused_choice *choose(const struct hb_problem *p, const char **why)
{
    *why = fused_toeplitz.refuses(p);
    return *why ? NULL : &CHOICE;
}

static int check_gpu(const struct hb_host *) { return HB_OK; }

#include "fused/impl.h"

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
