// long.cuh: long convolutions whose rows do not fit into one block: three phases over chunks, CUDA.
//     y = h * u (adjoint: correlation), rows of L <= N = R1 N2, N2 = R 256        f16, bf16
// Method    Spectra of a group of channels: sizes of h, columns_in, rows' transform; sizes of their
//           u, all at once: a launch for a chunk alone is too small to be quick. Then for some of
//           these channels and part of the batch: columns_in, rows (transform, product, back),
//           columns_out. What lies between (mid) and a chunk's share of the
//           spectra are at most LONG_CHUNK bytes, always at the same address, and so stay in the L2
//           cache: device memory sees u, h and y. Spectra are read once for each row of the batch,
//           so `ahead` chunks' are made at once: fewer and larger launches. d u is added to the
//           results: as a tap, a large d would bring the rounding of the whole spectrum with it.
// Choice    R1, R. Outer steps cost 8 R1 and 16 R flop a sample; R = 48 keeps N within 1.5 of L.
// Cost      2 launches a chunk (3 where column_both is false), and for `ahead` chunks one and 3 for
//           spectra (none for a fixed filter). A sample, f16: 2 + 2 + 2 + 8 / B bytes of device
//           memory; of L2 2 + 2 + 4 (in), 8 + 4 (rows), 4 + 2 + 2 (out). README.md has times.
// Workspace     CHUNK and SPECTRA, or one row and one spectrum where these are more. With backward
//           (long_dh.cuh) DH_CHUNK for mid instead, SUMS or 8 N bytes, and DH_ROWS to N = 2^20.
//           The most, N = 2^22: 16 MB mid, 32 MB sums and the spectrum. A fixed filter keeps 4 N D
//           bytes of spectra, so does a forward for its backward, to N = 3 2^20.
// Limits    32768 < L <= 2^22 (shorter ones work: N is 65536 then).
#ifndef HB_FUSED_LONG_CUH
#define HB_FUSED_LONG_CUH

#include "columns.cuh"
#include "mid.cuh"

enum {                                   // bytes
    LONG_CHUNK = 24 << 20, LONG_SPECTRA = 16 << 20, LONG_DH_CHUNK = 32 << 20, LONG_SUMS = 17 << 20,
    LONG_PARTS = 4 << 20, LONG_DH_ROWS = 8 << 20,
};

// Channels and rows of the batch that are worked on at once.
struct long_group { int64_t channels, batch; };

struct long_plan {
    const struct hb_host *host;          // borrowed until free
    enum hb_dtype dtype;
    int64_t B, L, D, N;
    int R, sms;                          // sms: of this GPU
    bool fixed;
    bool keeps;                          // all spectra: fixed, or left by forward for backward
    int pieces;                          // of a row, column_parts
    struct long_group chunk, dh;         // dh: of pairs of u and dy, backward
    int64_t spectra;                     // channels whose spectra are made at once
    bool measured;                       // and whose u (dy) is measured at once: else each chunk's
    struct column_tables columns;
    void *tables;                        // owned, and so is what follows
    uint4 *matrix;
    __half *mid;                         // (rows of a chunk, R1, 2, N2), filters: (spectra, ...)
    uint32_t *spectrum;                  // (spectra, or D if it keeps them; N) half2
    float *gain, *back, *length;         // (the same)
    float *scale, *boost;                // (rows that are measured at once)
    struct column_part *part;            // (the same, pieces)
    unsigned *count;                     // (channels of them), 0
    // From here with a backward pass only.
    bool shares;                         // du and dh from one transform of dy: there is memory
    int tiles, parts;                    // rows of a block of long_pairs; so many a channel
    __half *other;                       // borrowed: mid's second half, or (not `shares`) spectrum
    float *scale_u, *bound;              // (rows), (dh.channels)
    int64_t dh_rows;                     // channels whose dh goes out at once; 0: of a chunk
    __half *dh_mid;                      // (dh_rows, R1, 2, N2), or NULL
    float *back_dh;                      // (dh_rows, or dh.channels)
    float4 *sums;                        // (dh.channels, parts, N) float2
    unsigned *tickets;                   // (dh.channels, R1), 0
};

// --- plan --------------------------------------------------------------------------------------
static void long_free(void *st)
{
    struct long_plan *s = (struct long_plan *)st;
    if (!s) return;
    hb_fused_free(s->host, { s->tables, s->matrix, s->mid, s->spectrum, s->gain, s->back, s->length,
                             s->scale, s->boost, s->part, s->count, s->scale_u, s->bound,
                             s->dh_mid, s->back_dh, s->sums, s->tickets });
    s->host->free(s->host, s);
}

// Of `fits` rows, where a channel takes `of_row` for each row of the batch and `of_channel` more:
// all of the batch if that fits, then as many channels as fit. At least one of one.
static inline struct long_group long_fit(int64_t B, int64_t D, int64_t fits, int64_t of_row,
                                         int64_t of_channel)
{
    int64_t most = (fits - of_channel) / of_row;
    if (most < 1) most = 1;
    const int64_t parts = (B + most - 1) / most, batch = (B + parts - 1) / parts;
    int64_t channels = fits / (batch * of_row + of_channel);
    if (channels < 1) channels = 1;
    return { channels < D ? channels : D, batch };
}

// Fewer channels than fit, where blocks of rows then fill their last wave: least time a channel,
// with that of a chunk's launches.
static inline void long_fill_waves(const struct long_plan *s, struct long_group *group,
                                   int64_t slots)
{
    const int64_t most = group->channels;
    float best = 0;
    for (int64_t n = most; 2 * n > most; n--) {
        int tiles, parts;
        const float time = mid_deal(&tiles, &parts, group->batch, n * s->columns.R1, slots,
                                    group->batch);
        const float each = (time + 2) / (float)n;
        if (best > 0 && each >= best) continue;
        best = each;
        group->channels = n;
    }
}

static inline void long_sizes(struct long_plan *s, bool backward)
{
    const int64_t row = 4 * s->N;
    const int64_t slots = (int64_t)s->sms * (s->R > 32 ? 1 : 2);        // blocks of long_pairs
    s->chunk = long_fit(s->B, s->D, LONG_CHUNK / row, 1, 1);
    long_fill_waves(s, &s->chunk, 2 * s->sms);
    int64_t ahead = LONG_SPECTRA / row / s->chunk.channels;
    if (ahead > s->chunk.batch) ahead = s->chunk.batch;      // mid must hold them
    if (ahead < 1) ahead = 1;
    s->spectra = s->chunk.channels * ahead < s->D ? s->chunk.channels * ahead : s->D;
    s->measured = s->spectra * s->B * s->pieces <= LONG_PARTS / (int64_t)sizeof *s->part;
    s->keeps = s->fixed;
    if (!backward) return;
    s->dh = long_fit(s->B, s->D, LONG_DH_CHUNK / row, 2, 0);
    const int64_t sums = LONG_SUMS / (2 * row) > 1 ? LONG_SUMS / (2 * row) : 1;
    if (s->dh.channels > sums) s->dh.channels = sums;
    long_fill_waves(s, &s->dh, slots);
    s->shares = 4 * row < 64 << 20;      // two of mid and the sums
    s->keeps = s->fixed || s->shares;
    const int64_t together = LONG_DH_ROWS / row / s->dh.channels * s->dh.channels;
    s->dh_rows = s->shares && together > s->dh.channels ? together : 0;
    mid_deal(&s->tiles, &s->parts, s->dh.batch, s->dh.channels * s->columns.R1, slots,
             LONG_SUMS / (s->dh.channels * 8 * s->N));
}

// Device memory, as long as nothing failed.
template <class T>
static inline void long_take(const struct long_plan *s, int *rc, T **to, int64_t n)
{
    if (*rc) return;
    *to = (T *)s->host->device->alloc(s->host->device, (size_t)n * sizeof **to);
    if (!*to) *rc = HB_ERR_OOM;
}

static inline int64_t long_most(int64_t a, int64_t b) { return a > b ? a : b; }

// Rows that are measured at once, forward (spectra <= rows of a chunk) or backward.
static inline int64_t long_measured(const struct long_plan *s)
{
    const int64_t forward = s->measured ? s->spectra * s->B : s->chunk.channels * s->chunk.batch;
    return long_most(forward, s->dh.channels * s->dh.batch);
}

static inline int long_take_all(struct long_plan *s, bool backward)
{
    const int64_t kept = s->keeps ? s->D : s->spectra, pairs = s->dh.channels * s->dh.batch;
    const int64_t mids = long_most(s->chunk.channels * s->chunk.batch,
                                   backward ? pairs * (s->shares ? 2 : 1) : 0);
    const int64_t rows = long_measured(s);
    int rc = HB_OK;
    long_take(s, &rc, &s->mid, mids * 2 * s->N);
    long_take(s, &rc, &s->scale, rows);
    long_take(s, &rc, &s->part, rows * s->pieces);
    long_take(s, &rc, &s->count, rows);
    long_take(s, &rc, &s->spectrum, kept * s->N);
    long_take(s, &rc, &s->gain, kept);
    long_take(s, &rc, &s->back, kept);
    long_take(s, &rc, &s->length, kept);
    long_take(s, &rc, &s->boost, rows);
    if (!backward) return rc;
    long_take(s, &rc, &s->scale_u, pairs);
    long_take(s, &rc, &s->bound, s->dh.channels);
    long_take(s, &rc, &s->back_dh, long_most(s->dh_rows, s->dh.channels));
    if (s->dh_rows) long_take(s, &rc, &s->dh_mid, s->dh_rows * 2 * s->N);
    long_take(s, &rc, &s->sums, s->dh.channels * s->parts * s->N / 2);
    long_take(s, &rc, &s->tickets, s->dh.channels * s->columns.R1);
    s->other = s->shares ? s->mid + pairs * 2 * s->N : (__half *)s->spectrum;
    return rc;
}

// --- run ---------------------------------------------------------------------------------------
// Calls f with a value of the signals' type.
template <class F> static inline void long_by_type(const struct long_plan *s, F f)
{
    if (s->dtype == HB_F16) f(__half());
    else f(__nv_bfloat16());
}

// `batch` entries from b on, of the channels from c on, of a signal.
static inline struct column_rows long_signal(const struct long_plan *s, const void *x,
                                             struct hb_strides sx, int64_t c, int64_t b,
                                             int64_t batch, __half *mid, float *scale, float *boost)
{
    return { (char *)x + 2 * (c * sx.c + b * sx.b), sx, (int)batch, (int)s->L, mid, 2 * s->N, scale,
             boost };
}

static inline struct mid_job long_mid(const struct long_plan *s, int64_t kept, const float *boost,
                                      int64_t n, int64_t batch, bool adjoint)
{
    return { .mid = (unsigned short *)s->mid, .spectrum = (uint4 *)(s->spectrum + kept * s->N),
             .gain = s->gain + kept, .boost = boost, .matrix = s->matrix, .channels = (int)n,
             .batch = (int)batch, .R1 = s->columns.R1, .adjoint = adjoint };
}

// Spectra of n channels from c on, stored from `kept` on. h (D,L).
static inline void long_spectrum(const struct long_plan *s, const float *h, int64_t c, int64_t n,
                                 int64_t kept, cudaStream_t stream)
{
    const struct column_rows j = { (void *)(h + c * s->L), { 0, s->L }, 1, (int)s->L, s->mid,
                                   2 * s->N, s->scale, NULL };
    const struct column_survey k = { .x = j, .pieces = s->pieces, .part = s->part,
                                     .count = s->count, .N = (float)s->N, .gain = s->gain + kept,
                                     .back = s->back + kept, .own_length = s->length + kept };
    launch_parts<float, false>(&k, n, stream);
    launch_in<float>(&j, 1, n, false, &s->columns, s->sms, stream);
    mid_launch<true>(long_mid(s, kept, NULL, n, 1, false), s->R, s->sms, stream);
}

// Calls f(c, n, kept) for groups of channels: n from c on, whose spectra are there, from `kept` on:
// they are made of h, or (NULL) have been before.
template <class F>
static inline void long_groups(const struct long_plan *s, const float *h, cudaStream_t stream, F f)
{
    for (int64_t c = 0; c < s->D; c += s->spectra) {
        const int64_t n = s->D - c < s->spectra ? s->D - c : s->spectra, kept = s->keeps ? c : 0;
        if (h) long_spectrum(s, h, c, n, kept, stream);
        f(c, n, kept);
    }
}

// Calls f(c, n, b, batch) for chunks of n channels, from the first one on: `batch` entries from b
// on, of n channels from c on. A chunk has one channel or all of the batch: long_fit.
template <class F>
static inline void long_chunks(const struct long_plan *s, const struct long_group &most,
                               int64_t channels, F f)
{
    for (int64_t c = 0; c < channels; c += most.channels)
        for (int64_t b = 0; b < s->B; b += most.batch)
            f(c, channels - c < most.channels ? channels - c : most.channels, b,
              s->B - b < most.batch ? s->B - b : most.batch);
}

// y = h * u + d u, or (u is dy, y is du) the adjoint. h NULL: the spectra are there.
template <class T>
static inline void long_run_of(const struct long_plan *s, const float *h, const float *d,
                               const void *u, struct hb_strides su, void *y, struct hb_strides sy,
                               bool adjoint, cudaStream_t stream)
{
    long_groups(s, h, stream, [&](int64_t c0, int64_t channels, int64_t kept0) {
        // Rows c - c0 .. of the group, entries b ..; early: the kernel before does not write them.
        const auto measure = [&](const struct column_rows &x, int64_t n, int64_t kept, bool early) {
            const struct column_survey k = { .x = x, .pieces = s->pieces, .part = s->part,
                                             .count = s->count, .N = (float)s->N,
                                             .length = s->length + kept, .early = early };
            launch_parts<T, false>(&k, n * x.batch, stream);
        };
        if (s->measured)
            measure(long_signal(s, u, su, c0, 0, s->B, s->mid, s->scale, s->boost), channels, kept0,
                    h || c0 > 0);
        // A chunk goes out in one launch with the next one's way in, where both are known by then.
        const bool both = s->measured && column_both(s->columns.R1);
        struct column_chunks all = {};
        const auto out = [&]() {
            launch_out<T>(&all.out, all.out_rows, &s->columns, s->sms, all.back, all.skip, stream);
            all.out_rows = 0;
        };
        long_chunks(s, s->chunk, channels, [&](int64_t i, int64_t n, int64_t b, int64_t batch) {
            const int64_t c = c0 + i, kept = kept0 + i, at = s->measured ? i * s->B + b : 0;
            float *const scale = s->scale + at, *const boost = s->boost + at;
            const struct column_rows j = long_signal(s, u, su, c, b, batch, s->mid, scale, boost);
            if (!s->measured) measure(j, n, kept, c > 0 || b > 0);
            if (all.out_rows > 0) {
                all.in = j;
                all.in_rows = (int)(n * batch);
                launch_out_in<T>(&all, &s->columns, stream);
            } else {
                launch_in<T>(&j, 1, n * batch, s->measured && at > 0, &s->columns, s->sms, stream);
            }
            mid_launch<false>(long_mid(s, kept, boost, n, batch, adjoint), s->R, s->sms, stream);
            all.out = long_signal(s, y, sy, c, b, batch, s->mid, scale, boost);
            all.out_rows = (int)(n * batch);
            all.back = s->back + kept;
            all.skip = { j.x, su, d ? d + c : NULL };
            if (!both) out();
        });
        if (both) out();
    });
}

static inline void long_run(const struct long_plan *s, const float *h, const float *d,
                            const void *u, struct hb_strides su, void *y, struct hb_strides sy,
                            bool adjoint, cudaStream_t stream)
{
    long_by_type(s, [&](auto x) {
        long_run_of<decltype(x)>(s, h, d, u, su, y, sy, adjoint, stream);
    });
}
#endif
