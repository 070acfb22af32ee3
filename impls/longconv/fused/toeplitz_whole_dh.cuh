// toeplitz_whole_dh.cuh: dh of short rows by definition, on Hopper: a block has one channel at a
// time, all lags of it; 16 bits.
//
// Blocks of STEP samples, lag blocks q:
//     G_q = sum_{b,n} DY_{b,n} U_{b,n-q}'   (64 x 64)
// dh[64 q + x] is the diagonal i - j = x of G_q and i - j = x - 64 of G_{q+1}. A group of four
// warps has DH_LAGS of the G_q in registers (32 each); DH_GROUPS of them are a pass: 12 G_q. A pass
// goes through the rows block by block: a step reads DY_n and U_{n-first} of ROWS of the batch into
// two rings and does all products of DY_n with the last 12 of U: wgmma m64n64k16, DY' as fragments
// in registers (read once a step, by ldmatrix), U as it lies, its columns in a row's 128 bytes. So
// a sample is read once a pass: at most L / 768 times, in part from L2. The rings run on into the
// next pass and the next channel. B above ROWS: the same again for the next rows, into the same
// sums. There are no partial sums in device memory.
// Diagonals: see fold_diagonals; then the four warps' parts of a lag, always in the same order.
//
// Four more warps load: what is written for wgmma must be fenced, and a fence waits for everything
// that its thread has under way. (With all threads loading, each step waited for the memory: 3300
// cycles a step at every length, .0246 .043 .082 .209 .627 ms at L = 128 256 512 1024 2048.)
//
// Cost: a step is 12 products of 64 x 64 x ROWS, 1536 cycles of the tensor cores (64 rows), and
// reads 16 KB (the SM's share of memory: 1400 cycles); the first steps of a pass have fewer
// products. A pass ends with 800 instructions a warp.
// Measured before (mma.sync on two ldmatrix operands, eight G_q a pass; f16, B = 64, D = 768):
// .0232 .0376 .0746 .2137 ms at L = 128 256 512 1024 (backward less forward; 1024: profile).
// Predicted now: .015 .024 .045 .105, 2048: .30; tensor cores at 600 TFLOP/s: .003 .009 .025 .091
// .355, at 800 .068, .266; memory twice .0043 .0085 .017 .033 .067, and again a quarter at 1024, .9
// at 2048.
// Registers: 240 and, for warps that load, 24 (20 bytes of spills there); one block an SM.
#ifndef HB_TOEPLITZ_WHOLE_DH_CUH
#define HB_TOEPLITZ_WHOLE_DH_CUH

#include "toeplitz_pieces.cuh"

namespace toeplitz {

enum {
    DH_GROUPS = 2,                        // of four warps
    DH_LAGS = 6,                          // lag blocks of a group
    DH_PASS = DH_GROUPS * DH_LAGS,
    DH_MAKERS = 128 * DH_GROUPS,          // threads with products
    DH_FEEDERS = 128,                     // threads that load
    WHOLE_DH_THREADS = DH_MAKERS + DH_FEEDERS,
    DH_AHEAD = 4,                         // steps that are on their way
    U_SLOTS = DH_PASS + DH_AHEAD,         // of the ring: what a step needs, and those; a power of 2
    DY_SLOTS = 1 + DH_AHEAD,
    WARP_LAGS = 64 + 16,                  // diagonals of 16 rows x 64: lag -64 at 0
};

struct whole_dh_job {
    const void *dy;  struct hb_strides sdy;
    const void *u;   struct hb_strides su;
    float *dh, *dd;            // (D,L); (D) or NULL
    int B, L, D;
    int blocks;                // of STEP samples
    bool shifted;              // rows of dy and u have the same alignment: both may start earlier
};

static_assert((U_SLOTS & U_SLOTS - 1) == 0);

template <int ROWS> constexpr int DH_TILE = ROWS * STEP * 2;
// Rings, then each warp's place to fold in, then the lags of all warps.
template <int ROWS> constexpr int DH_RINGS = (U_SLOTS + DY_SLOTS) * DH_TILE<ROWS>;
constexpr int DH_WARPS = DH_MAKERS / 32, DH_FOLDS = DH_WARPS * FOLD<2> * (int)sizeof(float);
template <int ROWS> constexpr int WHOLE_DH_SHARED =
    DH_RINGS<ROWS> + DH_FOLDS + DH_PASS * 4 * WARP_LAGS * (int)sizeof(float);

// A step: block first + age of ROWS of the batch of a channel, in the pass of the lag blocks from
// `first` on.
struct dh_step {
    int64_t c;
    int first, chunk, age;
};

// The step after it, in the order in which this block does them; channel D or above: none.
__device__ __forceinline__ void dh_next(struct dh_step *s, const struct whole_dh_job &j, int chunks)
{
    if (++s->age < j.blocks - s->first) return;
    s->age = 0;
    if (++s->chunk < chunks) return;
    s->chunk = 0;
    s->first += DH_PASS;
    if (s->first < j.blocks) return;
    s->first = 0;
    s->c += gridDim.x;
}

// Calls f(piece, where) for the 16 bytes each of a step that this feeder moves.
template <class T, int ROWS, class F>
__device__ __forceinline__ void dh_pieces(const struct whole_dh_job &j, const struct dh_step &s,
                                          unsigned char *u_tile, unsigned char *dy_tile, F f)
{
    const int n = threadIdx.x - DH_MAKERS, p = n % 8, first = s.chunk * ROWS + n / 8;
    const int place_in = place<T>(n / 8, 2 * STEP, p);
    auto side = [&](const void *x, struct hb_strides stride, int block, unsigned char *tile) {
        const T *at = (const T *)x + first * stride.b + s.c * stride.c;
        const int t = block * STEP + 8 * p;
#pragma unroll
        for (int r = 0; r < ROWS; r += DH_FEEDERS / 8, at += DH_FEEDERS / 8 * stride.b) {
            const int from = j.shifted ? shift_of(at) : 0, end = first + r < j.B ? j.L + from : 0;
            f(piece<T>{ at - from + t, t, from, end }, tile + place_in + r * 2 * STEP);
        }
    };
    side(j.u, j.su, s.age, u_tile);
    side(j.dy, j.sdy, s.first + s.age, dy_tile);
}

// Sum of the four warps' lags of a G_q at i - j = x, -64 < x < 64. Warp w's rows are 16 w later.
__device__ __forceinline__ float dh_lag(const float *lags, int x)
{
    float sum = 0;
#pragma unroll
    for (int w = 0; w < 4; w++) {
        const int z = x + 64 - 16 * w;
        if (z > 0 && z < WARP_LAGS) sum += lags[w * WARP_LAGS + z];
    }
    return sum;
}

// The end of a pass: dh (and dd) of a channel += what the lag blocks from `first` on have of it.
__device__ __forceinline__ void add_lags(const struct whole_dh_job &j, int64_t c, int first,
                                         const float (&g)[DH_LAGS][32], float *folds, float *lags)
{
    constexpr int MANY = (DH_PASS * STEP + STEP + DH_MAKERS - 1) / DH_MAKERS;
    const int warp = threadIdx.x / 32, last = min(first + DH_PASS, j.blocks);
    const int begin = max(0, STEP * (first - 1)) + threadIdx.x, end = min(j.L, STEP * last);
    float *const dh = j.dh + c * j.L;
    float sum[MANY];                      // starts with what is there: read before it is needed
#pragma unroll
    for (int r = 0; r < MANY; r++) {
        const int s = begin + r * DH_MAKERS;
        sum[r] = s < end ? dh[s] : 0;
    }
#pragma unroll
    for (int i = 0; i < DH_LAGS; i++) {
        const int q = warp / 4 + DH_GROUPS * i;
        if (first + q < last)
            fold_diagonals<2>(lags + (4 * q + warp % 4) * WARP_LAGS, folds + warp * FOLD<2>,
                              [&](int row, int column, int e) {
                                  return g[i][4 * column + 2 * row + e];
                              });
    }
    meet<1, DH_MAKERS>();
#pragma unroll
    for (int r = 0; r < MANY; r++) {
        const int s = begin + r * DH_MAKERS, q = s / STEP, x = s % STEP;
        if (s >= end) continue;
        float lag = 0;
        if (q >= first) lag += dh_lag(lags + (q - first) * 4 * WARP_LAGS, x);
        if (q + 1 < last) lag += dh_lag(lags + (q + 1 - first) * 4 * WARP_LAGS, x - STEP);
        dh[s] = sum[r] + lag;
        if (j.dd && s == 0) j.dd[c] += lag;
    }
}

// A step's slots in the rings.
struct dh_slots {
    int u, dy;
    __device__ __forceinline__ void next()
    {
        u = (u + 1) % U_SLOTS;
        dy = dy + 1 == DY_SLOTS ? 0 : dy + 1;
    }
};

// The feeders: their copies are under way while the makers' fences wait for what they did
// themselves, so no thread is both.
template <class T, int ROWS>
__device__ __forceinline__ void dh_feed(const struct whole_dh_job &j, unsigned char *us,
                                        unsigned char *dys)
{
    const int chunks = (j.B + ROWS - 1) / ROWS;
    const void *const any = (const void *)((uintptr_t)j.dy & ~(uintptr_t)15);
    struct dh_step next = { blockIdx.x, 0, 0, 0 }, now = next;
    struct dh_slots next_in = { 0, 0 }, now_in = { 0, 0 };
    auto load = [&]() {
        if (next.c < j.D) {
            dh_pieces<T, ROWS>(j, next, us + next_in.u * DH_TILE<ROWS>,
                               dys + next_in.dy * DH_TILE<ROWS>,
                               [&](const struct piece<T> &s, void *to) {
                                   if (j.shifted) fetch_aligned<T>(s, to, any);
                                   else fetch<T>(s, to, any);
                               });
            dh_next(&next, j, chunks);
            next_in.next();
        }
        commit();
    };
    for (int i = 0; i < DH_AHEAD; i++)
        load();
    for (; now.c < j.D; dh_next(&now, j, chunks), now_in.next()) {
        arrived<DH_AHEAD - 1>();
        if (now.age == 0 && j.shifted)
            dh_pieces<T, ROWS>(j, now, us + now_in.u * DH_TILE<ROWS>,
                               dys + now_in.dy * DH_TILE<ROWS>,
                               [&](const struct piece<T> &s, void *to) {
                                   if (s.t == 0) blank<T>(to, s.from);
                               });
        meet<0, WHOLE_DH_THREADS>();           // it is there; nobody needs the oldest any more
        load();
    }
}

// G_q of a pass, for all steps of it; `now` is then the first one of the next pass.
template <class T, int ROWS>
__device__ __forceinline__ void dh_pass(float (&g)[DH_LAGS][32], const struct whole_dh_job &j,
                                        struct dh_step *now, struct dh_slots *in,
                                        const unsigned char *us, const unsigned char *dys)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);      // the same for the compiler, too
    const int chunks = (j.B + ROWS - 1) / ROWS, first = now->first;
    const int64_t c = now->c;
    for (; now->c == c && now->first == first; dh_next(now, j, chunks), in->next()) {
        meet<0, WHOLE_DH_THREADS>();
        publish();
        uint32_t a[ROWS / 16][4];
        const uint32_t dy = hb_shared_address(dys) + in->dy * DH_TILE<ROWS>;
#pragma unroll
        for (int s = 0; s < ROWS / 16; s++)
            load_matrices<true>(a[s], dy + place<T>(16 * s + lane % 8 + lane / 16 * 8, 2 * STEP,
                                                    2 * (warp % 4) + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < DH_LAGS; i++) {
            const int q = group + DH_GROUPS * i;                   // from `first` on
            if (q > now->age) continue;
            const uint64_t u = tile_of(us) + (in->u - q & U_SLOTS - 1) * (DH_TILE<ROWS> / 16);
            wgmma_begin();
#pragma unroll
            for (int s = 0; s < ROWS / 16; s++)
                wgmma<T, 32, true>(g[i], a[s], u + s * (16 * 2 * STEP / 16));
            wgmma_commit();
        }
        wgmma_done<0>();
    }
}

// Grid: at most D blocks, as many as run at a time; dynamic shared WHOLE_DH_SHARED.
template <class T, int ROWS>
__global__ void __launch_bounds__(WHOLE_DH_THREADS, 1) outer_whole(const struct whole_dh_job j)
{
    extern __shared__ __align__(1024) unsigned char ring[];
    unsigned char *const dys = ring + U_SLOTS * DH_TILE<ROWS>;
    if (threadIdx.x >= DH_MAKERS) {
        fewer_registers<24>();               // 168 at first: 128 (168 - 24) = 256 (240 - 168)
        dh_feed<T, ROWS>(j, ring, dys);
        return;
    }
    more_registers<240>();
    float *const folds = (float *)(ring + DH_RINGS<ROWS>);
    float *const lags = (float *)(ring + DH_RINGS<ROWS> + DH_FOLDS);
    struct dh_step now = { blockIdx.x, 0, 0, 0 };
    struct dh_slots in = { 0, 0 };
    while (now.c < j.D) {
        float g[DH_LAGS][32] = {};
        const int64_t c = now.c;
        const int first = now.first;
        dh_pass<T, ROWS>(g, j, &now, &in, ring, dys);
        add_lags(j, c, first, g, folds, lags);
    }
}

} // namespace toeplitz

#endif
