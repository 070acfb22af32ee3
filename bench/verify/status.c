// status.c: the rule `status`: what became of one point.
//
//     of      a point and L, or {"model", "device", "L", "D", "layers"}: a training run of that
//             size
//     value   1: out of memory, 0: it ran
#include <string.h>

#include "verify.h"

static bool same_word(const json_t *a, const json_t *b, const char *key, const char *of)
{
    const char *x = json_string_value(json_object_get(a, key)),
               *y = json_string_value(json_object_get(b, of));
    return !y || (x && !strncmp(x, y, strlen(y)));
}

static bool same_number(const json_t *a, const json_t *b, const char *key, const char *of)
{
    return json_integer_value(json_object_get(a, key)) ==
           json_integer_value(json_object_get(b, of));
}

// A training run of that size: one that ended well, else one that ran out of memory.
static const struct hb_cell *model_cell(const struct hb_evidence *e, const json_t *of)
{
    const struct hb_cell *found = NULL;
    for (size_t i = 0; i < e->r->n; i++) {
        const struct hb_cell *c = &e->r->cells[i];
        const json_t *x = c->entry;
        const bool ok = !strcmp(c->status, "ok");
        if (strncmp(c->name, "lm:", 3) || (!ok && strcmp(c->status, "oom")) || (found && !ok) ||
            json_object_get(x, "hb_control") || !same_word(x, of, "hb_pattern", "model") ||
            !same_word(x, of, "hb_device", "device") || !same_number(x, of, "hb_seq_len", "L") ||
            !same_number(x, of, "hb_width", "D") || !same_number(x, of, "hb_layers", "layers"))
            continue;
        found = c;
    }
    return found;
}

static void model_status(const struct hb_evidence *e, const json_t *of, struct hb_outcome *out)
{
    const struct hb_cell *c = model_cell(e, of);
    if (!c) {
        hb_outcome_none(out, "no run of that size");
        return;
    }
    const json_t *x = c->entry;
    const struct hb_str peak =
        hb_str_bytes(json_number_value(json_object_get(x, "max_bytes_used")));
    out->value = !strcmp(c->status, "oom");
    out->ci = (struct hb_interval){out->value, out->value};
    out->machine = hb_file_machine(c->file);
    hb_outcome_file(out, c->file);
    snprintf(out->ours, sizeof out->ours, "a model %s of %lld layers, D %lld, L %lld: %s%.200s",
             json_string_value(json_object_get(x, "hb_pattern")),
             (long long)json_integer_value(json_object_get(x, "hb_layers")),
             (long long)json_integer_value(json_object_get(x, "hb_width")),
             (long long)json_integer_value(json_object_get(x, "hb_seq_len")),
             out->value > 0 ? "out of memory: " : "it trained; peak ",
             out->value <= 0 ? peak.s : c->detail ? c->detail : "");
}

int hb_rule_status(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    struct hb_query q;
    const char *machine[64];
    if (json_object_get(json_object_get(check, "of"), "model")) {
        model_status(e, json_object_get(check, "of"), out);
        return 0;
    }
    const int rc = hb_query_read(check, "of", &q);
    if (rc) return rc;
    hb_query_command(&q, out->command, sizeof out->command);
    const size_t n = hb_machines(e->r, machine, 64);
    const struct hb_cell *c = NULL;
    for (size_t i = 0; i < n && !c; i++) {
        c = hb_query_find(e, &q, machine[i]);
        // Left out for lack of time says nothing about memory.
        if (c && strcmp(c->status, "ok") && strcmp(c->status, "oom")) c = NULL;
        if (c) out->machine = machine[i];
    }
    if (!c) {
        hb_outcome_none(out, "L %lld was not measured", (long long)q.L);
        return 0;
    }
    out->value = !strcmp(c->status, "oom");
    out->ci = (struct hb_interval){out->value, out->value};
    const char *detail = c->detail ? c->detail : "";
    const size_t said = strncmp(detail, "out of memory: ", 15) ? 0 : 15;
    snprintf(out->ours, sizeof out->ours, "`%s` at L %lld: %s%s%.200s", c->pt.impl,
             (long long)c->pt.p.L, out->value > 0 ? "out of memory" : "it ran",
             detail[said] ? ": " : "", detail + said);
    hb_outcome_file(out, c->file);
    return 0;
}
