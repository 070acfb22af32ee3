// env.c: the circumstances of a number: hb_env and the context of a result file, the machine's id.
//
// Stable    hb_env.machine (hardware, kernel, libraries) is hashed to the fingerprint; the machine
//           id is the CPU's name and the hash's first 8 digits. Reboots, builds and settings do not
//           change it.
// Private   the host name is the machine id; of the environment only the variables listed here are
//           kept, and of values that are paths only that they are set.
#include <ctype.h>
#include <gnu/libc-version.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "build_id.h"
#include "env.h"
#include "nvml.h"
#include "record.h"
#include "roofline.h"

extern char **environ;

static const char *const kept_prefixes[] = { "OMP_", "GOMP_",        "OPENBLAS_",
                                             "MKL_", "HYENA_BENCH_", "MALLOC_" };

// Variables by prefix, and whether a library is preloaded.
static json_t *variables(void)
{
    json_t *o = json_object();
    for (char **e = environ; o && *e; e++) {
        const char *eq = strchr(*e, '=');
        for (size_t k = 0; eq && k < sizeof kept_prefixes / sizeof *kept_prefixes; k++) {
            if (strncmp(*e, kept_prefixes[k], strlen(kept_prefixes[k])) != 0) continue;
            json_object_set_new(o, strndupa(*e, (size_t)(eq - *e)),
                                json_string(strchr(eq, '/') ? "(a path)" : eq + 1));
        }
    }
    if (o && getenv("LD_PRELOAD")) json_object_set_new(o, "LD_PRELOAD", json_string("(set)"));
    return o;
}

json_t *hb_env_software(void)
{
    char benchmark[128], gomp[128];
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s}", "git", HB_GIT, "cflags", HB_CFLAGS,
                          "compiler", "gcc " __VERSION__, "libc", gnu_get_libc_version(), "jansson",
                          jansson_version_str(), "openmp", _OPENMP, "benchmark",
                          hb_loaded_library("libbenchmark.so", benchmark, sizeof benchmark));
    if (!o) return NULL;
    json_object_set_new(o, "gomp", json_string(hb_loaded_library("libgomp.so", gomp, sizeof gomp)));
    json_object_set_new(o, "variables", variables());
    return o;
}

// --- identity ------------------------------------------------------------------------------------

static struct { char fingerprint[65], id[160]; } self;

// "AMD EPYC 7763 64-Core Processor" -> "amd-epyc-7763": words with marks and without meaning are
// left out.
static void slug(const char *model, char *out, size_t cap)
{
    static const char *const skip[] = { "cpu",  "processor", "core", "with",  "intel(r)",
                                        "(r)",  "(tm)",      "@",    "nvidia" };
    char copy[128], *save = NULL;
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", model);
    for (char *c = copy; *c; c++) *c = (char)tolower((unsigned char)*c);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        bool leave_out = strstr(w, "-core") || strstr(w, "ghz");
        for (size_t k = 0; k < sizeof skip / sizeof *skip; k++)
            leave_out |= strcmp(w, skip[k]) == 0;
        if (leave_out) continue;
        char *mark = strchr(w, '(');                       // "xeon(r)" -> "xeon"
        if (mark) *mark = '\0';
        if (n && n + 1 < cap) out[n++] = '-';
        for (; *w && n + 1 < cap; w++) if (isalnum((unsigned char)*w) || *w == '-') out[n++] = *w;
    }
    out[n] = '\0';
}

static void identify(void)
{
    if (self.id[0]) return;
    char name[64] = "", gpu[64] = "";
    json_t *machine = hb_env_machine();
    char *text = machine ? json_dumps(machine, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    const char *model =
        json_string_value(json_object_get(json_object_get(machine, "cpu"), "model"));
    hb_sha256(text ? text : "", text ? strlen(text) : 0, self.fingerprint);
    slug(model ? model : "unknown", name, sizeof name);
    slug(hb_gpu_name(), gpu, sizeof gpu);                  // "h100-80gb-hbm3"
    snprintf(self.id, sizeof self.id, "%s%s%s-%.8s", name[0] ? name : "unknown", gpu[0] ? "+" : "",
             gpu, self.fingerprint);
    free(text);
    json_decref(machine);
}

const char *hb_machine_id(void)
{
    identify();
    return self.id;
}

const char *hb_fingerprint(void)
{
    identify();
    return self.fingerprint;
}

json_t *hb_env_json(void)
{
    json_t *o = json_object();
    if (!o) return NULL;
    json_object_set_new(o, "machine_id", json_string(hb_machine_id()));
    json_object_set_new(o, "machine", hb_env_machine());
    json_object_set_new(o, "settings", hb_env_settings());
    json_object_set_new(o, "noise", hb_env_noise());
    json_object_set_new(o, "software", hb_env_software());
    return o;
}

// --- Google Benchmark's context ------------------------------------------------------------------

static json_t *load_averages(void)
{
    double v[3] = { 0 };
    json_t *a = json_array();
    int n = getloadavg(v, 3);
    for (int i = 0; a && i < n; i++) json_array_append_new(a, json_real(v[i]));
    return a;
}

json_t *hb_context_json(void)
{
    char date[64] = "", benchmark[128];
    time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm)) strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S+00:00", &tm);
    json_t *env = hb_env_json();
    json_t *governor = json_object_get(json_object_get(env, "settings"), "governor");
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:i, s:i, s:b}", "date", date, "host_name", hb_machine_id(),
                  "executable", "hyena-bench", "num_cpus", (int)sysconf(_SC_NPROCESSORS_ONLN),
                  "mhz_per_cpu", (int)(hb_cpu_mhz() + 0.5), "cpu_scaling_enabled",
                  governor && strcmp(json_string_value(governor), "performance") != 0);
    if (!o) {
        json_decref(env);
        return NULL;
    }
    json_object_set_new(o, "caches", hb_cpu_caches());
    json_object_set_new(o, "load_avg", load_averages());
    json_object_set_new(
        o, "library_version",
        json_string(hb_loaded_library("libbenchmark.so", benchmark, sizeof benchmark)));
    // Of this program; Debian's library itself is built without NDEBUG, which costs our samples
    // nothing.
    json_object_set_new(o, "library_build_type", json_string("release"));
    json_object_set_new(o, "json_schema_version", json_integer(1));
    json_object_set_new(o, "hb_schema", json_string("1.1"));
    json_object_set_new(o, "hb_fingerprint", json_string(hb_fingerprint()));
    json_object_set_new(o, "hb_env", env);
    json_t *roof = hb_roofline_json();           // the peaks travel with the results
    if (roof) json_object_set_new(o, "hb_roofline", roof);
    else hb_error_clear();
    return o;
}
