"""Special tokens: which ids they have, and which of them the runtime adds to a text.

Ids come from tokenizer_config.json by the token's text, then from config.json. What is added comes from the
post-processor of tokenizer.json, then from tokenizer_config.json. Source: SpecialVocab of gguf-py in llama.cpp
(October 2026).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from modelbuild.convert.tokenizers.files import TokenizerFiles, content_of
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import KeyValue, boolean, u32
from modelbuild.records import record

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
#: Kinds without an entry have no key: a classifier token serves as the one at the beginning.
_ID_NAMES = {
    "bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask", "eot": "eot",
    "eom": "eom", "fim_pre": "fim_pre", "fim_suf": "fim_suf", "fim_mid": "fim_mid", "fim_pad": "fim_pad",
    "fim_rep": "fim_rep", "fim_sep": "fim_sep",
}  # fmt: skip
_FLAG_KINDS = ("bos", "eos", "sep")


@record(frozen=False)
class SpecialTokens:
    """ids and flags by kind, in the order in which they are written.

    lowercase, strip_accents: what the tokenizer does to texts first; None when its files do not say.
    """

    ids: dict[str, int] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    lowercase: bool | None = None
    strip_accents: bool | None = None

    def normalizer_keys(self) -> Iterable[KeyValue]:
        """What becomes of texts; for WordPiece, the runtime lower-cases and takes accents off unless told otherwise."""
        if self.lowercase is not None:
            yield boolean("tokenizer.ggml.normalizer.lowercase", self.lowercase)
        if self.strip_accents is not None:
            yield boolean("tokenizer.ggml.normalizer.strip_accents", self.strip_accents)

    def keys(self) -> Iterable[KeyValue]:
        """Ids, then flags."""
        for kind, number in self.ids.items():
            if kind in _ID_NAMES:
                yield u32(special_id_key(kind), number)
        for kind, value in self.flags.items():
            if kind in _FLAG_KINDS:
                yield boolean(f"tokenizer.ggml.add_{kind}_token", value)


def special_id_key(kind: str) -> str:
    """The key that holds the id of a kind of token."""
    return f"tokenizer.ggml.{_ID_NAMES[kind]}_token_id"


def read_special_tokens(
    files: TokenizerFiles,
    config: Mapping[str, object],
    count: int,
    kinds: Sequence[str] = KINDS,
    *,
    skip_beyond: bool = False,
) -> SpecialTokens:
    """The special tokens of a model with `count` tokens.

    InputError TOKENIZER for an id that is out of range, which with skip_beyond is left out instead.
    """
    reader = _Reader(files, count, list(kinds), skip_beyond=skip_beyond)
    reader.read_normalizer(files.part(files.document, "normalizer"))
    reader.read_post_processor()
    if files.config:
        reader.read_tokenizer_config()
    reader.read_config(config)
    return reader.found


class _Reader:
    """Collects; the order of assignments is the order of keys in the result."""

    def __init__(self, files: TokenizerFiles, count: int, kinds: list[str], *, skip_beyond: bool) -> None:
        self._files = files
        self._skip_beyond = skip_beyond
        self._count = count
        self._kinds = kinds
        self.found = SpecialTokens()
        self._texts = {kind: content_of(files.config.get(f"{kind}_token")) for kind in kinds}
        #: Kinds whose token is an object in the file: the reference takes none of them for the one in a template.
        self._objects = {kind for kind in kinds if isinstance(files.config.get(f"{kind}_token"), dict)}

    def read_normalizer(self, normalizer: Mapping[str, object], depth: int = 0) -> None:
        """Does the tokenizer lower-case its input, and take accents off?"""
        kind = normalizer.get("type")
        if kind == "Lowercase":
            self.found.lowercase = True
        elif kind == "StripAccents":
            self.found.strip_accents = True
        elif kind == "BertNormalizer":
            lower, strip = normalizer.get("lowercase"), normalizer.get("strip_accents")
            self.found.lowercase = lower if isinstance(lower, bool) else self.found.lowercase
            self.found.strip_accents = strip if isinstance(strip, bool) else self.found.strip_accents
        inner = normalizer.get("normalizers")
        if kind == "Sequence" and isinstance(inner, list) and depth < 8:
            for item in inner:
                if isinstance(item, dict):
                    self.read_normalizer(item, depth + 1)

    def read_post_processor(self) -> None:
        """Which tokens the tokenizer puts around a text."""
        if not self._files.document:
            return
        if self._files.config:  # BERT's tokenizer calls its first and last token by other names
            self._take("bos", "cls")
            self._take("eos", "sep")
        processor = self._files.part(self._files.document, "post_processor")
        inner = processor.get("processors")
        for item in inner if isinstance(inner, list) else [processor]:
            if isinstance(item, dict):
                self._read_processor(item)

    def _take(self, kind: str, other: str) -> None:
        if not self._texts.get(kind):
            self._texts[kind] = self._texts.get(other)
            if other in self._objects:
                self._objects.add(kind)

    def _is(self, token: str | None, *kinds: str) -> bool:
        return token is not None and any(self._texts.get(kind) == token and kind not in self._objects for kind in kinds)

    def _read_processor(self, processor: Mapping[str, object]) -> None:
        kind = processor.get("type")
        flags = self.found.flags
        if kind == "RobertaProcessing":
            flags.update(bos=True, eos=True, sep=True)
            for name in ("cls", "sep"):
                pair = processor.get(name)
                if not self._texts.get(name) and isinstance(pair, list) and pair and isinstance(pair[0], str):
                    self._texts[name] = pair[0]
        elif kind == "ByteLevel":
            flags.setdefault("bos", False)
            flags.setdefault("eos", False)
        elif kind == "TemplateProcessing":
            self._read_template(_pieces(processor.get("single")), _pieces(processor.get("pair")))

    def _read_template(self, single: list[_Piece], pair: list[_Piece]) -> None:
        first = single[0].special if len(single) > 1 else None
        last = single[-1].special if len(single) > 1 else None
        if first:
            self._read_first(first)
        if last:
            self._read_last(last)
        if pair:
            self._read_pair(pair, first, last)

    def _read_first(self, first: str) -> None:
        """A first token that has no name yet gets those that are free."""
        texts = self._texts
        if not self._files.config:
            texts["bos"] = first
        elif not self._is(first, "bos", "cls"):
            for kind in ("bos", "cls"):
                texts[kind] = texts.get(kind) or first
        self.found.flags["bos"] = self._is(first, "bos", "cls")

    def _read_last(self, last: str) -> None:
        """A last token that is not the configured end takes its place; the configured one ends a turn."""
        configured = self._texts.get("eos")
        if self._files.config and configured and not self._is(last, "eos"):
            for kind in ("eot", "eom"):
                if kind not in self._kinds:
                    self._kinds.append(kind)
                    self._texts[kind] = configured
                    break
        self._texts["eos"] = last
        self._objects.discard("eos")
        self.found.flags["eos"] = True

    def _read_pair(self, pair: list[_Piece], first: str | None, last: str | None) -> None:
        """Is there a separator of its own between two texts?"""
        if first and pair[0].special == first:
            pair = pair[1:]
        if last and pair and pair[-1].special == last:
            pair = pair[:-1]
        if not pair or pair[0].sequence != "A" or pair[-1].sequence != "B":
            return
        middle = pair[1:-1]
        if not middle:
            return
        add = self._is(middle[0].special, "sep", "eos") and not last
        if len(middle) == 2 and self._is(middle[1].special, "sep", "eos"):
            add = True
        self.found.flags["sep"] = add
        if add and not self._texts.get("sep"):
            self._texts["sep"] = self._texts.get("eos")

    def read_tokenizer_config(self) -> None:
        """Flags the post-processor left open, and ids by the tokens' texts."""
        ids: dict[str, int] = {}
        for token in self._files.added_tokens:
            ids.setdefault(token.content, token.id)
        for kind in self._kinds:
            flag = self._files.config.get(f"add_{kind}_token")
            if isinstance(flag, bool):
                self.found.flags.setdefault(kind, flag)
            text = self._texts.get(kind)
            if text is not None and text in ids:
                self._set(kind, ids[text], "tokenizer.json")

    def read_config(self, config: Mapping[str, object]) -> None:
        """Ids by number, for kinds that are still open."""
        text_config = config.get("text_config")
        inner = text_config if isinstance(text_config, dict) else {}
        for kind in self._kinds:
            key = f"{kind}_token_id"
            number = config.get(key)
            number = inner.get(key) if number is None else number
            if type(number) is int and kind not in self.found.ids:
                self._set(kind, number, "config.json")

    def _set(self, kind: str, number: int, file: str) -> None:
        if number == -1 or (self._skip_beyond and number >= self._count):  # -1: how some spell that there is none
            return
        if not 0 <= number < self._count:
            message = f"the {kind} token has the id {number}, the model has {self._count} tokens"
            path = self._files.checkpoint.files.get(file, self._files.checkpoint.origin)
            raise InputError("TOKENIZER", message, path=path, key=f"{kind}_token_id")
        self.found.ids.setdefault(kind, number)


@record
class _Piece:
    """A place in a template: a special token by its text, or one of the two sequences."""

    special: str | None
    sequence: str | None


def _pieces(template: object) -> list[_Piece]:
    if not isinstance(template, list):
        return []
    return [_Piece(_id(item, "SpecialToken"), _id(item, "Sequence")) for item in template]


def _id(item: object, kind: str) -> str | None:
    inner = item.get(kind) if isinstance(item, dict) else None
    name = inner.get("id") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else None
