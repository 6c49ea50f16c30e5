/* Types of one to two bits without a search: TQ1_0, TQ2_0, Q2_0 (-1, 0, 1 times the largest magnitude) and Q1_0 (the
 * sign times the mean magnitude). */

#include "bits.h"
#include "simple.h"

/* Levels 0..2 of -1, 0, 1; gives the scale. Where it has no finite inverse, no level is defined: the low bits of what
 * the processor makes of infinity are taken as they are (at_least INT32_MIN) or cut (at_least 0). */
INLINE float ternary_levels(const float *x, int count, int32_t at_least, uint8_t *restrict levels)
{
    const float d = largest_magnitude(x, count), inverse = d != 0 ? 1 / d : 0;
    for (int i = 0; i < count; i++) {
        const int32_t level = rounded_away(x[i] * inverse) + 1;
        levels[i] = (uint8_t)(level > at_least ? level : at_least);
    }
    return d;
}

static void pack_tq2_0(const batch *b)
{
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *const out = b->out + s * 66, levels[256];
        const float d = ternary_levels(b->weights + s * 256, 256, INT32_MIN, levels);
        put_2_bit_planes(out, levels);
        put_half(out + 64, d);
    }
}

/* Five digits of base 3 as a fraction of 256, rounded up, so that a reader gets them back by multiplying. */
INLINE uint8_t base_3_fraction(unsigned digits) { return (uint8_t)((digits * 256 + 242) / 243); }

/* bytes bytes of five digits each, the digits of one byte bytes weights apart. */
INLINE void put_digits(uint8_t *restrict out, int bytes, const uint8_t *levels)
{
    for (int i = 0; i < bytes; i++) {
        unsigned digits = 0;
        for (int k = 0; k < 5; k++) digits = digits * 3 + levels[i + k * bytes];
        out[i] = base_3_fraction(digits);
    }
}

static void pack_tq1_0(const batch *b)
{
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *const out = b->out + s * 54, levels[256];
        const float d = ternary_levels(b->weights + s * 256, 256, INT32_MIN, levels);
        put_digits(out, 32, levels);
        put_digits(out + 32, 16, levels + 160);
        for (int i = 0; i < 4; i++) {
            const uint8_t *const l = levels + 240 + i;
            out[48 + i] = base_3_fraction((((l[0] * 3u + l[4]) * 3 + l[8]) * 3 + l[12]) * 3);
        }
        put_half(out + 52, d);
    }
}

static void pack_q2_0(const batch *b)
{
    for (int n = 0; n < BATCH / 64; n++) {
        uint8_t *const out = b->out + n * 18, levels[64];
        const float d = ternary_levels(b->weights + n * 64, 64, 0, levels);
        put_half(out, d);
        for (int i = 0; i < 16; i++) {
            const uint8_t *const l = levels + 4 * i;
            out[2 + i] = (uint8_t)(l[0] | l[1] << 2 | l[2] << 4 | l[3] << 6);
        }
    }
}

static void pack_q1_0(const batch *b)
{
    /* Side by side, because each sum waits for itself. */
    float sums[BATCH / 128] = {0};
    for (int i = 0; i < 128; i++) {
        for (int n = 0; n < BATCH / 128; n++) sums[n] += fabsf(b->weights[n * 128 + i]);
    }
    for (int n = 0; n < BATCH / 128; n++) {
        const float *const x = b->weights + n * 128;
        uint8_t *const out = b->out + n * 18;
        put_half(out, sums[n] / 128);
        for (int i = 0; i < 16; i++) {
            uint8_t bits = 0;
            for (int k = 0; k < 8; k++) bits |= (uint8_t)((x[8 * i + k] >= 0) << k);
            out[2 + i] = bits;
        }
    }
}
