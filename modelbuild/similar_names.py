"""What somebody may have meant, for the hints of errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_DEFAULT_TAG = ":latest"
#: A comparison takes some ten microseconds, and a recipe may have hundreds of mistakes and thousands of models.
_MANY_NAMES, _COMPARED_OF_MANY = 500, 100


def similar_names(word: str, names: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """At most n of the names that are like the word, the most similar first; cutoff: 0 for any, 1 for equal ones.

    Of more than 500 names a hundred are looked at that begin with the same two letters.
    """
    import difflib  # only whoever makes a mistake waits for it

    candidates = list(names)
    if len(candidates) > _MANY_NAMES:
        start = word[:2].lower()
        candidates = [name for name in candidates if name[:2].lower() == start][:_COMPARED_OF_MANY]
    return difflib.get_close_matches(word, candidates, n, cutoff)


def similar_models(name: str, stored: Sequence[str]) -> list[str]:
    """At most three of the stored models: those that differ in the tag, else those with a similar short name."""
    same = [text for text in stored if text.rpartition(":")[0].lower() == name.rpartition(":")[0].lower()]
    if same:
        return same[:3]
    names = {text.removesuffix(_DEFAULT_TAG): text for text in stored}
    return [names[near] for near in similar_names(name.removesuffix(_DEFAULT_TAG), names, cutoff=0.5)]
