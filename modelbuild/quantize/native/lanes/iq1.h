/* IQ1_S and IQ1_M: 8 weights become a point of levels -1, 0, 1, all shifted by an eighth up or down.
 *
 * The levels of a sub-block follow from cutting its sorted weights in three, at the best of all places. Sums over a
 * part are differences of prefix sums, so that a trial is the same few operations in every lane. Equal weights keep
 * their order; the original leaves that to the C library's sort.
 */

#include "grid_search.h"

/* Values of the three levels, shifted up (0) and down (1). */
static const float iq1_values[2][3] = {{-0.875f, 0.125f, 1.125f}, {-1.125f, -0.125f, 0.875f}};

/* A sub-block of up to 32 weights: the rank of each, and what the cut decided. */
typedef struct {
    const float *x, *w;
    int rank[32];
    int level[32];
    float scale;
    int shift; /* IQ1_S: of all weights; IQ1_M: bit 1 of the first eight, bit 0 of the others */
    int is_empty;
} iq1_sub_block;

/* The best cut so far: levels 1 from rank first on, 2 from second on. */
typedef struct {
    vfloat scale[VECTORS], best[VECTORS];
    vint first[VECTORS], second[VECTORS], shift[VECTORS];
} best_cut;

INLINE void rank_weights(iq1_sub_block *s, int count, float nearly_zero)
{
    int any_weight = 0;
    for (int i = 0; i < count; i++) {
        int rank = 0;
        for (int j = 0; j < count; j++) rank += (s->x[j] < s->x[i]) | ((s->x[j] == s->x[i]) & (j < i));
        s->rank[i] = rank;
        any_weight |= s->w[i] > 0;
    }
    /* Without any weight no cut is better than another. */
    s->is_empty = largest_magnitude(s->x, count) < nearly_zero || !any_weight;
}

INLINE void start_cut(best_cut *best)
{
    EACH (v) {
        best->scale[v] = all(0);
        best->best[v] = all(-FLT_MAX);
        best->first[v] = best->second[v] = best->shift[v] = (vint){0};
    }
}

INLINE void offer_cut(best_cut *best, const vfloat *sum_qx, const vfloat *sum_q2, int first, int second, int shift)
{
    vint better[VECTORS];
    EACH (v) better[v] = (sum_q2[v] > 0) & (sum_qx[v] * sum_qx[v] > best->best[v] * sum_q2[v]);
    if (lane_bits(better) == 0) return; /* seldom any lane improves, and the rest has a division */
    EACH (v) {
        best->scale[v] = choose(better[v], sum_qx[v] / sum_q2[v], best->scale[v]);
        best->best[v] = choose(better[v], best->scale[v] * sum_qx[v], best->best[v]);
        best->first[v] = (better[v] & first) | (~better[v] & best->first[v]);
        best->second[v] = (better[v] & second) | (~better[v] & best->second[v]);
        best->shift[v] = (better[v] & shift) | (~better[v] & best->shift[v]);
    }
}

/* Sums of the first 0, 1, ... weights in ascending order, each lane a sub-block. */
typedef struct {
    vfloat wx[33][VECTORS], w[33][VECTORS];
} prefix_sums;

/* Of the weights from..to of each sub-block; the others do not count. */
INLINE void set_prefix_sums(const iq1_sub_block *lanes, int count, int from, int to, prefix_sums *sums)
{
    for (int k = 0; k < LANES; k++) {
        float wx[32] = {0}, w[32] = {0}, sum_wx = 0, sum_w = 0;
        for (int i = from; i < to; i++) {
            wx[lanes[k].rank[i]] = lanes[k].w[i] * lanes[k].x[i];
            w[lanes[k].rank[i]] = lanes[k].w[i];
        }
        sums->wx[0][k / WIDTH][k % WIDTH] = sums->w[0][k / WIDTH][k % WIDTH] = 0;
        for (int i = 0; i < count; i++) {
            sum_wx += wx[i];
            sum_w += w[i];
            sums->wx[i + 1][k / WIDTH][k % WIDTH] = sum_wx;
            sums->w[i + 1][k / WIDTH][k % WIDTH] = sum_w;
        }
    }
}

/* The cut and the shift with the least error. */
INLINE void cut_iq1_s(const iq1_sub_block *lanes, best_cut *best)
{
    prefix_sums sums;
    set_prefix_sums(lanes, 32, 0, 32, &sums);
    start_cut(best);
    for (int first = 0; first <= 32; first++) {
        for (int second = first; second <= 32; second++) {
            for (int shift = 0; shift < 2; shift++) {
                const float low = iq1_values[shift][0], middle = iq1_values[shift][1], high = iq1_values[shift][2];
                vfloat sum_qx[VECTORS], sum_q2[VECTORS];
                EACH (v) {
                    const vfloat w_low = sums.w[first][v], w_middle = sums.w[second][v] - sums.w[first][v];
                    const vfloat w_high = sums.w[32][v] - sums.w[second][v];
                    sum_qx[v] = sums.wx[first][v] * low + (sums.wx[second][v] - sums.wx[first][v]) * middle +
                                (sums.wx[32][v] - sums.wx[second][v]) * high;
                    sum_q2[v] = (w_low * low) * low + (w_middle * middle) * middle + (w_high * high) * high;
                }
                offer_cut(best, sum_qx, sum_q2, first, second, shift);
            }
        }
    }
}

/* The cut with the least error and the shifts of both halves of eight. */
INLINE void cut_iq1_m(const iq1_sub_block *lanes, best_cut *best)
{
    prefix_sums half[2];
    for (int h = 0; h < 2; h++) set_prefix_sums(lanes, 16, 8 * h, 8 * h + 8, &half[h]);
    start_cut(best);
    for (int first = 0; first <= 16; first++) {
        for (int second = first; second <= 16; second++) {
            vfloat qx[2][2][VECTORS], q2[2][2][VECTORS]; /* by half and shift */
            for (int h = 0; h < 2; h++) {
                for (int shift = 0; shift < 2; shift++) {
                    const float *const p = iq1_values[shift];
                    EACH (v) {
                        qx[h][shift][v] = half[h].wx[16][v] * p[2] - (half[h].wx[first][v] + half[h].wx[second][v]);
                        q2[h][shift][v] = (half[h].w[16][v] * p[2]) * p[2] +
                                          half[h].w[first][v] * (p[0] * p[0] - p[1] * p[1]) +
                                          half[h].w[second][v] * (p[1] * p[1] - p[2] * p[2]);
                    }
                }
            }
            for (int shift = 0; shift < 4; shift++) {
                vfloat sum_qx[VECTORS], sum_q2[VECTORS];
                EACH (v) {
                    sum_qx[v] = qx[0][shift >> 1][v] + qx[1][shift & 1][v];
                    sum_q2[v] = q2[0][shift >> 1][v] + q2[1][shift & 1][v];
                }
                offer_cut(best, sum_qx, sum_q2, first, second, shift);
            }
        }
    }
}

/* Which shift weight i has. */
INLINE int shift_of(const iq1_sub_block *s, int count, int i)
{
    if (count == 32) return s->shift;
    return i < 8 ? s->shift >> 1 : s->shift & 1;
}

/* Levels and shift of a sub-block from its cut; a negative scale is made positive by mirroring both. */
INLINE void apply_cut(const best_cut *best, int k, int count, iq1_sub_block *s)
{
    const int first = best->first[k / WIDTH][k % WIDTH], second = best->second[k / WIDTH][k % WIDTH];
    const int last_shift = count == 32 ? 1 : 3;
    s->scale = s->is_empty ? 0 : best->scale[k / WIDTH][k % WIDTH];
    s->shift = s->is_empty ? 0 : best->shift[k / WIDTH][k % WIDTH];
    for (int i = 0; i < count; i++) s->level[i] = s->is_empty ? 0 : (s->rank[i] >= first) + (s->rank[i] >= second);
    if (s->scale < 0) {
        s->scale = -s->scale;
        s->shift = last_shift - s->shift;
        for (int i = 0; i < count; i++) s->level[i] = 2 - s->level[i];
    }
}

/* Points of a sub-block; where levels are no point, they become those of the best neighbour, and the scale is fitted
 * again. */
INLINE void move_to_grid(const grid *g, int count, iq1_sub_block *s, uint16_t *points)
{
    int moved = 0;
    for (int group = 0; group < count / 8; group++) {
        int number = 0, power = 1;
        for (int i = 8 * group; i < 8 * group + 8; i++, power *= 3) number += s->level[i] * power;
        int point = g->point_of[number];
        if (point < 0) {
            const float *const values = iq1_values[shift_of(s, count, 8 * group)];
            level_errors errors;
            for (int i = 0; i < 8; i++) {
                for (int l = 0; l < 3; l++) {
                    const float difference = s->scale * values[l] - s->x[8 * group + i];
                    errors[i][l] = (s->w[8 * group + i] * difference) * difference;
                }
            }
            point = nearest_neighbour(g, number, 8, errors);
            for (int i = 0; i < 8; i++) s->level[8 * group + i] = g->levels[point][i];
            moved = 1;
        }
        points[group] = (uint16_t)point;
    }
    if (!moved) return;
    float sum_qx = 0, sum_q2 = 0;
    for (int i = 0; i < count; i++) {
        const float q = iq1_values[shift_of(s, count, i)][s->level[i]];
        sum_qx += (s->w[i] * q) * s->x[i];
        sum_q2 += (s->w[i] * q) * q;
    }
    if (sum_qx > 0 && sum_q2 > 0) s->scale = sum_qx / sum_q2;
}

/* LANES sub-blocks of count weights from number at on; points: all of the batch. */
INLINE void fit_iq1(const batch *b, const float *w, int count, int at, iq1_sub_block *lanes, uint16_t *points)
{
    best_cut best;
    for (int k = 0; k < LANES; k++) {
        lanes[k].x = b->weights + (at + k) * count;
        lanes[k].w = w + (at + k) * count;
        rank_weights(&lanes[k], count, count == 32 ? 1e-12f : 1e-7f);
    }
    if (count == 32) {
        cut_iq1_s(lanes, &best);
    } else {
        cut_iq1_m(lanes, &best);
    }
    for (int k = 0; k < LANES; k++) {
        apply_cut(&best, k, count, &lanes[k]);
        move_to_grid(b->grid, count, &lanes[k], points + (at + k) * (count / 8));
    }
}

/* The step of a super-block's scales, and these in 3 bits; both zero when all are zero. */
INLINE float quantize_iq1_scales(const iq1_sub_block *s, int count, uint8_t *levels)
{
    float largest = 0;
    for (int j = 0; j < count; j++) largest = s[j].scale > largest ? s[j].scale : largest;
    const float d = largest / 15, inverse = 1 / d;
    for (int j = 0; j < count; j++) {
        const int32_t level = clamp_int(round_bits(0.5f * (inverse * s[j].scale - 1)), 0, 7);
        levels[j] = (uint8_t)(largest > 0 ? level : 0);
    }
    return largest > 0 ? d : 0;
}

/* Sub-blocks and points of a batch: too much for the stack. */
typedef struct {
    magnitudes m; /* only the weights are used */
    iq1_sub_block sub_blocks[BATCH / 16];
    uint16_t points[BATCH / 8];
} iq1_batch;

_Static_assert(sizeof(iq1_batch) <= WORK_BYTES, "sub-blocks have to fit");

INLINE void fit_iq1_batch(const batch *b, int weighted, int count, iq1_batch *found)
{
    set_weights(b, weighted, 2, 0, &found->m);
    for (int at = 0; at < BATCH / count; at += LANES) {
        fit_iq1(b, found->m.w, count, at, found->sub_blocks + at, found->points);
    }
}

static void pack_iq1_s_weighted(const batch *b)
{
    iq1_batch *const found = b->work;
    fit_iq1_batch(b, 1, 32, found);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *const out = b->out + s * 50, scales[8];
        const iq1_sub_block *const sub_blocks = found->sub_blocks + s * 8;
        const float d = quantize_iq1_scales(sub_blocks, 8, scales);
        put_half(out, d * 1.125f);
        for (int j = 0; j < 8; j++) {
            const uint16_t *const points = found->points + s * 32 + 4 * j;
            unsigned word = d > 0 ? (unsigned)scales[j] << 12 | (unsigned)sub_blocks[j].shift << 15 : 0;
            for (int i = 0; i < 4; i++) {
                out[2 + 4 * j + i] = (uint8_t)points[i];
                word |= (unsigned)(points[i] >> 8) << 3 * i;
            }
            put_u16(out + 34 + 2 * j, (uint16_t)word);
        }
    }
}

/* The step that fits all 256 weights best, given their levels and scales. */
INLINE float refit_iq1_step(const iq1_sub_block *s, const uint8_t *scales, float d)
{
    float sum_qx = 0, sum_q2 = 0;
    for (int j = 0; j < 16; j++) {
        for (int i = 0; i < 16; i++) {
            const float q = iq1_values[shift_of(&s[j], 16, i)][s[j].level[i]] * (float)(2 * scales[j] + 1);
            sum_qx += (s[j].w[i] * q) * s[j].x[i];
            sum_q2 += (s[j].w[i] * q) * q;
        }
    }
    return d > 0 && sum_q2 > 0 ? sum_qx / sum_q2 : d;
}

INLINE void pack_iq1_m_any(const batch *b, int weighted)
{
    iq1_batch *const found = b->work;
    fit_iq1_batch(b, weighted, 16, found);
    for (int s = 0; s < BATCH / 256; s++) {
        uint8_t *const out = b->out + s * 56, scales[16];
        const iq1_sub_block *const sub_blocks = found->sub_blocks + s * 16;
        const float step = quantize_iq1_scales(sub_blocks, 16, scales), d = refit_iq1_step(sub_blocks, scales, step);
        const uint16_t half = half_of(d * 1.1125f);
        for (int j = 0; j < 16; j++) {
            const uint16_t *const points = found->points + s * 32 + 2 * j;
            const unsigned first = (unsigned)(points[0] >> 8 | (sub_blocks[j].shift >> 1) << 3);
            const unsigned second = (unsigned)(points[1] >> 8 | (sub_blocks[j].shift & 1) << 3);
            out[2 * j] = (uint8_t)points[0];
            out[2 * j + 1] = (uint8_t)points[1];
            out[32 + j] = (uint8_t)(first | second << 4);
        }
        for (int q = 0; q < 4; q++) {
            unsigned word = (unsigned)(half >> 4 * q & 15) << 12;
            for (int i = 0; i < 4; i++) word |= (unsigned)scales[4 * q + i] << 3 * i;
            put_u16(out + 48 + 2 * q, (uint16_t)word);
        }
    }
}

static void pack_iq1_m(const batch *b) { pack_iq1_m_any(b, 0); }
static void pack_iq1_m_weighted(const batch *b) { pack_iq1_m_any(b, 1); }
