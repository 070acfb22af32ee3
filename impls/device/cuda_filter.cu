// cuda_filter.cu: Hyena's implicit filter on the CUDA device, forward and backward, in float64; for
// signals of 16 bits, whose rounding is four hundred times as coarse, in float32 or near it.
//     x1 = W1 z' + b1, a1 = sin(f x1);  x2 = W2 a1 + b2, a2 = sin(f x2);
//     x3 = W3 a2 + b3, a3 = sin(f x3);
//     h[c,j] = (W4 a3)[c,j] (exp(-t_j delta_c) + shift)
// Method    Positions are worked on in chunks, features first: x, a (W,n). In float64 each product
//           is a kernel (cuda_filter64.cuh). For 16-bit signals the forward pass is one kernel for
//           all chunks, after one that cuts W4 (cuda_generate.cuh); backward is one kernel down to
//           dx (cuda_descend.cuh).
//           Backward, per chunk: the forward of the hidden layers again; da3 = W4' (dh window), and
//           down through the layers, dx over x; then all weight gradients in one launch, cut along
//           the positions, and one that adds up the cuts (cuda_weights.cuh). delta is linear in c
//           and t in j, so that along a row or column the window goes by a constant ratio.
// Order     partial sums are added in the order of their cuts and chunks: the same bits each time.
// Cost      2 L (E W + 2 W^2 + W C) flop forward in float64, about three times that backward;
//           workspace at most 48 MiB and one copy of the gradients; one cut's gradients must fit in
//           the device's scratch. 4 launches a chunk forward, 8 backward; for 16-bit signals two
//           for all chunks, and 3.
// Source    Poli et al. 2023, arXiv:2302.10866, section 3.3 and appendix D.3, with the published
//           code's table.
// Accuracy  that of float64 (the ratios lose some 1e-13); h is rounded once. For 16-bit signals
//           about 2e-6, of h and of the gradients.
// Refuses   backward: more than about 4 million weights in float64 (CUDA_SIDE).
// hb-arch: 90a 80
#include "../core/oper.h"
#include "cuda_descend.cuh"
#include "cuda_filter64.cuh"
#include "cuda_generate.cuh"
#include "cuda_weights.cuh"

enum {
    ARRAYS = 6,                  // (W,n) in the workspace: x and a of three layers
};
static const int64_t CHUNK_BYTES = (int64_t)48 << 20;    // of the ARRAYS
static const int64_t TAIL_BYTES = (int64_t)1 << 20;      // of the scratch: sums of one row's tiles

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

static bool shared_fits;                         // the kernels for signals of 16 bits work here

// Shared memory of a kernel's blocks; an SM has as much of it as can be, for two of them.
static int shared_of(const void *kernel, int bytes)
{
    int rc = HB_CUDA(gpu.host, cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    if (!rc)
        rc = HB_CUDA(gpu.host, cudaFuncSetAttribute(
            kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
            cudaSharedmemCarveoutMaxShared));
    return rc;
}

int cuda_filter_open(void)
{
    int most = 0;
    int rc = HB_CUDA(gpu.host, cudaDeviceGetAttribute(
        &most, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu.ordinal));
    shared_fits = DESCEND_BYTES + (int)sizeof(struct descend_parts) <= most;
    if (rc || !shared_fits) return rc;
    rc = shared_of((const void *)descend_kernel, DESCEND_BYTES);
    if (!rc) rc = shared_of((const void *)generate_kernel<32, false>, GENERATE_BYTES<32>);
    if (!rc) rc = shared_of((const void *)generate_kernel<32, true>, GENERATE_BYTES<32>);
    if (!rc) rc = shared_of((const void *)generate_kernel<64, false>, GENERATE_BYTES<64>);
    if (!rc) rc = shared_of((const void *)generate_kernel<64, true>, GENERATE_BYTES<64>);
    return rc;
}

// Does float32 do, and do the hidden layers fit into one kernel?
static bool in_float32(const struct hb_filter_shape *f, struct hb_on on)
{
    return on.t != HB_F32 && f->width <= HIDDEN_MOST && f->emb_dim <= HIDDEN_MOST && shared_fits;
}

// Doubles of the totals in front of the arrays; the arrays begin at a multiple of 256 bytes.
static int64_t count_totals(const struct hb_filter_shape *f)
{
    return (lay_out(f).off[4] + 4 * (int64_t)f->width + 31) / 32 * 32;
}

// Positions of a backward chunk in float64 at most, a multiple of TILE; in float32 twice as many. A
// forward chunk in float64 needs two of the ARRAYS and takes so many times more.
static int64_t most_positions(const struct hb_filter_shape *f)
{
    int64_t fit = CHUNK_BYTES / (ARRAYS * 8 * (int64_t)f->width) / TILE * TILE;
    int64_t all = tiles(f->L) * TILE;
    if (fit < TILE) fit = TILE;
    return fit < all ? fit : all;
}

// Groups of 16 channels, of whole units.
static int64_t groups_of(const struct hb_filter_shape *f)
{
    return ((int64_t)f->channels + UNIT - 1) / UNIT * (UNIT / 16);
}

size_t cuda_filter_ws(struct hb_filter_shape f)
{
    const size_t arrays = sizeof(double) * (size_t)(count_totals(&f)
                                     + ARRAYS * (int64_t)f.width * most_positions(&f));
    const size_t cut = (sizeof(struct cut_weights) + 16 * sizeof(struct channel))
                       * (size_t)groups_of(&f);
    return arrays > cut ? arrays : cut;
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

static struct hidden_net net_of(const struct hb_filter_shape *f, const struct hb_filter_params *p,
                                int64_t j0)
{
    return { p->z + j0 * f->emb_dim, { p->w1, p->w2, p->w3 }, { p->b1, p->b2, p->b3 }, p->freq,
             f->width, f->emb_dim };
}

// h in float64; a: where the layers' activations go, a[2] at least; `most` positions a chunk.
static void forward(float *h, const struct hb_filter_shape *f, const struct hb_filter_params *p,
                    double *const (&a)[3], int64_t most, bool pairs, cudaStream_t stream)
{
    double *const x[3] = { NULL, NULL, NULL };
    int64_t W = f->width, C = f->channels, count = (f->L + most - 1) / most;
    for (int64_t i = 0; i < count; i++) {
        struct chunk at = chunk_at(f->L, count, i);
        if (at.n == 0) break;
        hidden(x, a, f, p, at, stream);
        dim3 grid((unsigned)tiles(C), (unsigned)tiles(at.n));
        out_kernel<<<grid, THREADS, 0, stream>>>(h, a[2], p->w4, C, W, f->L, at,
                                                 window_of<double>(f), pairs);
    }
}

// Launches it so that it may begin before the kernel before it has ended, where devices can.
template <int P, bool VECTORS>
static void generate_launch(const struct generate_args &g, dim3 grid, cudaStream_t stream)
{
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(GENERATE_THREADS);
    config.dynamicSmemBytes = GENERATE_BYTES<P>;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = gpu.major >= 9 ? 1 : 0;
    (void)cudaLaunchKernelEx(&config, generate_kernel<P, VECTORS>, g);   // cuda_launched tells
}

// P positions a piece. Blocks share the channels where there is room for them, as long as each warp
// has some.
template <int P>
static void generate_by(const struct generate_args &g, cudaStream_t stream)
{
    const int64_t across = (g.L + P - 1) / P, room = GENERATE_RESIDENT * (int64_t)gpu.sms;
    const int64_t most = (g.C + UNIT * UNITS - 1) / (UNIT * UNITS);
    const int64_t fit = room / across, shares = fit < 1 ? 1 : fit < most ? fit : most;
    const dim3 grid((unsigned)(across < room ? across : room), (unsigned)shares);
    const uintptr_t all = (uintptr_t)g.h | (uintptr_t)g.net.w[1] | (uintptr_t)g.net.w[2];
    if (g.L % 4 == 0 && g.net.W % 4 == 0 && all % 16 == 0)
        generate_launch<P, true>(g, grid, stream);
    else
        generate_launch<P, false>(g, grid, stream);
}

// h for signals of 16 bits. Pieces of 64 positions where these give every SM one.
static void generate(float *h, const struct hb_filter_shape *f, const struct hb_filter_params *p,
                     void *ws, cudaStream_t stream)
{
    struct cut_weights *const cut = (struct cut_weights *)ws;
    const int64_t groups = groups_of(f);
    const struct generate_args g = { net_of(f, p, 0), h, p->w4, cut,
                                     (struct channel *)(cut + groups), f->channels, f->L,
                                     window_of<float>(f) };
    cut_kernel<<<(unsigned)groups, 32, 0, stream>>>(g);
    if (tiles(f->L) > gpu.sms) generate_by<64>(g, stream);
    else generate_by<32>(g, stream);
}

int cuda_filter_fwd(const struct hb_device *d, float *h, struct hb_filter_shape f,
                    struct hb_filter_params p, void *ws, struct hb_on on)
{
    (void)d;
    cudaStream_t stream = (cudaStream_t)on.stream;
    if (in_float32(&f, on)) {
        generate(h, &f, &p, ws, stream);
    } else {
        const bool pairs = f.L % 2 == 0 && (uintptr_t)h % 8 == 0;
        int64_t most = most_positions(&f);
        double *x = (double *)ws + count_totals(&f), *half = x + ARRAYS / 2 * f.width * most;
        double *const a[3] = { x, half, x };     // a3 over a1
        forward(h, &f, &p, a, 3 * most, pairs, stream);
    }
    cuda_launched("filter_fwd");
    return 0;
}

// x and a of a chunk, then dx over x, layer by layer, and the sums of the rows.
static void down(double *const (&x)[3], double *const (&a)[3], double *rows, const float *dh,
                 const struct hb_filter_shape *f, const struct hb_filter_params *p, struct chunk s,
                 cudaStream_t stream)
{
    int64_t W = f->width, each = tiles(s.n) * W;
    dim3 grid((unsigned)tiles(W), (unsigned)tiles(s.n));
    hidden(x, a, f, p, s, stream);
    last_bwd_kernel<<<grid, THREADS, 0, stream>>>(x[2], rows + 2 * each, rows + 5 * each, dh, p->w4,
                                                  p->freq, f->channels, W, f->L, s,
                                                  window_of<double>(f));
    for (int l = 1; l >= 0; l--)
        layer_bwd_kernel<<<grid, THREADS, 0, stream>>>(
            x[l], rows + l * each, rows + (3 + l) * each, x[l + 1], l ? p->w3 : p->w2, p->freq, W,
            s);
}

// The same in float32.
static void down(float *const (&x)[3], float *const (&a)[3], float *rows, const float *dh,
                 const struct hb_filter_shape *f, const struct hb_filter_params *p, struct chunk s,
                 cudaStream_t stream)
{
    int64_t W = f->width, each = tiles(s.n) * W;
    const struct descend_args g = {
        net_of(f, p, s.j0), { x[0], x[1], x[2] }, { a[0], a[1], a[2] },
        { rows, rows + each, rows + 2 * each },
        { rows + 3 * each, rows + 4 * each, rows + 5 * each },
        dh, p->w4, f->channels, f->L, s, window_of<float>(f),
        f->L % 2 == 0 && (uintptr_t)dh % 8 == 0 && W % 8 == 0 && (uintptr_t)p->w4 % 16 == 0
    };
    descend_kernel<<<(unsigned)tiles(s.n), WIDE_THREADS, DESCEND_BYTES, stream>>>(g);
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
        down(x, a, rows, dh, f, p, at, stream);
        int64_t cuts = want < fit ? want : fit, steps = (at.n + DEPTH - 1) / DEPTH;
        int64_t cut = (steps + cuts - 1) / cuts * DEPTH;
        cuts = (at.n + cut - 1) / cut;
        struct weights_args<N> g = { part, dh, p->z + at.j0 * lay.E, { x[0], x[1], x[2] },
                                     { a[0], a[1], a[2] }, lay, f->L, cut, at, window_of<N>(f),
                                     f->L % 4 == 0 && (uintptr_t)dh % 16 == 0 };
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
