// tables.c: verdicts as Markdown.
#include <math.h>
#include <string.h>

#include "judge.h"

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool shows(const json_t *check) { return json_is_true(json_object_get(check, "shows")); }

static bool is(const json_t *claim, const char *verdict)
{
    return !strcmp(text(claim, "verdict"), verdict);
}

// A cell's text: no line breaks, no bars.
static void add(struct hb_text *t, const char *s)
{
    for (; *s; s++) hb_text_add(t, "%s%c", *s == '|' ? "\\" : "", *s == '\n' ? ' ' : *s);
}

static bool in_table(const json_t *check)
{
    return !shows(check) || json_is_true(json_object_get(check, "in_table"));
}

// How the statement was seen, unless in the document itself.
static const char *provenance(const json_t *source)
{
    const char *p = text(source, "provenance"), *work = text(source, "work");
    if (strstr(work, "notes") || strstr(work, "encyclopedia")) return "";   // it says so itself
    return strchr(p, 'M') ? "; from memory" : strchr(p, 'S') ? "; by third-party notes" : "";
}

static void add_source(struct hb_text *t, const json_t *claim)
{
    const json_t *s = json_object_get(claim, "source");
    hb_text_add(t, "**%s** ", text(claim, "id"));
    add(t, text(claim, "title"));
    hb_text_add(t, "<br>*%s%s%s%s*", text(s, "work"), *text(s, "where") ? ", " : "",
                text(s, "where"), provenance(s));
}

static void add_label(struct hb_text *t, const char *label)
{
    if (!*label) return;
    add(t, label);
    hb_text_add(t, ": ");
}

// The deciding checks' numbers; a comparison that stands in the table has a verdict of its own.
static void add_ours(struct hb_text *t, const json_t *claim)
{
    const json_t *checks = json_object_get(claim, "checks");
    const size_t start = t->n;
    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *c = json_array_get(checks, i);
        const char *ours = text(c, "ours");
        if (!in_table(c)) continue;
        if (t->n > start) hb_text_add(t, "<br>");
        if (shows(c)) hb_text_add(t, "*beside it* ");
        add_label(t, text(c, "label"));
        add(t, *ours ? ours : HB_NOT_MEASURED);
        if (shows(c) && *ours && *text(c, "verdict"))
            hb_text_add(t, ": *%s*", text(c, "verdict"));
    }
}

static void add_bound(struct hb_text *t, const json_t *claim)
{
    const json_t *checks = json_object_get(claim, "checks");
    const size_t start = t->n;
    const char *last = "";
    // Those of the deciding checks; if they have none, the first of those beside them.
    for (int pass = 0; pass < 2 && t->n == start; pass++)
        for (size_t i = 0; i < json_array_size(checks); i++) {
            const json_t *c = json_array_get(checks, i);
            const bool mine = pass ? in_table(c) && t->n == start : !shows(c);
            if (!mine || !*text(c, "bound") || !strcmp(text(c, "bound"), last)) continue;
            last = text(c, "bound");
            if (t->n > start) hb_text_add(t, "<br>");
            add(t, last);
        }
    if (t->n == start) hb_text_add(t, "-");
}

static void add_verdict(struct hb_text *t, const json_t *claim)
{
    hb_text_add(t, "**%s**", text(claim, "verdict"));
    if (*text(claim, "why")) {
        hb_text_add(t, ": ");
        add(t, text(claim, "why"));
    }
}

// --- under the table: what it means, what stands beside it, what would measure it ----------------

static void add_comparisons(struct hb_text *t, const json_t *claim)
{
    const json_t *checks = json_object_get(claim, "checks");
    const char *before = " For comparison: ";
    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *c = json_array_get(checks, i);
        if (in_table(c) || !*text(c, "ours")) continue;
        hb_text_add(t, "%s", before);
        add_label(t, text(c, "label"));
        add(t, text(c, "ours"));
        before = "; ";
    }
    if (*before == ';') hb_text_add(t, ".");
}

// The commands of the deciding checks that have no number, each once.
static void add_commands(struct hb_text *t, const json_t *claim)
{
    const json_t *checks = json_object_get(claim, "checks");
    json_t *seen = json_object();
    const char *command;
    json_t *unused;
    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *c = json_array_get(checks, i);
        if (!shows(c) && !strcmp(text(c, "verdict"), HB_NOT_MEASURED) && *text(c, "command"))
            json_object_set(seen, text(c, "command"), json_true());
    }
    if (json_object_size(seen))
        hb_text_add(t, " To measure it:");
    json_object_foreach(seen, command, unused) hb_text_add(t, " `%s`", command);
    if (json_object_size(seen)) hb_text_add(t, ".");
    json_decref(seen);
}

static void add_remarks(struct hb_text *t, const json_t *claim)
{
    struct hb_text line = {0};
    if (*text(claim, "note")) hb_text_add(&line, " %s", text(claim, "note"));
    add_comparisons(&line, claim);
    add_commands(&line, claim);
    if (!is(claim, HB_REPRODUCED) && *text(claim, "needs"))
        hb_text_add(&line, " It takes %s.", text(claim, "needs"));
    if (line.n) hb_text_add(t, "- **%s**%s\n", text(claim, "id"), line.s);
    hb_text_free(&line);
}

static bool in_group(const json_t *claim, const char *group)
{
    return !strcmp(text(claim, "group"), group) && !is(claim, HB_NOT_HERE);
}

static void group_table(const json_t *all, const char *group, const char *level,
                        struct hb_text *out)
{
    bool open = false;
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *c = json_array_get(all, i);
        if (!in_group(c, group)) continue;
        if (!open) {
            hb_text_add(out, "%s %s\n\n", level, group);
            hb_text_add(out, "| claim | published | ours | bound | verdict |\n"
                             "| --- | --- | --- | --- | --- |\n");
        }
        open = true;
        hb_text_add(out, "| ");
        add_source(out, c);
        hb_text_add(out, " | ");
        add(out, text(c, "published"));
        hb_text_add(out, " | ");
        add_ours(out, c);
        hb_text_add(out, " | ");
        add_bound(out, c);
        hb_text_add(out, " | ");
        add_verdict(out, c);
        hb_text_add(out, " |\n");
    }
    if (!open) return;
    hb_text_add(out, "\n");
    const size_t start = out->n;
    for (size_t i = 0; i < json_array_size(all); i++)
        if (in_group(json_array_get(all, i), group)) add_remarks(out, json_array_get(all, i));
    if (out->n > start) hb_text_add(out, "\n");
}

static void absent_table(const json_t *all, const char *level, struct hb_text *out)
{
    bool open = false;
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *c = json_array_get(all, i);
        if (!is(c, HB_NOT_HERE)) continue;
        if (!open)
            hb_text_add(out, "%s Not testable here\n\n| claim | published | why not | what it "
                             "would take |\n| --- | --- | --- | --- |\n", level);
        open = true;
        hb_text_add(out, "| ");
        add_source(out, c);
        hb_text_add(out, " | ");
        add(out, text(c, "published"));
        hb_text_add(out, " | ");
        add(out, text(c, "why"));
        hb_text_add(out, " | ");
        add(out, *text(c, "needs") ? text(c, "needs") : "-");
        hb_text_add(out, " |\n");
    }
    if (open) hb_text_add(out, "\n");
}

static void summary(const json_t *all, struct hb_text *out)
{
    static const char *const order[] = {HB_REPRODUCED,   HB_FIGURE_ONLY,  HB_REDUCED,
                                        HB_CONTRADICTED, HB_INCONCLUSIVE, HB_NOT_MEASURED,
                                        HB_NOT_HERE};
    hb_text_add(out, "%zu claims:", json_array_size(all));
    for (size_t k = 0, said = 0; k < sizeof order / sizeof *order; k++) {
        size_t n = 0;
        for (size_t i = 0; i < json_array_size(all); i++) n += is(json_array_get(all, i), order[k]);
        if (n) hb_text_add(out, "%s %zu %s", said++ ? "," : "", n, order[k]);
    }
    hb_text_add(out, ".\n\n");
}

// Each file that a number was read from, once.
static void add_files(const json_t *all, struct hb_text *out)
{
    json_t *seen = json_object();
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *checks = json_object_get(json_array_get(all, i), "checks");
        for (size_t k = 0; k < json_array_size(checks); k++) {
            const json_t *files = json_object_get(json_array_get(checks, k), "files");
            for (size_t f = 0; f < json_array_size(files); f++) {
                const json_t *file = json_array_get(files, f);
                json_object_set(seen, text(file, "path"), json_object_get(file, "sha256"));
            }
        }
    }
    const char *path;
    json_t *hash;
    if (json_object_size(seen)) hb_text_add(out, "Read from (SHA-256):\n\n");
    json_object_foreach(seen, path, hash)
        hb_text_add(out, "- `%s` `%.16s`\n", path, json_string_value(hash));
    hb_text_add(out, "\n");
    json_decref(seen);
}

void hb_verify_markdown(const json_t *verdicts, const char *level, struct hb_text *out)
{
    summary(verdicts, out);
    // Groups in the order of their first claim.
    for (size_t i = 0; i < json_array_size(verdicts); i++) {
        const char *group = text(json_array_get(verdicts, i), "group");
        size_t k = 0;
        while (strcmp(text(json_array_get(verdicts, k), "group"), group)) k++;
        if (k == i) group_table(verdicts, group, level, out);
    }
    absent_table(verdicts, level, out);
    add_files(verdicts, out);
}

int hb_verify_write(const json_t *verdicts, const char *level, FILE *out)
{
    struct hb_text t = {0};
    hb_verify_markdown(verdicts, level, &t);
    int rc = hb_text_done(&t);
    if (!rc && fputs(t.s, out) < 0) rc = hb_fail(HB_ERR_RUN, "cannot write the table of claims");
    hb_text_free(&t);
    return rc;
}
