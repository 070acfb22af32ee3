// halves.h: the 16-bit types on the host: f16 (IEEE binary16) and bf16 (the upper half of a
// float32), kept as bits. Rounding is to nearest, ties to even; NaN stays NaN, what is too large
// becomes an infinity.
#ifndef HB_HALVES_H
#define HB_HALVES_H

#include <string.h>

#include "hb.h"

// _Float16 is the compiler's (gcc 12 and clang on x86-64): one instruction where the machine has
// F16C.
__extension__ typedef _Float16 hb_native_f16;

static inline float hb_f16_to_f32(uint16_t bits)
{
    hb_native_f16 h;
    memcpy(&h, &bits, sizeof h);
    return (float)h;
}

static inline uint16_t hb_f32_to_f16(float x)
{
    hb_native_f16 h = (hb_native_f16)x;
    uint16_t bits;
    memcpy(&bits, &h, sizeof bits);
    return bits;
}

static inline float hb_bf16_to_f32(uint16_t bits)
{
    uint32_t u = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline uint16_t hb_f32_to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);   // NaN: a quiet one
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

// Bytes of one element.
// x as the type `t` (f32, f16, bf16) holds it.
static inline float hb_round_to(enum hb_dtype t, float x)
{
    return t == HB_F16    ? hb_f16_to_f32(hb_f32_to_f16(x))
           : t == HB_BF16 ? hb_bf16_to_f32(hb_f32_to_bf16(x))
                          : x;
}

// n numbers between float32 and the bits of `t`. No overlap.
static inline void hb_from_f32(enum hb_dtype t, void *to, const float *from, int64_t n)
{
    uint16_t *half = (uint16_t *)to;
    if (t == HB_F32) memcpy(to, from, (size_t)n * sizeof *from);
    else if (t == HB_F16)
        for (int64_t i = 0; i < n; i++) half[i] = hb_f32_to_f16(from[i]);
    else
        for (int64_t i = 0; i < n; i++) half[i] = hb_f32_to_bf16(from[i]);
}

static inline void hb_to_f32(enum hb_dtype t, float *to, const void *from, int64_t n)
{
    const uint16_t *half = (const uint16_t *)from;
    if (t == HB_F32) memcpy(to, from, (size_t)n * sizeof *to);
    else if (t == HB_F16)
        for (int64_t i = 0; i < n; i++) to[i] = hb_f16_to_f32(half[i]);
    else
        for (int64_t i = 0; i < n; i++) to[i] = hb_bf16_to_f32(half[i]);
}

#endif
