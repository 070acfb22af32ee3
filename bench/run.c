// run.c: the command `run`: one point, or two side by side, measured in a child, shown as a table.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "commands.h"
#include "measure.h"
#include "record.h"
#include "table.h"

struct run_args {
    const char *impl, *against, *dtype, *pass, *filter, *device, *scope, *mode, *planning;
    int64_t B, L, D, H, order, threads, seed, mem_bytes;
    double time_s, ci_target, budget_s;
    bool json;
};

// Defaults that need the machine (threads, memory) stay 0 here.
static const struct run_args defaults = {
    .dtype = "f32", .pass = "fwd", .filter = "fresh", .mode = "warm", .planning = "measure",
    .B = 1, .D = 256, .seed = 1, .time_s = 600, .ci_target = 0.01, .budget_s = 5,
};

static int parse(int argc, char **argv, struct run_args *a)
{
    const struct hb_opt opts[] = {
        { "impl", HB_OPT_STR, &a->impl, "NAME",
          "implementation, e.g. longconv_fftw, hyena:longconv_fftw", 0, 0 },
        { "L", HB_OPT_INT, &a->L, "N", "sequence length", 1, 2147483648.0 },
        { "B", HB_OPT_INT, &a->B, "N", "batch (1)", 1, 2147483648.0 },
        { "D", HB_OPT_INT, &a->D, "N", "channels (256)", 1, 1 << 24 },
        { "H", HB_OPT_INT, &a->H, "N", "heads; default one per 64 channels", 1, 1 << 24 },
        { "order", HB_OPT_INT, &a->order, "N", "Hyena order (2)", 2, 16 },
        { "dtype", HB_OPT_STR, &a->dtype, "T", "f32, f64, f16, bf16 (f32)", 0, 0 },
        { "pass", HB_OPT_STR, &a->pass, "P", "fwd, fwd_cached, bwd, fwdbwd (fwd)", 0, 0 },
        { "filter", HB_OPT_STR, &a->filter, "F",
          "fresh, or fixed: transformed outside the timer (fresh)", 0, 0 },
        { "mode", HB_OPT_STR, &a->mode, "M",
          "warm, or cold: caches flushed before each execution (warm)", 0, 0 },
        { "planning", HB_OPT_STR, &a->planning, "P", "estimate, measure (measure)", 0, 0 },
        { "threads", HB_OPT_INT, &a->threads, "N",
          "worker threads; default all there are", 1, 1024 },
        { "device", HB_OPT_STR, &a->device, "D",
          "cpu0, cuda0; default the implementation's own", 0, 0 },
        { "scope", HB_OPT_STR, &a->scope, "S",
          "core or operator; follows from the name, checked if given", 0, 0 },
        { "seed", HB_OPT_INT, &a->seed, "N", "seed of the inputs (1)", 0, 9007199254740992.0 },
        { "mem-limit", HB_OPT_SIZE, &a->mem_bytes, "X",
          "bytes of the device, e.g. 4G; default 70 % of what is available, cuda0: all", 1, 9e18 },
        { "time-limit", HB_OPT_DOUBLE, &a->time_s, "S", "seconds for all of it (600)", 1e-3, 1e9 },
        { "ci-target", HB_OPT_DOUBLE, &a->ci_target, "X",
          "stop at this relative half-width (0.01)", 1e-6, 1 },
        { "budget-s", HB_OPT_DOUBLE, &a->budget_s, "S",
          "or after this much sampling (5)", 1e-3, 1e6 },
        { "against", HB_OPT_STR, &a->against, "NAME2",
          "measure both, alternating, and print the ratio", 0, 0 },
        { "json", HB_OPT_FLAG, &a->json, NULL, "print the record instead of the table", 0, 0 },
    };
    const struct hb_cli cli = {
        .command = "run", .args = "--impl NAME --L N",
        .about = "Measures one point in a process of its own.",
        .example = "hyena-bench run --impl longconv_fftw --L 8192\n"
                   "hyena-bench run --impl hyena:longconv_fftw --L 4096 "
                   "--against mha:attention_flash",
        .opts = opts, .n_opts = sizeof opts / sizeof *opts,
    };
    int n_pos = 0, rc = hb_cli_parse(&cli, argc, argv, NULL, &n_pos);
    if (rc) return rc;
    if (!a->impl) return hb_fail(HB_ERR_INPUT, "--impl is missing: a name of 'hyena-bench list'");
    if (!a->L) return hb_fail(HB_ERR_INPUT, "--L is missing: the sequence length");
    return 0;
}

static int set_filter(const struct run_args *a, struct hb_point *pt)
{
    if (!strcmp(a->filter, "fresh")) return 0;
    if (strcmp(a->filter, "fixed"))
        return hb_fail(HB_ERR_INPUT, "--filter: '%.60s' is none of fresh, fixed", a->filter);
    if (pt->pass != HB_PASS_FWD && pt->pass != HB_PASS_FWD_CACHED)
        return hb_fail(HB_ERR_INPUT, "--filter fixed goes with pass fwd, not %s", a->pass);
    pt->pass = HB_PASS_FWD_CACHED;
    return 0;
}

static int make_point(const struct run_args *a, const char *impl, struct hb_point *pt)
{
    memset(pt, 0, sizeof *pt);
    if (strlen(impl) >= sizeof pt->impl)
        return hb_fail(HB_ERR_INPUT, "--impl: '%.60s...' is too long", impl);
    if (a->device && strlen(a->device) >= sizeof pt->device)
        return hb_fail(HB_ERR_INPUT, "--device: '%.60s' is too long", a->device);
    snprintf(pt->impl, sizeof pt->impl, "%s", impl);
    snprintf(pt->device, sizeof pt->device, "%s", a->device ? a->device : "");
    enum hb_scope scope = HB_SCOPE_CORE;
    if (hb_dtype_parse(a->dtype, &pt->p.dtype) || hb_pass_parse(a->pass, &pt->pass)
        || hb_mode_parse(a->mode, &pt->mode) || hb_planning_parse(a->planning, &pt->p.planning)
        || set_filter(a, pt) || (a->scope && hb_scope_parse(a->scope, &scope)))
        return HB_ERR_INPUT;
    pt->p.B = a->B; pt->p.L = a->L; pt->p.D = a->D;
    pt->p.threads = (int)a->threads;
    pt->seed = (uint64_t)a->seed;
    hb_point_fit_op(pt, a->H, (int)a->order);
    int rc = hb_point_resolve(pt);
    if (!rc && a->scope && scope != pt->scope)
        rc = hb_fail(HB_ERR_INPUT, "--scope %s: %s is measured at scope %s", a->scope, impl,
                     hb_scope_str(pt->scope));
    return rc;
}

// --- what is printed -----------------------------------------------------------------------------

static double real_of(const json_t *e, const char *key)
{
    return json_number_value(json_object_get(e, key));
}

static const char *text_of(const json_t *e, const char *key)
{
    const char *s = json_string_value(json_object_get(e, key));
    return s ? s : "";
}

static void print_device(const json_t *e, struct hb_text *out)
{
    const json_t *busy = json_object_get(json_object_get(e, "hb_gpu"), "busy");
    const char *note = text_of(e, "hb_timer_note");
    if (!*text_of(e, "hb_device_name")) return;
    hb_text_add(out, "device     %s, timed by %s%s%s; %s at most, %s of them the plan's\n",
                text_of(e, "hb_device_name"), text_of(e, "hb_timer"), *note ? ": " : "", note,
                hb_str_bytes(real_of(e, "hb_device_peak_bytes")).s,
                hb_str_bytes(real_of(e, "hb_device_workspace_bytes")).s);
    if (busy)
        hb_text_add(out, "clocks     %.0f MHz, memory %.0f MHz, %.0f C, %.0f W%s\n",
                    real_of(busy, "sm_mhz"), real_of(busy, "mem_mhz"), real_of(busy, "temp_c"),
                    real_of(busy, "power_w"),
                    json_is_true(json_object_get(e, "hb_throttled")) ? ", THROTTLED" : "");
}

// Where the child's time went.
static void print_setup(const json_t *e, const struct hb_measured *m, struct hb_text *out)
{
    hb_text_add(out, "process    %.2f s: start and device %.2f, inputs %.2f, judge %.2f, "
                     "plans %.2f, sampling %.2f\n", m->elapsed_s, real_of(e, "hb_init_s"),
                real_of(e, "hb_inputs_s"), real_of(e, "hb_judge_s"), real_of(e, "hb_plan_s"),
                1e-9 * real_of(e, "hb_wall_ns"));
}

static void print_point(const struct hb_measured *m, struct hb_text *out)
{
    const json_t *e = json_array_get(json_object_get(m->doc, "benchmarks"), 0);
    const char *stop = json_string_value(json_object_get(e, "hb_stop"));
    const char *steady = json_string_value(json_object_get(e, "hb_steady"));
    double err = json_number_value(json_object_get(e, "hb_err_rel_l2"));
    double tol = json_number_value(json_object_get(e, "hb_err_tol"));
    double rss = json_number_value(json_object_get(e, "hb_rss_peak_bytes"));
    double plan = json_number_value(json_object_get(e, "hb_plan_ns"));
    double share = json_number_value(json_object_get(e, "hb_roof_frac"));
    double rate = json_number_value(json_object_get(e, "hb_flop")) / m->median_ns;
    struct hb_interval ci = { m->ci_lo_ns, m->ci_hi_ns };
    hb_text_add(out, "median     %s   95 %% interval %s .. %s\n", hb_str_time(m->median_ns).s,
                hb_str_time(ci.lo).s, hb_str_time(ci.hi).s);
    hb_text_add(out, "samples    %" JSON_INTEGER_FORMAT " (stopped by %s, %s)\n",
                json_integer_value(json_object_get(e, "hb_samples")), stop ? stop : "?",
                steady ? steady : "?");
    hb_text_add(out, "rate       %s GFLOP/s", hb_str_num(rate).s);
    if (share > 0) hb_text_add(out, ", %s of the bound\n", hb_str_pct(share).s);
    else hb_text_add(out, " (no bound: 'hyena-bench roofline' has not run here)\n");
    hb_text_add(out, "error      %s relative L2 (at most %s)\n", hb_str_num(err).s,
                hb_str_num(tol).s);
    hb_text_add(out, "memory     %s allocated at most",
                hb_str_bytes(real_of(e, "hb_alloc_peak_bytes")).s);
    if (rss > 0) hb_text_add(out, ", %s resident\n", hb_str_bytes(rss).s);
    else hb_text_add(out, "\n");
    hb_text_add(out, "planning   %s\n", hb_str_time(plan).s);
    print_device(e, out);
    print_setup(e, m, out);
}

static void print_pair(const struct hb_measured *m, struct hb_text *out)
{
    const json_t *p = json_array_get(json_object_get(m->doc, "hb_pairs"), 0);
    double a = json_number_value(json_object_get(p, "a_median_ns"));
    double b = json_number_value(json_object_get(p, "b_median_ns"));
    struct hb_ratio r = { m->ratio, { m->ratio_lo, m->ratio_hi } };
    const char *word = r.ci95.lo > 1 ? "the second is faster"
                     : r.ci95.hi < 1 ? "the first is faster" : "a tie";
    hb_text_add(out, "times      %s and %s\n", hb_str_time(a).s, hb_str_time(b).s);
    hb_text_add(out, "ratio      %s (first / second; %s, %" JSON_INTEGER_FORMAT " pairs)\n",
                hb_str_ratio(r).s, word, json_integer_value(json_object_get(p, "n")));
}

static int print_table(const struct hb_point *pts, int n, const struct hb_measured *m)
{
    struct hb_text out = { 0 };
    for (int i = 0; i < n; i++) {
        char name[HB_POINT_NAME_MAX];
        if (hb_point_name(&pts[i], name, sizeof name)) { hb_text_free(&out); return HB_ERR_INPUT; }
        hb_text_add(&out, "%-10s %s\n", i ? "against" : "point", name);
    }
    hb_text_add(&out, "status     %s%s%s\n", m->status, *m->detail ? ": " : "", m->detail);
    if (!strcmp(m->status, "ok") && n == 1) print_point(m, &out);
    if (!strcmp(m->status, "ok") && n == 2) print_pair(m, &out);
    int rc = hb_text_done(&out);
    if (!rc && fputs(out.s, stdout) < 0) rc = hb_fail(HB_ERR_RUN, "cannot write to stdout");
    hb_text_free(&out);
    return rc;
}

static int print_json(const struct hb_measured *m)
{
    json_t *doc = json_object(), *context = hb_context_json();
    int rc = !doc || !context || json_object_set(doc, "context", context)
                   || json_object_update(doc, m->doc)
           ? hb_fail(HB_ERR_RUN, "out of memory for the record") : 0;
    if (!rc && (json_dumpf(doc, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) < 0
                || putchar('\n') == EOF))
        rc = hb_fail(HB_ERR_RUN, "cannot write to stdout");
    json_decref(doc);
    json_decref(context);
    return rc;
}

// --- all of it -----------------------------------------------------------------------------------

// *answer: 1 if the implementation is wrong, 4 if it crashed; oom, refused, timeout: results.
static int run(const struct run_args *a, int *answer)
{
    struct hb_point pts[2];
    int n = a->against ? 2 : 1;
    int rc = hb_host_init((int)a->threads, 0);
    if (!rc) rc = hb_registry_load();
    if (!rc) rc = make_point(a, a->impl, &pts[0]);
    if (!rc && n == 2) rc = make_point(a, a->against, &pts[1]);
    if (!rc && n == 2 && strcmp(pts[0].device, pts[1].device))
        rc = hb_fail(HB_ERR_INPUT,
                     "--against: %s runs on %s and %s on %s: only what runs on one device can be "
                     "alternated", pts[0].impl, pts[0].device, pts[1].impl, pts[1].device);
    if (rc) return rc;
    struct hb_measure_opts o = {
        .sample = { .ci_target = a->ci_target, .budget_s = a->budget_s,
                    .min_samples = HB_MIN_SAMPLES,
                    .max_samples = HB_MAX_SAMPLES, .min_sample_s = HB_MIN_SAMPLE_S },
        .judge_flop = HB_JUDGE_FLOP, .time_limit_s = a->time_s,
        .mem_bytes = (size_t)a->mem_bytes,
    };
    struct hb_measured m;
    rc = hb_measure(pts, n, &o, &m);
    if (rc) return rc;
    rc = a->json ? print_json(&m) : print_table(pts, n, &m);
    *answer = !strcmp(m.status, "wrong") ? 1
            : !strcmp(m.status, "crashed") || !strcmp(m.status, "interrupted") ? 4 : 0;
    json_decref(m.doc);
    return rc;
}

int hb_cmd_run(int argc, char **argv)
{
    struct run_args a = defaults;
    int answer = 0;
    int rc = parse(argc, argv, &a);
    if (rc == HB_CLI_HELP) return 0;
    if (!rc) rc = run(&a, &answer);
    return rc ? hb_exit_code("run", rc) : answer;
}
