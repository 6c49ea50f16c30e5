"""Reads the header of a safetensors file: bounded, checked in full, no weights touched.

Layout of the format: 8 bytes of header length, a JSON object (name to dtype, shape and data offsets), then the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import cast

from modelbuild.errors import InputError, printable
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.json_text import parse_json
from modelbuild.formats.signatures import SIGNATURE_BYTES, describe_format
from modelbuild.records import record

#: Room for some 250,000 tensors; without it a file could claim a header that takes all memory.
HEADER_LIMIT_BYTES = 32 << 20
#: Brackets of the JSON text: three for each of 256 Ki tensors. Without it nested empty lists would take 20 times the
#: header's size.
_BRACKET_LIMIT = 1 << 20
#: Commas, colons and brackets of the JSON text: a dozen for each tensor.
_MARK_LIMIT = 3 << 20
_NAME_LIMIT_BYTES = 4096
_DIMENSION_LIMIT = 8
_INT64_MAX = (1 << 63) - 1
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_ENTRY_KEYS = frozenset({"dtype", "shape", "data_offsets"})

#: Bits of one element, by the dtype's name in the format.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@record
class StoredTensor:
    """A tensor's place in a file.

    dtype: a name of the safetensors format ("BF16", "F8_E4M3", ...), or of a GGUF type for data of a GGUF file.
    shape: row-major, slowest-varying dimension first. offset: of the first byte, from the start of the file.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


class SafetensorsHeader(Mapping[str, StoredTensor]):
    """The tensors of one file by name, in the order of its header; `metadata` are the file's free texts."""

    __slots__ = ("_tensors", "metadata", "path")

    def __init__(self, path: Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> None:
        self.path = path
        self.metadata = metadata
        self._tensors = tensors

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def open_safetensors(path: Path) -> SafetensorsHeader:
    """The tensors of a safetensors file; reads nothing but its header, at most 32 MiB.

    Every extent lies inside the file and they cover its data without gap or overlap. Raises InputError TRUNCATED,
    HEADER, JSON, DUPLICATE, METADATA, NAME, ENTRY, TYPE, SHAPE, OFFSET or DATA, with the tensor's name.
    """
    with open_input(path) as source:
        text = _read_text(source)
        data_offset, file_bytes = _LENGTH_BYTES + len(text), source.size_bytes
    header = _parse(text, path)
    metadata = _check_metadata(header.pop(_METADATA, {}), path)
    tensors: dict[str, StoredTensor] = {}
    for name, entry in header.items():
        try:
            tensors[name] = _read_entry(path, name, entry, data_offset)
        except InputError as error:
            error.path, error.key = path, name[:_NAME_LIMIT_BYTES]
            raise
    _check_coverage(path, tensors, data_offset, file_bytes)
    return SafetensorsHeader(path, tensors, metadata)


def _read_text(source: InputFile) -> bytes:
    length = int.from_bytes(source.read_at(0, _LENGTH_BYTES), "little")
    if length > HEADER_LIMIT_BYTES:
        what, hint = describe_format(source.read_at(0, min(SIGNATURE_BYTES, source.size_bytes)))
        found = (
            f"found {what}" if what else f"found a header of {length:,} bytes, at most {HEADER_LIMIT_BYTES:,} allowed"
        )
        raise InputError("HEADER", f"a safetensors file is expected, {found}", path=source.path, offset=0, hint=hint)
    left = source.size_bytes - _LENGTH_BYTES
    if length < len("{}") or length > left:
        message = f"a header of {length:,} bytes, {left:,} left in the file"
        raise InputError("TRUNCATED", message, path=source.path, offset=0)
    return source.read_at(_LENGTH_BYTES, length)


def _parse(text: bytes, path: Path) -> dict[str, object]:
    if text[:1] != b"{":
        raise InputError("JSON", "the header must start with {", path=path, offset=_LENGTH_BYTES)
    if text.count(b"[") + text.count(b"{") > _BRACKET_LIMIT:
        raise InputError("HEADER", f"the header has more than {_BRACKET_LIMIT:,} brackets", path=path)
    try:
        header = parse_json(text, path=path, max_marks=_MARK_LIMIT)
    except InputError as error:
        if error.code != "LIMIT":
            raise
        raise InputError("HEADER", f"the header has {error.message}", path=path, hint=error.hint) from error
    return cast("dict[str, object]", header)  # a document that starts with { is an object


def _check_metadata(value: object, path: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InputError("METADATA", "an object of texts is expected", path=path, key=_METADATA)
    return value


def _read_entry(path: Path, name: str, entry: object, data_offset: int) -> StoredTensor:
    _check_name(name)
    if not isinstance(entry, dict) or entry.keys() != _ENTRY_KEYS:
        found = ", ".join(sorted(map(printable, entry))) if isinstance(entry, dict) else type(entry).__name__
        raise InputError("ENTRY", f"an object with {', '.join(sorted(_ENTRY_KEYS))} is expected, found {found}")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise InputError("TYPE", f"unknown dtype {printable(str(dtype))!r}, known are {', '.join(DTYPE_BITS)}")
    shape = _check_shape(entry["shape"])
    start, stop = _check_offsets(entry["data_offsets"])
    bits = prod(shape) * DTYPE_BITS[dtype]
    if prod(shape) > _INT64_MAX or bits != 8 * (stop - start):
        message = f"{dtype} of shape {list(shape)} takes {bits / 8:,} bytes, its data are {stop - start:,} bytes"
        raise InputError("SHAPE", message)
    return StoredTensor(path, name, dtype, shape, data_offset + start, stop - start)


def _check_name(name: str) -> None:
    if not 0 < len(name.encode("utf-8")) <= _NAME_LIMIT_BYTES or "\0" in name:
        raise InputError("NAME", f"a tensor name must have 1 to {_NAME_LIMIT_BYTES} bytes and no NUL")


def _check_shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _DIMENSION_LIMIT:
        raise InputError("SHAPE", f"a list of at most {_DIMENSION_LIMIT} dimensions is expected")
    if not all(type(dimension) is int and 0 <= dimension <= _INT64_MAX for dimension in value):
        raise InputError("SHAPE", f"dimensions must be integers from 0 to 2^63-1, found {printable(str(value))}")
    return tuple(value)


def _check_offsets(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(offset) is int for offset in value):
        raise InputError("OFFSET", "data_offsets must be two integers")
    start, stop = value
    if not 0 <= start <= stop <= _INT64_MAX:
        raise InputError("OFFSET", f"data_offsets {start}, {stop} do not follow each other")
    return start, stop


def _check_coverage(path: Path, tensors: Mapping[str, StoredTensor], data_offset: int, file_bytes: int) -> None:
    """Extents follow each other from the start of the data to the end of the file."""
    position = data_offset
    for tensor in sorted(tensors.values(), key=lambda item: (item.offset, item.size_bytes)):
        if tensor.offset != position:
            message = f"the data start at byte {tensor.offset:,}, but what lies before ends at {position:,}"
            raise InputError("OFFSET", message, path=path, key=tensor.name)
        position += tensor.size_bytes
    if position != file_bytes:
        message = f"the data end at byte {position:,}, the file at {file_bytes:,}"
        hint = "get the file again, the copy is incomplete" if file_bytes < position else ""
        raise InputError("DATA", message, path=path, hint=hint)
