"""`pack` and `unpack` as users call them: results, checks and their texts."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from modelbuild.errors import InputError, ModelbuildError, UnsupportedError, UsageError
from modelbuild.formats.gguf.types import GgmlType, row_bytes
from modelbuild.quantize import pack, unpack
from modelbuild.quantize.targets import TARGET_TYPES

ROWS = np.random.default_rng(1).standard_normal((4, 512)).astype(np.float32)
#: Largest difference, in units of the largest weight, that a round trip may show; generous per number of bits.
CLOSENESS = {"F32": 0, "F16": 1e-3, "BF16": 1e-2, "Q8": 1e-2, "Q6": 0.05, "Q5": 0.05, "Q4": 0.1, "IQ4": 0.12, "Q1": 1}


@pytest.mark.parametrize("type_", sorted(TARGET_TYPES), ids=lambda type_: type_.name)
def test_round_trip(type_: GgmlType) -> None:
    """What was packed decodes to the same shape, close to the weights as far as the bits allow."""
    packed = pack(ROWS, type_, importance=np.ones(512, np.float32))
    decoded = unpack(packed, type_, ROWS.shape)

    assert ((4, row_bytes(type_, 512)), np.uint8) == (packed.shape, packed.dtype)
    assert (ROWS.shape, np.float32) == (decoded.shape, decoded.dtype)
    limit = next((value for name, value in CLOSENESS.items() if type_.name.startswith(name)), 0.75)
    assert np.abs(decoded - ROWS).max() <= limit * np.abs(ROWS).max()


def test_numpy_path_gives_the_same_bytes() -> None:
    """Which kernels work is invisible in the result."""
    assert np.array_equal(pack(ROWS, GgmlType.Q4_K), pack(ROWS, GgmlType.Q4_K, path="numpy"))
    assert np.array_equal(pack(ROWS, GgmlType.Q4_K), pack(ROWS, GgmlType.Q4_K, threads=1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_named(value: float) -> None:
    """The error names row and column; with allow_nonfinite the work goes on."""
    rows = ROWS.copy()
    rows[2, 300] = value

    with pytest.raises(InputError, match="row 2, column 300") as caught:
        pack(rows, GgmlType.Q8_0)

    assert "NONFINITE" == caught.value.code
    assert (4, 544) == pack(rows, GgmlType.Q8_0, allow_nonfinite=True).shape


@pytest.mark.parametrize("type_", [GgmlType.F16, GgmlType.Q8_0, GgmlType.Q4_0, GgmlType.Q4_K, GgmlType.IQ4_XS])
def test_weights_beyond_the_scale_are_refused(type_: GgmlType) -> None:
    """A float16 scale cannot hold them, so no reader would accept the file."""
    rows = ROWS.copy()
    rows[3, 260] = 3e8

    with pytest.raises(InputError, match=f"up to 3e\\+08 at row 3, column .* are too large for {type_.name}") as caught:
        pack(rows, type_)

    assert "OVERFLOW" == caught.value.code


def test_bf16_overflow_is_refused() -> None:
    """The largest float32 values round to infinity."""
    with pytest.raises(InputError, match="too large for BF16"):
        pack(np.full((1, 32), np.finfo(np.float32).max), GgmlType.BF16)


@pytest.mark.parametrize(
    ("weights", "arguments", "error", "code"),
    [
        (ROWS, {"type": GgmlType.Q8_1}, UnsupportedError, "TYPE"),
        (ROWS, {"type": GgmlType.I32}, UnsupportedError, "TYPE"),
        (ROWS.astype(np.float64), {"type": GgmlType.Q8_0}, UsageError, "WEIGHTS"),
        (ROWS[0], {"type": GgmlType.Q8_0}, UsageError, "WEIGHTS"),
        ([[1.0]], {"type": GgmlType.Q8_0}, UsageError, "WEIGHTS"),
        (ROWS[:, :300], {"type": GgmlType.Q4_K}, InputError, "SHAPE"),
        (ROWS, {"type": GgmlType.IQ2_XS}, InputError, "IMPORTANCE"),
        (ROWS, {"type": GgmlType.Q4_K, "importance": np.ones(511, np.float32)}, InputError, "IMPORTANCE"),
        (ROWS, {"type": GgmlType.Q4_K, "importance": np.full(512, np.float32(np.inf))}, InputError, "IMPORTANCE"),
        (ROWS, {"type": GgmlType.Q4_K, "importance": np.ones((1, 512), np.float32)}, UsageError, "IMPORTANCE"),
        (ROWS, {"type": GgmlType.Q4_K, "importance": np.ones(512)}, UsageError, "IMPORTANCE"),
        (ROWS, {"type": GgmlType.Q4_K, "path": "fast"}, UsageError, "PATH"),
        (ROWS, {"type": GgmlType.Q4_K, "threads": 0}, UsageError, "THREADS"),
    ],
)
def test_unsound_arguments_are_refused(
    weights: object, arguments: dict[str, object], error: type[ModelbuildError], code: str
) -> None:
    """Every mistake is an error of ours with a stable code."""
    with pytest.raises(error) as caught:
        pack(weights, **arguments)  # type: ignore[arg-type]

    assert code == caught.value.code


def test_rows_may_be_a_view() -> None:
    """Strided or big-endian input gives the bytes of its copy."""
    assert np.array_equal(pack(ROWS, GgmlType.Q4_0), pack(ROWS.astype(">f4"), GgmlType.Q4_0))
    assert np.array_equal(pack(ROWS[:, ::2].copy(), GgmlType.Q4_0), pack(ROWS[:, ::2], GgmlType.Q4_0))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_unpack_takes_bytes_and_any_shape(kind: type) -> None:
    """Packed data may come as any buffer; the shape may have any number of dimensions."""
    packed = pack(ROWS, GgmlType.Q8_0)

    decoded = unpack(kind(packed.tobytes()), GgmlType.Q8_0, (2, 2, 512))

    assert np.array_equal(unpack(packed, GgmlType.Q8_0, (4, 512)).reshape(2, 2, 512), decoded)


@pytest.mark.parametrize(
    ("type_", "shape", "error", "text"),
    [
        (GgmlType.Q8_0, (4, 544), InputError, "2176 bytes, but Q8_0 of shape"),
        (GgmlType.Q8_0, (4, 500), InputError, "blocks of 32"),
        (GgmlType.Q8_0, (), UsageError, "sizes"),
        (GgmlType.Q8_0, (-4, 512), UsageError, "sizes"),
        (GgmlType.Q8_0, (1 << 62, 1 << 62), InputError, "takes"),
        (GgmlType.I8, (4, 512), UnsupportedError, "I8 tensors cannot be decoded"),
        (GgmlType.Q8_1, (4, 512), UnsupportedError, "Q8_1"),
    ],
)
def test_unpack_refuses_what_does_not_fit(
    type_: GgmlType, shape: tuple[int, ...], error: type[ModelbuildError], text: str
) -> None:
    """Sizes are checked before anything is allocated."""
    with pytest.raises(error, match=text):
        unpack(pack(ROWS, GgmlType.Q8_0), type_, shape)


def test_nothing_decodes_to_nothing() -> None:
    """A tensor with an empty dimension."""
    assert (0, 32) == unpack(b"", GgmlType.Q4_0, (0, 32)).shape


def test_types_are_decided_without_numpy() -> None:
    """Importing the package, its presets and its policy loads nothing heavy: planning has a time budget."""
    code = (
        "import sys, modelbuild.quantize.mixes, modelbuild.quantize.presets, modelbuild.quantize as q; "
        "print(sorted({'numpy', 'gguf'} & set(sys.modules)), hasattr(q, 'pack'), 'numpy' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[] True True" == result.stdout.strip()
