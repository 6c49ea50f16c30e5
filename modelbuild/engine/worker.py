"""A worker process: takes tasks from a pipe, does them one by one, and says on the pipe what happens."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from modelbuild.engine.executor import Task
from modelbuild.engine.workbench import BenchOptions, Workbench
from modelbuild.events import ActionProgress, Event
from modelbuild.records import record
from modelbuild.store.state import State
from modelbuild.store.store import Store

#: Progress is for the eye, and each message wakes the runner.
_PROGRESS_INTERVAL_S = 0.1


@record
class Assignment:
    """What a worker works on: the first message on its pipe."""

    store: Path
    cache: Path
    options: BenchOptions


@record
class Crash:
    """An error that is no ModelbuildError, and so a mistake in this program."""

    trace: str


def serve(descriptor: int) -> None:
    """Do the tasks that come over a pipe until its other end is closed."""
    connection = Connection(descriptor)
    assignment: Assignment = connection.recv()
    store = Store(assignment.store)
    bench = Workbench(store, State(assignment.cache), Teller(connection.send), assignment.options)
    tasks: SimpleQueue[Task] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    while True:
        task = tasks.get()
        try:
            with store.hold():
                outcome = bench.attempt(task)
        except Exception:  # noqa: BLE001 - the top of a worker: the runner raises it again
            connection.send(Crash(traceback.format_exc()))
        else:
            connection.send(outcome)


def _receive(connection: Connection, tasks: SimpleQueue[Task]) -> None:
    """Pass tasks on. When the runner is gone its locks are free, so this process must not go on for a moment."""
    while True:
        try:
            tasks.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


class Teller:
    """An `Emit` that sends events to where the runner is, progress not too often."""

    def __init__(self, send: Callable[[Event], object]) -> None:
        self._send = send
        self._next_progress_s = 0.0

    def __call__(self, event: Event) -> None:
        """Send one event."""
        if isinstance(event, ActionProgress):
            now_s = time.monotonic()
            if now_s < self._next_progress_s:
                return
            self._next_progress_s = now_s + _PROGRESS_INTERVAL_S
        self._send(event)
