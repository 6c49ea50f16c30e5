"""A server in a thread beside other work, which shows its builds on the page and in the event stream."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from modelbuild.events import Event, Warned
from modelbuild.server.answers import Refusal
from modelbuild.server.app import Application
from modelbuild.server.builds import Build
from modelbuild.server.run import refuse_open, serving
from modelbuild.server.settings import ServerSettings

#: Warnings that wait for a build. They may come again and again for days without one.
_EARLY_WARNINGS = 20


class ServerBeside:
    """Serves from `start` to `stop`; the other methods may be called from any one thread in between."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)
        self._build: Build | None = None
        self._early: deque[Event] = deque(maxlen=_EARLY_WARNINGS)

    def start(self) -> int:
        """The port, once connections are accepted; raises as `run_server` does."""
        refuse_open(self._settings)
        self._thread.start()
        return self._started.result()

    def show(self, event: Event) -> None:
        """Pass on an event of the build under way; the first one begins it, but a warning waits for others."""
        self._call(lambda: self._take(event))

    def finish(self, models: tuple[str, ...], failure: str, *, is_stopped: bool = False) -> None:
        """End the build under way. failure: why it failed or was stopped, empty when it did not."""
        self._call(lambda: self._end(models, failure, is_stopped=is_stopped))

    def stop(self) -> None:
        """End the server in good order."""
        self._call(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            self._application = Application(self._settings)
            async with serving(self._settings, self._application) as port:
                self._started.set_result(port)
                await self._stopping.wait()
        except Exception as error:  # top of a thread: whoever waits in `start` has to hear of it
            if self._started.done():
                raise
            self._started.set_exception(error)

    def _call(self, work: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(work)

    def _take(self, event: Event) -> None:
        if self._build is None and isinstance(event, Warned):
            self._early.append(event)  # it may be about what hinders a build, and no build may follow
            return
        self._application.note(self._begun(), event)

    def _begun(self) -> Build:
        """The build under way, which begins now if there was none."""
        if self._build is None:
            self._build = self._application.begin_elsewhere("watch")
            for event in self._early:
                self._application.note(self._build, event)
            self._early.clear()
        return self._build

    def _end(self, models: tuple[str, ...], failure: str, *, is_stopped: bool) -> None:
        build = self._begun()
        self._build = None
        build.title = ", ".join(models) or build.title
        build.state = "cancelled" if is_stopped else "failed" if failure else "done"
        build.refusal = Refusal(400, failure) if failure else None
        self._application.note(build, None)
