"""What checkpoint directories and LoRA adapters are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from modelbuild.convert import Checkpoint
from modelbuild.convert.checkpoint import ADAPTER_CONFIG, CONFIG
from modelbuild.convert.engine import model_of
from modelbuild.convert.families import find_family
from modelbuild.convert.hub_config import HubConfig, read_hub_config
from modelbuild.convert.lora_config import read_adapter_config
from modelbuild.convert.lora_names import WEIGHT_NAMES, adapter_files, read_pairs
from modelbuild.convert.quantized_source import read_source_quantization
from modelbuild.convert.tokenizers.pretokenizers import choose_pre_tokenizer
from modelbuild.convert.tokenizers.templates import template_file
from modelbuild.convert.vision_classes import has_unknown_vision, projector_kind
from modelbuild.engine.inspect_files import PlannedSource
from modelbuild.engine.inspect_keys import TEMPLATE_KEY, count_types, model_facts, text_of, tokenizer_facts
from modelbuild.engine.inspection import Fact, Inspection
from modelbuild.errors import ModelbuildError, ProblemCollector, printable
from modelbuild.formats.gguf.values import RawValue
from modelbuild.formats.safetensors import StoredTensor, open_safetensors


def is_adapter(path: Path) -> bool:
    """Is the directory that of a LoRA adapter? Some tools leave the base model's config.json in it."""
    if not (path / ADAPTER_CONFIG).is_file():
        return False
    return not (path / CONFIG).is_file() or any((path / name).is_file() for name in WEIGHT_NAMES)


def inspect_checkpoint(path: Path) -> Inspection:
    """A checkpoint directory; everything wrong with it is found in one go."""
    problems = ProblemCollector()
    facts: dict[str, Fact] = {}
    use = f"from: ./{printable(path.resolve().name)}"
    checkpoint = None
    with problems.collect():
        checkpoint = Checkpoint.of_directory(path)
    if checkpoint is None:
        return Inspection(path, "a directory", facts, problems=_distinct(problems.errors))
    hub = None
    with problems.collect():
        hub = read_hub_config(checkpoint)
        facts |= _class_facts(hub)
        quantization = read_source_quantization(hub, checkpoint)
        facts |= {"quantized_by": quantization.method} if quantization.method else {}
    with problems.collect():
        facts |= _weights_facts(checkpoint.weights())
    source = PlannedSource(path)
    files = source.files()
    problems.errors += source.problems
    if source.assembly is not None:
        keys = {item.key: item.value for item in source.assembly.kv}
        facts["parameters"] = sum(prod(tensor.source.shape) for tensor in source.assembly.tensors)
        facts = {**model_facts(keys), **facts, **tokenizer_facts(keys, *_tokenizer_evidence(checkpoint, keys))}
    if hub is not None:
        facts |= _vision_facts(hub)
    return Inspection(path, "a checkpoint", facts, use, files, source.notes, _distinct(problems.errors))


def inspect_weights_file(path: Path) -> Inspection:
    """A safetensors file by itself; what it belongs to stands beside it."""
    facts = _weights_facts(tuple(open_safetensors(path).values()))
    beside = path.parent
    if is_adapter(beside) or (beside / CONFIG).is_file():
        notes = (f"it belongs to {'an adapter' if is_adapter(beside) else 'a checkpoint'}: inspect its directory",)
    else:
        notes = ("a build needs config.json and the tokenizer's files beside it",)
    return Inspection(path, "a safetensors file", facts, notes=notes)


def inspect_adapter(path: Path) -> Inspection:
    """A LoRA adapter as PEFT or mlx-lm saves it; whether it fits its base is checked when both are built."""
    problems = ProblemCollector()
    facts: dict[str, Fact] = {}
    use = f"adapters: ./{printable(path.resolve().name)}"
    with problems.collect():
        files = adapter_files(path)
        facts |= _base_fact(files)
        with problems.collect():
            config = read_adapter_config(files)
            facts |= {"rank": config.rank, "alpha": config.plain_alpha}
            if config.is_rank_stabilized:
                facts["rank_stabilized"] = True
            patterns = {"rank_patterns": config.ranks, "alpha_patterns": config.alphas}
            facts |= {name: len(found) for name, found in patterns.items() if found}
        with problems.collect():
            stored = files.weights()
            facts |= _weights_facts(stored)
            modules = [pair.module for pair in read_pairs(stored, files.origin).pairs.values()]
            facts["modules"] = _count_last_parts(modules)
    notes = ("it is converted for its base model, the 'from' of the same recipe, and keeps its precision",)
    return Inspection(path, "a LoRA adapter", facts, use, notes=notes, problems=_distinct(problems.errors))


def _class_facts(hub: HubConfig) -> dict[str, Fact]:
    facts: dict[str, Fact] = {"class": hub.hf_class}
    if hub.outer_class != hub.hf_class:
        facts["outer_class"] = hub.outer_class
    family = find_family(hub.hf_class)
    if family is not None:
        facts["family"] = family.classes[0]
    return facts


def _weights_facts(stored: Sequence[StoredTensor]) -> dict[str, Fact]:
    facts = count_types((tensor.dtype, tensor.shape) for tensor in stored)
    facts["weights_files"] = len({tensor.path for tensor in stored})
    facts["weights_bytes"] = sum(tensor.size_bytes for tensor in stored)
    return facts


def _tokenizer_evidence(checkpoint: Checkpoint, keys: Mapping[str, RawValue]) -> tuple[str, str]:
    """How the pre-tokenizer was found, where something had to be found, and in which file the chat template stands."""
    evidence, model = "", model_of(checkpoint)
    if text_of(keys, "tokenizer.ggml.model") == "gpt2" and "tokenizer.ggml.merges" in keys:
        found = choose_pre_tokenizer(model.tokenizer_files, model)
        if found.name == text_of(keys, "tokenizer.ggml.pre"):  # a family may have a name of its own
            evidence = found.evidence
    return evidence, template_file(model.tokenizer_files) if TEMPLATE_KEY in keys else ""


def _vision_facts(hub: HubConfig) -> dict[str, Fact]:
    kind = projector_kind(hub.root)
    if kind:
        return {"vision": f"{kind}: becomes a projector of its own"}
    return {"vision": "no table for it: the model will see no pictures"} if has_unknown_vision(hub.root) else {}


def _base_fact(files: Checkpoint) -> dict[str, Fact]:
    base = files.read_object(ADAPTER_CONFIG, nonfinite=True).get("base_model_name_or_path")
    return {"trained_on": base} if isinstance(base, str) and base else {}


def _count_last_parts(modules: Sequence[str]) -> dict[str, int]:
    """How many modules there are of each kind, by the last part of their names."""
    counts: dict[str, int] = {}
    for module in modules:
        kind = module.rsplit(".", 1)[-1]
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _distinct(errors: Sequence[ModelbuildError]) -> list[ModelbuildError]:
    """Two ways of looking at a file may trip over the same fault."""
    return list({str(error): error for error in errors}.values())
