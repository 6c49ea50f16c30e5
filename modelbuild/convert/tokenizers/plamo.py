"""The vocabularies of PLaMo 2 and 3: a line for each token, with score and kind.

Source: conversion/base.py of llama.cpp (_set_vocab_plamo), October 2026.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from modelbuild.convert.tokenizers.files import TokenizerFiles, content_of
from modelbuild.convert.tokenizers.special import special_id_key
from modelbuild.convert.tokenizers.vocabulary import TOKEN_LIMIT, TokenType, Vocabulary
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import KeyValue, boolean, string, u32
from modelbuild.formats.json_text import parse_json

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

TOKENIZER_LINES = "tokenizer.jsonl"
_KINDS = {"UNKNOWN": TokenType.UNKNOWN, "CONTROL": TokenType.CONTROL, "BYTE": TokenType.BYTE}
_SPECIAL = ("bos", "eos", "pad", "sep", "unk")
_PADDING_SCORE = -1000.0
#: The token that ends a turn, `<|plamo:op|>`.
_END_OF_TURN = 4


def plamo(model: Model) -> Iterable[KeyValue]:
    """Keys of tokenizer.jsonl; InputError TOKENIZER when it is missing or a line is no token."""
    files = model.tokenizer_files
    vocabulary = _read(files, model)
    yield string("tokenizer.ggml.model", "plamo2")
    yield string("tokenizer.ggml.pre", "default")
    yield from vocabulary.keys()
    for kind in _SPECIAL:
        text = content_of(files.config.get(f"{kind}_token"))
        if text in vocabulary.texts:
            yield u32(special_id_key(kind), vocabulary.texts.index(text))
    yield u32(special_id_key("eot"), _END_OF_TURN)
    yield boolean("tokenizer.ggml.add_space_prefix", False)


def _read(files: TokenizerFiles, model: Model) -> Vocabulary:
    if not files.checkpoint.has(TOKENIZER_LINES):
        message = f"the checkpoint has no {TOKENIZER_LINES}"
        raise InputError("TOKENIZER", message, path=files.checkpoint.origin, key=TOKENIZER_LINES)
    path = files.checkpoint.files[TOKENIZER_LINES]
    lines = files.checkpoint.read_lines(TOKENIZER_LINES)
    vocabulary = Vocabulary(path)
    for number, line in enumerate(lines, start=1):
        if len(vocabulary.texts) > TOKEN_LIMIT:
            raise InputError("TOKENIZER", f"more than {TOKEN_LIMIT:,} tokens", path=path)
        if line.strip():
            entry = parse_json(line.encode(), path=path)
            text, score, kind = entry[:3] if isinstance(entry, list) and len(entry) >= 3 else (None, None, None)
            if not isinstance(text, str) or (type(score) is not int and type(score) is not float):
                raise InputError("TOKENIZER", f"line {number} is no list of token, score and kind", path=path)
            vocabulary.texts.append(text)
            vocabulary.scores.append(float(score))
            vocabulary.types.append(_type_of(text, kind))
    count = model.config.optional_integer("vocab_size", "vocab_size") or 0
    for number in range(1, count - len(vocabulary.texts) + 1):
        vocabulary.texts.append(f"[PAD{number}]")
        vocabulary.scores.append(_PADDING_SCORE)
        vocabulary.types.append(TokenType.UNUSED)
    return vocabulary


def _type_of(text: str, kind: object) -> TokenType:
    known = _KINDS.get(kind) if isinstance(kind, str) else None
    if known is not None:
        return known
    return TokenType.CONTROL if text.startswith("<|plamo:") and text.endswith("|>") else TokenType.NORMAL
