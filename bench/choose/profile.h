// profile.h: in which functions a body spends its processor time, by a sampling clock.
#ifndef HB_PROFILE_H
#define HB_PROFILE_H

#include <stddef.h>

struct profile_row {
    char object[64], function[96];       // "libfftw3f.so.3", "cpu_gemm"; "?" where it has no name
    size_t samples;
};
struct profile { struct profile_row *rows; size_t n, samples; };     // rows owned: profile_free
// Runs body(ctx) again and again for about `seconds`; all threads of this process are sampled, once
// a
// millisecond of processor time together. 0, HB_ERR_* of the body or of the clock.
int hb_profile(int (*body)(void *), void *ctx, double seconds, struct profile *out);
void hb_profile_free(struct profile *p);

#endif
