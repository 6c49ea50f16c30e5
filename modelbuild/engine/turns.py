"""Turns at parts of the machine: a run that has had one stands back for others that wait for it.

Without that a run of many conversions would have turn after turn, since it asks again right when it lets go, and
whoever waits only looks from time to time. Who waits shows a flag, a kernel lock like all others: it ends with its
process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from modelbuild.engine.locks import ActionLocks, Flag

#: Begins the names of locks that stand for a part of the machine; no key and no path begins so.
TURN = "turn: "
#: So long a run stands back at the most: twice as long as those who wait pause between two looks.
STANDING_BACK_S = 0.4


class Turns:
    """What one run knows of the turns that it shares with others."""

    def __init__(self, locks: ActionLocks) -> None:
        self._locks = locks
        self._flags: dict[str, Flag] = {}
        self._back_until_s: dict[str, float] = {}

    def may_ask(self, turns: Iterable[str]) -> bool:
        """May this run ask for these turns now? Not for a moment after its own, while others wait for one."""
        now_s = time.monotonic()
        return not any(now_s < self._back_until_s.get(turn, 0.0) and self._locks.is_flagged(turn) for turn in turns)

    def wait_for(self, turn: str) -> None:
        """Show that this run waits for a turn."""
        if turn not in self._flags and (flag := self._locks.flag(turn)) is not None:
            self._flags[turn] = flag

    def begin(self, turns: Iterable[str]) -> None:
        """The run has these turns now, and waits for them no more."""
        for turn in turns:
            if (flag := self._flags.pop(turn, None)) is not None:
                flag.lower()

    def end(self, turns: Iterable[str]) -> None:
        """The run has let these turns go; for its next ones it asks behind others."""
        for turn in turns:
            self._back_until_s[turn] = time.monotonic() + STANDING_BACK_S

    def close(self) -> None:
        """The run is over."""
        self.begin(list(self._flags))
