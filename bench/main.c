// main.c: finds the command and hands over; the only place that decides about the process.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "commands.h"
#include "record.h"
#include "env.h"

#define HB_VERSION "0.1"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;       // NULL: hidden
};

// In the order in which a newcomer needs them.
static const struct command commands[] = {
    { "list", hb_cmd_list, "implementations: what is there, what is not, and why" },
    { "run", hb_cmd_run, "measure one point" },
    { "sweep", hb_cmd_sweep, "measure many points from a file; stop and resume" },
    { "check", hb_cmd_check, "are the implementations right, on this machine and device?" },
    { "apply", hb_cmd_apply, "run an implementation on your own NumPy arrays" },
    { "train", hb_cmd_train, "train one language model, record losses and perplexity" },
    { "crossover", hb_cmd_crossover, "lengths at which one implementation overtakes another" },
    { "plot", hb_cmd_plot, "figures from results" },
    { "report", hb_cmd_report, "the findings, from results" },
    { "verify", hb_cmd_verify, "published claims: what these results say to them" },
    { "env", hb_cmd_env, "this machine; compare two; what spoils measurements" },
    { "roofline", hb_cmd_roofline, "measure the peaks of this machine" },
    { "choose", hb_cmd_choose, "which implementation to use here, and how sure that is" },
    { "why", hb_cmd_why, "where a point's time goes, its bound, and what choosing it costs" },
    { "compare", hb_cmd_compare, "two builds: is the new one slower? exit code 1 if it is" },
    { "selftest", hb_cmd_selftest, "how often compare alarms for nothing here, and what it finds" },
    { "gbench", hb_cmd_gbench, "Google Benchmark's own command line over the same points" },
    { "__point", hb_cmd_point, NULL },
    { "__count", hb_cmd_count, NULL },
    { "__check", hb_cmd_check_group, NULL },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *out)
{
    fprintf(out, "usage: hyena-bench COMMAND [options]\n\n"
                 "How fast, how lean and how good is Hyena against attention, at which length, on "
                 "this machine?\n\ncommands\n");
    for (int i = 0; i < N_COMMANDS; i++)
        if (commands[i].about) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].about);
    fprintf(out, "\n  'hyena-bench COMMAND --help' explains one.\n\nexample\n"
                 "  hyena-bench run --impl hyena:longconv_fftw --L 4096 --D 256\n\nexit codes\n"
                 "  0 done   1 the answer is no   2 bad usage or input   3 the machine lacks "
                 "something   4 failure\n");
}

static int print_version(void)
{
    json_t *software = hb_env_software();
    const char *git = json_string_value(json_object_get(software, "git"));
    printf("hyena-bench %s (%s), implementation ABI %d\n", HB_VERSION, git ? git : "unversioned",
           HB_ABI_VERSION);
    json_decref(software);
    return 0;
}

// For the children, unless the user has decided: threads that wait spin for some microseconds, then
// sleep. libgomp's default spins on while something else has the core of the thread waited for, up
// to a time slice: on two cores small Hyena operators took 8 ms instead of 0.2 ms, training steps
// ten times as long. 2000 costs a few percent on an idle machine, OMP_WAIT_POLICY=passive a
// quarter. Records keep the variable.
static int spin_shortly(void)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return 0;
    if (setenv("GOMP_SPINCOUNT", "2000", 0) == 0) return 0;
    return hb_fail(HB_ERR_RUN, "cannot set GOMP_SPINCOUNT: %s", strerror(errno));
}

static int is_folder(const char *variable, const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return 0;
    return hb_fail(HB_ERR_INPUT, "%s: '%.300s' is not a folder", variable, path);
}

// The variables that name places: a wrong one is an error before any work, not a surprise after it.
// Unset and empty are the same.
static int check_environment(void)
{
    static const char *const variables[] = { "HYENA_BENCH_IMPLS", "HYENA_BENCH_BUILD",
                                             "HYENA_BENCH_DATA" };
    int rc = 0;
    for (size_t i = 0; i < sizeof variables / sizeof *variables && rc == 0; i++) {
        const char *value = getenv(variables[i]);
        char *copy = strdup(value ? value : ""), *save = NULL;
        const char *separator = i == 0 ? ":" : "\n";        // IMPLS is a list
        if (!copy) return hb_fail(HB_ERR_OOM, "out of memory: %s", variables[i]);
        for (char *dir = strtok_r(copy, separator, &save); dir && rc == 0;
             dir = strtok_r(NULL, separator, &save))
            rc = is_folder(variables[i], dir);
        free(copy);
    }
    return rc;
}

static int no_such_command(const char *word)
{
    const char *names[N_COMMANDS];
    size_t n = 0;
    for (int i = 0; i < N_COMMANDS; i++)
        if (commands[i].about) names[n++] = commands[i].name;
    const char *near = hb_closest(word, names, n);
    return hb_fail(HB_ERR_INPUT, "no command '%.100s'%s%s%s; 'hyena-bench --help' lists them", word,
                   near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

// What was printed has arrived, or it is said that it has not. A reader that went away is not our
// failure.
static int close_stdout(int rc)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return rc;
    if (errno == EPIPE || rc != 0) return rc;
    return hb_exit_code(
        "", hb_fail(HB_ERR_RUN, "cannot write to standard output: %s", strerror(errno)));
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
        print_help(stdout);
        return close_stdout(0);
    }
    if (!strcmp(word, "--version")) return close_stdout(print_version());
    hb_signals_install();
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(word, commands[i].name)) continue;
        if (check_environment() || spin_shortly()) return hb_exit_code(word, hb_error_code());
        int rc = close_stdout(commands[i].run(argc - 1, argv + 1));
        if (hb_interrupted()) {              // the caller's shell must see that it was the signal
            signal(hb_signal_number(), SIG_DFL);
            raise(hb_signal_number());
        }
        return rc;
    }
    return hb_exit_code("", no_such_command(word));
}
