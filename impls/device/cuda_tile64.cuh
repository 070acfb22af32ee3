// cuda_tile64.cuh: one 64 x 64 tile of a product per block of 128 threads on the tensor cores, in
// float64 or in float32, and the operands that cuda_filter.cu multiplies: matrices as they lie, and
// dh with the filter's window on it. N is the type of the numbers: double or float.
//
// Method    k in steps of DEPTH through two shared buffers: while one is multiplied, the next piece
//           is on its way into registers; operands are widened to N on their way to shared memory.
//           Four warps of 32 x 32; rows of a piece are padded so that fragments are read without
//           bank conflicts. A float is cut into two tf32 numbers, high and low, and three of the
//           four products of halves are added: the fragments of tf32 and of float64 are alike.
// Cost      double: 40 KiB of shared memory and about 165 registers, three blocks an SM; float:
//           20 KiB, at most 128 registers, four blocks.
// Accuracy  double: float64, k added up in order, eight at a time. float: 2^-20 of a product is
//           left out, sums are float32.
#ifndef HB_DEVICE_CUDA_TILE64_CUH
#define HB_DEVICE_CUDA_TILE64_CUH

#include "cuda.h"

enum {
    TILE = 64,                   // rows and columns of a block's product
    DEPTH = 16,                  // k at once
    THREADS = 128,               // four warps, each 32 x 32
    EACH = TILE * DEPTH / THREADS,       // elements of an operand that a thread brings
    KSTRIDE = DEPTH + 4,         // row of a k-contiguous piece: lanes hit different banks
    PIECE = TILE * KSTRIDE,      // numbers of an operand's piece, the larger of the two forms
};
// Row of an r-contiguous piece: 4 mod 16 pairs of banks, 8 mod 32 banks.
template <class N> constexpr int RSTRIDE = sizeof(N) == 8 ? TILE + 4 : TILE + 8;
// Blocks an SM that the compiler shall leave registers for.
template <class N> constexpr int RESIDENT = sizeof(N) == 8 ? 3 : 4;

// Positions j0 .. j0+n-1 of one chunk; ld is n rounded up to TILE, the row of its (W,n) arrays.
struct chunk { int64_t j0, n, ld; };

// exp(-t_j delta_c) + shift with t_j = j dt and delta_c = slow + c step; `on` false: 1.
template <class N> struct window {
    N slow, step, dt, shift;
    bool on;
    __device__ N at(N j, N c) const { return on ? exp(-j * dt * (slow + c * step)) : N(1); }
    // What `at` is multiplied with from c to c + dc at j; from j to j + dj at c; and what the
    // latter changes by from c to c + dc.
    __device__ N along_c(N dc, N j) const { return on ? exp(-j * dt * dc * step) : N(1); }
    __device__ N along_j(N dj, N c) const
    {
        return on ? exp(-dj * dt * (slow + c * step)) : N(1);
    }
    __device__ N both(N dj, N dc) const { return on ? exp(-dj * dt * dc * step) : N(1); }
};

// --- operands ------------------------------------------------------------------------------------
// An operand brings TILE rows r (of the product's rows, or columns) by DEPTH of k at a time: fetch
// reads what it needs into registers, put widens it into shared memory. Both are called for k0,
// k0 + DEPTH, ... in order. DEEP: neighbours in memory differ in k, else in r. Outside is zero.

template <bool DEEP> static __device__ __forceinline__ int own_r(int i)
{
    return DEEP ? (int)threadIdx.x / DEPTH + i * (THREADS / DEPTH) : (int)threadIdx.x % TILE;
}
template <bool DEEP> static __device__ __forceinline__ int own_k(int i)
{
    return DEEP ? (int)threadIdx.x % DEPTH : (int)threadIdx.x / TILE + i * (THREADS / TILE);
}
template <class N, bool DEEP> static __device__ __forceinline__ int shared_at(int r, int k)
{
    return DEEP ? r * KSTRIDE + k : k * RSTRIDE<N> + r;
}

// A matrix as it lies: element (r,k) at r ld + k if DEEP, else k ld + r; r0 is the tile's first.
template <class T, bool DEEP> struct plain {
    using raw = T;
    static constexpr bool deep = DEEP;
    const T *p;
    int64_t ld, rows, r0;

    __device__ void fetch(T (&v)[EACH], int64_t k0, int64_t end) const
    {
        #pragma unroll
        for (int i = 0; i < EACH; i++) {
            int64_t r = r0 + own_r<DEEP>(i), k = k0 + own_k<DEEP>(i);
            v[i] = r < rows && k < end ? p[DEEP ? r * ld + k : k * ld + r] : (T)0;
        }
    }
    template <class N> __device__ void put(N *to, const T (&v)[EACH])
    {
        #pragma unroll
        for (int i = 0; i < EACH; i++)
            to[shared_at<N, DEEP>(own_r<DEEP>(i), own_k<DEEP>(i))] = v[i];
    }
};

// dg = dh window, of one chunk of dh (C,L), in float64. DEEP: r is the channel and k the position,
// else the other way round. A thread's channels go up by `stride` in a piece, its positions (DEEP)
// by DEPTH from piece to piece, and the window goes along by multiplication.
template <bool DEEP> struct windowed {
    using raw = float;
    static constexpr bool deep = DEEP;
    plain<float, DEEP> dh;
    double v, q, v_next, q_next, shift;

    // k is the first that fetch will be asked for.
    __device__ windowed(const float *p, int64_t L, struct chunk s, int64_t rows, int64_t r0,
                        int64_t k, const struct window<double> &w)
        : dh{ p + s.j0, L, rows, r0 }, shift(w.on ? w.shift : 0.0)
    {
        // The channels of a thread's neighbours in one piece are so far apart.
        constexpr int stride = DEEP ? THREADS / DEPTH : THREADS / TILE;
        double r = (double)(r0 + own_r<DEEP>(0)), first = (double)(k + own_k<DEEP>(0));
        double c = DEEP ? r : first, j = (double)s.j0 + (DEEP ? first : r);
        v = w.at(j, c);
        q = w.along_c(stride, j);
        v_next = DEEP ? w.along_j(DEPTH, c) : 1.0;
        q_next = DEEP ? w.both(DEPTH, stride) : 1.0;
    }
    __device__ void fetch(float (&x)[EACH], int64_t k0, int64_t end) const { dh.fetch(x, k0, end); }
    template <class N> __device__ void put(N *to, const float (&x)[EACH])
    {
        double w = v;
        #pragma unroll
        for (int i = 0; i < EACH; i++, w *= q)
            to[shared_at<N, DEEP>(own_r<DEEP>(i), own_k<DEEP>(i))] = x[i] * (w + shift);
        v = DEEP ? v * v_next : w;               // EACH strides of channels are just the next piece
        q *= q_next;
    }
};

// --- product -------------------------------------------------------------------------------------

// c (16,8) += a (16,8) b (8,8). Lane (g,t) = (lane/4, lane%4) holds a[g,t] a[g+8,t] a[g,t+4]
// a[g+8,t+4], b[t,g] b[t+4,g], c[g,2t] c[g,2t+1] c[g+8,2t] c[g+8,2t+1].
static __device__ __forceinline__ void mma(double (&c)[4], const double (&a)[4],
                                           const double (&b)[2])
{
#if __CUDA_ARCH__ >= 900
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+d"(c[0]), "+d"(c[1]), "+d"(c[2]), "+d"(c[3])
                 : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(b[0]), "d"(b[1]));
#else
    #pragma unroll
    for (int i = 0; i < 4; i++)                  // halves of the rows within halves of k
        asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 "
                     "{%0,%1}, {%2}, {%3}, {%0,%1};"
                     : "+d"(c[i % 2 * 2]), "+d"(c[i % 2 * 2 + 1])
                     : "d"(a[i]), "d"(b[i / 2]));
#endif
}

// The same of tf32 numbers: what lies below the upper 19 bits of an operand is not looked at.
static __device__ __forceinline__ void mma_tf32(float (&c)[4], const float (&a)[4],
                                                const float (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])),
                   "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
                   "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// The upper 19 bits; x less them has at most 13 and is cut to 11 by the product.
static __device__ __forceinline__ float upper(float x)
{
    return __uint_as_float(__float_as_uint(x) & 0xffffe000u);
}

// Of floats: the small products first.
static __device__ __forceinline__ void mma(float (&c)[4], const float (&a)[4], const float (&b)[2])
{
    float ah[4], al[4], bh[2], bl[2];
    #pragma unroll
    for (int i = 0; i < 4; i++) al[i] = a[i] - (ah[i] = upper(a[i]));
    #pragma unroll
    for (int i = 0; i < 2; i++) bl[i] = b[i] - (bh[i] = upper(b[i]));
    mma_tf32(c, al, bh);
    mma_tf32(c, ah, bl);
    mma_tf32(c, ah, bh);
}

// What a lane holds of the block's product: acc[m][n][2h+i] is row 16m + 8h + row0, column
// 8n + i + col0.
struct lane {
    int g, t, row0, col0;
    __device__ lane()
    {
        int warp = (int)threadIdx.x / 32;
        g = (int)threadIdx.x % 32 / 4;
        t = (int)threadIdx.x % 4;
        row0 = warp % 2 * 32 + g;
        col0 = warp / 2 * 32 + 2 * t;
    }
};
template <class N> using acc_t = N[2][4][4];

// acc = A B over k from k0 to end. `shared`: 4 PIECE.
template <class N, class A, class B>
static __device__ __forceinline__ void multiply(acc_t<N> &acc, A &a, B &b, int64_t k0, int64_t end,
                                                N *shared)
{
    typename A::raw ra[EACH];
    typename B::raw rb[EACH];
    lane me;
    #pragma unroll
    for (int i = 0; i < 32; i++) acc[i / 16][i / 4 % 4][i % 4] = 0;
    a.fetch(ra, k0, end);
    b.fetch(rb, k0, end);
    for (int turn = 0; k0 < end; k0 += DEPTH, turn ^= 1) {
        N *sa = shared + turn * 2 * PIECE, *sb = sa + PIECE;
        a.put(sa, ra);
        b.put(sb, rb);
        __syncthreads();                         // all have left the other buffer, too
        if (k0 + DEPTH < end) {
            a.fetch(ra, k0 + DEPTH, end);
            b.fetch(rb, k0 + DEPTH, end);
        }
        #pragma unroll
        for (int k = 0; k < DEPTH; k += 8) {
            N fa[2][4], fb[4][2];
            #pragma unroll
            for (int i = 0; i < 8; i++)
                fa[i / 4][i % 4] = sa[shared_at<N, A::deep>(me.row0 + i / 4 * 16 + i % 2 * 8,
                                                            k + me.t + i % 4 / 2 * 4)];
            #pragma unroll
            for (int i = 0; i < 8; i++)
                fb[i / 2][i % 2] = sb[shared_at<N, B::deep>(me.col0 - 2 * me.t + me.g + i / 2 * 8,
                                                            k + me.t + i % 2 * 4)];
            #pragma unroll
            for (int i = 0; i < 8; i++) mma(acc[i / 4][i % 4], fa[i / 4], fb[i % 4]);
        }
    }
}

#endif
