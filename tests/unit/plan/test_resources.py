"""Which actions may run at the same time: never more than there is, nobody waits for ever, too large ones run alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.plan.resources import Resources, may_start

LIMITS = Resources(4, 1000, 1000)
BIG = Resources(4, 900, 10)
SMALL = Resources(1, 50, 10)
NOTHING = Resources()


@pytest.mark.parametrize(
    ("need", "before", "expected"),
    [
        (BIG, [], True),
        (BIG, [BIG], False),
        (SMALL, [BIG], False),
        (SMALL, [SMALL, SMALL, SMALL], True),
        (SMALL, [SMALL, SMALL, SMALL, SMALL], False),
        (Resources(1, 500), [Resources(1, 600)], False),
        (Resources(1, 0, 500), [Resources(1, 0, 600)], False),
        (Resources(1, 0, 500), [Resources(1, 600, 0)], True),
        (NOTHING, [BIG, BIG, SMALL], True),
        (Resources(99), [], True),
        (Resources(99), [SMALL], False),
        (SMALL, [Resources(0, 9999)], False),
        (NOTHING, [Resources(0, 9999)], True),
    ],
)
def test_an_action_starts_beside_what_leaves_room(need: Resources, before: list[Resources], expected: bool) -> None:
    """Each of cores, memory and disk has to do; what needs more than there is takes everything."""
    assert expected == may_start(need, before, LIMITS)


amounts = st.integers(0, 12)
needs = st.builds(Resources, amounts, amounts, amounts)
limits = st.builds(Resources, st.integers(1, 8), st.integers(1, 8), st.integers(1, 8))


def _round(waiting: list[int], running: list[int], all_needs: list[Resources], most: Resources) -> list[int]:
    """One round of the runner: those that start, when earlier ones keep their place."""
    before = [all_needs[name] for name in running]
    started = []
    for name in waiting:
        if may_start(all_needs[name], before, most):
            started.append(name)
        before.append(all_needs[name])
    return started


@given(st.lists(needs, max_size=12), limits, st.data())
def test_everything_runs_and_nothing_exceeds(all_needs: list[Resources], most: Resources, data: st.DataObject) -> None:
    """Whoever ends first: all run; together they never take more than there is; the longest waiting one starts next.

    "Next" means: of those that need anything at all, none that came later starts while its start would keep the first
    from starting once everything that ran when it came has ended.
    """
    waiting, running, done = list(range(len(all_needs))), [], set()
    while waiting or running:
        before = list(running)
        started = _round(waiting, running, all_needs, most)
        waiting = [name for name in waiting if name not in started]
        running += started
        assert running, "nothing runs and something waits"
        for amount in ("cores", "memory_bytes", "disk_bytes"):
            taken = [getattr(all_needs[name], amount) for name in running]
            too_large = [name for name in running if not all_needs[name].fits(most)]
            if too_large:
                assert 1 >= sum(all_needs[name] != NOTHING for name in running)
            else:
                assert sum(taken) <= getattr(most, amount)
        if waiting:
            late = [all_needs[name] for name in running if name not in before and name > waiting[0]]
            assert may_start(all_needs[waiting[0]], late, most), "somebody who came later is in the way of the first"
        ended = data.draw(st.sampled_from(running))
        running.remove(ended)
        done.add(ended)
    assert set(range(len(all_needs))) == done
