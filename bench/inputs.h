// inputs.h: what stands behind struct hb_inputs (check.h): every tensor of an io by name, between
// guard zones.
#ifndef HB_INPUTS_H
#define HB_INPUTS_H

#include "check.h"

enum hb_role { HB_ROLE_IN, HB_ROLE_OUT, HB_ROLE_ACC };     // read;  = ...;  += ...
struct hb_buf {
    char what[64];               // "u", "y", "dh", parameter "p:<name>", its gradient "d:<name>"
    enum hb_role role;
    enum hb_dtype dtype;
    int64_t n;                   // elements
    size_t bytes;
    char *block;                 // owned: guard, data, guard
    void *data;                  // HB_ALIGN-aligned
};
enum { HB_MAX_BUFS = 160 };      // 2 for each of at most 64 parameters, and the io's own
struct hb_bufs { int n; struct hb_buf b[HB_MAX_BUFS]; };

struct hb_bufs *hb_inputs_bufs(const struct hb_inputs *in);
struct hb_buf *hb_inputs_find(const struct hb_inputs *in,
                              const char *what);  // NULL if there is none
// Elements [at, at + n) as float64, and back (rounded to the buffer's type).
void hb_buf_load(const struct hb_buf *b, int64_t at, int64_t n, double *out);
void hb_buf_store(struct hb_buf *b, int64_t at, int64_t n, const double *x);
// Index of the first element that is NaN or infinite, by its bits; -1 if there is none.
int64_t hb_buf_not_finite(const struct hb_buf *b);

#endif
