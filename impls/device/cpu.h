// cpu.h: what the files of the CPU device share. cpu.c has the table; cpu_nn.c, cpu_seq.c and
// cpu_filter.c have the primitives by topic. The contract of each primitive is in core/device.h.
#ifndef HB_DEVICE_CPU_H
#define HB_DEVICE_CPU_H

#include "../core/device.h"

const struct hb_device *hb_device_cpu(const struct hb_host *host);

// Threads for a loop over n elements: one where starting the others would cost more than it saves.
int cpu_threads(int64_t n);
int cpu_all_threads(void);

// Sums in double over blocks that are summed in float: the error does not grow with n, the order is
// fixed.
double cpu_sum(const float *x, int64_t n);
double cpu_dot(const float *a, const float *b, int64_t n);

void cpu_layernorm_fwd(float *y, float *mean, float *rstd, const float *x, const float *g,
                       const float *b, int64_t R, int64_t C, void *s);
void cpu_layernorm_bwd(float *dx, float *dg, float *db, const float *dy, const float *x,
                       const float *mean, const float *rstd, const float *g, int64_t R, int64_t C,
                       void *s);
void cpu_gelu_fwd(float *y, const float *x, int64_t n, void *s);
void cpu_gelu_bwd(float *dx, const float *dy, const float *x, int64_t n, void *s);
void cpu_embed_fwd(float *x, const float *W, const float *pos, const int32_t *tok, int64_t R,
                   int64_t L, int64_t C, void *s);
void cpu_embed_bwd(float *dW, float *dpos, const float *dx, const int32_t *tok, int64_t R,
                   int64_t L, int64_t C, int64_t V, void *s);
void cpu_xent(float *nll, float *dz, const float *z, const int32_t *target, float scale, int64_t R,
              int64_t V, void *s);
void cpu_adamw(float *w, float *m, float *v, const float *g, float gscale, struct hb_adamw o,
               int64_t n, void *s);

void cpu_shortconv_fwd(float *y, const float *p, const float *bp, const float *w, const float *bs,
                       int64_t C, int64_t B, int64_t L, int K, void *s);
void cpu_shortconv_bwd(float *dp, float *dw, float *dbs, float *dbp, const float *dy,
                       const float *p, const float *bp, const float *w, int64_t C, int64_t B,
                       int64_t L, int K, void *s);
void cpu_heads_split(float *q, float *k, float *v, const float *p, int64_t B, int64_t H, int64_t L,
                     int64_t P, bool rope, void *s);
void cpu_heads_merge(float *dp, const float *dq, const float *dk, const float *dv, int64_t B,
                     int64_t H, int64_t L, int64_t P, bool rope, void *s);
void cpu_heads_join(float *y, const float *x, int64_t B, int64_t H, int64_t L, int64_t P, void *s);
void cpu_heads_unjoin(float *dx, const float *dy, int64_t B, int64_t H, int64_t L, int64_t P,
                      void *s);

size_t cpu_filter_ws(struct hb_filter_shape f);
int cpu_filter_fwd(const struct hb_device *d, float *h, struct hb_filter_shape f,
                   struct hb_filter_params p, void *ws, void *s);
int cpu_filter_bwd(const struct hb_device *d, const float *dh, struct hb_filter_shape f,
                   struct hb_filter_params p, struct hb_filter_params grads, void *ws, void *s);

#endif
