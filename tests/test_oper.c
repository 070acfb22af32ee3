// test_oper.c: hyena and mha beyond their defaults: options of the operator, the residual stream,
// which device they run on, what they refuse.
#include "../impls/reference/judge.h"
#include "tests.h"

#define HEAD "/dev:cpu0/dt:f32/B:2/"
#define TAIL "/pass:fwdbwd/plan:estimate/T:2/mode:warm/scope:operator/manual_time"

static struct hb_point named(const char *name)
{
    struct hb_point pt;
    cr_assert_eq(hb_point_parse(name, &pt), HB_OK, "%s: %s", name, hb_error());
    cr_assert_eq(hb_point_resolve(&pt), HB_OK, "%s: %s", name, hb_error());
    return pt;
}

Test(oper, options, .timeout = 120)
{
    start();
    static const char *const names[] = {
        "mha:attention_flash" HEAD "D:24/H:2/taps:3/L:100" TAIL,
        "mha:attention_naive" HEAD "D:20/H:2/taps:4/rope:on/L:101" TAIL,
        "mha:attention_flash" HEAD "D:32/H:2/rope:on/L:65" TAIL,
        "mha:attention_flash" HEAD "D:18/H:3/rope:on/L:1" TAIL,
        "hyena:longconv_fftw" HEAD "D:6/N:3/layout:package/L:100" TAIL,
        "hyena:longconv_direct" HEAD "D:6/N:4/layout:package/L:31" TAIL,
        "hyena:longconv_fftw" HEAD "D:6/N:3/window:off/L:50" TAIL,
        "hyena:longconv_fftw" HEAD "D:6/N:2/taps:5/L:3" TAIL,
        "hyena:longconv_fftw" HEAD "D:6/N:3/long:off/L:40" TAIL,
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct hb_point pt = named(names[i]);
        struct hb_check_opts o = {.input = HB_IN_NORMAL, .backward = true};
        struct hb_check_result r = {0};
        cr_expect_eq(hb_check_point(&pt, &o, &r), HB_OK, "%s: %s", names[i], hb_error());
        cr_expect(r.ok && r.n > 2, "%s: %s (worst %.3g, tolerance %.3g)", names[i], r.detail,
                  r.worst_rel_l2, r.tol);
        hb_error_clear();
    }
}

static float *some(int64_t n, uint64_t stream)
{
    float *x = hb_host()->alloc(hb_host(), (size_t)n * sizeof *x);
    cr_assert(x);
    for (int64_t i = 0; i < n; i++)                // any numbers of size about 1
        x[i] = sinf((float)(i * 7 + (int64_t)stream * 131) * 0.37f) * 0.5f;
    return x;
}

// y with a residual stream is y without it, and the stream added; bit by bit on the cpu, where it
// is added behind the product and its bias.
static void residual(const char *name)
{
    struct hb_point pt = named(name);
    const struct hb_impl *impl = hb_registry_find(pt.impl);
    struct hb_tensor t[64];
    void *params[64], *grads[64] = {NULL}, *st = NULL;
    const int n = impl->tensors(&pt.p, t, 64);
    const int64_t all = pt.p.B * pt.p.L * pt.p.D;
    for (int i = 0; i < n; i++) {
        int64_t count = 1;
        for (int k = 0; k < t[i].rank; k++)
            count *= t[i].shape[k];
        params[i] = some(count, (uint64_t)i);
    }
    float *u = some(all, 100), *res = some(all, 101), *plain = some(all, 102), *y = some(all, 103);
    cr_assert_eq(impl->plan(hb_host(), &pt.p, &st), HB_OK, "%s", hb_error());
    struct hb_io io = {.oper = {.u = u, .y = plain, .params = params, .grads = grads}};
    cr_assert_eq(impl->forward(st, &io), HB_OK);
    io.oper.res = res, io.oper.y = y;
    cr_assert_eq(impl->forward(st, &io), HB_OK);
    int64_t bad = 0;
    for (int64_t i = 0; i < all; i++)
        bad += y[i] != plain[i] + res[i];
    cr_expect_eq(bad, 0, "%s: %lld of %lld elements differ", name, (long long)bad, (long long)all);
    impl->destroy(st);
    for (int i = 0; i < n; i++)
        hb_host()->free(hb_host(), params[i]);
    float *const mine[] = {u, res, plain, y};
    for (int i = 0; i < 4; i++)
        hb_host()->free(hb_host(), mine[i]);
}

Test(oper, residual)
{
    start();
    residual("mha:attention_flash" HEAD "D:24/H:2/L:37" TAIL);
    residual("mha:attention_naive" HEAD "D:24/H:2/taps:3/L:37" TAIL);
    residual("hyena:longconv_fftw" HEAD "D:10/N:3/L:37" TAIL);
}

Test(oper, devices)
{
    start();
    cr_expect_str_eq(hb_impl_device("hyena:longconv_fftw"), "cpu");
    cr_expect_str_eq(hb_impl_device("attention_flash"), "cpu");
    cr_expect_str_eq(hb_impl_device("mha"), "any");
    cr_expect_null(hb_impl_device("hyena:longconv_nobody"));
    hb_error_clear();
    cr_expect_eq(hb_use_device("cpu0"), HB_OK);
    cr_expect_str_eq(hb_host()->device->name, "cpu");
    static const char *const wrong[] = {"", "cpu", "cpu1", "cuda", "cuda1", "gpu0"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_expect_eq(hb_use_device(wrong[i]), HB_ERR_INPUT, "accepted: %s", wrong[i]);
        cr_expect(hb_error()[0]);
        hb_error_clear();
    }
    struct hb_point pt = named("hyena:longconv_fftw" HEAD "D:8/N:2/L:16" TAIL);
    strcpy(pt.device, "cuda0");
    cr_expect_neq(hb_point_resolve(&pt), HB_OK, "an inner one for the cpu, on cuda0");
}

// What is inside decides about the dtype; the reason names it.
Test(oper, refused_by_what_is_inside)
{
    start();
    struct hb_point pt = named("hyena:longconv_fftw" HEAD "D:8/N:2/L:16" TAIL);
    const struct hb_impl *impl = hb_registry_find(pt.impl);
    cr_expect_null(hb_point_refuses(&pt, impl));
    pt.p.dtype = HB_BF16;
    const char *why = hb_point_refuses(&pt, impl);
    cr_assert(why);
    cr_expect(strstr(why, "longconv_fftw"), "%s", why);
    void *st = NULL;
    cr_expect_eq(impl->plan(hb_host(), &pt.p, &st), HB_ERR_REFUSED);
}

// B L is a row of the projections' products, which BLAS counts in int: refused, not run into.
Test(oper, rows_too_long_for_blas)
{
    start();
    static const char *const names[] = {"hyena:longconv_fftw" HEAD "D:2/N:2/L:16" TAIL,
                                        "mha:attention_naive" HEAD "D:2/H:1/L:16" TAIL};
    for (int i = 0; i < 2; i++) {
        struct hb_point pt = named(names[i]);
        const struct hb_impl *impl = hb_registry_find(pt.impl);
        void *st = NULL;
        pt.p.B = 1 << 16, pt.p.L = (1 << 15) - 1;
        cr_expect_null(impl->refuses(&pt.p), "%s: B L = 2^31 - 2^16 fits", names[i]);
        pt.p.L = 1 << 15;
        const char *why = impl->refuses(&pt.p);
        cr_expect(why && strstr(why, "2^31"), "%s: %s", names[i], why ? why : "not refused");
        cr_expect_eq(impl->plan(hb_host(), &pt.p, &st), HB_ERR_REFUSED, "%s", names[i]);
        hb_error_clear();
    }
}

static struct hb_problem asked;
static int plan_of_the_inner(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    (void)st;
    asked = *p;
    return host->fail(host, HB_ERR_RUN, "this is as far as it goes");
}
static const struct hb_impl *open_the_inner(const struct hb_host *self, const char *name)
{
    (void)self, (void)name;
    static const struct hb_impl inner = {.op = HB_ATTENTION, .device = "cpu",
                                         .dtypes = 1u << HB_F32, .plan = plan_of_the_inner};
    return &inner;
}

// mha says beforehand that q, k, v lie side by side: an attention may plan for these strides alone.
Test(oper, heads_are_announced)
{
    start();
    struct hb_point pt = named("mha:attention_naive" HEAD "D:24/H:2/L:16" TAIL);
    struct hb_host host = *hb_host();
    void *st = NULL;
    host.open = open_the_inner;
    pt.p.backward = false;
    cr_expect_eq(hb_registry_find(pt.impl)->plan(&host, &pt.p, &st), HB_ERR_RUN);
    cr_expect_eq(asked.L, 16, "mha did not plan what is inside");
    cr_expect(asked.packed && !pt.p.packed);
}

Test(oper, attention_by_hand, .timeout = 60)
{
    start();
    enum { H = 3, L = 37, P = 5, D = H * P };
    static const char *const names[] = {"attention_naive", "attention_flash"};
    for (int which = 0; which < 2; which++) {
        // q, k, v side by side (L,3,H,P), as mha has them; y (L,H,P)
        float *x = some(3 * L * D, 1), *y = some(L * D, 2);
        struct hb_point pt = point(names[which], 1, D, H, L);
        const struct hb_impl *impl = hb_registry_find(names[which]);
        struct hb_io io = {.attn = {.q = x, .k = x + D, .v = x + 2 * D, .sq = {0, P, 3 * D},
                                    .y = y, .sy = {0, P, D}}};
        void *st = NULL;
        pt.p.backward = false;
        cr_assert_eq(impl->plan(hb_host(), &pt.p, &st), HB_OK, "%s", hb_error());
        cr_assert_eq(impl->forward(st, &io), HB_OK);
        for (int h = 0; h < H; h++) {
            double head[3][L * P], want[L * P], worst = 0;
            int64_t rows[L];
            for (int n = 0; n < 3; n++)
                for (int t = 0; t < L; t++)
                    for (int i = 0; i < P; i++)
                        head[n][t * P + i] = x[t * 3 * D + n * D + h * P + i];
            for (int t = 0; t < L; t++)
                rows[t] = t;
            cr_assert_eq(hb_judge_attention_rows(head[0], head[1], head[2], rows, L, want, L, P),
                         HB_OK);
            for (int t = 0; t < L; t++)
                for (int i = 0; i < P; i++)
                    worst = fmax(worst, fabs(y[t * D + h * P + i] - want[t * P + i]));
            cr_expect(worst < 1e-6, "%s, head %d: %g", names[which], h, worst);
        }
        impl->destroy(st);
        hb_host()->free(hb_host(), x), hb_host()->free(hb_host(), y);
    }
}
