// plotdata_ratio.c: data files of figures that show ratios: attention over hyena beside the paper,
// and pairs of implementations alternated in one process.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plot.h"
#include "work.h"

#define MAX_PAIR_CURVES 16

// --- the paper -----------------------------------------------------------------------------------

int hb_paper_rows(struct hb_paper_row *out, int cap, int *n)
{
    char path[4200], line[512];
    *n = 0;
    snprintf(path, sizeof path, "%.4000s/plots/paper_fig43.dat", hb_root_dir());
    FILE *f = fopen(path, "r");
    if (!f) return hb_fail(HB_ERR_MISSING, "%s: not there (the paper's figure data)", path);
    int rc = 0;
    for (int at = 1; fgets(line, sizeof line, f) && !rc; at++) {
        struct hb_paper_row r;
        if (line[0] == '#' || line[0] == '\n') continue;
        if (*n == cap ||
            sscanf(line, "%lf %lf %lf %lf", &r.L, &r.hyena_ms, &r.attention_ms, &r.flash_ms) != 4)
            rc = hb_fail(HB_ERR_INPUT, "%s:%d: expected at most %d rows of four numbers", path, at,
                         cap);
        else out[(*n)++] = r;
    }
    if (fclose(f) && !rc) rc = hb_fail(HB_ERR_RUN, "%s: cannot read", path);
    return rc;
}

// --- attention over hyena ------------------------------------------------------------------------

static int ratio_rows(const struct hb_series *a, const struct hb_series *b, struct hb_text *body,
                      struct hb_range *x, struct hb_range *y)
{
    int rows = 0;
    for (size_t k = 0; k < a->n; k++) {
        const struct hb_ratio q = hb_cell_ratio(a->cell[k], hb_series_at(b, a->cell[k]->pt.p.L));
        if (!isfinite(q.r)) continue;
        hb_text_add(body, "%lld %.17g %.17g %.17g\n", (long long)a->cell[k]->pt.p.L, q.r, q.ci95.lo,
                    q.ci95.hi);
        hb_range_add(x, (double)a->cell[k]->pt.p.L);
        hb_range_add(y, q.r);
        rows++;
    }
    return rows;
}

static int write_crossings(const struct hb_fig_in *in, const struct hb_series *b,
                           struct hb_text *dat)
{
    int n = 0, curve = 0;
    hb_dat_block(dat, "crossings: L*, low, high, curve");
    for (size_t i = 0; i < in->st->set.n; i++) {
        const struct hb_series *a = &in->st->set.s[i];
        if (hb_setting_cmp(&a->set, in->at) || a->op != HB_MHA || !hb_series_last_common(a, b))
            continue;
        curve++;
        for (size_t k = 0; k < in->st->x.n; k++) {
            const struct hb_crossover *c = &in->st->x.c[k];
            if (c->a != a || c->b != b || c->metric != HB_METRIC_TIME) continue;
            if (c->x.kind != HB_CROSS_SINGLE && c->x.kind != HB_CROSS_MULTIPLE) continue;
            hb_text_add(dat, "%.17g %.17g %.17g %d\n", c->x.L_star, c->x.ci95.lo, c->x.ci95.hi,
                        curve);
            n++;
        }
    }
    if (!n) hb_text_add(dat, "NaN NaN NaN NaN\n");
    return n;
}

// 1 + L/(2D): all of the L x L square counted; 1 + L/(4D): its causal half. At equal utilisation no
// exact attention can be more times slower than that (claims.md section 1).
static void write_flop_bound(const struct hb_fig_in *in, struct hb_range x, struct hb_text *dat)
{
    const int steps = 48;
    hb_dat_block(dat, "flops: L, 1 + L/(2D), 1 + L/(4D)");
    for (int i = 0; i <= steps; i++) {
        const double L = x.lo * pow(x.hi / x.lo, (double)i / steps);
        hb_text_add(dat, "%.17g %.17g %.17g\n", L,
                    hb_flop_bound_ratio((int64_t)L, in->at->D, false),
                    hb_flop_bound_ratio((int64_t)L, in->at->D, true));
    }
}

int hb_fig_ratio(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    const struct hb_series *b = hb_series_best(&in->st->set, in->at, HB_HYENA);
    struct hb_range x = {INFINITY, -INFINITY}, y = {INFINITY, -INFINITY};
    struct hb_text body = {0}, names = {0};
    int n = 0, drawn = 0;
    for (size_t i = 0; b && i < in->st->set.n; i++) {
        const struct hb_series *a = &in->st->set.s[i];
        if (hb_setting_cmp(&a->set, in->at) || a->op != HB_MHA) continue;
        struct hb_text rows = {0};
        const int m = ratio_rows(a, b, &rows, &x, &y);
        if (m) {
            hb_dat_block(&body, "s%02d: L, time(%s) / time(%s), low, high", ++n, a->impl, b->impl);
            hb_text_add(&body, "%s", rows.s);
        }
        drawn += m > 1;
        body.failed = body.failed || rows.failed;
        hb_text_free(&rows);
        if (!m) continue;
        hb_text_add(&names, "\"%s\" \"%s / %s\" %d\n", a->impl,
                    hb_impl_inner(hb_series_label(&in->st->set, a).s),
                    hb_impl_inner(hb_series_label(&in->st->set, b).s),
                    hb_look_spare(in->st, a->impl));
    }
    struct hb_paper_row paper[16];
    int n_paper = 0;
    int rc = hb_paper_rows(paper, 16, &n_paper);
    if (!rc && drawn) {
        for (int i = 0; i < n_paper; i++) hb_range_add(&x, paper[i].L);
        hb_dat_block(dat, "meta");
        hb_dat_meta(dat, "title", "%s", in->fig->title);
        hb_dat_meta(dat, "sub",
                    "%s. Ratio of medians; bars: 95 %% bootstrap interval; boxes on the line 1: L* "
                    "with interval",
                    hb_setting_words(in->st, in->at).s);
        hb_dat_meta(dat, "D", "%lld", (long long)in->at->D);
        hb_dat_meta(dat, "xmin", "%.17g", x.lo);
        hb_dat_meta(dat, "xmax", "%.17g", x.hi);
        hb_dat_meta(dat, "ymin", "%.17g", y.lo);
        hb_dat_meta(dat, "ymax", "%.17g", y.hi);
        hb_dat_block(dat, "series: implementation, label, spare look");
        hb_text_add(dat, "%s\n\n%s", names.s, body.s);
        const int crossings = write_crossings(in, b, dat);
        write_flop_bound(in, x, dat);
        hb_dat_block(dat, "counts");
        hb_dat_meta(dat, "crossings", "%d", crossings);
    } else if (!rc)
        snprintf(why, cap, "no length has both an mha and a hyena time in this setting");
    dat->failed = dat->failed || body.failed || names.failed;
    hb_text_free(&body);
    hb_text_free(&names);
    return rc ? rc : hb_text_done(dat);
}

// --- alternated pairs ----------------------------------------------------------------------------

static void cpu_words(const struct hb_fig_in *in, struct hb_words *w)
{
    snprintf(w->s, sizeof w->s, "%s", in->machine);
    for (size_t i = 0; i < in->st->r.n_files; i++)
        if (!strcmp(hb_file_machine(in->st->r.files[i]), in->machine))
            snprintf(w->s, sizeof w->s, "%s", hb_file_cpu(in->st->r.files[i]));
}

// The pairs from i on that share a setting become one curve; returns where the next setting starts.
struct pair_figure {
    struct hb_text names, body;
    struct hb_range x, y;
    int curves, rows, alternated;
};
static size_t pair_curve(const struct hb_pair_set *set, size_t i, struct pair_figure *f)
{
    const struct hb_setting *at = &set->p[i].set;
    hb_dat_block(&f->body, "s%02d: L, time(longconv_fftw_plain) / time(longconv_fftw), low, high",
                 ++f->curves);
    hb_text_add(&f->names, "\"setting\" \"%s\" %d\n", hb_setting_str(at).s, f->curves);
    for (; i < set->n && !hb_setting_cmp(&set->p[i].set, at); i++) {
        const struct hb_pair *p = &set->p[i];
        hb_text_add(&f->body, "%lld %.17g %.17g %.17g\n", (long long)p->L, p->ratio.r,
                    p->ratio.ci95.lo, p->ratio.ci95.hi);
        hb_range_add(&f->x, (double)p->L);
        hb_range_add(&f->y, p->ratio.ci95.lo);
        hb_range_add(&f->y, p->ratio.ci95.hi);
        f->rows++;
        f->alternated += p->n > 0;
    }
    return i;
}

int hb_fig_pairs(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    struct pair_figure f = {.x = {INFINITY, -INFINITY}, .y = {INFINITY, -INFINITY}};
    struct hb_pair_set pairs;
    const int rc = hb_pairs_make(&in->st->r, &in->st->set, "longconv_fftw_plain", "longconv_fftw",
                                 &pairs);
    if (rc) return rc;
    for (size_t i = 0; i < pairs.n && f.curves < MAX_PAIR_CURVES;)
        if (strcmp(pairs.p[i].set.machine, in->machine)) i++;
        else i = pair_curve(&pairs, i, &f);
    if (f.x.lo < f.x.hi) {
        struct hb_words cpu;
        cpu_words(in, &cpu);
        hb_dat_block(dat, "meta");
        hb_dat_meta(dat, "title", "%s", in->fig->title);
        hb_dat_meta(dat, "sub",
                    "%s. %d of %d ratios from runs alternated in one process; bars: 95 %% "
                    "bootstrap interval",
                    cpu.s, f.alternated, f.rows);
        hb_dat_meta(dat, "xmin", "%.17g", f.x.lo);
        hb_dat_meta(dat, "xmax", "%.17g", f.x.hi);
        hb_dat_meta(dat, "ymin", "%.17g", f.y.lo);
        hb_dat_meta(dat, "ymax", "%.17g", f.y.hi);
        hb_dat_block(dat, "series: implementation, label, spare look");
        hb_text_add(dat, "%s\n\n%s", f.names.s, f.body.s);
    } else
        snprintf(why, cap,
                 "longconv_fftw_plain and longconv_fftw were not timed at two common lengths");
    dat->failed = dat->failed || f.body.failed || f.names.failed;
    hb_text_free(&f.body);
    hb_text_free(&f.names);
    hb_pairs_free(&pairs);
    return hb_text_done(dat);
}
