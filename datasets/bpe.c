// bpe.c: GPT-2's byte-pair encoding (contract: bpe.h).
// Method    Unicode's letters and numbers are asked of PCRE2 once, into a table over all code
//           points; the pattern itself is followed by hand. A word is merged rank by rank, all
//           places of a rank in one pass; words of up to CACHED bytes are remembered.
// Cost      about 50 ns a word that is known. A word of n bytes that is not: n times the number of
//           distinct merges in it; a text without any spaces is slow.
// Source    Radford et al. 2019 (GPT-2), encoder.py of github.com/openai/gpt-2: the byte alphabet,
//           the pattern and the order of merges.
// Accuracy  letters and numbers are those of the PCRE2 library's Unicode version.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "bpe.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CODE_POINTS = 0x110000, MAX_VOCAB = 65535, CACHED = 48, CACHE_SLOTS = 1 << 21 };
enum class { OTHER, LETTER, NUMBER, SPACE };

struct pair { uint32_t key, rank; uint16_t id; };        // key: left << 16 | right; NO_PAIR: empty
struct word { uint64_t hash; uint32_t at, ids; uint16_t n, n_ids; };     // n 0: empty
static const uint32_t NO_PAIR = UINT32_MAX, NO_RANK = UINT32_MAX;

struct hb_bpe {
    const struct hb_host *host;          // borrowed
    uint8_t *class_of;                   // (CODE_POINTS), owned
    int vocab;
    uint16_t byte_id[256];
    uint8_t *text; uint32_t *text_at;    // bytes of id i: text[text_at[i]] .. text_at[i+1]; owned
    struct pair *pair; uint32_t pair_mask;       // owned
    struct word *word;                   // (CACHE_SLOTS), owned, as are its bytes and ids
    uint8_t *word_bytes; size_t bytes_n, bytes_cap;
    uint16_t *word_ids; size_t ids_n, ids_cap;
    int words;
    uint16_t *scratch; int64_t scratch_cap;      // the word being merged, owned
    char sha256[65];
};

static int no_memory(const struct hb_host *host)
{
    return host->fail(host, HB_ERR_OOM, "no memory for the gpt2 tokenizer");
}

// --- UTF-8 and Unicode ---------------------------------------------------------------------------

// The code point at s[0..n), n >= 1, and its length; -1 and length 1 if it is not valid UTF-8.
static int32_t code_point(const uint8_t *s, int64_t n, int *len)
{
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const int want = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3
                   : s[0] < 0xf5 ? 4 : 0;
    *len = 1;
    if (want == 1)
        return s[0];
    if (want == 0 || want > n)
        return -1;
    int32_t x = s[0] & (0x7f >> want);
    for (int i = 1; i < want; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return -1;
        x = x << 6 | (s[i] & 0x3f);
    }
    if (x < least[want] || x >= CODE_POINTS || (x >= 0xd800 && x < 0xe000))
        return -1;
    *len = want;
    return x;
}

static int put_utf8(uint8_t *to, int32_t x)              // the length
{
    if (x < 0x80)
        return to[0] = (uint8_t)x, 1;
    const int n = x < 0x800 ? 2 : x < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, x >>= 6)
        to[i] = (uint8_t)(0x80 | (x & 0x3f));
    to[0] = (uint8_t)((0xf0 << (4 - n)) | x);            // 110xxxxx, 1110xxxx, 11110xxx
    return n;
}

// Marks what the pattern's group 1 (letters) and group 2 (numbers) find in all code points in a
// row.
static bool mark(uint8_t *class_of, pcre2_code *code, pcre2_match_data *found, const uint8_t *all,
                 size_t n)
{
    int groups;
    for (size_t at = 0;;) {
        groups = pcre2_match(code, all, n, at, PCRE2_NO_UTF_CHECK, found, NULL);
        if (groups <= 0)
            return groups == PCRE2_ERROR_NOMATCH;
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(found);
        for (size_t i = range[0]; i < range[1];) {
            int len;
            const int32_t x = code_point(all + i, (int64_t)(n - i), &len);
            class_of[x] = groups == 2 ? LETTER : NUMBER;
            i += (size_t)len;
        }
        at = range[1];
    }
}

// Unicode's White_Space; PCRE2's own \s has U+180E besides.
static void mark_spaces(uint8_t *class_of)
{
    static const struct { int32_t from, to; } spaces[] = {
        {0x09, 0x0d}, {0x20, 0x20}, {0x85, 0x85}, {0xa0, 0xa0}, {0x1680, 0x1680}, {0x2000, 0x200a},
        {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        for (int32_t x = spaces[i].from; x <= spaces[i].to; x++)
            class_of[x] = SPACE;
}

static int classes(struct hb_bpe *b)
{
    static const char pattern[] = "(\\p{L}+)|(\\p{N}+)";
    int error;
    PCRE2_SIZE where;
    size_t n = 0;
    uint8_t *all = malloc((size_t)CODE_POINTS * 4);
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error,
                                     &where, NULL);
    pcre2_match_data *found = code ? pcre2_match_data_create_from_pattern(code, NULL) : NULL;
    b->class_of = calloc(CODE_POINTS, 1);
    int rc = all && found && b->class_of ? 0 : no_memory(b->host);
    for (int32_t x = 0; !rc && x < CODE_POINTS; x++)
        if (x < 0xd800 || x >= 0xe000)
            n += (size_t)put_utf8(all + n, x);
    if (!rc && !mark(b->class_of, code, found, all, n))
        rc = b->host->fail(b->host, HB_ERR_RUN, "PCRE2 could not list Unicode's letters");
    if (!rc)
        mark_spaces(b->class_of);
    pcre2_match_data_free(found);
    pcre2_code_free(code);
    free(all);
    return rc;
}

// --- reading -------------------------------------------------------------------------------------

// GPT-2 writes a byte as a printable character: itself, or 256 + k for the k-th byte that is none.
static bool printable(int byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

static void alphabet(int32_t letter[256], int16_t byte_of[512])
{
    for (int i = 0; i < 512; i++)
        byte_of[i] = -1;
    for (int byte = 0, k = 0; byte < 256; byte++) {
        letter[byte] = printable(byte) ? byte : 256 + k++;
        byte_of[letter[byte]] = (int16_t)byte;
    }
}

static int bad_entry(const struct hb_bpe *b, const char *key, const char *what)
{
    return b->host->fail(b->host, HB_ERR_INPUT, "encoder.json: '%.40s': %s", key, what);
}

// The bytes of every id: sizes first, then, with `text` there, the bytes themselves.
static int entry(struct hb_bpe *b, const char *key, const json_t *id, const int16_t byte_of[512])
{
    const int64_t n = (int64_t)strlen(key);
    const json_int_t i = json_integer_value(id);
    if (!json_is_integer(id) || i < 0 || i >= b->vocab)
        return bad_entry(b, key, "its id is not an integer below the number of entries");
    uint32_t at = b->text ? b->text_at[i] : 0;
    for (int64_t k = 0; k < n;) {
        int len;
        const int32_t x = code_point((const uint8_t *)key + k, n - k, &len);
        if (x < 0 || x >= 512 || byte_of[x] < 0)
            return bad_entry(b, key, "a character stands for no byte");
        if (b->text)
            b->text[at] = (uint8_t)byte_of[x];
        at++;
        k += len;
    }
    if (b->text)
        return 0;
    if (at == 0 || b->text_at[i + 1])
        return bad_entry(b, key, at ? "its id is used twice" : "it is empty");
    b->text_at[i + 1] = at;
    return 0;
}

static int read_entries(struct hb_bpe *b, json_t *encoder)
{
    int32_t letter[256];
    int16_t byte_of[512];
    const char *key;
    json_t *id;
    alphabet(letter, byte_of);
    if (!json_is_object(encoder) || json_object_size(encoder) < 256 ||
        json_object_size(encoder) > MAX_VOCAB)
        return b->host->fail(b->host, HB_ERR_INPUT,
                             "encoder.json: expected an object of 256..%d entries", MAX_VOCAB);
    b->vocab = (int)json_object_size(encoder);
    if (!(b->text_at = calloc((size_t)b->vocab + 1, sizeof *b->text_at)))
        return no_memory(b->host);
    for (int pass = 0; pass < 2; pass++) {
        int rc = 0;
        json_object_foreach(encoder, key, id)
            if ((rc = entry(b, key, id, byte_of)))
                return rc;
        for (int i = 0; !pass && i < b->vocab; i++)
            b->text_at[i + 1] += b->text_at[i];
        if (!pass && !(b->text = malloc(b->text_at[b->vocab])))
            return no_memory(b->host);
    }
    for (int byte = 0; byte < 256; byte++) {
        char utf8[8] = {0};
        put_utf8((uint8_t *)utf8, letter[byte]);
        if (!(id = json_object_get(encoder, utf8)))
            return b->host->fail(b->host, HB_ERR_INPUT, "encoder.json: byte %d has no entry", byte);
        b->byte_id[byte] = (uint16_t)json_integer_value(id);
    }
    return 0;
}

static uint32_t mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

static const struct pair *find_pair(const struct hb_bpe *b, uint16_t left, uint16_t right)
{
    const uint32_t key = (uint32_t)left << 16 | right;
    uint32_t i = mix(key) & b->pair_mask;
    while (b->pair[i].key != key && b->pair[i].key != NO_PAIR)
        i = (i + 1) & b->pair_mask;
    return &b->pair[i];
}

// One line "left right" of vocab.bpe.
static int merge_line(struct hb_bpe *b, const json_t *encoder, const char *line, size_t n, int no,
                      uint32_t rank)
{
    char left[1024], both[2048];
    const char *gap = memchr(line, ' ', n);
    if (!gap || gap == line || gap == line + n - 1 || n >= sizeof left ||
        memchr(gap + 1, ' ', n - (size_t)(gap + 1 - line)))
        return b->host->fail(b->host, HB_ERR_INPUT,
                             "vocab.bpe:%d: expected two entries with a space between", no);
    const int n_left = (int)(gap - line), n_right = (int)n - n_left - 1;
    snprintf(left, sizeof left, "%.*s", n_left, line);
    const json_t *l = json_object_get(encoder, left);
    snprintf(both, sizeof both, "%s%.*s", left, n_right, gap + 1);
    const json_t *r = json_object_get(encoder, both + n_left), *id = json_object_get(encoder, both);
    if (!l || !r || !id)
        return b->host->fail(b->host, HB_ERR_INPUT, "vocab.bpe:%d: '%.40s' is not in encoder.json",
                             no, !l ? left : !r ? both + n_left : both);
    const uint16_t x = (uint16_t)json_integer_value(l), y = (uint16_t)json_integer_value(r);
    struct pair *p = (struct pair *)find_pair(b, x, y);
    if (p->key == NO_PAIR)                               // of a merge listed twice the first counts
        *p = (struct pair){(uint32_t)x << 16 | y, rank, (uint16_t)json_integer_value(id)};
    return 0;
}

static int read_merges(struct hb_bpe *b, const json_t *encoder, const char *s, size_t n)
{
    size_t lines = 1, slots = 1024;
    for (size_t i = 0; i < n; i++)
        lines += s[i] == '\n';
    while (slots < 3 * lines)
        slots *= 2;
    if (lines > 1u << 24 || !(b->pair = malloc(slots * sizeof *b->pair)))
        return no_memory(b->host);
    b->pair_mask = (uint32_t)slots - 1;
    for (size_t i = 0; i < slots; i++)
        b->pair[i].key = NO_PAIR;
    uint32_t rank = 0;
    int no = 1;
    for (size_t i = 0, len; i < n; i += len + 1, no++) {
        const char *end = memchr(s + i, '\n', n - i);
        len = end ? (size_t)(end - s) - i : n - i;
        if (len == 0 || (no == 1 && s[i] == '#'))        // "#version: 0.2"
            continue;
        int rc = merge_line(b, encoder, s + i, len, no, rank++);
        if (rc)
            return rc;
    }
    return 0;
}

static int sum(struct hb_bpe *b, const char *x, size_t n, const char *y, size_t m)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
                    EVP_DigestUpdate(ctx, x, n) == 1 && EVP_DigestUpdate(ctx, y, m) == 1 &&
                    EVP_DigestFinal_ex(ctx, md, &len) == 1 && len == 32;
    EVP_MD_CTX_free(ctx);
    for (unsigned i = 0; ok && i < 32; i++)
        snprintf(b->sha256 + 2 * i, 3, "%02x", md[i]);
    return ok ? 0 : b->host->fail(b->host, HB_ERR_RUN, "libcrypto could not compute a sha256");
}

int hb_bpe_make(const struct hb_host *host, const char *encoder, size_t n_encoder,
                const char *merges, size_t n_merges, struct hb_bpe **out)
{
    json_error_t e;
    *out = NULL;
    struct hb_bpe *b = calloc(1, sizeof *b);
    if (!b)
        return no_memory(host);
    b->host = host;
    json_t *doc = json_loadb(encoder, n_encoder, JSON_REJECT_DUPLICATES, &e);
    int rc = doc ? 0 : host->fail(host, HB_ERR_INPUT, "encoder.json:%d:%d: %s", e.line, e.column,
                                  e.text);
    if (!rc)
        rc = read_entries(b, doc);
    if (!rc)
        rc = read_merges(b, doc, merges, n_merges);
    if (!rc)
        rc = sum(b, encoder, n_encoder, merges, n_merges);
    if (!rc)
        rc = classes(b);
    if (!rc && !(b->word = calloc(CACHE_SLOTS, sizeof *b->word)))
        rc = no_memory(host);
    json_decref(doc);
    if (rc)
        hb_bpe_free(b);
    else
        *out = b;
    return rc;
}

int hb_bpe_open(const struct hb_host *host, const struct hb_data_dirs *dirs, struct hb_bpe **out)
{
    static const char *const names[] = {"encoder.json", "vocab.bpe"};
    struct hb_manifest_row *rows;
    const struct hb_manifest_row *row[2] = {NULL, NULL};
    uint8_t *data[2] = {NULL, NULL};
    int n, rc = hb_manifest_read(host, dirs->manifest, &rows, &n);
    *out = NULL;
    if (rc)
        return rc;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++)
            if (!strcmp(rows[i].set, "gpt2-bpe") && !strcmp(rows[i].file, names[k]))
                row[k] = &rows[i];
    for (int k = 0; !rc && k < 2; k++)
        rc = row[k] ? hb_manifest_load(host, dirs, row[k], &data[k])
                    : host->fail(host, HB_ERR_INPUT, "%s has no row for %s of gpt2-bpe",
                                 dirs->manifest, names[k]);
    if (!rc)
        rc = hb_bpe_make(host, (const char *)data[0], (size_t)row[0]->bytes, (const char *)data[1],
                         (size_t)row[1]->bytes, out);
    free(data[0]);
    free(data[1]);
    free(rows);
    return rc;
}

void hb_bpe_free(struct hb_bpe *b)
{
    if (!b)
        return;
    free(b->class_of);
    free(b->text);
    free(b->text_at);
    free(b->pair);
    free(b->word);
    free(b->word_bytes);
    free(b->word_ids);
    free(b->scratch);
    free(b);
}

int hb_bpe_vocab(const struct hb_bpe *b) { return b->vocab; }
const char *hb_bpe_sha256(const struct hb_bpe *b) { return b->sha256; }

// --- words ---------------------------------------------------------------------------------------

static enum class class_at(const struct hb_bpe *b, const uint8_t *s, int64_t n, int *len)
{
    const int32_t x = code_point(s, n, len);
    return x < 0 ? OTHER : (enum class)b->class_of[x];
}

// 's 't 're 've 'm 'll 'd: its length, 0 if it is none.
static int contraction(const uint8_t *s, int64_t n)
{
    if (n < 2 || s[0] != '\'')
        return 0;
    if (memchr("stmd", s[1], 4))
        return 2;
    return n >= 3 && (!memcmp(s + 1, "re", 2) || !memcmp(s + 1, "ve", 2) || !memcmp(s + 1, "ll", 2))
         ? 3 : 0;
}

// The length of the word at s[0..n), n >= 1.
static int64_t next_word(const struct hb_bpe *b, const uint8_t *s, int64_t n)
{
    int len, last = contraction(s, n);
    if (last)
        return last;
    int64_t at = s[0] == ' ' && n > 1;                   // " ?": the space belongs to what follows
    enum class mine = class_at(b, s + at, n - at, &len);
    if (mine != SPACE) {
        do
            at += len;
        while (at < n && class_at(b, s + at, n - at, &len) == mine);
        return at;
    }
    for (at = 0, last = 0; at < n && class_at(b, s + at, n - at, &len) == SPACE; at += len)
        last = len;
    return at == n || at == last ? at : at - last;       // \s+(?!\S), else \s+
}

// --- merges --------------------------------------------------------------------------------------

// id (n) -> the merged ids in place; how many are left.
static int64_t merge(const struct hb_bpe *b, uint16_t *id, int64_t n)
{
    for (;;) {
        struct pair best = {.rank = NO_RANK};
        for (int64_t i = 0; i + 1 < n; i++) {
            const struct pair *p = find_pair(b, id[i], id[i + 1]);
            if (p->key != NO_PAIR && p->rank < best.rank)
                best = *p;
        }
        if (best.rank == NO_RANK)
            return n;
        int64_t to = 0;
        for (int64_t i = 0; i < n; i++) {
            const bool hit = i + 1 < n && ((uint32_t)id[i] << 16 | id[i + 1]) == best.key;
            id[to++] = hit ? best.id : id[i];
            i += hit;
        }
        n = to;
    }
}

static uint64_t hash_of(const uint8_t *s, int64_t n)
{
    uint64_t h = 0xcbf29ce484222325u;                    // FNV-1a, then mixed
    for (int64_t i = 0; i < n; i++)
        h = (h ^ s[i]) * 0x100000001b3u;
    return h ^ h >> 29;
}

// The slot of a word: its own, or the empty one where it would go.
static struct word *slot_of(struct hb_bpe *b, const uint8_t *s, int64_t n, uint64_t hash)
{
    size_t i = hash & (CACHE_SLOTS - 1);
    for (; b->word[i].n; i = (i + 1) & (CACHE_SLOTS - 1))
        if (b->word[i].hash == hash && b->word[i].n == n &&
            !memcmp(b->word_bytes + b->word[i].at, s, (size_t)n))
            break;
    return &b->word[i];
}

static bool room(void **p, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return true;
    size_t want = *cap ? 2 * *cap : 4096;
    while (want < need)
        want *= 2;
    void *more = realloc(*p, want * size);
    if (!more)
        return false;
    *p = more;
    *cap = want;
    return true;
}

// Remembers a word, unless the table is three quarters full or memory is short: it is only slower
// then.
static void remember(struct hb_bpe *b, struct word *w, const uint8_t *s, int64_t n, uint64_t hash,
                     const uint16_t *id, int64_t n_ids)
{
    void *bytes = b->word_bytes, *ids = b->word_ids;
    if (b->words >= CACHE_SLOTS / 4 * 3)
        return;
    const bool ok = room(&bytes, &b->bytes_cap, b->bytes_n + (size_t)n, 1);
    b->word_bytes = bytes;
    if (!ok || !room(&ids, &b->ids_cap, b->ids_n + (size_t)n_ids, sizeof *id))
        return;
    b->word_ids = ids;
    memcpy(b->word_bytes + b->bytes_n, s, (size_t)n);
    memcpy(b->word_ids + b->ids_n, id, (size_t)n_ids * sizeof *id);
    *w = (struct word){hash, (uint32_t)b->bytes_n, (uint32_t)b->ids_n, (uint16_t)n,
                       (uint16_t)n_ids};
    b->bytes_n += (size_t)n;
    b->ids_n += (size_t)n_ids;
    b->words++;
}

// The ids of one word, valid until the next call; NULL: no memory.
static const uint16_t *encode_word(struct hb_bpe *b, const uint8_t *s, int64_t n, int64_t *n_ids)
{
    const bool small = n <= CACHED;
    const uint64_t hash = small ? hash_of(s, n) : 0;
    struct word *w = small ? slot_of(b, s, n, hash) : NULL;
    if (w && w->n) {
        *n_ids = w->n_ids;
        return b->word_ids + w->ids;
    }
    if (n > b->scratch_cap) {
        uint16_t *more = realloc(b->scratch, 2 * (size_t)n * sizeof *more);
        if (!more)
            return NULL;
        b->scratch = more;
        b->scratch_cap = 2 * n;
    }
    for (int64_t i = 0; i < n; i++)
        b->scratch[i] = b->byte_id[s[i]];
    *n_ids = merge(b, b->scratch, n);
    if (w)
        remember(b, w, s, n, hash, b->scratch, *n_ids);
    return b->scratch;
}

int hb_bpe_encode(struct hb_bpe *b, const uint8_t *s, int64_t n, uint16_t **ids, int64_t *n_ids)
{
    void *out = NULL;
    size_t cap = 0, used = 0;
    *ids = NULL;
    *n_ids = 0;
    for (int64_t at = 0, len; at < n; at += len) {
        int64_t k;
        len = next_word(b, s + at, n - at);
        const uint16_t *word = encode_word(b, s + at, len, &k);
        if (!word || !room(&out, &cap, used + (size_t)k, sizeof *word)) {
            free(out);
            return no_memory(b->host);
        }
        memcpy((uint16_t *)out + used, word, (size_t)k * sizeof *word);
        used += (size_t)k;
    }
    *ids = out;
    *n_ids = (int64_t)used;
    return 0;
}

int64_t hb_bpe_decode(const struct hb_bpe *b, const uint16_t *ids, int64_t n, uint8_t *out)
{
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] >= b->vocab)
            continue;
        const uint32_t from = b->text_at[ids[i]], len = b->text_at[ids[i] + 1] - from;
        if (out)
            memcpy(out + at, b->text + from, len);
        at += len;
    }
    return at;
}
