// long_dh.cuh: backward where rows do not fit into one block, CUDA; and the method's table.
//     dh[c,s] += sum_b sum_t dy[b,c,t] u[b,c,t-s]         dd[c] += sum_b sum_t dy[b,c,t] u[b,c,t]
//     du: the adjoint convolution of dy (long.cuh), from the same transform of dy
// Method    For a group of channels and part of the batch, three phases as in long.cuh: sizes of u
//           and dy at once (and their products, for dd: the error of lag 0 would be that of the
//           largest dh); columns_in of both; long_pairs; columns_out of du. A block of long_pairs
//           has one row k1 of `tiles` entries of the batch: u's transform stays in registers, as
//           half2; dy's gives sums (f32, shared memory) += conj(U) DY, and, times conj(H), goes
//           back in place. A channel's blocks leave their sums in L2; the last one (a counter) adds
//           them in order and takes them back. columns_out of dh is for the channels of several
//           groups at once, as those of one do not fill the GPU; where there is no memory for that,
//           the group's alone, from the place of u's first row.
//           Exponent of the sums: what comes together on the way back is at most sum_k |U_k DY_k|,
//           which Parseval bounds from the sizes of u and dy: known before, the same for all k1.
// Cost      4 launches a chunk (dh alone: 3), one for some of them together, and the spectra. A
//           sample: two of the forward's columns_in, one of its rows (there) more, 1 / B of a way
//           back more. L2: 34 bytes, and 8 parts / B for the sums.
// Accuracy  emulated, f16: see README.md.
#ifndef HB_FUSED_LONG_DH_CUH
#define HB_FUSED_LONG_DH_CUH

#include "long.cuh"
#include "rows_dh.cuh"

// U is kept as half2 with this gain: transforms stay below 2^14. Sums are then so much times
// conj(U) DY / N^2 (mma.cuh: the rows' transforms are 64 HB_MID_TOP / N): 2^32.
constexpr float LONG_KEEP = 1.0f / 16;
constexpr float LONG_SUMS_ARE = 64 * 64 * HB_MID_TOP * HB_MID_TOP * LONG_KEEP;

struct long_pairs_job {
    unsigned short *u, *dy;              // (channels, batch, R1, 2, N2) halves
    const uint4 *spectrum;               // (channels, R1, R, 2, 32), in fragments: rows.cuh
    const uint4 *matrix;
    const float *scale_u, *scale_dy, *boost;           // (channels, batch)
    float4 *sums;                        // (channels, all, R1, R, 4, 32)
    const float *bound;                  // (channels)
    unsigned short *dh;                  // (channels), dh_apart halves apart: (R1, 2, N2)
    int64_t dh_apart;
    float *back;                         // (channels), for columns_out of dh
    unsigned *tickets;                   // (channels, R1)
    float N;
    int batch, R1, tiles, parts, all;    // parts: blocks of a channel and k1; all: of them, ever
    bool start, end;                     // of the batch
};

template <int R> constexpr int LONG_PAIRS_SHARED = MID_SHARED<R> + R * 2048;
template <int R> constexpr int LONG_PAIRS_BLOCKS = R > 32 ? 1 : 2;
// The next row's loads are under way while the rows' step works: as long as there are registers.
template <int R> constexpr bool LONG_EARLY = R == 16;

// What the blocks of a channel and k1 left as sums: back to `mid`. Of this lane: far, the first of
// them; near, this block's, which are in shared memory, too.
template <int R>
__device__ __forceinline__ void long_sums_back(unsigned short *mid, const mid_block<R> &k,
                                               const struct long_pairs_job &job,
                                               const float4 *far, const float4 *near, int part,
                                               int64_t c, int k1)
{
    const float scale = hb_fused_scale(job.bound[c] * LONG_SUMS_ARE, 15);
    const hb_inner inner = hb_inner_of(k);
#pragma unroll 1
    for (int i = 0; i < R / 8; i++) {
        const int slot = threadIdx.x / 32 + 8 * i;
        hb_tile z = {};
#pragma unroll 4
        for (int p = 0; p < job.all; p++) {
            const float4 *const at = far + ((int64_t)p * job.R1 * R + slot) * 128;
            const float4 *const own = near + slot * 128;
#pragma unroll
            for (int t = 0; t < 2; t++) {
                const float4 a = p == part ? own[64 * t] : __ldcg(at + 64 * t);
                const float4 b = p == part ? own[64 * t + 32] : __ldcg(at + 64 * t + 32);
                const float re[4] = { a.x, a.y, a.z, a.w }, im[4] = { b.x, b.y, b.z, b.w };
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    z.re[t][e] += re[e] * scale;
                    z.im[t][e] += im[e] * scale;
                }
            }
        }
        mid_back(k, z, inner, i);
    }
    mid_leave<R>(mid, k, k1, job.R1);
    if (k1 == 0 && threadIdx.x == 0) job.back[c] = 4 * job.N / LONG_SUMS_ARE / scale;
}

// Grid (channels, parts, R1). DU: dy's rows become du's. dh is there on the batch's end; it may be
// in the place of u's row 0.
template <int R, bool DU>
__global__ void __launch_bounds__(HB_ROWS_THREADS<R>, LONG_PAIRS_BLOCKS<R>)
long_pairs(struct long_pairs_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int OWN = R / 8;
    constexpr bool EARLY = LONG_EARLY<R>;
    mid_block<R> k;
    const int warp = threadIdx.x / 32, k1 = (int)(blockIdx.x % (unsigned)job.R1);
    mid_block_init<R>(k, shared, job.matrix, k1, job.R1);
    const hb_lane me = k.me;
    const int part = (int)(blockIdx.x / (unsigned)job.R1 % (unsigned)job.parts);
    const int64_t c = blockIdx.x / (unsigned)job.R1 / (unsigned)job.parts;
    const int first = part * job.tiles, end = min(first + job.tiles, job.batch);
    const int64_t apart = (int64_t)job.R1 * 512 * R, at = c * job.batch * apart + k1 * 512 * R;
    unsigned short *const u_mid = job.u + at, *const dy_mid = job.dy + at;
    const uint4 *const spectrum = job.spectrum + (c * job.R1 + k1) * R * 64 + me.lane;
    float4 *const sums = (float4 *)(shared + MID_SHARED<R>) + me.lane;
    mid_row<R> x;
    launch_wait();
    mid_read<R>(x, k, u_mid + first * apart);
#pragma unroll 1
    for (int b = first; b < end; b++) {
        uint4 u[OWN][2];
        mid_enter<R>(k, x);
        if (EARLY) mid_read<R>(x, k, dy_mid + b * apart);
        {
            const hb_inner inner = hb_inner_of(k);
#pragma unroll
            for (int i = 0; i < OWN; i++) {
                hb_tile z;
                mid_there(z, k, inner, i);
#pragma unroll
                for (int e = 0; e < 8; e++) {
                    z.re[e / 4][e % 4] *= LONG_KEEP;
                    z.im[e / 4][e % 4] *= LONG_KEEP;
                }
                hb_halve(u[i], z);
            }
        }
        if (!EARLY) mid_read<R>(x, k, dy_mid + b * apart);
        mid_enter<R>(k, x);
        if (EARLY && b + 1 < end) mid_read<R>(x, k, u_mid + (b + 1) * apart);
        {
            const int64_t i_b = c * job.batch + b;
            const float f = hb_inverse(job.scale_u[i_b]) * hb_inverse(job.scale_dy[i_b]);
            const float by = DU ? job.boost[i_b] / HB_MID_TOP : 1;
            const hb_inner inner = hb_inner_of(k);
#pragma unroll
            for (int i = 0; i < OWN; i++) {
                const int slot = warp + 8 * i;
                hb_tile z;
                mid_there(z, k, inner, i);
                hb_correlate(sums + slot * 128, u[i], z, f, b == first);
                if constexpr (DU) {
                    hb_times(z, spectrum + slot * 64, true, by);
                    __syncwarp();             // everybody has read the slot
                    mid_back(k, z, inner, i);
                }
            }
        }
        if constexpr (DU) mid_leave<R>(dy_mid + b * apart, k, k1, job.R1);
        if (!EARLY && b + 1 < end) mid_read<R>(x, k, u_mid + (b + 1) * apart);
    }

    float4 *const far = job.sums + (c * job.all * job.R1 + k1) * R * 128 + me.lane;
    float4 *const mine = far + (int64_t)part * job.R1 * R * 128;
#pragma unroll 1
    for (int slot = warp; slot < R; slot += 8)
#pragma unroll
        for (int i = slot * 128; i < slot * 128 + 128; i += 32) {
            const float4 v = sums[i], w = job.start ? make_float4(0, 0, 0, 0) : mine[i];
            mine[i] = sums[i] = make_float4(v.x + w.x, v.y + w.y, v.z + w.z, v.w + w.w);
        }
    if (job.end && column_last(job.tickets + c * job.R1 + k1, (unsigned)job.parts))
        long_sums_back<R>(job.dh + c * job.dh_apart + k1 * 512 * R, k, job, far, sums, part,
                          c, k1);
}

// --- host --------------------------------------------------------------------------------------
static inline int long_pairs_init(const struct hb_host *host, int R)
{
    int rc = 0;
    hb_by_mid_rows(R, [&](auto r) {
        constexpr int ROWS = decltype(r)::value;
        rc = hb_fused_allow(host, (const void *)long_pairs<ROWS, true>, LONG_PAIRS_SHARED<ROWS>);
        if (!rc)
            rc = hb_fused_allow(host, (const void *)long_pairs<ROWS, false>,
                                LONG_PAIRS_SHARED<ROWS>);
    });
    return rc;
}

static inline void long_pairs_launch(const struct long_plan *s, const struct long_pairs_job *job,
                                     int64_t n, bool du, cudaStream_t stream)
{
    const int64_t grid = n * job->parts * job->R1;
    hb_by_mid_rows(s->R, [&](auto r) {
        constexpr int ROWS = decltype(r)::value, SHARED = LONG_PAIRS_SHARED<ROWS>;
        launch_next(true, du ? long_pairs<ROWS, true> : long_pairs<ROWS, false>, grid,
                    HB_ROWS_THREADS<ROWS>, SHARED, stream, *job);
    });
}

// Where dh is before columns_out: channels `apart` halves from each other.
struct long_dh_place { __half *mid; int64_t apart; float *back; };

// `batch` entries from b on, of n channels from c on, whose spectra are stored from `kept` on (du).
template <class T>
static inline void long_pairs_of(const struct long_plan *s, const struct hb_longconv_io *io,
                                 int64_t c, int64_t n, int64_t kept, int64_t b, int64_t batch,
                                 bool du, const struct long_dh_place &dh, cudaStream_t stream)
{
    float *const boost = du ? s->boost : NULL;
    const struct column_rows j[2] = {
        long_signal(s, io->u, io->su, c, b, batch, s->other, s->scale_u, NULL),
        long_signal(s, io->dy, io->sdy, c, b, batch, s->mid, s->scale, boost) };
    const bool start = b == 0, end = b + batch == s->B;
    const struct column_survey k = { .x = j[0], .y = j[1], .pieces = s->pieces, .part = s->part,
                                     .count = s->count, .N = (float)s->N,
                                     .length = du ? s->length + kept : NULL, .bound = s->bound,
                                     .dd = io->dd ? (float *)io->dd + c : NULL, .start = start,
                                     .early = c > 0 || b > 0 };
    const struct long_pairs_job m = {
        .u = (unsigned short *)s->other, .dy = (unsigned short *)s->mid,
        .spectrum = du ? (const uint4 *)(s->spectrum + kept * s->N) : NULL, .matrix = s->matrix,
        .scale_u = s->scale_u, .scale_dy = s->scale, .boost = boost, .sums = s->sums,
        .bound = s->bound, .dh = (unsigned short *)dh.mid, .dh_apart = dh.apart, .back = dh.back,
        .tickets = s->tickets, .N = (float)s->N, .batch = (int)batch, .R1 = s->columns.R1,
        .tiles = s->tiles, .parts = (int)((batch + s->tiles - 1) / s->tiles), .all = s->parts,
        .start = start, .end = end };
    launch_parts<T, true>(&k, n * batch, stream);
    launch_in<T>(j, 2, n * batch, false, &s->columns, s->sms, stream);
    long_pairs_launch(s, &m, n, du, stream);
    if (du) {
        const struct column_rows to = long_signal(s, io->du, io->sdu, c, b, batch, s->mid, s->scale,
                                                  boost);
        const struct column_skip skip = { j[1].x, io->sdy,
                                          io->d ? (const float *)io->d + c : NULL };
        launch_out<T>(&to, n * batch, &s->columns, s->sms, s->back + kept, skip, stream);
    }
}

// dh (n,L) += of n channels.
static inline void long_dh_out(const struct long_plan *s, float *dh, int64_t n,
                               const struct long_dh_place &of, cudaStream_t stream)
{
    const struct column_rows to = { dh, { 0, s->L }, 1, (int)s->L, of.mid, of.apart, NULL, NULL };
    launch_out<float>(&to, n, &s->columns, s->sms, of.back, { NULL, { 0, 0 }, NULL }, stream);
}

// dh += ..., dd += ..., and du = ... with `du`, which `s->shares` must allow: the spectra are kept.
static inline void long_gradients(const struct long_plan *s, const struct hb_longconv_io *io,
                                  bool du, cudaStream_t stream)
{
    int64_t first = 0;                   // of the channels whose dh has not gone out
    long_chunks(s, s->dh, s->D, [&](int64_t c, int64_t n, int64_t b, int64_t batch) {
        struct long_dh_place dh = { s->dh_mid, 2 * s->N, s->back_dh };
        if (!s->dh_rows) dh = { s->other, batch * 2 * s->N, s->back_dh };
        const struct long_dh_place here = { dh.mid + (c - first) * dh.apart, dh.apart,
                                            dh.back + (c - first) };
        long_by_type(s, [&](auto x) {
            long_pairs_of<decltype(x)>(s, io, c, n, s->keeps ? c : 0, b, batch, du, here, stream);
        });
        const int64_t ready = c + n;
        const bool room = ready - first + s->dh.channels <= s->dh_rows;
        if (b + batch < s->B || (ready < s->D && room)) return;
        long_dh_out(s, (float *)io->dh + first * s->L, ready - first, dh, stream);
        first = ready;
    });
}

// --- the method --------------------------------------------------------------------------------
static const char *long_refuses(const struct hb_problem *p)
{
    if (p->gated) return "gates beyond L = 32768";
    return p->filter == HB_FILTER_FIXED && p->backward && p->L > 1 << 21
           ? "gradients with a fixed filter beyond L = 2^21: more than 64 MB of workspace" : NULL;
}

// The counters of plans are all zero.
static inline int long_start(const struct long_plan *s, bool backward, cudaStream_t stream)
{
    int rc = HB_CUDA(s->host, cudaMemsetAsync(s->count, 0, (size_t)long_measured(s)
                                              * sizeof *s->count, stream));
    if (!rc && backward)
        rc = HB_CUDA(s->host, cudaMemsetAsync(s->tickets, 0,
                                              (size_t)(s->dh.channels * s->columns.R1)
                                              * sizeof *s->tickets, stream));
    return rc;
}

// N = R1 R 256.
static inline int long_plan_for(const struct hb_host *host, const struct hb_problem *p, int R1,
                                int R, void **st)
{
    struct long_plan *s = (struct long_plan *)host->alloc(host, sizeof *s);
    *st = s;
    if (!s) return HB_ERR_OOM;
    const int N2 = R * 256;
    *s = { .host = host, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D,
           .N = (int64_t)R1 * N2, .R = R, .fixed = p->filter == HB_FILTER_FIXED,
           .pieces = column_pieces(p->L) };
    s->columns.R1 = R1;
    int rc = hb_fused_sms(host, &s->sms);
    if (rc) return rc;
    long_sizes(s, p->backward);
    const struct hb_device *dev = host->device;
    const cudaStream_t stream = (cudaStream_t)dev->stream;
    rc = long_take_all(s, p->backward);
    if (!rc) {
        s->tables = dev->alloc(dev, column_tables_bytes(R1, N2));
        if (!s->tables) rc = HB_ERR_OOM;
    }
    if (!rc) rc = mid_constants(host, &s->matrix, R);
    if (!rc) rc = mid_init(host, R);
    if (!rc && p->backward) rc = long_pairs_init(host, R);
    if (!rc) rc = long_start(s, p->backward, stream);
    if (rc) return rc;
    s->columns = column_tables_make(s->tables, R1, N2, stream);
    rc = hb_cuda_launched(host, "longconv_fused_cuda plan");
    return rc ? rc : dev->sync(dev, stream);
}

static int long_plan_make(const struct hb_host *host, const struct hb_problem *p,
                          const struct fused_choice *choice, void **st)
{
    return long_plan_for(host, p, choice->R1, choice->R, st);
}

static void long_forward(const void *st, const struct hb_longconv_io *v, cudaStream_t stream)
{
    const struct long_plan *s = (const struct long_plan *)st;
    long_run(s, s->fixed ? NULL : (const float *)v->h, (const float *)v->d, v->u, v->su, v->y,
             v->sy, false, stream);
}

// What is kept, the forward before it left.
static void long_backward(const void *st, const struct hb_longconv_io *v, cudaStream_t stream)
{
    const struct long_plan *s = (const struct long_plan *)st;
    if (!s->shares)
        long_run(s, s->keeps ? NULL : (const float *)v->h, (const float *)v->d, v->dy, v->sdy,
                 v->du, v->sdu, true, stream);
    long_gradients(s, v, s->shares, stream);
}

static void long_set_filter(const void *st, const float *h, cudaStream_t stream)
{
    const struct long_plan *s = (const struct long_plan *)st;
    long_groups(s, h, stream, [](int64_t, int64_t, int64_t) {});
}

static int long_describe(const void *st, char *buf, size_t cap)
{
    const struct long_plan *s = (const struct long_plan *)st;
    return snprintf(buf, cap, "N = %d x %d x 256, chunks of %lld channels by %lld, backward %lld by"
                    " %lld (%d rows a block)", s->columns.R1, s->R, (long long)s->chunk.channels,
                    (long long)s->chunk.batch, (long long)s->dh.channels, (long long)s->dh.batch,
                    s->tiles);
}

static const struct fused_method fused_long = {
    .name = "three phases", .refuses = long_refuses, .plan = long_plan_make,
    .forward = long_forward, .backward = long_backward, .set_filter = long_set_filter,
    .describe = long_describe, .free = long_free,
};
#endif
