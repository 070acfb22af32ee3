// leak.c: the rule `leak`: how much of a later input reaches an earlier output. Computed here, with
// the implementations that are installed; takes no time of anything.
//
//     impls    wildcard; device (cpu, cuda), dtype, L, D
//     value    the largest change of an earlier output, in units of eps(dtype) times the largest
//              output, over the implementations; 0: not one bit
// Bound      0: a direct convolution never reads a later input.
#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "../props.h"
#include "verify.h"

static const struct hb_prop *causality(void)
{
    for (int i = 0; i < hb_n_props; i++)
        if (!strcmp(hb_props[i].name, "causality")) return &hb_props[i];
    return NULL;
}

// In units of eps max|y|; the property's limit is 50 of them. NAN: it refused or failed.
static double leak_of(const struct hb_plugin *p, const char *device, const json_t *check)
{
    struct hb_point pt = {.p = {.threads = 1, .planning = HB_PLAN_ESTIMATE,
                                .B = 1,
                                .D = json_integer_value(json_object_get(check, "D")),
                                .L = json_integer_value(json_object_get(check, "L"))},
                          .pass = HB_PASS_FWD,
                          .seed = 1};
    const char *dtype = json_string_value(json_object_get(check, "dtype"));
    struct hb_prop_result res;
    snprintf(pt.impl, sizeof pt.impl, "%s", p->impl->name);
    snprintf(pt.device, sizeof pt.device, "%s0", device);
    if ((dtype && hb_dtype_parse(dtype, &pt.p.dtype)) || hb_point_resolve(&pt) ||
        causality()->check(&pt, p->impl, &res) || !res.applies) {
        hb_error_clear();
        return NAN;
    }
    if (res.value == 0) return 0;
    return res.limit > 0 ? 50 * res.value / res.limit : INFINITY;
}

int hb_rule_leak(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    const char *impls = json_string_value(json_object_get(check, "impls")),
               *device = json_string_value(json_object_get(check, "device"));
    char name[16];
    size_t k = 0, n = 0;
    (void)e;
    if (!impls || !device || !causality())
        return hb_fail(HB_ERR_INPUT, "rule leak: \"impls\" and \"device\"");
    snprintf(name, sizeof name, "%.12s0", device);
    if (hb_registry_load() || hb_use_device(name)) {
        hb_outcome_none(out, "needs a %s: %.300s", strcmp(device, "cpu") ? "GPU" : "CPU",
                        hb_error());
        hb_error_clear();
        return 0;
    }
    out->value = 0;
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_plugin *p = hb_registry_at(i);
        if (!p->impl || p->impl->op != HB_LONGCONV || strcmp(p->impl->device, device) ||
            fnmatch(impls, p->impl->name, 0))
            continue;
        const double leak = leak_of(p, device, check);
        if (isnan(leak)) continue;
        out->value = fmax(out->value, leak);
        if (k < sizeof out->ours)
            k += (size_t)snprintf(out->ours + k, sizeof out->ours - k, "%s`%s` %s", n++ ? ", " : "",
                                  p->impl->name, leak == 0 ? "0" : hb_str_num(leak).s);
    }
    hb_use_device("cpu0");
    hb_error_clear();
    out->ci = (struct hb_interval){out->value, out->value};
    snprintf(out->bound, sizeof out->bound, "0 (a direct convolution)");
    if (!n) hb_outcome_none(out, "no implementation of that name is installed");
    else if (k < sizeof out->ours)
        snprintf(out->ours + k, sizeof out->ours - k, " eps of the largest output");
    return 0;
}
