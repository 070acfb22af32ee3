// markov.h: a Markov source of order k over S symbols whose entropies are known exactly.
//
// A context is the last k symbols; its index is sum_j x[t-1-j] S^j, so that the latest symbol is
// the lowest digit. Each context has one likely symbol, sigma[(tau_1[x(t-1)] + ... + tau_k[x(t-k)])
// mod S] with permutations drawn from the seed: without any one of the k symbols the next one is
// nearly unpredictable, with all of them it is not.
#ifndef HB_MARKOV_H
#define HB_MARKOV_H

#include "../impls/core/hb.h"

enum { HB_MARKOV_MAX_ORDER = 6 };

struct hb_markov {
    int S, k;
    int64_t contexts;                           // S^k
    double *p;                                  // (contexts,S) p(next | context), owned
    double *pi;                                 // (contexts) stationary distribution, owned
    // nats of the next symbol given the last j symbols, j = 0..k; entropy[k] is the source's rate
    double entropy[HB_MARKOV_MAX_ORDER + 1];
};

// S 2..256, k 1..6, S^k <= 2^20. The same (S,k,seed) is the same source everywhere.
int hb_markov_make(const struct hb_host *host, int S, int k, uint64_t seed, struct hb_markov *out);
void hb_markov_free(struct hb_markov *m);

// p(x | the last j symbols), j <= k, under stationarity; recent: their index, < S^j.
double hb_markov_cond(const struct hb_markov *m, int j, int64_t recent, int x);

// n tokens of stream number `stream`; the first ones are drawn from the stationary distribution.
// floor_nll (n) or NULL: -log p(tok[t] | what stands before it in tok), nats.
void hb_markov_generate(const struct hb_markov *m, uint64_t seed, uint64_t stream, int64_t n,
                        uint16_t *tok, double *floor_nll);

#endif
