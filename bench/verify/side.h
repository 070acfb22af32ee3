// side.h: what a ratio divides: a number of ours, of another program, or a printed one.
//
// In a claim's check a side is
//     a point (query.c: impl, device, dtype, ...);
//     {"peer": NAME} of results/peers ("pass": "bwd": its backward; "B"; "causal": false);
//     {"training": NAME} of its table of training steps;
//     {"model": PATTERN, "impl", "D", "layers", "tokenizer"}: a training step of ours, by the
//     token;
//     {"name", "published_ms"}: a time that a paper printed, for another machine.
#ifndef HB_VERIFY_SIDE_H
#define HB_VERIFY_SIDE_H

#include "verify.h"

struct hb_side {
    struct hb_query q;
    const char *peer, *training, *model, *published;    // NULL unless it is one
    double published_ns;
    const char *tokenizer;           // of a model; NULL: any
    int64_t layers;                  // of a model; 0: any
    bool bwd, circular;
    enum hb_dtype dtype;
};
struct hb_side_number {              // at one length; v NAN: there is none
    double v;
    struct hb_interval ci;
    const struct hb_cell *cell;      // NULL: a peer's, or of
    const struct hb_lm_run *run;     // a model's
    int64_t B, D;
};
// What is divided. Of the last two a time divides the cell's work.
enum hb_of { HB_OF_TIME, HB_OF_MEMORY, HB_OF_FLOP_RATE, HB_OF_ROOF_SHARE };

// The side `key` of a check. 0 or HB_ERR_INPUT.
int hb_side_read(const json_t *check, const char *key, struct hb_side *s);
// Its number is not from our results.
bool hb_side_elsewhere(const struct hb_side *s);
// Of such a one. An interval was not kept: PEER_REL (side.c) of it; a published time has none.
struct hb_side_number hb_side_theirs(const struct hb_evidence *e, const struct hb_side *s,
                                     int64_t L, enum hb_of of);
// Of ours, on that machine.
struct hb_side_number hb_side_own(const struct hb_evidence *e, const struct hb_side *s, int64_t L,
                                  enum hb_of of, const char *machine);
// FLOP, or nanoseconds at the roofline.
double hb_side_work(const struct hb_cell *c, enum hb_of of);
// What to call it: the implementation that n is of. n may be NULL.
const char *hb_side_name(const struct hb_side *s, const struct hb_side_number *n);

#endif
