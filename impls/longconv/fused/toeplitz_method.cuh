// toeplitz_method.cuh: long convolution by definition as a method: memory, choice of kernel,
// launches.
//
// Kernels   short rows on Hopper: toeplitz_whole.cuh, by the table below; else toeplitz.cuh.
//           dh: the same rows: toeplitz_whole_dh.cuh; else toeplitz_dh.cuh.
// Memory    the windows (4 L bytes a channel; bf16 8 L, f32 4 L) if toeplitz.cuh is needed,
//           8 L bytes a channel if toeplitz_dh.cuh is, both at most WORK bytes by taking groups
//           of channels, except for fixed filters: these keep all windows, or h for whole rows.
#ifndef HB_TOEPLITZ_METHOD_CUH
#define HB_TOEPLITZ_METHOD_CUH

#include <type_traits>

#include "method.h"
#include "toeplitz.cuh"
#include "toeplitz_dh.cuh"
#include "toeplitz_whole.cuh"
#include "toeplitz_whole_dh.cuh"

namespace toeplitz {

static const int64_t MAX_L = 1 << 18;
static const int64_t WORK = 64 << 20;     // bytes of workspace at most, for each of the two

// What goes whole: rows of at most 64 `blocks` samples, B at most `batch`; a block takes `rows` of
// the batch. The first line that fits; without one, the tiles of toeplitz.cuh. Both are right for
// every problem: a line taken out goes back to the tiles, to be measured against them.
//     f16, B = 64, D = 768, ms, cold:    L = 128   256     512     1024
//     tiles                              0.0257  0.0317  0.0661  0.1676
//     whole, a block of outputs at a time 0.0132  0.0238  0.0580  0.1708
//     whole, as below, no stagger        0.0139  0.0228  0.0511  0.1252   (2048: 0.3755)
//     whole, as below                    0.0137  0.0230  0.0478  0.1243   (2048: 0.378)
struct whole_shape { int blocks; int64_t batch; int rows; };
static const struct whole_shape WHOLE[] = {
    { 48, 16,        16 },
    { 17, 32,        32 },
    { 4,  INT32_MAX, 64 },     // six blocks of 34 KB on an SM
    { 17, INT32_MAX, 32 },     // three of 73 KB; four from 8 blocks down
    { 48, INT32_MAX, 16 },     // three of 75 KB at 33 blocks; two of 109
};

// dh of rows of at most so many STEP samples goes whole on Hopper; 0: none does.
//     f16, B = 64, D = 768, ms, cold:    L = 128   256     512     1024
//     outer and gather (old diagonals)   0.029   0.067   0.167   0.461
//     outer_whole with mma.sync          0.0232  0.0376  0.0746  0.2137
//     outer_whole, all threads load      0.0246  0.0430  0.0820  0.2090   (2048: 0.627)
//     outer_whole, backward less forward 0.0211  0.0360  0.0666  0.1501
enum { WHOLE_DH = 48 };

struct state {
    const struct hb_host *host;
    enum hb_dtype dtype;
    int64_t B, L, D;
    bool fixed, backward;
    bool hopper;               // the device has wgmma (compute capability 9.0)
    int processors;            // of the device
    const struct whole_shape *whole[2];   // or NULL: rows at 16-byte boundaries; anywhere
    int resident[2];           // of its blocks on a processor
    int64_t width, origin;     // of the windows
    int64_t group;             // channels whose windows are there at a time; D for fixed filters
    bool dh_whole[2];          // dh goes whole; as `whole`
    int64_t dh_group;          // channels whose parts are there at a time
    int64_t taps_bytes;        // of one channel's windows
    void *taps[2];             // owned: (group) windows, of y and of du; not fixed: the same memory
    float2 *scale[2];          // owned: (group)
    float *kept;               // owned: (D,L), fixed filters of rows that go whole
    float *part;               // owned: (dh_group, blocks, LANES_DH) or NULL, if nobody needs it
};

static int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Longest row in the time that starts at a 16-byte boundary.
static int64_t longest(const struct state *s)
{
    return s->L + (int64_t)(16 / hb_dtype_size(s->dtype)) - 1;
}

static const char *refuses(const struct hb_problem *p)
{
    if (p->dtype == HB_F64) return "no float64";
    if (p->gated) return "no gates";
    if (p->L > MAX_L) return "L above 2^18";
    if (p->B > INT32_MAX / ((p->L + 7) / BLOCK + 2)) return "B L above 2^38";
    return p->D > INT32_MAX ? "D above 2^31" : NULL;
}

// A block of long rows has 16 of the batch, whether they are there or not.
static const char *refuses_few(const struct hb_problem *p)
{
    return p->B < 8 ? "fewer than 8 rows a channel" : refuses(p);
}

// Rows of this tensor may start anywhere, not only at 16-byte boundaries.
static bool anywhere(const struct state *s, const void *x, struct hb_strides st)
{
    const int64_t vec = (int64_t)(16 / hb_dtype_size(s->dtype));
    return (uintptr_t)x % 16 || (s->B > 1 && st.b % vec) || (s->D > 1 && st.c % vec);
}

// Samples in the longest row, counted from 16-byte boundaries.
static int64_t reach_of(const struct state *s, const void *x, struct hb_strides st)
{
    return anywhere(s, x, st) ? longest(s) : s->L;
}

// --- y and du: rows that go whole ----------------------------------------------------------------
static const struct whole_shape *whole_of(const struct state *s, int64_t reach)
{
    if (!s->hopper || s->dtype == HB_F32) return NULL;
    for (const struct whole_shape &w : WHOLE)
        if (reach <= w.blocks * STEP && s->B <= w.batch
            && s->D * blocks_of(s->B, w.rows) <= INT32_MAX)
            return &w;
    return NULL;
}

// Calls f with the type and the number of rows as a constant: f(T(), rows).
template <class F> static void by_rows(enum hb_dtype t, int rows, F f)
{
    auto all = [&](auto x) {
        if (rows == 16) f(x, std::integral_constant<int, 16>());
        else if (rows == 32) f(x, std::integral_constant<int, 32>());
        else f(x, std::integral_constant<int, 64>());
    };
    if (t == HB_F16) all(__half());
    else all(__nv_bfloat16());
}

// Bytes a nanosecond that a processor can have of the memory.
static const int SHARE = 23;

static void launch_whole(const struct state *s, const struct whole_shape *w, struct whole_job j,
                         bool adjoint, cudaStream_t stream)
{
    j.B = (int)s->B;
    j.L = (int)s->L;
    j.batch_tiles = (int)blocks_of(s->B, w->rows);
    j.blocks = (int)blocks_of(reach_of(s, j.in, j.si), STEP);
    const unsigned grid = (unsigned)(s->D * j.batch_tiles);
    const unsigned at_once = (unsigned)(s->resident[anywhere(s, j.in, j.si)] * s->processors);
    j.staggered = grid >= 2 * at_once ? at_once : 0;
    j.processors = (unsigned)s->processors;
    j.delay = (unsigned)(w->rows * s->L * 2 / SHARE);
    by_rows(s->dtype, w->rows, [&](auto x, auto rows) {
        using T = decltype(x);
        constexpr int R = decltype(rows)::value;
        const size_t shared = whole_shared<R>(j.blocks);
        if (adjoint) whole<T, true, R><<<grid, WHOLE_THREADS, shared, stream>>>(j);
        else whole<T, false, R><<<grid, WHOLE_THREADS, shared, stream>>>(j);
    });
}

static int allow_whole(const struct state *s, const struct whole_shape *w, int blocks,
                       int *resident)
{
    int rc = HB_OK;
    by_rows(s->dtype, w->rows, [&](auto x, auto rows) {
        using T = decltype(x);
        constexpr int R = decltype(rows)::value;
        const void *const kernels[] = { (const void *)whole<T, false, R>,
                                        (const void *)whole<T, true, R> };
        for (const void *kernel : kernels) {
            if (!rc) rc = hb_fused_allow(s->host, kernel, whole_shared<R>(w->blocks));
            if (!rc)
                rc = HB_CUDA(s->host, cudaFuncSetAttribute(     // as many blocks as have room
                    kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                    cudaSharedmemCarveoutMaxShared));
            if (!rc)
                rc = HB_CUDA(s->host, cudaOccupancyMaxActiveBlocksPerMultiprocessor(
                    resident, kernel, WHOLE_THREADS, whole_shared<R>(blocks)));
        }
    });
    return rc;
}

// --- y and du: tiles -----------------------------------------------------------------------------
template <class T> static void launch_prepare(const struct state *s, const float *h, int64_t n,
                                              bool adjoint, cudaStream_t stream)
{
    T *const taps = (T *)s->taps[adjoint];
    float2 *const scale = s->scale[adjoint];
    const unsigned grid = (unsigned)n;
    const int L = (int)s->L;
    if (adjoint) prepare<T, true><<<grid, THREADS, 0, stream>>>(taps, scale, h, L, s->width, TIME);
    else prepare<T, false><<<grid, THREADS, 0, stream>>>(taps, scale, h, L, s->width, s->origin);
}

// For all channels, a group at a time.
static void launch_tiles(const struct state *s, struct job j, int64_t reach, const float *h,
                         bool adjoint, cudaStream_t stream)
{
    const int64_t size = (int64_t)hb_dtype_size(s->dtype), cols = s->dtype == HB_F32 ? 32 : 64;
    while (1 << j.log_batch < cols && 1 << j.log_batch < s->B) j.log_batch++;
    j.B = (int)s->B;
    j.L = (int)s->L;
    j.reach = (int)reach;
    j.blocks = (int)blocks_of(reach, TIME);
    j.col_tiles = (int)blocks_of(j.blocks, cols >> j.log_batch);
    j.batch_tiles = (int)blocks_of(s->B, 1 << j.log_batch);
    j.width = s->width;
    j.origin = adjoint ? (int64_t)TIME : s->origin;
    j.taps = s->taps[adjoint];
    j.scale = s->scale[adjoint];
    // wgmma takes all rows of a tile or none: not where many of its blocks have nothing at a lag.
    const int64_t wide = cols >> j.log_batch;
    const bool groups = s->hopper && s->dtype != HB_F32 && (wide == 1 || j.blocks >= 4 * wide);
    const int64_t count = (int64_t)j.col_tiles * j.batch_tiles;
    int64_t group = s->group;
    if (!s->fixed && group * count > INT32_MAX) group = INT32_MAX / count;
    for (int64_t c = 0; c < s->D; c += group) {
        const int64_t n = s->D - c < group ? s->D - c : group;
        hb_by_type(s->dtype, [&](auto x) {
            using T = decltype(x);
            if (!s->fixed) launch_prepare<T>(s, h + c * s->L, n, adjoint, stream);
            const unsigned grid = (unsigned)(n * count);
            const size_t shared = STAGES * STAGE_BYTES<T>;
            static_assert(STAGES * STAGE_BYTES<T> <= 48 << 10, "more needs an attribute");
            static_assert(COLS<T> * OUT_PITCH <= STAGES * STAGE_BYTES<T>);
            if (groups && adjoint) tiles<T, true, IS_16<T>><<<grid, THREADS, shared, stream>>>(j);
            else if (groups) tiles<T, false, IS_16<T>><<<grid, THREADS, shared, stream>>>(j);
            else if (adjoint) tiles<T, true, false><<<grid, THREADS, shared, stream>>>(j);
            else tiles<T, false, false><<<grid, THREADS, shared, stream>>>(j);
        });
        j.in = (const char *)j.in + n * j.si.c * size;
        j.out = (char *)j.out + n * j.so.c * size;
        if (j.d) j.d += n;
    }
}

// out = in * h + d in, or its adjoint.
static void convolve(const struct state *s, struct whole_job j, bool adjoint, cudaStream_t stream)
{
    const struct whole_shape *w = s->whole[anywhere(s, j.in, j.si)];
    if (w) {
        if (s->fixed) j.h = s->kept;
        launch_whole(s, w, j, adjoint, stream);
        return;
    }
    const struct job tile = { .in = j.in, .si = j.si, .out = j.out, .so = j.so, .d = j.d };
    launch_tiles(s, tile, reach_of(s, j.in, j.si), j.h, adjoint, stream);
}

// --- dh, dd --------------------------------------------------------------------------------------
static bool dh_goes_whole(const struct state *s, int64_t reach)
{
    return s->backward && s->hopper && s->dtype != HB_F32 && reach <= (int64_t)WHOLE_DH * STEP;
}

// Of the batch, in a step of outer_whole.
static int dh_rows(const struct state *s) { return s->B <= 16 ? 16 : s->B <= 32 ? 32 : 64; }

static void launch_whole_dh(const struct state *s, const struct hb_longconv_io *io, bool alike,
                            int64_t reach, cudaStream_t stream)
{
    const struct whole_dh_job j = { .dy = io->dy, .sdy = io->sdy, .u = io->u, .su = io->su,
                                    .dh = (float *)io->dh, .dd = io->d ? (float *)io->dd : NULL,
                                    .B = (int)s->B, .L = (int)s->L, .D = (int)s->D,
                                    .blocks = (int)blocks_of(reach, STEP), .shifted = alike };
    const unsigned grid = (unsigned)(s->D < s->processors ? s->D : s->processors);
    by_rows(s->dtype, dh_rows(s), [&](auto x, auto rows) {
        constexpr int R = decltype(rows)::value;
        outer_whole<decltype(x), R><<<grid, WHOLE_DH_THREADS, WHOLE_DH_SHARED<R>, stream>>>(j);
    });
}

static void filter_gradient(const struct state *s, const struct hb_longconv_io *io,
                            cudaStream_t stream)
{
    const int64_t vec = (int64_t)(16 / hb_dtype_size(s->dtype));
    const int64_t size = (int64_t)hb_dtype_size(s->dtype);
    const bool alike = (uintptr_t)io->u % 16 == (uintptr_t)io->dy % 16
                       && (s->B == 1 || (io->su.b - io->sdy.b) % vec == 0)
                       && (s->D == 1 || (io->su.c - io->sdy.c) % vec == 0);
    const bool late = alike && anywhere(s, io->u, io->su);
    const int64_t reach = late ? longest(s) : s->L;
    if (s->dh_whole[late]) {
        launch_whole_dh(s, io, alike, reach, stream);
        return;
    }
    const int64_t blocks = blocks_of(reach, BLOCK);
    float *const dd = io->d ? (float *)io->dd : NULL;
    for (int64_t c = 0; c < s->D; c += s->dh_group) {
        const int64_t n = s->D - c < s->dh_group ? s->D - c : s->dh_group;
        const struct dh_job j = { (const char *)io->dy + c * io->sdy.c * size, io->sdy,
                                  (const char *)io->u + c * io->su.c * size, io->su,
                                  s->part, (int)s->B, (int)s->L, (int)blocks, alike };
        hb_by_type(s->dtype, [&](auto x) {
            using T = decltype(x);
            outer<T><<<(unsigned)(n * blocks), DH_THREADS<T>, DH_SHARED, stream>>>(j);
        });
        float *const dh = (float *)io->dh + c * s->L;
        gather<<<(unsigned)blocks_of(n * s->L, THREADS), THREADS, 0, stream>>>(
            dh, dd ? dd + c : NULL, s->part, n * s->L, (int)s->L, (int)blocks);
    }
}

// --- the method ----------------------------------------------------------------------------------
static void forward(const void *st, const struct hb_longconv_io *io, cudaStream_t stream)
{
    const struct whole_job j = { .in = io->u, .si = io->su, .out = io->y, .so = io->sy,
                                 .h = (const float *)io->h, .d = (const float *)io->d };
    convolve((const struct state *)st, j, false, stream);
}

static void backward(const void *st, const struct hb_longconv_io *io, cudaStream_t stream)
{
    const struct whole_job j = { .in = io->dy, .si = io->sdy, .out = io->du, .so = io->sdu,
                                 .h = (const float *)io->h, .d = (const float *)io->d };
    convolve((const struct state *)st, j, true, stream);
    filter_gradient((const struct state *)st, io, stream);
}

static void set_filter(const void *st, const float *h, cudaStream_t stream)
{
    const struct state *s = (const struct state *)st;
    if (s->kept)
        s->host->device->copy(s->kept, h, (size_t)(s->D * s->L) * sizeof(float), stream);
    if (!s->taps[0]) return;
    hb_by_type(s->dtype, [&](auto x) {
        using T = decltype(x);
        launch_prepare<T>(s, h, s->D, false, stream);
        if (s->backward) launch_prepare<T>(s, h, s->D, true, stream);
    });
}

static void release(void *st)
{
    struct state *s = (struct state *)st;
    if (!s) return;
    hb_fused_free(s->host, { s->taps[0], s->scale[0], s->fixed ? s->taps[1] : NULL,
                             s->fixed ? s->scale[1] : NULL, s->kept, s->part });
    s->host->free(s->host, s);
}

// The windows of toeplitz.cuh, or HB_ERR_OOM with what there is in the state.
static int take_windows(struct state *s)
{
    const struct hb_device *dev = s->host->device;
    const int sets = s->fixed && s->backward ? 2 : 1;
    for (int i = 0; i < sets; i++) {
        s->taps[i] = dev->alloc(dev, (size_t)(s->group * s->taps_bytes));
        s->scale[i] = (float2 *)dev->alloc(dev, (size_t)s->group * sizeof(float2));
        if (!s->taps[i] || !s->scale[i]) return HB_ERR_OOM;
    }
    if (!s->fixed) {
        s->taps[1] = s->taps[0];
        s->scale[1] = s->scale[0];
    }
    return HB_OK;
}

static int take_memory(struct state *s)
{
    const struct hb_device *dev = s->host->device;
    if (!s->whole[0] || !s->whole[1]) {
        const int rc = take_windows(s);
        if (rc) return rc;
    }
    if (s->fixed && s->whole[0]) {
        s->kept = (float *)dev->alloc(dev, (size_t)(s->D * s->L) * sizeof(float));
        if (!s->kept) return HB_ERR_OOM;
    }
    if (!s->backward || (s->dh_whole[0] && s->dh_whole[1])) return HB_OK;
    const int64_t bytes = blocks_of(longest(s), BLOCK) * LANES_DH * (int64_t)sizeof(float);
    s->dh_group = WORK / bytes < 1 ? 1 : WORK / bytes < s->D ? WORK / bytes : s->D;
    s->part = (float *)dev->alloc(dev, (size_t)(s->dh_group * bytes));
    return s->part ? HB_OK : HB_ERR_OOM;
}

static int find_device(struct state *s)
{
    int dev, major = 0, minor = 0;
    int rc = HB_CUDA(s->host, cudaGetDevice(&dev));
    const struct { enum cudaDeviceAttr what; int *to; } wanted[] = {
        { cudaDevAttrComputeCapabilityMajor, &major },
        { cudaDevAttrComputeCapabilityMinor, &minor },
        { cudaDevAttrMultiProcessorCount, &s->processors },
    };
    for (const auto &w : wanted)
        if (!rc) rc = HB_CUDA(s->host, cudaDeviceGetAttribute(w.to, w.what, dev));
    s->hopper = !rc && major == 9 && minor == 0;
    return rc;
}

// Kernels that need more than the 48 KB everybody may have.
static int allow(struct state *s)
{
    int rc = HB_OK;
    for (int i = 0; i < 2; i++)
        if (!rc && s->whole[i])
            rc = allow_whole(s, s->whole[i], (int)blocks_of(i ? longest(s) : s->L, STEP),
                             &s->resident[i]);
    if (!rc && s->part)
        hb_by_type(s->dtype, [&](auto x) {
            rc = hb_fused_allow(s->host, (const void *)outer<decltype(x)>, DH_SHARED);
        });
    if (!rc && s->dh_whole[0])
        by_rows(s->dtype, dh_rows(s), [&](auto x, auto rows) {
            constexpr int R = decltype(rows)::value;
            rc = hb_fused_allow(s->host, (const void *)outer_whole<decltype(x), R>,
                                WHOLE_DH_SHARED<R>);
        });
    return rc;
}

static int plan(const struct hb_host *host, const struct hb_problem *p,
                const struct fused_choice *, void **st)
{
    struct state *s = (struct state *)host->alloc(host, sizeof *s);
    *st = s;
    if (!s) return HB_ERR_OOM;
    *s = { .host = host, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D,
           .fixed = p->filter == HB_FILTER_FIXED, .backward = p->backward };
    s->origin = blocks_of(longest(s), TIME) * TIME;
    s->width = s->origin + TIME;
    hb_by_type(s->dtype, [&](auto x) {
        using T = decltype(x);
        s->taps_bytes = TERMS<T> * COPIES<T> * s->width * (int64_t)sizeof(T);
    });
    const int64_t fits = WORK / s->taps_bytes < 1 ? 1 : WORK / s->taps_bytes;
    s->group = s->fixed || fits > s->D ? s->D : fits;
    int rc = find_device(s);
    for (int i = 0; i < 2; i++) {
        const int64_t reach = i ? longest(s) : s->L;
        s->whole[i] = whole_of(s, reach);
        s->dh_whole[i] = dh_goes_whole(s, reach);
    }
    if (!rc) rc = take_memory(s);
    return rc ? rc : allow(s);
}

static int describe(const void *st, char *buf, size_t cap)
{
    const struct state *s = (const struct state *)st;
    const bool f32 = s->dtype == HB_F32;
    const int terms = s->dtype == HB_BF16 && !s->whole[0] ? 2 : 1;
    char how[80], dh[40] = "";
    if (s->whole[0])
        snprintf(how, sizeof how, "%d whole rows a block, wgmma", s->whole[0]->rows);
    else
        snprintf(how, sizeof how, "tiles of %d rows x %d samples, %s", f32 ? 32 : 64, TIME,
                 f32 ? "FMA" : s->hopper ? "wgmma or mma" : "mma");
    if (s->backward && s->dh_whole[0]) snprintf(dh, sizeof dh, ", dh of whole rows");
    else if (s->backward) snprintf(dh, sizeof dh, ", dh %d x %d", BLOCK, BLOCK);
    return snprintf(buf, cap, "%s, h in %d term%s%s, channels at a time %lld", how, terms,
                    terms > 1 ? "s" : "", dh, (long long)(s->taps[0] ? s->group : s->D));
}

static constexpr struct fused_method method(const char *(*refusing)(const struct hb_problem *))
{
    return { .name = "Toeplitz", .refuses = refusing, .plan = plan, .forward = forward,
             .backward = backward, .set_filter = set_filter, .describe = describe,
             .free = release };
}

} // namespace toeplitz

// `batch`: where a transform is faster for a few rows, but not for many.
[[maybe_unused]] static const struct fused_method fused_toeplitz =
    toeplitz::method(toeplitz::refuses);
[[maybe_unused]] static const struct fused_method fused_toeplitz_batch =
    toeplitz::method(toeplitz::refuses_few);

#endif
