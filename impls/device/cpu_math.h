// cpu_math.h: exp, sin and cos without branches, so that the compiler turns a loop over them into
// SIMD. libm's own are calls, which stop vectorisation; these are Taylor polynomials after range
// reduction.
#ifndef HB_CPU_MATH_H
#define HB_CPU_MATH_H

#include <math.h>
#include <stdint.h>

// exp(x), relative error about 1e-7 for |x| <= 87; beyond that the value at the end. NaN stays NaN.
static inline float cpu_expf(float x)
{
    x = x > 88.0f ? 88.0f : x;  // comparisons that are false for NaN let it through
    x = x < -87.0f ? -87.0f : x;
    // Adding 1.5 * 2^23 leaves round(x / ln 2) in the low bits of the mantissa.
    union { float f; uint32_t u; } k = { .f = x * 1.44269504f + 12582912.0f };
    float n = k.f - 12582912.0f;
    float r = (x - n * 0.693145752f) - n * 1.42860682e-6f;  // ln 2 in two parts: n * first is exact
    float p = 1.0f + r * (1.0f + r * (1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120
            + r * (1.0f / 720 + r * (1.0f / 5040)))))));        // r^8/8! < 6e-9 for |r| <= ln 2 / 2
    union { uint32_t u; float f; } two_n = { .u = (k.u << 23) + 0x3f800000u };
    return p * two_n.f;
}

// GELU, tanh form: 0.5 x (1 + tanh v) = x / (1 + exp(-2v)), v = sqrt(2/pi) (x + 0.044715 x^3): one
// exponential, and no cancellation for negative x.
#define CPU_TWO_ROOT_2_PI 1.595769122f
#define CPU_GELU_CUBE 0.044715f
static inline float cpu_gelu(float t)
{
    return t / (1.0f + cpu_expf(-CPU_TWO_ROOT_2_PI * (t + CPU_GELU_CUBE * t * t * t)));
}

// Its derivative.
static inline float cpu_gelu_slope(float t)
{
    float e = cpu_expf(-CPU_TWO_ROOT_2_PI * (t + CPU_GELU_CUBE * t * t * t));
    float sg = 1.0f / (1.0f + e);                // 1 - sg = e sg, without cancellation
    return sg + t * sg * (e * sg) * CPU_TWO_ROOT_2_PI * (1.0f + 3.0f * CPU_GELU_CUBE * t * t);
}

// sin(x) for shift = 0, cos(x) for shift = 0.5; |x| < CPU_TRIG_MAX; absolute error about 2e-16 (1 +
// |x| eps). With n = round(x/pi + shift), r = x - (n - shift) pi lies in [-pi/2, pi/2] and the
// result is (-1)^n sin r.
#define CPU_TRIG_MAX 1e8  // n - shift times the first 25 bits of pi must be exact
static inline double cpu_trig(double x, double shift)
{
    double n = rint(x * 0x1.45f306dc9c883p-2 + shift), k = n - shift;
    double r = x - k * 0x1.921fb5p+1 - k * 0x1.110b46p-25
               - k * 0x1.1a62633145c07p-53;  // pi in three parts
    double sign = 1.0 - 2.0 * (n - 2.0 * floor(0.5 * n));
    double q = r * r;                             // coefficients +-1/3! ... 1/21!; r^23/23! < 2e-18
    double t = 1.0 / 355687428096000.0
             + q * (-1.0 / 121645100408832000.0 + q * (1.0 / 51090942171709440000.0));
    t = 1.0 / 6227020800.0 + q * (-1.0 / 1307674368000.0 + q * t);
    t = 1.0 / 362880 + q * (-1.0 / 39916800 + q * t);
    t = 1.0 / 120 + q * (-1.0 / 5040 + q * t);
    t = -1.0 / 6 + q * t;
    return sign * (r + r * q * t);
}

#endif
