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
//           planes, does the DFT of K back and stores y. Three times a row blocks wait for each
//           other: largest |u| is known and planes are free; planes hold z; planes hold w. The
//           first two by counting the bytes that come, the third by a barrier that orders shared
//           memory alone: barriers that order device memory, too, were 7 % of a profile, though the
//           time fell by 1 %.
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
// Files     here what blocks have and how they meet, the DFT of K in f32; cluster_steps.cuh: outer
//           step and rows; cluster_units.cuh: 16-bit signals there and back by mma;
//           cluster_rows.cuh, cluster_dh.cuh: the kernels; cluster_method.cuh: host side.
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
    int ahead;                 // clusters that run at a time: so many rows on, what is next here
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
#endif
