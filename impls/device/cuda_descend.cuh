// cuda_descend.cuh: the implicit filter's backward pass down to dx of its hidden layers in one
// kernel, for signals of 16 bits (cuda_filter.cu):
//     da3 = W4' (dh window), dx3 = f cos(f x3) da3;  da2 = W3' dx3, dx2 likewise;  da1, dx1
// Method    A block has TILE positions. The hidden layers again (cuda_hidden.cuh), x and a to
//           device memory. Then da3: four groups of warps have a quarter of the channels each and
//           leave 64 features in shared memory; each warp adds the quarters up for its own piece,
//           16 features by ACROSS positions. That piece it has in every layer: it finds the x that
//           it wrote and writes dx over it. Products are three of tf32 (cuda_tile64.cuh). Fragments
//           of W4 and dh come straight from device memory: which features, channels and positions
//           the rows and columns of a fragment are is free, and so a lane has neighbours.
//           cos(y) = sin(y + pi / 2).
// Cost      a position 2 (E W + 2 W^2) flop in float64, 6 W (C + 2 W) in tf32; device memory 4 C
//           and 36 W bytes. Predicted, W = 64, C = 768: 24 us at L = 8192 (as four kernels 142 us).
// Accuracy  2e-6: dropped are 2^-20 of a product.
// Refuses   as cuda_hidden.cuh.
#ifndef HB_DEVICE_CUDA_DESCEND_CUH
#define HB_DEVICE_CUDA_DESCEND_CUH

#include "cuda_hidden.cuh"

enum {
    WIDE = 16,                   // warps of a block
    WIDE_THREADS = 32 * WIDE,
    DESCEND_BYTES = HIDDEN_WEIGHTS + 2 * HIDDEN_ROWS<TILE> * 8,
    DSTRIDE = TILE + 8,          // floats of a row of dx: 8 mod 32, and fragments hit all banks
    QUARTERS = 4,
    DSUMS = QUARTERS * TILE * DSTRIDE,           // floats: what the quarters leave
};

using descend_share = hidden_piece<TILE, WIDE>;
enum { SIDE = descend_share::SIDE, ACROSS = descend_share::ACROSS };

struct descend_args {
    struct hidden_net net;       // z of the chunk's first position
    float *x[3], *a[3];          // (W,ld); x: dx afterwards
    float *sums[3], *far[3];     // [tile of positions][W]: of each layer's dx, and of x dx / f
    const float *dh, *w4;        // (C,L), (C,W)
    int64_t C, L;
    struct chunk s;
    struct window<float> win;
    bool vectors;                // of dh and w4, as below
};

// Sums over a block's positions of dx and x dx / f, by groups of ACROSS positions.
struct descend_parts { float of[2][SIDE][HIDDEN_MOST]; };

// dh[j], dh[j+1] of a channel's row; zeros outside. VECTORS: rows lie at multiples of 8 bytes.
template <bool VECTORS>
static __device__ __forceinline__ float2 two_of_dh(const struct descend_args &g, int64_t c,
                                                   int64_t p)
{
    const float *row = g.dh + (c < g.C ? c : g.C - 1) * g.L + g.s.j0;
    const bool in = c < g.C && p < g.s.n;
    if constexpr (VECTORS) {
        const float2 d = *(const float2 *)(row + (p < g.s.n ? p : 0));
        return make_float2(in ? d.x : 0.0f, in ? d.y : 0.0f);
    } else {
        return make_float2(in ? row[p] : 0.0f, in && p + 1 < g.s.n ? row[p + 1] : 0.0f);
    }
}

// w4 of a channel at eight features from w on; outside, others of them: dh is zero there, or nobody
// asks for that da3. VECTORS: W is a multiple of 8, rows lie at multiples of 16 bytes.
template <bool VECTORS>
static __device__ __forceinline__ void eight_weights(float (&v)[8], const struct descend_args &g,
                                                     int64_t c, int w)
{
    const float *row = g.w4 + (c < g.C ? c : g.C - 1) * g.net.W;
    #pragma unroll
    for (int i = 0; i < 8; i += 4) {
        if constexpr (VECTORS) {
            const float4 four = *(const float4 *)(row + min(w, g.net.W - 8) + i);
            v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
        } else {
            #pragma unroll
            for (int k = i; k < i + 4; k++) v[k] = row[min(w + k, g.net.W - 1)];
        }
    }
}

// da3: each quarter's to `to` [quarter][feature][DSTRIDE]. A lane (row,
// t) of a warp has two positions and the channels t and t + 4 of eight, as columns of the product
// (tiles of n: the first, the second), and eight features as its rows.
template <bool VECTORS>
static __device__ __forceinline__ void descend_last(const struct descend_args &g, int64_t p0,
                                                    float *to)
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, row = lane / 4;
    const int t = lane % 4, quarter = warp / SIDE, first = warp % SIDE * ACROSS;
    const int64_t p = p0 + first + 2 * row;
    const float j = (float)(g.s.j0 + p), shift = g.win.on ? g.win.shift : 0.0f;
    float sums[4][2][4] = {};
    #pragma unroll 2
    for (int64_t c = 8 * quarter + t; c - t < g.C; c += 8 * QUARTERS) {
        float a[2][8], b[2][2];
        #pragma unroll
        for (int q = 0; q < 2; q++) {
            const float2 d = two_of_dh<VECTORS>(g, c + 4 * q, p);
            eight_weights<VECTORS>(a[q], g, c + 4 * q, 8 * row);
            b[0][q] = d.x * (g.win.at(j, (float)(c + 4 * q)) + shift);
            b[1][q] = d.y * (g.win.at(j + 1, (float)(c + 4 * q)) + shift);
        }
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            const float rows[4] = { a[0][2 * i], a[0][2 * i + 1], a[1][2 * i], a[1][2 * i + 1] };
            mma(sums[i][0], rows, b[0]);
            mma(sums[i][1], rows, b[1]);
        }
    }
    #pragma unroll
    for (int i = 0; i < 8; i++) {
        const float (&s)[2][4] = sums[i / 2];
        const int h = 2 * (i % 2);
        *(float4 *)(to + (quarter * TILE + 8 * row + i) * DSTRIDE + first + 4 * t)
            = make_float4(s[0][h], s[1][h], s[0][h + 1], s[1][h + 1]);
    }
}

// One warp's piece of layer l, features from r0 on: its da to dx, to device memory, to the rows of
// `to` (zeros from W on) and into the sums.
static __device__ __forceinline__ void descend_piece(const struct descend_args &g, int l, int r0,
                                                     int64_t p0, const float (&da)[2][4], float *to,
                                                     struct descend_parts *parts)
{
    const int lane = (int)threadIdx.x % 32, row = lane / 4, t = lane % 4;
    const int group = (int)threadIdx.x / 32 % SIDE;
    #pragma unroll
    for (int h = 0; h < 2; h++) {
        const int r = r0 + row + 8 * h;
        const bool in = r < g.net.W;
        const double f = in ? g.net.freq[r] : 0.0, turns = f * PER_PI;
        float db = 0, df = 0;
        #pragma unroll
        for (int n = 0; n < 2; n++) {
            const int p = group * ACROSS + 8 * n + 2 * t;
            float2 *const at = (float2 *)(g.x[l] + (in ? r : 0) * g.s.ld + p0 + p);
            float2 dx = make_float2(0, 0);
            if (in) {
                const float2 x = *at;
                const float e0 = sine(fma((double)x.x, turns, SINE_ZERO + 0.5)) * da[n][2 * h];
                const float e1 = sine(fma((double)x.y, turns, SINE_ZERO + 0.5)) * da[n][2 * h + 1];
                dx = make_float2((float)f * e0, (float)f * e1);
                *at = dx;
                df += x.x * e0 + x.y * e1;
            }
            db += dx.x + dx.y;
            *(float2 *)(to + r * DSTRIDE + p) = dx;
        }
        #pragma unroll
        for (int step = 1; step < 4; step *= 2) {
            db += __shfl_xor_sync(0xffffffffu, db, step);
            df += __shfl_xor_sync(0xffffffffu, df, step);
        }
        if (t > 0) continue;
        parts->of[0][group][r] = db;
        parts->of[1][group][r] = df;
    }
}

// da (16 features from r0 on by ACROSS positions) = w' dx, dx [feature][DSTRIDE].
static __device__ __forceinline__ void descend_product(const float *w, int W, int r0,
                                                       const float *dx, float (&da)[2][4])
{
    const int lane = (int)threadIdx.x % 32, row = lane / 4, t = lane % 4;
    #pragma unroll
    for (int i = 0; i < 8; i++) da[i / 4][i % 4] = 0;
    #pragma unroll 4
    for (int k = 0; k < W; k += 8) {
        float a[4];
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            const int r = r0 + row + i % 2 * 8, at = k + t + i / 2 * 4;
            a[i] = r < W && at < W ? w[at * W + r] : 0.0f;
        }
        #pragma unroll
        for (int n = 0; n < 2; n++) {
            const float *from = dx + (k + t) * DSTRIDE + 8 * n + row;
            const float b[2] = { from[0], from[4 * DSTRIDE] };
            mma(da[n], a, b);
        }
    }
}

// The sums of layer l, when its parts are there.
static __device__ __forceinline__ void descend_sums(const struct descend_args &g, int l,
                                                    const struct descend_parts *parts)
{
    for (int i = (int)threadIdx.x; i < 2 * g.net.W; i += WIDE_THREADS) {
        const int which = i / g.net.W, r = i - which * g.net.W;
        float sum = 0;
        for (int k = 0; k < SIDE; k++) sum += parts->of[which][k][r];
        (which ? g.far[l] : g.sums[l])[blockIdx.x * (int64_t)g.net.W + r] = sum;
    }
}

// Grid (n in tiles). Dynamic shared: DESCEND_BYTES.
static __global__ __launch_bounds__(WIDE_THREADS, 1) void descend_kernel(
    const __grid_constant__ struct descend_args g)
{
    extern __shared__ __align__(16) unsigned char shared[];
    __shared__ struct descend_parts parts;
    double *const rows = (double *)shared;
    const hidden_space h = hidden_share(rows + 2 * HIDDEN_ROWS<TILE>);
    descend_share piece;
    hidden_table<TILE, WIDE> table;
    const int W = g.net.W, row = piece.row, t = piece.t, first = piece.p0, r0 = piece.r0;
    const int64_t p0 = blockIdx.x * (int64_t)TILE;
    table.fetch(g.net, p0, g.s.n);
    hidden_load<WIDE, false>(h, g.net);
    table.put(rows, g.net);
    #pragma unroll 1
    for (int l = 0; l < 3; l++) {
        double *const below = rows + l % 2 * HIDDEN_ROWS<TILE>;
        double *const above = rows + (l + 1) % 2 * HIDDEN_ROWS<TILE>;
        __syncthreads();
        piece.multiply(h, g.net, l, below);
        piece.finish(h, g.net, l, [&](int i, int n, double x0, double x1, float a0, float a1) {
            if (l < 2) piece.keep(above, i, n, a0, a1);
            if (piece.feature(i) >= W) return;
            const int64_t at = piece.feature(i) * g.s.ld + p0 + piece.position(n);
            *(float2 *)(g.x[l] + at) = make_float2((float)x0, (float)x1);
            *(float2 *)(g.a[l] + at) = make_float2(a0, a1);
        });
    }
    float *const quarters = (float *)shared, *dx = quarters + DSUMS, *next = quarters;
    static_assert((DSUMS + HIDDEN_MOST * DSTRIDE) * 4 <= DESCEND_BYTES);
    __syncthreads();                             // shared memory is free
    if (g.vectors) descend_last<true>(g, p0, quarters);
    else descend_last<false>(g, p0, quarters);
    __syncthreads();
    float da[2][4] = {};
    for (int k = 0; k < QUARTERS; k++)
        #pragma unroll
        for (int i = 0; i < 8; i++)
            da[i / 4][i % 4] += quarters[(k * TILE + r0 + row + i % 4 / 2 * 8) * DSTRIDE + first
                                         + i / 4 * 8 + 2 * t + i % 2];
    if (r0 < W) descend_piece(g, 2, r0, p0, da, dx, &parts);
    #pragma unroll 1
    for (int l = 1; l >= 0; l--) {
        __syncthreads();                         // dx and the parts of the layer above are there
        descend_sums(g, l + 1, &parts);
        __syncthreads();                         // the parts are read
        if (r0 < W) {
            descend_product(g.net.w[l + 1], W, r0, dx + first, da);
            descend_piece(g, l, r0, p0, da, next, &parts);
        }
        float *const swap = dx;
        dx = next;
        next = swap;
    }
    __syncthreads();
    descend_sums(g, 0, &parts);
}

#endif
