// prims_check.c: a device's primitives against their float64 twins (contract: prims64.h).
//
// For every case and shape: fill the tensors, poison outputs with NaN, call the device and the
// twin, compare every output and check that no input changed.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/rng.h"
#include "prims_cases.h"

struct tensor { void *ref, *dev, *host; };    // ref: double or int32; dev, host: float or int32

static int fill(const struct hb_device *d, const struct arg *a, uint64_t stream, struct tensor *t)
{
    size_t n = (size_t)(a->n ? a->n : 1);
    t->ref = malloc(n * 8);
    t->host = malloc(n * 4);
    t->dev = d->alloc(d, n * 4);
    if (!t->ref || !t->host || !t->dev) return HB_ERR_OOM;
    float *f = t->host;
    int32_t *k = t->host;
    for (size_t i = 0; i < n; i++) {
        if (a->role == TOK) {
            uint64_t r = hb_rng_below(1, stream, i, (uint64_t)a->range);
            k[i] = a->holes && i % 5 == 3 ? -1 : (int32_t)r;
            ((int32_t *)t->ref)[i] = k[i];
        } else {
            f[i] = a->role == OUT || a->role == TMP
                       ? NAN
                       : (float)(a->mean + a->sd * hb_rng_normal(1, stream, i));
            ((double *)t->ref)[i] = (double)f[i];
        }
    }
    return d->upload(d, t->dev, t->host, n * 4, NULL);
}

// Relative L2 distance of what the device has now from the twin's result; for inputs 0 or Inf if it
// changed.
static double distance(const struct hb_device *d, const struct arg *a, struct tensor *t)
{
    size_t bytes = (size_t)a->n * 4;
    float *now = malloc(bytes + 4);
    double diff = 0, norm = 0;
    if (!now || d->download(d, now, t->dev, bytes, NULL) || d->sync(d, NULL)) diff = NAN;
    else if (a->role == IN || a->role == TOK) diff = memcmp(now, t->host, bytes) ? INFINITY : 0;
    else
        for (int64_t i = 0; i < a->n; i++) {
            double want = ((double *)t->ref)[i], e = (double)now[i] - want;
            diff += e * e;
            norm += want * want;
        }
    free(now);
    return diff == 0 ? 0 : sqrt(diff / (norm > 0 ? norm : 1));
}

// 0, or HB_ERR_*: then the primitive could not be tried. *worst: the largest distance, NaN wins.
static int try_shape(const struct hb_device *d, const struct prim *p, shape s, double *worst,
                     int *which)
{
    struct arg a[MAX_ARGS];
    struct tensor t[MAX_ARGS] = { 0 };
    void *dev[MAX_ARGS], *ref[MAX_ARGS];
    int n = p->args(s, a), rc = 0;
    for (int i = 0; i < n && !rc; i++) {
        rc = fill(d, &a[i], (uint64_t)i, &t[i]);
        dev[i] = t[i].dev;
        ref[i] = t[i].ref;
    }
    if (!rc) rc = p->dev(d, s, dev);
    if (!rc) rc = d->sync(d, NULL);
    if (!rc) rc = p->ref(s, ref);
    for (int i = 0; i < n && !rc; i++) {
        double e = a[i].role == TMP ? 0 : distance(d, &a[i], &t[i]);
        if (!(e <= *worst) && !isnan(*worst)) {
            *worst = e;
            *which = i;
        }
    }
    for (int i = 0; i < n; i++) {
        free(t[i].ref);
        free(t[i].host);
        if (t[i].dev) d->free(d, t[i].dev);
    }
    return rc;
}

static int check_one(const struct hb_device *d, const struct prim *p, struct hb_prim_result *r)
{
    *r = (struct hb_prim_result){ .name = p->name, .tol = p->tol };
    for (; r->shapes < MAX_SHAPES && p->shapes[r->shapes][0]; r->shapes++) {
        double before = r->err;
        int which = 0, rc = try_shape(d, p, p->shapes[r->shapes], &r->err, &which);
        if (rc) return rc;
        if (!(r->err <= before))
            snprintf(r->detail, sizeof r->detail, "worst: shape %d, tensor %d", r->shapes, which);
    }
    r->ok = r->err <= r->tol;
    return 0;
}

int hb_prims_check(const struct hb_device *dev, struct hb_prim_result *out, int cap)
{
    for (int i = 0; i < hb_n_prims && i < cap; i++) {
        int rc = check_one(dev, &hb_prims[i], &out[i]);
        if (rc) return rc;
    }
    return hb_n_prims;
}
