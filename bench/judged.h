// judged.h: what the outputs of a point must be: float64 references from the judges, whole or
// sampled, cached.
#ifndef HB_JUDGED_H
#define HB_JUDGED_H

#include "inputs.h"

// Which part of the outputs is judged. All of it unless that costs more than judge_flop; then
//   longconv, attention   whole channels (heads), the first, the last and others; if even two are
//                         too dear, chosen positions of three: first, last, and one from each
//                         stratum between
//   hyena, mha            the first `prefix` positions of the first `batches` sequences: what is
//                         causal needs no more of its input
// Backward then gets a dy that is zero outside of the sample, for which the judges know every
// gradient exactly.
struct hb_sample {
    bool on;
    int64_t n_lanes, *lanes;     // channels, or b H + h; owned
    int64_t n_rows, *rows;       // positions, owned; n_rows 0: all
    int64_t batches, prefix;
};
int hb_sample_choose(const struct hb_point *pt, double judge_flop, struct hb_sample *s);
void hb_sample_free(struct hb_sample *s);

// Elements [at, at + n) against ref[...]; ref < 0: against zeros.
struct hb_seg { int64_t at, n, ref; };
struct hb_judged_out {
    struct hb_buf *buf;          // borrowed
    int64_t n_segs, cap_segs;
    struct hb_seg *segs;         // owned
    double floor;  // size of what cancels, for references that are zero but for rounding; or 0
    double noise;  // attention's dq, dk: in units of roundoff, the error that y rounded to 16 bits
                   // leaves in them whatever the implementation does; else 0
};
struct hb_judged {
    struct hb_sample sample;
    int n_out;
    struct hb_judged_out out[HB_MAX_BUFS];
    int64_t n_ref;
    double *ref;                 // owned
};

// Zeroes dy outside of the sample (in `in`), then judges or reads the cache. pt->p.backward: with
// gradients.
//   judge_flop   0: never sample          cache_dir   NULL: no cache
// Returns 0 or HB_ERR_*; hb_judged_free in any case.
int hb_judged_make(const struct hb_point *pt, struct hb_inputs *in, double judge_flop,
                   const char *cache_dir, struct hb_judged *j);
void hb_judged_free(struct hb_judged *j);

// The references in the order of the layout, by the judges (judged_compute.c).
int hb_judged_compute(const struct hb_point *pt, const struct hb_inputs *in, struct hb_judged *j);

// The cache's file (header with the payload's hash, then float64): 0, or HB_ERR_* without a message
// if there is none or it is damaged.
int hb_judged_read(const char *path, double *ref, int64_t n);
int hb_judged_write(const char *path, const double *ref, int64_t n);

#endif
