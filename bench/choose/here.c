// here.c: choosing among the implementations of this build, on this machine (contract: choose.h).
#include <stdlib.h>
#include <string.h>

#include "../env.h"
#include "choose.h"

const char *const *hb_choose_known(enum hb_op op, const char *device)
{
    static char names[CHOOSE_MAX][HB_NAME_MAX];
    static const char *list[CHOOSE_MAX + 1];
    bool conv = op == HB_LONGCONV || op == HB_HYENA;
    int n = 0;
    for (int i = 0; i < hb_registry_count() && n < CHOOSE_MAX; i++) {
        const struct hb_impl *im = hb_registry_at(i)->impl;
        if (!im || im->op != (conv ? HB_LONGCONV : HB_ATTENTION) || hb_is_auto(im->name)
            || strncmp(im->device, device, strlen(im->device)))
            continue;
        bool core = op == HB_LONGCONV || op == HB_ATTENTION;
        snprintf(names[n], HB_NAME_MAX, "%s%s%.63s", core ? "" : hb_op_str(op), core ? "" : ":",
                 im->name);
        list[n] = names[n];
        n++;
    }
    list[n] = NULL;
    return list;
}

// NULL: the registry has it and it takes the problem.
static const char *allowed(const struct hb_point *pt, void *ctx)
{
    (void)ctx;
    const struct hb_impl *impl = hb_registry_find(pt->impl);
    if (!impl) {
        hb_error_clear();
        return "it is not in this build";
    }
    const char *why = hb_point_refuses(pt, impl);
    if (!why) return NULL;
    static char kept[8][300];                        // the reason must outlive the next question
    static int at;
    snprintf(kept[at = (at + 1) % 8], sizeof kept[0], "%.299s", why);
    return kept[at];
}

static void this_machine(struct choose_ask *a)
{
    static char cpu[96], gpu[96];
    static bool known;
    if (!known) {
        json_t *m = hb_env_machine();
        const char *c = json_string_value(json_object_get(json_object_get(m, "cpu"), "model"));
        const char *g = json_string_value(json_object_get(
            json_array_get(json_object_get(json_object_get(m, "gpu"), "devices"), 0), "name"));
        snprintf(cpu, sizeof cpu, "%s", c ? c : "");
        snprintf(gpu, sizeof gpu, "%s", g ? g : "");
        json_decref(m);
        known = true;
    }
    a->here = hb_machine_id();
    a->cpu = cpu;
    a->gpu = gpu;
}

// Says so where the chosen one was another file when it was measured: all its points of this kind
// are of other builds.
static void note_build(const struct choose_table *t, const struct hb_point *pt,
                       struct choose_result *r)
{
    struct hb_choice *c = &r->answer;
    const char *colon = strchr(c->impl, ':');
    const struct hb_plugin *pl = hb_registry_plugin(colon ? colon + 1 : c->impl);
    size_t same = 0, others = 0, n = strlen(c->note);
    for (size_t i = 0; pl && r->machine >= 0 && i < t->n; i++) {
        const struct choose_row *row = &t->rows[i];
        if (row->machine != r->machine || strcmp(row->pt.impl, c->impl) || !row->build[0]
            || row->pt.pass != pt->pass || row->pt.p.dtype != pt->p.dtype)
            continue;
        if (!strncmp(row->build, pl->sha256, strlen(row->build))) same++;
        else others++;
    }
    if (others && !same) snprintf(c->note + n, sizeof c->note - n, "; of another build of it");
}

int hb_choose_here(const struct hb_point *pt, double mem_limit, choose_fits fits, void *ctx,
                   struct choose_result *r)
{
    return hb_choose_on(pt, mem_limit, NULL, fits, ctx, r);
}

int hb_choose_on(const struct hb_point *pt, double mem_limit, const char *machine, choose_fits fits,
                 void *ctx, struct choose_result *r)
{
    static const struct choose_table none;
    const struct choose_table *t = hb_choices();
    if (!t) {
        hb_error_clear();                            // without results there is still the default
        t = &none;
    }
    struct choose_ask a = { .pt = *pt, .mem_limit = mem_limit, .machine = machine,
                            .allowed = allowed, .fits = fits, .ctx = ctx };
    a.known = hb_choose_known(pt->p.op, pt->device);
    this_machine(&a);
    int rc = hb_choose_among(t, &a, r);
    if (!rc) note_build(t, pt, r);
    return rc;
}
