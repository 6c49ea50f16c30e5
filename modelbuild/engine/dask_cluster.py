"""Runs tasks on the workers of a Dask cluster: machines that see the store and the sources at the same paths.

Dask carries tasks, outcomes and events, watches its workers, and gives the task of a lost one to another, which goes on
where the partial file in the store ends. Every machine keeps a cache of its own; what it learnt about files is
translated, since device numbers and inodes of one file may differ from machine to machine.
"""

from __future__ import annotations

import io
import logging
import pickle
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from modelbuild.engine.executor import Outcome, RunTask, Task
from modelbuild.engine.workbench import BenchOptions, Workbench
from modelbuild.engine.worker import Teller
from modelbuild.errors import UsageError, WorkerError, printable
from modelbuild.events import Event
from modelbuild.places import default_cache
from modelbuild.plan.graph import AdapterBaseFiles, AssembleWork, ExportWork, ImportWork
from modelbuild.records import record
from modelbuild.store.state import FileStat, State, trusted_since
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from distributed import Client, Future

    from modelbuild.engine.executor import KnownFile

#: For the scheduler to answer at all.
_CONNECT_S = 10
_HINT = "is the address right, and does the cluster run? 'dask scheduler' and 'dask worker ADDRESS' start one"
_LOST = "the connection to the cluster was lost"
_TLS_HINT = "is the address right, does the cluster run, and does Dask's configuration name the certificates?"


class DaskCluster:
    """An executor whose workers are elsewhere; the runner decides, locks and records here, as ever."""

    def __init__(self, bench: Workbench, address: str) -> None:
        """Connect to the scheduler at an address such as tcp://HOST:8786; WorkerError when there is none."""
        self._emit = bench.emit
        self._facts = bench.facts
        self._topic = f"modelbuild-{uuid4().hex}"
        self._parcel = _Parcel(bench.store.root, bench.options, self._topic)
        self._client = _connect(address)
        self._arrived: SimpleQueue[bytes | Future] = SimpleQueue()
        self._client.subscribe_topic(self._topic, lambda event: self._arrived.put(event[1]))
        self._sent: dict[Future, _Sent] = {}

    @property
    def other_machines(self) -> int:
        """How many workers there are now, at least one; WorkerError when the scheduler is lost."""
        self._check_connection()
        return max(1, len(self._client.nthreads()))

    def start(self, task: Task) -> None:
        """Send a task. Which worker gets it is Dask's business, which prefers idle ones and replaces lost ones."""
        sent = _Sent.now(task)
        future = self._client.submit(work_on, _packed((self._parcel, task)), pure=False)
        self._sent[future] = sent
        future.add_done_callback(self._arrived.put)

    def wait(self, timeout_s: float) -> tuple[Task, Outcome] | None:
        """Pass on what workers say until one has ended its task."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                arrived = self._arrived.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except Empty:
                return None
            if isinstance(arrived, bytes):
                self._emit(pickle.loads(arrived))  # noqa: S301 - from our own cluster, which runs what we send
            else:
                sent = self._sent.pop(arrived)
                return sent.task, self._settled(sent, _outcome_of(arrived, sent.task))

    def close(self) -> None:
        """Take back what still runs: its worker notices at the next block, and the partial file stays."""
        if self._sent:
            self._client.cancel(list(self._sent), force=True)
            self._sent.clear()
        self._client.close()

    def _check_connection(self) -> None:
        if self._client.status != "running":
            raise WorkerError("WORKER", _LOST, hint=_HINT)

    def _settled(self, sent: _Sent, outcome: Outcome) -> Outcome:
        """An outcome in terms of this machine: digests of files that did not change are remembered here as well."""
        learnt = tuple(self._learn(sent, known) for known in outcome.learnt)
        return replace(outcome, learnt=learnt, replaced=frozenset(map(sent.local_path, outcome.replaced)))

    def _learn(self, sent: _Sent, known: KnownFile) -> KnownFile:
        """A digest from elsewhere; it is remembered when the file has been the same one here since before the task."""
        item = replace(known.item, path=sent.local_path(known.item.path))
        unsure = replace(known, item=item, stat=None)
        try:
            status = item.path.stat()
        except OSError:
            return unsure
        before, stat = sent.stats.get(item.path), FileStat.of(status)
        if known.stat is None or not _agree(known.stat, stat):
            return unsure
        if before is not None and not before.is_same_content(stat):
            return unsure
        self._facts.remember(item, stat, known.digest, trusted_since(status, sent.started_ns))
        return replace(unsure, stat=stat)


@record
class _Parcel:
    """What goes with each task. topic: the name under which its events are sent back."""

    store: Path
    options: BenchOptions
    topic: str


@record
class _Sent:
    """A task on its way. stats: of its input files, and started_ns: the time, before it was sent."""

    task: Task
    stats: dict[Path, FileStat]
    started_ns: int

    @classmethod
    def now(cls, task: Task) -> _Sent:
        """A task that is about to be sent."""
        started_ns = time.time_ns()
        stats = {path: FileStat.of(path.stat()) for path in _inputs_of(task) if path.exists()}
        return cls(task, stats, started_ns)

    def local_path(self, path: Path) -> Path:
        """The path of a file of the task as the runner writes it; workers have no part in its current directory."""
        return next((ours for ours in (*self.stats, *_outputs_of(self.task)) if ours.absolute() == path), path)


class _AbsolutePickler(pickle.Pickler):
    """Sends paths so that they lead to the same files from any current directory."""

    def reducer_override(self, value: Any) -> Any:
        """How to send a value; NotImplemented for the usual way."""
        if isinstance(value, Path):
            return Path, (str(value.absolute()),)
        if isinstance(value, AssembleWork | AdapterBaseFiles) and value.checkpoint and _is_relative(value.origin):
            return replace(value, origin=str(Path(value.origin).absolute())).__reduce__()
        return NotImplemented


def _is_relative(origin: str) -> bool:
    """Is this the path of a directory that only the runner's current directory gives a meaning?"""
    return not Path(origin).is_absolute() and Path(origin).is_dir()


def _packed(value: object) -> bytes:
    parcel = io.BytesIO()
    _AbsolutePickler(parcel).dump(value)
    return parcel.getvalue()


def _connect(address: str) -> Client:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        from modelbuild.extras import install_hint

        raise UsageError("EXTRA", "a Dask cluster needs the extra 'dask'", hint=install_hint("dask")) from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it logs is an error of ours
    client = None
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False, name="modelbuild")
        client.wait_for_workers(1, timeout=_CONNECT_S)
    except (OSError, TimeoutError, ValueError, TypeError) as error:  # the last where TLS is not configured
        hint = _TLS_HINT if address.startswith("tls:") else _HINT
        if client is not None:
            client.close()
            raise WorkerError("WORKER", f"the cluster at {printable(address)} has no workers", hint=_HINT) from error
        raise WorkerError("WORKER", f"no Dask scheduler answers at {printable(address)}", hint=hint) from error
    return client


def _outcome_of(future: Future, task: Task) -> Outcome:
    """What became of a task; RuntimeError for a mistake in this program, as everywhere."""
    from distributed import KilledWorker

    titles = ", ".join(action.title for action in task.actions)
    if future.status == "finished":
        outcome: Outcome = pickle.loads(future.result())  # noqa: S301 - see above
        return outcome
    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker):
            hint = "if memory is short, use fewer cores with --jobs"
            return Outcome(error=WorkerError("WORKER", f"{titles}: the workers that tried it were lost", hint=hint))
        if not isinstance(error, _Unreachable):
            raise RuntimeError(f"a worker failed at {titles}") from error
        hint = "all machines of a cluster need the store and the sources at the same paths"
        return Outcome(error=WorkerError("WORKER", f"{titles}: {error}", hint=hint))
    return Outcome(error=WorkerError("WORKER", f"{titles}: {_LOST}", hint=_HINT))


# -- on the worker -----------------------------------------------------------------------------------------------------


class _Unreachable(Exception):
    """A worker's machine does not see what a task speaks of."""


class _TakenBack(BaseException):
    """Nobody waits for the task any more; no Exception, so that partial work stays."""


def work_on(parcel: bytes) -> bytes:
    """Do one task; takes it, and gives its outcome, as bytes that only workers and runners look into."""
    from distributed import get_worker

    order, task = pickle.loads(parcel)  # noqa: S301 - from whom this worker serves
    worker: Any = get_worker()
    _check_reach(order.store, task)

    def send(event: Event) -> None:
        worker.log_event(order.topic, pickle.dumps(event))

    state = State(default_cache())
    try:
        store = Store(order.store)
        bench = Workbench(store, state, _unless_taken_back(worker, Teller(send)), order.options)
        with store.hold():
            return pickle.dumps(bench.attempt(_fitted(task, worker.state.nthreads)))
    finally:
        state.close()


def _unless_taken_back(worker: Any, emit: Callable[[Event], None]) -> Callable[[Event], None]:
    """An `Emit` that ends the task once its runner has cancelled it or is gone."""
    key = worker.get_current_task()

    def check_and_emit(event: Event) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise _TakenBack
        emit(event)

    return check_and_emit


def _check_reach(store: Path, task: Task) -> None:
    missing = next((path for path in (store, *_inputs_of(task)) if not path.exists()), None)
    if missing is not None:
        raise _Unreachable(f"the machine {socket.gethostname()} has no {missing}")


def _fitted(task: Task, cores: int) -> Task:
    """The task in terms of this machine: its cores, and its own stat records of the files."""
    if not isinstance(task, RunTask):
        return task
    known = tuple(_seen_here(known) for known in task.known)
    return replace(task, known=known, need=replace(task.need, cores=min(task.need.cores, cores)))


def _seen_here(known: KnownFile) -> KnownFile:
    stat = FileStat.of(known.item.path.stat())
    if known.stat is not None and not _agree(known.stat, stat):
        raise _Unreachable(f"the machine {socket.gethostname()} sees another version of {known.item.path}")
    return replace(known, stat=known.stat and stat)


# -- files, as two machines see them ----------------------------------------------------------------------------------


def _agree(theirs: FileStat, ours: FileStat) -> bool:
    """May two machines speak of the same content? Device and inode need not be equal, nor ctime after a link."""
    return (theirs.size_bytes, theirs.mtime_ns) == (ours.size_bytes, ours.mtime_ns)


def _inputs_of(task: Task) -> set[Path]:
    files = [known.item for known in task.known] if isinstance(task, RunTask) else task.files
    imported = [action.work.path for action in task.actions if isinstance(action.work, ImportWork)]
    return {*imported, *(item.path for item in files)}


def _outputs_of(task: Task) -> set[Path]:
    return {action.work.path for action in task.actions if isinstance(action.work, ExportWork)}
