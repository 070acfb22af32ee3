// counts.h: exact counts of published architectures, from their formulas (hyena_spec, claims).
#ifndef HB_VERIFY_COUNTS_H
#define HB_VERIFY_COUNTS_H

#include <stdbool.h>
#include <stdint.h>

struct hb_arch {
    bool attention;              // else Hyena
    int64_t D, layers, ffn, V;
    int64_t heads, positions;    // attention: heads (0: one per 64 channels), learned positions
    int64_t order, E, M, Lmax;   // Hyena: order, positional features, filter width, table length
    bool train_z;                // Hyena: the positional table is a parameter
    bool printed;                // FLOPs of `order` projections as the paper prints, not order+1
};
double hb_arch_params(const struct hb_arch *a);
// FLOPs of one forward of a sequence of L tokens, a multiply-add counted as 2: blocks, embedding
// and logits 2VD each a token; training is 3 times that.
double hb_arch_flop(const struct hb_arch *a, int64_t L);

#endif
