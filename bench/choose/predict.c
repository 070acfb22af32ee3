// predict.c: time or memory of one implementation at a problem that was not measured, with an
// interval (contract: choose.h).
//
// Method    y = log value = log m(x) + r(x).
//           m: a sum of what the work model counts (operations of the core, of the products around
//           it, of the filter; elements that move; a constant), coefficients >= 0 by least squares
//           of the relative error, rows near the problem weighing more; of all subsets of terms the
//           one with the least AICc. It carries the answer to where nothing was measured.
//           r: a Gaussian process over (log2 L, log2 B, log2 D, log2 P) with covariance
//           s^2 exp(-sum |dx|/l): between neighbours on one axis nearly the straight line in
//           log-log, far from all rows zero. l, s and the scatter t of one process against another
//           by maximum likelihood over a grid; each row's own interval adds to its variance.
// Interval  of the process, times what leaving each row out in turn asks for; beyond the measured
//           range it widens with every octave.
// Ratio     of two implementations: the process over the difference of their r where both were
//           measured. What strikes both alike (an unhandy length, the same operator around them)
//           cancels there, so the ratio is known far better than either time.
// Cost      at most NEAR rows: the nearest. About 3 ms, a ratio twice that.
#include "choose.h"
#include "../../impls/core/oper.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TERMS = 6, AXES = 4, NEAR = 40, PAIRS = 8 };

// --- what the work model counts ------------------------------------------------------------------

static double heads(const struct hb_problem *p)
{
    return p->op == HB_ATTENTION || p->op == HB_MHA ? (double)(p->H > 0 ? p->H : 1) : 0;
}

// The operator's core alone, as a point of its own.
static double core_flop(const struct hb_point *pt, const struct hb_oper_opts *o)
{
    struct hb_point in = *pt;
    if (!pt->p.inner[0]) return hb_point_work(pt).flop;
    if (pt->p.op == HB_HYENA && o->no_long) return 0;
    snprintf(in.impl, sizeof in.impl, "%s", pt->p.inner);
    in.p.inner[0] = '\0';
    in.p.op = pt->p.op == HB_HYENA ? HB_LONGCONV : HB_ATTENTION;
    memset(&in.p.oper, 0, sizeof in.p.oper);
    return hb_point_work(&in).flop * (pt->p.op == HB_HYENA ? o->order - 1 : 1);
}

static void time_terms(const struct hb_point *pt, double x[TERMS])
{
    const struct hb_problem *p = &pt->p;
    const struct hb_oper_opts o = hb_oper_resolve(p);
    double L = (double)p->L, W = o.filter_width, C = (o.order - 1) * (double)p->D;
    bool fwd = pt->pass != HB_PASS_BWD, bwd = pt->pass == HB_PASS_BWD || pt->pass == HB_PASS_FWDBWD;
    double times = (fwd ? 1 : 0) + (bwd ? 2 : 0), all = hb_point_work(pt).flop;
    x[0] = 1;
    x[1] = core_flop(pt, &o);
    x[3] = p->op == HB_HYENA && !o.no_long ? times * 2 * L * (o.emb_dim * W + 2 * W * W + W * C)
                                           : 0;
    x[2] = p->inner[0] ? fmax(0, all - x[1] - x[3]) : 0;
    x[4] = (double)p->B * (double)p->D * L;
    x[5] = heads(p) * (double)p->B * L * L;
}

static void memory_terms(const struct hb_point *pt, double x[TERMS])
{
    const struct hb_problem *p = &pt->p;
    double B = (double)p->B, D = (double)p->D, L = (double)p->L;
    x[0] = 1;
    x[1] = B * D * L;
    x[2] = D * L;
    x[3] = heads(p) * B * L * L;
    x[4] = p->inner[0] ? D * D : 0;
    x[5] = L;
}

// --- one set of rows -----------------------------------------------------------------------------

struct set {
    int n;
    double y[NEAR], var[NEAR];           // log value, variance of its measurement
    double x[NEAR][TERMS], at[NEAR][AXES], weight[NEAR];
    double px[TERMS], pat[AXES];         // of the problem
    double coef[TERMS];
    double length, s, t;                 // of the process
};

static void place(const struct hb_point *pt, double at[AXES])
{
    double H = heads(&pt->p);
    at[0] = log2((double)pt->p.L);
    at[1] = log2((double)pt->p.B);
    at[2] = log2((double)pt->p.D);
    at[3] = H > 0 ? log2((double)pt->p.D / H) : 0;
}

static double apart(const double a[AXES], const double b[AXES])
{
    double d = 0;
    for (int k = 0; k < AXES; k++) d += fabs(a[k] - b[k]);
    return d;
}

static double value_of(const struct choose_row *r, enum choose_what what)
{
    return strcmp(r->status, "ok") ? 0 : what == CHOOSE_TIME ? r->median_ns : r->mem_bytes;
}

struct near { const struct choose_row *row; double d; };

static int by_distance(const void *a, const void *b)
{
    double x = ((const struct near *)a)->d, y = ((const struct near *)b)->d;
    return (x > y) - (x < y);
}

// The nearest rows with a value, but not `skip`; false: none (or no memory for the list).
static bool fill(struct set *s, const struct choose_row *const *rows, int n, int skip,
                 const struct hb_point *pt, enum choose_what what)
{
    struct near *near = malloc(((size_t)n + 1) * sizeof *near);
    int m = 0;
    place(pt, s->pat);
    if (what == CHOOSE_TIME) time_terms(pt, s->px);
    else memory_terms(pt, s->px);
    for (int i = 0; near && i < n; i++) {
        double at[AXES];
        if (i == skip || !(value_of(rows[i], what) > 0)) continue;
        place(&rows[i]->pt, at);
        near[m++] = (struct near){ rows[i], apart(at, s->pat) };
    }
    if (m) qsort(near, (size_t)m, sizeof *near, by_distance);
    s->n = m < NEAR ? m : NEAR;
    for (int i = 0; i < s->n; i++) {
        const struct choose_row *r = near[i].row;
        double half = what == CHOOSE_TIME ? log(r->hi_ns / r->lo_ns) / 2 / 1.96 : 0;
        place(&r->pt, s->at[i]);
        if (what == CHOOSE_TIME) time_terms(&r->pt, s->x[i]);
        else memory_terms(&r->pt, s->x[i]);
        s->y[i] = log(value_of(r, what));
        s->var[i] = isfinite(half) ? half * half : 0.01;
        s->weight[i] = 1 / (1 + near[i].d * near[i].d / 16);     // 4 octaves away: half
    }
    free(near);
    return s->n > 0;
}

// --- m: the work model's terms -------------------------------------------------------------------

// Cholesky of a (n x n, stride `ld`) in place; false: not positive.
static bool cholesky(double *a, int n, int ld)
{
    for (int j = 0; j < n; j++) {
        for (int k = 0; k < j; k++) a[j * ld + j] -= a[j * ld + k] * a[j * ld + k];
        if (!(a[j * ld + j] > 0)) return false;
        a[j * ld + j] = sqrt(a[j * ld + j]);
        for (int i = j + 1; i < n; i++) {
            for (int k = 0; k < j; k++) a[i * ld + j] -= a[i * ld + k] * a[j * ld + k];
            a[i * ld + j] /= a[j * ld + j];
        }
    }
    return true;
}

static void lower(const double *c, int n, int ld, double *b)            // b = C^-1 b
{
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++) b[i] -= c[i * ld + k] * b[k];
        b[i] /= c[i * ld + i];
    }
}

static void upper(const double *c, int n, int ld, double *b)            // b = C^-T b
{
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++) b[i] -= c[k * ld + i] * b[k];
        b[i] /= c[i * ld + i];
    }
}

// Least squares of the relative error with the terms in `mask`. Returns the weighted sum of
// squares, < 0: a coefficient would be negative, or they depend on each other.
static double solve(const struct set *s, unsigned mask, double coef[TERMS])
{
    int term[TERMS], k = 0;
    double a[TERMS * TERMS] = { 0 }, b[TERMS] = { 0 }, sum = 0, size[TERMS];
    for (int i = 0; i < TERMS; i++) {
        coef[i] = 0;
        if (mask >> i & 1) term[k++] = i;
    }
    for (int i = 0; i < k; i++) {                    // columns of one size: a sound factorisation
        size[i] = 0;
        for (int r = 0; r < s->n; r++) size[i] = fmax(size[i], s->x[r][term[i]] / exp(s->y[r]));
        if (!(size[i] > 0)) return -1;
    }
    for (int r = 0; r < s->n; r++) {
        double v[TERMS], w = s->weight[r];
        for (int i = 0; i < k; i++) v[i] = s->x[r][term[i]] / exp(s->y[r]) / size[i];
        for (int i = 0; i < k; i++) {
            b[i] += w * v[i];
            for (int j = 0; j <= i; j++) a[i * TERMS + j] += w * v[i] * v[j];
        }
    }
    for (int i = 0; i < k; i++) a[i * TERMS + i] *= 1 + 1e-10;
    if (!cholesky(a, k, TERMS)) return -1;
    lower(a, k, TERMS, b);
    upper(a, k, TERMS, b);
    for (int i = 0; i < k; i++) {
        if (!(b[i] > 0)) return -1;
        coef[term[i]] = b[i] / size[i];
    }
    for (int r = 0; r < s->n; r++) {
        double m = 0;
        for (int i = 0; i < k; i++) m += coef[term[i]] * s->x[r][term[i]];
        double e = log(m) - s->y[r];
        sum += s->weight[r] * e * e;
    }
    return sum;
}

static void fit_model(struct set *s)
{
    double best = INFINITY, least = 1e-4 * s->n;     // 1 % is as good as exact
    for (unsigned mask = 1; mask < 1u << TERMS; mask++) {
        int k = __builtin_popcount(mask);
        double coef[TERMS];
        // One or two rows say how fast, not what of: the core's operations, else the elements.
        if (s->n <= 2 && mask != 1u << 1 && mask != 1u << 4) continue;
        if (s->n > 2 && k > s->n - 2) continue;
        double sse = solve(s, mask, coef);
        if (sse < 0) continue;
        double spare = s->n > k + 1 ? s->n - k - 1 : 0.5;
        double aicc = s->n * log(fmax(sse, least) / s->n) + 2 * k + 2.0 * k * (k + 1) / spare;
        if (aicc >= best) continue;
        best = aicc;
        memcpy(s->coef, coef, sizeof coef);
    }
}

static double model(const struct set *s, const double x[TERMS])
{
    double m = 0;
    for (int i = 0; i < TERMS; i++) m += s->coef[i] * x[i];
    return m > 0 ? log(m) : 0;
}

// --- r: the process ------------------------------------------------------------------------------

static void covariance(const struct set *s, double length, double sd, double t, double *k)
{
    for (int i = 0; i < s->n; i++)
        for (int j = 0; j <= i; j++)
            k[i * NEAR + j] = sd * sd * exp(-apart(s->at[i], s->at[j]) / length)
                            + (i == j ? t * t + s->var[i] : 0);
}

static double likelihood(const struct set *s, const double *r, double length, double sd, double t)
{
    static _Thread_local double k[NEAR * NEAR];
    double b[NEAR], sum = 0;
    covariance(s, length, sd, t, k);
    if (!cholesky(k, s->n, NEAR)) return -INFINITY;
    memcpy(b, r, (size_t)s->n * sizeof *b);
    lower(k, s->n, NEAR, b);
    for (int i = 0; i < s->n; i++) sum -= b[i] * b[i] / 2 + log(k[i * NEAR + i]);
    return sum;
}

static void fit_process(struct set *s, const double *r, enum choose_what what)
{
    static const double lengths[] = { 1, 2, 4, 8, 16 }, sds[] = { .03, .06, .12, .25, .5, 1 },
                        scatters[] = { .01, .02, .04, .08, .16 };
    const double scale = what == CHOOSE_TIME ? 1 : 0.2;          // bytes are counted, not timed
    const double least = scale * (s->n < 4 ? 0.25 : s->n < 8 ? 0.1 : 0);   // few rows know little
    double best = -INFINITY;
    for (size_t a = 0; a < sizeof lengths / sizeof *lengths; a++)
        for (size_t b = 0; b < sizeof sds / sizeof *sds; b++)
            for (size_t c = 0; c < sizeof scatters / sizeof *scatters; c++) {
                if (scale * sds[b] < least) continue;
                double v = likelihood(s, r, lengths[a], scale * sds[b], scale * scatters[c]);
                if (v <= best) continue;
                best = v;
                s->length = lengths[a];
                s->s = scale * sds[b];
                s->t = scale * scatters[c];
            }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// What leaving one out asks for: the factor by which the deviations are too small, >= 1.
static double calibration(const struct set *s, const double *chol, const double *kr)
{
    double z[NEAR];
    if (s->n < 8) return 1;
    for (int i = 0; i < s->n; i++) {                 // [K^-1]_ii = |C^-1 e_i|^2
        double e[NEAR] = { 0 }, d = 0;
        e[i] = 1;
        lower(chol, s->n, NEAR, e);
        for (int k = 0; k < s->n; k++) d += e[k] * e[k];
        z[i] = fabs(kr[i]) / sqrt(d);
    }
    qsort(z, (size_t)s->n, sizeof *z, ascending);
    return fmax(1, z[(int)(0.95 * (s->n - 1) + 0.5)] / 1.96);
}

// Beyond what was measured: octaves, each worth so much of uncertainty.
static double beyond(const struct set *s, bool *outside)
{
    static const double per_octave[AXES] = { 0.08, 0.15, 0.15, 0.15 };
    double var = 0;
    for (int k = 0; k < AXES; k++) {
        double lo = INFINITY, hi = -INFINITY;
        for (int i = 0; i < s->n; i++) {
            lo = fmin(lo, s->at[i][k]);
            hi = fmax(hi, s->at[i][k]);
        }
        double d = fmax(0, fmax(lo - s->pat[k], s->pat[k] - hi)) * per_octave[k];
        var += d * d;
        *outside |= d > 0;
    }
    return var;
}

static void process(struct set *s, enum choose_what what, struct choose_guess *out)
{
    static _Thread_local double chol[NEAR * NEAR];
    double r[NEAR], kr[NEAR], k[NEAR], mean = 0, var;
    for (int i = 0; i < s->n; i++) kr[i] = r[i] = s->y[i] - model(s, s->x[i]);
    fit_process(s, r, what);
    covariance(s, s->length, s->s, s->t, chol);
    if (!cholesky(chol, s->n, NEAR)) {               // cannot happen with t > 0
        *out = (struct choose_guess){ .mean = model(s, s->px), .sd = 1, .n = s->n };
        return;
    }
    lower(chol, s->n, NEAR, kr);
    upper(chol, s->n, NEAR, kr);
    for (int i = 0; i < s->n; i++) {
        k[i] = s->s * s->s * exp(-apart(s->at[i], s->pat) / s->length);
        mean += k[i] * kr[i];
    }
    lower(chol, s->n, NEAR, k);
    var = s->s * s->s + s->t * s->t;
    for (int i = 0; i < s->n; i++) var -= k[i] * k[i];
    double scale = calibration(s, chol, kr);
    var = fmax(var, s->t * s->t) * scale * scale + beyond(s, &out->outside);
    out->mean = model(s, s->px) + mean;
    out->sd = sqrt(var);
    out->n = s->n;
}

// The process, or where the problem was measured the record itself and how well another process
// repeats it.
static void finish(struct set *s, enum choose_what what, struct choose_guess *out)
{
    process(s, what, out);
    if (apart(s->at[0], s->pat) >= 1e-9) return;
    out->mean = s->y[0];
    out->sd = what == CHOOSE_TIME ? sqrt(s->var[0] + s->t * s->t) : 1e-3;
    out->exact = true;
}

static void guess(const struct choose_row *const *rows, int n, int skip, const struct hb_point *pt,
                  enum choose_what what, struct choose_guess *out)
{
    struct set *s = calloc(1, sizeof *s);
    *out = (struct choose_guess){ 0 };
    if (s && fill(s, rows, n, skip, pt, what)) {
        fit_model(s);
        finish(s, what, out);
    }
    free(s);
}

// Keeps what b has, too, and takes b's residual from y.
static void subtract(struct set *a, const struct set *b)
{
    int n = 0;
    for (int i = 0; i < a->n; i++)
        for (int k = 0; k < b->n; k++) {
            if (apart(a->at[i], b->at[k]) >= 1e-9) continue;
            a->y[n] = a->y[i] - (b->y[k] - model(b, b->x[k]));
            a->var[n] = a->var[i] + b->var[k];
            memmove(a->x[n], a->x[i], sizeof a->x[i]);
            memmove(a->at[n], a->at[i], sizeof a->at[i]);
            n++;
            break;
        }
    a->n = n;
}

void hb_predict_ratio(const struct choose_row *const *rows_a, int n_a, const struct hb_point *a,
                      const struct choose_row *const *rows_b, int n_b, const struct hb_point *b,
                      struct choose_guess *out)
{
    struct set *x = calloc(1, sizeof *x), *y = calloc(1, sizeof *y);
    *out = (struct choose_guess){ 0 };
    if (x && y && fill(x, rows_a, n_a, -1, a, CHOOSE_TIME)
        && fill(y, rows_b, n_b, -1, b, CHOOSE_TIME)) {
        fit_model(x);
        fit_model(y);
        subtract(x, y);
        if (x->n >= PAIRS) {
            finish(x, CHOOSE_TIME, out);
            out->mean -= model(y, y->px);
        }
    }
    free(x);
    free(y);
}

void hb_predict(const struct choose_row *const *rows, int n, const struct hb_point *pt,
                enum choose_what what, struct choose_guess *out)
{
    guess(rows, n, -1, pt, what, out);
}

bool hb_predict_check(const struct choose_row *const *rows, int n, enum choose_what what,
                      double *inside, double *err)
{
    double *e = malloc(((size_t)n + 1) * sizeof *e);
    int m = 0, in = 0;
    for (int i = 0; e && i < n; i++) {
        struct choose_guess g;
        double v = value_of(rows[i], what);
        if (!(v > 0)) continue;
        guess(rows, n, i, &rows[i]->pt, what, &g);
        if (!g.n) continue;
        e[m] = fabs(g.mean - log(v));
        in += e[m++] <= 1.96 * g.sd;
    }
    if (m) qsort(e, (size_t)m, sizeof *e, ascending);
    bool enough = m >= 3;
    *inside = enough ? (double)in / m : 0;
    *err = enough ? e[m / 2] : 0;
    free(e);
    return enough;
}
