// record.h: results as JSON that Google Benchmark's compare.py reads: one file per run, environment
// inside.
//
// File: build/results/<machine_id>/<run_id>.json (published: results/<machine_id>/<run_id>.json)
//   context      Google Benchmark's fields + hb_schema "1.1", hb_run_id, hb_fingerprint, hb_env,
//                hb_plan, hb_code_sha256 (of program and plug-ins)
//   benchmarks[] one entry per (point, repetition): name = run_name = point name, run_type
//                "iteration", repetitions, repetition_index, iterations, real_time, cpu_time,
//                time_unit "ns", hb_samples_ns. What is of the whole point, hb_median_ns,
//                hb_ci95_ns and all other hb_*, stands in its first entry (schema 1.0: in each).
//   hb_skips[]   points without a time: {name, axes, status: of HB_ENDS_RECORD (outcome.h), detail,
//                ...}; a training that was interrupted has what it measured until then
//   hb_pairs[]   {name, a, b, ratio, ratio_ci95, n, a_median_ns, b_median_ns}: two points
//                alternated in one process; ratio = time(a)/time(b)
// Training runs are entries too: name lm:PATTERN[:IMPL]/..., scope step, with hb_nll_nats, hb_ppl,
// hb_dataset, hb_dataset_sha256, hb_seed, hb_params, hb_eval_tokens, hb_train_tokens, hb_lr,
// hb_steps, hb_curve {step[], tokens[], seconds[], loss_nats[]}, hb_final_loss_nats, hb_control,
// hb_positions, hb_tokenizer, hb_tokens_per_s, hb_planned_steps, hb_stopped_early,
// hb_resumed_at_step (if it was), hb_bits_per_byte, hb_test_sets [{name, tokens, bytes, nll_nats,
// ppl, bits_per_byte}] (the data's own test split first), hb_device_peak_bytes (on a GPU).
#ifndef HB_RECORD_H
#define HB_RECORD_H

#include <jansson.h>
#include "point.h"
#include "stats.h"

// A measured (or skipped) point as the readers see it. Strings point into `entry`.
struct hb_cell {
    const char *name, *status;       // "ok", or why there is no time
    const char *detail;
    struct hb_point pt;              // parsed from the name; has_pt false for lm: entries
    bool has_pt;
    double median_ns; struct hb_interval ci95;
    double err_rel_l2, alloc_peak_bytes, rss_peak_bytes, flop, bytes_min, roof_ns;   // NAN: absent
    json_t *entry;                   // borrowed: first repetition's entry, or the skip
    json_t *file;                    // borrowed: the document it is from
};
struct hb_results {
    struct hb_cell *cells; size_t n;
    json_t **files; char **paths; size_t n_files;
};

// Reads result files or folders of them (NULL-terminated list; folders not recursive). A later
// file's cell replaces an earlier one of the same name on the same machine. HB_ERR_INPUT names file
// and place.
int hb_results_load(const char *const *paths, struct hb_results *out);
void hb_results_free(struct hb_results *r);

// Writing. A run collects points one by one: build/results/<machine>/<run_id>.partial/NNNNNN.json,
// each by rename; hb_run_assemble makes the file and removes the folder. hb_run_open finds an
// unfinished one again.
struct hb_run;
int hb_run_open(const char *run_id_or_null, bool resume, json_t *plan, struct hb_run **out);
// doc: {benchmarks, hb_skips, hb_pairs}
int hb_run_add(struct hb_run *r, const char *point_name, json_t *doc);
bool hb_run_has(const struct hb_run *r, const char *point_name);
// What was added; new reference, NULL if none.
json_t *hb_run_doc(const struct hb_run *r, const char *point_name);
int hb_run_assemble(struct hb_run *r, char path_out[4096]);
// The file as of now; the run stays open to be resumed.
int hb_run_snapshot(struct hb_run *r, char path_out[4096]);
void hb_run_close(struct hb_run *r);
const char *hb_run_id(const struct hb_run *r);
// A run is resumed only on the same machine, by the same build, and with the same
// plan["config_sha256"] (if any); without a run id the newest such one, or a new one if there is
// none.

json_t *hb_env_json(void);           // env.c: hb_env (measuring.md 7.3), new reference
json_t *hb_context_json(void);       // the whole context object
// Parses a file strictly (no duplicates, no NaN) with a message "file:line:col: what".
json_t *hb_json_load(const char *path);
int hb_json_save(const char *path, const json_t *j);   // hb_write_file

#endif
