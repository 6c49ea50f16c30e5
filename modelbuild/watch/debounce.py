"""When to act on a burst of events. Pure: the caller brings the clock."""

from __future__ import annotations

#: Editors save in several steps; this long after the last event a save is taken to be over.
QUIET_S = 0.05
#: Somebody who writes without pause still gets a build this long after the first event.
LONGEST_S = 1.0


class Debouncer:
    """Gathers events until it is time to act on them."""

    def __init__(self, quiet_s: float = QUIET_S, longest_s: float = LONGEST_S) -> None:
        self._quiet_s = quiet_s
        self._longest_s = longest_s
        self._first_s: float | None = None
        self._last_s = 0.0

    def note(self, now_s: float) -> None:
        """An event came in."""
        if self._first_s is None:
            self._first_s = now_s
        self._last_s = now_s

    @property
    def due_s(self) -> float | None:
        """When to act; None while nothing has happened."""
        if self._first_s is None:
            return None
        return min(self._last_s + self._quiet_s, self._first_s + self._longest_s)

    def take(self, now_s: float) -> bool:
        """Is it time? If so, the burst is over and the next event begins a new one."""
        if self.due_s is None or now_s < self.due_s:
            return False
        self._first_s = None
        return True
