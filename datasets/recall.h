// recall.h: associative recall, as published (hyena_spec 9.2; HazyResearch/safari
// src/dataloaders/synthetics.py).
//
// V tokens: "." 0, keys 1..n/2, values n/2+1..n with n = V-2, "=>" n+1. One example, L even:
//     k v k v ... k v  =>  k v      L/2 pairs, the arrow, a key of the prompt, its value
// A key's value is by a map drawn for this example.
// The model reads the first L+2 tokens and predicts the last L+2. Training scores all of them,
// testing the last one only.
#ifndef HB_RECALL_H
#define HB_RECALL_H

#include "../impls/core/hb.h"

struct hb_recall {
    int V;
    int64_t L, n_train, n_test;
    uint16_t *train;             // (n_train, L+3), owned; no two alike
    uint16_t *test;              // (n_test, L+3), owned; no two alike
    double chance_uniform;       // accuracy of guessing among the values
    // of answering the prompt's most frequent value (the lowest of equals), on the test split
    double chance_frequent;
};

// V 6..65536, L even >= 2. HB_ERR_INPUT if there are not enough different examples.
int hb_recall_make(const struct hb_host *host, int V, int64_t L, uint64_t seed, int64_t n_train,
                   int64_t n_test, struct hb_recall *out);
void hb_recall_free(struct hb_recall *r);

#endif
