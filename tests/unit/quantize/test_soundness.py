"""Blocks that no reader accepts."""

from __future__ import annotations

import numpy as np
import pytest

from modelbuild.formats.gguf.types import GgmlType, block_bytes, block_size
from modelbuild.quantize import pack, unpack
from modelbuild.quantize.soundness import find_unsound_block
from modelbuild.quantize.targets import TARGET_TYPES

ROWS = np.random.default_rng(2).standard_normal((3, 512)).astype(np.float32)
ONES = np.ones(512, np.float32)


@pytest.mark.parametrize("type_", sorted(TARGET_TYPES), ids=lambda type_: type_.name)
def test_packed_weights_are_sound(type_: GgmlType) -> None:
    """Nothing is wrong with what we make."""
    assert find_unsound_block(pack(ROWS, type_, importance=ONES), type_) is None


@pytest.mark.parametrize("type_", sorted(TARGET_TYPES - {GgmlType.NVFP4}), ids=lambda type_: type_.name)
def test_a_block_that_decodes_to_something_infinite_is_found(type_: GgmlType) -> None:
    """Every byte of a block is set to 255 in turn: a block is reported exactly when it decodes to NaN or infinity."""
    packed = pack(ROWS, type_, importance=ONES)
    size_bytes = block_bytes(type_)
    start = packed.shape[1] // 2 // size_bytes * size_bytes
    for offset in range(min(size_bytes, 260)):
        damaged = packed.copy()
        damaged[1, start + offset] = 255
        column = start // size_bytes * block_size(type_)
        decoded = unpack(damaged, type_, ROWS.shape)
        expected = None if np.isfinite(decoded).all() else (1, column)
        if type_ is GgmlType.MXFP4 and offset == 0:
            expected = (1, column)  # the exponent that stands for NaN, though decoders read it as a number
        assert expected == find_unsound_block(damaged, type_), offset


@pytest.mark.parametrize("type_", [GgmlType.I32, GgmlType.NVFP4])
def test_types_without_a_scale_are_sound(type_: GgmlType) -> None:
    """There is nothing to check."""
    assert find_unsound_block(np.full((2, 144), 255, np.uint8), type_) is None


def test_f64_is_checked_though_never_made() -> None:
    """Sources may hold it."""
    data = np.array([[1.0, np.inf]]).view(np.uint8).reshape(1, 16)

    assert (0, 1) == find_unsound_block(data, GgmlType.F64)
