/* Q3_K: super-blocks of 256 with symmetric sub-blocks of 16, levels -4..3, signed 6-bit scales.
 *
 * Without importance the levels are improved one at a time, each with the others fixed, in up to five passes. The
 * decisions depend on one another, so a pass is slow even in lanes. But most sub-blocks (four of five with bell-shaped
 * weights) are settled from the start: no level would change. That can be seen without dividing and for all levels
 * independently, because until the first change the sums stay what they are. Only the others are gathered and swept.
 */

#include "bits.h"
#include "symmetric.h"
#include "weights.h"

#define TURN_HALF 4
#define SUB_BLOCKS (BATCH / 16)

typedef struct {
    vfloat x[16][VECTORS];
    vfloat w[16][VECTORS];     /* x * x */
    vfloat wx[16][VECTORS];    /* (x * x) * x */
    vfloat level[16][VECTORS];
    vfloat sum_lx[VECTORS], sum_l2[VECTORS];
    vfloat inverse[VECTORS];   /* of the first levels; 0: nearly zero weights */
} turn_columns;

/* The levels by the extreme value, and their sums. */
INLINE void start_turns(turn_columns *c)
{
    vfloat extreme[VECTORS];
    find_extreme(16, c->x, extreme);
    EACH(v)
    {
        const vint empty = magnitude(extreme[v]) < NEARLY_ZERO;
        c->inverse[v] = choose(empty, all(0), -(float)TURN_HALF / extreme[v]);
        c->sum_lx[v] = c->sum_l2[v] = all(0);
    }
    for (int i = 0; i < 16; i++) {
        EACH(v)
        {
            const vfloat x = c->x[i][v], w = x * x, wx = w * x;
            const vfloat l = level_between(c->inverse[v] * x, -TURN_HALF, TURN_HALF - 1);
            c->w[i][v] = w;
            c->wx[i][v] = wx;
            c->level[i][v] = l;
            c->sum_lx[v] += wx * l;
            c->sum_l2[v] += (w * l) * l;
        }
    }
}

/* Lanes in which no level would change in a sweep. A lane may be called unsettled without need, never the reverse:
 * the new level, round(x * l2 / lx), is surely the old one when the quotient is less than 0.499 away from it or beyond
 * the outermost level. Values so small or so far apart that roundings could matter are unsettled. */
INLINE void find_settled(const turn_columns *c, vint *settled)
{
    EACH(v) settled[v] = ~(vint){0};
    for (int i = 0; i < 16; i++) {
        EACH(v)
        {
            const vfloat l = c->level[i][v];
            const vfloat lx = c->sum_lx[v] - c->wx[i][v] * l, l2 = c->sum_l2[v] - (c->w[i][v] * l) * l;
            const vfloat target = c->x[i][v] * l2;
            const vfloat inside = lesser(greater(target, lx * -(float)TURN_HALF), lx * (float)(TURN_HALF - 1));
            const vint same = magnitude(inside - l * lx) < 0.499f * lx;
            const vint safe = (magnitude(target) < 1e6f * lx) & (lx > 1e-30f);
            settled[v] &= (same & safe) | ~(lx > 0);
        }
    }
}

/* The level nearest to a quotient that may be anything: here the bits decide, as in round_bits. */
INLINE vfloat turn_level(vfloat quotient)
{
    const vint level = ((vint)(quotient + ROUNDING_MAGIC) & 0x7fffff) - 0x400000;
    return level_between(__builtin_convertvector(level, vfloat), -TURN_HALF, TURN_HALF - 1);
}

/* One pass over the levels of all lanes, each decision after the one before. */
INLINE void sweep(turn_columns *c)
{
    for (int i = 0; i < 16; i++) {
        EACH(v)
        {
            const vfloat x = c->x[i][v], w = c->w[i][v], wx = c->wx[i][v], old = c->level[i][v];
            const vfloat lx = c->sum_lx[v] - wx * old, l2 = c->sum_l2[v] - (w * old) * old;
            const vfloat l = turn_level((x * l2) / lx);
            const vfloat new_lx = lx + wx * l, new_l2 = l2 + (w * l) * l;
            const vint better = (new_lx * new_lx) * c->sum_l2[v] > (c->sum_lx[v] * c->sum_lx[v]) * new_l2;
            const vint changes = (lx > 0) & (l != old) & (new_l2 > 0) & better;
            c->level[i][v] = choose(changes, l, old);
            c->sum_lx[v] = choose(changes, new_lx, c->sum_lx[v]);
            c->sum_l2[v] = choose(changes, new_l2, c->sum_l2[v]);
        }
    }
}

typedef struct {
    float scale[SUB_BLOCKS];
    float inverse[SUB_BLOCKS];   /* as of turn_columns */
    uint8_t was_swept[SUB_BLOCKS]; /* the levels are not those that inverse gives */
} turn_table;

INLINE void turn_scales(const turn_columns *c, vfloat *scale)
{
    EACH(v) scale[v] = choose(c->sum_l2[v] > 0, c->sum_lx[v] / c->sum_l2[v], all(0));
}

/* Sweeps up to LANES gathered sub-blocks until all are settled, five times at most. */
INLINE void sweep_some(const float *weights, const int *places, int count, turn_table *table)
{
    turn_columns c;
    vfloat scale[VECTORS];
    float scales[LANES];
    for (int k = 0; k < LANES; k++) {
        const float *const from = weights + places[k < count ? k : 0] * 16;
        for (int i = 0; i < 16; i++) c.x[i][k / WIDTH][k % WIDTH] = from[i];
    }
    start_turns(&c);
    for (int pass = 0; pass < 5; pass++) {
        vint settled[VECTORS];
        sweep(&c);
        find_settled(&c, settled);
        if (!any(~settled[0]) && !any(~settled[1])) break;
    }
    turn_scales(&c, scale);
    store_lanes(scales, scale);
    for (int k = 0; k < count; k++) table->scale[places[k]] = scales[k];
}

INLINE void fit_turns(const batch *b, turn_table *table)
{
    int places[SUB_BLOCKS], count = 0;
    for (int at = 0; at < SUB_BLOCKS; at += LANES) {
        turn_columns c;
        vfloat scale[VECTORS];
        vint settled[VECTORS];
        load_columns(b->weights + at * 16, 16, c.x);
        start_turns(&c);
        find_settled(&c, settled);
        turn_scales(&c, scale);
        store_lanes(table->scale + at, scale);
        store_lanes(table->inverse + at, c.inverse);
        for (int k = 0; k < LANES; k++) {
            places[count] = at + k;
            table->was_swept[at + k] = settled[k / WIDTH][k % WIDTH] == 0;
            count += table->was_swept[at + k];
        }
    }
    for (int at = 0; at < count; at += LANES) {
        sweep_some(b->weights, places + at, count - at < LANES ? count - at : LANES, table);
    }
}

/* With importance: the symmetric search. */
INLINE void fit_weighted_q3(const batch *b, symmetric_table *table, float *sum_w)
{
    float sigma[SUB_BLOCKS];
    mean_squares(b, 256, 16, 2, sigma);
    for (int at = 0; at < SUB_BLOCKS; at += LANES) {
        symmetric_columns c;
        vfloat scale[VECTORS], inverse[VECTORS], sum[VECTORS] = {{0}};
        load_columns(b->weights + at * 16, 16, c.x);
        weigh_by_importance(16, c.x, b->importance + at * 16, sigma + at, c.w);
        for (int i = 0; i < 16; i++) EACH(v) sum[v] += c.w[i][v];
        fit_symmetric(16, TURN_HALF, &c, scale, inverse);
        store_lanes(table->scale + at, scale);
        store_lanes(table->inverse + at, inverse);
        store_lanes(sum_w + at, sum);
    }
}

/* Sixteen 6-bit scales in twelve bytes: low nibbles first, then the top bits of every fourth. */
INLINE void put_q3_scales(uint8_t *out, const uint8_t *scales)
{
    for (int j = 0; j < 8; j++) out[j] = (uint8_t)((scales[j] & 15) | (scales[j + 8] & 15) << 4);
    for (int j = 0; j < 4; j++) {
        out[8 + j] = (uint8_t)(scales[j] >> 4 | (scales[j + 4] >> 4) << 2 | (scales[j + 8] >> 4) << 4 |
                               (scales[j + 12] >> 4) << 6);
    }
}

/* Scales 0..63 with 32 added; gives the step. */
INLINE float quantize_q3_scales(const float *scales, uint8_t *levels)
{
    const float extreme = extreme_of(scales, 16);
    if (extreme == 0) {
        memset(levels, 0, 16);
        return 0;
    }
    const float inverse = -32.0f / extreme;
    for (int j = 0; j < 16; j++) {
        levels[j] = (uint8_t)(clamp_int((int8_t)round_bits(inverse * scales[j]), -32, 31) + 32);
    }
    return 1 / inverse;
}

/* The block of one super-block; scales: with 32 added, d: unrounded. */
INLINE void put_q3_k(uint8_t *restrict out, const float *x, float d, const uint8_t *scales, const float *inverse,
                     const uint8_t *was_swept)
{
    uint8_t levels[256];
    float rounded_scales[16];
    const float rounded_d = put_rounded(out + 108, d);
    for (int j = 0; j < 16; j++) rounded_scales[j] = rounded_d * (float)(scales[j] - 32);
    symmetric_levels(x, TURN_HALF, rounded_scales, inverse, levels);
    for (int j = 0; was_swept && j < 16; j++) {
        if (rounded_scales[j] == 0 && was_swept[j]) fit_by_turns_scalar(16, TURN_HALF, x + j * 16, levels + j * 16);
    }
    for (int i = 0; i < 32; i++) {
        uint8_t high = 0;
        for (int k = 0; k < 8; k++) high |= (uint8_t)((levels[32 * k + i] >> 2) << k);
        out[i] = high;
    }
    put_2_bit_planes(out + 32, levels);
    put_q3_scales(out + 96, scales);
}

static void pack_q3_k(const batch *b)
{
    turn_table t;
    fit_turns(b, &t);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t scales[16];
        const float d = quantize_q3_scales(t.scale + s * 16, scales);
        put_q3_k(b->out + s * 110, b->weights + s * 256, d, scales, t.inverse + s * 16, t.was_swept + s * 16);
    }
}

static void pack_q3_k_weighted(const batch *b)
{
    symmetric_table t;
    float sum_w[SUB_BLOCKS];
    fit_weighted_q3(b, &t, sum_w);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t scales[16];
        const float d = fit_symmetric_scalar(16, 32, t.scale + s * 16, sum_w + s * 16, scales);
        put_q3_k(b->out + s * 110, b->weights + s * 256, d, scales, t.inverse + s * 16, 0);
    }
}
