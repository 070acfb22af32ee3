// props.c: properties of the operators (contract: props.h).
//     causality    y[t] does not change with inputs later than t: exactly; for FFT methods within
//                  50 eps max|y|, because a transform spreads the rounding of its largest value
//     linearity    A(u + w) = A u + A w; u of longconv, v of attention
//     shift        A(u delayed) = (A u) delayed, zeros before; longconv
//     adjoint      <dy, A u> = <A' dy, u>, relative to |dy| |A u|; as linearity
//     determinism  the same call twice gives the same bits, forward and backward
//     zero         u = 0 (attention: v) gives exactly y = 0; dy = 0 gives exactly zero gradients
//     strides      (C,B,L) tensors give what (B,C,L) tensors give; longconv
// Where a limit is not exact it is the checker's tolerance in relative L2.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "inputs.h"
#include "props.h"
#include "../impls/core/rng.h"

// An implementation, planned on a point, with its inputs.
struct bench { struct hb_point pt; const struct hb_impl *impl; struct hb_inputs in; void *st; };

// Also empties *res.
static int open_bench(struct bench *b, const struct hb_point *pt, const struct hb_impl *impl,
                      struct hb_prop_result *res)
{
    memset(res, 0, sizeof *res);
    memset(b, 0, sizeof *b);
    b->pt = *pt;
    b->impl = impl;
    b->pt.p.filter = HB_FILTER_FRESH;
    b->pt.p.backward = impl->backward != NULL;
    const char *why = hb_point_refuses(&b->pt, impl);
    if (why) return hb_fail(HB_ERR_REFUSED, "%s refuses: %s", impl->name, why);
    int rc = hb_inputs_make(&b->pt, impl, HB_IN_NORMAL, &b->in);
    return rc ? rc : impl->plan(hb_host(), &b->pt.p, &b->st);
}

static void close_bench(struct bench *b)
{
    if (b->st) b->impl->destroy(b->st);
    if (b->in.priv) hb_inputs_free(&b->in);
}

// Forward, and backward if there is one, from poisoned outputs. The inputs are the host copies as
// they are now, and what comes out is there, too.
static int run(struct bench *b)
{
    hb_inputs_poison(&b->in);
    int rc = hb_inputs_upload(&b->in);
    if (!rc) rc = b->impl->forward(b->st, &b->in.io);
    if (!rc && b->pt.p.backward) rc = b->impl->backward(b->st, &b->in.io);
    if (!rc && hb_inputs_bufs(&b->in)->dev) rc = hb_host()->device->sync(hb_host()->device,
                                                                         b->in.io.stream);
    return rc ? rc : hb_inputs_download(&b->in);
}

static struct hb_buf *buf(const struct bench *b, const char *what)
{
    return hb_inputs_find(&b->in, what);
}

// The tensor that y is linear in; NULL: there is none.
static struct hb_buf *linear_input(const struct bench *b)
{
    enum hb_op op = b->pt.p.op;
    return op == HB_LONGCONV ? buf(b, "u") : op == HB_ATTENTION ? buf(b, "v") : NULL;
}

// A copy of the tensor, as float64; NULL with the message set.
static double *copy_of(const struct hb_buf *b)
{
    double *x = malloc((size_t)b->n * sizeof *x);
    if (x) hb_buf_load(b, 0, b->n, x);
    else hb_fail(HB_ERR_OOM, "out of memory: checking a property");
    return x;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static double distance(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum);
}

static void verdict(struct hb_prop_result *res, double value, double limit, const char *what)
{
    res->applies = true;
    res->value = value;
    res->limit = limit;
    res->ok = value <= limit;                 // a NaN is not
    if (!res->ok)
        snprintf(res->detail, sizeof res->detail, "%s: %.3g, limit %.3g", what, value, limit);
}

static double rel_tol(const struct bench *b) { return hb_check_tol(&b->pt, "y"); }

// --- causality -----------------------------------------------------------------------------------

// Elements of one time step of a tensor: time is the last axis for longconv, else the last but one.
static int64_t step_width(const struct bench *b)
{
    const struct hb_problem *p = &b->pt.p;
    return p->op == HB_LONGCONV ? 1 : p->op == HB_ATTENTION ? p->D / p->H : p->D;
}

static void renew_last_step(const struct bench *b, struct hb_buf *x, uint64_t stream)
{
    int64_t w = step_width(b), row = b->pt.p.L * w;
    for (int64_t i = 0; x && i < x->n; i++) {
        double v = hb_rng_normal(b->pt.seed, stream, (uint64_t)i);
        if (i % row >= row - w) hb_buf_store(x, i, 1, &v);
    }
}

static int causality(const struct hb_point *pt, const struct hb_impl *impl,
                     struct hb_prop_result *res)
{
    struct bench b;
    double *y1 = NULL, *y2 = NULL;
    int rc = open_bench(&b, pt, impl, res);
    if (!rc) rc = run(&b);
    if (!rc && !(y1 = copy_of(buf(&b, "y")))) rc = HB_ERR_OOM;
    if (!rc) {
        static const char *const inputs[] = { "u", "q", "k", "v" };
        for (int i = 0; i < 4; i++) renew_last_step(&b, buf(&b, inputs[i]), (uint64_t)(2000 + i));
        rc = run(&b);
    }
    if (!rc && !(y2 = copy_of(buf(&b, "y")))) rc = HB_ERR_OOM;
    if (!rc) {
        int64_t w = step_width(&b), row = pt->p.L * w;
        static const double eps_of[HB_DTYPE_COUNT] = { [HB_F32] = 0x1p-23, [HB_F64] = 0x1p-52,
                                                       [HB_F16] = 0x1p-10, [HB_BF16] = 0x1p-7 };
        double leak = 0, top = 0, eps = eps_of[pt->p.dtype];
        for (int64_t i = 0; i < buf(&b, "y")->n; i++) {
            top = fmax(top, fabs(y2[i]));
            if (i % row < row - w && !(fabs(y1[i] - y2[i]) <= leak)) leak = fabs(y1[i] - y2[i]);
        }
        verdict(res, leak, strstr(pt->impl, "fft") ? 50 * eps * top : 0,
                "an earlier output changed by");
    }
    free(y1);
    free(y2);
    close_bench(&b);
    return rc;
}

// --- linearity, shift, adjoint -------------------------------------------------------------------

static int linearity(const struct hb_point *pt, const struct hb_impl *impl,
                     struct hb_prop_result *res)
{
    struct bench b;
    double *u = NULL, *y[3] = { NULL, NULL, NULL };
    int rc = open_bench(&b, pt, impl, res);
    struct hb_buf *x = rc ? NULL : linear_input(&b);
    if (x && !(u = copy_of(x))) rc = HB_ERR_OOM;
    for (int k = 0; k < 3 && x && !rc; k++) {                  // u, w, u + w
        for (int64_t i = 0; i < x->n; i++) {
            double w = (double)(float)hb_rng_normal(pt->seed, 2010, (uint64_t)i);
            double v = (k != 1 ? u[i] : 0) + (k != 0 ? w : 0);
            hb_buf_store(x, i, 1, &v);
        }
        rc = run(&b);
        if (!rc && !(y[k] = copy_of(buf(&b, "y")))) rc = HB_ERR_OOM;
    }
    if (x && !rc) {
        int64_t n = buf(&b, "y")->n;
        for (int64_t i = 0; i < n; i++) y[0][i] += y[1][i];
        verdict(res, distance(y[0], y[2], n) / sqrt(dot(y[2], y[2], n)), rel_tol(&b),
                "A(u+w) - Au - Aw");
    }
    free(u);
    for (int k = 0; k < 3; k++) free(y[k]);
    close_bench(&b);
    return rc;
}

static int shift(const struct hb_point *pt, const struct hb_impl *impl, struct hb_prop_result *res)
{
    struct bench b;
    double *u = NULL, *y1 = NULL, *y2 = NULL;
    int64_t L = pt->p.L, by = L / 3 > 0 ? L / 3 : 1;
    int rc = open_bench(&b, pt, impl, res);
    if (rc || pt->p.op != HB_LONGCONV || L < 2) {
        close_bench(&b);
        return rc;
    }
    struct hb_buf *x = buf(&b, "u");
    if (!(u = copy_of(x))) rc = HB_ERR_OOM;
    if (!rc) rc = run(&b);
    if (!rc && !(y1 = copy_of(buf(&b, "y")))) rc = HB_ERR_OOM;
    for (int64_t i = 0; i < x->n && !rc; i++) {
        double v = i % L >= by ? u[i - by] : 0;
        hb_buf_store(x, i, 1, &v);
    }
    if (!rc) rc = run(&b);
    if (!rc && !(y2 = copy_of(buf(&b, "y")))) rc = HB_ERR_OOM;
    if (!rc) {
        double err = 0;
        for (int64_t i = 0; i < x->n; i++) {
            double e = y2[i] - (i % L >= by ? y1[i - by] : 0);
            err += e * e;
        }
        verdict(res, sqrt(err / dot(y1, y1, x->n)), rel_tol(&b), "A(u delayed) - (A u) delayed");
    }
    free(u);
    free(y1);
    free(y2);
    close_bench(&b);
    return rc;
}

static int adjoint(const struct hb_point *pt, const struct hb_impl *impl,
                   struct hb_prop_result *res)
{
    struct bench b;
    double *v[4] = { NULL, NULL, NULL, NULL };                 // dy, y, A' dy, u
    int rc = open_bench(&b, pt, impl, res);
    struct hb_buf *x = rc || !impl->backward ? NULL : linear_input(&b);
    if (x) rc = run(&b);
    if (x && !rc) {
        const struct hb_buf *from[4] = { buf(&b, "dy"), buf(&b, "y"),
                                         buf(&b, pt->p.op == HB_LONGCONV ? "du" : "dv"), x };
        int64_t n = x->n;
        for (int k = 0; k < 4 && !rc; k++)
            if (!(v[k] = copy_of(from[k]))) rc = HB_ERR_OOM;
        if (!rc)
            verdict(res,
                    fabs(dot(v[0], v[1], n) - dot(v[2], v[3], n)) /
                        sqrt(dot(v[0], v[0], n) * dot(v[1], v[1], n)),
                    rel_tol(&b), "<dy, A u> - <A' dy, u>");
    }
    for (int k = 0; k < 4; k++) free(v[k]);
    close_bench(&b);
    return rc;
}

// --- determinism, zero ---------------------------------------------------------------------------

static int determinism(const struct hb_point *pt, const struct hb_impl *impl,
                       struct hb_prop_result *res)
{
    struct bench b;
    char *first[HB_MAX_BUFS] = { NULL };
    int rc = open_bench(&b, pt, impl, res), differs = -1;
    const struct hb_bufs *all = b.in.priv ? hb_inputs_bufs(&b.in) : NULL;
    if (!rc) rc = run(&b);
    for (int i = 0; !rc && i < all->n; i++) {
        if (all->b[i].role == HB_ROLE_IN) continue;
        if (!(first[i] = malloc(all->b[i].bytes)))
            rc = hb_fail(HB_ERR_OOM, "out of memory: checking a property");
        else memcpy(first[i], all->b[i].data, all->b[i].bytes);
    }
    if (!rc) rc = run(&b);
    for (int i = 0; !rc && i < all->n; i++)
        if (first[i] && memcmp(first[i], all->b[i].data, all->b[i].bytes)) differs = i;
    if (!rc) verdict(res, differs >= 0 ? 1 : 0, 0, differs >= 0 ? all->b[differs].what : "");
    for (int i = 0; i < HB_MAX_BUFS; i++) free(first[i]);
    close_bench(&b);
    return rc;
}

// The larger of two magnitudes; a NaN stays.
static double larger(double a, double b) { return isnan(a) || a >= b ? a : b; }

static double largest(const struct hb_buf *b)
{
    double top = 0;
    for (int64_t i = 0; i < b->n; i++) {
        double x;
        hb_buf_load(b, i, 1, &x);
        top = larger(top, fabs(x));
    }
    return top;
}

static int zero(const struct hb_point *pt, const struct hb_impl *impl, struct hb_prop_result *res)
{
    struct bench b;
    int rc = open_bench(&b, pt, impl, res);
    struct hb_buf *x = rc ? NULL : linear_input(&b);
    double top = 0;
    if (x) {
        memset(x->data, 0, x->bytes);
        rc = run(&b);
        if (!rc) top = largest(buf(&b, "y"));
    }
    if (!rc && b.pt.p.backward) {
        memset(buf(&b, "dy")->data, 0, buf(&b, "dy")->bytes);
        rc = run(&b);
        const struct hb_bufs *all = hb_inputs_bufs(&b.in);
        for (int i = 0; !rc && i < all->n; i++) {
            const struct hb_buf *o = &all->b[i];
            if (o->role != HB_ROLE_IN && strcmp(o->what, "y")) top = larger(top, largest(o));
        }
    }
    if (!rc && (x || b.pt.p.backward)) verdict(res, top, 0, "largest output of zero");
    close_bench(&b);
    return rc;
}

// --- strides -------------------------------------------------------------------------------------

// Moves a (B,D,L) tensor into (D,B,L) order, or back.
static int reorder(struct hb_buf *x, int64_t B, int64_t D, int64_t L, bool back)
{
    double *v = copy_of(x);
    if (!v) return HB_ERR_OOM;
    for (int64_t b = 0; b < B; b++)
        for (int64_t d = 0; d < D; d++) {
            int64_t usual = (b * D + d) * L, other = (d * B + b) * L;
            hb_buf_store(x, back ? usual : other, L, v + (back ? other : usual));
        }
    free(v);
    return 0;
}

static int strides(const struct hb_point *pt, const struct hb_impl *impl,
                   struct hb_prop_result *res)
{
    static const char *const moved[] = { "u", "dy", "y", "du" };       // inputs, then outputs
    struct bench b;
    double *want[4] = { NULL, NULL, NULL, NULL }, worst = 0;
    int64_t B = pt->p.B, D = pt->p.D, L = pt->p.L;
    int rc = open_bench(&b, pt, impl, res);
    if (rc || pt->p.op != HB_LONGCONV) {
        close_bench(&b);
        return rc;
    }
    rc = run(&b);
    for (int k = 0; k < 4 && !rc; k++)
        if (buf(&b, moved[k]) && !(want[k] = copy_of(buf(&b, moved[k])))) rc = HB_ERR_OOM;
    for (int k = 0; k < 2 && !rc; k++)
        if (want[k]) rc = reorder(buf(&b, moved[k]), B, D, L, false);
    struct hb_longconv_io *io = &b.in.io.conv;
    io->su = io->sy = io->sdy = io->sdu = (struct hb_strides){ .b = L, .c = B * L };
    if (!rc) rc = run(&b);
    for (int k = 2; k < 4 && !rc; k++) {
        if (!want[k]) continue;
        struct hb_buf *x = buf(&b, moved[k]);
        rc = reorder(x, B, D, L, true);
        double *got = rc ? NULL : copy_of(x);
        if (!got) rc = HB_ERR_OOM;
        else worst = fmax(worst, distance(got, want[k], x->n) / sqrt(dot(want[k], want[k], x->n)));
        free(got);
    }
    if (!rc) verdict(res, worst, rel_tol(&b), "channel-first against batch-first");
    for (int k = 0; k < 4; k++) free(want[k]);
    close_bench(&b);
    return rc;
}

// --- the table -----------------------------------------------------------------------------------

const struct hb_prop hb_props[] = {
    { "causality", "a later input changes no earlier output", causality },
    { "linearity", "A(u + w) = A u + A w", linearity },
    { "shift", "a delayed input gives the delayed output", shift },
    { "adjoint", "<dy, A u> = <A' dy, u>", adjoint },
    { "determinism", "the same call twice gives the same bits", determinism },
    { "zero", "zero gives exactly zero", zero },
    { "strides", "the layout of u, y, dy, du does not change the result", strides },
};
const int hb_n_props = sizeof hb_props / sizeof *hb_props;
