// markov.c: see markov.h. Everything about the source is computed in float64 from its transition
// table.

#include "markov.h"

#include <math.h>
#include <stdlib.h>

#include "../impls/core/rng.h"

// The likely symbol's probability is uniform in here; with 4 symbols and k = 2 this puts the
// entropy without the older symbol about 2.3 times above the rate.
static const double PEAK_LO = 0.75, PEAK_HI = 0.9;

// rng streams; a tau per context symbol
enum { STREAM_TABLE = 1, STREAM_TAU = 2, STREAM_TEXT = 1000 };

static void permutation(int S, uint64_t seed, uint64_t stream, int *out)
{
    for (int i = 0; i < S; i++)
        out[i] = i;
    for (int i = S - 1; i > 0; i--) {
        int j = (int)hb_rng_below(seed, stream, (uint64_t)i, (uint64_t)i + 1), x = out[i];
        out[i] = out[j];
        out[j] = x;
    }
}

static void fill_table(struct hb_markov *m, uint64_t seed)
{
    int tau[HB_MARKOV_MAX_ORDER + 1][256];                       // the last one is sigma
    for (int j = 0; j <= m->k; j++)
        permutation(m->S, seed, STREAM_TAU + (uint64_t)j, tau[j]);
    const int S = m->S;
    for (int64_t c = 0; c < m->contexts; c++) {
        double *p = m->p + c * S, rest = 0.0;
        int64_t digits = c, sum = 0;
        for (int j = 0; j < m->k; j++, digits /= S)
            sum += tau[j][digits % S];
        int likely = tau[m->k][sum % S];
        uint64_t i = (uint64_t)(c * (S + 1));
        double peak = PEAK_LO + (PEAK_HI - PEAK_LO) * hb_rng_uniform(seed, STREAM_TABLE, i);
        for (int x = 0; x < S; x++)
            rest += p[x] =
                x == likely ? 0.0 : 0.5 + hb_rng_uniform(seed, STREAM_TABLE, i + 1 + (uint64_t)x);
        for (int x = 0; x < S; x++)
            p[x] = x == likely ? peak : p[x] * (1.0 - peak) / rest;
    }
}

// Power iteration until the distribution moves by less than 1e-15 in L1 (every entry of p is
// positive, so it converges).
static int stationary(const struct hb_host *host, struct hb_markov *m)
{
    const int64_t n = m->contexts, S = m->S;
    double *next = malloc((size_t)n * sizeof *next);
    if (!next)
        return host->fail(host, HB_ERR_OOM, "markov: no memory for %lld contexts", (long long)n);
    for (int64_t c = 0; c < n; c++)
        m->pi[c] = 1.0 / (double)n;
    double moved = 1.0;
    for (int it = 0; it < 100000 && moved > 1e-15; it++) {
        double total = 0.0;
        for (int64_t c = 0; c < n; c++)
            next[c] = 0.0;
        for (int64_t c = 0; c < n; c++)
            for (int64_t x = 0; x < S; x++)
                next[(c * S + x) % n] += m->pi[c] * m->p[c * S + x];
        for (int64_t c = 0; c < n; c++)
            total += next[c];
        moved = 0.0;
        for (int64_t c = 0; c < n; c++) {
            moved += fabs(next[c] / total - m->pi[c]);
            m->pi[c] = next[c] / total;
        }
    }
    free(next);
    if (!(moved < 1e-12))
        return host->fail(host, HB_ERR_RUN,
                          "markov: the stationary distribution did not converge (%g)", moved);
    return 0;
}

static int64_t power(int64_t S, int j)
{
    int64_t n = 1;
    while (j-- > 0)
        n *= S;
    return n;
}

double hb_markov_cond(const struct hb_markov *m, int j, int64_t recent, int x)
{
    const int64_t step = power(m->S, j);
    double joint = 0.0, context = 0.0;
    for (int64_t c = recent; c < m->contexts; c += step) {
        joint += m->pi[c] * m->p[c * m->S + x];
        context += m->pi[c];
    }
    return joint / context;
}

static double cond_entropy(const struct hb_markov *m, int j)
{
    const int64_t step = power(m->S, j);
    double h = 0.0;
    for (int64_t recent = 0; recent < step; recent++) {
        double weight = 0.0;
        for (int64_t c = recent; c < m->contexts; c += step)
            weight += m->pi[c];
        for (int x = 0; x < m->S; x++) {
            double p = hb_markov_cond(m, j, recent, x);
            h -= p > 0.0 ? weight * p * log(p) : 0.0;
        }
    }
    return h;
}

int hb_markov_make(const struct hb_host *host, int S, int k, uint64_t seed, struct hb_markov *out)
{
    *out = (struct hb_markov){.S = S, .k = k};
    if (S < 2 || S > 256 || k < 1 || k > HB_MARKOV_MAX_ORDER || pow(S, k) > 0x1p20)
        return host->fail(host, HB_ERR_INPUT,
                          "markov: %d symbols and order %d; expected 2..256 symbols, order 1..%d, "
                          "at most 2^20 contexts",
                          S, k, HB_MARKOV_MAX_ORDER);
    out->contexts = power(S, k);
    out->p = malloc((size_t)(out->contexts * S) * sizeof *out->p);
    out->pi = malloc((size_t)out->contexts * sizeof *out->pi);
    int rc = 0;
    if (!out->p || !out->pi)
        rc = host->fail(host, HB_ERR_OOM, "markov: no memory for %lld contexts",
                        (long long)out->contexts);
    if (!rc) {
        fill_table(out, seed);
        rc = stationary(host, out);
    }
    for (int j = 0; !rc && j <= k; j++)
        out->entropy[j] = cond_entropy(out, j);
    if (rc)
        hb_markov_free(out);
    return rc;
}

void hb_markov_free(struct hb_markov *m)
{
    free(m->p);
    free(m->pi);
    *m = (struct hb_markov){0};
}

void hb_markov_generate(const struct hb_markov *m, uint64_t seed, uint64_t stream, int64_t n,
                        uint16_t *tok, double *floor_nll)
{
    int64_t recent = 0, step = 1;  // index of the known symbols, S^known
    for (int64_t t = 0; t < n; t++) {
        const int known = t < m->k ? (int)t : m->k;
        double u = hb_rng_uniform(seed, STREAM_TEXT + stream, (uint64_t)t), p = 0.0;
        int x = -1;
        do {  // the last symbol takes what rounding leaves
            u -= p;
            x++;
            p = known < m->k ? hb_markov_cond(m, known, recent, x) : m->p[recent * m->S + x];
        } while (u >= p && x < m->S - 1);
        tok[t] = (uint16_t)x;
        if (floor_nll)
            floor_nll[t] = -log(p);
        if (known < m->k)
            step *= m->S;
        recent = (recent * m->S + x) % step;
    }
}
