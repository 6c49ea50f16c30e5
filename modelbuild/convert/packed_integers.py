"""Weights of compressed-tensors checkpoints that are packed as small integers: several in one 32-bit word."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelbuild.convert.planned import ReadSpan, Rows, Source, Span, read_floats
from modelbuild.records import record

_WORD_BITS = 32


@record
class UnpackedIntegers:
    """Integers of `bits` bits, less their zero, times the scale of their group of columns.

    packed: I32 of shape (rows, ceil(columns * bits / 32)); the first column is in the lowest bits of a word.
    scale: (rows, groups). zero: integers packed along rows, (ceil(rows * bits / 32), groups), or None for the middle of
    the range. columns: of the weights; each group has as many of them as fit, the last may be cut.
    """

    packed: Source
    scale: Source
    zero: Source | None
    bits: int
    group: int
    columns: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        return (self.packed.shape[0], self.columns)

    @property
    def dtype(self) -> str:
        """F32."""
        return "F32"

    def spans(self) -> tuple[Span, ...]:
        """Words, scales and zeros."""
        zero = () if self.zero is None else self.zero.spans()
        return (*self.packed.spans(), *self.scale.spans(), *zero)

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """float32 of shape (stop - start, columns)."""
        words = np.ascontiguousarray(self.packed.read_rows(read, start, stop)).view("<u4")
        values = _unpack(words, self.bits)[:, : self.columns].astype(np.int32)
        scales = read_floats(self.scale, read, start, stop)
        zeros = self._zeros(read, start, stop)
        if zeros is None:
            values -= 1 << (self.bits - 1)
        else:
            values -= np.repeat(zeros, self.group, axis=1)[:, : self.columns]
        scaled: npt.NDArray[np.float32] = (
            values.astype(np.float32) * np.repeat(scales, self.group, axis=1)[:, : self.columns]
        )
        return scaled

    def _zeros(self, read: ReadSpan, start: int, stop: int) -> npt.NDArray[np.int32] | None:
        if self.zero is None:
            return None
        per_word = _WORD_BITS // self.bits
        first = start // per_word
        words = np.ascontiguousarray(self.zero.read_rows(read, first, -(-stop // per_word))).view("<u4")
        rows = _unpack(np.ascontiguousarray(words.T), self.bits).T
        return rows[start - first * per_word : stop - first * per_word].astype(np.int32)


def _unpack(words: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.uint32]:
    """Shape (n, words) to (n, words * (32 // bits))."""
    per_word = _WORD_BITS // bits
    shifts = np.arange(per_word, dtype=np.uint32) * np.uint32(bits)
    values = (words[:, :, np.newaxis] >> shifts) & np.uint32((1 << bits) - 1)
    return values.reshape(len(words), -1)
