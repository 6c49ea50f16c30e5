"""What somebody may have meant, for the hints of errors."""

from __future__ import annotations

from collections.abc import Iterable


def similar_names(word: str, names: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """At most n of the names that are like the word, the most similar first; cutoff: 0 for any, 1 for equal ones."""
    import difflib  # only whoever makes a mistake waits for it

    return difflib.get_close_matches(word, list(names), n, cutoff)
