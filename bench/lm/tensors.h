// tensors.h: the language model's parameters, one row a tensor. Sizes, places in memory, first
// values, optimiser groups and names in files all derive from these rows; nothing is allocated for
// the parameters here.
//
// Names are the published code's: backbone.layers.0.mixer.in_proj.weight, ... The output head is
// the embedding.
#ifndef HB_LM_TENSORS_H
#define HB_LM_TENSORS_H

#include "config.h"

// Elements: 256 bytes of float32, 128 of a 16-bit copy, so that every row can be read by the widest
// loads and by bulk copies.
enum { HB_LM_ROW_ALIGN = 64 };

struct hb_lm_row {
    struct hb_tensor t;
    int64_t n, at;               // elements; place in the flat buffers, in elements too
    int layer;                   // -1: outside of the layers
};
struct hb_lm_layer_rows {        // first row of each group; mixer -1: the block has none
    int norm1, mixer, n_mixer, norm2, fc1, fc2;
    char letter;
};
struct hb_lm_table {
    struct hb_lm_row *row;       // owned
    int n, cap;
    int64_t floats;              // of one flat buffer, padding included
    int64_t params;              // trainable elements
    int embedding, positions, norm_f;      // rows; positions -1: no learned table
    struct hb_lm_layer_rows layer[HB_LM_MAX_LAYERS];
    int n_layers;
};

// c must be finished (hb_lm_config_finish); V tokens. Needs the registry for the mixers' own
// tables.
int hb_lm_table_make(const struct hb_lm_config *c, int64_t V, struct hb_lm_table *out);
void hb_lm_table_free(struct hb_lm_table *t);

// The mixer of one letter: its implementation and the problem it will be planned for. *impl NULL
// for N.
int hb_lm_mixer(const struct hb_lm_config *c, char letter, struct hb_problem *p,
                const struct hb_impl **impl);
bool hb_lm_learned_positions(const struct hb_lm_config *c);
// "rotary", "learned", "none": what happens
const char *hb_lm_positions_str(const struct hb_lm_config *c);

// First values of every row into flat (t->floats host floats), padding 0.
int hb_lm_init(const struct hb_lm_config *c, const struct hb_lm_table *t, float *flat);

#endif
