"""Reads a SentencePiece model file: a protocol buffer, of which a vocabulary needs a few fields. Bounded, no recursion.

Field numbers: sentencepiece_model.proto of google/sentencepiece.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from modelbuild.convert.tokenizers.vocabulary import TOKEN_LIMIT, TOKEN_LIMIT_BYTES
from modelbuild.errors import InputError
from modelbuild.records import record

UNIGRAM, BPE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_LIMIT_BYTES = 10
_FLOAT = struct.Struct("<f")


@record
class Piece:
    """A token: its type is 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte."""

    text: str
    score: float
    type: int


@record
class SentencePieceModel:
    """model_type: UNIGRAM, BPE or another kind. charsmap: the compiled normalizer, maybe empty."""

    pieces: tuple[Piece, ...]
    model_type: int
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def parse_sentencepiece(data: bytes, path: Path | str) -> SentencePieceModel:
    """The model in a file's bytes; InputError TOKENIZER with the offset for anything that is not one."""
    reader = _Reader(data, path)
    pieces: list[Piece] = []
    trainer: dict[int, object] = {}
    normalizer: dict[int, object] = {}
    for number, value in reader.fields(0, len(data)):
        if number == 1 and isinstance(value, range):
            if len(pieces) >= TOKEN_LIMIT:
                raise reader.error(value.start, f"more than {TOKEN_LIMIT:,} pieces")
            pieces.append(reader.piece(value))
        elif number == 2 and isinstance(value, range):
            trainer.update(reader.fields(value.start, value.stop))
        elif number == 3 and isinstance(value, range):
            normalizer.update(reader.fields(value.start, value.stop))
    if not pieces:
        raise reader.error(0, "a SentencePiece model without pieces")
    charsmap = normalizer.get(2)
    model_type = trainer.get(3, UNIGRAM)
    return SentencePieceModel(
        tuple(pieces),
        model_type if isinstance(model_type, int) else UNIGRAM,
        data[charsmap.start : charsmap.stop] if isinstance(charsmap, range) else b"",
        normalizer.get(3, 1) != 0,
        normalizer.get(4, 1) != 0,
    )


class _Reader:
    """Fields of messages; lengths are compared with what is left before anything is taken."""

    def __init__(self, data: bytes, path: Path | str) -> None:
        self._data = data
        self._path = path

    def error(self, offset: int, message: str) -> InputError:
        return InputError("TOKENIZER", f"not a SentencePiece model: {message}", path=self._path, offset=offset)

    def fields(self, start: int, stop: int) -> Iterator[tuple[int, int | float | range]]:
        """Number and value: varints as integers, floats, byte ranges as ranges of offsets."""
        position = start
        while position < stop:
            begin = position
            tag, position = self._varint(position, stop)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                value, position = self._varint(position, stop)
                yield number, value
                continue
            size, position = self._size(wire, position, stop)
            if size > stop - position:
                raise self.error(begin, f"a field of {size} bytes, {stop - position} are left")
            if wire == _FIXED32:
                yield number, _FLOAT.unpack_from(self._data, position)[0]
            elif wire == _BYTES:
                yield number, range(position, position + size)
            position += size

    def _size(self, wire: int, position: int, stop: int) -> tuple[int, int]:
        if wire == _BYTES:
            return self._varint(position, stop)
        if wire in (_FIXED32, _FIXED64):
            return (4 if wire == _FIXED32 else 8), position
        raise self.error(position, f"wire type {wire}")

    def _varint(self, position: int, stop: int) -> tuple[int, int]:
        value = 0
        for index in range(_VARINT_LIMIT_BYTES):
            if position + index >= stop:
                raise self.error(position, "a number is cut off")
            byte = self._data[position + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value, position + index + 1
        raise self.error(position, "a number of more than 64 bits")

    def piece(self, extent: range) -> Piece:
        text, score, kind = "", 0.0, 1
        for number, value in self.fields(extent.start, extent.stop):
            if number == 1 and isinstance(value, range):
                text = self._text(value)
            elif number == 2 and isinstance(value, float):
                score = value
            elif number == 3 and isinstance(value, int):
                kind = value
        return Piece(text, score, kind)

    def _text(self, extent: range) -> str:
        if len(extent) > TOKEN_LIMIT_BYTES:
            raise self.error(extent.start, f"a piece of {len(extent):,} bytes, at most {TOKEN_LIMIT_BYTES:,} allowed")
        try:
            return self._data[extent.start : extent.stop].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(extent.start, "a piece that is not UTF-8") from error
