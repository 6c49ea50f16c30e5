"""Planned tensors: what a tensor of the result is made of, decided before any weight is read.

A source is a small frozen value: it knows its shape and element type, the bytes it needs, and how to make any range of
its rows. Rows are those of the two-dimensional view (prod(shape[:-1]), shape[-1]). Sources nest: transforms
(`modelbuild.convert.transforms`) wrap other sources. Their fields tell completely what they compute, so that equal
sources over equal files give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from modelbuild.formats.elements import FloatName, decode, encode
from modelbuild.formats.gguf.types import GgmlType, row_bytes
from modelbuild.formats.safetensors import DTYPE_BITS, StoredTensor
from modelbuild.records import record

#: Exactly `size` bytes of a file from an offset.
ReadSpan = Callable[[Path, int, int], bytes]
#: Two-dimensional: typed elements, or the raw bytes of each row as uint8.
Rows = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


@record
class Span:
    """A range of bytes of a file."""

    path: Path
    offset: int
    size_bytes: int


class Source(Protocol):
    """Where the values of a tensor come from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Row-major, slowest-varying dimension first."""

    @property
    def dtype(self) -> str:
        """The element type that `read_rows` gives: a name `formats.elements` knows, or a packed GGUF type."""

    def spans(self) -> tuple[Span, ...]:
        """The bytes that reading the whole tensor takes."""

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """Rows start to stop, in C order, typed or as raw little-endian bytes; reads little more than they need."""


@record
class PlannedTensor:
    """A tensor of the result: its GGUF name, what it is made of, and the type it is written as."""

    name: str
    source: Source
    type: GgmlType


@record
class Stored:
    """A tensor as it stands in a file."""

    tensor: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """As in the file; a scalar is one element."""
        return self.tensor.shape or (1,)

    @property
    def dtype(self) -> str:
        """As in the file."""
        return self.tensor.dtype

    def spans(self) -> tuple[Span, ...]:
        """The tensor's own bytes."""
        return (Span(self.tensor.path, self.tensor.offset, self.tensor.size_bytes),)

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """Raw bytes, uint8 of shape (stop - start, bytes per row)."""
        size = stored_row_bytes(self.dtype, self.shape[-1])
        data = read(self.tensor.path, self.tensor.offset + start * size, (stop - start) * size)
        return np.frombuffer(data, np.uint8).reshape(stop - start, size)


@record
class Rounded:
    """Values rounded through a narrower float type (F16 or BF16), as if they had been stored in it."""

    source: Source
    type: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Unchanged."""
        return self.source.shape

    @property
    def dtype(self) -> str:
        """The narrow type."""
        return self.type

    def spans(self) -> tuple[Span, ...]:
        """Unchanged."""
        return self.source.spans()

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """float16 for F16, uint16 for BF16; InputError DATA for a value beyond the range of F16."""
        return encode(read_floats(self.source, read, start, stop), cast("FloatName", self.type))


def row_count(source: Source) -> int:
    """Rows of the two-dimensional view."""
    return prod(source.shape[:-1])


def read_floats(source: Source, read: ReadSpan, start: int, stop: int) -> Floats:
    """Rows start to stop as float32, shape (stop - start, columns)."""
    return decode(source.read_rows(read, start, stop), source.dtype)


def stored_row_bytes(dtype: str, columns: int) -> int:
    """Bytes of one stored row of a safetensors dtype or a GGUF type."""
    bits = DTYPE_BITS.get(dtype)
    if bits is not None:
        return columns * bits // 8
    return row_bytes(GgmlType[dtype], columns)
