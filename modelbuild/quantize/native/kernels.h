/* What the binding (module.c) and the code paths (level_*.c) agree on.
 *
 * A code path is one compilation of level.c for one instruction set. All of them hold the same kernels and give the
 * same bytes: every float operation is a separately rounded IEEE binary32 operation, in the order of the scalar
 * definition. Speed comes from treating many independent sub-blocks side by side, never from reordering one of them.
 */
#ifndef MODELBUILD_KERNELS_H
#define MODELBUILD_KERNELS_H

#include "grid.h"

#include <float.h>
#include <stddef.h>
#include <stdint.h>

#if defined __FAST_MATH__ || defined __FINITE_MATH_ONLY__ && __FINITE_MATH_ONLY__
#error "these kernels are exact only with IEEE arithmetic: do not build them with -ffast-math"
#endif

#if FLT_EVAL_METHOD != 0
#error "these kernels need float arithmetic without excess precision: on 32-bit x86 add -msse2 -mfpmath=sse"
#endif

/* Type numbers of GGUF files. */
enum {
    TYPE_F16 = 1,
    TYPE_Q4_0 = 2,
    TYPE_Q4_1 = 3,
    TYPE_Q5_0 = 6,
    TYPE_Q5_1 = 7,
    TYPE_Q8_0 = 8,
    TYPE_Q2_K = 10,
    TYPE_Q3_K = 11,
    TYPE_Q4_K = 12,
    TYPE_Q5_K = 13,
    TYPE_Q6_K = 14,
    TYPE_IQ2_XXS = 16,
    TYPE_IQ2_XS = 17,
    TYPE_IQ3_XXS = 18,
    TYPE_IQ1_S = 19,
    TYPE_IQ4_NL = 20,
    TYPE_IQ3_S = 21,
    TYPE_IQ2_S = 22,
    TYPE_IQ4_XS = 23,
    TYPE_IQ1_M = 29,
    TYPE_BF16 = 30,
    TYPE_TQ1_0 = 34,
    TYPE_TQ2_0 = 35,
    TYPE_MXFP4 = 39,
    TYPE_NVFP4 = 40,
    TYPE_Q1_0 = 41,
    TYPE_Q2_0 = 42,
    TYPE_COUNT = 48
};

/* Weights that a kernel packs at a time: a multiple of every block size and of every lane group. */
#define BATCH 1024
/* Batches that a kernel is given at most, where it gathers what needs more work. */
#define MOST_BATCHES 64
/* Memory for such a kernel, too much for the stack of a thread. */
#define WORK_BYTES (BATCH * MOST_BATCHES * 8)

/* Weights and where their blocks go. */
typedef struct {
    int batches; /* always 1, but for kernels that take more */
    const float *weights;
    const float *importance;      /* one value a weight; NULL: none */
    const float *row_mean_square; /* one value a 32 weights: mean square of the whole row; only with importance */
    uint8_t *out;
    void *work; /* WORK_BYTES, aligned for anything */
    int *is_suspect; /* set by kernels that look for NaN and infinity themselves; a sum that overflowed also does it */
    const grid *grid;
} batch;

typedef void (*pack_batch)(const batch *);

/* How one type is packed; a NULL function: this build has no kernel for it. */
typedef struct {
    uint16_t block_weights;
    uint16_t block_bytes;
    uint8_t ignores_importance;
    uint8_t needs_row_mean_square; /* the weighted kernel does */
    uint8_t most_batches;          /* that the kernels take at once; 0: 1 */
    uint8_t plain_suspects;        /* the plain kernel sets is_suspect, so that nobody has to look beforehand */
    uint16_t grid_points;          /* of the grid it needs; 0: none */
    uint8_t grid_size;             /* levels of its points */
    pack_batch plain;
    pack_batch weighted;
} packer;

/* A job: count weights in rows of columns; count is a multiple of columns, columns of the block size. */
typedef struct {
    const packer *packer;
    const float *weights;
    const float *importance; /* columns values or NULL */
    const grid *grid;        /* of the shape that the packer needs, or NULL */
    size_t count;
    size_t columns;
    uint8_t *out;
} pack_job;

#define PACK_FAILED SIZE_MAX

typedef struct {
    const char *name;
    const packer *packers; /* TYPE_COUNT of them */
    /* Index of the first NaN or infinity, or count. */
    size_t (*find_nonfinite)(const float *weights, size_t count);
    /* Packs a job; stops at a NaN or infinity and gives its index, else count; PACK_FAILED without memory. */
    size_t (*pack)(const pack_job *job);
    void (*f16_to_f32)(const uint16_t *from, float *to, size_t count);
    void (*bf16_to_f32)(const uint16_t *from, float *to, size_t count);
    void (*f32_to_f16)(const float *from, uint16_t *to, size_t count);
    void (*f32_to_bf16)(const float *from, uint16_t *to, size_t count);
} level;

extern const level level_baseline;
extern const level level_avx2;
extern const level level_avx512;

#endif
