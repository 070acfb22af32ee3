// record.c: a run's results while they come in, and the file they end up in.
//
// Folder    build/results/<machine>/<run_id>.partial/: start.json (run id, context with plan;
//           written first) and NNNNNN.json, one per added point: {name, benchmarks, hb_skips,
//           hb_pairs}. Each appears by rename. A folder without start.json was killed at birth and
//           holds nothing.
// Assemble  the result file appears by rename, then the folder is renamed to .done and emptied.
//           SIGKILL before the first rename: the folder is whole; between the two: file and folder
//           hold the same, and resuming assembles once more; after: a .done folder is left over,
//           which the next hb_run_open removes.
// Lock      start.json is flock'ed for as long as the run is open: a run in use is never resumed by
//           another process.
// Resume    takes the newest folder of this machine, this build (what git and the compiler say, and
//           the hash of program and plug-ins) and this plan (its config_sha256, if it has one).
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "env.h"
#include "record.h"

#define PARTIAL ".partial"
#define DONE ".done"
enum { PATH_CAP = 4700 };

struct hb_run {
    char id[128], home[4300], folder[4500];   // home: build/results/<machine>
    json_t *context;                 // owned
    json_t *index;                   // owned: point name -> number of its newest file
    int next;                        // number of the next file
    int lock;                        // descriptor
};

// --- identity ------------------------------------------------------------------------------------

// UTC time and 8 random hex digits: sorts by time.
static int make_id(char *id, size_t cap)
{
    uint32_t r;
    time_t now = time(NULL);
    struct tm tm;
    char date[32];
    if (getrandom(&r, sizeof r, 0) != sizeof r || !gmtime_r(&now, &tm)
        || !strftime(date, sizeof date, "%Y%m%dT%H%M%SZ", &tm))
        return hb_fail(HB_ERR_RUN, "run id: no random number or time");
    snprintf(id, cap, "%s-%08x", date, r);
    return 0;
}

// Names become files: letters, digits, '.', '_', '-', not starting with '.'.
static int check_id(const char *id)
{
    size_t ok = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (id[0] == '\0' || id[0] == '.' || id[ok] != '\0' || ok > 100)
        return hb_fail(HB_ERR_INPUT,
                       "run id '%.120s': 1 to 100 letters, digits, '.', '_', '-' expected", id);
    return 0;
}

// Was the run started by this build on this machine, for this plan? Else its points must not be
// mixed with ours.
static bool same_circumstances(const json_t *was, const json_t *now)
{
    static const char *const keys[] = { "git", "cflags", "compiler" };
    const json_t *wenv = json_object_get(was, "hb_env"), *nenv = json_object_get(now, "hb_env");
    const json_t *wsoft = json_object_get(wenv, "software"),
                 *nsoft = json_object_get(nenv, "software");
    const json_t *wplan = json_object_get(was, "hb_plan"), *nplan = json_object_get(now, "hb_plan");
    if (!json_equal(json_object_get(was, "hb_fingerprint"), json_object_get(now, "hb_fingerprint"))
        || !json_equal(json_object_get(was, "hb_code_sha256"),
                       json_object_get(now, "hb_code_sha256")))
        return false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_equal(json_object_get(wsoft, keys[i]), json_object_get(nsoft, keys[i])))
            return false;
    const json_t *a = json_object_get(wplan, "config_sha256"),
                 *b = json_object_get(nplan, "config_sha256");
    return (!a && !b) || json_equal(a, b);
}

// --- folders -------------------------------------------------------------------------------------

// Removes a folder of plain files; what cannot be removed stays.
static void remove_folder(const char *folder)
{
    char path[PATH_CAP];
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d)); ) {
        int n = snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && n > 0
            && (size_t)n < sizeof path)
            unlink(path);
    }
    if (d) closedir(d);
    rmdir(folder);
}

// 0: locked by us; 1: another process has it; < 0: cannot be opened.
static int try_lock(struct hb_run *r)
{
    char path[PATH_CAP];
    snprintf(path, sizeof path, "%s/start.json", r->folder);
    r->lock = open(path, O_RDONLY | O_CLOEXEC);
    if (r->lock < 0) return -1;
    if (flock(r->lock, LOCK_EX | LOCK_NB) == 0) return 0;
    close(r->lock);
    r->lock = -1;
    return 1;
}

// Names of the points that are in the folder. A file that is not a point's (a crash of the machine
// may leave one) is passed over: its point is measured again.
static int read_index(struct hb_run *r)
{
    DIR *d = opendir(r->folder);
    if (!d) return hb_fail(HB_ERR_RUN, "%s: %s", r->folder, strerror(errno));
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d)); ) {
        char path[PATH_CAP];
        int number, used = 0;
        if (sscanf(e->d_name, "%6d.json%n", &number, &used) != 1 || used == 0 || e->d_name[used])
            continue;
        if (number >= r->next) r->next = number + 1;
        snprintf(path, sizeof path, "%s/%06d.json", r->folder, number);
        json_t *doc = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
        const char *name = json_string_value(json_object_get(doc, "name"));
        json_int_t have = name ? json_integer_value(json_object_get(r->index, name)) : 0;
        if (name && number >= have
            && json_object_set_new(r->index, name, json_integer(number)) != 0)
            rc = hb_fail(HB_ERR_OOM, "%s: no memory for its index", r->folder);
        json_decref(doc);
    }
    closedir(d);
    return rc;
}

// Opens the folder of r->id if it is ours to continue. 0: done; 1: not this one; < 0: error.
static int resume_folder(struct hb_run *r)
{
    char path[PATH_CAP];
    snprintf(r->folder, sizeof r->folder, "%s/%s" PARTIAL, r->home, r->id);
    if (try_lock(r) != 0) return 1;
    snprintf(path, sizeof path, "%s/start.json", r->folder);
    json_t *start = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    json_t *context = json_object_get(start, "context");
    int rc = context && same_circumstances(context, r->context) ? 0 : 1;
    if (rc == 0) {
        json_incref(context);
        json_decref(r->context);
        r->context = context; // the run's own: the circumstances it was begun in
        rc = read_index(r);
    } else {
        close(r->lock);
        r->lock = -1;
    }
    json_decref(start);
    return rc;
}

static int descending(const void *a, const void *b)
{
    return strcmp(*(char *const *)b, *(char *const *)a);
}

// Newest unfinished run that is ours. 0 found, 1 none, < 0 error.
static int find_unfinished(struct hb_run *r)
{
    char **ids = NULL;
    size_t n = 0, cap = 0;
    int rc = 1;
    DIR *d = opendir(r->home);
    for (struct dirent *e; d && (e = readdir(d)); ) {
        if (!hb_ends_with(e->d_name, PARTIAL)) continue;
        if (n == cap) {
            cap = 2 * cap + 16;
            char **more = realloc(ids, cap * sizeof *more);
            if (!more) { rc = hb_fail(HB_ERR_OOM, "%s: no memory for its list", r->home); break; }
            ids = more;
        }
        ids[n] = strndup(e->d_name, strlen(e->d_name) - strlen(PARTIAL));
        if (ids[n]) n++;
    }
    if (d) closedir(d);
    if (n) qsort(ids, n, sizeof *ids, descending);
    for (size_t i = 0; i < n && rc == 1; i++) {
        snprintf(r->id, sizeof r->id, "%.120s", ids[i]);
        rc = resume_folder(r);
    }
    for (size_t i = 0; i < n; i++) free(ids[i]);
    free(ids);
    return rc;
}

// A minute at least: what is younger may be another process's that is at work.
static bool is_old(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && st.st_mtime < time(NULL) - 60;
}

static bool stillborn(const char *folder)
{
    char path[PATH_CAP + 16];
    snprintf(path, sizeof path, "%s/start.json", folder);
    return access(path, F_OK) != 0 && is_old(folder);
}

static void remove_leftovers(const char *home)
{
    char path[PATH_CAP];
    DIR *d = opendir(home);
    for (struct dirent *e; d && (e = readdir(d)); ) {
        int n = snprintf(path, sizeof path - 64, "%s/%s", home, e->d_name);
        if (n < 0 || (size_t)n >= sizeof path - 64) continue;
        if (hb_ends_with(path, DONE) || (hb_ends_with(path, PARTIAL) && stillborn(path)))
            remove_folder(path);
        else if (hb_ends_with(path, ".tmp") && is_old(path)) unlink(path); // hb_write_file, killed
    }
    if (d) closedir(d);
}

static int create_folder(struct hb_run *r)
{
    char path[PATH_CAP];
    snprintf(r->folder, sizeof r->folder, "%s/%s" PARTIAL, r->home, r->id);
    snprintf(path, sizeof path, "%s/start.json", r->folder);
    int rc = hb_mkdirs(r->folder);
    if (rc != 0) return rc;
    json_t *start = json_pack("{s:s, s:O}", "run_id", r->id, "context", r->context);
    rc = start ? hb_json_save(path, start) : hb_fail(HB_ERR_OOM, "%s: no memory", path);
    json_decref(start);
    if (rc == 0 && try_lock(r) != 0) rc = hb_fail(HB_ERR_RUN, "%s: cannot be locked", r->folder);
    return rc;
}

// --- the interface -------------------------------------------------------------------------------

static int start_context(struct hb_run *r, json_t *plan)
{
    r->context = hb_context_json();
    r->index = json_object();
    char code[65];
    int rc = hb_code_sha256(code);
    if (rc != 0) return rc;
    if (!r->context || !r->index || (plan && json_object_set(r->context, "hb_plan", plan) != 0)
        || json_object_set_new(r->context, "hb_code_sha256", json_string(code)) != 0)
        return hb_fail(HB_ERR_OOM, "run: no memory for its context");
    snprintf(r->home, sizeof r->home, "%.4000s/results/%.100s", hb_build_dir(), hb_machine_id());
    return hb_mkdirs(r->home);
}

static int open_named(struct hb_run *r, const char *id, bool resume)
{
    char path[PATH_CAP];
    snprintf(r->id, sizeof r->id, "%s", id);
    snprintf(path, sizeof path, "%s/%s" PARTIAL, r->home, id);
    if (access(path, F_OK) == 0 && !stillborn(path)) {
        if (!resume) return hb_fail(HB_ERR_INPUT, "run %s: unfinished, --resume continues it", id);
        int rc = resume_folder(r);
        return rc != 1 ? rc
                       : hb_fail(HB_ERR_INPUT,
                                 "run %s: in use, or of another machine, build or plan", id);
    }
    snprintf(path, sizeof path, "%s/%s.json", r->home, id);
    if (access(path, F_OK) == 0)
        return hb_fail(HB_ERR_INPUT, "run %s: %s is complete, another id expected", id, path);
    return 1;
}

static int open_run(struct hb_run *r, const char *id, bool resume, json_t *plan)
{
    int rc = id ? check_id(id) : 0;
    if (rc == 0) rc = start_context(r, plan);
    if (rc != 0) return rc;
    remove_leftovers(r->home);
    rc = id ? open_named(r, id, resume) : resume ? find_unfinished(r) : 1;
    if (rc <= 0) return rc;                       // continued, or failed
    if (!id && (rc = make_id(r->id, sizeof r->id)) != 0) return rc;
    if (json_object_set_new(r->context, "hb_run_id", json_string(r->id)) != 0)
        return hb_fail(HB_ERR_OOM, "run: no memory for its context");
    return create_folder(r);
}

int hb_run_open(const char *run_id_or_null, bool resume, json_t *plan, struct hb_run **out)
{
    *out = NULL;
    struct hb_run *r = calloc(1, sizeof *r);
    if (!r) return hb_fail(HB_ERR_OOM, "run: no memory");
    r->lock = -1;
    r->next = 1;
    int rc = open_run(r, run_id_or_null, resume, plan);
    if (rc != 0) hb_run_close(r); else *out = r;
    return rc;
}

const char *hb_run_id(const struct hb_run *r) { return r->id; }

int hb_run_add(struct hb_run *r, const char *point_name, json_t *doc)
{
    char path[PATH_CAP];
    json_t *file = json_copy(doc);
    if (!file || json_object_set_new(file, "name", json_string(point_name)) != 0) {
        json_decref(file);
        return hb_fail(HB_ERR_OOM, "%s: no memory for its record", point_name);
    }
    snprintf(path, sizeof path, "%s/%06d.json", r->folder, r->next);
    int rc = hb_json_save(path, file);
    json_decref(file);
    if (rc != 0) return rc;
    if (json_object_set_new(r->index, point_name, json_integer(r->next)) != 0)
        return hb_fail(HB_ERR_OOM, "%s: no memory for its index", point_name);
    r->next++;
    return 0;
}

bool hb_run_has(const struct hb_run *r, const char *point_name)
{
    return json_object_get(r->index, point_name) != NULL;
}

// Appends each list of a point's file to the document's list of that name.
static int append_lists(json_t *doc, const json_t *point)
{
    static const char *const lists[] = { "benchmarks", "hb_skips", "hb_pairs" };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        json_t *from = json_object_get(point, lists[i]);
        if (from && json_array_extend(json_object_get(doc, lists[i]), from) != 0)
            return hb_fail(HB_ERR_INPUT, "'%s' of %s: a list expected", lists[i],
                           json_string_value(json_object_get(point, "name")));
    }
    return 0;
}

// Google Benchmark's numbering: family = implementation in order of appearance, instance = point
// within it.
static int number_families(json_t *benchmarks)
{
    json_t *families = json_object(), *points = json_object(), *entry;
    size_t i;
    int rc = families && points ? 0 : -1;
    json_array_foreach(benchmarks, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (rc != 0 || !name) continue;
        size_t n = strcspn(name, "/");
        char *family = strndup(name, n);
        json_t *f = family ? json_object_get(families, family) : NULL,
               *p = json_object_get(points, name);
        if (family && !f
            && (f = json_pack("{s:i, s:i}", "index", (int)json_object_size(families), "size", 0)))
            rc |= json_object_set_new(families, family, f);
        if (f && !p) {
            json_int_t size = json_integer_value(json_object_get(f, "size"));
            p = json_integer(size);
            rc |= json_object_set_new(points, name, p);
            rc |= json_object_set_new(f, "size", json_integer(size + 1));
        }
        rc |= !f || !p || json_object_set(entry, "family_index", json_object_get(f, "index"))
              || json_object_set(entry, "per_family_instance_index", p);
        free(family);
    }
    json_decref(families);
    json_decref(points);
    return rc == 0 ? 0 : hb_fail(HB_ERR_OOM, "result file: no memory");
}

// The newest file of every point, in the order they were measured.
static int gather(const struct hb_run *r, json_t *doc)
{
    for (int k = 1; k < r->next; k++) {
        char path[PATH_CAP];
        snprintf(path, sizeof path, "%s/%06d.json", r->folder, k);
        if (access(path, F_OK) != 0) continue;
        json_t *point = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
        const char *name = json_string_value(json_object_get(point, "name"));
        int rc = 0;
        if (name && json_integer_value(json_object_get(r->index, name)) == k)
            rc = append_lists(doc, point);
        json_decref(point);
        if (rc != 0) return rc;
    }
    return number_families(json_object_get(doc, "benchmarks"));
}

json_t *hb_run_doc(const struct hb_run *r, const char *point_name)
{
    char path[PATH_CAP];
    int number = (int)json_integer_value(json_object_get(r->index, point_name));
    if (!number) return NULL;
    snprintf(path, sizeof path, "%s/%06d.json", r->folder, number);
    return json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
}

int hb_run_snapshot(struct hb_run *r, char path_out[4096])
{
    int n = snprintf(path_out, 4096, "%s/%s.json", r->home, r->id);
    if (n < 0 || n >= 4096)
        return hb_fail(HB_ERR_RUN, "result file: path of %d characters is too long", n);
    json_t *doc = json_pack("{s:O, s:[], s:[], s:[]}", "context", r->context, "benchmarks",
                            "hb_skips", "hb_pairs");
    int rc = doc ? gather(r, doc) : hb_fail(HB_ERR_OOM, "%s: no memory", path_out);
    if (rc == 0) rc = hb_json_save(path_out, doc);
    json_decref(doc);
    return rc;
}

int hb_run_assemble(struct hb_run *r, char path_out[4096])
{
    char done[PATH_CAP];
    int rc = hb_run_snapshot(r, path_out);
    if (rc != 0) return rc;
    snprintf(done, sizeof done, "%s/%s" DONE, r->home, r->id);
    if (rename(r->folder, done) != 0)
        return hb_fail(HB_ERR_RUN, "%s: cannot become %s: %s", r->folder, done, strerror(errno));
    remove_folder(done);
    return 0;
}

void hb_run_close(struct hb_run *r)
{
    if (!r) return;
    if (r->lock >= 0) close(r->lock);
    json_decref(r->context);
    json_decref(r->index);
    free(r);
}
