// table.h: text that grows, markdown tables, numbers with units: all that is written for people.
#ifndef HB_TABLE_H
#define HB_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include "stats.h"

// Text that grows. Zeroed = empty. A failed allocation is remembered; hb_text_done reports it once.
struct hb_text {
    char *s;              // owned: hb_text_free
    size_t n, cap;
    bool failed;
};
void hb_text_add(struct hb_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int hb_text_done(const struct hb_text *t);  // 0 or HB_ERR_OOM with the message set
void hb_text_free(struct hb_text *t);

// A markdown table: head cells first, then the rows, cell by cell. Columns are padded so that the
// source reads well; a column whose head starts with '>' is aligned to the right. Printing empties
// the table.
struct hb_table {
    int cols;
    size_t n, cap;
    char **cell;          // owned until printed or freed
    bool failed;
};
void hb_table_head(struct hb_table *t, const char *heads);  // "L|>time|>ratio" sets cols
void hb_table_cell(struct hb_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool hb_table_empty(const struct hb_table *t);  // no row yet
void hb_table_print(struct hb_table *t, struct hb_text *out);
void hb_table_free(struct hb_table *t);

// Numbers for people, three significant digits. By value: use .s inside the same expression.
struct hb_str { char s[64]; };
struct hb_str hb_str_num(double x);                   // 0.00123, 1.23, 123, 1230; "-" if not finite
struct hb_str hb_str_time(double ns);                 // 1.23 ms
struct hb_str hb_str_bytes(double bytes);             // 1.5 MiB
struct hb_str hb_str_len(double L);                   // 4096, 1000: whole lengths as they are
struct hb_str hb_str_interval(struct hb_interval i);  // [1.2, 1.3]
struct hb_str hb_str_lens(struct hb_interval i);      // [412, 437]: an interval of lengths
struct hb_str hb_str_ratio(struct hb_ratio r);        // 1.25 [1.2, 1.3]
struct hb_str hb_str_pct(double share);               // 0.613 -> 61 %

#endif
