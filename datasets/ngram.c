// ngram.c: see ngram.h. Dense tables: a context of j tokens has the index sum_i x[t-1-i] V^i.

#include "ngram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t power(size_t V, int j)
{
    size_t n = 1;
    while (j-- > 0)
        n *= V;
    return n;
}

int hb_ngram_fit(const struct hb_host *host, const uint16_t *tok, int64_t n_tok, int V, int n,
                 struct hb_ngram *out)
{
    *out = (struct hb_ngram){.n = n, .V = V, .m = 1.0};
    if (n < 1 || n > 3 || V < 1 || V > 256 || n_tok >= INT64_C(1) << 32)
        return host->fail(host, HB_ERR_INPUT,
                          "n-gram counts: n %d, vocabulary %d; expected n 1..3, vocabulary 1..256",
                          n, V);
    for (int j = 1; j <= n; j++) {
        out->count[j] = calloc(power((size_t)V, j), sizeof **out->count);
        out->before[j - 1] = calloc(power((size_t)V, j - 1), sizeof **out->before);
        if (!out->count[j] || !out->before[j - 1]) {
            hb_ngram_free(out);
            return host->fail(host, HB_ERR_OOM, "no memory for the counts of %d tokens in a row",
                              j);
        }
    }
    for (int j = 1; j <= n; j++)
        for (int64_t t = j - 1; t < n_tok; t++) {
            size_t h = 0;
            for (int i = j - 1; i >= 1; i--)  // oldest first: it gets the highest power
                h = h * (size_t)V + tok[t - i];
            out->before[j - 1][h]++;
            out->count[j][h * (size_t)V + tok[t]]++;
        }
    return 0;
}

void hb_ngram_free(struct hb_ngram *g)
{
    for (int j = 0; j < 4; j++)
        free(g->count[j]);
    for (int j = 0; j < 3; j++)
        free(g->before[j]);
    memset(g, 0, sizeof *g);
}

// p(tok[t] | up to n-1 tokens before it, as many as there are)
static double prob(const struct hb_ngram *g, const uint16_t *tok, int64_t t)
{
    double p = 1.0 / g->V;
    const size_t V = (size_t)g->V;
    for (int j = 1; j <= g->n && j - 1 <= t; j++) {
        size_t h = 0;
        for (int i = j - 1; i >= 1; i--)
            h = h * V + tok[t - i];
        p = (g->count[j][h * V + tok[t]] + g->m * p) / (g->before[j - 1][h] + g->m);
    }
    return p;
}

double hb_ngram_nll(const struct hb_ngram *g, const uint16_t *tok, int64_t n_pred)
{
    double nats = 0.0;
    for (int64_t t = 1; t <= n_pred; t++)
        nats -= log(prob(g, tok, t));
    return nats / (double)n_pred;
}

double hb_ngram_tune(struct hb_ngram *g, const uint16_t *tok, int64_t n_pred)
{
    static const double grid[] = {0.1, 0.3, 1, 3, 10, 30, 100, 300};
    double best = INFINITY, best_m = 1.0;
    for (size_t i = 0; i < sizeof grid / sizeof *grid; i++) {
        g->m = grid[i];
        double nats = hb_ngram_nll(g, tok, n_pred);
        if (nats < best) {
            best = nats;
            best_m = grid[i];
        }
    }
    g->m = best_m;
    return best;
}
