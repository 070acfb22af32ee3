// toeplitz_pieces.cuh: what the kernels of the Toeplitz method share: instructions, 16 bytes of a
// row, the filter's window.
#ifndef HB_TOEPLITZ_PIECES_CUH
#define HB_TOEPLITZ_PIECES_CUH

#include "mma.cuh"

namespace toeplitz {

enum {
    STEP = 64,                // samples of a tile in shared memory: 128 bytes in 16 bits
    STAGES = 4,               // of the rings that feed kernels from device memory
    THREADS = 256,
};

template <class T> constexpr bool IS_16 = sizeof(T) == 2;
template <class T> constexpr bool IS_HALF = false;
template <> constexpr bool IS_HALF<__half> = true;
template <class T> constexpr int TERMS = 1;                  // of a tap
template <> constexpr int TERMS<__nv_bfloat16> = 2;
template <class T> constexpr int COPIES = IS_16<T> ? 2 : 1;  // of the windows, one element apart

// --- instructions --------------------------------------------------------------------------------
// 16 bytes to shared memory, of which the first n are read and the others are 0.
__device__ __forceinline__ void copy_async(void *dst, const void *src, int n)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(hb_shared_address(dst)), "l"(src), "r"(n) : "memory");
}

__device__ __forceinline__ void commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most n of the groups committed last are under way.
template <int n> __device__ __forceinline__ void arrived(void)
{
    asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory");
}

// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
template <bool TRANS> __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at)
{
    if constexpr (TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// c (16 x 8) += a (16 x 16) b (16 x 8)
template <class T>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    if constexpr (IS_HALF<T>)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Hopper's instructions: a product of 64 rows (16 a warp, fragments as above) by 2 N columns whose
// other factor lies in shared memory, asynchronous. Elsewhere nobody launches the kernels that have
// them.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define WGMMA(TYPE, COLUMNS, SUMS, A0, A1, A2, A3, TILE, TURN, ...)                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #COLUMNS "k16.f32." TYPE "." TYPE " "       \
                 "{" SUMS "}, {%" #A0 ",%" #A1 ",%" #A2 ",%" #A3 "}, %" #TILE ", 1, 1, 1, %"     \
                 #TURN ";" : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(tile),\
                 "n"((int)TURNED))
#define SUMS_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define SUMS_16 SUMS_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define SUMS_24 SUMS_16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define SUMS_32 SUMS_24 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define SUMS_40 SUMS_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define SUMS_48 SUMS_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define SUMS_56 SUMS_48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define SUMS_64 SUMS_56 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define UP_TO_8(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]),   \
                   "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define UP_TO_16 UP_TO_8(0), UP_TO_8(8)
#define UP_TO_24 UP_TO_16, UP_TO_8(16)
#define UP_TO_32 UP_TO_24, UP_TO_8(24)
#define UP_TO_40 UP_TO_32, UP_TO_8(32)
#define UP_TO_48 UP_TO_40, UP_TO_8(40)
#define UP_TO_56 UP_TO_48, UP_TO_8(48)
#define UP_TO_64 UP_TO_56, UP_TO_8(56)
#define WGMMA_8(TYPE) WGMMA(TYPE, 16, SUMS_8, 8, 9, 10, 11, 12, 13, UP_TO_8(0))
#define WGMMA_16(TYPE) WGMMA(TYPE, 32, SUMS_16, 16, 17, 18, 19, 20, 21, UP_TO_16)
#define WGMMA_24(TYPE) WGMMA(TYPE, 48, SUMS_24, 24, 25, 26, 27, 28, 29, UP_TO_24)
#define WGMMA_32(TYPE) WGMMA(TYPE, 64, SUMS_32, 32, 33, 34, 35, 36, 37, UP_TO_32)
#define WGMMA_40(TYPE) WGMMA(TYPE, 80, SUMS_40, 40, 41, 42, 43, 44, 45, UP_TO_40)
#define WGMMA_48(TYPE) WGMMA(TYPE, 96, SUMS_48, 48, 49, 50, 51, 52, 53, UP_TO_48)
#define WGMMA_56(TYPE) WGMMA(TYPE, 112, SUMS_56, 56, 57, 58, 59, 60, 61, UP_TO_56)
#define WGMMA_64(TYPE) WGMMA(TYPE, 128, SUMS_64, 64, 65, 66, 67, 68, 69, UP_TO_64)
#define WGMMA_OF(N) if constexpr (IS_HALF<T>) WGMMA_##N("f16"); else WGMMA_##N("bf16")
#else
#define WGMMA_OF(N) __trap()
#endif

// c[0 .. N) (64 x 2 N) += a (64 x 16) b (16 x 2 N). Element 4 j + e of these: row
// lane / 4 + e / 2 * 8 of the warp's 16, column 8 j + 2 (lane % 4) + e % 2. tile (see tile_of): b's
// columns in 128 bytes each, of which these 16 rows are 32; TURNED: b's rows, of 64 columns.
template <class T, int N, bool TURNED = false, int M>
__device__ __forceinline__ void wgmma(float (&c)[M], const uint32_t (&a)[4], uint64_t tile)
{
    static_assert(N % 8 == 0 && N <= M && (!TURNED || N == 32));
    if constexpr (N == 8) { WGMMA_OF(8); }
    else if constexpr (N == 16) { WGMMA_OF(16); }
    else if constexpr (N == 24) { WGMMA_OF(24); }
    else if constexpr (N == 32) { WGMMA_OF(32); }
    else if constexpr (N == 40) { WGMMA_OF(40); }
    else if constexpr (N == 48) { WGMMA_OF(48); }
    else if constexpr (N == 56) { WGMMA_OF(56); }
    else { WGMMA_OF(64); }
}

// The same with a 16 x 16 Toeplitz fragment: a0 on the diagonal, a1 eight rows down, a2 eight
// columns on.
template <class T, int N, int M>
__device__ __forceinline__ void wgmma(float (&c)[M], uint32_t a0, uint32_t a1, uint32_t a2,
                                      uint64_t tile)
{
    const uint32_t a[4] = { a0, a1, a2, a0 };
    wgmma<T, N>(c, a, tile);
}

// Matrix descriptor of rows of 128 bytes in 128-byte swizzle (that of `place`): address, 1024
// bytes from eight rows to the next. 16 columns further are 2 more (32 bytes).
__device__ __forceinline__ uint64_t tile_of(const unsigned char *stage)
{
    return (uint64_t)(hb_shared_address(stage) >> 4 & 0x3fff) | 1ull << 16 | 64ull << 32
           | 1ull << 62;
}

// What this thread wrote to shared memory may be read by wgmma.
__device__ __forceinline__ void publish(void)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

__device__ __forceinline__ void wgmma_begin(void)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void wgmma_commit(void)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until at most n of the groups committed last are under way.
template <int n> __device__ __forceinline__ void wgmma_done(void)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(n) : "memory");
#endif
}

// Barrier ID of some of a block's warps, COUNT threads in all.
template <int ID, int COUNT> __device__ __forceinline__ void meet(void)
{
    asm volatile("barrier.sync.aligned %0, %1;" :: "n"(ID), "n"(COUNT) : "memory");
}

// For each of a group of four warps: registers it gives back, takes from those.
template <int COUNT> __device__ __forceinline__ void fewer_registers(void)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(COUNT));
#endif
}

template <int COUNT> __device__ __forceinline__ void more_registers(void)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(COUNT));
#endif
}

// Stores four 8 x 8 matrices, transposed; addresses as load_matrices has them.
__device__ __forceinline__ void store_matrices(uint32_t at, const uint32_t (&r)[4])
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};"
                 :: "r"(at), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
#endif
}

// Where 16 bytes of a tile lie. 16 bits: eight rows' same piece is in eight different bank groups.
template <class T> __device__ __forceinline__ int place(int row, int row_bytes, int piece)
{
    return row * row_bytes + 16 * (IS_16<T> ? piece ^ (row & 7) : piece);
}

// A sum that keeps what rounding took from it (Kahan).
__device__ __forceinline__ void add_exact(float *total, float *lost, float x)
{
    const float y = x - *lost, t = *total + y;
    *lost = (t - *total) - y;
    *total = t;
}

// Samples by which a row starts after the last 16-byte boundary.
template <class T> __device__ __forceinline__ int shift_of(const T *row)
{
    return (int)((uintptr_t)row % 16 / sizeof(T));
}

// 16 bytes of a row: sample t of the row that has its samples at [from, end); p is where t is.
template <class T> struct piece { const T *p; int t, from, end; };

// Fetches them, zeros where the row has nothing. `any`: an address that may be named, not read.
template <class T>
__device__ __forceinline__ void fetch(const struct piece<T> &s, void *dst, const void *any)
{
    const int n = s.t < 0 ? 0 : min(s.end - s.t, HB_VEC<T>);
    if (n > 0 && (s.t < s.from || (uintptr_t)s.p % 16)) {
        struct hb_vec<T> v;
#pragma unroll
        for (int i = 0; i < HB_VEC<T>; i++)
            v.x[i] = s.t + i >= s.from && i < n ? s.p[i] : hb_store<T>(0.0f);
        *(struct hb_vec<T> *)dst = v;
    } else {
        copy_async(dst, n > 0 ? (const void *)s.p : any, n > 0 ? n * (int)sizeof(T) : 0);
    }
}

// The same where p is a multiple of 16 bytes and t >= 0, without waiting: what lies before `from`
// comes along, blank() takes it away when it is there. The 16 bytes have at least one sample of the
// row, so they may be read.
template <class T>
__device__ __forceinline__ void fetch_aligned(const struct piece<T> &s, void *dst, const void *any)
{
    const int n = min(s.end - s.t, HB_VEC<T>);
    copy_async(dst, n > 0 ? (const void *)s.p : any, n > 0 ? n * (int)sizeof(T) : 0);
}

template <class T> __device__ __forceinline__ void blank(void *first_piece, int from)
{
    if (!from) return;
    struct hb_vec<T> v = *(const struct hb_vec<T> *)first_piece;
#pragma unroll
    for (int i = 0; i < HB_VEC<T>; i++)
        if (i < from) v.x[i] = hb_store<T>(0.0f);
    *(struct hb_vec<T> *)first_piece = v;
}

// Stores 16 bytes at sample t of a row that has its samples at [from, end); p is where t is.
template <class T>
__device__ __forceinline__ void put(T *p, int t, int from, int end, const struct hb_vec<T> &v)
{
    if (t >= from && t + HB_VEC<T> <= end && (uintptr_t)p % 16 == 0) {
        *(struct hb_vec<T> *)p = v;
        return;
    }
#pragma unroll
    for (int i = 0; i < HB_VEC<T>; i++)
        if (t + i >= from && t + i < end) p[i] = v.x[i];
}

// The window of one channel's filter, by the whole block: copies (TERMS, COPIES) of `width` taps,
// `pitch` elements from one to the next. Copy 1 is copy 0 from its second element on. Element x is
// h[origin - x], ADJOINT h[x - origin], d added to h[0]. Returns what the taps were multiplied by
// and its inverse.
template <class T, bool ADJOINT>
__device__ __forceinline__ float2 make_window(T *taps, int64_t pitch, const float *h, float d,
                                              int L, int64_t width, int64_t origin, float *tops)
{
    float2 by = { 1, 1 };
    auto tap = [&](int64_t s) { return s == 0 ? h[0] + d : h[s]; };
    if constexpr (IS_HALF<T>) {          // the largest tap gets exponent 14, half's last but one
        constexpr int many = 8;          // loads at a time: one after the other would wait for each
        float top = 0;
        for (int from = threadIdx.x; from < L; from += many * blockDim.x) {
            float v[many];
#pragma unroll
            for (int i = 0; i < many; i++) {
                const int s = from + i * (int)blockDim.x;
                v[i] = s < L ? h[s] : 0;
            }
            if (from == 0) v[0] += d;
#pragma unroll
            for (int i = 0; i < many; i++)
                top = fmaxf(top, fabsf(v[i]));
        }
        for (int w = 16; w; w /= 2)
            top = fmaxf(top, __shfl_xor_sync(~0u, top, w));
        if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
        __syncthreads();
        for (unsigned w = 0; w < blockDim.x / 32; w++)
            top = fmaxf(top, tops[w]);
        const int e = top > 0 ? 14 - min(max(ilogbf(top), -80), 100) : 0;
        by = { ldexpf(1, e), ldexpf(1, -e) };
    }
    for (int64_t x = threadIdx.x; x <= width; x += blockDim.x) {
        const int64_t s = ADJOINT ? x - origin : origin - x;
        float left = s >= 0 && s < L && x < width ? tap(s) * by.x : 0;
#pragma unroll
        for (int term = 0; term < TERMS<T>; term++) {
            T *const to = taps + term * COPIES<T> * pitch;
            const T v = hb_store<T>(left);
            left -= hb_load(v);
            if (x < width) to[x] = v;
            if (COPIES<T> == 2 && x > 0) to[pitch + x - 1] = v;
        }
    }
    return by;
}

// The sums of the diagonals of 8 ROWS x 64 in a warp's registers: g(row, column, e) is element e of
// the lane in block (row, column) of 8 x 8. to[64 + lag] is that of row - column = lag, to[0] 0.
// fold: FOLD<ROWS> floats of shared memory, the warp's own; to: 64 + 8 ROWS, may be the same.
template <int ROWS> constexpr int FOLD = (ROWS + 7) * 64;     // [m + 7][row % 8][column % 8]

template <int ROWS, class F>
__device__ __forceinline__ void fold_diagonals(float *to, float *fold, F g)
{
    constexpr int DIAGONALS = ROWS + 7, LAGS = 64 + 8 * ROWS;   // lags of 8 x 8 blocks; of samples
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = -7; m < ROWS; m++) {
        float sum[2] = { 0, 0 };
#pragma unroll
        for (int row = 0; row < ROWS; row++)
            if (row - m >= 0 && row - m < 8) {
                sum[0] += g(row, row - m, 0);
                sum[1] += g(row, row - m, 1);
            }
        float *const at = fold + (m + 7) * 64 + lane / 4 * 8 + lane % 4 * 2;
        *(float2 *)at = make_float2(sum[0], sum[1]);
    }
    __syncwarp();
    float sum[(LAGS + 31) / 32];
#pragma unroll
    for (int r = 0; r < (LAGS + 31) / 32; r++) {
        const int z = lane + 32 * r, d = z % 8;            // lag z - 64 = 8 (m - 8) + d
        sum[r] = 0;
#pragma unroll
        for (int row = 0; row < 8; row++) {
            const int m = z / 8 - (row >= d);              // [m]: 8 (m - 7) + row - column
            if (m >= 0 && m < DIAGONALS) sum[r] += fold[m * 64 + row * 8 + (row - d & 7)];
        }
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < (LAGS + 31) / 32; r++)
        if (lane + 32 * r < LAGS) to[lane + 32 * r] = sum[r];
}

} // namespace toeplitz

#endif
