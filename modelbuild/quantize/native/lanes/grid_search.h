/* The search of the IQ2 and IQ3 types for LANES sub-blocks at once: a scale, and for every 8 or 4 magnitudes a point.
 *
 * Levels and sums are lanes. What is not, finding the nearest neighbour of a combination that is no point, turns the
 * lanes around: there each lane is a neighbour, and adds the errors of its levels in their order.
 */
#ifndef MODELBUILD_GRID_SEARCH_H
#define MODELBUILD_GRID_SEARCH_H

#include "../grid.h"
#include "order.h"
#include "weights.h"

/* What is looked at once more under the final scale. */
typedef enum {
    REFIT_MOVED,        /* groups whose levels were no point */
    REFIT_ALL_IF_MOVED, /* all groups, where one was no point */
    REFIT_ALL
} refit_rule;

/* The scales that are tried: (2 * top - 1 + k * step) / largest magnitude, for k from -count to count. */
typedef struct {
    int weights; /* of a sub-block */
    int top;     /* levels 0..top-1, which stand for 1, 3, 5, ... */
    int count;
    float step;
    refit_rule refit;
} grid_trials;

/* Magnitudes of a batch and what they weigh, in natural order. */
typedef struct {
    float v[BATCH], w[BATCH], root[BATCH];
    uint8_t signs[BATCH / 8];
} magnitudes;

/* What was found for the sub-blocks of a batch; points: by group of grid.size weights. */
typedef struct {
    float scale[BATCH / 16];
    uint16_t points[BATCH / 4];
    uint8_t is_empty[BATCH / 16];
} grid_table;

/* The errors of each level for each of up to eight weights: (root * difference) * difference. */
typedef float level_errors[8][8];

/* Of magnitudes, where level l stands for scale * (2 * l + 1). */
INLINE void set_errors(level_errors errors, int size, int base, const float *v, const float *root, float scale)
{
    for (int i = 0; i < size; i++) {
        for (int l = 0; l < base; l++) {
            const float difference = scale * (float)(2 * l + 1) - v[i];
            errors[i][l] = (root[i] * difference) * difference;
        }
    }
}

/* The neighbour of a combination with the least error; the first of equals. */
INLINE int nearest_neighbour(const grid *g, int number, int size, level_errors errors)
{
    const neighbours *const lists = g->lists + g->list_of[number];
    const int count = g->list_length[number];
#if defined __AVX2__
    __m256 table[8], least = _mm256_set1_ps(INFINITY);
    __m256i place = _mm256_setzero_si256();
    for (int i = 0; i < size; i++) table[i] = _mm256_loadu_ps(errors[i]);
    for (int n = 0; n < count; n++) {
        __m256 error = _mm256_setzero_ps();
        for (int i = 0; i < size; i++) {
            const __m128i bytes = _mm_loadl_epi64((const __m128i *)lists[n].levels[i]);
            error = _mm256_add_ps(error, _mm256_permutevar8x32_ps(table[i], _mm256_cvtepu8_epi32(bytes)));
        }
        const __m256 less = _mm256_cmp_ps(error, least, _CMP_LT_OQ);
        least = _mm256_blendv_ps(least, error, less);
        place = _mm256_blendv_epi8(place, _mm256_set1_epi32(n), _mm256_castps_si256(less));
    }
    /* Of the lanes with the least error, those with the earliest list, and of these the first. */
    __m256 smallest = _mm256_min_ps(least, _mm256_permute2f128_ps(least, least, 1));
    smallest = _mm256_min_ps(smallest, _mm256_permute_ps(smallest, 0x4e));
    smallest = _mm256_min_ps(smallest, _mm256_permute_ps(smallest, 0xb1));
    const __m256i others = _mm256_castps_si256(_mm256_cmp_ps(least, smallest, _CMP_NEQ_UQ));
    place = _mm256_or_si256(place, _mm256_srli_epi32(others, 1)); /* beyond every list */
    __m256i first = _mm256_min_epi32(place, _mm256_permute2x128_si256(place, place, 1));
    first = _mm256_min_epi32(first, _mm256_shuffle_epi32(first, 0x4e));
    first = _mm256_min_epi32(first, _mm256_shuffle_epi32(first, 0xb1));
    const int lanes = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(place, first)));
    const int list = _mm256_cvtsi256_si32(first) & 0xffff;
    return lists[list < count ? list : 0].points[__builtin_ctz((unsigned)lanes)];
#else
    float least = INFINITY;
    int best = lists[0].points[0];
    for (int n = 0; n < count; n++) {
        for (int k = 0; k < NEIGHBOURS; k++) {
            float error = 0;
            for (int i = 0; i < size; i++) error += errors[i][lists[n].levels[i][k]];
            if (error < least) {
                least = error;
                best = lists[n].points[k];
            }
        }
    }
    return best;
#endif
}

typedef struct {
    vfloat v[32][VECTORS];
    vfloat w[32][VECTORS];
    vfloat wv[32][VECTORS];
    char gap[STORE_GAP];
    vfloat level[32][VECTORS];
    int32_t number[8][LANES];
    uint16_t point[8][LANES];
    uint8_t is_point[8][LANES]; /* without a neighbour's help */
} grid_columns;

/* Levels for an inverse scale, by the bits, as quotients may be anything; and the numbers of their combinations. */
INLINE void set_levels(const grid_trials *t, int size, int base, const vfloat *inverse, grid_columns *c)
{
    for (int group = 0; group < t->weights / size; group++) {
        vfloat number[VECTORS];
        float power = 1;
        EACH (v) number[v] = all(0);
        for (int i = group * size; i < (group + 1) * size; i++) {
            EACH (v) {
                const vfloat exact = 0.5f * (inverse[v] * c->v[i][v] - 1) + ROUNDING_MAGIC;
                const vint bits = ((vint)exact & 0x7fffff) - 0x400000;
                const vfloat level =
                    lesser(greater(__builtin_convertvector(bits, vfloat), all(0)), all((float)(t->top - 1)));
                c->level[i][v] = level;
                number[v] += level * power;
            }
            power *= (float)base;
        }
        EACH (v) {
            const vint whole = __builtin_convertvector(number[v], vint);
            memcpy(c->number[group] + v * WIDTH, &whole, sizeof whole);
        }
    }
}

/* Points for the levels at hand, and where there are none the levels of neighbours; v, root: of lane 0. */
INLINE void set_points(const grid *g, const grid_trials *t, int size, int base, const float *v, const float *root,
                       const float *scale, grid_columns *c)
{
    for (int group = 0; group < t->weights / size; group++) {
        for (int k = 0; k < LANES; k++) {
            const int number = c->number[group][k], known = g->point_of[number];
            c->is_point[group][k] = known >= 0;
            c->point[group][k] = (uint16_t)known;
            if (known >= 0) continue;
            const int at = k * t->weights + group * size;
            level_errors errors;
            set_errors(errors, size, base, v + at, root + at, scale[k]);
            const int point = nearest_neighbour(g, number, size, errors);
            c->point[group][k] = (uint16_t)point;
            for (int i = 0; i < size; i++) {
                c->level[group * size + i][k / WIDTH][k % WIDTH] = (float)g->levels[point][i];
            }
        }
    }
}

/* The sums from which the best scale for the levels at hand follows. */
INLINE void grid_sums(const grid_trials *t, const grid_columns *c, vfloat *sum_qx, vfloat *sum_q2)
{
    EACH (v) sum_qx[v] = sum_q2[v] = all(0);
    for (int i = 0; i < t->weights; i++) {
        EACH (v) {
            const vfloat q = 2 * c->level[i][v] + 1;
            sum_qx[v] += c->wv[i][v] * q;
            sum_q2[v] += (c->w[i][v] * q) * q;
        }
    }
}

typedef struct {
    vfloat scale[VECTORS], best[VECTORS];
    uint16_t point[8][LANES];
    uint8_t is_point[8][LANES];
} grid_best;

INLINE void try_scale(const grid *g, const grid_trials *t, int size, int base, const float *v, const float *root,
                      const vfloat *inverse, grid_columns *c, grid_best *best)
{
    vfloat scale[VECTORS], sum_qx[VECTORS], sum_q2[VECTORS];
    vint better[VECTORS];
    float scales[LANES];
    EACH (v) scale[v] = 1 / inverse[v];
    store_lanes(scales, scale);
    set_levels(t, size, base, inverse, c);
    set_points(g, t, size, base, v, root, scales, c);
    grid_sums(t, c, sum_qx, sum_q2);
    EACH (v) {
        better[v] = (sum_q2[v] > 0) & (sum_qx[v] * sum_qx[v] > best->best[v] * sum_q2[v]);
        best->scale[v] = choose(better[v], sum_qx[v] / sum_q2[v], best->scale[v]);
        best->best[v] = choose(better[v], best->scale[v] * sum_qx[v], best->best[v]);
    }
    for (uint32_t bits = lane_bits(better); bits != 0; bits &= bits - 1) {
        const int k = __builtin_ctz(bits);
        for (int group = 0; group < t->weights / size; group++) {
            best->point[group][k] = c->point[group][k];
            best->is_point[group][k] = c->is_point[group][k];
        }
    }
}

/* Looks once more at the groups of a lane under its final scale, and fits that again. */
INLINE void refit_grid(const grid *g, const grid_trials *t, int size, int base, const float *v, const float *root,
                       grid_columns *c, grid_best *best)
{
    vfloat inverse[VECTORS], sum_qx[VECTORS], sum_q2[VECTORS];
    float scales[LANES];
    int32_t again[LANES];
    store_lanes(scales, best->scale);
    for (int k = 0; k < LANES; k++) {
        int all_points = 1;
        for (int group = 0; group < t->weights / size; group++) all_points &= best->is_point[group][k];
        again[k] = scales[k] > 0 && (!all_points || t->refit == REFIT_ALL) ? -1 : 0;
        if (!again[k]) scales[k] = 1;
    }
    EACH (v) memcpy(&inverse[v], scales + v * WIDTH, sizeof inverse[v]);
    EACH (v) inverse[v] = 1 / inverse[v];
    set_levels(t, size, base, inverse, c);
    set_points(g, t, size, base, v, root, scales, c);
    for (int group = 0; group < t->weights / size; group++) {
        for (int k = 0; k < LANES; k++) {
            if (again[k] && (t->refit != REFIT_MOVED || !best->is_point[group][k])) {
                best->point[group][k] = c->point[group][k];
                continue;
            }
            for (int i = 0; i < size; i++) {
                c->level[group * size + i][k / WIDTH][k % WIDTH] = (float)g->levels[best->point[group][k]][i];
            }
        }
    }
    grid_sums(t, c, sum_qx, sum_q2);
    EACH (v) {
        vint mask;
        memcpy(&mask, again + v * WIDTH, sizeof mask);
        best->scale[v] = choose(mask & (sum_q2[v] > 0), sum_qx[v] / sum_q2[v], best->scale[v]);
    }
}

INLINE void start_columns(const grid_trials *t, const magnitudes *m, int at, grid_columns *c)
{
    load_columns(m->v + at * t->weights, t->weights, c->v);
    load_columns(m->w + at * t->weights, t->weights, c->w);
    for (int i = 0; i < t->weights; i++)
        EACH (v) c->wv[i][v] = c->w[i][v] * c->v[i][v];
}

/* Stores what was found for LANES sub-blocks; a negative scale is made positive by turning all signs. */
INLINE void finish_grid(const grid_trials *t, int size, int at, const grid_best *best, magnitudes *m, grid_table *table)
{
    float scales[LANES];
    store_lanes(scales, best->scale);
    for (int k = 0; k < LANES; k++) {
        const int sub_block = at + k, groups = t->weights / size, is_empty = table->is_empty[sub_block];
        uint8_t *const signs = m->signs + sub_block * (t->weights / 8);
        for (int i = 0; i < t->weights / 8; i++)
            signs[i] = is_empty ? 0 : scales[k] < 0 ? (uint8_t)~signs[i] : signs[i];
        for (int group = 0; group < groups; group++) {
            table->points[sub_block * groups + group] = is_empty ? 0 : best->point[group][k];
        }
        table->scale[sub_block] = is_empty ? 0 : fabsf(scales[k]);
    }
}

/* All IQ2 and IQ3 types but IQ2_XXS. A sub-block whose largest magnitude is below nearly_zero, or not above zero, is
 * left empty. */
INLINE void search_grid(const grid *g, const grid_trials *t, int size, int base, float nearly_zero, magnitudes *m,
                        grid_table *table)
{
    for (int at = 0; at < BATCH / t->weights; at += LANES) {
        const float *const v = m->v + at * t->weights, *const root = m->root + at * t->weights;
        grid_columns c;
        grid_best best;
        vfloat largest[VECTORS];
        float largest_values[LANES];
        start_columns(t, m, at, &c);
        memset(best.point, 0, sizeof best.point);
        memset(best.is_point, t->refit == REFIT_MOVED, sizeof best.is_point);
        EACH (l) {
            largest[l] = c.v[0][l];
            for (int i = 1; i < t->weights; i++) largest[l] = greater(c.v[i][l], largest[l]);
            best.scale[l] = largest[l] / (float)(2 * t->top - 1);
            best.best[l] = all(0);
        }
        store_lanes(largest_values, largest);
        for (int k = 0; k < LANES; k++) {
            table->is_empty[at + k] = largest_values[k] < nearly_zero || !(largest_values[k] > 0);
        }
        for (int k = -t->count; k <= t->count; k++) {
            vfloat inverse[VECTORS];
            EACH (l) inverse[l] = ((float)(2 * t->top - 1) + (float)k * t->step) / largest[l];
            try_scale(g, t, size, base, v, root, inverse, &c, &best);
        }
        refit_grid(g, t, size, base, v, root, &c, &best);
        finish_grid(t, size, at, &best, m, table);
    }
}

/* Signs apart from magnitudes, eight weights at a time. even: only an even number of negatives exists; where it is odd,
 * the weight that matters least gets the wrong sign, and its magnitude becomes negative. */
INLINE void split_signs(const batch *b, int even, magnitudes *m)
{
    for (int at = 0; at < BATCH; at += 8) {
        const float *const x = b->weights + at, *const w = m->w + at;
        unsigned signs = 0;
        for (int i = 0; i < 8; i++) {
            m->v[at + i] = x[i] >= 0 ? x[i] : -x[i];
            signs |= (unsigned)!(x[i] >= 0) << i;
        }
        if (even && __builtin_popcount(signs) % 2 == 1) {
            int least = 0;
            for (int i = 1; i < 8; i++) {
                if ((w[i] * x[i]) * x[i] < (w[least] * x[least]) * x[least]) least = i;
            }
            m->v[at + least] = -m->v[at + least];
            signs ^= 1u << least;
        }
        m->signs[at / 8] = (uint8_t)signs;
    }
}

/* The weights in natural order, and their roots. factor: of the super-block's mean square; without importance the
 * square of a weight counts, plus share times that mean. */
INLINE void set_weights(const batch *b, int weighted, float factor, float share, magnitudes *m)
{
    float sigma[BATCH / 256];
    mean_squares(b, 256, 256, factor, sigma);
    for (int s = 0; s < BATCH / 256; s++) {
        const float *const x = b->weights + s * 256;
        for (int i = 0; i < 256; i++) {
            const float square = x[i] * x[i];
            float w = share != 0 ? share * sigma[s] + square : square;
            if (weighted) w = b->importance[s * 256 + i] * sqrtf(sigma[s] + square);
            m->w[s * 256 + i] = w;
            m->root[s * 256 + i] = sqrtf(w);
        }
    }
}

/* The step of a super-block's scales, and these in 4 bits; gives 0 when all are zero. */
INLINE float quantize_grid_scales(const float *scales, int count, uint8_t *levels)
{
    float largest = 0;
    for (int j = 0; j < count; j++) largest = scales[j] > largest ? scales[j] : largest;
    const float d = largest / 31, inverse = 1 / d;
    for (int j = 0; j < count; j++) {
        const int32_t level = clamp_int(round_bits(0.5f * (inverse * scales[j] - 1)), 0, 15);
        levels[j] = (uint8_t)(largest > 0 ? level : 0);
    }
    return largest > 0 ? d : 0;
}

#endif
