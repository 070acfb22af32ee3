// command.c: `hyena-bench verify`: the claims and their verdicts.
#include <stdio.h>
#include <string.h>

#include "../cli.h"
#include "../commands.h"
#include "../crossover.h"
#include "verify.h"

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

// A line each: id, one field padded to `width`, title.
static void print_lines(const json_t *all, const char *key, int width)
{
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *c = json_array_get(all, i);
        printf("%-6s %-*s %s\n", text(c, "id"), width, text(c, key), text(c, "title"));
    }
}

static void print_line(const char *what, const char *value)
{
    if (*value) printf("  %-11s %s\n", what, value);
}

static void print_claim(const json_t *c)
{
    const json_t *s = json_object_get(c, "source"), *checks = json_object_get(c, "checks");
    printf("%s  %s\n", text(c, "id"), text(c, "title"));
    printf("  %-11s %s%s%s\n", "source", text(s, "work"), *text(s, "where") ? ", " : "",
           text(s, "where"));
    static const char *const lines[] = {"says", "published", "conditions", "scope", "baseline",
                                        "measured", "tolerance"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) print_line(lines[i], text(c,
                                                                                  lines[i]));
    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *k = json_array_get(checks, i);
        printf("\n  %s%s\n", text(k, "label"),
               json_is_true(json_object_get(k, "shows")) ? " (for comparison)" : "");
        print_line("ours", text(k, "ours"));
        print_line("of", text(k, "of"));
        print_line("bound", text(k, "bound"));
        print_line("verdict", text(k, "verdict"));
        print_line("why", text(k, "why"));
        print_line("machine", text(k, "machine"));
        print_line("repeat", text(k, "command"));
        const json_t *files = json_object_get(k, "files");
        for (size_t f = 0; f < json_array_size(files); f++)
            printf("  %-11s %s %.16s\n", f ? "" : "read from", text(json_array_get(files, f),
                                                                    "path"),
                   text(json_array_get(files, f), "sha256"));
    }
    printf("\n  %-11s %s\n", "verdict", text(c, "verdict"));
    print_line("note", text(c, "note"));
    print_line("needs", text(c, "needs"));
}

int hb_cmd_verify(int argc, char **argv)
{
    const char *claim = NULL, *out = NULL, *dir = NULL, *pos[257] = {0};
    bool list = false, markdown = false;
    const struct hb_opt opts[] = {
        {"claim", HB_OPT_STR, &claim, "ID", "this one, with all that it rests on", 0, 0},
        {"list", HB_OPT_FLAG, &list, NULL, "the claims, without judging them", 0, 0},
        {"out", HB_OPT_STR, &out, "FILE", "write the verdicts here as JSON", 0, 0},
        {"markdown", HB_OPT_FLAG, &markdown, NULL, "print the tables of the report", 0, 0},
        {"claims", HB_OPT_STR, &dir, "DIR", "other claims than bench/claims", 0, 0},
    };
    const struct hb_cli cli = {
        "verify", "[RESULTS...] [--claim ID] [--list] [--out FILE]",
        "Judges what was published about Hyena by the results at hand: reproduced, contradicted, "
        "or why neither. Measures no time.",
        "hyena-bench verify\n  hyena-bench verify --claim RT-1",
        opts, sizeof opts / sizeof *opts, 0, 256};
    int n = 0, rc = hb_cli_parse(&cli, argc, argv, pos, &n);
    if (rc == HB_CLI_HELP) return 0;
    struct hb_results r = {0};
    json_t *verdicts = NULL;
    if (!rc) rc = hb_host_init(0, 0);
    if (!rc && !list) rc = hb_results_open(pos, n, &r);
    if (!rc && !(verdicts = hb_verify_all(&r, dir, claim)))
        rc = hb_error_code() ? hb_error_code() : HB_ERR_RUN;
    if (!rc && out) rc = hb_json_save(out, verdicts);
    if (!rc && list) print_lines(verdicts, "testability", 4);
    else if (!rc && markdown) rc = hb_verify_write(verdicts, "###", stdout);
    else if (!rc && claim) print_claim(json_array_get(verdicts, 0));
    else if (!rc) print_lines(verdicts, "verdict", 32);
    json_decref(verdicts);
    hb_results_free(&r);
    return hb_exit_code("verify", rc);
}
