// env_machine.c: the stable part of the environment: hardware, kernel, libraries.
//
// Where from  /proc/cpuinfo, sysfs, uname, OpenBLAS itself; FFTW by its file's name: the program
//             never loads FFTW (GPL), only its plug-ins do. What a system does not tell is left
//             out.
#include <cblas.h>
#include <gnu/libc-version.h>
#include <glob.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "env.h"
#include "nvml.h"

const char *hb_read_line(const char *path, char *buf, size_t cap)
{
    FILE *f = fopen(path, "re");
    if (!f) return NULL;
    const char *line = fgets(buf, (int)cap, f);
    fclose(f);
    if (!line) return NULL;
    buf[strcspn(buf, "\n")] = '\0';
    return buf;
}

// Value of the first "key : value" line of /proc/cpuinfo.
static const char *cpuinfo(const char *key, char *buf, size_t cap)
{
    char line[8192];
    size_t n = strlen(key);
    const char *found = NULL;
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, n) != 0
            || (line[n] != '\t' && line[n] != ' ' && line[n] != ':'))
            continue;
        snprintf(buf, cap, "%s", colon[1] == ' ' ? colon + 2 : colon + 1);
        buf[strcspn(buf, "\n")] = '\0';
        found = buf;
    }
    if (f) fclose(f);
    return found;
}

bool hb_cpu_has(const char *flag)
{
    char flags[8192];
    size_t n = strlen(flag);
    if (!cpuinfo("flags", flags, sizeof flags)) return false;
    for (const char *p = flags; (p = strstr(p, flag)); p += n)
        if ((p == flags || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0')) return true;
    return false;
}

double hb_cpu_mhz(void)
{
    char text[64];
    return cpuinfo("cpu MHz", text, sizeof text) ? atof(text) : 0;
}

// --- caches --------------------------------------------------------------------------------------

struct cache { char type[16]; int level, sharing; size_t bytes; };

// Number of CPUs in a list like "0-3,8".
static int cpu_list_count(const char *list)
{
    int n = 0;
    for (const char *p = list; *p; ) {
        char *end;
        long a = strtol(p, &end, 10), b = a;
        if (end == p) break;
        if (*end == '-') b = strtol(end + 1, &end, 10);
        n += (int)(b - a + 1);
        p = *end == ',' ? end + 1 : end;
    }
    return n;
}

static bool read_cache(int i, struct cache *c)
{
    char path[128], text[256];
    const char *base = "/sys/devices/system/cpu/cpu0/cache/index";
    snprintf(path, sizeof path, "%s%d/type", base, i);
    if (!hb_read_line(path, text, sizeof text)) return false;
    snprintf(c->type, sizeof c->type, "%.15s", text);
    snprintf(path, sizeof path, "%s%d/level", base, i);
    c->level = hb_read_line(path, text, sizeof text) ? atoi(text) : 0;
    snprintf(path, sizeof path, "%s%d/size", base, i);                     // "48K"
    c->bytes = hb_read_line(path, text, sizeof text) ? strtoul(text, NULL, 10) * 1024 : 0;
    if (strchr(text, 'M')) c->bytes *= 1024;
    snprintf(path, sizeof path, "%s%d/shared_cpu_list", base, i);
    c->sharing = hb_read_line(path, text, sizeof text) ? cpu_list_count(text) : 1;
    return true;
}

json_t *hb_cpu_caches(void)
{
    json_t *a = json_array();
    struct cache c;
    for (int i = 0; a && read_cache(i, &c); i++)
        json_array_append_new(a, json_pack("{s:s, s:i, s:I, s:i}", "type", c.type, "level", c.level,
                                           "size", (json_int_t)c.bytes, "num_sharing", c.sharing));
    return a;
}

size_t hb_cache_bytes(int level)
{
    struct cache c;
    for (int i = 0; read_cache(i, &c); i++)
        if (c.level == level && strcmp(c.type, "Instruction") != 0) return c.bytes;
    return 0;
}

size_t hb_llc_bytes(void)
{
    size_t largest = 0;
    struct cache c;
    for (int i = 0; read_cache(i, &c); i++)
        if (c.bytes > largest) largest = c.bytes;
    return largest ? largest : 32u << 20;
}

// All caches of the last level together: processors of many cores have one for every few of them.
size_t hb_llc_total_bytes(void)
{
    struct cache c, llc = { .bytes = 0 };
    for (int i = 0; read_cache(i, &c); i++)
        if (c.bytes > llc.bytes) llc = c;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN), per = llc.sharing > 0 ? llc.sharing : 1;
    return llc.bytes && cpus > per ? llc.bytes * (size_t)((cpus + per - 1) / per) : hb_llc_bytes();
}

// --- libraries -----------------------------------------------------------------------------------

struct wanted { const char *stem; char *buf; size_t cap; bool found; };

static int match_library(struct dl_phdr_info *info, size_t size, void *ctx)
{
    (void)size;
    struct wanted *w = ctx;
    const char *name = info->dlpi_name ? strrchr(info->dlpi_name, '/') : NULL;
    if (!name || strncmp(name + 1, w->stem, strlen(w->stem)) != 0) return 0;
    char *real = realpath(info->dlpi_name, NULL);
    if (!real) return 0;
    snprintf(w->buf, w->cap, "%s", strrchr(real, '/') + 1);
    free(real);
    w->found = true;
    return 1;
}

const char *hb_loaded_library(const char *stem, char *buf, size_t cap)
{
    struct wanted w = { stem, buf, cap, false };
    dl_iterate_phdr(match_library, &w);
    if (!w.found) snprintf(buf, cap, "unknown");
    return buf;
}

// "libfftw3f.so.3.6.10": the file that the plug-ins' run path leads to.
static json_t *fftw_file(void)
{
    static const char *const places[] = { "/usr/local/lib/libfftw3f.so.3",
                                          "/usr/lib/*/libfftw3f.so.3", "/usr/lib64/libfftw3f.so.3",
                                          "/usr/lib/libfftw3f.so.3" };
    json_t *name = NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places && !name; i++) {
        glob_t g;
        if (glob(places[i], 0, NULL, &g) != 0) continue;
        char *real = realpath(g.gl_pathv[0], NULL);
        if (real) name = json_string(strrchr(real, '/') + 1);
        free(real);
        globfree(&g);
    }
    return name;
}

static json_t *libraries(void)
{
    static const char *const kinds[] = { "sequential", "pthread", "OpenMP" };
    int parallel = openblas_get_parallel();
    json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "libc", gnu_get_libc_version(), "openblas",
                          openblas_get_config(), "openblas_core", openblas_get_corename(),
                          "openblas_threading",
                          parallel >= 0 && parallel <= 2 ? kinds[parallel] : "unknown");
    json_t *fftw = fftw_file();
    if (o && fftw) json_object_set_new(o, "fftw", fftw); else json_decref(fftw);
    return o;
}

// --- the whole -----------------------------------------------------------------------------------

static json_t *isa_flags(void)
{
    static const char *const flags[] = { "sse4_2",      "avx",      "avx2",        "fma",
                                         "f16c",        "avx_vnni", "avx512f",     "avx512dq",
                                         "avx512bw",    "avx512vl", "avx512_vnni", "avx512_bf16",
                                         "avx512_fp16", "amx_tile", "amx_bf16" };
    json_t *a = json_array();
    for (size_t i = 0; a && i < sizeof flags / sizeof *flags; i++)
        if (hb_cpu_has(flags[i])) json_array_append_new(a, json_string(flags[i]));
    return a;
}

static json_t *cpu(void)
{
    static const struct { const char *key, *field; bool number; } rows[] = {
        { "vendor", "vendor_id", false }, { "model", "model name", false },
        { "family", "cpu family", true }, { "model_number", "model", true },
        { "stepping", "stepping", true }, { "cores_per_socket", "cpu cores", true },
    };
    char text[256];
    json_t *o = json_object();
    for (size_t i = 0; o && i < sizeof rows / sizeof *rows; i++)
        if (cpuinfo(rows[i].field, text, sizeof text))
            json_object_set_new(o, rows[i].key,
                                rows[i].number ? json_integer(atoi(text)) : json_string(text));
    if (!o) return NULL;
    json_object_set_new(o, "threads", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
    json_object_set_new(o, "caches", hb_cpu_caches());
    json_object_set_new(o, "isa", isa_flags());
    json_object_set_new(o, "virtual", json_boolean(hb_cpu_has("hypervisor")));
    return o;
}

json_t *hb_env_machine(void)
{
    struct utsname u;
    json_t *o = json_object();
    if (!o) return NULL;
    json_object_set_new(o, "cpu", cpu());
    if (uname(&u) == 0)
        json_object_set_new(o, "kernel",
                            json_pack("{s:s, s:s, s:s}", "name", u.sysname, "release", u.release,
                                      "architecture", u.machine));
    json_object_set_new(o, "libraries", libraries());
    json_t *gpu = hb_gpu_machine();              // only where there is one: ids of others stay
    if (gpu) json_object_set_new(o, "gpu", gpu);
    return o;
}
