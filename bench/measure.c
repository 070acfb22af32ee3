// measure.c: one point or pair in a child process, seen from the parent (contract: measure.h).
#include "measure.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

static json_t *request_of(const struct hb_point *pts, int n, const struct hb_measure_opts *o,
                          const char *task)
{
    json_t *names = json_array();
    for (int i = 0; i < n; i++) {
        char name[HB_POINT_NAME_MAX];
        if (hb_point_name(&pts[i], name, sizeof name)) { json_decref(names); return NULL; }
        json_array_append_new(names, json_string(name));
    }
    json_t *r = json_pack("{s:o,s:I,s:I,s:f,s:f,s:f,s:i,s:i,s:f,s:s}", "points", names,
                          "seed", (json_int_t)pts[0].seed, "mem_bytes", (json_int_t)o->mem_bytes,
                          "judge_flop", o->judge_flop, "ci_target", o->sample.ci_target,
                          "budget_s", o->sample.budget_s, "min_samples", o->sample.min_samples,
                          "max_samples", o->sample.max_samples,
                          "min_sample_s", o->sample.min_sample_s, "task", task);
    if (r && o->inject > 0) json_object_set_new(r, "inject", json_real(o->inject));
    if (!r) hb_fail(HB_ERR_RUN, "out of memory for a request");
    return r;
}

static bool on_device(const struct hb_point *pt)
{
    return pt->device[0] && strncmp(pt->device, "cpu", 3);
}

static struct hb_measure_opts resolved(const struct hb_point *pts, const struct hb_measure_opts *o)
{
    struct hb_measure_opts r = *o;
    if (!r.mem_bytes && !on_device(pts)) r.mem_bytes = hb_default_mem_limit();
    return r;
}

static char arg0[] = "hyena-bench", arg1[] = "__point";
static char *const point_argv[] = { arg0, arg1, NULL };

static struct hb_child_limits limits_of(const struct hb_point *pt, const struct hb_measure_opts *o)
{
    struct hb_child_limits lim = { .time_s = o->time_limit_s, .mem_bytes = o->mem_bytes,
                                   .exe = o->exe, .env = o->env };
    if (on_device(pt)) {             // mem_bytes is the device's; address space is no limit there
        lim.mem_bytes = hb_default_mem_limit();
        lim.any_address_space = true;
    }
    return lim;
}

static int in_child(const struct hb_point *pts, int n, const struct hb_measure_opts *o,
                    const char *task, struct hb_child_result *res)
{
    struct hb_child_limits lim = limits_of(pts, o);
    json_t *request = request_of(pts, n, o, task);
    if (!request) return HB_ERR_RUN;
    int rc = hb_child_run(point_argv, request, &lim, res);
    json_decref(request);
    if (rc || strcmp(res->status, "missing")) return rc;
    json_decref(res->reply);
    res->reply = NULL;
    return hb_fail(HB_ERR_MISSING, "%s", res->detail);
}

void hb_point_fit_op(struct hb_point *pt, int64_t H, int order)
{
    bool heads = !strncmp(pt->impl, "mha", 3) || !strncmp(pt->impl, "attention", 9);
    pt->p.H = !heads ? 0 : H ? H : pt->p.D % 64 ? 1 : pt->p.D / 64;
    pt->p.oper.order = !strncmp(pt->impl, "hyena", 5) ? order : 0;
}

static double field(const json_t *e, const char *key)
{
    return json_number_value(json_object_get(e, key));
}
static double item(const json_t *e, const char *key, size_t i)
{
    return json_number_value(json_array_get(json_object_get(e, key), i));
}

static void read_numbers(struct hb_measured *out)
{
    const json_t *e = json_array_get(json_object_get(out->doc, "benchmarks"), 0);
    const json_t *p = json_array_get(json_object_get(out->doc, "hb_pairs"), 0);
    out->median_ns = field(e, "hb_median_ns");
    out->ci_lo_ns = item(e, "hb_ci95_ns", 0);
    out->ci_hi_ns = item(e, "hb_ci95_ns", 1);
    bool device = json_object_get(e, "hb_device_peak_bytes") != NULL;
    out->alloc_peak_bytes = field(e, device ? "hb_device_peak_bytes" : "hb_alloc_peak_bytes");
    out->ratio = field(p, "ratio");
    out->ratio_lo = item(p, "ratio_ci95", 0);
    out->ratio_hi = item(p, "ratio_ci95", 1);
}

// The record of a point or pair that has no time.
static json_t *failed_doc(const struct hb_point *pts, int n, const struct hb_measure_opts *o,
                          const struct hb_child_result *res)
{
    json_t *row = hb_skip_row(pts, n, res->status, res->detail);
    if (!row) return NULL;
    if (o->mem_bytes)
        json_object_set_new(row, "limit_bytes", json_integer((json_int_t)o->mem_bytes));
    if (res->exit_signal) json_object_set_new(row, "exit_signal", json_integer(res->exit_signal));
    json_object_set_new(row, "elapsed_s", json_real(res->elapsed_s));
    return json_pack("{s:[],s:[o],s:[]}", "benchmarks", "hb_skips", row, "hb_pairs");
}

int hb_measure(const struct hb_point *pts, int n, const struct hb_measure_opts *opts,
               struct hb_measured *out)
{
    struct hb_child_result res;
    struct hb_measure_opts full = resolved(pts, opts), *o = &full;
    memset(out, 0, sizeof *out);
    int rc = in_child(pts, n, o, "measure", &res);
    if (rc) return rc;
    json_t *doc = json_object_get(res.reply, "doc");
    if (!strcmp(res.status, "ok") && !doc) {
        res.status = "crashed";
        snprintf(res.detail, sizeof res.detail, "the reply has no measurement");
    }
    out->status = res.status;
    snprintf(out->detail, sizeof out->detail, "%s", res.detail);
    out->elapsed_s = res.elapsed_s;
    out->doc = !strcmp(res.status, "ok") ? json_incref(doc) : failed_doc(pts, n, o, &res);
    json_decref(res.reply);
    if (!out->doc)
        return hb_error_code() ? hb_error_code()
                               : hb_fail(HB_ERR_RUN, "out of memory for a record");
    read_numbers(out);
    return 0;
}

// --- in step -------------------------------------------------------------------------------------

// Turns for both, until the rounds are enough or a side has ended. ns[k]: side k's times, room for
// max_samples. *failed: the side that has ended, or -1.
static int take_turns(struct hb_child *const c[2], const struct hb_sample_opts *o, double *ns[2],
                      int *failed)
{
    enum { SETUP_TURNS = 2 };        // measuring a slowdown on purpose; warming up
    double nothing;
    int n = 0;
    for (int i = 0; i < 2 * SETUP_TURNS; i++)
        if (!hb_child_turn(c[i % 2], &nothing)) { *failed = i % 2; return 0; }
    int64_t t0 = hb_now_ns();
    for (; n < o->max_samples; n++) {
        if (n % 2 == 0 && n >= o->min_samples && 1e-9 * (double)(hb_now_ns() - t0) > o->budget_s)
            break;
        for (int i = 0; i < 2; i++) {
            int k = (i + n) % 2;
            if (!hb_child_turn(c[k], &ns[k][n])) { *failed = k; return 0; }
        }
    }
    return n;
}

// One core for both sides of a pair, another one for the next: the cores of a shared machine differ
// by what their neighbours do. Only what is started meanwhile inherits it. false: not done.
static bool take_core(cpu_set_t *before)
{
    static unsigned turn;
    cpu_set_t one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof *before, before) || CPU_COUNT(before) < 1) return false;
    unsigned skip = turn++ % (unsigned)CPU_COUNT(before);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, before) && skip-- == 0) {
            CPU_SET(cpu, &one);
            return sched_setaffinity(0, sizeof one, &one) == 0;
        }
    return false;
}

static int start_in_step(const struct hb_point *pt, const struct hb_measure_opts *opts,
                         struct hb_child **c)
{
    struct hb_measure_opts o = resolved(pt, opts);
    struct hb_child_limits lim = limits_of(pt, &o);
    json_t *request = request_of(pt, 1, &o, "measure");
    if (!request) return HB_ERR_RUN;
    json_object_set_new(request, "turns", json_true());
    int rc = hb_child_open(point_argv, request, &lim, true, c);
    json_decref(request);
    return rc;
}

static void read_turns(double *ns[2], int n, struct hb_in_step *out)
{
    for (int i = 0; i < n; i++) ns[1][i] /= ns[0][i];
    out->rounds = n;
    out->ns[0] = n ? hb_median(ns[0], (size_t)n) : 0;
    out->ns[1] = n ? out->ns[0] * hb_median(ns[1], (size_t)n) : 0;
}

int hb_measure_in_step(const struct hb_point *pt, const struct hb_measure_opts o[2],
                       struct hb_in_step *out)
{
    struct hb_child *c[2] = { NULL, NULL };
    size_t most = (size_t)o[0].sample.max_samples;
    double *room = malloc(2 * most * sizeof *room), *ns[2] = { room, room + most };
    memset(out, 0, sizeof *out);
    out->failed = -1;
    int rc = room ? 0 : hb_fail(HB_ERR_OOM, "no memory for %zu rounds", most), n = 0;
    cpu_set_t before;
    bool pinned = !on_device(pt) && pt->p.threads == 1 && take_core(&before);
    for (int k = 0; k < 2 && !rc; k++) rc = start_in_step(pt, &o[k], &c[k]);
    if (pinned) sched_setaffinity(0, sizeof before, &before);
    if (!rc) n = take_turns(c, &o[0].sample, ns, &out->failed);
    bool ok = true;
    for (int k = 0; k < 2; k++) {
        struct hb_child_result res = { .status = "crashed" };
        int e = c[k] ? hb_child_close(c[k], &res) : 0;
        if (!rc) rc = e;
        bool fine = !strcmp(res.status, "ok");
        if (!fine && out->failed < 0) out->failed = k;       // after its last turn
        ok = ok && fine;
        out->status[k] = res.status;
        snprintf(out->detail[k], sizeof out->detail[k], "%s", res.detail);
        json_decref(res.reply);
    }
    if (!rc) read_turns(ns, ok ? n : 0, out);
    free(room);
    return rc;
}

int hb_plan_points(const struct hb_point *pts, int n, const struct hb_measure_opts *opts,
                   double *took_s)
{
    struct hb_child_result res;
    struct hb_measure_opts full = resolved(pts, opts), *o = &full;
    int rc = in_child(pts, n, o, "plan", &res);
    if (rc) return rc;
    *took_s = res.elapsed_s;
    json_decref(res.reply);
    return 0;
}

int hb_probe(const struct hb_point *pts, int n, const struct hb_measure_opts *opts,
             struct hb_measured *out)
{
    struct hb_child_result res;
    struct hb_measure_opts full = resolved(pts, opts), *o = &full;
    memset(out, 0, sizeof *out);
    int rc = in_child(pts, n, o, "probe", &res);
    if (rc) return rc;
    out->status = res.status;
    out->elapsed_s = res.elapsed_s;
    snprintf(out->detail, sizeof out->detail, "%s", res.detail);
    json_decref(res.reply);
    out->doc = failed_doc(pts, n, o, &res);
    return out->doc ? 0 : hb_fail(HB_ERR_RUN, "out of memory for a record");
}
