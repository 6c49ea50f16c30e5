/* IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S: super-blocks of 256 whose magnitudes are points of a grid. */

#include "grid_search.h"

static const grid_trials trials_iq2_xxs = {32, 3, 6, 0.1f, REFIT_ALL};
static const grid_trials trials_iq2 = {16, 3, 9, 0.1f, REFIT_MOVED};
static const grid_trials trials_iq3_xxs = {32, 8, 15, 0.2f, REFIT_MOVED};
static const grid_trials trials_iq3_s = {32, 8, 9, 0.2f, REFIT_ALL_IF_MOVED};

INLINE void put_u32(uint8_t *at, uint32_t value)
{
    put_u16(at, (uint16_t)value);
    put_u16(at + 2, (uint16_t)(value >> 16));
}

/* Four 7-bit sign codes and a 4-bit scale. */
INLINE uint32_t sign_word(const uint8_t *signs, uint8_t scale)
{
    uint32_t word = (uint32_t)scale << 28;
    for (int i = 0; i < 4; i++) word |= (uint32_t)(signs[i] & 127) << 7 * i;
    return word;
}

/* IQ2_XXS starts from a fit without a grid: the trials are around three times its scale. */
INLINE void search_iq2_xxs(const grid *g, magnitudes *m, grid_table *table)
{
    const grid_trials *const t = &trials_iq2_xxs;
    for (int at = 0; at < BATCH / 32; at += LANES) {
        const float *const v = m->v + at * 32, *const root = m->root + at * 32;
        grid_columns c;
        grid_best best;
        vfloat reach[VECTORS];
        float scales[LANES];
        start_columns(t, m, at, &c);
        memset(best.point, 0, sizeof best.point);
        memset(best.is_point, 0, sizeof best.is_point);
        for (int k = 0; k < LANES; k++) {
            uint8_t levels[32];
            float largest = v[k * 32];
            for (int i = 1; i < 32; i++) largest = v[k * 32 + i] > largest ? v[k * 32 + i] : largest;
            scales[k] = fit_positive_scalar(32, 4, v + k * 32, m->w + (at + k) * 32, levels);
            table->is_empty[at + k] = largest < NEARLY_ZERO || scales[k] * 3 <= 0;
        }
        EACH (l) memcpy(&best.scale[l], scales + l * WIDTH, sizeof best.scale[l]);
        EACH (l) {
            reach[l] = best.scale[l] * 3;
            best.best[l] = all(0);
        }
        for (int k = -t->count; k <= t->count; k++) {
            vfloat inverse[VECTORS];
            EACH (l) inverse[l] = (5 + (float)k * t->step) / reach[l];
            try_scale(g, t, 8, 3, v, root, inverse, &c, &best);
        }
        refit_grid(g, t, 8, 3, v, root, &c, &best);
        finish_grid(t, 8, at, &best, m, table);
    }
}

static void pack_iq2_xxs_weighted(const batch *b)
{
    magnitudes m;
    grid_table t;
    set_weights(b, 1, 1, 0, &m);
    split_signs(b, 1, &m);
    search_iq2_xxs(b->grid, &m, &t);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *const out = b->out + s * 66, scales[8];
        const float d = quantize_grid_scales(t.scale + s * 8, 8, scales);
        memset(out, 0, 66);
        if (d == 0) continue;
        put_half(out, d);
        for (int j = 0; j < 8; j++) {
            for (int i = 0; i < 4; i++) out[2 + 8 * j + i] = (uint8_t)t.points[s * 32 + 4 * j + i];
            put_u32(out + 2 + 8 * j + 4, sign_word(m.signs + s * 32 + 4 * j, scales[j]));
        }
    }
}

static void pack_iq2_xs_weighted(const batch *b)
{
    magnitudes m;
    grid_table t;
    set_weights(b, 1, 1, 0, &m);
    split_signs(b, 1, &m);
    search_grid(b->grid, &trials_iq2, 8, 3, NEARLY_ZERO, &m, &t);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *const out = b->out + s * 74, scales[16];
        const float d = quantize_grid_scales(t.scale + s * 16, 16, scales);
        memset(out, 0, 74);
        if (d == 0) continue;
        put_half(out, d);
        for (int i = 0; i < 32; i++) {
            put_u16(out + 2 + 2 * i, (uint16_t)(t.points[s * 32 + i] | (m.signs[s * 32 + i] & 127) << 9));
        }
        for (int j = 0; j < 8; j++) out[66 + j] = (uint8_t)(scales[2 * j] | scales[2 * j + 1] << 4);
    }
}

INLINE void pack_iq2_s_any(const batch *b, int weighted)
{
    magnitudes m;
    grid_table t;
    set_weights(b, weighted, 2, 0.25f, &m);
    split_signs(b, 0, &m);
    search_grid(b->grid, &trials_iq2, 8, 3, 1e-8f, &m, &t);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *const out = b->out + s * 82, scales[16];
        const float d = quantize_grid_scales(t.scale + s * 16, 16, scales);
        put_half(out, d * 0.9875f);
        memset(out + 66, 0, 8);
        for (int i = 0; i < 32; i++) {
            const unsigned point = t.points[s * 32 + i];
            out[2 + i] = (uint8_t)point;
            out[34 + i] = m.signs[s * 32 + i];
            out[66 + i / 4] |= (uint8_t)(point >> 8 << 2 * (i % 4));
        }
        for (int j = 0; j < 8; j++) out[74 + j] = (uint8_t)(scales[2 * j] | scales[2 * j + 1] << 4);
    }
}

static void pack_iq2_s(const batch *b) { pack_iq2_s_any(b, 0); }
static void pack_iq2_s_weighted(const batch *b) { pack_iq2_s_any(b, 1); }

INLINE void pack_iq3_xxs_any(const batch *b, int weighted)
{
    magnitudes m;
    grid_table t;
    set_weights(b, weighted, 2, 0, &m);
    split_signs(b, 1, &m);
    search_grid(b->grid, &trials_iq3_xxs, 4, 8, 1e-8f, &m, &t);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *const out = b->out + s * 98, scales[8];
        const float d = quantize_grid_scales(t.scale + s * 8, 8, scales);
        memset(out, 0, 98);
        if (d == 0) continue;
        put_half(out, d * 1.0125f);
        for (int i = 0; i < 64; i++) out[2 + i] = (uint8_t)t.points[s * 64 + i];
        for (int j = 0; j < 8; j++) put_u32(out + 66 + 4 * j, sign_word(m.signs + s * 32 + 4 * j, scales[j]));
    }
}

static void pack_iq3_xxs(const batch *b) { pack_iq3_xxs_any(b, 0); }
static void pack_iq3_xxs_weighted(const batch *b) { pack_iq3_xxs_any(b, 1); }

INLINE void pack_iq3_s_any(const batch *b, int weighted)
{
    magnitudes m;
    grid_table t;
    set_weights(b, weighted, 2, 0, &m);
    split_signs(b, 0, &m);
    search_grid(b->grid, &trials_iq3_s, 4, 8, 0, &m, &t);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *const out = b->out + s * 110, scales[8];
        const float d = quantize_grid_scales(t.scale + s * 8, 8, scales);
        int place = 0; /* a flaw of the original: low parts and signs do not advance past a sub-block of zeros */
        memset(out, 0, 110);
        put_half(out, d * 1.033f);
        for (int j = 0; j < 8; j++) {
            if (t.is_empty[s * 8 + j]) continue;
            for (int i = 0; i < 8; i++) {
                const unsigned point = t.points[s * 64 + 8 * j + i];
                out[2 + 8 * place + i] = (uint8_t)point;
                out[66 + j] |= (uint8_t)(point >> 8 << i);
            }
            memcpy(out + 74 + 4 * place, m.signs + s * 32 + 4 * j, 4);
            place++;
        }
        for (int j = 0; j < 4; j++) out[106 + j] = (uint8_t)(scales[2 * j] | scales[2 * j + 1] << 4);
    }
}

static void pack_iq3_s(const batch *b) { pack_iq3_s_any(b, 0); }
static void pack_iq3_s_weighted(const batch *b) { pack_iq3_s_any(b, 1); }
