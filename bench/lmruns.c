// lmruns.c: training runs as the readers see them.
#include "lmruns.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "derive.h"

static double number(const json_t *e, const char *key)
{
    const json_t *v = json_object_get(e, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static int64_t integer(const json_t *e, const char *key)
{
    const json_t *v = json_object_get(e, key);
    if (json_is_string(v))
        return strtoll(json_string_value(v), NULL, 10);  // seeds above 2^53 are strings
    return json_is_integer(v) ? json_integer_value(v) : (int64_t)json_number_value(v);
}

static const char *text(const json_t *e, const char *key)
{
    const char *s = json_string_value(json_object_get(e, key));
    return s ? s : "";
}

static const char *text_or(const json_t *e, const char *key, const char *absent)
{
    const char *s = json_string_value(json_object_get(e, key));
    return s ? s : absent;
}

// "lm:H:longconv_fftw/..." -> model "H", impl "longconv_fftw".
static void split_name(struct hb_lm_run *r)
{
    const char *p = r->name + strlen("lm:");
    const size_t model = strcspn(p, ":/"), all = strcspn(p, "/");
    snprintf(r->model, sizeof r->model, "%.*s", (int)model, p);
    if (all > model)
        snprintf(r->impl, sizeof r->impl, "%.*s", (int)(all - model - 1), p + model + 1);
}

static void fill(struct hb_lm_run *r, const struct hb_cell *c)
{
    const json_t *e = c->entry;
    *r = (struct hb_lm_run){.cell = c,
                            .machine = hb_file_machine(c->file),
                            .name = c->name,
                            .dataset = text(e, "hb_dataset"),
                            .control = text(e, "hb_control"),
                            .positions = text(e, "hb_positions"),
                            .device = text_or(e, "hb_device", "cpu0"),
                            .dtype = text_or(e, "hb_dtype", "f32"),
                            .tokenizer = text_or(e, "hb_tokenizer", "bytes"),
                            .bits_per_byte = number(e, "hb_bits_per_byte"),
                            .peak_bytes = number(e, "max_bytes_used"),
                            .tokens_per_s = number(e, "hb_tokens_per_s"),
                            .stopped_early = json_is_true(json_object_get(e, "hb_stopped_early")),
                            .L = integer(e, "hb_seq_len"),
                            .B = integer(e, "hb_batch"),
                            .D = integer(e, "hb_width"),
                            .seed = integer(e, "hb_seed"),
                            .params = integer(e, "hb_params"),
                            .steps = integer(e, "hb_steps"),
                            .nll = number(e, "hb_nll_nats"),
                            .ppl = number(e, "hb_ppl"),
                            .final_loss = number(e, "hb_final_loss_nats"),
                            .train_tokens = number(e, "hb_train_tokens"),
                            .eval_tokens = number(e, "hb_eval_tokens"),
                            .lr = number(e, "hb_lr"),
                            .seconds = number(e, "hb_train_s"),
                            .floor_nll = number(e, "hb_floor_nats"),
                            .token_s = NAN,
                            .purpose = text(e, "hb_purpose"),
                            .ok = !strcmp(c->status, "ok")};
}

// Counts have no steps: their median time is the evaluation's.
static void fill_speed(struct hb_lm_run *r)
{
    const double tokens = (double)r->B * (double)r->L;
    if (r->ok && r->steps > 0 && tokens > 0) r->token_s = r->cell->median_ns * 1e-9 / tokens;
}

// Two names, each without its "/seed:N": layers and all settings that are not at their defaults.
static int name_cmp(const char *a, const char *b)
{
    static const char key[] = "/seed:";
    const char *sa = strstr(a, key), *sb = strstr(b, key);
    if (!sa || !sb) return strcmp(a, b);
    const size_t na = (size_t)(sa - a), nb = (size_t)(sb - b);
    const int d = strncmp(a, b, na < nb ? na : nb);
    if (d || na != nb) return d ? d : na < nb ? -1 : 1;
    sa += strlen(key);
    sb += strlen(key);
    return strcmp(sa + strspn(sa, "0123456789"), sb + strspn(sb, "0123456789"));
}

// All but the seed: what makes runs comparable as repetitions of each other.
static int kind_cmp(const struct hb_lm_run *a, const struct hb_lm_run *b)
{
    int d;
    if ((d = strcmp(a->machine, b->machine))) return d;
    if ((d = strcmp(a->dataset, b->dataset))) return d;
    if (a->steps != b->steps) return a->steps > b->steps ? -1 : 1;  // the longest budget first
    if (a->L != b->L) return a->L < b->L ? -1 : 1;
    if ((d = strcmp(a->control, b->control))) return d;
    if ((d = strcmp(a->model, b->model))) return d;
    if ((d = strcmp(a->impl, b->impl))) return d;
    if ((d = strcmp(a->purpose, b->purpose))) return d;
    if ((d = strcmp(a->positions, b->positions))) return d;
    if (a->B != b->B) return a->B < b->B ? -1 : 1;
    if (a->D != b->D) return a->D < b->D ? -1 : 1;
    if (a->lr < b->lr) return -1;  // NAN of counts: equal
    if (a->lr > b->lr) return 1;
    return name_cmp(a->name, b->name);
}

static int run_cmp(const void *x, const void *y)
{
    const struct hb_lm_run *a = x, *b = y;
    const int k = kind_cmp(a, b);
    if (k) return k;
    return a->seed == b->seed ? strcmp(a->name, b->name) : a->seed < b->seed ? -1 : 1;
}

int hb_lm_make(const struct hb_results *r, struct hb_lm_set *out)
{
    *out = (struct hb_lm_set){0};
    out->run = calloc(r->n + 1, sizeof *out->run);
    if (!out->run) return hb_fail(HB_ERR_OOM, "no memory for %zu training runs", r->n);
    for (size_t i = 0; i < r->n; i++)
        if (!strncmp(r->cells[i].name, "lm:", 3) && !strcmp(r->cells[i].status, "ok"))
            fill(&out->run[out->n++], &r->cells[i]);
    for (size_t i = 0; i < out->n; i++) {
        split_name(&out->run[i]);
        fill_speed(&out->run[i]);
    }
    qsort(out->run, out->n, sizeof *out->run, run_cmp);
    return 0;
}

void hb_lm_free(struct hb_lm_set *s)
{
    free(s->run);
    *s = (struct hb_lm_set){0};
}

size_t hb_lm_curve(const struct hb_lm_run *run, const char *x_key, double *x, double *loss,
                   size_t cap)
{
    const json_t *curve = json_object_get(run->cell->entry, "hb_curve");
    const json_t *ax = json_object_get(curve, x_key), *al = json_object_get(curve, "loss_nats");
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(ax) && i < json_array_size(al) && n < cap; i++, n++) {
        x[n] = json_number_value(json_array_get(ax, i));
        loss[n] = json_number_value(json_array_get(al, i));
    }
    return n;
}

struct hb_lm_group hb_lm_group_at(const struct hb_lm_set *s, size_t i)
{
    struct hb_lm_group g = {&s->run[i], 0, NAN, {NAN, NAN}};
    double sum = 0, sq = 0;
    size_t n = 0;
    for (; i + g.n < s->n && !kind_cmp(&s->run[i], &s->run[i + g.n]); g.n++) {
        const double p = s->run[i + g.n].ppl;
        if (!s->run[i + g.n].ok || !isfinite(p)) continue;
        sum += p;
        n++;
    }
    if (!n) return g;
    g.ppl = sum / (double)n;
    for (size_t k = 0; k < g.n; k++) {
        const struct hb_lm_run *r = &s->run[i + k];
        if (r->ok && isfinite(r->ppl)) sq += (r->ppl - g.ppl) * (r->ppl - g.ppl);
    }
    if (n < 2) return g;  // one seed has no interval
    const double h = hb_t975((double)n - 1) * sqrt(sq / (double)(n - 1) / (double)n);
    g.ci95 = (struct hb_interval){g.ppl - h, g.ppl + h};
    return g;
}

bool hb_lm_ngram(const struct hb_lm_run *r) { return strstr(r->model, "gram") != NULL; }

const char *hb_lm_run_mixer(const struct hb_lm_run *r)
{
    return r->control[0] ? r->control : r->impl;
}

// Held-out tokens are the first ones of a split: as many are the same. NAN: not recorded.
static bool same_tokens(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

bool hb_lm_counts_in(const struct hb_lm_run *r, const struct hb_lm_budget *b)
{
    return r->ok && hb_lm_ngram(r) && !strcmp(r->dataset, b->dataset) &&
           !strcmp(r->machine, b->machine) && same_tokens(r->eval_tokens, b->eval_tokens) &&
           !strcmp(r->tokenizer, b->tokenizer);
}

bool hb_lm_in(const struct hb_lm_run *r, const struct hb_lm_budget *b)
{
    return r->ok && r->L > 0 && !hb_lm_ngram(r) && strcmp(r->purpose, "equality") &&
           strcmp(r->purpose, "speed") &&
           r->steps == b->steps && r->B * r->L == b->batch_tokens && r->D == b->D &&
           !strcmp(r->dataset, b->dataset) && !strcmp(r->machine, b->machine) &&
           same_tokens(r->eval_tokens, b->eval_tokens) && !strcmp(r->device, b->device) &&
           !strcmp(r->dtype, b->dtype) && !strcmp(r->tokenizer, b->tokenizer);
}

bool hb_lm_scored_at(const struct hb_lm_run *r, size_t i, struct hb_lm_scored *out)
{
    const json_t *e = json_array_get(json_object_get(r->cell->entry, "hb_test_sets"), i);
    if (!e) return false;
    const double bytes = number(e, "bytes");
    *out = (struct hb_lm_scored){text(e, "name"), number(e, "tokens"), isnan(bytes) ? 0 : bytes,
                                 number(e, "nll_nats")};
    return true;
}

bool hb_lm_main(const struct hb_lm_set *s, const char *machine, struct hb_lm_budget *out)
{
    size_t best_lengths = 0, best_runs = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *one = &s->run[i];
        const struct hb_lm_budget b = {machine, one->dataset, one->steps, one->B * one->L, one->D,
                                       one->eval_tokens, one->device, one->dtype,
                                       one->tokenizer};
        size_t lengths = 0, runs = 0;
        int64_t last = -1;
        if (!hb_lm_in(&s->run[i], &b)) continue;
        for (size_t k = 0; k < s->n; k++) {  // sorted by length within a budget
            if (!hb_lm_in(&s->run[k], &b)) continue;
            runs++;
            lengths += s->run[k].L != last;
            last = s->run[k].L;
        }
        if (lengths < best_lengths || (lengths == best_lengths && runs <= best_runs)) continue;
        best_lengths = lengths;
        best_runs = runs;
        *out = b;
    }
    return best_runs > 0;
}

struct hb_lm_group hb_lm_find(const struct hb_lm_set *s, const struct hb_lm_budget *b,
                              const char *model, int64_t L)
{
    for (size_t i = 0; i < s->n;) {
        const struct hb_lm_group g = hb_lm_group_at(s, i);
        if (hb_lm_in(g.run, b) && g.run->L == L && !strcmp(g.run->model, model)) return g;
        i += g.n;
    }
    return (struct hb_lm_group){NULL, 0, NAN, {NAN, NAN}};
}
