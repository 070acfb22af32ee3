// rows_method.cuh: rows that fit into one block (rows.cuh, rows_dh.cuh), host side.
//     choice    R: N = R 256 points, N >= L; R1 is not used
// Workspace     4 N bytes a channel: the spectrum.
#ifndef HB_FUSED_ROWS_METHOD_CUH
#define HB_FUSED_ROWS_METHOD_CUH

#include "rows_alone.cuh"
#include "rows_dh.cuh"
#include "rows_pair_dh.cuh"

struct rows_plan {
    const struct hb_host *host;    // borrowed until free
    enum hb_dtype dtype;
    int64_t B, L, D;
    int R, sms;                    // sms: of this GPU
    bool fixed, gated, backward;
    int taps;                      // gated
    uint4 *matrix, *spectrum;      // owned; spectrum (D, N) half2
    uint4 *pair;                   // owned, or NULL: hb_rows_pair
    float *undo;                   // owned: (D), of the spectra
};

static const char *rows_refuses(const struct hb_problem *p)
{
    if (p->gated && p->taps > HB_TAPS) return "short filters of more than 3 taps";
    if (p->gated && p->filter == HB_FILTER_FIXED) return "gates with a fixed filter";
    if (p->D > INT32_MAX / 16 || p->B > INT32_MAX / 16) return "B or D beyond 2^27";
    return NULL;
}

// --- launches -----------------------------------------------------------------------------------
// Calls f(R, T, GATED) with what the plan says, as constants: f(hb_constant<4>(), __half(),
// hb_constant<1>()) and so on.
template <class F> static void rows_by(const struct rows_plan *s, F f)
{
    hb_by_rows(s->R, [&](auto r) {
        auto typed = [&](auto gated) {
            if (s->dtype == HB_F16) f(r, __half(), gated);
            else f(r, __nv_bfloat16(), gated);
        };
        if (s->gated) typed(hb_constant<1>());
        else typed(hb_constant<0>());
    });
}

static void rows_spectrum(const struct rows_plan *s, const float *h, const float *d,
                          cudaStream_t stream)
{
    struct hb_fused_job job = { .spectrum = s->spectrum, .undo = s->undo, .matrix = s->matrix,
                                .D = (int)s->D, .L = (int)s->L, .h = h, .hd = d };
    hb_by_rows(s->R, [&](auto r) {
        constexpr int R = decltype(r)::value;
        job.ahead = HB_ROWS_BLOCKS<R> * s->sms;
        hb_rows_spectrum<R><<<(unsigned)((s->D + HB_PACK<R> - 1) / HB_PACK<R>), HB_ROWS_THREADS<R>,
                              HB_ROWS_SHARED<R>, stream>>>(job);
    });
}

static void rows_set_filter(const void *st, const float *h, cudaStream_t stream)
{
    rows_spectrum((const struct rows_plan *)st, h, NULL, stream);
}

// Short rows: as many blocks as run at a time share all tiles.
template <class T, int R>
static void rows_launch_pair(const struct rows_plan *s, struct hb_fused_job job,
                             cudaStream_t stream)
{
    job.matrix = s->pair;
    job.tiles = (int)((s->B * R + 31) / 32);
    const int64_t all = s->D * job.tiles, most = 2 * s->sms;
    const unsigned grid = (unsigned)(all < most ? all : most);
    hb_rows_pair<T, R><<<grid, 256, HB_PAIR_SHARED<R>, stream>>>(job);
}

// Blocks of a channel, whose rows are `tiles` tiles: enough to keep every SM busy to the end; else
// as many rows a block as there are, so that the constants and the spectrum serve them all.
static int64_t rows_chunks(const struct rows_plan *s, int64_t tiles)
{
    const int64_t chunks = (16 * s->sms + s->D - 1) / s->D;
    return chunks < tiles ? chunks : tiles;
}

// Is the spectrum made where it is used, and nowhere else (rows_alone.cuh)?
static bool rows_alone(const struct rows_plan *s)
{
    return s->gated && !s->backward && s->B == 1 && (s->R == 16 || s->R == 32);
}

// after: the kernel before has made the spectra.
static void rows_launch(const struct rows_plan *s, struct hb_fused_job job, bool after,
                        cudaStream_t stream)
{
    job.spectrum = s->spectrum;
    job.undo = s->undo;
    job.matrix = s->matrix;
    job.B = (int)s->B;
    job.D = (int)s->D;
    job.L = (int)s->L;
    rows_by(s, [&](auto r, auto type, auto gated) {
        constexpr int R = decltype(r)::value;
        using T = decltype(type);
        constexpr bool GATED = decltype(gated)::value;
        job.ahead = HB_ROWS_BLOCKS<R> * s->sms;
        if constexpr (HB_PAIRED<R> && !GATED) {
            rows_launch_pair<T, R>(s, job, stream);
            return;
        }
        if constexpr (HB_ALONE<R> && GATED) {
            if (rows_alone(s)) {
                hb_rows_alone<T, R><<<(unsigned)s->D, HB_ROWS_THREADS<R>, HB_ALONE_SHARED<R>,
                                      stream>>>(job);
                return;
            }
        }
        if constexpr (!HB_PAIRED<R> || GATED) {
            const int64_t tiles = (s->B + HB_PACK<R> - 1) / HB_PACK<R>;
            const int64_t chunks = rows_chunks(s, tiles);
            job.tiles = (int)((tiles + chunks - 1) / chunks);
            job.chunks = (int)((tiles + job.tiles - 1) / job.tiles);
            launch_next(after, hb_rows<T, R, GATED>, s->D * job.chunks, HB_ROWS_THREADS<R>,
                        HB_ROWS_SHARED<R>, stream, job);
        }
    });
}

// No gates unless problem.gated.
static struct hb_conv_gates rows_gates(const struct hb_longconv_io *v)
{
    return v->gates ? *v->gates : (struct hb_conv_gates){};
}

// d u is added to the results, exactly: as a tap, a large d would bring the rounding of the whole
// spectrum with it. With gates that would mean to multiply them again, and it is a tap.
static const float *rows_skip(const struct rows_plan *s, const struct hb_longconv_io *v)
{
    return s->gated ? NULL : (const float *)v->d;
}

static void rows_forward(const void *st, const struct hb_longconv_io *v, cudaStream_t stream)
{
    const struct rows_plan *s = (const struct rows_plan *)st;
    const float *const h = (const float *)v->h, *const d = s->gated ? (const float *)v->d : NULL;
    const bool before = !s->fixed && !rows_alone(s);
    if (before) rows_spectrum(s, h, d, stream);
    rows_launch(s, { .in = v->u, .si = v->su, .out = v->y, .so = v->sy, .d = rows_skip(s, v),
                     .gates = rows_gates(v), .K = s->taps, .h = h, .hd = d }, before, stream);
}

// The forward before it left the spectrum.
static void rows_backward(const void *st, const struct hb_longconv_io *v, cudaStream_t stream)
{
    const struct rows_plan *s = (const struct rows_plan *)st;
    struct hb_fused_dh job = { .dy = v->dy, .sdy = v->sdy, .u = v->u, .su = v->su,
                               .du = v->du, .sdu = v->sdu,
                               .dh = (float *)v->dh, .dd = (float *)v->dd,
                               .d = rows_skip(s, v), .matrix = s->matrix,
                               .spectrum = s->spectrum, .undo = s->undo,
                               .B = (int)s->B, .D = (int)s->D, .L = (int)s->L,
                               .gates = rows_gates(v), .K = s->taps };
    rows_by(s, [&](auto r, auto type, auto gated) {
        constexpr int R = decltype(r)::value;
        using T = decltype(type);
        constexpr bool GATED = decltype(gated)::value;
        const unsigned grid = (unsigned)s->D * HB_PARTS<R>;
        if constexpr (HB_PAIRED<R> && !GATED) {
            job.matrix = s->pair;
            hb_rows_pair_dh<T, R><<<grid, 256, HB_PAIR_SHARED<R>, stream>>>(job);
        } else {
            hb_rows_dh<T, R, GATED><<<grid, HB_DH_THREADS<R>, HB_DH_SHARED<R>, stream>>>(job);
        }
    });
}

// --- plan ---------------------------------------------------------------------------------------
static void rows_free(void *st)
{
    struct rows_plan *s = (struct rows_plan *)st;
    if (!s) return;
    hb_fused_free(s->host, { s->matrix, s->pair, s->spectrum, s->undo });
    s->host->free(s->host, s);
}

static int rows_allow(const struct rows_plan *s, bool backward)
{
    int rc = HB_OK;
    rows_by(s, [&](auto r, auto type, auto gated) {
        constexpr int R = decltype(r)::value;
        using T = decltype(type);
        constexpr bool GATED = decltype(gated)::value;
        if constexpr (HB_PAIRED<R> && !GATED)
            rc = hb_fused_allow(s->host, (const void *)hb_rows_pair<T, R>, HB_PAIR_SHARED<R>);
        else
            rc = hb_fused_allow(s->host, (const void *)hb_rows<T, R, GATED>, HB_ROWS_SHARED<R>);
        if constexpr (HB_ALONE<R> && GATED)
            if (!rc)
                rc = hb_fused_allow(s->host, (const void *)hb_rows_alone<T, R>, HB_ALONE_SHARED<R>);
        if (!rc)
            rc = hb_fused_allow(s->host, (const void *)hb_rows_spectrum<R>, HB_ROWS_SHARED<R>);
        if (rc || !backward) return;
        if constexpr (HB_PAIRED<R> && !GATED)
            rc = hb_fused_allow(s->host, (const void *)hb_rows_pair_dh<T, R>, HB_PAIR_SHARED<R>);
        else
            rc = hb_fused_allow(s->host, (const void *)hb_rows_dh<T, R, GATED>, HB_DH_SHARED<R>);
    });
    return rc;
}

static int rows_make(const struct hb_host *host, const struct hb_problem *p,
                     const struct fused_choice *choice, void **st)
{
    struct rows_plan *s = (struct rows_plan *)host->alloc(host, sizeof *s);
    *st = s;
    if (!s) return HB_ERR_OOM;
    *s = { .host = host, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D, .R = choice->R,
           .fixed = p->filter == HB_FILTER_FIXED, .gated = p->gated,
           .backward = p->backward, .taps = p->taps };
    const struct hb_device *dev = host->device;
    s->spectrum = (uint4 *)dev->alloc(dev, (size_t)(s->D * s->R * 256 * 4));
    s->undo = (float *)dev->alloc(dev, (size_t)s->D * sizeof(float));
    if (!s->spectrum || !s->undo) return HB_ERR_OOM;
    int rc = hb_fused_sms(host, &s->sms);
    if (!rc) rc = hb_fused_constants(host, &s->matrix, s->R, 0.25);
    if (!rc && s->R <= 16 && !s->gated) rc = hb_pair_tables(host, &s->pair, s->R);
    if (!rc) rc = rows_allow(s, p->backward);
    return rc;
}

static int rows_describe(const void *st, char *buf, size_t cap)
{
    const struct rows_plan *s = (const struct rows_plan *)st;
    return snprintf(buf, cap, "N = %d x 256, half2 in shared memory", s->R);
}

static const struct fused_method fused_rows = {
    .name = "rows in one block", .refuses = rows_refuses, .plan = rows_make,
    .forward = rows_forward, .backward = rows_backward, .set_filter = rows_set_filter,
    .describe = rows_describe, .free = rows_free,
};

#endif
