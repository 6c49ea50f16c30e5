"""Which checkpoints have a vision part that becomes a projector. Light: a plan asks this before anything heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelbuild.errors import InputError

#: Kind of projector by class and by the type of the vision part; "" stands for any type.
_KINDS: Mapping[str, Mapping[str, str]] = {
    "LlavaForConditionalGeneration": {"clip_vision_model": "clip", "pixtral": "pixtral"},
    "Mistral3ForConditionalGeneration": {"pixtral": "pixtral"},
    "Gemma3ForConditionalGeneration": {"": "gemma3"},
    "Qwen2VLForConditionalGeneration": {"": "qwen2vl"},
    "Qwen2_5_VLForConditionalGeneration": {"": "qwen2vl"},
    "Qwen3VLForConditionalGeneration": {"": "qwen3vl"},
    "Qwen3VLMoeForConditionalGeneration": {"": "qwen3vl"},
    "Qwen3_5ForConditionalGeneration": {"": "qwen3vl"},
    "Qwen3_5MoeForConditionalGeneration": {"": "qwen3vl"},
}
#: What the names of encoders begin with, behind the prefix of newer releases.
_PREFIXES = ("vision_tower.", "visual.")


def projector_kind(config: Mapping[str, object]) -> str:
    """The table that converts the vision part of a config.json; empty when there is none or no table for it."""
    classes, vision = config.get("architectures"), config.get("vision_config")
    if not isinstance(vision, dict) or not isinstance(classes, list) or not classes:
        return ""
    kinds = _KINDS.get(classes[0], {}) if isinstance(classes[0], str) else {}
    kind = vision.get("model_type")
    return kinds.get(kind if isinstance(kind, str) else "", kinds.get("", ""))


def is_vision_name(name: str) -> bool:
    """Is a stored tensor part of a vision encoder that a table converts? Copies for text alone have none of them."""
    return name.removeprefix("model.").startswith(_PREFIXES)


def has_vision_weights(files: Mapping[str, Path], origin: str) -> bool:
    """Does a checkpoint hold a vision encoder? Faults of its files are told by the conversion of the text model."""
    from modelbuild.convert.checkpoint import Checkpoint

    try:
        return any(is_vision_name(tensor.name) for tensor in Checkpoint(files, origin).weights())
    except InputError:
        return True


def has_unknown_vision(config: Mapping[str, object]) -> bool:
    """Is there a vision part that no table converts, so that the model will see no pictures?"""
    return isinstance(config.get("vision_config"), dict) and not projector_kind(config)
