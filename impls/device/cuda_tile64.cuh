// cuda_tile64.cuh: one 64 x 64 tile of a product in float64 per block of 128 threads, on the tensor
// cores, and the operands that cuda_filter.cu multiplies: matrices as they lie, and dh with the
// filter's window on it.
//
// Method    k in steps of DEPTH through two shared buffers: while one is multiplied, the next piece
//           is on its way into registers; operands are widened to double on their way to shared
//           memory. Four warps of 32 x 32; rows of a piece are padded so that fragments are read
//           without bank conflicts.
// Cost      40 KiB of shared memory and about 165 registers: three blocks an SM.
// Accuracy  float64, k added up in order, eight at a time.
#ifndef HB_DEVICE_CUDA_TILE64_CUH
#define HB_DEVICE_CUDA_TILE64_CUH

#include "cuda.h"

enum {
    TILE = 64,                   // rows and columns of a block's product
    DEPTH = 16,                  // k at once
    THREADS = 128,               // four warps, each 32 x 32
    EACH = TILE * DEPTH / THREADS,       // elements of an operand that a thread brings
    KSTRIDE = DEPTH + 4,         // row of a k-contiguous piece  } 4 mod 16: the 16 lanes of a half
    RSTRIDE = TILE + 4,          // row of an r-contiguous piece } warp hit 16 pairs of banks
    PIECE = TILE * KSTRIDE,      // doubles of an operand's piece, the larger of the two forms
};

// Positions j0 .. j0+n-1 of one chunk; ld is n rounded up to TILE, the row of its (W,n) arrays.
struct chunk { int64_t j0, n, ld; };

// exp(-t_j delta_c) + shift with t_j = j dt and delta_c = slow + c step; `on` false: 1.
struct window {
    double slow, step, dt, shift;
    bool on;
    __device__ double at(double j, double c) const
    {
        return on ? exp(-j * dt * (slow + c * step)) : 1.0;
    }
    // What `at` is multiplied with from c to c + dc at j; from j to j + dj at c; and what the
    // latter changes by from c to c + dc.
    __device__ double along_c(double dc, double j) const
    {
        return on ? exp(-j * dt * dc * step) : 1.0;
    }
    __device__ double along_j(double dj, double c) const
    {
        return on ? exp(-dj * dt * (slow + c * step)) : 1.0;
    }
    __device__ double both(double dj, double dc) const
    {
        return on ? exp(-dj * dt * dc * step) : 1.0;
    }
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
template <bool DEEP> static __device__ __forceinline__ int shared_at(int r, int k)
{
    return DEEP ? r * KSTRIDE + k : k * RSTRIDE + r;
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
    __device__ void put(double *to, const T (&v)[EACH])
    {
        #pragma unroll
        for (int i = 0; i < EACH; i++) to[shared_at<DEEP>(own_r<DEEP>(i), own_k<DEEP>(i))] = v[i];
    }
};

// dg = dh window, of one chunk of dh (C,L). DEEP: r is the channel and k the position, else the
// other way round. A thread's channels go up by `stride` in a piece, its positions (DEEP) by DEPTH
// from piece to piece.
template <bool DEEP> struct windowed {
    using raw = float;
    static constexpr bool deep = DEEP;
    plain<float, DEEP> dh;
    double v, q, v_next, q_next, shift;

    // k is the first that fetch will be asked for.
    __device__ windowed(const float *p, int64_t L, struct chunk s, int64_t rows, int64_t r0,
                        int64_t k, const struct window &win)
        : dh{ p + s.j0, L, rows, r0 }, shift(win.on ? win.shift : 0.0)
    {
        double r = (double)(r0 + own_r<DEEP>(0)), first = (double)(k + own_k<DEEP>(0));
        double c = DEEP ? r : first, j = (double)s.j0 + (DEEP ? first : r);
        double stride = DEEP ? THREADS / DEPTH : THREADS / TILE;
        v = win.at(j, c);
        q = win.along_c(stride, j);
        v_next = DEEP ? win.along_j(DEPTH, c) : 1.0;
        q_next = DEEP ? win.both(DEPTH, stride) : 1.0;
    }
    __device__ void fetch(float (&x)[EACH], int64_t k0, int64_t end) const { dh.fetch(x, k0, end); }
    __device__ void put(double *to, const float (&x)[EACH])
    {
        double w = v;
        #pragma unroll
        for (int i = 0; i < EACH; i++, w *= q)
            to[shared_at<DEEP>(own_r<DEEP>(i), own_k<DEEP>(i))] = (double)x[i] * (w + shift);
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
typedef double acc_t[2][4][4];

// acc = A B over k from k0 to end. `shared`: 4 PIECE.
template <class A, class B>
static __device__ __forceinline__ void multiply(acc_t &acc, A &a, B &b, int64_t k0, int64_t end,
                                                double *shared)
{
    typename A::raw ra[EACH];
    typename B::raw rb[EACH];
    lane me;
    #pragma unroll
    for (int i = 0; i < 32; i++) acc[i / 16][i / 4 % 4][i % 4] = 0;
    a.fetch(ra, k0, end);
    b.fetch(rb, k0, end);
    for (int turn = 0; k0 < end; k0 += DEPTH, turn ^= 1) {
        double *sa = shared + turn * 2 * PIECE, *sb = sa + PIECE;
        a.put(sa, ra);
        b.put(sb, rb);
        __syncthreads();                         // all have left the other buffer, too
        if (k0 + DEPTH < end) {
            a.fetch(ra, k0 + DEPTH, end);
            b.fetch(rb, k0 + DEPTH, end);
        }
        #pragma unroll
        for (int k = 0; k < DEPTH; k += 8) {
            double fa[2][4], fb[4][2];
            #pragma unroll
            for (int i = 0; i < 8; i++)
                fa[i / 4][i % 4] = sa[shared_at<A::deep>(me.row0 + i / 4 * 16 + i % 2 * 8,
                                                         k + me.t + i % 4 / 2 * 4)];
            #pragma unroll
            for (int i = 0; i < 8; i++)
                fb[i / 2][i % 2] = sb[shared_at<B::deep>(me.col0 - 2 * me.t + me.g + i / 2 * 8,
                                                         k + me.t + i % 2 * 4)];
            #pragma unroll
            for (int i = 0; i < 8; i++) mma(acc[i / 4][i % 4], fa[i / 4], fb[i % 4]);
        }
    }
}

#endif
