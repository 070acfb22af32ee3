// roofline.c: the command `roofline`: what this machine can do at most, measured.
//
// Method    short runs of every kernel (0.5 to 10 ms; SGEMM to 160), all of them in turn, ROUNDS
//           rounds, the best of each: what was reached once can be reached, and a bound from less
//           would be none. With 1 thread and with all. While the median FMA run is far below the
//           best (other work on the machine) up to MAX_ROUNDS rounds are made; if it still is then,
//           the file says `disturbed` and the next call measures again.
// Kernels   FMA chains in registers (roofpeak.c); SGEMM of OpenBLAS; sums over a part of a buffer
//           that fits half into L2 or L3, and over one of four times all last-level caches; a copy
//           of that size.
// Cost      about 3 s on a quiet machine with 2 threads, at most 20 s on a busy one.
#include <cblas.h>
#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "cli.h"
#include "commands.h"
#include "env.h"
#include "record.h"
#include "roofline.h"
#include "roofpeak.h"

enum { ROUNDS = 9, MAX_ROUNDS = 36, GEMM_MAX = 2048 };
#define BUSY_S 9.0                       // no further rounds after this long, per thread count

struct bench {
    char *src, *dst;                 // owned: big_bytes each
    size_t big_bytes, l2_bytes, l3_bytes;
    int threads;                     // of this call
};
struct kernel {
    size_t offset;                   // of the field in struct hb_peaks
    const char *field, *label;       // in the file; for people
    double (*rate)(const struct bench *b);       // flop/s or bytes/s; 0: not on this machine
    bool bytes;
    int runs;                        // in one round
};

static double since_s(int64_t start) { return fmax((double)(hb_now_ns() - start), 1) * 1e-9; }

// --- the kernels ---------------------------------------------------------------------------------

static double fma_rate(const struct bench *b, hb_fma_fn fn)
{
    const int64_t steps = 1 << 18;                       // 0.5 ms at 100 GFLOP/s
    double flop = 0;
    int64_t start = hb_now_ns();
#pragma omp parallel num_threads(b->threads) reduction(+ : flop)
    flop += fn(steps);
    return flop / since_s(start);
}

static double fma_f32(const struct bench *b) { return fma_rate(b, hb_fma_f32); }
static double fma_f64(const struct bench *b) { return fma_rate(b, hb_fma_f64); }
static double fma_wide(const struct bench *b)
{
    return hb_fma_f32_wide && hb_cpu_has("avx512f") ? fma_rate(b, hb_fma_f32_wide) : 0;
}

static double sgemm(const struct bench *b)
{
    static const int sizes[] = { 1024, 1536, GEMM_MAX };
    double best = 0;
    float *A = (float *)(void *)b->src, *C = (float *)(void *)b->dst, *B = A + GEMM_MAX * GEMM_MAX;
    omp_set_num_threads(b->threads);
    openblas_set_num_threads(b->threads);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int n = sizes[i];
        int64_t start = hb_now_ns();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1, A, n, B, n, 0, C, n);
        best = fmax(best, 2.0 * n * n * n / since_s(start));
    }
    return best;
}

// Every thread sums its own `each` bytes, again and again until `total` bytes went by.
static double read_rate(const struct bench *b, size_t each, double total)
{
    each = each / 4096 * 4096;
    if (each == 0 || each * (size_t)b->threads > b->big_bytes) return 0;
    int passes = (int)fmax(1, total / (double)each / b->threads);
    double sum = 0;
    int64_t start = 0;
#pragma omp parallel num_threads(b->threads) reduction(+ : sum)
    {
        const char *own = b->src + each * (size_t)omp_get_thread_num();
        sum += hb_read_sum(own, each);                   // into the cache
#pragma omp barrier
#pragma omp master
        start = hb_now_ns();
#pragma omp barrier
        for (int i = 0; i < passes; i++) sum += hb_read_sum(own, each);
    }
    double s = since_s(start);
    return isfinite(sum) ? (double)each * passes * b->threads / s : 0;
}

static double l2_read(const struct bench *b) { return read_rate(b, b->l2_bytes / 2, 256e6); }
static double l3_read(const struct bench *b)
{
    return read_rate(b, b->l3_bytes / 2 / (size_t)b->threads, 256e6);
}
static double dram_read(const struct bench *b)
{
    return read_rate(b, b->big_bytes / (size_t)b->threads, 1);
}

static double dram_copy(const struct bench *b)
{
    size_t each = b->big_bytes / (size_t)b->threads / 4096 * 4096;
    int64_t start = hb_now_ns();
#pragma omp parallel num_threads(b->threads)
    {
        size_t at = each * (size_t)omp_get_thread_num();
        memcpy(b->dst + at, b->src + at, each);
    }
    return 2.0 * (double)each * b->threads / since_s(start);
}

#define FIELD(f) offsetof(struct hb_peaks, f)
static const struct kernel kernels[] = {
    { FIELD(fma_f32), "fma_f32_flop_s", "FMA f32, as built", fma_f32, false, 8 },
    { FIELD(fma_f64), "fma_f64_flop_s", "FMA f64, as built", fma_f64, false, 8 },
    { FIELD(fma_f32_wide), "fma_f32_wide_flop_s", "FMA f32, AVX-512 (not in this build)", fma_wide,
      false, 8 },
    { FIELD(sgemm), "sgemm_flop_s", "SGEMM (OpenBLAS), 1024 to 2048", sgemm, false, 1 },
    { FIELD(l2_read), "l2_read_bytes_s", "read, L2", l2_read, true, 4 },
    { FIELD(l3_read), "l3_read_bytes_s", "read, L3", l3_read, true, 2 },
    { FIELD(dram_read), "dram_read_bytes_s", "read, memory", dram_read, true, 2 },
    { FIELD(dram_copy), "dram_copy_bytes_s", "copy, memory (read + written)", dram_copy, true, 1 },
};
enum { N_KERNELS = sizeof kernels / sizeof *kernels };

static double *field_of(struct hb_peaks *p, const struct kernel *k)
{
    return (double *)(void *)((char *)p + k->offset);
}

// --- measuring -----------------------------------------------------------------------------------

static int bench_open(struct bench *b)
{
    b->l2_bytes = hb_cache_bytes(2);
    b->l3_bytes = hb_cache_bytes(3);
    b->big_bytes = 4 * hb_llc_total_bytes();
    size_t least = (size_t)2 * GEMM_MAX * GEMM_MAX * sizeof(float),
           most = hb_default_mem_limit() / 4;
    if (b->big_bytes > most) b->big_bytes = most / 4096 * 4096;
    if (b->big_bytes < least) b->big_bytes = least;
    b->src = aligned_alloc(4096, b->big_bytes);
    b->dst = aligned_alloc(4096, b->big_bytes);
    if (!b->src || !b->dst)
        return hb_fail(HB_ERR_OOM, "roofline: no memory for two times %zu bytes", b->big_bytes);
    float *a = (float *)(void *)b->src, *c = (float *)(void *)b->dst;
    // Every thread touches its part first, so that it lies in the memory next to that thread.
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < b->big_bytes / sizeof *a; i++) {
        a[i] = (float)(i % 1021) * 0x1p-10f;
        c[i] = 0;
    }
    return 0;
}

// Is the median far from the best? Of kernels that use no shared resource but the CPUs.
static bool is_disturbed(const double *rates, int n)
{
    double best = 0;
    for (int i = 0; i < n; i++) best = fmax(best, rates[i]);
    return hb_median(rates, (size_t)n) < 0.85 * best;
}

static int measure(struct bench *b, int threads, struct hb_peaks *out, bool *disturbed)
{
    double fma[MAX_ROUNDS];
    int64_t start = hb_now_ns();
    b->threads = threads;
    *out = (struct hb_peaks){ 0 };
    for (int round = 0;
         round < ROUNDS || (*disturbed && round < MAX_ROUNDS && since_s(start) < BUSY_S); round++) {
        for (int k = 0; k < N_KERNELS; k++) {
            double rate = 0, *best = field_of(out, &kernels[k]);
            for (int i = 0; i < kernels[k].runs; i++) rate = fmax(rate, kernels[k].rate(b));
            if (k == 0) fma[round] = rate;
            *best = fmax(*best, rate);
        }
        *disturbed = is_disturbed(fma, round + 1);
        hb_progress(threads == 1 ? "roofline, 1 thread" : "roofline, all threads",
                    (size_t)round + 1, round < ROUNDS ? ROUNDS : MAX_ROUNDS, -1);
        if (hb_interrupted()) return hb_fail(HB_ERR_RUN, "interrupted, nothing was saved");
    }
    return 0;
}

// What one thread reaches, all reach too. Returns whether that had to be set right by much: other
// work was in the way.
static bool raise_to_one(struct hb_roofline *r)
{
    bool much = false;
    for (int k = 0; k < N_KERNELS; k++) {
        double *one = field_of(&r->one, &kernels[k]), *all = field_of(&r->all, &kernels[k]);
        much |= *all < 0.9 * *one;
        *all = fmax(*all, *one);
    }
    return much;
}

static int measure_all(int threads, struct hb_roofline *out)
{
    struct bench b = { 0 };
    bool one = false, all = false;
    *out = (struct hb_roofline){ .threads = threads };
    int rc = bench_open(&b);
    if (rc == 0) rc = measure(&b, 1, &out->one, &one);
    if (rc == 0) rc = measure(&b, threads, &out->all, &all);
    out->disturbed = one || all || (rc == 0 && raise_to_one(out));
    hb_progress_end();
    free(b.src);
    free(b.dst);
    return rc;
}

// --- the file ------------------------------------------------------------------------------------

static const char *file_path(char *buf, size_t cap)
{
    snprintf(buf, cap, "%s/roofline.json", hb_machine_dir());
    return buf;
}

static json_t *peaks_json(struct hb_peaks *p)
{
    json_t *o = json_object();
    for (int k = 0; o && k < N_KERNELS; k++)
        if (*field_of(p, &kernels[k]) > 0)
            json_object_set_new(o, kernels[k].field, json_real(*field_of(p, &kernels[k])));
    return o;
}

static int save(struct hb_roofline *r)
{
    char path[4500], date[64] = "";
    time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm)) strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_t *software = hb_env_software();
    json_t *o = json_pack("{s:s, s:s, s:s, s:O?, s:i, s:b, s:o, s:o}", "hb_schema", "1.0",
                          "machine_id", hb_machine_id(), "date", date, "cflags",
                          json_object_get(software, "cflags"), "threads", r->threads, "disturbed",
                          r->disturbed, "one", peaks_json(&r->one), "all", peaks_json(&r->all));
    json_decref(software);
    int rc = o ? hb_mkdirs(hb_machine_dir()) : hb_fail(HB_ERR_OOM, "roofline: no memory");
    if (rc == 0) rc = hb_json_save(file_path(path, sizeof path), o);
    json_decref(o);
    return rc;
}

static int read_peaks(const json_t *o, const char *path, struct hb_peaks *out)
{
    *out = (struct hb_peaks){ 0 };
    for (int k = 0; k < N_KERNELS; k++) {
        const json_t *v = json_object_get(o, kernels[k].field);
        double x = json_number_value(v);
        if (v && !(x > 0 && isfinite(x)))
            return hb_fail(HB_ERR_INPUT, "%s: %s: a number > 0 expected", path, kernels[k].field);
        *field_of(out, &kernels[k]) = x;
    }
    if (out->fma_f32 > 0 && out->dram_read > 0) return 0;
    return hb_fail(HB_ERR_INPUT,
                   "%s: fma_f32_flop_s and dram_read_bytes_s expected in 'one' and 'all'", path);
}

int hb_roofline_parse(const json_t *o, const char *where, struct hb_roofline *out)
{
    out->threads = (int)json_integer_value(json_object_get(o, "threads"));
    out->disturbed = json_is_true(json_object_get(o, "disturbed"));
    if (out->threads <= 0)
        return hb_fail(HB_ERR_INPUT, "%s: threads: a number > 0 expected", where);
    int rc = read_peaks(json_object_get(o, "one"), where, &out->one);
    return rc ? rc : read_peaks(json_object_get(o, "all"), where, &out->all);
}

json_t *hb_roofline_json(void)
{
    char path[4500];
    if (access(file_path(path, sizeof path), F_OK) == 0) {
        json_t *o = hb_json_load(path), *devices = o ? hb_device_peaks_json() : NULL;
        if (devices) json_object_set_new(o, "devices", devices);
        return o;
    }
    hb_fail(HB_ERR_MISSING, "%s: not there, 'hyena-bench roofline' makes it", path);
    return NULL;
}

// cflags (may be NULL): of the build that measured.
static int load(struct hb_roofline *out, char *cflags, size_t cap)
{
    char path[4500];
    json_t *o = hb_roofline_json();
    if (!o) return hb_error_code();
    const char *flags = json_string_value(json_object_get(o, "cflags"));
    if (cflags) snprintf(cflags, cap, "%s", flags ? flags : "");
    int rc = hb_roofline_parse(o, file_path(path, sizeof path), out);
    json_decref(o);
    return rc;
}

int hb_roofline_load(struct hb_roofline *out) { return load(out, NULL, 0); }

// --- the bound -----------------------------------------------------------------------------------

// A rate with `threads` threads: linear from one thread's, never above the one with all.
static double between(double one, double all, int threads, int all_threads)
{
    if (threads >= all_threads) return all;
    return fmin(one * threads, fmax(one, all));
}

static double bound_ns(const struct hb_roofline *r, int threads, struct hb_work w, bool cold)
{
    const struct hb_peaks *o = &r->one, *a = &r->all;
    if (threads < 1) threads = 1;
    double flops =
        between(fmax(o->fma_f32, o->sgemm), fmax(a->fma_f32, a->sgemm), threads, r->threads);
    double bytes = between(fmax(o->dram_read, o->dram_copy), fmax(a->dram_read, a->dram_copy),
                           threads, r->threads);
    double l2 = between(o->l2_read, a->l2_read, threads, r->threads);
    double l3 = between(o->l3_read, a->l3_read, threads, r->threads);
    if (!cold && w.bytes_min <= (double)hb_cache_bytes(2) * threads) bytes = fmax(bytes, l2);
    else if (!cold && w.bytes_min <= (double)hb_llc_total_bytes()) bytes = fmax(bytes, l3);
    return 1e9 * fmax(w.flop_min / flops, w.bytes_min / bytes);
}

double hb_roof_ns(const struct hb_point *pt)
{
    if (strncmp(pt->device, "cpu", 3) && pt->device[0]) return hb_device_roof_ns(pt);
    static struct hb_roofline r;
    static enum { UNKNOWN, LOADED, ABSENT } state;
    if (state == UNKNOWN) {
        state = hb_roofline_load(&r) == 0 ? LOADED : ABSENT;
        hb_error_clear();                        // a point without a bound is a point, too
    }
    if (state == ABSENT) return 0;
    struct hb_work w = hb_point_work(pt);
    if (pt->p.dtype == HB_F64 && r.one.fma_f64 > 0) w.flop_min *= r.one.fma_f32 / r.one.fma_f64;
    return bound_ns(&r, pt->p.threads, w, pt->mode == HB_MODE_COLD);
}

// --- the command ---------------------------------------------------------------------------------

static void print_table(struct hb_roofline *r)
{
    printf("%-42s %12s %3d threads\n", "", "1 thread", r->threads);
    for (int k = 0; k < N_KERNELS; k++) {
        double one = *field_of(&r->one, &kernels[k]), all = *field_of(&r->all, &kernels[k]);
        if (one > 0) printf("%-42s %12.1f %11.1f  %s\n", kernels[k].label, one * 1e-9, all * 1e-9,
                            kernels[k].bytes ? "GB/s" : "GFLOP/s");
    }
    if (r->disturbed)
        puts("The machine was busy: peaks may be too low; the next call measures again.");
}

static int print_json(void)
{
    json_t *o = hb_roofline_json();
    if (!o) return hb_error_code();
    int bad = json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) != 0
              || putchar('\n') == EOF;
    json_decref(o);
    return bad ? hb_fail(HB_ERR_RUN, "stdout: %s", strerror(errno)) : 0;
}

// Is what was saved of this build's flags and this many threads, and was the machine quiet?
static bool saved_fits(struct hb_roofline *r, int64_t threads)
{
    char cflags[1024];
    json_t *software = hb_env_software();
    const char *now = json_string_value(json_object_get(software, "cflags"));
    bool fits = load(r, cflags, sizeof cflags) == 0 && now && strcmp(cflags, now) == 0
                && r->threads == threads && !r->disturbed;
    json_decref(software);
    hb_error_clear();
    return fits;
}

int hb_cmd_roofline(int argc, char **argv)
{
    bool json = false, force = false;
    const char *device = "cpu0";
    int64_t threads = 0;
    const struct hb_opt opts[] = {
        { "device", HB_OPT_STR, &device, "D", "cpu0; cuda0: the GPU's peaks, after the CPU's", 0,
          0 },
        { "json", HB_OPT_FLAG, &json, NULL, "print the file instead of the table", 0, 0 },
        { "force", HB_OPT_FLAG, &force, NULL, "measure again, even if this machine has been", 0,
          0 },
        { "threads", HB_OPT_INT, &threads, "N", "of the second column; default all there are", 1,
          1024 },
    };
    const struct hb_cli cli = {
        .command = "roofline",
        .args = "",
        .about = "Measures the peaks of this machine and keeps them for the bounds.",
        .example = "hyena-bench roofline\nhyena-bench roofline --force --json",
        .opts = opts,
        .n_opts = sizeof opts / sizeof *opts,
    };
    int n_pos = 0, rc = hb_cli_parse(&cli, argc, argv, NULL, &n_pos);
    if (rc == HB_CLI_HELP) return 0;
    if (rc == 0) rc = hb_host_init((int)threads, 0);
    struct hb_roofline r;
    bool cpu = strcmp(device, "cpu0") == 0;      // for a device one measurement will do
    bool there = rc == 0 && saved_fits(&r, hb_host()->threads);
    if (rc == 0 && !there && !cpu) there = hb_roofline_load(&r) == 0;
    if (rc == 0) hb_error_clear();
    if (rc == 0 && ((force && cpu) || !there)) {
        rc = measure_all(hb_host()->threads, &r);
        if (rc == 0) rc = save(&r);
    }
    if (rc == 0 && strcmp(device, "cpu0")) rc = hb_device_peaks_measure(device, force);
    if (rc == 0 && json) rc = print_json();
    else if (rc == 0) print_table(&r);
    return hb_exit_code("roofline", rc);
}
