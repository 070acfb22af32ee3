// cuda_nn.cu: the primitives that work element by element on the CUDA device: GELU, gates, sums,
// scaling, AdamW.
//
// Method    one pass, 16 bytes per access where every pointer allows it, single elements else.
// Cost      what they read and write: GELU 2 n elements (backward 3 n), gates 3 n and 5 n, add 3 n,
//           scale 2 n, AdamW 28 bytes per parameter and its low copy.
// Accuracy  float32 inside, one rounding at the end.
#include <math.h>

#include "cuda.h"
#include "cuda_vec.cuh"

enum { THREADS = 256,
       UNROLL = 2 };             // vectors per thread and input: enough bytes in flight

template <class T, int N> struct outs { T *p[N]; };
template <class T, int N> struct ins { const T *p[N]; };

// --- one kernel for all --------------------------------------------------------------------------

// Op::of(out, in, a): NO floats from NI floats. Outputs may be inputs: an element is read before it
// is written, by the same thread. V = 1, or 16 bytes' worth.
template <class T, int V, class Op, int NO, int NI>
static __global__ void __launch_bounds__(THREADS)
    each(outs<T, NO> out, ins<T, NI> in, float a, int64_t n)
{
    const int64_t i0 = ((int64_t)blockIdx.x * UNROLL * THREADS + threadIdx.x) * V;
    cuda_pack<T, V> v[UNROLL][NI];
    #pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        int64_t i = i0 + u * THREADS * V;
        if (i + V > n) break;
        #pragma unroll
        for (int k = 0; k < NI; k++) v[u][k] = load_pack<V>(in.p[k] + i);
    }
    #pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        int64_t i = i0 + u * THREADS * V;
        if (i + V > n) break;
        float x[NI][V], y[NO][V];
        #pragma unroll
        for (int k = 0; k < NI; k++) unpack(x[k], v[u][k]);
        #pragma unroll
        for (int j = 0; j < V; j++) {
            float e[NI], f[NO];
            #pragma unroll
            for (int k = 0; k < NI; k++) e[k] = x[k][j];
            Op::of(f, e, a);
            #pragma unroll
            for (int k = 0; k < NO; k++) y[k][j] = f[k];
        }
        #pragma unroll
        for (int k = 0; k < NO; k++) store_v(out.p[k] + i, y[k]);
    }
    if (V == 1 || blockIdx.x || threadIdx.x >= n % V) return;
    const int64_t i = n - n % V + threadIdx.x;   // the last n % V elements
    float e[NI], f[NO];
    #pragma unroll
    for (int k = 0; k < NI; k++) e[k] = hb_load(in.p[k][i]);
    Op::of(f, e, a);
    #pragma unroll
    for (int k = 0; k < NO; k++) out.p[k][i] = hb_store<T>(f[k]);
}

template <class T, class Op, int NO, int NI>
static void run(outs<T, NO> out, ins<T, NI> in, float a, int64_t n, void *s, const char *who)
{
    if (n <= 0) return;
    constexpr int V = HB_VEC<T>;
    bool wide = true;
    for (int k = 0; k < NO; k++) wide = wide && on_16(out.p[k]);
    for (int k = 0; k < NI; k++) wide = wide && on_16(in.p[k]);
    const int64_t blocks = pieces(n, (int64_t)THREADS * UNROLL * (wide ? V : 1));
    if (wide)
        each<T, V, Op, NO, NI><<<(unsigned)blocks, THREADS, 0, (cudaStream_t)s>>>(out, in, a, n);
    else
        each<T, 1, Op, NO, NI><<<(unsigned)blocks, THREADS, 0, (cudaStream_t)s>>>(out, in, a, n);
    cuda_launched(who);
}

// --- GELU, tanh form -----------------------------------------------------------------------------
// 0.5 x (1 + tanh v) = x / (1 + exp(-2v)),  v = sqrt(2/pi) (x + 0.044715 x^3): one exponential, and
// no cancellation for negative x. Comparisons that are false for NaN let it through.

#define TWO_ROOT_2_PI 1.595769122f
#define CUBE 0.044715f

template <class T> struct gelu {
    static __device__ __forceinline__ void of(float *y, const float *x, float)
    {
        // __fdividef: 2 ulp; a denominator of Inf gives 0, which is right.
        float t = x[0], e = exp_for<T>(-TWO_ROOT_2_PI * (t + CUBE * t * t * t));
        y[0] = __fdividef(t, 1.0f + e);
    }
};

template <class T> struct gelu_back {                    // in: dy, x
    static __device__ __forceinline__ void of(float *dx, const float *x, float)
    {
        float t = x[1];                                  // beyond 12 the derivative is 0 or 1
        t = t > 12.0f ? 12.0f : t;
        t = t < -12.0f ? -12.0f : t;
        float arg = -TWO_ROOT_2_PI * (t + CUBE * t * t * t);
        float e = exp_for<T>(arg > 87.0f ? 87.0f : arg);     // Inf below would give Inf * 0
        float sg = __fdividef(1.0f, 1.0f + e);           // 1 - sg = e sg, without cancellation
        dx[0] = x[0] * (sg + t * sg * (e * sg) * TWO_ROOT_2_PI * (1.0f + 3.0f * CUBE * t * t));
    }
};

void cuda_gelu_fwd(void *y, const void *x, int64_t n, struct hb_on on)
{
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        run<T, gelu<T>>(outs<T, 1>{ { (T *)y } }, ins<T, 1>{ { (const T *)x } }, 0, n, on.stream,
                        "gelu_fwd");
    });
}

void cuda_gelu_bwd(void *dx, const void *dy, const void *x, int64_t n, struct hb_on on)
{
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        run<T, gelu_back<T>>(outs<T, 1>{ { (T *)dx } },
                             ins<T, 2>{ { (const T *)dy, (const T *)x } }, 0, n, on.stream,
                             "gelu_bwd");
    });
}

// --- gates, sums, scaling ------------------------------------------------------------------------

struct times {
    static __device__ __forceinline__ void of(float *y, const float *x, float)
    {
        y[0] = x[0] * x[1];
    }
};
struct times_back {                                      // in: dy, a, b;  out: da, db
    static __device__ __forceinline__ void of(float *d, const float *x, float)
    {
        d[0] = x[0] * x[2];
        d[1] = x[0] * x[1];
    }
};
struct plus {
    static __device__ __forceinline__ void of(float *y, const float *x, float)
    {
        y[0] = x[0] + x[1];
    }
};
struct scaled {
    static __device__ __forceinline__ void of(float *y, const float *x, float a)
    {
        y[0] = a * x[0];
    }
};

void cuda_gate_fwd(void *y, const void *a, const void *b, int64_t n, struct hb_on on)
{
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        run<T, times>(outs<T, 1>{ { (T *)y } }, ins<T, 2>{ { (const T *)a, (const T *)b } }, 0, n,
                      on.stream, "gate_fwd");
    });
}

void cuda_gate_bwd(void *da, void *db, const void *dy, const void *a, const void *b, int64_t n,
                   struct hb_on on)
{
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        run<T, times_back>(outs<T, 2>{ { (T *)da, (T *)db } },
                           ins<T, 3>{ { (const T *)dy, (const T *)a, (const T *)b } }, 0, n,
                           on.stream, "gate_bwd");
    });
}

void cuda_add(void *y, const void *x, int64_t n, struct hb_on on)
{
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        run<T, plus>(outs<T, 1>{ { (T *)y } }, ins<T, 2>{ { (const T *)y, (const T *)x } }, 0, n,
                     on.stream, "add");
    });
}

void cuda_scale(void *x, float a, int64_t n, struct hb_on on)
{
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        run<T, scaled>(outs<T, 1>{ { (T *)x } }, ins<T, 1>{ { (const T *)x } }, a, n, on.stream,
                       "scale");
    });
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
