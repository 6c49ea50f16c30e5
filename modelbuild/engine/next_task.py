"""What has to be done next for an action: read its inputs, or run it, maybe together with others; or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelbuild.engine.executor import HashTask, RunTask, Task
from modelbuild.engine.ledger import Ledger
from modelbuild.engine.needs import need_of_assemblies, need_of_copy, need_of_reading
from modelbuild.engine.workbench import Workbench, known_files
from modelbuild.errors import ModelbuildError
from modelbuild.plan.action import FileInput
from modelbuild.plan.decide import Decision
from modelbuild.plan.graph import Action, AssembleWork, ImportWork, PublishWork, TextWork
from modelbuild.plan.resources import Resources


class TaskMaker:
    """Makes the tasks of one run."""

    def __init__(self, bench: Workbench, ledger: Ledger, limits: Resources) -> None:
        self._bench = bench
        self._ledger = ledger
        self._limits = limits

    def next_task(self, action: Action, ready: Iterable[Action]) -> Task | None:
        """What an action needs next; None when it is up to date, which is noted, or when an error has ended the run.

        ready: the actions that could run as well, itself included; looked at only where some may run together with it.
        """
        unread = self._unread([action])
        if not unread:
            decision = self._ledger.decide(action)
            if decision.result is not None:
                self._ledger.finish_cached(decision, decision.result)
                return None
            if not isinstance(action.work, AssembleWork):
                return self.run_task([decision])
            companions = self._companions(action, ready)
            if self._ledger.is_over:
                return None
            unread = self._unread(companions)
            if not unread:
                return self.run_task(_distinct([decision, *map(self._ledger.decide, companions)]))
        return HashTask(action, unread, need_of_reading())

    def run_task(self, decisions: Sequence[Decision]) -> RunTask:
        """The task of running actions that have to run, with all it takes."""
        results = self._ledger.results
        actions = [decision.action for decision in decisions]
        files = [item for action in actions for item in action.inputs if isinstance(item, FileInput)]
        needed = {need: results[need] for action in actions for need in action.needs}
        known = known_files(files, self._bench.facts)
        return RunTask(tuple(decisions), needed, known, self._need_of(actions))

    def _unread(self, actions: Iterable[Action]) -> tuple[FileInput, ...]:
        """Input files whose digests no record knows; an import is hashed while it is copied, unless it is there."""
        facts = self._bench.facts
        found = [
            item
            for action in actions
            if not isinstance(action.work, ImportWork) or facts.may_be_imported(action)
            for item in action.inputs
            if isinstance(item, FileInput) and facts.file_digest(item) is None
        ]
        return tuple(dict.fromkeys(found))

    def _companions(self, action: Action, ready: Iterable[Action]) -> list[Action]:
        """Other actions that can be made from the same read of the same weights."""
        results = self._ledger.results
        return [
            other
            for other in ready
            if other is not action
            and isinstance(other.work, AssembleWork)
            and self._bench.builder.shares_source(action, other, results)
            and self._is_sound(other)
        ]

    def _is_sound(self, action: Action) -> bool:
        """Can the action's file be planned? An error is its own: what it would have run together with goes on."""
        try:
            self._bench.builder.prepare(action, self._ledger.results)
        except ModelbuildError as error:
            self._ledger.fail([action], error)
            return False
        return True

    def _need_of(self, actions: Sequence[Action]) -> Resources:
        if isinstance(actions[0].work, TextWork | PublishWork):
            return Resources()
        if not isinstance(actions[0].work, AssembleWork):
            return need_of_copy(actions[0], self._ledger.results)
        prepared = [self._bench.builder.prepare(action, self._ledger.results) for action in actions]
        return need_of_assemblies([assembly for assembly in prepared if assembly is not None], self._limits)


def _distinct(decisions: Iterable[Decision]) -> list[Decision]:
    """Those that run, each output once: whoever makes the same finds it made."""
    found: dict[str, Decision] = {}
    for item in decisions:
        if item.runs and item.manifest is not None:
            found.setdefault(item.manifest.key, item)
    return list(found.values())
