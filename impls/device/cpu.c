// cpu.c: the device interface (core/device.h) on the CPU: OpenBLAS for GEMM, OpenMP loops for the
// rest. Activations are float32.
//
// Threads     host->threads, never an environment variable; short loops run on one.
// Order       every reduction has one fixed order, so the same call gives the same bits. Most
//             reductions do not even depend on the number of threads: each sum belongs to one
//             thread.
// Accuracy    long float sums are taken in blocks with a double across the blocks.
// Memory      host->alloc; a block carries its size in front so that peak_bytes is this device's
//             own.
#include <omp.h>
#include <string.h>

#include "cpu.h"

enum { SUM_BLOCK = 512,          // floats summed in float before the double takes over
       COLS = 32,                // columns one thread sums at a time: two cache lines per row
       MAX_THREADS = 1024,
       SERIAL_BELOW = 16384 };   // elements: starting a team costs about what 16 K additions cost

static struct { const struct hb_host *host; size_t now, peak; } cpu;

int cpu_all_threads(void)
{
    int n = cpu.host ? cpu.host->threads : 1;
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

int cpu_threads(int64_t n) { return n < SERIAL_BELOW ? 1 : cpu_all_threads(); }

// --- memory --------------------------------------------------------------------------------------

static void *cpu_alloc(const struct hb_device *d, size_t bytes)
{
    (void)d;
    if (bytes > SIZE_MAX - HB_ALIGN) bytes = SIZE_MAX - HB_ALIGN;  // too much, and the host says so
    char *block = cpu.host->alloc(cpu.host, bytes + HB_ALIGN);
    if (!block) return NULL;
    memcpy(block, &bytes, sizeof bytes);
    cpu.now += bytes;
    if (cpu.now > cpu.peak) cpu.peak = cpu.now;
    return block + HB_ALIGN;
}

static void cpu_free(const struct hb_device *d, void *p)
{
    (void)d;
    if (!p) return;
    char *block = (char *)p - HB_ALIGN;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    cpu.now -= bytes;
    cpu.host->free(cpu.host, block);
}

static int cpu_move(const struct hb_device *d, void *dst, const void *src, size_t bytes, void *s)
{
    (void)d; (void)s;
    memcpy(dst, src, bytes);
    return 0;
}

static void cpu_copy(void *dst, const void *src, size_t bytes, void *s)
{
    (void)s;
    memcpy(dst, src, bytes);
}
static void cpu_zero(void *dst, size_t bytes, void *s) { (void)s; memset(dst, 0, bytes); }
static void *cpu_fork(const struct hb_device *d, void *s) { (void)d; return s; }
static void cpu_join(const struct hb_device *d, void *side, void *s)
{
    (void)d; (void)side; (void)s;
}
static int cpu_sync(const struct hb_device *d, void *s) { (void)d; (void)s; return 0; }
static size_t cpu_now(const struct hb_device *d) { (void)d; return cpu.now; }
static size_t cpu_peak(const struct hb_device *d) { (void)d; return cpu.peak; }
static void cpu_reset_peak(const struct hb_device *d) { (void)d; cpu.peak = cpu.now; }

// --- sums ----------------------------------------------------------------------------------------

double cpu_sum(const float *x, int64_t n)
{
    double total = 0;
    for (int64_t i0 = 0; i0 < n; i0 += SUM_BLOCK) {
        int64_t m = n - i0 < SUM_BLOCK ? n - i0 : SUM_BLOCK;
        float part = 0;
        #pragma omp simd reduction(+ : part)
        for (int64_t i = 0; i < m; i++) part += x[i0 + i];
        total += part;
    }
    return total;
}

double cpu_dot(const float *a, const float *b, int64_t n)
{
    double total = 0;
    for (int64_t i0 = 0; i0 < n; i0 += SUM_BLOCK) {
        int64_t m = n - i0 < SUM_BLOCK ? n - i0 : SUM_BLOCK;
        float part = 0;
        #pragma omp simd reduction(+ : part)
        for (int64_t i = 0; i < m; i++) part += a[i0 + i] * b[i0 + i];
        total += part;
    }
    return total;
}

// Sum or sum of squares of a whole tensor: one contiguous share per thread, the shares added in
// thread order.
static double reduce(const float *x, int64_t n, bool squares)
{
    double part[MAX_THREADS];
    int T = cpu_threads(n);
    int64_t share = (n + T - 1) / T;
    #pragma omp parallel for num_threads(T) schedule(static, 1)
    for (int i = 0; i < T; i++) {
        int64_t lo = i * share < n ? i * share : n, m = lo + share < n ? share : n - lo;
        part[i] = squares ? cpu_dot(x + lo, x + lo, m) : cpu_sum(x + lo, m);
    }
    double total = 0;
    for (int i = 0; i < T; i++) total += part[i];
    return total;
}

static int cpu_sumsq(const struct hb_device *d, double *out, const float *x, int64_t n, void *s)
{
    (void)d; (void)s;
    *out = reduce(x, n, true);
    return 0;
}

static int cpu_total(const struct hb_device *d, double *out, const float *x, int64_t n, void *s)
{
    (void)d; (void)s;
    *out = reduce(x, n, false);
    return 0;
}

// --- bias gradient, gates, sums of tensors -------------------------------------------------------

static void cpu_bias_bwd(float *db, const void *vdy, int64_t R, int64_t C, struct hb_on on)
{
    const float *dy = cpu_act_const(vdy, on);
    #pragma omp parallel for num_threads(cpu_threads(R * C))
    for (int64_t c0 = 0; c0 < C; c0 += COLS) {
        int64_t n = C - c0 < COLS ? C - c0 : COLS;
        double sum[COLS] = {0};
        for (int64_t r = 0; r < R; r++)
            for (int64_t c = 0; c < n; c++) sum[c] += (double)dy[r * C + c0 + c];
        for (int64_t c = 0; c < n; c++) db[c0 + c] += (float)sum[c];
    }
}

static void cpu_add(void *vy, const void *vx, int64_t n, struct hb_on on)
{
    float *y = cpu_act(vy, on);
    const float *x = vx;
    #pragma omp parallel for simd num_threads(cpu_threads(n))
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

// --- the table -----------------------------------------------------------------------------------

static const struct hb_device table = {
    .name = "cpu", .dtypes = 1u << HB_F32,
    .alloc = cpu_alloc, .free = cpu_free, .upload = cpu_move, .download = cpu_move,
    .copy = cpu_copy, .zero = cpu_zero, .sync = cpu_sync,
    .now_bytes = cpu_now, .peak_bytes = cpu_peak, .reset_peak = cpu_reset_peak,
    .fork = cpu_fork, .join = cpu_join,
    .gemm = cpu_gemm, .cast = cpu_cast, .bias_bwd = cpu_bias_bwd,
    .layernorm_fwd = cpu_layernorm_fwd, .layernorm_bwd = cpu_layernorm_bwd,
    .shortconv_fwd = cpu_shortconv_fwd, .shortconv_bwd = cpu_shortconv_bwd,
    .taps_fwd = cpu_taps_fwd, .taps_bwd = cpu_taps_bwd,
    .add = cpu_add,
    .swap = cpu_swap, .rope = cpu_rope,
    .embed_fwd = cpu_embed_fwd, .embed_bwd = cpu_embed_bwd, .xent = cpu_xent,
    .sumsq = cpu_sumsq, .sum = cpu_total, .adamw = cpu_adamw,
    .filter_ws = cpu_filter_ws, .filter_fwd = cpu_filter_fwd, .filter_bwd = cpu_filter_bwd,
};

const struct hb_device *hb_device_cpu(const struct hb_host *host)
{
    cpu.host = host;
    return &table;
}
