"""Mutated files of every format: each is read or refused with an InputError, fast and in little memory.

The number of mutations per reader is FUZZ_MUTATIONS (2,000 by default); a longer run uses the same seeds.
"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelbuild.errors import InputError
from modelbuild.formats.gguf import writer
from modelbuild.formats.gguf.model_keys import check_model_keys
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import lay_out
from modelbuild.formats.imatrix import read_imatrix
from modelbuild.formats.json_text import parse_json
from modelbuild.formats.safetensors import open_safetensors
from modelbuild.formats.safetensors_index import read_index
from tests.unit.formats.memory_file import memory_file

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "2000"))
SECONDS_LIMIT, MEMORY_LIMIT_BYTES = 1.0, 200 << 20

#: Numbers on the borders of what lengths, counts and offsets can be.
_NUMBERS = (
    0, 1, 2, 4, 5, 7, 8, 9, 12, 13, 31, 32, 33, 63, 64, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1,
)  # fmt: skip
#: Pieces of JSON that change its structure when they are put somewhere.
_JSON_PIECES = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"null", b"true", b"-1", b"1e400", b"NaN", b"\0", b"\xff",
    b'"a":1,', b"[" * 70, b"9" * 30, b"\\ud800", b'"__metadata__":{},',
)  # fmt: skip


def mutate(data: bytes, chance: random.Random, pieces: tuple[bytes, ...]) -> bytes:
    """The data with one to three changes."""
    mutated = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        _change(mutated, chance, pieces)
    return bytes(mutated)


def _change(data: bytearray, chance: random.Random, pieces: tuple[bytes, ...]) -> None:
    place = chance.randrange(len(data)) if data else 0
    kind = chance.randrange(8)
    if not data or (kind == 6 and pieces):
        data[place:place] = chance.choice(pieces or (b"\0",))
    elif kind == 0:
        data[place] = chance.randrange(256)
    elif kind == 1:
        data[place] ^= 1 << chance.randrange(8)
    elif kind in (2, 6):
        data[place : place + 8] = struct.pack("<Q", chance.choice(_NUMBERS))
    elif kind == 3:
        data[place : place + 4] = struct.pack("<I", chance.choice(_NUMBERS) & 0xFFFF_FFFF)
    elif kind == 4:
        del data[place:]
    elif kind == 5:
        start = chance.randrange(len(data))
        data[place:place] = data[start : start + chance.randint(1, 40)]
    else:
        del data[place : place + chance.randint(1, 16)]


def _gguf_seed() -> bytes:
    kv = [
        writer.string("general.architecture", "llama"),
        writer.u32("general.alignment", 32),
        writer.u32("llama.block_count", 2),
        writer.strings("tokenizer.ggml.tokens", ["a", "bc", ""]),
        writer.f32_array("tokenizer.ggml.scores", [0.5, 1.5]),
        writer.boolean("tokenizer.ggml.add_bos_token", True),
    ]
    tensors = [("a", (8,), GgmlType.F32), ("b", (256, 2), GgmlType.Q4_K), ("c", (32,), GgmlType.Q8_0)]
    layout = lay_out(kv, tensors)
    return layout.header + bytes(layout.file_size - layout.data_offset)


def _imatrix_seed() -> bytes:
    kv = [
        writer.string("general.type", "imatrix"),
        writer.strings("imatrix.datasets", ["d"]),
        writer.u32("imatrix.chunk_count", 1),
        writer.u32("imatrix.chunk_size", 512),
    ]
    layout = lay_out(kv, [("w.in_sum2", (4, 2), GgmlType.F32), ("w.counts", (1, 2), GgmlType.F32)])
    return layout.header + struct.pack("<8f", *range(8)) + struct.pack("<2f24x", 1, 2)


def _safetensors_seed() -> bytes:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(24)


_DAT_ENTRY = struct.pack("<i8siiff", 8, b"w.weight", 1, 2, 0.5, 1.5)
_INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}


def _read_gguf(path: Path) -> None:
    """What is accepted lies inside the file, and is the same after being written and read again."""
    header = open_gguf(path)
    for tensor in header.tensors:
        assert header.data_offset + tensor.offset + tensor.size_bytes <= header.size_bytes
    for value in header.kv.values():
        value.decode()
    layout = lay_out(
        [writer.raw(key, value) for key, value in header.kv.items()],
        [(tensor.name, tensor.shape, tensor.type) for tensor in header.tensors],
        header.alignment,
    )
    with memory_file() as copy:
        copy.write(layout.header + bytes(layout.file_size - layout.data_offset))
        again = open_gguf(copy.path)
    assert (dict(header.kv), header.tensors, 0) == (dict(again.kv), again.tensors, again.trailing_bytes)
    check_model_keys(header.kv)


def _read_safetensors(path: Path) -> None:
    for tensor in open_safetensors(path).values():
        assert tensor.offset + tensor.size_bytes <= path.stat().st_size


def _read_imatrix(path: Path) -> None:
    matrix = read_imatrix(path)
    for name in matrix:
        importance = matrix[name]
        assert len(importance.values) == matrix.length_of(name)


@dataclass(frozen=True, slots=True)
class Reader:
    read: Callable[[Path], object]
    seed: bytes
    pieces: tuple[bytes, ...] = ()


READERS = {
    "gguf": Reader(_read_gguf, _gguf_seed()),
    "safetensors": Reader(_read_safetensors, _safetensors_seed(), _JSON_PIECES),
    "index": Reader(read_index, json.dumps(_INDEX).encode(), _JSON_PIECES),
    "json": Reader(lambda path: parse_json(path.read_bytes(), path=path), json.dumps(_INDEX).encode(), _JSON_PIECES),
    "imatrix-gguf": Reader(_read_imatrix, _imatrix_seed()),
    "imatrix-dat": Reader(_read_imatrix, struct.pack("<i", 2) + _DAT_ENTRY + _DAT_ENTRY.replace(b"w.w", b"v.w")),
}


def mutations(reader: Reader) -> Iterator[bytes]:
    """The same mutations in every run."""
    chance = random.Random(20_261_001)
    for _ in range(MUTATIONS):
        yield mutate(reader.seed, chance, reader.pieces)


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_refused(name: str) -> None:
    """No mutation causes another exception than InputError, takes long or much memory."""
    reader = READERS[name]
    slowest, peak_before = 0.0, _peak_bytes()
    with memory_file() as file:
        file.write(reader.seed)
        reader.read(file.path)
        for data in mutations(reader):
            file.write(data)
            before = time.process_time()
            with suppress(InputError):
                reader.read(file.path)
            slowest = max(slowest, time.process_time() - before)

    assert slowest < SECONDS_LIMIT
    assert _peak_bytes() - peak_before < MEMORY_LIMIT_BYTES


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
