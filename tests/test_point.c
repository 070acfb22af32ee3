// test_point.c: a point's name is its key: it can be read back exactly; nonsense is refused.
#include <stdlib.h>
#include <unistd.h>
#include "../bench/cli.h"
#include "../bench/sweep.h"
#include "../bench/work.h"
#include "tests.h"

Test(point, name_and_back)
{
    start();
    static const struct { const char *impl; int64_t B, D, H, L; } some[] = {
        {"longconv_fftw", 1, 256, 0, 8192}, {"longconv_direct", 4, 3, 0, 1},
        {"attention_flash", 2, 96, 3, 1000},
        {"hyena:longconv_fftw", 1, 64, 0, 4097}, {"mha:attention_naive", 3, 64, 4, 100}};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        for (int pass = 0; pass < HB_PASS_COUNT; pass++)
            for (int mode = 0; mode < HB_MODE_COUNT; mode++) {
                struct hb_point back, pt = point(some[i].impl, some[i].B, some[i].D, some[i].H,
                                                 some[i].L);
                pt.pass = (enum hb_pass)pass;
                pt.mode = (enum hb_mode)mode;
                pt.p.filter = pass == HB_PASS_FWD_CACHED ? HB_FILTER_FIXED : HB_FILTER_FRESH;
                char name[512], again[512];
                cr_assert_eq(hb_point_name(&pt, name, sizeof name), HB_OK);
                cr_assert_eq(hb_point_parse(name, &back), HB_OK, "%s: %s", name, hb_error());
                cr_assert_eq(hb_point_name(&back, again, sizeof again), HB_OK);
                cr_expect_str_eq(name, again);
                cr_expect(back.p.L == pt.p.L && back.p.B == pt.p.B && back.p.D == pt.p.D
                              && back.p.op == pt.p.op && back.scope == pt.scope
                              && back.pass == pt.pass && back.mode == pt.mode,
                          "%s", name);
                cr_expect(strncmp(name, pt.impl, strlen(pt.impl)) == 0,
                          "the implementation comes first: %s", name);
            }
}

Test(point, bad_names)
{
    start();
#define TAIL "plan:estimate/T:2/mode:warm/scope:core/manual_time"
    static const char *const bad[] = {
        "", "x", "longconv_fftw", "longconv_fftw/L:0",
        "longconv_fftw/dev:cpu0/dt:f32/B:1/D:4/L:-8/pass:fwd/" TAIL,
        "longconv_fftw/dev:cpu0/dt:f99/B:1/D:4/L:8/pass:fwd/" TAIL,
        "longconv_fftw/dev:cpu0/dt:f32/B:1/D:4/L:8/pass:sideways/" TAIL,
        "longconv_fftw/dev:cpu0/dt:f32/B:1/D:4/L:8x/pass:fwd/" TAIL};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hb_point pt;
        hb_error_clear();
        cr_expect_eq(hb_point_parse(bad[i], &pt), HB_ERR_INPUT, "accepted: %s", bad[i]);
        cr_expect(hb_error()[0], "no message for: %s", bad[i]);
    }
}

// Counts of the design: causal attention 2 P L (L+1) a head, direct convolution L (L+1) a channel.
Test(point, work_model)
{
    start();
    struct hb_point at = point("attention_flash", 2, 192, 3, 100);
    struct hb_point di = point("longconv_direct", 2, 5, 0, 100);
    cr_expect_float_eq(hb_point_work(&at).flop, 2. * 64 * 100 * 101 * 2 * 3, 1, "%.17g",
                       hb_point_work(&at).flop);
    cr_expect_float_eq(hb_point_work(&di).flop, 100. * 101 * 2 * 5, 1, "%.17g",
                       hb_point_work(&di).flop);
    cr_expect_float_eq(hb_point_work(&at).bytes_min, 4. * 4 * 2 * 192 * 100, 1,
                       "q, k, v in and y out");
    at.p.dtype = di.p.dtype = HB_BF16;        // signals of 2 bytes; h and d stay float32
    cr_expect_float_eq(hb_point_work(&at).bytes_min, 2. * 4 * 2 * 192 * 100, 1, "in 16 bits");
    cr_expect_float_eq(hb_point_work(&di).bytes_min, 2. * 2 * 2 * 5 * 100 + 4. * 5 * 101, 1,
                       "signals and filter");
    cr_expect_float_eq(hb_flop_bound_ratio(65536, 768, false), 1 + 65536 / 1536., 1e-9);
    cr_expect_float_eq(hb_flop_bound_ratio(65536, 768, true), 1 + 65536 / 3072., 1e-9);
}

Test(point, lengths_and_sizes)
{
    int64_t L[64];
    int n = 0;
    cr_assert_eq(hb_parse_lengths("1k,128..1024,3000,128", L, 64, &n), HB_OK, "%s", hb_error());
    static const int64_t want[] = {128, 256, 512, 1024, 3000};
    cr_expect_eq(n, 5);
    for (int i = 0; i < 5 && i < n; i++)
        cr_expect_eq(L[i], want[i]);
    static const char *const bad[] = {"", ",", "0", "-1", "1,,2", "8..4", "x", "1e3",
                                      "99999999999999999999", "1..", "4k k"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(hb_parse_lengths(bad[i], L, 64, &n), HB_ERR_INPUT, "accepted \"%s\"", bad[i]);
    int64_t v;
    cr_expect(hb_parse_size("--mem-limit", "4G", &v) == HB_OK && v == (int64_t)4 << 30);
    cr_expect_eq(hb_parse_size("--mem-limit", "four", &v), HB_ERR_INPUT);
    cr_expect_eq(hb_parse_size("--mem-limit", "1.5e3G", &v), HB_ERR_INPUT);
    cr_expect_eq(hb_parse_int("--L", "12x", 1, 100, &v), HB_ERR_INPUT);
    cr_expect_eq(hb_parse_int("--L", "101", 1, 100, &v), HB_ERR_INPUT);
    cr_expect(hb_parse_int("--x", "-0.5k", -4096, 4096, &v) == HB_OK && v == -512);
}

// Lists of types and modes in a sweep file: every combination, each with a name of its own.
Test(point, sweep_lists)
{
    start();
    char path[] = "/tmp/hyena-sweep-XXXXXX";
    const char *text = "{\"name\": \"x\", \"groups\": [{\"id\": \"g\", \"impls\": [\"longconv_*\"],"
                       " \"L\": [64, 100], \"dtype\": [\"f32\", \"f64\"],"
                       " \"mode\": [\"warm\", \"cold\"],"
                       " \"device\": [\"cpu0\"]}]}";
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    struct sweep s = {.path = path};
    cr_assert_eq(hb_sweep_read(path, &s.file), HB_OK, "%s", hb_error());
    cr_assert_eq(hb_sweep_expand(&s, "longconv_direct", NULL, 0), HB_OK, "%s", hb_error());
    cr_expect_eq(s.n, 8, "%zu points", s.n);
    for (size_t i = 0; i < s.n; i++)
        for (size_t k = 0; k < i; k++)
            cr_expect_str_neq(s.items[i].name, s.items[k].name);
    hb_sweep_free(&s.file);
    free(s.items);
    unlink(path);
}
