// report_lm.c: perplexity: per seed, controls, counts, equality of implementations, the Markov
// source's floor.
#include <math.h>
#include <string.h>

#include "report.h"

#define MAX_STEPS 4096

static bool here(const struct hb_lm_run *r, const char *machine)
{
    return r->ok && !strcmp(r->machine, machine);
}

static const char *what(const struct hb_lm_run *r) { return r->control[0] ? r->control : r->impl; }

// Over a group's seeds: seconds of the whole training, or of one token. NAN if one is not known.
static double median_of(const struct hb_lm_set *s, size_t from, size_t n, bool whole)
{
    double v[64];
    if (n > sizeof v / sizeof *v) n = sizeof v / sizeof *v;
    for (size_t i = 0; i < n; i++) {
        v[i] = whole ? s->run[from + i].seconds : s->run[from + i].token_s;
        if (!isfinite(v[i])) return NAN;
    }
    return hb_median(v, n);
}

// --- per seed ------------------------------------------------------------------------------------

static void seeds_table(struct hb_report *r, const char *machine, const struct hb_lm_budget *b)
{
    const struct hb_lm_set *s = &r->st->lm;
    struct hb_table t = {0};
    hb_table_head(&t, ">L|model|mixer|positions|>parameters|perplexity per seed|>mean [95 % over "
                      "seeds]|>training time (median)|>tokens/s (median)");
    for (size_t i = 0; i < s->n;) {
        const struct hb_lm_group g = hb_lm_group_at(s, i);
        const struct hb_lm_run *one = g.run;
        if (hb_lm_in(one, b)) {
            struct hb_text seeds = {0};
            for (size_t k = 0; k < g.n; k++)
                hb_text_add(&seeds, "%s%s", k ? ", " : "", hb_str_num(s->run[i + k].ppl).s);
            hb_table_cell(&t, "%lld", (long long)one->L);
            hb_table_cell(&t, "%s", one->model);
            hb_table_cell(&t, "%s", what(one));
            hb_table_cell(&t, "%s", one->positions[0] ? one->positions : "-");
            hb_table_cell(&t, "%lld", (long long)one->params);
            hb_table_cell(&t, "%s", seeds.s ? seeds.s : "-");
            if (g.n > 1) hb_table_cell(&t, "%s", hb_str_ratio((struct hb_ratio){g.ppl, g.ci95}).s);
            else hb_table_cell(&t, "%s (one seed)", hb_str_num(g.ppl).s);
            hb_table_cell(&t, "%s", hb_str_time(median_of(s, i, g.n, true) * 1e9).s);
            hb_table_cell(&t, "%s", hb_str_num(1 / median_of(s, i, g.n, false)).s);
            t.failed = t.failed || seeds.failed;
            hb_text_free(&seeds);
        }
        i += g.n;
    }
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *n = &s->run[i];
        if (!here(n, machine) || !hb_lm_ngram(n) || strcmp(n->dataset, b->dataset)) continue;
        hb_table_cell(&t, "-");
        hb_table_cell(&t, "%s", n->model);
        hb_table_cell(&t, "counts, no network");
        for (int k = 0; k < 3; k++) hb_table_cell(&t, "-");
        hb_table_cell(&t, "%s", hb_str_num(n->ppl).s);
        for (int k = 0; k < 2; k++) hb_table_cell(&t, "-");
    }
    hb_table_print(&t, &r->t);
    hb_text_add(&r->t, "\n");
}

// --- equality ------------------------------------------------------------------------------------

// Largest difference of two loss curves at equal steps; NAN if they have none in common.
static double curve_gap(const struct hb_lm_run *a, const struct hb_lm_run *b)
{
    double xa[MAX_STEPS], la[MAX_STEPS], xb[MAX_STEPS], lb[MAX_STEPS], gap = NAN;
    const size_t na = hb_lm_curve(a, "step", xa, la, MAX_STEPS),
                 nb = hb_lm_curve(b, "step", xb, lb, MAX_STEPS);
    for (size_t i = 0; i < na && i < nb; i++)
        if (xa[i] == xb[i]) gap = fmax(isnan(gap) ? 0 : gap, fabs(la[i] - lb[i]));
    return gap;
}

static bool comparable(const struct hb_lm_run *a, const struct hb_lm_run *b)
{
    return !strcmp(a->model, b->model) && !strcmp(a->dataset, b->dataset) && a->L == b->L &&
           a->B == b->B && a->D == b->D && a->seed == b->seed && a->steps == b->steps &&
           a->lr == b->lr && !strcmp(a->machine, b->machine);
}

// Runs that differ from this one in nothing but the implementation. first: the one of the main
// study if it is among them. A set counts if the suite asked for it (purpose "equality") and it
// holds two implementations.
struct equal_set {
    const struct hb_lm_run *first;
    bool asked, differ;
};

static struct equal_set equal_set_of(const struct hb_lm_set *s, const struct hb_lm_run *run)
{
    struct equal_set e = {NULL, false, false};
    for (size_t k = 0; k < s->n; k++) {
        const struct hb_lm_run *o = &s->run[k];
        if (!o->ok || !comparable(run, o)) continue;
        if (!e.first || (strcmp(e.first->purpose, "main") && !strcmp(o->purpose, "main")))
            e.first = o;
        e.asked = e.asked || !strcmp(o->purpose, "equality");
        e.differ = e.differ || strcmp(o->impl, run->impl);
    }
    return e;
}

// The interval over seeds of the main study's runs like this one; NAN if there is none.
static struct hb_interval seeds_interval(const struct hb_lm_set *s, const struct hb_lm_run *run)
{
    for (size_t i = 0; i < s->n;) {
        const struct hb_lm_group g = hb_lm_group_at(s, i);
        const struct hb_lm_run *o = g.run;
        if (!strcmp(o->purpose, "main") && !strcmp(o->model, run->model) && o->L == run->L &&
            o->steps == run->steps && !strcmp(o->dataset, run->dataset) &&
            !strcmp(o->machine, run->machine) && o->D == run->D)
            return g.ci95;
        i += g.n;
    }
    return (struct hb_interval){NAN, NAN};
}

static void equality_table(struct hb_report *r, const char *machine)
{
    const struct hb_lm_set *s = &r->st->lm;
    struct hb_table t = {0};
    hb_table_head(&t, "model|implementation|>steps|>L|>learning rate|>last "
                      "loss|>perplexity|>interval over seeds|>largest loss difference to the "
                      "first");
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *run = &s->run[i];
        const struct equal_set e = equal_set_of(s, run);
        if (!here(run, machine) || hb_lm_ngram(run) || !e.asked || !e.differ) continue;
        hb_table_cell(&t, "%s", run->model);
        hb_table_cell(&t, "%s", run->impl);
        hb_table_cell(&t, "%lld", (long long)run->steps);
        hb_table_cell(&t, "%lld", (long long)run->L);
        hb_table_cell(&t, "%g", run->lr);
        hb_table_cell(&t, "%.6f", run->final_loss);
        hb_table_cell(&t, "%s", hb_str_num(run->ppl).s);
        hb_table_cell(&t, "%s", hb_str_interval(seeds_interval(s, run)).s);
        if (run == e.first) hb_table_cell(&t, "first");
        else hb_table_cell(&t, "%.1e", curve_gap(e.first, run));
    }
    hb_text_add(&r->t, "**Same losses whatever the implementation.** Same seed and data, one "
                       "implementation after the other; the losses may differ by rounding only, "
                       "which grows with the number of steps and with the learning rate. Short "
                       "runs compare every step, long runs means over equal stretches; the "
                       "perplexity of a long run belongs into the interval over seeds.\n\n");
    if (hb_table_empty(&t)) {
        hb_text_add(&r->t, "Not run yet: a training suite with purpose `equality` does "
                           "(`hyena-bench train --suite`).\n");
        hb_table_free(&t);
    } else hb_table_print(&t, &r->t);
    hb_text_add(&r->t, "\n");
}

// --- the floor -----------------------------------------------------------------------------------

static void floor_table(struct hb_report *r, const char *machine)
{
    const struct hb_lm_set *s = &r->st->lm;
    struct hb_table t = {0};
    hb_table_head(&t, "data|model|mixer|>L|>seed|>tokens|>nats per token|>floor of the "
                      "source|>above it");
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *run = &s->run[i];
        if (!here(run, machine) || !(run->floor_nll > 0)) continue;
        hb_table_cell(&t, "%s", run->dataset);
        hb_table_cell(&t, "%s", run->model);
        hb_table_cell(&t, "%s", *what(run) ? what(run) : "-");
        hb_table_cell(&t, "%lld", (long long)run->L);
        hb_table_cell(&t, "%lld", (long long)run->seed);
        hb_table_cell(&t, "%s", hb_str_len(run->train_tokens).s);
        hb_table_cell(&t, "%.4f", run->nll);
        hb_table_cell(&t, "%.4f", run->floor_nll);
        hb_table_cell(&t, "%.1f %%", 100 * (run->nll / run->floor_nll - 1));
    }
    hb_text_add(&r->t, "**A source with a known floor.** The Markov source's own negative "
                       "log-likelihood on the same held-out tokens is the least any model can "
                       "reach.\n\n");
    if (hb_table_empty(&t)) {
        hb_text_add(&r->t, "Not run yet: training on a `markov` set does (`hyena-bench train`).\n");
        hb_table_free(&t);
    } else hb_table_print(&t, &r->t);
    hb_text_add(&r->t, "\n");
}

static void budget_line(struct hb_report *r, const struct hb_lm_budget *b)
{
    const struct hb_lm_run *one = NULL;
    for (size_t i = 0; i < r->st->lm.n && !one; i++)
        if (hb_lm_in(&r->st->lm.run[i], b)) one = &r->st->lm.run[i];
    const json_t *e = one->cell->entry, *layers = json_object_get(e, "hb_layers");
    hb_text_add(&r->t, "Data set `%s`, %s training tokens in %lld steps, D = %lld, ", b->dataset,
                hb_str_len(one->train_tokens).s, (long long)b->steps, (long long)one->D);
    if (json_is_integer(layers))
        hb_text_add(&r->t, "%lld layer%s, ", (long long)json_integer_value(layers),
                    json_integer_value(layers) == 1 ? "" : "s");
    hb_text_add(&r->t, "learning rate %g; perplexity on %s held-out tokens.\n\n", one->lr,
                hb_str_len(one->eval_tokens).s);
}

// --- the section ---------------------------------------------------------------------------------

void hb_report_perplexity(struct hb_report *r)
{
    hb_text_add(&r->t,
                "## Perplexity\n\n"
                "Small language models, equal token budget: B·L is constant, so the number of "
                "steps is, too. Budgets this small show early learning speed; they say little "
                "about the quality of a fully trained model. The controls say what a number is "
                "worth: no mixer at all (N), short convolution only (S), attention with the short "
                "convolution that Hyena has (C), and plain bigram and trigram counts.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        struct hb_lm_budget b;
        hb_report_subhead(r, machine);
        if (!hb_lm_main(&r->st->lm, machine, &b)) {
            hb_text_add(&r->t, "No training runs yet: `hyena-bench train --suite` makes them.\n\n");
            continue;
        }
        budget_line(r, &b);
        seeds_table(r, machine, &b);
        hb_report_figure(r, "perplexity", machine);
        hb_report_figure(r, "loss_tokens", machine);
        hb_report_figure(r, "loss_seconds", machine);
        hb_report_figure(r, "pareto", machine);
        equality_table(r, machine);
        floor_table(r, machine);
    }
}
