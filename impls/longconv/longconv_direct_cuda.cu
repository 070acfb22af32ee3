// longconv_direct_cuda.cu: causal long convolution by its definition, as Toeplitz products, CUDA.
//     y[b,c,t] = sum_{s=0..t} h[c,s] u[b,c,t-s] + d[c] u[b,c,t]   u,y (B,D,L)  f16 bf16 f32
//     h (D,L), d (D) float32
// Method    Rows are cut into blocks of TIME samples; (batch, block) pairs are the rows of a
//           matrix, COLS of them a tile, so that one row fills it as well as 64. For block n,
//               Y_n = sum_q U_{n-q} T_q           T_q[k][i] = h[q TIME + i - k]
//           on tensor cores (mma.sync m16n8k16, sums in f32). The fragment of T that a thread needs
//           for 16 x 8 elements is two words, and a word depends on the diagonal (i - k) / 8 only:
//           15 words serve a warp's 64 outputs and 64 inputs. They are read from a window of the
//           filter, reversed, that lies in memory twice, the second time one element further, so
//           that every pair is a word. U goes from memory to shared memory in a ring of STAGES.
//           Hopper, where tiles are full (or nearly): the same as wgmma m64n64k16 of T' (fragments
//           in registers, 9 words a warp for 16 outputs and 64 inputs) and U (in shared memory).
//           Shift: a convolution does not care where time starts, so each row starts at the last
//           16-byte boundary before it: rows of any alignment are moved by 16 bytes at once.
//           Backward: du is the same with T_q[k][i] = h[q TIME + k - i] and U_{n+q}; dh:
//               G_q = sum_{b,n} DY_{b,n} U_{b,n-q}'   (BLOCK x BLOCK, tensor cores)
//               dh[s] += sums of the diagonals i - j = s - q BLOCK of G_q and of G_{q+1}
//           f32 has the same tiles and windows with FMA on 8 x 4 (dh: 8 x 8) sums a thread.
//           h is rounded to the signals' type: f16 after scaling by a power of two for each channel
//           (undone in f32), bf16 as two terms, whose second product doubles the work: one term has
//           an error of up to 3.9e-3, which a filter of few large taps would show.
// Cost      about B D L (L + 64) flop a pass (bf16 forward: twice), triangle only; workspace:
//           the windows (4 L bytes a channel; bf16 8 L, f32 4 L), backward 8 L bytes a channel,
//           both at most WORK bytes by taking groups of channels, except for fixed filters.
// Registers (nvcc 13.0) toeplitz 128 in 16 bits, two blocks of 256 an SM; f32 164, one; outer 213,
//           two blocks of 128; f32 247, one. No spills for sm_80, sm_90a.
// Source    Poli et al. 2023, arXiv:2302.10866, section 2, equation 1; PTX ISA, mma.m16n8k16,
//           wgmma.m64n64k16 and its 128-byte swizzle.
// Accuracy  rel. L2: f16 4e-4, bf16 1.7e-3 (rounding of the output), f32 5e-7 (sums of 64 terms,
//           added with compensation). Tensor cores truncate: equal terms drift by 2e-4 at 2^17.
// Refuses   f64; L > 2^18, where nobody should do this (and the drift would show).
// hb-arch: 90a 80
#include <math.h>
#include <stdio.h>

#include "cuda.cuh"

enum {
    TIME = 256,               // outputs of a tile in a row
    STEP = 64,                // inputs of a stage
    STEPS = TIME / STEP,
    WINDOW = TIME + STEP,     // taps that a stage needs: lags differ by TIME + STEP - 1
    STAGES = 4,
    THREADS = 256,            // 8 warps: in 16 bits 2 x 32 rows by 4 x 64 times, in f32 8 x 4 rows
    BLOCK = 128,              // dh: side of G_q
    LANES_DH = 2 * BLOCK,     // partial sums of a G_q: lag i - j at i - j + BLOCK, 0 is not used
    PITCH = BLOCK + 1,        // words from row to row of G_q in shared memory: no bank conflicts
};
static const int64_t MAX_L = 1 << 18;
static const int64_t WORK = 64 << 20;     // bytes of workspace at most, for each of the two

template <class T> constexpr bool IS_16 = sizeof(T) == 2;
template <class T> constexpr bool IS_HALF = false;
template <> constexpr bool IS_HALF<__half> = true;
template <class T> constexpr int TERMS = 1;                  // of a tap
template <> constexpr int TERMS<__nv_bfloat16> = 2;
template <class T> constexpr int COPIES = IS_16<T> ? 2 : 1;  // of the windows, one element apart
template <class T> constexpr int COLS = IS_16<T> ? 64 : 32;  // rows of U in a tile
// 64 bytes between two copies: even and odd lanes then read from different banks.
template <class T> constexpr int COPY_BYTES = WINDOW * (int)sizeof(T) + (IS_16<T> ? 64 : 0);
template <class T> constexpr int TILE_BYTES = COLS<T> * STEP * (int)sizeof(T);
// Swizzled tiles of wgmma start at multiples of 1024 bytes.
template <class T> constexpr int STAGE_BYTES =
    (TILE_BYTES<T> + TERMS<T> * COPIES<T> * COPY_BYTES<T> + 1023) / 1024 * 1024;
constexpr int OUT_PITCH = TIME * 2 + 16;      // bytes, wgmma: from row to row of the results

template <class T> constexpr int DEPTH = IS_16<T> ? 32 : 16;          // dh: (b,n) pairs of a stage
template <class T> constexpr int DH_THREADS = IS_16<T> ? 128 : 256;
template <class T> constexpr int SIDE_BYTES = DEPTH<T> * BLOCK * (int)sizeof(T);
constexpr int DH_SHARED = BLOCK * PITCH * (int)sizeof(float);         // > STAGES * 2 SIDE_BYTES

// One product with Toeplitz matrices: out = in * h, or its adjoint. Strides in elements.
struct job {
    const void *in;  struct hb_strides si;
    void *out;       struct hb_strides so;
    const void *taps;          // (D, TERMS, COPIES, width): h[origin - x], adjoint h[x - origin]
    const float2 *scale;       // (D): taps were multiplied by .x; .y undoes it
    const float *d;            // or NULL
    int B, L, reach;           // reach: L, or more where rows do not start at 16-byte boundaries
    int blocks;                // of TIME samples in `reach`
    int log_batch;             // a tile has 2^log_batch of the batch and COLS / that blocks
    int col_tiles, batch_tiles;
    int64_t width, origin;
};

// dh of a group of channels.
struct dh_job {
    const void *dy;  struct hb_strides sdy;
    const void *u;   struct hb_strides su;
    float *part;               // (D, blocks, LANES_DH)
    int B, L, blocks;
    bool shifted;              // rows of dy and u have the same alignment: both may start earlier
};

// --- pieces of both kernels ------------------------------------------------------------------
__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

// 16 bytes to shared memory, of which the first n are read and the others are 0.
__device__ __forceinline__ void copy_async(void *dst, const void *src, int n)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(dst)), "l"(src), "r"(n) : "memory");
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

// Hopper's instructions: a product of 64 times (16 a warp, fragments as above) by 64 rows of U that
// lie in shared memory, asynchronous. Elsewhere nobody launches the kernels that have them.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define WGMMA(TYPE)                                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " "                 \
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,"   \
                 "%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, "        \
                 "1, 1, 1, 0;"                                                                   \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]),       \
                   "+f"(c[6]), "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]),     \
                   "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]),              \
                   "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]),              \
                   "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]),              \
                   "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])               \
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a0), "l"(tile))
#else
#define WGMMA(TYPE) __trap()
#endif

// c (64 x 64) += a (64 x 16) b (16 x 64); words of a 16 x 16 Toeplitz fragment: a0 on the diagonal,
// a1 eight rows down, a2 eight columns on. Element 4 j + e of c: row lane / 4 + e / 2 * 8 of the
// warp's 16, column 8 j + 2 (lane % 4) + e % 2. tile: see tile_of.
template <class T>
__device__ __forceinline__ void wgmma(float (&c)[32], uint32_t a0, uint32_t a1, uint32_t a2,
                                      uint64_t tile)
{
    if constexpr (IS_HALF<T>) WGMMA("f16");
    else WGMMA("bf16");
}

// Matrix descriptor of 64 rows of 128 bytes in 128-byte swizzle (that of `place`): address, 1024
// bytes from eight rows to the next. 16 columns further are 2 more (32 bytes).
__device__ __forceinline__ uint64_t tile_of(const unsigned char *stage)
{
    return (uint64_t)(shared_address(stage) >> 4 & 0x3fff) | 1ull << 16 | 64ull << 32 | 1ull << 62;
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

__device__ __forceinline__ void wgmma_end(void)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
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

// --- the filter's windows --------------------------------------------------------------------
// Block c: taps (TERMS, COPIES, width) and scale of channel c from h (D,L). Copy 1 is copy 0 from
// its second element on.
template <class T, bool ADJOINT>
__global__ void __launch_bounds__(THREADS) prepare(T *taps, float2 *scale, const float *h, int L,
                                                   int64_t width, int64_t origin)
{
    __shared__ float tops[THREADS / 32];
    const int64_t c = blockIdx.x;
    const float *row = h + c * L;
    float2 by = { 1, 1 };
    if constexpr (IS_HALF<T>) {          // the largest tap gets exponent 14, half's last but one
        float top = 0;
        for (int s = threadIdx.x; s < L; s += THREADS)
            top = fmaxf(top, fabsf(row[s]));
        for (int w = 16; w; w /= 2)
            top = fmaxf(top, __shfl_xor_sync(~0u, top, w));
        if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
        __syncthreads();
        for (int w = 0; w < THREADS / 32; w++)
            top = fmaxf(top, tops[w]);
        const int e = top > 0 ? 14 - min(max(ilogbf(top), -80), 100) : 0;
        by = { ldexpf(1, e), ldexpf(1, -e) };
    }
    if (threadIdx.x == 0) scale[c] = by;

    taps += c * TERMS<T> * COPIES<T> * width;
    for (int64_t x = threadIdx.x; x <= width; x += THREADS) {
        const int64_t s = ADJOINT ? x - origin : origin - x;
        float left = s >= 0 && s < L && x < width ? row[s] * by.x : 0;
#pragma unroll
        for (int term = 0; term < TERMS<T>; term++) {
            T *const to = taps + term * COPIES<T> * width;
            const T v = hb_store<T>(left);
            left -= hb_load(v);
            if (x < width) to[x] = v;
            if (COPIES<T> == 2 && x > 0) to[width + x - 1] = v;
        }
    }
}

// --- y and du: the Toeplitz product ----------------------------------------------------------
// Sums of a thread. 16 bits: [16 rows][8 times][fragment]; f32: [row][time], in two levels.
template <class T> struct sums { float a[2][8][4]; };
template <> struct sums<float> { float a[4][8], total[4][8], lost[4][8]; };

// What a warp does in a tile.
struct part {
    int row;                   // its first row of U in the tile
    int time;                  // its first output in the block, over STEP; f32: the lane's
};

template <class T> __device__ __forceinline__ struct part part_of(int warp, int lane)
{
    if (!IS_16<T>) return { 4 * warp, 8 * lane / STEP };
    // Late outputs have more inputs: each of the four schedulers gets a short and a long column.
    return { 32 * (warp / 4), warp < 4 ? warp % 4 : 3 - warp % 4 };
}

// Sums of 16-row fragments FIRST .. FIRST + COUNT - 1 += the stage's product with one term of h.
template <class T, int FIRST, int COUNT>
__device__ __forceinline__ void multiply(struct sums<T> &y, const unsigned char *stage,
                                         struct part w, int term)
{
    const int lane = threadIdx.x % 32, g = lane / 4, odd = g & 1;
    const unsigned char *copy = stage + TILE_BYTES<T> + (2 * term + odd) * COPY_BYTES<T>;
    const uint32_t *word = (const uint32_t *)copy + (TIME - STEP * w.time - g - odd) / 2 + lane % 4;
    uint32_t tap[15];              // [7 + m]: input minus output = 8 m + 2 (lane % 4) - g
#pragma unroll
    for (int m = -7; m <= 7; m++)
        tap[7 + m] = word[4 * m];
    const uint32_t tile = shared_address(stage);
#pragma unroll
    for (int k = 0; k < STEP / 16; k++)
#pragma unroll
        for (int i = FIRST; i < FIRST + COUNT; i++) {
            uint32_t u[4];
            const int row = w.row + 16 * i + lane % 16;
            load_matrices<false>(u, tile + place<T>(row, 2 * STEP, 2 * k + lane / 16));
#pragma unroll
            for (int j = 0; j < 8; j++)
                mma<T>(y.a[i][j], u, tap[7 + 2 * k - j], tap[8 + 2 * k - j]);
        }
}

// f32: 4 rows by 8 outputs. Taps x - 8 .. x + 3 of the window serve inputs 4 k .. 4 k + 3.
__device__ __forceinline__ void multiply_f32(struct sums<float> &y, const unsigned char *stage,
                                             struct part w)
{
    const int lane = threadIdx.x % 32;
    const float *h = (const float *)(stage + TILE_BYTES<float>) + TIME - 8 * lane;
    const float *u = (const float *)stage + w.row * STEP;
    float4 far = *(const float4 *)(h - 8), mid = *(const float4 *)(h - 4);
#pragma unroll
    for (int k = 0; k < STEP / 4; k++) {
        const float4 near = *(const float4 *)(h + 4 * k);
        const float tap[12] = { far.x, far.y, far.z, far.w, mid.x, mid.y, mid.z, mid.w,
                                near.x, near.y, near.z, near.w };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float4 v = *(const float4 *)(u + i * STEP + 4 * k);
#pragma unroll
            for (int t = 0; t < 8; t++) {
                y.a[i][t] = fmaf(tap[8 - t], v.x, y.a[i][t]);
                y.a[i][t] = fmaf(tap[9 - t], v.y, y.a[i][t]);
                y.a[i][t] = fmaf(tap[10 - t], v.z, y.a[i][t]);
                y.a[i][t] = fmaf(tap[11 - t], v.w, y.a[i][t]);
            }
        }
        far = mid;
        mid = near;
    }
}

// The skip term: sums += d u, where the stage has the inputs of the outputs' own times.
template <class T>
__device__ __forceinline__ void add_skip(struct sums<T> &y, const unsigned char *stage,
                                         struct part w, float d)
{
    const int lane = threadIdx.x % 32;
    if constexpr (IS_16<T>) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = w.row + 8 * i + lane / 4;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const T *u = (const T *)(stage + place<T>(row, 2 * STEP, j)) + 2 * (lane % 4);
                y.a[i / 2][j][i % 2 * 2] += d * hb_load(u[0]);
                y.a[i / 2][j][i % 2 * 2 + 1] += d * hb_load(u[1]);
            }
        }
    } else {
        const float *u = (const float *)stage + w.row * STEP + 8 * lane % STEP;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int t = 0; t < 8; t++)
                y.a[i][t] = fmaf(d, u[i * STEP + t], y.a[i][t]);
    }
}

__device__ __forceinline__ void next_level(struct sums<float> &y)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int t = 0; t < 8; t++) {
            add_exact(&y.total[i][t], &y.lost[i][t], y.a[i][t]);
            y.a[i][t] = 0;
        }
}

// Words w[j] of lane t become w[t] of lane j, among four lanes.
__device__ __forceinline__ void transpose4(uint32_t (&w)[4], int t)
{
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (j & bit) continue;
            const bool up = t & bit;
            const uint32_t got = __shfl_xor_sync(~0u, up ? w[j] : w[j + bit], bit);
            if (up) w[j] = got;
            else w[j + bit] = got;
        }
}

// A row of a tile: where its samples are, in the time that starts at a 16-byte boundary.
template <class T> struct place_of { const T *in; T *out; int block, from, end; };

template <class T>
__device__ __forceinline__ struct place_of<T> row_of(const struct job &j, int64_t c, int b0,
                                                     int first, int row)
{
    const int64_t b = b0 + (row & ((1 << j.log_batch) - 1));
    const int block = first + (row >> j.log_batch);
    if (b >= j.B || block >= j.blocks) return { (const T *)j.in, (T *)j.out, block, 0, 0 };
    const T *in = (const T *)j.in + b * j.si.b + c * j.si.c;
    const int from = shift_of(in);
    return { in - from, (T *)j.out + b * j.so.b + c * j.so.c - from, block, from, j.L + from };
}

template <class T>
__device__ __forceinline__ void store(struct sums<T> &y, const struct job &j, int64_t c, int b0,
                                      int first, struct part w, float scale)
{
    const int lane = threadIdx.x % 32;
    if constexpr (IS_16<T>) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const struct place_of<T> r = row_of<T>(j, c, b0, first, w.row + 8 * i + lane / 4);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                uint32_t word[4];
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    const float *a = y.a[i / 2][4 * half + n] + i % 2 * 2;
                    const T pair[2] = { hb_store<T>(a[0] * scale), hb_store<T>(a[1] * scale) };
                    memcpy(&word[n], pair, sizeof pair);
                }
                transpose4(word, lane % 4);
                struct hb_vec<T> v;
                memcpy(&v, word, sizeof v);
                const int t = r.block * TIME + w.time * STEP + 32 * half + 8 * (lane % 4);
                put<T>(r.out + t, t, r.from, r.end, v);
            }
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const struct place_of<T> r = row_of<T>(j, c, b0, first, w.row + i);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                struct hb_vec<T> v;
#pragma unroll
                for (int n = 0; n < 4; n++)
                    v.x[n] = y.total[i][4 * half + n];
                const int t = r.block * TIME + 8 * lane + 4 * half;
                put<T>(r.out + t, t, r.from, r.end, v);
            }
        }
    }
}

// Rows lo .. lo + n - 1 of the tile have something at lag block q.
template <bool ADJOINT>
__device__ __forceinline__ bool useful(const struct job &j, int b0, int first, int lo, int n, int q)
{
    const int early = first + (lo >> j.log_batch), late = first + ((lo + n - 1) >> j.log_batch);
    if (early >= j.blocks || b0 + (lo & ((1 << j.log_batch) - 1)) >= j.B) return false;
    return ADJOINT ? early + q < j.blocks : late >= q;
}

// --- the same with wgmma: four warps and 64 rows of U, two 64 x 64 sums each ---------------------
// Products FIRST .. LAST - 1 of 64 times each; words [m + 1] as in `multiply`, of 16 times.
template <class T, int FIRST, int LAST>
__device__ __forceinline__ void multiply_group(float (&y)[2][32], const unsigned char *stage,
                                               const int (&time)[2], int term)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, g = lane / 4, odd = g & 1;
    const unsigned char *copy = stage + TILE_BYTES<T> + (2 * term + odd) * COPY_BYTES<T>;
    const uint32_t *word = (const uint32_t *)copy + (TIME - g - odd) / 2 + lane % 4;
    uint32_t tap[2][9];
#pragma unroll
    for (int i = FIRST; i < LAST; i++)
#pragma unroll
        for (int m = -1; m <= 7; m++)
            tap[i][m + 1] = word[4 * (m - 8 * time[i] - 2 * warp)];
    const uint64_t tile = tile_of(stage);
    wgmma_begin();
#pragma unroll
    for (int i = FIRST; i < LAST; i++)
#pragma unroll
        for (int k = 0; k < STEP / 16; k++)
            wgmma<T>(y[i], tap[i][2 * k + 1], tap[i][2 * k], tap[i][2 * k + 2], tile + 2 * k);
    wgmma_end();
}

template <class T>
__device__ __forceinline__ void add_skip_group(float (&y)[32], const unsigned char *stage, float d)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int e = 0; e < 32; e++) {
        const int row = e / 4 * 8 + lane % 4 * 2 + e % 2, piece = 2 * warp + e / 2 % 2;
        y[e] += d * hb_load(((const T *)(stage + place<T>(row, 2 * STEP, piece)))[lane / 4]);
    }
}

// Through shared memory, so that 16 bytes of a row are in one thread.
template <class T>
__device__ __forceinline__ void store_group(const float (&y)[2][32], const struct job &j, int64_t c,
                                            int b0, int first, const int (&time)[2], float scale,
                                            unsigned char *ring)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    __syncthreads();                           // nobody reads the last stages any more
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            uint32_t word[4];                  // rows 8 n .., early and late times; 8 rows on
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const float *a = y[i] + 4 * n + 2 * r;
                const T pair[2] = { hb_store<T>(a[0] * scale), hb_store<T>(a[1] * scale) };
                memcpy(&word[r], pair, sizeof pair);
            }
            const int row = 8 * (n + lane / 16) + lane % 8;
            const int t = time[i] * STEP + 16 * warp + lane / 8 % 2 * 8;
            store_matrices(shared_address(ring) + row * OUT_PITCH + 2 * t, word);
        }
    __syncthreads();
    for (int n = threadIdx.x; n < COLS<T> * TIME / 8; n += THREADS) {
        const struct place_of<T> r = row_of<T>(j, c, b0, first, n / (TIME / 8));
        const int p = n % (TIME / 8), t = r.block * TIME + 8 * p;
        const unsigned char *from = ring + n / (TIME / 8) * OUT_PITCH + 16 * p;
        put<T>(r.out + t, t, r.from, r.end, *(const struct hb_vec<T> *)from);
    }
}

// --- the kernels ---------------------------------------------------------------------------------
// A tile: rows of U from batch b0 and block `first` on, of channel c.
struct tile { int64_t c; int b0, first, lags, stages; };

template <class T, bool ADJOINT> __device__ __forceinline__ struct tile tile_at(const struct job &j)
{
    const int n = blockIdx.x % j.col_tiles, wide = COLS<T> >> j.log_batch;
    struct tile t;
    t.b0 = blockIdx.x / j.col_tiles % j.batch_tiles << j.log_batch;
    t.c = blockIdx.x / j.col_tiles / j.batch_tiles;
    t.first = (ADJOINT ? n : j.col_tiles - 1 - n) * wide;      // long ones start first
    t.lags = ADJOINT ? j.blocks - t.first : min(t.first + wide, j.blocks);
    t.stages = t.lags * STEPS;
    if (ADJOINT || t.first == j.blocks - 1)                    // the last block may be short
        t.stages += (j.reach + STEP - 1) / STEP - j.blocks * STEPS;
    return t;
}

// What a thread moves. Stage `it` has samples [64 it, 64 it + 64) of every row, from the tile's
// first input on. Lag block q falls with it (forward) or rises (adjoint); taps move the same way.
template <class T> constexpr int PIECES = STEP / HB_VEC<T>;
template <class T> constexpr int PER = COLS<T> * PIECES<T> / THREADS;
constexpr int ROUND = THREADS * 16;       // a multiple of eight rows: `place` repeats
template <class T> struct feed {
    struct piece<T> src[PER<T>];
    int to;                    // where src[0] goes; src[1]: ROUND bytes further
    const T *tap;              // NULL: this thread has none
    int tap_to;
};

template <class T, bool ADJOINT>
__device__ __forceinline__ struct feed<T> feed_of(const struct job &j, const struct tile &tile)
{
    struct feed<T> f;
#pragma unroll
    for (int r = 0; r < PER<T>; r++) {
        const int p = threadIdx.x % PIECES<T>;
        const int row = threadIdx.x / PIECES<T> + r * (THREADS / PIECES<T>);
        const struct place_of<T> at = row_of<T>(j, tile.c, tile.b0, tile.first, row);
        const int t = (ADJOINT ? at.block : at.block - (tile.lags - 1)) * TIME + p * HB_VEC<T>;
        f.src[r] = { at.in + t, t, at.from, at.end };
        if (r == 0) f.to = place<T>(row, STEP * (int)sizeof(T), p);
    }
    constexpr int TAP_PIECES = WINDOW / HB_VEC<T>;
    const int copy = threadIdx.x / TAP_PIECES, p = threadIdx.x % TAP_PIECES;
    f.tap_to = TILE_BYTES<T> + copy * COPY_BYTES<T> + 16 * p;
    f.tap = NULL;
    if (copy < TERMS<T> * COPIES<T>)
        f.tap = (const T *)j.taps + (tile.c * TERMS<T> * COPIES<T> + copy) * j.width
                + (ADJOINT ? 0 : j.origin - (int64_t)tile.lags * TIME) + p * HB_VEC<T>;
    return f;
}

template <class T>
__device__ __forceinline__ void load_stage(struct feed<T> &f, unsigned char *stage, const void *any)
{
#pragma unroll
    for (int r = 0; r < PER<T>; r++) {
        fetch<T>(f.src[r], stage + f.to + r * ROUND, any);
        f.src[r].p += STEP;
        f.src[r].t += STEP;
    }
    if (f.tap) {
        copy_async(stage + f.tap_to, f.tap, 16);
        f.tap += STEP;
    }
}

// Grid (channels x batch_tiles x col_tiles), block THREADS, dynamic shared STAGES * STAGE_BYTES.
template <class T, bool ADJOINT, bool GROUPS>
__global__ void __launch_bounds__(THREADS, IS_16<T> ? 2 : 1) toeplitz(const struct job j)
{
    extern __shared__ __align__(1024) unsigned char ring[];
    const struct tile tile = tile_at<T, ADJOINT>(j);
    const float2 scale = j.scale[tile.c];
    const float d = j.d ? j.d[tile.c] * scale.x : 0;
    const int first = tile.first;
    struct feed<T> f = feed_of<T, ADJOINT>(j, tile);
    for (int it = 0; it < STAGES - 1; it++) {
        if (it < tile.stages) load_stage<T>(f, ring + it * STAGE_BYTES<T>, j.taps);
        commit();
    }
    // The next stage: it is there, and all have left the one before, which is filled again.
    auto turn = [&](int it) {
        arrived<STAGES - 2>();
        if (GROUPS) publish();
        __syncthreads();
        const int ahead = it + STAGES - 1;
        if (ahead < tile.stages)
            load_stage<T>(f, ring + ahead % STAGES * STAGE_BYTES<T>, j.taps);
        commit();
        return (const unsigned char *)ring + it % STAGES * STAGE_BYTES<T>;
    };
    const int own0 = ADJOINT ? 0 : (tile.lags - 1) * STEPS;    // stage of the block's first inputs

    if constexpr (GROUPS) {
        // Each group of warps has a short and a long column: late outputs have more inputs.
        // The shuffle tells the compiler that a warp is in one group.
        const int group = __shfl_sync(~0u, threadIdx.x / 128, 0), time[2] = { group, 3 - group };
        const int own_a = own0 + time[0], own_b = own0 + time[1];
        const bool in_a = first * TIME + time[0] * STEP < j.reach;
        const bool in_b = first * TIME + time[1] * STEP < j.reach;
        float y[2][32] = {};
        for (int it = 0; it < tile.stages; it++) {
            const unsigned char *stage = turn(it);
            const bool a = in_a && (ADJOINT ? it >= own_a : it <= own_a);
            const bool b = in_b && (ADJOINT ? it >= own_b : it <= own_b);
#pragma unroll 1
            for (int term = 0; term < TERMS<T>; term++)
                if (a && b) multiply_group<T, 0, 2>(y, stage, time, term);
                else if (a) multiply_group<T, 0, 1>(y, stage, time, term);
                else if (b) multiply_group<T, 1, 2>(y, stage, time, term);
            if (it == own_a && d != 0) add_skip_group<T>(y[0], stage, d);
            if (it == own_b && d != 0) add_skip_group<T>(y[1], stage, d);
        }
        store_group<T>(y, j, tile.c, tile.b0, first, time, scale.y, ring);
    } else {
        const struct part w = part_of<T>(threadIdx.x / 32, threadIdx.x % 32);
        const int own = own0 + w.time;                         // stage of its own times
        const bool idle = IS_16<T> && first * TIME + w.time * STEP >= j.reach;
        struct sums<T> y = {};
        for (int it = 0; it < tile.stages; it++) {
            const unsigned char *stage = turn(it);
            const int q = ADJOINT ? it / STEPS : tile.lags - 1 - it / STEPS;
            if constexpr (IS_16<T>) {
                if (idle || (ADJOINT ? it < own : it > own)) continue;
                const bool a = useful<ADJOINT>(j, tile.b0, first, w.row, 16, q);
                const bool b = useful<ADJOINT>(j, tile.b0, first, w.row + 16, 16, q);
#pragma unroll 1
                for (int term = 0; term < TERMS<T>; term++)
                    if (a && b) multiply<T, 0, 2>(y, stage, w, term);
                    else if (a) multiply<T, 0, 1>(y, stage, w, term);
                    else if (b) multiply<T, 1, 1>(y, stage, w, term);
                if (it == own && d != 0) add_skip<T>(y, stage, w, d);
            } else if (useful<ADJOINT>(j, tile.b0, first, w.row, 4, q)) {
                multiply_f32(y, stage, w);
                if (it == own && d != 0) add_skip<T>(y, stage, w, d);
                next_level(y);
            }
        }
        store<T>(y, j, tile.c, tile.b0, first, w, scale.y);
    }
}

// --- dh --------------------------------------------------------------------------------------
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
        const uint32_t a_at = shared_address(A), b_at = shared_address(B);
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
template <class T> __device__ __forceinline__ void spread(const struct squares<T> &g, float *G)
{
    if constexpr (IS_16<T>) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        G += (warp / 2 * 64 + lane / 4) * PITCH + warp % 2 * 64 + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int r = 0; r < 4; r++)
                    G[(16 * i + r / 2 * 8) * PITCH + 8 * j + r % 2] = g.a[i][j][r];
    } else {
        G += threadIdx.x / 16 * 4 * PITCH + threadIdx.x % 16 * 4;
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 8; j++)
                G[(i / 4 * 64 + i % 4) * PITCH + j / 4 * 64 + j % 4] = g.total[i][j];
    }
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
    float *const G = (float *)ring;
    spread<T>(g, G);
    __syncthreads();

    // Lag x and lag x - BLOCK together have BLOCK elements of G.
    for (int x = threadIdx.x; x < BLOCK; x += DH_THREADS<T>) {
        double high = 0, low = 0;
        for (int i = 0; i < BLOCK; i++)
            if (i >= x) high += (double)G[i * PITCH + i - x];
            else low += (double)G[i * PITCH + i - x + BLOCK];
        float *const part = j.part + (c * j.blocks + q) * LANES_DH;
        part[BLOCK + x] = (float)high;
        part[x] = (float)low;
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

// --- host ------------------------------------------------------------------------------------
struct state {
    const struct hb_host *host;
    enum hb_dtype dtype;
    int64_t B, L, D;
    bool fixed, backward;
    bool hopper;               // the device has wgmma (compute capability 9.0)
    int64_t width, origin;     // of the windows
    int64_t group;             // channels whose windows are there at a time; D for fixed filters
    int64_t dh_group;          // channels whose parts are there at a time
    int64_t taps_bytes;        // of one channel's windows
    void *taps[2];             // owned: (group) windows, of y and of du; not fixed: the same memory
    float2 *scale[2];          // owned: (group)
    float *part;               // owned: (dh_group, blocks, LANES_DH); only with a backward pass
};

static int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Longest row in the time that starts at a 16-byte boundary.
static int64_t longest(const struct state *s)
{
    return s->L + (int64_t)(16 / hb_dtype_size(s->dtype)) - 1;
}

static const char *refuses(const struct hb_problem *p)
{
    if (p->dtype == HB_F64) return "no float64";
    if (p->L > MAX_L) return "L above 2^18";
    if (p->B > INT32_MAX / ((p->L + 7) / BLOCK + 2)) return "B L above 2^38";
    return p->D > INT32_MAX ? "D above 2^31" : NULL;
}

// Samples in the longest row, counted from 16-byte boundaries.
static int64_t reach_of(const struct state *s, const void *x, struct hb_strides st)
{
    const int64_t vec = (int64_t)(16 / hb_dtype_size(s->dtype));
    const bool aligned = (uintptr_t)x % 16 == 0 && (s->B == 1 || st.b % vec == 0)
                         && (s->D == 1 || st.c % vec == 0);
    return aligned ? s->L : s->L + vec - 1;
}

template <class T> static void launch_prepare(const struct state *s, const float *h, int64_t n,
                                              bool adjoint, cudaStream_t stream)
{
    T *const taps = (T *)s->taps[adjoint];
    float2 *const scale = s->scale[adjoint];
    const unsigned grid = (unsigned)n;
    const int L = (int)s->L;
    if (adjoint) prepare<T, true><<<grid, THREADS, 0, stream>>>(taps, scale, h, L, s->width, TIME);
    else prepare<T, false><<<grid, THREADS, 0, stream>>>(taps, scale, h, L, s->width, s->origin);
}

// out = in * h + d in, or its adjoint, for all channels, a group at a time.
static void convolve(const struct state *s, struct job j, const float *h, bool adjoint,
                     cudaStream_t stream)
{
    const int64_t size = (int64_t)hb_dtype_size(s->dtype), cols = s->dtype == HB_F32 ? 32 : 64;
    const int64_t reach = reach_of(s, j.in, j.si);
    while (1 << j.log_batch < cols && 1 << j.log_batch < s->B) j.log_batch++;
    j.B = (int)s->B;
    j.L = (int)s->L;
    j.reach = (int)reach;
    j.blocks = (int)blocks_of(reach, TIME);
    j.col_tiles = (int)blocks_of(j.blocks, cols >> j.log_batch);
    j.batch_tiles = (int)blocks_of(s->B, 1 << j.log_batch);
    j.width = s->width;
    j.origin = adjoint ? (int64_t)TIME : s->origin;
    j.taps = s->taps[adjoint];
    j.scale = s->scale[adjoint];
    // wgmma takes all rows of a tile or none: not where many of its blocks have nothing at a lag.
    const int64_t wide = cols >> j.log_batch;
    const bool groups = s->hopper && s->dtype != HB_F32 && (wide == 1 || j.blocks >= 4 * wide);
    const int64_t tiles = (int64_t)j.col_tiles * j.batch_tiles;
    int64_t group = s->group;
    if (!s->fixed && group * tiles > INT32_MAX) group = INT32_MAX / tiles;
    for (int64_t c = 0; c < s->D; c += group) {
        const int64_t n = s->D - c < group ? s->D - c : group;
        hb_by_type(s->dtype, [&](auto x) {
            using T = decltype(x);
            if (!s->fixed) launch_prepare<T>(s, h + c * s->L, n, adjoint, stream);
            const unsigned grid = (unsigned)(n * tiles);
            const size_t shared = STAGES * STAGE_BYTES<T>;
            static_assert(STAGES * STAGE_BYTES<T> <= 48 << 10, "more needs an attribute");
            static_assert(COLS<T> * OUT_PITCH <= STAGES * STAGE_BYTES<T>);
            if (groups && adjoint)
                toeplitz<T, true, IS_16<T>><<<grid, THREADS, shared, stream>>>(j);
            else if (groups) toeplitz<T, false, IS_16<T>><<<grid, THREADS, shared, stream>>>(j);
            else if (adjoint) toeplitz<T, true, false><<<grid, THREADS, shared, stream>>>(j);
            else toeplitz<T, false, false><<<grid, THREADS, shared, stream>>>(j);
        });
        j.in = (const char *)j.in + n * j.si.c * size;
        j.out = (char *)j.out + n * j.so.c * size;
        if (j.d) j.d += n;
    }
}

static void filter_gradient(const struct state *s, const struct hb_longconv_io *io,
                            cudaStream_t stream)
{
    const int64_t vec = (int64_t)(16 / hb_dtype_size(s->dtype));
    const int64_t size = (int64_t)hb_dtype_size(s->dtype);
    const bool alike = (uintptr_t)io->u % 16 == (uintptr_t)io->dy % 16
                       && (s->B == 1 || (io->su.b - io->sdy.b) % vec == 0)
                       && (s->D == 1 || (io->su.c - io->sdy.c) % vec == 0);
    const int64_t blocks = blocks_of(alike ? reach_of(s, io->u, io->su) : s->L, BLOCK);
    float *const dd = io->d ? (float *)io->dd : NULL;
    for (int64_t c = 0; c < s->D; c += s->dh_group) {
        const int64_t n = s->D - c < s->dh_group ? s->D - c : s->dh_group;
        const struct dh_job j = { (const char *)io->dy + c * io->sdy.c * size, io->sdy,
                                  (const char *)io->u + c * io->su.c * size, io->su,
                                  s->part, (int)s->B, (int)s->L, (int)blocks, alike };
        hb_by_type(s->dtype, [&](auto x) {
            using T = decltype(x);
            outer<T><<<(unsigned)(n * blocks), DH_THREADS<T>, DH_SHARED, stream>>>(j);
        });
        float *const dh = (float *)io->dh + c * s->L;
        gather<<<(unsigned)blocks_of(n * s->L, THREADS), THREADS, 0, stream>>>(
            dh, dd ? dd + c : NULL, s->part, n * s->L, (int)s->L, (int)blocks);
    }
}

static int forward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    const struct hb_longconv_io *v = &io->conv;
    const struct job j = { .in = v->u, .si = v->su, .out = v->y, .so = v->sy,
                           .d = (const float *)v->d };
    convolve(s, j, (const float *)v->h, false, (cudaStream_t)io->stream);
    return hb_cuda_launched(s->host, "longconv_direct_cuda forward");
}

static int backward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    const struct hb_longconv_io *v = &io->conv;
    if (!s->backward)
        return s->host->fail(s->host, HB_ERR_INPUT,
                             "longconv_direct_cuda: not planned for backward");
    const struct job j = { .in = v->dy, .si = v->sdy, .out = v->du, .so = v->sdu,
                           .d = (const float *)v->d };
    convolve(s, j, (const float *)v->h, true, (cudaStream_t)io->stream);
    filter_gradient(s, v, (cudaStream_t)io->stream);
    return hb_cuda_launched(s->host, "longconv_direct_cuda backward");
}

static int set_filter(void *st, const void *h)
{
    const struct state *s = (const struct state *)st;
    const cudaStream_t stream = (cudaStream_t)s->host->device->stream;
    hb_by_type(s->dtype, [&](auto x) {
        using T = decltype(x);
        launch_prepare<T>(s, (const float *)h, s->D, false, stream);
        if (s->backward) launch_prepare<T>(s, (const float *)h, s->D, true, stream);
    });
    return hb_cuda_launched(s->host, "longconv_direct_cuda set_filter");
}

static void destroy(void *st)
{
    struct state *s = (struct state *)st;
    if (!s) return;
    const struct hb_device *dev = s->host->device;
    void *const owned[] = { s->taps[0], s->scale[0], s->fixed ? s->taps[1] : NULL,
                            s->fixed ? s->scale[1] : NULL, s->part };
    for (void *p : owned)
        if (p) dev->free(dev, p);
    s->host->free(s->host, s);
}

// All workspace, or HB_ERR_OOM with what there is in the state.
static int take_memory(struct state *s)
{
    const struct hb_device *dev = s->host->device;
    const int sets = s->fixed && s->backward ? 2 : 1;
    for (int i = 0; i < sets; i++) {
        s->taps[i] = dev->alloc(dev, (size_t)(s->group * s->taps_bytes));
        s->scale[i] = (float2 *)dev->alloc(dev, (size_t)s->group * sizeof(float2));
        if (!s->taps[i] || !s->scale[i]) return HB_ERR_OOM;
    }
    if (!s->fixed) {
        s->taps[1] = s->taps[0];
        s->scale[1] = s->scale[0];
    }
    if (!s->backward) return HB_OK;
    const int64_t bytes = blocks_of(longest(s), BLOCK) * LANES_DH * (int64_t)sizeof(float);
    s->dh_group = WORK / bytes < 1 ? 1 : WORK / bytes < s->D ? WORK / bytes : s->D;
    s->part = (float *)dev->alloc(dev, (size_t)(s->dh_group * bytes));
    return s->part ? HB_OK : HB_ERR_OOM;
}

static int find_hopper(struct state *s)
{
    int dev, major, minor;
    int rc = HB_CUDA(s->host, cudaGetDevice(&dev));
    if (!rc)
        rc = HB_CUDA(s->host, cudaDeviceGetAttribute(
            &major, cudaDevAttrComputeCapabilityMajor, dev));
    if (!rc)
        rc = HB_CUDA(s->host, cudaDeviceGetAttribute(
            &minor, cudaDevAttrComputeCapabilityMinor, dev));
    s->hopper = !rc && major == 9 && minor == 0;
    return rc;
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    struct state *s = (struct state *)host->alloc(host, sizeof *s);
    if (!s) return HB_ERR_OOM;
    *s = { .host = host, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D,
           .fixed = p->filter == HB_FILTER_FIXED, .backward = p->backward };
    s->origin = blocks_of(longest(s), TIME) * TIME;
    s->width = s->origin + TIME;
    hb_by_type(s->dtype, [&](auto x) {
        using T = decltype(x);
        s->taps_bytes = TERMS<T> * COPIES<T> * s->width * (int64_t)sizeof(T);
    });
    const int64_t fits = WORK / s->taps_bytes < 1 ? 1 : WORK / s->taps_bytes;
    s->group = s->fixed || fits > s->D ? s->D : fits;
    int rc = find_hopper(s);
    if (!rc) rc = take_memory(s);
    if (!rc && s->backward)
        hb_by_type(s->dtype, [&](auto x) {
            using T = decltype(x);
            rc = HB_CUDA(host, cudaFuncSetAttribute(
                outer<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, DH_SHARED));
        });
    if (rc) {
        destroy(s);
        return rc;
    }
    *st = s;
    return HB_OK;
}

static int describe(const void *st, char *buf, size_t cap)
{
    const struct state *s = (const struct state *)st;
    const bool f32 = s->dtype == HB_F32;
    const char *by = f32 ? "FMA" : s->hopper ? "wgmma or mma" : "mma";
    snprintf(buf, cap, "tile %d rows x %d times, steps of %d, %s, h in %d term%s, dh %d x %d, "
             "channels at a time %lld", f32 ? 32 : 64, TIME, STEP, by,
             s->dtype == HB_BF16 ? 2 : 1, s->dtype == HB_BF16 ? "s" : "", BLOCK, BLOCK,
             (long long)s->group);
    return HB_OK;
}

HB_EXPORT const struct hb_impl hb_impl = {
    .abi = HB_ABI_VERSION,
    .name = "longconv_direct_cuda",
    .op = HB_LONGCONV,
    .device = "cuda",
    .dtypes = 1u << HB_F32 | 1u << HB_F16 | 1u << HB_BF16,
    .source = "Poli et al. 2023, arXiv:2302.10866, sec. 2; Toeplitz products on tensor cores",
    .complexity = "O(L^2)",
    .refuses = refuses,
    .plan = plan,
    .forward = forward,
    .backward = backward,
    .destroy = destroy,
    .set_filter = set_filter,
    .describe = describe,
};
