"""Searches for the scale of a group of values: the heart of the K types and of packing with importance.

All work on lanes of shape (n, lanes) and give one result per lane. Formulas: ggml-quants.c of llama.cpp (October 2026),
named at each function; the order of every sum and product is part of the result.
"""

from __future__ import annotations

import numpy as np

from modelbuild.quantize.reference.arrays import (
    EMPTY,
    FROM_FIRST,
    Bool,
    Float32,
    first_largest,
    first_max,
    first_min,
    ordered_sum,
    round_levels,
)
from modelbuild.records import record

_ZERO = np.float32(0)
_ONE = np.float32(1)
_TENTH = np.float32(0.1)
#: Sweeps of single-level improvements; the original stops there too.
_SWEEPS = 5


@record
class AffineSearch:
    """How `search_affine` goes: levels 0..levels, steps from first_step in step_size, absolute or squared errors."""

    levels: int
    first_step: float
    step_size: float
    steps: int
    absolute: bool = False


def search_affine(
    x: Float32, weights: Float32, how: AffineSearch, *, needs_range: bool
) -> tuple[Float32, Float32, Float32]:
    """Scale, offset and levels so that x is about scale * level - offset with levels from 0.

    needs_range: also lanes whose maximum is below zero count as flat (the variant for importance).
    Returns scale and offset of shape (lanes,) and levels of shape (n, lanes).
    Source: make_qkx2_quants, make_qkx3_quants.
    """
    top = np.float32(how.levels)
    low, high = first_min(x), first_max(x)
    low = np.where(low > 0, _ZERO, low)
    flat = high <= low if needs_range else high == low
    sum_w, sum_wx = ordered_sum(weights, FROM_FIRST), ordered_sum(weights * x, FROM_FIRST)
    step = _AffineStep(top / (high - low), low)
    scale = _ONE / step.inverse
    best = _affine_error(x, weights, how, step.levels(x, how.levels), scale, low)
    for index in range(how.steps + 1):
        offset = np.float32(how.first_step) + np.float32(how.step_size) * np.float32(index)
        trial = _AffineStep((offset + top) / (high - low), low)
        levels = trial.levels(x, how.levels)
        new_scale, new_low, sound = _fit_line(x, weights, levels, sum_w, sum_wx)
        error = _affine_error(x, weights, how, levels, new_scale, new_low)
        better = sound & (error < best) & ~flat
        # The lowest value in force changes at once: later steps measure from it.
        low = np.where(better, new_low, low)
        best, scale = np.where(better, error, best), np.where(better, new_scale, scale)
        step = step.replaced(better, trial)
    levels = step.levels(x, how.levels)
    return np.where(flat, _ZERO, scale), -low, np.where(flat, _ZERO, levels)


@record
class _AffineStep:
    """One set of levels, kept as what they were made from: far less to carry than the levels."""

    inverse: Float32
    low: Float32

    def levels(self, x: Float32, top: int) -> Float32:
        return round_levels(self.inverse * (x - self.low), 0, top)

    def replaced(self, where: Bool, other: _AffineStep) -> _AffineStep:
        return _AffineStep(np.where(where, other.inverse, self.inverse), np.where(where, other.low, self.low))


def _fit_line(
    x: Float32, weights: Float32, levels: Float32, sum_w: Float32, sum_wx: Float32
) -> tuple[Float32, Float32, Bool]:
    """The weighted least-squares scale and offset for given levels, and where they exist."""
    product = weights * levels
    sum_l, sum_lx = ordered_sum(product), ordered_sum(product * x)
    product *= levels
    sum_l2 = ordered_sum(product)
    determinant = sum_w * sum_l2 - sum_l * sum_l
    scale = (sum_w * sum_lx - sum_wx * sum_l) / determinant
    low = (sum_l2 * sum_wx - sum_l * sum_lx) / determinant
    above = low > 0
    return np.where(above, sum_lx / sum_l2, scale), np.where(above, _ZERO, low), determinant > 0


def _affine_error(
    x: Float32, weights: Float32, how: AffineSearch, levels: Float32, scale: Float32, low: Float32
) -> Float32:
    difference = levels
    difference *= scale
    difference += low
    difference -= x
    if how.absolute:
        np.abs(difference, out=difference)
    else:
        difference *= difference
    difference *= weights
    return ordered_sum(difference)


def search_symmetric(x: Float32, half: int, weights: Float32 | None = None) -> tuple[Float32, Float32]:
    """Scale and levels so that x is about scale * (level - half), with levels 0..2*half-1.

    weights: the squares of x when None. Returns (lanes,) and (n, lanes); an empty lane has scale 0 and levels 0.
    Source: make_qx_quants, mode 1.
    """
    extreme = first_largest(x)
    weights = x * x if weights is None else weights
    wx = weights * x
    inverse = np.float32(-half) / extreme
    sum_lx, sum_l2, _ = _symmetric_sums(x, weights, wx, inverse, half)
    scale = np.where(sum_l2 != 0, sum_lx / sum_l2, _ZERO)
    best = scale * sum_lx
    for index in (*range(-9, 0), *range(1, 10)):
        trial = -(np.float32(half) + _TENTH * np.float32(index)) / extreme
        sum_lx, sum_l2, _ = _symmetric_sums(x, weights, wx, trial, half)
        better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        scale = np.where(better, sum_lx / sum_l2, scale)
        best = np.where(better, scale * sum_lx, best)
        inverse = np.where(better, trial, inverse)
    empty = np.abs(extreme) < EMPTY
    levels = round_levels(inverse * x, -half, half - 1) + np.float32(half)
    return np.where(empty, _ZERO, scale), np.where(empty, _ZERO, levels)


def _symmetric_sums(
    x: Float32, weights: Float32, wx: Float32, inverse: Float32, half: int
) -> tuple[Float32, Float32, Float32]:
    levels = round_levels(inverse * x, -half, half - 1)
    sum_lx = ordered_sum(wx * levels)
    product = weights * levels
    product *= levels
    return sum_lx, ordered_sum(product), levels


def search_swept(x: Float32, half: int) -> tuple[Float32, Float32]:
    """Like `search_symmetric` with squares as weights, but improved level by level.

    Source: make_q3_quants with error minimisation.
    """
    extreme = first_largest(x)
    weights = x * x
    wx = weights * x
    sum_lx, sum_l2, levels = _symmetric_sums(x, weights, wx, np.float32(-half) / extreme, half)
    for _ in range(_SWEEPS):
        changed = False
        for i in range(len(x)):
            old = levels[i]
            rest_lx = sum_lx - wx[i] * old
            rest_l2 = sum_l2 - (weights[i] * old) * old
            new = round_levels((x[i] * rest_l2) / rest_lx, -half, half - 1)
            with_lx, with_l2 = rest_lx + wx[i] * new, rest_l2 + (weights[i] * new) * new
            better = (rest_lx > 0) & (new != old) & (with_l2 > 0)
            better &= (with_lx * with_lx) * sum_l2 > (sum_lx * sum_lx) * with_l2
            if better.any():
                changed = True
                levels[i] = np.where(better, new, old)
                sum_lx, sum_l2 = np.where(better, with_lx, sum_lx), np.where(better, with_l2, sum_l2)
        if not changed:
            break
    empty = np.abs(extreme) < EMPTY
    scale = np.where(sum_l2 > 0, sum_lx / sum_l2, _ZERO)
    return np.where(empty, _ZERO, scale), np.where(empty, _ZERO, levels + np.float32(half))


def search_positive(x: Float32, top: int, weights: Float32) -> tuple[Float32, Float32]:
    """Scale and levels 0..top so that x is about scale * level, for x that are hardly ever negative.

    Used for the scales and offsets of a block, one lane per block. Source: make_qp_quants.
    """
    greatest: Float32 = np.maximum(first_max(x), _ZERO)
    inverse = np.float32(top) / greatest
    # The first levels are not cut to top. All levels are kept in a byte, which matters for the few negative x.
    best = _positive_error(x, weights, _as_byte(_round_up_to(inverse * x, None)), _ONE / inverse)
    for index in (*range(-4, 0), *range(1, 5)):
        trial = (_TENTH * np.float32(index) + np.float32(top)) / greatest
        error = _positive_error(x, weights, _round_up_to(trial * x, top), _ONE / trial)
        better = error < best
        best, inverse = np.where(better, error, best), np.where(better, trial, inverse)
    levels = _round_up_to(inverse * x, top)
    wx = weights * x
    sum_lx, sum_l2 = ordered_sum(wx * levels), ordered_sum((weights * levels) * levels)
    sum_lx, sum_l2, levels = _sweep_positive(x, weights, wx, top, (sum_lx, sum_l2, _as_byte(levels)))
    empty = greatest < EMPTY
    scale = np.where(sum_l2 > 0, sum_lx / sum_l2, _ZERO)
    return np.where(empty, _ZERO, scale), np.where(empty, _ZERO, levels)


def _sweep_positive(
    x: Float32, weights: Float32, wx: Float32, top: int, state: tuple[Float32, Float32, Float32]
) -> tuple[Float32, Float32, Float32]:
    sum_lx, sum_l2, levels = state
    for _ in range(_SWEEPS):
        changed = False
        for i in range(len(x)):
            old = levels[i]
            rest_lx = sum_lx - wx[i] * old
            rest_l2 = sum_l2 - (weights[i] * old) * old
            new = _round_up_to((x[i] * rest_l2) / rest_lx, top)
            with_lx, with_l2 = rest_lx + wx[i] * new, rest_l2 + (weights[i] * new) * new
            better = (rest_lx > 0) & (rest_l2 > 0) & (new != old)
            better &= (with_lx * with_lx) * sum_l2 > (sum_lx * sum_lx) * with_l2
            if better.any():
                changed = True
                levels[i] = np.where(better, _as_byte(new), old)
                sum_lx, sum_l2 = np.where(better, with_lx, sum_lx), np.where(better, with_l2, sum_l2)
        if not changed:
            break
    return sum_lx, sum_l2, levels


def _positive_error(x: Float32, weights: Float32, levels: Float32, scale: Float32) -> Float32:
    difference = x - scale * levels
    return ordered_sum((weights * difference) * difference)


def _round_up_to(values: Float32, top: int | None) -> Float32:
    """Values rounded half to even, cut to at most `top`; only there, as the original does."""
    lowest, highest = -0x400000, 0x3FFFFF
    return round_levels(values, lowest, highest if top is None else top)


def _as_byte(levels: Float32) -> Float32:
    whole: Float32 = np.floor(levels / np.float32(256))
    return levels - np.float32(256) * whole
