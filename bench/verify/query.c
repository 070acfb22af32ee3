// query.c: points that a check names, found among the results.
#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "verify.h"

static const char *word(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

int hb_query_read(const json_t *check, const char *key, struct hb_query *q)
{
    const json_t *o = json_object_get(check, key);
    *q = (struct hb_query){.impl = word(o, "impl"),
                           .device = word(o, "device"),
                           .pass = word(o, "pass"),
                           .dtype = word(o, "dtype"),
                           .mode = word(o, "mode"),
                           .B = json_integer_value(json_object_get(o, "B")),
                           .D = json_integer_value(json_object_get(o, "D")),
                           .L = json_integer_value(json_object_get(o, "L"))};
    if (!q->impl) return hb_fail(HB_ERR_INPUT, "check: '%s' names no \"impl\"", key);
    return 0;
}

bool hb_query_matches(const struct hb_query *q, const struct hb_cell *c)
{
    const struct hb_problem *p = &c->pt.p;
    if (!c->has_pt || fnmatch(q->impl, c->pt.impl, 0)) return false;
    if (q->device && strncmp(c->pt.device, q->device, strlen(q->device))) return false;
    if (q->pass && strcmp(hb_pass_str(c->pt.pass), q->pass)) return false;
    if (q->dtype && strcmp(hb_dtype_str(p->dtype), q->dtype)) return false;
    if (q->mode && strcmp(hb_mode_str(c->pt.mode), q->mode)) return false;
    return (!q->B || p->B == q->B) && (!q->D || p->D == q->D) && (!q->L || p->L == q->L);
}

const struct hb_cell *hb_query_find(const struct hb_evidence *e, const struct hb_query *q,
                                    const char *machine)
{
    const struct hb_cell *best = NULL;
    for (size_t i = 0; i < e->r->n; i++) {
        const struct hb_cell *c = &e->r->cells[i];
        if (!hb_query_matches(q, c)) continue;
        if (machine && strcmp(hb_file_machine(c->file), machine)) continue;
        if (hb_cell_ok(c) ? !hb_cell_ok(best) || c->median_ns < best->median_ns : !best) best = c;
    }
    return best;
}

size_t hb_machines(const struct hb_results *r, const char **out, size_t cap)
{
    size_t n = 0;
    for (size_t i = r->n_files; i-- > 0;) {
        const char *m = hb_file_machine(r->files[i]);
        size_t k = 0;
        while (k < n && strcmp(out[k], m)) k++;
        if (k == n && n < cap) out[n++] = m;
    }
    return n;
}

void hb_query_command(const struct hb_query *q, char *buf, size_t cap)
{
    // A wildcard is not a name that `run` takes: the implementation is the reader's choice.
    int n = snprintf(buf, cap, "hyena-bench run --impl '%s'", q->impl);
    const struct { const char *option, *value; } words[] = {
        {"device", !q->device ? NULL : !strcmp(q->device, "cuda") ? "cuda0" : "cpu0"},
        {"dtype", q->dtype}, {"pass", q->pass}, {"mode", q->mode}};
    const struct { const char *option; int64_t value; } numbers[] = {
        {"B", q->B}, {"D", q->D}, {"L", q->L}};
    for (size_t i = 0; i < 4 && n < (int)cap; i++)
        if (words[i].value)
            n += snprintf(buf + n, cap - (size_t)n, " --%s %s", words[i].option, words[i].value);
    for (size_t i = 0; i < 3 && n < (int)cap; i++)
        if (numbers[i].value)
            n += snprintf(buf + n, cap - (size_t)n, " --%s %lld", numbers[i].option,
                          (long long)numbers[i].value);
}

void hb_outcome_file(struct hb_outcome *o, const json_t *file)
{
    for (size_t i = 0; i < o->n_files; i++)
        if (o->file[i] == file) return;
    if (file && o->n_files < HB_OUTCOME_FILES) o->file[o->n_files++] = file;
}

void hb_outcome_none(struct hb_outcome *o, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(o->why, sizeof o->why, fmt, ap);
    va_end(ap);
    o->value = NAN;
}
