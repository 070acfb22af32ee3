// host.h: the process's services: counted memory, error message, plug-in registry, device.
#ifndef HB_HOST_H
#define HB_HOST_H

#include <stdarg.h>
#include <stdio.h>
#include "../impls/core/device.h"
#include "../impls/core/hb.h"

// Sets up the process-wide host. threads <= 0: all the process may run on. mem_limit 0: none.
// Loads no plug-in yet. Returns 0 or HB_ERR_*; the host lives until exit.
int hb_host_init(int threads, size_t mem_limit);
const struct hb_host *hb_host(void);
void hb_host_set_limit(size_t mem_limit);
// "cpu0" or "cuda0": what hb_host()->device is from now on. Opens the device at its first use; the
// cpu is always there, and one process may change between them (states that were planned keep
// theirs). HB_ERR_MISSING: the plug-in is not built, or there is no GPU or driver for it.
int hb_use_device(const char *device);
void hb_host_set_device_limit(size_t mem_limit);  // before the first use; 0: what the device has
int hb_available_threads(void);                   // affinity mask and cgroup quota, at least 1

// Memory handed out by hb_host.alloc: now, at most since the last reset, allocations so far.
struct hb_mem { size_t now, peak; uint64_t count; };
struct hb_mem hb_host_mem(void);
void hb_host_reset_peak(void);

// The message: set once by whoever knows; hb_error_take copies and clears it.
int hb_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *hb_error(void);                       // "" if none
int hb_error_code(void);                          // the code the message was set with; 0 if none
void hb_error_clear(void);

// Registry: every *.so in <dir of the executable>/impls and in the colon-separated folders of
// $HYENA_BENCH_IMPLS.
struct hb_plugin {
    char path[4096];
    const struct hb_impl *impl;                   // NULL if it could not be used
    char why_not[512];                            // reason then
    char sha256[65];                              // of the file
};
int hb_registry_load(void);                                   // idempotent
int hb_registry_count(void);
const struct hb_plugin *hb_registry_at(int i);                // sorted by operator, then name
// NAME or OPERATOR:INNER ("hyena:longconv_fftw"): the outer one; the inner must exist, too.
const struct hb_impl *hb_registry_find(const char *name);     // NULL with the message set
const struct hb_plugin *hb_registry_plugin(const char *name);
bool hb_registry_has(const char *device);                     // an implementation for "cuda", say
// One hash of all that would run: this program, every plug-in, the device's. Loads the registry.
int hb_code_sha256(char hex[65]);
// What NAME runs on: "cpu", "cuda"; "any": an operator without something inside. NULL with the
// message set.
const char *hb_impl_device(const char *name);

// Places. All end without '/'. Created on demand by hb_mkdirs.
const char *hb_build_dir(void);      // folder of the executable (build/), or $HYENA_BENCH_BUILD
const char *hb_root_dir(void);       // the project's root: parent of the executable's build folder
const char *hb_impls_dir(void);      // impls/ in the executable's folder, or in its parent (tests)
const char *hb_devices_dir(void);    // devices/ beside it
const char *hb_machine_id(void);     // env.c: stable short id of hardware, kernel, libraries
const char *hb_machine_dir(void);    // build/machine/<machine_id>: wisdom, roofline, references
int hb_mkdirs(const char *path);
bool hb_ends_with(const char *s, const char *end);
// Where a command writes: `out` as the user gave it, or, if NULL, `below` ("/report") in the build
// folder. HB_ERR_INPUT: too long.
int hb_out_dir(const char *out, const char *below, char dir[4096]);
// Whole-file write: a temporary in the same folder, fsync, rename; of a link the target.
// A device or a pipe is written into. Returns 0 or HB_ERR_RUN.
int hb_write_file(const char *path, const void *data, size_t bytes);
int hb_sha256_file(const char *path, char hex[65]);
void hb_sha256(const void *data, size_t bytes, char hex[65]);
int64_t hb_now_ns(void);             // monotonic

const struct hb_device *hb_device_cpu(const struct hb_host *host);   // impls/device/cpu.c

#endif
