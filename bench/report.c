// report.c: `hyena-bench report`: figures and REPORT.md from result files. Reads, never measures.
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "commands.h"
#include "crossover.h"

// --- what the sections share ---------------------------------------------------------------------

const char *hb_report_cpu(const struct hb_report *r, const char *machine)
{
    return hb_results_chip(&r->st->r, machine, false);
}

bool hb_report_has_gpu(const struct hb_report *r, const char *machine)
{
    for (size_t i = 0; i < r->st->set.n; i++)
        if (hb_on_gpu(r->st->set.s[i].set.device) && !strcmp(r->st->set.s[i].set.machine, machine))
            return true;
    for (size_t i = 0; i < r->st->lm.n; i++)
        if (hb_on_gpu(r->st->lm.run[i].device) && !strcmp(r->st->lm.run[i].machine, machine))
            return true;
    return false;
}

const char *hb_report_chip(const struct hb_report *r, const char *machine)
{
    return hb_results_chip(&r->st->r, machine, hb_report_has_gpu(r, machine));
}

void hb_report_subhead(struct hb_report *r, const char *machine)
{
    if (r->st->n_machines > 1)
        hb_text_add(&r->t, "### %s (`%s`)\n\n", hb_report_chip(r, machine), machine);
}

struct hb_words hb_report_where(const struct hb_setting *s)
{
    return hb_setting_str(s);
}

bool hb_report_duel(const struct hb_report *r, const char *machine, enum hb_pass pass,
                    struct hb_duel *out)
{
    const struct hb_setting *at = hb_setting_main(&r->st->set, machine, HB_SCOPE_OPERATOR, pass);
    *out = (struct hb_duel){.at = NULL};
    return at && hb_report_duel_at(r, at, out);
}

bool hb_report_duel_at(const struct hb_report *r, const struct hb_setting *at, struct hb_duel *out)
{
    *out = (struct hb_duel){.at = at};
    out->a = hb_series_best(&r->st->set, out->at, HB_MHA);
    out->h = hb_series_best(&r->st->set, out->at, HB_HYENA);
    for (size_t i = 0; i < r->st->x.n; i++) {
        const struct hb_crossover *c = &r->st->x.c[i];
        if (c->a != out->a || c->b != out->h) continue;
        if (c->metric == HB_METRIC_TIME) out->time = c;
        else out->mem = c;
    }
    return out->a && out->h;
}

void hb_report_figure(struct hb_report *r, const char *name, const char *machine)
{
    bool found = false;
    for (size_t i = 0; i < r->gallery->n; i++) {
        const struct hb_drawn *d = &r->gallery->d[i];
        if (strcmp(d->fig->name, name) || strcmp(d->machine, machine)) continue;
        found = true;
        if (d->why[0]) {
            hb_text_add(&r->t, "*No figure `%s`: %s.*\n\n", d->base, d->why);
            continue;
        }
        struct hb_words at = {""};  // what tells this figure from others of its name
        if (d->has_at) at = hb_setting_str(&d->at);
        hb_text_add(&r->t,
                    "![%s%s%s](plots/%s.png)\n\n*%s%s%s Also as [SVG](plots/%s.svg). Remake: "
                    "`build/hyena-bench plot --figure %s`.*\n\n",
                    d->fig->title, d->has_at ? "; " : "", at.s, d->base, at.s,
                    d->has_at ? ". " : "", d->fig->how, d->base, name);
    }
    if (!found)
        hb_text_add(&r->t, "*No figure `%s`. Remake: `build/hyena-bench plot --figure %s`.*\n\n",
                    name, name);
}

// --- the command ---------------------------------------------------------------------------------

static void sections(struct hb_report *r)
{
    static void (*const all[])(struct hb_report *) = {
        hb_report_finding,   hb_report_side,    hb_report_machine, hb_report_measured,
        hb_report_crossings, hb_report_growth,  hb_report_lengths, hb_report_peaks,
        hb_report_peers,     hb_report_pairs,   hb_report_paper,   hb_report_perplexity,
        hb_report_claims,    hb_report_missing, hb_report_reading,
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) all[i](r);
}

static int write_all(const struct hb_study *st, const char *dir)
{
    char path[4200];
    struct hb_gallery g = {0};
    struct hb_report r = {.st = st, .gallery = &g};
    json_t *doc = NULL;
    snprintf(path, sizeof path, "%s/plots", dir);
    int rc = hb_figures_draw(st, path, NULL, false, &g);
    if (!rc) rc = hb_pairs_make(&st->r, &st->set, "longconv_fftw_plain", "longconv_fftw", &r.pairs);
    if (!rc) {
        sections(&r);
        rc = hb_text_done(&r.t);
    }
    if (!rc && !(doc = hb_crossovers_json(&st->r, &st->set, &st->x))) rc = HB_ERR_RUN;
    snprintf(path, sizeof path, "%s/crossovers.json", dir);
    if (!rc) rc = hb_json_save(path, doc);
    snprintf(path, sizeof path, "%s/REPORT.md", dir);
    if (!rc) rc = hb_write_file(path, r.t.s, r.t.n);
    if (!rc && printf("%s\n", path) < 0)
        rc = hb_fail(HB_ERR_RUN, "cannot write to standard output");
    json_decref(doc);
    hb_text_free(&r.t);
    hb_pairs_free(&r.pairs);
    hb_gallery_free(&g);
    return rc;
}

int hb_cmd_report(int argc, char **argv)
{
    const char *out = NULL, *pos[257] = {0};
    const struct hb_opt opts[] = {
        {"out", HB_OPT_STR, &out, "DIR",
         "where REPORT.md and plots/ go (default: build/report)", 0, 0},
    };
    const struct hb_cli cli = {
        "report", "[RESULTS...] [--out DIR]",
        "Writes REPORT.md with all figures and tables from result files or folders.",
        "hyena-bench report --out /tmp/report",
        opts, sizeof opts / sizeof *opts, 0, 256};
    int n = 0, rc = hb_cli_parse(&cli, argc, argv, pos, &n);
    if (rc == HB_CLI_HELP) return 0;
    struct hb_study st = {0};
    char dir[4096];
    if (!rc) rc = hb_host_init(0, 0);
    if (!rc) rc = hb_out_dir(out, "/report", dir);
    if (!rc) rc = hb_study_open(pos, n, &st);
    if (!rc) rc = write_all(&st, dir);
    hb_study_close(&st);
    return hb_exit_code("report", rc);
}
