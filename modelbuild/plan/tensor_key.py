"""Keys of single tensors: what determines the packed bytes of one tensor, whatever file it stands in.

A tensor key is made from the digests of the stored tensors, the transforms between them and the result, the target
type and the importance matrix. Equal keys mean equal bytes, so they can be copied instead of packed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass

from modelbuild.convert.planned import PlannedTensor
from modelbuild.digest import sha256_hex
from modelbuild.formats.gguf.types import is_quantized
from modelbuild.formats.safetensors import StoredTensor
from modelbuild.plan.action import Json, canonical_json

#: Raised when a transform or a packer gives other bytes for the same input.
PACKING_VERSION = 2

#: The digest of a stored tensor's bytes; None when nobody knows it.
Leaf = Callable[[StoredTensor], str | None]


class _Unknown(Exception):
    """A part of the source has no known content digest."""


def tensor_key(tensor: PlannedTensor, leaf: Leaf, importance: str = "") -> str:
    """The key of a packed tensor; empty when it has none, or when copying it would save nothing.

    Only quantized tensors have keys: everything else is written about as fast as it could be copied.
    importance: digest of the importance values that steer the packing, or an empty text.
    """
    if not is_quantized(tensor.type) or tensor.source.dtype == tensor.type.name:
        return ""
    try:
        source = describe_source(tensor.source, leaf)
    except _Unknown:
        return ""
    described = [PACKING_VERSION, tensor.type.name, importance, source]
    return sha256_hex(canonical_json(described).encode())


def source_text(source: object) -> str:
    """A text that is equal for equal sources within one run, whichever plan they come from: by place, not content."""
    try:
        return canonical_json(describe_source(source, _place_of))
    except _Unknown:
        return f"only {id(source)}"


def _place_of(tensor: StoredTensor) -> str:
    return f"{tensor.path}@{tensor.offset}+{tensor.size_bytes}"


def describe_source(source: object, leaf: Leaf) -> Json:
    """The tree of transforms and stored tensors behind a planned tensor, as JSON."""
    if isinstance(source, StoredTensor):
        digest = leaf(source)
        if digest is None:
            raise _Unknown
        return [digest, source.dtype, list(source.shape)]
    if is_dataclass(source) and not isinstance(source, type):
        described = {item.name: describe_source(getattr(source, item.name), leaf) for item in fields(source)}
        return {type(source).__name__: described}
    if isinstance(source, Mapping):
        return {str(key): describe_source(value, leaf) for key, value in source.items()}
    if isinstance(source, tuple | list):
        return [describe_source(item, leaf) for item in source]
    return _describe_plain(source)


def _describe_plain(value: object) -> Json:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    to_bytes = getattr(value, "tobytes", None)
    if to_bytes is not None:
        return [
            hashlib.sha256(to_bytes()).hexdigest(),
            str(getattr(value, "dtype", "")),
            list(getattr(value, "shape", ())),
        ]
    name = getattr(value, "__qualname__", None)
    if name is not None:  # a function of ours; PACKING_VERSION stands for what it does
        return f"{getattr(value, '__module__', '')}.{name}"
    raise _Unknown
