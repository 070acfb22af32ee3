// f32_columns.cuh: the outer digits of long rows in float32: N = Q1 Q2 N2, N2 points in one block
// (f32_rows.cuh), CUDA.
// Method    f32_fft.cuh with a column of Q1 points in a thread's registers, from and to device
//           memory (the L2 cache, for chunks of rows that fit): real in, complex `mid`, and back.
//           Rows beyond 32 N2 take a second step of Q2 = 16 in place. Going there the
//           twiddles are constants (or one set for a block), coming back they belong to positions:
//           sincospif of fractions that are exact, or nearly.
//           Three times a power of two: the first step, z^3m - w^3, is into three.
// Cost      bytes a sample: u 4, mid 8; back 8 and 4; a second step 16 each way.
#ifndef HB_FUSED_F32_COLUMNS_CUH
#define HB_FUSED_F32_COLUMNS_CUH

#include "f32_rows.cuh"

enum { F32_COLUMN_THREADS = 128, F32_Q2 = 16 };

struct f32_columns {
    int rows, batch, L;                // row i: channel i / batch, entry i % batch
    int64_t N;
    const float *in;  struct hb_strides si;
    float *out;       struct hb_strides so;
    bool add;                          // out += ...
    float2 *mid;                       // (rows, N)
};

// e^{i pi x}
__device__ __forceinline__ float2 f32_half_turns(float x)
{
    float s, c;
    sincospif(x, &s, &c);
    return make_float2(c, s);
}

// t_l of position p of blocks of `size` points.
template <int LOG> __device__ __forceinline__ f32_powers<LOG> f32_position(int64_t p, int64_t size)
{
    f32_powers<LOG> w;
#pragma unroll
    for (int l = 0; l < LOG; l++)
        w.t[l] = f32_half_turns((float)p / (float)(size << l));
    return w;
}

// The three parts of z^3m - i over real x: angles pi / 6, 5 pi / 6, 9 pi / 6.
template <int R>
__device__ __forceinline__ void f32_thirds(float2 (&z)[R], const float (&x)[R])
{
    constexpr int M = R / 3;
    constexpr float h = f32_unit<32>::x;                               // sqrt(3) / 2
#pragma unroll
    for (int i = 0; i < M; i++) {
        const float a = x[i], b = x[i + M], c = x[i + 2 * M];
        z[i] = make_float2(fmaf(h, b, fmaf(0.5f, c, a)), fmaf(0.5f, b, h * c));
        z[i + M] = make_float2(fmaf(-h, b, fmaf(0.5f, c, a)), fmaf(0.5f, b, -h * c));
        z[i + 2 * M] = make_float2(a - c, -b);
    }
    f32_split<M, 1, 0>(z, f32_root<32>(), 0);
    f32_split<M, 1, 0>(z, f32_root<160>(), M);
    f32_split<M, 1, 0>(z, f32_root<288>(), 2 * M);
}

// Turns z[from + a] by e^{i a A pi / 192 / M} c, a < M.
template <int A, int M, int a = 0, int R>
__device__ __forceinline__ void f32_twist(float2 (&z)[R], int from, float2 c)
{
    if constexpr (a < M) {
        z[from + a] = hb_cmul(z[from + a], f32_turned<A * a / M % F32_TURN>(c));
        f32_twist<A, M, a + 1>(z, from, c);
    }
}

// And back: y of the three parts, at position p of N.
template <int R>
__device__ __forceinline__ void f32_from_thirds(float (&y)[R], float2 (&z)[R], int64_t p, int64_t N)
{
    constexpr int M = R / 3;
    constexpr float h = f32_unit<32>::x;
    const auto w = f32_position<f32_log(M)>(p, N / R);
    const float x = (float)p / (float)(2 * N);                          // pi / 6 at N / 3
    f32_merge<M, 1, 0>(z, w, 0);
    f32_merge<M, 1, 0>(z, w, M);
    f32_merge<M, 1, 0>(z, w, 2 * M);
    f32_twist<32, M>(z, 0, f32_half_turns(x));
    f32_twist<160, M>(z, M, f32_half_turns(5 * x));
    f32_twist<288, M>(z, 2 * M, f32_half_turns(9 * x));
#pragma unroll
    for (int i = 0; i < M; i++) {
        const float2 a = z[i], b = z[i + M], c = z[i + 2 * M];          // turned by 1, 5, 9 sixths
        y[i] = a.x + b.x + c.x;
        y[i + M] = fmaf(h, a.x - b.x, fmaf(-0.5f, a.y + b.y, c.y));
        y[i + 2 * M] = fmaf(0.5f, a.x + b.x, fmaf(h, b.y - a.y, -c.x));
    }
}

// Columns of R samples to mid. Grid covers rows N / R threads.
template <int R>
__global__ void __launch_bounds__(F32_COLUMN_THREADS) f32_columns_in(struct f32_columns j)
{
    const int64_t at = (int64_t)blockIdx.x * F32_COLUMN_THREADS + threadIdx.x, stride = j.N / R;
    const int i = (int)(at / stride);
    const int64_t p = at % stride;
    if (i >= j.rows) return;
    const float *const row = j.in + i / j.batch * j.si.c + i % j.batch * j.si.b;
    float x[R];
    float2 z[R];
#pragma unroll
    for (int a = 0; a < R; a++)
        x[a] = a * stride + p < j.L ? __ldcs(row + a * stride + p) : 0;
    if constexpr (R % 3) f32_split_real<R>(z, x);
    else f32_thirds<R>(z, x);
    float2 *const mid = j.mid + i * j.N + p;
#pragma unroll
    for (int a = 0; a < R; a++)
        mid[a * stride] = z[a];
}

template <int R>
__global__ void __launch_bounds__(F32_COLUMN_THREADS) f32_columns_out(struct f32_columns j)
{
    const int64_t at = (int64_t)blockIdx.x * F32_COLUMN_THREADS + threadIdx.x, stride = j.N / R;
    const int i = (int)(at / stride);
    const int64_t p = at % stride;
    if (i >= j.rows) return;
    const float2 *const mid = j.mid + i * j.N + p;
    float2 z[R];
#pragma unroll
    for (int a = 0; a < R; a++)
        z[a] = mid[a * stride];
    float y[R];
    if constexpr (R % 3) {
        f32_merge<R, 1, 0>(z, f32_position<f32_log(R)>(p, stride));
        f32_untwist(y, z, f32_half_turns((float)p / (float)(2 * j.N)));
    } else {
        f32_from_thirds<R>(y, z, p, j.N);
    }
    float *const row = j.out + i / j.batch * j.so.c + i % j.batch * j.so.b;
#pragma unroll
    for (int a = 0; a < R; a++) {
        const int64_t n = a * stride + p;
        if (n < j.L) row[n] = j.add ? row[n] + y[a] : y[a];
    }
}

// The second step of rows of N = Q1 F32_Q2 N2 points, in place; roots (Q1, 16). Grid covers
// rows N / F32_Q2 threads.
template <bool BACK>
__global__ void __launch_bounds__(F32_COLUMN_THREADS)
f32_columns_second(struct f32_columns j, const float2 *roots, int Q1)
{
    constexpr int R = F32_Q2, LOG = f32_log(R);
    const int64_t at = (int64_t)blockIdx.x * F32_COLUMN_THREADS + threadIdx.x;
    const int64_t stride = j.N / Q1 / R;
    const int block = (int)(at / stride);
    const int64_t p = at % stride;
    if (block >= j.rows * Q1) return;
    float2 *const mid = j.mid + block * stride * R + p;
    float2 z[R];
#pragma unroll
    for (int a = 0; a < R; a++)
        z[a] = mid[a * stride];
    if constexpr (BACK) {
        f32_merge<R, 1, 0>(z, f32_position<LOG>(p, stride));
    } else {
        f32_powers<LOG> w;
#pragma unroll
        for (int l = 0; l < LOG; l++)
            w.t[l] = __ldg(roots + block % Q1 * 16 + l);
        f32_split<R, 1, 0>(z, w);
    }
#pragma unroll
    for (int a = 0; a < R; a++)
        mid[a * stride] = z[a];
}

// --- host --------------------------------------------------------------------------------------
// Calls f with Q1 as a constant.
template <class F> static inline void f32_by_columns(int Q1, F f)
{
    if (Q1 == 3) f(std::integral_constant<int, 3>());
    else if (Q1 == 4) f(std::integral_constant<int, 4>());
    else if (Q1 == 6) f(std::integral_constant<int, 6>());
    else if (Q1 == 8) f(std::integral_constant<int, 8>());
    else if (Q1 == 12) f(std::integral_constant<int, 12>());
    else if (Q1 == 16) f(std::integral_constant<int, 16>());
    else if (Q1 == 24) f(std::integral_constant<int, 24>());
    else f(std::integral_constant<int, 32>());
}

static inline unsigned f32_column_grid(const struct f32_columns *j, int R)
{
    return (unsigned)((j->rows * (j->N / R) + F32_COLUMN_THREADS - 1) / F32_COLUMN_THREADS);
}

// The angle of block b of the Q into which z^N - i has been split, three first.
static inline double f32_outer_angle(int b, int Q)
{
    if (Q % 3) return f32_angle(M_PI / 2, b, f32_log(Q));
    return f32_angle((M_PI / 2 + 2 * M_PI * (b / (Q / 3))) / 3, b % (Q / 3), f32_log(Q / 3));
}

// to (Q, 16): t_1 .. t_16 of these blocks.
static inline void f32_root_table(float2 *to, int Q)
{
    for (int b = 0; b < Q; b++)
        for (int l = 1; l <= 16; l++)
            f32_write(to + 16 * b + l - 1, f32_outer_angle(b, Q) / (double)(1 << l));
}
#endif
