// judge64.h: float64 arrays and GEMM of the operator judges (static inline: each judge is one
// file).
#ifndef HB_JUDGE64_H
#define HB_JUDGE64_H

#include <cblas.h>
#include <stdlib.h>

#include "../core/hb.h"

// C (m,n) = op(A) op(B) + beta C, contiguous rows of the stored matrices.
static inline void gemm64(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const double *A,
                          const double *B, double beta, double *C)
{
    cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
                (int)m, (int)n, (int)k, 1, A, (int)(ta ? m : k), B, (int)(tb ? k : n), beta, C,
                (int)n);
}

// Arrays that live until the judge returns: one list, freed at once.
struct pool64 { double *block[32]; int n; bool failed; };

// n zeros, or NULL and the pool remembers that one failed.
static inline double *take64(struct pool64 *p, int64_t n)
{
    double *x = p->n < 32 ? calloc(n > 0 ? (size_t)n : 1, sizeof *x) : NULL;
    if (x) p->block[p->n++] = x;
    else p->failed = true;
    return x;
}

static inline void free64(struct pool64 *p)
{
    while (p->n > 0) free(p->block[--p->n]);
}

#endif
