"""What the metadata of GGUF files says about a model's capabilities."""

from __future__ import annotations

from modelbuild.errors import InputError
from modelbuild.formats.gguf.metadata import Metadata
from modelbuild.template.capabilities import GgufTraits, ProjectorTraits

CHAT_TEMPLATE_KEY = "tokenizer.chat_template"


def gguf_traits(metadata: Metadata) -> GgufTraits:
    """The traits of a model layer. Values of a wrong type count as absent, as in Ollama."""
    architecture = _text(metadata, "general.architecture")
    return GgufTraits(
        architecture,
        f"{architecture}.pooling_type" in metadata,
        f"{architecture}.vision.block_count" in metadata,
        f"{architecture}.audio.block_count" in metadata,
        _text(metadata, CHAT_TEMPLATE_KEY),
    )


def projector_traits(metadata: Metadata) -> ProjectorTraits:
    """The traits of a projector layer."""
    architecture = _text(metadata, "general.architecture")
    has_audio = any(_is_on(metadata, key) for key in metadata if key.endswith(".has_audio_encoder"))
    return ProjectorTraits(has_audio, _text(metadata, f"{architecture}.vision.projector_type"))


def _text(metadata: Metadata, key: str) -> str:
    try:
        return metadata.get_string(key) or ""
    except InputError:
        return ""


def _is_on(metadata: Metadata, key: str) -> bool:
    try:
        return metadata.get_boolean(key) is True
    except InputError:
        return False
