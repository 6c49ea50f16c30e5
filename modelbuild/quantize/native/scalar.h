/* The searches for one sub-block in their plain form: the definition that the lane versions follow.
 *
 * Used where lanes cannot go: for values outside the range in which rounding through a float addition equals the
 * integer form, and for the few decisions that are made once a super-block.
 */
#ifndef MODELBUILD_SCALAR_H
#define MODELBUILD_SCALAR_H

#include "half.h"

/* Magnitudes below this count as an empty sub-block. */
#define NEARLY_ZERO 1e-15f

/* Adding this puts the integer nearest to a float, ties to even, into the low bits of the sum. */
#define ROUNDING_MAGIC 12582912.0f

/* Round half to even for |value| <= 2^22; beyond, and for NaN, whatever the bits say, as the reference does. */
static inline int32_t round_bits(float value)
{
    return (int32_t)(bits_of(value + ROUNDING_MAGIC) & 0x7fffff) - 0x400000;
}

static inline int32_t clamp_int(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* The grid of an affine search: levels 0..top, steps+1 trials of inverse scale (first + delta*step + top) / range. */
typedef struct {
    int count; /* weights in a sub-block */
    int top;
    float first, delta;
    int steps;
    int absolute_error; /* else squared */
} affine_grid;

/* What a search found. Levels are a function of `inverse` and `low_then`, so they need not be carried. */
typedef struct {
    float scale, low;
    float inverse, low_then; /* of the trial that won; inverse 0: all levels are 0 */
} affine_fit;

affine_fit fit_affine_scalar(const affine_grid *grid, const float *x, const float *w);

/* Levels 0..top of non-negative values with weights; gives the scale. count <= 32. */
float fit_positive_scalar(int count, int top, const float *x, const float *w, uint8_t *levels);

/* Levels 0..2*half-1 (stored with half added) of signed values; gives the scale. count <= 32. */
float fit_symmetric_scalar(int count, int half, const float *x, const float *w, uint8_t *levels);

/* Levels 0..2*half-1 of signed values weighted by their squares, improved one at a time; gives the scale. */
float fit_by_turns_scalar(int count, int half, const float *x, uint8_t *levels);

#endif
