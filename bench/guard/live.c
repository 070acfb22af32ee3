// live.c: two builds as a source of times: copies, a common cache, a process of each in step.
//
// Copies    <build>/guard/<pid>/{base,head}/: program, plug-ins (CUDA's only if a point needs it).
//           Paths of equal length: they are part of what a process starts with.
// Shared    <build>/guard/shared: HYENA_BENCH_BUILD of both, so FFT wisdom and judged references
//           are the same for both.
// Processes two fresh __point children for each pair: planned, judged, warmed up, then sampled in
//           turns (hb_measure_in_step). Their environment is the list in make_env alone.
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../cli.h"
#include "../readfile.h"
#include "guard.h"

// --- copies --------------------------------------------------------------------------------------

static int copy_file(const char *from, const char *to, bool program)
{
    char *data = NULL;
    size_t n = 0;
    int rc = hb_read_file(from, &data, &n);
    if (!rc) rc = hb_write_file(to, data, n);
    free(data);
    if (!rc && program && chmod(to, 0755))
        rc = hb_fail(HB_ERR_RUN, "%s: %s", to, strerror(errno));
    return rc;
}

static int copy_folder(const char *from, const char *to, bool cuda)
{
    DIR *d = opendir(from);
    int rc = d ? hb_mkdirs(to) : hb_fail(HB_ERR_INPUT, "%s: %s", from, strerror(errno));
    for (struct dirent *e; !rc && d && (e = readdir(d)); ) {
        char a[8800], b[8800];
        if (!hb_ends_with(e->d_name, ".so") || (!cuda && hb_ends_with(e->d_name, "_cuda.so"))) continue;
        snprintf(a, sizeof a, "%s/%s", from, e->d_name);
        snprintf(b, sizeof b, "%s/%s", to, e->d_name);
        rc = copy_file(a, b, false);
    }
    if (d) closedir(d);
    return rc;
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d)); ) {
        char below[8800];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        if (unlink(below)) remove_tree(below);
    }
    if (d) closedir(d);
    rmdir(path);
}

// Copies that a killed comparison left behind: folders named by a process that is no more.
static void remove_left_over(void)
{
    char dir[4200];
    snprintf(dir, sizeof dir, "%.4000s/guard", hb_build_dir());
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d)); ) {
        char path[4600], *end;
        long pid = strtol(e->d_name, &end, 10);
        if (pid <= 0 || *end || kill((pid_t)pid, 0) == 0 || errno != ESRCH) continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        remove_tree(path);
    }
    if (d) closedir(d);
}

static int copy_build(struct guard_live *g, int side, const char *from, bool cuda)
{
    static const char *const names[] = { "base", "head" };
    struct guard_build *b = &g->build[side];
    char dir[4300], path[4400], to[4400];
    if (strlen(from) >= sizeof b->from - 32)
        return hb_fail(HB_ERR_INPUT, "--%s: the path is too long", names[side]);
    snprintf(b->from, sizeof b->from, "%.4000s", from);
    snprintf(dir, sizeof dir, "%s/%s", g->root, names[side]);
    snprintf(path, sizeof path, "%s/hyena-bench", from);
    if (access(path, X_OK))
        return hb_fail(HB_ERR_INPUT, "--%s: '%.300s' has no program hyena-bench (a build folder, "
                                     "such as build, is expected)", names[side], from);
    snprintf(b->exe, sizeof b->exe, "%s/hyena-bench", dir);
    snprintf(b->impls, sizeof b->impls, "%s/impls", dir);
    int rc = hb_mkdirs(dir);
    if (!rc) rc = copy_file(path, b->exe, true);
    snprintf(path, sizeof path, "%s/impls", from);
    if (!rc) rc = copy_folder(path, b->impls, cuda);
    snprintf(path, sizeof path, "%s/devices", from);
    snprintf(to, sizeof to, "%s/devices", dir);
    if (!rc && cuda) rc = copy_folder(path, to, true);
    return rc;
}

// --- what is the same in both --------------------------------------------------------------------

// Of the file image d[n]: the hash over its loaded sections.
static int hash_sections(const char *path, const char *d, size_t n, char hex[65])
{
    Elf64_Ehdr eh;
    if (n < sizeof eh || memcmp(d, ELFMAG, SELFMAG) || d[EI_CLASS] != ELFCLASS64)
        return hb_fail(HB_ERR_INPUT, "%s: no 64-bit ELF file", path);
    memcpy(&eh, d, sizeof eh);
    if (eh.e_shentsize != sizeof(Elf64_Shdr) || eh.e_shoff > n
        || (n - eh.e_shoff) / sizeof(Elf64_Shdr) < eh.e_shnum)
        return hb_fail(HB_ERR_INPUT, "%s: its section table is cut off", path);
    char *all = malloc(n + 1);
    size_t m = 0;
    if (!all) return hb_fail(HB_ERR_OOM, "no memory for %zu bytes", n);
    for (int i = 0; i < eh.e_shnum; i++) {
        Elf64_Shdr s;
        memcpy(&s, d + eh.e_shoff + (size_t)i * sizeof s, sizeof s);
        bool loaded = s.sh_flags & SHF_ALLOC && s.sh_type != SHT_NOBITS && s.sh_type != SHT_NOTE;
        if (!loaded || s.sh_offset > n || s.sh_size > n - s.sh_offset || s.sh_size > n - m)
            continue;
        memcpy(all + m, d + s.sh_offset, s.sh_size);
        m += s.sh_size;
    }
    hb_sha256(all, m, hex);
    free(all);
    return 0;
}

int guard_code_hash(const char *path, char hex[65])
{
    char *data = NULL;
    size_t n = 0;
    hex[0] = 0;
    int rc = hb_read_file(path, &data, &n);
    if (!rc) rc = hash_sections(path, data, n, hex);
    free(data);
    return rc;
}

static bool same_file(const struct guard_live *g, const char *name, int len)
{
    char path[4600], hex[2][65];
    for (int side = 0; side < 2; side++) {
        snprintf(path, sizeof path, "%s/%.*s.so", g->build[side].impls, len, name);
        if (guard_code_hash(path, hex[side])) { hb_error_clear(); return false; }
    }
    return hex[0][0] && !strcmp(hex[0], hex[1]);
}

// The code of a core point is its plug-in; operators also call the program's own device.
static bool same_code(const struct guard_live *g, const struct hb_point *pt)
{
    return pt->scope == HB_SCOPE_CORE && !strchr(pt->impl, ':')
        && same_file(g, pt->impl, (int)strlen(pt->impl));
}

static void list_diff(const json_t *a, const json_t *b, const char *const *keys, size_t n,
                      struct hb_text *out)
{
    for (size_t i = 0; i < n; i++) {
        json_t *x = json_object_get(a, keys[i]), *y = json_object_get(b, keys[i]);
        if (json_equal(x, y) || (!x && !y)) continue;
        char *s = x ? json_dumps(x, JSON_ENCODE_ANY | JSON_COMPACT) : NULL,
             *t = y ? json_dumps(y, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
        hb_text_add(out, "%s%s: %s, %s", out->n ? "; " : "", keys[i], s ? s : "-", t ? t : "-");
        free(s);
        free(t);
    }
}

void guard_live_env_diff(const struct guard_live *g, char *text, size_t cap)
{
    static const char *const soft[] = { "compiler", "cflags", "libc", "benchmark", "gomp" };
    static const char *const machine[] = { "libraries" };
    const json_t *a = g->build[0].env, *b = g->build[1].env;
    struct hb_text t = { 0 };
    list_diff(json_object_get(a, "software"), json_object_get(b, "software"), soft,
              sizeof soft / sizeof *soft, &t);
    list_diff(json_object_get(a, "machine"), json_object_get(b, "machine"), machine, 1, &t);
    snprintf(text, cap, "%s", t.s ? t.s : "");
    hb_text_free(&t);
}

// --- opening -------------------------------------------------------------------------------------

// `env --json` of a build. Its output ends up in a file: a child's reply is for hidden commands.
static int read_env(struct guard_live *g, int side)
{
    char cmd[9000];
    json_error_t e;
    if (strchr(g->root, '\'')) return hb_fail(HB_ERR_INPUT, "%s: a quote in the path", g->root);
    snprintf(cmd, sizeof cmd, "env -i PATH=/usr/bin:/bin '%s' '%s' '%s' env --json 2>/dev/null",
             g->env[0], g->env[1], g->build[side].exe);
    FILE *f = popen(cmd, "re");
    g->build[side].env = f ? json_loadf(f, 0, &e) : NULL;
    int rc = f ? pclose(f) : -1;
    if (g->build[side].env && rc == 0) return 0;
    return hb_fail(HB_ERR_INPUT, "--%s: %s/hyena-bench does not run here", side ? "head" : "base",
                   g->build[side].from);
}

static int read_points(struct guard_live *g, const char *path)
{
    int rc = hb_sweep_read(path, &g->s.file);
    if (!rc) rc = hb_sweep_expand(&g->s, NULL, NULL, 0);
    if (rc) return rc;
    g->paired = calloc(g->s.n + 1, sizeof *g->paired);
    g->exact = calloc(g->s.n + 1, sizeof *g->exact);
    if (!g->paired || !g->exact) return hb_fail(HB_ERR_OOM, "no memory for %zu points", g->s.n);
    for (size_t i = 0; i < g->s.n; i++) {
        const struct sweep_item *it = &g->s.items[i];
        bool exact = false, paired = false;
        if (it->n != 1) continue;
        for (int k = 0; k < g->s.file.n_groups; k++) {
            if (!(it->groups >> k & 1)) continue;
            if (!strncmp(g->s.file.groups[k].id, "exact", 5)) exact = true;
            else paired = true;
        }
        exact = exact && !strncmp(it->pt[0].device, "cpu", 3);           // valgrind sees the cpu
        if (exact) g->exact[g->n_exact++] = i;
        if (paired) g->paired[g->n_paired++] = i;
    }
    return 0;
}

static void make_env(struct guard_live *g)
{
    static const char *const kept[] = { "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
                                        "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE",
                                        "GOMP_SPINCOUNT", "OMP_WAIT_POLICY" };
    int n = 0;
    snprintf(g->env_text[0], sizeof g->env_text[0], "HYENA_BENCH_BUILD=%s", g->shared);
    g->env[n++] = g->env_text[0];
    g->env[n++] = "LC_ALL=C";
    g->env[n++] = "PATH=/usr/local/bin:/usr/bin:/bin";
    size_t at = 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        const char *v = getenv(kept[i]);
        if (!v || !*v || at + strlen(kept[i]) + strlen(v) + 2 > sizeof g->env_text[1]) continue;
        g->env[n++] = g->env_text[1] + at;
        at += 1 + (size_t)snprintf(g->env_text[1] + at, sizeof g->env_text[1] - at, "%s=%s",
                                   kept[i], v);
    }
    g->env[n] = NULL;
}

const char *guard_own_build(void)
{
    static char dir[4200];
    snprintf(dir, sizeof dir, "%s", hb_impls_dir());
    *strrchr(dir, '/') = 0;          // ".../impls"
    return dir;
}

int guard_live_open(const char *base, const char *head, const char *sweep_path,
                    struct guard_live *g)
{
    memset(g, 0, sizeof *g);
    int n = snprintf(g->root, sizeof g->root, "%.4000s/guard/%ld", hb_build_dir(), (long)getpid());
    if (n < 0 || strlen(hb_build_dir()) > 3900)
        return hb_fail(HB_ERR_INPUT, "the build folder's path is too long");
    snprintf(g->shared, sizeof g->shared, "%.4000s/guard/shared", hb_build_dir());
    make_env(g);
    remove_left_over();
    int rc = hb_mkdirs(g->shared);
    if (!rc) rc = read_points(g, sweep_path);
    bool cuda = false;
    for (size_t i = 0; i < g->n_paired; i++)
        cuda |= strncmp(g->s.items[g->paired[i]].pt[0].device, "cpu", 3) != 0;
    if (!rc) rc = copy_build(g, 0, base, cuda);
    if (!rc) rc = copy_build(g, 1, head, cuda);
    if (!rc) rc = read_env(g, 0);
    if (!rc) rc = read_env(g, 1);
    return rc;
}

void guard_live_close(struct guard_live *g)
{
    if (g->root[0]) remove_tree(g->root);
    for (int side = 0; side < 2; side++) json_decref(g->build[side].env);
    free(g->paired);
    free(g->exact);
    free(g->s.items);
    hb_sweep_free(&g->s.file);
    memset(g, 0, sizeof *g);
}

// --- times ---------------------------------------------------------------------------------------

// A turn lasts so long at least: handing it over and warming up again cost some 0.1 ms.
#define TURN_S 1e-3

static struct hb_measure_opts opts_of(const struct guard_live *g, size_t point, int side)
{
    struct hb_measure_opts o = g->s.items[g->paired[point]].opts;
    o.exe = g->build[side].exe;
    o.env = g->env;
    o.inject = side && point == g->inject_point ? g->inject : 0;
    o.sample.min_sample_s = fmax(o.sample.min_sample_s, TURN_S);
    return o;
}

static int take(void *ctx, size_t point, int first, double ns[2], int *failed, char *why)
{
    struct guard_live *g = ctx;
    const struct hb_measure_opts o[2] = { opts_of(g, point, first), opts_of(g, point, 1 - first) };
    struct hb_in_step t;
    int rc = hb_measure_in_step(g->s.items[g->paired[point]].pt, o, &t);
    if (rc) return rc;
    if (hb_interrupted()) return hb_fail(HB_ERR_RUN, "interrupted");
    ns[first] = t.ns[0];
    ns[1 - first] = t.ns[1];
    if (t.ns[0] > 0 && t.ns[1] > 0) return 0;
    int k = t.failed == 1;
    *failed = k ? 1 - first : first;
    snprintf(why, 160, "%s%s%.120s", t.status[k], *t.detail[k] ? ": " : "", t.detail[k]);
    return 1;
}

// One side alone, uncounted.
static int try_alone(struct guard_live *g, size_t point, int side, char *why)
{
    struct hb_measure_opts o = opts_of(g, point, side);
    struct hb_measured m;
    int rc = hb_measure(g->s.items[g->paired[point]].pt, 1, &o, &m);
    if (rc) return rc;
    json_decref(m.doc);
    if (hb_interrupted()) return hb_fail(HB_ERR_RUN, "interrupted");
    if (!strcmp(m.status, "ok")) return 0;
    snprintf(why, 160, "%s%s%.120s", m.status, *m.detail ? ": " : "", m.detail);
    return 1;
}

static double now_s(void *ctx) { (void)ctx; return 1e-9 * (double)hb_now_ns(); }

static void progress(void *ctx, const char *what, size_t done, size_t total)
{
    (void)ctx;
    hb_progress(what, done, total, -1);
}

struct guard_source guard_live_source(struct guard_live *g)
{
    return (struct guard_source){ .take = take, .now_s = now_s, .progress = progress, .ctx = g };
}

int guard_live_prepare(struct guard_live *g, struct guard_point *points, bool all)
{
    int rc = 0;
    for (size_t i = 0; i < g->n_paired && !rc; i++) {
        struct guard_point *pt = &points[i];
        if (pt->left_out) continue;
        if (!all && same_code(g, &g->s.items[g->paired[i]].pt[0])) {
            pt->left_out = true;
            pt->word = GUARD_SAME;
            snprintf(pt->why, sizeof pt->why, "identical code, not measured");
        }
        for (int side = 0; side < 2 && !pt->left_out && !rc; side++) {
            char why[160] = "";
            progress(g, "preparing", 2 * i + (size_t)side, 2 * g->n_paired);
            rc = try_alone(g, i, side, why);
            if (rc != 1) continue;
            rc = 0;
            guard_no_time(pt, side, why);
        }
    }
    return rc;
}
