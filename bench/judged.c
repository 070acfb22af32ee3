// judged.c: float64 references for the outputs of a point (contract: judged.h).
//
// First the layout: which elements of which output are judged, in which order their references
// stand. Then the references are computed in that very order, or read from the cache: a file named
// by the hash of all inputs, the shape and the sample, so that implementations of one operator
// share it.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "judged.h"
#include "../impls/core/oper.h"
#include "../impls/core/rng.h"

enum { RUN = 1024 };                   // elements looked at together
enum { CACHE_MAX_BYTES = 16 << 20 };   // larger references cost more disk than they save time

// --- what to judge -------------------------------------------------------------------------------

enum { MAX_ROWS = 256, FEW_LANES = 3, STREAM_ROWS = 1000, STREAM_LANES = 1001 };

// n of 0..total-1, ascending: the first, the last, and one from each stratum between.
static int64_t *strata(int64_t total, int64_t n, uint64_t seed, uint64_t stream)
{
    int64_t *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; x && i < n; i++) {
        int64_t lo = (int64_t)((double)i * (double)total / (double)n);
        int64_t hi = (int64_t)((double)(i + 1) * (double)total / (double)n);
        if (i == 0) x[i] = 0;
        else if (i == n - 1) x[i] = total - 1;
        else
            x[i] = lo + (int64_t)(hb_rng_u64(seed, stream, (uint64_t)i) %
                                  (uint64_t)(hi > lo ? hi - lo : 1));
    }
    return x;
}

static int64_t clamp(double x, int64_t lo, int64_t hi)
{
    return x <= (double)lo ? lo : x >= (double)hi ? hi : (int64_t)x;
}

// longconv: a lane is a channel with all its batches; attention: a head of one batch.
static int choose_lanes(const struct hb_point *pt, double flop, struct hb_sample *s)
{
    const struct hb_problem *p = &pt->p;
    double L = (double)p->L;
    double lane, row;  // flop of the judge for one lane, and for one row of one lane
    int64_t total;
    if (p->op == HB_LONGCONV) {
        lane = L * (L + 1) * (double)p->B * (p->backward ? 3 : 1);
        row = 2 * L * (double)p->B * (p->backward ? 3 : 1);
        total = p->D;
    } else {
        double P = (double)(p->D / p->H);
        lane = 2 * P * L * (L + 1) * (p->backward ? 4.5 : 1);
        row = 4 * P * L * (p->backward ? 3.5 : 1);
        total = p->B * p->H;
    }
    s->on = flop > 0 && lane * (double)total > flop;
    s->n_lanes = s->on ? clamp(flop / lane, FEW_LANES < total ? FEW_LANES : total, total) : total;
    bool rows = s->on && lane * 2 > flop;
    if (rows)
        s->n_rows = clamp(flop / (row * (double)s->n_lanes), p->L < 16 ? p->L : 16,
                          p->L < MAX_ROWS ? p->L : MAX_ROWS);
    s->lanes = strata(total, s->n_lanes, pt->seed, STREAM_LANES);
    if (rows) s->rows = strata(p->L, s->n_rows, pt->seed, STREAM_ROWS);
    return s->lanes && (!rows || s->rows) ? 0
                                          : hb_fail(HB_ERR_OOM, "out of memory: sample of rows");
}

static void choose_prefix(const struct hb_point *pt, double flop, struct hb_sample *s)
{
    struct hb_point part = *pt;  // the judge's cost: direct convolution, causal attention
    snprintf(part.p.inner, sizeof part.p.inner, "%s",
             pt->p.op == HB_HYENA ? "longconv_direct" : "attention_flash");
    part.pass = pt->p.backward ? HB_PASS_FWDBWD : HB_PASS_FWD;
    part.p.oper.lmax = hb_oper_resolve(&pt->p).lmax;
    if (flop > 0 && hb_point_work(&part).flop > flop) part.p.B = 1;
    while (flop > 0 && part.p.L > 16 && hb_point_work(&part).flop > flop)
        part.p.L = (part.p.L + 1) / 2;
    s->batches = part.p.B;
    s->prefix = part.p.L;
    s->on = s->batches < pt->p.B || s->prefix < pt->p.L;
}

int hb_sample_choose(const struct hb_point *pt, double judge_flop, struct hb_sample *s)
{
    memset(s, 0, sizeof *s);
    if (pt->p.op == HB_LONGCONV || pt->p.op == HB_ATTENTION) return choose_lanes(pt, judge_flop, s);
    choose_prefix(pt, judge_flop, s);
    return 0;
}

void hb_sample_free(struct hb_sample *s)
{
    free(s->lanes);
    free(s->rows);
    memset(s, 0, sizeof *s);
}

// --- layout --------------------------------------------------------------------------------------

static struct hb_judged_out *add_out(struct hb_judged *j, const struct hb_inputs *in,
                                     const char *what)
{
    struct hb_judged_out *o = &j->out[j->n_out];
    o->buf = hb_inputs_find(in, what);
    if (!o->buf) {
        hb_fail(HB_ERR_RUN, "judge: the inputs have no tensor '%s'", what);
        return NULL;
    }
    j->n_out++;
    return o;
}

// Elements [at, at + n) of o are judged against the next n references (zero: against zeros).
static int add_seg(struct hb_judged *j, struct hb_judged_out *o, int64_t at, int64_t n, bool zero)
{
    if (o->n_segs == o->cap_segs) {
        int64_t cap = o->cap_segs ? 2 * o->cap_segs : 16;
        struct hb_seg *segs = realloc(o->segs, (size_t)cap * sizeof *segs);
        if (!segs) return hb_fail(HB_ERR_OOM, "out of memory: list of judged rows");
        o->segs = segs;
        o->cap_segs = cap;
    }
    o->segs[o->n_segs++] = (struct hb_seg){ at, n, zero ? -1 : j->n_ref };
    if (!zero) j->n_ref += n;
    return 0;
}

// The judged rows of one lane's (L,width) part of o that begins at `at`; width 1 for longconv, P
// for attention.
static int add_rows(struct hb_judged *j, struct hb_judged_out *o, int64_t at, int64_t L,
                    int64_t width)
{
    const struct hb_sample *s = &j->sample;
    if (!s->n_rows) return add_seg(j, o, at, L * width, false);
    int rc = 0;
    for (int64_t i = 0; i < s->n_rows && !rc; i++)
        rc = add_seg(j, o, at + s->rows[i] * width, width, false);
    return rc;
}

static int layout_conv(struct hb_judged *j, const struct hb_problem *p, const struct hb_inputs *in)
{
    int64_t L = p->L;
    const struct hb_longconv_io *io = &in->io.conv;
    const struct hb_sample *s = &j->sample;
    struct hb_judged_out *y = add_out(j, in, "y");
    struct hb_judged_out *du = p->backward ? add_out(j, in, "du") : NULL;
    struct hb_judged_out *dh = p->backward ? add_out(j, in, "dh") : NULL;
    struct hb_judged_out *dd = p->backward ? add_out(j, in, "dd") : NULL;
    if (!y || (p->backward && (!du || !dh || !dd))) return HB_ERR_RUN;
    int rc = 0;
    for (int64_t i = 0; i < s->n_lanes && !rc; i++) {
        int64_t c = s->lanes[i];
        for (int64_t b = 0; b < p->B && !rc; b++) {
            rc = add_rows(j, y, b * io->sy.b + c * io->sy.c, L, 1);
            if (!rc && du) rc = add_seg(j, du, b * io->sdu.b + c * io->sdu.c, L, false);
        }
        if (!rc && dh) rc = add_seg(j, dh, c * L, L, false);
        if (!rc && dd) rc = add_seg(j, dd, c, 1, false);
    }
    return rc;
}

static double rms_of(const struct hb_inputs *in, const char *what)
{
    const struct hb_buf *b = hb_inputs_find(in, what);
    double sum = 0;
#pragma omp parallel for reduction(+ : sum)
    for (int64_t at = 0; at < b->n; at += RUN) {
        double x[RUN];
        const int64_t n = b->n - at < RUN ? b->n - at : RUN;
        hb_buf_load(b, at, n, x);
        for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    }
    return sqrt(sum / (double)b->n);
}

static int layout_attention(struct hb_judged *j, const struct hb_problem *p,
                            const struct hb_inputs *in)
{
    int64_t P = p->D / p->H, row = p->L * P;
    const struct hb_sample *s = &j->sample;
    struct hb_judged_out *y = add_out(j, in, "y");
    struct hb_judged_out *dq = p->backward ? add_out(j, in, "dq") : NULL;
    struct hb_judged_out *dk = p->backward ? add_out(j, in, "dk") : NULL;
    struct hb_judged_out *dv = p->backward ? add_out(j, in, "dv") : NULL;
    if (!y || (p->backward && (!dq || !dk || !dv))) return HB_ERR_RUN;
    if (p->backward) {  // at L = 1 softmax is constant: dq and dk are zero, their rounding is not
        double ds = rms_of(in, "dy") * rms_of(in, "v") * sqrt((double)dq->buf->n);
        dq->floor = ds * rms_of(in, "k");
        dk->floor = ds * rms_of(in, "q");
    }
    int rc = 0;
    for (int64_t i = 0; i < s->n_lanes && !rc; i++) {
        rc = add_rows(j, y, s->lanes[i] * row, p->L, P);
        if (!rc && p->backward) rc = add_rows(j, dq, s->lanes[i] * row, p->L, P);
        if (!rc && p->backward) rc = add_seg(j, dk, s->lanes[i] * row, row, false);
        if (!rc && p->backward) rc = add_seg(j, dv, s->lanes[i] * row, row, false);
    }
    return rc;
}

// The judged part first, in the layout that the judge writes: (batches, prefix, D); then zeros in
// du.
static int layout_oper(struct hb_judged *j, const struct hb_problem *p, const struct hb_inputs *in)
{
    const struct hb_sample *s = &j->sample;
    int64_t row = p->L * p->D, part = s->prefix * p->D;
    int rc = 0;
    struct hb_judged_out *y = add_out(j, in, "y");
    if (!y) return HB_ERR_RUN;
    for (int64_t b = 0; b < s->batches && !rc; b++) rc = add_seg(j, y, b * row, part, false);
    struct hb_judged_out *du = rc == 0 && p->backward ? add_out(j, in, "du") : NULL;
    if (!du) return p->backward ? HB_ERR_RUN : rc;
    for (int64_t b = 0; b < s->batches && !rc; b++) rc = add_seg(j, du, b * row, part, false);
    for (int64_t b = 0; b < p->B && !rc; b++)
        if (b >= s->batches || part < row)
            rc = add_seg(j, du, b * row + (b < s->batches ? part : 0),
                         row - (b < s->batches ? part : 0), true);
    for (int i = 0; i < in->n_params && !rc; i++) {
        if (!in->grads[i]) continue;
        char what[64];
        snprintf(what, sizeof what, "d:%.61s", in->tensors[i].name);
        struct hb_judged_out *d = add_out(j, in, what);
        rc = d ? add_seg(j, d, 0, d->buf->n, false) : HB_ERR_RUN;
    }
    return rc;
}

static int layout(struct hb_judged *j, const struct hb_problem *p, const struct hb_inputs *in)
{
    if (p->op == HB_LONGCONV) return layout_conv(j, p, in);
    return p->op == HB_ATTENTION ? layout_attention(j, p, in) : layout_oper(j, p, in);
}

// --- dy outside of the sample --------------------------------------------------------------------

// Every (L,width) block of dy keeps the sampled rows only.
static void keep_rows(const struct hb_sample *s, struct hb_buf *dy, int64_t L, int64_t width)
{
    for (int64_t at = 0; at < dy->n; at += L * width) {
        int64_t t = 0;
        for (int64_t i = 0; i < s->n_rows; i++) {
            hb_buf_zero(dy, at + t * width, (s->rows[i] - t) * width);
            t = s->rows[i] + 1;
        }
        hb_buf_zero(dy, at + t * width, (L - t) * width);
    }
}

static void sparsify(const struct hb_sample *s, const struct hb_problem *p,
                     const struct hb_inputs *in)
{
    struct hb_buf *dy = hb_inputs_find(in, "dy");
    if (!s->on || !p->backward || !dy) return;
    if (p->op == HB_LONGCONV || p->op == HB_ATTENTION) {
        if (s->n_rows) keep_rows(s, dy, p->L, p->op == HB_LONGCONV ? 1 : p->D / p->H);
        return;
    }
    int64_t row = p->L * p->D;
    for (int64_t b = 0; b < p->B; b++) {
        int64_t keep = b < s->batches ? s->prefix * p->D : 0;
        hb_buf_zero(dy, b * row + keep, row - keep);
    }
}

// --- the cache -----------------------------------------------------------------------------------

struct cache_head { char magic[8]; int64_t n; char sha256[72]; };
static const char cache_magic[8] = "hbjudge1";

int hb_judged_read(const char *path, double *ref, int64_t n)
{
    FILE *f = fopen(path, "rbe");
    if (!f) return HB_ERR_MISSING;
    struct cache_head h;
    char sha[65];
    bool ok = fread(&h, sizeof h, 1, f) == 1 && memcmp(h.magic, cache_magic, sizeof h.magic) == 0 &&
              h.n == n && fread(ref, sizeof *ref, (size_t)n, f) == (size_t)n && fgetc(f) == EOF;
    fclose(f);
    if (!ok) return HB_ERR_INPUT;
    hb_sha256(ref, (size_t)n * sizeof *ref, sha);
    return memcmp(sha, h.sha256, sizeof sha) == 0 ? 0 : HB_ERR_INPUT;
}

int hb_judged_write(const char *path, const double *ref, int64_t n)
{
    size_t payload = (size_t)n * sizeof *ref;
    char *all = malloc(sizeof(struct cache_head) + payload);
    if (!all) return hb_fail(HB_ERR_OOM, "out of memory: writing a judged reference");
    struct cache_head h = { .n = n };
    memcpy(h.magic, cache_magic, sizeof h.magic);
    hb_sha256(ref, payload, h.sha256);
    memcpy(all, &h, sizeof h);
    memcpy(all + sizeof h, ref, payload);
    int rc = hb_write_file(path, all, sizeof h + payload);
    free(all);
    return rc;
}

// The hash of everything that the references depend on. Implementation, device, threads and seed do
// not count.
static void cache_key(const struct hb_point *pt, const struct hb_inputs *in,
                      const struct hb_judged *j, char hex[65])
{
    const struct hb_problem *p = &pt->p;
    const struct hb_bufs *all = hb_inputs_bufs(in);
    struct hb_oper_opts o = hb_oper_resolve(p);
    struct { char sha[HB_MAX_BUFS + 2][65]; char text[512]; } k;
    memset(&k, 0, sizeof k);
    for (int i = 0; i < all->n; i++)
        if (all->b[i].role == HB_ROLE_IN) hb_sha256(all->b[i].data, all->b[i].bytes, k.sha[i]);
    if (j->sample.lanes)
        hb_sha256(j->sample.lanes, (size_t)j->sample.n_lanes * sizeof(int64_t), k.sha[HB_MAX_BUFS]);
    if (j->sample.rows)
        hb_sha256(j->sample.rows, (size_t)j->sample.n_rows * sizeof(int64_t),
                  k.sha[HB_MAX_BUFS + 1]);
    int64_t su = p->op == HB_LONGCONV    ? in->io.conv.su.b
                 : p->op == HB_ATTENTION ? in->io.attn.sq.t
                                         : 0;
    snprintf(
        k.text, sizeof k.text,
        "su %lld op %d dtype %d B %lld L %lld D %lld H %lld bwd %d order %d E %d W %d lmax %lld "
        "shift %.9g window %d package %d z %d long %d taps %d rope %d batches %lld prefix %lld",
        (long long)su, (int)p->op, (int)p->dtype, (long long)p->B, (long long)p->L,
        (long long)p->D, (long long)p->H, p->backward, o.order, o.emb_dim, o.filter_width,
        (long long)o.lmax, (double)o.shift, !o.no_window, o.package_layout, o.train_z, !o.no_long,
        o.short_taps, o.rope, (long long)j->sample.batches, (long long)j->sample.prefix);
    hb_sha256(&k, sizeof k, hex);
}

// --- what 16 bits cannot know --------------------------------------------------------------------

// dq and dk hold softmax's backward, P (dP - delta) with delta_t = dy_t . y_t. Where one weight is
// nearly 1 the two cancel, and the rounding of y (that of each product dy y, independent, here
// taken at two standard deviations) times k, or q, is what remains.
static void softmax_noise(struct hb_judged *j, const struct hb_inputs *in)
{
    const struct hb_judged_out *y = &j->out[0];
    const struct hb_buf *dy = hb_inputs_find(in, "dy");
    double sum = 0;
    for (int64_t k = 0; k < y->n_segs; k++)
        for (int64_t i = 0; i < y->segs[k].n; i++) {
            double x;
            hb_buf_load(dy, y->segs[k].at + i, 1, &x);
            x *= j->ref[y->segs[k].ref + i];
            sum += x * x;
        }
    for (int i = 1; i < j->n_out; i++) {
        const char *what = j->out[i].buf->what;
        if (!strcmp(what, "dq")) j->out[i].noise = 2 * sqrt(sum) * rms_of(in, "k");
        if (!strcmp(what, "dk")) j->out[i].noise = 2 * sqrt(sum) * rms_of(in, "q");
    }
}

// --- all of it -----------------------------------------------------------------------------------

static int references(const struct hb_point *pt, struct hb_inputs *in, const char *cache_dir,
                      struct hb_judged *j)
{
    size_t bytes = (size_t)j->n_ref * sizeof *j->ref;
    char path[4400] = "", hex[65];
    if (cache_dir && bytes <= CACHE_MAX_BYTES) {
        cache_key(pt, in, j, hex);
        snprintf(path, sizeof path, "%.4200s/%s.judged", cache_dir, hex);
        if (hb_judged_read(path, j->ref, j->n_ref) == 0) return 0;
    }
    int rc = hb_judged_compute(pt, in, j);
    if (rc || !path[0]) return rc;
    if (hb_mkdirs(cache_dir) || hb_judged_write(path, j->ref, j->n_ref))
        hb_error_clear();  // costs time only
    return 0;
}

int hb_judged_make(const struct hb_point *pt, struct hb_inputs *in, double judge_flop,
                   const char *cache_dir, struct hb_judged *j)
{
    memset(j, 0, sizeof *j);
    int rc = hb_sample_choose(pt, judge_flop, &j->sample);
    if (!rc) rc = layout(j, &pt->p, in);
    if (rc) return rc;
    sparsify(&j->sample, &pt->p, in);
    size_t bytes = (size_t)j->n_ref * sizeof *j->ref;
    j->ref = malloc(bytes);
    if (!j->ref) return hb_fail(HB_ERR_OOM, "out of memory: %zu bytes of judged references", bytes);
    rc = references(pt, in, cache_dir, j);
    if (!rc && pt->p.op == HB_ATTENTION && pt->p.backward) softmax_noise(j, in);
    return rc;
}

void hb_judged_free(struct hb_judged *j)
{
    hb_sample_free(&j->sample);
    for (int i = 0; i < j->n_out; i++) free(j->out[i].segs);
    free(j->ref);
    memset(j, 0, sizeof *j);
}
