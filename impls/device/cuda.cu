// cuda.cu: the device interface (core/device.h) on one NVIDIA GPU: opening it, memory, copies, the
// table.
//
// Method      one device (ordinal 0), one non-blocking stream and one for work beside it (fork,
//             join), everything enqueued on the caller's stream.
// Memory      cudaMalloc, rounded up to 256 bytes, counted and limited by a list of (pointer,
//             bytes) here; the 96 MiB of partial sums and the 64 MiB that cuBLASLt works in are in
//             the count. Not in it: the driver's context, code, and the flush buffer of
//             cuda_time.cu.
// Refuses     compute capability below 8.0 (bfloat16 and asynchronous copies begin there).
#include <stdio.h>
#include <string.h>

#include "cuda.h"

enum {
    MOST_BLOCKS = 1 << 16,       // allocations alive at once: a language model has some hundreds
};
static const size_t GRAIN = 256;             // bytes: what cudaMalloc aligns to anyway

struct cuda_state gpu;

static struct { void *p; size_t bytes; } blocks[MOST_BLOCKS];
static int n_blocks;
static size_t now, peak;
static struct { int code; char text[256]; } noted;

// --- errors --------------------------------------------------------------------------------------

void cuda_note_text(int code, const char *who, const char *why)
{
    if (noted.code) return;
    noted.code = code;
    snprintf(noted.text, sizeof noted.text, "%s: %s", who, why);
}

void cuda_note(cudaError_t e, const char *who)
{
    if (e == cudaSuccess) return;
    (void)cudaGetLastError();    // told once; what poisons the context stays with the context
    cuda_note_text(e == cudaErrorMemoryAllocation ? HB_ERR_OOM : HB_ERR_RUN, who,
                   cudaGetErrorString(e));
}

int cuda_taken(void)
{
    int code = noted.code;
    noted.code = 0;
    return code ? gpu.host->fail(gpu.host, code, "%s", noted.text) : 0;
}

static int device_sync(const struct hb_device *d, void *s)
{
    (void)d;
    cuda_note(cudaStreamSynchronize((cudaStream_t)s), "work on the device");
    return cuda_taken();
}

// --- memory --------------------------------------------------------------------------------------

static void *refuse(size_t bytes, size_t most, const char *what)
{
    gpu.host->fail(gpu.host, HB_ERR_OOM,
                   "cuda: out of memory: %zu bytes wanted, %zu in use, %s %zu", bytes, now, what,
                   most);
    return NULL;
}

void *cuda_alloc_quietly(size_t bytes)
{
    void *p = NULL;
    if (cudaMalloc(&p, bytes) == cudaSuccess) return p;
    (void)cudaGetLastError();
    return NULL;
}

void *cuda_alloc(const struct hb_device *d, size_t bytes)
{
    (void)d;
    size_t most = SIZE_MAX - GRAIN, left = 0, all = 0;
    size_t want = bytes > most ? most : bytes == 0 ? GRAIN : (bytes + GRAIN - 1) / GRAIN * GRAIN;
    if (gpu.limit && (want > gpu.limit || now > gpu.limit - want))
        return refuse(bytes, gpu.limit, "limit");
    if (n_blocks == MOST_BLOCKS) return refuse(bytes, MOST_BLOCKS, "allocations at most");
    void *p = cuda_alloc_quietly(want);
    if (!p) {
        (void)cudaMemGetInfo(&left, &all);
        return refuse(bytes, left, "free");
    }
    blocks[n_blocks].p = p;
    blocks[n_blocks++].bytes = want;
    now += want;
    if (now > peak) peak = now;
    return p;
}

void cuda_free(const struct hb_device *d, void *p)
{
    (void)d;
    for (int i = n_blocks - 1; p && i >= 0; i--) {   // the last taken is mostly the first given
        if (blocks[i].p != p) continue;
        now -= blocks[i].bytes;
        blocks[i] = blocks[--n_blocks];
        cuda_note(cudaFree(p), "cudaFree");
        return;
    }
    if (p) cuda_note_text(HB_ERR_RUN, "cuda", "free of a pointer that alloc did not give");
}

void *cuda_scratch(size_t *bytes, void *stream)
{
    const bool side = stream == gpu.side;
    *bytes = side ? CUDA_SIDE : CUDA_SCRATCH;
    return side ? gpu.side_scratch : gpu.scratch;
}

static size_t device_now(const struct hb_device *d) { (void)d; return now; }
static size_t device_peak(const struct hb_device *d) { (void)d; return peak; }
static void device_reset_peak(const struct hb_device *d) { (void)d; peak = now; }

// --- copies --------------------------------------------------------------------------------------

static int move(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind, void *s,
                const char *who)
{
    if (bytes) cuda_note(cudaMemcpyAsync(dst, src, bytes, kind, (cudaStream_t)s), who);
    cuda_note(cudaStreamSynchronize((cudaStream_t)s), who);
    return cuda_taken();
}

static int device_upload(const struct hb_device *d, void *dst, const void *src, size_t bytes,
                         void *s)
{
    (void)d;
    return move(dst, src, bytes, cudaMemcpyHostToDevice, s, "upload");
}

static int device_download(const struct hb_device *d, void *dst, const void *src, size_t bytes,
                           void *s)
{
    (void)d;
    return move(dst, src, bytes, cudaMemcpyDeviceToHost, s, "download");
}

static void device_copy(void *dst, const void *src, size_t bytes, void *s)
{
    if (bytes == 0) return;
    cuda_note(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, (cudaStream_t)s), "copy");
}

static void device_zero(void *dst, size_t bytes, void *s)
{
    if (bytes) cuda_note(cudaMemsetAsync(dst, 0, bytes, (cudaStream_t)s), "zero");
}

// --- work beside a stream ------------------------------------------------------------------------

static void *device_fork(const struct hb_device *d, void *s)
{
    (void)d;
    cuda_note(cudaEventRecord(gpu.forked, (cudaStream_t)s), "fork");
    cuda_note(cudaStreamWaitEvent(gpu.side, gpu.forked, 0), "fork");
    return gpu.side;
}

static void device_join(const struct hb_device *d, void *side, void *s)
{
    (void)d;
    cuda_note(cudaEventRecord(gpu.joined, (cudaStream_t)side), "join");
    cuda_note(cudaStreamWaitEvent((cudaStream_t)s, gpu.joined, 0), "join");
}

// --- the table -----------------------------------------------------------------------------------

// What an opening that failed has taken. A device that is open stays so until the process ends.
static void give_up(const struct hb_device *d)
{
    cuda_time_close();
    cuda_gemm_close();
    cuda_cast_close();
    if (gpu.scratch) cuda_free(d, gpu.scratch);
    if (gpu.workspace) cuda_free(d, gpu.workspace);
    if (gpu.side_scratch) cuda_free(d, gpu.side_scratch);
    if (gpu.forked) (void)cudaEventDestroy(gpu.forked);
    if (gpu.joined) (void)cudaEventDestroy(gpu.joined);
    if (gpu.side) (void)cudaStreamDestroy(gpu.side);
    if (gpu.stream) (void)cudaStreamDestroy(gpu.stream);
    memset(&gpu, 0, sizeof gpu);
}

static struct hb_device table = {
    .name = "cuda", .dtypes = 1u << HB_F32 | 1u << HB_F16 | 1u << HB_BF16,
    .stream = NULL,
    .alloc = cuda_alloc, .free = cuda_free, .upload = device_upload, .download = device_download,
    .copy = device_copy, .zero = device_zero, .sync = device_sync,
    .now_bytes = device_now, .peak_bytes = device_peak, .reset_peak = device_reset_peak,
    .fork = device_fork, .join = device_join,
    .mark = cuda_mark, .between = cuda_between, .hold = cuda_hold, .flush = cuda_flush,
    .capture = cuda_capture, .captured = cuda_captured, .replay = cuda_replay,
    .graph_free = cuda_graph_free,
    .gemm = cuda_gemm, .cast = cuda_cast, .bias_bwd = cuda_bias_bwd,
    .layernorm_fwd = cuda_layernorm_fwd, .layernorm_bwd = cuda_layernorm_bwd,
    .shortconv_fwd = cuda_shortconv_fwd, .shortconv_bwd = cuda_shortconv_bwd,
    .taps_fwd = cuda_taps_fwd, .taps_bwd = cuda_taps_bwd,
    .add = cuda_add,
    .swap = cuda_swap, .rope = cuda_rope,
    .embed_fwd = cuda_embed_fwd, .embed_bwd = cuda_embed_bwd, .xent = cuda_xent,
    .sumsq = cuda_sumsq, .sum = cuda_sum, .adamw = cuda_adamw,
    .filter_ws = cuda_filter_ws, .filter_fwd = cuda_filter_fwd, .filter_bwd = cuda_filter_bwd,
};

// Is there a GPU that this build runs on?
static int find_gpu(const struct hb_host *host)
{
    int driver = 0, runtime = 0, count = 0, l2 = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0) return host->fail(host, HB_ERR_MISSING, "cuda: no NVIDIA driver");
    cudaError_t e = cudaGetDeviceCount(&count);
    (void)cudaGetLastError();
    if (e == cudaErrorInsufficientDriver)
        return host->fail(host, HB_ERR_MISSING,
                          "cuda: the driver is for CUDA %d.%d, this program needs %d.%d",
                          driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (e == cudaErrorNoDevice || (e == cudaSuccess && count == 0))
        return host->fail(host, HB_ERR_MISSING, "cuda: no GPU");
    if (e != cudaSuccess)
        return host->fail(host, HB_ERR_MISSING, "cuda: %s", cudaGetErrorString(e));
    int *at[] = { &gpu.major, &gpu.minor, &gpu.sms, &l2 };
    enum cudaDeviceAttr what[] = {
        cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor,
        cudaDevAttrMultiProcessorCount, cudaDevAttrL2CacheSize
    };
    for (int i = 0; i < 4; i++) {
        int code = HB_CUDA(host, cudaDeviceGetAttribute(at[i], what[i], gpu.ordinal));
        if (code) return code;
    }
    gpu.l2_bytes = (size_t)l2;
    if (gpu.major < 8)
        return host->fail(host, HB_ERR_MISSING,
                          "cuda: the GPU has compute capability %d.%d, 8.0 is needed", gpu.major,
                          gpu.minor);
    return 0;
}

static int open_gpu(const struct hb_host *host)
{
    int e = HB_CUDA(host, cudaSetDevice(gpu.ordinal));
    if (e) return e;
    e = cuda_cast_open();
    if (e) return e;
    e = HB_CUDA(host, cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking));
    if (e) return e;
    int first = 0;                               // what is beside has the smaller kernels
    (void)cudaDeviceGetStreamPriorityRange(NULL, &first);
    e = HB_CUDA(host, cudaStreamCreateWithPriority(&gpu.side, cudaStreamNonBlocking, first));
    if (!e) e = HB_CUDA(host, cudaEventCreateWithFlags(&gpu.forked, cudaEventDisableTiming));
    if (!e) e = HB_CUDA(host, cudaEventCreateWithFlags(&gpu.joined, cudaEventDisableTiming));
    if (e) return e;
    gpu.side_scratch = cuda_alloc(&table, CUDA_SIDE);
    if (!gpu.side_scratch) return HB_ERR_OOM;
    gpu.scratch = cuda_alloc(&table, CUDA_SCRATCH);
    if (!gpu.scratch) return HB_ERR_OOM;
    gpu.workspace = cuda_alloc(&table, CUDA_WORKSPACE);
    if (!gpu.workspace) return HB_ERR_OOM;
    e = cuda_gemm_open();
    if (!e) e = cuda_filter_open();
    return e ? e : cuda_time_open();
}

HB_EXPORT const struct hb_device *hb_device_open(const struct hb_host *host, size_t mem_limit)
{
    if (host->abi != HB_ABI_VERSION) {
        host->fail(host, HB_ERR_MISSING, "cuda: built for ABI version %d, this program has %d",
                   HB_ABI_VERSION, host->abi);
        return NULL;
    }
    if (gpu.stream) return &table;               // open already, with its first limit
    gpu.host = host;
    gpu.ordinal = 0;
    gpu.limit = mem_limit;
    if (find_gpu(host) == 0 && open_gpu(host) == 0) {
        table.stream = gpu.stream;
        return &table;
    }
    give_up(&table);
    return NULL;
}
