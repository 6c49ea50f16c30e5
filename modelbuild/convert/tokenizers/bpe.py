"""Byte-level BPE (GPT-2 and everything after it): tokens, types, merges, pre-tokenizer, special tokens, template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from modelbuild.convert.checkpoint import TOKENIZER_LIMIT_BYTES
from modelbuild.convert.tokenizers.files import TokenizerFiles, content_of
from modelbuild.convert.tokenizers.pretokenizers import find_pre_tokenizer
from modelbuild.convert.tokenizers.special import KINDS, read_special_tokens
from modelbuild.convert.tokenizers.templates import template_keys
from modelbuild.convert.tokenizers.vocabulary import TokenType, Vocabulary, check_ids, set_added
from modelbuild.errors import InputError, printable
from modelbuild.formats.gguf.writer import KeyValue, string, strings

if TYPE_CHECKING:
    from modelbuild.convert.model import Model


def byte_level_bpe(model: Model) -> Iterable[KeyValue]:
    """Keys of a byte-level BPE tokenizer; InputError TOKENIZER when the files do not make one."""
    files = model.tokenizer_files
    vocabulary = read_vocabulary(files, model)
    merges = files.merges
    if not merges and files.model.get("merges") != []:  # a toy tokenizer may say that it has none
        raise files.error("model.merges", "a BPE tokenizer without merges", "tokenizer.json or merges.txt has them")
    check_merges(files, merges, vocabulary)
    yield string("tokenizer.ggml.model", "gpt2")
    # Without merges every character is its own token, however the text is split before.
    yield string("tokenizer.ggml.pre", find_pre_tokenizer(files, model) if merges else "default")
    yield from vocabulary.keys()
    if merges:
        yield strings("tokenizer.ggml.merges", merges)
    yield from special_keys(files, model, len(vocabulary.texts))


def special_keys(files: TokenizerFiles, model: Model, count: int, *, skip_beyond: bool = False) -> Iterable[KeyValue]:
    """Special token ids and flags, chat templates, what becomes of texts first.

    skip_beyond: ids that the vocabulary does not have are left out, not refused.
    """
    special = read_special_tokens(files, model.hub.root, count, skip_beyond=skip_beyond)
    yield from special.keys()
    yield from template_keys(files)
    yield from special.normalizer_keys()


def read_vocabulary(files: TokenizerFiles, model: Model) -> Vocabulary:
    """Tokens of tokenizer.json (or vocab.json), padded to the configuration's vocabulary and the embedding's rows."""
    base = check_ids(_base_tokens(files), files.path)
    added = _added_tokens(files, base, model.config.optional_integer("vocab_size", "vocab_size"))
    count = token_count(model, max((*base, *added), default=-1) + 1)
    vocabulary = Vocabulary.of_placeholders(files.path, count)
    for number, text in base.items():
        if number not in added:
            vocabulary.set(number, text, TokenType.NORMAL)
    for number, (text, special) in added.items():
        set_added(vocabulary, number, text, special=special)
    return vocabulary


def token_count(model: Model, found: int) -> int:
    """The configured vocabulary, or as many as were found; at least the rows of the embedding."""
    configured = model.config.optional_integer("vocab_size", "vocab_size")
    count = found if configured is None else configured
    return max(count, model.size("vocab") or 0)


def _base_tokens(files: TokenizerFiles) -> list[tuple[str, object]]:
    if files.document:
        return list(files.vocabulary)
    if not files.checkpoint.has("vocab.json"):
        hint = "a checkpoint needs tokenizer.json, tokenizer.model, or vocab.json with merges.txt"
        raise InputError("TOKENIZER", "unknown tokenizer format", path=files.checkpoint.origin, hint=hint)
    return list(files.checkpoint.read_object("vocab.json", TOKENIZER_LIMIT_BYTES).items())


def _added_tokens(files: TokenizerFiles, base: Mapping[int, str], count: int | None) -> dict[int, tuple[str, bool]]:
    """Added tokens by id: those of tokenizer.json, then of the other files where the id is still free.

    Special tokens that only stand in the vocabulary proper, or that files name without giving them an id, are added
    tokens as well: the reference library adds them when it loads a tokenizer, the latter after all others.
    """
    check_ids([(token.content, token.id) for token in files.added_tokens], files.path)
    added = {token.id: (token.content, token.special) for token in files.added_tokens}
    known = {text for text, _ in added.values()}
    for number, text, special in tokens_of_config(files):
        if number not in added and text not in known and base.get(number, text) == text:
            added[number] = (text, special)
            known.add(text)
    ids = {text: number for number, text in base.items()}
    for text in named_special_tokens(files):
        number = ids.get(text, max((*base, *added), default=-1) + 1)
        if text not in known and (text in ids or count is None or number < count):
            added[number] = (text, True)
            known.add(text)
    return added


def tokens_of_config(files: TokenizerFiles) -> Iterable[tuple[int, str, bool]]:
    """Id, text and whether it is special, of the added tokens that tokenizer_config.json tells."""
    decoder = files.config.get("added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        text = content_of(entry)
        if text is not None and key.isascii() and key.isdecimal() and len(key) <= 10:
            yield int(key), text, isinstance(entry, dict) and entry.get("special") is True


def named_special_tokens(files: TokenizerFiles) -> Iterable[str]:
    """The texts that the settings of a tokenizer call special, by kind or in a list."""
    for source in (files.config, files.special_tokens_map):
        for kind in KINDS:
            text = content_of(source.get(f"{kind}_token"))
            if text:
                yield text
        more = source.get("additional_special_tokens")
        for entry in more if isinstance(more, list) else ():
            text = content_of(entry)
            if text:
                yield text


def check_merges(files: TokenizerFiles, merges: list[str], vocabulary: Vocabulary) -> None:
    """InputError TOKENIZER for a merge of tokens that do not exist: the runtime would never use it."""
    known = set(vocabulary.texts)
    known.update(text for text, _ in files.vocabulary) if files.document else None
    unknown = {part for merge in merges for part in merge.split(" ")} - known
    if unknown:
        part = min(unknown)
        merge = next(merge for merge in merges if part in merge.split(" "))
        raise files.error("model.merges", f"the merge {printable(merge)!r} names an unknown token")
