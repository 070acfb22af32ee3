// oper.h: what hyena, mha, their judges and the readers of checkpoints must agree on: the defaults
// behind the zero fields of hb_oper_opts, the order of the parameter tensors, and the positional
// table.
#ifndef HB_OPER_H
#define HB_OPER_H

#include <math.h>
#include "hb.h"

// Order of params and grads. hyena without its long convolution (no_long) stops before HB_HY_D;
// mha without a short filter stops before HB_MHA_WS.
enum {
    HB_HY_WIN, HB_HY_BIN, HB_HY_WOUT, HB_HY_BOUT, HB_HY_WS, HB_HY_BS, HB_HY_D, HB_HY_Z,
    HB_HY_W1, HB_HY_B1, HB_HY_FREQ, HB_HY_W2, HB_HY_B2, HB_HY_W3, HB_HY_B3, HB_HY_W4,
    HB_HY_COUNT
};
enum { HB_MHA_WIN, HB_MHA_BIN, HB_MHA_WOUT, HB_MHA_BOUT, HB_MHA_WS, HB_MHA_BS, HB_MHA_COUNT };

// The window exp(-t delta_c): delta runs linearly over the filter channels from |ln 0.01|/1.5 to
// |ln 0.01|/0.3.
#define HB_DECAY_SLOW (4.60517018598809136804 / 1.5)
#define HB_DECAY_FAST (4.60517018598809136804 / 0.3)

// The options with every zero field replaced by its default. A negative order stays as it is
// (refused later).
static inline struct hb_oper_opts hb_oper_resolve(const struct hb_problem *p)
{
    struct hb_oper_opts o = p->oper;
    if (o.order == 0) o.order = 2;
    if (o.emb_dim == 0) o.emb_dim = 33;
    if (o.filter_width == 0) o.filter_width = 64;
    if (o.lmax == 0) o.lmax = p->L;
    if (o.w == 0) o.w = 14;
    if (o.short_taps == 0 && p->op == HB_HYENA) o.short_taps = 3;
    return o;
}

static inline double hb_decay(int64_t c, int64_t C)
{
    return C > 1 ? HB_DECAY_SLOW + (double)c * (HB_DECAY_FAST - HB_DECAY_SLOW) / (double)(C - 1)
                 : HB_DECAY_SLOW;
}

static inline double hb_time(int64_t j, int64_t lmax)
{
    return lmax > 1 ? (double)j / (double)(lmax - 1) : 0.0;
}

// Row j of the positional table (lmax,E), E = 2K+1 (hyena_spec section 2):
//     [ t_j, cos(f_k w_j) for k < K, -sin(f_k w_j) for k < K ]
// with w_j = 2 pi j / lmax and f_k evenly from 1e-4 to K-1.
static inline void hb_posemb_row(double *z, int64_t j, int64_t lmax, int E)
{
    int K = (E - 1) / 2;
    double w = 6.283185307179586476925 * (double)j / (double)lmax;
    z[0] = hb_time(j, lmax);
    for (int k = 0; k < K; k++) {
        double f = K > 1 ? 1e-4 + k * ((K - 1) - 1e-4) / (K - 1) : 1e-4;
        z[1 + k] = cos(f * w);
        z[1 + K + k] = -sin(f * w);
    }
}

#endif
