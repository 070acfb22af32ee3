// report_lm.c: perplexity: per seed, controls, counts, one model against another.
#include <math.h>
#include <string.h>

#include "report.h"

// Over a group's seeds: seconds of the whole training, or of one token. NAN if one is not known.
static double median_of(const struct hb_lm_set *s, size_t from, size_t n, bool whole)
{
    double v[64];
    if (n > sizeof v / sizeof *v) n = sizeof v / sizeof *v;
    for (size_t i = 0; i < n; i++) {
        v[i] = whole ? s->run[from + i].seconds : s->run[from + i].token_s;
        if (!isfinite(v[i])) return NAN;
    }
    return hb_median(v, n);
}

// Tokens per second: whole numbers, not 1.1e+06.
static struct hb_str per_second(double x)
{
    struct hb_str s = hb_str_num(x);
    if (x >= 1e4) snprintf(s.s, sizeof s.s, "%.0f", x);
    return s;
}

// --- per seed ------------------------------------------------------------------------------------

static void seeds_table(struct hb_report *r, const struct hb_lm_budget *b)
{
    const struct hb_lm_set *s = &r->st->lm;
    struct hb_table t = {0};
    const bool gpu = hb_on_gpu(b->device);  // newer records, with bytes and the device's peak
    hb_table_head(&t, gpu ? ">L|model|mixer|positions|>parameters|perplexity per seed|>mean [95 % "
                            "over seeds]|>bits per byte|>training time (median)|>tokens/s "
                            "(median)|>peak memory"
                          : ">L|model|mixer|positions|>parameters|perplexity per seed|>mean [95 % "
                            "over seeds]|>training time (median)|>tokens/s (median)");
    for (size_t i = 0; i < s->n;) {
        const struct hb_lm_group g = hb_lm_group_at(s, i);
        const struct hb_lm_run *one = g.run;
        if (hb_lm_in(one, b)) {
            struct hb_text seeds = {0};
            for (size_t k = 0; k < g.n; k++)
                hb_text_add(&seeds, "%s%s", k ? ", " : "", hb_str_num(s->run[i + k].ppl).s);
            hb_table_cell(&t, "%lld", (long long)one->L);
            hb_table_cell(&t, "%s", one->model);
            hb_table_cell(&t, "%s", hb_lm_run_mixer(one));
            hb_table_cell(&t, "%s", one->positions[0] ? one->positions : "-");
            hb_table_cell(&t, "%lld", (long long)one->params);
            hb_table_cell(&t, "%s", seeds.s ? seeds.s : "-");
            if (isfinite(g.ci95.lo))
                hb_table_cell(&t, "%s", hb_str_ratio((struct hb_ratio){g.ppl, g.ci95}).s);
            else hb_table_cell(&t, "%s (one seed)", hb_str_num(g.ppl).s);
            if (gpu) hb_table_cell(&t, "%.4f", one->bits_per_byte);
            hb_table_cell(&t, "%s", hb_str_time(median_of(s, i, g.n, true) * 1e9).s);
            hb_table_cell(&t, "%s", per_second(1 / median_of(s, i, g.n, false)).s);
            if (gpu) hb_table_cell(&t, "%s", hb_str_bytes(one->peak_bytes).s);
            t.failed = t.failed || seeds.failed;
            hb_text_free(&seeds);
        }
        i += g.n;
    }
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *n = &s->run[i];
        if (!hb_lm_counts_in(n, b)) continue;
        hb_table_cell(&t, "-");
        hb_table_cell(&t, "%s", n->model);
        hb_table_cell(&t, "counts, no network");
        for (int k = 0; k < 3; k++) hb_table_cell(&t, "-");
        hb_table_cell(&t, "%s", hb_str_num(n->ppl).s);
        for (int k = 0; k < (gpu ? 4 : 2); k++) hb_table_cell(&t, "-");
    }
    hb_table_print(&t, &r->t);
    hb_text_add(&r->t, "\n");
}

// --- one model against another -------------------------------------------------------------------

// Mean perplexity of a group; adds the squares around it to *squares.
static double mean_of(struct hb_lm_group k, double *squares)
{
    double mean = 0;
    for (size_t i = 0; i < k.n; i++) mean += k.run[i].ppl / (double)k.n;
    for (size_t i = 0; i < k.n; i++) *squares += pow(k.run[i].ppl - mean, 2);
    return mean;
}

// Where one model is better, where the other, where the seeds do not tell: lists of lengths.
// The interval of the difference is the t interval of two samples of one variance; a model with
// one seed borrows the other's scatter, two such have no interval.
struct verdicts {
    struct hb_text list[3];      // x lower, y lower, not told apart; owned
    size_t n[3];
};

static void judge_length(struct hb_lm_group x, struct hb_lm_group y, struct verdicts *v)
{
    double squares = 0;
    const double mx = mean_of(x, &squares), my = mean_of(y, &squares), d = mx - my;
    const double df = (double)(x.n + y.n) - 2;
    const double per = 1 / (double)x.n + 1 / (double)y.n;
    const double h = df < 1 ? NAN : hb_t975(df) * sqrt(squares / df * per);
    const int k = isfinite(h) && fabs(d) <= h ? 2 : d < 0 ? 0 : 1;
    hb_text_add(&v->list[k], "%sL = %lld (%s against %s, difference %s %s)", v->n[k]++ ? ", " : "",
                (long long)x.run->L, hb_str_num(mx).s, hb_str_num(my).s, hb_str_num(d).s,
                isfinite(h) ? hb_str_interval((struct hb_interval){d - h, d + h}).s
                            : "from one seed each");
}

// One line: perplexity of model x against model y at every length that has both. `if_not_worse`
// (may be NULL) is added when x is at most y's equal at some length.
static void versus(struct hb_report *r, const struct hb_lm_budget *b, const char *title,
                   const char *x, const char *y, const char *if_not_worse)
{
    const struct hb_lm_set *s = &r->st->lm;
    struct verdicts v = {.n = {0}};
    int64_t last = 0;
    for (size_t i = 0; i < s->n; i++) {          // sorted by length within a budget
        if (!hb_lm_in(&s->run[i], b) || s->run[i].L == last) continue;
        last = s->run[i].L;
        const struct hb_lm_group kx = hb_lm_find(s, b, x, last), ky = hb_lm_find(s, b, y, last);
        if (kx.n && ky.n) judge_length(kx, ky, &v);
    }
    if (v.n[0] + v.n[1] + v.n[2]) {
        hb_text_add(&r->t, "- %s:", title);
        if (v.n[0]) hb_text_add(&r->t, " **%s is lower** at %s.", x, v.list[0].s);
        if (v.n[1]) hb_text_add(&r->t, " **%s is lower** at %s.", y, v.list[1].s);
        if (v.n[2]) hb_text_add(&r->t, " **Not told apart** at %s.", v.list[2].s);
        if (if_not_worse && v.n[0] + v.n[2]) hb_text_add(&r->t, " %s", if_not_worse);
        hb_text_add(&r->t, "\n");
    }
    for (int k = 0; k < 3; k++) {
        r->t.failed = r->t.failed || v.list[k].failed;
        hb_text_free(&v.list[k]);
    }
}

static void comparisons(struct hb_report *r, const struct hb_lm_budget *b)
{
    hb_text_add(&r->t, "Perplexities compared length by length (lower is better), with the 95 %% t "
                       "interval of the difference over seeds; a model with one seed is taken to "
                       "scatter like the other:\n\n");
    versus(r, b, "Attention (A) against Hyena (H)", "A", "H", NULL);
    versus(r, b, "The short convolution alone (S) against Hyena (H)", "S", "H",
           "Hyena contains that short convolution: where S is not worse, this budget shows no "
           "gain from Hyena's long filter over it, and A against H is no evidence about long "
           "convolutions.");
    versus(r, b, "Attention with the short convolution (C) against Hyena (H)", "C", "H",
           "Both have the short convolution there: where C is not worse, a lead of H over A "
           "needs no long filter to explain it.");
    versus(r, b, "Attention with the short convolution (C) against attention without (A)", "C", "A",
           NULL);
    versus(r, b, "No mixer at all (N) against Hyena (H)", "N", "H", NULL);
    hb_text_add(&r->t, "\n");
}

static double setting(const json_t *e, const char *key)
{
    return json_number_value(json_object_get(json_object_get(e, "hb_config"), key));
}

// What the networks have in common, from the configuration in a run's record.
static void recipe_line(struct hb_report *r, const json_t *e)
{
    if (!json_is_object(json_object_get(e, "hb_config"))) return;
    hb_text_add(&r->t, "AdamW, betas %g and %g, weight decay %g on all but the implicit filter; "
                       "gradients clipped to norm %g; warm-up over %s of the steps, then a half "
                       "cosine to %g of the rate; no dropout. Hyena of order %g, %g positional "
                       "features, filter width %g, sine frequency %g. First values are those of "
                       "the published language model.\n\n",
                setting(e, "beta1"), setting(e, "beta2"), setting(e, "weight_decay"),
                setting(e, "clip"), hb_str_pct(setting(e, "warmup")).s, setting(e, "lr_final"),
                setting(e, "order"), setting(e, "emb_dim"), setting(e, "filter_width"),
                setting(e, "w"));
}

static void budget_line(struct hb_report *r, const struct hb_lm_budget *b)
{
    const struct hb_lm_run *one = NULL;
    struct hb_range lr = {INFINITY, -INFINITY};
    for (size_t i = 0; i < r->st->lm.n; i++) {
        if (!hb_lm_in(&r->st->lm.run[i], b)) continue;
        if (!one) one = &r->st->lm.run[i];
        hb_range_add(&lr, r->st->lm.run[i].lr);
    }
    const json_t *e = one->cell->entry, *layers = json_object_get(e, "hb_layers");
    hb_text_add(&r->t, "Data set `%s`, %s training tokens in %lld steps, D = %lld, ", b->dataset,
                hb_str_len(one->train_tokens).s, (long long)b->steps, (long long)one->D);
    if (hb_on_gpu(b->device)) hb_text_add(&r->t, "%s with float32 master weights, ", b->dtype);
    if (json_is_integer(layers))
        hb_text_add(&r->t, "%lld layer%s, ", (long long)json_integer_value(layers),
                    json_integer_value(layers) == 1 ? "" : "s");
    if (lr.hi > lr.lo) hb_text_add(&r->t, "learning rates %g to %g", lr.lo, lr.hi);
    else hb_text_add(&r->t, "learning rate %g for every model", one->lr);
    if (!hb_on_gpu(b->device))
        hb_text_add(&r->t, " (`bench/lm/suites/lr.json` is the grid, the same for A and H, that "
                           "the suites' rates come from)");
    hb_text_add(&r->t, "; perplexity per token on the first %s tokens of the test split",
                hb_str_len(one->eval_tokens).s);
    if (json_integer_value(json_object_get(e, "hb_vocab")) == 256)
        hb_text_add(&r->t, "; a token is a byte, so these are not perplexities of words or word "
                           "pieces");
    hb_text_add(&r->t, ". The text is cut into windows of L: every length scores the same tokens, "
                       "each given what stands before it in its window; counts look across the "
                       "cuts.\n\n");
    recipe_line(r, e);
}

// --- longer runs ---------------------------------------------------------------------------------

enum { MAX_TESTS = 4 };

// On a GPU, apart from the comparison over lengths: larger models, word pieces.
static bool is_longer(const struct hb_lm_run *run, const char *machine,
                      const struct hb_lm_budget *b)
{
    struct hb_lm_scored one;
    return run->ok && !strcmp(run->machine, machine) && hb_on_gpu(run->device) &&
           !hb_lm_ngram(run) && !hb_lm_in(run, b) && strcmp(run->purpose, "equality") &&
           strcmp(run->purpose, "speed") && strcmp(run->purpose, "bar") &&
           strcmp(run->tokenizer, "bytes") && hb_lm_scored_at(run, 0, &one);
}

static void longer_row(struct hb_table *t, const struct hb_lm_run *run, size_t tests)
{
    hb_table_cell(t, "%s: `%s`", run->model, hb_lm_run_mixer(run));
    hb_table_cell(t, "%s", hb_str_len((double)run->params).s);
    hb_table_cell(t, "%lld", (long long)run->L);
    hb_table_cell(t, "%s%s", hb_str_len(run->train_tokens).s,
                  run->stopped_early ? " (its time was over)" : "");
    hb_table_cell(t, "%s", hb_str_time(run->seconds * 1e9).s);
    hb_table_cell(t, "%s", per_second(run->tokens_per_s).s);
    hb_table_cell(t, "%s", hb_str_bytes(run->peak_bytes).s);
    for (size_t k = 0; k < tests; k++) {
        struct hb_lm_scored s;
        if (!hb_lm_scored_at(run, k, &s)) {
            hb_table_cell(t, "-");
            hb_table_cell(t, "-");
            continue;
        }
        hb_table_cell(t, "%s", hb_str_num(exp(s.nats)).s);
        if (s.bytes > 0) hb_table_cell(t, "%.4f", s.nats * s.tokens / s.bytes / log(2));
        else hb_table_cell(t, "-");
    }
}

static void longer_runs(struct hb_report *r, const char *machine, const struct hb_lm_budget *b)
{
    const struct hb_lm_set *s = &r->st->lm;
    const struct hb_lm_run *one = NULL;
    struct hb_lm_scored test[MAX_TESTS];
    struct hb_text head = {0};
    struct hb_table t = {0};
    size_t tests = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (!is_longer(&s->run[i], machine, b)) continue;
        size_t k = 0;
        while (k < MAX_TESTS && hb_lm_scored_at(&s->run[i], k, &test[k])) k++;
        if (k > tests) {
            tests = k;
            one = &s->run[i];
        }
    }
    if (!one) return;
    hb_text_add(&r->t, "**Larger models, longer training.** Trained on `%s` alone, tokens of "
                       "`%s`, D = %lld. Tested, after training and with nothing learnt from either "
                       "test set, on", one->dataset, one->tokenizer, (long long)one->D);
    hb_text_add(&head, "model|>parameters|>L|>tokens trained|>time|>tokens/s|>peak memory");
    for (size_t k = 0; k < tests; k++) {
        hb_lm_scored_at(one, k, &test[k]);
        hb_text_add(&r->t, "%s %s tokens of `%s` (%s)", k ? "; on" : "",
                    hb_str_len(test[k].tokens).s, test[k].name,
                    k ? "its test split; the model was not trained on its training split"
                      : "held-out articles of the training text's own source");
        hb_text_add(&head, "|>perplexity, %s|>bits per byte, %s", test[k].name, test[k].name);
    }
    hb_text_add(&r->t, ". WikiText's articles and the encyclopedia's come from one source, so some "
                       "of its test articles may stand in the training text. Perplexity is per "
                       "token; bits per byte compare across tokenizers. Runs on equal tokens "
                       "compare what is learnt from a text, the run whose time was over what a "
                       "time buys:\n\n");
    hb_table_head(&t, head.s ? head.s : "");
    for (size_t i = 0; i < s->n; i++)
        if (is_longer(&s->run[i], machine, b)) longer_row(&t, &s->run[i], tests);
    hb_table_print(&t, &r->t);
    hb_text_add(&r->t, "\n");
    r->t.failed = r->t.failed || head.failed;
    hb_text_free(&head);
}

// --- the section ---------------------------------------------------------------------------------

void hb_report_perplexity(struct hb_report *r)
{
    hb_text_add(&r->t,
                "## Perplexity\n\n"
                "Small language models, equal token budget: B·L is constant, so the number of "
                "steps is, too. Budgets this small show early learning speed; they say little "
                "about the quality of a fully trained model. The controls say what a number is "
                "worth: no mixer at all (N), Hyena's short convolution and gates without its long "
                "one (S), attention with the short convolution that Hyena has (C), and bigram and "
                "trigram counts of the whole training split (the networks read only their budget "
                "of it). Positions say how A knows where a token stands: `rotary` turns queries "
                "and keys, `learned` adds a table; H has neither, its filters are functions of "
                "the distance.\n\n");
    for (size_t m = 0; m < r->st->n_machines; m++) {
        const char *machine = r->st->machine[m];
        struct hb_lm_budget b = {.machine = machine, .dataset = "", .device = "", .dtype = "",
                                 .tokenizer = ""};
        hb_report_subhead(r, machine);
        if (!hb_lm_main(&r->st->lm, machine, &b)) {
            hb_text_add(&r->t, "No training runs over lengths yet: `hyena-bench train --suite` "
                               "makes them.\n\n");
            longer_runs(r, machine, &b);
            if (hb_report_has_gpu(r, machine)) hb_report_lm_checks(r, machine);
            continue;
        }
        budget_line(r, &b);
        seeds_table(r, &b);
        comparisons(r, &b);
        hb_report_figure(r, "perplexity", machine);
        hb_report_figure(r, "loss_tokens", machine);
        hb_report_figure(r, "loss_seconds", machine);
        hb_report_figure(r, "pareto", machine);
        longer_runs(r, machine, &b);
        hb_report_lm_checks(r, machine);
    }
}
