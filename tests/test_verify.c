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

// Two implementations at one length: a takes `ratio` times as long as b.
static void write_results(double ratio)
{
    char path[4200], name[2][256];
    json_t *all = json_array();
    static const char *const impl[] = {"longconv_direct", "longconv_fftw"};
    for (int i = 0; i < 2; i++) {
        const double ns = i ? 1e6 : 1e6 * ratio;
        snprintf(name[i], sizeof name[i], "%s/dev:cpu0/dt:f32/B:1/D:4/L:1024/pass:fwd/plan:estimate"
                                          "/T:2/mode:warm/scope:core/manual_time", impl[i]);
        json_t *row = json_pack("{s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:f,s:f,s:s,s:f,s:[ff],s:s}", "name",
                                name[i], "run_name", name[i], "hb_impl", impl[i], "run_type",
                                "iteration", "repetitions", 1, "repetition_index", 0, "iterations",
                                1, "real_time", ns, "cpu_time", ns, "time_unit", "ns",
                                "hb_median_ns", ns, "hb_ci95_ns", ns * 0.99, ns * 1.01,
                                "hb_status", "ok");
        cr_assert(row);
        json_array_append_new(all, row);
    }
    json_t *doc = json_pack("{s:{s:s,s:s},s:o,s:[],s:[]}", "context", "hb_schema", "1.0",
                            "host_name", "here", "benchmarks", all, "hb_skips", "hb_pairs");
    snprintf(path, sizeof path, "%.4000s/results.json", folder);
    cr_assert_eq(hb_json_save(path, doc), HB_OK, "%s", hb_error());
    json_decref(doc);
}

static void write_claim(const char *check)
{
    char path[4200], text[2048];
    snprintf(path, sizeof path, "%.4000s/claims", folder);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%.4000s/claims/X-1.json", folder);
    const int n = snprintf(text, sizeof text,
                           "{\"id\":\"X-1\",\"order\":1,\"group\":\"G\",\"title\":\"t|t\","
                           "\"source\":{\"work\":\"w\"},\"says\":\"s\",\"published\":\"2x\","
                           "\"testability\":\"D\",\"checks\":[%s]}", check);
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
        write_results(cases[i].ratio);
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

Test(verify, bad_claims_are_named)
{
    static const char *const checks[] = {
        "", "{\"rule\":\"guess\"}", "{\"rule\":\"ratio\",\"a\":{},\"b\":{},\"L\":1}",
        "{\"rule\":\"count\",\"value\":\"ratio\",\"rows\":[{\"count\":\"sheep\"}]}",
        "{\"rule\":\"document\",\"verdict\":\"perhaps\"}", "{\"rule\":\"parity\"}"};
    start_in_tmp();
    write_results(2);
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
