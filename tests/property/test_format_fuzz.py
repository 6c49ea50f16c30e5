"""Mutated files of every format: each is read or refused with an InputError, fast and in little memory.

The number of mutations per reader is FUZZ_MUTATIONS (2,000 by default); a longer run uses the same seeds.
"""

from __future__ import annotations

import os
import random
import resource
import struct
import time
from collections.abc import Iterator

import pytest

from tests.fuzz.readers import READERS, Reader, settle

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "2000"))
SECONDS_LIMIT, MEMORY_LIMIT_BYTES = 1.0, 200 << 20

#: Numbers on the borders of what lengths, counts and offsets can be.
_NUMBERS = (
    0, 1, 2, 4, 5, 7, 8, 9, 12, 13, 31, 32, 33, 63, 64, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1,
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


def mutations(reader: Reader) -> Iterator[bytes]:
    """The same mutations in every run."""
    chance = random.Random(20_261_001)
    for number in range(MUTATIONS // reader.cost):
        yield mutate(reader.seeds[number % len(reader.seeds)], chance, reader.pieces)


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_refused(name: str) -> None:
    """No mutation causes another exception than ours, takes long or much memory."""
    reader = READERS[name]
    for seed in reader.seeds:
        reader.read(seed)
    slowest, peak_before = 0.0, _peak_bytes()
    for data in mutations(reader):
        before = time.process_time()
        settle(reader, data)
        slowest = max(slowest, time.process_time() - before)

    assert slowest < SECONDS_LIMIT
    assert _peak_bytes() - peak_before < MEMORY_LIMIT_BYTES


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
