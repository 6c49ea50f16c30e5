"""What has become of the actions of a run: decided, done, failed; told to who listens, and recorded for later runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from modelbuild.engine.run_options import RunOptions
from modelbuild.engine.workbench import Workbench
from modelbuild.errors import InputError, ModelbuildError, ProblemCollector
from modelbuild.events import ActionFinished, ModelFinished
from modelbuild.plan.action import FileInput
from modelbuild.plan.decide import Decision, Result, decide
from modelbuild.plan.graph import Action, Plan, PublishWork
from modelbuild.records import record
from modelbuild.store.state import ActionRecord

if TYPE_CHECKING:
    from pathlib import Path


@record(frozen=False)
class RunSummary:
    """What a run did. results: by action id; decisions: in the order they were taken.

    is_outdated: an input was replaced after it had been used, so there is something to build already.
    """

    results: dict[str, Result] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    is_outdated: bool = False

    @property
    def ran(self) -> tuple[str, ...]:
        """The ids of the actions that ran."""
        return tuple(decision.action.id for decision in self.decisions if decision.runs)


class Ledger:
    """The account of one run: every end of an action is told, counted and recorded here.

    todo: what has not ended, by id, in plan order. failed: how many actions failed.
    """

    def __init__(self, plan: Plan, bench: Workbench, options: RunOptions) -> None:
        self._bench = bench
        self._options = options
        self.summary = RunSummary()
        self.todo = {action.id: action for action in plan.actions}
        self.failed = 0
        self._problems = ProblemCollector()
        self._started_s: dict[str, float] = {}
        #: Actions that failed, or that need one that did.
        self._broken: set[str] = set()
        self._replaced: set[Path] = set()
        #: The keys of what this run has made.
        self._made: set[str] = set()

    @property
    def results(self) -> dict[str, Result]:
        """The results of the actions that ended well, by id."""
        return self.summary.results

    @property
    def is_over(self) -> bool:
        """Has an error ended the run?"""
        return bool(self._problems.errors) and not self._options.keep_going

    def raise_problems(self) -> None:
        """Raise the errors of the actions that failed, if there are any."""
        self._problems.finish()

    def is_due(self, action: Action) -> bool:
        """Has the action not ended, and has all that it needs?"""
        is_left = action.id in self.todo and action.id not in self._broken
        return is_left and all(need in self.results for need in action.needs)

    def drop_if_blocked(self, action: Action) -> bool:
        """Did the action, or one that it needs, fail before?"""
        if action.id in self._broken or any(need in self._broken for need in action.needs):
            self._broken.add(action.id)
            del self.todo[action.id]
            return True
        return False

    def decide(self, action: Action) -> Decision:
        """The decision about an action, from what is known now."""
        decision = decide(action, self.results, self._bench.facts, force=self._options.force)
        if decision.manifest is not None and decision.manifest.key in self._made:
            return decide(action, self.results, self._bench.facts)  # forced means made anew, as this run has just done
        return decision

    def begin(self, actions: Iterable[Action]) -> None:
        """Work on these actions begins; what they take counts from the first time."""
        for action in actions:
            self._started_s.setdefault(action.id, time.monotonic())

    def note_replaced(self, paths: Iterable[Path]) -> None:
        """Input files that were replaced after they had been used."""
        self._replaced.update(paths)

    def finish_run(self, decision: Decision, result: Result) -> None:
        """An action has run: record its result, unless it is that of an input which is not there any more."""
        action = decision.action
        if decision.manifest is None:  # an import: its input became known by running it
            later = decide(action, self.results, self._bench.facts)
            if later.manifest is None:
                raise InputError("CHANGED", "the file changed while it was imported", key=action.title)
            decision = Decision(action, later.manifest, None, decision.reasons)
        if any(isinstance(item, FileInput) and item.path in self._replaced for item in action.inputs):
            self.summary.is_outdated = True
        elif decision.manifest is not None:
            record = ActionRecord(decision.manifest.key, decision.manifest.encode(), result.encode())
            self._bench.state.record_action(self._bench.facts.output_id(action), record)
            self._made.add(record.key)
        self._finish(decision, result, "ran", "built")

    def finish_cached(self, decision: Decision, result: Result) -> None:
        """An action is up to date: record what its output is now, so that the next reason is the difference to this."""
        output, manifest = self._bench.facts.output_id(decision.action), decision.manifest
        if manifest is not None and self._bench.state.last_key(output) != manifest.key:
            self._bench.state.record_action(output, ActionRecord(manifest.key, manifest.encode(), result.encode()))
        self._finish(decision, result, "cached", "unchanged")

    def fail(self, actions: Sequence[Action], error: ModelbuildError) -> None:
        """Actions failed. The error is raised at the end, which is near unless `keep_going` says otherwise."""
        self._problems.add(error)
        for action in actions:
            self.failed += 1
            self._broken.add(action.id)
            self._tell_end(action, "failed")

    def _finish(self, decision: Decision, result: Result, outcome: str, model_outcome: str) -> None:
        action = decision.action
        del self.todo[action.id]
        self.results[action.id] = result
        self.summary.decisions.append(decision)
        self._tell_end(action, outcome, result.digest, result.size_bytes)
        if isinstance(action.work, PublishWork):
            name = str(action.work.target)
            self._bench.emit(ModelFinished(name, model_outcome, result.digest, result.size_bytes))

    def _tell_end(self, action: Action, outcome: str, digest: str = "", size_bytes: int = 0) -> None:
        now_s = time.monotonic()
        seconds = now_s - self._started_s.get(action.id, now_s)
        self._bench.emit(ActionFinished(action.id, action.kind, action.title, outcome, digest, size_bytes, seconds))
