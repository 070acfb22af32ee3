// plotdata_lm.c: data files of figures about training: perplexity over L, loss over tokens and
// seconds, Pareto.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plot.h"

#define MAX_KINDS 24    // models of one figure
#define MAX_CURVE 4096  // points of one loss curve

// A kind is a model in the figure: pattern, implementation, control.
struct kinds {
    const struct hb_lm_run *k[MAX_KINDS];
    int n;
};

static bool same_kind(const struct hb_lm_run *a, const struct hb_lm_run *b)
{
    return !strcmp(a->model, b->model) && !strcmp(a->impl, b->impl) &&
           !strcmp(a->control, b->control);
}

static int kind_of(const struct kinds *k, const struct hb_lm_run *r)
{
    for (int i = 0; i < k->n; i++)
        if (same_kind(k->k[i], r)) return i + 1;
    return 0;
}

static struct kinds kinds_of(const struct hb_lm_set *s, const struct hb_lm_budget *b)
{
    struct kinds k = {.n = 0};
    for (size_t i = 0; i < s->n && k.n < MAX_KINDS; i++)
        if (hb_lm_in(&s->run[i], b) && !kind_of(&k, &s->run[i])) k.k[k.n++] = &s->run[i];
    return k;
}

// A control has a look of its own; else the implementation gives the look, as in every other
// figure.
static void series_row(const struct hb_lm_run *r, bool with_label, struct hb_text *dat)
{
    const char *look = r->control[0] || !r->impl[0] ? r->model : r->impl;
    char label[3 * HB_NAME_MAX];
    snprintf(label, sizeof label, "%s: %s", r->model, r->control[0] ? r->control : r->impl);
    hb_text_add(dat, "\"%s\" \"%s\" %d\n", look, with_label ? label : "",
                (int)(unsigned char)r->model[0]);
}

static void meta(const struct hb_fig_in *in, const struct hb_lm_run *one, const char *more,
                 struct hb_range x, struct hb_range y, struct hb_text *dat)
{
    hb_dat_block(dat, "meta");
    hb_dat_meta(dat, "title", "%s", in->fig->title);
    hb_dat_meta(dat, "sub", "%s; %s, %s tokens each (%lld steps), D %lld. %s",
                hb_results_chip(&in->st->r, one->machine, hb_on_gpu(one->device)), one->dataset,
                hb_str_len(one->train_tokens).s,
                (long long)one->steps, (long long)one->D, more);
    hb_dat_meta(dat, "xmin", "%.17g", x.lo);
    hb_dat_meta(dat, "xmax", "%.17g", x.hi);
    hb_dat_meta(dat, "ymin", "%.17g", y.lo);
    hb_dat_meta(dat, "ymax", "%.17g", y.hi);
}

static int no_runs(char *why, size_t cap)
{
    snprintf(why, cap, "no training runs: `hyena-bench train --suite` makes them");
    return 0;
}

// --- perplexity over L ---------------------------------------------------------------------------

static void kind_blocks(const struct hb_lm_set *s, const struct hb_lm_budget *b,
                        const struct kinds *k, int kind, struct hb_text *dat, struct hb_range *x,
                        struct hb_range *y)
{
    struct hb_text seeds = {0};
    hb_dat_block(dat, "m%02d: L, mean perplexity, low, high", kind);
    for (size_t i = 0; i < s->n;) {
        const struct hb_lm_group g = hb_lm_group_at(s, i);
        if (hb_lm_in(g.run, b) && kind_of(k, g.run) == kind) {
            const bool wide = isfinite(g.ci95.lo);
            hb_text_add(dat, "%lld %.17g %.17g %.17g\n", (long long)g.run->L, g.ppl,
                        wide ? g.ci95.lo : g.ppl, wide ? g.ci95.hi : g.ppl);
            hb_range_add(x, (double)g.run->L);
            for (size_t q = 0; q < g.n; q++) {
                hb_text_add(&seeds, "%lld %.17g\n", (long long)g.run->L, s->run[i + q].ppl);
                hb_range_add(y, s->run[i + q].ppl);
            }
            hb_range_add(y, g.ci95.lo);
            hb_range_add(y, g.ci95.hi);
        }
        i += g.n;
    }
    hb_dat_block(dat, "p%02d: L, perplexity of one seed", kind);
    hb_text_add(dat, "%s", seeds.n ? seeds.s : "NaN NaN\n");
    dat->failed = dat->failed || seeds.failed;
    hb_text_free(&seeds);
}

static int ngram_block(const struct hb_lm_set *s, const struct hb_lm_budget *b, struct hb_text *dat,
                       struct hb_range *y)
{
    int n = 0;
    hb_dat_block(dat, "ngrams: perplexity, label");
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *r = &s->run[i];
        if (!hb_lm_counts_in(r, b)) continue;
        hb_text_add(dat, "%.17g \"%s counts: %s\"\n", r->ppl, r->model, hb_str_num(r->ppl).s);
        hb_range_add(y, r->ppl);
        n++;
    }
    if (!n) hb_text_add(dat, "NaN \"\"\n");
    return n;
}

int hb_fig_perplexity(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    struct hb_lm_budget b;
    if (!hb_lm_main(&in->st->lm, in->machine, &b)) return no_runs(why, cap);
    const struct kinds k = kinds_of(&in->st->lm, &b);
    struct hb_range x = {INFINITY, -INFINITY}, y = {INFINITY, -INFINITY};
    struct hb_text body = {0};
    for (int i = 1; i <= k.n; i++) kind_blocks(&in->st->lm, &b, &k, i, &body, &x, &y);
    const int ngrams = ngram_block(&in->st->lm, &b, &body, &y);
    meta(in, k.k[0], "Bars: 95 % t interval over seeds", x, y, dat);
    hb_dat_meta(dat, "ngrams", "%d", ngrams);
    hb_dat_block(dat, "series: look, label, spare look");
    for (int i = 0; i < k.n; i++) series_row(k.k[i], true, dat);
    hb_text_add(dat, "\n\n%s", body.s ? body.s : "");
    dat->failed = dat->failed || body.failed;
    hb_text_free(&body);
    return hb_text_done(dat);
}

// --- loss over tokens or seconds
// ----------------------------------------------------------------------- The length with the most
// runs: where the controls were trained, too.
static int64_t busiest_length(const struct hb_lm_set *s, const struct hb_lm_budget *b)
{
    int64_t best = 0;
    size_t best_n = 0;
    for (size_t i = 0; i < s->n; i++) {
        size_t n = 0;
        if (!hb_lm_in(&s->run[i], b)) continue;
        for (size_t k = 0; k < s->n; k++)
            n += hb_lm_in(&s->run[k], b) && s->run[k].L == s->run[i].L;
        if (n > best_n || (n == best_n && s->run[i].L > best)) {
            best = s->run[i].L;
            best_n = n;
        }
    }
    return best;
}

static int loss_figure(const struct hb_fig_in *in, const char *x_key, struct hb_text *dat,
                       char *why, size_t cap)
{
    struct hb_lm_budget b;
    const struct hb_lm_set *s = &in->st->lm;
    if (!hb_lm_main(s, in->machine, &b)) return no_runs(why, cap);
    const int64_t L = busiest_length(s, &b);
    double *xs = malloc(2 * MAX_CURVE * sizeof *xs);
    if (!xs) return hb_fail(HB_ERR_OOM, "no memory for a loss curve");
    struct hb_range x = {INFINITY, -INFINITY}, y = {INFINITY, -INFINITY};
    struct hb_text body = {0}, names = {0};
    const struct hb_lm_run *last = NULL;
    int n = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *r = &s->run[i];
        if (!hb_lm_in(r, &b) || r->L != L) continue;
        const size_t m = hb_lm_curve(r, x_key, xs, xs + MAX_CURVE, MAX_CURVE);
        if (m < 2) continue;
        series_row(r, !last || !same_kind(last, r), &names);
        hb_dat_block(&body, "s%02d: %s, training loss in nats, seed %lld", ++n, x_key,
                     (long long)r->seed);
        for (size_t q = 0; q < m; q++) {
            hb_text_add(&body, "%.17g %.17g\n", xs[q], xs[MAX_CURVE + q]);
            hb_range_add(&x, xs[q]);
            hb_range_add(&y, xs[MAX_CURVE + q]);
        }
        last = r;
    }
    free(xs);
    if (n) {
        char more[96];
        snprintf(more, sizeof more, "L %lld; one line per seed", (long long)L);
        meta(in, last, more, x, y, dat);
        hb_dat_meta(dat, "xlabel", "%s",
                    strcmp(x_key, "tokens") ? "wall-clock time of training" : "tokens seen");
        hb_dat_meta(dat, "xunit", "%s", strcmp(x_key, "tokens") ? "s" : "");
        hb_dat_block(dat, "series: look, label, spare look");
        hb_text_add(dat, "%s\n\n%s", names.s, body.s);
    } else snprintf(why, cap, "the training runs hold no loss curve");
    dat->failed = dat->failed || body.failed || names.failed;
    hb_text_free(&body);
    hb_text_free(&names);
    return hb_text_done(dat);
}

int hb_fig_loss_tokens(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    return loss_figure(in, "tokens", dat, why, cap);
}

int hb_fig_loss_seconds(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    return loss_figure(in, "seconds", dat, why, cap);
}

// --- Pareto --------------------------------------------------------------------------------------

// Lengths that stand beside marks, as shares of the axes: a label takes LABEL_W by LABEL_H.
#define LABEL_W 0.08
#define LABEL_H 0.03
struct marks { double x[MAX_KINDS * 16], y[MAX_KINDS * 16]; size_t n; };

static bool room_for(struct marks *m, double x, double y)
{
    for (size_t i = 0; i < m->n; i++)
        if (fabs(x - m->x[i]) < LABEL_W && fabs(y - m->y[i]) < LABEL_H) return false;
    if (m->n == sizeof m->x / sizeof *m->x) return false;
    m->x[m->n] = x;
    m->y[m->n++] = y;
    return true;
}

int hb_fig_pareto(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    struct hb_lm_budget b;
    const struct hb_lm_set *s = &in->st->lm;
    if (!hb_lm_main(s, in->machine, &b)) return no_runs(why, cap);
    const struct kinds k = kinds_of(s, &b);
    struct hb_range x = {INFINITY, -INFINITY}, y = {INFINITY, -INFINITY};
    struct hb_text body = {0};
    for (size_t i = 0; i < s->n; i++) {
        if (!hb_lm_in(&s->run[i], &b)) continue;
        hb_range_add(&x, s->run[i].token_s);
        hb_range_add(&y, s->run[i].ppl);
    }
    struct marks m = {.n = 0};
    for (int kind = 1; kind <= k.n; kind++) {
        hb_dat_block(&body, "s%02d: seconds per token, perplexity, L", kind);
        int rows = 0;
        for (size_t i = 0; i < s->n; i++) {
            const struct hb_lm_run *r = &s->run[i];
            const double t = r->token_s;
            if (!hb_lm_in(r, &b) || kind_of(&k, r) != kind || !isfinite(t) || !isfinite(r->ppl))
                continue;
            // The length stands beside the first seed only, and only where there is room for it.
            const bool first =
                (i == 0 || s->run[i - 1].L != r->L || !same_kind(&s->run[i - 1], r)) &&
                room_for(&m, log(t / x.lo) / log(x.hi / x.lo), log(r->ppl / y.lo) /
                         log(y.hi / y.lo));
            hb_text_add(&body, "%.17g %.17g \"%s%.0lld\"\n", t, r->ppl, first ? " " : "",
                        first ? (long long)r->L : 0);
            rows++;
        }
        if (!rows) hb_text_add(&body, "NaN NaN \"\"\n");
    }
    if (x.hi > 0) {
        meta(in, k.k[0], "One mark per seed; the number is L", x, y, dat);
        hb_dat_block(dat, "series: look, label, spare look");
        for (int i = 0; i < k.n; i++) series_row(k.k[i], true, dat);
        hb_text_add(dat, "\n\n%s", body.s);
    } else snprintf(why, cap, "the training runs hold no times");
    dat->failed = dat->failed || body.failed;
    hb_text_free(&body);
    return hb_text_done(dat);
}
