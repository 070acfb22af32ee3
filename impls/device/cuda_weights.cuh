// cuda_weights.cuh: gradients of the implicit filter's weights and biases from dx and a of a chunk
// of positions (cuda_filter.cu), N: double, or float for signals of 16 bits:
//     dw4 = (dh window) a3',  dw3 = dx3 a2',  dw2 = dx2 a1',  dw1 = dx1 z;  db, dfreq: sums of rows
// Method    64 x 64 of a gradient a block, over one cut of the positions; a second kernel adds up
//           the cuts. In float64 by cuda_tile64.cuh. In float32 (three products of tf32) a warp has
//           16 rows, and fragments come straight from device memory, four neighbouring positions a
//           lane: which positions the columns of a fragment are is free.
// Cost      2 (C + 3 W) W flop a position, 6 of tf32; in float32 about 310 instructions for 16 x 64
//           by 16 positions. Predicted, W = 64, C = 768, L = 8192: 14 us (by tiles of float32: 39).
// Accuracy  float32: 2^-20 of a product is left out, sums are float32, those of the cuts float64.
#ifndef HB_DEVICE_CUDA_WEIGHTS_CUH
#define HB_DEVICE_CUDA_WEIGHTS_CUH

#include "cuda_tile64.cuh"

enum {
    COLS = 32, SLICES = 8,       // of a block that adds up row sums
};

// Where the weights' gradients lie one after the other: w1 (W,E), w2, w3 (W,W), w4 (C,W).
struct layout {
    int64_t off[5];                              // off[4]: how many there are
    int64_t C, W, E;
};

template <class N> struct weights_args {
    N *part;                                     // (cuts, lay.off[4])
    const float *dh, *z;                         // z: the chunk's first row
    const N *dx[3], *a[3];
    struct layout lay;
    int64_t L, cut;                              // cut: positions, a multiple of DEPTH
    struct chunk s;
    struct window<N> win;
    bool fours;                                  // rows of dh lie at multiples of 16 bytes
};

// --- in float64 ----------------------------------------------------------------------------------

static __device__ __forceinline__ windowed<true> dh_rows(
    const struct weights_args<double> &g, int64_t r0, int64_t k0)
{
    return windowed<true>(g.dh, g.L, g.s, g.lay.C, r0, k0, g.win);
}
static __device__ __forceinline__ plain<double, true> array_rows(
    const struct weights_args<double> &g, const double *p, int64_t r0)
{
    return { p, g.s.ld, g.lay.W, r0 };
}
static __device__ __forceinline__ plain<float, false> table_rows(
    const struct weights_args<double> &g, int64_t r0)
{
    return { g.z, g.lay.E, g.lay.E, r0 };
}

// to (rows,cols) at r0, c0 = a b' over the positions from k0 to end; a, b: the above; `shared` has
// 4 PIECE.
template <class A, class B>
static __device__ __forceinline__ void sum_tile(double *to, A a, B b, int64_t rows, int64_t cols,
                                                int64_t r0, int64_t c0, int64_t k0, int64_t end,
                                                double *shared)
{
    acc_t<double> acc;
    lane me;
    multiply<double>(acc, a, b, k0, end, shared);
    #pragma unroll
    for (int i = 0; i < 32; i++) {
        int64_t r = r0 + me.row0 + 8 * (i / 8), c = c0 + me.col0 + i / 2 % 4 * 8 + i % 2;
        if (r < rows && c < cols) to[r * cols + c] = acc[i / 16][i / 2 % 4][i / 8 % 2 * 2 + i % 2];
    }
}

// --- in float32 ----------------------------------------------------------------------------------
// row(r): what a lane keeps of row r; of one that is not there, the last: its sums are not stored.
// four(row, k): it at positions k .. k+3, k a multiple of 4.

struct straight_dh {
    const float *dh;             // the chunk's first position
    int64_t L, C, n, j0;
    struct window<float> win;
    bool fours;

    struct kept { const float *at; float c, next; };
    __device__ __forceinline__ kept row(int64_t r) const
    {
        const int64_t c = r < C ? r : C - 1;
        return { dh + c * L, (float)c, win.along_j(1, (float)c) };
    }
    __device__ __forceinline__ float4 four(const kept &r, int64_t k) const
    {
        float4 x = make_float4(0, 0, 0, 0);      // dx is zero, too, where there are no positions
        if (fours && k + 4 <= n) {
            x = *(const float4 *)(r.at + k);
        } else {
            if (k < n) x.x = r.at[k];
            if (k + 1 < n) x.y = r.at[k + 1];
            if (k + 2 < n) x.z = r.at[k + 2];
            if (k + 3 < n) x.w = r.at[k + 3];
        }
        const float shift = win.on ? win.shift : 0.0f, w0 = win.at((float)(j0 + k), r.c);
        const float w1 = w0 * r.next, w2 = w1 * r.next, w3 = w2 * r.next;
        return make_float4(x.x * (w0 + shift), x.y * (w1 + shift), x.z * (w2 + shift),
                           x.w * (w3 + shift));
    }
};

struct straight_array {
    const float *p;              // (rows,ld), zeros or finite up to ld
    int64_t ld, rows;

    using kept = const float *;
    __device__ __forceinline__ kept row(int64_t r) const
    {
        return p + (r < rows ? r : rows - 1) * ld;
    }
    __device__ __forceinline__ float4 four(kept r, int64_t k) const
    {
        return *(const float4 *)(r + k);
    }
};

struct straight_table {
    const float *z;              // (n,E)
    int64_t E, n;

    using kept = const float *;
    __device__ __forceinline__ kept row(int64_t e) const { return z + (e < E ? e : E - 1); }
    __device__ __forceinline__ float4 four(kept r, int64_t k) const
    {
        float v[4];
        #pragma unroll
        for (int i = 0; i < 4; i++) v[i] = k + i < n ? r[(k + i) * E] : 0.0f;
        return make_float4(v[0], v[1], v[2], v[3]);
    }
};

static __device__ __forceinline__ straight_dh dh_rows(const struct weights_args<float> &g, int64_t,
                                                      int64_t)
{
    return { g.dh + g.s.j0, g.L, g.lay.C, g.s.n, g.s.j0, g.win, g.fours };
}
static __device__ __forceinline__ straight_array array_rows(const struct weights_args<float> &g,
                                                            const float *p, int64_t)
{
    return { p, g.s.ld, g.lay.W };
}
static __device__ __forceinline__ straight_table table_rows(const struct weights_args<float> &g,
                                                            int64_t)
{
    return { g.z, g.lay.E, g.s.n };
}

// The same; `end` is a multiple of 16 or the chunk's.
template <class A, class B>
static __device__ __forceinline__ void sum_tile(float *to, const A &a, const B &b, int64_t rows,
                                                int64_t cols, int64_t r0, int64_t c0, int64_t k0,
                                                int64_t end, float *)
{
    const int in_warp = (int)threadIdx.x % 32, row = in_warp / 4, t = in_warp % 4;
    const int64_t r = r0 + (int)threadIdx.x / 32 * 16 + row;
    const typename A::kept one = a.row(r), other = a.row(r + 8);
    typename B::kept across[8];
    float sum[8][4] = {};
    #pragma unroll
    for (int n = 0; n < 8; n++) across[n] = b.row(c0 + 8 * n + row);
    for (int64_t k = k0 + 4 * t; k - 4 * t < end; k += 16) {
        const float4 x = a.four(one, k), y = a.four(other, k);
        const float a0[4] = { x.x, y.x, x.y, y.y }, a1[4] = { x.z, y.z, x.w, y.w };
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            if (c0 + 8 * n >= cols) break;
            const float4 v = b.four(across[n], k);
            const float b0[2] = { v.x, v.y }, b1[2] = { v.z, v.w };
            mma(sum[n], a0, b0);
            mma(sum[n], a1, b1);
        }
    }
    #pragma unroll
    for (int i = 0; i < 32; i++) {
        const int64_t at = r + i / 2 % 2 * 8, c = c0 + i / 4 * 8 + 2 * t + i % 2;
        if (at < rows && c < cols) to[at * cols + c] = sum[i / 4][i % 4];
    }
}

// --- the kernels ---------------------------------------------------------------------------------

// Sums over one cut of the chunk's positions:
//     dw4 = (dh window) a3',  dw3 = dx3 a2',  dw2 = dx2 a1',  dw1 = dx1 z
// Grid (tiles of the four, in this order; cuts).
template <class N>
__global__ __launch_bounds__(THREADS, RESIDENT<N>) void weights_kernel(
    const struct weights_args<N> g)
{
    __shared__ N shared[sizeof(N) == 8 ? 4 * PIECE : 1];
    const int64_t C = g.lay.C, W = g.lay.W, E = g.lay.E;
    const int64_t tc = (C + TILE - 1) / TILE, tw = (W + TILE - 1) / TILE;
    const int64_t te = (E + TILE - 1) / TILE;
    int64_t tile = blockIdx.x, k0 = blockIdx.y * g.cut;
    int64_t end = k0 + g.cut < g.s.n ? k0 + g.cut : g.s.n;
    N *part = g.part + blockIdx.y * g.lay.off[4];
    if (tile < tc * tw) {
        int64_t r0 = tile / tw * TILE, c0 = tile % tw * TILE;
        sum_tile(part + g.lay.off[3], dh_rows(g, r0, k0), array_rows(g, g.a[2], c0), C, W, r0, c0,
                 k0, end, shared);
        return;
    }
    tile -= tc * tw;
    if (tile < 2 * tw * tw) {
        int l = tile < tw * tw ? 2 : 1;
        if (l == 1) tile -= tw * tw;
        int64_t r0 = tile / tw * TILE, c0 = tile % tw * TILE;
        sum_tile(part + (l == 2 ? g.lay.off[2] : g.lay.off[1]),
                 array_rows(g, l == 2 ? g.dx[2] : g.dx[1], r0),
                 array_rows(g, l == 2 ? g.a[1] : g.a[0], c0), W, W, r0, c0, k0, end, shared);
        return;
    }
    tile -= 2 * tw * tw;
    int64_t r0 = tile / te * TILE, c0 = tile % te * TILE;
    sum_tile(part + g.lay.off[0], array_rows(g, g.dx[0], r0), table_rows(g, c0), W, E, r0, c0, k0,
             end, shared);
}

// dz[j,e] += sum_w dx1[w,j] w1[w,e]. Grid (E, n) in tiles.
template <class N>
__global__ __launch_bounds__(THREADS, RESIDENT<N>) void table_bwd_kernel(
    float *dz, const N *dx1, const float *w1, int64_t W, int64_t E, struct chunk s)
{
    __shared__ N shared[4 * PIECE];
    plain<N, false> left = { dx1, s.ld, s.n, blockIdx.y * (int64_t)TILE };
    plain<float, false> right = { w1, E, E, blockIdx.x * (int64_t)TILE };
    acc_t<N> acc;
    lane me;
    multiply<N>(acc, left, right, 0, W, shared);
    #pragma unroll
    for (int i = 0; i < 32; i++) {
        int64_t j = left.r0 + me.row0 + 8 * (i / 8), e = right.r0 + me.col0 + i / 2 % 4 * 8 + i % 2;
        if (j < s.n && e < E)
            dz[(s.j0 + j) * E + e] += (float)acc[i / 16][i / 2 % 4][i / 8 % 2 * 2 + i % 2];
    }
}

template <class N> struct gather_args {
    double *total;                               // lay.off[4] + 4 W: sums over the chunks so far
    const N *part;                               // (cuts, lay.off[4])
    const N *rows;                               // (2,3,tiles,W): db, df by layer
    float *out[8];                               // w1 w2 w3 w4 b1 b2 b3 freq; NULL: skipped
    struct layout lay;
    int64_t cuts, tiles;
    bool first, last;                            // chunk
    unsigned tail;                               // the first blocks: the row sums
};

template <class N>
static __device__ __forceinline__ void gather_one(const struct gather_args<N> &g, int64_t i,
                                                  double sum, float *out)
{
    if (!g.first) sum += g.total[i];
    if (!g.last) g.total[i] = sum;
    else if (out) *out += (float)sum;
}

// Adds up a chunk: COLS * SLICES threads. The first g.tail blocks have COLS features of one of
// b1 b2 b3 freq each, the others one weight per thread.
template <class N> __global__ void gather_kernel(const struct gather_args<N> g)
{
    __shared__ double part[SLICES][COLS];
    int64_t W = g.lay.W, n = g.lay.off[4];
    if (blockIdx.x >= g.tail) {
        int64_t i = (blockIdx.x - g.tail) * (int64_t)(COLS * SLICES) + threadIdx.x;
        double sum = 0;
        if (i >= n) return;
        #pragma unroll 16
        for (int64_t k = 0; k < g.cuts; k++) sum += g.part[k * n + i];
        int l = i < g.lay.off[1] ? 0 : i < g.lay.off[2] ? 1 : i < g.lay.off[3] ? 2 : 3;
        int64_t off = i - g.lay.off[l];
        gather_one(g, i, sum, g.out[l] ? g.out[l] + off : NULL);
        return;
    }
    int x = (int)threadIdx.x % COLS, y = (int)threadIdx.x / COLS;
    int64_t groups = (W + COLS - 1) / COLS, w = blockIdx.x % groups * COLS + x;
    int kind = (int)(blockIdx.x / groups);       // the layer, or 3: freq, over the three layers
    const N *rows = g.rows + kind * g.tiles * W;
    int64_t count = kind < 3 ? g.tiles : 3 * g.tiles;
    double sum = 0;
    if (w < W) {
        #pragma unroll 16
        for (int64_t k = y; k < count; k += SLICES) sum += rows[k * W + w];
    }
    part[y][x] = sum;
    __syncthreads();
    if (y > 0 || w >= W) return;
    for (int k = 1; k < SLICES; k++) sum += part[k][x];
    gather_one(g, n + kind * W + w, sum, g.out[4 + kind] ? g.out[4 + kind] + w : NULL);
}

#endif
