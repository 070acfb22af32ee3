// device.h: the primitives that hyena, mha and the language model are written over; one table
// per device.
//
// All tensors are float32 device memory, dense row-major. Every primitive is checked against its
// float64 twin in impls/reference. Work goes on `s` (a stream; NULL on cpu) and is ordered; only
// `sync` waits. Sizes are int64_t. `+=` below means accumulates. Nothing allocates except `alloc`;
// primitives that need scratch take it as `ws`. Functions return 0 or HB_ERR_*; cpu compute entries
// cannot fail and return void. Reductions are in a fixed order: the same call twice gives the same
// bits (for a fixed thread count).
#ifndef HB_DEVICE_H
#define HB_DEVICE_H

#include "hb.h"

struct hb_adamw { float lr, beta1, beta2, eps, weight_decay; int64_t step; };  // step counts from 1

struct hb_filter_shape { int64_t L, lmax; int channels, emb_dim, width; float shift; bool window; };
// The implicit filter's parameters (hyena_spec section 2) and, for the backward pass,
// their gradients (+=).
struct hb_filter_params {
    float *z;                  // (lmax,E) positional table; gradient only if train_z, else NULL
    float *w1, *b1, *w2, *b2, *w3, *b3, *w4, *freq;   // (W,E) (W) (W,W) (W) (W,W) (W) (C,W) (W)
};

struct hb_device {
    const char *name;          // "cpu", "cuda"
    void *ctx;

    void *(*alloc)(const struct hb_device *d, size_t bytes);   // counted, limited; NULL: failed
    void (*free)(const struct hb_device *d, void *p);
    int (*upload)(const struct hb_device *d, void *dst, const void *src_host, size_t bytes,
                  void *s);
    int (*download)(const struct hb_device *d, void *dst_host, const void *src, size_t bytes,
                    void *s);
    void (*copy)(void *dst, const void *src, size_t bytes, void *s);
    void (*zero)(void *dst, size_t bytes, void *s);
    int (*sync)(const struct hb_device *d, void *s);           // reports what failed meanwhile
    int64_t (*now_ns)(const struct hb_device *d);
    size_t (*peak_bytes)(const struct hb_device *d);           // at most, library workspaces too
    void (*reset_peak)(const struct hb_device *d);

    // C (m,n) = alpha op(A) op(B) + beta C; op(A) is (m,k), op(B) is (k,n); ld = stored
    // row length.
    void (*gemm)(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *A,
                 int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc,
                 void *s);
    // Bias over the last axis: y (R,C) += b (C);   db (C) += column sums of dy (R,C)
    void (*bias_fwd)(float *y, const float *b, int64_t R, int64_t C, void *s);
    void (*bias_bwd)(float *db, const float *dy, int64_t R, int64_t C, void *s);
    // Layer norm over the last axis, eps 1e-5: x,y (R,C), g,b (C), mean,rstd (R).
    // dx +=, dg +=, db +=.
    void (*layernorm_fwd)(float *y, float *mean, float *rstd, const float *x, const float *g,
                          const float *b, int64_t R, int64_t C, void *s);
    void (*layernorm_bwd)(float *dx, float *dg, float *db, const float *dy, const float *x,
                          const float *mean, const float *rstd, const float *g, int64_t R,
                          int64_t C, void *s);
    // GELU, tanh form. dx = dy gelu'(x); dx may be dy.
    void (*gelu_fwd)(float *y, const float *x, int64_t n, void *s);
    void (*gelu_bwd)(float *dx, const float *dy, const float *x, int64_t n, void *s);
    // Depthwise causal filter in (C,B,L), with the projection's bias folded in front:
    //   pb = p + bp[c] (bp may be NULL; pb is 0 before t = 0)
    //   s[c,b,t] = bs[c] + sum_j w[c,j] pb[c,b,t-(K-1)+j]
    // Backward: dp = ..., dw (C,K) +=, dbs (C) +=, dbp (C) += (NULL iff bp is). p holds the
    // forward's input.
    void (*shortconv_fwd)(float *y, const float *p, const float *bp, const float *w,
                          const float *bs, int64_t C, int64_t B, int64_t L, int K, void *s);
    void (*shortconv_bwd)(float *dp, float *dw, float *dbs, float *dbp, const float *dy,
                          const float *p, const float *bp, const float *w, int64_t C, int64_t B,
                          int64_t L, int K, void *s);
    // Bias over the first axis (channel-first): y (C,R) += b (C);   db (C) += row sums
    void (*rowbias_fwd)(float *y, const float *b, int64_t C, int64_t R, void *s);
    void (*rowbias_bwd)(float *db, const float *dy, int64_t C, int64_t R, void *s);
    // Gate: y = a * b;  da = dy * b, db = dy * a  (da may be dy)
    void (*gate_fwd)(float *y, const float *a, const float *b, int64_t n, void *s);
    void (*gate_bwd)(float *da, float *db, const float *dy, const float *a, const float *b,
                     int64_t n, void *s);
    // y += x;   x *= a
    void (*add)(float *y, const float *x, int64_t n, void *s);
    void (*scale)(float *x, float a, int64_t n, void *s);
    // Split heads out of a projection written channel-first, (3D,B,L) -> q,k,v each (B,H,L,P), with
    // optional rotary positions on q and k (theta 10000, pairs (i, i+P/2)); merge is the exact
    // adjoint (dq,dk,dv -> dp).
    void (*heads_split)(float *q, float *k, float *v, const float *p, int64_t B, int64_t H,
                        int64_t L, int64_t P, bool rope, void *s);
    void (*heads_merge)(float *dp, const float *dq, const float *dk, const float *dv, int64_t B,
                        int64_t H, int64_t L, int64_t P, bool rope, void *s);
    // (B,H,L,P) -> (B,L,D) and back, for the attention output.
    void (*heads_join)(float *y, const float *x, int64_t B, int64_t H, int64_t L, int64_t P,
                       void *s);
    void (*heads_unjoin)(float *dx, const float *dy, int64_t B, int64_t H, int64_t L, int64_t P,
                         void *s);
    // Embedding: x (R,C) = W[tok[r]] (+ pos[r % L] if pos);  dW +=, dpos += in a fixed order.
    // tok: device int32.
    void (*embed_fwd)(float *x, const float *W, const float *pos, const int32_t *tok, int64_t R,
                      int64_t L, int64_t C, void *s);
    void (*embed_bwd)(float *dW, float *dpos, const float *dx, const int32_t *tok, int64_t R,
                      int64_t L, int64_t C, int64_t V, void *s);
    // Softmax cross-entropy, nats: nll[r] = -log softmax(z[r])[target[r]], 0 where target < 0
    // (ignored); if dz: dz = (softmax - onehot) * scale, 0 where ignored. z (R,V); dz may be z.
    void (*xent)(float *nll, float *dz, const float *z, const int32_t *target, float scale,
                 int64_t R, int64_t V, void *s);
    // Sum of squares of x into *out_host (double accumulation); waits.
    int (*sumsq)(const struct hb_device *d, double *out_host, const float *x, int64_t n, void *s);
    int (*sum)(const struct hb_device *d, double *out_host, const float *x, int64_t n, void *s);
    void (*adamw)(float *w, float *m, float *v, const float *g, float gscale, struct hb_adamw o,
                  int64_t n, void *s);
    // Implicit filter h (C,L) from its parameters, evaluated in float64; save: filter_ws bytes,
    // kept for bwd.
    size_t (*filter_ws)(struct hb_filter_shape f);
    int (*filter_fwd)(const struct hb_device *d, float *h, struct hb_filter_shape f,
                      struct hb_filter_params p, void *ws, void *s);
    int (*filter_bwd)(const struct hb_device *d, const float *dh, struct hb_filter_shape f,
                      struct hb_filter_params p, struct hb_filter_params grads, void *ws, void *s);
};

#endif
