"""One execution of a plan: takes each action when its inputs are known, and starts what has to run as it fits.

The runner alone locks and starts; an executor does the work, and the ledger says what has become of it. Nothing here
waits while something could go on: an action that another process works on is put aside and asked for again.
"""

from __future__ import annotations

import time

from modelbuild.engine.executor import HashTask, Outcome, RunTask, Task
from modelbuild.engine.facts import decide_all
from modelbuild.engine.ledger import Ledger, RunSummary
from modelbuild.engine.locks import ActionLocks, Held, Taken
from modelbuild.engine.needs import machine_limits, turns_of
from modelbuild.engine.next_task import TaskMaker
from modelbuild.engine.publish import publish_model
from modelbuild.engine.run_options import RunOptions
from modelbuild.engine.turns import TURN, Turns
from modelbuild.engine.workbench import Workbench
from modelbuild.errors import ModelbuildError
from modelbuild.events import ActionStarted, ActionWaiting, RunFinished, RunStarted
from modelbuild.formats.files import size_of_file
from modelbuild.plan.action import FileInput
from modelbuild.plan.decide import Decision, Result
from modelbuild.plan.graph import Action, AssembleWork, ImportWork, Plan, PublishWork, TextWork
from modelbuild.plan.resources import Resources, may_start, spread
from modelbuild.records import record
from modelbuild.store.staged import require_space

#: What another process works on is asked for again after so long, and after twice as long each time, up to the second.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.005, 0.2


@record
class _Running:
    """A task under way, with the locks of what it makes."""

    task: Task
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
        self._ledger = Ledger(plan, bench, options)
        self._maker = TaskMaker(bench, self._ledger, self._limits)
        self._running: dict[str, _Running] = {}
        #: What an action needs next, once that is known; decided again when it starts.
        self._next: dict[str, Task] = {}
        #: Actions that are to run together with another one.
        self._joined: set[str] = set()
        self._promised: list[Resources] = []
        self._waited_for: dict[str, Taken] = {}
        self._turns = Turns(self._locks)

    def run(self) -> RunSummary:
        """Bring every model of the plan up to date."""
        started_s = time.monotonic()
        self._emit(RunStarted(tuple(str(name) for name in self._plan.models), len(self._plan.actions)))
        ledger, outcome = self._ledger, "stopped"
        try:
            self._prepare()
            self._bench.store.blobs.sweep()
            self._locks.sweep()
            self._take_all()
            outcome = "failed" if ledger.failed else "done"
        except ModelbuildError:
            outcome = "failed"
            raise
        finally:
            self._end()
            ran = len(ledger.summary.ran)
            cached = len(ledger.summary.decisions) - ran
            self._emit(RunFinished(ran, cached, ledger.failed, time.monotonic() - started_s, outcome))
        ledger.raise_problems()
        return ledger.summary

    def _end(self) -> None:
        """End what still runs, which only an error or an interruption leaves, and sweep up after it."""
        self._executor.close()
        self._turns.close()
        for running in self._tasks_under_way():
            running.held.release()
        if self._running:
            self._bench.store.blobs.sweep()

    def _prepare(self) -> None:
        """Check by headers alone whatever may have to run, and whether the disk has room for it."""
        needed_bytes = 0
        for decision in decide_all(self._plan, self._bench.store, self._bench.state, force=self._options.force):
            if not decision.runs or not isinstance(decision.action.work, AssembleWork):
                continue
            try:
                assembly = self._bench.builder.prepare(decision.action, self._ledger.results)
                needed_bytes += 0 if assembly is None else assembly.layout.file_size
            except ModelbuildError as error:
                self._ledger.fail([decision.action], error)
        if self._ledger.is_over:
            self._ledger.raise_problems()
        if needed_bytes:
            require_space(self._bench.store.root, needed_bytes)

    # -- the loop --------------------------------------------------------------------------------------------------

    def _take_all(self) -> None:
        """Go through what is left, in plan order, until nothing is; after each task that ends there may be more."""
        pause_s, todo = _FIRST_PAUSE_S, self._ledger.todo
        while todo and not self._ledger.is_over:
            before = len(todo), len(self._running)
            self._promised.clear()
            for action in list(todo.values()):
                if action.id in todo and not self._ledger.drop_if_blocked(action):
                    self._take_or_note(action)
                if self._ledger.is_over:
                    return
            if not todo:
                return
            self._options.check()
            if before != (len(todo), len(self._running)):
                pause_s = _FIRST_PAUSE_S
            if self._running:
                self._collect(pause_s if self._waited_for else _LAST_PAUSE_S)
            elif self._waited_for:
                time.sleep(pause_s)
            elif before == (len(todo), 0):
                raise AssertionError(f"nothing can go on: {', '.join(todo)}")
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    def _is_ready(self, action: Action) -> bool:
        """Can the action be taken: all that it needs is there, and nobody has it?"""
        is_free = action.id not in self._running and action.id not in self._joined
        return is_free and self._ledger.is_due(action)

    def _take_or_note(self, action: Action) -> None:
        """Take an action as far as it goes now; an error is kept for the end."""
        try:
            while self._is_ready(action):
                task = self._next_task(action)
                if task is None or not self._start(task):
                    return
        except ModelbuildError as error:
            self._part_with_task(action)
            self._ledger.fail([action], error)

    def _part_with_task(self, action: Action) -> None:
        """Forget what an action needs next; actions that were to run together with it go their own ways."""
        task = self._next.pop(action.id, None)
        if task is not None:
            self._joined.difference_update(other.id for other in task.actions)

    def _next_task(self, action: Action) -> Task | None:
        """What has to be done for an action; None when it is up to date, or when somebody reads its inputs already."""
        if action.id not in self._next:
            task = self._maker.next_task(action, filter(self._is_ready, self._ledger.todo.values()))
            if task is None or (isinstance(task, HashTask) and self._is_being_read(task)):
                return None
            self._next[action.id] = task
            self._joined.update(other.id for other in task.actions[1:])
        return self._next[action.id]

    def _is_being_read(self, task: HashTask) -> bool:
        tasks = [running.task for running in self._tasks_under_way()]
        read = {item.path for other in tasks if isinstance(other, HashTask) for item in other.files}
        return any(item.path in read for item in task.files)

    def _tasks_under_way(self) -> list[_Running]:
        """Each task once, whatever the number of its actions."""
        return list({id(item): item for item in self._running.values()}.values())

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
        self._ledger.begin(task.actions)
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
        tasks = [running.task for running in self._tasks_under_way()]
        return {_lock_name(item) for task in tasks if isinstance(task, RunTask) for item in task.decisions}

    def _needs_of_running(self) -> list[Resources]:
        return [running.task.need for running in self._tasks_under_way()]

    def _lock(self, task: RunTask) -> Held | None:
        """The locks of what a task makes and of its turn, unless somebody has one: then it is said once who that is."""
        is_here = not self._executor.other_machines
        scarce = turns_of(task.actions, task.need, self._limits) if is_here else ()
        turns = {TURN + name: name for name in scarce}
        first = task.actions[0]
        if not self._turns.may_ask(turns):
            self._waited_for.setdefault(first.id, Taken("", ""))
            return None
        found = self._locks.try_hold([*(_lock_name(decision) for decision in task.decisions), *turns])
        if isinstance(found, Held):
            self._turns.begin(turns)
            self._waited_for.pop(first.id, None)
            return found
        if found.name in turns:
            self._turns.wait_for(found.name)
        if self._waited_for.get(first.id) != found:
            self._waited_for[first.id] = found
            self._emit(ActionWaiting(first.id, first.title, found.holder, turns.get(found.name, "")))
        return None

    def _decide_again(self, task: RunTask) -> RunTask | None:
        """The task with what still has to run; what another process did meanwhile is finished. None for nothing."""
        left = []
        for item in task.decisions:
            again = self._ledger.decide(item.action)
            if again.result is None:
                left.append(again)
            else:
                self._ledger.finish_cached(again, again.result)
        return self._maker.run_task(left) if left else None

    def _run(self, task: Task, held: Held) -> None:
        """Do a task: small ones here and now, the others where the executor sees fit."""
        running = _Running(task, held)
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
            return publish_model(work, self._ledger.results, store, self._bench.state, self._options.approve)
        return None

    def _total_bytes(self, action: Action) -> int:
        if isinstance(action.work, ImportWork):
            return size_of_file(action.work.path)
        if not isinstance(action.work, AssembleWork):
            return 0
        assembly = self._bench.builder.prepare(action, self._ledger.results)
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
                self._ledger.fail(task.actions, error)
            ended = self._executor.wait(0.0)

    def _settle(self, running: _Running, outcome: Outcome) -> None:
        """Take note of all that a task gave, then let others have its locks."""
        try:
            if outcome.error is not None:
                raise outcome.error
            for item in outcome.learnt:
                self._bench.facts.learn(item.item, item.digest, item.stat)
            self._ledger.note_replaced(outcome.replaced)
            if isinstance(running.task, RunTask):
                self._limits = self._limits.without(Resources(disk_bytes=running.task.need.disk_bytes))
                for decision, result in zip(running.task.decisions, outcome.results, strict=True):
                    self._ledger.finish_run(decision, result)
        finally:
            running.held.release()
            self._turns.end(name for name in running.held.names if name.startswith(TURN))


def _lock_name(decision: Decision) -> str:
    """What two processes must not do at once: the same action key, or an import of the same file."""
    if decision.manifest is not None:
        return decision.manifest.key
    paths = [str(item.path.absolute()) for item in decision.action.inputs if isinstance(item, FileInput)]
    return "\n".join(paths) or decision.action.id
