"""What a worker does: the bytes of one block of rows for each file that wants them, from one read of the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from modelbuild.convert.planned import PlannedTensor, ReadSpan
from modelbuild.errors import InputError
from modelbuild.formats.elements import decode, encode
from modelbuild.formats.gguf.types import GgmlType, is_quantized
from modelbuild.plan.importance import TensorImportance
from modelbuild.quantize import pack, unpack
from modelbuild.quantize.packing import refuse_nonfinite
from modelbuild.records import record
from modelbuild.store.partial import CHECK_BYTES

_FLOAT_TYPES: Mapping[GgmlType, Literal["F32", "F16", "BF16"]] = {
    GgmlType.F32: "F32", GgmlType.F16: "F16", GgmlType.BF16: "BF16",
}  # fmt: skip
#: Sources that are packed already, by the name of their type; read only when requantizing was asked for.
_PACKED_TYPES = {type_.name: type_ for type_ in GgmlType if is_quantized(type_)}

#: Bytes of a block, their check sum (empty where nobody needs one), and whether they still have to be written.
Packed = tuple[memoryview, bytes, bool]


@record
class SpanCopy:
    """Bytes that exist already and may be used instead of packing, if they still have this check sum.

    in_place: they stand where they are wanted, in the file that is being written.
    """

    read_at: Callable[[int, int], bytes]
    offset: int
    check: bytes
    in_place: bool

    def fetch(self, size_bytes: int) -> bytes | None:
        """The bytes, or None when they are not what they were."""
        data = self.read_at(self.offset, size_bytes)
        return data if len(data) == size_bytes and check_sum(data) == self.check else None


@record
class Part:
    """One file's share of a block.

    source: equal texts mean equal weights. copies: where the bytes may exist already, best first.
    importance: what steers the packing, if anything does. allow_nonfinite: pack infinities and NaN as they come.
    """

    tensor: PlannedTensor
    source: str
    size_bytes: int
    copies: Sequence[SpanCopy]
    importance: TensorImportance | None = None
    allow_nonfinite: bool = False


def check_sum(data: bytes | memoryview) -> bytes:
    """The check sum of a block's bytes: BLAKE3, cut to CHECK_BYTES."""
    return blake3(data).digest(CHECK_BYTES)


def pack_parts(parts: Sequence[Part], read: ReadSpan, start: int, stop: int) -> list[Packed]:
    """Rows start to stop for every part; the source is read and decoded once for parts that share it."""
    rows = _Rows(read, start, stop)
    return [_copied(part) or _fresh(part, rows) for part in parts]


def _copied(part: Part) -> Packed | None:
    for copy in part.copies:
        data = copy.fetch(part.size_bytes)
        if data is not None:
            return memoryview(data), copy.check, not copy.in_place
    return None


def _fresh(part: Part, rows: _Rows) -> Packed:
    data = _pack(part, rows).reshape(-1).view(np.uint8).data
    if len(data) != part.size_bytes:
        raise AssertionError(f"{part.tensor.name}: {len(data)} bytes packed, {part.size_bytes} planned")
    # Floats are made again about as fast as they could be checked, so they are neither kept nor continued.
    return data, check_sum(data) if is_quantized(part.tensor.type) else b"", True


def _pack(part: Part, rows: _Rows) -> npt.NDArray[np.generic]:
    tensor = part.tensor
    if tensor.source.dtype == tensor.type.name:
        return np.ascontiguousarray(rows.stored(tensor, part.source))
    values = rows.values(tensor, part.source)
    try:
        return _made(part, values, rows.start)
    except InputError as error:
        message = f"rows {rows.start} to {rows.stop - 1}: {error.message}"
        raise InputError(error.code, message, key=tensor.name, hint=error.hint) from error


def _made(part: Part, values: npt.NDArray[np.float32], first_row: int) -> npt.NDArray[np.generic]:
    type_ = part.tensor.type
    float_type = _FLOAT_TYPES.get(type_)
    if float_type is not None:
        if not part.allow_nonfinite:
            refuse_nonfinite(values)
        return np.ascontiguousarray(encode(values, float_type))
    if part.importance is None:
        return pack(values, type_, threads=1, allow_nonfinite=part.allow_nonfinite)
    return _pack_matrices(part, part.importance, values, first_row)


def _pack_matrices(
    part: Part, importance: TensorImportance, values: npt.NDArray[np.float32], first_row: int
) -> npt.NDArray[np.uint8]:
    """Rows packed, each with the importance of the matrix it belongs to."""
    parts = []
    row, stop = first_row, first_row + len(values)
    while row < stop:
        matrix = row // importance.rows_per_matrix
        end = min(stop, (matrix + 1) * importance.rows_per_matrix)
        chunk, columns = values[row - first_row : end - first_row], importance.values[matrix]
        packed = pack(chunk, part.tensor.type, importance=columns, threads=1, allow_nonfinite=part.allow_nonfinite)
        parts.append(packed)
        row = end
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Rows:
    """The rows of a block, read and decoded at most once per distinct source."""

    def __init__(self, read: ReadSpan, start: int, stop: int) -> None:
        self._read = read
        self.start = start
        self.stop = stop
        self._stored: dict[str, npt.NDArray[np.generic]] = {}
        self._values: dict[str, npt.NDArray[np.float32]] = {}

    def stored(self, tensor: PlannedTensor, source: str) -> npt.NDArray[np.generic]:
        """The rows as the source holds them."""
        if source not in self._stored:
            self._stored[source] = tensor.source.read_rows(self._read, self.start, self.stop)
        return self._stored[source]

    def values(self, tensor: PlannedTensor, source: str) -> npt.NDArray[np.float32]:
        """The rows as float32."""
        if source not in self._values:
            rows, dtype = self.stored(tensor, source), tensor.source.dtype
            packed = _PACKED_TYPES.get(dtype)
            if packed is None:
                self._values[source] = decode(rows, dtype)
            else:
                shape = (self.stop - self.start, tensor.source.shape[-1])
                self._values[source] = unpack(np.ascontiguousarray(rows).view(np.uint8), packed, shape)
        return self._values[source]
