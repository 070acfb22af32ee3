// cuda_norm.cu: layer norm and column sums on the CUDA device.
//
// Method    a warp per row, the row in registers up to 1024 columns: device memory is read once.
//           In the backward pass the same warps add up dg and db for their rows in registers; sums
//           over rows leave each block as one row of partial sums (scratch), which a second kernel
//           adds in order. Beyond 1024 columns a row is read again through the caches, and dg and
//           db have a pass of their own.
// Cost      forward 2 R C elements, backward 4 R C, bias R C.
// Accuracy  float32; sums of some 30 terms one after the other, then pairwise, across blocks in
//           float64. The mean is taken in float64.
#include "cuda.h"
#include "cuda_vec.cuh"

#define LN_EPS 1e-5f
enum { MAX_C = 1024,             // columns that a warp keeps in registers
       CHUNKS = 512,             // shares of rows, each leaves a row of partial sums; at most
       FWD_WARPS = 8, BWD_WARPS = 4,
       SUM_WARPS = 8 };          // colsum: rows at a time per block

// --- partial sums --------------------------------------------------------------------------------

// Block (32,32): columns c0 .. c0+31 of part (n_part,n).  dst0[c] += sum for c < n0, else
// dst1[c-n0] +=.
static __global__ void __launch_bounds__(1024)
    fold(float *dst0, float *dst1, int64_t n0, const float *part, int n_part, int64_t n)
{
    __shared__ double sums[WARP][WARP + 1];
    const int64_t c = (int64_t)blockIdx.x * WARP + threadIdx.x;
    double sum = 0;
    if (c < n) {
        #pragma unroll 4
        for (int k = threadIdx.y; k < n_part; k += WARP) sum += (double)part[k * n + c];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    // Warp y adds up column y.
    sum = warp_sum(sums[threadIdx.x][threadIdx.y]);
    const int64_t mine = (int64_t)blockIdx.x * WARP + threadIdx.y;
    if (threadIdx.x || mine >= n) return;
    if (mine < n0) dst0[mine] += (float)sum;
    else dst1[mine - n0] += (float)sum;
}

static void add_up(float *dst0, float *dst1, int64_t n0, const float *part, int n_part, int64_t n,
                   void *s)
{
    fold<<<(unsigned)pieces(n, WARP), dim3(WARP, WARP), 0, (cudaStream_t)s>>>(dst0, dst1, n0, part,
                                                                              n_part, n);
}

// What the sums of layer norm's backward pass need beyond dy; NULL in the bias's.
template <class T> struct normed { const T *x; const float *mean, *rstd; };

// Block (32, SUM_WARPS), grid (columns / 32 W, shares of rows). A lane owns W columns. NS = 1:
// db = sum dy. NS = 2: dg = sum dy n and db = sum dy, n = (x - mean) rstd. part (share, NS C), or
// NULL: one share, added to dg and db here.
template <class T, int W, int NS>
static __global__ void __launch_bounds__(WARP *SUM_WARPS)
    colsum(float *dg, float *db, float *part, const T *dy, normed<T> by, int64_t R, int64_t C,
           int64_t share)
{
    __shared__ float sums[SUM_WARPS][NS][WARP * W];
    const int lane = threadIdx.x, warp = threadIdx.y;
    const int64_t c = ((int64_t)blockIdx.x * WARP + lane) * W;
    const int64_t r0 = blockIdx.y * share, r1 = r0 + share < R ? r0 + share : R;
    float sum[NS][W] = {};
    if (c < C) {
        #pragma unroll 4
        for (int64_t r = r0 + warp; r < r1; r += SUM_WARPS) {
            float e[W];
            load_v(e, dy + r * C + c);
            #pragma unroll
            for (int j = 0; j < W; j++) sum[NS - 1][j] += e[j];
            if constexpr (NS == 2) {
                float x[W], m = by.mean[r], k = by.rstd[r];
                load_v(x, by.x + r * C + c);
                #pragma unroll
                for (int j = 0; j < W; j++) sum[0][j] += e[j] * ((x[j] - m) * k);
            }
        }
    }
    #pragma unroll
    for (int q = 0; q < NS; q++)
        #pragma unroll
        for (int j = 0; j < W; j++) sums[warp][q][j * WARP + lane] = sum[q][j];
    __syncthreads();
    for (int i = warp * WARP + lane; i < NS * WARP * W; i += WARP * SUM_WARPS) {
        const int q = i / (WARP * W), at = i % (WARP * W);     // at = j 32 + lane
        const int64_t col = ((int64_t)blockIdx.x * WARP + at % WARP) * W + at / WARP;
        if (col >= C) continue;
        float total = 0;
        #pragma unroll
        for (int k = 0; k < SUM_WARPS; k++) total += sums[k][q][at];
        if (part) part[(blockIdx.y * NS + q) * C + col] = total;
        else if (NS == 2 && q == 0) dg[col] += total;
        else db[col] += total;
    }
}

template <class T, int W, int NS>
static void sum_columns(float *dg, float *db, const T *dy, normed<T> by, int64_t R, int64_t C,
                        void *s)
{
    size_t bytes;
    float *part = (float *)cuda_scratch(&bytes, s);
    const int64_t across = pieces(C, WARP * W), fit = (int64_t)bytes / (4 * NS * C);
    int64_t shares = least(2048 / across, CHUNKS);        // two blocks for every place on an H100
    shares = most(1, least(shares, least(fit, pieces(R, 4 * SUM_WARPS))));
    const int64_t share = pieces(R, shares);
    shares = pieces(R, share);
    if (shares == 1) part = NULL;
    colsum<T, W, NS><<<dim3((unsigned)across, (unsigned)shares), dim3(WARP, SUM_WARPS), 0,
                       (cudaStream_t)s>>>(dg, db, part, dy, by, R, C, share);
    if (part) add_up(NS == 2 ? dg : db, db, C, part, (int)shares, NS * C, s);
}

void cuda_bias_bwd(float *db, const void *dy, int64_t R, int64_t C, struct hb_on on)
{
    if (R <= 0 || C <= 0) return;
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        constexpr int V = HB_VEC<T>;
        if (C % V == 0 && on_16(dy))
            sum_columns<T, V, 1>(NULL, db, (const T *)dy, {}, R, C, on.stream);
        else sum_columns<T, 1, 1>(NULL, db, (const T *)dy, {}, R, C, on.stream);
    });
    cuda_launched("bias_bwd");
}

// --- layer norm, forward -------------------------------------------------------------------------

// The E elements of a row that a lane has, W at a time: first(k) is the column of vector k.
template <int W> __device__ __forceinline__ int first(int k)
{
    return (k * WARP + (int)threadIdx.x) * W;
}

// Block (32, FWD_WARPS), a warp per row, C <= 32 E.
template <class T, int E, int W>
static __global__ void __launch_bounds__(WARP *FWD_WARPS)
    norm(T *y, float *mean, float *rstd, const T *x, const float *g, const float *b, int64_t R,
         int C)
{
    const int64_t r = (int64_t)blockIdx.x * FWD_WARPS + threadIdx.y;
    if (r >= R) return;
    float e[E / W][W];
    double sum = 0;
    #pragma unroll
    for (int k = 0; k < E / W; k++)
        if (first<W>(k) < C) load_v(e[k], x + r * C + first<W>(k));
    #pragma unroll
    for (int k = 0; k < E / W; k++)
        #pragma unroll
        for (int j = 0; j < W; j++)
            if (first<W>(k) < C) sum += (double)e[k][j];
    const double exact = warp_sum(sum) / (double)C;
    const float m = (float)exact, left = (float)(exact - (double)m);     // the mean is m + left
    float square = 0;
    #pragma unroll
    for (int k = 0; k < E / W; k++)
        #pragma unroll
        for (int j = 0; j < W; j++)
            if (first<W>(k) < C) {
                e[k][j] = (e[k][j] - m) - left;
                square += e[k][j] * e[k][j];
            }
    const float inv = 1.0f / sqrtf(warp_sum(square) / (float)C + LN_EPS);
    if (threadIdx.x == 0) {
        mean[r] = m;
        rstd[r] = inv;
    }
    #pragma unroll
    for (int k = 0; k < E / W; k++) {
        const int c = first<W>(k);
        if (c >= C) break;
        float gk[W], bk[W];
        load_f(gk, g + c);
        load_f(bk, b + c);
        #pragma unroll
        for (int j = 0; j < W; j++) e[k][j] = e[k][j] * inv * gk[j] + bk[j];
        store_v(y + r * C + c, e[k]);
    }
}

// Any C: the row is read three times, twice of it from a cache.
template <class T>
static __global__ void __launch_bounds__(WARP *FWD_WARPS)
    norm_any(T *y, float *mean, float *rstd, const T *x, const float *g, const float *b, int64_t R,
             int64_t C)
{
    const int64_t r = (int64_t)blockIdx.x * FWD_WARPS + threadIdx.y;
    if (r >= R) return;
    const T *xr = x + r * C;
    double sum = 0, square = 0;
    for (int64_t c = threadIdx.x; c < C; c += WARP) sum += (double)hb_load(xr[c]);
    const double m = warp_sum(sum) / (double)C;
    for (int64_t c = threadIdx.x; c < C; c += WARP) {
        double d = (double)hb_load(xr[c]) - m;
        square += d * d;
    }
    const double inv = 1.0 / sqrt(warp_sum(square) / (double)C + (double)LN_EPS);
    if (threadIdx.x == 0) {
        mean[r] = (float)m;
        rstd[r] = (float)inv;
    }
    for (int64_t c = threadIdx.x; c < C; c += WARP)
        y[r * C + c] = hb_store<T>((float)(((double)hb_load(xr[c]) - m) * inv) * g[c] + b[c]);
}

// Calls f<E, W> for the smallest that holds C columns; E is a multiple of 16 bytes' worth.
template <class T, class F> static void by_columns(int64_t C, bool wide, F f)
{
    constexpr int V = HB_VEC<T>;
    if (!wide) f.template operator()<32, 1>();
    else if (C <= 8 * WARP) f.template operator()<8, V>();
    else if (C <= 16 * WARP) f.template operator()<16, V>();
    else if (C <= 24 * WARP) f.template operator()<24, V>();
    else f.template operator()<32, V>();
}

void cuda_layernorm_fwd(void *y, float *mean, float *rstd, const void *x, const float *g,
                        const float *b, int64_t R, int64_t C, struct hb_on on)
{
    if (R <= 0 || C <= 0) return;
    const unsigned blocks = (unsigned)pieces(R, FWD_WARPS);
    const dim3 threads(WARP, FWD_WARPS);
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        if (C > MAX_C) {
            norm_any<T><<<blocks, threads, 0, (cudaStream_t)on.stream>>>(
                (T *)y, mean, rstd, (const T *)x, g, b, R, C);
            return;
        }
        bool wide = C % HB_VEC<T> == 0 && on_16(y) && on_16(x) && on_16(g) && on_16(b);
        by_columns<T>(C, wide, [&]<int E, int W>() {
            norm<T, E, W><<<blocks, threads, 0, (cudaStream_t)on.stream>>>(
                (T *)y, mean, rstd, (const T *)x, g, b, R, (int)C);
        });
    });
    cuda_launched("layernorm_fwd");
}

// --- layer norm, backward ------------------------------------------------------------------------
// With n = (x - mean) rstd and e = dy g:   dx += rstd (e - avg(e) - n avg(e n)),  dg += dy n,
// db += dy.

// Blocks that should fit an SM: as many as the registers of a lane allow, 2 E of them for the sums.
template <class T> constexpr int resident(int E, int W)
{
    return W == 1 ? 2 : sizeof(T) == 2 ? (E <= 24 ? 4 : 3) : E <= 16 ? 4 : E <= 24 ? 3 : 2;
}

// The compiler may not know that v is what it was: it converts the packed halves again instead of
// keeping all their floats in registers meanwhile (it spilled).
template <class T, int W> __device__ __forceinline__ void keep_packed(cuda_pack<T, W> &v)
{
    if constexpr (sizeof v == 16 && sizeof(T) == 2) {
        uint4 w;
        memcpy(&w, &v, sizeof w);
        asm volatile("" : "+r"(w.x), "+r"(w.y), "+r"(w.z), "+r"(w.w));
        memcpy(&v, &w, sizeof w);
    }
}

// Block (32, BWD_WARPS); block k owns rows [k share, (k+1) share). Leaves dg and db of its rows in
// part (block, 2 C), or adds them to dg and db if part is NULL (one block).
template <class T, int E, int W>
static __global__ void __launch_bounds__(WARP *BWD_WARPS, resident<T>(E, W))
    norm_back(T *dx, float *dg, float *db, float *part, const T *dy, const T *x, const float *mean,
              const float *rstd, const float *g, int64_t R, int C, int64_t share)
{
    __shared__ float sums[BWD_WARPS][2][WARP * W];
    const int lane = threadIdx.x, warp = threadIdx.y;
    const int64_t r0 = blockIdx.x * share, r1 = r0 + share < R ? r0 + share : R;
    float sg[E / W][W] = {}, sb[E / W][W] = {};
    for (int64_t r = r0 + warp; r < r1; r += BWD_WARPS) {
        cuda_pack<T, W> xp[E / W], ep[E / W], dp[E / W];
        #pragma unroll
        for (int k = 0; k < E / W; k++) {
            if (first<W>(k) >= C) break;
            xp[k] = load_pack<W>(x + r * C + first<W>(k));
            ep[k] = load_pack<W>(dy + r * C + first<W>(k));
            dp[k] = load_pack<W>(dx + r * C + first<W>(k));
        }
        const float m = mean[r], inv = rstd[r];
        float e_avg = 0, en_avg = 0;
        #pragma unroll
        for (int k = 0; k < E / W; k++) {
            if (first<W>(k) >= C) break;
            float gk[W];
            load_f(gk, g + first<W>(k));
            #pragma unroll
            for (int j = 0; j < W; j++) {
                float d = hb_load(ep[k].x[j]), n = (hb_load(xp[k].x[j]) - m) * inv;
                sg[k][j] += d * n;
                sb[k][j] += d;
                e_avg += d * gk[j];
                en_avg += d * gk[j] * n;
            }
        }
        e_avg = warp_sum(e_avg) / (float)C;
        en_avg = warp_sum(en_avg) / (float)C;
        #pragma unroll
        for (int k = 0; k < E / W; k++) {
            if (first<W>(k) >= C) break;
            float gk[W], out[W];
            load_f(gk, g + first<W>(k));
            keep_packed(xp[k]);
            keep_packed(ep[k]);
            #pragma unroll
            for (int j = 0; j < W; j++) {
                float d = hb_load(ep[k].x[j]), n = (hb_load(xp[k].x[j]) - m) * inv;
                out[j] = hb_load(dp[k].x[j]) + inv * (d * gk[j] - e_avg - n * en_avg);
            }
            store_v(dx + r * C + first<W>(k), out);
        }
    }
    #pragma unroll
    for (int k = 0; k < E / W; k++) {            // the warps' sums, one vector of columns at a time
        __syncthreads();
        #pragma unroll
        for (int j = 0; j < W; j++) {
            sums[warp][0][j * WARP + lane] = sg[k][j];
            sums[warp][1][j * WARP + lane] = sb[k][j];
        }
        __syncthreads();
        for (int i = warp * WARP + lane; i < 2 * WARP * W; i += WARP * BWD_WARPS) {
            const int q = i / (WARP * W), at = i % (WARP * W);
            const int c = (k * WARP + at % WARP) * W + at / WARP;
            if (c >= C) continue;
            float total = 0;
            #pragma unroll
            for (int w = 0; w < BWD_WARPS; w++) total += sums[w][q][at];
            if (part) part[((int64_t)blockIdx.x * 2 + q) * C + c] = total;
            else if (q == 0) dg[c] += total;
            else db[c] += total;
        }
    }
}

// dx alone, any C.
template <class T>
static __global__ void __launch_bounds__(WARP *FWD_WARPS)
    norm_back_any(T *dx, const T *dy, const T *x, const float *mean, const float *rstd,
                  const float *g, int64_t R, int64_t C)
{
    const int64_t r = (int64_t)blockIdx.x * FWD_WARPS + threadIdx.y;
    if (r >= R) return;
    const float m = mean[r], inv = rstd[r];
    double e_sum = 0, en_sum = 0;
    for (int64_t c = threadIdx.x; c < C; c += WARP) {
        float e = hb_load(dy[r * C + c]) * g[c], n = (hb_load(x[r * C + c]) - m) * inv;
        e_sum += (double)e;
        en_sum += (double)(e * n);
    }
    const float ea = (float)(warp_sum(e_sum) / (double)C);
    const float ena = (float)(warp_sum(en_sum) / (double)C);
    for (int64_t c = threadIdx.x; c < C; c += WARP) {
        float e = hb_load(dy[r * C + c]) * g[c], n = (hb_load(x[r * C + c]) - m) * inv;
        dx[r * C + c] = hb_store<T>(hb_load(dx[r * C + c]) + inv * (e - ea - n * ena));
    }
}

void cuda_layernorm_bwd(void *dx, float *dg, float *db, const void *dy, const void *x,
                        const float *mean, const float *rstd, const float *g, int64_t R,
                        int64_t C, struct hb_on on)
{
    if (R <= 0 || C <= 0) return;
    size_t bytes;
    float *part = (float *)cuda_scratch(&bytes, on.stream);
    static_assert((size_t)CHUNKS * 2 * MAX_C * sizeof(float) <= CUDA_SCRATCH, "partial sums");
    const int64_t share = most(pieces(R, CHUNKS), 4 * BWD_WARPS);    // at least four rows per warp
    const int64_t shares = pieces(R, share);
    if (shares == 1) part = NULL;
    hb_by_type(on.t, [&](auto z) {
        using T = decltype(z);
        T *to = (T *)dx;
        const T *from = (const T *)dy, *in = (const T *)x;
        if (C > MAX_C) {
            norm_back_any<T><<<(unsigned)pieces(R, FWD_WARPS), dim3(WARP, FWD_WARPS), 0,
                               (cudaStream_t)on.stream>>>(to, from, in, mean, rstd, g, R, C);
            const normed<T> by = { in, mean, rstd };
            constexpr int V = HB_VEC<T>;
            if (C % V == 0 && on_16(dy) && on_16(x))
                sum_columns<T, V, 2>(dg, db, from, by, R, C, on.stream);
            else sum_columns<T, 1, 2>(dg, db, from, by, R, C, on.stream);
            return;
        }
        bool wide = C % HB_VEC<T> == 0 && on_16(dx) && on_16(dy) && on_16(x) && on_16(g);
        by_columns<T>(C, wide, [&]<int E, int W>() {
            norm_back<T, E, W><<<(unsigned)shares, dim3(WARP, BWD_WARPS), 0,
                                 (cudaStream_t)on.stream>>>(to, dg, db, part, from, in, mean, rstd,
                                                            g, R, (int)C, share);
        });
        if (part) add_up(dg, db, C, part, (int)shares, 2 * C, on.stream);
    });
    cuda_launched("layernorm_bwd");
}
