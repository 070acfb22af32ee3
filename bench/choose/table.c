// table.c: the measured points as a compact table, and its file (contract: choose.h).
//
// File      {"hb_choices": 1, "home": id, "machines": [{id, cpu, gpu, threads, gpu_bytes}],
//           "rows": [{name, m, status | ns, lo, hi, mem, build}]}, as measured.
#include "choose.h"

#include <stdlib.h>
#include <string.h>

static int no_memory(void) { return hb_fail(HB_ERR_OOM, "no memory for the table of choices"); }

void hb_choices_free(struct choose_table *t)
{
    free(t->machines);
    free(t->rows);
    *t = (struct choose_table){ 0 };
}

int hb_choices_machine(struct choose_table *t, const struct choose_machine *m)
{
    for (int i = 0; i < t->n_machines; i++)
        if (!strcmp(t->machines[i].id, m->id)) return i;
    struct choose_machine *more =
        realloc(t->machines, ((size_t)t->n_machines + 1) * sizeof *more);
    if (!more) return no_memory();
    t->machines = more;
    more[t->n_machines] = *m;
    return t->n_machines++;
}

int hb_choices_add(struct choose_table *t, const struct choose_row *row)
{
    if (t->n == t->cap) {
        size_t cap = 2 * t->cap + 64;
        struct choose_row *more = realloc(t->rows, cap * sizeof *more);
        if (!more) return no_memory();
        t->rows = more;
        t->cap = cap;
    }
    t->rows[t->n++] = *row;
    return 0;
}

// --- reading -------------------------------------------------------------------------------------

static void word(const json_t *o, const char *key, char *out, size_t cap)
{
    const char *s = json_string_value(json_object_get(o, key));
    snprintf(out, cap, "%s", s ? s : "");
}

static double number(const json_t *o, const char *key)
{
    double v = json_number_value(json_object_get(o, key));
    return v > 0 ? v : 0;
}

static int read_machines(const json_t *list, const char *where, struct choose_table *t)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        struct choose_machine m = { .threads = (int)number(o, "threads"),
                                    .gpu_bytes = number(o, "gpu_bytes") };
        word(o, "id", m.id, sizeof m.id);
        word(o, "cpu", m.cpu, sizeof m.cpu);
        word(o, "gpu", m.gpu, sizeof m.gpu);
        if (!m.id[0])
            return hb_fail(HB_ERR_INPUT, "%s: machines[%zu].id: a text expected", where, i);
        int at = hb_choices_machine(t, &m);
        if (at < 0) return at;
        if ((size_t)at != i)
            return hb_fail(HB_ERR_INPUT, "%s: machines[%zu]: '%s' is there twice", where, i, m.id);
    }
    return 0;
}

static int read_row(const json_t *o, const char *where, size_t i, struct choose_table *t)
{
    const char *name = json_string_value(json_object_get(o, "name"));
    struct choose_row r = { .median_ns = number(o, "ns"), .lo_ns = number(o, "lo"),
                            .hi_ns = number(o, "hi"), .mem_bytes = number(o, "mem") };
    const json_t *m = json_object_get(o, "m");
    word(o, "status", r.status, sizeof r.status);
    word(o, "build", r.build, sizeof r.build);
    if (!r.status[0]) snprintf(r.status, sizeof r.status, "ok");
    if (!name) return hb_fail(HB_ERR_INPUT, "%s: rows[%zu].name: a text expected", where, i);
    if (hb_point_parse(name, &r.pt)) {
        char why[400];
        snprintf(why, sizeof why, "%.399s", hb_error());
        hb_error_clear();
        return hb_fail(HB_ERR_INPUT, "%s: rows[%zu].name: %s", where, i, why);
    }
    if (!json_is_integer(m) || json_integer_value(m) < 0 || json_integer_value(m) >= t->n_machines)
        return hb_fail(HB_ERR_INPUT, "%s: rows[%zu].m: the number of a machine expected", where, i);
    if (!strcmp(r.status, "ok") && !(r.median_ns > 0 && r.lo_ns > 0 && r.hi_ns >= r.lo_ns))
        return hb_fail(HB_ERR_INPUT, "%s: rows[%zu]: ns, lo, hi: times expected", where, i);
    r.machine = (int)json_integer_value(m);
    return hb_choices_add(t, &r);
}

int hb_choices_parse(const json_t *doc, const char *where, struct choose_table *out)
{
    *out = (struct choose_table){ 0 };
    const json_t *rows = json_object_get(doc, "rows"), *machines = json_object_get(doc, "machines");
    if (json_integer_value(json_object_get(doc, "hb_choices")) != 1 || !json_is_array(rows)
        || !json_is_array(machines))
        return hb_fail(HB_ERR_INPUT, "%s: a table of choices expected (hb_choices 1, machines, "
                                     "rows)", where);
    word(doc, "home", out->home, sizeof out->home);
    int rc = read_machines(machines, where, out);
    for (size_t i = 0; i < json_array_size(rows) && !rc; i++)
        rc = read_row(json_array_get(rows, i), where, i, out);
    if (rc) hb_choices_free(out);
    return rc;
}

int hb_choices_read(const char *path, struct choose_table *out)
{
    json_error_t e;
    *out = (struct choose_table){ 0 };
    json_t *doc = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
    if (!doc) return hb_fail(HB_ERR_INPUT, "%s:%d:%d: %s", path, e.line, e.column, e.text);
    int rc = hb_choices_parse(doc, path, out);
    json_decref(doc);
    return rc;
}

// --- writing -------------------------------------------------------------------------------------

static json_t *row_json(const struct choose_row *r)
{
    char name[HB_POINT_NAME_MAX];
    if (hb_point_name(&r->pt, name, sizeof name)) return NULL;
    if (strcmp(r->status, "ok"))
        return json_pack("{s:s,s:i,s:s}", "name", name, "m", r->machine, "status", r->status);
    return json_pack("{s:s,s:i,s:f,s:f,s:f,s:f,s:s}", "name", name, "m", r->machine, "ns",
                     r->median_ns, "lo", r->lo_ns, "hi", r->hi_ns, "mem", r->mem_bytes, "build",
                     r->build);
}

json_t *hb_choices_json(const struct choose_table *t)
{
    json_t *machines = json_array(), *rows = json_array();
    int rc = 0;
    for (int i = 0; i < t->n_machines; i++) {
        const struct choose_machine *m = &t->machines[i];
        rc |= json_array_append_new(
            machines, json_pack("{s:s,s:s,s:s,s:i,s:f}", "id", m->id, "cpu", m->cpu, "gpu", m->gpu,
                                "threads", m->threads, "gpu_bytes", m->gpu_bytes));
    }
    for (size_t i = 0; i < t->n; i++) rc |= json_array_append_new(rows, row_json(&t->rows[i]));
    json_t *doc = json_pack("{s:i,s:s,s:o,s:o}", "hb_choices", 1, "home", t->home, "machines",
                            machines, "rows", rows);
    if (!doc || rc) {
        json_decref(doc);
        no_memory();
        return NULL;
    }
    return doc;
}
