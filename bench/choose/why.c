// why.c: the command `why`: where a point's time goes, its bound, and what it costs against the
// best.
//
// cpu       the point runs here for a second under a sampling clock (profile.c); functions are
//           sorted
//           into phases by the table below: what is in libfftw is a transform, in OpenBLAS a matrix
//           product, and so on. Shares of processor time of all threads; `waiting` is what threads
//           spend at barriers.
// GPU       by differences of measured points: with and without the long convolution, core alone,
//           core with its filter transformed before. What the host enqueues has no such names.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../cli.h"
#include "../commands.h"
#include "../measure.h"
#include "../record.h"
#include "../roofline.h"
#include "../table.h"
#include "choose.h"
#include "profile.h"

// MATRICES: OpenBLAS called by mha, for its projections or for the attention inside.
enum phase { PROJECTIONS, FILTER, TRANSFORMS, PRODUCTS, GATES, COPIES, WAITING, MATRICES, OTHER,
             PHASES };
static const char *const phase_names[PHASES] = {
    "projections", "filter", "transforms", "products", "gates, short filter", "copies", "waiting",
    "matrix products", "other",
};

// First match decides; NULL matches all. `op` < 0: every operator.
static const struct rule { int op; const char *object, *function; enum phase phase; } rules[] = {
    { -1, "libfftw", NULL, TRANSFORMS },
    { HB_HYENA, "openblas", "dgemm", FILTER },                   // the filter is float64
    { HB_HYENA, "openblas", NULL, PROJECTIONS },
    { HB_ATTENTION, "openblas", NULL, PRODUCTS },
    { HB_MHA, "openblas", NULL, MATRICES },
    { -1, "libgomp", NULL, WAITING }, { -1, NULL, "__sched_yield", WAITING },
    { -1, NULL, "cpu_filter", FILTER }, { -1, NULL, "mlp_fwd", FILTER },
    { -1, NULL, "sine_bwd", FILTER }, { -1, NULL, "window_row", FILTER },
    { -1, NULL, "load_params", FILTER },
    { HB_HYENA, "libm", NULL, FILTER }, { HB_HYENA, "libmvec", NULL, FILTER },
    { -1, "libm", NULL, PRODUCTS },                              // exponentials of the softmax
    { -1, NULL, "cpu_gemm", PROJECTIONS }, { -1, NULL, "one_gemm", PROJECTIONS },
    { -1, NULL, "cpu_shortconv", GATES }, { -1, NULL, "cpu_gate", GATES },
    { -1, NULL, "cpu_bias", GATES }, { -1, NULL, "cpu_add", GATES }, { -1, NULL, "cpu_act", GATES },
    { -1, NULL, "cpu_copy", COPIES }, { -1, NULL, "cpu_zero", COPIES },
    { -1, NULL, "cpu_cast", COPIES }, { -1, NULL, "cpu_swap", COPIES },
    { -1, NULL, "transpose", COPIES }, { -1, NULL, "turn_rows", COPIES },
    { -1, NULL, "repitch", COPIES },
    { -1, "libc.", NULL, COPIES },                               // memcpy, memset
    { -1, "longconv_", "transform", TRANSFORMS }, { -1, "longconv_", "invert", TRANSFORMS },
    { -1, "longconv_", NULL, PRODUCTS }, { -1, "attention_", NULL, PRODUCTS },
};

static enum phase phase_of(const struct profile_row *row, const struct hb_problem *p)
{
    enum hb_op op = p->op;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const struct rule *r = &rules[i];
        if (r->op >= 0 && r->op != (int)op) continue;
        if (r->object && !strstr(row->object, r->object)) continue;
        if (r->function && strncmp(row->function, r->function, strlen(r->function))) continue;
        // Of the attentions that are there only the naive one uses it.
        return r->phase == MATRICES && !strstr(p->inner, "naive") ? PROJECTIONS : r->phase;
    }
    return OTHER;
}

// --- the point, here -----------------------------------------------------------------------------

struct run { const struct hb_impl *impl; void *st; struct hb_inputs in; enum hb_pass pass;
             int64_t times; };

static int body(void *ctx)
{
    struct run *r = ctx;
    int rc = 0;
    if (r->pass != HB_PASS_BWD) rc = r->impl->forward(r->st, &r->in.io);
    if (!rc && (r->pass == HB_PASS_BWD || r->pass == HB_PASS_FWDBWD))
        rc = r->impl->backward(r->st, &r->in.io);
    r->times++;
    return rc;
}

static int prepare(const struct hb_point *pt, struct run *r)
{
    r->impl = hb_registry_find(pt->impl);
    if (!r->impl) return HB_ERR_INPUT;
    const char *why = hb_point_refuses(pt, r->impl);
    if (why) return hb_fail(HB_ERR_REFUSED, "%s: %s", pt->impl, why);
    int rc = hb_inputs_make(pt, r->impl, HB_IN_NORMAL, &r->in);
    if (!rc) rc = hb_inputs_ready(&r->in);
    struct hb_problem p = pt->p;
    if (p.planning == HB_PLAN_MEASURE) p.planning = HB_PLAN_WISDOM_ONLY;
    int planned = rc ? rc : r->impl->plan(hb_host(), &p, &r->st);
    if (!rc && planned && planned != HB_ERR_OOM && planned != HB_ERR_REFUSED) {
        if (r->st) r->impl->destroy(r->st);
        r->st = NULL;
        hb_error_clear();
        planned = r->impl->plan(hb_host(), &pt->p, &r->st);
    }
    rc = rc ? rc : planned;
    if (!rc && pt->p.filter == HB_FILTER_FIXED) rc = r->impl->set_filter(r->st, r->in.io.conv.h);
    if (!rc && pt->pass == HB_PASS_BWD) rc = r->impl->forward(r->st, &r->in.io);
    return rc;
}

static void print_profile(const struct profile *p, const struct hb_problem *op, double each_ns,
                          struct hb_text *out)
{
    size_t sum[PHASES] = { 0 };
    struct hb_table t = { 0 };
    for (size_t i = 0; i < p->n; i++) sum[phase_of(&p->rows[i], op)] += p->rows[i].samples;
    hb_table_head(&t, "phase|>share|>time|where");
    for (int k = 0; k < PHASES; k++) {
        char where[200] = "";
        int named = 0;
        if (!sum[k]) continue;
        for (size_t i = 0; i < p->n && named < 3; i++) {
            if (phase_of(&p->rows[i], op) != (enum phase)k) continue;
            size_t n = strlen(where);
            snprintf(where + n, sizeof where - n, "%s%s:%s", named++ ? ", " : "", p->rows[i].object,
                     p->rows[i].function);
        }
        double share = (double)sum[k] / (double)p->samples;
        hb_table_cell(&t, "%s", phase_names[k]);
        hb_table_cell(&t, "%s", hb_str_pct(share).s);
        hb_table_cell(&t, "%s", hb_str_time(share * each_ns).s);
        hb_table_cell(&t, "%s", where);
    }
    hb_table_print(&t, out);
    hb_table_free(&t);
}

static int on_cpu(const struct hb_point *pt, double seconds, double *each_ns, struct hb_text *out)
{
    struct run *r = calloc(1, sizeof *r);
    struct profile p = { 0 };
    int rc = r ? hb_use_device(pt->device) : hb_fail(HB_ERR_OOM, "no memory");
    if (!rc) r->pass = pt->pass;
    if (!rc) rc = prepare(pt, r);
    if (!rc) rc = body(r);
    if (!rc) {
        r->times = -1;                               // hb_profile warms up once
        int64_t t0 = hb_now_ns();
        rc = hb_profile(body, r, seconds, &p);
        *each_ns = (double)(hb_now_ns() - t0) / (double)(r->times > 0 ? r->times + 1 : 1);
    }
    if (!rc && !p.samples) rc = hb_fail(HB_ERR_RUN, "the sampling clock gave no samples");
    if (!rc) print_profile(&p, &pt->p, *each_ns, out);
    hb_profile_free(&p);
    if (r && r->st) r->impl->destroy(r->st);
    if (r && r->in.priv) hb_inputs_free(&r->in);
    free(r);
    return rc;
}

// --- by differences ------------------------------------------------------------------------------

static double time_of(struct hb_point pt, double seconds)
{
    struct hb_measured m = { 0 };
    struct hb_measure_opts o = {
        .sample = { .ci_target = 0.01, .budget_s = seconds, .min_samples = HB_MIN_SAMPLES,
                    .max_samples = HB_MAX_SAMPLES, .min_sample_s = HB_MIN_SAMPLE_S },
        .judge_flop = HB_JUDGE_FLOP, .time_limit_s = 300,
    };
    if (hb_point_resolve(&pt) || hb_measure(&pt, 1, &o, &m)) {
        hb_error_clear();
        return NAN;
    }
    json_decref(m.doc);
    return m.median_ns > 0 ? m.median_ns : NAN;
}

static void part(struct hb_table *t, const char *phase, double ns, double all, const char *how)
{
    if (!isfinite(ns)) return;
    hb_table_cell(t, "%s", phase);
    hb_table_cell(t, "%s", hb_str_pct(fmax(0, ns) / all).s);
    hb_table_cell(t, "%s", hb_str_time(fmax(0, ns)).s);
    hb_table_cell(t, "%s", how);
}

// The core alone, as a point.
static struct hb_point core_of(const struct hb_point *pt)
{
    struct hb_point c = *pt;
    if (!pt->p.inner[0]) return c;
    snprintf(c.impl, sizeof c.impl, "%s", pt->p.inner);
    memset(&c.p.oper, 0, sizeof c.p.oper);
    c.p.inner[0] = '\0';
    c.scope = HB_SCOPE_CORE;
    return c;
}

static int by_differences(const struct hb_point *pt, double seconds, double *each_ns,
                          struct hb_text *out)
{
    bool oper = pt->p.inner[0] != '\0', conv = pt->p.op == HB_LONGCONV || pt->p.op == HB_HYENA;
    double all = time_of(*pt, seconds), core = oper ? time_of(core_of(pt), seconds) : all;
    double bare = NAN, cached = NAN;
    struct hb_table t = { 0 };
    if (!isfinite(all)) return hb_fail(HB_ERR_RUN, "the point could not be measured");
    if (pt->p.op == HB_HYENA) {
        struct hb_point p = *pt;
        p.p.oper.no_long = true;
        bare = time_of(p, seconds);
        core *= (pt->p.oper.order ? pt->p.oper.order : 2) - 1;
    }
    if (conv && pt->pass == HB_PASS_FWD) {
        struct hb_point p = core_of(pt);
        p.pass = HB_PASS_FWD_CACHED;
        cached = time_of(p, seconds);
    }
    hb_table_head(&t, "phase|>share|>time|how");
    if (pt->p.op == HB_HYENA) {
        part(&t, "projections, short filter, gates", bare, all, "without the long convolution");
        part(&t, "filter's values, copies", all - bare - core, all, "what is left");
    } else if (oper) {
        part(&t, "projections, copies", all - core, all, "what is left without the core");
    }
    if (isfinite(cached)) {
        part(&t, "filter's transform", core - cached, all, "core, fresh less fixed filter");
        part(&t, "transforms and products", cached, all, "core with a fixed filter");
    } else {
        part(&t, conv ? "transforms and products" : "products and softmax", core, all,
             "core alone");
    }
    hb_table_print(&t, out);
    hb_table_free(&t);
    *each_ns = all;
    return 0;
}

// --- bound and regret ----------------------------------------------------------------------------

static void print_bound(const struct hb_point *pt, double each_ns, struct hb_text *out)
{
    struct hb_work w = hb_point_work(pt);
    bool gpu = !strncmp(pt->device, "cuda", 4);
    double bound = gpu ? hb_device_roof_ns(pt) : hb_roof_ns(pt);
    hb_text_add(out, "\nwork       %s GFLOP by its method, %s at least; %s must move\n",
                hb_str_num(1e-9 * w.flop).s, hb_str_num(1e-9 * w.flop_min).s,
                hb_str_bytes(w.bytes_min).s);
    if (bound > 0)
        hb_text_add(out, "bound      %s: the point reaches %s of it\n", hb_str_time(bound).s,
                    hb_str_pct(bound / each_ns).s);
    else hb_text_add(out, "bound      unknown: 'hyena-bench roofline' has not run here\n");
}

static int print_regret(const struct hb_point *pt, double each_ns, struct hb_text *out)
{
    struct choose_result *r = malloc(sizeof *r);
    int rc = r ? hb_choose_here(pt, 0, NULL, NULL, r) : hb_fail(HB_ERR_OOM, "no memory");
    if (rc == HB_ERR_REFUSED) {
        hb_error_clear();
        rc = 0;
    } else if (!rc) {
        const struct hb_choice *c = &r->answer;
        double cost = each_ns / c->time_ns - 1;
        if (!(c->time_ns > 0))
            hb_text_add(out, "regret     unknown: nothing is measured for this problem's kind\n");
        else if (!strcmp(c->impl, pt->impl))
            hb_text_add(out, "regret     none: it is the choice (%s)%s%s\n",
                        hb_reason_str(c->reason), c->tie ? ", tied with " : "",
                        c->tie ? c->runner_up : "");
        else
            hb_text_add(out, "regret     %s %%: %s takes %s [%s .. %s] (%s)\n",
                        hb_str_num(100 * fmax(0, cost)).s, c->impl, hb_str_time(c->time_ns).s,
                        hb_str_time(c->time_lo_ns).s, hb_str_time(c->time_hi_ns).s,
                        hb_reason_str(c->reason));
    }
    free(r);
    return rc;
}

static int why(const char *name, double seconds, bool differences)
{
    struct hb_point pt;
    struct hb_text out = { 0 };
    double each_ns = 0;
    int rc = hb_point_parse(name, &pt);
    if (!rc) rc = hb_host_init(pt.p.threads, 0);
    if (!rc) rc = hb_registry_load();
    if (!rc) rc = hb_point_resolve(&pt);
    if (rc) return rc;
    pt.seed = 1;
    hb_text_add(&out, "point      %s\n\n", name);
    bool gpu = !strncmp(pt.device, "cuda", 4);
    rc = gpu || differences ? by_differences(&pt, seconds, &each_ns, &out)
                            : on_cpu(&pt, seconds, &each_ns, &out);
    if (!rc) print_bound(&pt, each_ns, &out);
    if (!rc) hb_text_add(&out, "time       %s here and now\n", hb_str_time(each_ns).s);
    if (!rc) rc = print_regret(&pt, each_ns, &out);
    if (!rc) rc = hb_text_done(&out);
    if (!rc && fputs(out.s, stdout) < 0) rc = hb_fail(HB_ERR_RUN, "cannot write to stdout");
    hb_text_free(&out);
    return rc;
}

int hb_cmd_why(int argc, char **argv)
{
    double seconds = 1;
    bool differences = false;
    const struct hb_opt opts[] = {
        { "budget-s", HB_OPT_DOUBLE, &seconds, "S", "how long it is looked at (1)", 0.01, 600 },
        { "differences", HB_OPT_FLAG, &differences, NULL,
          "phases from points with parts left out, as on a GPU", 0, 0 },
    };
    const struct hb_cli cli = {
        .command = "why", .args = "POINT",
        .about = "Where a point's time goes, its bound, and what choosing it costs. POINT is a "
                 "point's name as 'run' prints it.",
        .example = "hyena-bench why hyena:longconv_fftw/dev:cpu0/dt:f32/B:1/D:256/N:2/L:4096/"
                   "pass:fwd/plan:measure/T:2/mode:warm/scope:operator/manual_time",
        .opts = opts, .n_opts = sizeof opts / sizeof *opts, .min_pos = 1, .max_pos = 1,
    };
    const char *pos[1] = { NULL };
    int n_pos = 0, rc = hb_cli_parse(&cli, argc, argv, pos, &n_pos);
    if (rc == HB_CLI_HELP) return 0;
    if (!rc) rc = why(pos[0], seconds, differences);
    return hb_exit_code("why", rc);
}
