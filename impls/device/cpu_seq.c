// cpu_seq.c: the primitives that move along the sequence on the CPU: short depthwise filter, attention heads.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "cpu.h"

enum { T_BLOCK = 1024,           // positions per block: four rows of it stay in 32 KiB of L1
       TILE = 16 };              // heads: tile of a transposition, one cache line wide
static const double ROPE_THETA = 10000.0;

// --- short depthwise filter --------------------------------------------------------------------------------

// One row of L positions. K is a constant where this is inlined for the usual 3 taps.
static inline void shortconv_row(float *y, const float *p, float bp, const float *w, float bs, int64_t L, int K)
{
    float w_sum = 0;
    for (int j = 0; j < K; j++) w_sum += w[j];
    float bias = bs + bp * w_sum;
    for (int64_t t = 0; t < L && t < K - 1; t++) {       // the start: taps that fall before t = 0 see 0, not bp
        float sum = bs;
        for (int64_t j = K - 1 - t; j < K; j++) sum += w[j] * (p[t - (K - 1) + j] + bp);
        y[t] = sum;
    }
    #pragma omp simd
    for (int64_t t = K - 1; t < L; t++) {
        float sum = bias;
        for (int j = 0; j < K; j++) sum += w[j] * p[t - (K - 1) + j];
        y[t] = sum;
    }
}

void cpu_shortconv_fwd(float *y, const float *p, const float *bp, const float *w, const float *bs, int64_t C,
                       int64_t B, int64_t L, int K, void *s)
{
    (void)s;
    #pragma omp parallel for num_threads(cpu_threads(C * B * L)) collapse(2)
    for (int64_t c = 0; c < C; c++)
        for (int64_t b = 0; b < B; b++) {
            int64_t row = (c * B + b) * L;
            float bias = bp ? bp[c] : 0;
            if (K == 3) shortconv_row(y + row, p + row, bias, w + c * 3, bs[c], L, 3);
            else shortconv_row(y + row, p + row, bias, w + c * K, bs[c], L, K);
        }
}

// dp[t] = sum_j w[j] dy[t+K-1-j] for t0 <= t < t1, terms at or beyond L dropped.
static inline void shortconv_dp(float *dp, const float *dy, const float *w, int64_t t0, int64_t t1, int64_t L, int K)
{
    int64_t whole = t1 < L - K + 1 ? t1 : L - K + 1;     // up to here every tap has its dy
    if (whole < t0) whole = t0;
    #pragma omp simd
    for (int64_t t = t0; t < whole; t++) {
        float sum = 0;
        for (int j = 0; j < K; j++) sum += w[j] * dy[t + K - 1 - j];
        dp[t] = sum;
    }
    for (int64_t t = whole; t < t1; t++) {
        float sum = 0;
        for (int j = K - 1; j >= 0 && t + K - 1 - j < L; j--) sum += w[j] * dy[t + K - 1 - j];
        dp[t] = sum;
    }
}

// One channel: dp, and its sums over batch and time. Tap j sees bp at every position but the first K-1-j.
static void shortconv_bwd_channel(float *dp, float *dw, float *dbs, float *dbp, const float *dy, const float *p,
                                  float bp, const float *w, int64_t B, int64_t L, int K)
{
    double sum_dy = 0, sum_dp = 0;
    for (int64_t b = 0; b < B; b++)
        for (int64_t t0 = 0; t0 < L; t0 += T_BLOCK) {
            int64_t t1 = t0 + T_BLOCK < L ? t0 + T_BLOCK : L;
            if (K == 3) shortconv_dp(dp + b * L, dy + b * L, w, t0, t1, L, 3);
            else shortconv_dp(dp + b * L, dy + b * L, w, t0, t1, L, K);
            sum_dy += cpu_sum(dy + b * L + t0, t1 - t0);
            sum_dp += cpu_sum(dp + b * L + t0, t1 - t0);
        }
    *dbs += (float)sum_dy;
    if (dbp) *dbp += (float)sum_dp;
    for (int j = 0; j < K; j++) {
        int64_t lag = K - 1 - j < L ? K - 1 - j : L;
        double sum = (double)bp * sum_dy;
        for (int64_t b = 0; b < B; b++) {
            sum += cpu_dot(dy + b * L + lag, p + b * L, L - lag);
            sum -= (double)bp * cpu_sum(dy + b * L, lag);
        }
        dw[j] += (float)sum;
    }
}

void cpu_shortconv_bwd(float *dp, float *dw, float *dbs, float *dbp, const float *dy, const float *p,
                       const float *bp, const float *w, int64_t C, int64_t B, int64_t L, int K, void *s)
{
    (void)s;
    #pragma omp parallel for num_threads(cpu_threads(C * B * L))
    for (int64_t c = 0; c < C; c++)
        shortconv_bwd_channel(dp + c * B * L, dw + c * K, dbs + c, dbp ? dbp + c : NULL, dy + c * B * L,
                              p + c * B * L, bp ? bp[c] : 0, w + c * K, B, L, K);
}

// --- heads ---------------------------------------------------------------------------------------------------

// A head's P channels at L positions, in one of two layouts: (P, ., L) inside the projection or (L,P).
struct view { float *x; int64_t t, i; };         // element (t,i) is x[t * view.t + i * view.i]

struct angles { float c[TILE][TILE], s[TILE][TILE]; };   // [t][i] of a tile

static void fill_angles(struct angles *a, int64_t t0, int64_t nt, int64_t i0, int64_t ni, int64_t P)
{
    for (int64_t i = 0; i < ni; i++) {
        double rate = pow(ROPE_THETA, -2.0 * (double)(i0 + i) / (double)P);
        for (int64_t t = 0; t < nt; t++) {
            a->c[t][i] = (float)cos((double)(t0 + t) * rate);
            a->s[t][i] = (float)sin((double)(t0 + t) * rate);
        }
    }
}

static inline void copy_tile(struct view to, struct view from, int64_t t0, int64_t nt, int64_t i0, int64_t ni)
{
    for (int64_t t = t0; t < t0 + nt; t++)
        for (int64_t i = i0; i < i0 + ni; i++) to.x[t * to.t + i * to.i] = from.x[t * from.t + i * from.i];
}

// Pairs (i, i + half) turned by their angle; sign -1 turns back.
static inline void turn_tile(struct view to, struct view from, const struct angles *a, float sign, int64_t t0,
                             int64_t nt, int64_t i0, int64_t ni, int64_t half)
{
    for (int64_t t = 0; t < nt; t++)
        for (int64_t i = 0; i < ni; i++) {
            const float *f = from.x + (t0 + t) * from.t + (i0 + i) * from.i;
            float *o = to.x + (t0 + t) * to.t + (i0 + i) * to.i;
            float c = a->c[t][i], s = sign * a->s[t][i], lo = f[0], hi = f[half * from.i];
            o[0] = c * lo - s * hi;
            o[half * to.i] = s * lo + c * hi;
        }
}

struct heads { float *head[3]; float *proj; int64_t B, H, L, P; bool split; };

// Tensor n (q, k, v) of head (b,h) between its two layouts; a is NULL where nothing is turned.
static void move_tile(const struct heads *m, int n, int64_t b, int64_t h, const struct angles *a, int64_t t0,
                      int64_t nt, int64_t i0, int64_t ni)
{
    int64_t BL = m->B * m->L, P = m->P;
    struct view head = { m->head[n] + (b * m->H + h) * m->L * P, P, 1 };
    struct view proj = { m->proj + (n * m->H + h) * P * BL + b * m->L, 1, BL };
    struct view to = m->split ? head : proj, from = m->split ? proj : head;
    if (a) turn_tile(to, from, a, m->split ? 1.0f : -1.0f, t0, nt, i0, ni, P / 2);
    else copy_tile(to, from, t0, nt, i0, ni);
}

static void move_plain(const struct heads *m, int n_first)
{
    #pragma omp parallel for num_threads(cpu_threads(3 * m->B * m->H * m->L * m->P)) collapse(3)
    for (int64_t b = 0; b < m->B; b++)
        for (int64_t h = 0; h < m->H; h++)
            for (int64_t t0 = 0; t0 < m->L; t0 += TILE)
                for (int n = n_first; n < 3; n++)
                    for (int64_t i0 = 0; i0 < m->P; i0 += TILE) {
                        int64_t nt = m->L - t0 < TILE ? m->L - t0 : TILE, ni = m->P - i0 < TILE ? m->P - i0 : TILE;
                        move_tile(m, n, b, h, NULL, t0, nt, i0, ni);
                    }
}

// q and k: the angles of a tile serve every batch and head.
static void move_turned(const struct heads *m)
{
    int64_t half = m->P / 2;
    assert(m->P % 2 == 0);
    #pragma omp parallel for num_threads(cpu_threads(3 * m->B * m->H * m->L * m->P)) collapse(2)
    for (int64_t t0 = 0; t0 < m->L; t0 += TILE)
        for (int64_t i0 = 0; i0 < half; i0 += TILE) {
            int64_t nt = m->L - t0 < TILE ? m->L - t0 : TILE, ni = half - i0 < TILE ? half - i0 : TILE;
            struct angles a;
            fill_angles(&a, t0, nt, i0, ni, m->P);
            for (int64_t bh = 0; bh < m->B * m->H; bh++)
                for (int n = 0; n < 2; n++) move_tile(m, n, bh / m->H, bh % m->H, &a, t0, nt, i0, ni);
        }
}

static void move_heads(const struct heads *m, bool rope)
{
    if (rope) move_turned(m);
    move_plain(m, rope ? 2 : 0);
}

void cpu_heads_split(float *q, float *k, float *v, const float *p, int64_t B, int64_t H, int64_t L, int64_t P,
                     bool rope, void *s)
{
    (void)s;
    struct heads m = { { q, k, v }, (float *)p, B, H, L, P, true };      // p is only read
    move_heads(&m, rope);
}

void cpu_heads_merge(float *dp, const float *dq, const float *dk, const float *dv, int64_t B, int64_t H,
                     int64_t L, int64_t P, bool rope, void *s)
{
    (void)s;
    struct heads m = { { (float *)dq, (float *)dk, (float *)dv }, dp, B, H, L, P, false };   // read only
    move_heads(&m, rope);
}

// (B,H,L,P) <-> (B,L,H,P): rows of P floats change places.
void cpu_heads_join(float *y, const float *x, int64_t B, int64_t H, int64_t L, int64_t P, void *s)
{
    (void)s;
    #pragma omp parallel for num_threads(cpu_threads(B * H * L * P)) collapse(2)
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < L; t++)
            for (int64_t h = 0; h < H; h++)
                memcpy(y + ((b * L + t) * H + h) * P, x + ((b * H + h) * L + t) * P, (size_t)P * sizeof *y);
}

void cpu_heads_unjoin(float *dx, const float *dy, int64_t B, int64_t H, int64_t L, int64_t P, void *s)
{
    cpu_heads_join(dx, dy, B, L, H, P, s);       // the same exchange of the two middle axes
}
