// cuda_filter.cu: Hyena's implicit filter on the CUDA device, forward and backward, in float64; for
// signals of 16 bits, whose rounding is four hundred times as coarse, in float32.
//     x1 = W1 z' + b1, a1 = sin(f x1);  x2 = W2 a1 + b2, a2 = sin(f x2);
//     x3 = W3 a2 + b3, a3 = sin(f x3);
//     h[c,j] = (W4 a3)[c,j] (exp(-t_j delta_c) + shift)
// Method    every product is one 64 x 64 tile per block on the float64 tensor cores, k in steps of
//           16 through two shared buffers; parameters, z and dh are widened on the way in; sines,
//           the window and their derivatives are applied on the way out. Positions are worked on
//           in chunks, features first: x, a (W,n). For 16-bit signals the tiles are of float32
//           (three tf32 products, cuda_tile64.cuh) and the hidden layers one kernel
//           (cuda_hidden.cuh). delta is linear in c and t in j, so that along a
//           row or column the window goes by a constant ratio: a few exp per thread and tile, one
//           multiplication per element.
//           Backward, per chunk: the forward of the hidden layers again; da3 = W4' (dh window), and
//           down through the layers, dx over x; then all weight gradients in one launch, cut along
//           the positions, and one that adds up the cuts.
// Order     partial sums are added in the order of their cuts and chunks: the same bits each time.
// Cost      2 L (E W + 2 W^2 + W C) flop forward in float64, about three times that backward;
//           workspace at most 48 MiB and one copy of the gradients; one cut's gradients must fit in
//           the device's scratch. 4 launches a chunk forward, 8 backward; in float32
//           two fewer.
// Source    Poli et al. 2023, arXiv:2302.10866, section 3.3 and appendix D.3, with the published
//           code's table.
// Accuracy  that of float64 (the ratios lose some 1e-13); h is rounded once. For 16-bit signals
//           about 2e-6, of h and of the gradients.
// Refuses   backward: more than about 4 million weights in float64 (CUDA_SIDE).
#include "../core/oper.h"
#include "cuda_hidden.cuh"

enum {
    ARRAYS = 6,                  // (W,n) in the workspace: x and a of three layers
    COLS = 32, SLICES = 8,       // of a block that adds up row sums
    MOST_TILES = 65535,          // CUDA: largest gridDim.y
};
static const int64_t CHUNK_BYTES = (int64_t)48 << 20;    // of the ARRAYS
static const int64_t TAIL_BYTES = (int64_t)1 << 20;      // of the scratch: sums of one row's tiles

// --- forward -------------------------------------------------------------------------------------

// x = w B + bias, a = sin(f x), (W,n); B is z (L,E) or the layer below's a (W,n). x may be NULL.
// Grid (W, n) in tiles.
template <class B>
__global__ __launch_bounds__(THREADS, RESIDENT<double>) void layer_kernel(
    double *x, double *a, B below, const float *w, const float *bias, const float *freq,
    int64_t W, int64_t K, struct chunk s)
{
    __shared__ double shared[4 * PIECE];
    plain<float, true> left = { w, K, W, blockIdx.x * (int64_t)TILE };
    acc_t<double> acc;
    lane me;
    below.r0 = blockIdx.y * (int64_t)TILE;
    multiply<double>(acc, left, below, 0, K, shared);
    #pragma unroll
    for (int m = 0; m < 4; m++) {                // m/2: which 16 rows, m%2: which 8 of them
        int64_t r = left.r0 + me.row0 + 8 * m;
        if (r >= W) continue;
        double b = bias[r], f = freq[r];
        #pragma unroll
        for (int n = 0; n < 4; n++) {
            int64_t at = r * s.ld + below.r0 + me.col0 + 8 * n;
            double x0 = acc[m / 2][n][m % 2 * 2] + b, x1 = acc[m / 2][n][m % 2 * 2 + 1] + b;
            if (x) *(double2 *)(x + at) = make_double2(x0, x1);
            *(double2 *)(a + at) = make_double2(sin(f * x0), sin(f * x1));
        }
    }
}

// h[c,j] = (w4 a3)[c,j] window. Grid (C, n) in tiles. `pairs`: h's rows begin at multiples of 8
// bytes.
template <class N>
__global__ __launch_bounds__(THREADS, RESIDENT<N>) void out_kernel(
    float *h, const N *a3, const float *w4, int64_t C, int64_t W, int64_t L, struct chunk s,
    struct window<N> win, bool pairs)
{
    __shared__ N shared[4 * PIECE];
    plain<float, true> left = { w4, W, C, blockIdx.x * (int64_t)TILE };
    plain<N, false> right = { a3, s.ld, s.n, blockIdx.y * (int64_t)TILE };
    acc_t<N> acc;
    lane me;
    multiply<N>(acc, left, right, 0, W, shared);
    N c0 = (N)(left.r0 + me.row0), j0 = (N)(s.j0 + right.r0 + me.col0);
    N shift = win.on ? win.shift : N(0);
    N first = win.at(j0, c0), leap = win.along_j(8, c0), next = win.along_j(1, c0);
    N first_c = win.along_c(8, j0), leap_c = win.both(8, 8), next_c = win.both(1, 8);
    #pragma unroll
    for (int m = 0; m < 4; m++) {
        int64_t c = left.r0 + me.row0 + 8 * m;
        N v = first;
        #pragma unroll
        for (int n = 0; n < 4; n++, v *= leap) {
            int64_t j = right.r0 + me.col0 + 8 * n;
            float *to = h + c * L + s.j0 + j;
            float y0 = (float)(acc[m / 2][n][m % 2 * 2] * (v + shift));
            float y1 = (float)(acc[m / 2][n][m % 2 * 2 + 1] * (v * next + shift));
            if (c >= C || j >= s.n) continue;
            if (pairs && j + 1 < s.n) {
                *(float2 *)to = make_float2(y0, y1);
            } else {
                to[0] = y0;
                if (j + 1 < s.n) to[1] = y1;
            }
        }
        first *= first_c;
        leap *= leap_c;
        next *= next_c;
    }
}

// --- backward ------------------------------------------------------------------------------------

// From da = acc: dx = f cos(f x) da over x (W,n), and of each row's TILE positions the sums
// db = dx and df = x cos(f x) da, to sums[tile of n][W] and (behind `far`) far[tile of n][W].
template <class N>
static __device__ __forceinline__ void sine_bwd(acc_t<N> &acc, N *x, N *sums, N *far,
                                                const float *freq, int64_t W, int64_t r0,
                                                struct chunk s)
{
    __shared__ N part[2][2][TILE];          // db, df; left and right half of the tile
    lane me;
    #pragma unroll
    for (int m = 0; m < 4; m++) {
        int64_t r = r0 + me.row0 + 8 * m;
        N f = r < W ? freq[r] : 0.0f, db = 0, df = 0;
        #pragma unroll
        for (int n = 0; n < 4 && r < W; n++) {
            two<N> *at = (two<N> *)(x + r * s.ld + blockIdx.y * (int64_t)TILE + me.col0 + 8 * n);
            two<N> u = *at;
            N e0 = cos(f * u.x) * acc[m / 2][n][m % 2 * 2];
            N e1 = cos(f * u.y) * acc[m / 2][n][m % 2 * 2 + 1];
            *at = { f * e0, f * e1 };
            db += f * e0 + f * e1;
            df += u.x * e0 + u.y * e1;
        }
        for (int step = 1; step < 4; step *= 2) {
            db += __shfl_xor_sync(0xffffffffu, db, step);
            df += __shfl_xor_sync(0xffffffffu, df, step);
        }
        if (me.t == 0) {
            part[0][threadIdx.x / 64][me.row0 + 8 * m] = db;
            part[1][threadIdx.x / 64][me.row0 + 8 * m] = df;
        }
    }
    __syncthreads();
    int r = (int)threadIdx.x % TILE, which = (int)threadIdx.x / TILE;
    if (r0 + r < W)
        (which ? far : sums)[blockIdx.y * W + r0 + r] = part[which][0][r] + part[which][1][r];
}

// dx3 over x3, from da3 = w4' (dh window). Grid (W, n) in tiles.
template <class N>
__global__ __launch_bounds__(THREADS, RESIDENT<N>) void last_bwd_kernel(
    N *x, N *sums, N *far, const float *dh, const float *w4, const float *freq,
    int64_t C, int64_t W, int64_t L, struct chunk s, struct window<N> win)
{
    __shared__ N shared[4 * PIECE];
    plain<float, false> left = { w4, W, W, blockIdx.x * (int64_t)TILE };
    windowed<N, false> right(dh, L, s, s.n, blockIdx.y * (int64_t)TILE, 0, win);
    acc_t<N> acc;
    multiply<N>(acc, left, right, 0, C, shared);
    sine_bwd(acc, x, sums, far, freq, W, left.r0, s);
}

// dx of the layer below over its x, from da = w' dx. Grid (W, n) in tiles.
template <class N>
__global__ __launch_bounds__(THREADS, RESIDENT<N>) void layer_bwd_kernel(
    N *x, N *sums, N *far, const N *dx, const float *w, const float *freq,
    int64_t W, struct chunk s)
{
    __shared__ N shared[4 * PIECE];
    plain<float, false> left = { w, W, W, blockIdx.x * (int64_t)TILE };
    plain<N, false> right = { dx, s.ld, s.n, blockIdx.y * (int64_t)TILE };
    acc_t<N> acc;
    multiply<N>(acc, left, right, 0, W, shared);
    sine_bwd(acc, x, sums, far, freq, W, left.r0, s);
}

// dz[j,e] += sum_w dx1[w,j] w1[w,e]. Grid (E, n) in tiles.
template <class N>
__global__ __launch_bounds__(THREADS, RESIDENT<N>) void table_bwd_kernel(
    float *dz, const N *dx1, const float *w1, int64_t W, int64_t E, struct chunk s)
{
    __shared__ N shared[4 * PIECE];
    plain<N, false> left = { dx1, s.ld, s.n, blockIdx.y * (int64_t)TILE };
    plain<float, false> right = { w1, E, E, blockIdx.x * (int64_t)TILE };
    acc_t<N> acc;
    lane me;
    multiply<N>(acc, left, right, 0, W, shared);
    #pragma unroll
    for (int i = 0; i < 32; i++) {
        int64_t j = left.r0 + me.row0 + 8 * (i / 8), e = right.r0 + me.col0 + i / 2 % 4 * 8 + i % 2;
        if (j < s.n && e < E)
            dz[(s.j0 + j) * E + e] += (float)acc[i / 16][i / 2 % 4][i / 8 % 2 * 2 + i % 2];
    }
}

// Where the weights' gradients lie one after the other: w1 (W,E), w2, w3 (W,W), w4 (C,W).
struct layout {
    int64_t off[5];                              // off[4]: how many there are
    int64_t C, W, E;
};

// to[r,c] = acc, (rows,cols).
template <class N>
static __device__ __forceinline__ void store_tile(N *to, const acc_t<N> &acc, int64_t rows,
                                                  int64_t cols, int64_t r0, int64_t c0)
{
    lane me;
    #pragma unroll
    for (int i = 0; i < 32; i++) {
        int64_t r = r0 + me.row0 + 8 * (i / 8), c = c0 + me.col0 + i / 2 % 4 * 8 + i % 2;
        if (r < rows && c < cols) to[r * cols + c] = acc[i / 16][i / 2 % 4][i / 8 % 2 * 2 + i % 2];
    }
}

template <class N> struct weights_args {
    N *part;                                     // (cuts, lay.off[4])
    const float *dh, *z;                         // z: the chunk's first row
    const N *dx[3], *a[3];
    struct layout lay;
    int64_t L, cut;                              // cut: positions, a multiple of DEPTH
    struct chunk s;
    struct window<N> win;
};

// Sums over one cut of the chunk's positions:
//     dw4 = (dh window) a3',  dw3 = dx3 a2',  dw2 = dx2 a1',  dw1 = dx1 z
// Grid (tiles of the four, in this order; cuts).
template <class N>
__global__ __launch_bounds__(THREADS, RESIDENT<N>) void weights_kernel(
    const struct weights_args<N> g)
{
    __shared__ N shared[4 * PIECE];
    const int64_t C = g.lay.C, W = g.lay.W, E = g.lay.E;
    const int64_t tc = (C + TILE - 1) / TILE, tw = (W + TILE - 1) / TILE;
    const int64_t te = (E + TILE - 1) / TILE;
    int64_t tile = blockIdx.x, k0 = blockIdx.y * g.cut;
    int64_t end = k0 + g.cut < g.s.n ? k0 + g.cut : g.s.n;
    N *part = g.part + blockIdx.y * g.lay.off[4];
    acc_t<N> acc;
    if (tile < tc * tw) {
        int64_t r0 = tile / tw * TILE, c0 = tile % tw * TILE;
        windowed<N, true> left(g.dh, g.L, g.s, C, r0, k0, g.win);
        plain<N, true> right = { g.a[2], g.s.ld, W, c0 };
        multiply<N>(acc, left, right, k0, end, shared);
        store_tile(part + g.lay.off[3], acc, C, W, r0, c0);
        return;
    }
    tile -= tc * tw;
    if (tile < 2 * tw * tw) {
        int l = tile < tw * tw ? 2 : 1;
        if (l == 1) tile -= tw * tw;
        int64_t r0 = tile / tw * TILE, c0 = tile % tw * TILE;
        plain<N, true> left = { l == 2 ? g.dx[2] : g.dx[1], g.s.ld, W, r0 };
        plain<N, true> right = { l == 2 ? g.a[1] : g.a[0], g.s.ld, W, c0 };
        multiply<N>(acc, left, right, k0, end, shared);
        store_tile(part + (l == 2 ? g.lay.off[2] : g.lay.off[1]), acc, W, W, r0, c0);
        return;
    }
    tile -= 2 * tw * tw;
    int64_t r0 = tile / te * TILE, c0 = tile % te * TILE;
    plain<N, true> left = { g.dx[0], g.s.ld, W, r0 };
    plain<float, false> right = { g.z, E, E, c0 };
    multiply<N>(acc, left, right, k0, end, shared);
    store_tile(part + g.lay.off[0], acc, W, E, r0, c0);
}

template <class N> struct gather_args {
    double *total;                               // lay.off[4] + 4 W: sums over the chunks so far
    const N *part;                               // (cuts, lay.off[4])
    const N *rows;                               // (2,3,tiles,W): db, df by layer
    float *out[8];                               // w1 w2 w3 w4 b1 b2 b3 freq; NULL: skipped
    struct layout lay;
    int64_t cuts, tiles;
    bool first, last;                            // chunk
    unsigned tail;                               // the first blocks: the row sums
};

template <class N>
static __device__ __forceinline__ void gather_one(const struct gather_args<N> &g, int64_t i,
                                                  double sum, float *out)
{
    if (!g.first) sum += g.total[i];
    if (!g.last) g.total[i] = sum;
    else if (out) *out += (float)sum;
}

// Adds up a chunk: COLS * SLICES threads. The first g.tail blocks have COLS features of one of
// b1 b2 b3 freq each, the others one weight per thread.
template <class N> __global__ void gather_kernel(const struct gather_args<N> g)
{
    __shared__ double part[SLICES][COLS];
    int64_t W = g.lay.W, n = g.lay.off[4];
    if (blockIdx.x >= g.tail) {
        int64_t i = (blockIdx.x - g.tail) * (int64_t)(COLS * SLICES) + threadIdx.x;
        double sum = 0;
        if (i >= n) return;
        #pragma unroll 8
        for (int64_t k = 0; k < g.cuts; k++) sum += g.part[k * n + i];
        int l = i < g.lay.off[1] ? 0 : i < g.lay.off[2] ? 1 : i < g.lay.off[3] ? 2 : 3;
        int64_t off = i - g.lay.off[l];
        gather_one(g, i, sum, g.out[l] ? g.out[l] + off : NULL);
        return;
    }
    int x = (int)threadIdx.x % COLS, y = (int)threadIdx.x / COLS;
    int64_t groups = (W + COLS - 1) / COLS, w = blockIdx.x % groups * COLS + x;
    int kind = (int)(blockIdx.x / groups);       // the layer, or 3: freq, over the three layers
    const N *rows = g.rows + kind * g.tiles * W;
    int64_t count = kind < 3 ? g.tiles : 3 * g.tiles;
    double sum = 0;
    if (w < W) {
        #pragma unroll 4
        for (int64_t k = y; k < count; k += SLICES) sum += rows[k * W + w];
    }
    part[y][x] = sum;
    __syncthreads();
    if (y > 0 || w >= W) return;
    for (int k = 1; k < SLICES; k++) sum += part[k][x];
    gather_one(g, n + kind * W + w, sum, g.out[4 + kind] ? g.out[4 + kind] + w : NULL);
}

// --- host ----------------------------------------------------------------------------------------

static int64_t tiles(int64_t n) { return (n + TILE - 1) / TILE; }

static struct layout lay_out(const struct hb_filter_shape *f)
{
    int64_t W = f->width, E = f->emb_dim, C = f->channels;
    return { { 0, W * E, W * E + W * W, W * E + 2 * W * W, W * E + 2 * W * W + C * W }, C, W, E };
}

template <class N> static struct window<N> window_of(const struct hb_filter_shape *f)
{
    double step = f->channels > 1 ? (HB_DECAY_FAST - HB_DECAY_SLOW) / (f->channels - 1) : 0.0;
    return { (N)HB_DECAY_SLOW, (N)step, (N)hb_time(1, f->lmax), f->shift, f->window };
}

// Does float32 do, and do the hidden layers fit into one kernel?
static bool in_float32(const struct hb_filter_shape *f, struct hb_on on)
{
    return on.t != HB_F32 && f->width <= HIDDEN_MOST && f->emb_dim <= HIDDEN_MOST;
}

// Doubles of the totals in front of the arrays; the arrays begin at a multiple of 256 bytes.
static int64_t count_totals(const struct hb_filter_shape *f)
{
    return (lay_out(f).off[4] + 4 * (int64_t)f->width + 31) / 32 * 32;
}

// Positions of a backward chunk in float64 at most, a multiple of TILE; in float32 twice as many. A
// forward chunk needs two of the ARRAYS (float32: one) and takes so many times more.
static int64_t most_positions(const struct hb_filter_shape *f)
{
    int64_t fit = CHUNK_BYTES / (ARRAYS * 8 * (int64_t)f->width) / TILE * TILE;
    int64_t all = tiles(f->L) * TILE;
    if (fit < TILE) fit = TILE;
    return fit < all ? fit : all;
}

size_t cuda_filter_ws(struct hb_filter_shape f)
{
    return sizeof(double) * (size_t)(count_totals(&f)
                                     + ARRAYS * (int64_t)f.width * most_positions(&f));
}

// Chunk i of chunks of `most` positions, made alike.
static struct chunk chunk_at(int64_t L, int64_t count, int64_t i)
{
    int64_t size = tiles((L + count - 1) / count) * TILE, j0 = i * size;
    int64_t n = j0 >= L ? 0 : L - j0 < size ? L - j0 : size;
    return { j0, n, tiles(n) * TILE };
}

// The hidden layers of one chunk: a[l] = sin(f x[l]); x[l] kept where there is room for it.
static void hidden(double *const (&x)[3], double *const (&a)[3], const struct hb_filter_shape *f,
                   const struct hb_filter_params *p, struct chunk s, cudaStream_t stream)
{
    int64_t W = f->width, E = f->emb_dim;
    const float *w[3] = { p->w1, p->w2, p->w3 }, *b[3] = { p->b1, p->b2, p->b3 };
    dim3 grid((unsigned)tiles(W), (unsigned)tiles(s.n));
    plain<float, true> z = { p->z + s.j0 * E, E, s.n, 0 };
    layer_kernel<<<grid, THREADS, 0, stream>>>(x[0], a[0], z, w[0], b[0], p->freq, W, E, s);
    for (int l = 1; l < 3; l++) {
        plain<double, false> below = { a[l - 1], s.ld, s.n, 0 };
        layer_kernel<<<grid, THREADS, 0, stream>>>(x[l], a[l], below, w[l], b[l], p->freq, W, W,
                                                   s);
    }
}

// The same in float32; a[l] too only where it is wanted.
static void hidden(float *const (&x)[3], float *const (&a)[3], const struct hb_filter_shape *f,
                   const struct hb_filter_params *p, struct chunk s, cudaStream_t stream)
{
    struct hidden_args g = { { x[0], x[1], x[2] }, { a[0], a[1], a[2] },
                             p->z + s.j0 * f->emb_dim, { p->w1, p->w2, p->w3 },
                             { p->b1, p->b2, p->b3 }, p->freq, f->width, f->emb_dim, s };
    hidden_kernel<<<(unsigned)(s.ld / POSITIONS), THREADS, hidden_bytes(g.W, g.E), stream>>>(g);
}

// a: where the layers' activations go, a[2] at least; `most` positions a chunk.
template <class N>
static void forward(float *h, const struct hb_filter_shape *f, const struct hb_filter_params *p,
                    N *const (&a)[3], int64_t most, cudaStream_t stream)
{
    N *const x[3] = { NULL, NULL, NULL };
    int64_t W = f->width, C = f->channels, count = (f->L + most - 1) / most;
    bool pairs = f->L % 2 == 0 && (uintptr_t)h % 8 == 0;
    for (int64_t i = 0; i < count; i++) {
        struct chunk at = chunk_at(f->L, count, i);
        if (at.n == 0) break;
        hidden(x, a, f, p, at, stream);
        dim3 grid((unsigned)tiles(C), (unsigned)tiles(at.n));
        out_kernel<N><<<grid, THREADS, 0, stream>>>(h, a[2], p->w4, C, W, f->L, at,
                                                    window_of<N>(f), pairs);
    }
}

int cuda_filter_fwd(const struct hb_device *d, float *h, struct hb_filter_shape f,
                    struct hb_filter_params p, void *ws, struct hb_on on)
{
    (void)d;
    cudaStream_t stream = (cudaStream_t)on.stream;
    int64_t most = most_positions(&f);
    double *x = (double *)ws + count_totals(&f), *half = x + ARRAYS / 2 * f.width * most;
    if (in_float32(&f, on)) {
        float *const a[3] = { NULL, NULL, (float *)x };
        const int64_t fit = 2 * ARRAYS * most, all = MOST_TILES * (int64_t)TILE;
        forward<float>(h, &f, &p, a, fit < all ? fit : all, stream);
    } else {
        double *const a[3] = { x, half, x };     // a3 over a1
        forward<double>(h, &f, &p, a, 3 * most, stream);
    }
    cuda_launched("filter_fwd");
    return 0;
}

// dx over x, layer by layer, and the sums of the rows.
template <class N>
static void down(N *const (&x)[3], N *rows, const float *dh, const struct hb_filter_shape *f,
                 const struct hb_filter_params *p, struct chunk s, cudaStream_t stream)
{
    int64_t W = f->width, each = tiles(s.n) * W;
    dim3 grid((unsigned)tiles(W), (unsigned)tiles(s.n));
    last_bwd_kernel<N><<<grid, THREADS, 0, stream>>>(x[2], rows + 2 * each, rows + 5 * each, dh,
                                                     p->w4, p->freq, f->channels, W, f->L, s,
                                                     window_of<N>(f));
    for (int l = 1; l >= 0; l--)
        layer_bwd_kernel<N><<<grid, THREADS, 0, stream>>>(
            x[l], rows + l * each, rows + (3 + l) * each, x[l + 1], l ? p->w3 : p->w2, p->freq, W,
            s);
}

// `bytes` at `rows` for partial sums; `most` positions a chunk.
template <class N>
static int backward(const float *dh, const struct hb_filter_shape *f,
                    const struct hb_filter_params *p, const struct hb_filter_params *grads,
                    double *ws, N *rows, size_t bytes, int64_t most, cudaStream_t stream)
{
    N *part = rows + TAIL_BYTES / (int64_t)sizeof(N);
    struct layout lay = lay_out(f);
    int64_t W = f->width, count = (f->L + most - 1) / most;
    int64_t blocks = tiles(lay.C) * tiles(W) + 2 * tiles(W) * tiles(W) + tiles(W) * tiles(lay.E);
    int64_t fit = ((int64_t)bytes - TAIL_BYTES) / (int64_t)sizeof(N) / lay.off[4];
    int64_t want = (RESIDENT<N> * gpu.sms + blocks - 1) / blocks;        // one wave
    if (fit < 1)
        return gpu.host->fail(gpu.host, HB_ERR_REFUSED, "cuda: filter of %d channels, width %d: "
                              "its gradients exceed the scratch memory", f->channels, f->width);
    N *x[3], *a[3], *arrays = (N *)(ws + count_totals(f));
    for (int l = 0; l < 3; l++) {
        x[l] = arrays + 2 * l * W * most;
        a[l] = x[l] + W * most;
    }
    struct gather_args<N> sum = { .total = ws, .part = part, .rows = rows,
                                  .out = { grads->w1, grads->w2, grads->w3, grads->w4, grads->b1,
                                           grads->b2, grads->b3, grads->freq }, .lay = lay };
    sum.tail = 4 * (unsigned)((W + COLS - 1) / COLS);
    for (int64_t i = 0; i < count; i++) {
        struct chunk at = chunk_at(f->L, count, i);
        if (at.n == 0) break;
        hidden(x, a, f, p, at, stream);
        down(x, rows, dh, f, p, at, stream);
        int64_t cuts = want < fit ? want : fit, steps = (at.n + DEPTH - 1) / DEPTH;
        int64_t cut = (steps + cuts - 1) / cuts * DEPTH;
        cuts = (at.n + cut - 1) / cut;
        struct weights_args<N> g = { part, dh, p->z + at.j0 * lay.E, { x[0], x[1], x[2] },
                                     { a[0], a[1], a[2] }, lay, f->L, cut, at, window_of<N>(f) };
        dim3 all((unsigned)blocks, (unsigned)cuts);
        weights_kernel<N><<<all, THREADS, 0, stream>>>(g);
        if (grads->z) {
            dim3 grid((unsigned)tiles(lay.E), (unsigned)tiles(at.n));
            table_bwd_kernel<N><<<grid, THREADS, 0, stream>>>(grads->z, x[0], p->w1, W, lay.E, at);
        }
        sum.cuts = cuts;
        sum.tiles = tiles(at.n);
        sum.first = i == 0;
        sum.last = at.j0 + at.n == f->L;
        unsigned rest = (unsigned)((lay.off[4] + COLS * SLICES - 1) / (COLS * SLICES));
        gather_kernel<N><<<sum.tail + rest, COLS * SLICES, 0, stream>>>(sum);
    }
    cuda_launched("filter_bwd");
    return 0;
}

int cuda_filter_bwd(const struct hb_device *d, const float *dh, struct hb_filter_shape f,
                    struct hb_filter_params p, struct hb_filter_params grads, void *ws,
                    struct hb_on on)
{
    (void)d;
    size_t bytes;
    void *rows = cuda_scratch(&bytes, on.stream);
    int64_t most = most_positions(&f);
    cudaStream_t stream = (cudaStream_t)on.stream;
    if (in_float32(&f, on))
        return backward<float>(dh, &f, &p, &grads, (double *)ws, (float *)rows, bytes, 2 * most,
                               stream);
    return backward<double>(dh, &f, &p, &grads, (double *)ws, (double *)rows, bytes, most, stream);
}
