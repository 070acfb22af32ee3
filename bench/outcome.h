// outcome.h: how a point or a run ended, in one word. The words stand here and nowhere else.
#ifndef HB_OUTCOME_H
#define HB_OUTCOME_H

enum hb_ends {
    HB_ENDS_POINT,       // it says something of the point: ok refused oom timeout wrong crashed
    HB_ENDS_RECORD,      // what a result file holds: those, dropped (no time was left for it) and
                         // interrupted (a training; with what it measured until then)
    HB_ENDS_PROCESS,     // what a process comes to: those of a point, interrupted, and missing (the
                         // machine lacks the device)
};
// The i-th word of a set, in the order of tables; NULL: there are no more.
const char *hb_outcome_at(enum hb_ends set, int i);
// The word of the set that s is, as a constant; NULL: none of them, or s is NULL.
const char *hb_outcome(enum hb_ends set, const char *s);

#endif
