// judged_compute.c: runs the float64 judges over the sample of a point, references in the layout's
// order.
#include <stdlib.h>
#include <string.h>

#include "judged.h"
#include "../impls/core/oper.h"
#include "../impls/reference/judge.h"

static int no_memory(void) { return hb_fail(HB_ERR_OOM, "out of memory: judging"); }

static double *doubles(int64_t n) { return malloc((size_t)(n > 0 ? n : 1) * sizeof(double)); }

// Values of x at the sample's rows, each `width` wide: packed into out (n_rows,width).
static void pick(const struct hb_sample *s, const double *x, int64_t width, double *out)
{
    for (int64_t i = 0; i < s->n_rows; i++)
        memcpy(out + i * width, x + s->rows[i] * width, (size_t)width * sizeof *x);
}

// --- longconv: a lane is a channel; channels in parallel, each thread with its own scratch -------

struct conv_task {
    const struct hb_problem *p;
    const struct hb_sample *s;
    const struct hb_longconv_io *io;                 // for the strides
    const struct hb_buf *u, *h, *d, *dy;             // dy NULL: forward only
    const struct hb_judged *j;
};

// Where the layout (judged.c) put this channel's references: segment k of output `out`.
static double *ref_at(const struct hb_judged *j, int out, int64_t k)
{
    return j->ref + j->out[out].segs[k].ref;
}

// scratch: 4 L. Channel number i of the sample.
static void conv_channel(const struct conv_task *t, int64_t i, double *scratch)
{
    int64_t L = t->p->L, B = t->p->B, c = t->s->lanes[i], per = t->s->n_rows ? t->s->n_rows : 1;
    double *u = scratch, *h = u + L, *dy = h + L, *few = dy + L, d;
    hb_buf_load(t->h, c * L, L, h);
    hb_buf_load(t->d, c, 1, &d);
    double *dh = t->dy ? ref_at(t->j, 2, i) : NULL, *dd = t->dy ? ref_at(t->j, 3, i) : NULL;
    if (t->dy) {
        memset(dh, 0, (size_t)L * sizeof *dh);
        *dd = 0;
    }
    for (int64_t b = 0; b < B; b++) {
        hb_buf_load(t->u, b * t->io->su.b + c * t->io->su.c, L, u);
        double *y = few;  // sampled y: one segment a row, so not contiguous
        if (t->s->n_rows) hb_judge_conv_at(u, h, d, t->s->rows, t->s->n_rows, y);
        else hb_judge_conv_channel(u, h, d, ref_at(t->j, 0, i * B + b), L);
        for (int64_t r = 0; r < t->s->n_rows; r++) *ref_at(t->j, 0, (i * B + b) * per + r) = y[r];
        if (!t->dy) continue;
        double *du = ref_at(t->j, 1, i * B + b);
        hb_buf_load(t->dy, b * t->io->sdy.b + c * t->io->sdy.c, L, dy);
        if (t->s->n_rows) {
            pick(t->s, dy, 1, few);
            *dd += hb_judge_conv_bwd_at(u, h, d, few, t->s->rows, t->s->n_rows, du, dh, L);
        } else {
            *dd += hb_judge_conv_channel_bwd(u, h, d, dy, du, dh, L);
        }
    }
}

static int compute_conv(const struct hb_point *pt, const struct hb_inputs *in, struct hb_judged *j)
{
    const struct hb_problem *p = &pt->p;
    struct conv_task t = { .p = p,
                           .s = &j->sample,
                           .io = &in->io.conv,
                           .j = j,
                           .u = hb_inputs_find(in, "u"),
                           .h = hb_inputs_find(in, "h"),
                           .d = hb_inputs_find(in, "d"),
                           .dy = p->backward ? hb_inputs_find(in, "dy") : NULL };
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        double *scratch = doubles(4 * p->L);
        failed = !scratch;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < j->sample.n_lanes; i++)
            if (scratch) conv_channel(&t, i, scratch);
        free(scratch);
    }
    return failed ? no_memory() : 0;
}

// --- attention: a lane is a head; the judge itself uses the threads ------------------------------

// work: q, k, v, dy, each (L,P), then dy of the sampled rows.
static int attention_head(const struct hb_problem *p, const struct hb_inputs *in,
                          const struct hb_judged *j, int64_t i, const int64_t *all_rows,
                          double *work)
{
    const struct hb_sample *s = &j->sample;
    int64_t L = p->L, P = p->D / p->H, row = L * P, at = s->lanes[i] * row,
            per = s->n_rows ? s->n_rows : 1;
    double *q = work, *k = q + row, *v = k + row, *dy = v + row, *few = dy + row;
    hb_buf_load(hb_inputs_find(in, "q"), at, row, q);
    hb_buf_load(hb_inputs_find(in, "k"), at, row, k);
    hb_buf_load(hb_inputs_find(in, "v"), at, row, v);
    // The layout puts a lane's y rows behind each other, and then its dq rows: contiguous as the
    // judge writes them.
    int rc = hb_judge_attention_rows(q, k, v, s->n_rows ? s->rows : all_rows,
                                     s->n_rows ? s->n_rows : L, ref_at(j, 0, i * per), L, P);
    if (rc || !p->backward) return rc;
    double *dq = ref_at(j, 1, i * per), *dk = ref_at(j, 2, i), *dv = ref_at(j, 3, i);
    hb_buf_load(hb_inputs_find(in, "dy"), at, row, dy);
    if (!s->n_rows) return hb_judge_attention_bwd(q, k, v, dy, dq, dk, dv, L, P);
    pick(s, dy, P, few);
    return hb_judge_attention_bwd_at(q, k, v, few, s->rows, s->n_rows, dq, dk, dv, L, P);
}

static int compute_attention(const struct hb_point *pt, const struct hb_inputs *in,
                             struct hb_judged *j)
{
    const struct hb_problem *p = &pt->p;
    int64_t P = p->D / p->H;
    double *work = doubles(4 * p->L * P + j->sample.n_rows * P);
    int64_t *rows = malloc((size_t)p->L * sizeof *rows);
    int rc = work && rows ? 0 : HB_ERR_OOM;
    for (int64_t t = 0; t < p->L && !rc; t++) rows[t] = t;
    for (int64_t i = 0; i < j->sample.n_lanes && !rc; i++)
        rc = attention_head(p, in, j, i, rows, work);
    free(work);
    free(rows);
    return rc == HB_ERR_OOM ? no_memory() : rc;
}

// --- operators: the whole judge on the first positions of the first sequences --------------------

enum { CAP = 64 };
struct oper_work { double *u, *dy, *params[CAP], *grads[CAP]; };

static void free_oper(struct oper_work *w, int n)
{
    free(w->u);
    free(w->dy);
    for (int i = 0; i < n; i++) free(w->params[i]);
}

// The (batches, prefix, D) part of a (B,L,D) tensor.
static void load_part(const struct hb_buf *b, const struct hb_sample *s, int64_t row, int64_t part,
                      double *out)
{
    for (int64_t i = 0; i < s->batches; i++) hb_buf_load(b, i * row, part, out + i * part);
}

static int compute_oper(const struct hb_point *pt, const struct hb_inputs *in, struct hb_judged *j)
{
    const struct hb_sample *s = &j->sample;
    struct hb_problem p = pt->p;
    int64_t row = p.L * p.D, part = s->prefix * p.D;
    p.oper.lmax = hb_oper_resolve(&p).lmax;  // the filter of a prefix is the prefix of the filter
    p.B = s->batches;
    p.L = s->prefix;
    struct oper_work w = { .u = doubles(s->batches * part), .dy = doubles(s->batches * part) };
    bool ok = w.u && w.dy && in->n_params <= CAP;
    int out = 2;  // y, du, then the gradients in the order of the tensors
    for (int i = 0; i < in->n_params && ok; i++) {
        char what[64];
        snprintf(what, sizeof what, "p:%.61s", in->tensors[i].name);
        const struct hb_buf *b = hb_inputs_find(in, what);
        ok = (w.params[i] = doubles(b->n)) != NULL;
        if (ok) hb_buf_load(b, 0, b->n, w.params[i]);
        if (p.backward && in->grads[i]) w.grads[i] = ref_at(j, out++, 0);
    }
    int rc = ok ? 0 : no_memory();
    if (ok) {
        load_part(hb_inputs_find(in, "u"), s, row, part, w.u);
        if (p.backward) load_part(hb_inputs_find(in, "dy"), s, row, part, w.dy);
        rc = (p.op == HB_HYENA ? hb_judge_hyena : hb_judge_mha)(
            &p, w.u, w.params, ref_at(j, 0, 0), p.backward ? w.dy : NULL,
            p.backward ? ref_at(j, 1, 0) : NULL, p.backward ? w.grads : NULL);
        if (rc == HB_ERR_OOM) rc = no_memory();
    }
    free_oper(&w, in->n_params < CAP ? in->n_params : CAP);
    return rc;
}

int hb_judged_compute(const struct hb_point *pt, const struct hb_inputs *in, struct hb_judged *j)
{
    if (pt->p.op == HB_LONGCONV) return compute_conv(pt, in, j);
    return pt->p.op == HB_ATTENTION ? compute_attention(pt, in, j) : compute_oper(pt, in, j);
}
