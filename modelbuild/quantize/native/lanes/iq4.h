/* IQ4_NL and IQ4_XS: sub-blocks of 32 whose levels stand for 16 unevenly spaced values. */

#include "order.h"
#include "weights.h"

static const float iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* A value belongs to level j + 1 from here on, to j below. The definition compares the distances to both neighbours;
 * the middle between them is a whole number or a half, so those differences are exact where it matters. */
static const float iq4_limits[15] = {-115.5f, -93.5f, -74,   -57,   -42, -28.5f, -16, -4.5f,
                                     7,       19,     31.5f, 45.5f, 61,  79,     101};

INLINE vfloat nearest_iq4_value(vfloat x)
{
    vfloat value = all(iq4_values[0]);
    for (int j = 0; j < 15; j++) {
        const vfloat step = all(iq4_values[j + 1] - iq4_values[j]);
        value += (vfloat)(~(x < iq4_limits[j]) & (vint)step); /* a NaN gets the last level */
    }
    return value;
}

typedef struct {
    vfloat x[32][VECTORS];
    vfloat w[32][VECTORS];
} iq4_columns;

/* Scales of LANES sub-blocks: the plain range first, then 15 wider and narrower ones. */
INLINE void fit_iq4(const iq4_columns *c, vfloat (*x)[VECTORS], vfloat *scale)
{
    vfloat extreme[VECTORS], best[VECTORS];
    find_extreme(32, x, extreme);
    EACH (v) scale[v] = best[v] = all(0);
    for (int trial = -8; trial <= 7; trial++) {
        vfloat inverse[VECTORS], sum_qx[VECTORS], sum_q2[VECTORS];
        EACH (v) {
            inverse[v] = trial == -8 ? 1 / (-extreme[v] / iq4_values[0]) : ((float)trial + iq4_values[0]) / extreme[v];
            sum_qx[v] = sum_q2[v] = all(0);
        }
        for (int i = 0; i < 32; i++) {
            EACH (v) {
                const vfloat q = nearest_iq4_value(inverse[v] * c->x[i][v]), wq = c->w[i][v] * q;
                sum_qx[v] += wq * c->x[i][v];
                sum_q2[v] += wq * q;
            }
        }
        EACH (v) {
            /* The first trial stands in any case; its scale is 0 where no weight counts. */
            const vint better = sum_qx[v] * sum_qx[v] > best[v] * sum_q2[v];
            const vint wins = trial == -8 ? ~(vint){0} : (sum_q2[v] > 0) & better;
            const vfloat fitted = choose(sum_q2[v] > 0, sum_qx[v] / sum_q2[v], all(0));
            scale[v] = choose(wins, fitted, scale[v]);
            best[v] = choose(wins, scale[v] * sum_qx[v], best[v]);
        }
    }
    EACH (v) scale[v] = choose(magnitude(extreme[v]) < NEARLY_ZERO, all(0), scale[v]);
}

/* Scales of all sub-blocks of a batch. size: weights whose mean square counts with importance. */
INLINE void fit_iq4_batch(const batch *b, int weighted, int size, float *scales)
{
    float sigma[BATCH / 32];
    if (weighted) mean_squares(b, size, 32, 2, sigma);
    for (int at = 0; at < BATCH / 32; at += LANES) {
        iq4_columns c;
        vfloat scale[VECTORS];
        load_columns(b->weights + at * 32, 32, c.x);
        if (weighted) {
            weigh_by_importance(32, c.x, b->importance + at * 32, sigma + at, c.w);
        } else {
            for (int i = 0; i < 32; i++)
                EACH (v) c.w[i][v] = c.x[i][v] * c.x[i][v];
        }
        fit_iq4(&c, c.x, scale);
        store_lanes(scales + at, scale);
    }
}

/* Sixteen bytes for 32 weights; inverse 0 gives the level of 0. */
INLINE void put_iq4_levels(uint8_t *restrict out, const float *x, float inverse)
{
    int32_t levels[32];
    for (int i = 0; i < 32; i++) {
        const float value = inverse * x[i];
        int32_t level = 0;
        for (int j = 0; j < 15; j++) level += !(value < iq4_limits[j]);
        levels[i] = level;
    }
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)(levels[i] | levels[i + 16] << 4);
}

INLINE void pack_iq4_nl_any(const batch *b, int weighted)
{
    float scales[BATCH / 32];
    fit_iq4_batch(b, weighted, 32, scales);
    for (int n = 0; n < BATCH / 32; n++) {
        put_half(b->out + n * 18, scales[n]);
        put_iq4_levels(b->out + n * 18 + 2, b->weights + n * 32, scales[n] != 0 ? 1 / scales[n] : 0);
    }
}

static void pack_iq4_nl(const batch *b) { pack_iq4_nl_any(b, 0); }
static void pack_iq4_nl_weighted(const batch *b) { pack_iq4_nl_any(b, 1); }

INLINE void pack_iq4_xs_any(const batch *b, int weighted)
{
    float scales[BATCH / 32];
    fit_iq4_batch(b, weighted, 256, scales);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *const out = b->out + s * 136;
        /* Levels are chosen with the scale as it is, not as it is stored. */
        const float d = -extreme_of(scales + s * 8, 8) / 32, inverse = d != 0 ? 1 / d : 0;
        uint16_t high = 0;
        put_half(out, d);
        memset(out + 4, 0, 4);
        for (int j = 0; j < 8; j++) {
            const int32_t level = clamp_int(round_bits(inverse * scales[s * 8 + j]), -32, 31);
            const float step = d * (float)level;
            put_iq4_levels(out + 8 + 16 * j, b->weights + s * 256 + j * 32, step != 0 ? 1 / step : 0);
            out[4 + j / 2] |= (uint8_t)(((level + 32) & 15) << 4 * (j % 2));
            high |= (uint16_t)((level + 32) >> 4 << 2 * j);
        }
        put_u16(out + 2, high);
    }
}

static void pack_iq4_xs(const batch *b) { pack_iq4_xs_any(b, 0); }
static void pack_iq4_xs_weighted(const batch *b) { pack_iq4_xs_any(b, 1); }
