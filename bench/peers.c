// peers.c: the tables under results/peers: tab-separated, '#' opens a comment, "-" is no value.
#include "peers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "point.h"

enum { COLUMNS = 12, TRAINING_COLUMNS = 6, LINE = 1024 };

// "-": NAN. false: neither a number nor "-".
static bool number(const char *s, double *out)
{
    char *end;
    *out = NAN;
    if (!strcmp(s, "-")) return true;
    *out = strtod(s, &end);
    return end != s && !*end;
}

static int split(char *line, char **cell, int cap)
{
    int n = 0;
    line[strcspn(line, "\r\n")] = 0;
    for (char *p = line; n < cap; p++) {
        cell[n++] = p;
        p += strcspn(p, "\t");
        if (!*p) break;
        *p = 0;
    }
    return n;
}

// what M L causal dtype B D fwd_ms bwd_ms mem_MiB rel_l2_error note
static bool parse_peer(char **cell, int n, struct hb_peer *out)
{
    double v[COLUMNS];
    if (n < COLUMNS) return false;
    for (int i = 1; i < COLUMNS - 1; i++)
        if (i != 4 && !number(cell[i], &v[i])) return false;
    *out = (struct hb_peer){.M = isnan(v[1]) ? 0 : (int64_t)v[1],
                            .L = (int64_t)v[2],
                            .causal = v[3] > 0,
                            .B = isnan(v[5]) ? 0 : (int64_t)v[5],
                            .D = (int64_t)v[6],
                            .fwd_ms = v[7],
                            .bwd_ms = v[8],
                            .mem_bytes = v[9] * 0x1p20,
                            .error = v[10]};
    snprintf(out->what, sizeof out->what, "%.23s", cell[0]);
    return !hb_dtype_parse(cell[4], &out->dtype);
}

// what L B tokens_per_s mem_GiB params_M
static bool parse_training(char **cell, int n, struct hb_peer_training *out)
{
    double v[TRAINING_COLUMNS];
    if (n < TRAINING_COLUMNS) return false;
    for (int i = 1; i < TRAINING_COLUMNS; i++)
        if (!number(cell[i], &v[i])) return false;
    *out = (struct hb_peer_training){.L = (int64_t)v[1], .B = (int64_t)v[2],
                                     .tokens_per_s = v[3], .mem_bytes = v[4] * 0x1p30,
                                     .params = v[5] * 1e6};
    snprintf(out->what, sizeof out->what, "%.23s", cell[0]);
    return true;
}

// Appends one row to the table of this file.
static int add_row(struct hb_peers *p, bool training, char **cell, int n, const char *where, int at)
{
    const size_t count = training ? p->nt : p->n;
    void *bigger = realloc(training ? (void *)p->t : (void *)p->p,
                           (count + 1) * (training ? sizeof *p->t : sizeof *p->p));
    if (!bigger) return hb_fail(HB_ERR_OOM, "no memory for %zu rows of %s", count + 1, where);
    if (training) p->t = bigger;
    else p->p = bigger;
    if (training ? !parse_training(cell, n, &p->t[count]) : !parse_peer(cell, n, &p->p[count]))
        return hb_fail(HB_ERR_INPUT, "%s:%d: not a row of this table", where, at);
    if (training) p->nt++;
    else p->n++;
    return 0;
}

static int load(struct hb_peers *p, const char *file, bool training)
{
    char path[4200], line[LINE], *cell[COLUMNS] = {0};
    snprintf(path, sizeof path, "%.4000s/results/peers/%s", hb_root_dir(), file);
    FILE *f = fopen(path, "r");
    if (!f) return hb_fail(HB_ERR_MISSING, "%s: not there", path);
    int rc = 0;
    for (int at = 1; !rc && fgets(line, sizeof line, f); at++) {
        if (line[0] == '#' || line[0] == '\n') continue;
        const int n = split(line, cell, COLUMNS);
        if (strcmp(cell[0], "what")) rc = add_row(p, training, cell, n, path, at);
    }
    if (fclose(f) && !rc) rc = hb_fail(HB_ERR_RUN, "%s: cannot read", path);
    return rc;
}

int hb_peers_load(struct hb_peers *out)
{
    *out = (struct hb_peers){0};
    int rc = load(out, "h100-pytorch.tsv", false);
    if (!rc) rc = load(out, "h100-pytorch-training.tsv", true);
    if (rc) hb_peers_free(out);
    return rc;
}

void hb_peers_free(struct hb_peers *p)
{
    free(p->p);
    free(p->t);
    *p = (struct hb_peers){0};
}

const struct hb_peer *hb_peer_find(const struct hb_peers *p, const char *what, int64_t L,
                                   enum hb_dtype dtype, int64_t B)
{
    for (size_t i = 0; i < p->n; i++)
        if (!strcmp(p->p[i].what, what) && p->p[i].L == L && p->p[i].dtype == dtype &&
            p->p[i].B == B && p->p[i].causal)
            return &p->p[i];
    return NULL;
}

const struct hb_peer_training *hb_peer_training_find(const struct hb_peers *p, const char *what,
                                                     int64_t L)
{
    for (size_t i = 0; i < p->nt; i++)
        if (!strcmp(p->t[i].what, what) && p->t[i].L == L) return &p->t[i];
    return NULL;
}
