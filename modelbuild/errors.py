"""Every error a user can meet, in one tree.

    ModelbuildError                 base: code, blame, exit status, optional hint
    ├── RecipeError                 a mistake in the recipe, with file, line and column     exit 2
    ├── UsageError                  a mistake on the command line                           exit 2
    ├── InputError                  a file that is not what it should be, with offset or key exit 1
    ├── UnsupportedError            a sound input that this version cannot handle           exit 1
    ├── StoreError                  the models directory or cache cannot be used            exit 1
    ├── SpaceError                  not enough room on disk                                 exit 1
    ├── DriftError                  something differs from what recipe.lock says                exit 4
    ├── RemoteError                 a registry that cannot be reached or refuses            exit 1
    ├── ChangedError                an input changed while it was being used                exit 1
    ├── WorkerError                 a worker process was killed again and again             exit 1
    └── Problems                    several of the above, shown together

Readers raise only `InputError`; code above them never catches built-in exceptions.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

#: Text quoted from an input is cut here, so that a hostile file cannot flood a terminal or a log.
QUOTED_TEXT_LIMIT = 120


class Blame(enum.Enum):
    """Whose fault an error is: it decides the wording and the exit status."""

    RECIPE = "recipe"
    INPUT = "input"
    ENVIRONMENT = "environment"
    INTERNAL = "internal"


class Position(NamedTuple):
    """A place in a text file; line and column count from 1, columns in characters."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


def printable(text: str, limit: int = QUOTED_TEXT_LIMIT) -> str:
    """Untrusted text made safe for a terminal: control and bidi characters escaped, length cut."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(_escape(char) if _is_unsafe(char) else char for char in shown)


def _is_unsafe(char: str) -> bool:
    point = ord(char)
    return (
        point < 0x20
        or 0x7F <= point <= 0x9F
        or 0x202A <= point <= 0x202E
        or 0x2066 <= point <= 0x2069
        or 0xD800 <= point <= 0xDFFF
    )


def _escape(char: str) -> str:
    return f"\\u{{{ord(char):x}}}"


class ModelbuildError(Exception):
    """An error with a stable code, and a hint that says what to type or edit next."""

    blame = Blame.INTERNAL
    exit_status = 1

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """The error as it is: `Exception` would make it from its message alone when a worker sends it."""
        return _remake, (type(self), self.args, self.__dict__)

    @property
    def where(self) -> str:
        """The place the error speaks of, or an empty string."""
        return ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text


def _remake(kind: type[ModelbuildError], args: tuple[object, ...], fields: dict[str, object]) -> ModelbuildError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class RecipeError(ModelbuildError):
    """A mistake in a recipe; `position` says where."""

    blame = Blame.RECIPE
    exit_status = 2

    def __init__(self, code: str, message: str, position: Position, *, hint: str = "") -> None:
        super().__init__(code, message, hint=hint)
        self.position = position

    @property
    def where(self) -> str:
        """File, line and column."""
        return str(self.position)


class UsageError(ModelbuildError):
    """A mistake on the command line or in a call of the Python API."""

    blame = Blame.RECIPE
    exit_status = 2


class InputError(ModelbuildError):
    """A file that is not what it should be.

    code: upper case and stable, e.g. TRUNCATED, MAGIC, SHAPE, TOKENIZER (docs/errors.md lists them).
    path: the file; offset: byte offset in it; key: the field, tensor or metadata key in question.
    """

    blame = Blame.INPUT

    def __init__(
        self,
        code: str,
        message: str,
        *,
        path: Path | str | None = None,
        offset: int | None = None,
        key: str | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(code, message, hint=hint)
        self.path = path
        self.offset = offset
        self.key = key

    @property
    def where(self) -> str:
        """File, offset and key, as far as they are known."""
        parts = [] if self.path is None else [printable(str(self.path), 4096)]
        if self.offset is not None:
            parts.append(f"offset {self.offset}")
        if self.key is not None:
            parts.append(printable(self.key))
        return ": ".join(parts)


class UnsupportedError(InputError):
    """A sound input that this version of modelbuild cannot handle."""


class StoreError(ModelbuildError):
    """The models directory or the cache cannot be used as it is."""

    blame = Blame.ENVIRONMENT


class SpaceError(StoreError):
    """The disk has too little room; the message holds the numbers where they are known."""


class RemoteError(ModelbuildError):
    """A registry cannot be reached, or does not give or take what it should."""

    blame = Blame.ENVIRONMENT


class ChangedError(ModelbuildError):
    """An input changed while it was being used, so the result was dropped."""

    blame = Blame.ENVIRONMENT


class WorkerError(ModelbuildError):
    """The process that ran an action was killed as often as it was tried, or there is none to run it."""

    blame = Blame.ENVIRONMENT


class DriftError(ModelbuildError):
    """An input or result is not what `recipe.lock` says."""

    blame = Blame.INPUT
    exit_status = 4


class Problems(ModelbuildError):
    """Several errors reported together, in the order of their positions."""

    blame = Blame.RECIPE

    def __init__(self, errors: Iterable[ModelbuildError]) -> None:
        distinct = {str(error): error for error in errors}  # several models may trip over one file
        self.errors = tuple(sorted(distinct.values(), key=_sort_key))
        self.exit_status = max(error.exit_status for error in self.errors)
        super().__init__("problems", "\n".join(str(error) for error in self.errors))


#: How many mistakes of a recipe are gathered before the search for more ends.
MISTAKES_LIMIT = 500


def _sort_key(error: ModelbuildError) -> tuple[str, int, int]:
    if isinstance(error, RecipeError):
        return (error.position.path, error.position.line, error.position.column)
    return ("\uffff" + error.where, 0, 0)


class ProblemCollector:
    """Gathers errors so that the user sees all of them at once."""

    def __init__(self, limit: int | None = None) -> None:
        """limit: of different errors; whoever makes more does not read them, and looking for hints takes time."""
        self.errors: list[ModelbuildError] = []
        self._limit = limit
        self._texts = set[str]()

    def add(self, error: ModelbuildError) -> None:
        """Remember one error and go on; raises `Problems` when there are more than the limit."""
        found = error.errors if isinstance(error, Problems) else (error,)
        self.errors.extend(found)
        if self._limit is None:
            return
        self._texts.update(map(str, found))
        if len(self._texts) > self._limit:
            self.errors.append(UsageError("LIMIT", "there are more mistakes than these"))
            self.finish()

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Run a block and remember the `ModelbuildError` it raises, if any."""
        try:
            yield
        except ModelbuildError as error:
            self.add(error)

    def finish(self) -> None:
        """Raise what was gathered: nothing, the single error itself, or `Problems`."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise Problems(self.errors)
