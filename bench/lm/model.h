// model.h: the language model over the device table: embedding, blocks of [norm, mixer, residual,
// norm, MLP, residual], norm, tied head, cross-entropy; gradients and AdamW. No dropout. Layer norm
// eps 1e-5, GELU in tanh form.
#ifndef HB_LM_MODEL_H
#define HB_LM_MODEL_H

#include "tensors.h"

struct hb_lm;

// Allocates everything, plans the mixers (*plan_ns: the time of that, may be NULL) and draws the
// first values. V tokens.
int hb_lm_create(const struct hb_lm_config *c, int64_t V, struct hb_lm **out, int64_t *plan_ns);
void hb_lm_destroy(struct hb_lm *m);                              // safe on NULL

// in, target: (B,L) host int32; target < 0 is not scored. *nll: mean nats over the scored
// positions. With `grad`, the logits are replaced by their gradient, ready for hb_lm_backward.
int hb_lm_forward(struct hb_lm *m, const int32_t *in, const int32_t *target, bool grad,
                  double *nll);
// Gradients of that mean, all of them (the buffer is cleared first).
int hb_lm_backward(struct hb_lm *m);
// One AdamW step after clipping to the norm c->clip; *norm (may be NULL): the norm before. step
// counts from 1.
int hb_lm_update(struct hb_lm *m, double lr, int64_t step, double *norm);

// After a forward without grad: how many of the scored positions had the target as the highest
// logit.
int hb_lm_correct(struct hb_lm *m, const int32_t *target, int64_t *correct);

// The flat buffers (table()->floats floats, device memory), for checks and files.
const struct hb_lm_table *hb_lm_table_of(const struct hb_lm *m);
float *hb_lm_params(struct hb_lm *m);
float *hb_lm_grads(struct hb_lm *m);

// Learning rate of step 0..steps-1: linear to c->lr over warmup * steps, then a half cosine to
// lr_final * lr.
double hb_lm_rate(const struct hb_lm_config *c, int64_t step);

#endif
