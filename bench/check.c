// check.c: is an implementation right? (contract: check.h)
//
// Order     inputs and references first; then plan, forward, backward, destroy of the
//           implementation between two looks at everything that it must leave alone: guard zones,
//           inputs, the number of allocations in forward, the bytes in use after destroy.
// Outputs   y, du, dq, dk, dv start as NaN and are overwritten. dh, dd and gradients of parameters
//           start from +-(root mean square of the reference), and the increment is judged: "="
//           instead of "+=" is an error of 100 %, and the rounding of the sum costs half an ulp.
// Sampled   (judged.h) an operator on its first positions, and the core inside at full length.
// Error     relative L2 per tensor, |out - ref| / |ref|, sums in float64. Where the reference is
//           zero but for rounding (dq at L = 1: softmax of one score) the size of what cancels
//           takes its place. Every element must be finite, on its bits.
// Tolerance float32: longconv and attention 2e-6, hyena and mha 1e-5 (their filter, gates and
//           projections come on top), the same for y and every gradient. float64: 1e-12.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "judged.h"

double hb_check_tol(const struct hb_point *pt, const char *what)
{
    (void)what;                  // the same for every output
    if (pt->p.dtype == HB_F64) return 1e-12;
    return pt->p.op == HB_LONGCONV || pt->p.op == HB_ATTENTION ? 2e-6 : 1e-5;
}

// The first thing that was wrong stays.
static void wrong(struct hb_check_result *res, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void wrong(struct hb_check_result *res, const char *fmt, ...)
{
    if (res->ok) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(res->detail, sizeof res->detail, fmt, ap);
        va_end(ap);
    }
    res->ok = false;
}

// --- one output ----------------------------------------------------------------------------------

static double start_size(const struct hb_judged *j, const struct hb_judged_out *o)
{
    double sum = 0;
    int64_t n = 0;
    for (int64_t k = 0; k < o->n_segs; k++)
        for (int64_t i = 0; o->segs[k].ref >= 0 && i < o->segs[k].n; i++, n++) {
            double r = j->ref[o->segs[k].ref + i];
            sum += r * r;
        }
    return (double)(float)(n ? sqrt(sum / (double)n) : 0);       // exact in either type
}

static double start_value(double size, int64_t i) { return i % 2 ? size : -size; }

static void set_start(const struct hb_judged *j, const struct hb_judged_out *o)
{
    if (o->buf->role != HB_ROLE_ACC) return;
    double size = start_size(j, o);
    for (int64_t i = 0; i < o->buf->n; i++) {
        double x = start_value(size, i);
        hb_buf_store(o->buf, i, 1, &x);
    }
}

struct sums { double err2, ref2, max_abs; };

static struct sums compare_seg(const struct hb_buf *b, struct hb_seg s, const double *ref,
                               double start)
{
    double err2 = 0, ref2 = 0, max_abs = 0;
#pragma omp parallel for reduction(+ : err2, ref2) reduction(max : max_abs) if (s.n > 1 << 16)
    for (int64_t i = 0; i < s.n; i++) {
        double x, r = s.ref < 0 ? 0 : ref[s.ref + i];
        hb_buf_load(b, s.at + i, 1, &x);
        if (b->role == HB_ROLE_ACC) x -= start_value(start, s.at + i);
        err2 += (x - r) * (x - r);
        ref2 += r * r;
        max_abs = fmax(max_abs, fabs(x - r));
    }
    return (struct sums){ err2, ref2, max_abs };
}

static void judge_out(const struct hb_point *pt, const struct hb_judged *j,
                      const struct hb_judged_out *o, struct hb_check_result *res)
{
    double start = o->buf->role == HB_ROLE_ACC ? start_size(j, o) : 0;
    struct sums all = { 0, 0, 0 };
    for (int64_t k = 0; k < o->n_segs; k++) {
        struct sums one = compare_seg(o->buf, o->segs[k], j->ref, start);
        all.err2 += one.err2;
        all.ref2 += one.ref2;
        all.max_abs = fmax(all.max_abs, one.max_abs);
    }
    const char *what = o->buf->what;
    int64_t bad = hb_buf_not_finite(o->buf);
    double tol = hb_check_tol(pt, what), size = sqrt(all.ref2);
    if (size <= 1e-6 * o->floor) size = o->floor;
    if (size == 0) size = 1;
    double rel = bad >= 0 ? INFINITY : sqrt(all.err2) / size;
    if (bad >= 0) wrong(res, "%s: element %lld is not finite", what, (long long)bad);
    else if (!(rel <= tol))
        wrong(res, "%s: relative L2 error %.3g, tolerance %.0e", what, rel, tol);
    if (!(rel <= res->worst_rel_l2)) {
        res->worst_rel_l2 = rel;
        res->tol = tol;
    }
    if (res->n == (int)(sizeof res->err / sizeof *res->err)) return;
    struct hb_check_err *e = &res->err[res->n++];
    snprintf(e->what, sizeof e->what, "%s", what);
    e->rel_l2 = rel;
    e->max_abs = bad >= 0 ? INFINITY : all.max_abs;
    e->tol = tol;
}

// --- what must stay as it was --------------------------------------------------------------------

// Order-dependent sum over the bits of all inputs.
static uint64_t input_sum(const struct hb_inputs *in)
{
    const struct hb_bufs *all = hb_inputs_bufs(in);
    uint64_t sum = 0;
    for (int i = 0; i < all->n; i++) {
        const uint32_t *w = all->b[i].data;          // every dtype here is a multiple of four bytes
        if (all->b[i].role != HB_ROLE_IN) continue;
        for (size_t k = 0; k < all->b[i].bytes / sizeof *w; k++) sum = sum * 0x100000001b3u + w[k];
    }
    return sum;
}

// --- the implementation --------------------------------------------------------------------------

static int forward(const struct hb_impl *impl, void *st, const struct hb_inputs *in,
                   struct hb_check_result *res)
{
    uint64_t before = hb_host_mem().count;
    int rc = impl->forward(st, &in->io);
    uint64_t made = hb_host_mem().count - before;
    if (rc == 0 && made) wrong(res, "forward allocated %llu blocks", (unsigned long long)made);
    return rc;
}

// Plans, runs, destroys. What comes out is in the buffers of `in`.
static int execute(const struct hb_point *pt, const struct hb_impl *impl,
                   const struct hb_inputs *in, struct hb_check_result *res)
{
    void *st = NULL;
    size_t before = hb_host_mem().now;
    int rc = impl->plan(hb_host(), &pt->p, &st);
    if (!rc && pt->p.filter == HB_FILTER_FIXED) rc = impl->set_filter(st, in->io.conv.h);
    if (!rc) rc = forward(impl, st, in, res);
    if (!rc && pt->p.backward) rc = impl->backward(st, &in->io);
    impl->destroy(st);
    size_t after = hb_host_mem().now;
    if (!rc && after != before) wrong(res, "destroy left %zu bytes", after - before);
    if (rc && !hb_error_code()) return hb_fail(rc, "%s failed and did not say why", impl->name);
    return rc;
}

static int check_with(const struct hb_point *pt, const struct hb_impl *impl,
                      const struct hb_check_opts *o, struct hb_inputs *in, struct hb_judged *j,
                      struct hb_check_result *res)
{
    int rc = hb_judged_make(pt, in, o->judge_flop, o->cache_dir, j);
    if (rc) return rc;
    res->sampled = j->sample.on;
    hb_inputs_poison(in);
    for (int i = 0; i < j->n_out; i++) set_start(j, &j->out[i]);
    uint64_t sum = input_sum(in);
    rc = execute(pt, impl, in, res);
    if (rc) return rc;
    if (!hb_inputs_guards_ok(in)) wrong(res, "it wrote outside of its tensors");
    if (input_sum(in) != sum) wrong(res, "it changed its inputs");
    for (int i = 0; i < j->n_out; i++) judge_out(pt, j, &j->out[i], res);
    return 0;
}

// A sampled operator was judged on its first positions. What carries its far ones is the core
// inside, and that can be judged at full length: its errors are added as "core:y", "core:du" ...
static int check_core(const struct hb_point *pt, const struct hb_check_opts *o,
                      struct hb_check_result *res)
{
    struct hb_point core = *pt;
    snprintf(core.impl, sizeof core.impl, "%s", pt->p.inner);
    memset(&core.p.oper, 0, sizeof core.p.oper);
    struct hb_check_opts core_opts = *o;
    core_opts.impl = NULL;
    struct hb_check_result *r = malloc(sizeof *r);
    if (!r) return hb_fail(HB_ERR_OOM, "out of memory: checking");
    int rc = hb_point_resolve(&core);
    if (!rc) rc = hb_check_point(&core, &core_opts, r);
    if (!rc && !r->ok) wrong(res, "core:%.240s", r->detail);
    for (int i = 0; !rc && i < r->n && res->n < (int)(sizeof res->err / sizeof *res->err); i++) {
        struct hb_check_err *e = &res->err[res->n++];
        *e = r->err[i];
        snprintf(e->what, sizeof e->what, "core:%.58s", r->err[i].what);
    }
    free(r);
    return rc;
}

int hb_check_point(const struct hb_point *point, const struct hb_check_opts *o,
                   struct hb_check_result *res)
{
    memset(res, 0, sizeof *res);
    res->ok = true;
    res->tol = hb_check_tol(point, "y");
    struct hb_point pt = *point;
    pt.p.backward = o->backward;
    const struct hb_impl *impl = o->impl ? o->impl : hb_registry_find(pt.impl);
    if (!impl) return hb_error_code();
    const char *why = hb_point_refuses(&pt, impl);
    if (why) return hb_fail(HB_ERR_REFUSED, "%s refuses: %s", impl->name, why);
    struct hb_inputs in;
    int rc = hb_inputs_make(&pt, impl, o->input, &in);
    if (rc) return rc;
    struct hb_judged *j = calloc(1, sizeof *j);
    rc = j ? check_with(&pt, impl, o, &in, j, res) : hb_fail(HB_ERR_OOM, "out of memory: checking");
    if (j) hb_judged_free(j);
    free(j);
    hb_inputs_free(&in);
    if (!rc && res->sampled && pt.p.inner[0] && !pt.p.oper.no_long) rc = check_core(&pt, o, res);
    if (rc) res->ok = false;
    return rc;
}
