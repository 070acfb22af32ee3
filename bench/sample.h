// sample.h: taking samples. Google Benchmark (through gbench.h) runs them; how many is decided
// here, and all are kept.
#ifndef HB_SAMPLE_H
#define HB_SAMPLE_H

#include <stdbool.h>
#include "stats.h"

struct hb_sample_opts {
    double ci_target;        // stop at this relative half-width of the 95 % interval (0.01)
    double budget_s;         // or when this much wall time is spent (after min_samples)
    int min_samples;         // >= 9
    int max_samples;
    double min_sample_s;     // a sample repeats the body for as long (timer resolution): 20 us
    uint64_t seed;
    void (*before)(void *);  // outside the timer, before every sample: cold cache; NULL: warm.
                             // Gets the body's ctx; with it a sample is exactly one execution
    // Takes a sample itself, by a device's clock: `times` executions, *ns of each. It prepares what
    // `before` would. NULL: the host's clock around the body. Gets the body's ctx.
    int (*timed)(void *ctx, int times, double *ns);
    bool single;             // with `timed`: a sample is exactly one execution (cold)
    // Samples in turns with another process (one body; NULL: alone). turn waits for ours (1: there
    // are no more, which ends the sampling, nothing else does), turned gives it back with the
    // sample's ns. Also around the warm-up. A sample follows one execution that is not timed: the
    // other process had the caches.
    int (*turn)(void);
    void (*turned)(double ns);
    bool turn_cpu;           // the ns of a turn are the processor's, without waiting for a core
};
struct hb_samples {
    size_t n;                // samples; ns[i], cpu_ns[i] are per execution of the body
    double *ns, *cpu_ns;     // owned; hb_samples_free
    int iterations;          // executions per sample
    const char *stop;        // "ci", "plateau", "count", "budget"
    const char *steady;      // "steady", "trend", "bimodal", "unknown"
    struct hb_summary s;
};
// Body: runs once, returns 0 or HB_ERR_* (which ends the sampling and is returned).
typedef int (*hb_body)(void *ctx);
// n_bodies 1, or 2 for an alternated pair (A B B A ...; both get the same number of samples, sample
// i of each belongs to round i). Warm-up: at least 2 executions and 50 ms each.
int hb_sample(const char *const *names, const hb_body *bodies, void *const *ctx, int n_bodies,
              const struct hb_sample_opts *o, struct hb_samples *out);
void hb_samples_free(struct hb_samples *s);

// Cold cache: init once (memory of twice the last-level cache, until exit), then hb_flush_cache as
// `before`, or called from one.
int hb_flush_cache_init(void);
void hb_flush_cache(void *unused);

#endif
