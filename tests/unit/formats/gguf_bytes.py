"""GGUF files put together byte by byte, so that they can be wrong in exactly one place."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
#: Ids of tensor types.
T_F32, T_Q4_0, T_Q4_K, T_Q8_K, T_I8, T_I64, T_Q1_0, T_Q2_0 = 0, 2, 12, 15, 24, 27, 41, 42


def start(tensors: int, keys: int, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    """The fixed start of a file."""
    return magic + struct.pack("<IQQ", version, tensors, keys)


def text(data: bytes) -> bytes:
    """A string with its length."""
    return struct.pack("<Q", len(data)) + data


def entry(key: bytes, type_: int, data: bytes) -> bytes:
    """A key with its value."""
    return text(key) + struct.pack("<I", type_) + data


def array(element_type: int, count: int, data: bytes = b"") -> bytes:
    """The value of an array that claims `count` elements."""
    return struct.pack("<IQ", element_type, count) + data


def u32(value: int) -> bytes:
    """Four bytes."""
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    """Eight bytes."""
    return struct.pack("<Q", value)


def tensor(name: bytes, dims: Sequence[int], type_: int, offset: int) -> bytes:
    """The description of a tensor."""
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_, offset)


def pad(data: bytes, alignment: int = 32) -> bytes:
    """Zeros added up to a multiple of the alignment."""
    return data + bytes(-len(data) % alignment)


def one(dims: Sequence[int], type_: int, offset: int, data_bytes: int = 64) -> bytes:
    """A file with a single tensor."""
    return pad(start(1, 0) + tensor(b"t", dims, type_, offset)) + bytes(data_bytes)


def one_key(data: bytes, after: int = 0) -> bytes:
    """A file with a single key and nothing else."""
    return start(0, 1) + data + bytes(after)
