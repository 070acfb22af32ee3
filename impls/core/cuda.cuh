// cuda.cuh: what every CUDA file here does alike: report errors, read and write the storage types,
// pick a kernel by type.
#ifndef HB_CUDA_CUH
#define HB_CUDA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "device.h"

// 0, or the code of a failed runtime call with the message set. Out of memory is a result; it is
// taken back from the runtime, which else would report it again later.
static inline int hb_cuda_failed(const struct hb_host *host, cudaError_t e, const char *what)
{
    if (e == cudaSuccess) return 0;
    (void)cudaGetLastError();
    return host->fail(host, e == cudaErrorMemoryAllocation ? HB_ERR_OOM : HB_ERR_RUN, "%s: %s",
                      what, cudaGetErrorString(e));
}
#define HB_CUDA(host, call) hb_cuda_failed(host, call, #call)

// Of the launches since the last call: an invalid configuration shows at once, a fault inside a
// kernel at the next `sync`.
static inline int hb_cuda_launched(const struct hb_host *host, const char *who)
{
    return hb_cuda_failed(host, cudaGetLastError(), who);
}

// Storage type <-> float, rounding to nearest even.
__device__ __forceinline__ float hb_load(float x) { return x; }
__device__ __forceinline__ float hb_load(__half x) { return __half2float(x); }
__device__ __forceinline__ float hb_load(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T hb_store(float x);
template <> __device__ __forceinline__ float hb_store<float>(float x) { return x; }
template <> __device__ __forceinline__ __half hb_store<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 hb_store<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}

// 16 bytes of a storage type at once: v.x[0 .. HB_VEC<T>).
template <class T> constexpr int HB_VEC = 16 / (int)sizeof(T);
template <class T> struct alignas(16) hb_vec { T x[HB_VEC<T>]; };

// Calls f with a value of the storage type; the type decides which template it uses:
//     hb_by_type(on.t, [&](auto x) { using T = decltype(x); kernel<T><<<...>>>(...); });
template <class F> static inline void hb_by_type(enum hb_dtype t, F f)
{
    if (t == HB_F16) f(__half());
    else if (t == HB_BF16) f(__nv_bfloat16());
    else f(0.0f);
}

#endif
