// cuda_cast.cu: casts between the storage types, sums of float32.
//
// Method    casts: 16 bytes of the wider type per thread where the alignment allows. Sums: each
//           thread in double over a stride of the grid, then one block in a fixed order, which
//           writes the result into pinned host memory.
// Accuracy  casts round once, to nearest even; sums to about 1e-15 of the sum of magnitudes.
#include "cuda.h"

enum { SUM_THREADS = 256 };
static const int64_t SUM_BLOCKS = 2048;      // partial sums; one block adds them up

static double *sum_host;                     // owned, pinned; the device writes it

// --- casts ---------------------------------------------------------------------------------------

template <class To, class From> __device__ __forceinline__ To convert(From x)
{
    return hb_store<To>(hb_load(x));
}
template <> __device__ __forceinline__ double convert<double, double>(double x) { return x; }
template <> __device__ __forceinline__ double convert<double, float>(float x) { return x; }
template <> __device__ __forceinline__ double convert<double, __half>(__half x)
{
    return __half2float(x);
}
template <> __device__ __forceinline__ double convert<double, __nv_bfloat16>(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
template <> __device__ __forceinline__ float convert<float, double>(double x)
{
    return __double2float_rn(x);
}
template <> __device__ __forceinline__ __half convert<__half, double>(double x)
{
    return __double2half(x);
}
template <> __device__ __forceinline__ __nv_bfloat16 convert<__nv_bfloat16, double>(double x)
{
    return __double2bfloat16(x);
}

template <class T, int V> struct alignas(sizeof(T) * V) pack { T x[V]; };

// Grid-stride over packs of V; V > 1 wants both pointers aligned to their pack. The rest below a
// whole pack is the first block's.
template <class To, class From, int V>
__global__ void cast_kernel(To *dst, const From *src, int64_t n)
{
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, packs = n / V;
    for (int64_t k = i; k < packs; k += (int64_t)gridDim.x * blockDim.x) {
        pack<From, V> in = ((const pack<From, V> *)src)[k];
        pack<To, V> out;
        #pragma unroll
        for (int v = 0; v < V; v++) out.x[v] = convert<To, From>(in.x[v]);
        ((pack<To, V> *)dst)[k] = out;
    }
    if (i < n - packs * V) dst[packs * V + i] = convert<To, From>(src[packs * V + i]);
}

template <class F> static void by_any_type(enum hb_dtype t, F f)
{
    if (t == HB_F64) f(0.0);
    else hb_by_type(t, f);
}

void cuda_cast(void *dst, enum hb_dtype to, const void *src, enum hb_dtype from, int64_t n,
               void *s)
{
    if (n <= 0) return;
    by_any_type(to, [&](auto a) {
        using To = decltype(a);
        by_any_type(from, [&](auto b) {
            using From = decltype(b);
            constexpr int V = 16 / (int)(sizeof(To) > sizeof(From) ? sizeof(To) : sizeof(From));
            bool whole = (uintptr_t)dst % (V * sizeof(To)) == 0
                      && (uintptr_t)src % (V * sizeof(From)) == 0;
            if (whole)
                cast_kernel<To, From, V><<<cuda_blocks(n, 256 * V), 256, 0, (cudaStream_t)s>>>(
                    (To *)dst, (const From *)src, n);
            else
                cast_kernel<To, From, 1><<<cuda_blocks(n, 256), 256, 0, (cudaStream_t)s>>>(
                    (To *)dst, (const From *)src, n);
        });
    });
    cuda_launched("cast");
}

// --- sums ----------------------------------------------------------------------------------------

// The sum of v over a block of SUM_THREADS, in thread 0; a fixed tree.
static __device__ double block_sum(double v)
{
    __shared__ double part[SUM_THREADS / 32];
    for (int step = 16; step > 0; step /= 2) v += __shfl_down_sync(0xffffffffu, v, step);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    double total = 0;
    if (threadIdx.x == 0)
        for (int w = 0; w < SUM_THREADS / 32; w++) total += part[w];
    return total;
}

template <bool SQUARES> __device__ __forceinline__ double term(float x)
{
    return SQUARES ? (double)x * (double)x : (double)x;
}

// part[block] = sum of x, or of its squares, over the block's strides; V = 4 wants x aligned to 16.
template <bool SQUARES, int V>
__global__ void sum_kernel(double *part, const float *x, int64_t n)
{
    int64_t i = blockIdx.x * (int64_t)SUM_THREADS + threadIdx.x, packs = n / V;
    double total = 0;
    for (int64_t k = i; k < packs; k += (int64_t)gridDim.x * SUM_THREADS) {
        pack<float, V> in = ((const pack<float, V> *)x)[k];
        #pragma unroll
        for (int v = 0; v < V; v++) total += term<SQUARES>(in.x[v]);
    }
    if (i < n - packs * V) total += term<SQUARES>(x[packs * V + i]);
    total = block_sum(total);
    if (threadIdx.x == 0) part[blockIdx.x] = total;
}

__global__ void sum_parts_kernel(double *out, const double *part, int n)
{
    double total = 0;
    for (int i = threadIdx.x; i < n; i += SUM_THREADS) total += part[i];
    total = block_sum(total);
    if (threadIdx.x == 0) *out = total;
}

static int waited(void *s)
{
    cuda_note(cudaStreamSynchronize((cudaStream_t)s), "sum");
    return cuda_taken();
}

template <bool SQUARES> static int reduce(double *out, const float *x, int64_t n, void *s)
{
    size_t bytes;
    double *part = (double *)cuda_scratch(&bytes, s);
    cudaStream_t stream = (cudaStream_t)s;
    *out = 0;
    if (n <= 0) return waited(s);
    bool whole = (uintptr_t)x % 16 == 0;
    int64_t want = (n + 4 * SUM_THREADS - 1) / (4 * SUM_THREADS);
    int grid = (int)(want < SUM_BLOCKS ? want : SUM_BLOCKS);
    if (whole) sum_kernel<SQUARES, 4><<<grid, SUM_THREADS, 0, stream>>>(part, x, n);
    else sum_kernel<SQUARES, 1><<<grid, SUM_THREADS, 0, stream>>>(part, x, n);
    sum_parts_kernel<<<1, SUM_THREADS, 0, stream>>>(sum_host, part, grid);
    cuda_launched("sum");
    int e = waited(s);
    if (!e) *out = *(volatile double *)sum_host;
    return e;
}

int cuda_sumsq(const struct hb_device *d, double *out_host, const float *x, int64_t n, void *s)
{
    (void)d;
    return reduce<true>(out_host, x, n, s);
}

int cuda_sum(const struct hb_device *d, double *out_host, const float *x, int64_t n, void *s)
{
    (void)d;
    return reduce<false>(out_host, x, n, s);
}

// --- opening -------------------------------------------------------------------------------------

// Is there code for this GPU, and the word that sums come back in?
int cuda_cast_open(void)
{
    struct cudaFuncAttributes attr;
    if (cudaFuncGetAttributes(&attr, sum_parts_kernel) != cudaSuccess) {
        (void)cudaGetLastError();
        return gpu.host->fail(gpu.host, HB_ERR_MISSING, "cuda: this build has no code for compute "
                              "capability %d.%d (make ARCH=)", gpu.major, gpu.minor);
    }
    return HB_CUDA(gpu.host, cudaHostAlloc((void **)&sum_host, sizeof *sum_host,
                                           cudaHostAllocDefault));
}

void cuda_cast_close(void)
{
    if (sum_host) (void)cudaFreeHost(sum_host);
    sum_host = NULL;
}
