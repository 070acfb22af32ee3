// rows.cuh: transform, product with the spectrum, and way back of rows that fit into one block.
// (Interface first; the kernels follow.)
#ifndef HB_FUSED_ROWS_CUH
#define HB_FUSED_ROWS_CUH

#include "mma.cuh"

// Complex rows, in place, for three phases. mid: [channels][batch][R1][2][N2] halves, 16-byte
// aligned, as mma.cuh says; N2 = R 256, R = 16, 32, 48, 64. Each row k1 is transformed, multiplied
// by its spectrum, transformed back and multiplied by conj(T)(k1, r) R1 (in f32, before rounding),
// so that the columns' way back is only conj(G). N = R1 N2.
//   spectrum  [channels][R1][N2] half2, 16-byte aligned, in the kernel's order
//   matrix    hb_fused_matrix(R, 0), then (R = 1 there is none) hb_fused_matrix(16, 0) behind it
struct hb_fused_mid {
    void *mid;
    void *spectrum;
    const float *gain;         // (channels): spectrum only, see mma.cuh
    const uint4 *matrix;
    int64_t channels, batch;
    int R1, R;
};
// spectrum = of mid (batch 1), times gain; mid is left alone.
static inline void hb_fused_mid_spectrum(const struct hb_fused_mid *m, cudaStream_t stream);
// mid = transformed back of (transform of mid times spectrum); `adjoint`: conj(spectrum).
static inline void hb_fused_mid_convolve(const struct hb_fused_mid *m, bool adjoint,
                                         cudaStream_t stream);

#endif
