"""What somebody may have meant, for the hints of errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_DEFAULT_TAG = ":latest"


def similar_names(word: str, names: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """At most n of the names that are like the word, the most similar first; cutoff: 0 for any, 1 for equal ones."""
    import difflib  # only whoever makes a mistake waits for it

    return difflib.get_close_matches(word, list(names), n, cutoff)


def similar_models(name: str, stored: Sequence[str]) -> list[str]:
    """At most three of the stored models: those that differ in the tag, else those with a similar short name."""
    same = [text for text in stored if text.rpartition(":")[0].lower() == name.rpartition(":")[0].lower()]
    if same:
        return same[:3]
    names = {text.removesuffix(_DEFAULT_TAG): text for text in stored}
    return [names[near] for near in similar_names(name.removesuffix(_DEFAULT_TAG), names, cutoff=0.5)]
