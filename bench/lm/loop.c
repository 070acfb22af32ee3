// loop.c: the training loop. Times are of the steps alone: planning and evaluations are measured
// apart.
#include "loop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../datasets/ngram.h"
#include "../cli.h"
#include "../proc.h"
#include "checkpoint.h"
#include "data.h"
#include "model.h"

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

struct run {
    const struct hb_lm_config *c;
    const struct hb_lm_opts *o;
    struct hb_lm_data data;      // owned
    struct hb_lm *model;         // owned
    int32_t *in, *target;        // (B,L), owned
    struct hb_lm_result *r;
    int64_t first;               // step that this process begins with
    int64_t started_ns;
};

// Mean nats over a held-out set; *right (may be NULL): share of scored positions predicted.
static int held_out(struct run *x, int set, double *nats, double *right)
{
    const int64_t n = hb_lm_data_held_batches(&x->data, x->c, set), BL = x->c->batch_tokens;
    const int64_t t0 = hb_now_ns();
    double sum = 0.0;
    int64_t scored = 0, hits = 0;
    for (int64_t i = 0; i < n; i++) {
        double mean;
        int64_t here = 0, correct = 0;
        hb_lm_data_held(&x->data, x->c, set, i, x->in, x->target);
        int rc = hb_lm_loss(x->model, x->in, x->target, &mean, right ? &correct : NULL);
        if (rc)
            return rc;
        hits += correct;
        for (int64_t r = 0; r < BL; r++)
            here += x->target[r] >= 0;
        sum += mean * (double)here;
        scored += here;
    }
    const double ns = (double)(hb_now_ns() - t0);
    x->r->eval_s += 1e-9 * ns;
    x->r->eval_ns_per_token = ns / (double)(n * BL);
    *nats = sum / (double)scored;
    if (right)
        *right = (double)hits / (double)scored;
    return 0;
}

static int one_step(struct run *x, int64_t s)
{
    const int64_t t0 = hb_now_ns();
    hb_lm_data_train(&x->data, x->c, s, x->in, x->target);
    int rc = hb_lm_gradient(x->model, x->in, x->target, &x->r->loss[s]);
    if (!rc)
        rc = hb_lm_update(x->model, hb_lm_rate(x->c, s), s + 1, NULL);
    x->r->step_ns[s] = (double)(hb_now_ns() - t0);
    x->r->train_s += 1e-9 * x->r->step_ns[s];
    return rc;
}

static void progress(const struct run *x, int64_t done)
{
    char text[HB_LM_NAME + 64], impl[3 * HB_LM_WORD];
    const double spent = 1e-9 * (double)(hb_now_ns() - x->started_ns);
    if (x->o->quiet)
        return;
    hb_lm_impl(x->c, impl, sizeof impl);
    snprintf(text, sizeof text, "%s L %lld seed %lld: loss %.4f", impl, (long long)x->c->L,
             (long long)x->c->seed, x->r->loss[done - 1]);
    hb_progress(text, (size_t)done, (size_t)x->r->steps,
                spent / (double)(done - x->first) * (double)(x->r->steps - done));
}

// Evaluation points: `evals` of them, evenly spaced, the last one after the last step.
static bool eval_after(const struct hb_lm_config *c, int64_t done)
{
    const int64_t steps = hb_lm_steps(c);
    return c->evals > 0 && done * c->evals / steps > (done - 1) * c->evals / steps;
}

static int evaluate(struct run *x, int64_t done)
{
    struct hb_lm_eval *e = &x->r->eval[x->r->n_eval];
    *e = (struct hb_lm_eval){.step = done, .seconds = x->r->train_s};
    int rc = held_out(x, HB_SPLIT_VALID, &e->nats, NULL);
    x->r->valid_nats = rc ? NAN : e->nats;
    x->r->n_eval += !rc;
    return rc;
}

static int save(const struct run *x, int64_t done)
{
    return x->o->checkpoint
         ? hb_lm_checkpoint_write(x->o->checkpoint, x->c, x->model, x->r, done) : 0;
}

// The time budget is this process's; at least one step is made.
static bool out_of_time(const struct run *x, int64_t done)
{
    const double minutes = 1e-9 / 60 * (double)(hb_now_ns() - x->started_ns);
    return x->c->minutes > 0 && done > x->first && minutes >= x->c->minutes;
}

// After step s - 1: evaluation, checkpoint, progress.
static int between_steps(struct run *x, int64_t s, double *cpu_apart)
{
    const double cpu0 = cpu_ns();
    int rc = eval_after(x->c, s) ? evaluate(x, s) : 0;
    if (!rc && x->o->every > 0 && s % x->o->every == 0 && s < x->r->steps)
        rc = save(x, s);
    if (!rc)
        progress(x, s);
    *cpu_apart += cpu_ns() - cpu0;
    return rc;
}

static int steps(struct run *x)
{
    struct hb_lm_result *r = x->r;
    x->started_ns = hb_now_ns();
    int rc = x->c->evals > 0 && x->first == 0 ? evaluate(x, 0) : 0;
    const double cpu0 = cpu_ns();
    double cpu_apart = 0.0;
    int64_t s = x->first;
    for (; !rc && s < r->steps && !out_of_time(x, s) && !hb_interrupted(); s++) {
        rc = one_step(x, s);
        if (!rc)
            rc = between_steps(x, s + 1, &cpu_apart);
    }
    if (s > x->first)
        r->cpu_ns_per_step = (cpu_ns() - cpu0 - cpu_apart) / (double)(s - x->first);
    if (!rc && s < r->steps && s == x->first)
        rc = hb_fail(HB_ERR_RUN, "interrupted before the first step");
    if (!rc && s < r->steps) {
        r->interrupted = hb_interrupted();
        r->steps = s;
        r->train_tokens = s * x->c->batch_tokens;
        if (!r->interrupted && x->c->evals > 0 && r->eval[r->n_eval - 1].step != s)
            rc = evaluate(x, s);
    }
    hb_progress_end();
    return rc ? rc : save(x, s);
}

static void peaks(struct hb_lm_result *r)
{
    const struct hb_device *d = hb_host()->device;
    r->alloc_peak_bytes = hb_host_mem().peak;
    r->device_peak_bytes = strcmp(d->name, "cpu") ? d->peak_bytes(d) : 0;
    r->rss_peak_bytes = hb_rss_peak();
}

static int results(struct run *x)
{
    struct hb_lm_result *r = x->r;
    int rc = 0;
    if (!(r->test = calloc(HB_LM_SETS, sizeof *r->test)))
        return hb_fail(HB_ERR_OOM, "no memory for the results");
    for (int set = HB_SPLIT_TEST; !rc && set < x->data.n_sets; set++) {
        struct hb_lm_test *t = &r->test[r->n_test++];
        snprintf(t->name, sizeof t->name, "%s", x->data.name[set]);
        t->tokens = hb_lm_data_held_tokens(&x->data, x->c, set);
        t->bytes = hb_lm_data_held_bytes(&x->data, x->c, set);
        rc = held_out(x, set, &t->nats, x->data.is_recall ? &r->accuracy : NULL);
    }
    r->test_nats = r->test[0].nats;
    r->held_tokens = r->test[0].tokens;
    if (x->data.is_recall) {
        r->chance_uniform = x->data.recall.chance_uniform;
        r->chance_frequent = x->data.recall.chance_frequent;
    }
    return rc;
}

static int network(struct run *x)
{
    struct hb_lm_result *r = x->r;
    const size_t ids = (size_t)x->c->batch_tokens * sizeof(int32_t);
    int rc = hb_use_device(x->c->device);
    if (rc)
        return rc;
    const struct hb_device *d = hb_host()->device;
    r->steps = r->planned_steps = hb_lm_steps(x->c);
    r->train_tokens = r->steps * x->c->batch_tokens;
    x->in = malloc(ids);
    x->target = malloc(ids);
    r->loss = malloc((size_t)r->steps * sizeof *r->loss);
    r->step_ns = malloc((size_t)r->steps * sizeof *r->step_ns);
    r->eval = malloc((size_t)(x->c->evals + 2) * sizeof *r->eval);     // and one out of time
    if (!x->in || !x->target || !r->loss || !r->step_ns || !r->eval)
        return hb_fail(HB_ERR_OOM, "no memory for the curve of %lld steps", (long long)r->steps);
    hb_host_reset_peak();
    d->reset_peak(d);
    rc = hb_lm_create(x->c, x->data.rows, &x->model, &r->plan_ns);
    if (!rc && x->o->resume_from)
        rc = hb_lm_checkpoint_read(x->o->resume_from, x->c, x->model, r, &x->first);
    if (rc)
        return rc;
    r->resumed_at = x->first;
    r->params = hb_lm_table_of(x->model)->params;
    rc = steps(x);
    if (!rc && !r->interrupted)
        rc = results(x);
    peaks(r);
    return rc;
}

// bigram, trigram: counted on the training split, smoothed for the validation split, scored on the
// same test tokens.
static int counts(struct run *x)
{
    struct hb_lm_result *r = x->r;
    const struct hb_tokens *s = x->data.split;
    struct hb_ngram g;
    const double cpu0 = cpu_ns();
    const int64_t t0 = hb_now_ns();
    int rc = hb_ngram_fit(hb_host(), s[HB_SPLIT_TRAIN].tok, s[HB_SPLIT_TRAIN].n, (int)x->data.vocab,
                          !strcmp(x->c->pattern, "bigram") ? 2 : 3, &g);
    if (rc)
        return rc;
    r->valid_nats = hb_ngram_tune(&g, s[HB_SPLIT_VALID].tok, x->c->valid_tokens);
    r->train_s = 1e-9 * (double)(hb_now_ns() - t0);
    r->cpu_ns_per_step = cpu_ns() - cpu0;
    const int64_t t1 = hb_now_ns();
    r->test_nats = hb_ngram_nll(&g, s[HB_SPLIT_TEST].tok, x->c->eval_tokens);
    r->eval_s = 1e-9 * (double)(hb_now_ns() - t1);
    r->eval_ns_per_token = 1e9 * r->eval_s / (double)x->c->eval_tokens;
    r->held_tokens = x->c->eval_tokens;
    if ((r->test = calloc(1, sizeof *r->test))) {
        *r->test = (struct hb_lm_test){.tokens = r->held_tokens, .nats = r->test_nats,
                                       .bytes = hb_lm_data_held_bytes(&x->data, x->c,
                                                                      HB_SPLIT_TEST)};
        snprintf(r->test->name, sizeof r->test->name, "%s", x->c->data);
        r->n_test = 1;
    }
    r->train_tokens = s[HB_SPLIT_TRAIN].n;
    r->ngram_m = g.m;
    r->rss_peak_bytes = hb_rss_peak();
    hb_ngram_free(&g);
    return 0;
}

int hb_lm_train(const struct hb_lm_config *c, const struct hb_lm_opts *o, struct hb_lm_result *out)
{
    *out = (struct hb_lm_result){.valid_nats = NAN,
                                 .floor_nats = NAN,
                                 .entropy_prev = NAN,
                                 .accuracy = NAN,
                                 .chance_uniform = NAN,
                                 .chance_frequent = NAN,
                                 .ngram_m = NAN};
    struct run x = {.c = c, .o = o, .r = out};
    int rc = hb_lm_data_open(c, &x.data);
    if (rc)
        return rc;
    out->vocab = x.data.vocab;
    out->floor_nats = x.data.floor_nll;
    if (x.data.markov.p)
        out->entropy_prev = x.data.markov.entropy[x.data.markov.k - 1];
    memcpy(out->sha256, x.data.sha256, sizeof out->sha256);
    rc = hb_lm_is_counts(c) ? counts(&x) : network(&x);
    hb_lm_destroy(x.model);
    hb_lm_data_close(&x.data);
    free(x.in);
    free(x.target);
    if (rc)
        hb_lm_result_free(out);
    return rc;
}

void hb_lm_result_free(struct hb_lm_result *r)
{
    free(r->loss);
    free(r->step_ns);
    free(r->eval);
    free(r->test);
    r->loss = r->step_ns = NULL;
    r->eval = NULL;
    r->test = NULL;
}
