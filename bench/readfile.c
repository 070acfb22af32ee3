// readfile.c: a whole file into memory (contract: readfile.h).
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "readfile.h"

static int read_stream(const char *path, FILE *f, char **data, size_t *bytes)
{
    struct stat st;
    if (fstat(fileno(f), &st))
        return hb_fail(HB_ERR_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return hb_fail(HB_ERR_INPUT, "%s: not a regular file", path);
    size_t n = (size_t)st.st_size;
    char *x = malloc(n + 1);
    if (!x) return hb_fail(HB_ERR_OOM, "%s: out of memory: %zu bytes", path, n);
    if (fread(x, 1, n, f) != n) {
        free(x);
        return hb_fail(HB_ERR_INPUT, "%s: cannot be read to its end", path);
    }
    x[n] = 0;
    *data = x;
    *bytes = n;
    return 0;
}

int hb_read_file(const char *path, char **data, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f) return hb_fail(HB_ERR_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    int rc = read_stream(path, f, data, bytes);
    fclose(f);                                   // only read: nothing is lost if closing fails
    return rc;
}

int hb_to_f32(const char *where, const void *data, bool f64, int64_t n, float *out)
{
    if (!f64) {
        memcpy(out, data, (size_t)n * sizeof *out);
        return 0;
    }
    for (int64_t i = 0; i < n; i++) {
        double x;
        memcpy(&x, (const char *)data + (size_t)i * sizeof x, sizeof x);
        out[i] = (float)x;
        if (isfinite(x) && !isfinite(out[i]))
            return hb_fail(HB_ERR_INPUT, "%s: element %lld is %g, too large for float32", where,
                           (long long)i, x);
    }
    return 0;
}
