// data.c: see data.h.
#include "data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../impls/core/rng.h"

enum { STREAM_BATCHES = 7 };            // rng stream of the batches' places

static int open_corpus(const struct hb_lm_config *c, struct hb_lm_data *d)
{
    char manifest[4096 + 32], cache[4096 + 32];
    snprintf(manifest, sizeof manifest, "%s/datasets/manifest", hb_root_dir());
    snprintf(cache, sizeof cache, "%s/build/datasets", hb_root_dir());   // of every build
    const struct hb_data_dirs dirs = {manifest, cache};
    const int64_t need[] = {c->L + 1, c->valid_tokens + 1, c->eval_tokens + 1};
    static const char *const names[] = {"train", "valid", "test"};
    for (int s = 0; s < HB_SPLIT_COUNT; s++) {
        int rc = hb_corpus_load(hb_host(), &dirs, c->data, (enum hb_split)s, &d->split[s]);
        if (rc)
            return rc;
        if (d->split[s].n < need[s])
            return hb_fail(HB_ERR_INPUT,
                           "the %s split of %s has %lld tokens, expected at least %lld", names[s],
                           c->data, (long long)d->split[s].n, (long long)need[s]);
    }
    d->vocab = d->split[0].vocab;
    memcpy(d->sha256, d->split[0].sha256, sizeof d->sha256);
    return 0;
}

static int open_markov(const struct hb_lm_config *c, struct hb_lm_data *d)
{
    int rc = hb_markov_make(hb_host(), (int)c->markov_symbols, (int)c->markov_order,
                            (uint64_t)c->source_seed, &d->markov);
    if (rc)
        return rc;
    const int64_t n[] = {c->tokens + c->L + 1, c->valid_tokens + 1, c->eval_tokens + 1};
    double *nats = malloc((size_t)n[HB_SPLIT_TEST] * sizeof *nats);
    for (int s = 0; s < HB_SPLIT_COUNT && nats; s++) {
        d->split[s].n = n[s];
        if (!(d->split[s].tok = malloc((size_t)n[s] * sizeof *d->split[s].tok)))
            break;
        // Streams: the text of each split is independent of the others and the same for every
        // model.
        hb_markov_generate(&d->markov, (uint64_t)c->source_seed, (uint64_t)s, n[s], d->split[s].tok,
                           s == HB_SPLIT_TEST ? nats : NULL);
    }
    if (!nats || !d->split[HB_SPLIT_TEST].tok) {
        free(nats);
        return hb_fail(HB_ERR_OOM, "no memory for %lld tokens of the markov source",
                       (long long)n[0]);
    }
    d->floor_nll = 0.0;
    for (int64_t t = 1; t <= c->eval_tokens; t++)
        d->floor_nll += nats[t] / (double)c->eval_tokens;
    free(nats);
    d->vocab = c->markov_symbols;
    hb_sha256(d->split[HB_SPLIT_TEST].tok, (size_t)n[HB_SPLIT_TEST] * sizeof(uint16_t), d->sha256);
    return 0;
}

static int open_recall(const struct hb_lm_config *c, struct hb_lm_data *d)
{
    d->is_recall = true;
    d->vocab = c->recall_vocab;
    int rc = hb_recall_make(hb_host(), (int)c->recall_vocab, c->L - 2, (uint64_t)c->source_seed,
                            c->recall_train, c->recall_test, &d->recall);
    if (!rc)
        hb_sha256(d->recall.test, (size_t)(c->recall_test * (c->L + 1)) * sizeof(uint16_t),
                  d->sha256);
    return rc;
}

int hb_lm_data_open(const struct hb_lm_config *c, struct hb_lm_data *out)
{
    *out = (struct hb_lm_data){.floor_nll = NAN};
    int rc = !strcmp(c->data, "markov") ? open_markov(c, out)
           : !strcmp(c->data, "recall") ? open_recall(c, out)
                                        : open_corpus(c, out);
    if (rc)
        hb_lm_data_close(out);
    return rc;
}

void hb_lm_data_close(struct hb_lm_data *d)
{
    for (int s = 0; s < HB_SPLIT_COUNT; s++)
        hb_tokens_free(&d->split[s]);
    hb_markov_free(&d->markov);
    hb_recall_free(&d->recall);
}

// tok (L+1) -> one row: what is read and what comes next.
static void row(const uint16_t *tok, int64_t L, int32_t *in, int32_t *target)
{
    for (int64_t t = 0; t < L; t++) {
        in[t] = tok[t];
        target[t] = tok[t + 1];
    }
}

void hb_lm_data_train(const struct hb_lm_data *d, const struct hb_lm_config *c, int64_t step,
                      int32_t *in, int32_t *target)
{
    const int64_t B = hb_lm_batch(c), L = c->L;
    const struct hb_tokens *text = &d->split[HB_SPLIT_TRAIN];
    const uint64_t places = (uint64_t)(d->is_recall ? d->recall.n_train : text->n - L);
    for (int64_t b = 0; b < B; b++) {
        const int64_t at = (int64_t)hb_rng_below((uint64_t)c->data_seed, STREAM_BATCHES,
                                                 (uint64_t)(step * B + b), places);
        row(d->is_recall ? d->recall.train + at * (L + 1) : text->tok + at, L, in + b * L,
            target + b * L);
    }
}

static int64_t held_windows(const struct hb_lm_data *d, const struct hb_lm_config *c,
                            enum hb_split split)
{
    return d->is_recall ? d->recall.n_test
                        : (split == HB_SPLIT_VALID ? c->valid_tokens : c->eval_tokens) / c->L;
}

int64_t hb_lm_data_held_tokens(const struct hb_lm_data *d, const struct hb_lm_config *c,
                               enum hb_split split)
{
    return held_windows(d, c, split) * (d->is_recall ? 1 : c->L);
}

int64_t hb_lm_data_held_batches(const struct hb_lm_data *d, const struct hb_lm_config *c,
                                enum hb_split split)
{
    const int64_t B = hb_lm_batch(c);
    return (held_windows(d, c, split) + B - 1) / B;
}

void hb_lm_data_held(const struct hb_lm_data *d, const struct hb_lm_config *c, enum hb_split split,
                     int64_t i, int32_t *in, int32_t *target)
{
    const int64_t B = hb_lm_batch(c), L = c->L, windows = held_windows(d, c, split);
    for (int64_t b = 0; b < B; b++) {
        const int64_t w = i * B + b, at = w < windows ? w : 0;
        int32_t *to = target + b * L;
        row(d->is_recall ? d->recall.test + at * (L + 1) : d->split[split].tok + at * L, L,
            in + b * L, to);
        for (int64_t t = 0; t < L; t++)
            if (w >= windows || (d->is_recall && t < L - 1))
                to[t] = -1;
    }
}
