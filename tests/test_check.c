// test_check.c: one checker, every implementation, one judge. Shapes are 1, 2, primes, 2^k,
// 2^k +- 1, long; inputs normal, impulse, constant, large, tiny; forward and every gradient.
#include "tests.h"

struct shape { int64_t B, D, H, L; };

static const char *const input_names[HB_IN_COUNT] = {
    "normal", "impulse", "constant", "large", "tiny"};

static void check_one(const char *impl, struct shape s, enum hb_input input, double judge_flop)
{
    struct hb_point pt = point(impl, s.B, s.D, s.H, s.L);
    const struct hb_impl *found = hb_registry_find(impl);
    if (found->refuses && found->refuses(&pt.p))
        return;
    struct hb_check_opts o = {.input = input, .backward = found->backward != NULL,
                              .judge_flop = judge_flop};
    struct hb_check_result r = {0};
    int rc = hb_check_point(&pt, &o, &r);
    cr_expect(rc == HB_OK, "%s input=%s: %s\n  repeat: %s", impl, input_names[input], hb_error(),
              repeat(&pt));
    hb_error_clear();
    cr_expect(r.ok, "%s B=%lld D=%lld H=%lld L=%lld input=%s: %s (worst %.3g, tolerance %.3g)\n"
                    "  repeat: %s", impl, (long long)s.B, (long long)s.D, (long long)s.H,
              (long long)s.L, input_names[input], r.detail,
              r.worst_rel_l2, r.tol, repeat(&pt));
    cr_expect(rc != HB_OK || r.n > 0, "%s: the checker looked at nothing", impl);
}

static void check_all(enum hb_op op, const struct shape *shapes, size_t n, double judge_flop)
{
    start();
    int seen = 0;
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_plugin *pl = hb_registry_at(i);
        cr_expect(pl->impl, "%s cannot be used: %s", pl->path, pl->why_not);
        if (!pl->impl || pl->impl->op != op)
            continue;
        seen++;
        for (size_t k = 0; k < n; k++)
            for (int in = 0; in < HB_IN_COUNT; in++)
                check_one(pl->impl->name, shapes[k], (enum hb_input)in, judge_flop);
    }
    cr_expect(seen > 0, "no implementation of this operator was found");
}

Test(check, longconv, .timeout = 300)
{
    static const struct shape shapes[] = {
        {2, 3, 0, 1}, {1, 2, 0, 2}, {3, 5, 0, 3}, {2, 3, 0, 7}, {1, 1, 0, 8}, {2, 3, 0, 16},
        {3, 5, 0, 31}, {2, 4, 0, 63}, {2, 4, 0, 64}, {1, 3, 0, 65}, {4, 2, 0, 127},
        {1, 5, 0, 255}, {3, 3, 0, 1000}};
    check_all(HB_LONGCONV, shapes, sizeof shapes / sizeof *shapes, 0);
}

Test(check, longconv_4097, .timeout = 300)
{
    static const struct shape shapes[] = {{3, 3, 0, 4097}};
    check_all(HB_LONGCONV, shapes, 1, 0);
}

Test(check, longconv_65536, .timeout = 300)
{
    if (SANITIZED)
        cr_skip_test("L = 65536 takes too long under sanitizers");
    start();
    for (int i = 0; i < hb_registry_count(); i++)
        if (hb_registry_at(i)->impl && hb_registry_at(i)->impl->op == HB_LONGCONV)
            check_one(hb_registry_at(i)->impl->name, (struct shape){1, 2, 0, 65536},
                      HB_IN_NORMAL, 0);
}

Test(check, attention, .timeout = 300)
{
    static const struct shape shapes[] = {
        {1, 8, 1, 1}, {2, 8, 2, 2}, {1, 21, 3, 3}, {2, 2, 2, 17}, {1, 64, 2, 31}, {2, 64, 1, 64},
        {1, 80, 1, 65}, {1, 128, 1, 127}, {1, 256, 2, 129}, {1, 36, 3, 257}, {1, 128, 2, 1000}};
    check_all(HB_ATTENTION, shapes, sizeof shapes / sizeof *shapes, 0);
}

Test(check, attention_4097, .timeout = 300)
{
    start();
    for (int i = 0; i < hb_registry_count(); i++)
        if (hb_registry_at(i)->impl && hb_registry_at(i)->impl->op == HB_ATTENTION)
            check_one(hb_registry_at(i)->impl->name, (struct shape){1, 64, 1, 4097},
                      HB_IN_NORMAL, 0);
}

Test(check, attention_flash_65536_sampled_rows, .timeout = 300)
{
    if (SANITIZED)
        cr_skip_test("L = 65536 takes too long under sanitizers");
    start();
    struct hb_point pt = point("attention_flash", 1, 64, 1, 65536);
    pt.p.backward = false;
    struct hb_check_opts o = {.input = HB_IN_NORMAL, .judge_flop = 2e9};
    struct hb_check_result r = {0};
    cr_assert_eq(hb_check_point(&pt, &o, &r), HB_OK, "%s", hb_error());
    cr_expect(r.ok && r.sampled, "%s (%.3g)", r.detail, r.worst_rel_l2);
}

static void check_operator(const char *outer, enum hb_op inner, const struct shape *shapes,
                           size_t n)
{
    start();
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_plugin *pl = hb_registry_at(i);
        if (!pl->impl || pl->impl->op != inner)
            continue;
        char name[HB_NAME_MAX];
        snprintf(name, sizeof name, "%.60s:%.60s", outer, pl->impl->name);
        for (size_t k = 0; k < n; k++)
            check_one(name, shapes[k], HB_IN_NORMAL, 0);
    }
}

Test(check, hyena, .timeout = 300)
{
    static const struct shape shapes[] = {
        {2, 4, 0, 2}, {1, 3, 0, 31}, {2, 16, 0, 127}, {1, 8, 0, 1000}};
    check_operator("hyena", HB_LONGCONV, shapes, sizeof shapes / sizeof *shapes);
}

Test(check, mha, .timeout = 300)
{
    static const struct shape shapes[] = {
        {2, 8, 2, 1}, {2, 8, 2, 2}, {1, 9, 3, 31}, {2, 32, 4, 127}, {1, 64, 1, 500}};
    check_operator("mha", HB_ATTENTION, shapes, sizeof shapes / sizeof *shapes);
}
