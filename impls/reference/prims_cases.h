// prims_cases.h: the table of primitives that prims_check.c walks over (rows in prims_cases.c).
//
// A case is a table row: name, tolerance, shapes, and three functions: which tensors it has for a
// shape, the device's call, the twin's call.
#ifndef HB_PRIMS_CASES_H
#define HB_PRIMS_CASES_H

#include "prims64.h"

// TOK: int32 below `range`, some -1 if `holes`; TMP: the device's own, not compared.
enum role { IN, OUT, ACC, TMP, TOK };
// ACT: of the type of the activations. FLOAT: float32. SUM: float32, and a device may sum it from
// activations that it has rounded.
enum kind { FLOAT, ACT, SUM };
struct arg {
    enum role role;
    enum kind kind;
    int64_t n;
    double mean, sd;
    int32_t range;
    bool holes;
};

enum { MAX_ARGS = 20, MAX_AXES = 8, MAX_SHAPES = 10 };
typedef const int64_t *shape;

struct prim {
    const char *name;
    double tol, tol_half;                  // relative L2; 0: exact. tol_half: of float32 outputs
                                           // from 16-bit inputs
    int64_t shapes[MAX_SHAPES][MAX_AXES];  // ends at a shape that starts with 0
    int (*args)(shape s, struct arg *a);   // fills a[0..n), returns n
    int (*dev)(const struct hb_device *d, struct hb_on on, shape s, void **x);  // x[i]: tensor i
    int (*ref)(enum hb_dtype t, shape s, void **x);
    bool every_type;                       // tried in each type though it has no activations
};

extern const struct prim hb_prims[];
extern const int hb_n_prims;

#endif
