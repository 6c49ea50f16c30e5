"""Regular expressions that cost nothing until they are used.

A command defines more than a hundred patterns before it does anything, and Python takes longer to compile one than to
load the module that it stands in. These compile when the first text is looked at, and are ordinary from then on.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast


def late_pattern(text: AnyStr, flags: re.RegexFlag | int = 0) -> re.Pattern[AnyStr]:
    """What `re.compile` gives, compiled by the first use of any of its methods."""
    return cast("re.Pattern[AnyStr]", LatePattern(text, flags))  # it has all attributes of a pattern


class LatePattern:
    """Takes over each attribute of the pattern when it is asked for, so that the next use finds it at once."""

    def __init__(self, text: str | bytes, flags: re.RegexFlag | int) -> None:
        self._text = text
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self._text, self._flags), name)  # which remembers what it has compiled
        setattr(self, name, found)
        return found
