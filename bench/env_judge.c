// env_judge.c: what the environment means: differences of two, ranked by likely effect, and what is
// wrong with one for measuring. Pure functions over hb_env objects.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env.h"

// --- diff ----------------------------------------------------------------------------------------

// How much a difference under a path is likely to matter (0 to 100: a guide for sorting), and what
// it does. The first row whose path begins the difference's path counts.
static const struct { const char *path; int weight; const char *effect; } effects[] = {
    { "machine.cpu.model", 100, "another CPU: times cannot be compared" },
    { "machine.cpu.isa", 95, "other vector units" },
    { "machine.cpu.threads", 90, "another number of CPUs" },
    { "machine.cpu.caches", 85, "lengths at which a working set leaves a cache shift" },
    { "machine.cpu", 80, "another CPU" },
    { "machine.libraries.openblas", 78, "other GEMM kernels: attention and projections, up to 2x" },
    { "machine.libraries.fftw", 75, "another FFT library" },
    { "settings.cpus_allowed", 74, "fewer or more CPUs to run on" },
    { "settings.cgroup_cpu", 73, "CPU time is capped: stalls in the middle of a sample" },
    { "settings.governor", 70, "clock frequency, up to 2x" },
    { "settings.boost", 68, "clock frequency, 10 to 40 %" },
    { "settings.no_turbo", 68, "clock frequency, 10 to 40 %" },
    { "settings.khz_max", 66, "clock frequency" },
    { "settings.khz_now", 5, "changes all the time" },
    { "software.cflags", 65, "other compiler flags" },
    { "software.variables", 60, "library settings: threads, kernels" },
    { "software.git", 55, "another version of this program" },
    { "software.compiler", 50, "another compiler" },
    { "machine.kernel", 45, "scheduler and memory management" },
    { "settings.thp", 42, "page size: 0 to 20 % for large buffers" },
    { "settings.smt_active", 40, "shared cores" },
    { "settings.mitigations", 35, "system calls and context switches" },
    { "settings.numa", 34, "memory placement" },
    { "machine.libraries", 30, "C library: memcpy, malloc, math" },
    { "software", 25, "other software" },
    { "settings.cgroup_memory", 22, "where out-of-memory begins" },
    { "settings.memory_bytes", 20, "where out-of-memory begins" },
    { "settings", 15, "a setting" },
    { "noise.steal", 12, "the hypervisor took CPU time" },
    { "noise", 10, "other work at the time" },
    { "machine_id", 2, "follows from the rest" },
};

static int effect_of(const char *path)
{
    int n = sizeof effects / sizeof *effects;
    for (int i = 0; i < n; i++)
        if (strncmp(path, effects[i].path, strlen(effects[i].path)) == 0) return i;
    return -1;
}

static json_t *shown(const json_t *v)
{
    return v ? json_incref((json_t *)(uintptr_t)v) : json_string("(absent)");
}

static void add_difference(json_t *out, const char *path, const json_t *a, const json_t *b)
{
    int i = effect_of(path);
    json_array_append_new(out, json_pack("{s:s, s:o, s:o, s:i, s:s}", "what", path, "a", shown(a),
                                         "b", shown(b), "weight", i < 0 ? 1 : effects[i].weight,
                                         "effect", i < 0 ? "unknown" : effects[i].effect));
}

// Differences of two objects, keys of b that a lacks included. Depth is that of hb_env.
static void compare(json_t *out, const char *path, const json_t *a, const json_t *b)
{
    if (json_equal(a, b)) return;
    if (!json_is_object(a) || !json_is_object(b)) {
        add_difference(out, path, a, b);
        return;
    }
    const json_t *sides[2] = { a, b };
    for (int side = 0; side < 2; side++) {
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)sides[side], key, value) {
            char below[512];
            const json_t *other = json_object_get(sides[1 - side], key);
            snprintf(below, sizeof below, "%s%s%s", path, *path ? "." : "", key);
            if (side == 0) compare(out, below, value, other);
            else if (!other) add_difference(out, below, NULL, value);
        }
    }
}

static int by_weight(const void *a, const void *b)
{
    const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    json_int_t d = json_integer_value(json_object_get(y, "weight"))
                   - json_integer_value(json_object_get(x, "weight"));
    if (d != 0) return d < 0 ? -1 : 1;
    return strcmp(json_string_value(json_object_get(x, "what")),
                  json_string_value(json_object_get(y, "what")));
}

json_t *hb_env_diff(const json_t *a, const json_t *b)
{
    json_t *found = json_array(), *sorted = json_array();
    if (!found || !sorted) { json_decref(found); json_decref(sorted); return NULL; }
    compare(found, "", a, b);
    size_t n = json_array_size(found);
    json_t **rows = malloc((n ? n : 1) * sizeof *rows);
    for (size_t i = 0; rows && i < n; i++) rows[i] = json_array_get(found, i);
    if (rows) qsort(rows, n, sizeof *rows, by_weight);
    for (size_t i = 0; rows && i < n; i++) json_array_append(sorted, rows[i]);
    free(rows);
    json_decref(found);
    return sorted;
}

// --- doctor --------------------------------------------------------------------------------------

struct doctor { json_t *out; const json_t *machine, *settings, *noise, *software; };

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static double real(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void say(struct doctor *d, const char *level, const char *what, const char *found,
                const char *cost, const char *advice)
{
    json_array_append_new(d->out, json_pack("{s:s, s:s, s:s, s:s, s:s}", "level", level, "what",
                                            what, "found", found, "cost", cost, "advice", advice));
}

static bool has_isa(const struct doctor *d, const char *flag)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(json_object_get(d->machine, "cpu"), "isa"), i, v)
        if (strcmp(json_string_value(v), flag) == 0) return true;
    return false;
}

static void look_at_clock(struct doctor *d)
{
    const char *governor = text(d->settings, "governor");
    if (governor[0] && strcmp(governor, "performance") != 0)
        say(d, "problem", "CPU governor", governor,
            "the clock follows the load: up to 2x between short runs",
            "cpupower frequency-set -g performance");
    if (strcmp(text(d->settings, "boost"), "1") == 0
        || strcmp(text(d->settings, "no_turbo"), "0") == 0)
        say(d, "note", "turbo", "on",
            "the clock depends on temperature and on busy neighbours: 5 to 20 %",
            "switch it off for A/B comparisons, leave it on for peak figures");
    if (!governor[0])
        say(d, "note", "clock frequency", "not visible", "throttling cannot be told from slow code",
            "compare side by side (pairs), not across hours");
}

static void look_at_sharing(struct doctor *d)
{
    char found[96];
    if (json_is_true(json_object_get(json_object_get(d->machine, "cpu"), "virtual")))
        say(d, "note", "virtual machine", "yes",
            "neighbours share caches and memory bandwidth, unseen",
            "trust ratios of pairs; repeat at another hour");
    double steal = real(d->noise, "steal_frac"), others = real(d->noise, "cpus_used_by_others");
    snprintf(found, sizeof found, "%.1f %% now, %.2f %% since boot", 100 * steal,
             100 * real(d->noise, "steal_frac_since_boot"));
    if (steal > 0.01)
        say(d, "problem", "steal", found, "the hypervisor takes CPU time: outliers of milliseconds",
            "wait, or move to a quieter host");
    snprintf(found, sizeof found, "%.2f CPUs, %d busy processes", others,
             (int)real(d->noise, "busy_processes"));
    if (others > 0.1)
        say(d, "problem", "other processes", found,
            "with all threads in use every parallel region waits for the slowest",
            "stop them, or use fewer threads");
    if (strcmp(text(d->settings, "smt_active"), "1") == 0)
        say(d, "note", "SMT", "on", "two threads of one core share its units: up to 2x",
            "threads = physical cores, pinned with OMP_PLACES=cores");
    double allowed = real(d->settings, "cpus_allowed"),
           cpus = real(json_object_get(d->machine, "cpu"), "threads");
    snprintf(found, sizeof found, "%d of %d CPUs", (int)allowed, (int)cpus);
    if (allowed > 0 && allowed < cpus)
        say(d, "note", "affinity", found, "fewer threads by default",
            "intended with taskset or in a container");
}

static void look_at_memory(struct doctor *d)
{
    const char *thp = text(d->settings, "thp"), *quota = text(d->settings, "cgroup_cpu_quota_us");
    if (strcmp(thp, "always") != 0 && thp[0])
        say(d, "note", "transparent huge pages", thp,
            "large buffers live in 4 KiB pages: 0 to 20 % at long lengths",
            "echo always > /sys/kernel/mm/transparent_hugepage/enabled, for all runs or for none");
    const char *max = text(d->settings, "cgroup_cpu_max");
    if ((max[0] && strncmp(max, "max", 3) != 0) || atol(quota) > 0)
        say(d, "problem", "CPU quota", max[0] ? max : quota,
            "the process is stopped in the middle of samples",
            "lift the container's CPU limit, or use threads <= quota");
    if (real(d->settings, "swap_bytes") > 0)
        say(d, "note", "swap", "on", "out of memory becomes slow instead of a clean result",
            "swapoff -a");
    if (strcmp(text(d->settings, "numa_balancing"), "1") == 0
        && strlen(text(d->settings, "numa_nodes")) > 1)
        say(d, "note", "NUMA balancing", "on", "pages move during samples", "bind with numactl");
}

static void look_at_libraries(struct doctor *d)
{
    const json_t *libs = json_object_get(d->machine, "libraries");
    const char *threading = text(libs, "openblas_threading"), *core = text(libs, "openblas_core");
    if (strcmp(threading, "OpenMP") != 0)
        say(d, "problem", "OpenBLAS threading", threading,
            "its own threads compete with OpenMP's: 2x and more",
            "install libopenblas-openmp-dev and build again");
    bool old_core = !strcmp(core, "Haswell") || !strcmp(core, "Zen") || !strcmp(core, "Sandybridge")
                    || !strcmp(core, "Nehalem") || !strcmp(core, "Prescott");
    const json_t *variables = json_object_get(d->software, "variables");
    if (old_core && has_isa(d, "avx512f")) {
        bool forced = json_object_get(variables, "OPENBLAS_CORETYPE") != NULL;
        say(d, forced ? "problem" : "note", "OpenBLAS kernels", core,
            "the CPU has AVX-512, these kernels do not use it: GEMM at about half speed, "
            "so attention and projections look slower than they are",
            forced ? "unset OPENBLAS_CORETYPE, if it is not wanted"
                   : "OPENBLAS_CORETYPE=SkylakeX, if wanted");
    }
    if (json_object_get(variables, "OMP_NUM_THREADS"))
        say(d, "note", "OMP_NUM_THREADS", text(variables, "OMP_NUM_THREADS"),
            "none: threads are set by --threads", "use --threads");
    if (strstr(text(d->software, "git"), "-dirty"))
        say(d, "note", "source tree", text(d->software, "git"),
            "the result cannot be tied to a commit", "commit before runs that will be published");
    if (!json_is_true(json_object_get(d->settings, "pmu")))
        say(d, "note", "hardware counters", "none", "no cycles or instructions beside the times",
            "bare metal has them");
}

json_t *hb_env_doctor(const json_t *env)
{
    struct doctor d = { json_array(), json_object_get(env, "machine"),
                        json_object_get(env, "settings"), json_object_get(env, "noise"),
                        json_object_get(env, "software") };
    if (!d.out) return NULL;
    look_at_clock(&d);
    look_at_sharing(&d);
    look_at_memory(&d);
    look_at_libraries(&d);
    return d.out;
}
