// spectra.cuh: the kernels over spectra, two frequencies a thread: the products in the middle of a
// convolution and of its backward pass. Float32; the sum over the batch has a fixed order.
#ifndef HB_CUFFT_SPECTRA_CUH
#define HB_CUFFT_SPECTRA_CUH

#include "radix.cuh"

enum { PRODUCT_THREADS = 256, PRODUCT_ROWS = 4 };

__device__ __forceinline__ float4 times(float4 a, float4 b)
{
    const float2 p = make_float2(a.x, a.y) * make_float2(b.x, b.y);
    const float2 q = make_float2(a.z, a.w) * make_float2(b.z, b.w);
    return make_float4(p.x, p.y, q.x, q.y);
}

__device__ __forceinline__ float4 conj_times(float4 a, float4 b)
{
    const float2 p = conj_times(make_float2(a.x, a.y), make_float2(b.x, b.y));
    const float2 q = conj_times(make_float2(a.z, a.w), make_float2(b.z, b.w));
    return make_float4(p.x, p.y, q.x, q.y);
}

__device__ __forceinline__ float4 operator+(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// F h + d at frequencies f of channel c.
__device__ __forceinline__ float4 response(const float4 *__restrict__ h,
                                           const float *__restrict__ d, int64_t c, int half, int f)
{
    const float skip = d ? d[c] : 0;
    return h[c * half + f] + make_float4(skip, 0, skip, 0);
}

// u (C,nb,N) *= h + d.   h (C,N)   d (C) or NULL   half = N/2
// A block is a tile of frequencies times blockDim.y items; an item is PRODUCT_ROWS rows.
__global__ void __launch_bounds__(PRODUCT_THREADS)
multiply(float4 *__restrict__ u, const float4 *__restrict__ h, const float *__restrict__ d,
         int half, int tiles, int64_t C, int64_t nb, int64_t groups)
{
    const int f = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    const int64_t i = (int64_t)(blockIdx.x / tiles) * blockDim.y + threadIdx.y;
    const int64_t c = i / groups, b = i % groups * PRODUCT_ROWS;
    if (f >= half || c >= C) return;
    const float4 r = response(h, d, c, half, f);
    u += (c * nb + b) * half + f;
    float4 v[PRODUCT_ROWS];
#pragma unroll
    for (int g = 0; g < PRODUCT_ROWS; g++)
        if (b + g < nb)
            v[g] = u[(int64_t)g * half];
#pragma unroll
    for (int g = 0; g < PRODUCT_ROWS; g++)
        if (b + g < nb)
            u[(int64_t)g * half] = times(r, v[g]);
}

// y (C,nb,N) *= conj(h + d);  a (C,N) (+)= sum over nb of conj(u) y.   u like y
// A block is a tile of frequencies of one channel; its threads.y take turns with the rows.
__global__ void __launch_bounds__(PRODUCT_THREADS)
multiply_back(float4 *__restrict__ a, float4 *__restrict__ y, const float4 *__restrict__ u,
              const float4 *__restrict__ h, const float *__restrict__ d, int half, int tiles,
              int64_t nb, bool add)
{
    __shared__ float4 part[PRODUCT_THREADS];
    const int f = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    const int64_t c = blockIdx.x / tiles;
    const bool inside = f < half;
    float4 sum = make_float4(0, 0, 0, 0);
    if (inside) {
        const float4 r = response(h, d, c, half, f);
        y += c * nb * half + f;
        u += c * nb * half + f;
        for (int64_t b0 = threadIdx.y; b0 < nb; b0 += (int64_t)PRODUCT_ROWS * blockDim.y) {
            float4 g[PRODUCT_ROWS], v[PRODUCT_ROWS];      // all on their way before the first store
#pragma unroll
            for (int k = 0; k < PRODUCT_ROWS; k++) {
                const int64_t b = b0 + k * (int)blockDim.y;
                if (b >= nb) continue;
                g[k] = y[b * half];
                v[k] = u[b * half];
            }
#pragma unroll
            for (int k = 0; k < PRODUCT_ROWS; k++) {
                const int64_t b = b0 + k * (int)blockDim.y;
                if (b >= nb) continue;
                sum = sum + conj_times(v[k], g[k]);
                y[b * half] = conj_times(r, g[k]);
            }
        }
    }
    part[threadIdx.y * blockDim.x + threadIdx.x] = sum;
    __syncthreads();
    if (!inside || threadIdx.y > 0) return;
    for (int k = 1; k < blockDim.y; k++)
        sum = sum + part[k * blockDim.x + threadIdx.x];
    a += c * half + f;
    *a = add ? *a + sum : sum;
}

#endif
