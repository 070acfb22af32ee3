// test_verify.c: claims: every file is whole, the rules give what the numbers say, intervals over
// an edge are inconclusive, counts are those of the models here.
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../bench/verify/counts.h"
#include "../bench/verify/judge.h"
#include "tests.h"

static char folder[4096];

static void start_in_tmp(void)
{
    snprintf(folder, sizeof folder, "/tmp/hb-verify-XXXXXX");
    cr_assert(mkdtemp(folder));
    hb_error_clear();
    cr_assert_eq(hb_host_init(2, 0), HB_OK, "%s", hb_error());
}

static void done(void)
{
    char cmd[4200];
    snprintf(cmd, sizeof cmd, "rm -rf '%.4000s'", folder);
    cr_assert_eq(system(cmd), 0);
}

static json_t *parse(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);
    cr_assert(j, "%s", text);
    return j;
}

Test(verify, an_interval_over_an_edge_decides_nothing)
{
    json_t *c = parse("{\"label\":\"x\",\"bands\":[{\"verdict\":\"reproduced\",\"lo\":1.6,\"hi\":"
                      "2.5},{\"verdict\":\"figure reproduced, text refuted\",\"lo\":1.2,\"hi\":1.7"
                      "}]}");
    static const struct { double lo, hi; const char *verdict; } cases[] = {
        {1.8, 2.2, HB_REPRODUCED}, {1.62, 1.65, HB_REPRODUCED}, {1.3, 1.5, HB_FIGURE_ONLY},
        {1.5, 1.8, HB_INCONCLUSIVE}, {1.0, 1.1, HB_CONTRADICTED}, {1.1, 1.3, HB_INCONCLUSIVE},
        {2.4, 2.6, HB_INCONCLUSIVE}, {2.6, 2.7, HB_CONTRADICTED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct hb_interval ci = {cases[i].lo, cases[i].hi};
        cr_expect_str_eq(hb_judge(c, (ci.lo + ci.hi) / 2, ci), cases[i].verdict, "[%g, %g]", ci.lo,
                         ci.hi);
    }
    cr_expect_str_eq(hb_judge(c, NAN, (struct hb_interval){NAN, NAN}), HB_NOT_MEASURED);
    json_decref(c);
    c = parse("{\"label\":\"x\",\"bands\":[{\"verdict\":\"perhaps\",\"lo\":0}]}");
    cr_expect_null(hb_judge(c, 1, (struct hb_interval){1, 1}));
    hb_error_clear();
    json_decref(c);
}

Test(verify, parts_join)
{
    const char *good[] = {HB_REPRODUCED, HB_REDUCED}, *half[] = {HB_REPRODUCED, HB_INCONCLUSIVE},
               *bad[] = {HB_REPRODUCED, HB_CONTRADICTED, HB_INCONCLUSIVE},
               *none[] = {HB_CONTRADICTED, HB_NOT_MEASURED};
    static const struct { enum hb_join how; const char *good, *half, *bad, *none; } cases[] = {
        {HB_JOIN_ALL, HB_REDUCED, HB_INCONCLUSIVE, HB_CONTRADICTED, HB_CONTRADICTED},
        {HB_JOIN_ANY, HB_REPRODUCED, HB_REPRODUCED, HB_REPRODUCED, HB_NOT_MEASURED},
        {HB_JOIN_AGREE, HB_REDUCED, HB_INCONCLUSIVE, HB_INCONCLUSIVE, HB_NOT_MEASURED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_str_eq(hb_verdict_join(good, 2, cases[i].how), cases[i].good, "%zu", i);
        cr_expect_str_eq(hb_verdict_join(half, 2, cases[i].how), cases[i].half, "%zu", i);
        cr_expect_str_eq(hb_verdict_join(bad, 3, cases[i].how), cases[i].bad, "%zu", i);
        cr_expect_str_eq(hb_verdict_join(none, 2, cases[i].how), cases[i].none, "%zu", i);
        cr_expect_str_eq(hb_verdict_join(bad, 0, cases[i].how), HB_INCONCLUSIVE, "%zu", i);
        cr_expect_str_eq(hb_verdict_join(bad + 1, 1, cases[i].how), HB_CONTRADICTED, "%zu", i);
    }
}

// The published counts (claims page, hyena_spec section 7), and those of models trained here.
Test(verify, counts_are_exact)
{
    const struct hb_arch dna = {.D = 128, .layers = 2, .ffn = 512, .V = 16, .order = 2, .E = 5,
                                .M = 64},
                         gpt_dna = {.attention = true, .D = 128, .layers = 2, .ffn = 512, .V = 16,
                                    .positions = 1024},
                         gpt = {.attention = true, .D = 768, .layers = 12, .ffn = 3072, .V = 50257,
                                .positions = 1024},
                         big = {.D = 1024, .layers = 36, .ffn = 2048, .V = 50264, .order = 2,
                                .E = 33, .M = 64, .Lmax = 2048, .train_z = true},
                         three = {.D = 768, .layers = 12, .ffn = 3072, .V = 50264, .order = 3,
                                  .E = 33, .M = 64, .Lmax = 1024},
                         ours = {.D = 128, .layers = 4, .ffn = 512, .V = 256, .order = 2, .E = 33,
                                 .M = 64},
                         ours_a = {.attention = true, .D = 128, .layers = 4, .ffn = 512, .V = 256};
    cr_expect_eq(hb_arch_params(&dna), 436096);
    cr_expect_eq(hb_arch_params(&gpt_dna), 529920);
    cr_expect_eq(hb_arch_params(&gpt), 124439808);
    cr_expect_eq(hb_arch_params(&big), 359519488);
    cr_expect_eq(hb_arch_params(&three), 132218112);
    cr_expect_eq(hb_arch_params(&ours), 907776, "as the records of this suite's models say");
    cr_expect_eq(hb_arch_params(&ours_a), 826112);
}

static void write_results(json_t *benchmarks, json_t *skips)
{
    char path[4200];
    json_t *doc = json_pack("{s:{s:s,s:s},s:o,s:o,s:[]}", "context", "hb_schema", "1.0",
                            "host_name", "here", "benchmarks", benchmarks, "hb_skips", skips,
                            "hb_pairs");
    snprintf(path, sizeof path, "%.4000s/results.json", folder);
    cr_assert_eq(hb_json_save(path, doc), HB_OK, "%s", hb_error());
    json_decref(doc);
}

// What every timed entry has; the interval is 1 % to both sides.
static json_t *timed(const char *name, const char *impl, double ns)
{
    json_t *row = json_pack("{s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:f,s:f,s:s,s:f,s:[ff],s:s}", "name",
                            name, "run_name", name, "hb_impl", impl, "run_type", "iteration",
                            "repetitions", 1, "repetition_index", 0, "iterations", 1, "real_time",
                            ns, "cpu_time", ns, "time_unit", "ns", "hb_median_ns", ns,
                            "hb_ci95_ns", ns * 0.99, ns * 1.01, "hb_status", "ok");
    cr_assert(row);
    return row;
}

// Two implementations, direct and FFT, at lengths 1024, 2048 ...: the first takes `ratio[i]` times
// as long as the second, which takes 1 ms.
static void write_points(const double *ratio, size_t n)
{
    static const char *const impl[] = {"longconv_direct", "longconv_fftw"};
    json_t *all = json_array();
    for (size_t i = 0; i < 2 * n; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s/dev:cpu0/dt:f32/B:1/D:4/L:%d/pass:fwd/plan:estimate"
                                    "/T:2/mode:warm/scope:core/manual_time", impl[i % 2],
                 1024 << i / 2);
        json_array_append_new(all, timed(name, impl[i % 2], i % 2 ? 1e6 : 1e6 * ratio[i / 2]));
    }
    write_results(all, json_array());
}

static void write_claim(const char *check)
{
    char path[4200], text[4096];
    snprintf(path, sizeof path, "%.4000s/claims", folder);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%.4000s/claims/X-1.json", folder);
    const int n = snprintf(text, sizeof text,
                           "{\"id\":\"X-1\",\"order\":1,\"group\":\"G\",\"title\":\"t|t\","
                           "\"source\":{\"work\":\"w\"},\"says\":\"s\",\"published\":\"2x\","
                           "\"testability\":\"D\",\"checks\":[%s]}", check);
    for (char *s = text; *s; s++) *s = *s == '\'' ? '"' : *s;     // a check may use either
    cr_assert_eq(hb_write_file(path, text, (size_t)n), HB_OK, "%s", hb_error());
}

static json_t *judge(void)
{
    char results[4200], claims[4200];
    snprintf(results, sizeof results, "%.4000s/results.json", folder);
    snprintf(claims, sizeof claims, "%.4000s/claims", folder);
    const char *paths[] = {results, NULL};
    static struct hb_results r;
    cr_assert_eq(hb_results_load(paths, &r), HB_OK, "%s", hb_error());
    return hb_verify_all(&r, claims, NULL);
}

#define RATIO "{\"rule\":\"ratio\",\"label\":\"l\",\"a\":{\"impl\":\"longconv_direct\"},\"b\":{" \
              "\"impl\":\"longconv_fft*\"},\"L\":%s,\"bands\":[{\"verdict\":\"reproduced\"," \
              "\"lo\":1.6,\"hi\":2.5}]}"

static const char *verdict_of(const json_t *all)
{
    return json_string_value(json_object_get(json_array_get(all, 0), "verdict"));
}

Test(verify, a_ratio_of_records)
{
    static const struct { double ratio; const char *L, *verdict; } cases[] = {
        {2, "1024", HB_REPRODUCED}, {3, "1024", HB_CONTRADICTED}, {2.5, "1024", HB_INCONCLUSIVE},
        {2, "4096", HB_NOT_MEASURED}, {2, "[1024,4096]", HB_NOT_MEASURED},
        {3, "[1024,4096]", HB_CONTRADICTED}};
    start_in_tmp();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char check[512];
        write_points(&cases[i].ratio, 1);
        snprintf(check, sizeof check, RATIO, cases[i].L);
        write_claim(check);
        json_t *all = judge();
        cr_assert(all, "%s", hb_error());
        cr_expect_str_eq(verdict_of(all), cases[i].verdict, "%g at %s", cases[i].ratio,
                         cases[i].L);
        const json_t *checks = json_object_get(json_array_get(all, 0), "checks"),
                     *file = json_array_get(json_object_get(json_array_get(checks, 0), "files"), 0);
        if (strcmp(cases[i].L, "4096"))
            cr_expect_eq(strlen(json_string_value(json_object_get(file, "sha256"))), 64);
        struct hb_text t = {0};
        hb_verify_markdown(all, "###", &t);
        cr_expect(strstr(t.s, "t\\|t") && strstr(t.s, cases[i].verdict), "%s", t.s);
        hb_text_free(&t);
        json_decref(all);
    }
    done();
}

// The verdict of one check on what was written last.
static void expect(const char *check, const char *verdict, const char *what)
{
    write_claim(check);
    json_t *all = judge();
    cr_assert(all, "%s", hb_error());
    cr_expect_str_eq(verdict_of(all), verdict, "%s", what);
    json_decref(all);
}

// What a ratio may be made of and how lengths count together.
Test(verify, ratios_over_lengths)
{
    static const char points[] = "'a':{'impl':'longconv_direct'},'b':{'impl':'longconv_fftw'}",
                      paper[] = "'a':{'name':'the paper','published_ms':3},"
                                "'b':{'impl':'longconv_fftw'}";
    static const struct { double ratio[3]; const char *sides, *over, *bands, *verdict; } cases[] = {
        {{1, 2, 4}, points, "rises", "'lo':1", HB_REPRODUCED},
        {{1, 2, 1}, points, "rises", "'lo':1", HB_CONTRADICTED},
        {{1, 2, 2}, points, "rises", "'lo':1", HB_INCONCLUSIVE},
        {{1, 2, 4}, points, "max", "'lo':3", HB_REPRODUCED},
        {{1, 2, 4}, points, "min", "'lo':3", HB_CONTRADICTED},
        {{1, 2, 4}, points, "each", "'lo':3", HB_CONTRADICTED},
        {{4, 5, 4}, points, "each", "'lo':3", HB_REPRODUCED},
        {{1, 1, 1}, paper, "each", "'lo':2,'hi':4", HB_REPRODUCED},
        {{1, 1, 1}, paper, "each", "'lo':4", HB_CONTRADICTED},
    };
    start_in_tmp();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char check[1024];
        write_points(cases[i].ratio, 3);
        snprintf(check, sizeof check, "{'rule':'ratio','label':'l',%s,'L':[1024,2048,4096],"
                                      "'over':'%s','bands':[{'verdict':'reproduced',%s}]}",
                 cases[i].sides, cases[i].over, cases[i].bands);
        expect(check, cases[i].verdict, check);
        // A length that was not measured may be the one that decides.
        write_points(cases[i].ratio, 1);
        if (strcmp(cases[i].over, "each")) expect(check, HB_NOT_MEASURED, check);
    }
    done();
}

// --- training runs -------------------------------------------------------------------------------

struct run { const char *pattern; int seed, L; double ppl, tokens, accuracy, lr; };

static json_t *training(const struct run *r)
{
    char name[256], impl[32];
    snprintf(impl, sizeof impl, "lm:%s:x", r->pattern);
    snprintf(name, sizeof name, "%s/dev:cuda0/dt:bf16/B:1/D:64/L:%d/layers:2/seed:%d/data:recall"
                                "/tokens:%.0f/lr:%g/scope:step/manual_time", impl, r->L, r->seed,
             r->tokens, r->lr);
    json_t *row = timed(name, impl, 1e6),
           *more = json_pack("{s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:f,s:f}",
                             "hb_pattern", r->pattern, "hb_device", "cuda0", "hb_dtype", "bf16",
                             "hb_dataset", "recall", "hb_purpose", "main", "hb_seq_len", r->L,
                             "hb_width", 64, "hb_layers", 2, "hb_seed", r->seed, "hb_params", 1000,
                             "hb_steps", 10, "hb_ppl", r->ppl, "hb_train_tokens", r->tokens,
                             "hb_eval_tokens", 500.0, "hb_accuracy", r->accuracy);
    cr_assert(more && !json_object_update(row, more));
    json_decref(more);
    return row;
}

static void write_runs(const struct run *r, size_t n)
{
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(all, training(&r[i]));
    write_results(all, json_array());
}

#define PARITY "{'rule':'parity','label':'l','a':'H','b':'A','L':32,'min_seeds':2," \
               "'min_budgets':%d,'bands':[{'verdict':'reproduced','lo':0.9,'hi':1.1}]}"

Test(verify, seeds_are_paired_and_count_once)
{
    char one[512], two[512];
    snprintf(one, sizeof one, PARITY, 1);
    snprintf(two, sizeof two, PARITY, 2);
    struct run r[] = {{"H", 1, 32, 5.0, 1e4, 0, 1}, {"A", 1, 32, 5.0, 1e4, 0, 1},
                      {"H", 2, 32, 5.1, 1e4, 0, 1}, {"A", 2, 32, 5.1, 1e4, 0, 1},
                      {"H", 1, 32, 4.0, 2e4, 0, 1}, {"A", 1, 32, 4.0, 2e4, 0, 1},
                      {"H", 2, 32, 4.1, 2e4, 0, 1}, {"A", 2, 32, 4.1, 2e4, 0, 1},
                      {"H", 1, 32, 5.0, 1e4, 0, 2}, {"A", 1, 64, 5.0, 1e4, 0, 1}};
    start_in_tmp();
    write_runs(r, 4);
    expect(one, HB_REPRODUCED, "two seeds");
    expect(two, HB_NOT_MEASURED, "one budget of two");
    write_runs(r, 8);
    expect(two, HB_REPRODUCED, "two budgets");
    r[4].ppl *= 2;
    r[6].ppl *= 2;
    write_runs(r, 8);
    expect(two, HB_CONTRADICTED, "apart at one budget");
    r[2] = r[8];                                   // the first seed again, at another rate
    write_runs(r, 4);
    expect(one, HB_NOT_MEASURED, "one seed twice");
    r[1] = r[9];
    write_runs(r, 2);
    expect(one, HB_NOT_MEASURED, "other lengths");
    done();
}

Test(verify, accuracy_of_the_worst_seed)
{
    static const char check[] = "{'rule':'accuracy','label':'l','pattern':'H',"
                                "'data':'recall','L':32,'min_tokens':1e4,'min_seeds':2,"
                                "'bands':[{'verdict':'reproduced','lo':0.9}]}";
    struct run r[] = {{"H", 1, 32, 2, 1e4, 0.99, 1}, {"H", 2, 32, 2, 1e4, 0.98, 1}};
    start_in_tmp();
    static const struct { double accuracy; int seed, tokens; const char *verdict; } cases[] = {
        {0.98, 2, 10000, HB_REPRODUCED}, {0.5, 2, 10000, HB_CONTRADICTED},
        {0.91, 2, 10000, HB_INCONCLUSIVE}, {0.98, 1, 10000, HB_NOT_MEASURED},
        {0.98, 2, 5000, HB_NOT_MEASURED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        r[1] = (struct run){"H", cases[i].seed, 32, 2, cases[i].tokens, cases[i].accuracy, 2};
        write_runs(r, 2);
        expect(check, cases[i].verdict, cases[i].verdict);
    }
    done();
}

Test(verify, a_model_that_fits_or_does_not)
{
    static const char check[] = "{'rule':'status','label':'l','else':'inconclusive',"
                                "'of':{'model':'H','device':'cuda','L':32,'D':64,'layers':2},"
                                "'bands':[{'verdict':'reproduced','lo':0,'hi':0}]}";
    const struct run fits = {"H", 1, 32, 5, 1e4, 0, 1}, other = {"H", 1, 64, 5, 1e4, 0, 1};
    json_t *skip = training(&fits);
    start_in_tmp();
    write_runs(&fits, 1);
    expect(check, HB_REPRODUCED, "it ran");
    write_runs(&other, 1);
    expect(check, HB_NOT_MEASURED, "another length");
    json_object_set_new(skip, "status", json_string("oom"));
    write_results(json_array(), json_pack("[o]", skip));
    expect(check, HB_INCONCLUSIVE, "out of memory");
    done();
}

Test(verify, bad_claims_are_named)
{
    static const char *const checks[] = {
        "", "{\"rule\":\"guess\"}", "{\"rule\":\"ratio\",\"a\":{},\"b\":{},\"L\":1}",
        "{\"rule\":\"count\",\"value\":\"ratio\",\"rows\":[{\"count\":\"sheep\"}]}",
        "{\"rule\":\"document\",\"verdict\":\"perhaps\"}", "{\"rule\":\"parity\"}"};
    start_in_tmp();
    write_points((const double[]){2}, 1);
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        write_claim(checks[i]);
        json_t *all = judge();
        cr_expect_null(all, "%s", checks[i]);
        cr_expect(*hb_error(), "%s", checks[i]);
        hb_error_clear();
        json_decref(all);
    }
    done();
}

// Every claim of the register is whole and can be judged without any result.
Test(verify, the_register, .timeout = 60)
{
    start();
    struct hb_results none = {0};
    json_t *all = hb_verify_all(&none, NULL, NULL);
    cr_assert(all, "%s", hb_error());
    cr_expect(json_array_size(all) > 90, "%zu claims", json_array_size(all));
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *c = json_array_get(all, i), *checks = json_object_get(c, "checks");
        const char *id = json_string_value(json_object_get(c, "id")),
                   *verdict = json_string_value(json_object_get(c, "verdict"));
        if (!strcmp(verdict, HB_NOT_HERE))
            cr_expect(json_object_get(c, "needs"), "%s does not say what it would take", id);
        for (size_t k = 0; k < json_array_size(checks); k++) {
            const json_t *x = json_array_get(checks, k);
            const char *rule = json_string_value(json_object_get(x, "rule")),
                       *v = json_string_value(json_object_get(x, "verdict")),
                       *peers = json_string_value(json_object_get(x, "ours"));
            const bool read = !strcmp(rule, "document") || !strcmp(rule, "count") ||
                              !strcmp(rule, "leak") || strstr(peers, "other programs");
            cr_expect(read || !*v || !strcmp(v, HB_NOT_MEASURED), "%s: %s without a result", id, v);
            // What could be measured says how, or what is missing.
            const char *command = json_string_value(json_object_get(x, "command"));
            if (!strcmp(v, HB_NOT_MEASURED))
                cr_expect(*command || json_object_get(c, "needs"), "%s: how to measure it?", id);
        }
        const char *where = json_string_value(json_object_get(c, "says"));
        cr_expect(where && *where, "%s", id);
    }
    json_decref(all);
}
