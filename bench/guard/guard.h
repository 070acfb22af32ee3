// guard.h: guarding against regressions: two builds compared, exactly and by paired timing.
//
// fdr.c the tests of significance; paired.c rounds and verdicts over any source of times; live.c
// the source that is processes of two builds; exact.c what can be counted; count.c the hidden
// command that is counted; history.c what was found before; verdicts.c JSON, Markdown, JUnit;
// compare.c and selftest.c the commands.
#ifndef HB_GUARD_H
#define HB_GUARD_H

#include <jansson.h>
#include "../stats.h"
#include "../sweep.h"
#include "../table.h"

// --- significance (fdr.c) ------------------------------------------------------------------------

// Wilcoxon's signed ranks, capped (fdr.c), one-sided: p of "the median of x is at most 0" against
// "it is above 0". Exact (ties by midranks, zeros left out) for n <= 64, else normal. n 0: 1.
double guard_signed_rank_p(const double *x, size_t n);
// Benjamini and Hochberg 1995: adjusted[i] <= q for those that are rejected at rate q.
// NAN: not tested, stays NAN and does not count.
int guard_bh(const double *p, size_t n, double *adjusted);

// --- paired tier (paired.c) ----------------------------------------------------------------------

enum guard_word { GUARD_SAME, GUARD_FASTER, GUARD_SLOWER, GUARD_INCONCLUSIVE, GUARD_ENV,
                  GUARD_SKIPPED, GUARD_BROKEN };   // no time in base; in head alone
const char *guard_word_str(enum guard_word);     // "same", "faster", ...

struct guard_opts {
    double min_effect;       // slower: by more than this (0.01)
    double margin;           // same: the whole interval within this (0.05)
    double fdr;              // false discoveries among what goes to the confirming round (0.1)
    double confirm_p;        // one-sided p that confirms (0.01)
    double budget_s;         // decides the number of rounds, once, after the first
    int rounds;              // > 0: so many, whatever they take
    uint64_t seed;           // of the bootstrap
};
extern const struct guard_opts guard_defaults;
#define GUARD_FIRST_SHARE 0.75       // of the budget, for the first stage
enum { GUARD_MIN_ROUNDS = 5, GUARD_MAX_ROUNDS = 40 };    // a round is 2 processes a side

// Where times come from. side 0: base, 1: head.
struct guard_source {
    // A fresh process a side, in step; ns[1] / ns[0] is their ratio. first: the side that begins.
    // 0; 1: `*failed` has no time, why[160] says so and the point is left out from now on; HB_ERR_*
    // ends all.
    int (*take)(void *ctx, size_t point, int first, double ns[2], int *failed, char *why);
    double (*now_s)(void *ctx);
    void (*progress)(void *ctx, const char *what, size_t done, size_t total);    // may be NULL
    void *ctx;
};
struct guard_pairs { double *base, *head; size_t n; };   // ns; pair i was taken in step; owned
struct guard_point {
    enum guard_word word;
    char why[200];
    bool left_out;               // set before: guard_paired does not measure it and keeps word, why
    struct guard_pairs first, second;                    // second: the confirming round
    struct hb_ratio ratio;       // head / base, median of the pairs; of `second` once confirmed
    double p, p_adjusted, p_confirm;                     // NAN: not tested
    int direction;               // 1 went to the confirming round as slower, -1 faster, 0 did not
    int more_rounds;             // inconclusive: about as many more rounds would decide
};
// Measures and decides. points[n] zeroed but for left_out, word, why. 0, also when the budget did
// not last (then inconclusive), or HB_ERR_*. *rounds: of the first stage.
int guard_paired(const struct guard_source *src, struct guard_point *points, size_t n,
                 const struct guard_opts *o, int *rounds);
void guard_points_free(struct guard_point *points, size_t n);
// How many rounds of round_s fit into so many seconds, at least and at most what a stage takes.
int guard_rounds_for(double seconds, double round_s);
// The point has no time on that side: left out from now on.
void guard_no_time(struct guard_point *pt, int side, const char *why);

// --- two builds (live.c) -------------------------------------------------------------------------

// A build's program and plug-ins, copied so that both lie at paths of the same length and nobody
// rebuilds them meanwhile.
struct guard_build {
    char from[4096];                     // as the user gave it
    char exe[4400], impls[4400];
    json_t *env;                         // its `env --json`; owned
};
struct guard_live {
    struct guard_build build[2];
    char root[4200], shared[4300];       // copies; wisdom and judged references of both
    const char *env[12]; char env_text[2][4400];
    struct sweep s;                      // its items are the points
    size_t *paired, n_paired, *exact, n_exact;           // indices of items; owned
    double inject; size_t inject_point;  // selftest: slows down head at this point; 0: nothing
};
// Copies both builds, reads the sweep. Groups whose id begins with "exact" are the exact tier's.
int guard_live_open(const char *base, const char *head, const char *sweep_path,
                    struct guard_live *g);
const char *guard_own_build(void);                       // the folder of this program
void guard_live_close(struct guard_live *g);             // removes the copies
struct guard_source guard_live_source(struct guard_live *g);
// Before the first round: each point once on either side, uncounted: leaves wisdom and references,
// and finds what has no time (skipped) or the same code in both (same, unless `all`).
int guard_live_prepare(struct guard_live *g, struct guard_point *points, bool all);
// What differs between the two beyond their code (compiler, flags, libraries); "" if nothing.
void guard_live_env_diff(const struct guard_live *g, char *text, size_t cap);
// SHA-256 over what a shared object or program loads (sections with code and data, notes and
// debugging left out), so that the same code built elsewhere has the same. HB_ERR_INPUT: no ELF.
int guard_code_hash(const char *path, char hex[65]);

// --- exact tier (exact.c) ------------------------------------------------------------------------

// One counted quantity of one point. Texts (plans, statuses) have text set and no numbers.
struct guard_count {
    const struct sweep_item *item;
    char metric[32];
    double base, head;
    char *base_text, *head_text;         // owned, or NULL
    enum { COUNT_SAME, COUNT_BETTER, COUNT_CHANGED, COUNT_WORSE, COUNT_MISSING } verdict;
};
struct guard_counts { struct guard_count *row; size_t n, cap; bool valgrind; };
// Counts every exact point of both builds. inject: so many instructions more per element in head
// (selftest). Without valgrind everything but instructions.
int guard_exact(struct guard_live *g, int64_t inject, struct guard_counts *out);
// Numbers that may differ a little: the share by which head may be above base.
double guard_exact_tolerance(const char *metric);
int guard_exact_judge(const char *metric, double base, double head);     // a COUNT_*
void guard_counts_free(struct guard_counts *c);

// --- history (history.c) -------------------------------------------------------------------------

struct guard_step { size_t at; double before, after, p; };   // first index of the new level
// Levels of a series: binary segmentation, splits by Mann-Whitney (Bonferroni over the places) that
// also move the median by 2 % or more; segments of 5 or more. Returns how many; ascending.
size_t guard_steps(const double *x, size_t n, struct guard_step *out, size_t cap);

struct guard_history;
int guard_history_open(const char *path, struct guard_history **h);
void guard_history_close(struct guard_history *h);
// Adds a comparison's document (verdicts.c): one run, one row a point or count.
int guard_history_add(struct guard_history *h, const json_t *doc);
// Steps in the head's times of this machine, newest 200 runs: [{point, run, before, after, p}].
json_t *guard_history_steps(struct guard_history *h, const char *fingerprint);

// --- what was found (verdicts.c) -----------------------------------------------------------------

struct guard_result {
    const struct guard_live *live;
    const struct guard_point *points;    // live->n_paired
    const struct guard_counts *counts;
    struct guard_opts opts;
    int rounds;
    double elapsed_s;
    bool strict;
};
// {schema, date, machine, fingerprint, base, head, options, exact[], paired[], answer, exit_code}
json_t *guard_doc(const struct guard_result *r);
int guard_exit_code(const struct guard_result *r);       // 0, or 1: a regression (strict: or doubt)
// From that document.
int guard_markdown(const json_t *doc, struct hb_text *out);
int guard_junit(const json_t *doc, struct hb_text *out);
void guard_xml_escape(struct hb_text *out, const char *s);   // & < > " ' and control characters

#endif
