// inputs.h: what stands behind struct hb_inputs (check.h): every tensor of an io by name, between
// guard zones.
#ifndef HB_INPUTS_H
#define HB_INPUTS_H

#include "check.h"

enum hb_role { HB_ROLE_IN, HB_ROLE_OUT, HB_ROLE_ACC };     // read;  = ...;  += ...

// A tensor has a host copy, which the judge reads, and on another device than the cpu a second one
// there, which the implementation works on. `at` and `n` below count elements in the logical order:
// longconv as it lies in memory (segments are found by the io's strides), attention (B,H,L,P)
// whatever its strides are.
struct hb_buf {
    char what[64];               // "u", "y", "dh", parameter "p:<name>", its gradient "d:<name>"
    enum hb_role role;
    enum hb_dtype dtype;
    int64_t n;                   // elements
    size_t bytes;                // 0: a part of another tensor's memory (q in qkv), see block
    char *block, *dev_block;     // owned: guard, data, guard; NULL: a part of another, or no device
    void *data, *dev;            // HB_ALIGN-aligned but for parts; dev NULL on cpu
    int64_t H, L, P;             // P > 0: (B,H,L,P) elements stand at the strides `s`
    struct hb_heads s;
};
enum { HB_MAX_BUFS = 160 };      // 2 for each of at most 64 parameters, and the io's own
struct hb_bufs {
    int n;
    struct hb_buf b[HB_MAX_BUFS];
    const struct hb_device *dev; // NULL: cpu
};

struct hb_bufs *hb_inputs_bufs(const struct hb_inputs *in);
struct hb_buf *hb_inputs_find(const struct hb_inputs *in,
                              const char *what);  // NULL if there is none
// Elements [at, at + n) as float64, and back (rounded to the buffer's type).
void hb_buf_load(const struct hb_buf *b, int64_t at, int64_t n, double *out);
void hb_buf_store(struct hb_buf *b, int64_t at, int64_t n, const double *x);
void hb_buf_zero(struct hb_buf *b, int64_t at, int64_t n);
// Index of the first element that is NaN or infinite, by its bits; -1 if there is none.
int64_t hb_buf_not_finite(const struct hb_buf *b);

#endif
