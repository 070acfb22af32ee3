// cuda_vec.cuh: for the memory-bound primitives of the CUDA device: V elements of a storage type as
// floats by one access, sums over a warp and over a block in a fixed order.
#ifndef HB_DEVICE_CUDA_VEC_CUH
#define HB_DEVICE_CUDA_VEC_CUH

#include "../core/cuda.cuh"

enum { WARP = 32 };

// Read and written by one instruction of V sizeof(T) bytes (1 to 16), at addresses that are
// multiples of it.
template <class T, int V> struct alignas(sizeof(T) * V) cuda_pack { T x[V]; };

template <int V, class T> __device__ __forceinline__ cuda_pack<T, V> load_pack(const T *p)
{
    return *reinterpret_cast<const cuda_pack<T, V> *>(p);
}

template <class T, int V>
__device__ __forceinline__ void unpack(float (&f)[V], const cuda_pack<T, V> &v)
{
    #pragma unroll
    for (int i = 0; i < V; i++) f[i] = hb_load(v.x[i]);
}

template <class T, int V> __device__ __forceinline__ void load_v(float (&f)[V], const T *p)
{
    unpack(f, load_pack<V>(p));
}

// Two at a time where there is an instruction for it.
__device__ __forceinline__ __half2 pack_two(float a, float b, __half)
{
    return __floats2half2_rn(a, b);
}
__device__ __forceinline__ __nv_bfloat162 pack_two(float a, float b, __nv_bfloat16)
{
    return __floats2bfloat162_rn(a, b);
}

template <class T, int V> __device__ __forceinline__ void store_v(T *p, const float (&f)[V])
{
    cuda_pack<T, V> v;
    if constexpr (sizeof(T) == 2 && V % 2 == 0) {
        #pragma unroll
        for (int i = 0; i < V; i += 2) {
            auto two = pack_two(f[i], f[i + 1], T());
            v.x[i] = two.x;
            v.x[i + 1] = two.y;
        }
    } else {
        #pragma unroll
        for (int i = 0; i < V; i++) v.x[i] = hb_store<T>(f[i]);
    }
    *reinterpret_cast<cuda_pack<T, V> *>(p) = v;
}

// V float32 at a time: accesses of at most 16 bytes; p is a multiple of 16 bytes if V > 1.
template <int V> __device__ __forceinline__ void load_f(float (&f)[V], const float *p)
{
    constexpr int W = V < 4 ? V : 4;
    #pragma unroll
    for (int i = 0; i < V; i += W) {
        cuda_pack<float, W> v = load_pack<W>(p + i);
        #pragma unroll
        for (int j = 0; j < W; j++) f[i + j] = v.x[j];
    }
}
template <int V> __device__ __forceinline__ void store_f(float *p, const float (&f)[V])
{
    constexpr int W = V < 4 ? V : 4;
    #pragma unroll
    for (int i = 0; i < V; i += W) {
        cuda_pack<float, W> v;
        #pragma unroll
        for (int j = 0; j < W; j++) v.x[j] = f[i + j];
        *reinterpret_cast<cuda_pack<float, W> *>(p + i) = v;
    }
}
template <int V> __device__ __forceinline__ void add_f(float *p, const float (&f)[V])
{
    float now[V];
    load_f(now, p);
    #pragma unroll
    for (int i = 0; i < V; i++) now[i] += f[i];
    store_f(p, now);
}

// Every lane gets the sum (the largest); all 32 must take part.
template <class N> __device__ __forceinline__ N warp_sum(N x)
{
    #pragma unroll
    for (int d = WARP / 2; d; d /= 2) x += __shfl_xor_sync(~0u, x, d);
    return x;
}
__device__ __forceinline__ float warp_max(float x)
{
    #pragma unroll
    for (int d = WARP / 2; d; d /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, d));
    return x;
}

// exp(x). For the 16-bit types ex2.approx: relative error 2^-22 + |x| 2^-23, far below their
// rounding; for float32 the exact one (1 ulp).
template <class T> __device__ __forceinline__ float exp_for(float x)
{
    if constexpr (sizeof(T) == 2) return __expf(x);
    else return expf(x);
}

// a / b of indices: 64-bit division is ten times as dear as 32-bit.
__device__ __forceinline__ int64_t quotient(int64_t a, int64_t b)
{
    return ((a | b) >> 32) ? a / b : (int64_t)((uint32_t)a / (uint32_t)b);
}

static inline bool on_16(const void *p) { return (uintptr_t)p % 16 == 0; }
static inline __host__ __device__ int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline __host__ __device__ int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t pieces(int64_t n, int64_t per) { return (n + per - 1) / per; }

#endif
