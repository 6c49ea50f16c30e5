/* MXFP4 and NVFP4: 4-bit floats (sign, 0 0.5 1 1.5 2 3 4 6, stored doubled) under a scale that is itself a tiny float.
 */

#include "simple.h"

/* Above these (in units of the scale) the next larger magnitude is nearer; at the limit itself the smaller one stands,
 * because the definition takes the first of equal distances. */
static const float fp4_limits[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};

/* The definition: the first code that is nearest. */
static __attribute__((noinline)) void fp4_levels_by_scan(const float *x, int count, float scale, int32_t *levels)
{
    static const float values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    for (int i = 0; i < count; i++) {
        levels[i] = 0;
        for (int code = 1; code < 16; code++) {
            const float nearest = fabsf(values[levels[i]] * scale - x[i]);
            if (fabsf(values[code] * scale - x[i]) < nearest) levels[i] = code;
        }
    }
}

/* Codes of count weights, largest: of their magnitudes. A scale of 0 makes all codes 0; there is none for -0. */
INLINE void fp4_levels(const float *x, int count, float largest, float scale, int32_t *levels)
{
    /* Under a scale that cannot grow further, differences of such weights are not exact any more. */
    if (largest > 1e6f * scale) {
        fp4_levels_by_scan(x, count, scale, levels);
        return;
    }
    float limits[7];
    for (int j = 0; j < 7; j++) limits[j] = scale != 0 ? fp4_limits[j] * scale : INFINITY;
    for (int i = 0; i < count; i++) {
        const float size = fabsf(x[i]);
        int32_t level = 0;
        for (int j = 0; j < 7; j++) level += size > limits[j];
        levels[i] = level | (x[i] < 0 && level > 0 ? 8 : 0);
    }
}

/* floor(log2(value)) where log2 is rounded to a float: just below a power of two that is the next whole number. */
INLINE int floor_log2(float value)
{
    const uint32_t bits = bits_of(value);
    const int exponent = (int)(bits >> 23);
    const int is_close = (bits & 0x7fffff) > 0x7ff000;
    if (exponent == 0 || is_close) return (int)floorf((float)log2((double)value));
    return exponent - 127;
}

static void pack_mxfp4(const batch *b)
{
    for (int n = 0; n < BATCH / 32; n++) {
        const float *const x = b->weights + n * 32, largest = largest_magnitude(x, 32);
        uint8_t *const out = b->out + n * 17;
        const uint8_t exponent = (uint8_t)(largest > 0 ? floor_log2(largest) - 2 + 127 : 0);
        const float scale = float_of(exponent < 2 ? 0x00200000u << exponent : (exponent - 1u) << 23);
        int32_t levels[32];
        fp4_levels(x, 32, largest, scale, levels);
        out[0] = exponent;
        put_nibbles(out + 1, levels);
    }
}

/* A positive float as 4 exponent and 3 mantissa bits; the next bit alone decides about rounding up. */
INLINE uint8_t ue4m3_of(float value)
{
    if (!(value > 0)) return 0;
    value = value > 448 ? 448 : value;
    const uint32_t bits = bits_of(value);
    int exponent = (int)(bits >> 23) - 127 + 7;
    if (exponent <= 0) {
        const int mantissa = truncated(value * 512 + 0.5f);
        return (uint8_t)(mantissa > 7 ? 7 : mantissa);
    }
    if (exponent >= 15) return 0x7e;
    unsigned mantissa = (bits >> 20 & 7) + (bits >> 19 & 1);
    if (mantissa > 7) {
        mantissa = 0;
        exponent++;
    }
    return (uint8_t)(exponent >= 15 ? 0x7e : (unsigned)exponent << 3 | mantissa);
}

/* Half of what ue4m3_of stands for, because the codes are doubled. */
INLINE float half_of_ue4m3(uint8_t code)
{
    const int exponent = code >> 3, mantissa = code & 7;
    if (code == 0 || code == 0x7f) return 0;
    if (exponent == 0) return (float)mantissa * 0.0009765625f; /* 2^-10 */
    return float_of((uint32_t)(exponent - 7 - 1 + 127) << 23 | (uint32_t)mantissa << 20);
}

static void pack_nvfp4(const batch *b)
{
    for (int n = 0; n < BATCH / 64; n++) {
        uint8_t *const out = b->out + n * 36;
        for (int s = 0; s < 4; s++) {
            const float *const x = b->weights + n * 64 + s * 16;
            const float largest = largest_magnitude(x, 16);
            int32_t levels[16];
            out[s] = ue4m3_of(largest / 6);
            fp4_levels(x, 16, largest, half_of_ue4m3(out[s]), levels);
            for (int i = 0; i < 8; i++) out[4 + 8 * s + i] = (uint8_t)(levels[i] | levels[8 + i] << 4);
        }
    }
}
