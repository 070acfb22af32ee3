// cli.c: options by table, numbers by strict rules, exit codes (contract: cli.h).
//
// Numbers: the whole text must be the number, in range of its type and of the option; an empty
// text, a sign where none makes sense, NaN, infinity and trailing characters are errors that say
// what was expected.
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "stats.h"
#include "host.h"

// --- numbers -------------------------------------------------------------------------------------

static int bad_number(const char *what, const char *text, const char *expected)
{
    return hb_fail(HB_ERR_INPUT, "%s: '%.100s' is not %s", what, text, expected);
}

// DIGITS[.DIGITS][k|M|G|T][unit]: a decimal number times a power of 1024; the result must be whole.
static int parse_scaled(const char *what, const char *text, const char *unit, const char *expected,
                        int64_t *out)
{
    if (!isdigit((unsigned char)text[0]) && !(text[0] == '-' && isdigit((unsigned char)text[1])))
        return bad_number(what, text, expected);
    char *end;
    errno = 0;
    long long whole = strtoll(text, &end, 10);
    if (errno == ERANGE) return hb_fail(HB_ERR_INPUT, "%s: '%.100s' is out of range", what, text);
    double part = 0;
    if (*end == '.' && isdigit((unsigned char)end[1])) {
        const char *behind = end + 1 + strspn(end + 1, "0123456789");
        if (*behind == 'e' || *behind == 'E')         // strtod would take "1.5e3G" for 1 + 500 G
            return bad_number(what, text, expected);
        part = strtod(end, &end);
        if (*end == '\0')
            return bad_number(what, text, expected);  // "1.5" alone is no whole number
    }
    static const char letters[] = "kMGT";
    const char *letter = *end ? strchr(letters, *end == 'K' ? 'k' : *end) : NULL;
    long long factor = letter ? 1LL << (10 * (letter - letters + 1)) : 1;
    if (letter) end++;
    if (*end && strcmp(end, unit) == 0) end += strlen(unit);
    double rest = part * (double)factor;
    if (*end || rest != floor(rest)) return bad_number(what, text, expected);
    long long value, extra = text[0] == '-' ? -(long long)rest : (long long)rest;    // "-0.5k"
    if (__builtin_mul_overflow(whole, factor, &value) ||
        __builtin_add_overflow(value, extra, &value))
        return hb_fail(HB_ERR_INPUT, "%s: '%.100s' is out of range", what, text);
    *out = value;
    return 0;
}

int hb_parse_int(const char *what, const char *text, int64_t lo, int64_t hi, int64_t *out)
{
    int64_t v = 0;
    int rc = parse_scaled(what, text, "", "a whole number (4096, 4k, 1M)", &v);
    if (rc) return rc;
    if (v < lo || v > hi)
        return hb_fail(HB_ERR_INPUT, "%s: %.100s is not in %lld..%lld", what, text, (long long)lo,
                       (long long)hi);
    *out = v;
    return 0;
}

int hb_parse_size(const char *what, const char *text, int64_t *out)
{
    int64_t v = 0;
    int rc = parse_scaled(what, text, "B", "a size in bytes (65536, 512M, 1.5G)", &v);
    if (rc) return rc;
    if (v < 0) return hb_fail(HB_ERR_INPUT, "%s: %.100s is negative", what, text);
    *out = v;
    return 0;
}

static int parse_double(const char *what, const char *text, double *out)
{
    if (!text[0] || isspace((unsigned char)text[0])) return bad_number(what, text, "a number");
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (*end || end == text || !isfinite(v)) return bad_number(what, text, "a finite number");
    *out = v;
    return 0;
}

// One item of a list of lengths: "L" or "LO..HI" (LO, 2 LO, 4 LO ... and nothing above HI).
static int parse_length_item(char *item, int64_t *out, int cap, int *n)
{
    const int64_t max = (int64_t)1 << 31;
    int64_t lo = 0, hi = 0;
    char *dots = strstr(item, "..");
    if (dots) *dots = '\0';
    int rc = hb_parse_int("length", item, 1, max, &lo);
    hi = lo;
    if (rc == 0 && dots) rc = hb_parse_int("length", dots + 2, 1, max, &hi);
    if (rc) return rc;
    if (hi < lo)
        return hb_fail(HB_ERR_INPUT, "lengths: %s..%s ends before it begins", item, dots + 2);
    for (int64_t L = lo; L <= hi; L *= 2) {
        if (*n == cap) return hb_fail(HB_ERR_INPUT, "lengths: more than %d of them", cap);
        out[(*n)++] = L;
    }
    return 0;
}

int hb_parse_lengths(const char *text, int64_t *out, int cap, int *n)
{
    *n = 0;
    char *copy = strdup(text);
    if (!copy) return hb_fail(HB_ERR_OOM, "out of memory: list of lengths");
    int rc = 0;
    for (char *item = copy, *next; item && rc == 0;
         item = next) {  // an empty item is an error, too
        next = strchr(item, ',');
        if (next) *next++ = '\0';
        rc = parse_length_item(item, out, cap, n);
    }
    free(copy);
    if (rc) return rc;
    *n = (int)hb_sort_unique(out, (size_t)*n);
    return 0;
}

// --- the nearest word ----------------------------------------------------------------------------

static size_t edit_distance(const char *a, const char *b)
{
    size_t row[65], la = strlen(a), lb = strlen(b);
    if (la > 64 || lb > 64) return SIZE_MAX;
    for (size_t j = 0; j <= lb; j++) row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[lb];
}

const char *hb_closest(const char *word, const char *const *list, size_t n)
{
    const char *best = NULL;
    size_t least = strlen(word) / 3 + 1;       // "swep" means sweep, "xyz" means nothing
    for (size_t i = 0; i < n; i++) {
        size_t d = edit_distance(word, list[i]);
        if (d > least || (best && d == least)) continue;
        best = list[i];
        least = d;
    }
    return best;
}

// --- options -------------------------------------------------------------------------------------

static int print_help(const struct hb_cli *c)
{
    printf("usage: hyena-bench %s%s%s\n\n%s\n", c->command, c->args && *c->args ? " " : "",
           c->args ? c->args : "", c->about);
    if (c->n_opts) printf("\noptions\n");
    for (size_t i = 0; i < c->n_opts; i++) {
        const struct hb_opt *o = &c->opts[i];
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->metavar ? " " : "",
                 o->metavar ? o->metavar : "");
        printf("  %-24s %s\n", left, o->help);
    }
    if (c->example) printf("\nexample\n");
    for (const char *line = c->example; line && *line;) {
        line += strspn(line, " ");
        size_t n = strcspn(line, "\n");
        printf("  %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
    return HB_CLI_HELP;
}

// --NAME, --NAME=VALUE, or -L / -L=VALUE for a name of one letter. *value is set if there is one in
// the word.
static const struct hb_opt *find_option(const struct hb_cli *c, const char *arg, const char **value)
{
    bool twice = arg[1] == '-';
    const char *name = arg + (twice ? 2 : 1), *eq = strchr(name, '=');
    size_t len = eq ? (size_t)(eq - name) : strlen(name);
    *value = eq ? eq + 1 : NULL;
    for (size_t i = 0; i < c->n_opts; i++) {
        const struct hb_opt *o = &c->opts[i];
        if (strlen(o->name) == len && strncmp(o->name, name, len) == 0 && (twice || len == 1))
            return o;
    }
    return NULL;
}

static int unknown_option(const struct hb_cli *c, const char *arg)
{
    const char *names[128], *name = arg + strspn(arg, "-");
    size_t n = c->n_opts < 128 ? c->n_opts : 128;
    for (size_t i = 0; i < n; i++) names[i] = c->opts[i].name;
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(name, "="), name);
    const char *near = hb_closest(word, names, n);
    return hb_fail(
        HB_ERR_INPUT, "unknown option '%.100s'%s%s%s; 'hyena-bench %s --help' lists them", arg,
        near ? " (did you mean '--" : "", near ? near : "", near ? "'?)" : "", c->command);
}

static int out_of_range(const struct hb_opt *o, const char *value)
{
    return hb_fail(HB_ERR_INPUT, "--%s: %.100s is not in %.15g..%.15g", o->name, value, o->lo,
                   o->hi);
}

static int set_option(const struct hb_opt *o, const char *value)
{
    char what[80];
    snprintf(what, sizeof what, "--%s", o->name);
    int64_t v = 0;
    double x = 0;
    int rc = 0;
    if (!value || !*value)
        return hb_fail(HB_ERR_INPUT, "%s needs a value%s%s", what, o->metavar ? ": " : "",
                       o->metavar ? o->metavar : "");
    switch (o->kind) {
    case HB_OPT_FLAG:
        break;
    case HB_OPT_STR:
        *(const char **)o->dst = value;
        break;
    case HB_OPT_INT:
    case HB_OPT_SIZE:
        rc = o->kind == HB_OPT_INT ? hb_parse_int(what, value, INT64_MIN, INT64_MAX, &v)
                                   : hb_parse_size(what, value, &v);
        if (rc) return rc;
        if (o->lo != o->hi && ((double)v < o->lo || (double)v > o->hi))
            return out_of_range(o, value);
        *(int64_t *)o->dst = v;
        break;
    case HB_OPT_DOUBLE:
        rc = parse_double(what, value, &x);
        if (rc) return rc;
        if (o->lo != o->hi && !(x >= o->lo && x <= o->hi)) return out_of_range(o, value);
        *(double *)o->dst = x;
        break;
    }
    return 0;
}

// A word that looks like a negative number is a value or a positional, not an option.
static bool is_option(const char *arg)
{
    return arg[0] == '-' && arg[1] && !isdigit((unsigned char)arg[1]) && arg[1] != '.';
}

static int parse_words(const struct hb_cli *c, int argc, char **argv, const char **pos, int *n_pos,
                       uint64_t *seen)
{
    bool only_pos = false;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *value;
        if (!only_pos && strcmp(arg, "--") == 0) {
            only_pos = true;
            continue;
        }
        if (only_pos || !is_option(arg)) {
            if (c->max_pos >= 0 && *n_pos >= c->max_pos)
                return hb_fail(HB_ERR_INPUT,
                               "'%.100s' is one argument too many; usage: hyena-bench %s %s", arg,
                               c->command, c->args ? c->args : "");
            if (!*arg) return hb_fail(HB_ERR_INPUT, "argument %d is empty", i);
            pos[(*n_pos)++] = arg;
            continue;
        }
        const struct hb_opt *o = find_option(c, arg, &value);
        if (!o) return unknown_option(c, arg);
        size_t k = (size_t)(o - c->opts);
        if (seen[k / 64] >> (k % 64) & 1)
            return hb_fail(HB_ERR_INPUT, "--%s is given twice", o->name);
        seen[k / 64] |= (uint64_t)1 << (k % 64);
        if (o->kind == HB_OPT_FLAG) {
            if (value) return hb_fail(HB_ERR_INPUT, "--%s takes no value", o->name);
            *(bool *)o->dst = true;
            continue;
        }
        if (!value) value = i + 1 < argc && !is_option(argv[i + 1]) ? argv[++i] : NULL;
        int rc = set_option(o, value);
        if (rc) return rc;
    }
    return 0;
}

int hb_cli_parse(const struct hb_cli *c, int argc, char **argv, const char **pos, int *n_pos)
{
    int n = 0;
    uint64_t seen[4] = { 0 };
    if (c->n_opts > 256) return hb_fail(HB_ERR_RUN, "%s: more than 256 options", c->command);
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return print_help(c);
    int rc = parse_words(c, argc, argv, pos, &n, seen);
    if (rc) return rc;
    if (n < c->min_pos)
        return hb_fail(HB_ERR_INPUT, "something is missing; usage: hyena-bench %s %s", c->command,
                       c->args ? c->args : "");
    if (n_pos) *n_pos = n;
    return 0;
}

// --- exit codes ----------------------------------------------------------------------------------

int hb_exit_code(const char *command, int code)
{
    if (code >= 0) return 0;                   // done, or the help was printed
    const char *text = hb_error();
    fprintf(stderr, "hyena-bench%s%s: %s\n", *command ? " " : "", command,
            *text ? text : "failed without a message");
    hb_error_clear();
    if (code == HB_ERR_INPUT) return 2;
    return code == HB_ERR_MISSING ? 3 : 4;
}
