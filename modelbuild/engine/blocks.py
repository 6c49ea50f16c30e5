"""Cutting tensors into blocks of rows: the unit of reading, packing, writing and resuming."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from math import prod

from modelbuild.plan.assembly import Assembly
from modelbuild.records import record

#: Weights of one block of rows: 1 MiB weights are 4 MiB as float32, enough to make per-call costs vanish.
BLOCK_WEIGHTS = 1 << 20


def resume_identity(assembly: Assembly) -> bytes:
    """32 bytes that agree only for files with equal headers, layouts and blocks."""
    return hashlib.sha256(b"%d %d " % (BLOCK_WEIGHTS, assembly.layout.file_size) + assembly.layout.header).digest()


@record
class Block:
    """Rows start to stop of a tensor; index counts the tensor's blocks."""

    tensor: str
    index: int
    start: int
    stop: int


def largest_block(assembly: Assembly) -> int:
    """How many weights the largest block has: a row is never cut."""
    rows = (tensor.source.shape[-1] if tensor.source.shape else 1 for tensor in assembly.tensors)
    return max((max(1, BLOCK_WEIGHTS // max(1, columns)) * columns for columns in rows), default=0)


def blocks_of(assembly: Assembly, order: Sequence[str]) -> Iterator[Block]:
    """All blocks of the named tensors, tensor by tensor in the given order."""
    tensors = {tensor.name: tensor for tensor in assembly.tensors}
    for name in order:
        shape = tensors[name].source.shape
        columns = shape[-1] if shape else 1
        rows = prod(shape[:-1])
        step = max(1, BLOCK_WEIGHTS // max(1, columns))
        for index, start in enumerate(range(0, rows, step)):
            yield Block(name, index, start, min(rows, start + step))
