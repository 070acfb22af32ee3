// cluster.cuh: rows that fit into the shared memory of a cluster of blocks, CUDA.
//     y = h * u + d u (adjoint: correlation), rows of L <= N = K M, M = R 256      f16, bf16
//     GATED (hb.h, hb_conv_gates): y = tap(post) (h * r + d r), r = tap(u) tap(pre)
// Method    n = a M + m, k = j + K k'. Block j of the cluster has what belongs to its k:
//               z_j[m] = sum_a e^{-2 pi i a (j - 1/4) / K} x[a M + m]       a right-angle DFT of K
//           and N is reached by a transform of M points with s = (j - 1/4) / K in the place of
//           mma.cuh's -1/4, complex inputs, and nothing else to turn: the DFT of K has constants
//           only. Back the same: y[a M + m] = Re sum_j e^{2 pi i a (j - 1/4) / K} w_j[m].
//           Its outer step is a DFT of R = 16 Q by classes, p = Q pi + c, k = kappa + 16 m:
//               (k + s) p / R = (kappa + s)(Q pi + c) / R + m c / Q     and whole turns,
//           so class c is a product with its own matrix of 16 x 16, and a DFT of Q of the classes
//           (f32, additions) makes all k of them; then T(k, r) = e^{-2 pi i (k + s) r / 256 R}.
//           With the whole matrix of R x R mma and what it reads were 30 % of the time. Back the
//           same with k = Q kappa + c, p = pi + 16 m, and e^{2 pi i m s / Q} is left over, which
//           the DFT of K back has in its constants.
//           A block reads its share of m of all K segments of u, does the DFT of K (by mma, of
//           filters in f32) and puts z_j into the planes of block j (distributed shared memory).
//           Then, by itself: outer step, in place, as a warp has whole columns; rows and product as
//           rows.cuh has them; outer step back, in place. At last it gets its share of m from all
//           planes, does the DFT of K back and stores y. Three times a row blocks wait for each other: largest |u| is
//           known and planes are free; planes hold z; planes hold w. The first two by counting the
//           bytes that come, the third by a barrier that orders shared memory alone: barriers that
//           order device memory, too, were 7 % of a profile, though the time fell by 1 %.
//           A spectrum is made by the same steps from float32, measured by the cluster.
//           Gradients: a cluster has a channel. A row of u is transformed and kept (half2, device
//           memory), then dy, whose product with it is added (f32) to sums in shared memory and
//           whose way back is du; dh comes back from the sums.
//           GATED: r is made where u is read (signals.cuh) and stays in registers till its largest
//           is known; d is a tap; tap(post) multiplies y as it is stored.
// Exponents mma.cuh; what goes in is CLUSTER_TOP larger till the product and spectra as much
//           smaller, so that with K one outlier does not push the rest below what a half can hold.
// Cost      a sample: mma 1280 flop (R = 64, the DFT of K apart), of which an outer step 256;
//           memory 4 bytes + spectrum 4 / B; L2 the spectrum again, 4, and u again, 2; the network
//           between SMs 8 (K - 1) / K bytes. A block has 8 warps and two are on an SM; for R = 128,
//           and for gradients with R > 32, it has 16 and is alone. Of 132 SMs clusters of 4 fill
//           124, of 16 112: what GPCs have.
//           Measured, 201M samples, f16, with spectra (0.11 .. 0.17 of it): K = 4, 8, 16 with
//           R = 64 1.34, 1.45, 1.57 ms, R = 128 2.07. Gradients, f16: K = 8, R = 32 2.66 ms,
//           K = 16, R = 32: 3.06, R = 64: 3.58.
// Limits    K = 4, 8, 16 (16 needs leave: not portable); R = 32, 48, 64, forward 128 with K = 16.
//           GATED: K = 4, 8.
#ifndef HB_FUSED_CLUSTER_CUH
#define HB_FUSED_CLUSTER_CUH

#include "columns.cuh"
#include "rows.cuh"

struct cluster_job {
    const void *in;  struct hb_strides si;   // u (f16, bf16)
    void *out;       struct hb_strides so;   // like u
    const float *h;            // (D,L): of cluster_spectrum
    uint4 *spectrum;           // [D][K][k < R][2 tiles][32 lanes] of 4 half2: fragments of C
    float2 *undo;              // (D) 4 2^-e1, sum |h| / max |h|; cluster_spectrum writes it
    const float *d;            // or NULL: y += d u; spectrum: added to h[0]
    const uint4 *matrix;       // [K]: CLUSTER_MATRIX of block j, F
    int B, D, L;
    struct hb_conv_gates gates;              // GATED only: as hb.h says; d is in the spectrum
    int taps;
};

constexpr float CLUSTER_TOP = 16;

// Bytes of the outer step's matrices: [there, back][class][real, imaginary][32 lanes] uint4.
template <int R> constexpr int CLUSTER_MATRIX = R / 16 * 2048;

// Rows of planes lie class by class: where row p of z, or slot k, is, and which one is there.
template <int R> __device__ __forceinline__ constexpr int cluster_row(int k)
{
    constexpr int Q = R / 16;
    return k % Q * 16 + k / Q;
}

template <int R> __device__ __forceinline__ constexpr int cluster_slot(int row)
{
    constexpr int Q = R / 16;
    return row % 16 * Q + row / 16;
}

// Byte of chunk c (8 halves) of a row in a plane: eight rows that a product reads or leaves at once
// meet in no bank (Q = 3: some do).
__device__ __forceinline__ int cluster_at(int row, int c)
{
    return hb_place(row, c ^ (row >> 4 & 1) * 3 ^ (row >> 5 & 1) * 4);
}

// The kappa (back: pi) of row i of a product, for that.
__host__ __device__ __forceinline__ constexpr int cluster_kappa(int Q, int i)
{
    if (Q == 2) return i % 8 * 2 + i / 8;
    if (Q == 8) return i % 2 * 8 + i / 2;
    return Q == 3 && i >= 12 ? i : i % 4 * Q + i / 4;
}

// Rows of the slots kappa(i + 8 h) + 16 m, i < 8, and bytes of their chunk c in a plane. But for
// Q = 3 the rows are constants away from those of kappa(i), and the bytes but for two bits.
template <int R> struct cluster_targets {
    static constexpr int Q = R / 16;
    int i, c, row, at;

    __device__ __forceinline__ cluster_targets(int i_, int c_)
        : i(i_), c(c_), row(cluster_row<R>(cluster_kappa(Q, i_))), at(cluster_at(row, c_)) { }
    __device__ __forceinline__ int row_of(int h, int m) const
    {
        if (Q == 3) return cluster_row<R>(cluster_kappa(Q, i + 8 * h) + 16 * m);
        return row + (Q == 2 ? 16 * h + 8 * m : Q == 4 ? 32 * h + 4 * m : 64 * h + 2 * m);
    }
    __device__ __forceinline__ int byte_of(int h, int m) const
    {
        if (Q == 3) return cluster_at(row_of(h, m), c);
        const int flip = Q == 2 ? h * 3 : Q == 4 ? m % 2 * 3 ^ h * 4 : m % 2 * 4 ^ m / 2 % 2 * 3;
        return (at ^ flip * 16) + (row_of(h, m) - row) * 512;
    }
};

// Host: the matrices of a block with shift s, in float64.
static inline void cluster_fill(uint32_t *words, int R, double s)
{
    const int Q = R / 16;
    for (int back = 0; back < 2; back++)
        for (int c = 0; c < Q; c++)
            hb_fused_tile(words + (back * Q + c) * 256, [=](int row, int col, bool imaginary) {
                const int to = cluster_kappa(Q, row), from = Q * col + c;
                const double x = back ? (from + s) * to : -(to + s) * from;
                return imaginary ? sin(2 * M_PI * x / R) : cos(2 * M_PI * x / R);
            });
}

// --- between blocks -----------------------------------------------------------------------------
// All threads of all blocks of the cluster; what each block wrote into its own shared memory is
// there for all. Nobody waits for device memory.
__device__ __forceinline__ void cluster_meet()
{
    __syncwarp();                 // .aligned: all lanes at once
    asm volatile("fence.release.sync_restrict::shared::cta.cluster;\n"
                 "barrier.cluster.arrive.relaxed.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// What blocks put into each other's shared memory is counted there (mbarrier): a phase ends when
// one thread has said how many bytes it has (cluster_expect) and they have come, in either order.
// Phases have parities 0, 1, 0, ...
enum { CLUSTER_MARKS, CLUSTER_Z, CLUSTER_COUNTS };         // each 8 bytes

// By one thread, before a cluster_meet.
__device__ __forceinline__ void cluster_counts_init(uint32_t counts)
{
    for (int i = 0; i < CLUSTER_COUNTS; i++)
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(counts + 8 * i) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// By one thread a phase.
__device__ __forceinline__ void cluster_expect(uint32_t count, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(count), "r"(bytes) : "memory");
}

// Till the phase has ended. It acquires for a block, as what came is in this one's memory.
__device__ __forceinline__ void cluster_wait(uint32_t count, uint32_t parity)
{
    uint32_t done;
    do {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done) : "r"(count), "r"(parity) : "memory");
    } while (!done);
    __syncwarp();
}

// The place in block `rank` that corresponds to `at` in this one's shared memory.
__device__ __forceinline__ uint32_t cluster_address(uint32_t at, int rank)
{
    uint32_t there;
    // volatile: it is not worth a register from one row to the next
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(rank));
    return there;
}

// To another block (cluster_address), counted there; nothing waits for it here.
template <int WORDS>
__device__ __forceinline__ void cluster_put(uint32_t at, const uint32_t (&x)[WORDS],
                                            uint32_t count)
{
    static_assert(WORDS == 1 || WORDS == 2 || WORDS == 4);
    if constexpr (WORDS == 4)
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], "
                     "{%1,%2,%3,%4}, [%5];"
                     :: "r"(at), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(count)
                     : "memory");
    else if constexpr (WORDS == 2)
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], "
                     "{%1,%2}, [%3];" :: "r"(at), "r"(x[0]), "r"(x[1]), "r"(count) : "memory");
    else
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];"
                     :: "r"(at), "r"(x[0]), "r"(count) : "memory");
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

// The constants of the DFT of K by mma: fragments each way, and how many m = p / 16 a block's rows
// have, each with its own on the way back.
template <int K> constexpr int CLUSTER_DFT_FRAGMENTS = K == 16 ? 4 : 1;
template <int R> constexpr int CLUSTER_DFT_BACK = R == 48 ? 2 : 1;
template <int K, int R> constexpr int CLUSTER_DFT =
    (1 + CLUSTER_DFT_BACK<R>) * CLUSTER_DFT_FRAGMENTS<K> * 32 * 16;              // bytes

// Sizes of a kernel. SUMS: with a block's share of a filter's gradient (f32) in shared memory.
template <int K_, int R_, int WARPS_, bool SUMS_> struct cluster_shape {
    static constexpr int K = K_, R = R_, WARPS = WARPS_, THREADS = 32 * WARPS;
    static constexpr int BLOCKS = WARPS == 8 ? 2 : 1;      // on an SM
    static constexpr int ITEMS = (8 * R - 1) / THREADS + 1;                  // of a thread
    static constexpr int Q = R / 16;                       // classes
    static constexpr int TILES = Q <= 4 ? 2 : 1;           // of 8 columns at once, outer step
    static constexpr int INNER = 6 * 32 * 16;              // bytes
    static constexpr int SHARED = 2 * HB_PLANE<R> + CLUSTER_MATRIX<R> + INNER + R * 24
                                  + 2 * K * WARPS * 8 + 8 * CLUSTER_COUNTS
                                  + HB_FILTERS * (int)sizeof(hb_taps) + CLUSTER_DFT<K, R>
                                  + (SUMS_ ? R * 64 * 32 : 0);
};
template <int K, int R> using cluster_shape_of = cluster_shape<K, R, R <= 64 ? 8 : 16, false>;
// Up to R = 32 the sums leave room for two blocks on an SM.
template <int K, int R> using cluster_shape_dh = cluster_shape<K, R, R <= 32 ? 8 : 16, true>;

struct cluster_block {
    unsigned char *planes;
    uint4 *matrix, *inner;     // CLUSTER_MATRIX; the rows' constants
    float4 *turns;             // [row] u(f), u(8 f): cluster_turn
    float2 *downs;             // [row] u(128 f)
    float2 *marks;             // [parity][K][warp] largest |x| and sum |x|
    uint32_t counts;           // address of CLUSTER_COUNTS
    uint32_t parity[CLUSTER_COUNTS];                       // of the phases that are under way
    hb_taps *taps;             // [HB_FILTERS], GATED
    uint4 *dft;                // CLUSTER_DFT
    float4 *sums;              // [R][4][32 lanes], SUMS
    hb_lane me;
    int rank, warp;
};

// u(m) = e^{-2 pi i m / n}, n = 1024 R K, -n / 2 <= m < n. T(k, r) = u(f r) with
// f = 4 K (k + s) = 4 K k + 4 j - 1.
template <class S> __device__ __forceinline__ float2 cluster_turn(int m)
{
    return hb_unit(m, 1024 * S::R * S::K);
}

template <int K> __device__ __forceinline__ int cluster_f(int k, int rank)
{
    return 4 * K * k + 4 * rank - 1;
}

// What a thread knows of itself, anew for each row.
__device__ __forceinline__ void cluster_know(cluster_block &k)
{
    const int thread = cluster_anew((int)threadIdx.x), lane = thread & 31;
    k.warp = thread >> 5;
    k.me = { lane, lane >> 2, lane & 3, k.warp % HB_GROUPS, k.warp / HB_GROUPS };
}

// Where things are.
template <class S>
__device__ __forceinline__ void cluster_begin(cluster_block &k, unsigned char *shared)
{
    constexpr int K = S::K, R = S::R;
    k.planes = shared;
    k.matrix = (uint4 *)(shared + 2 * HB_PLANE<R>);
    k.inner = k.matrix + CLUSTER_MATRIX<R> / 16;
    k.turns = (float4 *)(k.inner + S::INNER / 16);
    k.downs = (float2 *)(k.turns + R);
    k.marks = k.downs + R;
    k.counts = hb_shared_address(k.marks + 2 * K * S::WARPS);
    for (uint32_t &parity : k.parity) parity = 0;
    k.taps = (hb_taps *)(k.marks + 2 * K * S::WARPS + CLUSTER_COUNTS);
    k.dft = (uint4 *)(k.taps + HB_FILTERS);
    k.sums = (float4 *)(k.dft + CLUSTER_DFT<K, R> / 16);
    k.rank = (int)(blockIdx.x % K);
    cluster_know(k);
}

// Its constants, and the counts; a cluster_meet, and others may put.
template <class S>
__device__ __forceinline__ void cluster_init(const cluster_block &k, const uint4 *matrix)
{
    constexpr int K = S::K, R = S::R;
    if (threadIdx.x == 0) cluster_counts_init(k.counts);
    matrix += k.rank * (CLUSTER_MATRIX<R> / 16 + 64);
    for (int i = threadIdx.x; i < CLUSTER_MATRIX<R> / 16; i += S::THREADS)
        k.matrix[i] = matrix[i];
    if (k.warp == 0) {
        hb_inner inner;
        hb_inner_init(inner, matrix + CLUSTER_MATRIX<R> / 16, k.me);
        hb_inner_store(k.inner, inner, k.me);
    }
    for (int row = threadIdx.x; row < R; row += S::THREADS) {
        const int f = cluster_f<K>(cluster_slot<R>(row), k.rank);
        const float2 one = cluster_turn<S>(f), eight = cluster_turn<S>(8 * f);
        k.turns[row] = make_float4(one.x, one.y, eight.x, eight.y);
        k.downs[row] = cluster_turn<S>(128 * f);
    }
}

// --- signals ------------------------------------------------------------------------------------
template <class T, int W> struct alignas(W * sizeof(T) > 16 ? 16 : W * sizeof(T)) cluster_words {
    uint32_t x[W * sizeof(T) / 4];
};
template <class T, int K> using cluster_item = cluster_words<T, CLUSTER_WIDTH<K>>[K];

// Of item i: the row of planes, its column.
template <class S>
__device__ __forceinline__ void cluster_place(int &p, int &column, int i, int rank)
{
    constexpr int K = S::K, R = S::R;
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

// COUNT times W samples from n[a] on of a row on any 2-byte boundary, where all lie within it or
// beyond it: words of 8 bytes, of which one more is read than there are.
template <class T, int W, int COUNT>
__device__ __forceinline__ bool cluster_load_odd(cluster_words<T, W> (&x)[COUNT], const T *row,
                                                 const int (&n)[COUNT], int end)
{
    constexpr int WORDS = W / 4;
    bool whole = true;
#pragma unroll
    for (int a = 0; a < COUNT; a++) whole &= n[a] + W + 4 <= end || n[a] >= end;
    if (!whole) return false;
    const int off = hb_below(row);
    uint2 v[COUNT][WORDS + 1];
#pragma unroll
    for (int a = 0; a < COUNT; a++)
#pragma unroll
        for (int w = 0; w <= WORDS; w++) {
            v[a][w] = make_uint2(0, 0);
            if (n[a] < end) v[a][w] = ((const uint2 *)(row + n[a] - off))[w];
        }
#pragma unroll
    for (int a = 0; a < COUNT; a++)
#pragma unroll
        for (int w = 0; w < WORDS; w++) {
            const uint2 y = hb_shifted(v[a][w], v[a][w + 1], off);
            x[a].x[2 * w] = y.x;
            x[a].x[2 * w + 1] = y.y;
        }
    return true;
}

// Whether W samples of a row of L, from a multiple of W on, may be read at once.
template <class T, int W> __device__ __forceinline__ bool cluster_is_even(const T *row, int L)
{
    return (uintptr_t)row % alignof(cluster_words<T, W>) == 0 && L % W == 0;
}

// COUNT times W samples from n[a] on of a row; 0 from `end` on. EVEN: cluster_is_even. No branches
// between loads, where most are: all are under way.
template <bool EVEN, class T, int W, int COUNT>
__device__ __forceinline__ void cluster_load_from(cluster_words<T, W> (&x)[COUNT], const T *row,
                                                  const int (&n)[COUNT], int end)
{
    if constexpr (EVEN) {
#pragma unroll
        for (int a = 0; a < COUNT; a++) {
            x[a] = {};
            if (n[a] < end) x[a] = *(const cluster_words<T, W> *)(row + n[a]);
        }
    } else {
        if constexpr (sizeof(T) == 2 && W >= 4)
            if (cluster_load_odd<T, W>(x, row, n, end)) return;
#pragma unroll
        for (int a = 0; a < COUNT; a++) cluster_read<T, W>(x[a], row, n[a], end);
    }
}

// A thread's items of a row; 0 from L on, and beyond the last item.
template <bool EVEN, class T, class S>
__device__ __forceinline__ void cluster_load(cluster_item<T, S::K> (&x)[S::ITEMS], const T *row,
                                             int L, int rank)
{
    constexpr int K = S::K, R = S::R;
#pragma unroll
    for (int m = 0; m < S::ITEMS; m++) {
        int p, column, n[K];
        const int i = threadIdx.x + m * S::THREADS;
        cluster_place<S>(p, column, i, rank);
#pragma unroll
        for (int a = 0; a < K; a++) n[a] = p * 256 + column + a * R * 256;
        cluster_load_from<EVEN, T, CLUSTER_WIDTH<K>>(x[m], row, n, i < 8 * R ? L : 0);
    }
}

// Columns 2 i and 2 i + 1.
template <int W>
__device__ __forceinline__ float2 cluster_pair(const cluster_words<float, W> &x, int i)
{
    return make_float2(__uint_as_float(x.x[2 * i]), __uint_as_float(x.x[2 * i + 1]));
}

// Largest |x| of an item and those before, and sum |x|.
template <class S>
__device__ __forceinline__ void cluster_measure(float2 &mark, const cluster_item<float, S::K> &x)
{
#pragma unroll
    for (int a = 0; a < S::K; a++)
#pragma unroll
        for (int w = 0; w < CLUSTER_WIDTH<S::K>; w++) {
            const float v = fabsf(__uint_as_float(x[a].x[w]));
            mark.x = fmaxf(mark.x, v);
            mark.y += v;
        }
}

// Over the warp: the largest x; sum of y, or the largest.
template <bool SUM> __device__ __forceinline__ float2 cluster_reduce(float2 v)
{
#pragma unroll
    for (int x = 1; x < 32; x *= 2) {
        const float y = __shfl_xor_sync(~0u, v.y, x);
        v.x = fmaxf(v.x, __shfl_xor_sync(~0u, v.x, x));
        v.y = SUM ? v.y + y : fmaxf(v.y, y);
    }
    return v;
}

// Ends the phase that is under way: all of `count` has come.
__device__ __forceinline__ void cluster_await(cluster_block &k, int count)
{
    cluster_wait(k.counts + 8 * count, k.parity[count]);
    k.parity[count] ^= 1;
}

// What all threads of the cluster found together. All planes may be written after this: a warp
// sends its mark when what it read of any plane before has come (its results are on their way, and
// asm volatile keeps the order), and here every warp's mark is awaited.
// A phase begins where the one before has ended in all blocks, as expectations and bytes must not
// meet those of another: to send the next mark a warp must have seen all z since (cluster_there),
// or a barrier of the cluster, and every block sends z only after it has all marks. Marks alternate
// between two places, as a warp that has no item may still be reading when the next are sent.
template <class T, class S, bool SUM = true>
__device__ __forceinline__ float2 cluster_together(cluster_block &k, uint32_t peak, float2 mark)
{
    constexpr int K = S::K, MARKS = K * S::WARPS;
    if constexpr (sizeof(T) == 2)
        mark.x = hb_magnitude<T>(max(peak & 0xffff0000u, peak << 16));
    mark = cluster_reduce<SUM>(mark);
    const float2 *const marks = k.marks + k.parity[CLUSTER_MARKS] * MARKS;
    const uint32_t count = k.counts + 8 * CLUSTER_MARKS;
    if (threadIdx.x == 0) cluster_expect(count, MARKS * 8);
    if (k.me.lane < K) {
        const uint32_t here = hb_shared_address(marks + k.rank * S::WARPS + k.warp);
        const uint32_t v[2] = { __float_as_uint(mark.x), __float_as_uint(mark.y) };
        cluster_put(cluster_address(here, k.me.lane), v, cluster_address(count, k.me.lane));
    }
    cluster_await(k, CLUSTER_MARKS);
    mark = make_float2(0, 0);
    for (int i = k.me.lane; i < MARKS; i += 32) {
        mark.x = fmaxf(mark.x, marks[i].x);
        mark.y = SUM ? mark.y + marks[i].y : fmaxf(mark.y, marks[i].y);
    }
    return cluster_reduce<SUM>(mark);
}

// z of one transform: both planes.
template <class S> __device__ __forceinline__ void cluster_expect_z(const cluster_block &k)
{
    if (threadIdx.x == 0) cluster_expect(k.counts + 8 * CLUSTER_Z, 2 * HB_PLANE<S::R>);
}

// Item i, times scale, by the DFT of K into the planes of all blocks, which count it.
template <class S>
__device__ __forceinline__ void cluster_send(const cluster_block &k,
                                             const cluster_item<float, S::K> &x,
                                             int i, float scale)
{
    constexpr int K = S::K, R = S::R;
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
    cluster_place<S>(p, column, i, k.rank);
    const uint32_t at = hb_shared_address(k.planes) + cluster_at(cluster_row<R>(p), column >> 3)
                        + 2 * (column & 7);
#pragma unroll
    for (int a = 0; a < K; a++) {
        const uint32_t there = cluster_address(at, cluster_index<K>(a));
        const uint32_t count = cluster_address(k.counts + 8 * CLUSTER_Z, cluster_index<K>(a));
        cluster_put(there, re[a], count);
        cluster_put(there + HB_PLANE<R>, im[a], count);
    }
}

// --- the block's own steps ----------------------------------------------------------------------
// What is flipped in the place of row 16 c against that of row 0.
__device__ __forceinline__ int cluster_class_flip(int c)
{
    return (c % 2 * 3 ^ c / 2 % 2 * 4) * 16;
}

// B of 8 TILES columns from r on of all classes. One tile: [class]: real parts, imaginary parts.
template <class S>
__device__ __forceinline__ void cluster_columns(uint32_t (&br)[S::Q][S::TILES][2],
                                                uint32_t (&bi)[S::Q][S::TILES][2], uint32_t planes,
                                                int r, hb_lane me)
{
    constexpr int TILES = S::TILES;
    const int half = me.lane / 16;                         // tile, or part where there is one
    const uint32_t at = planes + cluster_at(me.lane % 16, r / 8 + (TILES == 2 ? half : 0))
                        + (TILES == 2 ? 0 : half * HB_PLANE<S::R>);
#pragma unroll
    for (int c = 0; c < S::Q; c++) {
        const uint32_t from = (at ^ cluster_class_flip(c)) + 8192 * c;
        uint32_t x[4], y[4];
        hb_load_trans(x, from);
        if constexpr (TILES == 2) hb_load_trans(y, from + HB_PLANE<S::R>);
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++) {
            br[c][i / 2][i % 2] = x[i];
            bi[c][i / 2][i % 2] = TILES == 2 ? y[i] : x[2 + i];
        }
    }
}

// Each class times its matrix. Sums that follow each other are not the same, so that none waits for
// the one before.
template <int Q, int TILES>
__device__ __forceinline__ void cluster_products(float (&re)[Q][TILES][4],
                                                 float (&im)[Q][TILES][4],
                                                 const uint32_t (&br)[Q][TILES][2],
                                                 const uint32_t (&bi)[Q][TILES][2],
                                                 const uint4 *matrix)
{
#pragma unroll
    for (int c = 0; c < Q; c++) {
        uint32_t gr[4], gi[4], minus[4];
        hb_fragment(gr, matrix[64 * c]);
        hb_fragment(gi, matrix[64 * c + 32]);
        hb_negated(minus, gi);
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                const auto &r = br[c][t], &i = bi[c][t];
                if (n == 0) hb_mma(re[c][t], gr, r[0], r[1]);
                if (n == 1) hb_mma(im[c][t], gr, i[0], i[1]);
                if (n == 2) hb_mma(im[c][t], gi, r[0], r[1]);
                if (n == 3) hb_mma(re[c][t], minus, i[0], i[1]);
            }
    }
}

// v[m] = sum_c v[c] e^{-2 pi i m c / Q}, BACK: the conjugate factors.
template <int Q, bool BACK> __device__ __forceinline__ void cluster_classes(float2 (&v)[Q])
{
    if constexpr (Q == 3) {
        constexpr float SIN = BACK ? 0.8660254038f : -0.8660254038f;
        const float2 sum = make_float2(v[1].x + v[2].x, v[1].y + v[2].y);
        const float2 less = make_float2((v[1].x - v[2].x) * SIN, (v[1].y - v[2].y) * SIN);
        const float2 mid = make_float2(v[0].x - 0.5f * sum.x, v[0].y - 0.5f * sum.y);
        v[0] = make_float2(v[0].x + sum.x, v[0].y + sum.y);
        v[1] = make_float2(mid.x - less.y, mid.y + less.x);
        v[2] = make_float2(mid.x + less.y, mid.y - less.x);
    } else {
        float2 x[Q];
#pragma unroll
        for (int c = 0; c < Q; c++) x[c] = v[c];
        cluster_dft<Q, BACK>(x);
#pragma unroll
        for (int i = 0; i < Q; i++) v[cluster_index<Q>(i)] = x[i];
    }
}

// The outer step in place, of 8 TILES columns from `first` on. BACK: without the turns. A lane has
// columns r + i % 2 of tiles i / 2, slots kappa(g + 8 h) + 16 m; for stmatrix it gives the address
// of row lane % 8 of matrix lane / 8: [part][tile], or [h][part] where there is one tile.
template <class S, bool BACK>
__device__ __forceinline__ void cluster_outer_some(const cluster_block &k, int first)
{
    constexpr int K = S::K, R = S::R, Q = S::Q, TILES = S::TILES, EACH = 2 * TILES;
    const hb_lane me = k.me;
    const uint32_t planes = hb_shared_address(k.planes);
    float re[Q][TILES][4] = {}, im[Q][TILES][4] = {};
    {
        uint32_t br[Q][TILES][2], bi[Q][TILES][2];
        cluster_columns<S>(br, bi, planes, first, me);
        cluster_products(re, im, br, bi, k.matrix + (BACK ? 64 * Q : 0) + me.lane);
    }
    __syncwarp();                 // everybody has read
    const int r = first + 2 * me.q, high = me.lane / 16, low = me.lane / 8 % 2;
    const cluster_targets<R> own(me.g, 0), to(me.lane % 8, first / 8 + (TILES == 2 ? low : 0));
    const uint32_t at = planes + (TILES == 2 ? high : low) * HB_PLANE<R>
                        + (TILES == 2 ? 0 : (to.row_of(high, 0) - to.row) * 512);
    float2 next = make_float2(0, 0), w[2] = { next, next };
    if constexpr (!BACK) {        // T; 16 slots further
        next = cluster_turn<S>(64 * K * r);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            w[h] = cluster_turn<S>(cluster_f<K>(cluster_kappa(Q, me.g + 8 * h), k.rank) * r);
            w[h] = make_float2(w[h].x * (1.0f / R), w[h].y * (1.0f / R));
        }
    }
#pragma unroll
    for (int x = 0; x < 4 * TILES; x++) {
        float2 v[Q];
#pragma unroll
        for (int c = 0; c < Q; c++) v[c] = make_float2(re[c][x / 4][x % 4], im[c][x / 4][x % 4]);
        cluster_classes<Q, BACK>(v);
#pragma unroll
        for (int c = 0; c < Q; c++) {
            re[c][x / 4][x % 4] = v[c].x;
            im[c][x / 4][x % 4] = v[c].y;
        }
    }
    uint32_t held[4];
#pragma unroll
    for (int x = 0; x < 2 * Q; x++) {                      // two tiles: h by h
        const int h = TILES == 2 ? x / Q : x % 2, m = TILES == 2 ? x % Q : x / 2;
        float2 v[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++)
            v[i] = make_float2(re[m][i / 2][2 * h + i % 2], im[m][i / 2][2 * h + i % 2]);
        if constexpr (!BACK) {
            const float4 turn = k.turns[own.row_of(h, m)];
            const float2 odd = hb_cmul(w[h], make_float2(turn.x, turn.y));
            const float2 eight = make_float2(turn.z, turn.w);
            v[0] = hb_cmul(v[0], w[h]);
            v[1] = hb_cmul(v[1], odd);
            if constexpr (TILES == 2) {
                v[2] = hb_cmul(v[2], hb_cmul(w[h], eight));
                v[3] = hb_cmul(v[3], hb_cmul(odd, eight));
            }
            w[h] = hb_cmul(w[h], next);
        }
        uint32_t out[4];
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            out[t] = hb_pack(v[2 * t].x, v[2 * t + 1].x);
            out[TILES + t] = hb_pack(v[2 * t].y, v[2 * t + 1].y);
        }
        if constexpr (TILES == 2) {
            hb_store_matrices(at + to.byte_of(h, m), out);
        } else {                  // both h at once: the first one waits
            held[2 * h] = out[0];
            held[2 * h + 1] = out[1];
            if (h == 1) hb_store_matrices(at + to.byte_of(0, m), held);
        }
    }
}

template <class S, bool BACK>
__device__ __forceinline__ void cluster_outer(const cluster_block &k)
{
    constexpr int COLUMNS = 8 * S::TILES;
#pragma unroll 1
    for (int first = COLUMNS * k.warp; first < 256; first += COLUMNS * S::WARPS)
        cluster_outer_some<S, BACK>(k, first);
}

// x, turned by conj(T), to its row. w: T at this lane's first point, r = 16 g + 2 q.
template <class S>
__device__ __forceinline__ void cluster_inner_store(const cluster_block &k, const hb_tile &x,
                                                    int row, float2 w)
{
    const float4 turn = k.turns[row];
    const float2 one = make_float2(turn.x, turn.y), tile = make_float2(turn.z, turn.w);
    const float2 down = k.downs[row];
    const int first = cluster_at(row, 2 * k.me.g) + 4 * k.me.q;
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
            *(uint32_t *)(to + HB_PLANE<S::R>) = hb_pack(v0.y, v1.y);
            if (h == 0) at = hb_cmul(at, down);
        }
        if (t == 0) w = hb_cmul(w, tile);
    }
}

// The rows' step of all slots, its second half: what make(z, inner, row) leaves goes back to the
// planes. A warp has rows `warp` modulo WARPS, slots Q kappa, Q kappa + 1, .. one after the other.
template <class S, class F>
__device__ __forceinline__ void cluster_slots(const cluster_block &k, F make)
{
    constexpr int K = S::K, R = S::R;
    const hb_lane me = k.me;
    hb_inner inner;
    hb_inner_load(inner, k.inner, me);
    const int from = 16 * me.g + 2 * me.q;
    const float2 next = cluster_turn<S>(4 * K * from);
#pragma unroll 1
    for (int first = k.warp; first < 16; first += S::WARPS) {
        float2 w = cluster_turn<S>(cluster_f<K>(cluster_slot<R>(first), k.rank) * from);
#pragma unroll 1
        for (int row = first; row < R; row += 16) {
            hb_tile z, x;
            make(z, inner, row);
            hb_inner_and_back(x, inner, z);
            __syncwarp();         // everybody has read the row
            cluster_inner_store<S>(k, x, row, w);
            w = hb_cmul(w, next);
        }
    }
}

// The row that cluster_slots has after this one; after the last, another one.
template <class S> __device__ __forceinline__ int cluster_after(int row)
{
    return row + 16 < S::R ? row + 16 : row % 16 + S::WARPS;
}

// Transform of the slot in a row of the planes.
template <class S>
__device__ __forceinline__ void cluster_transform(hb_tile &z, const cluster_block &k,
                                                  const hb_inner &inner, int row)
{
    const int lane = k.me.lane;
    const uint32_t at = hb_shared_address(k.planes) + cluster_at(row, lane % 16 * 2 + lane / 16);
    uint32_t xr[4], xi[4];
    hb_load_trans(xr, at);
    hb_load_trans(xi, at + HB_PLANE<S::R>);
    hb_inner_forth(z, inner, xr, xi);
}

// Transforms of all slots, times gain, to memory. to: of this lane, slot 0.
template <class S>
__device__ __forceinline__ void cluster_keep(const cluster_block &k, uint4 *to, float gain)
{
    hb_inner inner;
    hb_inner_load(inner, k.inner, k.me);
#pragma unroll 1
    for (int slot = k.warp; slot < S::R; slot += S::WARPS) {
        hb_tile z;
        cluster_transform<S>(z, k, inner, slot);
        hb_keep(to + slot * 64, z, gain);
    }
}

// --- the kernels --------------------------------------------------------------------------------
// Asks for this block's share of a row to be brought to L2: a thread a line of 128 bytes. x NULL:
// there is none.
template <class T, class S>
__device__ __forceinline__ void cluster_prefetch(const void *x, struct hb_strides s, int64_t c,
                                                 int64_t b, int L, int rank)
{
    constexpr int K = S::K, R = S::R;
    constexpr int EACH = 128 / (int)sizeof(T), LINES = R * 256 / EACH;   // all K segments'
    constexpr int OF_ONE = LINES / K;
    const T *const row = (const T *)x + c * s.c + b * s.b;
    for (int i = threadIdx.x; x && i < LINES; i += S::THREADS) {
        const int n = i / OF_ONE * R * 256 + rank * (R / K) * 256 + i % OF_ONE * EACH;
        if (n < L) hb_prefetch_line(row + n);
    }
}

// A thread's items of a row, times scale, to the planes of all blocks.
template <class S>
__device__ __forceinline__ void cluster_send_all(const cluster_block &k,
                                                 const cluster_item<float, S::K> (&x)[S::ITEMS],
                                                 float scale)
{
    cluster_expect_z<S>(k);
#pragma unroll
    for (int m = 0; m < S::ITEMS; m++) {
        const int i = threadIdx.x + m * S::THREADS;
        if (i < 8 * S::R) cluster_send<S>(k, x[m], i, scale);
    }
}

// Spectra of all h (+ d at lag 0), and undo. Grid D clusters of K, the rest as below. No warp reads
// of a spectrum but what it wrote.
template <class S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS) cluster_spectrum(struct cluster_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int K = S::K, R = S::R;
    const int64_t c = blockIdx.x / K;
    cluster_block k;
    cluster_begin<S>(k, shared);
    cluster_item<float, K> x[S::ITEMS];                    // under way while constants are made
    const float *const h = job.h + c * job.L;
    if (cluster_is_even<float, CLUSTER_WIDTH<K>>(h, job.L))
        cluster_load<true, float, S>(x, h, job.L, k.rank);
    else cluster_load<false, float, S>(x, h, job.L, k.rank);
    const float d = job.d ? job.d[c] : 0;
    cluster_init<S>(k, job.matrix);
    cluster_meet();               // all blocks are there
    launch_wait();                // lets the rows' kernel begin, too
    if (k.rank == 0 && threadIdx.x == 0)
        x[0][0].x[0] = __float_as_uint(__uint_as_float(x[0][0].x[0]) + d);
    float2 mark = make_float2(0, 0);
#pragma unroll
    for (int m = 0; m < S::ITEMS; m++) cluster_measure<S>(mark, x[m]);
    mark = cluster_together<float, S>(k, 0, mark);
    const float in = fminf(hb_fused_scale(mark.x, 0), 0x1p100f), all = hb_fused_scale(mark.y, 15);
    cluster_send_all<S>(k, x, in * (CLUSTER_TOP / K));
    cluster_await(k, CLUSTER_Z);  // planes hold z
    cluster_outer<S, false>(k);
    __syncthreads();
    cluster_keep<S>(k, job.spectrum + (int64_t)blockIdx.x * R * 64 + k.me.lane,
                    all / in * (K * R / 16.0f / (CLUSTER_TOP * CLUSTER_TOP)));
    if (k.rank == 0 && threadIdx.x == 0)
        job.undo[c] = make_float2(4 / all, mark.x > 0 ? mark.y / mark.x : 1);
}                                 // whatever comes here has come: nobody reads from others

// GATED: what is read of row b of channel c, to L2.
template <class T, class S>
__device__ __forceinline__ void cluster_prefetch_gates(const cluster_job &job, int64_t c, int b,
                                                       int rank)
{
    cluster_prefetch<T, S>(job.in, job.si, c, b, job.L, rank);
    cluster_prefetch<T, S>(job.gates.pre.x, job.gates.pre.sx, c, b, job.L, rank);
    cluster_prefetch<T, S>(job.gates.post.x, job.gates.post.sx, c, b, job.L, rank);
}

// --- gradients ----------------------------------------------------------------------------------
struct cluster_dh_job {
    struct cluster_job du;     // as of cluster_rows: du from dy; d is in no spectrum
    const void *u;   struct hb_strides su;
    float *dh, *dd;            // (D,L) +=, (D) += or NULL
    uint4 *kept;               // [cluster] as the spectrum: transforms of u
};

// Where the sums of tile t of a slot are: real parts; 32 further, imaginary.
__device__ __forceinline__ float4 *cluster_sums(const cluster_block &k, int slot, int t)
{
    return k.sums + (slot * 4 + 2 * t) * 32 + k.me.lane;
}

// to += by x; start: = instead.
__device__ __forceinline__ void cluster_plus(float4 &to, const float (&x)[4], float by, bool start)
{
    float4 v = make_float4(0, 0, 0, 0);
    if (!start) v = to;
    to = make_float4(v.x + by * x[0], v.y + by * x[1], v.z + by * x[2], v.w + by * x[3]);
}

// sums += conj(u) z by; u as hb_keep left it. start: = instead.
__device__ __forceinline__ void cluster_correlate(const cluster_block &k, const hb_tile &z,
                                                  const uint4 (&u)[2], int slot, float by,
                                                  bool start)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        uint32_t v[4];
        float re[4], im[4];
        hb_fragment(v, u[t]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 x = hb_cmul(hb_conj(hb_unpack(v[i])),
                                     make_float2(z.re[t][i], z.im[t][i]));
            re[i] = x.x;
            im[i] = x.y;
        }
        float4 *const at = cluster_sums(k, slot, t);
        cluster_plus(at[0], re, by, start);
        cluster_plus(at[32], im, by, start);
    }
}

// Of a slot the transform of u, as hb_keep left it, and the spectrum of h, for this lane. They are
// asked for a slot ahead.
struct cluster_spectra_of { uint4 u[2], h[2]; };

__device__ __forceinline__ void cluster_spectra_load(cluster_spectra_of &x, const uint4 *u,
                                                     const uint4 *h, int slot)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        x.u[t] = u[slot * 64 + 32 * t];
        x.h[t] = h[slot * 64 + 32 * t];
    }
}

// z = sums, scaled.
__device__ __forceinline__ void cluster_summed(hb_tile &z, const cluster_block &k, int slot,
                                               float scale)
{
#pragma unroll
    for (int t = 0; t < 2; t++) {
        const float4 re = cluster_sums(k, slot, t)[0], im = cluster_sums(k, slot, t)[32];
        const float a[4] = { re.x, re.y, re.z, re.w }, b[4] = { im.x, im.y, im.z, im.w };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            z.re[t][i] = a[i] * scale;
            z.im[t][i] = b[i] * scale;
        }
    }
}

// --- the DFT of K by mma: 16-bit signals ---------------------------------------------------------
// A unit is 64 columns of one row of planes, of all segments: one warp's. Of segments (planes)
// 2q, 2q+1, 2q+8, 2q+9 a lane has columns 8g .. 8g+7, 16 bytes each: tile t = 0..3 of 16 columns
// has rows g: 8g + t and g + 8: 8g + t + 4, and puts and gets of a warp are 128 bytes a block.
// There A = samples, B = constants e^{-2 pi i a (j - 1/4) / K}; back A = what planes have, B the
// same transposed. A constant is the sum of two halves: where K = 8, the second one is in the rows
// that 8 segments leave free. K = 4: a lane has segment (plane) q alone, and 8 columns of A do.
template <int K> using cluster_part = cluster_words<__half, 8>[K / 4];

// What samples are times as they go in; the constants undo it. So what is 2^-24 of the largest is
// normal.
constexpr float CLUSTER_IN = 1024;

// Segment or plane s of a lane.
template <int K> __device__ __forceinline__ int cluster_segment(int s, hb_lane me)
{
    return K == 4 ? me.q : 2 * me.q + s % 2 + s / 2 * 8;
}

// The row of planes of a unit, and this lane's first column.
template <class S>
__device__ __forceinline__ void cluster_lane_place(int &p, int &column, int unit,
                                                   const cluster_block &k)
{
    p = k.rank * (S::R / S::K) + (unit >> 2);
    column = (unit & 3) * 64 + 8 * k.me.g;
}

// Places of this lane's samples of a unit, n: of segments from 2q on.
template <class S>
__device__ __forceinline__ void cluster_lane_samples(int (&n)[S::K / 4], int unit,
                                                     const cluster_block &k)
{
    int p, column;
    cluster_lane_place<S>(p, column, unit, k);
#pragma unroll
    for (int s = 0; s < S::K / 4; s++)
        n[s] = (cluster_segment<S::K>(s, k.me) * S::R + p) * 256 + column;
}

// e^{-2 pi i (a + m / Q)(j - 1/4) / K}, (a + 1)(4 j + 1) Q < 2^31.
template <class S> __device__ __forceinline__ float2 cluster_factor(int a, int j, int m)
{
    constexpr int n = 4 * S::K * S::Q;
    return hb_unit((a * S::Q + m) * (4 * j - 1) % n, n);
}

// Two neighbours in k of one constant, real or imaginary part: as half, and what is missing. There,
// or back for rows from p = 16 of on (of is 0 on the way there).
template <class S>
__device__ __forceinline__ void cluster_constant(uint32_t &high, uint32_t &low, bool back, int of,
                                                 bool imaginary, int n, int m)
{
    constexpr int K = S::K;
    float x[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int a = back ? n : m + i, j = back ? m + i : n;
        const float2 e = cluster_factor<S>(a, j, of);
        x[i] = (imaginary ? e.y : e.x) * (back ? 1 : CLUSTER_TOP / K / CLUSTER_IN);
    }
    high = hb_pack(x[0], x[1]);
    const float2 v = hb_unpack(high);
    low = hb_pack(x[0] - v.x, x[1] - v.y);
}

// As hb_mma, for the first 8 columns of A.
__device__ __forceinline__ void cluster_mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(b));
}

// B of K = 4. There, rows: segment q, high and low half of the constant; columns: block g / 2, real
// or imaginary part. Back, rows: block q, real and imaginary; columns: segment g / 2, high or low.
template <class S>
__device__ __forceinline__ uint32_t cluster_four(bool back, int of, hb_lane me)
{
    const int a = back ? me.g / 2 : me.q, j = back ? me.q : me.g / 2;
    const float2 e = cluster_factor<S>(a, j, of);
    if (back) {
        const float2 high = hb_unpack(hb_pack(e.x, e.y));
        return me.g % 2 ? hb_pack(e.x - high.x, e.y - high.y) : hb_pack(e.x, e.y);
    }
    const float x = (me.g % 2 ? e.y : e.x) * (CLUSTER_TOP / 4 / CLUSTER_IN);
    return hb_pack(x, x - hb_unpack(hb_pack(x, 0)).x);
}

// m = p / 16 of a block's first row.
template <class S> __device__ __forceinline__ int cluster_first_m(const cluster_block &k)
{
    return k.rank * (S::R / S::K) / 16;
}

// Fragments of B: there, then back, for each m of this block. K = 8: real high, low, imaginary
// high, low; K = 16: [columns 8 ..][imaginary] high (rows 2q, 2q+8), low.
template <class S> __device__ __forceinline__ void cluster_dft_init(const cluster_block &k)
{
    constexpr int K = S::K, COUNT = CLUSTER_DFT_FRAGMENTS<K>;
    for (int i = k.warp; i < (1 + CLUSTER_DFT_BACK<S::R>) * COUNT; i += S::WARPS) {
        uint4 v;
        const bool back = i >= COUNT;
        const int of = back ? cluster_first_m<S>(k) + i / COUNT - 1 : 0;
        const int f = i % COUNT, n = k.me.g + f / 2 * 8, m = 2 * k.me.q;
        if constexpr (K == 4) {
            v = make_uint4(cluster_four<S>(back, of, k.me), 0, 0, 0);
        } else if constexpr (K == 8) {
            cluster_constant<S>(v.x, v.y, back, of, false, n, m);
            cluster_constant<S>(v.z, v.w, back, of, true, n, m);
        } else {
            cluster_constant<S>(v.x, v.z, back, of, f % 2, n, m);
            cluster_constant<S>(v.y, v.w, back, of, f % 2, n, m + 8);
        }
        k.dft[32 * i + k.me.lane] = v;
    }
}

// Those of the way back of a unit, of this lane.
template <class S>
__device__ __forceinline__ const uint4 *cluster_dft_back(const cluster_block &k, int unit)
{
    int m = 0, p, column;
    cluster_lane_place<S>(p, column, unit, k);
    if (CLUSTER_DFT_BACK<S::R> > 1) m = p / 16 - cluster_first_m<S>(k);
    return k.dft + 32 * CLUSTER_DFT_FRAGMENTS<S::K> * (1 + m) + k.me.lane;
}

// Of tile t a pair of neighbours in k, in rows g and g + 8, from words of the two.
__device__ __forceinline__ void cluster_pairs(uint32_t &up, uint32_t &down, const uint32_t (&x)[4],
                                              const uint32_t (&y)[4], int t)
{
    const int w = t / 2;
    up = t % 2 ? hb_high(x[w], y[w]) : hb_low(x[w], y[w]);
    down = t % 2 ? hb_high(x[w + 2], y[w + 2]) : hb_low(x[w + 2], y[w + 2]);
}

// Two samples times scale, as halves; f16: scale is a power of two up to 2^15.
template <class T> __device__ __forceinline__ uint32_t cluster_scaled(uint32_t x, float scale)
{
    if constexpr (HB_IS_HALF<T>) {
        const __half2 v = __hmul2(*(const __half2 *)&x, __floats2half2_rn(scale, scale));
        return *(const uint32_t *)&v;
    } else {
        const float2 v = hb_two<T>(x);
        return hb_pack(v.x * scale, v.y * scale);
    }
}

// Column e of sums: to block `to`; at: its place here.
template <int E>
__device__ __forceinline__ void cluster_send_part(const cluster_block &k, uint32_t at, int to,
                                                  const float (&c)[4][4])
{
    const uint32_t x[4] = { hb_pack(c[0][E], c[1][E]), hb_pack(c[2][E], c[3][E]),
                            hb_pack(c[0][2 + E], c[1][2 + E]), hb_pack(c[2][2 + E], c[3][2 + E]) };
    cluster_put(cluster_address(at, to), x, cluster_address(k.counts + 8 * CLUSTER_Z, to));
}

// One of the constants' fragments.
template <class S, int J, bool IMAGINARY>
__device__ __forceinline__ void cluster_send_some(const cluster_block &k, uint32_t at,
                                                  const uint32_t (&a)[4][4])
{
    const uint4 f = k.dft[32 * (S::K == 8 ? 0 : 2 * J + IMAGINARY) + k.me.lane];
    float c[4][4] = {};
#pragma unroll
    for (int t = 0; t < 4; t++) {
        if constexpr (S::K == 8) hb_mma(c[t], a[t], IMAGINARY ? f.z : f.x, IMAGINARY ? f.w : f.y);
        else hb_mma(c[t], a[t], f.x, f.y);
    }
#pragma unroll
    for (int t = 0; t < 4; t++)
        if constexpr (S::K == 16) hb_mma(c[t], a[t], f.z, f.w);
    const int to = 8 * J + 2 * k.me.q;
    cluster_send_part<0>(k, at + (IMAGINARY ? HB_PLANE<S::R> : 0), to, c);
    cluster_send_part<1>(k, at + (IMAGINARY ? HB_PLANE<S::R> : 0), to + 1, c);
}

// K = 4: v: this lane's 8 samples, scaled.
template <int R>
__device__ __forceinline__ void cluster_send_four(const cluster_block &k, uint32_t at,
                                                  const uint32_t (&v)[4])
{
    const uint32_t f = k.dft[k.me.lane].x;
    float c[4][4] = {};
#pragma unroll
    for (int t = 0; t < 4; t++) {
        uint32_t up, down;
        cluster_pairs(up, down, v, v, t);
        cluster_mma(c[t], up, down, f);
    }
    cluster_send_part<0>(k, at, k.me.q, c);
    cluster_send_part<1>(k, at + HB_PLANE<R>, k.me.q, c);
}

// A unit of a row of halves, times CLUSTER_TOP / K / CLUSTER_IN, by the DFT of K into the planes.
template <class S>
__device__ __forceinline__ void cluster_send_halves(const cluster_block &k,
                                                    const uint32_t (&v)[S::K / 4][4], int unit)
{
    constexpr int K = S::K;
    uint32_t a[4][4];
    int p, column;
    cluster_lane_place<S>(p, column, unit, k);
    const uint32_t at = hb_shared_address(k.planes) + cluster_at(cluster_row<S::R>(p), column >> 3);
    if constexpr (K == 4) {
        cluster_send_four<S::R>(k, at, v[0]);
    } else {
#pragma unroll
        for (int t = 0; t < 4; t++) {
            cluster_pairs(a[t][0], a[t][1], v[0], v[1], t);
            cluster_pairs(a[t][2], a[t][3], v[K / 4 - 2], v[K / 4 - 1], t);
        }
        cluster_send_some<S, 0, false>(k, at, a);
        cluster_send_some<S, 0, true>(k, at, a);
        if constexpr (K == 16) {
            cluster_send_some<S, 1, false>(k, at, a);
            cluster_send_some<S, 1, true>(k, at, a);
        }
    }
}

// The same of samples of either type, times scale.
template <class T, class S>
__device__ __forceinline__ void cluster_send_unit(const cluster_block &k,
                                                  const cluster_part<S::K> &x, int unit,
                                                  float scale)
{
    constexpr int K = S::K;
    uint32_t v[K / 4][4];
    const float some = HB_IS_HALF<T> ? fminf(scale, 0x1p15f) : scale;
#pragma unroll
    for (int i = 0; i < K; i++) v[i / 4][i % 4] = cluster_scaled<T>(x[i / 4].x[i % 4], some);
    if (scale > some)             // small samples: to 2^30
#pragma unroll
        for (int i = 0; i < K; i++)
            v[i / 4][i % 4] = cluster_scaled<T>(v[i / 4][i % 4], scale * hb_inverse(some));
    cluster_send_halves<S>(k, v, unit);
}

// K = 8 and 16: v from words x of planes, real and imaginary.
template <int K>
__device__ __forceinline__ void cluster_fetch_some(float (&v)[K / 4][8], const uint4 *dft,
                                                   const uint32_t (&x)[2][K / 4][4], float by)
{
    constexpr int PARTS = K / 4;
    float c[K / 8][4][4] = {};
#pragma unroll
    for (int part = 0; part < K / 8; part++)               // K = 16: real, imaginary
#pragma unroll
        for (int n = 0; n < K / 8; n++) {
            const uint4 f = dft[32 * (2 * n + part)];
#pragma unroll
            for (int t = 0; t < 4; t++) {
                uint32_t a[4];
                cluster_pairs(a[0], a[1], x[part][0], x[part][1], t);
                if constexpr (K == 8) cluster_pairs(a[2], a[3], x[1][0], x[1][1], t);
                else cluster_pairs(a[2], a[3], x[part][PARTS - 2], x[part][PARTS - 1], t);
                hb_mma(c[n][t], a, f.x, K == 8 ? f.z : f.y);
                hb_mma(c[n][t], a, K == 8 ? f.y : f.z, f.w);
            }
        }
#pragma unroll
    for (int s = 0; s < PARTS; s++)
#pragma unroll
        for (int t = 0; t < 4; t++) {
            v[s][t] = c[s / 2][t][s % 2] * by;
            v[s][t + 4] = c[s / 2][t][2 + s % 2] * by;
        }
}

// What planes have of a unit: x[real, imaginary][s], of segment s of this lane.
template <class S>
__device__ __forceinline__ void cluster_fetch_words(uint32_t (&x)[2][S::K / 4][4],
                                                    const cluster_block &k, int unit)
{
    int p, column;
    cluster_lane_place<S>(p, column, unit, k);
    const uint32_t at = hb_shared_address(k.planes) + cluster_at(cluster_row<S::R>(p), column >> 3);
#pragma unroll
    for (int s = 0; s < S::K / 4; s++) {
        const uint32_t there = cluster_address(at, cluster_segment<S::K>(s, k.me));
        cluster_get(x[0][s], there);
        cluster_get(x[1][s], there + HB_PLANE<S::R>);
    }
}

// The way back: of a unit v[s]: this lane's samples of segment s, times `by`.
template <class S>
__device__ __forceinline__ void cluster_back_unit(float (&v)[S::K / 4][8], const cluster_block &k,
                                                  const uint32_t (&x)[2][S::K / 4][4], int unit,
                                                  float by)
{
    const uint4 *const dft = cluster_dft_back<S>(k, unit);
    if constexpr (S::K == 4) {
        const uint32_t f = dft->x;
#pragma unroll
        for (int t = 0; t < 4; t++) {
            uint32_t up, down;
            float c[4] = {};
            cluster_pairs(up, down, x[0][0], x[1][0], t);
            cluster_mma(c, up, down, f);
            v[0][t] = (c[0] + c[1]) * by;
            v[0][t + 4] = (c[2] + c[3]) * by;
        }
    } else {
        cluster_fetch_some<S::K>(v, dft, x, by);
    }
}

// --- gradients: rows ----------------------------------------------------------------------------
template <class S> constexpr int CLUSTER_UNITS = (4 * S::R / S::K - 1) / S::WARPS + 1;  // of a warp

// Whether there is such a unit of a warp; no question where all warps have equally many.
template <class S> __device__ __forceinline__ bool cluster_is_unit(int unit)
{
    return 4 * S::R / S::K % S::WARPS == 0 || unit < 4 * S::R / S::K;
}

// This warp's units of a row; 0 from L on and beyond the last. EVEN: cluster_is_even.
template <bool EVEN, class S>
__device__ __forceinline__ void cluster_load_units(cluster_part<S::K> (&x)[CLUSTER_UNITS<S>],
                                                   const cluster_block &k, const __half *row, int L)
{
    const int first = cluster_anew(k.warp);
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++) {
        const int unit = first + m * S::WARPS;
        int n[S::K / 4];
        cluster_lane_samples<S>(n, unit, k);
        cluster_load_from<EVEN, __half, 8>(x[m], row, n, cluster_is_unit<S>(unit) ? L : 0);
    }
}

// The same of row b of channel c, of either 16-bit type.
template <class T, class S>
__device__ __forceinline__ void cluster_enter_units(cluster_part<S::K> (&x)[CLUSTER_UNITS<S>],
                                                    const cluster_block &k, const hb_factor &f,
                                                    int64_t c, int64_t b, int L)
{
    const __half *const row = (const __half *)hb_row_at<T>(f, c, b);
    if (cluster_is_even<__half, 8>(row, L)) cluster_load_units<true, S>(x, k, row, L);
    else cluster_load_units<false, S>(x, k, row, L);
}

// All of a row, times scale, to the planes, which may be read then.
template <class T, class S>
__device__ __forceinline__ void cluster_send_units(cluster_block &k,
                                                   const cluster_part<S::K> (&x)[CLUSTER_UNITS<S>],
                                                   float scale)
{
    const int first = cluster_anew(k.warp);
    cluster_expect_z<S>(k);
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++) {
        const int unit = first + m * S::WARPS;
        if (cluster_is_unit<S>(unit)) cluster_send_unit<T, S>(k, x[m], unit, scale);
    }
    cluster_await(k, CLUSTER_Z);  // planes hold z
}

template <class T> __device__ __forceinline__ float cluster_top(uint32_t peak)
{
    return hb_magnitude<T>(max(peak & 0xffff0000u, peak << 16));
}

// Sum dy u of this warp's samples, of each lane its part. f16: it is on the diagonal of the product
// of eight lines by eight, of four lanes each; products are exact, sums f32.
template <class T, class S>
__device__ __forceinline__ float cluster_dot(const cluster_part<S::K> (&u)[CLUSTER_UNITS<S>],
                                             const cluster_part<S::K> (&dy)[CLUSTER_UNITS<S>],
                                             hb_lane me)
{
    float sum = 0, c[2][4] = {};
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++)
#pragma unroll
        for (int s = 0; s < S::K / 4; s++)
#pragma unroll
            for (int w = 0; w < 4; w += 2) {
                const uint32_t (&v)[4] = u[m][s].x, (&z)[4] = dy[m][s].x;
                if constexpr (HB_IS_HALF<T>)
                    hb_mma(c[w / 2], { v[w], 0, v[w + 1], 0 }, z[w], z[w + 1]);
                else
                    sum += hb_product<T>(v[w], z[w]) + hb_product<T>(v[w + 1], z[w + 1]);
            }
    if (me.q == me.g / 2) sum += me.g % 2 ? c[0][1] + c[1][1] : c[0][0] + c[1][0];
    return sum;
}

// Row b of u there; dot += sum dy u of this thread's samples. Returns the scales of u and dy.
template <class T, class S>
__device__ __forceinline__ float2 cluster_first(cluster_block &k, const hb_factor &u,
                                                const hb_factor &dy, int64_t c, int64_t b, int L,
                                                float &dot)
{
    cluster_part<S::K> x[CLUSTER_UNITS<S>], y[CLUSTER_UNITS<S>];
    cluster_enter_units<T, S>(x, k, u, c, b, L);
    cluster_enter_units<T, S>(y, k, dy, c, b, L);
    uint32_t peak_u = 0, peak_dy = 0;
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++)
#pragma unroll
        for (int s = 0; s < S::K / 4; s++)
#pragma unroll
            for (int w = 0; w < 4; w++) {
                const uint32_t v = x[m][s].x[w], z = y[m][s].x[w];
                peak_u = __vmaxu2(peak_u, v & 0x7fff7fffu);
                peak_dy = __vmaxu2(peak_dy, z & 0x7fff7fffu);
            }
    dot += cluster_dot<T, S>(x, y, k.me);
    const float2 top = cluster_together<float, S, false>(
        k, 0, make_float2(cluster_top<T>(peak_u), cluster_top<T>(peak_dy)));
    const float2 scale = make_float2(fminf(hb_fused_scale(top.x, 10), 0x1p30f),
                                     fminf(hb_fused_scale(top.y, 10), 0x1p30f));
    cluster_send_units<T, S>(k, x, scale.x);
    return scale;
}

// Row b of dy there after it.
template <class T, class S>
__device__ __forceinline__ void cluster_second(cluster_block &k, const hb_factor &dy, int64_t c,
                                               int64_t b, int L, float scale)
{
    cluster_part<S::K> y[CLUSTER_UNITS<S>];
    cluster_enter_units<T, S>(y, k, dy, c, b, L);
    cluster_meet();               // everybody has taken u's transform from the planes
    cluster_send_units<T, S>(k, y, scale);
}

// A unit of a row of results, + d x where `skip`, from words of the planes.
template <class T, class S>
__device__ __forceinline__ void cluster_leave_unit(const cluster_block &k, T *to, int L, int unit,
                                                   const uint32_t (&z)[2][S::K / 4][4], float by,
                                                   const cluster_part<S::K> &x, float d, bool skip)
{
    float v[S::K / 4][8];
    int n[S::K / 4];
    cluster_back_unit<S>(v, k, z, unit, by);
    cluster_lane_samples<S>(n, unit, k);
#pragma unroll
    for (int s = 0; s < S::K / 4; s++) {
#pragma unroll
        for (int w = 0; w < 4; w++) {
            if (!skip) break;
            const float2 u = hb_two<T>(x[s].x[w]);
            v[s][2 * w] += d * u.x;
            v[s][2 * w + 1] += d * u.y;
        }
        put_columns<T, 8>(to, n[s], L, v[s]);
    }
}

// Row b of du from the planes; dy for the skip term is asked for before they are there.
template <class T, class S>
__device__ __forceinline__ void cluster_leave_units(const cluster_block &k, const cluster_job &job,
                                                    const hb_factor &dy, int64_t c, int64_t b,
                                                    float by)
{
    cluster_part<S::K> x[CLUSTER_UNITS<S>];
    const float d = job.d ? job.d[c] : 0;
    if (job.d) cluster_enter_units<T, S>(x, k, dy, c, b, job.L);
    cluster_meet();               // planes hold w
    T *const to = (T *)job.out + c * job.so.c + b * job.so.b;
    const int first = cluster_anew(k.warp);
    constexpr int UNITS = CLUSTER_UNITS<S>, EACH = 16 / S::K;
#pragma unroll
    for (int m = 0; m < UNITS; m += EACH) {                // EACH units are under way at once
        uint32_t z[EACH][2][S::K / 4][4];
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (m + i < UNITS && cluster_is_unit<S>(first + (m + i) * S::WARPS))
                cluster_fetch_words<S>(z[i], k, first + (m + i) * S::WARPS);
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (m + i < UNITS && cluster_is_unit<S>(first + (m + i) * S::WARPS))
                cluster_leave_unit<T, S>(k, to, job.L, first + (m + i) * S::WARPS, z[i], by,
                                         x[m + i < UNITS ? m + i : 0], d, job.d);
    }
}

// dh += of a channel from the sums: at most 2^15 on the way back, as mma.cuh's head says of y.
template <class S>
__device__ __forceinline__ void cluster_return(cluster_block &k, float *dh, int L)
{
    cluster_meet();               // everybody has the last row: its planes are free
    float2 mark = make_float2(0, 0);
    for (int slot = k.warp; slot < S::R; slot += S::WARPS) {
        hb_tile z;
        cluster_summed(z, k, slot, 1);
#pragma unroll
        for (int x = 0; x < 8; x++) mark.y += fabsf(z.re[x / 4][x % 4]) + fabsf(z.im[x / 4][x % 4]);
    }
    const float scale = hb_fused_scale(cluster_together<float, S>(k, 0, mark).y, 15);
    cluster_slots<S>(k, [&](hb_tile &z, const hb_inner &, int slot) {
        cluster_summed(z, k, slot, scale);
    });
    __syncthreads();
    cluster_outer<S, true>(k);
    cluster_meet();               // planes hold w
    const float by = S::K * S::R / (4 * CLUSTER_TOP * CLUSTER_TOP) / scale;
#pragma unroll 1
    for (int unit = k.warp; unit < 4 * S::R / S::K; unit += S::WARPS) {
        float v[S::K / 4][8];
        int n[S::K / 4];
        uint32_t z[2][S::K / 4][4];
        cluster_fetch_words<S>(z, k, unit);
        cluster_back_unit<S>(v, k, z, unit, by);
        cluster_lane_samples<S>(n, unit, k);
#pragma unroll
        for (int s = 0; s < S::K / 4; s++)
#pragma unroll
            for (int w = 0; w < 8; w++)
                if (n[s] + w < L) dh[n[s] + w] += v[s][w];
    }
}

// du = adjoint, dh += sum over the batch, in order, of conj(U) DY, dd += sum of dy u. Grid: as
// many clusters of K as run at a time, or D; the rest as cluster_rows. Two transforms and one way
// back a row, and one more way back a channel.
template <class T, class S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS) cluster_gradients(cluster_dh_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int K = S::K, R = S::R;
    cluster_block k;
    cluster_begin<S>(k, shared);
    cluster_init<S>(k, job.du.matrix);
    uint4 *const kept = job.kept + (int64_t)blockIdx.x * R * 64 + k.me.lane;
    const int L = job.du.L;
    const hb_factor u = { job.u, job.su, NULL }, dy = { job.du.in, job.du.si, NULL };
    cluster_dft_init<S>(k);
    cluster_meet();               // all blocks are there, and their constants
    const int cluster = blockIdx.x / K, clusters = gridDim.x / K;
    for (int64_t c = cluster; c < job.du.D; c += clusters) {
        const uint4 *const spectrum = job.du.spectrum + (c * K + k.rank) * R * 64 + k.me.lane;
        const float undo = job.du.undo[c].x;
        float dot = 0;
        for (int b = 0; b < job.du.B; b++) {
            cluster_know(k);
            const float2 scale = cluster_first<T, S>(k, u, dy, c, b, L, dot);
            const bool more = b + 1 < job.du.B;
            const int64_t next = more ? c : c + clusters;
            if (next < job.du.D) {
                cluster_prefetch<T, S>(job.u, job.su, next, more ? b + 1 : 0, L, k.rank);
                cluster_prefetch<T, S>(job.du.in, job.du.si, next, more ? b + 1 : 0, L, k.rank);
            }
            cluster_outer<S, false>(k);
            __syncthreads();
            cluster_keep<S>(k, kept, 1);
            cluster_second<T, S>(k, dy, c, b, L, scale.y);
            cluster_outer<S, false>(k);
            __syncthreads();
            const float back = CLUSTER_IN * hb_inverse(scale.y);
            const float by = CLUSTER_IN * hb_inverse(scale.x) * back;
            cluster_spectra_of x;
            cluster_spectra_load(x, kept, spectrum, k.warp);
            cluster_slots<S>(k, [&](hb_tile &z, const hb_inner &inner, int slot) {
                cluster_transform<S>(z, k, inner, slot);
                cluster_correlate(k, z, x.u, slot, by, b == 0);
                hb_times<true>(z, x.h, 1);
                cluster_spectra_load(x, kept, spectrum, cluster_after<S>(slot));
            });
            __syncthreads();
            cluster_outer<S, true>(k);
            cluster_leave_units<T, S>(k, job.du, dy, c, b, undo * back);
        }
        cluster_return<S>(k, job.dh + c * L, L);
        if (job.dd) {
            dot = cluster_together<float, S>(k, 0, make_float2(0, dot)).y;
            if (k.rank == 0 && threadIdx.x == 0) job.dd[c] += dot;
        }
        cluster_meet();           // everybody has read the marks and what others have
    }
}

// --- rows ---------------------------------------------------------------------------------------
// cluster_there by mma, of a row that has been asked for.
template <class T, class S>
__device__ __forceinline__ float
cluster_there_units(cluster_block &k, const cluster_part<S::K> (&x)[CLUSTER_UNITS<S>])
{
    uint32_t peak = 0;
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++)
#pragma unroll
        for (int s = 0; s < S::K / 4; s++)
#pragma unroll
            for (int w = 0; w < 4; w++) peak = __vmaxu2(peak, x[m][s].x[w] & 0x7fff7fffu);
    const float top = cluster_together<T, S>(k, peak, make_float2(0, 0)).x;
    const float scale = fminf(hb_fused_scale(top, 10), 0x1p30f);
    cluster_send_units<T, S>(k, x, scale);
    return scale * (1 / CLUSTER_IN);
}

// The factors of a channel.
struct cluster_factors { hb_factor u, pre, post; };

// GATED: of a unit what hb_by_words wants of a factor: fours of this lane, two of a segment.
template <class T, class S>
__device__ __forceinline__ void cluster_unit_words(uint32_t (&w)[S::K / 2][3],
                                                   const cluster_block &k, const hb_factor &f,
                                                   int64_t c, int64_t b, int unit, int L)
{
    int n[S::K / 4];
    cluster_lane_samples<S>(n, unit, k);
    hb_windows<T>(w, f, c, L, [&](int j, int &row, int &at) {
        row = (int)b;
        at = cluster_is_unit<S>(unit) ? n[j / 2] + j % 2 * 4 : -1;
    });
}

// GATED: this warp's units of row b of r; 0 from L on and beyond the last.
template <class T, class S>
__device__ __forceinline__ void cluster_products_of(float (&r)[CLUSTER_UNITS<S>][2 * S::K],
                                                    const cluster_block &k,
                                                    const cluster_factors &f, int64_t c, int64_t b,
                                                    int L)
{
    const int first = cluster_anew(k.warp);
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++) {
        const int unit = first + m * S::WARPS;
        uint32_t u[S::K / 2][3], pre[S::K / 2][3];
        int n[S::K / 4];
        cluster_unit_words<T, S>(u, k, f.u, c, b, unit, L);
        if (f.pre.x) cluster_unit_words<T, S>(pre, k, f.pre, c, b, unit, L);
        cluster_lane_samples<S>(n, unit, k);
#pragma unroll
        for (int j = 0; j < S::K / 2; j++) {
            const int at = n[j / 2] + j % 2 * 4;
            float v[4];
            hb_by_words<T, true>(v, u[j], *f.u.k, at);
            if (f.pre.x) hb_by_words<T, false>(v, pre[j], *f.pre.k, at);
#pragma unroll
            for (int t = 0; t < 4; t++)
                r[m][4 * j + t] = cluster_is_unit<S>(unit) && at + t < L ? v[t] : 0;
        }
    }
}

// GATED: row b there, as cluster_there_units.
template <class T, class S>
__device__ __forceinline__ float cluster_there_products(cluster_block &k, const cluster_factors &f,
                                                        int64_t c, int64_t b, int L)
{
    float r[CLUSTER_UNITS<S>][2 * S::K], top = 0;
    cluster_products_of<T, S>(r, k, f, c, b, L);
#pragma unroll
    for (int i = 0; i < CLUSTER_UNITS<S> * 2 * S::K; i++)
        top = fmaxf(top, fabsf(r[i / (2 * S::K)][i % (2 * S::K)]));
    top = cluster_together<float, S>(k, 0, make_float2(top, 0)).x;
    const float scale = fminf(hb_fused_scale(top, 10), 0x1p100f);
    const int first = cluster_anew(k.warp);
    cluster_expect_z<S>(k);
#pragma unroll
    for (int m = 0; m < CLUSTER_UNITS<S>; m++) {
        uint32_t v[S::K / 4][4];
#pragma unroll
        for (int i = 0; i < S::K; i++)
            v[i / 4][i % 4] = hb_pack(r[m][2 * i] * scale, r[m][2 * i + 1] * scale);
        if (cluster_is_unit<S>(first + m * S::WARPS))
            cluster_send_halves<S>(k, v, first + m * S::WARPS);
    }
    cluster_await(k, CLUSTER_Z);  // planes hold z
    return scale * (1 / CLUSTER_IN);
}

// GATED: row b to y; what tap(post) wants is asked for before the planes are there.
template <class T, class S>
__device__ __forceinline__ void cluster_leave_products(const cluster_block &k,
                                                       const cluster_job &job,
                                                       const hb_factor &post, int64_t c, int64_t b,
                                                       float by)
{
    constexpr int PARTS = S::K / 4, UNITS = CLUSTER_UNITS<S>;
    const int first = cluster_anew(k.warp);
    uint32_t w[UNITS][2 * PARTS][3];
#pragma unroll
    for (int m = 0; m < UNITS; m++)
        if (post.x)
            cluster_unit_words<T, S>(w[m], k, post, c, b, first + m * S::WARPS, job.L);
    cluster_meet();               // planes hold w
    T *const y = (T *)job.out + c * job.so.c + b * job.so.b;
#pragma unroll
    for (int m = 0; m < UNITS; m++) {
        const int unit = first + m * S::WARPS;
        if (!cluster_is_unit<S>(unit)) break;
        uint32_t z[2][PARTS][4];
        float v[PARTS][8];
        int n[PARTS];
        cluster_fetch_words<S>(z, k, unit);
        cluster_back_unit<S>(v, k, z, unit, by);
        cluster_lane_samples<S>(n, unit, k);
#pragma unroll
        for (int s = 0; s < PARTS; s++) {
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (post.x)
                    hb_by_words<T, false>(*(float (*)[4])(v[s] + 4 * i), w[m][2 * s + i], *post.k,
                                          n[s] + 4 * i);
            put_columns<T, 8>(y, n[s], job.L, v[s]);
        }
    }
}

// y = h * u + d u, or gated. Grid D B clusters of K, block S::THREADS, shared S::SHARED. A cluster
// has a row, rows of a channel come one after the other: its spectrum is in L2 then. At 1.55 ms
// (L = 65536, B 8, D 384, f16, with spectra) four rows a cluster had 1.61, ones that stay and share
// all rows 1.79.
template <class T, class S, bool GATED>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS) cluster_rows(struct cluster_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int K = S::K, R = S::R;
    const int row = blockIdx.x / K, c = row / job.B, b = row % job.B;
    cluster_block k;
    cluster_begin<S>(k, shared);
    const cluster_factors f = {
        { job.in, job.si, k.taps + HB_TAP_U },
        { job.gates.pre.x, job.gates.pre.sx, k.taps + HB_TAP_PRE },
        { job.gates.post.x, job.gates.post.sx, k.taps + HB_TAP_POST },
    };
    cluster_part<K> x[CLUSTER_UNITS<S>];                   // under way while constants are made
    if constexpr (!GATED) cluster_enter_units<T, S>(x, k, f.u, c, b, job.L);
    else cluster_prefetch_gates<T, S>(job, c, b, k.rank);
    cluster_init<S>(k, job.matrix);
    cluster_dft_init<S>(k);
    if constexpr (GATED) hb_filters_init(k.taps, job.gates, c, job.taps);
    launch_wait();                // for the spectra
    const uint4 *const spectrum = job.spectrum + (int64_t)(c * K + k.rank) * R * 64 + k.me.lane;
    const float undo = job.undo[c].x;
    cluster_meet();               // all blocks are there, and their constants
    float scale;
    if constexpr (!GATED) scale = cluster_there_units<T, S>(k, x);
    else scale = cluster_there_products<T, S>(k, f, c, b, job.L);
    cluster_outer<S, false>(k);
    __syncthreads();
    cluster_slots<S>(k, [&](hb_tile &z, const hb_inner &inner, int slot) {
        cluster_transform<S>(z, k, inner, slot);
        hb_times(z, spectrum + slot * 64, false, 1);
    });
    __syncthreads();
    cluster_outer<S, true>(k);
    if constexpr (!GATED) cluster_leave_units<T, S>(k, job, f.u, c, b, undo / scale);
    else cluster_leave_products<T, S>(k, job, f.post, c, b, undo / scale);
    cluster_meet();               // nobody leaves while others read what it has
}
#endif
