// lib.c: libhyena_bench.so: hb_choose over the table of choices (contract: hyena_bench.h).
//
// The library has table.c, predict.c, choose.c, point.c and work.c of the program and here, instead
// of
// its host and registry, what those need: a message per thread, no plug-ins. It needs jansson
// alone.
// Table     $HYENA_BENCH_CHOICES, else <folder of the library>/../share/hyena-bench/choices.json.
// Machine   this one is the table's home if CPU model and number of cores are the same.
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../choose.h"

// --- instead of host.c and registry.c ------------------------------------------------------------

static _Thread_local struct { int code; char text[1024]; } msg;

int hb_fail(int code, const char *fmt, ...)
{
    va_list ap;
    if (msg.code) return code;           // the first one knows
    va_start(ap, fmt);
    vsnprintf(msg.text, sizeof msg.text, fmt, ap);
    va_end(ap);
    msg.code = code;
    return code;
}

const char *hb_error(void) { return msg.code ? msg.text : ""; }
int hb_error_code(void) { return msg.code; }
void hb_error_clear(void) { msg.code = 0; }

// Only hb_point_resolve and hb_point_refuses would ask for these; the library calls neither.
const struct hb_host *hb_host(void) { return NULL; }
int hb_registry_load(void) { return HB_ERR_MISSING; }
bool hb_registry_has(const char *device) { (void)device; return false; }
const char *hb_impl_device(const char *name) { (void)name; return NULL; }
const struct hb_impl *hb_registry_find(const char *name) { (void)name; return NULL; }
bool hb_auto_name(const char *name, const char *device, char out[HB_NAME_MAX])
{
    (void)name, (void)device, (void)out;
    return false;
}

// --- this machine --------------------------------------------------------------------------------

static int cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static void cpu_model(char *out, size_t cap)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "re");
    out[0] = '\0';
    while (f && !out[0] && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        colon += 1 + strspn(colon + 1, " ");
        snprintf(out, cap, "%.*s", (int)strcspn(colon, "\n"), colon);
    }
    if (f) fclose(f);
}

// --- the table -----------------------------------------------------------------------------------

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct choose_table table;
static bool loaded;

static void default_path(char *out, size_t cap)
{
    const char *env = getenv("HYENA_BENCH_CHOICES");
    Dl_info info;
    out[0] = '\0';
    if (env && *env) {
        snprintf(out, cap, "%s", env);
    } else if (dladdr((void *)&table, &info) && info.dli_fname) {
        const char *slash = strrchr(info.dli_fname, '/');
        snprintf(out, cap, "%.*s/../share/hyena-bench/choices.json",
                 slash ? (int)(slash - info.dli_fname) : 1, slash ? info.dli_fname : ".");
    }
}

static int load(const char *path)
{
    char buf[4400];
    struct choose_table t;
    if (!path) {
        default_path(buf, sizeof buf);
        path = buf;
    }
    if (access(path, R_OK))
        return hb_fail(HB_ERR_MISSING, "no table of choices: %s cannot be read; "
                                       "'hyena-bench choose --table FILE' writes one", path);
    if (hb_choices_read(path, &t)) return HB_ERR_RUN;
    hb_choices_free(&table);
    table = t;
    loaded = true;
    return 0;
}

// --- the interface -------------------------------------------------------------------------------

int hb_choose_table(const char *path)
{
    hb_error_clear();
    pthread_mutex_lock(&lock);
    int rc = load(path);
    pthread_mutex_unlock(&lock);
    return rc;
}

const char *hb_choice_error(void) { return hb_error(); }

static int ask(const struct hb_question *q, struct hb_choice *out)
{
    char cpu[96];
    struct choose_ask a = { .mem_limit = (double)q->mem_limit, .only = q->only };
    struct choose_result *r = malloc(sizeof *r);
    int n = cores(), rc = r ? 0 : hb_fail(HB_ERR_OOM, "no memory for a choice");
    if (!rc) rc = hb_question_point(q, n, &a.pt);
    if (!rc && !loaded) rc = load(NULL);
    cpu_model(cpu, sizeof cpu);
    a.cpu = cpu;
    a.here = "";
    for (int i = 0; !rc && i < table.n_machines; i++) {
        const struct choose_machine *m = &table.machines[i];
        if (strcmp(m->id, table.home) || strcmp(m->cpu, cpu) || m->threads != n) continue;
        a.here = table.home;
        a.gpu = m->gpu;
    }
    if (!rc) rc = hb_choose_among(&table, &a, r);
    if (!rc) *out = r->answer;
    free(r);
    return rc;
}

int hb_choose(const struct hb_question *q, struct hb_choice *out)
{
    hb_error_clear();
    *out = (struct hb_choice){ 0 };
    pthread_mutex_lock(&lock);
    int rc = ask(q, out);
    pthread_mutex_unlock(&lock);
    return rc == HB_ERR_OOM ? HB_ERR_RUN : rc;
}
