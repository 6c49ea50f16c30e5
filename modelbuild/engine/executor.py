"""The interface behind which actions run: tasks as plain values go in, outcomes come out, events on the way.

An executor decides where a task runs and nothing else: what runs, and when, is the runner's business. All that a task
says is a value that can be sent to another process or machine; both see the same store, and a cache of their own or
the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from modelbuild.digest import Digest
from modelbuild.errors import ModelbuildError, UsageError, printable
from modelbuild.plan.action import FileInput
from modelbuild.plan.decide import Decision, Result
from modelbuild.plan.graph import Action
from modelbuild.plan.resources import Resources
from modelbuild.records import record
from modelbuild.store.state import FileStat

if TYPE_CHECKING:
    from pathlib import Path

    from modelbuild.engine.workbench import Workbench


@record
class KnownFile:
    """The digest of a file, and the stat record it belongs to; without one when the path leads elsewhere by now."""

    item: FileInput
    digest: Digest
    stat: FileStat | None


@record
class HashTask:
    """Work out the digests of input files of an action."""

    action: Action
    files: tuple[FileInput, ...]
    need: Resources

    @property
    def actions(self) -> tuple[Action, ...]:
        """The action whose inputs they are."""
        return (self.action,)


@record
class RunTask:
    """Run actions, several only where one read of the same weights makes them.

    results: of the actions that they need. known: what the runner knows of their input files.
    """

    decisions: tuple[Decision, ...]
    results: Mapping[str, Result]
    known: tuple[KnownFile, ...]
    need: Resources

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions that run."""
        return tuple(decision.action for decision in self.decisions)


Task = HashTask | RunTask


@record
class Outcome:
    """How a task ended. results: of its actions, in order. error: what ended it instead.

    learnt: digests of files that were read or written. replaced: input files that were replaced after they were used.
    """

    results: tuple[Result, ...] = ()
    learnt: tuple[KnownFile, ...] = ()
    replaced: frozenset[Path] = field(default_factory=frozenset)
    error: ModelbuildError | None = None


class Executor(Protocol):
    """Runs tasks. What happens in them is emitted in the thread that waits."""

    @property
    def other_machines(self) -> int:
        """How many machines do the work instead of this one; 0 when this one does it."""

    def start(self, task: Task) -> None:
        """Begin a task; it may be done when this returns."""

    def wait(self, timeout_s: float) -> tuple[Task, Outcome] | None:
        """The next task that has ended, with its outcome; None when none did within this time."""

    def close(self) -> None:
        """End whatever still runs, at once."""


#: How addresses of Dask schedulers begin.
CLUSTER_SCHEMES = ("tcp://", "tls://")
#: Makes the executor of one run.
MakeExecutor = Callable[["Workbench"], Executor]


class InlineExecutor:
    """Runs each task in the calling thread when it is started; exceptions other than ModelbuildError pass through."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._ended: list[tuple[Task, Outcome]] = []

    @property
    def other_machines(self) -> int:
        """None."""
        return 0

    def start(self, task: Task) -> None:
        """Do all of it."""
        self._ended.append((task, self._bench.attempt(task)))

    def wait(self, timeout_s: float) -> tuple[Task, Outcome] | None:
        """The outcome of what was started before; never waits."""
        del timeout_s
        return self._ended.pop(0) if self._ended else None

    def close(self) -> None:
        """Nothing runs on."""


def executor_named(name: str) -> MakeExecutor:
    """The executor of a name, or of a Dask scheduler's address; UsageError when there is none.

    The cluster is looked for when the executor is made.
    """
    if name == "inline":
        return InlineExecutor
    if name == "workers":
        from modelbuild.engine.local_workers import LocalWorkers

        return LocalWorkers
    if name.startswith(CLUSTER_SCHEMES):
        from modelbuild.engine.dask_cluster import DaskCluster

        return partial(DaskCluster, address=name)
    hint = "'inline', 'workers', and the address of a Dask scheduler such as tcp://HOST:8786 are possible"
    raise UsageError("UNKNOWN", f"no executor {printable(name)!r}", hint=hint)
