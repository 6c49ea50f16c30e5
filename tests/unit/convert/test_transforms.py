"""Transforms give what plain numpy gives on the whole tensor, for any block of rows."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.convert import transforms as t
from modelbuild.convert import value_transforms as v
from modelbuild.convert.planned import Floats, Rounded, Source, Stored, read_floats, row_count
from modelbuild.formats.elements import decode
from modelbuild.formats.safetensors import StoredTensor

MEMORY = Path("memory")
DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "U8": np.dtype("u1")}


class Memory:
    """Tensors in one block of bytes, read as a file is."""

    def __init__(self) -> None:
        self.data = b""
        self.read_bytes = 0

    def store(self, values: np.ndarray, dtype: str = "F32") -> Source:
        raw = np.ascontiguousarray(values.astype(DTYPES[dtype])).tobytes()
        stored = StoredTensor(MEMORY, "t", dtype, values.shape, len(self.data), len(raw))
        self.data += raw
        return Stored(stored)

    def read(self, path: Path, offset: int, size: int) -> bytes:
        assert MEMORY == path
        assert 0 <= offset
        assert offset + size <= len(self.data)
        self.read_bytes += size
        return self.data[offset : offset + size]

    def whole(self, source: Source) -> Floats:
        return self.rows(source, 0, row_count(source)).reshape(source.shape)

    def rows(self, source: Source, start: int, stop: int) -> Floats:
        return read_floats(source, self.read, start, stop)


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(prod(shape), dtype=np.float32).reshape(shape) + 1


CASES = {
    "stored": ((6, 4), lambda s: s, lambda w: w),
    "permute": (
        (24, 5),
        lambda s: t.interleave_halves(s, 3),
        lambda w: w.reshape(3, 2, 4, 5).swapaxes(1, 2).reshape(24, 5),
    ),
    "permute bias": (
        (24,),
        lambda s: t.interleave_halves(s, 3),
        lambda w: w.reshape(3, 2, 4).swapaxes(1, 2).reshape(24),
    ),
    "permute the first rows of each head": (
        (24, 5),
        lambda s: t.interleave_halves_of(s, 2, 8),
        lambda w: np.concatenate(
            [
                w.reshape(2, 12, 5)[:, :8].reshape(2, 2, 4, 5).swapaxes(1, 2).reshape(2, 8, 5),
                w.reshape(2, 12, 5)[:, 8:],
            ],
            1,
        ).reshape(24, 5),
    ),
    "permute back": ((24, 5), lambda s: t.separate_halves(t.interleave_halves(s, 2), 2), lambda w: w),
    "regroup": (
        (24, 3),
        lambda s: t.regroup_rows(s, (4, 3, 2), (1, 0, 2)),
        lambda w: w.reshape(4, 3, 2, 3).swapaxes(0, 1).reshape(24, 3),
    ),
    "slice": ((10, 3), lambda s: t.take_rows(s, 2, 7), lambda w: w[2:7]),
    "slice step": ((10, 3), lambda s: t.take_rows(s, 1, 10, 2), lambda w: w[1::2]),
    "slice vector": ((10,), lambda s: t.take_rows(s, 1, 10, 2), lambda w: w[1::2]),
    "slice experts": ((6, 4, 3), lambda s: t.take_rows(s, 2, 5), lambda w: w[2:5]),
    "second axis": ((3, 8, 5), lambda s: t.take_second_axis(s, 4, 8), lambda w: w[:, 4:8]),
    "second axis step": ((3, 8, 5), lambda s: t.take_second_axis(s, 0, 8, 2), lambda w: w[:, 0::2]),
    "transpose": ((7, 5), t.Transposed, lambda w: w.T),
    "transpose experts": ((3, 4, 5), t.Transposed, lambda w: w.transpose(0, 2, 1)),
    "reshape": ((6, 4), lambda s: t.Reshaped(s, (3, 8)), lambda w: w.reshape(3, 8)),
    "reshape narrow": ((6, 4), lambda s: t.Reshaped(s, (12, 2)), lambda w: w.reshape(12, 2)),
    "columns": ((4, 6), lambda s: t.ColumnMap(s, (5, 0, 3)), lambda w: w[:, [5, 0, 3]]),
    "stack": ((4, 3), lambda s: t.stack((s, t.take_rows(s, 0, 4), s)), lambda w: np.stack([w, w, w])),
    "concatenate": ((4, 3), lambda s: t.concatenate((s, t.take_rows(s, 1, 3))), lambda w: np.concatenate([w, w[1:3]])),
    "concatenate vectors": (
        (4,),
        lambda s: t.concatenate((s, t.take_rows(s, 1, 3))),
        lambda w: np.concatenate([w, w[1:3]]),
    ),
    "plus a little": ((4, 3), lambda s: v.Computed(s, addend=0.3), lambda w: (w + np.float32(0.3)).astype(w.dtype)),
    "scale": ((4, 3), lambda s: v.Computed(s, factor=0.3), lambda w: (w * np.float32(0.3)).astype(w.dtype)),
    "minus exp": (
        (4, 3),
        lambda s: v.Computed(v.Computed(s, factor=0.1), negative_exponential=True),
        lambda w: (-np.exp((w * np.float32(0.1)).astype(w.dtype).astype(np.float64))).astype(w.dtype),
    ),
    "pad": (
        (4, 3),
        lambda s: t.PaddedRows(s, 7),
        lambda w: np.concatenate([w, np.zeros((3, 3), np.float32)]),
    ),
    "round": (
        (4, 3),
        lambda s: Rounded(v.Computed(s, factor=0.1), "F16"),
        lambda w: (w * np.float32(0.1)).astype(np.float16),
    ),
}


@pytest.mark.parametrize("dtype", ["F32", "F16"])
@pytest.mark.parametrize("case", CASES)
def test_transform_equals_numpy(case: str, dtype: str) -> None:
    """The whole result equals the same operation on the whole array, and its shape is the one announced.

    Arithmetic on half precision is rounded to it, as in the reference, which computes in the type of the checkpoint.
    """
    shape, transform, naive = CASES[case]
    memory = Memory()
    source = transform(memory.store(numbered(shape), dtype))

    expected = naive(numbered(shape).astype(DTYPES[dtype])).astype(np.float32)
    assert expected.shape == source.shape
    assert np.array_equal(expected, memory.whole(source))


@settings(max_examples=60)
@given(st.sampled_from(sorted(CASES)), st.data())
def test_any_rows_equal_those_of_the_whole(case: str, data: st.DataObject) -> None:
    """Reading in blocks of rows changes nothing."""
    shape, transform, _ = CASES[case]
    memory = Memory()
    source = transform(memory.store(numbered(shape)))
    rows = row_count(source)
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))

    whole = memory.whole(source).reshape(rows, -1)

    assert np.array_equal(whole[start:stop], memory.rows(source, start, stop))


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.permutations([0, 1, 2]))
def test_regrouping_equals_transposition(a: int, b: int, c: int, columns: int, order: list[int]) -> None:
    """Rows viewed on three axes and put into any order of axes."""
    memory = Memory()
    values = numbered((a * b * c, columns))
    source = t.regroup_rows(memory.store(values), (a, b, c), tuple(order))

    expected = values.reshape(a, b, c, columns).transpose(*order, 3).reshape(a * b * c, columns)
    assert np.array_equal(expected, memory.whole(source))


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_block_scales_equal_repetition(rows: int, columns: int, high: int, wide: int, matrices: int) -> None:
    """Each weight is multiplied by the scale of its block, the last blocks may be cut."""
    memory = Memory()
    values = numbered((matrices, rows, columns))
    scales = numbered((matrices, -(-rows // high), -(-columns // wide)))
    source = v.ScaledByBlock(memory.store(values), memory.store(scales), (high, wide))

    repeated = np.repeat(np.repeat(scales, high, axis=1), wide, axis=2)[:, :rows, :columns]
    assert np.array_equal(values * repeated, memory.whole(source))


def test_permutation_reads_only_the_heads_it_needs() -> None:
    """One head of a permuted matrix takes one head's bytes."""
    memory = Memory()
    source = t.interleave_halves(memory.store(numbered((64, 8))), 8)

    memory.rows(source, 8, 16)

    assert 8 * 8 * 4 == memory.read_bytes


def test_few_rows_of_a_transposed_matrix_take_few_bytes() -> None:
    """Not the whole matrix for each block of rows: experts have a hundred million weights."""
    memory = Memory()
    values = numbered((3, 40, 64))
    source = t.Transposed(memory.store(values))

    rows = memory.rows(source, 70, 73)

    assert np.array_equal(values.transpose(0, 2, 1).reshape(-1, 40)[70:73], rows)
    assert 3 * 40 * 4 == memory.read_bytes


def test_row_transforms_keep_the_stored_bits() -> None:
    """A permutation of F16 gives F16 without a detour, NaN payloads included."""
    memory = Memory()
    words = np.array([[0x7E01], [0x3C00], [0xFE02], [0x0001]], np.uint16)
    source = t.interleave_halves(memory.store(words.view(np.float16), "F16"), 1)

    raw = source.read_rows(memory.read, 0, 4)

    assert "F16" == source.dtype
    assert [0x7E01, 0xFE02, 0x3C00, 0x0001] == raw.reshape(-1).view(np.uint8).view("<u2").tolist()


def test_parts_of_different_precision_join_as_f32() -> None:
    """F32 holds all of them exactly."""
    memory = Memory()
    source = t.stack((memory.store(numbered((2, 2)), "F16"), memory.store(numbered((2, 2)))))

    assert "F32" == source.dtype
    assert np.array_equal(np.stack([numbered((2, 2))] * 2), memory.whole(source))


def test_spans_name_the_bytes_a_slice_needs() -> None:
    """What a slice claims to read is what it reads."""
    memory = Memory()
    source = t.take_rows(memory.store(numbered((10, 3))), 2, 7)

    (span,) = source.spans()
    memory.whole(source)

    assert (2 * 12, 5 * 12) == (span.offset, span.size_bytes)
    assert span.size_bytes == memory.read_bytes


def test_constants_read_nothing() -> None:
    """They are known from the configuration."""
    source = v.constant([1.0, 2.5])

    assert () == source.spans()
    assert [[1.0, 2.5]] == decode(source.read_rows(Memory().read, 0, 1), source.dtype).tolist()
