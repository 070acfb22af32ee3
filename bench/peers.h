// peers.h: what other programs took for the same work: tables under results/peers. Reads files,
// never measures.
#ifndef HB_PEERS_H
#define HB_PEERS_H

#include <stddef.h>
#include <stdint.h>

#include "host.h"

struct hb_peer {                 // a row of h100-pytorch.tsv; NAN: not measured
    char what[24];               // torchfft, ffc, sdpa_cudnn, hyena_torch_fp32 ...
    int64_t M, L, B, D;          // M 0: no transform
    bool causal;
    enum hb_dtype dtype;
    double fwd_ms, bwd_ms;
    double mem_bytes;            // peak above the inputs
    double error;                // relative L2
};
struct hb_peer_training {        // a row of h100-pytorch-training.tsv
    char what[24];               // gpt, hyena_torch, hyena_ffc
    int64_t L, B;
    double tokens_per_s, mem_bytes, params;
};
struct hb_peers {
    struct hb_peer *p; size_t n;            // owned
    struct hb_peer_training *t; size_t nt;  // owned
};
// HB_ERR_MISSING: the tables are not there (a bundle without results/peers); HB_ERR_INPUT.
int hb_peers_load(struct hb_peers *out);
void hb_peers_free(struct hb_peers *p);
// NULL if there is none.
const struct hb_peer *hb_peer_find(const struct hb_peers *p, const char *what, int64_t L,
                                   enum hb_dtype dtype, int64_t B);
const struct hb_peer_training *hb_peer_training_find(const struct hb_peers *p, const char *what,
                                                     int64_t L);

#endif
