// plotdata_side.c: data files of figures that stand beside each other what was measured in
// different places: attention over Hyena on every machine, and the peers over ours.
#include <math.h>
#include <string.h>

#include "peers.h"
#include "plot.h"

enum { MAX_SIDE = 32 };

// --- attention over hyena, every machine ---------------------------------------------------------

static const char *chip_of(const struct hb_study *st, const struct hb_setting *at)
{
    const char *chip = hb_results_chip(&st->r, at->machine, hb_on_gpu(at->device));
    return strncmp(chip, "NVIDIA ", 7) ? chip : chip + 7;  // the key is narrow
}

static const struct hb_crossover *crossing_of(const struct hb_study *st, const struct hb_series *a,
                                              const struct hb_series *h)
{
    for (size_t i = 0; i < st->x.n; i++)
        if (st->x.c[i].a == a && st->x.c[i].b == h && st->x.c[i].metric == HB_METRIC_TIME)
            return &st->x.c[i];
    return NULL;
}

struct side {
    struct hb_text names, body, crossings;  // owned
    struct hb_range x, y;
    int curves, crosses, groups;
    const struct hb_setting *last;          // the setting, but for the pass, of the last curve
};

// look: 10 for each setting, which gives the colour, and 1 for backward, which gives the dash.
static void side_curve(const struct hb_fig_in *in, const struct hb_setting *at, struct side *f)
{
    const struct hb_series *a = hb_series_best(&in->st->set, at, HB_MHA),
                           *h = hb_series_best(&in->st->set, at, HB_HYENA);
    const struct hb_crossover *c = a && h ? crossing_of(in->st, a, h) : NULL;
    if (!c || f->curves == MAX_SIDE) return;
    if (!f->last || strcmp(f->last->machine, at->machine) || f->last->dtype != at->dtype ||
        f->last->D != at->D)
        f->groups++;
    f->last = at;
    const bool crosses = c->x.kind == HB_CROSS_SINGLE || c->x.kind == HB_CROSS_MULTIPLE;
    struct hb_words star;
    if (crosses) snprintf(star.s, sizeof star.s, "L* %s", hb_str_len(c->x.L_star).s);
    else if (c->x.kind == HB_CROSS_TIE) snprintf(star.s, sizeof star.s, "tie");
    else
        snprintf(star.s, sizeof star.s, "%s faster everywhere",
                 c->x.kind == HB_CROSS_NONE_B ? "Hyena" : "attention");
    hb_text_add(&f->names, "\"side\" \"%s, %s, D %lld, %s: %s\" %d\n", chip_of(in->st, at),
                hb_dtype_str(at->dtype), (long long)at->D,
                at->pass == HB_PASS_BWD ? "backward" : "forward", star.s,
                10 * (f->groups - 1) + (at->pass == HB_PASS_BWD));
    hb_dat_block(&f->body, "s%02d: L, time(%s) / time(%s), low, high", ++f->curves, a->impl,
                 h->impl);
    for (size_t k = 0; k < a->n; k++) {
        const struct hb_ratio q = hb_cell_ratio(a->cell[k], hb_series_at(h, a->cell[k]->pt.p.L));
        if (!isfinite(q.r)) continue;
        hb_text_add(&f->body, "%lld %.17g %.17g %.17g\n", (long long)a->cell[k]->pt.p.L, q.r,
                    q.ci95.lo, q.ci95.hi);
        hb_range_add(&f->x, (double)a->cell[k]->pt.p.L);
        hb_range_add(&f->y, q.r);
    }
    if (crosses) {
        hb_text_add(&f->crossings, "%.17g %.17g %.17g %d\n", c->x.L_star, c->x.ci95.lo,
                    c->x.ci95.hi, f->curves);
        f->crosses++;
    }
}

// Passes of one setting follow each other, so that they share a colour.
static void side_curves(const struct hb_fig_in *in, const char *machine, struct side *f)
{
    const struct hb_series_set *set = &in->st->set;
    for (size_t i = 0; i < set->n; i++) {
        struct hb_setting at = set->s[i].set;
        if ((i && !hb_setting_cmp(&at, &set->s[i - 1].set)) || strcmp(at.machine, machine) ||
            at.scope != HB_SCOPE_OPERATOR || at.pass != HB_PASS_FWD || at.B != 1)
            continue;
        side_curve(in, &set->s[i].set, f);
        at.pass = HB_PASS_BWD;
        for (size_t k = 0; k < set->n; k++)
            if (!hb_setting_cmp(&at, &set->s[k].set)) {
                side_curve(in, &set->s[k].set, f);
                break;
            }
    }
}

static void side_meta(const struct hb_fig_in *in, const char *sub, const char *ylabel,
                      struct hb_range x, struct hb_range y, struct hb_text *dat)
{
    hb_dat_block(dat, "meta");
    hb_dat_meta(dat, "title", "%s", in->fig->title);
    hb_dat_meta(dat, "sub", "%s", sub);
    hb_dat_meta(dat, "ylabel", "%s", ylabel);
    hb_dat_meta(dat, "xmin", "%.17g", x.lo);
    hb_dat_meta(dat, "xmax", "%.17g", x.hi);
    hb_dat_meta(dat, "ymin", "%.17g", y.lo);
    hb_dat_meta(dat, "ymax", "%.17g", y.hi);
}

int hb_fig_crossovers(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    struct side f = {.x = {INFINITY, -INFINITY}, .y = {INFINITY, -INFINITY}};
    bool gpu = false;
    for (size_t i = 0; i < in->st->set.n; i++) gpu = gpu || hb_on_gpu(in->st->set.s[i].set.device);
    for (size_t m = 0; m < in->st->n_machines; m++) side_curves(in, in->st->machine[m], &f);
    if (!gpu && in->st->n_machines < 2)
        snprintf(why, cap, "results of one machine, without a GPU: nothing to set beside it");
    else if (!f.curves) snprintf(why, cap, "no machine has both an mha and a hyena at B 1");
    else {
        side_meta(in, "Whole layers, one sequence at a time: the best attention against Hyena with "
                      "its best convolution. Bars: 95 % interval",
                  "time(attention) / time(Hyena)", f.x, f.y, dat);
        hb_dat_meta(dat, "above", "Hyena is faster");
        hb_dat_meta(dat, "below", "attention is faster");
        hb_dat_block(dat, "series: -, label, look");
        hb_text_add(dat, "%s\n\n%s", f.names.s, f.body.s);
        hb_dat_block(dat, "crossings: L*, low, high, curve");
        hb_text_add(dat, "%s", f.crosses ? f.crossings.s : "NaN NaN NaN NaN\n");
    }
    dat->failed = dat->failed || f.names.failed || f.body.failed || f.crossings.failed;
    hb_text_free(&f.names);
    hb_text_free(&f.body);
    hb_text_free(&f.crossings);
    return hb_text_done(dat);
}

// --- the peers over ours -------------------------------------------------------------------------

// Median in ms of our GPU convolution `impl` at the peer's shape; NAN: none.
static double ours_ms(const struct hb_fig_in *in, const char *impl, const struct hb_peer *p,
                      enum hb_pass pass)
{
    for (size_t i = 0; i < in->st->set.n; i++) {
        const struct hb_series *s = &in->st->set.s[i];
        if (strcmp(s->set.machine, in->machine) || !hb_on_gpu(s->set.device) ||
            strcmp(s->impl, impl) || s->set.pass != pass ||
            s->set.mode != HB_MODE_COLD || s->set.dtype != p->dtype || s->set.B != p->B ||
            s->set.D != p->D)
            continue;
        const double ns = hb_cell_value(hb_series_at(s, p->L), HB_METRIC_TIME);
        if (isfinite(ns)) return ns * 1e-6;
    }
    return NAN;
}

// The peers' times over those of `impl`; goal: the ratio that is wanted.
static int peers_over(const struct hb_fig_in *in, const char *impl, const char *goal,
                      struct hb_text *dat, char *why, size_t cap)
{
    static const struct { const char *what, *label; bool back; } curves[] = {
        {"torchfft", "torch.fft, forward", false}, {"torchfft", "torch.fft, backward", true},
        {"ffc", "FlashFFTConv, forward", false}, {"ffc", "FlashFFTConv, backward", true}};
    struct hb_peers p;
    struct hb_text body = {0}, names = {0};
    struct hb_range x = {INFINITY, -INFINITY}, y = {INFINITY, -INFINITY};
    if (hb_peers_load(&p)) {
        snprintf(why, cap, "%s", hb_error());
        hb_error_clear();
        return 0;
    }
    int n = 0;
    for (size_t k = 0; k < sizeof curves / sizeof *curves; k++) {
        struct hb_text rows = {0};
        for (size_t i = 0; i < p.n; i++) {
            const struct hb_peer *q = &p.p[i];
            if (strcmp(q->what, curves[k].what) || !q->causal || q->dtype != HB_F16 ||
                (isnan(q->error) || q->error > 0.1) == !strcmp(q->what, "ffc"))
                continue;
            const double ms = ours_ms(in, impl, q, curves[k].back ? HB_PASS_BWD : HB_PASS_FWD);
            const double ratio = (curves[k].back ? q->bwd_ms : q->fwd_ms) / ms;
            if (!isfinite(ratio)) continue;
            hb_text_add(&rows, "%lld %.17g %.17g %.17g\n", (long long)q->M, ratio, ratio, ratio);
            hb_range_add(&x, (double)q->M);
            hb_range_add(&y, ratio);
        }
        if (rows.n) {
            hb_text_add(&names, "\"side\" \"%s\" %d\n", curves[k].label,
                        10 * (int)(k / 2) + curves[k].back);
            hb_dat_block(&body, "s%02d: M, time(%s) / time(%s)", ++n, curves[k].what, impl);
            hb_text_add(&body, "%s", rows.s);
        }
        body.failed = body.failed || rows.failed;
        hb_text_free(&rows);
    }
    if (x.lo < x.hi) {
        char what[128], ratio[128];
        snprintf(what, sizeof what, "One H100 each, causal, f16, B and D as in the tables; above 1 "
                                    "%s is faster", impl);
        snprintf(ratio, sizeof ratio, "time(peer) / time(%s)", impl);
        side_meta(in, what, ratio, x, y, dat);
        hb_dat_meta(dat, "xlabel", "length of the transform M (sequence length L = M/2)");
        hb_dat_meta(dat, "goal", "%s", goal);
        hb_dat_block(dat, "series: -, label, look");
        hb_text_add(dat, "%s\n\n%s", names.s, body.s);
    } else snprintf(why, cap, "%s was not timed at two of the peers' sizes", impl);
    dat->failed = dat->failed || body.failed || names.failed;
    hb_text_free(&body);
    hb_text_free(&names);
    hb_peers_free(&p);
    return hb_text_done(dat);
}

int hb_fig_peers_cufft(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    return peers_over(in, "longconv_cufft_cuda", "1.5", dat, why, cap);
}

int hb_fig_peers_fused(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap)
{
    return peers_over(in, "longconv_fused_cuda", "3", dat, why, cap);
}
