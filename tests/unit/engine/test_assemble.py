"""Writing GGUF files block by block: the same bytes as a naive writer, whatever the order, threads and reuse."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from modelbuild.convert.planned import PlannedTensor, ReadSpan, Span
from modelbuild.digest import digest_of
from modelbuild.engine import assemble, blocks
from modelbuild.engine.blocks import resume_identity
from modelbuild.engine.output_file import Job
from modelbuild.errors import StoreError
from modelbuild.formats.elements import encode
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import lay_out, string
from modelbuild.formats.safetensors import StoredTensor
from modelbuild.plan.assembly import Assembly
from modelbuild.store.blobs import BlobStore
from modelbuild.store.state import PackedTensor


@dataclass(frozen=True, slots=True)
class Rows:
    """A source that computes its rows from their number."""

    stored: StoredTensor
    shape: tuple[int, ...]
    seed: int
    dtype: str = "F32"

    def spans(self) -> tuple[Span, ...]:
        return (Span(self.stored.path, 0, 4),)

    def read_rows(self, read: ReadSpan, start: int, stop: int) -> np.ndarray:
        assert len(read(self.stored.path, 0, 4)) == 4
        return self.values()[start:stop]

    def values(self) -> np.ndarray:
        rows = int(np.prod(self.shape[:-1]))
        noise = np.random.default_rng(self.seed).standard_normal((rows, self.shape[-1]))
        return noise.astype(np.float32)


SHAPES = {"a.weight": (40, 64), "b.weight": (64,), "c.weight": (3, 5, 32), "d.weight": (1, 256)}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that small tensors have many."""
    monkeypatch.setattr(blocks, "BLOCK_WEIGHTS", 200)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The file behind all tensors."""
    path = tmp_path / "source"
    path.write_bytes(b"data")
    return path


def _assembly(source: Path, type_: GgmlType, names: tuple[str, ...] = tuple(SHAPES)) -> Assembly:
    tensors = tuple(
        PlannedTensor(
            name,
            Rows(StoredTensor(source, name, "F32", (1,), seed, 4), SHAPES[name], seed),
            type_ if len(SHAPES[name]) > 1 else GgmlType.F32,
        )
        for seed, name in sorted(enumerate(SHAPES), key=lambda item: names.index(item[1]))
    )
    kv = (string("general.architecture", "test"),)
    layout = lay_out(kv, [(item.name, tuple(reversed(item.source.shape)), item.type) for item in tensors])
    return Assembly(kv, tensors, tuple("" for _ in tensors), layout)


def _naive(assembly: Assembly) -> bytes:
    """The file written tensor by tensor."""
    from modelbuild.quantize import pack

    data = bytearray(assembly.layout.header)
    for tensor, slot in zip(assembly.tensors, assembly.layout.slots, strict=True):
        data = data.ljust(assembly.layout.data_offset + slot.offset, b"\0")
        values = tensor.source.values()  # type: ignore[attr-defined]
        is_float = tensor.type in (GgmlType.F32, GgmlType.F16)
        data += (encode(values, tensor.type.name) if is_float else pack(values, tensor.type)).tobytes()
    return bytes(data.ljust(assembly.layout.file_size, b"\0"))


def _write(store: BlobStore, assemblies: list[Assembly], workers: int, keys: bool = False) -> list[bytes]:
    from contextlib import ExitStack

    with ExitStack() as stack:
        jobs = []
        for number, item in enumerate(assemblies):
            staged = stack.enter_context(
                store.stage_partial(f"{number:064x}", resume_identity(item), item.layout.file_size)
            )
            names = [f"{number} {tensor.name}" if keys else "" for tensor in item.tensors]
            jobs.append(Job(item, staged, names, {}, lambda done, total: None))
        written = assemble.write_assemblies(jobs, workers=workers)
        for job, file in zip(jobs, written, strict=True):
            job.staged.publish(file.digest)
    results = [store.path(file.digest).read_bytes() for file in written]
    assert [file.digest for file in written] == [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in results]
    return results


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("type_", [GgmlType.F32, GgmlType.F16, GgmlType.Q8_0, GgmlType.Q4_0])
def test_bytes_equal_those_of_a_naive_writer(tmp_path: Path, source: Path, workers: int, type_: GgmlType) -> None:
    """Blocks, threads and in-order hashing change nothing."""
    assembly = _assembly(source, type_)

    assert [_naive(assembly)] == _write(BlobStore(tmp_path / "store"), [assembly], workers)


def test_files_of_other_order_are_made_from_the_same_pass(tmp_path: Path, source: Path) -> None:
    """Several files with several tensor orders, written together, equal those written alone."""
    assemblies = [
        _assembly(source, GgmlType.F32),
        _assembly(source, GgmlType.Q8_0, tuple(reversed(SHAPES))),
        _assembly(source, GgmlType.F16),
    ]

    assert [_naive(item) for item in assemblies] == _write(BlobStore(tmp_path / "store"), assemblies, 2)


def test_changed_source_is_noticed_at_the_end(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source file that changes while it is read makes the result worthless; nothing is left of it."""
    from modelbuild.errors import ChangedError

    real = Rows.read_rows

    def touching(self: Rows, read: ReadSpan, start: int, stop: int) -> np.ndarray:
        source.write_bytes(b"data and more")
        return real(self, read, start, stop)

    monkeypatch.setattr(Rows, "read_rows", touching)

    with pytest.raises(ChangedError, match="changed while it was converted"):
        _write(BlobStore(tmp_path / "store"), [_assembly(source, GgmlType.F16)], 1)
    assert not list((tmp_path / "store").rglob("partial-*"))


def test_file_that_cannot_be_begun_leaves_nothing_open(tmp_path: Path, source: Path) -> None:
    """A full disk at the first byte: blobs that were to be copied from are closed, and a long-lived process goes on."""
    store, assembly = BlobStore(tmp_path / "store"), _assembly(source, GgmlType.Q8_0)
    with store.stage_partial("0" * 64, resume_identity(assembly), assembly.layout.file_size) as staged:
        reusable = {"key": (source, PackedTensor(digest_of(b""), 0, 4, b""))}
        job = Job(assembly, staged, ["" for _ in assembly.tensors], reusable, lambda done, total: None)
        os.close(staged.fd)
        staged.fd = os.open(staged.path, os.O_RDONLY)  # as good as a full disk: nothing can be written
        before = set(os.listdir("/proc/self/fd"))

        with pytest.raises(StoreError):
            assemble.write_assemblies([job])

        assert before == set(os.listdir("/proc/self/fd"))


def test_failing_tensor_is_named_with_its_rows(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that cannot be packed is an error that names the tensor; the other workers stop."""
    from modelbuild.errors import InputError

    def broken(self: Rows) -> np.ndarray:
        return np.full((int(np.prod(self.shape[:-1])), self.shape[-1]), np.nan, np.float32)

    monkeypatch.setattr(Rows, "values", broken)

    with pytest.raises(InputError) as caught:
        _write(BlobStore(tmp_path / "store"), [_assembly(source, GgmlType.Q8_0)], 2)
    assert "a.weight" == caught.value.key


def test_packed_tensors_are_found_where_the_record_says(tmp_path: Path, source: Path) -> None:
    """The record of a packed tensor holds its place and one check sum per block."""
    from modelbuild.engine.packing import check_sum

    store = BlobStore(tmp_path / "store")
    assembly = _assembly(source, GgmlType.Q8_0)
    with store.stage_partial("0" * 64, resume_identity(assembly), assembly.layout.file_size) as staged:
        job = Job(assembly, staged, [tensor.name for tensor in assembly.tensors], {}, lambda done, total: None)
        (written,) = assemble.write_assemblies([job])
        staged.publish(written.digest)
    data = store.path(written.digest).read_bytes()

    packed = written.packed["a.weight"]
    rows_per_block = 200 // 64
    size = packed.size_bytes // 40 * rows_per_block
    blocks_of_tensor = [data[packed.offset + at : packed.offset + min(at + size, packed.size_bytes)]
                        for at in range(0, packed.size_bytes, size)]  # fmt: skip
    assert packed.checks == b"".join(check_sum(block) for block in blocks_of_tensor)
