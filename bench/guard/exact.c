// exact.c: what can be counted: instructions, allocations, bytes, work models, errors, plans.
//
// Instructions  cachegrind without its cache model counts every instruction a process executes;
//               (count of 2n executions) - (count of n), divided by n, is one execution's. One
//               thread, FFTW_ESTIMATE (the point's name says so), the same short environment for
//               both builds: the count repeats exactly.
// The rest      said by the hidden command __count itself, once.
// Verdicts      every difference is named. `worse` (exit code 1): more instructions by 0.01 %, an
//               error above 1.1 times the old one, any allocation or byte more, an answer that was
//               right and is not. Models and plans that differ are `changed`.
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../cli.h"
#include "guard.h"

static const struct rule { const char *metric; double tolerance; bool model; } rules[] = {
    { "instructions", 1e-4, false }, { "error_rel_l2", 0.1, false },
    { "allocations", 0, false },     { "allocations_executing", 0, false },
    { "peak_bytes", 0, false },      { "workspace_bytes", 0, false },
    { "flop", 0, true },             { "flop_min", 0, true },
    { "bytes_min", 0, true },
};
enum { N_RULES = sizeof rules / sizeof *rules };

static const struct rule *rule_of(const char *metric)
{
    for (int i = 0; i < N_RULES; i++)
        if (!strcmp(rules[i].metric, metric)) return &rules[i];
    return NULL;
}

double guard_exact_tolerance(const char *metric)
{
    const struct rule *r = rule_of(metric);
    return r ? r->tolerance : 0;
}

int guard_exact_judge(const char *metric, double base, double head)
{
    const struct rule *r = rule_of(metric);
    if (isnan(base) || isnan(head)) return isnan(base) && isnan(head) ? COUNT_SAME : COUNT_MISSING;
    if (!(head < base) && !(head > base)) return COUNT_SAME;
    if (!r || r->model) return COUNT_CHANGED;
    if (head > base * (1 + r->tolerance)) return COUNT_WORSE;
    return head < base * (1 - r->tolerance) ? COUNT_BETTER : COUNT_CHANGED;
}

// --- one process ---------------------------------------------------------------------------------

static double instructions_in(const char *path)
{
    char line[4096];
    double n = NAN;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "summary: ", 9)) n = strtod(line + 9, NULL);
    if (f) fclose(f);
    return n;
}

static int run_count(const struct guard_live *g, int side, const char *point, int executions,
                     int64_t inject, bool judge, const char *cachegrind_out,
                     struct hb_child_result *res)
{
    static char self[] = "valgrind", tool[] = "--tool=cachegrind", sim[] = "--cache-sim=no",
                quiet[] = "-q", cmd[] = "__count";
    char out[4700], exe[4400];
    snprintf(out, sizeof out, "--cachegrind-out-file=%s", cachegrind_out ? cachegrind_out : "");
    snprintf(exe, sizeof exe, "%s", g->build[side].exe);
    char *const with[] = { self, tool, sim, quiet, out, exe, cmd, NULL },
         *const plain[] = { exe, cmd, NULL };
    struct hb_child_limits lim = { .time_s = 120, .env = g->env,
                                   .exe = cachegrind_out ? "/usr/bin/valgrind" : exe };
    json_t *request = json_pack("{s:s,s:i,s:I,s:b}", "point", point, "executions", executions,
                                "instructions", (json_int_t)inject, "judge", judge);
    if (!request) return hb_fail(HB_ERR_OOM, "no memory for a request");
    int rc = hb_child_run(cachegrind_out ? with : plain, request, &lim, res);
    json_decref(request);
    if (!rc && hb_interrupted()) rc = hb_fail(HB_ERR_RUN, "interrupted");
    if (rc) { json_decref(res->reply); res->reply = NULL; }
    return rc;
}

enum { EXECUTIONS = 4 };

// Instructions of one execution; NAN: that build cannot be counted.
static int instructions(const struct guard_live *g, int side, const char *point, int64_t inject,
                        double *per_execution)
{
    double n[2] = { NAN, NAN };
    *per_execution = NAN;
    for (int k = 0; k < 2; k++) {
        char out[4600];
        struct hb_child_result res;
        snprintf(out, sizeof out, "%s/cachegrind.out", g->root);
        unlink(out);
        int rc = run_count(g, side, point, EXECUTIONS << k, side ? inject : 0, false, out, &res);
        if (rc) return rc;
        if (!strcmp(res.status, "ok")) n[k] = instructions_in(out);
        json_decref(res.reply);
        unlink(out);
    }
    *per_execution = (n[1] - n[0]) / EXECUTIONS;
    return 0;
}

// --- rows ----------------------------------------------------------------------------------------

static struct guard_count *add(struct guard_counts *c, const struct sweep_item *it,
                               const char *metric)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 128;
        struct guard_count *row = realloc(c->row, cap * sizeof *row);
        if (!row) { hb_fail(HB_ERR_OOM, "no memory for %zu counts", cap); return NULL; }
        c->row = row;
        c->cap = cap;
    }
    struct guard_count *r = &c->row[c->n++];
    *r = (struct guard_count){ .item = it, .base = NAN, .head = NAN };
    snprintf(r->metric, sizeof r->metric, "%s", metric);
    return r;
}

void guard_counts_free(struct guard_counts *c)
{
    for (size_t i = 0; i < c->n; i++) {
        free(c->row[i].base_text);
        free(c->row[i].head_text);
    }
    free(c->row);
    *c = (struct guard_counts){ 0 };
}

static double number_of(const json_t *reply, const char *metric)
{
    const json_t *v = json_object_get(json_object_get(reply, "counts"), metric);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *text_of(const struct hb_child_result *r, const char *key)
{
    const char *s = json_string_value(json_object_get(json_object_get(r->reply, "texts"), key));
    if (s) return s;
    return strcmp(r->status, "ok") && !strcmp(key, "answer") ? r->detail : "";
}

static int add_texts(struct guard_counts *c, const struct sweep_item *it,
                     const struct hb_child_result *r)
{
    static const char *const keys[] = { "answer", "plan" };
    for (int k = 0; k < 2; k++) {
        struct guard_count *row = add(c, it, keys[k]);
        if (!row) return HB_ERR_OOM;
        row->base_text = strdup(text_of(&r[0], keys[k]));
        row->head_text = strdup(text_of(&r[1], keys[k]));
        if (!row->base_text || !row->head_text) return hb_fail(HB_ERR_OOM, "no memory for a text");
        bool same = !strcmp(row->base_text, row->head_text);
        bool was_right = k == 0 && !strcmp(row->base_text, "right");
        row->verdict = same ? COUNT_SAME : was_right ? COUNT_WORSE : COUNT_CHANGED;
    }
    return 0;
}

// All but instructions.
static int facts(const struct guard_live *g, const struct sweep_item *it, struct guard_counts *c,
                 bool *runs)
{
    struct hb_child_result r[2] = { { 0 }, { 0 } };
    int rc = run_count(g, 0, it->name, 1, 0, true, NULL, &r[0]);
    if (!rc) rc = run_count(g, 1, it->name, 1, 0, true, NULL, &r[1]);
    for (int i = 0; i < N_RULES && !rc; i++) {
        double base = number_of(r[0].reply, rules[i].metric),
               head = number_of(r[1].reply, rules[i].metric);
        if (isnan(base) && isnan(head)) continue;
        struct guard_count *row = add(c, it, rules[i].metric);
        if (!row) { rc = HB_ERR_OOM; break; }
        row->base = base;
        row->head = head;
        row->verdict = guard_exact_judge(rules[i].metric, base, head);
    }
    if (!rc) rc = add_texts(c, it, r);
    *runs = json_object_size(json_object_get(r[0].reply, "counts")) > 0
         && json_object_size(json_object_get(r[1].reply, "counts")) > 0;
    json_decref(r[0].reply);
    json_decref(r[1].reply);
    return rc;
}

int guard_exact(struct guard_live *g, int64_t inject, struct guard_counts *out)
{
    memset(out, 0, sizeof *out);
    out->valgrind = access("/usr/bin/valgrind", X_OK) == 0;
    int rc = 0;
    for (size_t i = 0; i < g->n_exact && !rc; i++) {
        const struct sweep_item *it = &g->s.items[g->exact[i]];
        double n[2];
        bool runs = false;
        hb_progress("counting", i, g->n_exact, -1);
        rc = facts(g, it, out, &runs);
        if (rc || !out->valgrind || !runs) continue;
        rc = instructions(g, 0, it->name, 0, &n[0]);
        if (!rc) rc = instructions(g, 1, it->name, inject, &n[1]);
        struct guard_count *row = rc ? NULL : add(out, it, "instructions");
        if (!row) { rc = rc ? rc : HB_ERR_OOM; continue; }
        row->base = n[0];
        row->head = n[1];
        row->verdict = guard_exact_judge("instructions", n[0], n[1]);
    }
    hb_progress_end();
    return rc;
}
