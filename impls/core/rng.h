// rng.h: one counter-based generator for everything that is random: the same (seed, stream, index)
// gives the same number on every machine, in any order, with any number of threads.
#ifndef HB_RNG_H
#define HB_RNG_H

#include <math.h>
#include <stdint.h>

// splitmix64 finaliser (Steele, Lea, Flood 2014) over a Weyl sequence: passes BigCrush as a stream.
static inline uint64_t hb_rng_u64(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + stream * 0xd1b54a32d192ed03u + i * 0x8cb92ba72f3d8dd7u
               + 0x2545f4914f6cdd1du;
    for (int round = 0; round < 2; round++) {
        x += 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        x ^= x >> 31;
    }
    return x;
}

// Uniform in [0,1), 53 bits.
static inline double hb_rng_uniform(uint64_t seed, uint64_t stream, uint64_t i)
{
    return (double)(hb_rng_u64(seed, stream, i) >> 11) * 0x1p-53;
}

// Standard normal (Box-Muller, the cosine branch; one number from two uniforms).
static inline double hb_rng_normal(uint64_t seed, uint64_t stream, uint64_t i)
{
    double a = 1.0 - hb_rng_uniform(seed, stream, 2 * i);
    double b = hb_rng_uniform(seed, stream, 2 * i + 1);
    return sqrt(-2.0 * log(a)) * cos(6.283185307179586476925 * b);
}

// Uniform integer in [0,n), n < 2^32 (bias below 2^-32).
static inline uint64_t hb_rng_below(uint64_t seed, uint64_t stream, uint64_t i, uint64_t n)
{
    return ((hb_rng_u64(seed, stream, i) >> 32) * n) >> 32;
}

#endif
