"""An importance matrix beside the tensors it was measured for: matched by name and length before any weight is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelbuild.errors import InputError, ProblemCollector
from modelbuild.formats.gguf.writer import KeyValue, string, u32
from modelbuild.formats.imatrix import ImportanceMatrix, read_imatrix
from modelbuild.quantize.facts import TensorFacts
from modelbuild.records import record

#: llama-quantize cuts the texts it notes to this many bytes.
_NOTED_BYTES = 127
#: These are quantized without a matrix when its length is another one.
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")


@dataclass(frozen=True)
class TensorImportance:
    """The importance of one tensor's columns; read when it is first needed.

    rows_per_matrix: a tensor of stacked expert matrices has one row of values for each of them.
    """

    matrix: ImportanceMatrix
    name: str
    columns: int
    rows_per_matrix: int

    @cached_property
    def values(self) -> npt.NDArray[np.float32]:
        """float32 of shape (matrices, columns)."""
        return np.ascontiguousarray(self.matrix[self.name].values, np.float32).reshape(-1, self.columns)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the values, for keys."""
        return hashlib.sha256(self.values.tobytes()).hexdigest()


@record
class MatchedImportance:
    """by_tensor: importance by tensor name. keys: what llama-quantize notes in the file about the matrix."""

    by_tensor: Mapping[str, TensorImportance]
    keys: tuple[KeyValue, ...]


def match_importance(path: Path, tensors: Iterable[TensorFacts]) -> MatchedImportance:
    """The matrix in a file, matched with the tensors of a model.

    Raises InputError IMATRIX when it fits no tensor or one of another length: it belongs to another model.
    Departs from llama-quantize by noting the name of the file instead of its path, which differs between machines.
    """
    matrix = read_imatrix(path)
    problems = ProblemCollector()
    found: dict[str, TensorImportance] = {}
    for tensor in tensors:
        if tensor.name not in matrix:
            continue
        matrices = tensor.shape[2] if len(tensor.shape) > 2 else 1
        wanted, length = tensor.shape[0] * matrices, matrix.length_of(tensor.name)
        if length == wanted:
            rows = tensor.shape[1] if len(tensor.shape) > 1 else 1
            found[tensor.name] = TensorImportance(matrix, tensor.name, tensor.shape[0], rows)
        elif tensor.name not in _EMBEDDINGS:
            message = f"{length} importance values, the tensor needs {wanted}"
            problems.add(InputError("IMATRIX", message, path=path, key=tensor.name, hint=_OTHER_MODEL))
    problems.finish()
    if not found:
        message = f"none of its {len(matrix)} entries names a tensor of the model"
        raise InputError("IMATRIX", message, path=path, hint=_OTHER_MODEL)
    return MatchedImportance(found, tuple(_notes(matrix, path)))


_OTHER_MODEL = "the matrix was made for another model; make one with llama-imatrix"


def _notes(matrix: ImportanceMatrix, path: Path) -> Iterable[KeyValue]:
    yield string("quantize.imatrix.file", path.name.encode("utf-8", "replace")[:_NOTED_BYTES])
    if matrix.datasets:
        yield string("quantize.imatrix.dataset", matrix.datasets[0].encode("utf-8", "replace")[:_NOTED_BYTES])
    yield u32("quantize.imatrix.entries_count", len(matrix))
    if matrix.chunk_count:
        yield u32("quantize.imatrix.chunks_count", matrix.chunk_count)
