// test_check.c: one checker, every implementation, one judge. Shapes are 1, 2, primes, 2^k,
// 2^k +- 1, long; inputs normal, impulse, constant, large, tiny, with outliers; forward and every
// gradient. Tensors of the checker: 16-bit types, packed heads.
#include "../bench/inputs.h"
#include "tests.h"

struct shape { int64_t B, D, H, L; };

// False: the implementation refuses this shape, which is not a pass.
static bool check_one(const char *impl, struct shape s, enum hb_input input, double judge_flop)
{
    struct hb_point pt = point(impl, s.B, s.D, s.H, s.L);
    const struct hb_impl *found = hb_registry_find(impl);
    const char *why = found->refuses ? found->refuses(&pt.p) : NULL;
    if (why) {
        fprintf(stderr, "[SKIP] %s L=%lld: refused: %s\n", impl, (long long)s.L, why);
        return false;
    }
    struct hb_check_opts o = {.input = input, .backward = found->backward != NULL,
                              .judge_flop = judge_flop, .repeat = pt.p.L < 1000};
    struct hb_check_result r = {0};
    int rc = hb_check_point(&pt, &o, &r);
    cr_expect(rc == HB_OK, "%s input=%s: %s\n  repeat: %s", impl, hb_input_str(input), hb_error(),
              repeat(&pt));
    hb_error_clear();
    cr_expect(r.ok, "%s B=%lld D=%lld H=%lld L=%lld input=%s: %s (worst %.3g, tolerance %.3g)\n"
                    "  repeat: %s", impl, (long long)s.B, (long long)s.D, (long long)s.H,
              (long long)s.L, hb_input_str(input), r.detail,
              r.worst_rel_l2, r.tol, repeat(&pt));
    cr_expect(rc != HB_OK || r.n > 0, "%s: the checker looked at nothing", impl);
    return true;
}

static void check_all(enum hb_op op, const struct shape *shapes, size_t n, double judge_flop)
{
    start();
    int seen = 0;
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_impl *impl = cpu_impl(i);
        if (!impl || impl->op != op)
            continue;
        seen++;
        int judged = 0;
        for (size_t k = 0; k < n; k++)
            for (int in = 0; in < HB_IN_COUNT; in++)
                judged += check_one(impl->name, shapes[k], (enum hb_input)in, judge_flop);
        cr_expect(judged > 0, "%s refuses every shape", impl->name);
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
    int judged = 0;
    for (int i = 0; i < hb_registry_count(); i++)
        if (cpu_impl(i) && cpu_impl(i)->op == HB_LONGCONV)
            judged += check_one(cpu_impl(i)->name, (struct shape){1, 2, 0, 65536},
                      HB_IN_NORMAL, 0);
    cr_expect(judged >= 3, "only %d implementations were judged", judged);
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
    int judged = 0;
    for (int i = 0; i < hb_registry_count(); i++)
        if (cpu_impl(i) && cpu_impl(i)->op == HB_ATTENTION)
            judged += check_one(cpu_impl(i)->name, (struct shape){1, 64, 1, 4097},
                      HB_IN_NORMAL, 0);
    cr_expect(judged >= 2, "only %d implementations were judged", judged);
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
    int judged = 0;
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_impl *impl = cpu_impl(i);
        if (!impl || impl->op != inner)
            continue;
        char name[HB_NAME_MAX];
        snprintf(name, sizeof name, "%.60s:%.60s", outer, impl->name);
        for (size_t k = 0; k < n; k++)
            judged += check_one(name, shapes[k], HB_IN_NORMAL, 0);
    }
    cr_expect(judged >= 8, "only %d cases were judged", judged);
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

// Bytes that a plan for forward and backward takes from the allocator at its peak.
static double planned_bytes(const char *name, int64_t L)
{
    const bool heads = strstr(name, "attention") != NULL;
    struct hb_point pt = point(name, 1, 8, heads ? 2 : 0, L);
    const struct hb_impl *impl = hb_registry_find(name);
    void *st = NULL;
    hb_host_reset_peak();
    const size_t before = hb_host_mem().now;
    cr_assert_eq(impl->plan(hb_host(), &pt.p, &st), HB_OK, "%s L=%lld: %s", name, (long long)L,
                 hb_error());
    const size_t peak = hb_host_mem().peak;
    impl->destroy(st);
    return (double)(peak - before);
}

// Allocator bytes grow with exponent at most 1.1 in L; attention_naive, which keeps all scores,
// shows that the measure can tell.
Test(check, memory_is_linear, .timeout = 120)
{
    start();
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_impl *impl = cpu_impl(i);
        if (!impl || (impl->op != HB_LONGCONV && impl->op != HB_ATTENTION))
            continue;
        char name[2][HB_NAME_MAX];
        snprintf(name[0], sizeof name[0], "%.60s", impl->name);
        snprintf(name[1], sizeof name[1], "%s:%.60s", impl->op == HB_LONGCONV ? "hyena" : "mha",
                 impl->name);
        const bool naive = strncmp(impl->name, "attention_naive", 15) == 0;
        const int64_t L = naive ? 1024 : 4096;
        for (int k = 0; k < 2; k++) {
            const double lo = planned_bytes(name[k], L), hi = planned_bytes(name[k], 4 * L);
            const double e = hi > 0 && lo > 0 ? log(hi / lo) / log(4) : 0;
            cr_expect(lo > 0 || hi == 0, "%s: %g bytes at L = %lld, none at a quarter", name[k], hi,
                      (long long)(4 * L));
            cr_expect(naive ? e > 1.5 : e <= 1.1,
                      "%s: %g bytes at L = %lld, %g at %lld: exponent %.3f", name[k], lo,
                      (long long)L, hi, (long long)(4 * L), e);
        }
    }
}

// --- the tensors themselves ----------------------------------------------------------------------

// What is stored is read back rounded to the type; an infinity is found where it is.
Test(check, buffers_of_16_bits)
{
    start();
    static const enum hb_dtype types[] = {HB_F32, HB_F16, HB_BF16};
    static const double eps[] = {0x1p-24, 0x1p-11, 0x1p-8};
    for (int k = 0; k < 3; k++) {
        struct hb_point pt = point("longconv_direct", 2, 3, 0, 37);
        struct hb_inputs in;
        pt.p.dtype = types[k];
        cr_assert_eq(hb_inputs_make(&pt, hb_registry_find(pt.impl), HB_IN_NORMAL, &in), HB_OK,
                     "%s", hb_error());
        struct hb_buf *u = hb_inputs_find(&in, "u"), *h = hb_inputs_find(&in, "h");
        cr_expect(u->dtype == types[k] && h->dtype == HB_F32, "filters are float32");
        cr_expect(hb_inputs_find(&in, "dh")->dtype == HB_F32, "their gradients, too");
        double x[5] = {0, 1, -3.14159265, 1e-3, 777.7}, y[5];
        hb_buf_store(u, 4, 5, x);
        hb_buf_load(u, 4, 5, y);
        for (int i = 0; i < 5; i++)
            cr_expect(fabs(x[i] - y[i]) <= eps[k] * fabs(x[i]), "%g is read as %g", x[i], y[i]);
        cr_expect_eq(hb_buf_not_finite(u), -1);
        x[0] = INFINITY;
        hb_buf_store(u, 100, 1, x);
        cr_expect_eq(hb_buf_not_finite(u), 100);
        hb_buf_zero(u, 99, 2);
        cr_expect_eq(hb_buf_not_finite(u), -1);
        cr_expect(hb_inputs_guards_ok(&in), "all of this is inside");
        ((char *)u->data)[u->bytes] ^= 1;
        cr_expect(!hb_inputs_guards_ok(&in), "and this is not");
        hb_inputs_free(&in);
    }
}

// Every kind stays finite in 16 bits, at a length where sums would not.
Test(check, kinds_fit_16_bits)
{
    start();
    static const char *const impls[] = {"longconv_direct", "attention_naive", "mha:attention_naive",
                                        "hyena:longconv_direct"};
    for (int i = 0; i < 4; i++)
        for (int kind = 0; kind < HB_IN_COUNT; kind++) {
            struct hb_point pt = point(impls[i], 1, 2, i % 3 ? 1 : 0, i ? 1000 : 100000);
            struct hb_inputs in;
            pt.p.dtype = HB_F16;
            cr_assert_eq(hb_inputs_make(&pt, hb_registry_find(pt.impl), (enum hb_input)kind, &in),
                         HB_OK, "%s %s: %s", impls[i], hb_input_str((enum hb_input)kind),
                         hb_error());
            const struct hb_bufs *all = hb_inputs_bufs(&in);
            for (int b = 0; b < all->n; b++)
                if (all->b[b].role == HB_ROLE_IN)
                    cr_expect_eq(hb_buf_not_finite(&all->b[b]), -1, "%s %s: %s", impls[i],
                                 hb_input_str((enum hb_input)kind), all->b[b].what);
            hb_inputs_free(&in);
        }
}

// q, k, v of one (B,L,3,H,P) tensor, seen as (B,H,L,P).
Test(check, packed_heads)
{
    start();
    struct hb_point pt = point("attention_naive", 2, 6, 2, 5);
    struct hb_inputs in;
    pt.p.packed = true;
    cr_assert_eq(hb_inputs_make(&pt, hb_registry_find(pt.impl), HB_IN_NORMAL, &in), HB_OK, "%s",
                 hb_error());
    const int64_t H = 2, L = 5, P = 3, D = 6;
    const struct hb_buf *k = hb_inputs_find(&in, "k"), *all = hb_inputs_find(&in, "qkv");
    cr_assert(k && all && in.io.attn.sq.t == 3 * D);
    cr_expect_eq(in.io.attn.k, (const void *)((const float *)in.io.attn.q + D));
    for (int64_t i = 0; i < k->n; i++) {
        int64_t b = i / (H * L * P), h = i / (L * P) % H, t = i / P % L, p = i % P;
        double x;
        hb_buf_load(k, i, 1, &x);
        cr_expect_eq(x, (double)((const float *)all->data)[((b * L + t) * 3 + 1) * D + h * P + p]);
    }
    hb_inputs_free(&in);
}

Test(check, device_not_in_use)
{
    start();
    struct hb_point pt = point("longconv_direct", 1, 2, 0, 8);
    pt.p.dtype = HB_BF16;
    cr_expect_eq(hb_check_tol(&pt, "y"), 2.5e-3);
    snprintf(pt.device, sizeof pt.device, "cuda0");
    struct hb_inputs in;
    cr_expect_eq(hb_inputs_make(&pt, hb_registry_find(pt.impl), HB_IN_NORMAL, &in), HB_ERR_INPUT,
                 "tensors on a device that this process does not use");
    cr_expect(strstr(hb_error(), "cuda0"), "%s", hb_error());
}
