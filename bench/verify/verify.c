// verify.c: claims from their files, judged check by check.
#include "verify.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "judge.h"

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

// --- the claims' files ---------------------------------------------------------------------------

static int claim_is_whole(const json_t *c, const char *path)
{
    static const char *const words[] = {"id", "group", "title", "says", "published", "testability"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!*text(c, words[i]))
            return hb_fail(HB_ERR_INPUT, "%s: no \"%s\"", path, words[i]);
    if (!*text(json_object_get(c, "source"), "work"))
        return hb_fail(HB_ERR_INPUT, "%s: source names no \"work\"", path);
    if (!json_array_size(json_object_get(c, "checks")))
        return hb_fail(HB_ERR_INPUT, "%s: no checks", path);
    return 0;
}

static int by_order(const void *x, const void *y)
{
    json_t *const *a = x, *const *b = y;
    const json_int_t oa = json_integer_value(json_object_get(*a, "order")),
                     ob = json_integer_value(json_object_get(*b, "order"));
    return oa != ob ? (oa < ob ? -1 : 1) : strcmp(text(*a, "id"), text(*b, "id"));
}

static bool is_claim_file(const char *name)
{
    return name[0] != '.' && hb_ends_with(name, ".json");
}

// Sorted by order. New array of claims; NULL with the message set.
static json_t *load_claims(const char *dir, const char *only)
{
    DIR *d = opendir(dir);
    json_t *list[1024], *all = json_array();
    size_t n = 0;
    int rc = d ? 0 : hb_fail(HB_ERR_MISSING, "%s: no folder of claims", dir);
    for (const struct dirent *f; !rc && n < 1024 && (f = readdir(d));) {
        char path[4600];
        if (!is_claim_file(f->d_name)) continue;
        snprintf(path, sizeof path, "%.4200s/%.300s", dir, f->d_name);
        json_t *c = hb_json_load(path);
        rc = c ? claim_is_whole(c, path) : HB_ERR_INPUT;
        if (!rc && (!only || !strcmp(only, text(c, "id")))) list[n++] = c;
        else json_decref(c);
    }
    if (d) closedir(d);
    if (!rc && !n)
        rc = hb_fail(HB_ERR_INPUT, only ? "no claim '%.60s'; 'hyena-bench verify --list' shows them"
                                        : "%.60s: no claims", only ? only : dir);
    qsort(list, n, sizeof *list, by_order);
    for (size_t i = 0; i < n; i++) json_array_append_new(all, list[i]);
    if (!rc) return all;
    json_decref(all);
    return NULL;
}

// --- one check -----------------------------------------------------------------------------------

// What stands in documents, not in results: {verdict, evidence}.
static int rule_document(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    (void)e;
    out->verdict = hb_verdict_named(text(check, "verdict"));
    if (!out->verdict) return hb_fail(HB_ERR_INPUT, "rule document: a verdict and its evidence");
    const bool none = !strcmp(out->verdict, HB_NOT_HERE) || !strcmp(out->verdict, HB_NOT_MEASURED);
    snprintf(none ? out->why : out->ours, sizeof out->why, "%s", text(check, "evidence"));
    return 0;
}

static const struct { const char *name; hb_rule rule; } rules[] = {
    {"ratio", hb_rule_ratio},       {"status", hb_rule_status},
    {"exponent", hb_rule_exponent}, {"crossing", hb_rule_crossing},
    {"parity", hb_rule_parity},     {"accuracy", hb_rule_accuracy},
    {"count", hb_rule_count},       {"leak", hb_rule_leak},
    {"document", rule_document},
};

static hb_rule rule_named(const char *name)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!strcmp(rules[i].name, name)) return rules[i].rule;
    return NULL;
}

// Where the number lies, in words, if the rule gave none.
static void explain(const json_t *check, struct hb_outcome *o)
{
    const json_t *bands = json_object_get(check, "bands");
    double lo = INFINITY, hi = -INFINITY;
    if (*o->why || !isfinite(o->value) || !json_array_size(bands)) return;
    const char *otherwise = text(check, "otherwise");
    for (size_t i = 0; i < json_array_size(bands); i++) {
        const json_t *b = json_array_get(bands, i), *l = json_object_get(b, "lo"),
                     *h = json_object_get(b, "hi");
        if (!strcmp(o->verdict, text(b, "verdict"))) return;   // it lies in a band of that verdict
        lo = fmin(lo, l ? json_number_value(l) : -INFINITY);
        hi = fmax(hi, h ? json_number_value(h) : INFINITY);
    }
    if (o->ci.lo > hi && *text(check, "above")) otherwise = text(check, "above");
    if (*otherwise) snprintf(o->why, sizeof o->why, "%s", otherwise);
    else if (!strcmp(o->verdict, HB_INCONCLUSIVE))
        snprintf(o->why, sizeof o->why, "the interval reaches over the edge of what counts");
    else if (!strcmp(o->verdict, HB_CONTRADICTED))
        snprintf(o->why, sizeof o->why, o->ci.lo > hi  ? "above the %s that would count"
                                        : o->ci.hi < lo ? "below the %s that would count"
                                                        : "outside of what would count",
                 hb_str_num(o->ci.lo > hi ? hi : lo).s);
}

// What only another machine could compute (rule leak, on a GPU) may stand in a file that
// `verify --out results/claims/NAME.verdicts` wrote there: the same claim and label, with a number.
// Of several the largest, whatever order the folder has them in: a leak is judged by its worst.
static void look_up(const char *claim, const json_t *check, struct hb_outcome *o)
{
    char dir[4200];
    snprintf(dir, sizeof dir, "%.4000s/results/claims", hb_root_dir());
    DIR *d = opendir(dir);
    for (const struct dirent *f; d && (f = readdir(d));) {
        char path[4600];
        const size_t n = strlen(f->d_name);
        if (n < 9 || strcmp(f->d_name + n - 9, ".verdicts")) continue;
        snprintf(path, sizeof path, "%s/%.300s", dir, f->d_name);
        json_t *all = hb_json_load(path);
        for (size_t i = 0; i < json_array_size(all); i++) {
            const json_t *c = json_array_get(all, i), *checks = json_object_get(c, "checks");
            for (size_t k = 0; !strcmp(text(c, "id"), claim) && k < json_array_size(checks); k++) {
                const json_t *x = json_array_get(checks, k), *v = json_object_get(x, "value");
                if (strcmp(text(x, "label"), text(check, "label")) || !json_is_number(v) ||
                    json_number_value(v) <= o->value)
                    continue;
                o->value = json_number_value(v);
                o->ci = (struct hb_interval){o->value, o->value};
                o->why[0] = 0;
                snprintf(o->ours, sizeof o->ours, "%s (on %s)", text(x, "ours"),
                         text(x, "machine"));
                snprintf(o->stored, sizeof o->stored, "results/claims/%.200s", f->d_name);
            }
        }
        json_decref(all);
        hb_error_clear();
    }
    if (d) closedir(d);
}

// Null for what is no number: JSON has no NaN.
static json_t *real(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static const char *path_of(const struct hb_results *r, const json_t *file)
{
    const size_t root = strlen(hb_root_dir());
    for (size_t i = 0; i < r->n_files; i++)
        if (r->files[i] == file)
            return !strncmp(r->paths[i], hb_root_dir(), root) && r->paths[i][root] == '/'
                       ? r->paths[i] + root + 1
                       : r->paths[i];
    return NULL;
}

// {path, sha256} of what the number was read from. Hashes are kept: many claims share a file.
static json_t *files_json(const struct hb_evidence *e, const struct hb_outcome *o, json_t *hashes)
{
    json_t *all = json_array();
    const char *more[] = {e->has_peers ? o->peers : NULL, *o->stored ? o->stored : NULL};
    for (size_t i = 0; i < o->n_files + 2; i++) {
        char full[4200], hex[65];
        const char *path = i < o->n_files ? path_of(e->r, o->file[i]) : more[i - o->n_files];
        if (!path) continue;
        if (!json_object_get(hashes, path)) {
            snprintf(full, sizeof full, "%.2000s/%.2000s", hb_root_dir(), path);
            if (hb_sha256_file(path[0] == '/' ? path : full, hex) && hb_sha256_file(path, hex))
                hex[0] = 0;                // the user's path: of the folder it was named in
            hb_error_clear();
            json_object_set_new(hashes, path, json_string(hex));
        }
        json_array_append_new(all, json_pack("{s:s,s:O}", "path", path, "sha256",
                                             json_object_get(hashes, path)));
    }
    return all;
}

// New reference, NULL with the message set. *verdict: static.
static json_t *judge_check(const struct hb_evidence *e, const json_t *claim, const json_t *check,
                           json_t *hashes, const char **verdict)
{
    static struct hb_outcome o;
    o = (struct hb_outcome){.value = NAN, .ci = {NAN, NAN}};
    const hb_rule rule = rule_named(text(check, "rule"));
    if (!rule) {
        hb_fail(HB_ERR_INPUT, "claim %.40s: no rule '%.40s'", text(claim, "id"),
                text(check, "rule"));
        return NULL;
    }
    if (rule(e, check, &o)) return NULL;
    if (rule == hb_rule_leak && isnan(o.value)) look_up(text(claim, "id"), check, &o);
    if (!o.verdict)
        o.verdict = isnan(o.value) ? HB_NOT_MEASURED : hb_judge(check, o.value, o.ci);
    if (!o.verdict) return NULL;
    explain(check, &o);
    *verdict = o.verdict;
    // For comparison and without bands: a number, no verdict.
    if (json_is_true(json_object_get(check, "shows")) && !json_object_get(check, "bands"))
        o.verdict = "";
    const char *command = *text(check, "command") ? text(check, "command")
                          : *text(claim, "command") ? text(claim, "command") : o.command;
    const bool shows = json_is_true(json_object_get(check, "shows")),
               in_table = json_is_true(json_object_get(check, "in_table"));
    const char *bound = *text(check, "bound") ? text(check, "bound") : o.bound;
    return json_pack("{s:s,s:s,s:b,s:b,s:s,s:o,s:[oo],s:s,s:s,s:s,s:s,s:s?,s:s,s:o}",
                     "label", text(check, "label"), "rule", text(check, "rule"),
                     "shows", shows, "in_table", in_table, "verdict", o.verdict,
                     "value", real(o.value), "ci95", real(o.ci.lo), real(o.ci.hi),
                     "ours", o.ours, "of", o.of, "bound", bound, "why", o.why, "machine", o.machine,
                     "command", command, "files", files_json(e, &o, hashes));
}

// --- one claim -----------------------------------------------------------------------------------

static int judge_claim(const struct hb_evidence *e, const json_t *claim, json_t *hashes,
                       json_t *out)
{
    static const char *const copied[] = {"id", "group", "title", "says", "published", "source",
                                         "testability", "conditions", "scope", "baseline",
                                         "measured", "tolerance", "note", "needs", "order"};
    const char *v[64], *why = "";
    const json_t *checks = json_object_get(claim, "checks");
    json_t *row = json_object(), *judged = json_array();
    size_t n = 0;
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
        json_t *x = json_object_get(claim, copied[i]);
        if (x) json_object_set(row, copied[i], x);
    }
    json_object_set_new(row, "checks", judged);
    json_array_append_new(out, row);
    for (size_t i = 0; i < json_array_size(checks) && n < 64; i++) {
        const json_t *check = json_array_get(checks, i);
        const char *verdict = NULL;
        json_t *c = judge_check(e, claim, check, hashes, &verdict);
        if (!c) return hb_error_code() ? hb_error_code() : hb_fail(HB_ERR_RUN, "claim %.40s: check "
                                                                               "%zu", text(claim,
                                                                               "id"), i + 1);
        json_array_append_new(judged, c);
        if (!json_is_true(json_object_get(check, "shows"))) v[n++] = verdict;
    }
    const char *how = text(claim, "combine");
    const char *verdict = hb_verdict_join(v, n, !strcmp(how, "any")     ? HB_JOIN_ANY
                                                : !strcmp(how, "agree") ? HB_JOIN_AGREE
                                                                        : HB_JOIN_ALL);
    for (size_t i = 0; i < json_array_size(judged); i++) {
        const json_t *c = json_array_get(judged, i);
        if (!*why && !json_is_true(json_object_get(c, "shows")) && !strcmp(text(c, "verdict"),
                                                                          verdict))
            why = text(c, "why");
    }
    if (!*why && !strcmp(how, "agree") && !strcmp(verdict, HB_INCONCLUSIVE))
        why = "its parts disagree";
    json_object_set_new(row, "verdict", json_string(verdict));
    json_object_set_new(row, "why", json_string(why));
    char repeat[96];
    snprintf(repeat, sizeof repeat, "hyena-bench verify --claim %s", text(claim, "id"));
    json_object_set_new(row, "command", json_string(repeat));
    return 0;
}

static int collect(const struct hb_results *r, struct hb_evidence *e)
{
    *e = (struct hb_evidence){.r = r};
    int rc = hb_lm_make(r, &e->lm);
    if (rc) return rc;
    e->has_peers = !hb_peers_load(&e->peers);
    hb_error_clear();                // without the tables their claims are inconclusive
    return 0;
}

json_t *hb_verify_all(const struct hb_results *r, const char *dir, const char *only)
{
    char folder[4200];
    struct hb_evidence e;
    snprintf(folder, sizeof folder, "%.4000s/bench/claims", hb_root_dir());
    json_t *claims = load_claims(dir ? dir : folder, only), *out = NULL, *hashes = json_object();
    int rc = claims ? collect(r, &e) : HB_ERR_INPUT;
    if (!rc) {
        out = json_array();
        for (size_t i = 0; i < json_array_size(claims) && !rc; i++)
            rc = judge_claim(&e, json_array_get(claims, i), hashes, out);
        hb_lm_free(&e.lm);
        hb_peers_free(&e.peers);
    }
    json_decref(hashes);
    json_decref(claims);
    if (!rc) return out;
    json_decref(out);
    return NULL;
}
