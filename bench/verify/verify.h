// verify.h: the claims register: what was published, judged by the results at hand. Reads result
// files; measures no time.
//
// A claim is one file bench/claims/<ID>.json:
//   id, order, group      its name, its place and the table it stands in
//   title                 the statement in few words
//   source                {work, where, provenance}: P seen in the document, Pi an author's words
//                         or data, S third-party notes, M from memory, A our arithmetic
//   says, published       the sentence; the numbers
//   conditions, scope, baseline, measured, tolerance       as prose
//   testability           D direct, R reduced, C counted, N not here
//   combine               "all" (default), "any" or "agree" of the deciding checks (judge.h)
//   checks[]              {rule, label, ...}; "shows": true: for comparison, decides nothing, and
//                         with "in_table" stands in the table all the same; "otherwise": what it
//                         means that no band holds, in words; "above": the same of a number that is
//                         too large
//   command               what would measure it
//   needs                 what a full test would take
//   note                  what the verdict does and does not say
// The rules are functions of ratio.c, fits.c, runs.c, counts.c and leak.c; each file's head says
// what its rules read. A rule gives a value with an interval; `bands` of the check turn it into a
// verdict: inside a band with the whole interval: the band's; touching one: inconclusive; outside
// of all: "else" (default contradicted); no value: not measured.
#ifndef HB_VERIFY_H
#define HB_VERIFY_H

#include "../derive.h"
#include "../lmruns.h"
#include "../peers.h"
#include "../table.h"

#define HB_REPRODUCED "reproduced"
#define HB_FIGURE_ONLY "figure reproduced, text refuted"
#define HB_REDUCED "reproduced (reduced)"
#define HB_CONTRADICTED "contradicted"
#define HB_INCONCLUSIVE "inconclusive"      // measured, and it reaches over an edge
#define HB_NOT_MEASURED "not measured"      // it could be here; the command is in the verdict
#define HB_NOT_HERE "not testable here"

// Judges the claims of `dir` (NULL: bench/claims), or only the one called `only`. New reference: an
// array in the claims' order of {id, order, group, title, says, source, published, testability,
// verdict, why, note, needs, command, checks: [{label, rule, shows, in_table, verdict, value, ci95,
// ours, of, bound, why, machine, command, files: [{path, sha256}]}]}. NULL with the message set.
json_t *hb_verify_all(const struct hb_results *r, const char *dir, const char *only);
// The tables of a report, by group; no heading of its own. `level`: of the groups' headings, "###".
void hb_verify_markdown(const json_t *verdicts, const char *level, struct hb_text *out);
// The same into a file. 0 or HB_ERR_*.
int hb_verify_write(const json_t *verdicts, const char *level, FILE *out);

// --- for the rules -------------------------------------------------------------------------------

struct hb_evidence {                 // what the rules read
    const struct hb_results *r;
    struct hb_lm_set lm;
    struct hb_peers peers;           // empty if the tables are not there
    bool has_peers;
};
enum { HB_OUTCOME_FILES = 16 };
struct hb_outcome {                  // what a rule found
    double value;                    // NAN: nothing to judge; `why` says why
    struct hb_interval ci;
    const char *verdict;             // NULL: the check's bands decide
    const char *machine;             // borrowed; NULL: no measurement
    char ours[640], of[256];         // the number in words; what was divided, for --claim
    char bound[256], why[512], command[640];
    const json_t *file[HB_OUTCOME_FILES];       // borrowed result files
    size_t n_files;
    char stored[256];                // a file of results/claims that it was taken from, or ""
    const char *peers;               // the table of results/peers that a number is of, or NULL
};
// 0, or HB_ERR_INPUT: the check itself is wrong.
typedef int (*hb_rule)(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out);
int hb_rule_ratio(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out);
int hb_rule_status(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out);
int hb_rule_exponent(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out);
int hb_rule_crossing(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out);
int hb_rule_parity(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out);
int hb_rule_accuracy(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out);
int hb_rule_count(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out);
int hb_rule_leak(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out);

// A point that a check names: {impl, device, dtype, pass, mode, B, D, L}; impl may hold wildcards,
// then the fastest is meant; absent keys: any.
struct hb_query {
    const char *impl, *device, *pass, *dtype, *mode;
    int64_t B, D, L;                 // 0: any
};
int hb_query_read(const json_t *check, const char *key, struct hb_query *q);
bool hb_query_matches(const struct hb_query *q, const struct hb_cell *c);
// The fastest timed cell of that machine (NULL: any), else one that was skipped; NULL: none.
const struct hb_cell *hb_query_find(const struct hb_evidence *e, const struct hb_query *q,
                                    const char *machine);
// The machines of the results, newest file first; returns how many.
size_t hb_machines(const struct hb_results *r, const char **out, size_t cap);
// The words "hyena-bench run --impl ..." of a point.
void hb_query_command(const struct hb_query *q, char *buf, size_t cap);
void hb_outcome_file(struct hb_outcome *o, const json_t *file);
// "not measured", ... with the command that would; value stays NAN.
void hb_outcome_none(struct hb_outcome *o, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
