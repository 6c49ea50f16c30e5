"""One GGUF file on its way to the disk: places blocks, hashes them in file order, notes what may be copied later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import field
from math import prod
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.engine.blocks import Block, blocks_of
from modelbuild.engine.packing import Part, SpanCopy
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.running_digest import RunningDigest
from modelbuild.plan.assembly import Assembly
from modelbuild.plan.tensor_key import source_text
from modelbuild.records import record
from modelbuild.store.partial import CHECK_BYTES, PartialFile
from modelbuild.store.staged import StagedFile
from modelbuild.store.state import FileStat, PackedTensor

Progress = Callable[[int, int], None]
_HASH_CHUNK_BYTES = 1 << 20


@record
class Job:
    """One file to write.

    keys: a tensor key for each tensor, empty where there is none. reusable: packed tensors by key, with the file
    that holds them. progress gets bytes done and bytes in all. allow_nonfinite: pack infinities and NaN as they come.
    inputs: stat records of the source files that the keys were made from; another file is not read in their place.
    """

    assembly: Assembly
    staged: StagedFile
    keys: Sequence[str]
    reusable: Mapping[str, tuple[Path, PackedTensor]]
    progress: Progress
    allow_nonfinite: bool = False
    inputs: Mapping[Path, FileStat] = field(default_factory=dict)


@record
class Written:
    """A file that was written. packed: where its tensors with keys stand; packed_bytes: how much was not copied."""

    digest: Digest
    packed: Mapping[str, PackedTensor]
    packed_bytes: int


class OutputFile:
    """One file on its way: places blocks, hashes them in file order, and remembers their check sums."""

    def __init__(self, job: Job, order: Sequence[str]) -> None:
        self._job = job
        self.assembly = job.assembly
        self._layout = job.assembly.layout
        self._places = {tensor.name: index for index, tensor in enumerate(job.assembly.tensors)}
        self._in_order = list(self._places) == list(order)
        self._digest = RunningDigest()
        self._hashed_bytes = 0
        self._packed_bytes = 0
        self._checks: dict[str, bytearray] = {}
        self._sources = [source_text(tensor.source) for tensor in job.assembly.tensors]
        self._first_block = self._number_blocks()
        self._written = job.staged.written if isinstance(job.staged, PartialFile) else {}
        # What a killed run has packed counts as done from the start: it is only read again.
        self._done_bytes = sum(map(self._size_of, filter(self._is_written_before, self._blocks())))
        self._blobs: dict[Path, InputFile] = {}
        self._opened = ExitStack()

    def __enter__(self) -> OutputFile:
        with ExitStack() as stack:
            stack.callback(self._digest.close)
            for path in dict.fromkeys(path for path, _ in self._job.reusable.values()):
                self._blobs[path] = stack.enter_context(open_input(path))
            self._job.staged.write_at(0, self._layout.header)
            if self._in_order:
                self._hash(self._layout.header)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def part(self, block: Block) -> Part:
        """What a worker needs to make this file's bytes of a block."""
        index = self._places[block.tensor]
        tensor = self.assembly.tensors[index]
        return Part(
            tensor,
            self._sources[index],
            self._size_of(block),
            (*self._written_before(block, index), *self._reusable(block, index)),
            self.assembly.importance.get(tensor.name),
            self._job.allow_nonfinite,
        )

    def put(self, block: Block, data: memoryview, check: bytes, *, is_fresh: bool) -> None:
        """Write and hash a block; one that already stands in the file (`is_fresh` false) is only hashed."""
        index = self._places[block.tensor]
        offset = self._offset(block, index)
        if is_fresh:
            self._job.staged.write_at(offset, data)
            self._packed_bytes += len(data)
            if check and isinstance(self._job.staged, PartialFile):
                self._job.staged.note_written(self._number_of(block), check)
        if self._in_order:
            self._hash(bytes(offset - self._hashed_bytes))
            self._hash(data)
        self._checks.setdefault(block.tensor, bytearray()).extend(check)
        self._done_bytes += 0 if self._is_written_before(block) else len(data)
        self._job.progress(self._done_bytes + self._layout.data_offset, self._layout.file_size)

    def finish(self) -> Written:
        """The digest of the whole file, and what later builds may copy from it."""
        if self._in_order:
            self._hash(bytes(self._layout.file_size - self._hashed_bytes))
        else:
            self._hash_file()
        digest = self._digest.digest()
        packed: dict[str, PackedTensor] = {}
        for tensor, slot, key in zip(self.assembly.tensors, self._layout.slots, self._job.keys, strict=True):
            if key:
                checks = bytes(self._checks.get(tensor.name, b""))
                packed[key] = PackedTensor(digest, self._layout.data_offset + slot.offset, slot.size_bytes, checks)
        return Written(digest, packed, self._packed_bytes)

    def _hash(self, data: bytes | memoryview) -> None:
        if data:
            self._digest.update(data)
            self._hashed_bytes += len(data)

    def _hash_file(self) -> None:
        while self._hashed_bytes < self._layout.file_size:
            size = min(_HASH_CHUNK_BYTES, self._layout.file_size - self._hashed_bytes)
            data = self._job.staged.read_at(self._hashed_bytes, size)
            if not data:
                raise AssertionError("the staged file is shorter than its layout")
            self._hash(data)

    def _blocks(self) -> Iterator[Block]:
        """All blocks, through the file."""
        return blocks_of(self.assembly, list(self._places))

    def _number_blocks(self) -> list[int]:
        """The number of each tensor's first block, counted through the file."""
        counts = dict.fromkeys(self._places, 0)
        for block in self._blocks():
            counts[block.tensor] += 1
        first, numbers = 0, []
        for count in counts.values():
            numbers.append(first)
            first += count
        return numbers

    def _row_bytes(self, index: int) -> int:
        rows = prod(self.assembly.tensors[index].source.shape[:-1])
        return self._layout.slots[index].size_bytes // max(1, rows)

    def _offset(self, block: Block, index: int) -> int:
        return self._layout.data_offset + self._layout.slots[index].offset + self._row_bytes(index) * block.start

    def _size_of(self, block: Block) -> int:
        return self._row_bytes(self._places[block.tensor]) * (block.stop - block.start)

    def _number_of(self, block: Block) -> int:
        return self._first_block[self._places[block.tensor]] + block.index

    def _is_written_before(self, block: Block) -> bool:
        return self._number_of(block) in self._written

    def _written_before(self, block: Block, index: int) -> Iterator[SpanCopy]:
        check = self._written.get(self._number_of(block))
        if check is not None:
            yield SpanCopy(self._job.staged.read_at, self._offset(block, index), check, in_place=True)

    def _reusable(self, block: Block, index: int) -> Iterator[SpanCopy]:
        found = self._job.reusable.get(self._job.keys[index])
        if found is None:
            return
        path, packed = found
        check = packed.checks[block.index * CHECK_BYTES : (block.index + 1) * CHECK_BYTES]
        offset = packed.offset + self._row_bytes(index) * block.start
        yield SpanCopy(self._blobs[path].read_at, offset, check, in_place=False)
