/* One code path. Compiled once for each instruction set, with LEVEL_NAME and LEVEL_SYMBOL naming it. */

#include "kernels.h"

#include <stdlib.h>

#include "lanes/fp4.h"
#include "lanes/iq1.h"
#include "lanes/iq23.h"
#include "lanes/iq4.h"
#include "lanes/k_affine.h"
#include "lanes/k_symmetric.h"
#include "lanes/k_turns.h"
#include "lanes/simple.h"
#include "lanes/simple_weighted.h"
#include "lanes/tiny.h"

static const packer packers[TYPE_COUNT] = {
    [TYPE_F16] = {1, 2, .ignores_importance = 1, .plain = pack_f16},
    [TYPE_BF16] = {1, 2, .ignores_importance = 1, .plain = pack_bf16},
    [TYPE_Q8_0] = {32, 34, .ignores_importance = 1, .plain = pack_q8_0},
    [TYPE_Q4_0] = {32, 18, .plain = pack_q4_0, .weighted = pack_q4_0_weighted, .needs_row_mean_square = 1},
    [TYPE_Q4_1] = {32, 20, .plain = pack_q4_1, .weighted = pack_q4_1_weighted, .needs_row_mean_square = 1},
    [TYPE_Q5_0] = {32, 22, .plain = pack_q5_0, .weighted = pack_q5_0_weighted, .needs_row_mean_square = 1},
    [TYPE_Q5_1] = {32, 24, .plain = pack_q5_1, .weighted = pack_q5_1_weighted, .needs_row_mean_square = 1},
    [TYPE_Q2_K] = {256, 84, .plain = pack_q2_k, .weighted = pack_q2_k_weighted},
    [TYPE_Q3_K] = {256, 110, .plain = pack_q3_k, .weighted = pack_q3_k_weighted, .most_batches = MOST_BATCHES,
                   .plain_suspects = 1},
    [TYPE_Q4_K] = {256, 144, .plain = pack_q4_k, .weighted = pack_q4_k_weighted},
    [TYPE_Q5_K] = {256, 176, .plain = pack_q5_k, .weighted = pack_q5_k_weighted},
    [TYPE_Q6_K] = {256, 210, .plain = pack_q6_k, .weighted = pack_q6_k_weighted},
    [TYPE_IQ4_NL] = {32, 18, .plain = pack_iq4_nl, .weighted = pack_iq4_nl_weighted},
    [TYPE_IQ4_XS] = {256, 136, .plain = pack_iq4_xs, .weighted = pack_iq4_xs_weighted},
    [TYPE_IQ2_XXS] = {256, 66, .weighted = pack_iq2_xxs_weighted, .grid_points = 256, .grid_size = 8},
    [TYPE_IQ2_XS] = {256, 74, .weighted = pack_iq2_xs_weighted, .grid_points = 512, .grid_size = 8},
    [TYPE_IQ2_S] = {256, 82, .plain = pack_iq2_s, .weighted = pack_iq2_s_weighted, .grid_points = 1024, .grid_size = 8},
    [TYPE_IQ3_XXS] = {256, 98, .plain = pack_iq3_xxs, .weighted = pack_iq3_xxs_weighted, .grid_points = 256,
                      .grid_size = 4},
    [TYPE_IQ3_S] = {256, 110, .plain = pack_iq3_s, .weighted = pack_iq3_s_weighted, .grid_points = 512, .grid_size = 4},
    [TYPE_IQ1_S] = {256, 50, .weighted = pack_iq1_s_weighted, .grid_points = 2048, .grid_size = 8},
    [TYPE_IQ1_M] = {256, 56, .plain = pack_iq1_m, .weighted = pack_iq1_m_weighted, .grid_points = 2048, .grid_size = 8},
    [TYPE_TQ1_0] = {256, 54, .ignores_importance = 1, .plain = pack_tq1_0},
    [TYPE_TQ2_0] = {256, 66, .ignores_importance = 1, .plain = pack_tq2_0},
    [TYPE_MXFP4] = {32, 17, .ignores_importance = 1, .plain = pack_mxfp4},
    [TYPE_NVFP4] = {64, 36, .ignores_importance = 1, .plain = pack_nvfp4},
    [TYPE_Q1_0] = {128, 18, .ignores_importance = 1, .plain = pack_q1_0},
    [TYPE_Q2_0] = {64, 18, .ignores_importance = 1, .plain = pack_q2_0},
};

static int is_finite(float value) { return (bits_of(value) & 0x7f800000) != 0x7f800000; }

/* Whether all weights of a batch are numbers. What is not gives NaN when multiplied by zero. */
static int is_batch_finite(const float *weights)
{
    enum { SUMS = 4 };
    vint found[SUMS] = {{0}};
    uint32_t any = 0;
    for (int i = 0; i < BATCH; i += SUMS * WIDTH) {
        for (int k = 0; k < SUMS; k++) {
            vfloat x;
            memcpy(&x, weights + i + k * WIDTH, sizeof x);
            found[k] |= (vint)(x * 0);
        }
    }
    for (int k = 0; k < SUMS; k++) any |= mask_bits((found[k] & 0x7fffffff) != 0);
    return any == 0;
}

static size_t find_nonfinite(const float *weights, size_t count)
{
    for (size_t at = 0; at < count; at += BATCH) {
        const size_t some = count - at < BATCH ? count - at : BATCH;
        if (count - at >= 3 * BATCH) prefetch(weights + at + 2 * BATCH, BATCH);
        if (some == BATCH && is_batch_finite(weights + at)) continue;
        for (size_t i = at; i < at + some; i++) {
            if (!is_finite(weights[i])) return i;
        }
    }
    return count;
}

/* Importance of count weights from first on: the columns of a row, over and over. */
static void fill_importance(const pack_job *job, size_t first, size_t count, float *to)
{
    size_t column = first % job->columns;
    for (size_t done = 0; done < count;) {
        const size_t left = job->columns - column, some = left < count - done ? left : count - done;
        memcpy(to + done, job->importance + column, some * sizeof *to);
        done += some;
        column = 0;
    }
}

/* Mean square of a row, summed from left to right. Four rows at a time: each chain of additions waits for itself. */
static void row_mean_squares(const float *rows, size_t columns, size_t count, float *means)
{
    float sums[4] = {0};
    if (count == 4) {
        for (size_t i = 0; i < columns; i++) {
            for (int r = 0; r < 4; r++) sums[r] += rows[r * columns + i] * rows[r * columns + i];
        }
    } else {
        for (size_t r = 0; r < count; r++) {
            for (size_t i = 0; i < columns; i++) sums[r] += rows[r * columns + i] * rows[r * columns + i];
        }
    }
    for (size_t r = 0; r < count; r++) means[r] = sums[r] / (float)columns;
}

typedef struct {
    const pack_job *job;
    size_t first_row, rows; /* whose means are known */
    float means[4];
} row_cache;

static float row_mean_square(row_cache *cache, size_t row)
{
    const pack_job *job = cache->job;
    if (row - cache->first_row >= cache->rows) {
        const size_t left = job->count / job->columns - row;
        cache->first_row = row;
        cache->rows = left < 4 ? left : 4;
        row_mean_squares(job->weights + row * job->columns, job->columns, cache->rows, cache->means);
    }
    return cache->means[row - cache->first_row];
}

/* What a kernel is given where the arguments do not have it as it needs it. */
typedef struct {
    double work[WORK_BYTES / sizeof(double)];
    float weights[BATCH * MOST_BATCHES];
    float importance[BATCH * MOST_BATCHES];
    float row_mean_square[BATCH / 32];
    uint8_t out[BATCH * MOST_BATCHES * 2]; /* no type needs more than two bytes a weight */
} scratch_memory;

/* Packs the weights from..from+count, which may end anywhere in a batch; gives 0 if a kernel that looks suspects that
 * some are not numbers. */
static int pack_some(const pack_job *job, size_t from, size_t count, row_cache *cache, scratch_memory *scratch)
{
    const packer *p = job->packer;
    const int weighted = job->importance && !p->ignores_importance;
    const size_t batches = (count + BATCH - 1) / BATCH, whole = batches * BATCH;
    uint8_t *const place = job->out + from / p->block_weights * p->block_bytes;
    int is_suspect = 0;
    batch b = {(int)batches, job->weights + from, scratch->importance, scratch->row_mean_square, place, scratch->work,
               &is_suspect, job->grid};
    if (weighted) fill_importance(job, from, whole, scratch->importance);
    if (weighted && p->needs_row_mean_square) {
        for (size_t i = 0; i < count; i += 32) {
            scratch->row_mean_square[i / 32] = row_mean_square(cache, (from + i) / job->columns);
        }
    }
    if (count < whole) {
        /* Filled up with zeros, and packed where it may be longer than what is asked for. */
        memcpy(scratch->weights, b.weights, count * sizeof *b.weights);
        memset(scratch->weights + count, 0, (whole - count) * sizeof *b.weights);
        b.weights = scratch->weights;
        b.out = scratch->out;
    }
    (weighted ? p->weighted : p->plain)(&b);
    if (count < whole) memcpy(place, scratch->out, count / p->block_weights * p->block_bytes);
    return !is_suspect;
}

static size_t pack(const pack_job *job)
{
    const size_t step = BATCH * (size_t)(job->packer->most_batches ? job->packer->most_batches : 1);
    row_cache cache = {job, 0, 0, {0}};
    scratch_memory *const scratch = malloc(sizeof *scratch);
    size_t end = scratch ? job->count : PACK_FAILED;
    const int looks_first = !job->packer->plain_suspects || job->importance;
    if (scratch) memset(scratch->row_mean_square, 0, sizeof scratch->row_mean_square);

    for (size_t at = 0; scratch && at < job->count; at += step) {
        const size_t some = job->count - at < step ? job->count - at : step;
        size_t bad = looks_first ? find_nonfinite(job->weights + at, some) : some;
        if (bad == some && !pack_some(job, at, some, &cache, scratch)) bad = find_nonfinite(job->weights + at, some);
        if (bad < some) {
            end = at + bad;
            break;
        }
    }
    free(scratch);
    return end;
}

static void f16_to_f32(const uint16_t *from, float *to, size_t count)
{
    for (size_t i = 0; i < count; i++) to[i] = float_of_half(from[i]);
}

static void bf16_to_f32(const uint16_t *from, float *to, size_t count)
{
    for (size_t i = 0; i < count; i++) to[i] = float_of((uint32_t)from[i] << 16);
}

static void f32_to_f16(const float *from, uint16_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++) to[i] = half_of(from[i]);
}

static void f32_to_bf16(const float *from, uint16_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++) to[i] = bfloat_of(from[i]);
}

const level LEVEL_SYMBOL = {LEVEL_NAME, packers,     find_nonfinite, pack,
                            f16_to_f32, bf16_to_f32, f32_to_f16,     f32_to_bf16};
