// crossover.c: `hyena-bench crossover`: where do two curves cross? Reads results, never measures;
// prints one table and writes build/report/crossovers.json.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "commands.h"
#include "crossover.h"
#include "table.h"

// --- json ----------------------------------------------------------------------------------------

static json_t *axes_json(const struct hb_setting *s)
{
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:i}", "machine", s->machine, "hb_device",
                     s->device, "hb_scope", hb_scope_str(s->scope), "hb_pass", hb_pass_str(s->pass),
                     "hb_mode", hb_mode_str(s->mode), "hb_dtype", hb_dtype_str(s->dtype),
                     "hb_batch", (json_int_t)s->B, "hb_width", (json_int_t)s->D, "hb_threads",
                     s->threads);
}

// The key is left out where the number is not finite: the files hold no NaN.
static int set_real(json_t *o, const char *key, double v)
{
    return isfinite(v) ? json_object_set_new(o, key, json_real(v)) : 0;
}

static int set_interval(json_t *o, const char *key, struct hb_interval i)
{
    return isfinite(i.lo) && isfinite(i.hi)
               ? json_object_set_new(o, key, json_pack("[f,f]", i.lo, i.hi))
               : 0;
}

static json_t *crossing_json(const struct hb_crossover *c, json_t *sources)
{
    const char *metric = c->metric == HB_METRIC_TIME ? "time" : "alloc_peak_bytes";
    json_t *o = json_pack("{s:s,s:s,s:s,s:o,s:s,s:i,s:i,s:[f,f],s:O}",
                          "a", c->a->impl, "b", c->b->impl, "metric", metric,
                          "axes", axes_json(&c->a->set), "kind", hb_cross_kind_str(c->x.kind),
                          "crossings", c->x.n_crossings, "lengths", (int)c->n,
                          "range", c->L_lo, c->L_hi, "sources", sources);
    const bool crosses = c->x.kind == HB_CROSS_SINGLE || c->x.kind == HB_CROSS_MULTIPLE;
    int bad = !o;
    if (!bad && crosses) {
        bad |= set_real(o, "L_star", c->x.L_star);
        bad |= set_interval(o, "L_ci95", c->x.ci95);
        bad |= json_object_set_new(o, "better_after",
                                   json_string(c->x.b_wins_after ? c->b->impl : c->a->impl));
        bad |= json_object_set_new(o, "bracket",
                                   json_pack("[f,f]", c->x.bracket_lo, c->x.bracket_hi));
    }
    if (!bad) {
        bad |= set_real(o, "ratio_first", c->first.r);
        bad |= set_interval(o, "ratio_first_ci95", c->first.ci95);
        bad |= set_real(o, "ratio_last", c->last.r);
        bad |= set_interval(o, "ratio_last_ci95", c->last.ci95);
    }
    if (bad) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *fit_json(const struct hb_series *s, enum hb_metric m)
{
    struct hb_fit f;
    if (!hb_series_fit(s, m, &f)) return json_null();
    struct hb_slope slope[64];
    const size_t n = hb_series_slopes(s, m, slope, sizeof slope / sizeof *slope);
    json_t *local = json_array();
    int bad = !local;
    for (size_t i = 0; i < n && !bad; i++)
        bad = json_array_append_new(local, json_pack("{s:f,s:f,s:[f,f]}", "L", slope[i].L, "slope",
                                                     slope[i].slope, "ci", slope[i].ci95.lo,
                                                     slope[i].ci95.hi));
    if (bad) {
        json_decref(local);
        return NULL;
    }
    json_t *o = json_pack("{s:s,s:s,s:o,s:f,s:f,s:[f,f],s:i,s:o}", "impl", s->impl, "metric",
                          m == HB_METRIC_TIME ? "time" : "alloc_peak_bytes", "axes",
                          axes_json(&s->set), "exponent", f.f.exponent, "coef", f.f.coef, "range",
                          f.L_lo, f.L_hi, "lengths", (int)f.n, "slope_local", local);
    if (o && set_interval(o, "ci95", f.f.ci95)) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *sources_json(const struct hb_results *r)
{
    json_t *a = json_array();
    for (size_t i = 0; a && i < r->n_files; i++) {
        char hex[65];
        if (hb_sha256_file(r->paths[i], hex) || json_array_append_new(a, json_string(hex))) {
            json_decref(a);
            return NULL;
        }
    }
    return a;
}

static int append(json_t *a, json_t *v)
{
    if (json_is_null(v)) {
        json_decref(v);
        return 0;
    }
    return json_array_append_new(a, v);  // fails on NULL
}

json_t *hb_crossovers_json(const struct hb_results *r, const struct hb_series_set *set,
                           const struct hb_crossover_set *x)
{
    json_t *sources = sources_json(r), *cross = json_array(), *fits = json_array();
    int bad = !sources || !cross || !fits;
    for (size_t i = 0; i < x->n && !bad; i++) bad = append(cross, crossing_json(&x->c[i], sources));
    for (size_t i = 0; i < set->n && !bad; i++)
        bad = append(fits, fit_json(&set->s[i], HB_METRIC_TIME)) ||
              append(fits, fit_json(&set->s[i], HB_METRIC_MEMORY));
    json_decref(sources);
    if (bad) {
        json_decref(cross);
        json_decref(fits);
        hb_fail(HB_ERR_RUN, "cannot build the crossover records: %s",
                *hb_error() ? hb_error() : "no memory");
        return NULL;
    }
    return json_pack("{s:s,s:o,s:o}", "hb_schema", "1.0", "crossovers", cross, "fits", fits);
}

// --- the table -----------------------------------------------------------------------------------

static const struct hb_crossover *other_metric(const struct hb_crossover_set *x,
                                               const struct hb_crossover *c)
{
    for (size_t i = 0; i < x->n; i++)
        if (x->c[i].a == c->a && x->c[i].b == c->b && x->c[i].metric != c->metric) return &x->c[i];
    return NULL;
}

static void crossing_row(struct hb_table *t, const struct hb_series_set *set,
                         const struct hb_crossover *time, const struct hb_crossover *mem)
{
    const struct hb_cell *a = hb_series_at(time->a, (int64_t)time->L_hi),
                         *b = hb_series_at(time->b, (int64_t)time->L_hi);
    hb_table_cell(t, "%s", hb_series_label(set, time->a).s);
    hb_table_cell(t, "%s", hb_series_label(set, time->b).s);
    hb_table_cell(t, "%s", hb_setting_str(&time->a->set).s);
    hb_table_cell(t, "%.0f to %.0f (%zu)", time->L_lo, time->L_hi, time->n);
    hb_table_cell(t, "%s", hb_cross_words(time, "a", "b").s);
    hb_table_cell(t, "%s", hb_str_ratio(time->first).s);
    hb_table_cell(t, "%s", hb_str_ratio(time->last).s);
    hb_table_cell(t, "%s against %s", hb_str_time(a->median_ns).s, hb_str_time(b->median_ns).s);
    hb_table_cell(t, "%s", mem ? hb_cross_words(mem, "a", "b").s : "not recorded");
    if (mem) hb_table_cell(t, "%s", hb_str_num(mem->last.r).s);
    else hb_table_cell(t, "-");
}

void hb_crossovers_table(const struct hb_series_set *set, const struct hb_crossover_set *x,
                         const char *machine, struct hb_text *out)
{
    struct hb_table t = {0};
    hb_table_head(&t, "a|b|setting|range of L|crossover in time|>time a/b, shortest L|>time a/b, "
                      "longest L|>times a and b, longest L|crossover in memory|>memory a/b, "
                      "longest L");
    for (size_t i = 0; i < x->n; i++) {
        const struct hb_crossover *c = &x->c[i];
        if (c->metric == HB_METRIC_TIME && (!machine || !strcmp(c->a->set.machine, machine)))
            crossing_row(&t, set, c, other_metric(x, c));
    }
    if (hb_table_empty(&t)) {
        hb_text_add(out, "No two curves share two lengths: `hyena-bench sweep` measures them.\n");
        hb_table_free(&t);
        return;
    }
    hb_table_print(&t, out);
}

static void fit_cells(struct hb_table *t, const struct hb_series *s, enum hb_metric m)
{
    struct hb_fit f;
    if (!hb_series_fit(s, m, &f)) {
        hb_table_cell(t, "-");
        hb_table_cell(t, "too few lengths");
        return;
    }
    hb_table_cell(t, "%.2f [%.2f, %.2f]", f.f.exponent, f.f.ci95.lo, f.f.ci95.hi);
    hb_table_cell(t, "%.0f to %.0f (%zu)", f.L_lo, f.L_hi, f.n);
}

// A GPU's types and batches grow alike: one table of them says it, its main setting's.
static bool main_shape(const struct hb_series_set *set, const struct hb_setting *at)
{
    const struct hb_setting *m = hb_setting_main(set, at->machine, at->scope, HB_PASS_FWD);
    return !m || !hb_on_gpu(at->device) ||
           (m->dtype == at->dtype && m->B == at->B && m->D == at->D && m->mode == at->mode);
}

void hb_fits_table(const struct hb_series_set *set, const char *machine, struct hb_text *out)
{
    struct hb_table t = {0};
    struct hb_fit f;
    hb_table_head(&t, "implementation|setting|>exponent of time|over L|>exponent of memory|over L");
    for (size_t i = 0; i < set->n; i++) {
        const struct hb_series *s = &set->s[i];
        if (machine && (strcmp(s->set.machine, machine) || !main_shape(set, &s->set))) continue;
        if (!hb_series_fit(s, HB_METRIC_TIME, &f) && !hb_series_fit(s, HB_METRIC_MEMORY, &f))
            continue;
        hb_table_cell(&t, "%s", hb_series_label(set, s).s);
        hb_table_cell(&t, "%s", hb_setting_str(&s->set).s);
        fit_cells(&t, s, HB_METRIC_TIME);
        fit_cells(&t, s, HB_METRIC_MEMORY);
    }
    if (hb_table_empty(&t)) {
        hb_text_add(out, "No implementation has three lengths to fit: `hyena-bench sweep` measures "
                         "more.\n");
        hb_table_free(&t);
        return;
    }
    hb_table_print(&t, out);
}

// --- the command ---------------------------------------------------------------------------------

static int write_json(const json_t *doc)
{
    char dir[4096], path[4160];
    if (hb_out_dir(NULL, "/report", dir)) return HB_ERR_INPUT;
    const int rc = hb_mkdirs(dir);
    if (rc) return rc;
    snprintf(path, sizeof path, "%s/crossovers.json", dir);
    return hb_json_save(path, doc);
}

static int check_name(const struct hb_series_set *set, const char *option, const char *impl)
{
    for (size_t i = 0; impl && i < set->n; i++)
        if (!strcmp(set->s[i].impl, impl)) return 0;
    return impl ? hb_fail(HB_ERR_INPUT, "--%s %s: the results hold no such implementation", option,
                          impl)
                : 0;
}

static int derive_and_print(const struct hb_results *r, const char *a, const char *b, bool as_json)
{
    struct hb_series_set set = {0};
    struct hb_crossover_set x = {0};
    struct hb_text text = {0};
    json_t *doc = NULL;
    int rc = hb_series_make(r, &set);
    if (!rc) rc = check_name(&set, "a", a);
    if (!rc) rc = check_name(&set, "b", b);
    if (!rc) rc = hb_crossovers_make(&set, a, b, &x);
    if (!rc && !(doc = hb_crossovers_json(r, &set, &x))) rc = HB_ERR_RUN;
    if (!rc && !a && !b) rc = write_json(doc);  // a chosen pair is a question, not the record
    if (!rc && as_json) {
        if (json_dumpf(doc, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) || puts("") < 0)
            rc = hb_fail(HB_ERR_RUN, "cannot write to standard output");
    } else if (!rc) {
        hb_crossovers_table(&set, &x, NULL, &text);
        hb_text_add(&text, "\n");
        if (!a && !b) hb_fits_table(&set, NULL, &text);
        rc = hb_text_done(&text);
        if (!rc && fputs(text.s, stdout) < 0)
            rc = hb_fail(HB_ERR_RUN, "cannot write to standard output");
    }
    json_decref(doc);
    hb_text_free(&text);
    hb_crossovers_free(&x);
    hb_series_free(&set);
    return rc;
}

int hb_results_open(const char *const *paths, int n, struct hb_results *r)
{
    if (n > 0) return hb_results_load(paths, r);
    char **found = NULL;
    int rc = hb_results_default(&found);
    if (!rc) rc = hb_results_load((const char *const *)found, r);
    hb_paths_free(found);
    return rc;
}

int hb_cmd_crossover(int argc, char **argv)
{
    const char *a = NULL, *b = NULL, *pos[257] = {0};
    bool as_json = false;
    const struct hb_opt opts[] = {
        {"a", HB_OPT_STR, &a, "IMPL",
         "first of the pair (default: every pair worth comparing)", 0, 0},
        {"b", HB_OPT_STR, &b, "IMPL", "second of the pair", 0, 0},
        {"json", HB_OPT_FLAG, &as_json, NULL, "print the derived records instead of a table", 0, 0},
    };
    const struct hb_cli cli = {
        "crossover", "[RESULTS...] [--a IMPL --b IMPL] [--json]",
        "Where two curves cross, in time and in memory, with intervals. "
        "Reads result files or folders.",
        "hyena-bench crossover --a mha:attention_flash --b hyena:longconv_fftw",
        opts, sizeof opts / sizeof *opts, 0, 256};
    int n = 0, rc = hb_cli_parse(&cli, argc, argv, pos, &n);
    if (rc == HB_CLI_HELP) return 0;
    struct hb_results r = {0};
    if (!rc) rc = hb_host_init(0, 0);
    if (!rc) rc = hb_results_open(pos, n, &r);
    if (!rc) rc = derive_and_print(&r, a, b, as_json);
    hb_results_free(&r);
    return hb_exit_code("crossover", rc);
}
