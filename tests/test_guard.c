// test_guard.c: significance, verdicts on synthetic noise, counts, history, JUnit.
#include <stdlib.h>
#include <unistd.h>
#include "../bench/guard/guard.h"
#include "../bench/guard/inject.h"
#include "../impls/core/rng.h"
#include "tests.h"

static void near(const char *what, double got, double want, double tol)
{
    cr_expect(fabs(got - want) <= tol * fabs(want), "%s: %.15g instead of %.15g", what, got, want);
}

Test(guard, signed_ranks)
{
    double x[70];
    for (int i = 0; i < 70; i++) x[i] = i + 1;
    near("all of 5 above", guard_signed_rank_p(x, 5), 1.0 / 32, 1e-12);
    x[0] = -1;                                   // sums 14 and 15 of 32 patterns
    near("the least below", guard_signed_rank_p(x, 5), 2.0 / 32, 1e-12);
    for (int i = 0; i < 70; i++) x[i] = -(i + 1);
    near("all below", guard_signed_rank_p(x, 5), 1, 1e-12);
    cr_expect_eq(guard_signed_rank_p(x, 0), 1, "nothing says nothing");
    double zeros[3] = { 0, 0, 0 }, ties[4] = { 1, 1, 1, -1 };
    cr_expect_eq(guard_signed_rank_p(zeros, 3), 1);
    near("ties", guard_signed_rank_p(ties, 4), 5.0 / 16, 1e-12);     // 3 or 4 of 4 signs
    for (int i = 0; i < 70; i++) x[i] = i % 3 ? i + 1 : -(i + 1);
    double exact = guard_signed_rank_p(x, 64), normal = guard_signed_rank_p(x, 65);
    cr_expect(fabs(log(exact / normal)) < 0.5, "exact %g, normal %g", exact, normal);
}

Test(guard, benjamini_hochberg)
{
    double p[5] = { 0.01, 0.04, NAN, 0.03, 0.005 }, q[5], want[5] = { 0.02, 0.04, 0, 0.04, 0.02 };
    cr_assert_eq(guard_bh(p, 5, q), 0);
    for (int i = 0; i < 5; i++) {
        if (i == 2) cr_expect(isnan(q[i]), "an untested point got %g", q[i]);
        else near("adjusted", q[i], want[i], 1e-12);
    }
}

// --- verdicts on synthetic times -----------------------------------------------------------------

enum { POINTS = 10 };

// Noise of a shared machine: 4 % a process, a drift through the job, one process in sixteen held up
// by 10 to 60 %.
struct fake {
    uint64_t seed, n;
    double slow[POINTS], sd, clock_s, process_s;
    size_t fails;                                // this point has no time in head; POINTS: none
};

static double fake_process(struct fake *f, size_t point, int side)
{
    uint64_t i = f->n++;
    f->clock_s += f->process_s;
    double x = f->sd * hb_rng_normal(f->seed, 1, i) + 0.1 * sin((double)i / 150);
    if (hb_rng_uniform(f->seed, 2, i) < 1.0 / 16) x += 0.1 + 0.5 * hb_rng_uniform(f->seed, 3, i);
    return 1e6 * (1 + (double)point) * exp(x) * (side ? 1 + f->slow[point] : 1);
}

static int fake_take(void *ctx, size_t point, int first, double ns[2], int *failed, char *why)
{
    struct fake *f = ctx;
    for (int k = 0; k < 2; k++) {
        int side = k ? 1 - first : first;
        ns[side] = fake_process(f, point, side);
    }
    if (point != f->fails) return 0;
    *failed = 1;
    snprintf(why, 160, "oom");
    return 1;
}
static double fake_now(void *ctx) { return ((struct fake *)ctx)->clock_s; }

static int judge(struct fake *f, struct guard_point *pt, struct guard_opts o)
{
    struct guard_source src = { .take = fake_take, .now_s = fake_now, .ctx = f };
    int rounds = 0;
    memset(pt, 0, POINTS * sizeof *pt);
    cr_assert_eq(guard_paired(&src, pt, POINTS, &o, &rounds), 0, "%s", hb_error());
    return rounds;
}

Test(guard, false_alarms)
{
    struct guard_point pt[POINTS];
    int alarms = 0;
    for (uint64_t k = 0; k < 200; k++) {
        struct fake f = { .seed = 1000 + k, .sd = 0.04, .process_s = 0.13, .fails = POINTS };
        judge(&f, pt, guard_defaults);
        bool alarm = false;
        for (int i = 0; i < POINTS; i++)
            alarm |= pt[i].word == GUARD_SLOWER || pt[i].word == GUARD_FASTER;
        alarms += alarm;
        guard_points_free(pt, POINTS);
    }
    cr_expect(alarms <= 1, "%d of 200 comparisons of equal builds alarmed", alarms);
}

static int found(double slowdown, double sd, enum guard_word word)
{
    struct guard_point pt[POINTS];
    int n = 0;
    for (uint64_t k = 0; k < 20; k++) {
        struct fake f = { .seed = 5000 + k, .sd = sd, .process_s = 0.08, .fails = POINTS };
        f.slow[k % POINTS] = slowdown;
        judge(&f, pt, guard_defaults);
        n += pt[k % POINTS].word == word;
        guard_points_free(pt, POINTS);
    }
    return n;
}

Test(guard, power)
{
    int ten = found(0.10, 0.03, GUARD_SLOWER), five = found(0.05, 0.02, GUARD_SLOWER);
    int faster = found(-0.10, 0.03, GUARD_FASTER);
    cr_expect(ten >= 19, "10 %% slower: %d of 20 found", ten);
    cr_expect(five >= 15, "5 %% slower: %d of 20 found", five);
    cr_expect(faster >= 19, "10 %% faster: %d of 20 found", faster);
}

Test(guard, budget_and_missing_points)
{
    struct guard_point pt[POINTS];
    struct fake f = { .seed = 1, .sd = 0.02, .process_s = 0.1, .fails = 3 };
    int rounds = judge(&f, pt, guard_defaults);
    cr_expect(rounds >= GUARD_MIN_ROUNDS && f.clock_s < 60, "%d rounds, %g s", rounds, f.clock_s);
    cr_expect(pt[3].word == GUARD_BROKEN && strstr(pt[3].why, "oom"), "%s", pt[3].why);
    cr_expect(pt[0].first.n == 2 * (size_t)rounds);
    guard_points_free(pt, POINTS);

    struct guard_opts o = guard_defaults;        // a second holds two processes, not 200
    o.budget_s = 1;
    f = (struct fake){ .seed = 2, .sd = 0.02, .process_s = 0.5, .fails = POINTS };
    f.slow[1] = 2;
    judge(&f, pt, o);
    for (int i = 0; i < POINTS; i++)
        cr_expect(pt[i].word == GUARD_INCONCLUSIVE && pt[i].more_rounds > 0 && *pt[i].why,
                  "point %d: %s", i, guard_word_str(pt[i].word));
    guard_points_free(pt, POINTS);

    f = (struct fake){ .seed = 3, .sd = 0.3, .process_s = 0.1, .fails = POINTS };   // hopeless
    judge(&f, pt, guard_defaults);
    int doubtful = 0;
    for (int i = 0; i < POINTS; i++)
        doubtful += pt[i].word == GUARD_INCONCLUSIVE && pt[i].more_rounds > 5;
    cr_expect(doubtful >= 8, "noise of 30 %%: only %d of 10 in doubt", doubtful);
    guard_points_free(pt, POINTS);
}

Test(guard, exact_rules)
{
    static const struct { const char *metric; double base, head; int want; } rows[] = {
        { "instructions", 1e6, 1e6, COUNT_SAME },     { "instructions", 1e6, 1e6 + 1, COUNT_CHANGED },
        { "instructions", 1e6, 1.01e6, COUNT_WORSE }, { "instructions", 1e6, 0.99e6, COUNT_BETTER },
        { "allocations", 3, 4, COUNT_WORSE },         { "peak_bytes", 4096, 4095, COUNT_BETTER },
        { "allocations_executing", 0, 1, COUNT_WORSE }, { "flop", 10, 11, COUNT_CHANGED },
        { "error_rel_l2", 1e-7, 1.05e-7, COUNT_CHANGED }, { "error_rel_l2", 1e-7, 2e-7, COUNT_WORSE },
        { "instructions", NAN, 5, COUNT_MISSING },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(guard_exact_judge(rows[i].metric, rows[i].base, rows[i].head), rows[i].want,
                     "%s %g -> %g", rows[i].metric, rows[i].base, rows[i].head);
}

// --- history -------------------------------------------------------------------------------------

Test(guard, steps)
{
    double x[60];
    struct guard_step s[8];
    for (int i = 0; i < 60; i++) x[i] = 100 * exp(0.01 * hb_rng_normal(1, 1, (uint64_t)i));
    cr_expect_eq(guard_steps(x, 60, s, 8), 0, "noise alone has no steps");
    for (int i = 20; i < 60; i++) x[i] *= 1.1;
    for (int i = 45; i < 60; i++) x[i] *= 0.8;
    size_t n = guard_steps(x, 60, s, 8);
    cr_assert_eq(n, 2, "%zu steps", n);
    cr_expect(s[0].at == 20 && s[1].at == 45, "at %zu and %zu", s[0].at, s[1].at);
    near("first step", s[0].after / s[0].before, 1.1, 0.02);
    near("second step", s[1].after / s[1].before, 0.8, 0.02);
    cr_expect_eq(guard_steps(x, 6, s, 8), 0, "six values are too few");
    cr_expect_eq(guard_steps(x, 60, s, 1), 1, "no more than there is room for");
}

static json_t *run_doc(const char *fingerprint, double head_ns)
{
    return json_pack("{s:s,s:s,s:s,s:{s:s},s:{s:s},s:i,s:[{s:s,s:s,s:f,s:f,s:s}],"
                     "s:[{s:s,s:f,s:f,s:s}]}",
                     "date", "2026-01-01T00:00:00Z", "fingerprint", fingerprint, "machine", "m",
                     "base", "git", "a", "head", "git", "b", "exit_code", 0, "exact", "name",
                     "it's \"quoted\"", "metric", "flop", "base", 1.0, "head", 2.0, "verdict",
                     "changed", "paired", "name", "p", "base_median_ns", 100.0, "head_median_ns",
                     head_ns, "verdict", "same");
}

Test(guard, history)
{
    char path[] = "/tmp/hb-history-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
    for (int i = 0; i < 24; i++) {               // opened again each time, as separate runs do
        struct guard_history *h;
        cr_assert_eq(guard_history_open(path, &h), 0, "%s", hb_error());
        json_t *doc = run_doc("here", (i < 12 ? 100 : 120) + 0.01 * i);
        cr_assert_eq(guard_history_add(h, doc), 0, "%s", hb_error());
        json_decref(doc);
        guard_history_close(h);
    }
    struct guard_history *h;
    cr_assert_eq(guard_history_open(path, &h), 0);
    json_t *steps = guard_history_steps(h, "here"), *none = guard_history_steps(h, "elsewhere");
    cr_expect_eq(json_array_size(steps), 1);
    near("level", json_number_value(json_object_get(json_array_get(steps, 0), "after")), 120, 0.01);
    cr_expect_eq(json_array_size(none), 0, "another machine has its own history");
    json_decref(steps);
    json_decref(none);
    guard_history_close(h);
    unlink(path);
    cr_expect_eq(guard_history_open("/nowhere/at/all.sqlite", &h), HB_ERR_RUN);
    cr_expect(!h && strstr(hb_error(), "/nowhere"), "%s", hb_error());
}

// --- what is written -----------------------------------------------------------------------------

Test(guard, junit_and_markdown)
{
    struct hb_text t = { 0 };
    guard_xml_escape(&t, "a<b>&\"c'\n\x01");
    cr_expect_str_eq(t.s, "a&lt;b&gt;&amp;&quot;c&apos;&#10;?");
    hb_text_free(&t);
    json_t *doc = run_doc("here", 110);
    json_array_append_new(json_object_get(doc, "paired"),
                          json_pack("{s:s,s:s,s:s,s:f,s:[f,f]}", "name", "slow<point>", "verdict",
                                    "slower", "why", "", "ratio", 1.083, "ratio_ci95", 1.061, 1.104));
    json_array_append_new(json_object_get(doc, "paired"),
                          json_pack("{s:s,s:s,s:s,s:i}", "name", "doubt", "verdict", "inconclusive",
                                    "why", "wide", "more_rounds", 7));
    json_object_set_new(doc, "elapsed_s", json_real(1.5));
    cr_assert_eq(guard_junit(doc, &t), 0);
    cr_expect(strstr(t.s, "tests=\"4\" failures=\"1\" errors=\"0\" skipped=\"1\""), "%s", t.s);
    cr_expect(strstr(t.s, "slow&lt;point&gt;") && strstr(t.s, "x1.083 [1.061, 1.104]"), "%s", t.s);
    cr_expect(strstr(t.s, "it&apos;s &quot;quoted&quot;"), "%s", t.s);
    hb_text_free(&t);
    cr_assert_eq(guard_markdown(doc, &t), 0);
    cr_expect(strstr(t.s, "about 7 more rounds") && strstr(t.s, "slow<point>"), "%s", t.s);
    hb_text_free(&t);
    json_object_set_new(doc, "options", json_pack("{s:b}", "strict", 1));
    cr_assert_eq(guard_junit(doc, &t), 0);
    cr_expect(strstr(t.s, "failures=\"3\""), "strict: doubt and change fail: %s", t.s);
    hb_text_free(&t);
    json_decref(doc);
}

Test(guard, code_hash)
{
    char path[4400], hex[3][65];
    start();
    snprintf(path, sizeof path, "%s/longconv_direct.so", hb_impls_dir());
    cr_assert_eq(guard_code_hash(path, hex[0]), 0, "%s", hb_error());
    char cmd[9200], copy[] = "/tmp/hb-code-XXXXXX";
    int fd = mkstemp(copy);
    cr_assert(fd >= 0);
    close(fd);
    snprintf(cmd, sizeof cmd, "strip --strip-debug -o %s %s", copy, path);
    if (system(cmd) == 0) {
        cr_assert_eq(guard_code_hash(copy, hex[1]), 0);
        cr_expect_str_eq(hex[0], hex[1], "debugging information is no code");
    }
    unlink(copy);
    snprintf(path, sizeof path, "%s/longconv_fftw.so", hb_impls_dir());
    cr_assert_eq(guard_code_hash(path, hex[2]), 0);
    cr_expect(strcmp(hex[0], hex[2]), "two implementations have one hash");
    cr_expect_eq(guard_code_hash("/etc/passwd", hex[1]), HB_ERR_INPUT);
}

static volatile double sink;
static int busy(void *ctx)
{
    (void)ctx;
    for (int i = 0; i < 20000; i++) sink += i;
    return 0;
}

Test(guard, injection)
{
    struct hb_inject little, much;
    bool tenfold = false;        // others run beside us: of many quick tries one must be undisturbed
    for (int i = 0; i < 20 && !tenfold; i++) {
        cr_assert_eq(hb_inject_open(&little, busy, NULL, 0.1, false), 0);
        cr_assert_eq(hb_inject_open(&much, busy, NULL, 1, false), 0);
        cr_assert(little.units > 0);
        double r = (double)much.units / (double)little.units;
        tenfold = r > 5 && r < 20;
    }
    cr_expect(tenfold, "ten times the share is never about ten times the work");
    cr_expect_eq(hb_inject_body(&much), 0);
    cr_expect_eq(hb_inject_open(&much, busy, NULL, 1, true), HB_ERR_REFUSED);
}
