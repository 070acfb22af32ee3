// sweep_past.c: what earlier runs on this machine measured, so that predictions are good
// from the first point on.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sweep.h"

enum { NEWEST = 3 };                 // result files read: older ones say the same

static int is_result(const struct dirent *e)
{
    return e->d_name[0] != '.' && hb_ends_with(e->d_name, ".json");
}

static int take(struct sweep *s, const struct hb_results *r)
{
    struct sweep_past *p = realloc(s->past, (s->n_past + r->n + 1) * sizeof *p);
    if (!p) return hb_fail(HB_ERR_OOM, "no memory for earlier results");
    s->past = p;
    for (size_t i = 0; i < r->n; i++) {
        const struct hb_cell *c = &r->cells[i];
        if (!c->has_pt || strcmp(c->status, "ok") || !(c->median_ns > 0)) continue;
        double setup = json_number_value(json_object_get(c->entry, "hb_setup_s"));
        s->past[s->n_past++] = (struct sweep_past){ c->pt, c->median_ns, setup };
    }
    return 0;
}

int hb_sweep_remember(struct sweep *s)
{
    char folder[4300], path[4600];
    struct dirent **e;
    int rc = 0;
    int len = snprintf(folder, sizeof folder, "%s/results/%s", hb_build_dir(), hb_machine_id());
    int n = len > 0 && (size_t)len < sizeof folder ? scandir(folder, &e, is_result, alphasort) : -1;
    if (n < 0) return 0;             // nothing has run here yet
    for (int i = n - 1; i >= 0; i--) {                       // run ids sort by time
        const char *const paths[] = { path, NULL };
        struct hb_results r;
        snprintf(path, sizeof path, "%s/%.255s", folder, e[i]->d_name);
        free(e[i]);
        if (rc || i < n - NEWEST) continue;
        if (hb_results_load(paths, &r)) { hb_error_clear(); continue; }
        rc = take(s, &r);
        hb_results_free(&r);
    }
    free(e);
    return rc;
}
