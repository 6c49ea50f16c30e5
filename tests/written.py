"""Writes a planned conversion as a GGUF file without the engine of builds: what the plan says, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

from modelbuild.convert import Conversion
from modelbuild.formats.gguf.writer import lay_out
from tests.reference import tensor_bytes


def write_conversion(conversion: Conversion, path: Path) -> Path:
    """The file of a plan."""
    described = [(tensor.name, tuple(reversed(tensor.source.shape)), tensor.type) for tensor in conversion.tensors]
    layout = lay_out(conversion.kv, described)
    data = bytearray(layout.file_size)
    data[: len(layout.header)] = layout.header
    for tensor, slot in zip(conversion.tensors, layout.slots, strict=True):
        start = layout.data_offset + slot.offset
        data[start : start + slot.size_bytes] = tensor_bytes(tensor)
    path.write_bytes(data)
    return path
