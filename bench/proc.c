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
