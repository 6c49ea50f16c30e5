"""The reference converter's way to tell pre-tokenizers apart: what ids a fixed text of 350 characters gets.

The converter runs the tokenizer; here nothing of a stranger runs. The text is split in every way the runtime knows
(`check_splits` of the table: its expressions, with their character classes spelt out for the characters of the text),
merged with the checkpoint's own vocabulary and merges, and completed as its post-processor says. A hash of the table
proves that the ids are those of a known tokenizer, so the way that leads to one is the right way.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from modelbuild.convert.tokenizers.files import TokenizerFiles, content_of
from modelbuild.convert.tokenizers.table import pre_tokenizer_table

_WORD_LIMIT = 100


def name_by_check_hash(files: TokenizerFiles, candidates: Sequence[str] = ()) -> str | None:
    """The pre-tokenizer's name by the ids of the check text; None when they are those of no known tokenizer.

    candidates: names of which it must be one, where the tokenizer's own expressions tell; others are not tried.
    """
    hashes = pre_tokenizer_table().hashes
    ways = _wordpiece_ids(files) if files.model_type == "WordPiece" else _bpe_ids(files, _ways_of(candidates))
    for ids in ways:
        for complete in _completed(files, ids):
            name = hashes.get(hashlib.sha256(str(complete).encode()).hexdigest())
            if name is not None:
                return name
    return None


# -- byte-level BPE ----------------------------------------------------------------------------------------------------


def _ways_of(candidates: Sequence[str]) -> Sequence[Sequence[str]]:
    """The ways to split under some names; all of them for no name, or for one whose way is not known."""
    table = pre_tokenizer_table()
    if not candidates or any(name not in table.check_ways for name in candidates):
        return table.check_splits
    return [table.check_splits[index] for index in sorted({table.check_ways[name] for name in candidates})]


def _bpe_ids(files: TokenizerFiles, splits: Sequence[Sequence[str]]) -> Iterator[list[int]]:
    segments = list(_segments(files, pre_tokenizer_table().check_text))
    encoder = _Encoder(files)
    seen: set[tuple[int, ...]] = set()
    for patterns in splits:
        ids = encoder.encode(_split_all(segments, patterns))
        if ids is not None and tuple(ids) not in seen:
            seen.add(tuple(ids))
            yield ids


def _segments(files: TokenizerFiles, text: str) -> Iterator[str | int]:
    """Text between added tokens, and the ids of these; the longest at the earliest place counts."""
    added = {token.content: token.id for token in files.added_tokens if token.content and token.content in text}
    if not added:
        yield text
        return
    pattern = re.compile("|".join(re.escape(content) for content in sorted(added, key=lambda item: -len(item))))
    position = 0
    for match in pattern.finditer(text):
        if match.start() > position:
            yield text[position : match.start()]
        yield added[match.group()]
        position = match.end()
    if position < len(text):
        yield text[position:]


def _split_all(segments: Sequence[str | int], patterns: Sequence[str]) -> list[str | int]:
    """Each expression splits what those before it left; what lies between matches is a piece as well."""
    pieces = list(segments)
    for pattern in patterns:
        compiled = _compiled(pattern)
        pieces = [part for piece in pieces for part in ([piece] if isinstance(piece, int) else _split(piece, compiled))]
    return pieces


def _split(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    position = 0
    for match in pattern.finditer(text):
        if match.end() == match.start():
            continue
        if match.start() > position:
            yield text[position : match.start()]
        yield match.group()
        position = match.end()
    if position < len(text):
        yield text[position:]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


class _Encoder:
    """Merges bytes to tokens as a checkpoint's vocabulary and merges say."""

    def __init__(self, files: TokenizerFiles) -> None:
        merges = files.merges
        self._ids = dict(files.vocabulary)
        self._ranks = dict(zip(reversed(merges), range(len(merges) - 1, -1, -1), strict=True))  # of equals the first
        self._whole_words = files.model.get("ignore_merges") is True
        self._known: dict[str, list[int] | None] = {}

    def encode(self, pieces: Sequence[str | int]) -> list[int] | None:
        """The ids of all pieces, None when one cannot be written in this vocabulary."""
        ids: list[int] = []
        for piece in pieces:
            found = [piece] if isinstance(piece, int) else self._piece(piece)
            if found is None:
                return None
            ids += found
        return ids

    def _piece(self, piece: str) -> list[int] | None:
        if piece not in self._known:
            self._known[piece] = self._merge("".join(BYTE_CHARS[byte] for byte in piece.encode()))
        return self._known[piece]

    def _merge(self, word: str) -> list[int] | None:
        parts = list(word)
        if self._whole_words and type(self._ids.get(word)) is int:
            parts = [word]
        while len(parts) > 1:
            ranked = [
                (rank, place)
                for place in range(len(parts) - 1)
                if (rank := self._ranks.get(f"{parts[place]} {parts[place + 1]}")) is not None
            ]
            if not ranked:
                break
            _, place = min(ranked)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        ids = [number for part in parts if type(number := self._ids.get(part)) is int]
        return ids if len(ids) == len(parts) else None


def _byte_chars() -> list[str]:
    """The alphabet of byte-level BPE: printable bytes stand for themselves, the others follow from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


BYTE_CHARS = _byte_chars()


# -- WordPiece ---------------------------------------------------------------------------------------------------------


def _wordpiece_ids(files: TokenizerFiles) -> Iterator[list[int]]:
    """BERT's way: normalized words and single punctuation marks, each from the left by the longest known part."""
    ids = {text: number for text, number in files.vocabulary if type(number) is int}
    unknown = ids.get(str(files.model.get("unk_token")))
    normalizer = files.part(files.document, "normalizer")
    words = _bert_words(pre_tokenizer_table().check_text, normalizer)
    pieces = [_word_ids(word, ids, unknown) for word in words]
    if all(piece is not None for piece in pieces):
        yield [number for piece in pieces if piece is not None for number in piece]


def _bert_words(text: str, normalizer: Mapping[str, object]) -> Iterator[str]:
    lower = normalizer.get("lowercase", True) is not False
    strip = normalizer.get("strip_accents")
    text = "".join(_cleaned(char) for char in text)
    if strip is True or (strip is None and lower):
        text = "".join(char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char) != "Mn")
    if lower:
        text = text.lower()
    for word in text.split():
        yield from _split(word, _punctuation())


def _cleaned(char: str) -> str:
    """Control characters go, blanks become one kind, Chinese characters stand alone."""
    if char in "\t\n\r" or unicodedata.category(char) == "Zs":
        return " "
    if unicodedata.category(char).startswith("C"):
        return ""
    return f" {char} " if "\u4e00" <= char <= "\u9fff" else char


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P") or (char.isascii() and char.isprintable() and not char.isalnum())


def _word_ids(word: str, ids: Mapping[str, int], unknown: int | None) -> list[int] | None:
    found: list[int] = []
    position = 0
    while position < len(word):
        for stop in range(len(word), position, -1):
            number = ids.get(("##" if position else "") + word[position:stop])
            if number is not None:
                break
        else:
            return None if unknown is None else [unknown]
        found.append(number)
        position = stop
    if len(word) > _WORD_LIMIT:
        return None if unknown is None else [unknown]
    return found


@cache
def _punctuation() -> re.Pattern[str]:
    marks = "".join(re.escape(chr(p)) for p in range(0x3000) if _is_punctuation(chr(p)) and p != 32)
    return re.compile(f"[{marks}～]")


# -- what stands around a text -----------------------------------------------------------------------------------------


def _completed(files: TokenizerFiles, ids: list[int]) -> Iterator[list[int]]:
    """With the tokens the post-processor adds; then as the configuration's flags say; then plain."""
    template = _template(files)
    if template is not None:
        before, after = template
        yield [*before, *ids, *after]
    flagged = [_flagged(files, kind) for kind in ("bos", "eos")]
    if any(flagged):
        yield [*flagged[0], *ids, *flagged[1]]
    yield ids


def _flagged(files: TokenizerFiles, kind: str) -> list[int]:
    """The token that the tokenizer's class adds at loading when the flag is set."""
    if files.config.get(f"add_{kind}_token") is not True:
        return []
    text = content_of(files.config.get(f"{kind}_token"))
    return [token.id for token in files.added_tokens if token.content == text][:1]


def _template(files: TokenizerFiles) -> tuple[list[int], list[int]] | None:
    processor = files.part(files.document, "post_processor")
    inner = processor.get("processors")
    for item in inner if isinstance(inner, list) else [processor]:
        if isinstance(item, dict) and item.get("type") == "TemplateProcessing":
            return _around(item)
        if isinstance(item, dict) and item.get("type") in ("BertProcessing", "RobertaProcessing"):
            first, last = (_pair_id(item.get(name)) for name in ("cls", "sep"))
            return first, last
    return None


def _pair_id(pair: object) -> list[int]:
    is_pair = isinstance(pair, list) and len(pair) == 2 and type(pair[1]) is int
    return [pair[1]] if is_pair and isinstance(pair, list) else []


def _around(processor: Mapping[str, object]) -> tuple[list[int], list[int]]:
    before: list[int] = []
    after: list[int] = []
    current = before
    single, tokens = processor.get("single"), processor.get("special_tokens")
    for item in single if isinstance(single, list) else ():
        if not isinstance(item, dict):
            continue
        if "Sequence" in item:
            current = after
        special = item.get("SpecialToken")
        name = special.get("id") if isinstance(special, dict) else None
        entry = tokens.get(name) if isinstance(tokens, dict) and isinstance(name, str) else None
        numbers = entry.get("ids") if isinstance(entry, dict) else None
        current += [number for number in numbers if type(number) is int] if isinstance(numbers, list) else []
    return before, after
