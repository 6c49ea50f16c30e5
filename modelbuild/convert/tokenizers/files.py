"""The tokenizer files of a checkpoint, each read at most once, their parts typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from modelbuild.convert.checkpoint import TOKENIZER_LIMIT_BYTES, Checkpoint
from modelbuild.errors import InputError, printable
from modelbuild.records import record

TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
_MERGE_LIMIT = 8 << 20


@record
class AddedToken:
    """A token outside the vocabulary proper."""

    id: int
    content: str
    special: bool
    normalized: bool


@dataclass(frozen=True)
class TokenizerFiles:
    """Access to tokenizer.json and its companions."""

    checkpoint: Checkpoint

    @property
    def path(self) -> Path | str:
        """tokenizer.json, or the checkpoint when there is none."""
        return self.checkpoint.files.get(TOKENIZER_JSON, self.checkpoint.origin)

    @cached_property
    def document(self) -> Mapping[str, object]:
        """tokenizer.json; empty when it is missing."""
        return self.checkpoint.read_object(TOKENIZER_JSON, TOKENIZER_LIMIT_BYTES)

    @cached_property
    def config(self) -> Mapping[str, object]:
        """tokenizer_config.json; empty when it is missing."""
        return self.checkpoint.read_object(TOKENIZER_CONFIG, nonfinite=True)

    @cached_property
    def special_tokens_map(self) -> Mapping[str, object]:
        """special_tokens_map.json; empty when it is missing."""
        return self.checkpoint.read_object(SPECIAL_TOKENS_MAP)

    @cached_property
    def model(self) -> Mapping[str, object]:
        """The model of tokenizer.json."""
        return self.part(self.document, "model")

    @property
    def model_type(self) -> str:
        """BPE, WordPiece, Unigram, ...; empty when there is no tokenizer.json. Old files leave BPE out."""
        kind = self.model.get("type")
        if kind is None and "merges" in self.model:
            return "BPE"
        return kind if isinstance(kind, str) else ""

    @cached_property
    def added_tokens(self) -> Sequence[AddedToken]:
        """The added tokens of tokenizer.json in its order; InputError TOKENIZER for a malformed one."""
        items = self.document.get("added_tokens", [])
        if not isinstance(items, list):
            raise self.error("added_tokens", "a list is expected")
        return [self._added(item) for item in items]

    @cached_property
    def vocabulary(self) -> Sequence[tuple[str, object]]:
        """Text and id of the vocabulary proper, in the order of the file."""
        items = self.model.get("vocab")
        if not isinstance(items, dict):
            raise self.error("model.vocab", "an object of ids is expected")
        return list(items.items())

    @cached_property
    def merges(self) -> list[str]:
        """`left right` each; a blank inside a part is written as the byte alphabet does.

        From tokenizer.json, else merges.txt; empty when neither has some. InputError TOKENIZER for a malformed merge.
        """
        items = self.model.get("merges")
        if items:
            if not isinstance(items, list):
                raise self.error("model.merges", "a list is expected")
            if len(items) > _MERGE_LIMIT:
                raise self.error("model.merges", f"{len(items):,} merges, at most {_MERGE_LIMIT:,} allowed")
            if all(type(item) is str and item.count(" ") == 1 and item[0] != " " != item[-1] for item in items):
                return items  # a quarter of a million of them: the common form must not cost a call each
            return [self._merge(item) for item in items]
        return self._text_merges() if self.checkpoint.has("merges.txt") else []

    def part(self, parent: Mapping[str, object], name: str) -> Mapping[str, object]:
        """An object below a key; empty when it is missing or null."""
        value = parent.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(name, "an object is expected")
        return value

    def error(self, key: str, message: str, hint: str = "") -> InputError:
        """An error that names tokenizer.json and a key in it."""
        return InputError("TOKENIZER", message, path=self.path, key=key, hint=hint)

    def _added(self, item: object) -> AddedToken:
        if isinstance(item, dict):
            number, content = item.get("id"), item.get("content")
            if type(number) is int and isinstance(content, str) and number >= 0:
                return AddedToken(number, content, item.get("special") is True, item.get("normalized") is True)
        raise self.error("added_tokens", f"a token with id and content is expected, found {printable(str(item))}")

    def _merge(self, item: object) -> str:
        parts = item.split(" ") if isinstance(item, str) else item
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
            raise self.error(
                "model.merges",
                "could not parse tokenizer merges. expected []string or [][]string: two parts, "
                f"found {printable(str(item))}",
            )
        left, right = parts
        return f"{left} {right}" if " " not in left + right else f"{_blank_as_byte(left)} {_blank_as_byte(right)}"

    def _text_merges(self) -> list[str]:
        lines = self.checkpoint.read_lines("merges.txt")
        if lines and lines[0].startswith("#"):
            lines = lines[1:]
        pairs = (line.split() for line in lines)
        return [f"{pair[0]} {pair[1]}" for pair in pairs if len(pair) == 2]


def _blank_as_byte(part: str) -> str:
    return part.replace(" ", chr(ord(" ") + 256))


def content_of(entry: object) -> str | None:
    """The text of a special token, which files give plainly or as an object."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None
