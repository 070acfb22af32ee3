// entry.c: a training run as one entry of a record (bench/record.h): time, memory and perplexity
// side by side.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../stats.h"
#include "loop.h"
#include "tensors.h"

enum { EVERY_STEP = 100, CURVE_POINTS = 200, MAX_SAMPLES = 64, BOOTSTRAP = 1000 };

// An object under construction; a failed allocation is remembered and reported once, by finish.
struct obj { json_t *j; bool failed; };

static void put(struct obj *e, const char *key, json_t *v)
{
    e->failed |= json_object_set_new(e->j, key, v) < 0;
}
static void put_int(struct obj *e, const char *key, int64_t x) { put(e, key, json_integer(x)); }
static void put_text(struct obj *e, const char *key, const char *s) { put(e, key, json_string(s)); }

// Sets key unless the value is not finite (a record has no NaN): absent means unknown.
static void put_real(struct obj *e, const char *key, double x)
{
    if (isfinite(x))
        put(e, key, json_real(x));
}

static json_t *finish(struct obj *e)
{
    if (e->j && !e->failed)
        return e->j;
    json_decref(e->j);
    hb_fail(HB_ERR_OOM, "no memory for the record of a training run");
    return NULL;
}

static const char *control_of(const struct hb_lm_config *c)
{
    static const struct {
        const char *pattern, *what;
    } controls[] = {
        {"N", "no mixer"},
        {"S", "short convolution only"},
        {"C", "attention with the short convolution"},
        {"bigram", "bigram counts"},
        {"trigram", "trigram counts"},
    };
    for (size_t i = 0; i < sizeof controls / sizeof *controls; i++)
        if (!strcmp(c->pattern, controls[i].pattern))
            return controls[i].what;
    return NULL;
}

// What the run is: in entries and in skips.
static void axes(struct obj *e, const struct hb_lm_config *c)
{
    char impl[3 * HB_LM_WORD], model[3 * HB_LM_WORD + 4], name[HB_LM_NAME];
    hb_lm_impl(c, impl, sizeof impl);
    snprintf(model, sizeof model, "lm:%s", impl);
    hb_lm_name(c, name, sizeof name);
    put_text(e, "name", name);
    put_text(e, "run_name", name);
    put_text(e, "hb_impl", model);
    put_text(e, "hb_op", "lm");
    put_text(e, "hb_scope", "step");
    put_text(e, "hb_pass", "fwdbwd");
    put_text(e, "hb_mode", "warm");
    put_text(e, "hb_device", c->device);
    put_text(e, "hb_dtype", c->dtype);
    put_text(e, "hb_pattern", c->pattern);
    put_text(e, "hb_positions", hb_lm_is_counts(c) ? "none" : hb_lm_positions_str(c));
    put_text(e, "hb_purpose", c->purpose);
    put_text(e, "hb_dataset", c->data);
    put_text(e, "hb_tokenizer", c->tokenizer);
    if (control_of(c))
        put_text(e, "hb_control", control_of(c));
    put_int(e, "hb_batch", hb_lm_batch(c));
    put_int(e, "hb_seq_len", c->L);
    put_int(e, "hb_width", c->D);
    put_int(e, "hb_layers", c->layers);
    put_int(e, "hb_threads", c->threads);
    put_int(e, "hb_seed", c->seed);
    if (hb_lm_has(c, 'A') || hb_lm_has(c, 'C'))
        put_int(e, "hb_heads", c->heads);
    if (hb_lm_has(c, 'H') || hb_lm_has(c, 'S'))
        put_int(e, "hb_order", c->order);
    put(e, "hb_config", hb_lm_config_to_json(c));
}

// Four columns: steps done, tokens read, seconds of training, nats.
struct curve { json_t *step, *tokens, *seconds, *nats; bool failed; };

static struct curve new_curve(void)
{
    return (struct curve){json_array(), json_array(), json_array(), json_array(), false};
}

static void add_point(struct curve *k, const struct hb_lm_config *c, int64_t step, double seconds,
                      double nats)
{
    k->failed |= json_array_append_new(k->step, json_integer(step)) < 0 ||
                 json_array_append_new(k->tokens, json_integer(step * c->batch_tokens)) < 0 ||
                 json_array_append_new(k->seconds, json_real(seconds)) < 0 ||
                 json_array_append_new(k->nats, json_real(nats)) < 0;
}

// NULL if memory ran out; owns nothing afterwards.
static json_t *end_curve(struct curve *k, const char *nats)
{
    json_t *j = json_pack("{s:o,s:o,s:o,s:o}", "step", k->step, "tokens", k->tokens, "seconds",
                          k->seconds, nats, k->nats);
    if (!k->failed)
        return j;
    json_decref(j);
    return NULL;
}

// Losses against steps, tokens and seconds: every step of a short run, else means over equal
// stretches of about CURVE_POINTS; a point stands at the end of its stretch.
static json_t *curve(const struct hb_lm_config *c, const struct hb_lm_result *r)
{
    struct curve k = new_curve();
    const int64_t every = r->steps <= EVERY_STEP ? 1 : (r->steps + CURVE_POINTS - 1) / CURVE_POINTS;
    double sum = 0.0, spent = 0.0;
    int64_t n = 0;
    for (int64_t s = 0; s < r->steps; s++) {
        sum += r->loss[s];
        spent += 1e-9 * r->step_ns[s];
        if (++n < every && s + 1 < r->steps)
            continue;
        add_point(&k, c, s + 1, spent, sum / (double)n);
        sum = 0.0;
        n = 0;
    }
    return end_curve(&k, "loss_nats");
}

static json_t *eval_curve(const struct hb_lm_config *c, const struct hb_lm_result *r)
{
    struct curve k = new_curve();
    for (int64_t i = 0; i < r->n_eval; i++)
        add_point(&k, c, r->eval[i].step, r->eval[i].seconds, r->eval[i].nats);
    return end_curve(&k, "nll_nats");
}

// Time of a step: median with its interval, and up to MAX_SAMPLES evenly spaced raw steps.
static void times(struct obj *e, const struct hb_lm_config *c, const struct hb_lm_result *r)
{
    const struct hb_summary s = hb_summarise(r->step_ns, (size_t)r->steps, 1);
    const int64_t stride = (r->steps + MAX_SAMPLES - 1) / MAX_SAMPLES;
    json_t *raw = json_array();
    for (int64_t i = 0; i < r->steps; i += stride)
        e->failed |= json_array_append_new(raw, json_real(r->step_ns[i])) < 0;
    const double per_s = 1e9 * (double)c->batch_tokens / s.median;
    put_int(e, "iterations", r->steps);
    put_real(e, "real_time", s.median);
    put_real(e, "cpu_time", r->cpu_ns_per_step);
    put_real(e, "hb_median_ns", s.median);
    put_real(e, "hb_min_ns", s.min);
    put_real(e, "hb_max_ns", s.max);
    put_real(e, "hb_q1_ns", s.q1);
    put_real(e, "hb_q3_ns", s.q3);
    put(e, "hb_ci95_ns", json_pack("[f,f]", s.ci95.lo, s.ci95.hi));
    put(e, "hb_samples_ns", raw);
    put_real(e, "items_per_second", per_s);
    put_real(e, "hb_tokens_per_s", per_s);
    put_int(e, "hb_plan_ns", r->plan_ns);
    put_int(e, "max_bytes_used",
            (int64_t)(r->device_peak_bytes ? r->device_peak_bytes : r->alloc_peak_bytes));
    put_int(e, "hb_alloc_peak_bytes", (int64_t)r->alloc_peak_bytes);
    if (r->device_peak_bytes)
        put_int(e, "hb_device_peak_bytes", (int64_t)r->device_peak_bytes);
    put_int(e, "hb_planned_steps", r->planned_steps);
    put(e, "hb_stopped_early", json_boolean(r->steps < r->planned_steps));
    if (r->resumed_at)
        put_int(e, "hb_resumed_at_step", r->resumed_at);
    put(e, "hb_curve", curve(c, r));
    if (r->n_eval)
        put(e, "hb_eval_curve", eval_curve(c, r));
    put_real(e, "hb_final_loss_nats", r->loss[r->steps - 1]);
}

// Counts have no steps: their time is the evaluation's, per token.
static void times_of_counts(struct obj *e, const struct hb_lm_result *r)
{
    put_int(e, "iterations", r->held_tokens);
    put_real(e, "real_time", r->eval_ns_per_token);
    put_real(e, "cpu_time", r->eval_ns_per_token);
    put_real(e, "hb_median_ns", r->eval_ns_per_token);
    put_real(e, "hb_ngram_m", r->ngram_m);
}

static double bits_per_byte(double nats, int64_t tokens, int64_t bytes)
{
    return bytes > 0 ? nats * (double)tokens / (double)bytes / log(2.0) : NAN;
}

// Perplexities of different tokens do not compare; bits per byte do.
static void test_sets(struct obj *e, const struct hb_lm_result *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->n_test; i++) {
        const struct hb_lm_test *t = &r->test[i];
        struct obj o = {json_object(), false};
        put_text(&o, "name", t->name);
        put_int(&o, "tokens", t->tokens);
        put_real(&o, "nll_nats", t->nats);
        put_real(&o, "ppl", exp(t->nats));
        if (t->bytes > 0)
            put_int(&o, "bytes", t->bytes);
        put_real(&o, "bits_per_byte", bits_per_byte(t->nats, t->tokens, t->bytes));
        e->failed |= o.failed || json_array_append_new(list, o.j) < 0;
    }
    if (r->n_test)
        put_real(e, "hb_bits_per_byte",
                 bits_per_byte(r->test[0].nats, r->test[0].tokens, r->test[0].bytes));
    put(e, "hb_test_sets", list);
}

// What there is of a training whether it came to its end or not.
static void training(struct obj *e, const struct hb_lm_config *c, const struct hb_lm_result *r)
{
    if (r->steps)
        times(e, c, r);
    else
        times_of_counts(e, r);
    put_int(e, "hb_rss_peak_bytes", (int64_t)r->rss_peak_bytes);
    put_text(e, "hb_dataset_sha256", r->sha256);
    put_int(e, "hb_data_seed", c->data_seed);
    put_int(e, "hb_vocab", r->vocab);
    put_int(e, "hb_params", r->params);
    put_int(e, "hb_steps", r->steps);
    put_real(e, "hb_lr", c->lr);
    put_int(e, "hb_batch_tokens", c->batch_tokens);
    put_int(e, "hb_train_tokens", r->train_tokens);
    put_real(e, "hb_train_s", r->train_s);
    put_real(e, "hb_valid_nats", r->valid_nats);
}

json_t *hb_lm_entry(const struct hb_lm_config *c, const struct hb_lm_result *r)
{
    struct obj o = {json_object(), false}, *e = &o;
    axes(e, c);
    put_text(e, "run_type", "iteration");
    put_text(e, "time_unit", "ns");
    put_int(e, "repetitions", 1);
    put_int(e, "repetition_index", 0);
    put_int(e, "threads", 1);
    put_int(e, "family_index", 0);
    put_int(e, "per_family_instance_index", 0);
    training(e, c, r);
    put_int(e, "hb_eval_tokens", r->held_tokens);
    put_real(e, "hb_eval_s", r->eval_s);
    put_real(e, "hb_eval_ns_per_token", r->eval_ns_per_token);
    put_real(e, "hb_nll_nats", r->test_nats);
    put_real(e, "hb_ppl", exp(r->test_nats));
    test_sets(e, r);
    put_real(e, "hb_floor_nats", r->floor_nats);
    put_real(e, "hb_excess", r->test_nats / r->floor_nats - 1.0);
    put_real(e, "hb_entropy_prev_nats", r->entropy_prev);
    put_real(e, "hb_accuracy", r->accuracy);
    put_real(e, "hb_chance_uniform", r->chance_uniform);
    put_real(e, "hb_chance_frequent", r->chance_frequent);
    put_text(e, "hb_status", "ok");
    return finish(e);
}

json_t *hb_lm_skip(const struct hb_lm_config *c, const char *status, const char *detail)
{
    struct obj o = {json_object(), false}, *e = &o;
    axes(e, c);
    put_text(e, "status", status);
    put_text(e, "detail", detail);
    return finish(e);
}

json_t *hb_lm_cut(const struct hb_lm_config *c, const struct hb_lm_result *r, const char *detail)
{
    struct obj o = {hb_lm_skip(c, "interrupted", detail), false};
    if (o.j)
        training(&o, c, r);
    return finish(&o);
}
