// results.c: reading result files back: cells with what the readers need, checked field by field.
//
// Order     the paths as given, files of a folder by name (run ids begin with the time). Of one
//           name on one machine the later cell stays, except that `dropped` (there was no time
//           left) and `interrupted` never replace anything.
// Checked   context, names, times, intervals and the fields of hb_cell; a wrong one is an error
//           that names file, entry and field. Unknown fields are left alone. Files of plain Google
//           Benchmark pass, too.
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "record.h"

struct loader {
    struct hb_results *r;
    size_t cap, file_cap;
    json_t *seen;                    // "machine\nname" -> number of the cell
};
// Where we are, for messages.
struct place { const char *path, *list; size_t i; };

static int bad(struct place p, const char *field, const char *expected)
{
    return hb_fail(HB_ERR_INPUT, "%s: %s[%zu].%s: %s expected", p.path, p.list, p.i, field,
                   expected);
}

// A finite number >= 0 into *out (NAN if the field is absent).
static int number(const json_t *e, const char *field, struct place p, double *out)
{
    const json_t *v = json_object_get(e, field);
    *out = NAN;
    if (!v) return 0;
    if (!json_is_number(v) || !(json_number_value(v) >= 0)) return bad(p, field, "a number >= 0");
    *out = json_number_value(v);
    return 0;
}

static int interval(const json_t *e, const char *field, struct place p, struct hb_interval *out)
{
    const json_t *v = json_object_get(e, field), *lo = json_array_get(v, 0),
                 *hi = json_array_get(v, 1);
    *out = (struct hb_interval){ NAN, NAN };
    if (!v) return 0;
    if (json_array_size(v) != 2 || !json_is_number(lo) || !json_is_number(hi)
        || json_number_value(lo) > json_number_value(hi))
        return bad(p, field, "[low, high]");
    *out = (struct hb_interval){ json_number_value(lo), json_number_value(hi) };
    return 0;
}

static int numbers(struct hb_cell *c, const json_t *e, struct place p)
{
    const struct { const char *field; double *to; } rows[] = {
        { "hb_median_ns", &c->median_ns },
        { "hb_err_rel_l2", &c->err_rel_l2 },
        { "hb_alloc_peak_bytes", &c->alloc_peak_bytes },
        { "hb_rss_peak_bytes", &c->rss_peak_bytes },
        { "hb_flop", &c->flop },
        { "hb_bytes_min", &c->bytes_min },
        { "hb_roof_ns", &c->roof_ns },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int rc = number(e, rows[i].field, p, rows[i].to);
        if (rc != 0) return rc;
    }
    return interval(e, "hb_ci95_ns", p, &c->ci95);
}

static int text(const json_t *e, const char *field, struct place p, const char **out)
{
    *out = json_string_value(json_object_get(e, field));
    return *out && **out ? 0 : bad(p, field, "a text");
}

// The point behind the name: ours must have one; lm: entries and foreign files have none.
static int point(struct hb_cell *c, const json_t *e, struct place p)
{
    if (strncmp(c->name, "lm:", 3) == 0 || !json_object_get(e, "hb_impl")) return 0;
    if (hb_point_parse(c->name, &c->pt) != 0) {
        char why[512];
        snprintf(why, sizeof why, "%s", hb_error());
        hb_error_clear();
        return hb_fail(HB_ERR_INPUT, "%s: %s[%zu].name: %s", p.path, p.list, p.i, why);
    }
    c->has_pt = true;
    return 0;
}

static int timed_cell(struct hb_cell *c, json_t *e, struct place p)
{
    double real;
    int rc = text(e, "name", p, &c->name);
    if (rc == 0) rc = number(e, "real_time", p, &real);
    if (rc == 0 && !(real > 0)) rc = bad(p, "real_time", "a number > 0");
    if (rc == 0) rc = numbers(c, e, p);
    if (rc == 0) rc = point(c, e, p);
    if (rc == 0 && isnan(c->median_ns)) c->median_ns = real;      // plain Google Benchmark
    c->status = "ok";
    c->detail = "";
    return rc;
}

static int skipped_cell(struct hb_cell *c, json_t *e, struct place p)
{
    int rc = text(e, "name", p, &c->name);
    if (rc == 0) rc = text(e, "status", p, &c->status);
    if (rc == 0) rc = numbers(c, e, p);
    if (rc == 0) rc = point(c, e, p);
    c->median_ns = NAN;
    c->ci95 = (struct hb_interval){ NAN, NAN };
    const char *detail = json_string_value(json_object_get(e, "detail"));
    c->detail = detail ? detail : "";
    return rc;
}

static int no_memory(void) { return hb_fail(HB_ERR_OOM, "results: no memory"); }

// Adds the cell, or puts it in the place of an earlier one of its name and machine.
static int keep(struct loader *l, const struct hb_cell *c, const char *machine)
{
    size_t n = strlen(machine) + strlen(c->name) + 2;
    char *key = malloc(n);
    if (!key) return no_memory();
    snprintf(key, n, "%s\n%s", machine, c->name);
    json_t *known = json_object_get(l->seen, key);
    int rc = 0;
    if (known) {
        if (strcmp(c->status, "dropped") && strcmp(c->status, "interrupted"))
            l->r->cells[json_integer_value(known)] = *c;
    } else {
        if (l->r->n == l->cap) {
            size_t cap = 2 * l->cap + 64;
            struct hb_cell *more = realloc(l->r->cells, cap * sizeof *more);
            if (more) { l->r->cells = more; l->cap = cap; } else rc = no_memory();
        }
        if (rc == 0 && json_object_set_new(l->seen, key, json_integer((json_int_t)l->r->n)) != 0)
            rc = no_memory();
        if (rc == 0) l->r->cells[l->r->n++] = *c;
    }
    free(key);
    return rc;
}

// All cells of one list. Of a point's repetitions only the first becomes a cell.
static int read_list(struct loader *l, json_t *doc, const char *path, const char *list,
                     const char *machine, int (*read)(struct hb_cell *, json_t *, struct place))
{
    json_t *a = json_object_get(doc, list), *e, *here = json_object();
    size_t i;
    int rc = here ? 0 : no_memory();
    if (rc == 0 && a && !json_is_array(a))
        rc = hb_fail(HB_ERR_INPUT, "%s: '%s': a list expected", path, list);
    json_array_foreach(a, i, e) {
        struct hb_cell c = { .entry = e, .file = doc };
        struct place p = { path, list, i };
        if (rc == 0 && !json_is_object(e))
            rc = hb_fail(HB_ERR_INPUT, "%s: %s[%zu]: an object expected", path, list, i);
        if (rc == 0) rc = read(&c, e, p);
        if (rc != 0) break;
        if (json_object_get(here, c.name)) continue;
        rc = json_object_set_new(here, c.name, json_true()) == 0 ? keep(l, &c, machine)
                                                                 : no_memory();
    }
    json_decref(here);
    return rc;
}

static int check_pairs(const json_t *doc, const char *path)
{
    json_t *a = json_object_get(doc, "hb_pairs"), *e;
    size_t i;
    if (a && !json_is_array(a))
        return hb_fail(HB_ERR_INPUT, "%s: 'hb_pairs': a list expected", path);
    json_array_foreach(a, i, e) {
        struct place p = { path, "hb_pairs", i };
        const char *s;
        double ratio;
        struct hb_interval ci;
        int rc = text(e, "a", p, &s);
        if (rc == 0) rc = text(e, "b", p, &s);
        if (rc == 0) rc = number(e, "ratio", p, &ratio);
        if (rc == 0 && !(ratio > 0)) rc = bad(p, "ratio", "a number > 0");
        if (rc == 0) rc = interval(e, "ratio_ci95", p, &ci);
        if (rc != 0) return rc;
    }
    return 0;
}

static int remember(struct loader *l, json_t *doc, const char *path)
{
    struct hb_results *r = l->r;
    if (r->n_files == l->file_cap) {
        size_t cap = 2 * l->file_cap + 8;
        json_t **files = realloc(r->files, cap * sizeof *files);
        if (files) r->files = files;
        char **paths = realloc(r->paths, cap * sizeof *paths);
        if (paths) r->paths = paths;
        if (!files || !paths) return no_memory();
        l->file_cap = cap;
    }
    char *copy = strdup(path);
    if (!copy) return no_memory();
    r->files[r->n_files] = json_incref(doc);
    r->paths[r->n_files++] = copy;
    return 0;
}

static int load_file(struct loader *l, const char *path)
{
    json_t *doc = hb_json_load(path), *context = json_object_get(doc, "context");
    if (!doc) return hb_error_code();
    const char *machine = json_string_value(json_object_get(context, "host_name"));
    int rc = 0;
    if (!json_is_object(context) || !json_is_array(json_object_get(doc, "benchmarks")))
        rc = hb_fail(HB_ERR_INPUT, "%s: a result file expected, with 'context' and 'benchmarks'",
                     path);
    if (rc == 0 && !machine)
        rc = hb_fail(HB_ERR_INPUT, "%s: context.host_name: a text expected", path);
    if (rc == 0) rc = remember(l, doc, path);
    if (rc == 0) rc = read_list(l, doc, path, "benchmarks", machine, timed_cell);
    if (rc == 0) rc = read_list(l, doc, path, "hb_skips", machine, skipped_cell);
    if (rc == 0) rc = check_pairs(doc, path);
    json_decref(doc);
    return rc;
}

static int is_json(const struct dirent *e)
{
    return e->d_name[0] != '.' && hb_ends_with(e->d_name, ".json");
}

static int load_folder(struct loader *l, const char *path)
{
    struct dirent **names = NULL;
    int n = scandir(path, &names, is_json, alphasort), rc = 0;
    if (n < 0) return hb_fail(HB_ERR_INPUT, "%s: the folder cannot be read", path);
    for (int i = 0; i < n; i++) {
        char file[4400];
        int k = snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (rc == 0 && (k < 0 || (size_t)k >= sizeof file))
            rc = hb_fail(HB_ERR_INPUT, "%s: path too long", path);
        if (rc == 0) rc = load_file(l, file);
        free(names[i]);
    }
    free(names);
    return rc;
}

int hb_results_load(const char *const *paths, struct hb_results *out)
{
    *out = (struct hb_results){ 0 };
    struct loader l = { .r = out, .seen = json_object() };
    int rc = l.seen ? 0 : no_memory();
    for (; rc == 0 && *paths; paths++) {
        struct stat st;
        bool folder = stat(*paths, &st) == 0 && S_ISDIR(st.st_mode);
        rc = folder ? load_folder(&l, *paths) : load_file(&l, *paths);
    }
    json_decref(l.seen);
    if (rc != 0) hb_results_free(out);
    return rc;
}

void hb_results_free(struct hb_results *r)
{
    for (size_t i = 0; i < r->n_files; i++) {
        json_decref(r->files[i]);
        free(r->paths[i]);
    }
    free(r->cells);
    free(r->files);
    free(r->paths);
    *r = (struct hb_results){ 0 };
}
