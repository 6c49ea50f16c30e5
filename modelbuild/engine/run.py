"""Runs a plan: decides each action when its inputs are known, runs what is missing, records what it learnt."""

from __future__ import annotations

from modelbuild.engine.ledger import RunSummary
from modelbuild.engine.run_options import RunOptions
from modelbuild.engine.runner import Runner
from modelbuild.engine.workbench import BenchOptions, Workbench
from modelbuild.events import Emit, Warned
from modelbuild.plan.graph import Plan
from modelbuild.store.state import State
from modelbuild.store.store import Store


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
    try:
        with store.hold():
            return Runner(plan, bench, options).run()
    finally:
        waiting = store.collect().waiting
        if waiting:
            emit(Warned(waiting))
