// checkcmd.c: the command `check`: are the implementations of a device right, and its primitives?
//
// Groups    one implementation (operators: with each core inside) and one dtype; each runs in a
//           child of its own (the hidden command __check), because a fault inside a kernel poisons
//           the process. A child that failed or was killed is started again behind the case that
//           it fell over, at most RESTARTS times.
// Cases     for each length two shapes (the second from a list, in turn), normal inputs and one
//           other kind in turn; all kinds up to L = ALL_KINDS_TO. --quick: fewer lengths, one
//           shape.
//           Each is judged forward and backward where the implementation does that, and repeated:
//           the same bits twice.
// Lines     one for each length: worst error over tolerance, ok, refused or what was wrong; under
//           a failed one the case, every tensor's error, and where it begins.
#include <fcntl.h>
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "child.h"
#include "choose/choose.h"
#include "cli.h"
#include "commands.h"
#include "measure.h"
#include "record.h"
#include "../impls/reference/prims64.h"

enum { MAX_LENGTHS = 64, MAX_GROUPS = 256, RESTARTS = 6, ALL_KINDS_TO = 257, MAX_PRIMS = 256 };
#define JUDGE_FLOP  3e8          // 0.1 s of a few cores; above it rows are sampled
#define GROUP_S     240.0        // of one child
#define PRIMS "primitives"

struct shape { int64_t B, D, H; };
struct args {
    const char *glob, *device, *dtype, *lengths, *json;
    int64_t B, D, H;
    bool backward, forward, quick;
};
struct group { char impl[HB_NAME_MAX]; enum hb_dtype dtype; };

// --- the cases -----------------------------------------------------------------------------------

static const int64_t all_lengths[] = { 1, 2, 3, 17, 64, 100, 127, 128, 129, 255, 256, 1000, 1023,
                                       1024, 1025, 4095, 4096, 10007 };
static const int64_t few_lengths[] = { 1, 3, 100, 128, 1000, 1024, 4097 };
// The first of each is tried at every length, the others in turn.
static const struct shape conv_shapes[] = { { 2, 8, 0 }, { 1, 3, 0 }, { 3, 17, 0 }, { 1, 64, 0 },
                                            { 5, 1, 0 } };
static const struct shape head_shapes[] = { { 2, 128, 2 }, { 1, 128, 1 }, { 3, 96, 3 },
                                            { 1, 40, 1 }, { 2, 16, 2 } };
static const struct shape hyena_shapes[] = { { 2, 32, 0 }, { 1, 24, 0 }, { 3, 8, 0 },
                                             { 1, 64, 0 } };
static const struct shape mha_shapes[] = { { 2, 128, 2 }, { 1, 64, 1 }, { 3, 48, 3 } };

static const struct shape *shapes_of(enum hb_op op, size_t *n)
{
    static const struct { const struct shape *s; size_t n; } all[HB_OP_COUNT] = {
        [HB_LONGCONV] = { conv_shapes, sizeof conv_shapes / sizeof *conv_shapes },
        [HB_ATTENTION] = { head_shapes, sizeof head_shapes / sizeof *head_shapes },
        [HB_HYENA] = { hyena_shapes, sizeof hyena_shapes / sizeof *hyena_shapes },
        [HB_MHA] = { mha_shapes, sizeof mha_shapes / sizeof *mha_shapes },
    };
    *n = all[op].n;
    return all[op].s;
}

static int default_lengths(bool quick, int64_t *L)
{
    const int64_t *from = quick ? few_lengths : all_lengths;
    size_t n = quick ? sizeof few_lengths / sizeof *few_lengths
                     : sizeof all_lengths / sizeof *all_lengths;
    memcpy(L, from, n * sizeof *L);
    return (int)n;
}

// --- the child: __check --------------------------------------------------------------------------

struct work {
    const char *impl, *device;
    enum hb_dtype dtype;
    int64_t lengths[MAX_LENGTHS];
    int n_lengths;
    struct shape only;                               // B, D, H 0: the lists
    bool forward_alone, quick;
    int from, progress;                              // first case; descriptor for the case's number
    int next;                                        // number of the next case
    json_t *rows;                                    // owned
};
// What a length's cases came to.
struct tally { int done, failed, refused; double worst; char what[400]; };

static void note_case(struct work *w)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%10d\n", w->next);
    if (w->progress >= 0 && pwrite(w->progress, text, (size_t)n, 0) != n) w->progress = -1;
}

static void print_errors(const struct hb_point *pt, enum hb_input kind, bool backward,
                         const struct hb_check_result *r, const char *what)
{
    printf("      B %lld D %lld H %lld L %lld, input %s%s: %s\n", (long long)pt->p.B,
           (long long)pt->p.D, (long long)pt->p.H, (long long)pt->p.L, hb_input_str(kind),
           backward ? "" : ", forward alone", what);
    for (int i = 0; i < r->n; i++) {
        const struct hb_check_err *e = &r->err[i];
        printf("        %-28s %.2e (tolerance %.1e, max abs %.2e)", e->what, e->rel_l2, e->tol,
               e->max_abs);
        if (e->first_bad >= 0)
            printf("  %lld of %lld off, first %s: got %.6g, want %.6g", (long long)e->n_bad,
                   (long long)e->n_judged, e->where, e->got, e->want);
        printf("\n");
    }
}

static void add_row(struct work *w, const struct hb_point *pt, enum hb_input kind, bool backward,
                    const char *status, const char *detail, const struct hb_check_result *r)
{
    json_t *row = json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:b,s:s,s:s}", "impl", w->impl,
                            "device", w->device, "dtype", hb_dtype_str(w->dtype), "B",
                            (json_int_t)pt->p.B, "D", (json_int_t)pt->p.D, "H",
                            (json_int_t)pt->p.H, "L", (json_int_t)pt->p.L, "input",
                            hb_input_str(kind), "backward", backward, "status", status, "detail",
                            detail);
    if (row && r && isfinite(r->worst_rel_l2)) {
        json_object_set_new(row, "err_rel_l2", json_real(r->worst_rel_l2));
        json_object_set_new(row, "tol", json_real(r->tol));
    }
    json_array_append_new(w->rows, row);
}

// One case. Returns HB_ERR_* where the process cannot be trusted any more, else 0.
static int try_case(struct work *w, struct shape s, int64_t L, enum hb_input kind, struct tally *t)
{
    static struct hb_check_result r;                 // too large for a stack
    struct hb_point pt = { .seed = 1, .p = { .B = s.B, .D = s.D, .L = L, .dtype = w->dtype,
                                             .planning = HB_PLAN_ESTIMATE } };
    if (w->next++ < w->from) return 0;
    note_case(w);
    snprintf(pt.impl, sizeof pt.impl, "%s", w->impl);
    snprintf(pt.device, sizeof pt.device, "%.15s", w->device);
    hb_point_fit_op(&pt, s.H, 0);
    int rc = hb_point_resolve(&pt);
    if (rc) return rc;
    const struct hb_impl *impl = hb_registry_find(pt.impl);
    struct hb_check_opts o = { .input = kind, .backward = !w->forward_alone && impl->backward,
                               .judge_flop = JUDGE_FLOP, .repeat = true };
    rc = hb_check_point(&pt, &o, &r);
    if (rc == HB_ERR_REFUSED && o.backward) {        // perhaps only the gradients
        hb_error_clear();
        o.backward = false;
        rc = hb_check_point(&pt, &o, &r);
    }
    char text[512];
    snprintf(text, sizeof text, "%s", rc ? hb_error() : r.detail);
    hb_error_clear();
    if (rc == HB_ERR_REFUSED) {
        t->refused++;
        if (!*t->what) snprintf(t->what, sizeof t->what, "%.399s", text);
        add_row(w, &pt, kind, o.backward, "refused", text, NULL);
        return 0;
    }
    t->done++;
    if (!rc) t->worst = fmax(t->worst, r.worst_rel_l2 / r.tol);
    if (!rc && r.ok) {
        add_row(w, &pt, kind, o.backward, "ok", "", &r);
        return 0;
    }
    if (!t->failed++) snprintf(t->what, sizeof t->what, "%.399s", text);
    print_errors(&pt, kind, o.backward, &r, text);
    add_row(w, &pt, kind, o.backward, rc ? "failed" : "wrong", text, &r);
    return rc == HB_ERR_RUN ? rc : 0;                // the device may be lost
}

static int try_length(struct work *w, int64_t L, int turn)
{
    struct tally t = { 0 };
    struct hb_point pt = { .device = "" };
    snprintf(pt.impl, sizeof pt.impl, "%s", w->impl);
    enum hb_op op = HB_LONGCONV;
    while (op < HB_OP_COUNT && strncmp(w->impl, hb_op_str(op), strlen(hb_op_str(op)))) op++;
    size_t n = 0;
    const struct shape *all = shapes_of(op, &n);
    struct shape shapes[2] = { all[0], all[1 + (size_t)turn % (n - 1)] };
    int n_shapes = w->quick ? 1 : 2, rc = 0;
    if (w->only.B) { shapes[0] = w->only; n_shapes = 1; }
    for (int k = 0; k < n_shapes && !rc; k++)
        for (int in = 0; in < HB_IN_COUNT && !rc; in++) {
            bool every = L <= ALL_KINDS_TO && !w->quick && k == 0;
            if (every || in == HB_IN_NORMAL || in == 1 + (turn + k) % (HB_IN_COUNT - 1))
                rc = try_case(w, shapes[k], L, (enum hb_input)in, &t);
        }
    if (w->next <= w->from && !rc) return 0;         // done by the child before this one
    printf("%-6s %-44s %-5s L %-7lld %2d cases", t.failed || rc ? "WRONG"
           : t.done ? "ok" : "-", w->impl, hb_dtype_str(w->dtype), (long long)L, t.done + t.refused);
    if (t.done) printf("  worst error / tolerance %.3f", t.worst);
    if (t.refused) printf("  (%d refused)", t.refused);
    printf("%s%s\n", *t.what ? ": " : "", t.what);
    fflush(stdout);
    return rc;
}

static int try_primitives(struct work *w)
{
    static struct hb_prim_result r[MAX_PRIMS];
    int n = hb_prims_check(hb_host()->device, r, MAX_PRIMS);
    for (int i = 0; i < n && i < MAX_PRIMS; i++) {
        printf("%-6s %s.%-40s %2d shapes  worst error / tolerance %.3f%s%s\n",
               r[i].ok ? "ok" : "WRONG", hb_host()->device->name, r[i].name, r[i].shapes,
               r[i].err / r[i].tol, r[i].ok ? "" : ": ", r[i].ok ? "" : r[i].detail);
        json_t *row = json_pack("{s:s,s:s,s:s,s:s}", "primitive", r[i].name, "device", w->device,
                                "status", r[i].ok ? "ok" : "wrong", "detail", r[i].detail);
        if (row && isfinite(r[i].err)) {
            json_object_set_new(row, "err_rel_l2", json_real(r[i].err));
            json_object_set_new(row, "tol", json_real(r[i].tol));
        }
        json_array_append_new(w->rows, row);
    }
    fflush(stdout);
    return n < 0 ? n : 0;
}

static int read_work(const json_t *doc, struct work *w)
{
    const char *dtype, *progress;
    json_t *lengths;
    json_int_t B, D, H;
    int forward, quick;
    json_error_t e;
    if (json_unpack_ex((json_t *)(uintptr_t)doc, &e, 0,
                       "{s:s,s:s,s:s,s:o,s:I,s:I,s:I,s:b,s:b,s:i,s:s}", "impl", &w->impl, "device",
                       &w->device, "dtype", &dtype, "lengths", &lengths, "B", &B, "D", &D, "H", &H,
                       "forward", &forward, "quick", &quick, "from", &w->from, "progress",
                       &progress))
        return hb_fail(HB_ERR_INPUT, "request: %s", e.text);
    w->only = (struct shape){ B, D, H };
    w->forward_alone = forward;
    w->quick = quick;
    w->progress = open(progress, O_WRONLY | O_CLOEXEC);
    for (size_t i = 0; i < json_array_size(lengths) && i < MAX_LENGTHS; i++)
        w->lengths[w->n_lengths++] = json_integer_value(json_array_get(lengths, i));
    return hb_dtype_parse(dtype, &w->dtype);
}

static int check_group(struct work *w)
{
    int rc = hb_host_init(0, hb_default_mem_limit());
    if (!rc) rc = hb_registry_load();
    if (!rc) rc = hb_use_device(w->device);
    if (rc) return rc;
    if (!strcmp(w->impl, PRIMS)) return try_primitives(w);
    for (int i = 0; i < w->n_lengths && !rc; i++) rc = try_length(w, w->lengths[i], i);
    return rc;
}

int hb_cmd_check_group(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    json_error_t e;
    struct work w = { .progress = -1, .rows = json_array() };
    setvbuf(stdout, NULL, _IOLBF, 0);                // what was said survives a crash
    json_t *doc = json_loadf(stdin, 0, &e);
    int rc = doc ? read_work(doc, &w) : hb_fail(HB_ERR_INPUT, "request: %s", e.text);
    if (!rc) rc = check_group(&w);
    // What it fell over is in the rows already, or is said here.
    json_t *r = json_pack("{s:s,s:s,s:i,s:b,s:o}", "status",
                          rc == HB_ERR_MISSING ? "missing" : "ok", "detail", hb_error(), "next",
                          w.next, "broke", rc != 0, "rows", w.rows);
    int bad = r ? hb_child_reply(r) : HB_ERR_RUN;
    json_decref(r);
    json_decref(doc);
    hb_error_clear();
    return bad ? hb_exit_code("__check", bad) : 0;
}

// --- the parent ----------------------------------------------------------------------------------

static int add_group(struct group *g, int n, const char *impl, enum hb_dtype t)
{
    if (n == MAX_GROUPS) return n;
    g[n].dtype = t;
    snprintf(g[n].impl, sizeof g[n].impl, "%s", impl);
    return n + 1;
}

// An implementation by its whole name, in every dtype that it has and that is asked for.
static int add_impl(const struct args *a, const char *name, unsigned dtypes, struct group *g, int n)
{
    const char *device = hb_impl_device(name);
    enum hb_dtype only = HB_DTYPE_COUNT;
    if (!device) { hb_error_clear(); return n; }
    if (strncmp(a->device, device, strlen(device)) || (a->glob && fnmatch(a->glob, name, 0)))
        return n;
    if (a->dtype && hb_dtype_parse(a->dtype, &only)) return n;
    for (int t = 0; t < HB_DTYPE_COUNT; t++)
        if (dtypes >> t & 1 && (only == HB_DTYPE_COUNT || (int)only == t))
            n = add_group(g, n, name, (enum hb_dtype)t);
    return n;
}

// What only chooses another implementation is checked where it is asked for.
static bool passed_over(const struct args *a, const char *name)
{
    return hb_is_auto(name) && !(a->glob && strstr(a->glob, "auto"));
}

static int list_groups(const struct args *a, struct group *g)
{
    int n = 0;
    if (!a->glob || !fnmatch(a->glob, PRIMS, 0)) n = add_group(g, n, PRIMS, HB_F32);
    for (int pass = 0; pass < 2; pass++)             // the cores first: what is inside of the rest
        for (int i = 0; i < hb_registry_count(); i++) {
            const struct hb_impl *im = hb_registry_at(i)->impl;
            char name[2 * HB_NAME_MAX];
            if (!im || passed_over(a, im->name)) continue;
            bool oper = im->op == HB_HYENA || im->op == HB_MHA;
            if (!oper && pass == 0) n = add_impl(a, im->name, im->dtypes, g, n);
            for (int k = 0; oper && pass == 1 && k < hb_registry_count(); k++) {
                const struct hb_impl *in = hb_registry_at(k)->impl;
                if (!in || in->op != (im->op == HB_HYENA ? HB_LONGCONV : HB_ATTENTION)) continue;
                if (passed_over(a, in->name)) continue;
                snprintf(name, sizeof name, "%s:%s", im->name, in->name);
                unsigned both = im->dtypes & in->dtypes & ~(1u << HB_F64);   // no such inputs
                if (strlen(name) < HB_NAME_MAX) n = add_impl(a, name, both, g, n);
            }
        }
    return n;
}

// The number of the case behind the one that the child was at; -1: none.
static int case_of(int fd)
{
    char text[32] = "";
    return pread(fd, text, sizeof text - 1, 0) > 0 ? atoi(text) : -1;
}

struct sum { int ok, refused, wrong, groups_broken; };

static void count(const json_t *rows, struct sum *s)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) {
        const char *st = json_string_value(json_object_get(row, "status"));
        if (!st) continue;
        if (!strcmp(st, "ok")) s->ok++;
        else if (!strcmp(st, "refused")) s->refused++;
        else s->wrong++;
    }
}

// One group, restarted behind what it falls over.
static int run_group(const struct args *a, const struct group *g, json_t *lengths, int fd,
                     const char *progress, json_t *all, struct sum *s)
{
    char arg0[] = "hyena-bench", arg1[] = "__check";
    char *const argv[] = { arg0, arg1, NULL };
    struct hb_child_limits lim = { .time_s = GROUP_S, .mem_bytes = hb_default_mem_limit(),
                                   .any_address_space = true, .echo_stderr = true };
    int from = 0;
    for (int start = 0; start <= RESTARTS && !hb_interrupted(); start++) {
        struct hb_child_result res;
        json_t *request = json_pack("{s:s,s:s,s:s,s:O,s:I,s:I,s:I,s:b,s:b,s:i,s:s}", "impl",
                                    g->impl, "device", a->device, "dtype", hb_dtype_str(g->dtype),
                                    "lengths", lengths, "B", (json_int_t)a->B, "D",
                                    (json_int_t)a->D, "H", (json_int_t)a->H, "forward",
                                    a->forward, "quick", a->quick, "from", from, "progress",
                                    progress);
        if (ftruncate(fd, 0)) return hb_fail(HB_ERR_RUN, "%s: cannot be emptied", progress);
        int rc = request ? hb_child_run(argv, request, &lim, &res)
                         : hb_fail(HB_ERR_RUN, "out of memory for a request");
        json_decref(request);
        if (rc) return rc;
        if (!strcmp(res.status, "missing")) {
            json_decref(res.reply);
            return hb_fail(HB_ERR_MISSING, "%s", res.detail);
        }
        json_t *rows = json_object_get(res.reply, "rows");
        bool broke = !res.reply || json_is_true(json_object_get(res.reply, "broke"));
        int next = res.reply ? (int)json_integer_value(json_object_get(res.reply, "next"))
                             : case_of(fd);
        if (rows) { json_array_extend(all, rows); count(rows, s); }
        if (broke) {
            const char *why = res.reply ? json_string_value(json_object_get(res.reply, "detail"))
                                        : res.detail;
            printf("WRONG  %-44s %-5s %s in case %d: %s\n", g->impl, hb_dtype_str(g->dtype),
                   res.reply ? "stopped" : res.status, next, why && *why ? why : "see above");
            fflush(stdout);
            s->groups_broken++;
            if (!res.reply)
                json_array_append_new(all, json_pack("{s:s,s:s,s:s,s:s,s:i}", "impl", g->impl,
                                                     "dtype", hb_dtype_str(g->dtype), "status",
                                                     res.status, "detail", res.detail, "case",
                                                     next));
        }
        bool go_on = broke && next >= 0 && !hb_interrupted();
        from = next;
        json_decref(res.reply);
        if (!go_on || next == 0) break;              // 0: it did not even begin
    }
    return 0;
}

static int run_all(const struct args *a, bool *wrong)
{
    static struct group g[MAX_GROUPS];
    int64_t L[MAX_LENGTHS];
    int n_L = default_lengths(a->quick, L);
    enum hb_dtype t;
    if (a->lengths && hb_parse_lengths(a->lengths, L, MAX_LENGTHS, &n_L)) return HB_ERR_INPUT;
    if (a->dtype && hb_dtype_parse(a->dtype, &t)) return HB_ERR_INPUT;
    int n = list_groups(a, g);
    if (!n)
        return hb_fail(HB_ERR_INPUT, "nothing on %s matches --impl '%s'", a->device,
                       a->glob ? a->glob : "*");
    char progress[] = "/tmp/hyena-check-XXXXXX";
    int fd = mkostemp(progress, O_CLOEXEC);
    if (fd < 0) return hb_fail(HB_ERR_RUN, "%s: cannot be made", progress);
    json_t *lengths = json_array(), *all = json_array();
    for (int i = 0; i < n_L; i++) json_array_append_new(lengths, json_integer(L[i]));
    struct sum s = { 0 };
    int rc = 0;
    int64_t t0 = hb_now_ns();
    for (int i = 0; i < n && !rc && !hb_interrupted(); i++)
        rc = run_group(a, &g[i], lengths, fd, progress, all, &s);
    close(fd);
    unlink(progress);
    json_decref(lengths);
    if (!rc) {
        printf("%d groups, %.0f s: %d cases right, %d refused, %d wrong, %d processes broke down\n",
               n, 1e-9 * (double)(hb_now_ns() - t0), s.ok, s.refused, s.wrong, s.groups_broken);
        if (a->json) rc = hb_json_save(a->json, all);
    }
    json_decref(all);
    *wrong = s.wrong || s.groups_broken || !s.ok;
    return rc;
}

int hb_cmd_check(int argc, char **argv)
{
    struct args a = { .device = "cpu0" };
    const struct hb_opt opts[] = {
        { "impl", HB_OPT_STR, &a.glob, "GLOB",
          "only what matches, e.g. 'longconv_*'; '" PRIMS "': those of the device", 0, 0 },
        { "device", HB_OPT_STR, &a.device, "D", "cpu0 or cuda0 (cpu0)", 0, 0 },
        { "dtype", HB_OPT_STR, &a.dtype, "T", "only this one of f32, f64, f16, bf16", 0, 0 },
        { "L", HB_OPT_STR, &a.lengths, "LIST", "these lengths: 128..4096,3000", 0, 0 },
        { "B", HB_OPT_INT, &a.B, "N", "this batch (with --D: instead of the list)", 1, 1 << 20 },
        { "D", HB_OPT_INT, &a.D, "N", "this many channels (with --B)", 1, 1 << 24 },
        { "H", HB_OPT_INT, &a.H, "N", "this many heads; default one per 64 channels", 1, 1 << 24 },
        { "forward", HB_OPT_FLAG, &a.forward, NULL, "without gradients", 0, 0 },
        { "backward", HB_OPT_FLAG, &a.backward, NULL, "with gradients (the default)", 0, 0 },
        { "quick", HB_OPT_FLAG, &a.quick, NULL, "fewer lengths, one shape", 0, 0 },
        { "json", HB_OPT_STR, &a.json, "FILE", "write every case there", 0, 0 },
    };
    const struct hb_cli cli = {
        .command = "check", .args = "",
        .about = "Holds implementations and primitives against the float64 judge; exit code 1 if "
                 "one is wrong.",
        .example = "hyena-bench check --quick\n"
                   "hyena-bench check --device cuda0 --impl 'longconv_*' --dtype bf16 --L 1000,4096",
        .opts = opts, .n_opts = sizeof opts / sizeof *opts,
    };
    int n_pos = 0, rc = hb_cli_parse(&cli, argc, argv, NULL, &n_pos);
    bool wrong = false;
    if (rc == HB_CLI_HELP) return 0;
    if (!rc && (a.B > 0) != (a.D > 0)) rc = hb_fail(HB_ERR_INPUT, "--B and --D go together");
    if (!rc && a.H && a.D % a.H) rc = hb_fail(HB_ERR_INPUT, "--H: D is not a multiple of it");
    if (!rc && strcmp(a.device, "cpu0") && strcmp(a.device, "cuda0"))
        rc = hb_fail(HB_ERR_INPUT, "--device: '%.60s' is neither cpu0 nor cuda0", a.device);
    if (!rc) rc = hb_host_init(0, 0);
    if (!rc) rc = hb_registry_load();
    if (!rc) rc = run_all(&a, &wrong);
    return rc ? hb_exit_code("check", rc) : wrong;
}
