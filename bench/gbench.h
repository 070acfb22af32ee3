// gbench.h: Google Benchmark behind a C interface. gbench.cc is the only C++ of the project; it
// builds with Google Benchmark 1.7.1 (Debian 12) and 1.8.3 (Ubuntu 24.04).
//
// Times are always ours (manual time): a body returns the seconds to be booked for one iteration,
// so that what lies outside the timer (filling a cache with other data, the forward pass of a timed
// backward) costs nothing.
#ifndef HB_GBENCH_H
#define HB_GBENCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// One iteration: returns its seconds (> 0), or anything else to end the run with an error.
typedef double (*hb_gb_iter)(void *ctx);

// Runs `iterations` iterations under Google Benchmark: no output, no files, no flag or BENCHMARK_*
// variable has a say. *mean_s: the mean that it booked. 0; -1: an iteration failed; -2: Google
// Benchmark did.
int hb_gb_run(const char *name, int64_t iterations, hb_gb_iter iter, void *ctx, double *mean_s);

// Google Benchmark's own command line over a list of benchmarks.
struct hb_gb_bench {
    const char *name; // without "/manual_time", which Google Benchmark appends
    int (*start)(void *ctx);                 // before each run of this benchmark; 0 or an error
    hb_gb_iter iter;
    const char *(*error)(void *ctx);         // text for a start or an iteration that failed
    void *ctx;
    double items, bytes;                     // per iteration; 0: not reported
    double (*peak_bytes)(void *ctx);         // counter max_bytes_used after the run; NULL: none
};
// Takes the --benchmark_ flags out of argv. 0; -1: unknown arguments are left in argv[1..*argc)
// (nothing was run); -2: Google Benchmark failed; -3: its filter matches none. *n_errors: runs that
// ended with an error.
int hb_gb_main(int *argc, char **argv, const struct hb_gb_bench *benches, size_t n,
               size_t *n_errors);

#ifdef __cplusplus
}
#endif

#endif
