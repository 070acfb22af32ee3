// report_time.c: crossovers, exponents, the three quantities side by side, shares of peak,
// alternated pairs.
#include <math.h>
#include <string.h>

#include "crossover.h"
#include "report.h"
#include "roofline.h"

void hb_report_crossings(struct hb_report *r)
{
    hb_text_add(&r->t, "## Where the curves cross\n\n"
                       "L* is where two curves meet: before it a is better, after it b (or as the "
                       "row says). Its interval comes from drawing both curves again and again "
                       "within the intervals of their points. `no crossover in range` and `tie` "
                       "are answers, too. Ratios are a over b. Derived records with all digits: "
                       "`crossovers.json`, from `hyena-bench crossover`.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        hb_report_subhead(r, machine);
        hb_crossovers_table(&r->st->set, &r->st->x, machine, &r->t);
        hb_text_add(&r->t, "\n");
        hb_report_figure(r, "ratio_operator_fwd", machine);
        hb_report_figure(r, "ratio_operator_bwd", machine);
    }
}

// --- growth --------------------------------------------------------------------------------------

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
        static const char *const names[] = {
            "time_operator_fwd",  "time_operator_bwd", "time_core_fwd",       "time_core_bwd",
            "slope_operator_fwd", "slope_core_fwd",    "memory_operator_fwd", "memory_operator_bwd",
            "memory_core_fwd",    "error_core_fwd",    "error_operator_fwd"};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            hb_report_figure(r, names[i], machine);
    }
}

// --- time, memory and perplexity
// ----------------------------------------------------------------------- Mean perplexity of the
// model with this letter at L in the main budget; NAN if it was not trained there.
static double ppl_at(const struct hb_lm_set *s, const struct hb_lm_budget *b, const char *model,
                     int64_t L)
{
    for (size_t i = 0; i < s->n;) {
        const struct hb_lm_group g = hb_lm_group_at(s, i);
        if (hb_lm_in(g.run, b) && g.run->L == L && !strcmp(g.run->model, model)) return g.ppl;
        i += g.n;
    }
    return NAN;
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
    hb_table_cell(t, "%s", b ? hb_str_num(ppl_at(&r->st->lm, b, "A", L)).s : "-");
    hb_table_cell(t, "%s", b ? hb_str_num(ppl_at(&r->st->lm, b, "H", L)).s : "-");
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
                    "Time and memory: one call of the whole operator (%s), A = `%s`, H = `%s`. "
                    "Perplexity: mean over seeds of the small language models trained at that "
                    "length%s.\n\n",
                    hb_report_where(d.at).s, d.a->impl, d.h->impl,
                    trained ? "" : "; none was trained on this machine, `hyena-bench train` does");
        struct hb_table t = {0};
        hb_table_head(&t, ">L|>time A|>time H|>A/H|>memory A|>memory H|>perplexity A|>perplexity "
                          "H");
        for (int64_t L = 0; (L = next_length(r, &d, trained ? &b : NULL, L));)
            length_row(r, &t, &d, trained ? &b : NULL, L);
        hb_table_print(&t, &r->t);
        hb_text_add(&r->t, "\n");
    }
}

// --- shares of peak ------------------------------------------------------------------------------

static void peak_rows(struct hb_report *r, struct hb_table *t, const char *machine,
                      const char *impl, const char *what, double one, double all)
{
    for (size_t i = 0; i < r->st->set.n; i++) {
        const struct hb_series *s = &r->st->set.s[i];
        if (strcmp(s->set.machine, machine) || strcmp(s->impl, impl) ||
            s->set.pass == HB_PASS_FWD_CACHED)
            continue;
        const double peak = s->set.threads == 1 ? one : all;
        for (size_t k = 0; k < s->n; k++) {
            const struct hb_cell *c = s->cell[k];
            if (!hb_cell_ok(c) || !(c->flop > 0) || !(peak > 0)) continue;
            const double rate = c->flop / (c->median_ns * 1e-9);
            hb_table_cell(t, "%s", impl);
            hb_table_cell(t, "%s", hb_report_where(&s->set).s);
            hb_table_cell(t, "%lld", (long long)c->pt.p.L);
            hb_table_cell(t, "%s", hb_str_time(c->median_ns).s);
            hb_table_cell(t, "%s", hb_str_num(rate / 1e9).s);
            hb_table_cell(t, "%s of %s %s GFLOP/s", hb_str_pct(rate / peak).s, what,
                          hb_str_num(peak / 1e9).s);
        }
    }
}

void hb_report_peaks(struct hb_report *r)
{
    hb_text_add(&r->t,
                "## How close to the machine's peaks\n\n"
                "FLOP of the method by the suite's model (causal half counted for attention, "
                "L(L+1) per channel for the direct convolution) over the median time, as a share "
                "of what `hyena-bench roofline` measured on this machine with the same number of "
                "threads: FMA in registers for the direct convolution, GEMM for attention.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        struct hb_roofline roof;
        hb_report_subhead(r, machine);
        const json_t *peaks =
            json_object_get(hb_results_context(&r->st->r, machine), "hb_roofline");
        if (!peaks || hb_roofline_parse(peaks, machine, &roof)) {
            hb_error_clear();
            hb_text_add(&r->t, "The newest run of this machine carries no peaks: `hyena-bench "
                               "roofline` first, then `hyena-bench sweep`.\n\n");
            continue;
        }
        if (roof.disturbed)
            hb_text_add(&r->t, "The machine was busy when its peaks were measured; they may be "
                               "too low.\n\n");
        struct hb_table t = {0};
        hb_table_head(&t, "implementation|setting|>L|>median|>GFLOP/s|>share of peak");
        peak_rows(r, &t, machine, "longconv_direct", "FMA", roof.one.fma_f32, roof.all.fma_f32);
        peak_rows(r, &t, machine, "attention_flash", "GEMM", roof.one.sgemm, roof.all.sgemm);
        if (hb_table_empty(&t)) {
            hb_text_add(&r->t, "Neither longconv_direct nor attention_flash was timed at scope "
                               "core: `hyena-bench sweep` does.\n");
            hb_table_free(&t);
        } else hb_table_print(&t, &r->t);
        hb_text_add(&r->t, "\n");
    }
}

// --- pairs ---------------------------------------------------------------------------------------

void hb_report_pairs(struct hb_report *r)
{
    hb_text_add(&r->t, "## longconv_fftw against longconv_fftw_plain\n\n"
                       "Time of `longconv_fftw_plain` over time of `longconv_fftw`: above 1 "
                       "`longconv_fftw` is faster. Alternated: both ran in turns in one process, "
                       "and the ratio is the median over rounds; that is the stronger evidence. "
                       "Separate: two processes, ratio of medians.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        struct hb_table t = {0};
        hb_report_subhead(r, machine);
        hb_table_head(&t, "setting|>L|>plain|>fftw|>plain/fftw|how");
        for (size_t i = 0; i < r->pairs.n; i++) {
            const struct hb_pair *p = &r->pairs.p[i];
            if (strcmp(p->set.machine, machine)) continue;
            hb_table_cell(&t, "%s", hb_report_where(&p->set).s);
            hb_table_cell(&t, "%lld", (long long)p->L);
            hb_table_cell(&t, "%s", hb_str_time(p->a_ns).s);
            hb_table_cell(&t, "%s", hb_str_time(p->b_ns).s);
            hb_table_cell(&t, "%s", hb_str_ratio(p->ratio).s);
            if (p->n) hb_table_cell(&t, "alternated, %d rounds", p->n);
            else hb_table_cell(&t, "separate");
        }
        if (hb_table_empty(&t)) {
            hb_text_add(&r->t, "Not measured: `hyena-bench sweep` with pairs does.\n");
            hb_table_free(&t);
        } else hb_table_print(&t, &r->t);
        hb_text_add(&r->t, "\n");
        hb_report_figure(r, "pairs_fftw", machine);
    }
}
