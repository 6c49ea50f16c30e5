"""Tokenizers of models that come with either SentencePiece or byte-level BPE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.tokenizers.sentencepiece import (
    is_sentencepiece_file,
    is_sentencepiece_json,
    sentencepiece,
    sentencepiece_json,
)
from modelbuild.formats.gguf.writer import KeyValue, boolean, u32

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

#: Vocabulary sizes that tell models with settings of their own apart.
_CODE_LLAMA, _GRANITE_SMALL = 32016, 49152
_CODE_LLAMA_END_OF_TURN = 32010


def sentencepiece_or_bpe(model: Model) -> Iterable[KeyValue]:
    """tokenizer.model when there is one, then tokenizer.json in SentencePiece form, then byte-level BPE."""
    files = model.tokenizer_files
    if is_sentencepiece_file(files):
        return sentencepiece(model)
    return sentencepiece_json(model) if is_sentencepiece_json(files) else byte_level_bpe(model)


def llama_tokenizer(model: Model) -> Iterable[KeyValue]:
    """The same with what Llama-like classes add: a blank in front of texts, and settings of two known models."""
    files = model.tokenizer_files
    prefix = files.config.get("add_prefix_space")
    if isinstance(prefix, bool):
        yield boolean("tokenizer.ggml.add_space_prefix", prefix)
    yield from sentencepiece_or_bpe(model)
    size = model.config.optional_integer("vocab_size", "vocab_size")
    if size == _CODE_LLAMA:
        yield u32("tokenizer.ggml.eot_token_id", _CODE_LLAMA_END_OF_TURN)
    if size == _GRANITE_SMALL:
        yield boolean("tokenizer.ggml.add_bos_token", False)
