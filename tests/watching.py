"""A watch in a thread of the test, whose rounds are waited for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelbuild.engine.build import BuildRequest
from modelbuild.events import Event
from modelbuild.store.state import State
from modelbuild.watch.loop import Round, WatchLoop, WatchOptions
from tests.space import Space

PATIENCE_S = 60.0
#: No look without an event comes into question while a test lasts.
BY_EVENTS = WatchOptions(sweep_s=600)
BY_POLLING = WatchOptions(poll=True, sweep_s=600)


class Watching:
    """A loop in a thread; rounds come through a queue, events are gathered."""

    def __init__(self, space: Space, options: WatchOptions) -> None:
        self.rounds: queue.Queue[Round] = queue.Queue()
        self.events: list[Event] = []
        self._stopped = False
        self._recipe = space.root / "recipe.yaml"
        request = BuildRequest(self._recipe, space.store, space.cache)

        def run() -> None:
            state = State(space.cache)
            loop = WatchLoop(request, state, self.events.append, self._take, options)
            try:
                loop.run()
            except InterruptedError:
                pass
            finally:
                state.close()

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def _take(self, done: Round) -> None:
        if self._stopped:
            raise InterruptedError
        self.rounds.put(done)

    def next(self) -> Round:
        """The next round."""
        return self.rounds.get(timeout=PATIENCE_S)

    def none_within(self, seconds: float) -> bool:
        """Is no round coming for this long?"""
        try:
            self.rounds.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def wait_for_event(self, is_it: Callable[[Event], bool]) -> None:
        """Until an event has come."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not any(map(is_it, list(self.events))):
            assert time.monotonic() < deadline_s, self.events
            time.sleep(0.005)

    def stop(self) -> None:
        """End the loop with a last edit."""
        self._stopped = True
        with self._recipe.open("a") as file:
            file.write("\n# the end\n")
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@contextmanager
def watching(space: Space, options: WatchOptions = BY_EVENTS) -> Iterator[Watching]:
    """A watch of recipe.yaml, its first build done."""
    loop = Watching(space, options)
    try:
        assert "" == (first := loop.next()).failure, first
        yield loop
    finally:
        loop.stop()
