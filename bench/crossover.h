// crossover.h: the crossover table and its derived records, for the commands crossover and report.
#ifndef HB_CROSSOVER_H
#define HB_CROSSOVER_H

#include "derive.h"
#include "table.h"

// Derived records (measuring.md 7.2): {hb_schema, crossovers[], fits[]}. New reference; NULL with
// the message set.
json_t *hb_crossovers_json(const struct hb_results *r, const struct hb_series_set *set,
                           const struct hb_crossover_set *x);
// One row per pair and metric of this machine (NULL: all).
void hb_crossovers_table(const struct hb_series_set *set, const struct hb_crossover_set *x,
                         const char *machine, struct hb_text *out);
// Exponents of time and memory, one row per series of this machine (NULL: all) with enough
// lengths.
void hb_fits_table(const struct hb_series_set *set, const char *machine, struct hb_text *out);
// Loads the named files or folders, or those of hb_results_default if there are none (n == 0).
int hb_results_open(const char *const *paths, int n, struct hb_results *r);

#endif
