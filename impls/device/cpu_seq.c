// cpu_seq.c: the primitives that move along the sequence on the CPU: short depthwise filter,
// attention heads.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "cpu_math.h"

enum { T_BLOCK = 1024,           // positions per block: four rows of it stay in 32 KiB of L1
       TILE_I = 16,              // heads: channels of a tile, one cache line of (L,P)
       TILE_T = 64 };            // positions of a tile, four lines in a row of one page
static const double ROPE_THETA = 10000.0;

// --- short depthwise filter ----------------------------------------------------------------------

// One row of L positions. K is a constant where this is inlined for the usual 3 taps.
static inline void shortconv_row(float *y, const float *p, float bp, const float *w, float bs,
                                 int64_t L, int K)
{
    float w_sum = 0;
    for (int j = 0; j < K; j++) w_sum += w[j];
    float bias = bs + bp * w_sum;
    for (int64_t t = 0; t < L && t < K - 1; t++) {   // taps that fall before t = 0 see 0, not bp
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

void cpu_shortconv_fwd(float *y, const float *p, const float *bp, const float *w, const float *bs,
                       int64_t C, int64_t B, int64_t L, int K, void *s)
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
static inline void shortconv_dp(float *dp, const float *dy, const float *w, int64_t t0, int64_t t1,
                                int64_t L, int K)
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

// One channel: dp, and its sums over batch and time. Tap j sees bp at every position but the first
// K-1-j.
static void shortconv_bwd_channel(float *dp, float *dw, float *dbs, float *dbp, const float *dy,
                                  const float *p, float bp, const float *w, int64_t B, int64_t L,
                                  int K)
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

void cpu_shortconv_bwd(float *dp, float *dw, float *dbs, float *dbp, const float *dy,
                       const float *p, const float *bp, const float *w, int64_t C, int64_t B,
                       int64_t L, int K, void *s)
{
    (void)s;
    #pragma omp parallel for num_threads(cpu_threads(C * B * L))
    for (int64_t c = 0; c < C; c++)
        shortconv_bwd_channel(dp + c * B * L, dw + c * K, dbs + c, dbp ? dbp + c : NULL,
                              dy + c * B * L, p + c * B * L, bp ? bp[c] : 0, w + c * K, B, L, K);
}

// --- heads ---------------------------------------------------------------------------------------

// A tile of TILE_I channels and TILE_T positions passes through `x`, [i][t], so that both sides are
// read and written along their contiguous axis: walking across the projection's rows, B L floats
// apart and often a power of two, would hit the same few cache sets again and again.
struct tile {
    int64_t t0, nt, i0, ni;
    float x[2][TILE_I][TILE_T];      // x[1]: the partners i + P/2 where turned
};
struct angles { float c[TILE_I][TILE_T], s[TILE_I][TILE_T]; };       // [i][t]

// A head's P channels at L positions: (L,P), or rows of the projection `rows` floats apart.
struct view { float *x; int64_t P, rows; bool proj; };

static void load_tile(struct tile *a, int part, struct view v, int64_t i0)
{
    if (v.proj)
        for (int64_t i = 0; i < a->ni; i++)
            for (int64_t t = 0; t < a->nt; t++)
                a->x[part][i][t] = v.x[(i0 + i) * v.rows + a->t0 + t];
    else
        for (int64_t t = 0; t < a->nt; t++)
            for (int64_t i = 0; i < a->ni; i++) a->x[part][i][t] = v.x[(a->t0 + t) * v.P + i0 + i];
}

static void store_tile(const struct tile *a, int part, struct view v, int64_t i0)
{
    if (v.proj)
        for (int64_t i = 0; i < a->ni; i++)
            for (int64_t t = 0; t < a->nt; t++)
                v.x[(i0 + i) * v.rows + a->t0 + t] = a->x[part][i][t];
    else
        for (int64_t t = 0; t < a->nt; t++)
            for (int64_t i = 0; i < a->ni; i++) v.x[(a->t0 + t) * v.P + i0 + i] = a->x[part][i][t];
}

static void fill_angles(struct angles *a, const struct tile *at, int64_t P)
{
    for (int64_t i = 0; i < at->ni; i++) {
        double rate = pow(ROPE_THETA, -2.0 * (double)(at->i0 + i) / (double)P);
        #pragma omp simd
        for (int64_t t = 0; t < at->nt; t++) {           // rate <= 1: good for L up to CPU_TRIG_MAX
            a->c[i][t] = (float)cpu_trig((double)(at->t0 + t) * rate, 0.5);
            a->s[i][t] = (float)cpu_trig((double)(at->t0 + t) * rate, 0.0);
        }
    }
}

// Pairs (i, i + P/2) turned by their angle; sign -1 turns back.
static void turn(struct tile *a, const struct angles *by, float sign)
{
    for (int64_t i = 0; i < a->ni; i++)
        for (int64_t t = 0; t < a->nt; t++) {
            float c = by->c[i][t], s = sign * by->s[i][t], lo = a->x[0][i][t], hi = a->x[1][i][t];
            a->x[0][i][t] = c * lo - s * hi;
            a->x[1][i][t] = s * lo + c * hi;
        }
}

struct heads { float *head[3]; float *proj; int64_t B, H, L, P; bool split; };

// Tensor n (q, k, v) of head (b,h) between its two layouts; `by` is NULL where nothing is turned.
static void move_tile(const struct heads *m, int n, int64_t b, int64_t h, const struct angles *by,
                      struct tile *a)
{
    int64_t BL = m->B * m->L, P = m->P;
    struct view head = { m->head[n] + (b * m->H + h) * m->L * P, P, 0, false };
    struct view proj = { m->proj + (n * m->H + h) * P * BL + b * m->L, P, BL, true };
    struct view to = m->split ? head : proj, from = m->split ? proj : head;
    load_tile(a, 0, from, a->i0);
    if (by) {
        load_tile(a, 1, from, a->i0 + P / 2);
        turn(a, by, m->split ? 1.0f : -1.0f);
        store_tile(a, 1, to, a->i0 + P / 2);
    }
    store_tile(a, 0, to, a->i0);
}

static void place(struct tile *a, const struct heads *m, int64_t t0, int64_t i0, int64_t i_end)
{
    a->t0 = t0;
    a->nt = m->L - t0 < TILE_T ? m->L - t0 : TILE_T;
    a->i0 = i0;
    a->ni = i_end - i0 < TILE_I ? i_end - i0 : TILE_I;
}

static void move_plain(const struct heads *m, int n_first)
{
    #pragma omp parallel for num_threads(cpu_threads(3 * m->B * m->H * m->L * m->P)) collapse(3)
    for (int64_t b = 0; b < m->B; b++)
        for (int64_t h = 0; h < m->H; h++)
            for (int64_t t0 = 0; t0 < m->L; t0 += TILE_T)
                for (int n = n_first; n < 3; n++)
                    for (int64_t i0 = 0; i0 < m->P; i0 += TILE_I) {
                        struct tile a;
                        place(&a, m, t0, i0, m->P);
                        move_tile(m, n, b, h, NULL, &a);
                    }
}

// q and k: the angles of a tile serve every batch and head.
static void move_turned(const struct heads *m)
{
    assert(m->P % 2 == 0);
    #pragma omp parallel for num_threads(cpu_threads(3 * m->B * m->H * m->L * m->P)) collapse(2)
    for (int64_t t0 = 0; t0 < m->L; t0 += TILE_T)
        for (int64_t i0 = 0; i0 < m->P / 2; i0 += TILE_I) {
            struct tile a;
            struct angles by;
            place(&a, m, t0, i0, m->P / 2);
            fill_angles(&by, &a, m->P);
            for (int64_t bh = 0; bh < m->B * m->H; bh++)
                for (int n = 0; n < 2; n++) move_tile(m, n, bh / m->H, bh % m->H, &by, &a);
        }
}

static void move_heads(const struct heads *m, bool rope)
{
    if (rope) move_turned(m);
    move_plain(m, rope ? 2 : 0);
}

void cpu_heads_split(float *q, float *k, float *v, const float *p, int64_t B, int64_t H, int64_t L,
                     int64_t P, bool rope, void *s)
{
    (void)s;
    struct heads m = { { q, k, v }, (float *)p, B, H, L, P, true };      // p is only read
    move_heads(&m, rope);
}

void cpu_heads_merge(float *dp, const float *dq, const float *dk, const float *dv, int64_t B,
                     int64_t H, int64_t L, int64_t P, bool rope, void *s)
{
    (void)s;
    float *from[3] = { (float *)dq, (float *)dk, (float *)dv };          // only read
    struct heads m = { { from[0], from[1], from[2] }, dp, B, H, L, P, false };
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
                memcpy(y + ((b * L + t) * H + h) * P, x + ((b * H + h) * L + t) * P,
                       (size_t)P * sizeof *y);
}

void cpu_heads_unjoin(float *dx, const float *dy, int64_t B, int64_t H, int64_t L, int64_t P,
                      void *s)
{
    cpu_heads_join(dx, dy, B, L, H, P, s);       // the same exchange of the two middle axes
}
