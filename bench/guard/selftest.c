// selftest.c: the command `selftest`: how often compare alarms for nothing on this machine, and
// what it finds.
//
// Pool      cycles over all points; in each, one pair of processes per level: equal builds (A, A'),
//           and A beside itself slowed down on purpose by 2, 5, 10 and 20 % (inject.h). The order of
//           the levels turns from cycle to cycle, and who begins a pair. Raw times go to --pool FILE
//           and can be used again.
// Drawn     a comparison takes a block of neighbouring cycles from a random start: its pairs are
//           (A, A') or, at one point, (A, slowed down); the rounds are those that the budget has
//           room for. Decided by paired.c itself, confirming round included.
// Live      the whole of compare, this build against itself.
// Exact     one point a trial: equal builds must differ in nothing; one instruction more per
//           element must be named.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../impls/core/rng.h"
#include "../cli.h"
#include "../commands.h"
#include "guard.h"

enum { LEVELS = 5 };                     // level 0: equal builds
static const double level_of[LEVELS] = { 0, 0.02, 0.05, 0.10, 0.20 };

struct args {
    const char *sweep, *pool, *json, *markdown, *build;
    int64_t cycles, comparisons, injected, live, live_injected, exact, seed;
    struct guard_opts o;
};
struct pool {
    size_t points, cycles;
    double *ns;                          // [cycle][point][level][base, head], owned
    double pair_s;                       // mean of one pair of equal builds
};
// false_alarms: comparisons with one, at another point than the slowed one, or of equal builds.
struct tally { int trials, found, false_alarms, doubtful; };
struct report {
    struct tally drawn[LEVELS], live[LEVELS];
    int exact_trials, exact_found, exact_false, rounds;
};

static double *cell(const struct pool *p, size_t cycle, size_t point, int level)
{
    return &p->ns[((cycle * p->points + point) * LEVELS + (size_t)level) * 2];
}

static size_t n_times(const struct pool *p) { return p->points * p->cycles * LEVELS * 2; }

// --- the pool ------------------------------------------------------------------------------------

static int pool_make(struct pool *p, size_t points, size_t cycles)
{
    *p = (struct pool){ .points = points, .cycles = cycles };
    p->ns = calloc(n_times(p) + 1, sizeof *p->ns);
    return p->ns ? 0 : hb_fail(HB_ERR_OOM, "no memory for the pool");
}

static int pool_save(const struct pool *p, const char *path)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n_times(p); i++) json_array_append_new(a, json_real(p->ns[i]));
    json_t *doc = json_pack("{s:s,s:I,s:I,s:i,s:f,s:o}", "schema", "hyena-bench selftest pool 2",
                            "points", (json_int_t)p->points, "cycles", (json_int_t)p->cycles,
                            "levels", LEVELS, "pair_s", p->pair_s, "ns", a);
    int rc = doc ? hb_json_save(path, doc) : hb_fail(HB_ERR_OOM, "no memory for the pool");
    json_decref(doc);
    return rc;
}

static int pool_load(const char *path, size_t points, struct pool *p)
{
    json_t *doc = hb_json_load(path), *a = NULL;
    json_int_t n = 0, cycles = 0;
    int levels = 0;
    double pair_s = 0;
    if (!doc) return HB_ERR_INPUT;
    int rc = json_unpack(doc, "{s:I,s:I,s:i,s:F,s:o}", "points", &n, "cycles", &cycles, "levels",
                         &levels, "pair_s", &pair_s, "ns", &a);
    if (rc || levels != LEVELS || n != (json_int_t)points || cycles < 1
        || json_array_size(a) != points * (size_t)cycles * LEVELS * 2) {
        json_decref(doc);
        return hb_fail(HB_ERR_INPUT, "%s: no pool of these %zu points", path, points);
    }
    rc = pool_make(p, points, (size_t)cycles);
    p->pair_s = pair_s;
    for (size_t i = 0; i < json_array_size(a) && !rc; i++)
        p->ns[i] = json_number_value(json_array_get(a, i));
    json_decref(doc);
    return rc;
}

static int pool_measure(struct guard_live *g, size_t cycles, struct pool *p)
{
    struct guard_source src = guard_live_source(g);
    int rc = pool_make(p, g->n_paired, cycles);
    double t0 = src.now_s(g), equal_s = 0;
    size_t done = 0, total = cycles * p->points * LEVELS;
    for (size_t c = 0; c < cycles && !rc; c++)
        for (size_t i = 0; i < p->points && !rc; i++)
            for (int k = 0; k < LEVELS && !rc; k++, done++) {
                int level = (k + (int)(c % LEVELS)) % LEVELS, side;
                char why[160] = "";
                g->inject = level_of[level];
                g->inject_point = i;
                double from = src.now_s(g);
                double each = done ? (from - t0) / (double)done : 0;
                hb_progress("pool", done, total, done ? each * (double)(total - done) : -1);
                rc = src.take(g, i, (int)(c % 2), cell(p, c, i, level), &side, why);
                // Slowing down is calibrated first, which a comparison has no need of.
                if (!level) equal_s += src.now_s(g) - from;
                if (rc == 1)
                    rc = hb_fail(HB_ERR_RUN, "%s: %s", g->s.items[g->paired[i]].name, why);
            }
    p->pair_s = equal_s / (double)(total ? total / LEVELS : 1);
    g->inject = 0;
    return rc;
}

// --- comparisons drawn from it -------------------------------------------------------------------

struct drawn {
    const struct pool *p;
    size_t start, *calls;                // calls per point
    size_t inject_point;
    int level;                           // of head at inject_point; 0: equal
    bool swap;                           // A' is base
};

static int draw(void *ctx, size_t point, int first, double ns[2], int *failed, char *why)
{
    struct drawn *d = ctx;
    (void)first; (void)failed; (void)why;        // who began was decided when it was measured
    int level = point == d->inject_point ? d->level : 0;
    const double *t = cell(d->p, d->start + d->calls[point]++, point, level);
    bool swap = d->swap && !level;
    ns[0] = t[swap];
    ns[1] = t[!swap];
    return 0;
}
static double no_clock(void *ctx) { (void)ctx; return 0; }

static void count_verdicts(const struct guard_point *pt, size_t n, int level, size_t inject_point,
                           struct tally *t)
{
    bool alarm = false, doubt = false;
    for (size_t i = 0; i < n; i++) {
        bool there = level && i == inject_point;
        doubt |= pt[i].word == GUARD_INCONCLUSIVE;
        if (there) t->found += pt[i].word == GUARD_SLOWER;
        else alarm |= pt[i].word == GUARD_SLOWER || pt[i].word == GUARD_FASTER;
    }
    t->trials++;
    t->false_alarms += alarm;
    t->doubtful += doubt;
}

static int draw_all(const struct args *a, const struct pool *p, struct report *rep)
{
    struct guard_opts o = a->o;
    size_t n = p->points;
    struct guard_point *pt = calloc(n, sizeof *pt);
    size_t *calls = calloc(n, sizeof *calls);
    int rc = pt && calls ? 0 : hb_fail(HB_ERR_OOM, "no memory for %zu points", n);
    double round_s = 2 * p->pair_s * (double)n;
    o.rounds = rep->rounds = guard_rounds_for(GUARD_FIRST_SHARE * o.budget_s, round_s);
    size_t block = 4 * (size_t)o.rounds;         // cycles: two pairs a round, both stages
    if (!rc && p->cycles < block)
        rc = hb_fail(HB_ERR_INPUT, "the pool has %zu cycles, a comparison of %d rounds needs %zu: "
                                   "--cycles", p->cycles, o.rounds, block);
    uint64_t at = 0;
    for (int level = 0; level < LEVELS && !rc; level++) {
        int64_t trials = level ? a->injected : a->comparisons;
        for (int64_t k = 0; k < trials && !rc; k++, at++) {
            struct drawn d = { .p = p, .calls = calls, .level = level,
                               .inject_point = (size_t)k % n,
                               .start = hb_rng_below((uint64_t)a->seed, 1, at,
                                                     p->cycles - block + 1),
                               .swap = hb_rng_below((uint64_t)a->seed, 2, at, 2) };
            struct guard_source src = { .take = draw, .now_s = no_clock, .ctx = &d };
            int rounds;
            memset(calls, 0, n * sizeof *calls);
            memset(pt, 0, n * sizeof *pt);
            o.seed = at + 1;
            rc = guard_paired(&src, pt, n, &o, &rounds);
            count_verdicts(pt, n, level, d.inject_point, &rep->drawn[level]);
            guard_points_free(pt, n);
        }
    }
    free(pt);
    free(calls);
    return rc;
}

// --- live ----------------------------------------------------------------------------------------

static int live(const struct args *a, struct guard_live *g, struct report *rep)
{
    struct guard_point *pt = calloc(g->n_paired + 1, sizeof *pt);
    int rc = pt ? 0 : hb_fail(HB_ERR_OOM, "no memory for %zu points", g->n_paired);
    for (int level = 0; level < LEVELS && !rc; level++) {
        int64_t trials = level ? a->live_injected : a->live;
        for (int64_t k = 0; k < trials && !rc; k++) {
            struct guard_source src = guard_live_source(g);
            int rounds;
            g->inject = level_of[level];
            g->inject_point = (size_t)k % g->n_paired;
            memset(pt, 0, g->n_paired * sizeof *pt);
            rc = guard_paired(&src, pt, g->n_paired, &a->o, &rounds);
            if (!rc) count_verdicts(pt, g->n_paired, level, g->inject_point, &rep->live[level]);
            guard_points_free(pt, g->n_paired);
            hb_progress_end();
            fprintf(stderr, "live, %g %%: %d of %d found, %d false alarms\n",
                    100 * level_of[level], rep->live[level].found, rep->live[level].trials,
                    rep->live[level].false_alarms);
        }
    }
    g->inject = 0;
    free(pt);
    return rc;
}

static int exact(const struct args *a, struct guard_live *g, struct report *rep)
{
    size_t *all = g->exact, n = g->n_exact;
    int rc = 0;
    for (int64_t k = 0; k < a->exact && n && !rc; k++) {
        bool named[2] = { false, false };
        for (int inject = 0; inject < 2 && !rc; inject++) {
            struct guard_counts c;
            g->exact = all + (size_t)k % n;
            g->n_exact = 1;
            rc = guard_exact(g, inject, &c);
            for (size_t i = 0; i < c.n; i++)
                named[inject] |= inject ? !strcmp(c.row[i].metric, "instructions")
                                              && c.row[i].verdict == COUNT_WORSE
                                        : c.row[i].verdict != COUNT_SAME;
            bool counted = c.valgrind;
            guard_counts_free(&c);
            if (!rc && !counted)
                rc = hb_fail(HB_ERR_MISSING, "valgrind is not installed (--exact 0 does without)");
        }
        rep->exact_trials++;
        rep->exact_false += named[0];
        rep->exact_found += named[1];
    }
    g->exact = all;
    g->n_exact = n;
    return rc;
}

// --- the table -----------------------------------------------------------------------------------

static void table_rows(struct hb_table *t, const char *how, const struct tally *tally)
{
    for (int level = 0; level < LEVELS; level++) {
        const struct tally *x = &tally[level];
        if (!x->trials) continue;
        hb_table_cell(t, "%s", how);
        if (!level) hb_table_cell(t, "equal builds");
        else hb_table_cell(t, "one point %g %% slower", 100 * level_of[level]);
        hb_table_cell(t, "%d", x->trials);
        if (!level) hb_table_cell(t, "-");
        else hb_table_cell(t, "%d", x->found);
        hb_table_cell(t, "%d", x->false_alarms);
        hb_table_cell(t, "%d", x->doubtful);
    }
}

static int write_tables(const struct args *a, const struct report *r, const struct pool *p)
{
    struct hb_text out = { 0 };
    struct hb_table t = { 0 };
    hb_text_add(&out, "## hyena-bench selftest on %s\n\n%zu points, budget of a comparison %g s.",
                hb_machine_id(), p->points, a->o.budget_s);
    if (p->cycles)
        hb_text_add(&out, " Pool: %zu cycles, %.2f s a pair of processes, %d rounds a "
                    "comparison.", p->cycles, p->pair_s, r->rounds);
    hb_text_add(&out, "\n\n");
    hb_table_head(&t, "comparisons|of|>number|>found|>with a false alarm|"
                      ">with an inconclusive point");
    table_rows(&t, "drawn from the pool", r->drawn);
    table_rows(&t, "live", r->live);
    if (!hb_table_empty(&t)) hb_table_print(&t, &out);
    hb_table_free(&t);
    if (r->exact_trials)
        hb_text_add(&out, "\nExact tier: one added instruction per element found in %d of %d; "
                          "equal builds differed in %d of %d.\n", r->exact_found, r->exact_trials,
                    r->exact_false, r->exact_trials);
    int rc = hb_text_done(&out);
    if (!rc && a->markdown) rc = hb_write_file(a->markdown, out.s, out.n);
    if (!rc && fputs(out.s, stdout) < 0) rc = hb_fail(HB_ERR_RUN, "cannot write to stdout");
    hb_text_free(&out);
    return rc;
}

static int write_json(const struct args *a, const struct report *r, const struct pool *p)
{
    json_t *rows = json_array();
    const struct { const char *how; const struct tally *t; } parts[] = { { "pool", r->drawn },
                                                                         { "live", r->live } };
    for (int k = 0; k < 2; k++)
        for (int level = 0; level < LEVELS; level++) {
            const struct tally *t = &parts[k].t[level];
            if (t->trials)
                json_array_append_new(rows, json_pack("{s:s,s:f,s:i,s:i,s:i,s:i}", "how",
                                                      parts[k].how, "slowdown", level_of[level],
                                                      "comparisons", t->trials, "found", t->found,
                                                      "false_alarms", t->false_alarms,
                                                      "inconclusive", t->doubtful));
        }
    json_t *doc = json_pack("{s:s,s:o,s:I,s:I,s:i,s:f,s:f,s:o,s:{s:i,s:i,s:i}}", "schema",
                            "hyena-bench selftest 1", "context", hb_context_json(), "points",
                            (json_int_t)p->points, "cycles", (json_int_t)p->cycles, "rounds",
                            r->rounds, "budget_s", a->o.budget_s, "pair_s", p->pair_s,
                            "comparisons", rows, "exact", "trials", r->exact_trials, "found",
                            r->exact_found, "false", r->exact_false);
    if (!doc) return hb_fail(HB_ERR_OOM, "no memory for the table");
    int rc = a->json ? hb_json_save(a->json, doc) : 0;
    json_decref(doc);
    return rc;
}

static int selftest(const struct args *a)
{
    static struct guard_live g;
    struct report rep = { 0 };
    struct pool p = { 0 };
    char sweep[4300];
    int rc = hb_host_init(0, 0);
    const char *build = a->build ? a->build : guard_own_build();
    snprintf(sweep, sizeof sweep, "%s%s", a->sweep ? a->sweep : hb_root_dir(),
             a->sweep ? "" : "/bench/sweeps/guard.json");
    if (!rc) rc = hb_registry_load();
    if (!rc) rc = guard_live_open(build, build, sweep, &g);
    struct guard_point *pt = calloc(g.n_paired + 1, sizeof *pt);
    if (!rc && !pt) rc = hb_fail(HB_ERR_OOM, "no memory for %zu points", g.n_paired);
    if (!rc) rc = guard_live_prepare(&g, pt, true);
    for (size_t i = 0; i < g.n_paired && !rc; i++)
        if (pt[i].left_out)
            rc = hb_fail(HB_ERR_INPUT, "%s: %s", g.s.items[g.paired[i]].name, pt[i].why);
    bool kept = a->pool && access(a->pool, R_OK) == 0;
    if (!rc && a->cycles) rc = kept ? pool_load(a->pool, g.n_paired, &p)
                                    : pool_measure(&g, (size_t)a->cycles, &p);
    hb_progress_end();
    if (!rc && a->cycles && a->pool && !kept) rc = pool_save(&p, a->pool);
    if (!rc && a->cycles) rc = draw_all(a, &p, &rep);
    if (!rc && a->exact) rc = exact(a, &g, &rep);
    if (!rc) rc = live(a, &g, &rep);
    p.points = g.n_paired;
    if (!rc) rc = write_tables(a, &rep, &p);
    if (!rc) rc = write_json(a, &rep, &p);
    free(p.ns);
    free(pt);
    guard_live_close(&g);
    return rc;
}

int hb_cmd_selftest(int argc, char **argv)
{
    struct args a = { .cycles = 100, .comparisons = 200, .injected = 20, .exact = 20, .seed = 1,
                      .o = guard_defaults };
    const struct hb_opt opts[] = {
        { "cycles", HB_OPT_INT, &a.cycles, "N",
          "length of the pool (100: a quarter of an hour); 0: no pool", 0, 100000 },
        { "pool", HB_OPT_STR, &a.pool, "FILE", "the pool's raw times: used if there, else written",
          0, 0 },
        { "comparisons", HB_OPT_INT, &a.comparisons, "N", "of equal builds, drawn (200)", 0, 1e6 },
        { "injected", HB_OPT_INT, &a.injected, "N", "per slowdown, drawn (20)", 0, 1e6 },
        { "live", HB_OPT_INT, &a.live, "N", "of equal builds, live, a minute each (0)", 0, 1e4 },
        { "live-injected", HB_OPT_INT, &a.live_injected, "N", "per slowdown, live (0)", 0, 1e4 },
        { "exact", HB_OPT_INT, &a.exact, "N", "trials of the exact tier (20)", 0, 1e4 },
        { "budget-s", HB_OPT_DOUBLE, &a.o.budget_s, "S", "of one comparison (60)", 1, 1e6 },
        { "sweep", HB_OPT_STR, &a.sweep, "FILE", "points (bench/sweeps/guard.json)", 0, 0 },
        { "build", HB_OPT_STR, &a.build, "DIR", "build folder; default this program's own", 0, 0 },
        { "seed", HB_OPT_INT, &a.seed, "N", "of what is drawn (1)", 0, 9007199254740992.0 },
        { "json", HB_OPT_STR, &a.json, "FILE", "write the numbers", 0, 0 },
        { "markdown", HB_OPT_STR, &a.markdown, "FILE", "write the table (also printed)", 0, 0 },
    };
    const struct hb_cli cli = {
        .command = "selftest", .args = "",
        .about = "Measures how often compare alarms for nothing on this machine, and how small a "
                 "slowdown it finds.",
        .example = "hyena-bench selftest --pool build/guard/pool.json",
        .opts = opts, .n_opts = sizeof opts / sizeof *opts,
    };
    int n_pos = 0, rc = hb_cli_parse(&cli, argc, argv, NULL, &n_pos);
    if (rc == HB_CLI_HELP) return 0;
    if (!rc) rc = selftest(&a);
    return rc ? hb_exit_code("selftest", rc) : 0;
}
