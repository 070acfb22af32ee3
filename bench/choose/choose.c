// choose.c: the ranking and the answer (contract: choose.h, hyena_bench.h).
//
// Machine   the one asked for; else this one if it has rows, else one with the same GPU (cpu0: the
//           same CPU model and cores), else any. Candidates never come from two machines.
// Settings  threads, mode and planning as asked if they were measured; else the nearest that were,
//           the same for all candidates; the note says so.
// Pass      fwdbwd without rows of its own: forward plus backward.
// Rank      by expected time, of those that surely fit into the memory limit (upper end of the
//           interval, or `fits`). Two whose intervals meet are compared by their ratio where both
//           were measured.
// Tie       where the interval of the ratio to the second holds 1. Then the default is named if
//           it is among those that tie and expected to be at most TIE_COST slower; else the first
//           stays.
#include "choose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TIE_COST log(1.03)       // what a reproducible answer may cost on average
#define Z95 1.96
// Memory: of the interval, and for what the allocator rounds and the model does not see.
#define MEM_Z 3.0
#define MEM_SPARE 1.03

const char *hb_reason_str(enum hb_reason r)
{
    static const char *const words[] = { "measured here", "interpolated",
                                         "measured on a similar machine", "default" };
    return (unsigned)r < sizeof words / sizeof *words ? words[r] : "?";
}

const char *hb_choose_default(const struct hb_point *pt)
{
    bool gpu = !strncmp(pt->device, "cuda", 4), halves = pt->p.dtype == HB_F16
                                                      || pt->p.dtype == HB_BF16;
    bool conv = pt->p.op == HB_LONGCONV || pt->p.op == HB_HYENA;
    bool inside = pt->p.op == HB_HYENA || pt->p.op == HB_MHA;
    static const char *const names[2][2][3] = {
        // [operator][conv][cpu, gpu, gpu without cuDNN]
        { { "attention_flash", "attention_cudnn_cuda", "attention_naive_cuda" },
          { "longconv_fftw", "longconv_cufft_cuda", "longconv_cufft_cuda" } },
        { { "mha:attention_flash", "mha:attention_cudnn_cuda", "mha:attention_naive_cuda" },
          { "hyena:longconv_fftw", "hyena:longconv_cufft_cuda", "hyena:longconv_cufft_cuda" } },
    };
    return names[inside][conv][!gpu ? 0 : halves ? 1 : 2];
}

// --- the question --------------------------------------------------------------------------------

int hb_question_point(const struct hb_question *q, int threads, struct hb_point *pt)
{
    *pt = (struct hb_point){ 0 };
    struct hb_problem *p = &pt->p;
    if (!q->op) return hb_fail(HB_ERR_INPUT, "op: missing; longconv, attention, hyena or mha");
    if (hb_op_parse(q->op, &p->op) || hb_dtype_parse(q->dtype ? q->dtype : "f32", &p->dtype)
        || hb_pass_parse(q->pass ? q->pass : "fwd", &pt->pass)
        || (q->mode && hb_mode_parse(q->mode, &pt->mode)))
        return HB_ERR_INPUT;
    bool heads = p->op == HB_ATTENTION || p->op == HB_MHA;
    p->B = q->B ? q->B : 1;
    p->D = q->D ? q->D : 256;
    p->L = q->L;
    p->H = !heads ? 0 : q->H ? q->H : p->D % 64 ? 1 : p->D / 64;
    p->oper.order = p->op != HB_HYENA ? 0 : q->order ? q->order : 2;
    p->threads = q->threads > 0 ? q->threads : threads;
    p->planning = HB_PLAN_MEASURE;
    p->filter = pt->pass == HB_PASS_FWD_CACHED ? HB_FILTER_FIXED : HB_FILTER_FRESH;
    p->backward = pt->pass == HB_PASS_BWD || pt->pass == HB_PASS_FWDBWD;
    pt->scope = p->op == HB_HYENA || p->op == HB_MHA ? HB_SCOPE_OPERATOR : HB_SCOPE_CORE;
    const char *device = q->device ? q->device : "cpu0";
    if (strcmp(device, "cpu0") && strcmp(device, "cuda0"))
        return hb_fail(HB_ERR_INPUT, "device: '%.40s' is neither cpu0 nor cuda0", device);
    snprintf(pt->device, sizeof pt->device, "%s", device);
    if (!q->mode) pt->mode = strcmp(device, "cpu0") ? HB_MODE_COLD : HB_MODE_WARM;
    if (p->L < 1 || p->L > (int64_t)1 << 31 || p->B < 1 || p->D < 1 || p->D > 1 << 24
        || p->B > ((int64_t)1 << 48) / p->L / p->D)
        return hb_fail(HB_ERR_INPUT, "B %lld, D %lld, L %lld: sizes from 1, L up to 2^31 expected",
                       (long long)p->B, (long long)p->D, (long long)p->L);
    if (heads && (p->H < 1 || p->D % p->H))
        return hb_fail(HB_ERR_INPUT, "H: D = %lld is not a multiple of H = %lld", (long long)p->D,
                       (long long)p->H);
    return 0;
}

// --- which rows count ----------------------------------------------------------------------------

static bool ok(const struct choose_row *r) { return !strcmp(r->status, "ok") && r->median_ns > 0; }

// The same operator with the same options, on the same kind of device: B, D, L, H may differ.
static bool of_problem(const struct choose_row *r, const struct hb_point *pt)
{
    struct hb_oper_opts a = r->pt.p.oper, b = pt->p.oper;
    a.order = a.order ? a.order : 2;
    b.order = b.order ? b.order : 2;
    return r->pt.p.op == pt->p.op && r->pt.p.dtype == pt->p.dtype
        && !strcmp(r->pt.device, pt->device) && a.order == b.order && a.emb_dim == b.emb_dim
        && a.filter_width == b.filter_width && a.no_window == b.no_window
        && a.no_long == b.no_long && a.short_taps == b.short_taps && a.rope == b.rope
        && a.package_layout == b.package_layout && a.train_z == b.train_z;
}

static bool pass_counts(enum hb_pass row, enum hb_pass asked)
{
    return row == asked || (asked == HB_PASS_FWDBWD && (row == HB_PASS_FWD || row == HB_PASS_BWD));
}

static bool counts(const struct choose_row *r, const struct hb_point *pt, int machine)
{
    return r->machine == machine && ok(r) && of_problem(r, pt) && pass_counts(r->pt.pass, pt->pass);
}

// 0 this machine, 1 the same kind of device, 2 another.
static int rank_of(const struct choose_machine *m, const struct choose_ask *a, int threads)
{
    bool gpu = !strncmp(a->pt.device, "cuda", 4);
    if (a->here && a->here[0] && !strcmp(m->id, a->here)) return 0;
    if (gpu) return a->gpu && a->gpu[0] && !strcmp(m->gpu, a->gpu) ? 1 : 2;
    return a->cpu && !strcmp(m->cpu, a->cpu) && (m->threads == 0 || m->threads == threads) ? 1 : 2;
}

static int pick_machine(const struct choose_table *t, const struct choose_ask *a, int *rank)
{
    int best = -1;
    size_t best_rows = 0;
    for (int i = 0; i < t->n_machines; i++) {
        size_t rows = 0;
        int r = rank_of(&t->machines[i], a, a->pt.p.threads);
        if (a->machine && strcmp(t->machines[i].id, a->machine)) continue;
        for (size_t k = 0; k < t->n; k++) rows += counts(&t->rows[k], &a->pt, i);
        if (!rows || (best >= 0 && (r > *rank || (r == *rank && rows <= best_rows)))) continue;
        best = i;
        best_rows = rows;
        *rank = r;
    }
    return best;
}

struct setting { int threads; enum hb_mode mode; enum hb_planning planning; };

static struct setting setting_of(const struct hb_point *pt)
{
    return (struct setting){ pt->p.threads, pt->mode, pt->p.planning };
}

// How far a row's setting is from the one asked for. On a GPU neither the host's threads nor FFT
// planning matter.
static double off(struct setting s, const struct hb_point *pt)
{
    bool gpu = !strncmp(pt->device, "cuda", 4);
    double d = s.mode != pt->mode ? 10 : 0;
    if (gpu) return d;
    if (s.planning != pt->p.planning) d += 1;
    if (s.threads > 0 && pt->p.threads > 0)
        d += 3 * fabs(log2((double)s.threads / pt->p.threads));
    return d;
}

static struct setting nearest_setting(const struct choose_table *t, const struct hb_point *pt,
                                      int machine)
{
    struct setting best = setting_of(pt);
    double least = INFINITY;
    for (size_t i = 0; i < t->n; i++) {
        if (!counts(&t->rows[i], pt, machine)) continue;
        struct setting s = setting_of(&t->rows[i].pt);
        if (off(s, pt) >= least) continue;
        least = off(s, pt);
        best = s;
    }
    return best;
}

// --- the candidates ------------------------------------------------------------------------------

static void add(struct choose_result *r, const char *name)
{
    for (int i = 0; i < r->n; i++)
        if (!strcmp(r->c[i].impl, name)) return;
    if (r->n == CHOOSE_MAX) return;
    r->c[r->n] = (struct choose_candidate){ 0 };
    snprintf(r->c[r->n++].impl, HB_NAME_MAX, "%s", name);
}

// "longconv_auto" and what has it inside.
static bool names_auto(const char *name)
{
    const char *last = strrchr(name, ':'), *word = last ? last + 1 : name;
    const char *p = strstr(word, "_auto");
    return p && (!p[5] || !strcmp(p + 5, "_cuda"));
}

static void collect(const struct choose_table *t, const struct choose_ask *a, int machine,
                    struct choose_result *r)
{
    const char *const *names = a->only ? a->only : a->known;
    for (; names && *names; names++)
        if (!names_auto(*names)) add(r, *names);
    for (size_t i = 0; i < t->n && !a->only; i++)
        if (counts(&t->rows[i], &a->pt, machine) && !names_auto(t->rows[i].pt.impl))
            add(r, t->rows[i].pt.impl);
}

// Rows of one implementation in one pass; returns how many.
static int rows_of(const struct choose_table *t, const struct choose_ask *a, int machine,
                   struct setting s, const char *impl, enum hb_pass pass,
                   const struct choose_row **out)
{
    int n = 0;
    bool gpu = !strncmp(a->pt.device, "cuda", 4);
    for (size_t i = 0; i < t->n; i++) {
        const struct choose_row *r = &t->rows[i];
        struct setting at = setting_of(&r->pt);
        if (r->machine != machine || !ok(r) || !of_problem(r, &a->pt) || r->pt.pass != pass
            || strcmp(r->pt.impl, impl) || at.mode != s.mode)
            continue;
        if (gpu || (at.threads == s.threads && at.planning == s.planning)) out[n++] = r;
    }
    return n;
}

// log(exp(a) + exp(b)) of two independent guesses.
static struct choose_guess sum_of(const struct choose_guess *a, const struct choose_guess *b)
{
    double hi = fmax(a->mean, b->mean), x = exp(a->mean - hi), y = exp(b->mean - hi);
    return (struct choose_guess){ .mean = hi + log(x + y),
                                  .sd = hypot(x * a->sd, y * b->sd) / (x + y),
                                  .n = a->n < b->n ? a->n : b->n,
                                  .outside = a->outside || b->outside };
}

static struct hb_point point_with(const struct choose_ask *a, const char *impl)
{
    struct hb_point pt = a->pt;
    const char *colon = strchr(impl, ':');
    snprintf(pt.impl, sizeof pt.impl, "%s", impl);
    snprintf(pt.p.inner, sizeof pt.p.inner, "%s", colon ? colon + 1 : "");
    return pt;
}

static int estimate(const struct choose_table *t, const struct choose_ask *a, int machine,
                    struct setting s, struct choose_candidate *c)
{
    const struct choose_row **rows = malloc((t->n + 1) * sizeof *rows);
    if (!rows) return hb_fail(HB_ERR_OOM, "no memory for a choice");
    struct hb_point pt = point_with(a, c->impl);
    int n = rows_of(t, a, machine, s, c->impl, pt.pass, rows);
    if (n >= 3 || pt.pass != HB_PASS_FWDBWD) {
        hb_predict(rows, n, &pt, CHOOSE_TIME, &c->time);
        hb_predict(rows, n, &pt, CHOOSE_MEMORY, &c->mem);
    } else {
        struct choose_guess f, b;
        struct hb_point part = pt;
        part.pass = HB_PASS_BWD;
        n = rows_of(t, a, machine, s, c->impl, HB_PASS_BWD, rows);
        hb_predict(rows, n, &part, CHOOSE_TIME, &b);
        hb_predict(rows, n, &part, CHOOSE_MEMORY, &c->mem);      // forward is planned there, too
        part.pass = HB_PASS_FWD;
        n = rows_of(t, a, machine, s, c->impl, HB_PASS_FWD, rows);
        hb_predict(rows, n, &part, CHOOSE_TIME, &f);
        if (f.n && b.n) c->time = sum_of(&f, &b);
        c->mem.exact = false;
    }
    free(rows);
    return 0;
}

static double mem_hi(const struct choose_candidate *c)
{
    return c->mem.n ? exp(c->mem.mean + MEM_Z * c->mem.sd) * MEM_SPARE : 0;
}
static double mem_lo(const struct choose_candidate *c)
{
    return c->mem.n ? exp(c->mem.mean - MEM_Z * c->mem.sd) / MEM_SPARE : 0;
}

// A failure of this very problem, on this machine.
static const char *failed(const struct choose_table *t, const struct choose_ask *a, int machine,
                          const char *impl)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct choose_row *r = &t->rows[i];
        if (r->machine != machine || ok(r) || strcmp(r->pt.impl, impl) || !of_problem(r, &a->pt)
            || r->pt.pass != a->pt.pass || r->pt.p.B != a->pt.p.B || r->pt.p.D != a->pt.p.D
            || r->pt.p.L != a->pt.p.L || r->pt.p.H != a->pt.p.H)
            continue;
        if (!strcmp(r->status, "wrong")) return "its answer was wrong when it was measured";
        if (!strcmp(r->status, "crashed")) return "it crashed when it was measured";
        if (!strcmp(r->status, "refused")) return "it refuses this problem";
    }
    return NULL;
}

static int examine(const struct choose_table *t, const struct choose_ask *a, int machine,
                   struct setting s, struct choose_candidate *c)
{
    struct hb_point pt = point_with(a, c->impl);
    int rc = machine >= 0 ? estimate(t, a, machine, s, c) : 0;
    if (rc) return rc;
    c->out = a->allowed ? a->allowed(&pt, a->ctx) : NULL;
    if (!c->out && machine >= 0) c->out = failed(t, a, machine, c->impl);
    if (c->out || !(a->mem_limit > 0)) return 0;
    if (c->mem.n && mem_hi(c) <= a->mem_limit) return 0;
    if (c->mem.n && mem_lo(c) > a->mem_limit) c->out = "it needs more memory than the limit";
    else if (!a->fits) c->out = "it may need more memory than the limit";
    else if (!a->fits(&pt, a->mem_limit, a->ctx)) c->out = "it needs more memory than the limit";
    return 0;
}

// In the running first, those with a time before those without, fastest first.
static int by_time(const void *x, const void *y)
{
    const struct choose_candidate *a = x, *b = y;
    if (!a->out != !b->out) return a->out ? 1 : -1;
    if (!a->time.n != !b->time.n) return a->time.n ? -1 : 1;
    if (a->time.mean != b->time.mean) return a->time.mean < b->time.mean ? -1 : 1;
    return strcmp(a->impl, b->impl);
}

// --- the answer ----------------------------------------------------------------------------------

// What an answer is made of.
struct asked {
    const struct choose_table *t;
    const struct choose_ask *a;
    struct setting s;
    struct choose_result *r;
    const struct choose_row **rows[2];   // room for the rows of two candidates
    // Of candidate j over i, once it was asked for: a ratio costs milliseconds.
    struct { bool known; double log, sd; } gap[CHOOSE_MAX][CHOOSE_MAX];
};

// Another machine's times carry over only roughly: of the same kind within some percent, else not
// by more than an order.
static double more(const struct choose_result *r)
{
    static const double by_rank[] = { 0, 0.05, 0.3 };
    return by_rank[r->rank];
}

// log(b / a) in one pass where both were measured; n 0: too rarely.
static struct choose_guess ratio_in(const struct asked *q, const char *a, const char *b,
                                    enum hb_pass pass)
{
    const struct choose_result *r = q->r;
    struct hb_point x = point_with(q->a, b), y = point_with(q->a, a);
    struct choose_guess g;
    x.pass = y.pass = pass;
    int n = rows_of(q->t, q->a, r->machine, q->s, b, pass, q->rows[0]);
    int m = rows_of(q->t, q->a, r->machine, q->s, a, pass, q->rows[1]);
    hb_predict_ratio(q->rows[0], n, &x, q->rows[1], m, &y, &g);
    return g;
}

// The same of the pass asked for. fwdbwd without rows of its own: backward is the larger part, and
// what decides both is the same, so the ratios are taken as one and the mean of the two.
static struct choose_guess ratio_of(const struct asked *q, const char *a, const char *b)
{
    struct choose_guess g = ratio_in(q, a, b, q->a->pt.pass);
    if (g.n || q->a->pt.pass != HB_PASS_FWDBWD) return g;
    g = ratio_in(q, a, b, HB_PASS_BWD);
    const struct choose_guess f = ratio_in(q, a, b, HB_PASS_FWD);
    if (!g.n || !f.n) return (struct choose_guess){ 0 };
    g.mean = (2 * g.mean + f.mean) / 3;
    g.sd = (2 * g.sd + f.sd) / 3;
    return g;
}

static double find_gap(const struct asked *q, int i, int j, double *sd)
{
    const struct choose_candidate *a = &q->r->c[i], *b = &q->r->c[j];
    const double d = b->time.mean - a->time.mean;
    *sd = hypot(a->time.sd, b->time.sd);
    if (fabs(d) > Z95 * *sd || (a->time.exact && b->time.exact)) return d;
    const struct choose_guess g = ratio_of(q, a->impl, b->impl);
    const double paired = hypot(g.sd, more(q->r));
    if (!g.n || paired >= *sd) return d;
    *sd = paired;
    return g.mean;
}

// Candidate j over i: expected ratio (log) and its deviation.
static double gap(struct asked *q, int i, int j, double *sd)
{
    if (!q->gap[i][j].known) {
        q->gap[i][j].log = find_gap(q, i, j, &q->gap[i][j].sd);
        q->gap[i][j].known = true;
    }
    *sd = q->gap[i][j].sd;
    return q->gap[i][j].log;
}

// The fastest to the front: by time they are in order, by ratio another one may be.
static void fastest_first(struct asked *q)
{
    struct choose_candidate *c = q->r->c;
    int best = 0;
    for (int i = 1; i < q->r->n_in; i++) {
        double sd;
        if (c[i].time.n && gap(q, best, i, &sd) < 0) best = i;
    }
    const struct choose_candidate first = c[best];
    memmove(c + 1, c, (size_t)best * sizeof *c);
    c[0] = first;
    if (best) memset(q->gap, 0, sizeof q->gap);      // they have other places now
}

// The one that ties with c and may be fastest, or if none ties the next one; -1: none.
static int rival_of(struct asked *q, int c)
{
    double least = INFINITY;
    int rival = -1;
    for (int i = 0; i < q->r->n_in; i++) {
        if (i == c || !q->r->c[i].time.n) continue;
        double sd, d = gap(q, c, i, &sd), low = d - Z95 * sd, key = low <= 0 ? low : d;
        if (key >= least) continue;
        least = key;
        rival = i;
    }
    return rival;
}

// Breaks a tie for the sake of a reproducible answer. Returns which candidate is named.
static int default_of_tie(struct asked *q)
{
    const char *name = hb_choose_default(&q->a->pt);
    for (int i = 1; i < q->r->n_in; i++) {
        if (!q->r->c[i].time.n || strcmp(q->r->c[i].impl, name)) continue;
        double sd, d = gap(q, 0, i, &sd);
        return d <= TIE_COST && d - Z95 * sd <= 0 ? i : 0;
    }
    return 0;
}

// Expected excess of c over the fastest: E max(0, log c/other) over its strongest rival, as a
// share.
static void regret(struct asked *q, int chosen, struct hb_choice *out)
{
    for (int i = 0; i < q->r->n_in; i++) {
        double sd, d;
        if (i == chosen || !q->r->c[i].time.n) continue;
        d = -gap(q, chosen, i, &sd);                             // > 0: chosen is slower
        double z = sd > 0 ? d / sd : 0, phi = exp(-z * z / 2) / sqrt(2 * M_PI);
        double mean = d * 0.5 * erfc(-z / sqrt(2)) + sd * phi;
        out->regret = fmax(out->regret, exp(mean) - 1);
        out->regret_hi = fmax(out->regret_hi, exp(d + Z95 * sd) - 1);
    }
}

static void numbers(const struct choose_guess *g, double *v, double *lo, double *hi)
{
    if (!g->n) return;
    *v = exp(g->mean);
    *lo = exp(g->mean - Z95 * g->sd);
    *hi = exp(g->mean + Z95 * g->sd);
}

static void note(const struct asked *q, int chosen, struct hb_choice *out)
{
    const struct choose_result *const r = q->r;
    const struct choose_table *const t = q->t;
    const struct choose_ask *const a = q->a;
    const struct setting s = q->s;
    const struct choose_guess *g = &r->c[chosen].time;
    bool gpu = !strncmp(a->pt.device, "cuda", 4);
    size_t n = 0, cap = sizeof out->note;
    char *to = out->note;
    if (!g->n) {
        snprintf(to, cap, "nothing is measured of it for this operator, pass, type and device");
        return;
    }
    n += (size_t)snprintf(to, cap, "%s %d measured point%s on %s", g->exact ? "one of" : "from",
                          g->n, g->n == 1 ? "" : "s", t->machines[r->machine].id);
    if (r->rank == 2 && n < cap)
        n += (size_t)snprintf(to + n, cap - n, ", another kind of machine");
    if (g->outside && n < cap)
        n += (size_t)snprintf(to + n, cap - n, ", beyond their range by the work model");
    if (s.mode != a->pt.mode && n < cap)
        n += (size_t)snprintf(to + n, cap - n, ", caches %s", hb_mode_str(s.mode));
    if (!gpu && s.threads != a->pt.p.threads && n < cap)
        n += (size_t)snprintf(to + n, cap - n, ", with %d threads", s.threads);
    if (!gpu && s.planning != a->pt.p.planning && n < cap)
        snprintf(to + n, cap - n, ", planned by %s", hb_planning_str(s.planning));
}

static void answer(struct asked *q)
{
    struct choose_result *const r = q->r;
    const struct choose_ask *const a = q->a;
    struct hb_choice *out = &r->answer;
    int chosen = 0, second = r->c[0].time.n ? rival_of(q, 0) : -1;
    if (!r->c[0].time.n) {                           // no data at all: the default if it can do it
        for (int i = 0; i < r->n_in; i++)
            if (!strcmp(r->c[i].impl, hb_choose_default(&a->pt))) chosen = i;
    } else if (second > 0) {
        double sd, d = gap(q, 0, second, &sd);
        out->tie = d - Z95 * sd <= 0;
        if (out->tie) chosen = default_of_tie(q);
        if (chosen) second = rival_of(q, chosen);
    }
    const struct choose_candidate *c = &r->c[chosen];
    snprintf(out->impl, sizeof out->impl, "%s", c->impl);
    numbers(&c->time, &out->time_ns, &out->time_lo_ns, &out->time_hi_ns);
    if (c->mem.n) {
        out->mem_bytes = exp(c->mem.mean);
        out->mem_hi_bytes = mem_hi(c);
    }
    if (second >= 0) {
        double sd, d = gap(q, chosen, second, &sd);
        snprintf(out->runner_up, sizeof out->runner_up, "%s", r->c[second].impl);
        numbers(&r->c[second].time, &out->runner_ns, &out->runner_lo_ns, &out->runner_hi_ns);
        out->margin = exp(d);
        out->margin_lo = exp(d - Z95 * sd);
        out->margin_hi = exp(d + Z95 * sd);
        regret(q, chosen, out);
    }
    out->reason = !c->time.n ? HB_DEFAULT : r->rank ? HB_SIMILAR_MACHINE
                : c->time.exact ? HB_MEASURED : HB_INTERPOLATED;
    if (r->machine >= 0)
        snprintf(out->machine, sizeof out->machine, "%s", q->t->machines[r->machine].id);
    note(q, chosen, out);
}

static int conclude(struct asked *q)
{
    for (int i = 0; i < 2; i++) q->rows[i] = malloc((q->t->n + 1) * sizeof *q->rows[i]);
    const bool room = q->rows[0] && q->rows[1];
    if (room) {
        fastest_first(q);
        answer(q);
    }
    for (int i = 0; i < 2; i++) free(q->rows[i]);
    return room ? 0 : hb_fail(HB_ERR_OOM, "no memory for a choice");
}

int hb_choose_among(const struct choose_table *t, const struct choose_ask *a,
                    struct choose_result *r)
{
    *r = (struct choose_result){ .machine = -1, .rank = 0 };
    r->machine = pick_machine(t, a, &r->rank);
    struct setting s = setting_of(&a->pt);
    if (r->machine >= 0) s = nearest_setting(t, &a->pt, r->machine);
    collect(t, a, r->machine, r);
    if (!r->n) add(r, hb_choose_default(&a->pt));
    for (int i = 0; i < r->n; i++) {
        int rc = examine(t, a, r->machine, s, &r->c[i]);
        if (rc) return rc;
        r->n_in += !r->c[i].out;
    }
    for (int i = 0; i < r->n; i++)
        if (r->c[i].time.n) r->c[i].time.sd = hypot(r->c[i].time.sd, more(r));
    qsort(r->c, (size_t)r->n, sizeof *r->c, by_time);
    if (!r->n_in)
        return hb_fail(HB_ERR_REFUSED, "nothing fits this problem: %s: %s%s", r->c[0].impl,
                       r->c[0].out, r->n > 1 ? ", and so on" : "");
    return conclude(&(struct asked){ .t = t, .a = a, .s = s, .r = r });
}
