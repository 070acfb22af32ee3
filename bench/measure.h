// measure.h: measuring one point, or two side by side, in a child process: what is asked for, and
// the rows that come back. run and sweep ask (measure.c), the hidden command __point answers
// (pointcmd.c, pointdoc.c).
#ifndef HB_MEASURE_H
#define HB_MEASURE_H

#include "check.h"
#include "child.h"
#include "devtimer.h"
#include "sample.h"

#define HB_PAIR_NAME_MAX (2 * HB_POINT_NAME_MAX + 8)

// Defaults. The judge samples rows above 2 GFLOP; a sample lasts 20 us or more (timer: 50 ns).
#define HB_JUDGE_FLOP   2e9
#define HB_MIN_SAMPLE_S 20e-6
enum { HB_MIN_SAMPLES = 9, HB_MAX_SAMPLES = 400 };
// By a device's marks (resolution 0.5 us) at least so long.
#define HB_MIN_DEVICE_SAMPLE_S 100e-6

struct hb_measure_opts {
    struct hb_sample_opts sample;    // `seed` and `before` are set from the point
    double judge_flop;               // hb_check_opts.judge_flop
    double time_limit_s;             // of the whole child; 0: none
    // `compare`: another build's program, its whole environment (child.h); the share of its time by
    // which every execution is slowed down on purpose (inject.h).
    const char *exe;
    const char *const *env;
    double inject;
    // Of the device that the point runs on. 0: 70 % of what the host has available; on another
    // device than the cpu all that it has free.
    size_t mem_bytes;
};
struct hb_measured {
    const char *status;              // as in child.h
    char detail[512];
    double median_ns, ci_lo_ns, ci_hi_ns;            // one point and status ok, else 0
    double alloc_peak_bytes;         // of the point's device
    double ratio, ratio_lo, ratio_hi;                // a pair and status ok, else 0
    double elapsed_s;                                // of the child
    json_t *doc;                     // {benchmarks, hb_skips, hb_pairs} for hb_run_add; owned
};
// n = 1: a point; n = 2: a pair, alternated in one process, ratio = time of pts[0] / time of
// pts[1]. Every outcome is a row in doc. 0 also if the child failed; HB_ERR_RUN if none started.
int hb_measure(const struct hb_point *pts, int n, const struct hb_measure_opts *o,
               struct hb_measured *out);
// One point of two builds in step: a process each, o[0] and o[1], and when both are set up samples
// in turns (A B, B A, ...), so that what disturbs for longer than two samples disturbs both.
// One thread on the cpu: both on one core, times of the processor, so that programs beside them
// disturb less. Rounds: at least sample.min_samples, then until sample.budget_s is spent or
// max_samples reached.
// ns[0]: the median of the first; ns[1]: that times the median ratio of the rounds. A side that is
// not ok has no time: then both ns are 0.
// failed: the side that ended the turns, or -1.
struct hb_in_step {
    int failed, rounds;
    const char *status[2];
    char detail[2][512];
    double ns[2];
};
int hb_measure_in_step(const struct hb_point *pt, const struct hb_measure_opts o[2],
                       struct hb_in_step *out);
// The planning step: an implementation plans these problems, measuring, and so leaves its wisdom on
// this machine. One child for all of pts[n] (n <= HB_PLAN_POINTS); a problem that cannot be planned
// is passed over, what the time limit cuts off is planned with its point. *took: seconds.
enum { HB_PLAN_POINTS = 512 };
int hb_plan_points(const struct hb_point *pts, int n, const struct hb_measure_opts *o,
                   double *took_s);
// Only plans the real problem, to learn whether it is refused or does not fit. Status ok says
// no more than that.
int hb_probe(const struct hb_point *pts, int n, const struct hb_measure_opts *o,
             struct hb_measured *out);
// Heads (attention, mha; 0: one per 64 channels, or one) and order (hyena; 0: the default)
// where impl has them.
void hb_point_fit_op(struct hb_point *pt, int64_t H, int order);
// "A vs B": key of a pair in a run and its name in hb_pairs.
void hb_pair_name(const struct hb_point *a, const struct hb_point *b, char *buf, size_t cap);
// A row of hb_skips for a point (n 1) or a pair (n 2): name, axes, status, detail; the caller adds
// what else it knows. NULL with the message set.
json_t *hb_skip_row(const struct hb_point *pts, int n, const char *status, const char *detail);

// --- inside the child ----------------------------------------------------------------------------

// What one point's measurement left behind.
struct hb_taken {
    const struct hb_point *pt;
    const struct hb_impl *impl;
    const struct hb_samples *s;
    const struct hb_check_result *check;
    const char *plan_text;                           // "" if the implementation says nothing
    int64_t plan_ns, wall_ns, t_start_ns;
    size_t alloc_peak_bytes, io_bytes;               // alloc_peak: with plan and guards
    size_t rss_peak_bytes;                           // 0: unknown
    double steal_frac;                               // of all cores while sampling; < 0: unknown
    double other_frac;                               // used by other processes, likewise
    int64_t ctx_invol, pagefaults_major;
    double setup_s;                                  // planning trial, judge, plan; no warm-up
    double init_s, inputs_s, judge_s, plan_s;        // parts: host and device; both sets of inputs;
                                                     // references; all plans
    const char *timer, *timer_note;                  // "host", "event+graph", "event"; why no graph
    // on a device, else device_name is NULL
    const char *device_name;
    size_t device_peak_bytes, device_base_bytes;     // plan and io; what the device itself holds
    size_t device_workspace_bytes, l2_bytes;         // of the plan alone
    struct hb_gpu_state gpu[3];                      // before, busy, after
    bool has_gpu[3];
};
// The axes of a point: hb_impl, hb_op, hb_scope, ... into obj. 0 or HB_ERR_RUN.
int hb_doc_axes(json_t *obj, const struct hb_point *pt);
// The entries of benchmarks[]: one per repetition (measuring.md 7.1). NULL with the message set.
json_t *hb_doc_entries(const struct hb_taken *t);
// One entry of hb_pairs[].
json_t *hb_doc_pair(const struct hb_taken *a, const struct hb_taken *b);

#endif
