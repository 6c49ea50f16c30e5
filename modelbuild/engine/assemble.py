"""Writes GGUF files in one pass over their sources: read row blocks, decode, transform, pack, write and hash in order.

Several files can be made from one read of the same weights. Memory is bounded by a few row blocks, whatever the size
of the model; nothing is written but the results. A block whose bytes exist already (in a blob, or in a file that a
killed run left) is copied after its check sum has been compared, not packed again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from modelbuild.convert.planned import ReadSpan
from modelbuild.engine.blocks import Block, blocks_of, largest_block
from modelbuild.engine.memory import memory_budget, workers_within
from modelbuild.engine.output_file import Job, OutputFile, Written
from modelbuild.engine.packing import Packed, pack_parts
from modelbuild.errors import ChangedError, InputError
from modelbuild.formats.files import InputFile, open_input
from modelbuild.store.state import FileStat

#: Blocks in flight per worker; bounds memory while the writer waits for an earlier block.
BLOCKS_PER_WORKER = 2
#: The most that glibc takes for a limit is 32 MiB; blocks are a few.
_KEPT_BYTES = 31 << 20


def write_assemblies(jobs: Sequence[Job], *, workers: int | None = None) -> list[Written]:
    """Write all files from one read of their common sources; every job has the same tensors, in any order.

    Raises InputError for weights that cannot be packed (naming tensor and index), ChangedError when a source file
    changed meanwhile.
    """
    _keep_memory_of_blocks()
    order = _driving_order(jobs)
    count = workers_within(
        memory_budget(),
        workers or os.cpu_count() or 1,
        block_weights=largest_block(jobs[0].assembly),
        results=len(jobs),
        blocks_each=BLOCKS_PER_WORKER,
    )
    with ExitStack() as stack:
        read = stack.enter_context(_open_sources(jobs))
        outputs = [stack.enter_context(OutputFile(job, order)) for job in jobs]
        pool = stack.enter_context(_threads(count))
        for block, packed in _packed_blocks(outputs, order, read, pool, BLOCKS_PER_WORKER * count):
            for output, (data, check, is_fresh) in zip(outputs, packed, strict=True):
                output.put(block, data, check, is_fresh=is_fresh)
        return [output.finish() for output in outputs]


def _keep_memory_of_blocks() -> None:
    """Let the memory of a block that is done be used for the next one.

    glibc gives large pieces of memory back to the system when they are freed, and each page that comes again is a
    fault: a twentieth of a conversion. It keeps pieces up to the largest one that it has seen freed; this one is never
    touched, so it costs nothing, and other allocators do not mind.
    """
    np.empty(_KEPT_BYTES, np.uint8)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that have ended when this does; but Ctrl-C waits for no block that nobody needs any more."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()


def _driving_order(jobs: Sequence[Job]) -> list[str]:
    """The tensor order that most jobs share: those write and hash in one go, the others are hashed afterwards."""
    orders = [tuple(tensor.name for tensor in job.assembly.tensors) for job in jobs]
    return list(max((orders.count(order), order) for order in orders)[1])


def _packed_blocks(
    outputs: Sequence[OutputFile], order: Sequence[str], read: ReadSpan, pool: ThreadPoolExecutor, limit: int
) -> Iterator[tuple[Block, list[Packed]]]:
    """All blocks in driving order, packed by several workers with a bounded number in flight."""
    waiting: deque[tuple[Block, Future[list[Packed]]]] = deque()
    try:
        for block in blocks_of(outputs[0].assembly, order):
            if len(waiting) >= limit:
                done, future = waiting.popleft()
                yield done, future.result()
            parts = [output.part(block) for output in outputs]
            waiting.append((block, pool.submit(pack_parts, parts, read, block.start, block.stop)))
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


@contextmanager
def _open_sources(jobs: Sequence[Job]) -> Iterator[ReadSpan]:
    """Every source file open for the whole pass; from its digest to the end none of them may have changed.

    A file that takes the place of an open one does not matter here: what is read is still the old one.
    """
    tensors = [tensor for job in jobs for tensor in job.assembly.tensors]
    known = {path: stat for job in jobs for path, stat in job.inputs.items()}
    with ExitStack() as stack:
        paths = {span.path for tensor in tensors for span in tensor.source.spans()}
        files: dict[Path, InputFile] = {path: stack.enter_context(open_input(path)) for path in sorted(paths)}

        def read(path: Path, offset: int, size: int) -> bytes:
            return files[path].read_at(offset, size)

        for path, source in files.items():
            if path in known and not known[path].is_same_content(FileStat.of(source.stat)):
                raise _changed(path)
        try:
            yield read
        except InputError as error:
            _check_unchanged(files, error)  # a file that is cut or odd because somebody writes it at this moment
            raise
        _check_unchanged(files)


def _check_unchanged(files: Mapping[Path, InputFile], cause: InputError | None = None) -> None:
    for path, source in files.items():
        if not FileStat.of(source.stat).is_same_content(FileStat.of(os.fstat(source.fd))):
            raise _changed(path) from cause


def _changed(path: Path) -> ChangedError:
    message = f"{path} changed while it was converted; the result was dropped"
    return ChangedError("CHANGED", message, hint="run the build again when it is complete")
