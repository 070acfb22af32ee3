// env.h: what this machine is, for the sampler, the roofline and the `env` command.
#ifndef HB_ENV_H
#define HB_ENV_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

size_t hb_llc_bytes(void);           // largest cache of cpu0; 32 MiB if the system does not say
size_t hb_llc_total_bytes(void);     // of all caches of that level
size_t hb_cache_bytes(int level);    // data or unified cache of that level of cpu0; 0: unknown
bool hb_cpu_has(const char *flag);   // a flag of /proc/cpuinfo, "avx512f"
double hb_cpu_mhz(void);             // now; 0: unknown
json_t *hb_cpu_caches(void);         // [{type, level, size, num_sharing}], Google Benchmark's form
// File name of a library of this process whose name starts so ("libbenchmark.so.1.7.1"), or
// "unknown"; in buf.
const char *hb_loaded_library(const char *stem, char *buf, size_t cap);

// First line of a small text file (sysfs, proc) without its end, in buf; NULL if it cannot be read.
const char *hb_read_line(const char *path, char *buf, size_t cap);

// Parts of hb_env (measuring notes 7.3). All return new references and leave out what the system
// does not tell.
json_t *hb_env_machine(void);        // the stable part (hashed): hardware, kernel, libraries
json_t *hb_env_settings(void);       // what an administrator may change: governor, THP, limits
json_t *hb_env_noise(void);          // now: load, steal, other processes (takes 0.3 s)
json_t *hb_env_software(void);       // build, libraries, variables
const char *hb_fingerprint(void);    // 64 hex digits: SHA-256 of hb_env_machine

// `env diff`, `env doctor`: pure functions over env objects.
// [{what, a, b, weight 0..100, effect}] most important first.
json_t *hb_env_diff(const json_t *a, const json_t *b);
// [{what, found, cost, advice, level "problem"|"note"}]
json_t *hb_env_doctor(const json_t *env);

#endif
