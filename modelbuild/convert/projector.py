"""The vision part of a checkpoint as a projector file: what makes tokens of pictures for the text model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from modelbuild.convert.checkpoint import Checkpoint
from modelbuild.convert.dtype_policy import FLOAT_TYPES, file_type_of, wanted_type
from modelbuild.convert.engine import QUANTIZATION_VERSION, Conversion, check_outputs, typed_tensor
from modelbuild.convert.hub_config import HubConfig, read_hub_config
from modelbuild.convert.key_list import KeyList
from modelbuild.convert.mapping import map_tensors
from modelbuild.convert.metadata import count_parameters, general_keys
from modelbuild.convert.model import Model
from modelbuild.convert.planned import PlannedTensor
from modelbuild.convert.projectors import projector_family
from modelbuild.convert.quantized_source import open_sources, read_source_quantization
from modelbuild.convert.vision_classes import projector_kind
from modelbuild.errors import InputError, printable
from modelbuild.formats.gguf.writer import KeyValue, string, u32
from modelbuild.formats.safetensors import StoredTensor


def plan_projector(checkpoint: Checkpoint, float_type: str = "auto") -> Conversion:
    """The projector of a checkpoint that has one (`projector_kind`), decided from headers and small files alone.

    Raises what `plan_conversion` raises.
    """
    assert float_type in FLOAT_TYPES, f"{float_type} is none of {FLOAT_TYPES}"
    hub = read_hub_config(checkpoint)
    kind = projector_kind(hub.root)
    assert kind, f"{hub.outer_class} has no projector"
    model = _model(kind, hub, checkpoint)
    wanted = wanted_type(float_type, model.stored.values())
    model = replace(model, file_type=file_type_of(wanted))
    if model.family.check:
        model.family.check(model)
    sources = open_sources(model.stored, read_source_quantization(hub, checkpoint), model.config)
    outputs = map_tensors(model, sources)
    check_outputs(model, outputs)
    tensors = tuple(typed_tensor(model, output, float_type, wanted) for output in outputs)
    return Conversion(_keys(model, tensors), tensors)


def _model(kind: str, hub: HubConfig, checkpoint: Checkpoint) -> Model:
    """The vision part under its table: its own configuration, with the whole one as root."""
    vision = hub.root["vision_config"]
    assert isinstance(vision, dict), "a projector has a vision_config"
    own = HubConfig(hub.outer_class, hub.outer_class, hub.root, vision)
    model = Model.of(projector_family(kind), own, checkpoint)
    return replace(model, stored=_stored(model, checkpoint))


def _stored(model: Model, checkpoint: Checkpoint) -> Mapping[str, StoredTensor]:
    family, stored = model.family, {}
    for tensor in checkpoint.weights():
        name = family.rename(tensor.name, model) if family.rename else tensor.name
        if not name or any(fnmatchcase(name, pattern) for pattern in family.drop):
            continue
        if name in stored:
            message = f"duplicate tensor name '{printable(name)}' was found for this model"
            raise InputError("DUPLICATE", message, path=tensor.path, key=tensor.name)
        stored[name] = tensor
    return stored


def _keys(model: Model, tensors: tuple[PlannedTensor, ...]) -> tuple[KeyValue, ...]:
    keys = KeyList()
    keys.add([string("general.architecture", model.architecture), string("general.type", "mmproj")])
    keys.add(general_keys(model.checkpoint, count_parameters((item.name, item.source.shape) for item in tensors)))
    for rule in model.family.keys:
        keys.add(rule(model))
    keys.add([u32("general.quantization_version", QUANTIZATION_VERSION)])
    return keys.finish()
