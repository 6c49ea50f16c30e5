"""Vocabularies that are lists of byte strings by rank (tiktoken): the merges are worked out from the ranks.

Source: conversion/base.py and conversion/qwen.py of llama.cpp (_set_vocab_qwen), October 2026.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from modelbuild.convert.checkpoint import Checkpoint
from modelbuild.convert.tokenizers.check_hash import BYTE_CHARS
from modelbuild.convert.tokenizers.files import content_of
from modelbuild.convert.tokenizers.pretokenizers import check_pre_tokenizer_name
from modelbuild.convert.tokenizers.special import SpecialTokens, read_special_tokens
from modelbuild.convert.tokenizers.templates import template_keys
from modelbuild.convert.tokenizers.vocabulary import TOKEN_LIMIT, TokenType, Vocabulary
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import KeyValue, string, strings

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

QWEN_RANKS, KIMI_RANKS = "qwen.tiktoken", "tiktoken.model"
Ranks = Mapping[bytes, int]
#: Longer ones are no words, and finding their merges takes the square of their length.
_TOKEN_LIMIT_BYTES = 1024
#: So that is limited for all tokens together: as much as a million tokens of eight bytes.
_SQUARES_LIMIT = 1 << 26
_QWEN_NAMED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN_EXTRA_COUNT = 205


def qwen_ranks(model: Model) -> Iterable[KeyValue]:
    """Keys of `qwen.tiktoken`; the special tokens, which only the class knows, follow the ranks."""
    ranks = _read(model.checkpoint, QWEN_RANKS)
    texts = (*_QWEN_NAMED, *(f"<|extra_{number}|>" for number in range(_QWEN_EXTRA_COUNT)))
    first = len(ranks)
    vocabulary = _vocabulary(model, QWEN_RANKS, ranks, {first + number: text for number, text in enumerate(texts)})
    special = read_special_tokens(model.tokenizer_files, model.hub.root, len(vocabulary.texts))
    for kind in ("unk",) if special.ids else ("bos", "eos", "unk"):
        special.ids.setdefault(kind, first)
    return _keys(model, vocabulary, ranks, special, "qwen2")


def kimi_ranks(model: Model) -> Iterable[KeyValue]:
    """Keys of `tiktoken.model`; what follows the ranks is named in tokenizer_config.json, or reserved."""
    ranks = _read(model.checkpoint, KIMI_RANKS)
    decoder = model.tokenizer_files.config.get("added_tokens_decoder")
    named = {key: content_of(entry) for key, entry in decoder.items()} if isinstance(decoder, dict) else {}
    count = model.config.integer("vocab_size", "vocab_size")
    others = {n: named.get(str(n)) or f"<|reserved_token_{n}|>" for n in range(len(ranks), count)}
    vocabulary = _vocabulary(model, KIMI_RANKS, ranks, others)
    special = read_special_tokens(model.tokenizer_files, model.hub.root, len(vocabulary.texts))
    return _keys(model, vocabulary, ranks, special, "kimi-k2")


def _keys(
    model: Model, vocabulary: Vocabulary, ranks: Ranks, special: SpecialTokens, pre_tokenizer: str
) -> Iterable[KeyValue]:
    yield string("tokenizer.ggml.model", "gpt2")
    yield string("tokenizer.ggml.pre", check_pre_tokenizer_name(model.pre_tokenizer or pre_tokenizer))
    yield from vocabulary.keys()
    yield strings("tokenizer.ggml.merges", list(merges_of(ranks)))
    yield from special.keys()
    yield from template_keys(model.tokenizer_files)


def _read(checkpoint: Checkpoint, name: str) -> Ranks:
    """Token and rank of each line; InputError TOKENIZER when the file is missing or a line is something else."""
    if not checkpoint.has(name):
        raise InputError("TOKENIZER", f"the checkpoint has no {name}", path=checkpoint.origin)
    path, ranks, squares = checkpoint.files[name], dict[bytes, int](), 0
    for number, line in enumerate(checkpoint.read_lines(name), start=1):
        if not line.strip():
            continue
        text, _, rank = line.partition(" ")
        try:
            token = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            token = b""
        if not 0 < len(token) <= _TOKEN_LIMIT_BYTES or rank.strip() != str(len(ranks)) or token in ranks:
            raise InputError("TOKENIZER", f"line {number} is no new token with the next rank", path=path)
        if len(ranks) >= TOKEN_LIMIT:
            raise InputError("TOKENIZER", f"more than {TOKEN_LIMIT:,} tokens", path=path)
        ranks[token] = len(ranks)
        squares += len(token) ** 2
        if squares > _SQUARES_LIMIT:
            raise InputError("TOKENIZER", f"line {number}: the tokens so far are longer than words", path=path)
    return ranks


def _vocabulary(model: Model, name: str, ranks: Ranks, special: Mapping[int, str]) -> Vocabulary:
    count = max(model.config.integer("vocab_size", "vocab_size"), model.size("vocab") or 0)
    vocabulary = Vocabulary.of_placeholders(model.checkpoint.files[name], count)
    for token, rank in ranks.items():
        vocabulary.set(rank, _spelt(token), TokenType.NORMAL)
    for number, text in special.items():
        if number < count:  # some that are listed have no row of the embedding
            vocabulary.set(number, text, TokenType.CONTROL)
    return vocabulary


def _spelt(token: bytes) -> str:
    return "".join(BYTE_CHARS[byte] for byte in token)


def merges_of(ranks: Ranks) -> Iterable[str]:
    """The last merge that makes each token of several bytes, in the order of the ranks."""
    for token, rank in ranks.items():
        if len(token) > 1:
            parts = _last_two(ranks, token, rank)
            if parts is not None:
                yield f"{_spelt(parts[0])} {_spelt(parts[1])}"


def _last_two(ranks: Ranks, token: bytes, rank: int) -> tuple[bytes, bytes] | None:
    """Both parts of the last merge. Where only one split leaves tokens of lower ranks, nothing else can be the last."""
    splits = [
        (token[:place], token[place:])
        for place in range(1, len(token))
        if ranks.get(token[:place], rank) < rank and ranks.get(token[place:], rank) < rank
    ]
    if len(splits) == 1:
        return splits[0]
    parts = _merged(ranks, token, rank)
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _merged(ranks: Ranks, token: bytes, limit: int) -> list[bytes]:
    """The bytes of a token merged in the order of ranks below a limit."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 1:
        pairs = ((ranks.get(parts[place] + parts[place + 1], limit), place) for place in range(len(parts) - 1))
        rank, place = min(pairs)
        if rank >= limit:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts
