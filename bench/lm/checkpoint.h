// checkpoint.h: a training run between two steps, in one .safetensors file.
//
// Tensors    every parameter by its name, and "m/NAME", "v/NAME" of AdamW, float32; "run/loss" and
//            "run/step_ns" (steps so far) and "run/eval" (points, 3: step, seconds, nats), float64.
// Metadata   "step", "config" (as JSON), "data_sha256". The order of the batches follows from
//            data_seed and the step, so nothing else is needed: going on gives the bits that the
//            run would have given without the break (on the CPU, with as many threads).
#ifndef HB_LM_CHECKPOINT_H
#define HB_LM_CHECKPOINT_H

#include "loop.h"
#include "model.h"

// The file appears whole or not at all. r: its first `step` losses and times, its n_eval points.
int hb_lm_checkpoint_write(const char *path, const struct hb_lm_config *c, struct hb_lm *m,
                           const struct hb_lm_result *r, int64_t step);
// Into a model and a result made for c. HB_ERR_INPUT: the file is of another configuration (the key
// is named; what does not decide the parameters may differ), of other data, or no checkpoint.
int hb_lm_checkpoint_read(const char *path, const struct hb_lm_config *c, struct hb_lm *m,
                          struct hb_lm_result *r, int64_t *step);

#endif
