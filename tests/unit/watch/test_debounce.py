"""Bursts of events, with a logical clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.watch.debounce import LONGEST_S, QUIET_S, Debouncer


def test_quiet_debouncer_is_never_due() -> None:
    """Without an event there is nothing to act on."""
    debouncer = Debouncer()

    assert (None, False) == (debouncer.due_s, debouncer.take(1e9))


def test_acts_shortly_after_the_last_event() -> None:
    """Two events close to each other are one burst."""
    debouncer = Debouncer()
    debouncer.note(10.0)
    debouncer.note(10.03)

    assert [False, True] == [debouncer.take(10.03 + QUIET_S - 0.001), debouncer.take(10.03 + QUIET_S)]
    assert debouncer.due_s is None


@given(gaps=st.lists(st.floats(0.0001, QUIET_S * 0.99), min_size=1, max_size=300))
def test_endless_writing_is_acted_on_in_time(gaps: list[float]) -> None:
    """However events follow each other, the first is acted on within LONGEST_S, and ten thousand give one action."""
    debouncer = Debouncer()
    now_s = 100.0
    debouncer.note(now_s)
    for gap in gaps:
        now_s += gap
        debouncer.note(now_s)

    due_s = debouncer.due_s
    assert due_s is not None
    assert due_s <= 100.0 + LONGEST_S + 1e-9
    assert due_s == pytest.approx(min(now_s + QUIET_S, 100.0 + LONGEST_S))


def test_steady_writing_is_acted_on_after_the_longest_time() -> None:
    """An event every 40 ms never leaves a quiet moment; the second after the first one ends the burst."""
    debouncer = Debouncer()
    for number in range(100):
        debouncer.note(10.0 + number * 0.04)

    assert [False, True] == [debouncer.take(10.0 + LONGEST_S - 0.001), debouncer.take(10.0 + LONGEST_S)]
