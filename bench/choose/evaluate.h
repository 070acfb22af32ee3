// evaluate.h: are the choices right? Random problems that were not measured, judged by pairs.
#ifndef HB_EVALUATE_H
#define HB_EVALUATE_H

#include <stdint.h>

struct evaluate_opts {
    int64_t n, seed;
    double budget_s;             // sampling of one pair
    double max_ms;               // the chosen one's expected time at most
    const char *out;             // JSON of every judgement; NULL: none
    const char *op, *device, *dtype;     // NULL: all operators; cpu0; f32
};
// Prints a line per problem and the sums. *answer 1: more than 5 % wrong, one above 1.5, or a
// memory
// limit was exceeded.
int hb_evaluate(const struct evaluate_opts *o, int *answer);

#endif
