// judge.h: float64 judges, one per operator. Plain loops or float64 GEMMs, compensated or pairwise
// where long sums need it; never shares code with a contestant. Compiled with -ffp-contract=off.
//
// Every judge can compute all outputs or only chosen rows: a row is one (b,c) channel for longconv,
// one (b,h,t) query for attention, and the whole output for hyena and mha.
#ifndef HB_JUDGE_H
#define HB_JUDGE_H

#include "../core/hb.h"

// y[t] for one channel: u,h (L) float64, d skip -> y (L). O(L^2), or by a float64 FFT-free split if
// the implementation chooses; relative L2 error below 1e-14.  threads: OpenMP threads it may use.
void hb_judge_conv_channel(const double *u, const double *h, double d, double *y, int64_t L);
// du[t] = sum_{q>=t} h[q-t] dy[q] + d dy[t];   dh[s] += sum_q dy[q] u[q-s];
// returns sum_t dy[t] u[t] (dd)
double hb_judge_conv_channel_bwd(const double *u, const double *h, double d, const double *dy,
                                 double *du, double *dh, int64_t L);

// The long convolution with gates and short filters (hb_conv_gates), composed of the above and the
// twins of prims64.h. All signals (D,B,L); what hb_longconv_io lets be NULL is NULL here. Gradients
// of signals = ..., of the rest += ...; dy NULL: forward only. HB_ERR_OOM without a message.
struct hb_judge_tap { const double *w, *bs, *bp; double *dw, *dbs, *dbp; };
struct hb_judge_gated {
    int64_t B, D, L;
    int taps;
    const double *u, *pre, *post, *h, *d;
    struct hb_judge_tap tap_u, tap_pre, tap_post;
    double *y;
    const double *dy;
    double *du, *dpre, *dpost, *dh, *dd;
};
int hb_judge_gated(const struct hb_judge_gated *g);

// Causal attention for the head's query rows t in rows[0..n): y (n,P). q,k,v (L,P) float64.
int hb_judge_attention_rows(const double *q, const double *k, const double *v, const int64_t *rows,
                            int64_t n, double *y, int64_t L, int64_t P);
// One head whole, backward: dq,dk,dv (L,P) = ... O(L^2 P) time, O(L P) memory.
int hb_judge_attention_bwd(const double *q, const double *k, const double *v, const double *dy,
                           double *dq, double *dk, double *dv, int64_t L, int64_t P);

// Sampled rows (judge_sample.c), for problems whose whole judge would take too long. y[i] belongs
// to t = rows[i]. Backward: dy is zero except dy[i] at rows[i]; then every gradient costs O(n L),
// complete and exact.
void hb_judge_conv_at(const double *u, const double *h, double d, const int64_t *rows, int64_t n,
                      double *y);
// du (L) = ..., dh (L) += ..., returns the increment of dd.
double hb_judge_conv_bwd_at(const double *u, const double *h, double d, const double *dy,
                            const int64_t *rows, int64_t n, double *du, double *dh, int64_t L);
// dy, dq (n,P);  dk, dv (L,P) = ...   HB_ERR_OOM without a message.
int hb_judge_attention_bwd_at(const double *q, const double *k, const double *v, const double *dy,
                              const int64_t *rows, int64_t n, double *dq, double *dk, double *dv,
                              int64_t L, int64_t P);

// Whole operators, float64 throughout; params, grads in the order of the operator's `tensors`.
// dy NULL: forward only. grads entries NULL are skipped, others are overwritten.
int hb_judge_hyena(const struct hb_problem *p, const double *u, double *const *params, double *y,
                   const double *dy, double *du, double *const *grads);
int hb_judge_mha(const struct hb_problem *p, const double *u, double *const *params, double *y,
                 const double *dy, double *du, double *const *grads);

#endif
