// report_missing.c: every point without a time and why; how to read the report; limits of the
// study.
#include <math.h>
#include <string.h>

#include "report.h"

// --- what has no number --------------------------------------------------------------------------

// Lengths of one series that share a status, as one row; the reason is the first one's.
static void series_rows(struct hb_report *r, struct hb_table *t, const struct hb_series *s)
{
    static const char *const statuses[] = {"refused", "oom",     "timeout",
                                           "wrong",   "crashed", "dropped"};
    for (size_t k = 0; k < sizeof statuses / sizeof *statuses; k++) {
        struct hb_text lengths = {0};
        const struct hb_cell *first = NULL;
        for (size_t i = 0; i < s->n; i++) {
            if (strcmp(s->cell[i]->status, statuses[k])) continue;
            hb_text_add(&lengths, "%s%lld", first ? ", " : "", (long long)s->cell[i]->pt.p.L);
            if (!first) first = s->cell[i];
        }
        if (first) {
            hb_table_cell(t, "%s", hb_series_label(&r->st->set, s).s);
            hb_table_cell(t, "%s", hb_report_where(&s->set).s);
            hb_table_cell(t, "%s", lengths.s ? lengths.s : "");
            hb_table_cell(t, "%s", statuses[k]);
            hb_table_cell(t, "%s", first->detail && *first->detail ? first->detail : "-");
        }
        t->failed = t->failed || lengths.failed;
        hb_text_free(&lengths);
    }
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
            if (!strcmp(r->st->set.s[i].set.machine, machine)) series_rows(r, &t, &r->st->set.s[i]);
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
        "- Results hold for the machine named above, its libraries and this code. The paper's "
        "numbers are from a GPU: compare slopes, crossovers and distances to the bound, not "
        "milliseconds.\n"
        "- Shared machines are noisy. Intervals cover the noise within a run, not a change of the "
        "machine between runs; the stronger evidence is the alternated pairs.\n"
        "- Two curves are compared at the settings that were measured. Another width, batch or "
        "number of threads moves L*.\n"
        "- The language models are small and their budgets short: early learning speed, not final "
        "quality. The seeds draw parameters and order of the batches; the text and its split stay "
        "the same.\n");
}
