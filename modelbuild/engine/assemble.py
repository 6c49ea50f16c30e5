"""Writes one GGUF in a single pass: read row blocks, decode, transform, pack, write and hash in order.

Memory is bounded by a few row blocks, whatever the size of the model; nothing is written but the result.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelbuild.convert.planned import PlannedTensor, ReadSpan
from modelbuild.digest import Digest
from modelbuild.errors import ChangedError, InputError
from modelbuild.formats.elements import decode, encode
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.plan.assembly import Assembly
from modelbuild.quantize import pack
from modelbuild.store.blobs import StagedFile

#: Weights of one block of rows: 1 MiB weights are 4 MiB as float32, enough to make per-call costs vanish.
BLOCK_WEIGHTS = 1 << 20
#: Blocks in flight per worker; bounds memory while the writer waits for an earlier block.
_BLOCKS_PER_WORKER = 2

Progress = Callable[[int, int], None]
Bytes = npt.NDArray[np.uint8]


def write_assembly(assembly: Assembly, staged: StagedFile, progress: Progress, *, workers: int | None = None) -> Digest:
    """Write the file and return its digest; `progress` gets bytes done and bytes in all.

    Raises InputError for weights that cannot be packed (naming tensor and index), ChangedError when a source file
    changed meanwhile.
    """
    out = _HashedOutput(staged)
    out.write(assembly.layout.header)
    with _open_sources(assembly) as read, ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for data in _packed_blocks(assembly, read, pool):
            out.write(data)
            progress(out.size_bytes, assembly.layout.file_size)
    if out.size_bytes != assembly.layout.file_size:
        raise AssertionError(f"{out.size_bytes} bytes written, {assembly.layout.file_size} planned")
    return out.digest()


class _HashedOutput:
    """Appends to a staged file and hashes what goes through."""

    def __init__(self, staged: StagedFile) -> None:
        self._staged = staged
        self._hasher = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append data."""
        self._hasher.update(data)
        self._staged.append(data)
        self.size_bytes += len(data)

    def digest(self) -> Digest:
        """The digest of all that was written."""
        return Digest("sha256:" + self._hasher.hexdigest())


def _packed_blocks(assembly: Assembly, read: ReadSpan, pool: ThreadPoolExecutor) -> Iterator[memoryview]:
    """The data section in file order, packed by several workers with a bounded number of blocks in flight."""
    limit = _BLOCKS_PER_WORKER * (os.cpu_count() or 1)
    waiting: deque[Future[memoryview]] = deque()
    try:
        for task in _block_tasks(assembly, read):
            if len(waiting) >= limit:
                yield waiting.popleft().result()
            waiting.append(pool.submit(task))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _block_tasks(assembly: Assembly, read: ReadSpan) -> Iterator[Callable[[], memoryview]]:
    for index, (tensor, slot) in enumerate(zip(assembly.tensors, assembly.layout.slots, strict=True)):
        columns = tensor.source.shape[-1] if tensor.source.shape else 1
        rows = prod(tensor.source.shape[:-1])
        step = max(1, BLOCK_WEIGHTS // max(1, columns))
        for start in range(0, rows, step):
            yield _block_task(tensor, read, start, min(rows, start + step))
        padding = _end_of_slot(assembly, index) - (slot.offset + slot.size_bytes)
        if padding:
            yield lambda size=padding: memoryview(bytes(size))  # type: ignore[misc]


def _end_of_slot(assembly: Assembly, index: int) -> int:
    slots = assembly.layout.slots
    data_bytes = assembly.layout.file_size - assembly.layout.data_offset
    return slots[index + 1].offset if index + 1 < len(slots) else data_bytes


def _block_task(tensor: PlannedTensor, read: ReadSpan, start: int, stop: int) -> Callable[[], memoryview]:
    def run() -> memoryview:
        return memoryview(_pack_rows(tensor, read, start, stop).reshape(-1).view(np.uint8)).cast("B")

    return run


def _pack_rows(tensor: PlannedTensor, read: ReadSpan, start: int, stop: int) -> npt.NDArray[np.generic]:
    rows = tensor.source.read_rows(read, start, stop)
    if tensor.source.dtype == tensor.type.name:
        return np.ascontiguousarray(rows)
    values = decode(rows, tensor.source.dtype)
    if tensor.type in (GgmlType.F32, GgmlType.F16, GgmlType.BF16):
        return np.ascontiguousarray(encode(values, tensor.type.name))  # type: ignore[arg-type]
    try:
        return pack(values, tensor.type)
    except InputError as error:
        row_note = f"rows {start} to {stop - 1}: {error.message}"
        raise InputError(error.code, row_note, key=tensor.name, hint=error.hint) from error


@contextmanager
def _open_sources(assembly: Assembly) -> Iterator[ReadSpan]:
    """Every source file open for the whole pass; at the end none of them may have changed."""
    with ExitStack() as stack:
        paths = {span.path for tensor in assembly.tensors for span in tensor.source.spans()}
        files: dict[Path, InputFile] = {path: stack.enter_context(open_input(path)) for path in sorted(paths)}

        def read(path: Path, offset: int, size: int) -> bytes:
            return files[path].read_at(offset, size)

        yield read
        for source in files.values():
            now = os.fstat(source.fd)
            if (now.st_size, now.st_mtime_ns) != (source.stat.st_size, source.stat.st_mtime_ns):
                message = f"{source.path} changed while it was converted; the result was dropped"
                raise ChangedError("CHANGED", message, hint="run the build again when it is complete")
