// json.c: JSON files in and out: strict in (no duplicate keys, no NaN, one document), readable out.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "record.h"

// One line, blanks after ':' and ',' as Google Benchmark writes them.
enum { DUMP = JSON_REAL_PRECISION(17) };

json_t *hb_json_load(const char *path)
{
    struct stat st;
    FILE *f = fopen(path, "re");
    if (!f || fstat(fileno(f), &st) != 0) {
        hb_fail(HB_ERR_INPUT, "%s: %s", path, strerror(errno));
        if (f) fclose(f);
        return NULL;
    }
    if (S_ISDIR(st.st_mode)) {
        fclose(f);
        hb_fail(HB_ERR_INPUT, "%s: a folder, a JSON file expected", path);
        return NULL;
    }
    json_error_t e;
    json_t *j = json_loadf(f, JSON_REJECT_DUPLICATES, &e);
    fclose(f);
    if (!j) hb_fail(HB_ERR_INPUT, "%s:%d:%d: %s", path, e.line, e.column, e.text);
    return j;
}

struct sink { char *text; size_t n, cap; bool failed; };

static int append(const char *data, size_t n, void *ctx)
{
    struct sink *s = ctx;
    if (s->n + n > s->cap) {
        size_t cap = 2 * (s->n + n) + 4096;
        char *text = realloc(s->text, cap);
        if (!text) { s->failed = true; return -1; }
        s->text = text;
        s->cap = cap;
    }
    memcpy(s->text + s->n, data, n);
    s->n += n;
    return 0;
}

static void put(struct sink *s, const char *text) { append(text, strlen(text), s); }

static void put_json(struct sink *s, const json_t *j)
{
    if (json_dump_callback(j, append, s, DUMP | JSON_ENCODE_ANY) != 0) s->failed = true;
}

// One line per key of the document, of its objects and per element of its lists: one entry of
// benchmarks[] is one line, which diff and grep can work with.
static void put_document(struct sink *s, const json_t *doc)
{
    const char *key, *inner, *sep = "{\n";
    json_t *value, *item;
    size_t i;
    // jansson's macro lacks a const form
    json_object_foreach((json_t *)(uintptr_t)doc, key, value) {
        put(s, sep);
        json_t *name = json_string(key);
        put_json(s, name);
        json_decref(name);
        put(s, ": ");
        const char *in = json_is_array(value) ? "[\n  " : "{\n  ";
        if (json_is_array(value) && json_array_size(value)) {
            json_array_foreach(value, i, item) { put(s, in); put_json(s, item); in = ",\n  "; }
            put(s, "\n ]");
        } else if (json_is_object(value) && json_object_size(value)) {
            json_object_foreach(value, inner, item) {
                json_t *label = json_string(inner);
                put(s, in);
                put_json(s, label);
                put(s, ": ");
                put_json(s, item);
                json_decref(label);
                in = ",\n  ";
            }
            put(s, "\n }");
        } else {
            put_json(s, value);
        }
        sep = ",\n";
    }
    put(s, json_object_size(doc) ? "\n}\n" : "{}\n");
}

int hb_json_save(const char *path, const json_t *j)
{
    struct sink s = { 0 };
    if (json_is_object(j)) {
        put_document(&s, j);
    } else {
        put_json(&s, j);
        put(&s, "\n");
    }
    int rc = s.failed ? hb_fail(HB_ERR_OOM, "%s: no memory for its text", path)
                      : hb_write_file(path, s.text, s.n);
    free(s.text);
    return rc;
}
