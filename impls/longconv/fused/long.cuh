// long.cuh: long convolutions whose rows do not fit into one block: three phases over chunks, CUDA.
//     y = h * u (adjoint: correlation), rows of L <= N = R1 N2, N2 = R 256        f16, bf16
// Method    Spectra of a group of channels: sizes of h, columns_in, rows' transform. Then for some
//           of these channels and part of the batch: sizes of u, columns_in, rows (transform,
//           product, back), columns_out. What lies between (mid) and a chunk's share of the
//           spectra are at most LONG_CHUNK bytes, always at the same address, and so stay in the L2
//           cache: device memory sees u, h and y. Spectra are read once for each row of the batch,
//           so `ahead` chunks' are made at once: fewer and larger launches. d u is added to the
//           results: as a tap, a large d would bring the rounding of the whole spectrum with it.
// Choice    R1, R. Outer steps cost 8 R1 and 16 R flop a sample; R = 48 keeps N within 1.5 of L.
// Cost      4 launches a chunk and 4 more for `ahead` chunks' spectra (none for a fixed filter).
//           A sample, f16: 2 + 2 + 8 / B bytes of device memory at best; of L2 2 + 2 + 4 (in), 8 +
//           4 (rows), 4 + 2 + 2 (out). Predicted at 4 TB/s of L2: 6.5 ps, and 2 us for each launch.
// Workspace     CHUNK and SPECTRA, or one row and one spectrum where these are more; with backward
//           8 N bytes more for each channel of a chunk. The most, N = 2^22: 16 MB mid, 32 MB sums
//           and the spectrum. A fixed filter keeps 4 N D bytes of spectra; with backward mid twice.
// Limits    32768 < L <= 2^22 (shorter ones work: N is 65536 then).
#ifndef HB_FUSED_LONG_CUH
#define HB_FUSED_LONG_CUH

#include "columns.cuh"
#include "rows.cuh"

enum { LONG_CHUNK = 24 << 20, LONG_SPECTRA = 16 << 20, LONG_DH_CHUNK = 32 << 20 };     // bytes

// Channels and rows of the batch that are worked on at once.
struct long_group { int64_t channels, batch; };

struct long_plan {
    const struct hb_host *host;          // borrowed until free
    enum hb_dtype dtype;
    int64_t B, L, D, N;
    int R, sms;                          // sms: of this GPU
    bool fixed;
    int pieces;                          // of a row, column_parts
    struct long_group chunk, dh;         // dh: of the gradient
    int64_t spectra;                     // channels whose spectra are made at once
    struct column_tables columns;
    void *tables;                        // owned, and so is what follows
    uint4 *matrix;
    __half *mid;                         // (chunk, R1, 2, N2); spectra: (channels, R1, 2, N2)
    uint32_t *spectrum;                  // (spectra, or D if fixed; N) half2
    float *gain, *back, *length;         // (the same)
    float *boost;                        // (chunk)
    float2 *part;                        // (chunk, COLUMN_PIECES at most)
    __half *other;                       // from here with a backward pass only; (dh, R1, 2, N2),
                                         // fresh filters: the same memory as `spectrum`
    float4 *sums;                        // (dh.channels, N) float2
    float2 *part_dy;                     // like part
    float *keep, *back_dh, *dots;        // (dh), (dh.channels), (dh.channels, pieces)
};

// --- plan --------------------------------------------------------------------------------------
static void long_free(void *st)
{
    struct long_plan *s = (struct long_plan *)st;
    if (!s) return;
    const struct hb_device *dev = s->host->device;
    void *const owned[] = { s->tables, s->matrix, s->mid, s->spectrum, s->gain, s->back, s->part,
                            s->length, s->boost, s->fixed ? s->other : NULL, s->sums, s->part_dy,
                            s->keep, s->back_dh, s->dots };
    for (void *p : owned)
        if (p) dev->free(dev, p);
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

static inline void long_sizes(struct long_plan *s)
{
    const int64_t row = 4 * s->N, fresh = !s->fixed;
    s->chunk = long_fit(s->B, s->D, LONG_CHUNK / row, 1, fresh);
    int64_t ahead = LONG_SPECTRA / row / s->chunk.channels;
    if (ahead > s->chunk.batch) ahead = s->chunk.batch;      // mid must hold them
    if (ahead < 1) ahead = 1;
    s->spectra = s->chunk.channels * ahead < s->D ? s->chunk.channels * ahead : s->D;
    s->dh = long_fit(s->chunk.batch, s->chunk.channels, LONG_DH_CHUNK / row, 2, 2);
}

// Device memory, as long as nothing failed.
template <class T>
static inline void long_take(const struct long_plan *s, int *rc, T **to, int64_t n)
{
    if (*rc) return;
    *to = (T *)s->host->device->alloc(s->host->device, (size_t)n * sizeof **to);
    if (!*to) *rc = HB_ERR_OOM;
}

static inline int long_take_all(struct long_plan *s, bool backward)
{
    const int64_t rows = s->chunk.channels * s->chunk.batch, kept = s->fixed ? s->D : s->spectra;
    const int64_t rows_dh = s->dh.channels * s->dh.batch;
    int rc = HB_OK;
    long_take(s, &rc, &s->mid, rows * 2 * s->N);
    long_take(s, &rc, &s->spectrum, (backward && !s->fixed && rows_dh > kept ? rows_dh : kept)
                                    * s->N);
    long_take(s, &rc, &s->gain, kept);
    long_take(s, &rc, &s->back, kept);
    long_take(s, &rc, &s->length, kept);
    long_take(s, &rc, &s->boost, rows);
    long_take(s, &rc, &s->part, rows * COLUMN_PIECES);
    if (!backward) return rc;
    if (s->fixed) long_take(s, &rc, &s->other, rows_dh * 2 * s->N);
    else s->other = (__half *)s->spectrum;
    long_take(s, &rc, &s->sums, s->dh.channels * s->N / 2);
    long_take(s, &rc, &s->part_dy, rows_dh * COLUMN_PIECES);
    long_take(s, &rc, &s->keep, rows_dh);
    long_take(s, &rc, &s->back_dh, s->dh.channels);
    long_take(s, &rc, &s->dots, s->dh.channels * s->pieces);
    return rc;
}

// --- run ---------------------------------------------------------------------------------------
static inline struct hb_fused_mid long_mid(const struct long_plan *s, int64_t kept, int64_t n,
                                           int64_t batch)
{
    return { .mid = s->mid, .spectrum = s->spectrum + kept * s->N, .gain = s->gain + kept,
             .matrix = s->matrix, .channels = n, .batch = batch, .R1 = s->columns.R1, .R = s->R,
             .blocks = 8 * s->sms };
}

// Spectra of n channels from c on, stored from `kept` on. h (D,L).
static inline void long_spectrum(const struct long_plan *s, const float *h, int64_t c, int64_t n,
                                 int64_t kept, cudaStream_t stream)
{
    const struct column_rows j = { (void *)(h + c * s->L), { 0, s->L }, s->part, 1, (int)s->L,
                                   s->pieces, NULL, NULL };
    launch_parts<float>(j, n, stream);
    column_gains<<<(unsigned)((n + 127) / 128), 128, 0, stream>>>(
        s->gain + kept, s->back + kept, s->length + kept, s->part, s->pieces, (int)n,
        (float)s->N);
    launch_in<float>(j, n, &s->columns, s->mid, stream);
    const struct hb_fused_mid m = long_mid(s, kept, n, 1);
    hb_fused_mid_spectrum(&m, stream);
}

// A fixed filter's spectra, before the first long_run.
static inline void long_filter(const struct long_plan *s, const float *h, cudaStream_t stream)
{
    for (int64_t c = 0; c < s->D; c += s->spectra)
        long_spectrum(s, h, c, s->D - c < s->spectra ? s->D - c : s->spectra, c, stream);
}

// Rows of m->batch entries from b on, of m->channels channels from c on. d (D): added, or NULL.
template <class T>
static inline void long_rows(const struct long_plan *s, const struct hb_fused_mid *m, const void *u,
                             struct hb_strides su, void *y, struct hb_strides sy, int64_t c,
                             int64_t b, const float *back, const float *length, const float *d,
                             bool adjoint, cudaStream_t stream)
{
    const int64_t rows = m->channels * m->batch;
    struct column_rows j = { (T *)u + c * su.c + b * su.b, su, s->part, (int)m->batch, (int)s->L,
                             s->pieces, s->boost, length };
    const struct column_skip skip = { j.x, su, d ? d + c : NULL };
    launch_parts<T>(j, rows, stream);
    launch_in<T>(j, rows, &s->columns, s->mid, stream);
    hb_fused_mid_convolve(m, adjoint, stream);
    j.x = (T *)y + c * sy.c + b * sy.b;
    j.sx = sy;
    launch_out<T>(j, rows, &s->columns, s->mid, back, skip, stream);
}

// The channels [c, c + n) whose spectra are stored from `kept` on, all of the batch.
static inline void long_chunk(const struct long_plan *s, const float *d, const void *u,
                              struct hb_strides su, void *y, struct hb_strides sy, int64_t c,
                              int64_t n, int64_t kept, bool adjoint, cudaStream_t stream)
{
    const float *const back = s->back + kept, *const length = s->length + kept;
    for (int64_t b = 0; b < s->B; b += s->chunk.batch) {
        struct hb_fused_mid m = long_mid(s, kept, n, s->B - b < s->chunk.batch ? s->B - b
                                                                             : s->chunk.batch);
        m.boost = s->boost;
        if (s->dtype == HB_F16)
            long_rows<__half>(s, &m, u, su, y, sy, c, b, back, length, d, adjoint, stream);
        else
            long_rows<__nv_bfloat16>(s, &m, u, su, y, sy, c, b, back, length, d, adjoint, stream);
    }
}

// y = h * u + d u, or (u is dy, y is du) the adjoint. h is not read where the filter is fixed.
static inline void long_run(const struct long_plan *s, const float *h, const float *d,
                            const void *u, struct hb_strides su, void *y, struct hb_strides sy,
                            bool adjoint, cudaStream_t stream)
{
    for (int64_t c0 = 0; c0 < s->D; c0 += s->spectra) {
        const int64_t end = s->D - c0 < s->spectra ? s->D : c0 + s->spectra;
        if (!s->fixed) long_spectrum(s, h, c0, end - c0, 0, stream);
        for (int64_t c = c0; c < end; c += s->chunk.channels)
            long_chunk(s, d, u, su, y, sy, c,
                       end - c < s->chunk.channels ? end - c : s->chunk.channels,
                       s->fixed ? c : c - c0, adjoint, stream);
    }
}
#endif
