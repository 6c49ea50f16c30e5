/* 16-bit floats as integers: the same bits on every machine, and loops that compilers vectorize. */
#ifndef MODELBUILD_HALF_H
#define MODELBUILD_HALF_H

#include <stdint.h>
#include <string.h>

/* Elsewhere the flag -ffp-contract=off says it: a fused multiply-add rounds once where the definition rounds twice. */
#if defined __clang__
#pragma STDC FP_CONTRACT OFF
#endif

static inline uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Rounds to nearest even; keeps subnormals; too large gives infinity, NaN gives the quiet NaN of its sign. */
static inline uint16_t half_of(float value)
{
    const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    const uint32_t normal = (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13;
    /* One unit in the last place of 0.5 is the smallest half: adding 0.5 lets the processor round subnormals. */
    const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000;
    const uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
    const uint32_t finite = magnitude < 0x38800000 ? subnormal : normal;
    return (uint16_t)(sign | (magnitude < 0x47800000 ? finite : special));
}

static inline float float_of_half(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = half & 0x7fff;
    const uint32_t normal = (magnitude << 13) + 0x38000000;
    const uint32_t special = (magnitude << 13) + 0x70000000;
    /* A subnormal is a whole number of 2^-24: place it below the leading bit of 0.5, then take 0.5 away. */
    const uint32_t subnormal = bits_of(float_of(magnitude + 0x3f000000) - 0.5f);
    const uint32_t finite = magnitude < 0x0400 ? subnormal : normal;
    return float_of(sign | (magnitude < 0x7c00 ? finite : special));
}

static inline uint16_t bfloat_of(float value)
{
    const uint32_t bits = bits_of(value);
    const uint32_t quiet = bits >> 16 | 64, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

/* All 16-bit fields of a block are little endian and need not be aligned. */
static inline void put_u16(uint8_t *at, uint16_t value)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = (uint16_t)(value << 8 | value >> 8);
#endif
    memcpy(at, &value, sizeof value);
}

static inline void put_half(uint8_t *at, float value) { put_u16(at, half_of(value)); }

/* Stores the half and gives back the value a reader will see. */
static inline float put_rounded(uint8_t *at, float value)
{
    const uint16_t half = half_of(value);
    put_u16(at, half);
    return float_of_half(half);
}

#endif
