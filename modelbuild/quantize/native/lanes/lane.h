/* Lanes: one sub-block in each, all doing the same operation at the same time.
 *
 * A lane performs exactly the operations of the scalar definition, in its order, so its result is the scalar result.
 * That is why every `if` becomes a choice, and why nothing is ever summed across lanes. The vectors are the compiler's
 * generic ones (GCC, Clang: any processor); only what these lack, min, max, rounding and the square root, is named
 * per instruction set: written as comparisons they cost four times as much, and they are the heart of every search.
 */
#ifndef MODELBUILD_LANE_H
#define MODELBUILD_LANE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../half.h"
#include "../scalar.h"

#if defined __SSE2__
#include <immintrin.h>
#endif

#if defined __AVX512F__
#define WIDTH 16
#elif defined __AVX2__
#define WIDTH 8
#else
#define WIDTH 4
#endif

/* Vectors in a group. With one, each running sum waits for itself; with four, the registers no longer hold them. */
#define VECTORS 2
#define LANES   (WIDTH * VECTORS)
#define EACH(v) for (int v = 0; v < VECTORS; v++)

/* Bytes between the columns that a loop reads and those that it writes. Processors compare the low twelve bits of
 * addresses to find out whether a load depends on a store before it: with columns that lie a multiple of 4096 bytes
 * apart, every load waits for the store of the same row, and the loop takes three times as long. With this distance a
 * store resembles only what was read two rows before or will be read much later. */
#define STORE_GAP (4096 - 256)

/* Before a loop with a minimum or maximum: Clang would rather unroll it into branches. */
#if defined __clang__
#define AS_VECTORS _Pragma("clang loop vectorize(enable) unroll(disable)")
#else
#define AS_VECTORS
#endif

/* Before a loop over the weights of a sub-block: counting would be a fifth of its instructions. */
#if defined __clang__
#define UNROLLED _Pragma("clang loop unroll_count(4)")
#else
#define UNROLLED _Pragma("GCC unroll 4")
#endif

/* Searches are written once for all shapes; the compiler has to specialize them for each. */
#define INLINE static inline __attribute__((always_inline))

typedef float vfloat __attribute__((vector_size(4 * WIDTH)));
typedef int32_t vint __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t vuint __attribute__((vector_size(4 * WIDTH)));

INLINE vfloat all(float value) { return value - (vfloat){0}; } /* subtraction keeps -0 */

/* mask is all ones or all zeros in each lane. */
INLINE vfloat choose(vint mask, vfloat yes, vfloat no) { return (vfloat)((mask & (vint)yes) | (~mask & (vint)no)); }

INLINE vfloat magnitude(vfloat a) { return (vfloat)((vint)a & 0x7fffffff); }

/* a < b ? a : b and a > b ? a : b; also for NaN and zeros of different sign. */
#if defined __AVX512F__
INLINE vfloat lesser(vfloat a, vfloat b) { return (vfloat)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vfloat greater(vfloat a, vfloat b) { return (vfloat)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vfloat root(vfloat a) { return (vfloat)_mm512_sqrt_ps((__m512)a); }
#elif defined __AVX2__
INLINE vfloat lesser(vfloat a, vfloat b) { return (vfloat)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vfloat greater(vfloat a, vfloat b) { return (vfloat)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vfloat root(vfloat a) { return (vfloat)_mm256_sqrt_ps((__m256)a); }
#elif defined __SSE2__
INLINE vfloat lesser(vfloat a, vfloat b) { return (vfloat)_mm_min_ps((__m128)a, (__m128)b); }
INLINE vfloat greater(vfloat a, vfloat b) { return (vfloat)_mm_max_ps((__m128)a, (__m128)b); }
INLINE vfloat root(vfloat a) { return (vfloat)_mm_sqrt_ps((__m128)a); }
#else
INLINE vfloat lesser(vfloat a, vfloat b) { return choose(a < b, a, b); }
INLINE vfloat greater(vfloat a, vfloat b) { return choose(a > b, a, b); }
INLINE vfloat root(vfloat a)
{
    for (int k = 0; k < WIDTH; k++) a[k] = sqrtf(a[k]);
    return a;
}
#endif

/* Round half to even for |a| <= 2^22; the same as round_bits there. */
#if defined __AVX512F__
INLINE vfloat rounded(vfloat a) { return (vfloat)_mm512_roundscale_ps((__m512)a, 8); }
#elif defined __AVX2__
INLINE vfloat rounded(vfloat a) { return (vfloat)_mm256_round_ps((__m256)a, 8); }
#else
INLINE vfloat rounded(vfloat a) { return (a + ROUNDING_MAGIC) - ROUNDING_MAGIC; }
#endif

/* Levels are cut before they are rounded: low and high are whole, so both orders agree. */
INLINE vfloat level_between(vfloat a, float low, float high)
{
    return rounded(lesser(greater(a, all(low)), all(high)));
}

/* A bit for each lane of a vector whose mask is set. */
INLINE uint32_t mask_bits(vint mask)
{
#if defined __AVX512F__
    return (uint32_t)_mm512_movepi32_mask((__m512i)mask);
#elif defined __AVX2__
    return (uint32_t)_mm256_movemask_ps((__m256)mask);
#elif defined __SSE2__
    return (uint32_t)_mm_movemask_ps((__m128)mask);
#else
    uint32_t bits = 0;
    for (int k = 0; k < WIDTH; k++) bits |= (uint32_t)(mask[k] & 1) << k;
    return bits;
#endif
}

/* The same for a group. */
INLINE uint32_t lane_bits(const vint *mask)
{
    uint32_t bits = 0;
    EACH (v) bits |= mask_bits(mask[v]) << (v * WIDTH);
    return bits;
}

#if defined __SSE2__

/* In each quarter of 128 bits: the lower or upper halves of a and b, interleaved by one or by two floats. */
#if defined __AVX512F__
#define PART(name, a, b)  ((vfloat)_mm512_##name##_ps((__m512)(a), (__m512)(b)))
#define PAIRS(name, a, b) ((vfloat)_mm512_##name##_pd((__m512d)(a), (__m512d)(b)))
#elif defined __AVX2__
#define PART(name, a, b)  ((vfloat)_mm256_##name##_ps((__m256)(a), (__m256)(b)))
#define PAIRS(name, a, b) ((vfloat)_mm256_##name##_pd((__m256d)(a), (__m256d)(b)))
#else
#define PART(name, a, b)  ((vfloat)_mm_##name##_ps((__m128)(a), (__m128)(b)))
#define PAIRS(name, a, b) ((vfloat)_mm_##name##_pd((__m128d)(a), (__m128d)(b)))
#endif

/* Four consecutive floats of as many rows as fit, each in a quarter of its own. */
INLINE vfloat load_quads(const float *a, const float *b, const float *c, const float *d)
{
#if defined __AVX512F__
    const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(a)), _mm_loadu_ps(b), 1);
    const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(c)), _mm_loadu_ps(d), 1);
    return (vfloat)_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
#elif defined __AVX2__
    (void)c, (void)d;
    return (vfloat)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(a)), _mm_loadu_ps(b), 1);
#else
    (void)b, (void)c, (void)d;
    return (vfloat)_mm_loadu_ps(a);
#endif
}

/* Sub-blocks of count weights become columns, lane k that which begins at from + count * places[k]; NULL: the k-th.
 * count is a multiple of four. */
INLINE void load_columns_at(const float *from, const int *places, int count, vfloat (*columns)[VECTORS])
{
    EACH (v) {
        const float *row[16];
        for (int k = 0; k < WIDTH; k++) row[k] = from + count * (places ? places[v * WIDTH + k] : v * WIDTH + k);
        for (int k = WIDTH; k < 16; k++) row[k] = from;
        for (int i = 0; i < count; i += 4) {
            const vfloat a = load_quads(row[0] + i, row[4] + i, row[8] + i, row[12] + i);
            const vfloat b = load_quads(row[1] + i, row[5] + i, row[9] + i, row[13] + i);
            const vfloat c = load_quads(row[2] + i, row[6] + i, row[10] + i, row[14] + i);
            const vfloat d = load_quads(row[3] + i, row[7] + i, row[11] + i, row[15] + i);
            const vfloat ab_low = PART(unpacklo, a, b), ab_high = PART(unpackhi, a, b);
            const vfloat cd_low = PART(unpacklo, c, d), cd_high = PART(unpackhi, c, d);
            columns[i][v] = PAIRS(unpacklo, ab_low, cd_low);
            columns[i + 1][v] = PAIRS(unpackhi, ab_low, cd_low);
            columns[i + 2][v] = PAIRS(unpacklo, ab_high, cd_high);
            columns[i + 3][v] = PAIRS(unpackhi, ab_high, cd_high);
        }
    }
}

#else

INLINE void load_columns_at(const float *from, const int *places, int count, vfloat (*columns)[VECTORS])
{
    for (int k = 0; k < LANES; k++) {
        const float *const row = from + count * (places ? places[k] : k);
        for (int i = 0; i < count; i++) columns[i][k / WIDTH][k % WIDTH] = row[i];
    }
}

#endif

/* LANES sub-blocks of count weights, one after the other, become columns. */
INLINE void load_columns(const float *from, int count, vfloat (*columns)[VECTORS])
{
    load_columns_at(from, 0, count, columns);
}

/* Fetches weights that are two batches ahead. A batch is a page of memory, at whose end the processor stops to fetch
 * ahead by itself. */
INLINE void prefetch(const float *weights, int count)
{
    for (int i = 0; i < count; i += 16) __builtin_prefetch(weights + i);
}

INLINE void load_lanes(const float *from, vfloat *lanes) { memcpy(lanes, from, LANES * sizeof *from); }

INLINE void store_lanes(float *to, const vfloat *lanes) { memcpy(to, lanes, LANES * sizeof *to); }

#endif
