// data.h: where a training run's tokens come from: a corpus, a Markov source or associative recall.
//
// Tokenizer  bytes, or GPT-2's (datasets/bpe.h): each split is encoded as one text and kept in
//            build/datasets/SET.SPLIT.gpt2.u16, which is made again when its sources change.
//
// Training   step s, sequence b: a window of L + 1 tokens of the training stream at a place drawn
//            from (data_seed, s B + b) (recall: one of the training examples). The order depends on
//            nothing else.
// Held out   the windows 0, L, 2L, ... of the first n + 1 tokens of the split, without overlap: a
//            token is predicted from those of its window before it. With n a multiple of every L
//            compared, all of them predict the same tokens. Of the sets in test_data: all windows.
#ifndef HB_LM_DATA_H
#define HB_LM_DATA_H

#include "../../datasets/bpe.h"
#include "../../datasets/corpus.h"
#include "../../datasets/markov.h"
#include "../../datasets/recall.h"
#include "config.h"

// The sets that are scored: the splits, then the test splits of c->test_data.
enum { HB_LM_EXTRA = 4, HB_LM_SETS = HB_SPLIT_COUNT + HB_LM_EXTRA };

struct hb_lm_data {
    int64_t vocab;                               // ids are 0..vocab-1
    int64_t rows;                                // of the model: gpt2's vocab in whole 64s
    struct hb_tokens split[HB_LM_SETS];          // owned; recall: empty
    char name[HB_LM_SETS][HB_LM_WORD];           // "bible", ...: of the sets
    int n_sets;                                  // HB_SPLIT_COUNT .. HB_LM_SETS
    struct hb_bpe *bpe;                          // owned; NULL: no such tokenizer
    struct hb_markov markov;                     // owned
    struct hb_recall recall;                     // owned
    double floor_nll;  // mean nats of the test tokens under the source itself; NAN if unknown
    char sha256[65];                             // of the set; generated ones: of their test tokens
    bool is_recall, is_text;
};

int hb_lm_data_open(const struct hb_lm_config *c, struct hb_lm_data *out);
void hb_lm_data_close(struct hb_lm_data *d);

// in, target: (B,L). Recall scores every position in training and the last one in testing.
void hb_lm_data_train(const struct hb_lm_data *d, const struct hb_lm_config *c, int64_t step,
                      int32_t *in, int32_t *target);
// Batch i of the held-out windows; what lies beyond them is padding with target -1. valid of recall
// is its test split. set: enum hb_split, or HB_SPLIT_COUNT + i.
void hb_lm_data_held(const struct hb_lm_data *d, const struct hb_lm_config *c, int set, int64_t i,
                     int32_t *in, int32_t *target);
int64_t hb_lm_data_held_batches(const struct hb_lm_data *d, const struct hb_lm_config *c, int set);
// Scored tokens of a set, and the bytes they stand for (0: they are no text).
int64_t hb_lm_data_held_tokens(const struct hb_lm_data *d, const struct hb_lm_config *c, int set);
int64_t hb_lm_data_held_bytes(const struct hb_lm_data *d, const struct hb_lm_config *c, int set);

#endif
