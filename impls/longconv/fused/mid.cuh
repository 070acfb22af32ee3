// mid.cuh: complex rows between the columns of three phases: transform, product, back, CUDA.
//     mid [channels][batch][R1][2][N2] halves in place, N2 = R 256, R = 16, 32, 48, 64; N = R1 N2
// Method    As rows.cuh, with plain transforms: outer step, rows' step (a warp a slot), outer step
//           back; what leaves is multiplied by conj(T)(k1, r) R1 of the columns, in f32, before
//           rounding, so that the columns' way back is only conj(G) and y's factor.
//           R = 16: the turns T(k, r) of the rows' own outer step, f32, wait in shared memory; a
//           block does several rows, so they are made once: about 25 of 95 instructions a sample.
// Cost      mma 16 R + 512 flop a sample; L2 8 bytes and the spectrum 4.
#ifndef HB_FUSED_MID_CUH
#define HB_FUSED_MID_CUH

#include "parts.cuh"
#include "rows.cuh"

template <int R> constexpr bool MID_TABLE = R == 16;
// G for the way there, divided by R; turns [slot][r] float2.
template <int R> constexpr int MID_THERE = HB_ROWS_SHARED<R>;
template <int R> constexpr int MID_TURNS = MID_THERE<R> + (MID_TABLE<R> ? HB_MATRIX<R> : 0);
template <int R> constexpr int MID_SHARED = MID_TURNS<R> + (MID_TABLE<R> ? R * 2048 : 0);
static_assert(MID_TURNS<16> % 16 == 0 && HB_MATRIX<16> == 4 * HB_ROWS_THREADS<16>);

// What a block has: rows.cuh's, and where MID_TABLE the two above. Bytes where this lane's numbers
// lie, in the planes (of what hb_place and mid_turn_at say, the rest is added or flips bits):
template <int R> struct mid_block : hb_block<R> {
    uint4 *there;
    unsigned char *turns;
    int enter, enter_turn;     // of (slot g, r = 32 group + 4 q)
    int load, back, back_turn; // of slot `warp`: ldmatrix; (p = g, s = 2 q)
};

// B fragments of a row: of 32 columns a warp.
template <int R> struct mid_row { uint32_t re[R / 16][4][2], im[R / 16][4][2]; };

// Place of the turns of (slot, r), (slot, r + 1): eight lanes of the outer step (2 slots x 4 chunks
// 2 q) and of the rows' way back (2 x 4 neighbours, 8 chunks apart) meet in no bank.
__device__ __forceinline__ int mid_turn_at(int slot, int r)
{
    const int chunk = r >> 1;
    return slot * 128 + (chunk ^ (slot & 1) ^ (chunk >> 1 & 4));
}

// The turns of two neighbours at byte `at` of the table.
template <int R>
__device__ __forceinline__ void mid_turn(float2 &a, float2 &b, const mid_block<R> &k, int at)
{
    const float4 v = *(const float4 *)(k.turns + at);
    a = make_float2(v.x, v.y);
    b = make_float2(v.z, v.w);
}

// Where the turns of (slot g + 8 h, r + 16 e) of the outer step begin; those of r + 2 are at ^ 16.
template <int R> __device__ __forceinline__ int mid_enter_turn(const mid_block<R> &k, int h, int e)
{
    return (k.enter_turn ^ (e * 192)) + h * 16384;
}

template <int R>
__device__ __forceinline__ void mid_block_init(mid_block<R> &k, unsigned char *shared,
                                               const uint4 *matrix)
{
    hb_block_init<R>(k, shared, matrix);
    const hb_lane me = k.me;
    const int warp = threadIdx.x / 32, r = 32 * me.group + 4 * me.q;
    k.enter = hb_place(me.g, r >> 3) + 8 * (me.q & 1);
    k.load = hb_place(warp, 2 * (me.lane & 15) + (me.lane >> 4));
    k.back = hb_place(warp, 2 * me.g) + 4 * me.q;
    if constexpr (MID_TABLE<R>) {
        k.there = (uint4 *)(shared + MID_THERE<R>);
        k.turns = shared + MID_TURNS<R>;
        k.enter_turn = 16 * mid_turn_at(me.g, r);
        k.back_turn = 16 * mid_turn_at(warp, 16 * me.g + 2 * me.q);
        const __half2 part = __floats2half2_rn(1.0f / R, 1.0f / R);
        const __half2 v = __hmul2(((const __half2 *)matrix)[threadIdx.x], part);
        ((__half2 *)k.there)[threadIdx.x] = v;
#pragma unroll
        for (int x = 0; x < 4; x++) {
            const int slot = me.g + x / 2 * 8, at = mid_enter_turn(k, x / 2, x % 2);
            float2 w[4];
            hb_four(w, hb_unit(4 * slot * (r + x % 2 * 16), 1024 * R), hb_unit(4 * slot, 1024 * R));
            *(float4 *)(k.turns + at) = make_float4(w[0].x, w[0].y, w[1].x, w[1].y);
            *(float4 *)(k.turns + (at ^ 16)) = make_float4(w[2].x, w[2].y, w[3].x, w[3].y);
        }
    }
}

// The turns of the outer step's (slot, r .. r + 3), times 1 / R where there is no table (and G is
// whole).
template <int R>
__device__ __forceinline__ void mid_turns(float2 (&w)[4], const mid_block<R> &k, int mt, int h,
                                          int e)
{
    if constexpr (MID_TABLE<R>) {
        const int at = mid_enter_turn(k, h, e);
        mid_turn(w[0], w[1], k, at);
        mid_turn(w[2], w[3], k, at ^ 16);
    } else {
        const int slot = 16 * mt + k.me.g + 8 * h, r = 32 * k.me.group + 16 * e + 4 * k.me.q;
        const float2 unit = hb_unit(4 * slot * r, 1024 * R);
        hb_four(w, make_float2(unit.x / R, unit.y / R), hb_unit(4 * slot, 1024 * R));
    }
}

template <int R>
__device__ __forceinline__ void mid_read(struct mid_row<R> &x, const unsigned short *mid,
                                         hb_lane me)
{
#pragma unroll
    for (int kt = 0; kt < R / 16; kt++)
#pragma unroll
        for (int part = 0; part < 2; part++) {
            uint2 raw[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                raw[j] = *(const uint2 *)(mid + part * 256 * R + hb_column(me)
                         + (16 * kt + 2 * me.q + j % 2 + j / 2 * 8) * 256);
            hb_columns(part ? x.im[kt] : x.re[kt], raw);
        }
}

// Outer step, to the planes; barriers before and after.
template <int R>
__device__ __forceinline__ void mid_enter(const mid_block<R> &k, const struct mid_row<R> &x)
{
    constexpr int KT = R / 16;
    const hb_lane me = k.me;
    const uint4 *const G = MID_TABLE<R> ? k.there : k.matrix;
    __syncthreads();
#pragma unroll 1
    for (int mt = 0; mt < KT; mt++) {
        float re[4][4] = {}, im[4][4] = {};
#pragma unroll
        for (int kt = 0; kt < KT; kt++) {
            uint32_t gr[4], gi[4], minus[4];
            hb_fragment(gr, G[(mt * KT + kt) * 64 + me.lane]);
            hb_fragment(gi, G[(mt * KT + kt) * 64 + 32 + me.lane]);
            hb_negated(minus, gi);
#pragma unroll
            for (int t = 0; t < 4; t++) {
                hb_mma(re[t], gr, x.re[kt][t][0], x.re[kt][t][1]);
                hb_mma(im[t], gi, x.re[kt][t][0], x.re[kt][t][1]);
                hb_mma(re[t], minus, x.im[kt][t][0], x.im[kt][t][1]);
                hb_mma(im[t], gr, x.im[kt][t][0], x.im[kt][t][1]);
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float2 w[4], v[4];
                mid_turns(w, k, mt, h, e);
#pragma unroll
                for (int t = 0; t < 4; t++)
                    v[t] = hb_cmul(make_float2(re[t][2 * h + e], im[t][2 * h + e]), w[t]);
                unsigned char *at = k.planes + (k.enter ^ (32 * e)) + 8192 * mt + 4096 * h;
                *(uint2 *)at = make_uint2(hb_pack(v[0].x, v[1].x), hb_pack(v[2].x, v[3].x));
                *(uint2 *)(at + HB_PLANE<R>) =
                    make_uint2(hb_pack(v[0].y, v[1].y), hb_pack(v[2].y, v[3].y));
            }
    }
    __syncthreads();
}

// Transform of slot warp + 8 i.
template <int R>
__device__ __forceinline__ void mid_there(hb_tile &z, const mid_block<R> &k, const hb_inner &inner,
                                          int i)
{
    const uint32_t at = hb_shared_address(k.planes) + k.load + 4096 * i;
    uint32_t xr[4], xi[4];
    hb_load_trans(xr, at);
    hb_load_trans(xi, at + HB_PLANE<R>);
    hb_inner_forth(z, inner, xr, xi);
}

// Its way back, to the planes.
template <int R>
__device__ __forceinline__ void mid_back(const mid_block<R> &k, const hb_tile &z,
                                         const hb_inner &inner, int i)
{
    if constexpr (!MID_TABLE<R>) {
        hb_inner_back<R, true>(k.planes, z, inner, threadIdx.x / 32 + 8 * i, k.me);
    } else {
        hb_tile x;                                         // [p][s]
        hb_inner_and_back(x, inner, z);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int t = j / 2, h = j % 2;
            float2 a, b;
            mid_turn(a, b, k, (k.back_turn ^ (64 * t)) + 1024 * h + 16384 * i);
            a = hb_cmul(make_float2(x.re[t][2 * h], x.im[t][2 * h]), hb_conj(a));
            b = hb_cmul(make_float2(x.re[t][2 * h + 1], x.im[t][2 * h + 1]), hb_conj(b));
            unsigned char *at = k.planes + (k.back ^ (16 * t)) + 256 * h + 4096 * i;
            *(uint32_t *)at = hb_pack(a.x, b.x);
            *(uint32_t *)(at + HB_PLANE<R>) = hb_pack(a.y, b.y);
        }
    }
}

// From the planes to row k1 of mid, turned by conj(T)(k1, r) R1; barrier before.
template <int R>
__device__ __forceinline__ void mid_leave(unsigned short *mid, const mid_block<R> &k, int k1,
                                          int R1)
{
    constexpr int KT = R / 16, N2 = 256 * R, COUNT = KT % 2 ? 1 : 2;
    const hb_lane me = k.me;
    const int n = 4 * R1 * N2, f = 4 * k1 - 1;
    const float2 step = hb_unit(f, n), next = hb_unit(16 * f, n);
    __syncthreads();
#pragma unroll 1
    for (int mt = 0; mt < KT; mt += COUNT) {
        float re[COUNT][4][4] = {}, im[COUNT][4][4] = {};
        hb_outer_back<R, true, COUNT>(re, im, k.planes, k.matrix, mt, me);
#pragma unroll
        for (int x = 0; x < 2 * COUNT; x++) {
            const int i = x / 2, h = x % 2;
            const int r = (16 * (mt + i) + me.g + 8 * h) * 256 + 32 * me.group + 4 * me.q;
            float2 w[4];
            hb_four(w, hb_unit(f * (r + N2 / 4), n), step);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float2 v[4];
#pragma unroll
                for (int t = 0; t < 4; t++) {
                    v[t] = hb_cmul(make_float2(re[i][t][2 * h + e], im[i][t][2 * h + e]),
                                   hb_conj(w[t]));
                    w[t] = hb_cmul(w[t], next);
                }
                unsigned short *const to = mid + r + 16 * e;
                *(uint2 *)to = make_uint2(hb_pack(v[0].x, v[1].x), hb_pack(v[2].x, v[3].x));
                *(uint2 *)(to + N2) = make_uint2(hb_pack(v[0].y, v[1].y), hb_pack(v[2].y, v[3].y));
            }
        }
    }
}

// --- the convolution -----------------------------------------------------------------------------
struct mid_job {
    unsigned short *mid;
    uint4 *spectrum;           // (channels, R1, R, 2, 32), in fragments: rows.cuh
    const float *gain;         // (channels): spectrum only, of its filter
    const float *boost;        // (channels, batch): convolve only, times rows' products
    const uint4 *matrix;       // hb_fused_constants(R, 0)
    int channels, batch, R1;
    int tiles, parts;          // rows of the batch a block does, blocks of a channel and k1
    bool adjoint;              // conj(spectrum)
};

// Grid (channels, parts, R1). SPECTRUM: it is a filter's (batch 1) and goes to job.spectrum; else
// in place.
template <int R, bool SPECTRUM>
__global__ void __launch_bounds__(HB_ROWS_THREADS<R>, 2) mid_rows(struct mid_job job)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    mid_block<R> k;
    mid_block_init<R>(k, shared, job.matrix);
    const int warp = threadIdx.x / 32, k1 = (int)(blockIdx.x % (unsigned)job.R1);
    const int part = (int)(blockIdx.x / (unsigned)job.R1 % (unsigned)job.parts);
    const int64_t c = blockIdx.x / (unsigned)job.R1 / (unsigned)job.parts;
    const int first = part * job.tiles, end = min(first + job.tiles, job.batch);
    uint4 *const spectrum = job.spectrum + (c * job.R1 + k1) * R * 64 + k.me.lane;
    launch_wait();
#pragma unroll 1
    for (int b = first; b < end; b++) {
        unsigned short *const mid = job.mid + ((c * job.batch + b) * job.R1 + k1) * 512 * R;
        struct mid_row<R> x;
        mid_read<R>(x, mid, k.me);
        mid_enter<R>(k, x);
        const hb_inner inner = hb_inner_of(k);
        const float by = SPECTRUM ? job.gain[c] : job.boost[c * job.batch + b] / HB_MID_TOP;
#pragma unroll 1
        for (int i = 0; i < R / 8; i++) {
            const int slot = warp + 8 * i;
            hb_tile z;
            mid_there(z, k, inner, i);
            if constexpr (SPECTRUM) {
                hb_keep(spectrum + slot * 64, z, by);
            } else {
                hb_times(z, spectrum + slot * 64, job.adjoint, by);
                __syncwarp();     // everybody has read the slot
                mid_back(k, z, inner, i);
            }
        }
        if constexpr (!SPECTRUM) mid_leave<R>(mid, k, k1, job.R1);
    }
}

// --- host ----------------------------------------------------------------------------------------
// Before the first launch (not while capturing).
static inline int mid_init(const struct hb_host *host, int R)
{
    int rc = 0;
    hb_by_mid_rows(R, [&](auto r) {
        constexpr int ROWS = decltype(r)::value;
        rc = hb_fused_allow(host, (const void *)mid_rows<ROWS, true>, MID_SHARED<ROWS>);
        if (!rc) rc = hb_fused_allow(host, (const void *)mid_rows<ROWS, false>, MID_SHARED<ROWS>);
    });
    return rc;
}

// How a batch is dealt to blocks, `parts` (at most `most`) of `tiles` rows for each of `blocks`, of
// which `slots` run at once: the least waves of blocks times rows of a block, each with the cost of
// its start and end. Returns that, in times of a row.
static inline float mid_deal(int *tiles, int *parts, int64_t batch, int64_t blocks, int64_t slots,
                             int64_t most)
{
    float best = 0;
    for (int64_t t = batch; t > 0; t--) {
        const int64_t n = (batch + t - 1) / t;
        if (n > 1 && n > most) break;
        const float cost = (float)((blocks * n + slots - 1) / slots) * ((float)t + 0.5f);
        if (best > 0 && cost >= best) continue;
        best = cost;
        *tiles = (int)t;
        *parts = (int)n;
    }
    return best;
}

// SPECTRUM: spectra of mid (batch 1), times gain; mid is left alone. Else mid = transformed back of
// its transform times spectrum.
template <bool SPECTRUM>
static inline void mid_launch(struct mid_job job, int R, int sms, cudaStream_t stream)
{
    mid_deal(&job.tiles, &job.parts, job.batch, (int64_t)job.channels * job.R1, 2 * sms, job.batch);
    hb_by_mid_rows(R, [&](auto r) {
        constexpr int ROWS = decltype(r)::value;
        launch_next(true, mid_rows<ROWS, SPECTRUM>, (int64_t)job.channels * job.parts * job.R1,
                    HB_ROWS_THREADS<ROWS>, MID_SHARED<ROWS>, stream, job);
    });
}
#endif
