"""The bounded edit distance."""

from __future__ import annotations

import random

from modelbuild.template.distance import edit_distance


def reference_distance(first: str, second: str) -> int:
    """The textbook table."""
    row = list(range(len(second) + 1))
    for number, char in enumerate(first, 1):
        following = [number]
        for at, other in enumerate(second, 1):
            following.append(min(row[at] + 1, following[-1] + 1, row[at - 1] + (char != other)))
        row = following
    return row[-1]


def test_equals_the_textbook_for_small_texts() -> None:
    """Every limit gives the textbook's distance, or None when that is not below the limit."""
    chance = random.Random(1)
    for _ in range(3000):
        first, second = ("".join(chance.choices("abc", k=chance.randrange(12))) for _ in range(2))
        limit = chance.randrange(14)
        distance = reference_distance(first, second)

        assert (distance if distance < limit else None) == edit_distance(first, second, limit), (first, second)


def test_long_texts() -> None:
    """Distances in texts longer than a machine word, with edits of each kind."""
    chance = random.Random(2)
    text = "".join(chance.choices("abcdefgh \n", k=3000))
    for edits in (0, 1, 7, 40):
        chars = list(text)
        for at in sorted(chance.sample(range(0, 3000, 50), edits), reverse=True):
            chars[at : at + 1] = chance.choice([[], ["\u2603"], [chars[at], "\u2603"]])
        edited = "".join(chars)

        assert reference_distance(text[:250], edited[:250]) == edit_distance(text[:250], edited[:250], 250)
        assert edits == edit_distance(text, edited, 100)


def test_counts_code_points() -> None:
    """A character outside the basic plane is one edit."""
    assert 1 == edit_distance("a", "a\U0001f600", 100)
