/* The symmetric search (value = scale * level, levels -half..half-1) for LANES sub-blocks at once. */
#ifndef MODELBUILD_SYMMETRIC_H
#define MODELBUILD_SYMMETRIC_H

#include "order.h"

/* What is known of the sub-blocks of a batch after the search. */
typedef struct {
    float scale[BATCH / 16];
    float inverse[BATCH / 16]; /* of the trial that won; 0: nearly zero weights, stored levels are 0 */
    float extreme[BATCH / 16]; /* the weight of largest magnitude */
} symmetric_table;

typedef struct {
    vfloat x[32][VECTORS];
    vfloat w[32][VECTORS];
} symmetric_columns;

/* The same as in the table, and the search so far. */
typedef struct {
    vfloat scale[VECTORS], inverse[VECTORS], extreme[VECTORS];
    vfloat best[VECTORS];
    vfloat wx[32][VECTORS];
    vfloat cut[32][VECTORS]; /* x, as bring_in has left it */
} symmetric_fit;

/* The level nearest to a, at most top - 1. Adding and subtracting is spread over more units of the processor than an
 * instruction that rounds. */
INLINE vfloat trial_level(vfloat a, float top) { return (lesser(a, all(top - 1)) + ROUNDING_MAGIC) - ROUNDING_MAGIC; }

/* Levels end at -top, the side of the extreme value, and at top - 1. Rather than the levels of each trial, weights are
 * cut, once for all trials whose spans are similar: those of which each of these trials would have to cut the level, or
 * gives the last level to, become one value to which each of them gives the last level. The share of the extreme value
 * at which that works lies between two bounds, for spans from least to most: times least it has to be above the limit
 * below the last level, times most below the limit beyond it. The middle is further from both than any rounding. */
INLINE float share_with_level(float level, float least, float most)
{
    return ((level - 0.5f) / least + (level + 0.5f) / most) / 2;
}

/* For trials with spans of first..last tenths more than the plain range, whose spans are above top - 1 / 2. */
INLINE void bring_in(int count, float top, int first, int last, const symmetric_columns *c, symmetric_fit *fit)
{
    const float least = top + 0.1f * (float)first, most = top + 0.1f * (float)last;
    const float near = most < top + 0.5f ? 1 : share_with_level(top, least, most);
    const float far = share_with_level(top - 1, least, most);
    EACH (v) {
        const vfloat a = fit->extreme[v] * near, b = fit->extreme[v] * -far;
        const vfloat low = lesser(a, b), high = greater(a, b);
        for (int i = 0; i < count; i++) fit->cut[i][v] = lesser(greater(c->x[i][v], low), high);
    }
}

/* One trial of an inverse scale; makes the next one, so that nothing has to wait for the division. The first trial
 * always stands, and has scale 0 where no weight counts. */
INLINE void try_inverse(int count, int is_first, float next_span, const vfloat (*x)[VECTORS],
                        const symmetric_columns *c, vfloat *next_inverse, symmetric_fit *fit)
{
    vfloat inverse[VECTORS], sum_lx[VECTORS], sum_l2[VECTORS];
    EACH (v) {
        inverse[v] = next_inverse[v];
        next_inverse[v] = next_span / fit->extreme[v];
        sum_lx[v] = sum_l2[v] = all(0);
    }
    UNROLLED
    for (int i = 0; i < count; i++) {
        EACH (v) {
            const vfloat l = (inverse[v] * x[i][v] + ROUNDING_MAGIC) - ROUNDING_MAGIC;
            sum_lx[v] += fit->wx[i][v] * l;
            sum_l2[v] += (c->w[i][v] * l) * l;
        }
    }
    EACH (v) {
        const vfloat fitted = sum_lx[v] / sum_l2[v];
        if (is_first) {
            fit->scale[v] = choose(sum_l2[v] != 0, fitted, all(0));
            fit->best[v] = fit->scale[v] * sum_lx[v];
            fit->inverse[v] = inverse[v];
        } else {
            const vint wins = (sum_l2[v] > 0) & (sum_lx[v] * sum_lx[v] > fit->best[v] * sum_l2[v]);
            fit->scale[v] = choose(wins, fitted, fit->scale[v]);
            fit->best[v] = choose(wins, fitted * sum_lx[v], fit->best[v]);
            fit->inverse[v] = choose(wins, inverse[v], fit->inverse[v]);
        }
    }
}

/* Trials with spans of first..last tenths of a level more than the plain range. */
INLINE void try_spans(int count, float top, int first, int last, const vfloat (*x)[VECTORS],
                      const symmetric_columns *c, vfloat *next_inverse, symmetric_fit *fit)
{
    for (int tenths = first; tenths <= last; tenths++) {
        const int next = tenths == 0 ? -9 : tenths == -1 ? 1 : tenths + 1;
        try_inverse(count, first == 0, -(top + 0.1f * (float)next), x, c, next_inverse, fit);
    }
}

/* fit_symmetric_scalar, lane by lane. |inverse * x| <= half + 1 by construction, so rounding is always exact. */
INLINE void fit_symmetric(int count, int half, const symmetric_columns *c, symmetric_fit *fit)
{
    const float top = (float)half;
    vfloat inverse[VECTORS];
    find_extreme(count, c->x, fit->extreme);
    EACH (v) inverse[v] = -top / fit->extreme[v];
    for (int i = 0; i < count; i++)
        EACH (v) fit->wx[i][v] = c->w[i][v] * c->x[i][v];

    bring_in(count, top, -5, 4, c, fit);
    try_spans(count, top, 0, 0, fit->cut, c, inverse, fit);
    try_spans(count, top, -9, -6, c->x, c, inverse, fit); /* these spans do not reach the limits */
    try_spans(count, top, -5, -1, fit->cut, c, inverse, fit);
    try_spans(count, top, 1, 4, fit->cut, c, inverse, fit);
    bring_in(count, top, 5, 9, c, fit);
    try_spans(count, top, 5, 9, fit->cut, c, inverse, fit);
    EACH (v) {
        const vint empty = magnitude(fit->extreme[v]) < NEARLY_ZERO;
        fit->scale[v] = choose(empty, all(0), fit->scale[v]);
        fit->inverse[v] = choose(empty, all(0), fit->inverse[v]);
    }
}

INLINE void store_fit(const symmetric_fit *fit, int at, symmetric_table *table)
{
    store_lanes(table->scale + at, fit->scale);
    store_lanes(table->inverse + at, fit->inverse);
    store_lanes(table->extreme + at, fit->extreme);
}

/* Vectors that sixteen values in natural order fill. */
#define PARTS (16 / WIDTH)

INLINE vfloat load_part(const float *from, int part)
{
    vfloat a;
    memcpy(&a, from + part * WIDTH, sizeof a);
    return a;
}

/* Levels -top..top-1 of the scales of sixteen sub-blocks; 0 when a product is out of the range that rounds exactly. */
INLINE int scale_levels(const float *scales, float inverse, float top, float *levels)
{
    uint32_t outside = 0;
    for (int p = 0; p < PARTS; p++) {
        const vfloat a = load_part(scales, p) * inverse, l = trial_level(a, top);
        outside |= mask_bits(~(magnitude(a) < top + 0.5f));
        memcpy(levels + p * WIDTH, &l, sizeof l);
    }
    return outside == 0;
}

/* Levels of 256 weights with half added, under the scales of their sub-blocks of 16 that a reader will see. A scale
 * that rounded to zero cannot tell: then the levels of the search stand. */
static __attribute__((noinline)) void any_symmetric_levels(const float *x, int half, const float *scale,
                                                           const float *inverse, uint8_t *levels)
{
    for (int j = 0; j < 16; j++) {
        const int is_empty = scale[j] == 0 && inverse[j] == 0;
        for (int i = j * 16; i < (j + 1) * 16; i++) {
            const float level = scale[j] != 0 ? x[i] / scale[j] : inverse[j] * x[i];
            levels[i] = (uint8_t)(is_empty ? 0 : clamp_int(round_bits(level) + half, 0, 2 * half - 1));
        }
    }
}

INLINE vfloat cut_level(vfloat a, float half) { return lesser(greater(a, all(-half)), all(half - 1)); }

/* The lowest bits of what is made are the levels with half added. */
static __attribute__((noinline)) void levels_by_quotient(const float *x, int half, const float *scale, uint32_t *wide)
{
    const float middle = ROUNDING_MAGIC + (float)half;
    for (int j = 0; j < 16; j++) {
        for (int p = 0; p < PARTS; p++) {
            const vfloat sum = cut_level(load_part(x + j * 16, p) / scale[j], (float)half) + middle;
            memcpy(wide + j * 16 + p * WIDTH, &sum, sizeof sum);
        }
    }
}

/* The same. A product with the inverse is less than two units in the last place off the quotient, which matters only
 * next to the middle between two levels: gives 0 if there is such a one. */
INLINE int levels_by_product(const float *x, int half, const float *scale, uint32_t *wide)
{
    const float middle = ROUNDING_MAGIC + (float)half;
    float inverse[16];
    vfloat furthest = all(0);
    for (int p = 0; p < PARTS; p++) {
        const vfloat part = 1 / load_part(scale, p);
        memcpy(inverse + p * WIDTH, &part, sizeof part);
    }
    for (int j = 0; j < 16; j++) {
        for (int p = 0; p < PARTS; p++) {
            const vfloat level = cut_level(load_part(x + j * 16, p) * inverse[j], (float)half), sum = level + middle;
            furthest = greater(magnitude((sum - middle) - level), furthest);
            memcpy(wide + j * 16 + p * WIDTH, &sum, sizeof sum);
        }
    }
    return mask_bits(~(furthest < 0.5f - (float)half * 4e-7f)) == 0;
}

/* The same, fast where no scale is zero or far too small for its weights; gives 0 where one is. extreme: as in the
 * table. The scales are read from memory, one for each vector, which is why this is not inlined into the loops that
 * make them. */
static __attribute__((noinline)) int symmetric_levels(const float *x, int half, const float *scale,
                                                      const float *inverse, const float *extreme, uint8_t *levels)
{
    uint32_t wide[256], ordinary = ~(uint32_t)0;
    for (int p = 0; p < PARTS; p++) {
        const vfloat size = magnitude(load_part(scale, p)), largest = magnitude(load_part(extreme, p));
        ordinary &= mask_bits((size * 4e6f >= largest) & (size > 0) & (size <= FLT_MAX)) | ~(uint32_t)0 << WIDTH;
    }
    if (~ordinary != 0) {
        any_symmetric_levels(x, half, scale, inverse, levels);
        return 0;
    }
    /* Processors divide sixteen floats half as fast as twice eight, and multiply them as fast as eight. */
    if (WIDTH < 16 || !levels_by_product(x, half, scale, wide)) levels_by_quotient(x, half, scale, wide);
    for (int i = 0; i < 256; i++) levels[i] = (uint8_t)wide[i];
    return 1;
}

#endif
