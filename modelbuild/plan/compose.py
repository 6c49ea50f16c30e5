"""Putting a model together: layer order, inheritance and config as Ollama's create defines them. Pure.

Source: Ollama's create behaviour, August 2026, sections "overlay" and "per-layer processing" of its description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from modelbuild.digest import Digest
from modelbuild.recipe.resolved import ResolvedModel
from modelbuild.records import record
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
#: What `null` in a recipe keeps a model from taking over, and the kind of layer that then stays away.
_CLEARED_KINDS = {
    "template": "template",
    "system": "system",
    "license": "license",
    "messages": "messages",
    "parameters": "params",
    "adapters": "adapter",
    "draft_files": "draft",
}
_GEMMA4_STOP = ("<turn|>",)


@record
class GgufFacts:
    """What the config of a model says about one of its GGUF layers.

    chat_template: the file's own `tokenizer.chat_template`, empty when it has none.
    """

    architecture: str
    parameter_count: str
    file_type: str
    chat_template: str = ""


@record
class BaseModel:
    """The stored model that another one starts from. name: its short display form."""

    name: str
    layers: tuple[Layer, ...]
    config: ModelConfig
    parameters: Mapping[str, object]


@record
class NewLayers:
    """The layers that a model adds, in order.

    replacements: for each model layer of the base the new one that stands in for it, or None; () keeps all.
    files: from `files` or a path. detected: template layers for the chat templates of the files, where one was
    recognised. extra: adapters, then drafts. texts: template, system, licences and messages.
    """

    replacements: Sequence[Layer | None] = ()
    files: Sequence[Layer] = ()
    detected: Sequence[Layer] = ()
    extra: Sequence[Layer] = ()
    texts: Sequence[Layer] = ()


@record
class Composition:
    """The layers of a model before its params layer and config are written.

    parameters: the merged parameters; None when there is no new params layer. They belong at index params_index.
    """

    layers: tuple[Layer, ...]
    parameters: Mapping[str, object] | None
    params_index: int
    config: ModelConfig


def compose_model(
    model: ResolvedModel,
    base: BaseModel | None,
    new: NewLayers,
    *,
    facts: Mapping[Digest, GgufFacts],
    detected_stop: Sequence[str] = (),
    remote: tuple[str, str] = ("", ""),
) -> Composition:
    """The layers, parameters and config of a model.

    facts: about every GGUF layer of kind model or draft. detected_stop: the stop texts that come with a recognised chat
    template. remote: host and model name there, or two empty texts.
    """
    layers = [*_inherited(model, base, new.replacements), *new.files, *new.detected, *new.extra]
    config, wants_stop = _config(model, base, layers, facts, remote)
    for layer in new.texts:
        if layer.kind != "messages":
            layers = [*(_without(layers, layer.kind) if layer.kind in _REPLACED_KINDS else layers), layer]
    parameters = _parameters(model, base, detected_stop, wants_stop=wants_stop)
    if parameters or "parameters" in model.cleared or _clears_a_parameter(model):
        layers = _without(layers, "params")
    params_index = len(layers)
    messages = [layer for layer in new.texts if layer.kind == "messages"]
    if messages:
        before = sum(layer.kind == "messages" for layer in layers)
        layers, params_index = _without(layers, "messages"), params_index - before
    return Composition((*layers, *messages), parameters or None, params_index, config)


def _inherited(model: ResolvedModel, base: BaseModel | None, replacements: Sequence[Layer | None]) -> list[Layer]:
    """The base's layers that the model takes over; new weights stand where the old ones stood."""
    if base is None:
        return []
    cleared = {_CLEARED_KINDS[field] for field in model.cleared if field in _CLEARED_KINDS}
    fresh = iter(replacements)
    layers = []
    for layer in base.layers:
        new = next(fresh, None) if layer.kind == "model" else None
        if layer.kind not in cleared:
            layers.append(replace(layer, from_=base.name) if new is None else new)
    return layers


def _without(layers: Sequence[Layer], kind: str) -> list[Layer]:
    media_type = layer_media_type(kind)
    return [layer for layer in layers if layer.media_type != media_type]


def _parameters(
    model: ResolvedModel, base: BaseModel | None, detected_stop: Sequence[str], *, wants_stop: bool
) -> dict[str, object]:
    """Own parameters over built-in over recognised over inherited ones; lists are replaced whole."""
    own = dict(model.parameters or {})
    built_in = {"stop": list(_GEMMA4_STOP)} if wants_stop and "stop" not in own else {}
    inherited = dict(base.parameters) if base is not None else {}
    if detected_stop:
        inherited.setdefault("stop", list(detected_stop))
    if "parameters" in model.cleared:
        inherited, built_in = {}, {}
    merged = {**inherited, **built_in, **own}
    return {key: value for key, value in merged.items() if f"parameters.{key}" not in model.cleared}


def _clears_a_parameter(model: ResolvedModel) -> bool:
    return any(field.startswith("parameters.") for field in model.cleared)


def _config(
    model: ResolvedModel,
    base: BaseModel | None,
    layers: Sequence[Layer],
    facts: Mapping[Digest, GgufFacts],
    remote: tuple[str, str],
) -> tuple[ModelConfig, bool]:
    """The config, and whether the architecture brings a stop text of its own."""
    config = _config_of_fields(model, base.config if base else ModelConfig(), remote)
    wants_stop = False
    for layer in layers:
        known = facts.get(layer.digest)
        if known is not None and layer.kind == "draft":
            config = replace(config, draft={"model_format": "gguf", "architecture": known.architecture})
        elif known is not None and layer.kind == "model":
            wants_stop |= known.architecture == "gemma4" and not (config.renderer and config.parser)
            config = _with_model_layer(config, known, model.cleared)
    return config, wants_stop


def _config_of_fields(model: ResolvedModel, inherited: ModelConfig, remote: tuple[str, str]) -> ModelConfig:
    info, cleared = model.info or {}, model.cleared
    family = str(info.get("model_family") or "")
    return ModelConfig(
        model_format=inherited.model_format,
        model_family=family,
        model_families=(family,) if family else None,
        model_type=str(info.get("parameter_size") or ""),
        file_type=str(info.get("quantization_level") or ""),
        renderer=model.renderer or ("" if "renderer" in cleared else inherited.renderer),
        parser=model.parser or ("" if "parser" in cleared else inherited.parser),
        requires=model.requires or ("" if "requires" in cleared else inherited.requires),
        remote_host=remote[0],
        remote_model=remote[1],
        capabilities=(*(() if "capabilities" in cleared else inherited.capabilities), *_capabilities(info)),
        context_length=_number(info, "context_length"),
        embedding_length=_number(info, "embedding_length"),
        base_name=str(info.get("base_name") or ""),
    )


def _with_model_layer(config: ModelConfig, facts: GgufFacts, cleared: frozenset[str]) -> ModelConfig:
    built_in = _BUILT_IN_RENDERERS.get(facts.architecture, "")
    return replace(
        config,
        model_format=config.model_format or "gguf",
        model_family=config.model_family or facts.architecture,
        model_families=(*(config.model_families or ()), facts.architecture),
        model_type=config.model_type or facts.parameter_count,
        file_type=config.file_type or facts.file_type,
        renderer=config.renderer or ("" if "renderer" in cleared else built_in),
        parser=config.parser or ("" if "parser" in cleared else built_in),
    )


def _capabilities(info: Mapping[str, object]) -> tuple[str, ...]:
    value = info.get("capabilities")
    return tuple(item if isinstance(item, str) else "" for item in value) if isinstance(value, list) else ()


def _number(info: Mapping[str, object], key: str) -> int:
    value = info.get(key) or 0
    return int(value) if isinstance(value, int | float) else 0
