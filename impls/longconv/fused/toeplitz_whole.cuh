// toeplitz_whole.cuh: y and du of short rows by definition, rows whole in shared memory, Hopper.
//
// A block has one channel and ROWS of the batch. It builds the window of the channel's filter
// itself, while its rows arrive: one launch, h is read once.
//     Y_n = sum_k U_k T_{n-k}   k <= n < blocks of STEP samples     (adjoint: T'_{k-n}, k >= n)
// as wgmma m64nROWSk16 of T' (fragments in registers, 9 words a product) and U (in shared memory),
// without barriers between products. The skip term is in h[0]. Y_n takes the place of U_n, which
// nobody needs any more (late n first; adjoint: early n first), and whole rows go from there to
// memory. A block has no pipeline from memory: three to six of them on an SM are one.
//
// What bounds toeplitz.cuh at L <= 1024, f16, B = 64, D = 768, and what this should bring.
// Predictions; measured so far, cold: 0.0257 0.0317 0.0661 0.1676 ms at L = 128 256 512 1024,
// where 4 bytes a sample take 0.0075 0.015 0.030 0.060.
//   two launches, the second waits for the first                          -3 us at every L
//   two blocks an SM, which wait for memory, compute, store: now all blocks of L <= 256 are on
//     the SMs at once, at 512 half of them                                -6, -4, -10 us, -20
//   a barrier, a wait for the tensor cores and for 9 words a stage of 64; the skip term, 64 reads
//     of 2 bytes                                                          -1, -2, -10, -40 us
// hence 0.015, 0.023, 0.042, 0.105 ms. Tensor cores at 600 TFLOP/s need 0.003 0.007 0.024 0.091.
//
// Gates (hb_conv_gates) would come in where rows are in shared memory: behind `arrived`, each
// thread turns its pieces u into tap(u) tap(pre), both rows fetched (twice the shared memory: L =
// 512 has one block an SM then, so 32 rows), the K - 1 samples before a piece from the piece
// before (other threads': a barrier, and write behind it); before `put` it multiplies with
// tap(post), read from memory by the same thread, in float32. The tiles cannot: the outputs of
// 256 samples read the inputs of all earlier ones, the gates would be applied up to L / 256 times.
#ifndef HB_TOEPLITZ_WHOLE_CUH
#define HB_TOEPLITZ_WHOLE_CUH

#include "toeplitz_pieces.cuh"

namespace toeplitz {

enum { WHOLE_THREADS = 128 };             // four warps: a wgmma is theirs together

// Strides in elements.
struct whole_job {
    const void *in;  struct hb_strides si;
    void *out;       struct hb_strides so;
    const float *h, *d;                   // (D,L); (D) or NULL
    int B, L, batch_tiles;
    int blocks;                           // of STEP samples
};

template <int ROWS> constexpr int WHOLE_TILE = ROWS * STEP * 2;
// Window: lags of `blocks` STEP, and STEP - 1 more; 64 bytes between two copies: even and odd lanes
// then read from different banks.
__host__ __device__ constexpr int whole_copy(int blocks) { return 2 * STEP * (blocks + 1) + 64; }
template <class T, int ROWS> constexpr int whole_shared(int blocks)
{
    return blocks * WHOLE_TILE<ROWS> + COPIES<T> * TERMS<T> * whole_copy(blocks)
           + WHOLE_THREADS / 32 * (int)sizeof(float);
}

// Row b of channel c in the time that starts at a 16-byte boundary: samples [from, end) are its
// own.
template <class T> struct whole_row { const T *in; T *out; int from, end; };

template <class T>
__device__ __forceinline__ struct whole_row<T> whole_row_of(const struct whole_job &j, int64_t c,
                                                            int64_t b)
{
    if (b >= j.B) return { (const T *)j.in, (T *)j.out, 0, 0 };
    const T *in = (const T *)j.in + b * j.si.b + c * j.si.c;
    const int from = shift_of(in);
    return { in - from, (T *)j.out + b * j.so.b + c * j.so.c - from, from, j.L + from };
}

// Calls f(row, t, where) for 16 bytes each of the rows in shared memory: eight threads have 128
// bytes of a row, a warp four rows.
template <class T, int ROWS, class F>
__device__ __forceinline__ void whole_pieces(unsigned char *rows, const struct whole_job &j,
                                             int64_t c, int64_t b0, F f)
{
    const int p = threadIdx.x % 8;
#pragma unroll
    for (int row = threadIdx.x / 8; row < ROWS; row += WHOLE_THREADS / 8) {
        const struct whole_row<T> r = whole_row_of<T>(j, c, b0 + row);
        unsigned char *where = rows + place<T>(row, 128, p);
        for (int t = 8 * p; t < j.blocks * STEP; t += STEP, where += WHOLE_TILE<ROWS>)
            f(r, t, where);
    }
}

// 64 times of ROWS rows in a warp's registers, to the tile of the same times.
template <class T, int ROWS>
__device__ __forceinline__ void whole_keep(unsigned char *tile, const float (&y)[ROWS / 2],
                                           float scale)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int r = 0; r < ROWS / 8; r += 2) {
        uint32_t pair[4];                      // rows 8 r .., early and late times; 8 rows on
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float *a = y + 4 * r + 2 * e;
            const T two[2] = { hb_store<T>(a[0] * scale), hb_store<T>(a[1] * scale) };
            memcpy(&pair[e], two, sizeof two);
        }
        const int row = 8 * (r + lane / 16) + lane % 8, piece = 2 * warp + lane / 8 % 2;
        store_matrices(hb_shared_address(tile) + place<T>(row, 128, piece), pair);
    }
}

// y += T U_k of 64 inputs; word: this lane's of the window, [4 m]: 8 m further from output to
// input.
template <class T, int ROWS>
__device__ __forceinline__ void whole_product(float (&y)[ROWS / 2], const uint32_t *word,
                                              uint64_t tile)
{
    uint32_t tap[9];
#pragma unroll
    for (int m = 0; m < 9; m++)
        tap[m] = word[4 * m];
    wgmma_begin();
#pragma unroll
    for (int s = 0; s < STEP / 16; s++)
        wgmma<T>(y, tap[2 * s + 1], tap[2 * s], tap[2 * s + 2], tile + 2 * s);
    wgmma_commit();
}

// Grid (channels x batch_tiles), dynamic shared whole_shared. DEEP: two products under way in a
// block, room for four blocks on an SM; else one, and six. Registers (nvcc 13.0): 106; 75.
template <class T, bool ADJOINT, int ROWS, bool DEEP>
__global__ void __launch_bounds__(WHOLE_THREADS, DEEP ? 4 : 6) whole(const struct whole_job j)
{
    extern __shared__ __align__(1024) unsigned char ring[];
    const int64_t c = blockIdx.x / j.batch_tiles, b0 = blockIdx.x % j.batch_tiles * (int64_t)ROWS;
    const void *const any = (const void *)((uintptr_t)j.in & ~(uintptr_t)15);
    whole_pieces<T, ROWS>(ring, j, c, b0, [&](const struct whole_row<T> &r, int t, void *where) {
        fetch<T>({ r.in + t, t, r.from, r.end }, where, any);
    });
    commit();
    unsigned char *const window = ring + j.blocks * WHOLE_TILE<ROWS>;
    const int copy = whole_copy(j.blocks), origin = ADJOINT ? STEP : STEP * j.blocks;
    const float undo = make_window<T, ADJOINT>((T *)window, copy / 2, j.h + c * j.L,
                                               j.d ? j.d[c] : 0.0f, j.L, STEP * (j.blocks + 1),
                                               origin, (float *)(window + COPIES<T> * TERMS<T>
                                                                          * copy)).y;
    arrived<0>();
    publish();
    __syncthreads();

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, odd = g & 1;
    const uint32_t *const own = (const uint32_t *)(window + odd * copy)
                                + (origin - 16 * warp - 8 - g - odd) / 2 + lane % 4;
    const uint64_t tile = tile_of(ring);
    for (int i = 0; i < j.blocks; i++) {
        const int n = ADJOINT ? i : j.blocks - 1 - i;
        const int k0 = ADJOINT ? n : 0, products = TERMS<T> * (ADJOINT ? j.blocks - n : n + 1);
        float y[ROWS / 2] = {};
        auto product = [&](int x) {
            const int k = k0 + x / TERMS<T>, term = x % TERMS<T>;
            whole_product<T, ROWS>(y, own + STEP / 2 * (k - n) + term * copy / 2,
                                   tile + k * (WHOLE_TILE<ROWS> / 16));
        };
        if constexpr (DEEP) {      // registers of one are filled while the other multiplies
            product(0);
#pragma unroll 1
            for (int x = 1; x < products; x += 2) {
                product(x);
                wgmma_done<1>();
                if (x + 1 == products) break;
                product(x + 1);
                wgmma_done<1>();
            }
            wgmma_done<0>();
        } else {
#pragma unroll 1
            for (int x = 0; x < products; x++) {
                product(x);
                wgmma_done<0>();
            }
        }
        __syncthreads();                       // nobody reads U_n any more
        whole_keep<T, ROWS>(ring + n * WHOLE_TILE<ROWS>, y, undo);
    }
    __syncthreads();
    whole_pieces<T, ROWS>(ring, j, c, b0, [&](const struct whole_row<T> &r, int t, void *where) {
        if (t < r.end) put<T>(r.out + t, t, r.from, r.end, *(const struct hb_vec<T> *)where);
    });
}

} // namespace toeplitz

#endif
