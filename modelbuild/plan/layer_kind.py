"""Which layer a GGUF becomes, read from its metadata as Ollama reads it."""

from __future__ import annotations

from modelbuild.formats.gguf.reader import GgufHeader
from modelbuild.formats.gguf.types import FILE_TYPE_NAMES
from modelbuild.store.config import format_parameter_count

#: What Ollama calls a file type that it does not know, or that is 0 or missing.
UNKNOWN_FILE_TYPE = "unknown"


def classify_gguf(header: GgufHeader) -> str:
    """The layer kind: "adapter", "projector" or "model"."""
    kv = header.kv
    declared = kv.get_string("general.type") or ""
    if declared == "adapter":
        return "adapter"
    if declared in ("projector", "mmproj"):
        return "projector"
    arch = kv.get_string("general.architecture") or ""
    has_blocks = bool(kv.get_u32(f"{arch}.block_count"))
    if not has_blocks and kv.get_u32(f"{arch}.vision.block_count"):
        return "projector"
    encoders = (kv.get_boolean("clip.has_vision_encoder"), kv.get_boolean("clip.has_audio_encoder"))
    return "projector" if arch == "clip" and not has_blocks and any(encoders) else "model"


def count_shards(header: GgufHeader) -> int:
    """How many files the model is cut into; 1 for a whole one, and where the number makes no sense."""
    arch = header.kv.get_string("general.architecture") or ""
    for key in ("split.count", f"{arch}.split.count"):
        count = header.kv.get_integer(key)
        if count is not None and 1 < count <= 0xFFFF:
            return count
    return 1


def describe_file_type(header: GgufHeader) -> str:
    """The text Ollama shows as quantization level; it reads 0 (all F32) as unknown."""
    file_type = header.kv.get_u32("general.file_type") or -1
    return FILE_TYPE_NAMES.get(file_type, UNKNOWN_FILE_TYPE)


def describe_parameter_count(header: GgufHeader) -> str:
    """The number of weights as Ollama shows it, e.g. "4.20M"."""
    return format_parameter_count(count_parameters(header))


def count_parameters(header: GgufHeader) -> int:
    """The number of weights in all tensors."""
    total = 0
    for tensor in header.tensors:
        elements = 1
        for dimension in tensor.shape:
            elements *= dimension
        total += elements
    return total
