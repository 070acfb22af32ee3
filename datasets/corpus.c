// corpus.c: readers of the data sets. A reader takes one file's bytes and appends the tokens of one
// split.

#include "corpus.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES = 256, BASES = 5, MAX_FILES = 8 };

// Appends to out->tok, which has room for the whole file. cannot fail
typedef void (*reader)(const uint8_t *s, int64_t n, enum hb_split split, struct hb_tokens *out);

static void put_bytes(const uint8_t *s, int64_t n, struct hb_tokens *out)
{
    for (int64_t i = 0; i < n; i++)
        out->tok[out->n + i] = s[i];
    out->n += n;
}

static int64_t line_length(const uint8_t *s, int64_t n)          // its newline included
{
    const uint8_t *end = memchr(s, '\n', (size_t)n);
    return end ? end - s + 1 : n;
}

static void read_all(const uint8_t *s, int64_t n, enum hb_split split, struct hb_tokens *out)
{
    (void)split;
    put_bytes(s, n, out);
}

// --- split by place ------------------------------------------------------------------------------

// The split's part [*lo,*hi) of n: 94 % train, 3 % valid, 3 % test.
static void place(int64_t n, enum hb_split split, int64_t *lo, int64_t *hi)
{
    const int64_t cut[] = {0, n * 94 / 100, n * 97 / 100, n};
    *lo = cut[split];
    *hi = cut[split + 1];
}

static void read_by_place(const uint8_t *s, int64_t n, enum hb_split split, struct hb_tokens *out)
{
    int64_t lo, hi;
    place(n, split, &lo, &hi);
    put_bytes(s + lo, hi - lo, out);
}

static uint16_t base(uint8_t c)
{
    static const char letters[] = "ACGT";
    const char *at = memchr(letters, c & 0xdf, 4);               // 0xdf: upper case
    return at ? (uint16_t)(at - letters) : BASES - 1;
}

static void read_fasta(const uint8_t *s, int64_t n, enum hb_split split, struct hb_tokens *out)
{
    int64_t all = 0, lo, hi;
    for (int64_t i = 0, len; i < n; i += len) {
        len = line_length(s + i, n - i);
        for (int64_t j = 0; j < len && s[i] != '>'; j++)
            if (s[i + j] > ' ')
                out->tok[all++] = base(s[i + j]);
    }
    place(all, split, &lo, &hi);
    memmove(out->tok, out->tok + lo, (size_t)(hi - lo) * sizeof *out->tok);
    out->n = hi - lo;
}

// --- the Bible: by book --------------------------------------------------------------------------

// A narrative, a book of wisdom or prophecy and one of the New Testament each, 3.4 and 4.6 % of the
// text. None has a near copy in the training books (as Mark has in Matthew, or Chronicles in
// Kings).
static enum hb_split book_split(const uint8_t *name, int64_t n)
{
    static const struct { const char *book; enum hb_split split; } held[] = {
        {"Ruth", HB_SPLIT_VALID}, {"Job", HB_SPLIT_VALID}, {"Heb", HB_SPLIT_VALID},
        {"Est", HB_SPLIT_TEST},   {"Dan", HB_SPLIT_TEST},  {"John", HB_SPLIT_TEST},
    };
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        if ((int64_t)strlen(held[i].book) == n && !memcmp(held[i].book, name, (size_t)n))
            return held[i].split;
    return HB_SPLIT_TRAIN;
}

// A line is BOOKCHAPTER:VERSE TEXT, where BOOK may start with a digit ("1Ki5:3 And ...").
static void read_bible(const uint8_t *s, int64_t n, enum hb_split split, struct hb_tokens *out)
{
    for (int64_t i = 0, len; i < n; i += len) {
        len = line_length(s + i, n - i);
        int64_t letters = 1, text = 0;
        while (letters < len && (s[i + letters] < '0' || s[i + letters] > '9'))
            letters++;
        while (text < len && s[i + text] != ' ')
            text++;
        if (text < len && book_split(s + i, letters) == split)
            put_bytes(s + i + text + 1, len - text - 1, out);
    }
}

// --- the encyclopedia: by article ----------------------------------------------------------------

static enum hb_split article_split(const uint8_t *tag, int64_t n)
{
    static const char open[] = "<doc id=\"";
    const int64_t skip = (int64_t)sizeof open - 1;
    long id = 0;
    for (int64_t i = skip; i < n && tag[i] >= '0' && tag[i] <= '9'; i++)
        id = 10 * id + (tag[i] - '0');
    return id % 200 == 0 ? HB_SPLIT_TEST : id % 200 == 100 ? HB_SPLIT_VALID : HB_SPLIT_TRAIN;
}

// An article is <doc id="..." ...> TEXT </doc>, both tags on lines of their own; the tags are
// dropped.
static void read_articles(const uint8_t *s, int64_t n, enum hb_split split, struct hb_tokens *out)
{
    bool mine = false;
    for (int64_t i = 0, len; i < n; i += len) {
        len = line_length(s + i, n - i);
        if (len >= 8 && !memcmp(s + i, "<doc id=", 8))
            mine = article_split(s + i, len) == split;
        else if (len >= 6 && !memcmp(s + i, "</doc>", 6))
            mine = false;
        else if (mine)
            put_bytes(s + i, len, out);
    }
}

// --- the sets ------------------------------------------------------------------------------------

// rows: the manifest's set name per split, or one for all of them (then the reader splits). NULL:
// there is none. file: this one of the set's files alone; NULL: all of them.
static const struct corpus {
    const char *name;
    const char *rows[HB_SPLIT_COUNT];
    int vocab;
    reader read;
    const char *file;
} sets[] = {
    {"bible", {"bible", "bible", "bible"}, BYTES, read_bible, NULL},
    {"wikitext-2", {"wikitext-2.train", "wikitext-2.valid", "wikitext-2.test"}, BYTES, read_all,
     NULL},
    {"wikitext-103", {NULL, "wikitext-103.valid", "wikitext-103.test"}, BYTES, read_all, NULL},
#define ENWIKI {"enwiki2015", "enwiki2015", "enwiki2015"}, BYTES, read_articles
    {"enwiki2015", ENWIKI, NULL},
    {"enwiki2015.part1", ENWIKI, "enwiki2015.part1.txt"},
    {"enwiki2015.part2", ENWIKI, "enwiki2015.part2.txt"},
    {"enwiki2015.part3", ENWIKI, "enwiki2015.part3.txt"},
    {"enwiki2015.part4", ENWIKI, "enwiki2015.part4.txt"},
#undef ENWIKI
    {"sotu", {"sotu", "sotu", "sotu"}, BYTES, read_by_place, NULL},
    {"ecoli", {"ecoli", "ecoli", "ecoli"}, BASES, read_fasta, NULL},
    {"lambda", {"lambda", "lambda", "lambda"}, BASES, read_fasta, NULL},
    {"chrX", {"chrX", "chrX", "chrX"}, BASES, read_fasta, NULL},
};

static const struct corpus *find(const char *name)
{
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (!strcmp(sets[i].name, name))
            return &sets[i];
    return NULL;
}

bool hb_corpus_known(const char *name)
{
    return find(name) != NULL;
}

bool hb_corpus_is_text(const char *name)
{
    const struct corpus *c = find(name);
    return c && c->vocab == BYTES;
}

const char *hb_corpus_names(void)
{
    static char names[512];
    for (size_t i = 0, n = 0; i < sizeof sets / sizeof *sets && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", sets[i].name);
    return names;
}

// The sum of one file is its own; of several, that of their sums in a row.
static int set_sum(const struct hb_host *host, const struct hb_manifest_row *const *rows, int n,
                   char hex[65])
{
    char sums[MAX_FILES * 64 + 1];
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (n == 1) {
        memcpy(hex, rows[0]->sha256, 65);
        return 0;
    }
    for (int i = 0; i < n; i++)
        memcpy(sums + 64 * i, rows[i]->sha256, 65);
    if (EVP_Digest(sums, 64 * (size_t)n, md, &len, EVP_sha256(), NULL) != 1)
        return host->fail(host, HB_ERR_RUN, "libcrypto could not compute a sha256");
    for (unsigned i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", md[i]);
    return 0;
}

// Reads the files one by one, so that only one of them is in memory beside the tokens.
static int read_files(const struct hb_host *host, const struct hb_data_dirs *dirs,
                      const struct corpus *c, const struct hb_manifest_row *const *rows, int n,
                      enum hb_split split, struct hb_tokens *out)
{
    int64_t room = 0;
    for (int i = 0; i < n; i++) {
        room += rows[i]->bytes;
        uint16_t *more = realloc(out->tok, (size_t)room * sizeof *more);
        if (!more)
            return host->fail(host, HB_ERR_OOM, "no memory for the %lld tokens of %s",
                              (long long)room, c->name);
        out->tok = more;
        uint8_t *data;
        int rc = hb_manifest_load(host, dirs, rows[i], &data);
        if (rc)
            return rc;
        c->read(data, rows[i]->bytes, split, out);
        free(data);
        room = out->n;
    }
    if (out->n == 0)
        return host->fail(host, HB_ERR_INPUT, "the set %s has no text in this split", c->name);
    uint16_t *less = realloc(out->tok, (size_t)out->n * sizeof *less);
    out->tok = less ? less : out->tok;
    return set_sum(host, rows, n, out->sha256);
}

// The manifest's rows of a split: *all is malloc'ed, mine[0..*n) point into it.
static int pick(const struct hb_host *host, const struct hb_data_dirs *dirs, const char *name,
                enum hb_split split, const struct corpus **c, struct hb_manifest_row **all,
                const struct hb_manifest_row *mine[MAX_FILES], int *n)
{
    static const char *const split_names[] = {"train", "valid", "test"};
    *all = NULL;
    *n = 0;
    if (!(*c = find(name)))
        return host->fail(host, HB_ERR_INPUT, "no data set '%s'; there are: %s", name,
                          hb_corpus_names());
    const char *set = (*c)->rows[split], *file = (*c)->file;
    if (!set)
        return host->fail(host, HB_ERR_INPUT, "the set %s has no %s split here", name,
                          split_names[split]);
    int n_all, rc = hb_manifest_read(host, dirs->manifest, all, &n_all);
    for (int i = 0; !rc && i < n_all; i++)
        if (!strcmp((*all)[i].set, set) && (!file || !strcmp((*all)[i].file, file)) &&
            *n < MAX_FILES)
            mine[(*n)++] = &(*all)[i];
    if (!rc && *n == 0)
        rc = host->fail(host, HB_ERR_INPUT, "%s has no row for %s", dirs->manifest, name);
    return rc;
}

int hb_corpus_sha256(const struct hb_host *host, const struct hb_data_dirs *dirs, const char *name,
                     enum hb_split split, char hex[65])
{
    const struct corpus *c;
    struct hb_manifest_row *all;
    const struct hb_manifest_row *mine[MAX_FILES];
    int n, rc = pick(host, dirs, name, split, &c, &all, mine, &n);
    if (!rc)
        rc = set_sum(host, mine, n, hex);
    free(all);
    return rc;
}

int hb_corpus_load(const struct hb_host *host, const struct hb_data_dirs *dirs, const char *name,
                   enum hb_split split, struct hb_tokens *out)
{
    const struct corpus *c;
    struct hb_manifest_row *all;
    const struct hb_manifest_row *mine[MAX_FILES];
    *out = (struct hb_tokens){0};
    int n, rc = pick(host, dirs, name, split, &c, &all, mine, &n);
    if (!rc)
        rc = read_files(host, dirs, c, mine, n, split, out);
    if (!rc)
        out->vocab = c->vocab;
    free(all);
    if (rc)
        hb_tokens_free(out);
    return rc;
}

void hb_tokens_free(struct hb_tokens *t)
{
    free(t->tok);
    *t = (struct hb_tokens){0};
}
