// ngram.h: counts of n tokens in a row as the simplest language model; n = 1, 2, 3.
//
//     p_n(x | h) = (count(h x) + m p_{n-1}(x | h')) / (count(h) + m),   p_0 = 1 / V
// where h' is h without its oldest token.
// Interpolation with one pseudo-count m for all orders (MacKay and Peto 1995), chosen on the
// validation split.
#ifndef HB_NGRAM_H
#define HB_NGRAM_H

#include "../impls/core/hb.h"

struct hb_ngram {
    int n, V;
    uint32_t *count[4];          // count[j] (V^j): how often each j tokens stand in a row; owned
    uint32_t *before[3];  // before[j] (V^j): how often they stand with a token after them; owned
    double m;                    // 1 until hb_ngram_tune
};

// V <= 256, n 1..3, n_tok < 2^32. Trigrams over 256 tokens take 67 MB.
int hb_ngram_fit(const struct hb_host *host, const uint16_t *tok, int64_t n_tok, int V, int n,
                 struct hb_ngram *out);
void hb_ngram_free(struct hb_ngram *g);
// Mean nats of tok[1..n_pred], each from the tokens before it (tok[1] has one).
double hb_ngram_nll(const struct hb_ngram *g, const uint16_t *tok, int64_t n_pred);
// Takes the m of a fixed grid (0.1 to 300) that is best on these tokens; returns their mean nats.
double hb_ngram_tune(struct hb_ngram *g, const uint16_t *tok, int64_t n_pred);

#endif
