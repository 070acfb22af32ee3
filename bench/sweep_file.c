// sweep_file.c: reads a sweep file (keys: the table below; examples: bench/sweeps/).
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "choose/choose.h"
#include "cli.h"
#include "sweep.h"

// --- the keys ------------------------------------------------------------------------------------

enum place { IN_TOP = 1, IN_DEFAULTS = 2, IN_GROUP = 4, IN_PAIR = 8, IN_REFINE = 16 };
enum kind { K_TEXT, K_INT, K_REAL, K_SIZE, K_LENGTHS, K_PASSES, K_IMPL, K_IMPLS, K_WHAT,
            K_DTYPE, K_MODE, K_PLANNING, K_DEVICE, K_LIST, K_OBJECT };
#define SET IN_DEFAULTS | IN_GROUP | IN_PAIR

static const struct key { const char *name; enum kind kind; unsigned in; double lo, hi; } keys[] = {
    { "name", K_TEXT, IN_TOP, 0, 0 },
    { "title", K_TEXT, IN_TOP | IN_GROUP | IN_PAIR, 0, 0 },
    { "defaults", K_OBJECT, IN_TOP, 0, 0 },      { "groups", K_LIST, IN_TOP, 0, 0 },
    { "pairs", K_LIST, IN_TOP, 0, 0 },           { "refine", K_LIST, IN_TOP, 0, 0 },
    { "id", K_TEXT, IN_GROUP, 0, 0 },            { "impls", K_IMPLS, IN_GROUP, 0, 0 },
    { "a", K_IMPL, IN_PAIR | IN_REFINE, 0, 0 },  { "b", K_IMPL, IN_PAIR | IN_REFINE, 0, 0 },
    { "what", K_WHAT, IN_REFINE, 0, 0 },         { "group", K_TEXT, IN_REFINE, 0, 0 },
    { "steps", K_INT, IN_REFINE, 1, 32 },        { "priority", K_INT, SET | IN_REFINE, 0, 1000 },
    { "L", K_LENGTHS, SET, 0, 0 },               { "pass", K_PASSES, SET | IN_REFINE, 0, 0 },
    { "B", K_INT, SET, 1, 2147483648.0 },        { "D", K_INT, SET, 1, 1 << 24 },
    { "H", K_INT, SET, 1, 1 << 24 },             { "order", K_INT, SET, 2, 16 },
    { "dtype", K_DTYPE, SET | IN_REFINE, 0, 0 }, { "mode", K_MODE, SET, 0, 0 },
    { "planning", K_PLANNING, SET, 0, 0 },       { "device", K_DEVICE, SET, 0, 0 },
    { "threads", K_INT, SET, 0, 1024 },          { "seed", K_INT, SET, 0, 9007199254740992.0 },
    { "mem_limit", K_SIZE, SET, 0, 0 },          { "time_limit_s", K_REAL, SET, 1e-3, 1e6 },
    { "ci_target", K_REAL, SET, 1e-6, 1 },       { "budget_s", K_REAL, SET, 1e-3, 1e6 },
    { "judge_flop", K_REAL, SET, 0, 1e18 },      { "min_samples", K_INT, SET, 9, 1000000 },
    { "max_samples", K_INT, SET, 9, 1000000 },
};

// Where in the file we are, for messages: "quick.json: groups[2] (id 'core')".
struct at { const char *path, *where; unsigned in; };

__attribute__((format(printf, 2, 3))) static int bad(const struct at *a, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return hb_fail(HB_ERR_INPUT, "%s: %s%s%s", a->path, a->where, *a->where ? ": " : "", text);
}

// A function that has set a message of its own: puts file, place and key in front of it.
static int bad_value(const struct at *a, const char *key)
{
    char text[1024];
    int code = hb_error_code() ? hb_error_code() : HB_ERR_INPUT;
    snprintf(text, sizeof text, "%s", hb_error());
    hb_error_clear();
    return hb_fail(code, "%s: %s%s'%s': %s", a->path, a->where, *a->where ? ": " : "", key, text);
}

static int check_keys(const struct at *a, const json_t *obj)
{
    const char *key;
    json_t *v;
    if (!json_is_object(obj)) return bad(a, "an object expected");
    json_object_foreach((json_t *)(uintptr_t)obj, key, v) {   // the macro wants it non-const
        size_t i = 0, n = sizeof keys / sizeof *keys;
        while (i < n && (strcmp(keys[i].name, key) || !(keys[i].in & a->in))) i++;
        if (i < n) continue;
        char allowed[700] = "";
        for (i = 0; i < n; i++)
            if (keys[i].in & a->in)
                snprintf(allowed + strlen(allowed), sizeof allowed - strlen(allowed), "%s%s",
                         *allowed ? ", " : "", keys[i].name);
        return bad(a, "unknown key '%.60s'; allowed: %s", key, allowed);
    }
    return 0;
}

// --- values --------------------------------------------------------------------------------------

static int number(const struct at *a, const struct key *k, const json_t *v, double *out)
{
    bool whole = k->kind == K_INT;
    if (whole ? !json_is_integer(v) : !json_is_number(v))
        return bad(a, "'%s': a %snumber expected", k->name, whole ? "whole " : "");
    *out = json_number_value(v);
    if (*out < k->lo || *out > k->hi)
        return bad(a, "'%s': %.15g is not in %.15g..%.15g", k->name, *out, k->lo, k->hi);
    return 0;
}

static int text(const struct at *a, const char *key, const json_t *v, char *out, size_t cap)
{
    const char *s = json_string_value(v);
    if (!s || !*s) return bad(a, "'%s': a text expected", key);
    if (strlen(s) >= cap) return bad(a, "'%s': longer than %zu characters", key, cap - 1);
    memcpy(out, s, strlen(s) + 1);
    return 0;
}

static int optional_text(const struct at *a, const json_t *obj, const char *key, char *out,
                         size_t cap)
{
    const json_t *v = json_object_get(obj, key);
    return v ? text(a, key, v, out, cap) : 0;
}

// "128..4096,3000", 4096, or a list of both; ascending and unique.
static int lengths(const struct at *a, const json_t *v, struct sweep_settings *s)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    s->n_lengths = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;
        int room = SWEEP_MAX_LENGTHS - s->n_lengths, got = 0;
        if (json_is_string(e)) {
            if (hb_parse_lengths(json_string_value(e), s->lengths + s->n_lengths, room, &got))
                return bad_value(a, "L");
        } else if (!json_is_integer(e)) {
            return bad(a, "'L': lengths expected: 4096, \"128..4096\" or a list of them");
        } else if (room > 0) {
            int64_t L = json_integer_value(e);
            if (L < 1 || L > (int64_t)1 << 31)
                return bad(a, "'L': %lld is not in 1..2^31", (long long)L);
            s->lengths[s->n_lengths] = L;
            got = 1;
        }
        if (room < 1) return bad(a, "'L': more than %d lengths", SWEEP_MAX_LENGTHS);
        s->n_lengths += got;
    }
    if (!s->n_lengths) return bad(a, "'L': at least one length expected");
    s->n_lengths = (int)hb_sort_unique(s->lengths, (size_t)s->n_lengths);
    return 0;
}

static int passes(const struct at *a, const json_t *v, struct sweep_settings *s)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    memset(s->pass, 0, sizeof s->pass);
    if (!n) return bad(a, "'pass': at least one expected");
    for (size_t i = 0; i < n; i++) {
        const char *w = json_string_value(json_is_array(v) ? json_array_get(v, i) : v);
        enum hb_pass pass = HB_PASS_FWD;
        if (!w) return bad(a, "'pass': a name or a list of names expected");
        if (hb_pass_parse(w, &pass)) return bad_value(a, "pass");
        s->pass[pass] = true;
    }
    return 0;
}

static int size(const struct at *a, const json_t *v, int64_t *out)
{
    if (json_is_integer(v) && json_integer_value(v) > 0) { *out = json_integer_value(v); return 0; }
    if (!json_is_string(v)) return bad(a, "'mem_limit': bytes expected: 1073741824 or \"1G\"");
    return hb_parse_size("size", json_string_value(v), out) ? bad_value(a, "mem_limit") : 0;
}

static int planning(const struct at *a, const json_t *v, struct sweep_settings *s)
{
    const char *w = json_string_value(v);
    if (!w) return bad(a, "'planning': a text expected");
    return hb_planning_parse(w, &s->planning) ? bad_value(a, "planning") : 0;
}

// A name or a list of names: devices, types, modes. The first of them is what a single one was.
static int words(const struct at *a, const struct key *k, const json_t *v, struct sweep_settings *s)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    size_t room = k->kind == K_DTYPE ? HB_DTYPE_COUNT : k->kind == K_MODE ? HB_MODE_COUNT
                : SWEEP_MAX_DEVICES;
    if (!n || n > room) return bad(a, "'%s': 1 to %zu names expected", k->name, room);
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;
        const char *w = json_string_value(e);
        if (!w) return bad(a, "'%s': a name or a list of names expected", k->name);
        int rc = k->kind == K_DTYPE ? hb_dtype_parse(w, &s->dtypes[i])
               : k->kind == K_MODE ? hb_mode_parse(w, &s->modes[i]) : 0;
        if (rc) return bad_value(a, k->name);
        if (k->kind == K_DEVICE && text(a, k->name, e, s->devices[i], sizeof s->devices[i]))
            return HB_ERR_INPUT;
    }
    if (k->kind == K_DTYPE) { s->n_dtypes = (int)n; s->dtype = s->dtypes[0]; }
    if (k->kind == K_MODE) { s->n_modes = (int)n; s->mode = s->modes[0]; }
    if (k->kind == K_DEVICE) {
        s->n_devices = (int)n;
        memcpy(s->device, s->devices[0], sizeof s->device);
    }
    return 0;
}

// Integer settings by name.
static int64_t *int_target(struct sweep_settings *s, const char *name)
{
    const struct { const char *name; int64_t *p; } t[] = {
        { "B", &s->B }, { "D", &s->D }, { "H", &s->H }, { "order", &s->order },
        { "threads", &s->threads }, { "seed", &s->seed }, { "priority", &s->priority },
        { "min_samples", &s->min_samples }, { "max_samples", &s->max_samples },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (!strcmp(t[i].name, name)) return t[i].p;
    return NULL;
}

static double *real_target(struct sweep_settings *s, const char *name)
{
    return !strcmp(name, "time_limit_s") ? &s->time_limit_s
         : !strcmp(name, "ci_target") ? &s->ci_target
         : !strcmp(name, "budget_s") ? &s->budget_s : &s->judge_flop;
}

// The settings that obj has, over those that are there. Other keys are their readers' business.
static int settings(const struct at *a, const json_t *obj, struct sweep_settings *s)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct key *k = &keys[i];
        const json_t *v = json_object_get(obj, k->name);
        int64_t *whole = k->kind == K_INT ? int_target(s, k->name) : NULL;
        double x = 0;
        int rc = 0;
        if (!v || !(k->in & (SET))) continue;
        if (whole) { rc = number(a, k, v, &x); *whole = (int64_t)x; }
        else if (k->kind == K_REAL) rc = number(a, k, v, real_target(s, k->name));
        else if (k->kind == K_SIZE) rc = size(a, v, &s->mem_bytes);
        else if (k->kind == K_LENGTHS) rc = lengths(a, v, s);
        else if (k->kind == K_PASSES) rc = passes(a, v, s);
        else if (k->kind == K_PLANNING) rc = planning(a, v, s);
        else if (k->kind == K_DTYPE || k->kind == K_MODE || k->kind == K_DEVICE)
            rc = words(a, k, v, s);
        if (rc) return rc;
    }
    return s->max_samples < s->min_samples ? bad(a, "'max_samples': less than min_samples") : 0;
}

// --- implementations -----------------------------------------------------------------------------

static bool add_name(struct sweep_group *g, const char *name)
{
    for (int i = 0; i < g->n_impls; i++)
        if (!strcmp(g->impls[i], name)) return true;
    if (g->n_impls == SWEEP_MAX_IMPLS) return false;
    snprintf(g->impls[g->n_impls++], HB_NAME_MAX, "%s", name);
    return true;
}

// A pattern means the implementations of the group's devices; of the cpu where it names none.
static bool is_for(const struct sweep_group *g, const char *name)
{
    const char *device = hb_impl_device(name);
    if (!device) { hb_error_clear(); return false; }
    size_t n = strlen(device);
    for (int i = 0; i < g->set.n_devices; i++)
        if (!strncmp(g->set.devices[i], device, n)) return true;
    return !g->set.n_devices && !strcmp(device, "cpu");
}

// Every name that can be measured: longconv_x, attention_x, each operator with each of them inside.
static bool add_matching(struct sweep_group *g, const char *glob)
{
    bool room = true;
    for (int i = 0; room && i < hb_registry_count(); i++) {
        const struct hb_impl *im = hb_registry_at(i)->impl;
        if (!im || (hb_is_auto(im->name) && !strstr(glob, "auto"))) continue;   // asked for by name
        if (im->op != HB_HYENA && im->op != HB_MHA) {
            if (!fnmatch(glob, im->name, 0) && is_for(g, im->name)) room = add_name(g, im->name);
            continue;
        }
        for (int k = 0; room && k < hb_registry_count(); k++) {
            const struct hb_impl *in = hb_registry_at(k)->impl;
            char name[HB_NAME_MAX];
            if (!in || in->op != (im->op == HB_HYENA ? HB_LONGCONV : HB_ATTENTION)) continue;
            if (hb_is_auto(in->name) && !strstr(glob, "auto")) continue;
            int len = snprintf(name, sizeof name, "%s:%s", im->name, in->name);
            if (len < 0 || (size_t)len >= sizeof name) continue;   // names are shorter
            if (!fnmatch(glob, name, 0) && is_for(g, name)) room = add_name(g, name);
        }
    }
    return room;
}

static int impls(const struct at *a, const json_t *v, struct sweep_group *g)
{
    size_t n = json_array_size(v);
    if (!n) return bad(a, "'impls': a list of names expected; * matches, as in \"longconv_*\"");
    for (size_t i = 0; i < n; i++) {
        char w[HB_NAME_MAX], full[HB_NAME_MAX];
        if (text(a, "impls", json_array_get(v, i), w, sizeof w)) return HB_ERR_INPUT;
        bool room = true;
        if (strpbrk(w, "*?[")) room = add_matching(g, w);   // may match none: no CUDA here
        else if (!hb_registry_find(w)) return bad_value(a, "impls");
        else room = add_name(g, hb_auto_name(w, NULL, full) ? full : w);
        if (!room) return bad(a, "'impls': more than %d implementations", SWEEP_MAX_IMPLS);
    }
    return 0;
}

static int impl(const struct at *a, const json_t *obj, const char *key, char *out)
{
    char full[HB_NAME_MAX];
    if (text(a, key, json_object_get(obj, key), out, HB_NAME_MAX)) return HB_ERR_INPUT;
    if (!hb_registry_find(out)) return bad_value(a, key);
    if (hb_auto_name(out, NULL, full)) strcpy(out, full);
    return 0;
}

// --- the parts -----------------------------------------------------------------------------------

static int read_group(struct at *a, const json_t *obj, const struct sweep_settings *base, void *out)
{
    struct sweep_group *g = out;
    char where[SWEEP_TEXT + 64];
    int rc = check_keys(a, obj);
    if (rc) return rc;
    g->set = *base;
    if (text(a, "id", json_object_get(obj, "id"), g->id, sizeof g->id)) return HB_ERR_INPUT;
    snprintf(where, sizeof where, "%s ('%s')", a->where, g->id);
    a->where = where;
    snprintf(g->title, sizeof g->title, "%s", g->id);
    rc = optional_text(a, obj, "title", g->title, sizeof g->title);
    if (!rc) rc = settings(a, obj, &g->set);
    if (!rc) rc = impls(a, json_object_get(obj, "impls"), g);
    return !rc && !g->set.n_lengths ? bad(a, "'L' is missing here and in defaults") : rc;
}

static int read_pair(struct at *a, const json_t *obj, const struct sweep_settings *base, void *out)
{
    struct sweep_pair *p = out;
    int rc = check_keys(a, obj);
    p->set = *base;
    if (!rc) rc = impl(a, obj, "a", p->a);
    if (!rc) rc = impl(a, obj, "b", p->b);
    if (!rc) rc = optional_text(a, obj, "title", p->title, sizeof p->title);
    if (!rc) rc = settings(a, obj, &p->set);
    return !rc && !p->set.n_lengths ? bad(a, "'L' is missing here and in defaults") : rc;
}

static int read_refine(struct at *a, const json_t *obj, const struct sweep_settings *base,
                       void *out)
{
    struct sweep_refine *r = out;
    static const struct key steps = { "steps", K_INT, IN_REFINE, 1, 32 };
    static const struct key prio = { "priority", K_INT, IN_REFINE, 0, 1000 };
    double n = 6, p = (double)base->priority;   // 6 bisections turn an octave into about 1 %
    int rc = check_keys(a, obj);
    if (!rc) rc = impl(a, obj, "a", r->a);
    if (!rc) rc = impl(a, obj, "b", r->b);
    if (!rc) rc = text(a, "group", json_object_get(obj, "group"), r->group, sizeof r->group);
    struct sweep_settings own = { .n_dtypes = 0 };
    const json_t *dtype = json_object_get(obj, "dtype"), *pass = json_object_get(obj, "pass");
    static const struct key dtype_key = { "dtype", K_DTYPE, IN_REFINE, 0, 0 };
    r->dtype = r->pass = -1;
    if (!rc && dtype && !(rc = words(a, &dtype_key, dtype, &own))) r->dtype = (int)own.dtype;
    if (!rc && pass && !(rc = passes(a, pass, &own)))
        for (int k = 0; k < HB_PASS_COUNT && r->pass < 0; k++) r->pass = own.pass[k] ? k : -1;
    const json_t *what = json_object_get(obj, "what");
    const char *w = what ? json_string_value(what) : "time";
    if (!rc && (!w || (strcmp(w, "time") && strcmp(w, "memory"))))
        rc = bad(a, "'what': \"time\" or \"memory\" expected");
    if (!rc && json_object_get(obj, "steps"))
        rc = number(a, &steps, json_object_get(obj, "steps"), &n);
    if (!rc && json_object_get(obj, "priority"))
        rc = number(a, &prio, json_object_get(obj, "priority"), &p);
    if (rc) return rc;
    r->what = strcmp(w, "memory") ? SWEEP_TIME : SWEEP_MEMORY;
    r->steps = (int64_t)n;
    r->priority = (int64_t)p;
    return 0;
}

typedef int (*reader)(struct at *a, const json_t *obj, const struct sweep_settings *base,
                      void *out);

// A list of the file into *out, an array of n elements of `bytes` each (owned by the caller, also
// after an error).
static int read_list(const char *path, const json_t *top, const char *key, unsigned in, reader read,
                     const struct sweep_settings *base, size_t bytes, void **out, int *n)
{
    *out = NULL;
    *n = 0;
    json_t *list = json_object_get(top, key), *obj;
    struct at a = { path, key, in };
    size_t i;
    if (!list) return 0;
    if (!json_is_array(list)) return bad(&a, "a list expected");
    char *rows = calloc(json_array_size(list) + 1, bytes);
    if (!rows) return hb_fail(HB_ERR_OOM, "%s: no memory for '%s'", path, key);
    *out = rows;
    json_array_foreach(list, i, obj) {
        char where[64];
        snprintf(where, sizeof where, "%s[%zu]", key, i);
        a.where = where;
        int rc = read(&a, obj, base, rows + i * bytes);
        if (rc) return rc;
        *n = (int)i + 1;
    }
    return 0;
}

static int check_whole(const char *path, const struct sweep_file *f)
{
    struct at a = { path, "groups", IN_TOP };
    if (!f->n_groups && !f->n_pairs) return bad(&a, "at least one group or pair expected");
    if (f->n_groups > SWEEP_MAX_GROUPS) return bad(&a, "more than %d groups", SWEEP_MAX_GROUPS);
    for (int i = 0; i < f->n_groups; i++)
        for (int k = 0; k < i; k++)
            if (!strcmp(f->groups[i].id, f->groups[k].id))
                return bad(&a, "id '%s' twice", f->groups[i].id);
    for (int i = 0; i < f->n_refines; i++) {
        int k = 0;
        char where[64];
        snprintf(where, sizeof where, "refine[%d]", i);
        a.where = where;
        while (k < f->n_groups && strcmp(f->groups[k].id, f->refines[i].group)) k++;
        if (k == f->n_groups) return bad(&a, "'group': no group '%s'", f->refines[i].group);
    }
    return 0;
}

static int read_all(const char *path, const json_t *top, struct sweep_file *f)
{
    struct sweep_settings base = {
        .dtype = HB_F32, .mode = HB_MODE_WARM, .planning = HB_PLAN_MEASURE,
        .pass = { [HB_PASS_FWD] = true }, .B = 1, .D = 256,
        .seed = 1, .priority = 5, .time_limit_s = 60, .ci_target = 0.02, .budget_s = 1,
        .judge_flop = HB_JUDGE_FLOP, .min_samples = HB_MIN_SAMPLES, .max_samples = HB_MAX_SAMPLES,
    };
    struct at a = { path, "", IN_TOP };
    const json_t *d = json_object_get(top, "defaults");
    int rc = check_keys(&a, top);
    if (!rc) rc = text(&a, "name", json_object_get(top, "name"), f->name, sizeof f->name);
    snprintf(f->title, sizeof f->title, "%s", f->name);
    if (!rc) rc = optional_text(&a, top, "title", f->title, sizeof f->title);
    a = (struct at){ path, "defaults", IN_DEFAULTS };
    if (!rc && d) rc = check_keys(&a, d);
    if (!rc && d) rc = settings(&a, d, &base);
    if (rc) return rc;
    void *rows;
    rc = read_list(path, top, "groups", IN_GROUP, read_group, &base, sizeof *f->groups, &rows,
                   &f->n_groups);
    f->groups = rows;
    if (rc) return rc;
    rc = read_list(path, top, "pairs", IN_PAIR, read_pair, &base, sizeof *f->pairs, &rows,
                   &f->n_pairs);
    f->pairs = rows;
    if (rc) return rc;
    rc = read_list(path, top, "refine", IN_REFINE, read_refine, &base, sizeof *f->refines, &rows,
                   &f->n_refines);
    f->refines = rows;
    return rc ? rc : check_whole(path, f);
}

int hb_sweep_read(const char *path, struct sweep_file *f)
{
    memset(f, 0, sizeof *f);
    json_t *top = hb_json_load(path);
    if (!top) return hb_error_code() == HB_ERR_MISSING ? HB_ERR_INPUT : hb_error_code();
    int rc = hb_sha256_file(path, f->sha256);
    if (!rc) rc = read_all(path, top, f);
    json_decref(top);
    if (rc) hb_sweep_free(f);
    return rc;
}

void hb_sweep_free(struct sweep_file *f)
{
    free(f->groups); free(f->pairs); free(f->refines);
    memset(f, 0, sizeof *f);
}
