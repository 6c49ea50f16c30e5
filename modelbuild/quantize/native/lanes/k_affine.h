/* Q4_K, Q5_K and Q2_K: super-blocks of 256 with affine sub-blocks whose scales and minima are quantized in turn. */

#include "affine.h"
#include "bits.h"

static const affine_grid grid_q4_k = {32, 15, -1.0f, 0.1f, 20, 0};
static const affine_grid grid_q5_k = {32, 31, -0.5f, 0.1f, 15, 0};
static const affine_grid grid_q2_k = {16, 3, -0.5f, 0.1f, 15, 1};
static const affine_grid weighted_q4_k = {32, 15, -0.9f, 0.05f, 36, 0};
static const affine_grid weighted_q5_k = {32, 31, -0.9f, 0.05f, 36, 0};
static const affine_grid weighted_q2_k = {16, 3, -0.9f, 0.05f, 36, 0};

/* The quantized scales and minima of one super-block. */
typedef struct {
    float d, dmin;
    uint8_t scales[16], minima[16];
} affine_head;

/* Levels of positive values by the largest, in 8 bits as they come; gives the step, unrounded. */
INLINE float quantize_by_max(int count, int top, const float *values, float sign, uint8_t *levels)
{
    float max = 0;
    for (int i = 0; i < count; i++) max = sign * values[i] > max ? sign * values[i] : max;
    const float inverse = max > 0 ? (float)top / max : 0;
    for (int i = 0; i < count; i++) {
        levels[i] = (uint8_t)round_bits(inverse * (sign * values[i]));
    }
    return max / (float)top;
}

/* The same with the importance of each sub-block. */
INLINE float quantize_by_importance(int count, int top, const float *values, float sign, const float *sum_w,
                                    uint8_t *levels)
{
    float positive[16];
    for (int i = 0; i < count; i++) positive[i] = sign * values[i];
    return fit_positive_scalar(count, top, positive, sum_w, levels);
}

/* Minima are stored with their sign turned: value = d * level - dmin * minimum. */
INLINE void quantize_head(const affine_table *t, int first, int count, int top, int weighted, affine_head *head)
{
    if (weighted) {
        head->d = quantize_by_importance(count, top, t->scale + first, 1, t->sum_w + first, head->scales);
        head->dmin = quantize_by_importance(count, top, t->low + first, -1, t->sum_w + first, head->minima);
    } else {
        head->d = quantize_by_max(count, top, t->scale + first, 1, head->scales);
        head->dmin = quantize_by_max(count, top, t->low + first, -1, head->minima);
    }
}

INLINE void cap_head(affine_head *head, uint8_t top)
{
    for (int j = 0; j < 8; j++) {
        head->scales[j] = head->scales[j] > top ? top : head->scales[j];
        head->minima[j] = head->minima[j] > top ? top : head->minima[j];
    }
}

/* Eight pairs of 6 bits in twelve bytes: the first four plainly, the others split into low nibbles and top bits.
 * Levels above 63 (a search went astray) are stored as they come, so the head is read back as a reader will see it. */
INLINE void put_6_bit_pairs(uint8_t *out, affine_head *head)
{
    uint8_t *s = head->scales, *m = head->minima;
    for (int j = 0; j < 4; j++) {
        out[j] = (uint8_t)(s[j] | (s[j + 4] >> 4) << 6);
        out[j + 4] = (uint8_t)(m[j] | (m[j + 4] >> 4) << 6);
        out[j + 8] = (uint8_t)((s[j + 4] & 15) | (m[j + 4] & 15) << 4);
    }
    for (int j = 0; j < 4; j++) {
        s[j] = out[j] & 63;
        m[j] = out[j + 4] & 63;
        s[j + 4] = (uint8_t)((out[j + 8] & 15) | (out[j] >> 6) << 4);
        m[j + 4] = (uint8_t)((out[j + 8] >> 4) | (out[j + 4] >> 6) << 4);
    }
}

INLINE void super_block_levels(const float *x, const affine_table *t, int first, int count, int top, float d,
                               float dmin, const affine_head *head, uint8_t *levels)
{
    float scale[16], offset[16];
    for (int j = 0; j < 256 / count; j++) {
        scale[j] = d * head->scales[j];
        offset[j] = dmin * head->minima[j];
    }
    affine_levels(x, count, top, scale, offset, t, first, levels);
}

/* Q4_K (top 15) and Q5_K (top 31). */
INLINE void pack_q45_k(const batch *b, const affine_grid *grid, int weighted)
{
    affine_table table;
    float sigma[BATCH / 16];
    const int top = grid->top, bytes = top == 15 ? 144 : 176;
    if (weighted) mean_squares(b, 256, 32, 2, sigma);
    fit_affine_batch(grid, b, weighted ? WEIGH_BY_IMPORTANCE : WEIGH_BY_RMS_MAGNITUDE, sigma, &table);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *out = b->out + s * bytes, levels[256];
        affine_head head;
        quantize_head(&table, s * 8, 8, 63, weighted, &head);
        const float d = put_rounded(out, head.d), dmin = put_rounded(out + 2, head.dmin);
        if (top == 31 || !weighted) cap_head(&head, 63);
        put_6_bit_pairs(out + 4, &head);
        super_block_levels(b->weights + s * 256, &table, s * 8, 32, top, d, dmin, &head, levels);
        uint8_t *nibbles = out + 16;
        if (top == 31) {
            put_bit_planes(nibbles, levels, 4);
            nibbles += 32;
        }
        for (int g = 0; g < 4; g++) {
            for (int i = 0; i < 32; i++) {
                nibbles[32 * g + i] = (uint8_t)((levels[64 * g + i] & 15) | (levels[64 * g + 32 + i] & 15) << 4);
            }
        }
    }
}

static void pack_q4_k(const batch *b) { pack_q45_k(b, &grid_q4_k, 0); }
static void pack_q5_k(const batch *b) { pack_q45_k(b, &grid_q5_k, 0); }
static void pack_q4_k_weighted(const batch *b) { pack_q45_k(b, &weighted_q4_k, 1); }
static void pack_q5_k_weighted(const batch *b) { pack_q45_k(b, &weighted_q5_k, 1); }

INLINE void pack_q2_k_any(const batch *b, const affine_grid *grid, int weighted)
{
    affine_table table;
    float sigma[BATCH / 16];
    if (weighted) mean_squares(b, 256, 16, 1, sigma);
    fit_affine_batch(grid, b, weighted ? WEIGH_BY_IMPORTANCE : WEIGH_BY_MAGNITUDE, sigma, &table);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *out = b->out + s * 84, levels[256];
        affine_head head;
        quantize_head(&table, s * 16, 16, 15, weighted, &head);
        for (int j = 0; j < 16; j++) {
            out[j] = (uint8_t)(head.scales[j] | head.minima[j] << 4);
            head.scales[j] = out[j] & 15;
            head.minima[j] = out[j] >> 4;
        }
        const float d = put_rounded(out + 80, head.d), dmin = put_rounded(out + 82, head.dmin);
        super_block_levels(b->weights + s * 256, &table, s * 16, 16, 3, d, dmin, &head, levels);
        put_2_bit_planes(out + 16, levels);
    }
}

static void pack_q2_k(const batch *b) { pack_q2_k_any(b, &grid_q2_k, 0); }
static void pack_q2_k_weighted(const batch *b) { pack_q2_k_any(b, &weighted_q2_k, 1); }
