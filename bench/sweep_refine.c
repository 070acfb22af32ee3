// sweep_refine.c: where to measure next so that a crossover becomes sharper.
//
// Method    the curves of a and b at all lengths measured so far; the last crossing's bracket
//           (stats.h, hb_cross) is bisected at its geometric mean, rounded to a multiple of 16:
//           most of these lengths are no powers of two.
// Ends      no crossing in range; the bracket is narrower than 2 %; there is no length left between
//           its ends.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sweep.h"

#define NARROW 1.02
enum { ROUND_TO = 16 };

static const struct sweep_group *group_of(const struct sweep *s, const struct sweep_refine *r)
{
    for (int g = 0; g < s->file.n_groups; g++)
        if (!strcmp(s->file.groups[g].id, r->group)) return &s->file.groups[g];
    return NULL;
}

enum hb_pass hb_sweep_refine_pass(const struct sweep *s, const struct sweep_refine *r)
{
    const struct sweep_group *g = group_of(s, r);
    if (r->pass >= 0) return (enum hb_pass)r->pass;
    for (int p = 0; g && p < HB_PASS_COUNT; p++)
        if (g->set.pass[p]) return (enum hb_pass)p;
    return HB_PASS_FWD;
}

struct sweep_settings hb_sweep_refine_set(const struct sweep *s, const struct sweep_refine *r)
{
    struct sweep_settings set = group_of(s, r)->set;     // the reader checked that it is there
    if (r->dtype >= 0) set.dtype = (enum hb_dtype)r->dtype;
    return set;
}

// Is this measured point one of the two curves (same setting but for length)?
static bool on_curve(const struct sweep_item *it, const struct hb_point *like, int64_t priority)
{
    const struct hb_point *pt = &it->pt[0];
    return it->n == 1 && it->priority <= priority && it->state == ITEM_DONE
        && it->status && !strcmp(it->status, "ok")
        && !strcmp(pt->impl, like->impl) && pt->pass == like->pass && pt->mode == like->mode
        && pt->p.B == like->p.B && pt->p.D == like->p.D && pt->p.H == like->p.H
        && pt->p.dtype == like->p.dtype && pt->p.threads == like->p.threads
        && !strcmp(pt->device, like->device)
        && pt->p.oper.order == like->p.oper.order && pt->p.planning == like->p.planning;
}

static int by_length(const void *x, const void *y)
{
    double a = ((const struct hb_curve_pt *)x)->L, b = ((const struct hb_curve_pt *)y)->L;
    return a < b ? -1 : a > b;
}

// The lengths that both have. Returns how many, or HB_ERR_OOM.
static int common(const struct sweep *s, const struct hb_point *a, const struct hb_point *b,
                  enum sweep_what what, int64_t priority, struct hb_curve_pt **out)
{
    int n = 0;
    if (!(*out = calloc(s->n + 1, sizeof **out)))
        return hb_fail(HB_ERR_OOM, "no memory for a curve");
    for (size_t i = 0; i < s->n; i++)
        for (size_t k = 0; k < s->n && on_curve(&s->items[i], a, priority); k++) {
            const struct sweep_item *x = &s->items[i], *y = &s->items[k];
            if (!on_curve(y, b, priority) || y->pt[0].p.L != x->pt[0].p.L) continue;
            bool t = what == SWEEP_TIME;
            (*out)[n++] = (struct hb_curve_pt){
                .L = (double)x->pt[0].p.L, .a = t ? x->median_ns : x->mem_bytes,
                .a_lo = t ? x->lo_ns : x->mem_bytes, .a_hi = t ? x->hi_ns : x->mem_bytes,
                .b = t ? y->median_ns : y->mem_bytes,
                .b_lo = t ? y->lo_ns : y->mem_bytes, .b_hi = t ? y->hi_ns : y->mem_bytes };
            break;
        }
    qsort(*out, (size_t)n, sizeof **out, by_length);
    return n;
}

int hb_sweep_crossing(const struct sweep *s, const struct sweep_refine *r, int64_t priority,
                      struct hb_crossing *x)
{
    const struct sweep_settings set = hb_sweep_refine_set(s, r);
    struct hb_point a, b;
    struct hb_curve_pt *c = NULL;
    enum hb_pass pass = hb_sweep_refine_pass(s, r);
    *x = (struct hb_crossing){ .kind = HB_CROSS_TIE };
    int rc = hb_sweep_point(&set, r->a, ROUND_TO, pass, &a);
    if (!rc) rc = hb_sweep_point(&set, r->b, ROUND_TO, pass, &b);
    if (rc) return rc;
    int n = common(s, &a, &b, r->what, priority, &c);
    if (n >= 2) hb_cross(c, (size_t)n, 1, x);
    free(c);
    return n;
}

int64_t hb_sweep_refine_length(const struct sweep *s, const struct sweep_refine *r)
{
    struct hb_crossing x;
    if (hb_sweep_crossing(s, r, r->priority, &x) < 2) return 0;
    if (x.kind != HB_CROSS_SINGLE && x.kind != HB_CROSS_MULTIPLE) return 0;
    if (!(x.bracket_hi > NARROW * x.bracket_lo)) return 0;
    int64_t L = (int64_t)(round(sqrt(x.bracket_lo * x.bracket_hi) / ROUND_TO) * ROUND_TO);
    return (double)L > x.bracket_lo && (double)L < x.bracket_hi ? L : 0;
}
