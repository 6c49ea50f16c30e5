"""Running creates: each in a thread, shared by equal requests, in line when too many, ended when nobody waits.

Everything here runs in the event loop except `_Worker`, which a job calls from its thread.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from typing import Protocol

from modelbuild.events import ActionProgress, Event
from modelbuild.records import record
from modelbuild.server.answers import Refusal
from modelbuild.server.settings import Limits
from modelbuild.server.view import ActionView, BuildView

_log = logging.getLogger(__name__)

#: A status line: `status`, and where bytes are worked on `digest`, `total`, `completed`.
Line = Mapping[str, object]
#: Progress of one action is passed on this often; the engine reports every block.
_PROGRESS_INTERVAL_S = 0.1
#: Finished builds that are remembered for people who look, and the actions of all of them: a build of a recipe with
#: thousands of models has thousands, most of which were cached.
_REMEMBERED, _REMEMBERED_ACTIONS = 50, 20_000
_IN_LINE = "waiting in line, position"


class BuildCancelled(Exception):
    """Ends the thread of a build that nobody waits for; what it has made so far is thrown away."""


class BuildStopped(BaseException):
    """Ends the thread of a build because the server stops; partial files stay, the next run continues them."""


class Worker(Protocol):
    """What a job reports to, from its thread; each call may end the job by an exception."""

    def report(self, line: Line) -> None:
        """Pass a status line on to the clients."""

    def emit(self, event: Event) -> None:
        """Pass an event of the engine on to those who watch."""

    def plan(self, actions: Sequence[ActionView]) -> None:
        """Say what will be done."""

    def check(self) -> None:
        """Say nothing; for where a job only waits."""


Job = Callable[[Worker], None]
#: Gets every build whose state changed, and the engine's events.
Watch = Callable[["Build", Event | None], None]


@record(frozen=False)
class Build:
    """One execution. state: "waiting", "running", "done", "failed" or "cancelled".

    position: in line, from 1, while it waits. lines: all status lines so far with their numbers; of a run of progress
    lines about the same bytes only the last is kept. refusal: why it failed.
    """

    id: int
    key: str
    title: str
    job: Job
    started_s: float
    state: str = "waiting"
    position: int = 0
    lines: list[tuple[int, Line]] = field(default_factory=list)
    refusal: Refusal | None = None
    followers: int = 0
    ending: type[BaseException] | None = None
    thread: threading.Thread | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    view: BuildView = field(default_factory=BuildView)

    @property
    def is_over(self) -> bool:
        """Will nothing more come?"""
        return self.state in ("done", "failed", "cancelled")

    def notify(self) -> None:
        """Wake those who follow."""
        self.changed.set()
        self.changed = asyncio.Event()


class Builds:
    """All builds of a server."""

    def __init__(self, limits: Limits, refuse: Callable[[Exception], Refusal], watch: Watch) -> None:
        """refuse: turns what a job raised into an answer."""
        self._limits = limits
        self._refuse = refuse
        self._watch = watch
        self._ids = itertools.count(1)
        self._numbers = itertools.count(1)
        self._active: dict[str, Build] = {}
        self._waiting: list[Build] = []
        self._running: set[int] = set()
        self._is_stopping = False
        self.remembered: dict[int, Build] = {}

    def join(self, key: str, title: str, job: Job) -> Build:
        """The build for a key: the one that is under way, else a new one; Refusal 503 when none may begin."""
        if self._is_stopping:
            raise stopping()
        found = self._active.get(key)
        if found is not None:
            return found
        if len(self._waiting) >= self._limits.waiting_builds and len(self._running) >= self._limits.builds:
            raise Refusal(503, "too many models are being created; try again later")
        build = Build(next(self._ids), key, title, job, time.time())
        self._active[key] = self.remembered[build.id] = build
        self._forget_oldest()
        self._waiting.append(build)
        self._advance()
        return build

    def adopt(self, title: str) -> Build:
        """Remember a build that runs elsewhere; whoever runs it keeps its state."""
        build = Build(next(self._ids), "", title, lambda worker: worker.check(), time.time(), state="running")
        self.remembered[build.id] = build
        self._forget_oldest()
        return build

    @contextmanager
    def following(self, build: Build) -> Iterator[AsyncIterator[Line]]:
        """The status lines of a build, from the first; leaving the block as the last one cancels the build."""
        build.followers += 1
        try:
            yield self._follow(build)
        finally:
            build.followers -= 1
            if not build.followers and not build.is_over:
                self._end(build, BuildCancelled)

    async def shutdown(self) -> None:
        """End everything, with partial work kept; returns when the threads have ended or had their time."""
        self._is_stopping = True
        for build in list(self._active.values()):
            self._end(build, BuildStopped)
        deadline_s = time.monotonic() + self._limits.shutdown_s
        while self._running and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)

    async def _follow(self, build: Build) -> AsyncIterator[Line]:
        sent = 0
        while True:
            changed = build.changed
            for number, line in list(build.lines):
                if number > sent:
                    sent = number
                    yield line
            if build.is_over and (not build.lines or build.lines[-1][0] <= sent):
                return
            if changed is build.changed:
                await changed.wait()

    # -- the line ----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Start what may start, and tell the others their place."""
        while self._waiting and len(self._running) < self._limits.builds:
            self._start(self._waiting.pop(0))
        for position, build in enumerate(self._waiting, start=1):
            if build.position != position:
                build.position = position
                self._add(build, {"status": f"{_IN_LINE} {position}"})

    def _start(self, build: Build) -> None:
        build.state, build.position = "running", 0
        self._running.add(build.id)
        worker = _Worker(build, asyncio.get_running_loop(), self._add, self._event, self._plan)
        build.thread = threading.Thread(target=self._run, args=(build, worker), name=f"build-{build.id}", daemon=True)
        self._watch(build, None)
        try:
            build.thread.start()
        except RuntimeError as error:  # the system gives no more threads
            _log.warning("%s", error)
            self._finish(build, "failed", Refusal(503, "this machine is too busy; try again later"))

    def _run(self, build: Build, worker: _Worker) -> None:
        """The thread of a build."""
        refusal: Refusal | None = None
        state = "done"
        try:
            build.job(worker)
        except (BuildCancelled, BuildStopped):
            state = "cancelled"
        except Exception as error:  # noqa: BLE001 - top of a worker
            state, refusal = "failed", self._refuse(error)
        worker.finish(lambda: self._finish(build, state, refusal))

    def _finish(self, build: Build, state: str, refusal: Refusal | None) -> None:
        build.state, build.refusal = state, refusal
        self._running.discard(build.id)
        self._leave(build)
        self._advance()

    def _end(self, build: Build, how: type[BaseException]) -> None:
        """Make a build end: at once when it waits, else at its next report, as whoever ended it first wanted."""
        build.ending = build.ending or how
        self._active.pop(build.key, None)  # who comes now wants it done, and gets a new one
        if build in self._waiting:
            self._waiting.remove(build)
            build.state = "cancelled"
            self._leave(build)
            self._advance()

    def _leave(self, build: Build) -> None:
        if self._active.get(build.key) is build:
            del self._active[build.key]
        build.notify()
        self._watch(build, None)

    def _forget_oldest(self) -> None:
        actions = 0
        for count, build in enumerate(reversed(list(self.remembered.values())), start=1):
            actions += len(build.view.actions)
            if build.is_over and (count > _REMEMBERED or actions > _REMEMBERED_ACTIONS):
                del self.remembered[build.id]

    # -- what jobs report --------------------------------------------------------------------------------------------

    def _add(self, build: Build, line: Line) -> None:
        if build.lines and _same_bytes(build.lines[-1][1], line):
            build.lines.pop()
        build.lines.append((next(self._numbers), line))
        build.notify()
        self._watch(build, None)

    def _event(self, build: Build, event: Event) -> None:
        self._watch(build, event)

    def _plan(self, build: Build, actions: Sequence[ActionView]) -> None:
        build.view.plan(actions)
        self._watch(build, None)


class _Worker:
    """Carries reports from a build's thread into the event loop; its end is noticed here."""

    def __init__(
        self,
        build: Build,
        loop: asyncio.AbstractEventLoop,
        add: Callable[[Build, Line], None],
        event: Callable[[Build, Event], None],
        plan: Callable[[Build, Sequence[ActionView]], None],
    ) -> None:
        self._build = build
        self._loop = loop
        self._add = add
        self._event = event
        self._plan = plan
        self._is_ending = False
        self._next_line_s = self._next_event_s = 0.0

    def report(self, line: Line) -> None:
        self.check()
        completed = line.get("completed", 0)
        if "total" in line and completed != line["total"]:
            now_s = time.monotonic()
            if now_s < self._next_line_s:
                return
            self._next_line_s = now_s + _PROGRESS_INTERVAL_S
        self._loop.call_soon_threadsafe(self._add, self._build, line)

    def emit(self, event: Event) -> None:
        self.check()
        if isinstance(event, ActionProgress) and event.done_bytes != event.total_bytes:
            now_s = time.monotonic()
            if now_s < self._next_event_s:
                return
            self._next_event_s = now_s + _PROGRESS_INTERVAL_S
        self._loop.call_soon_threadsafe(self._event, self._build, event)

    def plan(self, actions: Sequence[ActionView]) -> None:
        self.check()
        self._loop.call_soon_threadsafe(self._plan, self._build, actions)

    def finish(self, finish: Callable[[], None]) -> None:
        """Run something in the event loop, unless that has ended meanwhile."""
        try:
            self._loop.call_soon_threadsafe(finish)
        except RuntimeError:  # the server has stopped without us
            return

    def check(self) -> None:
        """End the job where it stands; once, so that its own cleaning up can still report."""
        if self._build.ending is not None and not self._is_ending:
            self._is_ending = True
            raise self._build.ending


def stopping() -> Refusal:
    """The answer to whoever wants a model of a server that stops."""
    return Refusal(503, "the server is stopping")


def _same_bytes(old: Line, new: Line) -> bool:
    """Do two lines show progress of the same work? A place in line counts as such."""
    if str(old["status"]).startswith("waiting in line") and str(new["status"]).startswith("waiting in line"):
        return True
    return (
        "total" in old and "total" in new and (old["status"], old.get("digest")) == (new["status"], new.get("digest"))
    )
