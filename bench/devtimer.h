// devtimer.h: times a body by the device's own clock, without launch gaps.
#ifndef HB_DEVTIMER_H
#define HB_DEVTIMER_H

#include "host.h"
#include "nvml.h"

struct hb_devtimer {
    // set by the caller
    const struct hb_device *d;
    int (*run)(void *ctx);       // enqueues one execution on d->stream
    void *ctx;
    bool cold;                   // the cache is flushed before each sample
    int slot;                    // first of two marks that are this timer's
    // its own
    void *graph;                 // owned; of `in_graph` executions; NULL: none
    int in_graph;
    bool plain;                  // no graph can be made: the work is launched each time
    char why_plain[200];
    double enqueue_s;            // what enqueueing a sample takes
    int64_t looked_ns;           // when the device's state was last read
    struct hb_gpu_state busy;    // lowest clocks, all throttle reasons, seen while it worked
    bool has_busy;
};
// Runs the body once and waits, so that whatever is loaded at first use is loaded. 0 or HB_ERR_*.
int hb_devtimer_open(struct hb_devtimer *t);
// One sample: `times` executions in a row, *ns of each. cold: times is 1.
int hb_devtimer_take(struct hb_devtimer *t, int times, double *ns);
// How it was timed, for the record: "event+graph" or "event".
const char *hb_devtimer_name(const struct hb_devtimer *t);
void hb_devtimer_close(struct hb_devtimer *t);

#endif
