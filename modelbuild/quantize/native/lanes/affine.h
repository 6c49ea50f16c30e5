/* The affine search (value = scale * level + low) for LANES sub-blocks at once, and the types made of it. */
#ifndef MODELBUILD_AFFINE_H
#define MODELBUILD_AFFINE_H

#include "weights.h"

/* Beyond this a rounding by addition may differ from the integer form; such lanes are redone by the scalar search. */
#define ROUNDING_LIMIT 4e6f

/* Fits of the sub-blocks of a batch; as affine_fit, with the sum of the weights. */
typedef struct {
    float scale[BATCH / 16], low[BATCH / 16];
    float inverse[BATCH / 16], low_then[BATCH / 16];
    float sum_w[BATCH / 16];
} affine_table;

typedef enum {
    WEIGH_BY_MAGNITUDE,     /* |x| */
    WEIGH_BY_RMS_MAGNITUDE, /* root mean square of the sub-block + |x| */
    WEIGH_BY_IMPORTANCE     /* importance * sqrt(sigma + x*x) */
} weighing;

/* Sub-blocks as columns, with their weights and the levels of the trial at hand. */
typedef struct {
    vfloat x[32][VECTORS];
    vfloat w[32][VECTORS];
    char gap[STORE_GAP];
    vfloat level[32][VECTORS];
} affine_columns;

INLINE void weigh(affine_columns *c, int count, weighing rule, const float *importance, const float *sigma)
{
    if (rule == WEIGH_BY_IMPORTANCE) {
        weigh_by_importance(count, c->x, importance, sigma, c->w);
        return;
    }
    vfloat base[VECTORS] = {{0}};
    if (rule == WEIGH_BY_RMS_MAGNITUDE) {
        for (int i = 0; i < count; i++) EACH(v) base[v] += c->x[i][v] * c->x[i][v];
        EACH(v) base[v] = root(base[v] / (float)count);
    }
    for (int i = 0; i < count; i++) EACH(v) c->w[i][v] = base[v] + magnitude(c->x[i][v]);
}

typedef struct {
    vfloat scale[VECTORS], low[VECTORS], inverse[VECTORS], low_then[VECTORS], sum_w[VECTORS];
    vint out_of_range[VECTORS];
} affine_lanes;

/* fit_affine_scalar, lane by lane; lanes marked out_of_range hold nothing useful. */
INLINE void fit_affine(const affine_grid *grid, affine_columns *c, affine_lanes *fit)
{
    const int count = grid->count;
    const float top = (float)grid->top;
    vfloat least[VECTORS], most[VECTORS], sum_x[VECTORS], best[VECTORS];
    vint flat[VECTORS];

    EACH(v)
    {
        vfloat low = c->x[0][v], high = low, w = c->w[0][v], x = w * low;
        for (int i = 1; i < count; i++) {
            low = lesser(c->x[i][v], low);
            high = greater(c->x[i][v], high);
            w += c->w[i][v];
            x += c->w[i][v] * c->x[i][v];
        }
        least[v] = low;
        most[v] = high;
        fit->sum_w[v] = w;
        sum_x[v] = x;
        fit->low[v] = fit->low_then[v] = lesser(all(0), low);
        flat[v] = high == fit->low[v];
        fit->inverse[v] = top / (high - fit->low[v]);
        fit->scale[v] = 1 / fit->inverse[v];
        best[v] = all(0);
        fit->out_of_range[v] = (vint){0};
    }

    /* Step -1 is the plain range: no regression, and nothing to beat yet. */
    for (int step = -1; step <= grid->steps; step++) {
        vfloat inverse[VECTORS], s1[VECTORS], s2[VECTORS], sx[VECTORS], scale[VECTORS], low[VECTORS], error[VECTORS];
        const float span = step < 0 ? top : (grid->first + grid->delta * (float)step) + top;
        EACH(v)
        {
            inverse[v] = span / (most[v] - fit->low[v]);
            const vfloat below = inverse[v] * (least[v] - fit->low[v]), above = inverse[v] * (most[v] - fit->low[v]);
            fit->out_of_range[v] |= ~((magnitude(below) <= ROUNDING_LIMIT) & (magnitude(above) <= ROUNDING_LIMIT));
            s1[v] = s2[v] = sx[v] = error[v] = all(0);
        }
        for (int i = 0; i < count; i++) {
            EACH(v)
            {
                const vfloat x = c->x[i][v], l = level_between(inverse[v] * (x - fit->low[v]), 0, top);
                const vfloat p = c->w[i][v] * l;
                c->level[i][v] = l;
                s1[v] += p;
                s2[v] += p * l;
                sx[v] += p * x;
            }
        }
        EACH(v)
        {
            const vfloat determinant = fit->sum_w[v] * s2[v] - s1[v] * s1[v];
            const vfloat free_low = (s2[v] * sum_x[v] - s1[v] * sx[v]) / determinant;
            const vfloat free_scale = (fit->sum_w[v] * sx[v] - sum_x[v] * s1[v]) / determinant;
            const vint positive = free_low > 0;
            scale[v] = choose(positive, sx[v] / s2[v], free_scale);
            low[v] = choose(positive, all(0), free_low);
            /* A NaN origin makes the error NaN, and a NaN never wins. */
            low[v] = choose(determinant > 0, low[v], all(NAN));
            if (step < 0) {
                scale[v] = fit->scale[v];
                low[v] = fit->low[v];
            }
        }
        for (int i = 0; i < count; i++) {
            EACH(v)
            {
                const vfloat diff = ((scale[v] * c->level[i][v]) + low[v]) - c->x[i][v];
                error[v] += c->w[i][v] * (grid->absolute_error ? magnitude(diff) : diff * diff);
            }
        }
        EACH(v)
        {
            if (step < 0) {
                best[v] = error[v];
                continue;
            }
            const vint wins = error[v] < best[v];
            best[v] = choose(wins, error[v], best[v]);
            fit->inverse[v] = choose(wins, inverse[v], fit->inverse[v]);
            fit->low_then[v] = choose(wins, fit->low[v], fit->low_then[v]);
            fit->scale[v] = choose(wins, scale[v], fit->scale[v]);
            fit->low[v] = choose(wins, low[v], fit->low[v]);
        }
    }
    EACH(v)
    {
        const vfloat origin = lesser(all(0), least[v]);
        fit->scale[v] = choose(flat[v], all(0), fit->scale[v]);
        fit->inverse[v] = choose(flat[v], all(0), fit->inverse[v]);
        fit->low[v] = choose(flat[v], origin, fit->low[v]);
        fit->out_of_range[v] &= ~flat[v];
    }
}

/* Redoes lane k with the scalar search. */
static __attribute__((noinline)) void refit_affine(const affine_grid *grid, const affine_columns *c, int k,
                                                   affine_table *table, int at)
{
    float x[32], w[32];
    for (int i = 0; i < grid->count; i++) {
        x[i] = c->x[i][k / WIDTH][k % WIDTH];
        w[i] = c->w[i][k / WIDTH][k % WIDTH];
    }
    const affine_fit fit = fit_affine_scalar(grid, x, w);
    table->scale[at] = fit.scale;
    table->low[at] = fit.low;
    table->inverse[at] = fit.inverse;
    table->low_then[at] = fit.low_then;
}

/* Fits all sub-blocks of a batch; sigma has one value for each, where importance is used. */
INLINE void fit_affine_batch(const affine_grid *grid, const batch *b, weighing rule, const float *sigma,
                             affine_table *table)
{
    for (int at = 0; at < BATCH / grid->count; at += LANES) {
        affine_columns c;
        affine_lanes fit;
        load_columns(b->weights + at * grid->count, grid->count, c.x);
        weigh(&c, grid->count, rule, rule == WEIGH_BY_IMPORTANCE ? b->importance + at * grid->count : 0, sigma + at);
        fit_affine(grid, &c, &fit);
        store_lanes(table->scale + at, fit.scale);
        store_lanes(table->low + at, fit.low);
        store_lanes(table->inverse + at, fit.inverse);
        store_lanes(table->low_then + at, fit.low_then);
        store_lanes(table->sum_w + at, fit.sum_w);
        for (uint32_t bits = lane_bits(fit.out_of_range); bits != 0; bits &= bits - 1) {
            const int k = __builtin_ctz(bits);
            refit_affine(grid, &c, k, table, at + k);
        }
    }
}

/* Levels 0..top of 256 weights under the scales and offsets of their sub-blocks that a reader will see.
 * A scale that rounded to zero cannot tell: then the levels of the search stand. */
INLINE void affine_levels(const float *x, int count, int top, const float *scale, const float *offset,
                          const affine_table *t, int first, uint8_t *levels)
{
    int32_t wide[256];
    for (int j = 0; j < 256 / count; j++) {
        for (int i = j * count; i < (j + 1) * count; i++) {
            wide[i] = clamp_int(round_bits((x[i] + offset[j]) / scale[j]), 0, top);
        }
        if (scale[j] != 0) continue;
        const float inverse = t->inverse[first + j], low = t->low_then[first + j];
        for (int i = j * count; i < (j + 1) * count; i++) {
            wide[i] = inverse != 0 ? clamp_int(round_bits(inverse * (x[i] - low)), 0, top) : 0;
        }
    }
    for (int i = 0; i < 256; i++) levels[i] = (uint8_t)wide[i];
}

#endif
