// cluster_steps.cuh: what a block of a cluster does by itself (cluster.cuh): outer step by classes,
// rows, and back, all in its planes, CUDA.
#ifndef HB_FUSED_CLUSTER_STEPS_CUH
#define HB_FUSED_CLUSTER_STEPS_CUH

#include "cluster.cuh"

// What is flipped in the place of row 16 c against that of row 0.
__device__ __forceinline__ int cluster_class_flip(int c)
{
    return (c % 2 * 3 ^ c / 2 % 2 * 4) * 16;
}

// B of 8 TILES columns from r on of all classes. One tile: [class]: real parts, imaginary parts.
template <class S>
__device__ __forceinline__ void cluster_columns(uint32_t (&br)[S::Q][S::TILES][2],
                                                uint32_t (&bi)[S::Q][S::TILES][2], uint32_t planes,
                                                int r, hb_lane me)
{
    constexpr int TILES = S::TILES;
    const int half = me.lane / 16;                         // tile, or part where there is one
    const uint32_t at = planes + cluster_at(me.lane % 16, r / 8 + (TILES == 2 ? half : 0))
                        + (TILES == 2 ? 0 : half * HB_PLANE<S::R>);
#pragma unroll
    for (int c = 0; c < S::Q; c++) {
        const uint32_t from = (at ^ cluster_class_flip(c)) + 8192 * c;
        uint32_t x[4], y[4];
        hb_load_trans(x, from);
        if constexpr (TILES == 2) hb_load_trans(y, from + HB_PLANE<S::R>);
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++) {
            br[c][i / 2][i % 2] = x[i];
            bi[c][i / 2][i % 2] = TILES == 2 ? y[i] : x[2 + i];
        }
    }
}

// Each class times its matrix. Sums that follow each other are not the same, so that none waits for
// the one before.
template <int Q, int TILES>
__device__ __forceinline__ void cluster_products(float (&re)[Q][TILES][4],
                                                 float (&im)[Q][TILES][4],
                                                 const uint32_t (&br)[Q][TILES][2],
                                                 const uint32_t (&bi)[Q][TILES][2],
                                                 const uint4 *matrix)
{
#pragma unroll
    for (int c = 0; c < Q; c++) {
        uint32_t gr[4], gi[4], minus[4];
        hb_fragment(gr, matrix[64 * c]);
        hb_fragment(gi, matrix[64 * c + 32]);
        hb_negated(minus, gi);
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                const auto &r = br[c][t], &i = bi[c][t];
                if (n == 0) hb_mma(re[c][t], gr, r[0], r[1]);
                if (n == 1) hb_mma(im[c][t], gr, i[0], i[1]);
                if (n == 2) hb_mma(im[c][t], gi, r[0], r[1]);
                if (n == 3) hb_mma(re[c][t], minus, i[0], i[1]);
            }
    }
}

// v[m] = sum_c v[c] e^{-2 pi i m c / Q}, BACK: the conjugate factors.
template <int Q, bool BACK> __device__ __forceinline__ void cluster_classes(float2 (&v)[Q])
{
    if constexpr (Q == 3) {
        constexpr float SIN = BACK ? 0.8660254038f : -0.8660254038f;
        const float2 sum = make_float2(v[1].x + v[2].x, v[1].y + v[2].y);
        const float2 less = make_float2((v[1].x - v[2].x) * SIN, (v[1].y - v[2].y) * SIN);
        const float2 mid = make_float2(v[0].x - 0.5f * sum.x, v[0].y - 0.5f * sum.y);
        v[0] = make_float2(v[0].x + sum.x, v[0].y + sum.y);
        v[1] = make_float2(mid.x - less.y, mid.y + less.x);
        v[2] = make_float2(mid.x + less.y, mid.y - less.x);
    } else {
        float2 x[Q];
#pragma unroll
        for (int c = 0; c < Q; c++) x[c] = v[c];
        cluster_dft<Q, BACK>(x);
#pragma unroll
        for (int i = 0; i < Q; i++) v[cluster_index<Q>(i)] = x[i];
    }
}

// The outer step in place, of 8 TILES columns from `first` on. BACK: without the turns. A lane has
// columns r + i % 2 of tiles i / 2, slots kappa(g + 8 h) + 16 m; for stmatrix it gives the address
// of row lane % 8 of matrix lane / 8: [part][tile], or [h][part] where there is one tile.
template <class S, bool BACK>
__device__ __forceinline__ void cluster_outer_some(const cluster_block &k, int first)
{
    constexpr int K = S::K, R = S::R, Q = S::Q, TILES = S::TILES, EACH = 2 * TILES;
    const hb_lane me = k.me;
    const uint32_t planes = hb_shared_address(k.planes);
    float re[Q][TILES][4] = {}, im[Q][TILES][4] = {};
    {
        uint32_t br[Q][TILES][2], bi[Q][TILES][2];
        cluster_columns<S>(br, bi, planes, first, me);
        cluster_products(re, im, br, bi, k.matrix + (BACK ? 64 * Q : 0) + me.lane);
    }
    __syncwarp();                 // everybody has read
    const int r = first + 2 * me.q, high = me.lane / 16, low = me.lane / 8 % 2;
    const cluster_targets<R> own(me.g, 0), to(me.lane % 8, first / 8 + (TILES == 2 ? low : 0));
    const uint32_t at = planes + (TILES == 2 ? high : low) * HB_PLANE<R>
                        + (TILES == 2 ? 0 : (to.row_of(high, 0) - to.row) * 512);
    float2 next = make_float2(0, 0), w[2] = { next, next };
    if constexpr (!BACK) {        // T; 16 slots further
        next = cluster_turn<S>(64 * K * r);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            w[h] = cluster_turn<S>(cluster_f<K>(cluster_kappa(Q, me.g + 8 * h), k.rank) * r);
            w[h] = make_float2(w[h].x * (1.0f / R), w[h].y * (1.0f / R));
        }
    }
#pragma unroll
    for (int x = 0; x < 4 * TILES; x++) {
        float2 v[Q];
#pragma unroll
        for (int c = 0; c < Q; c++) v[c] = make_float2(re[c][x / 4][x % 4], im[c][x / 4][x % 4]);
        cluster_classes<Q, BACK>(v);
#pragma unroll
        for (int c = 0; c < Q; c++) {
            re[c][x / 4][x % 4] = v[c].x;
            im[c][x / 4][x % 4] = v[c].y;
        }
    }
    uint32_t held[4];
#pragma unroll
    for (int x = 0; x < 2 * Q; x++) {                      // two tiles: h by h
        const int h = TILES == 2 ? x / Q : x % 2, m = TILES == 2 ? x % Q : x / 2;
        float2 v[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++)
            v[i] = make_float2(re[m][i / 2][2 * h + i % 2], im[m][i / 2][2 * h + i % 2]);
        if constexpr (!BACK) {
            const float4 turn = k.turns[own.row_of(h, m)];
            const float2 odd = hb_cmul(w[h], make_float2(turn.x, turn.y));
            const float2 eight = make_float2(turn.z, turn.w);
            v[0] = hb_cmul(v[0], w[h]);
            v[1] = hb_cmul(v[1], odd);
            if constexpr (TILES == 2) {
                v[2] = hb_cmul(v[2], hb_cmul(w[h], eight));
                v[3] = hb_cmul(v[3], hb_cmul(odd, eight));
            }
            w[h] = hb_cmul(w[h], next);
        }
        uint32_t out[4];
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            out[t] = hb_pack(v[2 * t].x, v[2 * t + 1].x);
            out[TILES + t] = hb_pack(v[2 * t].y, v[2 * t + 1].y);
        }
        if constexpr (TILES == 2) {
            hb_store_matrices(at + to.byte_of(h, m), out);
        } else {                  // both h at once: the first one waits
            held[2 * h] = out[0];
            held[2 * h + 1] = out[1];
            if (h == 1) hb_store_matrices(at + to.byte_of(0, m), held);
        }
    }
}

template <class S, bool BACK>
__device__ __forceinline__ void cluster_outer(const cluster_block &k)
{
    constexpr int COLUMNS = 8 * S::TILES;
#pragma unroll 1
    for (int first = COLUMNS * k.warp; first < 256; first += COLUMNS * S::WARPS)
        cluster_outer_some<S, BACK>(k, first);
}

// x, turned by conj(T), to its row. w: T at this lane's first point, r = 16 g + 2 q.
template <class S>
__device__ __forceinline__ void cluster_inner_store(const cluster_block &k, const hb_tile &x,
                                                    int row, float2 w)
{
    const float4 turn = k.turns[row];
    const float2 one = make_float2(turn.x, turn.y), tile = make_float2(turn.z, turn.w);
    const float2 down = k.downs[row];
    const int first = cluster_at(row, 2 * k.me.g) + 4 * k.me.q;
#pragma unroll
    for (int t = 0; t < 2; t++) {
        float2 at = w;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float2 even = hb_conj(at), odd = hb_conj(hb_cmul(at, one));
            const float2 v0 = hb_cmul(make_float2(x.re[t][2 * h], x.im[t][2 * h]), even);
            const float2 v1 = hb_cmul(make_float2(x.re[t][2 * h + 1], x.im[t][2 * h + 1]), odd);
            unsigned char *const to = k.planes + (first ^ 16 * t) + 256 * h;
            *(uint32_t *)to = hb_pack(v0.x, v1.x);
            *(uint32_t *)(to + HB_PLANE<S::R>) = hb_pack(v0.y, v1.y);
            if (h == 0) at = hb_cmul(at, down);
        }
        if (t == 0) w = hb_cmul(w, tile);
    }
}

// The rows' step of all slots, its second half: what make(z, inner, row) leaves goes back to the
// planes. A warp has rows `warp` modulo WARPS, slots Q kappa, Q kappa + 1, .. one after the other.
template <class S, class F>
__device__ __forceinline__ void cluster_slots(const cluster_block &k, F make)
{
    constexpr int K = S::K, R = S::R;
    const hb_lane me = k.me;
    hb_inner inner;
    hb_inner_load(inner, k.inner, me);
    const int from = 16 * me.g + 2 * me.q;
    const float2 next = cluster_turn<S>(4 * K * from);
#pragma unroll 1
    for (int first = k.warp; first < 16; first += S::WARPS) {
        float2 w = cluster_turn<S>(cluster_f<K>(cluster_slot<R>(first), k.rank) * from);
#pragma unroll 1
        for (int row = first; row < R; row += 16) {
            hb_tile z, x;
            make(z, inner, row);
            hb_inner_and_back(x, inner, z);
            __syncwarp();         // everybody has read the row
            cluster_inner_store<S>(k, x, row, w);
            w = hb_cmul(w, next);
        }
    }
}

// The row that cluster_slots has after this one; after the last, another one.
template <class S> __device__ __forceinline__ int cluster_after(int row)
{
    return row + 16 < S::R ? row + 16 : row % 16 + S::WARPS;
}

// Transform of the slot in a row of the planes.
template <class S>
__device__ __forceinline__ void cluster_transform(hb_tile &z, const cluster_block &k,
                                                  const hb_inner &inner, int row)
{
    const int lane = k.me.lane;
    const uint32_t at = hb_shared_address(k.planes) + cluster_at(row, lane % 16 * 2 + lane / 16);
    uint32_t xr[4], xi[4];
    hb_load_trans(xr, at);
    hb_load_trans(xi, at + HB_PLANE<S::R>);
    hb_inner_forth(z, inner, xr, xi);
}

// Transforms of all slots, times gain, to memory. to: of this lane, slot 0.
template <class S>
__device__ __forceinline__ void cluster_keep(const cluster_block &k, uint4 *to, float gain)
{
    hb_inner inner;
    hb_inner_load(inner, k.inner, k.me);
#pragma unroll 1
    for (int slot = k.warp; slot < S::R; slot += S::WARPS) {
        hb_tile z;
        cluster_transform<S>(z, k, inner, slot);
        hb_keep(to + slot * 64, z, gain);
    }
}
#endif
