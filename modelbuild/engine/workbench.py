"""Does tasks: reads inputs, writes blobs and files. It stands in the process of the run, or in a worker of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.digest import Digest
from modelbuild.engine.executor import HashTask, KnownFile, Outcome, RunTask, Task
from modelbuild.engine.facts import WorldFacts, replaced_warning
from modelbuild.errors import ModelbuildError
from modelbuild.events import ActionProgress, Emit, Warned
from modelbuild.formats.files import open_input, size_of_file
from modelbuild.plan.action import DigestInput, FileInput
from modelbuild.plan.decide import Result
from modelbuild.plan.graph import Action, AssembleWork, ExportWork, ImportWork
from modelbuild.records import record
from modelbuild.store.adopt import adopt_file
from modelbuild.store.state import FileStat, State, trusted_since
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from modelbuild.engine.weights import WeightsBuilder


@record
class BenchOptions:
    """How tasks are done; see RunOptions."""

    link: str = "auto"
    allow_nonfinite: bool = False


class Workbench:
    """Does the tasks of one run, one at a time, in one process."""

    def __init__(self, store: Store, state: State, emit: Emit, options: BenchOptions) -> None:
        self.store = store
        self.state = state
        self.emit = emit
        self.options = options
        self.facts = WorldFacts(store, state)
        self._weights: WeightsBuilder | None = None

    @property
    def builder(self) -> WeightsBuilder:
        """The builder of weights; it imports numpy, so it is made when weights have to be built."""
        if self._weights is None:
            from modelbuild.engine.weights import WeightsBuilder

            allowed = self.options.allow_nonfinite
            self._weights = WeightsBuilder(self.store, self.state, self.facts, self.emit, allow_nonfinite=allowed)
        return self._weights

    def attempt(self, task: Task) -> Outcome:
        """The outcome of a task; a ModelbuildError becomes part of it."""
        try:
            return self._hash(task) if isinstance(task, HashTask) else self._run(task)
        except ModelbuildError as error:
            return Outcome(error=error)

    def _hash(self, task: HashTask) -> Outcome:
        sizes = [size_of_file(item.path) for item in task.files]
        done_bytes, total_bytes = 0, sum(sizes)
        for item, size_bytes in zip(task.files, sizes, strict=True):

            def report(file_bytes: int, before_bytes: int = done_bytes) -> None:
                self.emit(ActionProgress(task.action.id, before_bytes + file_bytes, total_bytes))

            self.facts.hash_file(item, report)
            done_bytes += size_bytes
        return Outcome(learnt=self._known(task.files))

    def _run(self, task: RunTask) -> Outcome:
        for item in task.known:
            self.facts.learn(item.item, item.digest, item.stat)
        action, work = task.decisions[0].action, task.decisions[0].action.work
        if isinstance(work, AssembleWork):
            return self._assemble(task)
        if isinstance(work, ImportWork):
            return self._import(action, work)
        if isinstance(work, ExportWork):
            return self._export(action, work)
        raise AssertionError(f"{action.id} is nothing that an executor runs")

    def _assemble(self, task: RunTask) -> Outcome:
        results = self.builder.run(task.decisions, task.results, workers=task.need.cores or None)
        replaced = frozenset(path for action in task.actions for path in self._replaced_inputs(action))
        return Outcome(tuple(results[action.id] for action in task.actions), replaced=replaced)

    def _replaced_inputs(self, action: Action) -> list[Path]:
        """Input files that are not at their paths any more: the result belongs to what they were."""
        files = [item for item in action.inputs if isinstance(item, FileInput)]
        replaced = [item.path for item in files if not self.facts.is_unchanged(item)]
        for path in replaced:
            self.emit(Warned(replaced_warning(path)))
        return replaced

    def _export(self, action: Action, work: ExportWork) -> Outcome:
        from modelbuild.engine.export_files import export_file

        recorded_ns = time.time_ns()
        result = export_file(work, self.store, lambda done, total: self.emit(ActionProgress(action.id, done, total)))
        item = FileInput("output", work.path)
        self.facts.remember(item, FileStat.of(work.path.stat()), result.digest, recorded_ns)
        return Outcome((result,), self._known([item]))

    def _import(self, action: Action, work: ImportWork) -> Outcome:
        item = action.inputs[0]
        recorded_ns = time.time_ns()
        with open_input(work.path) as source:
            known = item.digest if isinstance(item, DigestInput) else None
            if isinstance(item, FileInput):
                digest, stat = self.facts.file_digest(item), self.facts.stat_of(item.path)
                known = digest if stat == FileStat.of(source.stat) else None

            def report(done_bytes: int) -> None:
                self.emit(ActionProgress(action.id, done_bytes, source.size_bytes))

            adopted = adopt_file(self.store.blobs, source, link=self.options.link, known=known, progress=report)
        result = Result(adopted.digest, adopted.size_bytes)
        if not isinstance(item, FileInput):
            return Outcome((result,))
        is_same = self._remember_import(item, FileStat.of(source.stat), adopted.digest, recorded_ns)
        known_file = KnownFile(item, adopted.digest, self.facts.stat_of(item.path) if is_same else None)
        return Outcome((result,), (known_file,), frozenset() if is_same else frozenset([item.path]))

    def _remember_import(self, item: FileInput, read: FileStat, digest: Digest, recorded_ns: int) -> bool:
        """Keep the digest of an imported file; linking moved its ctime, so the record is made afterwards.

        False when another file has taken its place.
        """
        try:
            status = item.path.stat()
        except OSError:
            status = None
        if status is not None and read.is_same_content(FileStat.of(status)):
            self.facts.remember(item, FileStat.of(status), digest, trusted_since(status, recorded_ns))
            return True
        self.facts.learn(item, digest, None)
        self.emit(Warned(replaced_warning(item.path)))
        return False

    def _known(self, files: Sequence[FileInput]) -> tuple[KnownFile, ...]:
        return known_files(files, self.facts)


def known_files(files: Sequence[FileInput], facts: WorldFacts) -> tuple[KnownFile, ...]:
    """What is known of files, for those of which anything is."""
    digests = ((item, facts.file_digest(item)) for item in files)
    return tuple(KnownFile(item, digest, facts.stat_of(item.path)) for item, digest in digests if digest is not None)
