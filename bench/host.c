// host.c: the process's services for the program and its plug-ins (contract: host.h, hb.h).
//
// Memory    One counter for everything handed out by hb_host.alloc. A block is [64 bytes of
//           header][bytes], so the user's part keeps HB_ALIGN; the header holds its size. Reserving
//           is a compare-and-swap on the counter: two threads can never pass the limit together.
// Message   One per process. The first who fails writes it; later ones are consequences and change
//           nothing.
// Threads   What the affinity mask, the cgroup's CPU quota and OMP_THREAD_LIMIT allow, whichever is
//           least.
#include <assert.h>
#include <cblas.h>
#include <dlfcn.h>
#include <errno.h>
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host.h"
#include "proc.h"

#ifdef __SANITIZE_ADDRESS__
// Without this the sanitizer ends the process where malloc returns NULL: out of memory is a result
// here.
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
#endif

enum { MAX_THREADS = 1024 };     // more is a typing error on any machine of today

// --- the message ---------------------------------------------------------------------------------

enum { MSG_NONE, MSG_WRITING, MSG_SET };
static struct { atomic_int state; int code; char text[2048]; } msg;

static int vfail(int code, const char *fmt, va_list ap)
{
    int none = MSG_NONE;
    if (!atomic_compare_exchange_strong(&msg.state, &none, MSG_WRITING)) return code;
    vsnprintf(msg.text, sizeof msg.text, fmt, ap);
    for (char *c = msg.text; *c; c++)  // names from files may hold anything; a message is one line
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = ' ';
    msg.code = code;
    atomic_store(&msg.state, MSG_SET);
    return code;
}

int hb_fail(int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfail(code, fmt, ap);
    va_end(ap);
    return code;
}

const char *hb_error(void) { return atomic_load(&msg.state) == MSG_SET ? msg.text : ""; }
int hb_error_code(void) { return atomic_load(&msg.state) == MSG_SET ? msg.code : HB_OK; }
void hb_error_clear(void) { atomic_store(&msg.state, MSG_NONE); }

static int host_fail(const struct hb_host *self, int code, const char *fmt, ...)
{
    (void)self;
    va_list ap;
    va_start(ap, fmt);
    vfail(code, fmt, ap);
    va_end(ap);
    return code;
}

// --- memory --------------------------------------------------------------------------------------

struct block { size_t bytes; uint64_t magic; };
#define BLOCK_MAGIC 0x68796e61626c6f63u
static_assert(sizeof(struct block) <= HB_ALIGN, "the header must fit in front of an aligned block");

static struct { atomic_size_t now, peak, limit; _Atomic uint64_t count; } mem;

static bool reserve(size_t bytes, size_t *in_use)
{
    size_t limit = atomic_load(&mem.limit), now = atomic_load(&mem.now);
    do {
        *in_use = now;
        if (bytes > SIZE_MAX - now || (limit && now + bytes > limit)) return false;
    } while (!atomic_compare_exchange_weak(&mem.now, &now, now + bytes));
    return true;
}

static void raise_peak(size_t to)
{
    size_t peak = atomic_load(&mem.peak);
    while (to > peak && !atomic_compare_exchange_weak(&mem.peak, &peak, to)) continue;
}

static void *host_alloc(const struct hb_host *self, size_t bytes)
{
    (void)self;
    size_t in_use = 0;
    if (bytes > SIZE_MAX / 2) {  // no room for header and rounding: the caller's product is huge
        hb_fail(HB_ERR_OOM, "out of memory: %zu bytes wanted", bytes);
        return NULL;
    }
    if (!reserve(bytes, &in_use)) {
        hb_fail(HB_ERR_OOM, "out of memory: %zu bytes wanted, %zu in use, limit %zu", bytes, in_use,
                atomic_load(&mem.limit));
        return NULL;
    }
    size_t total = HB_ALIGN + (bytes + HB_ALIGN - 1) / HB_ALIGN * HB_ALIGN;
    struct block *b = aligned_alloc(HB_ALIGN, total);
    if (!b) {
        atomic_fetch_sub(&mem.now, bytes);
        hb_fail(HB_ERR_OOM, "out of memory: the system refused %zu bytes, %zu in use", bytes,
                in_use);
        return NULL;
    }
    raise_peak(in_use + bytes);
    *b = (struct block){ .bytes = bytes, .magic = BLOCK_MAGIC };
    atomic_fetch_add(&mem.count, 1);
    return (char *)b + HB_ALIGN;
}

static void host_free(const struct hb_host *self, void *p)
{
    (void)self;
    if (!p) return;
    struct block *b = (struct block *)(void *)((char *)p - HB_ALIGN);
    assert(b->magic == BLOCK_MAGIC);  // else: not from alloc, freed before, or written in front of
    b->magic = 0;
    atomic_fetch_sub(&mem.now, b->bytes);
    free(b);
}

struct hb_mem hb_host_mem(void)
{
    return (struct hb_mem){ atomic_load(&mem.now), atomic_load(&mem.peak),
                            atomic_load(&mem.count) };
}

void hb_host_reset_peak(void) { atomic_store(&mem.peak, atomic_load(&mem.now)); }
void hb_host_set_limit(size_t mem_limit) { atomic_store(&mem.limit, mem_limit); }

// --- threads -------------------------------------------------------------------------------------

static int affinity_threads(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    return omp_get_num_procs();  // more than 1024 CPUs: the fixed mask does not hold them
}

// CPUs' worth of quota in one cgroup folder, rounded up; 0 if there is no quota.
static int folder_quota(const char *dir)
{
    char path[4200];
    long long quota = 0, period = 0;
    snprintf(path, sizeof path, "%s/cpu.max", dir);  // version 2: "QUOTA PERIOD" or "max ..."
    FILE *f = fopen(path, "re");
    if (f) {
        int n = fscanf(f, "%lld %lld", &quota, &period);
        fclose(f);
        return n == 2 && quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
    }
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);  // version 1: two files, -1 is none
    if (!(f = fopen(path, "re"))) return 0;
    int n = fscanf(f, "%lld", &quota);
    fclose(f);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    if (n != 1 || quota <= 0 || !(f = fopen(path, "re"))) return 0;
    n = fscanf(f, "%lld", &period);
    fclose(f);
    return n == 1 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

static void least_quota(const char *dir, void *least)
{
    int *to = least, q = folder_quota(dir);
    if (q > 0 && (*to == 0 || q < *to)) *to = q;
}

int hb_available_threads(void)
{
    int n = affinity_threads(), q = 0, most = omp_get_thread_limit();
    hb_each_cgroup("cpu", least_quota, &q);      // of this process's groups; 0: there is none
    if (q > 0 && q < n) n = q;
    if (n > most) n = most;          // OMP_THREAD_LIMIT
    if (n > MAX_THREADS) n = MAX_THREADS;
    return n > 0 ? n : 1;
}

// --- the host ------------------------------------------------------------------------------------

static const struct hb_impl *host_open(const struct hb_host *self, const char *name)
{
    (void)self;
    return hb_registry_load() ? NULL : hb_registry_find(name);
}

static struct hb_host host = {
    .abi = HB_ABI_VERSION, .threads = 1, .cache_dir = "",
    .alloc = host_alloc, .free = host_free, .fail = host_fail, .open = host_open,
};

const struct hb_host *hb_host(void) { return &host; }

int hb_host_init(int threads, size_t mem_limit)
{
    if (threads > MAX_THREADS)
        return hb_fail(HB_ERR_INPUT, "threads: %d is more than %d", threads, MAX_THREADS);
    host.threads = threads > 0 ? threads : hb_available_threads();
    hb_host_set_limit(mem_limit);

    // The pthread build has a pool of its own beside OpenMP's: two pools on the same cores spoil
    // every time.
    enum { OPENBLAS_WITH_OPENMP = 2 };
    if (openblas_get_parallel() != OPENBLAS_WITH_OPENMP)
        return hb_fail(HB_ERR_MISSING,
                       "OpenBLAS: its OpenMP build is needed (package libopenblas0-openmp), "
                       "this one is of kind %d",
                       openblas_get_parallel());
    // OMP_DYNAMIC and OMP_THREAD_LIMIT would quietly give fewer threads than the record says.
    if (omp_get_thread_limit() < host.threads)
        return hb_fail(HB_ERR_INPUT, "threads: %d, but OMP_THREAD_LIMIT is %d", host.threads,
                       omp_get_thread_limit());
    omp_set_dynamic(0);
    omp_set_num_threads(host.threads);
    openblas_set_num_threads(host.threads);

    host.device = hb_device_cpu(&host);
    if (!host.device) return hb_error_code() ? hb_error_code() : HB_ERR_RUN;
    const char *dir = hb_machine_dir();
    if (hb_mkdirs(dir)) hb_error_clear();
    // A read-only build folder costs wisdom and caches, nothing else.
    host.cache_dir = access(dir, W_OK) == 0 ? dir : "";
    return 0;
}

// --- devices -------------------------------------------------------------------------------------

static size_t device_limit;          // bytes of a device that is opened later; 0: what it has

void hb_host_set_device_limit(size_t mem_limit) { device_limit = mem_limit; }

// Opens devices/cuda.so once; NULL with the message set. It stays open until exit.
static const struct hb_device *cuda_device(void)
{
    static const struct hb_device *cuda;
    char path[4300];
    if (cuda) return cuda;
    snprintf(path, sizeof path, "%s/cuda.so", hb_devices_dir());
    if (access(path, R_OK) != 0) {
        hb_fail(HB_ERR_MISSING, "device cuda: it is not built (%s is not there): make needs nvcc",
                path);
        return NULL;
    }
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        hb_fail(HB_ERR_MISSING, "device cuda: cannot be loaded: %s", dlerror());
        return NULL;
    }
    hb_device_open_fn *open_it;
    void *symbol = dlsym(lib, HB_DEVICE_OPEN);
    memcpy(&open_it, &symbol, sizeof open_it);       // ISO C has no cast between the two
    if (!symbol) hb_fail(HB_ERR_MISSING, "device cuda: %s exports no %s", path, HB_DEVICE_OPEN);
    else cuda = open_it(&host, device_limit);
    if (!cuda) hb_fail(HB_ERR_MISSING, "device cuda: no NVIDIA GPU, or no driver for it, is here");
    return cuda;
}

int hb_use_device(const char *device)
{
    const struct hb_device *d;
    if (strcmp(device, "cpu0") == 0) d = hb_device_cpu(&host);
    else if (strcmp(device, "cuda0") == 0) d = cuda_device();
    else if (strncmp(device, "cuda", 4) == 0)
        return hb_fail(HB_ERR_INPUT,
                       "device: '%.15s': only cuda0 is used; CUDA_VISIBLE_DEVICES says which GPU "
                       "that is", device);
    else return hb_fail(HB_ERR_INPUT, "device: '%.15s' is neither cpu0 nor cuda0", device);
    if (!d) return hb_error_code() ? hb_error_code() : HB_ERR_MISSING;
    host.device = d;
    return 0;
}

int64_t hb_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);        // cannot fail: the clock exists on every Linux
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
