// model.h: the language model over the device table: embedding, blocks of [norm, mixer, residual,
// norm, MLP, residual], norm, tied head, cross-entropy; gradients and AdamW. No dropout. Layer norm
// eps 1e-5, GELU in tanh form.
//
// Types      activations and the parameters marked `cast` in c->dtype; parameters, gradients and
//            the optimiser's state in float32 (core/hb.h).
// Batches    a batch of c->batch_tokens is worked on in parts of hb_lm_micro(c) tokens; losses and
//            gradients are those of the whole batch, memory is that of one part.
#ifndef HB_LM_MODEL_H
#define HB_LM_MODEL_H

#include "tensors.h"

struct hb_lm;

// Allocates everything on the process's device, plans the mixers (*plan_ns: the time of that, may
// be NULL) and draws the first values. V tokens.
int hb_lm_create(const struct hb_lm_config *c, int64_t V, struct hb_lm **out, int64_t *plan_ns);
void hb_lm_destroy(struct hb_lm *m);                              // safe on NULL

// in, target: (B,L) host int32; target < 0 is not scored. *nll: mean nats over the scored
// positions. *correct (may be NULL; slow): how many of them had the target as the highest logit.
int hb_lm_loss(struct hb_lm *m, const int32_t *in, const int32_t *target, double *nll,
               int64_t *correct);
// The same mean and its gradients, all of them (the buffer is cleared first).
int hb_lm_gradient(struct hb_lm *m, const int32_t *in, const int32_t *target, double *nll);
// One AdamW step after clipping to the norm c->clip; *norm (may be NULL): the norm before. step
// counts from 1.
int hb_lm_update(struct hb_lm *m, double lr, int64_t step, double *norm);

// The flat buffers (table()->floats floats, device memory), for checks.
const struct hb_lm_table *hb_lm_table_of(const struct hb_lm *m);
float *hb_lm_params(struct hb_lm *m);
float *hb_lm_grads(struct hb_lm *m);

// What a checkpoint holds, between the device and a host buffer of table()->floats floats.
enum hb_lm_flat { HB_LM_PARAMS, HB_LM_M, HB_LM_V, HB_LM_FLAT_COUNT };
int hb_lm_flat_get(struct hb_lm *m, enum hb_lm_flat which, float *host);
int hb_lm_flat_set(struct hb_lm *m, enum hb_lm_flat which, const float *host);

// Learning rate of step 0..steps-1: linear to c->lr over warmup * steps, then a half cosine to
// lr_final * lr.
double hb_lm_rate(const struct hb_lm_config *c, int64_t step);

#endif
