"""The searches of the IQ2 and IQ3 types: a scale per sub-block, and for every 8 or 4 of its values a grid point.

Signs are stored apart, so the searches see magnitudes. Formulas: quantize_row_iq2_*_impl and quantize_row_iq3_*_impl of
llama.cpp's ggml-quants.c (October 2026). Lane arrays as in `arrays`; one lane is one sub-block.

A sub-block whose weights are all zero keeps the lowest point, as nothing is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelbuild.quantize.reference.arrays import Bool, Float32, Int32, Uint8, first_max, ordered_sum, round_levels
from modelbuild.quantize.reference.grids import Grid
from modelbuild.quantize.reference.search import search_positive
from modelbuild.records import record

_ZERO = np.float32(0)
_ONE = np.float32(1)
_HALF = np.float32(0.5)
_SIGNS = 8


@record
class Magnitudes:
    """Lanes without their signs: v and weights (n, lanes), signs (n // 8, lanes) with set bits for negative values."""

    v: Float32
    weights: Float32
    signs: Uint8


def split_signs(x: Float32, weights: Float32, *, even: bool) -> Magnitudes:
    """Magnitudes and sign bits of lanes.

    even: only codes with an even number of negatives exist; where the number is odd, the value that matters least gets
    the wrong sign, and its magnitude becomes negative.
    """
    eights = x.reshape(-1, _SIGNS, x.shape[1])
    negative = eights < 0
    v = np.where(negative, -eights, eights)
    if even:
        cost = (weights.reshape(eights.shape) * eights) * eights
        least = cost.argmin(axis=1)[:, np.newaxis]
        odd = (negative.sum(axis=1, keepdims=True) % 2 == 1) & (np.arange(_SIGNS).reshape(1, -1, 1) == least)
        v = np.where(odd, -v, v)
        negative ^= odd
    signs = np.packbits(negative, axis=1, bitorder="little")[:, 0]
    return Magnitudes(v.reshape(x.shape), weights, signs)


@record
class Trials:
    """The scales that are tried: (2 * top - 1 + k * step) / largest magnitude, for k from -count to count."""

    top: int
    count: int
    step: float


@record
class Found:
    """Per lane a scale (lanes,), points (groups, lanes) and signs (n // 8, lanes). used: lanes that are not empty."""

    scale: Float32
    points: Int32
    signs: Uint8
    used: Bool


def search_grid(grid: Grid, lanes: Magnitudes, trials: Trials, empty: Bool, *, refit_all: bool = False) -> Found:
    """Scale and points of every lane (all IQ2 and IQ3 types but IQ2_XXS).

    empty: lanes that are left out. refit_all: the final fit looks at all groups, not only those off the grid.
    """
    lookup = _Lookup(grid, lanes)
    greatest = first_max(lanes.v)
    scale = greatest / np.float32(2 * trials.top - 1)
    best = np.zeros_like(scale)
    points = np.zeros((lookup.groups, len(scale)), np.int32)
    on_grid = np.full(points.shape, not refit_all)
    for inverted in _trial_inverses(trials, greatest):
        trial, exact = lookup.points(inverted, _ONE / inverted, trials.top)
        sum_qx, sum_q2 = lookup.sums(trial)
        better = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
        scale = np.where(better, sum_qx / sum_q2, scale)
        best = np.where(better, scale * sum_qx, best)
        points, on_grid = np.where(better, trial, points), np.where(better, exact, on_grid)
    again = ~on_grid.all(axis=0) & (scale > 0) & ~empty
    replaced = np.broadcast_to(again, points.shape) if refit_all else again & ~on_grid
    scale, points = lookup.refit(scale, points, again, replaced, trials.top)
    return _positive(scale, points, lanes.signs, empty)


def search_grid_from_fit(grid: Grid, lanes: Magnitudes, trials: Trials, empty: Bool) -> Found:
    """Scale and points of every lane, started from a fit without a grid (IQ2_XXS).

    The trials are (2 * top - 1 + k * step) over three times the fitted scale.
    """
    lookup = _Lookup(grid, lanes)
    scale, _ = search_positive(lanes.v, trials.top + 1, lanes.weights)
    reach = scale * np.float32(trials.top)
    empty = empty | (reach <= 0)
    best = np.zeros_like(scale)
    points = np.zeros((lookup.groups, len(scale)), np.int32)
    for inverted in _trial_inverses(trials, reach):
        trial, _ = lookup.points(inverted, _ONE / inverted, trials.top)
        sum_qx, sum_q2 = lookup.sums(trial)
        better = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
        scale = np.where(better, sum_qx / sum_q2, scale)
        best = np.where(better, scale * sum_qx, best)
        points = np.where(better, trial, points)
    again = (scale > 0) & ~empty
    scale, points = lookup.refit(scale, points, again, np.broadcast_to(again, points.shape), trials.top)
    return _positive(scale, points, lanes.signs, empty)


def _trial_inverses(trials: Trials, greatest: Float32) -> Sequence[Float32]:
    start = np.float32(2 * trials.top - 1)
    steps = range(-trials.count, trials.count + 1)
    return [(start + np.float32(step) * np.float32(trials.step)) / greatest for step in steps]


def _positive(scale: Float32, points: Int32, signs: Uint8, empty: Bool) -> Found:
    """A negative scale is made positive by turning all signs."""
    turned = np.where(scale < 0, ~signs, signs)
    return Found(np.where(empty, _ZERO, np.abs(scale)), points, turned, ~empty)


class _Lookup:
    """Finds points for lanes; its arrays are laid out group by group, shape (grid size, groups * lanes)."""

    def __init__(self, grid: Grid, lanes: Magnitudes) -> None:
        self._grid, self._lanes = grid, lanes
        self._wv = lanes.weights * lanes.v
        self.groups = len(lanes.v) // grid.size
        self._v = self._by_group(lanes.v)
        self._roots = self._by_group(np.sqrt(lanes.weights))
        self._odd = grid.levels.astype(np.float32) * np.float32(2) + _ONE

    def _by_group(self, values: Float32) -> Float32:
        grouped = values.reshape(self.groups, self._grid.size, -1).transpose(1, 0, 2)
        return np.ascontiguousarray(grouped).reshape(self._grid.size, -1)

    def points(self, inverted: Float32, scale: Float32, top: int) -> tuple[Int32, Bool]:
        """The points of all groups (groups, lanes) for levels made with a scale, and which levels are points."""
        inverses = np.tile(inverted, self.groups)
        levels = round_levels(_HALF * (inverses * self._v - _ONE), 0, top - 1)
        found = self._grid.find(levels)
        off = np.flatnonzero(found < 0)
        if len(off):
            scales = np.tile(scale, self.groups)
            found[off] = self._grid.nearest(levels[:, off], self._v[:, off], self._roots[:, off], scales[off])
        exact = np.ones(len(found), np.bool_)
        exact[off] = False
        return found.reshape(self.groups, -1), exact.reshape(self.groups, -1)

    def sums(self, points: Int32) -> tuple[Float32, Float32]:
        """The sums from which the best scale for points follows."""
        q = self._odd[points].transpose(0, 2, 1).reshape(self._wv.shape)
        return ordered_sum(self._wv * q), ordered_sum((self._lanes.weights * q) * q)

    def refit(self, scale: Float32, points: Int32, again: Bool, replaced: Bool, top: int) -> tuple[Float32, Int32]:
        """Points for the final scale where `replaced`, and from all points a new scale where `again`."""
        divisor: Float32 = np.where(again, scale, _ONE)
        trial, _ = self.points(_ONE / divisor, scale, top)
        points = np.where(replaced, trial, points)
        sum_qx, sum_q2 = self.sums(points)
        return np.where(again & (sum_q2 > 0), sum_qx / sum_q2, scale), points
