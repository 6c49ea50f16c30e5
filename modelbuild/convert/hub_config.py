"""config.json of a checkpoint: the class that describes it, and the text model's own values.

Source of the rules: conversion/base.py of llama.cpp (load_hparams, get_model_architecture), October 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelbuild.convert.checkpoint import CONFIG, Checkpoint
from modelbuild.errors import InputError
from modelbuild.records import record

#: Names under which multimodal configurations keep the text model's part.
_TEXT_SECTIONS = ("llm_config", "lm_config", "language_config", "lfm")
#: Outer classes that decide the conversion although their text part names a class of its own.
_OUTER_CLASS_WINS = frozenset({
    "StepVLForConditionalGeneration", "Sarashina2VisionForCausalLM", "Exaone4_5_ForConditionalGeneration",
    "Step3p7ForConditionalGeneration", "KimiK3ForConditionalGeneration", "DeepseekOCRForCausalLM",
    "DeepseekOCR2ForCausalLM", "UnlimitedOCRForCausalLM",
})  # fmt: skip


@record
class HubConfig:
    """hf_class: the class that decides the conversion. outer_class: what the file names first.

    root: the file as it stands; values: with the text model's part laid over it.
    """

    hf_class: str
    outer_class: str
    root: Mapping[str, object]
    values: Mapping[str, object]


def read_hub_config(checkpoint: Checkpoint) -> HubConfig:
    """The configuration of a checkpoint; InputError CONFIG when it names no class."""
    path = checkpoint.files.get(CONFIG, checkpoint.origin)
    if not checkpoint.has(CONFIG):
        raise InputError("CONFIG", f"the checkpoint has no {CONFIG}", path=path)
    root = checkpoint.read_object(CONFIG, nonfinite=True)
    text = _text_section(root)
    if text is not None and not isinstance(text, dict):
        raise InputError("CONFIG", "an object expected", path=path, key="text_config")
    outer = _only_class(root, path)
    inner = _only_class(text, path) if text else ""
    chosen = inner if inner and outer not in _OUTER_CLASS_WINS else outer
    if not chosen:
        hint = "config.json must name the model's class in 'architectures'"
        raise InputError("CONFIG", "unknown architecture: 'architectures' is missing or empty", path=path, hint=hint)
    return HubConfig(chosen, outer or chosen, root, {**root, **text} if text else root)


def _text_section(root: Mapping[str, object]) -> object:
    section = root.get("text_config")
    for name in _TEXT_SECTIONS:
        section = root.get(name, section)
    thinker = root.get("thinker_config")
    return thinker.get("text_config", section) if isinstance(thinker, dict) else section


def _only_class(values: Mapping[str, object], path: Path | str) -> str:
    names = values.get("architectures")
    if isinstance(names, list) and len(names) > 1:
        hint = "keep the class whose weights these are"
        raise InputError("CONFIG", f"{len(names)} classes, one expected", path=path, key="architectures", hint=hint)
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    return _state_space_class(values)


def _state_space_class(values: Mapping[str, object]) -> str:
    """Old Mamba checkpoints have no class list, only the settings of their layers."""
    settings = values.get("ssm_cfg")
    if not isinstance(settings, dict):
        return ""
    layer = settings.get("layer", "Mamba")
    return f"{layer}ForCausalLM" if isinstance(layer, str) else ""
