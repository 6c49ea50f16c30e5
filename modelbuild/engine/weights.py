"""Runs assemble actions: plans each file, finds what can be copied, and writes all files of one source in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.engine.assemble import write_assemblies
from modelbuild.engine.blocks import resume_identity
from modelbuild.engine.facts import WorldFacts
from modelbuild.engine.output_file import Job, Progress, Written
from modelbuild.engine.reuse import TensorRecords
from modelbuild.errors import ChangedError
from modelbuild.events import ActionProgress, Emit, Warned
from modelbuild.plan.action import FileInput
from modelbuild.plan.assembly import Assembly, Conversions, prepare_assembly
from modelbuild.plan.decide import Decision, Result
from modelbuild.plan.graph import Action, AssembleWork
from modelbuild.plan.preview import source_files
from modelbuild.store.state import FileStat, State
from modelbuild.store.store import Store


class WeightsBuilder:
    """Makes the GGUF files of one run; an assembly is planned once, whether it is only checked or also written."""

    def __init__(
        self, store: Store, state: State, facts: WorldFacts, emit: Emit, *, allow_nonfinite: bool = False
    ) -> None:
        self._store = store
        self._state = state
        self._facts = facts
        self._emit = emit
        self._allow_nonfinite = allow_nonfinite
        self._assemblies: dict[str, Assembly] = {}
        self._seen: dict[str, dict[Path, FileStat]] = {}
        self._conversions: Conversions = {}

    def prepare(self, action: Action, results: Mapping[str, Result]) -> Assembly | None:
        """The file an action will write, from headers alone; None while its source is yet to be made."""
        if action.id not in self._assemblies:
            work = _work_of(action)
            sources = self.source_paths(action, results)
            if sources is None:
                return None
            self._seen[action.id] = _stats_of(action)
            self._assemblies[action.id] = prepare_assembly(work, sources, self._conversions)
        return self._assemblies[action.id]

    def source_paths(self, action: Action, results: Mapping[str, Result]) -> list[Path] | None:
        """The GGUF files an action starts from; none for a checkpoint. None while one of them does not exist."""
        return source_files(action, self._store, results)

    def shares_source(self, one: Action, other: Action, results: Mapping[str, Result]) -> bool:
        """Can the two be made from one read? They need the same weights, tensor by tensor."""
        first, second = _work_of(one), _work_of(other)
        return (
            (first.checkpoint, first.base, first.part) == (second.checkpoint, second.base, second.part)
            and first.pre_tokenizer == second.pre_tokenizer
            and self.source_paths(one, results) == self.source_paths(other, results)
        )

    def run(
        self, decisions: Sequence[Decision], results: Mapping[str, Result], *, workers: int | None
    ) -> dict[str, Result]:
        """Write the files of all these actions, which share their source, in one pass; returns results by action id."""
        with ExitStack() as stack:
            jobs = [self._job(decision, results, stack) for decision in decisions]
            for note in dict.fromkeys(note for job in jobs for note in job.assembly.notes):
                self._emit(Warned(note))
            written = write_assemblies(jobs, workers=workers)
            for job, file in zip(jobs, written, strict=True):
                job.staged.publish(file.digest)
                self._state.record_packed_tensors(file.packed)
        return {
            decision.action.id: _result(job, file) for decision, job, file in zip(decisions, jobs, written, strict=True)
        }

    def _job(self, decision: Decision, results: Mapping[str, Result], stack: ExitStack) -> Job:
        action, manifest = decision.action, decision.manifest
        inputs = self._hashed_inputs(action)
        assembly = self._prepare_from(inputs, action, results)
        if assembly is None or manifest is None:
            raise AssertionError(f"{action.id} runs before its inputs are known")
        records = TensorRecords(self._state, self._store.blobs, self._source_digests(action, manifest.inputs))
        keys = records.keys(assembly)
        staged = stack.enter_context(
            self._store.blobs.stage_partial(manifest.key, resume_identity(assembly), assembly.layout.file_size)
        )
        progress, allowed = self._progress_of(action), self._allow_nonfinite
        reusable = records.reusable(keys)
        return Job(assembly, staged, keys, reusable, progress, allow_nonfinite=allowed, inputs=inputs)

    def _hashed_inputs(self, action: Action) -> dict[Path, FileStat]:
        """The stat records of the input files whose digests are in the key."""
        stats = {item.path: self._facts.stat_of(item.path) for item in action.inputs if isinstance(item, FileInput)}
        return {path: stat for path, stat in stats.items() if stat is not None}

    def _prepare_from(
        self, inputs: Mapping[Path, FileStat], action: Action, results: Mapping[str, Result]
    ) -> Assembly | None:
        """The assembly, planned from the very files that the key was made from.

        Planning comes before hashing, so a file that was saved in between makes it necessary to plan again.
        """
        for _ in range(2):
            assembly = self.prepare(action, results)
            seen = self._seen.get(action.id, {})
            moved = [path for path, stat in inputs.items() if not (path in seen and stat.is_same_content(seen[path]))]
            if not moved:
                return assembly
            self._assemblies.clear()
            self._conversions.clear()
        message = f"{moved[0]} keeps changing"
        raise ChangedError("CHANGED", message, hint="run the build again when it is complete")

    def _source_digests(self, action: Action, digests: Mapping[str, Digest]) -> dict[Path, Digest]:
        known: dict[Path, Digest] = {}
        for item in action.inputs:
            digest = digests[item.role]
            known[item.path if isinstance(item, FileInput) else self._store.blobs.path(digest)] = digest
        return known

    def _progress_of(self, action: Action) -> Progress:
        def report(done_bytes: int, total_bytes: int) -> None:
            self._emit(ActionProgress(action.id, done_bytes, total_bytes))

        return report


def _stats_of(action: Action) -> dict[Path, FileStat]:
    stats = {}
    for item in action.inputs:
        if isinstance(item, FileInput):
            with suppress(OSError):  # whoever reads it will say so
                stats[item.path] = FileStat.of(item.path.stat())
    return stats


def _result(job: Job, file: Written) -> Result:
    return Result(file.digest, job.assembly.layout.file_size)


def _work_of(action: Action) -> AssembleWork:
    if not isinstance(action.work, AssembleWork):
        raise AssertionError(f"{action.id} is no assemble action")
    return action.work
