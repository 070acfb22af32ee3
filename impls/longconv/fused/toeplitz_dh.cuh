// toeplitz_dh.cuh: dh by definition, on tensor cores, f32 with FMA on 8 x 8 sums a thread.
//     G_q = sum_{b,n} DY_{b,n} U_{b,n-q}'   (BLOCK x BLOCK)
//     dh[s] += sums of the diagonals i - j = s - q BLOCK of G_q and of G_{q+1}
// Rows start at 16-byte boundaries as in toeplitz.cuh, if those of dy and u are aligned alike.
// Registers (nvcc 13.0): 16 bits 213, two blocks of 128 threads an SM; f32 247, one of 256.
// f16, B = 64, D = 768: 1.5 and 5.1 ms at L = 2048 and 4096 (backward less forward) when every
// block still summed its diagonals in float64, one read of shared memory after the other. Folded
// as they are now: predicted 0.2 and 0.7 ms less; then L2 bounds it, which delivers every sample
// L / 256 times (4096: 13 GB, 2.6 ms). The triangle is not what costs: (L + 128) / L.
#ifndef HB_TOEPLITZ_DH_CUH
#define HB_TOEPLITZ_DH_CUH

#include "toeplitz_pieces.cuh"

namespace toeplitz {

enum {
    BLOCK = 128,              // side of G_q
    LANES_DH = 2 * BLOCK,     // partial sums of a G_q: lag i - j at i - j + BLOCK, 0 is not used
    PITCH = BLOCK + 1,        // words from row to row of G_q in shared memory: no bank conflicts
};
template <class T> constexpr int DEPTH = IS_16<T> ? 32 : 16;          // dh: (b,n) pairs of a stage
template <class T> constexpr int DH_THREADS = IS_16<T> ? 128 : 256;
template <class T> constexpr int SIDE_BYTES = DEPTH<T> * BLOCK * (int)sizeof(T);
constexpr int DH_SHARED = BLOCK * PITCH * (int)sizeof(float);         // > STAGES * 2 SIDE_BYTES

// dh of a group of channels.
struct dh_job {
    const void *dy;  struct hb_strides sdy;
    const void *u;   struct hb_strides su;
    float *part;               // (D, blocks, LANES_DH)
    int B, L, blocks;
    bool shifted;              // rows of dy and u have the same alignment: both may start earlier
};

// Sums of a thread: 16 bits 64 x 64 a warp; f32 8 x 8, with a compensated second level.
template <class T> struct squares { float a[4][8][4]; };
template <> struct squares<float> { float a[8][8], total[8][8], lost[8][8]; };

// G (BLOCK x BLOCK) += A' B of a stage: A, B (DEPTH, BLOCK).
template <class T>
__device__ __forceinline__ void correlate(struct squares<T> &g, const unsigned char *A,
                                          const unsigned char *B)
{
    if constexpr (IS_16<T>) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const uint32_t a_at = hb_shared_address(A), b_at = hb_shared_address(B);
        const int pa = warp / 2 * 8 + lane / 8 % 2, pb = warp % 2 * 8 + lane / 16;
#pragma unroll
        for (int k = 0; k < DEPTH<T>; k += 16) {
            uint32_t a[4][4], b[4];
            const int ka = k + lane % 8 + lane / 16 * 8, kb = k + lane % 16;
#pragma unroll
            for (int i = 0; i < 4; i++)
                load_matrices<true>(a[i], a_at + place<T>(ka, 2 * BLOCK, pa + 2 * i));
#pragma unroll
            for (int j = 0; j < 8; j += 2) {
                load_matrices<true>(b, b_at + place<T>(kb, 2 * BLOCK, pb + j));
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    mma<T>(g.a[i][j], a[i], b[0], b[1]);
                    mma<T>(g.a[i][j + 1], a[i], b[2], b[3]);
                }
            }
        }
    } else {
        const float *a = (const float *)A + threadIdx.x / 16 * 4;
        const float *b = (const float *)B + threadIdx.x % 16 * 4;
#pragma unroll 4
        for (int k = 0; k < DEPTH<T>; k++) {
            const float4 a0 = *(const float4 *)(a + k * BLOCK);
            const float4 b0 = *(const float4 *)(b + k * BLOCK);
            const float4 a1 = *(const float4 *)(a + k * BLOCK + BLOCK / 2);
            const float4 b1 = *(const float4 *)(b + k * BLOCK + BLOCK / 2);
            const float x[8] = { a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w };
            const float z[8] = { b0.x, b0.y, b0.z, b0.w, b1.x, b1.y, b1.z, b1.w };
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int n = 0; n < 8; n++)
                    g.a[i][n] = fmaf(x[i], z[n], g.a[i][n]);
        }
    }
}

// G into shared memory, rows of PITCH.
__device__ __forceinline__ void spread(const struct squares<float> &g, float *G)
{
    G += threadIdx.x / 16 * 4 * PITCH + threadIdx.x % 16 * 4;
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            G[(i / 4 * 64 + i % 4) * PITCH + j / 4 * 64 + j % 4] = g.total[i][j];
}

// Grid (channels x blocks), block DH_THREADS, dynamic shared DH_SHARED. Block (c,q) makes
// part[c][q]: the sums of G_q along its diagonals. Pairs (b,n) are numbered b + B (n - q).
template <class T>
__global__ void __launch_bounds__(DH_THREADS<T>, IS_16<T> ? 2 : 1) outer(const struct dh_job j)
{
    extern __shared__ __align__(1024) unsigned char ring[];
    static_assert(STAGES * 2 * SIDE_BYTES<T> <= DH_SHARED);
    constexpr int PIECES = BLOCK / HB_VEC<T>, ROWS = DH_THREADS<T> / PIECES;
    const int q = blockIdx.x % j.blocks;
    const int64_t c = blockIdx.x / j.blocks;
    const int pairs = (j.blocks - q) * j.B, stages = (pairs + DEPTH<T> - 1) / DEPTH<T>;
    const int piece = threadIdx.x % PIECES;
    const T *const dys = (const T *)j.dy + c * j.sdy.c, *const us = (const T *)j.u + c * j.su.c;

    auto load = [&](int it) {
        unsigned char *const stage = ring + it % STAGES * 2 * SIDE_BYTES<T>;
        if (it < stages) {
#pragma unroll
            for (int row = threadIdx.x / PIECES; row < DEPTH<T>; row += ROWS) {
                const unsigned pair = it * DEPTH<T> + row, B = j.B;
                const int n = pair / B;
                const int64_t b = pair % B;
                const T *dy = dys + b * j.sdy.b, *u = us + b * j.su.b;
                const int from = j.shifted ? shift_of(u) : 0;
                const int end = pair < (unsigned)pairs ? j.L + from : 0;
                const int tu = n * BLOCK + piece * HB_VEC<T>, ty = tu + q * BLOCK;
                unsigned char *const to = stage + place<T>(row, BLOCK * (int)sizeof(T), piece);
                fetch<T>({ dy - from + ty, ty, from, end }, to, j.dy);
                fetch<T>({ u - from + tu, tu, from, end }, to + SIDE_BYTES<T>, j.dy);
            }
        }
        commit();
    };

    struct squares<T> g = {};
    // All j > i at q = 0 would be lags below 0: the warp above the diagonal has nothing to do.
    const bool idle = IS_16<T> && q == 0 && threadIdx.x / 32 == 1;
    for (int it = 0; it < STAGES - 1; it++)
        load(it);
    for (int it = 0; it < stages; it++) {
        arrived<STAGES - 2>();
        __syncthreads();
        load(it + STAGES - 1);
        const unsigned char *stage = ring + it % STAGES * 2 * SIDE_BYTES<T>;
        if (!idle) correlate<T>(g, stage, stage + SIDE_BYTES<T>);
        if constexpr (!IS_16<T>) {
            if (it % 2 == 0 && it + 1 < stages) continue;      // sums of 32 terms
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    add_exact(&g.total[i][n], &g.lost[i][n], g.a[i][n]);
                    g.a[i][n] = 0;
                }
        }
    }
    arrived<0>();
    __syncthreads();
    float *const part = j.part + (c * j.blocks + q) * LANES_DH;
    float *const G = (float *)ring;
    if constexpr (IS_16<T>) {
        static_assert(BLOCK == 128 && DH_THREADS<T> == 128);       // 2 x 2 warps
        float *const fold = G + threadIdx.x / 32 * FOLD<8>;
        fold_diagonals<8>(fold, fold, [&](int row, int column, int e) {
            return g.a[row / 2][column][row % 2 * 2 + e];
        });
        __syncthreads();
        for (int x = threadIdx.x; x < LANES_DH; x += DH_THREADS<T>) {
            float sum = 0;
            for (int w = 0; w < 4; w++) {
                const int at = x - BLOCK + 64 - 64 * (w / 2 - w % 2);
                if (at > 0 && at < 128) sum += G[w * FOLD<8> + at];
            }
            part[x] = sum;
        }
    } else {
        spread(g, G);
        __syncthreads();
        // Lag x and lag x - BLOCK together have BLOCK elements of G.
        for (int x = threadIdx.x; x < BLOCK; x += DH_THREADS<T>) {
            double high = 0, low = 0;
            for (int i = 0; i < BLOCK; i++)
                if (i >= x) high += (double)G[i * PITCH + i - x];
                else low += (double)G[i * PITCH + i - x + BLOCK];
            part[BLOCK + x] = (float)high;
            part[x] = (float)low;
        }
    }
}

// dh (D,L) += the parts of each lag; dd (D) += lag 0's.
__global__ void __launch_bounds__(THREADS) gather(float *dh, float *dd, const float *part,
                                                  int64_t n, int L, int blocks)
{
    const int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (at >= n) return;
    const int64_t c = at / L;
    const int s = (int)(at % L), q = s / BLOCK, x = s % BLOCK;
    const float *p = part + (c * blocks + q) * LANES_DH;
    float sum = p[BLOCK + x];
    if (x > 0 && q + 1 < blocks) sum += p[LANES_DH + x];       // G_{q+1}, lag x - BLOCK
    dh[at] += sum;
    if (dd && s == 0) dd[c] += sum;
}

} // namespace toeplitz

#endif
