"""A vocabulary on its way into a GGUF: texts, types and scores by id, with the rules every kind obeys."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import field
from pathlib import Path

from modelbuild.errors import InputError, printable
from modelbuild.formats.gguf.writer import KeyValue, f32_array, i32_array, strings
from modelbuild.records import record

#: Without these a file of some megabytes could ask for any amount of memory.
TOKEN_LIMIT = 4 << 20
TOKEN_LIMIT_BYTES = 64 << 10
_SPACE_MARK = "\u2581"


class TokenType(enum.IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@record(frozen=False)
class Vocabulary:
    """Tokens by id. `scores` is empty for kinds that have none."""

    path: Path | str
    texts: list[str] = field(default_factory=list)
    types: list[TokenType] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    @classmethod
    def of_placeholders(cls, path: Path | str, count: int, score: float | None = None) -> Vocabulary:
        """`count` unused tokens that can never be produced from text; `set` fills in the real ones."""
        if count > TOKEN_LIMIT:
            raise InputError("TOKENIZER", f"{count:,} tokens, at most {TOKEN_LIMIT:,} allowed", path=path)
        texts = [f"[PAD{number}]" for number in range(count)]
        scores = [] if score is None else [score] * count
        return cls(path, texts, [TokenType.UNUSED] * count, scores)

    def set(self, number: int, text: str, type_: TokenType, score: float | None = None) -> None:
        """Fill in a token; InputError TOKENIZER for an id that is out of range."""
        if not 0 <= number < len(self.texts):
            message = f"the token {printable(text)!r} has the id {number}, the model has {len(self.texts)} tokens"
            raise InputError("TOKENIZER", message, path=self.path)
        self.texts[number] = text
        self.types[number] = type_
        if score is not None:
            self.scores[number] = score

    def check(self) -> None:
        """InputError TOKENIZER for texts that stand twice or are too long, and scores that are no numbers."""
        seen: dict[str, int] = {}
        for number, text in enumerate(self.texts):
            if text in seen:
                message = f"the ids {seen[text]} and {number} have the same text {printable(text)!r}"
                raise InputError("TOKENIZER", message, path=self.path)
            seen[text] = number
            if len(text) > TOKEN_LIMIT_BYTES // 4 and len(text.encode("utf-8", "replace")) > TOKEN_LIMIT_BYTES:
                message = f"the token {number} has more than {TOKEN_LIMIT_BYTES:,} bytes"
                raise InputError("TOKENIZER", message, path=self.path)
        for number, score in enumerate(self.scores):
            if not math.isfinite(score):
                raise InputError("TOKENIZER", f"the score of token {number} is {score}", path=self.path)

    def keys(self) -> Iterable[KeyValue]:
        """Tokens, scores where there are some, and types."""
        self.check()
        yield strings("tokenizer.ggml.tokens", self.texts)
        if self.scores:
            yield f32_array("tokenizer.ggml.scores", self.scores)
        yield i32_array("tokenizer.ggml.token_type", self.types)


def looks_special(text: str) -> bool:
    """Added tokens that control the model although their file does not say so."""
    return (
        text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<\uff5c") and text.endswith("\uff5c>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


def set_added(vocabulary: Vocabulary, number: int, text: str, *, special: bool, score: float | None = None) -> None:
    """Fill in an added token: control when special, else user-defined with its blanks written as blanks."""
    if special or looks_special(text):
        vocabulary.set(number, text, TokenType.CONTROL, score)
    else:
        vocabulary.set(number, text.replace(_SPACE_MARK, " "), TokenType.USER_DEFINED, score)


def check_ids(ids: Sequence[tuple[str, object]], path: Path | str) -> dict[int, str]:
    """Text by id; InputError TOKENIZER for ids that are no numbers, negative, or stand twice."""
    texts: dict[int, str] = {}
    for text, number in ids:
        if type(number) is not int or number < 0:
            message = f"the token {printable(text)!r} has the id {printable(str(number), 40)}"
            raise InputError("TOKENIZER", message, path=path)
        if number in texts and texts[number] != text:
            message = f"the id {number} belongs to {printable(texts[number])!r} and {printable(text)!r}"
            raise InputError("TOKENIZER", message, path=path)
        texts[number] = text
    return texts
