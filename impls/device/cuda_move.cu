// cuda_move.cu: exchange of axes and rotary positions on the CUDA device.
//
// Method    Exchange: K > 1: rows of K elements are copied in the widest words that divide them
//           (16 bytes to one element). K = 1: a transposition through 64 x 64 tiles of shared
//           memory. Rotation: a block takes sine and cosine of its rows' angles once for all heads.
// Cost      every element read and written once.
// Accuracy  exchange: exact. Angles t 10000^(-2i/P) / pi are taken in float64 (whole turns drop out
//           exactly: 2e-10 at t = 2^20), the turn itself is float32, rounded once.
#include "cuda.h"
#include "cuda_vec.cuh"

enum { THREADS = 256,
       TILE = 64,                // of the transposition, both ways
       ANGLES = 512,             // of a block: 4 KiB of shared memory
       ANGLES_ROW = 256,         // of them, at most so many of one row
       GRID_Y = 65535 };         // CUDA: largest gridDim.y

// --- exchange of axes ----------------------------------------------------------------------------

// y (A,J,I,n) = x (A,I,J,n) of words. Block (x, 256/x): words of a row, rows of y; grid (rows,
// words).
template <class Word>
static __global__ void __launch_bounds__(THREADS)
    move_rows(Word *y, const Word *x, int64_t A, int64_t I, int64_t J, int64_t n)
{
    const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;   // (a J + j) I + i
    if (row >= A * I * J) return;
    const int64_t aj = quotient(row, I), i = row - aj * I, a = quotient(aj, J), j = aj - a * J;
    const Word *from = x + ((a * I + i) * J + j) * n;
    for (int64_t k = (int64_t)blockIdx.y * blockDim.x + threadIdx.x; k < n;
         k += (int64_t)gridDim.y * blockDim.x)
        y[row * n + k] = from[k];
}

template <class Word>
static void copy_rows(void *y, const void *x, int64_t A, int64_t I, int64_t J, int64_t row_bytes,
                      cudaStream_t s)
{
    const int64_t n = row_bytes / (int64_t)sizeof(Word);
    int across = 1;
    while (across < THREADS && across < n) across *= 2;
    const dim3 grid((unsigned)pieces(A * I * J, THREADS / across),
                    (unsigned)least(pieces(n, across), GRID_Y));
    move_rows<Word><<<grid, dim3((unsigned)across, (unsigned)(THREADS / across)), 0, s>>>(
        (Word *)y, (const Word *)x, A, I, J, n);
}

// y (A,J,I) = x (A,I,J), a tile per block; W elements at a time both ways (I and J multiples of W).
// Rows of the tile are one word longer than 64: the columns then start in different banks.
template <class T, int W>
static __global__ void __launch_bounds__(THREADS)
    transpose(T *y, const T *x, int64_t I, int64_t J, int64_t tiles_i, int64_t tiles_j)
{
    constexpr int PAIR = W > 1 ? 4 / (int)sizeof(T) : 1, PITCH = TILE + 4 / (int)sizeof(T);
    constexpr int ROW = TILE / W, STEP = THREADS / ROW;   // vectors of a tile's row, rows at a time
    __shared__ __align__(16) T tile[TILE * PITCH];
    const int64_t at = quotient(blockIdx.x, tiles_j), a = quotient(at, tiles_i);
    const int64_t j0 = (blockIdx.x - at * tiles_j) * TILE, i0 = (at - a * tiles_i) * TILE;
    const int v = (int)threadIdx.x % ROW * W, first = (int)threadIdx.x / ROW;
    x += a * I * J;
    y += a * I * J;
    #pragma unroll
    for (int i = first; i < TILE; i += STEP) {
        if (i0 + i >= I || j0 + v >= J) continue;
        const cuda_pack<T, W> p = load_pack<W>(x + (i0 + i) * J + j0 + v);
        #pragma unroll
        for (int k = 0; k < W; k += PAIR) {
            cuda_pack<T, PAIR> q;
            #pragma unroll
            for (int m = 0; m < PAIR; m++) q.x[m] = p.x[k + m];
            *reinterpret_cast<cuda_pack<T, PAIR> *>(tile + i * PITCH + v + k) = q;
        }
    }
    __syncthreads();
    #pragma unroll
    for (int j = first; j < TILE; j += STEP) {
        if (j0 + j >= J || i0 + v >= I) continue;
        cuda_pack<T, W> p;
        #pragma unroll
        for (int k = 0; k < W; k++) p.x[k] = tile[(v + k) * PITCH + j];
        *reinterpret_cast<cuda_pack<T, W> *>(y + (j0 + j) * I + i0 + v) = p;
    }
}

void cuda_swap(void *y, const void *x, int64_t A, int64_t I, int64_t J, int64_t K,
               struct hb_on on)
{
    const int64_t e = (int64_t)hb_dtype_size(on.t), row_bytes = K * e;
    cudaStream_t s = (cudaStream_t)on.stream;
    if (A <= 0 || I <= 0 || J <= 0 || K <= 0) return;
    if (I == 1 || J == 1) {
        const size_t bytes = (size_t)(A * I * J * row_bytes);
        cuda_note(cudaMemcpyAsync(y, x, bytes, cudaMemcpyDeviceToDevice, s), "swap");
        return;
    }
    if (K > 1) {
        const uint64_t low = (uint64_t)row_bytes | (uintptr_t)y | (uintptr_t)x;
        if (low % 16 == 0) copy_rows<uint4>(y, x, A, I, J, row_bytes, s);
        else if (low % 8 == 0) copy_rows<uint2>(y, x, A, I, J, row_bytes, s);
        else if (low % 4 == 0) copy_rows<uint32_t>(y, x, A, I, J, row_bytes, s);
        else copy_rows<uint16_t>(y, x, A, I, J, row_bytes, s);
    } else {
        hb_by_type(on.t, [&](auto z) {
            using T = decltype(z);
            constexpr int V = HB_VEC<T>;
            const int64_t ti = pieces(I, TILE), tj = pieces(J, TILE);
            const unsigned grid = (unsigned)(A * ti * tj);
            if (I % V == 0 && J % V == 0 && on_16(x) && on_16(y))
                transpose<T, V><<<grid, THREADS, 0, s>>>((T *)y, (const T *)x, I, J, ti, tj);
            else transpose<T, 1><<<grid, THREADS, 0, s>>>((T *)y, (const T *)x, I, J, ti, tj);
        });
    }
    cuda_launched("swap");
}

// --- rotary positions ----------------------------------------------------------------------------

// Block k of grid.x has `rows` rows, blockIdx.y the angles [y n, (y+1) n) of the P/2 of each;
// n rows <= ANGLES. W pairs at a time. sign -1 turns back.
template <class T, int W>
static __global__ void __launch_bounds__(THREADS)
    turn(T *x, int64_t R, int64_t L, int64_t H, int64_t P, int64_t ld, float sign, int rows, int n)
{
    __shared__ float2 angles[ANGLES];                    // (row, angle): cosine, sine
    const int64_t half = P / 2, first = (int64_t)blockIdx.y * n;
    const int64_t r0 = (int64_t)blockIdx.x * rows;
    const int here = (int)least(n, half - first), nr = (int)least(rows, R - r0);
    for (int q = threadIdx.x; q < here * nr; q += THREADS) {
        const int row = q / here, i = q - row * here;
        const int64_t at = r0 + row, t = at - quotient(at, L) * L;
        // log2 10000 = 13.28..., 1/pi = 0.318...
        const double rate = exp2(-13.287712379549449 * ((double)(first + i) / (double)half));
        double s, c;
        sincospi((double)t * (rate * 0.31830988618379067), &s, &c);
        angles[q] = make_float2((float)c, sign * (float)s);
    }
    __syncthreads();
    const int across = here / W;                         // vectors of pairs of a head
    const int64_t all = nr * H * across;
    for (int64_t q = threadIdx.x; q < all; q += THREADS) {
        const int64_t rh = quotient(q, across), row = quotient(rh, H), h = rh - row * H;
        const int i = (int)(q - rh * across) * W;
        T *p = x + (r0 + row) * ld + h * P + first + i;
        float lo[W], hi[W];
        load_v(lo, p);
        load_v(hi, p + half);
        #pragma unroll
        for (int j = 0; j < W; j++) {
            const float2 a = angles[row * here + i + j];
            const float l = a.x * lo[j] - a.y * hi[j];
            hi[j] = a.y * lo[j] + a.x * hi[j];
            lo[j] = l;
        }
        store_v(p, lo);
        store_v(p + half, hi);
    }
}

void cuda_rope(void *x, int64_t R, int64_t L, int64_t H, int64_t P, int64_t ld, bool inverse,
               struct hb_on on)
{
    const int64_t half = P / 2, n = least(half, ANGLES_ROW), rows = least(R, ANGLES / most(n, 1));
    if (R <= 0 || H <= 0 || half <= 0) return;
    const dim3 grid((unsigned)pieces(R, rows), (unsigned)pieces(half, n));
    const float sign = inverse ? -1.0f : 1.0f;
    cudaStream_t s = (cudaStream_t)on.stream;
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        constexpr int V = HB_VEC<T>;
        if (half % V == 0 && ld % V == 0 && on_16(x))
            turn<T, V><<<grid, THREADS, 0, s>>>((T *)x, R, L, H, P, ld, sign, (int)rows, (int)n);
        else turn<T, 1><<<grid, THREADS, 0, s>>>((T *)x, R, L, H, P, ld, sign, (int)rows, (int)n);
    });
    cuda_launched("rope");
}
