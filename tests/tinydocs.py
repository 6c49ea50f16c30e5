"""The small trained checkpoint of the examples, copied for tests that edit it."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

from tests.space import ROOT

CHECKPOINT = ROOT / "examples" / "tinydocs" / "TinyDocs-4M"


def copy_checkpoint(target: Path) -> Path:
    """A copy of the checkpoint that may be edited."""
    shutil.copytree(CHECKPOINT, target)
    return target


def tensor_span(weights: Path, name: str) -> tuple[int, int]:
    """Where a tensor's bytes begin and end in a safetensors file."""
    with weights.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        start, stop = json.loads(file.read(size))[name]["data_offsets"]
    return 8 + size + start, 8 + size + stop


def negate_tensor(weights: Path, name: str) -> None:
    """Change one tensor: every BF16 value gets the other sign."""
    start, stop = tensor_span(weights, name)
    data = bytearray(weights.read_bytes())
    for index in range(start + 1, stop, 2):
        data[index] ^= 0x80
    weights.write_bytes(data)


def with_header(weights: Path, edit: dict[str, object]) -> None:
    """Replace entries of the safetensors header; None removes one. The data stay."""
    data = weights.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size]) | edit
    text = json.dumps({key: value for key, value in header.items() if value is not None}).encode()
    weights.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
