// ratio.c: the rule `ratio`.
//
//     a, b    sides (side.h)
//     L       a length or a list of them
//     over    each (default): every length must lie in the band; max, min: the largest or smallest
//             ratio counts; rises: the smallest growth from one length to the next
//     of      time (default), memory, flop_rate, roof_share (of what the roofline allows): what is
//             divided, a by b
// A length that was not measured could decide: without all of them only `each` can, against.
// Interval  both sides ours: bootstrap of the ratio of medians; else of the two sides' (side.h).
// Bound     a's time over the time that b would take at its roofline; mha over hyena also the ratio
//           of FLOPs: what equal FLOP/s would give.
#include <math.h>
#include <string.h>

#include "../work.h"
#include "judge.h"
#include "side.h"

enum { MAX_L = 64 };
static const struct { const char *key, *words; } whats[] = {
    [HB_OF_TIME] = {"time", "time"},
    [HB_OF_MEMORY] = {"memory", "memory"},
    [HB_OF_FLOP_RATE] = {"flop_rate", "FLOP/s"},
    [HB_OF_ROOF_SHARE] = {"roof_share", "share of the roofline"},
};

static struct hb_ratio divide(const struct hb_side_number *a, const struct hb_side_number *b,
                              enum hb_of of)
{
    struct hb_ratio q = {a->v / b->v, {NAN, NAN}};
    if (!isfinite(q.r)) return q;
    if (of != HB_OF_MEMORY && a->cell && b->cell) {
        q = hb_cell_ratio(a->cell, b->cell);
        if (of == HB_OF_TIME) return q;
        // Work over time: the ratio of times is turned over.
        const double work = hb_side_work(a->cell, of) / hb_side_work(b->cell, of);
        return (struct hb_ratio){work / q.r, {work / q.ci95.hi, work / q.ci95.lo}};
    }
    const double h = hypot(log(a->ci.hi / a->ci.lo) / 2, log(b->ci.hi / b->ci.lo) / 2);
    q.ci95 = (struct hb_interval){q.r * exp(-h), q.r * exp(h)};
    return q;
}

struct row { int64_t L; struct hb_ratio q; struct hb_side_number a, b; };

// The ratio at every length of the list that has both sides on this machine.
static size_t rows_on(const struct hb_evidence *e, const struct hb_side *a, const struct hb_side *b,
                      const int64_t *L, size_t n, enum hb_of of, const char *machine,
                      struct row *out)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        struct hb_side sa = *a, sb = *b;
        struct row r = {.L = L[i]};
        const bool pa = hb_side_elsewhere(a), pb = hb_side_elsewhere(b);
        if (pa) r.a = hb_side_theirs(e, a, L[i], of);
        if (pb) r.b = hb_side_theirs(e, b, L[i], of);
        // Beside a peer our point has the peer's batch and width, unless the check names others.
        if (pa && !pb && !sb.q.B) sb.q.B = r.a.B, sb.q.D = r.a.D;
        if (pb && !pa && !sa.q.B) sa.q.B = r.b.B, sa.q.D = r.b.D;
        if (!pa) r.a = hb_side_own(e, &sa, L[i], of, machine);
        if (!pb) r.b = hb_side_own(e, &sb, L[i], of, machine);
        r.q = divide(&r.a, &r.b, of);
        if (isfinite(r.q.r)) out[m++] = r;
    }
    return m;
}

static size_t lengths(const json_t *check, int64_t *L)
{
    const json_t *l = json_object_get(check, "L");
    size_t n = 0;
    if (json_is_integer(l)) L[n++] = json_integer_value(l);
    for (size_t i = 0; i < json_array_size(l) && n < MAX_L; i++)
        L[n++] = json_integer_value(json_array_get(l, i));
    return n;
}

static void say_bound(const struct row *r, const struct hb_side *a, enum hb_of of,
                      struct hb_outcome *out)
{
    const struct hb_cell *b = r->b.cell;
    size_t n = 0;
    if (of != HB_OF_TIME || !b || a->published) return;
    if (!a->peer && r->a.cell && r->a.cell->pt.p.op == HB_MHA && b->pt.p.op == HB_HYENA)
        n = (size_t)snprintf(out->bound, sizeof out->bound,
                             "%s at equal FLOP/s (%s if attention's upper triangle is not counted)"
                             "; ",
                             hb_str_num(hb_flop_bound_ratio(r->L, b->pt.p.D, false)).s,
                             hb_str_num(hb_flop_bound_ratio(r->L, b->pt.p.D, true)).s);
    if (b->roof_ns > 0)
        snprintf(out->bound + n, sizeof out->bound - n, "%s if `%s` ran at its roofline",
                 hb_str_num(r->a.v / b->roof_ns).s, b->pt.impl);
    else if (n) out->bound[n - 2] = 0;
}

// "0.927 [0.926, 0.928] at L 8192, the largest of 6 lengths, L 128 to 4096", of "time of `a` over
// `b`".
static void say(const struct row *r, size_t n, const struct row *shown, const struct hb_side *a,
                const struct hb_side *b, const char *over, enum hb_of of, struct hb_outcome *out)
{
    const bool rises = !strcmp(over, "rises");
    const struct hb_ratio q = {out->value, out->ci};
    const size_t cap = sizeof out->ours;
    int k = rises ? snprintf(out->ours, cap, "from each length to the next at least %s times as "
                                             "large, L %lld to %lld", hb_str_ratio(q).s,
                             (long long)r[0].L, (long long)r[n - 1].L)
                  : snprintf(out->ours, cap, "%s at L %lld", hb_str_ratio(q).s,
                             (long long)shown->L);
    snprintf(out->of, sizeof out->of, "%s of `%.100s` over `%.100s`", whats[of].words,
             hb_side_name(a, &shown->a), hb_side_name(b, &shown->b));
    double lo = INFINITY, hi = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        lo = fmin(lo, r[i].q.r);
        hi = fmax(hi, r[i].q.r);
    }
    if (n > 1 && !strcmp(over, "each"))
        k += snprintf(out->ours + k, cap - (size_t)k, "; %s to %s over", hb_str_num(lo).s,
                      hb_str_num(hi).s);
    else if (n > 1 && !rises)
        k += snprintf(out->ours + k, cap - (size_t)k, ", the %s of",
                      !strcmp(over, "max") ? "largest" : "smallest");
    if (n > 1 && !rises)
        k += snprintf(out->ours + k, cap - (size_t)k, " %zu lengths, L %lld to %lld", n,
                      (long long)r[0].L, (long long)r[n - 1].L);
    if (out->peers)
        snprintf(out->ours + k, cap - (size_t)k, "; other programs' numbers taken +- 5 %%");
    for (size_t i = 0; i < n; i++) {
        if (r[i].a.cell) hb_outcome_file(out, r[i].a.cell->file);
        if (r[i].b.cell) hb_outcome_file(out, r[i].b.cell->file);
        if (r[i].a.run) hb_outcome_file(out, r[i].a.run->cell->file);
        if (r[i].b.run) hb_outcome_file(out, r[i].b.run->cell->file);
    }
}

// What measures both sides again; with a row, the implementations that it has.
static void say_command(const struct hb_side *a, const struct hb_side *b, int64_t L,
                        const struct row *r, struct hb_outcome *out)
{
    struct hb_query q = a->q.impl ? a->q : b->q;
    const struct hb_side_number *first = r ? a->q.impl ? &r->a : &r->b : NULL;
    if (!q.impl || a->model || b->model) return;
    // Without a result a wildcard stands for no name that `run` would take.
    if (!r && (strchr(q.impl, '*') || (b->q.impl && strchr(b->q.impl, '*')))) return;
    q.L = L;
    if (first && first->cell) q.impl = first->cell->pt.impl;
    hb_query_command(&q, out->command, sizeof out->command);
    if (!a->q.impl || !b->q.impl) return;
    const size_t k = strlen(out->command);
    snprintf(out->command + k, sizeof out->command - k, " --against '%s'",
             r && r->b.cell ? r->b.cell->pt.impl : b->q.impl);
}

// Every length has its verdict; together the worst. Shown is the first that has it.
static int judge_each(const json_t *check, const struct row *r, size_t n, const struct row **shown,
                      struct hb_outcome *out)
{
    *shown = &r[0];
    for (size_t i = 0; i < n; i++) {
        const char *v = hb_judge(check, r[i].q.r, r[i].q.ci95), *both[2] = {out->verdict, v};
        if (!v) return HB_ERR_INPUT;
        const char *worse = i ? hb_verdict_join(both, 2, HB_JOIN_ALL) : v;
        if (i && worse != out->verdict) *shown = &r[i];
        out->verdict = worse;
    }
    return 0;
}

// The smallest growth of the ratio from one length to the next.
static struct hb_ratio growth(const struct row *r, size_t n)
{
    struct hb_ratio least = {INFINITY, {INFINITY, INFINITY}};
    for (size_t i = 0; i + 1 < n; i++) {
        const struct hb_ratio *q = &r[i].q, *next = &r[i + 1].q;
        const double g = next->r / q->r, h = hypot(log(q->ci95.hi / q->ci95.lo),
                                                   log(next->ci95.hi / next->ci95.lo)) / 2;
        if (g < least.r) least = (struct hb_ratio){g, {g * exp(-h), g * exp(h)}};
    }
    return least;
}

// Value, interval and, of `each`, the verdict.
static int judge_rows(const json_t *check, const struct row *r, size_t n, const char *over,
                      const struct row **shown, struct hb_outcome *out)
{
    int rc = 0;
    *shown = &r[0];
    if (!strcmp(over, "each")) rc = judge_each(check, r, n, shown, out);
    else if (!strcmp(over, "rises")) *shown = &r[n - 1];
    else
        for (size_t i = 1; i < n; i++)
            if (!strcmp(over, "max") ? r[i].q.r > (*shown)->q.r : r[i].q.r < (*shown)->q.r)
                *shown = &r[i];
    const struct hb_ratio q = !strcmp(over, "rises") ? growth(r, n) : (*shown)->q;
    out->value = q.r;
    out->ci = q.ci95;
    return rc;
}

// Why there is no ratio: a side that did not end well at the longest of the lengths, or nothing.
static void say_none(const struct hb_evidence *e, const struct hb_side *sides[2], int64_t L,
                     size_t n, struct hb_outcome *out)
{
    for (size_t i = 0; i < 2; i++) {
        if (hb_side_elsewhere(sides[i]) && isnan(hb_side_theirs(e, sides[i], L, HB_OF_TIME).v)) {
            hb_outcome_none(out, "results/peers has no `%s` at L %lld",
                            hb_side_name(sides[i], NULL), (long long)L);
            return;
        }
        struct hb_query q = sides[i]->q;
        q.L = L;
        const struct hb_cell *c = q.impl && !sides[i]->model ? hb_query_find(e, &q, NULL) : NULL;
        if (!c || hb_cell_ok(c) || !strcmp(c->status, "dropped")) continue;
        hb_outcome_none(out, "`%s` at L %lld: %s", c->pt.impl, (long long)L,
                        !strcmp(c->status, "oom") ? "out of memory" : c->status);
        return;
    }
    hb_outcome_none(out, "no result has both sides at %s",
                    n > 1 ? "any of these lengths" : "this length");
}

int hb_rule_ratio(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    struct hb_side a, b;
    int64_t L[MAX_L];
    struct row r[MAX_L];
    const char *machine[64], *over = json_string_value(json_object_get(check, "over")),
                             *what = json_string_value(json_object_get(check, "of"));
    enum hb_of of = HB_OF_TIME;
    while (what && of <= HB_OF_ROOF_SHARE && strcmp(what, whats[of].key)) of++;
    if (of > HB_OF_ROOF_SHARE) return hb_fail(HB_ERR_INPUT, "rule ratio: of '%.40s'", what);
    const size_t n = lengths(check, L), n_machines = hb_machines(e->r, machine, 64);
    int rc = hb_side_read(check, "a", &a);
    if (!rc) rc = hb_side_read(check, "b", &b);
    if (!rc && !n) rc = hb_fail(HB_ERR_INPUT, "rule ratio: no lengths \"L\"");
    if (rc) return rc;
    if (!over) over = "each";
    out->peers = a.peer || b.peer           ? "results/peers/h100-pytorch.tsv"
                 : a.training || b.training ? "results/peers/h100-pytorch-training.tsv"
                                            : NULL;
    const bool ours = !hb_side_elsewhere(&a) || !hb_side_elsewhere(&b);
    size_t m = ours ? 0 : rows_on(e, &a, &b, L, n, of, NULL, r);
    // Of several machines the one that has the most of the lengths, the newest first.
    for (size_t i = 0; ours && m < n && i < n_machines; i++) {
        struct row more[MAX_L];
        const size_t k = rows_on(e, &a, &b, L, n, of, machine[i], more);
        if (k <= m) continue;
        memcpy(r, more, k * sizeof *r);
        m = k;
        out->machine = machine[i];
    }
    say_command(&a, &b, L[n - 1], NULL, out);
    if (!m || (!strcmp(over, "rises") && m < 2)) {
        const struct hb_side *sides[2] = {&a, &b};
        out->peers = NULL;
        say_none(e, sides, L[n - 1], n, out);
        return 0;
    }
    const struct row *shown;
    rc = judge_rows(check, r, m, over, &shown, out);
    if (m < n && (!out->verdict || strcmp(out->verdict, HB_CONTRADICTED))) {
        out->verdict = HB_NOT_MEASURED;
        snprintf(out->why, sizeof out->why, "%zu of the %zu lengths were not measured", n - m, n);
    }
    say(r, m, shown, &a, &b, over, of, out);
    if (strcmp(over, "rises")) say_bound(shown, &a, of, out);
    say_command(&a, &b, shown->L, shown, out);
    return rc;
}
