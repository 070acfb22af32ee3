// bpe.h: GPT-2's byte-pair encoding: bytes -> ids and back.
//
// Text is cut into words by GPT-2's pattern
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// and each word's bytes are joined, pair by pair, in the order of the published merges. Every byte
// has an id of its own, so any bytes can be encoded, and decoding gives them back. A byte that is
// not part of valid UTF-8 is a symbol to the pattern, as U+FFFD is, which readers put in its place.
// No special tokens: the text "<|endoftext|>" is encoded as text.
#ifndef HB_BPE_H
#define HB_BPE_H

#include "manifest.h"

struct hb_bpe;

// The data set gpt2-bpe (encoder.json, vocab.bpe). HB_ERR_MISSING: not fetched.
int hb_bpe_open(const struct hb_host *host, const struct hb_data_dirs *dirs, struct hb_bpe **out);
// The same from memory: encoder.json and vocab.bpe in GPT-2's form. HB_ERR_INPUT says what is
// wrong.
int hb_bpe_make(const struct hb_host *host, const char *encoder, size_t n_encoder,
                const char *merges, size_t n_merges, struct hb_bpe **out);
void hb_bpe_free(struct hb_bpe *b);                  // safe on NULL

int hb_bpe_vocab(const struct hb_bpe *b);            // ids are 0..vocab-1
const char *hb_bpe_sha256(const struct hb_bpe *b);   // of what it was made from

// s (n bytes) -> *ids (*n_ids), malloc'ed, owned by the caller. Keeps the words it has seen: one
// call at a time.
int hb_bpe_encode(struct hb_bpe *b, const uint8_t *s, int64_t n, uint16_t **ids, int64_t *n_ids);
// How many bytes the ids stand for; into out unless that is NULL. An id >= vocab stands for none.
int64_t hb_bpe_decode(const struct hb_bpe *b, const uint16_t *ids, int64_t n, uint8_t *out);

#endif
