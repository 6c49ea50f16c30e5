"""Template text → tokens, with the rules and error texts of Go's text/template.

Source: the documentation of Go's package text/template, and its behaviour (Go 1.26).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import NamedTuple

from modelbuild.late_pattern import late_pattern
from modelbuild.template.quoting import describe_char, quote

LEFT, RIGHT = "{{", "}}"
_SPACES = " \t\r\n"
_TERMINATORS = frozenset(" \t\r\n.,|:()")
_SPACE_RUN = late_pattern(r"[ \t\r\n]+")
_ASCII_WORD = late_pattern(r"[A-Za-z0-9_]*")
#: Where a quoted text or character constant ends: an unescaped quote; anything else is an error.
_QUOTED = late_pattern(r'"(?:[^"\\\n]|\\[^\n])*"', re.DOTALL)
_CHARACTER = late_pattern(r"'(?:[^'\\\n]|\\[^\n])*'", re.DOTALL)
_NUMBER = (
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?"
    r"|0[oO][0-7_]*(?:\.[0-7_]*)?"
    r"|0[bB][01_]*(?:\.[01_]*)?"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)i?"
)
_SHOWN_RUNES = 10


class TokenKind(enum.Enum):
    """What a token is; keywords have their own kind."""

    ERROR = "error"
    EOF = "end of text"
    TEXT = "text"
    LEFT_DELIMITER = "{{"
    RIGHT_DELIMITER = "}}"
    SPACE = "space"
    BOOL = "bool"
    CHAR = "punctuation"
    CHARACTER = "character constant"
    NUMBER = "number"
    COMPLEX = "complex number"
    STRING = "quoted text"
    RAW_STRING = "raw text"
    ASSIGN = "="
    DECLARE = ":="
    FIELD = "field"
    IDENTIFIER = "identifier"
    VARIABLE = "variable"
    LEFT_PAREN = "("
    RIGHT_PAREN = ")"
    PIPE = "|"
    DOT = "."
    NIL = "nil"
    BLOCK = "block"
    BREAK = "break"
    CONTINUE = "continue"
    DEFINE = "define"
    ELSE = "else"
    END = "end"
    IF = "if"
    RANGE = "range"
    TEMPLATE = "template"
    WITH = "with"


_KEYWORDS = {
    kind.value: kind
    for kind in (
        TokenKind.NIL, TokenKind.BLOCK, TokenKind.BREAK, TokenKind.CONTINUE, TokenKind.DEFINE, TokenKind.ELSE,
        TokenKind.END, TokenKind.IF, TokenKind.RANGE, TokenKind.TEMPLATE, TokenKind.WITH,
    )
}  # fmt: skip
_SHOWN_AS_KEYWORD = frozenset({*_KEYWORDS.values(), TokenKind.DOT})
_PUNCTUATION = {"=": TokenKind.ASSIGN, "|": TokenKind.PIPE}


class Token(NamedTuple):
    """One token. offset: where it starts, in characters from 0; line: that line, from 1. Of an error: its text."""

    kind: TokenKind
    value: str
    offset: int
    line: int

    def shown(self) -> str:
        """The token as Go's error texts quote it."""
        if self.kind is TokenKind.EOF:
            return "EOF"
        if self.kind is TokenKind.ERROR:
            return self.value
        if self.kind in _SHOWN_AS_KEYWORD:
            return f"<{self.value}>"
        if len(self.value.encode("utf-8", "replace")) > _SHOWN_RUNES:
            return quote(self.value[:_SHOWN_RUNES]) + "..."
        return quote(self.value)


class _LexicalError(Exception):
    """Ends the scan; its text becomes the last token."""


def tokenize(text: str) -> Iterator[Token]:
    """The tokens of a template in order; comments leave none. Ends after an EOF or ERROR token. Linear time."""
    return _Scanner(text).tokens()


class _Scanner:
    """A position in the text. start: where the current token began; line: the line of `counted`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.start = 0
        self._line = 1
        self._counted = 0
        self._parens = 0

    def tokens(self) -> Iterator[Token]:
        """All tokens; a lexical error is the last one."""
        try:
            while (found := self.text.find(LEFT, self.position)) >= 0:
                yield from self._text_before(found)
                if not self._skip_comment():
                    yield from self._action()
            if self.position < len(self.text):
                yield self._token(TokenKind.TEXT, len(self.text))
            self.start = self.position
            yield self._token(TokenKind.EOF, self.position)
        except _LexicalError as error:
            yield Token(TokenKind.ERROR, str(error), self.start, self._line_at(self.start))

    def _token(self, kind: TokenKind, end: int) -> Token:
        """The token from `start` to `end`; the next one starts there."""
        token = Token(kind, self.text[self.start : end], self.start, self._line_at(self.start))
        self.start = self.position = end
        return token

    def _line_at(self, offset: int) -> int:
        self._line += self.text.count("\n", self._counted, offset)
        self._counted = offset
        return self._line

    def _text_before(self, found: int) -> Iterator[Token]:
        """The text before an action, without the blanks that a trim marker removes."""
        end = found
        if self._has_left_marker(found + len(LEFT)):
            end = self.position + len(self.text[self.position : found].rstrip(_SPACES))
        if end > self.position:
            yield self._token(TokenKind.TEXT, end)
        self.start = self.position = found

    def _has_left_marker(self, at: int) -> bool:
        return self.text[at : at + 1] == "-" and self.text[at + 1 : at + 2] in tuple(_SPACES)

    def _skip_comment(self) -> bool:
        """Skip the comment at the position, with the blanks that its trim marker removes."""
        begin = self.position + len(LEFT)
        begin += 2 if self._has_left_marker(begin) else 0
        if not self.text.startswith("/*", begin):
            return False
        self.start = begin
        close = self.text.find("*/", begin + 2)
        if close < 0:
            raise _LexicalError("unclosed comment")
        self.position = close + 2
        if not self._at_right():
            raise _LexicalError("comment ends before closing delimiter")
        self._skip_right()
        return True

    def _at_right(self) -> bool:
        return self._has_right_marker() or self.text.startswith(RIGHT, self.position)

    def _has_right_marker(self) -> bool:
        at = self.position
        return self.text[at : at + 1] in tuple(_SPACES) and self.text.startswith("-" + RIGHT, at + 1)

    def _skip_right(self) -> None:
        """Go past the right delimiter and the blanks that its trim marker removes."""
        is_trimming = self._has_right_marker()
        self.position += len(RIGHT) + (2 if is_trimming else 0)
        if is_trimming and (run := _SPACE_RUN.match(self.text, self.position)):
            self.position = run.end()
        self.start = self.position

    def _action(self) -> Iterator[Token]:
        """The tokens of one action, delimiters included."""
        yield self._token(TokenKind.LEFT_DELIMITER, self.position + len(LEFT))
        if self._has_left_marker(self.position):
            self.start = self.position = self.position + 2
        self._parens = 0
        while not self._at_right():
            yield self._inside()
        if self._parens:
            raise _LexicalError("unclosed left paren")
        self.start = self.position + (2 if self._has_right_marker() else 0)
        token = Token(TokenKind.RIGHT_DELIMITER, RIGHT, self.start, self._line_at(self.start))
        self._skip_right()
        yield token

    def _inside(self) -> Token:
        """One token inside an action."""
        char = self.text[self.position : self.position + 1]
        if not char:
            raise _LexicalError("unclosed action")
        if char in _SPACES:
            return self._space()
        if char in _PUNCTUATION:
            return self._token(_PUNCTUATION[char], self.position + 1)
        if char in "\"'`":
            return self._quoted(char)
        if char == "$" or (char == "." and self._is_field()):
            return self._field_or_variable(char)
        if char in ".+-" or "0" <= char <= "9":
            return self._number()
        if _is_word_char(char):
            return self._word()
        return self._mark(char)

    def _mark(self, char: str) -> Token:
        if char == ":":
            if not self.text.startswith(":=", self.position):
                self.position += 1
                raise _LexicalError("expected :=")
            return self._token(TokenKind.DECLARE, self.position + 2)
        if char == "(":
            self._parens += 1
            return self._token(TokenKind.LEFT_PAREN, self.position + 1)
        if char == ")":
            self._parens -= 1
            if self._parens < 0:
                raise _LexicalError("unexpected right paren")
            return self._token(TokenKind.RIGHT_PAREN, self.position + 1)
        if " " <= char <= "~":
            return self._token(TokenKind.CHAR, self.position + 1)
        raise _LexicalError(f"unrecognized character in action: {describe_char(char)}")

    def _space(self) -> Token:
        """A run of blanks, without the last one if that belongs to a trim marker."""
        run = _SPACE_RUN.match(self.text, self.position)
        assert run is not None
        end = run.end()
        return self._token(TokenKind.SPACE, end - 1 if self.text.startswith("-" + RIGHT, end) else end)

    def _is_field(self) -> bool:
        following = self.text[self.position + 1 : self.position + 2]
        return bool(following) and not "0" <= following <= "9"

    def _word_end(self, at: int) -> int:
        """Where the letters, digits and underscores from a position on end."""
        while True:
            match = _ASCII_WORD.match(self.text, at)
            at = at if match is None else match.end()
            if at >= len(self.text) or not _is_word_char(self.text[at]):
                return at
            at += 1

    def _check_terminated(self, end: int) -> None:
        if end < len(self.text) and self.text[end] not in _TERMINATORS and not self.text.startswith(RIGHT, end):
            raise _LexicalError(f"bad character {describe_char(self.text[end])}")

    def _field_or_variable(self, char: str) -> Token:
        end = self._word_end(self.position + 1)
        self._check_terminated(end)
        if char == "." and end == self.position + 1:
            return self._token(TokenKind.DOT, end)
        return self._token(TokenKind.VARIABLE if char == "$" else TokenKind.FIELD, end)

    def _word(self) -> Token:
        end = self._word_end(self.position)
        self._check_terminated(end)
        word = self.text[self.position : end]
        if word in ("true", "false"):
            return self._token(TokenKind.BOOL, end)
        return self._token(_KEYWORDS.get(word, TokenKind.IDENTIFIER), end)

    def _quoted(self, mark: str) -> Token:
        if mark == "`":
            end = self.text.find("`", self.position + 1) + 1
            kind, what = TokenKind.RAW_STRING, "raw quoted string"
        else:
            match = (_QUOTED if mark == '"' else _CHARACTER).match(self.text, self.position)
            end = match.end() if match else 0
            is_text = mark == '"'
            kind, what = (TokenKind.STRING, "quoted string") if is_text else (TokenKind.CHARACTER, "character constant")
        if not end:
            raise _LexicalError(f"unterminated {what}")
        return self._token(kind, end)

    def _number(self) -> Token:
        end = self._number_end(self.position)
        if self.text[end : end + 1] not in ("+", "-"):
            return self._token(TokenKind.NUMBER, end)
        end = self._number_end(end)
        if self.text[end - 1] != "i":
            raise _LexicalError(f"bad number syntax: {quote(self.text[self.start : end])}")
        return self._token(TokenKind.COMPLEX, end)

    def _number_end(self, at: int) -> int:
        match = re.compile(_NUMBER).match(self.text, at)  # compiled at the first number, not at import
        end = at if match is None else match.end()
        if end < len(self.text) and _is_word_char(self.text[end]):
            raise _LexicalError(f"bad number syntax: {quote(self.text[self.start : end + 1])}")
        return end


def _is_word_char(char: str) -> bool:
    """Whether Go takes a character as a letter, a digit or an underscore."""
    return char == "_" or char.isalpha() or char.isdecimal()
