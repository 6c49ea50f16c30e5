"""Errors of templates, worded as Go and Ollama word them."""

from __future__ import annotations

from pathlib import Path

from modelbuild.errors import InputError, printable

#: What Ollama puts before the parser's text in its answer.
OLLAMA_PREFIX = "template error: "


class TemplateError(InputError):
    """A template that does not parse, or exceeds a limit.

    message: what is wrong, in Go's words. line, column: its place in the template's text, from 1, in characters.
    go_message: the text Go's parser gives for it, without Ollama's prefix; the line in it is always `line`.
    """

    def __init__(
        self,
        message: str,
        *,
        line: int,
        column: int,
        name: str = "",
        located: bool = True,
        path: Path | str | None = None,
        hint: str = "",
    ) -> None:
        super().__init__("TEMPLATE", message, path=path, hint=hint)
        self.line = line
        self.column = column
        self.go_message = f"template: {name}:{line}: {message}" if located else message

    @property
    def where(self) -> str:
        """File (or just "template"), line and column."""
        name = "template" if self.path is None else printable(str(self.path), 4096)
        return f"{name}:{self.line}:{self.column}"

    @property
    def ollama_message(self) -> str:
        """The error text of Ollama's create API for this template."""
        return OLLAMA_PREFIX + self.go_message

    def with_path(self, path: Path | str) -> TemplateError:
        """The same error, naming the file that holds the template."""
        error = TemplateError(self.message, line=self.line, column=self.column, path=path, hint=self.hint)
        error.go_message = self.go_message
        return error


class RenderError(InputError):
    """A template that parses and cannot be rendered with the given data."""

    def __init__(self, message: str, *, path: Path | str | None = None, hint: str = "") -> None:
        super().__init__("RENDER", message, path=path, hint=hint)
