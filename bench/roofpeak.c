// roofpeak.c: multiply-adds in registers and reads, as fast as the build's vectors allow.
//
// FMA       CHAINS independent chains x = x a + b: 2 units x 4 to 5 cycles of latency need 8 to 10
//           of them; 12 and the two constants fit into 16 registers. |a| < 1 keeps x away from
//           infinity and denormals.
// Reads     8 vector accumulators, every byte loaded once.
#include "roofpeak.h"

#if defined __AVX512F__
enum { VEC = 64 };
#elif defined __AVX__
enum { VEC = 32 };
#else
enum { VEC = 16 };
#endif

// One function over vectors of BYTES bytes of T. The chains start from an argument and end in
// `sink`, or the compiler would do with fewer of them.
static volatile double sink;
#define FMA_CHAINS(NAME, T, BYTES, ATTRIBUTE)                                                      \
    ATTRIBUTE __attribute__((noipa)) double NAME(int64_t steps)                                    \
    {                                                                                              \
        typedef T vec __attribute__((vector_size(BYTES)));                                         \
        enum { LANES = (BYTES) / sizeof(T), CHAINS = 12 };                                         \
        vec a = (vec){ 0 } + (T)0.999, b = (vec){ 0 } + (T)0.001;                                  \
        vec x0 = (vec){ 0 } + (T)(steps & 1), x1 = x0 + b, x2 = x1 + b, x3 = x2 + b,               \
            x4 = x3 + b, x5 = x4 + b, x6 = x5 + b, x7 = x6 + b, x8 = x7 + b, x9 = x8 + b,          \
            xa = x9 + b, xb = xa + b;                                                              \
        for (int64_t i = 0; i < steps; i++) {                                                      \
            x0 = x0 * a + b; x1 = x1 * a + b; x2 = x2 * a + b; x3 = x3 * a + b;                    \
            x4 = x4 * a + b; x5 = x5 * a + b; x6 = x6 * a + b; x7 = x7 * a + b;                    \
            x8 = x8 * a + b; x9 = x9 * a + b; xa = xa * a + b; xb = xb * a + b;                    \
        }                                                                                          \
        vec s = x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9 + xa + xb;                         \
        sink = (double)s[0];                                                                       \
        return 2.0 * CHAINS * LANES * (double)steps;                                               \
    }

FMA_CHAINS(hb_fma_f32, float, VEC, )
FMA_CHAINS(hb_fma_f64, double, VEC, )

#if defined __x86_64__ && !defined __AVX512F__
FMA_CHAINS(hb_fma_f32_avx512, float, 64, static __attribute__((target("avx512f"))))
const hb_fma_fn hb_fma_f32_wide = hb_fma_f32_avx512;
#else
const hb_fma_fn hb_fma_f32_wide = NULL;
#endif

__attribute__((noipa)) double hb_read_sum(const void *data, size_t bytes)
{
    typedef float vec __attribute__((vector_size(VEC)));
    const vec *p = data, *end = p + bytes / VEC;
    vec s0 = { 0 }, s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    for (; p < end; p += 8) {
        s0 += p[0]; s1 += p[1]; s2 += p[2]; s3 += p[3];
        s4 += p[4]; s5 += p[5]; s6 += p[6]; s7 += p[7];
    }
    s0 += s1 + s2 + s3 + s4 + s5 + s6 + s7;
    return (double)s0[0];
}
