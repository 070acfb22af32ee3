// toeplitz_whole_dh.cuh: dh of short rows by definition, rows whole in shared memory; 16 bits.
//
// A block has one channel at a time, all lags of it. Blocks of STEP samples:
//     G_q = sum_{b,n} DY_{b,n} U_{b,n-q}'   (64 x 64, tensor cores)
// dh[64 q + x] is the diagonal i - j = x of G_q and i - j = x - 64 of G_{q+1}. A warp has one G_q
// in registers; eight of them are a pass. Warps on one scheduler get a long sum (small q) and a
// short one. Where eight are not needed, `slices` groups of warps share the batch. Each pass reads
// the dy that have its lags and the u that are so much earlier than one. Stages of 16 `slices` rows
// go through a ring that runs on into the next pass and the next channel; there are no partial
// sums in device memory. 224 registers (nvcc 13.0), one block an SM.
// Diagonals: a fragment's elements have lags 8 m + (lane's): 15 m are summed in registers, then
// eight numbers a lag in shared memory, always in the same order.
//
// Why, with toeplitz_dh.cuh at B = 64, D = 768, f16 (backward less forward, measured): 0.029 0.067
// 0.167 0.461 ms at L = 128 256 512 1024. Its lag blocks of 128 read dy and u L / 256 times (1024:
// 0.9 GB through L2, 0.18 ms); the sums of its diagonals were 128 dependent reads of shared memory
// in float64 a block (about 4 us of each; folded as here since); at L = 128 half of the tensor
// cores' work is not needed. The triangle itself wastes little: (L + 128) / L. Predicted here:
// 0.018, 0.028, 0.050, 0.145 ms; reading takes 0.008 0.017 0.033 0.067 (1024: half of it again),
// tensor cores at 400 TFLOP/s 0.003 0.010 0.036 0.137.
#ifndef HB_TOEPLITZ_WHOLE_DH_CUH
#define HB_TOEPLITZ_WHOLE_DH_CUH

#include "toeplitz_pieces.cuh"

namespace toeplitz {

enum {
    WHOLE_DH_WARPS = 8,
    WHOLE_DH_THREADS = 32 * WHOLE_DH_WARPS,
};

struct whole_dh_job {
    const void *dy;  struct hb_strides sdy;
    const void *u;   struct hb_strides su;
    float *dh, *dd;            // (D,L); (D) or NULL
    int B, L, D;
    int blocks;                // of STEP samples
    int slices, stages;
    bool shifted;              // rows of dy and u have the same alignment: both may start earlier
};

static inline int whole_dh_slices(int blocks)
{
    return blocks > 4 ? 1 : blocks > 2 ? 2 : blocks > 1 ? 4 : 8;
}

// Bytes of a tile (16 rows a slice by STEP samples); of a stage: that of dy and that of u.
__host__ __device__ constexpr int whole_dh_tile(int slices) { return slices * 16 * STEP * 2; }
__host__ __device__ constexpr int whole_dh_stage(int blocks, int slices)
{
    return 2 * blocks * whole_dh_tile(slices);
}
static inline int whole_dh_shared(int blocks, int slices, int stages)
{
    return stages * whole_dh_stage(blocks, slices) + WHOLE_DH_WARPS * FOLD * (int)sizeof(float);
}

// g (64 x 64) += a' b of 16 rows; a, b: addresses of 16 rows of 128 bytes, as `place` has them.
template <class T>
__device__ __forceinline__ void correlate_16(float (&g)[4][8][4], uint32_t a, uint32_t b)
{
    const int lane = threadIdx.x % 32;
    const int ra = lane % 8 + lane / 16 * 8, pa = lane / 8 % 2, rb = lane % 16, pb = lane / 16;
    uint32_t x[4][4], z[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        load_matrices<true>(x[i], a + place<T>(ra, 2 * STEP, pa + 2 * i));
        load_matrices<true>(z[i], b + place<T>(rb, 2 * STEP, pb + 2 * i));
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            mma<T>(g[i][j], x[i], z[j / 2][j % 2 * 2], z[j / 2][j % 2 * 2 + 1]);
}

// Warp of a slice that has lag block i of a pass; `share` = 8 / slices of them.
__device__ __forceinline__ int whole_dh_warp(int i, int slice, int share)
{
    if (share == WHOLE_DH_WARPS) return i < 4 ? i : 11 - i;
    const int first = slice * share;
    return first + (first < 4 ? i : share - 1 - i);
}

// What is loaded next: 16 slices rows of a pass of a channel.
struct whole_dh_step { int64_t c; int pass, chunk, slot; };

template <class T>
__device__ __forceinline__ void load_whole_dh(const struct whole_dh_job &j,
                                              const struct whole_dh_step &s, unsigned char *ring)
{
    const int rows = 16 * j.slices, share = WHOLE_DH_THREADS / rows;     // threads of a row
    const int row = threadIdx.x / share, early = s.pass * WHOLE_DH_WARPS * STEP;
    const int tile = whole_dh_tile(j.slices);
    const int64_t b = (int64_t)s.chunk * rows + row;
    const T *const dy = (const T *)j.dy + b * j.sdy.b + s.c * j.sdy.c;
    const T *const u = (const T *)j.u + b * j.su.b + s.c * j.su.c;
    const int from = j.shifted ? shift_of(u) : 0, end = b < j.B ? j.L + from : 0;
    const void *const any = (const void *)((uintptr_t)j.dy & ~(uintptr_t)15);
    unsigned char *const stage = ring + s.slot * whole_dh_stage(j.blocks, j.slices);
    for (int p = threadIdx.x % share; 8 * p < j.blocks * STEP - early; p += share) {
        const int t = 8 * p, ty = t + early;
        unsigned char *const to = stage + p / 8 * tile + place<T>(row, 2 * STEP, p % 8);
        fetch<T>({ dy - from + ty, ty, from, end }, to, any);
        fetch<T>({ u - from + t, t, from, end }, to + j.blocks * tile, any);
    }
}

// Grid: at most D blocks, as many as run at a time; dynamic shared whole_dh_shared.
template <class T>
__global__ void __launch_bounds__(WHOLE_DH_THREADS, 1) outer_whole(const struct whole_dh_job j)
{
    extern __shared__ __align__(1024) unsigned char ring[];
    const int tile = whole_dh_tile(j.slices), stage = whole_dh_stage(j.blocks, j.slices);
    float *const folds = (float *)(ring + j.stages * stage);
    const int chunks = (j.B + 16 * j.slices - 1) / (16 * j.slices);
    const int passes = (j.blocks + WHOLE_DH_WARPS - 1) / WHOLE_DH_WARPS;
    const int share = WHOLE_DH_WARPS / j.slices, warp = threadIdx.x / 32, slice = warp / share;
    int own = 0;                                           // its lag block of a pass
    while (whole_dh_warp(own, slice, share) != warp) own++;

    struct whole_dh_step next = { blockIdx.x, 0, 0, 0 };
    auto load = [&]() {
        if (next.c < j.D) {
            load_whole_dh<T>(j, next, ring);
            if (++next.chunk == chunks) {
                next.chunk = 0;
                if (++next.pass == passes) {
                    next.pass = 0;
                    next.c += gridDim.x;
                }
            }
            next.slot = next.slot + 1 == j.stages ? 0 : next.slot + 1;
        }
        commit();
    };
    for (int i = 1; i < j.stages; i++)
        load();
    int slot = 0;
    for (int64_t c = blockIdx.x; c < j.D; c += gridDim.x)
        for (int pass = 0; pass < passes; pass++) {
            const int tiles = j.blocks - pass * WHOLE_DH_WARPS;          // of dy and of u
            float g[4][8][4] = {};
            for (int chunk = 0; chunk < chunks; chunk++) {
                if (j.stages == 4) arrived<2>();
                else if (j.stages == 3) arrived<1>();
                else arrived<0>();
                __syncthreads();
                load();
                const uint32_t dy = hb_shared_address(ring) + slot * stage + slice * 16 * STEP * 2;
                const uint32_t u = dy + j.blocks * tile;
                for (int n = own; n < tiles; n++)
                    correlate_16<T>(g, dy + n * tile, u + (n - own) * tile);
                slot = slot + 1 == j.stages ? 0 : slot + 1;
            }
            fold_diagonals(folds + warp * FOLD, g);
            __syncthreads();
            const int first = pass * WHOLE_DH_WARPS, last = first + share;
            for (int s = max(0, STEP * (first - 1)) + threadIdx.x; s < min(j.L, STEP * last);
                 s += WHOLE_DH_THREADS) {
                const int q = s / STEP, x = s % STEP;
                float sum = 0;
                for (int i = 0; i < j.slices; i++) {
                    const int at = whole_dh_warp(q - first, i, share);
                    const int above = whole_dh_warp(q + 1 - first, i, share);
                    if (q >= first) sum += folds[at * FOLD + 64 + x];
                    if (q + 1 < last) sum += folds[above * FOLD + x];
                }
                j.dh[c * j.L + s] += sum;
                if (j.dd && s == 0) j.dd[c] += sum;
            }
        }
}

} // namespace toeplitz

#endif
