// toeplitz_whole.cuh: y and du of short rows by definition, rows whole in shared memory, Hopper.
//
// A block has one channel and ROWS of the batch. It builds the window of the channel's filter
// itself, while its rows arrive: one launch, h is read once.
//     Y_n = sum_q U_{n-q} T_q   q <= n < blocks of STEP samples     (adjoint: U_{n+q} T'_q)
// as wgmma m64n(M ROWS)k16 of T' (fragments in registers, 9 words) and U (in shared memory). The
// tiles of the blocks lie one behind the other, the last one first (adjoint: the first one), so
// that the input at lag q of the block at place n is at place n + q, and what a fragment of T_q is
// multiplied with are the columns of SPAN neighbours, 128 of them, in 64 registers: results at n ..
// n + SPAN - 1 += inputs at n + q .. ; at the ends, where only M of these exist, the first M ROWS
// columns. (So the columns always start at the first register: others the compiler would not let
// run asynchronously.) No barriers between products. The skip term is in h[0]. Results take the
// places of the inputs of their group, which nobody needs any more, and whole rows go from there to
// memory. A block has no pipeline from memory: two to six of them on an SM are one. But blocks that
// start together load together, multiply together and store together, and so do those that follow
// them: then the times of memory and of the tensor cores add. So of the first `staggered` blocks,
// which all start at once, those that are an SM's second, third .. (there are `processors`) wait,
// `delay` ns more each: what it takes to load the rows of the one before.
// bf16 is turned into halves where it lies, exactly: each row times the power of two that takes its
// largest to 2^15 (what is below 2^-39 of that is rounded), undone in float32 at the end. So h has
// one term of 11 bits in both types.
// Rows that do not start at a 16-byte boundary: their time starts at the one before, what came
// along is blanked.
//
// Cost: a block of 16 STEPs and 32 rows is 34 products of 128 columns, 8704 cycles of the tensor
// cores; L1 has 4 KB a product of 64 cycles. Measured before (one Y_n at a time, 32 columns, 136
// products a block; f16, B = 64, D = 768, cold): .0132 .0238 .0580 .1708 ms at L = 128 256 512
// 1024; profile at 1024: 33 % of the warps' time before the first product (20 % the largest tap,
// read one load after the other: now 8 at a time), 52 % products (35 % of the tensor cores), 15 %
// stores.
// Predicted, then measured without stagger: .045 at 512, .100 at 1024, .33 at 2048; .0511 .1252
// .3755. Memory takes .034 .067 .135, tensor cores (1.98 GHz) .014 .051 .199: about the sum. With
// stagger a simulation of an SM (.055 .130 .344 without) has .038 .090 .227; predicted .042 .095
// .27.
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
    unsigned staggered, processors, delay;   // below
};

template <int ROWS> constexpr int WHOLE_TILE = ROWS * STEP * 2;
// Blocks of STEP samples in a product; blocks on an SM that there are registers for (nvcc 13.0: 74,
// 106, 138). 64 rows are for so few samples that memory is all that counts. 16 rows are for long
// ones: the words of one product are read while the other runs.
template <int ROWS> constexpr int WHOLE_SPAN = ROWS == 64 ? 1 : 128 / ROWS;
template <int ROWS> constexpr int WHOLE_BLOCKS = ROWS == 64 ? 6 : ROWS == 32 ? 4 : 3;
template <int ROWS> constexpr int WHOLE_DEEP = ROWS == 16;

// Window: lags of `blocks` STEP, and STEP - 1 more; 64 bytes between two copies: even and odd lanes
// then read from different banks.
__host__ __device__ constexpr int whole_copy(int blocks) { return 2 * STEP * (blocks + 1) + 64; }
// Rows, window, a float for each warp and one for each row.
template <int ROWS> constexpr int whole_shared(int blocks)
{
    return blocks * WHOLE_TILE<ROWS> + COPIES<__half> * whole_copy(blocks)
           + (WHOLE_THREADS / 32 + ROWS) * (int)sizeof(float);
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

// Calls f(row, where) for the rows of which this thread has 16 bytes in each tile:
// eight threads have 128 bytes of a row, a warp four rows.
template <class T, int ROWS, class F>
__device__ __forceinline__ void whole_rows(unsigned char *rows, F f)
{
#pragma unroll
    for (int row = threadIdx.x / 8; row < ROWS; row += WHOLE_THREADS / 8)
        f(row, rows + place<T>(row, 128, threadIdx.x % 8));
}

// Calls f(row, t, where) for each 16 bytes of them, block after block. Forward: the last first.
template <class T, bool ADJOINT, int ROWS, class F>
__device__ __forceinline__ void whole_pieces(unsigned char *rows, const struct whole_job &j,
                                             int64_t c, int64_t b0, F f)
{
    whole_rows<T, ROWS>(rows, [&](int row, unsigned char *where) {
        const struct whole_row<T> r = whole_row_of<T>(j, c, b0 + row);
        if (!ADJOINT) where += (j.blocks - 1) * WHOLE_TILE<ROWS>;
        for (int t = threadIdx.x % 8 * 8; t < j.blocks * STEP; t += STEP) {
            f(r, t, where);
            where += ADJOINT ? WHOLE_TILE<ROWS> : -WHOLE_TILE<ROWS>;
        }
    });
}

// bf16: the thread's pieces of a row become halves; undo: what takes the row's scale out again.
template <int TILE>
__device__ __forceinline__ void whole_halves(unsigned char *where, int blocks, float *undo)
{
    float top = 0;
    for (int n = 0; n < blocks; n++) {
        const hb_vec<__nv_bfloat16> v = *(const hb_vec<__nv_bfloat16> *)(where + n * TILE);
#pragma unroll
        for (int i = 0; i < 8; i++)
            top = fmaxf(top, fabsf(hb_load(v.x[i])));
    }
    for (int w = 1; w < 8; w *= 2)
        top = fmaxf(top, __shfl_xor_sync(~0u, top, w));
    const float scale = hb_fused_scale(top, 15);
    if (threadIdx.x % 8 == 0) *undo = 1 / scale;
    for (int n = 0; n < blocks; n++) {
        const hb_vec<__nv_bfloat16> v = *(const hb_vec<__nv_bfloat16> *)(where + n * TILE);
        hb_vec<__half> half;
#pragma unroll
        for (int i = 0; i < 8; i++)
            half.x[i] = hb_store<__half>(hb_load(v.x[i]) * scale);
        *(hb_vec<__half> *)(where + n * TILE) = half;
    }
}

// Makes of this thread's pieces, which have arrived, what the products read.
template <class T, bool ADJOINT, int ROWS>
__device__ __forceinline__ void whole_ready(unsigned char *rows, const struct whole_job &j,
                                            int64_t c, int64_t b0, float *undo)
{
    whole_rows<T, ROWS>(rows, [&](int row, unsigned char *where) {
        if (threadIdx.x % 8 == 0)
            blank<T>(where + (ADJOINT ? 0 : j.blocks - 1) * WHOLE_TILE<ROWS>,
                     whole_row_of<T>(j, c, b0 + row).from);
        if constexpr (!IS_HALF<T>) whole_halves<WHOLE_TILE<ROWS>>(where, j.blocks, undo + row);
    });
}

// 64 times of ROWS rows in a warp's registers from y on, to the tile of the same times.
template <class T, int ROWS>
__device__ __forceinline__ void whole_keep(unsigned char *tile, const float *y, float scale,
                                           const float *undo)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int r = 0; r < ROWS / 8; r += 2) {
        uint32_t pair[4];                      // rows 8 r .., early and late times; 8 rows on
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float *a = y + 4 * r + 2 * e;
            float2 by = make_float2(scale, scale);
            if constexpr (!IS_HALF<T>) {
                const float2 row = *(const float2 *)(undo + 8 * (r + e / 2) + lane % 4 * 2);
                by = make_float2(scale * row.x, scale * row.y);
            }
            const T two[2] = { hb_store<T>(a[0] * by.x), hb_store<T>(a[1] * by.y) };
            memcpy(&pair[e], two, sizeof two);
        }
        const int row = 8 * (r + lane / 16) + lane % 8, piece = 2 * warp + lane / 8 % 2;
        store_matrices(hb_shared_address(tile) + place<T>(row, 128, piece), pair);
    }
}

// What the products of the group at places n .. n + SPAN - 1 read.
struct whole_group {
    const uint32_t *word;      // window, this lane's at lag 0; [4 m]: 8 m from output to input
    int step;                  // from there to the next lag block
    uint64_t tile;             // place 0
    int n, places;
};

// y of the group's first M blocks += that of lag q.
template <int ROWS, int M, int DEEP, int SUMS>
__device__ __forceinline__ void whole_product(float (&y)[SUMS], const struct whole_group &g, int q)
{
    const uint64_t tile = g.tile + (g.n + q) * (WHOLE_TILE<ROWS> / 16);
    const uint32_t *const word = g.word + q * g.step;
    uint32_t tap[9];
#pragma unroll
    for (int m = 0; m < 9; m++)
        tap[m] = word[4 * m];
    wgmma_begin();
#pragma unroll
    for (int s = 0; s < STEP / 16; s++)
        wgmma<__half, M * ROWS / 2>(y, tap[2 * s + 1], tap[2 * s], tap[2 * s + 2], tile + 2 * s);
    wgmma_commit();
    wgmma_done<DEEP>();
}

// The lag for which M blocks of the group have inputs, then that for M - 1, ..
template <int ROWS, int M, int SUMS>
__device__ __forceinline__ void whole_ends(float (&y)[SUMS], const struct whole_group &g)
{
    if constexpr (M > 0) {
        const int q = g.places - g.n - M;
        if (q >= 0) whole_product<ROWS, M, 0>(y, g, q);
        whole_ends<ROWS, M - 1>(y, g);
    }
}

template <int ROWS, int SUMS>
__device__ __forceinline__ void whole_products(float (&y)[SUMS], const struct whole_group &g)
{
    constexpr int SPAN = WHOLE_SPAN<ROWS>;
    const int full = g.places - g.n - SPAN + 1;            // lags of all its blocks
    int q = 0;
#pragma unroll 1
    for (; q + 1 < full; q += 2) {                         // deep: each has its registers
        whole_product<ROWS, SPAN, WHOLE_DEEP<ROWS>>(y, g, q);
        whole_product<ROWS, SPAN, WHOLE_DEEP<ROWS>>(y, g, q + 1);
    }
    if (q < full) whole_product<ROWS, SPAN, WHOLE_DEEP<ROWS>>(y, g, q);
    wgmma_done<0>();
    whole_ends<ROWS, SPAN - 1>(y, g);
}

// Grid (channels x batch_tiles), dynamic shared whole_shared.
template <class T, bool ADJOINT, int ROWS>
__global__ void __launch_bounds__(WHOLE_THREADS, WHOLE_BLOCKS<ROWS>) whole(const struct whole_job j)
{
    extern __shared__ __align__(1024) unsigned char ring[];
    constexpr int SPAN = WHOLE_SPAN<ROWS>;
    if (blockIdx.x < j.staggered) __nanosleep(blockIdx.x / j.processors * j.delay);
    const int64_t c = blockIdx.x / j.batch_tiles, b0 = blockIdx.x % j.batch_tiles * (int64_t)ROWS;
    const void *const any = (const void *)((uintptr_t)j.in & ~(uintptr_t)15);
    whole_pieces<T, ADJOINT, ROWS>(ring, j, c, b0, [&](const whole_row<T> &r, int t, void *where) {
        fetch_aligned<T>({ r.in + t, t, r.from, r.end }, where, any);
    });
    commit();
    unsigned char *const window = ring + j.blocks * WHOLE_TILE<ROWS>;
    const int copy = whole_copy(j.blocks), origin = ADJOINT ? STEP : STEP * j.blocks;
    float *const tops = (float *)(window + COPIES<__half> * copy);
    float *const undo = tops + WHOLE_THREADS / 32;
    const float scale = make_window<__half, ADJOINT>((__half *)window, copy / 2, j.h + c * j.L,
                                                     j.d ? j.d[c] : 0.0f, j.L,
                                                     STEP * (j.blocks + 1), origin, tops).y;
    arrived<0>();
    whole_ready<T, ADJOINT, ROWS>(ring, j, c, b0, undo);
    publish();
    __syncthreads();

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, odd = g & 1;
    struct whole_group group = {
        (const uint32_t *)(window + odd * copy) + (origin - 16 * warp - 8 - g - odd) / 2 + lane % 4,
        (ADJOINT ? STEP : -STEP) / 2, tile_of(ring), 0, j.blocks
    };
    for (; group.n < group.places; group.n += SPAN) {
        float y[SPAN * ROWS / 2] = {};
        whole_products<ROWS>(y, group);
        __syncthreads();                       // nobody reads this group's inputs any more
#pragma unroll
        for (int m = 0; m < SPAN; m++)
            if (group.n + m < group.places)
                whole_keep<T, ROWS>(ring + (group.n + m) * WHOLE_TILE<ROWS>, y + m * (ROWS / 2),
                                    scale, undo);
    }
    __syncthreads();
    whole_pieces<T, ADJOINT, ROWS>(ring, j, c, b0, [&](const whole_row<T> &r, int t, void *where) {
        if (t < r.end) put<T>(r.out + t, t, r.from, r.end, *(const struct hb_vec<T> *)where);
    });
}

} // namespace toeplitz

#endif
