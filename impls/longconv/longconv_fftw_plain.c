// longconv_fftw_plain.c: causal long convolution by real FFT, FFTW as its manual teaches it, CPU.
//     y[b,c,t] = sum_{s=0..t} h[c,s] u[b,c,t-s] + d[c] u[b,c,t]   u,y (B,D,L)  h (D,L)  float32
// Method    pad every row to M = 2L, r2c, multiply by the filter's half spectrum, c2r, keep L
//           samples, scale by 1/M. Plans by FFTW_ESTIMATE, OpenMP over channels. Backward:
//               DU = DY conj(H)          DH = sum_b DY_b conj(U_b)
// Cost      O(B D M log M): forward 2 transforms a row and 1 a channel, backward 3 a row and 2 a
//           channel. The plan keeps a real row and four spectra a thread, and D spectra for a fixed
//           filter; nothing is kept from forward to backward.
// Source    Poli et al. 2023, arXiv:2302.10866, section 3; FFTW 3.3 (www.fftw.org), GPL.
// Accuracy  rel. L2 against the float64 judge grows like eps sqrt(log2 M).
// Refuses   dtypes other than f32; M > INT_MAX.
// -fcx-limited-range: complex products without the test for NaN that C asks for, a call each.
// hb-link: -lfftw3f
// hb-cflags: -fcx-limited-range
#include <complex.h>
#include <fftw3.h>
#include <limits.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "hb.h"

struct work {
    float *x;                          // (M) one padded row
    float complex *hf, *uf, *df, *gf;  // (L+1) spectra of h, u, dy and of h's gradient
};

struct state {
    const struct hb_host *host;
    int64_t B, L, D;
    int M, threads;
    size_t real_len, spec_len;    // M and L+1, rounded up so that every row is aligned alike
    fftwf_plan r2c, c2r;
    float *work;                  // owned: threads x (real_len + 4 x 2 spec_len)
    float complex *fixed;         // owned: (D,spec_len), FIXED only
};

static const char *refuses(const struct hb_problem *p)
{
    if (p->dtype != HB_F32)
        return "float32 only";
    return p->L > INT_MAX / 2 ? "FFT length 2L above INT_MAX" : NULL;
}

static size_t work_len(const struct state *s)
{
    return s->real_len + 8 * s->spec_len;
}

static struct work work_of(const struct state *s, int worker)
{
    float *x = s->work + (size_t)worker * work_len(s);
    float complex *f = (float complex *)(x + s->real_len);
    const size_t n = s->spec_len;
    return (struct work){ .x = x, .hf = f, .uf = f + n, .df = f + 2 * n, .gf = f + 3 * n };
}

// f (L+1) = spectrum of the L samples x, padded with zeros to M = 2L.
static void transform(const struct state *s, const struct work *w, const float *x, float complex *f)
{
    memcpy(w->x, x, (size_t)s->L * sizeof *x);
    memset(w->x + s->L, 0, (size_t)s->L * sizeof *x);
    fftwf_execute_dft_r2c(s->r2c, w->x, f);
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

static const float complex *filter_of(const struct state *s, const struct work *w,
                                      const struct hb_longconv_io *io, int64_t c)
{
    if (s->fixed)
        return s->fixed + (size_t)c * s->spec_len;
    transform(s, w, (const float *)io->h + c * s->L, w->hf);
    return w->hf;
}

static void forward_channel(const struct state *s, const struct work w,
                            const struct hb_longconv_io *io, int64_t c)
{
    const float scale = 1.0f / (float)s->M;
    const float d = io->d ? ((const float *)io->d)[c] : 0;
    const float complex *hf = filter_of(s, &w, io, c);
    for (int64_t b = 0; b < s->B; b++) {
        const float *u = (const float *)io->u + b * io->su.b + c * io->su.c;
        float *y = (float *)io->y + b * io->sy.b + c * io->sy.c;
        transform(s, &w, u, w.uf);
        for (int64_t f = 0; f <= s->L; f++)
            w.uf[f] *= hf[f];
        fftwf_execute_dft_c2r(s->c2r, w.uf, w.x);
        for (int64_t t = 0; t < s->L; t++)
            y[t] = scale * w.x[t] + d * u[t];
    }
}

static void backward_channel(const struct state *s, const struct work w,
                             const struct hb_longconv_io *io, int64_t c)
{
    const float scale = 1.0f / (float)s->M;
    const float d = io->d ? ((const float *)io->d)[c] : 0;
    float *dh = (float *)io->dh + c * s->L;
    double dd = 0;
    const float complex *hf = filter_of(s, &w, io, c);
    memset(w.gf, 0, s->spec_len * sizeof *w.gf);
    for (int64_t b = 0; b < s->B; b++) {
        const float *u = (const float *)io->u + b * io->su.b + c * io->su.c;
        const float *dy = (const float *)io->dy + b * io->sdy.b + c * io->sdy.c;
        float *du = (float *)io->du + b * io->sdu.b + c * io->sdu.c;
        transform(s, &w, u, w.uf);
        transform(s, &w, dy, w.df);
        for (int64_t f = 0; f <= s->L; f++) {
            w.gf[f] += w.df[f] * conjf(w.uf[f]);
            w.df[f] *= conjf(hf[f]);
        }
        fftwf_execute_dft_c2r(s->c2r, w.df, w.x);
        for (int64_t t = 0; t < s->L; t++)
            du[t] = scale * w.x[t] + d * dy[t];
        if (io->dd)
            dd += dot(dy, u, s->L);
    }
    fftwf_execute_dft_c2r(s->c2r, w.gf, w.x);
    for (int64_t t = 0; t < s->L; t++)
        dh[t] += scale * w.x[t];
    if (io->dd)
        ((float *)io->dd)[c] += (float)dd;
}

static int forward(void *st, const struct hb_io *io)
{
    const struct state *s = st;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t c = 0; c < s->D; c++)
        forward_channel(s, work_of(s, omp_get_thread_num()), &io->conv, c);
    return HB_OK;
}

static int backward(void *st, const struct hb_io *io)
{
    const struct state *s = st;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t c = 0; c < s->D; c++)
        backward_channel(s, work_of(s, omp_get_thread_num()), &io->conv, c);
    return HB_OK;
}

static int set_filter(void *st, const void *h)
{
    struct state *s = st;
    const struct work w = work_of(s, 0);
    for (int64_t c = 0; c < s->D; c++)
        transform(s, &w, (const float *)h + c * s->L, s->fixed + (size_t)c * s->spec_len);
    return HB_OK;
}

static void destroy(void *st)
{
    struct state *s = st;
    if (!s)
        return;
    fftwf_destroy_plan(s->r2c);   // NULL is fine
    fftwf_destroy_plan(s->c2r);
    s->host->free(s->host, s->work);
    s->host->free(s->host, s->fixed);
    s->host->free(s->host, s);
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    struct state *s = host->alloc(host, sizeof *s);
    if (!s)
        return HB_ERR_OOM;
    *s = (struct state){ .host = host, .B = p->B, .L = p->L, .D = p->D, .M = (int)(2 * p->L),
                         .threads = p->threads };
    s->real_len = ((size_t)s->M + 15) / 16 * 16;       // 16 floats, 8 complex: HB_ALIGN
    s->spec_len = ((size_t)s->L + 1 + 7) / 8 * 8;
    int rc = HB_ERR_OOM;
    s->work = host->alloc(host, (size_t)p->threads * work_len(s) * sizeof *s->work);
    if (!s->work)
        goto fail;
    if (p->filter == HB_FILTER_FIXED) {
        s->fixed = host->alloc(host, (size_t)p->D * s->spec_len * sizeof *s->fixed);
        if (!s->fixed)
            goto fail;
    }
    const struct work w = work_of(s, 0);
    s->r2c = fftwf_plan_dft_r2c_1d(s->M, w.x, w.uf, FFTW_ESTIMATE);
    s->c2r = fftwf_plan_dft_c2r_1d(s->M, w.uf, w.x, FFTW_ESTIMATE);
    if (!s->r2c || !s->c2r) {
        rc = host->fail(host, HB_ERR_RUN, "longconv_fftw_plain: FFTW made no plan for M = %d",
                        s->M);
        goto fail;
    }
    *st = s;
    return HB_OK;
fail:
    destroy(s);
    return rc;
}

static int describe(const void *st, char *buf, size_t cap)
{
    const struct state *s = st;
    snprintf(buf, cap, "M %d, r2c/c2r, FFTW_ESTIMATE, %s", s->M, fftwf_version);
    return HB_OK;
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "longconv_fftw_plain",
    .op = HB_LONGCONV,
    .device = "cpu",
    .dtypes = 1u << HB_F32,
    .source = "Poli et al. 2023, arXiv:2302.10866, sec. 3; FFTW 3.3",
    .complexity = "O(L log L)",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .set_filter = set_filter,
    .describe = describe,
};
