// judge.h: an interval against the bands of a check.
#ifndef HB_VERIFY_JUDGE_H
#define HB_VERIFY_JUDGE_H

#include "verify.h"

// Static text: inside a band with the whole interval: the band's verdict; outside of all: "else";
// touching one: inconclusive; no number, or no bands of a check that decides nothing: not measured.
// NULL with the message set: the check names a verdict that there is not.
const char *hb_judge(const json_t *check, double value, struct hb_interval ci);
// The verdict of that name as static text; NULL: none.
const char *hb_verdict_named(const char *name);
// Of several parts.
enum hb_join {
    HB_JOIN_ALL,                     // must all hold: the worst
    HB_JOIN_ANY,                     // one is enough: the best of those that hold
    HB_JOIN_AGREE,                   // sides of one statement: theirs if it is the same, else open
};
const char *hb_verdict_join(const char *const *v, size_t n, enum hb_join how);

#endif
