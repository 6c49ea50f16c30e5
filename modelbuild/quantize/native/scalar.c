#include "scalar.h"

#include <math.h>

static float affine_error(const affine_grid *grid, const float *x, const float *w, const int32_t *levels, float scale,
                          float low)
{
    float error = 0;
    for (int i = 0; i < grid->count; i++) {
        const float diff = ((scale * (float)levels[i]) + low) - x[i];
        error += w[i] * (grid->absolute_error ? fabsf(diff) : diff * diff);
    }
    return error;
}

affine_fit fit_affine_scalar(const affine_grid *grid, const float *x, const float *w)
{
    float low = x[0], high = x[0], sum_w = w[0], sum_x = w[0] * x[0];
    for (int i = 1; i < grid->count; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    low = low > 0 ? 0 : low;
    affine_fit fit = {0, low, 0, low};
    if (high == low) return fit;

    int32_t levels[32];
    const float top = (float)grid->top;
    fit.inverse = top / (high - low);
    fit.scale = 1 / fit.inverse;
    for (int i = 0; i < grid->count; i++) {
        levels[i] = clamp_int(round_bits(fit.inverse * (x[i] - low)), 0, grid->top);
    }
    float best = affine_error(grid, x, w, levels, fit.scale, low);

    for (int step = 0; step <= grid->steps; step++) {
        /* fit.low is the running value: a step that improved moves the origin of the next ones. */
        const float inverse = ((grid->first + grid->delta * (float)step) + top) / (high - fit.low);
        float s1 = 0, s2 = 0, sx = 0;
        for (int i = 0; i < grid->count; i++) {
            levels[i] = clamp_int(round_bits(inverse * (x[i] - fit.low)), 0, grid->top);
            const float l = (float)levels[i], p = w[i] * l;
            s1 += p;
            s2 += p * l;
            sx += p * x[i];
        }
        const float determinant = sum_w * s2 - s1 * s1;
        if (!(determinant > 0)) continue;
        float scale = (sum_w * sx - sum_x * s1) / determinant;
        float offset = (s2 * sum_x - s1 * sx) / determinant;
        if (offset > 0) {
            offset = 0;
            scale = sx / s2;
        }
        const float error = affine_error(grid, x, w, levels, scale, offset);
        if (error < best) {
            best = error;
            fit.inverse = inverse;
            fit.low_then = fit.low;
            fit.scale = scale;
            fit.low = offset;
        }
    }
    return fit;
}

/* top < 0: levels are not cut but kept in a byte, which changes the few that are negative. */
static float positive_error(int count, int top, const float *x, const float *w, float inverse)
{
    const float scale = 1 / inverse;
    float error = 0;
    for (int i = 0; i < count; i++) {
        int32_t level = round_bits(inverse * x[i]);
        level = top < 0 ? (uint8_t)level : level > top ? top : level;
        const float diff = x[i] - scale * (float)level;
        error += (w[i] * diff) * diff;
    }
    return error;
}

float fit_positive_scalar(int count, int top, const float *x, const float *w, uint8_t *levels)
{
    float max = 0;
    for (int i = 0; i < count; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < count; i++) levels[i] = 0;
    if (max < NEARLY_ZERO) return 0;

    float inverse = (float)top / max;
    float best = positive_error(count, -1, x, w, inverse);
    for (int step = -4; step <= 4; step++) {
        if (step == 0) continue;
        const float trial = (0.1f * (float)step + (float)top) / max;
        const float error = positive_error(count, top, x, w, trial);
        if (error < best) {
            best = error;
            inverse = trial;
        }
    }

    float sum_lx = 0, sum_l2 = 0;
    for (int i = 0; i < count; i++) {
        int32_t level = round_bits(inverse * x[i]);
        level = level > top ? top : level;
        levels[i] = (uint8_t)level;
        sum_lx += (w[i] * x[i]) * (float)level;
        sum_l2 += (w[i] * (float)level) * (float)level;
    }
    for (int pass = 0; pass < 5; pass++) {
        int changed = 0;
        for (int i = 0; i < count; i++) {
            const float old = (float)levels[i];
            float lx = sum_lx - (w[i] * x[i]) * old, l2 = sum_l2 - (w[i] * old) * old;
            if (!(lx > 0 && l2 > 0)) continue;
            int32_t level = round_bits((x[i] * l2) / lx);
            level = level > top ? top : level;
            if (level == levels[i]) continue;
            lx += (w[i] * x[i]) * (float)level;
            l2 += (w[i] * (float)level) * (float)level;
            if ((lx * lx) * sum_l2 > (sum_lx * sum_lx) * l2) {
                levels[i] = (uint8_t)level;
                sum_lx = lx;
                sum_l2 = l2;
                changed = 1;
            }
        }
        if (!changed) break;
    }
    return sum_l2 > 0 ? sum_lx / sum_l2 : 0;
}

float fit_symmetric_scalar(int count, int half, const float *x, const float *w, uint8_t *levels)
{
    float amax = 0, extreme = 0;
    for (int i = 0; i < count; i++) {
        if (fabsf(x[i]) > amax) {
            amax = fabsf(x[i]);
            extreme = x[i];
        }
    }
    for (int i = 0; i < count; i++) levels[i] = 0;
    if (amax < NEARLY_ZERO) return 0;

    float best = 0, scale = 0, winner = 0;
    for (int trial = 0; trial <= 18; trial++) {
        /* The plain range first, then -9..9 tenths of a level more without 0. */
        const int tenths = trial == 0 ? 0 : trial <= 9 ? trial - 10 : trial - 9;
        const float inverse = trial == 0 ? -(float)half / extreme : -((float)half + 0.1f * (float)tenths) / extreme;
        float sum_lx = 0, sum_l2 = 0;
        for (int i = 0; i < count; i++) {
            const float l = (float)clamp_int(round_bits(inverse * x[i]), -half, half - 1);
            sum_lx += (w[i] * x[i]) * l;
            sum_l2 += (w[i] * l) * l;
        }
        if (trial == 0) {
            scale = sum_l2 != 0 ? sum_lx / sum_l2 : 0;
            best = scale * sum_lx;
            winner = inverse;
        } else if (sum_l2 > 0 && sum_lx * sum_lx > best * sum_l2) {
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
            winner = inverse;
        }
    }
    for (int i = 0; i < count; i++) {
        levels[i] = (uint8_t)(half + clamp_int(round_bits(winner * x[i]), -half, half - 1));
    }
    return scale;
}

float fit_by_turns_scalar(int count, int half, const float *x, uint8_t *levels)
{
    float amax = 0, extreme = 0;
    for (int i = 0; i < count; i++) {
        if (fabsf(x[i]) > amax) {
            amax = fabsf(x[i]);
            extreme = x[i];
        }
    }
    for (int i = 0; i < count; i++) levels[i] = 0;
    if (amax < NEARLY_ZERO) return 0;

    const float inverse = -(float)half / extreme;
    int32_t signed_levels[32];
    float sum_lx = 0, sum_l2 = 0;
    for (int i = 0; i < count; i++) {
        signed_levels[i] = clamp_int(round_bits(inverse * x[i]), -half, half - 1);
        const float w = x[i] * x[i], l = (float)signed_levels[i];
        sum_lx += (w * x[i]) * l;
        sum_l2 += (w * l) * l;
    }
    for (int pass = 0; pass < 5; pass++) {
        int changed = 0;
        for (int i = 0; i < count; i++) {
            const float w = x[i] * x[i], old = (float)signed_levels[i];
            float lx = sum_lx - (w * x[i]) * old;
            if (!(lx > 0)) continue;
            float l2 = sum_l2 - (w * old) * old;
            const int32_t level = clamp_int(round_bits((x[i] * l2) / lx), -half, half - 1);
            if (level == signed_levels[i]) continue;
            lx += (w * x[i]) * (float)level;
            l2 += (w * (float)level) * (float)level;
            if (l2 > 0 && (lx * lx) * sum_l2 > (sum_lx * sum_lx) * l2) {
                signed_levels[i] = level;
                sum_lx = lx;
                sum_l2 = l2;
                changed = 1;
            }
        }
        if (!changed) break;
    }
    for (int i = 0; i < count; i++) levels[i] = (uint8_t)(signed_levels[i] + half);
    return sum_l2 > 0 ? sum_lx / sum_l2 : 0;
}
