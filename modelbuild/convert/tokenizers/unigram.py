"""Unigram vocabularies (T5, XLM-RoBERTa): pieces with log probabilities, and how texts are normalized before.

Source: conversion/t5.py and conversion/bert.py of llama.cpp (set_vocab, _xlmroberta_set_vocab), October 2026.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from modelbuild.convert.tokenizers.bpe import special_keys, token_count
from modelbuild.convert.tokenizers.files import AddedToken, TokenizerFiles, content_of
from modelbuild.convert.tokenizers.pretokenizers import pre_tokenizer_steps
from modelbuild.convert.tokenizers.sentencepiece import (
    TOKENIZER_MODEL,
    read_sentencepiece_model,
    sentencepiece,
    set_pieces,
)
from modelbuild.convert.tokenizers.sentencepiece_model import BPE, UNIGRAM, SentencePieceModel
from modelbuild.convert.tokenizers.special import KINDS
from modelbuild.convert.tokenizers.vocabulary import TokenType, Vocabulary, check_ids
from modelbuild.errors import InputError
from modelbuild.formats.gguf.types import ValueType
from modelbuild.formats.gguf.writer import KeyValue, array, boolean, string, u32
from modelbuild.records import record

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

SPIECE_MODEL, XLM_MODEL = "spiece.model", "sentencepiece.bpe.model"
_UNUSED_SCORE, _ADDED_SCORE = -10000.0, -1000.0
#: XLM-RoBERTa puts four tokens of its own before the pieces, in place of the first three.
_XLM_FIRST = (
    ("<s>", TokenType.CONTROL),
    ("<pad>", TokenType.CONTROL),
    ("</s>", TokenType.CONTROL),
    ("<unk>", TokenType.UNKNOWN),
)


@record
class Normalization:
    """What the runtime does to a text before it looks for pieces. charsmap: a compiled table, maybe empty."""

    add_prefix: bool
    remove_blanks: bool
    charsmap: bytes


def unigram_or_sentencepiece(model: Model) -> Iterable[KeyValue]:
    """Keys of spiece.model or tokenizer.model, whatever its kind, else of a Unigram tokenizer.json."""
    files = model.tokenizer_files
    name = next((name for name in (TOKENIZER_MODEL, SPIECE_MODEL) if model.checkpoint.has(name)), None)
    if name is None:
        return unigram_json(model)
    pieces = read_sentencepiece_model(files, name)
    if pieces.model_type == BPE and name == TOKENIZER_MODEL:
        return sentencepiece(model)
    _check_unigram(pieces, files, name)
    vocabulary = _from_pieces(files, name, pieces, token_count(model, len(pieces.pieces)))
    return _keys(files, model, vocabulary, _normalization(pieces))


def xlm_unigram(model: Model, *, has_mask: bool = False) -> Iterable[KeyValue]:
    """Keys of an XLM-RoBERTa tokenizer: sentencepiece.bpe.model with its tokens moved, else tokenizer.json.

    has_mask: the last token is the one for hidden words, which the file does not hold.
    """
    files = model.tokenizer_files
    if not model.checkpoint.has(XLM_MODEL):
        return unigram_json(model, token_types=True)
    pieces = read_sentencepiece_model(files, XLM_MODEL)
    _check_unigram(pieces, files, XLM_MODEL)
    count = max(token_count(model, len(pieces.pieces)), len(pieces.pieces))
    vocabulary = _from_pieces(files, XLM_MODEL, pieces, count)
    _move_tokens(vocabulary)
    if has_mask:
        vocabulary.set(len(pieces.pieces) + 1, "<mask>", TokenType.CONTROL, 0.0)
    return _keys(files, model, vocabulary, _normalization(pieces), token_types=True)


def unigram_json(model: Model, *, token_types: bool = False) -> Iterable[KeyValue]:
    """Keys of a Unigram tokenizer.json; InputError TOKENIZER when it holds something else."""
    files = model.tokenizer_files
    if files.model_type != "Unigram":
        hint = f"a Unigram vocabulary is expected in {SPIECE_MODEL}, {TOKENIZER_MODEL} or tokenizer.json"
        raise InputError("TOKENIZER", "unknown tokenizer format", path=files.path, hint=hint)
    return _keys(files, model, _from_json(files, model), _normalization_of_json(files), token_types=token_types)


def _keys(
    files: TokenizerFiles,
    model: Model,
    vocabulary: Vocabulary,
    normalization: Normalization,
    *,
    token_types: bool = False,
) -> Iterable[KeyValue]:
    yield string("tokenizer.ggml.model", "t5")
    yield string("tokenizer.ggml.pre", "default")
    yield from vocabulary.keys()
    yield boolean("tokenizer.ggml.add_space_prefix", normalization.add_prefix)
    if token_types:
        yield u32("tokenizer.ggml.token_type_count", model.config.integer("type_vocab_size", default=1))
    yield boolean("tokenizer.ggml.remove_extra_whitespaces", normalization.remove_blanks)
    if normalization.charsmap:
        yield array("tokenizer.ggml.precompiled_charsmap", ValueType.U8, list(normalization.charsmap))
    yield from special_keys(files, model, len(vocabulary.texts), skip_beyond=True)


# -- SentencePiece files -----------------------------------------------------------------------------------------------


def _check_unigram(pieces: SentencePieceModel, files: TokenizerFiles, name: str) -> None:
    if pieces.model_type != UNIGRAM:
        path = files.checkpoint.files[name]
        raise InputError("TOKENIZER", f"a Unigram model is expected, found kind {pieces.model_type}", path=path)


def _normalization(pieces: SentencePieceModel) -> Normalization:
    return Normalization(pieces.add_dummy_prefix, pieces.remove_extra_whitespaces, pieces.charsmap)


def _from_pieces(files: TokenizerFiles, name: str, pieces: SentencePieceModel, count: int) -> Vocabulary:
    vocabulary = Vocabulary.of_placeholders(files.checkpoint.files[name], count, _UNUSED_SCORE)
    set_pieces(vocabulary, pieces.pieces)
    added = check_ids(list(files.checkpoint.read_object("added_tokens.json").items()), files.path)
    for number, text in added.items():
        if number < count:
            vocabulary.set(number, text, TokenType.USER_DEFINED, _ADDED_SCORE)
    return vocabulary


def _move_tokens(vocabulary: Vocabulary) -> None:
    """Four tokens replace the first three pieces, so that all others move up by one."""
    vocabulary.texts[:] = [text for text, _ in _XLM_FIRST] + vocabulary.texts[3:-1]
    vocabulary.types[:] = [kind for _, kind in _XLM_FIRST] + vocabulary.types[3:-1]
    vocabulary.scores[:] = [0.0] * len(_XLM_FIRST) + vocabulary.scores[3:-1]


# -- tokenizer.json ----------------------------------------------------------------------------------------------------


def _from_json(files: TokenizerFiles, model: Model) -> Vocabulary:
    """Pieces and scores in the order of the file; added tokens tell which of them are special."""
    items = _pieces_of_json(files)
    added = {token.id: token for token in files.added_tokens}
    count = token_count(model, max(len(items), max(added, default=-1) + 1))
    vocabulary = Vocabulary.of_placeholders(files.path, count, _UNUSED_SCORE)
    unknown = _unknown_id(files)
    special = _special_texts(files)
    for number, (text, score) in enumerate(items):
        vocabulary.set(number, text, _type(number, text, unknown, added, special), score)
    for number, token in added.items():
        if number >= len(items):
            kind = _type(number, token.content, unknown, added, special)
            vocabulary.set(number, token.content, kind, _ADDED_SCORE)
    return vocabulary


def _pieces_of_json(files: TokenizerFiles) -> Sequence[tuple[str, float]]:
    items = files.model.get("vocab")
    if not isinstance(items, list):
        raise files.error("model.vocab", "a list of pieces with scores is expected")
    return [_piece(files, item) for item in items]


def _piece(files: TokenizerFiles, item: object) -> tuple[str, float]:
    if isinstance(item, list) and len(item) == 2:
        text, score = item
        if isinstance(text, str) and type(score) in (int, float) and math.isfinite(score):
            return text, float(score)
    raise files.error("model.vocab", "a piece with its score is expected")


def _unknown_id(files: TokenizerFiles) -> int:
    number = files.model.get("unk_id")
    return number if type(number) is int else 3


def _special_texts(files: TokenizerFiles) -> frozenset[str]:
    named = (content_of(files.config.get(f"{kind}_token")) for kind in KINDS)
    return frozenset(text for text in named if text)


def _type(number: int, text: str, unknown: int, added: Mapping[int, AddedToken], special: frozenset[str]) -> TokenType:
    if number == unknown:
        return TokenType.UNKNOWN
    token = added.get(number)
    if text in special or (token is not None and token.special):
        return TokenType.CONTROL
    return TokenType.USER_DEFINED if token is not None else TokenType.NORMAL


def _normalization_of_json(files: TokenizerFiles) -> Normalization:
    """Blanks are cut when the tokenizer's configuration says so, or else when a step splits texts at them."""
    steps = pre_tokenizer_steps(files)
    prefix = any(_adds_prefix(step) for step in steps if step.get("type") == "Metaspace")
    clean = files.config.get("clean_up_tokenization_spaces")
    splits = any(step.get("type") == "WhitespaceSplit" for step in steps)
    return Normalization(prefix, clean if isinstance(clean, bool) else splits, _charsmap(files))


def _adds_prefix(step: Mapping[str, object]) -> bool:
    """Two spellings of one setting; a blank in front is what both leave out."""
    return step.get("add_prefix_space") is not False and step.get("prepend_scheme") != "never"


def _charsmap(files: TokenizerFiles) -> bytes:
    text = _find_charsmap(files.document.get("normalizer"), 0)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise files.error("normalizer.precompiled_charsmap", "not base64") from error


def _find_charsmap(normalizer: object, depth: int) -> str:
    if not isinstance(normalizer, dict) or depth > 8:
        return ""
    found = normalizer.get("precompiled_charsmap")
    if isinstance(found, str):
        return found
    inner = normalizer.get("normalizers")
    for item in inner if isinstance(inner, list) else ():
        text = _find_charsmap(item, depth + 1)
        if text:
            return text
    return ""
