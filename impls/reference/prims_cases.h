// prims_cases.h: the table of primitives that prims_check.c walks over (rows in prims_cases.c).
//
// A case is a table row: name, tolerance, shapes, and three functions: which tensors it has for a
// shape, the device's call, the twin's call.
#ifndef HB_PRIMS_CASES_H
#define HB_PRIMS_CASES_H

#include "prims64.h"

// TOK: int32 below `range`, some -1 if `holes`; TMP: the device's own, not compared.
enum role { IN, OUT, ACC, TMP, TOK };
struct arg {
    enum role role;
    int64_t n;
    double mean, sd;
    int32_t range;
    bool holes;
};

enum { MAX_ARGS = 20, MAX_AXES = 8, MAX_SHAPES = 6 };
typedef const int64_t *shape;

struct prim {
    const char *name;
    double tol;                            // relative L2
    int64_t shapes[MAX_SHAPES][MAX_AXES];  // ends at a shape that starts with 0
    int (*args)(shape s, struct arg *a);   // fills a[0..n), returns n
    int (*dev)(const struct hb_device *d, shape s, void **x);    // x[i]: tensor i
    int (*ref)(shape s, void **x);
};

extern const struct prim hb_prims[];
extern const int hb_n_prims;

#endif
