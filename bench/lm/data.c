// data.c: see data.h.
#include "data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../impls/core/rng.h"
#include "../readfile.h"

enum { STREAM_BATCHES = 7 };            // rng stream of the batches' places
enum { VOCAB_MULTIPLE = 64 };           // rows of a matrix product's operand: whole tiles

struct dirs { char manifest[4096 + 32], cache[4096 + 32]; struct hb_data_dirs d; };

static void find_dirs(struct dirs *x)
{
    snprintf(x->manifest, sizeof x->manifest, "%s/datasets/manifest", hb_root_dir());
    snprintf(x->cache, sizeof x->cache, "%s/build/datasets", hb_root_dir());   // of every build
    x->d = (struct hb_data_dirs){x->manifest, x->cache};
}

// --- encoded text, kept --------------------------------------------------------------------------
// A file is HEAD bytes of text (what it is made from, how many tokens, their sum), then the ids.

enum { HEAD = 256 };

static void head_of(char head[HEAD], const char *key, const struct hb_tokens *t)
{
    char sum[65];
    hb_sha256(t->tok, (size_t)t->n * sizeof *t->tok, sum);
    memset(head, 0, HEAD);
    snprintf(head, HEAD, "hyena-bench tokens 1\nmade from %s\nids %lld\nsha256 %s\n", key,
             (long long)t->n, sum);
}

// false: there is none, or it is of something else.
static bool kept(const char *path, const char *key, struct hb_tokens *t)
{
    char *data = NULL, head[HEAD];
    size_t bytes = 0;
    if (hb_read_file(path, &data, &bytes) || bytes <= HEAD) {
        hb_error_clear();
        free(data);
        return false;
    }
    t->n = (int64_t)((bytes - HEAD) / sizeof *t->tok);
    t->tok = malloc((size_t)t->n * sizeof *t->tok);
    if (t->tok) {
        memcpy(t->tok, data + HEAD, (size_t)t->n * sizeof *t->tok);
        head_of(head, key, t);
    }
    const bool same = t->tok && !memcmp(head, data, HEAD);
    free(data);
    if (!same)
        hb_tokens_free(t);
    return same;
}

// Not being able to keep it costs the next run some seconds, nothing else.
static void keep(const char *path, const char *key, const struct hb_tokens *t)
{
    const size_t bytes = (size_t)t->n * sizeof *t->tok;
    char *data = malloc(HEAD + bytes);
    if (!data)
        return;
    head_of(data, key, t);
    memcpy(data + HEAD, t->tok, bytes);
    if (hb_write_file(path, data, HEAD + bytes))
        hb_error_clear();
    free(data);
}

// The bytes of t -> ids.
static int encode(struct hb_bpe *bpe, struct hb_tokens *t)
{
    uint8_t *text = malloc((size_t)t->n);
    if (!text)
        return hb_fail(HB_ERR_OOM, "no memory for %lld bytes of text", (long long)t->n);
    const int64_t n = t->n;
    for (int64_t i = 0; i < n; i++)
        text[i] = (uint8_t)t->tok[i];
    hb_tokens_free(t);
    int rc = hb_bpe_encode(bpe, text, n, &t->tok, &t->n);
    free(text);
    return rc;
}

static int load_encoded(const struct dirs *x, struct hb_bpe *bpe, const char *set,
                        enum hb_split split, struct hb_tokens *out)
{
    static const char *const names[] = {"train", "valid", "test"};
    char sum[65], all[512], key[65], path[4096 + 256];
    int rc = hb_corpus_sha256(hb_host(), &x->d, set, split, sum);
    if (rc)
        return rc;
    int n = snprintf(all, sizeof all, "%s %s %s gpt2 %s", set, names[split], sum,
                     hb_bpe_sha256(bpe));
    hb_sha256(all, (size_t)n, key);
    snprintf(path, sizeof path, "%s/%s.%s.gpt2.u16", x->cache, set, names[split]);
    if (!kept(path, key, out)) {
        rc = hb_corpus_load(hb_host(), &x->d, set, split, out);
        if (!rc)
            rc = encode(bpe, out);
        if (!rc)
            keep(path, key, out);
    }
    out->vocab = hb_bpe_vocab(bpe);
    memcpy(out->sha256, sum, sizeof sum);
    return rc;
}

// --- the sources ---------------------------------------------------------------------------------

static int load(const struct dirs *x, struct hb_lm_data *d, int set, enum hb_split split,
                int64_t need)
{
    static const char *const names[] = {"train", "valid", "test"};
    int rc = d->bpe ? load_encoded(x, d->bpe, d->name[set], split, &d->split[set])
                    : hb_corpus_load(hb_host(), &x->d, d->name[set], split, &d->split[set]);
    if (!rc && d->split[set].n < need)
        rc = hb_fail(HB_ERR_INPUT, "the %s split of %s has %lld tokens, expected at least %lld",
                     names[split], d->name[set], (long long)d->split[set].n, (long long)need);
    return rc;
}

static int open_corpus(const struct hb_lm_config *c, struct hb_lm_data *d)
{
    const int64_t need[] = {c->L + 1, c->valid_tokens + 1, c->eval_tokens + 1};
    char list[HB_LM_WORD], *save = NULL;
    struct dirs x;
    find_dirs(&x);
    d->is_text = hb_corpus_is_text(c->data);
    int rc = strcmp(c->tokenizer, "gpt2") ? 0 : hb_bpe_open(hb_host(), &x.d, &d->bpe);
    for (int s = 0; !rc && s < HB_SPLIT_COUNT; s++)
        rc = load(&x, d, s, (enum hb_split)s, need[s]);
    snprintf(list, sizeof list, "%s", strcmp(c->test_data, "none") ? c->test_data : "");
    for (char *name = strtok_r(list, ",", &save); !rc && name; name = strtok_r(NULL, ",", &save)) {
        if (d->n_sets == HB_LM_SETS)
            return hb_fail(HB_ERR_INPUT, "test_data names more than %d sets", HB_LM_EXTRA);
        snprintf(d->name[d->n_sets], sizeof d->name[0], "%s", name);
        rc = load(&x, d, d->n_sets++, HB_SPLIT_TEST, c->L + 1);
    }
    if (rc)
        return rc;
    d->vocab = d->rows = d->split[0].vocab;
    if (d->bpe)
        d->rows = (d->vocab + VOCAB_MULTIPLE - 1) / VOCAB_MULTIPLE * VOCAB_MULTIPLE;
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
    d->vocab = d->rows = c->markov_symbols;
    hb_sha256(d->split[HB_SPLIT_TEST].tok, (size_t)n[HB_SPLIT_TEST] * sizeof(uint16_t), d->sha256);
    return 0;
}

static int open_recall(const struct hb_lm_config *c, struct hb_lm_data *d)
{
    d->is_recall = true;
    d->vocab = d->rows = c->recall_vocab;
    int rc = hb_recall_make(hb_host(), (int)c->recall_vocab, c->L - 2, (uint64_t)c->source_seed,
                            c->recall_train, c->recall_test, &d->recall);
    if (!rc)
        hb_sha256(d->recall.test, (size_t)(c->recall_test * (c->L + 1)) * sizeof(uint16_t),
                  d->sha256);
    return rc;
}

int hb_lm_data_open(const struct hb_lm_config *c, struct hb_lm_data *out)
{
    *out = (struct hb_lm_data){.floor_nll = NAN, .n_sets = HB_SPLIT_COUNT};
    for (int s = 0; s < HB_SPLIT_COUNT; s++)
        snprintf(out->name[s], sizeof out->name[s], "%s", c->data);
    int rc = !strcmp(c->data, "markov") ? open_markov(c, out)
           : !strcmp(c->data, "recall") ? open_recall(c, out)
                                        : open_corpus(c, out);
    if (rc)
        hb_lm_data_close(out);
    return rc;
}

void hb_lm_data_close(struct hb_lm_data *d)
{
    for (int s = 0; s < HB_LM_SETS; s++)
        hb_tokens_free(&d->split[s]);
    hb_bpe_free(d->bpe);
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

static int64_t held_windows(const struct hb_lm_data *d, const struct hb_lm_config *c, int set)
{
    if (d->is_recall)
        return d->recall.n_test;
    const int64_t n = set == HB_SPLIT_VALID  ? c->valid_tokens
                      : set == HB_SPLIT_TEST ? c->eval_tokens
                                             : d->split[set].n - 1;
    return n / c->L;
}

int64_t hb_lm_data_held_tokens(const struct hb_lm_data *d, const struct hb_lm_config *c, int set)
{
    return held_windows(d, c, set) * (d->is_recall ? 1 : c->L);
}

int64_t hb_lm_data_held_bytes(const struct hb_lm_data *d, const struct hb_lm_config *c, int set)
{
    const int64_t n = hb_lm_data_held_tokens(d, c, set);
    return !d->is_text ? 0 : d->bpe ? hb_bpe_decode(d->bpe, d->split[set].tok + 1, n, NULL) : n;
}

int64_t hb_lm_data_held_batches(const struct hb_lm_data *d, const struct hb_lm_config *c, int set)
{
    const int64_t B = hb_lm_batch(c);
    return (held_windows(d, c, set) + B - 1) / B;
}

void hb_lm_data_held(const struct hb_lm_data *d, const struct hb_lm_config *c, int set, int64_t i,
                     int32_t *in, int32_t *target)
{
    const int64_t B = hb_lm_batch(c), L = c->L, windows = held_windows(d, c, set);
    for (int64_t b = 0; b < B; b++) {
        const int64_t w = i * B + b, at = w < windows ? w : 0;
        int32_t *to = target + b * L;
        row(d->is_recall ? d->recall.test + at * (L + 1) : d->split[set].tok + at * L, L,
            in + b * L, to);
        for (int64_t t = 0; t < L; t++)
            if (w >= windows || (d->is_recall && t < L - 1))
                to[t] = -1;
    }
}
