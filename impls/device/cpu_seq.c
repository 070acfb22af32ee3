// cpu_seq.c: the primitives that move along the sequence on the CPU: short depthwise filter, rotary
// positions, exchange of axes.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "cpu_math.h"

enum { T_BLOCK = 1024,           // positions per block: four rows of it stay in 32 KiB of L1
       PAIRS = 64, ROWS = 64,    // rotary: angles held at once, rows that share their rates
       TILE = 32 };              // transposition: a tile of floats is 4 KiB, two fit in L1
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

void cpu_shortconv_fwd(void *vy, const void *vp, const float *bp, const float *w, const float *bs,
                       int64_t C, int64_t B, int64_t L, int K, struct hb_on on)
{
    float *y = cpu_act(vy, on);
    const float *p = vp;
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

void cpu_shortconv_bwd(void *vdp, float *dw, float *dbs, float *dbp, const void *vdy,
                       const void *vp, const float *bp, const float *w, int64_t C, int64_t B,
                       int64_t L, int K, struct hb_on on)
{
    float *dp = cpu_act(vdp, on);
    const float *dy = vdy, *p = vp;
    #pragma omp parallel for num_threads(cpu_threads(C * B * L))
    for (int64_t c = 0; c < C; c++)
        shortconv_bwd_channel(dp + c * B * L, dw + c * K, dbs + c, dbp ? dbp + c : NULL,
                              dy + c * B * L, p + c * B * L, bp ? bp[c] : 0, w + c * K, B, L, K);
}

// --- gate behind short filters -------------------------------------------------------------------

// s[0 .. n) = tap(p) at t0 .. t0+n of a row that starts at p, channel c.
static void tap_piece(float *s, const float *p, const struct hb_conv_tap *f, int64_t c, int K,
                      int64_t t0, int64_t n)
{
    if (!f->w) {
        memcpy(s, p + t0, (size_t)n * sizeof *s);
        return;
    }
    const float *w = f->w + c * K, bp = f->bp ? f->bp[c] : 0, bs = f->bs[c];
    int64_t head = K - 1 - t0 < n ? K - 1 - t0 : n;      // the first of a row: fewer taps
    if (head < 0) head = 0;
    for (int64_t t = t0; t < t0 + head; t++) {
        s[t - t0] = bs;
        for (int64_t j = K - 1 - t; j < K; j++) s[t - t0] += w[j] * (p[t - (K - 1) + j] + bp);
    }
    const float *from = p + t0 - (K - 1);
    if (K == 3) {
        const float w0 = w[0], w1 = w[1], w2 = w[2], bias = bs + bp * (w0 + w1 + w2);
        #pragma omp simd
        for (int64_t i = head; i < n; i++)
            s[i] = bias + w0 * from[i] + w1 * from[i + 1] + w2 * from[i + 2];
        return;
    }
    for (int64_t i = head; i < n; i++) {
        s[i] = bs;
        for (int j = 0; j < K; j++) s[i] += w[j] * (from[i + j] + bp);
    }
}

void cpu_taps_fwd(void *vy, const void *va, struct hb_conv_tap ta, const void *vb,
                  struct hb_conv_tap tb, int64_t C, int64_t B, int64_t L, int K, struct hb_on on)
{
    float *y = cpu_act(vy, on);
    const float *a = va, *b = vb;
    #pragma omp parallel for num_threads(cpu_threads(C * B * L))
    for (int64_t row = 0; row < C * B; row++)
        for (int64_t t0 = 0; t0 < L; t0 += T_BLOCK) {
            float s[T_BLOCK], *to = y + row * L + t0;
            const int64_t n = L - t0 < T_BLOCK ? L - t0 : T_BLOCK;
            tap_piece(to, a + row * L, &ta, row / B, K, t0, n);
            tap_piece(s, b + row * L, &tb, row / B, K, t0, n);
            #pragma omp simd
            for (int64_t i = 0; i < n; i++) to[i] *= s[i];
        }
}

// One channel: from ds, which lies in dp, the gradients of its filter, and dp over ds: from the
// first position to the last, each needs only what lies at or behind it.
static void tap_bwd_channel(float *dp, const float *p, const struct hb_conv_tap *f, int64_t c,
                            int64_t B, int64_t L, int K)
{
    if (!f->w) return;
    const float *w = f->w + c * K;
    const double bp = f->bp ? (double)f->bp[c] : 0;
    const double sum_ds = cpu_sum(dp, B * L);
    f->dbs[c] += (float)sum_ds;
    for (int j = 0; j < K; j++) {
        const int64_t lag = K - 1 - j < L ? K - 1 - j : L;
        double sum = bp * sum_ds;
        for (int64_t b = 0; b < B; b++)
            sum += cpu_dot(dp + b * L + lag, p + b * L, L - lag) - bp * cpu_sum(dp + b * L, lag);
        f->dw[c * K + j] += (float)sum;
    }
    for (int64_t b = 0; b < B; b++) {
        float *row = dp + b * L;
        int64_t whole = K == 3 && L > 2 ? L - 2 : 0;     // from 0 to here three taps in one go
        for (int64_t t = 0; t < whole; t++)
            row[t] = w[2] * row[t] + w[1] * row[t + 1] + w[0] * row[t + 2];
        for (int64_t t = whole; t < L; t++) {
            float sum = 0;
            for (int j = K - 1; j >= 0 && t + K - 1 - j < L; j--) sum += w[j] * row[t + K - 1 - j];
            row[t] = sum;
        }
    }
    if (f->bp) f->dbp[c] += (float)cpu_sum(dp, B * L);
}

void cpu_taps_bwd(void *vda, void *vdb, const void *vdy, const void *va, struct hb_conv_tap ta,
                  const void *vb, struct hb_conv_tap tb, int64_t C, int64_t B, int64_t L, int K,
                  struct hb_on on)
{
    float *da = cpu_act(vda, on), *db = vdb;
    const float *dy = vdy, *a = va, *b = vb;
    #pragma omp parallel for num_threads(cpu_threads(C * B * L))
    for (int64_t c = 0; c < C; c++) {
        const int64_t at = c * B * L;
        for (int64_t i = 0; i < B; i++) {
            tap_piece(da + at + i * L, b + at + i * L, &tb, c, K, 0, L);
            tap_piece(db + at + i * L, a + at + i * L, &ta, c, K, 0, L);
        }
        #pragma omp simd
        for (int64_t i = at; i < at + B * L; i++) {
            da[i] *= dy[i];
            db[i] *= dy[i];
        }
        tap_bwd_channel(da + at, a + at, &ta, c, B, L, K);
        tap_bwd_channel(db + at, b + at, &tb, c, B, L, K);
    }
}

// --- rotary positions ----------------------------------------------------------------------------

struct angles { float c[PAIRS], s[PAIRS]; };

// Pairs (i, i + P/2), i0 <= i < i0 + n, of the H heads of one row turned by their angles.
static void turn_row(float *x, const struct angles *by, int64_t i0, int64_t n, int64_t H, int64_t P)
{
    for (int64_t h = 0; h < H; h++, x += P) {
        float *lo = x + i0, *hi = lo + P / 2;
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            float a = lo[i], b = hi[i];
            lo[i] = by->c[i] * a - by->s[i] * b;
            hi[i] = by->s[i] * a + by->c[i] * b;
        }
    }
}

// Rows [r0, r1): the rates of PAIRS pairs at a time serve all of them.
static void turn_rows(float *x, int64_t r0, int64_t r1, int64_t L, int64_t H, int64_t P, int64_t ld,
                      double sign)
{
    for (int64_t i0 = 0; i0 < P / 2; i0 += PAIRS) {
        int64_t n = P / 2 - i0 < PAIRS ? P / 2 - i0 : PAIRS;
        double rate[PAIRS];
        struct angles by;
        for (int64_t i = 0; i < n; i++)
            rate[i] = pow(ROPE_THETA, -2.0 * (double)(i0 + i) / (double)P);
        for (int64_t r = r0; r < r1; r++) {
            double t = (double)(r % L);
            #pragma omp simd
            for (int64_t i = 0; i < n; i++) {    // rate <= 1: good for L up to CPU_TRIG_MAX
                by.c[i] = (float)cpu_trig(t * rate[i], 0.5);
                by.s[i] = (float)(sign * cpu_trig(t * rate[i], 0.0));
            }
            turn_row(x + r * ld, &by, i0, n, H, P);
        }
    }
}

void cpu_rope(void *vx, int64_t R, int64_t L, int64_t H, int64_t P, int64_t ld, bool inverse,
              struct hb_on on)
{
    float *x = cpu_act(vx, on);
    assert(P % 2 == 0);
    #pragma omp parallel for num_threads(cpu_threads(R * H * P))
    for (int64_t r0 = 0; r0 < R; r0 += ROWS)
        turn_rows(x, r0, r0 + ROWS < R ? r0 + ROWS : R, L, H, P, ld, inverse ? -1.0 : 1.0);
}

// --- exchange of two axes ------------------------------------------------------------------------

// y (J,I) = x (I,J)', the rows [j0, j1) of y, tile by tile: each side is walked along its rows.
static void transpose(float *y, const float *x, int64_t I, int64_t J, int64_t j0, int64_t j1)
{
    for (int64_t i0 = 0; i0 < I; i0 += TILE) {
        int64_t i1 = i0 + TILE < I ? i0 + TILE : I;
        float tile[TILE][TILE + 1];              // + 1: columns do not share a cache set
        for (int64_t i = i0; i < i1; i++)
            for (int64_t j = j0; j < j1; j++) tile[j - j0][i - i0] = x[i * J + j];
        for (int64_t j = j0; j < j1; j++)
            for (int64_t i = i0; i < i1; i++) y[j * I + i] = tile[j - j0][i - i0];
    }
}

void cpu_swap(void *vy, const void *vx, int64_t A, int64_t I, int64_t J, int64_t K, struct hb_on on)
{
    float *y = cpu_act(vy, on);
    const float *x = vx;
    if (K == 1) {
        #pragma omp parallel for num_threads(cpu_threads(A * I * J)) collapse(2)
        for (int64_t a = 0; a < A; a++)
            for (int64_t j0 = 0; j0 < J; j0 += TILE)
                transpose(y + a * I * J, x + a * I * J, I, J, j0, j0 + TILE < J ? j0 + TILE : J);
        return;
    }
    #pragma omp parallel for num_threads(cpu_threads(A * I * J * K)) collapse(2)
    for (int64_t a = 0; a < A; a++)
        for (int64_t j = 0; j < J; j++)
            for (int64_t i = 0; i < I; i++)
                memcpy(y + ((a * J + j) * I + i) * K, x + ((a * I + i) * J + j) * K,
                       (size_t)K * sizeof *y);
}
