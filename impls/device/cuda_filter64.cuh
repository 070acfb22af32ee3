// cuda_filter64.cuh: the implicit filter in float64, forward, and backward down to dx of its hidden
// layers (cuda_filter.cu).
// Method    Every product is one 64 x 64 tile per block on the float64 tensor cores, k in steps of
//           16 through two shared buffers (cuda_tile64.cuh); parameters, z and dh are widened on
//           the way in; sines, the window and their derivatives are applied on the way out. Along a
//           row or column the window goes by a constant ratio: a few exp per thread and tile, one
//           multiplication per element.
// Accuracy  that of float64; the ratios lose some 1e-13.
#ifndef HB_DEVICE_CUDA_FILTER64_CUH
#define HB_DEVICE_CUDA_FILTER64_CUH

#include "cuda_tile64.cuh"

// --- forward -------------------------------------------------------------------------------------

// x = w B + bias, a = sin(f x), (W,n); B is z (L,E) or the layer below's a (W,n). x may be NULL.
// Grid (W, n) in tiles.
template <class B>
__global__ __launch_bounds__(THREADS, RESIDENT<double>) void layer_kernel(
    double *x, double *a, B below, const float *w, const float *bias, const float *freq,
    int64_t W, int64_t K, struct chunk s)
{
    __shared__ double shared[4 * PIECE];
    plain<float, true> left = { w, K, W, blockIdx.x * (int64_t)TILE };
    acc_t<double> acc;
    lane me;
    below.r0 = blockIdx.y * (int64_t)TILE;
    multiply<double>(acc, left, below, 0, K, shared);
    #pragma unroll
    for (int m = 0; m < 4; m++) {                // m/2: which 16 rows, m%2: which 8 of them
        int64_t r = left.r0 + me.row0 + 8 * m;
        if (r >= W) continue;
        double b = bias[r], f = freq[r];
        #pragma unroll
        for (int n = 0; n < 4; n++) {
            int64_t at = r * s.ld + below.r0 + me.col0 + 8 * n;
            double x0 = acc[m / 2][n][m % 2 * 2] + b, x1 = acc[m / 2][n][m % 2 * 2 + 1] + b;
            if (x) *(double2 *)(x + at) = make_double2(x0, x1);
            *(double2 *)(a + at) = make_double2(sin(f * x0), sin(f * x1));
        }
    }
}

// h[c,j] = (w4 a3)[c,j] window. Grid (C, n) in tiles. `pairs`: h's rows begin at multiples of 8
// bytes.
__global__ __launch_bounds__(THREADS, RESIDENT<double>) void out_kernel(
    float *h, const double *a3, const float *w4, int64_t C, int64_t W, int64_t L, struct chunk s,
    struct window<double> win, bool pairs)
{
    __shared__ double shared[4 * PIECE];
    plain<float, true> left = { w4, W, C, blockIdx.x * (int64_t)TILE };
    plain<double, false> right = { a3, s.ld, s.n, blockIdx.y * (int64_t)TILE };
    acc_t<double> acc;
    lane me;
    multiply<double>(acc, left, right, 0, W, shared);
    double c0 = (double)(left.r0 + me.row0), j0 = (double)(s.j0 + right.r0 + me.col0);
    double shift = win.on ? win.shift : 0.0;
    double first = win.at(j0, c0), leap = win.along_j(8, c0), next = win.along_j(1, c0);
    double first_c = win.along_c(8, j0), leap_c = win.both(8, 8), next_c = win.both(1, 8);
    #pragma unroll
    for (int m = 0; m < 4; m++) {
        int64_t c = left.r0 + me.row0 + 8 * m;
        double v = first;
        #pragma unroll
        for (int n = 0; n < 4; n++, v *= leap) {
            int64_t j = right.r0 + me.col0 + 8 * n;
            float *to = h + c * L + s.j0 + j;
            float y0 = (float)(acc[m / 2][n][m % 2 * 2] * (v + shift));
            float y1 = (float)(acc[m / 2][n][m % 2 * 2 + 1] * (v * next + shift));
            if (c >= C || j >= s.n) continue;
            if (pairs && j + 1 < s.n) {
                *(float2 *)to = make_float2(y0, y1);
            } else {
                to[0] = y0;
                if (j + 1 < s.n) to[1] = y1;
            }
        }
        first *= first_c;
        leap *= leap_c;
        next *= next_c;
    }
}

// --- backward ------------------------------------------------------------------------------------

// From da = acc: dx = f cos(f x) da over x (W,n), and of each row's TILE positions the sums
// db = dx and df = x cos(f x) da, to sums[tile of n][W] and (behind `far`) far[tile of n][W].
static __device__ __forceinline__ void sine_bwd(acc_t<double> &acc, double *x, double *sums,
                                                double *far, const float *freq, int64_t W,
                                                int64_t r0, struct chunk s)
{
    __shared__ double part[2][2][TILE];          // db, df; left and right half of the tile
    lane me;
    #pragma unroll
    for (int m = 0; m < 4; m++) {
        int64_t r = r0 + me.row0 + 8 * m;
        double f = r < W ? freq[r] : 0.0f, db = 0, df = 0;
        #pragma unroll
        for (int n = 0; n < 4 && r < W; n++) {
            double2 *at = (double2 *)(x + r * s.ld + blockIdx.y * (int64_t)TILE + me.col0 + 8 * n);
            double2 u = *at;
            double e0 = cos(f * u.x) * acc[m / 2][n][m % 2 * 2];
            double e1 = cos(f * u.y) * acc[m / 2][n][m % 2 * 2 + 1];
            *at = { f * e0, f * e1 };
            db += f * e0 + f * e1;
            df += u.x * e0 + u.y * e1;
        }
        for (int step = 1; step < 4; step *= 2) {
            db += __shfl_xor_sync(0xffffffffu, db, step);
            df += __shfl_xor_sync(0xffffffffu, df, step);
        }
        if (me.t == 0) {
            part[0][threadIdx.x / 64][me.row0 + 8 * m] = db;
            part[1][threadIdx.x / 64][me.row0 + 8 * m] = df;
        }
    }
    __syncthreads();
    int r = (int)threadIdx.x % TILE, which = (int)threadIdx.x / TILE;
    if (r0 + r < W)
        (which ? far : sums)[blockIdx.y * W + r0 + r] = part[which][0][r] + part[which][1][r];
}

// dx3 over x3, from da3 = w4' (dh window). Grid (W, n) in tiles.
__global__ __launch_bounds__(THREADS, RESIDENT<double>) void last_bwd_kernel(
    double *x, double *sums, double *far, const float *dh, const float *w4, const float *freq,
    int64_t C, int64_t W, int64_t L, struct chunk s, struct window<double> win)
{
    __shared__ double shared[4 * PIECE];
    plain<float, false> left = { w4, W, W, blockIdx.x * (int64_t)TILE };
    windowed<false> right(dh, L, s, s.n, blockIdx.y * (int64_t)TILE, 0, win);
    acc_t<double> acc;
    multiply<double>(acc, left, right, 0, C, shared);
    sine_bwd(acc, x, sums, far, freq, W, left.r0, s);
}

// dx of the layer below over its x, from da = w' dx. Grid (W, n) in tiles.
__global__ __launch_bounds__(THREADS, RESIDENT<double>) void layer_bwd_kernel(
    double *x, double *sums, double *far, const double *dx, const float *w, const float *freq,
    int64_t W, struct chunk s)
{
    __shared__ double shared[4 * PIECE];
    plain<float, false> left = { w, W, W, blockIdx.x * (int64_t)TILE };
    plain<double, false> right = { dx, s.ld, s.n, blockIdx.y * (int64_t)TILE };
    acc_t<double> acc;
    multiply<double>(acc, left, right, 0, W, shared);
    sine_bwd(acc, x, sums, far, freq, W, left.r0, s);
}

#endif
