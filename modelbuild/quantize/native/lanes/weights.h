/* How much an error in each weight counts, where there is importance: importance * sqrt(sigma + x*x). */
#ifndef MODELBUILD_WEIGHTS_H
#define MODELBUILD_WEIGHTS_H

#include "lane.h"

/* Columns of weights from LANES sub-blocks of importance; sigma: one value a sub-block. */
INLINE void weigh_by_importance(int count, vfloat (*x)[VECTORS], const float *importance, const float *sigma,
                                vfloat (*w)[VECTORS])
{
    vfloat s[VECTORS];
    load_columns(importance, count, w);
    load_lanes(sigma, s);
    for (int i = 0; i < count; i++) {
        EACH (v) w[i][v] *= root(s[v] + x[i][v] * x[i][v]);
    }
}

/* Per super-block of size weights: (factor * sum of squares) / size, for each of its sub-blocks of count. */
INLINE void mean_squares(const batch *b, int size, int count, float factor, float *sigma)
{
    /* Side by side, because each sum waits for itself. */
    float sums[BATCH / 32];
    for (int s = 0; s < BATCH / size; s++) sums[s] = 0;
    for (int i = 0; i < size; i++) {
        for (int s = 0; s < BATCH / size; s++) sums[s] += b->weights[s * size + i] * b->weights[s * size + i];
    }
    for (int k = 0; k < BATCH / count; k++) sigma[k] = (factor * sums[k * count / size]) / (float)size;
}

#endif
