// recall.c: see recall.h. Examples are independent draws, kept in the order they were drawn; train
// and test come from one stream, and each is free of duplicates in itself.

#include "recall.h"

#include <stdlib.h>
#include <string.h>

#include "../impls/core/rng.h"

// Example number `at` of the stream -> tok (L+3). map (keys) is scratch.
static void draw(int V, int64_t L, uint64_t seed, uint64_t at, uint16_t *map, uint16_t *tok)
{
    const uint64_t n = (uint64_t)V - 2, keys = n / 2, values = n - keys, pairs = (uint64_t)L / 2;
    uint64_t i = 0;
    bool present = false;
    for (uint64_t k = 0; k < keys; k++)
        map[k] = (uint16_t)(keys + 1 + hb_rng_below(seed, at, i++, values));
    for (uint64_t q = 0; q < pairs; q++) {
        uint64_t k = hb_rng_below(seed, at, i++, keys);
        tok[2 * q] = (uint16_t)(k + 1);
        tok[2 * q + 1] = map[k];
    }
    uint16_t query = (uint16_t)(1 + hb_rng_below(seed, at, i++, keys));
    for (uint64_t q = 0; q < pairs && !present; q++)
        present = tok[2 * q] == query;
    // Absent: uniform among the different keys that are there, by drawing until one of them comes.
    while (!present) {
        query = (uint16_t)(1 + hb_rng_below(seed, at, i++, keys));
        for (uint64_t q = 0; q < pairs && !present; q++)
            present = tok[2 * q] == query;
    }
    tok[L] = (uint16_t)(n + 1);
    tok[L + 1] = query;
    tok[L + 2] = map[query - 1];
}

static uint64_t row_hash(const uint16_t *tok, int64_t n)
{
    uint64_t h = 0xcbf29ce484222325u;                            // FNV-1a
    for (int64_t i = 0; i < n; i++)
        h = (h ^ tok[i]) * 0x100000001b3u;
    return h ^ (h >> 29);
}

// Fills rows (n, T) with different examples; *at counts the stream's examples. set: open
// addressing, `cap` slots of row + 1.
static int fill(const struct hb_host *host, int V, int64_t L, uint64_t seed, uint64_t *at,
                uint16_t *map, uint16_t *rows, int64_t n)
{
    const int64_t T = L + 3;
    uint64_t cap = 16;
    while (cap < 2 * (uint64_t)n)
        cap *= 2;
    int64_t *set = calloc(cap, sizeof *set), misses = 0;
    if (!set)
        return host->fail(host, HB_ERR_OOM, "recall: no memory for %lld examples", (long long)n);
    for (int64_t r = 0; r < n && misses < 1000 + 100 * n;) {
        uint16_t *tok = rows + r * T;
        draw(V, L, seed, (*at)++, map, tok);
        uint64_t slot = row_hash(tok, T) & (cap - 1);
        while (set[slot] && memcmp(rows + (set[slot] - 1) * T, tok, (size_t)T * sizeof *tok))
            slot = (slot + 1) & (cap - 1);
        if (set[slot])
            misses++;
        else
            set[slot] = ++r;
    }
    free(set);
    if (misses >= 1000 + 100 * n)
        return host->fail(host, HB_ERR_INPUT,
                          "recall: vocabulary %d and length %lld have not %lld different examples",
                          V, (long long)L, (long long)n);
    return 0;
}

// The accuracy of answering with the most frequent value of the prompt.
static double frequent(const struct hb_recall *r, int *count)
{
    const int64_t T = r->L + 3;
    int64_t right = 0;
    for (int64_t e = 0; e < r->n_test; e++) {
        const uint16_t *tok = r->test + e * T;
        int best = 0;
        memset(count, 0, (size_t)r->V * sizeof *count);
        for (int64_t t = 1; t < r->L; t += 2)
            count[tok[t]]++;
        for (int v = 1; v < r->V; v++)
            if (count[v] > count[best])
                best = v;
        right += best == tok[T - 1];
    }
    return (double)right / (double)r->n_test;
}

int hb_recall_make(const struct hb_host *host, int V, int64_t L, uint64_t seed, int64_t n_train,
                   int64_t n_test, struct hb_recall *out)
{
    *out = (struct hb_recall){.V = V, .L = L, .n_train = n_train, .n_test = n_test};
    if (V < 6 || V > 65536 || L < 2 || L % 2 || n_train < 1 || n_test < 1)
        return host->fail(
            host, HB_ERR_INPUT,
            "recall: vocabulary %d, length %lld, %lld + %lld examples; expected 6..65536, "
            "an even length, at least one example",
            V, (long long)L, (long long)n_train, (long long)n_test);
    const size_t row = (size_t)(L + 3) * sizeof(uint16_t);
    uint16_t *map = malloc((size_t)V * sizeof *map);
    int *count = malloc((size_t)V * sizeof *count), rc = 0;
    uint64_t at = 0;
    out->train = malloc((size_t)n_train * row);
    out->test = malloc((size_t)n_test * row);
    if (!map || !count || !out->train || !out->test)
        rc = host->fail(host, HB_ERR_OOM, "recall: no memory for %lld examples",
                        (long long)(n_train + n_test));
    if (!rc)
        rc = fill(host, V, L, seed, &at, map, out->train, n_train);
    if (!rc)
        rc = fill(host, V, L, seed, &at, map, out->test, n_test);
    if (!rc) {
        out->chance_uniform = 1.0 / (double)(V - 2 - (V - 2) / 2);
        out->chance_frequent = frequent(out, count);
    }
    free(map);
    free(count);
    if (rc)
        hb_recall_free(out);
    return rc;
}

void hb_recall_free(struct hb_recall *r)
{
    free(r->train);
    free(r->test);
    *r = (struct hb_recall){0};
}
