r"""Regular expressions mean the same in every release of Python from 3.11 on.

Before 3.11.5 a possessive repetition of a group (`(?:ab?c)*+`) goes on behind what its last, failing turn has used up.
With an empty alternative at its end (`(?:ab?c|)*+`) the last turn never fails.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest

import modelbuild
from modelbuild.errors import InputError
from modelbuild.late_pattern import LatePattern
from modelbuild.recipe.go_scan import find_value

_parser: Any = re._parser  # type: ignore[attr-defined]
_SINGLE = (re._constants.IN, re._constants.ANY, re._constants.LITERAL, re._constants.NOT_LITERAL)  # type: ignore[attr-defined]


def _patterns() -> Iterator[tuple[str, Any]]:
    for found in pkgutil.walk_packages(modelbuild.__path__, "modelbuild."):
        if found.name.endswith((".__main__", ".build", "._native")):
            continue
        try:
            module = importlib.import_module(found.name)
        except ModuleNotFoundError:  # an extra that is not installed
            continue
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern | LatePattern):
                yield f"{found.name}.{name}", value


def _repetitions(parsed: Any) -> Iterator[Any]:
    """What is repeated possessively, a varying number of times, and is more than one character."""
    for operation, argument in parsed:
        if operation is re._constants.POSSESSIVE_REPEAT:  # type: ignore[attr-defined]
            least, most, body = argument
            if least != most and not (len(body) == 1 and body[0][0] in _SINGLE):
                yield body
        yield from _nested(argument)


def _nested(argument: Any) -> Iterator[Any]:
    if isinstance(argument, _parser.SubPattern):
        yield from _repetitions(argument)
    elif isinstance(argument, tuple | list):
        for item in argument:
            yield from _nested(item)


def _may_be_empty(body: Any) -> bool:
    """Is this alternatives of which the last is empty?"""
    return len(body) == 1 and body[0][0] is re._constants.BRANCH and not body[0][1][1][-1]  # type: ignore[attr-defined]


def test_possessive_repetitions_of_groups_cannot_fail() -> None:
    """Each has an empty alternative in the end."""
    found = {name: list(_repetitions(_parser.parse(pattern.pattern, pattern.flags))) for name, pattern in _patterns()}

    assert len([name for name, bodies in found.items() if bodies]) > 4
    assert [] == [name for name, bodies in found.items() if not all(map(_may_be_empty, bodies))]


@pytest.mark.parametrize("text", [b'{"a":{"b":[1]},"c":[{"d":"e"},{"f":[]},2]}', b'{"a":"b","c":{"d":1,"e":{}}}'])
def test_entries_that_are_not_plain_are_looked_at_from_their_start(text: bytes) -> None:
    """A run of plain entries ends before the first one that is not, however far that one seemed plain."""
    assert slice(0, len(text)) == find_value(text)


@pytest.mark.parametrize("text", [rb'{"a":"\u"}', rb'{"a":"\u12"}', rb'["b\x"]'])
def test_escapes_that_break_off_are_no_text(text: bytes) -> None:
    """A text does not end behind half of an escape."""
    with pytest.raises(InputError, match="invalid character"):
        find_value(text)
