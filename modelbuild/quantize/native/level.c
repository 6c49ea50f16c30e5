/* One code path. Compiled once for each instruction set, with LEVEL_NAME and LEVEL_SYMBOL naming it. */

#include "kernels.h"

#include "lanes/k_affine.h"
#include "lanes/k_symmetric.h"
#include "lanes/k_turns.h"
#include "lanes/simple.h"

static const packer packers[TYPE_COUNT] = {
    [TYPE_F16] = {1, 2, 1, 0, pack_f16, 0},
    [TYPE_BF16] = {1, 2, 1, 0, pack_bf16, 0},
    [TYPE_Q4_0] = {32, 18, 0, 1, pack_q4_0, 0},
    [TYPE_Q4_1] = {32, 20, 0, 1, pack_q4_1, 0},
    [TYPE_Q5_0] = {32, 22, 0, 1, pack_q5_0, 0},
    [TYPE_Q5_1] = {32, 24, 0, 1, pack_q5_1, 0},
    [TYPE_Q8_0] = {32, 34, 1, 0, pack_q8_0, 0},
    [TYPE_Q2_K] = {256, 84, 0, 0, pack_q2_k, pack_q2_k_weighted},
    [TYPE_Q3_K] = {256, 110, 0, 0, pack_q3_k, pack_q3_k_weighted},
    [TYPE_Q4_K] = {256, 144, 0, 0, pack_q4_k, pack_q4_k_weighted},
    [TYPE_Q5_K] = {256, 176, 0, 0, pack_q5_k, pack_q5_k_weighted},
    [TYPE_Q6_K] = {256, 210, 0, 0, pack_q6_k, pack_q6_k_weighted},
};

static int is_finite(float value) { return (bits_of(value) & 0x7f800000) != 0x7f800000; }

static size_t find_nonfinite(const float *weights, size_t count)
{
    for (size_t at = 0; at < count; at += BATCH) {
        const size_t some = count - at < BATCH ? count - at : BATCH;
        int32_t largest = 0;
        for (size_t i = at; i < at + some; i++) {
            const int32_t bits = (int32_t)(bits_of(weights[i]) & 0x7fffffff);
            largest = bits > largest ? bits : largest;
        }
        if (largest < 0x7f800000) continue;
        for (size_t i = at; i < at + some; i++) {
            if (!is_finite(weights[i])) return i;
        }
    }
    return count;
}

/* Importance of the weights from first on: the columns of a row, over and over. */
static void fill_importance(const pack_job *job, size_t first, float *to)
{
    size_t column = first % job->columns;
    for (size_t done = 0; done < BATCH;) {
        const size_t left = job->columns - column, some = left < BATCH - done ? left : BATCH - done;
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

static size_t pack(const pack_job *job)
{
    const packer *p = job->packer;
    const int weighted = job->importance && !p->ignores_importance;
    const pack_batch kernel = weighted ? p->weighted : p->plain;
    float weights[BATCH], importance[BATCH], means[BATCH / 32] = {0};
    uint8_t out[BATCH * 2]; /* no type needs more than two bytes a weight */
    row_cache cache = {job, 0, 0, {0}};

    for (size_t at = 0; at < job->count; at += BATCH) {
        const size_t some = job->count - at < BATCH ? job->count - at : BATCH;
        const size_t bytes = some / p->block_weights * p->block_bytes;
        batch b = {job->weights + at, weighted ? importance : 0, means, job->out + at / p->block_weights * p->block_bytes};
        const size_t bad = find_nonfinite(b.weights, some);
        if (bad < some) return at + bad;
        if (weighted) fill_importance(job, at, importance);
        if (weighted && p->needs_row_mean_square) {
            for (size_t i = 0; i < some; i += 32) means[i / 32] = row_mean_square(&cache, (at + i) / job->columns);
        }
        if (some == BATCH) {
            kernel(&b);
            continue;
        }
        /* The last batch is filled up with zeros, and packed where it may be longer than what is asked for. */
        memcpy(weights, b.weights, some * sizeof *weights);
        memset(weights + some, 0, (BATCH - some) * sizeof *weights);
        uint8_t *const place = b.out;
        b.weights = weights;
        b.out = out;
        kernel(&b);
        memcpy(place, out, bytes);
    }
    return job->count;
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

const level LEVEL_SYMBOL = {LEVEL_NAME,  packers,     find_nonfinite, pack,
                            f16_to_f32, bf16_to_f32, f32_to_f16,     f32_to_bf16};
