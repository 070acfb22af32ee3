// pointcmd.c: the hidden command __point: measures one point, or two side by side, in this process.
// The request comes on stdin, the answer goes to $HYENA_BENCH_REPLY_FD (child.h).
//
// Order     refuse -> plan the real problem (so that what does not fit says `oom` before any judge
//           runs) -> let go of it -> judge (no time without a right answer) -> reset the peaks ->
//           plan afresh, timed -> samples.
// Planning  the name says plan:measure; FFT planners are asked for what the planning step has left
//           on this machine (wisdom only) and measure only if there is none.
// Backward  timed alone: one forward before the timer, then backward as often as wanted.
//           Accumulated gradients grow linearly with the calls and stay finite.
// Device    the names say which; this process opens it. The check plans before it judges, so the
//           first step is left out there; samples are taken by the device's clock (devtimer.h);
//           the request's memory limit is that of the device. An error that the device does not
//           get over ends this process, and the parent records it.
#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cli.h"
#include "commands.h"
#include "guard/inject.h"
#include "measure.h"
#include "proc.h"

// What to do with the points: measure one or two; only plan one or two and say whether they fit;
// leave the wisdom of as many as there are.
enum task { TASK_MEASURE, TASK_PROBE, TASK_PLAN };
struct request {
    enum task task;
    const char *name[HB_PLAN_POINTS];
    int n;
    uint64_t seed;
    size_t mem_bytes;
    double judge_flop;
    struct hb_sample_opts sample;
    double inject;                   // 0: nothing (inject.h)
    bool turns;                      // samples in turns with another process (child.h)
};

// One side of the measurement.
struct side {
    struct hb_point pt;
    const struct hb_impl *impl;      // borrowed
    void *st;                        // owned
    struct hb_inputs in;             // owned
    bool has_inputs;
    int64_t plan_ns;
    struct hb_check_result check;
    char plan_text[2048];
    struct hb_samples samples;       // owned
    struct hb_devtimer timer;        // on a device; its graph is owned
    size_t workspace_bytes;          // on a device: what the plan took there
    double inputs_s, plan_s;         // seconds so far
};

// What this process did before its first point, and the device's memory then.
static struct { int64_t t0_ns; double init_s; size_t base_bytes; struct hb_gpu_state gpu; bool has;
} start;

// NULL: the cpu.
static const struct hb_device *device_of(const struct side *s)
{
    return strncmp(s->pt.device, "cpu", 3) ? hb_host()->device : NULL;
}

// --- request and answer --------------------------------------------------------------------------

static int read_task(const char *word, enum task *t)
{
    static const char *const tasks[] = { [TASK_MEASURE] = "measure", [TASK_PROBE] = "probe",
                                         [TASK_PLAN] = "plan" };
    for (int i = 0; i <= TASK_PLAN; i++)
        if (!strcmp(tasks[i], word)) { *t = (enum task)i; return 0; }
    return hb_fail(HB_ERR_INPUT, "request: 'task': '%.60s' is none of measure, probe, plan", word);
}

static int read_names(const json_t *names, struct request *r)
{
    size_t cap = r->task == TASK_PLAN ? HB_PLAN_POINTS : 2;
    if (!json_is_array(names) || json_array_size(names) < 1 || json_array_size(names) > cap)
        return hb_fail(HB_ERR_INPUT, "request: 'points' must be an array of 1 to %zu names", cap);
    r->n = (int)json_array_size(names);
    for (int i = 0; i < r->n; i++)
        if (!(r->name[i] = json_string_value(json_array_get(names, (size_t)i))))
            return hb_fail(HB_ERR_INPUT, "request: 'points'[%d] is not a text", i);
    return 0;
}

static int read_request(json_t **doc, struct request *r)
{
    json_error_t e;
    json_t *names;
    const char *task;
    json_int_t seed = 0, mem = 0;
    int turns = 0;
    struct hb_sample_opts *s = &r->sample;
    if (!(*doc = json_loadf(stdin, JSON_REJECT_DUPLICATES, &e)))
        return hb_fail(HB_ERR_INPUT, "request:%d:%d: %s", e.line, e.column, e.text);
    if (json_unpack_ex(*doc, &e, JSON_STRICT, "{s:o,s:I,s:I,s:F,s:F,s:F,s:i,s:i,s:F,s:s,s?F,s?b}",
                       "points", &names, "seed", &seed, "mem_bytes", &mem,
                       "judge_flop", &r->judge_flop, "ci_target", &s->ci_target,
                       "budget_s", &s->budget_s, "min_samples", &s->min_samples,
                       "max_samples", &s->max_samples, "min_sample_s", &s->min_sample_s,
                       "task", &task, "inject", &r->inject, "turns", &turns))
        return hb_fail(HB_ERR_INPUT, "request: %s", e.text);
    if (mem < 0 || s->min_samples < 1 || s->max_samples < s->min_samples)
        return hb_fail(HB_ERR_INPUT, "request: limits and numbers of samples must be positive");
    r->seed = s->seed = (uint64_t)seed;
    r->mem_bytes = (size_t)mem;
    r->turns = turns;
    int rc = read_task(task, &r->task);
    return rc ? rc : read_names(names, r);
}

static int reply(const char *status, const char *detail, json_t *doc)
{
    json_t *r = doc ? json_pack("{s:s,s:s,s:o}", "status", status, "detail", detail, "doc", doc)
                    : json_pack("{s:s,s:s}", "status", status, "detail", detail);
    if (!r) return hb_fail(HB_ERR_RUN, "out of memory for the reply");
    int rc = hb_child_reply(r);
    json_decref(r);
    return rc;
}

// Answers that are results: refused and oom; and that the device is not there, which ends more than
// this point. Anything else is passed on and becomes the exit code.
static int reply_error(int rc)
{
    if (rc != HB_ERR_OOM && rc != HB_ERR_REFUSED && rc != HB_ERR_MISSING) return rc;
    char text[512];
    snprintf(text, sizeof text, "%s", hb_error());
    hb_error_clear();
    return reply(rc == HB_ERR_OOM ? "oom" : rc == HB_ERR_MISSING ? "missing" : "refused", text,
                 NULL);
}

// --- planning ------------------------------------------------------------------------------------

static void unplan(struct side *s)
{
    if (s->st) s->impl->destroy(s->st);
    s->st = NULL;
}

// A failure of the wisdom-only attempt is no failure: then the planner measures.
static int plan(struct side *s)
{
    struct hb_problem p = s->pt.p;
    bool kept = p.planning == HB_PLAN_MEASURE && !device_of(s);
    if (kept) p.planning = HB_PLAN_WISDOM_ONLY;
    int64_t t0 = hb_now_ns();
    int rc = s->impl->plan(hb_host(), &p, &s->st);
    if (rc && kept && rc != HB_ERR_OOM && rc != HB_ERR_REFUSED) {
        unplan(s);
        hb_error_clear();
        rc = s->impl->plan(hb_host(), &s->pt.p, &s->st);
    }
    s->plan_ns = hb_now_ns() - t0;
    s->plan_s += 1e-9 * (double)s->plan_ns;
    if (rc) unplan(s);
    return rc;
}

static int open_side(struct side *s, const char *name, const struct request *r)
{
    int rc = hb_point_parse(name, &s->pt);
    if (rc) return rc;
    s->pt.seed = r->seed;
    rc = hb_point_resolve(&s->pt);
    if (rc) return rc;
    s->impl = hb_registry_find(s->pt.impl);
    if (!s->impl) return HB_ERR_INPUT;
    const char *why = hb_point_refuses(&s->pt, s->impl);
    bool pair = r->n == 2;           // which of the two?
    return why ? hb_fail(HB_ERR_REFUSED, "%s%s%s", pair ? s->pt.impl : "", pair ? ": " : "", why)
               : 0;
}

// The planning step. A problem that is refused or does not fit is not its business.
static int plan_all(const struct request *r)
{
    json_t *ns = json_array();
    for (int i = 0; i < r->n; i++) {
        struct side s = { .st = NULL };
        int64_t t0 = hb_now_ns();
        int rc = open_side(&s, r->name[i], r);
        if (!rc) rc = s.impl->plan(hb_host(), &s.pt.p, &s.st);
        unplan(&s);
        if (rc) hb_error_clear();
        json_array_append_new(ns, json_integer(rc ? -1 : hb_now_ns() - t0));
    }
    return reply("ok", "", json_pack("{s:o}", "plan_ns", ns));
}

static int probe(struct side *side, int n)
{
    for (int i = 0; i < n; i++) {
        int rc = plan(&side[i]);
        unplan(&side[i]);
        if (rc) return rc;
    }
    return reply("ok", "", NULL);
}

// --- one side, step by step ----------------------------------------------------------------------

// Plans the real problem and lets go of it again; then the judge. *ok false: the answer is wrong.
static int try_and_judge(struct side *s, const struct request *r, bool *ok)
{
    bool device = device_of(s) != NULL;  // judging is quicker there than hashing large inputs
    int rc = device ? 0 : plan(s);
    unplan(s);
    if (rc) return rc;
    char cache[4200];
    snprintf(cache, sizeof cache, "%s/judged", hb_machine_dir());
    struct hb_check_opts o = { .input = HB_IN_NORMAL, .backward = s->pt.p.backward,
                               .judge_flop = r->judge_flop, .cache_dir = device ? NULL : cache,
                               .keep = r->n == 1 ? &s->in : NULL };
    rc = hb_check_point(&s->pt, &o, &s->check);
    *ok = s->check.ok;
    s->has_inputs = s->in.priv != NULL;
    return rc;
}

static bool rss_restarted;           // else the system's peak includes the judge: it is left out

// From now on memory counts: freed pages go back, the kernel's high-water mark and our own restart.
static void reset_peaks(void)
{
    malloc_trim(0);
    FILE *f = fopen("/proc/self/clear_refs", "we");
    rss_restarted = f && fputs("5", f) >= 0;      // 5: reset VmHWM (proc(5))
    if (f && fclose(f) != 0) rss_restarted = false;
    hb_host_reset_peak();
    const struct hb_device *d = hb_host()->device;
    if (!d->mark) return;                         // cpu: its memory is the host's
    d->reset_peak(d);
}

static int make_inputs(struct side *s)
{
    int64_t t0 = hb_now_ns();
    int rc = s->has_inputs ? 0 : hb_inputs_make(&s->pt, s->impl, HB_IN_NORMAL, &s->in);
    if (rc) return rc;
    s->has_inputs = true;
    rc = hb_inputs_ready(&s->in);
    s->inputs_s = 1e-9 * (double)(hb_now_ns() - t0);
    return rc;
}

static int prepare(struct side *s)
{
    const struct hb_device *d = device_of(s);
    int rc = make_inputs(s);
    size_t before = d ? d->now_bytes(d) : 0;
    if (!rc) rc = plan(s);
    if (rc) return rc;
    if (d) s->workspace_bytes = d->now_bytes(d) - before;
    if (s->pt.p.filter == HB_FILTER_FIXED
        && (rc = s->impl->set_filter(s->st, s->in.io.conv.h)) != 0)
        return rc;
    if (s->pt.pass == HB_PASS_BWD && (rc = s->impl->forward(s->st, &s->in.io)) != 0) return rc;
    if (s->impl->describe) s->impl->describe(s->st, s->plan_text, sizeof s->plan_text);
    return 0;
}

static int body_fwd(void *ctx) { struct side *s = ctx; return s->impl->forward(s->st, &s->in.io); }
static int body_bwd(void *ctx) { struct side *s = ctx; return s->impl->backward(s->st, &s->in.io); }
static int body_fwdbwd(void *ctx)
{
    int rc = body_fwd(ctx);
    return rc ? rc : body_bwd(ctx);
}
static const hb_body body_of[HB_PASS_COUNT] = {
    [HB_PASS_FWD] = body_fwd, [HB_PASS_FWD_CACHED] = body_fwd, [HB_PASS_BWD] = body_bwd,
    [HB_PASS_FWDBWD] = body_fwdbwd,
};

// Warm-up of the device's clock: one execution, so that all is loaded.
static int open_timer(struct side *s, int slot)
{
    s->timer = (struct hb_devtimer){ .d = device_of(s), .run = body_of[s->pt.pass], .ctx = s,
                                     .cold = s->pt.mode == HB_MODE_COLD, .slot = slot };
    return hb_devtimer_open(&s->timer);
}

static int timed(void *ctx, int times, double *ns)
{
    struct side *s = ctx;
    return hb_devtimer_take(&s->timer, times, ns);
}

// --- the machine while sampling ------------------------------------------------------------------

struct state { struct hb_ticks all; double own_ticks; int64_t invol, faults, t_ns; };

static struct state state_now(void)
{
    struct state s = { .t_ns = hb_now_ns() };
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) == 0) {
        double seconds = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec)
                       + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
        s.invol = u.ru_nivcsw;
        s.faults = u.ru_majflt;
        s.own_ticks = seconds * (double)sysconf(_SC_CLK_TCK);
    }
    if (!hb_read_ticks(&s.all)) s.all = (struct hb_ticks){ 0 };
    return s;
}

// --- all of it -----------------------------------------------------------------------------------

static struct hb_taken taken_of(const struct side *s, struct state a, struct state b,
                                double setup_s)
{
    double all = b.all.total - a.all.total;
    return (struct hb_taken){
        .pt = &s->pt, .impl = s->impl, .s = &s->samples, .check = &s->check,
        .plan_text = s->plan_text,
        .plan_ns = s->plan_ns, .wall_ns = b.t_ns - a.t_ns, .t_start_ns = a.t_ns,
        .alloc_peak_bytes = hb_host_mem().peak,
        .rss_peak_bytes = rss_restarted ? hb_rss_peak() : 0,
        .io_bytes = s->in.bytes,
        .setup_s = setup_s,
        .steal_frac = all > 0 ? (b.all.steal - a.all.steal) / all : -1,
        .other_frac = all > 0 ? 
            fmax(0, (b.all.busy - a.all.busy) - (b.own_ticks - a.own_ticks)) / all : -1,
        .ctx_invol = b.invol - a.invol,
        .pagefaults_major = b.faults - a.faults,
        .init_s = start.init_s,
        .inputs_s = s->inputs_s + s->check.took.inputs_s,
        .judge_s = s->check.took.judge_s,
        .plan_s = s->plan_s + s->check.took.plan_s,
        .timer = "host",
    };
}

// What only a device has.
static void add_device(const struct side *s, struct hb_taken *t)
{
    const struct hb_device *d = device_of(s);
    if (!d) return;
    const char *name = hb_gpu_name();
    t->timer = hb_devtimer_name(&s->timer);
    t->timer_note = s->timer.why_plain;
    t->device_name = *name ? name : d->name;
    t->device_peak_bytes = d->peak_bytes(d) - start.base_bytes;
    t->device_base_bytes = start.base_bytes;
    t->device_workspace_bytes = s->workspace_bytes;
    t->l2_bytes = hb_gpu_l2_bytes();
    t->gpu[0] = start.gpu;
    t->has_gpu[0] = start.has;
    t->gpu[1] = s->timer.busy;
    t->has_gpu[1] = s->timer.has_busy;
    t->has_gpu[2] = hb_gpu_now(&t->gpu[2]);
}

static int answer(struct side *side, int n, struct state a, double setup_s)
{
    struct hb_taken t[2];
    struct state b = state_now();
    for (int i = 0; i < n; i++) {
        t[i] = taken_of(&side[i], a, b, setup_s);
        add_device(&side[i], &t[i]);
    }
    json_t *rows = n == 1 ? hb_doc_entries(&t[0]) : hb_doc_pair(&t[0], &t[1]);
    if (!rows) return HB_ERR_RUN;
    json_t *doc =
        n == 1 ? json_pack("{s:o,s:[],s:[]}", "benchmarks", rows, "hb_skips", "hb_pairs")
               : json_pack("{s:[],s:[],s:[o]}", "benchmarks", "hb_skips", "hb_pairs", rows);
    return doc ? reply("ok", "", doc) : hb_fail(HB_ERR_RUN, "out of memory for the reply");
}

static int wrong(const struct side *s, int n, const char *detail)
{
    char text[HB_NAME_MAX + 300];
    snprintf(text, sizeof text, "%.*s%s%.255s", HB_NAME_MAX - 1, n == 2 ? s->pt.impl : "",
             n == 2 ? ": " : "", detail);
    return reply("wrong", text, NULL);
}

static int measure(struct side *side, const struct request *r)
{
    int64_t t0 = hb_now_ns();
    int rc = 0;
    if (device_of(&side[0])) start.base_bytes = hb_host()->device->now_bytes(hb_host()->device);
    for (int i = 0; i < r->n; i++) {
        bool ok = true;
        if ((rc = try_and_judge(&side[i], r, &ok)) != 0) return rc;
        if (!ok) return wrong(&side[i], r->n, side[i].check.detail);
    }
    reset_peaks();
    const char *names[2];
    hb_body bodies[2];
    void *ctx[2];
    for (int i = 0; i < r->n; i++) {
        if ((rc = prepare(&side[i])) != 0) return rc;
        names[i] = r->name[i]; bodies[i] = body_of[side[i].pt.pass]; ctx[i] = &side[i];
    }
    struct hb_sample_opts o = r->sample;
    const struct hb_device *d = device_of(&side[0]);
    for (int i = 0; d && i < r->n; i++)
        if ((rc = open_timer(&side[i], 2 * i)) != 0) return rc;
    if (d) {
        o.timed = timed;
        o.single = side[0].pt.mode == HB_MODE_COLD;
        o.min_sample_s = fmax(o.min_sample_s, HB_MIN_DEVICE_SAMPLE_S);
        start.has = hb_gpu_now(&start.gpu);
    } else if (side[0].pt.mode == HB_MODE_COLD) {
        if ((rc = hb_flush_cache_init()) != 0) return rc;
        o.before = hb_flush_cache;
    }
    if (r->turns) {
        if (hb_my_turn()) return hb_fail(HB_ERR_RUN, "%s: not a single turn", names[0]);
        o.turn = hb_my_turn;
        o.turned = hb_turn_done;
        // One thread waits for nothing but a core, and that is no business of the code.
        o.turn_cpu = !d && side[0].pt.p.threads == 1;
    }
    struct hb_inject slower[2];
    for (int i = 0; i < r->n && r->inject > 0; i++) {
        if ((rc = hb_inject_open(&slower[i], bodies[i], ctx[i], r->inject, d != NULL)) != 0)
            return rc;
        bodies[i] = hb_inject_body; ctx[i] = &slower[i];
    }
    if (r->turns) hb_turn_done(0);       // so far the slowdown was measured, alone
    double setup_s = (double)(hb_now_ns() - t0) * 1e-9;
    struct state a = state_now();
    struct hb_samples s[2] = { { 0 }, { 0 } };
    rc = hb_sample(names, bodies, ctx, r->n, &o, s);
    for (int i = 0; i < r->n; i++) side[i].samples = s[i];
    if (rc) return rc;
    for (int i = 0; i < r->n; i++)
        if (!hb_inputs_guards_ok(&side[i].in))
            return wrong(&side[i], r->n, "it wrote outside its tensors while timed");
    return answer(side, r->n, a, setup_s);
}

static int serve(const struct request *r)
{
    static struct side side[2];      // static: half a megabyte does not belong on a stack
    struct hb_point first;
    int rc = hb_point_parse(r->name[0], &first);
    if (rc) return rc;
    bool device = strncmp(first.device, "cpu", 3) != 0;
    rc = hb_host_init(first.p.threads, device ? hb_default_mem_limit() : r->mem_bytes);
    if (!rc) rc = hb_registry_load();
    if (device) hb_host_set_device_limit(r->mem_bytes);
    if (rc) return rc;
    if (r->task == TASK_PLAN) return plan_all(r);
    for (int i = 0; !rc && i < r->n; i++) rc = open_side(&side[i], r->name[i], r);
    if (!rc) rc = hb_use_device(first.device);           // dear: what is refused does without
    start.init_s = 1e-9 * (double)(hb_now_ns() - start.t0_ns);
    if (!rc) rc = r->task == TASK_PROBE ? probe(side, r->n) : measure(side, r);
    for (int i = 0; i < r->n; i++) {
        hb_devtimer_close(&side[i].timer);
        unplan(&side[i]);
        if (side[i].has_inputs) hb_inputs_free(&side[i].in);
        hb_samples_free(&side[i].samples);
    }
    return rc ? reply_error(rc) : 0;
}

int hb_cmd_point(int argc, char **argv)
{
    static const struct hb_cli cli = {
        .command = "__point", .args = "", .about = "Measures one point; started by run and sweep.",
        .example = "hyena-bench run --impl longconv_fftw --L 4096",
    };
    int n_pos = 0;
    start.t0_ns = hb_now_ns();
    int rc = hb_cli_parse(&cli, argc, argv, NULL, &n_pos);
    if (rc) return rc == HB_CLI_HELP ? 0 : hb_exit_code("__point", rc);
    signal(SIGINT, SIG_DFL);         // the parent keeps what is measured; this point just ends
    signal(SIGTERM, SIG_DFL);
    json_t *doc = NULL;
    static struct request r;
    rc = read_request(&doc, &r);
    if (!rc) rc = serve(&r);
    json_decref(doc);
    return hb_exit_code("__point", rc);
}
