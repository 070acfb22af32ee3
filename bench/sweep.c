// sweep.c: the command `sweep`: many points, one after another, each in its own child process.
//
// Order     planning step (sweep_plan.c), then the points by priority and length; pairs
//           and refinements in their priority's place. Every answer is on the disk before the next
//           point starts.
// Dropped   a point whose predicted time does not fit into what is left of --budget-s, or far
//           exceeds its own limit, is not measured; it becomes a row `dropped` with its predicted
//           cost. What is cheap to refuse is tried all the same: out of memory is an answer that a
//           child gives at once.
// Ends      SIGINT: what is measured is written as a result file and the run stays open for
//           --resume. SIGKILL: the point in flight is lost, its child dies with us.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "commands.h"
#include "sweep.h"

struct args {
    const char *glob, *lengths, *out;
    bool refine, resume, dry_run;
    double budget_s;
};
struct job {
    struct sweep s;
    struct hb_run *run;
    const struct args *a;
    json_t *planning;                // owned: {impl: seconds}
    uint64_t first_groups;           // of the first priority: their curve is still to be shown
};

#define PROBE_LIMIT_S    10.0        // of a child that is only to say out of memory or refused
#define ASSEMBLE_S       2.0         // kept of the budget for writing the result

static double now_s(void) { return (double)hb_now_ns() * 1e-9; }

double hb_sweep_left(const struct sweep *s)
{
    return s->budget_s > 0 ? s->budget_s - ASSEMBLE_S - (now_s() - s->t0_s) : INFINITY;
}

// --- progress ------------------------------------------------------------------------------------

void hb_sweep_progress(const struct sweep *s, const char *what)
{
    size_t done = 0, total = 0;
    for (size_t i = 0; i < s->n; i++) {
        total += s->items[i].n > 0;
        done += s->items[i].n > 0 && s->items[i].state != ITEM_PENDING;
    }
    hb_progress(what, done, total, fmin(hb_sweep_remaining(s), hb_sweep_left(s)));
}

static void label(const struct sweep_item *it, char *buf, size_t cap)
{
    const struct hb_point *p = it->pt;
    snprintf(buf, cap, "%.100s%s%.100s, L %lld, %s", p[0].impl, it->n == 2 ? " against " : "",
             it->n == 2 ? p[1].impl : "", (long long)p[0].p.L, hb_pass_str(p[0].pass));
}

// The curves of the groups of the first priority, as soon as all of their points have an answer.
static void show_first_curve(struct job *j)
{
    for (int g = 0; g < j->s.file.n_groups; g++) {
        bool open = false;
        if (!(j->first_groups >> g & 1)) continue;
        for (size_t i = 0; i < j->s.n; i++)
            open = open || (j->s.items[i].state == ITEM_PENDING && j->s.items[i].groups >> g & 1);
        if (open) continue;
        hb_progress_end();
        hb_sweep_print_curve(&j->s, g);
        j->first_groups &= ~((uint64_t)1 << g);
    }
}

static void find_first_groups(struct job *j)
{
    for (size_t i = 0; i < j->s.n; i++)
        for (int g = 0; g < j->s.file.n_groups; g++)
            if (j->s.items[i].state == ITEM_PENDING && j->s.items[i].groups >> g & 1
                && j->s.file.groups[g].set.priority == j->s.items[0].priority)
                j->first_groups |= (uint64_t)1 << g;
}

// --- one point -----------------------------------------------------------------------------------

static int drop(struct job *j, struct sweep_item *it, const char *why)
{
    json_t *row = hb_skip_row(it->pt, it->n, "dropped", why);
    if (!row)
        return hb_error_code() ? hb_error_code()
                               : hb_fail(HB_ERR_RUN, "out of memory for a record");
    it->state = ITEM_DROPPED;
    it->status = "dropped";
    json_object_set_new(row, "priority", json_integer(it->priority));
    json_object_set_new(row, "predicted_s", json_real(it->predicted_s));
    json_t *doc = json_pack("{s:[],s:[o],s:[]}", "benchmarks", "hb_skips", row, "hb_pairs");
    int rc = doc ? hb_run_add(j->run, it->name, doc)
                 : hb_fail(HB_ERR_RUN, "out of memory for a record");
    json_decref(doc);
    return rc;
}

static int keep(struct job *j, struct sweep_item *it, struct hb_measured *m)
{
    int rc = hb_run_add(j->run, it->name, m->doc);
    if (!rc) hb_sweep_learn(&j->s, it, m);
    json_decref(m->doc);
    if (!rc && (!strcmp(it->status, "wrong") || !strcmp(it->status, "crashed"))) {
        hb_progress_end();
        fprintf(stderr, "hyena-bench sweep: %s: %s: %s\n", it->name, m->status, m->detail);
    }
    return rc;
}

// What will not finish: out of memory and refused are answers all the same, and cheap.
// *answered: it is recorded.
static int probe(struct job *j, struct sweep_item *it, bool *answered)
{
    struct hb_measured m;
    struct hb_measure_opts o = it->opts;
    o.time_limit_s = fmin(PROBE_LIMIT_S, hb_sweep_left(&j->s));
    *answered = false;
    if (o.time_limit_s < 1) return 0;
    int rc = hb_probe(it->pt, it->n, &o, &m);
    if (rc) return rc;
    *answered = !strcmp(m.status, "oom") || !strcmp(m.status, "refused");
    if (*answered) return keep(j, it, &m);
    json_decref(m.doc);
    return 0;
}

static int measure(struct job *j, struct sweep_item *it)
{
    struct hb_measured m;
    struct hb_measure_opts o = it->opts;
    double left = hb_sweep_left(&j->s);
    bool cut = left < o.time_limit_s;
    char what[2 * HB_NAME_MAX + 64];
    label(it, what, sizeof what);
    hb_sweep_progress(&j->s, what);
    if (cut) o.time_limit_s = left;
    int rc = hb_measure(it->pt, it->n, &o, &m);
    if (rc) return rc;
    if (!strcmp(m.status, "interrupted")) {                   // it stays pending
        json_decref(m.doc);
        return 0;
    }
    if (cut && !strcmp(m.status, "timeout")) {
        json_decref(m.doc);
        return drop(j, it, "the sweep's time was over before it was done");
    }
    return keep(j, it, &m);
}

static int process(struct job *j, struct sweep_item *it)
{
    char why[200];
    bool answered = false, hopeless = hb_sweep_hopeless(&j->s, it);
    double left = hb_sweep_left(&j->s);
    it->predicted_s = hb_sweep_predict(&j->s, it);
    bool late = it->predicted_s > left && it->predicted_s - left > 0.1 * it->predicted_s;
    if (!hopeless && !late) return measure(j, it);
    int rc = hopeless ? probe(j, it, &answered) : 0;
    if (rc || answered) return rc;
    if (hopeless)
        snprintf(why, sizeof why, "would take about %.0f s, its limit is %.0f s", it->predicted_s,
                 it->opts.time_limit_s);
    else
        snprintf(why, sizeof why, "would take about %.1f s, %.1f s of the sweep's time were left",
                 it->predicted_s, fmax(left, 0));
    return drop(j, it, why);
}

// Has this point been answered before this run was interrupted? Then only read it.
static bool restore(struct job *j, struct sweep_item *it)
{
    if (!hb_run_has(j->run, it->name)) return false;
    json_t *doc = hb_run_doc(j->run, it->name);
    bool there = doc && hb_sweep_restore(it, doc);
    json_decref(doc);
    return there;
}

// --- refinement ----------------------------------------------------------------------------------

static int refine_once(struct job *j, const struct sweep_refine *r, int64_t L)
{
    struct sweep *s = &j->s;
    int g = 0, index[2];
    while (strcmp(s->file.groups[g].id, r->group)) g++;   // the reader checked that it is there
    struct sweep_settings set = hb_sweep_refine_set(s, r);
    set.priority = r->priority;
    for (int k = 0; k < 2; k++) {
        struct hb_point pt;
        int rc = hb_sweep_point(&set, k ? r->b : r->a, L, hb_sweep_refine_pass(s, r), &pt);
        if (rc) return rc;
        index[k] = hb_sweep_add(s, &pt, 1, &set, g);
        if (index[k] < 0) return index[k];
    }
    for (int k = 0; k < 2; k++) {
        struct sweep_item *it = &s->items[index[k]];
        int rc = it->state != ITEM_PENDING || restore(j, it) ? 0 : process(j, it);
        if (rc) return rc;
    }
    return 0;
}

static int refine(struct job *j, size_t i)
{
    const struct sweep_refine *r = &j->s.file.refines[j->s.items[i].refine];
    int64_t last = 0;
    for (int64_t step = 0; step < r->steps && !hb_interrupted(); step++) {
        int64_t L = hb_sweep_refine_length(&j->s, r);
        if (!L || L == last) break;      // the same again: there was no time for it
        int rc = refine_once(j, r, L);
        if (rc) return rc;
        last = L;
    }
    if (!hb_interrupted()) j->s.items[i].state = ITEM_DONE;
    return 0;
}

// --- all of them ---------------------------------------------------------------------------------

static int measure_all(struct job *j)
{
    size_t base = j->s.n;            // refinements append points behind and answer them themselves
    for (size_t i = 0; i < base && !hb_interrupted(); i++) {
        struct sweep_item *it = &j->s.items[i];
        if (it->state != ITEM_PENDING) continue;
        int rc = it->refine >= 0 ? refine(j, i) : process(j, it);
        if (rc) return rc;
        show_first_curve(j);
    }
    hb_progress_end();
    return 0;
}

static json_t *plan_json(const struct job *j, const char *config)
{
    const struct sweep *s = &j->s;
    const char *slash = strrchr(s->path, '/');   // the folder is of no use elsewhere
    json_t *groups = json_array();
    for (int g = 0; g < s->file.n_groups; g++)
        json_array_append_new(groups, json_pack("{s:s,s:s}", "id", s->file.groups[g].id, "title",
                                                s->file.groups[g].title));
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:b,s:f,s:o,s:O}",
                     "sweep", s->file.name, "title", s->file.title,
                     "file", slash ? slash + 1 : s->path, "config_sha256", config, "interleave",
                     "implementations of one length in turn; pairs ABBA in one process",
                     "refine", s->refine, "budget_s", s->budget_s, "groups", groups,
                     "planning_s", j->planning);
}

// What makes two calls the same sweep: the file's text and what the options leave of it.
static void config_hash(const struct job *j, char hex[65])
{
    char text[1024];
    const struct args *a = j->a;
    int n = snprintf(text, sizeof text, "%s|%s|%s", j->s.file.sha256, a->glob ? a->glob : "",
                     a->lengths ? a->lengths : "");
    hb_sha256(text, n > 0 && (size_t)n < sizeof text ? (size_t)n : sizeof text - 1, hex);
}

static int open_run(struct job *j)
{
    char config[65];
    config_hash(j, config);
    json_t *plan = plan_json(j, config);
    int rc = plan ? hb_run_open(NULL, j->a->resume, plan, &j->run)
                  : hb_fail(HB_ERR_RUN, "out of memory for the plan");
    json_decref(plan);
    if (rc) return rc;
    size_t there = 0;
    for (size_t i = 0; i < j->s.n; i++) there += j->s.items[i].n && restore(j, &j->s.items[i]);
    if (there)
        fprintf(stderr, "hyena-bench sweep: continuing run %s: %zu of %zu points are there\n",
                hb_run_id(j->run), there, j->s.n);
    return 0;
}

static int copy_out(const struct job *j, const char *path)
{
    json_t *doc = j->a->out ? hb_json_load(path) : NULL;
    int rc = !j->a->out ? 0 : doc ? hb_json_save(j->a->out, doc) : HB_ERR_RUN;
    json_decref(doc);
    return rc;
}

static void print_how_to_resume(const struct job *j)
{
    const struct args *a = j->a;
    const char *q = strpbrk(j->s.path, " \t$&()*?;<>|\"\\`!") ? "'" : "";  // for the shell
    printf("interrupted; to continue:  hyena-bench sweep %s%s%s --resume%s", q, j->s.path, q,
           a->refine ? " --refine" : "");
    if (a->glob) printf(" --impl '%s'", a->glob);
    if (a->lengths) printf(" --lengths %s", a->lengths);
    printf("\n");
}

static bool anything(const struct sweep *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->items[i].status) return true;
    return false;
}

// Writes the file, shows it. *answer: 1 if something was wrong or crashed, 4 if it was interrupted.
static int finish(struct job *j, int *answer)
{
    char path[4096];
    bool cut = hb_interrupted();
    *answer = cut ? 4 : 0;
    if (cut && !anything(&j->s)) {
        printf("interrupted; nothing was measured\n");
        return 0;
    }
    int rc = cut ? hb_run_snapshot(j->run, path) : hb_run_assemble(j->run, path);
    if (!rc) rc = copy_out(j, path);
    if (!rc) rc = hb_sweep_print_tables(&j->s);
    if (rc) return rc;
    printf("%s\n", path);
    if (cut) print_how_to_resume(j);
    for (size_t i = 0; i < j->s.n; i++) {
        const char *st = j->s.items[i].status;
        if (!*answer && st && (!strcmp(st, "wrong") || !strcmp(st, "crashed"))) *answer = 1;
    }
    return 0;
}

static int sweep(struct job *j, int *answer)
{
    int64_t lengths[SWEEP_MAX_LENGTHS];
    int n_lengths = 0;
    int rc = hb_host_init(0, 0);
    if (!rc) rc = hb_registry_load();
    if (!rc && j->a->lengths)
        rc = hb_parse_lengths(j->a->lengths, lengths, SWEEP_MAX_LENGTHS, &n_lengths);
    if (!rc) rc = hb_sweep_read(j->s.path, &j->s.file);
    if (!rc) rc = hb_sweep_expand(&j->s, j->a->glob, lengths, n_lengths);
    if (rc) return rc;
    hb_sweep_sort(&j->s);
    if ((rc = hb_sweep_remember(&j->s)) != 0) return rc;
    if (j->a->dry_run) return hb_sweep_print_plan(&j->s);
    if (!(j->planning = json_object())) return hb_fail(HB_ERR_RUN, "out of memory for the plan");
    if ((rc = hb_sweep_plan(&j->s, j->planning)) != 0 || (rc = open_run(j)) != 0) return rc;
    find_first_groups(j);
    rc = measure_all(j);
    return rc ? rc : finish(j, answer);
}

int hb_cmd_sweep(int argc, char **argv)
{
    struct args a = { 0 };
    const struct hb_opt opts[] = {
        { "impl", HB_OPT_STR, &a.glob, "GLOB",
          "only implementations that match, e.g. 'hyena:*'", 0, 0 },
        { "lengths", HB_OPT_STR, &a.lengths, "LIST",
          "these lengths instead of the file's: 128..4096,3000", 0, 0 },
        { "refine", HB_OPT_FLAG, &a.refine, NULL,
          "measure more lengths near the file's crossovers", 0, 0 },
        { "resume", HB_OPT_FLAG, &a.resume, NULL,
          "continue the newest unfinished run of this file, if any", 0, 0 },
        { "dry-run", HB_OPT_FLAG, &a.dry_run, NULL,
          "print points and predicted minutes, measure nothing", 0, 0 },
        { "budget-s", HB_OPT_DOUBLE, &a.budget_s, "S",
          "drop points by priority so that it ends in time", 1, 1e7 },
        { "out", HB_OPT_STR, &a.out, "FILE", "a second copy of the result file", 0, 0 },
    };
    const struct hb_cli cli = {
        .command = "sweep", .args = "FILE",
        .about = "Measures the points of a sweep file, each in its own process.",
        .example = "hyena-bench sweep bench/sweeps/quick.json --refine --budget-s 270\n"
                   "hyena-bench sweep bench/sweeps/full.json --resume --impl 'hyena:*'",
        .opts = opts, .n_opts = sizeof opts / sizeof *opts, .min_pos = 1, .max_pos = 1,
    };
    const char *pos[1];
    int n_pos = 0, answer = 0;
    int rc = hb_cli_parse(&cli, argc, argv, pos, &n_pos);
    if (rc == HB_CLI_HELP) return 0;
    struct job j = { .a = &a };
    if (!rc) {
        j.s = (struct sweep){ .path = pos[0], .t0_s = now_s(), .budget_s = a.budget_s,
                              .sample_share = 1, .refine = a.refine };
        rc = sweep(&j, &answer);
    }
    hb_run_close(j.run);
    json_decref(j.planning);
    hb_sweep_free(&j.s.file);
    free(j.s.items);
    free(j.s.past);
    return rc ? hb_exit_code("sweep", rc) : answer;
}
