// test_data.c: the data sets: known entropies, the published task's facts, counts, the Bible.
#include "../datasets/corpus.h"
#include "../datasets/markov.h"
#include "../datasets/ngram.h"
#include "../datasets/recall.h"
#include "tests.h"

// The default source of the language-model runs: second order over four symbols.
Test(markov, entropies_are_exact)
{
    start();
    struct hb_markov m;
    cr_assert_eq(hb_markov_make(hb_host(), 4, 2, 1, &m), HB_OK, "%s", hb_error());
    double sum = 0;
    for (int64_t c = 0; c < m.contexts; c++)
        sum += m.pi[c];
    cr_expect_float_eq(sum, 1, 1e-12);
    for (int64_t c = 0; c < m.contexts; c++) {   // pi is stationary: inflow = share
        double in = 0;
        for (int old = 0; old < m.S; old++) {    // (x1,x0) comes from (old,x1) by x0
            int64_t x0 = c % m.S, x1 = c / m.S, from = x1 + old * m.S;
            in += m.pi[from] * m.p[from * m.S + x0];
        }
        cr_expect_float_eq(in, m.pi[c], 1e-10, "context %lld", (long long)c);
    }
    double H = 0;
    for (int64_t c = 0; c < m.contexts; c++)
        for (int x = 0; x < m.S; x++)
            if (m.p[c * m.S + x] > 0)
                H -= m.pi[c] * m.p[c * m.S + x] * log(m.p[c * m.S + x]);
    cr_expect_float_eq(m.entropy[2], H, 1e-12, "rate %.15g", m.entropy[2]);
    cr_expect(m.entropy[0] > m.entropy[1] - 1e-12 && m.entropy[1] > m.entropy[2],
              "conditioning cannot raise it");
    cr_expect(m.entropy[1] > 1.4 * m.entropy[2],
              "a model that sees one symbol must be 40 %% above: %g %g", m.entropy[1],
              m.entropy[2]);

    enum { N = 200000 };
    uint16_t *tok = malloc(N * sizeof *tok), *again = malloc(N * sizeof *again);
    double *nll = malloc(N * sizeof *nll), mean = 0, var = 0;
    cr_assert(tok && again && nll);
    hb_markov_generate(&m, 1, 5, N, tok, nll);
    hb_markov_generate(&m, 1, 5, N, again, NULL);
    cr_expect_arr_eq(tok, again, N * sizeof *tok, "the same stream twice");
    for (int i = 0; i < N; i++) {
        cr_assert(tok[i] < 4);
        mean += nll[i] / N;
    }
    for (int i = 0; i < N; i++)
        var += (nll[i] - mean) * (nll[i] - mean) / N;
    double se = 3 * sqrt(var / N);               // correlated floors: three times the plain error
    cr_expect(fabs(mean - m.entropy[2]) < 4 * se, "mean floor %.5f, rate %.5f, error %.5f", mean,
              m.entropy[2], se);
    free(tok), free(again), free(nll);
    hb_markov_free(&m);
}

// Facts of the generator's specification, section 9.2.
Test(recall, facts)
{
    start();
    static const struct { int V; int64_t L; double uniform, frequent; } cases[] = {
        {10, 20, 1 / 4., 0.486}, {20, 40, 1 / 9., 0.294},
        {30, 512, 1 / 14., 0.202}, {40, 512, 1 / 19., 0.162}};
    for (int k = 0; k < 4; k++) {
        struct hb_recall r;
        int V = cases[k].V, n = V - 2;
        int64_t L = cases[k].L, T = L + 3;
        cr_assert_eq(hb_recall_make(hb_host(), V, L, 3, 300, 500, &r), HB_OK, "%s", hb_error());
        for (int64_t e = 0; e < r.n_train + r.n_test; e++) {
            const uint16_t *x = e < r.n_train ? r.train + e * T : r.test + (e - r.n_train) * T;
            int value_of[64] = {0};
            for (int64_t t = 0; t < L; t += 2) {
                cr_assert(x[t] >= 1 && x[t] <= n / 2 && x[t + 1] > n / 2 && x[t + 1] <= n,
                          "keys even, values odd");
                cr_assert(!value_of[x[t]] || value_of[x[t]] == x[t + 1], "one value a key");
                value_of[x[t]] = x[t + 1];
            }
            cr_assert(x[L] == n + 1 && value_of[x[L + 1]] && x[L + 2] == value_of[x[L + 1]],
                      "prompt and answer");
        }
        cr_expect_float_eq(r.chance_uniform, cases[k].uniform, 1e-12);
        cr_expect(fabs(r.chance_frequent - cases[k].frequent) < 0.08,
                  "V %d: %.3f, specification %.3f", V, r.chance_frequent,
                  cases[k].frequent);                      // two samples of 500: 3 x sqrt(2) x 0.02
        hb_recall_free(&r);
    }
    struct hb_recall r;
    cr_expect_eq(hb_recall_make(hb_host(), 6, 2, 1, 100000, 10, &r), HB_ERR_INPUT,
                 "so many different ones do not exist");
}

Test(ngram, counts_by_hand)
{
    start();
    static const uint16_t tok[] = {0, 1, 0, 1, 0, 0, 1};   // bigrams 01 x3, 10 x2, 00 x1
    struct hb_ngram g;
    cr_assert_eq(hb_ngram_fit(hb_host(), tok, 7, 2, 2, &g), HB_OK, "%s", hb_error());
    double p1_1 = (3 + 1 * 0.5) / (7 + 1.);                // m = 1: unigram of 1, bigram 0 -> 1
    double p01 = (3 + 1 * p1_1) / (4 + 1.);
    static const uint16_t held[] = {0, 1};
    cr_expect_float_eq(hb_ngram_nll(&g, held, 1), -log(p01), 1e-12, "%.15g against %.15g",
                       hb_ngram_nll(&g, held, 1), -log(p01));
    hb_ngram_free(&g);
}

Test(corpus, bible)
{
    start();
    char manifest[4200], cache[4200];
    snprintf(manifest, sizeof manifest, "%s/datasets/manifest", hb_root_dir());
    snprintf(cache, sizeof cache, "%s/build/datasets", hb_root_dir());
    struct hb_data_dirs dirs = {manifest, cache};
    int64_t total = 0;
    for (int s = 0; s < HB_SPLIT_COUNT; s++) {
        struct hb_tokens t = {0};
        cr_assert_eq(hb_corpus_load(hb_host(), &dirs, "bible", (enum hb_split)s, &t), HB_OK, "%s",
                     hb_error());
        total += t.n;
        cr_expect(t.n > 100000 && t.vocab <= 256, "split %d: %lld tokens", s, (long long)t.n);
        for (int64_t i = 0; i < t.n; i++)
            cr_assert(t.tok[i] < t.vocab);
        hb_tokens_free(&t);
    }
    cr_expect(total > 4000000 && total < 4404412, "verses without their references: %lld bytes",
              (long long)total);
    struct hb_tokens t = {0};
    cr_expect_eq(hb_corpus_load(hb_host(), &dirs, "no-such-set", HB_SPLIT_TRAIN, &t), HB_ERR_INPUT);
    cr_expect(strstr(hb_error(), "no-such-set"), "%s", hb_error());
}
