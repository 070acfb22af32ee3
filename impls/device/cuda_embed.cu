// cuda_embed.cu: embedding on the CUDA device.
//
// Method    Forward: a warp per row. Backward: the rows are sorted by token, stably, so that a
//           token's rows lie together in order (a run). The sorted list is cut into pieces of 32; a
//           warp adds up the rows of its piece for some columns. A run inside one piece goes to dW
//           at once; of a run over several pieces each leaves a partial sum, and a second kernel
//           adds these in order. Nothing is added by two at a time, so the order is fixed.
// Cost      forward 2 R C elements; backward 2 R C elements read (once for the positions), the dW
//           rows that occur read and written, and the sort, about 6 small kernels.
// Source    sort: CUB (CUDA toolkit), DeviceRadixSort.
// Accuracy  float32 up to 32 rows one after the other, across pieces and positions in float64.
// Scratch   per row 16 bytes for the sort, C / 4 bytes for partial sums; more rows than fit are
//           taken in several parts, in order.
#include <cub/device/device_radix_sort.cuh>

#include "cuda.h"
#include "cuda_vec.cuh"

enum { WARPS = 8,                // per block
       PIECE = 32,               // sorted rows of a warp: one per lane to hold their keys
       AHEAD = 8,                // rows on their way at a time
       SORT_BYTES = 4 << 20 };   // for CUB's own use: less than 1 byte per row and 1 MiB

// A key: token in the high half, row (within the part) in the low. Sorted by the high half.
__device__ __forceinline__ int32_t token_of(uint64_t key) { return (int32_t)(key >> 32); }
__device__ __forceinline__ uint32_t row_of(uint64_t key) { return (uint32_t)key; }

// --- forward -------------------------------------------------------------------------------------

template <class T, int W>
static __global__ void __launch_bounds__(WARP *WARPS)
    embed(T *x, const T *table, const T *pos, const int32_t *tok, int64_t R, int64_t L, int64_t C)
{
    const int64_t r = (int64_t)blockIdx.x * WARPS + threadIdx.y;
    if (r >= R) return;
    const T *from = table + tok[r] * C, *add = pos ? pos + (r - quotient(r, L) * L) * C : NULL;
    #pragma unroll 4
    for (int64_t c = (int64_t)threadIdx.x * W; c < C; c += WARP * W) {
        float e[W];
        load_v(e, from + c);
        if (add) {
            float q[W];
            load_v(q, add + c);
            #pragma unroll
            for (int j = 0; j < W; j++) e[j] += q[j];
        }
        store_v(x + r * C + c, e);
    }
}

void cuda_embed_fwd(void *x, const void *W, const void *pos, const int32_t *tok, int64_t R,
                    int64_t L, int64_t C, struct hb_on on)
{
    if (R <= 0 || C <= 0) return;
    const unsigned grid = (unsigned)pieces(R, WARPS);
    const dim3 block(WARP, WARPS);
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        constexpr int V = HB_VEC<T>;
        T *to = (T *)x;
        const T *w = (const T *)W, *q = (const T *)pos;
        cudaStream_t s = (cudaStream_t)on.stream;
        if (C % V == 0 && on_16(x) && on_16(W) && on_16(pos))
            embed<T, V><<<grid, block, 0, s>>>(to, w, q, tok, R, L, C);
        else embed<T, 1><<<grid, block, 0, s>>>(to, w, q, tok, R, L, C);
    });
    cuda_launched("embed_fwd");
}

// --- gradient of the table -----------------------------------------------------------------------

static __global__ void make_keys(uint64_t *key, const int32_t *tok, int n)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) key[i] = (uint64_t)(uint32_t)tok[i] << 32 | (uint32_t)i;
}

// The partial sums of piece k: of a run that came in from piece k-1, of one that began here and
// goes on.
__device__ __forceinline__ float *part_of(float *part, int k, bool came_in, int64_t C)
{
    return part + ((int64_t)k * 2 + (came_in ? 0 : 1)) * C;
}

// Block (32, WARPS), grid (pieces, columns): a warp per piece and 32 W columns.
template <class T, int W>
static __global__ void __launch_bounds__(WARP *WARPS)
    add_rows(float *dW, float *part, const T *dx, const uint64_t *key, int n, int64_t C)
{
    const int piece = (int)(blockIdx.x * WARPS + threadIdx.y), i0 = piece * PIECE;
    if (i0 >= n) return;
    const int here = n - i0 < PIECE ? n - i0 : PIECE;
    const int64_t c = ((int64_t)blockIdx.y * WARP + threadIdx.x) * W;
    const bool mine = c < C;
    const uint64_t own = key[i0 + ((int)threadIdx.x < here ? (int)threadIdx.x : here - 1)];
    const int32_t before = i0 ? token_of(key[i0 - 1]) : -1;
    const int32_t after = i0 + here < n ? token_of(key[i0 + here]) : -1;
    bool came_in = before == token_of(__shfl_sync(~0u, own, 0));
    float sum[W] = {};
    for (int k0 = 0; k0 < here; k0 += AHEAD) {
        cuda_pack<T, W> rows[AHEAD];
        #pragma unroll
        for (int k = 0; k < AHEAD; k++) {        // beyond the last row: the last again, not added
            const int64_t row = row_of(__shfl_sync(~0u, own, k0 + k));
            if (mine) rows[k] = load_pack<W>(dx + row * C + c);
        }
        #pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (k0 + k >= here) break;
            const int32_t t = token_of(__shfl_sync(~0u, own, k0 + k));
            const int32_t next = k0 + k + 1 < here
                                     ? token_of(__shfl_sync(~0u, own, (k0 + k + 1) % WARP))
                                     : after;
            if (mine)
                #pragma unroll
                for (int j = 0; j < W; j++) sum[j] += hb_load(rows[k].x[j]);
            const bool last = k0 + k + 1 == here;
            if (next == t && !last) continue;
            if (mine) {                          // a run ends, here or in a later piece
                if (!came_in && next != t) add_f(dW + t * C + c, sum);
                else store_f(part_of(part, piece, came_in, C) + c, sum);
            }
            #pragma unroll
            for (int j = 0; j < W; j++) sum[j] = 0;
            came_in = false;
        }
    }
}

// The same grid. The piece in which a run begins that goes on adds up all its partial sums.
template <int W>
static __global__ void __launch_bounds__(WARP *WARPS)
    add_parts(float *dW, float *part, const uint64_t *key, int n, int64_t C)
{
    const int piece = (int)(blockIdx.x * WARPS + threadIdx.y), i0 = piece * PIECE;
    const int64_t c = ((int64_t)blockIdx.y * WARP + threadIdx.x) * W;
    if (i0 + PIECE >= n) return;                 // nothing goes on from the last piece
    const int32_t t = token_of(key[i0 + PIECE - 1]);
    if (token_of(key[i0 + PIECE]) != t) return;
    if (i0 && token_of(key[i0 - 1]) == t) return;        // it did not begin here: all of it is t
    double sum[W] = {};
    const bool mine = c < C;
    float e[W];
    if (mine) {
        load_f(e, part_of(part, piece, false, C) + c);
        #pragma unroll
        for (int j = 0; j < W; j++) sum[j] = (double)e[j];
    }
    for (int from = piece + 1, more = WARP; more == WARP; from += WARP) {
        const int64_t i = (int64_t)(from + (int)threadIdx.x) * PIECE;    // do they begin with t?
        more = __popc(__ballot_sync(~0u, i < n && token_of(key[i < n ? i : 0]) == t));
        #pragma unroll 4
        for (int k = 0; k < more; k++) {
            if (!mine) continue;
            load_f(e, part_of(part, from + k, true, C) + c);
            #pragma unroll
            for (int j = 0; j < W; j++) sum[j] += (double)e[j];
        }
    }
    if (!mine) return;
    #pragma unroll
    for (int j = 0; j < W; j++) e[j] = (float)sum[j];
    add_f(dW + t * C + c, e);
}

// --- gradient of the positions -------------------------------------------------------------------

// Block (32, WARPS), grid (positions, columns). dpos[t] += sum of dx[t], dx[t+L], ...
template <class T, int W>
static __global__ void __launch_bounds__(WARP *WARPS)
    add_positions(float *dpos, const T *dx, int64_t R, int64_t L, int64_t C)
{
    const int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.y;
    const int64_t c = ((int64_t)blockIdx.y * WARP + threadIdx.x) * W;
    if (t >= L || t >= R || c >= C) return;
    double sum[W] = {};
    #pragma unroll 4
    for (int64_t r = t; r < R; r += L) {
        float e[W];
        load_v(e, dx + r * C + c);
        #pragma unroll
        for (int j = 0; j < W; j++) sum[j] += (double)e[j];
    }
    float e[W];
    #pragma unroll
    for (int j = 0; j < W; j++) e[j] = (float)sum[j];
    add_f(dpos + t * C + c, e);
}

// --- launcher ------------------------------------------------------------------------------------

// dW += rows [0, n) of dx. The scratch block holds keys twice, CUB's bytes, partial sums.
template <class T, int W>
static void table_part(float *dW, const T *dx, const int32_t *tok, int n, int64_t C, int bits,
                       char *scratch, cudaStream_t s)
{
    uint64_t *key = (uint64_t *)(scratch + SORT_BYTES);
    const int64_t room = pieces(n, 32) * 32;             // keeps what follows on 256 bytes
    cub::DoubleBuffer<uint64_t> keys(key, key + room);
    float *part = (float *)(key + 2 * room);
    const dim3 block(WARP, WARPS);
    const dim3 grid((unsigned)pieces(pieces(n, PIECE), WARPS), (unsigned)pieces(C, WARP * W));
    make_keys<<<(unsigned)pieces(n, 256), 256, 0, s>>>(key, tok, n);
    size_t bytes = 0;
    cuda_note(cub::DeviceRadixSort::SortKeys(NULL, bytes, keys, n, 32, 32 + bits, s), "embed_bwd");
    if (bytes > SORT_BYTES) {
        cuda_note_text(HB_ERR_RUN, "embed_bwd", "the sort wants more scratch memory than planned");
        return;
    }
    cuda_note(cub::DeviceRadixSort::SortKeys(scratch, bytes, keys, n, 32, 32 + bits, s),
              "embed_bwd");
    add_rows<T, W><<<grid, block, 0, s>>>(dW, part, dx, keys.Current(), n, C);
    if (n > PIECE) add_parts<W><<<grid, block, 0, s>>>(dW, part, keys.Current(), n, C);
}

template <class T, int W>
static void embed_back(float *dW, float *dpos, const T *dx, const int32_t *tok, int64_t R,
                       int64_t L, int64_t C, int64_t V, cudaStream_t s)
{
    size_t bytes;
    char *scratch = (char *)cuda_scratch(&bytes, s);
    int bits = 1;
    while (bits < 31 && (int64_t)1 << bits < V) bits++;
    // A piece of rows needs 16 PIECE bytes of keys and 8 C of partial sums.
    const int64_t fit = ((int64_t)bytes - SORT_BYTES) / (16 * PIECE + 8 * C) * PIECE;
    const int64_t at_once = least(fit, 1 << 20);
    if (at_once <= 0) return cuda_note_text(HB_ERR_RUN, "embed_bwd", "too many columns");
    for (int64_t r = 0; r < R; r += at_once)
        table_part<T, W>(dW, dx + r * C, tok + r, (int)least(at_once, R - r), C, bits, scratch, s);
    if (dpos)
        add_positions<T, W><<<dim3((unsigned)pieces(L, WARPS), (unsigned)pieces(C, WARP * W)),
                              dim3(WARP, WARPS), 0, s>>>(dpos, dx, R, L, C);
}

void cuda_embed_bwd(float *dW, float *dpos, const void *dx, const int32_t *tok, int64_t R,
                    int64_t L, int64_t C, int64_t V, struct hb_on on)
{
    if (R <= 0 || C <= 0) return;
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        constexpr int W = HB_VEC<T>;
        cudaStream_t s = (cudaStream_t)on.stream;
        if (C % W == 0 && on_16(dx) && on_16(dW) && on_16(dpos))
            embed_back<T, W>(dW, dpos, (const T *)dx, tok, R, L, C, V, s);
        else embed_back<T, 1>(dW, dpos, (const T *)dx, tok, R, L, C, V, s);
    });
    cuda_launched("embed_bwd");
}
