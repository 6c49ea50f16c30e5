"""What GGUF files, directories of them, and importance matrices are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelbuild.engine.inspect_files import PlannedSource
from modelbuild.engine.inspect_keys import count_types, model_facts, text_of, tokenizer_facts
from modelbuild.engine.inspection import Fact, Inspection
from modelbuild.errors import printable
from modelbuild.formats.files import is_regular, list_directory, size_of_file
from modelbuild.formats.gguf.reader import GgufHeader, open_gguf
from modelbuild.formats.imatrix import read_imatrix
from modelbuild.plan.gguf_units import shard_index, sibling_names
from modelbuild.plan.layer_kind import classify_gguf, count_shards, describe_file_type

_KINDS = {"model": "a GGUF model", "projector": "a GGUF projector", "adapter": "a GGUF adapter"}
_MATRIX_TYPE = "imatrix"


def inspect_gguf(path: Path) -> Inspection:
    """A GGUF file of any kind; of a shard, what all shards together are."""
    header = open_gguf(path)
    if header.kv.get_string("general.type") == _MATRIX_TYPE:
        return inspect_matrix(path)
    kind = classify_gguf(header)
    count, index = count_shards(header), shard_index(header)
    facts = _file_facts([header] if count == 1 else _sisters(header))
    name = _KINDS[kind]
    if count > 1:
        name = f"shard {'?' if index is None else index + 1} of {count} of {name}"
    if kind == "adapter":
        facts |= _adapter_facts(header)
        return Inspection(path, name, facts, f"adapters: ./{printable(path.name)}")
    if kind == "projector":
        return Inspection(path, name, facts | _projector_facts(header), f"files: [MODEL.gguf, {printable(path.name)}]")
    source = PlannedSource(path)
    files = source.files()
    use = f"from: ./{printable(path.name)}"
    return Inspection(path, name, facts | tokenizer_facts(header.kv), use, files, source.notes, source.problems)


def inspect_gguf_directory(path: Path) -> Inspection:
    """All GGUF files of a directory: one model, whole or in shards, with its projector."""
    headers = [open_gguf(item) for item in list_directory(path) if item.suffix == ".gguf"]
    models = [header for header in headers if classify_gguf(header) == "model"]
    facts: dict[str, Fact] = {"gguf_files": [f"{header.path.name} ({classify_gguf(header)})" for header in headers]}
    if models and len(models) == count_shards(models[0]):
        facts |= _file_facts(models) | tokenizer_facts(models[0].kv)
    source = PlannedSource(path)
    files = source.files()
    use = f"from: ./{printable(path.name)}"
    return Inspection(path, "a directory of GGUF files", facts, use, files, source.notes, source.problems)


def inspect_matrix(path: Path) -> Inspection:
    """An importance matrix in either form."""
    matrix = read_imatrix(path)
    facts: dict[str, Fact] = {"entries": len(matrix)}
    if matrix.datasets:
        facts["measured_with"] = list(matrix.datasets)
    if matrix.chunk_count:
        facts["chunks"] = matrix.chunk_count
    facts["size_bytes"] = size_of_file(path)
    use = f"imatrix: ./{printable(path.name)}"
    notes = ("it guides quantization of the model it was measured on, and has no effect without 'quantize'",)
    return Inspection(path, "an importance matrix", facts, use, notes=notes)


def _sisters(shard: GgufHeader) -> list[GgufHeader]:
    """The headers of all shards that stand beside one, in order; the planner says which are missing or misnamed."""
    beside = (shard.path.with_name(name) for name in sibling_names(shard.path.name))
    return [open_gguf(item) for item in beside if is_regular(item)] or [shard]


def _file_facts(headers: Sequence[GgufHeader]) -> dict[str, Fact]:
    """Facts of a file or of all shards of one model; the first has the metadata."""
    facts = model_facts(headers[0].kv)
    facts |= count_types((tensor.type.name, tensor.shape) for header in headers for tensor in header.tensors)
    facts["file_type"] = describe_file_type(headers[0])
    facts["size_bytes"] = sum(header.size_bytes for header in headers)
    trailing_bytes = sum(header.trailing_bytes for header in headers)
    if trailing_bytes:
        facts["trailing_bytes"] = trailing_bytes
    return facts


def _adapter_facts(header: GgufHeader) -> dict[str, Fact]:
    """A pair's first matrix has as many rows as the pair has ranks."""
    first = [tensor for tensor in header.tensors if tensor.name.endswith(".lora_a")]
    facts: dict[str, Fact] = {"modules": len(first)}
    ranks = sorted({tensor.shape[1] for tensor in first if len(tensor.shape) > 1})
    if ranks:
        facts["ranks"] = [str(rank) for rank in ranks]
    alpha = header.kv.get_float("adapter.lora.alpha")
    if alpha is not None:
        facts["alpha"] = alpha
    return facts


def _projector_facts(header: GgufHeader) -> dict[str, Fact]:
    keys = ("clip.projector_type", "clip.vision.projector_type", "clip.audio.projector_type")
    kind = next((text for key in keys if (text := text_of(header.kv, key))), "")
    return {"projector": kind or "not said"}
