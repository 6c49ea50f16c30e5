/* Smallest, largest and outermost of a few values: in natural order, as integers so that compilers vectorize it, and in
 * lanes. */
#ifndef MODELBUILD_ORDER_H
#define MODELBUILD_ORDER_H

#include "lane.h"

/* Largest magnitude: the order of the bits is the order of the floats; NaN counts as larger than all. */
INLINE float largest_magnitude(const float *x, int count)
{
    int32_t largest = 0;
    for (int i = 0; i < count; i++) {
        const int32_t bits = (int32_t)(bits_of(x[i]) & 0x7fffffff);
        largest = bits > largest ? bits : largest;
    }
    return float_of((uint32_t)largest);
}

/* Integers in the order of the floats, and back; -0 comes just before +0. */
INLINE int32_t ordered(float value)
{
    const int32_t bits = (int32_t)bits_of(value);
    return bits ^ (bits >> 31 & 0x7fffffff);
}

INLINE float unordered(int32_t key) { return float_of((uint32_t)(key ^ (key >> 31 & 0x7fffffff))); }

typedef struct {
    float low, high;
} value_range;

/* Smallest and largest value; of two zeros the negative one is smaller. */
INLINE value_range range_of(const float *x, int count)
{
    int32_t low = INT32_MAX, high = INT32_MIN;
    AS_VECTORS
    for (int i = 0; i < count; i++) {
        const int32_t key = ordered(x[i]);
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    return (value_range){unordered(low), unordered(high)};
}

static __attribute__((noinline)) float first_equal(const float *x, float value, float other)
{
    int i = 0;
    while (x[i] != value && x[i] != other) i++;
    return x[i];
}

/* The plain form: a NaN is never larger. */
static __attribute__((noinline)) float extreme_by_comparison(const float *x, int count)
{
    float largest = 0, value = 0;
    for (int i = 0; i < count; i++) {
        if (fabsf(x[i]) > largest) {
            largest = fabsf(x[i]);
            value = x[i];
        }
    }
    return value;
}

/* The first value of largest magnitude, with its sign; +0 for zeros. */
INLINE float extreme_of(const float *x, int count)
{
    const value_range range = range_of(x, count);
    /* Equal magnitudes of both signs, and NaN, which is at one end of the order. */
    if (!(range.high > -range.low) && !(range.high < -range.low)) return extreme_by_comparison(x, count);
    return range.high > -range.low ? range.high : range.low;
}

/* Smallest and largest of each of LANES runs of count values, one after the other; which zero stands for several of
 * different sign is open. First as many of a run as fit into a vector side by side, then these of all runs. */
INLINE void find_ranges(const float *x, int count, vfloat *low, vfloat *high)
{
    float lows[LANES * WIDTH], highs[LANES * WIDTH];
    vfloat columns[WIDTH][VECTORS];
    for (int k = 0; k < LANES; k++) {
        vfloat a, least, most;
        memcpy(&least, x + k * count, sizeof least);
        most = least;
        for (int i = WIDTH; i < count; i += WIDTH) {
            memcpy(&a, x + k * count + i, sizeof a);
            least = lesser(a, least);
            most = greater(a, most);
        }
        memcpy(lows + k * WIDTH, &least, sizeof least);
        memcpy(highs + k * WIDTH, &most, sizeof most);
    }
    load_columns(lows, WIDTH, columns);
    EACH (v) low[v] = columns[0][v];
    for (int i = 1; i < WIDTH; i++)
        EACH (v) low[v] = lesser(columns[i][v], low[v]);
    load_columns(highs, WIDTH, columns);
    EACH (v) high[v] = columns[0][v];
    for (int i = 1; i < WIDTH; i++)
        EACH (v) high[v] = greater(columns[i][v], high[v]);
}

/* As extreme_of, for the columns of each lane. */
INLINE void find_extreme(int count, const vfloat (*x)[VECTORS], vfloat *extreme)
{
    vfloat low[VECTORS], high[VECTORS], odd_low[VECTORS], odd_high[VECTORS];
    vint both[VECTORS];
    EACH (v) low[v] = high[v] = odd_low[v] = odd_high[v] = all(0);
    /* Even and odd ones apart, because each minimum waits for the one before. count is even. */
    UNROLLED
    for (int i = 0; i < count; i += 2) {
        EACH (v) {
            low[v] = lesser(x[i][v], low[v]);
            high[v] = greater(x[i][v], high[v]);
            odd_low[v] = lesser(x[i + 1][v], odd_low[v]);
            odd_high[v] = greater(x[i + 1][v], odd_high[v]);
        }
    }
    EACH (v) {
        low[v] = lesser(odd_low[v], low[v]);
        high[v] = greater(odd_high[v], high[v]);
    }
    EACH (v) {
        extreme[v] = choose(high[v] > -low[v], high[v], low[v]);
        both[v] = (high[v] == -low[v]) & (high[v] > 0);
    }
    if (lane_bits(both) == 0) return;
    /* Equal magnitudes of both signs: the first of them, looked for from behind. */
    for (int i = count - 1; i >= 0; i--) {
        EACH (v) {
            const vint is_extreme = both[v] & (magnitude(x[i][v]) == high[v]);
            extreme[v] = choose(is_extreme, x[i][v], extreme[v]);
        }
    }
}

#endif
