// report_finding.c: the opening: the finding in one sentence, derived by rule from the crossover,
// then what stands beside it. Each ratio comes with both absolute times.
#include <math.h>
#include <string.h>

#include "report.h"
#include "work.h"

// "attention 1.2 s, Hyena 70 ms"
static struct hb_words both_times(const struct hb_duel *d, int64_t L)
{
    struct hb_words w;
    snprintf(w.s, sizeof w.s, "attention %s, Hyena %s",
             hb_str_time(hb_series_at(d->a, L)->median_ns).s,
             hb_str_time(hb_series_at(d->h, L)->median_ns).s);
    return w;
}

static void at_longest(struct hb_report *r, const struct hb_duel *d)
{
    const int64_t L = (int64_t)d->time->L_hi;
    const struct hb_ratio q = d->time->last;
    if (q.r >= 1)
        hb_text_add(&r->t, "is %s times as fast at L = %lld (%s)", hb_str_ratio(q).s, (long long)L,
                    both_times(d, L).s);
    else
        hb_text_add(&r->t, "takes %s times as long at L = %lld (%s)",
                    hb_str_ratio((struct hb_ratio){1 / q.r, {1 / q.ci95.hi, 1 / q.ci95.lo}}).s,
                    (long long)L, both_times(d, L).s);
    hb_text_add(&r->t,
                "; by FLOP alone, both equally well run, it could be at most %s times as fast "
                "(causal half of attention counted) to %s times (full square)",
                hb_str_num(hb_flop_bound_ratio(L, d->at->D, true)).s,
                hb_str_num(hb_flop_bound_ratio(L, d->at->D, false)).s);
}

// "whole operator, forward, B = 1, D = 256, 4 heads, f32"
static struct hb_words setting_words(const struct hb_duel *d)
{
    struct hb_words w;
    snprintf(w.s, sizeof w.s, "whole operator, forward, B = %lld, D = %lld, %lld head%s, %s%s",
             (long long)d->at->B, (long long)d->at->D, (long long)d->a->H,
             d->a->H == 1 ? "" : "s", hb_dtype_str(d->at->dtype),
             d->at->mode == HB_MODE_COLD ? ", cold caches" : "");
    return w;
}

static void one_sentence(struct hb_report *r, const char *machine, const struct hb_duel *d)
{
    const struct hb_crossing *x = &d->time->x;
    const char *A = d->a->impl, *H = d->h->impl;
    if (hb_on_gpu(d->at->device))
        hb_text_add(&r->t, "**On the GPU (%s), ", hb_report_chip(r, machine));
    else
        hb_text_add(&r->t, "**On %s (%s, %d thread%s), ",
                    strcmp(machine, hb_machine_id()) ? "the machine" : "this machine",
                    hb_report_cpu(r, machine), d->at->threads, d->at->threads == 1 ? "" : "s");
    switch (x->kind) {
    case HB_CROSS_SINGLE:
    case HB_CROSS_MULTIPLE:
        hb_text_add(&r->t,
                    "%s overtakes %s at L* = %s %s%s (%s); %s ",
                    x->b_wins_after ? H : A, x->b_wins_after ? A : H, hb_str_len(x->L_star).s,
                    hb_str_lens(x->ci95).s,
                    x->kind == HB_CROSS_MULTIPLE ? ", the last of several crossings" : "",
                    setting_words(d).s, H);
        break;
    case HB_CROSS_NONE_A:
    case HB_CROSS_NONE_B:
        hb_text_add(&r->t, "%s is faster than %s at ", x->kind == HB_CROSS_NONE_A ? A : H,
                    x->kind == HB_CROSS_NONE_A ? H : A);
        if (x->n_tied)
            hb_text_add(&r->t, "%zu of the %zu measured lengths", d->time->n - x->n_tied,
                        d->time->n);
        else hb_text_add(&r->t, "every measured length");
        hb_text_add(&r->t, " from %.0f to %.0f%s, so no crossover was seen in this range (%s); %s ",
                    d->time->L_lo, d->time->L_hi,
                    x->n_tied ? " and not told from it at the others" : "", setting_words(d).s, H);
        break;
    case HB_CROSS_TIE:
        hb_text_add(&r->t,
                    "%s and %s cannot be told apart at any measured length from %.0f to %.0f "
                    "(%s); %s ",
                    H, A, d->time->L_lo, d->time->L_hi, setting_words(d).s, H);
        break;
    }
    at_longest(r, d);
    hb_text_add(&r->t, ".**\n\n");
}

static void backward_line(struct hb_report *r, const char *machine)
{
    struct hb_duel d;
    if (!hb_report_duel(r, machine, HB_PASS_BWD, &d) || !d.time) {
        hb_text_add(&r->t, "- Backward: not measured. `hyena-bench sweep` with pass `bwd` does.\n");
        return;
    }
    hb_text_add(&r->t, "- Backward, same question: %s; at L = %.0f the time of %s is %s "
                "times that of %s (%s).\n",
                hb_cross_words(d.time, d.a->impl, d.h->impl).s, d.time->L_hi, d.a->impl,
                hb_str_ratio(d.time->last).s, d.h->impl, both_times(&d, (int64_t)d.time->L_hi).s);
}

static void memory_line(struct hb_report *r, const struct hb_duel *d)
{
    if (!d->mem) {
        hb_text_add(&r->t, "- Memory: not recorded at two common lengths.\n");
        return;
    }
    const int64_t L = (int64_t)d->mem->L_hi;
    hb_text_add(&r->t, "- Memory, forward: %s; at L = %lld %s takes %s, %s takes %s.\n",
                hb_cross_words(d->mem, d->a->impl, d->h->impl).s, (long long)L, d->a->impl,
                hb_str_bytes(hb_cell_value(hb_series_at(d->a, L), HB_METRIC_MEMORY)).s, d->h->impl,
                hb_str_bytes(hb_cell_value(hb_series_at(d->h, L), HB_METRIC_MEMORY)).s);
}

static void perplexity_line(struct hb_report *r, const char *machine)
{
    struct hb_lm_budget b;
    const struct hb_lm_set *s = &r->st->lm;
    if (!hb_lm_main(s, machine, &b)) {
        hb_text_add(&r->t, "- Perplexity: no training runs. `hyena-bench train --suite` makes "
                           "them.\n");
        return;
    }
    const struct hb_lm_run *last = NULL;
    for (size_t i = 0; i < s->n; i++)
        if (hb_lm_in(&s->run[i], &b) && !s->run[i].control[0] && (!last || s->run[i].L > last->L))
            last = &s->run[i];
    if (!last) return;
    hb_text_add(&r->t, "- Perplexity on held-out `%s` after %s tokens at L = %lld:", b.dataset,
                hb_str_len(last->train_tokens).s, (long long)last->L);
    for (size_t i = 0; i < s->n;) {
        const struct hb_lm_group g = hb_lm_group_at(s, i);
        if (hb_lm_in(g.run, &b) && g.run->L == last->L &&
            (!g.run->control[0] || !strcmp(g.run->model, "S")))
            hb_text_add(&r->t, " %s (%s) %s%s%s over %zu seed%s;", g.run->model,
                        g.run->control[0] ? g.run->control : g.run->impl,
                        hb_str_num(g.ppl).s, isfinite(g.ci95.lo) ? " " : "",
                        isfinite(g.ci95.lo) ? hb_str_interval(g.ci95).s : "",
                        g.n,
                        g.n == 1 ? "" : "s");
        i += g.n;
    }
    hb_text_add(&r->t, " a budget this small shows early learning speed, not final quality.\n");
}

// On a GPU: the largest models trained, each with its test perplexities.
static void large_line(struct hb_report *r, const char *machine)
{
    const struct hb_lm_set *s = &r->st->lm;
    int64_t most = 0;
    int n = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *o = &s->run[i];
        if (!strcmp(o->machine, machine) && hb_on_gpu(o->device) && !strcmp(o->purpose, "main") &&
            strcmp(o->tokenizer, "bytes") && o->params > most)
            most = o->params;
    }
    for (size_t i = 0; most && i < s->n; i++) {
        const struct hb_lm_run *o = &s->run[i];
        struct hb_lm_scored t;
        if (strcmp(o->machine, machine) || !hb_on_gpu(o->device) || strcmp(o->purpose, "main") ||
            !strcmp(o->tokenizer, "bytes") || o->params < most / 2 || !hb_lm_scored_at(o, 0, &t))
            continue;
        if (n++) hb_text_add(&r->t, "; ");
        else
            hb_text_add(&r->t, "- Larger models, `%s` tokens, L = %lld: ", o->tokenizer,
                        (long long)o->L);
        hb_text_add(&r->t, "%s (%s) after %s tokens in %s:", o->model, hb_lm_run_mixer(o),
                    hb_str_len(o->train_tokens).s, hb_str_time(o->seconds * 1e9).s);
        for (size_t k = 0; hb_lm_scored_at(o, k, &t); k++)
            hb_text_add(&r->t, "%s %s on `%s`", k ? "," : " perplexity", hb_str_num(exp(t.nats)).s,
                        t.name);
    }
    if (n) hb_text_add(&r->t, ".\n");
}

void hb_report_finding(struct hb_report *r)
{
    hb_text_add(&r->t, "# hyena-bench: findings\n\n"
                       "Written by `hyena-bench report` from the result files: no measured number "
                       "in it was typed by hand. What is quoted is marked as the paper's.\n\n"
                       "The question: a layer of a sequence model can mix its L positions by "
                       "attention, whose work grows like L², or by Hyena's long convolution "
                       "(Poli et al. 2023), whose work grows like L log L. From which length L* on "
                       "is Hyena faster, by how much, in how much memory, and what does a model "
                       "learn with either? `mha:X` is a layer of attention computed by X, "
                       "`hyena:X` one of Hyena whose convolution X computes.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        struct hb_duel d;
        if (hb_report_duel(r, machine, HB_PASS_FWD, &d) && d.time) {
            one_sentence(r, machine, &d);
            memory_line(r, &d);
        } else
            hb_text_add(&r->t,
                        "**On %s there is no finding about attention against Hyena yet: no two "
                        "lengths at scope operator, forward, have a time of both. `hyena-bench "
                        "sweep` measures them.**\n\n",
                        hb_report_chip(r, machine));
        backward_line(r, machine);
        perplexity_line(r, machine);
        large_line(r, machine);
        hb_text_add(&r->t, "\n");
    }
}
