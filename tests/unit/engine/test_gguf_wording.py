"""Ollama's words for broken GGUF files: recorded answers, and never an exception."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelbuild.engine.gguf_wording import word_gguf_fault
from tests.small_gguf import write_gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def start(tensors: int, keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)


def tensor(shape: tuple[int, ...], kind: int = 1, offset: int = 0) -> bytes:
    return text("a") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


GOOD = write_gguf()
FAULTS = [
    (GOOD[:150], "unexpected EOF"),
    (start(0, 1), "EOF"),
    (start(0, 1) + text("k") + struct.pack("<I", 99), "invalid type: 99"),
    (start(0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1), "invalid array type: 9"),
    (
        start(0, 1) + text("k") + struct.pack("<IIQ", 9, 4, (64 << 20) + 1),
        "GGUF array size 67108865 exceeds maximum 67108864",
    ),
    (start(0, 1) + struct.pack("<Q", (16 << 20) + 1), "GGUF string length 16777217 exceeds maximum 16777216"),
    (start(0, 1) + struct.pack("<Q", 1 << 63), f"GGUF string length {1 << 63} exceeds maximum 9223372036854775807"),
    (start(1, 0) + tensor((1, 1, 1, 1, 1)), 'tensor "a" dimensions 5 exceeds maximum 4'),
    (start(1, 0) + tensor((1 << 33, 1 << 33)), 'tensor "a" elements overflow'),
    (start(1, 0) + tensor((32,), 77), 'tensor "a" size overflow'),
    (start(1, 0) + tensor((33,), 8), 'tensor "a" size overflow'),
    (start(1, 0) + tensor((32,), 1, (1 << 64) - 32), 'tensor "a" offset+size overflows'),
    (start(0, 1) + text("general.alignment") + struct.pack("<II", 4, 0), "invalid GGUF alignment: 0"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), FAULTS)
def test_faults_are_worded_as_recorded(tmp_path: Path, data: bytes, expected: str) -> None:
    """In the order in which Ollama's decoder meets them."""
    path = tmp_path / "x"
    path.write_bytes(data)

    assert expected == word_gguf_fault(path)


def test_missing_data_is_told_with_both_sizes(tmp_path: Path) -> None:
    """Where the tensor would end, and where the file does."""
    path = tmp_path / "x"
    path.write_bytes(GOOD[:-100])

    assert f'tensor "blk.0.attn_norm.weight" offset+size ({len(GOOD)}) exceeds file size ({len(GOOD) - 100})' == (
        word_gguf_fault(path)
    )


def test_sound_file_has_no_fault(tmp_path: Path) -> None:
    """What decodes there has no text."""
    path = tmp_path / "x"
    path.write_bytes(GOOD)

    assert word_gguf_fault(path) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_any_damage_gives_a_text_or_nothing(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes changed or cut anywhere: no exception, no long wait."""
    body = bytearray(GOOD[: data.draw(st.integers(4, len(GOOD)))])
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(4, len(body) - 1)) if len(body) > 4 else 0] = data.draw(st.integers(0, 255))
    path = tmp_path / "x"
    path.write_bytes(body)

    assert isinstance(word_gguf_fault(path), str | None)
