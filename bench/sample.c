// sample.c: how many samples, and what they look like.
//
// Method    rounds of one sample per body, the order alternating (A B, B A, ...), run by Google
//           Benchmark in batches; after each batch the stop rules are looked at. A sample repeats
//           its body until it lasts min_sample_s.
// Stop      ci: the median's (pairs: also the ratio's) interval is narrow enough, after 0.1 s at
//           least. plateau: twice in a row, doubling the samples narrowed it by less than a tenth
//           (independent noise: by 30 %). count, budget: as they say.
// Steady    trend: first and last third differ (U-test p < 0.01, medians by more than 2 %);
//           bimodal: two clusters, each with a fifth of the samples, apart by 5 % and by six times
//           their spread.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "env.h"
#include "gbench.h"
#include "host.h"
#include "sample.h"

enum { MAX_BODIES = 2, WARM_RUNS = 2, STOP_DRAWS = 500 };
#define WARM_S 0.05
#define TURN_WARM_S 0.02              // in turns: the core is awake, the other side has just run
#define SPAN_S 0.1 // noise lasts for milliseconds: samples of less than this know too little of it
#define CALIBRATION_CAP 1000000      // executions per sample at most: a body of 20 ps is a bug

struct body {
    hb_body run;
    void *ctx;
    int iterations;
    double once_s;                   // estimate of one execution
    struct hb_samples *out;
};
struct sampler {
    struct body body[MAX_BODIES];
    int n_bodies;
    const struct hb_sample_opts *o;
    size_t round, cap;
    int rc;
    bool ended;                      // no more turns
    double width[3];                 // relative interval width at n/4, n/2, n: newest last
    size_t next_width;               // n at which the next one is taken
};

static double cpu_now_ns(void)
{
    struct timespec t;
    return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0
               ? (double)t.tv_sec * 1e9 + (double)t.tv_nsec
               : 0;
}

static int execute(struct body *b, int times)
{
    for (int i = 0; i < times; i++) {
        int rc = b->run(b->ctx);
        if (rc != 0) return rc;
    }
    return 0;
}

// One sample of one body into ns, cpu_ns (per execution).
static int take(struct sampler *s, struct body *b, double *ns, double *cpu_ns)
{
    if (s->o->timed) {
        double from = cpu_now_ns();
        int rc = s->o->timed(b->ctx, b->iterations, ns);
        *cpu_ns = (cpu_now_ns() - from) / b->iterations;
        return rc;
    }
    if (s->o->before) s->o->before(b->ctx);
    double cpu = cpu_now_ns();
    int64_t start = hb_now_ns();
    int rc = execute(b, b->iterations);
    int64_t end = hb_now_ns();
    *cpu_ns = (cpu_now_ns() - cpu) / b->iterations;
    *ns = fmax((double)(end - start), 1) / b->iterations;
    return rc;
}

// Waits for our turn; what the other process has left in the caches is driven out.
static int begin_turn(struct sampler *s)
{
    if (!s->o->turn) return 0;
    s->ended = s->o->turn() != 0;
    return s->ended || s->o->before || s->o->timed ? 0 : execute(&s->body[0], 1);
}

static void end_turn(const struct sampler *s, double ns)
{
    if (s->o->turn) s->o->turned(ns);
}

// One round for Google Benchmark: a sample of every body. Returns its seconds, -1 on failure or
// when there are no more turns.
static double one_round(void *ctx)
{
    struct sampler *s = ctx;
    double total_ns = 0;
    s->rc = begin_turn(s);
    if (s->rc || s->ended) return -1;
    for (int k = 0; k < s->n_bodies; k++) {
        struct body *b = &s->body[s->round % 2 ? s->n_bodies - 1 - k : k];
        s->rc = take(s, b, &b->out->ns[s->round], &b->out->cpu_ns[s->round]);
        if (s->rc != 0) return -1;
        total_ns += b->out->ns[s->round];
    }
    const struct hb_samples *out = s->body[0].out;
    end_turn(s, (s->o->turn_cpu ? out->cpu_ns : out->ns)[s->round]);
    s->round++;
    return total_ns * 1e-9;
}

// At least WARM_RUNS executions and WARM_S (TURN_WARM_S), then the number of executions that make a sample.
static int warm_up(struct sampler *s, struct body *b)
{
    double recent[8];
    size_t n = 0;
    int64_t start = hb_now_ns();
    double warm_s = s->o->turn ? TURN_WARM_S : WARM_S;
    b->iterations = 1;
    while (n < WARM_RUNS || (double)(hb_now_ns() - start) < warm_s * 1e9) {
        double ns = 0, cpu_ns = 0;
        int rc = take(s, b, &ns, &cpu_ns);
        if (rc != 0) return rc;
        recent[n++ % 8] = ns * 1e-9;
    }
    b->once_s = hb_median(recent, n < 8 ? n : 8);
    // What `before` prepares (a cold cache, a fresh forward) holds for one execution only.
    bool single = s->o->before || s->o->single;
    double want = single ? 1 : ceil(s->o->min_sample_s / b->once_s);
    b->iterations = (int)fmin(fmax(want, 1), CALIBRATION_CAP);
    return 0;
}

static int grow(struct sampler *s, size_t n)
{
    if (n <= s->cap) return 0;
    for (int k = 0; k < s->n_bodies; k++) {
        struct hb_samples *out = s->body[k].out;
        double *ns = realloc(out->ns, n * sizeof *ns);
        if (ns) out->ns = ns;
        double *cpu = realloc(out->cpu_ns, n * sizeof *cpu);
        if (cpu) out->cpu_ns = cpu;
        if (!ns || !cpu) return hb_fail(HB_ERR_OOM, "samples: no memory for %zu of them", n);
    }
    s->cap = n;
    return 0;
}

// Half-width of the widest interval that must become narrow, as a share of its centre.
static double relative_width(const struct sampler *s)
{
    double worst = 0;
    for (int k = 0; k < s->n_bodies; k++) {
        const double *x = s->body[k].out->ns;
        struct hb_interval ci = hb_median_ci(x, s->round, STOP_DRAWS, s->o->seed);
        worst = fmax(worst, (ci.hi - ci.lo) / 2 / hb_median(x, s->round));
    }
    if (s->n_bodies == 2) {
        struct hb_ratio r =
            hb_ratio_of(s->body[0].out->ns, s->round, s->body[1].out->ns, s->round, 1, s->o->seed);
        worst = fmax(worst, (r.ci95.hi - r.ci95.lo) / 2 / r.r);
    }
    return worst;
}

// Why to stop now, or NULL.
static const char *stop_reason(struct sampler *s, double elapsed_s)
{
    double width = relative_width(s);
    bool narrow = width <= s->o->ci_target;
    if (narrow && elapsed_s >= fmin(SPAN_S, s->o->budget_s)) return "ci";
    if (s->round >= (size_t)s->o->max_samples) return "count";
    if (!narrow && s->round >= s->next_width) {
        memmove(s->width, s->width + 1, 2 * sizeof *s->width);
        s->width[2] = width;
        s->next_width = 2 * s->round;
        if (s->width[0] > 0 && s->width[1] > 0.9 * s->width[0] && s->width[2] > 0.9 * s->width[1])
            return "plateau";
    }
    return elapsed_s >= s->o->budget_s ? "budget" : NULL;
}

static int run_batches(const char *name, struct sampler *s, const char **stop)
{
    int64_t start = hb_now_ns();
    size_t batch = (size_t)s->o->min_samples;
    s->next_width = 2 * batch;
    for (*stop = NULL; !*stop; ) {
        size_t first = s->round;
        double mean_s = 0;
        int rc = grow(s, s->round + batch);
        if (rc != 0) return rc;
        int gb = hb_gb_run(name, (int64_t)batch, one_round, s, &mean_s);
        if (s->ended) {
            *stop = "turns";
            return s->round ? 0 : hb_fail(HB_ERR_RUN, "%s: not a single turn", name);
        }
        if (gb == -1) return s->rc != 0 ? s->rc : HB_ERR_RUN;
        if (gb != 0 || s->round != first + batch)
            return hb_fail(HB_ERR_RUN, "%s: Google Benchmark did not run its %zu iterations", name,
                           batch);
        double elapsed_s = (double)(hb_now_ns() - start) * 1e-9,
               round_s = elapsed_s / (double)s->round;
        if (s->o->turn) continue;        // who gives the turns decides
        *stop = stop_reason(s, elapsed_s);
        // Half as many again, but not past the budget and not past max_samples.
        batch = s->round / 2 + 1;
        batch = (size_t)fmin((double)batch, fmax(1, ceil((s->o->budget_s - elapsed_s) / round_s)));
        size_t left =
            (size_t)s->o->max_samples > s->round ? (size_t)s->o->max_samples - s->round : 1;
        if (batch > left) batch = left;
    }
    return 0;
}

static int has_two_modes(const double *x, size_t n)
{
    double *sorted = malloc(n * sizeof *sorted);
    if (!sorted) return 0;
    memcpy(sorted, x, n * sizeof *sorted);
    hb_sort(sorted, n);
    size_t least = (n + 4) / 5, cut = least;
    for (size_t i = least; i + least <= n; i++) // the widest gap leaves a fifth on either side
        if (sorted[i] - sorted[i - 1] > sorted[cut] - sorted[cut - 1]) cut = i;
    struct hb_summary lo = hb_summarise(sorted, cut, 0),
                      hi = hb_summarise(sorted + cut, n - cut, 0);
    double apart = hi.median - lo.median, spread = fmax(lo.mad, hi.mad);
    free(sorted);
    return apart > 0.05 * lo.median && apart > 6 * spread;
}

static const char *classify(const double *x, size_t n)
{
    if (n < 9) return "unknown";
    size_t third = n / 3;
    const double *last = x + n - third;
    double ratio = hb_median(last, third) / hb_median(x, third);
    if (fabs(log(ratio)) > 0.02 && hb_mann_whitney_p(x, third, last, third) < 0.01) return "trend";
    return has_two_modes(x, n) ? "bimodal" : "steady";
}

static int check_opts(int n_bodies, const struct hb_sample_opts *o)
{
    if (n_bodies < 1 || n_bodies > MAX_BODIES)
        return hb_fail(HB_ERR_INPUT, "samples: %d bodies, 1 or 2 expected", n_bodies);
    if (o->min_samples < 1 || o->max_samples < o->min_samples)
        return hb_fail(HB_ERR_INPUT, "samples: %d to %d, 1 <= min <= max expected", o->min_samples,
                       o->max_samples);
    if (o->turn && n_bodies != 1)
        return hb_fail(HB_ERR_INPUT, "samples: turns are for one body, there are %d", n_bodies);
    return 0;
}

int hb_sample(const char *const *names, const hb_body *bodies, void *const *ctx, int n_bodies,
              const struct hb_sample_opts *o, struct hb_samples *out)
{
    int rc = check_opts(n_bodies, o);
    if (rc != 0) return rc;
    struct sampler s = { .n_bodies = n_bodies, .o = o };
    const char *stop = NULL;
    for (int k = 0; k < n_bodies; k++) {
        out[k] = (struct hb_samples){ .iterations = 1 };
        s.body[k] = (struct body){ .run = bodies[k], .ctx = ctx[k], .out = &out[k] };
    }
    if (o->turn && o->turn()) rc = hb_fail(HB_ERR_RUN, "%s: not a single turn", names[0]);
    for (int k = 0; k < n_bodies && rc == 0; k++) rc = warm_up(&s, &s.body[k]);
    end_turn(&s, s.body[0].once_s);
    if (rc == 0) rc = run_batches(names[0], &s, &stop);
    for (int k = 0; k < n_bodies; k++) {
        if (rc != 0) { hb_samples_free(&out[k]); continue; }
        out[k].n = s.round;
        out[k].iterations = s.body[k].iterations;
        out[k].stop = stop;
        out[k].steady = classify(out[k].ns, s.round);
        out[k].s = hb_summarise(out[k].ns, s.round, o->seed);
    }
    return rc;
}

void hb_samples_free(struct hb_samples *s)
{
    free(s->ns);
    free(s->cpu_ns);
    *s = (struct hb_samples){ .iterations = 1 };
}

// --- cold cache ----------------------------------------------------------------------------------

static struct { unsigned char *data; size_t bytes; } flush;     // kept until exit
static volatile uint64_t flush_sink;

int hb_flush_cache_init(void)
{
    if (flush.data) return 0;
    size_t bytes = 2 * hb_llc_bytes();
    flush.data = malloc(bytes);
    if (!flush.data) return hb_fail(HB_ERR_OOM, "cold cache: no memory for %zu bytes", bytes);
    memset(flush.data, 1, bytes);
    flush.bytes = bytes;
    return 0;
}

void hb_flush_cache(void *unused)
{
    (void)unused;
    uint64_t sum = 0;
    // Every thread all of it: each core has caches of its own.
#pragma omp parallel reduction(+ : sum)
    for (size_t i = 0; i < flush.bytes; i += 64) sum += flush.data[i];   // one load per cache line
    flush_sink = sum;
}
