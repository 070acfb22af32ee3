// table.c: text that grows, markdown tables, and numbers with units.
#include "table.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

// --- text ----------------------------------------------------------------------------------------

static bool text_room(struct hb_text *t, size_t more)
{
    if (t->n + more + 1 <= t->cap) return true;
    size_t cap = t->cap ? t->cap : 1024;
    while (cap < t->n + more + 1) cap *= 2;
    char *s = realloc(t->s, cap);
    if (!s) {
        t->failed = true;
        return false;
    }
    t->s = s;
    t->cap = cap;
    return true;
}

void hb_text_add(struct hb_text *t, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) t->failed = true;
    else if (!t->failed && text_room(t, (size_t)n)) {
        vsnprintf(t->s + t->n, (size_t)n + 1, fmt, again);
        t->n += (size_t)n;
    }
    va_end(again);
}

int hb_text_done(const struct hb_text *t)
{
    return t->failed ? hb_fail(HB_ERR_OOM, "no memory for %zu bytes of text", t->n) : 0;
}

void hb_text_free(struct hb_text *t)
{
    free(t->s);
    *t = (struct hb_text){0};
}

// --- tables --------------------------------------------------------------------------------------

static void table_push(struct hb_table *t, char *s)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        char **cell = realloc(t->cell, cap * sizeof *cell);
        if (!cell) {
            free(s);
            t->failed = true;
            return;
        }
        t->cell = cell;
        t->cap = cap;
    }
    t->cell[t->n++] = s;
}

void hb_table_head(struct hb_table *t, const char *heads)
{
    for (const char *p = heads;; p += 1) {
        size_t n = strcspn(p, "|");
        char *s = strndup(p, n);
        if (s) table_push(t, s);
        else t->failed = true;
        t->cols++;
        p += n;
        if (!*p) return;
    }
}

void hb_table_cell(struct hb_table *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = NULL;
    if (vasprintf(&s, fmt, ap) < 0) t->failed = true;
    else table_push(t, s);
    va_end(ap);
}

bool hb_table_empty(const struct hb_table *t) { return t->n <= (size_t)t->cols; }

// Columns on a screen: UTF-8 continuation bytes take none.
static int width(const char *s)
{
    int n = 0;
    for (; *s; s++) n += (*s & 0xC0) != 0x80;
    return n;
}

static void print_cell(struct hb_text *out, const char *s, int w, bool right)
{
    const int pad = w - width(s);
    hb_text_add(out, " %*s%s%*s |", right && pad > 0 ? pad : 0, "", s, right || pad < 0 ? 0 : pad,
                "");
}

void hb_table_print(struct hb_table *t, struct hb_text *out)
{
    if (t->failed || t->cols <= 0) {
        out->failed = out->failed || t->failed;
        hb_table_free(t);
        return;
    }
    const int cols = t->cols;
    const size_t rows = t->n / (size_t)cols;
    for (size_t r = 0; r < rows; r++) {
        hb_text_add(out, "|");
        for (int c = 0; c < cols; c++) {
            const bool right = t->cell[c][0] == '>';
            int w = 3;  // the rule below needs three characters
            for (size_t k = 0; k < rows; k++) {
                const char *s = t->cell[k * (size_t)cols + (size_t)c];
                const int n = width(s) - (k == 0 && right);
                if (n > w) w = n;
            }
            const char *s = t->cell[r * (size_t)cols + (size_t)c];
            if (c == cols - 1 && !right) w = 0;  // the last column may be long: no padding
            print_cell(out, s + (r == 0 && right), w, right);
        }
        hb_text_add(out, "\n");
        if (r) continue;
        hb_text_add(out, "|");
        for (int c = 0; c < cols; c++) hb_text_add(out, t->cell[c][0] == '>' ? " --: |" : " --- |");
        hb_text_add(out, "\n");
    }
    hb_table_free(t);
}

void hb_table_free(struct hb_table *t)
{
    for (size_t i = 0; i < t->n; i++) free(t->cell[i]);
    free(t->cell);
    *t = (struct hb_table){0};
}

// --- numbers -------------------------------------------------------------------------------------

struct hb_str hb_str_num(double x)
{
    struct hb_str r;
    const double a = fabs(x);
    if (!isfinite(x)) snprintf(r.s, sizeof r.s, "-");
    else if (a != 0 && (a < 1e-3 || a >= 1e6)) snprintf(r.s, sizeof r.s, "%.2e", x);
    else {
        const int lead = a > 0 ? (int)floor(log10(a)) : 0;
        snprintf(r.s, sizeof r.s, "%.*f", lead >= 2 ? 0 : 2 - lead, x);
    }
    return r;
}

static struct hb_str scaled(double x, double base, const char *const *units, int n)
{
    struct hb_str r;
    if (!isfinite(x)) {
        snprintf(r.s, sizeof r.s, "-");
        return r;
    }
    int k = 0;
    while (k + 1 < n && x >= base) {
        x /= base;
        k++;
    }
    snprintf(r.s, sizeof r.s, "%.24s %s", hb_str_num(x).s, units[k]);
    return r;
}

struct hb_str hb_str_time(double ns)
{
    static const char *const units[] = {"ns", "µs", "ms", "s"};
    return scaled(ns, 1000, units, 4);
}

struct hb_str hb_str_bytes(double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    return scaled(bytes, 1024, units, 5);
}

struct hb_str hb_str_len(double L)
{
    struct hb_str r;
    if (isfinite(L)) snprintf(r.s, sizeof r.s, "%.0f", L);
    else snprintf(r.s, sizeof r.s, "-");
    return r;
}

struct hb_str hb_str_interval(struct hb_interval i)
{
    struct hb_str r;
    if (isfinite(i.lo) && isfinite(i.hi))
        snprintf(r.s, sizeof r.s, "[%.24s, %.24s]", hb_str_num(i.lo).s, hb_str_num(i.hi).s);
    else snprintf(r.s, sizeof r.s, "-");
    return r;
}

struct hb_str hb_str_lens(struct hb_interval i)
{
    struct hb_str r;
    snprintf(r.s, sizeof r.s, "[%.0f, %.0f]", i.lo, i.hi);
    return r;
}

struct hb_str hb_str_ratio(struct hb_ratio x)
{
    struct hb_str r;
    if (!isfinite(x.r)) snprintf(r.s, sizeof r.s, "-");
    else if (!isfinite(x.ci95.lo)) return hb_str_num(x.r);
    else snprintf(r.s, sizeof r.s, "%.12s %.48s", hb_str_num(x.r).s, hb_str_interval(x.ci95).s);
    return r;
}

struct hb_str hb_str_pct(double share)
{
    struct hb_str r;
    if (isfinite(share)) snprintf(r.s, sizeof r.s, "%.*f %%", share < 0.1 ? 1 : 0, 100 * share);
    else snprintf(r.s, sizeof r.s, "-");
    return r;
}
