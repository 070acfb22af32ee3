// apply_oper.c: the parameters of hyena and mha from a checkpoint (contract: apply.h).
//
// The shapes say what the problem is: D and order from the projections, taps from the short filter,
// E, W and lmax from the implicit filter. The names are the published operator's. Buffers that a
// checkpoint repeats (time, decay rates, the shared sine frequencies) may be there and must say
// what we compute ourselves.
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apply.h"
#include "../impls/core/oper.h"

static const double BUFFER_TOL = 1e-5;     // float32 in checkpoints, rounded from 15.4 at most

static int bad(const struct hb_apply *a, const char *fmt, const char *name)
{
    char what[256];
    snprintf(what, sizeof what, fmt, name);
    return hb_fail(HB_ERR_INPUT, "%s: %s", a->params_path, what);
}

// The tensor with that many dimensions, or NULL with the message set.
static const struct hb_st_tensor *need(const struct hb_apply *a, const char *name, int rank)
{
    const struct hb_st_tensor *t = hb_st_find(&a->file, name);
    char buf[256];
    if (!t) bad(a, "tensor '%s' is missing", name);
    else if (t->rank != rank || t->n == 0) {
        hb_fail(HB_ERR_INPUT, "%s: tensor '%s' has shape %s, expected %d dimensions, none empty",
                a->params_path, name, hb_shape_str(t->rank, t->shape, buf, sizeof buf), rank);
        t = NULL;
    }
    return t;
}

// Too large: refused as a shape later.
static int to_int(int64_t x) { return x > INT32_MAX ? INT32_MAX : (int)x; }

// --- what the shapes say -------------------------------------------------------------------------

// Projection ((blocks) D, D), blocks >= 3; 0 or HB_ERR_INPUT.
static int infer_projection(struct hb_apply *a, const char *name, int64_t *blocks)
{
    const struct hb_st_tensor *w = need(a, name, 2);
    char buf[256];
    if (!w) return HB_ERR_INPUT;
    a->p.D = w->shape[1];
    *blocks = w->shape[0] / w->shape[1];
    if (w->shape[0] % w->shape[1] || *blocks < 3)
        return hb_fail(HB_ERR_INPUT, "%s: tensor '%s' has shape %s, expected (n D, D) with n >= 3",
                       a->params_path, name, hb_shape_str(2, w->shape, buf, sizeof buf));
    return 0;
}

static int infer_hyena(struct hb_apply *a)
{
    struct hb_oper_opts *o = &a->p.oper;
    int64_t blocks = 0;
    int rc = infer_projection(a, "in_proj.weight", &blocks);
    if (rc) return rc;
    const struct hb_st_tensor *taps = need(a, "short_filter.weight", 3);
    const struct hb_st_tensor *z = taps ? need(a, "filter_fn.pos_emb.z", 3) : NULL;
    const struct hb_st_tensor *w1 = z ? need(a, "filter_fn.implicit_filter.0.weight", 2) : NULL;
    if (!w1) return HB_ERR_INPUT;
    o->order = to_int(blocks - 1);
    o->short_taps = to_int(taps->shape[2]);
    o->lmax = z->shape[1];
    o->emb_dim = to_int(z->shape[2]);
    o->filter_width = to_int(w1->shape[0]);
    o->shift = (float)a->shift;
    o->no_window = a->no_window;
    o->package_layout = a->package_layout;
    o->train_z = true;
    if (o->emb_dim < 3 || o->emb_dim % 2 == 0)
        return hb_fail(HB_ERR_INPUT, "%s: tensor '%s' has %d features, expected an odd number >= 3",
                       a->params_path, z->name, o->emb_dim);
    if (a->p.L > o->lmax)
        return hb_fail(HB_ERR_INPUT,
                       "%s: L = %" PRId64 ", but the positional table in %s ends at %" PRId64,
                       a->u_path, a->p.L, a->params_path, o->lmax);
    return 0;
}

static int infer_mha(struct hb_apply *a)
{
    int64_t blocks = 0;
    int rc = infer_projection(a, "Wqkv.weight", &blocks);
    if (rc) return rc;
    if (blocks != 3) return bad(a, "tensor '%s': expected (3 D, D)", "Wqkv.weight");
    if (hb_st_find(&a->file, "short_filter.weight")) {
        const struct hb_st_tensor *taps = need(a, "short_filter.weight", 3);
        if (!taps) return HB_ERR_INPUT;
        a->p.oper.short_taps = to_int(taps->shape[2]);
    }
    a->p.oper.rope = a->rope;
    a->p.H = a->heads ? a->heads : a->p.D % 64 ? 1 : a->p.D / 64;
    if (a->p.D % a->p.H)
        return hb_fail(HB_ERR_INPUT, "--heads %" PRId64 ": expected a divisor of D = %" PRId64,
                       a->p.H, a->p.D);
    return 0;
}

// --- buffers that only repeat what is known ------------------------------------------------------

struct buffer { const char *name; bool deltas; };
static const struct buffer BUFFERS[] = { { "filter_fn.pos_emb.t", false },
                                         { "filter_fn.modulation.deltas", true } };
static const char *const SHARED_FREQ[] = { "filter_fn.implicit_filter.3.freq",
                                           "filter_fn.implicit_filter.5.freq" };

static int check_buffer(const struct hb_apply *a, const struct buffer *b,
                        const struct hb_st_tensor *t)
{
    const struct hb_oper_opts *o = &a->p.oper;
    int64_t n = b->deltas ? (o->order - 1) * a->p.D : o->lmax;
    float *x = malloc((size_t)(t->n ? t->n : 1) * sizeof *x);
    int rc = x ? hb_st_load(&a->file, t, x)
               : hb_fail(HB_ERR_OOM, "%s: out of memory", a->params_path);
    if (!rc && t->n != n)
        rc = hb_fail(HB_ERR_INPUT, "%s: tensor '%s' has %" PRId64 " elements, expected %" PRId64,
                     a->params_path, b->name, t->n, n);
    for (int64_t i = 0; i < n && !rc; i++) {
        double want = b->deltas ? hb_decay(i, n) : hb_time(i, n), is = (double)x[i];
        if (b->deltas) is = fabs(is);            // stored with a minus sign
        if (!(fabs(is - want) <= BUFFER_TOL))
            rc = hb_fail(HB_ERR_INPUT, "%s: tensor '%s', element %" PRId64 ": %.9g, expected %.9g",
                         a->params_path, b->name, i, is, want);
    }
    free(x);
    return rc;
}

static int check_freq(const struct hb_apply *a, const char *name, const struct hb_st_tensor *t)
{
    const struct hb_st_tensor *first = hb_st_find(&a->file, "filter_fn.implicit_filter.1.freq");
    if (!first) return 0;                        // load_params reports that
    size_t bytes = (size_t)first->n * (first->f64 ? 8 : 4);
    if (t->n == first->n && t->f64 == first->f64 && !memcmp(t->data, first->data, bytes)) return 0;
    return bad(a, "tensor '%s' differs from filter_fn.implicit_filter.1.freq, expected the same",
               name);
}

// A tensor that impl->tensors does not name: a known buffer, or an error.
static int check_extra(const struct hb_apply *a, const struct hb_st_tensor *t)
{
    for (size_t i = 0; a->p.op == HB_HYENA && i < 2; i++) {
        if (!strcmp(t->name, BUFFERS[i].name)) return check_buffer(a, &BUFFERS[i], t);
        if (!strcmp(t->name, SHARED_FREQ[i])) return check_freq(a, SHARED_FREQ[i], t);
    }
    return bad(a, "tensor '%s' is unknown", t->name);
}

// --- all of them ---------------------------------------------------------------------------------

static int load_params(struct hb_apply *a)
{
    for (int i = 0; i < a->n_params; i++) {
        const struct hb_tensor *w = &a->tensors[i];
        const struct hb_st_tensor *t = need(a, w->name, w->rank);
        char is[256], want[256];
        if (!t) return HB_ERR_INPUT;
        if (memcmp(t->shape, w->shape, (size_t)w->rank * sizeof *w->shape))
            return hb_fail(HB_ERR_INPUT, "%s: tensor '%s' has shape %s, expected %s",
                           a->params_path, w->name, hb_shape_str(t->rank, t->shape, is, sizeof is),
                           hb_shape_str(w->rank, w->shape, want, sizeof want));
        a->params[i] = hb_host()->alloc(hb_host(), (size_t)t->n * sizeof(float));
        int rc = a->params[i] ? hb_st_load(&a->file, t, a->params[i]) : HB_ERR_OOM;
        if (rc) return rc;
    }
    return 0;
}

int hb_apply_params(struct hb_apply *a)
{
    int rc = hb_st_read(a->params_path, &a->file);
    if (!rc) rc = a->p.op == HB_HYENA ? infer_hyena(a) : infer_mha(a);
    if (rc) return rc;
    if (a->u.shape[2] != a->p.D)
        return hb_fail(HB_ERR_INPUT,
                       "%s: D = %" PRId64 ", but the parameters in %s are for D = %" PRId64,
                       a->u_path, a->u.shape[2], a->params_path, a->p.D);
    a->n_params = a->impl->tensors(&a->p, a->tensors, HB_APPLY_TENSORS);
    if (a->n_params >= HB_APPLY_TENSORS)               // one more: u
        return hb_fail(HB_ERR_RUN, "%s: %d parameter tensors, expected at most %d", a->impl_name,
                       a->n_params, HB_APPLY_TENSORS - 1);
    for (int i = 0; i < a->file.n && !rc; i++) {
        int k = 0;
        while (k < a->n_params && strcmp(a->tensors[k].name, a->file.t[i].name)) k++;
        if (k == a->n_params) rc = check_extra(a, &a->file.t[i]);
    }
    return rc ? rc : load_params(a);
}
