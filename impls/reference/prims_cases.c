// prims_cases.c: one row for every primitive of a device: its tensors, its call, its float64 twin's
// call, and the shapes to try: 1, odd, around tile sizes, more than one block.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../core/halves.h"
#include "prims_cases.h"

#define DEV(name)                                                                                \
    static int dev_##name(const struct hb_device *d, __attribute__((unused)) struct hb_on on,    \
                          shape s, void **x)
#define REF(name)                                                                                \
    static int ref_##name(__attribute__((unused)) enum hb_dtype t, shape s, void **x)
#define ARGS(name, ...)                                                             \
    static int args_##name(shape s, struct arg *a)                                  \
    {                                                                               \
        (void)s;                                                                    \
        const struct arg all[] = { __VA_ARGS__ };                                   \
        memcpy(a, all, sizeof all);                                                 \
        return (int)(sizeof all / sizeof *all);                                     \
    }
#define F(r, count, m, s) { .role = r, .kind = FLOAT, .n = count, .mean = m, .sd = s }
#define A(r, count, m, s) { .role = r, .kind = ACT, .n = count, .mean = m, .sd = s }
#define S(r, count, m, s) { .role = r, .kind = SUM, .n = count, .mean = m, .sd = s }
#define TOKENS(count, below, some)                                                               \
    { .role = TOK, .n = count, .range = (int32_t)(below), .holes = some }

// --- GEMM: m n k, transposes (bit 0: A, bit 1: B), beta in halves, what stands around it, batch,
//     and by how much the rows are apart more than they must be -----------------------------------

enum { BIAS = 1, RESIDUAL = 2, GELU = 4, DGELU = 8, WIDE = 16 };    // RESIDUAL: C is not D

static int64_t times(shape s) { return s[6] > 1 ? s[6] : 1; }
static struct hb_gemm gemm_of(shape s, void **x)
{
    bool ta = s[3] & 1, tb = s[3] & 2;
    int64_t lda = (ta ? s[0] : s[2]) + s[7], ldb = (tb ? s[2] : s[1]) + s[7], ldd = s[1] + s[7];
    return (struct hb_gemm){ .ta = ta, .tb = tb, .m = s[0], .n = s[1], .k = s[2], .alpha = -1.5f,
                             .beta = (float)s[4] / 2, .A = x[0], .lda = lda, .B = x[1], .ldb = ldb,
                             .C = s[5] & RESIDUAL ? x[3] : NULL, .D = x[2], .ldd = ldd,
                             .out_f32 = s[5] & WIDE, .bias = s[5] & BIAS ? x[4] : NULL,
                             .gelu_in = s[5] & GELU ? x[5] : NULL,
                             .dgelu = s[5] & DGELU ? x[6] : NULL, .batch = s[6],
                             .sA = (ta ? s[2] : s[0]) * lda, .sB = (tb ? s[1] : s[2]) * ldb,
                             .sD = s[0] * ldd };
}
static int args_gemm(shape s, struct arg *a)
{
    struct hb_gemm g = gemm_of(s, (void *[7]){ NULL });
    bool read = s[4] && !(s[5] & RESIDUAL);
    enum role out = s[7] || read ? ACC : OUT;      // what lies between two rows must stay
    enum kind kind = s[5] & WIDE ? FLOAT : ACT;
    int64_t n = times(s) * g.sD;
    const struct arg all[] = {
        A(IN, times(s) * g.sA, 0, 1), A(IN, times(s) * g.sB, 0, 1),
        { .role = out, .kind = kind, .n = n, .sd = 1 },
        { .role = IN, .kind = kind, .n = s[5] & RESIDUAL ? n : 0, .sd = 1 },
        A(IN, s[5] & BIAS ? s[1] : 0, 0, 1), A(s[7] ? ACC : OUT, s[5] & GELU ? n : 0, 0, 1),
        A(IN, s[5] & DGELU ? n : 0, 0, 2),
    };
    memcpy(a, all, sizeof all);
    return (int)(sizeof all / sizeof *all);
}
DEV(gemm)
{
    struct hb_gemm g = gemm_of(s, x);
    return d->gemm(&g, on), 0;
}
REF(gemm)
{
    struct hb_gemm g = gemm_of(s, x);
    return hb64_gemm_full(&g), 0;
}

// --- bias gradient: rows R, columns C ------------------------------------------------------------

ARGS(bias_bwd, F(ACC, s[1], 0, 1), A(IN, s[0] * s[1], 0.5, 1))
DEV(bias_bwd) { return d->bias_bwd(x[0], x[1], s[0], s[1], on), 0; }
REF(bias_bwd) { return hb64_bias_bwd(x[0], x[1], s[0], s[1]), 0; }

// --- change of type: n ---------------------------------------------------------------------------

ARGS(cast_up, F(OUT, s[0], 0, 0), A(IN, s[0], 0, 1))
DEV(cast_up) { return d->cast(x[0], HB_F32, x[1], on.t, s[0], on.stream), 0; }
REF(cast_up) { return memcpy(x[0], x[1], (size_t)s[0] * sizeof(double)), 0; }
ARGS(cast_down, A(OUT, s[0], 0, 0), F(IN, s[0], 0, 1))
DEV(cast_down) { return d->cast(x[0], on.t, x[1], HB_F32, s[0], on.stream), 0; }
REF(cast_down)
{
    double *y = x[0], *e = x[1];
    for (int64_t i = 0; i < s[0]; i++) y[i] = (double)hb_round_to(t, (float)e[i]);
    return 0;
}

// --- layer norm: R C -----------------------------------------------------------------------------

ARGS(layernorm_fwd, A(OUT, s[0] * s[1], 0, 0), F(OUT, s[0], 0, 0), F(OUT, s[0], 0, 0),
     A(IN, s[0] * s[1], 0.7, 2), F(IN, s[1], 1, 0.3), F(IN, s[1], 0, 1))
DEV(layernorm_fwd)
{
    return d->layernorm_fwd(x[0], x[1], x[2], x[3], x[4], x[5], s[0], s[1], on), 0;
}
REF(layernorm_fwd) { return hb64_layernorm_fwd(x[0], x[1], x[2], x[3], x[4], x[5], s[0], s[1]), 0; }
ARGS(layernorm_bwd, A(ACC, s[0] * s[1], 0, 1), F(ACC, s[1], 0, 1), F(ACC, s[1], 0, 1),
     A(IN, s[0] * s[1], 0, 1), A(IN, s[0] * s[1], 0.7, 2), F(IN, s[1], 1, 0.3),
     F(TMP, s[0], 0, 0), F(TMP, s[0], 0, 0), A(TMP, s[0] * s[1], 0, 0))
DEV(layernorm_bwd)
{
    d->layernorm_fwd(x[8], x[6], x[7], x[4], x[5], x[5], s[0], s[1], on);
    d->layernorm_bwd(x[0], x[1], x[2], x[3], x[4], x[6], x[7], x[5], s[0], s[1], on);
    return 0;
}
REF(layernorm_bwd) { return hb64_layernorm_bwd(x[0], x[1], x[2], x[3], x[4], x[5], s[0], s[1]), 0; }

// --- element by element: n -----------------------------------------------------------------------

ARGS(add, A(ACC, s[0], 0, 1), A(IN, s[0], 0, 1))
DEV(add) { return d->add(x[0], x[1], s[0], on), 0; }
REF(add)
{
    double *y = x[0], *e = x[1];
    for (int64_t i = 0; i < s[0]; i++) y[i] += e[i];
    return 0;
}
ARGS(sum, F(OUT, 1, 0, 0), F(IN, s[0], 0.5, 1))
DEV(sum)
{
    double total = NAN;
    int rc = s[1] ? d->sumsq(d, &total, x[1], s[0], on.stream)
                  : d->sum(d, &total, x[1], s[0], on.stream);
    float f = (float)total;
    return rc ? rc : d->upload(d, x[0], &f, sizeof f, on.stream);
}
REF(sum)
{
    double *y = x[0], *e = x[1];
    y[0] = 0;
    for (int64_t i = 0; i < s[0]; i++) y[0] += s[1] ? e[i] * e[i] : e[i];
    return 0;
}
static const struct hb_adamw ADAMW = { 6e-4f, 0.9f, 0.98f, 1e-8f, 0.1f, 7 };
// n, with a rounded copy or not
ARGS(adamw, F(ACC, s[0], 0, 1), F(ACC, s[0], 0, 0.1), F(ACC, s[0], 0.5, 0.08), F(IN, s[0], 0, 1),
     A(OUT, s[1] ? s[0] : 0, 0, 0))
DEV(adamw)
{
    return d->adamw(x[0], x[1], x[2], s[1] ? x[4] : NULL, x[3], 0.25f, ADAMW, s[0], on), 0;
}
REF(adamw)
{
    hb64_adamw(x[0], x[1], x[2], x[3], 0.25, ADAMW, s[0]);
    if (s[1]) memcpy(x[4], x[0], (size_t)s[0] * sizeof(double));
    return 0;
}

// --- along the sequence: C B L K, bias in front or not -------------------------------------------

ARGS(shortconv_fwd, A(OUT, s[0] * s[1] * s[2], 0, 0), A(IN, s[0] * s[1] * s[2], 0, 1),
     F(IN, s[0], 0, 1), F(IN, s[0] * s[3], 0, 1), F(IN, s[0], 0, 1))
DEV(shortconv_fwd)
{
    d->shortconv_fwd(x[0], x[1], s[4] ? x[2] : NULL, x[3], x[4], s[0], s[1], s[2], (int)s[3], on);
    return 0;
}
REF(shortconv_fwd)
{
    hb64_shortconv_fwd(x[0], x[1], s[4] ? x[2] : NULL, x[3], x[4], s[0], s[1], s[2], (int)s[3]);
    return 0;
}
ARGS(shortconv_bwd, A(OUT, s[0] * s[1] * s[2], 0, 0), F(ACC, s[0] * s[3], 0, 1), F(ACC, s[0], 0, 1),
     S(ACC, s[0], 0, 1), A(IN, s[0] * s[1] * s[2], 0, 1), A(IN, s[0] * s[1] * s[2], 0, 1),
     F(IN, s[0], 0, 1), F(IN, s[0] * s[3], 0, 1))
DEV(shortconv_bwd)
{
    d->shortconv_bwd(x[0], x[1], x[2], s[4] ? x[3] : NULL, x[4], x[5], s[4] ? x[6] : NULL, x[7],
                     s[0], s[1], s[2], (int)s[3], on);
    return 0;
}
REF(shortconv_bwd)
{
    hb64_shortconv_bwd(x[0], x[1], x[2], s[4] ? x[3] : NULL, x[4], x[5], s[4] ? x[6] : NULL, x[7],
                       s[0], s[1], s[2], (int)s[3]);
    return 0;
}

// --- two short filters and their gate: C B L K, bit 0: a has one, 1: b, 2: bias in front ---------

#define CBL (s[0] * s[1] * s[2])
#define TAP(role) F(role, s[0] * s[3], 0, 1), F(role, s[0], 0, 1), S(role, s[0], 0, 1)
static struct hb_conv_tap tap_of(shape s, void **x, int first, int grad, int bit)
{
    if (!(s[4] & bit)) return (struct hb_conv_tap){ .w = NULL };
    bool bp = s[4] & 4;
    struct hb_conv_tap t = { x[first], x[first + 1], bp ? x[first + 2] : NULL, NULL, NULL, NULL };
    if (grad) t.dw = x[grad], t.dbs = x[grad + 1], t.dbp = bp ? x[grad + 2] : NULL;
    return t;
}
// s = tap(p) in float64, of the tensors as above.
static void tap64(double *y, const double *p, shape s, void **x, int first, int bit)
{
    if (!(s[4] & bit)) memcpy(y, p, (size_t)CBL * sizeof *y);
    else hb64_shortconv_fwd(y, p, s[4] & 4 ? x[first + 2] : NULL, x[first], x[first + 1], s[0],
                            s[1], s[2], (int)s[3]);
}
ARGS(taps_fwd, A(OUT, CBL, 0, 0), A(IN, CBL, 0, 1), A(IN, CBL, 0, 1), TAP(IN), TAP(IN))
DEV(taps_fwd)
{
    d->taps_fwd(x[0], x[1], tap_of(s, x, 3, 0, 1), x[2], tap_of(s, x, 6, 0, 2), s[0], s[1], s[2],
                (int)s[3], on);
    return 0;
}
REF(taps_fwd)
{
    double *y = x[0], *b = malloc((size_t)CBL * sizeof *b);
    if (!b) return HB_ERR_OOM;
    tap64(y, x[1], s, x, 3, 1);
    tap64(b, x[2], s, x, 6, 2);
    for (int64_t i = 0; i < CBL; i++) y[i] *= b[i];
    free(b);
    return 0;
}
ARGS(taps_bwd, A(OUT, CBL, 0, 0), A(OUT, CBL, 0, 0), A(IN, CBL, 0, 1), TAP(IN), TAP(IN), TAP(ACC),
     TAP(ACC), A(IN, CBL, 0, 1), A(IN, CBL, 0, 1))
DEV(taps_bwd)
{
    d->taps_bwd(x[0], x[1], x[2], x[15], tap_of(s, x, 3, 9, 1), x[16], tap_of(s, x, 6, 12, 2), s[0],
                s[1], s[2], (int)s[3], on);
    return 0;
}
REF(taps_bwd)
{
    const double *dy = x[2];
    double *ds = malloc((size_t)CBL * sizeof *ds);
    if (!ds) return HB_ERR_OOM;
    for (int q = 0; q < 2; q++) {                  // the gradient of signal q, by the other
        const int mine = q ? 6 : 3, grad = q ? 12 : 9;
        tap64(ds, x[q ? 15 : 16], s, x, q ? 3 : 6, q ? 1 : 2);
        for (int64_t i = 0; i < CBL; i++) ds[i] *= dy[i];
        if (!(s[4] & (q ? 2 : 1))) memcpy(x[q], ds, (size_t)CBL * sizeof *ds);
        else hb64_shortconv_bwd(x[q], x[grad], x[grad + 1], s[4] & 4 ? x[grad + 2] : NULL, ds,
                                x[15 + q], s[4] & 4 ? x[mine + 2] : NULL, x[mine], s[0], s[1],
                                s[2], (int)s[3]);
    }
    free(ds);
    return 0;
}

// --- exchange of axes: a i j k; rotary positions: R L H P, rows further apart, inverse -----------

#define ALL4 (s[0] * s[1] * s[2] * s[3])
ARGS(swap, A(OUT, ALL4, 0, 0), A(IN, ALL4, 0, 1))
DEV(swap) { return d->swap(x[0], x[1], s[0], s[1], s[2], s[3], on), 0; }
REF(swap) { return hb64_swap(x[0], x[1], s[0], s[1], s[2], s[3]), 0; }
ARGS(rope, A(ACC, s[0] * (s[2] * s[3] + s[4]), 0, 1))
DEV(rope)
{
    return d->rope(x[0], s[0], s[1], s[2], s[3], s[2] * s[3] + s[4], s[5] != 0, on), 0;
}
REF(rope) { return hb64_rope(x[0], s[0], s[1], s[2], s[3], s[2] * s[3] + s[4], s[5] != 0), 0; }

// --- language model: R L C V, with positions or not; R C V for the loss, with gradient or not ----
ARGS(embed_fwd, A(OUT, s[0] * s[2], 0, 0), A(IN, s[3] * s[2], 0, 1), A(IN, s[1] * s[2], 0, 1),
     TOKENS(s[0], s[3], false))
DEV(embed_fwd)
{
    return d->embed_fwd(x[0], x[1], s[4] ? x[2] : NULL, x[3], s[0], s[1], s[2], on), 0;
}
REF(embed_fwd) { return hb64_embed_fwd(x[0], x[1], s[4] ? x[2] : NULL, x[3], s[0], s[1], s[2]), 0; }
ARGS(embed_bwd, F(ACC, s[3] * s[2], 0, 1), F(ACC, s[1] * s[2], 0, 1), A(IN, s[0] * s[2], 0, 1),
     TOKENS(s[0], s[3], false))
DEV(embed_bwd)
{
    return d->embed_bwd(x[0], s[4] ? x[1] : NULL, x[2], x[3], s[0], s[1], s[2], s[3], on), 0;
}
REF(embed_bwd) { return hb64_embed_bwd(x[0], s[4] ? x[1] : NULL, x[2], x[3], s[0], s[1], s[2]), 0; }
ARGS(xent, F(OUT, s[0], 0, 0), A(OUT, s[2] ? s[0] * s[1] : 0, 0, 0), A(IN, s[0] * s[1], 0, 4),
     TOKENS(s[0], s[1], true))
DEV(xent) { return d->xent(x[0], s[2] ? x[1] : NULL, x[2], x[3], 0.125f, s[0], s[1], on), 0; }
REF(xent) { return hb64_xent(x[0], s[2] ? x[1] : NULL, x[2], x[3], 0.125, s[0], s[1]), 0; }
ARGS(xent_in_place, F(OUT, s[0], 0, 0), A(ACC, s[0] * s[1], 0, 4), TOKENS(s[0], s[1], true))
DEV(xent_in_place) { return d->xent(x[0], x[1], x[1], x[2], 0.125f, s[0], s[1], on), 0; }
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
    F(role, s[4] * s[3], 0, 0.4), F(role, s[4], 0, 0.4), F(role, s[4] * s[4], 0, 0.2), \
        F(role, s[4], 0, 0.2), F(role, s[4] * s[4], 0, 0.2), F(role, s[4], 0, 0.2),    \
        F(role, s[2] * s[4], 0, 0.2), F(role, s[4], 3, 1)
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
ARGS(filter_fwd, F(OUT, s[2] * s[0], 0, 0), F(IN, s[1] * s[3], 0, 1), FILTER_PARAMS(IN))
DEV(filter_fwd)
{
    struct hb_filter_shape f = filter_shape(s);
    void *ws = d->alloc(d, d->filter_ws(f));
    int rc = ws ? d->filter_fwd(d, x[0], f, filter_params(x + 1), ws, on) : HB_ERR_OOM;
    if (!rc) rc = d->sync(d, on.stream);
    d->free(d, ws);
    return rc;
}
REF(filter_fwd)
{
    struct hb_filter_shape f = filter_shape(s);
    struct hb64_filter p = filter64(x + 1);
    return hb64_filter_fwd(x[0], &f, &p, 1);
}
ARGS(filter_bwd, F(IN, s[2] * s[0], 0, 1), F(IN, s[1] * s[3], 0, 1), FILTER_PARAMS(IN),
     F(ACC, s[1] * s[3], 0, 1), FILTER_PARAMS(ACC), F(TMP, s[2] * s[0], 0, 0))
DEV(filter_bwd)
{
    struct hb_filter_shape f = filter_shape(s);
    struct hb_filter_params p = filter_params(x + 1), g = filter_params(x + 10);
    void *ws = d->alloc(d, d->filter_ws(f));
    if (!s[7]) g.z = NULL;
    int rc = ws ? d->filter_fwd(d, x[19], f, p, ws, on) : HB_ERR_OOM;
    if (!rc) rc = d->filter_bwd(d, x[0], f, p, g, ws, on);
    if (!rc) rc = d->sync(d, on.stream);
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

#define CASE(name, tol, ...)                                                                     \
    { #name, tol, tol, { __VA_ARGS__ }, args_##name, dev_##name, ref_##name, false }
// Sums of tensor cores are cut, not rounded, where terms are aligned: 1e-5 for float32 results.
#define PRODUCT(name, tol, ...)                                                                  \
    { #name, tol, 1e-5, { __VA_ARGS__ }, args_gemm, dev_gemm, ref_gemm, false }
// Without activations, but the type of the signals decides how exact the filter is.
#define FILTER(name, tol, ...)                                                                   \
    { #name, tol, 1e-5, { __VA_ARGS__ }, args_##name, dev_##name, ref_##name, true }
#define RC {1, 1}, {1, 37}, {37, 1}, {129, 65}, {1000, 31}, {1000, 768}
#define N1 {1}, {7}, {1000}, {40001}
#define N2 {1, 1}, {7, 0}, {1000, 1}, {40001, 1}
#define CBLK {1, 1, 1, 3, 1}, {3, 2, 2, 3, 0}, {5, 3, 31, 3, 1}, {3, 2, 7, 9, 1}, \
    {17, 1, 1025, 4, 0}, {768, 2, 1000, 3, 1}
#define TAPS {1, 1, 1, 3, 7}, {3, 2, 2, 3, 3}, {5, 3, 31, 3, 6}, {3, 2, 7, 9, 7}, \
    {17, 1, 1025, 4, 5}, {3, 2, 64, 3, 0}, {2, 3, 1000, 3, 5}, {768, 2, 1000, 3, 7}, \
    {2, 1, 9000, 3, 2}
#define RLCV {1, 1, 1, 1, 1}, {33, 11, 37, 5, 1}, {1000, 100, 65, 257, 0}, {40, 20, 64, 50304, 1}
const struct prim hb_prims[] = {
    PRODUCT(gemm, 1e-6, { 1, 1, 1, 0, 0 }, { 1, 33, 7, 1, 1 }, { 31, 1, 65, 2, 2 },
            { 17, 45, 129, 3, 0 }, { 64, 31, 257, 0, 2 }, { 1000, 768, 96, 2, 0 },
            { 768, 1000, 64, 3, 2 }, { 40, 50304, 16, 2, 0 }, { 33, 17, 40, 1, 2, 0, 0, 5 }),
    PRODUCT(gemm_long, 5e-6, { 5, 16, 50304, 0, 0 }, { 16, 24, 20000, 1, 2, WIDE }),
    PRODUCT(gemm_bias, 1e-6, { 1, 1, 1, 0, 0, BIAS }, { 33, 65, 17, 2, 0, BIAS },
            { 7, 3, 31, 0, 2, BIAS }, { 40, 24, 64, 3, 0, BIAS, 0, 3 },
            { 1000, 768, 64, 2, 0, BIAS }),
    PRODUCT(gemm_residual, 1e-6, { 1, 1, 1, 2, 2, RESIDUAL }, { 33, 65, 17, 2, 2, RESIDUAL | BIAS },
            { 31, 7, 9, 1, 1, RESIDUAL }, { 40, 24, 64, 3, 2, RESIDUAL | BIAS, 0, 8 },
            { 1000, 768, 64, 3, 2, RESIDUAL | BIAS }, { 7, 5, 8, 0, 0, RESIDUAL }),
    PRODUCT(gemm_gelu, 1e-6, { 33, 65, 17, 2, 0, GELU | BIAS }, { 7, 3, 31, 0, 0, GELU },
            { 40, 24, 64, 2, 0, GELU | BIAS, 0, 8 }, { 1000, 768, 64, 2, 0, GELU | BIAS }),
    PRODUCT(gemm_dgelu, 1e-6, { 33, 65, 17, 0, 0, DGELU }, { 7, 3, 31, 2, 0, DGELU },
            { 40, 24, 64, 0, 0, DGELU, 0, 8 }, { 1000, 768, 64, 0, 0, DGELU }),
    PRODUCT(gemm_out_f32, 1e-6, { 1, 1, 1, 1, 2, WIDE }, { 33, 65, 17, 1, 2, WIDE },
            { 7, 3, 31, 0, 0, WIDE }, { 768, 96, 1000, 1, 2, WIDE }, { 65, 33, 129, 3, 2, WIDE },
            { 24, 40, 64, 1, 2, WIDE, 0, 8 }),
    PRODUCT(gemm_batch, 1e-6, { 5, 7, 3, 0, 0, 0, 3 }, { 33, 17, 24, 2, 2, 0, 4 },
            { 64, 64, 40, 1, 0, 0, 24, 8 }, { 16, 9, 31, 1, 2, WIDE, 5 }),
    CASE(bias_bwd, 1e-6, RC),
    CASE(cast_up, 0, N1),
    CASE(cast_down, 0, N1),
    CASE(layernorm_fwd, 1e-6, { 1, 2 }, { 3, 37 }, { 129, 65 }, { 1000, 31 }, { 1000, 768 },
         { 3, 3072 }),
    CASE(layernorm_bwd, 2e-6, { 1, 2 }, { 3, 37 }, { 129, 65 }, { 1000, 31 }, { 1000, 768 },
         { 3, 3072 }),
    CASE(add, 1e-6, N1),
    CASE(adamw, 1e-6, N2),
    CASE(sum, 1e-6, { 1, 0 }, { 513, 0 }, { 40001, 0 }, { 1, 1 }, { 513, 1 }, { 1000003, 1 }),
    CASE(shortconv_fwd, 1e-6, CBLK),
    CASE(shortconv_bwd, 1e-6, CBLK),
    CASE(taps_fwd, 1e-6, TAPS),
    CASE(taps_bwd, 5e-6, TAPS),             // a sum of 9000 of either sign
    CASE(swap, 0, { 1, 1, 1, 1 }, { 2, 3, 5, 7 }, { 2, 33, 65, 1 }, { 1, 768, 1000, 1 },
         { 1, 1000, 3, 1 }, { 1, 3, 37, 1000 }, { 2, 12, 100, 64 }, { 3, 1, 5, 2 }),
    CASE(rope, 1e-6, { 1, 1, 1, 2 }, { 10, 5, 3, 34, 0 }, { 10, 5, 3, 34, 17, 1 },
         { 2000, 1000, 4, 64, 128 }, { 2000, 1000, 4, 64, 128, 1 }, { 7, 7, 2, 258, 1 }),
    CASE(embed_fwd, 1e-6, RLCV),
    CASE(embed_bwd, 1e-6, RLCV),
    CASE(xent, 1e-6, { 1, 1, 1 }, { 5, 2, 1 }, { 33, 257, 1 }, { 400, 65, 0 }, { 40, 50304, 1 }),
    CASE(xent_in_place, 1e-6, { 33, 257 }, { 40, 50304 }),
    FILTER(filter_fwd, 1e-6, { 1, 1, 1, 3, 1, 1, 0, 1 }, { 31, 40, 5, 5, 7, 1, 5, 1 },
           { 300, 300, 70, 33, 64, 1, 0, 1 }, { 129, 257, 3, 9, 16, 0, 0, 0 },
           { 100, 100, 70, 5, 130, 1, 5, 1 }, { 77, 100, 30, 63, 24, 1, 0, 1 },
           { 100, 128, 600, 33, 64, 1, 0, 0 }),
    FILTER(filter_bwd, 1e-6, { 1, 1, 1, 3, 1, 1, 0, 1 }, { 31, 40, 5, 5, 7, 1, 5, 1 },
           { 300, 300, 70, 33, 64, 1, 0, 1 }, { 129, 257, 3, 9, 16, 0, 0, 0 },
           { 100, 100, 70, 5, 130, 1, 5, 1 }, { 77, 100, 30, 63, 24, 1, 0, 1 },
           { 100, 128, 600, 33, 64, 1, 0, 0 }),
};
const int hb_n_prims = (int)(sizeof hb_prims / sizeof *hb_prims);
