"""Importance matrices: how much each input column of a weight matrix matters, measured by `llama-imatrix`.

Both forms are read: GGUF, and the older .dat. Only the directory of entries is read at once; values are read when they
are asked for, because the matrices of models with many experts take a gigabyte.
Source of both layouts: tools/imatrix and tools/quantize of llama.cpp (October 2026).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelbuild.errors import ChangedError, InputError, printable
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.gguf.limits import MAGIC
from modelbuild.formats.gguf.reader import GgufHeader, TensorInfo, open_gguf
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.signatures import SIGNATURE_BYTES, describe_format
from modelbuild.records import record

Floats = npt.NDArray[np.float32]

_SUMS, _COUNTS = ".in_sum2", ".counts"
_DATASETS_KEY, _CHUNKS_KEY, _CHUNK_SIZE_KEY = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
_HINT = "an importance matrix is what llama-imatrix writes"
_INT32 = struct.Struct("<i")
_INT32_MAX = (1 << 31) - 1
_NAME_LIMIT_BYTES = 1024
_DATASET_LIMIT_BYTES = 64 << 10
#: An entry of the older form has at least three numbers, one byte of name and one value.
_SMALLEST_ENTRY_BYTES = 4 + 1 + 4 + 4 + 4


@record(eq=False)
class Importance:
    """The importance of a tensor's input columns.

    values: float32, flat; one number for each column, for stacked expert matrices one such row after the other, so the
    length is columns x matrices. Finite and not negative. counts: how many tokens (GGUF form, one number for each
    matrix) or calls (older form, one number) they were measured with.
    """

    values: Floats
    counts: tuple[int, ...]

    @property
    def is_zero(self) -> bool:
        """No column matters: nothing can be learned from it, and quantizing with it would divide by zero."""
        return not self.values.any()


@record
class _Entry:
    """Where an entry's numbers stand; counts_offset is None in the older form, which holds a number of calls."""

    offset: int
    length: int
    counts_offset: int | None
    count: int


class ImportanceMatrix(Mapping[str, Importance]):
    """Tensor name to importance, in the order of the file; each access reads the values of one tensor.

    datasets: what was measured with, as the file says. chunk_count, chunk_size: 0 when unknown.
    """

    def __init__(
        self,
        source: InputFile,
        entries: Mapping[str, _Entry],
        *,
        datasets: Sequence[str],
        chunk_count: int,
        chunk_size: int,
    ) -> None:
        self.path = source.path
        self.datasets = tuple(datasets)
        self.chunk_count = chunk_count
        self.chunk_size = chunk_size
        self._stat = source.stat
        self._entries = entries

    def __getitem__(self, name: str) -> Importance:
        entry = self._entries[name]
        with open_input(self.path) as source:
            _check_unchanged(self._stat, source)
            try:
                return _read_importance(source, entry)
            except InputError as error:
                error.key = name
                raise

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def length_of(self, name: str) -> int:
        """How many values an entry has, without reading them."""
        return self._entries[name].length


def read_imatrix(path: Path) -> ImportanceMatrix:
    """The importance matrix in a file of either form.

    Raises InputError: META for missing keys, DATA for entries that do not fit together, MAGIC or PICKLE for files of
    another kind, and whatever the GGUF reader raises. Accessing an entry raises DATA for values that are negative or
    not finite, and ChangedError when the file is no longer the one that was opened.
    """
    with open_input(path) as source:
        start = source.read_at(0, min(SIGNATURE_BYTES, source.size_bytes))
        if start.startswith(MAGIC):
            return _read_gguf(source, open_gguf(path))
        _refuse_other_formats(start, path)
        return _read_dat(source)


def _check_unchanged(before: os.stat_result, source: InputFile) -> None:
    now = source.stat
    fields = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    if any(getattr(before, field) != getattr(now, field) for field in fields):
        raise ChangedError("CHANGED", f"{source.path} changed while it was used", hint="run the build again")


def _read_importance(source: InputFile, entry: _Entry) -> Importance:
    sums = _read_floats(source, entry.offset, entry.length)
    if not np.isfinite(sums).all() or (sums < 0).any():
        raise InputError("DATA", "a value is negative or not finite", path=source.path, offset=entry.offset)
    if entry.counts_offset is None:
        divisor = np.float32(entry.count if entry.count > 0 else 1)
        return Importance(sums / divisor, (entry.count,))
    counts = _read_counts(source, entry.counts_offset, entry.count)
    return Importance(_mean_by_slice(sums, counts), tuple(int(count) for count in counts))


def _read_counts(source: InputFile, offset: int, length: int) -> Floats:
    counts = _read_floats(source, offset, length)
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise InputError("DATA", "a count is negative or not finite", path=source.path, offset=offset)
    rounded: Floats = np.floor(counts + np.float32(0.5))
    return rounded


def _mean_by_slice(sums: Floats, counts: Floats) -> Floats:
    """Sums over counts; a matrix that no token reached counts as evenly important."""
    slices = sums.reshape(counts.size, -1)
    is_seen = (counts > 0)[:, None]
    means = slices / np.where(is_seen, counts[:, None], np.float32(1))
    return np.where(is_seen, means, np.float32(1)).reshape(-1)


def _read_floats(source: InputFile, offset: int, length: int) -> Floats:
    return np.frombuffer(source.read_at(offset, length * 4), "<f4")


# -- GGUF --------------------------------------------------------------------------------------------------------------


def _read_gguf(source: InputFile, header: GgufHeader) -> ImportanceMatrix:
    kv = header.kv
    if kv.get_string("general.type") not in (None, "imatrix"):
        message = f"an importance matrix is expected, the file is of type {printable(kv.string('general.type'))!r}"
        raise InputError("META", message, path=source.path, key="general.type")
    if _DATASETS_KEY not in kv:
        message = "a GGUF file that is no importance matrix"
        raise InputError("META", message, path=source.path, key=_DATASETS_KEY, hint=_HINT)
    datasets = kv.strings(_DATASETS_KEY)
    chunk_count, chunk_size = (kv.integer(key, 0, _INT32_MAX) for key in (_CHUNKS_KEY, _CHUNK_SIZE_KEY))
    tensors = {tensor.name: tensor for tensor in header.tensors}
    entries = {name.removesuffix(_SUMS): _gguf_entry(header, tensors, name) for name in tensors if name.endswith(_SUMS)}
    for name in tensors:
        if name.endswith(_COUNTS) and name.removesuffix(_COUNTS) not in entries:
            raise InputError("DATA", f"there is no {_SUMS[1:]} beside it", path=source.path, key=name)
    return ImportanceMatrix(source, entries, datasets=datasets, chunk_count=chunk_count, chunk_size=chunk_size)


def _gguf_entry(header: GgufHeader, tensors: Mapping[str, TensorInfo], name: str) -> _Entry:
    sums, counts = tensors[name], tensors.get(name.removesuffix(_SUMS) + _COUNTS)
    if counts is None:
        raise InputError("DATA", f"there is no {_COUNTS[1:]} beside it", path=header.path, key=name)
    for tensor in (sums, counts):
        if tensor.type is not GgmlType.F32:
            message = f"F32 is expected, found {tensor.type.name}"
            raise InputError("DATA", message, path=header.path, key=tensor.name)
    length, slices = prod(sums.shape), prod(counts.shape)
    if not length or slices != prod(sums.shape[1:]):
        message = f"the shapes {list(sums.shape)} of sums and {list(counts.shape)} of counts do not fit together"
        raise InputError("DATA", message, path=header.path, key=name)
    start = header.data_offset
    return _Entry(start + sums.offset, length, start + counts.offset, slices)


# -- the older form ----------------------------------------------------------------------------------------------------


def _refuse_other_formats(start: bytes, path: Path) -> None:
    if start.startswith(b"\x93NUMPY"):
        message = "a NumPy file, which can hold pickled objects and is not read"
        raise InputError("PICKLE", message, path=path, hint="make the matrix with llama-imatrix")
    what, hint = describe_format(start)
    if what:
        raise InputError("MAGIC", f"an importance matrix is expected, found {what}", path=path, offset=0, hint=hint)


class _Cursor:
    """Reads the numbers and texts of the older form one after the other."""

    def __init__(self, source: InputFile) -> None:
        self.source = source
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes up to the end of the file."""
        return self.source.size_bytes - self.position

    def number(self, what: str, minimum: int, maximum: int) -> int:
        """The next number, which must lie in a range."""
        (value,) = _INT32.unpack(self.take(_INT32.size, what))
        if not minimum <= value <= maximum:
            message = f"{what} is {value}, {minimum} to {maximum} is expected"
            raise InputError("DATA", message, path=self.source.path, offset=self.position - _INT32.size)
        return int(value)

    def text(self, what: str, minimum: int, limit: int) -> str:
        """The next text, with its length in front."""
        length = self.number(f"the length of {what}", minimum, limit)
        return self.take(length, what).decode("utf-8", "replace")

    def take(self, size: int, what: str) -> bytes:
        """The next bytes."""
        start = self.skip(size, what)
        return self.source.read_at(start, size)

    def skip(self, size: int, what: str) -> int:
        """Where the next bytes stand, after making sure that they are there."""
        start = self.position
        if size > self.remaining:
            message = f"the file ends inside {what}: {size:,} bytes expected, {self.remaining:,} left"
            raise InputError("DATA", message, path=self.source.path, offset=start)
        self.position += size
        return start


def _read_dat(source: InputFile) -> ImportanceMatrix:
    cursor = _Cursor(source)
    try:
        count = cursor.number("the number of entries", 1, max(1, source.size_bytes // _SMALLEST_ENTRY_BYTES))
    except InputError as error:
        error.hint = error.hint or _HINT  # where a file begins so, it is most likely something else
        raise
    entries: dict[str, _Entry] = {}
    for _ in range(count):
        name, entry = _read_dat_entry(cursor)
        if name in entries:
            raise InputError("DUPLICATE", "the tensor stands twice in the matrix", path=source.path, key=name)
        entries[name] = entry
    chunk_count, datasets = 0, []
    if cursor.remaining:
        chunk_count = cursor.number("the number of chunks", 0, _INT32_MAX)
        datasets = [cursor.text("the name of the data", 0, _DATASET_LIMIT_BYTES)] if cursor.remaining else []
    return ImportanceMatrix(source, entries, datasets=datasets, chunk_count=chunk_count, chunk_size=0)


def _read_dat_entry(cursor: _Cursor) -> tuple[str, _Entry]:
    name = cursor.text("a tensor name", 1, _NAME_LIMIT_BYTES)
    call_count = cursor.number("the number of calls", 0, _INT32_MAX)
    length = cursor.number("the number of values", 1, max(1, cursor.remaining // 4))
    return name, _Entry(cursor.skip(4 * length, "the values"), length, None, call_count)
