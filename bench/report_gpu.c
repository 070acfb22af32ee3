// report_gpu.c: the GPU while it measured (clocks, throttling, libraries), its measured peaks, and
// how close to them the implementations come.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "roofline.h"

// --- while it measured ---------------------------------------------------------------------------

struct watch {
    struct hb_range mhz, mem_mhz, temp, watts;  // while samples were taken
    size_t points, seen, throttled;
    struct hb_text reasons;                     // each once; owned
    const char *cudnn, *cufft;                  // plan texts; NULL: none
};

static void add_reasons(struct watch *w, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *why = json_string_value(json_array_get(list, i));
        if (!why || !strcmp(why, "idle") || (w->reasons.s && strstr(w->reasons.s, why))) continue;
        hb_text_add(&w->reasons, "%s%s", w->reasons.n ? ", " : "", why);
    }
}

static void watch_cell(struct watch *w, const struct hb_cell *c)
{
    const json_t *gpu = json_object_get(c->entry, "hb_gpu"), *busy = json_object_get(gpu, "busy");
    const char *plan = json_string_value(json_object_get(c->entry, "hb_plan_text"));
    w->points++;
    w->throttled += json_is_true(json_object_get(c->entry, "hb_throttled"));
    if (plan && strstr(plan, "cuDNN ")) w->cudnn = strstr(plan, "cuDNN ");
    if (plan && strstr(plan, "cuFFT ")) w->cufft = strstr(plan, "cuFFT ");
    if (!busy) return;
    w->seen++;
    hb_range_add(&w->mhz, json_number_value(json_object_get(busy, "sm_mhz")));
    hb_range_add(&w->mem_mhz, json_number_value(json_object_get(busy, "mem_mhz")));
    hb_range_add(&w->temp, json_number_value(json_object_get(busy, "temp_c")));
    hb_range_add(&w->watts, json_number_value(json_object_get(busy, "power_w")));
    add_reasons(w, json_object_get(busy, "throttle"));
    add_reasons(w, json_object_get(json_object_get(gpu, "after"), "throttle"));
}

static void range_words(struct hb_text *t, const char *what, struct hb_range v, const char *unit)
{
    if (v.hi < 0) return;
    if (v.hi > v.lo) hb_text_add(t, "; %s %.0f to %.0f %s", what, v.lo, v.hi, unit);
    else hb_text_add(t, "; %s %.0f %s", what, v.lo, unit);
}

static void watch_words(struct hb_report *r, const struct watch *w)
{
    hb_text_add(&r->t, "State of the GPU while it worked, read from the driver around and between "
                       "samples at %zu of %zu points", w->seen, w->points);
    range_words(&r->t, "processor clock", w->mhz, "MHz");
    range_words(&r->t, "memory clock", w->mem_mhz, "MHz");
    range_words(&r->t, "temperature", w->temp, "°C");
    range_words(&r->t, "power", w->watts, "W");
    hb_text_add(&r->t, ". Throttled at %zu point%s%s%s.", w->throttled,
                w->throttled == 1 ? "" : "s", w->reasons.n ? "; reasons the driver gave: " : "",
                w->reasons.n ? w->reasons.s : "");
    if (w->cudnn)
        hb_text_add(&r->t, " Attention: %.*s.", (int)strcspn(w->cudnn, ";,"), w->cudnn);
    if (w->cufft)
    {
        const int v = (int)strtol(w->cufft + strlen("cuFFT "), NULL, 10);  // 12000: 12.0.0
        hb_text_add(&r->t, " Transforms: cuFFT %d.%d.%d.", v / 1000, v / 100 % 10, v % 100);
    }
    hb_text_add(&r->t,
                "\n\nTimes on the GPU are taken by its own clock (events) around a recorded graph "
                "of launches, so that neither the host's launches nor the gaps between them count; "
                "the host's threads play no part. *cold*: before each sample a buffer larger than "
                "the GPU's level-2 cache is read, so that every input comes from memory; *warm*: "
                "the cache holds what the last execution left. All memory of the implementations, "
                "workspaces of cuFFT, cuBLAS and cuDNN included, comes from the suite's allocator "
                "and is counted.\n\n");
}

// --- peaks ---------------------------------------------------------------------------------------

static bool peaks_of(const struct hb_report *r, const char *machine, const char *device,
                     struct hb_device_peaks *out)
{
    const json_t *roof = hb_results_roofline(&r->st->r, machine);
    return hb_device_peaks_read(json_object_get(roof, "devices"), device, out);
}

static void gpu_peaks(struct hb_report *r, const char *machine)
{
    static const enum hb_dtype types[] = {HB_BF16, HB_F16, HB_F32};
    struct hb_device_peaks p;
    if (!peaks_of(r, machine, "cuda0", &p)) {
        hb_text_add(&r->t, "No run carries peaks of the GPU: `hyena-bench roofline "
                           "--device cuda0` first.\n\n");
        return;
    }
    struct hb_table t = {0};
    hb_table_head(&t, "measured peak of the GPU|>value|unit");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!(p.gemm[types[i]] > 0)) continue;
        hb_table_cell(&t, "matrix product, 8192 x 8192, %s", hb_dtype_str(types[i]));
        hb_table_cell(&t, "%s", hb_str_num(p.gemm[types[i]] * 1e-12).s);
        hb_table_cell(&t, "TFLOP/s");
    }
    hb_table_cell(&t, "copy in memory, read + written");
    hb_table_cell(&t, "%s", hb_str_num(p.copy * 1e-9).s);
    hb_table_cell(&t, "GB/s");
    if (p.l2_copy > 0) {
        hb_table_cell(&t, "copy inside the level-2 cache of %s", hb_str_bytes(p.l2_bytes).s);
        hb_table_cell(&t, "%s", hb_str_num(p.l2_copy * 1e-9).s);
        hb_table_cell(&t, "GB/s");
    }
    hb_table_print(&t, &r->t);
    hb_text_add(&r->t, "\n");
}

void hb_report_gpu(struct hb_report *r, const char *machine)
{
    const struct hb_range none = {INFINITY, -INFINITY};
    struct watch w = {.mhz = none, .mem_mhz = none, .temp = none, .watts = none};
    if (!hb_report_has_gpu(r, machine)) return;
    for (size_t i = 0; i < r->st->set.n; i++) {
        const struct hb_series *s = &r->st->set.s[i];
        for (size_t k = 0; k < s->n; k++)
            if (hb_on_gpu(s->set.device) && !strcmp(s->set.machine, machine) &&
                hb_cell_ok(s->cell[k]))
                watch_cell(&w, s->cell[k]);
    }
    if (w.points) watch_words(r, &w);
    r->t.failed = r->t.failed || w.reasons.failed;
    hb_text_free(&w.reasons);
    gpu_peaks(r, machine);
}

// --- shares of the bound -------------------------------------------------------------------------

static const int64_t lengths[] = {256, 1024, 4096, 16384, 65536, 131072};
#define N_LENGTHS (sizeof lengths / sizeof *lengths)

static double share_of(const struct hb_cell *c)
{
    return hb_cell_ok(c) && c->roof_ns > 0 ? c->roof_ns / c->median_ns : NAN;
}

static bool share_row(struct hb_report *r, struct hb_table *t, const struct hb_series *s)
{
    const struct hb_cell *best = NULL;
    for (size_t k = 0; k < s->n; k++)
        if (isfinite(share_of(s->cell[k])) && (!best || share_of(s->cell[k]) > share_of(best)))
            best = s->cell[k];
    if (!best) return false;
    hb_table_cell(t, "%s", hb_series_label(&r->st->set, s).s);
    hb_table_cell(t, "%s, %s", hb_pass_str(s->set.pass), hb_dtype_str(s->set.dtype));
    for (size_t k = 0; k < N_LENGTHS; k++) {
        const double share = share_of(hb_series_at(s, lengths[k]));
        if (isfinite(share)) hb_table_cell(t, "%s", hb_str_pct(share).s);
        else hb_table_cell(t, "-");
    }
    hb_table_cell(t, "%s at L = %lld", hb_str_pct(share_of(best)).s, (long long)best->pt.p.L);
    if (best->flop > 0)
        hb_table_cell(t, "%s TFLOP/s, %s GB/s",
                      hb_str_num(best->flop / best->median_ns * 1e-3).s,
                      hb_str_num(best->bytes_min / best->median_ns).s);
    else hb_table_cell(t, "-");
    return true;
}

void hb_report_gpu_shares(struct hb_report *r, const char *machine)
{
    const struct hb_setting *main_at = hb_setting_main(&r->st->set, machine, HB_SCOPE_CORE,
                                                       HB_PASS_FWD);
    struct hb_table t = {0};
    if (!main_at || !hb_on_gpu(main_at->device)) return;
    hb_table_head(&t, "implementation|pass, type|>256|>1024|>4096|>16384|>65536|>131072|>best|at "
                      "its best");
    int rows = 0;
    for (size_t i = 0; i < r->st->set.n; i++) {
        const struct hb_series *s = &r->st->set.s[i];
        if (strcmp(s->set.machine, machine) || strcmp(s->set.device, main_at->device) ||
            s->set.scope != HB_SCOPE_CORE || s->set.mode != main_at->mode ||
            s->set.pass == HB_PASS_FWDBWD || s->set.B != main_at->B || s->set.D != main_at->D)
            continue;
        rows += share_row(r, &t, s);
    }
    hb_text_add(&r->t,
                "On the GPU: the least time that any exact method of the operator needs, by FLOP "
                "(its cheapest method: for the convolution transforms, for attention the causal "
                "half) at the speed of a large matrix product of that type, or by bytes (inputs "
                "read once, outputs written once) at the speed of a copy, over the measured time; "
                "by length, cores alone, B %lld, D %lld, %s. Short problems cannot fill the GPU. "
                "FLOP at its best are those that the method itself does.\n\n",
                (long long)main_at->B, (long long)main_at->D,
                hb_mode_str(main_at->mode));
    if (rows) hb_table_print(&t, &r->t);
    else {
        hb_text_add(&r->t, "No record of it carries a bound.\n");
        hb_table_free(&t);
    }
    hb_text_add(&r->t, "\n");
}
