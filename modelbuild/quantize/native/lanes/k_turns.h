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

#define TURN_HALF  4
#define SUB_BLOCKS (BATCH / 16)

typedef struct {
    vfloat x[16][VECTORS];
    char gap[STORE_GAP];
    vfloat level[16][VECTORS];
    vfloat lx[16][VECTORS]; /* (w * x) * level: what each weight adds to sum_lx */
    vfloat sum_lx[VECTORS], sum_l2[VECTORS];
    vfloat extreme[VECTORS]; /* the weight of largest magnitude */
    vfloat inverse[VECTORS]; /* of the first levels; 0: nearly zero weights */
} turn_columns;

/* The weights, and what is needed of them. */
INLINE void load_turns(const float *weights, const int *places, turn_columns *c)
{
    load_columns_at(weights, places, 16, c->x);
    find_extreme(16, c->x, c->extreme);
    EACH (v) {
        const vint empty = magnitude(c->extreme[v]) < NEARLY_ZERO;
        c->inverse[v] = choose(empty, all(0), -(float)TURN_HALF / c->extreme[v]);
    }
}

/* The levels by the extreme value, and their sums. */
INLINE void start_turns(turn_columns *c)
{
    EACH (v) c->sum_lx[v] = c->sum_l2[v] = all(0);
    UNROLLED
    for (int i = 0; i < 16; i++) {
        EACH (v) {
            const vfloat x = c->x[i][v], w = x * x;
            const vfloat l = trial_level(c->inverse[v] * x, TURN_HALF), lx = (w * x) * l;
            c->level[i][v] = l;
            c->lx[i][v] = lx;
            c->sum_lx[v] += lx;
            c->sum_l2[v] += (w * l) * l;
        }
    }
}

/* Lanes in which no level would change in a sweep. A lane may be called unsettled without need, never the reverse.
 *
 * With a positive extreme every level has the sign opposite to its weight. Then all that adds to sum_lx is negative or
 * zero, and so is what is left of it without one weight: no turn is ever taken.
 *
 * Otherwise a sweep gives a weight the level nearest to x * l2 / lx, where lx and l2 are the sums without this weight:
 * lx = sum_lx - w*x*l, l2 = sum_l2 - w*l*l. That is l itself if |x * l2 - l * lx| < lx / 2, and the left side is
 * |x * sum_l2 - l * sum_lx|, because what the weight adds cancels out. A first term beyond that of the outermost level
 * counts as that of the outermost level, as the sweep cuts it. `limit` leaves room for the rounding of all terms, which
 * is a few millionths of a thousandth of the largest of them; it also keeps quotients within the reach of round_bits.
 * Sums that overflowed or are next to the smallest floats fail the comparisons. */
INLINE void find_settled(const turn_columns *c, vint *settled)
{
    vfloat worst[VECTORS], limit[VECTORS], twice_lx[VECTORS], twice_l2[VECTORS];
    EACH (v) {
        worst[v] = all(0);
        twice_lx[v] = c->sum_lx[v] + c->sum_lx[v];
        twice_l2[v] = c->sum_l2[v] + c->sum_l2[v];
        limit[v] = c->sum_lx[v] - (magnitude(c->extreme[v]) * c->sum_l2[v] + 4 * c->sum_lx[v]) * 4e-6f;
    }
    UNROLLED
    for (int i = 0; i < 16; i++) {
        EACH (v) {
            const vfloat lowest = twice_lx[v] * -(float)TURN_HALF, highest = twice_lx[v] * (float)(TURN_HALF - 1);
            const vfloat aim = lesser(greater(c->x[i][v] * twice_l2[v], lowest), highest);
            worst[v] = greater(magnitude(aim - c->level[i][v] * twice_lx[v]) + c->lx[i][v], worst[v]);
        }
    }
    EACH (v) {
        const vint stays = (worst[v] < limit[v]) & (c->sum_lx[v] > 1e-30f);
        settled[v] = stays | (c->extreme[v] > 0) | (c->inverse[v] == 0);
    }
}

/* The level nearest to a quotient that may be anything: here the bits decide, as in round_bits. */
INLINE vfloat turn_level(vfloat quotient)
{
    const vint bits = ((vint)(quotient + ROUNDING_MAGIC) & 0x7fffff) - 0x400000;
    return lesser(greater(__builtin_convertvector(bits, vfloat), all(-TURN_HALF)), all(TURN_HALF - 1));
}

/* Groups that are swept together: each decision waits long for the one before, so there have to be enough of them. */
#define SWEEP_GROUPS 2

/* One pass over the levels of all lanes, each decision after the one before. */
INLINE void sweep(turn_columns *groups)
{
    for (int i = 0; i < 16; i++) {
        for (int v = 0; v < SWEEP_GROUPS * VECTORS; v++) {
            turn_columns *const c = &groups[v / VECTORS];
            vfloat *const sum_lx = &c->sum_lx[v % VECTORS], *const sum_l2 = &c->sum_l2[v % VECTORS];
            const vfloat x = c->x[i][v % VECTORS], w = x * x, wx = w * x;
            const vfloat old = c->level[i][v % VECTORS];
            const vfloat lx = *sum_lx - c->lx[i][v % VECTORS], l2 = *sum_l2 - (w * old) * old;
            const vfloat l = turn_level((x * l2) / lx);
            const vfloat new_lx = lx + wx * l, new_l2 = l2 + (w * l) * l;
            const vint better = (new_lx * new_lx) * *sum_l2 > (*sum_lx * *sum_lx) * new_l2;
            const vint changes = (lesser(lx, new_l2) > 0) & (l != old) & better;
            const vfloat next = choose(changes, l, old);
            c->level[i][v % VECTORS] = next;
            c->lx[i][v % VECTORS] = wx * next;
            *sum_lx = choose(changes, new_lx, *sum_lx);
            *sum_l2 = choose(changes, new_l2, *sum_l2);
        }
    }
}

/* Of all sub-blocks of all batches. */
#define MOST_SUB_BLOCKS (SUB_BLOCKS * MOST_BATCHES)

typedef struct {
    float scale[MOST_SUB_BLOCKS];
    float inverse[MOST_SUB_BLOCKS];     /* as of turn_columns */
    float extreme[MOST_SUB_BLOCKS];     /* likewise */
    uint8_t was_swept[MOST_SUB_BLOCKS]; /* the levels are not those that inverse gives */
} turn_table;

_Static_assert(sizeof(float[MOST_SUB_BLOCKS][18]) <= WORK_BYTES, "the state of all sub-blocks has to fit");

/* What is carried from one sweep to the next for a sub-block that is not settled. */
typedef struct {
    float level[MOST_SUB_BLOCKS][16];
    float sum_lx[MOST_SUB_BLOCKS], sum_l2[MOST_SUB_BLOCKS];
} turn_state;

INLINE void turn_scales(const turn_columns *c, vfloat *scale)
{
    EACH (v) scale[v] = choose(c->sum_l2[v] > 0, c->sum_lx[v] / c->sum_l2[v], all(0));
}

INLINE void load_state(const turn_state *state, const int *places, turn_columns *c)
{
    load_columns_at(state->level[0], places, 16, c->level);
    for (int i = 0; i < 16; i++) {
        EACH (v) c->lx[i][v] = ((c->x[i][v] * c->x[i][v]) * c->x[i][v]) * c->level[i][v];
    }
    for (int k = 0; k < LANES; k++) {
        c->sum_lx[k / WIDTH][k % WIDTH] = state->sum_lx[places[k]];
        c->sum_l2[k / WIDTH][k % WIDTH] = state->sum_l2[places[k]];
    }
}

INLINE void save_lane(const turn_columns *c, int k, turn_state *state, int place)
{
    for (int i = 0; i < 16; i++) state->level[place][i] = c->level[i][k / WIDTH][k % WIDTH];
    state->sum_lx[place] = c->sum_lx[k / WIDTH][k % WIDTH];
    state->sum_l2[place] = c->sum_l2[k / WIDTH][k % WIDTH];
}

/* Puts the result of the first count lanes where it belongs; gives how many of them go on, and saves these. */
INLINE int leave_settled(const turn_columns *c, const int *lanes, int count, turn_state *state, turn_table *table,
                         int *places)
{
    vfloat scale[VECTORS];
    vint settled[VECTORS];
    float scales[LANES];
    int left = 0;
    find_settled(c, settled);
    turn_scales(c, scale);
    store_lanes(scales, scale);
    for (int k = 0; k < count; k++) table->scale[lanes[k]] = scales[k];
    for (uint32_t bits = ~lane_bits(settled); bits != 0; bits &= bits - 1) {
        const int k = __builtin_ctz(bits);
        if (k >= count) break;
        save_lane(c, k, state, lanes[k]);
        places[left++] = lanes[k];
    }
    return left;
}

/* Sweeps gathered sub-blocks once; gives how many are still not settled, and moves these to the front of places. */
static __attribute__((noinline)) int sweep_all(const float *weights, int *places, int count, int is_first,
                                               turn_state *state, turn_table *table)
{
    int left = 0;
    for (int at = 0; at < count; at += SWEEP_GROUPS * LANES) {
        int lanes[SWEEP_GROUPS * LANES];
        turn_columns c[SWEEP_GROUPS];
        const int left_over = count - at < SWEEP_GROUPS * LANES ? count - at : SWEEP_GROUPS * LANES;
        memcpy(lanes, places + at, (size_t)left_over * sizeof *lanes);
        for (int k = left_over; k < SWEEP_GROUPS * LANES; k++) lanes[k] = places[at];
        for (int g = 0; g < SWEEP_GROUPS; g++) {
            load_turns(weights, lanes + g * LANES, &c[g]);
            if (is_first) {
                start_turns(&c[g]);
            } else {
                load_state(state, lanes + g * LANES, &c[g]);
            }
        }
        sweep(c);
        for (int g = 0; g < SWEEP_GROUPS && at + g * LANES < count; g++) {
            const int some = count - at - g * LANES < LANES ? count - at - g * LANES : LANES;
            left += leave_settled(&c[g], lanes + g * LANES, some, state, table, places + left);
        }
    }
    return left;
}

INLINE void fit_turns(const batch *b, turn_table *table)
{
    turn_state *const state = b->work;
    const int sub_blocks = SUB_BLOCKS * b->batches;
    int places[MOST_SUB_BLOCKS], count = 0;
    vint overflow[VECTORS] = {{0}};
    memset(table->was_swept, 0, sizeof table->was_swept);
    memset(table->scale + sub_blocks, 0, sizeof *table->scale * (size_t)(MOST_SUB_BLOCKS - sub_blocks));
    for (int at = 0; at < sub_blocks; at += LANES) {
        turn_columns c;
        vfloat scale[VECTORS];
        vint settled[VECTORS];
        if (at + 2 * SUB_BLOCKS < sub_blocks) prefetch(b->weights + (at + 2 * SUB_BLOCKS) * 16, LANES * 16);
        load_turns(b->weights + at * 16, 0, &c);
        start_turns(&c);
        EACH (v) overflow[v] |= ~(c.sum_l2[v] <= FLT_MAX);
        find_settled(&c, settled);
        turn_scales(&c, scale);
        store_lanes(table->scale + at, scale);
        store_lanes(table->inverse + at, c.inverse);
        store_lanes(table->extreme + at, c.extreme);
        EACH (v) settled[v] = ~settled[v];
        for (uint32_t bits = lane_bits(settled); bits != 0; bits &= bits - 1) {
            const int place = at + __builtin_ctz(bits);
            table->was_swept[place] = 1;
            places[count++] = place;
        }
    }
    /* A weight that is not a number gets the level TURN_HALF - 1, and makes the sum of squares infinite or NaN. */
    *b->is_suspect = lane_bits(overflow) != 0;
    for (int pass = 0; pass < 5 && count > 0; pass++) {
        count = sweep_all(b->weights, places, count, pass == 0, state, table);
    }
}

/* With importance: the symmetric search, first for the sub-blocks, then for the scales of each super-block. */
INLINE void fit_weighted_q3(const batch *b, int part, symmetric_table *table, float *sum_w)
{
    const batch one = {.batches = 1, .weights = b->weights + part * BATCH, .importance = b->importance + part * BATCH};
    float sigma[SUB_BLOCKS];
    mean_squares(&one, 256, 16, 2, sigma);
    for (int at = 0; at < SUB_BLOCKS; at += LANES) {
        symmetric_columns c;
        symmetric_fit fit;
        vfloat sum[VECTORS] = {{0}};
        load_columns(one.weights + at * 16, 16, c.x);
        weigh_by_importance(16, c.x, one.importance + at * 16, sigma + at, c.w);
        for (int i = 0; i < 16; i++)
            EACH (v) sum[v] += c.w[i][v];
        fit_symmetric(16, TURN_HALF, &c, &fit);
        store_fit(&fit, at, table);
        store_lanes(sum_w + at, sum);
    }
}

/* The scales of LANES super-blocks: steps, unrounded, and levels -32..31, which are stored with 32 added. */
typedef struct {
    float d[LANES];
    float level[LANES * 16];
    uint8_t stored[LANES * 16];
} q3_scales;

INLINE void store_q3_levels(q3_scales *q)
{
    for (int i = 0; i < LANES * 16; i++) q->stored[i] = (uint8_t)((int32_t)q->level[i] + 32);
}

/* With importance: by a search. */
INLINE void fit_q3_scales(const float *scales, const float *sum_w, q3_scales *q)
{
    symmetric_columns c;
    symmetric_fit fit;
    float inverses[LANES];
    load_columns(scales, 16, c.x);
    load_columns(sum_w, 16, c.w);
    fit_symmetric(16, 32, &c, &fit);
    store_lanes(q->d, fit.scale);
    store_lanes(inverses, fit.inverse);
    for (int k = 0; k < LANES; k++) {
        for (int j = 0; j < 16; j++) {
            const int32_t level = clamp_int(round_bits(inverses[k] * scales[k * 16 + j]), -32, 31);
            q->level[k * 16 + j] = inverses[k] != 0 ? (float)level : -32;
        }
        /* Products may have overflowed; only the plain search rounds a NaN as it should. */
        if (!(largest_magnitude(scales + k * 16, 16) <= FLT_MAX)) {
            uint8_t levels[16];
            q->d[k] = fit_symmetric_scalar(16, 32, scales + k * 16, sum_w + k * 16, levels);
            for (int j = 0; j < 16; j++) q->level[k * 16 + j] = (float)(levels[j] - 32);
        }
    }
    store_q3_levels(q);
}

/* Without: by the largest. */
INLINE void quantize_q3_scales(const float *scales, q3_scales *q)
{
    vfloat columns[16][VECTORS], extreme[VECTORS];
    float extremes[LANES];
    load_columns(scales, 16, columns);
    find_extreme(16, columns, extreme);
    store_lanes(extremes, extreme);
    for (int k = 0; k < LANES; k++) {
        const float inverse = -32.0f / extremes[k];
        q->d[k] = extremes[k] != 0 ? 1 / inverse : 0;
        if (scale_levels(scales + k * 16, inverse, 32, q->level + k * 16)) continue;
        for (int j = 0; j < 16; j++) {
            const int32_t level = clamp_int((int8_t)round_bits(inverse * scales[k * 16 + j]), -32, 31);
            q->level[k * 16 + j] = extremes[k] != 0 ? (float)level : -32;
        }
    }
    store_q3_levels(q);
}

/* Sixteen 6-bit scales in twelve bytes: low nibbles first, then the top bits of every fourth. Four bytes at a time. */
INLINE void put_q3_scales(uint8_t *out, const uint8_t *scales)
{
    uint32_t s[4], packed[3];
    memcpy(s, scales, sizeof s);
    packed[0] = (s[0] & 0x0f0f0f0f) | (s[2] & 0x0f0f0f0f) << 4;
    packed[1] = (s[1] & 0x0f0f0f0f) | (s[3] & 0x0f0f0f0f) << 4;
    packed[2] = (s[0] >> 4 & 0x03030303) | (s[1] >> 2 & 0x0c0c0c0c) | (s[2] & 0x30303030) | (s[3] << 2 & 0xc0c0c0c0);
    memcpy(out, packed, sizeof packed);
}

/* The sub-blocks of a super-block: inverse and extreme as in the tables; was_swept may be NULL. */
typedef struct {
    const float *inverse, *extreme;
    const uint8_t *was_swept;
} q3_parts;

/* The block of the k-th super-block of the group that q describes. */
INLINE void put_q3_k(uint8_t *restrict out, const float *x, const q3_scales *q, int k, const q3_parts *parts)
{
    uint8_t levels[256];
    float rounded_scales[16];
    const float rounded_d = put_rounded(out + 108, q->d[k]);
    for (int j = 0; j < 16; j++) rounded_scales[j] = rounded_d * q->level[k * 16 + j];
    const int is_ordinary = symmetric_levels(x, TURN_HALF, rounded_scales, parts->inverse, parts->extreme, levels);
    for (int j = 0; !is_ordinary && parts->was_swept && j < 16; j++) {
        if (rounded_scales[j] == 0 && parts->was_swept[j]) {
            fit_by_turns_scalar(16, TURN_HALF, x + j * 16, levels + j * 16);
        }
    }
    put_bit_planes(out, levels, 2);
    put_2_bit_planes(out + 32, levels);
    put_q3_scales(out + 96, q->stored + k * 16);
}

static void pack_q3_k(const batch *b)
{
    turn_table t;
    const int count = BATCH / 256 * b->batches;
    fit_turns(b, &t);
    for (int first = 0; first < count; first += LANES) {
        q3_scales q;
        quantize_q3_scales(t.scale + first * 16, &q);
        for (int s = first; s < count && s < first + LANES; s++) {
            const q3_parts parts = {t.inverse + s * 16, t.extreme + s * 16, t.was_swept + s * 16};
            put_q3_k(b->out + s * 110, b->weights + s * 256, &q, s - first, &parts);
        }
    }
}

/* Batches whose super-blocks, four a batch, fill the lanes. */
#define Q3_PARTS (LANES / 4)

static void pack_q3_k_weighted(const batch *b)
{
    for (int first = 0; first < b->batches; first += Q3_PARTS) {
        const int parts = b->batches - first < Q3_PARTS ? b->batches - first : Q3_PARTS;
        symmetric_table t[Q3_PARTS];
        float scales[Q3_PARTS * SUB_BLOCKS] = {0}, sum_w[Q3_PARTS * SUB_BLOCKS] = {0};
        q3_scales q;
        for (int p = 0; p < parts; p++) {
            fit_weighted_q3(b, first + p, &t[p], sum_w + p * SUB_BLOCKS);
            memcpy(scales + p * SUB_BLOCKS, t[p].scale, sizeof t[p].scale);
        }
        fit_q3_scales(scales, sum_w, &q);
        for (int s = 0; s < parts * 4; s++) {
            const int at = first * 4 + s;
            const q3_parts of = {t[s / 4].inverse + s % 4 * 16, t[s / 4].extreme + s % 4 * 16, 0};
            put_q3_k(b->out + at * 110, b->weights + at * 256, &q, s, &of);
        }
    }
}
