// cuda_gemm.cu: gemm of the CUDA device by cuBLASLt.
//     x = alpha op(A) op(B) + beta C + bias;  D = x, or gelu(x) with x kept, or x gelu'(dgelu)
// Method    row-major as the transposed column-major product: D' = op(B)' op(A)'. Bias and GELU go
//           into cuBLASLt's epilogue. Where it has none (GELU in float32, for its tanh;
//           rows that are not a multiple of 8; odd alignments) the product is followed by a kernel
//           of ours, and where it has no algorithm at all (k = 0 too) the product is ours as well.
//           Which way is decided once per shape and kept.
// Plans     a hash table over everything that the choice depends on, alignments too; the first of
//           the heuristic's answers, no timing. Nothing in it allocates or waits: a first use
//           inside a capture is fine.
// Order     reductions over a split k go through float32 partial sums in the workspace, added in a
//           step of their own; the in-place scheme is not allowed. The same call gives the same
//           bits.
// Accuracy  float32 is float32 (no TF32); 16-bit types are summed in float32 and rounded once,
//           twice where an own kernel follows.
// Source    cuBLASLt 13.
#include <string.h>

#include <cublasLt.h>

#include "cuda.h"

enum {
    PLANS = 1024,                // slots; emptied when three quarters are taken
    TILE = 16,                   // own product: threads in each direction
    FINISH_X = 64, FINISH_Y = 4, // own epilogue
};
static const int64_t MOST_Y = 65535;             // gridDim.y and gridDim.z

// What goes into cuBLASLt's epilogue.
enum { FUSE_BIAS = 1, FUSE_GELU = 2, FUSE_DGELU = 4 };

// All that the choice of an algorithm depends on. Compared as bytes: cleared before it is filled.
struct key {
    int64_t m, n, k, lda, ldb, ldd, batch, sA, sB, sD;
    uint8_t ta, tb, in, out, fuse, align[6];     // align: log2, of A B C D bias aux
};

struct plan {
    struct key key;
    bool used, ok;                               // ok: there is an algorithm
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t A, B, D;        // column-major: A is our B, B our A; C like D
    cublasLtMatmulAlgo_t algo;
};

static cublasLtHandle_t handle;                  // owned
static struct plan plans[PLANS];
static int n_plans;

int cuda_gemm_open(void)
{
    cublasStatus_t st = cublasLtCreate(&handle);
    if (st == CUBLAS_STATUS_SUCCESS) return 0;
    handle = NULL;
    return gpu.host->fail(gpu.host, HB_ERR_RUN, "cublasLtCreate: %s", cublasLtGetStatusString(st));
}

void cuda_gemm_close(void)
{
    if (handle) (void)cublasLtDestroy(handle);
    handle = NULL;
    memset(plans, 0, sizeof plans);
    n_plans = 0;
}

// --- plans ---------------------------------------------------------------------------------------

static cudaDataType_t library_type(enum hb_dtype t)
{
    return t == HB_F16 ? CUDA_R_16F : t == HB_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

// log2 of the alignment, at most that of 256; the plain NULL counts as 256.
static uint8_t alignment(const void *p)
{
    uint8_t a = 0;
    while (a < 8 && ((uintptr_t)p >> a & 1) == 0) a++;
    return a;
}

static const void *aux_of(const struct hb_gemm *g)
{
    return g->gelu_in ? g->gelu_in : g->dgelu;
}

static void fill_key(struct key *key, const struct hb_gemm *g, enum hb_dtype t, int fuse)
{
    bool batched = g->batch > 1;
    memset(key, 0, sizeof *key);
    key->m = g->m, key->n = g->n, key->k = g->k;
    key->lda = g->lda, key->ldb = g->ldb, key->ldd = g->ldd;
    key->batch = batched ? g->batch : 1;
    key->sA = batched ? g->sA : 0, key->sB = batched ? g->sB : 0, key->sD = batched ? g->sD : 0;
    key->ta = g->ta, key->tb = g->tb;
    key->in = (uint8_t)t;
    key->out = (uint8_t)(g->out_f32 ? HB_F32 : t);
    key->fuse = (uint8_t)fuse;
    const void *at[6] = { g->A, g->B, g->C ? g->C : g->D, g->D,
                          fuse & FUSE_BIAS ? g->bias : NULL,
                          fuse & (FUSE_GELU | FUSE_DGELU) ? aux_of(g) : NULL };
    for (int i = 0; i < 6; i++) key->align[i] = alignment(at[i]);
}

// FNV-1a.
static uint32_t hash(const struct key *key)
{
    const unsigned char *b = (const unsigned char *)key;
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < sizeof *key; i++) h = (h ^ b[i]) * 16777619u;
    return h;
}

// A column-major matrix; with one column the distance to the next does not matter, but is checked.
static cublasStatus_t layout(cublasLtMatrixLayoutOpaque_t *l, enum hb_dtype t, int64_t rows,
                             int64_t cols, int64_t ld, int64_t batch, int64_t stride)
{
    int32_t count = (int32_t)batch;
    if (cols == 1 && ld < rows) ld = rows;
    cublasStatus_t st = cublasLtMatrixLayoutInit(l, library_type(t), (uint64_t)rows,
                                                 (uint64_t)cols, ld);
    if (!st) st = cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                                   sizeof count);
    if (!st) st = cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                   &stride, sizeof stride);
    return st;
}

static cublasStatus_t set(struct plan *p, cublasLtMatmulDescAttributes_t what, const void *value,
                          size_t bytes)
{
    return cublasLtMatmulDescSetAttribute(&p->desc, what, value, bytes);
}

// The epilogue's pointers change from call to call; the choice depends on their alignment only.
static cublasStatus_t set_pointers(struct plan *p, const struct hb_gemm *g)
{
    cublasStatus_t st = CUBLAS_STATUS_SUCCESS;
    const void *aux = aux_of(g);
    if (p->key.fuse & FUSE_BIAS)
        st = set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->bias, sizeof g->bias);
    if (!st && p->key.fuse & (FUSE_GELU | FUSE_DGELU))
        st = set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux, sizeof aux);
    return st;
}

static cublasStatus_t describe(struct plan *p)
{
    const struct key *q = &p->key;
    cublasOperation_t opa = q->tb ? CUBLAS_OP_T : CUBLAS_OP_N;     // of our B
    cublasOperation_t opb = q->ta ? CUBLAS_OP_T : CUBLAS_OP_N;     // of our A
    cublasLtEpilogue_t epi = q->fuse & FUSE_DGELU ? CUBLASLT_EPILOGUE_DGELU
        : q->fuse & FUSE_GELU ? q->fuse & FUSE_BIAS ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS
                                                    : CUBLASLT_EPILOGUE_GELU_AUX
        : q->fuse & FUSE_BIAS ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    enum hb_dtype in = (enum hb_dtype)q->in, out = (enum hb_dtype)q->out;
    cublasStatus_t st = cublasLtMatmulDescInit(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!st) st = set(p, CUBLASLT_MATMUL_DESC_TRANSA, &opa, sizeof opa);
    if (!st) st = set(p, CUBLASLT_MATMUL_DESC_TRANSB, &opb, sizeof opb);
    if (!st) st = set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epi, sizeof epi);
    if (!st && q->fuse & (FUSE_GELU | FUSE_DGELU)) {
        st = set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &q->ldd, sizeof q->ldd);
        if (!st) st = set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, &q->sD, sizeof q->sD);
    }
    if (!st) st = layout(&p->A, in, q->tb ? q->k : q->n, q->tb ? q->n : q->k, q->ldb, q->batch,
                         q->sB);
    if (!st) st = layout(&p->B, in, q->ta ? q->m : q->k, q->ta ? q->k : q->m, q->lda, q->batch,
                         q->sA);
    if (!st) st = layout(&p->D, out, q->n, q->m, q->ldd, q->batch, q->sD);
    return st;
}

// The heuristic's first answer that fits.
static void choose(struct plan *p)
{
    enum { ASKED = 8 };
    cublasLtMatmulPreferenceOpaque_t pref;
    cublasLtMatmulHeuristicResult_t found[ASKED];
    int n = 0;
    uint64_t workspace = CUDA_WORKSPACE;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;     // or no split at all
    const cublasLtMatmulPreferenceAttributes_t what[4] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
    };
    if (cublasLtMatmulPreferenceInit(&pref)
        || cublasLtMatmulPreferenceSetAttribute(&pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                &workspace, sizeof workspace)
        || cublasLtMatmulPreferenceSetAttribute(&pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                &schemes, sizeof schemes))
        return;
    for (int i = 0; i < 4; i++) {
        uint32_t bytes = 1u << p->key.align[i];
        if (cublasLtMatmulPreferenceSetAttribute(&pref, what[i], &bytes, sizeof bytes)) return;
    }
    if (cublasLtMatmulAlgoGetHeuristic(handle, &p->desc, &p->A, &p->B, &p->D, &p->D, &pref, ASKED,
                                       found, &n))
        return;
    for (int i = 0; i < n && !p->ok; i++) {
        if (found[i].state || found[i].workspaceSize > CUDA_WORKSPACE) continue;
        p->algo = found[i].algo;
        p->ok = true;
    }
}

// The plan of this product with this much in the epilogue, made if it is new; NULL: there is none.
static struct plan *plan_for(const struct hb_gemm *g, enum hb_dtype t, int fuse)
{
    struct key key;
    fill_key(&key, g, t, fuse);
    uint32_t i = hash(&key) % PLANS;
    while (plans[i].used && memcmp(&plans[i].key, &key, sizeof key) != 0) i = (i + 1) % PLANS;
    struct plan *p = &plans[i];
    if (!p->used) {
        if (n_plans >= PLANS * 3 / 4) {
            memset(plans, 0, sizeof plans);
            n_plans = 0;
            p = &plans[hash(&key) % PLANS];
        }
        memcpy(&p->key, &key, sizeof key);       // the bytes between the fields, too
        p->used = true;
        n_plans++;
        if (!describe(p) && !set_pointers(p, g)) choose(p);
    }
    return p->ok ? p : NULL;
}

// Enqueues the product with this much in the epilogue. False: cuBLASLt cannot, nothing happened.
static bool product(const struct hb_gemm *g, struct hb_on on, int fuse)
{
    if (g->batch > INT32_MAX) return false;
    struct plan *p = plan_for(g, on.t, fuse);
    if (!p || set_pointers(p, g)) return false;
    cublasStatus_t st = cublasLtMatmul(handle, &p->desc, &g->alpha, g->B, &p->A, g->A, &p->B,
                                       &g->beta, g->C && g->beta != 0 ? g->C : g->D, &p->D, g->D,
                                       &p->D, &p->algo, gpu.workspace, CUDA_WORKSPACE,
                                       (cudaStream_t)on.stream);
    if (st == CUBLAS_STATUS_NOT_SUPPORTED) return p->ok = false;
    if (st) cuda_note_text(HB_ERR_RUN, "cublasLtMatmul", cublasLtGetStatusString(st));
    return true;
}

// --- what cuBLASLt does not do -------------------------------------------------------------------

// The product alone, one thread per element, for shapes that nobody trains with.
// Grid (n, m, batch) in tiles; rows and batches beyond the grid by strides.
template <class T, class O>
__global__ void product_kernel(const struct hb_gemm g)
{
    const T *A = (const T *)g.A, *B = (const T *)g.B;
    const O *C = (const O *)(g.C ? g.C : g.D);
    int64_t j = blockIdx.x * (int64_t)TILE + threadIdx.x, batch = g.batch > 1 ? g.batch : 1;
    if (j >= g.n) return;
    for (int64_t b = blockIdx.z; b < batch; b += gridDim.z)
        for (int64_t i = blockIdx.y * (int64_t)TILE + threadIdx.y; i < g.m;
             i += (int64_t)gridDim.y * TILE) {
            const T *a = A + b * g.sA + (g.ta ? i : i * g.lda);
            const T *c = B + b * g.sB + (g.tb ? j * g.ldb : j);
            int64_t da = g.ta ? g.lda : 1, dc = g.tb ? 1 : g.ldb, at = b * g.sD + i * g.ldd + j;
            float sum = 0;
            for (int64_t l = 0; l < g.k; l++) sum += hb_load(a[l * da]) * hb_load(c[l * dc]);
            float x = g.alpha * sum;
            if (g.beta != 0) x += g.beta * hb_load(C[at]);
            ((O *)g.D)[at] = hb_store<O>(x);
        }
}

// gelu(x) = x s with s = 1/(1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): the tanh form without
// its cancellation. `slope`: gelu'(x) = s + 2 x s (1 - s) u'.
static __device__ __forceinline__ float gelu(float x, bool slope)
{
    const float a = 0.7978845608028654f, b = 0.044715f;
    float u = a * (x + b * x * x * x), s = 1.0f / (1.0f + expf(-2.0f * u));
    return slope ? s + 2.0f * x * s * (1.0f - s) * a * (1.0f + 3.0f * b * x * x) : x * s;
}

// What the product's epilogue left out, in place on D. bias, keep, slope may be NULL.
// Grid (n, m, batch) in tiles; rows and batches beyond the grid by strides.
template <class T, class O>
__global__ void finish_kernel(O *D, const T *bias, T *keep, const T *slope, int64_t m, int64_t n,
                              int64_t ldd, int64_t batch, int64_t sD)
{
    int64_t j = blockIdx.x * (int64_t)FINISH_X + threadIdx.x;
    if (j >= n) return;
    float add = bias ? hb_load(bias[j]) : 0.0f;
    for (int64_t b = blockIdx.z; b < batch; b += gridDim.z)
        for (int64_t i = blockIdx.y * (int64_t)FINISH_Y + threadIdx.y; i < m;
             i += (int64_t)gridDim.y * FINISH_Y) {
            int64_t at = b * sD + i * ldd + j;
            float x = hb_load(D[at]) + add;
            if (keep) {
                keep[at] = hb_store<T>(x);
                x = gelu(x, false);
            }
            if (slope) x *= gelu(hb_load(slope[at]), true);
            D[at] = hb_store<O>(x);
        }
}

static dim3 tiles(const struct hb_gemm *g, int tx, int ty)
{
    int64_t x = (g->n + tx - 1) / tx, y = (g->m + ty - 1) / ty, z = g->batch > 1 ? g->batch : 1;
    return dim3((unsigned)x, (unsigned)(y < MOST_Y ? y : MOST_Y),
                (unsigned)(z < MOST_Y ? z : MOST_Y));
}

// Calls f with a value of the input's type and one of the output's.
template <class F> static void by_types(const struct hb_gemm *g, enum hb_dtype t, F f)
{
    hb_by_type(t, [&](auto in) {
        if (g->out_f32) f(in, 0.0f);
        else f(in, in);
    });
}

static void own_product(const struct hb_gemm *g, struct hb_on on)
{
    by_types(g, on.t, [&](auto in, auto out) {
        using T = decltype(in);
        using O = decltype(out);
        product_kernel<T, O><<<tiles(g, TILE, TILE), dim3(TILE, TILE), 0,
                               (cudaStream_t)on.stream>>>(*g);
    });
    cuda_launched("gemm");
}

static void finish(const struct hb_gemm *g, struct hb_on on, bool bias)
{
    by_types(g, on.t, [&](auto in, auto out) {
        using T = decltype(in);
        using O = decltype(out);
        finish_kernel<T, O><<<tiles(g, FINISH_X, FINISH_Y), dim3(FINISH_X, FINISH_Y), 0,
                              (cudaStream_t)on.stream>>>(
            (O *)g->D, bias ? (const T *)g->bias : NULL, (T *)g->gelu_in, (const T *)g->dgelu,
            g->m, g->n, g->ldd, g->batch > 1 ? g->batch : 1, g->batch > 1 ? g->sD : 0);
    });
    cuda_launched("gemm: epilogue");
}

// --- gemm ----------------------------------------------------------------------------------------

// What cuBLASLt's epilogue may take over. Its tanh need not be float32's, so float32 keeps its GELU
// here; it wants the kept matrix's rows at multiples of 8; a bias has the output's type; a bias
// before a GELU's slope it does not know.
static int fusible(const struct hb_gemm *g, enum hb_dtype t)
{
    bool act = g->gelu_in || g->dgelu, out_like_in = t == HB_F32 || !g->out_f32;
    bool rows = g->ldd % 8 == 0 && (g->batch <= 1 || g->sD % 8 == 0)
             && (uintptr_t)aux_of(g) % 16 == 0;
    int fuse = g->bias && out_like_in ? FUSE_BIAS : 0;
    if (!act || t == HB_F32 || g->out_f32 || !rows || (g->dgelu && g->bias)) return fuse;
    return fuse | (g->dgelu ? FUSE_DGELU : FUSE_GELU);
}

void cuda_gemm(const struct hb_gemm *g, struct hb_on on)
{
    bool act = g->gelu_in || g->dgelu;
    int all = fusible(g, on.t);
    if (g->m <= 0 || g->n <= 0) return;
    if (on.stream == gpu.side)                   // the library's workspace is the other stream's
        return cuda_note_text(HB_ERR_RUN, "gemm", "not on the second stream");
    if (g->k > 0) {
        if (product(g, on, all)) {
            bool bias = g->bias && !(all & FUSE_BIAS);
            if (bias || (act && !(all & (FUSE_GELU | FUSE_DGELU)))) finish(g, on, bias);
            return;
        }
        int bias_only = all & FUSE_BIAS;
        if (bias_only && bias_only != all && product(g, on, bias_only)) {
            finish(g, on, false);
            return;
        }
        if (all && product(g, on, 0)) {
            finish(g, on, g->bias != NULL);
            return;
        }
    }
    own_product(g, on);
    if (act || g->bias) finish(g, on, g->bias != NULL);
}
