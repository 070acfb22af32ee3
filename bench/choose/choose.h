// choose.h: from measured points to a choice.
//
// table.c    the measured points, compact: rows by machine; read and written as JSON
// (`choices.json`)
// gather.c   that table out of result files, remembered beside the machine's other derived files
// predict.c  time or memory of an implementation at a problem, with an interval
// choose.c   the ranking of the candidates and the answer
// auto.c     the implementations `<operator>_auto`, which choose when they plan
// leftout.c  how good both are
// why.c, choosecmd.c, evaluate.c: commands.    lib/: what the library has beside table, predict,
// choose
#ifndef HB_CHOOSE_H
#define HB_CHOOSE_H

#include <jansson.h>
#include "../point.h"
#include "hyena_bench.h"

// --- the table -----------------------------------------------------------------------------------

struct choose_machine {
    char id[96], cpu[96], gpu[96];       // gpu "" if there is none
    int threads;                         // cores
    double gpu_bytes;                    // 0: unknown
};
// One measured point. Without a time: median_ns 0, and only the reason counts.
struct choose_row {
    struct hb_point pt;
    int machine;                         // index
    char status[12];                     // ok, refused, oom, timeout, wrong, crashed
    double median_ns, lo_ns, hi_ns;
    double mem_bytes;                    // of its device, tensors and all; 0: unknown
    char build[13];                      // of the core's plug-in: SHA-256, 12 digits; "" unknown
};
struct choose_table {
    struct choose_machine *machines; int n_machines;     // owned
    struct choose_row *rows; size_t n, cap;              // owned
    char home[96];                       // id of the machine that wrote it; "" unknown
};
void hb_choices_free(struct choose_table *t);
// Index of the machine, added if new; HB_ERR_OOM.
int hb_choices_machine(struct choose_table *t, const struct choose_machine *m);
int hb_choices_add(struct choose_table *t, const struct choose_row *row);        // 0, HB_ERR_OOM
int hb_choices_read(const char *path, struct choose_table *out);                 // 0, HB_ERR_*
int hb_choices_parse(const json_t *doc, const char *where, struct choose_table *out);
json_t *hb_choices_json(const struct choose_table *t);           // new reference, NULL: no memory

// All results of this project (published ones, then build/results), from the remembered table if no
// result file has changed since. No results at all: an empty table.
int hb_choices_gather(struct choose_table *out);
int hb_choices_from(const char *const *paths, struct choose_table *out);
// Loaded once for this process; NULL with the message set. Borrowed until exit.
const struct choose_table *hb_choices(void);

// --- prediction ----------------------------------------------------------------------------------

enum choose_what { CHOOSE_TIME, CHOOSE_MEMORY };
// log of the value: normal with this mean and deviation. n 0: nothing is known.
struct choose_guess {
    double mean, sd;                     // natural logarithm of ns or bytes
    int n;                               // rows it rests on
    bool exact;                          // the problem itself was measured
    bool outside;                        // beyond what was measured, on some axis
};
// rows[n] are measured points of one implementation under one set of conditions; pt is the problem.
void hb_predict(const struct choose_row *const *rows, int n, const struct hb_point *pt,
                enum choose_what what, struct choose_guess *out);
// log(time of a / time of b) at the problem, from where both were measured; n 0: in too few places.
void hb_predict_ratio(const struct choose_row *const *rows_a, int n_a, const struct hb_point *a,
                      const struct choose_row *const *rows_b, int n_b, const struct hb_point *b,
                      struct choose_guess *out);
// Leave-one-out: each row predicted from the others. Share inside its 95 % interval; err: median of
// |log ratio|. False: fewer than three rows.
bool hb_predict_check(const struct choose_row *const *rows, int n, enum choose_what what,
                      double *inside, double *err);

// --- the choice ----------------------------------------------------------------------------------

enum { CHOOSE_MAX = 32 };
struct choose_candidate {
    char impl[HB_NAME_MAX];
    struct choose_guess time, mem;
    const char *out;                     // NULL: in the running; else why not
};
struct choose_result {
    struct choose_candidate c[CHOOSE_MAX];       // in the running first, fastest first
    int n, n_in;
    int machine;                                 // index into the table, -1: none
    int rank;                                    // 0 this machine, 1 same kind, 2 another
    struct hb_choice answer;
};
// May this implementation be used for pt (pt->impl is its name)? NULL: yes, else the reason.
typedef const char *(*choose_allowed)(const struct hb_point *pt, void *ctx);
// Does it fit into the limit, asked only where the prediction cannot tell? NULL: then it is taken
// for too large.
typedef bool (*choose_fits)(const struct hb_point *pt, double limit, void *ctx);
struct choose_ask {
    struct hb_point pt;                  // impl: only its operator counts ("longconv", "hyena:x")
    double mem_limit;                    // 0: none
    const char *here;                    // this machine's id, "" unknown
    const char *machine;                 // as if on that one; NULL: the best for `here`
    const char *cpu, *gpu;               // of this machine, to find similar ones; NULL: unknown
    const char *const *only;             // NULL: every implementation with rows, and `known`
    const char *const *known;            // further names, NULL-terminated; NULL: none
    choose_allowed allowed;              // NULL: all
    choose_fits fits;
    void *ctx;
};
// 0; HB_ERR_REFUSED: nothing fits or can do it (r->c says why).
int hb_choose_among(const struct choose_table *t, const struct choose_ask *ask,
                    struct choose_result *r);
// A question of the public header as ask->pt, without a registry. HB_ERR_INPUT.
int hb_question_point(const struct hb_question *q, int threads, struct hb_point *pt);
// What is taken when nothing else decides: "longconv_fftw", "mha:attention_cudnn_cuda", ...
const char *hb_choose_default(const struct hb_point *pt);

// With the registry: all implementations of this build that take the problem and run on its device.
// The names that could be meant by op on a device, NULL-terminated, static until the next call.
const char *const *hb_choose_known(enum hb_op op, const char *device);
int hb_choose_here(const struct hb_point *pt, double mem_limit, choose_fits fits, void *ctx,
                   struct choose_result *r);
// The same as if on another machine of the results (NULL: here).
int hb_choose_on(const struct hb_point *pt, double mem_limit, const char *machine, choose_fits fits,
                 void *ctx, struct choose_result *r);
// A choose_fits: plans it in a child under the limit, less what the tensors take.
bool hb_choose_probe(const struct hb_point *pt, double limit, void *ctx);

// Prints how good predictions and choices are, by leaving out what was measured. 0 or HB_ERR_*.
int hb_choose_check(const struct choose_table *t);

// --- auto ----------------------------------------------------------------------------------------

// Rows that the registry adds: longconv_auto, attention_auto and the same with _cuda.
const struct hb_impl *hb_auto_impl(int i);       // NULL behind the last
bool hb_is_auto(const char *name);               // also of what is inside
// "hyena:auto" -> "hyena:longconv_auto", with _cuda where device is a GPU ("longconv_auto" too).
// False: nothing to do.
bool hb_auto_name(const char *name, const char *device, char out[HB_NAME_MAX]);

#endif
