// roofline_device.c: what a device can do at most, measured through its table (contract:
// roofline.h).
//
// Method    each kernel RUNS times between two marks behind a hold, ROUNDS rounds, the best: what
//           was reached once can be reached. Matrices hold small numbers: all zeros would be
//           computed faster than anything real, at less power.
// Kernels   gemm of N x N matrices in each type that the device has; copies of 1 GiB, and of
//           L2 / 8 (source and target fit together).
// Cost      about 1 s and 2.2 GiB of the device.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nvml.h"
#include "record.h"
#include "roofline.h"
#include "../impls/core/halves.h"

enum { N = 8192, ROUNDS = 8, RUNS = 4, RUNS_L2 = 64 };
static const size_t COPY_BYTES = (size_t)1 << 30;
static const double HOLD_S = 300e-6;

struct job {
    const struct hb_device *d;
    void *a, *b;                         // owned, COPY_BYTES each
    enum hb_dtype t;
    size_t bytes;
};

static void run_gemm(const struct job *j)
{
    size_t matrix = (size_t)N * N * hb_dtype_size(j->t);
    struct hb_gemm g = { .m = N, .n = N, .k = N, .alpha = 1, .A = j->a, .lda = N,
                         .B = (const char *)j->a + matrix, .ldb = N, .D = j->b, .ldd = N,
                         .batch = 1 };
    j->d->gemm(&g, (struct hb_on){ j->t, j->d->stream });
}

static void run_copy(const struct job *j) { j->d->copy(j->b, j->a, j->bytes, j->d->stream); }

// Seconds of one run, the best of all rounds; < 0: HB_ERR_* with the message set.
static double best_of(const struct job *j, void (*run)(const struct job *), int runs)
{
    const struct hb_device *d = j->d;
    double best = INFINITY;
    run(j);
    int rc = d->sync(d, d->stream);
    for (int round = 0; round < ROUNDS && !rc; round++) {
        double s = 0;
        d->hold(d, HOLD_S, d->stream);
        rc = d->mark(d, 0, d->stream);
        for (int i = 0; i < runs && !rc; i++) run(j);
        if (!rc) rc = d->mark(d, 1, d->stream);
        if (!rc) rc = d->between(d, 0, 1, &s);
        if (!rc && s > 0) best = fmin(best, s / runs);
    }
    return rc ? rc : best;
}

// Two matrices of small numbers in type t at the beginning of a.
static int fill(const struct job *j)
{
    enum { ROW = 1 << 16 };
    float x[1021];
    size_t size = hb_dtype_size(j->t), bytes = 2 * (size_t)N * N * size;
    char *row = malloc(ROW * size), *to = j->a;
    int rc = row ? 0 : hb_fail(HB_ERR_OOM, "roofline: no memory");
    for (int i = 0; i < 1021; i++) x[i] = (float)((i * 389) % 1021 - 510) * 0x1p-9f;
    for (int i = 0; i < ROW && !rc; i++)
        hb_from_f32(j->t, row + (size_t)i * size, &x[i % 1021], 1);
    for (size_t at = 0; at < bytes && !rc; at += ROW * size)
        rc = j->d->upload(j->d, to + at, row, ROW * size, j->d->stream);
    free(row);
    return rc;
}

static int measure_all(struct job *j, struct hb_device_peaks *p)
{
    for (int t = 0; t < HB_DTYPE_COUNT; t++) {
        if (!(j->d->dtypes >> t & 1) || t == HB_F64) continue;
        j->t = (enum hb_dtype)t;
        int rc = fill(j);
        double s = rc ? rc : best_of(j, run_gemm, RUNS);
        if (s < 0) return (int)s;
        p->gemm[t] = 2.0 * N * N * N / s;
    }
    j->bytes = COPY_BYTES;
    double s = best_of(j, run_copy, RUNS);
    if (s < 0) return (int)s;
    p->copy = 2.0 * (double)j->bytes / s;
    p->l2_bytes = (double)hb_gpu_l2_bytes();
    j->bytes = (size_t)(p->l2_bytes / 8) / 4096 * 4096;
    if (!j->bytes) return 0;
    if ((s = best_of(j, run_copy, RUNS_L2)) < 0) return (int)s;
    p->l2_copy = fmax(2.0 * (double)j->bytes / s, p->copy);
    return 0;
}

// --- the file ------------------------------------------------------------------------------------

static const char *path_of(const char *device, char *buf, size_t cap)
{
    snprintf(buf, cap, "%s/roofline-%.15s.json", hb_machine_dir(), device);
    return buf;
}

static json_t *peaks_json(const struct hb_device_peaks *p)
{
    char key[32];
    json_t *o = json_pack("{s:s,s:f,s:f,s:f}", "name", hb_gpu_name(), "copy_bytes_s", p->copy,
                          "l2_copy_bytes_s", p->l2_copy, "l2_bytes", p->l2_bytes);
    for (int t = 0; o && t < HB_DTYPE_COUNT; t++) {
        if (!(p->gemm[t] > 0)) continue;
        snprintf(key, sizeof key, "gemm_%s_flop_s", hb_dtype_str((enum hb_dtype)t));
        json_object_set_new(o, key, json_real(p->gemm[t]));
    }
    return o;
}

bool hb_device_peaks_read(const json_t *devices, const char *device, struct hb_device_peaks *out)
{
    char key[32];
    const json_t *o = json_object_get(devices, device);
    *out = (struct hb_device_peaks){
        .copy = json_number_value(json_object_get(o, "copy_bytes_s")),
        .l2_copy = json_number_value(json_object_get(o, "l2_copy_bytes_s")),
        .l2_bytes = json_number_value(json_object_get(o, "l2_bytes")),
    };
    for (int t = 0; t < HB_DTYPE_COUNT; t++) {
        snprintf(key, sizeof key, "gemm_%s_flop_s", hb_dtype_str((enum hb_dtype)t));
        out->gemm[t] = json_number_value(json_object_get(o, key));
    }
    return out->copy > 0;
}

json_t *hb_device_peaks_json(void)
{
    static const char *const devices[] = { "cuda0" };
    json_t *all = NULL;
    char path[4500];
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        if (access(path_of(devices[i], path, sizeof path), F_OK) != 0) continue;
        json_t *o = hb_json_load(path);
        if (!o) { hb_error_clear(); continue; }
        if (!all) all = json_object();
        json_object_set_new(all, devices[i], o);
    }
    return all;
}

double hb_device_roof_ns(const struct hb_point *pt)
{
    static json_t *devices;              // kept until exit
    static bool loaded;
    struct hb_device_peaks p;
    if (!loaded) devices = hb_device_peaks_json();
    loaded = true;
    enum hb_dtype t = pt->p.dtype;
    if (!hb_device_peaks_read(devices, pt->device, &p) || !(p.gemm[t] > 0)) return 0;
    struct hb_work w = hb_point_work(pt);
    bool in_l2 = pt->mode == HB_MODE_WARM && w.bytes_min <= p.l2_bytes && p.l2_copy > 0;
    return 1e9 * fmax(w.flop_min / p.gemm[t], w.bytes_min / (in_l2 ? p.l2_copy : p.copy));
}

static void print_peaks(const char *device, const struct hb_device_peaks *p)
{
    printf("%s %s\n", device, hb_gpu_name());
    for (int t = 0; t < HB_DTYPE_COUNT; t++)
        if (p->gemm[t] > 0)
            printf("  product of %d x %d matrices, %-4s %12.1f TFLOP/s\n", N, N,
                   hb_dtype_str((enum hb_dtype)t), p->gemm[t] * 1e-12);
    printf("  copy, read + written               %12.1f GB/s\n", p->copy * 1e-9);
    if (p->l2_copy > 0)
        printf("  copy inside L2 (%.0f MB)            %12.1f GB/s\n", p->l2_bytes * 1e-6,
               p->l2_copy * 1e-9);
}

int hb_device_peaks_measure(const char *device, bool force)
{
    char path[4500];
    struct hb_device_peaks p = { .copy = 0 };
    json_t *there = force ? NULL : hb_device_peaks_json();
    bool have = there && hb_device_peaks_read(there, device, &p);
    json_decref(there);
    if (have) {
        print_peaks(device, &p);
        return 0;
    }
    int rc = hb_use_device(device);
    if (rc) return rc;
    struct job j = { .d = hb_host()->device };
    if (!j.d->mark) return hb_fail(HB_ERR_INPUT, "roofline: %s has no clock of its own", device);
    j.a = j.d->alloc(j.d, COPY_BYTES);
    j.b = j.a ? j.d->alloc(j.d, COPY_BYTES) : NULL;
    rc = j.b ? measure_all(&j, &p) : hb_error_code() ? hb_error_code() : HB_ERR_OOM;
    if (j.a) j.d->free(j.d, j.a);
    if (j.b) j.d->free(j.d, j.b);
    if (rc) return rc;
    json_t *o = peaks_json(&p);
    rc = o ? hb_mkdirs(hb_machine_dir()) : hb_fail(HB_ERR_OOM, "roofline: no memory");
    if (!rc) rc = hb_json_save(path_of(device, path, sizeof path), o);
    json_decref(o);
    if (!rc) print_peaks(device, &p);
    return rc;
}
