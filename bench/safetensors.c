// safetensors.c: named tensors in one file (contract: safetensors.h).
// Source: the format's description in its own repository's README (huggingface/safetensors).
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "readfile.h"
#include "safetensors.h"

enum { MAX_HEADER = 100 << 20 };       // the format's own limit

static int bad(const char *path, const char *name, const char *what)
{
    return hb_fail(HB_ERR_INPUT, "%s: tensor '%s': %s", path, name, what);
}

// --- reading -------------------------------------------------------------------------------------

static int read_shape(const char *path, struct hb_st_tensor *t, const json_t *shape)
{
    size_t i;
    json_t *len;
    t->n = 1;
    if (!json_is_array(shape) || json_array_size(shape) > HB_ST_RANK)
        return bad(path, t->name, "shape is not an array of at most 8 lengths");
    json_array_foreach(shape, i, len) {
        if (!json_is_integer(len) || json_integer_value(len) < 0)
            return bad(path, t->name, "a length in shape is not an integer >= 0");
        t->shape[i] = json_integer_value(len);
        if (__builtin_mul_overflow(t->n, t->shape[i], &t->n) || t->n > INT64_MAX / 8)
            return bad(path, t->name, "shape has more elements than memory has bytes");
    }
    t->rank = (int)json_array_size(shape);
    return 0;
}

static int read_tensor(const char *path, struct hb_st_tensor *t, const json_t *entry,
                       const char *data, size_t bytes)
{
    const json_t *off = json_object_get(entry, "data_offsets"),
                 *shape = json_object_get(entry, "shape");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype || !shape || !off || json_object_size(entry) != 3)
        return bad(path, t->name, "expected exactly dtype, shape and data_offsets");
    t->f64 = !strcmp(dtype, "F64");
    if (!t->f64 && strcmp(dtype, "F32"))
        return hb_fail(HB_ERR_INPUT, "%s: tensor '%s': dtype %s, expected F32 or F64", path,
                       t->name, dtype);
    int rc = read_shape(path, t, shape);
    if (rc) return rc;
    const json_t *lo = json_array_get(off, 0), *hi = json_array_get(off, 1);
    if (json_array_size(off) != 2 || !json_is_integer(lo) || !json_is_integer(hi))
        return bad(path, t->name, "data_offsets are not two integers");
    int64_t begin = json_integer_value(lo), end = json_integer_value(hi);
    if (begin < 0 || end < begin || (uint64_t)end > bytes)
        return hb_fail(HB_ERR_INPUT,
                       "%s: tensor '%s': data_offsets %" PRId64 "..%" PRId64
                       ", expected inside 0..%zu",
                       path, t->name, begin, end, bytes);
    if (end - begin != t->n * (t->f64 ? 8 : 4))
        return hb_fail(HB_ERR_INPUT,
                       "%s: tensor '%s': %" PRId64 " bytes of data, its shape needs %" PRId64, path,
                       t->name, end - begin, t->n * (t->f64 ? 8 : 4));
    t->data = data + begin;
    return 0;
}

static int by_offset(const void *x, const void *y)
{
    const struct hb_st_tensor *a = x, *b = y;
    if (a->data != b->data) return (const char *)a->data < (const char *)b->data ? -1 : 1;
    return (a->n > 0) - (b->n > 0);              // empty ones first
}

static int check_cover(const struct hb_st *st, const char *data, size_t bytes)
{
    const char *at = data;
    for (int i = 0; i < st->n; i++) {
        const struct hb_st_tensor *t = &st->t[i];
        if ((const char *)t->data != at)
            return bad(st->path, t->name,
                       (const char *)t->data < at ? "its data overlaps another tensor's"
                                                  : "there is a gap in front of its data");
        at += t->n * (t->f64 ? 8 : 4);
    }
    if (at != data + bytes)
        return hb_fail(HB_ERR_INPUT, "%s: %zu bytes behind the last tensor", st->path,
                       (size_t)(data + bytes - at));
    return 0;
}

static int read_header(struct hb_st *st, size_t bytes)
{
    uint64_t len = 0;
    if (bytes < 8)
        return hb_fail(HB_ERR_INPUT, "%s: %zu bytes are too short for a .safetensors file",
                       st->path, bytes);
    for (int i = 0; i < 8; i++) len |= (uint64_t)(unsigned char)st->bytes[i] << (8 * i);
    if (len > MAX_HEADER || len > bytes - 8)
        return hb_fail(HB_ERR_INPUT,
                       "%s: not a .safetensors file: its header claims %" PRIu64
                       " bytes, the file has %zu",
                       st->path, len, bytes);
    json_error_t e;
    st->header = json_loadb(st->bytes + 8, len, JSON_REJECT_DUPLICATES, &e);
    if (!st->header)
        return hb_fail(HB_ERR_INPUT, "%s: header, column %d: %s", st->path, e.column, e.text);
    if (!json_is_object(st->header))
        return hb_fail(HB_ERR_INPUT, "%s: its header is not a JSON object", st->path);
    st->t = calloc(json_object_size(st->header) + 1, sizeof *st->t);
    if (!st->t) return hb_fail(HB_ERR_OOM, "%s: out of memory", st->path);
    const char *name, *data = st->bytes + 8 + len;
    json_t *entry;
    json_object_foreach(st->header, name, entry) {
        struct hb_st_tensor *t = &st->t[st->n];
        if (!strcmp(name, "__metadata__")) {
            if (!json_is_object(entry)) return bad(st->path, name, "not an object");
            continue;
        }
        t->name = name;
        int rc = read_tensor(st->path, t, entry, data, bytes - 8 - len);
        if (rc) return rc;
        st->n++;
    }
    qsort(st->t, (size_t)st->n, sizeof *st->t, by_offset);
    return check_cover(st, data, bytes - 8 - len);
}

int hb_st_read(const char *path, struct hb_st *st)
{
    size_t bytes = 0;
    memset(st, 0, sizeof *st);
    st->path = strdup(path);
    int rc = st->path ? hb_read_file(path, &st->bytes, &bytes)
                      : hb_fail(HB_ERR_OOM, "%s: out of memory", path);
    if (!rc) rc = read_header(st, bytes);
    if (rc) hb_st_free(st);
    return rc;
}

void hb_st_free(struct hb_st *st)
{
    free(st->path);
    free(st->bytes);
    free(st->t);
    json_decref(st->header);
    memset(st, 0, sizeof *st);
}

const struct hb_st_tensor *hb_st_find(const struct hb_st *st, const char *name)
{
    for (int i = 0; i < st->n; i++)
        if (!strcmp(st->t[i].name, name)) return &st->t[i];
    return NULL;
}

int hb_st_load(const struct hb_st *st, const struct hb_st_tensor *t, float *out)
{
    char where[512];
    snprintf(where, sizeof where, "%s: tensor '%s'", st->path, t->name);
    return hb_to_f32(where, t->data, t->f64, t->n, out);
}

// --- writing -------------------------------------------------------------------------------------

static size_t bytes_of(const struct hb_st_tensor *t) { return (size_t)t->n * (t->f64 ? 8 : 4); }

// The JSON header of t[0..n); *bytes: of all data. NULL: out of memory.
static char *make_header(const struct hb_st_tensor *t, int n, json_t *meta, int64_t *bytes)
{
    json_t *head = json_object();
    *bytes = 0;
    if (meta && json_object_set(head, "__metadata__", meta)) {
        json_decref(head);
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        json_t *shape = json_array();
        for (int k = 0; k < t[i].rank; k++)
            json_array_append_new(shape, json_integer(t[i].shape[k]));
        int64_t end = *bytes + (int64_t)bytes_of(&t[i]);
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", t[i].f64 ? "F64" : "F32",
                                  "shape", shape, "data_offsets", (json_int_t)*bytes,
                                  (json_int_t)end);
        if (json_object_set_new(head, t[i].name, entry)) {
            json_decref(head);
            return NULL;
        }
        *bytes = end;
    }
    char *text = json_dumps(head, JSON_COMPACT);
    json_decref(head);
    return text;
}

int hb_st_write_meta(const char *path, const struct hb_st_tensor *t, int n, json_t *meta)
{
    int64_t data = 0;
    char *text = make_header(t, n, meta, &data), *x = NULL;
    size_t len = text ? (strlen(text) + 7) / 8 * 8 : 0;  // padded so that the data is aligned
    if (text) x = malloc(8 + len + (size_t)data);
    if (!x) {
        free(text);
        return hb_fail(HB_ERR_OOM, "%s: out of memory", path);
    }
    for (int i = 0; i < 8; i++) x[i] = (char)(len >> (8 * i));
    memset(x + 8, ' ', len);
    memcpy(x + 8, text, strlen(text));
    char *at = x + 8 + len;
    for (int i = 0; i < n; i++) {
        memcpy(at, t[i].data, bytes_of(&t[i]));
        at += bytes_of(&t[i]);
    }
    int rc = hb_write_file(path, x, 8 + len + (size_t)data);
    free(text);
    free(x);
    return rc;
}

int hb_st_write(const char *path, const struct hb_st_tensor *t, int n)
{
    return hb_st_write_meta(path, t, n, NULL);
}

const char *hb_st_meta(const struct hb_st *st, const char *key)
{
    return json_string_value(json_object_get(json_object_get(st->header, "__metadata__"), key));
}
