// test_lm.c: the language model: parameter counts, gradients, repeatability, exchange of parts.
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "../bench/cli.h"
#include "../bench/lm/checkpoint.h"
#include "../bench/lm/data.h"
#include "../bench/lm/model.h"
#include "../impls/core/rng.h"
#include "tests.h"

static struct hb_lm_config config(const char *const *words)
{
    struct hb_lm_config c;
    hb_lm_config_default(&c);
    for (; *words; words++)
        cr_assert_eq(hb_lm_config_word(&c, *words), HB_OK, "%s: %s", *words, hb_error());
    cr_assert_eq(hb_lm_config_finish(&c), HB_OK, "%s", hb_error());
    return c;
}
#define CONFIG(...) config((const char *const[]){__VA_ARGS__, NULL})

static int64_t count(struct hb_lm_config c, int64_t V)
{
    struct hb_lm_table t;
    cr_assert_eq(hb_lm_table_make(&c, V, &t), HB_OK, "%s", hb_error());
    int64_t n = t.params;
    hb_lm_table_free(&t);
    return n;
}

// The exact integers of the specification's section 7 (positional table constant, or trained).
Test(lm, parameter_counts)
{
    start();
    static const struct {
        const char *D, *layers, *ffn, *order, *E, *W, *lmax;
        int64_t V, constant, trained;
    } rows[] = {
        {"864", "18", "1728", "2", "33", "64", "2048", 50264, 152483904, 153700416},
        {"1024", "36", "2048", "2", "33", "64", "2048", 50264, 357086464, 359519488},
        {"2048", "36", "4096", "2", "33", "64", "2048", 50264, 1317772544, 1320205568},
        {"768", "12", "3072", "3", "33", "64", "1024", 50264, 132218112, 132623616},
        {"768", "18", "1536", "3", "33", "64", "1024", 50264, 136530048, 137138304},
        {"64", "2", "256", "2", "5", "64", "128", 30, 129408, 0},
        {"64", "2", "256", "2", "5", "32", "128", 30, 112448, 0},
        {"128", "2", "512", "2", "5", "64", "1024", 16, 436096, 0},
        {"256", "2", "1024", "2", "5", "64", "1024", 16, 1641088, 0},
        {"128", "4", "512", "2", "5", "64", "1024", 16, 869888, 0},
        {"256", "4", "1024", "2", "5", "64", "1024", 16, 3277568, 0},
        {"256", "8", "1024", "2", "5", "64", "1024", 16, 6550528, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int z = 0; z < 2; z++) {
            int64_t want = z ? rows[i].trained : rows[i].constant;
            if (!want)
                continue;
            char w[9][64];
            snprintf(w[0], 64, "D=%s", rows[i].D);
            snprintf(w[1], 64, "layers=%s", rows[i].layers);
            snprintf(w[2], 64, "ffn=%s", rows[i].ffn);
            snprintf(w[3], 64, "order=%s", rows[i].order);
            snprintf(w[4], 64, "emb_dim=%s", rows[i].E);
            snprintf(w[5], 64, "filter_width=%s", rows[i].W);
            snprintf(w[6], 64, "L=%s", rows[i].lmax);
            snprintf(w[7], 64, "batch_tokens=%s", rows[i].lmax);
            snprintf(w[8], 64, "train_z=%s", z ? "true" : "false");
            struct hb_lm_config c = CONFIG("pattern=H", w[0], w[1], w[2], w[3], w[4], w[5], w[6],
                                           w[7], w[8]);
            cr_expect_eq(count(c, rows[i].V), want, "row %zu: %lld, specification %lld", i,
                         (long long)count(c, rows[i].V), (long long)want);
        }
    struct hb_lm_config gpt = CONFIG("pattern=A", "positions=learned", "D=768", "layers=12",
                                     "heads=12", "ffn=3072", "L=1024", "batch_tokens=1024");
    cr_expect_eq(count(gpt, 50257), 124439808, "GPT 125M: %lld", (long long)count(gpt, 50257));
}

enum { V = 11, L = 24, BATCH = 2 };

static void tokens(int32_t *in, int32_t *target)
{
    for (int i = 0; i < BATCH * L; i++) {
        in[i] = (int32_t)hb_rng_below(3, 1, (uint64_t)i, V);
        target[i] = i % 7 == 3 ? -1 : (int32_t)hb_rng_below(3, 2, (uint64_t)i, V);
    }
}

// Directional derivative over all parameters against a central difference of the float32 loss.
// Step 1e-2 along a unit direction scaled by 1: the difference carries rounding of about
// 1e-7 / 2e-2 and curvature of about 1e-4.
static void gradient(const char *pattern, const char *more)
{
    struct hb_lm_config c = CONFIG(pattern, more, "D=16", "layers=2", "heads=2", "L=24",
                                   "batch_tokens=48", "emb_dim=5", "filter_width=8",
                                   "positions=auto", "eval_tokens=48", "valid_tokens=48");
    struct hb_lm *m;
    cr_assert_eq(hb_lm_create(&c, V, &m, NULL), HB_OK, "%s", hb_error());
    int64_t n = hb_lm_table_of(m)->floats;
    int32_t in[BATCH * L], target[BATCH * L];
    tokens(in, target);
    float *w = hb_lm_params(m), *keep = malloc((size_t)n * sizeof *keep);
    cr_assert(keep);
    // larger weights than the initial ones, so that every gradient is well above rounding
    for (int64_t i = 0; i < n; i++)
        w[i] += (float)(0.05 * hb_rng_normal(8, 1, (uint64_t)i));
    memcpy(keep, w, (size_t)n * sizeof *keep);
    for (uint64_t trial = 0; trial < 4; trial++) {
        double nll, expect = 0, norm = 0, loss[2];
        cr_assert_eq(hb_lm_gradient(m, in, target, &nll), HB_OK);
        const float *g = hb_lm_grads(m);
        for (int64_t i = 0; i < n; i++) {        // along the gradient plus noise: the loss moves
            expect += g[i] * (g[i] + 0.02 * hb_rng_normal(9, trial, (uint64_t)i));
            norm += pow(g[i] + 0.02 * hb_rng_normal(9, trial, (uint64_t)i), 2);
        }
        norm = sqrt(norm);
        float *dir = malloc((size_t)n * sizeof *dir);
        cr_assert(dir);
        for (int64_t i = 0; i < n; i++)
            dir[i] = (float)((g[i] + 0.02 * hb_rng_normal(9, trial, (uint64_t)i)) / norm);
        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < n; i++)
                w[i] = keep[i] + (side ? 1e-2f : -1e-2f) * dir[i];
            cr_assert_eq(hb_lm_loss(m, in, target, &loss[side], NULL), HB_OK);
        }
        double got = (loss[1] - loss[0]) / 2e-2, want = expect / norm;
        cr_expect(fabs(got - want) <= 3e-3 * fabs(want), "%s: difference %.8g, gradient %.8g",
                  pattern, got, want);
        memcpy(w, keep, (size_t)n * sizeof *keep);
        free(dir);
    }
    free(keep);
    hb_lm_destroy(m);
}

Test(lm, gradients, .timeout = 120)
{
    start();
    gradient("pattern=H", "longconv=longconv_direct");
    gradient("pattern=A", "attention=attention_naive");
    gradient("pattern=S", "order=2");
    gradient("pattern=C", "attention=attention_flash");
    gradient("pattern=N", "order=2");
    gradient("pattern=HA", "order=3");
}

// Losses of `steps` updates on fixed random tokens.
static void losses(struct hb_lm_config c, int steps, double *out)
{
    struct hb_lm *m;
    cr_assert_eq(hb_lm_create(&c, V, &m, NULL), HB_OK, "%s", hb_error());
    int32_t in[BATCH * L], target[BATCH * L];
    tokens(in, target);
    for (int s = 0; s < steps; s++) {
        cr_assert_eq(hb_lm_gradient(m, in, target, &out[s]), HB_OK);
        cr_assert_eq(hb_lm_update(m, hb_lm_rate(&c, s), s + 1, NULL), HB_OK);
    }
    hb_lm_destroy(m);
}

Test(lm, same_seed_same_losses_and_implementations_agree, .timeout = 120)
{
    start();
    enum { STEPS = 50 };
    double first[STEPS], again[STEPS], other[STEPS];
    static const struct { const char *pattern, *impl[3]; } ops[] = {
        {"pattern=H",
         {"longconv=longconv_fftw", "longconv=longconv_direct", "longconv=longconv_fftw_plain"}},
        {"pattern=A",
         {"attention=attention_flash", "attention=attention_naive", "attention=attention_naive"}}};
    for (int k = 0; k < 2; k++) {
#define CASE(i) CONFIG(ops[k].pattern, ops[k].impl[i], "D=32", "layers=2", "heads=2", "L=24", \
                       "batch_tokens=48", "tokens=2400", "lr=0.0006", "planning=estimate", \
                       "eval_tokens=48", "valid_tokens=48")
        losses(CASE(0), STEPS, first);
        losses(CASE(0), STEPS, again);
        for (int s = 0; s < STEPS; s++)
            cr_expect(first[s] == again[s], "%s step %d: %.17g then %.17g", ops[k].impl[0], s,
                      first[s], again[s]);
        for (int i = 1; i < 3; i++) {
            losses(CASE(i), STEPS, other);
            for (int s = 0; s < STEPS; s++)
                cr_expect(fabs(first[s] - other[s]) <= 1e-4, "%s step %d: %.8g, %s: %.8g",
                          ops[k].impl[0], s, first[s], ops[k].impl[i], other[s]);
        }
        cr_expect(first[STEPS - 1] < first[0] - 0.1, "%s learns: %.4f to %.4f", ops[k].impl[0],
                  first[0], first[STEPS - 1]);
    }
}

Test(lm, learning_rate)
{
    struct hb_lm_config c;
    hb_lm_config_default(&c);
    c.lr = 1, c.warmup = 0.1, c.lr_final = 0.1;
    int64_t steps = hb_lm_steps(&c);
    for (int64_t s = 1; s < steps; s++)
        cr_assert(hb_lm_rate(&c, s) > 0 && hb_lm_rate(&c, s) <= 1);
    cr_expect(fabs(hb_lm_rate(&c, steps - 1) - 0.1) < 0.02, "%g", hb_lm_rate(&c, steps - 1));
}

// --- what is read and scored ---------------------------------------------------------------------

enum { HELD = 768 };         // 48 windows of 16, 16 of 48, 8 of 96

// The scored targets of the test split in the order of the windows, and what was read before each.
static int held_out(struct hb_lm_config c, int32_t *before, int32_t *target, double *floor_nats)
{
    struct hb_lm_data d;
    int32_t in[480], to[480];
    int n = 0;
    cr_assert_eq(c.batch_tokens, 480);
    cr_assert_eq(hb_lm_data_open(&c, &d), HB_OK, "%s", hb_error());
    for (int64_t i = 0; i < hb_lm_data_held_batches(&d, &c, HB_SPLIT_TEST); i++) {
        hb_lm_data_held(&d, &c, HB_SPLIT_TEST, i, in, to);
        for (int k = 0; k < 480; k++) {
            if (to[k] < 0)
                continue;
            cr_assert(n < HELD);
            before[n] = in[k];
            target[n++] = to[k];
        }
    }
    cr_expect_eq(n, hb_lm_data_held_tokens(&d, &c, HB_SPLIT_TEST));
    for (int k = 0; k < n; k++)              // the counts' and the floor's tokens: 1..HELD
        cr_assert(target[k] == d.split[HB_SPLIT_TEST].tok[k + 1] &&
                  before[k] == d.split[HB_SPLIT_TEST].tok[k], "token %d", k);
    *floor_nats = d.floor_nll;
    hb_lm_data_close(&d);
    return n;
}

#define MARKOV(...) CONFIG("data=markov", "batch_tokens=480", "tokens=4800", "eval_tokens=768", \
                           "valid_tokens=768", __VA_ARGS__)

Test(lm, every_length_scores_the_same_tokens)
{
    start();
    static int32_t before[3][HELD], target[3][HELD];
    double floor_nats[3];
    cr_expect_eq(held_out(MARKOV("L=16"), before[0], target[0], &floor_nats[0]), HELD);
    cr_expect_eq(held_out(MARKOV("L=48"), before[1], target[1], &floor_nats[1]), HELD);
    cr_expect_eq(held_out(MARKOV("L=96", "pattern=A"), before[2], target[2], &floor_nats[2]), HELD);
    for (int k = 1; k < 3; k++) {
        cr_expect_arr_eq(target[k], target[0], sizeof target[0]);
        cr_expect_arr_eq(before[k], before[0], sizeof before[0]);
        cr_expect(floor_nats[k] == floor_nats[0]);
    }
}

static void batch(struct hb_lm_config c, int64_t step, int32_t *in, int32_t *target)
{
    struct hb_lm_data d;
    cr_assert_eq(hb_lm_data_open(&c, &d), HB_OK, "%s", hb_error());
    hb_lm_data_train(&d, &c, step, in, target);
    hb_lm_data_close(&d);
}

Test(lm, batches_depend_on_the_data_seed_alone)
{
    start();
    int32_t in[4][480], target[480];
    batch(MARKOV("L=48", "seed=2"), 7, in[0], target);
    batch(MARKOV("L=48", "seed=2", "pattern=A", "attention=attention_naive"), 7, in[1], target);
    batch(MARKOV("L=48", "seed=3", "data_seed=2", "longconv=longconv_direct"), 7, in[2], target);
    batch(MARKOV("L=48", "seed=3"), 7, in[3], target);
    cr_expect_arr_eq(in[1], in[0], sizeof in[0]);
    cr_expect_arr_eq(in[2], in[0], sizeof in[0]);
    cr_expect(memcmp(in[3], in[0], sizeof in[0]), "another seed, another order");
}

// A record's name is its key: no two trainings share one.
Test(lm, names_differ)
{
    char usual[HB_LM_NAME], name[HB_LM_NAME];
    struct hb_lm_config c = CONFIG("D=128", "heads=2", "ffn=512", "data_seed=1");
    hb_lm_name(&c, usual, sizeof usual);
    cr_expect(!strstr(usual, "heads") && !strstr(usual, "ffn") && !strstr(usual, "data_seed"),
              "defaults are not spelled out: %s", usual);
    static const char *const words[] = {"positions=learned", "heads=4", "ffn=256", "data_seed=9",
                                        "w=1", "window=false", "beta2=0.999", "train_z=true"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        c = CONFIG("D=128", words[i]);
        hb_lm_name(&c, name, sizeof name);
        cr_expect(strcmp(name, usual), "%s: %s", words[i], name);
    }
}

// --- parts of a batch, checkpoints, devices ------------------------------------------------------

// Gradients over parts are those of the whole: the same sums in another order.
Test(lm, parts_of_a_batch_add_up)
{
    start();
    int32_t in[BATCH * L], target[BATCH * L];
    tokens(in, target);
    static const char *const mixers[] = {"pattern=H", "pattern=A"};
    for (int k = 0; k < 2; k++) {
#define PART(n) CONFIG(mixers[k], "D=16", "layers=2", "heads=2", "L=24", "batch_tokens=48", n, \
                       "planning=estimate", "eval_tokens=48", "valid_tokens=48")
        struct hb_lm_config c[2] = {PART("micro_batch_tokens=0"), PART("micro_batch_tokens=24")};
        struct hb_lm *m[2];
        double nll[2], held[2], off = 0, size = 0;
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(hb_lm_create(&c[i], V, &m[i], NULL), HB_OK, "%s", hb_error());
            cr_assert_eq(hb_lm_loss(m[i], in, target, &held[i], NULL), HB_OK);
            cr_assert_eq(hb_lm_gradient(m[i], in, target, &nll[i]), HB_OK);
        }
        const int64_t n = hb_lm_table_of(m[0])->floats;
        for (int64_t i = 0; i < n; i++) {
            const double g = hb_lm_grads(m[0])[i], d = hb_lm_grads(m[1])[i] - g;
            off += d * d;
            size += g * g;
        }
        cr_expect(fabs(nll[0] - nll[1]) <= 1e-6 && fabs(nll[0] - held[1]) <= 1e-6, "%g %g %g",
                  nll[0], nll[1], held[1]);
        cr_expect(sqrt(off) <= 2e-6 * sqrt(size), "%s: relative difference %g", mixers[k],
                  sqrt(off / size));
        hb_lm_destroy(m[0]);
        hb_lm_destroy(m[1]);
    }
}

static void train(const struct hb_lm_config *c, const struct hb_lm_opts *o, struct hb_lm_result *r)
{
    cr_assert_eq(hb_lm_train(c, o, r), HB_OK, "%s", hb_error());
}

// The first `n` steps, and a checkpoint of them.
static void first_steps(const struct hb_lm_config *c, const char *path, int64_t n)
{
    struct hb_lm_data d;
    struct hb_lm *m;
    int32_t in[480], target[480];
    double loss[64], ns[64] = {0};
    cr_assert_eq(hb_lm_data_open(c, &d), HB_OK, "%s", hb_error());
    cr_assert_eq(hb_lm_create(c, d.rows, &m, NULL), HB_OK, "%s", hb_error());
    for (int64_t s = 0; s < n; s++) {
        hb_lm_data_train(&d, c, s, in, target);
        cr_assert_eq(hb_lm_gradient(m, in, target, &loss[s]), HB_OK);
        cr_assert_eq(hb_lm_update(m, hb_lm_rate(c, s), s + 1, NULL), HB_OK);
    }
    struct hb_lm_result r = {.steps = hb_lm_steps(c), .loss = loss, .step_ns = ns};
    memcpy(r.sha256, d.sha256, sizeof r.sha256);
    cr_assert_eq(hb_lm_checkpoint_write(path, c, m, &r, n), HB_OK, "%s", hb_error());
    hb_lm_destroy(m);
    hb_lm_data_close(&d);
}

Test(lm, a_resumed_run_is_the_same_run, .timeout = 120)
{
    start();
    enum { STEPS = 50 };
    char path[64];
    snprintf(path, sizeof path, "/tmp/hb-checkpoint-%d.safetensors", (int)getpid());
#define RUN(...) MARKOV("L=48", "tokens=24000", "D=16", "layers=2", "heads=2", "emb_dim=5", \
                        "filter_width=8", "evals=0", "planning=estimate", __VA_ARGS__)
    static const char *const mixers[] = {"pattern=H", "pattern=A"};
    for (int k = 0; k < 2; k++) {
        struct hb_lm_config c = RUN(mixers[k]), other = RUN(mixers[k], "lr=0.001");
        const struct hb_lm_opts whole = {.quiet = true},
                                rest = {.quiet = true, .resume_from = path};
        struct hb_lm_result a, b;
        cr_assert_eq(hb_lm_steps(&c), STEPS);
        train(&c, &whole, &a);
        first_steps(&c, path, STEPS / 2);
        train(&c, &rest, &b);
        cr_expect(b.resumed_at == STEPS / 2 && b.steps == STEPS);
        cr_expect_arr_eq(b.loss, a.loss, STEPS * sizeof *a.loss);
        cr_expect(b.test_nats == a.test_nats, "%.17g, %.17g", b.test_nats, a.test_nats);
        hb_lm_result_free(&a);
        hb_lm_result_free(&b);
        cr_expect_eq(hb_lm_train(&other, &rest, &b), HB_ERR_INPUT);
        cr_expect(strstr(hb_error(), "trained with lr 0.004, this run has 0.001"), "%s",
                  hb_error());
        hb_error_clear();
    }
    unlink(path);
}

// A budget of (nearly) no time: one step, evaluated all the same.
Test(lm, out_of_time)
{
    start();
    struct hb_lm_config c = RUN("pattern=N", "minutes=1e-9", "evals=3");
    struct hb_lm_result r;
    train(&c, &(struct hb_lm_opts){.quiet = true}, &r);
    cr_expect(r.steps == 1 && r.planned_steps == 50 && r.n_eval == 2 && r.eval[1].step == 1);
    cr_expect(isfinite(r.test_nats) && r.train_tokens == 480);
    hb_lm_result_free(&r);
}

// SIGINT as soon as a step was made.
static struct hb_lm_result half;
static void on_alarm(int sig)
{
    (void)sig;
    if (half.train_s > 0 && !hb_interrupted())
        raise(SIGINT);
}

// An interrupted run keeps its losses and times, and is no whole one.
Test(lm, interrupted)
{
    start();
    struct hb_lm_config c = RUN("pattern=N", "evals=3", "tokens=480000000");
    const struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    hb_signals_install();
    signal(SIGALRM, on_alarm);
    cr_assert_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
    train(&c, &(struct hb_lm_opts){.quiet = true}, &half);
    setitimer(ITIMER_REAL, &never, NULL);
    cr_assert(half.interrupted && half.steps >= 1 && half.steps < half.planned_steps);
    cr_expect(half.n_test == 0 && half.train_tokens == 480 * half.steps);
    json_t *e = hb_lm_cut(&c, &half, "so far");
    cr_assert(e, "%s", hb_error());
    cr_expect_str_eq(json_string_value(json_object_get(e, "status")), "interrupted");
    cr_expect_eq(json_integer_value(json_object_get(e, "hb_steps")), half.steps);
    const json_t *curve = json_object_get(e, "hb_curve");
    cr_expect(json_array_size(json_object_get(curve, "loss_nats")) >= 1);
    cr_expect_null(json_object_get(e, "hb_nll_nats"));
    json_decref(e);
    hb_lm_result_free(&half);
}

Test(lm, the_device_follows_the_implementations)
{
    start();
    struct hb_lm_config c = CONFIG("pattern=A");
    cr_expect_str_eq(c.device, "cpu0");
    cr_expect_str_eq(c.attention, "attention_flash");
    c = CONFIG("pattern=AH", "layers=2", "longconv=longconv_cufft_cuda", "dtype=bf16");
    cr_expect_str_eq(c.device, "cuda0");
    cr_expect_str_eq(c.attention, "attention_cudnn_cuda");
    c = CONFIG("pattern=N", "device=cuda0");
    cr_expect_str_eq(c.longconv, "longconv_cufft_cuda");
    static const char *const wrong[][2] = {
        {"device=cpu0", "longconv=longconv_cufft_cuda"}, {"device=gpu", "L=256"},
        {"dtype=f64", "L=256"},                          {"dtype=half", "L=256"},
        {"tokenizer=gpt2", "data=ecoli"},                {"test_data=wikitext-2,nothing", "L=256"},
        {"test_data=ecoli", "L=256"},                    {"micro_batch_tokens=1000", "L=256"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        hb_lm_config_default(&c);
        for (int k = 0; k < 2; k++)
            cr_assert_eq(hb_lm_config_word(&c, wrong[i][k]), HB_OK, "%s", hb_error());
        cr_expect_eq(hb_lm_config_finish(&c), HB_ERR_INPUT, "%s %s", wrong[i][0], wrong[i][1]);
        hb_error_clear();
    }
    c = CONFIG("pattern=N", "dtype=bf16");                  // the CPU computes in float32
    struct hb_lm *m;
    cr_expect_eq(hb_lm_create(&c, V, &m, NULL), HB_ERR_REFUSED);
}
