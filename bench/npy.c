// npy.c: NumPy's .npy files (contract: npy.h).
//
// A file is "\x93NUMPY", a version, the length of the header, the header, the data. The header is a
// Python dictionary with exactly the keys descr, fortran_order and shape, in any order, padded with
// spaces, then '\n'. Source: the format's description in NumPy's documentation (numpy.lib.format).
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "npy.h"
#include "readfile.h"

enum { MAGIC = 6, MAX_HEADER = 1 << 16 };       // a longer header than 64 KiB is not one of ours

struct header { bool seen[3], f64, fortran; int rank; int64_t shape[HB_NPY_RANK], n; };
static const char *const KEYS[3] = { "descr", "fortran_order", "shape" };

const char *hb_shape_str(int rank, const int64_t *shape, char *buf, size_t cap)
{
    size_t n = (size_t)snprintf(buf, cap, "(");
    for (int i = 0; i < rank && n < cap; i++)
        n += (size_t)snprintf(buf + n, cap - n, "%s%" PRId64, i ? ", " : "", shape[i]);
    if (n < cap) snprintf(buf + n, cap - n, rank == 1 ? ",)" : ")");
    return buf;
}

// --- the dictionary: each function moves *s behind what it read ----------------------------------

static void spaces(const char **s) { while (**s == ' ') ++*s; }

static bool literal(const char **s, const char *text)
{
    spaces(s);
    size_t n = strlen(text);
    if (strncmp(*s, text, n)) return false;
    *s += n;
    return true;
}

// 'text' or "text" without escapes, at most cap-1 characters.
static bool quoted(const char **s, char *out, size_t cap)
{
    spaces(s);
    char q = **s;
    if (q != '\'' && q != '"') return false;
    const char *begin = *s + 1, *end = strchr(begin, q);
    if (!end || (size_t)(end - begin) >= cap) return false;
    memcpy(out, begin, (size_t)(end - begin));
    out[end - begin] = 0;
    *s = end + 1;
    return true;
}

static int read_descr(const char *path, const char **s, struct header *h)
{
    char descr[32];
    if (!quoted(s, descr, sizeof descr))
        return hb_fail(HB_ERR_INPUT, "%s: descr is not a plain type", path);
    h->f64 = !strcmp(descr, "<f8");
    if (!h->f64 && strcmp(descr, "<f4"))
        return hb_fail(HB_ERR_INPUT, "%s: its type is '%s', expected '<f4' or '<f8'", path, descr);
    return 0;
}

static int read_order(const char *path, const char **s, struct header *h)
{
    h->fortran = literal(s, "True");
    if (!h->fortran && !literal(s, "False"))
        return hb_fail(HB_ERR_INPUT, "%s: fortran_order is neither True nor False", path);
    if (h->fortran)
        return hb_fail(HB_ERR_INPUT, "%s: it is in Fortran order, expected C order", path);
    return 0;
}

static int read_shape(const char *path, const char **s, struct header *h)
{
    bool comma = true;
    h->n = 1;
    if (!literal(s, "(")) return hb_fail(HB_ERR_INPUT, "%s: its shape is not a tuple", path);
    while (!literal(s, ")")) {
        spaces(s);
        if (!comma || **s < '0' || **s > '9')
            return hb_fail(HB_ERR_INPUT, "%s: its shape is not a tuple of lengths >= 1", path);
        if (h->rank == HB_NPY_RANK)
            return hb_fail(HB_ERR_INPUT, "%s: more than %d dimensions", path, HB_NPY_RANK);
        int64_t len = 0;
        for (; **s >= '0' && **s <= '9'; ++*s)
            if (__builtin_mul_overflow(len, 10, &len)
                || __builtin_add_overflow(len, **s - '0', &len))
                return hb_fail(HB_ERR_INPUT, "%s: a length in its shape does not fit 63 bits",
                               path);
        if (len == 0)
            return hb_fail(HB_ERR_INPUT, "%s: a length in its shape is 0, expected >= 1", path);
        if (__builtin_mul_overflow(h->n, len, &h->n) || h->n > INT64_MAX / 8)
            return hb_fail(HB_ERR_INPUT, "%s: its shape has more elements than memory has bytes",
                           path);
        h->shape[h->rank++] = len;
        comma = literal(s, ",");
    }
    if (h->rank == 1 && !comma) return hb_fail(HB_ERR_INPUT, "%s: its shape is not a tuple", path);
    return 0;
}

static int read_header(const char *path, const char *s, const char *end, struct header *h)
{
    int rc = 0;
    bool comma = true;
    memset(h, 0, sizeof *h);
    if (!literal(&s, "{")) return hb_fail(HB_ERR_INPUT, "%s: its header is not a dictionary", path);
    while (!rc && !literal(&s, "}")) {
        char key[32];
        int k = 0;
        if (!comma || !quoted(&s, key, sizeof key) || !literal(&s, ":"))
            return hb_fail(HB_ERR_INPUT, "%s: its header is not a dictionary", path);
        while (k < 3 && strcmp(key, KEYS[k])) k++;
        if (k == 3 || h->seen[k])
            return hb_fail(HB_ERR_INPUT, "%s: header: %s key '%s'", path,
                           k == 3 ? "unknown" : "repeated", key);
        h->seen[k] = true;
        rc = (k == 0 ? read_descr : k == 1 ? read_order : read_shape)(path, &s, h);
        comma = literal(&s, ",");
    }
    if (rc) return rc;
    for (int k = 0; k < 3; k++)
        if (!h->seen[k]) return hb_fail(HB_ERR_INPUT, "%s: its header has no '%s'", path, KEYS[k]);
    spaces(&s);
    if (*s == '\n') s++;
    if (s != end)
        return hb_fail(HB_ERR_INPUT, "%s: its header goes on behind the dictionary", path);
    return 0;
}

// --- reading -------------------------------------------------------------------------------------

// Where the header and the data begin.
static int find_header(const char *path, const unsigned char *x, size_t bytes, size_t *at,
                       size_t *data)
{
    if (bytes < MAGIC || memcmp(x, "\x93NUMPY", MAGIC))
        return hb_fail(HB_ERR_INPUT, "%s: not a .npy file: it does not begin with \\x93NUMPY",
                       path);
    if (bytes < MAGIC + 4) return hb_fail(HB_ERR_INPUT, "%s: ends inside its header", path);
    if (x[6] < 1 || x[6] > 3 || x[7] != 0)
        return hb_fail(HB_ERR_INPUT, "%s: .npy version %d.%d, expected 1.0, 2.0 or 3.0", path, x[6],
                       x[7]);
    size_t wide = x[6] == 1 ? 2 : 4, len = 0;
    *at = MAGIC + 2 + wide;
    if (bytes < *at) return hb_fail(HB_ERR_INPUT, "%s: ends inside its header", path);
    for (size_t i = 0; i < wide; i++) len |= (size_t)x[MAGIC + 2 + i] << (8 * i);
    if (len > MAX_HEADER || len > bytes - *at)
        return hb_fail(HB_ERR_INPUT, "%s: its header claims %zu bytes, the file has %zu in all",
                       path, len, bytes);
    *data = *at + len;
    return 0;
}

static int parse(const char *path, char *x, size_t bytes, struct hb_npy *a)
{
    struct header h;
    size_t at = 0, data = 0;
    int rc = find_header(path, (const unsigned char *)x, bytes, &at, &data);
    if (rc) return rc;
    if (memchr(x + at, 0, data - at))
        return hb_fail(HB_ERR_INPUT, "%s: its header holds a NUL byte", path);
    char *text = strndup(x + at, data - at);
    if (!text) return hb_fail(HB_ERR_OOM, "%s: out of memory", path);
    rc = read_header(path, text, text + (data - at), &h);
    free(text);
    if (rc) return rc;
    uint64_t want = (uint64_t)h.n * (h.f64 ? 8 : 4);
    if (want != bytes - data)
        return hb_fail(HB_ERR_INPUT, "%s: holds %zu bytes of data, its shape needs %" PRIu64, path,
                       bytes - data, want);
    a->data = hb_host()->alloc(hb_host(), (size_t)h.n * sizeof *a->data);
    if (!a->data) return HB_ERR_OOM;
    a->rank = h.rank;
    a->n = h.n;
    memcpy(a->shape, h.shape, sizeof a->shape);
    return hb_to_f32(path, x + data, h.f64, h.n, a->data);
}

int hb_npy_read(const char *path, struct hb_npy *a)
{
    char *x = NULL;
    size_t bytes = 0;
    memset(a, 0, sizeof *a);
    int rc = hb_read_file(path, &x, &bytes);
    if (!rc) rc = parse(path, x, bytes, a);
    if (rc) hb_npy_free(a);
    free(x);
    return rc;
}

void hb_npy_free(struct hb_npy *a)
{
    hb_host()->free(hb_host(), a->data);
    memset(a, 0, sizeof *a);
}

// --- writing -------------------------------------------------------------------------------------

int hb_npy_write(const char *path, int rank, const int64_t *shape, const float *data)
{
    char tuple[256], dict[512];
    size_t n = 1;
    for (int i = 0; i < rank; i++) n *= (size_t)shape[i];
    hb_shape_str(rank, shape, tuple, sizeof tuple);
    int used = snprintf(dict, sizeof dict,
                        "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }", tuple);
    size_t head = ((size_t)(MAGIC + 4 + used + 1) + 63) / 64 * 64;     // the data is aligned to 64
    size_t len = head - (MAGIC + 4), bytes = head + n * sizeof *data;
    char *x = malloc(bytes);
    if (!x) return hb_fail(HB_ERR_OOM, "%s: out of memory: %zu bytes", path, bytes);
    memset(x, ' ', head);
    memcpy(x, "\x93NUMPY\x01\x00", MAGIC + 2);
    x[MAGIC + 2] = (char)(len & 255);
    x[MAGIC + 3] = (char)(len >> 8);
    memcpy(x + MAGIC + 4, dict, (size_t)used);
    x[head - 1] = '\n';
    memcpy(x + head, data, n * sizeof *data);
    int rc = hb_write_file(path, x, bytes);
    free(x);
    return rc;
}
