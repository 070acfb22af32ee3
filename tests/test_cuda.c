// test_cuda.c: the CUDA device and its implementations. Without a GPU, what needs one is skipped
// with the reason; that everything loads, and says clearly what is missing, is tested anywhere.
#include <dlfcn.h>
#include <unistd.h>
#include "tests.h"
#include "../impls/reference/prims64.h"

enum { MAX_ROWS = 256 };

static bool is_cuda(const struct hb_plugin *pl)
{
    return strstr(pl->path, "_cuda.so") != NULL;
}

static int count_cuda(void)
{
    int n = 0;
    for (int i = 0; i < hb_registry_count(); i++) n += is_cuda(hb_registry_at(i));
    return n;
}

// Ends the test as skipped where there is no GPU to use.
static void need_gpu(void)
{
    start();
    if (!count_cuda()) cr_skip_test("no CUDA implementations in this build");
    if (hb_use_device("cuda0")) cr_skip_test("%s", hb_error());
}

Test(cuda, plugins_load)
{
    start();
    if (!count_cuda()) cr_skip_test("no CUDA implementations in this build");
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_plugin *pl = hb_registry_at(i);
        if (!is_cuda(pl)) continue;
        cr_assert(pl->impl, "%s cannot be used: %s", pl->path, pl->why_not);
        cr_expect_str_eq(pl->impl->device, "cuda");
        cr_expect(pl->impl->backward, "%s has no backward", pl->impl->name);
    }
}

Test(cuda, what_is_missing_is_said)
{
    start();
    int rc = hb_use_device("cuda0");
    if (!rc) cr_skip_test("there is a GPU");
    cr_expect_eq(rc, HB_ERR_MISSING, "code %d: %s", rc, hb_error());
    cr_expect(strlen(hb_error()) > 20, "message: '%s'", hb_error());
    cr_expect_str_eq(hb_host()->device->name, "cpu", "the device stays what it was");
}

// A device plug-in of another version of the contract does not open: its table is another one.
Test(cuda, another_version_is_refused)
{
    start();
    char path[4300];
    snprintf(path, sizeof path, "%s/cuda.so", hb_devices_dir());
    if (access(path, R_OK)) cr_skip_test("no CUDA device in this build");
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    cr_assert(lib, "%s", dlerror());
    hb_device_open_fn *open_it;
    void *symbol = dlsym(lib, HB_DEVICE_OPEN);
    cr_assert(symbol);
    memcpy(&open_it, &symbol, sizeof open_it);
    struct hb_host other = *hb_host();
    other.abi = HB_ABI_VERSION - 1;
    cr_expect_null(open_it(&other, 0));
    cr_expect(strstr(hb_error(), "ABI"), "message: '%s'", hb_error());
}

Test(cuda, primitives, .timeout = 300)
{
    need_gpu();
    static struct hb_prim_result r[MAX_ROWS];
    int n = hb_prims_check(hb_host()->device, r, MAX_ROWS);
    cr_assert(n > 0 && n <= MAX_ROWS, "%d rows: %s", n, hb_error());
    for (int i = 0; i < n; i++)
        cr_expect(r[i].ok, "%s %s: error %.3g, tolerance %.3g: %s", r[i].name,
                  hb_dtype_str(r[i].dtype), r[i].err, r[i].tol, r[i].detail);
}

static void judge(const struct hb_impl *im, enum hb_dtype t, int64_t L)
{
    struct hb_point pt = { .device = "cuda0", .seed = 1, .p = { .dtype = t, .B = 3, .D = 24,
                           .H = im->op == HB_ATTENTION ? 3 : 0, .L = L, .threads = 2,
                           .backward = true } };
    snprintf(pt.impl, sizeof pt.impl, "%s", im->name);
    cr_assert_eq(hb_point_resolve(&pt), HB_OK, "%s: %s", im->name, hb_error());
    if (hb_point_refuses(&pt, im)) return;
    struct hb_check_opts o = { .input = HB_IN_NORMAL, .backward = true, .repeat = true };
    struct hb_check_result res = { 0 };
    int rc = hb_check_point(&pt, &o, &res);
    cr_expect(rc == HB_OK && res.ok, "%s %s L=%lld: %s%s", im->name, hb_dtype_str(t), (long long)L,
              hb_error(), res.detail);
    hb_error_clear();
}

Test(cuda, implementations, .timeout = 600)
{
    need_gpu();
    static const int64_t lengths[] = { 1, 2, 3, 17, 64, 100, 129, 1000, 1024 };
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_plugin *pl = hb_registry_at(i);
        if (!is_cuda(pl) || !pl->impl) continue;
        for (int t = 0; t < HB_DTYPE_COUNT; t++)
            for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++)
                if (pl->impl->dtypes >> t & 1) judge(pl->impl, (enum hb_dtype)t, lengths[k]);
    }
}
