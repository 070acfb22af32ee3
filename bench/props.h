// props.h: what must hold for an operator whatever the numbers are, without a judge. For the tests.
#ifndef HB_PROPS_H
#define HB_PROPS_H

#include "check.h"

struct hb_prop_result {
    bool applies;                // false: the operator has no such property, or L is too short
    bool ok;
    double value, limit;         // ok means value <= limit
    char detail[256];            // "" if ok
};
struct hb_prop {
    const char *name, *says;     // "causality", "a later input changes no earlier output"
    int (*check)(const struct hb_point *pt, const struct hb_impl *impl, struct hb_prop_result *res);
};
// causality, linearity, shift, adjoint, determinism, zero, strides. `check` returns 0 (look at
// res), or HB_ERR_* if the implementation refused or failed. Backward passes are used where impl
// has one. Any resolved point.
extern const struct hb_prop hb_props[];
extern const int hb_n_props;

#endif
