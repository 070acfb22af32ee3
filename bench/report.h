// report.h: the sections of REPORT.md. Every number in them is read or derived from result files.
#ifndef HB_REPORT_H
#define HB_REPORT_H

#include "plot.h"
#include "table.h"

struct hb_report {
    const struct hb_study *st;
    const struct hb_gallery *gallery;
    struct hb_pair_set pairs;  // longconv_fftw_plain over longconv_fftw, owned
    struct hb_text t;          // the text so far, owned
};
// Sections, in the order of the report; each writes its own heading.
void hb_report_finding(struct hb_report *r);     // report_finding.c
void hb_report_side(struct hb_report *r);        // report_side.c: machines next to each other
void hb_report_machine(struct hb_report *r);     // report_machine.c
// Its GPU: clocks and peaks, what "cold" means; nothing without one. report_gpu.c
void hb_report_gpu(struct hb_report *r, const char *machine);
// Shares of the bound of the GPU's cores, length by length.
void hb_report_gpu_shares(struct hb_report *r, const char *machine);
void hb_report_measured(struct hb_report *r);
void hb_report_crossings(struct hb_report *r);   // report_time.c
void hb_report_growth(struct hb_report *r);
void hb_report_lengths(struct hb_report *r);
void hb_report_peaks(struct hb_report *r);       // report_peaks.c
void hb_report_pairs(struct hb_report *r);
void hb_report_peers(struct hb_report *r);       // report_peers.c
void hb_report_paper(struct hb_report *r);       // report_paper.c
void hb_report_perplexity(struct hb_report *r);  // report_lm.c
// Its second half: what says that the runs can be trusted. report_lm_checks.c
void hb_report_lm_checks(struct hb_report *r, const char *machine);
void hb_report_claims(struct hb_report *r);      // verify/section.c: published claims, judged
void hb_report_missing(struct hb_report *r);     // report_missing.c
void hb_report_reading(struct hb_report *r);

// Embeds the figure of this name for this machine, its caption and the command that remakes it;
// or says why not.
void hb_report_figure(struct hb_report *r, const char *name, const char *machine);
// "### AMD EPYC ..." if the results are of several machines.
void hb_report_subhead(struct hb_report *r, const char *machine);
struct hb_duel {
    const struct hb_setting *at;
    const struct hb_series *a, *h;
    const struct hb_crossover *time, *mem;
};
// The two series the study is about at scope operator: fastest mha and fastest hyena of the main
// setting. false: one of them is missing. time, mem: their crossovers, NULL if they share fewer
// than two lengths.
bool hb_report_duel(const struct hb_report *r, const char *machine, enum hb_pass pass,
                    struct hb_duel *out);
// The same in any setting of scope operator.
bool hb_report_duel_at(const struct hb_report *r, const struct hb_setting *at, struct hb_duel *out);
const char *hb_report_cpu(const struct hb_report *r, const char *machine);
// What its results are of: the GPU's name if anything of this machine ran on one, else the CPU's.
const char *hb_report_chip(const struct hb_report *r, const char *machine);
bool hb_report_has_gpu(const struct hb_report *r, const char *machine);
// "core fwd, B 1, D 256, f32, T 2"
struct hb_words hb_report_where(const struct hb_setting *s);

#endif
