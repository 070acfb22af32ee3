// leftout.c: how good are predictions and choices? Every measured point, then every measured
// problem, is left out in turn and predicted or chosen from the others: `choose --check`.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../table.h"
#include "choose.h"

// --- predictions ---------------------------------------------------------------------------------

static bool same_series(const struct choose_row *a, const struct choose_row *b)
{
    return a->machine == b->machine && !strcmp(a->pt.impl, b->pt.impl)
        && a->pt.pass == b->pt.pass && a->pt.p.dtype == b->pt.p.dtype && a->pt.mode == b->pt.mode
        && !strcmp(a->pt.device, b->pt.device) && a->pt.p.threads == b->pt.p.threads
        && a->pt.p.planning == b->pt.p.planning
        && !memcmp(&a->pt.p.oper, &b->pt.p.oper, sizeof a->pt.p.oper);
}

static int check_predictions(const struct choose_table *t)
{
    bool *seen = calloc(t->n + 1, sizeof *seen);
    const struct choose_row **rows = malloc((t->n + 1) * sizeof *rows);
    struct hb_table out = { 0 };
    struct hb_text text = { 0 };
    int rc = seen && rows ? 0 : hb_fail(HB_ERR_OOM, "no memory for the check");
    hb_table_head(&out, "series|machine|>points|>typical error|>in the 95 % interval|"
                        ">memory error");
    for (size_t i = 0; i < t->n && !rc; i++) {
        const struct choose_row *r = &t->rows[i];
        double inside, err, mem_inside, mem_err;
        int n = 0;
        if (seen[i] || strcmp(r->status, "ok")) continue;
        for (size_t k = i; k < t->n; k++) {
            if (strcmp(t->rows[k].status, "ok") || !same_series(r, &t->rows[k])) continue;
            seen[k] = true;
            rows[n++] = &t->rows[k];
        }
        if (n < 5 || !hb_predict_check(rows, n, CHOOSE_TIME, &inside, &err)) continue;
        bool mem = hb_predict_check(rows, n, CHOOSE_MEMORY, &mem_inside, &mem_err);
        hb_table_cell(&out, "%s %s %s %s", r->pt.impl, hb_pass_str(r->pt.pass),
                      hb_dtype_str(r->pt.p.dtype), hb_mode_str(r->pt.mode));
        hb_table_cell(&out, "%s", t->machines[r->machine].id);
        hb_table_cell(&out, "%d", n);
        hb_table_cell(&out, "%s", hb_str_pct(exp(err) - 1).s);
        hb_table_cell(&out, "%s", hb_str_pct(inside).s);
        hb_table_cell(&out, "%s", mem ? hb_str_pct(exp(mem_err) - 1).s : "-");
    }
    hb_table_print(&out, &text);
    if (!rc) rc = hb_text_done(&text);
    if (!rc) fputs(text.s, stdout);
    hb_text_free(&text);
    hb_table_free(&out);
    free(rows);
    free(seen);
    return rc;
}

// --- choices -------------------------------------------------------------------------------------

// The same question: only the implementation may differ.
static bool same_problem(const struct choose_row *a, const struct choose_row *b)
{
    const struct hb_problem *p = &a->pt.p, *q = &b->pt.p;
    return a->machine == b->machine && p->op == q->op && a->pt.pass == b->pt.pass
        && p->dtype == q->dtype && p->B == q->B && p->D == q->D && p->L == q->L && p->H == q->H
        && a->pt.mode == b->pt.mode && p->threads == q->threads && p->planning == q->planning
        && !strcmp(a->pt.device, b->pt.device) && !memcmp(&p->oper, &q->oper, sizeof p->oper);
}

// What the choice at row i's problem would have been without its measurements: chosen / fastest as
// measured; 0: nothing to choose between.
static double left_out(const struct choose_table *t, size_t i, struct choose_table *rest,
                       struct choose_result *r)
{
    const char *only[CHOOSE_MAX + 1];
    double best = INFINITY, mine = 0;
    int n = 0;
    rest->n = 0;
    for (size_t k = 0; k < t->n; k++) {
        const struct choose_row *row = &t->rows[k];
        if (!same_problem(&t->rows[i], row)) rest->rows[rest->n++] = *row;
        else if (k < i && !strcmp(row->status, "ok")) return 0;          // done already
        else if (!strcmp(row->status, "ok") && n < CHOOSE_MAX) only[n++] = row->pt.impl;
    }
    only[n] = NULL;
    struct choose_ask a = { .pt = t->rows[i].pt, .only = only,
                            .here = t->machines[t->rows[i].machine].id };
    a.machine = a.here;
    if (n < 2 || hb_choose_among(rest, &a, r)) {
        hb_error_clear();
        return 0;
    }
    for (size_t k = 0; k < t->n; k++) {
        const struct choose_row *row = &t->rows[k];
        if (strcmp(row->status, "ok") || !same_problem(&t->rows[i], row)) continue;
        best = fmin(best, row->median_ns);
        if (!strcmp(row->pt.impl, r->answer.impl)) mine = row->median_ns;
    }
    return r->answer.reason == HB_DEFAULT ? 0 : mine / best;
}

static int check_choices(const struct choose_table *t)
{
    struct choose_table rest = *t;
    struct choose_result *r = malloc(sizeof *r);
    int n = 0, wrong = 0, clear = 0, clear_wrong = 0;
    double worst = 0;
    size_t at = 0;
    rest.rows = malloc((t->n + 1) * sizeof *rest.rows);
    for (size_t i = 0; r && rest.rows && i < t->n; i++) {
        double ratio = strcmp(t->rows[i].status, "ok") ? 0 : left_out(t, i, &rest, r);
        if (!(ratio > 0)) continue;
        n++;
        wrong += ratio > 1.05;
        clear += !r->answer.tie;
        clear_wrong += !r->answer.tie && ratio > 1.05;
        if (ratio > worst) at = i;
        worst = fmax(worst, ratio);
    }
    free(rest.rows);
    free(r);
    if (!n) return 0;
    char name[HB_POINT_NAME_MAX] = "";
    hb_point_name(&t->rows[at].pt, name, sizeof name);
    printf("\n%d problems, each left out in turn: the choice is more than 1.05 times the fastest "
           "in %d,\n%d of them among the %d that were called clear; worst %.3g, at\n%s\n", n, wrong,
           clear_wrong, clear, worst, name);
    return 0;
}

int hb_choose_check(const struct choose_table *t)
{
    int rc = check_predictions(t);
    return rc ? rc : check_choices(t);
}
