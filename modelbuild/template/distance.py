"""Edit distance of two texts, bounded.

Source: G. Myers, "A fast bit-vector algorithm for approximate string matching based on dynamic programming" (1999),
in the form that H. Hyyrö gave it for the global distance (2003).
"""

from __future__ import annotations

from collections import Counter


def edit_distance(first: str, second: str, limit: int) -> int | None:
    """The least number of inserted, deleted and replaced characters between two texts; None if it is `limit` or more.

    Characters are code points. A whole row of the distance matrix is one integer, two bits a cell, so that a row costs
    a handful of integer operations; rows end as soon as the limit cannot be met any more.
    """
    if abs(len(first) - len(second)) >= limit or _least_edits(first, second) >= limit:
        return None
    first, second = _without_common_ends(first, second)
    distance = _by_bit_vectors(first, second, limit) if first and second else len(first or second)
    return distance if distance < limit else None


def _least_edits(first: str, second: str) -> int:
    """A lower bound: the characters that one text has and the other lacks."""
    surplus, lack = Counter(first), Counter(second)
    surplus.subtract(lack)
    counts = surplus.values()
    return max(sum(count for count in counts if count > 0), -sum(count for count in counts if count < 0))


def _without_common_ends(first: str, second: str) -> tuple[str, str]:
    """The parts of two texts between their common beginning and end."""
    shorter = min(len(first), len(second))
    start = 0
    while start < shorter and first[start] == second[start]:
        start += 1
    end = 0
    while end < shorter - start and first[-1 - end] == second[-1 - end]:
        end += 1
    return first[start : len(first) - end], second[start : len(second) - end]


def _by_bit_vectors(pattern: str, text: str, limit: int) -> int:
    """The distance, or any number from `limit` on if it is not below."""
    size = len(pattern)
    mask, last = (1 << size) - 1, 1 << (size - 1)
    places: dict[str, int] = {}
    for index, char in enumerate(pattern):
        places[char] = places.get(char, 0) | 1 << index
    more, less = mask, 0  # cells one more, one less than the cell above them
    distance = size
    for remaining, char in zip(range(len(text) - 1, -1, -1), text, strict=True):
        equal = places.get(char, 0)
        same = equal | less
        horizontal = (((equal & more) + more) ^ more) | equal
        up = less | ~(horizontal | more) & mask
        down = more & horizontal
        distance += bool(up & last) - bool(down & last)
        if distance - remaining >= limit:  # each further character takes away one at most
            return limit
        up = (up << 1 | 1) & mask
        more = (down << 1) & mask | ~(same | up) & mask
        less = up & same
    return distance
