// cluster.cuh: rows that fit into the shared memory of a cluster of blocks, CUDA.
//     y = h * u + d u (adjoint: correlation), rows of L <= N = K M, M = R 256      f16, bf16
//     GATED (hb.h, hb_conv_gates): y = tap(post) (h * r + d r), r = tap(u) tap(pre)
// Method    n = a M + m, k = j + K k'. Block j of the cluster has what belongs to its k:
//               z_j[m] = sum_a e^{-2 pi i a (j - 1/4) / K} x[a M + m]       a right-angle DFT of K
//           and N is reached by a transform of M points with s = (j - 1/4) / K in the place of
//           mma.cuh's -1/4: its outer step has G[k][p] = e^{-2 pi i (k + s)(p + s) / R} and
//           T(k, r) = e^{-2 pi i (k + s)(r - 256 s) / 256 R}, complex inputs, and nothing else to
//           turn: the DFT of K has constants only. Back the same: y[a M + m] = Re sum_j
//           e^{2 pi i a (j - 1/4) / K} w_j[m].
//           A block reads its share of m of all K segments of u, does the DFT of K in f32 and puts
//           z_j into the planes of block j (distributed shared memory). Then, by itself: outer
//           step, in place, as a warp has whole columns; rows and product as rows.cuh has them;
//           outer step back, in place. At last it gets its share of m from all planes, does the DFT
//           of K back and stores y. Three barriers of the cluster a row: largest |u| is known and
//           planes are free; planes hold z; planes hold w.
//           A spectrum is made by the same steps from float32, measured by the cluster.
//           GATED: r is made where u is read (signals.cuh) and stays in registers till its largest
//           is known; d is a tap; tap(post) multiplies y as it is stored.
// Exponents mma.cuh; what goes in is CLUSTER_TOP larger till the product and spectra as much
//           smaller, so that with K one outlier does not push the rest below what a half can hold.
//           Above N = 2^18 a row of few large samples is boosted at the product (column_boost).
// Cost      a sample: mma 16 R + 512 flop; f32 about 5, 9, 12 for each DFT of K = 4, 8, 16; memory
//           4 bytes + spectrum 4 / B; L2 the spectrum again, 4, and u again, 2; the network between
//           SMs 8 (K - 1) / K bytes. A block of R <= 64 has 8 warps and two are on an SM, above
//           that it has 16 and is alone.
// Limits    K = 4, 8, 16 (16 needs leave: not portable); R = 48, 64, 96, 128. GATED: K = 4, 8.
#ifndef HB_FUSED_CLUSTER_CUH
#define HB_FUSED_CLUSTER_CUH

#include "columns.cuh"
#include "rows.cuh"

struct cluster_job {
    const void *in;  struct hb_strides si;   // u (f16, bf16); spectrum: h (D,L) float32
    void *out;       struct hb_strides so;   // like u
    uint4 *spectrum;           // [D][K][k < R][2 tiles][32 lanes] of 4 half2: fragments of C
    float2 *undo;              // (D) 4 2^-e1, sum |h| / max |h|; the spectrum's kernel writes it
    const float *d;            // or NULL: y += d u; spectrum: added to h[0]
    const uint4 *matrix;       // [K] of hb_fused_words(R) words: G of block j, F
    int B, D, L;
    int rows;                  // of the batch, that one cluster does
    int chunks;                // clusters for one channel
    bool adjoint;              // conj(spectrum)
    struct hb_conv_gates gates;              // GATED only: as hb.h says; d is in the spectrum
    int taps;
};

constexpr float CLUSTER_TOP = 16;

// --- between blocks -----------------------------------------------------------------------------
// All threads of all blocks of the cluster; what they wrote before, here or there, is there.
__device__ __forceinline__ void cluster_sync()
{
    __syncwarp();                 // .aligned: all lanes at once
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The place in block `rank` that corresponds to `at` in this one's shared memory.
__device__ __forceinline__ uint32_t cluster_address(uint32_t at, int rank)
{
    uint32_t there;
    // volatile: it is not worth a register from one row to the next
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(rank));
    return there;
}

template <int WORDS>
__device__ __forceinline__ void cluster_put(uint32_t at, const uint32_t (&x)[WORDS])
{
    static_assert(WORDS == 1 || WORDS == 2 || WORDS == 4);
    if constexpr (WORDS == 4)
        asm volatile("st.shared::cluster.v4.b32 [%0], {%1,%2,%3,%4};"
                     :: "r"(at), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]) : "memory");
    else if constexpr (WORDS == 2)
        asm volatile("st.shared::cluster.v2.b32 [%0], {%1,%2};"
                     :: "r"(at), "r"(x[0]), "r"(x[1]) : "memory");
    else
        asm volatile("st.shared::cluster.b32 [%0], %1;" :: "r"(at), "r"(x[0]) : "memory");
}

template <int WORDS>
__device__ __forceinline__ void cluster_get(uint32_t (&x)[WORDS], uint32_t at)
{
    static_assert(WORDS == 1 || WORDS == 2 || WORDS == 4);
    if constexpr (WORDS == 4)
        asm volatile("ld.shared::cluster.v4.b32 {%0,%1,%2,%3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at) : "memory");
    else if constexpr (WORDS == 2)
        asm volatile("ld.shared::cluster.v2.b32 {%0,%1}, [%2];"
                     : "=r"(x[0]), "=r"(x[1]) : "r"(at) : "memory");
    else
        asm volatile("ld.shared::cluster.b32 %0, [%1];" : "=r"(x[0]) : "r"(at) : "memory");
}

// --- the DFT of K -------------------------------------------------------------------------------
// e^{2 pi i j / 64}; j must be a constant where it is used.
__device__ __forceinline__ float2 cluster_unit(int j)
{
    constexpr float COS[17] = {
        1, 0.9951847267f, 0.9807852804f, 0.9569403357f, 0.9238795325f, 0.8819212643f,
        0.8314696123f, 0.7730104534f, 0.7071067812f, 0.6343932842f, 0.5555702330f,
        0.4713967368f, 0.3826834324f, 0.2902846773f, 0.1950903220f, 0.0980171403f, 0
    };
    const float c = COS[j % 16], s = COS[16 - j % 16];
    switch (j / 16 % 4) {
    case 0: return make_float2(c, s);
    case 1: return make_float2(-s, c);
    case 2: return make_float2(-c, -s);
    default: return make_float2(s, -c);
    }
}

// v e^{2 pi i j / 64}, j a constant >= 0; quarter turns cost nothing.
__device__ __forceinline__ float2 cluster_turned(float2 v, int j)
{
    switch (j % 64) {
    case 0: return v;
    case 16: return make_float2(-v.y, v.x);
    case 32: return make_float2(-v.x, -v.y);
    case 48: return make_float2(v.y, -v.x);
    default: return hb_cmul(v, cluster_unit(j % 64));
    }
}

// Index of what is at place j after cluster_dft.
template <int K> __device__ __forceinline__ constexpr int cluster_index(int j)
{
    int k = 0;
    for (int bit = 1; bit < K; bit *= 2) k = 2 * k + (j / bit & 1);
    return k;
}

// v[j] = sum_a v[a] e^{-2 pi i a k / K}, k = cluster_index(j); BACK: the conjugate factors.
template <int K, bool BACK> __device__ __forceinline__ void cluster_dft(float2 (&v)[K])
{
#pragma unroll
    for (int n = K / 2; n; n /= 2)
#pragma unroll
        for (int i = 0; i < K / 2; i++) {
            const int at = i / n * 2 * n + i % n;
            const float2 a = v[at], b = v[at + n];
            v[at] = make_float2(a.x + b.x, a.y + b.y);
            v[at + n] = cluster_turned(make_float2(a.x - b.x, a.y - b.y),
                                       (BACK ? 0 : 64) + (BACK ? 1 : -1) * (i % n * 32 / n));
        }
}

// x, of which the compiler knows nothing: what depends on it is computed where it is needed and
// does not wait in registers, or in memory, from one row to the next.
__device__ __forceinline__ int cluster_anew(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

// --- a block ------------------------------------------------------------------------------------
// An item is 32 samples: WIDTH neighbours in each of K segments, and as many complex numbers in K
// planes. A block has 8 R of them, its share of M.
template <int K> constexpr int CLUSTER_WIDTH = 32 / K;
template <int R> constexpr int CLUSTER_ITEMS = (8 * R - 1) / HB_ROWS_THREADS<R> + 1;   // a thread
template <int R> constexpr int CLUSTER_WARPS = HB_ROWS_THREADS<R> / 32;
constexpr int CLUSTER_INNER = 6 * 32 * 16;                                             // bytes
template <int K, int R> constexpr bool CLUSTER_BOOST = K * R > 1024;
template <int K, int R> constexpr int CLUSTER_SHARED =
    2 * HB_PLANE<R> + HB_MATRIX<R> + CLUSTER_INNER + 2 * R * 16 + K * CLUSTER_WARPS<R> * 8
    + HB_FILTERS * (int)sizeof(hb_taps);

struct cluster_block {
    unsigned char *planes;
    uint4 *matrix, *inner;     // G; the rows' constants
    float4 *turns;             // [R] u(f), u(16 f), then [R] u(8 f), u(128 f); f, u: cluster_turn
    float2 *marks;             // [K][warp] largest |x| and sum |x|
    hb_taps *taps;             // [HB_FILTERS], GATED
    hb_lane me;
    int rank, warp;
};

// u(m) = e^{-2 pi i m / n}, n = 1024 R K, |m| < 3 n / 2. T(k, r) = u(f (r - 256 s)) with
// f = 4 K (k + s) = 4 K k + 4 j - 1, 256 s = 64 (4 j - 1) / K.
template <int K, int R> __device__ __forceinline__ float2 cluster_turn(int m)
{
    constexpr int n = 1024 * R * K;
    return hb_unit(m < 0 ? m + n : m, n);
}

template <int K> __device__ __forceinline__ int cluster_f(int k, int rank)
{
    return 4 * K * k + 4 * rank - 1;
}

template <int K> __device__ __forceinline__ int cluster_from(int rank)       // 256 s
{
    return 64 / K * (4 * rank - 1);
}

// What a thread knows of itself, anew for each row.
__device__ __forceinline__ void cluster_know(cluster_block &k)
{
    const int thread = cluster_anew((int)threadIdx.x), lane = thread & 31;
    k.warp = thread >> 5;
    k.me = { lane, lane >> 2, lane & 3, k.warp % HB_GROUPS, k.warp / HB_GROUPS };
}

template <int K, int R>
__device__ __forceinline__ void cluster_init(cluster_block &k, unsigned char *shared,
                                             const uint4 *matrix)
{
    k.planes = shared;
    k.matrix = (uint4 *)(shared + 2 * HB_PLANE<R>);
    k.inner = k.matrix + HB_MATRIX<R> / 16;
    k.turns = (float4 *)(k.inner + CLUSTER_INNER / 16);
    k.marks = (float2 *)(k.turns + 2 * R);
    k.taps = (hb_taps *)(k.marks + K * CLUSTER_WARPS<R>);
    k.rank = (int)(blockIdx.x % K);
    cluster_know(k);
    matrix += k.rank * (HB_MATRIX<R> / 16 + 64);           // hb_fused_words
    for (int i = threadIdx.x; i < HB_MATRIX<R> / 16; i += HB_ROWS_THREADS<R>)
        k.matrix[i] = matrix[i];
    if (k.warp == 0) {
        hb_inner inner;
        hb_inner_init(inner, matrix + HB_MATRIX<R> / 16, k.me);
        hb_inner_store(k.inner, inner, k.me);
    }
    for (int i = threadIdx.x; i < 2 * R; i += HB_ROWS_THREADS<R>) {
        const int f = cluster_f<K>(i % R, k.rank);
        const float2 a = cluster_turn<K, R>(i < R ? f : 8 * f);
        const float2 b = cluster_turn<K, R>(i < R ? 16 * f : 128 * f);
        k.turns[i] = make_float4(a.x, a.y, b.x, b.y);
    }
}

// --- signals ------------------------------------------------------------------------------------
template <class T, int W> struct alignas(W * sizeof(T) > 16 ? 16 : W * sizeof(T)) cluster_words {
    uint32_t x[W * sizeof(T) / 4];
};
template <class T, int K> using cluster_item = cluster_words<T, CLUSTER_WIDTH<K>>[K];

// Of item i: the row of planes, its column.
template <int K, int R>
__device__ __forceinline__ void cluster_place(int &p, int &column, int i, int rank)
{
    constexpr int EACH = 256 / CLUSTER_WIDTH<K>;
    i = cluster_anew(i);
    p = rank * (R / K) + i / EACH;
    column = i % EACH * CLUSTER_WIDTH<K>;
}

// Samples n .. n + W - 1 of a row, 0 from `end` on.
template <class T, int W>
__device__ __forceinline__ void cluster_read(cluster_words<T, W> &x, const T *row, int n, int end)
{
    if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int w = 0; w < W; w++) x.x[w] = n + w < end ? __float_as_uint(row[n + w]) : 0;
    } else if constexpr (W == 2) {
        const unsigned short *const at = (const unsigned short *)row + n;
        x.x[0] = n < end ? at[0] : 0;
        if (n + 1 < end) x.x[0] |= (uint32_t)at[1] << 16;
    } else {
#pragma unroll
        for (int w = 0; w < W; w += 4) {
            const uint2 v = hb_load4(row, n + w, end, ((uintptr_t)row & 7) == 0);
            x.x[w / 2] = v.x;
            x.x[w / 2 + 1] = v.y;
        }
    }
}

// Item i of a row; 0 from L on, and beyond the last item. No branches between the loads of an
// aligned row: all are under way.
template <class T, int K, int R>
__device__ __forceinline__ void cluster_load(cluster_item<T, K> &x, const T *row, int i, int L,
                                             int rank)
{
    constexpr int W = CLUSTER_WIDTH<K>;
    using words = cluster_words<T, W>;
    int p, column;
    cluster_place<K, R>(p, column, i, rank);
    const int n = p * 256 + column, end = i < 8 * R ? L : 0;
    if ((uintptr_t)row % alignof(words) == 0 && L % W == 0) {
#pragma unroll
        for (int a = 0; a < K; a++) {
            x[a] = {};
            if (n + a * R * 256 < end) x[a] = *(const words *)(row + n + a * R * 256);
        }
    } else {
#pragma unroll
        for (int a = 0; a < K; a++) cluster_read<T, W>(x[a], row, n + a * R * 256, end);
    }
}

// The same of the product of two factors.
template <class T, int K, int R>
__device__ __forceinline__ void cluster_load_product(cluster_item<float, K> &x, const hb_factor &f,
                                                     const hb_factor &g, int64_t c, int64_t b,
                                                     int i, int L, int rank)
{
    static_assert(CLUSTER_WIDTH<K> % 4 == 0);
    int p, column;
    cluster_place<K, R>(p, column, i, rank);
#pragma unroll
    for (int a = 0; a < K; a++)
#pragma unroll
        for (int w = 0; w < CLUSTER_WIDTH<K>; w += 4) {
            float v[4];
            hb_product4<T>(v, f, g, c, b, a * R * 256 + p * 256 + column + w, i < 8 * R ? L : 0);
#pragma unroll
            for (int t = 0; t < 4; t++) x[a].x[w + t] = __float_as_uint(v[t]);
        }
}

// Columns 2 i and 2 i + 1.
template <class T, int W>
__device__ __forceinline__ float2 cluster_pair(const cluster_words<T, W> &x, int i)
{
    if constexpr (sizeof(T) == 4)
        return make_float2(__uint_as_float(x.x[2 * i]), __uint_as_float(x.x[2 * i + 1]));
    else
        return hb_two<T>(x.x[i]);
}

// Largest |x| of an item and those before and, where there is a use for it, sum |x|.
template <class T, int K, bool SUM>
__device__ __forceinline__ void cluster_measure(uint32_t &peak, float2 &mark,
                                                const cluster_item<T, K> &x)
{
#pragma unroll
    for (int a = 0; a < K; a++)
#pragma unroll
        for (int w = 0; w < CLUSTER_WIDTH<K> * (int)sizeof(T) / 4; w++) {
            if constexpr (sizeof(T) == 4) {
                const float v = fabsf(__uint_as_float(x[a].x[w]));
                mark.x = fmaxf(mark.x, v);
                mark.y += v;
            } else {
                peak = __vmaxu2(peak, x[a].x[w] & 0x7fff7fffu);
                if constexpr (SUM) {
                    const float2 v = hb_two<T>(x[a].x[w] & 0x7fff7fffu);
                    mark.y += v.x + v.y;
                }
            }
        }
}

__device__ __forceinline__ float2 cluster_reduce(float2 v)
{
#pragma unroll
    for (int x = 1; x < 32; x *= 2) {
        v.x = fmaxf(v.x, __shfl_xor_sync(~0u, v.x, x));
        v.y += __shfl_xor_sync(~0u, v.y, x);
    }
    return v;
}

// The power of two that the results of a row have to spare: they are at most sum |u| max |h|, which
// is less than sum |h| max |u| by `length` over the same of u.
__device__ __forceinline__ float cluster_boost(float2 mark, float length)
{
    const float more = 0.5f * length / (mark.y / mark.x);            // a half: sums are rounded
    return more >= 2 && more < 0x1p30f ? 0.5f / hb_fused_scale(more, 0) : 1;
}

// What all threads of the cluster found together. The planes may be written after this.
template <class T, int K, int R>
__device__ __forceinline__ float2 cluster_together(const cluster_block &k, uint32_t peak,
                                                   float2 mark)
{
    if constexpr (sizeof(T) == 2)
        mark.x = hb_magnitude<T>(max(peak & 0xffff0000u, peak << 16));
    mark = cluster_reduce(mark);
    if (k.me.lane < K) {
        const uint32_t here = hb_shared_address(k.marks + k.rank * CLUSTER_WARPS<R> + k.warp);
        const uint32_t v[2] = { __float_as_uint(mark.x), __float_as_uint(mark.y) };
        cluster_put(cluster_address(here, k.me.lane), v);
    }
    cluster_sync();
    mark = make_float2(0, 0);
    for (int i = k.me.lane; i < K * CLUSTER_WARPS<R>; i += 32) {
        mark.x = fmaxf(mark.x, k.marks[i].x);
        mark.y += k.marks[i].y;
    }
    return cluster_reduce(mark);
}

// Item i, times scale, by the DFT of K into the planes of all blocks.
template <class T, int K, int R>
__device__ __forceinline__ void cluster_send(const cluster_block &k, const cluster_item<T, K> &x,
                                             int i, float scale)
{
    constexpr int W = CLUSTER_WIDTH<K>;
    uint32_t re[K][W / 2], im[K][W / 2];
#pragma unroll
    for (int w = 0; w < W / 2; w++) {
        float2 even[K], odd[K];
#pragma unroll
        for (int a = 0; a < K; a++) {
            const float2 v = cluster_pair(x[a], w), t = cluster_unit(a * (16 / K));
            even[a] = make_float2(v.x * scale * t.x, v.x * scale * t.y);
            odd[a] = make_float2(v.y * scale * t.x, v.y * scale * t.y);
        }
        cluster_dft<K, false>(even);
        cluster_dft<K, false>(odd);
#pragma unroll
        for (int a = 0; a < K; a++) {
            re[a][w] = hb_pack(even[a].x, odd[a].x);
            im[a][w] = hb_pack(even[a].y, odd[a].y);
        }
    }
    int p, column;
    cluster_place<K, R>(p, column, i, k.rank);
    const uint32_t at = hb_shared_address(k.planes) + hb_place(p, column >> 3) + 2 * (column & 7);
#pragma unroll
    for (int a = 0; a < K; a++) {
        const uint32_t there = cluster_address(at, cluster_index<K>(a));
        cluster_put(there, re[a]);
        cluster_put(there + HB_PLANE<R>, im[a]);
    }
}

// The way back: item i of the results from the planes of all blocks, times `by`.
template <int K, int R>
__device__ __forceinline__ void cluster_fetch(float (&v)[K][CLUSTER_WIDTH<K>],
                                              const cluster_block &k, int i, float by)
{
    constexpr int W = CLUSTER_WIDTH<K>;
    uint32_t re[K][W / 2], im[K][W / 2];
    int p, column;
    cluster_place<K, R>(p, column, i, k.rank);
    const uint32_t at = hb_shared_address(k.planes) + hb_place(p, column >> 3) + 2 * (column & 7);
#pragma unroll
    for (int j = 0; j < K; j++) {
        const uint32_t there = cluster_address(at, j);
        cluster_get(re[j], there);
        cluster_get(im[j], there + HB_PLANE<R>);
    }
#pragma unroll
    for (int w = 0; w < W / 2; w++) {
        float2 even[K], odd[K];
#pragma unroll
        for (int j = 0; j < K; j++) {
            const float2 x = hb_unpack(re[j][w]), z = hb_unpack(im[j][w]);
            even[j] = make_float2(x.x, z.x);
            odd[j] = make_float2(x.y, z.y);
        }
        cluster_dft<K, true>(even);
        cluster_dft<K, true>(odd);
#pragma unroll
        for (int j = 0; j < K; j++) {
            const int a = cluster_index<K>(j);
            const float2 t = cluster_unit(a * (16 / K));
            v[a][2 * w] = (t.x * even[j].x + t.y * even[j].y) * by;
            v[a][2 * w + 1] = (t.x * odd[j].x + t.y * odd[j].y) * by;
        }
    }
}

// v *= tap(f) at n .. n + W - 1.
template <class T, int W>
__device__ __forceinline__ void cluster_by_factor(float (&v)[W], const hb_factor &f, int64_t c,
                                                  int64_t b, int n, int L)
{
#pragma unroll
    for (int w = 0; w < W; w += 4) {
        float x[4] = { v[w], v[w + 1], v[w + 2], v[w + 3] };
        hb_by_factor<T, false>(x, f, c, b, n + w, L);
#pragma unroll
        for (int t = 0; t < 4; t++) v[w + t] = x[t];
    }
}

// --- the block's own steps ----------------------------------------------------------------------
// Tiles of 8 columns that a warp has: as many as registers hold with all R rows of them.
template <int R> constexpr int CLUSTER_TILES = R >= 96 ? 2 : 4;

// B of the warp's columns, from a plane. hb_place: the swizzle depends on the slot modulo 8 only.
template <int R>
__device__ __forceinline__ void cluster_columns(uint32_t (&b)[R / 16][CLUSTER_TILES<R>][2],
                                                const unsigned char *plane, int warp, hb_lane me)
{
    constexpr bool WIDE = CLUSTER_TILES<R> == 4;  // else columns 16 warp + 2 g + tile
    const int r = WIDE ? hb_column(me) : 16 * warp + 2 * me.g;
    const unsigned char *const even = plane + hb_place(2 * me.q, r >> 3) + 2 * (r & 7);
    const unsigned char *const odd = plane + hb_place(2 * me.q + 1, r >> 3) + 2 * (r & 7);
#pragma unroll
    for (int kt = 0; kt < R / 16; kt++) {
        constexpr int EIGHT = 8 * 512;
        const int at = 2 * kt * EIGHT;
        if constexpr (WIDE) {
            const uint2 x[4] = {
                *(const uint2 *)(even + at), *(const uint2 *)(odd + at),
                *(const uint2 *)(even + at + EIGHT), *(const uint2 *)(odd + at + EIGHT),
            };
            hb_columns(b[kt], x);
        } else {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const uint32_t x = *(const uint32_t *)(even + at + h * EIGHT);
                const uint32_t y = *(const uint32_t *)(odd + at + h * EIGHT);
                b[kt][0][h] = hb_low(x, y);
                b[kt][1][h] = hb_high(x, y);
            }
        }
    }
}

// The outer step in place. BACK: by conj(G), without the turns.
template <int K, int R, bool BACK>
__device__ __forceinline__ void cluster_outer(const cluster_block &k)
{
    constexpr int KT = R / 16, TILES = CLUSTER_TILES<R>;
    const hb_lane me = k.me;
    uint32_t br[KT][TILES][2], bi[KT][TILES][2];
    cluster_columns<R>(br, k.planes, k.warp, me);
    cluster_columns<R>(bi, k.planes + HB_PLANE<R>, k.warp, me);
    __syncwarp();                 // everybody has read
    const int r0 = 8 * TILES * k.warp + 4 * me.q, from = r0 - cluster_from<K>(k.rank);
    const int first = hb_place(me.g, r0 >> 3) + 2 * (r0 & 7);        // of the results
    float2 w = make_float2(0, 0), next = w;
    if constexpr (!BACK) {        // T of slot g; from one slot to the eighth after it
        w = cluster_turn<K, R>(cluster_f<K>(me.g, k.rank) * from);
        w = make_float2(w.x * (1.0f / R), w.y * (1.0f / R));
        next = cluster_turn<K, R>(32 * K * from);
    }
#pragma unroll 1
    for (int mt = 0; mt < KT; mt++) {
        float re[TILES][4] = {}, im[TILES][4] = {};
#pragma unroll
        for (int kt = 0; kt < KT; kt++) {
            uint32_t gr[4], gi[4], minus[4];
            hb_fragment(gr, k.matrix[(mt * KT + kt) * 64 + me.lane]);
            hb_fragment(gi, k.matrix[(mt * KT + kt) * 64 + 32 + me.lane]);
            hb_negated(minus, gi);
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                hb_mma(re[t], gr, br[kt][t][0], br[kt][t][1]);
                hb_mma(im[t], gr, bi[kt][t][0], bi[kt][t][1]);
                hb_mma(re[t], BACK ? gi : minus, bi[kt][t][0], bi[kt][t][1]);
                hb_mma(im[t], BACK ? minus : gi, br[kt][t][0], br[kt][t][1]);
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int slot = 16 * mt + me.g + 8 * h;
#pragma unroll
            for (int e = 0; e < TILES / 2; e++) {
                float2 v[4];
#pragma unroll
                for (int x = 0; x < 4; x++) {
                    const int t = TILES == 4 ? x : x % 2, c = 2 * h + (TILES == 4 ? e : x / 2);
                    v[x] = make_float2(re[t][c], im[t][c]);
                }
                if constexpr (!BACK) {
                    const float4 turn = k.turns[slot];
                    float2 four[4], base = w;
                    if (e) base = hb_cmul(w, make_float2(turn.z, turn.w));
                    hb_four(four, base, make_float2(turn.x, turn.y));
#pragma unroll
                    for (int x = 0; x < 4; x++) v[x] = hb_cmul(v[x], four[x]);
                }
                unsigned char *const at = k.planes + (16 * mt + 8 * h) * 512 + (first ^ 32 * e);
                *(uint2 *)at = make_uint2(hb_pack(v[0].x, v[1].x), hb_pack(v[2].x, v[3].x));
                *(uint2 *)(at + HB_PLANE<R>) =
                    make_uint2(hb_pack(v[0].y, v[1].y), hb_pack(v[2].y, v[3].y));
            }
            if constexpr (!BACK) w = hb_cmul(w, next);
        }
    }
}

// x, turned by conj(T), to its slot. w: T at this lane's first point, r = 16 g + 2 q.
template <int R>
__device__ __forceinline__ void cluster_inner_store(const cluster_block &k, const hb_tile &x,
                                                    int slot, float2 w)
{
    const float4 near = k.turns[slot], far = k.turns[R + slot];
    const float2 one = make_float2(near.x, near.y), tile = make_float2(far.x, far.y);
    const float2 down = make_float2(far.z, far.w);
    const int first = hb_place(slot, 2 * k.me.g) + 4 * k.me.q;
#pragma unroll
    for (int t = 0; t < 2; t++) {
        float2 at = w;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float2 even = hb_conj(at), odd = hb_conj(hb_cmul(at, one));
            const float2 v0 = hb_cmul(make_float2(x.re[t][2 * h], x.im[t][2 * h]), even);
            const float2 v1 = hb_cmul(make_float2(x.re[t][2 * h + 1], x.im[t][2 * h + 1]), odd);
            unsigned char *const to = k.planes + (first ^ 16 * t) + 256 * h;
            *(uint32_t *)to = hb_pack(v0.x, v1.x);
            *(uint32_t *)(to + HB_PLANE<R>) = hb_pack(v0.y, v1.y);
            if (h == 0) at = hb_cmul(at, down);
        }
        if (t == 0) w = hb_cmul(w, tile);
    }
}

// The rows' step of all slots: there, times `spectrum` (of this lane, slot 0), back.
template <int K, int R>
__device__ __forceinline__ void cluster_slots(const cluster_block &k, const uint4 *spectrum,
                                              bool adjoint, float boost)
{
    const hb_lane me = k.me;
    hb_inner inner;
    hb_inner_load(inner, k.inner, me);
    const int from = 16 * me.g + 2 * me.q - cluster_from<K>(k.rank);
    float2 w = cluster_turn<K, R>(cluster_f<K>(k.warp, k.rank) * from);
    const float2 next = cluster_turn<K, R>(4 * K * CLUSTER_WARPS<R> * from);
#pragma unroll 1
    for (int slot = k.warp; slot < R; slot += CLUSTER_WARPS<R>) {
        hb_tile z, x;
        hb_inner_there(z, inner, hb_shared_address(k.planes), HB_PLANE<R>, slot, me);
        hb_times(z, spectrum + slot * 64, adjoint, CLUSTER_BOOST<K, R> ? boost : 1);
        hb_inner_and_back(x, inner, z);
        __syncwarp();             // everybody has read the slot
        cluster_inner_store<R>(k, x, slot, w);
        w = hb_cmul(w, next);
    }
}

// --- the kernels --------------------------------------------------------------------------------
// Asks for this block's share of a row to be brought to L2: a thread a line of 128 bytes. x NULL:
// there is none.
template <class T, int K, int R>
__device__ __forceinline__ void cluster_prefetch(const void *x, struct hb_strides s, int64_t c,
                                                 int64_t b, int L, int rank)
{
    constexpr int LINES = 4 * R / K;                       // of a segment
    const int n = threadIdx.x / LINES * R * 256 + rank * (R / K) * 256 + threadIdx.x % LINES * 64;
    if (x && threadIdx.x < 4 * R && n < L) hb_prefetch_line((const T *)x + c * s.c + b * s.b + n);
}

// The factors of a channel.
struct cluster_factors { hb_factor u, pre, post; };

// This thread's items of row b of channel c.
template <class T, class S, int K, int R>
__device__ __forceinline__ void cluster_enter(cluster_item<S, K> (&x)[CLUSTER_ITEMS<R>],
                                              const cluster_factors &f, int64_t c, int64_t b,
                                              int L, int rank)
{
#pragma unroll
    for (int m = 0; m < CLUSTER_ITEMS<R>; m++) {
        const int i = threadIdx.x + m * HB_ROWS_THREADS<R>;
        if constexpr (sizeof(S) != sizeof(T))
            cluster_load_product<T, K, R>(x[m], f.u, f.pre, c, b, i, L, rank);
        else
            cluster_load<T, K, R>(x[m], hb_row_at<T>(f.u, c, b), i, L, rank);
    }
}

// Item i of row b: the results to y.
template <class T, int K, int R, bool GATED>
__device__ __forceinline__ void cluster_leave(const cluster_block &k, const cluster_job &job,
                                              const cluster_factors &f, int64_t c, int64_t b,
                                              int i, float by)
{
    constexpr int W = CLUSTER_WIDTH<K>;
    float v[K][W];
    cluster_item<T, K> u;
    if (!GATED && job.d) cluster_load<T, K, R>(u, hb_row_at<T>(f.u, c, b), i, job.L, k.rank);
    cluster_fetch<K, R>(v, k, i, by);
    T *const y = (T *)job.out + c * job.so.c + b * job.so.b;
    int p, column;
    cluster_place<K, R>(p, column, i, k.rank);
#pragma unroll
    for (int a = 0; a < K; a++) {
        const int n = a * R * 256 + p * 256 + column;
        if constexpr (GATED) {
            if (f.post.x) cluster_by_factor<T, W>(v[a], f.post, c, b, n, job.L);
        } else if (job.d) {
            const float d = job.d[c];
#pragma unroll
            for (int w = 0; w < W / 2; w++) {
                const float2 x = cluster_pair(u[a], w);
                v[a][2 * w] += d * x.x;
                v[a][2 * w + 1] += d * x.y;
            }
        }
        put_columns<T, W>(y, n, job.L, v[a]);
    }
}

// y = h * u + d u, or gated. Grid D chunks clusters of K, block HB_ROWS_THREADS, shared
// CLUSTER_SHARED.
template <class T, int K, int R, bool GATED>
__global__ void __launch_bounds__(HB_ROWS_THREADS<R>, HB_ROWS_BLOCKS<R>)
cluster_rows(struct cluster_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int ITEMS = CLUSTER_ITEMS<R>, THREADS = HB_ROWS_THREADS<R>;
    using S = std::conditional_t<GATED, float, T>;
    cluster_block k;
    cluster_init<K, R>(k, shared, job.matrix);
    const int64_t c = blockIdx.x / K / job.chunks;
    const int first = (int)(blockIdx.x / K % job.chunks) * job.rows;
    const int end = min(first + job.rows, job.B);
    const uint4 *const spectrum = job.spectrum + (c * K + k.rank) * R * 64 + k.me.lane;
    const float2 undo = job.undo[c];
    const cluster_factors f = {
        { job.in, job.si, k.taps + HB_TAP_U },
        { job.gates.pre.x, job.gates.pre.sx, k.taps + HB_TAP_PRE },
        { job.gates.post.x, job.gates.post.sx, k.taps + HB_TAP_POST },
    };
    if constexpr (GATED) hb_filters_init(k.taps, job.gates, c, job.taps);
    cluster_sync();               // all blocks are there, and their constants
    for (int b = first; b < end; b++) {
        cluster_know(k);
        cluster_item<S, K> x[ITEMS];
        cluster_enter<T, S, K, R>(x, f, c, b, job.L, k.rank);
        uint32_t peak = 0;
        float2 mark = make_float2(0, 0);
#pragma unroll
        for (int m = 0; m < ITEMS; m++)
            cluster_measure<S, K, CLUSTER_BOOST<K, R>>(peak, mark, x[m]);
        mark = cluster_together<S, K, R>(k, peak, mark);
        const float scale = fminf(hb_fused_scale(mark.x, 0), 0x1p100f);
        const float boost = CLUSTER_BOOST<K, R> ? cluster_boost(mark, undo.y) : 1;
#pragma unroll
        for (int m = 0; m < ITEMS; m++) {
            const int i = threadIdx.x + m * THREADS;
            if (i < 8 * R) cluster_send<S, K, R>(k, x[m], i, scale * (CLUSTER_TOP / K));
        }
        cluster_sync();           // planes hold z
        if (b + 1 < end) {
            cluster_prefetch<T, K, R>(job.in, job.si, c, b + 1, job.L, k.rank);
            if constexpr (GATED) {
                cluster_prefetch<T, K, R>(f.pre.x, f.pre.s, c, b + 1, job.L, k.rank);
                cluster_prefetch<T, K, R>(f.post.x, f.post.s, c, b + 1, job.L, k.rank);
            }
        }
        cluster_outer<K, R, false>(k);
        __syncthreads();
        cluster_slots<K, R>(k, spectrum, job.adjoint, boost);
        __syncthreads();
        cluster_outer<K, R, true>(k);
        cluster_sync();           // planes hold w
#pragma unroll 1
        for (int i = threadIdx.x; i < 8 * R; i += THREADS)
            cluster_leave<T, K, R, GATED>(k, job, f, c, b, i, undo.x / (scale * boost));
    }
    cluster_sync();               // nobody leaves while others read what it has
}

// Item i of the filter h.
template <int K, int R>
__device__ __forceinline__ void cluster_load_filter(cluster_item<float, K> &x,
                                                    const cluster_job &job, int64_t c, int i,
                                                    int rank)
{
    cluster_load<float, K, R>(x, (const float *)job.in + c * job.si.c, i, job.L, rank);
    if (rank == 0 && i == 0 && job.d)
        x[0].x[0] = __float_as_uint(__uint_as_float(x[0].x[0]) + job.d[c]);
}

// Spectrum of h (+ d at lag 0), and undo. Grid D clusters of K, the rest as above.
template <int K, int R>
__global__ void __launch_bounds__(HB_ROWS_THREADS<R>, HB_ROWS_BLOCKS<R>)
cluster_spectrum(struct cluster_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int THREADS = HB_ROWS_THREADS<R>;
    cluster_block k;
    cluster_init<K, R>(k, shared, job.matrix);
    const int64_t c = blockIdx.x / K;
    cluster_sync();               // all blocks are there
    cluster_item<float, K> x;
    float2 mark = make_float2(0, 0);
    uint32_t none = 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < 8 * R; i += THREADS) {
        cluster_load_filter<K, R>(x, job, c, i, k.rank);
        cluster_measure<float, K, true>(none, mark, x);
    }
    mark = cluster_together<float, K, R>(k, none, mark);
    const float in = fminf(hb_fused_scale(mark.x, 0), 0x1p100f), all = hb_fused_scale(mark.y, 15);
    if (k.rank == 0 && threadIdx.x == 0)
        job.undo[c] = make_float2(4 / all, mark.x > 0 ? mark.y / mark.x : 1);
#pragma unroll 1
    for (int i = threadIdx.x; i < 8 * R; i += THREADS) {
        cluster_load_filter<K, R>(x, job, c, i, k.rank);
        cluster_send<float, K, R>(k, x, i, in * (CLUSTER_TOP / K));
    }
    cluster_sync();               // planes hold z
    cluster_outer<K, R, false>(k);
    __syncthreads();
    hb_inner inner;
    hb_inner_load(inner, k.inner, k.me);
    const float gain = all / in * (K * R / 16.0f / (CLUSTER_TOP * CLUSTER_TOP));
    uint4 *const spectrum = job.spectrum + (c * K + k.rank) * R * 64 + k.me.lane;
#pragma unroll 1
    for (int slot = k.warp; slot < R; slot += CLUSTER_WARPS<R>) {
        hb_tile z;
        hb_inner_there(z, inner, hb_shared_address(k.planes), HB_PLANE<R>, slot, k.me);
        hb_keep(spectrum + slot * 64, z, gain);
    }
}
#endif
