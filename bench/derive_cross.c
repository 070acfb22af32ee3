// derive_cross.c: crossovers, exponents and local slopes of series.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "derive.h"
#include "table.h"

#define MAX_LENGTHS 512     // of one series; a sweep with refinement has a few dozen
#define SLOPE_STEP  1.4     // closer lengths turn 1 % of noise into a slope error above 0.03

// --- which pairs ---------------------------------------------------------------------------------

static bool worth_comparing(const struct hb_series *a, const struct hb_series *b)
{
    if (hb_setting_cmp(&a->set, &b->set)) return false;
    if (a->set.scope == HB_SCOPE_OPERATOR) return a->op == HB_MHA && b->op == HB_HYENA;
    return a->op == b->op;  // core: methods for the same function
}

static bool named(const struct hb_series *s, const char *impl)
{
    return !impl || !strcmp(s->impl, impl);
}

// --- one pair ------------------------------------------------------------------------------------

static size_t common_points(const struct hb_series *a, const struct hb_series *b, enum hb_metric m,
                            struct hb_curve_pt *p, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n && n < cap; i++) {
        const int64_t L = a->cell[i]->pt.p.L;
        const struct hb_cell *cb = hb_series_at(b, L);
        const double va = hb_cell_value(a->cell[i], m), vb = hb_cell_value(cb, m);
        if (!isfinite(va) || !isfinite(vb)) continue;
        const struct hb_interval ia = hb_cell_interval(a->cell[i], m), ib = hb_cell_interval(cb, m);
        p[n++] = (struct hb_curve_pt){(double)L, va, ia.lo, ia.hi, vb, ib.lo, ib.hi};
    }
    return n;
}

static struct hb_ratio ratio_at(const struct hb_crossover *c, double L)
{
    const struct hb_cell *a = hb_series_at(c->a, (int64_t)L), *b = hb_series_at(c->b, (int64_t)L);
    if (c->metric == HB_METRIC_TIME) return hb_cell_ratio(a, b);
    const double v = hb_cell_value(a, c->metric) / hb_cell_value(b, c->metric);
    return (struct hb_ratio){v, {v, v}};
}

static bool crossover_of(struct hb_crossover *c)
{
    struct hb_curve_pt p[MAX_LENGTHS];
    c->n = common_points(c->a, c->b, c->metric, p, MAX_LENGTHS);
    if (c->n < 2) return false;  // one length is a ratio, not a curve
    c->L_lo = p[0].L;
    c->L_hi = p[c->n - 1].L;
    hb_cross(p, c->n, 1, &c->x);
    // Bytes are counted and have no noise: L* lies between two measured lengths, and that is all.
    if (c->metric == HB_METRIC_MEMORY && c->x.n_crossings)
        c->x.ci95 = (struct hb_interval){c->x.bracket_lo, c->x.bracket_hi};
    c->first = ratio_at(c, c->L_lo);
    c->last = ratio_at(c, c->L_hi);
    return true;
}

static int push(struct hb_crossover_set *out, size_t *cap, const struct hb_crossover *c)
{
    if (out->n == *cap) {
        *cap = *cap ? 2 * *cap : 32;
        struct hb_crossover *p = realloc(out->c, *cap * sizeof *p);
        if (!p) return hb_fail(HB_ERR_OOM, "no memory for %zu crossovers", *cap);
        out->c = p;
    }
    out->c[out->n++] = *c;
    return 0;
}

int hb_crossovers_make(const struct hb_series_set *set, const char *a, const char *b,
                       struct hb_crossover_set *out)
{
    static const enum hb_metric metrics[] = {HB_METRIC_TIME, HB_METRIC_MEMORY};
    *out = (struct hb_crossover_set){0};
    size_t cap = 0;
    for (size_t i = 0; i < set->n; i++) {
        for (size_t j = 0; j < set->n; j++) {
            const struct hb_series *x = &set->s[i], *y = &set->s[j];
            if (i == j || !worth_comparing(x, y)) continue;
            // One operator: each pair once, alphabetical, unless the caller named the order.
            const bool asked = (a || b) && named(x, a) && named(y, b);
            if ((a || b) ? !asked : x->op == y->op && i > j) continue;
            for (size_t m = 0; m < sizeof metrics / sizeof *metrics; m++) {
                struct hb_crossover c = {.a = x, .b = y, .metric = metrics[m]};
                if (!crossover_of(&c)) continue;
                const int rc = push(out, &cap, &c);
                if (rc) {
                    hb_crossovers_free(out);
                    return rc;
                }
            }
        }
    }
    return 0;
}

void hb_crossovers_free(struct hb_crossover_set *set)
{
    free(set->c);
    *set = (struct hb_crossover_set){0};
}

const char *hb_cross_kind_str(enum hb_cross_kind k)
{
    static const char *const names[] = {"single", "multiple", "none_a", "none_b", "tie"};
    return names[k];
}

struct hb_words hb_cross_words(const struct hb_crossover *c, const char *a, const char *b)
{
    struct hb_words w;
    const bool time = c->metric == HB_METRIC_TIME;
    const char *better = time ? "faster" : "smaller", *winner = c->x.b_wins_after ? b : a;
    switch (c->x.kind) {
    case HB_CROSS_SINGLE:
    case HB_CROSS_MULTIPLE:
        snprintf(w.s, sizeof w.s, "L* = %s %s, then %s %s%s", hb_str_len(c->x.L_star).s,
                 hb_str_lens(c->x.ci95).s, winner, better,
                 c->x.kind == HB_CROSS_MULTIPLE ? " (the last of several crossings)" : "");
        break;
    case HB_CROSS_NONE_A:
    case HB_CROSS_NONE_B:
        if (c->x.n_tied)
            snprintf(w.s, sizeof w.s,
                     "no crossover in range (%s %s at %zu of %zu lengths, %s at the others)",
                     winner, better, c->n - c->x.n_tied, c->n, time ? "undecided" : "equal");
        else
            snprintf(w.s, sizeof w.s, "no crossover in range (%s %s everywhere)", winner, better);
        break;
    case HB_CROSS_TIE:
        snprintf(w.s, sizeof w.s, "tie (%s at every length)",
                 time ? "the intervals overlap" : "equal");
        break;
    }
    return w;
}

// --- exponents and slopes ------------------------------------------------------------------------

static size_t finite_points(const struct hb_series *s, enum hb_metric m, double *L, double *v,
                            size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n && n < cap; i++) {
        v[n] = hb_cell_value(s->cell[i], m);
        L[n] = (double)s->cell[i]->pt.p.L;
        n += isfinite(v[n]) != 0;
    }
    return n;
}

static bool fit_points(const double *L, const double *v, size_t n, struct hb_fit *out)
{
    if (n < 3 || hb_powerfit(L, v, n, &out->f)) {
        hb_error_clear();
        return false;
    }
    out->L_lo = L[0];
    out->L_hi = L[n - 1];
    out->n = n;
    return true;
}

bool hb_series_fit_from(const struct hb_series *s, enum hb_metric m, double L_from,
                        struct hb_fit *out)
{
    double L[MAX_LENGTHS], v[MAX_LENGTHS];
    const size_t n = finite_points(s, m, L, v, MAX_LENGTHS - 1);
    size_t from = 0;
    while (from < n && L[from] < L_from) from++;
    return fit_points(L + from, v + from, n - from, out);
}

bool hb_series_fit(const struct hb_series *s, enum hb_metric m, struct hb_fit *out)
{
    double L[MAX_LENGTHS], v[MAX_LENGTHS];
    if (hb_series_fit_from(s, m, HB_FIT_FROM, out)) return true;
    const size_t n = finite_points(s, m, L, v, MAX_LENGTHS - 1);
    return fit_points(L + n / 2, v + n / 2, n - n / 2, out);
}

size_t hb_series_slopes(const struct hb_series *s, enum hb_metric m, struct hb_slope *out,
                        size_t cap)
{
    size_t n = 0;
    const struct hb_cell *last = NULL;
    for (size_t i = 0; i < s->n && n < cap; i++) {
        const struct hb_cell *c = s->cell[i];
        if (!isfinite(hb_cell_value(c, m))) continue;
        if (last && (double)c->pt.p.L < SLOPE_STEP * (double)last->pt.p.L) continue;
        if (last) {
            const double dl = log((double)c->pt.p.L / (double)last->pt.p.L);
            const struct hb_interval a = hb_cell_interval(last, m), b = hb_cell_interval(c, m);
            const double h = hypot(log(a.hi / a.lo) / 2, log(b.hi / b.lo) / 2) /
                             dl;  // half-widths in quadrature
            const double slope = log(hb_cell_value(c, m) / hb_cell_value(last, m)) / dl;
            out[n++] = (struct hb_slope){
                sqrt((double)c->pt.p.L * (double)last->pt.p.L), slope, {slope - h, slope + h}};
        }
        last = c;
    }
    return n;
}
