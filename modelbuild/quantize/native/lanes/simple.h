/* Types without a search: halves, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. Plain loops in natural order, which compilers
 * vectorize; what is needed once a block is computed for all blocks of the batch together, so that this too becomes
 * vectors. */
#ifndef MODELBUILD_SIMPLE_H
#define MODELBUILD_SIMPLE_H

#include "order.h"

#define BLOCKS (BATCH / 32)

INLINE vint load_bits(const float *from)
{
    vint bits;
    memcpy(&bits, from, sizeof bits);
    return bits;
}

/* Integers that fit become 16 bits wide; others may become anything. */
INLINE void put_narrow(uint8_t *out, const vint *wide)
{
#if defined __SSE2__ && WIDTH == 4 /* what compilers make of the plain form takes three times as long */
    const __m128i narrow = _mm_packs_epi32((__m128i)wide[0], (__m128i)wide[1]);
    memcpy(out, &narrow, sizeof narrow);
#else
    int32_t from[LANES];
    memcpy(from, wide, sizeof from);
    for (int k = 0; k < LANES; k++) put_u16(out + 2 * k, (uint16_t)from[k]);
#endif
}

/* half_of; no weight is NaN. A sign is spread over the upper bits, so that the integer is that of its 16 bits. */
static void pack_f16(const batch *b)
{
    for (int i = 0; i < BATCH; i += LANES) {
        vint half[VECTORS];
        EACH (v) {
            const vint bits = load_bits(b->weights + i + v * WIDTH), size = bits & 0x7fffffff;
            const vint normal = (size + (size >> 13 & 1) + (0xfff - 0x38000000)) >> 13;
            const vint subnormal = (vint)((vfloat)size + 0.5f) - 0x3f000000;
            const vint is_small = size < 0x38800000, is_large = size >= 0x47800000;
            const vint finite = (is_small & subnormal) | (~is_small & normal);
            half[v] = (is_large & 0x7c00) | (~is_large & finite) | (bits >> 31 & ~0x7fff);
        }
        put_narrow(b->out + 2 * i, half);
    }
}

/* bfloat_of; no weight is NaN. */
static void pack_bf16(const batch *b)
{
    for (int i = 0; i < BATCH; i += LANES) {
        vint half[VECTORS];
        EACH (v) {
            const vint bits = load_bits(b->weights + i + v * WIDTH);
            half[v] = (vint)((vuint)bits + 0x7fff + (vuint)(bits >> 16 & 1)) >> 16;
        }
        put_narrow(b->out + 2 * i, half);
    }
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
    for (int i = 0; i < 32; i += WIDTH) {
        vint part;
        memcpy(&part, levels + i, sizeof part);
        bits |= mask_bits((part & 16) != 0) << i;
    }
    put_u16(out, (uint16_t)bits);
    put_u16(out + 2, (uint16_t)(bits >> 16));
}

/* Smallest and largest weight of all blocks of a batch. */
INLINE void find_block_ranges(const batch *b, float *low, float *high)
{
    for (int n = 0; n < BLOCKS; n += LANES) {
        vfloat least[VECTORS], most[VECTORS];
        find_ranges(b->weights + n * 32, 32, least, most);
        store_lanes(low + n, least);
        store_lanes(high + n, most);
    }
}

/* Q4_0 (half 8) and Q5_0 (half 16): the extreme value gets level 0. */
INLINE void pack_by_extreme(const batch *b, int half)
{
    float d[BLOCKS], low[BLOCKS], high[BLOCKS];
    block_scales scales;
    int is_open = 0;
    find_block_ranges(b, low, high);
    for (int n = 0; n < BLOCKS; n++) {
        d[n] = high[n] > -low[n] ? high[n] : low[n];
        is_open |= high[n] == -low[n];
    }
    for (int n = 0; is_open && n < BLOCKS; n++) {
        if (high[n] == -low[n]) d[n] = extreme_by_comparison(b->weights + n * 32, 32);
    }
    for (int n = 0; n < BLOCKS; n++) d[n] /= -(float)half;
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
    float d[BLOCKS], low[BLOCKS], high[BLOCKS];
    block_scales scales;
    find_block_ranges(b, low, high);
    for (int n = 0; n < BLOCKS; n++) {
        d[n] = (high[n] - low[n]) / (float)top;
        if (low[n] == 0) low[n] = first_equal(b->weights + n * 32, 0, 0);
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
