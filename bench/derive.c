// derive.c: cells to series, and what is read off a cell.
#include "derive.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_SAMPLES 1024  // of one cell; records keep at most 64 of each of 10 repetitions

// --- where a file was measured -------------------------------------------------------------------

static const json_t *context(const json_t *file) { return json_object_get(file, "context"); }

const char *hb_file_machine(const json_t *file)
{
    const char *id = json_string_value(
        json_object_get(json_object_get(context(file), "hb_env"), "machine_id"));
    if (!id) id = json_string_value(json_object_get(context(file), "host_name"));
    return id ? id : "unknown";
}

const char *hb_file_cpu(const json_t *file)
{
    const json_t *machine = json_object_get(json_object_get(context(file), "hb_env"), "machine");
    const char *model = json_string_value(json_object_get(json_object_get(machine, "cpu"), "mode"
                                                                                           "l"));
    return model ? model : hb_file_machine(file);
}

const char *hb_file_gpu(const json_t *file)
{
    const json_t *machine = json_object_get(json_object_get(context(file), "hb_env"), "machine");
    const json_t *all = json_object_get(json_object_get(machine, "gpu"), "devices");
    return json_string_value(json_object_get(json_array_get(all, 0), "name"));
}

bool hb_on_gpu(const char *device) { return !strncmp(device, "cuda", 4); }

const char *hb_results_chip(const struct hb_results *r, const char *machine, bool gpu)
{
    const char *chip = machine;
    for (size_t i = 0; i < r->n_files; i++) {
        if (strcmp(hb_file_machine(r->files[i]), machine)) continue;
        const char *card = gpu ? hb_file_gpu(r->files[i]) : NULL;
        chip = card ? card : hb_file_cpu(r->files[i]);
    }
    return chip;
}

const json_t *hb_results_context(const struct hb_results *r, const char *machine, const char *key)
{
    const json_t *best = NULL;
    const char *best_date = "";
    for (size_t i = 0; i < r->n_files; i++) {
        if (strcmp(hb_file_machine(r->files[i]), machine)) continue;
        if (key && !json_object_get(context(r->files[i]), key)) continue;
        const char *date = json_string_value(json_object_get(context(r->files[i]), "date"));
        if (!best || (date && strcmp(date, best_date) > 0)) {
            best = context(r->files[i]);
            if (date) best_date = date;
        }
    }
    return best;
}

const json_t *hb_results_roofline(const struct hb_results *r, const char *machine)
{
    return json_object_get(hb_results_context(r, machine, "hb_roofline"), "hb_roofline");
}

// --- cells ---------------------------------------------------------------------------------------

bool hb_cell_ok(const struct hb_cell *c)
{
    return c && !strcmp(c->status, "ok") && c->median_ns > 0;
}

// Of the device that it ran on.
static double memory_of(const struct hb_cell *c)
{
    const json_t *device = json_object_get(c->entry, "hb_device_peak_bytes");
    return device ? json_number_value(device) : c->alloc_peak_bytes;
}

double hb_cell_value(const struct hb_cell *c, enum hb_metric m)
{
    if (!hb_cell_ok(c)) return NAN;
    switch (m) {
    case HB_METRIC_TIME: return c->median_ns;
    case HB_METRIC_MEMORY: return memory_of(c) > 0 ? memory_of(c) : NAN;
    case HB_METRIC_ERROR: return c->err_rel_l2 > 0 ? c->err_rel_l2 : NAN;
    }
    return NAN;
}

struct hb_interval hb_cell_interval(const struct hb_cell *c, enum hb_metric m)
{
    const double v = hb_cell_value(c, m);
    if (m == HB_METRIC_TIME && isfinite(v) && c->ci95.lo > 0 && c->ci95.hi >= c->ci95.lo)
        return c->ci95;
    return (struct hb_interval){v, v};  // bytes and errors are counted, not sampled
}

// A cell's samples stand in its repetitions' entries; all of them have the point's name.
size_t hb_cell_samples(const struct hb_cell *c, double *ns, size_t cap)
{
    const json_t *all = json_object_get(c->file, "benchmarks");
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *e = json_array_get(all, i), *a = json_object_get(e, "hb_samples_ns");
        const char *name = json_string_value(json_object_get(e, "name"));
        if (!name || strcmp(name, c->name)) continue;
        for (size_t k = 0; k < json_array_size(a) && n < cap; k++) {
            const double v = json_number_value(json_array_get(a, k));
            if (v > 0) ns[n++] = v;
        }
    }
    return n;
}

struct hb_ratio hb_cell_ratio(const struct hb_cell *a, const struct hb_cell *b)
{
    struct hb_ratio out = {NAN, {NAN, NAN}};
    if (!hb_cell_ok(a) || !hb_cell_ok(b)) return out;
    double x[MAX_SAMPLES], y[MAX_SAMPLES];
    const size_t nx = hb_cell_samples(a, x, MAX_SAMPLES), ny = hb_cell_samples(b, y, MAX_SAMPLES);
    if (nx >= 3 && ny >= 3) return hb_ratio_of(x, nx, y, ny, 0, 1);
    // Without samples: the two intervals' log half-widths add in quadrature.
    const struct hb_interval ia = hb_cell_interval(a, HB_METRIC_TIME),
                             ib = hb_cell_interval(b, HB_METRIC_TIME);
    out.r = a->median_ns / b->median_ns;
    const double h = hypot(log(ia.hi / ia.lo) / 2, log(ib.hi / ib.lo) / 2);
    out.ci95 = (struct hb_interval){out.r * exp(-h), out.r * exp(h)};
    return out;
}

// --- series --------------------------------------------------------------------------------------

#define CMP(x, y) \
    if ((x) != (y)) return (x) < (y) ? -1 : 1

int hb_setting_cmp(const struct hb_setting *a, const struct hb_setting *b)
{
    const int m = strcmp(a->machine, b->machine), d = strcmp(a->device, b->device);
    if (m) return m;
    if (d) return d;
    CMP(b->scope, a->scope);  // operator before core: it is what a user runs
    CMP(a->pass, b->pass);
    CMP(a->mode, b->mode);
    CMP(a->dtype, b->dtype);
    CMP(a->B, b->B);
    CMP(a->D, b->D);
    CMP(a->threads, b->threads);
    return 0;
}

struct hb_words hb_setting_str(const struct hb_setting *s)
{
    struct hb_words w;
    char threads[24] = "", device[24] = "";
    if (!hb_on_gpu(s->device)) snprintf(threads, sizeof threads, ", T %d", s->threads);
    if (!strcmp(s->device, "cuda0")) snprintf(device, sizeof device, ", GPU");
    else if (strcmp(s->device, "cpu0")) snprintf(device, sizeof device, ", %s", s->device);
    snprintf(w.s, sizeof w.s, "%s %s, B %lld, D %lld, %s%s%s%s%s", hb_scope_str(s->scope),
             hb_pass_str(s->pass), (long long)s->B, (long long)s->D, hb_dtype_str(s->dtype),
             threads, s->mode == HB_MODE_WARM ? "" : ", ",
             s->mode == HB_MODE_WARM ? "" : hb_mode_str(s->mode), device);
    return w;
}

static int series_cmp(const struct hb_series *a, const struct hb_series *b)
{
    const int s = hb_setting_cmp(&a->set, &b->set);
    if (s) return s;
    CMP(a->op, b->op);
    const int n = strcmp(a->impl, b->impl);
    if (n) return n;
    return strcmp(a->key, b->key);
}

// What stands between D, H, N and L in a name: "/window:off/taps:3/" -> "window:off/taps:3".
static void options_of(const char *key, char *out, size_t cap)
{
    out[0] = 0;
    const char *end = strstr(key, "/L:0/"), *p = strstr(key, "/D:");
    while (p && p < end &&
           (!strncmp(p, "/D:", 3) || !strncmp(p, "/H:", 3) || !strncmp(p, "/N:", 3)))
        p += 1 + strcspn(p + 1, "/");
    if (p && p < end) snprintf(out, cap, "%.*s", (int)(end - p - 1), p + 1);
}

static bool series_of(const struct hb_cell *c, struct hb_series *s)
{
    *s = (struct hb_series){0};
    if (!c->has_pt) return false;
    struct hb_point pt = c->pt;
    pt.p.L = 0;  // the name without its length: options and all
    if (hb_point_name(&pt, s->key, sizeof s->key)) {
        hb_error_clear();
        return false;
    }
    options_of(s->key, s->options, sizeof s->options);
    s->op = c->pt.p.op;
    s->set = (struct hb_setting){.machine = hb_file_machine(c->file),
                                 .scope = c->pt.scope,
                                 .pass = c->pt.pass,
                                 .mode = c->pt.mode,
                                 .dtype = c->pt.p.dtype,
                                 .B = c->pt.p.B,
                                 .D = c->pt.p.D,
                                 .threads = c->pt.p.threads};
    memcpy(s->set.device, c->pt.device, sizeof s->set.device);
    memcpy(s->impl, c->pt.impl, sizeof s->impl);
    s->H = c->pt.p.H;
    s->order = c->pt.p.oper.order;
    s->planning = c->pt.p.planning;
    return true;
}

struct keyed {
    struct hb_series s;
    const struct hb_cell *c;
};

static int keyed_cmp(const void *x, const void *y)
{
    const struct keyed *a = x, *b = y;
    const int s = series_cmp(&a->s, &b->s);
    if (s) return s;
    CMP(a->c->pt.p.L, b->c->pt.p.L);
    return 0;
}

int hb_series_make(const struct hb_results *r, struct hb_series_set *out)
{
    *out = (struct hb_series_set){0};
    struct keyed *k = calloc(r->n + 1, sizeof *k);
    struct hb_series *s = calloc(r->n + 1, sizeof *s);
    if (!k || !s) {
        free(k);
        free(s);
        return hb_fail(HB_ERR_OOM, "no memory for %zu cells", r->n);
    }
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        if (series_of(&r->cells[i], &k[n].s)) k[n++].c = &r->cells[i];
    qsort(k, n, sizeof *k, keyed_cmp);
    out->s = s;
    for (size_t i = 0; i < n;) {
        size_t j = i;
        while (j < n && !series_cmp(&k[i].s, &k[j].s)) j++;
        struct hb_series *new = &s[out->n];
        *new = k[i].s;
        new->cell = calloc(j - i, sizeof(*new->cell));
        if (!new->cell) {
            free(k);
            hb_series_free(out);
            return hb_fail(HB_ERR_OOM, "no memory for %zu cells", j - i);
        }
        out->n++;
        for (; i < j; i++) {
            new->cell[new->n++] = k[i].c;
            new->n_ok += hb_cell_ok(k[i].c);
        }
    }
    free(k);
    return 0;
}

void hb_series_free(struct hb_series_set *set)
{
    for (size_t i = 0; i < set->n; i++) free(set->s[i].cell);
    free(set->s);
    *set = (struct hb_series_set){0};
}

const char *hb_impl_inner(const char *impl)
{
    const char *colon = strchr(impl, ':');
    return colon ? colon + 1 : impl;
}

struct hb_label hb_series_label(const struct hb_series_set *set, const struct hb_series *s)
{
    struct hb_label l;
    bool heads = false, order = false, planning = false, options = false;
    for (size_t i = 0; i < set->n; i++) {
        const struct hb_series *o = &set->s[i];
        if (hb_setting_cmp(&o->set, &s->set) || strcmp(o->impl, s->impl)) continue;
        heads = heads || o->H != s->H;
        order = order || o->order != s->order;
        options = options ||
                  (o != s && o->H == s->H && o->order == s->order && o->planning == s->planning);
        planning = planning || o->planning != s->planning;
    }
    int n = snprintf(l.s, sizeof l.s, "%s", s->impl);
    if (heads) n += snprintf(l.s + n, sizeof l.s - (size_t)n, " H %lld", (long long)s->H);
    if (order) n += snprintf(l.s + n, sizeof l.s - (size_t)n, " order %d", s->order);
    if (planning)
        n += snprintf(l.s + n, sizeof l.s - (size_t)n, " plan %s", hb_planning_str(s->planning));
    if (options && strlen(s->options)) snprintf(l.s + n, sizeof l.s - (size_t)n, " %s", s->options);
    return l;
}

const struct hb_cell *hb_series_at(const struct hb_series *s, int64_t L)
{
    for (size_t i = 0; s && i < s->n; i++)
        if (s->cell[i]->pt.p.L == L) return s->cell[i];
    return NULL;
}

int64_t hb_series_last_common(const struct hb_series *a, const struct hb_series *b)
{
    int64_t L = 0;
    for (size_t i = 0; a && b && i < a->n; i++)
        if (hb_cell_ok(a->cell[i]) && hb_cell_ok(hb_series_at(b, a->cell[i]->pt.p.L)))
            L = a->cell[i]->pt.p.L;
    return L;
}

const struct hb_series *hb_series_find(const struct hb_series_set *set, const struct hb_setting *at,
                                       const char *impl)
{
    for (size_t i = 0; i < set->n; i++)
        if (!hb_setting_cmp(&set->s[i].set, at) && !strcmp(set->s[i].impl, impl)) return &set->s[i];
    return NULL;
}

const struct hb_setting *hb_setting_main(const struct hb_series_set *set, const char *machine,
                                         enum hb_scope scope, enum hb_pass pass)
{
    const struct hb_setting *best = NULL;
    size_t best_n = 0;
    for (size_t i = 0; i < set->n;) {
        const struct hb_setting *at = &set->s[i].set;
        size_t n = 0;
        for (; i < set->n && !hb_setting_cmp(&set->s[i].set, at); i++) n += set->s[i].n_ok;
        if (at->scope != scope || at->pass != pass || (machine && strcmp(at->machine, machine)))
            continue;
        if (n > best_n) {
            best = at;
            best_n = n;
        }
    }
    return best;
}

static bool belongs(const struct hb_series *s, const struct hb_setting *at, enum hb_op op)
{
    return s->op == op && !hb_setting_cmp(&s->set, at);
}

// The length at which most series of this operator have a time, the longest of those; 0: none has.
static int64_t common_length(const struct hb_series_set *set, const struct hb_setting *at,
                             enum hb_op op)
{
    int64_t best = 0;
    size_t best_n = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (!belongs(&set->s[i], at, op)) continue;
        for (size_t k = 0; k < set->s[i].n; k++) {
            const int64_t L = set->s[i].cell[k]->pt.p.L;
            size_t n = 0;
            for (size_t j = 0; j < set->n; j++)
                n += belongs(&set->s[j], at, op) && hb_cell_ok(hb_series_at(&set->s[j], L));
            if (!n || n < best_n || (n == best_n && L <= best)) continue;
            best = L;
            best_n = n;
        }
    }
    return best;
}

const struct hb_series *hb_series_best(const struct hb_series_set *set, const struct hb_setting *at,
                                       enum hb_op op)
{
    const int64_t L = common_length(set, at, op);
    const struct hb_series *best = NULL;
    double best_ns = INFINITY;
    for (size_t i = 0; i < set->n; i++) {
        const struct hb_series *s = &set->s[i];
        if (!belongs(s, at, op)) continue;
        const double t = hb_cell_value(hb_series_at(s, L), HB_METRIC_TIME);
        if (t < best_ns) {
            best_ns = t;
            best = s;
        }
    }
    return best;
}

// --- folders -------------------------------------------------------------------------------------

void hb_paths_free(char **paths)
{
    for (char **p = paths; p && *p; p++) free(*p);
    free(paths);
}

// results/peers holds tables of other programs, no result files.
static bool holds_results(const char *path)
{
    DIR *d = opendir(path);
    bool found = false;
    for (const struct dirent *e; d && !found && (e = readdir(d));)
        found = e->d_name[0] != '.' && hb_ends_with(e->d_name, ".json");
    if (d) closedir(d);
    return found;
}

static int folders_in(const char *root, char ***out)
{
    struct dirent **e = NULL;
    *out = NULL;
    const int n = scandir(root, &e, NULL, alphasort);
    if (n < 0) return 0;  // no such folder: nothing measured yet
    char **list = calloc((size_t)n + 1, sizeof *list);
    int m = 0, rc = list ? 0 : HB_ERR_OOM;
    for (int i = 0; i < n; i++) {
        char *path = NULL;
        struct stat st;
        if (!rc && e[i]->d_name[0] != '.') {
            if (asprintf(&path, "%s/%s", root, e[i]->d_name) < 0) {
                path = NULL;
                rc = HB_ERR_OOM;
            } else if (!stat(path, &st) && S_ISDIR(st.st_mode) && holds_results(path)) {
                list[m++] = path;
                path = NULL;
            }
        }
        free(path);
        free(e[i]);
    }
    free(e);
    if (rc || !m) {
        hb_paths_free(list);
        return rc ? hb_fail(rc, "no memory for the list of %s", root) : 0;
    }
    *out = list;
    return 0;
}

int hb_results_default(char ***out)
{
    char root[4096];
    if (snprintf(root, sizeof root, "%s/results", hb_build_dir()) >= (int)sizeof root)
        return hb_fail(HB_ERR_INPUT, "path too long: %s", hb_build_dir());
    int rc = folders_in(root, out);
    if (rc || *out) return rc;
    snprintf(root, sizeof root, "%.4000s/results", hb_root_dir());
    rc = folders_in(root, out);
    if (!rc && !*out)
        rc = hb_fail(HB_ERR_MISSING, "no results in build/results or results: run `hyena-bench "
                                     "sweep` first");
    return rc;
}
