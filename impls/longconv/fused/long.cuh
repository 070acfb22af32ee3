// long.cuh: long convolutions whose rows do not fit into one block: three phases over chunks, CUDA.
//     y = h * u (adjoint: correlation), rows of L <= N = R1 N2, N2 = R 256        f16, bf16
// Method    For a group of channels: [h: sizes, columns_in, rows' transform -> spectrum]; for part
//           of the batch: sizes of u, columns_in, rows (transform, product, back), columns_out.
//           What lies between (mid, and the group's spectrum) is at most LONG_CHUNK bytes, always
//           at the same address, and so stays in the L2 cache: device memory sees u, h and y. Skip
//           term: d is added to h[0], for the adjoint too; a fixed filter's to the results.
// Cost      7 launches a group (4 with a fixed filter). Workspace: CHUNK, or one row (and one
//           spectrum) where that is more: 32 MB at N = 2^22. A fixed filter keeps 4 N D bytes.
// Limits    32768 < L <= 2^22 (shorter ones work: N is 65536 then).
#ifndef HB_FUSED_LONG_CUH
#define HB_FUSED_LONG_CUH

#include "columns.cuh"
#include "rows.cuh"

enum { LONG_MAX_L = 1 << 22, LONG_CHUNK = 24 << 20 };

// R1, R by length. Outer steps cost 8 R1 and 16 R flop a sample; R = 48 keeps N within 1.5 of L.
static const struct { short R1, R; } LONG_CHOICE[] = {
    { 16, 16 }, { 32, 16 }, { 16, 48 }, { 64, 16 }, { 32, 48 }, { 64, 32 }, { 64, 48 },
    { 128, 32 }, { 128, 48 }, { 256, 32 }, { 256, 48 }, { 256, 64 },
};

struct long_plan {
    const struct hb_host *host;          // borrowed until long_free
    enum hb_dtype dtype;
    int64_t B, L, D, N;
    int R;
    bool fixed;
    int pieces;                          // of a row, column_parts
    int64_t channels, batch;             // of a chunk
    struct column_tables columns;
    void *tables;                        // owned, and so is what follows
    uint4 *matrix;
    __half *mid;                         // (channels, batch, R1, 2, N2)
    uint32_t *spectrum;                  // (channels, or D if fixed; N) half2
    float *gain, *back, *length;         // (the same)
    float *boost;                        // (channels, batch)
    float2 *part;                        // (channels, batch, COLUMN_PIECES at most)
    __half *other;                       // from here with a backward pass only; like mid
    float4 *sums;                        // (channels, N) float2
    float2 *part_dy;                     // like part
    float *keep, *back_dh, *dots;        // (channels batch), (channels), (channels, pieces)
};

// --- plan --------------------------------------------------------------------------------------
static inline void long_free(struct long_plan *s)
{
    if (!s->host) return;
    const struct hb_device *dev = s->host->device;
    void *const owned[] = { s->tables, s->matrix, s->mid, s->spectrum, s->gain, s->back, s->part,
                            s->length, s->boost,
                            s->other, s->sums, s->part_dy, s->keep, s->back_dh, s->dots };
    for (void *p : owned)
        if (p) dev->free(dev, p);
}

// Rows of the chunk: all of the batch if it fits, then as many channels as fit.
static inline void long_chunk(struct long_plan *s)
{
    const int64_t fits = LONG_CHUNK / (4 * s->N) > 1 ? LONG_CHUNK / (4 * s->N) : 1;
    const int64_t parts = (s->B + fits - 1) / fits;
    s->batch = (s->B + parts - 1) / parts;
    s->channels = fits / (s->batch + !s->fixed);
    if (s->channels < 1) s->channels = 1;
    if (s->channels > s->D) s->channels = s->D;
}

static inline int long_matrix(struct long_plan *s)
{
    const struct hb_device *dev = s->host->device;
    const int64_t n = hb_fused_words(s->R);
    s->matrix = (uint4 *)dev->alloc(dev, (size_t)n * 4);
    uint32_t *const words = (uint32_t *)s->host->alloc(s->host, (size_t)n * 4);
    int rc = s->matrix && words ? HB_OK : HB_ERR_OOM;
    if (!rc) {
        hb_fused_constants(words, s->R, 0);
        rc = dev->upload(dev, s->matrix, words, (size_t)n * 4, dev->stream);
        if (!rc) rc = dev->sync(dev, dev->stream);
    }
    s->host->free(s->host, words);
    return rc;
}

// Plans; the caller calls long_free in any case.
static inline int long_make(struct long_plan *s, const struct hb_host *host,
                            const struct hb_problem *p)
{
    const struct hb_device *dev = host->device;
    size_t i = 0;
    while ((int64_t)LONG_CHOICE[i].R1 * LONG_CHOICE[i].R * 256 < p->L) i++;
    const int R1 = LONG_CHOICE[i].R1, N2 = LONG_CHOICE[i].R * 256;
    *s = { .host = host, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D,
           .N = (int64_t)R1 * N2, .R = LONG_CHOICE[i].R,
           .fixed = p->filter == HB_FILTER_FIXED, .pieces = column_pieces(p->L) };
    long_chunk(s);
    const size_t rows = (size_t)(s->channels * s->batch);
    const size_t kept = (size_t)(s->fixed ? s->D : s->channels);
    s->tables = dev->alloc(dev, column_tables_bytes(R1, N2));
    s->mid = (__half *)dev->alloc(dev, rows * s->N * 4);
    s->spectrum = (uint32_t *)dev->alloc(dev, kept * s->N * 4);
    s->gain = (float *)dev->alloc(dev, kept * sizeof(float));
    s->back = (float *)dev->alloc(dev, kept * sizeof(float));
    const size_t parts = rows * COLUMN_PIECES * sizeof(float2);
    s->part = (float2 *)dev->alloc(dev, parts);
    s->length = (float *)dev->alloc(dev, kept * sizeof(float));
    s->boost = (float *)dev->alloc(dev, rows * sizeof(float));
    if (!s->tables || !s->mid || !s->spectrum || !s->gain || !s->back || !s->part || !s->length
        || !s->boost)
        return HB_ERR_OOM;
    if (p->backward) {
        s->other = (__half *)dev->alloc(dev, rows * s->N * 4);
        s->sums = (float4 *)dev->alloc(dev, (size_t)(s->channels * s->N) * sizeof(float2));
        s->part_dy = (float2 *)dev->alloc(dev, parts);
        s->keep = (float *)dev->alloc(dev, rows * sizeof(float));
        s->back_dh = (float *)dev->alloc(dev, (size_t)s->channels * sizeof(float));
        s->dots = (float *)dev->alloc(dev, (size_t)(s->channels * s->pieces) * sizeof(float));
        if (!s->other || !s->sums || !s->part_dy || !s->keep || !s->back_dh || !s->dots)
            return HB_ERR_OOM;
    }
    int rc = long_matrix(s);
    if (!rc) rc = hb_fused_mid_init(host, s->R);
    if (rc) return rc;
    s->columns = column_tables_make(s->tables, R1, N2, (cudaStream_t)dev->stream);
    rc = hb_cuda_launched(host, "longconv_fused_cuda plan");
    return rc ? rc : dev->sync(dev, dev->stream);
}

// --- run ---------------------------------------------------------------------------------------
static inline struct hb_fused_mid long_mid(const struct long_plan *s, int64_t kept, int64_t n,
                                           int64_t batch)
{
    return { .mid = s->mid, .spectrum = s->spectrum + kept * s->N, .gain = s->gain + kept,
             .matrix = s->matrix, .channels = n, .batch = batch, .R1 = s->columns.R1, .R = s->R };
}

// Spectra of n channels from c on, stored from `kept` on. h (D,L), d (D) or NULL.
static inline void long_spectrum(const struct long_plan *s, const float *h, const float *d,
                                 int64_t c, int64_t n, int64_t kept, cudaStream_t stream)
{
    const struct column_rows j = { (void *)(h + c * s->L), { 0, s->L }, s->part, 1, (int)s->L,
                                   s->pieces, NULL, NULL };
    const float *const skip = d ? d + c : NULL;
    launch_parts<float>(j, n, skip, stream);
    column_gains<<<(unsigned)((n + 127) / 128), 128, 0, stream>>>(
        s->gain + kept, s->back + kept, s->length + kept, s->part, s->pieces, (int)n,
        (float)s->N);
    launch_in<float>(j, n, &s->columns, skip, s->mid, stream);
    const struct hb_fused_mid m = long_mid(s, kept, n, 1);
    hb_fused_mid_spectrum(&m, stream);
}

// A fixed filter's spectra, before the first long_run. d is not in them.
static inline void long_filter(const struct long_plan *s, const float *h, cudaStream_t stream)
{
    for (int64_t c = 0; c < s->D; c += s->channels)
        long_spectrum(s, h, NULL, c, s->D - c < s->channels ? s->D - c : s->channels, c, stream);
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
    launch_parts<T>(j, rows, NULL, stream);
    launch_in<T>(j, rows, &s->columns, NULL, s->mid, stream);
    hb_fused_mid_convolve(m, adjoint, stream);
    j.x = (T *)y + c * sy.c + b * sy.b;
    j.sx = sy;
    launch_out<T>(j, rows, &s->columns, s->mid, back, skip, stream);
}

// y = h * u + d u, or (u is dy, y is du) the adjoint. h is not read where the filter is fixed.
static inline void long_run(const struct long_plan *s, const float *h, const float *d,
                            const void *u, struct hb_strides su, void *y, struct hb_strides sy,
                            bool adjoint, cudaStream_t stream)
{
    const float *const skip = s->fixed ? d : NULL;         // else it is in the spectrum
    for (int64_t c = 0; c < s->D; c += s->channels) {
        const int64_t n = s->D - c < s->channels ? s->D - c : s->channels;
        const int64_t kept = s->fixed ? c : 0;
        if (!s->fixed) long_spectrum(s, h, d, c, n, 0, stream);
        for (int64_t b = 0; b < s->B; b += s->batch) {
            struct hb_fused_mid m = long_mid(s, kept, n,
                                             s->B - b < s->batch ? s->B - b : s->batch);
            m.boost = s->boost;
            const float *const back = s->back + kept, *const length = s->length + kept;
            if (s->dtype == HB_F16)
                long_rows<__half>(s, &m, u, su, y, sy, c, b, back, length, skip, adjoint, stream);
            else
                long_rows<__nv_bfloat16>(s, &m, u, su, y, sy, c, b, back, length, skip, adjoint,
                                         stream);
        }
    }
}
#endif
