// work.h: what the work model says beyond one point (hb_point_work is in point.h).
#ifndef HB_WORK_H
#define HB_WORK_H

#include "point.h"

// The most that Hyena can be faster than exact attention at equal use of the machine's arithmetic,
// both with their projections, width D: 1 + L/(2D) with the full square counted, 1 + L/(4D) for the
// causal half (claims page, section 1). The long convolution itself counts as free.
double hb_flop_bound_ratio(int64_t L, int64_t D, bool causal);

#endif
