// envcmd.c: the command `env`: this machine as it is written into every result, two of them
// compared, and what stands in the way of good measurements. Reads only, changes nothing.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "commands.h"
#include "env.h"
#include "record.h"

static int no_memory(void) { return hb_fail(HB_ERR_OOM, "no memory"); }

static int print_json(const json_t *j)
{
    if (json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) != 0
        || putchar('\n') == EOF)
        return hb_fail(HB_ERR_RUN, "stdout: %s", strerror(errno));
    return 0;
}

// The env of a result file (context.hb_env), of a context, or of what `env --json` printed. New
// reference.
static json_t *load_env(const char *path)
{
    json_t *doc = hb_json_load(path);
    if (!doc) return NULL;
    json_t *context = json_object_get(doc, "context"),
           *env = json_object_get(context ? context : doc, "hb_env");
    if (!env && json_is_object(json_object_get(doc, "machine"))) env = doc;
    if (!json_is_object(env)) {
        hb_fail(HB_ERR_INPUT, "%s: a result file or the output of 'env --json' expected", path);
        env = NULL;
    }
    json_incref(env);
    json_decref(doc);
    return env;
}

// One line of a table: strings without quotes, the rest as JSON, long values cut.
static void print_value(const char *label, const json_t *v)
{
    char *s = json_is_string(v) ? strdup(json_string_value(v))
                                : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    printf("    %-6s %.160s%s\n", label, s ? s : "?", s && strlen(s) > 160 ? " ..." : "");
    free(s);
}

static int show_diff(const char *path_a, const char *path_b, bool as_json)
{
    json_t *a = load_env(path_a), *b = a ? load_env(path_b) : NULL, *rows = NULL, *row;
    size_t i;
    int rc = a && b ? 0 : hb_error_code();
    if (rc == 0 && !(rows = hb_env_diff(a, b))) rc = no_memory();
    if (rc == 0 && as_json) rc = print_json(rows);
    else json_array_foreach(rows, i, row) {
        printf("%s  (%s)\n", json_string_value(json_object_get(row, "what")),
               json_string_value(json_object_get(row, "effect")));
        print_value("A", json_object_get(row, "a"));
        print_value("B", json_object_get(row, "b"));
    }
    if (rc == 0 && !as_json && json_array_size(rows) == 0) puts("no difference");
    json_decref(a);
    json_decref(b);
    json_decref(rows);
    return rc;
}

static int show_doctor(bool as_json)
{
    json_t *env = hb_env_json(), *rows = env ? hb_env_doctor(env) : NULL, *row;
    size_t i, problems = 0;
    int rc = rows ? 0 : no_memory();
    if (rc == 0 && as_json) rc = print_json(rows);
    else json_array_foreach(rows, i, row) {
        const char *level = json_string_value(json_object_get(row, "level"));
        problems += strcmp(level, "problem") == 0;
        printf("%-8s %s: %s\n", level, json_string_value(json_object_get(row, "what")),
               json_string_value(json_object_get(row, "found")));
        printf("         costs   %s\n", json_string_value(json_object_get(row, "cost")));
        printf("         advice  %s\n", json_string_value(json_object_get(row, "advice")));
    }
    if (rc == 0 && !as_json)
        printf("%zu problem%s, %zu notes; nothing was changed\n", problems,
               problems == 1 ? "" : "s", json_array_size(rows) - problems);
    json_decref(env);
    json_decref(rows);
    return rc;
}

static int show_env(bool as_json)
{
    json_t *env = hb_env_json();
    if (!env) return no_memory();
    if (as_json) {
        int rc = print_json(env);
        json_decref(env);
        return rc;
    }
    const char *part, *key;
    json_t *values, *v;
    printf("%s\n", hb_machine_id());
    json_object_foreach(env, part, values) {
        if (!json_is_object(values)) continue;
        printf("%s\n", part);
        json_object_foreach(values, key, v) {
            char *s = json_is_string(v) ? strdup(json_string_value(v))
                                        : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
            printf("    %-22s %s\n", key, s ? s : "?");
            free(s);
        }
    }
    json_decref(env);
    return 0;
}

int hb_cmd_env(int argc, char **argv)
{
    bool json = false;
    const struct hb_opt opts[] = { { "json", HB_OPT_FLAG, &json, NULL, "print JSON", 0, 0 } };
    const struct hb_cli cli = {
        .command = "env",
        .args = "[diff A.json B.json | doctor]",
        .about = "Shows this machine, compares two (result files or saved env), or says what "
                 "disturbs measuring.",
        .example = "hyena-bench env --json > env.json\nhyena-bench env doctor",
        .opts = opts,
        .n_opts = 1,
        .min_pos = 0,
        .max_pos = 3,
    };
    const char *pos[3] = { NULL };
    int n = 0, rc = hb_cli_parse(&cli, argc, argv, pos, &n);
    if (rc == HB_CLI_HELP) return 0;
    if (rc == 0) rc = hb_host_init(0, 0);
    if (rc == 0 && n == 0) rc = show_env(json);
    else if (rc == 0 && n == 3 && strcmp(pos[0], "diff") == 0) rc = show_diff(pos[1], pos[2], json);
    else if (rc == 0 && n == 1 && strcmp(pos[0], "doctor") == 0) rc = show_doctor(json);
    else if (rc == 0) rc = hb_fail(HB_ERR_INPUT, "'%s': 'diff A B' or 'doctor' expected", pos[0]);
    return hb_exit_code("env", rc);
}
