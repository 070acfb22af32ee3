// corpus.h: a named data set, split into train, valid and test, as tokens.
//
// set            tokens                        split
// bible          bytes of the verses           by book: valid Ruth, Job, Hebrews;
//                                              test Esther, Daniel, John
// wikitext-2     bytes                         as published
// wikitext-103   bytes                         as published; there is no training split
// enwiki2015     bytes of the articles         by article id: test if id % 200 == 0,
//                                              valid if id % 200 == 100, else train
// enwiki2015.part1 .. part4    one of its four files alone, by the same rule
// sotu           bytes                         by place: the last 3 % test, the 3 % before valid
// ecoli, lambda, chrX   A C G T N = 0..4       by place, likewise; headers dropped, upper case
//
// A verse is its text and a newline; the reference in front of it (Ge1:1) is dropped.
// The memory of a corpus comes from malloc, not from the counted allocator: it is not part of a
// model.
#ifndef HB_CORPUS_H
#define HB_CORPUS_H

#include "manifest.h"

enum hb_split { HB_SPLIT_TRAIN, HB_SPLIT_VALID, HB_SPLIT_TEST, HB_SPLIT_COUNT };

struct hb_tokens {
    uint16_t *tok;        // (n), owned
    int64_t n;
    int vocab;            // ids are 0..vocab-1
    char sha256[65];  // of the file, or of the files' sums one after the other if there are several
};

// HB_ERR_INPUT: no such set or no such split. HB_ERR_MISSING: not fetched; the message says how.
int hb_corpus_load(const struct hb_host *host, const struct hb_data_dirs *dirs, const char *name,
                   enum hb_split split, struct hb_tokens *out);
// The sum that hb_corpus_load records, from the manifest alone.
int hb_corpus_sha256(const struct hb_host *host, const struct hb_data_dirs *dirs, const char *name,
                     enum hb_split split, char hex[65]);
void hb_tokens_free(struct hb_tokens *t);            // safe on a zeroed one

bool hb_corpus_known(const char *name);
bool hb_corpus_is_text(const char *name);            // its tokens are bytes
const char *hb_corpus_names(void);                   // "bible, wikitext-2, ...", static storage

#endif
