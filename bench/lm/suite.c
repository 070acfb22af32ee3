// suite.c: reading a list of runs and making them one by one, each in a process of its own.
#include "suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../child.h"
#include "../cli.h"
#include "../record.h"
#include "loop.h"

enum { MAX_JOBS = 10000 };

// --- reading -------------------------------------------------------------------------------------

static int add_job(struct hb_lm_jobs *jobs, const struct hb_lm_config *c, int priority,
                   const char *where)
{
    if (jobs->n == jobs->cap) {
        int cap = jobs->cap ? 2 * jobs->cap : 32;
        struct hb_lm_job *more =
            cap <= MAX_JOBS ? realloc(jobs->job, (size_t)cap * sizeof *more) : NULL;
        if (!more)
            return hb_fail(HB_ERR_INPUT, "%s: the lists expand to more than %d runs", where,
                           jobs->n);
        jobs->job = more;
        jobs->cap = cap;
    }
    struct hb_lm_job *j = &jobs->job[jobs->n];
    j->priority = priority;
    j->c = *c;
    hb_lm_name(c, j->name, sizeof j->name);
    for (int i = 0; i < jobs->n; i++)
        if (!strcmp(jobs->job[i].name, j->name))
            return hb_fail(HB_ERR_INPUT, "%s: two runs are named %s", where, j->name);
    jobs->n++;
    return 0;
}

struct expansion {
    struct hb_lm_jobs *jobs;
    const char *const *words; int n_words;
    int priority;
    char where[4096 + 64];
};

// All runs of `obj` from its key `it` on, on top of c; the key `priority` is no key of the
// configuration.
static int expand(const struct expansion *x, json_t *obj, void *it, const struct hb_lm_config *c)
{
    while (it && !strcmp(json_object_iter_key(it), "priority"))
        it = json_object_iter_next(obj, it);
    struct hb_lm_config mine = *c;
    int rc = 0;
    if (!it) {
        for (int i = 0; !rc && i < x->n_words; i++)
            rc = hb_lm_config_word(&mine, x->words[i]);
        if (!rc)
            rc = hb_lm_config_finish(&mine);
        return rc ? rc : add_job(x->jobs, &mine, x->priority, x->where);
    }
    json_t *v = json_object_iter_value(it);
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n == 0)
        return hb_fail(HB_ERR_INPUT, "%s: %s is an empty list", x->where, json_object_iter_key(it));
    for (size_t i = 0; !rc && i < n; i++) {
        json_t *one = json_pack("{s:O}", json_object_iter_key(it),
                                json_is_array(v) ? json_array_get(v, i) : v);
        if (!one)
            return hb_fail(HB_ERR_OOM, "%s: no memory", x->where);
        rc = hb_lm_config_json(&mine, one, x->where);
        json_decref(one);
        if (!rc)
            rc = expand(x, obj, json_object_iter_next(obj, it), &mine);
    }
    return rc;
}

static int read_run(struct expansion *x, json_t *run, const struct hb_lm_config *defaults)
{
    const json_t *p = json_object_get(run, "priority");
    if (!json_is_object(run))
        return hb_fail(HB_ERR_INPUT, "%s: expected an object", x->where);
    if (!json_is_integer(p) || json_integer_value(p) < 0 || json_integer_value(p) > 1000)
        return hb_fail(HB_ERR_INPUT, "%s: priority must be an integer of 0..1000", x->where);
    x->priority = (int)json_integer_value(p);
    return expand(x, run, json_object_iter(run), defaults);
}

static int read_suite(json_t *doc, const char *path, struct expansion *x)
{
    const char *key, *about = NULL;
    json_t *v, *defaults = NULL, *runs = NULL;
    if (!json_is_object(doc))
        return hb_fail(HB_ERR_INPUT, "%s: expected an object with about, defaults and runs", path);
    json_object_foreach(doc, key, v)
        if (strcmp(key, "about") && strcmp(key, "defaults") && strcmp(key, "runs"))
            return hb_fail(
                HB_ERR_INPUT, "%s: unknown key '%.60s'; a suite has about, defaults, runs%s", path,
                key,
                hb_lm_key_known(key)
                    ? " (this looks like the configuration of one run: leave out --suite)"
                    : "");
    json_error_t e;
    if (json_unpack_ex(doc, &e, 0, "{s?s, s?o, s:o}", "about", &about, "defaults", &defaults,
                       "runs", &runs))
        return hb_fail(HB_ERR_INPUT, "%s: %s", path, e.text);
    if (!json_is_array(runs) || json_array_size(runs) == 0)
        return hb_fail(HB_ERR_INPUT, "%s: runs must be a list with at least one run", path);
    struct hb_lm_config c;
    hb_lm_config_default(&c);
    snprintf(x->where, sizeof x->where, "%s: defaults", path);
    int rc = defaults ? hb_lm_config_json(&c, defaults, x->where) : 0;
    for (size_t i = 0; !rc && i < json_array_size(runs); i++) {
        snprintf(x->where, sizeof x->where, "%s: runs[%zu]", path, i);
        rc = read_run(x, json_array_get(runs, i), &c);
    }
    return rc;
}

// Insertion sort: stable, and the lists are short.
static void sort_jobs(struct hb_lm_jobs *jobs)
{
    for (int i = 1; i < jobs->n; i++) {
        const struct hb_lm_job j = jobs->job[i];
        int k = i;
        for (; k > 0 && jobs->job[k - 1].priority > j.priority; k--)
            jobs->job[k] = jobs->job[k - 1];
        jobs->job[k] = j;
    }
}

int hb_lm_suite_read(const char *path, const char *const *words, int n_words,
                     struct hb_lm_jobs *out)
{
    *out = (struct hb_lm_jobs){0};
    json_t *doc = hb_json_load(path);
    if (!doc)
        return HB_ERR_INPUT;
    struct expansion x = {.jobs = out, .words = words, .n_words = n_words};
    int rc = read_suite(doc, path, &x);
    json_decref(doc);
    if (rc)
        hb_lm_suite_free(out);
    else
        sort_jobs(out);
    return rc;
}

void hb_lm_suite_free(struct hb_lm_jobs *jobs)
{
    free(jobs->job);
    *jobs = (struct hb_lm_jobs){0};
}

void hb_lm_suite_print(const struct hb_lm_jobs *jobs)
{
    double tokens = 0.0;
    for (int i = 0; i < jobs->n; i++) {
        const struct hb_lm_config *c = &jobs->job[i].c;
        printf("%d  %s  (%lld steps)\n", jobs->job[i].priority, jobs->job[i].name,
               hb_lm_is_counts(c) ? 0LL : (long long)hb_lm_steps(c));
        tokens += hb_lm_is_counts(c) ? 0.0 : (double)c->tokens;
    }
    printf("%d runs, %.1f million tokens\n", jobs->n, 1e-6 * tokens);
}

// --- making the runs -----------------------------------------------------------------------------

struct work {
    const struct hb_lm_jobs *jobs;
    struct hb_run *run;              // owned
    double *spent;                   // (n) seconds of each finished run, NAN before; owned
    double budget_s;                 // 0: none
    int64_t started_ns;
    int dropped, failed;
};

static double since(int64_t t0) { return 1e-9 * (double)(hb_now_ns() - t0); }

// How alike two runs are in what a token costs; 0: not at all.
static int likeness(const struct hb_lm_config *a, const struct hb_lm_config *b)
{
    char x[3 * HB_LM_WORD], y[3 * HB_LM_WORD];
    hb_lm_impl(a, x, sizeof x);
    hb_lm_impl(b, y, sizeof y);
    if (hb_lm_is_counts(a) != hb_lm_is_counts(b))
        return 0;
    return 1 + 2 * (a->D == b->D && a->layers == b->layers) + 4 * !strcmp(x, y) + (a->L == b->L) +
           (a->data[0] == b->data[0]);
}

// Seconds that run i will take by the most similar one done so far; NAN: nothing is known.
static double predict(const struct work *w, int i)
{
    const struct hb_lm_config *c = &w->jobs->job[i].c;
    double per_token = NAN;
    int best = 0;
    for (int k = 0; k < w->jobs->n; k++) {
        const int like = isfinite(w->spent[k]) ? likeness(c, &w->jobs->job[k].c) : 0;
        if (like > best) {
            best = like;
            per_token = w->spent[k] / (double)w->jobs->job[k].c.tokens;
        }
    }
    return per_token * (double)c->tokens;
}

// Of everything that is left, at most the budget; -1: nothing is known yet.
static double time_left(const struct work *w, int from)
{
    double s = 0.0;
    bool known = false;
    for (int i = from; i < w->jobs->n; i++) {
        const double p = hb_run_has(w->run, w->jobs->job[i].name) ? 0.0 : predict(w, i);
        if (isfinite(p)) {
            s += p;
            known = true;
        }
    }
    if (!known)
        return -1.0;
    return w->budget_s > 0.0 ? fmin(s, fmax(0.0, w->budget_s - since(w->started_ns))) : s;
}

static int add_doc(struct work *w, const struct hb_lm_job *j, const char *list, json_t *entry)
{
    json_t *doc = entry ? json_pack("{s:[o]}", list, entry) : NULL;
    if (!doc)
        return hb_fail(HB_ERR_OOM, "no memory for the record of %s", j->name);
    int rc = hb_run_add(w->run, j->name, doc);
    json_decref(doc);
    return rc;
}

static void say(const struct hb_lm_job *j, const json_t *e, double seconds)
{
    char impl[3 * HB_LM_WORD];
    hb_lm_impl(&j->c, impl, sizeof impl);
    const json_t *excess = json_object_get(e, "hb_excess");
    printf("%-26s %-7s L %-5lld seed %lld  %.4f nats, perplexity %.3f", impl, j->c.data,
           (long long)j->c.L, (long long)j->c.seed,
           json_real_value(json_object_get(e, "hb_nll_nats")),
           json_real_value(json_object_get(e, "hb_ppl")));
    if (excess)
        printf(", %+.1f %% of the source", 100.0 * json_real_value(excess));
    if (!hb_lm_is_counts(&j->c))
        printf(", %.0f tokens/s", json_real_value(json_object_get(e, "hb_tokens_per_s")));
    printf(", %.1f s\n", seconds);
    fflush(stdout);
}

// One child; what became of it goes into the run.
static int make_one(struct work *w, int i)
{
    const struct hb_lm_job *j = &w->jobs->job[i];
    static char command[] = "train", flag[] = "--child";
    char *const argv[] = {command, command, flag, NULL};
    const struct hb_child_limits lim = {
        .time_s = w->budget_s > 0.0 ? w->budget_s - since(w->started_ns) : 0.0,
        .mem_bytes = hb_default_mem_limit()};
    json_t *config = hb_lm_config_to_json(&j->c);
    json_t *request =
        config ? json_pack("{s:o,s:I}", "config", config, "mem_bytes", (json_int_t)lim.mem_bytes)
               : NULL;
    struct hb_child_result res;
    int rc = request ? hb_child_run(argv, request, &lim, &res)
                     : hb_fail(HB_ERR_OOM, "no memory for a request");
    json_decref(request);
    if (rc)
        return rc;
    json_t *entry = json_object_get(res.reply, "entry");
    if (!strcmp(res.status, "interrupted")) {                    // it stays pending
        hb_progress_end();
    } else if (!strcmp(res.status, "ok") && entry) {
        w->spent[i] = res.elapsed_s;
        hb_progress_end();
        say(j, entry, res.elapsed_s);
        rc = add_doc(w, j, "benchmarks", json_incref(entry));
    } else {
        const bool late = !strcmp(res.status, "timeout");
        hb_progress_end();
        printf("%s: %s: %s\n", j->name, late ? "dropped" : res.status, res.detail);
        w->dropped += late;
        w->failed += !strcmp(res.status, "crashed");
        rc = add_doc(w, j, "hb_skips",
                     hb_lm_skip(&j->c, late ? "dropped" : res.status,
                                late ? "the time budget ended while it ran" : res.detail));
    }
    json_decref(res.reply);
    return rc;
}

static int drop(struct work *w, int i, double need, double have)
{
    char detail[128];
    if (have > 0.0)
        snprintf(detail, sizeof detail, "the time budget: %.0f s were left, about %.0f s needed",
                 have, need);
    else
        snprintf(detail, sizeof detail, "the time budget was spent");
    w->dropped++;
    return add_doc(w, &w->jobs->job[i], "hb_skips",
                   hb_lm_skip(&w->jobs->job[i].c, "dropped", detail));
}

static int make_all(struct work *w)
{
    int rc = 0;
    for (int i = 0; !rc && i < w->jobs->n && !hb_interrupted(); i++) {
        if (hb_run_has(w->run, w->jobs->job[i].name))
            continue;
        const double left = w->budget_s > 0.0 ? w->budget_s - since(w->started_ns) : INFINITY,
                     need = predict(w, i);
        hb_progress(w->jobs->job[i].name, (size_t)i, (size_t)w->jobs->n, time_left(w, i));
        // Unknown costs are tried: the child is stopped when the budget ends.
        rc = left <= 0.0 || need > left ? drop(w, i, need, left) : make_one(w, i);
    }
    hb_progress_end();
    return rc;
}

static json_t *plan_of(const struct hb_lm_jobs *jobs, const char *path, double budget_s)
{
    char sum[65];
    json_t *names = json_array();
    for (int i = 0; i < jobs->n; i++)
        if (json_array_append_new(names, json_string(jobs->job[i].name)) < 0) {
            json_decref(names);
            return NULL;
        }
    char *all = names ? json_dumps(names, JSON_COMPACT) : NULL;
    json_decref(names);
    if (!all)
        return NULL;
    hb_sha256(all, strlen(all), sum);
    free(all);
    return json_pack("{s:s,s:s,s:s,s:f}", "kind", "train", "suite", path, "config_sha256", sum,
                     "budget_s", budget_s);
}

// Writes the file. An interrupted run keeps its folder: it can be resumed.
static int finish(const struct work *w, const char *path, int *answer)
{
    char file[4096];
    const bool cut = hb_interrupted();
    *answer = cut ? 4 : w->failed ? 1 : 0;
    int rc = cut ? hb_run_snapshot(w->run, file) : hb_run_assemble(w->run, file);
    if (rc)
        return rc;
    printf("%d runs, %d dropped, %d crashed, %.0f s: %s\n", w->jobs->n, w->dropped, w->failed,
           since(w->started_ns), file);
    if (cut)
        printf("interrupted; 'hyena-bench train --suite %s --resume' continues it\n", path);
    return 0;
}

int hb_lm_suite_run(const struct hb_lm_jobs *jobs, const char *path, double budget_s, bool resume,
                    int *answer)
{
    struct work w = {.jobs = jobs, .budget_s = budget_s, .started_ns = hb_now_ns()};
    w.spent = malloc((size_t)jobs->n * sizeof *w.spent);
    json_t *plan = plan_of(jobs, path, budget_s);
    int rc = w.spent && plan ? 0 : hb_fail(HB_ERR_OOM, "no memory for a suite");
    if (!rc)
        rc = hb_run_open(NULL, resume, plan, &w.run);
    for (int i = 0; w.spent && i < jobs->n; i++)
        w.spent[i] = NAN;
    if (!rc)
        rc = make_all(&w);
    if (!rc)
        rc = finish(&w, path, answer);
    if (w.run)
        hb_run_close(w.run);
    json_decref(plan);
    free(w.spent);
    return rc;
}
