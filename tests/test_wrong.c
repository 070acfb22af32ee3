// test_wrong.c: the checker can fail. Every implementation on the shelf has one defect and must be
// rejected; `right` has none and must be accepted by the very same calls.
#include <dlfcn.h>
#include <glob.h>
#include "tests.h"

static bool accepted(const struct hb_impl *impl, char why[256])
{
    static const struct { int64_t B, D, H, L; } shapes[] = {
        {1, 2, 2, 1}, {2, 4, 2, 31}, {3, 4, 2, 127}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
        for (int in = 0; in < HB_IN_COUNT; in++) {
            bool conv = impl->op == HB_LONGCONV;
            struct hb_point pt = point(conv ? "longconv_direct" : "attention_naive", shapes[k].B,
                                       shapes[k].D, conv ? 0 : shapes[k].H, shapes[k].L);
            struct hb_check_opts o = {.input = (enum hb_input)in, .backward = true, .impl = impl};
            struct hb_check_result r = {0};
            int rc = hb_check_point(&pt, &o, &r);
            snprintf(why, 256, "%.200s", rc ? hb_error() : r.detail);
            hb_error_clear();
            if (rc != HB_OK || !r.ok)
                return false;
        }
    return true;
}

Test(wrong, every_defect_is_rejected, .timeout = 120)
{
    start();
    char pattern[4200];
    snprintf(pattern, sizeof pattern, "%s/tests/wrong/*.so", hb_build_dir());
    glob_t g;
    cr_assert_eq(glob(pattern, 0, NULL, &g), 0, "nothing matches %s", pattern);
    int right = 0, rejected = 0;
    for (size_t i = 0; i < g.gl_pathc; i++) {
        void *so = dlopen(g.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);
        cr_assert(so, "%s", dlerror());
        const struct hb_impl *impl = dlsym(so, "hb_impl");
        cr_assert(impl, "%s exports no hb_impl", g.gl_pathv[i]);
        char why[256];
        bool ok = accepted(impl, why);
        bool is_right = strstr(impl->name, "_right") != NULL;
        cr_expect(ok == is_right, "%s was %s%s%s", impl->name, ok ? "accepted" : "rejected",
                  ok ? "" : ": ", ok ? "" : why);
        right += is_right;
        rejected += !is_right && !ok;
    }
    globfree(&g);
    cr_expect(right == 2, "expected two correct implementations on the shelf, found %d", right);
    cr_expect(rejected >= 20, "only %d defects were tried", rejected);
}
