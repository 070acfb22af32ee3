// point.h: a point is one implementation on one problem. Its name is its key everywhere.
#ifndef HB_POINT_H
#define HB_POINT_H

#include "host.h"

enum hb_pass { HB_PASS_FWD, HB_PASS_FWD_CACHED, HB_PASS_BWD, HB_PASS_FWDBWD, HB_PASS_COUNT };
enum hb_scope { HB_SCOPE_CORE, HB_SCOPE_OPERATOR, HB_SCOPE_STEP, HB_SCOPE_COUNT };
enum hb_mode { HB_MODE_WARM, HB_MODE_COLD, HB_MODE_COUNT };

struct hb_point {
    char impl[HB_NAME_MAX];      // "longconv_fftw", "hyena:longconv_fftw"
    char device[16];             // "cpu0", "cuda0"
    struct hb_problem p;         // p.op, p.inner follow from impl
    enum hb_pass pass;
    enum hb_scope scope;         // core for longconv, attention; operator for hyena, mha
    enum hb_mode mode;
    uint64_t seed;               // of the inputs; not part of the name
};

// IMPL/dev:cpu0/dt:f32/B:1/D:256[/H:4][/N:2]/L:1024/pass:fwd/plan:measure/T:2/mode:warm/
//     scope:core/manual_time
// H for attention and mha, N (order) for hyena. fwd_cached means the filter's transform is outside
// the timer. An operator's options that differ from the default stand after N or H (point.c).
#define HB_POINT_NAME_MAX 512
int hb_point_name(const struct hb_point *pt, char *buf, size_t cap);
int hb_point_parse(const char *name, struct hb_point *pt);   // exact inverse; HB_ERR_INPUT
// Fills op, inner and scope from impl and the registry; checks ranges, divisibility, existence.
// "hyena:auto" becomes "hyena:longconv_auto", on a GPU "hyena:longconv_auto_cuda" (choose.h).
int hb_point_resolve(struct hb_point *pt);
// NULL, or why `impl` does not do this point: dtype, pass, filter, then impl->refuses, then the
// same of what is inside. A result, not an error. The text is good until the next call.
const char *hb_point_refuses(const struct hb_point *pt, const struct hb_impl *impl);

const char *hb_op_str(enum hb_op);        int hb_op_parse(const char *, enum hb_op *);
const char *hb_dtype_str(enum hb_dtype);  int hb_dtype_parse(const char *, enum hb_dtype *);
const char *hb_pass_str(enum hb_pass);    int hb_pass_parse(const char *, enum hb_pass *);
const char *hb_scope_str(enum hb_scope);  int hb_scope_parse(const char *, enum hb_scope *);
const char *hb_mode_str(enum hb_mode);    int hb_mode_parse(const char *, enum hb_mode *);
const char *hb_planning_str(enum hb_planning);
int hb_planning_parse(const char *, enum hb_planning *);

// Work model of the *method named*: flop executed by this implementation's algorithm, compulsory
// bytes (inputs read once, outputs written once) and the bound's flop: the least any exact method
// of the operator's class does (causal attention 2 P L (L+1) per head forward, direct conv L(L+1),
// FFT conv 2.5 n log2 n per real transform of n = 2L). Backward of attention 2.5x (2x where
// the weights are kept: naive), of conv 2x, GEMMs 2x.
struct hb_work { double flop, bytes_min, flop_min; };   // flop_min: the bound's flop
struct hb_work hb_point_work(const struct hb_point *pt);

#endif
