"""Transforms between checkpoint layout and GGUF layout, each reading only the rows it is asked for.

They move rows or elements without looking at their values: the result keeps the element type and is exact. What
computes with values stands in `modelbuild.convert.value_transforms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod

import numpy as np
import numpy.typing as npt

from modelbuild.convert.planned import (
    ReadSpan,
    Rows,
    Source,
    Span,
    Stored,
    row_count,
    stored_row_bytes,
)
from modelbuild.convert.value_transforms import Widened
from modelbuild.records import record

# -- rows --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowMap:
    """Rows of a source in another order: regroupings of heads, slices, interleaved halves, reversals.

    Output row r is input row offset + sum(digit_i * strides_i), where the digits of r are taken in mixed radix `sizes`,
    most significant first. This describes every reshape, transpose and slice of the first axes without a table.
    shape: of the result; prod(shape[:-1]) == prod(sizes). A vector is a column of rows with one element.
    """

    source: Source
    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def dtype(self) -> str:
        """Unchanged."""
        return self.source.dtype

    def spans(self) -> tuple[Span, ...]:
        """All of the source when most of it is used, else the share of each span that the result takes."""
        used, whole = prod(self.sizes), _element_rows(self.source)
        if self._is_contiguous:
            return _cut_spans(self.source.spans(), self.offset, used, whole)
        return tuple(Span(span.path, span.offset, span.size_bytes * used // whole) for span in self.source.spans())

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """The rows gathered; runs of neighbouring source rows are read at once."""
        if self._is_vector:
            return self._read_vector(read)
        indices = self._source_rows(start, stop)
        return _gather(lambda first, last: self.source.read_rows(read, first, last), indices)

    def _read_vector(self, read: ReadSpan) -> Rows:
        """A vector is one row of the view, so its elements are gathered from it."""
        row = self.source.read_rows(read, 0, 1)
        elements = row.reshape(self.source.shape[-1], -1)
        return np.ascontiguousarray(elements[self._source_rows(0, self.shape[-1])]).reshape(1, -1)

    @property
    def _is_vector(self) -> bool:
        return len(self.source.shape) == 1

    @cached_property
    def _is_contiguous(self) -> bool:
        expected = 1
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True

    def _source_rows(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        rows = np.arange(start, stop, dtype=np.int64)
        result = np.full(stop - start, self.offset, np.int64)
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            rows, digit = np.divmod(rows, size)
            result += digit * stride
        return result


def _element_rows(source: Source) -> int:
    return source.shape[0] if len(source.shape) == 1 else row_count(source)


def _cut_spans(spans: tuple[Span, ...], offset: int, used: int, whole: int) -> tuple[Span, ...]:
    if len(spans) != 1:
        return spans
    (span,) = spans
    row = span.size_bytes // whole if whole else 0
    return (Span(span.path, span.offset + offset * row, used * row),)


def _gather(fetch: Callable[[int, int], Rows], indices: npt.NDArray[np.int64]) -> Rows:
    """Rows by index: one read when they lie close together, else one for each run of neighbours."""
    first, last = int(indices.min()), int(indices.max()) + 1
    if last - first <= 2 * len(indices):
        window = fetch(first, last)
        return window if _is_run(indices) else np.ascontiguousarray(window[indices - first])
    parts = [fetch(low, high) for low, high in _runs(indices)]
    return np.concatenate(parts)


def _is_run(indices: npt.NDArray[np.int64]) -> bool:
    return bool((np.diff(indices) == 1).all())


def _runs(indices: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    bounds = [0, *breaks.tolist(), len(indices)]
    for low, high in pairwise(bounds):
        yield int(indices[low]), int(indices[high - 1]) + 1


def regroup_rows(source: Source, sizes: tuple[int, ...], order: tuple[int, ...]) -> Source:
    """View the first axis as `sizes`, put these axes into another order, and flatten again.

    AssertionError when the sizes do not multiply to the length of the first axis (shapes are checked before).
    """
    rows = source.shape[0]
    inner = prod(source.shape[1:-1])
    assert prod(sizes) == rows, f"{sizes} does not divide {rows} rows"
    full = (*sizes, inner)
    strides = [prod(full[axis + 1 :]) for axis in range(len(full))]
    places = (*order, len(sizes))
    return RowMap(source, source.shape, tuple(full[axis] for axis in places), tuple(strides[axis] for axis in places))


def take_rows(source: Source, start: int, stop: int, step: int = 1) -> Source:
    """start:stop:step of the first axis."""
    if (start, stop, step) == (0, source.shape[0], 1):
        return source
    count = len(range(start, stop, step))
    inner = prod(source.shape[1:-1])
    return RowMap(source, (count, *source.shape[1:]), (count, inner), (step * inner, 1), start * inner)


def take_second_axis(source: Source, start: int, stop: int, step: int = 1) -> Source:
    """start:stop:step of the second of three axes: rows of every expert."""
    first, rows, columns = source.shape
    count = len(range(start, stop, step))
    return RowMap(source, (first, count, columns), (first, count), (rows, step), start)


def interleave_halves(source: Source, heads: int) -> Source:
    """Rows of each head from halves (i, i + d/2) to neighbours (2i, 2i + 1), which rotary type NORM rotates."""
    return regroup_rows(source, (heads, 2, source.shape[0] // heads // 2), (0, 2, 1))


def interleave_halves_of(source: Source, heads: int, rotated: int) -> Source:
    """The same of the first rows of each head alone; the others stay."""
    size = source.shape[0] // heads
    if rotated == size:
        return interleave_halves(source, heads)
    parts: list[Source] = []
    for start in range(0, source.shape[0], size):
        turned = interleave_halves(take_rows(source, start, start + rotated), 1)
        parts += (turned, take_rows(source, start + rotated, start + size))
    return concatenate(tuple(parts))


def separate_halves(source: Source, heads: int) -> Source:
    """The inverse of `interleave_halves`."""
    return regroup_rows(source, (heads, source.shape[0] // heads // 2, 2), (0, 2, 1))


def split_grouped(source: Source, groups: int, sizes: tuple[int, ...]) -> tuple[Source, ...]:
    """A fused matrix whose rows stand in groups, each with some rows of every part: the parts, one after another."""
    total = sum(sizes)
    assert groups * total == source.shape[0], f"{groups} groups of {total} rows do not make {source.shape[0]}"
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return tuple(
        RowMap(source, (groups * size, *source.shape[1:]), (groups, size), (total, 1), start)
        for start, size in zip(starts, sizes, strict=True)
    )


@record
class _Moved:
    """The elements of a source in other places; all of them are read."""

    source: Source

    @property
    def dtype(self) -> str:
        """Unchanged."""
        return self.source.dtype

    def spans(self) -> tuple[Span, ...]:
        """Unchanged."""
        return self.source.spans()


@record
class Reshaped(_Moved):
    """The same elements in another shape."""

    shape: tuple[int, ...]

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """Whole source rows that hold the wanted elements, cut to them."""
        columns, source_columns = self.shape[-1], self.source.shape[-1]
        if columns == source_columns:
            return self.source.read_rows(read, start, stop)
        first, last = start * columns // source_columns, -(-stop * columns // source_columns)
        rows = np.ascontiguousarray(self.source.read_rows(read, first, last))
        width = rows.shape[1] * rows.itemsize // source_columns if source_columns else 0
        flat = rows.reshape(-1).view(np.uint8)
        begin = start * columns - first * source_columns
        part = flat[begin * width : (begin + (stop - start) * columns) * width]
        return part.reshape(stop - start, columns * width)


@record
class PaddedRows(_Moved):
    """Zero rows appended to a matrix."""

    rows: int

    @property
    def shape(self) -> tuple[int, ...]:
        """With `rows` rows."""
        return (self.rows, *self.source.shape[1:])

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """Stored rows, then zeros."""
        have = row_count(self.source)
        rows = self.source.read_rows(read, min(start, have - 1), max(min(stop, have), min(start, have - 1) + 1))
        result = np.zeros((stop - start, rows.shape[1]), rows.dtype)
        count = max(0, min(stop, have) - start)
        result[:count] = rows[:count]
        return result


@record
class Stacked:
    """Sources one after another along the first axis; `shape` is given, so that experts can get an axis of theirs."""

    parts: tuple[Source, ...]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """That of the parts, which all have the same."""
        return self.parts[0].dtype

    def spans(self) -> tuple[Span, ...]:
        """The spans of all parts in order."""
        return tuple(span for part in self.parts for span in part.spans())

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """Rows from as many parts as the range touches."""
        pieces: list[Rows] = []
        begin = 0
        for part in self.parts:
            end = begin + row_count(part)
            if begin < stop and start < end:
                pieces.append(part.read_rows(read, max(start, begin) - begin, min(stop, end) - begin))
            begin = end
        return pieces[0] if len(pieces) == 1 else np.concatenate([_raw(piece) for piece in pieces])


def _raw(rows: Rows) -> Rows:
    """Rows as raw bytes: parts of one dtype may come typed or raw."""
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)


def stack(parts: tuple[Source, ...]) -> Source:
    """Equal-shaped sources on a new first axis."""
    return Stacked(_same_dtype(parts), (len(parts), *parts[0].shape))


def concatenate(parts: tuple[Source, ...]) -> Source:
    """Sources joined along the first axis; vectors become a longer vector."""
    if len(parts) == 1:
        return parts[0]
    rows = sum(part.shape[0] for part in parts)
    if len(parts[0].shape) == 1:
        columns = tuple(Reshaped(part, (part.shape[0], 1)) for part in parts)
        return Reshaped(Stacked(_same_dtype(columns), (rows, 1)), (rows,))
    return Stacked(_same_dtype(parts), (rows, *parts[0].shape[1:]))


def _same_dtype(parts: tuple[Source, ...]) -> tuple[Source, ...]:
    """Parts of different precision are joined as F32, which holds all of them exactly."""
    if len({part.dtype for part in parts}) == 1:
        return parts
    return tuple(part if part.dtype == "F32" else Widened(part) for part in parts)


# -- whole matrices ----------------------------------------------------------------------------------------------------


@record
class Transposed(_Moved):
    """The last two axes exchanged; memory is bounded by the rows that are asked for and a strip of the source."""

    @property
    def shape(self) -> tuple[int, ...]:
        """With the last two dimensions exchanged."""
        *outer, rows, columns = self.source.shape
        return (*outer, columns, rows)

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """Columns of each matrix that the range touches."""
        rows, columns = self.source.shape[-2:]
        pieces: list[Rows] = []
        for matrix in range(start // columns, -(-stop // columns)):
            low, high = max(start - matrix * columns, 0), min(stop - matrix * columns, columns)
            pieces.append(self._columns(read, matrix * rows, rows, low, high))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _columns(self, read: ReadSpan, first_row: int, rows: int, low: int, high: int) -> Rows:
        columns = self.source.shape[-1]
        if isinstance(self.source, Stored) and high - low < columns // _FEW_COLUMNS:
            return self._pieces(self.source, read, first_row, rows, low, high)
        step = max(1, _STRIP_ELEMENTS // columns)
        result: Rows | None = None
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            strip = np.ascontiguousarray(self.source.read_rows(read, first_row + start, first_row + stop))
            elements = strip.view(np.uint8).reshape(stop - start, columns, -1)[:, low:high]
            if result is None:
                result = np.empty((high - low, rows, elements.shape[-1]), np.uint8)
            result[:, start:stop] = elements.transpose(1, 0, 2)
        assert result is not None, "a matrix has at least one row"
        return result.reshape(high - low, -1)

    def _pieces(self, source: Stored, read: ReadSpan, first_row: int, rows: int, low: int, high: int) -> Rows:
        """Few columns of a stored matrix: a piece of each row, instead of the whole matrix for each block of rows."""
        tensor, columns = source.tensor, source.shape[-1]
        size = stored_row_bytes(source.dtype, columns) // columns
        begin = tensor.offset + (first_row * columns + low) * size
        pieces = [read(tensor.path, begin + row * columns * size, (high - low) * size) for row in range(rows)]
        elements = np.frombuffer(b"".join(pieces), np.uint8).reshape(rows, high - low, size)
        return np.ascontiguousarray(elements.transpose(1, 0, 2)).reshape(high - low, rows * size)


#: From this share of a row on, reading all of it costs less than reading a piece of each.
_FEW_COLUMNS = 4
#: Elements of the strip of source rows that a transposition holds at once.
_STRIP_ELEMENTS = 1 << 20


@record
class ColumnMap(_Moved):
    """Columns of a source in another order, or some of them; column c of the result is column columns[c]."""

    columns: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """With as many columns as are taken."""
        return (*self.source.shape[:-1], len(self.columns))

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """The rows with their columns gathered."""
        rows = np.ascontiguousarray(self.source.read_rows(read, start, stop))
        elements = rows.view(np.uint8).reshape(stop - start, self.source.shape[-1], -1)
        return elements[:, list(self.columns)].reshape(stop - start, -1)
