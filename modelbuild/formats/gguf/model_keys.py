"""Checks the metadata of a model before anything is computed from it: types, ranges, entries for each layer.

Loaders have divided by head counts of 0 and allocated by block counts of 2^31; a model is refused here instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from modelbuild.errors import InputError, printable
from modelbuild.formats.gguf.metadata import Metadata
from modelbuild.formats.gguf.types import ValueType
from modelbuild.late_pattern import late_pattern

_ARCHITECTURE = late_pattern(r"[A-Za-z0-9_-]+", re.ASCII)
_BLOCK_COUNT_LIMIT = 4096
_TOKEN_COUNT_LIMIT = 1 << 22
_SPLIT_LIMIT = (1 << 16) - 1
_TOKENS_KEY = "tokenizer.ggml.tokens"

#: Allowed numbers, both ends included, of keys below the architecture's name.
_RANGES: Mapping[str, tuple[int, int]] = {
    "block_count": (1, _BLOCK_COUNT_LIMIT),
    "context_length": (1, (1 << 31) - 1),
    "embedding_length": (1, 1 << 20),
    "vocab_size": (1, _TOKEN_COUNT_LIMIT),
    "attention.key_length": (1, 1 << 16),
    "attention.value_length": (1, 1 << 16),
    "rope.dimension_count": (1, 1 << 16),
    "expert_count": (0, 1 << 16),
    "expert_used_count": (0, 1 << 16),
}
#: The same for numbers that may differ by layer; then 0 means a layer without that part.
_LAYER_RANGES: Mapping[str, tuple[int, int]] = {
    "feed_forward_length": (1, 1 << 24),
    "attention.head_count": (1, 1 << 16),
    "attention.head_count_kv": (1, 1 << 16),
}
_POSITIVE_FLOATS = ("rope.freq_base", "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon")
#: Keys of architectures without attention; their converters write 0 heads and no feed-forward part.
_RECURRENT_KEYS = ("ssm.state_size", "wkv.head_size")


def check_model_keys(kv: Metadata) -> None:
    """Do nothing for sound metadata of a model; InputError META with the key otherwise.

    Only what is there is checked: which keys a model must have depends on its architecture. The exception is
    `general.architecture` itself.
    """
    arch = architecture_of(kv)
    for name, (minimum, maximum) in _RANGES.items():
        if f"{arch}.{name}" in kv:
            kv.integer(f"{arch}.{name}", minimum, maximum)
    _check_layer_numbers(kv, arch)
    _check_experts(kv, arch)
    for name in _POSITIVE_FLOATS:
        _check_positive(kv, f"{arch}.{name}")
    _check_general(kv)


def architecture_of(kv: Metadata) -> str:
    """The architecture's name; InputError META when it is missing or no plain identifier."""
    arch = kv.string("general.architecture")
    if not _ARCHITECTURE.fullmatch(arch):
        message = f"{printable(arch)!r} is no name of an architecture"
        raise InputError("META", message, path=kv.path, key="general.architecture")
    return arch


def _check_layer_numbers(kv: Metadata, arch: str) -> None:
    is_recurrent = any(f"{arch}.{name}" in kv for name in _RECURRENT_KEYS)
    for name, (minimum, maximum) in _LAYER_RANGES.items():
        key = f"{arch}.{name}"
        if key not in kv:
            continue
        if kv.length_of(key) is None:
            kv.integer(key, 0 if is_recurrent else minimum, maximum)
        else:
            _check_per_layer(kv, key, kv.get_integer(f"{arch}.block_count"), maximum)


def _check_per_layer(kv: Metadata, key: str, block_count: int | None, maximum: int) -> None:
    numbers = kv.integers(key)
    if block_count is not None and len(numbers) != block_count:
        message = f"{len(numbers)} entries for {block_count} layers"
        raise InputError("META", message, path=kv.path, key=key)
    for number in numbers:
        if not 0 <= number <= maximum:
            message = f"{number} is out of range, 0 to {maximum} is allowed"
            raise InputError("META", message, path=kv.path, key=key)


def _check_experts(kv: Metadata, arch: str) -> None:
    count, used = kv.get_integer(f"{arch}.expert_count"), kv.get_integer(f"{arch}.expert_used_count")
    if used is not None and used > (count or 0):
        message = f"{used} experts are used, the model has {count or 0}"
        raise InputError("META", message, path=kv.path, key=f"{arch}.expert_used_count")


def _check_positive(kv: Metadata, key: str) -> None:
    if key in kv and not (math.isfinite(number := kv.number(key)) and number > 0):
        raise InputError(
            "META", f"{number} is out of range, a finite number above 0 is expected", path=kv.path, key=key
        )


def _check_general(kv: Metadata) -> None:
    if "general.file_type" in kv:
        kv.integer("general.file_type", 0, (1 << 32) - 1)
    if _TOKENS_KEY in kv:
        _check_tokens(kv)
    if "split.count" in kv:
        count = kv.integer("split.count", 0, _SPLIT_LIMIT)
        if "split.no" in kv:
            kv.integer("split.no", 0, max(0, count - 1))


def _check_tokens(kv: Metadata) -> None:
    count = kv.length_of(_TOKENS_KEY)
    if count is None or kv.type_of(_TOKENS_KEY) != f"ARRAY of {ValueType.STRING.name}":
        message = f"an array of strings is expected, found {kv.type_of(_TOKENS_KEY)}"
        raise InputError("META", message, path=kv.path, key=_TOKENS_KEY)
    if not 0 < count <= _TOKEN_COUNT_LIMIT:
        message = f"{count:,} tokens, 1 to {_TOKEN_COUNT_LIMIT:,} are allowed"
        raise InputError("META", message, path=kv.path, key=_TOKENS_KEY)
