// sweep_plan.c: the planning step of a sweep. FFT planners that measure are random (two plannings
// differ by a quarter); so every distinct FFT problem is planned once, in a child per
// implementation that leaves its wisdom on this machine, and the points load it.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "sweep.h"

#define PLANNING_LIMIT_S 60.0        // of one implementation; the rest is planned with its point

// The FFT problems of one implementation: the convolution itself, also where an operator holds it.
// Returns how many there are in pts[cap].
static int fft_problems(const struct sweep *s, const char *impl, struct hb_point *pts, int cap)
{
    int n = 0;
    for (size_t i = 0; i < s->n; i++)
        for (int k = 0; k < s->items[i].n && n < cap; k++) {
            const struct sweep_item *it = &s->items[i];
            struct hb_point pt = it->pt[k];
            const char *inner = pt.p.op == HB_HYENA ? pt.p.inner : pt.impl;
            if (it->state != ITEM_PENDING || strcmp(inner, impl) || strncmp(pt.device, "cpu", 3)
                || pt.p.planning != HB_PLAN_MEASURE)
                continue;
            if (pt.p.op == HB_HYENA) {
                snprintf(pt.impl, sizeof pt.impl, "%s", impl);
                memset(&pt.p.oper, 0, sizeof pt.p.oper);
                if (hb_point_resolve(&pt)) { hb_error_clear(); continue; }
            }
            int same = 0;
            for (; same < n; same++)
                if (pts[same].p.L == pt.p.L && pts[same].p.B == pt.p.B && pts[same].p.D == pt.p.D
                    && pts[same].p.threads == pt.p.threads && pts[same].p.backward == pt.p.backward)
                    break;
            if (same == n) pts[n++] = pt;
        }
    return n;
}

static int shorter(const void *x, const void *y)
{
    int64_t a = ((const struct hb_point *)x)->p.L, b = ((const struct hb_point *)y)->p.L;
    return a < b ? -1 : a > b;
}

int hb_sweep_plan(const struct sweep *s, json_t *planning)
{
    static struct hb_point pts[HB_PLAN_POINTS];
    struct hb_measure_opts o = { .mem_bytes = hb_default_mem_limit(),
                                 .sample = { .min_samples = HB_MIN_SAMPLES,
                                             .max_samples = HB_MAX_SAMPLES } };
    for (int i = 0; i < hb_registry_count() && !hb_interrupted(); i++) {
        const struct hb_impl *im = hb_registry_at(i)->impl;
        char what[HB_NAME_MAX + 32];
        double took = 0;
        if (!im || im->op != HB_LONGCONV || strcmp(im->device, "cpu")) continue;
        int n = fft_problems(s, im->name, pts, HB_PLAN_POINTS);
        if (!n) continue;
        qsort(pts, (size_t)n, sizeof *pts, shorter);   // the limit cuts off the longest
        snprintf(what, sizeof what, "planning of %s", im->name);
        hb_sweep_progress(s, what);
        o.time_limit_s = fmin(PLANNING_LIMIT_S, fmax(hb_sweep_left(s) / 3, 1));
        int rc = hb_plan_points(pts, n, &o, &took);
        if (rc) return rc;
        json_object_set_new(planning, im->name, json_real(took));
    }
    return 0;
}
