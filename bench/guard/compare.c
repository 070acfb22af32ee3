// compare.c: the command `compare`: two builds of this suite, is the new one slower?
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../cli.h"
#include "../commands.h"
#include "../env.h"
#include "guard.h"

struct args {
    const char *base, *head, *budget, *sweep, *tier, *json, *markdown, *junit, *history;
    bool strict, all, any_environment, no_history;
    struct guard_opts o;
    int64_t rounds;
};

static int parse(int argc, char **argv, struct args *a)
{
    const struct hb_opt opts[] = {
        { "base", HB_OPT_STR, &a->base, "DIR", "build folder of the old version", 0, 0 },
        { "head", HB_OPT_STR, &a->head, "DIR", "of the new one; default this program's own", 0, 0 },
        { "budget", HB_OPT_STR, &a->budget, "TIME",
          "for the timed points, e.g. 60s, 5m (60s); a confirming round may exceed it", 0, 0 },
        { "tier", HB_OPT_STR, &a->tier, "T", "exact, paired or all (all)", 0, 0 },
        { "sweep", HB_OPT_STR, &a->sweep, "FILE",
          "points; groups named exact* are counted, others timed (bench/sweeps/guard.json)", 0, 0 },
        { "strict", HB_OPT_FLAG, &a->strict, NULL, "exit code 1 also where there is doubt", 0, 0 },
        { "all", HB_OPT_FLAG, &a->all, NULL, "time points of identical code, too", 0, 0 },
        { "any-environment", HB_OPT_FLAG, &a->any_environment, NULL,
          "compare although compiler, flags or libraries differ", 0, 0 },
        { "rounds", HB_OPT_INT, &a->rounds, "N", "so many rounds instead of a budget", 1, 1000 },
        { "min-effect", HB_OPT_DOUBLE, &a->o.min_effect, "X",
          "slower means by more than this share (0.01)", 0, 1 },
        { "margin", HB_OPT_DOUBLE, &a->o.margin, "X",
          "same means surely within this share (0.05)", 1e-3, 1 },
        { "fdr", HB_OPT_DOUBLE, &a->o.fdr, "Q",
          "share of false discoveries before the confirming round (0.1)", 1e-6, 0.5 },
        { "json", HB_OPT_STR, &a->json, "FILE", "write the verdicts", 0, 0 },
        { "markdown", HB_OPT_STR, &a->markdown, "FILE", "write the tables (also printed)", 0, 0 },
        { "junit", HB_OPT_STR, &a->junit, "FILE", "write JUnit XML", 0, 0 },
        { "history", HB_OPT_STR, &a->history, "FILE",
          "SQLite file of all comparisons (build/guard/history.sqlite)", 0, 0 },
        { "no-history", HB_OPT_FLAG, &a->no_history, NULL, "neither read nor write one", 0, 0 },
    };
    const struct hb_cli cli = {
        .command = "compare", .args = "--base DIR [--head DIR]",
        .about = "Compares two builds: counts what can be counted, times the rest in pairs. Exit "
                 "code 1: the new one is worse.",
        .example = "hyena-bench compare --base ../old/build --head build --budget 60s\n"
                   "hyena-bench compare --base ../old/build --tier exact --junit compare.xml",
        .opts = opts, .n_opts = sizeof opts / sizeof *opts,
    };
    int n_pos = 0, rc = hb_cli_parse(&cli, argc, argv, NULL, &n_pos);
    if (!rc && !a->base)
        rc = hb_fail(HB_ERR_INPUT, "--base is missing: the build folder of the old version");
    if (!rc && strcmp(a->tier, "all") && strcmp(a->tier, "exact") && strcmp(a->tier, "paired"))
        rc = hb_fail(HB_ERR_INPUT, "--tier: '%.60s' is none of exact, paired, all", a->tier);
    return rc;
}

// "60", "60s", "5m", "1h" in seconds.
static int read_budget(const char *text, double *out)
{
    char *end;
    double v = strtod(text, &end), unit = 1;
    if (end != text && (*end == 's' || *end == 'm' || *end == 'h') && !end[1]) {
        unit = *end == 'm' ? 60 : *end == 'h' ? 3600 : 1;
        end++;
    }
    if (end == text || *end || !(v * unit > 0 && v * unit <= 1e7))
        return hb_fail(HB_ERR_INPUT, "--budget: '%.60s' is not a time (60s, 5m)", text);
    *out = v * unit;
    return 0;
}

static int write_text(const char *path, const struct hb_text *t)
{
    return path ? hb_write_file(path, t->s, t->n) : 0;
}

static int remember(const struct args *a, json_t *doc)
{
    struct guard_history *h;
    char path[4300];
    if (a->no_history) return 0;
    snprintf(path, sizeof path, "%s%s", a->history ? a->history : hb_build_dir(),
             a->history ? "" : "/guard/history.sqlite");
    int rc = guard_history_open(path, &h);
    if (rc) return rc;
    rc = guard_history_add(h, doc);
    json_t *steps = rc ? NULL : guard_history_steps(h, hb_fingerprint());
    if (!rc && !steps) rc = hb_error_code() ? hb_error_code() : HB_ERR_OOM;
    if (!rc) json_object_set_new(doc, "history_steps", steps);
    guard_history_close(h);
    return rc;
}

static int publish(const struct args *a, json_t *doc)
{
    struct hb_text md = { 0 }, xml = { 0 };
    int rc = remember(a, doc);
    if (!rc) rc = guard_markdown(doc, &md);
    if (!rc) rc = guard_junit(doc, &xml);
    if (!rc && a->json) rc = hb_json_save(a->json, doc);
    if (!rc) rc = write_text(a->markdown, &md);
    if (!rc) rc = write_text(a->junit, &xml);
    if (!rc && fputs(md.s, stdout) < 0) rc = hb_fail(HB_ERR_RUN, "cannot write to stdout");
    hb_text_free(&md);
    hb_text_free(&xml);
    return rc;
}

static int paired(const struct args *a, struct guard_live *g, struct guard_point *points,
                  int *rounds)
{
    int rc = guard_live_prepare(g, points, a->all);
    struct guard_source src = guard_live_source(g);
    if (!rc) rc = guard_paired(&src, points, g->n_paired, &a->o, rounds);
    hb_progress_end();
    return rc;
}

static int compare(const struct args *a, int *answer)
{
    static struct guard_live g;
    struct guard_counts counts = { 0 };
    struct guard_point *points = NULL;
    struct guard_result r = { .live = &g, .counts = &counts, .opts = a->o, .strict = a->strict };
    char sweep[4300], differs[1000] = "";
    double t0 = 1e-9 * (double)hb_now_ns();
    int rc = hb_host_init(0, 0);
    snprintf(sweep, sizeof sweep, "%s%s", a->sweep ? a->sweep : hb_root_dir(),
             a->sweep ? "" : "/bench/sweeps/guard.json");
    if (!rc) rc = hb_registry_load();
    if (!rc) rc = guard_live_open(a->base, a->head ? a->head : guard_own_build(), sweep, &g);
    if (!rc && !strcmp(a->tier, "exact")) g.n_paired = 0;
    if (!rc && !strcmp(a->tier, "paired")) g.n_exact = 0;
    if (!rc && !(points = calloc(g.n_paired + 1, sizeof *points)))
        rc = hb_fail(HB_ERR_OOM, "no memory for %zu points", g.n_paired);
    if (!rc && !a->any_environment) guard_live_env_diff(&g, differs, sizeof differs);
    for (size_t i = 0; !rc && *differs && i < g.n_paired; i++) {
        points[i] = (struct guard_point){ .left_out = true, .word = GUARD_ENV };
        snprintf(points[i].why, sizeof points[i].why, "%.190s", differs);
    }
    if (!rc && *differs)
        fprintf(stderr, "hyena-bench compare: environments differ, nothing is compared "
                        "(--any-environment does): %s\n", differs);
    if (!rc && !*differs) rc = guard_exact(&g, 0, &counts);
    if (!rc && !*differs && g.n_exact && !counts.valgrind)
        fprintf(stderr, "hyena-bench compare: valgrind is not installed: instructions are not "
                        "counted\n");
    if (!rc && !*differs && g.n_paired) rc = paired(a, &g, points, &r.rounds);
    r.points = points;
    r.elapsed_s = 1e-9 * (double)hb_now_ns() - t0;
    json_t *doc = rc ? NULL : guard_doc(&r);
    if (doc && *differs) {
        json_object_set_new(doc, "environments_differ", json_string(differs));
        json_object_set_new(doc, "answer", json_string("environments differ"));
    }
    if (!rc) rc = doc ? publish(a, doc) : hb_error_code();
    *answer = rc ? 0 : guard_exit_code(&r) || (*differs && a->strict);
    json_decref(doc);
    if (points) guard_points_free(points, g.n_paired);
    free(points);
    guard_counts_free(&counts);
    guard_live_close(&g);
    return rc;
}

int hb_cmd_compare(int argc, char **argv)
{
    struct args a = { .budget = "60s", .tier = "all", .o = guard_defaults };
    int answer = 0, rc = parse(argc, argv, &a);
    if (rc == HB_CLI_HELP) return 0;
    a.o.rounds = (int)a.rounds;
    if (!rc) rc = read_budget(a.budget, &a.o.budget_s);
    if (!rc) rc = compare(&a, &answer);
    return rc ? hb_exit_code("compare", rc) : answer;
}
