// longconv_cufft_cuda.cu: causal long convolution by right-angle transforms, cuFFT in the middle.
//     y[b,c,t] = sum_{s=0..t} h[c,s] u[b,c,t-s] + d[c] u[b,c,t]     u,y (B,D,L)  h (D,L)
// Method    With the twist w[n] = exp(i pi n / 2N), N >= L, a cyclic convolution of w x and w h is,
//           untwisted, (causal part) + i (wrapped part), and a cyclic correlation (causal part)
//           - i (wrapped part): complex transforms of N points instead of real ones of 2N, without
//           padding. So, with F = DFT_N(w .):
//               y  = Re conj(w) IDFT_N( (F h + d) F u )               d: F of d at time 0
//               du = Re conj(w) IDFT_N( conj(F h + d) F dy )
//               dh = Re conj(w) IDFT_N( sum_b conj(F u_b) F dy_b )    dd = sum dy u, directly
//           Rows are taken in chunks whose spectra stay in half of the L2 cache. A chunk passes
//           through: twist (read u, h; convert), cuFFT, multiply, cuFFT, untwist (convert, write).
//           For long rows twist and untwist also do the first and the last stage, of radix R, of
//           a decimation in frequency, with n = n1 N2 + n2 and k = k1 + R k2:
//               F x [k1 + R k2] = DFT_N2 over n2 of
//                   exp(2 pi i n2 (1/4 - k1) / N) DFT_R over n1 of exp(i pi n1 / 2R) x[n1 N2 + n2]
//           so that cuFFT's part is one pass over memory each way up to N2 = 32768. Spectra stay
//           in this order.
// Cost      O(B D L log L). Traffic within L2 is 64 bytes a sample forward, 96 backward; device
//           memory sees the signals and h. The plan keeps a chunk of spectra (8 N bytes a row),
//           cuFFT's work area, and D spectra for fixed filters. Backward saves nothing.
// Source    Poli et al. 2023, arXiv:2302.10866, section 3 (operator); Crandall and Fagin, Math.
//           Comp. 62 (1994), right-angle convolution; cuFFT, CUDA 13 (docs.nvidia.com/cuda/cufft).
// Accuracy  Float32 inside whatever the signals are; twiddles rounded from float64. Rel. L2 grows
//           like eps sqrt(log2 N). dd is summed in float64. All sums are in a fixed order.
// Refuses   float64; L > 2^22.
// hb-link: -lcufft
#include <cufft.h>
#include <inttypes.h>
#include <stdio.h>

#include "cufft/rows.cuh"
#include "cufft/spectra.cuh"

enum {
    MIN_N = 16,
    MAX_N1 = 4096,            // longest row that is left to cuFFT whole
    MAX_N16 = 1 << 17,        // longest row of R = 16: N2 up to 8192; above it R = 32
    MAX_FFTS = 32,            // batch sizes in use: at most 7 backward, 5 forward, 2 set_filter
};
static const int64_t MAX_L = (int64_t)1 << 22;

// How rows go in chunks: C channels with all their batch, or one channel and nb rows of its batch
// at a time. A chunk's spectra, each (rows,N):  A (C)  Y (C nb)  U (C nb)  H (C)
// A is the sum for dh; A and Y only backward; H only for fresh filters.
struct pass { int64_t C, nb, subs, chunks; bool back; };

// One chunk: channels c0 .. c0+C, of each the rows b0 .. b0+nb.
struct part { int64_t c0, C, b0, nb, sub; bool first, last; };   // first, last of its channels

struct fft { int64_t rows; cufftHandle handle; };

struct state {
    const struct hb_host *host;
    int64_t B, L, D, N;
    int R, N2;                      // N = R N2
    enum hb_dtype t;
    bool fixed_filter;
    struct pass fwd, bwd;           // bwd.chunks 0: not planned for backward
    struct fft ffts[MAX_FFTS];      // owned: plans of rows R transforms of N2 points
    int n_ffts;
    size_t work_bytes, chunk_bytes;
    int64_t slots;                  // partial sums of dd that a channel has
    void *work;                     // owned: cuFFT's work area, of all plans
    float2 *turns;                  // owned: twiddles, (planes,N2), see fill_turns
    float2 *chunk;                  // owned: the spectra of a chunk
    float2 *fixed;                  // owned: (D,N) spectra of the filters, FIXED only
    double *dots;                   // owned: (D,slots), backward only
};

// --- launches ------------------------------------------------------------------------------------
static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// Threads along a row, a power of two from a warp on; the rest of the block takes other rows.
static int across(int64_t columns, int threads)
{
    int x = 32;
    while (x < threads && x < columns)
        x *= 2;
    return x;
}

template <int V> struct number { static constexpr int value = V; };

// Calls f with R as a constant: f(number<R>()).
template <class F> static void by_radix(int R, F f)
{
    if (R == 1) f(number<1>());
    else if (R == 16) f(number<16>());
    else f(number<32>());
}

static int group_of(const struct state *s)
{
    return s->R == 1 ? GROUP<1> : GROUP<16>;
}

static int threads_of(const struct state *s)
{
    return s->R == 1 ? THREADS<1> : THREADS<16>;
}

static int tiles_of(const struct state *s)
{
    return (int)ceil_div(s->N2, across(s->N2, threads_of(s)));
}

static struct shape shape_of(const struct state *s, int64_t C, int64_t nb, int64_t filters)
{
    return (struct shape){ .L = (int)s->L, .N2 = s->N2, .tiles = tiles_of(s), .C = C, .nb = nb,
                           .groups = ceil_div(nb, group_of(s)), .filters = filters };
}

// Threads and blocks of a kernel over rows.
struct launch { dim3 grid, block; };

static struct launch launch_of(const struct state *s, const struct shape *q)
{
    const int x = across(s->N2, threads_of(s)), y = threads_of(s) / x;
    const int64_t items = q->C * q->groups + q->filters;
    return { dim3((unsigned)(q->tiles * ceil_div(items, y))), dim3(x, y) };
}

static void launch_twist(const struct state *s, enum hb_dtype t, bool back, struct shape q,
                         struct signals a, cudaStream_t stream)
{
    const struct launch n = launch_of(s, &q);
    hb_by_type(t, [&](auto x) {
        by_radix(s->R, [&](auto r) {
            constexpr int R = decltype(r)::value;
            if (back)
                twist<decltype(x), R, true><<<n.grid, n.block, 0, stream>>>(q, a, s->turns);
            else
                twist<decltype(x), R, false><<<n.grid, n.block, 0, stream>>>(q, a, s->turns);
        });
    });
}

static void launch_untwist(const struct state *s, enum hb_dtype t, struct shape q,
                           struct results a, cudaStream_t stream)
{
    const struct launch n = launch_of(s, &q);
    hb_by_type(t, [&](auto x) {
        by_radix(s->R, [&](auto r) {
            constexpr int R = decltype(r)::value;
            untwist<decltype(x), R><<<n.grid, n.block, 0, stream>>>(q, a, s->turns);
        });
    });
}

static void launch_multiply(const struct state *s, const struct part *p, float2 *u,
                            const float2 *h, const float *d, cudaStream_t stream)
{
    const int half = (int)(s->N / 2), x = across(half, PRODUCT_THREADS), y = PRODUCT_THREADS / x;
    const int64_t tiles = ceil_div(half, x), groups = ceil_div(p->nb, PRODUCT_ROWS);
    const unsigned blocks = (unsigned)(tiles * ceil_div(p->C * groups, y));
    multiply<<<blocks, dim3(x, y), 0, stream>>>((float4 *)u, (const float4 *)h, d, half,
                                                (int)tiles, p->C, p->nb, groups);
}

static void launch_multiply_back(const struct state *s, const struct part *p, float2 *a, float2 *y,
                                 const float2 *u, const float2 *h, const float *d,
                                 cudaStream_t stream)
{
    int rows = 1;                   // threads.y: at most 8, so that a warp stays in one row
    while (rows < PRODUCT_THREADS / 32 && rows < p->nb)
        rows *= 2;
    const int half = (int)(s->N / 2), x = PRODUCT_THREADS / rows;
    const int64_t tiles = ceil_div(half, x);
    multiply_back<<<(unsigned)(tiles * p->C), dim3(x, rows), 0, stream>>>(
        (float4 *)a, (float4 *)y, (const float4 *)u, (const float4 *)h, d, half, (int)tiles, p->nb,
        !p->first);
}

// --- cuFFT ---------------------------------------------------------------------------------------
static int cufft_failed(const struct state *s, cufftResult r, const char *what)
{
    if (r == CUFFT_SUCCESS) return 0;
    (void)cudaGetLastError();
    return s->host->fail(s->host, r == CUFFT_ALLOC_FAILED ? HB_ERR_OOM : HB_ERR_RUN,
                         "longconv_cufft_cuda: %s: cuFFT error %d", what, (int)r);
}

static const struct fft *find_fft(const struct state *s, int64_t rows)
{
    for (int i = 0; i < s->n_ffts; i++)
        if (s->ffts[i].rows == rows) return &s->ffts[i];
    return NULL;
}

// Plans the transform of so many rows, once.
static int need_fft(struct state *s, int64_t rows)
{
    if (rows == 0 || find_fft(s, rows)) return 0;
    if (s->n_ffts == MAX_FFTS)
        return s->host->fail(s->host, HB_ERR_RUN, "longconv_cufft_cuda: too many plans");
    cufftHandle handle;
    int rc = cufft_failed(s, cufftCreate(&handle), "create");
    if (rc) return rc;
    s->ffts[s->n_ffts++] = (struct fft){ rows, handle };
    long long n = s->N2;
    size_t bytes = 0;
    rc = cufft_failed(s, cufftSetAutoAllocation(handle, 0), "set auto allocation");
    if (!rc)
        rc = cufft_failed(s, cufftMakePlanMany64(handle, 1, &n, NULL, 1, n, NULL, 1, n, CUFFT_C2C,
                                                 rows * s->R, &bytes), "plan");
    if (bytes > s->work_bytes) s->work_bytes = bytes;
    return rc;
}

static int transform(const struct state *s, float2 *z, int64_t rows, int direction)
{
    if (rows == 0) return 0;
    const struct fft *f = find_fft(s, rows);
    if (!f)
        return s->host->fail(s->host, HB_ERR_RUN, "longconv_cufft_cuda: no plan");
    return cufft_failed(s, cufftExecC2C(f->handle, (cufftComplex *)z, (cufftComplex *)z, direction),
                        "transform");
}

static int use_stream(const struct state *s, cudaStream_t stream)
{
    for (int i = 0; i < s->n_ffts; i++) {
        const int rc = cufft_failed(s, cufftSetStream(s->ffts[i].handle, stream), "set stream");
        if (rc) return rc;
    }
    return 0;
}

// --- chunks --------------------------------------------------------------------------------------
// Rows of spectra that a channel of a chunk has whatever its batch: A, H.
static int64_t own_rows(const struct state *s, bool back)
{
    return (back ? 1 : 0) + (s->fixed_filter ? 0 : 1);
}

// As many whole channels as fit into so many bytes, else as much of one channel's batch; all
// chunks but the last alike.
static struct pass split(const struct state *s, bool back, int64_t bytes)
{
    const int64_t rows = bytes / (8 * s->N), own = own_rows(s, back), each = back ? 2 : 1;
    struct pass k = { 1, s->B, 1, 0, back };
    if (own + each * s->B <= rows) {
        const int64_t most = rows / (own + each * s->B);
        k.C = ceil_div(s->D, ceil_div(s->D, most));
    } else {
        const int64_t most = (rows - own) / each > 1 ? (rows - own) / each : 1;
        k.nb = ceil_div(s->B, ceil_div(s->B, most));
        k.subs = ceil_div(s->B, k.nb);
    }
    k.chunks = ceil_div(s->D, k.C) * k.subs;
    return k;
}

static int64_t chunk_rows(const struct state *s, const struct pass *k)
{
    return k->C * (own_rows(s, k->back) + (k->back ? 2 : 1) * k->nb);
}

static struct part part_of(const struct state *s, const struct pass *k, int64_t i)
{
    const int64_t sub = i % k->subs, c0 = i / k->subs * k->C, b0 = sub * k->nb;
    return { .c0 = c0, .C = s->D - c0 < k->C ? s->D - c0 : k->C,
             .b0 = b0, .nb = s->B - b0 < k->nb ? s->B - b0 : k->nb,
             .sub = sub, .first = sub == 0, .last = sub == k->subs - 1 };
}

// Rows that one call transforms: forward Y, U and, for the first part, H; back A, for the last, Y.
static int64_t rows_there(const struct state *s, const struct pass *k, const struct part *p)
{
    return p->C * ((k->back ? 2 : 1) * p->nb + (p->first && !s->fixed_filter ? 1 : 0));
}

static int64_t rows_back(const struct pass *k, const struct part *p)
{
    return p->C * (p->nb + (k->back && p->last ? 1 : 0));
}

static const void *at(const void *x, enum hb_dtype t, struct hb_strides st, const struct part *p)
{
    return (const char *)x + (p->b0 * st.b + p->c0 * st.c) * (int64_t)hb_dtype_size(t);
}

// One chunk from u (and dy) to y (or du and dh).
static int run_part(const struct state *s, const struct pass *k, struct part p,
                    const struct hb_longconv_io *io, cudaStream_t stream)
{
    const enum hb_dtype t = s->t;
    const int64_t rows = p.C * p.nb;
    float2 *a = s->chunk, *y = a + (k->back ? p.C : 0) * s->N;
    float2 *u = y + (k->back ? rows : 0) * s->N;
    float2 *h = s->fixed_filter ? s->fixed + p.c0 * s->N       // else behind U of a first part
                                : y + (k->back ? 2 : 1) * p.C * k->nb * s->N;
    const bool new_h = p.first && !s->fixed_filter, new_dh = k->back && p.last;
    const float *d = io->d ? (const float *)io->d + p.c0 : NULL;
    const struct shape in = shape_of(s, p.C, p.nb, new_h ? p.C : 0);
    struct signals from = { .u = at(io->u, t, io->su, &p), .su = io->su,
                            .zu = u, .zy = y, .zh = h };
    if (new_h) from.h = (const float *)io->h + p.c0 * s->L;
    if (k->back) {
        from.dy = at(io->dy, t, io->sdy, &p);
        from.sdy = io->sdy;
        from.slots = s->slots;
        const int64_t slot = p.sub * ceil_div(k->nb, group_of(s)) * in.tiles;
        if (io->dd) from.dots = s->dots + p.c0 * s->slots + slot;
    }
    launch_twist(s, t, k->back, in, from, stream);
    int rc = transform(s, y, rows_there(s, k, &p), CUFFT_FORWARD);
    if (rc) return rc;
    if (k->back)
        launch_multiply_back(s, &p, a, y, u, h, d, stream);
    else
        launch_multiply(s, &p, u, h, d, stream);
    rc = transform(s, new_dh ? a : y, rows_back(k, &p), CUFFT_INVERSE);
    if (rc) return rc;
    struct results to = { .zy = y, .zh = a, .scale = 1.0f / (float)s->N };
    to.y = (void *)at(k->back ? io->du : io->y, t, k->back ? io->sdu : io->sy, &p);
    to.sy = k->back ? io->sdu : io->sy;
    if (new_dh) to.dh = (float *)io->dh + p.c0 * s->L;
    launch_untwist(s, t, shape_of(s, p.C, p.nb, new_dh ? p.C : 0), to, stream);
    return hb_cuda_launched(s->host, "longconv_cufft_cuda");
}

static int run(const struct state *s, const struct pass *k, const struct hb_longconv_io *io,
               cudaStream_t stream)
{
    int rc = use_stream(s, stream);
    for (int64_t i = 0; i < k->chunks && !rc; i++)
        rc = run_part(s, k, part_of(s, k, i), io, stream);
    return rc;
}

// --- the five functions --------------------------------------------------------------------------
static const char *refuses(const struct hb_problem *p)
{
    if (p->dtype == HB_F64)
        return "no float64";
    return p->L > MAX_L ? "L above 2^22" : NULL;
}

static int forward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    return run(s, &s->fwd, &io->conv, (cudaStream_t)io->stream);
}

static int backward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    cudaStream_t stream = (cudaStream_t)io->stream;
    if (s->bwd.chunks == 0)
        return s->host->fail(s->host, HB_ERR_INPUT,
                             "longconv_cufft_cuda: not planned for backward");
    const int rc = run(s, &s->bwd, &io->conv, stream);
    if (rc || !io->conv.dd) return rc;
    add_dots<<<(unsigned)ceil_div(s->D, 8), 256, 0, stream>>>((float *)io->conv.dd, s->dots, s->D,
                                                              s->slots);
    return hb_cuda_launched(s->host, "longconv_cufft_cuda: dd");
}

// Channels whose filters set_filter transforms at a time: any number would do.
static int64_t fixed_channels(const struct state *s, int64_t c0)
{
    return s->D - c0 < s->fwd.C ? s->D - c0 : s->fwd.C;
}

static int set_filter(void *st, const void *h)
{
    const struct state *s = (const struct state *)st;
    const struct hb_device *dev = s->host->device;
    cudaStream_t stream = (cudaStream_t)dev->stream;
    if (!s->fixed_filter)
        return s->host->fail(s->host, HB_ERR_INPUT,
                             "longconv_cufft_cuda: not planned for fixed filters");
    int rc = use_stream(s, stream);
    for (int64_t c0 = 0; c0 < s->D && !rc; c0 += s->fwd.C) {
        const int64_t C = fixed_channels(s, c0);
        float2 *z = s->fixed + c0 * s->N;
        const struct signals from = { .h = (const float *)h + c0 * s->L, .zh = z };
        launch_twist(s, HB_F32, false, shape_of(s, C, 0, C), from, stream);
        rc = transform(s, z, C, CUFFT_FORWARD);
    }
    if (!rc) rc = hb_cuda_launched(s->host, "longconv_cufft_cuda: set_filter");
    const int synced = dev->sync(dev, dev->stream);
    return rc ? rc : synced;
}

static void destroy(void *st)
{
    struct state *s = (struct state *)st;
    if (!s) return;
    for (int i = 0; i < s->n_ffts; i++)
        cufftDestroy(s->ffts[i].handle);
    void *const owned[] = { s->work, s->turns, s->chunk, s->fixed, s->dots };
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        s->host->device->free(s->host->device, owned[i]);
    s->host->free(s->host, s);
}

// N = odd 2^a >= L of the least cost, and R. An odd factor costs stages that cuFFT does less well;
// how much is a guess, and every such N2 up to 32768 is one kernel of cuFFT 12.
static void choose(struct state *s)
{
    static const struct { int64_t odd; double cost; } sizes[] = {
        { 1, 1 }, { 3, 1.05 }, { 5, 1.08 }, { 7, 1.1 }, { 9, 1.1 }, { 15, 1.12 },
    };
    double best = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t N = sizes[i].odd;
        while (N < s->L || N < MIN_N)
            N *= 2;
        const double cost = (double)N * sizes[i].cost;
        if (i == 0 || cost < best) {
            best = cost;
            s->N = N;
        }
    }
    s->R = s->N <= MAX_N1 ? 1 : s->N <= MAX_N16 ? 16 : 32;
    s->N2 = (int)(s->N / s->R);
}

// The plans of all chunks. Only the first group of channels, the last two and their parts differ.
static int plan_pass(struct state *s, const struct pass *k)
{
    int rc = 0;
    for (int64_t i = 0; i < k->chunks && !rc; i++) {
        const struct part p = part_of(s, k, i);
        if (p.c0 > 0 && p.c0 + p.C < s->D) continue;
        rc = need_fft(s, rows_there(s, k, &p));
        if (!rc) rc = need_fft(s, rows_back(k, &p));
    }
    return rc;
}

static int make_plans(struct state *s)
{
    int rc = plan_pass(s, &s->fwd);
    if (!rc) rc = plan_pass(s, &s->bwd);
    if (!rc && s->fixed_filter) rc = need_fft(s, fixed_channels(s, 0));
    if (!rc && s->fixed_filter) rc = need_fft(s, s->D % s->fwd.C);
    if (rc) return rc;
    if (!(s->work = s->host->device->alloc(s->host->device, s->work_bytes + 256)))
        return HB_ERR_OOM;
    for (int i = 0; i < s->n_ffts && !rc; i++)
        rc = cufft_failed(s, cufftSetWorkArea(s->ffts[i].handle, s->work), "set work area");
    return rc;
}

static float2 *spectra(const struct state *s, int64_t rows)
{
    return (float2 *)s->host->device->alloc(s->host->device, (size_t)(rows * s->N * 8));
}

static int make_buffers(struct state *s)
{
    const struct hb_device *dev = s->host->device;
    const int planes = s->R == 1 ? 1 : 4;
    int64_t rows = chunk_rows(s, &s->fwd);
    if (s->bwd.chunks) {
        const int64_t back = chunk_rows(s, &s->bwd), last = s->B - (s->bwd.subs - 1) * s->bwd.nb;
        if (back > rows) rows = back;
        s->slots = tiles_of(s) * ((s->bwd.subs - 1) * ceil_div(s->bwd.nb, group_of(s))
                                  + ceil_div(last, group_of(s)));
        s->dots = (double *)dev->alloc(dev, (size_t)(s->D * s->slots * 8));
        if (!s->dots) return HB_ERR_OOM;
    }
    s->chunk_bytes = (size_t)(rows * s->N * 8);
    if (!(s->chunk = spectra(s, rows))) return HB_ERR_OOM;
    if (s->fixed_filter && !(s->fixed = spectra(s, s->D))) return HB_ERR_OOM;
    s->turns = (float2 *)dev->alloc(dev, (size_t)planes * s->N2 * 8);
    if (!s->turns) return HB_ERR_OOM;
    fill_turns<<<dim3((s->N2 + 255) / 256, planes), 256, 0, (cudaStream_t)dev->stream>>>(
        s->turns, s->N, s->N2);
    const int rc = hb_cuda_launched(s->host, "longconv_cufft_cuda: twiddles");
    return rc ? rc : dev->sync(dev, dev->stream);
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    struct state *s = (struct state *)host->alloc(host, sizeof *s);
    if (!s) return HB_ERR_OOM;
    *s = (struct state){ .host = host, .B = p->B, .L = p->L, .D = p->D, .t = p->dtype,
                         .fixed_filter = p->filter == HB_FILTER_FIXED };
    choose(s);
    int gpu = 0, l2 = 0;
    int rc = HB_CUDA(host, cudaGetDevice(&gpu));
    if (!rc) rc = HB_CUDA(host, cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, gpu));
    if (!rc) {
        // Half of the cache: the signals pass through the other half.
        s->fwd = split(s, false, l2 / 2);
        if (p->backward) s->bwd = split(s, true, l2 / 2);
        rc = make_buffers(s);
    }
    if (!rc) rc = make_plans(s);
    if (!rc) {
        *st = s;
        return HB_OK;
    }
    destroy(s);
    return rc;
}

static int describe(const void *st, char *buf, size_t cap)
{
    const struct state *s = (const struct state *)st;
    const struct pass *k = &s->fwd, *b = &s->bwd;
    int version = 0;
    (void)cufftGetVersion(&version);
    int n = snprintf(buf, cap, "M %" PRId64 " = %d x %d, right-angle c2c, cuFFT %d, %" PRId64
                     " chunks of %" PRId64 " rows", s->N, s->R, s->N2, version, k->chunks,
                     k->C * k->nb);
    if (b->chunks && n > 0 && (size_t)n < cap)
        n += snprintf(buf + n, cap - (size_t)n, ", back %" PRId64 " of %" PRId64, b->chunks,
                      b->C * b->nb);
    if (n > 0 && (size_t)n < cap)
        snprintf(buf + n, cap - (size_t)n, ", spectra %zu bytes, work area %zu", s->chunk_bytes,
                 s->work_bytes);
    return HB_OK;
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "longconv_cufft_cuda",
    .op = HB_LONGCONV,
    .device = "cuda",
    .dtypes = 1u << HB_F32 | 1u << HB_F16 | 1u << HB_BF16,
    .source = "Poli et al. 2023, arXiv:2302.10866, sec. 3; cuFFT, CUDA 13",
    .complexity = "O(L log L)",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .set_filter = set_filter,
    .describe = describe,
};
