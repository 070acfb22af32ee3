// rows.cuh: the kernels between signals and spectra: twist (signals and filters in; the first stage
// of F u, F h, F dy and partial sums of dd out), untwist (the last stage in; y, du, dh out), and
// the sum of dd.
// Accuracy  float32 between load and store, whatever the signals are; dd is summed in float64.
#ifndef HB_CUFFT_ROWS_CUH
#define HB_CUFFT_ROWS_CUH

#include "radix.cuh"

// A block is blockDim.x columns n2 (a tile) times blockDim.y items; an item is GROUP rows of one
// channel's batch, or one filter's row, which come after all the others. Grid: tiles x items.
struct shape {
    int L, N2, tiles;
    int64_t C, nb, groups;          // groups of GROUP rows that a channel has
    int64_t filters;                // rows of filters: 0 or C
};

template <int R> constexpr int GROUP = R == 1 ? 4 : 1;
template <int R> constexpr int THREADS = R == 1 ? 256 : 128;

// What an item is: rows row .. row+n of channel c, from batch b on.
struct item { int64_t c, b, row; int n; bool filter; };

template <int R> __device__ __forceinline__ struct item item_of(const struct shape &s, int64_t i)
{
    const int64_t filter = i - s.C * s.groups;
    if (filter >= 0)
        return { filter, 0, filter, filter < s.filters ? 1 : 0, true };
    const int64_t c = i / s.groups, b = i % s.groups * GROUP<R>;
    const int64_t left = s.nb - b;
    return { c, b, c * s.nb + b, left < GROUP<R> ? (int)left : GROUP<R>, false };
}

__device__ __forceinline__ int64_t item_index(const struct shape &s)
{
    return (int64_t)(blockIdx.x / s.tiles) * blockDim.y + threadIdx.y;
}

__device__ __forceinline__ int column_index(const struct shape &s)
{
    return blockIdx.x % s.tiles * blockDim.x + threadIdx.x;
}

// A column of up to GROUP rows, zeros beyond L and beyond n rows.
template <class T, int R>
__device__ __forceinline__ void load(float (&x)[GROUP<R>][R], const T *__restrict__ row,
                                     int64_t stride, int n, const struct shape &s, int n2)
{
#pragma unroll
    for (int g = 0; g < GROUP<R>; g++)
#pragma unroll
        for (int n1 = 0; n1 < R; n1++) {
            const int t = n1 * s.N2 + n2;
            x[g][n1] = g < n && t < s.L ? hb_load(row[g * stride + t]) : 0.0f;
        }
}

// Column n2 of z (n,N) = the first stage of F x.
template <int R>
__device__ __forceinline__ void put(float2 *__restrict__ z, const float (&x)[GROUP<R>][R], int n,
                                    const struct column<R> &w, const struct shape &s, int n2)
{
    if constexpr (R == 1) {
#pragma unroll
        for (int g = 0; g < GROUP<R>; g++)
            if (g < n)
                z[(int64_t)g * s.N2 + n2] = make_float2(x[g][0] * w.w.x, x[g][0] * w.w.y);
    } else {
        float2 v[R];
#pragma unroll
        for (int n1 = 0; n1 < R; n1++) {
            const float2 r = ROOTS.w[32 / R * n1];
            v[n1] = make_float2(x[0][n1] * r.x, x[0][n1] * r.y);
        }
        dft<R>(v);
#pragma unroll
        for (int p = 0; p < R; p++)
            z[p * s.N2 + n2] = v[p] * w.at(reversed<R>(p));
    }
}

// Adds up x over the columns of a block, for each of its items: out, of column 0.
__device__ __forceinline__ void sum_columns(double sum, double *out)
{
    __shared__ double warps[8];                 // 256 threads at most
    const int mine = threadIdx.y * blockDim.x + threadIdx.x, per = blockDim.x / 32;
    for (int k = 16; k; k /= 2)
        sum += __shfl_xor_sync(~0u, sum, k);
    if (mine % 32 == 0) warps[mine / 32] = sum;
    __syncthreads();
    if (threadIdx.x > 0 || !out) return;
    sum = 0;
    for (int k = 0; k < per; k++)
        sum += warps[threadIdx.y * per + k];
    *out = sum;
}

// Signals (C,nb) at u, dy by strides, filters (C,L). dots: of channel 0, slot 0, or NULL.
struct signals {
    const void *u, *dy;
    struct hb_strides su, sdy;
    const float *h;
    float2 *zu, *zy, *zh;
    double *dots;
    int64_t slots;
};

// zu, zh, and with BACK zy too: the first stage of F u, F h, F dy, and partial sums of dy u.
template <class T, int R, bool BACK>
__global__ void __launch_bounds__(THREADS<R>)
twist(const struct shape s, const struct signals a, const float2 *__restrict__ turns)
{
    const int n2 = column_index(s);
    const struct item i = item_of<R>(s, item_index(s));
    double sum = 0;                 // products of float32 are exact in float64
    if (n2 < s.N2 && i.n > 0) {
        const struct column<R> w(turns, s.N2, n2);
        float x[GROUP<R>][R];
        if (i.filter)
            load<float, R>(x, a.h + i.c * s.L, 0, 1, s, n2);
        else
            load<T, R>(x, (const T *)a.u + i.b * a.su.b + i.c * a.su.c, a.su.b, i.n, s, n2);
        if (BACK && !i.filter) {
            float e[GROUP<R>][R];
            load<T, R>(e, (const T *)a.dy + i.b * a.sdy.b + i.c * a.sdy.c, a.sdy.b, i.n, s, n2);
            if (a.dots) {
#pragma unroll
                for (int g = 0; g < GROUP<R>; g++)
#pragma unroll
                    for (int n1 = 0; n1 < R; n1++)
                        sum += (double)x[g][n1] * (double)e[g][n1];
            }
            put<R>(a.zy + i.row * R * s.N2, e, i.n, w, s, n2);
        }
        put<R>((i.filter ? a.zh : a.zu) + i.row * R * s.N2, x, i.n, w, s, n2);
    }
    if constexpr (BACK) {
        if (!a.dots) return;
        const int64_t slot = i.b / GROUP<R> * s.tiles + blockIdx.x % s.tiles;
        const bool mine = i.n > 0 && !i.filter;
        sum_columns(sum, mine ? a.dots + i.c * a.slots + slot : NULL);
    }
}

// Results: rows of y (C,nb) by strides = , rows of dh (C,L) +=.
struct results {
    const float2 *zy, *zh;
    void *y;
    struct hb_strides sy;
    float *dh;
    float scale;                    // 1 / N
};

// One sample of column n2 of z: after the last stage, untwisted.
template <int R>
__device__ __forceinline__ void get(float (&x)[R], const float2 *__restrict__ z,
                                    const struct column<R> &w, int N2, int n2)
{
    if constexpr (R == 1) {
        const float2 v = z[n2];
        x[0] = v.x * w.w.x + v.y * w.w.y;
    } else {
        float2 v[R];
#pragma unroll
        for (int p = 0; p < R; p++)
            v[p] = conj_times(w.at(reversed<R>(p)), z[p * N2 + n2]);
        inverse_dft<R>(v);
#pragma unroll
        for (int n1 = 0; n1 < R; n1++) {
            const float2 r = ROOTS.w[32 / R * n1];
            x[n1] = v[n1].x * r.x + v[n1].y * r.y;
        }
    }
}

template <class T, int R>
__global__ void __launch_bounds__(THREADS<R>)
untwist(const struct shape s, const struct results a, const float2 *__restrict__ turns)
{
    const int n2 = column_index(s);
    const struct item i = item_of<R>(s, item_index(s));
    if (n2 >= s.N2 || i.n <= 0) return;
    const struct column<R> w(turns, s.N2, n2);
    const float2 *z = (i.filter ? a.zh : a.zy) + i.row * R * s.N2;
    float x[GROUP<R>][R];
#pragma unroll
    for (int g = 0; g < GROUP<R>; g++)
        if (g < i.n)
            get<R>(x[g], z + (int64_t)g * R * s.N2, w, s.N2, n2);
    T *y = (T *)a.y + i.b * a.sy.b + i.c * a.sy.c;
    float *dh = a.dh + i.c * s.L;
#pragma unroll
    for (int g = 0; g < GROUP<R>; g++)
#pragma unroll
        for (int n1 = 0; n1 < R; n1++) {
            const int t = n1 * s.N2 + n2;
            if (g >= i.n || t >= s.L)
                continue;
            if (i.filter)
                dh[t] += x[g][n1] * a.scale;
            else
                __stcs(y + g * a.sy.b + t, hb_store<T>(x[g][n1] * a.scale));  // not read here
        }
}

// dd (D) += row sums of dots (D,slots). A warp a channel.
__global__ void add_dots(float *dd, const double *dots, int64_t D, int64_t slots)
{
    const int64_t c = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (c >= D) return;
    double sum = 0;
    for (int64_t i = lane; i < slots; i += 32)
        sum += dots[c * slots + i];
    for (int k = 16; k; k /= 2)
        sum += __shfl_xor_sync(~0u, sum, k);
    if (lane == 0) dd[c] = (float)((double)dd[c] + sum);
}

#endif
