// paired.c: rounds of fresh processes, interleaved, and the verdict of every point.
//
// Pair      two fresh processes, one of each build, that take their samples in turns, a few ms each
//           (measure.h): noise that lasts longer disturbs both alike. Its ratio is the median over
//           the turns; what differs between pairs is what a new process changes (where its memory
//           lies), which is why there are many.
// Round     for each point two pairs, one in which base begins and one in which head does. How
//           many rounds there are is fixed once, by what the first one took, never by what it
//           showed.
// Stage 1   x = log(head/base) of every pair. Slower: signed ranks of x - log(1+min_effect);
//           faster: of -x - log(1+min_effect). p = twice the smaller; Benjamini-Hochberg over all
//           points. What is not rejected is `same` if the whole interval lies within the margin,
//           else inconclusive.
// Stage 2   what is rejected is measured afresh, alone; only if its new pairs say the same again
//           (one-sided p <= confirm_p, Bonferroni over what is confirmed) is it an alarm, and its
//           ratio is that of the new pairs: the first ones were selected for being extreme.
// False     alarms of equal builds: at most fdr x confirm_p of all comparisons (0.1 x 0.01) if
//           pairs are exchangeable; `selftest` measures it.
// Budget    three quarters for stage 1. At least 5 rounds: if not even these fit, all is
//           inconclusive. The confirming round is taken whole, even if the budget ends in it.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "guard.h"

const struct guard_opts guard_defaults = {
    .min_effect = 0.01, .margin = 0.05, .fdr = 0.1, .confirm_p = 0.01, .budget_s = 60, .seed = 1,
};

const char *guard_word_str(enum guard_word w)
{
    static const char *const words[] = { "same", "faster", "slower", "inconclusive",
                                         "environments differ", "skipped", "broken" };
    return words[w];
}

void guard_points_free(struct guard_point *points, size_t n)
{
    for (size_t i = 0; i < n && points; i++) {
        struct guard_pairs *p[2] = { &points[i].first, &points[i].second };
        for (int k = 0; k < 2; k++) {
            free(p[k]->base);
            free(p[k]->head);
            *p[k] = (struct guard_pairs){ 0 };
        }
    }
}

void guard_no_time(struct guard_point *pt, int side, const char *why)
{
    pt->left_out = true;
    pt->word = side ? GUARD_BROKEN : GUARD_SKIPPED;
    snprintf(pt->why, sizeof pt->why, "%s: %s", side ? "head" : "base", why);
}

static int add_pair(struct guard_pairs *p, double base, double head)
{
    double *b = realloc(p->base, (p->n + 1) * sizeof *b);
    if (b) p->base = b;
    double *h = realloc(p->head, (p->n + 1) * sizeof *h);
    if (h) p->head = h;
    if (!b || !h) return hb_fail(HB_ERR_OOM, "no memory for the pairs");
    p->base[p->n] = base;
    p->head[p->n++] = head;
    return 0;
}

// Two pairs. A point that loses its time keeps the pairs it has, unused.
static int block(const struct guard_source *src, size_t at, struct guard_point *pt,
                 struct guard_pairs *to)
{
    for (int first = 0; first < 2; first++) {
        double ns[2];
        char why[160] = "";
        int side = 0, rc = src->take(src->ctx, at, first, ns, &side, why);
        if (rc == 0) rc = add_pair(to, ns[0], ns[1]);
        if (rc < 0) return rc;
        if (rc == 0) continue;
        guard_no_time(pt, side, why);
        return 0;
    }
    return 0;
}

static double log_margin(double share) { return log1p(share); }

// One-sided p of "head is slower" (direction 1) or "faster" (-1) by more than min_effect.
static double p_of(const struct guard_pairs *p, int direction, double min_effect)
{
    double *x = malloc((p->n + 1) * sizeof *x);
    if (!x) return NAN;
    for (size_t i = 0; i < p->n; i++)
        x[i] = direction * log(p->head[i] / p->base[i]) - log_margin(min_effect);
    double r = guard_signed_rank_p(x, p->n);
    free(x);
    return r;
}

static struct hb_ratio ratio_of(const struct guard_pairs *p, uint64_t seed)
{
    return hb_ratio_of(p->head, p->n, p->base, p->n, 1, seed);
}

// Rounds until the interval, which narrows like 1/sqrt(pairs), allows the nearer of the two
// answers: that it lies within the margin, or that it lies beyond min_effect.
static int more_rounds(const struct guard_point *pt, const struct guard_opts *o)
{
    enum { MOST = 10000 };
    double half = log(pt->ratio.ci95.hi / pt->ratio.ci95.lo) / 2, at = fabs(log(pt->ratio.r));
    double room = fmax(log_margin(o->margin) - at, at - log_margin(o->min_effect));
    if (!(half > 0) || !(room > 0)) return MOST;
    double pairs = (double)pt->first.n * (half / room) * (half / room);
    double more = ceil((pairs - (double)pt->first.n) / 2);
    return more < 1 ? 1 : more < MOST ? (int)more : MOST;
}

static void undecided(struct guard_point *pt, const struct guard_opts *o, const char *why)
{
    double m = log_margin(o->margin);
    bool within = log(pt->ratio.ci95.hi) <= m && log(pt->ratio.ci95.lo) >= -m;
    pt->word = within ? GUARD_SAME : GUARD_INCONCLUSIVE;
    pt->more_rounds = within ? 0 : more_rounds(pt, o);
    snprintf(pt->why, sizeof pt->why, "%s", within ? "" : why);
}

// Ratios and tests of stage 1; sets direction of what goes to stage 2. *n2: how many.
static int screen(struct guard_point *points, size_t n, const struct guard_opts *o, size_t *n2)
{
    double *p = malloc(2 * (n + 1) * sizeof *p), *adjusted = p + n;
    *n2 = 0;
    if (!p) return hb_fail(HB_ERR_OOM, "no memory for %zu points", n);
    for (size_t i = 0; i < n; i++) {
        struct guard_point *pt = &points[i];
        p[i] = pt->p = pt->p_adjusted = pt->p_confirm = NAN;
        if (pt->left_out || pt->first.n == 0) continue;
        pt->ratio = ratio_of(&pt->first, o->seed);
        double slow = p_of(&pt->first, 1, o->min_effect),
               fast = p_of(&pt->first, -1, o->min_effect);
        p[i] = pt->p = fmin(1, 2 * fmin(slow, fast));
        pt->direction = slow < fast ? 1 : -1;
    }
    int rc = guard_bh(p, n, adjusted);
    for (size_t i = 0; i < n && !rc; i++) {
        struct guard_point *pt = &points[i];
        pt->p_adjusted = adjusted[i];
        bool enough = pt->first.n >= 2 * GUARD_MIN_ROUNDS;
        if (!(adjusted[i] <= o->fdr) || !enough) pt->direction = 0;
        if (pt->left_out || isnan(adjusted[i])) continue;
        if (pt->direction) ++*n2;
        else if (enough) undecided(pt, o, "the interval is too wide for a verdict");
        else {
            pt->word = GUARD_INCONCLUSIVE;
            pt->more_rounds = GUARD_MIN_ROUNDS - (int)pt->first.n / 2;
            snprintf(pt->why, sizeof pt->why, "the budget ended after %zu of %d processes a side",
                     pt->first.n, 2 * GUARD_MIN_ROUNDS);
        }
    }
    free(p);
    return rc;
}

static int confirm(const struct guard_source *src, struct guard_point *points, size_t n, size_t n2,
                   int rounds, const struct guard_opts *o)
{
    int rc = 0;
    for (int r = 0; r < rounds && !rc; r++)
        for (size_t i = 0; i < n && !rc; i++) {
            if (!points[i].direction || points[i].left_out) continue;
            if (src->progress) src->progress(src->ctx, "confirming", (size_t)r, (size_t)rounds);
            rc = block(src, i, &points[i], &points[i].second);
        }
    for (size_t i = 0; i < n && !rc; i++) {
        struct guard_point *pt = &points[i];
        if (!pt->direction || pt->left_out) continue;
        pt->p_confirm = p_of(&pt->second, pt->direction, o->min_effect);
        struct hb_ratio again = ratio_of(&pt->second, o->seed + 1);
        if (pt->p_confirm <= o->confirm_p / (double)n2) {
            pt->word = pt->direction > 0 ? GUARD_SLOWER : GUARD_FASTER;
            pt->ratio = again;
            pt->why[0] = 0;
        } else {
            undecided(pt, o, "the first rounds alarmed, the confirming one did not");
        }
    }
    return rc;
}

int guard_rounds_for(double seconds, double round_s)
{
    double fit = round_s > 0 ? floor(seconds / round_s) : GUARD_MAX_ROUNDS;
    return (int)fmin(fmax(fit, GUARD_MIN_ROUNDS), GUARD_MAX_ROUNDS);
}

int guard_paired(const struct guard_source *src, struct guard_point *points, size_t n,
                 const struct guard_opts *o, int *rounds)
{
    double t0 = src->now_s(src->ctx), round_s = 0;
    int want = o->rounds > 0 ? o->rounds : GUARD_MAX_ROUNDS, rc = 0, done = 0;
    size_t left_out = 0;
    for (size_t i = 0; i < n; i++) left_out += points[i].left_out;
    if (left_out == n) want = 0;
    for (; done < want && !rc; done++) {
        if (done && o->rounds <= 0) {
            bool fits = src->now_s(src->ctx) - t0 + round_s <= o->budget_s;
            if (!fits) break;                // the machine became slower than the first round said
        }
        for (size_t i = 0; i < n && !rc; i++) {
            if (src->progress)
                src->progress(src->ctx, "comparing", (size_t)done * n + i, (size_t)want * n);
            // Each round begins elsewhere: no point always follows the same one.
            size_t at = (i + (size_t)done) % n;
            if (!points[at].left_out)
                rc = block(src, at, &points[at], &points[at].first);
        }
        if (done == 0 && o->rounds <= 0) {
            round_s = src->now_s(src->ctx) - t0;
            want = guard_rounds_for(GUARD_FIRST_SHARE * o->budget_s, round_s);
        }
    }
    *rounds = done;
    size_t n2 = 0;
    if (!rc) rc = screen(points, n, o, &n2);
    if (rc || n2 == 0) return rc;
    double left = o->budget_s - (src->now_s(src->ctx) - t0);
    int again = o->rounds > 0 ? o->rounds
              : guard_rounds_for(left, round_s * (double)n2 / (double)n);
    return confirm(src, points, n, n2, again, o);
}
