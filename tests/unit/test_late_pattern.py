"""Regular expressions that are compiled when they are used."""

from __future__ import annotations

import re

import pytest

from modelbuild.late_pattern import late_pattern


def test_nothing_is_compiled_before_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defining costs nothing, and one use or many compile once."""
    compiled = []
    compile_ = re.compile

    def count(text: str, flags: int = 0) -> re.Pattern[str]:
        compiled.append(text)
        return compile_(text, flags)

    monkeypatch.setattr(re, "compile", count)
    late = late_pattern("[a-z]+")

    assert [] == compiled
    assert [True] * 3 == [late.fullmatch("ab") is not None for _ in range(3)]
    assert ["[a-z]+"] == compiled


def test_late_pattern_is_a_pattern() -> None:
    """Every method and attribute of the compiled one, its flags included, for text and for bytes."""
    late, soon = (
        late_pattern(r"(?P<one>a)\w", re.IGNORECASE | re.ASCII),
        re.compile(r"(?P<one>a)\w", re.IGNORECASE | re.ASCII),
    )

    assert (soon.pattern, soon.flags, soon.groupindex) == (late.pattern, late.flags, late.groupindex)
    assert (soon.sub("-", "xABx"), soon.split("1ab2")) == (late.sub("-", "xABx"), late.split("1ab2"))
    assert [match.span("one") for match in soon.finditer("ab aé AB")] == [
        match.span("one") for match in late.finditer("ab aé AB")
    ]
    assert late_pattern(rb"\d").match(b"1") is not None
    with pytest.raises(re.error):
        late_pattern("(").match("")
