// inject.h: a slowdown on purpose, for measuring what `compare` can see. Only the hidden commands
// take it, from their request; no environment variable, option or file of a user reaches it, and
// what they measured with it is never written as a result.
#ifndef HB_INJECT_H
#define HB_INJECT_H

#include "../sample.h"

// A body that is followed by calibrated work: `units` times a chain of dependent multiply-adds
// (latency alone: no memory, no other core).
struct hb_inject { hb_body run; void *ctx; uint64_t units; };
// Times the body and the chain (50 ms each or more) and sets units to `share` of the body's time.
// HB_ERR_REFUSED on a device other than the cpu.
int hb_inject_open(struct hb_inject *j, hb_body run, void *ctx, double share, bool device);
int hb_inject_body(void *inject);
// One instruction (nop) more for each of n elements, for the exact tier; n is rounded up to 64.
void hb_inject_instructions(int64_t n);

#endif
