// evaluate.c: judges the choices (contract: evaluate.h).
//
// Problems  random: operator, pass, B 1..16, D 16..1024, L 16..65536 (each log-uniform; D a
//           multiple
//           of 8, or of 64 with several heads); not measured before, chosen time at most max_ms.
//           Every third one gets a memory limit between 0.7 and 1.5 times what the
//           chosen one is expected to take without.
// Judgement the chosen one is alternated in one process with each other candidate that was in the
//           running and is not expected to be more than HOPELESS times slower (unknown ones
//           always).
//           Wrong: the whole interval of chosen / other above 1.05. With a limit the chosen one is
//           also measured alone: the peak while it is timed must not pass the limit.
// Next time the same seed gives the same problems as long as the table is the same.
#include "evaluate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../cli.h"
#include "../measure.h"
#include "../record.h"
#include "../table.h"
#include "choose.h"

#define HOPELESS 6.0
#define WRONG 1.05
#define WORST 1.5
#define SHARE 0.05

struct judged {
    struct hb_point pt;
    struct hb_choice c;
    double limit;                        // 0: none
    struct hb_ratio worst;               // chosen / other, the largest
    char other[HB_NAME_MAX];             // against which
    int pairs, passed_over, lost;        // lost: pairs without a ratio
    bool wrong, exceeded;
};
struct sums { int n, wrong, ties, limits, exceeded, empty; double worst, pairs_s; };

// --- the problems --------------------------------------------------------------------------------

static uint64_t next(uint64_t *state)                // splitmix64
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static double uniform(uint64_t *s) { return (double)(next(s) >> 11) * 0x1p-53; }
static double spread(uint64_t *s, double lo, double hi) { return lo * pow(hi / lo, uniform(s)); }

static int random_problem(const struct evaluate_opts *o, uint64_t *rng, struct hb_point *pt)
{
    static const enum hb_pass passes[] = { HB_PASS_FWD, HB_PASS_FWD, HB_PASS_FWD, HB_PASS_BWD,
                                           HB_PASS_FWDBWD };
    struct hb_question q = { .op = hb_op_str((enum hb_op)(next(rng) % HB_OP_COUNT)),
                             .pass = hb_pass_str(passes[next(rng) % 5]), .device = o->device,
                             .dtype = o->dtype };
    if (o->op) q.op = o->op;
    q.B = (int64_t)spread(rng, 1, 16.999);
    q.D = (int64_t)spread(rng, 16, 1024.5);
    q.D = q.D >= 96 ? (q.D + 32) / 64 * 64 : (q.D + 4) / 8 * 8;
    q.L = (int64_t)spread(rng, 16, 65536.5);
    return hb_question_point(&q, hb_host()->threads, pt);
}

static bool measured_before(const struct hb_point *pt)
{
    const struct choose_table *t = hb_choices();
    for (size_t i = 0; t && i < t->n; i++) {
        const struct hb_problem *a = &t->rows[i].pt.p, *b = &pt->p;
        if (a->op == b->op && a->B == b->B && a->D == b->D && a->L == b->L && a->H == b->H)
            return true;
    }
    return false;
}

static struct hb_point with_impl(const struct hb_point *pt, const char *impl, int64_t seed)
{
    struct hb_point p = *pt;
    snprintf(p.impl, sizeof p.impl, "%s", impl);
    p.seed = (uint64_t)seed;
    p.p.inner[0] = '\0';
    return p;
}

// --- one problem ---------------------------------------------------------------------------------

static struct hb_measure_opts options(const struct evaluate_opts *o)
{
    return (struct hb_measure_opts){
        .sample = { .ci_target = 0.01, .budget_s = o->budget_s, .min_samples = HB_MIN_SAMPLES,
                    .max_samples = HB_MAX_SAMPLES, .min_sample_s = HB_MIN_SAMPLE_S },
        .judge_flop = HB_JUDGE_FLOP, .time_limit_s = 60 + 20 * o->budget_s,
    };
}

static int pair(const struct evaluate_opts *o, const char *other, struct judged *j)
{
    struct hb_measure_opts m = options(o);
    struct hb_point pts[2] = { with_impl(&j->pt, j->c.impl, o->seed),
                               with_impl(&j->pt, other, o->seed) };
    struct hb_measured out = { 0 };
    int rc = hb_point_resolve(&pts[0]);
    if (!rc) rc = hb_point_resolve(&pts[1]);
    if (!rc) rc = hb_measure(pts, 2, &m, &out);
    if (rc) return rc;
    j->pairs++;
    if (strcmp(out.status, "ok") || !(out.ratio > 0)) {
        j->lost++;                                   // the other may not fit: then it is no rival
    } else {
        if (out.ratio > j->worst.r) {
            j->worst = (struct hb_ratio){ out.ratio, { out.ratio_lo, out.ratio_hi } };
            snprintf(j->other, sizeof j->other, "%s", other);
        }
        j->wrong |= out.ratio_lo > WRONG;
    }
    json_decref(out.doc);
    return 0;
}

static int under_limit(const struct evaluate_opts *o, struct judged *j)
{
    struct hb_measure_opts m = options(o);
    struct hb_point pt = with_impl(&j->pt, j->c.impl, o->seed);
    struct hb_measured out = { 0 };
    m.sample.budget_s = fmin(o->budget_s, 0.2);
    // Not run under the limit, which the judge would have to keep, too: compared with the peak.
    int rc = hb_point_resolve(&pt);
    if (!rc) rc = hb_measure(&pt, 1, &m, &out);
    if (rc) return rc;
    j->exceeded = strcmp(out.status, "ok") || out.alloc_peak_bytes > j->limit;
    json_decref(out.doc);
    return 0;
}

static int judge(const struct evaluate_opts *o, const struct choose_result *r, struct judged *j)
{
    const struct choose_candidate *chosen = NULL;
    int rc = 0;
    for (int i = 0; i < r->n; i++)
        if (!strcmp(r->c[i].impl, j->c.impl)) chosen = &r->c[i];
    for (int i = 0; i < r->n_in && !rc && !hb_interrupted(); i++) {
        const struct choose_candidate *c = &r->c[i];
        if (c == chosen) continue;
        if (c->time.n && c->time.mean - 1.96 * c->time.sd - chosen->time.mean > log(HOPELESS))
            j->passed_over++;
        else rc = pair(o, c->impl, j);
    }
    if (!rc && j->limit > 0) rc = under_limit(o, j);
    return rc;
}

// --- for people and as JSON ----------------------------------------------------------------------

static void print_line(int i, const struct judged *j)
{
    const struct hb_problem *p = &j->pt.p;
    char problem[96];
    snprintf(problem, sizeof problem, "%s %s B %" PRId64 " D %" PRId64 " L %" PRId64,
             hb_op_str(p->op), hb_pass_str(j->pt.pass), p->B, p->D, p->L);
    printf("%4d %-44s %-28s %-5s", i, problem, j->c.impl, j->c.tie ? "tie" : "");
    if (j->worst.r > 0) printf(" %s against %s", hb_str_ratio(j->worst).s, j->other);
    else printf(" no rival (%d passed over, %d did not run)", j->passed_over, j->lost);
    printf("%s%s\n", j->wrong ? "  WRONG" : "", j->exceeded ? "  OVER THE LIMIT" : "");
    fflush(stdout);
}

static json_t *row(const struct judged *j)
{
    const struct hb_problem *p = &j->pt.p;
    return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:b,s:s,s:f,s:f,s:f,s:s,s:f,s:[f,f],s:i,s:i,s:i,"
                     "s:f,s:b,s:b}",
                     "op", hb_op_str(p->op), "pass", hb_pass_str(j->pt.pass), "B",
                     (json_int_t)p->B, "D", (json_int_t)p->D, "L", (json_int_t)p->L, "H",
                     (json_int_t)p->H, "impl", j->c.impl, "tie", j->c.tie, "reason",
                     hb_reason_str(j->c.reason), "time_ns", j->c.time_ns, "regret", j->c.regret,
                     "regret_hi", j->c.regret_hi, "against", j->other, "ratio", j->worst.r,
                     "ratio_ci95", j->worst.ci95.lo, j->worst.ci95.hi, "pairs", j->pairs,
                     "passed_over", j->passed_over, "lost", j->lost, "limit_bytes", j->limit,
                     "wrong", j->wrong, "exceeded", j->exceeded);
}

static void count(struct sums *s, const struct judged *j)
{
    s->n++;
    s->wrong += j->wrong;
    s->ties += j->c.tie;
    s->limits += j->limit > 0;
    s->exceeded += j->exceeded;
    s->empty += !(j->worst.r > 0);
    s->worst = fmax(s->worst, j->worst.r);
}

static int print_sums(const struct sums *s, double seconds)
{
    if (!s->n) return hb_fail(HB_ERR_MISSING, "no problem could be judged: run 'hyena-bench sweep "
                                              "bench/sweeps/choose.json' first");
    double share = (double)s->wrong / s->n;
    printf("\n%d problems in %.0f s: %d wrong (%s; allowed %s), worst %.3g (allowed %.3g), "
           "%d ties,\n"
           "%d with a memory limit, %d exceeded it; %d had no rival worth a pair\n",
           s->n, seconds, s->wrong, hb_str_pct(share).s, hb_str_pct(SHARE).s, s->worst, WORST,
           s->ties, s->limits, s->exceeded, s->empty);
    return share > SHARE || s->worst > WORST || s->exceeded;
}

// A problem worth asking about, and the choice. 1: try another.
static int draw(const struct evaluate_opts *o, uint64_t *rng, int i, struct judged *j,
                struct choose_result *r)
{
    *j = (struct judged){ 0 };
    int rc = random_problem(o, rng, &j->pt);
    double share = 0.7 + 0.8 * uniform(rng);
    if (rc) return rc;
    if (measured_before(&j->pt)) return 1;
    bool gpu = !strncmp(j->pt.device, "cuda", 4);
    double room = gpu ? 0 : (double)hb_default_mem_limit();
    rc = hb_choose_here(&j->pt, room, hb_choose_probe, NULL, r);
    if (!rc && i % 3 == 0 && r->answer.mem_bytes > 0) {
        double limit = share * r->answer.mem_bytes;
        rc = hb_choose_here(&j->pt, limit, hb_choose_probe, NULL, r);
        j->limit = limit;
    }
    if (rc == HB_ERR_REFUSED) {                      // "nothing fits" is right, too
        hb_error_clear();
        return 1;
    }
    if (rc) return rc;
    j->c = r->answer;
    return r->n_in < 2 || j->c.time_ns > 1e6 * o->max_ms || j->c.reason == HB_DEFAULT;
}

int hb_evaluate(const struct evaluate_opts *o, int *answer)
{
    uint64_t rng = (uint64_t)o->seed;
    struct choose_result *r = malloc(sizeof *r);
    json_t *rows = json_array();
    struct sums s = { 0 };
    int rc = r && rows ? 0 : hb_fail(HB_ERR_OOM, "no memory for the evaluation");
    int64_t t0 = hb_now_ns();
    for (int64_t tries = 0; !rc && s.n < o->n && tries < 50 * o->n && !hb_interrupted(); tries++) {
        struct judged j;
        rc = draw(o, &rng, s.n, &j, r);
        if (rc == 1) {
            rc = 0;
            continue;
        }
        if (!rc) rc = judge(o, r, &j);
        if (rc || hb_interrupted()) break;
        count(&s, &j);
        print_line(s.n, &j);
        json_array_append_new(rows, row(&j));
    }
    if (!rc) {
        int no = print_sums(&s, 1e-9 * (double)(hb_now_ns() - t0));
        if (no < 0) rc = no;
        else *answer = no;
    }
    if (!rc && o->out) {
        json_t *doc = json_pack("{s:s,s:I,s:f,s:i,s:i,s:f,s:i,s:O}", "machine", hb_machine_id(),
                                "seed", (json_int_t)o->seed, "budget_s", o->budget_s, "problems",
                                s.n, "wrong", s.wrong, "worst", s.worst, "exceeded", s.exceeded,
                                "judged", rows);
        rc = doc ? hb_json_save(o->out, doc) : hb_fail(HB_ERR_OOM, "no memory for the record");
        json_decref(doc);
    }
    json_decref(rows);
    free(r);
    return rc;
}
