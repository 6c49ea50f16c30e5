"""SentencePiece vocabularies for models that merge by score: pieces with scores, plus tokens added around them.

Source: conversion/base.py of llama.cpp (_create_vocab_sentencepiece, _set_vocab_llama_hf), October 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from modelbuild.convert.checkpoint import TOKENIZER_LIMIT_BYTES
from modelbuild.convert.tokenizers.bpe import named_special_tokens, special_keys, token_count, tokens_of_config
from modelbuild.convert.tokenizers.files import TokenizerFiles
from modelbuild.convert.tokenizers.sentencepiece_model import Piece, SentencePieceModel, parse_sentencepiece
from modelbuild.convert.tokenizers.vocabulary import TokenType, Vocabulary, check_ids, set_added
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import KeyValue, string
from modelbuild.late_pattern import late_pattern

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

TOKENIZER_MODEL = "tokenizer.model"
_UNUSED_SCORE, _ADDED_SCORE = -10000.0, -1000.0
_BYTE_TOKEN = late_pattern(r"<0x[0-9A-Fa-f]{2}>", re.ASCII)
_KEPT_TYPES = (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.UNUSED, TokenType.BYTE)


def sentencepiece(model: Model) -> Iterable[KeyValue]:
    """Keys of tokenizer.model with the tokens added to it; InputError TOKENIZER when the file is not one."""
    files = model.tokenizer_files
    return _keys(files, model, read_sentencepiece_vocabulary(files, model))


def added_sentencepiece(model: Model) -> Iterable[KeyValue]:
    """The same, and the added tokens of tokenizer.json over them; all of them exactly as the files say."""
    files = model.tokenizer_files
    return _keys(files, model, read_added_vocabulary(files, model))


def read_added_vocabulary(files: TokenizerFiles, model: Model) -> Vocabulary:
    """The vocabulary of `added_sentencepiece`."""
    vocabulary = read_sentencepiece_vocabulary(files, model, put=_put_as_told)
    for token in files.added_tokens:
        if token.id < len(vocabulary.texts):
            _put_as_told(vocabulary, token.id, token.content, special=token.special, score=_ADDED_SCORE)
    return vocabulary


def _put_as_told(vocabulary: Vocabulary, number: int, text: str, *, special: bool, score: float) -> None:
    """Fill in an added token whatever it looks like."""
    vocabulary.set(number, text, TokenType.CONTROL if special else TokenType.USER_DEFINED, score)


def read_sentencepiece_vocabulary(
    files: TokenizerFiles, model: Model, *, put: Callable[..., None] = set_added
) -> Vocabulary:
    """Pieces, then added_tokens.json, then those of tokenizer_config.json, which `put` fills in.

    Padded to the configured vocabulary and the rows of the embedding. Added tokens beyond are left out, because
    published fine-tunes list tokens that their embedding never got.
    """
    pieces = read_sentencepiece_model(files, TOKENIZER_MODEL).pieces
    path = files.checkpoint.files[TOKENIZER_MODEL]
    vocabulary = Vocabulary.of_placeholders(path, token_count(model, len(pieces)), _UNUSED_SCORE)
    set_pieces(vocabulary, pieces)
    _add_tokens(files, vocabulary, put)
    return vocabulary


def set_pieces(vocabulary: Vocabulary, pieces: Iterable[Piece]) -> None:
    """Fill in the pieces of a SentencePiece file from the first token on."""
    for number, piece in enumerate(pieces):
        vocabulary.set(number, piece.text, _type_of(piece), piece.score)


def read_sentencepiece_model(files: TokenizerFiles, name: str) -> SentencePieceModel:
    """A SentencePiece file of the checkpoint."""
    return parse_sentencepiece(files.checkpoint.read(name, TOKENIZER_LIMIT_BYTES), files.checkpoint.files[name])


def _type_of(piece: Piece) -> TokenType:
    """Kinds the runtime treats apart; user-defined pieces are matched like any other there."""
    return TokenType(piece.type) if piece.type in _KEPT_TYPES else TokenType.NORMAL


def _add_tokens(files: TokenizerFiles, vocabulary: Vocabulary, put: Callable[..., None]) -> None:
    count = len(vocabulary.texts)
    added = check_ids(list(files.checkpoint.read_object("added_tokens.json").items()), files.path)
    for number, text in added.items():
        if number < count:
            vocabulary.set(number, text, TokenType.USER_DEFINED, _ADDED_SCORE)
    for number, text, special in tokens_of_config(files):
        if number < count:
            put(vocabulary, number, text, special=special, score=_ADDED_SCORE)


def vocabulary_keys(vocabulary: Vocabulary) -> Iterable[KeyValue]:
    """Kind, texts, scores and types, without special tokens."""
    yield string("tokenizer.ggml.model", "llama")
    yield string("tokenizer.ggml.pre", "default")
    yield from vocabulary.keys()


def _keys(files: TokenizerFiles, model: Model, vocabulary: Vocabulary) -> Iterable[KeyValue]:
    yield from vocabulary_keys(vocabulary)
    yield from special_keys(files, model, len(vocabulary.texts), skip_beyond=True)


# -- the same as tokenizer.json ----------------------------------------------------------------------------------------


def is_sentencepiece_json(files: TokenizerFiles) -> bool:
    """Is tokenizer.json a SentencePiece vocabulary in BPE form: bytes as tokens of their own, no byte alphabet?"""
    decoder = files.part(files.document, "decoder").get("type")
    return files.model_type == "BPE" and files.model.get("byte_fallback") is True and decoder == "Sequence"


def sentencepiece_json(model: Model) -> Iterable[KeyValue]:
    """Keys of a SentencePiece vocabulary that ships as tokenizer.json alone.

    Its scores are lost, so every token gets the same one, as the reference does: the runtime then merges from the left,
    which differs from the original for some texts.
    """
    files = model.tokenizer_files
    return _keys(files, model, read_json_vocabulary(files, model))


def read_json_vocabulary(files: TokenizerFiles, model: Model) -> Vocabulary:
    """Tokens of tokenizer.json in SentencePiece form, padded to the rows of the embedding."""
    base = check_ids(list(files.vocabulary), files.path)
    added = {token.id: token for token in files.added_tokens}
    special = {token.content for token in files.added_tokens if token.special} | set(named_special_tokens(files))
    count = max(max((*base, *added), default=-1) + 1, model.size("vocab") or 0)
    vocabulary = Vocabulary.of_placeholders(files.path, count, _ADDED_SCORE)
    for number, text in base.items():
        vocabulary.set(number, text, _json_type(text, text in special), _ADDED_SCORE)
    for number, token in added.items():
        if number not in base:
            type_ = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
            vocabulary.set(number, token.content, type_, _ADDED_SCORE)
    return vocabulary


def _json_type(text: str, special: bool) -> TokenType:
    if _BYTE_TOKEN.fullmatch(text):
        return TokenType.BYTE
    return TokenType.CONTROL if special else TokenType.NORMAL


def is_sentencepiece_file(files: TokenizerFiles) -> bool:
    """Is there a tokenizer.model that can be read? Some checkpoints have a rank list under that name."""
    if not files.checkpoint.has(TOKENIZER_MODEL):
        return False
    try:
        read_sentencepiece_model(files, TOKENIZER_MODEL)
    except InputError:
        if not files.document:
            raise
        return False
    return True
