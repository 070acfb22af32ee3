// manifest.c: one row a file, seven fields separated by tabs; see the head of datasets/manifest.

#include "manifest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS = 7, LINE_MAX_BYTES = 4096 };

// Copies field i of a split line; false if it is empty or does not fit.
static bool put(char *dst, size_t cap, const char *src)
{
    size_t n = strlen(src);
    if (n == 0 || n >= cap)
        return false;
    memcpy(dst, src, n + 1);
    return true;
}

static bool is_sha256(const char *s)
{
    return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

// One line without its newline -> row. The line is cut at its tabs. NULL or what is wrong with it.
static const char *parse_line(char *line, struct hb_manifest_row *r)
{
    char *f[FIELDS], *rest = line, *end;
    int n = 0;
    for (char *tok; (tok = strsep(&rest, "\t")); n++) {
        if (n == FIELDS)
            return "more than 7 fields";
        f[n] = tok;
    }
    if (n != FIELDS)
        return "fewer than 7 fields";
    errno = 0;
    r->bytes = strtoll(f[2], &end, 10);
    if (errno || *end || end == f[2] || r->bytes <= 0)
        return "field 3 (bytes) is not a positive integer";
    if (!is_sha256(f[3]))
        return "field 4 (sha256) is not 64 hexadecimal digits";
    if (strncmp(f[4], "debian:", 7) && strncmp(f[4], "data:", 5))
        return "field 5 (get) does not start with debian: or data:";
    if (strchr(f[1], '/'))
        return "field 2 (file) has a '/'";
    if (!put(r->set, sizeof r->set, f[0]) || !put(r->file, sizeof r->file, f[1]) ||
        !put(r->sha256, sizeof r->sha256, f[3]) || !put(r->get, sizeof r->get, f[4]) ||
        !put(r->licence, sizeof r->licence, f[5]) || !put(r->source, sizeof r->source, f[6]))
        return "an empty or overlong field";
    return NULL;
}

static int read_rows(const struct hb_host *host, const char *path, FILE *fp,
                     struct hb_manifest_row **rows, int *n)
{
    char line[LINE_MAX_BYTES];
    int cap = 0;
    for (int no = 1; fgets(line, sizeof line, fp); no++) {
        size_t len = strlen(line);
        if (len == 0 || line[len - 1] != '\n')
            return host->fail(host, HB_ERR_INPUT,
                              "%s:%d: the line is longer than %d bytes or has no end", path, no,
                              LINE_MAX_BYTES - 2);
        line[len - 1] = '\0';
        if (line[0] == '#' || line[0] == '\0')
            continue;
        if (*n == cap) {
            cap = cap ? 2 * cap : 32;
            struct hb_manifest_row *more = realloc(*rows, (size_t)cap * sizeof **rows);
            if (!more)
                return host->fail(host, HB_ERR_OOM, "%s: out of memory at line %d", path, no);
            *rows = more;
        }
        const char *wrong = parse_line(line, &(*rows)[*n]);
        if (wrong)
            return host->fail(host, HB_ERR_INPUT, "%s:%d: %s", path, no, wrong);
        ++*n;
    }
    if (ferror(fp))
        return host->fail(host, HB_ERR_RUN, "%s: %s", path, strerror(errno));
    return 0;
}

int hb_manifest_read(const struct hb_host *host, const char *path, struct hb_manifest_row **rows,
                     int *n)
{
    *rows = NULL;
    *n = 0;
    FILE *fp = fopen(path, "r");
    if (!fp)
        return host->fail(host, HB_ERR_MISSING, "%s: %s", path, strerror(errno));
    int rc = read_rows(host, path, fp, rows, n);
    fclose(fp);
    if (rc) {
        free(*rows);
        *rows = NULL;
        *n = 0;
    }
    return rc;
}

static int sha256_hex(const void *data, size_t bytes, char hex[65])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_Digest(data, bytes, md, &len, EVP_sha256(), NULL) != 1 || len != 32)
        return HB_ERR_RUN;
    for (unsigned i = 0; i < len; i++)
        snprintf(hex + 2 * i, 3, "%02x", md[i]);
    return 0;
}

static int missing(const struct hb_host *host, const char *path, const struct hb_manifest_row *r)
{
    if (!strncmp(r->get, "debian:", 7))
        return host->fail(host, HB_ERR_MISSING,
                          "%s is not there; get it with: make datasets SETS=%s "
                          "(needs the Debian packages %s)",
                          path, r->set, r->get + 7);
    return host->fail(host, HB_ERR_MISSING, "%s is not there; put %s or %s.xz into the folder that "
                      "HYENA_BENCH_DATA names and run: make datasets SETS=%s (source: %s)",
                      path, r->get + 5, r->get + 5, r->set, r->source);
}

static int load_open(const struct hb_host *host, const char *path, const struct hb_manifest_row *r,
                     FILE *fp, uint8_t *data)
{
    size_t want = (size_t)r->bytes, got = fread(data, 1, want, fp);
    if (got != want || fgetc(fp) != EOF)
        return host->fail(host, HB_ERR_INPUT,
                          "%s has not %lld bytes as the manifest says; remove it and run: "
                          "make datasets SETS=%s",
                          path, (long long)r->bytes, r->set);
    char hex[65];
    if (sha256_hex(data, want, hex))
        return host->fail(host, HB_ERR_RUN, "%s: libcrypto could not compute its sha256", path);
    if (strcmp(hex, r->sha256))
        return host->fail(host, HB_ERR_INPUT,
                          "%s has sha256 %.16s..., the manifest says %.16s...; remove it and "
                          "run: make datasets SETS=%s",
                          path, hex, r->sha256, r->set);
    return 0;
}

int hb_manifest_load(const struct hb_host *host, const struct hb_data_dirs *dirs,
                     const struct hb_manifest_row *row, uint8_t **data)
{
    char path[4096];
    *data = NULL;
    if (snprintf(path, sizeof path, "%s/%s", dirs->cache, row->file) >= (int)sizeof path)
        return host->fail(host, HB_ERR_INPUT, "the folder name %s is too long", dirs->cache);
    FILE *fp = fopen(path, "rb");
    if (!fp)
        return errno == ENOENT ? missing(host, path, row)
                               : host->fail(host, HB_ERR_RUN, "%s: %s", path, strerror(errno));
    int rc;
    if (!(*data = malloc((size_t)row->bytes)))
        rc = host->fail(host, HB_ERR_OOM, "%s: no memory for %lld bytes", path,
                        (long long)row->bytes);
    else
        rc = load_open(host, path, row, fp, *data);
    fclose(fp);
    if (rc) {
        free(*data);
        *data = NULL;
    }
    return rc;
}
