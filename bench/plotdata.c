// plotdata.c: data files of figures with one curve per implementation: time, memory, error and
// local slope over L.
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plot.h"

#define MAX_CURVES 32  // of one figure; more could not be told apart

// --- blocks and ranges ---------------------------------------------------------------------------

void hb_dat_block(struct hb_text *dat, const char *fmt, ...)
{
    char name[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    hb_text_add(dat, "%s# %s\n", dat->n ? "\n\n" : "", name);
}

void hb_dat_meta(struct hb_text *dat, const char *key, const char *fmt, ...)
{
    char v[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v, sizeof v, fmt, ap);
    va_end(ap);
    for (char *p = v; *p; p++)
        if (*p == '"' || *p == '\n') *p = '\'';  // gnuplot ends a string there
    hb_text_add(dat, "%s \"%s\"\n", key, v);
}

void hb_range_add(struct hb_range *r, double v)
{
    if (!isfinite(v) || v <= 0) return;
    if (v < r->lo) r->lo = v;
    if (v > r->hi) r->hi = v;
}

int hb_look_spare(const struct hb_study *st, const char *impl)
{
    int rank = 0;
    for (size_t i = 0; i < st->set.n; i++) {
        const char *name = hb_impl_inner(st->set.s[i].impl);
        bool seen = strcmp(name, hb_impl_inner(impl)) >= 0;
        for (size_t k = 0; k < i && !seen; k++)
            seen = !strcmp(hb_impl_inner(st->set.s[k].impl), name);
        rank += !seen;
    }
    return rank;
}

struct hb_words hb_setting_words(const struct hb_study *st, const struct hb_setting *at)
{
    struct hb_words w;
    const char *chip = hb_results_chip(&st->r, at->machine, hb_on_gpu(at->device));
    char threads[24] = "";
    if (!hb_on_gpu(at->device))
        snprintf(threads, sizeof threads, ", %d thread%s", at->threads,
                 at->threads == 1 ? "" : "s");
    snprintf(w.s, sizeof w.s, "%s%s; B %lld, D %lld, %s%s", chip, threads, (long long)at->B,
             (long long)at->D, hb_dtype_str(at->dtype),
             at->mode == HB_MODE_WARM ? "" : "; cold caches");
    return w;
}

// --- curves --------------------------------------------------------------------------------------

// Curves with something to draw come first; the others only have points that failed.
struct curves {
    const struct hb_series *s[MAX_CURVES];
    int n, drawn;
};

static bool has_curve(const struct hb_fig_in *in, const struct hb_series *s)
{
    struct hb_slope slope;
    if (in->fig->write == hb_fig_slopes) return hb_series_slopes(s, in->fig->metric, &slope, 1) > 0;
    for (size_t i = 0; i < s->n; i++)
        if (isfinite(hb_cell_value(s->cell[i], in->fig->metric))) return true;
    return false;
}

static struct curves curves_of(const struct hb_fig_in *in)
{
    struct curves c = {.n = 0};
    for (int with = 1; with >= 0; with--) {
        for (size_t i = 0; i < in->st->set.n && c.n < MAX_CURVES; i++) {
            const struct hb_series *s = &in->st->set.s[i];
            if (!hb_setting_cmp(&s->set, in->at) && has_curve(in, s) == (with == 1)) c.s[c.n++] = s;
        }
        if (with) c.drawn = c.n;
    }
    return c;
}

static void sample_range(const struct curves *c, struct hb_range *r)
{
    for (int i = 0; i < c->n; i++)
        for (size_t k = 0; k < c->s[i]->n; k++) {
            const json_t *e = c->s[i]->cell[k]->entry, *n = json_object_get(e, "hb_samples");
            hb_range_add(r, json_number_value(n ? n : json_object_get(e, "repetitions")));
        }
}

static void write_meta(const struct hb_fig_in *in, const struct curves *c, struct hb_range x,
                       struct hb_range y, struct hb_text *dat)
{
    hb_dat_block(dat, "meta");
    hb_dat_meta(dat, "title", "%s", in->fig->title);
    struct hb_range n = {INFINITY, -INFINITY};
    sample_range(c, &n);
    if (in->fig->metric == HB_METRIC_TIME && n.hi > n.lo)
        hb_dat_meta(dat, "sub", "%s. Medians of %.0f to %.0f samples; bars: 95 %% interval",
                    hb_setting_words(in->st, in->at).s, n.lo, n.hi);
    else if (in->fig->metric == HB_METRIC_TIME && n.hi > 0)
        hb_dat_meta(dat, "sub", "%s. Medians of %.0f samples; bars: 95 %% interval",
                    hb_setting_words(in->st, in->at).s, n.hi);
    else hb_dat_meta(dat, "sub", "%s", hb_setting_words(in->st, in->at).s);
    hb_dat_meta(dat, "curves", "%d", c->drawn);
    hb_dat_meta(dat, "xmin", "%.17g", x.lo);
    hb_dat_meta(dat, "xmax", "%.17g", x.hi);
    hb_dat_meta(dat, "ymin", "%.17g", y.lo);
    hb_dat_meta(dat, "ymax", "%.17g", y.hi);
}

static void write_series(const struct hb_fig_in *in, const struct curves *c, struct hb_text *dat)
{
    hb_dat_block(dat, "series: implementation, label, spare look");
    for (int i = 0; i < c->n; i++)
        hb_text_add(dat, "\"%s\" \"%s\" %d\n", c->s[i]->impl,
                    hb_series_label(&in->st->set, c->s[i]).s, hb_look_spare(in->st, c->s[i]->impl));
}

// Points without a value: one row each. Each curve has its own height below the edge; a run of
// equal statuses is named once. x grows to hold them, except where they are not drawn.
// Returns how many curves have such points.
static int write_failed(const struct curves *c, struct hb_range *x, struct hb_text *dat)
{
    int total = 0, rank = 0;
    hb_dat_block(dat, "failed: L, curve, rank below the edge, status");
    for (int i = 0; i < c->n; i++) {
        const char *last = "";
        const int before = total;
        for (size_t k = 0; k < c->s[i]->n; k++) {
            const struct hb_cell *f = c->s[i]->cell[k];
            const bool drawn = !hb_cell_ok(f) &&
                               strcmp(f->status, "dropped");  // dropped: never tried
            if (drawn) {
                hb_text_add(dat, "%lld %d %d \"%s\"\n", (long long)f->pt.p.L, i + 1, rank,
                            strcmp(last, f->status) ? f->status : "");
                hb_range_add(x, (double)f->pt.p.L);
                total++;
            }
            last = drawn ? f->status : "";
        }
        rank += total > before;
    }
    if (!total) hb_text_add(dat, "NaN NaN NaN \"\"\n");
    return rank;
}

// Guides through the lower left corner of the data: they fan out, and a curve runs along the one it
// follows.
static void write_guides(const struct hb_fig_in *in, struct hb_range x, struct hb_range y,
                         struct hb_text *dat)
{
    const int steps = 32;
    hb_dat_block(dat, in->fig->metric == HB_METRIC_ERROR ? "guides: L, eps sqrt(log2 M), M = 2L"
                                                         : "guides: L, ~L, ~L log L, ~L^2");
    for (int i = 0; i <= steps; i++) {
        const double L = x.lo * pow(x.hi / x.lo, (double)i / steps), q = L / x.lo;
        if (in->fig->metric == HB_METRIC_ERROR)
            hb_text_add(dat, "%.17g %.17g\n", L,
                        0x1p-24 * sqrt(log2(2 * L)));  // eps: unit roundoff of float32
        else
            hb_text_add(dat, "%.17g %.17g %.17g %.17g\n", L, y.lo * q,
                        y.lo * q * log2(L) / log2(x.lo), y.lo * q * q);
    }
}

// The next longer length after `after` at which a series of this operator, from the i-th on, was
// tried; 0: none.
static int64_t next_tried(const struct curves *c, int i, int64_t after)
{
    int64_t next = 0;
    for (int j = i; j < c->n; j++)
        for (size_t k = 0; k < c->s[j]->n && c->s[j]->op == c->s[i]->op; k++) {
            const int64_t L = c->s[j]->cell[k]->pt.p.L;
            if (L > after && (!next || L < next)) next = L;
        }
    return next;
}

// The bound of each operator: what this machine's peaks allow any exact method, from the records.
static void write_bounds(const struct curves *c, struct hb_text *dat)
{
    struct hb_text names = {0};
    int n = 0;
    for (int i = 0; i < c->n; i++) {
        bool seen = false;  // curves that only failed stand at the end, whatever their operator
        for (int j = 0; j < i; j++) seen = seen || c->s[j]->op == c->s[i]->op;
        if (seen) continue;
        struct hb_text block = {0};
        for (int64_t L = 0; (L = next_tried(c, i, L));) {
            double best = INFINITY;
            for (int j = i; j < c->n; j++) {
                const struct hb_cell *o = hb_series_at(c->s[j], L);
                if (o && c->s[j]->op == c->s[i]->op && o->roof_ns > 0 && o->roof_ns < best)
                    best = o->roof_ns;
            }
            if (isfinite(best)) hb_text_add(&block, "%lld %.17g\n", (long long)L, best / 1e9);
        }
        if (block.n) {
            hb_dat_block(dat, "b%02d: L, seconds", ++n);
            hb_text_add(dat, "%s", block.s);
            hb_text_add(&names, "\"bound: any exact %s\"\n", hb_op_str(c->s[i]->op));
        }
        dat->failed = dat->failed || block.failed;
        hb_text_free(&block);
    }
    hb_dat_block(dat, "bounds: label");
    hb_text_add(dat, "%s", n ? names.s : "\"\"\n");
    hb_text_free(&names);
    hb_dat_block(dat, "counts");
    hb_dat_meta(dat, "bounds", "%d", n);
}

int hb_fig_curves(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    const enum hb_metric m = in->fig->metric;
    const double unit = m == HB_METRIC_TIME ? 1e-9 : 1;  // seconds; bytes and errors as they are
    const struct curves c = curves_of(in);
    struct hb_range x = {INFINITY, -INFINITY}, y = {INFINITY, -INFINITY};
    struct hb_text body = {0}, failed = {0};
    int drawn = 0;
    for (int i = 0; i < c.drawn; i++) {
        hb_dat_block(&body, "s%02d %s: L, value, low, high", i + 1, c.s[i]->impl);
        int rows = 0;
        for (size_t k = 0; k < c.s[i]->n; k++) {
            const double v = hb_cell_value(c.s[i]->cell[k], m) * unit;
            if (!isfinite(v)) continue;
            const struct hb_interval ci = hb_cell_interval(c.s[i]->cell[k], m);
            hb_text_add(&body, "%lld %.17g %.17g %.17g\n", (long long)c.s[i]->cell[k]->pt.p.L, v,
                        ci.lo * unit, ci.hi * unit);
            hb_range_add(&x, (double)c.s[i]->cell[k]->pt.p.L);
            hb_range_add(&y, v);
            rows++;
        }
        drawn += rows > 1;
    }
    struct hb_range unused = x;
    const int n_failed = write_failed(&c, m == HB_METRIC_ERROR ? &unused : &x, &failed);
    if (drawn && x.lo < x.hi) {
        write_meta(in, &c, x, y, dat);
        hb_dat_meta(dat, "failed", "%d", n_failed);
        write_series(in, &c, dat);
        hb_text_add(dat, "\n\n%s\n\n%s", body.s, failed.s);
        write_guides(in, x, y, dat);
        if (m == HB_METRIC_TIME) write_bounds(&c, dat);
    } else snprintf(why, cap, "no implementation has this at two lengths");
    dat->failed = dat->failed || body.failed || failed.failed;
    hb_text_free(&body);
    hb_text_free(&failed);
    return hb_text_done(dat);
}

// --- local slope ---------------------------------------------------------------------------------

int hb_fig_slopes(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    const struct curves c = curves_of(in);
    struct hb_range x = {INFINITY, -INFINITY}, y = {INFINITY, -INFINITY};
    struct hb_text body = {0};
    for (int i = 0; i < c.drawn; i++) {
        struct hb_slope s[128];
        const size_t n = hb_series_slopes(c.s[i], HB_METRIC_TIME, s, sizeof s / sizeof *s);
        hb_dat_block(&body, "s%02d %s: L, d log time / d log L, low, high", i + 1, c.s[i]->impl);
        for (size_t k = 0; k < n; k++) {
            hb_text_add(&body, "%.17g %.17g %.17g %.17g\n", s[k].L, s[k].slope, s[k].ci95.lo,
                        s[k].ci95.hi);
            hb_range_add(&x, s[k].L);
            hb_range_add(&y, s[k].slope);
        }
    }
    if (x.lo < x.hi) {
        write_meta(in, &c, x, y, dat);
        write_series(in, &c, dat);
        hb_text_add(dat, "\n\n%s", body.s);
    } else snprintf(why, cap, "no implementation has times at three lengths");
    dat->failed = dat->failed || body.failed;
    hb_text_free(&body);
    return hb_text_done(dat);
}
