// parts.cuh: how large rows of signals are, before they go through columns.cuh, CUDA.
//     exponents of rows, gains of filters, sums of products of pairs of signals
// Method    A block reads a piece of a row, 16 bytes a load where rows are aligned, as large as
//           leaves enough blocks for one wave (ends of blocks are half of the time of small ones);
//           and leaves its largest |x| and its sum |x|; of a pair of signals both and the sum of
//           x y. A channel's last block (an integer counter says which) puts all pieces together:
//           always in the same order, no float atomics.
// Cost      2 bytes a sample of device memory, which columns_in then finds in L2.
#ifndef HB_FUSED_PARTS_CUH
#define HB_FUSED_PARTS_CUH

#include <type_traits>

#include "launch.cuh"
#include "signals.cuh"

enum {
    COLUMN_PIECE = 8192,                 // samples that a block reads at once; it has a multiple
    COLUMN_BLOCKS = 1024,                // that run at once: 8 an SM
};

// Rows i = 0 .. of a chunk: channel i / batch, batch entry i % batch, counted from x. Strides in
// elements.
struct column_rows {
    void *x;
    struct hb_strides sx;
    int batch, L;
    __half *mid;                         // (R1, 2, N2) of row 0
    int64_t apart;                       // halves from one row of mid to the next
    float *scale;                        // (rows): the power of two that x goes in with, without
                                         // HB_MID_TOP; column_parts writes it
    float *boost;                        // (rows), column_parts, columns_out undoes it; or NULL
};

// Of a piece of a row, or of a pair of rows.
struct column_part { float top[2], sum[2], dot; };

// What column_parts is to find out. y, bound, dd: pairs only; gain ..: filters (float) only.
struct column_survey {
    struct column_rows x, y;             // y: as many rows as x, of the same length
    int piece, pieces;                   // samples of one, and of a row: launch_parts
    struct column_part *part;            // (rows, column_pieces)
    unsigned *count;                     // (channels), 0 before and after
    float N;                             // points of the transform
    const float *length;                 // (channels) of the filters: where there is a boost
    float *gain, *back, *own_length;     // (channels): for the spectrum, for columns_out, `length`
    float *bound;                        // (channels) (+)= of conj(X) Y: column_put_together
    float *dd;                           // (channels) += sum_b sum_n x y, or NULL
    bool start;                          // bound =, not +=
    bool early;                          // launch_next; x and y are not written by the one before
};

// --- a piece -----------------------------------------------------------------------------------
// What a thread has seen of one signal: words of two samples, or of one float.
template <class T> struct column_seen { uint32_t top; float sum; };

template <class T>
__device__ __forceinline__ void column_see(struct column_seen<T> &s, uint32_t w)
{
    if constexpr (sizeof(T) == 4) {
        s.top = max(s.top, w & 0x7fffffffu);
        s.sum += fabsf(__uint_as_float(w));
    } else {
        s.top = __vmaxu2(s.top, w & 0x7fff7fffu);
        const float2 x = hb_two<T>(w);
        s.sum += fabsf(x.x) + fabsf(x.y);
    }
}

template <class T> __device__ __forceinline__ float column_top(const struct column_seen<T> &s)
{
    if constexpr (sizeof(T) == 4) return __uint_as_float(s.top);
    const float2 x = hb_two<T>(s.top);
    return fmaxf(x.x, x.y);
}

__device__ __forceinline__ void column_join(struct column_part &a, const struct column_part &b)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        a.top[i] = fmaxf(a.top[i], b.top[i]);
        a.sum[i] += b.sum[i];
    }
    a.dot += b.dot;
}

// Joined over the warp; every lane has it.
__device__ __forceinline__ void column_join_warp(struct column_part &a)
{
#pragma unroll
    for (int w = 16; w; w /= 2) {
        struct column_part b;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            b.top[i] = __shfl_xor_sync(~0u, a.top[i], w);
            b.sum[i] = __shfl_xor_sync(~0u, a.sum[i], w);
        }
        b.dot = __shfl_xor_sync(~0u, a.dot, w);
        column_join(a, b);
    }
}

template <class T>
__device__ __forceinline__ const T *column_row(const struct column_rows &j, unsigned i)
{
    const unsigned c = i / (unsigned)j.batch, b = i % (unsigned)j.batch;
    return (const T *)j.x + c * j.sx.c + b * j.sx.b;
}

// ONCE: more comes than the L2 cache holds. It is then the first to leave, not what else is there:
// mid and spectra, not needed any more but dirty, which would go to device memory for it. Measured,
// f16: 2^20 2.142 -> 2.117 ms, 2^21 2.278 -> 2.256; pairs, too: backward 524288 4.155 -> 4.208.
template <bool ONCE> __device__ __forceinline__ uint4 column_read_part(const void *p)
{
    return ONCE ? __ldcs((const uint4 *)p) : *(const uint4 *)p;
}

// This thread's share of the samples [from, to): 16 bytes at a time where both rows have them.
template <class T, bool PAIR>
__device__ __forceinline__ struct column_part column_piece(const T *x, const T *y, int from, int to)
{
    constexpr int VEC = HB_VEC<T>, LOADS = COLUMN_PIECE / VEC / 256;
    constexpr bool ONCE = sizeof(T) == 2 && !PAIR;         // many chunks' at once
    const uintptr_t at = (uintptr_t)(x + from);
    int head = (int)((0 - at) % 16 / sizeof(T));
    if (head > to - from || (PAIR && (at ^ (uintptr_t)(y + from)) % 16)) head = to - from;
    const int vectors = (to - from - head) / VEC, rest = from + head + vectors * VEC;
    struct column_seen<T> a = { 0, 0 }, b = { 0, 0 };
    float dot = 0;
#pragma unroll 1
    for (int first = (int)threadIdx.x; first < vectors; first += LOADS * 256) {
        uint4 v[LOADS], w[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const int n = first + i * 256;
            v[i] = w[i] = make_uint4(0, 0, 0, 0);
            if (n < vectors) v[i] = column_read_part<ONCE>(x + from + head + n * VEC);
            if (PAIR && n < vectors) w[i] = *(const uint4 *)(y + from + head + n * VEC);
        }
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const uint32_t p[4] = { v[i].x, v[i].y, v[i].z, v[i].w };
            const uint32_t q[4] = { w[i].x, w[i].y, w[i].z, w[i].w };
#pragma unroll
            for (int e = 0; e < 4; e++) {
                column_see<T>(a, p[e]);
                if constexpr (PAIR) {
                    column_see<T>(b, q[e]);
                    dot += hb_product<T>(p[e], q[e]);
                }
            }
        }
    }
    using bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>;
    for (int i = (int)threadIdx.x; i < head + to - rest; i += 256) {
        const int n = i < head ? from + i : rest + i - head;
        const uint32_t p = *(const bits *)(x + n);
        column_see<T>(a, p);
        if constexpr (PAIR) {
            const uint32_t q = *(const bits *)(y + n);
            column_see<T>(b, q);
            dot += hb_product<T>(p, q);
        }
    }
    return { { column_top<T>(a), column_top<T>(b) }, { a.sum, b.sum }, dot };
}

// True in the last of `all` blocks that ask; what the others wrote before is then there, for loads
// that pass by L1. *count is 0 again.
__device__ __forceinline__ bool column_last(unsigned *count, unsigned all)
{
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(count, 1u) == all - 1;
        if (last) *count = 0;
    }
    __syncthreads();
    if (last) __threadfence();
    return last;
}

__device__ __forceinline__ float column_scale(float top)
{
    return fminf(hb_fused_scale(top, 0), 0x1p100f);
}

// Where few samples of a row are large, its results are far below what is possible with its largest
// |u|: |y| <= sum |u| max |h|, too, which is less than sum |h| max |u| by sum |h| / max |h|
// (`length`) over the same of u. The power of two in that.
__device__ __forceinline__ float column_boost(float top, float sum, float length)
{
    const float more = 0.5f * length / (sum / top);        // a half: sums are rounded
    return more >= 2 && more < 0x1p30f ? 0.5f / hb_fused_scale(more, 0) : 1;
}

// Row i of channel c from its pieces.
template <bool FILTER, bool PAIR>
__device__ __forceinline__ void column_found(const struct column_survey &k, int64_t c, int64_t i,
                                             const struct column_part &p)
{
    k.x.scale[i] = column_scale(p.top[0]);
    if (k.x.boost) k.x.boost[i] = column_boost(p.top[0], p.sum[0], k.length[c]);
    if constexpr (PAIR) {
        k.y.scale[i] = column_scale(p.top[1]);
        if (k.y.boost) k.y.boost[i] = column_boost(p.top[1], p.sum[1], k.length[c]);
    }
    if constexpr (FILTER) {
        const float scale = hb_fused_scale(p.sum[0], 15);
        k.gain[c] = k.N / 4096 * (scale / (column_scale(p.top[0]) * HB_MID_TOP));
        k.back[c] = 4 / scale;
        k.own_length[c] = p.top[0] > 0 ? p.sum[0] / p.top[0] : 1;
    }
}

// All rows of a channel, a warp a row. bound: sum_k |X_k Y_k| / N^2 <= the root of sum x^2 / N
// times that of y (Parseval), and sum x^2 <= max |x| sum |x|.
template <bool FILTER, bool PAIR>
__device__ __forceinline__ void column_put_together(const struct column_survey &k, int64_t c)
{
    __shared__ float2 sums[8];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float2 sum = make_float2(0, 0);                        // bound, dot
    for (int b = warp; b < k.x.batch; b += 8) {
        const int64_t i = c * k.x.batch + b;
        struct column_part p = { { 0, 0 }, { 0, 0 }, 0 };
        for (int piece = lane; piece < k.pieces; piece += 32) {
            const struct column_part *const at = k.part + i * k.pieces + piece;
            const struct column_part q = { { __ldcg(&at->top[0]), __ldcg(&at->top[1]) },
                                           { __ldcg(&at->sum[0]), __ldcg(&at->sum[1]) },
                                           __ldcg(&at->dot) };
            column_join(p, q);
        }
        column_join_warp(p);
        if (lane == 0) column_found<FILTER, PAIR>(k, c, i, p);
        sum.x += sqrtf(p.top[0]) * sqrtf(p.sum[0] / k.N) * sqrtf(p.top[1])
                 * sqrtf(p.sum[1] / k.N);
        sum.y += p.dot;
    }
    if constexpr (!PAIR) return;
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < 8; w++)
        sum = make_float2(sum.x + sums[w].x, sum.y + sums[w].y);
    k.bound[c] = sum.x + (k.start ? 0 : k.bound[c]);
    if (k.dd) k.dd[c] += sum.y;
}

// Grid (rows pieces).
template <class T, bool PAIR>
__global__ void __launch_bounds__(256) column_parts(struct column_survey k)
{
    __shared__ struct column_part parts[8];
    const unsigned block = gridDim.x - 1 - blockIdx.x;     // backwards: what is used first comes
    const unsigned i = block / (unsigned)k.pieces;         // last, and is in L2 then
    const unsigned c = i / (unsigned)k.x.batch;
    const int from = (int)(block % (unsigned)k.pieces) * k.piece;
    const T *const x = column_row<T>(k.x, i), *const y = PAIR ? column_row<T>(k.y, i) : x;
    if (!k.early) launch_wait();
    struct column_part p = column_piece<T, PAIR>(x, y, from, min(k.x.L, from + k.piece));
    if (k.early) launch_wait();
    column_join_warp(p);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = p;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < 8; w++)
            column_join(p, parts[w]);
        k.part[block] = p;
    }
    if (column_last(k.count + c, (unsigned)(k.x.batch * k.pieces)))
        column_put_together<sizeof(T) == 4, PAIR>(k, c);
}

// --- host --------------------------------------------------------------------------------------
// Pieces of a row of L for column_parts, at most.
static inline int column_pieces(int64_t L) { return (int)((L + COLUMN_PIECE - 1) / COLUMN_PIECE); }

template <class T, bool PAIR>
static inline void launch_parts(const struct column_survey *k, int64_t rows, cudaStream_t stream)
{
    struct column_survey all = *k;
    const int64_t most = column_pieces(k->x.L), times = (rows * most - 1) / COLUMN_BLOCKS + 1;
    all.pieces = (int)((most + times - 1) / times);
    all.piece = (int)((most + all.pieces - 1) / all.pieces) * COLUMN_PIECE;
    launch_next(k->early, column_parts<T, PAIR>, rows * all.pieces, 256, 0, stream, all);
}
#endif
