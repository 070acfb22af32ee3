// report_time.c: crossovers, exponents, the three quantities side by side.
#include <math.h>
#include <string.h>

#include "crossover.h"
#include "report.h"

// Attention and Hyena alternated in one process: the strongest evidence about their ratio.
static void alternated_operators(struct hb_report *r, const char *machine)
{
    struct hb_duel d;
    struct hb_pair_set pairs;
    struct hb_table t = {0};
    if (!hb_report_duel(r, machine, HB_PASS_FWD, &d)) return;
    if (hb_pairs_make(&r->st->r, &r->st->set, d.a->impl, d.h->impl, &pairs)) {
        r->t.failed = true;  // no memory: the text says so at its end
        hb_error_clear();
        return;
    }
    hb_table_head(&t, "setting|>L|>time a|>time b|>time a/b|>rounds");
    for (size_t i = 0; i < pairs.n; i++) {
        const struct hb_pair *p = &pairs.p[i];
        if (!p->n || strcmp(p->set.machine, machine)) continue;
        hb_table_cell(&t, "%s", hb_report_where(&p->set).s);
        hb_table_cell(&t, "%lld", (long long)p->L);
        hb_table_cell(&t, "%s", hb_str_time(p->a_ns).s);
        hb_table_cell(&t, "%s", hb_str_time(p->b_ns).s);
        hb_table_cell(&t, "%s", hb_str_ratio(p->ratio).s);
        hb_table_cell(&t, "%d", p->n);
    }
    if (hb_table_empty(&t)) hb_table_free(&t);
    else {
        hb_text_add(&r->t, "Side by side: a = `%s` and b = `%s` took turns in one process; the "
                           "ratio is the median over rounds, which no change of the machine "
                           "between two processes can shift.\n\n", d.a->impl, d.h->impl);
        hb_table_print(&t, &r->t);
        hb_text_add(&r->t, "\n");
    }
    hb_pairs_free(&pairs);
}

void hb_report_crossings(struct hb_report *r)
{
    hb_text_add(&r->t, "## Where the curves cross\n\n"
                       "L* is where two curves meet: before it a is better, after it b (or as the "
                       "row says). Its interval comes from drawing both curves again and again "
                       "within the intervals of their points; bytes are counted, so in memory it "
                       "is the two measured lengths around L*. `no crossover in range` and `tie` "
                       "are answers, too. Ratios are a over b: above 1 b is faster, or smaller. "
                       "Derived records with all digits: `crossovers.json`, from `hyena-bench "
                       "crossover`.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        hb_report_subhead(r, machine);
        hb_crossovers_table(&r->st->set, &r->st->x, machine, &r->t);
        hb_text_add(&r->t, "\n");
        alternated_operators(r, machine);
        hb_report_figure(r, "ratio_operator_fwd", machine);
        hb_report_figure(r, "ratio_operator_bwd", machine);
    }
}

// --- growth --------------------------------------------------------------------------------------

// The goal: allocator bytes grow with an exponent of at most 1.1, except where all scores are kept.
static void lean_line(struct hb_report *r, const char *machine)
{
    const struct hb_series *worst = NULL;
    struct hb_fit f, w = {0};
    int n = 0, above = 0;
    for (size_t i = 0; i < r->st->set.n; i++) {
        const struct hb_series *s = &r->st->set.s[i];
        if (strcmp(s->set.machine, machine) || strstr(s->impl, "attention_naive") ||
            !hb_series_fit_from(s, HB_METRIC_MEMORY, HB_FIT_FROM, &f))
            continue;
        n++;
        above += f.f.exponent > 1.1;
        if (worst && f.f.exponent <= w.f.exponent) continue;
        worst = s;
        w = f;
    }
    if (worst)
        hb_text_add(&r->t, "Memory from L = %.0f on, without `attention_naive`: of %d curves the "
                           "steepest has the exponent %.3f (`%s`, %s). Goal: at most 1.1: %s",
                    HB_FIT_FROM, n, w.f.exponent, worst->impl, hb_report_where(&worst->set).s,
                    above ? "**not met**" : "met");
    if (worst && above) hb_text_add(&r->t, " by %d curve%s", above, above == 1 ? "" : "s");
    if (worst) hb_text_add(&r->t, ".\n\n");
}

void hb_report_growth(struct hb_report *r)
{
    hb_text_add(&r->t,
                "## How time and memory grow with length\n\n"
                "Exponent e of the fit c·L^e over the long lengths (L of at least 4096 where there "
                "are three of them, else the upper half of the lengths), with its 95 %% interval. "
                "1 is linear, 2 quadratic; L log L fits as a little above 1.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        hb_report_subhead(r, machine);
        hb_fits_table(&r->st->set, machine, &r->t);
        hb_text_add(&r->t, "\n");
        if (hb_report_has_gpu(r, machine))
            hb_text_add(&r->t, "Of the GPU's settings the main one; the exponents of all stand in "
                               "`crossovers.json`.\n\n");
        lean_line(r, machine);
        static const char *const names[] = {
            "time_operator_fwd",  "time_operator_bwd", "time_core_fwd",       "time_core_bwd",
            "slope_operator_fwd", "slope_core_fwd",    "memory_operator_fwd", "memory_operator_bwd",
            "memory_core_fwd",    "error_core_fwd",    "error_operator_fwd"};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (!hb_report_has_gpu(r, machine) || hb_figure_of_gpu(names[i]))
                hb_report_figure(r, names[i], machine);
    }
}

// --- time, memory and perplexity -----------------------------------------------------------------

// Mean perplexity of the model with this letter at L in the main budget, with its interval over
// seeds; NAN if it was not trained there.
static struct hb_ratio ppl_at(const struct hb_lm_set *s, const struct hb_lm_budget *b,
                              const char *model, int64_t L)
{
    const struct hb_lm_group g = hb_lm_find(s, b, model, L);
    return (struct hb_ratio){g.ppl, g.ci95};
}

static void length_row(struct hb_report *r, struct hb_table *t, const struct hb_duel *d,
                       const struct hb_lm_budget *b, int64_t L)
{
    const struct hb_cell *a = hb_series_at(d->a, L), *h = hb_series_at(d->h, L);
    hb_table_cell(t, "%lld", (long long)L);
    hb_table_cell(t, "%s", a && !hb_cell_ok(a)
                           ? a->status : hb_str_time(hb_cell_value(a, HB_METRIC_TIME)).s);
    hb_table_cell(t, "%s", h && !hb_cell_ok(h)
                           ? h->status : hb_str_time(hb_cell_value(h, HB_METRIC_TIME)).s);
    hb_table_cell(t, "%s", hb_str_ratio(hb_cell_ratio(a, h)).s);
    hb_table_cell(t, "%s", hb_str_bytes(hb_cell_value(a, HB_METRIC_MEMORY)).s);
    hb_table_cell(t, "%s", hb_str_bytes(hb_cell_value(h, HB_METRIC_MEMORY)).s);
    hb_table_cell(t, "%s", b ? hb_str_ratio(ppl_at(&r->st->lm, b, "A", L)).s : "-");
    hb_table_cell(t, "%s", b ? hb_str_ratio(ppl_at(&r->st->lm, b, "H", L)).s : "-");
}

static bool trained_at(const struct hb_lm_set *s, const struct hb_lm_budget *b, int64_t L)
{
    for (size_t i = 0; i < s->n; i++)
        if (hb_lm_in(&s->run[i], b) && s->run[i].L == L) return true;
    return false;
}

// The smallest length above `after` that either series or the training runs have; 0 if there is
// none.
static int64_t next_length(const struct hb_report *r, const struct hb_duel *d,
                           const struct hb_lm_budget *b, int64_t after)
{
    int64_t next = INT64_MAX;
    for (int k = 0; k < 2; k++) {
        const struct hb_series *s = k ? d->h : d->a;
        for (size_t i = 0; i < s->n; i++)
            if (s->cell[i]->pt.p.L > after && s->cell[i]->pt.p.L < next) next = s->cell[i]->pt.p.L;
    }
    for (size_t i = 0; b && i < r->st->lm.n; i++) {
        const int64_t L = r->st->lm.run[i].L;
        if (L > after && L < next && trained_at(&r->st->lm, b, L)) next = L;
    }
    return next == INT64_MAX ? 0 : next;
}

void hb_report_lengths(struct hb_report *r)
{
    hb_text_add(&r->t, "## Time, memory and perplexity, length by length\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        struct hb_duel d;
        struct hb_lm_budget b;
        hb_report_subhead(r, machine);
        if (!hb_report_duel(r, machine, HB_PASS_FWD, &d)) {
            hb_text_add(&r->t, "No setting has both an mha and a hyena at scope operator: "
                               "`hyena-bench sweep` measures them.\n\n");
            continue;
        }
        const bool trained = hb_lm_main(&r->st->lm, machine, &b);
        hb_text_add(&r->t,
                    "Time and memory: one call of the whole operator (%s), A = `%s` with %lld "
                    "head%s, H = `%s` of order %d. Perplexity: mean over seeds, "
                    "with its 95 %% interval, of the small language models (section "
                    "Perplexity) trained at that length%s.\n\n",
                    hb_report_where(d.at).s, d.a->impl, (long long)d.a->H,
                    d.a->H == 1 ? "" : "s", d.h->impl, d.h->order ? d.h->order : 2,
                    trained ? "" : "; none was trained on this machine, `hyena-bench train` does");
        struct hb_table t = {0};
        hb_table_head(&t, ">L|>time A|>time H|>time A/H|>memory A|>memory H|>perplexity A|"
                          ">perplexity H");
        for (int64_t L = 0; (L = next_length(r, &d, trained ? &b : NULL, L));)
            length_row(r, &t, &d, trained ? &b : NULL, L);
        hb_table_print(&t, &r->t);
        hb_text_add(&r->t, "\n");
    }
}
