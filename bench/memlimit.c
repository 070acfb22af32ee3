// memlimit.c: how much memory a point may have by default (contract: child.h).
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "child.h"
#include "proc.h"

// The number in a one-line file, or `none` ("max", no such file).
static size_t number_in(const char *path, size_t none)
{
    FILE *f = fopen(path, "re");
    if (!f) return none;
    unsigned long long v;
    size_t r = fscanf(f, "%llu", &v) == 1 ? (size_t)v : none;
    fclose(f);
    return r;
}

// File cache in a group's usage that the kernel gives back first; 0 if it does not say.
static size_t idle_cache(const char *dir)
{
    char path[4400], line[256];
    unsigned long long v, most = 0;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if ((sscanf(line, "inactive_file %llu", &v) == 1
             || sscanf(line, "total_inactive_file %llu", &v) == 1) && v > most)
            most = v;
    if (f) fclose(f);
    return (size_t)most;
}

static size_t room(const char *dir, const char *max, const char *now)
{
    char path[4400];
    snprintf(path, sizeof path, "%s/%s", dir, max);
    size_t limit = number_in(path, SIZE_MAX);
    snprintf(path, sizeof path, "%s/%s", dir, now);
    size_t used = number_in(path, 0), idle = idle_cache(dir);
    used -= idle < used ? idle : used;
    return limit == SIZE_MAX ? SIZE_MAX : limit > used ? limit - used : 0;
}

// What the control groups leave: version 2, this group and every one above it; version 1, the
// memory controller.
static size_t cgroup_room(void)
{
    char line[4200], dir[4300];
    size_t least = room("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes");
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "0::/", 4)) continue;
        snprintf(dir, sizeof dir, "/sys/fs/cgroup%s", line + 3);
        for (char *cut; strlen(dir) >= strlen("/sys/fs/cgroup"); *cut = 0) {
            size_t r = room(dir, "memory.max", "memory.current");
            if (r < least) least = r;
            cut = strrchr(dir, '/');
        }
    }
    if (f) fclose(f);
    return least;
}

size_t hb_default_mem_limit(void)
{
    size_t a = hb_proc_bytes("/proc/meminfo", "MemAvailable"), c = cgroup_room();
    size_t least = a && a < c ? a : c;           // 0: the kernel does not say
    return least == SIZE_MAX ? (size_t)1 << 30 : least / 10 * 7;     // unknown: a cautious 1 GiB
}
