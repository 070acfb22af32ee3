// runs.c: the rules `parity` and `accuracy`: what trained models say.
//
//     parity    a, b      patterns ("H", "A"); data: a list of data sets (absent: any);
//                         min_params, min_seeds, min_budgets (of training tokens): what it takes
//                         to decide.
//                         Value: perplexity of a over that of b, runs of one seed paired, equal
//                         data, tokens, length, width and held-out tokens
//     accuracy  pattern, data, L, D, layers, vocab, train (examples): the runs; min_seeds.
//                         Value: the lowest accuracy of them
// Interval  parity: Student's t over the seeds' log ratios; one seed has none. Accuracy: Wilson's
//           95 % of the test examples.
// Bound     accuracy: all right; beside it what guessing gives.
#include <math.h>
#include <string.h>

#include "judge.h"

enum { MAX_SEEDS = 64, MAX_GROUPS = 128 };

static bool named_in(const json_t *list, const char *word)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_array_get(list, i)), word)) return true;
    return !list;
}

static double number_or(const json_t *o, const char *key, double otherwise)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

struct words { char s[32]; };
// 921600, 25.2M
static struct words count(double n)
{
    struct words w;
    if (n >= 1e6) snprintf(w.s, sizeof w.s, "%.3gM", n / 1e6);
    else snprintf(w.s, sizeof w.s, "%.0f", n);
    return w;
}

// --- parity --------------------------------------------------------------------------------------

struct group {                       // a and b at one budget
    const struct hb_lm_run *a, *b;   // of the first seed
    double log_ratio[MAX_SEEDS];
    size_t n;
};

static bool main_run(const struct hb_lm_run *r, const char *pattern)
{
    return r->ok && !strcmp(r->model, pattern) && !*r->control && !strcmp(r->purpose, "main") &&
           isfinite(r->ppl) && r->L > 0;
}

static bool same_budget(const struct hb_lm_run *a, const struct hb_lm_run *b)
{
    return !strcmp(a->machine, b->machine) && !strcmp(a->dataset, b->dataset) &&
           !strcmp(a->tokenizer, b->tokenizer) && !strcmp(a->dtype, b->dtype) && a->L == b->L &&
           a->D == b->D && a->train_tokens == b->train_tokens && a->eval_tokens == b->eval_tokens;
}

static size_t groups_of(const struct hb_lm_set *lm, const char *pa, const char *pb,
                        const json_t *data, struct group *g)
{
    size_t n = 0;
    for (size_t i = 0; i < lm->n; i++) {
        const struct hb_lm_run *a = &lm->run[i], *b = NULL;
        if (!main_run(a, pa) || !named_in(data, a->dataset)) continue;
        for (size_t k = 0; k < lm->n && !b; k++)
            if (main_run(&lm->run[k], pb) && same_budget(a, &lm->run[k]) &&
                lm->run[k].seed == a->seed)
                b = &lm->run[k];
        if (!b) continue;
        size_t k = 0;
        while (k < n && (!same_budget(g[k].a, a) || strcmp(g[k].a->impl, a->impl))) k++;
        if (k == n && n == MAX_GROUPS) continue;
        if (k == n) g[n++] = (struct group){.a = a, .b = b};
        if (g[k].n < MAX_SEEDS) g[k].log_ratio[g[k].n++] = log(a->ppl / b->ppl);
    }
    return n;
}

static struct hb_ratio group_ratio(const struct group *g)
{
    double mean = 0, var = 0;
    for (size_t i = 0; i < g->n; i++) mean += g->log_ratio[i] / (double)g->n;
    for (size_t i = 0; i < g->n; i++)
        var += (g->log_ratio[i] - mean) * (g->log_ratio[i] - mean) / (double)(g->n - 1);
    const double h = g->n > 1 ? hb_t975((double)(g->n - 1)) * sqrt(var / (double)g->n) : INFINITY;
    return (struct hb_ratio){exp(mean), {exp(mean - h), exp(mean + h)}};
}

static void say_group(const struct group *g, struct hb_outcome *out)
{
    const struct hb_ratio q = group_ratio(g);
    out->value = q.r;
    out->ci = q.ci95;
    out->machine = g->a->machine;
    snprintf(out->ours, sizeof out->ours,
             "%s over %s: %s%s (%s, L %lld, %s tokens, %s parameters, %zu seed%s)", g->a->model,
             g->b->model, g->n > 1 ? hb_str_ratio(q).s : hb_str_num(q.r).s,
             g->n > 1 ? "" : ", no interval from one seed", g->a->dataset, (long long)g->a->L,
             count(g->a->train_tokens).s, count((double)g->a->params).s, g->n,
             g->n > 1 ? "s" : "");
}

// The budgets that decide come first; of the others the one with the largest models is shown.
static int judge_groups(const json_t *check, const struct group *g, size_t n,
                        struct hb_outcome *out)
{
    const double params = number_or(check, "min_params", 0),
                 seeds = number_or(check, "min_seeds", 3), budgets = number_or(check, "min_budgets",
                                                                               1);
    const struct group *shown = NULL, *largest = &g[0];
    double tokens[MAX_GROUPS];
    size_t deciding = 0, distinct = 0;
    for (size_t i = 0; i < n; i++) {
        if (g[i].a->params > largest->a->params ||
            (g[i].a->params == largest->a->params && g[i].n > largest->n))
            largest = &g[i];
        if ((double)g[i].n < seeds || (double)g[i].a->params < params) continue;
        const struct hb_ratio q = group_ratio(&g[i]);
        const char *v = hb_judge(check, q.r, q.ci95), *both[2] = {out->verdict, v};
        if (!v) return HB_ERR_INPUT;
        const char *worse = deciding ? hb_verdict_join(both, 2, true) : v;
        if (!deciding++ || worse != out->verdict) shown = &g[i];
        out->verdict = worse;
        size_t k = 0;
        while (k < distinct && tokens[k] != g[i].a->train_tokens) k++;
        if (k == distinct) tokens[distinct++] = g[i].a->train_tokens;
    }
    say_group(shown ? shown : largest, out);
    if ((double)distinct >= budgets) return 0;
    out->verdict = HB_INCONCLUSIVE;
    snprintf(out->why, sizeof out->why, "%zu budget%s with at least %.0f seeds and %s parameters; "
                                        "the rule asks for %.0f",
             distinct, distinct == 1 ? "" : "s", seeds, count(params).s, budgets);
    return 0;
}

int hb_rule_parity(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    static struct group g[MAX_GROUPS];
    const char *a = json_string_value(json_object_get(check, "a")),
               *b = json_string_value(json_object_get(check, "b"));
    if (!a || !b) return hb_fail(HB_ERR_INPUT, "rule parity: patterns \"a\" and \"b\"");
    const size_t n = groups_of(&e->lm, a, b, json_object_get(check, "data"), g);
    snprintf(out->bound, sizeof out->bound, "none known for text");
    if (!n) {
        hb_outcome_none(out, "no runs of %s and %s with equal data, tokens, length and seed", a, b);
        return 0;
    }
    const int rc = judge_groups(check, g, n, out);
    for (size_t i = 0; i < e->lm.n; i++)
        if (same_budget(&e->lm.run[i], g[0].a) || !strcmp(e->lm.run[i].machine, out->machine))
            hb_outcome_file(out, e->lm.run[i].cell->file);
    return rc;
}

// --- accuracy ------------------------------------------------------------------------------------

static struct hb_interval wilson(double p, double n)
{
    const double z = 1.96, c = p + z * z / (2 * n), d = 1 + z * z / n,
                 h = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    return (struct hb_interval){(c - h) / d, (c + h) / d};
}

// A key that the check does not name fits everything.
static bool fits(const json_t *check, const char *key, double value)
{
    const json_t *v = json_object_get(check, key);
    return !v || json_number_value(v) == value;
}

static bool asked_run(const json_t *check, const struct hb_lm_run *r)
{
    const json_t *config = json_object_get(r->cell->entry, "hb_config");
    const char *pattern = json_string_value(json_object_get(check, "pattern")),
               *data = json_string_value(json_object_get(check, "data"));
    return r->ok && pattern && !strcmp(r->model, pattern) && data && !strcmp(r->dataset, data) &&
           fits(check, "L", (double)r->L) && fits(check, "D", (double)r->D) &&
           fits(check, "layers", number_or(config, "layers", 0)) &&
           fits(check, "vocab", number_or(config, "recall_vocab", 0)) &&
           fits(check, "train", number_or(config, "recall_train", 0));
}

int hb_rule_accuracy(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    const double seeds = number_or(check, "min_seeds", 3);
    const struct hb_lm_run *worst = NULL;
    double low = INFINITY;
    size_t n = 0;
    for (size_t i = 0; i < e->lm.n; i++) {
        const struct hb_lm_run *r = &e->lm.run[i];
        const double acc = number_or(r->cell->entry, "hb_accuracy", NAN);
        if (!asked_run(check, r) || isnan(acc)) continue;
        n++;
        hb_outcome_file(out, r->cell->file);
        if (acc < low) {
            low = acc;
            worst = r;
        }
    }
    if (!worst) {
        hb_outcome_none(out, "no such run");
        return 0;
    }
    const json_t *entry = worst->cell->entry;
    out->value = low;
    out->ci = wilson(low, worst->eval_tokens);
    out->machine = worst->machine;
    snprintf(out->ours, sizeof out->ours, "%s of %s: %.3f [%.3f, %.3f] (L %lld, D %lld, vocabulary "
                                          "%.0f, %.0f examples; the lowest of %zu seed%s)",
             worst->model, worst->dataset, low, out->ci.lo, out->ci.hi, (long long)worst->L,
             (long long)worst->D, number_or(entry, "hb_vocab", NAN), worst->eval_tokens, n,
             n > 1 ? "s" : "");
    snprintf(out->bound, sizeof out->bound, "1; guessing a value %.3g, the commonest value of the "
                                            "prompt %.3g",
             number_or(entry, "hb_chance_uniform", NAN),
             number_or(entry, "hb_chance_frequent", NAN));
    if ((double)n < seeds) {
        out->verdict = HB_INCONCLUSIVE;
        snprintf(out->why, sizeof out->why, "%zu seed%s, the rule asks for %.0f", n,
                 n > 1 ? "s" : "", seeds);
    }
    return 0;
}
