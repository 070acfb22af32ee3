// cpu.h: what the files of the CPU device share. cpu.c has the table; cpu_gemm.c, cpu_nn.c,
// cpu_seq.c and cpu_filter.c have the primitives by topic. The contract of each primitive is in
// core/device.h.
#ifndef HB_DEVICE_CPU_H
#define HB_DEVICE_CPU_H

#include <assert.h>

#include "../core/device.h"

const struct hb_device *hb_device_cpu(const struct hb_host *host);

// Threads for a loop over n elements: one where starting the others would cost more than it saves.
int cpu_threads(int64_t n);
int cpu_all_threads(void);

// Sums in double over blocks that are summed in float: the error does not grow with n, the order is
// fixed.
double cpu_sum(const float *x, int64_t n);
double cpu_dot(const float *a, const float *b, int64_t n);

// An activation: float32 is what this device has.
static inline float *cpu_act(void *x, struct hb_on on)
{
    assert(on.t == HB_F32);
    return (void)on, x;
}
static inline const float *cpu_act_const(const void *x, struct hb_on on)
{
    assert(on.t == HB_F32);
    return (void)on, x;
}

void cpu_gemm(const struct hb_gemm *g, struct hb_on on);
void cpu_cast(void *dst, enum hb_dtype to, const void *src, enum hb_dtype from, int64_t n, void *s);

void cpu_layernorm_fwd(void *y, float *mean, float *rstd, const void *x, const float *g,
                       const float *b, int64_t R, int64_t C, struct hb_on on);
void cpu_layernorm_bwd(void *dx, float *dg, float *db, const void *dy, const void *x,
                       const float *mean, const float *rstd, const float *g, int64_t R, int64_t C,
                       struct hb_on on);
void cpu_embed_fwd(void *x, const void *W, const void *pos, const int32_t *tok, int64_t R,
                   int64_t L, int64_t C, struct hb_on on);
void cpu_embed_bwd(float *dW, float *dpos, const void *dx, const int32_t *tok, int64_t R,
                   int64_t L, int64_t C, int64_t V, struct hb_on on);
void cpu_xent(float *nll, void *dz, const void *z, const int32_t *target, float scale, int64_t R,
              int64_t V, struct hb_on on);
void cpu_adamw(float *w, float *m, float *v, void *low, const float *g, float gscale,
               struct hb_adamw o, int64_t n, struct hb_on on);

void cpu_shortconv_fwd(void *y, const void *p, const float *bp, const float *w, const float *bs,
                       int64_t C, int64_t B, int64_t L, int K, struct hb_on on);
void cpu_shortconv_bwd(void *dp, float *dw, float *dbs, float *dbp, const void *dy, const void *p,
                       const float *bp, const float *w, int64_t C, int64_t B, int64_t L, int K,
                       struct hb_on on);
void cpu_taps_fwd(void *y, const void *a, struct hb_conv_tap ta, const void *b,
                  struct hb_conv_tap tb, int64_t C, int64_t B, int64_t L, int K,
                  struct hb_on on);
void cpu_taps_bwd(void *da, void *db, const void *dy, const void *a, struct hb_conv_tap ta,
                  const void *b, struct hb_conv_tap tb, int64_t C, int64_t B, int64_t L, int K,
                  struct hb_on on);
void cpu_swap(void *y, const void *x, int64_t a, int64_t i, int64_t j, int64_t k, struct hb_on on);
void cpu_rope(void *x, int64_t R, int64_t L, int64_t H, int64_t P, int64_t ld, bool inverse,
              struct hb_on on);

size_t cpu_filter_ws(struct hb_filter_shape f);
int cpu_filter_fwd(const struct hb_device *d, float *h, struct hb_filter_shape f,
                   struct hb_filter_params p, void *ws, struct hb_on on);
int cpu_filter_bwd(const struct hb_device *d, const float *dh, struct hb_filter_shape f,
                   struct hb_filter_params p, struct hb_filter_params grads, void *ws,
                   struct hb_on on);

#endif
