// test_vectors.c: the specification's test vectors, on the float64 judge and on every
// implementation; and the device's primitives against their float64 twins.
#include "../impls/core/oper.h"
#include "../impls/reference/judge.h"
#include "../impls/reference/prims64.h"
#include "../impls/reference/vectors.h"
#include "tests.h"

enum { LD = HB_VECTOR_L * HB_VECTOR_D };

static void close_to(const char *who, const char *what, int i, double got, double want, double tol)
{
    cr_expect(fabs(got - want) <= tol, "%s %s[%d]: got %.12g, expected %.12g", who, what, i, got,
              want);
}

struct outputs { double y[LD], du[LD], *grads[HB_HY_COUNT]; };

static void compare(const struct hb_vector *v, const char *who, const struct outputs *o,
                    double tol_y, double tol_grad)
{
    double dy[LD], loss = 0, scale_y = 0, scale_g = 0;
    hb_vector_dy(v, dy);
    for (int i = 0; i < LD; i++)
        loss += o->y[i] * dy[i], scale_y = fmax(scale_y, fabs(v->y[i]));
    for (int i = 0; i < HB_VECTOR_GRADS; i++)
        scale_g = fmax(scale_g, fabs(v->grad[i].value));
    char name[128];
    snprintf(name, sizeof name, "case %s, %s", v->name, who);
    for (int i = 0; i < LD; i++)
        close_to(name, "y", i, o->y[i], v->y[i], tol_y * scale_y);
    close_to(name, "loss", 0, loss, v->loss, tol_y * fmax(1, fabs(v->loss)));
    for (int i = 0; i < HB_VECTOR_GRADS; i++) {
        const struct hb_vector_grad *g = &v->grad[i];
        close_to(name, "gradient", i,
                 g->tensor < 0 ? o->du[g->index] : o->grads[g->tensor][g->index], g->value,
                 tol_grad * fmax(1, scale_g));
    }
}

Test(vectors, judge)
{
    start();
    for (int k = 0; k < HB_VECTORS; k++) {
        const struct hb_vector *v = &hb_vectors[k];
        double *params[HB_HY_COUNT], u[LD], dy[LD];
        struct outputs o;
        for (int i = 0; i < HB_HY_COUNT; i++) {
            params[i] = malloc((size_t)hb_vector_size(v, i) * sizeof(double));
            o.grads[i] = calloc((size_t)hb_vector_size(v, i), sizeof(double));
            cr_assert(params[i] && o.grads[i]);
            hb_vector_param(v, i, params[i]);
        }
        hb_vector_u(v, u);
        hb_vector_dy(v, dy);
        cr_assert_eq(hb_judge_hyena(&v->p, u, params, o.y, dy, o.du, o.grads), HB_OK, "%s",
                     hb_error());
        compare(v, "judge", &o, 1e-9, 1e-7);
        for (int i = 0; i < HB_HY_COUNT; i++)
            free(params[i]), free(o.grads[i]);
    }
}

static void run_vector(const struct hb_vector *v, const char *longconv)
{
    const struct hb_impl *impl = hb_registry_find("hyena");
    if (!impl) {                                  // the registry may want the inner one named
        char name[HB_NAME_MAX];
        snprintf(name, sizeof name, "hyena:%.60s", longconv);
        hb_error_clear();
        impl = hb_registry_find(name);
    }
    cr_assert(impl, "%s", hb_error());
    struct hb_problem p = v->p;
    snprintf(p.inner, sizeof p.inner, "%s", longconv);
    p.threads = 2, p.backward = true, p.planning = HB_PLAN_ESTIMATE;
    void *params[HB_HY_COUNT], *grads[HB_HY_COUNT], *st = NULL;
    struct outputs o;
    const struct hb_host *host = hb_host();
    float *u = host->alloc(host, LD * 4), *dy = host->alloc(host, LD * 4);
    float *y = host->alloc(host, LD * 4), *du = host->alloc(host, LD * 4);
    for (int i = 0; i < HB_HY_COUNT; i++) {
        int64_t n = hb_vector_size(v, i);
        double *x = malloc((size_t)n * sizeof *x);
        params[i] = host->alloc(host, (size_t)n * 4);
        grads[i] = host->alloc(host, (size_t)n * 4);
        o.grads[i] = x;
        cr_assert(x && params[i] && grads[i]);
        hb_vector_param(v, i, x);
        for (int64_t j = 0; j < n; j++)
            ((float *)params[i])[j] = (float)x[j], ((float *)grads[i])[j] = 0;
    }
    double tmp[LD];
    hb_vector_u(v, tmp);
    for (int i = 0; i < LD; i++)
        u[i] = (float)tmp[i];
    hb_vector_dy(v, tmp);
    for (int i = 0; i < LD; i++)
        dy[i] = (float)tmp[i];
    cr_assert_eq(impl->plan(host, &p, &st), HB_OK, "%s", hb_error());
    struct hb_io io = {.oper = {.u = u, .y = y, .dy = dy, .du = du,
                                .params = params, .grads = grads}};
    cr_assert_eq(impl->forward(st, &io), HB_OK, "%s", hb_error());
    cr_assert_eq(impl->backward(st, &io), HB_OK, "%s", hb_error());
    for (int i = 0; i < LD; i++)
        o.y[i] = y[i], o.du[i] = du[i];
    for (int i = 0; i < HB_HY_COUNT; i++)
        for (int64_t j = 0; j < hb_vector_size(v, i); j++)
            o.grads[i][j] = ((float *)grads[i])[j];
    compare(v, longconv, &o, 1e-5, 1e-5);         // float32, relative to the largest entry
    impl->destroy(st);
    for (int i = 0; i < HB_HY_COUNT; i++) {
        host->free(host, params[i]), host->free(host, grads[i]);
        free(o.grads[i]);
    }
    host->free(host, u), host->free(host, y), host->free(host, dy), host->free(host, du);
    cr_expect_eq(hb_host_mem().now, 0, "%s leaks %zu bytes", longconv, hb_host_mem().now);
}

Test(vectors, implementations)
{
    start();
    int seen = 0;
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_impl *impl = cpu_impl(i);
        for (int k = 0; impl && impl->op == HB_LONGCONV && k < HB_VECTORS; k++, seen++)
            run_vector(&hb_vectors[k], impl->name);
    }
    cr_expect(seen >= 9, "%d", seen);
}

// Window end values: exp(-delta) at t = 1 for the slowest and the fastest channel.
Test(vectors, window_ends)
{
    cr_expect_float_eq(exp(-hb_decay(0, 64)), 0.0464158883, 1e-9);
    cr_expect_float_eq(exp(-hb_decay(63, 64)), 2.1544346900e-7, 1e-15);
    cr_expect_float_eq(hb_decay(1, 4), 7.163598067, 1e-8);
}

Test(primitives, cpu_against_float64, .timeout = 120)
{
    start();
    const struct hb_device *dev = hb_host()->device;
    cr_assert(dev);
    int n = hb_prims_check(dev, NULL, 0);
    cr_assert(n >= 15, "only %d primitives", n);
    struct hb_prim_result *r = calloc((size_t)n, sizeof *r);
    cr_assert(r);
    cr_assert_eq(hb_prims_check(dev, r, n), n, "%s", hb_error());
    for (int i = 0; i < n; i++)
        cr_expect(r[i].ok && r[i].err <= r[i].tol && r[i].shapes > 0,
                  "%s %s: error %.3g, tolerance %.3g, %d shapes, %s", r[i].name,
                  hb_dtype_str(r[i].dtype), r[i].err, r[i].tol, r[i].shapes, r[i].detail);
    free(r);
}
