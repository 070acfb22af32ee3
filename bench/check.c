// check.c: is an implementation right? (contract: check.h)
//
// Order     inputs and references first; then plan, forward, backward, destroy of the
//           implementation between two looks at everything that it must leave alone: guard zones,
//           inputs, the number of allocations in forward, the bytes in use after destroy. On a
//           device the plan comes before the references: what does not fit says so at once.
// Outputs   y, du, dq, dk, dv start as NaN and are overwritten. dh, dd and gradients of parameters
//           start from +-(root mean square of the reference), and the increment is judged: "="
//           instead of "+=" is an error of 100 %, and the rounding of the sum costs half an ulp.
// Sampled   (judged.h) an operator on its first positions, and the core inside at full length.
// Error     relative L2 per tensor, |out - ref| / |ref|, sums in float64. Where the reference is
//           zero but for rounding (dq at L = 1: softmax of one score) the size of what cancels
//           takes its place. Every element must be finite, on its bits.
// Tolerance by operator and type of the signals, the same for y and every gradient: a table below.
//           Operators get more: their filter, gates and projections come on top.
// Repeated  (on request) forward and backward once more into poisoned outputs: the same bits, or it
//           is wrong; exempt is what the table `not_repeatable` names.
// Device    the judge looks at downloaded copies. Errors inside kernels show at the sync after the
//           pass and are errors of the run, not of the answer.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "judged.h"
#include "../impls/core/halves.h"

double hb_check_tol(const struct hb_point *pt, const char *what)
{
    static const double tol[HB_OP_COUNT][HB_DTYPE_COUNT] = {
        [HB_LONGCONV] = { [HB_F32] = 2e-6, [HB_F64] = 1e-12, [HB_F16] = 1.1e-3,
                          [HB_BF16] = 2.5e-3 },
        [HB_ATTENTION] = { [HB_F32] = 2e-6, [HB_F64] = 1e-12, [HB_F16] = 2e-3, [HB_BF16] = 1e-2 },
        [HB_HYENA] = { [HB_F32] = 1e-5, [HB_F64] = 1e-12, [HB_F16] = 4e-3, [HB_BF16] = 2e-2 },
        [HB_MHA] = { [HB_F32] = 1e-5, [HB_F64] = 1e-12, [HB_F16] = 4e-3, [HB_BF16] = 2e-2 },
    };
    (void)what;                  // the same for every output
    return tol[pt->p.op][pt->p.dtype];
}

// Whose outputs need not have the same bits twice; by the core's name, alone or inside an operator.
static const struct { const char *core; bool backward_only; const char *why; } not_repeatable[] = {
    { "attention_cudnn_cuda", true,
      "cuDNN adds dq in the order in which its blocks finish; its deterministic plan keeps L x L "
      "numbers" },
};

// May this output differ between two runs?
static bool may_differ(const struct hb_point *pt, const struct hb_buf *b)
{
    const char *core = pt->p.inner[0] ? pt->p.inner : pt->impl;
    for (size_t i = 0; i < sizeof not_repeatable / sizeof *not_repeatable; i++)
        if (!strcmp(not_repeatable[i].core, core)
            && (!not_repeatable[i].backward_only || strcmp(b->what, "y")))
            return true;
    return false;
}

static double since_s(int64_t t0) { return 1e-9 * (double)(hb_now_ns() - t0); }

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
enum { RUN = 256 };              // elements compared together

// The difference to the reference of elements [at, at + n) of a segment, and the references.
static void differences(const struct hb_buf *b, struct hb_seg s, int64_t at, int64_t n,
                        const double *ref, double start, double *e, double *r)
{
    hb_buf_load(b, s.at + at, n, e);
    for (int64_t i = 0; i < n; i++) {
        r[i] = s.ref < 0 ? 0 : ref[s.ref + at + i];
        if (b->role == HB_ROLE_ACC) e[i] -= start_value(start, s.at + at + i);
        e[i] -= r[i];
    }
}

static struct sums compare_seg(const struct hb_buf *b, struct hb_seg s, const double *ref,
                               double start)
{
    double err2 = 0, ref2 = 0, max_abs = 0;
#pragma omp parallel for reduction(+ : err2, ref2) reduction(max : max_abs) if (s.n > 1 << 16)
    for (int64_t at = 0; at < s.n; at += RUN) {
        double e[RUN], r[RUN];
        const int64_t n = s.n - at < RUN ? s.n - at : RUN;
        differences(b, s, at, n, ref, start, e, r);
        for (int64_t i = 0; i < n; i++) {
            err2 += e[i] * e[i];
            ref2 += r[i] * r[i];
            max_abs = fmax(max_abs, fabs(e[i]));
        }
    }
    return (struct sums){ err2, ref2, max_abs };
}

// "b 0 c 3 t 128": element i of a tensor in the words of its operator.
static void name_place(const struct hb_problem *p, const struct hb_inputs *in,
                       const struct hb_buf *b, int64_t i, char *out, size_t cap)
{
    const char *w = b->what;
    const long long L = p->L;
    if (p->op == HB_ATTENTION) {
        const long long P = p->D / p->H, row = i / P;
        snprintf(out, cap, "b %lld h %lld t %lld p %lld", row / L / p->H, row / L % p->H, row % L,
                 (long long)i % P);
    } else if (p->op == HB_LONGCONV && (!strcmp(w, "y") || !strcmp(w, "du"))) {
        const struct hb_strides s = *w == 'y' ? in->io.conv.sy : in->io.conv.sdu;
        snprintf(out, cap, "b %lld c %lld t %lld", (long long)(s.b > s.c ? i / s.b : i % s.c / s.b),
                 (long long)(s.b > s.c ? i % s.b / s.c : i / s.c), (long long)i % L);
    } else if (p->op == HB_LONGCONV && !strcmp(w, "dh")) {
        snprintf(out, cap, "c %lld t %lld", (long long)i / L, (long long)i % L);
    } else if (!strcmp(w, "y") || !strcmp(w, "du")) {
        snprintf(out, cap, "b %lld t %lld d %lld", (long long)i / p->D / L,
                 (long long)i / p->D % L, (long long)i % p->D);
    } else {
        snprintf(out, cap, "element %lld", (long long)i);
    }
}

// Counts what is off by more than four tolerances of the element and of the tensor's mean size;
// keeps the first. Only called for what failed: one after another.
static void find_bad(const struct hb_point *pt, const struct hb_inputs *in,
                     const struct hb_judged *j, const struct hb_judged_out *o, double start,
                     double size, struct hb_check_err *e)
{
    const double mean = size / sqrt((double)(e->n_judged > 0 ? e->n_judged : 1));
    for (int64_t k = 0; k < o->n_segs; k++)
        for (int64_t at = 0; at < o->segs[k].n; at += RUN) {
            double d[RUN], r[RUN];
            const int64_t left = o->segs[k].n - at, n = left < RUN ? left : RUN;
            differences(o->buf, o->segs[k], at, n, j->ref, start, d, r);
            for (int64_t i = 0; i < n; i++) {
                if (fabs(d[i]) <= 4 * e->tol * (fabs(r[i]) + mean)) continue;    // a NaN is not
                if (e->n_bad++) continue;
                e->first_bad = o->segs[k].at + at + i;
                e->want = r[i];
                e->got = d[i] + r[i];
            }
        }
    if (e->first_bad >= 0)
        name_place(&pt->p, in, o->buf, e->first_bad, e->where, sizeof e->where);
}

static double roundoff(enum hb_dtype t)
{
    return t == HB_F16 ? 0x1p-11 : t == HB_BF16 ? 0x1p-8 : 0;
}

static void judge_out(const struct hb_point *pt, const struct hb_inputs *in,
                      const struct hb_judged *j, const struct hb_judged_out *o,
                      struct hb_check_result *res)
{
    double start = o->buf->role == HB_ROLE_ACC ? start_size(j, o) : 0;
    struct sums all = { 0, 0, 0 };
    struct hb_check_err e = { .first_bad = -1 };
    for (int64_t k = 0; k < o->n_segs; k++) {
        struct sums one = compare_seg(o->buf, o->segs[k], j->ref, start);
        all.err2 += one.err2;
        all.ref2 += one.ref2;
        all.max_abs = fmax(all.max_abs, one.max_abs);
        e.n_judged += o->segs[k].n;
    }
    const char *what = o->buf->what;
    int64_t bad = hb_buf_not_finite(o->buf);
    double tol = hb_check_tol(pt, what), size = sqrt(all.ref2);
    if (size <= 1e-6 * o->floor) size = o->floor;
    size = fmax(size, roundoff(pt->p.dtype) * o->noise / tol);
    if (o->buf->dtype == HB_F16)     // below 2^-14 half a step is 2^-25, whatever the number's size
        all.err2 = fmax(0, all.err2 - (double)e.n_judged * 0x1p-50);
    if (size == 0) size = 1;
    double rel = bad >= 0 ? INFINITY : sqrt(all.err2) / size;
    snprintf(e.what, sizeof e.what, "%s", what);
    e.rel_l2 = rel;
    e.max_abs = bad >= 0 ? INFINITY : all.max_abs;
    e.tol = tol;
    if (!(rel <= tol)) find_bad(pt, in, j, o, start, size, &e);
    if (bad >= 0) {
        char place[112];
        name_place(&pt->p, in, o->buf, bad, place, sizeof place);
        wrong(res, "%s: element %lld (%s) is not finite", what, (long long)bad, place);
    } else if (!(rel <= tol)) {
        wrong(res, "%s: relative L2 error %.3g, tolerance %.2g; %lld of %lld elements off, first "
                   "%s: %.6g, should be %.6g", what, rel, tol, (long long)e.n_bad,
              (long long)e.n_judged, e.where, e.got, e.want);
    }
    if (!(rel <= res->worst_rel_l2)) {
        res->worst_rel_l2 = rel;
        res->tol = tol;
    }
    if (res->n < (int)(sizeof res->err / sizeof *res->err)) res->err[res->n++] = e;
}

// --- what must stay as it was --------------------------------------------------------------------

// Sum over the bits of all inputs that depends on their order within RUNs and between them.
static uint64_t input_sum(const struct hb_inputs *in)
{
    const struct hb_bufs *all = hb_inputs_bufs(in);
    uint64_t sum = 0;
    for (int i = 0; i < all->n; i++) {
        const struct hb_buf *b = &all->b[i];
        const char *p = b->data;
        uint64_t own = 0;
        if (b->role != HB_ROLE_IN) continue;
#pragma omp parallel for reduction(+ : own) if (b->bytes > 1 << 20)
        for (size_t at = 0; at < b->bytes; at += 4096) {
            uint64_t part = at + 1;
            for (size_t k = at; k < b->bytes && k < at + 4096; k += 4) {
                uint32_t w = 0;
                memcpy(&w, p + k, b->bytes - k < 4 ? b->bytes - k : 4);
                part = part * 0x100000001b3u + w;
            }
            own += part * (2 * (uint64_t)at + 1);
        }
        sum = sum * 0x100000001b3u + own;
    }
    return sum;
}

// Memory in use: on the host, and on the device of the point.
struct in_use { size_t host, device; };

static struct in_use in_use(const struct hb_inputs *in)
{
    const struct hb_device *d = hb_inputs_bufs(in)->dev;
    return (struct in_use){ hb_host_mem().now, d ? d->now_bytes(d) : 0 };
}

// --- the implementation --------------------------------------------------------------------------

struct run {
    const struct hb_point *pt;
    const struct hb_impl *impl;
    struct hb_inputs *in;
    struct hb_judged *j;
    void *st;                    // owned while planned
};

static int unsaid(const struct hb_impl *impl, int rc)
{
    return rc && !hb_error_code() ? hb_fail(rc, "%s failed and did not say why", impl->name) : rc;
}

static int wait_for(const struct hb_inputs *in)
{
    const struct hb_device *d = hb_inputs_bufs(in)->dev;
    return d ? d->sync(d, in->io.stream) : 0;
}

static int plan(struct run *r, struct hb_check_result *res)
{
    int64_t t0 = hb_now_ns();
    int rc = r->impl->plan(hb_host(), &r->pt->p, &r->st);
    res->took.plan_s += since_s(t0);
    return unsaid(r->impl, rc);
}

// Poisoned outputs, accumulated ones from their start; forward and backward; what comes out is in
// the host copies.
static int passes(struct run *r, struct hb_check_result *res)
{
    const struct hb_device *d = hb_inputs_bufs(r->in)->dev;
    hb_inputs_poison(r->in);
    for (int i = 0; i < r->j->n_out; i++) set_start(r->j, &r->j->out[i]);
    int rc = hb_inputs_upload(r->in);
    if (!rc && r->pt->p.filter == HB_FILTER_FIXED)
        rc = r->impl->set_filter(r->st, r->in->io.conv.h);
    if (!rc) rc = wait_for(r->in);
    if (rc) return unsaid(r->impl, rc);
    uint64_t before = hb_host_mem().count;
    struct in_use was = in_use(r->in);
    if (d) d->reset_peak(d);
    rc = r->impl->forward(r->st, &r->in->io);
    uint64_t made = hb_host_mem().count - before;
    if (rc == 0 && made) wrong(res, "forward allocated %llu blocks", (unsigned long long)made);
    if (!rc && r->pt->p.backward) rc = r->impl->backward(r->st, &r->in->io);
    if (!rc) rc = wait_for(r->in);
    if (!rc && d && d->peak_bytes(d) > was.device)
        wrong(res, "forward or backward allocated %zu bytes on the device",
              d->peak_bytes(d) - was.device);
    if (!rc) rc = hb_inputs_download(r->in);
    return unsaid(r->impl, rc);
}

// The outputs' bytes, one after another; NULL with the message set. Owned by the caller.
static char *copy_outputs(const struct hb_inputs *in)
{
    const struct hb_bufs *all = hb_inputs_bufs(in);
    size_t bytes = 0;
    for (int i = 0; i < all->n; i++)
        if (all->b[i].role != HB_ROLE_IN) bytes += all->b[i].bytes;
    char *copy = malloc(bytes + 1), *p = copy;
    if (!copy) hb_fail(HB_ERR_OOM, "out of memory: %zu bytes of a first run's outputs", bytes);
    for (int i = 0; copy && i < all->n; i++) {
        if (all->b[i].role == HB_ROLE_IN || !all->b[i].bytes) continue;
        memcpy(p, all->b[i].data, all->b[i].bytes);
        p += all->b[i].bytes;
    }
    return copy;
}

static int repeat(struct run *r, struct hb_check_result *res)
{
    const struct hb_bufs *all = hb_inputs_bufs(r->in);
    char *first = copy_outputs(r->in);
    int rc = first ? passes(r, res) : HB_ERR_OOM;
    const char *p = first;
    for (int i = 0; !rc && i < all->n; i++) {
        const struct hb_buf *b = &all->b[i];
        if (b->role == HB_ROLE_IN || !b->bytes) continue;
        if (!may_differ(r->pt, b) && memcmp(p, b->data, b->bytes)) {
            const char *now = b->data;
            size_t at = 0;
            while (p[at] == now[at]) at++;
            wrong(res, "%s: the second run differs, first in element %zu of its memory", b->what,
                  at / hb_dtype_size(b->dtype));
        }
        p += b->bytes;
    }
    free(first);
    return rc;
}

static int judge(const struct hb_check_opts *o, struct run *r, struct hb_check_result *res)
{
    int64_t t0 = hb_now_ns();
    int rc = hb_judged_make(r->pt, r->in, o->judge_flop, o->cache_dir, r->j);
    res->sampled = r->j->sample.on;
    res->took.judge_s += since_s(t0);
    return rc;
}

// Plans, judges, runs, destroys.
static int check_with(const struct hb_check_opts *o, struct run *r, struct hb_check_result *res)
{
    bool on_device = hb_inputs_bufs(r->in)->dev != NULL;
    struct in_use before = in_use(r->in);
    int rc = on_device ? plan(r, res) : judge(o, r, res);
    if (!rc) rc = on_device ? judge(o, r, res) : plan(r, res);
    uint64_t sum = input_sum(r->in);
    int64_t t0 = hb_now_ns();
    if (!rc) rc = passes(r, res);
    if (!rc && input_sum(r->in) != sum) wrong(res, "it changed its inputs");
    if (!rc && !hb_inputs_guards_ok(r->in)) wrong(res, "it wrote outside of its tensors");
    for (int i = 0; !rc && i < r->j->n_out; i++) judge_out(r->pt, r->in, r->j, &r->j->out[i], res);
    if (!rc && o->repeat) rc = repeat(r, res);
    r->impl->destroy(r->st);
    struct in_use after = in_use(r->in);
    if (!rc && after.host != before.host)
        wrong(res, "destroy left %zd bytes", (ssize_t)(after.host - before.host));
    if (!rc && after.device != before.device)
        wrong(res, "destroy left %zd bytes on the device",
              (ssize_t)(after.device - before.device));
    res->took.run_s += since_s(t0);
    return rc;
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
    core_opts.keep = NULL;
    struct hb_check_result *r = calloc(1, sizeof *r);
    if (!r) return hb_fail(HB_ERR_OOM, "out of memory: checking");
    int rc = hb_point_resolve(&core);
    if (!rc) rc = hb_check_point(&core, &core_opts, r);
    if (!rc && !r->ok) wrong(res, "core:%.240s", r->detail);
    res->took.inputs_s += r->took.inputs_s;
    res->took.judge_s += r->took.judge_s;
    res->took.plan_s += r->took.plan_s;
    res->took.run_s += r->took.run_s;
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
    // Some inputs come as mha gives them, so that both kinds of strides are judged.
    pt.p.packed = pt.p.op == HB_ATTENTION && (o->input == HB_IN_IMPULSE || o->input == HB_IN_TINY
                                              || o->input == HB_IN_OUTLIER);
    const struct hb_impl *impl = o->impl ? o->impl : hb_registry_find(pt.impl);
    if (!impl) return hb_error_code();
    const char *why = hb_point_refuses(&pt, impl);
    if (why) return hb_fail(HB_ERR_REFUSED, "%s refuses: %s", impl->name, why);
    struct hb_inputs in;
    int64_t t0 = hb_now_ns();
    int rc = hb_inputs_make(&pt, impl, o->input, &in);
    res->took.inputs_s = since_s(t0);
    if (rc) return rc;
    struct hb_judged *j = calloc(1, sizeof *j);
    struct run r = { .pt = &pt, .impl = impl, .in = &in, .j = j };
    rc = j ? check_with(o, &r, res) : hb_fail(HB_ERR_OOM, "out of memory: checking");
    if (j) hb_judged_free(j);
    free(j);
    if (!rc && res->ok && o->keep && hb_inputs_bufs(&in)->dev) {
        if (res->sampled) hb_inputs_redraw_dy(&pt, o->input, &in);
        *o->keep = in;
    } else hb_inputs_free(&in);
    if (!rc && res->sampled && pt.p.inner[0] && !pt.p.oper.no_long) rc = check_core(&pt, o, res);
    if (rc) res->ok = false;
    return rc;
}
