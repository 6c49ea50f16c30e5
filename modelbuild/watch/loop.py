"""The loop of `modelbuild watch`: wait for a save, see whether something changed, build, follow what it needs now."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelbuild.engine.build import BuildRequest, LoadedPlan, build_plan, load_plan
from modelbuild.engine.snapshot import find_unchanged, snapshot_key
from modelbuild.errors import ModelbuildError
from modelbuild.events import ActionFinished, ActionProgress, Emit, Event, ModelFinished, Warned
from modelbuild.store.state import State
from modelbuild.watch.debounce import Debouncer
from modelbuild.watch.notifier import Notifier
from modelbuild.watch.watch_set import WatchSet

#: Events can be lost; this often the no-op check runs without one.
SWEEP_S = 10.0
#: A file that is still being written is looked at again after this time.
_GROWING_S = 0.05
#: A build whose inputs changed is stopped when finishing would take longer than this.
_WORTH_STOPPING_S = 0.5


#: Size and time of a file: enough to see that it changed.
Look = tuple[int, int]


class _Stale(Exception):
    """Inputs of the running build changed; its result would be thrown away."""


@dataclass(frozen=True, slots=True)
class Round:
    """One build of the loop.

    changed: paths that events named, none at the start and when a look without an event found something;
    changes: what happened to inputs, in words. ran: actions that ran. failure: an empty text when it succeeded.
    """

    changed: tuple[Path, ...]
    models: tuple[str, ...]
    built: tuple[str, ...]
    ran: int
    seconds: float
    failure: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """poll: do not use notification. sweep_s: how often to check without an event."""

    poll: bool = False
    sweep_s: float = SWEEP_S


class WatchLoop:
    """Builds once, then after every save. `on_round` gets what happened, `emit` the events of the builds."""

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
        self._set = WatchSet.of([request.recipe], [], [request.store, request.cache])
        self._notifier = Notifier(poll=options.poll, say=lambda text: emit(Warned(text)))
        self._pending: list[Path] = []
        self._known: dict[Path, Look | None] = {}
        self._failed_with: dict[Path, Look | None] | None = None
        self._unreadable = ""

    def run(self, *, rounds: int | None = None) -> None:
        """Loop until interrupted, or for a number of rounds."""
        try:
            self._notifier.follow(self._set)
            self._round(())
            done = 1
            while rounds is None or done < rounds:
                changed = self._wait()
                self._notifier.refresh()
                if self._has_changed():
                    self._round(changed)
                    done += 1
        finally:
            self._notifier.close()

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self) -> tuple[Path, ...]:
        """Until a burst of events is over and files have stopped growing; an empty tuple when it is time to sweep."""
        debouncer = Debouncer()
        sweep_s = time.monotonic() + self._options.sweep_s
        seen = dict.fromkeys(self._pending)
        self._pending.clear()
        if seen:
            debouncer.note(time.monotonic())
        while True:
            due_s = debouncer.due_s if debouncer.due_s is not None else sweep_s
            path = self._next_path(due_s - time.monotonic())
            if path is not None:
                seen[path] = None
                debouncer.note(time.monotonic())
            elif debouncer.take(time.monotonic()):
                if not self._is_growing(list(seen)):
                    return tuple(seen)
                debouncer.note(time.monotonic())
            elif time.monotonic() >= sweep_s:
                return ()

    def _next_path(self, timeout_s: float) -> Path | None:
        try:
            return self._notifier.paths.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None

    def _is_growing(self, paths: Sequence[Path]) -> bool:
        """Do sizes or times still change? A download would otherwise be built again and again."""
        before = [_look(path) for path in paths]
        time.sleep(_GROWING_S)
        return [_look(path) for path in paths] != before

    def _has_changed(self) -> bool:
        """The truth behind the hints: is there something to do that was not tried in vain already?"""
        if self._failed_with is not None:
            return self._looks() != self._failed_with or self._reads_otherwise()
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

    def _looks(self) -> dict[Path, Look | None]:
        return {path: _look(path) for path in sorted(self._set.files | self._set.directories)}

    # -- building ----------------------------------------------------------------------------------------------------

    def _round(self, changed: tuple[Path, ...]) -> None:
        started_s = time.monotonic()
        changes = self._changes()
        self._known = self._looks()
        listener = _Listener(self._emit, self._stale_inputs)
        failure = self._unreadable = ""
        is_stale = False
        models: tuple[str, ...] = ()
        try:
            loaded = self._load()
            models = tuple(str(name) for name in loaded.plan.models)
            build_plan(loaded, self._request, self._state, listener)
        except _Stale:
            is_stale, failure = True, "stopped: its inputs changed"
        except ModelbuildError as error:
            failure = str(error)
        # What was there before the attempt failed; what is saved during it is tried again.
        self._failed_with = dict(self._known) if failure and not is_stale else None
        seconds = time.monotonic() - started_s
        self._on_round(Round(changed, models, tuple(listener.built), listener.ran, seconds, failure, changes))

    def _changes(self) -> tuple[str, ...]:
        """In words, what happened to inputs since the last build; directories only where no file did."""
        files, directories = set(), set()
        for path, before in self._known.items():
            if (now := _look(path)) == before:
                continue
            verb = "is gone" if now is None else "appeared" if before is None else "saved"
            if path in self._set.files:
                files.add(f"{path.name} {verb}")
            else:
                directories.add(f"{path.name} changed")
        return tuple(sorted(files or directories))

    def _load(self) -> LoadedPlan:
        try:
            loaded = load_plan(self._request, self._emit)
        except ModelbuildError as error:
            self._unreadable = str(error)
            raise
        directories = (*loaded.recipe.directories, *loaded.plan.watched_directories)
        self._follow(loaded.recipe.files, loaded.plan.input_files, directories)
        self._known = {path: self._known.get(path, look) for path, look in self._looks().items()}
        return loaded

    def _follow(self, *files_and_directories: Sequence[Path]) -> None:
        """Listen to what the recipe names now. A recipe that cannot be read does not come here: the last set stays."""
        *files, directories = files_and_directories
        every = [self._request.recipe, *(path for group in files for path in group)]
        self._set = WatchSet.of(every, directories, [self._request.store, self._request.cache])
        self._notifier.follow(self._set)

    def _stale_inputs(self) -> bool:
        """Did an input change since the build began? What came in is kept for the next round."""
        while (path := self._next_path(0)) is not None:
            self._pending.append(path)
        return any(path in self._known and _look(path) != self._known[path] for path in self._pending)


class _Listener:
    """Passes events on, notes what was built, and stops a build that has become useless."""

    def __init__(self, emit: Emit, is_stale: Callable[[], bool]) -> None:
        self._emit = emit
        self._is_stale = is_stale
        self._started_s: dict[str, float] = {}
        self.built: list[str] = []
        self.ran = 0

    def __call__(self, event: Event) -> None:
        self._emit(event)
        if isinstance(event, ActionProgress) and self._is_worth_stopping(event) and self._is_stale():
            raise _Stale
        if isinstance(event, ModelFinished) and event.outcome == "built":
            self.built.append(event.model)
        elif isinstance(event, ActionFinished) and event.outcome == "ran":
            self.ran += 1

    def _is_worth_stopping(self, event: ActionProgress) -> bool:
        now_s = time.monotonic()
        started_s = self._started_s.setdefault(event.action, now_s)
        left = (event.total_bytes - event.done_bytes) / max(1, event.done_bytes)
        return (now_s - started_s) * left > _WORTH_STOPPING_S


def _look(path: Path) -> Look | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
