// suite.h: a list of training runs with priorities.
//
// {"about": "...", "defaults": {KEYS}, "runs": [{"priority": 1, KEYS}, ...]}
// KEYS are those of config.h. A value may be a list: lists expand to their product, the first key
// varying slowest. Runs are made in the order of their priority (1 first), within it in the order
// of the file; what the budget does not reach is recorded as dropped.
#ifndef HB_LM_SUITE_H
#define HB_LM_SUITE_H

#include "config.h"

struct hb_lm_job { int priority; struct hb_lm_config c; char name[HB_LM_NAME]; };
struct hb_lm_jobs { struct hb_lm_job *job; int n, cap; };    // owned, sorted

// words: key=value of the command line, they win over the file. Two runs of one name are an error.
int hb_lm_suite_read(const char *path, const char *const *words, int n_words,
                     struct hb_lm_jobs *out);
void hb_lm_suite_free(struct hb_lm_jobs *jobs);

// Each run in a child process (`train --child`); budget_s 0: no limit. Prints a line per run to
// stdout. *answer: the exit code if nothing failed here: 0, 1 a run crashed, 4 interrupted (what is
// done is written, the rest can be resumed).
int hb_lm_suite_run(const struct hb_lm_jobs *jobs, const char *path, double budget_s, bool resume,
                    int *answer);
// The runs, their steps and sizes.
void hb_lm_suite_print(const struct hb_lm_jobs *jobs);

#endif
