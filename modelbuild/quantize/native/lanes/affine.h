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
        for (int i = 0; i < count; i++)
            EACH (v) base[v] += c->x[i][v] * c->x[i][v];
        EACH (v) base[v] = root(base[v] / (float)count);
    }
    for (int i = 0; i < count; i++)
        EACH (v) c->w[i][v] = base[v] + magnitude(c->x[i][v]);
}

typedef struct {
    vfloat scale[VECTORS], low[VECTORS], inverse[VECTORS], low_then[VECTORS]; /* as affine_fit */
    vfloat least[VECTORS], most[VECTORS], sum_w[VECTORS], sum_x[VECTORS];     /* of the sub-block */
    vfloat best[VECTORS];                                                     /* the least error so far */
    vint out_of_range[VECTORS]; /* lanes that hold nothing useful, because they rounded out of range */
} affine_lanes;

INLINE void start_affine(int count, const affine_columns *c, affine_lanes *fit)
{
    EACH (v) {
        vfloat low = c->x[0][v], high = low, w = c->w[0][v], x = w * low;
        for (int i = 1; i < count; i++) {
            low = lesser(c->x[i][v], low);
            high = greater(c->x[i][v], high);
            w += c->w[i][v];
            x += c->w[i][v] * c->x[i][v];
        }
        fit->least[v] = low;
        fit->most[v] = high;
        fit->sum_w[v] = w;
        fit->sum_x[v] = x;
        fit->low[v] = fit->low_then[v] = lesser(all(0), low);
        fit->out_of_range[v] = (vint){0};
    }
}

/* Levels for an inverse scale, and the sums over them. */
INLINE void affine_sums(const affine_grid *grid, affine_columns *c, const affine_lanes *fit, const vfloat *inverse,
                        vfloat *s1, vfloat *s2, vfloat *sx)
{
    EACH (v) s1[v] = s2[v] = sx[v] = all(0);
    for (int i = 0; i < grid->count; i++) {
        EACH (v) {
            const vfloat x = c->x[i][v];
            const vfloat l = level_between(inverse[v] * (x - fit->low[v]), 0, (float)grid->top);
            const vfloat p = c->w[i][v] * l;
            c->level[i][v] = l;
            s1[v] += p;
            s2[v] += p * l;
            sx[v] += p * x;
        }
    }
}

INLINE void affine_error(const affine_grid *grid, const affine_columns *c, const vfloat *scale, const vfloat *low,
                         vfloat *error)
{
    EACH (v) error[v] = all(0);
    for (int i = 0; i < grid->count; i++) {
        EACH (v) {
            const vfloat diff = ((scale[v] * c->level[i][v]) + low[v]) - c->x[i][v];
            error[v] += c->w[i][v] * (grid->absolute_error ? magnitude(diff) : diff * diff);
        }
    }
}

INLINE void set_inverse(float span, affine_lanes *fit, vfloat *inverse)
{
    EACH (v) {
        inverse[v] = span / (fit->most[v] - fit->low[v]);
        const vfloat below = inverse[v] * (fit->least[v] - fit->low[v]);
        const vfloat above = inverse[v] * (fit->most[v] - fit->low[v]);
        fit->out_of_range[v] |= ~((magnitude(below) <= ROUNDING_LIMIT) & (magnitude(above) <= ROUNDING_LIMIT));
    }
}

/* The plain range, for the trials to beat. */
INLINE void try_plain(const affine_grid *grid, affine_columns *c, affine_lanes *fit)
{
    vfloat unused[3][VECTORS];
    set_inverse((float)grid->top, fit, fit->inverse);
    EACH (v) fit->scale[v] = 1 / fit->inverse[v];
    affine_sums(grid, c, fit, fit->inverse, unused[0], unused[1], unused[2]);
    affine_error(grid, c, fit->scale, fit->low, fit->best);
}

/* A trial: levels for a span of so many levels, the regression over them, and its error. */
INLINE void try_span(const affine_grid *grid, float span, affine_columns *c, affine_lanes *fit)
{
    vfloat inverse[VECTORS], s1[VECTORS], s2[VECTORS], sx[VECTORS], scale[VECTORS], low[VECTORS], error[VECTORS];
    set_inverse(span, fit, inverse);
    affine_sums(grid, c, fit, inverse, s1, s2, sx);
    EACH (v) {
        const vfloat determinant = fit->sum_w[v] * s2[v] - s1[v] * s1[v];
        const vfloat free_low = (s2[v] * fit->sum_x[v] - s1[v] * sx[v]) / determinant;
        const vfloat free_scale = (fit->sum_w[v] * sx[v] - fit->sum_x[v] * s1[v]) / determinant;
        const vint positive = free_low > 0;
        scale[v] = choose(positive, sx[v] / s2[v], free_scale);
        low[v] = choose(positive, all(0), free_low);
        /* A NaN origin makes the error NaN, and a NaN never wins. */
        low[v] = choose(determinant > 0, low[v], all(NAN));
    }
    affine_error(grid, c, scale, low, error);
    EACH (v) {
        const vint wins = error[v] < fit->best[v];
        fit->best[v] = choose(wins, error[v], fit->best[v]);
        fit->inverse[v] = choose(wins, inverse[v], fit->inverse[v]);
        fit->low_then[v] = choose(wins, fit->low[v], fit->low_then[v]);
        fit->scale[v] = choose(wins, scale[v], fit->scale[v]);
        fit->low[v] = choose(wins, low[v], fit->low[v]);
    }
}

/* fit_affine_scalar, lane by lane. */
INLINE void fit_affine(const affine_grid *grid, affine_columns *c, affine_lanes *fit)
{
    start_affine(grid->count, c, fit);
    try_plain(grid, c, fit);
    for (int step = 0; step <= grid->steps; step++) {
        try_span(grid, (grid->first + grid->delta * (float)step) + (float)grid->top, c, fit);
    }
    EACH (v) {
        const vfloat origin = lesser(all(0), fit->least[v]);
        const vint flat = fit->most[v] == origin;
        fit->scale[v] = choose(flat, all(0), fit->scale[v]);
        fit->inverse[v] = choose(flat, all(0), fit->inverse[v]);
        fit->low[v] = choose(flat, origin, fit->low[v]);
        fit->out_of_range[v] &= ~flat;
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
