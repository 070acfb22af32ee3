// derive_pairs.c: two implementations side by side over settings and lengths.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "derive.h"

static struct hb_setting setting_of(const struct hb_point *pt, const json_t *file)
{
    struct hb_setting s = {.machine = hb_file_machine(file),
                           .scope = pt->scope,
                           .pass = pt->pass,
                           .mode = pt->mode,
                           .dtype = pt->p.dtype,
                           .B = pt->p.B,
                           .D = pt->p.D,
                           .threads = pt->p.threads};
    memcpy(s.device, pt->device, sizeof s.device);
    return s;
}

// Adds p, or replaces the pair of the same setting and length if p is alternated (or the old one is
// not).
static int put_pair(struct hb_pair_set *out, const struct hb_pair *p)
{
    for (size_t i = 0; i < out->n; i++) {
        if (out->p[i].L != p->L || hb_setting_cmp(&out->p[i].set, &p->set)) continue;
        if (p->n || !out->p[i].n) out->p[i] = *p;
        return 0;
    }
    struct hb_pair *grown = realloc(out->p, (out->n + 1) * sizeof *grown);
    if (!grown) return hb_fail(HB_ERR_OOM, "no memory for %zu pairs", out->n + 1);
    out->p = grown;
    out->p[out->n++] = *p;
    return 0;
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

// One row of hb_pairs, turned so that it is a over b. false: other implementations, or not a whole
// row.
static bool read_pair(const json_t *row, const json_t *file, const char *a, const char *b,
                      struct hb_pair *p)
{
    struct hb_point pa, pb;
    const char *na = json_string_value(json_object_get(row, "a")),
               *nb = json_string_value(json_object_get(row, "b"));
    const json_t *ci = json_object_get(row, "ratio_ci95");
    if (!na || !nb) return false;
    if (hb_point_parse(na, &pa) || hb_point_parse(nb, &pb)) {
        hb_error_clear();
        return false;
    }
    const bool straight = !strcmp(pa.impl, a) && !strcmp(pb.impl, b),
               turned = !strcmp(pa.impl, b) && !strcmp(pb.impl, a);
    const double r = number(row, "ratio"), lo = json_number_value(json_array_get(ci, 0)),
                 hi = json_number_value(json_array_get(ci, 1));
    *p = (struct hb_pair){.set = setting_of(&pa, file), .L = pa.p.L, .n = (int)number(row, "n")};
    const struct hb_setting other = setting_of(&pb, file);
    if ((!straight && !turned) || !(r > 0 && lo > 0 && hi >= lo) || pa.p.L != pb.p.L ||
        hb_setting_cmp(&p->set, &other))
        return false;
    p->ratio = straight ? (struct hb_ratio){r, {lo, hi}}
                        : (struct hb_ratio){1 / r, {1 / hi, 1 / lo}};
    p->a_ns = number(row, straight ? "a_median_ns" : "b_median_ns");
    p->b_ns = number(row, straight ? "b_median_ns" : "a_median_ns");
    return true;
}

static int add_separate(const struct hb_series *sa, const struct hb_series *sb,
                        struct hb_pair_set *out)
{
    for (size_t k = 0; k < sa->n; k++) {
        const struct hb_cell *a = sa->cell[k], *b = hb_series_at(sb, a->pt.p.L);
        struct hb_pair p = {.set = sa->set, .L = a->pt.p.L, .ratio = hb_cell_ratio(a, b)};
        if (!isfinite(p.ratio.r)) continue;
        p.a_ns = a->median_ns;
        p.b_ns = b->median_ns;
        const int rc = put_pair(out, &p);
        if (rc) return rc;
    }
    return 0;
}

static int pair_cmp(const void *x, const void *y)
{
    const struct hb_pair *a = x, *b = y;
    const int s = hb_setting_cmp(&a->set, &b->set);
    return s ? s : a->L < b->L ? -1 : a->L > b->L;
}

int hb_pairs_make(const struct hb_results *r, const struct hb_series_set *set, const char *a,
                  const char *b, struct hb_pair_set *out)
{
    int rc = 0;
    *out = (struct hb_pair_set){0};
    for (size_t i = 0; i < set->n && !rc; i++) {
        if (strcmp(set->s[i].impl, a)) continue;
        const struct hb_series *sb = hb_series_find(set, &set->s[i].set, b);
        if (sb) rc = add_separate(&set->s[i], sb, out);
    }
    for (size_t f = 0; f < r->n_files && !rc; f++) {
        const json_t *rows = json_object_get(r->files[f], "hb_pairs");
        for (size_t i = 0; i < json_array_size(rows) && !rc; i++) {
            struct hb_pair p;
            if (read_pair(json_array_get(rows, i), r->files[f], a, b, &p)) rc = put_pair(out, &p);
        }
    }
    if (rc) {
        hb_pairs_free(out);
        return rc;
    }
    if (out->n) qsort(out->p, out->n, sizeof *out->p, pair_cmp);
    return 0;
}

void hb_pairs_free(struct hb_pair_set *p)
{
    free(p->p);
    *p = (struct hb_pair_set){0};
}
