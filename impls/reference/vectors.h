// vectors.h: the Hyena specification's test vectors (its section 11): three small operators whose
// inputs come from formulas and whose outputs, loss and gradients are known to ten digits.
#ifndef HB_VECTORS_H
#define HB_VECTORS_H

#include "../core/hb.h"

enum { HB_VECTORS = 3, HB_VECTOR_GRADS = 10, HB_VECTOR_D = 2, HB_VECTOR_L = 4 };

struct hb_vector_grad {
    int tensor;              // -1: du; else HB_HY_*
    int64_t index;
    double value;
};
struct hb_vector {
    const char *name;
    struct hb_problem p;                     // inner is empty: the caller chooses the longconv
    double h[HB_VECTOR_L * 4];               // filter, h[j * C + c], C = 2 or 4; to 1e-9
    double y[HB_VECTOR_L * HB_VECTOR_D];     // to 1e-9
    double loss;                             // sum of y[t][c] cos(t + 2c), to 1e-9
    struct hb_vector_grad grad[HB_VECTOR_GRADS];   // of the loss, to 1e-7
};
extern const struct hb_vector hb_vectors[HB_VECTORS];

// Inputs. Parameter i (HB_HY_*) has hb_vector_size elements; u and dy have L D.
int64_t hb_vector_size(const struct hb_vector *v, int tensor);
void hb_vector_param(const struct hb_vector *v, int tensor, double *out);
void hb_vector_u(const struct hb_vector *v, double *out);
void hb_vector_dy(const struct hb_vector *v, double *out);             // d loss / d y

#endif
