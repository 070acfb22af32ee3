// hb.h: the contract between hyena-bench and an implementation. An implementation is ONE file that
// includes this header, is compiled to build/impls/<stem>.so, and exports one constant `hb_impl`.
//
// Letters (everywhere): B batch, L sequence length, D channels, H heads, P = D/H, M FFT length,
// `order` Hyena order (its order-1 long convolutions are the published code's convention).
// Shapes are row-major, last axis contiguous unless a stride says otherwise.
#ifndef HB_H
#define HB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Of this header and device.h. 4: a device lost its gates, GELU, scale, close, now_ns and ctx; a
// problem says which strides an attention will see.
#define HB_ABI_VERSION 4
#ifdef __cplusplus
#define HB_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define HB_EXPORT __attribute__((visibility("default")))
#endif
#define HB_ALIGN 64          // bytes; of hb_host.alloc and of every io tensor (cache line, AVX-512)
#define HB_NAME_MAX 128      // longest implementation name, "hyena:" and NUL included

// Errors are values: 0 or one of these. The text is set once, by hb_host.fail, where it is known.
enum hb_status {
    HB_OK = 0,
    HB_ERR_OOM = -1,      // an allocation was refused (limit or system): a result, not an accident
    HB_ERR_INPUT = -2,    // the caller's data is wrong (shape, file, option)
    HB_ERR_REFUSED = -3,  // the implementation does not do this problem
    HB_ERR_MISSING = -4,  // the machine or the build lacks what was asked for
    HB_ERR_RUN = -5,      // a library, file or device failed at run time
};

enum hb_op { HB_LONGCONV, HB_ATTENTION, HB_HYENA, HB_MHA, HB_OP_COUNT };
enum hb_dtype { HB_F32, HB_F64, HB_F16, HB_BF16, HB_DTYPE_COUNT };
static inline size_t hb_dtype_size(enum hb_dtype t)          // bytes
{
    return t == HB_F64 ? 8 : t == HB_F32 ? 4 : 2;
}
enum hb_filter { HB_FILTER_FRESH, HB_FILTER_FIXED };   // FIXED: h transformed in plan, `fwd_cached`
enum hb_planning { HB_PLAN_ESTIMATE, HB_PLAN_MEASURE, HB_PLAN_WISDOM_ONLY };

// What the operators `hyena` and `mha` need beyond the shape. All zero = the defaults below.
struct hb_oper_opts {
    int order;            // hyena: order N >= 2, N-1 long convolutions              default 2
    int emb_dim;          // hyena: positional features E, odd >= 3                  default 33
    int filter_width;     // hyena: filter MLP width                                 default 64
    int64_t lmax;         // hyena: length of the positional table, >= L             default L
    float w;              // hyena: initial sine frequency                           default 14
    float shift;          // hyena: added to the decay window                        default 0
    bool no_window;       // hyena: h = g, no decay window (the paper's timing script)
    bool package_layout;  // hyena: filter channel c*(order-1)+o instead of o*D+c (order > 2)
    bool train_z;         // hyena: the positional table has a gradient
    bool no_long;         // hyena: control, the long convolution is replaced by the identity
    int short_taps;       // taps of the depthwise causal filter on q,k,v     default hyena 3, mha 0
    bool rope;            // mha: rotary positions on q and k (theta 10000)
};

// One problem. `threads` is what the implementation may use; it never reads environment variables.
// `dtype` is that of the signals (u, y, q, k, v and their gradients) and of the parameters marked
// `cast` (hb_tensor). Everything else is float32 (float64 where dtype is f64): filters h and d,
// the other parameters, and all gradients of filters and parameters. Sums are in float32 or wider.
struct hb_problem {
    enum hb_op op;
    enum hb_dtype dtype;
    int64_t B, L, D;
    int64_t H;                    // attention, mha: heads, D % H == 0; else 0
    int threads;
    enum hb_filter filter;
    enum hb_planning planning;    // FFT libraries
    bool backward;                // plan for backward as well (memory for saved state)
    bool gated;                   // longconv: io.conv.gates is there (hb_impl.gates)
    int taps;                     // longconv, gated: K of every short filter that is there; or 0
    bool packed;                  // attention: q, k, v will come as a projection writes them,
                                  // (B,L,3,H,P), and y as (B,L,H,P); else all of them head first
    char inner[HB_NAME_MAX];      // hyena, mha: name of the longconv or attention inside; else ""
    struct hb_oper_opts oper;
};

// (batch, channel) strides of a (B,D,L) tensor in elements; the time axis is contiguous.
// Usual: {D*L, L}. A projection that writes (D,B,L) uses {L, B*L}.
struct hb_strides { int64_t b, c; };

// Hyena's short filter of a signal p, with the bias of the projection that wrote p:
//     tap(p)[b,c,t] = bs[c] + sum_j w[c,j] (p[b,c,t-(K-1)+j] + bp[c]), without terms before t = 0
// float32: w (D,K), bs, bp (D); bp may be NULL. w NULL: tap(p) = p. Gradients += ..., backward
// only, NULL iff theirs is.
struct hb_conv_tap { const float *w, *bs, *bp; float *dw, *dbs, *dbp; };
// A signal that is multiplied with another. x NULL: there is none, nothing else is read.
struct hb_conv_gate {
    const void *x;  struct hb_strides sx;   // (B,D,L)
    void *dx;       struct hb_strides sdx;  // dx  = ...      backward only
    struct hb_conv_tap tap;
};
struct hb_conv_gates { struct hb_conv_tap u; struct hb_conv_gate pre, post; };

// y[b,c,t] = sum_{s<=t} h[c,s] u[b,c,t-s] + d[c] u[b,c,t];  with gates: u stands for r and
//     r = tap(u) tap(pre),   y = tap(post) (h * r + d r)
struct hb_longconv_io {
    const void *u;  struct hb_strides su;   // (B,D,L)
    const void *h;                          // (D,L) contiguous
    const void *d;                          // (D) or NULL: no skip term
    void *y;        struct hb_strides sy;
    const void *dy; struct hb_strides sdy;  // backward only, from here
    void *du;       struct hb_strides sdu;  // du  = ...      never NULL
    void *dh;                               // dh += ...      (D,L), never NULL
    void *dd;                               // dd += ...      NULL iff d is NULL
    const struct hb_conv_gates *gates;      // NULL iff not problem.gated; read during the call
};

// (batch, head, time) strides of a (B,H,L,P) tensor in elements; P is contiguous.
// Head first: {H*L*P, L*P, P}. Out of a projection that writes (B,L,3,H,P): {L*3*D, P, 3*D}.
struct hb_heads { int64_t b, h, t; };

// y = softmax(q k' / sqrt(P), causal) v, per head.  All (B,H,L,P) by strides that are multiples
// of P; which, the problem has said (packed).
struct hb_attention_io {
    const void *q, *k, *v;  struct hb_heads sq;     // of q, k, v, dq, dk, dv alike
    void *y;                struct hb_heads sy;     // of y and dy alike
    const void *dy;
    void *dq, *dk, *dv;                     // = ...
};

// hyena, mha: u,y (B,L,D) contiguous; params and grads in the order of hb_impl.tensors.
struct hb_oper_io {
    const void *u;
    const void *res;                        // (B,L,D) added to y (a residual stream), or NULL
    void *y;
    const void *dy;
    void *du;                               // =  ...
    void *const *params;
    void *const *grads;                     // += ...   NULL entries are skipped (constant tensors)
};

// No tensor of one io overlaps another. Contract of backward: it follows a forward of the same
// state with the same inputs (which are still in place, y too), so a state may save what its
// backward needs.
struct hb_io {
    void *stream;                           // device stream; NULL on cpu. All work goes on it, so
                                            // that a forward or backward can be captured
    union {
        struct hb_longconv_io conv;
        struct hb_attention_io attn;
        struct hb_oper_io oper;
    };
};

// One parameter tensor of an operator: the single place its name, shape and initialisation
// are written.
enum hb_init {
    HB_INIT_ZERO, HB_INIT_ONE, HB_INIT_CONST, HB_INIT_NORMAL, HB_INIT_UNIFORM, HB_INIT_POSEMB
};
struct hb_tensor {
    char name[64];           // the checkpoint's name, e.g. "filter_fn.implicit_filter.0.weight"
    int64_t shape[3];
    int rank;
    enum hb_init init;       // standalone: UNIFORM(-init_arg, init_arg), NORMAL(0, init_arg), CONST
    float init_arg;
    enum hb_init lm_init;    // initialisation inside the language model (hyena_spec section 5)
    float lm_init_arg;       // if `residual_out`: scaled again by 1/sqrt(2 n_layer)
    bool residual_out;
    bool trainable;
    bool filter_group;       // filter MLP: its own optimiser group, weight decay 0
    bool cast;               // handed to forward in the problem's dtype (a rounded copy)
};

struct hb_impl;
struct hb_device;

// What the program hands to every plug-in. `self` is the table itself.
struct hb_host {
    int abi;
    int threads;                             // worker threads of this process
    const struct hb_device *device;          // the device interface (device.h); operators use it
    const char *cache_dir;                   // per-machine folder, e.g. FFT wisdom; "" = none
    // HB_ALIGN-aligned, counted and limited, contents undefined; NULL after setting the message
    // (HB_ERR_OOM)
    void *(*alloc)(const struct hb_host *self, size_t bytes);
    void (*free)(const struct hb_host *self, void *p);                 // NULL is fine
    // Sets the message of this process (first one wins until taken) and returns `code`.
    int (*fail)(const struct hb_host *self, int code, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
    // Another implementation by name; sets the message and returns NULL if there is none.
    const struct hb_impl *(*open)(const struct hb_host *self, const char *name);
    void *ctx;
};

struct hb_impl {
    int abi;                                 // HB_ABI_VERSION
    const char *name;                        // file stem <operator>_<method>[_device]; hyena, mha
    enum hb_op op;
    const char *device;                      // "cpu", "cuda"; "any": what is inside decides
    unsigned dtypes;                         // bit set of 1u << enum hb_dtype
    const char *source;                      // paper or library with version
    const char *complexity;                  // e.g. "O(L log L)": for people, printed by list
    // NULL = yes; else the reason, static storage, never memory. May be NULL: takes everything.
    const char *(*refuses)(const struct hb_problem *p);
    // plan allocates everything, forward nothing; backward NULL: there is none; destroy takes NULL
    // and half-built states.
    int  (*plan)(const struct hb_host *host, const struct hb_problem *p, void **st);
    int  (*forward)(void *st, const struct hb_io *io);
    int  (*backward)(void *st, const struct hb_io *io);
    void (*destroy)(void *st);
    // FIXED filters only: transform h (D,L) once, before the timer. NULL: fixed is refused.
    int  (*set_filter)(void *st, const void *h);
    // hyena, mha only: fills out[0..cap) and returns how many tensors there are (may exceed cap).
    int  (*tensors)(const struct hb_problem *p, struct hb_tensor *out, int cap);
    // Text describing the plan (FFT length, plan hash, tile sizes ...) for the record; may be NULL.
    int  (*describe)(const void *st, char *buf, size_t cap);
    bool gates;                              // longconv: takes gated problems (refuses has a say)
};

#endif
