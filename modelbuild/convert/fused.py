"""Projections stored as one matrix, group by group: each group of heads with its own queries, keys and values."""

from __future__ import annotations

from itertools import accumulate
from math import prod

from modelbuild.convert.planned import Source
from modelbuild.convert.transforms import RowMap, concatenate


def split_groups(source: Source, groups: int, sizes: tuple[int, ...]) -> tuple[Source, ...]:
    """One source for each part: its rows of all groups, in the order of the groups.

    The first axis is `groups` times sum(sizes) rows. AssertionError when it is not (shapes are checked before).
    """
    rows = sum(sizes)
    assert source.shape[0] == groups * rows, f"{source.shape[0]} rows are not {groups} groups of {rows}"
    starts = accumulate(sizes, initial=0)
    return tuple(_part(source, groups, rows, start, size) for start, size in zip(starts, sizes, strict=False))


def concatenate_groups(source: Source, groups: int, sizes: tuple[int, ...]) -> Source:
    """The same parts one after another: all queries, all keys, all values."""
    return concatenate(split_groups(source, groups, sizes))


def _part(source: Source, groups: int, rows: int, start: int, size: int) -> Source:
    inner = prod(source.shape[1:-1])
    shape = (groups * size, *source.shape[1:])
    return RowMap(source, shape, (groups, size, inner), (rows * inner, inner, 1), start * inner)
