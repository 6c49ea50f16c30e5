/* Q4_0, Q4_1, Q5_0, Q5_1 with importance: blocks of 32 are the sub-blocks of a search, and the levels that won stand.
 */

#include "affine.h"
#include "simple.h"
#include "symmetric.h"

static const affine_grid weighted_q4_1 = {32, 15, -0.9f, 0.05f, 36, 0};
static const affine_grid weighted_q5_1 = {32, 31, -0.9f, 0.05f, 36, 0};

INLINE void pack_symmetric_weighted(const batch *b, int half)
{
    for (int at = 0; at < BLOCKS; at += LANES) {
        symmetric_columns c;
        symmetric_fit fit;
        float scales[LANES], inverses[LANES];
        load_columns(b->weights + at * 32, 32, c.x);
        weigh_by_importance(32, c.x, b->importance + at * 32, b->row_mean_square + at, c.w);
        fit_symmetric(32, half, &c, &fit);
        store_lanes(scales, fit.scale);
        store_lanes(inverses, fit.inverse);
        for (int k = 0; k < LANES; k++) {
            const float *const x = b->weights + (at + k) * 32;
            uint8_t *const out = b->out + (at + k) * (half == 8 ? 18 : 22);
            int32_t levels[32];
            for (int i = 0; i < 32; i++) levels[i] = clamp_int(round_bits(inverses[k] * x[i]) + half, 0, 2 * half - 1);
            if (inverses[k] == 0) memset(levels, 0, sizeof levels);
            put_half(out, scales[k]);
            if (half == 16) put_fifth_bits(out + 2, levels);
            put_nibbles(out + (half == 8 ? 2 : 6), levels);
        }
    }
}

static void pack_q4_0_weighted(const batch *b) { pack_symmetric_weighted(b, 8); }
static void pack_q5_0_weighted(const batch *b) { pack_symmetric_weighted(b, 16); }

INLINE void pack_affine_weighted(const batch *b, const affine_grid *grid)
{
    affine_table t;
    fit_affine_batch(grid, b, WEIGH_BY_IMPORTANCE, b->row_mean_square, &t);
    for (int n = 0; n < BLOCKS; n++) {
        const float *const x = b->weights + n * 32, inverse = t.inverse[n], low = t.low_then[n];
        uint8_t *const out = b->out + n * (grid->top == 15 ? 20 : 24);
        int32_t levels[32];
        for (int i = 0; i < 32; i++) levels[i] = clamp_int(round_bits(inverse * (x[i] - low)), 0, grid->top);
        if (inverse == 0) memset(levels, 0, sizeof levels);
        put_half(out, t.scale[n]);
        put_half(out + 2, t.low[n]);
        if (grid->top == 31) put_fifth_bits(out + 4, levels);
        put_nibbles(out + (grid->top == 15 ? 4 : 8), levels);
    }
}

static void pack_q4_1_weighted(const batch *b) { pack_affine_weighted(b, &weighted_q4_1); }
static void pack_q5_1_weighted(const batch *b) { pack_affine_weighted(b, &weighted_q5_1); }
