// sweep.h: a sweep file, the points that follow from it, and the order in which they are measured.
//
// sweep_file.c reads and checks the file, sweep_sched.c predicts and orders, sweep_past.c remembers
// earlier runs, sweep_plan.c leaves FFT wisdom, sweep_refine.c sharpens crossovers, sweep_show.c
// prints, sweep.c is the command.
#ifndef HB_SWEEP_H
#define HB_SWEEP_H

#include "measure.h"
#include "record.h"

enum { SWEEP_MAX_LENGTHS = 128, SWEEP_MAX_IMPLS = 64, SWEEP_MAX_GROUPS = 64, SWEEP_TEXT = 160,
       SWEEP_MAX_DEVICES = 4 };

// What `defaults` sets and each group, pair or refinement may set again.
// device, dtype and mode may be lists in the file: of a point's settings they are one of each,
// hb_sweep_variant.
struct sweep_settings {
    char device[16];                                      // "": the implementation's own
    enum hb_dtype dtype;
    enum hb_mode mode;
    char devices[SWEEP_MAX_DEVICES][16];
    enum hb_dtype dtypes[HB_DTYPE_COUNT];
    enum hb_mode modes[HB_MODE_COUNT];
    int n_devices, n_dtypes, n_modes;
    enum hb_planning planning;
    bool pass[HB_PASS_COUNT];
    int64_t B, D, H, order, threads, seed, priority;      // threads 0: all; H 0: one per 64 of D
    int64_t lengths[SWEEP_MAX_LENGTHS];
    int n_lengths;
    int64_t mem_bytes;                                    // 0: hb_default_mem_limit
    double time_limit_s, ci_target, budget_s, judge_flop; // per point
    int64_t min_samples, max_samples;
};
struct sweep_group {
    char id[SWEEP_TEXT], title[SWEEP_TEXT];
    struct sweep_settings set;
    char impls[SWEEP_MAX_IMPLS][HB_NAME_MAX];             // globs already expanded (registry)
    int n_impls;
};
struct sweep_pair {
    char a[HB_NAME_MAX], b[HB_NAME_MAX], title[SWEEP_TEXT];
    struct sweep_settings set;
};
enum sweep_what { SWEEP_TIME, SWEEP_MEMORY };
// dtype and pass: of those of the group; -1: its first
struct sweep_refine {
    char a[HB_NAME_MAX], b[HB_NAME_MAX], group[SWEEP_TEXT];
    int dtype, pass;
    enum sweep_what what;
    int64_t steps, priority;
};
struct sweep_file {
    char name[SWEEP_TEXT], title[SWEEP_TEXT], sha256[65];  // sha256 of the file's text
    struct sweep_group *groups;   int n_groups;            // owned
    struct sweep_pair *pairs;     int n_pairs;             // owned
    struct sweep_refine *refines; int n_refines;           // owned
};
// Reads and checks all of the file: an unknown key, a wrong type or a value out of range is one
// line that names file, place and what was expected. Needs the registry. Returns 0 or
// HB_ERR_INPUT, HB_ERR_MISSING.
int hb_sweep_read(const char *path, struct sweep_file *f);
void hb_sweep_free(struct sweep_file *f);

// --- the points ----------------------------------------------------------------------------------

enum sweep_state { ITEM_PENDING, ITEM_DONE, ITEM_DROPPED };
struct sweep_item {
    int n;                                   // 1 a point, 2 a pair, 0 a refinement
    struct hb_point pt[2];
    char name[HB_PAIR_NAME_MAX];             // its key in the run
    char title[SWEEP_TEXT];                  // pairs
    struct hb_measure_opts opts;
    int64_t priority;
    uint64_t groups;                         // bit set of the groups it belongs to
    int refine, rank;                        // refinement, -1: none; rank: order in the file
    enum sweep_state state;
    // what came out: from this run or, resumed, from what was there
    const char *status;                      // points to a constant; NULL while pending
    double median_ns, lo_ns, hi_ns, mem_bytes, ratio, ratio_lo, ratio_hi;
    double setup_s, sampling_s, elapsed_s;   // setup: planning and judge
    double predicted_s;
};
struct sweep_past { struct hb_point pt; double median_ns, setup_s; };
struct sweep {
    struct sweep_file file;
    const char *path;
    struct sweep_item *items; size_t n, cap; // owned
    struct sweep_past *past; size_t n_past;  // owned; what earlier runs measured on this machine
    double t0_s, budget_s;                   // start; 0: no limit
    double sample_share;                     // sampling time used of what was allowed, running mean
    bool refine;
};
// Appends a point (or pair), resolved and named; a point that is there already gets the higher
// priority and the longer time limit. Returns its index or HB_ERR_*.
int hb_sweep_add(struct sweep *s, const struct hb_point *pts, int n,
                 const struct sweep_settings *set, int group);
// How many combinations of device, dtype and mode there are, and the settings with one of them.
int hb_sweep_variants(const struct sweep_settings *set);
struct sweep_settings hb_sweep_variant(const struct sweep_settings *set, int i);
// A point of these settings, with their device, dtype and mode.
int hb_sweep_point(const struct sweep_settings *set, const char *impl, int64_t L, enum hb_pass pass,
                   struct hb_point *pt);
// All points of the file, filtered: only implementations matching glob (NULL: all), only these
// lengths (n 0: all).
int hb_sweep_expand(struct sweep *s, const char *glob, const int64_t *lengths, int n_lengths);
// By priority, length, file; refinements at the end of their priority.
void hb_sweep_sort(struct sweep *s);

// Reads the newest result files of this machine, for predictions only. 0 or HB_ERR_OOM; unreadable
// files do not matter.
int hb_sweep_remember(struct sweep *s);
// Seconds one execution takes, from what was measured of the same implementation and the work
// model; *known false: not by this run.
double hb_sweep_predict_exec(const struct sweep *s, const struct sweep_item *it, bool *known);
double hb_sweep_predict(const struct sweep *s, const struct sweep_item *it);   // s, whole child
// Would even the fewest samples take longer than its limit by far?
bool hb_sweep_hopeless(const struct sweep *s, const struct sweep_item *it);
double hb_sweep_remaining(const struct sweep *s);                              // s, all pending
void hb_sweep_learn(struct sweep *s, struct sweep_item *it, const struct hb_measured *m);
// The same from a record that is there: {benchmarks, hb_skips, hb_pairs}. False: dropped.
bool hb_sweep_restore(struct sweep_item *it, const json_t *doc);

// The crossing of refinement r over the lengths measured so far, of points up to this priority
// (INT64_MAX: all). Returns their number, or HB_ERR_*.
int hb_sweep_crossing(const struct sweep *s, const struct sweep_refine *r, int64_t priority,
                      struct hb_crossing *x);
// The planning step; planning gets {implementation: seconds}.
int hb_sweep_plan(const struct sweep *s, json_t *planning);

// A refinement's pass, and its group's settings with its type: the first of each if it names none.
enum hb_pass hb_sweep_refine_pass(const struct sweep *s, const struct sweep_refine *r);
struct sweep_settings hb_sweep_refine_set(const struct sweep *s, const struct sweep_refine *r);
// The next length that would sharpen refinement r: between the measured lengths around its
// crossover; 0: there is none or it is sharp enough. Of what was measured only points up to its
// priority count, so that a resumed sweep, which has later ones already, takes the same lengths.
int64_t hb_sweep_refine_length(const struct sweep *s, const struct sweep_refine *r);

double hb_sweep_left(const struct sweep *s);     // seconds of the budget; INFINITY: no limit

// --- for people ----------------------------------------------------------------------------------

void hb_sweep_progress(const struct sweep *s, const char *what);
void hb_sweep_print_curve(const struct sweep *s, int group);   // time against length, in letters
int hb_sweep_print_tables(const struct sweep *s);
int hb_sweep_print_plan(const struct sweep *s);                  // --dry-run

#endif
