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
#define LANES (WIDTH * VECTORS)
#define EACH(v) for (int v = 0; v < VECTORS; v++)

/* Searches are written once for all shapes; the compiler has to specialize them for each. */
#define INLINE static inline __attribute__((always_inline))

typedef float vfloat __attribute__((vector_size(4 * WIDTH)));
typedef int32_t vint __attribute__((vector_size(4 * WIDTH)));

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

INLINE int any(vint mask)
{
    int32_t found = 0;
    for (int k = 0; k < WIDTH; k++) found |= mask[k];
    return found != 0;
}

/* LANES sub-blocks of count weights, one after the other, become columns. */
INLINE void load_columns(const float *from, int count, vfloat (*columns)[VECTORS])
{
    for (int k = 0; k < LANES; k++) {
        for (int i = 0; i < count; i++) columns[i][k / WIDTH][k % WIDTH] = from[k * count + i];
    }
}

INLINE void load_lanes(const float *from, vfloat *lanes) { memcpy(lanes, from, LANES * sizeof *from); }

INLINE void store_lanes(float *to, const vfloat *lanes) { memcpy(to, lanes, LANES * sizeof *to); }

#endif
