// verdicts.c: a comparison's document, and Markdown and JUnit made from it.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../env.h"
#include "guard.h"

// --- the document --------------------------------------------------------------------------------

static void put(json_t *o, const char *key, double v)        // NaN and infinity are left out
{
    if (isfinite(v)) json_object_set_new(o, key, json_real(v));
}

static json_t *samples(const double *x, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(a, json_real(x[i]));
    return a;
}

static void put_pairs(json_t *o, const char *key, const struct guard_pairs *p)
{
    if (!p->n) return;
    json_object_set_new(o, key, json_pack("{s:o,s:o}", "base_ns", samples(p->base, p->n),
                                          "head_ns", samples(p->head, p->n)));
}

static json_t *paired_row(const struct guard_result *r, size_t i)
{
    const struct guard_point *pt = &r->points[i];
    const struct sweep_item *it = &r->live->s.items[r->live->paired[i]];
    json_t *o = json_pack("{s:s,s:s,s:s,s:s}", "name", it->name, "tier", "paired", "verdict",
                          guard_word_str(pt->word), "why", pt->why);
    if (!o) return NULL;
    if (pt->more_rounds) json_object_set_new(o, "more_rounds", json_integer(pt->more_rounds));
    if (pt->first.n) {
        put(o, "base_median_ns", hb_median(pt->first.base, pt->first.n));
        put(o, "head_median_ns", hb_median(pt->first.head, pt->first.n));
        put(o, "ratio", pt->ratio.r);
        json_object_set_new(o, "ratio_ci95", json_pack("[f,f]", pt->ratio.ci95.lo,
                                                       pt->ratio.ci95.hi));
        put(o, "p", pt->p);
        put(o, "p_bh", pt->p_adjusted);
        put(o, "p_confirm", pt->p_confirm);
    }
    put_pairs(o, "pairs", &pt->first);
    put_pairs(o, "confirming_pairs", &pt->second);
    return o;
}

static const char *count_word(const struct guard_count *c)
{
    static const char *const words[] = { "same", "better", "changed", "worse", "missing" };
    return words[c->verdict];
}

static json_t *exact_row(const struct guard_count *c)
{
    json_t *o = json_pack("{s:s,s:s,s:s,s:s}", "name", c->item->name, "tier", "exact", "metric",
                          c->metric, "verdict", count_word(c));
    if (!o) return NULL;
    put(o, "base", c->base);
    put(o, "head", c->head);
    if (c->base_text) json_object_set_new(o, "base_text", json_string(c->base_text));
    if (c->head_text) json_object_set_new(o, "head_text", json_string(c->head_text));
    if (!c->base_text) put(o, "tolerance", guard_exact_tolerance(c->metric));
    return o;
}

int guard_exit_code(const struct guard_result *r)
{
    bool slower = false, doubt = false;
    for (size_t i = 0; i < r->live->n_paired; i++) {
        enum guard_word w = r->points[i].word;
        slower |= w == GUARD_SLOWER || w == GUARD_BROKEN;
        doubt |= w == GUARD_INCONCLUSIVE || w == GUARD_ENV || w == GUARD_SKIPPED;
    }
    for (size_t i = 0; i < r->counts->n; i++) {
        slower |= r->counts->row[i].verdict == COUNT_WORSE;
        doubt |= r->counts->row[i].verdict == COUNT_CHANGED
              || r->counts->row[i].verdict == COUNT_MISSING;
    }
    return slower || (r->strict && doubt);
}

static json_t *build_of(const struct guard_build *b)
{
    const json_t *soft = json_object_get(b->env, "software");
    json_t *o = json_pack("{s:s}", "folder", b->from);
    static const char *const keys[] = { "git", "compiler", "cflags" };
    for (size_t i = 0; o && i < sizeof keys / sizeof *keys; i++)
        if (json_object_get(soft, keys[i]))
            json_object_set(o, keys[i], json_object_get(soft, keys[i]));
    return o;
}

json_t *guard_doc(const struct guard_result *r)
{
    char date[64] = "";
    time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm)) strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_t *exact = json_array(), *paired = json_array();
    for (size_t i = 0; i < r->counts->n; i++)
        json_array_append_new(exact, exact_row(&r->counts->row[i]));
    for (size_t i = 0; i < r->live->n_paired; i++)
        json_array_append_new(paired, paired_row(r, i));
    json_t *options = json_pack("{s:f,s:f,s:f,s:f,s:f,s:b}", "min_effect", r->opts.min_effect,
                                "margin", r->opts.margin, "fdr", r->opts.fdr, "confirm_p",
                                r->opts.confirm_p, "budget_s", r->opts.budget_s, "strict",
                                r->strict);
    int code = guard_exit_code(r);
    json_t *doc = json_pack("{s:s,s:s,s:s,s:s,s:o,s:o,s:o,s:i,s:f,s:b,s:o,s:o,s:s,s:i}", "schema",
                            "hyena-bench compare 1", "date", date, "machine", hb_machine_id(),
                            "fingerprint", hb_fingerprint(), "base", build_of(&r->live->build[0]),
                            "head", build_of(&r->live->build[1]), "options", options, "rounds",
                            r->rounds, "elapsed_s", r->elapsed_s, "valgrind", r->counts->valgrind,
                            "exact", exact, "paired", paired, "answer",
                            code ? "regression" : "no regression", "exit_code", code);
    if (!doc) hb_fail(HB_ERR_OOM, "no memory for the verdicts");
    return doc;
}

// --- for people and for CI -----------------------------------------------------------------------

static const char *str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static double num(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

// "x1.083 [1.061, 1.104]"
static void ratio_text(const json_t *row, char *buf, size_t cap)
{
    const json_t *ci = json_object_get(row, "ratio_ci95");
    if (isnan(num(row, "ratio"))) snprintf(buf, cap, "-");
    else snprintf(buf, cap, "x%.3f [%.3f, %.3f]", num(row, "ratio"),
                  json_number_value(json_array_get(ci, 0)),
                  json_number_value(json_array_get(ci, 1)));
}

// Of an exact row: "base -> head (+1.2 %)" or the two texts.
static void change_text(const json_t *row, char *buf, size_t cap)
{
    double base = num(row, "base"), head = num(row, "head");
    if (json_object_get(row, "base_text"))
        snprintf(buf, cap, "'%.200s' -> '%.200s'", str(row, "base_text"), str(row, "head_text"));
    else if (isnan(base) || isnan(head))
        snprintf(buf, cap, "%s", isnan(base) ? "base cannot be counted" : "head cannot be counted");
    else if (base > 0 && fabs(head / base - 1) < 1e-3)
        snprintf(buf, cap, "%.17g -> %.17g (%+.4f %%)", base, head, 100 * (head / base - 1));
    else
        snprintf(buf, cap, "%.6g -> %.6g (%+.2f %%)", base, head,
                 base > 0 ? 100 * (head / base - 1) : 100);
}

// The point's name without what is the same everywhere.
static void short_name(const char *name, char *buf, size_t cap)
{
    snprintf(buf, cap, "%s", name);
    char *end = strstr(buf, "/manual_time");
    if (end) *end = 0;
}

static void verdict_text(const json_t *row, char *buf, size_t cap)
{
    const char *why = str(row, "why");
    json_int_t more = json_integer_value(json_object_get(row, "more_rounds"));
    int n = snprintf(buf, cap, "%s%s%s", str(row, "verdict"), *why ? ": " : "", why);
    if (more > 0 && n > 0 && (size_t)n < cap)
        snprintf(buf + n, cap - (size_t)n, "; about %lld more round%s", (long long)more,
                 more == 1 ? "" : "s");
}

static void paired_markdown(const json_t *rows, struct hb_text *out)
{
    struct hb_table t = { 0 };
    size_t i;
    json_t *row;
    hb_table_head(&t, "point|>base|>head|>head / base|verdict");
    json_array_foreach(rows, i, row) {
        char name[HB_POINT_NAME_MAX], ratio[96], verdict[400];
        short_name(str(row, "name"), name, sizeof name);
        ratio_text(row, ratio, sizeof ratio);
        verdict_text(row, verdict, sizeof verdict);
        hb_table_cell(&t, "%s", name);
        hb_table_cell(&t, "%s", hb_str_time(num(row, "base_median_ns")).s);
        hb_table_cell(&t, "%s", hb_str_time(num(row, "head_median_ns")).s);
        hb_table_cell(&t, "%s", ratio);
        hb_table_cell(&t, "%s", verdict);
    }
    if (!hb_table_empty(&t)) {
        hb_text_add(out, "\n### Timed in pairs\n\n");
        hb_table_print(&t, out);
    }
    hb_table_free(&t);
}

static void exact_markdown(const json_t *doc, struct hb_text *out)
{
    const json_t *rows = json_object_get(doc, "exact");
    struct hb_table t = { 0 };
    size_t i, changed = 0;
    json_t *row;
    if (!json_array_size(rows)) return;
    hb_table_head(&t, "point|metric|change|verdict");
    json_array_foreach(rows, i, row) {
        char name[HB_POINT_NAME_MAX], change[600];
        if (!strcmp(str(row, "verdict"), "same")) continue;
        changed++;
        short_name(str(row, "name"), name, sizeof name);
        change_text(row, change, sizeof change);
        for (char *c = change; *c; c++) if (*c == '|') *c = '/';
        hb_table_cell(&t, "%s", name);
        hb_table_cell(&t, "%s", str(row, "metric"));
        hb_table_cell(&t, "%s", change);
        hb_table_cell(&t, "%s", str(row, "verdict"));
    }
    hb_text_add(out, "\n### Counted\n\n%zu quantities, %zu differ.%s\n", json_array_size(rows),
                changed, json_is_true(json_object_get(doc, "valgrind")) ? ""
                         : " Instructions were not counted: valgrind is not installed.");
    if (changed) {
        hb_text_add(out, "\n");
        hb_table_print(&t, out);
    }
    hb_table_free(&t);
}

int guard_markdown(const json_t *doc, struct hb_text *out)
{
    const json_t *base = json_object_get(doc, "base"), *head = json_object_get(doc, "head");
    hb_text_add(out, "## hyena-bench compare: %s\n\nbase %s (%s), head %s (%s), on %s\n",
                str(doc, "answer"), str(base, "folder"), str(base, "git"), str(head, "folder"),
                str(head, "git"), str(doc, "machine"));
    exact_markdown(doc, out);
    paired_markdown(json_object_get(doc, "paired"), out);
    const json_t *steps = json_object_get(doc, "history_steps");
    size_t i;
    json_t *s;
    if (json_array_size(steps)) hb_text_add(out, "\n### Steps in the history (advisory)\n\n");
    json_array_foreach(steps, i, s)
        hb_text_add(out, "- %s: %s since %s\n", str(s, "name"),
                    hb_str_num(num(s, "after") / num(s, "before")).s, str(s, "date"));
    return hb_text_done(out);
}

void guard_xml_escape(struct hb_text *out, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '&') hb_text_add(out, "&amp;");
        else if (c == '<') hb_text_add(out, "&lt;");
        else if (c == '>') hb_text_add(out, "&gt;");
        else if (c == '"') hb_text_add(out, "&quot;");
        else if (c == '\'') hb_text_add(out, "&apos;");
        else if (c == '\n' || c == '\t' || c == '\r') hb_text_add(out, "&#%d;", c);
        else if (c < ' ' || c == 0x7f) hb_text_add(out, "?");    // not allowed in XML 1.0
        else hb_text_add(out, "%c", c);
    }
}

static void attribute(struct hb_text *out, const char *key, const char *value)
{
    hb_text_add(out, " %s=\"", key);
    guard_xml_escape(out, value);
    hb_text_add(out, "\"");
}

// How a verdict looks to JUnit: NULL passed, "failure" or "skipped".
static const char *junit_element(const json_t *row, bool strict)
{
    const char *v = str(row, "verdict");
    if (!strcmp(v, "slower") || !strcmp(v, "worse") || !strcmp(v, "broken")) return "failure";
    if (!strcmp(v, "same") || !strcmp(v, "faster") || !strcmp(v, "better")) return NULL;
    return strict ? "failure" : !strcmp(v, "changed") ? NULL : "skipped";
}

static void junit_cases(const json_t *rows, bool strict, struct hb_text *out, int *failed,
                        int *skipped)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) {
        bool exact = json_object_get(row, "metric") != NULL;
        const char *element = junit_element(row, strict);
        char text[1100], detail[600], name[HB_POINT_NAME_MAX + 40];
        if (exact) change_text(row, detail, sizeof detail);
        else ratio_text(row, detail, sizeof detail);
        char verdict[400];
        verdict_text(row, verdict, sizeof verdict);
        snprintf(text, sizeof text, "%s: %s", verdict, detail);
        snprintf(name, sizeof name, "%s%s%s", str(row, "name"), exact ? " " : "",
                 str(row, "metric"));
        hb_text_add(out, "  <testcase");
        attribute(out, "classname", exact ? "compare.exact" : "compare.paired");
        attribute(out, "name", name);
        if (!element) {
            hb_text_add(out, "><system-out>");
            guard_xml_escape(out, text);
            hb_text_add(out, "</system-out></testcase>\n");
            continue;
        }
        *failed += !strcmp(element, "failure");
        *skipped += !strcmp(element, "skipped");
        hb_text_add(out, "><%s", element);
        attribute(out, "message", text);
        hb_text_add(out, "/></testcase>\n");
    }
}

int guard_junit(const json_t *doc, struct hb_text *out)
{
    struct hb_text cases = { 0 };
    int failed = 0, skipped = 0;
    bool strict = json_is_true(json_object_get(json_object_get(doc, "options"), "strict"));
    const json_t *exact = json_object_get(doc, "exact"), *paired = json_object_get(doc, "paired");
    junit_cases(exact, strict, &cases, &failed, &skipped);
    junit_cases(paired, strict, &cases, &failed, &skipped);
    hb_text_add(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                     "<testsuite name=\"hyena-bench compare\" tests=\"%zu\" failures=\"%d\" "
                     "errors=\"0\" skipped=\"%d\" time=\"%.3f\"",
                json_array_size(exact) + json_array_size(paired), failed, skipped,
                num(doc, "elapsed_s"));
    attribute(out, "timestamp", str(doc, "date"));
    hb_text_add(out, ">\n%s</testsuite>\n", cases.s ? cases.s : "");
    int rc = hb_text_done(&cases) ? HB_ERR_OOM : hb_text_done(out);
    hb_text_free(&cases);
    return rc;
}
