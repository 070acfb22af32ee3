// readfile.h: a whole file into memory, for the readers of arrays.
#ifndef HB_READFILE_H
#define HB_READFILE_H

#include "host.h"

// *data (owned by the caller, free) holds the *bytes bytes of a regular file and a NUL behind them.
// 0, HB_ERR_INPUT with "path: why", or HB_ERR_OOM.
int hb_read_file(const char *path, char **data, size_t *bytes);
// n float32 or float64 values, at any alignment, as float32. HB_ERR_INPUT "where: ..." if one is
// too large for it.
int hb_to_f32(const char *where, const void *data, bool f64, int64_t n, float *out);

#endif
