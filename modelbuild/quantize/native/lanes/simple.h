/* Types without a search: halves, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. Plain loops in natural order, which compilers
 * vectorize; what is needed once a block is computed for all blocks of the batch together, so that this too becomes
 * vectors. */
#ifndef MODELBUILD_SIMPLE_H
#define MODELBUILD_SIMPLE_H

#include "order.h"

#define BLOCKS (BATCH / 32)

static void pack_f16(const batch *b)
{
    const float *const x = b->weights;
    uint8_t *restrict const out = b->out;
    for (int i = 0; i < BATCH; i++) put_u16(out + 2 * i, half_of(x[i]));
}

static void pack_bf16(const batch *b)
{
    const float *const x = b->weights;
    uint8_t *restrict const out = b->out;
    for (int i = 0; i < BATCH; i++) put_u16(out + 2 * i, bfloat_of(x[i]));
}

/* Float to integer as an x86 processor does it, on every processor: too large gives the most negative integer. */
INLINE int32_t truncated(float value)
{
#if defined __SSE2__
    return (int32_t)value;
#else
    return value >= -2147483648.0f && value < 2147483648.0f ? (int32_t)value : INT32_MIN;
#endif
}

/* Half away from zero, for |value| < 2^22. 0.49999997 is the largest float below one half: with 0.5 itself the sum
 * would round up for the largest value below a half. */
INLINE int32_t rounded_away(float value)
{
    const uint32_t half = 0x3effffff | (bits_of(value) & 0x80000000);
    return truncated(value + float_of(half));
}

/* Scales of the blocks of a batch: as halves for the file, inverted (0 for 0, so that such a block gets levels 0). */
typedef struct {
    float inverse[BLOCKS];
    uint16_t half[BLOCKS];
} block_scales;

INLINE void set_scales(block_scales *scales, const float *d)
{
    for (int n = 0; n < BLOCKS; n++) {
        scales->inverse[n] = d[n] != 0 ? 1 / d[n] : 0;
        scales->half[n] = half_of(d[n]);
    }
}

static void pack_q8_0(const batch *b)
{
    float d[BLOCKS];
    block_scales scales;
    for (int n = 0; n < BLOCKS; n++) d[n] = largest_magnitude(b->weights + n * 32, 32) / 127;
    set_scales(&scales, d);
    for (int n = 0; n < BLOCKS; n++) {
        const float *const x = b->weights + n * 32, inverse = scales.inverse[n];
        uint8_t *restrict const out = b->out + n * 34;
        put_u16(out, scales.half[n]);
        for (int i = 0; i < 32; i++) out[2 + i] = (uint8_t)rounded_away(x[i] * inverse);
    }
}

/* A nibble a level: element i low, element i + 16 high. */
INLINE void put_nibbles(uint8_t *restrict out, const int32_t *levels)
{
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)((levels[i] & 15) | (levels[i + 16] & 15) << 4);
}

/* Bit i: the fifth bit of level i. */
INLINE void put_fifth_bits(uint8_t *restrict out, const int32_t *levels)
{
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= (uint32_t)(levels[i] >> 4 & 1) << i;
    put_u16(out, (uint16_t)bits);
    put_u16(out + 2, (uint16_t)(bits >> 16));
}

/* Q4_0 (half 8) and Q5_0 (half 16): the extreme value gets level 0. */
INLINE void pack_by_extreme(const batch *b, int half)
{
    float d[BLOCKS];
    block_scales scales;
    for (int n = 0; n < BLOCKS; n++) d[n] = extreme_of(b->weights + n * 32, 32) / -(float)half;
    set_scales(&scales, d);
    for (int n = 0; n < BLOCKS; n++) {
        const float *const x = b->weights + n * 32, inverse = scales.inverse[n], middle = (float)half + 0.5f;
        uint8_t *const out = b->out + n * (half == 8 ? 18 : 22);
        int32_t levels[32];
        for (int i = 0; i < 32; i++) {
            const int32_t level = truncated(x[i] * inverse + middle);
            levels[i] = level < 2 * half ? level : 2 * half - 1;
        }
        put_u16(out, scales.half[n]);
        if (half == 16) put_fifth_bits(out + 2, levels);
        put_nibbles(out + (half == 8 ? 2 : 6), levels);
    }
}

static void pack_q4_0(const batch *b) { pack_by_extreme(b, 8); }
static void pack_q5_0(const batch *b) { pack_by_extreme(b, 16); }

/* Q4_1 (top 15) and Q5_1 (top 31): from the smallest to the largest value. */
INLINE void pack_by_range(const batch *b, int top)
{
    float d[BLOCKS], low[BLOCKS];
    block_scales scales;
    for (int n = 0; n < BLOCKS; n++) {
        const float *const x = b->weights + n * 32;
        const value_range range = range_of(x, 32);
        low[n] = range.low != 0 ? range.low : first_equal(x, 0, 0);
        d[n] = (range.high - range.low) / (float)top;
    }
    set_scales(&scales, d);
    for (int n = 0; n < BLOCKS; n++) {
        const float *const x = b->weights + n * 32, inverse = scales.inverse[n], origin = low[n];
        uint8_t *const out = b->out + n * (top == 15 ? 20 : 24);
        int32_t levels[32];
        for (int i = 0; i < 32; i++) {
            const int32_t level = truncated((x[i] - origin) * inverse + 0.5f);
            levels[i] = level < top ? level : top;
        }
        put_u16(out, scales.half[n]);
        put_half(out + 2, origin);
        if (top == 31) put_fifth_bits(out + 4, levels);
        put_nibbles(out + (top == 15 ? 4 : 8), levels);
    }
}

static void pack_q4_1(const batch *b) { pack_by_range(b, 15); }
static void pack_q5_1(const batch *b) { pack_by_range(b, 31); }

#endif
