"""Transforms that compute: they decode to float32, work in float32 and give F32, reading only the rows asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelbuild.convert.planned import Floats, ReadSpan, Rows, Source, Span, read_floats
from modelbuild.records import record


@record
class _Valued:
    """Other values in the place of those of a source, as F32 unless said otherwise."""

    source: Source

    @property
    def shape(self) -> tuple[int, ...]:
        """Unchanged."""
        return self.source.shape

    @property
    def dtype(self) -> str:
        """F32."""
        return "F32"

    def spans(self) -> tuple[Span, ...]:
        """Unchanged."""
        return self.source.spans()


@record
class Widened(_Valued):
    """The values as F32, exactly."""

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """float32 of shape (stop - start, columns)."""
        return read_floats(self.source, read, start, stop)


@record
class Computed(_Valued):
    """A function of each value alone: values * factor + addend, then minus exp when `negative_exponential`.

    Half-precision values stay in half precision, each operation rounded to it, as the reference does; others are F32.
    """

    factor: float = 1.0
    addend: float = 0.0
    negative_exponential: bool = False

    @property
    def dtype(self) -> str:
        """F16 for F16, else F32."""
        return "F16" if self.source.dtype == "F16" else "F32"

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """float16 or float32 of shape (stop - start, columns), each operation rounded to it."""
        type_ = np.float16 if self.dtype == "F16" else np.float32
        values = read_floats(self.source, read, start, stop)
        with np.errstate(over="ignore"):  # beyond half precision is infinity, there as here
            if self.factor != 1.0:
                values = _rounded(values * np.float32(self.factor), type_)
            if self.addend != 0.0:
                values = _rounded(values + np.float32(self.addend), type_)
            if self.negative_exponential:
                values = _negative_exponential(values)
            return values.astype(type_, copy=False)


def _rounded(values: Floats, type_: type[np.float16 | np.float32]) -> Floats:
    """The nearest values of a type, as float32."""
    return values.astype(type_, copy=False).astype(np.float32, copy=False)


def _negative_exponential(values: Floats) -> Floats:
    """-exp(x), computed in float64: float32 exponentials of numpy differ between processors by several units."""
    return (-np.exp(values.astype(np.float64))).astype(np.float32)


@record
class ScaledByBlock(_Valued):
    """Weights times a scale for each block of rows and columns: how FP8 checkpoints are meant to be read.

    scale: shape (ceil(rows / block[0]), ceil(columns / block[1])), or with the leading axes of the weights in front.
    """

    scale: Source
    block: tuple[int, int]

    def spans(self) -> tuple[Span, ...]:
        """Weights and scales."""
        return (*self.source.spans(), *self.scale.spans())

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """float32 of shape (stop - start, columns)."""
        values = read_floats(self.source, read, start, stop)
        rows, columns = self.source.shape[-2:] if len(self.source.shape) > 1 else (1, self.source.shape[-1])
        matrix, row = np.divmod(np.arange(start, stop), rows)
        scale_rows = matrix * -(-rows // self.block[0]) + row // self.block[0]
        first, last = int(scale_rows[0]), int(scale_rows[-1]) + 1
        scales = read_floats(self.scale, read, first, last)
        wide = np.repeat(scales, self.block[1], axis=1)[:, :columns]
        scaled: Floats = values * wide[scale_rows - first]
        return scaled


@record
class Constant:
    """Values known from the configuration alone, such as rotary frequency factors; `data` is float32, little endian."""

    data: bytes
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """F32."""
        return "F32"

    def spans(self) -> tuple[Span, ...]:
        """Nothing is read."""
        return ()

    def read_rows(self, _read: ReadSpan, start: int, stop: int) -> Rows:
        """float32 of shape (stop - start, columns)."""
        return self.values().reshape(-1, self.shape[-1])[start:stop]

    def values(self) -> Floats:
        """All values, flat."""
        return np.frombuffer(self.data, "<f4")


def constant(values: npt.ArrayLike) -> Source:
    """Numbers as a source, rounded to float32."""
    array = np.asarray(values, "<f4")
    return Constant(array.tobytes(), array.shape)


@record
class Centred(_Valued):
    """A vector without its mean."""

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """float32 of shape (1, columns): a vector is one row."""
        values = read_floats(self.source, read, start, stop)
        centred: Floats = values - values.mean(dtype=np.float32)
        return centred
