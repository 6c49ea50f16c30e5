"""The loop of `modelbuild watch`: wait for a save, see whether something changed, build, follow what it needs now."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from modelbuild.engine.build import BuildRequest, LoadedPlan, build_plan, load_plan
from modelbuild.engine.snapshot import find_unchanged, snapshot_key
from modelbuild.errors import ModelbuildError
from modelbuild.events import Emit, Warned
from modelbuild.plan.graph import Plan
from modelbuild.records import record
from modelbuild.store.state import State
from modelbuild.watch.debounce import QUIET_S, Debouncer
from modelbuild.watch.inputs import Inputs, Looks
from modelbuild.watch.look import LONG_STILL_S, STILL_S, look_at, may_be_incomplete
from modelbuild.watch.notifier import Notifier
from modelbuild.watch.stale import Listener, StoppedError, is_made_from, is_replaced

#: Events can be lost; this often the no-op check runs without one.
SWEEP_S = 10.0
#: Who waits for a file that grows for longer than this is told so.
_PATIENCE_S = 2.0


@record
class Round:
    """One build of the loop.

    changed: paths that events named or that were found to look different, none at the start and where neither was so;
    changes: what happened to inputs, in words. ran: actions that ran. failure: an empty text when it succeeded, or why
    it did not. is_stopped: it was left because inputs changed meanwhile; another round follows.
    """

    changed: tuple[Path, ...]
    models: tuple[str, ...]
    built: tuple[str, ...]
    ran: int
    seconds: float
    failure: str
    changes: tuple[str, ...] = ()
    is_stopped: bool = False


@record
class WatchOptions:
    """poll: do not use notification. sweep_s: how often to check without an event."""

    poll: bool = False
    sweep_s: float = SWEEP_S


class WatchLoop:
    """Builds once, then after every save. `on_round` gets what happened, `emit` the events of the builds.

    A look that finds all inputs as they were and nothing to do is no round.
    """

    def __init__(
        self,
        request: BuildRequest,
        state: State,
        emit: Emit,
        on_round: Callable[[Round], None],
        options: WatchOptions = WatchOptions(),
    ) -> None:
        self._request = request
        self._state = state
        self._emit = emit
        self._on_round = on_round
        self._options = options
        self._inputs = Inputs(request.recipe, [request.store, request.cache])
        self._notifier = Notifier(poll=options.poll, say=lambda text: emit(Warned(text)))
        self._done = 0
        self._pending: list[Path] = []
        self._failed_with: Looks | None = None
        self._unreadable = self._unreadable_now = ""
        self._running: Plan | None = None
        self._judged: tuple[str, int] = ("", 0)
        self._last_event_s = 0.0
        self._growing_since_s: float | None = None

    def run(self, *, rounds: int | None = None) -> None:
        """Loop until interrupted, or for a number of rounds."""
        try:
            self._notifier.follow(self._inputs.set)
            self._round(())
            while rounds is None or self._done < rounds:
                changed = self._wait()
                self._notifier.refresh()
                looks = self._inputs.looks()
                if self._has_changed():
                    self._round(changed)
                else:
                    self._inputs.known = looks
        finally:
            self._notifier.close()

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self) -> tuple[Path, ...]:
        """Until a burst of events is over and files have stopped growing; an empty tuple when it is time to sweep."""
        debouncer = Debouncer()
        sweep_s = time.monotonic() + self._options.sweep_s
        seen = dict.fromkeys(self._pending)
        self._pending.clear()
        self._growing_since_s = None
        if seen:
            debouncer.note(time.monotonic())
        while True:
            due_s = debouncer.due_s if debouncer.due_s is not None else sweep_s
            path = self._next_path(due_s - time.monotonic())
            if path is not None:
                seen[path] = None
                debouncer.note(time.monotonic())
            elif debouncer.take(time.monotonic()):
                growing = self._growing(list(seen))
                if not growing:
                    return tuple(seen)
                debouncer.note(time.monotonic())
                self._say_who_grows(growing)
            elif debouncer.due_s is None and time.monotonic() >= sweep_s:
                if not (changed := self._inputs.changed()):
                    return ()
                seen = dict.fromkeys(changed)
                debouncer.note(time.monotonic())

    def _next_path(self, timeout_s: float) -> Path | None:
        try:
            return self._notifier.paths.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None

    def _growing(self, paths: Sequence[Path]) -> list[Path]:
        """Which inputs are still being written? A copy under way would otherwise be built again and again."""
        if self._notifier.tells_closing:
            return self._notifier.open_files()
        before = {path: look_at(path) for path in self._inputs.with_entries(paths)}
        is_guess = any(may_be_incomplete(self._inputs.known.get(path), look) for path, look in before.items())
        time.sleep(LONG_STILL_S if is_guess else STILL_S)
        return [path for path, look in before.items() if look_at(path) != look]

    def _say_who_grows(self, growing: Sequence[Path]) -> None:
        """Tell the user why nothing happens, once for each wait that is not over soon."""
        if self._growing_since_s is None:
            self._growing_since_s = time.monotonic()
        elif time.monotonic() - self._growing_since_s > _PATIENCE_S:
            self._emit(Warned(f"{self._inputs.name_of(growing[0])} is still being written; waiting for its end"))
            self._growing_since_s = float("inf")  # said

    def _has_changed(self) -> bool:
        """The truth behind the hints: is there something to do that was not tried in vain already?"""
        if self._failed_with is not None:
            return self._inputs.looks() != self._failed_with or self._reads_otherwise()
        request = self._request
        options = request.recipe_options.fingerprint()
        key = snapshot_key(request.recipe, request.store, request.wanted, options)
        return find_unchanged(self._state, key) is None

    def _reads_otherwise(self) -> bool:
        """Does a recipe that could not be read give anything else now? What it lacks may be nowhere in the set."""
        if not self._unreadable:
            return False
        try:
            load_plan(self._request)
        except ModelbuildError as error:
            return str(error) != self._unreadable
        return True

    # -- building ----------------------------------------------------------------------------------------------------

    def _round(self, changed: tuple[Path, ...]) -> None:
        started_s = time.monotonic()
        changes = self._inputs.changes()
        self._inputs.known = self._inputs.looks()
        # Where no input looks different, and nothing failed before, there will most likely be nothing to tell.
        may_be_idle = self._done > 0 and not changes and self._failed_with is None
        listener = Listener(self._emit, self._is_wasted, may_be_idle=may_be_idle)
        failure = self._unreadable = self._unreadable_now = ""
        is_stopped = False
        models: tuple[str, ...] = ()
        try:
            loaded = self._load(listener)
            models = tuple(str(name) for name in loaded.plan.models)
            build_plan(loaded, self._stoppable(listener), self._state, listener)
        except (StoppedError, FileNotFoundError):  # an input may vanish wherever the engine looks at it
            is_stopped, failure = True, f"stopped, {self._inputs.names_of_changed()} changed meanwhile"
        except ModelbuildError as error:
            failure = str(error)
        # What was there before the attempt failed; what is saved during it is tried again.
        self._failed_with = self._inputs.known if failure and not is_stopped else None
        if listener.is_idle and not failure:
            return
        self._done += 1
        seconds = time.monotonic() - started_s
        built = tuple(listener.built)
        self._on_round(Round(changed, models, built, listener.ran, seconds, failure, changes, is_stopped))

    def _load(self, emit: Emit) -> LoadedPlan:
        """The plan to run, whose inputs are listened to from now on; with a recipe in error the last good set stays."""
        try:
            loaded = load_plan(self._request, emit)
        except ModelbuildError as error:
            self._unreadable = str(error)
            raise
        self._inputs.follow(
            (*loaded.recipe.files, *loaded.plan.input_files),
            (*loaded.recipe.directories, *loaded.plan.watched_directories),
        )
        self._notifier.follow(self._inputs.set)
        self._inputs.note_new()
        self._running = loaded.plan
        return loaded

    # -- a build whose inputs change ---------------------------------------------------------------------------------

    def _stoppable(self, listener: Listener) -> BuildRequest:
        return replace(self._request, options=replace(self._request.options, check=listener.check))

    def _is_wasted(self, action: str) -> bool:
        """Did inputs change since the build began so that this action need not be finished?

        What came in is kept for the next round. Judging may mean planning, so nothing is judged twice.
        """
        while (path := self._next_path(0)) is not None:
            self._pending.append(path)
            self._last_event_s = time.monotonic()
        judging = action, len(self._pending)
        if not self._pending or judging == self._judged or self._running is None:
            return False
        changed = self._inputs.changed()
        if is_made_from(action, self._running, changed):
            return True
        if time.monotonic() - self._last_event_s < QUIET_S or self._notifier.open_files():
            return False  # a save under way has to be over before it can be read
        self._judged = judging
        new = self._plan_now() if changed else None
        return new is not None and is_replaced(action, self._running, new)

    def _plan_now(self) -> Plan | None:
        """What would be built now; an error of the recipe is shown at once, though the build goes on."""
        try:
            return load_plan(self._request).plan
        except ModelbuildError as error:
            if str(error) != self._unreadable_now:
                self._unreadable_now = str(error)
                self._emit(Warned(str(error)))
            return None
