// tests.h: what every test file needs. Criterion runs each test in a process of its own, so each
// test sets the host up itself with `start()`.
#ifndef HB_TESTS_H
#define HB_TESTS_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "../bench/check.h"
#include "../bench/choose/choose.h"

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 };      // instrumented code is 5-20 times slower: shorter lists, L up to 4097
#else
enum { SANITIZED = 0 };
#endif

static inline void start(void)
{
    hb_error_clear();
    cr_assert_eq(hb_host_init(2, 0), HB_OK, "host: %s", hb_error());
    cr_assert_eq(hb_registry_load(), HB_OK, "registry: %s", hb_error());
}

// Implementation i of the registry if the CPU can run it, else NULL: what needs a GPU is tested
// where
// there is one. What only chooses another one (auto) has its own tests. A broken file that is not
// for
// CUDA is a failure.
static inline const struct hb_impl *cpu_impl(int i)
{
    const struct hb_plugin *pl = hb_registry_at(i);
    cr_expect(pl->impl || strstr(pl->path, "_cuda."), "%s cannot be used: %s", pl->path,
              pl->why_not);
    if (!pl->impl || hb_is_auto(pl->impl->name)) return NULL;
    return strcmp(pl->impl->device, "cuda") ? pl->impl : NULL;
}

// A resolved point; H = 0 where the operator has none. Seed 1.
static inline struct hb_point point(const char *impl, int64_t B, int64_t D, int64_t H, int64_t L)
{
    struct hb_point pt = {.device = "cpu0", .seed = 1};
    snprintf(pt.impl, sizeof pt.impl, "%s", impl);
    pt.p.B = B, pt.p.D = D, pt.p.H = H, pt.p.L = L;
    pt.p.threads = 2;
    pt.p.planning = HB_PLAN_ESTIMATE;
    pt.p.backward = true;
    pt.p.filter = HB_FILTER_FRESH;
    cr_assert_eq(hb_point_resolve(&pt), HB_OK, "%s: %s", impl, hb_error());
    return pt;
}

// The line that repeats one point alone.
static inline const char *repeat(const struct hb_point *pt)
{
    static char line[512];
    int n = snprintf(line, sizeof line,
                     "build/hyena-bench run --impl %s --B %lld --D %lld --L %lld --seed %llu",
                     pt->impl, (long long)pt->p.B, (long long)pt->p.D, (long long)pt->p.L,
                     (unsigned long long)pt->seed);
    if (pt->p.H > 0)
        snprintf(line + n, sizeof line - (size_t)n, " --H %lld", (long long)pt->p.H);
    return line;
}

#endif
