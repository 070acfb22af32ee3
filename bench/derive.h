// derive.h: joins measured cells to curves, compares curves, fits exponents. Never measures.
//
// A setting is everything two points must share before their times may be divided: machine, device,
// scope, pass, mode, dtype, B, D, threads. A series is one implementation in one setting, over L.
#ifndef HB_DERIVE_H
#define HB_DERIVE_H

#include "record.h"

struct hb_setting {
    const char *machine;  // borrowed from the results
    char device[16];
    enum hb_scope scope;
    enum hb_pass pass;
    enum hb_mode mode;
    enum hb_dtype dtype;
    int64_t B, D;
    int threads;
};
struct hb_series {
    struct hb_setting set;
    char impl[HB_NAME_MAX];
    char key[HB_POINT_NAME_MAX];  // the points' name without L
    char options[64];  // of an operator, as they stand in the name; "" if all are the defaults
    enum hb_op op;
    int64_t H;  // heads, order and planning tell series of one setting apart
    int order;
    enum hb_planning planning;
    const struct hb_cell **cell;  // owned array, ascending L, failed cells included
    size_t n, n_ok;
};
struct hb_series_set { struct hb_series *s; size_t n; };

// Sorted by setting, then name.
int hb_series_make(const struct hb_results *r, struct hb_series_set *out);
void hb_series_free(struct hb_series_set *set);
// What is inside an operator: "hyena:longconv_fftw" -> "longconv_fftw"; others as they are.
const char *hb_impl_inner(const char *impl);
int hb_setting_cmp(const struct hb_setting *a, const struct hb_setting *b);
// "core fwd, B 1, D 256, f32, T 2"; cold caches are said, too. On a GPU, where the host's threads
// say nothing: "core fwd, B 1, D 256, f16, cold, GPU".
struct hb_words { char s[3 * HB_NAME_MAX]; };
struct hb_words hb_setting_str(const struct hb_setting *s);
// "longconv_fftw", and "longconv_fftw (plan estimate)" or "(H 8)" where the setting holds more than
// one of them.
struct hb_label { char s[HB_NAME_MAX + 48]; };
struct hb_label hb_series_label(const struct hb_series_set *set, const struct hb_series *s);
// The setting of this scope and pass (and machine, unless NULL) with the most timed cells; NULL if
// there is none.
const struct hb_setting *hb_setting_main(const struct hb_series_set *set, const char *machine,
                                         enum hb_scope scope, enum hb_pass pass);
// The series of one operator in a setting that is fastest at the length most of them have a time at
// (the longest of those); NULL if none.
const struct hb_series *hb_series_best(const struct hb_series_set *set, const struct hb_setting *at,
                                       enum hb_op op);
const struct hb_series *hb_series_find(const struct hb_series_set *set, const struct hb_setting *at,
                                       const char *impl);
// NULL if there is no cell.
const struct hb_cell *hb_series_at(const struct hb_series *s, int64_t L);
// The longest L both have timed; 0: none.
int64_t hb_series_last_common(const struct hb_series *a, const struct hb_series *b);

// Where a file was measured.
const char *hb_file_machine(const json_t *file);  // machine_id; "unknown" if the file does not say
const char *hb_file_cpu(const json_t *file);      // "AMD EPYC ...", for people
const char *hb_file_gpu(const json_t *file);      // "NVIDIA H100 80GB HBM3"; NULL: none there
bool hb_on_gpu(const char *device);               // "cuda0", ...
// The processor of that machine, or its GPU (if a file names one), for people.
const char *hb_results_chip(const struct hb_results *r, const char *machine, bool gpu);
// The newest of that machine that has this member (NULL: any); NULL: there is none.
const json_t *hb_results_context(const struct hb_results *r, const char *machine, const char *key);
// What `roofline` measured there, from the newest run that carries it; NULL: none does.
const json_t *hb_results_roofline(const struct hb_results *r, const char *machine);

// What is read off a cell. NAN where it was not measured.
enum hb_metric { HB_METRIC_TIME, HB_METRIC_MEMORY, HB_METRIC_ERROR };
double hb_cell_value(const struct hb_cell *c, enum hb_metric m);
struct hb_interval hb_cell_interval(const struct hb_cell *c, enum hb_metric m);
bool hb_cell_ok(const struct hb_cell *c);
// All repetitions' raw samples.
size_t hb_cell_samples(const struct hb_cell *c, double *ns, size_t cap);

// time(a)/time(b) of two cells from their samples, as taken in separate processes. NAN if one has
// no time.
struct hb_ratio hb_cell_ratio(const struct hb_cell *a, const struct hb_cell *b);

// Two implementations side by side: alternated in one process (hb_pairs of the records), or, where
// a length has no such pair, divided from separate processes.
struct hb_pair {
    struct hb_setting set;
    int64_t L;
    struct hb_ratio ratio;  // time(a)/time(b)
    double a_ns, b_ns;
    int n;  // rounds; 0: not alternated
};
struct hb_pair_set { struct hb_pair *p; size_t n; };
// Sorted by setting, then L.
int hb_pairs_make(const struct hb_results *r, const struct hb_series_set *set, const char *a,
                  const char *b, struct hb_pair_set *out);
void hb_pairs_free(struct hb_pair_set *p);

// Crossovers: a and b of one setting, over the lengths both have.
struct hb_crossover {
    const struct hb_series *a, *b;
    enum hb_metric metric;
    struct hb_crossing x;
    size_t n;  // common lengths
    double L_lo, L_hi;
    struct hb_ratio first, last;  // a/b at L_lo and at L_hi
};
struct hb_crossover_set { struct hb_crossover *c; size_t n; };
// All pairs worth comparing (attention against hyena at scope operator, one operator's methods at
// scope core), or only those of implementations a and b (NULL: any), in time and in memory.
int hb_crossovers_make(const struct hb_series_set *set, const char *a, const char *b,
                       struct hb_crossover_set *out);
void hb_crossovers_free(struct hb_crossover_set *set);
const char *hb_cross_kind_str(enum hb_cross_kind k);
// "L* = 3100 [2900, 3300], then b faster", "no crossover in range (a faster everywhere)", "tie".
// a and b: what to call the two.
struct hb_words hb_cross_words(const struct hb_crossover *c, const char *a, const char *b);

// Exponent of a series over its long lengths: L >= 4096 if there are three of them, else the upper
// half.
struct hb_fit { struct hb_powerfit f; double L_lo, L_hi; size_t n; };
// False: too few points.
bool hb_series_fit(const struct hb_series *s, enum hb_metric m, struct hb_fit *out);
// Over the lengths of at least L_from alone. False: fewer than three.
bool hb_series_fit_from(const struct hb_series *s, enum hb_metric m, double L_from,
                        struct hb_fit *out);
#define HB_FIT_FROM 4096.0     // below, launch and planning overheads bend the curves
struct hb_slope { double L, slope; struct hb_interval ci95; };
// Local slope d log y / d log L between lengths at least 1.4x apart, at their geometric mean.
// Returns how many.
size_t hb_series_slopes(const struct hb_series *s, enum hb_metric m, struct hb_slope *out,
                        size_t cap);

// Folders that hold results when none are named: every machine of build/results, else of results.
// NULL-terminated; free each string and the list.
int hb_results_default(char ***out);
void hb_paths_free(char **paths);

#endif
