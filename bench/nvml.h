// nvml.h: the GPU as its management library sees it: name, driver, memory, clocks, throttling.
// The library is loaded at run time; without it every call says that there is none. Needs no CUDA
// and starts none.
#ifndef HB_NVML_H
#define HB_NVML_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hb_gpu_state {
    double sm_mhz, mem_mhz, temp_c, power_w;
    uint64_t throttle;               // bits of nvmlClocksEventReasons
};
// Bits that say that the device was slower than its clocks allow (idle and chosen clocks do not).
#define HB_GPU_SLOWED ((uint64_t)(0x4 | 0x8 | 0x20 | 0x40 | 0x80))

bool hb_gpu_there(void);                         // the library, and at least one device
const char *hb_gpu_name(void);                   // "NVIDIA H100 80GB HBM3"; "" if there is none
bool hb_gpu_now(struct hb_gpu_state *s);         // of the device that CUDA calls 0
// [{name, memory_bytes, ...}], driver and CUDA version: the stable part. NULL: no GPU.
json_t *hb_gpu_machine(void);
json_t *hb_gpu_settings(void);                   // limits, persistence, MIG, ECC. NULL: no GPU
json_t *hb_gpu_state_json(const struct hb_gpu_state *s);
// ["sw_power_cap", ...]
json_t *hb_gpu_reasons(uint64_t bits);
// Bytes of the L2 cache, from the CUDA driver: only in a process that uses CUDA already. 0:
// unknown.
size_t hb_gpu_l2_bytes(void);

#endif
