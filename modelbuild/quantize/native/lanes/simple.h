/* Types without a search: one pass over each block of 32, in natural order. The compiler vectorizes these loops. */

#include "lane.h"

/* Largest magnitude as bits: for finite values the order of the integers is the order of the floats. */
INLINE uint32_t largest_magnitude(const float *x, int count)
{
    int32_t largest = 0;
    for (int i = 0; i < count; i++) {
        const int32_t bits = (int32_t)(bits_of(x[i]) & 0x7fffffff);
        largest = bits > largest ? bits : largest;
    }
    return (uint32_t)largest;
}

/* 1 / d, or 0 for 0: so that a block of zeros gets levels 0. */
INLINE float inverse_of(float d) { return d != 0 ? 1 / d : 0; }

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

static void pack_f16(const batch *b)
{
    for (int i = 0; i < BATCH; i++) put_u16(b->out + 2 * i, half_of(b->weights[i]));
}

static void pack_bf16(const batch *b)
{
    for (int i = 0; i < BATCH; i++) put_u16(b->out + 2 * i, bfloat_of(b->weights[i]));
}

static void pack_q8_0(const batch *b)
{
    for (int n = 0; n < BATCH / 32; n++) {
        const float *x = b->weights + n * 32;
        uint8_t *out = b->out + n * 34;
        const float d = float_of(largest_magnitude(x, 32)) / 127, inverse = inverse_of(d);
        put_half(out, d);
        for (int i = 0; i < 32; i++) out[2 + i] = (uint8_t)rounded_away(x[i] * inverse);
    }
}

/* The first value that has the largest magnitude, with its sign. */
INLINE float first_extreme(const float *x)
{
    const float largest = float_of(largest_magnitude(x, 32));
    int has_positive = 0, has_negative = 0;
    for (int i = 0; i < 32; i++) {
        has_positive |= x[i] == largest;
        has_negative |= x[i] == -largest;
    }
    if (has_positive && has_negative && largest > 0) {
        for (int i = 0; i < 32; i++) {
            if (fabsf(x[i]) == largest) return x[i];
        }
    }
    return has_positive ? largest : -largest;
}

/* Low nibble: element i; high nibble: element i + 16. */
INLINE void put_nibbles(uint8_t *out, const uint8_t *levels)
{
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)((levels[i] & 15) | levels[i + 16] << 4);
}

static void pack_q4_0(const batch *b)
{
    for (int n = 0; n < BATCH / 32; n++) {
        const float *x = b->weights + n * 32;
        uint8_t *out = b->out + n * 18, levels[32];
        const float d = first_extreme(x) / -8, inverse = inverse_of(d);
        put_half(out, d);
        for (int i = 0; i < 32; i++) {
            const int8_t level = (int8_t)truncated(x[i] * inverse + 8.5f);
            levels[i] = (uint8_t)(level > 15 ? 15 : level);
        }
        put_nibbles(out + 2, levels);
    }
}
