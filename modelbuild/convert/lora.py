"""LoRA adapters: pairs of small matrices, brought into the layout that their base model has as a GGUF.

adapter_config.json ─► strength of each module ──────────────────┐
adapter weights ─► pairs ─► base family's names and transforms ─►│─► planned tensors
base checkpoint or GGUF header ─► family, sizes ─────────────────┘
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from modelbuild.convert.checkpoint import Checkpoint
from modelbuild.convert.dtype_policy import FLOAT_TYPES, output_type, wanted_type
from modelbuild.convert.engine import QUANTIZATION_VERSION, Conversion, rule_name
from modelbuild.convert.families.standard import transpose
from modelbuild.convert.lora_base import AdapterBase
from modelbuild.convert.lora_config import AdapterConfig, read_adapter_config
from modelbuild.convert.lora_experts import possible_names, split_experts
from modelbuild.convert.lora_names import AdapterTensors, read_pairs
from modelbuild.convert.lora_pairs import LowRank, factor, transposed, transposed_pair
from modelbuild.convert.lora_runtime import notes_on
from modelbuild.convert.mapping import Match, RuleIndex, map_tensors
from modelbuild.convert.metadata import ParameterCount, general_keys
from modelbuild.convert.model import Model
from modelbuild.convert.name_list import list_names
from modelbuild.convert.planned import PlannedTensor, Source
from modelbuild.convert.value_transforms import Computed, Widened
from modelbuild.errors import InputError, UnsupportedError, printable
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, f32, string, u32, u32_array

_EMBEDDING = "token_embd.weight"
#: Architectures that give embeddings alone, so that no output is computed from that of the tokens.
_WITHOUT_OUTPUT = frozenset(
    {"bert", "eurobert", "gemma-embedding", "jina-bert-v2", "llama-embed", "modern-bert", "neo-bert", "nomic-bert"}
    | {"nomic-bert-moe", "t5encoder"}
)


def plan_adapter(files: Checkpoint, base: AdapterBase, float_type: str = "source") -> Conversion:
    """The conversion of an adapter to GGUF, decided from headers and small files alone.

    float_type: as for checkpoints; "source" keeps the precision of each matrix.
    Raises UnsupportedError ADAPTER for what an adapter file cannot express, InputError ADAPTER, ENTRY or SHAPE that
    lists what does not fit the base, and what reading the files raises.
    """
    assert float_type in FLOAT_TYPES, f"{float_type} is none of {FLOAT_TYPES}"
    config = read_adapter_config(files)
    stored = sorted(files.weights(), key=lambda tensor: tensor.offset)  # as the reference library loads one file
    tensors = read_pairs(stored, files.origin)
    model = base.model_for([*tensors.pairs, *possible_names(tensors.pairs, config)], _base_name)
    pairs = split_experts(tensors.pairs, config, model.experts, lambda name: _rule_of(model, name) is not None)
    tensors = replace(tensors, pairs=pairs)
    _check_ranks(config, tensors)
    changes = _changes(model, tensors, config, strict=base.shapes is None)
    planned = tuple(_typed(model, changes, float_type, wanted_type(float_type, stored)))
    _check_base(base, planned)
    _check_embedding(base, model, planned)
    notes = notes_on(base.architecture, (tensor.name for tensor in planned))
    return Conversion(_keys(files, base, config, planned), planned, notes)


def _check_ranks(config: AdapterConfig, tensors: AdapterTensors) -> None:
    for name, pair in tensors.pairs.items():
        wanted = config.rank_of(pair.module)
        if pair.rank != wanted:
            message = f"{printable(name)} has the rank {pair.rank}, the configuration says {wanted}"
            raise InputError("ADAPTER", message, path=config.path, key="r")


# -- names and layout --------------------------------------------------------------------------------------------------


def _base_name(model: Model, name: str) -> str:
    """The name of a changed tensor as the base's rules spell it.

    Bare models have names without their prefix; the library calls the experts of a block by one name, where some
    checkpoints have another.
    """
    plain = rule_name(model, name)
    if not plain:
        return ""
    spellings = (name, f"model.{name}", name.replace(".mlp.", ".block_sparse_moe."))
    index = RuleIndex(model.family)
    known = (found for spelling in spellings if (found := rule_name(model, spelling)) and index.find(found) is not None)
    return next(known, plain)


def _rule_of(model: Model, name: str) -> Match | None:
    return RuleIndex(model.family).find(_base_name(model, name))


def _changes(
    model: Model, tensors: AdapterTensors, config: AdapterConfig, *, strict: bool
) -> Iterator[tuple[str, Source]]:
    """Names in the result and their sources: whole norms first, then both matrices of each pair.

    strict: no GGUF of the base is there to tell its blocks and shapes.
    """
    sources = {**_renamed(model, tensors.norms), **_renamed(model, tensors.pairs)}
    sources = {name: _as_stored(model, name, source) for name, source in sources.items()}
    _check_stored(model, sources)
    for output in map_tensors(model, sources, complete=False, strict=strict):
        if output.name.endswith("_norm.weight"):
            yield output.name, output.source
            continue
        pair = factor(output.source)
        strength = config.factor_of(pair.module)
        b = pair.b if strength == 1.0 else Computed(Widened(pair.b), factor=strength)
        if output.name == _EMBEDDING:  # the runtime looks rows of A up, and multiplies them by B
            yield f"{output.name}.lora_a", b
            yield f"{output.name}.lora_b", transposed(pair.a)
            continue
        yield f"{output.name}.lora_a", pair.a
        yield f"{output.name}.lora_b", b


def _renamed(model: Model, sources: Mapping[str, Source]) -> dict[str, Source]:
    renamed: dict[str, Source] = {}
    ignored: list[str] = []
    for name, source in sources.items():
        found = _base_name(model, name)
        if not found:
            ignored.append(printable(name))
        elif found in renamed:
            message = f"two changes of the tensor '{printable(found)}'"
            raise InputError("DUPLICATE", message, path=model.checkpoint.origin, key=name)
        else:
            renamed[found] = source
    if ignored:
        message = f"{', '.join(list_names(ignored))} is present in adapter, but is ignored in base model"
        raise InputError("ADAPTER", message, path=model.checkpoint.origin, hint="train the adapter without it")
    return renamed


def _as_stored(model: Model, name: str, source: Source) -> Source:
    """Layers that store inputs as rows are changed by the transposed product, whatever the configuration says."""
    match = RuleIndex(model.family).find(name)
    if isinstance(source, LowRank) and match is not None and match.rule.transform is transpose:
        return transposed_pair(source)
    return source


def _check_stored(model: Model, sources: Mapping[str, Source]) -> None:
    """Against a base checkpoint: each changed tensor is there, and has that shape."""
    if not model.stored:
        return
    lines = []
    for name, source in sources.items():
        tensor = model.stored.get(name)
        if tensor is None:
            lines.append(f"{printable(name)}: not in the base model")
        elif tensor.shape != source.shape:
            lines.append(f"{printable(name)}: {list(source.shape)}, {list(tensor.shape)} in the base model")
    _refuse(lines, model.checkpoint.origin)


def _check_base(base: AdapterBase, planned: tuple[PlannedTensor, ...]) -> None:
    """Against a base GGUF: what the runtime would check when it loads the adapter."""
    if base.shapes is None:
        return
    lines = []
    sources = {tensor.name: tensor.source for tensor in planned}
    for name, source in sources.items():
        target = name.removesuffix(".lora_a")
        if target == name:
            continue
        other = sources[f"{target}.lora_b"]
        columns, rows = source.shape[-1], other.shape[-2]
        changed = (*source.shape[:-2], rows, columns)
        if target == _EMBEDDING:
            changed = (source.shape[0], other.shape[0])
        found = base.shapes.get(target)
        if found is None:
            lines.append(f"{target}: not in the base model")
        elif found != changed or len(source.shape) != len(other.shape):
            lines.append(f"{target}: {list(changed)}, {list(found)} in the base model")
    _refuse(lines, base.origin)


def _check_embedding(base: AdapterBase, model: Model, planned: tuple[PlannedTensor, ...]) -> None:
    """A change of an embedding that is the output as well: the runtime would multiply by it as it looks rows up."""
    if base.architecture in _WITHOUT_OUTPUT or all(tensor.name != f"{_EMBEDDING}.lora_a" for tensor in planned):
        return
    names = {
        f"{rule.source}.weight" if rule.suffixed else rule.source
        for rule in model.family.tensors
        if not {"output", "output.weight"}.isdisjoint(rule.targets)
    }
    has_output = "output.weight" in base.shapes if base.shapes is not None else not names.isdisjoint(model.stored)
    if not has_output:
        message = "the adapter changes the embedding, which is the output of its base as well; llama.cpp stops there"
        hint = "merge the adapter into its base model and build from the merged checkpoint"
        raise UnsupportedError("ADAPTER", message, path=base.origin, key=_EMBEDDING, hint=hint)


def _refuse(lines: list[str], origin: str) -> None:
    if lines:
        listed = "\n".join(list_names(lines, "  "))
        hint = "was the adapter trained on this model?"
        raise InputError("ADAPTER", f"the adapter does not fit the base model:\n{listed}", path=origin, hint=hint)


# -- types and keys ----------------------------------------------------------------------------------------------------


def _typed(
    model: Model, changes: Iterator[tuple[str, Source]], float_type: str, wanted: GgmlType
) -> Iterator[PlannedTensor]:
    for name, source in changes:
        forced = model.family.force_type(name, model) if model.family.force_type else None
        type_ = output_type(name, source.shape, source.dtype, float_type, wanted) if forced is None else forced
        yield PlannedTensor(name, source, type_)


def _keys(
    files: Checkpoint, base: AdapterBase, config: AdapterConfig, planned: tuple[PlannedTensor, ...]
) -> tuple[KeyValue, ...]:
    keys = [
        string("general.architecture", base.architecture),
        string("general.type", "adapter"),
        string("adapter.type", "lora"),
        *general_keys(files, ParameterCount(-_changed_weights(planned), 0, 0, 0)),
        f32("adapter.lora.alpha", config.alpha),
    ]
    if config.invocation_tokens:
        keys.append(u32_array("adapter.alora.invocation_tokens", config.invocation_tokens))
    return (*keys, u32("general.quantization_version", QUANTIZATION_VERSION))


def _changed_weights(planned: tuple[PlannedTensor, ...]) -> int:
    """How many weights the pairs change; with a minus sign this is how the names of adapters are told."""
    columns = {
        tensor.name.removesuffix("a"): tensor.source.shape[-1] for tensor in planned if tensor.name.endswith(".lora_a")
    }
    return sum(
        prod((*tensor.source.shape[:-1], columns[tensor.name.removesuffix("b")]))
        for tensor in planned
        if tensor.name.endswith(".lora_b")
    )
