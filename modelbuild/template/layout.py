"""Go's fmt.Sprintf: a layout with directives, its arguments in order or by index."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelbuild.late_pattern import late_pattern
from modelbuild.template.formatting import Directive, format_value
from modelbuild.template.values import NO_VALUE, type_name, unwrap

#: Go refuses a larger width or precision.
_MAX_WIDTH = 1_000_000
_MAX_DIGITS = 6
_DIRECTIVE = late_pattern(
    r"%(?P<flags>[-+# 0]*)(?:\[(?P<width_index>[^\]]*)\])?(?P<width>\*|[0-9]+)?"
    r"(?P<dot>\.(?:\[(?P<precision_index>[^\]]*)\])?(?P<precision>\*|[0-9]*))?(?:\[(?P<index>[^\]]*)\])?(?P<verb>.?)",
    re.DOTALL,
)


class _Arguments:
    """The arguments of one Sprintf, read in order or by index."""

    def __init__(self, values: Sequence[object]) -> None:
        self.values = values
        self.position = 0
        self.is_reordered = False

    def choose(self, index: str | None) -> bool:
        """Go to an argument by its number from 1; False when there is none."""
        if index is None:
            return True
        self.is_reordered = True
        if not index.isascii() or not index.isdecimal() or not 1 <= int(index[:8]) <= len(self.values):
            return False
        self.position = int(index) - 1
        return True

    def take(self) -> object:
        """The next argument; the class itself when there is none left."""
        if self.position >= len(self.values):
            return _Arguments
        self.position += 1
        return unwrap(self.values[self.position - 1])

    def take_number(self) -> int | None:
        """The next argument as a width; None when it is none."""
        value = self.take()
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        return value if -_MAX_WIDTH <= value <= _MAX_WIDTH else None


def sprintf(layout: str, values: Sequence[object]) -> str:
    """A text with its directives replaced by the values, with Go's notes on wrong or missing ones."""
    arguments = _Arguments(values)
    parts: list[str] = []
    position = 0
    while (found := layout.find("%", position)) >= 0:
        parts.append(layout[position:found])
        match = _DIRECTIVE.match(layout, found)
        assert match is not None
        if any(len(digits.lstrip("0")) > _MAX_DIGITS for digits in (match["width"] or "", match["precision"] or "")):
            parts.append("%!(NOVERB)")
            position = len(layout)
            break
        parts.append(_replaced(match, arguments))
        position = match.end()
    parts.append(layout[position:])
    if not arguments.is_reordered and arguments.position < len(values):
        rest = map(unwrap, values[arguments.position :])
        shown = ("<nil>" if value is NO_VALUE else f"{type_name(value)}={format_value(value)}" for value in rest)
        parts.append(f"%!(EXTRA {', '.join(shown)})")
    return "".join(parts)


def _replaced(match: re.Match[str], arguments: _Arguments) -> str:
    """What stands in the output for one directive."""
    notes: list[str] = []
    flags = match["flags"]
    is_good = arguments.choose(match["width_index"])
    is_star = match["width"] == "*"
    if match["width_index"] is not None and not is_star and (match["width"] or match["dot"]):
        is_good = False  # an index stands before a star or the verb
    width = _measure(match["width"], arguments, notes, "%!(BADWIDTH)")
    if width is not None and width < 0:
        flags, width = flags + "-", -width
    is_good = arguments.choose(match["precision_index"]) and is_good
    precision = _measure(match["precision"] or ("0" if match["dot"] else None), arguments, notes, "%!(BADPREC)")
    if precision is not None and precision < 0:
        precision = None
        notes.append("%!(BADPREC)")
    is_good = arguments.choose(match["index"]) and is_good
    note = "".join(notes)
    verb = match["verb"]
    if not verb or verb == "%":
        return note + (verb or "%!(NOVERB)")
    if not is_good:
        return f"{note}%!{verb}(BADINDEX)"
    value = arguments.take()
    if value is _Arguments:
        return f"{note}%!{verb}(MISSING)"
    flags = flags.replace("+", "P").replace("#", "S") if verb == "v" else flags
    return note + format_value(value, Directive(verb, flags, width, precision))


def _measure(text: str | None, arguments: _Arguments, notes: list[str], complaint: str) -> int | None:
    """A width or precision: written out, taken from the arguments, or none."""
    if text is None:
        return None
    number = arguments.take_number() if text == "*" else int(text)
    if number is None:
        notes.append(complaint)
    return number
