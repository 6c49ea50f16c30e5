"""`pack` and `unpack`: checks at the door, then the kernels.

Everything that could go wrong is said before the work or right after it: shapes, types, values that are not finite,
values too large for a type.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import get_args

import numpy as np
import numpy.typing as npt

from modelbuild.errors import InputError, UnsupportedError, UsageError
from modelbuild.formats.gguf.types import GgmlType, row_bytes
from modelbuild.quantize import kernels
from modelbuild.quantize.soundness import find_unsound_block
from modelbuild.quantize.targets import SEARCH_NEEDS_IMPORTANCE, TARGET_TYPES

Float32 = npt.NDArray[np.float32]
Uint8 = npt.NDArray[np.uint8]


def pack(
    weights: Float32,
    type: GgmlType,  # noqa: A002 - the word users know
    *,
    importance: Float32 | None = None,
    path: kernels.Path = "auto",
    threads: int | None = None,
    allow_nonfinite: bool = False,
) -> Uint8:
    """Pack rows of weights into the blocks of a type, bit for bit as llama.cpp does.

    weights: float32 of shape (rows, columns); columns must be a multiple of the type's block size.
    importance: float32 of shape (columns,), how much an error in each column counts; types without a search ignore it.
    path: which kernels, all with the same bytes. threads: how many the native kernels may use, all cores when None.
    Returns uint8 of shape (rows, row bytes).
    Raises UsageError for arguments of the wrong kind; InputError SHAPE, NONFINITE (naming row and column; not with
    allow_nonfinite), OVERFLOW (values beyond the type's scale), IMPORTANCE; UnsupportedError for a type that is never
    made.
    """
    target = _check_target(type)
    rows = _check_weights(weights)
    row_bytes(target, rows.shape[1])
    columns = None if importance is None else _check_importance(importance, rows.shape[1])
    if columns is None and target in SEARCH_NEEDS_IMPORTANCE:
        message = f"{target.name} can only be packed with an importance matrix"
        raise InputError("IMPORTANCE", message, hint="give importance=, or choose IQ2_S, IQ3_XXS or Q2_K")
    _check_path(path, threads)
    if not allow_nonfinite:
        refuse_nonfinite(rows)
    packed = kernels.pack(rows, target, importance=columns, path=path, threads=threads)
    if not allow_nonfinite and target is not GgmlType.F32:
        _refuse_overflow(rows, packed, target)
    return packed


def unpack(
    data: bytes | bytearray | memoryview | Uint8,
    type: GgmlType,  # noqa: A002 - the word users know
    shape: Sequence[int],
) -> Float32:
    """Decode packed blocks, bit for bit as llama.cpp does.

    data: the bytes of all rows, one after the other. shape: of the result, row length last.
    Returns float32 of that shape, C-contiguous.
    Raises InputError SHAPE when the row length is no multiple of the block size or the data has another size;
    UnsupportedError for types that hold no weights (integers, Q8_1).
    """
    from modelbuild.quantize.reference import UNPACKERS

    if type not in UNPACKERS:
        raise UnsupportedError("TYPE", f"{GgmlType(type).name} tensors cannot be decoded to float32")
    sizes = [int(size) for size in shape]
    if not sizes or min(sizes) < 0:
        raise UsageError("SHAPE", f"a shape has one or more sizes from 0 on, not {sizes}")
    raw = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data.reshape(-1).view(np.uint8)
    rows, wanted = prod(sizes[:-1]), row_bytes(GgmlType(type), sizes[-1])
    if raw.size != rows * wanted:
        message = f"{raw.size} bytes, but {type.name} of shape {sizes} takes {rows * wanted}"
        raise InputError("SHAPE", message)
    if raw.size == 0:
        return np.zeros(sizes, np.float32)
    return UNPACKERS[type](raw.reshape(rows, wanted)).reshape(sizes)


def _check_target(type_: GgmlType) -> GgmlType:
    target = GgmlType(type_)
    if target not in TARGET_TYPES:
        raise UnsupportedError("TYPE", f"tensors cannot be packed as {target.name}")
    return target


def _check_weights(weights: object) -> Float32:
    if not isinstance(weights, np.ndarray) or weights.dtype.newbyteorder("=") != np.float32 or weights.ndim != 2:
        found = (
            f"{weights.dtype} of shape {weights.shape}" if isinstance(weights, np.ndarray) else type(weights).__name__
        )
        raise UsageError("WEIGHTS", f"weights are float32 of shape (rows, columns), not {found}")
    return np.ascontiguousarray(weights, np.float32)


def _check_importance(importance: object, columns: int) -> Float32:
    if not isinstance(importance, np.ndarray) or importance.dtype != np.float32 or importance.ndim != 1:
        raise UsageError("IMPORTANCE", "importance is float32 of shape (columns,)")
    if len(importance) != columns:
        raise InputError("IMPORTANCE", f"the importance has {len(importance)} values, the rows have {columns}")
    if not np.isfinite(importance).all():
        index = int(np.isfinite(importance).argmin())
        raise InputError("IMPORTANCE", f"the importance of column {index} is {importance[index]}, not a finite number")
    return np.ascontiguousarray(importance)


def _check_path(path: str, threads: int | None) -> None:
    if path not in get_args(kernels.Path):
        raise UsageError("PATH", f"path is one of {', '.join(get_args(kernels.Path))}, not {path!r}")
    if threads is not None and threads < 1:
        raise UsageError("THREADS", f"threads is at least 1, not {threads}")


def refuse_nonfinite(rows: Float32) -> None:
    """InputError NONFINITE with row and column of the first value that is infinite or no number."""
    index = kernels.find_nonfinite(rows)
    if index is not None:
        row, column = divmod(index, rows.shape[1])
        message = f"weight at row {row}, column {column} is {rows[row, column]}, not a finite number"
        raise InputError("NONFINITE", message, hint="repair the weights, or allow such values with --allow-nonfinite")


def _refuse_overflow(rows: Float32, packed: Uint8, target: GgmlType) -> None:
    place = find_unsound_block(packed, target)
    if place is not None:
        row, column = place
        greatest = float(np.abs(rows[row, column : column + 256]).max())
        message = f"weights up to {greatest:.3g} at row {row}, column {column} are too large for {target.name}"
        raise InputError("OVERFLOW", message, hint="use F32 or BF16 for this tensor")
