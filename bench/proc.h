// proc.h: what the kernel tells in /proc, read in one place.
#ifndef HB_PROC_H
#define HB_PROC_H

#include <stdbool.h>
#include <stddef.h>

// The value in bytes of a line "KEY: N kB" in a file like /proc/self/status; 0: no file, no line.
size_t hb_proc_bytes(const char *path, const char *key);

// The most memory this process has had resident (VmHWM); 0: the kernel does not say.
size_t hb_rss_peak(void);

// Calls see(folder, ctx) for the control groups of this process, each and all above it: those of
// version 2, and of version 1 the ones of this controller ("cpu", "memory").
void hb_each_cgroup(const char *controller, void (*see)(const char *dir, void *ctx), void *ctx);

// Processor time of the whole machine since boot, in ticks of 1/sysconf(_SC_CLK_TCK) s.
struct hb_ticks { double busy, steal, total; };
bool hb_read_ticks(struct hb_ticks *t);

#endif
