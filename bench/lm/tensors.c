// tensors.c: the rows in the order of the forward pass.
// Source    Poli et al. 2023, arXiv:2302.10866; HazyResearch/safari@02220c6
//           src/models/sequence/long_conv_lm.py (backbone, names, first values: normal 0.02,
//           residual projections / sqrt(2 layers), norms 1 and 0).
#include "tensors.h"

#include <stdlib.h>
#include <string.h>

#include "../paraminit.h"

static const float INIT_STD = 0.02f;
enum { CONTROL_TAPS = 3, MAX_MIXER_TENSORS = 64 };

// Appends a row; the index, or HB_ERR_OOM.
static int add(struct hb_lm_table *tab, const struct hb_tensor *t, int layer)
{
    if (tab->n == tab->cap) {
        int cap = tab->cap ? 2 * tab->cap : 64;
        struct hb_lm_row *more = realloc(tab->row, (size_t)cap * sizeof *more);
        if (!more)
            return hb_fail(HB_ERR_OOM, "no memory for the table of %d tensors", cap);
        tab->row = more;
        tab->cap = cap;
    }
    const int64_t align = HB_LM_ROW_ALIGN;
    struct hb_lm_row *r = &tab->row[tab->n];
    *r = (struct hb_lm_row){.t = *t, .n = hb_tensor_size(t), .at = tab->floats, .layer = layer};
    tab->floats += (r->n + align - 1) / align * align;
    tab->params += t->trainable ? r->n : 0;
    return tab->n++;
}

// A tensor of the backbone: rank 2 if cols > 0. residual: it writes into the residual stream.
// Norms stay in float32, all else is cast.
static int own(struct hb_lm_table *tab, int layer, const char *name, int64_t rows, int64_t cols,
               enum hb_init init, bool residual, bool cast)
{
    struct hb_tensor t = {.shape = {rows, cols ? cols : 1, 1},
                          .rank = cols ? 2 : 1,
                          .init = init,
                          .init_arg = INIT_STD,
                          .lm_init = init,
                          .lm_init_arg = INIT_STD,
                          .residual_out = residual,
                          .trainable = true,
                          .cast = cast};
    if (layer < 0)
        snprintf(t.name, sizeof t.name, "backbone.%s", name);
    else
        snprintf(t.name, sizeof t.name, "backbone.layers.%d.%s", layer, name);
    return add(tab, &t, layer);
}

static int norm(struct hb_lm_table *tab, int layer, const char *which, int64_t D)
{
    char weight[32], bias[32];
    snprintf(weight, sizeof weight, "%s.weight", which);
    snprintf(bias, sizeof bias, "%s.bias", which);
    int first = own(tab, layer, weight, D, 0, HB_INIT_ONE, false, false);
    int rc = first < 0 ? first : own(tab, layer, bias, D, 0, HB_INIT_ZERO, false, false);
    return rc < 0 ? rc : first;
}

static int linear(struct hb_lm_table *tab, int layer, const char *which, int64_t out, int64_t in,
                  bool residual)
{
    char weight[32], bias[32];
    snprintf(weight, sizeof weight, "mlp.%s.weight", which);
    snprintf(bias, sizeof bias, "mlp.%s.bias", which);
    int first = own(tab, layer, weight, out, in, HB_INIT_NORMAL, residual, true);
    int rc = first < 0 ? first : own(tab, layer, bias, out, 0, HB_INIT_ZERO, false, true);
    return rc < 0 ? rc : first;
}

static int mixer(const struct hb_lm_config *c, struct hb_lm_table *tab, int layer,
                 struct hb_lm_layer_rows *rows)
{
    struct hb_problem p;
    const struct hb_impl *impl;
    struct hb_tensor t[MAX_MIXER_TENSORS];
    int rc = hb_lm_mixer(c, rows->letter, &p, &impl);
    if (rc)
        return rc;
    int n = impl->tensors(&p, t, MAX_MIXER_TENSORS);
    if (n < 1 || n > MAX_MIXER_TENSORS)
        return hb_fail(n < 0 ? n : HB_ERR_RUN, "%s describes %d tensors, expected 1..%d",
                       impl->name, n, MAX_MIXER_TENSORS);
    rows->mixer = tab->n;
    rows->n_mixer = n;
    for (int i = 0; i < n; i++) {
        char name[sizeof t[i].name];
        memcpy(name, t[i].name, sizeof name);
        int len = snprintf(t[i].name, sizeof t[i].name, "backbone.layers.%d.mixer.%s", layer, name);
        if (len >= (int)sizeof t[i].name)
            return hb_fail(HB_ERR_RUN, "the tensor name %s is too long", name);
        if ((rc = add(tab, &t[i], layer)) < 0)
            return rc;
    }
    return 0;
}

static int layer_rows(const struct hb_lm_config *c, struct hb_lm_table *tab, int layer)
{
    struct hb_lm_layer_rows *r = &tab->layer[layer];
    *r = (struct hb_lm_layer_rows){
        .letter = c->pattern[(size_t)layer % strlen(c->pattern)], .norm1 = -1, .mixer = -1};
    int rc = 0;
    if (r->letter != 'N') {
        rc = r->norm1 = norm(tab, layer, "norm1", c->D);
        if (rc >= 0)
            rc = mixer(c, tab, layer, r);
    }
    if (rc >= 0)
        rc = r->norm2 = norm(tab, layer, "norm2", c->D);
    if (rc >= 0)
        rc = r->fc1 = linear(tab, layer, "fc1", c->ffn, c->D, false);
    if (rc >= 0)
        rc = r->fc2 = linear(tab, layer, "fc2", c->D, c->ffn, true);
    return rc;
}

int hb_lm_table_make(const struct hb_lm_config *c, int64_t V, struct hb_lm_table *out)
{
    *out = (struct hb_lm_table){.positions = -1, .n_layers = (int)c->layers};
    int rc = out->embedding =
        own(out, -1, "embeddings.word_embeddings.weight", V, c->D, HB_INIT_NORMAL, false,
            true);
    if (rc >= 0 && hb_lm_learned_positions(c))
        rc = out->positions = own(out, -1, "embeddings.position_embeddings.weight", c->L, c->D,
                                  HB_INIT_NORMAL, false, true);
    for (int layer = 0; rc >= 0 && layer < out->n_layers; layer++)
        rc = layer_rows(c, out, layer);
    if (rc >= 0)
        rc = out->norm_f = norm(out, -1, "ln_f", c->D);
    if (rc < 0)
        hb_lm_table_free(out);
    return rc < 0 ? rc : 0;
}

void hb_lm_table_free(struct hb_lm_table *t)
{
    free(t->row);
    *t = (struct hb_lm_table){0};
}

// --- mixers and positions ------------------------------------------------------------------------

bool hb_lm_learned_positions(const struct hb_lm_config *c)
{
    return !strcmp(c->positions, "learned");
}

static bool rotary(const struct hb_lm_config *c)
{
    return !strcmp(c->positions, "auto") || !strcmp(c->positions, "rotary");
}

const char *hb_lm_positions_str(const struct hb_lm_config *c)
{
    const bool attention = hb_lm_has(c, 'A') || hb_lm_has(c, 'C');
    return hb_lm_learned_positions(c) ? "learned" : rotary(c) && attention ? "rotary" : "none";
}

int hb_lm_mixer(const struct hb_lm_config *c, char letter, struct hb_problem *p,
                const struct hb_impl **impl)
{
    *impl = NULL;
    if (letter == 'N')
        return 0;
    const bool attention = letter == 'A' || letter == 'C';
    const char *inner = attention ? c->attention : letter == 'H' ? c->longconv : "";
    char name[HB_NAME_MAX + 16];
    snprintf(name, sizeof name, "%s%s%s", attention ? "mha" : "hyena", *inner ? ":" : "", inner);
    if (!(*impl = hb_registry_find(name)))
        return HB_ERR_INPUT;
    if (!(*impl)->tensors)
        return hb_fail(HB_ERR_INPUT, "%s cannot be a mixer: it has no table of tensors", name);
    *p = (struct hb_problem){
        .op = attention ? HB_MHA : HB_HYENA,
        .dtype = hb_lm_dtype(c),
        .B = hb_lm_micro(c) / c->L,
        .L = c->L,
        .D = c->D,
        .H = attention ? c->heads : 0,
        .threads = (int)c->threads,
        .filter = HB_FILTER_FRESH,
        .backward = true,
        .planning = !strcmp(c->planning, "measure")  ? HB_PLAN_MEASURE
                    : !strcmp(c->planning, "wisdom") ? HB_PLAN_WISDOM_ONLY
                                                     : HB_PLAN_ESTIMATE,
    };
    snprintf(p->inner, sizeof p->inner, "%s", inner);
    if (attention)
        p->oper = (struct hb_oper_opts){.rope = rotary(c),
                                        .short_taps = letter == 'C' ? CONTROL_TAPS : 0};
    else
        p->oper = (struct hb_oper_opts){
            .order = (int)c->order,
            .emb_dim = (int)c->emb_dim,
            .filter_width = (int)c->filter_width,
            .lmax = c->lmax,
            .w = (float)c->w,
            .shift = (float)c->shift,
            .no_window = !c->window,
            .train_z = c->train_z,
            .package_layout = c->package_layout,
            .no_long = letter == 'S',
        };
    return 0;
}

// --- first values --------------------------------------------------------------------------------

int hb_lm_init(const struct hb_lm_config *c, const struct hb_lm_table *t, float *flat)
{
    struct hb_problem p = {.L = c->L};
    p.oper.lmax = c->lmax;
    memset(flat, 0, (size_t)t->floats * sizeof *flat);
    for (int i = 0; i < t->n; i++) {
        // The stream is the tensor's name, not its number: the same tensor starts alike beside any
        // other mixer.
        uint64_t stream = 0xcbf29ce484222325u;                   // FNV-1a
        for (const char *s = t->row[i].t.name; *s; s++)
            stream = (stream ^ (unsigned char)*s) * 0x100000001b3u;
        int rc = hb_param_init(&t->row[i].t, true, t->n_layers, (uint64_t)c->seed, stream, &p,
                               flat + t->row[i].at);
        if (rc)
            return rc;
    }
    return 0;
}
