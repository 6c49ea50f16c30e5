"""Interim."""

from __future__ import annotations
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from modelbuild.errors import InputError
from modelbuild.formats.files import open_input
from modelbuild.formats.json_text import parse_json


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


def open_safetensors(path: Path) -> Mapping[str, StoredTensor]:
    """Interim."""
    with open_input(path) as f:
        (n,) = struct.unpack("<Q", f.read_at(0, 8))
        header = parse_json(f.read_at(8, n), path=path)
    out = {}
    for name, e in header.items():
        if name == "__metadata__":
            continue
        a, b = e["data_offsets"]
        if 8 + n + b > f.size_bytes:
            raise InputError("DATA", "cut", path=path, key=name)
        out[name] = StoredTensor(path, name, e["dtype"], tuple(e["shape"]), 8 + n + a, b - a)
    return out
