"""What `plan` shows of each action: decision, reasons, bytes, and the type of every tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from modelbuild.errors import ProblemCollector
from modelbuild.formats.files import size_of_file
from modelbuild.plan.action import DigestInput, FileInput
from modelbuild.plan.decide import Decision, Result
from modelbuild.plan.graph import Action, AssembleWork, ImportWork
from modelbuild.plan.wishes import IMATRIX_ROLE
from modelbuild.records import record
from modelbuild.store.store import Store


@record
class TensorPreview:
    """One tensor of a GGUF to be."""

    name: str
    source_type: str
    type: str
    rule: str


@record
class ActionPreview:
    """One action; byte counts are exact, None where they depend on an action that has not run.

    made_by: the action before it that runs and makes the same, so that this one does not.
    """

    id: str
    kind: str
    title: str
    runs: bool
    reasons: tuple[str, ...]
    read_bytes: int | None
    write_bytes: int | None
    tensors: tuple[TensorPreview, ...] = ()
    made_by: str = ""

    def to_json(self, *, tensors: bool = False) -> dict[str, object]:
        """The preview as a JSON object."""
        record: dict[str, object] = {
            "action": self.id,
            "kind": self.kind,
            "title": self.title,
            "runs": self.runs,
            "made_by": self.made_by,
            "reasons": list(self.reasons),
            "read_bytes": self.read_bytes,
            "write_bytes": self.write_bytes,
        }
        if tensors:
            record["tensors"] = [
                {"name": row.name, "source_type": row.source_type, "type": row.type, "rule": row.rule}
                for row in self.tensors
            ]
        return record


def preview_actions(decisions: Sequence[Decision], store: Store) -> list[ActionPreview]:
    """Previews in plan order; reads headers of what would be assembled, and raises all that is wrong with them."""
    problems = ProblemCollector()
    previews = []
    for decision in decisions:
        with problems.collect():
            previews.append(_preview(decision, store))
    problems.finish()
    return previews


def _preview(decision: Decision, store: Store) -> ActionPreview:
    action = decision.action
    read_bytes: int | None = None
    write_bytes: int | None = None
    tensors: tuple[TensorPreview, ...] = ()
    if isinstance(action.work, ImportWork):
        read_bytes = write_bytes = size_of_file(action.work.path)
    elif isinstance(action.work, AssembleWork):
        read_bytes, write_bytes, tensors = _preview_assembly(decision, action.work, store)
    return ActionPreview(
        action.id,
        action.kind,
        action.title,
        decision.runs,
        decision.reasons,
        read_bytes,
        write_bytes,
        tensors,
        decision.made_by,
    )


def _preview_assembly(
    decision: Decision, work: AssembleWork, store: Store
) -> tuple[int | None, int | None, tuple[TensorPreview, ...]]:
    from modelbuild.plan.assembly import prepare_assembly

    sources = source_files(decision.action, store)
    if sources is None:
        return None, None, ()
    assembly = prepare_assembly(work, sources)
    rows = tuple(
        TensorPreview(tensor.name, tensor.source.dtype, tensor.type.name, rule)
        for tensor, rule in zip(assembly.tensors, assembly.rules, strict=True)
    )
    return assembly.source_bytes, assembly.layout.file_size, rows


def source_files(action: Action, store: Store, results: Mapping[str, Result] | None = None) -> list[Path] | None:
    """The GGUF files an assemble action starts from, none for a checkpoint; None while one is yet to be made.

    results: of the actions that are up to date.
    """
    work = action.work
    if not isinstance(work, AssembleWork) or work.checkpoint is not None:
        return []
    paths: list[Path] = []
    for item in action.inputs:
        if item.role == IMATRIX_ROLE:
            continue
        if isinstance(item, FileInput):
            paths.append(item.path)
        elif isinstance(item, DigestInput):
            paths.append(store.blobs.path(item.digest))
        elif results and item.action in results:
            paths.append(store.blobs.path(results[item.action].digest))
        else:
            return None
    return paths
