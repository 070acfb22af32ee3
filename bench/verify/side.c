// side.c: sides of a ratio (contract: side.h).
#include "side.h"

#include <math.h>
#include <string.h>

#define PEER_REL 0.05     // of a peer's number on each side: repeated runs of such programs differ
                          // by some per cent, and no interval was kept

int hb_side_read(const json_t *check, const char *key, struct hb_side *s)
{
    const json_t *o = json_object_get(check, key);
    const char *pass = json_string_value(json_object_get(o, "pass")),
               *dtype = json_string_value(json_object_get(o, "dtype"));
    *s = (struct hb_side){.peer = json_string_value(json_object_get(o, "peer")),
                       .training = json_string_value(json_object_get(o, "training")),
                       .model = json_string_value(json_object_get(o, "model")),
                       .published = json_string_value(json_object_get(o, "name")),
                       .published_ns = 1e6 * json_number_value(json_object_get(o, "published_ms")),
                       .tokenizer = json_string_value(json_object_get(o, "tokenizer")),
                       .layers = json_integer_value(json_object_get(o, "layers")),
                       .q.B = json_integer_value(json_object_get(o, "B")),
                       .bwd = pass && !strcmp(pass, "bwd"),
                       .circular = json_is_false(json_object_get(o, "causal"))};
    if (s->model) {
        s->q = (struct hb_query){.impl = json_string_value(json_object_get(o, "impl")),
                                 .D = json_integer_value(json_object_get(o, "D"))};
        return 0;
    }
    if (s->published)
        return s->published_ns > 0 ? 0 : hb_fail(HB_ERR_INPUT, "rule ratio: \"published_ms\"");
    if (!s->peer && !s->training) return hb_query_read(check, key, &s->q);
    return dtype ? hb_dtype_parse(dtype, &s->dtype) : 0;
}

bool hb_side_elsewhere(const struct hb_side *s) { return s->peer || s->training || s->published; }

static struct hb_side_number around(double v)
{
    return (struct hb_side_number){.v = v, .ci = {v * (1 - PEER_REL), v * (1 + PEER_REL)}};
}

struct hb_side_number hb_side_theirs(const struct hb_evidence *e, const struct hb_side *s,
                                     int64_t L, enum hb_of of)
{
    const double ns = s->published_ns;
    struct hb_side_number none = {.v = NAN};
    if (s->published) return (struct hb_side_number){.v = ns, .ci = {ns, ns}};
    for (size_t i = 0; s->peer && i < e->peers.n; i++) {
        const struct hb_peer *p = &e->peers.p[i];
        if (strcmp(p->what, s->peer) || p->L != L || p->dtype != s->dtype ||
            (s->q.B && p->B != s->q.B) || (p->M && p->causal == s->circular))
            continue;
        // A wrong result is no measurement. A row without an error column is trusted.
        if (p->error > 0.1 || (isnan(p->error) && !strcmp(p->what, "ffc"))) continue;
        const double ms = s->bwd ? p->bwd_ms : p->fwd_ms;
        struct hb_side_number n = around(of == HB_OF_MEMORY ? p->mem_bytes : ms * 1e6);
        n.B = p->B;
        n.D = p->D;
        if (isfinite(n.v)) return n;
    }
    const struct hb_peer_training *t = s->training
                                           ? hb_peer_training_find(&e->peers, s->training, L)
                                           : NULL;
    if (!t) return none;
    return around(of == HB_OF_MEMORY ? t->mem_bytes : 1e9 / t->tokens_per_s);
}

static bool is_model(const struct hb_side *s, const struct hb_lm_run *r)
{
    return !strcmp(r->model, s->model) && !*r->control && hb_on_gpu(r->device) &&
           (!s->q.D || r->D == s->q.D) && (!s->q.impl || !strcmp(s->q.impl, r->impl)) &&
           (!s->tokenizer || !strcmp(s->tokenizer, r->tokenizer)) &&
           (!s->layers ||
            json_integer_value(json_object_get(r->cell->entry, "hb_layers")) == s->layers);
}

// The fastest step of that model on a GPU.
static struct hb_side_number model_number(const struct hb_evidence *e, const struct hb_side *s,
                                          int64_t L, const char *machine)
{
    struct hb_side_number n = {.v = NAN};
    double fastest = INFINITY;
    for (size_t i = 0; i < e->lm.n; i++) {
        const struct hb_lm_run *r = &e->lm.run[i];
        if (!is_model(s, r) || r->L != L || strcmp(r->machine, machine) || !(r->token_s > 0) ||
            r->token_s >= fastest)
            continue;
        fastest = r->token_s;
        const struct hb_interval ci = hb_cell_interval(r->cell, HB_METRIC_TIME);
        const double scale = r->token_s / r->cell->median_ns;
        n = (struct hb_side_number){
            .v = r->token_s, .ci = {ci.lo * scale, ci.hi * scale}, .run = r};
    }
    return n;
}

// What its time divides.
double hb_side_work(const struct hb_cell *c, enum hb_of of)
{
    return of == HB_OF_FLOP_RATE ? c->flop : c->roof_ns;
}

struct hb_side_number hb_side_own(const struct hb_evidence *e, const struct hb_side *s, int64_t L,
                                  enum hb_of of, const char *machine)
{
    struct hb_query q = s->q;
    q.L = L;
    if (s->model) return model_number(e, s, L, machine);
    const struct hb_cell *c = hb_query_find(e, &q, machine);
    struct hb_side_number n = {.v = NAN, .cell = c};
    if (!hb_cell_ok(c)) return n;
    n.v = hb_cell_value(c, of == HB_OF_MEMORY ? HB_METRIC_MEMORY : HB_METRIC_TIME);
    n.ci = hb_cell_interval(c, of == HB_OF_MEMORY ? HB_METRIC_MEMORY : HB_METRIC_TIME);
    if (of == HB_OF_TIME || of == HB_OF_MEMORY) return n;
    const double work = hb_side_work(c, of);
    n.v = work / n.v;
    n.ci = (struct hb_interval){work / n.ci.hi, work / n.ci.lo};
    return n;
}

const char *hb_side_name(const struct hb_side *s, const struct hb_side_number *n)
{
    return s->peer        ? s->peer
           : s->training  ? s->training
           : s->published ? s->published
           : s->model     ? s->model
           : n && n->cell ? n->cell->pt.impl
                          : s->q.impl;
}
