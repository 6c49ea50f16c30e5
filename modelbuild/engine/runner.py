"""One execution of a plan: takes each action when its inputs are known, and starts what has to run as it fits.

The runner alone decides, locks and records; an executor does the work. Nothing here waits while something could go
on: an action that another process works on is put aside and asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from modelbuild.engine.executor import HashTask, Outcome, RunTask, Task
from modelbuild.engine.facts import decide_all
from modelbuild.engine.locks import ActionLocks, Held, Taken
from modelbuild.engine.needs import (
    SPACE_MARGIN_BYTES,
    machine_limits,
    need_of_assemblies,
    need_of_copy,
    need_of_reading,
    turns_of,
)
from modelbuild.engine.publish import publish_model
from modelbuild.engine.run_options import RunOptions
from modelbuild.engine.workbench import Workbench, known_files
from modelbuild.errors import InputError, ModelbuildError, ProblemCollector
from modelbuild.events import ActionFinished, ActionStarted, ActionWaiting, ModelFinished, RunFinished, RunStarted
from modelbuild.formats.files import size_of_file
from modelbuild.plan.action import FileInput
from modelbuild.plan.decide import Decision, Result, decide
from modelbuild.plan.graph import Action, AssembleWork, ImportWork, Plan, PublishWork, TextWork
from modelbuild.plan.resources import Resources, may_start, spread
from modelbuild.records import record
from modelbuild.store.staged import free_space, no_space
from modelbuild.store.state import ActionRecord

if TYPE_CHECKING:
    from pathlib import Path

#: What another process works on is asked for again after so long, and after twice as long each time, up to the second.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.005, 0.2
#: Begins the names of locks that stand for a part of the machine; no key and no path begins so.
_TURN = "turn: "


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


@record(frozen=False)
class _Running:
    """A task under way, with the locks of what it makes."""

    task: Task
    started_s: float
    held: Held


class Runner:
    """One execution of a plan."""

    def __init__(self, plan: Plan, bench: Workbench, options: RunOptions) -> None:
        self._plan = plan
        self._bench = bench
        self._emit = bench.emit
        self._options = options
        self._locks = ActionLocks(options.locks or bench.state.path.parent)
        self._executor = options.executor(bench)
        self._limits = machine_limits(bench.store, options.workers)
        self._summary = RunSummary()
        self._todo = {action.id: action for action in plan.actions}
        self._running: dict[str, _Running] = {}
        #: What an action needs next, once that is known; decided again when it starts.
        self._next: dict[str, Task] = {}
        #: Actions that are to run together with another one.
        self._joined: set[str] = set()
        self._promised: list[Resources] = []
        self._waited_for: dict[str, Taken] = {}
        self._started_s: dict[str, float] = {}
        self._failed = 0
        self._broken: set[str] = set()
        self._replaced: set[Path] = set()
        #: The keys of what this run has made.
        self._made: set[str] = set()
        self._problems = ProblemCollector()

    def run(self) -> RunSummary:
        """Bring every model of the plan up to date."""
        started_s = time.monotonic()
        self._emit(RunStarted(tuple(str(name) for name in self._plan.models), len(self._plan.actions)))
        outcome = "stopped"
        try:
            self._prepare()
            self._bench.store.blobs.sweep()
            self._locks.sweep()
            self._take_all()
            outcome = "failed" if self._failed else "done"
        except ModelbuildError:
            outcome = "failed"
            raise
        finally:
            self._end()
            ran = len(self._summary.ran)
            cached = len(self._summary.decisions) - ran
            self._emit(RunFinished(ran, cached, self._failed, time.monotonic() - started_s, outcome))
        self._problems.finish()
        return self._summary

    def _end(self) -> None:
        """End what still runs, which only an error or an interruption leaves, and sweep up after it."""
        self._executor.close()
        for running in {id(item): item for item in self._running.values()}.values():
            running.held.release()
        if self._running:
            self._bench.store.blobs.sweep()

    def _prepare(self) -> None:
        """Check by headers alone whatever may have to run, and whether the disk has room for it."""
        problems = ProblemCollector()
        needed_bytes = 0
        for decision in decide_all(self._plan, self._bench.store, self._bench.state, force=self._options.force):
            if not decision.runs or not isinstance(decision.action.work, AssembleWork):
                continue
            try:
                assembly = self._bench.builder.prepare(decision.action, self._summary.results)
                needed_bytes += 0 if assembly is None else assembly.layout.file_size
            except ModelbuildError as error:
                problems.add(error)
                self._report_failure([decision.action])
        if not self._options.keep_going:
            problems.finish()
        self._problems = problems
        root = self._bench.store.root
        if needed_bytes and needed_bytes + SPACE_MARGIN_BYTES > free_space(root):
            raise no_space(root, needed_bytes + SPACE_MARGIN_BYTES)

    # -- the loop --------------------------------------------------------------------------------------------------

    def _take_all(self) -> None:
        """Go through what is left, in plan order, until nothing is; after each task that ends there may be more."""
        pause_s = _FIRST_PAUSE_S
        while self._todo and not self._is_over:
            before = len(self._todo), len(self._running)
            self._promised.clear()
            for action in list(self._todo.values()):
                if action.id in self._todo and not self._drop_if_blocked(action) and self._is_ready(action):
                    self._take_or_note(action)
                if self._is_over:
                    return
            if not self._todo:
                return
            self._options.check()
            if before != (len(self._todo), len(self._running)):
                pause_s = _FIRST_PAUSE_S
            if self._running:
                self._collect(pause_s if self._waited_for else _LAST_PAUSE_S)
            elif self._waited_for:
                time.sleep(pause_s)
            elif before == (len(self._todo), 0):
                raise AssertionError(f"nothing can go on: {', '.join(self._todo)}")
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    @property
    def _is_over(self) -> bool:
        """Has an error ended the run?"""
        return bool(self._problems.errors) and not self._options.keep_going

    def _is_ready(self, action: Action) -> bool:
        is_free = action.id not in self._running and action.id not in self._joined
        return is_free and all(need in self._summary.results for need in action.needs)

    def _drop_if_blocked(self, action: Action) -> bool:
        """Did the action, or one that it needs, fail before?"""
        if action.id in self._broken or any(need in self._broken for need in action.needs):
            self._broken.add(action.id)
            del self._todo[action.id]
            return True
        return False

    def _take_or_note(self, action: Action) -> None:
        """Take an action as far as it goes now; an error is kept for the end."""
        try:
            while action.id in self._todo and self._is_ready(action) and action.id not in self._broken:
                task = self._next_task(action)
                if task is None or not self._start(task):
                    return
        except ModelbuildError as error:
            self._part_with_task(action)
            self._fail([action], error)

    def _part_with_task(self, action: Action) -> None:
        """Forget what an action needs next; actions that were to run together with it go their own ways."""
        task = self._next.pop(action.id, None)
        if task is not None:
            self._joined.difference_update(other.id for other in task.actions)

    def _next_task(self, action: Action) -> Task | None:
        """What has to be done for an action; None when it is up to date, or when somebody reads its inputs already."""
        if action.id not in self._next:
            task = self._work_out(action)
            if task is None:
                return None
            self._next[action.id] = task
            self._joined.update(other.id for other in task.actions[1:])
        return self._next[action.id]

    def _work_out(self, action: Action) -> Task | None:
        unread = self._unread([action])
        if not unread:
            decision = self._decide(action)
            if decision.result is not None:
                self._finish(decision, decision.result)
                return None
            if not isinstance(action.work, AssembleWork):
                return self._task_of([decision])
            companions = self._companions(action)
            if self._is_over:
                return None
            unread = self._unread(companions)
            if not unread:
                return self._task_of(_distinct([decision, *map(self._decide, companions)]))
        if any(item.path in self._paths_being_read() for item in unread):
            return None
        return HashTask(action, unread, need_of_reading())

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

    def _paths_being_read(self) -> set[Path]:
        tasks = [running.task for running in self._running.values()]
        return {item.path for task in tasks if isinstance(task, HashTask) for item in task.files}

    def _companions(self, action: Action) -> list[Action]:
        """Later actions that can be made from the same read of the same weights."""
        return [
            other
            for other in self._todo.values()
            if other is not action
            and isinstance(other.work, AssembleWork)
            and other.id not in self._broken
            and self._is_ready(other)
            and self._bench.builder.shares_source(action, other, self._summary.results)
            and self._is_sound(other)
        ]

    def _is_sound(self, action: Action) -> bool:
        """Can the action's file be planned? An error is its own: what it would have run together with goes on."""
        try:
            self._bench.builder.prepare(action, self._summary.results)
        except ModelbuildError as error:
            self._fail([action], error)
            return False
        return True

    def _decide(self, action: Action) -> Decision:
        results, facts = self._summary.results, self._bench.facts
        decision = decide(action, results, facts, force=self._options.force)
        if decision.manifest is not None and decision.manifest.key in self._made:
            return decide(action, results, facts)  # forced means made anew, and this run has just done that
        return decision

    def _task_of(self, decisions: list[Decision]) -> RunTask:
        """The task of running actions that have to run, with all it takes."""
        results = self._summary.results
        actions = [decision.action for decision in decisions]
        files = [item for action in actions for item in action.inputs if isinstance(item, FileInput)]
        needed = {need: results[need] for action in actions for need in action.needs}
        known = known_files(files, self._bench.facts)
        return RunTask(tuple(decisions), needed, known, self._need_of(actions))

    def _need_of(self, actions: list[Action]) -> Resources:
        if isinstance(actions[0].work, TextWork | PublishWork):
            return Resources()
        if not isinstance(actions[0].work, AssembleWork):
            return need_of_copy(actions[0], self._summary.results)
        prepared = [self._bench.builder.prepare(action, self._summary.results) for action in actions]
        return need_of_assemblies([assembly for assembly in prepared if assembly is not None], self._limits)

    # -- one task --------------------------------------------------------------------------------------------------

    def _start(self, task: Task) -> bool:
        """Start a task if the machine has room and nobody else is on it; false when it has to wait."""
        room = spread(self._limits, self._executor.other_machines)
        if not may_start(task.need, [*self._needs_of_running(), *self._promised], room):
            self._promised.append(task.need)
            return False
        held = Held()
        if isinstance(task, RunTask):
            if not self._names_in_the_making().isdisjoint(map(_lock_name, task.decisions)):
                return False
            found = self._lock(task)
            if found is None:
                return False
            held = found
        self._part_with_task(task.actions[0])
        for action in task.actions:
            self._started_s.setdefault(action.id, time.monotonic())
        try:
            if isinstance(task, RunTask):
                # Even a lock that was free at once may have been released by a process that did the work meanwhile.
                again = self._decide_again(task)
                if again is None:
                    held.release()
                    return True
                task = again
            self._run(task, held)
        except BaseException:
            held.release()
            raise
        return True

    def _names_in_the_making(self) -> set[str]:
        """The locks of actions under way; another model of this run may want the same."""
        tasks = [running.task for running in self._running.values()]
        return {_lock_name(item) for task in tasks if isinstance(task, RunTask) for item in task.decisions}

    def _needs_of_running(self) -> list[Resources]:
        return [running.task.need for running in {id(item): item for item in self._running.values()}.values()]

    def _lock(self, task: RunTask) -> Held | None:
        """The locks of what a task makes and of its turn, unless somebody has one: then it is said once who that is."""
        is_here = not self._executor.other_machines
        scarce = turns_of(task.actions, task.need, self._limits) if is_here else ()
        turns = {_TURN + name: name for name in scarce}
        found = self._locks.try_hold([*(_lock_name(decision) for decision in task.decisions), *turns])
        first = task.actions[0]
        if isinstance(found, Held):
            self._waited_for.pop(first.id, None)
            return found
        if self._waited_for.get(first.id) != found:
            self._waited_for[first.id] = found
            self._emit(ActionWaiting(first.id, first.title, found.holder, turns.get(found.name, "")))
        return None

    def _decide_again(self, task: RunTask) -> RunTask | None:
        """The task with what still has to run; what another process did meanwhile is finished. None for nothing."""
        left = []
        for item in task.decisions:
            again = self._decide(item.action)
            if again.result is None:
                left.append(again)
            else:
                self._finish(again, again.result)
        return self._task_of(left) if left else None

    def _run(self, task: Task, held: Held) -> None:
        """Do a task: small ones here and now, the others where the executor sees fit."""
        running = _Running(task, self._started_s[task.actions[0].id], held)
        if isinstance(task, RunTask):
            for decision in task.decisions:
                action = decision.action
                total_bytes = self._total_bytes(action)
                self._emit(ActionStarted(action.id, action.kind, action.title, decision.reasons, total_bytes))
            small = self._do_small(task.decisions[0].action)
            if small is not None:
                self._settle(running, Outcome((small,)))
                return
        for action in task.actions:
            self._running[action.id] = running
        self._executor.start(task)
        self._collect(0.0)

    def _do_small(self, action: Action) -> Result | None:
        """The result of what takes no time, and must not be far from the record of it; None for everything else."""
        store, work = self._bench.store, action.work
        if isinstance(work, TextWork):
            return Result(store.blobs.put(work.data), len(work.data))
        if isinstance(work, PublishWork):
            return publish_model(work, self._summary.results, store, self._bench.state, self._options.approve)
        return None

    def _total_bytes(self, action: Action) -> int:
        if isinstance(action.work, ImportWork):
            return size_of_file(action.work.path)
        if not isinstance(action.work, AssembleWork):
            return 0
        assembly = self._bench.builder.prepare(action, self._summary.results)
        return 0 if assembly is None else assembly.layout.file_size

    def _collect(self, timeout_s: float) -> None:
        """Take the outcomes of tasks that have ended; waits for one at most so long."""
        ended = self._executor.wait(timeout_s)
        while ended is not None:
            task, outcome = ended
            running = self._running[task.actions[0].id]
            for action in task.actions:
                del self._running[action.id]
            try:
                self._settle(running, outcome)
            except ModelbuildError as error:
                self._fail(task.actions, error)
            ended = self._executor.wait(0.0)

    def _settle(self, running: _Running, outcome: Outcome) -> None:
        """Take note of all that a task gave, then let others have its locks."""
        try:
            if outcome.error is not None:
                raise outcome.error
            for item in outcome.learnt:
                self._bench.facts.learn(item.item, item.digest, item.stat)
            self._replaced |= outcome.replaced
            if isinstance(running.task, RunTask):
                self._limits = self._limits.without(Resources(disk_bytes=running.task.need.disk_bytes))
                for decision, result in zip(running.task.decisions, outcome.results, strict=True):
                    self._finish(self._record(decision, result), result)
        finally:
            running.held.release()

    def _finish(self, decision: Decision, result: Result) -> None:
        action = decision.action
        if not decision.runs:
            self._note_output(decision, result)
        self._todo.pop(action.id)
        self._summary.results[action.id] = result
        self._summary.decisions.append(decision)
        outcome = "ran" if decision.runs else "cached"
        now_s = time.monotonic()
        seconds = now_s - self._started_s.get(action.id, now_s)
        self._emit(
            ActionFinished(action.id, action.kind, action.title, outcome, result.digest, result.size_bytes, seconds)
        )
        if isinstance(action.work, PublishWork):
            state = "built" if decision.runs else "unchanged"
            self._emit(ModelFinished(str(action.work.target), state, result.digest, result.size_bytes))

    def _note_output(self, decision: Decision, result: Result) -> None:
        """Record what an output is now, although nothing ran: the next reason tells the difference to this."""
        output, manifest = self._bench.facts.output_id(decision.action), decision.manifest
        if manifest is not None and self._bench.state.last_key(output) != manifest.key:
            self._bench.state.record_action(output, ActionRecord(manifest.key, manifest.encode(), result.encode()))

    def _fail(self, actions: Sequence[Action], error: ModelbuildError) -> None:
        """Report failed actions. The error is raised at the end, which is near unless `keep_going` says otherwise."""
        self._problems.add(error)
        self._report_failure(actions)

    def _report_failure(self, actions: Sequence[Action]) -> None:
        now_s = time.monotonic()
        for action in actions:
            self._failed += 1
            self._broken.add(action.id)
            seconds = now_s - self._started_s.get(action.id, now_s)
            self._emit(ActionFinished(action.id, action.kind, action.title, "failed", "", 0, seconds))

    def _record(self, decision: Decision, result: Result) -> Decision:
        action = decision.action
        if decision.manifest is None:  # an import: its input became known by running it
            later = decide(action, self._summary.results, self._bench.facts)
            if later.manifest is None:
                raise InputError("CHANGED", "the file changed while it was imported", key=action.title)
            decision = Decision(action, later.manifest, None, decision.reasons)
        if any(isinstance(item, FileInput) and item.path in self._replaced for item in action.inputs):
            self._summary.is_outdated = True  # the result is that of the old content: used, not recorded
        elif decision.manifest is not None:
            record = ActionRecord(decision.manifest.key, decision.manifest.encode(), result.encode())
            self._bench.state.record_action(self._bench.facts.output_id(action), record)
            self._made.add(record.key)
        return decision


def _distinct(decisions: Iterable[Decision]) -> list[Decision]:
    """Those that run, each output once: whoever makes the same finds it made."""
    found: dict[str, Decision] = {}
    for item in decisions:
        if item.runs and item.manifest is not None:
            found.setdefault(item.manifest.key, item)
    return list(found.values())


def _lock_name(decision: Decision) -> str:
    """What two processes must not do at once: the same action key, or an import of the same file."""
    if decision.manifest is not None:
        return decision.manifest.key
    paths = [str(item.path.absolute()) for item in decision.action.inputs if isinstance(item, FileInput)]
    return "\n".join(paths) or decision.action.id
