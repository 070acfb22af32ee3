// device.h: the primitives that hyena, mha and the language model are written over; one table
// per device.
//
// Tensors are dense row-major device memory. Activations ("act") are of the type on.t; `float`
// tensors are float32 whatever on.t is (cpu: on.t is HB_F32). Every primitive is checked against
// its float64 twin in impls/reference, in every type of `dtypes`. Work goes on on.stream and is
// ordered; only upload, download, sync, sum, sumsq and between wait. Sizes are int64_t. `+=` below
// means accumulates. Nothing allocates except `alloc`, and everything but the waiting ones can be
// captured into a graph. Compute entries return nothing: a launch that failed is reported by the
// next `sync`. Sums are accumulated in float32 or wider; reductions are in a fixed order: the same
// call twice gives the same bits (for a fixed thread count).
#ifndef HB_DEVICE_H
#define HB_DEVICE_H

#include "hb.h"

// On what a primitive works: the type of its activations and the stream (NULL on cpu).
struct hb_on { enum hb_dtype t; void *stream; };

// x = alpha op(A) op(B) + beta C + bias;  then D = x, or D = gelu(x) and x is kept, or
// D = x gelu'(dgelu). op(A) is (m,k), op(B) is (k,n), C, D, gelu_in, dgelu (m,n) with ldd.
struct hb_gemm {
    bool ta, tb;
    int64_t m, n, k;
    float alpha, beta;
    const void *A; int64_t lda;            // act; ld = stored row length
    const void *B; int64_t ldb;            // act
    const void *C;                         // NULL: D itself. Not read where beta is 0
    void *D; int64_t ldd;
    bool out_f32;                          // C and D are float32 (gradients of parameters)
    const void *bias;                      // act (n), or NULL
    void *gelu_in;                         // act, not NULL: where x is kept; D = gelu(x)
    const void *dgelu;                     // act, not NULL: D = x gelu'(dgelu)
    int64_t batch, sA, sB, sD;             // batch > 1: so many products, strides in elements
};

struct hb_adamw { float lr, beta1, beta2, eps, weight_decay; int64_t step; };  // step counts from 1

struct hb_filter_shape { int64_t L, lmax; int channels, emb_dim, width; float shift; bool window; };
// The implicit filter's parameters (hyena_spec section 2) and, for the backward pass,
// their gradients (+=).
struct hb_filter_params {
    float *z;                  // (lmax,E) positional table; gradient only if train_z, else NULL
    float *w1, *b1, *w2, *b2, *w3, *b3, *w4, *freq;   // (W,E) (W) (W,W) (W) (W,W) (W) (C,W) (W)
};

enum { HB_MARKS = 64 };        // slots for `mark`

struct hb_device {
    const char *name;          // "cpu", "cuda"
    unsigned dtypes;           // bit set of 1u << enum hb_dtype: types of activations
    void *stream;              // the stream that this process works on; NULL on cpu

    void *(*alloc)(const struct hb_device *d, size_t bytes);   // counted, limited; NULL: failed
    void (*free)(const struct hb_device *d, void *p);
    int (*upload)(const struct hb_device *d, void *dst, const void *src_host, size_t bytes,
                  void *s);
    int (*download)(const struct hb_device *d, void *dst_host, const void *src, size_t bytes,
                    void *s);
    void (*copy)(void *dst, const void *src, size_t bytes, void *s);
    void (*zero)(void *dst, size_t bytes, void *s);
    int (*sync)(const struct hb_device *d, void *s);           // reports what failed meanwhile
    size_t (*now_bytes)(const struct hb_device *d);            // in use, library workspaces too
    size_t (*peak_bytes)(const struct hb_device *d);           // at most since reset_peak
    void (*reset_peak)(const struct hb_device *d);

    // Work beside s, until `join`: fork gives a second stream that begins when the work now on s is
    // done, join lets s wait for it. There is one such stream, for primitives but gemm; where a
    // device has none, fork gives s. Both can be captured.
    void *(*fork)(const struct hb_device *d, void *s);
    void (*join)(const struct hb_device *d, void *side, void *s);

    // --- time on the device (all NULL on cpu) ----------------------------------------------------
    // A mark is reached when the work before it is done; between() waits for mark b.
    int (*mark)(const struct hb_device *d, int slot, void *s);
    int (*between)(const struct hb_device *d, int a, int b, double *seconds);
    // Keeps the device busy for about so long, so that what is enqueued meanwhile runs without gaps.
    void (*hold)(const struct hb_device *d, double seconds, void *s);
    // Reads more than the last-level cache holds: what is there afterwards is nobody's.
    int (*flush)(const struct hb_device *d, void *s);
    // What is enqueued on s between the two becomes a graph that can be replayed as one piece.
    int (*capture)(const struct hb_device *d, void *s);
    int (*captured)(const struct hb_device *d, void *s, void **graph);
    int (*replay)(const struct hb_device *d, void *graph, void *s);
    void (*graph_free)(const struct hb_device *d, void *graph);

    // --- primitives ------------------------------------------------------------------------------
    void (*gemm)(const struct hb_gemm *g, struct hb_on on);
    // dst = src, of n elements, in another type.
    void (*cast)(void *dst, enum hb_dtype to, const void *src, enum hb_dtype from, int64_t n,
                 void *s);
    // db (C) += column sums of dy (R,C)
    void (*bias_bwd)(float *db, const void *dy, int64_t R, int64_t C, struct hb_on on);
    // Layer norm over the last axis, eps 1e-5: x,y (R,C), g,b (C), mean,rstd (R).
    // dx +=, dg +=, db +=.
    void (*layernorm_fwd)(void *y, float *mean, float *rstd, const void *x, const float *g,
                          const float *b, int64_t R, int64_t C, struct hb_on on);
    void (*layernorm_bwd)(void *dx, float *dg, float *db, const void *dy, const void *x,
                          const float *mean, const float *rstd, const float *g, int64_t R,
                          int64_t C, struct hb_on on);
    // Depthwise causal filter in (C,B,L), with the projection's bias folded in front:
    //   pb = p + bp[c] (bp may be NULL; pb is 0 before t = 0)
    //   s[c,b,t] = bs[c] + sum_j w[c,j] pb[c,b,t-(K-1)+j]
    // Backward: dp = ..., dw (C,K) +=, dbs (C) +=, dbp (C) += (NULL iff bp is). p holds the
    // forward's input.
    void (*shortconv_fwd)(void *y, const void *p, const float *bp, const float *w,
                          const float *bs, int64_t C, int64_t B, int64_t L, int K,
                          struct hb_on on);
    void (*shortconv_bwd)(void *dp, float *dw, float *dbs, float *dbp, const void *dy,
                          const void *p, const float *bp, const float *w, int64_t C, int64_t B,
                          int64_t L, int K, struct hb_on on);
    // Gate of two signals (C,B,L) behind their short filters (hb.h, hb_conv_tap: absent if w is
    // NULL) of K taps: y = tap(a) tap(b). Backward: da, db = ..., the filters' gradients +=.
    void (*taps_fwd)(void *y, const void *a, struct hb_conv_tap ta, const void *b,
                     struct hb_conv_tap tb, int64_t C, int64_t B, int64_t L, int K,
                     struct hb_on on);
    void (*taps_bwd)(void *da, void *db, const void *dy, const void *a, struct hb_conv_tap ta,
                     const void *b, struct hb_conv_tap tb, int64_t C, int64_t B, int64_t L, int K,
                     struct hb_on on);
    // y += x
    void (*add)(void *y, const void *x, int64_t n, struct hb_on on);
    // Exchanges two axes: y (a,j,i,k) = x (a,i,j,k).
    void (*swap)(void *y, const void *x, int64_t a, int64_t i, int64_t j, int64_t k,
                 struct hb_on on);
    // Rotary positions in place (theta 10000, pairs (i, i+P/2)): row r stands at time r % L and has
    // H heads of P at x + r ld. `inverse`: the adjoint.
    void (*rope)(void *x, int64_t R, int64_t L, int64_t H, int64_t P, int64_t ld, bool inverse,
                 struct hb_on on);
    // Embedding: x (R,C) = W[tok[r]] (+ pos[r % L] if pos); dW (V,C) +=, dpos (L,C) += in a fixed
    // order. x, W, pos act; tok: device int32.
    void (*embed_fwd)(void *x, const void *W, const void *pos, const int32_t *tok, int64_t R,
                      int64_t L, int64_t C, struct hb_on on);
    void (*embed_bwd)(float *dW, float *dpos, const void *dx, const int32_t *tok, int64_t R,
                      int64_t L, int64_t C, int64_t V, struct hb_on on);
    // Softmax cross-entropy, nats: nll[r] = -log softmax(z[r])[target[r]], 0 where target < 0
    // (ignored); if dz: dz = (softmax - onehot) * scale, 0 where ignored. z (R,V) act; dz may be z.
    void (*xent)(float *nll, void *dz, const void *z, const int32_t *target, float scale,
                 int64_t R, int64_t V, struct hb_on on);
    // Sum, or sum of squares, of float32 x into *out_host (double accumulation); waits.
    int (*sumsq)(const struct hb_device *d, double *out_host, const float *x, int64_t n, void *s);
    int (*sum)(const struct hb_device *d, double *out_host, const float *x, int64_t n, void *s);
    // One step on float32 w, m, v; `low`: where the new w goes once more, in on.t, or NULL.
    void (*adamw)(float *w, float *m, float *v, void *low, const float *g, float gscale,
                  struct hb_adamw o, int64_t n, struct hb_on on);
    // Implicit filter h (C,L) float32 from its parameters; ws: filter_ws bytes, kept for bwd. on.t
    // is the type of the signals that h will meet: f32: evaluated in float64; f16, bf16: a device
    // may be content with relative errors of 1e-5.
    size_t (*filter_ws)(struct hb_filter_shape f);
    int (*filter_fwd)(const struct hb_device *d, float *h, struct hb_filter_shape f,
                      struct hb_filter_params p, void *ws, struct hb_on on);
    int (*filter_bwd)(const struct hb_device *d, const float *dh, struct hb_filter_shape f,
                      struct hb_filter_params p, struct hb_filter_params grads, void *ws,
                      struct hb_on on);
};

// A device plug-in, build/devices/<name>.so, exports this. Opens the device for as long as this
// process lives; nothing closes it. NULL with the message set (host->fail), also where host->abi is
// not the version that the plug-in was built with. mem_limit 0: what the device has.
typedef const struct hb_device *hb_device_open_fn(const struct hb_host *host, size_t mem_limit);
#define HB_DEVICE_OPEN "hb_device_open"

#endif
