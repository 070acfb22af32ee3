// test_data.c: the data sets: known entropies, the published task's facts, counts, the Bible.
#include "../datasets/bpe.h"
#include "../datasets/corpus.h"
#include "../datasets/markov.h"
#include "../datasets/ngram.h"
#include "../datasets/recall.h"
#include "../impls/core/rng.h"
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

// --- byte-pair encoding --------------------------------------------------------------------------

// encoder.json with the 256 bytes at their own number and `more` behind them; byte b is written as
// GPT-2 does.
static void alphabet_json(char *to, const char *more)
{
    char *at = to + sprintf(to, "{");
    for (int b = 0, k = 0; b < 256; b++) {
        const bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        at += sprintf(at, "%s\"\\u%04x\": %d", b ? ", " : "", plain ? b : 256 + k++, b);
    }
    sprintf(at, "%s}", more);
}

static struct hb_bpe *tiny(const char *more, const char *merges)
{
    static char json[8192];
    struct hb_bpe *b;
    alphabet_json(json, more);
    cr_assert_eq(hb_bpe_make(hb_host(), json, strlen(json), merges, strlen(merges), &b), HB_OK,
                 "%s", hb_error());
    return b;
}

static void expect_ids(struct hb_bpe *b, const char *text, size_t n, const uint16_t *want,
                       size_t n_want)
{
    uint16_t *ids;
    int64_t k;
    uint8_t back[512];
    cr_assert_eq(hb_bpe_encode(b, (const uint8_t *)text, (int64_t)n, &ids, &k), HB_OK, "%s",
                 hb_error());
    cr_expect(k == (int64_t)n_want && !memcmp(ids, want, n_want * sizeof *want),
              "'%s': %lld ids, expected %zu", text, (long long)k, n_want);
    cr_assert(hb_bpe_decode(b, ids, k, NULL) == (int64_t)n && n <= sizeof back);
    hb_bpe_decode(b, ids, k, back);
    cr_expect_arr_eq(back, text, n);
    free(ids);
}
#define IDS(b, text, ...)                                                                          \
    expect_ids(b, text, sizeof text - 1, (const uint16_t[]){__VA_ARGS__},                          \
               sizeof(uint16_t[]){__VA_ARGS__} / sizeof(uint16_t))

// Ranks decide, not places; words are cut before anything is joined.
Test(bpe, merges_by_rank)
{
    start();
    struct hb_bpe *b = tiny(", \"bc\": 256, \"ab\": 257, \"abc\": 258, \"\\u0120a\": 259, "
                            "\"aa\": 260", "#version: 0.2\nb c\na b\nab c\n\u0120 a\na a\n");
    cr_expect_eq(hb_bpe_vocab(b), 261);
    IDS(b, "abc", 'a', 256);                 // b c comes before a b, and then nothing joins a, bc
    IDS(b, "ab", 257);
    IDS(b, "abbc", 257, 256);
    IDS(b, "aaa", 260, 'a');                 // from the left
    IDS(b, " a a  a", 259, 259, ' ', 259);   // a space belongs to the word behind it
    IDS(b, "b c", 'b', ' ', 'c');            // no merge across words
    IDS(b, "a\n\nb", 'a', '\n', '\n', 'b');
    IDS(b, "a\377\300\200b", 'a', 0xff, 0xc0, 0x80, 'b');      // not UTF-8
    hb_bpe_free(b);
}

Test(bpe, bad_files_are_named)
{
    start();
    static char json[8192];
    struct hb_bpe *b;
    static const struct { const char *more, *merges, *what; } cases[] = {
        {", \"bc\": 256", "b c\nb d\n", "vocab.bpe:2"},
        {", \"bc\": 256", "bc\n", "vocab.bpe:1"},
        {", \"bc\": 255", "b c\n", "twice"},
        {", \"bc\": 700", "b c\n", "below the number"},
        {", \"\\u4e00\": 256", "b c\n", "stands for no byte"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        alphabet_json(json, cases[i].more);
        cr_expect_eq(hb_bpe_make(hb_host(), json, strlen(json), cases[i].merges,
                                 strlen(cases[i].merges), &b), HB_ERR_INPUT);
        cr_expect(strstr(hb_error(), cases[i].what), "%s: %s", cases[i].what, hb_error());
        hb_error_clear();
    }
    cr_expect_eq(hb_bpe_make(hb_host(), "{}", 2, "", 0, &b), HB_ERR_INPUT);
}

// The published vocabulary. The ids are tiktoken's (0.14.0), from the same two files.
Test(bpe, gpt2)
{
    start();
    static const struct { const char *text; size_t n; uint16_t ids[32]; } vectors[] = {
        {"Hello world", 2,
         {15496, 995}},
        {"Hello, world!", 4,
         {15496, 11, 995, 0}},
        {"I'll say they've won't; we're he's it'd I'm DON'T 'S", 21,
         {40, 1183, 910, 484, 1053, 1839, 470, 26, 356, 821, 339, 338, 340, 1549, 314, 1101,
          23917, 6, 51, 705, 50}},
        {"  two  spaces\012\012\011tab \012 end  ", 12,
         {220, 734, 220, 9029, 628, 197, 8658, 220, 198, 886, 220, 220}},
        {"1234567 3.14159 \357\274\222\357\274\220\357\274\222\357\274\224 \302\275", 20,
         {10163, 2231, 3134, 513, 13, 1415, 19707, 27332, 120, 240, 171, 120, 238, 171, 120,
          240, 171, 120, 242, 25208}},
        {"na\303\257ve caf\303\251 \342\200\224 \342\200\234quoted\342\200\235 \342\200\246 "
         "\342\202\2545", 13,
         {2616, 38776, 40304, 851, 564, 250, 421, 5191, 447, 251, 3926, 10432, 20}},
        {"\346\227\245\346\234\254\350\252\236\343\201\256\343\203\206\343\202\255\343\202\271"
         "\343\203\210", 10,
         {33768, 98, 17312, 105, 45739, 252, 5641, 24336, 25084, 43302}},
        {"\320\237\321\200\320\270\320\262\320\265\321\202, \320\274\320\270\321\200! \327\242"
         "\327\221\327\250\327\231\327\252 \330\247\331\204\330\271\330\261\330\250\331\212"
         "\330\251", 25,
         {140, 253, 21169, 18849, 38857, 16843, 20375, 11, 12466, 120, 18849, 21169, 0, 14360,
          95, 49603, 37778, 33951, 103, 28981, 44690, 26897, 39848, 22654, 45632}},
        {"\360\237\231\202\360\237\244\267\360\237\217\275\342\200\215\342\231\200\357\270\217"
         " emoji", 14,
         {8582, 25081, 8582, 97, 115, 8582, 237, 121, 447, 235, 17992, 222, 37929, 44805}},
        {"a\302\240b\343\200\200c\342\200\250d\302\205e\341\240\216f", 16,
         {64, 1849, 65, 5099, 222, 66, 447, 101, 67, 126, 227, 68, 157, 254, 236, 69}},
        {"<|endoftext|>", 7,
         {27, 91, 437, 1659, 5239, 91, 29}},
        {"e\314\201\340\244\203x", 6,
         {68, 136, 223, 11976, 225, 87}},
        {" = Robert Boulter = \012 Robert Boulter is an English film , television @-@ based <u"
         "nk>", 25,
         {796, 5199, 347, 2852, 353, 796, 220, 198, 5199, 347, 2852, 353, 318, 281, 3594, 2646,
          837, 5581, 2488, 12, 31, 1912, 1279, 2954, 29}}};
    char manifest[4200], cache[4200];
    snprintf(manifest, sizeof manifest, "%s/datasets/manifest", hb_root_dir());
    snprintf(cache, sizeof cache, "%s/build/datasets", hb_root_dir());
    const struct hb_data_dirs dirs = {manifest, cache};
    struct hb_bpe *b;
    int rc = hb_bpe_open(hb_host(), &dirs, &b);
    if (rc == HB_ERR_MISSING)
        cr_skip_test("the set gpt2-bpe is not here (make datasets SETS=gpt2-bpe)");
    cr_assert_eq(rc, HB_OK, "%s", hb_error());
    cr_expect_eq(hb_bpe_vocab(b), 50257);
    for (int pass = 0; pass < 2; pass++)                 // the second one from the words kept
        for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
            expect_ids(b, vectors[i].text, strlen(vectors[i].text), vectors[i].ids, vectors[i].n);
    uint8_t noise[4096], back[4096];
    uint16_t *ids;
    int64_t k;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)hb_rng_below(5, 1, i, 256);
    cr_assert_eq(hb_bpe_encode(b, noise, sizeof noise, &ids, &k), HB_OK);
    cr_assert_eq(hb_bpe_decode(b, ids, k, NULL), (int64_t)sizeof noise);
    hb_bpe_decode(b, ids, k, back);
    cr_expect_arr_eq(back, noise, sizeof noise, "any bytes come back");
    free(ids);
    hb_bpe_free(b);
}
