"""GGUF files as Ollama's own writer lays them out: where llama.cpp's cannot, because it does not know some tensors.

Used for models with a vision tower or draft head inside, and for projectors that get a key.
Source: files written by Ollama, August 2026.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelbuild.formats.gguf.types import ValueType
from modelbuild.formats.gguf.writer import KeyValue, string, u32, u64
from modelbuild.late_pattern import late_pattern

_DROPPED = ("split.no", "split.count", "split.tensors.count", "general.parameter_count", "general.alignment")
_BARE_PREFIXES = ("general.", "adapter.", "tokenizer.")
_BLOCK = late_pattern(r"blk\.([0-9]{1,9})\.", re.ASCII)


def arrange_keys(
    kv: Sequence[KeyValue], added: Sequence[tuple[str, str]], file_type: int | None, parameter_count: int
) -> list[KeyValue]:
    """The keys in this layout's order, with texts added and the file type changed where one is given.

    Keys are sorted; one that belongs to no family of keys gets the architecture in front. parameter_count: the number
    of weights to be noted.
    """
    texts = {item.key: item for item in (string(key, text) for key, text in added)}
    kept = {item.key: item for item in kv if item.key not in _DROPPED}
    kept |= texts
    kept["general.parameter_count"] = u64("general.parameter_count", parameter_count)
    if file_type is not None:
        kept["general.file_type"] = u32("general.file_type", file_type)
    arch = _architecture(kv)
    return [KeyValue(_prefixed(key, arch), kept[key].value) for key in sorted(kept, key=lambda key: key.encode())]


def tensor_order(name: str) -> tuple[int, bytes]:
    """The sort key of a tensor: by block, those of no block last, then by name."""
    match = _BLOCK.match(name)
    return (int(match[1]) if match else 1 << 62, name.encode("utf-8", "surrogateescape"))


def _prefixed(key: str, arch: str) -> str:
    return key if key.startswith((f"{arch}.", *_BARE_PREFIXES)) else f"{arch}.{key}"


def _architecture(kv: Sequence[KeyValue]) -> str:
    for item in kv:
        if item.key == "general.architecture" and item.value.type is ValueType.STRING:
            return str(item.value.decode())
    return ""
