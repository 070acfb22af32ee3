// child.h: every point runs in its own process: fork and exec of this program, watched and limited.
#ifndef HB_CHILD_H
#define HB_CHILD_H

#include <jansson.h>
#include "host.h"

struct hb_child_limits {
    double time_s;           // wall; then SIGKILL and status timeout. 0: none
    size_t mem_bytes;        // of its allocator and of its RSS as the parent sees it; 0: none
    bool any_address_space;  // CUDA reserves terabytes: mem_bytes then limits the RSS alone
    bool echo_stderr;        // what the child says also goes to our stderr (a training's progress)
    const char *exe;         // another program than this one (NULL): a second build, valgrind
    const char *const *env;  // its whole environment, NULL at the end; NULL: ours
};
struct hb_child_result {
    const char *status;      // a word of HB_ENDS_PROCESS (outcome.h)
    char detail[512];
    json_t *reply;           // what it wrote to its reply pipe, NULL: nothing. New reference
    int exit_signal;
    double elapsed_s;
    size_t rss_peak_bytes;   // as seen by the parent
};
// Runs `<this executable> argv[1] ...` (argv[0] ignored). request (may be NULL) is written to the
// child's stdin as JSON; the child writes one JSON document to the file descriptor in
// $HYENA_BENCH_REPLY_FD. PR_SET_PDEATHSIG: a killed parent leaves no child. 0 also when the child
// failed (look at status); HB_ERR_RUN if it could not start.
int hb_child_run(char *const argv[], const json_t *request, const struct hb_child_limits *lim,
                 struct hb_child_result *out);
// The same in two steps, with turns between them: the child does something each time it has the
// turn and says a number when it is done. hb_child_close ends it (no turn comes any more), waits,
// and frees; out as above.
struct hb_child;
int hb_child_open(char *const argv[], const json_t *request, const struct hb_child_limits *lim,
                  bool turns, struct hb_child **out);
int hb_child_close(struct hb_child *c, struct hb_child_result *out);
// Gives the turn and waits for *answer. false: it ended or was ended (hb_child_close says why).
bool hb_child_turn(struct hb_child *c, double *answer);
// For the child: waits for its turn (0; 1: no more turns), and gives it back.
int hb_my_turn(void);
void hb_turn_done(double answer);
// For the child: writes the reply to $HYENA_BENCH_REPLY_FD.
int hb_child_reply(const json_t *doc);
// 70 % of what is available (MemAvailable, cgroup).
size_t hb_default_mem_limit(void);

#endif
