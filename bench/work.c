// work.c: FLOP and compulsory bytes of a point by model (contract: point.h, work.h). Everything
// follows from the point's name, so that records of other machines can be read without their
// plug-ins.
//
//     longconv   direct: L (L+1) B D.  Else FFT, n = 2L: 2.5 n log2 n for each of B D forward, B D
//                inverse and D filter transforms (the last not with a fixed filter), 6 (L+1) a
//                product of half-spectra
//     attention  2 P L (L+1) B H; naive fills the square and masks: 4 P L^2 B H
//     hyena      projections 2 (order+2) D^2 B L, short filter 2 K (order+1) D B L, gates
//                order D B L, filter generation 2 L (E W + 2 W^2 + W C) once with
//                C = (order-1) D, order-1 convolutions
//     mha        projections 8 D^2 B L, short filter 2 K 3 D B L, attention
// Backward: attention 2.5 times its forward where the weights are computed again, twice where they
// are kept (naive); everything else twice. A multiply-add counts as two.
// flop_min takes the cheaper of direct and FFT for the convolution; for attention the causal half
// with kept weights.
#include <math.h>
#include <string.h>

#include "work.h"
#include "../impls/core/oper.h"

// One figure per pass; `own` is what the named method does, `least` what the best exact one would.
struct cost { double own, least; };

static double transform_flop(double n) { return 2.5 * n * log2(n); }

static struct cost conv_forward(const struct hb_problem *p, const char *method)
{
    double B = (double)p->B, D = (double)p->D, L = (double)p->L;
    double direct = L * (L + 1) * B * D;
    double rows = 2 * B * D + (p->filter == HB_FILTER_FIXED ? 0 : D);
    double fft = rows * transform_flop(2 * L) + 6 * (L + 1) * B * D;
    return (struct cost){ strstr(method, "direct") ? direct : fft, fmin(direct, fft) };
}

static struct cost attention_forward(const struct hb_problem *p, const char *method)
{
    double BH = (double)p->B * (double)p->H, P = (double)(p->D / (p->H ? p->H : 1)),
           L = (double)p->L;
    double causal = 2 * P * L * (L + 1) * BH;
    return (struct cost){ strstr(method, "naive") ? 4 * P * L * L * BH : causal, causal };
}

// Parameters of the operator, elements.
static double n_params(const struct hb_problem *p, const struct hb_oper_opts *o)
{
    double D = (double)p->D;
    double blocks = p->op == HB_HYENA ? o->order + 1 : 3;
    double n = blocks * (D * D + D) + D * D + D;                       // projections in and out
    if (o->short_taps) n += blocks * D * (o->short_taps + 1);
    if (p->op == HB_MHA || o->no_long) return n;
    double E = o->emb_dim, W = o->filter_width, C = (o->order - 1) * D;
    return n + E * W + 2 * W * W + W * C + 4 * W + C + (double)o->lmax * E;
}

// What an operator does outside of its core, forward.
static double around_core(const struct hb_problem *p, const struct hb_oper_opts *o)
{
    double B = (double)p->B, D = (double)p->D, L = (double)p->L;
    double blocks = p->op == HB_HYENA ? o->order + 1 : 3;
    double f = 2 * (blocks + 1) * D * D * B * L + 2 * o->short_taps * blocks * D * B * L;
    if (p->op == HB_MHA) return f;
    f += o->order * D * B * L;
    double E = o->emb_dim, W = o->filter_width, C = (o->order - 1) * D;
    return o->no_long ? f : f + 2 * L * (E * W + 2 * W * W + W * C);
}

// Bytes of all parameters and filters, read once; `cast` ones (projections) in the signals' type,
// the rest in float32, or float64 beside it. *n: elements.
static double weight_bytes(const struct hb_problem *p, const struct hb_oper_opts *o, double signal,
                           double wide, double *n)
{
    double D = (double)p->D, blocks = p->op == HB_HYENA ? o->order + 1 : 3;
    *n = 0;
    if (p->op == HB_LONGCONV) *n = D * (double)(p->L + 1);
    if (p->op != HB_HYENA && p->op != HB_MHA) return *n * wide;
    *n = n_params(p, o);
    double cast = (blocks + 1) * D * (D + 1);
    return cast * signal + (*n - cast) * wide;
}

// What must move, whatever the method: tensors read once and written once; += reads and writes.
static double least_bytes(const struct hb_point *pt, const struct hb_oper_opts *o)
{
    static const double size[HB_DTYPE_COUNT] = { 4, 8, 2, 2 };
    const struct hb_problem *p = &pt->p;
    bool fwd = pt->pass != HB_PASS_BWD, bwd = pt->pass == HB_PASS_BWD || pt->pass == HB_PASS_FWDBWD;
    double X = (double)p->B * (double)p->D * (double)p->L;             // one activation
    double in = p->op == HB_ATTENTION ? 3 * X : X;  // q, k, v or u; their gradients likewise
    double wide = p->dtype == HB_F64 ? 8 : 4, n = 0;
    double weights = weight_bytes(p, o, size[p->dtype], wide, &n);
    double signals = in + (fwd ? X : 0) + (bwd ? X + in : 0);
    return signals * size[p->dtype] + weights + (bwd ? 2 * n * wide : 0);
}

struct hb_work hb_point_work(const struct hb_point *pt)
{
    const struct hb_problem *p = &pt->p;
    struct hb_oper_opts o = hb_oper_resolve(p);
    bool oper = p->op == HB_HYENA || p->op == HB_MHA,
         conv = p->op == HB_LONGCONV || p->op == HB_HYENA;
    const char *method = oper ? p->inner : pt->impl;
    struct cost core = conv ? conv_forward(p, method) : attention_forward(p, method);
    double n_core = p->op == HB_HYENA ? (o.no_long ? 0 : o.order - 1) : 1;
    double around = oper ? around_core(p, &o) : 0;
    bool fwd = pt->pass != HB_PASS_BWD, bwd = pt->pass == HB_PASS_BWD || pt->pass == HB_PASS_FWDBWD;
    double times = (fwd ? 1 : 0) + (bwd ? 2 : 0);
    double again = bwd && !conv && !strstr(method, "naive") ? 0.5 : 0;     // weights computed again
    return (struct hb_work){
        .flop = (times + again) * n_core * core.own + times * around,
        .flop_min = times * (n_core * core.least + around),
        .bytes_min = least_bytes(pt, &o),
    };
}

double hb_flop_bound_ratio(int64_t L, int64_t D, bool causal)
{
    return 1 + (double)L / ((causal ? 4.0 : 2.0) * (double)D);
}
