// test_choose.c: predictions and choices from synthetic measurements, whose truth is known; auto.
#include "tests.h"
#include "../bench/sample.h"

// --- synthetic machines --------------------------------------------------------------------------

// What an implementation truly takes, ns: direct a B D L^2, fft b B D L log2 L + c.
static double direct_ns(double B, double D, double L) { return 2000 + 0.05 * B * D * L * L; }
static double fft_ns(double B, double D, double L)
{
    return 9000 + 4.0 * (2 * B + 1) * D * L * log2(2 * L) * 0.5;
}
static double plain_ns(double B, double D, double L) { return 1.01 * fft_ns(B, D, L); }

struct truth { const char *impl; double (*ns)(double, double, double); double mem_factor; };
static const struct truth truths[] = {
    { "longconv_direct", direct_ns, 2 }, { "longconv_fftw", fft_ns, 6 },
    { "longconv_fftw_plain", plain_ns, 12 },
};
enum { N_TRUTHS = 3 };

static double mem_of(const struct truth *t, double B, double D, double L)
{
    return 4 * (t->mem_factor * B * D * L + 2 * D * L) + 1000;
}

static struct hb_point problem(const char *impl, int64_t B, int64_t D, int64_t L)
{
    struct hb_question q = { .op = "longconv", .B = B, .D = D, .L = L, .threads = 2 };
    struct hb_point pt;
    cr_assert_eq(hb_question_point(&q, 2, &pt), 0, "%s", hb_error());
    snprintf(pt.impl, sizeof pt.impl, "%s", impl);
    return pt;
}

static uint64_t rng = 7;
static double noise(double size)                     // sum of uniforms: nearly normal
{
    double s = 0;
    for (int i = 0; i < 12; i++) {
        rng = rng * 6364136223846793005u + 1442695040888963407u;
        s += (double)(rng >> 11) * 0x1p-53;
    }
    return size * (s - 6);
}

static void measured(struct choose_table *t, int machine, const struct truth *k, int64_t B, int64_t D,
                     int64_t L, double scatter)
{
    struct choose_row r = { .pt = problem(k->impl, B, D, L), .machine = machine, .status = "ok" };
    r.median_ns = k->ns((double)B, (double)D, (double)L) * exp(noise(scatter));
    r.lo_ns = r.median_ns * 0.99;
    r.hi_ns = r.median_ns * 1.01;
    r.mem_bytes = mem_of(k, (double)B, (double)D, (double)L);
    cr_assert_eq(hb_choices_add(t, &r), 0);
}

// B 1 and 8, D 64 and 512, L 16..65536 by 4: one machine.
static struct choose_table one_machine(const char *id, double scatter)
{
    struct choose_table t = { 0 };
    struct choose_machine m = { .cpu = "a CPU", .threads = 2 };
    snprintf(m.id, sizeof m.id, "%s", id);
    snprintf(t.home, sizeof t.home, "%s", id);
    int at = hb_choices_machine(&t, &m);
    for (int64_t B = 1; B <= 8; B *= 8)
        for (int64_t D = 64; D <= 512; D *= 8)
            for (int64_t L = 16; L <= 65536; L *= 4)
                for (int k = 0; k < N_TRUTHS; k++)
                    if (k || L <= 16384) measured(&t, at, &truths[k], B, D, L, scatter);
    return t;
}

static struct choose_result ask(const struct choose_table *t, int64_t B, int64_t D, int64_t L,
                                double limit, const char *here)
{
    static struct choose_result r;
    struct choose_ask a = { .pt = problem("longconv", B, D, L), .mem_limit = limit, .here = here,
                            .cpu = "a CPU" };
    int rc = hb_choose_among(t, &a, &r);
    cr_assert(rc == 0 || rc == HB_ERR_REFUSED, "%s", hb_error());
    hb_error_clear();
    return r;
}

// --- predictions ---------------------------------------------------------------------------------

Test(choose, predicts_within_its_interval)
{
    struct choose_table t = one_machine("m", 0.02);
    int inside = 0, n = 0;
    double worst = 0;
    for (int64_t B = 1; B <= 8; B++)
        for (int64_t L = 23; L < 60000; L = L * 5 / 2) {
            struct choose_result r = ask(&t, B, 192, L, 0, "m");
            for (int i = 0; i < r.n; i++)
                for (int k = 0; k < N_TRUTHS; k++) {
                    if (strcmp(r.c[i].impl, truths[k].impl)) continue;
                    double e = r.c[i].time.mean - log(truths[k].ns((double)B, 192, (double)L));
                    inside += fabs(e) <= 1.96 * r.c[i].time.sd;
                    n++;
                    worst = fmax(worst, fabs(e));
                }
        }
    cr_expect(inside >= 0.9 * n, "%d of %d inside", inside, n);
    cr_expect(worst < log(1.3), "worst error a factor of %g", exp(worst));
    hb_choices_free(&t);
}

Test(choose, extrapolates_with_growing_doubt)
{
    struct choose_table t = one_machine("m", 0.02);
    struct choose_result near = ask(&t, 1, 64, 65536, 0, "m"), far = ask(&t, 64, 64, 1 << 20, 0, "m");
    cr_expect(near.answer.reason == HB_MEASURED && !near.c[0].time.outside);
    cr_expect(far.c[0].time.outside);
    cr_expect(far.c[0].time.sd > 3 * near.c[0].time.sd);
    double e = fabs(far.c[0].time.mean - log(fft_ns(64, 64, 1 << 20)));
    cr_expect(e < 1.96 * far.c[0].time.sd, "off by a factor %g, sd %g", exp(e), far.c[0].time.sd);
    hb_choices_free(&t);
}

Test(choose, one_row_is_enough_for_an_answer)
{
    struct choose_table t = { 0 };
    struct choose_machine m = { .id = "m", .threads = 2 };
    measured(&t, hb_choices_machine(&t, &m), &truths[1], 1, 64, 1024, 0);
    struct choose_result r = ask(&t, 2, 64, 2048, 0, "m");
    cr_expect_str_eq(r.answer.impl, "longconv_fftw");
    cr_expect(r.answer.time_lo_ns < fft_ns(2, 64, 2048) && r.answer.time_hi_ns > fft_ns(2, 64, 2048),
              "%g .. %g", r.answer.time_lo_ns, r.answer.time_hi_ns);
    cr_expect_str_empty(r.answer.runner_up);
    hb_choices_free(&t);
}

// --- the choice ----------------------------------------------------------------------------------

Test(choose, the_faster_one_on_each_side)
{
    struct choose_table t = one_machine("m", 0.02);
    struct choose_result s = ask(&t, 1, 128, 20, 0, "m"), l = ask(&t, 3, 200, 30000, 0, "m");
    cr_expect_str_eq(s.answer.impl, "longconv_direct");
    cr_expect(!s.answer.tie && s.answer.margin > 1.5 && s.answer.reason == HB_INTERPOLATED);
    // fftw and fftw_plain differ by 1 %: the data cannot tell, the default is named.
    cr_expect_str_eq(l.answer.impl, "longconv_fftw");
    cr_expect_str_eq(l.answer.runner_up, "longconv_fftw_plain");
    cr_expect(l.answer.tie && l.answer.margin_lo < 1 && l.answer.margin_hi > 1);
    cr_expect(l.answer.regret >= 0 && l.answer.regret < 0.1);
    hb_choices_free(&t);
}

// 200 random problems against the truth: hardly ever more than 5 % from the fastest, never 1.5.
Test(choose, rarely_wrong)
{
    struct choose_table t = one_machine("m", 0.03);
    int wrong = 0;
    double worst = 1;
    for (int i = 0; i < 200; i++) {
        double u = noise(1) / 12 + 0.5, v = noise(1) / 12 + 0.5, w = noise(1) / 12 + 0.5;
        int64_t B = 1 + (int64_t)(u * 8), D = 64 + (int64_t)(v * 448), L = (int64_t)exp2(4 + 10 * w);
        struct choose_result r = ask(&t, B, D, L, 0, "m");
        double best = INFINITY, mine = 0;
        for (int k = 0; k < N_TRUTHS; k++) {
            double ns = truths[k].ns((double)B, (double)D, (double)L);
            best = fmin(best, ns);
            if (!strcmp(truths[k].impl, r.answer.impl)) mine = ns;
        }
        wrong += mine > 1.05 * best;
        worst = fmax(worst, mine / best);
    }
    cr_expect(wrong <= 10, "%d of 200 wrong", wrong);
    cr_expect(worst < 1.5, "worst %g", worst);
    hb_choices_free(&t);
}

static bool fits_never(const struct hb_point *pt, double limit, void *ctx)
{
    (void)pt, (void)limit;
    ++*(int *)ctx;
    return false;
}

Test(choose, memory_limit_is_never_exceeded)
{
    struct choose_table t = one_machine("m", 0.02);
    int asked = 0, answered = 0;
    for (int i = 0; i < 200; i++) {
        double v = noise(1) / 12 + 0.5, w = noise(1) / 12 + 0.5;
        int64_t D = 64 + (int64_t)(v * 448), L = (int64_t)exp2(4 + 12 * w);
        double limit = mem_of(&truths[i % N_TRUTHS], 2, (double)D, (double)L) * (1 + noise(0.1));
        struct choose_ask a = { .pt = problem("longconv", 2, D, L), .mem_limit = limit, .here = "m",
                                .fits = i % 2 ? fits_never : NULL, .ctx = &asked };
        struct choose_result r;
        int rc = hb_choose_among(&t, &a, &r);
        hb_error_clear();
        if (rc) continue;
        answered++;
        for (int k = 0; k < N_TRUTHS; k++)
            if (!strcmp(truths[k].impl, r.answer.impl))
                cr_expect_leq(mem_of(&truths[k], 2, (double)D, (double)L), limit);
    }
    cr_expect(asked > 0 && answered > 50, "%d answers", answered);
    struct choose_result none = ask(&t, 8, 512, 65536, 1000, "m");
    cr_expect(none.n_in == 0 && none.c[0].out);
    hb_choices_free(&t);
}

Test(choose, other_machines_and_none)
{
    struct choose_table t = one_machine("there", 0.02), empty = { 0 };
    struct choose_result same = ask(&t, 1, 64, 500, 0, "there"), like = ask(&t, 1, 64, 500, 0, "here");
    cr_expect_eq(same.answer.reason, HB_INTERPOLATED);
    cr_expect_eq(like.answer.reason, HB_SIMILAR_MACHINE);
    cr_expect_eq(like.rank, 1);
    cr_expect_str_eq(like.answer.machine, "there");
    cr_expect(like.c[0].time.sd > same.c[0].time.sd);
    struct choose_result none = ask(&empty, 1, 64, 500, 0, "here");
    cr_expect_eq(none.answer.reason, HB_DEFAULT);
    cr_expect_str_eq(none.answer.impl, "longconv_fftw");
    cr_expect_eq(none.answer.time_ns, 0);
    hb_choices_free(&t);
}

// A wrong or crashed measurement of this very problem keeps a candidate out.
Test(choose, not_what_failed)
{
    struct choose_table t = one_machine("m", 0.02);
    struct choose_row r = { .pt = problem("longconv_direct", 1, 64, 20), .status = "wrong" };
    cr_assert_eq(hb_choices_add(&t, &r), 0);
    cr_expect_str_neq(ask(&t, 1, 64, 20, 0, "m").answer.impl, "longconv_direct");
    cr_expect_str_eq(ask(&t, 1, 64, 21, 0, "m").answer.impl, "longconv_direct");
    hb_choices_free(&t);
}

Test(choose, same_answer_after_the_file)
{
    struct choose_table t = one_machine("m", 0.02), back;
    json_t *doc = hb_choices_json(&t);
    cr_assert(doc);
    cr_assert_eq(hb_choices_parse(doc, "t", &back), 0, "%s", hb_error());
    cr_assert_eq(back.n, t.n);
    struct choose_result a = ask(&t, 3, 100, 777, 0, "m"), b = ask(&back, 3, 100, 777, 0, "m");
    cr_expect_str_eq(a.answer.impl, b.answer.impl);
    cr_expect_float_eq(a.answer.time_ns, b.answer.time_ns, 1e-6 * a.answer.time_ns);
    json_array_append_new(json_object_get(doc, "rows"), json_pack("{s:s,s:i}", "name", "x", "m", 0));
    hb_choices_free(&back);
    cr_expect_eq(hb_choices_parse(doc, "t", &back), HB_ERR_INPUT);
    cr_expect(strstr(hb_error(), "t: rows["), "%s", hb_error());
    hb_error_clear();
    json_decref(doc);
    hb_choices_free(&t);
}

Test(choose, bad_questions)
{
    struct hb_point pt;
    const struct hb_question bad[] = {
        { .L = 5 }, { .op = "conv", .L = 5 }, { .op = "mha" }, { .op = "mha", .L = 5, .D = 10, .H = 3 },
        { .op = "hyena", .L = 5, .dtype = "f8" }, { .op = "hyena", .L = 5, .device = "tpu0" },
        { .op = "longconv", .L = (int64_t)1 << 40 }, { .op = "longconv", .L = 4, .pass = "back" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(hb_question_point(&bad[i], 2, &pt), HB_ERR_INPUT, "question %zu", i);
        hb_error_clear();
    }
}

// --- auto ----------------------------------------------------------------------------------------

Test(choose, names_of_auto)
{
    char out[HB_NAME_MAX];
    cr_expect(hb_is_auto("longconv_auto") && hb_is_auto("hyena:auto") && hb_is_auto("mha:attention_auto"));
    cr_expect(!hb_is_auto("longconv_fftw") && !hb_is_auto("hyena:longconv_fftw"));
    cr_expect(hb_auto_name("hyena:auto", "", out));
    cr_expect_str_eq(out, "hyena:longconv_auto");
    cr_expect(hb_auto_name("mha:auto", "cuda0", out));
    cr_expect_str_eq(out, "mha:attention_auto_cuda");
    cr_expect(hb_auto_name("longconv_auto", "cuda0", out));
    cr_expect_str_eq(out, "longconv_auto_cuda");
    cr_expect(!hb_auto_name("longconv_auto", "cpu0", out) && !hb_auto_name("hyena:longconv_fftw", "", out));
}

// auto is right wherever it stands, and says what it chose.
Test(choose, auto_is_an_implementation)
{
    static const char *const names[] = { "longconv_auto", "attention_auto", "hyena:auto", "mha:auto" };
    start();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool heads = i % 2;
        struct hb_point pt = point(names[i], 2, 16, heads ? 2 : 0, 61);
        struct hb_check_opts o = { .backward = true, .judge_flop = 2e9 };
        struct hb_check_result r;
        cr_assert_eq(hb_check_point(&pt, &o, &r), HB_OK, "%s: %s", names[i], hb_error());
        cr_expect(r.ok, "%s: %s", names[i], r.detail);
    }
    const struct hb_impl *im = hb_registry_find("longconv_auto");
    struct hb_point pt = point("longconv_auto", 2, 16, 0, 61);
    void *st = NULL;
    char text[1024] = "";
    cr_assert_eq(im->plan(hb_host(), &pt.p, &st), HB_OK, "%s", hb_error());
    im->describe(st, text, sizeof text);
    cr_expect(strstr(text, "auto chose longconv_"), "%s", text);
    im->destroy(st);
    im->destroy(NULL);
}

// What does not fit is not the end: the next one is taken; nothing fits: oom, not a crash.
Test(choose, auto_and_too_little_memory)
{
    start();
    const struct hb_impl *im = hb_registry_find("attention_auto");
    struct hb_point pt = point("attention_auto", 1, 64, 1, 20000);
    void *st = NULL;
    hb_host_set_limit(64 << 20);                     // scores of 20000 x 20000 do not fit
    cr_assert_eq(im->plan(hb_host(), &pt.p, &st), HB_OK, "%s", hb_error());
    im->destroy(st);
    hb_host_set_limit(1000);
    cr_expect_eq(im->plan(hb_host(), &pt.p, &st), HB_ERR_OOM);
    im->destroy(st);
    hb_error_clear();
    hb_host_set_limit(0);
}
