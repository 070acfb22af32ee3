// report_lm_checks.c: what says that the training runs can be trusted: the same losses whatever the
// implementation, the Markov source's floor, associative recall.
#include <math.h>
#include <string.h>

#include "report.h"

#define MAX_STEPS 4096

static bool here(const struct hb_lm_run *r, const char *machine)
{
    return r->ok && !strcmp(r->machine, machine);
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

// All but how it is computed: implementation, device, type, size of the micro-batches.
static bool comparable(const struct hb_lm_run *a, const struct hb_lm_run *b)
{
    return !strcmp(a->model, b->model) && !strcmp(a->dataset, b->dataset) && a->L == b->L &&
           a->B == b->B && a->D == b->D && a->seed == b->seed && a->steps == b->steps &&
           a->lr == b->lr && !strcmp(a->machine, b->machine);
}

static json_int_t micro_batch(const struct hb_lm_run *r)
{
    return json_integer_value(json_object_get(
        json_object_get(r->cell->entry, "hb_config"), "micro_batch_tokens"));
}

static bool in_f32(const struct hb_lm_run *r) { return !strcmp(r->dtype, "f32"); }

// The better reference: float32 before 16 bits, the main study before the rest, the CPU before the
// GPU.
static bool before(const struct hb_lm_run *a, const struct hb_lm_run *b)
{
    if (in_f32(a) != in_f32(b)) return in_f32(a);
    const bool ma = !strcmp(a->purpose, "main"), mb = !strcmp(b->purpose, "main");
    if (ma != mb) return ma;
    return !hb_on_gpu(a->device) && hb_on_gpu(b->device);
}

// Runs that differ from this one in nothing but how they were computed, and the first of them, to
// which the others are compared. A set counts if the suite asked for it (purpose "equality") and
// it holds two ways.
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
        if (!e.first || before(o, e.first)) e.first = o;
        e.asked = e.asked || !strcmp(o->purpose, "equality");
        e.differ = e.differ || strcmp(o->impl, run->impl) || strcmp(o->dtype, run->dtype) ||
                   strcmp(o->device, run->device) || micro_batch(o) != micro_batch(run);
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

// What the table of equal runs amounts to: short ones compare every step, long ones the perplexity;
// those in 16 bits the last loss. n_gpu: short ones on the GPU whose first is the CPU's.
struct equality {
    int n_short, n_long, n_inside, n_gpu, n_half;
    double worst, worst_gpu, worst_half;
};

// Last loss over that of the float32 run, less 1; NAN: there is none to compare with.
static double off_f32(const struct hb_lm_run *first, const struct hb_lm_run *run)
{
    return in_f32(first) && !in_f32(run) ? run->final_loss / first->final_loss - 1 : NAN;
}

static void add_equal(struct equality *q, const struct hb_lm_set *s, const struct hb_lm_run *first,
                      const struct hb_lm_run *run)
{
    double step[MAX_STEPS], loss[MAX_STEPS];
    const struct hb_interval i = seeds_interval(s, run);
    if (run == first) return;
    if (!in_f32(run)) {
        const double off = off_f32(first, run);
        if (isnan(off)) return;
        q->n_half++;
        q->worst_half = fmax(q->worst_half, fabs(off));
        return;
    }
    if ((int64_t)hb_lm_curve(run, "step", step, loss, MAX_STEPS) == run->steps) {
        const double gap = curve_gap(first, run);
        q->worst = fmax(q->worst, isnan(gap) ? INFINITY : gap);  // no common step: no equality
        q->n_short++;
        if (hb_on_gpu(run->device) && !hb_on_gpu(first->device)) {
            q->n_gpu++;
            q->worst_gpu = fmax(q->worst_gpu, isnan(gap) ? INFINITY : gap);
        }
    } else if (isfinite(i.lo)) {
        q->n_long++;
        q->n_inside += run->ppl >= i.lo && run->ppl <= i.hi;
    }
}

static void equality_words(struct hb_report *r, const struct equality *q)
{
    if (q->n_short)
        hb_text_add(&r->t, "\n%d short run%s: the largest difference of a loss at any step is %.1e "
                           "nats (goal: at most 1e-4): %s.\n", q->n_short,
                    q->n_short == 1 ? "" : "s", q->worst, q->worst <= 1e-4 ? "met" : "**not met**");
    if (q->n_gpu)
        hb_text_add(&r->t, "\nFloat32 on the GPU against float32 on the CPU, %d run%s: the largest "
                           "difference of a loss at any step is %.1e nats (goal: at most 1e-4): "
                           "%s.\n", q->n_gpu, q->n_gpu == 1 ? "" : "s", q->worst_gpu,
                    q->worst_gpu <= 1e-4 ? "met" : "**not met**");
    if (q->n_half)
        hb_text_add(&r->t, "\n%d run%s in 16 bits: the last loss is at most %.2f %% from that of "
                           "float32 (goal: 2 %%): %s.\n", q->n_half, q->n_half == 1 ? "" : "s",
                    100 * q->worst_half, q->worst_half <= 0.02 ? "met" : "**not met**");
    if (q->n_long)
        hb_text_add(&r->t, "\n%d long run%s: %d of the final perplexities lie in the interval over "
                           "the seeds of the main implementation (goal: all): %s.\n", q->n_long,
                    q->n_long == 1 ? "" : "s", q->n_inside,
                    q->n_inside == q->n_long ? "met" : "**not met**");
}

static const char *where_of(const struct hb_lm_run *r)
{
    return hb_on_gpu(r->device) ? "GPU" : "CPU";
}

static void equality_table(struct hb_report *r, const char *machine)
{
    struct equality q = {0};
    const struct hb_lm_set *s = &r->st->lm;
    struct hb_table t = {0};
    hb_table_head(&t, "model|implementation|where, type|>steps|>L|>learning rate|>last "
                      "loss|>perplexity|>interval over seeds|>largest loss difference to the "
                      "first|>last loss against float32");
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *run = &s->run[i];
        const struct equal_set e = equal_set_of(s, run);
        if (!here(run, machine) || hb_lm_ngram(run) || !e.asked || !e.differ) continue;
        hb_table_cell(&t, "%s", run->model);
        hb_table_cell(&t, "%s", run->impl);
        if (micro_batch(run))
            hb_table_cell(&t, "%s, %s, %lld tokens at a time", where_of(run), run->dtype,
                          (long long)micro_batch(run));
        else hb_table_cell(&t, "%s, %s", where_of(run), run->dtype);
        hb_table_cell(&t, "%lld", (long long)run->steps);
        hb_table_cell(&t, "%lld", (long long)run->L);
        hb_table_cell(&t, "%g", run->lr);
        hb_table_cell(&t, "%.6f", run->final_loss);
        hb_table_cell(&t, "%s", hb_str_num(run->ppl).s);
        hb_table_cell(&t, "%s", hb_str_interval(seeds_interval(s, run)).s);
        add_equal(&q, s, e.first, run);
        if (run == e.first) hb_table_cell(&t, "first");
        else hb_table_cell(&t, "%.1e", curve_gap(e.first, run));
        if (isnan(off_f32(e.first, run))) hb_table_cell(&t, "-");
        else hb_table_cell(&t, "%+.2f %%", 100 * off_f32(e.first, run));
    }
    hb_text_add(&r->t, "**Same losses whatever the implementation.** Same seed and data, one "
                       "implementation, device or type after the other; the losses may differ by "
                       "rounding only, "
                       "which grows with the number of steps and with the learning rate. Short "
                       "runs compare every step, long runs means over equal stretches; the "
                       "perplexity of a long run belongs into the interval over seeds.\n\n");
    if (hb_table_empty(&t)) {
        hb_text_add(&r->t, "Not run yet: a training suite with purpose `equality` does "
                           "(`hyena-bench train --suite`).\n");
        hb_table_free(&t);
    } else hb_table_print(&t, &r->t);
    equality_words(r, &q);
    hb_text_add(&r->t, "\n");
}

// --- the floor -----------------------------------------------------------------------------------

// The goal of the suites' runs of purpose "bar": A and H near the floor, a model without a mixer
// far from it.
static void floor_words(struct hb_report *r, const char *machine)
{
    const struct hb_lm_set *s = &r->st->lm;
    static const char *const models[] = {"A", "H", "N"};
    int n[3] = {0};
    double worst[3] = {-INFINITY, -INFINITY, INFINITY};
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *run = &s->run[i];
        const double above = 100 * (run->nll / run->floor_nll - 1);
        if (!here(run, machine) || !(run->floor_nll > 0) || strcmp(run->purpose, "bar")) continue;
        for (int k = 0; k < 3; k++) {
            if (strcmp(run->model, models[k])) continue;
            n[k]++;
            worst[k] = k < 2 ? fmax(worst[k], above) : fmin(worst[k], above);
        }
    }
    for (int k = 0; k < 3; k++)
        if (!n[k]) hb_text_add(&r->t, "\nModel %s was not trained on it.\n", models[k]);
    if (n[0] && n[1] && n[2])
        hb_text_add(&r->t, "\nAbove the floor: A %.1f %%, H %.1f %% (goal: at most 3 %%): %s; "
                           "without a mixer %.1f %% (goal: at least 40 %%): %s.\n", worst[0],
                    worst[1], worst[0] <= 3 && worst[1] <= 3 ? "met" : "**not met**", worst[2],
                    worst[2] >= 40 ? "met" : "**not met**");
}

// A window shows one symbol before its first target; a source of order two looks at two.
static void window_words(struct hb_report *r, const char *machine)
{
    const struct hb_lm_set *s = &r->st->lm;
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *run = &s->run[i];
        const json_t *e = run->cell->entry, *prev = json_object_get(e, "hb_entropy_prev_nats"),
                     *order = json_object_get(json_object_get(e, "hb_config"), "markov_order");
        if (!here(run, machine) || hb_lm_ngram(run) || strcmp(run->purpose, "bar") ||
            !json_is_number(prev) || json_integer_value(order) != 2)
            continue;
        hb_text_add(&r->t, "\nBefore the first target of its window of %lld a model sees one "
                           "symbol where the source looks at two: this alone keeps it about %.1f "
                           "%% above the floor.\n", (long long)run->L,
                    100 * (json_number_value(prev) / run->floor_nll - 1) / (double)run->L);
        return;
    }
}

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
        hb_table_cell(&t, "%s", *hb_lm_run_mixer(run) ? hb_lm_run_mixer(run) : "-");
        hb_table_cell(&t, "%lld", (long long)run->L);
        hb_table_cell(&t, "%lld", (long long)run->seed);
        hb_table_cell(&t, "%s", hb_str_len(run->train_tokens).s);
        hb_table_cell(&t, "%.4f", run->nll);
        hb_table_cell(&t, "%.4f", run->floor_nll);
        hb_table_cell(&t, "%.1f %%", 100 * (run->nll / run->floor_nll - 1));
    }
    if (hb_table_empty(&t) && hb_report_has_gpu(r, machine)) {  // the CPU's suites have it
        hb_table_free(&t);
        return;
    }
    hb_text_add(&r->t, "**A source with a known floor.** The Markov source's own negative "
                       "log-likelihood on the same held-out tokens is what the best "
                       "possible model reaches; less than that is luck of the sample.\n\n");
    if (hb_table_empty(&t)) {
        hb_text_add(&r->t, "Not run yet: training on a `markov` set does (`hyena-bench train`).\n");
        hb_table_free(&t);
    } else {
        hb_table_print(&t, &r->t);
        floor_words(r, machine);
        window_words(r, machine);
    }
    hb_text_add(&r->t, "\n");
}

// Associative recall: only if somebody trained on it.
static void recall_table(struct hb_report *r, const char *machine)
{
    const struct hb_lm_set *s = &r->st->lm;
    struct hb_table t = {0};
    hb_table_head(&t, "model|mixer|>L|>seed|>tokens|>right answers|>by chance|>most frequent "
                      "value");
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *run = &s->run[i];
        const json_t *e = run->cell->entry, *right = json_object_get(e, "hb_accuracy");
        if (!here(run, machine) || !json_is_number(right)) continue;
        hb_table_cell(&t, "%s", run->model);
        hb_table_cell(&t, "%s", *hb_lm_run_mixer(run) ? hb_lm_run_mixer(run) : "-");
        hb_table_cell(&t, "%lld", (long long)run->L);
        hb_table_cell(&t, "%lld", (long long)run->seed);
        hb_table_cell(&t, "%s", hb_str_len(run->train_tokens).s);
        hb_table_cell(&t, "%s", hb_str_pct(json_number_value(right)).s);
        hb_table_cell(&t, "%s", hb_str_pct(
            json_number_value(json_object_get(e, "hb_chance_uniform"))).s);
        hb_table_cell(&t, "%s", hb_str_pct(
            json_number_value(json_object_get(e, "hb_chance_frequent"))).s);
    }
    if (hb_table_empty(&t)) {
        hb_table_free(&t);
        return;
    }
    hb_text_add(&r->t, "**Associative recall.** Keys and values alternate; the model must repeat "
                       "the value of the last key.\n\n");
    hb_table_print(&t, &r->t);
    hb_text_add(&r->t, "\n");
}

void hb_report_lm_checks(struct hb_report *r, const char *machine)
{
    equality_table(r, machine);
    floor_table(r, machine);
    recall_table(r, machine);
}
