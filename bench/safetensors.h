// safetensors.h: named tensors in one file: 8 bytes of header length, a JSON header, the data.
#ifndef HB_SAFETENSORS_H
#define HB_SAFETENSORS_H

#include <jansson.h>
#include "host.h"

enum { HB_ST_RANK = 8 };
struct hb_st_tensor {
    const char *name;                  // borrowed from the file (reading) or the caller (writing)
    int rank;
    int64_t shape[HB_ST_RANK], n;      // n: elements
    bool f64;
    const void *data;                  // borrowed; at any alignment when read
};
struct hb_st { char *path, *bytes; json_t *header; struct hb_st_tensor *t; int n; };   // all owned

// Strict: every offset in range, no overlap, no gap, sizes as the shapes say, F32 or F64, no name
// twice;
// "__metadata__" is looked over. Returns 0; HB_ERR_INPUT "path: tensor: what is wrong"; or
// HB_ERR_OOM.
int hb_st_read(const char *path, struct hb_st *st);
void hb_st_free(struct hb_st *st);                                   // zeroed or read
const struct hb_st_tensor *hb_st_find(const struct hb_st *st,
                                      const char *name);  // NULL if there is none
int hb_st_load(const struct hb_st *st, const struct hb_st_tensor *t,
               float *out);  // as float32; HB_ERR_INPUT
// F32 or F64 tensors in the given order; the file appears whole or not at all. HB_ERR_RUN,
// HB_ERR_OOM. meta (may be NULL): an object of strings, "__metadata__" of the file; hb_st_meta
// finds one of them again, NULL if there is none.
int hb_st_write(const char *path, const struct hb_st_tensor *t, int n);
int hb_st_write_meta(const char *path, const struct hb_st_tensor *t, int n, json_t *meta);
const char *hb_st_meta(const struct hb_st *st, const char *key);

#endif
