// roofpeak.h: the inner loops of the roofline.
#ifndef HB_ROOFPEAK_H
#define HB_ROOFPEAK_H

#include <stddef.h>
#include <stdint.h>

// Runs `steps` rounds of independent multiply-adds in registers; returns the flop done.
typedef double (*hb_fma_fn)(int64_t steps);
double hb_fma_f32(int64_t steps);
double hb_fma_f64(int64_t steps);
// Needs AVX-512F at run time; NULL if the build itself uses it.
extern const hb_fma_fn hb_fma_f32_wide;
// data 64-byte aligned, bytes a multiple of 512.
double hb_read_sum(const void *data, size_t bytes);

#endif
