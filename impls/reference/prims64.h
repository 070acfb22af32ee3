// prims64.h: float64 twins of the device primitives (core/device.h has their contracts): plain
// loops, one per formula. And the checker that holds a device against them. The filter's twin also
// serves the hyena judge.
#ifndef HB_PRIMS64_H
#define HB_PRIMS64_H

#include "../core/device.h"

// C (m,n) = alpha op(A) op(B) + beta C
void hb64_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const double *A,
               int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc);
// The same with everything that core/device.h lets stand around a product; pointers to double.
void hb64_gemm_full(const struct hb_gemm *g);
void hb64_bias_fwd(double *y, const double *b, int64_t R, int64_t C);
void hb64_bias_bwd(double *db, const double *dy, int64_t R, int64_t C);
void hb64_rowbias_fwd(double *y, const double *b, int64_t C, int64_t R);
void hb64_rowbias_bwd(double *db, const double *dy, int64_t C, int64_t R);
void hb64_layernorm_fwd(double *y, double *mean, double *rstd, const double *x, const double *g,
                        const double *b, int64_t R, int64_t C);
void hb64_layernorm_bwd(double *dx, double *dg, double *db, const double *dy, const double *x,
                        const double *g, int64_t R, int64_t C);
void hb64_gelu_fwd(double *y, const double *x, int64_t n);
void hb64_gelu_bwd(double *dx, const double *dy, const double *x, int64_t n);
void hb64_shortconv_fwd(double *y, const double *p, const double *bp, const double *w,
                        const double *bs, int64_t C, int64_t B, int64_t L, int K);
void hb64_shortconv_bwd(double *dp, double *dw, double *dbs, double *dbp, const double *dy,
                        const double *p, const double *bp, const double *w, int64_t C, int64_t B,
                        int64_t L, int K);
// p (3D,B,L) -> q,k,v (B,H,L,P), or back: dp from dq,dk,dv.
void hb64_heads_split(double *q, double *k, double *v, const double *p, int64_t B, int64_t H,
                      int64_t L, int64_t P, bool rope);
void hb64_heads_merge(double *dp, const double *dq, const double *dk, const double *dv, int64_t B,
                      int64_t H, int64_t L, int64_t P, bool rope);
void hb64_heads_join(double *y, const double *x, int64_t B, int64_t H, int64_t L, int64_t P);
void hb64_swap(double *y, const double *x, int64_t a, int64_t i, int64_t j, int64_t k);
void hb64_rope(double *x, int64_t R, int64_t L, int64_t H, int64_t P, int64_t ld, bool inverse);
void hb64_embed_fwd(double *x, const double *W, const double *pos, const int32_t *tok, int64_t R,
                    int64_t L, int64_t C);
void hb64_embed_bwd(double *dW, double *dpos, const double *dx, const int32_t *tok, int64_t R,
                    int64_t L, int64_t C);
void hb64_xent(double *nll, double *dz, const double *z, const int32_t *target, double scale,
               int64_t R, int64_t V);
void hb64_adamw(double *w, double *m, double *v, const double *g, double gscale, struct hb_adamw o,
                int64_t n);

// The implicit filter (hyena_spec section 2): h (C,L) = ..., gradients +=, NULL ones skipped.
// HB_ERR_OOM or 0.
struct hb64_filter { double *z, *w1, *b1, *w2, *b2, *w3, *b3, *w4, *freq; };
int hb64_filter_fwd(double *h, const struct hb_filter_shape *f, const struct hb64_filter *p,
                    int threads);
int hb64_filter_bwd(const double *dh, const struct hb_filter_shape *f, const struct hb64_filter *p,
                    const struct hb64_filter *grads, int threads);

// Every primitive of a device, forward and backward, in every type of its activations, on small and
// ugly shapes against its twin, which sees the rounded inputs. One row for a primitive and a type;
// err and tol are the relative L2 error, over a shape, of the output that comes nearest to (or goes
// furthest beyond) its tolerance. NaN, Inf, a changed input, a write past a tensor's end, an error
// of the device and bits that differ between two runs are failures, with their reason in `detail`.
struct hb_prim_result {
    const char *name;
    enum hb_dtype dtype;                   // f32 for primitives without activations
    double err, tol;
    int shapes;
    bool ok;
    char detail[128];
};
// Fills out[0..cap) and returns how many rows there are (cap 0: only that), or HB_ERR_*.
int hb_prims_check(const struct hb_device *dev, struct hb_prim_result *out, int cap);

#endif
