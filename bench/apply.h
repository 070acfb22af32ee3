// apply.h: what apply.c (command line, arrays of longconv and attention) and apply_oper.c
// (parameters of hyena and mha) share.
#ifndef HB_APPLY_H
#define HB_APPLY_H

#include "npy.h"
#include "safetensors.h"

enum { HB_APPLY_TENSORS = 32 };        // more than any operator has

// Everything of one call. All owned, freed by apply.c; files that were not named stay zero.
struct hb_apply {
    const char *impl_name, *u_path, *h_path, *d_path, *q_path, *k_path, *v_path, *params_path,
        *dy_path;
    const char *out_path, *grads_path;
    int64_t heads, threads;
    double shift;
    bool no_window, package_layout, rope;

    const struct hb_impl *impl;
    struct hb_problem p;
    struct hb_npy u, h, d, q, k, v, dy;
    struct hb_st file;                 // the parameters
    int n_params;
    struct hb_tensor tensors[HB_APPLY_TENSORS];
    void *params[HB_APPLY_TENSORS];    // host->alloc
    struct hb_st_tensor grads[HB_APPLY_TENSORS];      // what goes into the file of gradients
    void *grad[HB_APPLY_TENSORS];      // their data, host->alloc
    int n_grads;
    float *y;                          // host->alloc, as large as the input
    struct hb_apply_copy { void *host, *dev; size_t bytes; bool out; } copies[3 * HB_APPLY_TENSORS];
    int n_copies;                      // on a device that does not work in the host's memory
};

// Reads the parameters, infers the problem (op, D, options) from their names and shapes, checks
// them against impl->tensors. a->impl, a->u, a->params_path are set. 0, HB_ERR_INPUT with one line,
// or HB_ERR_OOM.
int hb_apply_params(struct hb_apply *a);

#endif
