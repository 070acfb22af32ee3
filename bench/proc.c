// proc.c: see proc.h.
#include <stdio.h>
#include <string.h>

#include "proc.h"

size_t hb_proc_bytes(const char *path, const char *key)
{
    FILE *f = fopen(path, "re");
    size_t n = strlen(key);
    unsigned long long kib = 0;
    char line[256];
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && sscanf(line + n, ": %llu", &kib) == 1) break;
    if (f) fclose(f);
    return (size_t)kib << 10;
}

size_t hb_rss_peak(void) { return hb_proc_bytes("/proc/self/status", "VmHWM"); }

// Is the word one of this list, which has commas between them?
static bool listed(const char *list, const char *word)
{
    for (size_t n; *list; list += n + (list[n] == ',')) {
        n = strcspn(list, ",");
        if (n == strlen(word) && !strncmp(list, word, n)) return true;
    }
    return false;
}

// Lines "NUMBER:CONTROLLERS:/PATH"; version 2 has no controllers there.
void hb_each_cgroup(const char *controller, void (*see)(const char *dir, void *ctx), void *ctx)
{
    static const char root[] = "/sys/fs/cgroup";
    char line[4200], dir[4400];
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *list = strchr(line, ':'), *path = list ? strchr(++list, ':') : NULL;
        if (!path) continue;
        *path++ = '\0';
        if (*list && !listed(list, controller)) continue;
        snprintf(dir, sizeof dir, "%s%s%s%s", root, *list ? "/" : "", *list ? controller : "",
                 path);
        for (; strlen(dir) >= strlen(root); *strrchr(dir, '/') = '\0') see(dir, ctx);
    }
    if (f) fclose(f);
}

bool hb_read_ticks(struct hb_ticks *t)
{
    FILE *f = fopen("/proc/stat", "re");
    double v[8] = { 0 };          // user nice system idle iowait irq softirq steal
    bool ok = f && fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", v, v + 1, v + 2, v + 3, v + 4,
                          v + 5, v + 6, v + 7) == 8;
    if (f) fclose(f);
    if (!ok) return false;
    t->busy = v[0] + v[1] + v[2] + v[5] + v[6];
    t->steal = v[7];
    t->total = t->busy + t->steal + v[3] + v[4];
    return true;
}
