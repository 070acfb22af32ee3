// plot.c: `hyena-bench plot`: the table of figures; writes each one's data file and lets gnuplot
// draw it as PNG and SVG. Reads results, never measures. All style is in plots/style.gp.
#include "plot.h"

#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "commands.h"
#include "crossover.h"

extern char **environ;

#define CORE HB_SCOPE_CORE
#define OPER HB_SCOPE_OPERATOR
#define STEP HB_SCOPE_STEP
#define FWD  HB_PASS_FWD
#define BWD  HB_PASS_BWD
#define TIME HB_METRIC_TIME
#define MEM  HB_METRIC_MEMORY
#define ERR  HB_METRIC_ERROR

static const char how_time[] = "Straight lines on these axes are powers of L. Dotted: what this "
                               "machine's measured peaks allow any exact method. Open marks at the "
                               "top edge: no time, and why.";
static const char how_mem[] = "Inputs, outputs, parameters and workspace at the peak, by the "
                              "suite's allocator. Open marks at the top edge: no value, and why.";

static const char how_slope[] = "The slope between neighbouring lengths: 1 is linear, 2 quadratic, "
                                "below 1 overhead. An FFT of a length with a large prime factor "
                                "may step out of the axes.";

static const char how_peers[] = "How many times longer the peers take for the same convolution, "
                                "transform of the filter inside. Solid: forward, dashed: backward; "
                                "below the line 1 the peer is faster.";

static const struct hb_figure figures[] = {
    {"crossovers", "side.gp", "How many times as fast as attention is Hyena? By sequence length", STEP,
     FWD, TIME, hb_fig_crossovers,
     "All machines in one figure. Above the line 1 Hyena is faster, and a curve's L* is where it "
     "crosses that line. Colour: machine, type and width; solid: forward, dashed: backward."},
    {"peers_conv", "side.gp", "Causal long convolution: the peers over longconv_cufft_cuda", STEP,
     FWD, TIME, hb_fig_peers_cufft, how_peers},
    {"peers_fused", "side.gp", "Causal long convolution: the peers over longconv_fused_cuda", STEP,
     FWD, TIME, hb_fig_peers_fused, how_peers},
    {"time_operator_fwd", "time.gp", "Whole operator, forward: time against length", OPER, FWD,
     TIME, hb_fig_curves, how_time},
    {"time_operator_bwd", "time.gp", "Whole operator, backward: time against length", OPER, BWD,
     TIME, hb_fig_curves, how_time},
    {"time_core_fwd", "time.gp",
     "Long convolution or attention alone, forward: time against length", CORE, FWD, TIME,
     hb_fig_curves, how_time},
    {"time_core_bwd", "time.gp",
     "Long convolution or attention alone, backward: time against length", CORE, BWD, TIME,
     hb_fig_curves, how_time},
    {"ratio_operator_fwd", "ratio.gp",
     "Attention over Hyena, whole operator, forward: how many times slower", OPER, FWD, TIME,
     hb_fig_ratio,
     "Above 1 Hyena is faster. The paper's marks are from one A100 (D 768, B 1, fp16): compare "
     "slopes and the distance to the FLOP bound, not heights."},
    {"ratio_operator_bwd", "ratio.gp",
     "Attention over Hyena, whole operator, backward: how many times slower", OPER, BWD, TIME,
     hb_fig_ratio,
     "Above 1 Hyena is faster. The paper printed forward times only; its marks are there for "
     "scale."},
    {"pairs_fftw", "pairs.gp", "longconv_fftw_plain over longconv_fftw: how many times slower",
     CORE, FWD, TIME, hb_fig_pairs,
     "Above 1 longconv_fftw is faster. Lengths that are not powers of two show the FFT's "
     "saw-tooth."},
    {"memory_operator_fwd", "memory.gp", "Whole operator, forward: memory against length", OPER,
     FWD, MEM, hb_fig_curves, how_mem},
    {"memory_operator_bwd", "memory.gp", "Whole operator, with backward: memory against length",
     OPER, BWD, MEM, hb_fig_curves, how_mem},
    {"memory_core_fwd", "memory.gp",
     "Long convolution or attention alone, forward: memory against length", CORE, FWD, MEM,
     hb_fig_curves, how_mem},
    {"perplexity", "perplexity.gp",
     "Perplexity on held-out text against training length, equal token budget", STEP, FWD, TIME,
     hb_fig_perplexity,
     "Small marks, a little to the left: single seeds. Large marks with bars: mean and 95 % t "
     "interval over seeds. Small budgets show early learning speed, not final quality."},
    {"loss_tokens", "loss.gp", "Training loss against tokens", STEP, FWD, TIME, hb_fig_loss_tokens,
     "One line per seed. Equal tokens: what is learnt from the same text."},
    {"loss_seconds", "loss.gp", "Training loss against wall-clock time", STEP, FWD, TIME,
     hb_fig_loss_seconds, "One line per seed. Equal time: what a machine's minute buys."},
    {"pareto", "pareto.gp", "Training time per token against perplexity", STEP, FWD, TIME,
     hb_fig_pareto, "Lower left is better on both counts. The number beside a mark is its L."},
    {"slope_operator_fwd", "slope.gp", "Whole operator, forward: local slope of time", OPER, FWD,
     TIME, hb_fig_slopes,
     how_slope},
    {"slope_core_fwd", "slope.gp",
     "Long convolution or attention alone, forward: local slope of time", CORE, FWD, TIME,
     hb_fig_slopes,
     how_slope},
    {"error_core_fwd", "error.gp",
     "Long convolution or attention alone, forward: error against length", CORE, FWD, ERR,
     hb_fig_curves, "Relative L2 error against the float64 judge, on the inputs that were timed."},
    {"error_operator_fwd", "error.gp", "Whole operator, forward: error against length", OPER, FWD,
     ERR, hb_fig_curves,
     "Relative L2 error against the float64 judge, on the inputs that were timed."},
};
#define N_FIGURES (sizeof figures / sizeof *figures)

// --- the study -----------------------------------------------------------------------------------

static void add_machine(struct hb_study *st, const char *id)
{
    for (size_t i = 0; i < st->n_machines; i++)
        if (!strcmp(st->machine[i], id)) return;
    st->machine[st->n_machines++] = id;
}

int hb_study_open(const char *const *paths, int n, struct hb_study *st)
{
    *st = (struct hb_study){0};
    int rc = hb_results_open(paths, n, &st->r);
    if (!rc && !st->r.n)
        rc = hb_fail(HB_ERR_INPUT, "%s: no results in there",
                     st->r.n_files ? st->r.paths[0] : "the folders");
    if (!rc) rc = hb_series_make(&st->r, &st->set);
    if (!rc) rc = hb_crossovers_make(&st->set, NULL, NULL, &st->x);
    if (!rc) rc = hb_lm_make(&st->r, &st->lm);
    if (!rc && !(st->machine = calloc(st->r.n_files + 1, sizeof *st->machine)))
        rc = hb_fail(HB_ERR_OOM, "no memory for %zu machines", st->r.n_files);
    if (rc) {
        hb_study_close(st);
        return rc;
    }
    // This machine first, then in the order of the files.
    for (size_t i = 0; i < st->r.n_files; i++)
        if (!strcmp(hb_file_machine(st->r.files[i]), hb_machine_id()))
            add_machine(st, hb_file_machine(st->r.files[i]));
    for (size_t i = 0; i < st->r.n_files; i++) add_machine(st, hb_file_machine(st->r.files[i]));
    return 0;
}

void hb_study_close(struct hb_study *st)
{
    free(st->machine);
    hb_lm_free(&st->lm);
    hb_crossovers_free(&st->x);
    hb_series_free(&st->set);
    hb_results_free(&st->r);
    *st = (struct hb_study){0};
}

// --- gnuplot -------------------------------------------------------------------------------------

// gnuplot -c SCRIPT DATA OUT; OUT ends with png or svg, or is "-" for text on stdout.
static int gnuplot(const char *script, const char *data, const char *out)
{
    char path[4200];
    snprintf(path, sizeof path, "%.4000s/plots/%s", hb_root_dir(), script);
    if (access(path, R_OK))
        return hb_fail(HB_ERR_MISSING, "%s: not there (the figure's script)", path);
    char *argv[] = {"gnuplot", "-c", path, (char *)data, (char *)out, NULL};
    pid_t pid;
    // gnuplot asks the locale for its degree sign and warns in the plain C one; the scripts are UTF-8
    if (setenv("LC_ALL", "C.UTF-8", 1)) return hb_fail(HB_ERR_RUN, "gnuplot: %s", strerror(errno));
    const int e = posix_spawnp(&pid, "gnuplot", NULL, NULL, argv, environ);
    if (e) return hb_fail(HB_ERR_MISSING, "gnuplot: %s (package gnuplot-nox)", strerror(e));
    int st;
    while (waitpid(pid, &st, 0) < 0)
        if (errno != EINTR) return hb_fail(HB_ERR_RUN, "gnuplot: %s", strerror(errno));
    if (!WIFEXITED(st) || WEXITSTATUS(st))
        return hb_fail(HB_ERR_RUN, "gnuplot -c %s %s %s: failed", path, data, out);
    return 0;
}

static int draw_files(const struct hb_drawn *d, const char *dir, const struct hb_text *dat,
                      bool term)
{
    static const char *const ends[] = {"png", "svg"};
    char data[4400], out[4400];
    snprintf(data, sizeof data, "%.4000s/%s.dat", dir, d->base);
    int rc = hb_write_file(data, dat->s, dat->n);
    if (!rc && term) {
        rc = fflush(stdout) ? hb_fail(HB_ERR_RUN, "cannot write to standard output")
                            : gnuplot(d->fig->script, data, "-");
        return rc;
    }
    for (size_t i = 0; !rc && i < sizeof ends / sizeof *ends; i++) {
        snprintf(out, sizeof out, "%.4000s/%s.%s", dir, d->base, ends[i]);
        rc = gnuplot(d->fig->script, data, out);
    }
    return rc;
}

// --- the gallery ---------------------------------------------------------------------------------

static int gallery_push(struct hb_gallery *g, const struct hb_drawn *d)
{
    struct hb_drawn *p = realloc(g->d, (g->n + 1) * sizeof *p);
    if (!p) return hb_fail(HB_ERR_OOM, "no memory for %zu figures", g->n + 1);
    g->d = p;
    g->d[g->n++] = *d;
    return 0;
}

void hb_gallery_free(struct hb_gallery *g)
{
    free(g->d);
    *g = (struct hb_gallery){0};
}

// The first machine's main setting has the plain name; others say what they are.
static void base_name(const struct hb_study *st, struct hb_drawn *d, bool main_setting)
{
    int n = snprintf(d->base, sizeof d->base, "%s", d->fig->name);
    if (strcmp(d->machine, st->machine[0]))
        n += snprintf(d->base + n, sizeof d->base - (size_t)n, "_%.100s", d->machine);
    if (!main_setting)
        snprintf(d->base + n, sizeof d->base - (size_t)n, "_B%lld_D%lld_T%d_%s_%s_%.4s",
                 (long long)d->at.B, (long long)d->at.D, d->at.threads, hb_dtype_str(d->at.dtype),
                 hb_mode_str(d->at.mode), d->at.device);
    for (char *p = d->base; *p; p++)
        if (*p == '+') *p = '-';  // of a machine with a GPU; links read better without
}

static int draw(const struct hb_study *st, const char *dir, bool term, struct hb_drawn *d,
                struct hb_gallery *g)
{
    const struct hb_fig_in in = {st, d->fig, d->machine, d->has_at ? &d->at : NULL};
    struct hb_text dat = {0};
    int rc = d->fig->write(&in, &dat, d->why, sizeof d->why);
    if (!rc && dat.n) rc = draw_files(d, dir, &dat, term);
    else if (!rc && !d->why[0]) snprintf(d->why, sizeof d->why, "nothing to draw");
    hb_text_free(&dat);
    return rc ? rc : gallery_push(g, d);
}

// Times and ratios are drawn for every setting; what follows from them or is counted, for the main
// one.
// A GPU's are many, its dtypes and batches look alike: the main one, and the tables.
static bool each_setting(const struct hb_figure *f, const struct hb_setting *at)
{
    if (hb_on_gpu(at->device)) return false;
    return f->write == hb_fig_ratio || (f->write == hb_fig_curves && f->metric == TIME);
}

static bool per_setting(const struct hb_figure *f)
{
    return f->scope != STEP && f->write != hb_fig_pairs;
}

bool hb_figure_of_gpu(const char *name)
{
    return strncmp(name, "slope_", 6) && strncmp(name, "error_", 6);
}

static int draw_settings(const struct hb_study *st, const char *dir, bool term, struct hb_drawn *d,
                         struct hb_gallery *g)
{
    const struct hb_setting *best = hb_setting_main(&st->set, d->machine, d->fig->scope,
                                                    d->fig->pass);
    if (!best) {
        snprintf(d->why, sizeof d->why, "nothing was timed at scope %s, pass %s",
                 hb_scope_str(d->fig->scope), hb_pass_str(d->fig->pass));
        base_name(st, d, true);
        return gallery_push(g, d);
    }
    int rc = 0;
    for (size_t i = 0; i < st->set.n && !rc;) {
        const struct hb_setting *at = &st->set.s[i].set;
        while (i < st->set.n && !hb_setting_cmp(&st->set.s[i].set, at)) i++;
        if (strcmp(at->machine, d->machine) || at->scope != d->fig->scope ||
            at->pass != d->fig->pass)
            continue;
        const bool main_setting = !hb_setting_cmp(at, best);
        if (!main_setting && (term || !each_setting(d->fig, at))) continue;
        d->at = *at;
        d->has_at = true;
        d->why[0] = 0;
        base_name(st, d, main_setting);
        rc = draw(st, dir, term, d, g);
    }
    return rc;
}

static bool on_gpu(const struct hb_study *st, const char *machine)
{
    for (size_t i = 0; i < st->set.n; i++)
        if (hb_on_gpu(st->set.s[i].set.device) && !strcmp(st->set.s[i].set.machine, machine))
            return true;
    return false;
}

int hb_figures_draw(const struct hb_study *st, const char *dir, const char *only, bool term,
                    struct hb_gallery *out)
{
    *out = (struct hb_gallery){0};
    int rc = hb_mkdirs(dir);
    bool known = !only;
    for (size_t f = 0; f < N_FIGURES && !rc; f++) {
        if (only && strcmp(only, figures[f].name)) continue;
        known = true;
        for (size_t m = 0; m < st->n_machines && !rc; m++) {
            struct hb_drawn d = {.fig = &figures[f], .machine = st->machine[m]};
            if (m && (term || figures[f].write == hb_fig_crossovers)) break;  // of all machines
            if (!only && !hb_figure_of_gpu(figures[f].name) && on_gpu(st, st->machine[m])) continue;
            if (per_setting(&figures[f])) rc = draw_settings(st, dir, term, &d, out);
            else {
                base_name(st, &d, true);
                rc = draw(st, dir, term, &d, out);
            }
        }
    }
    if (!rc && !known) {
        struct hb_text names = {0};
        for (size_t f = 0; f < N_FIGURES; f++) hb_text_add(&names, " %s", figures[f].name);
        rc = hb_fail(HB_ERR_INPUT, "--figure %s: not a figure; expected one of%s", only,
                     names.s ? names.s : "");
        hb_text_free(&names);
    }
    if (rc) hb_gallery_free(out);
    return rc;
}

// --- the command ---------------------------------------------------------------------------------

static int print_gallery(const struct hb_gallery *g, const char *dir, bool term)
{
    for (size_t i = 0; i < g->n; i++) {
        const struct hb_drawn *d = &g->d[i];
        int n = 0;
        if (d->why[0]) n = printf("%s: skipped: %s\n", d->base, d->why);
        else if (!term) n = printf("%s/%s.png .svg .dat\n", dir, d->base);
        if (n < 0) return hb_fail(HB_ERR_RUN, "cannot write to standard output");
    }
    return 0;
}

int hb_cmd_plot(int argc, char **argv)
{
    const char *figure = NULL, *out = NULL, *pos[257] = {0};
    bool term = false;
    const struct hb_opt opts[] = {
        {"figure", HB_OPT_STR, &figure, "NAME", "only this one (default: all)", 0, 0},
        {"out", HB_OPT_STR, &out, "DIR",
         "where the pictures go (default: build/report/plots)", 0, 0},
        {"term", HB_OPT_FLAG, &term, NULL,
         "draw as text in the terminal (default figure: time_operator_fwd)", 0, 0},
    };
    const struct hb_cli cli = {
        "plot", "[RESULTS...] [--figure NAME] [--out DIR] [--term]",
        "Draws figures from result files or folders: PNG, SVG and the data beside them.",
        "hyena-bench plot --figure ratio_operator_fwd\nhyena-bench plot --term",
        opts, sizeof opts / sizeof *opts, 0, 256};
    int n = 0, rc = hb_cli_parse(&cli, argc, argv, pos, &n);
    if (rc == HB_CLI_HELP) return 0;
    struct hb_study st = {0};
    struct hb_gallery g = {0};
    char dir[4096];
    if (!rc) rc = hb_host_init(0, 0);
    if (!rc) rc = hb_out_dir(out, "/report/plots", dir);
    if (!rc) rc = hb_study_open(pos, n, &st);
    if (!rc)
        rc = hb_figures_draw(&st, dir, term && !figure ? "time_operator_fwd" : figure, term, &g);
    if (!rc) rc = print_gallery(&g, dir, term);
    hb_gallery_free(&g);
    hb_study_close(&st);
    return hb_exit_code("plot", rc);
}
