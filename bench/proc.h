// proc.h: what the kernel tells in /proc, read in one place.
#ifndef HB_PROC_H
#define HB_PROC_H

#include <stdbool.h>
#include <stddef.h>

// The value in bytes of a line "KEY: N kB" in a file like /proc/self/status; 0: no file, no line.
size_t hb_proc_bytes(const char *path, const char *key);

// Processor time of the whole machine since boot, in ticks of 1/sysconf(_SC_CLK_TCK) s.
struct hb_ticks { double busy, steal, total; };
bool hb_read_ticks(struct hb_ticks *t);

#endif
