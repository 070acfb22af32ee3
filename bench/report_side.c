// report_side.c: the same question answered on every machine, in one table: from which length on
// is Hyena faster than the best attention, how much at fixed lengths, and what arithmetic allows.
#include <math.h>
#include <string.h>

#include "report.h"
#include "work.h"

// "9.1x (1.75 ms, 192 µs)"; why there is none if one of them has no time.
static void at_length(struct hb_table *t, const struct hb_duel *d, int64_t L)
{
    const struct hb_cell *a = hb_series_at(d->a, L), *h = hb_series_at(d->h, L);
    const struct hb_ratio q = hb_cell_ratio(a, h);
    if (isfinite(q.r))
        hb_table_cell(t, "%s: %s, %s", hb_str_num(q.r).s, hb_str_time(a->median_ns).s,
                      hb_str_time(h->median_ns).s);
    else if (a && !hb_cell_ok(a)) hb_table_cell(t, "attention: %s", a->status);
    else if (h && !hb_cell_ok(h)) hb_table_cell(t, "Hyena: %s", h->status);
    else hb_table_cell(t, "-");
}

static void crossing_cell(struct hb_table *t, const struct hb_crossover *c)
{
    switch (c->x.kind) {
    case HB_CROSS_SINGLE:
    case HB_CROSS_MULTIPLE:
        hb_table_cell(t, "**%s** %s%s", hb_str_len(c->x.L_star).s, hb_str_lens(c->x.ci95).s,
                      c->x.b_wins_after ? "" : " (attention faster after it)");
        return;
    case HB_CROSS_NONE_A:
        hb_table_cell(t, "none up to %.0f", c->L_hi);
        return;
    case HB_CROSS_NONE_B:
        hb_table_cell(t, "below %.0f, the shortest measured", c->L_lo);
        return;
    case HB_CROSS_TIE:
        hb_table_cell(t, "tie");
        return;
    }
}

// Peak bytes of attention over Hyena's at the longest length that both have.
static void memory_cell(struct hb_table *t, const struct hb_duel *d)
{
    if (!d->mem) {
        hb_table_cell(t, "-");
        return;
    }
    const int64_t L = (int64_t)d->mem->L_hi;
    hb_table_cell(t, "%s, %s",
                  hb_str_bytes(hb_cell_value(hb_series_at(d->a, L), HB_METRIC_MEMORY)).s,
                  hb_str_bytes(hb_cell_value(hb_series_at(d->h, L), HB_METRIC_MEMORY)).s);
}

// What the ratio would be if both took the least time that the measured peaks allow; NAN: the
// records carry no bound.
static double ratio_of_bounds(const struct hb_duel *d, int64_t L)
{
    const double a = hb_series_at(d->a, L)->roof_ns, h = hb_series_at(d->h, L)->roof_ns;
    return a > 0 && h > 0 ? a / h : NAN;
}

static void side_row(struct hb_report *r, struct hb_table *t, const struct hb_duel *d)
{
    const struct hb_setting *at = d->at;
    const int64_t L = (int64_t)d->time->L_hi;
    hb_table_cell(t, "%s", hb_on_gpu(at->device) ? hb_report_chip(r, at->machine)
                                                 : hb_report_cpu(r, at->machine));
    hb_table_cell(t, "%s, D %lld%s", hb_dtype_str(at->dtype), (long long)at->D,
                  at->mode == HB_MODE_COLD ? ", cold" : "");
    hb_table_cell(t, "%s", hb_pass_str(at->pass));
    hb_table_cell(t, "`%s`, `%s`", hb_impl_inner(d->a->impl), hb_impl_inner(d->h->impl));
    crossing_cell(t, d->time);
    at_length(t, d, 8192);
    at_length(t, d, 65536);
    hb_table_cell(t, "%lld", (long long)L);
    hb_table_cell(t, "%s", hb_str_ratio(d->time->last).s);
    hb_table_cell(t, "%s", hb_str_num(hb_flop_bound_ratio(L, at->D, true)).s);
    hb_table_cell(t, "%s", hb_str_num(ratio_of_bounds(d, L)).s);
    memory_cell(t, d);
}

// Settings of batch 1 in which the two share lengths, forward then backward, in the order of the
// machines.
static void side_rows(struct hb_report *r, struct hb_table *t, const char *machine,
                      enum hb_pass pass)
{
    for (size_t i = 0; i < r->st->set.n; i++) {
        const struct hb_setting *at = &r->st->set.s[i].set;
        struct hb_duel d;
        if ((i && !hb_setting_cmp(at, &r->st->set.s[i - 1].set)) || at->B != 1 ||
            at->pass != pass || at->scope != HB_SCOPE_OPERATOR || strcmp(at->machine, machine) ||
            !hb_report_duel_at(r, at, &d) || !d.time)
            continue;
        side_row(r, t, &d);
    }
}

void hb_report_side(struct hb_report *r)
{
    struct hb_table t = {0};
    bool gpu = false;
    for (size_t m = 0; m < r->st->n_machines; m++)
        gpu = gpu || hb_report_has_gpu(r, r->st->machine[m]);
    if (!gpu && r->st->n_machines < 2) return;
    hb_table_head(&t, "where|type, width|pass|attention, convolution in Hyena|L*|>ratio at 8192: "
                      "times|>ratio at 65536: times|>longest L of both|>ratio there|>by FLOP at "
                      "most|>both at their bounds|>memory there");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        side_rows(r, &t, r->st->machine[m], HB_PASS_FWD);
        side_rows(r, &t, r->st->machine[m], HB_PASS_BWD);
    }
    if (hb_table_empty(&t)) {
        hb_table_free(&t);
        return;
    }
    hb_text_add(&r->t,
                "## The machines next to each other\n\n"
                "Whole layers, one sequence at a time (B = 1): the fastest attention against Hyena "
                "with its fastest convolution, both at the longest length that all of them have. "
                "L* is the length from which on Hyena is faster, with its 95 %% interval; ratios "
                "are time of attention over time of Hyena (above 1 Hyena is faster), followed by "
                "both times, attention's first. *By FLOP at most* is what the ratio could be if "
                "both used the arithmetic of the machine equally well (causal half of attention "
                "counted, 1 + L/(4D)); *both at their bounds*: if each took the least time that "
                "the measured peaks of its machine, FLOP and bytes, allow. Memory: attention, "
                "Hyena. ");
    if (gpu)
        hb_text_add(&r->t, "*cold*: the caches are emptied before every execution, as they are "
                           "when a layer's turn comes in a large model; without it they hold what "
                           "the last execution left. bf16 and f16 are the 16-bit types that GPUs "
                           "are used with; sums are in float32. ");
    hb_text_add(&r->t, "Compare ratios and lengths across machines, not times: types and widths "
                       "differ.\n\n");
    hb_table_print(&t, &r->t);
    hb_text_add(&r->t, "\n");
    hb_report_figure(r, "crossovers", r->st->machine[0]);
}
