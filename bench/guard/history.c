// history.c: what comparisons found, in an SQLite file, and the steps in it.
//
// Tables    runs (id, date, fingerprint, machine, base, head, exit_code), results (run, name, tier,
//           metric, base, head, verdict). Only runs of one fingerprint are ever compared.
// Steps     a series of the head's medians is split where Mann-Whitney between the two sides is
//           smallest; the split counts if p times the number of places <= 0.01 and the medians
//           differ by 2 %; both sides are split again. Advisory: other days are other machines.
#include <math.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "guard.h"

enum { SEGMENT = 5, RUNS = 200 };
#define STEP_P 0.01
#define STEP_SHARE 0.02

// --- steps ---------------------------------------------------------------------------------------

static int by_place(const void *a, const void *b)
{
    size_t x = ((const struct guard_step *)a)->at, y = ((const struct guard_step *)b)->at;
    return (x > y) - (x < y);
}

static size_t split(const double *x, size_t from, size_t to, struct guard_step *out, size_t cap)
{
    struct guard_step best = { 0, 0, 0, 2 };
    if (to - from < 2 * SEGMENT || cap == 0) return 0;
    double places = (double)(to - from - 2 * SEGMENT + 1);
    for (size_t at = from + SEGMENT; at + SEGMENT <= to; at++) {
        double p = hb_mann_whitney_p(x + from, at - from, x + at, to - at);
        if (p < best.p) best = (struct guard_step){ .at = at, .p = p };
    }
    if (!(best.p * places <= STEP_P)) return 0;
    best.p = fmin(1, best.p * places);
    best.before = hb_median(x + from, best.at - from);
    best.after = hb_median(x + best.at, to - best.at);
    if (fabs(log(best.after / best.before)) < STEP_SHARE) return 0;
    out[0] = best;
    size_t n = 1 + split(x, from, best.at, out + 1, cap - 1);
    return n + split(x, best.at, to, out + n, cap - n);
}

size_t guard_steps(const double *x, size_t n, struct guard_step *out, size_t cap)
{
    size_t found = split(x, 0, n, out, cap);
    qsort(out, found, sizeof *out, by_place);
    for (size_t i = 0; i < found; i++) {         // levels between neighbouring steps
        size_t from = i ? out[i - 1].at : 0, to = i + 1 < found ? out[i + 1].at : n;
        out[i].before = hb_median(x + from, out[i].at - from);
        out[i].after = hb_median(x + out[i].at, to - out[i].at);
    }
    return found;
}

// --- the file ------------------------------------------------------------------------------------

struct guard_history { sqlite3 *db; };

static int failed(struct guard_history *h, const char *what)
{
    return hb_fail(HB_ERR_RUN, "history: %s: %s", what, sqlite3_errmsg(h->db));
}

static int execute(struct guard_history *h, const char *sql)
{
    return sqlite3_exec(h->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : failed(h, sql);
}

void guard_history_close(struct guard_history *h)
{
    if (!h) return;
    sqlite3_close(h->db);
    free(h);
}

int guard_history_open(const char *path, struct guard_history **out)
{
    struct guard_history *h = calloc(1, sizeof *h);
    *out = NULL;
    if (!h) return hb_fail(HB_ERR_OOM, "no memory for the history");
    int rc = sqlite3_open(path, &h->db) == SQLITE_OK ? 0 : failed(h, path);
    if (!rc) sqlite3_busy_timeout(h->db, 5000);
    if (!rc)
        rc = execute(h, "CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, date TEXT, "
                        "fingerprint TEXT, machine TEXT, base TEXT, head TEXT, exit_code INTEGER);"
                        "CREATE TABLE IF NOT EXISTS results (run INTEGER REFERENCES runs(id), "
                        "name TEXT, tier TEXT, metric TEXT, base REAL, head REAL, verdict TEXT);"
                        "CREATE INDEX IF NOT EXISTS by_name ON results (tier, metric, name, run)");
    if (rc) guard_history_close(h);
    else *out = h;
    return rc;
}

static const char *str(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));       // NULL binds as NULL
}

static void bind_number(sqlite3_stmt *s, int at, const json_t *v)
{
    if (json_is_number(v)) sqlite3_bind_double(s, at, json_number_value(v));
    else sqlite3_bind_null(s, at);
}

static int add_run(struct guard_history *h, const json_t *doc)
{
    sqlite3_stmt *s = NULL;
    const char *text[] = { str(doc, "date"), str(doc, "fingerprint"), str(doc, "machine"),
                           str(json_object_get(doc, "base"), "git"),
                           str(json_object_get(doc, "head"), "git") };
    if (sqlite3_prepare_v2(h->db, "INSERT INTO runs (date, fingerprint, machine, base, head, "
                                  "exit_code) VALUES (?,?,?,?,?,?)", -1, &s, NULL) != SQLITE_OK)
        return failed(h, "runs");
    for (int i = 0; i < 5; i++) sqlite3_bind_text(s, i + 1, text[i], -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 6, json_integer_value(json_object_get(doc, "exit_code")));
    int rc = sqlite3_step(s) == SQLITE_DONE ? 0 : failed(h, "runs");
    sqlite3_finalize(s);
    return rc;
}

static int add_rows(struct guard_history *h, const json_t *rows, sqlite3_int64 run, bool exact)
{
    sqlite3_stmt *s = NULL;
    size_t i;
    json_t *row;
    int rc = 0;
    if (sqlite3_prepare_v2(h->db, "INSERT INTO results VALUES (?,?,?,?,?,?,?)", -1, &s, NULL)
        != SQLITE_OK)
        return failed(h, "results");
    json_array_foreach(rows, i, row) {
        const char *metric = exact ? str(row, "metric") : "time_ns";
        sqlite3_reset(s);
        sqlite3_bind_int64(s, 1, run);
        sqlite3_bind_text(s, 2, str(row, "name"), -1, SQLITE_STATIC);
        sqlite3_bind_text(s, 3, exact ? "exact" : "paired", -1, SQLITE_STATIC);
        sqlite3_bind_text(s, 4, metric, -1, SQLITE_STATIC);
        bind_number(s, 5, json_object_get(row, exact ? "base" : "base_median_ns"));
        bind_number(s, 6, json_object_get(row, exact ? "head" : "head_median_ns"));
        sqlite3_bind_text(s, 7, str(row, "verdict"), -1, SQLITE_STATIC);
        if (sqlite3_step(s) != SQLITE_DONE) { rc = failed(h, "results"); break; }
    }
    sqlite3_finalize(s);
    return rc;
}

int guard_history_add(struct guard_history *h, const json_t *doc)
{
    int rc = execute(h, "BEGIN IMMEDIATE");
    if (rc) return rc;
    rc = add_run(h, doc);
    sqlite3_int64 run = sqlite3_last_insert_rowid(h->db);
    if (!rc) rc = add_rows(h, json_object_get(doc, "exact"), run, true);
    if (!rc) rc = add_rows(h, json_object_get(doc, "paired"), run, false);
    if (!rc) return execute(h, "COMMIT");
    sqlite3_exec(h->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

// One point's series, oldest first.
struct series { char name[HB_POINT_NAME_MAX]; double x[RUNS]; char date[RUNS][32]; size_t n; };

static void report_steps(const struct series *s, json_t *out)
{
    struct guard_step step[16];
    size_t n = guard_steps(s->x, s->n, step, 16);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(out, json_pack("{s:s,s:s,s:f,s:f,s:f}", "name", s->name, "date",
                                             s->date[step[i].at], "before", step[i].before,
                                             "after", step[i].after, "p", step[i].p));
}

json_t *guard_history_steps(struct guard_history *h, const char *fingerprint)
{
    static struct series s;
    static const char sql[] =
        "SELECT name, results.head, date FROM results JOIN runs ON run = id WHERE fingerprint = ? "
        "AND tier = 'paired' AND results.head IS NOT NULL AND run IN (SELECT id FROM runs WHERE "
        "fingerprint = ? ORDER BY id DESC LIMIT 200) ORDER BY name, run";
    json_t *out = json_array();
    sqlite3_stmt *q = NULL;
    if (!out || sqlite3_prepare_v2(h->db, sql, -1, &q, NULL) != SQLITE_OK) {
        failed(h, "steps");
        json_decref(out);
        return NULL;
    }
    sqlite3_bind_text(q, 1, fingerprint, -1, SQLITE_STATIC);
    sqlite3_bind_text(q, 2, fingerprint, -1, SQLITE_STATIC);
    s.n = 0;
    s.name[0] = 0;
    while (sqlite3_step(q) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(q, 0),
                   *date = (const char *)sqlite3_column_text(q, 2);
        if (!name) continue;
        if (strcmp(name, s.name)) {
            report_steps(&s, out);
            snprintf(s.name, sizeof s.name, "%s", name);
            s.n = 0;
        }
        if (s.n == RUNS) continue;               // a point twice in a run: not from this program
        snprintf(s.date[s.n], sizeof s.date[0], "%.31s", date ? date : "");
        s.x[s.n++] = sqlite3_column_double(q, 1);
    }
    report_steps(&s, out);
    sqlite3_finalize(q);
    return out;
}
