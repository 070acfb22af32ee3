// cli.h: one option table per command gives parsing, range checks, error lines and --help.
#ifndef HB_CLI_H
#define HB_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hb_opt_kind {
    HB_OPT_FLAG,      // bool *          --refine
    HB_OPT_STR,       // const char **   --impl NAME
    HB_OPT_INT,       // int64_t *       --L 4096, also 4k = 4096, 1M = 2^20; checked against lo..hi
    HB_OPT_SIZE,      // int64_t *       --mem-limit 4G, bytes
    HB_OPT_DOUBLE,    // double *        --time-limit 2.5; checked against lo..hi
};
struct hb_opt {
    const char *name;                // "mem-limit": --mem-limit; one letter "L": --L and -L
    enum hb_opt_kind kind;
    void *dst;                       // left alone if the option is not given
    const char *metavar, *help;
    double lo, hi;                   // INT, SIZE, DOUBLE; lo == hi: no check
};
struct hb_cli {
    const char *command, *args, *about;      // "run", "--impl NAME --L N", one sentence
    const char *example;                     // one or two command lines
    const struct hb_opt *opts; size_t n_opts;
    int min_pos, max_pos;                    // positional arguments; max_pos < 0: any number
};
// Fills the table's targets. Returns 0 and *n_pos positionals in pos[] (pointing into argv), or
// HB_ERR_INPUT with the message set, or HB_CLI_HELP after printing the help to stdout. An empty or
// unknown option, a number that is not one, a value out of range: one line that names option, value
// and what was expected.
#define HB_CLI_HELP 1
int hb_cli_parse(const struct hb_cli *c, int argc, char **argv, const char **pos, int *n_pos);

// "128,1k,4097" or "128..4096" (doubling) or mixed, ascending unique out[0..*n), values 1..2^31.
// 0 or HB_ERR_INPUT.
int hb_parse_lengths(const char *text, int64_t *out, int cap, int *n);
int hb_parse_int(const char *what, const char *text, int64_t lo, int64_t hi, int64_t *out);
int hb_parse_size(const char *what, const char *text, int64_t *out);

// The nearest of list[0..n) by edit distance, NULL if none is near enough to be meant.
const char *hb_closest(const char *word, const char *const *list, size_t n);

// Prints the message of `code` as "hyena-bench COMMAND: text" to stderr and returns the exit code:
// 0 ok and HB_CLI_HELP, 2 input, 3 missing, 4 run (also OOM, refused outside of measuring).
int hb_exit_code(const char *command, int code);

// Progress on stderr: one rewritten line on a terminal, plain lines elsewhere (at most one per
// second). `left_s` < 0: unknown.
void hb_progress(const char *what, size_t done, size_t total, double left_s);
void hb_progress_end(void);
bool hb_interrupted(void);       // SIGINT or SIGTERM arrived (handler installed by main)
// Installs those handlers: the first signal only sets the flag (calls like read and waitpid return
// EINTR), the second ends the process as if nobody had asked. SIGPIPE is ignored: a closed pipe is
// a write error.
void hb_signals_install(void);
int hb_signal_number(void);      // which one arrived, 0 if none

#endif
