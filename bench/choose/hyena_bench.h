// hyena_bench.h: which implementation to use, as a C library (libhyena_bench.so).
//
//     struct hb_question q = { .op = "longconv", .L = 12000, .B = 4, .D = 1024 };
//     struct hb_choice c;
//     if (hb_choose(&q, &c) == 0) printf("%s, about %.3g ms\n", c.impl, 1e-6 * c.time_ns);
//
// The answer comes from measurements: a table of choices that `hyena-bench choose --table FILE`
// writes
// and `make install` puts beside the library. Fields left 0 or NULL mean the defaults given below.
// Safe to call from several threads.
#ifndef HYENA_BENCH_H
#define HYENA_BENCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hb_question {
    const char *op;            // "longconv", "attention", "hyena", "mha"
    int64_t B, D, L;           // batch (1), channels (256), sequence length; L is needed
    int64_t H;                 // heads of attention and mha; one per 64 channels, or one
    int order;                 // of hyena; 2
    const char *dtype;         // "f32" ("f16", "bf16", "f64")
    const char *pass;          // "fwd" ("fwd_cached", "bwd", "fwdbwd")
    const char *device;        // "cpu0" ("cuda0")
    const char *mode;          // "warm", "cold": caches flushed before each execution
                               // (cpu0 warm, else cold)
    int threads;               // 0: all of this machine
    int64_t mem_limit;         // bytes that tensors and workspace may take together; 0: no limit
    const char *const *only;   // names to choose from, NULL at the end; NULL: all measured
};

enum hb_reason {
    HB_MEASURED,               // this very problem was measured on this machine
    HB_INTERPOLATED,           // neighbours were, on this machine
    HB_SIMILAR_MACHINE,        // measured or interpolated on a machine of the same kind
    HB_DEFAULT,                // nothing is known: the default of this operator
};

struct hb_choice {
    char impl[128];            // "longconv_fftw", "hyena:longconv_fftw"
    char runner_up[128];       // "" if there is no second
    enum hb_reason reason;
    int tie;                   // 1: the data cannot tell impl from runner_up; a default breaks it
    double time_ns, time_lo_ns, time_hi_ns;      // with a 95 % interval; 0 if unknown
    double runner_ns, runner_lo_ns, runner_hi_ns;
    double margin, margin_lo, margin_hi;         // time of runner_up / time of impl
    double regret, regret_hi;  // what a wrong choice costs: expected, and at the far end of the
                               // interval, of impl against the fastest possible; 0.03 = 3 % slower
    double mem_bytes, mem_hi_bytes;              // expected, and surely not more; 0 if unknown
    char machine[96];          // where it was measured
    char note[256];            // one line for people: what the answer rests on
};

// 0; or -2: the question is wrong, -3: nothing fits (memory) or can do it, -4: no table was found,
// -5: the table cannot be read. hb_choice_error says more.
int hb_choose(const struct hb_question *q, struct hb_choice *out);
// The table that hb_choose reads from now on; NULL: $HYENA_BENCH_CHOICES, else that of the
// installation. 0 or -4, -5; then the one before stays.
int hb_choose_table(const char *path);
// Of this thread's last call; "" if it went well. Good until its next call.
const char *hb_choice_error(void);
const char *hb_reason_str(enum hb_reason r);

#ifdef __cplusplus
}
#endif
#endif
