// gbcmd.c: the command `gbench`: Google Benchmark's own command line over our points, for people
// and scripts that know it (filters, repetitions, JSON, compare.py on two outputs).
//
// Runs in this one process, so a crash or lack of memory ends it: `run` and `sweep` are the
// harness, this is a view. A point is judged before its first time, as everywhere. Plans and inputs
// live from a point's first run to the next point's first run: Google Benchmark calls the body with
// 1, 10, 100 ... iterations, and repeats it. Cold points: only the executions count for
// --benchmark_min_time, so the flushing makes such a run long. The library's "built as DEBUG"
// warning is about Debian's build of it; nothing of it is inside our timer.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "choose/choose.h"
#include "cli.h"
#include "commands.h"
#include "gbench.h"
#include "sample.h"
#include "sweep.h"

#define FLAG "--benchmark_"

struct entry {
    struct hb_point pt;
    char name[HB_POINT_NAME_MAX];
    const struct hb_impl *impl;      // borrowed from the registry
    void *st;                        // owned while live
    struct hb_inputs in;             // owned while live
    bool live, judged;
    double peak_bytes;
    char why[512];                   // text of a failure
};
struct list { struct entry *e; size_t n, cap; };     // e owned

static struct entry *live_entry;     // the one whose plan and inputs exist

// --- one point -----------------------------------------------------------------------------------

static void let_go(struct entry *e)
{
    if (e->st) e->impl->destroy(e->st);
    e->st = NULL;
    if (e->live) hb_inputs_free(&e->in);
    e->live = false;
    if (live_entry == e) live_entry = NULL;
}

static int judge(struct entry *e)
{
    static struct hb_check_result res;               // 40 KiB: too much for a stack
    char cache[4500];
    snprintf(cache, sizeof cache, "%s/judged", hb_machine_dir());
    const struct hb_check_opts o = { .input = HB_IN_NORMAL,
                                     .backward = e->pt.p.backward,
                                     .judge_flop = HB_JUDGE_FLOP,
                                     .cache_dir = cache };
    int rc = hb_check_point(&e->pt, &o, &res);
    if (rc == 0 && !res.ok) rc = hb_fail(HB_ERR_RUN, "wrong: %s", res.detail);
    e->judged = rc == 0;
    return rc;
}

static int prepare(struct entry *e)
{
    int rc = e->judged ? 0 : judge(e);
    if (rc != 0) return rc;
    hb_host_reset_peak();
    if ((rc = hb_inputs_make(&e->pt, e->impl, HB_IN_NORMAL, &e->in)) != 0) return rc;
    e->live = true;
    live_entry = e;
    if ((rc = hb_inputs_upload(&e->in)) != 0) return rc;
    if ((rc = e->impl->plan(hb_host(), &e->pt.p, &e->st)) != 0) return rc;
    if (e->pt.p.filter == HB_FILTER_FIXED
        && (rc = e->impl->set_filter(e->st, e->in.io.conv.h)) != 0)
        return rc;
    rc = e->impl->forward(e->st, &e->in.io);         // warm; and backward follows a forward
    if (rc == 0 && e->pt.p.backward) rc = e->impl->backward(e->st, &e->in.io);
    return rc;
}

static int start(void *ctx)
{
    struct entry *e = ctx;
    if (e->live) return 0;
    if (live_entry) let_go(live_entry);
    int rc = prepare(e);
    e->peak_bytes = (double)hb_host_mem().peak;
    if (rc != 0) let_go(e);
    return rc;
}

static bool on_device(const struct hb_point *pt) { return strncmp(pt->device, "cpu", 3) != 0; }

// By the device's clock, launches included: this is a view, `run` has graphs.
static double iterate_there(struct entry *e)
{
    const struct hb_device *d = hb_host()->device;
    double s = -1;
    int rc = e->pt.mode == HB_MODE_COLD ? d->flush(d, d->stream) : 0;
    if (rc == 0) rc = d->mark(d, 0, d->stream);
    if (rc == 0 && e->pt.pass != HB_PASS_BWD) rc = e->impl->forward(e->st, &e->in.io);
    if (rc == 0 && e->pt.p.backward) rc = e->impl->backward(e->st, &e->in.io);
    if (rc == 0) rc = d->mark(d, 1, d->stream);
    if (rc == 0) rc = d->between(d, 0, 1, &s);
    return rc == 0 && s > 0 ? s : -1;
}

static double iterate(void *ctx)
{
    struct entry *e = ctx;
    int rc = 0;
    if (on_device(&e->pt)) return iterate_there(e);
    if (e->pt.mode == HB_MODE_COLD) hb_flush_cache(NULL);
    int64_t begin = hb_now_ns();
    if (e->pt.pass != HB_PASS_BWD) rc = e->impl->forward(e->st, &e->in.io);
    if (rc == 0 && e->pt.p.backward) rc = e->impl->backward(e->st, &e->in.io);
    int64_t ns = hb_now_ns() - begin;
    return rc == 0 ? 1e-9 * (double)(ns > 0 ? ns : 1) : -1;
}

static const char *failure(void *ctx)
{
    struct entry *e = ctx;
    snprintf(e->why, sizeof e->why, "%s", hb_error());
    hb_error_clear();
    return e->why;
}

static double peak_bytes(void *ctx) { return ((struct entry *)ctx)->peak_bytes; }

// --- which points --------------------------------------------------------------------------------

static int add(struct list *l, const struct hb_point *pt)
{
    if (l->n == l->cap) {
        size_t cap = 2 * l->cap + 16;
        struct entry *more = realloc(l->e, cap * sizeof *more);
        if (!more) return hb_fail(HB_ERR_OOM, "no memory for %zu points", cap);
        l->e = more;
        l->cap = cap;
    }
    struct entry *e = &l->e[l->n];
    *e = (struct entry){ .pt = *pt };
    int rc = hb_point_resolve(&e->pt);
    if (rc == 0) rc = hb_point_name(&e->pt, e->name, sizeof e->name);
    if (rc != 0) return rc;
    e->impl = hb_registry_find(e->pt.impl);
    if (!e->impl) return HB_ERR_INPUT;
    char *end = strstr(e->name, "/manual_time");     // Google Benchmark appends it again
    if (end) *end = '\0';
    if (!hb_point_refuses(&e->pt, e->impl)) l->n++;  // a refused point is left out: it has no time
    return 0;
}

static int add_names(struct list *l, const char *text)
{
    char *copy = strdup(text), *save = NULL;
    if (!copy) return hb_fail(HB_ERR_OOM, "no memory for the list of points");
    int rc = 0;
    for (char *name = strtok_r(copy, ",", &save); name && rc == 0;
         name = strtok_r(NULL, ",", &save)) {
        struct hb_point pt;
        rc = hb_point_parse(name, &pt);
        pt.seed = 1;
        if (rc == 0) rc = add(l, &pt);
    }
    free(copy);
    return rc;
}

static int add_sweep(struct list *l, const char *path)
{
    struct sweep s = { .path = path };
    int rc = hb_sweep_read(path, &s.file);
    if (rc == 0) rc = hb_sweep_expand(&s, NULL, NULL, 0);
    for (size_t i = 0; i < s.n && rc == 0; i++)
        if (s.items[i].n == 1) rc = add(l, &s.items[i].pt[0]);
    hb_sweep_free(&s.file);
    free(s.items);
    return rc;
}

// Every core at a few lengths, every operator once, small enough for minutes.
static int add_default(struct list *l, const char *name, enum hb_op op)
{
    static const int64_t lengths[] = { 256, 1024, 4096 };
    bool core = op == HB_LONGCONV || op == HB_ATTENTION;
    for (int i = 0; i < 3; i++) {
        struct hb_point pt = { .device = "cpu0",
                               .p = { .dtype = HB_F32,
                                      .B = 1,
                                      .L = lengths[i],
                                      .D = 64,
                                      .threads = hb_host()->threads,
                                      .planning = HB_PLAN_ESTIMATE },
                               .seed = 1 };
        if (!core && lengths[i] != 1024) continue;
        snprintf(pt.impl, sizeof pt.impl, "%s", name);
        pt.p.H = op == HB_ATTENTION || op == HB_MHA ? 1 : 0;
        int rc = add(l, &pt);
        if (rc != 0) return rc;
    }
    return 0;
}

static int add_defaults(struct list *l)
{
    int rc = 0;
    for (int i = 0; i < hb_registry_count() && rc == 0; i++) {
        const struct hb_impl *impl = hb_registry_at(i)->impl;
        if (!impl || strcmp(impl->device, "cpu") != 0 || impl->op == HB_HYENA || impl->op == HB_MHA
            || hb_is_auto(impl->name))
            continue;
        char composed[2 * HB_NAME_MAX];
        enum hb_op outer = impl->op == HB_LONGCONV ? HB_HYENA : HB_MHA;
        rc = add_default(l, impl->name, impl->op);
        snprintf(composed, sizeof composed, "%s:%s", hb_op_str(outer), impl->name);
        if (rc == 0 && hb_registry_find(composed)) rc = add_default(l, composed, outer);
        else if (rc == 0) hb_error_clear(); // the operator is not built: its cores still run
    }
    return rc;
}

static int make_list(struct list *l, const char *points)
{
    int rc = !points                   ? add_defaults(l)
             : strstr(points, "/dev:") ? add_names(l, points)
                                       : add_sweep(l, points);
    for (size_t i = 0; i < l->n && rc == 0; i++) {
        if (strcmp(l->e[i].pt.device, l->e[0].pt.device))
            rc = hb_fail(HB_ERR_INPUT, "points on %s and on %s: one device in one call",
                         l->e[0].pt.device, l->e[i].pt.device);
        else if (l->e[i].pt.mode == HB_MODE_COLD && !on_device(&l->e[i].pt))
            rc = hb_flush_cache_init();
    }
    if (rc == 0 && l->n) rc = hb_use_device(l->e[0].pt.device);
    if (rc == 0 && l->n == 0)
        rc = hb_fail(HB_ERR_MISSING, "no point that any implementation here does");
    return rc;
}

// --- the command ---------------------------------------------------------------------------------

static int run(struct list *l, int argc, char **argv)
{
    struct hb_gb_bench *b = calloc(l->n, sizeof *b);
    if (!b) return hb_fail(HB_ERR_OOM, "no memory for %zu points", l->n);
    for (size_t i = 0; i < l->n; i++) {
        struct entry *e = &l->e[i];
        b[i] = (struct hb_gb_bench){ .name = e->name,
                                     .start = start,
                                     .iter = iterate,
                                     .error = failure,
                                     .ctx = e,
                                     .items = (double)e->pt.p.B * (double)e->pt.p.L,
                                     .bytes = hb_point_work(&e->pt).bytes_min,
                                     .peak_bytes = peak_bytes };
    }
    size_t failed = 0;
    int gb = hb_gb_main(&argc, argv, b, l->n, &failed);
    free(b);
    if (live_entry) let_go(live_entry);
    if (gb == -1)
        return hb_fail(HB_ERR_INPUT, "'%s': not an option of this Google Benchmark", argv[1]);
    if (gb == -3)
        return hb_fail(HB_ERR_INPUT,
                       "--benchmark_filter: no point matches, or it is no regular expression");
    if (gb != 0) return hb_fail(HB_ERR_RUN, "Google Benchmark failed");
    return failed ? hb_fail(HB_ERR_RUN, "%zu runs failed", failed) : 0;
}

// Values that make the library print its usage or end the process; here they get a message and an
// exit code.
static int check_flags(int n, char **theirs)
{
    static const struct { const char *flag, *values; } rows[] = {
        { FLAG "format=", " console json csv " },
        { FLAG "out_format=", " console json csv " },
        { FLAG "time_unit=", " ns us ms s " },
        { FLAG "color=", " auto true false yes no on off 1 0 " },
    };
    for (int i = 1; i < n; i++) {
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            char word[32];
            size_t len = strlen(rows[k].flag);
            if (strncmp(theirs[i], rows[k].flag, len) != 0) continue;
            int m = snprintf(word, sizeof word, " %s ", theirs[i] + len);
            if (m <= 2 || m >= (int)sizeof word || !strstr(rows[k].values, word))
                return hb_fail(HB_ERR_INPUT, "'%.100s': one of%sexpected", theirs[i],
                               rows[k].values);
        }
        if (strncmp(theirs[i], FLAG "out=", strlen(FLAG "out=")) == 0) {
            const char *path = theirs[i] + strlen(FLAG "out=");
            FILE *f = *path ? fopen(path, "ae") : NULL;
            if (*path && !f) return hb_fail(HB_ERR_INPUT, "%s: %s", path, strerror(errno));
            if (f) fclose(f);
        }
    }
    return 0;
}

// Splits argv: ours to ours[0..*n_ours), Google Benchmark's to theirs[0..*n_theirs); both begin
// with the name.
static void split(int argc, char **argv, char **ours, int *n_ours, char **theirs, int *n_theirs)
{
    static char name[] = "hyena-bench";
    *n_ours = *n_theirs = 0;
    ours[(*n_ours)++] = argv[0];
    theirs[(*n_theirs)++] = name;
    for (int i = 1; i < argc; i++) {
        bool flag = strncmp(argv[i], FLAG, strlen(FLAG)) == 0;
        if (flag) theirs[(*n_theirs)++] = argv[i]; else ours[(*n_ours)++] = argv[i];
    }
    ours[*n_ours] = theirs[*n_theirs] = NULL;
}

int hb_cmd_gbench(int argc, char **argv)
{
    const char *points = NULL;
    const struct hb_opt opts[] = {
        { "points", HB_OPT_STR, &points, "FILE|NAME,...",
          "a sweep file, or names of points; default a small list", 0, 0 },
    };
    const struct hb_cli cli = {
        .command = "gbench",
        .args = "[--points X] [--benchmark_...]",
        .about = "Google Benchmark's own command line over the points (its options begin with "
                 "--benchmark_).",
        .example = "hyena-bench gbench --benchmark_filter=longconv_fftw/ --benchmark_repetitions=9 "
                   "--benchmark_format=json",
        .opts = opts,
        .n_opts = 1,
    };
    char **args = calloc(2 * ((size_t)argc + 2), sizeof *args),
         **theirs = args ? args + argc + 2 : NULL;
    if (!args) return hb_exit_code("gbench", hb_fail(HB_ERR_OOM, "no memory for the arguments"));
    int n_ours = 0, n_theirs = 0, n_pos = 0;
    split(argc, argv, args, &n_ours, theirs, &n_theirs);
    int rc = hb_cli_parse(&cli, n_ours, args, NULL, &n_pos);
    struct list l = { 0 };
    if (rc == 0) rc = check_flags(n_theirs, theirs);
    if (rc == 0) rc = hb_host_init(0, hb_default_mem_limit());
    if (rc == 0) rc = hb_registry_load();
    if (rc == 0) rc = make_list(&l, points);
    if (rc == 0) rc = run(&l, n_theirs, theirs);
    free(l.e);
    free(args);
    return rc == HB_CLI_HELP ? 0 : hb_exit_code("gbench", rc);
}
