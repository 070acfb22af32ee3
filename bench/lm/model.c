// model.c: forward and backward of the language model, written once over the device table.
//
//     x_0 = E[token] (+ P[t])     x' = x + mixer(LN1 x)     x'' = x' + Wb gelu(Wa LN2 x' + ba) + bb
//     z = LNf(x) E'               loss = mean -log softmax(z)[next token]
// Letters   R = B L rows, D channels, F MLP width, V tokens.
// Memory    every block keeps what its backward needs: x, LN1 x, mixer y, x', LN2 x', the MLP's two
//           (R,F).
// Source    Poli et al. 2023, arXiv:2302.10866; hyena and mha do their own backward (core/hb.h).
// Decay     as in the published code: every tensor but the implicit filter's group, biases and
//           norms included.
#include "model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct layer {
    const struct hb_impl *mixer;       // NULL: none
    void *state;                       // of the mixer, owned
    void **params, **grads;  // (n_mixer) into the flat buffers, array owned; grads NULL if constant
    float *x;                          // input of the block, borrowed from the block before (or x0)
    float *ln1, *y, *mid, *ln2, *f, *g, *out;  // (R,D) x4, (R,F) x2, (R,D); without a mixer mid = x
    float *mean1, *rstd1, *mean2, *rstd2;        // (R)
};

struct range { int64_t at, n; bool decay; };     // neighbouring tensors of one optimiser group

struct hb_lm {
    struct hb_lm_config c;
    struct hb_lm_table tab;            // owned
    const struct hb_device *dev;
    int64_t R, D, F, V;
    float *params, *grads, *m, *v;     // flat, owned
    struct range *range; int n_range;
    struct layer *layer;               // (n_layers), owned
    float *arena;                      // activations, owned; the rest are parts of it
    float *x0, *lnf, *meanf, *rstdf, *z, *nll, *dx, *dtmp, *dwide;
    int32_t *in, *target;              // (R) on the device
    float *host_z;                     // (R,V) for hb_lm_correct, made when first used
    int64_t scored;
};

static float *par(const struct hb_lm *m, int row) { return m->params + m->tab.row[row].at; }
static float *grd(const struct hb_lm *m, int row) { return m->grads + m->tab.row[row].at; }

// --- memory --------------------------------------------------------------------------------------

// Cuts (or, with base NULL, counts) the activations; returns the floats used.
static int64_t carve(struct hb_lm *m, float *base)
{
    const int64_t align = HB_ALIGN / (int64_t)sizeof(float);
    int64_t used = 0;
    float **p;
#define CUT(ptr, n)                                                                                \
    (p = &(ptr), *p = base ? base + used : NULL, used += ((n) + align - 1) / align * align)
    const int64_t R = m->R, D = m->D, F = m->F;
    CUT(m->x0, R * D);
    float *x = m->x0;
    for (int i = 0; i < m->tab.n_layers; i++) {
        struct layer *l = &m->layer[i];
        l->x = l->mid = x;
        if (l->mixer) {
            CUT(l->ln1, R * D);
            CUT(l->mean1, R);
            CUT(l->rstd1, R);
            CUT(l->y, R * D);
            CUT(l->mid, R * D);
        }
        CUT(l->ln2, R * D); CUT(l->mean2, R); CUT(l->rstd2, R); CUT(l->f, R * F); CUT(l->g, R * F);
        CUT(l->out, R * D);
        x = l->out;
    }
    CUT(m->lnf, R * D); CUT(m->meanf, R); CUT(m->rstdf, R); CUT(m->z, R * m->V); CUT(m->nll, R);
    CUT(m->dx, R * D); CUT(m->dtmp, R * D); CUT(m->dwide, R * F);
#undef CUT
    return used;
}

static int buffers(struct hb_lm *m)
{
    const struct hb_device *d = m->dev;
    const size_t flat = (size_t)m->tab.floats * sizeof(float), ids = (size_t)m->R * sizeof(int32_t);
    if (!(m->params = d->alloc(d, flat)) || !(m->grads = d->alloc(d, flat)) ||
        !(m->m = d->alloc(d, flat)) || !(m->v = d->alloc(d, flat)) || !(m->in = d->alloc(d, ids)) ||
        !(m->target = d->alloc(d, ids)) ||
        !(m->arena = d->alloc(d, (size_t)carve(m, NULL) * sizeof(float))))
        return HB_ERR_OOM;
    carve(m, m->arena);
    d->zero(m->grads, flat, NULL);
    d->zero(m->m, flat, NULL);
    d->zero(m->v, flat, NULL);
    return 0;
}

static int first_values(struct hb_lm *m)
{
    const size_t flat = (size_t)m->tab.floats * sizeof(float);
    float *host = malloc(flat);
    if (!host)
        return hb_fail(HB_ERR_OOM, "no memory for %zu bytes of first values", flat);
    int rc = hb_lm_init(&m->c, &m->tab, host);
    if (!rc)
        rc = m->dev->upload(m->dev, m->params, host, flat, NULL);
    if (!rc)
        rc = m->dev->sync(m->dev, NULL);
    free(host);
    return rc;
}

// Neighbours of the same group become one range; padding between them is zero and stays zero.
static int ranges(struct hb_lm *m)
{
    if (!(m->range = malloc((size_t)m->tab.n * sizeof *m->range)))
        return hb_fail(HB_ERR_OOM, "no memory for %d optimiser ranges", m->tab.n);
    bool open = false;
    for (int i = 0; i < m->tab.n; i++) {
        const struct hb_lm_row *r = &m->tab.row[i];
        const bool decay = !r->t.filter_group;
        struct range *last = open ? &m->range[m->n_range - 1] : NULL;
        open = r->t.trainable;
        if (!open)
            continue;
        if (last && last->decay == decay)
            last->n = r->at + r->n - last->at;
        else
            m->range[m->n_range++] = (struct range){r->at, r->n, decay};
    }
    return 0;
}

// --- making and ending ---------------------------------------------------------------------------

static int plan_layer(struct hb_lm *m, int i)
{
    const struct hb_lm_layer_rows *rows = &m->tab.layer[i];
    struct layer *l = &m->layer[i];
    if (!l->mixer)
        return 0;
    struct hb_problem p;
    int rc = hb_lm_mixer(&m->c, rows->letter, &p, &l->mixer);
    if (rc)
        return rc;
    const char *why = l->mixer->refuses ? l->mixer->refuses(&p) : NULL;
    if (why)
        return hb_fail(HB_ERR_REFUSED, "layer %d: %s refuses: %s", i, l->mixer->name, why);
    if (!l->mixer->backward)
        return hb_fail(HB_ERR_REFUSED, "layer %d: %s has no backward", i, l->mixer->name);
    l->params = calloc((size_t)rows->n_mixer, sizeof *l->params);
    l->grads = calloc((size_t)rows->n_mixer, sizeof *l->grads);
    if (!l->params || !l->grads)
        return hb_fail(HB_ERR_OOM, "no memory for the tables of layer %d", i);
    for (int k = 0; k < rows->n_mixer; k++) {
        l->params[k] = par(m, rows->mixer + k);
        l->grads[k] = m->tab.row[rows->mixer + k].t.trainable ? grd(m, rows->mixer + k) : NULL;
    }
    return l->mixer->plan(hb_host(), &p, &l->state);
}

int hb_lm_create(const struct hb_lm_config *c, int64_t V, struct hb_lm **out, int64_t *plan_ns)
{
    *out = NULL;
    struct hb_lm *m = calloc(1, sizeof *m);
    if (!m)
        return hb_fail(HB_ERR_OOM, "no memory for a model");
    m->c = *c;
    m->dev = hb_host()->device;
    m->R = c->batch_tokens, m->D = c->D, m->F = c->ffn, m->V = V;
    int rc = hb_lm_table_make(c, V, &m->tab);
    if (!rc && !(m->layer = calloc((size_t)m->tab.n_layers, sizeof *m->layer)))
        rc = hb_fail(HB_ERR_OOM, "no memory for %d layers", m->tab.n_layers);
    struct hb_problem p;
    for (int i = 0; !rc && i < m->tab.n_layers; i++)
        rc = hb_lm_mixer(c, m->tab.layer[i].letter, &p, &m->layer[i].mixer);
    if (!rc)
        rc = buffers(m);
    if (!rc)
        rc = first_values(m);
    if (!rc)
        rc = ranges(m);
    int64_t t0 = hb_now_ns();
    for (int i = 0; !rc && i < m->tab.n_layers; i++)
        rc = plan_layer(m, i);
    if (plan_ns)
        *plan_ns = hb_now_ns() - t0;
    if (rc)
        hb_lm_destroy(m);
    else
        *out = m;
    return rc;
}

void hb_lm_destroy(struct hb_lm *m)
{
    if (!m)
        return;
    for (int i = 0; m->layer && i < m->tab.n_layers; i++) {
        if (m->layer[i].mixer)
            m->layer[i].mixer->destroy(m->layer[i].state);
        free(m->layer[i].params);
        free(m->layer[i].grads);
    }
    void *const owned[] = {m->params, m->grads, m->m, m->v, m->in, m->target, m->arena};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        if (owned[i])
            m->dev->free(m->dev, owned[i]);
    free(m->layer);
    free(m->range);
    free(m->host_z);
    hb_lm_table_free(&m->tab);
    free(m);
}

const struct hb_lm_table *hb_lm_table_of(const struct hb_lm *m) { return &m->tab; }
float *hb_lm_params(struct hb_lm *m) { return m->params; }
float *hb_lm_grads(struct hb_lm *m) { return m->grads; }

// --- forward -------------------------------------------------------------------------------------

static int forward_layer(struct hb_lm *m, int i)
{
    const struct hb_device *d = m->dev;
    const struct hb_lm_layer_rows *w = &m->tab.layer[i];
    struct layer *l = &m->layer[i];
    const int64_t R = m->R, D = m->D, F = m->F;
    const size_t bytes = (size_t)(R * D) * sizeof(float);
    if (l->mixer) {
        d->layernorm_fwd(l->ln1, l->mean1, l->rstd1, l->x, par(m, w->norm1), par(m, w->norm1 + 1),
                         R, D, NULL);
        struct hb_io io = {
            .oper = {.u = l->ln1, .y = l->y, .params = l->params, .grads = l->grads}};
        int rc = l->mixer->forward(l->state, &io);
        if (rc)
            return rc;
        d->copy(l->mid, l->x, bytes, NULL);                                        // x' = x + y
        d->add(l->mid, l->y, R * D, NULL);
    }
    d->layernorm_fwd(l->ln2, l->mean2, l->rstd2, l->mid, par(m, w->norm2), par(m, w->norm2 + 1), R,
                     D, NULL);
    // f = LN2 Wa' + ba
    d->gemm(false, true, R, F, D, 1, l->ln2, D, par(m, w->fc1), D, 0, l->f, F, NULL);
    d->bias_fwd(l->f, par(m, w->fc1 + 1), R, F, NULL);
    d->gelu_fwd(l->g, l->f, R * F, NULL);
    d->copy(l->out, l->mid, bytes, NULL);  // x'' = x' + g Wb' + bb
    d->gemm(false, true, R, D, F, 1, l->g, F, par(m, w->fc2), F, 1, l->out, D, NULL);
    d->bias_fwd(l->out, par(m, w->fc2 + 1), R, D, NULL);
    return 0;
}

static float *last_x(const struct hb_lm *m)
{
    return m->tab.n_layers ? m->layer[m->tab.n_layers - 1].out : m->x0;
}

int hb_lm_forward(struct hb_lm *m, const int32_t *in, const int32_t *target, bool grad, double *nll)
{
    const struct hb_device *d = m->dev;
    const int64_t R = m->R, D = m->D, V = m->V;
    const size_t ids = (size_t)R * sizeof(int32_t);
    int rc = d->upload(d, m->in, in, ids, NULL);
    if (!rc)
        rc = d->upload(d, m->target, target, ids, NULL);
    m->scored = 0;
    for (int64_t r = 0; r < R; r++)
        m->scored += target[r] >= 0;
    if (!rc && !m->scored)
        rc = hb_fail(HB_ERR_INPUT, "no position of the batch is scored");
    if (rc)
        return rc;
    const float *pos = m->tab.positions >= 0 ? par(m, m->tab.positions) : NULL;
    d->embed_fwd(m->x0, par(m, m->tab.embedding), pos, m->in, R, m->c.L, D, NULL);
    for (int i = 0; i < m->tab.n_layers; i++)
        if ((rc = forward_layer(m, i)))
            return rc;
    const int nf = m->tab.norm_f;
    d->layernorm_fwd(m->lnf, m->meanf, m->rstdf, last_x(m), par(m, nf), par(m, nf + 1), R, D, NULL);
    // z = LNf E'
    d->gemm(false, true, R, V, D, 1, m->lnf, D, par(m, m->tab.embedding), D, 0, m->z, V, NULL);
    d->xent(m->nll, grad ? m->z : NULL, m->z, m->target, 1.0f / (float)m->scored, R, V, NULL);
    double sum;
    rc = d->sum(d, &sum, m->nll, R, NULL);
    *nll = sum / (double)m->scored;
    if (!rc && !isfinite(*nll))
        rc = hb_fail(HB_ERR_RUN, "the loss is not finite; a smaller lr may help");
    return rc;
}

// --- backward ------------------------------------------------------------------------------------

// m->dx: gradient of the block's output on entry, of its input on return.
static int backward_layer(struct hb_lm *m, int i)
{
    const struct hb_device *d = m->dev;
    const struct hb_lm_layer_rows *w = &m->tab.layer[i];
    struct layer *l = &m->layer[i];
    const int64_t R = m->R, D = m->D, F = m->F;
    d->bias_bwd(grd(m, w->fc2 + 1), m->dx, R, D, NULL);
    // dWb += dx' g
    d->gemm(true, false, D, F, R, 1, m->dx, D, l->g, F, 1, grd(m, w->fc2), F, NULL);
    // dg = dx Wb
    d->gemm(false, false, R, F, D, 1, m->dx, D, par(m, w->fc2), F, 0, m->dwide, F, NULL);
    d->gelu_bwd(m->dwide, m->dwide, l->f, R * F, NULL);
    d->bias_bwd(grd(m, w->fc1 + 1), m->dwide, R, F, NULL);
    // dWa += df' LN2
    d->gemm(true, false, F, D, R, 1, m->dwide, F, l->ln2, D, 1, grd(m, w->fc1), D, NULL);
    // dLN2 = df Wa
    d->gemm(false, false, R, D, F, 1, m->dwide, F, par(m, w->fc1), D, 0, m->dtmp, D, NULL);
    d->layernorm_bwd(m->dx, grd(m, w->norm2), grd(m, w->norm2 + 1), m->dtmp, l->mid, l->mean2,
                     l->rstd2, par(m, w->norm2), R, D, NULL);
    if (!l->mixer)
        return 0;
    struct hb_io io = {.oper = {.u = l->ln1,
                                .y = l->y,
                                .dy = m->dx,
                                .du = m->dtmp,
                                .params = l->params,
                                .grads = l->grads}};
    int rc = l->mixer->backward(l->state, &io);
    if (rc)
        return rc;
    d->layernorm_bwd(m->dx, grd(m, w->norm1), grd(m, w->norm1 + 1), m->dtmp, l->x, l->mean1,
                     l->rstd1, par(m, w->norm1), R, D, NULL);
    return 0;
}

int hb_lm_backward(struct hb_lm *m)
{
    const struct hb_device *d = m->dev;
    const int64_t R = m->R, D = m->D, V = m->V;
    const int emb = m->tab.embedding, nf = m->tab.norm_f;
    d->zero(m->grads, (size_t)m->tab.floats * sizeof(float), NULL);
    d->zero(m->dx, (size_t)(R * D) * sizeof(float), NULL);
    d->gemm(true, false, V, D, R, 1, m->z, V, m->lnf, D, 1, grd(m, emb), D, NULL);  // dE += dz' LNf
    d->gemm(false, false, R, D, V, 1, m->z, V, par(m, emb), D, 0, m->dtmp, D, NULL);  // dLNf = dz E
    d->layernorm_bwd(m->dx, grd(m, nf), grd(m, nf + 1), m->dtmp, last_x(m), m->meanf, m->rstdf,
                     par(m, nf), R, D, NULL);
    for (int i = m->tab.n_layers - 1; i >= 0; i--) {
        int rc = backward_layer(m, i);
        if (rc)
            return rc;
    }
    float *dpos = m->tab.positions >= 0 ? grd(m, m->tab.positions) : NULL;
    d->embed_bwd(grd(m, emb), dpos, m->dx, m->in, R, m->c.L, D, V, NULL);
    return d->sync(d, NULL);
}

// --- the step ------------------------------------------------------------------------------------

double hb_lm_rate(const struct hb_lm_config *c, int64_t step)
{
    const double steps = (double)hb_lm_steps(c), warm = floor(c->warmup * steps), t = (double)step;
    if (t < warm)
        return c->lr * (t + 1.0) / warm;
    // 0 .. 1 at the last step
    const double done = steps > warm + 1.0 ? (t - warm) / (steps - warm - 1.0) : 0.0;
    return c->lr *
           (c->lr_final + (1.0 - c->lr_final) * 0.5 * (1.0 + cos(3.14159265358979323846 * done)));
}

int hb_lm_update(struct hb_lm *m, double lr, int64_t step, double *norm)
{
    const struct hb_device *d = m->dev;
    double sq;
    int rc = d->sumsq(d, &sq, m->grads, m->tab.floats, NULL);
    if (rc)
        return rc;
    const double length = sqrt(sq);
    if (norm)
        *norm = length;
    if (!isfinite(length))
        return hb_fail(HB_ERR_RUN, "the gradient of step %lld is not finite; a smaller lr may help",
                       (long long)step);
    const float scale = length > m->c.clip ? (float)(m->c.clip / length) : 1.0f;
    for (int i = 0; i < m->n_range; i++) {
        const struct range *r = &m->range[i];
        const struct hb_adamw o = {.lr = (float)lr,
                                   .beta1 = (float)m->c.beta1,
                                   .beta2 = (float)m->c.beta2,
                                   .eps = 1e-8f,
                                   .weight_decay = r->decay ? (float)m->c.weight_decay : 0.0f,
                                   .step = step};
        d->adamw(m->params + r->at, m->m + r->at, m->v + r->at, m->grads + r->at, scale, o, r->n,
                 NULL);
    }
    return d->sync(d, NULL);
}

int hb_lm_correct(struct hb_lm *m, const int32_t *target, int64_t *correct)
{
    const size_t bytes = (size_t)(m->R * m->V) * sizeof(float);
    if (!m->host_z && !(m->host_z = malloc(bytes)))
        return hb_fail(HB_ERR_OOM, "no memory for %zu bytes of logits", bytes);
    int rc = m->dev->download(m->dev, m->host_z, m->z, bytes, NULL);
    if (!rc)
        rc = m->dev->sync(m->dev, NULL);
    *correct = 0;
    for (int64_t r = 0; !rc && r < m->R; r++) {
        if (target[r] < 0)
            continue;
        const float *z = m->host_z + r * m->V;
        int64_t best = 0;
        for (int64_t x = 1; x < m->V; x++)
            best = z[x] > z[best] ? x : best;
        *correct += best == target[r];
    }
    return rc;
}
