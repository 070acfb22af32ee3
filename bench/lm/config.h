// config.h: everything that decides a training run. A JSON object and `key=value` words fill the
// same table.
//
// Patterns   one letter a layer, repeated over the layers:
//     H  hyena over `longconv`                A  causal attention over `attention`
//     S  hyena without its long convolution   C  attention with a 3-tap causal filter on q, k, v
//     N  no mixer: the block is its MLP only
// or one of the words bigram, trigram: counts instead of a network.
// Positions  "auto" is rotary inside A and C and nothing elsewhere; "learned" adds a table (L,D) to
//            the embedding and turns rotary off; "none" and "rotary" as they say.
// Device     "auto" follows the implementations: cuda0 if one that is used ends in _cuda, else
//            cpu0; an implementation that is "auto" follows the device (and the dtype).
// Tokens     `tokenizer` bytes (a DNA set: its letters) or gpt2 (datasets/bpe.h), for corpora of
//            text. A budget in tokens is one in tokens of that kind.
// Seeds      `seed` draws the first parameters, `data_seed` the order of the batches (0: the same
//            number); `source_seed` draws the synthetic source itself.
#ifndef HB_LM_CONFIG_H
#define HB_LM_CONFIG_H

#include <jansson.h>
#include "../host.h"

enum { HB_LM_WORD = 128, HB_LM_NAME = 512, HB_LM_MAX_LAYERS = 128 };

struct hb_lm_config {
    char device[HB_LM_WORD], dtype[HB_LM_WORD];   // of activations: "f32", "bf16", "f16"
    char pattern[HB_LM_WORD], longconv[HB_LM_WORD], attention[HB_LM_WORD], positions[HB_LM_WORD];
    // "main", "control", "equality", "bar", ...: for readers of the record
    char purpose[HB_LM_WORD];
    // heads 0: one per 64 channels, one if 64 does not divide D; ffn 0: 4 D
    int64_t D, layers, heads, ffn;
    // B = batch_tokens / L sequences a step, tokens / batch_tokens steps
    int64_t L, batch_tokens, tokens;
    // a batch is worked on in parts of so many tokens, gradients added up; 0: in one
    int64_t micro_batch_tokens;
    double minutes;                      // of training, then it stops early and says so; 0: no end
    char data[HB_LM_WORD];               // a corpus (datasets/corpus.h), "markov" or "recall"
    char tokenizer[HB_LM_WORD];
    // further corpora, separated by commas, whose test splits are scored at the end, whole; "none"
    char test_data[HB_LM_WORD];
    // held-out tokens: at the end (test), at each of `evals` points (valid)
    int64_t eval_tokens, valid_tokens;
    int64_t evals;
    int64_t seed, data_seed, source_seed;
    double lr, warmup, lr_final;         // warmup: share of the steps; lr_final: last rate / lr
    double weight_decay, beta1, beta2, clip;
    int64_t order, emb_dim, filter_width, lmax;   // hyena; lmax 0: L
    double w, shift;
    bool window, train_z, package_layout;
    char planning[HB_LM_WORD];           // FFT libraries: "estimate", "measure", "wisdom"
    int64_t markov_order, markov_symbols;
    int64_t recall_vocab, recall_train, recall_test;
    int64_t threads;                     // 0: all
    char where[512];                     // where the values are from, opens messages; no key
};

void hb_lm_config_default(struct hb_lm_config *c);
// Every key must be known and of its type and range; `where` (file name) opens the message.
int hb_lm_config_json(struct hb_lm_config *c, const json_t *obj, const char *where);
int hb_lm_config_word(struct hb_lm_config *c, const char *key_equals_value);
// Relations between the keys (L divides batch_tokens, heads divide D, ...); resolves what is "auto"
// or 0: device, longconv, attention, heads, ffn, data_seed, threads.
int hb_lm_config_finish(struct hb_lm_config *c);
bool hb_lm_key_known(const char *key);
json_t *hb_lm_config_to_json(const struct hb_lm_config *c);    // new reference; NULL: out of memory

int64_t hb_lm_batch(const struct hb_lm_config *c);             // B
int64_t hb_lm_steps(const struct hb_lm_config *c);
int64_t hb_lm_micro(const struct hb_lm_config *c);             // tokens worked on at once
enum hb_dtype hb_lm_dtype(const struct hb_lm_config *c);
bool hb_lm_is_counts(const struct hb_lm_config *c);            // bigram, trigram
bool hb_lm_has(const struct hb_lm_config *c, char letter);
// The record's name: lm:H:longconv_fftw/dev:cpu0/dt:f32/B:16/D:64/L:256/layers:2/..., and every
// other key that decides what is trained, where it is not at its default: .../w:1/...
void hb_lm_name(const struct hb_lm_config *c, char *buf, size_t cap);
// What follows "lm:": the pattern and the implementations it uses, "H:longconv_fftw",
// "HA:longconv_fftw+attention_flash".
void hb_lm_impl(const struct hb_lm_config *c, char *buf, size_t cap);

#endif
