// report_missing.c: every point without a time and why; how to read the report; limits of the
// study.
#include <math.h>
#include <string.h>

#include "outcome.h"
#include "report.h"

// --- what has no number --------------------------------------------------------------------------

// Lengths of one series that share a status, as one row; the reason is the first one's.
// drops_said: the dropped ones stand elsewhere.
static void series_rows(struct hb_report *r, struct hb_table *t, const struct hb_series *s,
                        bool drops_said)
{
    const char *status;
    for (int k = 0; (status = hb_outcome_at(HB_ENDS_RECORD, k)); k++) {
        struct hb_text lengths = {0};
        const struct hb_cell *first = NULL;
        if (!strcmp(status, "ok") || (drops_said && !strcmp(status, "dropped"))) continue;
        for (size_t i = 0; i < s->n; i++) {
            if (strcmp(s->cell[i]->status, status)) continue;
            hb_text_add(&lengths, "%s%lld", first ? ", " : "", (long long)s->cell[i]->pt.p.L);
            if (!first) first = s->cell[i];
        }
        if (first) {
            hb_table_cell(t, "%s", hb_series_label(&r->st->set, s).s);
            hb_table_cell(t, "%s", hb_report_where(&s->set).s);
            hb_table_cell(t, "%s", lengths.s ? lengths.s : "");
            hb_table_cell(t, "%s", status);
            hb_table_cell(t, "%s", first->detail && *first->detail ? first->detail : "-");
        }
        t->failed = t->failed || lengths.failed;
        hb_text_free(&lengths);
    }
}

// Points of a GPU that the time of a run did not reach, all settings of one implementation, scope
// and pass in one row: i is the first series of them. true: nothing is left to say about it.
static bool dropped_row(struct hb_report *r, struct hb_table *t, size_t i)
{
    const struct hb_series *s = &r->st->set.s[i];
    const struct hb_cell *first = NULL;
    struct hb_range L = {INFINITY, -INFINITY};
    size_t points = 0, shapes = 0;
    if (!hb_on_gpu(s->set.device)) return false;
    for (size_t k = 0; k < r->st->set.n; k++) {
        const struct hb_series *o = &r->st->set.s[k];
        size_t here = 0;
        if (strcmp(o->set.machine, s->set.machine) || strcmp(o->impl, s->impl) ||
            o->set.scope != s->set.scope || o->set.pass != s->set.pass)
            continue;
        for (size_t c = 0; c < o->n; c++) {
            if (strcmp(o->cell[c]->status, "dropped")) continue;
            if (k != i && !first) return true;  // an earlier one has them, or this one has none
            if (!first) first = o->cell[c];
            hb_range_add(&L, (double)o->cell[c]->pt.p.L);
            here++;
        }
        points += here;
        shapes += here > 0;
    }
    if (!points) return true;
    hb_table_cell(t, "%s", s->impl);
    hb_table_cell(t, "%s %s, GPU, %zu setting%s", hb_scope_str(s->set.scope),
                  hb_pass_str(s->set.pass), shapes, shapes == 1 ? "" : "s");
    if (L.hi > L.lo) hb_table_cell(t, "%zu lengths, %.0f to %.0f", points, L.lo, L.hi);
    else hb_table_cell(t, "%.0f", L.hi);
    hb_table_cell(t, "dropped");
    hb_table_cell(t, "%s", first->detail && *first->detail ? first->detail : "-");
    return true;
}

void hb_report_missing(struct hb_report *r)
{
    hb_text_add(&r->t,
                "## What has no number, and why\n\n"
                "`refused`: not for this shape or type. `oom`: out of the memory it was given. "
                "`timeout`: longer than the limit. `wrong`: its answer did not pass the judge, so "
                "it was not timed. `crashed`: the process died. `dropped`: not tried, "
                "because the time budget of the run ended first or the point would have passed its "
                "own limit. The reason is that of the first length in the row.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        struct hb_table t = {0};
        hb_report_subhead(r, machine);
        hb_table_head(&t, "implementation|setting|L|status|reason");
        for (size_t i = 0; i < r->st->set.n; i++)
            if (!strcmp(r->st->set.s[i].set.machine, machine))
                series_rows(r, &t, &r->st->set.s[i], dropped_row(r, &t, i));
        for (size_t i = 0; i < r->st->r.n; i++) {  // training runs and what is no point of ours
            const struct hb_cell *c = &r->st->r.cells[i];
            if (c->has_pt || !strcmp(c->status, "ok") || strcmp(hb_file_machine(c->file), machine))
                continue;
            hb_table_cell(&t, "`%s`", c->name);
            hb_table_cell(&t, "-");
            hb_table_cell(&t, "-");
            hb_table_cell(&t, "%s", c->status);
            hb_table_cell(&t, "%s", c->detail && *c->detail ? c->detail : "-");
        }
        if (hb_table_empty(&t)) {
            hb_text_add(&r->t, "Nothing: every planned point has a time.\n");
            hb_table_free(&t);
        } else hb_table_print(&t, &r->t);
        hb_text_add(&r->t, "\n");
    }
}

// --- reading -------------------------------------------------------------------------------------

void hb_report_reading(struct hb_report *r)
{
    hb_text_add(
        &r->t,
        "## How to read this\n\n"
        "- Every point is timed in a process of its own, after its output passed a float64 judge "
        "and after a warm-up. A time is the median over samples, a sample one or more calls. "
        "Numbers in brackets are 95 %% intervals: bootstrap of the median for times and ratios, "
        "resampling for L* in time, the measured lengths around L* in memory, Student's t for "
        "exponents and for means over seeds.\n"
        "- A ratio stands beside at least one of its absolute times. Only records of one machine, "
        "device, scope, pass, state of the caches, type, B, D and number of threads are divided by "
        "each other.\n"
        "- Memory is what the suite's allocator had given out at its peak: inputs, outputs, "
        "parameters and workspace. What a library takes by itself (FFTW's plans, OpenBLAS's "
        "buffers) is not in it, but in the process's own peak (`hb_rss_peak_bytes` of the "
        "records).\n"
        "- On a GPU a time is that of the GPU's own clock, without the host's launches; `cold` "
        "means that the GPU's level-2 cache was flushed before each execution (section The "
        "machine). Memory there is the device's, workspaces of the libraries included. In 16 bits "
        "(f16, bf16) signals and weights are stored in 16 bits and summed in float32; the float64 "
        "judge gets the rounded inputs.\n"
        "- The bound is the larger of FLOP over measured FLOP/s and compulsory bytes over measured "
        "bandwidth, for the cheapest exact method of the operator. The FLOP bound of a ratio, 1 + "
        "L/(2D), counts the full square of attention; 1 + L/(4D) its causal half.\n"
        "- `make report` measures and writes all of it; `build/hyena-bench report` only writes it "
        "again from the result files: those under `build/results`, or, if there are none, the "
        "published ones under `results`. Both `plot` and `report` take folders as arguments, too: "
        "`build/hyena-bench plot results/MACHINE --figure NAME`.\n"
        "- A goal is what the suite's own implementations were asked to reach; *met* and *not met* "
        "are derived from the numbers beside them.\n\n"
        "## Limits of this study\n\n"
        "- Results hold for the machines named above, their libraries and this code. The paper's "
        "numbers are from another GPU: compare slopes, crossovers and distances to the bound, not "
        "milliseconds. CPU and GPU are compared the same way.\n"
        "- Shared machines are noisy. Intervals cover the noise within a run, not a change of the "
        "machine between runs; the stronger evidence is the alternated pairs.\n"
        "- Two curves are compared at the settings that were measured. Another width, batch or "
        "number of threads moves L*.\n"
        "- The language models are small and their budgets short: early learning speed, not final "
        "quality. The seeds draw parameters and order of the batches; the text and its split stay "
        "the same.\n");
}
