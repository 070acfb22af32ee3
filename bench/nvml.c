// nvml.c: NVML by dlopen (contract: nvml.h). Prototypes of the functions used, from NVML's
// documented interface; the toolkit does not bring its header everywhere.
//
// Device    CUDA's device 0: the first of CUDA_VISIBLE_DEVICES (an index or a UUID), else index 0.
#include <ctype.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "nvml.h"

typedef void *device;
struct memory { unsigned long long total, free, used; };
enum { CLOCK_SM = 1, CLOCK_MEM = 2, TEMPERATURE_GPU = 0, OK = 0 };

static struct {
    int (*init)(void);
    int (*count)(unsigned *n);
    int (*by_index)(unsigned i, device *d);
    int (*by_uuid)(const char *uuid, device *d);
    int (*name)(device d, char *buf, unsigned cap);
    int (*driver)(char *buf, unsigned cap);
    int (*cuda)(int *version);
    int (*memory)(device d, struct memory *m);
    int (*clock)(device d, int which, unsigned *mhz);
    int (*max_clock)(device d, int which, unsigned *mhz);
    int (*temperature)(device d, int which, unsigned *c);
    int (*power)(device d, unsigned *mw);
    int (*power_limit)(device d, unsigned *mw);
    int (*throttle)(device d, unsigned long long *bits);
    int (*persistence)(device d, int *on);
    int (*mig)(device d, unsigned *now, unsigned *pending);
    int (*ecc)(device d, int *now, int *pending);
} f;
static const struct { const char *symbol; void *slot; bool needed; } functions[] = {
    { "nvmlInit_v2", &f.init, true },
    { "nvmlDeviceGetCount_v2", &f.count, true },
    { "nvmlDeviceGetHandleByIndex_v2", &f.by_index, true },
    { "nvmlDeviceGetHandleByUUID", &f.by_uuid, false },
    { "nvmlDeviceGetName", &f.name, true },
    { "nvmlSystemGetDriverVersion", &f.driver, false },
    { "nvmlSystemGetCudaDriverVersion_v2", &f.cuda, false },
    { "nvmlDeviceGetMemoryInfo", &f.memory, false },
    { "nvmlDeviceGetClockInfo", &f.clock, false },
    { "nvmlDeviceGetMaxClockInfo", &f.max_clock, false },
    { "nvmlDeviceGetTemperature", &f.temperature, false },
    { "nvmlDeviceGetPowerUsage", &f.power, false },
    { "nvmlDeviceGetEnforcedPowerLimit", &f.power_limit, false },
    { "nvmlDeviceGetCurrentClocksThrottleReasons", &f.throttle, false },
    { "nvmlDeviceGetPersistenceMode", &f.persistence, false },
    { "nvmlDeviceGetMigMode", &f.mig, false },
    { "nvmlDeviceGetEccMode", &f.ecc, false },
};

static struct { enum { UNTRIED, THERE, ABSENT } state; device dev; unsigned n; char name[96]; } gpu;

static bool load(void)
{
    void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib) return false;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *symbol = dlsym(lib, functions[i].symbol);
        if (!symbol && functions[i].needed) return false;
        memcpy(functions[i].slot, &symbol, sizeof symbol);   // object to function pointer (POSIX)
    }
    return true;
}

static bool choose(void)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible && isdigit((unsigned char)*visible))
        return f.by_index((unsigned)atoi(visible), &gpu.dev) == OK;
    if (visible && !strncmp(visible, "GPU-", 4) && f.by_uuid) {
        char uuid[100];
        size_t n = strcspn(visible, ",");
        if (n >= sizeof uuid) return false;
        memcpy(uuid, visible, n);
        uuid[n] = '\0';
        return f.by_uuid(uuid, &gpu.dev) == OK;
    }
    return f.by_index(0, &gpu.dev) == OK;
}

bool hb_gpu_there(void)
{
    if (gpu.state == UNTRIED) {
        bool ok = load() && f.init() == OK && f.count(&gpu.n) == OK && gpu.n > 0 && choose()
               && f.name(gpu.dev, gpu.name, sizeof gpu.name) == OK;
        gpu.state = ok ? THERE : ABSENT;
        if (!ok) gpu.name[0] = '\0';
    }
    return gpu.state == THERE;
}

const char *hb_gpu_name(void) { return hb_gpu_there() ? gpu.name : ""; }

bool hb_gpu_now(struct hb_gpu_state *s)
{
    unsigned v;
    unsigned long long bits;
    *s = (struct hb_gpu_state){ 0 };
    if (!hb_gpu_there()) return false;
    if (f.clock && f.clock(gpu.dev, CLOCK_SM, &v) == OK) s->sm_mhz = v;
    if (f.clock && f.clock(gpu.dev, CLOCK_MEM, &v) == OK) s->mem_mhz = v;
    if (f.temperature && f.temperature(gpu.dev, TEMPERATURE_GPU, &v) == OK) s->temp_c = v;
    if (f.power && f.power(gpu.dev, &v) == OK) s->power_w = 1e-3 * v;
    if (f.throttle && f.throttle(gpu.dev, &bits) == OK) s->throttle = bits;
    return true;
}

json_t *hb_gpu_machine(void)
{
    if (!hb_gpu_there()) return NULL;
    json_t *o = json_object(), *all = json_array();
    char text[96];
    int cuda;
    for (unsigned i = 0; all && i < gpu.n; i++) {
        device d;
        struct memory m;
        if (f.by_index(i, &d) != OK || f.name(d, text, sizeof text) != OK) continue;
        json_t *one = json_pack("{s:s}", "name", text);
        if (one && f.memory && f.memory(d, &m) == OK)
            json_object_set_new(one, "memory_bytes", json_integer((json_int_t)m.total));
        json_array_append_new(all, one);
    }
    json_object_set_new(o, "devices", all);
    if (f.driver && f.driver(text, sizeof text) == OK)
        json_object_set_new(o, "driver", json_string(text));
    if (f.cuda && f.cuda(&cuda) == OK)
        json_object_set_new(o, "cuda_of_driver", json_integer(cuda));
    return o;
}

json_t *hb_gpu_settings(void)
{
    if (!hb_gpu_there()) return NULL;
    json_t *o = json_object();
    unsigned v, w;
    int on, later;
    if (f.power_limit && f.power_limit(gpu.dev, &v) == OK)
        json_object_set_new(o, "power_limit_w", json_real(1e-3 * v));
    if (f.max_clock && f.max_clock(gpu.dev, CLOCK_SM, &v) == OK)
        json_object_set_new(o, "sm_mhz_max", json_integer(v));
    if (f.max_clock && f.max_clock(gpu.dev, CLOCK_MEM, &v) == OK)
        json_object_set_new(o, "mem_mhz_max", json_integer(v));
    if (f.persistence && f.persistence(gpu.dev, &on) == OK)
        json_object_set_new(o, "persistence", json_boolean(on));
    if (f.mig && f.mig(gpu.dev, &v, &w) == OK)
        json_object_set_new(o, "mig", json_boolean(v));
    if (f.ecc && f.ecc(gpu.dev, &on, &later) == OK)
        json_object_set_new(o, "ecc", json_boolean(on));
    return o;
}

json_t *hb_gpu_reasons(uint64_t bits)
{
    static const struct { uint64_t bit; const char *name; } names[] = {
        { 0x1, "idle" }, { 0x2, "chosen_clocks" }, { 0x4, "sw_power_cap" }, { 0x8, "hw_slowdown" },
        { 0x10, "sync_boost" }, { 0x20, "sw_thermal" }, { 0x40, "hw_thermal" },
        { 0x80, "hw_power_brake" }, { 0x100, "display_clocks" },
    };
    json_t *a = json_array();
    for (size_t i = 0; a && i < sizeof names / sizeof *names; i++)
        if (bits & names[i].bit) json_array_append_new(a, json_string(names[i].name));
    return a;
}

json_t *hb_gpu_state_json(const struct hb_gpu_state *s)
{
    return json_pack("{s:f,s:f,s:f,s:f,s:o}", "sm_mhz", s->sm_mhz, "mem_mhz", s->mem_mhz, "temp_c",
                     s->temp_c, "power_w", s->power_w, "throttle", hb_gpu_reasons(s->throttle));
}

size_t hb_gpu_l2_bytes(void)
{
    enum { CU_L2_CACHE_SIZE = 38 };              // CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
    void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    int (*get)(int *v, int attribute, int dev) = NULL;
    void *symbol = lib ? dlsym(lib, "cuDeviceGetAttribute") : NULL;
    int v = 0;
    memcpy(&get, &symbol, sizeof symbol);
    return get && get(&v, CU_L2_CACHE_SIZE, 0) == OK && v > 0 ? (size_t)v : 0;
}
