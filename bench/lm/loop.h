// loop.h: one training run from its configuration to its numbers.
#ifndef HB_LM_LOOP_H
#define HB_LM_LOOP_H

#include "config.h"

struct hb_lm_result {
    int64_t planned_steps;       // steps < planned_steps: the time budget ended the training
    bool interrupted;            // by a signal after `steps`: times and losses, nothing of results
    int64_t resumed_at;          // the step it went on from; 0: it began at the beginning
    int64_t steps, params, vocab, held_tokens;
    int64_t train_tokens;        // read in all steps; counts: of the whole training split
    double *loss;                // (steps) mean nats of each step's batch, owned
    double *step_ns;             // (steps) wall time of each step, batch to update, owned
    // (n_eval) on valid; step 0: before training. owned
    struct hb_lm_eval { int64_t step; double seconds, nats; } *eval;
    int64_t n_eval;
    // (n_test) the test split of the data, then those of test_data; bytes 0: not text. owned
    struct hb_lm_test { char name[HB_LM_WORD]; int64_t tokens, bytes; double nats; } *test;
    int n_test;
    double test_nats;            // of the first: held-out mean nats a token, after the last step
    double valid_nats;           // the last of eval; NAN if there was none
    double floor_nats;           // of the same test tokens under the source; NAN if unknown
    double entropy_prev;         // markov: nats given one symbol less than the order; NAN otherwise
    double accuracy, chance_uniform, chance_frequent;     // recall; NAN otherwise
    double ngram_m;              // counts: the pseudo-count chosen; NAN otherwise
    double train_s, eval_s, cpu_ns_per_step, eval_ns_per_token;
    int64_t plan_ns;
    size_t alloc_peak_bytes, rss_peak_bytes;     // of the host
    size_t device_peak_bytes;                    // 0: the device is the host
    char sha256[65];
};

struct hb_lm_opts {
    bool quiet;                  // no progress lines
    // Written every `every` steps (0: not on the way), when the run is interrupted or out of time,
    // and after the last step. NULL: none
    const char *checkpoint;
    int64_t every;
    const char *resume_from;     // a checkpoint to go on from, or NULL
};

// Trains, evaluates and fills *out. SIGINT ends it: out->interrupted; before a step was made here
// with HB_ERR_RUN.
int hb_lm_train(const struct hb_lm_config *c, const struct hb_lm_opts *o, struct hb_lm_result *out);
void hb_lm_result_free(struct hb_lm_result *r);

// entry.c: the run as a record entry (bench/record.h); one that did not finish, without numbers and,
// interrupted, with what it measured until then. New references.
json_t *hb_lm_entry(const struct hb_lm_config *c, const struct hb_lm_result *r);
json_t *hb_lm_skip(const struct hb_lm_config *c, const char *status, const char *detail);
json_t *hb_lm_cut(const struct hb_lm_config *c, const struct hb_lm_result *r, const char *detail);

#endif
