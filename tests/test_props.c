// test_props.c: properties that hold whatever the numbers are, for every implementation of every
// operator, and that the shelf of wrong implementations breaks.
#include <dlfcn.h>
#include "../bench/props.h"
#include "tests.h"

static int tried;

static void all_properties(const char *name, const struct hb_impl *impl, struct hb_point pt)
{
    for (int i = 0; i < hb_n_props; i++) {
        struct hb_prop_result r = {0};
        int rc = hb_props[i].check(&pt, impl, &r);
        cr_expect(rc == HB_OK, "%s %s L=%lld: %s", name, hb_props[i].name, (long long)pt.p.L,
                  hb_error());
        hb_error_clear();
        tried += rc == HB_OK && r.applies;
        cr_expect(rc != HB_OK || !r.applies || r.ok,
                  "%s, %s (%s) at L=%lld: %s (%.3g, limit %.3g)\n  repeat: %s", name,
                  hb_props[i].name, hb_props[i].says, (long long)pt.p.L, r.detail, r.value, r.limit,
                  repeat(&pt));
    }
}

static const int64_t lengths[] = {2, 31, 128, 1000};

Test(props, implementations, .timeout = 300)
{
    start();
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_impl *impl = cpu_impl(i);
        if (!impl || (impl->op != HB_LONGCONV && impl->op != HB_ATTENTION))
            continue;
        bool conv = impl->op == HB_LONGCONV;
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++)
            all_properties(impl->name, impl, point(impl->name, 2, 12, conv ? 0 : 3, lengths[k]));
        char name[HB_NAME_MAX];
        snprintf(name, sizeof name, "%s:%.60s", conv ? "hyena" : "mha", impl->name);
        for (size_t k = 0; k < 3; k++)
            all_properties(name, hb_registry_find(name),
                           point(name, 2, 12, conv ? 0 : 3, lengths[k]));
    }
    cr_expect(tried > 80, "only %d properties applied", tried);
}

static bool breaks(const char *defect, const char *property)
{
    char path[4300];
    snprintf(path, sizeof path, "%s/tests/wrong/%s.so", hb_build_dir(), defect);
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    cr_assert(so, "%s", dlerror());
    const struct hb_impl *impl = dlsym(so, "hb_impl");
    bool conv = impl->op == HB_LONGCONV;
    struct hb_point pt = point(conv ? "longconv_direct" : "attention_naive", 2, 12, conv ? 0 : 3,
                               31);
    for (int i = 0; i < hb_n_props; i++)
        if (strcmp(hb_props[i].name, property) == 0) {
            struct hb_prop_result r = {0};
            return hb_props[i].check(&pt, impl, &r) == HB_OK && r.applies && !r.ok;
        }
    cr_assert(0, "there is no property %s", property);
    return false;
}

Test(props, they_can_fail, .timeout = 60)
{
    start();
    static const char *const cases[][2] = {
        {"longconv_future_leak", "causality"}, {"longconv_circular", "causality"},
        {"longconv_du_causal", "adjoint"}, {"longconv_one_nan", "zero"},
        {"longconv_ignores_strides", "strides"},
        {"attention_sees_one_ahead", "causality"}, {"attention_not_causal", "causality"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect(breaks(cases[i][0], cases[i][1]), "%s keeps %s", cases[i][0], cases[i][1]);
    cr_expect(!breaks("longconv_right", "causality") && !breaks("longconv_right", "adjoint"),
              "the right one was rejected");
}
