// check.h: is an implementation right? Used by the gate before every timing and by the tests.
#ifndef HB_CHECK_H
#define HB_CHECK_H

#include "point.h"

enum hb_input {
    HB_IN_NORMAL, HB_IN_IMPULSE, HB_IN_CONSTANT, HB_IN_LARGE, HB_IN_TINY, HB_IN_OUTLIER, HB_IN_COUNT
};
const char *hb_input_str(enum hb_input);

struct hb_check_opts {
    enum hb_input input;         // distribution of the inputs; the gate uses NORMAL
    bool backward;
    double judge_flop;           // above this the judge samples rows, ends included (0: never)
    const char *cache_dir;       // judged references by the hash of their input; NULL = no cache
    const struct hb_impl *impl;  // judge this one, not pt->impl (tests: wrong implementations)
    struct hb_inputs *keep;      // on a device: gets the inputs of a right answer, as they were
                                 // drawn, to be freed by the caller; NULL: they are freed
    bool repeat;                 // run it twice: the same bits must come out (exceptions: check.c)
};

// what: "y", "du", "dh", "d:<param>". n_bad: of n_judged elements that are not finite or off by
// more than four tolerances; first_bad: the first of them (index in the logical order, inputs.h)
struct hb_check_err {
    char what[64];
    double rel_l2, max_abs, tol;
    int64_t n_judged, n_bad, first_bad;              // first_bad -1: none
    double got, want;                                // there
    char where[112];                                 // "b 0 c 3 t 128"
};
// Seconds that went into the parts of a check.
struct hb_check_time { double inputs_s, judge_s, plan_s, run_s; };
struct hb_check_result {
    bool ok;                     // err finite, <= tol; guard zones whole; no allocation in forward
    int n;
    struct hb_check_err err[64];
    double worst_rel_l2;         // largest rel_l2 over all outputs
    double tol;                  // the tolerance of that one
    bool sampled;                // the judge looked at sampled rows only
    char detail[256];            // what was wrong, for people; "" if ok
    struct hb_check_time took;
};

// Relative L2 tolerance for this point (table in check.c).
double hb_check_tol(const struct hb_point *pt, const char *what);
// 0 (look at res->ok) or HB_ERR_* if the implementation refused, ran out of memory or failed.
int hb_check_point(const struct hb_point *pt, const struct hb_check_opts *o,
                   struct hb_check_result *res);

// Inputs of a point, drawn from its seed: shared by check, sampler and tests so that all see
// the same numbers.
struct hb_inputs {
    struct hb_io io;             // ready for forward and backward; all tensors inside guard zones,
                                 // on the device of the point (which this process must use)
    int n_params;                // operators
    struct hb_tensor *tensors;
    void **params, **grads;
    size_t bytes;                // of the io tensors
    void *priv;
};
int hb_inputs_make(const struct hb_point *pt, const struct hb_impl *impl, enum hb_input kind,
                   struct hb_inputs *in);
// dy as it was drawn (the judge may have cleared what it does not sample).
void hb_inputs_redraw_dy(const struct hb_point *pt, enum hb_input kind, struct hb_inputs *in);
void hb_inputs_poison(struct hb_inputs *in);     // outputs to NaN, accumulated ones to 0
// From the host copies to the device and back, guard zones left alone; nothing on cpu. Both wait.
// Inputs come back only where all of it is at most 256 MB: whether they were changed is then known
// of smaller points alone. upload needs a call after hb_inputs_make and whenever host copies were changed.
int hb_inputs_upload(struct hb_inputs *in);
int hb_inputs_download(struct hb_inputs *in);
// For timing: inputs where the implementation reads them, outputs zero there (on cpu: poisoned).
int hb_inputs_ready(struct hb_inputs *in);
bool hb_inputs_guards_ok(const struct hb_inputs *in);
void hb_inputs_free(struct hb_inputs *in);

#endif
