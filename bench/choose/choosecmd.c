// choosecmd.c: the command `choose`.
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../cli.h"
#include "../commands.h"
#include "../env.h"
#include "../measure.h"
#include "../record.h"
#include "../table.h"
#include "choose.h"
#include "evaluate.h"

struct choose_args {
    struct hb_question q;
    const char *machine, *table;
    int64_t threads, order;
    struct evaluate_opts ev;
    bool json, check, no_probe;
};

static int parse(int argc, char **argv, struct choose_args *a)
{
    const struct hb_opt opts[] = {
        { "op", HB_OPT_STR, &a->q.op, "OP", "longconv, attention, hyena, mha", 0, 0 },
        { "L", HB_OPT_INT, &a->q.L, "N", "sequence length", 1, 2147483648.0 },
        { "B", HB_OPT_INT, &a->q.B, "N", "batch (1)", 1, 2147483648.0 },
        { "D", HB_OPT_INT, &a->q.D, "N", "channels (256)", 1, 1 << 24 },
        { "H", HB_OPT_INT, &a->q.H, "N", "heads; default one per 64 channels", 1, 1 << 24 },
        { "order", HB_OPT_INT, &a->order, "N", "Hyena order (2)", 2, 16 },
        { "dtype", HB_OPT_STR, &a->q.dtype, "T", "f32, f64, f16, bf16 (f32)", 0, 0 },
        { "pass", HB_OPT_STR, &a->q.pass, "P", "fwd, fwd_cached, bwd, fwdbwd (fwd)", 0, 0 },
        { "device", HB_OPT_STR, &a->q.device, "D", "cpu0, cuda0 (cpu0)", 0, 0 },
        { "mode", HB_OPT_STR, &a->q.mode, "M", "warm, cold caches (cpu0 warm, cuda0 cold)", 0, 0 },
        { "threads", HB_OPT_INT, &a->threads, "N", "worker threads; default all there are", 1,
          1024 },
        { "mem-limit", HB_OPT_SIZE, &a->q.mem_limit, "X",
          "bytes that tensors and workspace may take; default 70 % of what is available; "
          "cuda0: all", 1, 9e18 },
        { "machine", HB_OPT_STR, &a->machine, "ID", "as if on that machine of the results", 0, 0 },
        { "no-probe", HB_OPT_FLAG, &a->no_probe, NULL,
          "do not plan an implementation to learn whether it fits", 0, 0 },
        { "json", HB_OPT_FLAG, &a->json, NULL, "the answer as JSON", 0, 0 },
        { "check", HB_OPT_FLAG, &a->check, NULL,
          "instead: how good are the predictions? Leaves each measured point out in turn", 0, 0 },
        { "table", HB_OPT_STR, &a->table, "FILE",
          "instead: write the table that the C library reads", 0, 0 },
        { "evaluate", HB_OPT_INT, &a->ev.n, "N",
          "instead: judge the choices for N random problems (of OP, else all) by interleaved pairs",
          1, 100000 },
        { "seed", HB_OPT_INT, &a->ev.seed, "N", "with --evaluate: of the problems (1)", 0,
          9007199254740992.0 },
        { "budget-s", HB_OPT_DOUBLE, &a->ev.budget_s, "S",
          "with --evaluate: sampling of a pair (1)", 1e-3, 1e3 },
        { "max-ms", HB_OPT_DOUBLE, &a->ev.max_ms, "MS",
          "with --evaluate: no problem whose chosen time is longer (200)", 1e-3, 1e6 },
        { "out", HB_OPT_STR, &a->ev.out, "FILE", "with --evaluate: every judgement as JSON", 0, 0 },
    };
    const struct hb_cli cli = {
        .command = "choose", .args = "--op OP --L N",
        .about = "Which implementation to use, how sure that is, and what it costs if it is wrong.",
        .example = "hyena-bench choose --op longconv --B 4 --D 1024 --L 12000\n"
                   "hyena-bench choose --evaluate 200",
        .opts = opts, .n_opts = sizeof opts / sizeof *opts,
    };
    int n_pos = 0, rc = hb_cli_parse(&cli, argc, argv, NULL, &n_pos);
    if (rc) return rc;
    a->q.order = (int)a->order;
    a->q.threads = (int)a->threads;
    a->ev.op = a->q.op;
    a->ev.device = a->q.device;
    a->ev.dtype = a->q.dtype;
    if (a->ev.n || a->table || a->check) return 0;
    if (!a->q.op)
        return hb_fail(HB_ERR_INPUT, "--op is missing: longconv, attention, hyena or mha");
    if (!a->q.L) return hb_fail(HB_ERR_INPUT, "--L is missing: the sequence length");
    return 0;
}

// --- does it fit ---------------------------------------------------------------------------------

// Inputs and outputs, by count; a backward has as many gradients, and y too. Some more for the guard
// zones around them.
static double io_bytes(const struct hb_point *pt)
{
    struct hb_point all = *pt;
    if (all.pass == HB_PASS_BWD) all.pass = HB_PASS_FWDBWD;
    return 1.01 * hb_point_work(&all).bytes_min + (256 << 10);
}

bool hb_choose_probe(const struct hb_point *pt, double limit, void *ctx)
{
    (void)ctx;
    struct hb_point one = *pt;
    struct hb_measured m = { 0 };
    double left = limit - io_bytes(pt);
    struct hb_measure_opts o = { .sample = { .min_samples = HB_MIN_SAMPLES,
                                             .max_samples = HB_MAX_SAMPLES },
                                 .time_limit_s = 60 };
    if (left < 1) return false;
    if (left > 9e18) return true;
    o.mem_bytes = (size_t)left;
    int rc = hb_probe(&one, 1, &o, &m);
    bool fits = !rc && !strcmp(m.status, "ok");
    if (rc) hb_error_clear();
    json_decref(m.doc);
    return fits;
}

// --- the answer, for people and as JSON ----------------------------------------------------------

static const char *verdict(const struct hb_choice *c)
{
    if (c->reason == HB_DEFAULT) return "unknown";
    return !c->runner_up[0] ? "only one" : c->tie ? "tie" : "clear";
}

static void print_candidates(const struct choose_result *r, struct hb_text *out)
{
    struct hb_table t = { 0 };
    hb_table_head(&t, "candidate|>time|>95 % interval|>memory|remark");
    for (int i = 0; i < r->n; i++) {
        const struct choose_candidate *c = &r->c[i];
        struct hb_interval iv = { exp(c->time.mean - 1.96 * c->time.sd),
                                  exp(c->time.mean + 1.96 * c->time.sd) };
        hb_table_cell(&t, "%s", c->impl);
        hb_table_cell(&t, "%s", c->time.n ? hb_str_time(exp(c->time.mean)).s : "-");
        if (c->time.n) hb_table_cell(&t, "%s .. %s", hb_str_time(iv.lo).s, hb_str_time(iv.hi).s);
        else hb_table_cell(&t, "-");
        hb_table_cell(&t, "%s", c->mem.n ? hb_str_bytes(exp(c->mem.mean)).s : "-");
        hb_table_cell(&t, "%s", c->out ? c->out : !c->time.n ? "not measured"
                              : c->time.exact ? "measured" : c->time.outside ? "extrapolated" : "");
    }
    hb_table_print(&t, out);
    hb_table_free(&t);
}

static int print_text(const struct hb_point *pt, double limit, const struct choose_result *r)
{
    const struct hb_choice *c = &r->answer;
    struct hb_text out = { 0 };
    hb_text_add(&out, "problem    %s %s, B %" PRId64 ", D %" PRId64 ", L %" PRId64 ", %s, %s",
                hb_op_str(pt->p.op), hb_pass_str(pt->pass), pt->p.B, pt->p.D, pt->p.L,
                hb_dtype_str(pt->p.dtype), pt->device);
    if (pt->p.H) hb_text_add(&out, ", H %" PRId64, pt->p.H);
    if (limit > 0) hb_text_add(&out, ", at most %s", hb_str_bytes(limit).s);
    hb_text_add(&out, "\nchoice     %s\n", c->impl);
    if (c->time_ns > 0)
        hb_text_add(&out, "time       %s   95 %% interval %s .. %s\n", hb_str_time(c->time_ns).s,
                    hb_str_time(c->time_lo_ns).s, hb_str_time(c->time_hi_ns).s);
    if (c->runner_up[0])
        hb_text_add(&out, "runner-up  %s, %s: %s times as long\n", c->runner_up,
                    hb_str_time(c->runner_ns).s,
                    hb_str_ratio((struct hb_ratio){ c->margin, { c->margin_lo, c->margin_hi } }).s);
    hb_text_add(&out, "verdict    %s%s\n", verdict(c),
                !c->tie ? "" : !strcmp(c->impl, hb_choose_default(pt))
                    ? ": inside the crossover's interval; the default is named"
                    : ": inside the crossover's interval; the default is expected to be slower");
    if (c->runner_up[0])
        hb_text_add(&out, "regret     %s %% expected, at most %s %%\n",
                    hb_str_num(100 * c->regret).s,
                    hb_str_num(100 * fmax(c->regret, c->regret_hi)).s);
    if (c->mem_bytes > 0)
        hb_text_add(&out, "memory     %s, surely below %s\n", hb_str_bytes(c->mem_bytes).s,
                    hb_str_bytes(c->mem_hi_bytes).s);
    hb_text_add(&out, "from       %s: %s\n\n", hb_reason_str(c->reason), c->note);
    print_candidates(r, &out);
    int rc = hb_text_done(&out);
    if (!rc && fputs(out.s, stdout) < 0) rc = hb_fail(HB_ERR_RUN, "cannot write to stdout");
    hb_text_free(&out);
    return rc;
}

static int print_json(const struct hb_point *pt, double limit, const struct choose_result *r)
{
    const struct hb_choice *c = &r->answer;
    json_t *all = json_array();
    for (int i = 0; i < r->n; i++) {
        const struct choose_candidate *k = &r->c[i];
        json_t *o = json_pack("{s:s}", "impl", k->impl);
        if (k->time.n)
            json_object_update_new(
                o, json_pack("{s:f,s:[f,f],s:b}", "time_ns", exp(k->time.mean), "ci95_ns",
                             exp(k->time.mean - 1.96 * k->time.sd),
                             exp(k->time.mean + 1.96 * k->time.sd), "measured", k->time.exact));
        if (k->mem.n) json_object_set_new(o, "mem_bytes", json_real(exp(k->mem.mean)));
        if (k->out) json_object_set_new(o, "out", json_string(k->out));
        json_array_append_new(all, o);
    }
    json_t *doc = json_pack(
        "{s:{s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:s,s:f},s:s,s:s,s:s,s:f,s:[f,f],s:s,s:f,s:[f,f],s:f,s:f,"
        "s:f,s:f,s:s,s:s,s:o}",
        "problem", "op", hb_op_str(pt->p.op), "pass", hb_pass_str(pt->pass), "B",
        (json_int_t)pt->p.B, "D", (json_int_t)pt->p.D, "L", (json_int_t)pt->p.L, "H",
        (json_int_t)pt->p.H, "dtype", hb_dtype_str(pt->p.dtype), "device", pt->device, "mem_limit",
        limit, "impl", c->impl, "verdict", verdict(c), "reason", hb_reason_str(c->reason),
        "time_ns", c->time_ns, "ci95_ns", c->time_lo_ns, c->time_hi_ns, "runner_up", c->runner_up,
        "margin", c->margin, "margin_ci95", c->margin_lo, c->margin_hi, "regret", c->regret,
        "regret_hi", fmax(c->regret, c->regret_hi), "mem_bytes", c->mem_bytes, "mem_hi_bytes",
        c->mem_hi_bytes, "machine", c->machine, "note", c->note, "candidates", all);
    int rc = !doc || json_dumpf(doc, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6))
           ? hb_fail(HB_ERR_RUN, "cannot print the answer as JSON") : 0;
    printf("\n");
    json_decref(doc);
    return rc;
}

// --- all of it -----------------------------------------------------------------------------------

static int write_table(const char *path)
{
    const struct choose_table *t = hb_choices();
    json_t *doc = t ? hb_choices_json(t) : NULL;
    int rc = doc ? hb_json_save(path, doc) : hb_error_code();
    json_decref(doc);
    if (!rc) printf("%s: %zu points of %d machines\n", path, t->n, t->n_machines);
    return rc;
}

static int check_machine(const char *id)
{
    const struct choose_table *t = hb_choices();
    char all[400] = "";
    for (int i = 0; id && t && i < t->n_machines; i++) {
        size_t n = strlen(all);
        if (!strcmp(t->machines[i].id, id)) return 0;
        snprintf(all + n, sizeof all - n, "%s%s", n ? ", " : "", t->machines[i].id);
    }
    if (!id) return 0;
    return hb_fail(HB_ERR_INPUT, "--machine: '%.90s' is none of those with results: %s", id, all);
}

static int choose(const struct choose_args *a)
{
    struct hb_point pt;
    struct choose_result *r = malloc(sizeof *r);
    int rc = r ? hb_question_point(&a->q, hb_host()->threads, &pt)
               : hb_fail(HB_ERR_OOM, "no memory for a choice");
    if (!rc) rc = check_machine(a->machine);
    bool gpu = !rc && !strncmp(pt.device, "cuda", 4);
    double limit = (double)a->q.mem_limit;
    if (!rc && !gpu && !(limit > 0)) limit = (double)hb_default_mem_limit();
    if (!rc)
        rc = hb_choose_on(&pt, limit, a->machine, a->no_probe || gpu ? NULL : hb_choose_probe, NULL,
                          r);
    if (!rc) rc = a->json ? print_json(&pt, limit, r) : print_text(&pt, limit, r);
    free(r);
    return rc;
}

int hb_cmd_choose(int argc, char **argv)
{
    struct choose_args a = { .ev = { .seed = 1, .budget_s = 1, .max_ms = 200 } };
    int answer = 0;
    int rc = parse(argc, argv, &a);
    if (rc == HB_CLI_HELP) return 0;
    if (!rc) rc = hb_host_init((int)a.threads, 0);
    if (!rc) rc = hb_registry_load();
    if (!rc && !hb_choices()) rc = hb_error_code();
    if (!rc) rc = a.check ? hb_choose_check(hb_choices()) : a.table ? write_table(a.table)
                : a.ev.n ? hb_evaluate(&a.ev, &answer) : choose(&a);
    // Nothing fits: that is the answer, not a failure.
    if (rc == HB_ERR_REFUSED) {
        printf("%s\n", hb_error());
        return 1;
    }
    return rc ? hb_exit_code("choose", rc) : answer;
}
