"""Interprets family tables: from a checkpoint to the tensors and keys of a GGUF, without reading a weight.

checkpoint ─► class ─► family ─► stored tensors, renamed ─► rules ─► outputs ─► types ─► planned tensors
                            └──► keys: general, hyper-parameters, tokenizer ───────────► key values
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from modelbuild.convert.checkpoint import Checkpoint
from modelbuild.convert.dtype_policy import FLOAT_TYPES, file_type_of, output_type, wanted_type
from modelbuild.convert.families import all_families, find_family
from modelbuild.convert.family import Extra, Family
from modelbuild.convert.hub_config import HubConfig, read_hub_config
from modelbuild.convert.key_list import KeyList
from modelbuild.convert.limits import check_limits
from modelbuild.convert.mapping import Output, map_tensors
from modelbuild.convert.metadata import count_parameters, general_keys
from modelbuild.convert.model import Model
from modelbuild.convert.planned import PlannedTensor
from modelbuild.convert.quantized_source import SourceQuantization, open_sources, read_source_quantization
from modelbuild.convert.tokenizers.pretokenizers import check_pre_tokenizer_name
from modelbuild.convert.vision_classes import has_unknown_vision, is_vision_name, projector_kind
from modelbuild.errors import InputError, ProblemCollector, UnsupportedError, printable
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, string, u32
from modelbuild.formats.safetensors import StoredTensor
from modelbuild.records import record
from modelbuild.similar_names import similar_names

QUANTIZATION_VERSION = 2
_NAME_LIMIT_BYTES = 63
#: Tensors of pictures, sound and speech stand beside the text model's; they belong to a projector file.
_OTHER_MODES_START = (
    "mlp", "vit.", "vpm.", "siglip2.", "conformer.", "merger.", "resampler.", "sound_encoder.", "sound_projection.",
    "speech_embeddings.",
)  # fmt: skip
_OTHER_MODES = (
    "visual.", "vision.", "audio.", "talker.", "vision_", "audio_", "token2wav.", "code2wav.", "projector.",
    "pre_mm_projector_norm", "image_newline", "view_seperator", "patch_embed", "patch_embedding", "patch_merger.",
    "patch_merge_mlp.", "model.connector.", "sam_model",
)  # fmt: skip
#: Constants that old checkpoints store although they follow from the configuration.
_COMPUTED_END = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")


@record
class ConversionOptions:
    """float_type: of tensors that need not be F32; "auto" is that of the checkpoint, "source" keeps every tensor's own.

    pre_tokenizer: the user's choice where it cannot be found, or found wrongly.
    """

    float_type: str = "auto"
    pre_tokenizer: str | None = None


@record
class Conversion:
    """What a checkpoint becomes: keys and tensors in the reference converter's order, and remarks for the user."""

    kv: tuple[KeyValue, ...]
    tensors: tuple[PlannedTensor, ...]
    notes: tuple[str, ...] = ()


def plan_conversion(checkpoint: Checkpoint, options: ConversionOptions) -> Conversion:
    """The conversion of a checkpoint, decided from headers and small files alone.

    Raises UnsupportedError ARCHITECTURE (with near matches) or QUANTIZED before any weights file is opened; InputError
    CONFIG, TOKENIZER, ENTRY, SHAPE and what the readers raise; Problems when several of these are found.
    """
    assert options.float_type in FLOAT_TYPES, f"{options.float_type} is none of {FLOAT_TYPES}"
    hub = read_hub_config(checkpoint)
    family = _family_of(hub, checkpoint)
    quantization = read_source_quantization(hub, checkpoint)
    if options.pre_tokenizer is not None:
        check_pre_tokenizer_name(options.pre_tokenizer)
    stored = checkpoint.weights()
    wanted = wanted_type(options.float_type, stored)
    model = Model.of(family, hub, checkpoint)
    model = replace(
        model,
        file_type=quantization.file_type or file_type_of(wanted),
        pre_tokenizer=options.pre_tokenizer,
        stored=_rename(model, stored),
    )
    planned = _plan(model, quantization, options, wanted)
    if projector_kind(hub.root) and not any(is_vision_name(tensor.name) for tensor in stored):
        note = "the weights of the vision part are not in the checkpoint; the model sees no pictures"
        return replace(planned, notes=(*planned.notes, note))
    return planned


def model_of(checkpoint: Checkpoint) -> Model:
    """A checkpoint under its family, with its stored tensors, for what belongs to it and is planned by itself."""
    hub = read_hub_config(checkpoint)
    model = Model.of(_family_of(hub, checkpoint), hub, checkpoint)
    return replace(model, stored=_rename(model, checkpoint.weights()))


def _plan(model: Model, quantization: SourceQuantization, options: ConversionOptions, wanted: GgmlType) -> Conversion:
    problems = ProblemCollector()
    outputs: list[Output] = []
    tokenizer: list[KeyValue] = []
    check_limits(model)
    if model.family.check:
        model.family.check(model)
    with problems.collect():
        outputs = map_tensors(model, open_sources(model.stored, quantization, model.config))
    with problems.collect():
        tokenizer = list(model.family.tokenizer(model))
    problems.finish()
    extra = model.family.extras(model) if model.family.extras else Extra()
    outputs = [*(Output(name, source) for name, source in extra.tensors), *outputs]
    check_outputs(model, outputs)
    _check_token_count(model, tokenizer, outputs)
    tensors = tuple(typed_tensor(model, output, options.float_type, wanted) for output in outputs)
    return Conversion(_keys(model, extra, tensors, tokenizer), tensors, _notes(model))


def _family_of(hub: HubConfig, checkpoint: Checkpoint) -> Family:
    family = find_family(hub.hf_class)
    if family is not None:
        return family
    known = sorted({name for family in all_families() for name in family.classes})
    near = similar_names(hub.hf_class, known, n=3, cutoff=0.6)
    hint = f"similar and supported: {', '.join(near)}" if near else f"{len(known)} architectures are supported"
    message = f'unsupported architecture "{printable(hub.hf_class)}"'
    raise UnsupportedError("ARCHITECTURE", message, path=checkpoint.origin, key="architectures", hint=hint)


def _rename(model: Model, stored: Sequence[StoredTensor]) -> Mapping[str, StoredTensor]:
    """Tensors by the names that rules use, without those that no text model has; order is kept."""
    renamed: dict[str, StoredTensor] = {}
    for tensor in stored:
        name = rule_name(model, tensor.name)
        if name in model.family.same:
            name = "" if model.family.same[-1] in renamed else model.family.same[-1]
        if not name:
            continue
        if name in renamed:
            message = f"duplicate tensor name '{printable(name)}' was found for this model"
            raise InputError("DUPLICATE", message, path=tensor.path, key=tensor.name)
        renamed[name] = tensor
    return renamed


def rule_name(model: Model, name: str) -> str:
    """A stored name as the rules spell it; empty when the tensor is not part of the text model."""
    if name.startswith(_OTHER_MODES_START) or any(part in name for part in _OTHER_MODES):
        return ""
    name = name.replace("language_model.", "")
    if name.endswith("e_score_correction_bias"):
        name = name.removesuffix("_bias") + ".bias"
    if model.family.rename is not None:
        name = model.family.rename(name, model)
    if name.endswith(_COMPUTED_END) or any(fnmatchcase(name, pattern) for pattern in model.family.drop):
        return ""
    return name


def typed_tensor(model: Model, output: Output, float_type: str, wanted: GgmlType) -> PlannedTensor:
    """An output with the type that its family, or else the precision policy, gives it."""
    forced = model.family.force_type(output.name, model) if model.family.force_type else None
    source = output.source
    type_ = output_type(output.name, source.shape, source.dtype, float_type, wanted) if forced is None else forced
    return PlannedTensor(output.name, source, type_)


def check_outputs(model: Model, outputs: Iterable[Output]) -> None:
    """InputError DUPLICATE or NAME for names that a GGUF cannot have."""
    seen: set[str] = set()
    for output in outputs:
        if output.name in seen:
            message = f"duplicate tensor name '{output.name}' was found for this model"
            raise InputError("DUPLICATE", message, path=model.checkpoint.origin)
        if len(output.name.encode()) > _NAME_LIMIT_BYTES:
            raise InputError("NAME", f"the name has more than {_NAME_LIMIT_BYTES} bytes", key=output.name)
        seen.add(output.name)


def _check_token_count(model: Model, tokenizer: Iterable[KeyValue], outputs: Iterable[Output]) -> None:
    """The runtime reads one embedding row per token, no more and no less."""
    count = next((item.value.length for item in tokenizer if item.key == "tokenizer.ggml.tokens"), None)
    rows = {output.name: output.source.shape[0] for output in outputs if output.name in _TOKEN_TENSORS}
    for name, found in rows.items():
        if count is not None and count != found:
            message = f"{count} tokens, but {found} rows of {name}"
            raise InputError("TOKENIZER", message, path=model.checkpoint.origin)


_TOKEN_TENSORS = ("token_embd.weight", "output.weight")


def _keys(
    model: Model, extra: Extra, tensors: Iterable[PlannedTensor], tokenizer: Iterable[KeyValue]
) -> tuple[KeyValue, ...]:
    keys = KeyList()
    keys.add([string("general.architecture", model.architecture)])
    keys.add(extra.keys)
    keys.add([string("general.type", "model")])
    count = count_parameters((tensor.name, tensor.source.shape) for tensor in tensors)
    keys.add(general_keys(model.checkpoint, count))
    for rule in model.family.keys:
        keys.add(rule(model))
    keys.add([u32("general.quantization_version", QUANTIZATION_VERSION)])
    keys.add(tokenizer)
    return keys.finish()


def _notes(model: Model) -> tuple[str, ...]:
    notes: list[str] = []
    if "auto_map" in model.hub.root:
        notes.append("the checkpoint refers to code of its own (auto_map); it was not loaded")
    if has_unknown_vision(model.hub.root):
        notes.append(
            f"the vision part of {printable(model.hub.outer_class)} cannot be converted yet; the model sees no pictures"
        )
    return tuple(notes)
