"""Is the work of a running build of any use after its inputs changed? A build whose work is not is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from modelbuild.events import (
    ActionFinished,
    ActionProgress,
    ActionStarted,
    ActionWaiting,
    Emit,
    Event,
    ModelFinished,
    RunFinished,
    RunStarted,
    Warned,
)
from modelbuild.plan.action import FileInput
from modelbuild.plan.graph import Action, Plan

#: A build is stopped when finishing the action that runs would take longer than this.
WORTH_STOPPING_S = 0.5


class StoppedError(Exception):
    """The running build was left: its result would have been thrown away."""


def is_made_from(action: str, plan: Plan, files: Collection[Path]) -> bool:
    """Does this action, or one that it needs, read one of these files? files: absolute."""
    inputs = (item for one in _with_needs(action, plan) for item in one.inputs)
    return any(item.path.absolute() in files for item in inputs if isinstance(item, FileInput))


def is_replaced(action: str, old: Plan, new: Plan) -> bool:
    """Has the new plan another action, or none, in the place of this one of the old, or of one that it needs?"""
    now = {item.id: item for item in new.actions}
    return any(now.get(one.id) != one for one in _with_needs(action, old))


def _with_needs(action: str, plan: Plan) -> Iterator[Action]:
    actions = {item.id: item for item in plan.actions}
    left = [action]
    while left:
        if (found := actions.pop(left.pop(), None)) is not None:
            yield found
            left.extend(found.needs)


#: Events that a build without any work has too.
_IDLE_EVENTS = (RunStarted, ActionFinished, ModelFinished, RunFinished, Warned)


class Listener:
    """Passes events of a build on, notes what was built, and leaves the build when its work is wasted.

    may_be_idle: there may be no work; then nothing is passed on unless there is some.
    """

    def __init__(self, emit: Emit, is_wasted: Callable[[str], bool], *, may_be_idle: bool = False) -> None:
        self._emit = emit
        self._held: list[Event] | None = [] if may_be_idle else None
        self._is_wasted = is_wasted
        self._started_s: dict[str, float] = {}
        self._waiting = ""
        self.built: list[str] = []
        self.ran = 0

    def __call__(self, event: Event) -> None:
        """Take an event; raises StoppedError."""
        self._pass_on(event)
        if isinstance(event, ActionProgress):
            if self._seconds_left(event) > WORTH_STOPPING_S and self._is_wasted(event.action):
                raise StoppedError
        elif isinstance(event, ActionWaiting):
            self._waiting = event.action
        elif isinstance(event, ActionStarted):
            self._started_s[event.action], self._waiting = time.monotonic(), ""
        elif isinstance(event, ModelFinished) and event.outcome == "built":
            self.built.append(event.model)
        elif isinstance(event, ActionFinished) and event.outcome == "ran":
            self.ran += 1

    def check(self) -> None:
        """While another process is waited for, which may take any time; raises StoppedError."""
        if self._waiting and self._is_wasted(self._waiting):
            raise StoppedError

    @property
    def is_idle(self) -> bool:
        """Was nothing passed on, for lack of work?"""
        return self._held is not None

    def _pass_on(self, event: Event) -> None:
        if self._held is not None:
            self._held.append(event)
            if isinstance(event, _IDLE_EVENTS):
                return
            held, self._held = self._held, None
            for earlier in held:
                self._emit(earlier)
        else:
            self._emit(event)

    def _seconds_left(self, event: ActionProgress) -> float:
        now_s = time.monotonic()
        started_s = self._started_s.setdefault(event.action, now_s)
        left = (event.total_bytes - event.done_bytes) / max(1, event.done_bytes)
        return (now_s - started_s) * left
