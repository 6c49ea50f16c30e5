"""Putting a model together: layer order, inheritance and config as Ollama's create defines them. Pure.

Source: Ollama's create behaviour, August 2026, sections "overlay" and "per-layer processing" of its description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from modelbuild.digest import Digest
from modelbuild.recipe.resolved import ResolvedModel
from modelbuild.store.config import ModelConfig
from modelbuild.store.manifest import Layer, layer_media_type

#: Kinds whose blobs are GGUF files.
GGUF_KINDS = ("model", "projector", "adapter", "draft")
#: Kinds of which a new layer replaces all old ones; licences are added instead.
_REPLACED_KINDS = ("template", "system", "messages", "params")
#: Renderer and parser by architecture, for models that name none.
_BUILT_IN_RENDERERS: Mapping[str, str] = {
    "gemma4": "gemma4",
    "laguna": "laguna",
    "nemotron_h": "nemotron-3-nano",
    "nemotron_h_moe": "nemotron-3-nano",
    "nemotron_h_omni": "nemotron-3-nano",
}
_GEMMA4_STOP = ("<turn|>",)


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What the config of a model says about one of its GGUF layers."""

    architecture: str
    parameter_count: str
    file_type: str


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The stored model that another one starts from. name: its short display form."""

    name: str
    layers: tuple[Layer, ...]
    config: ModelConfig
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Composition:
    """The layers of a model before its params layer and config are written.

    parameters: the merged parameters; None when there is no params layer. They belong at index params_index.
    """

    layers: tuple[Layer, ...]
    parameters: Mapping[str, object] | None
    params_index: int
    config: ModelConfig


def compose_model(
    model: ResolvedModel,
    base: BaseModel | None,
    *,
    replacements: Sequence[Layer],
    new_layers: Sequence[Layer],
    facts: Mapping[Digest, GgufFacts],
    remote: tuple[str, str] = ("", ""),
) -> Composition:
    """The layers, parameters and config of a model.

    replacements: new model layers that stand in for the base's, in their order. new_layers: GGUF layers, then texts.
    facts: about every GGUF layer of kind model or draft. remote: host and model name there, or two empty texts.
    """
    layers = _inherited(base, replacements)
    layers += [layer for layer in new_layers if layer.kind in GGUF_KINDS]
    config = _config(model, base, layers, facts, remote)
    defaults = _default_parameters(layers, facts, model)
    for layer in new_layers:
        if layer.kind in GGUF_KINDS or layer.kind == "messages":
            continue
        layers = _without(layers, layer.kind) if layer.kind in _REPLACED_KINDS else layers
        layers.append(layer)
    parameters = merge_parameters(base.parameters if base else {}, defaults | (dict(model.parameters or {})))
    layers = _without(layers, "params")
    messages = [layer for layer in new_layers if layer.kind == "messages"]
    if messages:
        layers = _without(layers, "messages")
    return Composition((*layers, *messages), parameters or None, len(layers), config)


def merge_parameters(base: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    """The base's parameters with the model's own over them; lists are replaced whole, None drops one."""
    merged = {**base, **own}
    return {key: value for key, value in merged.items() if value is not None or key not in own}


def _inherited(base: BaseModel | None, replacements: Sequence[Layer]) -> list[Layer]:
    if base is None:
        return []
    fresh = iter(replacements)
    return [
        next(fresh) if replacements and layer.kind == "model" else replace(layer, from_=base.name)
        for layer in base.layers
    ]


def _without(layers: Sequence[Layer], kind: str) -> list[Layer]:
    media_type = layer_media_type(kind)
    return [layer for layer in layers if layer.media_type != media_type]


def _config(
    model: ResolvedModel,
    base: BaseModel | None,
    layers: Sequence[Layer],
    facts: Mapping[Digest, GgufFacts],
    remote: tuple[str, str],
) -> ModelConfig:
    inherited = base.config if base else ModelConfig()
    info = model.info or {}
    family = str(info.get("model_family") or "")
    config = ModelConfig(
        model_format=inherited.model_format,
        model_family=family,
        model_families=(family,) if family else None,
        model_type=str(info.get("parameter_size") or ""),
        file_type=str(info.get("quantization_level") or ""),
        renderer=model.renderer or inherited.renderer,
        parser=model.parser or inherited.parser,
        requires=model.requires or inherited.requires,
        remote_host=remote[0],
        remote_model=remote[1],
        capabilities=(*inherited.capabilities, *_capabilities(info)),
        context_length=_number(info, "context_length"),
        embedding_length=_number(info, "embedding_length"),
        base_name=str(info.get("base_name") or ""),
    )
    for layer in layers:
        if layer.kind in ("model", "draft") and layer.digest in facts:
            config = _with_layer(config, layer.kind, facts[layer.digest])
    return config


def _with_layer(config: ModelConfig, kind: str, facts: GgufFacts) -> ModelConfig:
    if kind == "draft":
        return replace(config, draft={"model_format": "gguf", "architecture": facts.architecture})
    built_in = _BUILT_IN_RENDERERS.get(facts.architecture, "")
    return replace(
        config,
        model_format=config.model_format or "gguf",
        model_family=config.model_family or facts.architecture,
        model_families=(*(config.model_families or ()), facts.architecture),
        model_type=config.model_type or facts.parameter_count,
        file_type=config.file_type or facts.file_type,
        renderer=config.renderer or built_in,
        parser=config.parser or built_in,
    )


def _default_parameters(
    layers: Sequence[Layer], facts: Mapping[Digest, GgufFacts], model: ResolvedModel
) -> dict[str, object]:
    architectures = {facts[layer.digest].architecture for layer in layers if layer.digest in facts}
    own_stop = model.parameters is not None and "stop" in model.parameters
    return {"stop": list(_GEMMA4_STOP)} if "gemma4" in architectures and not own_stop else {}


def _capabilities(info: Mapping[str, object]) -> tuple[str, ...]:
    value = info.get("capabilities")
    return tuple(item if isinstance(item, str) else "" for item in value) if isinstance(value, list) else ()


def _number(info: Mapping[str, object], key: str) -> int:
    value = info.get(key) or 0
    return int(value) if isinstance(value, int | float) else 0
