"""Modelfiles: text to commands and back, in Ollama's grammar, encodings and error texts.

Source: behaviour of Ollama's Modelfile parser, August 2026, measured.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from modelbuild.errors import InputError, printable
from modelbuild.late_pattern import late_pattern
from modelbuild.records import record
from modelbuild.similar_names import similar_names

#: A Modelfile with a long licence has some hundred kilobytes.
SIZE_LIMIT_BYTES = 4 << 20
#: No model has thousands of messages or licences; each costs a layer or memory.
COMMAND_LIMIT = 20_000
COMMANDS = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
ROLES = ("system", "user", "assistant")

_BAD_COMMAND = "command must be one of " + ", ".join(f'"{name}"' for name in COMMANDS[:-1]) + f', or "{COMMANDS[-1]}"'
_BAD_ROLE = 'message role must be one of "system", "user", or "assistant"'
_UNEXPECTED_END = "unexpected EOF"
_BLANKS = late_pattern(r"[ \t\r\n]*")
_COMMENT = late_pattern(r"#[^\r\n]*")
_WORD = late_pattern(r"[^ \t\r\n#]?[A-Za-z]*", re.ASCII)
_PARAMETER_NAME = late_pattern(r"[A-Za-z0-9_]*", re.ASCII)
_ROLE = late_pattern(r"[A-Za-z]*", re.ASCII)
_VALUE_BLANKS = late_pattern(r"[ \t]*")
_LINE = late_pattern(r"[^\r\n]*")
_CLOSING = {quote: late_pattern(quote + r"[ \t]*(?=[\r\n]|\Z)") for quote in ('"', '"""')}
_NEWLINE = late_pattern(r"[\r\n]")


class ModelfileError(InputError):
    """A Modelfile that cannot be read; the message is Ollama's text. line and column count from 1."""

    def __init__(self, message: str, *, path: Path | str, line: int, column: int, hint: str = "") -> None:
        super().__init__("MODELFILE", message, path=path, hint=hint)
        self.line = line
        self.column = column

    @property
    def where(self) -> str:
        """File, line and column."""
        return f"{printable(str(self.path), 4096)}:{self.line}:{self.column}"


@record
class Command:
    """One command.

    name: its word in lower case. argument: its value, for a message without the role. key: the name of a parameter
    or the role of a message, else empty. line, column: where the value begins. inner: how many columns behind that the
    argument stands as it is; -1 when something was dropped from it.
    """

    name: str
    argument: str
    key: str = ""
    line: int = 1
    column: int = 1
    inner: int = -1


def parse_modelfile(data: bytes, path: Path | str) -> tuple[Command, ...]:
    """The commands of a Modelfile in order; ModelfileError or InputError LIMIT otherwise.

    data: UTF-8, or UTF-8 or UTF-16 with a byte order mark; broken characters become U+FFFD.
    """
    if len(data) > SIZE_LIMIT_BYTES:
        raise InputError("LIMIT", f"{len(data):,} bytes, at most {SIZE_LIMIT_BYTES:,} allowed", path=path)
    commands = tuple(itertools.islice(_Parser(_decode(data), path).commands(), COMMAND_LIMIT + 1))
    if len(commands) > COMMAND_LIMIT:
        raise InputError("LIMIT", f"more than {COMMAND_LIMIT:,} commands", path=path)
    if not any(command.name == "from" for command in commands):
        raise ModelfileError("no FROM line", path=path, line=1, column=1, hint="name the base model: FROM NAME or PATH")
    return commands


def _decode(data: bytes) -> str:
    marks = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
    for mark, encoding in marks.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    return data.decode("utf-8", "replace")


class _Parser:
    """Reads one command after the other; every method leaves `_at` behind what it read."""

    def __init__(self, text: str, path: Path | str) -> None:
        self._text = text
        self._path = path
        self._at = 0
        self._line = 1
        self._line_start = 0
        self._is_clean = _NEWLINE.sub("", text).replace("\t", "").isprintable()

    def commands(self) -> Iterator[Command]:
        while True:
            self._skip(_BLANKS)
            if self._text.startswith("#", self._at):
                self._skip(_COMMENT)
            elif self._at >= len(self._text):
                return
            else:
                yield self._command()

    def _command(self) -> Command:
        column, key = self._at - self._line_start + 1, ""
        word = _printable_only(self._skip(_WORD)).lower()  # so that a stray control character may stand before a word
        self._check_word(word, column)
        self._at += 1
        if word == "parameter":
            key = self._name(_PARAMETER_NAME)
        elif word == "message":
            key = self._name(_ROLE)
            if key not in ROLES:
                raise self._error(f"(line {self._line}): {_BAD_ROLE}")
        if word in ("parameter", "message"):
            self._at += 1
        return self._value(Command(word, "", key))

    def _check_word(self, word: str, column: int) -> None:
        """A command's word has to be known and followed by a blank; a newline counts as the next line."""
        after = self._text[self._at : self._at + 1]
        if not after:
            raise self._error(_UNEXPECTED_END)
        if after not in " \t" or word not in COMMANDS:
            line = self._line + (after in "\r\n")
            near = similar_names(word, COMMANDS, n=1)
            hint = (
                f"did you mean {near[0].upper()}?" if near and word not in COMMANDS else "a value follows the command"
            )
            message = f"(line {line}): {_BAD_COMMAND}"
            raise ModelfileError(message, path=self._path, line=self._line, column=column, hint=hint)

    def _name(self, pattern: re.Pattern[str]) -> str:
        """The name of a parameter or a role, which a blank has to follow."""
        name = self._skip(pattern)
        after = self._text[self._at : self._at + 1]
        if not after:
            raise self._error(_UNEXPECTED_END)
        if after not in " \t":
            raise self._error(f"{_UNEXPECTED_END}: {name}")
        return name

    def _value(self, command: Command) -> Command:
        """The command with its value, which ends with its line, or with the line that closes its quotes."""
        self._skip(_VALUE_BLANKS)
        start, line, column = self._at, self._line, self._at - self._line_start + 1
        first = _LINE.match(self._text, self._at)
        head = _printable_only("" if first is None else first[0]).strip()
        quote = '"""' if head.startswith('"""') else '"' if head.startswith('"') else ""
        if not quote:
            self._skip(_LINE)
            return replace(command, argument=head, line=line, column=column, inner=self._inner(start, "", head))
        end = self._closing(quote)
        if end is None:
            hint = f"close the value with {quote} at the end of a line"
            raise ModelfileError(_UNEXPECTED_END, path=self._path, line=line, column=column, hint=hint)
        value = _printable_only(self._text[self._at : end]).strip()
        self._pass(self._text[self._at : end])
        value = value[len(quote) : -len(quote)]
        return replace(command, argument=value, line=line, column=column, inner=self._inner(start, quote, value))

    def _inner(self, start: int, quote: str, value: str) -> int:
        is_verbatim = "\r" not in value and self._text.startswith(value, start + len(quote))
        return len(quote) if is_verbatim else -1

    def _closing(self, quote: str) -> int | None:
        """Where the first line ends that closes the quotes which open here; None when none does."""
        if not self._is_clean:
            return self._closing_in_lines(quote)
        for match in _CLOSING[quote].finditer(self._text, self._at):
            if match.start() >= self._at + len(quote):
                return match.end()
        return None

    def _closing_in_lines(self, quote: str) -> int | None:
        """The same, line by line, where characters that do not count may stand behind the quotes."""
        length = 0  # of the value so far
        for match in _LINE.finditer(self._text, self._at):
            kept = _printable_only(match[0]).rstrip()
            length += len(kept if length else kept.lstrip())
            if kept.endswith(quote) and length >= 2 * len(quote):
                return match.end()
            length += 1
        return None

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        skipped = "" if match is None else match[0]
        self._pass(skipped)
        return skipped

    def _pass(self, text: str) -> None:
        """Go on behind a piece of text; each newline character counts, so CRLF counts two."""
        if "\n" in text or "\r" in text:
            last = 0
            for newline in _NEWLINE.finditer(text):
                self._line += 1
                last = newline.end()
            self._line_start = self._at + last
        self._at += len(text)

    def _error(self, message: str) -> ModelfileError:
        column = self._at - self._line_start + 1
        return ModelfileError(message, path=self._path, line=self._line, column=column)


def _printable_only(text: str) -> str:
    """The text without characters that are neither printable nor a tab or newline, as Ollama drops them."""
    if text.isprintable():
        return text
    return "".join(char for char in text if char in "\t\r\n" or char.isprintable())


def format_modelfile(commands: Sequence[Command]) -> str:
    """The commands as text, one after the other, quoted where they have to be."""
    return "".join(f"{_format_command(command)}\n" for command in commands)


def _format_command(command: Command) -> str:
    key = f" {command.key}" if command.key else ""
    return f"{command.name.upper()}{key} {quote_value(command.argument)}"


def quote_value(value: str) -> str:
    """A value as it stands in a Modelfile; some (with quotes at line ends) cannot be written, see `survives`."""
    if value == value.strip() and "\n" not in value and "\r" not in value and not value.startswith('"') and value:
        return value
    return f'"""{value}"""' if '"' in value else f'"{value}"'


def survives(command: Command) -> bool:
    """Does a command read back as it was written?"""
    data = format_modelfile((Command("from", "x"), command)).encode("utf-8", "surrogatepass")
    try:
        read = parse_modelfile(data, "")
    except InputError:
        return False
    return [(item.name, item.key, item.argument) for item in read[1:]] == [
        (command.name, command.key, command.argument)
    ]
