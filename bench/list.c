// list.c: `hyena-bench list`: which implementations are there, which are not, and why.
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "commands.h"
#include "point.h"

// --- rows: what can be named on the command line -------------------------------------------------

struct row {
    char name[HB_NAME_MAX];
    const struct hb_impl *impl, *inner;      // inner NULL: a core
};

struct rows { struct row *r; int n; };

static bool has_backward(const struct row *r)
{
    return r->impl->backward && (!r->inner || r->inner->backward);
}
static bool has_fixed(const struct row *r) { return r->impl->set_filter != NULL; }
static const char *device_of(const struct row *r)
{
    return r->inner && strcmp(r->impl->device, "any") == 0 ? r->inner->device : r->impl->device;
}
static bool needs_gpu(const struct row *r) { return strcmp(device_of(r), "cuda") == 0; }
static unsigned dtypes(const struct row *r)
{
    return r->impl->dtypes & (r->inner ? r->inner->dtypes : ~0u);
}

static const struct hb_impl *impl_at(int i) { return hb_registry_at(i)->impl; }

// What may stand inside of `outer`; HB_OP_COUNT: nothing, it is a core.
static enum hb_op inner_op(const struct hb_impl *outer)
{
    return outer->op == HB_HYENA ? HB_LONGCONV : outer->op == HB_MHA ? HB_ATTENTION : HB_OP_COUNT;
}

static void add_rows(struct rows *rows, const struct hb_impl *impl)
{
    if (inner_op(impl) == HB_OP_COUNT) {
        struct row *r = &rows->r[rows->n++];
        *r = (struct row){ .impl = impl };
        snprintf(r->name, sizeof r->name, "%.60s", impl->name);
        return;
    }
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_impl *in = impl_at(i);
        if (!in || in->op != inner_op(impl)) continue;
        if (strcmp(impl->device, "any") && strcmp(in->device, impl->device)) continue;
        struct row *r = &rows->r[rows->n++];
        *r = (struct row){ .impl = impl, .inner = in };
        snprintf(r->name, sizeof r->name, "%.60s:%.60s", impl->name, in->name);
    }
}

static int make_rows(struct rows *rows, int op)
{
    int n = hb_registry_count();
    rows->n = 0;
    rows->r = calloc((size_t)(n * n + 1), sizeof *rows->r);
    if (!rows->r) return hb_fail(HB_ERR_OOM, "out of memory: list of implementations");
    for (int i = 0; i < n; i++)
        if (impl_at(i) && (op < 0 || (int)impl_at(i)->op == op)) add_rows(rows, impl_at(i));
    return 0;
}

// The file's name without folder and ".so", as somebody would have typed it.
static void plugin_stem(const struct hb_plugin *pl, char *buf, size_t cap)
{
    const char *slash = strrchr(pl->path, '/'), *name = slash ? slash + 1 : pl->path;
    size_t len = strlen(name);
    snprintf(buf, cap, "%.*s", (int)(len > 3 ? len - 3 : len), name);
}

static bool of_op(const struct hb_plugin *pl, int op)
{
    char stem[256];
    plugin_stem(pl, stem, sizeof stem);
    return op < 0 ||
           strncmp(stem, hb_op_str((enum hb_op)op), strlen(hb_op_str((enum hb_op)op))) == 0;
}

// What is missing for CUDA in this build, or NULL. Whether a GPU is here is not asked: that would
// start CUDA.
static const char *no_cuda(void)
{
    static char text[4500];
    char path[4300];
    if (!hb_registry_has("cuda"))
        return "no implementation for CUDA is built; everything runs on the CPU";
    snprintf(path, sizeof path, "%s/cuda.so", hb_devices_dir());
    if (access(path, R_OK) == 0) return NULL;
    snprintf(text, sizeof text, "the device is not built (%s): its implementations cannot run",
             path);
    return text;
}

// --- as a table ----------------------------------------------------------------------------------

enum { COLUMNS = 7, CELL = 160 };
typedef char cells[COLUMNS][CELL];

static void fill_cells(const struct row *r, cells c)
{
    const struct hb_impl *core = r->inner ? r->inner : r->impl;
    snprintf(c[0], CELL, "%s", r->name);
    snprintf(c[1], CELL, "%s", hb_op_str(r->impl->op));
    snprintf(c[2], CELL, "%s%s", device_of(r), needs_gpu(r) ? "*" : "");
    c[3][0] = '\0';
    for (int t = 0; t < HB_DTYPE_COUNT; t++)
        if (dtypes(r) >> t & 1)
            snprintf(c[3] + strlen(c[3]), CELL - strlen(c[3]), "%s%s", c[3][0] ? "," : "",
                     hb_dtype_str((enum hb_dtype)t));
    snprintf(c[4], CELL, "fwd%s%s", has_fixed(r) ? ",fwd_cached" : "",
             has_backward(r) ? ",bwd" : "");
    snprintf(c[5], CELL, "%.150s", core->complexity);
    snprintf(c[6], CELL, "%.150s", r->impl->source);
}

static int print_table(const struct rows *rows, int op)
{
    cells *all = calloc((size_t)rows->n + 1, sizeof *all);
    if (!all) return hb_fail(HB_ERR_OOM, "out of memory: table");
    static const char *const heads[COLUMNS] = { "name",   "op",         "device", "dtypes",
                                                "passes", "complexity", "source" };
    size_t width[COLUMNS];
    for (int k = 0; k < COLUMNS; k++) {
        width[k] = strlen(heads[k]);
        snprintf(all[0][k], CELL, "%s", heads[k]);
    }
    for (int i = 0; i < rows->n; i++) {
        fill_cells(&rows->r[i], all[i + 1]);
        for (int k = 0; k < COLUMNS; k++)
            if (strlen(all[i + 1][k]) > width[k]) width[k] = strlen(all[i + 1][k]);
    }
    for (int i = 0; i <= rows->n; i++)
        for (int k = 0; k < COLUMNS; k++)
            printf(k < COLUMNS - 1 ? "%-*s  " : "%.*s\n", (int)width[k], all[i][k]);
    free(all);
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_plugin *pl = hb_registry_at(i);
        char stem[256];
        plugin_stem(pl, stem, sizeof stem);
        if (!pl->impl && of_op(pl, op))
            printf("%s  cannot be used: %s (%s)\n", stem, pl->why_not, pl->path);
    }
    for (int i = 0; i < rows->n; i++)
        if (needs_gpu(&rows->r[i])) {
            printf("* needs an NVIDIA GPU\n");
            break;
        }
    if (no_cuda()) printf("cuda  %s\n", no_cuda());
    return 0;
}

// --- as JSON -------------------------------------------------------------------------------------

static json_t *row_json(const struct row *r)
{
    const struct hb_plugin *pl = hb_registry_plugin(r->name);
    json_t *types = json_array(), *passes = json_array();
    for (int t = 0; t < HB_DTYPE_COUNT; t++)
        if (dtypes(r) >> t & 1)
            json_array_append_new(types, json_string(hb_dtype_str((enum hb_dtype)t)));
    for (int k = 0; k < HB_PASS_COUNT; k++)
        if (k == HB_PASS_FWD || (k == HB_PASS_FWD_CACHED ? has_fixed(r) : has_backward(r)))
            json_array_append_new(passes, json_string(hb_pass_str((enum hb_pass)k)));
    return json_pack("{s:s, s:s, s:s, s:s*, s:o, s:o, s:s, s:s, s:s, s:s}", "name", r->name, "op",
                     hb_op_str(r->impl->op), "device", device_of(r), "needs",
                     needs_gpu(r) ? "an NVIDIA GPU" : NULL, "dtypes", types, "passes", passes,
                     "complexity", r->inner ? r->inner->complexity : r->impl->complexity, "source",
                     r->impl->source, "path", pl->path, "sha256", pl->sha256);
}

static int print_json(const struct rows *rows, int op)
{
    json_t *there = json_array(), *missing = json_array();
    for (int i = 0; i < rows->n; i++) json_array_append_new(there, row_json(&rows->r[i]));
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_plugin *pl = hb_registry_at(i);
        char stem[256];
        plugin_stem(pl, stem, sizeof stem);
        if (!pl->impl && of_op(pl, op))
            json_array_append_new(missing, json_pack("{s:s, s:s, s:s}", "name", stem, "path",
                                                     pl->path, "why", pl->why_not));
    }
    if (no_cuda())
        json_array_append_new(missing, json_pack("{s:s, s:s}", "name", "cuda", "why", no_cuda()));
    json_t *doc = json_pack("{s:o, s:o}", "implementations", there, "missing", missing);
    int rc = doc && json_dumpf(doc, stdout, JSON_INDENT(2)) == 0
                 ? 0
                 : hb_fail(HB_ERR_RUN, "cannot print the list as JSON");
    printf("\n");
    json_decref(doc);
    return rc;
}

int hb_cmd_list(int argc, char **argv)
{
    const char *op_name = NULL;
    bool json = false;
    const struct hb_opt opts[] = {
        { "op", HB_OPT_STR, &op_name, "OP", "only this operator: longconv, attention, hyena, mha",
          0, 0 },
        { "json", HB_OPT_FLAG, &json, NULL, "as JSON", 0, 0 },
    };
    const struct hb_cli cli = { "list",
                                "[--op OP] [--json]",
                                "Shows the implementations: what is there, what is not, and why.",
                                "hyena-bench list --op longconv",
                                opts,
                                sizeof opts / sizeof *opts,
                                0,
                                0 };
    int n_pos = 0;
    int rc = hb_cli_parse(&cli, argc, argv, NULL, &n_pos);
    enum hb_op op = HB_OP_COUNT;
    if (!rc && op_name) rc = hb_op_parse(op_name, &op);
    if (!rc) rc = hb_registry_load();
    struct rows rows = { NULL, 0 };
    if (!rc) rc = make_rows(&rows, op_name ? (int)op : -1);
    if (!rc)
        rc = json ? print_json(&rows, op_name ? (int)op : -1)
                  : print_table(&rows, op_name ? (int)op : -1);
    free(rows.r);
    return hb_exit_code("list", rc);
}
