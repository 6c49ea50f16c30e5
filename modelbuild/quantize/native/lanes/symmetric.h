/* The symmetric search (value = scale * level, levels -half..half-1) for LANES sub-blocks at once. */
#ifndef MODELBUILD_SYMMETRIC_H
#define MODELBUILD_SYMMETRIC_H

#include "order.h"

typedef struct {
    float scale[BATCH / 16];
    float inverse[BATCH / 16]; /* of the trial that won; 0: nearly zero weights, stored levels are 0 */
} symmetric_table;

typedef struct {
    vfloat x[32][VECTORS];
    vfloat w[32][VECTORS];
} symmetric_columns;

/* fit_symmetric_scalar, lane by lane. |inverse * x| <= half + 1 by construction, so rounding is always exact. */
INLINE void fit_symmetric(int count, int half, symmetric_columns *c, vfloat *scale, vfloat *inverse)
{
    const float top = (float)half;
    vfloat extreme[VECTORS], best[VECTORS], wx[32][VECTORS];
    vint empty[VECTORS];

    find_extreme(count, c->x, extreme);
    EACH (v) {
        empty[v] = magnitude(extreme[v]) < NEARLY_ZERO;
        scale[v] = inverse[v] = best[v] = all(0);
    }
    for (int i = 0; i < count; i++)
        EACH (v) wx[i][v] = c->w[i][v] * c->x[i][v];

    for (int trial = 0; trial <= 18; trial++) {
        const int tenths = trial == 0 ? 0 : trial <= 9 ? trial - 10 : trial - 9;
        const float span = -(top + 0.1f * (float)tenths);
        vfloat trial_inverse[VECTORS], sum_lx[VECTORS], sum_l2[VECTORS];
        EACH (v) {
            trial_inverse[v] = span / extreme[v];
            sum_lx[v] = sum_l2[v] = all(0);
        }
        for (int i = 0; i < count; i++) {
            EACH (v) {
                const vfloat l = level_between(trial_inverse[v] * c->x[i][v], -top, top - 1);
                sum_lx[v] += wx[i][v] * l;
                sum_l2[v] += (c->w[i][v] * l) * l;
            }
        }
        EACH (v) {
            const vfloat fitted = sum_lx[v] / sum_l2[v];
            /* The first trial always stands, and has scale 0 where no weight counts. */
            const vint wins = trial == 0 ? ~(vint){0} : (sum_l2[v] > 0) & (sum_lx[v] * sum_lx[v] > best[v] * sum_l2[v]);
            scale[v] = choose(wins, choose(sum_l2[v] != 0, fitted, all(0)), scale[v]);
            best[v] = choose(wins, scale[v] * sum_lx[v], best[v]);
            inverse[v] = choose(wins, trial_inverse[v], inverse[v]);
        }
    }
    EACH (v) {
        scale[v] = choose(empty[v], all(0), scale[v]);
        inverse[v] = choose(empty[v], all(0), inverse[v]);
    }
}

/* Levels of 256 weights with half added, under the scales of their sub-blocks of 16 that a reader will see. A scale
 * that rounded to zero cannot tell: then the levels of the search stand. */
INLINE void symmetric_levels(const float *x, int half, const float *scale, const float *inverse, uint8_t *levels)
{
    int32_t wide[256];
    for (int j = 0; j < 16; j++) {
        for (int i = j * 16; i < (j + 1) * 16; i++) {
            wide[i] = clamp_int(round_bits(x[i] / scale[j]) + half, 0, 2 * half - 1);
        }
        if (scale[j] != 0) continue;
        for (int i = j * 16; i < (j + 1) * 16; i++) {
            wide[i] = inverse[j] != 0 ? clamp_int(round_bits(inverse[j] * x[i]) + half, 0, 2 * half - 1) : 0;
        }
    }
    for (int i = 0; i < 256; i++) levels[i] = (uint8_t)wide[i];
}

#endif
