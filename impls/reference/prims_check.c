// prims_check.c: a device's primitives against their float64 twins (contract: prims64.h).
//
// For every type, case and shape: fill the tensors, rounded to their type, poison outputs with NaN,
// call the device twice and the twin once, compare every output, the bits of both runs, the guard
// behind each tensor, and check that no input changed.
// Tolerance  that of the case for float32. An output of 16 bits is rounded once: its relative error
//            is at most u = 2^-11 = 4.9e-4 for f16 and 2^-8 = 3.9e-3 for bf16, and a device may
//            round once more on the way (between a product and what stands behind it), which is
//            rarely at its worst together: 1e-3 and 5e-3. A float32 sum over rounded numbers errs
//            by the same share, since both the sum and its error grow with the root of their count.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/halves.h"
#include "../core/rng.h"
#include "prims_cases.h"

enum { GUARD = 64 };                          // bytes behind each tensor that nobody may write
struct tensor {
    double *ref;                              // or int32, where it is tokens
    unsigned char *first, *host, *now;        // as uploaded; after the first and the second run
    void *dev;
    size_t bytes;                             // without the guard
};

static bool is_act(const struct arg *a) { return a->kind == ACT && a->role != TOK; }

static void release(const struct hb_device *d, struct tensor *t)
{
    free(t->ref);
    free(t->first);
    free(t->host);
    free(t->now);
    if (t->dev) d->free(d, t->dev);
}

static int fill(const struct hb_device *d, struct hb_on on, const struct arg *a, uint64_t stream,
                struct tensor *t)
{
    enum hb_dtype type = is_act(a) ? on.t : HB_F32;
    size_t n = (size_t)a->n;
    float *f = malloc((n + 1) * sizeof *f);
    t->bytes = n * hb_dtype_size(type);
    t->ref = calloc(n + 1, sizeof *t->ref);
    t->host = malloc(t->bytes + GUARD);
    t->first = malloc(t->bytes + GUARD);
    t->now = malloc(t->bytes + GUARD);
    t->dev = d->alloc(d, t->bytes + GUARD);
    if (!f || !t->ref || !t->host || !t->first || !t->now || !t->dev) return free(f), HB_ERR_OOM;
    memset(t->host, 0xa5, t->bytes + GUARD);
    for (size_t i = 0; i < n; i++) {
        if (a->role == TOK) {
            int32_t k = (int32_t)hb_rng_below(1, stream, i, (uint64_t)a->range);
            if (a->holes && i % 5 == 3) k = -1;
            memcpy(t->host + i * sizeof k, &k, sizeof k);
            ((int32_t *)(void *)t->ref)[i] = k;
        } else {
            f[i] = a->role == OUT || a->role == TMP
                       ? NAN
                       : hb_round_to(type, (float)(a->mean + a->sd * hb_rng_normal(1, stream, i)));
            t->ref[i] = (double)f[i];
        }
    }
    if (a->role != TOK) hb_from_f32(type, t->host, f, (int64_t)n);
    free(f);
    return 0;
}

// Uploads everything, calls the device, downloads into first or now.
static int run(const struct hb_device *d, struct hb_on on, const struct prim *p, shape s,
               struct tensor *t, int n, bool again)
{
    void *dev[MAX_ARGS];
    int rc = 0;
    for (int i = 0; i < n && !rc; i++) {
        dev[i] = t[i].dev;
        rc = d->upload(d, t[i].dev, t[i].host, t[i].bytes + GUARD, on.stream);
    }
    if (!rc) rc = p->dev(d, on, s, dev);
    if (!rc) rc = d->sync(d, on.stream);
    for (int i = 0; i < n && !rc; i++)
        rc = d->download(d, again ? t[i].now : t[i].first, t[i].dev, t[i].bytes + GUARD, on.stream);
    return rc ? rc : d->sync(d, on.stream);
}

// Relative L2 distance of what the device had after its first run from the twin's result.
static double distance(enum hb_dtype type, const struct arg *a, const struct tensor *t)
{
    double diff = 0, norm = 0;
    float *got = malloc(((size_t)a->n + 1) * sizeof *got);
    if (!got) return NAN;
    hb_to_f32(type, got, t->first, a->n);
    for (int64_t i = 0; i < a->n; i++) {
        double e = (double)got[i] - t->ref[i];
        diff += e * e;
        norm += t->ref[i] * t->ref[i];
    }
    free(got);
    return diff == 0 ? 0 : sqrt(diff / (norm > 0 ? norm : 1));
}

static double tolerance(const struct prim *p, const struct arg *a, enum hb_dtype type)
{
    if (p->tol == 0 || type == HB_F32) return p->tol;
    if (a->kind == FLOAT) return p->tol_half;
    return p->tol + (type == HB_F16 ? 1e-3 : 5e-3);
}

// What is wrong with one tensor besides its numbers, or NULL.
static const char *fault(const struct arg *a, const struct tensor *t)
{
    size_t all = t->bytes + GUARD;
    if (memcmp(t->first + t->bytes, t->host + t->bytes, GUARD)) return "written past the end";
    if (a->role == TMP) return NULL;
    if ((a->role == IN || a->role == TOK) && memcmp(t->first, t->host, all))
        return "an input was changed";
    return memcmp(t->first, t->now, all) ? "two runs differ in their bits" : NULL;
}

static void compare(const struct prim *p, enum hb_dtype type, const struct arg *a,
                    const struct tensor *t, int which, struct hb_prim_result *r)
{
    const char *why = fault(a, t);
    if (why && r->ok) {
        r->ok = false;
        snprintf(r->detail, sizeof r->detail, "%s: shape %d, tensor %d", why, r->shapes, which);
    }
    if (a->role == IN || a->role == TOK || a->role == TMP) return;
    double e = distance(is_act(a) ? type : HB_F32, a, t), tol = tolerance(p, a, type);
    // err / tol without a division by an exact case's zero; NaN is the worst and stays.
    if (isnan(r->err) || (tol > 0 || r->tol > 0 ? e * r->tol <= r->err * tol : e <= r->err)) return;
    r->err = e;
    r->tol = tol;
    if (!(e <= tol)) r->ok = false;
    if (!why)
        snprintf(r->detail, sizeof r->detail, "worst: shape %d, tensor %d", r->shapes, which);
}

// 0, or HB_ERR_*: then the primitive could not be tried.
static int try_shape(const struct hb_device *d, struct hb_on on, const struct prim *p, shape s,
                     struct hb_prim_result *r)
{
    struct arg a[MAX_ARGS];
    struct tensor t[MAX_ARGS] = { 0 };
    void *ref[MAX_ARGS];
    int n = p->args(s, a), rc = 0;
    for (int i = 0; i < n && !rc; i++) {
        rc = fill(d, on, &a[i], (uint64_t)i, &t[i]);
        ref[i] = t[i].ref;
    }
    if (!rc) rc = run(d, on, p, s, t, n, false);
    if (!rc) rc = run(d, on, p, s, t, n, true);
    if (!rc) rc = p->ref(on.t, s, ref);
    for (int i = 0; i < n && !rc; i++) compare(p, on.t, &a[i], &t[i], i, r);
    for (int i = 0; i < n; i++) release(d, &t[i]);
    return rc;
}

static void check_one(const struct hb_device *d, const struct prim *p, enum hb_dtype type,
                      struct hb_prim_result *r)
{
    struct hb_on on = { type, d->stream };
    *r = (struct hb_prim_result){ .name = p->name, .dtype = type, .tol = p->tol, .ok = true };
    for (; r->shapes < MAX_SHAPES && p->shapes[r->shapes][0]; r->shapes++) {
        int rc = try_shape(d, on, p, p->shapes[r->shapes], r);
        if (!rc) continue;
        r->ok = false;
        r->err = NAN;
        snprintf(r->detail, sizeof r->detail, "%s: shape %d",
                 rc == HB_ERR_OOM ? "out of memory" : "the device failed", r->shapes);
        return;
    }
}

// Primitives without activations are tried once, as f32.
static bool has_type(const struct prim *p, enum hb_dtype type)
{
    struct arg a[MAX_ARGS];
    if (type == HB_F32 || p->every_type) return true;
    for (int i = 0, n = p->args(p->shapes[0], a); i < n; i++)
        if (is_act(&a[i])) return true;
    return false;
}

int hb_prims_check(const struct hb_device *dev, struct hb_prim_result *out, int cap)
{
    const enum hb_dtype types[] = { HB_F32, HB_F16, HB_BF16 };
    int n = 0;
    for (size_t k = 0; k < sizeof types / sizeof *types; k++)
        for (int i = 0; i < hb_n_prims; i++) {
            if (!(dev->dtypes >> types[k] & 1) || !has_type(&hb_prims[i], types[k])) continue;
            if (n < cap) check_one(dev, &hb_prims[i], types[k], &out[n]);
            n++;
        }
    return n;
}
