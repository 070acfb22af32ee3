// checkpoint.c: a training run between two steps (contract: checkpoint.h).
#include "checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../safetensors.h"

static const char *const prefix[HB_LM_FLAT_COUNT] = {"", "m/", "v/"};
enum { NAME = 96, EVAL_COLUMNS = 3, RUN_TENSORS = 3 };

// --- writing -------------------------------------------------------------------------------------

struct writing {
    struct hb_st_tensor *t; int n;       // (HB_LM_FLAT_COUNT rows + RUN_TENSORS), owned
    char (*name)[NAME];                  // of the tensors, owned
    float *flat[HB_LM_FLAT_COUNT];       // owned
    double *eval;                        // (n_eval, 3), owned
};

static void add_rows(struct writing *w, const struct hb_lm_table *tab, enum hb_lm_flat which)
{
    for (int i = 0; i < tab->n; i++, w->n++) {
        const struct hb_lm_row *row = &tab->row[i];
        struct hb_st_tensor *t = &w->t[w->n];
        snprintf(w->name[w->n], NAME, "%s%s", prefix[which], row->t.name);
        *t = (struct hb_st_tensor){.name = w->name[w->n], .rank = row->t.rank, .n = row->n,
                                   .data = w->flat[which] + row->at};
        memcpy(t->shape, row->t.shape, sizeof row->t.shape);
    }
}

static void add_run(struct writing *w, const char *name, const double *x, int64_t n,
                    int64_t columns)
{
    w->t[w->n++] = (struct hb_st_tensor){.name = name, .rank = columns > 1 ? 2 : 1,
                                         .shape = {n, columns}, .n = n * columns, .f64 = true,
                                         .data = x};
}

static int fill(struct writing *w, struct hb_lm *m, const struct hb_lm_result *r, int64_t step)
{
    const struct hb_lm_table *tab = hb_lm_table_of(m);
    const size_t n = (size_t)tab->n * HB_LM_FLAT_COUNT + RUN_TENSORS;
    w->t = calloc(n, sizeof *w->t);
    w->name = calloc(n, sizeof *w->name);
    w->eval = malloc((size_t)(r->n_eval + 1) * EVAL_COLUMNS * sizeof *w->eval);
    int rc = w->t && w->name && w->eval ? 0 : HB_ERR_OOM;
    for (int k = 0; !rc && k < HB_LM_FLAT_COUNT; k++) {
        w->flat[k] = malloc((size_t)tab->floats * sizeof *w->flat[k]);
        rc = w->flat[k] ? hb_lm_flat_get(m, (enum hb_lm_flat)k, w->flat[k]) : HB_ERR_OOM;
        if (!rc)
            add_rows(w, tab, (enum hb_lm_flat)k);
    }
    if (rc)
        return hb_fail(rc, "no memory for a checkpoint of %lld parameters", (long long)tab->params);
    for (int64_t i = 0; i < r->n_eval; i++) {
        w->eval[EVAL_COLUMNS * i] = (double)r->eval[i].step;
        w->eval[EVAL_COLUMNS * i + 1] = r->eval[i].seconds;
        w->eval[EVAL_COLUMNS * i + 2] = r->eval[i].nats;
    }
    add_run(w, "run/loss", r->loss, step, 1);
    add_run(w, "run/step_ns", r->step_ns, step, 1);
    add_run(w, "run/eval", w->eval, r->n_eval, EVAL_COLUMNS);
    return 0;
}

static json_t *metadata(const struct hb_lm_config *c, const struct hb_lm_result *r, int64_t step)
{
    char number[32];
    snprintf(number, sizeof number, "%" PRId64, step);
    json_t *config = hb_lm_config_to_json(c), *meta = NULL;
    char *text = config ? json_dumps(config, JSON_COMPACT) : NULL;
    if (text)
        meta = json_pack("{s:s,s:s,s:s,s:s}", "format", "hyena-bench checkpoint 1", "step", number,
                         "config", text, "data_sha256", r->sha256);
    free(text);
    json_decref(config);
    return meta;
}

int hb_lm_checkpoint_write(const char *path, const struct hb_lm_config *c, struct hb_lm *m,
                           const struct hb_lm_result *r, int64_t step)
{
    struct writing w = {0};
    json_t *meta = metadata(c, r, step);
    int rc = meta ? fill(&w, m, r, step) : hb_fail(HB_ERR_OOM, "%s: out of memory", path);
    if (!rc)
        rc = hb_st_write_meta(path, w.t, w.n, meta);
    for (int k = 0; k < HB_LM_FLAT_COUNT; k++)
        free(w.flat[k]);
    free(w.t);
    free(w.name);
    free(w.eval);
    json_decref(meta);
    return rc;
}

// --- reading -------------------------------------------------------------------------------------

// Keys that may differ: they do not decide the parameters, or only by rounding.
static bool may_differ(const char *key)
{
    static const char *const keys[] = {"eval_tokens", "test_data", "purpose", "minutes", "planning",
                                       "threads"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(keys[i], key))
            return true;
    return false;
}

static const size_t SHORT = JSON_ENCODE_ANY | JSON_REAL_PRECISION(9);

static int compare(const char *path, json_t *was, json_t *is)
{
    const char *key;
    json_t *now;
    json_object_foreach(is, key, now) {
        const json_t *then = json_object_get(was, key);
        if (may_differ(key) || (then && json_equal(then, now)))
            continue;
        char *a = then ? json_dumps(then, SHORT) : NULL,
             *b = json_dumps(now, SHORT);
        int rc = hb_fail(HB_ERR_INPUT, "%s was trained with %s %s, this run has %s", path, key,
                         a ? a : "unset", b ? b : "another");
        free(a);
        free(b);
        return rc;
    }
    return 0;
}

static int check(const struct hb_st *st, const struct hb_lm_config *c, const struct hb_lm_result *r,
                 int64_t *step)
{
    const char *config = hb_st_meta(st, "config"), *number = hb_st_meta(st, "step"),
               *sum = hb_st_meta(st, "data_sha256");
    if (!config || !number || !sum)
        return hb_fail(HB_ERR_INPUT, "%s is not a checkpoint: it has no step, config and "
                       "data_sha256", st->path);
    json_t *was = json_loads(config, 0, NULL), *is = hb_lm_config_to_json(c);
    int rc = was && is ? compare(st->path, was, is)
                       : hb_fail(HB_ERR_INPUT, "%s: its config is not readable", st->path);
    json_decref(was);
    json_decref(is);
    if (rc)
        return rc;
    if (strcmp(sum, r->sha256))
        return hb_fail(HB_ERR_INPUT, "%s was trained on other data: sha256 %.16s..., here %.16s...",
                       st->path, sum, r->sha256);
    char *end;
    *step = strtoll(number, &end, 10);
    if (*end || end == number || *step < 0 || *step > r->steps)
        return hb_fail(HB_ERR_INPUT, "%s: step is '%.30s', expected 0..%lld", st->path, number,
                       (long long)r->steps);
    return 0;
}

static int read_rows(const struct hb_st *st, struct hb_lm *m, enum hb_lm_flat which)
{
    const struct hb_lm_table *tab = hb_lm_table_of(m);
    float *flat = calloc((size_t)tab->floats, sizeof *flat);
    int rc = flat ? 0 : hb_fail(HB_ERR_OOM, "%s: out of memory", st->path);
    for (int i = 0; !rc && i < tab->n; i++) {
        char name[NAME];
        snprintf(name, sizeof name, "%s%s", prefix[which], tab->row[i].t.name);
        const struct hb_st_tensor *t = hb_st_find(st, name);
        if (!t || t->n != tab->row[i].n)
            rc = hb_fail(HB_ERR_INPUT, "%s: tensor '%s' %s", st->path, name,
                         t ? "has another size" : "is missing");
        else
            rc = hb_st_load(st, t, flat + tab->row[i].at);
    }
    if (!rc)
        rc = hb_lm_flat_set(m, which, flat);
    free(flat);
    return rc;
}

// n doubles of a "run/..." tensor into out; n < 0: as many as there are, at most cap.
static int read_run(const struct hb_st *st, const char *name, int64_t n, int64_t cap, double *out,
                    int64_t *got)
{
    const struct hb_st_tensor *t = hb_st_find(st, name);
    if (!t || !t->f64 || t->n > cap || (n >= 0 && t->n != n))
        return hb_fail(HB_ERR_INPUT, "%s: tensor '%s' is missing or not as long as the run",
                       st->path, name);
    if (t->n)
        memcpy(out, t->data, (size_t)t->n * sizeof *out);
    *got = t->n;
    return 0;
}

static int read_evals(const struct hb_st *st, const struct hb_lm_config *c, struct hb_lm_result *r)
{
    const int64_t cap = (c->evals + 1) * EVAL_COLUMNS;
    double *x = malloc((size_t)cap * sizeof *x);
    int64_t n = 0;
    int rc = x ? read_run(st, "run/eval", -1, cap, x, &n)
               : hb_fail(HB_ERR_OOM, "%s: out of memory", st->path);
    for (int64_t i = 0; !rc && i < n / EVAL_COLUMNS; i++) {
        const double *e = x + EVAL_COLUMNS * i;
        r->eval[r->n_eval++] = (struct hb_lm_eval){(int64_t)e[0], e[1], e[2]};
        r->valid_nats = e[2];
    }
    free(x);
    return rc;
}

int hb_lm_checkpoint_read(const char *path, const struct hb_lm_config *c, struct hb_lm *m,
                          struct hb_lm_result *r, int64_t *step)
{
    struct hb_st st;
    int64_t got;
    int rc = hb_st_read(path, &st);
    if (rc)
        return rc;
    rc = check(&st, c, r, step);
    for (int k = 0; !rc && k < HB_LM_FLAT_COUNT; k++)
        rc = read_rows(&st, m, (enum hb_lm_flat)k);
    if (!rc)
        rc = read_run(&st, "run/loss", *step, *step, r->loss, &got);
    if (!rc)
        rc = read_run(&st, "run/step_ns", *step, *step, r->step_ns, &got);
    if (!rc)
        rc = read_evals(&st, c, r);
    for (int64_t s = 0; !rc && s < *step; s++)
        r->train_s += 1e-9 * r->step_ns[s];
    hb_st_free(&st);
    return rc;
}
