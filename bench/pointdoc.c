// pointdoc.c: a measured point or pair as rows of the record (fields: record.h, measuring.md 7.1).
//
// The samples of a point are cut, in the order they were taken, into 9 to 10 repetitions
// (compare.py wants at least 9 for its U test). Google Benchmark's own fields stand in each entry;
// what is ours and of the whole point (hb_*) in the first alone: files were three times as large.
// A number that is not finite is left out: NaN is not JSON.
#include "measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "roofline.h"

enum { REPETITIONS = 10, KEPT_SAMPLES = 64 };    // 64: raw samples kept per repetition

static int put(json_t *obj, const char *key, json_t *v)
{
    return json_object_set_new(obj, key, v) == 0
         ? 0 : hb_fail(HB_ERR_RUN, "out of memory while writing '%s'", key);
}

static int put_real(json_t *obj, const char *key, double v)
{
    return isfinite(v) ? put(obj, key, json_real(v)) : 0;
}

static int put_int(json_t *obj, const char *key, int64_t v)
{
    return put(obj, key, json_integer((json_int_t)v));
}
static int put_str(json_t *obj, const char *key, const char *v)
{
    return put(obj, key, json_string(v));
}

static int put_interval(json_t *obj, const char *key, struct hb_interval i)
{
    if (!isfinite(i.lo) || !isfinite(i.hi)) return 0;
    return put(obj, key, json_pack("[f,f]", i.lo, i.hi));
}

int hb_doc_axes(json_t *obj, const struct hb_point *pt)
{
    const struct hb_problem *p = &pt->p;
    int rc = put_str(obj, "hb_impl", pt->impl) || put_str(obj, "hb_op", hb_op_str(p->op))
          || put_str(obj, "hb_scope", hb_scope_str(pt->scope))
          || put_str(obj, "hb_pass", hb_pass_str(pt->pass))
          || put_str(obj, "hb_mode", hb_mode_str(pt->mode)) || put_str(obj, "hb_device", pt->device)
          || put_str(obj, "hb_dtype", hb_dtype_str(p->dtype))
          || put_str(obj, "hb_filter", p->filter == HB_FILTER_FIXED ? "fixed" : "fresh")
          || put_int(obj, "hb_batch", p->B) || put_int(obj, "hb_width", p->D)
          || put_int(obj, "hb_seq_len", p->L) || put_int(obj, "hb_threads", p->threads)
          || put(obj, "hb_causal", json_true());
    if (!rc && p->H) rc = put_int(obj, "hb_heads", p->H);
    if (!rc && p->op == HB_HYENA) rc = put_int(obj, "hb_order", p->oper.order ? p->oper.order : 2);
    if (!rc && pt->seed < (uint64_t)1 << 53) rc = put_int(obj, "hb_seed", (int64_t)pt->seed);
    return rc ? HB_ERR_RUN : 0;
}

// --- one point -----------------------------------------------------------------------------------

static int put_identity(json_t *e, const struct hb_taken *t)
{
    char name[HB_POINT_NAME_MAX];
    int rc = hb_point_name(t->pt, name, sizeof name);
    if (rc) return rc;
    const struct hb_plugin *outer = hb_registry_plugin(t->impl->name);
    const struct hb_plugin *inner = *t->pt->p.inner ? hb_registry_plugin(t->pt->p.inner) : NULL;
    rc = put_str(e, "name", name) || put_str(e, "run_name", name)
      || put_str(e, "run_type", "iteration") || put_int(e, "threads", 1)
      || put_str(e, "time_unit", "ns") || put_str(e, "hb_status", "ok") || hb_doc_axes(e, t->pt)
      || put_str(e, "hb_source", t->impl->source)
      || put_str(e, "hb_complexity", t->impl->complexity);
    if (!rc && outer) rc = put_str(e, "hb_impl_sha256", outer->sha256);
    if (!rc && inner) rc = put_str(e, "hb_inner_sha256", inner->sha256);
    if (!rc && *t->plan_text) rc = put_str(e, "hb_plan_text", t->plan_text);
    return rc;
}

static int put_times(json_t *e, const struct hb_taken *t)
{
    const struct hb_summary *s = &t->s->s;
    return put_real(e, "hb_median_ns", s->median) || put_interval(e, "hb_ci95_ns", s->ci95)
        || put_real(e, "hb_min_ns", s->min) || put_real(e, "hb_max_ns", s->max)
        || put_real(e, "hb_q1_ns", s->q1) || put_real(e, "hb_q3_ns", s->q3)
        || put_real(e, "hb_mad_ns", s->mad) || put_int(e, "hb_samples", (int64_t)t->s->n)
        || put_str(e, "hb_stop", t->s->stop) || put_str(e, "hb_steady", t->s->steady)
        || put_int(e, "hb_plan_ns", t->plan_ns) || put_int(e, "hb_wall_ns", t->wall_ns)
        || put_int(e, "hb_t_start_ns", t->t_start_ns) || put_real(e, "hb_setup_s", t->setup_s)
        || put_real(e, "hb_init_s", t->init_s) || put_real(e, "hb_inputs_s", t->inputs_s)
        || put_real(e, "hb_judge_s", t->judge_s) || put_real(e, "hb_plan_s", t->plan_s)
        || put_str(e, "hb_timer", t->timer)
        || (t->timer_note && *t->timer_note && put_str(e, "hb_timer_note", t->timer_note));
}

// Clocks, temperature, power and what held the clocks down, before, while and after it was timed.
static int put_gpu(json_t *e, const struct hb_taken *t)
{
    static const char *const when[] = { "before", "busy", "after" };
    json_t *o = json_object();
    uint64_t bits = 0;
    int rc = o ? 0 : hb_fail(HB_ERR_RUN, "out of memory for a record");
    for (int i = 0; i < 3 && !rc; i++) {
        if (!t->has_gpu[i]) continue;
        rc = put(o, when[i], hb_gpu_state_json(&t->gpu[i]));
        bits |= t->gpu[i].throttle;
    }
    if (rc) json_decref(o);
    else rc = put(e, "hb_gpu", o);
    return rc || put(e, "hb_throttled", json_boolean(bits & HB_GPU_SLOWED));
}

static int put_device(json_t *e, const struct hb_taken *t)
{
    if (!t->device_name) return 0;
    int rc = put_str(e, "hb_device_name", t->device_name)
          || put_int(e, "hb_device_peak_bytes", (int64_t)t->device_peak_bytes)
          || put_int(e, "hb_device_base_bytes", (int64_t)t->device_base_bytes)
          || put_int(e, "hb_device_workspace_bytes", (int64_t)t->device_workspace_bytes)
          || put_int(e, "max_bytes_used", (int64_t)t->device_peak_bytes);
    if (!rc && t->l2_bytes)
        rc = put_int(e, "hb_l2_bytes", (int64_t)t->l2_bytes)
          || put_real(e, "hb_working_set_l2", (double)(t->io_bytes + t->device_workspace_bytes)
                                                  / (double)t->l2_bytes);
    return rc || put_gpu(e, t);
}

static int put_work(json_t *e, const struct hb_taken *t)
{
    struct hb_work w = hb_point_work(t->pt);
    double roof = hb_roof_ns(t->pt), median = t->s->s.median;
    int rc = put_real(e, "hb_flop", w.flop) || put_real(e, "hb_bytes_min", w.bytes_min)
          || put_real(e, "hb_flop_min", w.flop_min)
          || put_real(e, "bytes_per_second", w.bytes_min / (median * 1e-9))
          || put_real(e, "items_per_second", (double)(t->pt->p.B * t->pt->p.L) / (median * 1e-9));
    if (!rc && roof > 0)
        rc = put_real(e, "hb_roof_ns", roof) || put_real(e, "hb_roof_frac", roof / median);
    return rc;
}

static int put_quality(json_t *e, const struct hb_taken *t)
{
    int rc = put_int(e, "hb_alloc_peak_bytes", (int64_t)t->alloc_peak_bytes)
          || put_int(e, "hb_io_bytes", (int64_t)t->io_bytes)
          || put_int(e, "max_bytes_used", (int64_t)t->alloc_peak_bytes)
          || put_real(e, "hb_err_rel_l2", t->check->worst_rel_l2)
          || put_real(e, "hb_err_tol", t->check->tol)
          || put_str(e, "hb_ref", t->check->sampled ? "float64 judge, sampled rows"
                                                    : "float64 judge")
          || put_int(e, "hb_ctx_invol", t->ctx_invol)
          || put_int(e, "hb_pagefaults_major", t->pagefaults_major);
    if (!rc && t->rss_peak_bytes)
        rc = put_int(e, "hb_rss_peak_bytes", (int64_t)t->rss_peak_bytes);
    if (!rc && t->steal_frac >= 0) rc = put_real(e, "hb_steal_frac", t->steal_frac);
    if (!rc && t->other_frac >= 0) rc = put_real(e, "hb_other_cpu_frac", t->other_frac);
    return rc;
}

// Samples [from,to) as repetition r of n.
static int put_repetition(json_t *e, const struct hb_samples *s, size_t from, size_t to, int r,
                          int n)
{
    double wall = 0, cpu = 0;
    json_t *raw = json_array();
    for (size_t i = from; i < to; i++) { wall += s->ns[i]; cpu += s->cpu_ns[i]; }
    for (size_t i = from; i < to && i - from < KEPT_SAMPLES; i++)
        json_array_append_new(raw, json_real(s->ns[i]));
    double count = (double)(to - from);
    return put_int(e, "repetitions", n) || put_int(e, "repetition_index", r)
        || put_int(e, "iterations", (int64_t)(to - from) * s->iterations)
        || put_real(e, "real_time", wall / count)
        || put_real(e, "cpu_time", cpu > 0 ? cpu / count : wall / count)
        || put(e, "hb_samples_ns", raw);
}

// A copy of what is common to all entries of a point, as the first of them or another has it.
static json_t *entry_of(json_t *common, bool first)
{
    json_t *e = json_copy(common), *value;
    const char *key;
    void *next;
    json_object_foreach_safe(e, next, key, value)
        if (!first && !strncmp(key, "hb_", 3)) json_object_del(e, key);
    return e;
}

json_t *hb_doc_entries(const struct hb_taken *t)
{
    json_t *all = json_array(), *common = json_object();
    int rc = !all || !common ? hb_fail(HB_ERR_RUN, "out of memory for a record") : 0;
    if (!rc)
        rc = put_identity(common, t) || put_times(common, t) || put_work(common, t)
          || put_quality(common, t) || put_device(common, t);
    int n = t->s->n < REPETITIONS ? (int)t->s->n : REPETITIONS;
    for (int r = 0; !rc && r < n; r++) {
        json_t *e = entry_of(common, r == 0);
        size_t from = t->s->n * (size_t)r / (size_t)n, to = t->s->n * (size_t)(r + 1) / (size_t)n;
        rc = !e || json_array_append_new(all, e) < 0
               ? hb_fail(HB_ERR_RUN, "out of memory for a record")
               : put_repetition(e, t->s, from, to, r, n);
    }
    json_decref(common);
    if (rc) { json_decref(all); return NULL; }
    return all;
}

// --- pairs and rows without a time ---------------------------------------------------------------

// Two implementations: hb_impl_a and hb_impl_b instead of hb_impl, by which readers know a point.
static int pair_axes(json_t *e, const struct hb_point *a, const struct hb_point *b)
{
    json_object_del(e, "hb_impl");
    return put_str(e, "hb_impl_a", a->impl) || put_str(e, "hb_impl_b", b->impl) ? HB_ERR_RUN : 0;
}

json_t *hb_doc_pair(const struct hb_taken *a, const struct hb_taken *b)
{
    char name[HB_PAIR_NAME_MAX], na[HB_POINT_NAME_MAX], nb[HB_POINT_NAME_MAX];
    if (hb_point_name(a->pt, na, sizeof na) || hb_point_name(b->pt, nb, sizeof nb)) return NULL;
    hb_pair_name(a->pt, b->pt, name, sizeof name);
    size_t n = a->s->n < b->s->n ? a->s->n : b->s->n;
    struct hb_ratio r = hb_ratio_of(a->s->ns, n, b->s->ns, n, 1, a->pt->seed);
    json_t *e = json_object();
    int rc = !e || put_str(e, "name", name) || put_str(e, "a", na) || put_str(e, "b", nb)
          || hb_doc_axes(e, b->pt) || pair_axes(e, a->pt, b->pt) || put_real(e, "ratio", r.r)
          || put_interval(e, "ratio_ci95", r.ci95) || put_int(e, "n", (int64_t)n)
          || put_real(e, "a_median_ns", a->s->s.median)
          || put_real(e, "b_median_ns", b->s->s.median)
          || put_interval(e, "a_ci95_ns", a->s->s.ci95)
          || put_interval(e, "b_ci95_ns", b->s->s.ci95)
          || put_real(e, "a_err_rel_l2", a->check->worst_rel_l2)
          || put_real(e, "b_err_rel_l2", b->check->worst_rel_l2)
          || put_str(e, "hb_stop", a->s->stop) || put_str(e, "hb_timer", a->timer)
          || (a->device_name && (put_str(e, "hb_device_name", a->device_name) || put_gpu(e, a)));
    if (rc) { json_decref(e); return NULL; }
    return e;
}

void hb_pair_name(const struct hb_point *a, const struct hb_point *b, char *buf, size_t cap)
{
    char na[HB_POINT_NAME_MAX] = "?", nb[HB_POINT_NAME_MAX] = "?";
    if (hb_point_name(a, na, sizeof na) || hb_point_name(b, nb, sizeof nb)) hb_error_clear();
    snprintf(buf, cap, "%s vs %s", na, nb);
}

json_t *hb_skip_row(const struct hb_point *pts, int n, const char *status, const char *detail)
{
    char name[HB_PAIR_NAME_MAX];
    json_t *e = json_object();
    int rc = n == 1 ? hb_point_name(&pts[0], name, sizeof name) : 0;
    if (n == 2) hb_pair_name(&pts[0], &pts[1], name, sizeof name);
    if (!rc)
        rc = !e || put_str(e, "name", name) || hb_doc_axes(e, &pts[n - 1])
          || put_str(e, "status", status) || put_str(e, "detail", detail);
    if (!rc && n == 2) rc = pair_axes(e, &pts[0], &pts[1]) || put(e, "hb_pair", json_true());
    if (rc) { json_decref(e); return NULL; }
    return e;
}
