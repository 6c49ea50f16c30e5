"""Which tensors an importance matrix speaks of, decided from names and lengths alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from modelbuild.errors import InputError, printable
from modelbuild.quantize.facts import TensorFacts
from modelbuild.quantize.tensor_names import Category, categorize


@dataclass(frozen=True, slots=True)
class ImportanceMatch:
    """names: tensors that are packed with importance. notes: sentences about entries that are left aside."""

    names: frozenset[str]
    notes: tuple[str, ...] = ()


def match_importance(lengths: Mapping[str, int], facts: Sequence[TensorFacts]) -> ImportanceMatch:
    """Find the tensors that an importance matrix has usable entries for.

    lengths: how many values each entry has: one per column, for stacked expert matrices one such row per matrix.
    Token embeddings whose entry has another length do without it, as in llama-quantize.
    Raises InputError IMPORTANCE when another tensor's entry has the wrong length or no entry names a tensor.
    """
    named = [tensor for tensor in facts if tensor.name in lengths]
    if not named:
        shown = ", ".join(printable(name) for name in list(lengths)[:3]) or "nothing"
        message = f"the importance matrix is for another model: it speaks of {shown}, ... and of no tensor of this one"
        raise InputError("IMPORTANCE", message, hint="measure one with llama-imatrix for this model")
    wrong = [tensor for tensor in named if lengths[tensor.name] != _wanted_length(tensor)]
    refused = [tensor for tensor in wrong if categorize(tensor.name) is not Category.EMBEDDING]
    if refused:
        first = refused[0]
        message = f"{lengths[first.name]} importance values, but the tensor takes {_wanted_length(first)}"
        more = f" ({len(refused)} tensors in all)" if len(refused) > 1 else ""
        hint = "the matrix was measured for a model of another size"
        raise InputError("IMPORTANCE", message + more, key=first.name, hint=hint)
    notes = [
        f"{tensor.name} is packed without importance: the matrix has {lengths[tensor.name]} values for it, "
        f"{_wanted_length(tensor)} are needed"
        for tensor in wrong
    ]
    return ImportanceMatch(frozenset(tensor.name for tensor in named if tensor not in wrong), tuple(notes))


def _wanted_length(tensor: TensorFacts) -> int:
    return tensor.row_length * prod(tensor.shape[2:])
