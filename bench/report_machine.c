// report_machine.c: the machine and what was measured on it.
#include <math.h>
#include <string.h>

#include "report.h"

// --- the machine ---------------------------------------------------------------------------------

// Prints a JSON scalar, a list of scalars or an object of scalars on one line.
static void add_value(struct hb_text *t, const json_t *v)
{
    const char *key;
    json_t *item;
    size_t i;
    switch (json_typeof(v)) {
    case JSON_STRING: hb_text_add(t, "%s", json_string_value(v)); return;
    case JSON_INTEGER: hb_text_add(t, "%" JSON_INTEGER_FORMAT, json_integer_value(v)); return;
    case JSON_REAL: hb_text_add(t, "%s", hb_str_num(json_real_value(v)).s); return;
    case JSON_TRUE: hb_text_add(t, "yes"); return;
    case JSON_FALSE: hb_text_add(t, "no"); return;
    case JSON_NULL: hb_text_add(t, "-"); return;
    case JSON_ARRAY:
        json_array_foreach ((json_t *)(uintptr_t)v, i, item) {
            if (i) hb_text_add(t, ", ");
            add_value(t, item);
        }
        return;
    case JSON_OBJECT:
        i = 0;
        json_object_foreach ((json_t *)(uintptr_t)v, key,
                             item) {  // jansson's macro lacks a const form
            hb_text_add(t, "%s%s ", i++ ? "; " : "", key);
            add_value(t, item);
        }
        return;
    }
}

// What matters where the GPU does the work: of the host no more than this.
static bool says_of_gpu(const char *group, const char *key)
{
    static const char *const settings[] = {"gpu", "memory_bytes", "cgroup_memory_limit"};
    if (strcmp(group, "settings")) return true;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (!strcmp(key, settings[i])) return true;
    return false;
}

static void add_rows(struct hb_table *table, const char *group, const json_t *o, bool gpu)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)(uintptr_t)o, key, v) {
        struct hb_text value = {0};
        if (gpu && !says_of_gpu(group, key)) continue;
        add_value(&value, v);
        for (size_t i = 0; i < value.n; i++)
            if (value.s[i] == '|') value.s[i] = '/';  // would end the cell
        hb_table_cell(table, "%s", group);
        hb_table_cell(table, "%s", key);
        hb_table_cell(table, "%s", value.n ? value.s : "-");
        table->failed = table->failed || value.failed;
        hb_text_free(&value);
    }
}

void hb_report_machine(struct hb_report *r)
{
    static const char *const parts[] = {"machine", "settings", "software"};
    hb_text_add(&r->t, "## The machine\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const json_t *context = hb_results_context(&r->st->r, r->st->machine[m], NULL);
        const json_t *env = json_object_get(context, "hb_env");
        const char *date = json_string_value(json_object_get(context, "date"));
        struct hb_table t = {0};
        hb_report_subhead(r, r->st->machine[m]);
        hb_text_add(&r->t,
                    "%s, machine id `%s`. Newest run: %s. `hyena-bench env` prints the same for "
                    "the machine it runs on.\n\n",
                    hb_report_chip(r, r->st->machine[m]), r->st->machine[m],
                    date ? date : "date unknown");
        hb_table_head(&t, "part|item|value");
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            add_rows(&t, parts[i], json_object_get(env, parts[i]),
                     hb_report_has_gpu(r, r->st->machine[m]));
        if (hb_table_empty(&t)) {
            hb_text_add(&r->t, "The result files do not describe it.\n");
            hb_table_free(&t);
        } else hb_table_print(&t, &r->t);
        hb_text_add(&r->t, "\n");
        hb_report_gpu(r, r->st->machine[m]);
    }
}

// --- what was measured ---------------------------------------------------------------------------

static void samples_of(const struct hb_series *s, struct hb_range *n)
{
    for (size_t k = 0; k < s->n; k++) {
        const json_t *e = s->cell[k]->entry, *v = json_object_get(e, "hb_samples");
        if (hb_cell_ok(s->cell[k]))
            hb_range_add(n, json_number_value(v ? v : json_object_get(e, "repetitions")));
    }
}

static bool named_before(const struct hb_series *s, size_t from, size_t i)
{
    for (size_t k = from; k < i; k++)
        if (!strcmp(s[k].impl, s[i].impl)) return true;
    return false;
}

static void range_cell(struct hb_table *t, struct hb_range v)
{
    if (v.hi > v.lo) hb_table_cell(t, "%.0f to %.0f", v.lo, v.hi);
    else if (v.hi > 0) hb_table_cell(t, "%.0f", v.hi);
    else hb_table_cell(t, "-");
}

// "core fwd, f16, cold, GPU; 7 pairs of B and D"
static void setting_cell(struct hb_table *t, const struct hb_series *s, size_t from, size_t to)
{
    size_t shapes = 1;
    for (size_t i = from + 1; i < to; i++)
        shapes += hb_setting_cmp(&s[i].set, &s[i - 1].set) != 0;
    const struct hb_setting *at = &s[from].set;
    if (shapes == 1) hb_table_cell(t, "%s", hb_report_where(at).s);
    else
        hb_table_cell(t, "%s %s, %zu pairs of B and D, %s%s, GPU", hb_scope_str(at->scope),
                      hb_pass_str(at->pass), shapes, hb_dtype_str(at->dtype),
                      at->mode == HB_MODE_COLD ? ", cold" : "");
}

static void setting_row(struct hb_report *r, struct hb_table *t, size_t from, size_t to)
{
    const struct hb_series *s = r->st->set.s;
    struct hb_range n = {INFINITY, -INFINITY}, L = {INFINITY, -INFINITY};
    struct hb_text impls = {0};
    size_t ok = 0, without = 0;
    for (size_t i = from; i < to; i++) {
        if (hb_setting_cmp(&s[from].set, &s[to - 1].set) == 0)
            hb_text_add(&impls, "%s%s", i > from ? ", " : "",
                        hb_series_label(&r->st->set, &s[i]).s);
        else if (!named_before(s, from, i))
            hb_text_add(&impls, "%s%s", i > from ? ", " : "", s[i].impl);
        ok += s[i].n_ok;
        without += s[i].n - s[i].n_ok;
        samples_of(&s[i], &n);
        for (size_t k = 0; k < s[i].n; k++) hb_range_add(&L, (double)s[i].cell[k]->pt.p.L);
    }
    setting_cell(t, s, from, to);
    hb_table_cell(t, "%s", impls.s ? impls.s : "");
    range_cell(t, L);
    hb_table_cell(t, "%zu", ok);
    hb_table_cell(t, "%zu", without);
    range_cell(t, n);
    t->failed = t->failed || impls.failed;
    hb_text_free(&impls);
}

static void versions(struct hb_report *r, const char *machine)
{
    hb_text_add(&r->t, "Builds that measured:");
    const char *last = "";
    for (size_t i = 0; i < r->st->r.n_files; i++) {
        if (strcmp(hb_file_machine(r->st->r.files[i]), machine)) continue;
        const json_t *context = json_object_get(r->st->r.files[i], "context");
        const json_t *soft = json_object_get(json_object_get(context, "hb_env"), "software");
        const char *git = json_string_value(json_object_get(soft, "git"));
        const char *run = json_string_value(json_object_get(context, "hb_run_id"));
        if (!git) git = "unknown";
        if (strcmp(git, last)) hb_text_add(&r->t, "%s `%s` runs", *last ? "." : "", git);
        hb_text_add(&r->t, " `%s`", run ? run : "?");
        last = git;
    }
    hb_text_add(&r->t, ".\n\n");
}

// How many points were taken while other processes had more than 5 % of the machine: short samples
// count in ticks of 10 ms, so a smaller share is not told from none.
static void busy_points(struct hb_report *r, const char *machine)
{
    size_t timed = 0, busy = 0, known = 0, stolen = 0;
    for (size_t i = 0; i < r->st->r.n; i++) {
        const struct hb_cell *c = &r->st->r.cells[i];
        if (!hb_cell_ok(c) || !c->has_pt || strcmp(hb_file_machine(c->file), machine)) continue;
        timed++;
        const json_t *others = json_object_get(c->entry, "hb_other_cpu_frac");
        known += json_is_number(others);
        busy += json_number_value(others) > 0.05;
        stolen += json_number_value(json_object_get(c->entry, "hb_steal_frac")) > 0.05;
    }
    if (stolen)
        hb_text_add(&r->t, "\nThe hypervisor took more than 5 %% of the processor while %zu of %zu "
                           "points were timed.\n", stolen, timed);
    if (!known) return;  // records of other programs, or of an early build
    hb_text_add(&r->t, "\nOther processes took more than 5 %% of the processor while %zu of %zu "
                       "points were timed%s.%s\n", busy, known,
                known < timed ? " (the others do not say)" : "",
                busy * 10 > known ? " **Do not trust the times: measure again on a quiet machine.**"
                                  : "");
}

// The time that its two timed neighbours on the curve suggest, linear in log time over log L; NAN
// at the ends and where the neighbours are more than a factor of five apart.
static double suggested_ns(const struct hb_series *s, size_t k)
{
    const struct hb_cell *before = NULL, *after = NULL;
    for (size_t i = 0; i < k; i++)
        if (hb_cell_ok(s->cell[i])) before = s->cell[i];
    for (size_t i = s->n; i-- > k + 1;)
        if (hb_cell_ok(s->cell[i])) after = s->cell[i];
    if (!before || !after || after->pt.p.L > 5 * before->pt.p.L) return NAN;
    const double at = log((double)s->cell[k]->pt.p.L / (double)before->pt.p.L) /
                      log((double)after->pt.p.L / (double)before->pt.p.L);
    return before->median_ns * pow(after->median_ns / before->median_ns, at);
}

// Points far above their curve. The state of the machine is only seen from within: a host that
// gives less for a while leaves no other trace.
static void outstanding(struct hb_report *r, const char *machine)
{
    const double far = 1.4;
    struct hb_text list = {0};
    int n = 0;
    for (size_t i = 0; i < r->st->set.n; i++) {
        const struct hb_series *s = &r->st->set.s[i];
        int here = 0;
        for (size_t k = 0; k < s->n && !strcmp(s->set.machine, machine); k++) {
            const double q = hb_cell_value(s->cell[k], HB_METRIC_TIME) / suggested_ns(s, k);
            if (!(q > far)) continue;
            if (!here++) hb_text_add(&list, "\n- `%s`, %s:", s->impl, hb_report_where(&s->set).s);
            hb_text_add(&list, "%s L = %lld (%s times)", here > 1 ? "," : "",
                        (long long)s->cell[k]->pt.p.L, hb_str_num(q).s);
            n++;
        }
    }
    if (n)
        hb_text_add(&r->t, "\n%d point%s took more than %g times what the neighbours on the curve "
                           "suggest: an FFT whose length has a large prime factor, a size that "
                           "suits the caches badly, or a host that was slow for a while. Trust "
                           "the curve, not the single point:\n%s\n", n, n == 1 ? "" : "s", far,
                    list.s ? list.s : "");
    r->t.failed = r->t.failed || list.failed;
    hb_text_free(&list);
}

// Where the row that starts at series i ends: with its setting, or, on a GPU and at batches above
// 1, with what differs in more than B and D.
static size_t row_end(const struct hb_series_set *set, size_t i)
{
    struct hb_setting a = set->s[i].set;
    size_t j = i;
    for (; j < set->n; j++) {
        struct hb_setting b = set->s[j].set;
        if (!hb_setting_cmp(&a, &b)) continue;
        if (!hb_on_gpu(a.device) || a.B == 1 || b.B == 1) break;
        b.B = a.B;
        b.D = a.D;
        if (hb_setting_cmp(&a, &b)) break;
    }
    return j;
}

void hb_report_measured(struct hb_report *r)
{
    hb_text_add(&r->t, "## What was measured\n\n"
                       "Scope `core` is the long convolution or the attention alone; scope "
                       "`operator` is the whole layer with its projections (and, for Hyena, short "
                       "convolution, gates and filter generation); scope `step` is one training "
                       "step. Numbers of different scopes are never divided by each other. Passes: "
                       "`fwd`, `bwd` (without the forward), `fwdbwd`, `fwd_cached` (the filter was "
                       "transformed before the timer). B batch, D channels, T threads; caches are "
                       "warm unless `cold` is said.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        struct hb_table t = {0};
        hb_report_subhead(r, machine);
        hb_table_head(&t, "setting|implementations|L|>timed|>without a time|>samples");
        for (size_t i = 0; i < r->st->set.n;) {
            const size_t j = row_end(&r->st->set, i);
            if (!strcmp(r->st->set.s[i].set.machine, machine)) setting_row(r, &t, i, j);
            i = j;
        }
        if (hb_table_empty(&t)) {
            hb_text_add(&r->t, "No operator was timed: `hyena-bench sweep` does.\n");
            hb_table_free(&t);
        } else hb_table_print(&t, &r->t);
        busy_points(r, machine);
        outstanding(r, machine);
        size_t runs = 0;
        for (size_t i = 0; i < r->st->lm.n; i++)
            runs += !strcmp(r->st->lm.run[i].machine, machine) && r->st->lm.run[i].ok;
        hb_text_add(&r->t, "\n%zu training runs (section Perplexity). ", runs);
        versions(r, machine);
    }
}
