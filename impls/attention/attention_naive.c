// hb-link: -lopenblas
// attention_naive.c: causal softmax attention with its L x L probabilities kept, CPU.
//     y = softmax(q k' / sqrt(P), causal) v, per head          q,k,v,y (B,H,L,P)   float32
//     (by strides: a row's distance is the products' leading dimension)
// Method    as it is written down: s = q k' / sqrt(P) by sgemm, softmax of each row over j <= t,
//           zeros beyond, y = w v by sgemm; backward by four more products with the kept w. The
//           products are full squares: nothing above the diagonal is skipped. Heads in parallel,
//           one BLAS thread each, if there are as many as threads; else in turn on all threads.
// Cost      forward 4 P L^2, backward 8 P L^2 flop per head; memory L^2 floats per head, and L^2
//           for each head in flight of the backward pass.
// Source    Vaswani et al. 2017, arXiv:1706.03762, equation 1; OpenBLAS sgemm.
// Accuracy  that of sgemm (sums in blocks of a few hundred); exponentials to a few ulp.
// Refuses   dtypes other than f32. Memory is asked for in plan: long L fails there, at once.
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include "hb.h"

struct state {
    const struct hb_host *host;   // borrowed until destroy
    int64_t heads, H, L, P;       // heads = B H
    int threads;
    bool by_head;                 // heads in parallel
    float scale;                  // 1/sqrt(P)
    float *w;                     // (heads,L,L) probabilities, owned
    float *ds;                    // (heads in flight,L,L) score gradients, owned; only for backward
};

static const char *refuses(const struct hb_problem *p)
{
    return p->dtype == HB_F32 ? NULL : "float32 only";
}

static void destroy(void *vst)
{
    struct state *const st = vst;
    if (!st)
        return;
    const struct hb_host *const host = st->host;
    host->free(host, st->w);
    host->free(host, st->ds);
    host->free(host, st);
}

// (heads,L,L) floats, or HB_ERR_OOM.
static int square(const struct hb_host *host, float **to, int64_t heads, int64_t L)
{
    size_t n;
    if (__builtin_mul_overflow((size_t)L, (size_t)L, &n)
        || __builtin_mul_overflow(n, (size_t)heads, &n)
        || __builtin_mul_overflow(n, sizeof **to, &n))
        return host->fail(host, HB_ERR_OOM,
                          "attention_naive: %lld x %lld x %lld floats exceed the address space",
                          (long long)heads, (long long)L, (long long)L);
    *to = host->alloc(host, n);
    return *to ? HB_OK : HB_ERR_OOM;
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **out)
{
    struct state *const st = host->alloc(host, sizeof *st);
    if (!st)
        return HB_ERR_OOM;
    const int64_t heads = p->B * p->H, P = p->D / p->H;
    *st = (struct state){ .host = host, .heads = heads, .H = p->H, .L = p->L, .P = P,
                          .threads = p->threads,
                          .by_head = p->threads > 1 && heads >= p->threads,
                          .scale = (float)(1.0 / sqrt((double)P)) };
    int rc = square(host, &st->w, heads, p->L);
    if (!rc && p->backward)
        rc = square(host, &st->ds, st->by_head ? p->threads : 1, p->L);
    if (rc) {
        destroy(st);
        return rc;
    }
    *out = st;
    return HB_OK;
}

// e^x for x <= 0 to 2 ulp + 2e-8 |x|; 0 below -87.7; NaN stays. Plain C that vectorises:
// x log2(e) = n + r, minimax polynomial for 2^r, |r| <= 1/2, n + 127 shifted into the exponent.
static inline float exp_neg(float x)
{
    const float magic = 12582912.0f + 127.0f;           // 1.5 2^23: one ulp is 1, so adding rounds
    x = x < -88.0f ? -88.0f : x;
    const float t = x * 1.44269504f + magic, r = x * 1.44269504f - (t - magic);
    const float p = 1.0f + r * (0x1.62e430p-1f + r * (0x1.ebfbdap-3f + r * (0x1.c6aed4p-5f
                    + r * (0x1.3b2dbcp-7f + r * (0x1.5f456ap-10f + r * 0x1.41d334p-13f)))));
    union { float f; uint32_t u; } from = { .f = t }, to = { .u = from.u << 23 };
    return p * to.f;
}

// Row of n visible scores, in place, to probabilities; the L - n beyond become 0.
static void softmax_row(float *s, int64_t n, int64_t L)
{
    float top = s[0], sum = 0;
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < n; j++)
        top = s[j] > top ? s[j] : top;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        s[j] = exp_neg(s[j] - top);
        sum += s[j];
    }
    const float r = 1.0f / sum;
#pragma omp simd
    for (int64_t j = 0; j < n; j++)
        s[j] *= r;
    memset(s + n, 0, sizeof *s * (size_t)(L - n));
}

// Row of dp, in place, to ds = scale w (dp - delta), delta = sum_p dy y = sum_j w dp. Where one w
// is nearly 1 that difference is all rounding, so delta is refined: delta + sum_j w (dp - delta).
static void grad_row(float *dp, const float *w, const float *dy, const float *y, float scale,
                     int64_t L, int64_t P)
{
    float delta = 0;
#pragma omp simd reduction(+ : delta)
    for (int64_t p = 0; p < P; p++)
        delta += dy[p] * y[p];
    float rest = 0;
#pragma omp simd reduction(+ : rest)
    for (int64_t j = 0; j < L; j++) {
        dp[j] -= delta;
        rest += w[j] * dp[j];
    }
#pragma omp simd
    for (int64_t j = 0; j < L; j++)
        dp[j] = scale * w[j] * (dp[j] - rest);
}

// c (m,n) = alpha op(a) op(b), row-major; leading dimensions as stored.
static void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                 int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc)
{
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
                (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, 0.0f, c, (int)ldc);
}

// Where head `head` (b H + h) begins.
static int64_t head_at(const struct state *st, struct hb_heads s, int64_t head)
{
    return head / st->H * s.b + head % st->H * s.h;
}

// s = q k' scale,  w = softmax(s),  y = w v
static void forward_head(const struct state *st, const struct hb_attention_io *io, int64_t head)
{
    const int64_t L = st->L, P = st->P, at = head_at(st, io->sq, head), row = io->sq.t;
    const float *const q = (const float *)io->q + at, *const k = (const float *)io->k + at;
    const float *const v = (const float *)io->v + at;
    float *const y = (float *)io->y + head_at(st, io->sy, head);
    float *const w = st->w + head * L * L;
    gemm(false, true, L, L, P, st->scale, q, row, k, row, w, L);
#pragma omp parallel for num_threads(st->threads) schedule(static, 16) if (!st->by_head && L > 64)
    for (int64_t t = 0; t < L; t++)
        softmax_row(w + t * L, t + 1, L);
    gemm(false, false, L, P, L, 1.0f, w, L, v, row, y, io->sy.t);
}

// dv = w' dy,  dp = dy v',  ds = scale w (dp - delta),  dq = ds k,  dk = ds' q
static void backward_head(const struct state *st, const struct hb_attention_io *io, int64_t head)
{
    const int64_t L = st->L, P = st->P, at = head_at(st, io->sq, head), row = io->sq.t;
    const int64_t y_at = head_at(st, io->sy, head), y_row = io->sy.t;
    const float *const q = (const float *)io->q + at, *const k = (const float *)io->k + at;
    const float *const v = (const float *)io->v + at, *const y = (const float *)io->y + y_at;
    const float *const dy = (const float *)io->dy + y_at, *const w = st->w + head * L * L;
    float *const ds = st->ds + (st->by_head ? omp_get_thread_num() : 0) * L * L;
    gemm(true, false, L, P, L, 1.0f, w, L, dy, y_row, (float *)io->dv + at, row);
    gemm(false, true, L, L, P, 1.0f, dy, y_row, v, row, ds, L);
#pragma omp parallel for num_threads(st->threads) schedule(static, 16) if (!st->by_head && L > 64)
    for (int64_t t = 0; t < L; t++)
        grad_row(ds + t * L, w + t * L, dy + t * y_row, y + t * y_row, st->scale, L, P);
    gemm(false, false, L, P, L, 1.0f, ds, L, k, row, (float *)io->dq + at, row);
    gemm(true, false, L, P, L, 1.0f, ds, L, q, row, (float *)io->dk + at, row);
}

// `one` for every head. Inside a parallel region (of two threads or more: one alone does not count)
// OpenBLAS's OpenMP build stays on the calling thread; outside it uses the process's number, set
// for the call and put back.
static void each_head(const struct state *st, const struct hb_attention_io *io,
                      void (*one)(const struct state *, const struct hb_attention_io *, int64_t))
{
    if (st->by_head) {
#pragma omp parallel for num_threads(st->threads) schedule(static)
        for (int64_t head = 0; head < st->heads; head++)
            one(st, io, head);
        return;
    }
    const int before = openblas_get_num_threads();
    if (before != st->threads)
        openblas_set_num_threads(st->threads);
    for (int64_t head = 0; head < st->heads; head++)
        one(st, io, head);
    if (before != st->threads)
        openblas_set_num_threads(before);
}

static int forward(void *st, const struct hb_io *io)
{
    each_head(st, &io->attn, forward_head);
    return HB_OK;
}

static int backward(void *st, const struct hb_io *io)
{
    each_head(st, &io->attn, backward_head);
    return HB_OK;
}

static int describe(const void *vst, char *buf, size_t cap)
{
    const struct state *const st = vst;
    return snprintf(buf, cap, "full squares, %s",
                    st->by_head ? "heads in parallel" : "BLAS threads within a head");
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "attention_naive",
    .op = HB_ATTENTION,
    .device = "cpu",
    .dtypes = 1u << HB_F32,
    .source = "Vaswani et al. 2017, arXiv:1706.03762; OpenBLAS sgemm",
    .complexity = "O(B H L^2 P) time, O(B H L^2) memory",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .describe = describe,
};
