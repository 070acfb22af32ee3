// train.c: the command `train`: one language model, or a suite of them.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../child.h"
#include "../cli.h"
#include "../commands.h"
#include "../record.h"
#include "data.h"
#include "loop.h"
#include "suite.h"
#include "tensors.h"

enum { MAX_WORDS = 256 };

struct args {
    bool suite, resume, dry_run, child;
    const char *out, *checkpoint, *resume_from;
    int64_t checkpoint_every;
    double budget_s;
    int64_t mem_limit;
    const char *pos[MAX_WORDS]; int n_pos;
};

static int parse(int argc, char **argv, struct args *a)
{
    const struct hb_opt opts[] = {
        {"suite", HB_OPT_FLAG, &a->suite, NULL,
         "CONFIG is a list of runs; each gets a process of its own", 0, 0},
        {"out", HB_OPT_STR, &a->out, "FILE",
         "write the record of one run here (default: a run under build/results)", 0, 0},
        {"budget-s", HB_OPT_DOUBLE, &a->budget_s, "S", "suite: stop after S seconds, drop the rest",
         1, 1e9},
        {"resume", HB_OPT_FLAG, &a->resume, NULL,
         "suite: continue the newest unfinished run of this suite", 0, 0},
        {"checkpoint", HB_OPT_STR, &a->checkpoint, "FILE",
         "one run: keep parameters and optimiser here, at its end and when interrupted", 0, 0},
        {"checkpoint-every", HB_OPT_INT, &a->checkpoint_every, "STEPS",
         "and after every so many steps", 1, 1e12},
        {"resume-from", HB_OPT_STR, &a->resume_from, "FILE",
         "one run: go on from a checkpoint of the same configuration", 0, 0},
        {"dry-run", HB_OPT_FLAG, &a->dry_run, NULL, "print what would be trained", 0, 0},
        {"mem-limit", HB_OPT_SIZE, &a->mem_limit, "BYTES",
         "limit of the allocator (default: 70 % of what is there)", 1, 1e15},
        {"child", HB_OPT_FLAG, &a->child, NULL, "used by the program itself", 0, 0},
    };
    const struct hb_cli cli = {
        .command = "train", .args = "CONFIG.json [key=value ...]",
        .about = "Trains a language model and records its losses, perplexity, time and memory.",
        .example = "hyena-bench train bench/lm/configs/tiny.json pattern=H L=512\n"
                   "hyena-bench train CONFIG.json --checkpoint a.st --resume-from a.st\n"
                   "hyena-bench train --suite bench/lm/suites/quick.json --budget-s 270 --resume",
        .opts = opts, .n_opts = sizeof opts / sizeof *opts, .min_pos = 0, .max_pos = MAX_WORDS,
    };
    int rc = hb_cli_parse(&cli, argc, argv, a->pos, &a->n_pos);
    if (rc)
        return rc;
    if (!a->child && a->n_pos == 0)
        return hb_fail(HB_ERR_INPUT, "no CONFIG.json named; --help has an example");
    if (a->suite && a->out)
        return hb_fail(HB_ERR_INPUT,
                       "--out names the record of one run; a suite writes under build/results");
    if (a->suite && (a->checkpoint || a->resume_from))
        return hb_fail(HB_ERR_INPUT, "--%s is for one run; a suite goes on with --resume",
                       a->checkpoint ? "checkpoint" : "resume-from");
    if (a->checkpoint_every && !a->checkpoint)
        return hb_fail(HB_ERR_INPUT, "--checkpoint-every needs --checkpoint FILE");
    if (!a->suite && (a->resume || a->budget_s > 0))
        return hb_fail(HB_ERR_INPUT, "--%s is for --suite", a->resume ? "resume" : "budget-s");
    return 0;
}

// --- one run in a child --------------------------------------------------------------------------

static int reply(const char *status, json_t *entry)
{
    json_t *doc =
        json_pack("{s:s,s:s,s:o*}", "status", status, "detail", hb_error(), "entry", entry);
    if (!doc)
        return hb_fail(HB_ERR_OOM, "no memory for the reply");
    int rc = hb_child_reply(doc);
    json_decref(doc);
    return rc;
}

static int child(void)
{
    json_error_t e;
    json_t *request = json_loadf(stdin, JSON_REJECT_DUPLICATES, &e), *config;
    json_int_t mem = 0;
    struct hb_lm_config c;
    struct hb_lm_result r;
    if (!request)
        return hb_fail(HB_ERR_INPUT, "request:%d:%d: %s", e.line, e.column, e.text);
    hb_lm_config_default(&c);
    int rc =
        json_unpack_ex(request, &e, JSON_STRICT, "{s:o,s:I}", "config", &config, "mem_bytes", &mem)
            ? hb_fail(HB_ERR_INPUT, "request: %s", e.text)
            : hb_lm_config_json(&c, config, "request");
    json_decref(request);
    if (!rc)
        rc = hb_host_init((int)c.threads, (size_t)mem);
    if (!rc)
        rc = hb_registry_load();
    if (!rc)
        rc = hb_lm_config_finish(&c);
    if (!rc)
        rc = hb_lm_train(&c, &(struct hb_lm_opts){.quiet = true}, &r);
    if (!rc && r.interrupted) {                              // the suite makes it again
        hb_lm_result_free(&r);
        rc = hb_fail(HB_ERR_RUN, "interrupted");
    }
    if (rc == HB_ERR_OOM || rc == HB_ERR_REFUSED)
        return reply(rc == HB_ERR_OOM ? "oom" : "refused", NULL);
    if (rc)
        return rc;
    json_t *entry = hb_lm_entry(&c, &r);
    hb_lm_result_free(&r);
    return entry ? reply("ok", entry) : HB_ERR_OOM;
}

// --- one run here --------------------------------------------------------------------------------

static int save_out(const char *path, json_t *doc)
{
    json_t *context = hb_context_json();
    if (!context || json_object_set_new(doc, "context", context) < 0)
        return hb_fail(HB_ERR_OOM, "no memory for the record");
    return hb_json_save(path, doc);
}

static int save_run(const struct hb_lm_config *c, json_t *doc)
{
    char name[HB_LM_NAME], file[4096];
    struct hb_run *run = NULL;
    json_t *plan = json_pack("{s:s}", "kind", "train");
    hb_lm_name(c, name, sizeof name);
    int rc =
        plan ? hb_run_open(NULL, false, plan, &run) : hb_fail(HB_ERR_OOM, "no memory for the plan");
    if (!rc)
        rc = hb_run_add(run, name, doc);
    if (!rc)
        rc = hb_run_assemble(run, file);
    if (!rc)
        printf("%s\n", file);
    if (run)
        hb_run_close(run);
    json_decref(plan);
    return rc;
}

static int record(const struct hb_lm_config *c, const char *out, const char *list, json_t *entry)
{
    json_t *doc =
        entry ? json_pack("{s:[],s:[],s:[]}", "benchmarks", "hb_skips", "hb_pairs") : NULL;
    if (!doc || json_array_append_new(json_object_get(doc, list), entry) < 0) {
        json_decref(doc);
        return hb_fail(HB_ERR_OOM, "no memory for the record");
    }
    int rc = out ? save_out(out, doc) : save_run(c, doc);
    json_decref(doc);
    return rc;
}

static void print_result(const struct hb_lm_config *c, const json_t *e)
{
    char name[HB_LM_NAME];
    hb_lm_name(c, name, sizeof name);
    printf("%s\n", name);
    static const char *const keys[] = {
        "hb_params",          "hb_steps",        "hb_train_tokens",
        "hb_train_s",         "hb_tokens_per_s", "hb_alloc_peak_bytes", "hb_device_peak_bytes",
        "hb_final_loss_nats", "hb_valid_nats",   "hb_eval_tokens",
        "hb_nll_nats",        "hb_ppl",          "hb_bits_per_byte",    "hb_floor_nats",
        "hb_excess",          "hb_accuracy",     "hb_chance_uniform",
        "hb_chance_frequent", "hb_ngram_m"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *v = json_object_get(e, keys[i]);
        if (json_is_integer(v))
            printf("  %-20s %lld\n", keys[i] + 3, (long long)json_integer_value(v));
        else if (v)
            printf("  %-20s %.6g\n", keys[i] + 3, json_real_value(v));
    }
}

static int describe(const struct hb_lm_config *c, const struct hb_lm_data *d)
{
    char name[HB_LM_NAME];
    struct hb_lm_table t;
    hb_lm_name(c, name, sizeof name);
    printf("%s\n", name);
    if (hb_lm_is_counts(c))
        return 0;
    int rc = hb_lm_table_make(c, d->rows, &t);
    if (rc)
        return rc;
    printf("%lld parameters, %lld steps of %lld sequences of %lld tokens, positions %s\n",
           (long long)t.params, (long long)hb_lm_steps(c), (long long)hb_lm_batch(c),
           (long long)c->L, hb_lm_positions_str(c));
    hb_lm_table_free(&t);
    return 0;
}

// What was measured until the signal came: among the runs that did not finish, so that nobody takes
// it for a whole one.
static int keep_cut(const struct args *a, const struct hb_lm_config *c, struct hb_lm_result *r)
{
    char detail[256];
    snprintf(detail, sizeof detail, "after %lld of %lld steps", (long long)r->steps,
             (long long)r->planned_steps);
    printf("interrupted %s%s%s\n", detail,
           a->checkpoint ? "; the same command goes on with --resume-from " : "",
           a->checkpoint ? a->checkpoint : "");
    json_t *entry = hb_lm_cut(c, r, detail);
    hb_lm_result_free(r);
    return record(c, a->out, "hb_skips", entry);
}

static int train_one(const struct args *a, const struct hb_lm_config *c)
{
    struct hb_lm_result r;
    const struct hb_lm_opts o = {.checkpoint = a->checkpoint, .every = a->checkpoint_every,
                                 .resume_from = a->resume_from};
    int rc = hb_lm_train(c, &o, &r);
    if (rc == HB_ERR_OOM || rc == HB_ERR_REFUSED) {          // results, not accidents
        const char *status = rc == HB_ERR_OOM ? "oom" : "refused";
        printf("%s: %s\n", status, hb_error());
        json_t *skip = hb_lm_skip(c, status, hb_error());
        hb_error_clear();
        return record(c, a->out, "hb_skips", skip);
    }
    if (rc)
        return rc;
    if (r.interrupted)
        return keep_cut(a, c, &r);
    json_t *entry = hb_lm_entry(c, &r);
    hb_lm_result_free(&r);
    if (!entry)
        return HB_ERR_OOM;
    print_result(c, entry);
    return record(c, a->out, "benchmarks", entry);
}

// Said before the training, not after it: the folder must take a file.
static int check_out(const char *option, const char *out)
{
    char folder[4096];
    const char *slash = out ? strrchr(out, '/') : NULL;
    if (!out)
        return 0;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - out + 1) : 1, slash ? out : ".");
    if (access(folder, W_OK))
        return hb_fail(HB_ERR_INPUT, "--%s %s: cannot write into %s: %s", option, out,
                       folder, strerror(errno));
    return 0;
}

// --mem-limit is of the memory that the model is in.
static void limit_device(const struct args *a, const struct hb_lm_config *c)
{
    if (!a->mem_limit || !strcmp(c->device, "cpu0"))
        return;
    hb_host_set_limit(hb_default_mem_limit());
    hb_host_set_device_limit((size_t)a->mem_limit);
}

static int single(const struct args *a)
{
    struct hb_lm_config c;
    struct hb_lm_data d;
    hb_lm_config_default(&c);
    json_t *doc = hb_json_load(a->pos[0]);
    if (!doc)
        return HB_ERR_INPUT;
    int rc = json_object_get(doc, "runs")
           ? hb_fail(HB_ERR_INPUT, "%s is a list of runs: add --suite", a->pos[0])
           : hb_lm_config_json(&c, doc, a->pos[0]);
    json_decref(doc);
    if (!rc)
        rc = check_out("out", a->out);
    if (!rc)
        rc = check_out("checkpoint", a->checkpoint);
    for (int i = 1; !rc && i < a->n_pos; i++)
        rc = hb_lm_config_word(&c, a->pos[i]);
    if (!rc)
        rc = hb_host_init((int)c.threads,
                          a->mem_limit ? (size_t)a->mem_limit : hb_default_mem_limit());
    if (!rc)
        rc = hb_lm_config_finish(&c);
    if (!rc)
        limit_device(a, &c);
    if (!rc)
        rc = hb_registry_load();
    if (rc || !a->dry_run)
        return rc ? rc : train_one(a, &c);
    rc = hb_lm_data_open(&c, &d);
    if (!rc)
        rc = describe(&c, &d);
    if (!rc)
        hb_lm_data_close(&d);
    return rc;
}

// --- many ----------------------------------------------------------------------------------------

// What is missing is said once and before anything runs: each set is opened, each model's table
// made.
static int check_jobs(const struct hb_lm_jobs *jobs)
{
    for (int i = 0; i < jobs->n; i++) {
        const struct hb_lm_config *c = &jobs->job[i].c;
        struct hb_lm_data d;
        struct hb_lm_table t;
        bool seen = false;
        for (int k = 0; k < i && !seen; k++)
            seen = !strcmp(jobs->job[k].c.data, c->data) &&
                   !strcmp(jobs->job[k].c.tokenizer, c->tokenizer) &&
                   !strcmp(jobs->job[k].c.test_data, c->test_data);
        int rc = seen ? 0 : hb_lm_data_open(c, &d);
        if (!rc && !seen)
            hb_lm_data_close(&d);
        if (!rc && !hb_lm_is_counts(c) && !(rc = hb_lm_table_make(c, 256, &t)))
            hb_lm_table_free(&t);
        if (rc)
            return rc;
    }
    return 0;
}

static int suite(const struct args *a, int *answer)
{
    struct hb_lm_jobs jobs;
    int rc = hb_host_init(0, 0);
    if (!rc)
        rc = hb_registry_load();
    if (!rc)
        rc = hb_lm_suite_read(a->pos[0], a->pos + 1, a->n_pos - 1, &jobs);
    if (rc)
        return rc;
    rc = check_jobs(&jobs);
    if (!rc && a->dry_run)
        hb_lm_suite_print(&jobs);
    else if (!rc)
        rc = hb_lm_suite_run(&jobs, a->pos[0], a->budget_s, a->resume, answer);
    hb_lm_suite_free(&jobs);
    return rc;
}

int hb_cmd_train(int argc, char **argv)
{
    struct args a = {0};
    int answer = 0, rc = parse(argc, argv, &a);
    if (!rc)
        rc = a.child ? child() : a.suite ? suite(&a, &answer) : single(&a);
    return rc ? hb_exit_code("train", rc) : answer;
}
