// npy.h: NumPy's .npy files (format versions 1.0, 2.0 and 3.0), float32 or float64 in C order,
// little endian.
#ifndef HB_NPY_H
#define HB_NPY_H

#include "host.h"

enum { HB_NPY_RANK = 8 };
struct hb_npy {
    int rank;
    int64_t shape[HB_NPY_RANK], n;     // n: elements, >= 1
    float *data;                       // owned (hb_npy_free), HB_ALIGN-aligned; float64 is rounded
};

// Returns 0; HB_ERR_INPUT with one line "path: what is wrong, what was expected"; or HB_ERR_OOM.
int hb_npy_read(const char *path, struct hb_npy *a);
void hb_npy_free(struct hb_npy *a);    // zeroed or read
// Version 1.0, '<f4', C order; the file appears whole or not at all. HB_ERR_RUN, HB_ERR_OOM.
int hb_npy_write(const char *path, int rank, const int64_t *shape, const float *data);
// "(2, 3, 5)" into buf; returns buf.
const char *hb_shape_str(int rank, const int64_t *shape, char *buf, size_t cap);

#endif
