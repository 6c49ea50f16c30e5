"""Runs a plan: decides each action when its inputs are known, runs what is missing, records what it learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modelbuild.engine.executor import InlineExecutor, MakeExecutor
from modelbuild.engine.publish import Approve, approve_all
from modelbuild.engine.runner import Runner, RunnerOptions, RunSummary
from modelbuild.engine.workbench import BenchOptions, Workbench
from modelbuild.events import Emit, Warned
from modelbuild.plan.graph import Plan
from modelbuild.records import record
from modelbuild.store.state import State
from modelbuild.store.store import Store


def _go_on() -> None:
    """The check of a run that nobody ends."""


@record
class RunOptions:
    """How to run.

    link: one of store.link_mode.LINK_MODES. force: run everything. workers: cores that actions may use together.
    keep_going: after an error, go on with what does not depend on it.
    allow_nonfinite: pack weights that are infinite or no number as llama.cpp's functions do, instead of refusing them.
    check: called again and again while others work; may end the run by an exception, as `emit` may.
    approve: called with a model's name and its manifest's digest before it is published; may refuse by an exception.
    executor: makes what runs the actions, see `engine.executor`.
    locks: the cache whose locks the run shares; that of its state when None.
    """

    link: str = "auto"
    force: bool = False
    workers: int | None = None
    keep_going: bool = False
    allow_nonfinite: bool = False
    check: Callable[[], None] = _go_on
    approve: Approve = approve_all
    executor: MakeExecutor = InlineExecutor
    locks: Path | None = None


def run_plan(
    plan: Plan,
    store: Store,
    state: State,
    emit: Emit,
    options: RunOptions = RunOptions(),
) -> RunSummary:
    """Bring every model of the plan up to date.

    Everything that headers can tell is checked before the first byte is hashed or written. Raises the first error of
    an action, or with `keep_going` all of them at the end; what was finished stays recorded, so the next run continues
    there.
    """
    bench = Workbench(store, state, emit, BenchOptions(options.link, options.allow_nonfinite))
    how = RunnerOptions(
        options.executor,
        options.workers,
        options.force,
        options.keep_going,
        options.check,
        options.approve,
        options.locks,
    )
    try:
        with store.hold():
            return Runner(plan, bench, how).run()
    finally:
        waiting = store.collect().waiting
        if waiting:
            emit(Warned(waiting))
