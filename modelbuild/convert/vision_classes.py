"""Which checkpoints have a vision part that becomes a projector. Light: a plan asks this before anything heavy."""

from __future__ import annotations

from collections.abc import Mapping

#: Kind of projector by class and by the type of the vision part; "" stands for any type.
_KINDS: Mapping[str, Mapping[str, str]] = {
    "LlavaForConditionalGeneration": {"clip_vision_model": "clip", "pixtral": "pixtral"},
    "Mistral3ForConditionalGeneration": {"pixtral": "pixtral"},
    "Gemma3ForConditionalGeneration": {"": "gemma3"},
    "Qwen2VLForConditionalGeneration": {"": "qwen2vl"},
    "Qwen2_5_VLForConditionalGeneration": {"": "qwen2vl"},
}


def projector_kind(config: Mapping[str, object]) -> str:
    """The table that converts the vision part of a config.json; empty when there is none or no table for it."""
    classes, vision = config.get("architectures"), config.get("vision_config")
    if not isinstance(vision, dict) or not isinstance(classes, list) or not classes:
        return ""
    kinds = _KINDS.get(classes[0], {}) if isinstance(classes[0], str) else {}
    kind = vision.get("model_type")
    return kinds.get(kind if isinstance(kind, str) else "", kinds.get("", ""))


def has_unknown_vision(config: Mapping[str, object]) -> bool:
    """Is there a vision part that no table converts, so that the model will see no pictures?"""
    return isinstance(config.get("vision_config"), dict) and not projector_kind(config)
