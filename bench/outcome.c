// outcome.c: the words for how a point ended (contract: outcome.h).
#include "outcome.h"

#include <stddef.h>
#include <string.h>

#define OF_POINT "ok", "refused", "oom", "timeout", "wrong", "crashed"
enum { ROOM = 9 };                       // the longest set and the NULL behind it
static const char *const words[][ROOM] = {
    [HB_ENDS_POINT] = { OF_POINT },
    [HB_ENDS_RECORD] = { OF_POINT, "dropped", "interrupted" },
    [HB_ENDS_PROCESS] = { OF_POINT, "interrupted", "missing" },
};

const char *hb_outcome_at(enum hb_ends set, int i) { return i < ROOM ? words[set][i] : NULL; }

const char *hb_outcome(enum hb_ends set, const char *s)
{
    const char *w = NULL;
    for (int i = 0; s && (w = hb_outcome_at(set, i)) && strcmp(w, s); i++) continue;
    return w;
}
