// longconv_cufft_cuda.cu: causal long convolution by right-angle transforms, cuFFT in the middle.
//     y[b,c,t] = sum_{s=0..t} h[c,s] u[b,c,t-s] + d[c] u[b,c,t]     u,y (B,D,L)  h (D,L)
// Method    With the twist w[n] = exp(i pi n / 2N), N >= L, a cyclic convolution of w x and w h is,
//           untwisted, (causal part) + i (wrapped part), and a cyclic correlation (causal part)
//           - i (wrapped part): complex transforms of N points instead of real ones of 2N, without
//           padding. So, with F = DFT_N(w .):
//               y  = Re conj(w) IDFT_N( (F h + d) F u )               d: F of d at time 0
//               du = Re conj(w) IDFT_N( conj(F h + d) F dy )
//               dh = Re conj(w) IDFT_N( sum_b conj(F u_b) F dy_b )    dd = sum dy u, directly
//           Rows are taken in chunks whose spectra stay in half of the L2 cache. A chunk passes
//           through: twist (read u, h; convert), cuFFT, multiply, cuFFT, untwist (convert, write).
//           For long rows twist and untwist also do the first and the last stage, of radix R, of
//           a decimation in frequency, with n = n1 N2 + n2 and k = k1 + R k2:
//               F x [k1 + R k2] = DFT_N2 over n2 of
//                   exp(2 pi i n2 (1/4 - k1) / N) DFT_R over n1 of exp(i pi n1 / 2R) x[n1 N2 + n2]
//           so that cuFFT's part is one pass over memory each way up to N2 = 32768. Spectra stay
//           in this order.
// Cost      O(B D L log L). Traffic within L2 is 64 bytes a sample forward, 96 backward; device
//           memory sees the signals and h. The plan keeps a chunk of spectra (8 N bytes a row),
//           cuFFT's work area, and D spectra for fixed filters. Backward saves nothing.
// Source    Poli et al. 2023, arXiv:2302.10866, section 3 (operator); Crandall and Fagin, Math.
//           Comp. 62 (1994), right-angle convolution; cuFFT, CUDA 13 (docs.nvidia.com/cuda/cufft).
// Accuracy  Float32 inside whatever the signals are; twiddles rounded from float64. Rel. L2 grows
//           like eps sqrt(log2 N). dd is summed in float64. All sums are in a fixed order.
// Refuses   float64; L > 2^22.
// hb-link: -lcufft
#include <cufft.h>
#include <inttypes.h>
#include <stdio.h>

#include "cuda.cuh"

enum {
    MIN_N = 16,
    MAX_N1 = 4096,            // longest row that is left to cuFFT whole
    MAX_N16 = 1 << 17,        // longest row of R = 16: N2 up to 8192; above it R = 32
    MAX_FFTS = 32,            // batch sizes in use: at most 7 backward, 5 forward, 2 set_filter
};
static const int64_t MAX_L = (int64_t)1 << 22;

// How rows go in chunks: C channels with all their batch, or one channel and nb rows of its batch
// at a time. A chunk's spectra, each (rows,N):  A (C)  Y (C nb)  U (C nb)  H (C)
// A is the sum for dh; A and Y only backward; H only for fresh filters.
struct pass { int64_t C, nb, subs, chunks; bool back; };

// One chunk: channels c0 .. c0+C, of each the rows b0 .. b0+nb.
struct part { int64_t c0, C, b0, nb, sub; bool first, last; };   // first, last of its channels

struct fft { int64_t rows; cufftHandle handle; };

struct state {
    const struct hb_host *host;
    int64_t B, L, D, N;
    int R, N2;                      // N = R N2
    enum hb_dtype t;
    bool fixed_filter;
    struct pass fwd, bwd;           // bwd.chunks 0: not planned for backward
    struct fft ffts[MAX_FFTS];      // owned: plans of rows R transforms of N2 points
    int n_ffts;
    size_t work_bytes, chunk_bytes;
    int64_t slots;                  // partial sums of dd that a channel has
    void *work;                     // owned: cuFFT's work area, of all plans
    float2 *turns;                  // owned: twiddles, (planes,N2), see fill_turns
    float2 *chunk;                  // owned: the spectra of a chunk
    float2 *fixed;                  // owned: (D,N) spectra of the filters, FIXED only
    double *dots;                   // owned: (D,slots), backward only
};

// --- complex arithmetic and the stages of radix R ------------------------------------------------
__device__ __forceinline__ float2 operator+(float2 a, float2 b)
{
    return make_float2(a.x + b.x, a.y + b.y);
}

__device__ __forceinline__ float2 operator-(float2 a, float2 b)
{
    return make_float2(a.x - b.x, a.y - b.y);
}

__device__ __forceinline__ float2 operator*(float2 a, float2 b)
{
    return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

// conj(a) b
__device__ __forceinline__ float2 conj_times(float2 a, float2 b)
{
    return make_float2(a.x * b.x + a.y * b.y, a.x * b.y - a.y * b.x);
}

// ROOTS.w[e] = exp(2 pi i e / 128): all that the stages up to R = 32 and their twist need.
struct roots { float2 w[64]; };

static constexpr struct roots make_roots()
{
    struct roots r = {};
    for (int e = 0; e < 64; e++) {
        const double x = 3.14159265358979323846 * e / 64;
        double c = 0, s = 0, term = 1;          // of the Taylor series; x < pi: 40 terms are plenty
        for (int k = 0; k < 40; k++) {
            (k % 2 ? s : c) += k / 2 % 2 ? -term : term;
            term *= x / (k + 1);
        }
        r.w[e].x = (float)c;
        r.w[e].y = (float)s;
    }
    return r;
}

static __constant__ struct roots ROOTS = make_roots();

// x exp(-+ 2 pi i e / 128), e a constant after unrolling.
template <bool INVERSE> __device__ __forceinline__ float2 rotate(float2 x, int e)
{
    if (e == 0) return x;
    if (e == 32) return INVERSE ? make_float2(-x.y, x.x) : make_float2(x.y, -x.x);
    return INVERSE ? ROOTS.w[e] * x : conj_times(ROOTS.w[e], x);
}

// DFT of R points in registers, decimation in frequency: place p has frequency reversed<R>(p).
template <int R, int H = R / 2> __device__ __forceinline__ void dft(float2 (&v)[R])
{
#pragma unroll
    for (int i = 0; i < R / 2; i++) {
        const int j = i % H, a = 2 * i - j;
        const float2 x = v[a], y = v[a + H];
        v[a] = x + y;
        v[a + H] = rotate<false>(x - y, 64 / H * j);
    }
    if constexpr (H > 1) dft<R, H / 2>(v);
}

// The inverse, times R, from that order.
template <int R, int H = 1> __device__ __forceinline__ void inverse_dft(float2 (&v)[R])
{
#pragma unroll
    for (int i = 0; i < R / 2; i++) {
        const int j = i % H, a = 2 * i - j;
        const float2 x = v[a], y = rotate<true>(v[a + H], 64 / H * j);
        v[a] = x + y;
        v[a + H] = x - y;
    }
    if constexpr (2 * H < R) inverse_dft<R, 2 * H>(v);
}

template <int R> __device__ __forceinline__ int reversed(int p)
{
    static_assert(R == 16 || R == 32, "bits");
    const int r = (p & 1) << 4 | (p & 2) << 2 | (p & 4) | (p & 8) >> 2 | (p & 16) >> 4;
    return R == 32 ? r : r >> 1;
}

// turns (planes,N2): exp(2 pi i n2 / 4N), then for R > 1 exp(-2 pi i m n2 / N), m = 1, 4, 16.
// Grid (blocks of N2, planes).
__global__ void fill_turns(float2 *turns, int64_t N, int N2)
{
    const int n2 = blockIdx.x * blockDim.x + threadIdx.x;
    if (n2 >= N2) return;
    const int64_t m = blockIdx.y == 0 ? 0 : 1 << 2 * (blockIdx.y - 1);
    const double x = m ? -2.0 * (double)(m * n2 % N) / (double)N : (double)n2 / (double)(2 * N);
    double sin, cos;
    sincospi(x, &sin, &cos);
    turns[(int64_t)blockIdx.y * N2 + n2] = make_float2((float)cos, (float)sin);
}

// A column's twiddles exp(2 pi i n2 (1/4 - k1) / N), k1 = 0 .. R-1, as few products of the table's.
template <int R> struct column {
    float2 low[4], high[R / 4];
    __device__ __forceinline__ column(const float2 *__restrict__ turns, int N2, int n2)
    {
        const float2 one = turns[N2 + n2], four = turns[2 * N2 + n2];
        low[0] = turns[n2];
        low[1] = low[0] * one;
        low[2] = low[0] * (one * one);
        low[3] = low[1] * (one * one);
        high[1] = four;
        high[2] = four * four;
        high[3] = high[2] * four;
        if constexpr (R == 32) {
            high[4] = turns[3 * N2 + n2];
#pragma unroll
            for (int i = 1; i < 4; i++)
                high[4 + i] = high[4] * high[i];
        }
    }
    __device__ __forceinline__ float2 at(int k) const
    {
        return k < 4 ? low[k] : low[k & 3] * high[k >> 2];
    }
};

template <> struct column<1> {
    float2 w;
    __device__ __forceinline__ column(const float2 *__restrict__ turns, int, int n2)
        : w(turns[n2]) {}
};

// --- kernels over rows ---------------------------------------------------------------------------
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

// --- kernels over spectra, two frequencies a thread ----------------------------------------------
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

// --- launches ------------------------------------------------------------------------------------
static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// Threads along a row, a power of two from a warp on; the rest of the block takes other rows.
static int across(int64_t columns, int threads)
{
    int x = 32;
    while (x < threads && x < columns)
        x *= 2;
    return x;
}

template <int V> struct number { static constexpr int value = V; };

// Calls f with R as a constant: f(number<R>()).
template <class F> static void by_radix(int R, F f)
{
    if (R == 1) f(number<1>());
    else if (R == 16) f(number<16>());
    else f(number<32>());
}

static int group_of(const struct state *s)
{
    return s->R == 1 ? GROUP<1> : GROUP<16>;
}

static int threads_of(const struct state *s)
{
    return s->R == 1 ? THREADS<1> : THREADS<16>;
}

static int tiles_of(const struct state *s)
{
    return (int)ceil_div(s->N2, across(s->N2, threads_of(s)));
}

static struct shape shape_of(const struct state *s, int64_t C, int64_t nb, int64_t filters)
{
    return (struct shape){ .L = (int)s->L, .N2 = s->N2, .tiles = tiles_of(s), .C = C, .nb = nb,
                           .groups = ceil_div(nb, group_of(s)), .filters = filters };
}

// Threads and blocks of a kernel over rows.
struct launch { dim3 grid, block; };

static struct launch launch_of(const struct state *s, const struct shape *q)
{
    const int x = across(s->N2, threads_of(s)), y = threads_of(s) / x;
    const int64_t items = q->C * q->groups + q->filters;
    return { dim3((unsigned)(q->tiles * ceil_div(items, y))), dim3(x, y) };
}

static void launch_twist(const struct state *s, enum hb_dtype t, bool back, struct shape q,
                         struct signals a, cudaStream_t stream)
{
    const struct launch n = launch_of(s, &q);
    hb_by_type(t, [&](auto x) {
        by_radix(s->R, [&](auto r) {
            constexpr int R = decltype(r)::value;
            if (back)
                twist<decltype(x), R, true><<<n.grid, n.block, 0, stream>>>(q, a, s->turns);
            else
                twist<decltype(x), R, false><<<n.grid, n.block, 0, stream>>>(q, a, s->turns);
        });
    });
}

static void launch_untwist(const struct state *s, enum hb_dtype t, struct shape q,
                           struct results a, cudaStream_t stream)
{
    const struct launch n = launch_of(s, &q);
    hb_by_type(t, [&](auto x) {
        by_radix(s->R, [&](auto r) {
            constexpr int R = decltype(r)::value;
            untwist<decltype(x), R><<<n.grid, n.block, 0, stream>>>(q, a, s->turns);
        });
    });
}

static void launch_multiply(const struct state *s, const struct part *p, float2 *u,
                            const float2 *h, const float *d, cudaStream_t stream)
{
    const int half = (int)(s->N / 2), x = across(half, PRODUCT_THREADS), y = PRODUCT_THREADS / x;
    const int64_t tiles = ceil_div(half, x), groups = ceil_div(p->nb, PRODUCT_ROWS);
    const unsigned blocks = (unsigned)(tiles * ceil_div(p->C * groups, y));
    multiply<<<blocks, dim3(x, y), 0, stream>>>((float4 *)u, (const float4 *)h, d, half,
                                                (int)tiles, p->C, p->nb, groups);
}

static void launch_multiply_back(const struct state *s, const struct part *p, float2 *a, float2 *y,
                                 const float2 *u, const float2 *h, const float *d,
                                 cudaStream_t stream)
{
    int rows = 1;                   // threads.y: at most 8, so that a warp stays in one row
    while (rows < PRODUCT_THREADS / 32 && rows < p->nb)
        rows *= 2;
    const int half = (int)(s->N / 2), x = PRODUCT_THREADS / rows;
    const int64_t tiles = ceil_div(half, x);
    multiply_back<<<(unsigned)(tiles * p->C), dim3(x, rows), 0, stream>>>(
        (float4 *)a, (float4 *)y, (const float4 *)u, (const float4 *)h, d, half, (int)tiles, p->nb,
        !p->first);
}

// --- cuFFT ---------------------------------------------------------------------------------------
static int cufft_failed(const struct state *s, cufftResult r, const char *what)
{
    if (r == CUFFT_SUCCESS) return 0;
    (void)cudaGetLastError();
    return s->host->fail(s->host, r == CUFFT_ALLOC_FAILED ? HB_ERR_OOM : HB_ERR_RUN,
                         "longconv_cufft_cuda: %s: cuFFT error %d", what, (int)r);
}

static const struct fft *find_fft(const struct state *s, int64_t rows)
{
    for (int i = 0; i < s->n_ffts; i++)
        if (s->ffts[i].rows == rows) return &s->ffts[i];
    return NULL;
}

// Plans the transform of so many rows, once.
static int need_fft(struct state *s, int64_t rows)
{
    if (rows == 0 || find_fft(s, rows)) return 0;
    if (s->n_ffts == MAX_FFTS)
        return s->host->fail(s->host, HB_ERR_RUN, "longconv_cufft_cuda: too many plans");
    cufftHandle handle;
    int rc = cufft_failed(s, cufftCreate(&handle), "create");
    if (rc) return rc;
    s->ffts[s->n_ffts++] = (struct fft){ rows, handle };
    long long n = s->N2;
    size_t bytes = 0;
    rc = cufft_failed(s, cufftSetAutoAllocation(handle, 0), "set auto allocation");
    if (!rc)
        rc = cufft_failed(s, cufftMakePlanMany64(handle, 1, &n, NULL, 1, n, NULL, 1, n, CUFFT_C2C,
                                                 rows * s->R, &bytes), "plan");
    if (bytes > s->work_bytes) s->work_bytes = bytes;
    return rc;
}

static int transform(const struct state *s, float2 *z, int64_t rows, int direction)
{
    if (rows == 0) return 0;
    const struct fft *f = find_fft(s, rows);
    if (!f)
        return s->host->fail(s->host, HB_ERR_RUN, "longconv_cufft_cuda: no plan");
    return cufft_failed(s, cufftExecC2C(f->handle, (cufftComplex *)z, (cufftComplex *)z, direction),
                        "transform");
}

static int use_stream(const struct state *s, cudaStream_t stream)
{
    for (int i = 0; i < s->n_ffts; i++) {
        const int rc = cufft_failed(s, cufftSetStream(s->ffts[i].handle, stream), "set stream");
        if (rc) return rc;
    }
    return 0;
}

// --- chunks --------------------------------------------------------------------------------------
// Rows of spectra that a channel of a chunk has whatever its batch: A, H.
static int64_t own_rows(const struct state *s, bool back)
{
    return (back ? 1 : 0) + (s->fixed_filter ? 0 : 1);
}

// As many whole channels as fit into so many bytes, else as much of one channel's batch; all
// chunks but the last alike.
static struct pass split(const struct state *s, bool back, int64_t bytes)
{
    const int64_t rows = bytes / (8 * s->N), own = own_rows(s, back), each = back ? 2 : 1;
    struct pass k = { 1, s->B, 1, 0, back };
    if (own + each * s->B <= rows) {
        const int64_t most = rows / (own + each * s->B);
        k.C = ceil_div(s->D, ceil_div(s->D, most));
    } else {
        const int64_t most = (rows - own) / each > 1 ? (rows - own) / each : 1;
        k.nb = ceil_div(s->B, ceil_div(s->B, most));
        k.subs = ceil_div(s->B, k.nb);
    }
    k.chunks = ceil_div(s->D, k.C) * k.subs;
    return k;
}

static int64_t chunk_rows(const struct state *s, const struct pass *k)
{
    return k->C * (own_rows(s, k->back) + (k->back ? 2 : 1) * k->nb);
}

static struct part part_of(const struct state *s, const struct pass *k, int64_t i)
{
    const int64_t sub = i % k->subs, c0 = i / k->subs * k->C, b0 = sub * k->nb;
    return { .c0 = c0, .C = s->D - c0 < k->C ? s->D - c0 : k->C,
             .b0 = b0, .nb = s->B - b0 < k->nb ? s->B - b0 : k->nb,
             .sub = sub, .first = sub == 0, .last = sub == k->subs - 1 };
}

// Rows that one call transforms: forward Y, U and, for the first part, H; back A, for the last, Y.
static int64_t rows_there(const struct state *s, const struct pass *k, const struct part *p)
{
    return p->C * ((k->back ? 2 : 1) * p->nb + (p->first && !s->fixed_filter ? 1 : 0));
}

static int64_t rows_back(const struct pass *k, const struct part *p)
{
    return p->C * (p->nb + (k->back && p->last ? 1 : 0));
}

static const void *at(const void *x, enum hb_dtype t, struct hb_strides st, const struct part *p)
{
    return (const char *)x + (p->b0 * st.b + p->c0 * st.c) * (int64_t)hb_dtype_size(t);
}

// One chunk from u (and dy) to y (or du and dh).
static int run_part(const struct state *s, const struct pass *k, struct part p,
                    const struct hb_longconv_io *io, cudaStream_t stream)
{
    const enum hb_dtype t = s->t;
    const int64_t rows = p.C * p.nb;
    float2 *a = s->chunk, *y = a + (k->back ? p.C : 0) * s->N;
    float2 *u = y + (k->back ? rows : 0) * s->N;
    float2 *h = s->fixed_filter ? s->fixed + p.c0 * s->N       // else behind U of a first part
                                : y + (k->back ? 2 : 1) * p.C * k->nb * s->N;
    const bool new_h = p.first && !s->fixed_filter, new_dh = k->back && p.last;
    const float *d = io->d ? (const float *)io->d + p.c0 : NULL;
    const struct shape in = shape_of(s, p.C, p.nb, new_h ? p.C : 0);
    struct signals from = { .u = at(io->u, t, io->su, &p), .su = io->su,
                            .zu = u, .zy = y, .zh = h };
    if (new_h) from.h = (const float *)io->h + p.c0 * s->L;
    if (k->back) {
        from.dy = at(io->dy, t, io->sdy, &p);
        from.sdy = io->sdy;
        from.slots = s->slots;
        const int64_t slot = p.sub * ceil_div(k->nb, group_of(s)) * in.tiles;
        if (io->dd) from.dots = s->dots + p.c0 * s->slots + slot;
    }
    launch_twist(s, t, k->back, in, from, stream);
    int rc = transform(s, y, rows_there(s, k, &p), CUFFT_FORWARD);
    if (rc) return rc;
    if (k->back)
        launch_multiply_back(s, &p, a, y, u, h, d, stream);
    else
        launch_multiply(s, &p, u, h, d, stream);
    rc = transform(s, new_dh ? a : y, rows_back(k, &p), CUFFT_INVERSE);
    if (rc) return rc;
    struct results to = { .zy = y, .zh = a, .scale = 1.0f / (float)s->N };
    to.y = (void *)at(k->back ? io->du : io->y, t, k->back ? io->sdu : io->sy, &p);
    to.sy = k->back ? io->sdu : io->sy;
    if (new_dh) to.dh = (float *)io->dh + p.c0 * s->L;
    launch_untwist(s, t, shape_of(s, p.C, p.nb, new_dh ? p.C : 0), to, stream);
    return hb_cuda_launched(s->host, "longconv_cufft_cuda");
}

static int run(const struct state *s, const struct pass *k, const struct hb_longconv_io *io,
               cudaStream_t stream)
{
    int rc = use_stream(s, stream);
    for (int64_t i = 0; i < k->chunks && !rc; i++)
        rc = run_part(s, k, part_of(s, k, i), io, stream);
    return rc;
}

// --- the five functions --------------------------------------------------------------------------
static const char *refuses(const struct hb_problem *p)
{
    if (p->dtype == HB_F64)
        return "no float64";
    return p->L > MAX_L ? "L above 2^22" : NULL;
}

static int forward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    return run(s, &s->fwd, &io->conv, (cudaStream_t)io->stream);
}

static int backward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    cudaStream_t stream = (cudaStream_t)io->stream;
    if (s->bwd.chunks == 0)
        return s->host->fail(s->host, HB_ERR_INPUT,
                             "longconv_cufft_cuda: not planned for backward");
    const int rc = run(s, &s->bwd, &io->conv, stream);
    if (rc || !io->conv.dd) return rc;
    add_dots<<<(unsigned)ceil_div(s->D, 8), 256, 0, stream>>>((float *)io->conv.dd, s->dots, s->D,
                                                              s->slots);
    return hb_cuda_launched(s->host, "longconv_cufft_cuda: dd");
}

// Channels whose filters set_filter transforms at a time: any number would do.
static int64_t fixed_channels(const struct state *s, int64_t c0)
{
    return s->D - c0 < s->fwd.C ? s->D - c0 : s->fwd.C;
}

static int set_filter(void *st, const void *h)
{
    const struct state *s = (const struct state *)st;
    const struct hb_device *dev = s->host->device;
    cudaStream_t stream = (cudaStream_t)dev->stream;
    if (!s->fixed_filter)
        return s->host->fail(s->host, HB_ERR_INPUT,
                             "longconv_cufft_cuda: not planned for fixed filters");
    int rc = use_stream(s, stream);
    for (int64_t c0 = 0; c0 < s->D && !rc; c0 += s->fwd.C) {
        const int64_t C = fixed_channels(s, c0);
        float2 *z = s->fixed + c0 * s->N;
        const struct signals from = { .h = (const float *)h + c0 * s->L, .zh = z };
        launch_twist(s, HB_F32, false, shape_of(s, C, 0, C), from, stream);
        rc = transform(s, z, C, CUFFT_FORWARD);
    }
    if (!rc) rc = hb_cuda_launched(s->host, "longconv_cufft_cuda: set_filter");
    const int synced = dev->sync(dev, dev->stream);
    return rc ? rc : synced;
}

static void destroy(void *st)
{
    struct state *s = (struct state *)st;
    if (!s) return;
    for (int i = 0; i < s->n_ffts; i++)
        cufftDestroy(s->ffts[i].handle);
    void *const owned[] = { s->work, s->turns, s->chunk, s->fixed, s->dots };
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        s->host->device->free(s->host->device, owned[i]);
    s->host->free(s->host, s);
}

// N = odd 2^a >= L of the least cost, and R. An odd factor costs stages that cuFFT does less well;
// how much is a guess, and every such N2 up to 32768 is one kernel of cuFFT 12.
static void choose(struct state *s)
{
    static const struct { int64_t odd; double cost; } sizes[] = {
        { 1, 1 }, { 3, 1.05 }, { 5, 1.08 }, { 7, 1.1 }, { 9, 1.1 }, { 15, 1.12 },
    };
    double best = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t N = sizes[i].odd;
        while (N < s->L || N < MIN_N)
            N *= 2;
        const double cost = (double)N * sizes[i].cost;
        if (i == 0 || cost < best) {
            best = cost;
            s->N = N;
        }
    }
    s->R = s->N <= MAX_N1 ? 1 : s->N <= MAX_N16 ? 16 : 32;
    s->N2 = (int)(s->N / s->R);
}

// The plans of all chunks. Only the first group of channels, the last two and their parts differ.
static int plan_pass(struct state *s, const struct pass *k)
{
    int rc = 0;
    for (int64_t i = 0; i < k->chunks && !rc; i++) {
        const struct part p = part_of(s, k, i);
        if (p.c0 > 0 && p.c0 + p.C < s->D) continue;
        rc = need_fft(s, rows_there(s, k, &p));
        if (!rc) rc = need_fft(s, rows_back(k, &p));
    }
    return rc;
}

static int make_plans(struct state *s)
{
    int rc = plan_pass(s, &s->fwd);
    if (!rc) rc = plan_pass(s, &s->bwd);
    if (!rc && s->fixed_filter) rc = need_fft(s, fixed_channels(s, 0));
    if (!rc && s->fixed_filter) rc = need_fft(s, s->D % s->fwd.C);
    if (rc) return rc;
    if (!(s->work = s->host->device->alloc(s->host->device, s->work_bytes + 256)))
        return HB_ERR_OOM;
    for (int i = 0; i < s->n_ffts && !rc; i++)
        rc = cufft_failed(s, cufftSetWorkArea(s->ffts[i].handle, s->work), "set work area");
    return rc;
}

static float2 *spectra(const struct state *s, int64_t rows)
{
    return (float2 *)s->host->device->alloc(s->host->device, (size_t)(rows * s->N * 8));
}

static int make_buffers(struct state *s)
{
    const struct hb_device *dev = s->host->device;
    const int planes = s->R == 1 ? 1 : 4;
    int64_t rows = chunk_rows(s, &s->fwd);
    if (s->bwd.chunks) {
        const int64_t back = chunk_rows(s, &s->bwd), last = s->B - (s->bwd.subs - 1) * s->bwd.nb;
        if (back > rows) rows = back;
        s->slots = tiles_of(s) * ((s->bwd.subs - 1) * ceil_div(s->bwd.nb, group_of(s))
                                  + ceil_div(last, group_of(s)));
        s->dots = (double *)dev->alloc(dev, (size_t)(s->D * s->slots * 8));
        if (!s->dots) return HB_ERR_OOM;
    }
    s->chunk_bytes = (size_t)(rows * s->N * 8);
    if (!(s->chunk = spectra(s, rows))) return HB_ERR_OOM;
    if (s->fixed_filter && !(s->fixed = spectra(s, s->D))) return HB_ERR_OOM;
    s->turns = (float2 *)dev->alloc(dev, (size_t)planes * s->N2 * 8);
    if (!s->turns) return HB_ERR_OOM;
    fill_turns<<<dim3((s->N2 + 255) / 256, planes), 256, 0, (cudaStream_t)dev->stream>>>(
        s->turns, s->N, s->N2);
    const int rc = hb_cuda_launched(s->host, "longconv_cufft_cuda: twiddles");
    return rc ? rc : dev->sync(dev, dev->stream);
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    struct state *s = (struct state *)host->alloc(host, sizeof *s);
    if (!s) return HB_ERR_OOM;
    *s = (struct state){ .host = host, .B = p->B, .L = p->L, .D = p->D, .t = p->dtype,
                         .fixed_filter = p->filter == HB_FILTER_FIXED };
    choose(s);
    int gpu = 0, l2 = 0;
    int rc = HB_CUDA(host, cudaGetDevice(&gpu));
    if (!rc) rc = HB_CUDA(host, cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, gpu));
    if (!rc) {
        // Half of the cache: the signals pass through the other half.
        s->fwd = split(s, false, l2 / 2);
        if (p->backward) s->bwd = split(s, true, l2 / 2);
        rc = make_buffers(s);
    }
    if (!rc) rc = make_plans(s);
    if (!rc) {
        *st = s;
        return HB_OK;
    }
    destroy(s);
    return rc;
}

static int describe(const void *st, char *buf, size_t cap)
{
    const struct state *s = (const struct state *)st;
    const struct pass *k = &s->fwd, *b = &s->bwd;
    int version = 0;
    (void)cufftGetVersion(&version);
    int n = snprintf(buf, cap, "M %" PRId64 " = %d x %d, right-angle c2c, cuFFT %d, %" PRId64
                     " chunks of %" PRId64 " rows", s->N, s->R, s->N2, version, k->chunks,
                     k->C * k->nb);
    if (b->chunks && n > 0 && (size_t)n < cap)
        n += snprintf(buf + n, cap - (size_t)n, ", back %" PRId64 " of %" PRId64, b->chunks,
                      b->C * b->nb);
    if (n > 0 && (size_t)n < cap)
        snprintf(buf + n, cap - (size_t)n, ", spectra %zu bytes, work area %zu", s->chunk_bytes,
                 s->work_bytes);
    return HB_OK;
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "longconv_cufft_cuda",
    .op = HB_LONGCONV,
    .device = "cuda",
    .dtypes = 1u << HB_F32 | 1u << HB_F16 | 1u << HB_BF16,
    .source = "Poli et al. 2023, arXiv:2302.10866, sec. 3; cuFFT, CUDA 13",
    .complexity = "O(L log L)",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .set_filter = set_filter,
    .describe = describe,
};
