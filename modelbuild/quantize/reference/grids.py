"""The grids of the IQ1, IQ2 and IQ3 types: which combinations of levels exist, and what is near those that do not.

A point has 8 (IQ1, IQ2) or 4 (IQ3) levels. A search finds levels freely and then needs the point for them, or, when
there is none, the best of a list of neighbours. The points come from the `gguf` package; lists are as in
`iq2xs_init_impl` and `iq3xs_init_impl` of llama.cpp's ggml-quants.c (October 2026).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from modelbuild.quantize.reference.arrays import Bool, Float32, Int32, Uint8
from modelbuild.records import record

Index = npt.NDArray[np.intp]
#: How many distinct distances the neighbours of a combination may have.
_SHELLS = {"IQ2_XXS": 2, "IQ2_XS": 2, "IQ2_S": 1, "IQ3_XXS": 2, "IQ3_S": 3, "IQ1_S": 3}
#: Combinations looked at together while lists are made, and pairs of lookup and neighbour while they are used.
_LIST_STEP = 256
_LOOKUP_PAIRS = 1 << 17


@record
class Grid:
    """Points of `size` levels, each level 0..base-1.

    levels: (points, size). values: what the points decode to, (points, size). point_of: for each combination, numbered
    with its first level lowest, its point or -1. neighbours: lists of points, nearest first, padded with their first
    entry; list_of: which list a combination has; lengths: without padding.
    """

    size: int
    base: int
    levels: Uint8
    values: Float32
    point_of: Int32
    neighbours: Int32
    list_of: Int32
    lengths: Int32

    def find(self, levels: Float32) -> Int32:
        """The point for each column of levels (size, n), or -1."""
        return self.point_of[self.number(levels)]

    def number(self, levels: Float32) -> Index:
        """The number of the combination in each column."""
        weights = self.base ** np.arange(self.size)
        return np.tensordot(weights, levels.astype(np.intp), axes=1)

    def nearest(
        self, levels: Float32, x: Float32, weights: Float32, scale: Float32, offset: Float32 | None = None
    ) -> Int32:
        """The neighbour with the least error for each column; the first among equals.

        levels, x, weights: (size, n); scale: (n,). The error is the sum of weight * difference**2 in element order.
        A level stands for scale * (2 * level + 1), or with an offset of shape (size, n) for
        scale * (level - 1 + offset).
        """
        stands = self.levels.T.astype(np.float32)
        stands = stands + stands + np.float32(1) if offset is None else stands - np.float32(1)
        lists = self.list_of[self.number(levels)]
        found = np.empty(x.shape[1], np.int32)
        for part, width in self._batches(lists):
            choices = self.neighbours[lists[part], :width]
            errors = np.zeros(choices.shape, np.float32)
            for i in range(self.size):
                value = stands[i][choices]
                if offset is not None:
                    value += offset[i, part, np.newaxis]
                value *= scale[part, np.newaxis]
                value -= x[i, part, np.newaxis]
                errors += (weights[i, part, np.newaxis] * value) * value
            found[part] = choices[np.arange(len(choices)), errors.argmin(axis=1)]
        return found

    def _batches(self, lists: Int32) -> Iterator[tuple[Index, int]]:
        """Lookups grouped by the length of their lists, a bounded number of pairs at a time."""
        lengths = self.lengths[lists]
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(order):
            guess = order[start : start + max(1, _LOOKUP_PAIRS // max(1, int(lengths[order[start]])))]
            width = int(lengths[guess[-1]])
            part = guess[: max(1, _LOOKUP_PAIRS // width)]
            yield part, int(lengths[part[-1]])
            start += len(part)


@record
class Points:
    """The points of a grid without their neighbourhood.

    levels: (points, size); values: what they decode to, (points, size); base: levels are 0..base-1; shells: how many
    distinct distances the neighbours of a combination may have.
    """

    levels: Uint8
    values: Float32
    base: int
    shells: int

    @property
    def numbers(self) -> npt.NDArray[np.uint16]:
        """The number of each point, (points,)."""
        weights = (self.base ** np.arange(self.levels.shape[1])).astype(np.uint16)
        return np.asarray((self.levels * weights).sum(axis=1), np.uint16)


def load_points(name: str) -> Points:
    """The points of a type's grid (IQ1_M uses that of IQ1_S)."""
    from gguf import quants

    source = getattr(quants, name)
    source.init_grid()
    values = np.asarray(source.grid, np.float32).reshape(source.grid_shape)
    steps = np.asarray(source.grid_map, np.float32)
    return Points(np.searchsorted(steps, values).astype(np.uint8), values, len(steps), _SHELLS[name])


@cache
def load_grid(name: str) -> Grid:
    """The grid of a type (IQ1_M uses that of IQ1_S); made once, in a second or less."""
    points = load_points(name)
    levels, base, size = points.levels, points.base, points.levels.shape[1]
    numbers = points.numbers
    point_of = np.full(base**size, -1, np.int32)
    point_of[numbers] = np.arange(len(levels))
    missing = np.flatnonzero(point_of < 0)
    neighbours, lengths = _neighbour_lists(missing, levels, base, points.shells)
    list_of = np.full(base**size, -1, np.int32)
    list_of[missing] = np.arange(len(missing))
    return Grid(size, base, levels, points.values, point_of, neighbours, list_of, lengths)


def _neighbour_lists(missing: Index, levels: Uint8, base: int, shells: int) -> tuple[Int32, Int32]:
    """For each combination that is no point: the points at the least `shells` distances, by distance, then number."""
    lists = []
    for start in range(0, len(missing), _LIST_STEP):
        distances = _distances(missing[start : start + _LIST_STEP], levels, base)
        for row, kept in zip(distances, _within_shells(distances, shells), strict=True):
            points = np.flatnonzero(kept)
            lists.append(points[np.argsort(row[points], kind="stable")])
    lengths = np.array([len(item) for item in lists], np.int32)
    padded = np.empty((len(lists), int(lengths.max())), np.int32)
    for row, item in zip(padded, lists, strict=True):
        row[: len(item)] = item
        row[len(item) :] = item[0]
    return padded, lengths


def _distances(numbers: Index, levels: Uint8, base: int) -> Int32:
    """Squared distances in levels, (numbers, points); the original's are four times as large."""
    size = levels.shape[1]
    own = (numbers[:, np.newaxis] // base ** np.arange(size)) % base
    points = levels.astype(np.int32)
    squares = (own**2).sum(axis=1)[:, np.newaxis] + (points**2).sum(axis=1)
    return np.asarray(squares - 2 * (own.astype(np.int32) @ points.T), np.int32)


def _within_shells(distances: Int32, shells: int) -> Bool:
    limit = np.full((len(distances), 1), -1, np.int32)
    for _ in range(shells):
        beyond = np.where(distances > limit, distances, np.iinfo(np.int32).max)
        limit = beyond.min(axis=1, keepdims=True)
    return np.asarray(distances <= limit)
