"""The config document of a model: what Ollama keeps beside the layers, in its exact byte form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelbuild.errors import InputError
from modelbuild.formats.json_text import parse_json
from modelbuild.records import record
from modelbuild.store.go_json import encode_go_json

_TEXT_KEYS = (
    "model_format",
    "model_family",
    "model_type",
    "file_type",
    "renderer",
    "parser",
    "requires",
    "remote_host",
    "remote_model",
    "base_name",
)


@record
class ModelConfig:
    """Fields in Ollama's order; empty ones from `renderer` on are left out of the document.

    model_type is the parameter count as text ("4.2M"), file_type the quantization ("Q4_K_M").
    model_families None is written as null. draft is the draft model's own small object.
    """

    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] | None = None
    model_type: str = ""
    file_type: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: tuple[str, ...] = ()
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    draft: Mapping[str, object] | None = None

    def encode(self) -> bytes:
        """The exact bytes Ollama writes, final newline included."""
        families = None if self.model_families is None else list(self.model_families)
        document: dict[str, object] = {
            "model_format": self.model_format,
            "model_family": self.model_family,
            "model_families": families,
            "model_type": self.model_type,
            "file_type": self.file_type,
        }
        optional = {
            "renderer": self.renderer,
            "parser": self.parser,
            "requires": self.requires,
            "remote_host": self.remote_host,
            "remote_model": self.remote_model,
            "capabilities": list(self.capabilities),
            "context_length": self.context_length,
            "embedding_length": self.embedding_length,
            "base_name": self.base_name,
            "draft": self.draft,
        }
        document |= {key: value for key, value in optional.items() if value}
        return encode_go_json(document | {"architecture": "amd64", "os": "linux"}) + b"\n"


def decode_config(data: bytes, path: Path) -> ModelConfig:
    """A config from its bytes; InputError MANIFEST when it is none. Unknown keys are ignored, as Ollama does."""
    try:
        document = parse_json(data, path=path)
    except InputError as error:
        raise InputError("MANIFEST", f"damaged model config: {error.message}", path=path) from error
    if not isinstance(document, dict):
        raise InputError("MANIFEST", "damaged model config: a JSON object expected", path=path)
    return ModelConfig(
        **{key: _text(document, key, path) for key in _TEXT_KEYS},
        model_families=_texts(document, "model_families", path),
        capabilities=_texts(document, "capabilities", path) or (),
        context_length=_length(document, "context_length", path),
        embedding_length=_length(document, "embedding_length", path),
        draft=_draft(document, path),
    )


def format_parameter_count(count: int) -> str:
    """A parameter count as Ollama shows it: 90432 -> "90K", 4195840 -> "4.20M", 2850000000 -> "2.9B"."""
    if count >= 1_000_000_000:
        return _scaled(count / 1e9, "B", 1)
    if count >= 1_000_000:
        return _scaled(count / 1e6, "M", 2)
    return f"{count / 1e3:.0f}K" if count >= 1000 else str(count)


def _scaled(number: float, suffix: str, decimals: int) -> str:
    return f"{number:.0f}{suffix}" if number == int(number) else f"{number:.{decimals}f}{suffix}"


def _text(document: Mapping[str, object], key: str, path: Path) -> str:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError("MANIFEST", "damaged model config: a string expected", path=path, key=key)
    return value or ""


def _texts(document: Mapping[str, object], key: str, path: Path) -> tuple[str, ...] | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError("MANIFEST", "damaged model config: an array of strings expected", path=path, key=key)
    return tuple(value)


def _length(document: Mapping[str, object], key: str, path: Path) -> int:
    value = document.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError("MANIFEST", "damaged model config: a whole number expected", path=path, key=key)
    return value


def _draft(document: Mapping[str, object], path: Path) -> Mapping[str, object] | None:
    value = document.get("draft")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InputError("MANIFEST", "damaged model config: an object expected", path=path, key="draft")
    texts = {key: _text(value, key, path) for key in ("model_format", "architecture", "tensor_prefix") if key in value}
    return {**texts, **({"config": value["config"]} if value.get("config") is not None else {})}
