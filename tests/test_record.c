// test_record.c: results: written point by point, never half, found again; read strictly.
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../bench/derive.h"
#include "../bench/measure.h"
#include "../bench/outcome.h"
#include "../bench/record.h"
#include "tests.h"

static char folder[4096];

// A build folder of its own in /tmp, so that these runs are not mixed with real ones.
static void start_in_tmp(void)
{
    snprintf(folder, sizeof folder, "/tmp/hb-record-XXXXXX");
    cr_assert(mkdtemp(folder));
    cr_assert_eq(setenv("HYENA_BENCH_BUILD", folder, 1), 0);
    hb_error_clear();
    cr_assert_eq(hb_host_init(2, 0), HB_OK, "%s", hb_error());
}

static void done(void)
{
    char cmd[4200];
    snprintf(cmd, sizeof cmd, "rm -rf '%.4000s'", folder);
    cr_assert_eq(system(cmd), 0);
}

static const char *name_of(int L)
{
    static char name[256];
    snprintf(name, sizeof name, "longconv_x/dev:cpu0/dt:f32/B:1/D:4/L:%d/pass:fwd/plan:estimate/"
                                "T:2/mode:warm/scope:core/manual_time", L);
    return name;
}

static json_t *row(int L, double ns)
{
    return json_pack("{s:[{s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:f,s:f,s:s,s:f,s:[ff],s:s}],s:[],s:[]}",
                     "benchmarks", "name", name_of(L), "run_name", name_of(L),
                     "hb_impl", "longconv_x", "run_type", "iteration", "repetitions", 1,
                     "repetition_index", 0, "iterations", 1, "real_time", ns, "cpu_time", ns,
                     "time_unit", "ns", "hb_median_ns", ns, "hb_ci95_ns", ns * 0.9, ns * 1.1,
                     "hb_status", "ok", "hb_skips", "hb_pairs");
}

static void add(struct hb_run *r, int L, double ns)
{
    json_t *doc = row(L, ns);
    cr_assert(doc);
    cr_assert_eq(hb_run_add(r, name_of(L), doc), HB_OK, "%s", hb_error());
    json_decref(doc);
}

Test(record, interrupted_and_resumed)
{
    start_in_tmp();
    json_t *plan = json_pack("{s:s}", "config_sha256", "abc");
    struct hb_run *r;
    cr_assert_eq(hb_run_open(NULL, true, plan, &r), HB_OK, "%s", hb_error());
    add(r, 64, 100.5);
    add(r, 128, 200.5);
    char id[256];
    snprintf(id, sizeof id, "%s", hb_run_id(r));
    hb_run_close(r);                              // as if killed: never assembled

    json_t *other = json_pack("{s:s}", "config_sha256", "other");
    cr_assert_eq(hb_run_open(NULL, true, other, &r), HB_OK, "%s", hb_error());
    cr_expect(!hb_run_has(r, name_of(64)), "a run of another configuration is not resumed");
    hb_run_close(r);

    cr_assert_eq(hb_run_open(NULL, true, plan, &r), HB_OK, "%s", hb_error());
    cr_expect_str_eq(hb_run_id(r), id);
    cr_expect(hb_run_has(r, name_of(64)) && hb_run_has(r, name_of(128))
              && !hb_run_has(r, name_of(256)));
    add(r, 256, 400.5);
    char path[4096];
    cr_assert_eq(hb_run_assemble(r, path), HB_OK, "%s", hb_error());
    hb_run_close(r);

    const char *paths[] = {path, NULL};
    struct hb_results res;
    cr_assert_eq(hb_results_load(paths, &res), HB_OK, "%s", hb_error());
    cr_expect_eq(res.n, 3);
    double sum = 0;
    for (size_t i = 0; i < res.n; i++)
        sum += res.cells[i].median_ns;
    cr_expect_float_eq(sum, 701.5, 1e-9);
    hb_results_free(&res);
    json_decref(plan), json_decref(other);
    done();
}

Test(record, later_files_replace_earlier_ones)
{
    start_in_tmp();
    json_t *plan = json_object();
    char path[2][4096];
    for (int k = 0; k < 2; k++) {
        struct hb_run *r;
        cr_assert_eq(hb_run_open(k ? "20260102T000000Z-bbbbbbbb" : "20260101T000000Z-aaaaaaaa",
                                 false, plan, &r),
                     HB_OK, "%s", hb_error());
        add(r, 64, k ? 7 : 5);
        if (!k)
            add(r, 128, 9);
        cr_assert_eq(hb_run_assemble(r, path[k]), HB_OK, "%s", hb_error());
        hb_run_close(r);
    }
    char *slash = strrchr(path[0], '/');
    *slash = 0;
    const char *paths[] = {path[0], NULL};        // the folder
    struct hb_results res;
    cr_assert_eq(hb_results_load(paths, &res), HB_OK, "%s", hb_error());
    cr_assert_eq(res.n, 2, "%zu cells", res.n);
    for (size_t i = 0; i < 2; i++)
        cr_expect(res.cells[i].median_ns == (res.cells[i].pt.p.L == 64 ? 7 : 9), "%s: %g",
                  res.cells[i].name, res.cells[i].median_ns);
    hb_results_free(&res);
    json_decref(plan);
    done();
}

Test(record, strict_reading)
{
    start_in_tmp();
    static const char *const bad[] = {"", "{", "[1", "{\"a\":1,\"a\":2}", "{\"a\":NaN}",
                                      "{\"a\":1e999}", "{} x", "{\"a\":\"\xff\"}"};
    char path[4200];
    snprintf(path, sizeof path, "%s/t.json", folder);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(hb_write_file(path, bad[i], strlen(bad[i])), HB_OK);
        hb_error_clear();
        json_t *j = hb_json_load(path);
        cr_expect(!j, "accepted: %s", bad[i]);
        cr_expect(strstr(hb_error(), "t.json:"), "no file and line in: %s", hb_error());
    }
    done();
}

// What was interrupted is read, and takes the place of nothing that was finished.
Test(record, an_interrupted_run_replaces_nothing)
{
    start_in_tmp();
    static const char entry[] = "{\"name\": \"lm:H/x\", \"real_time\": 5, \"hb_median_ns\": 5}",
                      cut[] = "{\"name\": \"lm:H/x\", \"status\": \"interrupted\"},"
                              "{\"name\": \"lm:A/x\", \"status\": \"interrupted\"}";
    char path[2][4200], text[1000];
    for (int k = 0; k < 2; k++) {
        snprintf(path[k], sizeof path[k], "%s/%d.json", folder, k);
        int n = snprintf(text, sizeof text, "{\"context\": {\"host_name\": \"here\"}, "
                         "\"benchmarks\": [%s], \"hb_skips\": [%s]}", k ? "" : entry,
                         k ? cut : "");
        cr_assert_eq(hb_write_file(path[k], text, (size_t)n), HB_OK);
    }
    struct hb_results r;
    cr_assert_eq(hb_results_load((const char *const[]){path[0], path[1], NULL}, &r), HB_OK, "%s",
                 hb_error());
    cr_assert_eq(r.n, 2);
    cr_expect_str_eq(r.cells[0].status, "ok");
    cr_expect_str_eq(r.cells[1].status, "interrupted");
    hb_results_free(&r);
    done();
}

// A full disk (or any failed write) leaves the old file as it was and no temporary behind.
Test(record, failed_write_leaves_nothing)
{
    start_in_tmp();
    char path[4200], pattern[4300];
    snprintf(path, sizeof path, "%s/nowhere/t.json", folder);
    hb_error_clear();
    cr_expect_eq(hb_write_file(path, "x", 1), HB_ERR_RUN);
    cr_expect(strstr(hb_error(), "nowhere"), "%s", hb_error());
    snprintf(path, sizeof path, "%s/t.json", folder);
    cr_assert_eq(hb_write_file(path, "old", 3), HB_OK);
    snprintf(pattern, sizeof pattern, "%s/*", folder);
    glob_t g;
    cr_assert_eq(glob(pattern, GLOB_PERIOD, NULL, &g), 0);
    int files = 0;
    for (size_t i = 0; i < g.gl_pathc; i++)
        files += strstr(g.gl_pathv[i], "t.json") != NULL;
    cr_expect_eq(files, 1, "temporaries were left");
    globfree(&g);
    done();
}

// A link stays a link: the file behind it is the one that is replaced.
Test(record, a_link_stays_a_link)
{
    start_in_tmp();
    char file[4200], name[4200];
    struct stat st;
    snprintf(file, sizeof file, "%s/file.json", folder);
    snprintf(name, sizeof name, "%s/link.json", folder);
    cr_assert_eq(hb_write_file(file, "old", 3), HB_OK);
    cr_assert_eq(symlink("file.json", name), 0);
    cr_assert_eq(hb_write_file(name, "newer", 5), HB_OK, "%s", hb_error());
    cr_expect(lstat(name, &st) == 0 && S_ISLNK(st.st_mode), "the link is gone");
    cr_expect(lstat(file, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 5, "not written");
    done();
}

// Each word is found in its own set, and what is in no file is not read from one.
Test(record, words_for_how_it_ended)
{
    static const int sizes[] = {[HB_ENDS_POINT] = 6, [HB_ENDS_RECORD] = 8, [HB_ENDS_PROCESS] = 8};
    for (int set = 0; set < 3; set++) {
        const char *w;
        int n = 0;
        for (; (w = hb_outcome_at((enum hb_ends)set, n)); n++)
            cr_expect(hb_outcome((enum hb_ends)set, w) == w, "%s", w);
        cr_expect_eq(n, sizes[set], "set %d has %d words", set, n);
        cr_expect_null(hb_outcome((enum hb_ends)set, "fine"));
        cr_expect_null(hb_outcome((enum hb_ends)set, NULL));
    }
    cr_expect_null(hb_outcome(HB_ENDS_POINT, "dropped"));
    cr_expect_null(hb_outcome(HB_ENDS_RECORD, "missing"));
    cr_expect_null(hb_outcome(HB_ENDS_PROCESS, "dropped"));
}

// 25 samples of a point in ten entries. each: with every hb_* field in each, as schema 1.0 has it.
static json_t *ten_entries(const struct hb_point *pt, bool each)
{
    static double ns[25], cpu[25];
    for (int i = 0; i < 25; i++)
        ns[i] = 1000 + 3.25 * i, cpu[i] = 2 * ns[i];
    static const struct hb_check_result check = {.ok = true, .worst_rel_l2 = 1e-7, .tol = 1e-6};
    struct hb_samples s = {.n = 25, .ns = ns, .cpu_ns = cpu, .iterations = 4, .stop = "ci",
                           .steady = "steady", .s = hb_summarise(ns, 25, 1)};
    struct hb_taken t = {.pt = pt, .impl = hb_registry_find(pt->impl), .s = &s, .check = &check,
                         .plan_text = "M 128", .plan_ns = 77, .timer = "host",
                         .alloc_peak_bytes = 4096, .rss_peak_bytes = 1 << 20};
    json_t *all = hb_doc_entries(&t), *e;
    size_t i;
    cr_assert(all, "%s", hb_error());
    json_array_foreach(all, i, e)
        if (each) json_object_update_missing(e, json_array_get(all, 0));
    return all;
}

static struct hb_results entries_read_back(const struct hb_point *pt, bool each, size_t *bytes)
{
    char path[4200];
    struct stat st;
    struct hb_results r;
    snprintf(path, sizeof path, "%s/%s.json", folder, each ? "old" : "new");
    json_t *doc = json_pack("{s:{s:s},s:o,s:[],s:[]}", "context", "host_name", "here",
                            "benchmarks", ten_entries(pt, each), "hb_skips", "hb_pairs");
    cr_assert(doc);
    cr_assert_eq(hb_json_save(path, doc), HB_OK, "%s", hb_error());
    json_decref(doc);
    cr_assert_eq(stat(path, &st), 0);
    *bytes = (size_t)st.st_size;
    cr_assert_eq(hb_results_load((const char *const[]){path, NULL}, &r), HB_OK, "%s", hb_error());
    return r;
}

// What is of the whole point stands once, and no number is lost; older files, which repeat it in
// each entry, read the same.
Test(record, said_once)
{
    start_in_tmp();
    cr_assert_eq(hb_registry_load(), HB_OK, "%s", hb_error());
    struct hb_point pt = point("longconv_direct", 1, 4, 0, 64);
    static const char *const of_compare[] = {"name", "run_name", "run_type", "repetitions",
                                             "repetition_index", "threads", "iterations",
                                             "real_time", "cpu_time", "time_unit"};
    json_t *all = ten_entries(&pt, false), *e;
    size_t i;
    cr_assert_eq(json_array_size(all), 10);
    json_array_foreach(all, i, e) {
        for (size_t k = 0; k < sizeof of_compare / sizeof *of_compare; k++)
            cr_expect(json_object_get(e, of_compare[k]), "entry %zu: no %s", i, of_compare[k]);
        cr_expect(json_object_get(e, "hb_samples_ns"));
        cr_expect_eq(json_object_get(e, "hb_median_ns") != NULL, i == 0);
    }
    json_decref(all);
    size_t small, large;
    struct hb_results r[2] = {entries_read_back(&pt, false, &small),
                              entries_read_back(&pt, true, &large)};
    double ns[2][32];
    for (int k = 0; k < 2; k++) {
        cr_assert_eq(r[k].n, 1, "%zu cells", r[k].n);
        cr_expect(r[k].cells[0].has_pt && r[k].cells[0].median_ns == 1039);
        cr_assert_eq(hb_cell_samples(&r[k].cells[0], ns[k], 32), 25);
        for (int s = 0; s < 25; s++)
            cr_expect_eq(ns[k][s], 1000 + 3.25 * s);
    }
    cr_expect_eq(r[0].cells[0].ci95.lo, r[1].cells[0].ci95.lo);
    cr_expect_eq(r[0].cells[0].err_rel_l2, r[1].cells[0].err_rel_l2);
    cr_expect_eq(r[0].cells[0].rss_peak_bytes, r[1].cells[0].rss_peak_bytes);
    cr_expect(small * 2 < large, "%zu bytes, %zu of schema 1.0", small, large);
    hb_results_free(&r[0]), hb_results_free(&r[1]);
    done();
}
