// cuda_nn.cu: the primitives that work element by element on the CUDA device: add, AdamW.
//
// Method    one pass, 16 bytes per access where every pointer allows it, single elements else.
// Cost      what they read and write: add 3 n elements, AdamW 28 bytes per parameter and its low
//           copy.
// Accuracy  float32 inside, one rounding at the end.
#include <math.h>

#include "cuda.h"
#include "cuda_vec.cuh"

enum { THREADS = 256,
       UNROLL = 2 };             // vectors per thread and input: enough bytes in flight

// --- add -----------------------------------------------------------------------------------------

// V = 1, or 16 bytes' worth. An element is read before it is written, by the same thread.
template <class T, int V>
static __global__ void __launch_bounds__(THREADS) add_kernel(T *y, const T *x, int64_t n)
{
    const int64_t i0 = ((int64_t)blockIdx.x * UNROLL * THREADS + threadIdx.x) * V;
    cuda_pack<T, V> vy[UNROLL], vx[UNROLL];
    #pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        int64_t i = i0 + u * THREADS * V;
        if (i + V > n) break;
        vy[u] = load_pack<V>((const T *)y + i);
        vx[u] = load_pack<V>(x + i);
    }
    #pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        int64_t i = i0 + u * THREADS * V;
        if (i + V > n) break;
        float a[V], b[V];
        unpack(a, vy[u]);
        unpack(b, vx[u]);
        #pragma unroll
        for (int j = 0; j < V; j++) a[j] += b[j];
        store_v(y + i, a);
    }
    if (V == 1 || blockIdx.x || threadIdx.x >= n % V) return;
    const int64_t i = n - n % V + threadIdx.x;   // the last n % V elements
    y[i] = hb_store<T>(hb_load(y[i]) + hb_load(x[i]));
}

void cuda_add(void *y, const void *x, int64_t n, struct hb_on on)
{
    if (n <= 0) return;
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        constexpr int V = HB_VEC<T>;
        const bool wide = on_16(y) && on_16(x);
        const unsigned blocks = (unsigned)pieces(n, (int64_t)THREADS * UNROLL * (wide ? V : 1));
        cudaStream_t s = (cudaStream_t)on.stream;
        if (wide) add_kernel<T, V><<<blocks, THREADS, 0, s>>>((T *)y, (const T *)x, n);
        else add_kernel<T, 1><<<blocks, THREADS, 0, s>>>((T *)y, (const T *)x, n);
    });
    cuda_launched("add");
}

// --- AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2) ---------------------------

struct adam {
    float beta1, rest1, beta2, rest2, eps;     // rest = 1 - beta
    float step, root, keep;      // lr / (1 - beta1^step), 1 / sqrt(1 - beta2^step), 1 - lr decay
    float gscale;
};

// V parameters per thread; the caller sees to it that V divides n.
template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    adamw(float *w, float *m, float *v, T *low, const float *g, struct adam o, int64_t n)
{
    const int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V;
    if (i >= n) return;
    float wi[V], mi[V], vi[V], gi[V];
    load_f(wi, w + i);
    load_f(mi, m + i);
    load_f(vi, v + i);
    load_f(gi, g + i);
    #pragma unroll
    for (int j = 0; j < V; j++) {
        float e = gi[j] * o.gscale;
        mi[j] = o.beta1 * mi[j] + o.rest1 * e;
        vi[j] = o.beta2 * vi[j] + o.rest2 * e * e;
        wi[j] = wi[j] * o.keep - o.step * mi[j] / (sqrtf(vi[j]) * o.root + o.eps);
    }
    store_f(w + i, wi);
    store_f(m + i, mi);
    store_f(v + i, vi);
    if (low) store_v(low + i, wi);
}

void cuda_adamw(float *w, float *m, float *v, void *low, const float *g, float gscale,
                struct hb_adamw o, int64_t n, struct hb_on on)
{
    const struct adam a = {
        .beta1 = o.beta1, .rest1 = 1.0f - o.beta1, .beta2 = o.beta2, .rest2 = 1.0f - o.beta2,
        .eps = o.eps,
        .step = (float)((double)o.lr / (1.0 - pow((double)o.beta1, (double)o.step))),
        .root = (float)(1.0 / sqrt(1.0 - pow((double)o.beta2, (double)o.step))),
        .keep = (float)(1.0 - (double)o.lr * (double)o.weight_decay),
        .gscale = gscale,
    };
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        const bool wide = on_16(w) && on_16(m) && on_16(v) && on_16(g) &&
                          (uintptr_t)low % (4 * sizeof(T)) == 0;
        const int64_t n4 = wide ? n / 4 * 4 : 0, left = n - n4;  // in fours, then one by one
        if (n4)
            adamw<T, 4><<<(unsigned)pieces(n4, 4 * THREADS), THREADS, 0, (cudaStream_t)on.stream>>>(
                w, m, v, (T *)low, g, a, n4);
        if (left)
            adamw<T, 1><<<(unsigned)pieces(left, THREADS), THREADS, 0, (cudaStream_t)on.stream>>>(
                w + n4, m + n4, v + n4, low ? (T *)low + n4 : NULL, g + n4, a, left);
    });
    cuda_launched("adamw");
}
