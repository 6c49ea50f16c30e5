"""What Ollama says about a GGUF file that it cannot decode; used only to word an error that is certain already.

Its decoder checks less than ours and in another order, so the texts are found by decoding once more its way.
Source: answers of Ollama's create API, August 2026.
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path

from modelbuild.errors import printable
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.gguf.types import VALUE_BYTES, GgmlType, ValueType, block_bytes, block_size

#: The answer for a file that decodes and that llama.cpp then refuses.
VALIDATION_FAULT = (
    "failed to validate GGUF with llama-quantize without compatibility patches: llama-quantize failed: exit status 1"
)
_STRING_LIMIT = 16 << 20
_ARRAY_LIMIT = 64 << 20
_DIMENSION_LIMIT = 4
#: Nothing is worded beyond this many keys, tensors or array strings: such a file is refused for its size alone.
_STEP_LIMIT = 4 << 20
#: Types that Ollama gives no size.
_SIZELESS = (GgmlType.TQ1_0, GgmlType.TQ2_0)


class _Fault(Exception):
    """The text of what is wrong."""


def word_gguf_fault(path: Path) -> str | None:
    """Ollama's text for what is wrong with a file, or None when its decoder accepts it."""
    try:
        with open_input(path) as source:
            _Decoder(source).decode()
    except _Fault as fault:
        return str(fault)
    return None


class _Decoder:
    """Walks the header; raises the first fault."""

    def __init__(self, source: InputFile) -> None:
        self._source = source
        self._at = 4
        self._version = 0
        self._alignment = 32
        self._steps = 0

    def decode(self) -> None:
        """Read everything up to the tensor data and check that this is there."""
        self._version = self._number("<I")
        tensor_count, key_count = self._count(), self._count()
        for _ in range(key_count):
            self._key()
        tensors = [self._tensor() for _ in range(tensor_count)]
        if self._alignment == 0:
            raise _Fault("invalid GGUF alignment: 0")
        start = self._at + -self._at % self._alignment
        for name, offset, size in tensors:
            end = start + offset + size
            if end > self._source.size_bytes:
                raise _Fault(f"{name} offset+size ({end}) exceeds file size ({self._source.size_bytes})")

    def _key(self) -> None:
        key = self._string()
        kind = self._number("<I")
        if kind == ValueType.ARRAY:
            self._array()
        elif kind == ValueType.STRING:
            self._string()
        elif kind > max(ValueType):
            raise _Fault(f"invalid type: {kind}")
        elif key == "general.alignment" and kind == ValueType.U32:
            self._alignment = self._number("<I")
        else:
            self._take(VALUE_BYTES[ValueType(kind)])

    def _array(self) -> None:
        kind = self._number("<I")
        count = self._count()
        if count > _ARRAY_LIMIT:
            raise _Fault(f"GGUF array size {count} exceeds maximum {_ARRAY_LIMIT}")
        if kind == ValueType.ARRAY or kind > max(ValueType):
            raise _Fault(f"invalid array type: {kind}")
        if kind != ValueType.STRING:
            self._skip(count * VALUE_BYTES[ValueType(kind)])
            return
        for _ in range(count):
            self._string()

    def _tensor(self) -> tuple[str, int, int]:
        name = f'tensor "{printable(self._string())}"'
        dimensions = self._number("<I")
        if dimensions > _DIMENSION_LIMIT:
            raise _Fault(f"{name} dimensions {dimensions} exceeds maximum {_DIMENSION_LIMIT}")
        shape = [self._count() for _ in range(dimensions)]
        kind, offset = self._number("<I"), self._number("<Q")
        elements = prod(shape)
        if elements >= 1 << 64:
            raise _Fault(f"{name} elements overflow")
        known = next((item for item in GgmlType if item == kind and item not in _SIZELESS), None)
        if known is None or (shape and shape[0] % block_size(known)):
            raise _Fault(f"{name} size overflow")
        size = elements // block_size(known) * block_bytes(known)
        if offset + size >= 1 << 64:
            raise _Fault(f"{name} offset+size overflows")
        return name, offset, size

    def _string(self) -> str:
        length = self._count()
        if length > _STRING_LIMIT:
            limit = (1 << 63) - 1 if length >> 63 else _STRING_LIMIT
            raise _Fault(f"GGUF string length {length} exceeds maximum {limit}")
        return self._take(length).decode("utf-8", "replace")

    def _count(self) -> int:
        return self._number("<I" if self._version == 1 else "<Q")

    def _number(self, code: str) -> int:
        return int(struct.unpack(code, self._take(struct.calcsize(code)))[0])

    def _take(self, size: int) -> bytes:
        start = self._at
        self._skip(size)
        return self._source.read_at(start, size)

    def _skip(self, size: int) -> None:
        left = self._source.size_bytes - self._at
        self._steps += 1
        if size > left or self._steps > _STEP_LIMIT:
            raise _Fault("unexpected EOF" if left else "EOF")
        self._at += size
