// config.c: one table row per key gives reading, ranges, messages and writing.
#include "config.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "../../datasets/corpus.h"
#include "../cli.h"
#include "../point.h"

enum kind { WORD, INT, REAL, BOOL };
struct key { const char *name; enum kind kind; size_t at; double lo, hi; };

#define ROW(name, kind, lo, hi) {#name, kind, offsetof(struct hb_lm_config, name), lo, hi}
static const struct key keys[] = {
    ROW(device, WORD, 0, 0), ROW(dtype, WORD, 0, 0), ROW(pattern, WORD, 0, 0),
    ROW(longconv, WORD, 0, 0), ROW(attention, WORD, 0, 0),
    ROW(positions, WORD, 0, 0), ROW(purpose, WORD, 0, 0), ROW(D, INT, 1, 1 << 16),
    ROW(layers, INT, 1, HB_LM_MAX_LAYERS), ROW(heads, INT, 0, 1 << 12), ROW(ffn, INT, 0, 1 << 18),
    ROW(L, INT, 2, 1 << 24), ROW(batch_tokens, INT, 2, 1 << 28), ROW(tokens, INT, 2, 1e12),
    ROW(micro_batch_tokens, INT, 0, 1 << 28), ROW(minutes, REAL, 0, 1e5), ROW(data, WORD, 0, 0),
    ROW(tokenizer, WORD, 0, 0), ROW(test_data, WORD, 0, 0),
    ROW(eval_tokens, INT, 1, 1e10), ROW(valid_tokens, INT, 1, 1e10),
    ROW(evals, INT, 0, 1000), ROW(seed, INT, 0, 9007199254740992.0),
    ROW(data_seed, INT, 0, 9007199254740992.0), ROW(source_seed, INT, 0, 9007199254740992.0),
    ROW(lr, REAL, 0, 10), ROW(warmup, REAL, 0, 1), ROW(lr_final, REAL, 0, 1),
    ROW(weight_decay, REAL, 0, 10), ROW(beta1, REAL, 0, 0.999999), ROW(beta2, REAL, 0, 0.999999),
    ROW(clip, REAL, 1e-6, 1e9), ROW(order, INT, 2, 16), ROW(emb_dim, INT, 3, 4097),
    ROW(filter_width, INT, 1, 4096), ROW(lmax, INT, 0, 1 << 24), ROW(w, REAL, 1e-6, 1e4),
    ROW(shift, REAL, 0, 100), ROW(window, BOOL, 0, 0), ROW(train_z, BOOL, 0, 0),
    ROW(package_layout, BOOL, 0, 0), ROW(planning, WORD, 0, 0), ROW(markov_order, INT, 1, 6),
    ROW(markov_symbols, INT, 2, 256), ROW(recall_vocab, INT, 6, 65536),
    ROW(recall_train, INT, 1, 1 << 24), ROW(recall_test, INT, 1, 1 << 24),
    ROW(threads, INT, 0, 1024),
};
enum { N_KEYS = sizeof keys / sizeof *keys };

// lr is the best of suites/lr.json for A and for H at this size, on the Bible's validation split.
// w 14 and E 33 are the published language model's: the operator's own defaults (1 and 3) leave
// the filter practically zero under the language model's first values (hyena_spec section 5).
void hb_lm_config_default(struct hb_lm_config *c)
{
    *c = (struct hb_lm_config){
        .device = "auto",
        .dtype = "f32",
        .pattern = "H",
        .longconv = "auto",
        .attention = "auto",
        .positions = "auto",
        .purpose = "main",
        .D = 64,
        .layers = 2,
        .L = 256,
        .batch_tokens = 2048,
        .tokens = 512000,
        .data = "bible",
        .tokenizer = "bytes",
        .test_data = "none",
        .eval_tokens = 65536,
        .valid_tokens = 32768,
        .evals = 4,
        .seed = 1,
        .source_seed = 1,
        .lr = 4e-3,
        .warmup = 0.1,
        .lr_final = 0.1,
        .weight_decay = 0.1,
        .beta1 = 0.9,
        .beta2 = 0.98,
        .clip = 1.0,
        .order = 2,
        .emb_dim = 33,
        .filter_width = 64,
        .w = 14,
        .window = true,
        .planning = "measure",
        .markov_order = 2,
        .markov_symbols = 4,
        .recall_vocab = 10,
        .recall_train = 5000,
        .recall_test = 500,
        .where = "configuration",
    };
}

static const struct key *find(const char *name)
{
    for (size_t i = 0; i < N_KEYS; i++)
        if (!strcmp(keys[i].name, name))
            return &keys[i];
    return NULL;
}

bool hb_lm_key_known(const char *key)
{
    return find(key) != NULL;
}

static int unknown_key(const char *where, const char *name)
{
    const char *names[N_KEYS];
    char all[2048];
    size_t n = 0;
    for (size_t i = 0; i < N_KEYS; i++) {
        names[i] = keys[i].name;
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", keys[i].name);
    }
    const char *near = hb_closest(name, names, N_KEYS);
    return hb_fail(HB_ERR_INPUT, "%s: unknown key '%.60s'%s%s%s; the keys are: %s", where, name,
                   near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "", all);
}

static int set_word(struct hb_lm_config *c, const struct key *k, const char *text,
                    const char *where)
{
    size_t n = strlen(text);
    if (n == 0 || n >= HB_LM_WORD)
        return hb_fail(HB_ERR_INPUT, "%s: %s is a word of %zu bytes, expected 1..%d", where,
                       k->name, n, HB_LM_WORD - 1);
    memcpy((char *)c + k->at, text, n + 1);
    return 0;
}

// INT and REAL; the value is checked against the key's range.
static int set_number(struct hb_lm_config *c, const struct key *k, double x, const char *where)
{
    if (!(x >= k->lo && x <= k->hi))
        return hb_fail(HB_ERR_INPUT, "%s: %s is %.17g, expected %.17g..%.17g", where, k->name, x,
                       k->lo, k->hi);
    void *to = (char *)c + k->at;
    if (k->kind == INT)
        *(int64_t *)to = (int64_t)x;
    else
        *(double *)to = x;
    return 0;
}

static int set_json(struct hb_lm_config *c, const struct key *k, const json_t *v, const char *where)
{
    static const char *const expected[] = {"a string", "an integer", "a number", "true or false"};
    switch (k->kind) {
    case WORD:
        if (json_is_string(v))
            return set_word(c, k, json_string_value(v), where);
        break;
    case INT:
        if (json_is_integer(v))
            return set_number(c, k, (double)json_integer_value(v), where);
        break;
    case REAL:
        if (json_is_number(v))
            return set_number(c, k, json_number_value(v), where);
        break;
    case BOOL:
        if (json_is_boolean(v)) {
            *(bool *)((char *)c + k->at) = json_is_true(v);
            return 0;
        }
        break;
    }
    return hb_fail(HB_ERR_INPUT, "%s: %s has the wrong type, expected %s", where, k->name,
                   expected[k->kind]);
}

int hb_lm_config_json(struct hb_lm_config *c, const json_t *obj, const char *where)
{
    const char *name;
    const json_t *v;
    if (!json_is_object(obj))
        return hb_fail(HB_ERR_INPUT, "%s: expected a JSON object", where);
    snprintf(c->where, sizeof c->where, "%s", where);
    json_object_foreach((json_t *)obj, name, v) {
        const struct key *k = find(name);
        int rc = k ? set_json(c, k, v, where) : unknown_key(where, name);
        if (rc)
            return rc;
    }
    return 0;
}

int hb_lm_config_word(struct hb_lm_config *c, const char *word)
{
    char name[HB_LM_WORD];
    const char *eq = strchr(word, '='), *text = eq ? eq + 1 : "";
    if (!eq || eq == word || eq - word >= HB_LM_WORD)
        return hb_fail(HB_ERR_INPUT, "'%.60s': expected key=value", word);
    memcpy(name, word, (size_t)(eq - word));
    name[eq - word] = '\0';
    const struct key *k = find(name);
    if (!k)
        return unknown_key("command line", name);
    if (k->kind == WORD)
        return set_word(c, k, text, "command line");
    if (k->kind == INT) {
        int64_t x;
        int rc = hb_parse_int(name, text, (int64_t)k->lo, (int64_t)k->hi, &x);
        return rc ? rc : set_number(c, k, (double)x, "command line");
    }
    if (k->kind == BOOL) {
        if (strcmp(text, "true") && strcmp(text, "false"))
            return hb_fail(HB_ERR_INPUT, "command line: %s is '%.60s', expected true or false",
                           name, text);
        *(bool *)((char *)c + k->at) = !strcmp(text, "true");
        return 0;
    }
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    if (errno || end == text || *end)
        return hb_fail(HB_ERR_INPUT, "command line: %s is '%.60s', expected a number", name, text);
    return set_number(c, k, x, "command line");
}

json_t *hb_lm_config_to_json(const struct hb_lm_config *c)
{
    json_t *obj = json_object();
    for (size_t i = 0; i < N_KEYS; i++) {
        const char *at = (const char *)c + keys[i].at;
        json_t *v = keys[i].kind == WORD ? json_string(at)
                  : keys[i].kind == INT  ? json_integer(*(const int64_t *)at)
                  : keys[i].kind == REAL ? json_real(*(const double *)at)
                                         : json_boolean(*(const bool *)at);
        if (!obj || json_object_set_new(obj, keys[i].name, v) < 0) {
            json_decref(obj);
            return NULL;
        }
    }
    return obj;
}

// --- relations between keys ----------------------------------------------------------------------

static bool one_of(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(word, *list))
            return true;
    return false;
}

// By its name, <operator>_<method>[_device]: a configuration is read where nothing is loaded.
static bool for_cuda(const char *impl)
{
    const size_t n = strlen(impl);
    return n > 5 && !strcmp(impl + n - 5, "_cuda");
}

static bool on_cuda(const struct hb_lm_config *c) { return !strncmp(c->device, "cuda", 4); }

static bool uses_attention(const struct hb_lm_config *c)
{
    return hb_lm_has(c, 'A') || hb_lm_has(c, 'C');
}

static int check_device(const struct hb_lm_config *c)
{
    const char *const used[] = {hb_lm_has(c, 'H') ? c->longconv : NULL,
                                uses_attention(c) ? c->attention : NULL};
    const char *number = c->device + (on_cuda(c) ? 4 : 0);
    enum hb_dtype t;
    if (strcmp(c->device, "cpu0") &&
        !(on_cuda(c) && number[0] && strspn(number, "0123456789") == strlen(number)))
        return hb_fail(HB_ERR_INPUT, "%s: device is '%s', expected auto, cpu0 or cuda0", c->where,
                       c->device);
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        if (used[i] && for_cuda(used[i]) != on_cuda(c))
            return hb_fail(HB_ERR_INPUT, "%s: device is %s, but %s is not for it", c->where,
                           c->device, used[i]);
    if (hb_dtype_parse(c->dtype, &t) || t == HB_F64) {
        hb_error_clear();
        return hb_fail(HB_ERR_INPUT, "%s: dtype is '%s', expected f32, bf16 or f16", c->where,
                       c->dtype);
    }
    if (hb_lm_is_counts(c) && (on_cuda(c) || t != HB_F32))
        return hb_fail(HB_ERR_INPUT, "%s: pattern %s counts: it has no device or dtype but cpu0 "
                       "and f32", c->where, c->pattern);
    return 0;
}

// test_data: "none" or corpora with commas between them.
static int check_test_data(const struct hb_lm_config *c)
{
    char list[HB_LM_WORD], *save = NULL;
    if (!strcmp(c->test_data, "none"))
        return 0;
    memcpy(list, c->test_data, sizeof list);
    for (char *name = strtok_r(list, ",", &save); name; name = strtok_r(NULL, ",", &save))
        if (!hb_corpus_known(name))
            return hb_fail(HB_ERR_INPUT, "%s: test_data has '%s', expected none or some of %s",
                           c->where, name, hb_corpus_names());
        else if (hb_corpus_is_text(name) != hb_corpus_is_text(c->data))
            return hb_fail(HB_ERR_INPUT, "%s: test_data has %s, which has other tokens than %s",
                           c->where, name, c->data);
    return 0;
}

static int check_words(const struct hb_lm_config *c)
{
    static const char *const positions[] = {"auto", "none", "rotary", "learned", NULL};
    static const char *const plannings[] = {"estimate", "measure", "wisdom", NULL};
    static const char *const tokenizers[] = {"bytes", "gpt2", NULL};
    if (!hb_lm_is_counts(c) && strspn(c->pattern, "HANSC") != strlen(c->pattern))
        return hb_fail(HB_ERR_INPUT,
                       "%s: pattern is '%s', expected letters of H A N S C, or bigram, or trigram",
                       c->where, c->pattern);
    if (!hb_lm_is_counts(c) && (int64_t)strlen(c->pattern) > c->layers)
        return hb_fail(HB_ERR_INPUT, "%s: pattern '%s' is longer than the %lld layers", c->where,
                       c->pattern, (long long)c->layers);
    if (!one_of(c->positions, positions))
        return hb_fail(HB_ERR_INPUT,
                       "%s: positions is '%s', expected auto, none, rotary or learned", c->where,
                       c->positions);
    if (!one_of(c->planning, plannings))
        return hb_fail(HB_ERR_INPUT, "%s: planning is '%s', expected estimate, measure or wisdom",
                       c->where, c->planning);
    if (!hb_corpus_known(c->data) && strcmp(c->data, "markov") && strcmp(c->data, "recall"))
        return hb_fail(HB_ERR_INPUT, "%s: data is '%s', expected %s, markov or recall", c->where,
                       c->data, hb_corpus_names());
    if (!one_of(c->tokenizer, tokenizers))
        return hb_fail(HB_ERR_INPUT, "%s: tokenizer is '%s', expected bytes or gpt2", c->where,
                       c->tokenizer);
    if (strcmp(c->tokenizer, "bytes") && !hb_corpus_is_text(c->data))
        return hb_fail(HB_ERR_INPUT, "%s: tokenizer %s is for text; data %s is none", c->where,
                       c->tokenizer, c->data);
    if (strcmp(c->tokenizer, "bytes") && hb_lm_is_counts(c))
        return hb_fail(HB_ERR_INPUT, "%s: pattern %s counts bytes only", c->where, c->pattern);
    if (hb_lm_is_counts(c) && !strcmp(c->data, "recall"))
        return hb_fail(HB_ERR_INPUT, "%s: pattern %s counts running text; data recall has none",
                       c->where, c->pattern);
    return 0;
}

static int check_sizes(const struct hb_lm_config *c)
{
    if (c->batch_tokens % c->L)
        return hb_fail(HB_ERR_INPUT, "%s: batch_tokens is %lld, expected a multiple of L (%lld)",
                       c->where, (long long)c->batch_tokens, (long long)c->L);
    if (c->batch_tokens % hb_lm_micro(c) || hb_lm_micro(c) % c->L)
        return hb_fail(HB_ERR_INPUT,
                       "%s: micro_batch_tokens is %lld, expected a divisor of batch_tokens (%lld) "
                       "and a multiple of L (%lld)", c->where, (long long)c->micro_batch_tokens,
                       (long long)c->batch_tokens, (long long)c->L);
    if (c->tokens < c->batch_tokens)
        return hb_fail(HB_ERR_INPUT, "%s: tokens is %lld, expected at least batch_tokens (%lld)",
                       c->where, (long long)c->tokens, (long long)c->batch_tokens);
    if (strcmp(c->data, "recall") && (c->eval_tokens % c->L || c->valid_tokens % c->L))
        return hb_fail(HB_ERR_INPUT,
                       "%s: eval_tokens %lld and valid_tokens %lld, expected multiples of L (%lld)",
                       c->where, (long long)c->eval_tokens, (long long)c->valid_tokens,
                       (long long)c->L);
    if (!strcmp(c->data, "recall") && (c->L < 4 || c->L % 2))
        return hb_fail(HB_ERR_INPUT, "%s: L is %lld, expected an even number >= 4 for recall",
                       c->where, (long long)c->L);
    if (c->D % c->heads)
        return hb_fail(HB_ERR_INPUT, "%s: heads is %lld, expected a divisor of D (%lld)", c->where,
                       (long long)c->heads, (long long)c->D);
    if (c->emb_dim % 2 == 0)
        return hb_fail(HB_ERR_INPUT, "%s: emb_dim is %lld, expected an odd number", c->where,
                       (long long)c->emb_dim);
    if (c->lmax && c->lmax < c->L)
        return hb_fail(HB_ERR_INPUT, "%s: lmax is %lld, expected 0 or at least L (%lld)", c->where,
                       (long long)c->lmax, (long long)c->L);
    if (!strcmp(c->data, "markov") && c->tokens + c->L >= INT64_C(1) << 32)
        return hb_fail(HB_ERR_INPUT, "%s: tokens is %lld, expected less than 2^32 for markov",
                       c->where, (long long)c->tokens);
    if (c->lr <= 0)
        return hb_fail(HB_ERR_INPUT, "%s: lr is %g, expected more than 0", c->where, c->lr);
    return 0;
}

static void choose(char *key, const char *value)
{
    if (!strcmp(key, "auto"))
        snprintf(key, HB_LM_WORD, "%s", value);
}

// The keys that follow from others where they are "auto" or 0.
static void resolve(struct hb_lm_config *c)
{
    const bool asked = (hb_lm_has(c, 'H') && for_cuda(c->longconv)) ||
                       (uses_attention(c) && for_cuda(c->attention));
    choose(c->device, asked ? "cuda0" : "cpu0");
    choose(c->longconv, on_cuda(c) ? "longconv_cufft_cuda" : "longconv_fftw");
    choose(c->attention, !on_cuda(c)              ? "attention_flash"
                         : strcmp(c->dtype, "f32") ? "attention_cudnn_cuda"
                                                   : "attention_naive_cuda");  // cuDNN has no f32
    if (!c->heads)
        c->heads = c->D % 64 == 0 ? c->D / 64 : 1;
    if (!c->ffn)
        c->ffn = 4 * c->D;
    if (!c->data_seed)
        c->data_seed = c->seed;
}

int hb_lm_config_finish(struct hb_lm_config *c)
{
    resolve(c);
    if (!c->threads)
        c->threads = omp_get_max_threads();
    int rc = check_words(c);
    if (!rc)
        rc = check_device(c);
    if (!rc)
        rc = check_test_data(c);
    return rc ? rc : check_sizes(c);
}

// --- what follows from them ----------------------------------------------------------------------

int64_t hb_lm_batch(const struct hb_lm_config *c) { return c->batch_tokens / c->L; }
int64_t hb_lm_steps(const struct hb_lm_config *c) { return c->tokens / c->batch_tokens; }

int64_t hb_lm_micro(const struct hb_lm_config *c)
{
    return c->micro_batch_tokens ? c->micro_batch_tokens : c->batch_tokens;
}

enum hb_dtype hb_lm_dtype(const struct hb_lm_config *c)
{
    enum hb_dtype t = HB_F32;
    (void)hb_dtype_parse(c->dtype, &t);        // checked by hb_lm_config_finish
    return t;
}

bool hb_lm_is_counts(const struct hb_lm_config *c)
{
    return !strcmp(c->pattern, "bigram") || !strcmp(c->pattern, "trigram");
}

bool hb_lm_has(const struct hb_lm_config *c, char letter)
{
    return !hb_lm_is_counts(c) && strchr(c->pattern, letter);
}

void hb_lm_impl(const struct hb_lm_config *c, char *buf, size_t cap)
{
    const bool h = hb_lm_has(c, 'H'), a = hb_lm_has(c, 'A') || hb_lm_has(c, 'C');
    snprintf(buf, cap, "%s%s%s%s%s", c->pattern, h || a ? ":" : "", h ? c->longconv : "",
             h && a ? "+" : "", a ? c->attention : "");
}

// One key as text, with a slash in front: "/w:1".
static int key_text(const struct key *k, const struct hb_lm_config *c, char *buf, size_t cap)
{
    const char *at = (const char *)c + k->at;
    switch (k->kind) {
    case WORD: return snprintf(buf, cap, "/%s:%s", k->name, at);
    case INT: return snprintf(buf, cap, "/%s:%lld", k->name, (long long)*(const int64_t *)at);
    case REAL: return snprintf(buf, cap, "/%s:%g", k->name, *(const double *)at);
    case BOOL: return snprintf(buf, cap, "/%s:%s", k->name, *(const bool *)at ? "true" : "false");
    }
    return 0;
}

// What decides the training and has no place of its own in the name: there if not at its default.
static void other_keys(const struct hb_lm_config *c, char *buf, size_t cap)
{
    static const char *const names[] = {
        "positions", "heads", "ffn", "data_seed", "source_seed", "warmup", "lr_final",
        "weight_decay", "beta1", "beta2", "clip", "order", "emb_dim", "filter_width", "lmax", "w",
        "shift", "window", "train_z", "package_layout", "markov_order", "markov_symbols",
        "recall_vocab", "recall_train", "recall_test", "tokenizer", "micro_batch_tokens",
        "minutes"};
    struct hb_lm_config usual;
    size_t n = 0;
    hb_lm_config_default(&usual);
    usual.D = c->D;
    usual.seed = c->seed;
    resolve(&usual);
    buf[0] = '\0';
    for (size_t i = 0; i < sizeof names / sizeof *names && n < cap; i++) {
        char mine[HB_LM_WORD + 32], its[HB_LM_WORD + 32];
        key_text(find(names[i]), c, mine, sizeof mine);
        key_text(find(names[i]), &usual, its, sizeof its);
        if (strcmp(mine, its))
            n += (size_t)snprintf(buf + n, cap - n, "%s", mine);
    }
}

void hb_lm_name(const struct hb_lm_config *c, char *buf, size_t cap)
{
    char impl[3 * HB_LM_WORD], other[HB_LM_NAME];
    hb_lm_impl(c, impl, sizeof impl);
    other_keys(c, other, sizeof other);
    snprintf(buf, cap,
             "lm:%s/dev:%s/dt:%s/B:%lld/D:%lld/L:%lld/layers:%lld/seed:%lld/data:%s/tokens:%lld/"
             "lr:%g/T:%lld%s/scope:step/manual_time",
             impl, c->device, c->dtype, (long long)hb_lm_batch(c), (long long)c->D, (long long)c->L,
             (long long)c->layers, (long long)c->seed, c->data, (long long)c->tokens, c->lr,
             (long long)c->threads, other);
}
