"""Packers of IQ1_S and IQ1_M: 8 values become a point of levels -1, 0, 1, all shifted by an eighth up or down.

The levels of a sub-block are found by cutting its sorted values in three at the best of all places. Values that are
equal keep their order (the original leaves that to the C library's sort). Formulas: quantize_row_iq1_s_impl and
quantize_row_iq1_m_impl of llama.cpp's ggml-quants.c (October 2026); layouts: ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from modelbuild.quantize.reference.arrays import (
    Bool,
    Float32,
    Int32,
    Uint8,
    as_lanes,
    half_bytes,
    ordered_sum,
    round_levels,
)
from modelbuild.quantize.reference.grids import Grid, load_grid
from modelbuild.records import record

_ZERO = np.float32(0)
_ONE = np.float32(1)
_EIGHTH = np.float32(0.125)
_SIZE = 8
_EMPTY_S, _EMPTY_M = np.float32(1e-12), np.float32(1e-7)
#: Values of the three levels with the shift up (index 0) and down (index 1).
_SHIFTED = np.array([[-0.875, 0.125, 1.125], [-1.125, -0.125, 0.875]], np.float32)
#: Whether the first and the second half are shifted down, by the number of the combination; 0x80 and 0x08 say so.
_HALVES_DOWN = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.intp)
_LEAST = np.float32(np.finfo(np.float32).min)


@record
class _Cut:
    """Per lane the best cut: scale, from which ranks on levels are 1 and 2, and the number of the shift."""

    scale: Float32
    first: Int32
    second: Int32
    shift: npt.NDArray[np.intp]


@record
class _Lanes:
    """Sub-blocks as lanes with their values in ascending order: rank of each element, order of elements by rank."""

    x: Float32
    weights: Float32
    order: npt.NDArray[np.intp]
    ranks: npt.NDArray[np.intp]
    empty: Bool


@record
class _Found:
    """scale (lanes,), levels 0..2 and shift tables per element (n, lanes), points (groups, lanes), shift (lanes,)."""

    scale: Float32
    levels: Int32
    points: Int32
    shift: npt.NDArray[np.intp]


def pack_iq1_s(blocks: Float32, weights: Float32 | None) -> Uint8:
    """float16 d, low bytes of 32 points, then per 32 elements 16 bits: four high parts, a 3-bit scale, the shift."""
    if weights is None:
        raise AssertionError("callers refuse this type without importance")
    lanes = _sorted_lanes(blocks, weights, 32, _EMPTY_S)
    found = _finish(lanes, _cut_s(lanes), np.zeros((2, 32), np.intp) + np.arange(2)[:, np.newaxis], 1)
    d, scales = _quantize_scales(found.scale.reshape(-1, 8))
    points = found.points.T.reshape(len(blocks), 8, 4)
    words = _high_parts(points)
    some = d > 0
    down = found.shift.reshape(-1, 8).astype(np.uint16)
    words |= np.where(
        some[:, np.newaxis], (scales.astype(np.uint16) | down << np.uint16(3)) << np.uint16(12), 0
    ).astype(np.uint16)
    low = points.astype(np.uint8).reshape(len(blocks), 32)
    return np.hstack([half_bytes(d * np.float32(1.125)), low, words.astype("<u2").view(np.uint8)])


def pack_iq1_m(blocks: Float32, weights: Float32 | None) -> Uint8:
    """Low bytes of 32 points, 16 bytes of high parts and shifts, four words of 3-bit scales and a quarter of d each."""
    weights = blocks * blocks if weights is None else weights
    lanes = _sorted_lanes(blocks, weights, 16, _EMPTY_M)
    per_element = np.repeat(_HALVES_DOWN, _SIZE, axis=1)
    found = _finish(lanes, _cut_m(lanes), per_element, 3)
    d, scales = _quantize_scales(found.scale.reshape(-1, 16))
    d = _refit_step(lanes, found, per_element, d, scales)
    points = found.points.T.reshape(len(blocks), 16, 2)
    nibbles = (points >> 8).astype(np.uint8)
    nibbles |= (_HALVES_DOWN[found.shift].reshape(len(blocks), 16, 2) << 3).astype(np.uint8)
    high = nibbles[..., 0] | nibbles[..., 1] << np.uint8(4)
    low = points.astype(np.uint8).reshape(len(blocks), 32)
    return np.hstack([low, high, _scale_words(d * np.float32(1.1125), scales)])


def _sorted_lanes(blocks: Float32, weights: Float32, size: int, limit: np.float32) -> _Lanes:
    x, w = as_lanes(blocks, size), as_lanes(weights, size)
    order = np.argsort(x, axis=0, kind="stable")
    ranks = np.argsort(order, axis=0, kind="stable")
    # Without any weight no cut is better than another, and the sub-block counts as empty.
    empty = (np.abs(x).max(axis=0) < limit) | ~(w > 0).any(axis=0)
    return _Lanes(x, w, order, ranks, empty)


def _prefix_sums(values: Float32) -> Float32:
    """Sums of the first 0, 1, ... n values of each lane, (n + 1, lanes)."""
    start = np.zeros((1, values.shape[1]), np.float32)
    return np.add.accumulate(np.concatenate([start, values]), axis=0)


def _cuts(size: int) -> Iterator[tuple[int, int]]:
    return ((first, second) for first in range(size + 1) for second in range(first, size + 1))


class _Best:
    """The best cut so far of each lane."""

    def __init__(self, lanes: int) -> None:
        self.best = np.full(lanes, _LEAST)
        self.scale = np.zeros(lanes, np.float32)
        self.first, self.second = np.zeros(lanes, np.int32), np.zeros(lanes, np.int32)
        self.shift = np.zeros(lanes, np.intp)

    def offer(self, sum_qx: Float32, sum_q2: Float32, cut: tuple[int, int], shift: int) -> None:
        better = (sum_q2 > 0) & (sum_qx * sum_qx > self.best * sum_q2)
        if better.any():
            np.copyto(self.scale, sum_qx / sum_q2, where=better)
            np.copyto(self.best, self.scale * sum_qx, where=better)
            for kept, value in ((self.first, cut[0]), (self.second, cut[1]), (self.shift, shift)):
                np.copyto(kept, value, where=better)

    def cut(self) -> _Cut:
        return _Cut(self.scale, self.first, self.second, self.shift)


def _cut_s(lanes: _Lanes) -> _Cut:
    """The cut and the shift with the least error, all tried."""
    wx = _prefix_sums(np.take_along_axis(lanes.weights * lanes.x, lanes.order, axis=0))
    w = _prefix_sums(np.take_along_axis(lanes.weights, lanes.order, axis=0))
    size = len(lanes.x)
    best = _Best(lanes.x.shape[1])
    for cut in _cuts(size):
        parts = [(wx[b] - wx[a], w[b] - w[a]) for a, b in zip((0, *cut), (*cut, size), strict=True)]
        for shift, p in enumerate(_SHIFTED):
            sum_qx = parts[0][0] * p[0] + parts[1][0] * p[1] + parts[2][0] * p[2]
            sum_q2 = (parts[0][1] * p[0]) * p[0] + (parts[1][1] * p[1]) * p[1] + (parts[2][1] * p[2]) * p[2]
            best.offer(sum_qx, sum_q2, cut, shift)
    return best.cut()


def _cut_m(lanes: _Lanes) -> _Cut:
    """The cut with the least error and the shifts of both halves of eight, all tried."""
    halves = [_HalfSums(lanes, half) for half in range(2)]
    best = _Best(lanes.x.shape[1])
    for cut in _cuts(len(lanes.x)):
        sums = [[half.at(cut, shift) for shift in range(2)] for half in halves]
        for number, (first, second) in enumerate(_HALVES_DOWN):
            (qx_0, q2_0), (qx_1, q2_1) = sums[0][first], sums[1][second]
            best.offer(qx_0 + qx_1, q2_0 + q2_1, cut, number)
    return best.cut()


class _HalfSums:
    """The sums of one half of a sub-block of 16, its elements at their places among all 16 sorted ones."""

    def __init__(self, lanes: _Lanes, half: int) -> None:
        mine = lanes.order // _SIZE == half
        wx = np.where(mine, np.take_along_axis(lanes.weights * lanes.x, lanes.order, axis=0), _ZERO)
        w = np.where(mine, np.take_along_axis(lanes.weights, lanes.order, axis=0), _ZERO)
        self._wx, self._w = _prefix_sums(wx), _prefix_sums(w)

    def at(self, cut: tuple[int, int], shift: int) -> tuple[Float32, Float32]:
        low, middle, high = _SHIFTED[shift]
        first, second = cut
        sum_qx = self._wx[-1] * high - (self._wx[first] + self._wx[second])
        sum_q2 = (self._w[-1] * high) * high + self._w[first] * (low * low - middle * middle)
        return sum_qx, sum_q2 + self._w[second] * (middle * middle - high * high)


def _finish(lanes: _Lanes, cut: _Cut, per_element: npt.NDArray[np.intp], last_shift: int) -> _Found:
    """Levels and points from a cut; groups that are no point move to the best neighbour, then the scale is fitted.

    per_element: for each number of a shift, whether each element is shifted down, (numbers, n).
    """
    levels = (lanes.ranks >= cut.first).astype(np.int32) + (lanes.ranks >= cut.second)
    negative = cut.scale < 0
    levels = np.where(negative, 2 - levels, levels)
    shift = np.where(negative, last_shift - cut.shift, cut.shift)
    # An empty sub-block is stored as point 0, whose levels are all 0, and counts like that when the step is fitted.
    levels, shift = np.where(lanes.empty, 0, levels), np.where(lanes.empty, 0, shift)
    offset = _offsets(per_element, shift)
    scale = np.abs(cut.scale)
    levels, points, moved = _move_to_grid(lanes, levels, scale, offset)
    q = (levels - 1).astype(np.float32) + offset
    product = lanes.weights * q
    sum_qx, sum_q2 = ordered_sum(product * lanes.x), ordered_sum(product * q)
    scale = np.where(moved & (sum_qx > 0) & (sum_q2 > 0), sum_qx / sum_q2, scale)
    return _Found(np.where(lanes.empty, _ZERO, scale), levels, np.where(lanes.empty, 0, points), shift)


def _offsets(per_element: npt.NDArray[np.intp], shift: npt.NDArray[np.intp]) -> Float32:
    """An eighth up or down for each element, (n, lanes)."""
    return np.where(per_element[shift].T == 1, -_EIGHTH, _EIGHTH)


def _move_to_grid(lanes: _Lanes, levels: Int32, scale: Float32, offset: Float32) -> tuple[Int32, Int32, Bool]:
    grid = load_grid("IQ1_S")
    groups = len(levels) // _SIZE
    by_group = [_by_group(values, groups) for values in (levels.astype(np.float32), lanes.x, lanes.weights, offset)]
    points = grid.find(by_group[0])
    off = np.flatnonzero(points < 0)
    moved = np.zeros(len(points), np.bool_)
    moved[off] = True
    if len(off):
        points[off] = _nearest(grid, [values[:, off] for values in by_group], np.tile(scale, groups)[off])
    new = grid.levels[points].astype(np.int32).reshape(groups, -1, _SIZE).transpose(0, 2, 1).reshape(levels.shape)
    return new, points.reshape(groups, -1), np.asarray(moved.reshape(groups, -1).any(axis=0))


def _nearest(grid: Grid, arrays: list[Float32], scale: Float32) -> Int32:
    levels, x, weights, offset = arrays
    return grid.nearest(levels, x, weights, scale, offset)


def _by_group(values: Float32, groups: int) -> Float32:
    grouped = values.reshape(groups, _SIZE, -1).transpose(1, 0, 2)
    return np.ascontiguousarray(grouped).reshape(_SIZE, -1)


def _quantize_scales(scale: Float32) -> tuple[Float32, Uint8]:
    """The step of each block and the 3-bit scales (blocks, groups); both zero when all scales are."""
    greatest = scale.max(axis=1)
    d = greatest / np.float32(15)
    levels = round_levels(np.float32(0.5) * ((_ONE / d)[:, np.newaxis] * scale - _ONE), 0, 7)
    some = greatest > 0
    return np.where(some, d, _ZERO), np.where(some[:, np.newaxis], levels, _ZERO).astype(np.uint8)


def _refit_step(lanes: _Lanes, found: _Found, per_element: npt.NDArray[np.intp], d: Float32, scales: Uint8) -> Float32:
    """The step that fits all 256 values best, given their levels and scales."""
    q = (found.levels - 1).astype(np.float32) + _offsets(per_element, found.shift)
    q = q * (np.float32(2) * scales.reshape(-1).astype(np.float32) + _ONE)
    whole = [np.ascontiguousarray(values.T).reshape(len(d), -1).T for values in (q, lanes.weights, lanes.x)]
    q, weights, x = (np.ascontiguousarray(values) for values in whole)
    product = weights * q
    sum_qx, sum_q2 = ordered_sum(product * x), ordered_sum(product * q)
    return np.where((d > 0) & (sum_q2 > 0), sum_qx / sum_q2, d)


def _high_parts(points: Int32) -> npt.NDArray[np.uint16]:
    """The high three bits of four points, (n, 8, 4) to words (n, 8)."""
    words = np.zeros(points.shape[:2], np.uint16)
    for index in range(4):
        words |= (points[..., index] >> 8).astype(np.uint16) << np.uint16(3 * index)
    return words


def _scale_words(d: Float32, scales: Uint8) -> Uint8:
    """Four words: three bits per scale of 16 elements, and in the top four bits a quarter of d as float16."""
    stored = half_bytes(d).view("<u2").reshape(-1, 1).astype(np.uint16)
    words = np.zeros((len(d), 4), np.uint16)
    for index in range(4):
        words |= scales[:, index::4].astype(np.uint16) << np.uint16(3 * index)
        words[:, index] |= ((stored[:, 0] >> np.uint16(4 * index)) & np.uint16(15)) << np.uint16(12)
    return words.astype("<u2").view(np.uint8)
