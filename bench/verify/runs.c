// runs.c: the rules `parity` and `accuracy`: what trained models say.
//
//     parity    a, b      patterns ("H", "A"); data: a list of data sets, L (absent: any);
//                         min_params, min_seeds, min_budgets (of training tokens, all else equal):
//                         what it takes to decide.
//                         Value: perplexity of a over that of b, runs of one seed paired, equal
//                         data, tokens, length, width, depth and held-out tokens; where a seed has
//                         several runs of a model the best counts, on both sides
//     accuracy  pattern, data, L, D, layers, vocab, train (examples): the runs; min_tokens (of
//                         training), min_seeds. Value: the lowest accuracy of them
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
    struct { int64_t seed; double a, b; } ppl[MAX_SEEDS];
    size_t n;
};

static bool main_run(const struct hb_lm_run *r, const char *pattern)
{
    return r->ok && !strcmp(r->model, pattern) && !*r->control && !strcmp(r->purpose, "main") &&
           isfinite(r->ppl) && r->L > 0 && !r->stopped_early;
}

static int64_t layers_of(const struct hb_lm_run *r)
{
    return json_integer_value(json_object_get(r->cell->entry, "hb_layers"));
}

// Runs that differ only in how long they were trained, and in what is inside the model.
static bool same_family(const struct hb_lm_run *a, const struct hb_lm_run *b)
{
    return !strcmp(a->machine, b->machine) && !strcmp(a->dataset, b->dataset) &&
           !strcmp(a->tokenizer, b->tokenizer) && !strcmp(a->dtype, b->dtype) && a->L == b->L &&
           a->D == b->D && layers_of(a) == layers_of(b) && a->eval_tokens == b->eval_tokens;
}

static bool same_budget(const struct hb_lm_run *a, const struct hb_lm_run *b)
{
    return same_family(a, b) && a->train_tokens == b->train_tokens;
}

static const struct hb_lm_run *best_run(const struct hb_lm_set *lm, const char *pattern,
                                        const struct hb_lm_run *like)
{
    const struct hb_lm_run *best = NULL;
    for (size_t i = 0; i < lm->n; i++) {
        const struct hb_lm_run *r = &lm->run[i];
        if (main_run(r, pattern) && same_budget(r, like) && r->seed == like->seed &&
            (!best || r->ppl < best->ppl))
            best = r;
    }
    return best;
}

static size_t groups_of(const struct hb_lm_set *lm, const json_t *check, const char *pa,
                        const char *pb, struct group *g)
{
    const json_t *data = json_object_get(check, "data"), *L = json_object_get(check, "L");
    size_t n = 0;
    for (size_t i = 0; i < lm->n; i++) {
        const struct hb_lm_run *r = &lm->run[i], *a, *b;
        if (!main_run(r, pa) || !named_in(data, r->dataset) || (L && json_integer_value(L) != r->L))
            continue;
        a = best_run(lm, pa, r);
        b = best_run(lm, pb, r);
        if (a != r || !b) continue;                // every seed once
        size_t k = 0;
        while (k < n && !same_budget(g[k].a, a)) k++;
        if (k == n && n == MAX_GROUPS) continue;
        if (k == n) g[n++] = (struct group){.a = a, .b = b};
        if (g[k].n == MAX_SEEDS) continue;
        g[k].ppl[g[k].n].seed = a->seed;
        g[k].ppl[g[k].n].a = a->ppl;
        g[k].ppl[g[k].n++].b = b->ppl;
    }
    return n;
}

static struct hb_ratio group_ratio(const struct group *g)
{
    double x[MAX_SEEDS], mean = 0, var = 0;
    for (size_t i = 0; i < g->n; i++) {
        x[i] = log(g->ppl[i].a / g->ppl[i].b);
        mean += x[i] / (double)g->n;
    }
    for (size_t i = 0; i < g->n; i++) var += (x[i] - mean) * (x[i] - mean) / (double)(g->n - 1);
    const double h = g->n > 1 ? hb_t975((double)(g->n - 1)) * sqrt(var / (double)g->n) : INFINITY;
    return (struct hb_ratio){exp(mean), {exp(mean - h), exp(mean + h)}};
}

static const char *full_name(const char *pattern)
{
    return !strcmp(pattern, "H") ? "Hyena" : !strcmp(pattern, "A") ? "attention" : pattern;
}

static void say_group(const struct group *g, struct hb_outcome *out)
{
    const struct hb_ratio q = group_ratio(g);
    out->value = q.r;
    out->ci = q.ci95;
    out->machine = g->a->machine;
    snprintf(out->ours, sizeof out->ours,
             "perplexity of %s over that of %s: %s%s (%s, L %lld, %s %s of training, %s and %s "
             "parameters, %zu seed%s)", full_name(g->a->model), full_name(g->b->model),
             g->n > 1 ? hb_str_ratio(q).s : hb_str_num(q.r).s,
             g->n > 1 ? "" : ", no interval from one seed", g->a->dataset, (long long)g->a->L,
             count(g->a->train_tokens).s, strcmp(g->a->tokenizer, "bytes") ? "tokens" : "bytes",
             count((double)g->a->params).s, count((double)g->b->params).s, g->n,
             g->n > 1 ? "s" : "");
}

// How many budgets the deciding groups of one family have: the most of any family.
static size_t budgets_of(const struct group *const *g, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        size_t mine = 0;
        for (size_t k = 0; k < n; k++) mine += same_family(g[i]->a, g[k]->a);
        most = mine > most ? mine : most;
    }
    return most;
}

// All that have the seeds and the size decide; of others the one with the largest models is shown.
static int judge_groups(const json_t *check, const struct group *g, size_t n,
                        struct hb_outcome *out)
{
    const double params = number_or(check, "min_params", 0),
                 seeds = number_or(check, "min_seeds", 3), budgets = number_or(check, "min_budgets",
                                                                               1);
    const struct group *shown = NULL, *largest = &g[0], *deciding[MAX_GROUPS];
    size_t n_deciding = 0;
    for (size_t i = 0; i < n; i++) {
        const struct hb_ratio q = group_ratio(&g[i]);
        if (g[i].a->params > largest->a->params ||
            (g[i].a->params == largest->a->params && g[i].n > largest->n))
            largest = &g[i];
        if ((double)g[i].n < seeds || (double)g[i].a->params < params) continue;
        const char *v = hb_judge(check, q.r, q.ci95), *both[2] = {out->verdict, v};
        if (!v) return HB_ERR_INPUT;
        const char *worse = n_deciding ? hb_verdict_join(both, 2, HB_JOIN_ALL) : v;
        if (!n_deciding || worse != out->verdict) shown = &g[i];
        out->verdict = worse;
        deciding[n_deciding++] = &g[i];
    }
    const size_t have = budgets_of(deciding, n_deciding);
    say_group(shown ? shown : largest, out);
    if ((double)have >= budgets) return 0;
    out->verdict = HB_NOT_MEASURED;
    snprintf(out->why, sizeof out->why, "budgets with at least %.0f seeds and %s parameters: %zu; "
                                        "the rule asks for %.0f",
             seeds, count(params).s, have, budgets);
    return 0;
}

int hb_rule_parity(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    static struct group g[MAX_GROUPS];
    const char *a = json_string_value(json_object_get(check, "a")),
               *b = json_string_value(json_object_get(check, "b"));
    if (!a || !b) return hb_fail(HB_ERR_INPUT, "rule parity: patterns \"a\" and \"b\"");
    const size_t n = groups_of(&e->lm, check, a, b, g);
    snprintf(out->bound, sizeof out->bound, "none known for text");
    if (!n) {
        hb_outcome_none(out, "no runs of %s and %s with equal data, tokens, length and seed",
                        full_name(a), full_name(b));
        return 0;
    }
    const int rc = judge_groups(check, g, n, out);
    for (size_t i = 0; i < e->lm.n; i++)
        for (size_t k = 0; k < n; k++)
            if (same_budget(&e->lm.run[i], g[k].a))
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
           fits(check, "train", number_or(config, "recall_train", 0)) &&
           r->train_tokens >= number_or(check, "min_tokens", 0) && !r->stopped_early;
}

int hb_rule_accuracy(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    const double seeds = number_or(check, "min_seeds", 3);
    const struct hb_lm_run *worst = NULL;
    int64_t seed[MAX_SEEDS];
    double low = INFINITY;
    size_t n = 0;
    for (size_t i = 0; i < e->lm.n; i++) {
        const struct hb_lm_run *r = &e->lm.run[i];
        const double acc = number_or(r->cell->entry, "hb_accuracy", NAN);
        if (!asked_run(check, r) || isnan(acc)) continue;
        size_t k = 0;
        while (k < n && seed[k] != r->seed) k++;
        if (k == n && n < MAX_SEEDS) seed[n++] = r->seed;
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
    snprintf(out->ours, sizeof out->ours, "%s right: %.3f [%.3f, %.3f] (L %lld, D %lld, vocabulary "
                                          "%.0f, %.0f examples; the lowest of %zu seed%s)",
             full_name(worst->model), low, out->ci.lo, out->ci.hi, (long long)worst->L,
             (long long)worst->D, number_or(entry, "hb_vocab", NAN), worst->eval_tokens, n,
             n > 1 ? "s" : "");
    snprintf(out->bound, sizeof out->bound, "1; guessing a value %.3g, the commonest value of the "
                                            "prompt %.3g",
             number_or(entry, "hb_chance_uniform", NAN),
             number_or(entry, "hb_chance_frequent", NAN));
    if ((double)n < seeds) {
        out->verdict = HB_NOT_MEASURED;
        snprintf(out->why, sizeof out->why, "%zu seed%s, the rule asks for %.0f", n,
                 n > 1 ? "s" : "", seeds);
    }
    return 0;
}
