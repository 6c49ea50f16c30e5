/* Q6_K: super-blocks of 256 with symmetric sub-blocks of 16 and signed 8-bit scales. */

#include "symmetric.h"

INLINE void fit_q6_k(const batch *b, int weighted, symmetric_table *table)
{
    for (int at = 0; at < BATCH / 16; at += LANES) {
        symmetric_columns c;
        symmetric_fit fit;
        load_columns(b->weights + at * 16, 16, c.x);
        if (weighted) {
            load_columns(b->importance + at * 16, 16, c.w);
        } else {
            for (int i = 0; i < 16; i++)
                EACH (v) c.w[i][v] = c.x[i][v] * c.x[i][v];
        }
        fit_symmetric(16, 32, &c, &fit);
        store_fit(&fit, at, table);
    }
}

/* Levels -128..127 of the scales of a super-block by the largest, and where a reader finds them. */
INLINE void quantize_q6_scales(const float *scales, float inverse, float *levels, uint8_t *out)
{
    int32_t wide[16];
    if (!scale_levels(scales, inverse, 128, levels)) {
        for (int j = 0; j < 16; j++) {
            const int32_t level = round_bits(inverse * scales[j]);
            levels[j] = (int8_t)(level > 127 ? 127 : level);
        }
    }
    for (int p = 0; p < PARTS; p++) {
        const vint part = __builtin_convertvector(load_part(levels, p), vint);
        memcpy(wide + p * WIDTH, &part, sizeof part);
    }
    for (int j = 0; j < 16; j++) out[j] = (uint8_t)wide[j];
}

INLINE void put_q6_levels(uint8_t *out, const uint8_t *levels)
{
    for (int h = 0; h < 2; h++) {
        for (int i = 0; i < 32; i++) {
            const uint8_t *l = levels + 128 * h + i;
            out[64 * h + i] = (uint8_t)((l[0] & 15) | (l[64] & 15) << 4);
            out[64 * h + 32 + i] = (uint8_t)((l[32] & 15) | (l[96] & 15) << 4);
            out[128 + 32 * h + i] = (uint8_t)(l[0] >> 4 | (l[32] >> 4) << 2 | (l[64] >> 4) << 4 | (l[96] >> 4) << 6);
        }
    }
}

INLINE void pack_q6_k_any(const batch *b, int weighted)
{
    symmetric_table table;
    fit_q6_k(b, weighted, &table);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *out = b->out + s * 210, levels[256];
        const float *scales = table.scale + s * 16, extreme = extreme_of(scales, 16);
        if (fabsf(extreme) < NEARLY_ZERO) {
            memset(out, 0, 210);
            continue;
        }
        const float inverse = -128.0f / extreme, d = put_rounded(out + 208, 1 / inverse);
        float scale_level[16], rounded_scales[16];
        quantize_q6_scales(scales, inverse, scale_level, out + 192);
        for (int j = 0; j < 16; j++) rounded_scales[j] = d * scale_level[j];
        symmetric_levels(b->weights + s * 256, 32, rounded_scales, table.inverse + s * 16, table.extreme + s * 16,
                         levels);
        put_q6_levels(out, levels);
    }
}

static void pack_q6_k(const batch *b) { pack_q6_k_any(b, 0); }
static void pack_q6_k_weighted(const batch *b) { pack_q6_k_any(b, 1); }
