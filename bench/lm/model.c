// model.c: forward and backward of the language model, written once over the device table.
//
//     x_0 = E[token] (+ P[t])     x' = x + mixer(LN1 x)     x'' = x' + Wb gelu(Wa LN2 x' + ba) + bb
//     z = LNf(x) E'               loss = mean -log softmax(z)[next token]
// Letters   R rows of one part of the batch, T of all of it; D channels, F MLP width, V tokens.
// Memory    every block keeps what its backward needs: x, LN1 x, x', LN2 x', the MLP's two (R,F).
//           Beside them one (R,V), two (R,D) and one (R,F); 16 bytes a parameter, 18 in 16 bits.
// Passes    over (R,D), mixer and the matrix products' own operands apart: forward 1 for the
//           embedding and 4 a block (each norm reads x and writes; both residuals, biases and GELU
//           are in epilogues); backward 8 a block (each norm reads dy, x, dx and writes dx; one
//           bias sum each of (R,D) and of (R,F)). (R,V): written, read and rewritten by the loss,
//           read by two products.
// Waits     once for the loss, once for the gradient's norm, once at the end of a step.
// Source    Poli et al. 2023, arXiv:2302.10866; hyena and mha do their own backward (core/hb.h).
// Decay     as in the published code: every tensor but the implicit filter's group, biases and
//           norms included.
// f16       the loss is scaled by 2^k <= T: the gradient of a row is then O(1) instead of O(1/T),
//           which f16 cannot hold; the update divides again. bf16 has float32's range.
#include "model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../impls/core/halves.h"

struct layer {
    const struct hb_impl *mixer;       // NULL: none
    void *state;                       // of the mixer, owned
    void **params, **grads;  // (n_mixer) into the flat buffers, array owned; grads NULL if constant
    void *x;                           // input of the block, borrowed from the block before (or x0)
    void *ln1, *mid, *ln2, *f, *g, *out;         // (R,D) x3, (R,F) x2, (R,D); no mixer: mid = x
    float *mean1, *rstd1, *mean2, *rstd2;        // (R)
};

struct range { int64_t at, n; bool decay; };     // neighbouring tensors of one optimiser group

struct hb_lm {
    struct hb_lm_config c;
    struct hb_lm_table tab;            // owned
    const struct hb_device *dev;
    struct hb_on on;
    int64_t T, R, D, F, V;
    float *params, *grads, *m, *v;     // flat, owned
    void *low;                         // flat in on.t, owned: params rounded; NULL in f32
    struct range *range; int n_range;
    struct layer *layer;               // (n_layers), owned
    char *arena;                       // activations, owned; the rest are parts of it
    void *x0, *lnf, *z, *dx, *dtmp, *dwide;
    float *meanf, *rstdf;
    float *nll;                        // (T) on the device, owned, as are
    int32_t *in, *target;              // (T)
    char *host_z;                      // (R,V) for `correct`, made when first used
    double loss_scale;                 // of the gradients in `grads`
};

// A parameter as the forward pass reads it, as norms and the optimiser do, and its gradient.
static const void *par(const struct hb_lm *m, int row)
{
    const struct hb_lm_row *r = &m->tab.row[row];
    return m->low && r->t.cast ? (char *)m->low + (size_t)r->at * hb_dtype_size(m->on.t)
                               : (char *)(m->params + r->at);
}
static const float *master(const struct hb_lm *m, int row)
{
    return m->params + m->tab.row[row].at;
}
static float *grd(const struct hb_lm *m, int row) { return m->grads + m->tab.row[row].at; }

// --- memory --------------------------------------------------------------------------------------

// A part of the arena of n elements of `size` bytes, or (base NULL) only its place counted.
static void *cut(char *base, size_t *used, int64_t n, size_t size)
{
    enum { ALIGN = 256 };              // bytes; cuBLASLt's fastest kernels want it
    void *p = base ? base + *used : NULL;
    *used += ((size_t)n * size + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

// Cuts (or, with base NULL, counts) the activations; returns the bytes used.
static size_t carve(struct hb_lm *m, char *base)
{
    const size_t e = hb_dtype_size(m->on.t), f32 = sizeof(float);
    const int64_t R = m->R, RD = R * m->D, RF = R * m->F;
    size_t used = 0;
    void *x = m->x0 = cut(base, &used, RD, e);
    for (int i = 0; i < m->tab.n_layers; i++) {
        struct layer *l = &m->layer[i];
        l->x = l->mid = x;
        if (l->mixer) {
            l->ln1 = cut(base, &used, RD, e);
            l->mean1 = cut(base, &used, R, f32);
            l->rstd1 = cut(base, &used, R, f32);
            l->mid = cut(base, &used, RD, e);
        }
        l->ln2 = cut(base, &used, RD, e);
        l->mean2 = cut(base, &used, R, f32);
        l->rstd2 = cut(base, &used, R, f32);
        l->f = cut(base, &used, RF, e);
        l->g = cut(base, &used, RF, e);
        x = l->out = cut(base, &used, RD, e);
    }
    m->lnf = cut(base, &used, RD, e);
    m->meanf = cut(base, &used, R, f32);
    m->rstdf = cut(base, &used, R, f32);
    m->z = cut(base, &used, R * m->V, e);
    m->dx = cut(base, &used, RD, e);
    m->dtmp = cut(base, &used, RD, e);
    m->dwide = cut(base, &used, RF, e);
    m->nll = cut(base, &used, m->T, f32);
    m->in = cut(base, &used, m->T, sizeof(int32_t));
    m->target = cut(base, &used, m->T, sizeof(int32_t));
    return used;
}

static int buffers(struct hb_lm *m)
{
    const struct hb_device *d = m->dev;
    const size_t n = (size_t)m->tab.floats, flat = n * sizeof(float);
    if (!(m->params = d->alloc(d, flat)) || !(m->grads = d->alloc(d, flat)) ||
        !(m->m = d->alloc(d, flat)) || !(m->v = d->alloc(d, flat)) ||
        !(m->arena = d->alloc(d, carve(m, NULL))))
        return HB_ERR_OOM;
    if (m->on.t != HB_F32 && !(m->low = d->alloc(d, n * hb_dtype_size(m->on.t))))
        return HB_ERR_OOM;
    carve(m, m->arena);
    d->zero(m->grads, flat, m->on.stream);
    d->zero(m->m, flat, m->on.stream);
    d->zero(m->v, flat, m->on.stream);
    return 0;
}

static float *flat_of(struct hb_lm *m, enum hb_lm_flat which)
{
    float *const flat[HB_LM_FLAT_COUNT] = {m->params, m->m, m->v};
    return flat[which];
}

int hb_lm_flat_get(struct hb_lm *m, enum hb_lm_flat which, float *host)
{
    const size_t bytes = (size_t)m->tab.floats * sizeof *host;
    int rc = m->dev->download(m->dev, host, flat_of(m, which), bytes, m->on.stream);
    return rc ? rc : m->dev->sync(m->dev, m->on.stream);
}

int hb_lm_flat_set(struct hb_lm *m, enum hb_lm_flat which, const float *host)
{
    const size_t bytes = (size_t)m->tab.floats * sizeof *host;
    int rc = m->dev->upload(m->dev, flat_of(m, which), host, bytes, m->on.stream);
    if (!rc && which == HB_LM_PARAMS && m->low)
        m->dev->cast(m->low, m->on.t, m->params, HB_F32, m->tab.floats, m->on.stream);
    return rc ? rc : m->dev->sync(m->dev, m->on.stream);
}

static int first_values(struct hb_lm *m)
{
    const size_t flat = (size_t)m->tab.floats * sizeof(float);
    float *host = malloc(flat);
    if (!host)
        return hb_fail(HB_ERR_OOM, "no memory for %zu bytes of first values", flat);
    int rc = hb_lm_init(&m->c, &m->tab, host);
    if (!rc)
        rc = hb_lm_flat_set(m, HB_LM_PARAMS, host);
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
    if (!(l->mixer->dtypes & 1u << p.dtype))
        return hb_fail(HB_ERR_REFUSED, "layer %d: %s refuses: it does not do %s", i,
                       l->mixer->name, m->c.dtype);
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
        l->params[k] = (void *)par(m, rows->mixer + k);
        l->grads[k] = m->tab.row[rows->mixer + k].t.trainable ? grd(m, rows->mixer + k) : NULL;
    }
    return l->mixer->plan(hb_host(), &p, &l->state);
}

static int check_device(const struct hb_lm *m)
{
    // "cuda0" is the device "cuda"; the number is which of them
    if (strncmp(m->c.device, m->dev->name, strlen(m->dev->name)))
        return hb_fail(HB_ERR_RUN, "the model is for %s, this process works on %s", m->c.device,
                       m->dev->name);
    if (!(m->dev->dtypes & 1u << m->on.t))
        return hb_fail(HB_ERR_REFUSED, "%s has no activations in %s", m->c.device, m->c.dtype);
    return 0;
}

int hb_lm_create(const struct hb_lm_config *c, int64_t V, struct hb_lm **out, int64_t *plan_ns)
{
    *out = NULL;
    struct hb_lm *m = calloc(1, sizeof *m);
    if (!m)
        return hb_fail(HB_ERR_OOM, "no memory for a model");
    m->c = *c;
    m->dev = hb_host()->device;
    m->on = (struct hb_on){hb_lm_dtype(c), m->dev->stream};
    m->T = c->batch_tokens, m->R = hb_lm_micro(c), m->D = c->D, m->F = c->ffn, m->V = V;
    m->loss_scale = 1.0;
    int rc = check_device(m);
    if (!rc)
        rc = hb_lm_table_make(c, V, &m->tab);
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
    void *const owned[] = {m->params, m->grads, m->m, m->v, m->low, m->arena};
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

// --- the products --------------------------------------------------------------------------------

// y (R,n) = x (R,k) W' + ...: what `more` says about the epilogue. W (n,k).
static void forward_gemm(const struct hb_lm *m, void *y, const void *x, const void *W, int64_t n,
                         int64_t k, struct hb_gemm more)
{
    more.tb = true, more.m = m->R, more.n = n, more.k = k, more.alpha = 1;
    more.A = x, more.lda = k, more.B = W, more.ldb = k, more.D = y, more.ldd = n;
    m->dev->gemm(&more, m->on);
}

// dx (R,k) = dy (R,n) W, times gelu'(pre) if pre (R,k) is given.
static void input_gemm(const struct hb_lm *m, void *dx, const void *dy, const void *W, int64_t n,
                       int64_t k, const void *pre)
{
    const struct hb_gemm g = {.m = m->R, .n = k, .k = n, .alpha = 1, .A = dy, .lda = n, .B = W,
                              .ldb = k, .D = dx, .ldd = k, .dgelu = pre};
    m->dev->gemm(&g, m->on);
}

// dW (n,k) += dy' x
static void weight_gemm(const struct hb_lm *m, float *dW, const void *dy, const void *x, int64_t n,
                        int64_t k)
{
    const struct hb_gemm g = {.ta = true, .m = n, .n = k, .k = m->R, .alpha = 1, .beta = 1,
                              .A = dy, .lda = n, .B = x, .ldb = k, .D = dW, .ldd = k,
                              .out_f32 = true};
    m->dev->gemm(&g, m->on);
}

// --- forward -------------------------------------------------------------------------------------

static int forward_layer(struct hb_lm *m, int i)
{
    const struct hb_device *d = m->dev;
    const struct hb_lm_layer_rows *w = &m->tab.layer[i];
    struct layer *l = &m->layer[i];
    const int64_t R = m->R, D = m->D, F = m->F;
    if (l->mixer) {
        d->layernorm_fwd(l->ln1, l->mean1, l->rstd1, l->x, master(m, w->norm1),
                         master(m, w->norm1 + 1), R, D, m->on);
        struct hb_io io = {.stream = m->on.stream,                                 // x' = x + mixer
                           .oper = {.u = l->ln1, .res = l->x, .y = l->mid, .params = l->params,
                                    .grads = l->grads}};
        int rc = l->mixer->forward(l->state, &io);
        if (rc)
            return rc;
    }
    d->layernorm_fwd(l->ln2, l->mean2, l->rstd2, l->mid, master(m, w->norm2),
                     master(m, w->norm2 + 1), R, D, m->on);
    // f = LN2 Wa' + ba,  g = gelu(f);   x'' = x' + g Wb' + bb
    forward_gemm(m, l->g, l->ln2, par(m, w->fc1), F, D,
                 (struct hb_gemm){.bias = par(m, w->fc1 + 1), .gelu_in = l->f});
    forward_gemm(m, l->out, l->g, par(m, w->fc2), D, F,
                 (struct hb_gemm){.bias = par(m, w->fc2 + 1), .C = l->mid, .beta = 1});
    return 0;
}

static void *last_x(const struct hb_lm *m)
{
    return m->tab.n_layers ? m->layer[m->tab.n_layers - 1].out : m->x0;
}

// Rows at .. at + R of the batch: nll of each, and with scale != 0 the logits become their gradient
// times it.
static int forward(struct hb_lm *m, int64_t at, float scale)
{
    const struct hb_device *d = m->dev;
    const int64_t R = m->R, D = m->D, V = m->V;
    const void *pos = m->tab.positions >= 0 ? par(m, m->tab.positions) : NULL;
    d->embed_fwd(m->x0, par(m, m->tab.embedding), pos, m->in + at, R, m->c.L, D, m->on);
    for (int i = 0; i < m->tab.n_layers; i++) {
        int rc = forward_layer(m, i);
        if (rc)
            return rc;
    }
    const int nf = m->tab.norm_f;
    d->layernorm_fwd(m->lnf, m->meanf, m->rstdf, last_x(m), master(m, nf), master(m, nf + 1), R, D,
                     m->on);
    forward_gemm(m, m->z, m->lnf, par(m, m->tab.embedding), V, D, (struct hb_gemm){0});
    d->xent(m->nll + at, scale != 0 ? m->z : NULL, m->z, m->target + at, scale, R, V, m->on);
    return 0;
}

// --- backward ------------------------------------------------------------------------------------

// m->dx: gradient of the block's output on entry, of its input on return.
static int backward_layer(struct hb_lm *m, int i)
{
    const struct hb_device *d = m->dev;
    const struct hb_lm_layer_rows *w = &m->tab.layer[i];
    struct layer *l = &m->layer[i];
    const int64_t R = m->R, D = m->D, F = m->F;
    d->bias_bwd(grd(m, w->fc2 + 1), m->dx, R, D, m->on);
    weight_gemm(m, grd(m, w->fc2), m->dx, l->g, D, F);
    input_gemm(m, m->dwide, m->dx, par(m, w->fc2), D, F, l->f);             // df = (dx Wb) gelu'(f)
    d->bias_bwd(grd(m, w->fc1 + 1), m->dwide, R, F, m->on);
    weight_gemm(m, grd(m, w->fc1), m->dwide, l->ln2, F, D);
    input_gemm(m, m->dtmp, m->dwide, par(m, w->fc1), F, D, NULL);                    // dLN2 = df Wa
    d->layernorm_bwd(m->dx, grd(m, w->norm2), grd(m, w->norm2 + 1), m->dtmp, l->mid, l->mean2,
                     l->rstd2, master(m, w->norm2), R, D, m->on);
    if (!l->mixer)
        return 0;
    struct hb_io io = {.stream = m->on.stream,
                       .oper = {.u = l->ln1,
                                .res = l->x,
                                .y = l->mid,
                                .dy = m->dx,
                                .du = m->dtmp,
                                .params = l->params,
                                .grads = l->grads}};
    int rc = l->mixer->backward(l->state, &io);
    if (rc)
        return rc;
    d->layernorm_bwd(m->dx, grd(m, w->norm1), grd(m, w->norm1 + 1), m->dtmp, l->x, l->mean1,
                     l->rstd1, master(m, w->norm1), R, D, m->on);
    return 0;
}

// Adds the gradients of the rows that `forward` was called with.
static int backward(struct hb_lm *m, int64_t at)
{
    const struct hb_device *d = m->dev;
    const int64_t R = m->R, D = m->D, V = m->V;
    const int emb = m->tab.embedding, nf = m->tab.norm_f;
    d->zero(m->dx, (size_t)(R * D) * hb_dtype_size(m->on.t), m->on.stream);
    weight_gemm(m, grd(m, emb), m->z, m->lnf, V, D);                               // dE += dz' LNf
    input_gemm(m, m->dtmp, m->z, par(m, emb), V, D, NULL);                           // dLNf = dz E
    d->layernorm_bwd(m->dx, grd(m, nf), grd(m, nf + 1), m->dtmp, last_x(m), m->meanf, m->rstdf,
                     master(m, nf), R, D, m->on);
    for (int i = m->tab.n_layers - 1; i >= 0; i--) {
        int rc = backward_layer(m, i);
        if (rc)
            return rc;
    }
    float *dpos = m->tab.positions >= 0 ? grd(m, m->tab.positions) : NULL;
    d->embed_bwd(grd(m, emb), dpos, m->dx, m->in + at, R, m->c.L, D, V, m->on);
    return 0;
}

// --- a batch -------------------------------------------------------------------------------------

// The ids to the device; *scored: how many positions count.
static int start(struct hb_lm *m, const int32_t *in, const int32_t *target, int64_t *scored)
{
    const struct hb_device *d = m->dev;
    const size_t ids = (size_t)m->T * sizeof(int32_t);
    int rc = d->upload(d, m->in, in, ids, m->on.stream);
    if (!rc)
        rc = d->upload(d, m->target, target, ids, m->on.stream);
    *scored = 0;
    for (int64_t r = 0; r < m->T; r++)
        *scored += target[r] >= 0;
    if (!rc && !*scored)
        rc = hb_fail(HB_ERR_INPUT, "no position of the batch is scored");
    return rc;
}

// The mean of what the parts left in nll; waits for all of them.
static int mean(struct hb_lm *m, int64_t scored, double *nll)
{
    double sum = NAN;
    int rc = m->dev->sum(m->dev, &sum, m->nll, m->T, m->on.stream);
    *nll = sum / (double)scored;
    if (!rc && !isfinite(*nll))
        rc = hb_fail(HB_ERR_RUN, "the loss is not finite; a smaller lr may help");
    return rc;
}

// Positions of one part whose target has the highest logit, added to *correct.
static int count_correct(struct hb_lm *m, const int32_t *target, int64_t *correct)
{
    const size_t e = hb_dtype_size(m->on.t), bytes = (size_t)(m->R * m->V) * e;
    float *row = malloc((size_t)m->V * sizeof *row);
    if (!m->host_z)
        m->host_z = malloc(bytes);
    int rc = row && m->host_z ? m->dev->download(m->dev, m->host_z, m->z, bytes, m->on.stream)
                              : hb_fail(HB_ERR_OOM, "no memory for %zu bytes of logits", bytes);
    if (!rc)
        rc = m->dev->sync(m->dev, m->on.stream);
    for (int64_t r = 0; !rc && r < m->R; r++) {
        if (target[r] < 0)
            continue;
        hb_to_f32(m->on.t, row, m->host_z + (size_t)(r * m->V) * e, m->V);
        int64_t best = 0;
        for (int64_t x = 1; x < m->V; x++)
            best = row[x] > row[best] ? x : best;
        *correct += best == target[r];
    }
    free(row);
    return rc;
}

int hb_lm_loss(struct hb_lm *m, const int32_t *in, const int32_t *target, double *nll,
               int64_t *correct)
{
    int64_t scored;
    int rc = start(m, in, target, &scored);
    if (correct)
        *correct = 0;
    for (int64_t at = 0; !rc && at < m->T; at += m->R) {
        rc = forward(m, at, 0);
        if (!rc && correct)
            rc = count_correct(m, target + at, correct);
    }
    return rc ? rc : mean(m, scored, nll);
}

int hb_lm_gradient(struct hb_lm *m, const int32_t *in, const int32_t *target, double *nll)
{
    int64_t scored;
    int rc = start(m, in, target, &scored);
    if (rc)
        return rc;
    m->loss_scale = m->on.t == HB_F16 ? exp2(floor(log2((double)scored))) : 1.0;
    const float scale = (float)(m->loss_scale / (double)scored);
    m->dev->zero(m->grads, (size_t)m->tab.floats * sizeof *m->grads, m->on.stream);
    for (int64_t at = 0; !rc && at < m->T; at += m->R) {
        rc = forward(m, at, scale);
        if (!rc)
            rc = backward(m, at);
    }
    return rc ? rc : mean(m, scored, nll);
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
    int rc = d->sumsq(d, &sq, m->grads, m->tab.floats, m->on.stream);
    if (rc)
        return rc;
    const double length = sqrt(sq) / m->loss_scale;
    if (norm)
        *norm = length;
    if (!isfinite(length))
        return hb_fail(HB_ERR_RUN, "the gradient of step %lld is not finite; a smaller lr may help",
                       (long long)step);
    const double clip = length > m->c.clip ? m->c.clip / length : 1.0;
    const size_t e = hb_dtype_size(m->on.t);
    for (int i = 0; i < m->n_range; i++) {
        const struct range *r = &m->range[i];
        const struct hb_adamw o = {.lr = (float)lr,
                                   .beta1 = (float)m->c.beta1,
                                   .beta2 = (float)m->c.beta2,
                                   .eps = 1e-8f,
                                   .weight_decay = r->decay ? (float)m->c.weight_decay : 0.0f,
                                   .step = step};
        d->adamw(m->params + r->at, m->m + r->at, m->v + r->at,
                 m->low ? (char *)m->low + (size_t)r->at * e : NULL, m->grads + r->at,
                 (float)(clip / m->loss_scale), o, r->n, m->on);
    }
    return d->sync(d, m->on.stream);
}
