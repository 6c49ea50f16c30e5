"""MXFP4 weights of checkpoints in the block format of GGUF: the bits are rearranged, no value changes.

A block is 32 values of 4 bits with one scale byte. Checkpoints keep neighbouring values in one byte; a GGUF keeps
value j and value j + 16 in one byte, and the scale in front.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelbuild.convert.planned import ReadSpan, Rows, Source, Span
from modelbuild.records import record

MXFP4_NIBBLE_BYTES = 16
_VALUES = 32
_BLOCK_BYTES = 17


@record
class Mxfp4Repacked:
    """Blocks of shape (..., rows, blocks, 16) and scales of shape (..., rows, blocks), both bytes, as packed rows."""

    blocks: Source
    scales: Source

    @property
    def shape(self) -> tuple[int, ...]:
        """In values: (..., rows, blocks * 32)."""
        return (*self.blocks.shape[:-2], self.blocks.shape[-2] * _VALUES)

    @property
    def dtype(self) -> str:
        """MXFP4."""
        return "MXFP4"

    def spans(self) -> tuple[Span, ...]:
        """Blocks and scales."""
        return (*self.blocks.spans(), *self.scales.spans())

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> Rows:
        """uint8 of shape (stop - start, blocks * 17)."""
        count = self.blocks.shape[-2]
        nibbles = self.blocks.read_rows(read, start * count, stop * count).view(np.uint8)
        scales = self.scales.read_rows(read, start, stop).view(np.uint8)
        packed = np.empty((stop - start, count, _BLOCK_BYTES), np.uint8)
        packed[:, :, 0] = scales.reshape(stop - start, count)
        packed[:, :, 1:] = rearrange_nibbles(nibbles).reshape(stop - start, count, MXFP4_NIBBLE_BYTES)
        return packed.reshape(stop - start, count * _BLOCK_BYTES)


def rearrange_nibbles(blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Bytes with values (2i, 2i + 1) to bytes with values (j, j + 16); shape (n, 16) both."""
    low, high = blocks[:, :8], blocks[:, 8:]
    result = np.empty_like(blocks)
    result[:, 0::2] = (low & 0x0F) | (high & 0x0F) << 4
    result[:, 1::2] = low >> 4 | (high & 0xF0)
    return result
