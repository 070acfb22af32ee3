// report_peaks.c: shares of this machine's peaks; longconv_fftw against longconv_fftw_plain; both
// against their goals.
#include <math.h>
#include <string.h>

#include "report.h"
#include "roofline.h"

// --- shares of peak ------------------------------------------------------------------------------

// one, all: the peak with one thread and with `threads`.
static void peak_rows(struct hb_report *r, struct hb_table *t, const char *machine,
                      const char *impl, const char *what, int threads, double one, double all)
{
    for (size_t i = 0; i < r->st->set.n; i++) {
        const struct hb_series *s = &r->st->set.s[i];
        if (strcmp(s->set.machine, machine) || strcmp(s->impl, impl) ||
            s->set.pass == HB_PASS_FWD_CACHED)
            continue;
        const double peak = s->set.threads == 1         ? one
                            : s->set.threads == threads ? all
                                                        : NAN;
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

static void peaks_table(struct hb_report *r, const struct hb_roofline *f)
{
    const struct { const char *what; double one, all; bool flop; } rows[] = {
        {"FMA in registers, f32, flags of this build", f->one.fma_f32, f->all.fma_f32, true},
        {"FMA in registers, f32, AVX-512", f->one.fma_f32_wide, f->all.fma_f32_wide, true},
        {"GEMM (OpenBLAS), f32", f->one.sgemm, f->all.sgemm, true},
        {"read from L2", f->one.l2_read, f->all.l2_read, false},
        {"read from L3", f->one.l3_read, f->all.l3_read, false},
        {"read from memory", f->one.dram_read, f->all.dram_read, false},
        {"copy in memory, read + written", f->one.dram_copy, f->all.dram_copy, false},
    };
    char head[96];
    struct hb_table t = {0};
    snprintf(head, sizeof head, "measured peak|>1 thread|>%d threads|unit", f->threads);
    hb_table_head(&t, head);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!(rows[i].one > 0)) continue;
        hb_table_cell(&t, "%s", rows[i].what);
        hb_table_cell(&t, "%s", hb_str_num(rows[i].one / 1e9).s);
        hb_table_cell(&t, "%s", hb_str_num(rows[i].all / 1e9).s);
        hb_table_cell(&t, "%s", rows[i].flop ? "GFLOP/s" : "GB/s");
    }
    hb_table_print(&t, &r->t);
    hb_text_add(&r->t, "\n");
}

// A goal: this implementation, alone, forward, warm, L from lo to hi, P channels a head (0: any),
// reaches at least this share of the peak at every measured point.
struct share_goal { const char *impl, *peak; int64_t lo, hi, P; double share; };

static void share_line(struct hb_report *r, const char *machine, const struct share_goal *g,
                       int threads, double one, double all)
{
    struct hb_range got = {INFINITY, -INFINITY};
    int n = 0;
    for (size_t i = 0; i < r->st->set.n; i++) {
        const struct hb_series *s = &r->st->set.s[i];
        if (strcmp(s->set.machine, machine) || strcmp(s->impl, g->impl) ||
            s->set.pass != HB_PASS_FWD || s->set.mode != HB_MODE_WARM ||
            (s->set.threads != 1 && s->set.threads != threads) ||
            (g->P && s->set.D != g->P * s->H))
            continue;
        for (size_t k = 0; k < s->n; k++) {
            const struct hb_cell *c = s->cell[k];
            const int64_t L = c->pt.p.L;
            if (!hb_cell_ok(c) || !(c->flop > 0) || L < g->lo || L > g->hi) continue;
            hb_range_add(&got, c->flop / (c->median_ns * 1e-9) / (s->set.threads == 1 ? one : all));
            n++;
        }
    }
    hb_text_add(&r->t, "- `%s`, forward, L = %lld", g->impl, (long long)g->lo);
    if (g->hi > g->lo) hb_text_add(&r->t, " to %lld", (long long)g->hi);
    if (g->P) hb_text_add(&r->t, ", P = D/H = %lld", (long long)g->P);
    if (!n) hb_text_add(&r->t, ": not measured.\n");
    else
        hb_text_add(&r->t, ": %s%s%s of the %s peak at %d point%s. Goal: at least %s: %s.\n",
                    hb_str_pct(got.lo).s, n > 1 ? " to " : "", n > 1 ? hb_str_pct(got.hi).s : "",
                    g->peak, n, n == 1 ? "" : "s",
                    hb_str_pct(g->share).s, got.lo >= g->share ? "met" : "**not met**");
}

void hb_report_peaks(struct hb_report *r)
{
    static const struct share_goal conv = {"longconv_direct", "FMA", 512, 4096, 0, 0.6},
                                   att = {"attention_flash", "GEMM", 4096, 4096, 64, 0.5};
    hb_text_add(&r->t,
                "## How close to the machine's peaks\n\n"
                "On a CPU: FLOP of the method by the suite's model (causal half counted for attention, "
                "L(L+1) per channel for the direct convolution) over the median time, as a share "
                "of what `hyena-bench roofline` measured on this machine with the same number of "
                "threads: FMA in registers for the direct convolution, GEMM for attention.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        struct hb_roofline roof;
        hb_report_subhead(r, machine);
        const struct hb_setting *core = hb_setting_main(&r->st->set, machine, HB_SCOPE_CORE,
                                                        HB_PASS_FWD);
        if (core && hb_on_gpu(core->device)) {  // its host's peaks say nothing about the GPU
            hb_report_gpu_shares(r, machine);
            continue;
        }
        const json_t *peaks = hb_results_roofline(&r->st->r, machine);
        if (!peaks || hb_roofline_parse(peaks, machine, &roof)) {
            hb_error_clear();
            hb_text_add(&r->t, "No run of this machine carries peaks: `hyena-bench "
                               "roofline` first, then `hyena-bench sweep`.\n\n");
            continue;
        }
        if (roof.disturbed)
            hb_text_add(&r->t, "The machine was busy when its peaks were measured; they may be "
                               "too low.\n\n");
        peaks_table(r, &roof);
        share_line(r, machine, &conv, roof.threads, roof.one.fma_f32, roof.all.fma_f32);
        share_line(r, machine, &att, roof.threads, roof.one.sgemm, roof.all.sgemm);
        hb_text_add(&r->t, "\n");
        struct hb_table t = {0};
        hb_table_head(&t, "implementation|setting|>L|>median|>GFLOP/s|>share of peak");
        peak_rows(r, &t, machine, "longconv_direct", "FMA", roof.threads, roof.one.fma_f32,
                  roof.all.fma_f32);
        peak_rows(r, &t, machine, "attention_flash", "GEMM", roof.threads, roof.one.sgemm,
                  roof.all.sgemm);
        if (hb_table_empty(&t)) {
            hb_text_add(&r->t, "Neither longconv_direct nor attention_flash was timed at scope "
                               "core: `hyena-bench sweep` does.\n");
            hb_table_free(&t);
        } else hb_table_print(&t, &r->t);
        hb_text_add(&r->t, "\n");
    }
}

// --- pairs ---------------------------------------------------------------------------------------

// The goals for longconv_fftw, and whether it is slower anywhere with its whole interval.
static void pair_lines(struct hb_report *r, const char *machine)
{
    static const struct { int64_t B, D, L; double ratio; } goals[] = {
        {1, 256, 8192, 1.25}, {4, 256, 1024, 1.4}};
    for (size_t g = 0; g < sizeof goals / sizeof *goals; g++) {
        const struct hb_pair *found = NULL;
        for (size_t i = 0; i < r->pairs.n; i++) {
            const struct hb_pair *p = &r->pairs.p[i];
            if (p->set.B == goals[g].B && p->set.D == goals[g].D && p->L == goals[g].L &&
                p->set.pass == HB_PASS_FWD && p->set.mode == HB_MODE_WARM &&
                p->set.threads == 2 && p->set.scope == HB_SCOPE_CORE &&
                !strcmp(p->set.machine, machine))
                found = p;
        }
        hb_text_add(&r->t, "- Forward, B %lld, D %lld, L %lld, two threads: ",
                    (long long)goals[g].B, (long long)goals[g].D, (long long)goals[g].L);
        if (!found) hb_text_add(&r->t, "not measured.\n");
        else
            hb_text_add(&r->t, "%s (%s). Goal: at least %g: %s.\n", hb_str_ratio(found->ratio).s,
                        found->n ? "alternated" : "separate processes", goals[g].ratio,
                        found->ratio.r >= goals[g].ratio ? "met" : "**not met**");
    }
    struct hb_text slower = {0};
    int n = 0, lost = 0;
    for (size_t i = 0; i < r->pairs.n; i++) {
        const struct hb_pair *p = &r->pairs.p[i];
        if (strcmp(p->set.machine, machine)) continue;
        n++;
        if (!(p->ratio.ci95.hi < 1)) continue;
        hb_text_add(&slower, "%s%s, L %lld (%s, %s)", lost++ ? "; " : "",
                    hb_report_where(&p->set).s, (long long)p->L, hb_str_ratio(p->ratio).s,
                    p->n ? "alternated" : "separate");
    }
    if (n)
        hb_text_add(&r->t, "- Slower with its whole interval at %d of %d points%s%s. Goal: "
                           "nowhere: %s.\n", lost, n, lost ? ": " : "",
                    lost && slower.s ? slower.s : "", lost ? "**not met**" : "met");
    hb_text_add(&r->t, "\n");
    r->t.failed = r->t.failed || slower.failed;
    hb_text_free(&slower);
}

// Neither of the two was tried there: they are CPU implementations.
static bool on_gpu_alone(const struct hb_report *r, const char *machine)
{
    for (size_t i = 0; i < r->pairs.n; i++)
        if (!strcmp(r->pairs.p[i].set.machine, machine)) return false;
    return hb_report_has_gpu(r, machine);
}

void hb_report_pairs(struct hb_report *r)
{
    size_t others = 0;
    for (size_t m = 0; m < r->st->n_machines; m++)
        others += !on_gpu_alone(r, r->st->machine[m]);
    if (!others) return;
    hb_text_add(&r->t, "## longconv_fftw against longconv_fftw_plain\n\n"
                       "Time of `longconv_fftw_plain` over time of `longconv_fftw`: above 1 "
                       "`longconv_fftw` is faster. Alternated: both ran in turns in one process, "
                       "and the ratio is the median over rounds; that is the stronger evidence. "
                       "Separate: two processes, ratio of medians.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        struct hb_table t = {0};
        if (on_gpu_alone(r, machine)) continue;
        hb_report_subhead(r, machine);
        pair_lines(r, machine);
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
