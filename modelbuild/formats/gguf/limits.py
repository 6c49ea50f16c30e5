"""How large the parts of a GGUF header may be, for reading and for writing alike.

Without these a file of some bytes could claim lengths that take all memory or time.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from modelbuild.errors import InputError, printable
from modelbuild.formats.gguf.types import GgmlType, block_bytes, block_size

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"

#: Everything before the tensor data; the largest published vocabularies take 16 MiB.
HEADER_LIMIT_BYTES = 256 << 20
KEY_COUNT_LIMIT = 65_536
TENSOR_COUNT_LIMIT = 1 << 20
KEY_LIMIT_BYTES = 65_535
#: llama.cpp keeps names in 64 bytes with a zero at the end.
TENSOR_NAME_LIMIT_BYTES = 63
STRING_LIMIT_BYTES = 16 << 20
ARRAY_LIMIT = 64 << 20
ALIGNMENT_LIMIT = 1 << 20
DIMENSION_LIMIT = 4
#: ggml counts elements and bytes in signed 64-bit integers.
INT64_MAX = (1 << 63) - 1


def check_name(name: bytes, *, offset: int | None = None) -> str:
    """The text of a tensor name; InputError NAME when it is empty, too long, holds NUL or is not UTF-8."""
    shown = name[:TENSOR_NAME_LIMIT_BYTES].decode(errors="replace")
    if len(name) > TENSOR_NAME_LIMIT_BYTES:
        message = f"a tensor name of {len(name)} bytes, at most {TENSOR_NAME_LIMIT_BYTES} allowed"
        raise InputError("NAME", message, offset=offset, key=shown)
    text = _plain_text(name)
    if text is None:
        message = f"a tensor name must be UTF-8 text without NUL and not empty, found {printable(shown)!r}"
        raise InputError("NAME", message, offset=offset)
    return text


def check_key(key: bytes, *, offset: int | None = None) -> str:
    """The text of a metadata key; InputError KEY when it is empty, too long, holds NUL or is not UTF-8."""
    if not 0 < len(key) <= KEY_LIMIT_BYTES:
        raise InputError("KEY", f"a key of {len(key):,} bytes, 1 to {KEY_LIMIT_BYTES:,} allowed", offset=offset)
    text = _plain_text(key)
    if text is None:
        shown = printable(key.decode(errors="replace"))
        raise InputError("KEY", f"a key must be UTF-8 text without NUL, found {shown!r}", offset=offset)
    return text


def _plain_text(data: bytes) -> str | None:
    if not data or b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def check_alignment(alignment: int) -> int:
    """The alignment itself; InputError ALIGNMENT when it is no power of two from 1 to 1 MiB."""
    if not 0 < alignment <= ALIGNMENT_LIMIT or alignment & (alignment - 1):
        message = f"alignment {alignment}, a power of two from 1 to {ALIGNMENT_LIMIT} is expected"
        raise InputError("ALIGNMENT", message, key=ALIGNMENT_KEY)
    return alignment


def tensor_bytes(name: str, shape: Sequence[int], type_: GgmlType, alignment: int) -> int:
    """How many bytes a tensor's data takes, without padding.

    shape: GGUF order, fastest-varying dimension first. Python integers keep products exact; 64-bit ones would wrap.
    Raises InputError DIMS or SHAPE with the tensor's name.
    """
    if len(shape) > DIMENSION_LIMIT:
        raise InputError("DIMS", f"{len(shape)} dimensions, at most {DIMENSION_LIMIT} allowed", key=name)
    columns = shape[0] if shape else 1
    size = block_size(type_)
    if columns % size:
        message = f"rows of {columns} elements cannot be {type_.name}, which packs blocks of {size} elements"
        raise InputError("SHAPE", message, key=name)
    elements = prod(shape)
    size_bytes = elements // size * block_bytes(type_)
    is_too_large = elements > INT64_MAX or size_bytes > INT64_MAX - alignment
    if is_too_large or any(not 0 <= dimension <= INT64_MAX for dimension in shape):
        raise InputError("SHAPE", f"the shape {list(shape)} is not one that ggml can hold", key=name)
    return size_bytes


def padded(size_bytes: int, alignment: int) -> int:
    """The size rounded up to a multiple of the alignment."""
    return -(-size_bytes // alignment) * alignment
