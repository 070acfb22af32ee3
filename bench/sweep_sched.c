// sweep_sched.c: which points there are, in which order, and how long they will take.
//
// Prediction  execution = the nearest measured point of the same implementation and pass, scaled by
//             the work models' flop; else of its other passes; else of earlier runs on this
//             machine; else a typical rate. Child = start + planning and judge (scaled the same
//             way) + warm-up + sampling, at least min_samples executions, at most the point's
//             budget times the share of it that points have needed so far (many stop early because
//             their interval is narrow).
// Order       priority, then length, then the order of the file: implementations of one length run
//             side by side, and short lengths, which are cheap, come first.
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "outcome.h"
#include "sweep.h"

// Guesses until something is measured: start of a child, and what two cores of today do.
// A GPU: opening it, the inputs there, and its share of its arithmetic.
static const double START_S = 0.15, TYPICAL_FLOP_S = 5e10, TYPICAL_JUDGE_FLOP_S = 4e9;
static const double GPU_START_S = 1.5, GPU_FLOP_S = 5e13;
enum { WARM_RUNS = 2 };
#define WARM_S 0.05                    // hb_sample's own warm-up

// --- the list ------------------------------------------------------------------------------------

static struct hb_measure_opts options(const struct sweep_settings *s)
{
    return (struct hb_measure_opts){
        .sample = { .ci_target = s->ci_target, .budget_s = s->budget_s,
                    .min_samples = (int)s->min_samples,
                    .max_samples = (int)s->max_samples, .min_sample_s = HB_MIN_SAMPLE_S },
        .judge_flop = s->judge_flop, .time_limit_s = s->time_limit_s,
        .mem_bytes = (size_t)s->mem_bytes,
    };
}

static struct sweep_item *new_item(struct sweep *s)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        struct sweep_item *p = realloc(s->items, cap * sizeof *p);
        if (!p) { hb_fail(HB_ERR_OOM, "no memory for %zu points", cap); return NULL; }
        s->items = p;
        s->cap = cap;
    }
    struct sweep_item *it = &s->items[s->n];
    memset(it, 0, sizeof *it);
    it->rank = (int)s->n;
    it->refine = -1;
    return it;
}

int hb_sweep_add(struct sweep *s, const struct hb_point *pts, int n,
                 const struct sweep_settings *set, int group)
{
    struct sweep_item *it = new_item(s);
    if (!it) return HB_ERR_OOM;
    for (int i = 0; i < n; i++) it->pt[i] = pts[i];
    int rc = n == 1 ? hb_point_name(&pts[0], it->name, sizeof it->name) : 0;
    if (rc) return rc;
    if (n == 2) hb_pair_name(&pts[0], &pts[1], it->name, sizeof it->name);
    uint64_t groups = group >= 0 ? (uint64_t)1 << group : 0;
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->items[i].name, it->name)) {
            s->items[i].groups |= groups;
            if (set->priority < s->items[i].priority) s->items[i].priority = set->priority;
            if (set->time_limit_s > s->items[i].opts.time_limit_s)
                s->items[i].opts.time_limit_s = set->time_limit_s;
            return (int)i;
        }
    it->n = n;
    it->opts = options(set);
    it->priority = set->priority;
    it->groups = groups;
    return (int)s->n++;
}

int hb_sweep_point(const struct sweep_settings *set, const char *impl, int64_t L, enum hb_pass pass,
                   struct hb_point *pt)
{
    memset(pt, 0, sizeof *pt);
    snprintf(pt->impl, sizeof pt->impl, "%s", impl);
    snprintf(pt->device, sizeof pt->device, "%s", set->device);
    pt->p.B = set->B; pt->p.D = set->D; pt->p.L = L;
    pt->p.dtype = set->dtype;
    pt->p.planning = set->planning;
    pt->p.threads = (int)set->threads;
    pt->mode = set->mode;
    pt->pass = pass;
    pt->seed = (uint64_t)set->seed;
    hb_point_fit_op(pt, set->H, (int)set->order);
    return hb_point_resolve(pt);
}

static int at_least_one(int n) { return n > 1 ? n : 1; }

int hb_sweep_variants(const struct sweep_settings *set)
{
    return at_least_one(set->n_devices) * at_least_one(set->n_dtypes)
         * at_least_one(set->n_modes);
}

struct sweep_settings hb_sweep_variant(const struct sweep_settings *set, int i)
{
    struct sweep_settings one = *set;
    int modes = at_least_one(set->n_modes), dtypes = at_least_one(set->n_dtypes);
    if (set->n_modes) one.mode = set->modes[i % modes];
    if (set->n_dtypes) one.dtype = set->dtypes[i / modes % dtypes];
    if (set->n_devices)
        memcpy(one.device, set->devices[i / modes / dtypes], sizeof one.device);
    return one;
}

// An implementation of one of several devices is left out on the others.
static bool elsewhere(const struct sweep_settings *set, const char *impl)
{
    const char *device = set->n_devices > 1 ? hb_impl_device(impl) : NULL;
    return device && strncmp(set->device, device, strlen(device));
}

static bool wanted(const char *glob, const char *impl) { return !glob || !fnmatch(glob, impl, 0); }

// Puts the file and the place in front of the message that is set.
static int in_place(const struct sweep *s, const char *kind, const char *id, int code)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", hb_error());
    hb_error_clear();
    return hb_fail(code, "%s: %s '%s': %s", s->path, kind, id, text);
}

static int expand_group(struct sweep *s, int g, const char *glob, const int64_t *lengths,
                        int n_lengths)
{
    const struct sweep_group *gr = &s->file.groups[g];
    const int n = gr->n_impls, variants = hb_sweep_variants(&gr->set);
    for (int l = 0; l < n_lengths; l++)
        for (int p = 0; p < HB_PASS_COUNT; p++)
            for (int k = 0; k < variants * n; k++) {
                struct hb_point pt;
                struct sweep_settings set = hb_sweep_variant(&gr->set, k / n);
                const char *impl = gr->impls[k % n];
                if (!set.pass[p] || !wanted(glob, impl) || elsewhere(&set, impl))
                    continue;
                int rc = hb_sweep_point(&set, impl, lengths[l], (enum hb_pass)p, &pt);
                if (!rc) rc = hb_sweep_add(s, &pt, 1, &set, g);
                if (rc < 0) return in_place(s, "group", gr->id, rc);
            }
    return 0;
}

static int expand_pair(struct sweep *s, const struct sweep_pair *pr, const int64_t *lengths,
                       int n_lengths)
{
    const int variants = hb_sweep_variants(&pr->set);
    for (int k = 0; k < n_lengths * HB_PASS_COUNT * variants; k++) {
        struct hb_point pt[2];
        const struct sweep_settings set = hb_sweep_variant(&pr->set, k % variants);
        const int64_t L = lengths[k / variants / HB_PASS_COUNT];
        const enum hb_pass pass = (enum hb_pass)(k / variants % HB_PASS_COUNT);
        if (!set.pass[pass]) continue;
        int rc = hb_sweep_point(&set, pr->a, L, pass, &pt[0]);
        if (!rc) rc = hb_sweep_point(&set, pr->b, L, pass, &pt[1]);
        if (!rc && strcmp(pt[0].device, pt[1].device))
            rc = hb_fail(HB_ERR_INPUT, "%s runs on %s, %s on %s: only what runs on one device can "
                         "be alternated", pr->a, pt[0].device, pr->b, pt[1].device);
        if (!rc) rc = hb_sweep_add(s, pt, 2, &set, -1);
        if (rc < 0) return in_place(s, "pair of", pr->a, rc);
        snprintf(s->items[rc].title, sizeof s->items[rc].title, "%s", pr->title);
    }
    return 0;
}

static int expand_refine(struct sweep *s, int r)
{
    struct sweep_item *it = new_item(s);
    if (!it) return HB_ERR_OOM;
    const struct sweep_refine *rf = &s->file.refines[r];
    snprintf(it->name, sizeof it->name, "refine %s, %s against %s, %s", rf->group, rf->a, rf->b,
             rf->what == SWEEP_TIME ? "time" : "memory");
    it->refine = r;
    it->priority = rf->priority;
    s->n++;
    return 0;
}

int hb_sweep_expand(struct sweep *s, const char *glob, const int64_t *lengths, int n_lengths)
{
    int rc = 0;
    for (int g = 0; !rc && g < s->file.n_groups; g++) {
        const struct sweep_settings *set = &s->file.groups[g].set;
        rc = expand_group(s, g, glob, n_lengths ? lengths : set->lengths,
                          n_lengths ? n_lengths : set->n_lengths);
    }
    for (int p = 0; !rc && p < s->file.n_pairs; p++) {
        const struct sweep_pair *pr = &s->file.pairs[p];
        if (!wanted(glob, pr->a) && !wanted(glob, pr->b)) continue;
        rc = expand_pair(s, pr, n_lengths ? lengths : pr->set.lengths,
                         n_lengths ? n_lengths : pr->set.n_lengths);
    }
    if (!rc && !s->n)
        return hb_fail(HB_ERR_INPUT,
                       "%s: no point is left: --impl '%s' matches none of its implementations",
                       s->path, glob ? glob : "*");
    for (int r = 0; !rc && s->refine && r < s->file.n_refines; r++)
        if (wanted(glob, s->file.refines[r].a) && wanted(glob, s->file.refines[r].b))
            rc = expand_refine(s, r);
    return rc;
}

static int by_order(const void *x, const void *y)
{
    const struct sweep_item *a = x, *b = y;
    if (a->priority != b->priority) return a->priority < b->priority ? -1 : 1;
    if ((a->refine >= 0) != (b->refine >= 0)) return a->refine >= 0 ? 1 : -1;
    if (a->pt[0].p.L != b->pt[0].p.L) return a->pt[0].p.L < b->pt[0].p.L ? -1 : 1;
    return a->rank - b->rank;
}

void hb_sweep_sort(struct sweep *s)
{
    if (s->n) qsort(s->items, s->n, sizeof *s->items, by_order);
}

// --- how long ------------------------------------------------------------------------------------

static bool on_gpu(const struct hb_point *pt) { return strncmp(pt->device, "cpu", 3) != 0; }
static double start_of(const struct hb_point *pt) { return on_gpu(pt) ? GPU_START_S : START_S; }

static double flop_of(const struct hb_point *pt) { return fmax(hb_point_work(pt).flop, 1e3); }

// How unlike two points are: near amounts of work are alike; another pass, other threads are not.
static double distance(const struct hb_point *a, const struct hb_point *b)
{
    if (strcmp(a->impl, b->impl)) return INFINITY;
    return fabs(log(flop_of(a) / flop_of(b))) + (a->pass == b->pass ? 0 : 20)
         + (a->p.threads == b->p.threads ? 0 : 40) + (a->p.dtype == b->p.dtype ? 0 : 10);
}

// The measured point most like pt, of this run or, failing that, of an earlier one.
enum source { FROM_NOWHERE, FROM_PAST, FROM_THIS_RUN };
static enum source nearest(const struct sweep *s, const struct hb_point *pt, struct sweep_past *out)
{
    double best = INFINITY;
    for (size_t i = 0; i < s->n; i++) {
        const struct sweep_item *it = &s->items[i];
        if (it->n != 1 || it->state != ITEM_DONE || !(it->median_ns > 0)) continue;
        double d = distance(&it->pt[0], pt);
        if (d < best) {
            best = d;
            *out = (struct sweep_past){ it->pt[0], it->median_ns, it->setup_s };
        }
    }
    if (best < INFINITY) return FROM_THIS_RUN;
    for (size_t i = 0; i < s->n_past; i++) {
        double d = distance(&s->past[i].pt, pt);
        if (d < best) { best = d; *out = s->past[i]; }
    }
    return best < INFINITY ? FROM_PAST : FROM_NOWHERE;
}

// *known: this run has measured it; the past may have been another time of the day.
static double exec_of(const struct sweep *s, const struct hb_point *pt, bool *known)
{
    struct sweep_past like;
    enum source from = nearest(s, pt, &like);
    *known = *known && from == FROM_THIS_RUN;
    return from ? like.median_ns * 1e-9 * flop_of(pt) / flop_of(&like.pt)
                : flop_of(pt) / (on_gpu(pt) ? GPU_FLOP_S : TYPICAL_FLOP_S);
}

double hb_sweep_predict_exec(const struct sweep *s, const struct sweep_item *it, bool *known)
{
    double sum = 0;
    *known = true;
    for (int i = 0; i < it->n; i++) sum += exec_of(s, &it->pt[i], known);
    return sum;
}

// Planning and judge. References are cached, so a second implementation of the same operator
// may pay less.
static double setup_of(const struct sweep *s, const struct hb_point *pt)
{
    struct sweep_past like;
    double flop = flop_of(pt);
    if (nearest(s, pt, &like) && like.setup_s > 0)
        return like.setup_s * fmin(fmax(flop / flop_of(&like.pt), 0.5), 8);
    return fmin(flop, HB_JUDGE_FLOP) / TYPICAL_JUDGE_FLOP_S;
}

double hb_sweep_predict(const struct sweep *s, const struct sweep_item *it)
{
    bool known;
    if (it->refine >= 0) return 0;       // its points are counted when they are known
    double exec = hb_sweep_predict_exec(s, it, &known), setup = 0, warm = 0;
    for (int i = 0; i < it->n; i++) {
        setup += setup_of(s, &it->pt[i]);
        warm += WARM_S;
    }
    double sampling = fmax(it->opts.sample.min_samples * exec,
                           it->opts.sample.budget_s * s->sample_share);
    return start_of(&it->pt[0]) + setup + fmax(warm, WARM_RUNS * exec) + sampling;
}

bool hb_sweep_hopeless(const struct sweep *s, const struct sweep_item *it)
{
    bool known;
    if (it->refine >= 0) return false;
    double least = (it->opts.sample.min_samples + WARM_RUNS) * hb_sweep_predict_exec(s, it, &known);
    return least > (known ? 1.1 : 20) * it->opts.time_limit_s;   // 20: a guess is that wrong
}

double hb_sweep_remaining(const struct sweep *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct sweep_item *it = &s->items[i];
        if (it->state != ITEM_PENDING) continue;
        sum += hb_sweep_hopeless(s, it) ? start_of(&it->pt[0])
                                        : fmin(hb_sweep_predict(s, it), it->opts.time_limit_s);
    }
    return sum;
}

// --- what came out -------------------------------------------------------------------------------

static const char *constant_status(const char *s)
{
    const char *known = hb_outcome(HB_ENDS_RECORD, s);
    return known ? known : "crashed";
}

static double field(const json_t *e, const char *key)
{
    return json_number_value(json_object_get(e, key));
}
static double end_of(const json_t *e, const char *key, size_t i)
{
    return json_number_value(json_array_get(json_object_get(e, key), i));
}

bool hb_sweep_restore(struct sweep_item *it, const json_t *doc)
{
    const json_t *e = json_array_get(json_object_get(doc, "benchmarks"), 0);
    const json_t *p = json_array_get(json_object_get(doc, "hb_pairs"), 0);
    const json_t *skip = json_array_get(json_object_get(doc, "hb_skips"), 0);
    it->status = e || p ? "ok"
                        : constant_status(json_string_value(json_object_get(skip, "status")));
    if (!strcmp(it->status, "dropped")) { it->status = NULL; return false; }
    it->state = ITEM_DONE;
    it->median_ns = field(e, "hb_median_ns");
    it->lo_ns = end_of(e, "hb_ci95_ns", 0);
    it->hi_ns = end_of(e, "hb_ci95_ns", 1);
    bool device = json_object_get(e, "hb_device_peak_bytes") != NULL;
    it->mem_bytes = field(e, device ? "hb_device_peak_bytes" : "hb_alloc_peak_bytes");
    it->setup_s = field(e, "hb_setup_s");
    it->sampling_s = field(e, "hb_wall_ns") * 1e-9;
    it->ratio = field(p, "ratio");
    it->ratio_lo = end_of(p, "ratio_ci95", 0);
    it->ratio_hi = end_of(p, "ratio_ci95", 1);
    // A lower bound of its time, so that longer ones are not tried in vain.
    if (!strcmp(it->status, "timeout") && it->n == 1)
        it->median_ns = 1e9 * it->opts.time_limit_s / (it->opts.sample.min_samples + WARM_RUNS);
    return true;
}

void hb_sweep_learn(struct sweep *s, struct sweep_item *it, const struct hb_measured *m)
{
    hb_sweep_restore(it, m->doc);
    it->elapsed_s = m->elapsed_s;
    double exec = it->median_ns * 1e-9, budget = it->opts.sample.budget_s;
    if (strcmp(it->status, "ok") || it->n != 1 || it->opts.sample.min_samples * exec > budget)
        return;
    double share = (it->sampling_s - fmax(WARM_S, WARM_RUNS * exec)) / budget;
    s->sample_share += 0.1 * (fmin(fmax(share, 0), 1.5) - s->sample_share);
}
