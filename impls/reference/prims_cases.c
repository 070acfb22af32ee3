// prims_cases.c: one row for every primitive of a device: its tensors, its call, its float64 twin's
// call, and the shapes to try: 1, odd, around tile sizes, more than one block.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "prims_cases.h"

#define DEV(name) static int dev_##name(const struct hb_device *d, shape s, void **x)
#define REF(name) static int ref_##name(shape s, void **x)
#define ARGS(name, ...)                                                             \
    static int args_##name(shape s, struct arg *a)                                  \
    {                                                                               \
        (void)s;                                                                    \
        const struct arg all[] = { __VA_ARGS__ };                                   \
        memcpy(a, all, sizeof all);                                                 \
        return (int)(sizeof all / sizeof *all);                                     \
    }
#define T(r, count, m, s) { .role = r, .n = count, .mean = m, .sd = s }
#define TOKENS(count, below, some)                                                               \
    { .role = TOK, .n = count, .range = (int32_t)(below), .holes = some }

// --- GEMM: m n k, transposes (bit 0: A, bit 1: B), beta in halves --------------------------------

ARGS(gemm, T(IN, s[0] * s[2], 0, 1), T(IN, s[2] * s[1], 0, 1),
     T(s[4] ? ACC : OUT, s[0] * s[1], 0, 1))
DEV(gemm)
{
    bool ta = s[3] & 1, tb = s[3] & 2;
    d->gemm(ta, tb, s[0], s[1], s[2], -1.5f, x[0], ta ? s[0] : s[2], x[1], tb ? s[2] : s[1],
            (float)s[4] / 2, x[2], s[1], NULL);
    return 0;
}
REF(gemm)
{
    bool ta = s[3] & 1, tb = s[3] & 2;
    hb64_gemm(ta, tb, s[0], s[1], s[2], -1.5, x[0], ta ? s[0] : s[2], x[1], tb ? s[2] : s[1],
              (double)s[4] / 2, x[2], s[1]);
    return 0;
}

// --- biases: rows R, columns C -------------------------------------------------------------------

ARGS(bias_fwd, T(ACC, s[0] * s[1], 0, 1), T(IN, s[1], 0, 1))
DEV(bias_fwd) { return d->bias_fwd(x[0], x[1], s[0], s[1], NULL), 0; }
REF(bias_fwd) { return hb64_bias_fwd(x[0], x[1], s[0], s[1]), 0; }
ARGS(bias_bwd, T(ACC, s[1], 0, 1), T(IN, s[0] * s[1], 0.5, 1))
DEV(bias_bwd) { return d->bias_bwd(x[0], x[1], s[0], s[1], NULL), 0; }
REF(bias_bwd) { return hb64_bias_bwd(x[0], x[1], s[0], s[1]), 0; }
ARGS(rowbias_fwd, T(ACC, s[0] * s[1], 0, 1), T(IN, s[1], 0, 1))
DEV(rowbias_fwd) { return d->rowbias_fwd(x[0], x[1], s[1], s[0], NULL), 0; }
REF(rowbias_fwd) { return hb64_rowbias_fwd(x[0], x[1], s[1], s[0]), 0; }
ARGS(rowbias_bwd, T(ACC, s[1], 0, 1), T(IN, s[0] * s[1], 0.5, 1))
DEV(rowbias_bwd) { return d->rowbias_bwd(x[0], x[1], s[1], s[0], NULL), 0; }
REF(rowbias_bwd) { return hb64_rowbias_bwd(x[0], x[1], s[1], s[0]), 0; }

// --- layer norm: R C -----------------------------------------------------------------------------

ARGS(layernorm_fwd, T(OUT, s[0] * s[1], 0, 0), T(OUT, s[0], 0, 0), T(OUT, s[0], 0, 0),
     T(IN, s[0] * s[1], 0.7, 2), T(IN, s[1], 1, 0.3), T(IN, s[1], 0, 1))
DEV(layernorm_fwd)
{
    return d->layernorm_fwd(x[0], x[1], x[2], x[3], x[4], x[5], s[0], s[1], NULL), 0;
}
REF(layernorm_fwd) { return hb64_layernorm_fwd(x[0], x[1], x[2], x[3], x[4], x[5], s[0], s[1]), 0; }
ARGS(layernorm_bwd, T(ACC, s[0] * s[1], 0, 1), T(ACC, s[1], 0, 1), T(ACC, s[1], 0, 1),
     T(IN, s[0] * s[1], 0, 1), T(IN, s[0] * s[1], 0.7, 2), T(IN, s[1], 1, 0.3),
     T(TMP, s[0], 0, 0), T(TMP, s[0], 0, 0), T(TMP, s[0] * s[1], 0, 0))
DEV(layernorm_bwd)
{
    d->layernorm_fwd(x[8], x[6], x[7], x[4], x[5], x[5], s[0], s[1], NULL);
    d->layernorm_bwd(x[0], x[1], x[2], x[3], x[4], x[6], x[7], x[5], s[0], s[1], NULL);
    return 0;
}
REF(layernorm_bwd) { return hb64_layernorm_bwd(x[0], x[1], x[2], x[3], x[4], x[5], s[0], s[1]), 0; }

// --- element by element: n -----------------------------------------------------------------------

ARGS(gelu_fwd, T(OUT, s[0], 0, 0), T(IN, s[0], 0, 3))
DEV(gelu_fwd) { return d->gelu_fwd(x[0], x[1], s[0], NULL), 0; }
REF(gelu_fwd) { return hb64_gelu_fwd(x[0], x[1], s[0]), 0; }
ARGS(gelu_bwd, T(OUT, s[0], 0, 0), T(IN, s[0], 0, 1), T(IN, s[0], 0, 3))
DEV(gelu_bwd) { return d->gelu_bwd(x[0], x[1], x[2], s[0], NULL), 0; }
REF(gelu_bwd) { return hb64_gelu_bwd(x[0], x[1], x[2], s[0]), 0; }
ARGS(gelu_bwd_in_place, T(ACC, s[0], 0, 1), T(IN, s[0], 0, 3))
DEV(gelu_bwd_in_place) { return d->gelu_bwd(x[0], x[0], x[1], s[0], NULL), 0; }
REF(gelu_bwd_in_place) { return hb64_gelu_bwd(x[0], x[0], x[1], s[0]), 0; }
ARGS(gate_fwd, T(OUT, s[0], 0, 0), T(IN, s[0], 0, 1), T(IN, s[0], 0, 1))
DEV(gate_fwd) { return d->gate_fwd(x[0], x[1], x[2], s[0], NULL), 0; }
REF(gate_fwd)
{
    double *y = x[0], *a = x[1], *b = x[2];
    for (int64_t i = 0; i < s[0]; i++) y[i] = a[i] * b[i];
    return 0;
}
ARGS(gate_bwd, T(OUT, s[0], 0, 0), T(OUT, s[0], 0, 0), T(IN, s[0], 0, 1), T(IN, s[0], 0, 1),
     T(IN, s[0], 0, 1))
DEV(gate_bwd) { return d->gate_bwd(x[0], x[1], x[2], x[3], x[4], s[0], NULL), 0; }
REF(gate_bwd)
{
    double *da = x[0], *db = x[1], *dy = x[2], *a = x[3], *b = x[4];
    for (int64_t i = 0; i < s[0]; i++) {
        db[i] = dy[i] * a[i];
        da[i] = dy[i] * b[i];
    }
    return 0;
}
ARGS(gate_bwd_in_place, T(ACC, s[0], 0, 1), T(OUT, s[0], 0, 0), T(IN, s[0], 0, 1),
     T(IN, s[0], 0, 1))
DEV(gate_bwd_in_place) { return d->gate_bwd(x[0], x[1], x[0], x[2], x[3], s[0], NULL), 0; }
REF(gate_bwd_in_place) { return ref_gate_bwd(s, (void *[]){ x[0], x[1], x[0], x[2], x[3] }); }
ARGS(add, T(ACC, s[0], 0, 1), T(IN, s[0], 0, 1))
DEV(add) { return d->add(x[0], x[1], s[0], NULL), 0; }
REF(add)
{
    double *y = x[0], *e = x[1];
    for (int64_t i = 0; i < s[0]; i++) y[i] += e[i];
    return 0;
}
ARGS(scale, T(ACC, s[0], 0, 1))
DEV(scale) { return d->scale(x[0], -0.375f, s[0], NULL), 0; }
REF(scale)
{
    double *y = x[0];
    for (int64_t i = 0; i < s[0]; i++) y[i] *= -0.375;
    return 0;
}
ARGS(sum, T(OUT, 1, 0, 0), T(IN, s[0], 0.5, 1))
DEV(sum)
{
    double total = NAN;
    int rc = s[1] ? d->sumsq(d, &total, x[1], s[0], NULL) : d->sum(d, &total, x[1], s[0], NULL);
    float f = (float)total;
    return rc ? rc : d->upload(d, x[0], &f, sizeof f, NULL);
}
REF(sum)
{
    double *y = x[0], *e = x[1];
    y[0] = 0;
    for (int64_t i = 0; i < s[0]; i++) y[0] += s[1] ? e[i] * e[i] : e[i];
    return 0;
}
static const struct hb_adamw ADAMW = { 6e-4f, 0.9f, 0.98f, 1e-8f, 0.1f, 7 };
ARGS(adamw, T(ACC, s[0], 0, 1), T(ACC, s[0], 0, 0.1), T(ACC, s[0], 0.5, 0.08), T(IN, s[0], 0, 1))
DEV(adamw) { return d->adamw(x[0], x[1], x[2], x[3], 0.25f, ADAMW, s[0], NULL), 0; }
REF(adamw) { return hb64_adamw(x[0], x[1], x[2], x[3], 0.25, ADAMW, s[0]), 0; }

// --- along the sequence: C B L K, bias in front or not -------------------------------------------

ARGS(shortconv_fwd, T(OUT, s[0] * s[1] * s[2], 0, 0), T(IN, s[0] * s[1] * s[2], 0, 1),
     T(IN, s[0], 0, 1), T(IN, s[0] * s[3], 0, 1), T(IN, s[0], 0, 1))
DEV(shortconv_fwd)
{
    d->shortconv_fwd(x[0], x[1], s[4] ? x[2] : NULL, x[3], x[4], s[0], s[1], s[2], (int)s[3], NULL);
    return 0;
}
REF(shortconv_fwd)
{
    hb64_shortconv_fwd(x[0], x[1], s[4] ? x[2] : NULL, x[3], x[4], s[0], s[1], s[2], (int)s[3]);
    return 0;
}
ARGS(shortconv_bwd, T(OUT, s[0] * s[1] * s[2], 0, 0), T(ACC, s[0] * s[3], 0, 1), T(ACC, s[0], 0, 1),
     T(ACC, s[0], 0, 1), T(IN, s[0] * s[1] * s[2], 0, 1), T(IN, s[0] * s[1] * s[2], 0, 1),
     T(IN, s[0], 0, 1), T(IN, s[0] * s[3], 0, 1))
DEV(shortconv_bwd)
{
    d->shortconv_bwd(x[0], x[1], x[2], s[4] ? x[3] : NULL, x[4], x[5], s[4] ? x[6] : NULL, x[7],
                     s[0], s[1], s[2], (int)s[3], NULL);
    return 0;
}
REF(shortconv_bwd)
{
    hb64_shortconv_bwd(x[0], x[1], x[2], s[4] ? x[3] : NULL, x[4], x[5], s[4] ? x[6] : NULL, x[7],
                       s[0], s[1], s[2], (int)s[3]);
    return 0;
}

// --- heads: B H L P rope -------------------------------------------------------------------------

#define HEADS (s[0] * s[1] * s[2] * s[3])
ARGS(heads_split, T(OUT, HEADS, 0, 0), T(OUT, HEADS, 0, 0), T(OUT, HEADS, 0, 0),
     T(IN, 3 * HEADS, 0, 1))
DEV(heads_split)
{
    return d->heads_split(x[0], x[1], x[2], x[3], s[0], s[1], s[2], s[3], s[4], NULL), 0;
}
REF(heads_split)
{
    return hb64_heads_split(x[0], x[1], x[2], x[3], s[0], s[1], s[2], s[3], s[4]), 0;
}
ARGS(heads_merge, T(OUT, 3 * HEADS, 0, 0), T(IN, HEADS, 0, 1), T(IN, HEADS, 0, 1),
     T(IN, HEADS, 0, 1))
DEV(heads_merge)
{
    return d->heads_merge(x[0], x[1], x[2], x[3], s[0], s[1], s[2], s[3], s[4], NULL), 0;
}
REF(heads_merge)
{
    return hb64_heads_merge(x[0], x[1], x[2], x[3], s[0], s[1], s[2], s[3], s[4]), 0;
}
ARGS(heads_join, T(OUT, HEADS, 0, 0), T(IN, HEADS, 0, 1))
DEV(heads_join) { return d->heads_join(x[0], x[1], s[0], s[1], s[2], s[3], NULL), 0; }
REF(heads_join) { return hb64_heads_join(x[0], x[1], s[0], s[1], s[2], s[3]), 0; }
DEV(heads_unjoin) { return d->heads_unjoin(x[0], x[1], s[0], s[1], s[2], s[3], NULL), 0; }
REF(heads_unjoin) { return hb64_heads_join(x[0], x[1], s[0], s[2], s[1], s[3]), 0; }

// --- language model: R L C V, with positions or not; R C V for the loss, with gradient or not ----
ARGS(embed_fwd, T(OUT, s[0] * s[2], 0, 0), T(IN, s[3] * s[2], 0, 1), T(IN, s[1] * s[2], 0, 1),
     TOKENS(s[0], s[3], false))
DEV(embed_fwd)
{
    return d->embed_fwd(x[0], x[1], s[4] ? x[2] : NULL, x[3], s[0], s[1], s[2], NULL), 0;
}
REF(embed_fwd) { return hb64_embed_fwd(x[0], x[1], s[4] ? x[2] : NULL, x[3], s[0], s[1], s[2]), 0; }
ARGS(embed_bwd, T(ACC, s[3] * s[2], 0, 1), T(ACC, s[1] * s[2], 0, 1), T(IN, s[0] * s[2], 0, 1),
     TOKENS(s[0], s[3], false))
DEV(embed_bwd)
{
    return d->embed_bwd(x[0], s[4] ? x[1] : NULL, x[2], x[3], s[0], s[1], s[2], s[3], NULL), 0;
}
REF(embed_bwd) { return hb64_embed_bwd(x[0], s[4] ? x[1] : NULL, x[2], x[3], s[0], s[1], s[2]), 0; }
ARGS(xent, T(OUT, s[0], 0, 0), T(OUT, s[2] ? s[0] * s[1] : 0, 0, 0), T(IN, s[0] * s[1], 0, 4),
     TOKENS(s[0], s[1], true))
DEV(xent) { return d->xent(x[0], s[2] ? x[1] : NULL, x[2], x[3], 0.125f, s[0], s[1], NULL), 0; }
REF(xent) { return hb64_xent(x[0], s[2] ? x[1] : NULL, x[2], x[3], 0.125, s[0], s[1]), 0; }
ARGS(xent_in_place, T(OUT, s[0], 0, 0), T(ACC, s[0] * s[1], 0, 4), TOKENS(s[0], s[1], true))
DEV(xent_in_place) { return d->xent(x[0], x[1], x[1], x[2], 0.125f, s[0], s[1], NULL), 0; }
REF(xent_in_place)
{
    size_t bytes = (size_t)(s[0] * s[1]) * sizeof(double);
    double *z = malloc(bytes);
    if (!z) return HB_ERR_OOM;
    memcpy(z, x[1], bytes);
    hb64_xent(x[0], x[1], z, x[2], 0.125, s[0], s[1]);
    free(z);
    return 0;
}

// --- implicit filter: L lmax C E W, window, shift in percent, gradient of z or not ---------------

#define FILTER_PARAMS(role)                                                            \
    T(role, s[4] * s[3], 0, 0.4), T(role, s[4], 0, 0.4), T(role, s[4] * s[4], 0, 0.2), \
        T(role, s[4], 0, 0.2), T(role, s[4] * s[4], 0, 0.2), T(role, s[4], 0, 0.2),    \
        T(role, s[2] * s[4], 0, 0.2), T(role, s[4], 3, 1)
static struct hb_filter_shape filter_shape(shape s)
{
    return (struct hb_filter_shape){ s[0],      s[1],      (int)s[2],
                                     (int)s[3], (int)s[4], (float)s[6] / 100,
                                     s[5] != 0 };
}
static struct hb_filter_params filter_params(void **x)
{
    return (struct hb_filter_params){ x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8] };
}
static struct hb64_filter filter64(void **x)
{
    return (struct hb64_filter){ x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8] };
}
ARGS(filter_fwd, T(OUT, s[2] * s[0], 0, 0), T(IN, s[1] * s[3], 0, 1), FILTER_PARAMS(IN))
DEV(filter_fwd)
{
    struct hb_filter_shape f = filter_shape(s);
    void *ws = d->alloc(d, d->filter_ws(f));
    int rc = ws ? d->filter_fwd(d, x[0], f, filter_params(x + 1), ws, NULL) : HB_ERR_OOM;
    if (!rc) rc = d->sync(d, NULL);
    d->free(d, ws);
    return rc;
}
REF(filter_fwd)
{
    struct hb_filter_shape f = filter_shape(s);
    struct hb64_filter p = filter64(x + 1);
    return hb64_filter_fwd(x[0], &f, &p, 1);
}
ARGS(filter_bwd, T(IN, s[2] * s[0], 0, 1), T(IN, s[1] * s[3], 0, 1), FILTER_PARAMS(IN),
     T(ACC, s[1] * s[3], 0, 1), FILTER_PARAMS(ACC), T(TMP, s[2] * s[0], 0, 0))
DEV(filter_bwd)
{
    struct hb_filter_shape f = filter_shape(s);
    struct hb_filter_params p = filter_params(x + 1), g = filter_params(x + 10);
    void *ws = d->alloc(d, d->filter_ws(f));
    if (!s[7]) g.z = NULL;
    int rc = ws ? d->filter_fwd(d, x[19], f, p, ws, NULL) : HB_ERR_OOM;
    if (!rc) rc = d->filter_bwd(d, x[0], f, p, g, ws, NULL);
    if (!rc) rc = d->sync(d, NULL);
    d->free(d, ws);
    return rc;
}
REF(filter_bwd)
{
    struct hb_filter_shape f = filter_shape(s);
    struct hb64_filter p = filter64(x + 1), g = filter64(x + 10);
    if (!s[7]) g.z = NULL;
    return hb64_filter_bwd(x[0], &f, &p, &g, 1);
}

// --- the table -----------------------------------------------------------------------------------

#define CASE(name, tol, ...) { #name, tol, { __VA_ARGS__ }, args_##name, dev_##name, ref_##name }
#define LIKE(name, args, tol, ...)                                                               \
    { #name, tol, { __VA_ARGS__ }, args_##args, dev_##name, ref_##name }
#define RC {1, 1}, {1, 37}, {37, 1}, {129, 65}, {1000, 31}
#define N1 {1}, {7}, {1000}, {40001}
#define BHLP {1, 1, 1, 1, 0}, {2, 3, 5, 7, 0}, {2, 3, 33, 16, 0}, {1, 4, 100, 17, 0}
#define BHLP_ROPE BHLP, {1, 1, 1, 2, 1}, {2, 3, 130, 34, 1}
const struct prim hb_prims[] = {
    CASE(gemm, 1e-6, { 1, 1, 1, 0, 0 }, { 1, 33, 7, 1, 1 }, { 31, 1, 65, 2, 2 },
         { 17, 45, 129, 3, 0 }, { 64, 31, 257, 0, 2 }),
    CASE(bias_fwd, 1e-6, RC),
    CASE(bias_bwd, 1e-6, RC),
    CASE(rowbias_fwd, 1e-6, RC),
    CASE(rowbias_bwd, 1e-6, RC),
    CASE(layernorm_fwd, 1e-6, { 1, 2 }, { 3, 37 }, { 129, 65 }, { 1000, 31 }),
    CASE(layernorm_bwd, 2e-6, { 1, 2 }, { 3, 37 }, { 129, 65 }, { 1000, 31 }),
    CASE(gelu_fwd, 1e-6, N1),
    CASE(gelu_bwd, 1e-6, N1),
    CASE(gelu_bwd_in_place, 1e-6, N1),
    CASE(gate_fwd, 1e-6, N1),
    CASE(gate_bwd, 1e-6, N1),
    CASE(gate_bwd_in_place, 1e-6, N1),
    CASE(add, 1e-6, N1),
    CASE(scale, 1e-6, N1),
    CASE(adamw, 1e-6, N1),
    CASE(sum, 1e-6, { 1, 0 }, { 513, 0 }, { 40001, 0 }, { 1, 1 }, { 513, 1 }, { 40001, 1 }),
    CASE(shortconv_fwd, 1e-6, { 1, 1, 1, 3, 1 }, { 3, 2, 2, 3, 0 }, { 5, 3, 31, 3, 1 },
         { 3, 2, 7, 9, 1 }, { 17, 1, 1025, 4, 0 }),
    CASE(shortconv_bwd, 1e-6, { 1, 1, 1, 3, 1 }, { 3, 2, 2, 3, 0 }, { 5, 3, 31, 3, 1 },
         { 3, 2, 7, 9, 1 }, { 17, 1, 1025, 4, 0 }),
    CASE(heads_split, 1e-6, BHLP_ROPE),
    CASE(heads_merge, 1e-6, BHLP_ROPE),
    CASE(heads_join, 0, BHLP),
    LIKE(heads_unjoin, heads_join, 0, BHLP),
    CASE(embed_fwd, 1e-6, { 1, 1, 1, 1, 1 }, { 33, 11, 37, 5, 1 }, { 1000, 100, 65, 257, 0 }),
    CASE(embed_bwd, 1e-6, { 1, 1, 1, 1, 1 }, { 33, 11, 37, 5, 1 }, { 1000, 100, 65, 257, 0 }),
    CASE(xent, 1e-6, { 1, 1, 1 }, { 5, 2, 1 }, { 33, 257, 1 }, { 400, 65, 0 }),
    CASE(xent_in_place, 1e-6, { 33, 257 }),
    CASE(filter_fwd, 1e-6, { 1, 1, 1, 3, 1, 1, 0, 1 }, { 31, 40, 5, 5, 7, 1, 5, 1 },
         { 300, 300, 70, 33, 64, 1, 0, 1 }, { 129, 257, 3, 9, 16, 0, 0, 0 }),
    CASE(filter_bwd, 1e-6, { 1, 1, 1, 3, 1, 1, 0, 1 }, { 31, 40, 5, 5, 7, 1, 5, 1 },
         { 300, 300, 70, 33, 64, 1, 0, 1 }, { 129, 257, 3, 9, 16, 0, 0, 0 }),
};
const int hb_n_prims = (int)(sizeof hb_prims / sizeof *hb_prims);
