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
    char path[4700], line[256];
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
    char path[4700];
    snprintf(path, sizeof path, "%s/%s", dir, max);
    size_t limit = number_in(path, SIZE_MAX);
    snprintf(path, sizeof path, "%s/%s", dir, now);
    size_t used = number_in(path, 0), idle = idle_cache(dir);
    used -= idle < used ? idle : used;
    return limit == SIZE_MAX ? SIZE_MAX : limit > used ? limit - used : 0;
}

// What a control group leaves; its files have other names in version 1.
static void least_room(const char *dir, void *least)
{
    size_t *to = least, v2 = room(dir, "memory.max", "memory.current"),
           v1 = room(dir, "memory.limit_in_bytes", "memory.usage_in_bytes");
    if (v2 < *to) *to = v2;
    if (v1 < *to) *to = v1;
}

size_t hb_default_mem_limit(void)
{
    size_t a = hb_proc_bytes("/proc/meminfo", "MemAvailable"), least = SIZE_MAX;
    hb_each_cgroup("memory", least_room, &least);
    if (a && a < least) least = a;               // 0: the kernel does not say
    return least == SIZE_MAX ? (size_t)1 << 30 : least / 10 * 7;     // unknown: a cautious 1 GiB
}
