// cpu_gemm.c: matrix products and changes of type on the CPU: OpenBLAS's sgemm, and what stands
// behind a product (bias, residual, GELU) row by row in one pass over the result.
#include <cblas.h>
#include <string.h>

#include "../core/halves.h"
#include "cpu.h"
#include "cpu_math.h"

enum { CAST_BLOCK = 1024 };      // elements that pass through float32 at a time

// Row r of D as sgemm left it: bias, residual, GELU or its derivative, in that order.
static void finish_row(const struct hb_gemm *g, float *d, const float *c, float *kept,
                       const float *slope_at)
{
    const float *bias = g->bias, beta = g->beta;
    if (bias) {
        #pragma omp simd
        for (int64_t j = 0; j < g->n; j++) d[j] += bias[j];
    }
    if (c) {
        #pragma omp simd
        for (int64_t j = 0; j < g->n; j++) d[j] += beta * c[j];
    }
    if (kept) {
        memcpy(kept, d, (size_t)g->n * sizeof *d);
        #pragma omp simd
        for (int64_t j = 0; j < g->n; j++) d[j] = cpu_gelu(d[j]);
    } else if (slope_at) {
        #pragma omp simd
        for (int64_t j = 0; j < g->n; j++) d[j] *= cpu_gelu_slope(slope_at[j]);
    }
}

// One product of the batch; `at` is where its D begins.
static void one_gemm(const struct hb_gemm *g, const float *A, const float *B, int64_t at)
{
    float *D = (float *)g->D + at;
    const float *C = g->C && g->C != g->D && g->beta != 0 ? (const float *)g->C + at : NULL;
    float *kept = g->gelu_in ? (float *)g->gelu_in + at : NULL;
    const float *slope_at = g->dgelu ? (const float *)g->dgelu + at : NULL;
    cblas_sgemm(CblasRowMajor, g->ta ? CblasTrans : CblasNoTrans, g->tb ? CblasTrans : CblasNoTrans,
                (int)g->m, (int)g->n, (int)g->k, g->alpha, A, (int)g->lda, B, (int)g->ldb,
                C ? 0 : g->beta, D, (int)g->ldd);
    if (!g->bias && !C && !kept && !slope_at) return;
    #pragma omp parallel for num_threads(cpu_threads(g->m * g->n))
    for (int64_t r = 0; r < g->m; r++) {
        int64_t row = r * g->ldd;
        finish_row(g, D + row, C ? C + row : NULL, kept ? kept + row : NULL,
                   slope_at ? slope_at + row : NULL);
    }
}

void cpu_gemm(const struct hb_gemm *g, struct hb_on on)
{
    const float *A = cpu_act_const(g->A, on), *B = g->B;
    assert(g->m <= INT32_MAX && g->n <= INT32_MAX && g->k <= INT32_MAX);  // OpenBLAS counts in int
    assert(g->lda <= INT32_MAX && g->ldb <= INT32_MAX && g->ldd <= INT32_MAX);
    int64_t batch = g->batch > 1 ? g->batch : 1;
    for (int64_t i = 0; i < batch; i++) one_gemm(g, A + i * g->sA, B + i * g->sB, i * g->sD);
}

void cpu_cast(void *dst, enum hb_dtype to, const void *src, enum hb_dtype from, int64_t n, void *s)
{
    (void)s;
    char *out = dst;
    const char *in = src;
    int64_t wide = (int64_t)hb_dtype_size(to), was = (int64_t)hb_dtype_size(from);
    #pragma omp parallel for num_threads(cpu_threads(n))
    for (int64_t i = 0; i < n; i += CAST_BLOCK) {
        int64_t m = n - i < CAST_BLOCK ? n - i : CAST_BLOCK;
        float x[CAST_BLOCK];
        hb_to_f32(from, x, in + i * was, m);
        hb_from_f32(to, out + i * wide, x, m);
    }
}
