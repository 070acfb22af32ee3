// fits.c: the rules `exponent` and `crossing`.
//
//     exponent  of        a point without L; metric: time (default) or memory; L_from, L_to: the
//                         lengths that are fitted. Value: e of c L^e
//     crossing  a, b      points without L; value: the length from which b is faster
// Interval  of an exponent: t quantile of the fit; it holds what bends the curve too. Of a length:
//           crossing.c.
// Bound     of an exponent: that of the work model's FLOP (time) or compulsory bytes (memory) over
//           the same lengths. Of a crossing: the first length at which b's roofline is below a's.
#include <math.h>
#include <string.h>

#include "judge.h"

enum { MAX_POINTS = 256 };

// Whether the implementation of `before` was passed over at this length: measured at longer ones,
// but not here, so that the fastest of those measured here may be slower than it.
static bool passed_over(const struct hb_evidence *e, const struct hb_query *q, const char *machine,
                        const struct hb_cell *before)
{
    bool longer = false;
    for (size_t i = 0; i < e->r->n; i++) {
        const struct hb_cell *c = &e->r->cells[i];
        struct hb_query at = *q;
        if (!hb_cell_ok(c) || !c->has_pt || strcmp(c->pt.impl, before->pt.impl)
            || strcmp(hb_file_machine(c->file), machine))
            continue;
        at.L = c->pt.p.L;
        if (!hb_query_matches(&at, c)) continue;
        if (at.L == q->L) return false;
        longer |= at.L > q->L;
    }
    return longer;
}

// The fastest cells of that machine, one a length, ascending.
static size_t curve(const struct hb_evidence *e, struct hb_query q, const char *machine,
                    const struct hb_cell **out)
{
    size_t n = 0;
    for (int64_t last = 0; n < MAX_POINTS;) {
        int64_t next = INT64_MAX;
        q.L = 0;
        for (size_t i = 0; i < e->r->n; i++) {
            const struct hb_cell *c = &e->r->cells[i];
            if (hb_cell_ok(c) && c->has_pt && c->pt.p.L > last && c->pt.p.L < next &&
                hb_query_matches(&q, c) && !strcmp(hb_file_machine(c->file), machine))
                next = c->pt.p.L;
        }
        if (next == INT64_MAX) return n;
        last = q.L = next;
        const struct hb_cell *c = hb_query_find(e, &q, machine);
        if (hb_cell_ok(c) && !(n && passed_over(e, &q, machine, out[n - 1]))) out[n++] = c;
    }
    return n;
}

static double model_exponent(const struct hb_cell *const *c, size_t n, bool memory)
{
    double L[MAX_POINTS], y[MAX_POINTS];
    struct hb_powerfit f;
    for (size_t i = 0; i < n; i++) {
        L[i] = (double)c[i]->pt.p.L;
        y[i] = memory ? c[i]->bytes_min : c[i]->flop;
        if (!(y[i] > 0)) return NAN;
    }
    return hb_powerfit(L, y, n, &f) ? NAN : f.exponent;
}

int hb_rule_exponent(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    struct hb_query q;
    const char *machine[64], *metric = json_string_value(json_object_get(check, "metric"));
    const bool memory = metric && !strcmp(metric, "memory");
    const double from = json_number_value(json_object_get(check, "L_from")),
                 to = json_number_value(json_object_get(check, "L_to"));
    const struct hb_cell *all[MAX_POINTS], *c[MAX_POINTS];
    double L[MAX_POINTS], y[MAX_POINTS];
    size_t n = 0, n_machines = hb_machines(e->r, machine, 64);
    const int rc = hb_query_read(check, "of", &q);
    if (rc) return rc;
    hb_query_command(&q, out->command, sizeof out->command);
    for (size_t k = 0; k < n_machines && n < 3; k++) {
        const size_t m = curve(e, q, machine[k], all);
        n = 0;
        for (size_t i = 0; i < m; i++) {
            const double v = hb_cell_value(all[i], memory ? HB_METRIC_MEMORY : HB_METRIC_TIME);
            const int64_t len = all[i]->pt.p.L;
            // Odd lengths have other plans; the doubling ones make one curve.
            if (!isfinite(v) || (double)len < from || (to > 0 && (double)len > to) ||
                (len & (len - 1)))
                continue;
            c[n] = all[i];
            L[n] = (double)len;
            y[n++] = v;
        }
        out->machine = machine[k];
    }
    struct hb_powerfit f;
    if (n < 3 || hb_powerfit(L, y, n, &f)) {
        hb_error_clear();
        out->machine = NULL;
        hb_outcome_none(out, "fewer than three lengths of `%s`%s", q.impl,
                        from > 0 ? " in that range" : "");
        return 0;
    }
    out->value = f.exponent;
    out->ci = f.ci95;
    snprintf(out->ours, sizeof out->ours, "exponent %.3f [%.3f, %.3f] (`%s`, L %.0f to %.0f)",
             f.exponent, f.ci95.lo, f.ci95.hi, c[0]->pt.impl, L[0], L[n - 1]);
    const double model = model_exponent(c, n, memory);
    if (isfinite(model))
        snprintf(out->bound, sizeof out->bound, "%.3f (%s)", model,
                 memory ? "bytes that must move" : "FLOPs");
    for (size_t i = 0; i < n; i++) hb_outcome_file(out, c[i]->file);
    return 0;
}

// Lengths that both have.
static size_t common(const struct hb_cell *const *a, size_t na, const struct hb_cell *const *b,
                     size_t nb, struct hb_curve_pt *p, double *roof_at)
{
    size_t n = 0;
    *roof_at = NAN;
    for (size_t i = 0, k = 0; i < na && k < nb;) {
        const int64_t la = a[i]->pt.p.L, lb = b[k]->pt.p.L;
        if (la != lb) {
            if (la < lb) i++;
            else k++;
            continue;
        }
        const struct hb_interval ia = hb_cell_interval(a[i], HB_METRIC_TIME),
                                 ib = hb_cell_interval(b[k], HB_METRIC_TIME);
        p[n++] = (struct hb_curve_pt){(double)la, a[i]->median_ns, ia.lo, ia.hi,
                                      b[k]->median_ns, ib.lo, ib.hi};
        if (isnan(*roof_at) && b[k]->roof_ns < a[i]->roof_ns) *roof_at = (double)la;
        i++;
        k++;
    }
    return n;
}

int hb_rule_crossing(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    struct hb_query qa, qb;
    struct hb_curve_pt p[MAX_POINTS];
    const struct hb_cell *a[MAX_POINTS], *b[MAX_POINTS];
    const char *machine[64];
    size_t n = 0, na = 0, nb = 0, n_machines = hb_machines(e->r, machine, 64);
    double roof_at = NAN;
    int rc = hb_query_read(check, "a", &qa);
    if (!rc) rc = hb_query_read(check, "b", &qb);
    if (rc) return rc;
    snprintf(out->command, sizeof out->command, "hyena-bench crossover --a %s --b %s", qa.impl,
             qb.impl);
    for (size_t k = 0; k < n_machines && n < 2; k++) {
        na = curve(e, qa, machine[k], a);
        nb = curve(e, qb, machine[k], b);
        n = common(a, na, b, nb, p, &roof_at);
        out->machine = machine[k];
    }
    if (n < 2) {
        out->machine = NULL;
        hb_outcome_none(out, "the two share fewer than two lengths");
        return 0;
    }
    struct hb_crossing x;
    hb_cross(p, n, 1, &x);
    snprintf(out->of, sizeof out->of, "from where on `%.100s` is faster than `%.100s`", qb.impl,
             qa.impl);
    for (size_t i = 0; i < na; i++) hb_outcome_file(out, a[i]->file);
    for (size_t i = 0; i < nb; i++) hb_outcome_file(out, b[i]->file);
    if (isfinite(roof_at))
        snprintf(out->bound, sizeof out->bound, "%.0f (first length at which the roofline of `%s` "
                                                "is lower)", roof_at, qb.impl);
    if (x.kind == HB_CROSS_TIE || !x.L_star || !x.b_wins_after) {
        // Without a crossing in range it lies before the first length or behind the last.
        const bool before = x.kind == HB_CROSS_NONE_B;
        out->verdict = x.kind == HB_CROSS_TIE ? HB_INCONCLUSIVE
                       : x.L_star             ? HB_CONTRADICTED
                                              : NULL;
        if (!out->verdict) {
            out->value = before ? p[0].L : p[n - 1].L;
            out->ci = before ? (struct hb_interval){0, out->value}
                             : (struct hb_interval){out->value, INFINITY};
        }
        snprintf(out->ours, sizeof out->ours, "%s from L %.0f to %.0f",
                 x.kind == HB_CROSS_TIE ? "undecided" : x.kind == HB_CROSS_NONE_B
                     ? "the second is faster throughout" : "the first is faster at the long end",
                 p[0].L, p[n - 1].L);
        return 0;
    }
    out->value = x.L_star;
    out->ci = x.ci95;
    snprintf(out->ours, sizeof out->ours, "from L = %s %s on", hb_str_len(x.L_star).s,
             hb_str_lens(x.ci95).s);
    return 0;
}
