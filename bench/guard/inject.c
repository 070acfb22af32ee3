// inject.c: a slowdown on purpose (contract: inject.h).
#include "inject.h"

#include "../host.h"

#define CALIBRATION_NS 5e7
enum { CHAIN = 16, BATCHES = 15 };

static volatile double sink;

static void work(uint64_t units)
{
    double x = sink;
    for (uint64_t u = 0; u < units; u++)
        for (int i = 0; i < CHAIN; i++) {
            x = x * 0.999999 + 1e-6;
            __asm__ volatile("" : "+x"(x));      // the compiler keeps every step
        }
    sink = x;
}

static int chain_body(void *units) { work(*(uint64_t *)units); return 0; }

// ns of one undisturbed execution: the fastest of BATCHES batches, each a share of CALIBRATION_NS.
static int time_of(hb_body run, void *ctx, double *ns)
{
    double each[BATCHES];
    int64_t t0 = hb_now_ns();
    int rc = run(ctx), n = 1;
    if (!rc) rc = run(ctx);
    double once = (double)(hb_now_ns() - t0) / 2;
    while (once * n < CALIBRATION_NS / BATCHES && n < 1 << 20) n *= 2;
    for (int b = 0; b < BATCHES && !rc; b++) {
        t0 = hb_now_ns();
        for (int i = 0; i < n && !rc; i++) rc = run(ctx);
        each[b] = (double)(hb_now_ns() - t0) / n;
    }
    if (!rc) *ns = hb_quantile(each, BATCHES, 0);
    return rc;
}

int hb_inject_open(struct hb_inject *j, hb_body run, void *ctx, double share, bool device)
{
    enum { MANY = 100 };
    uint64_t many = MANY;
    double body = 0, chain = 1;
    *j = (struct hb_inject){ .run = run, .ctx = ctx };
    if (device) return hb_fail(HB_ERR_REFUSED, "a slowdown can be injected on the cpu only");
    int rc = time_of(run, ctx, &body);
    if (!rc) rc = time_of(chain_body, &many, &chain);
    if (!rc) j->units = (uint64_t)(share * body / (chain / MANY) + 0.5);
    return rc;
}

int hb_inject_body(void *inject)
{
    struct hb_inject *j = inject;
    int rc = j->run(j->ctx);
    work(j->units);
    return rc;
}

void hb_inject_instructions(int64_t n)
{
    for (int64_t i = 0; i < n; i += 64) __asm__ volatile(".rept 64\n\tnop\n\t.endr");
}
