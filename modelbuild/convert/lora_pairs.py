"""Low-rank changes of matrices under the transforms of a family.

A family's transforms build an expression over a stored tensor. Over a pair of small matrices the same expression is
built, and then rewritten: what moves rows moves rows of B, what moves columns moves columns of A.
Source of the rules: convert_lora_to_gguf.py of llama.cpp (October 2026), and the algebra of W = B A.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from modelbuild.convert.planned import ReadSpan, Rows, Source, Span
from modelbuild.convert.transforms import (
    ColumnMap,
    PaddedRows,
    Reshaped,
    RowMap,
    Stacked,
    Transposed,
    concatenate,
    stack,
)
from modelbuild.convert.value_transforms import Computed, Widened
from modelbuild.errors import UnsupportedError
from modelbuild.records import record


@record
class LowRank:
    """The change B A of a stored tensor: a (..., rank, columns), b (..., rows, rank). It stands where a tensor stands.

    module: which tensor is changed, for messages.
    """

    a: Source
    b: Source
    module: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor that is changed."""
        return (*self.b.shape[:-1], self.a.shape[-1])

    @property
    def rank(self) -> int:
        """Columns of B."""
        return self.b.shape[-1]

    @property
    def dtype(self) -> str:
        """A number for each element, as far as transforms care."""
        return "F32"

    def spans(self) -> tuple[Span, ...]:
        """Nothing: it is never read as a whole."""
        return ()

    def read_rows(self, _read: ReadSpan, _start: int, _stop: int) -> Rows:
        """Never called: `factor` takes the expression apart before anything is read."""
        raise AssertionError("a low-rank pair has no rows of its own")


@record
class Member:
    """One matrix of a stack, to be stacked again: all members together are the stack itself, which is read at once."""

    stack: Source
    number: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Without the first axis."""
        return self.stack.shape[1:]

    @property
    def dtype(self) -> str:
        """Unchanged."""
        return self.stack.dtype

    def spans(self) -> tuple[Span, ...]:
        """All of the stack, because rows of members may stand mixed."""
        return self.stack.spans()

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """The rows of the stack that are this matrix."""
        first = self.number * prod(self.shape[:-1])
        return self.stack.read_rows(read, first + start, first + stop)


def transposed_pair(pair: LowRank) -> LowRank:
    """The change of the transposed tensor."""
    return replace(pair, a=transposed(pair.b), b=transposed(pair.a))


def transposed(source: Source) -> Source:
    """A matrix, or a stack of them, with rows and columns exchanged; twice is not at all."""
    return source.source if isinstance(source, Transposed) else Transposed(source)


def factor(source: Source) -> LowRank:
    """The pair that an expression over pairs amounts to; UnsupportedError ADAPTER when it is no pair any more."""
    match source:
        case LowRank():
            return source
        case RowMap():
            return _move_rows(source, factor(source.source))
        case Reshaped():
            return _reshape(source, factor(source.source))
        case Transposed():
            return _transpose(factor(source.source))
        case ColumnMap():
            pair = factor(source.source)
            return replace(pair, a=ColumnMap(pair.a, source.columns))
        case PaddedRows():
            pair = factor(source.source)
            return replace(pair, b=PaddedRows(pair.b, source.rows))
        case Computed(addend=0.0, negative_exponential=False):
            pair = factor(source.source)
            return replace(pair, b=Computed(Widened(pair.b), factor=source.factor))
        case Stacked():
            return _join(source, [factor(part) for part in source.parts])
    raise _impossible(_module(source), "its values change in a way that a low rank cannot follow")


def _move_rows(source: RowMap, pair: LowRank) -> LowRank:
    if len(pair.a.shape) > 2 and not _keeps_matrices(source, pair):
        raise _impossible(pair.module, "rows move between experts")
    shape = (*source.shape[:-1], pair.rank)
    return replace(pair, b=RowMap(pair.b, shape, source.sizes, source.strides, source.offset))


def _keeps_matrices(source: RowMap, pair: LowRank) -> bool:
    """Does each matrix of a stack get rows of the same matrix alone?"""
    rows = pair.b.shape[-2]
    inside = source.offset + sum(
        (size - 1) * step for size, step in zip(source.sizes[1:], source.strides[1:], strict=True)
    )
    return source.sizes[0] == prod(pair.b.shape[:-2]) and source.strides[0] == rows and inside < rows


def _reshape(source: Reshaped, pair: LowRank) -> LowRank:
    if source.shape == pair.shape:
        return pair
    if source.shape[-1] != pair.shape[-1] or len(pair.a.shape) > 2:
        raise _impossible(pair.module, "its rows get another length")
    return replace(pair, b=Reshaped(pair.b, (*source.shape[:-1], pair.rank)))


def _transpose(pair: LowRank) -> LowRank:
    if len(pair.a.shape) != len(pair.b.shape):
        raise _impossible(pair.module, "its parts are transposed one by one")
    return transposed_pair(pair)


def _join(source: Stacked, pairs: list[LowRank]) -> LowRank:
    first = pairs[0]
    parts_b = tuple(pair.b for pair in pairs)
    if len(source.shape) > len(first.shape):
        return LowRank(_stacked(tuple(pair.a for pair in pairs)), _stacked(parts_b), first.module)
    if any(pair.a != first.a for pair in pairs):
        raise _impossible(first.module, "parts with changes of their own are joined")
    return replace(first, b=concatenate(parts_b))


def _stacked(parts: tuple[Source, ...]) -> Source:
    first = parts[0]
    if isinstance(first, Member) and parts == tuple(
        Member(first.stack, number) for number in range(first.stack.shape[0])
    ):
        return first.stack
    return stack(parts)


def _module(source: Source) -> str:
    while not isinstance(source, LowRank):
        inner = getattr(source, "source", None)
        if inner is None:
            return "a module"
        source = inner
    return source.module


def _impossible(module: str, why: str) -> UnsupportedError:
    message = f"the change of {module} cannot be an adapter of this architecture: {why}"
    return UnsupportedError("ADAPTER", message, hint="merge the adapter into the checkpoint before converting it")
