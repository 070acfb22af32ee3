// longconv_direct.c: causal long convolution by its definition, blocked and vectorised, CPU.
//     y[b,c,t] = sum_{s=0..t} h[c,s] u[b,c,t-s] + d[c] u[b,c,t]   u,y (B,D,L)  h (D,L)  float32
// Method    tiles of 64 outputs in 8 vector registers. For one of 8 shifts r, the vector u[t+8m-r]
//           serves every (output vector j, tap 8k+r) with j-k = m: 11 loads and 4 broadcasts for 32
//           fused multiply-adds. Backward is the same sum on reversed rows, x'[i] = x[L-1-i]:
//               du' = h * dy'          dh' = sum_b dy'_b * u_b
//           Gates and short filters (hb_conv_gates) row by row around that sum, nothing is saved.
// Cost      L(L+1) flop a row forward, twice that backward; the plan keeps 3 padded rows a thread,
//           gated with a backward pass 6.
// Source    Poli et al. 2023, arXiv:2302.10866, section 2, equation 1.
// Accuracy  sums of 64 taps in registers, of 32 such sums, of those, so that equal terms do no
//           harm: rel. L2 measured at most 2.0e-7 for normal and 3.2e-7 for constant inputs up to
//           L = 65536.
// Refuses   dtypes other than f32.
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "hb.h"
#include "taps.h"

typedef float v8 __attribute__((vector_size(32)));
typedef float v8u __attribute__((vector_size(32), aligned(4), may_alias));

enum {
    LANES = 8,
    NJ = 8,               // output vectors of a tile: 8 chains cover the latency of 2 x 4 FMAs
    NK = 4,               // tap groups of a block: 8 sums + 4 taps + 1 load fit into 16 registers
    TILE = LANES * NJ,
    TAPS = LANES * NK,
    CHUNK = 2 * TAPS,     // taps summed in registers before they are added to the next level
    LEVEL = 32 * CHUNK,   // taps summed in the second level
    FRONT = 16,           // zeros before a row: the diagonal reads 7 back; 16 keep it aligned
};

// Padded rows of one worker; outside [0,L), x and h stay zero. Borrowed from state.work.
struct rows {
    float *x, *h, *o;     // (padded) each; x has FRONT zeros before it
    float *r, *g, *s;     // (padded) each; only for a gated backward pass
};

struct state {
    const struct hb_host *host;
    int64_t B, L, D;
    int64_t padded;       // L rounded up to tiles
    int threads;
    int taps, n_rows;     // n_rows: of a worker
    bool split;           // too few rows for the threads: they share the tiles of one row
    float *work;          // owned: threads x (FRONT + n_rows padded)
    float *fixed;         // owned: (D,padded) filters, FIXED only
};

static const char *refuses(const struct hb_problem *p)
{
    return p->dtype == HB_F32 ? NULL : "float32 only";
}

static size_t rows_len(const struct state *s)
{
    return (size_t)(FRONT + s->n_rows * s->padded);
}

static struct rows rows_of(const struct state *s, int worker)
{
    float *x = s->work + (size_t)worker * rows_len(s) + FRONT;
    const int64_t n = s->padded;
    struct rows w = { .x = x, .h = x + n, .o = x + 2 * n };
    if (s->n_rows == 6) w.r = x + 3 * n, w.g = x + 4 * n, w.s = x + 5 * n;
    return w;
}

// sum[j] += taps 0..31 of h on the nj output vectors of which u is the first, at tap 0.
//   from    lowest offset j-k that meets a sample: 1-NK, or 0 on the diagonal (zeros before it)
static inline __attribute__((always_inline)) void add_taps(v8 *sum, const float *u, const float *h,
                                                           int nj, int from)
{
    for (int r = 0; r < LANES; r++) {
        v8 tap[NK];
#pragma GCC unroll 4
        for (int k = 0; k < NK; k++)
            tap[k] = (v8){ 0 } + h[LANES * k + r];
#pragma GCC unroll 16
        for (int m = from; m < nj; m++) {
            const v8 v = *(const v8u *)(u + LANES * m - r);
#pragma GCC unroll 4
            for (int k = 0; k < NK; k++)
                if (m + k >= 0 && m + k < nj)
                    sum[m + k] += tap[k] * v;
        }
    }
}

static inline __attribute__((always_inline)) void move_sum(v8 *to, v8 *from)
{
    for (int j = 0; j < NJ; j++) {
        to[j] += from[j];
        from[j] = (v8){ 0 };
    }
}

// o[t0..t0+63] = causal sum of x and h; t0 is a multiple of TILE.
static void tile(const struct rows *w, const float *h, int64_t t0)
{
    v8 total[NJ] = { 0 }, middle[NJ] = { 0 };
    for (int64_t s = 0; s < t0;) {
        v8 sum[NJ] = { 0 };
        const int64_t end = s + CHUNK;        // CHUNK divides TILE, so t0 is never passed
        for (; s < end; s += TAPS)
            add_taps(sum, w->x + t0 - s, h + s, NJ, 1 - NK);
        move_sum(middle, sum);
        if (s % LEVEL == 0)
            move_sum(total, middle);
    }
    v8 sum[NJ] = { 0 };
    add_taps(sum, w->x, h + t0, NJ, 0);
    add_taps(sum + NK, w->x, h + t0 + TAPS, NJ - NK, 0);
    for (int j = 0; j < NJ; j++)
        *(v8 *)(w->o + t0 + LANES * j) = total[j] + (middle[j] + sum[j]);
}
_Static_assert(TILE % CHUNK == 0 && NJ == 2 * NK && LEVEL % CHUNK == 0, "tile() relies on these");

// o[0..L) = causal sum of x and h (padded). `split`: called outside of any parallel region.
static void convolve(const struct state *s, const struct rows *w, const float *h)
{
    if (!s->split) {
        for (int64_t t0 = 0; t0 < s->L; t0 += TILE)
            tile(w, h, t0);
        return;
    }
    const int64_t tiles = s->padded / TILE;
#pragma omp parallel for num_threads(s->threads) schedule(dynamic)
    for (int64_t i = 0; i < tiles; i++)
        tile(w, h, (tiles - 1 - i) * TILE);   // the long ones first
}

static void copy(float *to, const float *from, int64_t n)
{
    memcpy(to, from, (size_t)n * sizeof *to);
}

static void copy_reversed(float *restrict to, const float *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = from[n - 1 - i];
}

// sum_t a[t] b[t]; products of float32 are exact in float64.
static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t t = 0; t < n; t++)
        sum += (double)a[t] * (double)b[t];
    return sum;
}

// The channel's filter, padded: the fixed one, or copied now.
static const float *filter_of(const struct state *s, const struct rows *w, const float *h,
                              int64_t c)
{
    if (s->fixed)
        return s->fixed + c * s->padded;
    copy(w->h, h + c * s->L, s->L);
    return w->h;
}

// --- gates: r = tap(u) tap(pre), z = h * r + d r, y = tap(post) z --------------------------------

static const float *row_of(const void *x, struct hb_strides s, int64_t b, int64_t c)
{
    return (const float *)x + b * s.b + c * s.c;
}
static float *own_row(void *x, struct hb_strides s, int64_t b, int64_t c)
{
    return (float *)x + b * s.b + c * s.c;
}

static void times(float *restrict a, const float *restrict b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        a[i] *= b[i];
}

// s = tap of the gate's row.
static void tap_gate(const struct state *st, float *s, const struct hb_conv_gate *g, int64_t b,
                     int64_t c)
{
    hb_tap_row(s, row_of(g->x, g->sx, b, c), &g->tap, c, st->taps, st->L);
}

// r = tap(u) tap(pre); `free` is overwritten.
static void gated_input(const struct state *s, float *r, float *free,
                        const struct hb_longconv_io *io, int64_t b, int64_t c)
{
    hb_tap_row(r, row_of(io->u, io->su, b, c), &io->gates->u, c, s->taps, s->L);
    if (!io->gates->pre.x)
        return;
    tap_gate(s, free, &io->gates->pre, b, c);
    times(r, free, s->L);
}

static void gated_row(const struct state *s, struct rows w, const struct hb_longconv_io *io,
                      int64_t b, int64_t c)
{
    float *y = own_row(io->y, io->sy, b, c);
    const float d = io->d ? ((const float *)io->d)[c] : 0;
    gated_input(s, w.x, w.o, io, b, c);
    convolve(s, &w, filter_of(s, &w, io->h, c));
    for (int64_t t = 0; t < s->L; t++)
        y[t] = w.o[t] + d * w.x[t];
    if (!io->gates->post.x)
        return;
    tap_gate(s, w.h, &io->gates->post, b, c);    // the filter is read again for the next row
    times(y, w.h, s->L);
}

// w.g = dz; dpost and the gradients of its filter.
static void gated_back_post(const struct state *s, struct rows w, const struct hb_longconv_io *io,
                            float d, int64_t b, int64_t c)
{
    const struct hb_conv_gate *post = &io->gates->post;
    const float *dy = row_of(io->dy, io->sdy, b, c);
    if (!post->x) {
        copy(w.g, dy, s->L);
        return;
    }
    copy(w.x, w.r, s->L);
    convolve(s, &w, filter_of(s, &w, io->h, c));
    tap_gate(s, w.h, post, b, c);
    for (int64_t t = 0; t < s->L; t++) {
        w.g[t] = dy[t] * w.h[t];
        w.s[t] = dy[t] * (w.o[t] + d * w.r[t]);
    }
    hb_tap_row_bwd(own_row(post->dx, post->sdx, b, c), w.s, row_of(post->x, post->sx, b, c),
                   &post->tap, c, s->taps, s->L);
}

// w.s = dr: du, dpre and the gradients of their filters.
static void gated_back_pre(const struct state *s, struct rows w, const struct hb_longconv_io *io,
                           int64_t b, int64_t c)
{
    const struct hb_conv_gate *pre = &io->gates->pre;
    const float *u = row_of(io->u, io->su, b, c);
    float *du = own_row(io->du, io->sdu, b, c);
    copy(w.o, w.s, s->L);
    if (pre->x) {
        tap_gate(s, w.h, pre, b, c);
        times(w.o, w.h, s->L);
        hb_tap_row(w.h, u, &io->gates->u, c, s->taps, s->L);
        times(w.s, w.h, s->L);
        hb_tap_row_bwd(own_row(pre->dx, pre->sdx, b, c), w.s, row_of(pre->x, pre->sx, b, c),
                       &pre->tap, c, s->taps, s->L);
    }
    hb_tap_row_bwd(du, w.o, u, &io->gates->u, c, s->taps, s->L);
}

// One channel, the batch in order.
static void gated_back(const struct state *s, struct rows w, const struct hb_longconv_io *io,
                       int64_t c)
{
    const int64_t L = s->L;
    float *dh = (float *)io->dh + c * L;
    const float d = io->d ? ((const float *)io->d)[c] : 0;
    double dd = 0;
    for (int64_t b = 0; b < s->B; b++) {
        gated_input(s, w.r, w.o, io, b, c);
        gated_back_post(s, w, io, d, b, c);
        copy_reversed(w.x, w.g, L);
        convolve(s, &w, filter_of(s, &w, io->h, c));
        for (int64_t t = 0; t < L; t++)
            w.s[t] = w.o[L - 1 - t] + d * w.g[t];
        copy(w.h, w.r, L);
        convolve(s, &w, w.h);
        for (int64_t t = 0; t < L; t++)
            dh[t] += w.o[L - 1 - t];
        dd += dot(w.g, w.r, L);
        gated_back_pre(s, w, io, b, c);
    }
    if (io->dd)
        ((float *)io->dd)[c] += (float)dd;
}

// --- rows and channels ---------------------------------------------------------------------------

static void forward_row(const struct state *s, struct rows w, const struct hb_longconv_io *io,
                        int64_t b, int64_t c)
{
    if (io->gates) {
        gated_row(s, w, io, b, c);
        return;
    }
    const float *u = (const float *)io->u + b * io->su.b + c * io->su.c;
    float *y = (float *)io->y + b * io->sy.b + c * io->sy.c;
    const float d = io->d ? ((const float *)io->d)[c] : 0;
    copy(w.x, u, s->L);
    convolve(s, &w, filter_of(s, &w, io->h, c));
    for (int64_t t = 0; t < s->L; t++)
        y[t] = w.o[t] + d * u[t];
}

// One channel, the batch in order: du rows, dh += and dd +=.
static void backward_channel(const struct state *s, struct rows w, const struct hb_longconv_io *io,
                             int64_t c)
{
    if (io->gates) {
        gated_back(s, w, io, c);
        return;
    }
    const int64_t L = s->L;
    float *dh = (float *)io->dh + c * L;
    const float d = io->d ? ((const float *)io->d)[c] : 0;
    double dd = 0;
    for (int64_t b = 0; b < s->B; b++) {
        const float *u = (const float *)io->u + b * io->su.b + c * io->su.c;
        const float *dy = (const float *)io->dy + b * io->sdy.b + c * io->sdy.c;
        float *du = (float *)io->du + b * io->sdu.b + c * io->sdu.c;
        copy_reversed(w.x, dy, L);
        convolve(s, &w, filter_of(s, &w, io->h, c));
        for (int64_t t = 0; t < L; t++)
            du[t] = w.o[L - 1 - t] + d * dy[t];
        copy(w.h, u, L);
        convolve(s, &w, w.h);
        for (int64_t t = 0; t < L; t++)
            dh[t] += w.o[L - 1 - t];
        if (io->dd)
            dd += dot(dy, u, L);
    }
    if (io->dd)
        ((float *)io->dd)[c] += (float)dd;
}

// Which thread takes a row changes nothing in the result: chunks are taken as they come.
static int forward(void *st, const struct hb_io *io)
{
    const struct state *s = st;
    const int64_t rows = s->B * s->D;
    if (s->split) {
        for (int64_t i = 0; i < rows; i++)
            forward_row(s, rows_of(s, 0), &io->conv, i % s->B, i / s->B);
        return HB_OK;
    }
#pragma omp parallel for num_threads(s->threads) schedule(dynamic, 1 + rows / (8 * s->threads))
    for (int64_t i = 0; i < rows; i++)
        forward_row(s, rows_of(s, omp_get_thread_num()), &io->conv, i % s->B, i / s->B);
    return HB_OK;
}

static int backward(void *st, const struct hb_io *io)
{
    const struct state *s = st;
    if (s->split) {
        for (int64_t c = 0; c < s->D; c++)
            backward_channel(s, rows_of(s, 0), &io->conv, c);
        return HB_OK;
    }
#pragma omp parallel for num_threads(s->threads) schedule(dynamic, 1 + s->D / (8 * s->threads))
    for (int64_t c = 0; c < s->D; c++)
        backward_channel(s, rows_of(s, omp_get_thread_num()), &io->conv, c);
    return HB_OK;
}

// Keeps the filters padded; a direct sum has nothing else to prepare.
static int set_filter(void *st, const void *h)
{
    struct state *s = st;
    for (int64_t c = 0; c < s->D; c++)
        copy(s->fixed + c * s->padded, (const float *)h + c * s->L, s->L);
    return HB_OK;
}

static void destroy(void *st)
{
    struct state *s = st;
    if (!s)
        return;
    s->host->free(s->host, s->work);
    s->host->free(s->host, s->fixed);
    s->host->free(s->host, s);
}

static float *zeros(const struct hb_host *host, size_t n)
{
    float *x = host->alloc(host, n * sizeof *x);
    if (x)
        memset(x, 0, n * sizeof *x);
    return x;
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    struct state *s = host->alloc(host, sizeof *s);
    if (!s)
        return HB_ERR_OOM;
    *s = (struct state){ .host = host, .B = p->B, .L = p->L, .D = p->D, .threads = p->threads,
                        .taps = p->taps, .n_rows = p->gated && p->backward ? 6 : 3 };
    s->padded = (p->L + TILE - 1) / TILE * TILE;
    // Tiles are worth sharing where whole channels would leave threads idle and a row is long
    // enough to pay for waking them (a row of 1024 takes about 10 us).
    s->split = p->threads > 1 && p->L >= 1024 && p->D % p->threads && p->D < 4 * p->threads;
    s->work = zeros(host, (size_t)p->threads * rows_len(s));
    if (!s->work)
        goto fail;
    if (p->filter == HB_FILTER_FIXED) {
        s->fixed = zeros(host, (size_t)(p->D * s->padded));
        if (!s->fixed)
            goto fail;
    }
    *st = s;
    return HB_OK;
fail:
    destroy(s);
    return HB_ERR_OOM;
}

static int describe(const void *st, char *buf, size_t cap)
{
    const struct state *s = st;
    snprintf(buf, cap, "tile %d outputs x %d taps, sums of %d and %d taps, %s", TILE, TAPS, CHUNK,
             LEVEL, s->split ? "tiles shared by threads" : "rows by threads");
    return HB_OK;
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "longconv_direct",
    .op = HB_LONGCONV,
    .device = "cpu",
    .dtypes = 1u << HB_F32,
    .source = "Poli et al. 2023, arXiv:2302.10866, eq. 1; own kernel",
    .complexity = "O(L^2)",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .set_filter = set_filter,
    .describe = describe,
    .gates = true,
};
