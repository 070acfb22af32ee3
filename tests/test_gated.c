// test_gated.c: long convolutions that take hyena's gates and short filters, against the float64
// composition, on the CPU and, where there is one, on a GPU; and hyena's use of them.
#include "../impls/core/halves.h"
#include "../impls/core/inner.h"
#include "../impls/core/rng.h"
#include "../impls/reference/judge.h"
#include "tests.h"

enum { U, PRE, POST, Y, DY, DU, DPRE, DPOST, SIGNALS,                    // (B,D,L), signals' type
       H = SIGNALS, D_, DH, DD, W, BS = W + 3, BP = BS + 3, DW = BP + 3, DBS = DW + 3,
       DBP = DBS + 3, COUNT = DBP + 3 };
enum { HAS_PRE = 1, HAS_POST = 2, TAP_U = 4, TAP_PRE = 8, TAP_POST = 16, HAS_BP = 32, HAS_D = 64,
       ROWS = 128,             // signals lie as (B,D,L), rows apart by L + 3; else as (D,B,L)
       EVERYTHING = 127 };

struct sizes { int64_t B, D, L; int K, what; enum hb_dtype t; };
struct tensor { double *ref; float *host; void *bits, *dev; int64_t n, room; };

static bool is_output(int i) { return i == Y || (i >= DU && i <= DPOST); }
static bool is_gradient(int i) { return i == DH || i == DD || i >= DW; }

static struct hb_strides strides(struct sizes s)
{
    if (s.what & ROWS) return (struct hb_strides){(s.L + 3) * s.D, s.L + 3};
    return (struct hb_strides){s.L, s.B * s.L};
}

// Where element i of a (D,B,L) signal lies in memory.
static int64_t place(struct sizes s, int tensor, int64_t i)
{
    struct hb_strides st = strides(s);
    int64_t row = i / s.L;
    return tensor >= SIGNALS ? i : row % s.B * st.b + row / s.B * st.c + i % s.L;
}

static void fill(const struct hb_device *dev, struct sizes s, int which, struct tensor *x)
{
    const bool sig = which < SIGNALS;
    const enum hb_dtype t = sig ? s.t : HB_F32;
    x->n = sig ? s.B * s.D * s.L : which == H || which == DH ? s.D * s.L
           : (which >= W && which < BS) || (which >= DW && which < DBS) ? s.D * s.K : s.D;
    x->room = sig ? s.B * s.D * (s.L + 3) : x->n;
    x->ref = calloc((size_t)x->n, sizeof *x->ref);
    x->host = calloc((size_t)x->room, sizeof *x->host);
    x->bits = malloc((size_t)x->room * sizeof(float));
    x->dev = dev->alloc(dev, (size_t)x->room * hb_dtype_size(t));
    cr_assert(x->ref && x->host && x->bits && x->dev);
    for (int64_t i = 0; i < x->n; i++) {
        float v = hb_round_to(t, 0.5f * (float)hb_rng_normal(7, (uint64_t)which, (uint64_t)i));
        x->ref[i] = is_output(which) ? NAN : (double)v;
        x->host[place(s, which, i)] = is_output(which) ? NAN : v;
    }
    hb_from_f32(t, x->bits, x->host, x->room);
    cr_assert_eq(dev->upload(dev, x->dev, x->bits, (size_t)x->room * hb_dtype_size(t),
                             dev->stream), HB_OK);
}

static struct hb_conv_tap tap(const struct tensor *x, struct sizes s, int i, int bit)
{
    if (!(s.what & bit)) return (struct hb_conv_tap){NULL};
    const bool bp = s.what & HAS_BP;
    return (struct hb_conv_tap){x[W + i].dev, x[BS + i].dev, bp ? x[BP + i].dev : NULL,
                                x[DW + i].dev, x[DBS + i].dev, bp ? x[DBP + i].dev : NULL};
}

static struct hb_judge_tap tap64(const struct tensor *x, struct sizes s, int i, int bit)
{
    if (!(s.what & bit)) return (struct hb_judge_tap){NULL};
    const bool bp = s.what & HAS_BP;
    return (struct hb_judge_tap){x[W + i].ref, x[BS + i].ref, bp ? x[BP + i].ref : NULL,
                                 x[DW + i].ref, x[DBS + i].ref, bp ? x[DBP + i].ref : NULL};
}

static void judge(const struct tensor *x, struct sizes s)
{
    const bool pre = s.what & HAS_PRE, post = s.what & HAS_POST, d = s.what & HAS_D;
    struct hb_judge_gated g = {
        .B = s.B, .D = s.D, .L = s.L, .taps = s.K, .u = x[U].ref, .h = x[H].ref,
        .pre = pre ? x[PRE].ref : NULL, .post = post ? x[POST].ref : NULL,
        .d = d ? x[D_].ref : NULL, .tap_u = tap64(x, s, 0, TAP_U),
        .tap_pre = tap64(x, s, 1, TAP_PRE), .tap_post = tap64(x, s, 2, TAP_POST), .y = x[Y].ref,
        .dy = x[DY].ref, .du = x[DU].ref, .dpre = x[DPRE].ref, .dpost = x[DPOST].ref,
        .dh = x[DH].ref, .dd = d ? x[DD].ref : NULL,
    };
    cr_assert_eq(hb_judge_gated(&g), HB_OK);
}

static struct hb_problem problem(struct sizes s)
{
    return (struct hb_problem){.op = HB_LONGCONV, .dtype = s.t, .B = s.B, .L = s.L, .D = s.D,
                               .threads = 2, .backward = true, .gated = true, .taps = s.K};
}

static void compute(const struct hb_impl *impl, const struct hb_device *dev, const struct tensor *x,
                    struct sizes s)
{
    const bool pre = s.what & HAS_PRE, post = s.what & HAS_POST, d = s.what & HAS_D;
    struct hb_strides at = strides(s);
    struct hb_problem p = problem(s);
    struct hb_conv_gates gates = {
        .u = tap(x, s, 0, TAP_U),
        .pre = {pre ? x[PRE].dev : NULL, at, x[DPRE].dev, at, tap(x, s, 1, TAP_PRE)},
        .post = {post ? x[POST].dev : NULL, at, x[DPOST].dev, at, tap(x, s, 2, TAP_POST)},
    };
    struct hb_io io = {.stream = dev->stream, .conv = {
        .u = x[U].dev, .su = at, .h = x[H].dev, .d = d ? x[D_].dev : NULL, .y = x[Y].dev,
        .sy = at, .gates = &gates}};
    void *st = NULL;
    cr_assert_eq(impl->plan(hb_host(), &p, &st), HB_OK, "%s", hb_error());
    cr_assert_eq(impl->forward(st, &io), HB_OK, "%s", hb_error());
    io.conv.dy = x[DY].dev, io.conv.sdy = at, io.conv.du = x[DU].dev, io.conv.sdu = at;
    io.conv.dh = x[DH].dev, io.conv.dd = d ? x[DD].dev : NULL;
    cr_assert_eq(impl->backward(st, &io), HB_OK, "%s", hb_error());
    cr_assert_eq(dev->sync(dev, dev->stream), HB_OK, "%s", hb_error());
    impl->destroy(st);
}

static bool compared(struct sizes s, int i)
{
    if ((i == DPRE || i == PRE) && !(s.what & HAS_PRE)) return false;
    if ((i == DPOST || i == POST) && !(s.what & HAS_POST)) return false;
    return is_output(i) || is_gradient(i);
}

static double squares(const struct tensor *x)
{
    double sum = 0;
    for (int64_t k = 0; k < x->n; k++) sum += x->ref[k] * x->ref[k];
    return sum;
}

// What the error of tensor i is measured by: its own norm. A short filter's gradient is a sum over
// signals that may nearly cancel; where these have 16 bits its error is that of their norm.
static double norm2(const struct tensor *x, struct sizes s, int i)
{
    if (i < DW || s.t == HB_F32) return squares(&x[i]);
    return fmax(squares(&x[i]), squares(&x[DU + (i - DW) % 3]));
}

static void one(const struct hb_impl *impl, struct sizes s)
{
    const struct hb_device *dev = hb_host()->device;
    struct tensor x[COUNT];
    // A gate that is not there has no short filter.
    if (!(s.what & HAS_PRE)) s.what &= ~TAP_PRE;
    if (!(s.what & HAS_POST)) s.what &= ~TAP_POST;
    const double tol = s.t == HB_F32 ? 3e-6 : s.t == HB_F16 ? 2e-3 : 1e-2;
    for (int i = 0; i < COUNT; i++) fill(dev, s, i, &x[i]);
    judge(x, s);
    compute(impl, dev, x, s);
    for (int i = 0; i < COUNT; i++) {
        const enum hb_dtype t = i < SIGNALS ? s.t : HB_F32;
        double diff = 0;
        cr_assert_eq(dev->download(dev, x[i].bits, x[i].dev,
                                   (size_t)x[i].room * hb_dtype_size(t), dev->stream), HB_OK);
        hb_to_f32(t, x[i].host, x[i].bits, x[i].room);
        for (int64_t k = 0; k < x[i].n; k++) {
            const double e = (double)x[i].host[place(s, i, k)] - x[i].ref[k];
            diff += e * e;
        }
        const double norm = norm2(x, s, i);
        if (compared(s, i))
            cr_expect(sqrt(diff) <= tol * sqrt(norm), "%s B %lld D %lld L %lld taps %d %s what %d: "
                      "tensor %d, error %.3g", impl->name, (long long)s.B, (long long)s.D,
                      (long long)s.L, s.K, hb_dtype_str(s.t), s.what, i, sqrt(diff / norm));
        else if (!is_output(i))
            cr_expect_eq(diff, 0, "%s: an input was changed: %d", impl->name, i);
    }
    for (int i = 0; i < COUNT; i++) {
        dev->free(dev, x[i].dev);
        free(x[i].ref), free(x[i].host), free(x[i].bits);
    }
}

// Every implementation for `device` that takes gates; returns how many there are. What it refuses
// of this is passed over, but not all of it.
static int all_of(const char *device)
{
    static const int64_t shapes[][4] = {{1, 1, 1, 3}, {3, 2, 2, 3}, {2, 3, 17, 4}, {2, 5, 64, 3},
                                        {1, 2, 129, 3}, {3, 4, 1000, 3}, {2, 2, 1024, 1},
                                        {3, 2, 2050, 3}, {1, 2, 4099, 3}};
    static const int kinds[] = {0, HAS_PRE, HAS_POST | HAS_D, TAP_U | HAS_BP, HAS_PRE | HAS_POST,
                                HAS_PRE | TAP_PRE | HAS_D, HAS_POST | TAP_POST | TAP_U,
                                EVERYTHING & ~HAS_BP, EVERYTHING & ~HAS_D, EVERYTHING,
                                EVERYTHING | ROWS};
    int n = 0;
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_impl *im = hb_registry_at(i)->impl;
        if (!im || im->op != HB_LONGCONV || !im->gates || strcmp(im->device, device)) continue;
        int done = 0;
        n++;
        for (int t = 0; t < HB_DTYPE_COUNT; t++)
            for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
                for (size_t w = 0; w < sizeof kinds / sizeof *kinds; w++) {
                    const struct sizes s = {shapes[k][0], shapes[k][1], shapes[k][2],
                                            (int)shapes[k][3], kinds[w], (enum hb_dtype)t};
                    const struct hb_problem p = problem(s);
                    if (!(im->dtypes >> t & 1) || (im->refuses && im->refuses(&p))) continue;
                    one(im, s);
                    done++;
                }
        cr_expect_gt(done, 0, "%s takes gates and refuses all problems that have some", im->name);
    }
    return n;
}

Test(gated, cpu, .timeout = 120)
{
    start();
    cr_assert_gt(all_of("cpu"), 0, "none takes gates: hyena's use of them is untested");
}

Test(gated, cuda, .timeout = 600)
{
    start();
    if (hb_use_device("cuda0")) cr_skip_test("%s", hb_error());
    if (!all_of("cuda")) cr_skip_test("no CUDA implementation takes gates");
}

// One that takes none is not given any.
Test(gated, refused)
{
    start();
    struct hb_problem p = {.op = HB_LONGCONV, .dtype = HB_F32, .B = 1, .L = 16, .D = 2,
                           .threads = 1, .gated = true, .taps = 3};
    const struct hb_impl *fftw = hb_registry_find("longconv_fftw"), *inner;
    cr_assert(fftw && !fftw->gates);
    cr_expect_eq(hb_inner_open(hb_host(), "test", "a longconv", fftw->name, &p, &inner),
                 HB_ERR_REFUSED);
    cr_expect(strstr(hb_error(), "gates"), "%s", hb_error());
}

// Which of its two ways hyena takes is said in its plan; both are judged in every order.
static void hyena(const char *device, const char *inner, enum hb_dtype t, int taps, bool gated)
{
    for (int order = 2; order <= 4; order++)
        for (int backward = 0; backward < 2; backward++) {
            struct hb_point pt = {.seed = 1, .p = {.dtype = t, .B = 2, .D = 24, .L = 37,
                                                   .threads = 2, .backward = backward}};
            snprintf(pt.device, sizeof pt.device, "%s", device);
            snprintf(pt.impl, sizeof pt.impl, "hyena:%s", inner);
            pt.p.oper.order = order, pt.p.oper.short_taps = taps;
            cr_assert_eq(hb_point_resolve(&pt), HB_OK, "%s: %s", pt.impl, hb_error());
            char text[512] = "";
            struct hb_check_opts o = {.input = HB_IN_NORMAL, .backward = backward};
            struct hb_check_result r = {0};
            cr_expect_eq(hb_check_point(&pt, &o, &r), HB_OK, "%s: %s", pt.impl, hb_error());
            cr_expect(r.ok && r.n > 0, "%s order %d: %s", pt.impl, order, r.detail);
            const struct hb_impl *impl = hb_registry_find(pt.impl);
            void *st = NULL;
            cr_assert_eq(impl->plan(hb_host(), &pt.p, &st), HB_OK, "%s", hb_error());
            impl->describe(st, text, sizeof text);
            cr_expect_eq(strstr(text, "gates inside") != NULL, gated, "%s, %d taps: %s", pt.impl,
                         taps, text);
            impl->destroy(st);
        }
}

Test(gated, hyena, .timeout = 120)
{
    start();
    hyena("cpu0", "longconv_direct", HB_F32, 3, true);
    hyena("cpu0", "longconv_fftw", HB_F32, 3, false);
}

// One that takes gates, but not these.
Test(gated, hyena_cuda, .timeout = 300)
{
    start();
    if (hb_use_device("cuda0")) cr_skip_test("%s", hb_error());
    hyena("cuda0", "longconv_fused_cuda", HB_F16, 3, true);
    hyena("cuda0", "longconv_fused_cuda", HB_F16, 4, false);
}
