// leak.c: the rule `leak`: how much of a later input reaches an earlier output. Computed here, with
// the implementations that are installed; takes no time of anything. What a machine without a GPU
// cannot compute is taken from results/claims (verify.c).
//
//     impls    wildcard; device (cpu, cuda), dtype, L, D; amplitude: what the last input becomes
//     value    the largest change of an earlier output, in units of eps(dtype) times the largest
//              output, over the implementations; 0: not one bit
// Bound      0: a direct convolution never reads a later input.
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../inputs.h"
#include "verify.h"

// An implementation, planned on a point; y of two inputs that differ in the last step alone.
struct probe { struct hb_point pt; const struct hb_impl *impl; struct hb_inputs in; void *st; };

static int run(struct probe *p, double *y)
{
    const struct hb_buf *out = hb_inputs_find(&p->in, "y");
    hb_inputs_poison(&p->in);
    int rc = hb_inputs_upload(&p->in);
    if (!rc) rc = p->impl->forward(p->st, &p->in.io);
    if (!rc && hb_inputs_bufs(&p->in)->dev)
        rc = hb_host()->device->sync(hb_host()->device, p->in.io.stream);
    if (!rc) rc = hb_inputs_download(&p->in);
    if (!rc) hb_buf_load(out, 0, out->n, y);
    return rc;
}

// Every channel's last input becomes `amplitude`.
static void disturb(struct probe *p, double amplitude)
{
    struct hb_buf *u = hb_inputs_find(&p->in, "u");
    for (int64_t i = p->pt.p.L - 1; i < u->n; i += p->pt.p.L) hb_buf_store(u, i, 1, &amplitude);
}

// In units of eps times the largest output of the two. NAN: a value was not finite.
static double compare(const struct probe *p, const double *a, const double *b, int64_t n)
{
    static const double eps[HB_DTYPE_COUNT] = {[HB_F32] = 0x1p-23, [HB_F64] = 0x1p-52,
                                               [HB_F16] = 0x1p-10, [HB_BF16] = 0x1p-7};
    double top = 0, leak = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i])) return NAN;
        top = fmax(top, fmax(fabs(a[i]), fabs(b[i])));
        if (i % p->pt.p.L != p->pt.p.L - 1) leak = fmax(leak, fabs(a[i] - b[i]));
    }
    return leak / (eps[p->pt.p.dtype] * top);
}

// NAN: it refused or failed.
static double leak_of(const struct hb_plugin *plugin, const char *device, const json_t *check)
{
    struct probe p = {.pt = {.p = {.threads = 1,
                                   .planning = HB_PLAN_ESTIMATE,
                                   .B = 1,
                                   .D = json_integer_value(json_object_get(check, "D")),
                                   .L = json_integer_value(json_object_get(check, "L"))},
                             .pass = HB_PASS_FWD,
                             .seed = 1},
                      .impl = plugin->impl};
    const char *dtype = json_string_value(json_object_get(check, "dtype"));
    const int64_t n = p.pt.p.D * p.pt.p.L;
    double *a = malloc((size_t)n * sizeof *a), *b = malloc((size_t)n * sizeof *b), leak = NAN;
    snprintf(p.pt.impl, sizeof p.pt.impl, "%s", plugin->impl->name);
    snprintf(p.pt.device, sizeof p.pt.device, "%.12s0", device);
    int rc = a && b ? dtype ? hb_dtype_parse(dtype, &p.pt.p.dtype) : 0 : HB_ERR_OOM;
    if (!rc) rc = hb_point_resolve(&p.pt);
    if (!rc && hb_point_refuses(&p.pt, p.impl)) rc = HB_ERR_REFUSED;
    if (!rc) rc = hb_inputs_make(&p.pt, p.impl, HB_IN_NORMAL, &p.in);
    if (!rc) rc = p.impl->plan(hb_host(), &p.pt.p, &p.st);
    if (!rc) rc = run(&p, a);
    if (!rc) disturb(&p, json_number_value(json_object_get(check, "amplitude")));
    if (!rc) rc = run(&p, b);
    if (!rc) leak = compare(&p, a, b, n);
    if (p.st) p.impl->destroy(p.st);
    if (p.in.priv) hb_inputs_free(&p.in);
    free(a);
    free(b);
    hb_error_clear();
    return leak;
}

int hb_rule_leak(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    const char *impls = json_string_value(json_object_get(check, "impls")),
               *device = json_string_value(json_object_get(check, "device"));
    char name[16];
    size_t k = 0, n = 0;
    (void)e;
    if (!impls || !device)
        return hb_fail(HB_ERR_INPUT, "rule leak: \"impls\" and \"device\"");
    snprintf(name, sizeof name, "%.12s0", device);
    if (hb_registry_load() || hb_use_device(name)) {
        hb_outcome_none(out, "this machine cannot compute it: %.300s", hb_error());
        hb_error_clear();
        return 0;
    }
    out->value = 0;
    out->machine = hb_machine_id();
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_plugin *p = hb_registry_at(i);
        if (!p->impl || p->impl->op != HB_LONGCONV || strcmp(p->impl->device, device) ||
            fnmatch(impls, p->impl->name, 0) || !strcmp(p->impl->name, "longconv_auto"))
            continue;                          // auto is one of the others
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
