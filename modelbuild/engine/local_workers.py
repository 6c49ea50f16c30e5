"""Runs tasks in processes of their own: one that is killed, by hand or for its memory, costs an attempt and no build.

`concurrent.futures` breaks its whole pool with the first worker that is lost, and cannot end one task; so a worker
here is a plain process with a pipe to the runner. Partial results survive in the store, so that another attempt goes
on where the lost one ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from modelbuild.engine.executor import Outcome, RunTask, Task
from modelbuild.engine.worker import Assignment, Crash
from modelbuild.errors import WorkerError
from modelbuild.events import ActionRetried, Warned

if TYPE_CHECKING:
    from modelbuild.engine.workbench import Workbench

#: A task that loses its worker as often as this is the cause of it.
ATTEMPTS = 3
#: What a worker runs; it finds modules where this process does.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from modelbuild.engine.worker import serve; serve(int(sys.argv[1]))"
)


@dataclass(slots=True)
class _Worker:
    """A process and the runner's end of the pipe to it."""

    process: subprocess.Popen[bytes]
    connection: Connection


@dataclass(slots=True)
class _Assigned:
    """A task in the hands of a worker. said: warnings that came from it, which a second attempt would repeat."""

    task: Task
    attempt: int = 1
    said: set[Warned] = field(default_factory=set)


class LocalWorkers:
    """Processes on this machine, started when there is something to do and kept until the end of the run."""

    def __init__(self, bench: Workbench) -> None:
        self._emit = bench.emit
        self._assignment = Assignment(bench.store.root, bench.state.path.parent, bench.options)
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, _Assigned]] = {}
        self._ended: list[tuple[Task, Outcome]] = []

    @property
    def other_machines(self) -> int:
        """None."""
        return 0

    def start(self, task: Task) -> None:
        """Give a task to a worker; the runner starts no more than fit on the machine, so there are never too many."""
        self._give(_Assigned(task))

    def wait(self, timeout_s: float) -> tuple[Task, Outcome] | None:
        """Pass on what workers say until one has ended its task; a worker that was lost is replaced."""
        deadline_s = time.monotonic() + timeout_s
        while not self._ended:
            left_s = max(0.0, deadline_s - time.monotonic())
            ready = wait(list(self._busy), left_s) if self._busy else []
            for connection in ready:
                if isinstance(connection, Connection):
                    self._listen(connection)
            if not ready:
                return None
        return self._ended.pop(0)

    def close(self) -> None:
        """Kill all workers: what they have written is in their partial files, and nothing else counts yet."""
        workers = [*self._idle, *(worker for worker, _ in self._busy.values())]
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.wait()
            worker.connection.close()
        self._idle.clear()
        self._busy.clear()

    def _give(self, assigned: _Assigned) -> None:
        try:
            worker = self._idle.pop() if self._idle else self._new_worker()
        except OSError as error:
            message = f"cannot start a worker: {error.strerror}"
            failed = WorkerError("WORKER", message, hint="'--executor inline' needs none")
            self._ended.append((assigned.task, Outcome(error=failed)))
            return
        self._busy[worker.connection] = (worker, assigned)
        with suppress(BrokenPipeError, ConnectionResetError):  # it died while it was idle; reading will tell
            worker.connection.send(assigned.task)

    def _new_worker(self) -> _Worker:
        ours, theirs = Pipe()
        with theirs:
            process = _start_process(theirs.fileno())
        with suppress(BrokenPipeError, ConnectionResetError):
            ours.send(self._assignment)
        return _Worker(process, ours)

    def _listen(self, connection: Connection) -> None:
        """Take one message of a worker: an event, an outcome, or its end."""
        worker, assigned = self._busy[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            self._replace(worker, assigned)
            return
        if isinstance(message, Crash):
            raise RuntimeError(f"a worker failed at {_titles(assigned.task)}:\n{message.trace}")
        if isinstance(message, Outcome):
            del self._busy[connection]
            self._idle.append(worker)
            self._ended.append((assigned.task, message))
        elif message not in assigned.said:
            if isinstance(message, Warned):
                assigned.said.add(message)
            self._emit(message)

    def _replace(self, worker: _Worker, assigned: _Assigned) -> None:
        """Try a task again whose worker was lost, with half the cores: most are killed for the memory they take."""
        worker.connection.close()
        del self._busy[worker.connection]
        cause = _cause_of_death(worker.process.wait())
        task = assigned.task
        if assigned.attempt == ATTEMPTS:
            hint = "if memory is short, use fewer cores with --jobs; --executor inline runs it without a worker"
            message = f"{_titles(task)}: {cause}, {ATTEMPTS} times"
            self._ended.append((task, Outcome(error=WorkerError("WORKER", message, hint=hint))))
            return
        attempt = assigned.attempt + 1
        for action in task.actions:
            self._emit(ActionRetried(action.id, action.title, cause, attempt))
        if isinstance(task, RunTask):
            assigned.task = replace(task, need=replace(task.need, cores=max(1, task.need.cores // 2)))
        self._give(_Assigned(assigned.task, attempt, assigned.said))


def _start_process(descriptor: int) -> subprocess.Popen[bytes]:
    """Start a process that serves a pipe. Ctrl-C reaches it too, and is left to the runner, which then kills it."""
    command = [sys.executable, "-c", _START, str(descriptor), json.dumps(sys.path)]
    env = {"OPENBLAS_NUM_THREADS": "1", **os.environ}  # numpy's linear algebra, which nobody uses here
    with _interrupts_blocked():
        return subprocess.Popen(  # noqa: S603 - this interpreter, with this module's own code
            command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env
        )


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in this thread: a child inherits that, and is deaf to it from its first instruction."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cause_of_death(status: int) -> str:
    if status >= 0:
        return f"its worker left with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"its worker was killed by {name}"


def _titles(task: Task) -> str:
    return ", ".join(action.title for action in task.actions)
