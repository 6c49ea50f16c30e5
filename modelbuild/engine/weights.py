"""Runs assemble actions: plans each file, finds what can be copied, and writes all files of one source in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.engine.assemble import write_assemblies
from modelbuild.engine.blocks import resume_identity
from modelbuild.engine.facts import WorldFacts
from modelbuild.engine.output_file import Job, Progress, Written
from modelbuild.engine.reuse import TensorRecords
from modelbuild.events import ActionProgress, Emit, Warned
from modelbuild.plan.action import ActionInput, DigestInput, FileInput
from modelbuild.plan.assembly import Assembly, Conversions, prepare_assembly
from modelbuild.plan.decide import Decision, Result
from modelbuild.plan.graph import Action, AssembleWork
from modelbuild.store.state import State
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
        self._conversions: Conversions = {}

    def prepare(self, action: Action, results: Mapping[str, Result]) -> Assembly | None:
        """The file an action will write, from headers alone; None while its source is yet to be made."""
        if action.id not in self._assemblies:
            work = _work_of(action)
            sources = self.source_paths(action, results)
            if sources is None:
                return None
            self._assemblies[action.id] = prepare_assembly(work, sources, self._conversions)
        return self._assemblies[action.id]

    def source_paths(self, action: Action, results: Mapping[str, Result]) -> list[Path] | None:
        """The GGUF files an action starts from; none for a checkpoint. None while one of them does not exist."""
        paths: list[Path] = []
        for item in action.inputs if _work_of(action).checkpoint is None else ():
            if isinstance(item, FileInput):
                paths.append(item.path)
                continue
            digest = _known_digest(item, results)
            if digest is None:
                return None
            paths.append(self._store.blobs.path(digest))
        return paths

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
            for decision, job, file in zip(decisions, jobs, written, strict=True):
                self._check_inputs(decision.action)
                job.staged.publish(file.digest)
                self._state.record_packed_tensors(file.packed)
        return {
            decision.action.id: _result(job, file) for decision, job, file in zip(decisions, jobs, written, strict=True)
        }

    def _job(self, decision: Decision, results: Mapping[str, Result], stack: ExitStack) -> Job:
        action, manifest = decision.action, decision.manifest
        assembly = self.prepare(action, results)
        if assembly is None or manifest is None:
            raise AssertionError(f"{action.id} runs before its inputs are known")
        records = TensorRecords(self._state, self._store.blobs, self._source_digests(action, manifest.inputs))
        keys = records.keys(assembly)
        staged = stack.enter_context(
            self._store.blobs.stage_partial(manifest.key, resume_identity(assembly), assembly.layout.file_size)
        )
        progress, allowed = self._progress_of(action), self._allow_nonfinite
        return Job(assembly, staged, keys, records.reusable(keys), progress, allow_nonfinite=allowed)

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

    def _check_inputs(self, action: Action) -> None:
        """The digests in the key were worked out before the files were used; they must still hold."""
        for item in action.inputs:
            if isinstance(item, FileInput):
                self._facts.check_unchanged(item)


def _result(job: Job, file: Written) -> Result:
    return Result(file.digest, job.assembly.layout.file_size)


def _known_digest(item: ActionInput | DigestInput, results: Mapping[str, Result]) -> Digest | None:
    if isinstance(item, DigestInput):
        return item.digest
    result = results.get(item.action)
    return None if result is None else result.digest


def _work_of(action: Action) -> AssembleWork:
    if not isinstance(action.work, AssembleWork):
        raise AssertionError(f"{action.id} is no assemble action")
    return action.work
