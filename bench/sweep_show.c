// sweep_show.c: a sweep for people: the first curve, the tables at the end, the plan of a dry run.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "outcome.h"
#include "sweep.h"
#include "table.h"

enum { CHART_WIDTH = 64, MAX_CURVES = 26 };

static int flush(struct hb_text *out)
{
    int rc = hb_text_done(out);
    if (!rc && (fputs(out->s, stdout) < 0 || fflush(stdout)))
        rc = hb_fail(HB_ERR_RUN, "cannot write to stdout");
    hb_text_free(out);
    return rc;
}

// One table: a pass with one device, dtype and mode of a group.
struct view { enum hb_pass pass; struct sweep_settings set; };

static bool in_view(const struct hb_point *pt, const struct view *v)
{
    return pt->pass == v->pass && pt->p.dtype == v->set.dtype && pt->mode == v->set.mode
        && (!v->set.device[0] || !strcmp(pt->device, v->set.device));
}

static const struct sweep_item *at(const struct sweep *s, int group, const char *impl, int64_t L,
                                   const struct view *v)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct sweep_item *it = &s->items[i];
        if (it->n == 1 && it->groups >> group & 1 && in_view(&it->pt[0], v) && it->pt[0].p.L == L
            && !strcmp(it->pt[0].impl, impl) && it->state != ITEM_PENDING) return it;
    }
    return NULL;
}

// Dropped points are counted in the last line and stand in the file; here they would
// only fill the screen.
static bool shown(const struct sweep_item *it) { return it && it->state == ITEM_DONE; }

// The lengths of a group and pass for which there is an answer. Owned by the caller; NULL: none or
// no memory.
static int64_t *lengths_of(const struct sweep *s, int group, const struct view *v, size_t *n)
{
    int64_t *L = malloc((s->n + 1) * sizeof *L);
    size_t m = 0;
    for (size_t i = 0; L && i < s->n; i++) {
        const struct sweep_item *it = &s->items[i];
        if (it->n == 1 && it->groups >> group & 1 && in_view(&it->pt[0], v) && shown(it))
            L[m++] = it->pt[0].p.L;
    }
    *n = L ? hb_sort_unique(L, m) : 0;
    return L;
}

// --- the curve -----------------------------------------------------------------------------------

static bool timed(const struct sweep_item *it)
{
    return it && it->status && !strcmp(it->status, "ok");
}

static void chart_row(const struct sweep *s, int group, int64_t L, const struct view *v, double lo,
                      double hi, struct hb_text *out)
{
    const struct sweep_group *g = &s->file.groups[group];
    char row[CHART_WIDTH + 1], note[200] = "";
    memset(row, ' ', CHART_WIDTH);
    row[CHART_WIDTH] = 0;
    for (int k = 0; k < g->n_impls && k < MAX_CURVES; k++) {
        const struct sweep_item *it = at(s, group, g->impls[k], L, v);
        if (!timed(it)) {
            if (it)
                snprintf(note + strlen(note), sizeof note - strlen(note), "  %c: %s", 'a' + k,
                         it->status);
            continue;
        }
        int x = hi > lo ? (int)lround(log(it->median_ns / lo) / log(hi / lo) * (CHART_WIDTH - 1))
                        : 0;
        row[x] = row[x] == ' ' ? (char)('a' + k) : '*';
    }
    hb_text_add(out, "%8lld |%s|%s\n", (long long)L, row, note);
}

void hb_sweep_print_curve(const struct sweep *s, int group)
{
    const struct sweep_group *g = &s->file.groups[group];
    double lo = INFINITY, hi = 0;
    struct view v = { HB_PASS_FWD, hb_sweep_variant(&g->set, 0) };
    struct hb_text out = { 0 };
    while (v.pass < HB_PASS_COUNT && !g->set.pass[v.pass]) v.pass++;
    for (size_t i = 0; i < s->n; i++) {
        const struct sweep_item *it = &s->items[i];
        if (it->n != 1 || !(it->groups >> group & 1) || !in_view(&it->pt[0], &v) || !timed(it))
            continue;
        lo = fmin(lo, it->median_ns);
        hi = fmax(hi, it->median_ns);
    }
    if (!(hi > 0)) return;
    hb_text_add(&out, "\n%s: time, growing to the right (log scale), against length L, "
                      "growing downwards\n", g->title);
    for (int k = 0; k < g->n_impls && k < MAX_CURVES; k++)
        hb_text_add(&out, "   %c %s\n", 'a' + k, g->impls[k]);
    hb_text_add(&out, "%8s  %-*s%s\n", "L", CHART_WIDTH - (int)strlen(hb_str_time(hi).s) + 1,
                hb_str_time(lo).s, hb_str_time(hi).s);
    size_t n = 0;
    int64_t *L = lengths_of(s, group, &v, &n);
    for (size_t i = 0; L && i < n; i++) chart_row(s, group, L[i], &v, lo, hi, &out);
    hb_text_add(&out, "   (* two at the same place)\n\n");
    free(L);
    if (flush(&out)) hb_error_clear();       // a picture on the way is no reason to stop measuring
}

// --- the tables ----------------------------------------------------------------------------------

static void group_table(const struct sweep *s, int group, const struct view *v, struct hb_text *out)
{
    const struct sweep_group *g = &s->file.groups[group];
    struct hb_table t = { 0 };
    char heads[SWEEP_MAX_IMPLS * (HB_NAME_MAX + 2) + 8] = ">L";
    size_t n = 0;
    int64_t *L = lengths_of(s, group, v, &n);
    bool used[SWEEP_MAX_IMPLS] = { 0 };
    for (int k = 0; k < g->n_impls; k++) {
        for (size_t i = 0; i < n; i++)
            used[k] = used[k] || shown(at(s, group, g->impls[k], L[i], v));
        if (used[k])
            snprintf(heads + strlen(heads), sizeof heads - strlen(heads), "|>%s", g->impls[k]);
    }
    if (n) {
        bool several = hb_sweep_variants(&g->set) > 1;
        hb_text_add(out, "\n%s, pass %s%s%s%s%s: median time\n", g->title, hb_pass_str(v->pass),
                    several ? ", " : "", several ? hb_dtype_str(v->set.dtype) : "",
                    several ? ", " : "", several ? hb_mode_str(v->set.mode) : "");
        hb_table_head(&t, heads);
        for (size_t i = 0; i < n; i++) {
            hb_table_cell(&t, "%lld", (long long)L[i]);
            for (int k = 0; k < g->n_impls; k++) {
                const struct sweep_item *it = at(s, group, g->impls[k], L[i], v);
                if (used[k])
                    hb_table_cell(&t, "%s", timed(it) ? hb_str_time(it->median_ns).s
                                          : it ? it->status : "");
            }
        }
        hb_table_print(&t, out);
    }
    free(L);
}

static void pair_table(const struct sweep *s, struct hb_text *out)
{
    struct hb_table t = { 0 };
    for (size_t i = 0; i < s->n; i++) {
        const struct sweep_item *it = &s->items[i];
        if (it->n != 2 || !shown(it)) continue;
        if (!t.cols) hb_table_head(&t, "time of|against|>B|>D|>L|pass|>ratio, 95 % interval");
        const struct hb_problem *p = &it->pt[0].p;
        struct hb_ratio r = { it->ratio, { it->ratio_lo, it->ratio_hi } };
        hb_table_cell(&t, "%s", it->pt[0].impl);
        hb_table_cell(&t, "%s", it->pt[1].impl);
        hb_table_cell(&t, "%lld", (long long)p->B);
        hb_table_cell(&t, "%lld", (long long)p->D);
        hb_table_cell(&t, "%lld", (long long)p->L);
        hb_table_cell(&t, "%s", hb_pass_str(it->pt[0].pass));
        hb_table_cell(&t, "%s", timed(it) ? hb_str_ratio(r).s : it->status);
    }
    if (t.cols) hb_text_add(out, "\nSide by side, alternated in one process\n");
    if (t.cols) hb_table_print(&t, out);
}

static void crossings(const struct sweep *s, struct hb_text *out)
{
    for (int i = 0; s->refine && i < s->file.n_refines; i++) {
        const struct sweep_refine *r = &s->file.refines[i];
        struct hb_crossing x;
        int n = hb_sweep_crossing(s, r, INT64_MAX, &x);
        if (n < 0) hb_error_clear();         // the table goes on without it
        const char *what = r->what == SWEEP_TIME ? "time" : "memory";
        hb_text_add(out, "%s%s against %s, %s: ", i ? "" : "\n", r->a, r->b, what);
        if (n < 2) hb_text_add(out, "fewer than two common lengths\n");
        else if (x.kind == HB_CROSS_TIE) hb_text_add(out, "a tie everywhere\n");
        else if (x.kind == HB_CROSS_NONE_A)
            hb_text_add(out, "the first is better at every length\n");
        else if (x.kind == HB_CROSS_NONE_B)
            hb_text_add(out, "the second is better at every length\n");
        else
            hb_text_add(out, "L* = %s %s over %d lengths\n", hb_str_len(x.L_star).s,
                        hb_str_interval(x.ci95).s, n);
    }
}

static void sums(const struct sweep *s, struct hb_text *out)
{
    const char *word;
    hb_text_add(out, "\n");
    for (int k = 0; (word = hb_outcome_at(HB_ENDS_RECORD, k)); k++) {
        int n = 0;
        for (size_t i = 0; i < s->n; i++) {
            const struct sweep_item *it = &s->items[i];
            n += it->n && it->status && !strcmp(it->status, word);
        }
        if (n) hb_text_add(out, "%d %s  ", n, word);
    }
    double spent = 0, setup = 0, sampling = 0;
    for (size_t i = 0; i < s->n; i++) {
        spent += s->items[i].elapsed_s;
        setup += s->items[i].elapsed_s > 0 ? s->items[i].setup_s : 0;
        sampling += s->items[i].elapsed_s > 0 ? s->items[i].sampling_s : 0;
    }
    hb_text_add(out, "\nprocesses: %.1f s; plans, inputs and judge %.1f s, sampling %.1f s, "
                     "start, device and end %.1f s\n", spent, setup, sampling,
                fmax(spent - setup - sampling, 0));
}

int hb_sweep_print_tables(const struct sweep *s)
{
    struct hb_text out = { 0 };
    for (int g = 0; g < s->file.n_groups; g++)
        for (int p = 0; p < HB_PASS_COUNT; p++)
            for (int k = 0; k < hb_sweep_variants(&s->file.groups[g].set); k++) {
                struct view v = { (enum hb_pass)p, hb_sweep_variant(&s->file.groups[g].set, k) };
                if (v.set.pass[p]) group_table(s, g, &v, &out);
            }
    pair_table(s, &out);
    crossings(s, &out);
    sums(s, &out);
    return flush(&out);
}

int hb_sweep_print_plan(const struct sweep *s)
{
    struct hb_text out = { 0 };
    double total = 0, refine = 0;
    hb_text_add(&out, "%8s %8s  %s\n", "priority", "seconds", "point");
    for (size_t i = 0; i < s->n; i++) {
        const struct sweep_item *it = &s->items[i];
        double t = hb_sweep_hopeless(s, it) ? 1
                                            : fmin(hb_sweep_predict(s, it), it->opts.time_limit_s);
        if (it->refine >= 0) {
            const struct sweep_refine *r = &s->file.refines[it->refine];
            hb_text_add(&out, "%8lld %8s  %s: at most %lld lengths\n", (long long)it->priority, "",
                        it->name, (long long)r->steps);
            refine += 2 * (double)r->steps;
        } else {
            hb_text_add(&out, "%8lld %8.1f  %s\n", (long long)it->priority, t, it->name);
        }
        total += t;
    }
    hb_text_add(&out, "%zu points and pairs, about %.1f minutes%s", s->n, total / 60,
                refine > 0 ? "" : "\n");
    if (refine > 0) hb_text_add(&out, ", and at most %.0f points around crossovers\n", refine);
    return flush(&out);
}
