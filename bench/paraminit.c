// paraminit.c: first values of parameters (contract: paraminit.h).
#include <math.h>

#include "paraminit.h"
#include "../impls/core/oper.h"
#include "../impls/core/rng.h"

int64_t hb_tensor_size(const struct hb_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

void hb_posemb(float *z, int64_t lmax, int64_t E)
{
    double row[HB_EMB_MAX];
    for (int64_t j = 0; j < lmax; j++) {
        hb_posemb_row(row, j, lmax, (int)E);
        for (int64_t e = 0; e < E; e++) z[j * E + e] = (float)row[e];
    }
}

int hb_param_init(const struct hb_tensor *t, bool lm, int n_layer, uint64_t seed, uint64_t stream,
                  const struct hb_problem *p, float *out)
{
    enum hb_init kind = lm ? t->lm_init : t->init;
    double arg = lm ? (double)t->lm_init_arg : (double)t->init_arg;
    int64_t n = hb_tensor_size(t);
    if (t->rank < 1 || t->rank > 3 || n < 1)
        return hb_fail(HB_ERR_INPUT, "%s: a tensor of rank %d with %lld elements", t->name, t->rank,
                       (long long)n);
    if (lm && t->residual_out) {
        if (n_layer < 1) return hb_fail(HB_ERR_INPUT, "%s: n_layer is %d", t->name, n_layer);
        arg /= sqrt(2.0 * n_layer);
    }
    switch (kind) {
    case HB_INIT_ZERO:
    case HB_INIT_ONE:
    case HB_INIT_CONST:
        for (int64_t i = 0; i < n; i++)
            out[i] = kind == HB_INIT_CONST ? (float)arg : kind == HB_INIT_ONE ? 1.0f : 0.0f;
        return 0;
    case HB_INIT_NORMAL:
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)(arg * hb_rng_normal(seed, stream, (uint64_t)i));
        return 0;
    case HB_INIT_UNIFORM:
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)(arg * (2 * hb_rng_uniform(seed, stream, (uint64_t)i) - 1));
        return 0;
    case HB_INIT_POSEMB: {
        int64_t lmax = p->oper.lmax ? p->oper.lmax : p->L, E = t->shape[t->rank - 1];
        if (n != lmax * E || E % 2 == 0 || E > HB_EMB_MAX)
            return hb_fail(HB_ERR_INPUT, "%s: a positional table must be (1, %lld, odd up to %d)",
                           t->name, (long long)lmax, HB_EMB_MAX);
        hb_posemb(out, lmax, E);
        return 0;
    }
    }
    return hb_fail(HB_ERR_INPUT, "%s: unknown kind of initialisation %d", t->name, (int)kind);
}
