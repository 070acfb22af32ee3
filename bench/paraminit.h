// paraminit.h: the first values of an operator's parameters, for the checker, the harness and the
// language model.
#ifndef HB_PARAMINIT_H
#define HB_PARAMINIT_H

#include "host.h"

int64_t hb_tensor_size(const struct hb_tensor *t);        // elements

// Fills out[0..hb_tensor_size(t)) from (seed, stream): the tensor's standalone initialisation, or
// with `lm` the one inside a language model of n_layer blocks (residual projections: standard
// deviation / sqrt(2 n_layer)).
//   stream   a number of its own for every tensor drawn from one seed
//   p        the operator's problem: HB_INIT_POSEMB needs lmax, or L if that is 0
// Returns 0 or HB_ERR_INPUT (a kind of initialisation or a shape that cannot be).
int hb_param_init(const struct hb_tensor *t, bool lm, int n_layer, uint64_t seed, uint64_t stream,
                  const struct hb_problem *p, float *out);

// The positional table z (lmax, E) of the implicit filter (impls/core/oper.h), rounded once from
// float64.
#define HB_EMB_MAX 1025                                    // E at most; odd
void hb_posemb(float *z, int64_t lmax, int64_t E);

#endif
