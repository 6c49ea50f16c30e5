"""Runs a plan: decides each action when its inputs are known, runs what is missing, records what it learnt."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.digest import Digest
from modelbuild.engine.facts import WorldFacts, replaced_warning
from modelbuild.engine.locks import ActionLocks
from modelbuild.engine.publish import Approve, approve_all, publish_model
from modelbuild.errors import InputError, ModelbuildError, ProblemCollector
from modelbuild.events import (
    ActionFinished,
    ActionProgress,
    ActionStarted,
    ActionWaiting,
    Emit,
    ModelFinished,
    RunFinished,
    RunStarted,
    Warned,
)
from modelbuild.formats.files import open_input
from modelbuild.plan.action import DigestInput, FileInput
from modelbuild.plan.decide import Decision, Result, decide
from modelbuild.plan.graph import Action, AssembleWork, ExportWork, ImportWork, Plan, PublishWork, TextWork
from modelbuild.store.staged import free_space, no_space
from modelbuild.store.state import ActionRecord, FileStat, State, trusted_since
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from modelbuild.engine.weights import WeightsBuilder

#: Room left beside a result for the small documents and the file system's own needs.
SPACE_MARGIN_BYTES = 64 << 20


def _go_on() -> None:
    """The check of a run that nobody ends."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run.

    link: one of store.link_mode.LINK_MODES. force: run everything. workers: threads that pack weights.
    keep_going: after an error, go on with what does not depend on it.
    allow_nonfinite: pack weights that are infinite or no number as llama.cpp's functions do, instead of refusing them.
    check: called while another process is waited for; may end the run by an exception, as `emit` may.
    approve: called with a model's name and its manifest's digest before it is published; may refuse by an exception.
    """

    link: str = "auto"
    force: bool = False
    workers: int | None = None
    keep_going: bool = False
    allow_nonfinite: bool = False
    check: Callable[[], None] = _go_on
    approve: Approve = approve_all


@dataclass(slots=True)
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


def decide_all(plan: Plan, store: Store, state: State, *, force: bool = False) -> list[Decision]:
    """What a run would do, as far as it can be told without reading weights; changes nothing."""
    facts = WorldFacts(store, state)
    results: dict[str, Result] = {}
    decisions = []
    for action in plan.actions:
        decision = decide(action, results, facts, force=force)
        decisions.append(decision)
        result = decision.result or decision.expected
        if result is not None:
            results[action.id] = result
    return decisions


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
    try:
        with store.hold():
            return _Runner(plan, store, state, emit, options).run()
    finally:
        waiting = store.collect().waiting
        if waiting:
            emit(Warned(waiting))


class _Runner:
    """One execution of a plan."""

    def __init__(self, plan: Plan, store: Store, state: State, emit: Emit, options: RunOptions) -> None:
        self._plan = plan
        self._store = store
        self._state = state
        self._emit = emit
        self._options = options
        self._facts = WorldFacts(store, state)
        self._locks = ActionLocks(state.path.parent)
        self._weights: WeightsBuilder | None = None
        self._summary = RunSummary()
        self._failed = 0
        self._broken: set[str] = set()
        self._outdated: set[Path] = set()
        self._problems = ProblemCollector()

    def run(self) -> RunSummary:
        started_s = time.monotonic()
        self._emit(RunStarted(tuple(str(name) for name in self._plan.models), len(self._plan.actions)))
        self._prepare()
        self._store.blobs.sweep()
        outcome = "stopped"
        try:
            for action in self._plan.actions:
                if action.id not in self._summary.results and not self._is_blocked(action):
                    self._take_or_note(action)
            outcome = "failed" if self._failed else "done"
        except ModelbuildError:
            outcome = "failed"
            raise
        finally:
            ran = len(self._summary.ran)
            cached = len(self._summary.decisions) - ran
            self._emit(RunFinished(ran, cached, self._failed, time.monotonic() - started_s, outcome))
        self._problems.finish()
        return self._summary

    def _take_or_note(self, action: Action) -> None:
        """Take an action; with `keep_going` an error is shown at the end, and stops only what depends on it."""
        try:
            self._take(action)
        except ModelbuildError as error:
            if not self._options.keep_going:
                raise
            self._problems.add(error)

    def _is_blocked(self, action: Action) -> bool:
        """Did the action, or one that it needs, fail before?"""
        if action.id in self._broken or any(need in self._broken for need in action.needs):
            self._broken.add(action.id)
            return True
        return False

    def _prepare(self) -> None:
        """Check by headers alone whatever may have to run, and whether the disk has room for it."""
        problems = ProblemCollector()
        needed_bytes = 0
        for decision in decide_all(self._plan, self._store, self._state, force=self._options.force):
            if not decision.runs or not isinstance(decision.action.work, AssembleWork):
                continue
            try:
                assembly = self._builder().prepare(decision.action, self._summary.results)
                needed_bytes += 0 if assembly is None else assembly.layout.file_size
            except ModelbuildError as error:
                problems.add(error)
                self._report_failure([decision.action], 0.0)
        if not self._options.keep_going:
            problems.finish()
        self._problems = problems
        if needed_bytes and needed_bytes + SPACE_MARGIN_BYTES > free_space(self._store.root):
            raise no_space(self._store.root, needed_bytes + SPACE_MARGIN_BYTES)

    def _builder(self) -> WeightsBuilder:
        """The builder of weights; it imports numpy, so it is made when weights have to be built."""
        if self._weights is None:
            from modelbuild.engine.weights import WeightsBuilder

            allowed = self._options.allow_nonfinite
            self._weights = WeightsBuilder(self._store, self._state, self._facts, self._emit, allow_nonfinite=allowed)
        return self._weights

    # -- one action, or several that share a read ------------------------------------------------------------------

    def _take(self, action: Action) -> None:
        started_s = time.monotonic()
        batch = [action]
        try:
            decision = self._decide(action)
            if decision.result is not None:
                self._finish(decision, decision.result, started_s)
                return
            decisions = [decision, *self._companions(action)]
            batch = [item.action for item in decisions]
            self._run_alone(decisions, started_s)
        except ModelbuildError:
            self._report_failure(batch, time.monotonic() - started_s)
            raise

    def _run_alone(self, decisions: list[Decision], started_s: float) -> None:
        """Run actions unless another process does so at this moment; then take what it made."""
        first = decisions[0].action

        def report(holder: str) -> None:
            self._emit(ActionWaiting(first.id, first.title, holder))

        with self._locks.hold([_lock_name(item) for item in decisions], report, self._options.check):
            # Even a lock that was free at once may have been released by a process that did the work meanwhile.
            decisions = self._decide_again(decisions, started_s)
            if decisions:
                for item, result in zip(decisions, self._execute(decisions), strict=True):
                    self._finish(self._record(item, result), result, started_s)

    def _decide_again(self, decisions: list[Decision], started_s: float) -> list[Decision]:
        """Those that still have to run; the others are finished with the result another process left."""
        left = []
        for item in decisions:
            again = self._decide(item.action)
            if again.result is None:
                left.append(again)
            else:
                self._finish(again, again.result, started_s)
        return left

    def _decide(self, action: Action) -> Decision:
        if not isinstance(action.work, ImportWork) or self._facts.may_be_imported(action):
            self._hash_inputs(action)  # any other import is hashed while it is copied
        return decide(action, self._summary.results, self._facts, force=self._options.force)

    def _companions(self, action: Action) -> list[Decision]:
        """Later actions that can be made from the same read of the same weights, and have to be."""
        if not isinstance(action.work, AssembleWork):
            return []
        found = []
        for other in self._plan.actions:
            if other is action or other.id in self._summary.results or not isinstance(other.work, AssembleWork):
                continue
            if not self._builder().shares_source(action, other, self._summary.results):
                continue
            decision = self._decide(other)
            if decision.runs and decision.manifest is not None:
                found.append(decision)
        return found

    def _finish(self, decision: Decision, result: Result, started_s: float) -> None:
        action = decision.action
        self._summary.results[action.id] = result
        self._summary.decisions.append(decision)
        outcome = "ran" if decision.runs else "cached"
        seconds = time.monotonic() - started_s
        self._emit(
            ActionFinished(action.id, action.kind, action.title, outcome, result.digest, result.size_bytes, seconds)
        )
        if isinstance(action.work, PublishWork):
            state = "built" if decision.runs else "unchanged"
            self._emit(ModelFinished(str(action.work.target), state, result.digest, result.size_bytes))

    def _report_failure(self, actions: list[Action], seconds: float) -> None:
        for action in actions:
            self._failed += 1
            self._broken.add(action.id)
            self._emit(ActionFinished(action.id, action.kind, action.title, "failed", "", 0, seconds))

    def _hash_inputs(self, action: Action) -> None:
        """Work out the digests of input files that no record knows."""
        unknown = [
            item for item in action.inputs if isinstance(item, FileInput) and self._facts.file_digest(item) is None
        ]
        total_bytes = sum(item.path.stat().st_size for item in unknown)
        done_bytes = 0
        for item in unknown:
            before_bytes = done_bytes

            def report(file_bytes: int, before_bytes: int = before_bytes) -> None:
                self._emit(ActionProgress(action.id, before_bytes + file_bytes, total_bytes))

            self._facts.hash_file(item, report)
            done_bytes += item.path.stat().st_size

    def _execute(self, decisions: list[Decision]) -> list[Result]:
        for decision in decisions:
            action = decision.action
            total_bytes = self._total_bytes(action)
            self._emit(ActionStarted(action.id, action.kind, action.title, decision.reasons, total_bytes))
        action, work = decisions[0].action, decisions[0].action.work
        if isinstance(work, ImportWork):
            return [self._import(action, work)]
        if isinstance(work, TextWork):
            return [Result(self._store.blobs.put(work.data), len(work.data))]
        if isinstance(work, AssembleWork):
            results = self._builder().run(decisions, self._summary.results, workers=self._options.workers)
            return [results[decision.action.id] for decision in decisions]
        if isinstance(work, ExportWork):
            return [self._export(action, work)]
        return [publish_model(work, self._summary.results, self._store, self._state, self._options.approve)]

    def _export(self, action: Action, work: ExportWork) -> Result:
        from modelbuild.engine.export_files import export_file

        recorded_ns = time.time_ns()
        result = export_file(work, self._store, lambda done_bytes: self._emit(ActionProgress(action.id, done_bytes, 0)))
        item = FileInput("output", work.path)
        self._facts.remember(item, FileStat.of(work.path.stat()), result.digest, recorded_ns)
        return result

    def _total_bytes(self, action: Action) -> int:
        if isinstance(action.work, ImportWork):
            return action.work.path.stat().st_size
        if not isinstance(action.work, AssembleWork):
            return 0
        assembly = self._builder().prepare(action, self._summary.results)
        return 0 if assembly is None else assembly.layout.file_size

    def _import(self, action: Action, work: ImportWork) -> Result:
        item = action.inputs[0]
        recorded_ns = time.time_ns()
        with open_input(work.path) as source:
            known = item.digest if isinstance(item, DigestInput) else None
            if isinstance(item, FileInput):
                digest, stat = self._facts.file_digest(item), self._facts.stat_of(item.path)
                known = digest if stat == FileStat.of(source.stat) else None

            def report(done_bytes: int) -> None:
                self._emit(ActionProgress(action.id, done_bytes, source.size_bytes))

            adopted = self._store.blobs.adopt(source, link=self._options.link, known=known, progress=report)
        if isinstance(item, FileInput):
            self._remember_import(item, FileStat.of(source.stat), adopted.digest, recorded_ns)
        return Result(adopted.digest, adopted.size_bytes)

    def _remember_import(self, item: FileInput, read: FileStat, digest: Digest, recorded_ns: int) -> None:
        """Keep the digest of an imported file; linking moved its ctime, so the record is made afterwards."""
        try:
            status = item.path.stat()
        except OSError:
            status = None
        if status is not None and read.is_same_content(FileStat.of(status)):
            self._facts.remember(item, FileStat.of(status), digest, trusted_since(status, recorded_ns))
            return
        self._facts.assume(item, digest)
        self._outdated.add(item.path)
        self._emit(Warned(replaced_warning(item.path)))

    def _is_outdated(self, action: Action) -> bool:
        """Has an input been replaced after it was used? Then the result is used and not recorded."""
        if self._weights is not None and action.id in self._weights.outdated:
            return True
        return any(isinstance(item, FileInput) and item.path in self._outdated for item in action.inputs)

    def _record(self, decision: Decision, result: Result) -> Decision:
        action = decision.action
        if decision.manifest is None:  # an import: its input became known by running it
            later = decide(action, self._summary.results, self._facts)
            if later.manifest is None:
                raise InputError("CHANGED", "the file changed while it was imported", key=action.title)
            decision = Decision(action, later.manifest, None, decision.reasons)
        if self._is_outdated(action):
            self._summary.is_outdated = True
        elif decision.manifest is not None:
            record = ActionRecord(decision.manifest.key, decision.manifest.encode(), result.encode())
            self._state.record_action(self._facts.output_id(action), record)
        return decision


def _lock_name(decision: Decision) -> str:
    """What two processes must not do at once: the same action key, or an import of the same file."""
    if decision.manifest is not None:
        return decision.manifest.key
    paths = [str(item.path.absolute()) for item in decision.action.inputs if isinstance(item, FileInput)]
    return "\n".join(paths) or decision.action.id
