// hb-cflags: -mavx2 -mfma
// attention_flash.c: causal softmax attention in O(L) memory, CPU.
//     y = softmax(q k' / sqrt(P), causal) v, per head          q,k,v,y (B,H,L,P)   float32
// Method    online softmax over tiles of BQ queries by BK keys. Forward: lanes are queries, so
//           maximum and sum are lane by lane and k, v are read as they lie; only q is packed.
//           Backward: lanes are keys; each slice of key tiles recomputes its probabilities from the
//           kept maximum and sum, owns its dk and dv, and adds to a dq of its own; the slices are
//           summed in order. Tiles beyond the diagonal are skipped, those on it cut to what is
//           needed row block by row block, and only there masks are applied.
// Cost      forward 2 P L (L+1), backward 5 P L (L+1) flop per head; memory 3 L floats per head,
//           L P for each further slice (threads-1 at most in all), and some tiles per thread.
// Source    Milakov, Gimelshein 2018, arXiv:1805.02867 (online softmax); Dao et al. 2022,
//           arXiv:2205.14135, algorithms 1, 2, 4; Dao 2023, arXiv:2307.08691, sections 3.1, 3.2.
// Accuracy  dot products over P in order, sums over keys by blocks of BK, exp2 to 2 ulp: rel. L2
//           3e-7 at L = 4097. Same bits for a fixed number of threads; forward for any number.
// Refuses   dtypes other than f32. Tensors are read by their strides; P not a multiple of 8 runs on
//           zero-padded copies.
#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include "hb.h"

enum {
    MR = 6, NR = 16,      // micro-kernel 6 x 16: 12 accumulators, 2 of B, 1 of A in 16 registers
    BQ = 48, BK = 96,     // forward tile, multiples of MR and NR: its scores (18 KiB) stay in L1
    BT = 96,              // backward tile, keys and queries: five 96 x P operands stay in L2
};
static const float LOG2E = 1.44269504f;
static const int64_t SERIAL_FLOP = 200000;   // below this, waking threads costs more than it saves

// All tensors (B,H,L,Pp) by the strides sq and, y and dy, sy; or those of one head, with rows sq.t
// and sy.t apart. Rows of statistics (heads,L) or (L).
struct head {
    const float *q, *k, *v, *dy;
    float *y, *dq, *dk, *dv, *top, *rsum, *delta;
    struct hb_heads sq, sy;
};

struct state {
    const struct hb_host *host;    // borrowed until destroy
    int64_t heads, H, L, P, Pp;    // heads = B H; Pp: P rounded up to 8
    int threads;
    int64_t split, slices;         // backward: the last `split` heads are cut into `slices` each
    float scale;                   // 1/sqrt(P)
    float *top;                    // (heads,L) largest score of a row times scale log2(e), owned
    float *rsum;                   // (heads,L) 1 / sum_j 2^(score - top), owned
    float *delta;                  // (heads,L) sum_p dy y, owned
    float *dq_part;                // (split,slices-1,L,Pp), owned
    float *pad;                    // q,k,v,y or dy (,dq,dk,dv) (heads,L,Pp) if Pp != P, owned
    float *ws;                     // (threads,ws_floats), owned
    int64_t ws_floats;
};

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// 2^x to 2 ulp for x in [-126, 127]; 0 from -127 down; NaN stays. x = n + r, |r| <= 1/2: minimax
// polynomial of degree 6 in r (error 2e-9 before rounding), n + 127 shifted into the exponent.
static inline __m256 exp2v(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f + 127.0f);   // 1.5 2^23: adding it rounds
    x = _mm256_max_ps(_mm256_set1_ps(-127.0f), x);               // in this order NaN stays
    const __m256 t = _mm256_add_ps(x, magic);
    const __m256 r = _mm256_sub_ps(x, _mm256_sub_ps(t, magic));
    __m256 p = _mm256_set1_ps(0x1.41d334p-13f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.5f456ap-10f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.3b2dbcp-7f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.c6aed4p-5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.ebfbdap-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.62e430p-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}

// ----------------------------------------------------------------------------------- micro-kernels

enum store { STORE, ADD, SCALE };   // c = ab,   c += ab,   c[r] = alpha[r] c[r] + ab

// c (6, 8 nv) from a (6,n) and b (n, 8 nv). `tall`: a is stored (n,6), rows next to each other;
// otherwise (6,n), and rows past `rows` repeat the last one. Only `rows` rows of c are touched.
__attribute__((always_inline)) static inline void
kernel(const bool tall, const int nv, const enum store how, int64_t n, const float *a, int64_t lda,
       const float *b, int64_t ldb, float *c, int64_t ldc, int64_t rows, const float *alpha)
{
    __m256 acc[MR][2];
    const float *ar[MR];
#pragma GCC unroll 6
    for (int r = 0; r < MR; r++) {
        acc[r][0] = acc[r][1] = _mm256_setzero_ps();
        ar[r] = tall ? a + r : a + min64(r, rows - 1) * lda;
    }
    for (int64_t k = 0; k < n; k++, b += ldb) {
        const __m256 b0 = _mm256_loadu_ps(b), b1 = nv == 2 ? _mm256_loadu_ps(b + 8) : b0;
#pragma GCC unroll 6
        for (int r = 0; r < MR; r++) {
            const __m256 x = _mm256_broadcast_ss(tall ? a + k * lda + r : ar[r] + k);
            acc[r][0] = _mm256_fmadd_ps(x, b0, acc[r][0]);
            if (nv == 2)
                acc[r][1] = _mm256_fmadd_ps(x, b1, acc[r][1]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < MR; r++) {
        if (r >= rows)
            break;
        for (int h = 0; h < nv; h++) {
            float *const to = c + r * ldc + 8 * h;
            __m256 z = acc[r][h];
            if (how == ADD)
                z = _mm256_add_ps(z, _mm256_loadu_ps(to));
            if (how == SCALE)
                z = _mm256_fmadd_ps(_mm256_set1_ps(alpha[r]), _mm256_loadu_ps(to), z);
            _mm256_storeu_ps(to, z);
        }
    }
}

// One row block: c (rows <= 6, width) over panels of 16 columns and, if need be, one of 8.
//   b     panels `bstep` floats apart with rows ldb apart: (NR P, NR) if packed, (NR, P) as it lies
#define ROW_BLOCK(name, tall, how)                                                                 \
    static void name(int64_t n, const float *a, int64_t lda, const float *b, int64_t ldb,          \
                     int64_t bstep, float *c, int64_t ldc, int64_t rows, int64_t width,            \
                     const float *alpha)                                                           \
    {                                                                                              \
        for (; width >= NR; width -= NR, b += bstep, c += NR)                                      \
            kernel(tall, 2, how, n, a, lda, b, ldb, c, ldc, rows, alpha);                          \
        if (width > 0)                                                                             \
            kernel(tall, 1, how, n, a, lda, b, ldb, c, ldc, rows, alpha);                          \
    }
ROW_BLOCK(wide_store, false, STORE)
ROW_BLOCK(wide_add, false, ADD)
ROW_BLOCK(tall_store, true, STORE)
ROW_BLOCK(tall_add, true, ADD)
ROW_BLOCK(tall_scale, true, SCALE)

// Rows [0,n) of x (n,P), ld apart, into panels of NR lanes: to[panel][p][lane]; lanes past n are
// zero.
static void pack(float *to, const float *x, int64_t ld, int64_t n, int64_t P)
{
    for (int64_t i0 = 0; i0 < n; i0 += NR, to += NR * P)
        for (int64_t lane = 0; lane < NR; lane++)
            for (int64_t p = 0; p < P; p++)
                to[p * NR + lane] = i0 + lane < n ? x[(i0 + lane) * ld + p] : 0.0f;
}

// ----------------------------------------------------------------------------------------- forward

struct running { float m[BQ], l[BQ], alpha[BQ]; };   // per query: maximum, sum, last rescaling

// Online softmax of queries i = 8 col .. 8 col + 7 over a score tile s (nk,BQ), in place.
//   off   query minus key at the tile's corner: query i sees keys j <= i + off
//   c     scale log2(e); s becomes 2^(c s - m)
static void softmax_lanes(float *s, int64_t nk, int64_t col, int64_t off, float c,
                          struct running *run)
{
    const int64_t first = 8 * col + off;   // last key of the first query; the last sees 7 more
    const int64_t full = max64(0, min64(nk, first + 1)), some = max64(0, min64(nk, first + 8));
    const __m256 cv = _mm256_set1_ps(c), never = _mm256_set1_ps(-FLT_MAX);
    const __m256 lane = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
    s += 8 * col;

    __m256 top = never;
    for (int64_t j = 0; j < full; j++)
        top = _mm256_max_ps(top, _mm256_loadu_ps(s + j * BQ));
    for (int64_t j = full; j < some; j++) {
        const __m256 seen = _mm256_cmp_ps(lane, _mm256_set1_ps((float)(j - first)), _CMP_GE_OQ);
        const __m256 x = _mm256_blendv_ps(never, _mm256_loadu_ps(s + j * BQ), seen);
        _mm256_storeu_ps(s + j * BQ, x);
        top = _mm256_max_ps(top, x);
    }
    const __m256 m0 = _mm256_loadu_ps(run->m + 8 * col);
    const __m256 m = _mm256_max_ps(m0, _mm256_mul_ps(top, cv));
    const __m256 alpha = exp2v(_mm256_sub_ps(m0, m));
    __m256 sum = _mm256_setzero_ps();
    for (int64_t j = 0; j < some; j++) {
        const __m256 e = exp2v(_mm256_fmsub_ps(_mm256_loadu_ps(s + j * BQ), cv, m));
        _mm256_storeu_ps(s + j * BQ, e);
        sum = _mm256_add_ps(sum, e);
    }
    for (int64_t j = some; j < nk; j++)
        _mm256_storeu_ps(s + j * BQ, _mm256_setzero_ps());
    sum = _mm256_fmadd_ps(_mm256_loadu_ps(run->l + 8 * col), alpha, sum);
    _mm256_storeu_ps(run->m + 8 * col, m);
    _mm256_storeu_ps(run->l + 8 * col, sum);
    _mm256_storeu_ps(run->alpha + 8 * col, alpha);
}

// y rows [i0, i0+nq), nq <= BQ, of one head, their maxima and sums.
//   s (nk,BQ) = k q', row j only from the panel of its first query on;  s -> p;  y = alpha y + p' v
static void forward_tile(const struct state *st, struct head h, int64_t i0, float *ws)
{
    const int64_t P = st->Pp, nq = min64(BQ, st->L - i0), width = round_up(nq, NR);
    const int64_t ld = h.sq.t, ldy = h.sy.t;
    float *const qt = ws, *const s = ws + BQ * P;
    struct running run;
    for (int i = 0; i < BQ; i++)
        run.m[i] = -FLT_MAX, run.l[i] = 0;

    pack(qt, h.q + i0 * ld, ld, nq, P);
    for (int64_t j0 = 0; j0 < i0 + nq; j0 += BK) {
        const int64_t nk = min64(BK, i0 + nq - j0), off = i0 - j0;
        for (int64_t j = 0; j < nk; j += MR) {
            const int64_t i = max64(0, j - off) / NR * NR;
            wide_store(P, h.k + (j0 + j) * ld, ld, qt + i * P, NR, NR * P, s + j * BQ + i, BQ,
                       min64(MR, nk - j), width - i, NULL);
        }
        for (int64_t col = 0; 8 * col < width; col++)
            softmax_lanes(s, nk, col, off, st->scale * LOG2E, &run);
        for (int64_t i = 0; i < nq; i += MR) {
            const int64_t seen = min64(nk, i + MR + off);   // keys that the block's last row sees
            if (seen > 0)
                (j0 ? tall_scale : tall_store)(seen, s + i, BQ, h.v + j0 * ld, ld, NR,
                                               h.y + (i0 + i) * ldy, ldy, min64(MR, nq - i), P,
                                               run.alpha + i);
        }
    }
    for (int64_t i = 0; i < nq; i++) {
        const float r = 1.0f / run.l[i];
        for (int64_t p = 0; p < P; p++)
            h.y[(i0 + i) * ldy + p] *= r;
        h.top[i0 + i] = run.m[i];
        h.rsum[i0 + i] = r;
    }
}

// ---------------------------------------------------------------------------------------- backward

// sum_j p[j] (dp[j] - delta) over a whole row: what rounding left of delta = sum_j p dp. Short rows
// often have one p near 1, and dp - delta there is nothing but rounding. One key: no gradient.
static float refine(const float *p, const float *dp, float delta, int64_t n)
{
    if (n == 1)
        return dp[0] - delta;
    float rest = 0;
#pragma omp simd reduction(+ : rest)
    for (int64_t j = 0; j < n; j++)
        rest += p[j] * (dp[j] - delta);
    return rest;
}

// Probabilities and score gradients of a tile, in place: s (nq,BT) -> p, dp (nq,BT) -> ds.
//   h        the head, moved on to the tile's first query
//   diag     row i sees keys j <= i, the rest become 0;   whole: the tile has all keys of its rows
static void grad_tile(float *s, float *dp, struct head h, int64_t nq, int64_t nk, bool diag,
                      bool whole, float scale)
{
    const __m256 c = _mm256_set1_ps(scale * LOG2E), sc = _mm256_set1_ps(scale);
    const __m256 lane = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
    for (int64_t i = 0; i < nq; i++, s += BT, dp += BT) {
        const __m256 m = _mm256_set1_ps(h.top[i]), r = _mm256_set1_ps(h.rsum[i]);
        const int64_t seen = diag ? min64(i + 1, nk) : nk, width = round_up(seen, 8);
        for (int64_t j = 0; j < width; j += 8) {
            const __m256 p = exp2v(_mm256_fmsub_ps(_mm256_loadu_ps(s + j), c, m));
            const __m256 in = _mm256_cmp_ps(lane, _mm256_set1_ps((float)(seen - j)), _CMP_LT_OQ);
            _mm256_storeu_ps(s + j, _mm256_and_ps(_mm256_mul_ps(r, p), in));
        }
        const __m256 d = _mm256_set1_ps(h.delta[i]);
        const __m256 rest = _mm256_set1_ps(whole ? refine(s, dp, h.delta[i], seen) : 0.0f);
        for (int64_t j = 0; j < width; j += 8) {
            const __m256 x = _mm256_sub_ps(_mm256_sub_ps(_mm256_loadu_ps(dp + j), d), rest);
            _mm256_storeu_ps(dp + j, _mm256_mul_ps(_mm256_mul_ps(sc, _mm256_loadu_ps(s + j)), x));
        }
        const size_t past = sizeof *s * (size_t)(round_up(nk, NR) - width);
        memset(s + width, 0, past);
        memset(dp + width, 0, past);
    }
}

// One tile pair: queries [i0, i0+nq) with keys [j0, j0+nk), j0 <= i0.
//   kt, vt   packed keys and values;   s, dp  (BT,BT) scratch;   dq (L,P) of this slice, rows ldq
//            apart
// s = q k', dp = dy v', then p, ds;  dv += p' dy, dk += ds' q (set on the diagonal);  dq += ds k
static void backward_tile(const struct state *st, struct head h, float *dq, int64_t ldq, int64_t i0,
                          int64_t j0, const float *kt, const float *vt, float *s, float *dp)
{
    const int64_t P = st->Pp, ld = h.sq.t, ldy = h.sy.t;
    const int64_t nq = min64(BT, st->L - i0), nk = min64(BT, st->L - j0);
    const bool diag = i0 == j0;
    h.q += i0 * ld, h.dy += i0 * ldy, h.top += i0, h.rsum += i0, h.delta += i0, dq += i0 * ldq;
    h.k += j0 * ld, h.dk += j0 * ld, h.dv += j0 * ld;

    for (int64_t i = 0; i < nq; i += MR) {
        const int64_t width = round_up(diag ? min64(i + MR, nk) : nk, NR), rows = min64(MR, nq - i);
        wide_store(P, h.q + i * ld, ld, kt, NR, NR * P, s + i * BT, BT, rows, width, NULL);
        wide_store(P, h.dy + i * ldy, ldy, vt, NR, NR * P, dp + i * BT, BT, rows, width, NULL);
    }
    grad_tile(s, dp, h, nq, nk, diag, diag && j0 == 0, st->scale);
    for (int64_t j = 0; j < nk; j += MR) {
        const int64_t i = diag ? j : 0, rows = min64(MR, nk - j);   // key j: queries from i on
        const float *const pj = s + i * BT + j, *const dsj = dp + i * BT + j;
        (diag ? tall_store : tall_add)(nq - i, pj, BT, h.dy + i * ldy, ldy, NR, h.dv + j * ld,
                                       ld, rows, P, NULL);
        (diag ? tall_store : tall_add)(nq - i, dsj, BT, h.q + i * ld, ld, NR, h.dk + j * ld, ld,
                                       rows, P, NULL);
    }
    for (int64_t i = 0; i < nq; i += MR)
        wide_add(diag ? min64(i + MR, nk) : nk, dp + i * BT, BT, h.k, ld, NR, dq + i * ldq, ldq,
                 min64(MR, nq - i), P, NULL);
}

// Slice `slice` of a head: its key tiles, dealt out there and back so that the triangle balances.
static void backward_slice(const struct state *st, struct head h, float *dq, int64_t ldq,
                           int64_t slice, int64_t slices, float *ws)
{
    const int64_t P = st->Pp, ld = h.sq.t;
    float *const kt = ws, *const vt = kt + BT * P, *const s = vt + BT * P, *const dp = s + BT * BT;
    for (int64_t i = 0; i < st->L; i++)
        memset(dq + i * ldq, 0, sizeof *dq * (size_t)P);
    for (int64_t t = 0; t * BT < st->L; t++) {
        const int64_t turn = t % (2 * slices);
        if ((turn < slices ? turn : 2 * slices - 1 - turn) != slice)
            continue;
        const int64_t j0 = t * BT, nk = min64(BT, st->L - j0);
        pack(kt, h.k + j0 * ld, ld, nk, P);
        pack(vt, h.v + j0 * ld, ld, nk, P);
        for (int64_t i0 = j0; i0 < st->L; i0 += BT)
            backward_tile(st, h, dq, ldq, i0, j0, kt, vt, s, dp);
    }
}

// ------------------------------------------------------------------------------- padding and heads

// Where row t of head i (b H + h) begins.
static int64_t row_at(const struct state *st, struct hb_heads s, int64_t i, int64_t t)
{
    return i / st->H * s.b + i % st->H * s.h + t * s.t;
}

// Copies that have rows of Pp.
static struct hb_heads padded(const struct state *st)
{
    return (struct hb_heads){ st->H * st->L * st->Pp, st->L * st->Pp, st->Pp };
}

// x, rows of `from` -> y, rows of `to`: cut, or filled up with zeros.
static void repitch(const struct state *st, float *y, struct hb_heads sy, int64_t to,
                    const float *x, struct hb_heads sx, int64_t from)
{
    const int64_t both = min64(to, from);
#pragma omp parallel for num_threads(st->threads) schedule(static)
    for (int64_t r = 0; r < st->heads * st->L; r++) {
        float *const yr = y + row_at(st, sy, r / st->L, r % st->L);
        const float *const xr = x + row_at(st, sx, r / st->L, r % st->L);
        for (int64_t p = 0; p < both; p++)
            yr[p] = xr[p];
        for (int64_t p = both; p < to; p++)
            yr[p] = 0.0f;
    }
}

// The tensors as the kernels see them: those of io, or the padded copies (dy takes the place of y).
static struct head all_heads(const struct state *st, const struct hb_attention_io *io)
{
    const int64_t n = st->heads * st->L * st->Pp;
    float *const x = st->pad;
    struct head h = { .q = io->q, .k = io->k, .v = io->v, .dy = io->dy, .y = io->y, .dq = io->dq,
                      .dk = io->dk, .dv = io->dv, .sq = io->sq, .sy = io->sy };
    if (x)
        h = (struct head){ .q = x, .k = x + n, .v = x + 2 * n, .y = x + 3 * n, .dy = x + 3 * n,
                           .dq = x + 4 * n, .dk = x + 5 * n, .dv = x + 6 * n, .sq = padded(st),
                           .sy = padded(st) };
    h.top = st->top, h.rsum = st->rsum, h.delta = st->delta;
    return h;
}

// Head i of them, forward's tensors only, or all.
static struct head one_head(const struct state *st, struct head h, int64_t i, bool grads)
{
    const int64_t n = row_at(st, h.sq, i, 0), ny = row_at(st, h.sy, i, 0), r = i * st->L;
    h.q += n, h.k += n, h.v += n, h.y += ny, h.top += r, h.rsum += r;
    if (grads)
        h.dy += ny, h.dq += n, h.dk += n, h.dv += n, h.delta += r;
    return h;
}

// ------------------------------------------------------------------------------ the five functions

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
    float *const owned[] = { st->top, st->rsum, st->delta, st->dq_part, st->pad, st->ws };
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        host->free(host, owned[i]);
    host->free(host, st);
}

// a b c floats into *to; nothing if that is 0. Returns 0 or HB_ERR_OOM.
static int floats(const struct hb_host *host, float **to, int64_t a, int64_t b, int64_t c)
{
    size_t n;
    if (__builtin_mul_overflow((size_t)a, (size_t)b, &n) || __builtin_mul_overflow(n, (size_t)c, &n)
        || __builtin_mul_overflow(n, sizeof **to, &n))
        return host->fail(host, HB_ERR_OOM,
                          "attention_flash: %lld x %lld x %lld floats exceed the address space",
                          (long long)a, (long long)b, (long long)c);
    if (n == 0)
        return HB_OK;
    *to = host->alloc(host, n);
    return *to ? HB_OK : HB_ERR_OOM;
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **out)
{
    struct state *const st = host->alloc(host, sizeof *st);
    if (!st)
        return HB_ERR_OOM;
    const int64_t L = p->L, P = p->D / p->H, Pp = round_up(P, 8), heads = p->B * p->H;
    const int64_t fwd = BQ * Pp + BK * BQ, bwd = 2 * BT * Pp + 2 * BT * BT;
    *st = (struct state){ .host = host, .heads = heads, .H = p->H, .L = L, .P = P, .Pp = Pp,
                          .slices = 1,
                          .threads = p->threads, .scale = (float)(1.0 / sqrt((double)P)),
                          .ws_floats = round_up(p->backward ? max64(fwd, bwd) : fwd, 16) };
    // Threads take whole heads; those of an incomplete last round are cut, for all to have work.
    const int64_t left = heads % p->threads;
    if (left && p->threads / left > 1)
        st->split = left, st->slices = p->threads / left;

    const int64_t grads = p->backward ? heads : 0;
    int rc = floats(host, &st->top, heads, L, 1);
    if (!rc) rc = floats(host, &st->rsum, heads, L, 1);
    if (!rc) rc = floats(host, &st->delta, grads, L, 1);
    if (!rc) rc = floats(host, &st->dq_part, p->backward ? st->split * (st->slices - 1) : 0, L, Pp);
    if (!rc) rc = floats(host, &st->pad, Pp == P ? 0 : 4 * heads + 3 * grads, L, Pp);
    if (!rc) rc = floats(host, &st->ws, p->threads, st->ws_floats, 1);
    if (rc) {
        destroy(st);
        return rc;
    }
    *out = st;
    return HB_OK;
}

static int forward(void *vst, const struct hb_io *io)
{
    struct state *const st = vst;
    const struct head all = all_heads(st, &io->attn);
    if (st->pad) {
        const int64_t n = st->heads * st->L * st->Pp;
        const struct hb_heads wide = padded(st), own = io->attn.sq;
        repitch(st, st->pad, wide, st->Pp, io->attn.q, own, st->P);
        repitch(st, st->pad + n, wide, st->Pp, io->attn.k, own, st->P);
        repitch(st, st->pad + 2 * n, wide, st->Pp, io->attn.v, own, st->P);
    }
    const int64_t tiles = (st->L + BQ - 1) / BQ, n = st->heads * tiles;
    // Head by head, longest rows first: threads share a head's k and v in cache, and end together.
#pragma omp parallel for num_threads(st->threads) schedule(dynamic, 1) \
    if (n * st->L * BQ * st->P > SERIAL_FLOP)
    for (int64_t i = 0; i < n; i++)
        forward_tile(st, one_head(st, all, i / tiles, false), (tiles - 1 - i % tiles) * BQ,
                     st->ws + omp_get_thread_num() * st->ws_floats);
    if (st->pad)
        repitch(st, io->attn.y, io->attn.sy, st->P, all.y, all.sy, st->Pp);
    return HB_OK;
}

// Task i of backward: a whole head, or after those a slice of one that is cut.
static void backward_task(const struct state *st, struct head all, int64_t i)
{
    const int64_t whole = st->heads - st->split, cut = max64(0, i - whole);
    const int64_t slices = i < whole ? 1 : st->slices, slice = cut % slices;
    const struct head h = one_head(st, all, min64(i, whole) + cut / slices, true);
    const int64_t part = cut / slices * (slices - 1) + slice - 1;
    backward_slice(st, h, slice ? st->dq_part + part * st->L * st->Pp : h.dq,
                   slice ? st->Pp : h.sq.t, slice, slices,
                   st->ws + omp_get_thread_num() * st->ws_floats);
}

static int backward(void *vst, const struct hb_io *io)
{
    struct state *const st = vst;
    const struct head all = all_heads(st, &io->attn);
    if (st->pad)
        repitch(st, st->pad + 3 * st->heads * st->L * st->Pp, padded(st), st->Pp, io->attn.dy,
                io->attn.sy, st->P);
    const int64_t rows = st->heads * st->L, P = st->P, L = st->L, more = st->slices - 1;
    const int64_t whole = st->heads - st->split, tasks = whole + st->split * st->slices;
    const float *const y = io->attn.y, *const dy = io->attn.dy;
#pragma omp parallel num_threads(st->threads) if (rows * L * P > SERIAL_FLOP)
    {
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = row_at(st, io->attn.sy, r / L, r % L);
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t p = 0; p < P; p++)
                sum += dy[at + p] * y[at + p];
            st->delta[r] = sum;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < tasks; i++)
            backward_task(st, all, i);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < st->split * L; r++) {
            float *const dq = all.dq + row_at(st, all.sq, whole + r / L, r % L);
            for (int64_t slice = 0; slice < more; slice++)
                for (int64_t p = 0; p < st->Pp; p++)
                    dq[p] += st->dq_part[((r / L * more + slice) * L + r % L) * st->Pp + p];
        }
    }
    if (st->pad) {
        const struct hb_heads own = io->attn.sq;
        repitch(st, io->attn.dq, own, P, all.dq, all.sq, st->Pp);
        repitch(st, io->attn.dk, own, P, all.dk, all.sq, st->Pp);
        repitch(st, io->attn.dv, own, P, all.dv, all.sq, st->Pp);
    }
    return HB_OK;
}

static int describe(const void *vst, char *buf, size_t cap)
{
    const struct state *const st = vst;
    return snprintf(buf, cap, "forward tile %dx%d, backward tile %dx%d, kernel %dx%d, "
                    "P padded to %lld, %lld heads cut in %lld for backward", BQ, BK, BT, BT, MR, NR,
                    (long long)st->Pp, (long long)st->split, (long long)st->slices);
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "attention_flash",
    .op = HB_ATTENTION,
    .device = "cpu",
    .dtypes = 1u << HB_F32,
    .source = "Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691",
    .complexity = "O(B H L^2 P) time, O(B H L) memory",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .describe = describe,
};
