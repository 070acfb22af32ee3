// lmruns.h: training runs as the readers see them. Reads results, never measures.
#ifndef HB_LMRUNS_H
#define HB_LMRUNS_H

#include "record.h"

struct hb_lm_run {
    const struct hb_cell *cell;  // its entry holds the curve
    const char *machine;         // borrowed
    const char *name;            // record name
    char model[HB_NAME_MAX];     // "A", "H", "N" ... or "bigram": what stands after "lm:"
    char impl[HB_NAME_MAX];      // implementation of the mixer, "" if none
    const char *dataset, *control, *positions, *purpose;  // "" if absent
    const char *device, *dtype, *tokenizer;               // older records: "cpu0", "f32", "bytes"
    int64_t L, B, D, seed, params, steps;
    double nll, ppl, final_loss, train_tokens, eval_tokens, lr, floor_nll;  // NAN if absent
    double bits_per_byte, peak_bytes, tokens_per_s;  // NAN if absent; peak: of the device's memory
    bool stopped_early;       // the time budget ended the training
    double seconds, token_s;  // of the whole training; per token, from the median step
    bool ok;
};
struct hb_lm_set { struct hb_lm_run *run; size_t n; };
// Those that ended well, sorted by data set, steps, L, model, impl, seed.
int hb_lm_make(const struct hb_results *r, struct hb_lm_set *out);
void hb_lm_free(struct hb_lm_set *s);

// Points of the loss curve; x is tokens or seconds. Returns how many (at most cap).
size_t hb_lm_curve(const struct hb_lm_run *run, const char *x_key, double *x, double *loss,
                   size_t cap);

// Runs that differ only in the seed: perplexity as mean and 95 % t interval over seeds.
struct hb_lm_group {
    const struct hb_lm_run *run;         // the first of n
    size_t n;
    double ppl;
    struct hb_interval ci95;
};
// The group that starts at run i (runs are sorted); i + n is the next one's start.
struct hb_lm_group hb_lm_group_at(const struct hb_lm_set *s, size_t i);

// The budget that the study is about: data set, steps, tokens a step, width, held-out tokens,
// device, type and tokenizer with the most lengths, then the most runs. Only runs with a length
// count. false: there are none.
struct hb_lm_budget {
    const char *machine, *dataset;
    int64_t steps, batch_tokens, D;
    double eval_tokens;          // held out
    const char *device, *dtype, *tokenizer;
};
bool hb_lm_main(const struct hb_lm_set *s, const char *machine, struct hb_lm_budget *out);
bool hb_lm_in(const struct hb_lm_run *r, const struct hb_lm_budget *b);
// The runs of one model at length L within the budget; n 0 (ppl NAN): there are none.
struct hb_lm_group hb_lm_find(const struct hb_lm_set *s, const struct hb_lm_budget *b,
                              const char *model, int64_t L);
// What stands in the place of the mixer: the control, or the implementation.
const char *hb_lm_run_mixer(const struct hb_lm_run *r);
bool hb_lm_ngram(const struct hb_lm_run *r);  // counts, not a network
// Test sets scored by the run, its data's own first; of set i name, tokens, bytes (0: no text),
// nats a token. false: there is no such set, or an older record without a list.
struct hb_lm_scored { const char *name; double tokens, bytes, nats; };
bool hb_lm_scored_at(const struct hb_lm_run *r, size_t i, struct hb_lm_scored *out);
// Counts scored on the same held-out tokens: they stand beside the budget.
bool hb_lm_counts_in(const struct hb_lm_run *r, const struct hb_lm_budget *b);

#endif
