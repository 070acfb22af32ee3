// devtimer.c: samples of a body by marks on the device's stream (contract: devtimer.h).
//
// Gaps      The body is captured into a graph, GRAPH_MOST executions at most, so that a sample is
//           one launch or few. In front of the first mark stands work that keeps the device busy
//           for as long as enqueueing takes (`hold`; cold: the flush itself, and a hold before it
//           where that is too short): when the mark is reached, everything behind it is enqueued.
// No graph  A body that cannot be captured is launched as it is, behind a longer hold; the record
//           says so.
// Cold      hold, flush, mark, one execution, mark.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "devtimer.h"

enum { GRAPH_MOST = 64 };
#define HOLD_LEAST_S 20e-6       // a launch is 2 to 5 us
#define HOLD_MOST_S  20e-3
#define FLUSH_S      50e-6       // the flush alone covers so much enqueueing (256 MB at 3 TB/s: 85)
#define LOOK_NS      100000000   // between two readings of clocks and throttle reasons

static void let_go(struct hb_devtimer *t)
{
    if (t->graph) t->d->graph_free(t->d, t->graph);
    t->graph = NULL;
    t->in_graph = 0;
}

// A graph of n executions. A failure is none: the text is kept, the work is launched plainly.
static int capture(struct hb_devtimer *t, int n)
{
    const struct hb_device *d = t->d;
    let_go(t);
    int rc = d->capture ? d->capture(d, d->stream) : HB_ERR_MISSING;
    if (!rc) {
        for (int i = 0; i < n && !rc; i++) rc = t->run(t->ctx);
        int end = d->captured(d, d->stream, &t->graph);      // ended in any case
        rc = rc ? rc : end;
    }
    if (!rc) {
        t->in_graph = n;
        return 0;
    }
    let_go(t);
    t->plain = true;
    snprintf(t->why_plain, sizeof t->why_plain, "%s", hb_error());
    hb_error_clear();
    return d->sync(d, d->stream);                            // is the device still well?
}

int hb_devtimer_open(struct hb_devtimer *t)
{
    t->graph = NULL;
    t->in_graph = 0;
    t->enqueue_s = 200e-6;
    int rc = t->run(t->ctx);
    return rc ? rc : t->d->sync(t->d, t->d->stream);
}

// The work of a sample: how many executions that is, or HB_ERR_*.
static int enqueue(struct hb_devtimer *t, int times)
{
    int rc = 0;
    if (t->plain) {
        for (int i = 0; i < times && !rc; i++) rc = t->run(t->ctx);
        return rc ? rc : times;
    }
    int launches = (times + t->in_graph - 1) / t->in_graph;
    for (int i = 0; i < launches && !rc; i++) rc = t->d->replay(t->d, t->graph, t->d->stream);
    return rc ? rc : launches * t->in_graph;
}

static void look(struct hb_devtimer *t)
{
    struct hb_gpu_state now;
    int64_t t0 = hb_now_ns();
    if (t0 - t->looked_ns < LOOK_NS) return;
    t->looked_ns = t0;
    if (!hb_gpu_now(&now)) return;
    if (t->has_busy) {
        now.throttle |= t->busy.throttle;
        now.sm_mhz = fmin(now.sm_mhz, t->busy.sm_mhz);
        now.mem_mhz = fmin(now.mem_mhz, t->busy.mem_mhz);
        now.temp_c = fmax(now.temp_c, t->busy.temp_c);
        now.power_w = fmax(now.power_w, t->busy.power_w);
    }
    t->busy = now;
    t->has_busy = true;
}

int hb_devtimer_take(struct hb_devtimer *t, int times, double *ns)
{
    const struct hb_device *d = t->d;
    void *s = d->stream;
    int parts = (times + GRAPH_MOST - 1) / GRAPH_MOST, each = (times + parts - 1) / parts, rc = 0;
    if (!t->plain && t->in_graph != each && (rc = capture(t, each)) != 0) return rc;
    double hold_s = fmin(fmax(1.5 * t->enqueue_s, HOLD_LEAST_S), HOLD_MOST_S);
    if (!t->cold || hold_s > FLUSH_S) d->hold(d, hold_s, s);
    if (t->cold && (rc = d->flush(d, s)) != 0) return rc;
    int64_t t0 = hb_now_ns();
    rc = d->mark(d, t->slot, s);
    int done = rc ? rc : enqueue(t, times);
    if (done < 0) return done;
    if ((rc = d->mark(d, t->slot + 1, s)) != 0) return rc;
    t->enqueue_s = fmax(0.9 * t->enqueue_s, 1e-9 * (double)(hb_now_ns() - t0));
    look(t);
    double seconds = 0;
    if ((rc = d->between(d, t->slot, t->slot + 1, &seconds)) != 0) return rc;
    *ns = fmax(seconds * 1e9, 1) / done;
    return 0;
}

const char *hb_devtimer_name(const struct hb_devtimer *t)
{
    return t->plain ? "event" : "event+graph";
}

void hb_devtimer_close(struct hb_devtimer *t)
{
    if (t->d) let_go(t);
}
