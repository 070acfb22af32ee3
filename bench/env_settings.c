// env_settings.c: what an administrator may change, and what goes on beside us right now.
#include <ctype.h>
#include <dirent.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "env.h"
#include "nvml.h"
#include "proc.h"

enum { WINDOW_MS = 300, MAX_PROCS = 4096 };

// Files of one line that are worth keeping, by the name they get.
static const struct { const char *key, *path; } files[] = {
    { "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor" },
    { "cpufreq_driver", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver" },
    { "khz_min", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq" },
    { "khz_max", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq" },
    { "khz_now", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq" },
    { "boost", "/sys/devices/system/cpu/cpufreq/boost" },
    { "no_turbo", "/sys/devices/system/cpu/intel_pstate/no_turbo" },
    { "smt_active", "/sys/devices/system/cpu/smt/active" },
    { "isolated_cpus", "/sys/devices/system/cpu/isolated" },
    { "nohz_full", "/sys/devices/system/cpu/nohz_full" },
    { "thp", "/sys/kernel/mm/transparent_hugepage/enabled" },
    { "thp_defrag", "/sys/kernel/mm/transparent_hugepage/defrag" },
    { "numa_nodes", "/sys/devices/system/node/online" },
    { "numa_balancing", "/proc/sys/kernel/numa_balancing" },
    { "huge_pages", "/proc/sys/vm/nr_hugepages" },
    { "swappiness", "/proc/sys/vm/swappiness" },
    { "aslr", "/proc/sys/kernel/randomize_va_space" },
    { "perf_event_paranoid", "/proc/sys/kernel/perf_event_paranoid" },
    { "cgroup_cpu_max", "/sys/fs/cgroup/cpu.max" },
    { "cgroup_memory_max", "/sys/fs/cgroup/memory.max" },
    { "cgroup_cpu_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us" },
    { "cgroup_cpu_period_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us" },
    { "cgroup_memory_limit", "/sys/fs/cgroup/memory/memory.limit_in_bytes" },
};

// "always [madvise] never" -> "madvise"
static const char *chosen(char *text)
{
    char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;
    if (!close) return text;
    *close = '\0';
    return open + 1;
}

static json_t *affinity(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return NULL;
    return json_integer(CPU_COUNT(&set));
}

// Does the processor's own instruction counter work (it does not in most virtual machines)?
static bool has_pmu(void)
{
    struct perf_event_attr a = { .type = PERF_TYPE_HARDWARE,
                                 .size = sizeof a,
                                 .config = PERF_COUNT_HW_INSTRUCTIONS,
                                 .exclude_kernel = 1,
                                 .exclude_hv = 1 };
    long fd = syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
    if (fd >= 0) close((int)fd);
    return fd >= 0;
}

// Only what slows the machine down or was left open; "Not affected" says nothing.
static json_t *mitigations(void)
{
    static const char dir[] = "/sys/devices/system/cpu/vulnerabilities";
    json_t *o = json_object();
    DIR *d = opendir(dir);
    for (struct dirent *e; d && o && (e = readdir(d)); ) {
        char path[512], text[256];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.' && hb_read_line(path, text, sizeof text)
            && strncmp(text, "Not affected", 12) != 0)
            json_object_set_new(o, e->d_name, json_string(text));
    }
    if (d) closedir(d);
    return o;
}

json_t *hb_env_settings(void)
{
    char text[512];
    json_t *o = json_object();
    for (size_t i = 0; o && i < sizeof files / sizeof *files; i++)
        if (hb_read_line(files[i].path, text, sizeof text) && text[0])
            json_object_set_new(o, files[i].key, json_string(chosen(text)));
    if (!o) return NULL;
    struct sysinfo s;
    if (sysinfo(&s) == 0) {
        json_object_set_new(o, "memory_bytes", json_integer((json_int_t)s.totalram * s.mem_unit));
        json_object_set_new(o, "swap_bytes", json_integer((json_int_t)s.totalswap * s.mem_unit));
    }
    json_t *cpus = affinity();
    if (cpus) json_object_set_new(o, "cpus_allowed", cpus);
    json_object_set_new(o, "page_bytes", json_integer(sysconf(_SC_PAGESIZE)));
    json_object_set_new(o, "pmu", json_boolean(has_pmu()));
    json_object_set_new(o, "mitigations", mitigations());
    json_t *gpu = hb_gpu_settings();
    if (gpu) json_object_set_new(o, "gpu", gpu);
    return o;
}

// --- noise ---------------------------------------------------------------------------------------

struct proc { int pid; double ticks; };

// CPU time of every other process. Returns how many.
static size_t read_procs(struct proc *p)
{
    size_t n = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && n < MAX_PROCS && (e = readdir(d)); ) {
        char path[300], line[1024];
        double user, sys;
        int pid = isdigit((unsigned char)e->d_name[0]) ? atoi(e->d_name) : 0;
        snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
        if (pid <= 0 || pid == getpid() || !hb_read_line(path, line, sizeof line)) continue;
        const char *after_name = strrchr(line, ')');      // a name may hold anything
        if (after_name
            && sscanf(after_name + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lf %lf", &user,
                      &sys)
                   == 2)
            p[n++] = (struct proc){ pid, user + sys };
    }
    if (d) closedir(d);
    return n;
}

static double gained(const struct proc *before, size_t n, struct proc now)
{
    for (size_t i = 0; i < n; i++)
        if (before[i].pid == now.pid) return now.ticks - before[i].ticks;
    return now.ticks;
}

json_t *hb_env_noise(void)
{
    struct hb_ticks t0, t1 = { 0 };
    struct proc *p = malloc(2 * MAX_PROCS * sizeof *p);
    json_t *o = json_object();
    if (!p || !o || !hb_read_ticks(&t0)) { free(p); return o; }
    const struct timespec window = { 0, WINDOW_MS * 1000000L };
    size_t n0 = read_procs(p);
    nanosleep(&window, NULL);
    size_t n1 = read_procs(p + MAX_PROCS), busy = 0;
    double others = 0, per_cpu = WINDOW_MS * 1e-3 * (double)sysconf(_SC_CLK_TCK);
    for (size_t i = 0; i < n1; i++) {
        double gain = gained(p, n0, p[MAX_PROCS + i]);
        others += gain;
        busy += gain > 0.05 * per_cpu;
    }
    if (hb_read_ticks(&t1) && t1.total > t0.total)
        json_object_set_new(o, "steal_frac",
                            json_real((t1.steal - t0.steal) / (t1.total - t0.total)));
    json_object_set_new(o, "cpus_used_by_others", json_real(others / per_cpu));
    json_object_set_new(o, "busy_processes", json_integer((json_int_t)busy));
    if (t1.total > 0)
        json_object_set_new(o, "steal_frac_since_boot", json_real(t1.steal / t1.total));
    double load[3];
    if (getloadavg(load, 3) == 3)
        json_object_set_new(o, "load_avg", json_pack("[f,f,f]", load[0], load[1], load[2]));
    free(p);
    return o;
}
