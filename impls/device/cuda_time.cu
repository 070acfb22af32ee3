// cuda_time.cu: time on the device: marks, a hold, a cache flush, graphs.
//
// Method    marks are events. A hold is one thread that watches the global timer, so that the
//           launches enqueued behind it are all there when it ends. The flush reads a buffer of
//           four times the last-level cache (at least 256 MB): reading leaves no dirty lines whose
//           write-back would fall into the next measurement. Graphs are captured in thread-local
//           mode, in which an allocation or a wait inside is an error.
// Memory    the flush buffer is taken at its first use and is neither counted nor limited: it
//           belongs to the measurement, not to what is measured.
#include "cuda.h"

static const double MOST_HOLD = 0.1;             // seconds
static const size_t FLUSH_BYTES = (size_t)256 << 20;

static cudaEvent_t marks[HB_MARKS];              // owned
static void *flush_buffer;                       // owned, flush_bytes and one word for the sink
static size_t flush_bytes;

int cuda_time_open(void)
{
    for (int i = 0; i < HB_MARKS; i++) {
        int e = HB_CUDA(gpu.host, cudaEventCreateWithFlags(&marks[i], cudaEventDefault));
        if (e) return e;
    }
    return 0;
}

void cuda_time_close(void)
{
    for (int i = 0; i < HB_MARKS; i++) {
        if (marks[i]) (void)cudaEventDestroy(marks[i]);
        marks[i] = NULL;
    }
    if (flush_buffer) (void)cudaFree(flush_buffer);
    flush_buffer = NULL;
}

int cuda_mark(const struct hb_device *d, int slot, void *s)
{
    (void)d;
    if (slot < 0 || slot >= HB_MARKS)
        return gpu.host->fail(gpu.host, HB_ERR_INPUT, "cuda: no mark %d", slot);
    return HB_CUDA(gpu.host, cudaEventRecord(marks[slot], (cudaStream_t)s));
}

int cuda_between(const struct hb_device *d, int a, int b, double *seconds)
{
    (void)d;
    float ms = 0;
    *seconds = 0;
    if (a < 0 || a >= HB_MARKS || b < 0 || b >= HB_MARKS)
        return gpu.host->fail(gpu.host, HB_ERR_INPUT, "cuda: no mark %d or %d", a, b);
    int e = HB_CUDA(gpu.host, cudaEventSynchronize(marks[b]));
    if (!e) e = cuda_taken();                    // a launch that failed has no time
    if (!e) e = HB_CUDA(gpu.host, cudaEventElapsedTime(&ms, marks[a], marks[b]));
    if (!e) *seconds = (double)ms * 1e-3;
    return e;
}

// --- hold and flush ------------------------------------------------------------------------------

static __device__ __forceinline__ uint64_t timer_ns(void)
{
    uint64_t t;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
    return t;
}

// One thread. `cycles` ends it should the timer stand still.
__global__ void hold_kernel(uint64_t ns, int64_t cycles)
{
    uint64_t t0 = timer_ns();
    int64_t c0 = clock64();
    while (timer_ns() - t0 < ns && clock64() - c0 < cycles) {}
}

void cuda_hold(const struct hb_device *d, double seconds, void *s)
{
    (void)d;
    if (!(seconds > 0)) return;
    if (seconds > MOST_HOLD) seconds = MOST_HOLD;
    hold_kernel<<<1, 1, 0, (cudaStream_t)s>>>((uint64_t)(seconds * 1e9),
                                              (int64_t)(seconds * 4e9) + 1);   // below 4 GHz
    cuda_launched("hold");
}

// Reads n times 16 bytes. The sink is written only if they add up to something that zeros never do,
// which the compiler cannot know.
__global__ void flush_kernel(const uint4 *x, int64_t n, unsigned *sink)
{
    unsigned sum = 0;
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        uint4 v = x[i];
        sum += v.x ^ v.y ^ v.z ^ v.w;
    }
    if (sum == 0x9e3779b9u) *sink = sum;
}

int cuda_flush(const struct hb_device *d, void *s)
{
    (void)d;
    cudaStream_t stream = (cudaStream_t)s;
    size_t least = 2 * gpu.l2_bytes;
    if (!flush_buffer) {
        flush_bytes = 4 * gpu.l2_bytes > FLUSH_BYTES ? 4 * gpu.l2_bytes : FLUSH_BYTES;
        flush_buffer = cuda_alloc_quietly(flush_bytes + 16);
        while (!flush_buffer && flush_bytes / 2 >= least) {       // nearly full: twice must do
            flush_bytes /= 2;
            flush_buffer = cuda_alloc_quietly(flush_bytes + 16);
        }
        if (!flush_buffer)
            return gpu.host->fail(gpu.host, HB_ERR_OOM,
                                  "cuda: no memory for the %zu bytes that flush the cache",
                                  flush_bytes);
        int e = HB_CUDA(gpu.host, cudaMemsetAsync(flush_buffer, 0, flush_bytes + 16, stream));
        if (e) return e;
    }
    int64_t n = (int64_t)(flush_bytes / 16);
    flush_kernel<<<cuda_blocks(n, 256), 256, 0, stream>>>(
        (const uint4 *)flush_buffer, n, (unsigned *)((char *)flush_buffer + flush_bytes));
    return hb_cuda_launched(gpu.host, "flush");
}

// --- graphs --------------------------------------------------------------------------------------

int cuda_capture(const struct hb_device *d, void *s)
{
    (void)d;
    return HB_CUDA(gpu.host,
                   cudaStreamBeginCapture((cudaStream_t)s, cudaStreamCaptureModeThreadLocal));
}

int cuda_captured(const struct hb_device *d, void *s, void **graph)
{
    (void)d;
    cudaGraph_t form = NULL;
    cudaGraphExec_t exec = NULL;
    *graph = NULL;
    cudaError_t ended = cudaStreamEndCapture((cudaStream_t)s, &form);
    int e = cuda_taken();                        // why the capture failed, if a primitive knows
    if (!e) e = hb_cuda_failed(gpu.host, ended, "capture");
    if (!e) e = HB_CUDA(gpu.host, cudaGraphInstantiate(&exec, form, 0));
    if (!e) e = HB_CUDA(gpu.host, cudaGraphUpload(exec, (cudaStream_t)s));
    if (form) (void)cudaGraphDestroy(form);
    if (e && exec) (void)cudaGraphExecDestroy(exec);
    if (!e) *graph = exec;
    return e;
}

int cuda_replay(const struct hb_device *d, void *graph, void *s)
{
    (void)d;
    return HB_CUDA(gpu.host, cudaGraphLaunch((cudaGraphExec_t)graph, (cudaStream_t)s));
}

void cuda_graph_free(const struct hb_device *d, void *graph)
{
    (void)d;
    if (graph) cuda_note(cudaGraphExecDestroy((cudaGraphExec_t)graph), "graph_free");
}
