// gather.c: the table of choices out of result files (contract: choose.h).
//
// Files     results/*/ (published), then build/results/*/: a later file's point replaces an earlier
//           one of its name on the same machine. Neither folder has any (an installed program):
//           the table that was installed, or that HYENA_BENCH_CHOICES names.
// Memory    build/machine/<id>/choices.json keeps the table with the list of files it came from
//           (path, bytes, time of change); while the list is the same, they are not read again.
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../derive.h"
#include "../outcome.h"
#include "choose.h"

// --- one file's cells ----------------------------------------------------------------------------

static void machine_of(const json_t *file, struct choose_machine *m)
{
    const json_t *machine = json_object_get(
        json_object_get(json_object_get(file, "context"), "hb_env"), "machine");
    const json_t *gpu =
        json_array_get(json_object_get(json_object_get(machine, "gpu"), "devices"), 0);
    const char *name = hb_file_gpu(file);
    *m = (struct choose_machine){ 0 };
    snprintf(m->id, sizeof m->id, "%s", hb_file_machine(file));
    snprintf(m->cpu, sizeof m->cpu, "%s", hb_file_cpu(file));
    snprintf(m->gpu, sizeof m->gpu, "%s", name ? name : "");
    m->threads =
        (int)json_integer_value(json_object_get(json_object_get(machine, "cpu"), "threads"));
    m->gpu_bytes = json_number_value(json_object_get(gpu, "memory_bytes"));
}

// What says nothing about the point itself: left out.
static bool says_something(const struct hb_cell *c)
{
    return c->has_pt && hb_outcome(HB_ENDS_POINT, c->status);
}

static int take(struct choose_table *t, const struct hb_cell *c)
{
    struct choose_machine m;
    machine_of(c->file, &m);
    int at = hb_choices_machine(t, &m);
    if (at < 0) return at;
    struct choose_row r = { .pt = c->pt, .machine = at };
    snprintf(r.status, sizeof r.status, "%.11s", c->status);
    const char *sha = json_string_value(
        json_object_get(c->entry, c->pt.p.inner[0] ? "hb_inner_sha256" : "hb_impl_sha256"));
    snprintf(r.build, sizeof r.build, "%.12s", sha ? sha : "");
    if (hb_cell_ok(c)) {
        struct hb_interval i = hb_cell_interval(c, HB_METRIC_TIME);
        double mem = hb_cell_value(c, HB_METRIC_MEMORY);
        r.median_ns = c->median_ns;
        r.lo_ns = fmin(i.lo, c->median_ns);
        r.hi_ns = fmax(i.hi, c->median_ns);
        r.mem_bytes = isfinite(mem) ? mem : 0;
    } else if (!strcmp(c->status, "ok")) {
        return 0;
    }
    return hb_choices_add(t, &r);
}

int hb_choices_from(const char *const *paths, struct choose_table *out)
{
    struct hb_results r;
    *out = (struct choose_table){ 0 };
    snprintf(out->home, sizeof out->home, "%s", hb_machine_id());
    int rc = hb_results_load(paths, &r);
    if (rc) return rc;
    for (size_t i = 0; i < r.n && !rc; i++)
        if (says_something(&r.cells[i])) rc = take(out, &r.cells[i]);
    hb_results_free(&r);
    if (rc) hb_choices_free(out);
    return rc;
}

// --- which files ---------------------------------------------------------------------------------

struct files { char **path; size_t n, cap; json_t *list; };      // path: NULL-terminated, owned

static int add_file(struct files *f, const char *path)
{
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode)) return 0;
    if (f->n + 1 >= f->cap) {
        size_t cap = 2 * f->cap + 16;
        char **more = realloc(f->path, cap * sizeof *more);
        if (!more) return HB_ERR_OOM;
        f->path = more;
        f->cap = cap;
    }
    f->path[f->n] = strdup(path);
    if (!f->path[f->n]) return HB_ERR_OOM;
    f->path[++f->n] = NULL;
    return json_array_append_new(f->list, json_pack("[s,I,I]", path, (json_int_t)st.st_size,
                                                    (json_int_t)st.st_mtime)) ? HB_ERR_OOM : 0;
}

static int visible(const struct dirent *e) { return e->d_name[0] != '.'; }

// Every *.json of every folder in root.
static int add_root(struct files *f, const char *root)
{
    struct dirent **dirs = NULL;
    int n = scandir(root, &dirs, visible, alphasort), rc = 0;
    for (int i = 0; i < n; i++) {
        struct dirent **e = NULL;
        char folder[4400], path[4700];
        snprintf(folder, sizeof folder, "%.4090s/%.255s", root, dirs[i]->d_name);
        int m = scandir(folder, &e, visible, alphasort);
        for (int k = 0; k < m; k++) {
            snprintf(path, sizeof path, "%s/%.255s", folder, e[k]->d_name);
            if (!rc && hb_ends_with(e[k]->d_name, ".json")) rc = add_file(f, path);
            free(e[k]);
        }
        if (m >= 0) free(e);
        free(dirs[i]);
    }
    if (n >= 0) free(dirs);
    return rc;
}

static int list_files(struct files *f)
{
    char root[4300];
    *f = (struct files){ .list = json_array() };
    if (!f->list) return HB_ERR_OOM;
    snprintf(root, sizeof root, "%.4000s/results", hb_root_dir());
    int rc = add_root(f, root);
    snprintf(root, sizeof root, "%.4000s/results", hb_build_dir());
    return rc ? rc : add_root(f, root);
}

static void free_files(struct files *f)
{
    for (size_t i = 0; i < f->n; i++) free(f->path[i]);
    free(f->path);
    json_decref(f->list);
}

// --- the remembered table ------------------------------------------------------------------------

static bool remembered(const char *path, const json_t *list, struct choose_table *out)
{
    json_t *doc = json_load_file(path, 0, NULL);
    bool same = doc && json_equal(json_object_get(doc, "files"), list)
             && hb_choices_parse(doc, path, out) == 0;
    hb_error_clear();
    json_decref(doc);
    return same;
}

// Without success only the next start is slower.
static void remember(const char *path, json_t *list, const struct choose_table *t)
{
    json_t *doc = hb_choices_json(t);
    if (doc && !json_object_set(doc, "files", list)) (void)hb_json_save(path, doc);
    json_decref(doc);
    hb_error_clear();
}

// A file that cannot be read costs its own points alone.
static int read_each(const struct files *f, struct choose_table *out)
{
    int rc = hb_choices_from((const char *const *)f->path, out);
    if (rc != HB_ERR_INPUT) return rc;
    hb_error_clear();
    *out = (struct choose_table){ 0 };
    struct files good = { .list = json_array() };
    rc = good.list ? 0 : HB_ERR_OOM;
    for (size_t i = 0; i < f->n && !rc; i++) {
        const char *const one[] = { f->path[i], NULL };
        struct hb_results r;
        if (hb_results_load(one, &r)) {
            fprintf(stderr, "hyena-bench: left out: %s\n", hb_error());
            hb_error_clear();
            continue;
        }
        hb_results_free(&r);
        rc = add_file(&good, f->path[i]);
    }
    if (!rc && good.n) rc = hb_choices_from((const char *const *)good.path, out);
    free_files(&good);
    return rc;
}

// An installed program has no results beside it but the table that `make install` made of them; the
// library's variable names another.
static int read_installed(struct choose_table *out)
{
    char path[4500];
    const char *env = getenv("HYENA_BENCH_CHOICES");
    if (env && *env) return hb_choices_read(env, out);
    snprintf(path, sizeof path, "%.4000s/../share/hyena-bench/choices.json", hb_root_dir());
    return access(path, R_OK) == 0 ? hb_choices_read(path, out) : 0;
}

int hb_choices_gather(struct choose_table *out)
{
    struct files f;
    char path[4600];
    *out = (struct choose_table){ 0 };
    int rc = list_files(&f);
    snprintf(path, sizeof path, "%s/choices.json", hb_machine_dir());
    if (!rc && f.n && !remembered(path, f.list, out)) {
        rc = read_each(&f, out);
        if (!rc) remember(path, f.list, out);
    }
    if (!rc && !f.n) rc = read_installed(out);
    snprintf(out->home, sizeof out->home, "%s", hb_machine_id());
    free_files(&f);
    return rc == HB_ERR_OOM ? hb_fail(rc, "no memory for the table of choices") : rc;
}

const struct choose_table *hb_choices(void)
{
    static struct choose_table table;
    static bool loaded;
    if (loaded) return &table;
    if (hb_choices_gather(&table)) return NULL;
    loaded = true;
    return &table;
}
