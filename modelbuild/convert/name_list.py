"""Lists of tensors for messages: names that differ only in their block or expert stand in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from modelbuild.late_pattern import late_pattern

#: Lines of a list. Real checkpoints have fewer kinds of tensors; without it a hostile one would flood a terminal.
_LINE_LIMIT = 100
#: Ranges of numbers in one line, for the same reason.
_RANGE_LIMIT = 20
#: The deepest place at which a name may have a number of its own.
_PLACES = 3
_NUMBER = late_pattern(r"(?<![^.\s])[0-9]{1,6}(?=[.:]|\Z)", re.ASCII)


def list_names(lines: Sequence[str], indent: str = "") -> list[str]:
    """The lines, those merged that differ in one number: `layers.{0-3,7}.up.weight`; more than 100 are cut."""
    merged = list(lines)
    for place in reversed(range(_PLACES)):
        merged = _merge(merged, place)
    more = [f"… and {len(merged) - _LINE_LIMIT} more"] if len(merged) > _LINE_LIMIT else []
    return [f"{indent}{line}" for line in (*merged[:_LINE_LIMIT], *more)]


def _merge(lines: Sequence[str], place: int) -> list[str]:
    """Lines that differ in their number at a place become one, where the first of them stood."""
    groups: dict[tuple[str, str], list[int]] = {}
    for line in lines:
        found = list(_NUMBER.finditer(line))
        if place < len(found):
            match = found[place]
            groups.setdefault((line[: match.start()], line[match.end() :]), []).append(int(match.group()))
        else:
            groups.setdefault((line, ""), [])
    return [f"{before}{_ranges(numbers)}{after}" for (before, after), numbers in groups.items()]


def _ranges(numbers: Sequence[int]) -> str:
    """0,1,2,5 → {0-2,5}; a single number stays as it is."""
    ordered = sorted(set(numbers))
    if len(ordered) < 2:
        return "".join(map(str, ordered))
    starts = [ordered[0], *(after for before, after in pairwise(ordered) if after != before + 1)]
    ends = [*(before for before, after in pairwise(ordered) if after != before + 1), ordered[-1]]
    shown = [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    more = ["…"] if len(shown) > _RANGE_LIMIT else []
    return "{" + ",".join((*shown[:_RANGE_LIMIT], *more)) + "}"
