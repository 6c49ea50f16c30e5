"""WordPiece (BERT): tokens carry a mark at the start of a word instead of `##` inside of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from modelbuild.convert.tokenizers.bpe import read_vocabulary, special_keys, token_count
from modelbuild.convert.tokenizers.files import TokenizerFiles, content_of
from modelbuild.convert.tokenizers.pretokenizers import find_pre_tokenizer
from modelbuild.convert.tokenizers.special import KINDS
from modelbuild.convert.tokenizers.vocabulary import TokenType, Vocabulary
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import KeyValue, boolean, string, u32

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

_WORD_START = "\u2581"
_INSIDE = "##"


def wordpiece(model: Model) -> Iterable[KeyValue]:
    """Keys of a WordPiece tokenizer; InputError TOKENIZER when the files do not make one."""
    files = model.tokenizer_files
    vocabulary = _read(files, model)
    pre_tokenizer = find_pre_tokenizer(files, model)
    vocabulary.texts = [_marked(text, type_) for text, type_ in zip(vocabulary.texts, vocabulary.types, strict=True)]
    yield u32("tokenizer.ggml.token_type_count", model.config.integer("type_vocab_size", default=1))
    yield string("tokenizer.ggml.model", "bert")
    yield string("tokenizer.ggml.pre", pre_tokenizer)
    yield from vocabulary.keys()
    yield from special_keys(files, model, len(vocabulary.texts), skip_beyond=True)
    if not files.document and files.config.get("do_lower_case") is False:  # tokenizer.json would have said it
        yield boolean("tokenizer.ggml.normalizer.lowercase", False)


def _marked(text: str, type_: TokenType) -> str:
    if type_ is TokenType.CONTROL:
        return text
    return text.removeprefix(_INSIDE) if text.startswith(_INSIDE) else _WORD_START + text


def _read(files: TokenizerFiles, model: Model) -> Vocabulary:
    if files.document:
        return read_vocabulary(files, model)
    if not model.checkpoint.has("vocab.txt"):
        hint = "a WordPiece tokenizer needs tokenizer.json or vocab.txt"
        raise InputError("TOKENIZER", "unknown tokenizer format", path=model.checkpoint.origin, hint=hint)
    return _read_text(files, model)


def _read_text(files: TokenizerFiles, model: Model) -> Vocabulary:
    """One token per line; the special ones are those that tokenizer_config.json names, or BERT's usual ones."""
    lines = model.checkpoint.read_lines("vocab.txt")
    texts = [line.rstrip("\r") for line in lines]
    while texts and not texts[-1]:
        texts.pop()
    named = {content_of(files.config.get(f"{kind}_token")) for kind in KINDS}
    special = named | {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"}
    vocabulary = Vocabulary.of_placeholders(model.checkpoint.files["vocab.txt"], token_count(model, len(texts)))
    for number, text in enumerate(texts):
        vocabulary.set(number, text, TokenType.CONTROL if text in special else TokenType.NORMAL)
    return vocabulary
