// manifest.h: the rows of datasets/manifest, and reading a file that they describe.
#ifndef HB_MANIFEST_H
#define HB_MANIFEST_H

#include "../impls/core/hb.h"

// Where things are: the manifest itself and the folder with fetched, unpacked files
// (build/datasets).
struct hb_data_dirs { const char *manifest, *cache; };

struct hb_manifest_row {
    char set[64], file[128], sha256[65], get[256], licence[128], source[512];
    int64_t bytes;
};

// All rows in file order; *rows is malloc'ed, owned by the caller. HB_ERR_INPUT names file and
// line.
int hb_manifest_read(const struct hb_host *host, const char *path, struct hb_manifest_row **rows,
                     int *n);
// The file of a row, whole, its size and sha256 verified; *data is malloc'ed, owned by the caller.
// HB_ERR_MISSING says how to get the set.
int hb_manifest_load(const struct hb_host *host, const struct hb_data_dirs *dirs,
                     const struct hb_manifest_row *row, uint8_t **data);

#endif
