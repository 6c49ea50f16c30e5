"""One GGUF to be, decided to the last byte before any weight is read: keys, tensors, types, layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from modelbuild.convert import Checkpoint, Conversion, ConversionOptions, plan_conversion
from modelbuild.convert.planned import PlannedTensor, Rounded, Stored
from modelbuild.errors import InputError, Problems, UnsupportedError
from modelbuild.formats.gguf.limits import ALIGNMENT_KEY, DEFAULT_ALIGNMENT
from modelbuild.formats.gguf.model_keys import check_model_keys
from modelbuild.formats.gguf.reader import GgufHeader, open_gguf
from modelbuild.formats.gguf.types import GgmlType, is_quantized
from modelbuild.formats.gguf.writer import GgufLayout, KeyValue, lay_out, raw, u32
from modelbuild.formats.safetensors import StoredTensor
from modelbuild.plan.gguf_units import EMBEDDED_PREFIXES
from modelbuild.plan.graph import COPY_PRESET, PROJECTOR_PART, AdapterBaseFiles, AssembleWork
from modelbuild.plan.importance import MatchedImportance, TensorImportance, match_importance
from modelbuild.plan.layer_kind import count_parameters
from modelbuild.plan.ollama_layout import arrange_keys, tensor_order
from modelbuild.plan.wishes import Wishes, edit_metadata
from modelbuild.quantize.mixes import ModelFacts, TensorFacts, TypeChoice, TypeOptions, choose_types, order_tensors
from modelbuild.quantize.presets import Preset, find_preset
from modelbuild.records import record

QUANTIZATION_VERSION = 2
_VERSION_KEY, _TYPE_KEY = "general.quantization_version", "general.file_type"
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
#: Presets that the converter makes itself, as the reference converter's --outtype does.
_FLOAT_PRESETS = ("F32", "F16", "BF16")
_FLOAT_TYPES = {GgmlType.F32: "F32", GgmlType.F16: "F16", GgmlType.BF16: "BF16"}
_F16_FILE_TYPE = 1
#: File type of a GGUF that does not say its own: flag "guessed" and the majority type (llama-quantize COPY).
_GUESSED = 1024


@record
class Assembly:
    """A GGUF file that can be written in one pass.

    tensors stand in file order and match layout.slots; rules says for each why it has its type.
    importance: of the columns of the tensors that have some, by name.
    """

    kv: tuple[KeyValue, ...]
    tensors: tuple[PlannedTensor, ...]
    rules: tuple[str, ...]
    layout: GgufLayout
    notes: tuple[str, ...] = ()
    importance: Mapping[str, TensorImportance] = field(default_factory=dict)

    @property
    def source_bytes(self) -> int:
        """How many bytes of weights are read."""
        return sum(span.size_bytes for tensor in self.tensors for span in tensor.source.spans())


#: Conversions that were planned before, by what they depend on; files of several types share one.
Conversions = dict[tuple[object, ...], Conversion]


def prepare_assembly(work: AssembleWork, sources: Sequence[Path], conversions: Conversions | None = None) -> Assembly:
    """The assembly for an action; `sources`: the GGUF files it starts from when it has no checkpoint (several: shards).

    conversions: of the same run, so that a matrix of types plans its checkpoint once.
    Only headers and small files are read. Raises InputError or UnsupportedError for anything that could fail later.
    """
    if work.base is not None:
        return _from_adapter(work, work.base)
    if work.part == PROJECTOR_PART:
        return _from_vision(work)
    if work.checkpoint is not None:
        return _from_checkpoint(work, work.checkpoint, {} if conversions is None else conversions)
    if not sources:
        raise AssertionError("an assembly needs a checkpoint or a GGUF")
    return _from_gguf([open_gguf(source) for source in sources], work)


def _from_checkpoint(work: AssembleWork, files: Mapping[str, Path], conversions: Conversions) -> Assembly:
    direct = work.preset in ("", *_FLOAT_PRESETS)
    float_type = (work.preset or "auto") if direct else (work.intermediate.upper() or "source")
    options = ConversionOptions(float_type=float_type, pre_tokenizer=work.pre_tokenizer or None)
    key = (work.origin, tuple(sorted(files.items())), options)
    planned = conversions.get(key)
    if planned is None:
        planned = conversions[key] = plan_conversion(Checkpoint(files, work.origin), options)
    if direct:
        rules = tuple("source precision" if not work.preset else f"preset {work.preset}" for _ in planned.tensors)
        noted = _noted_as_ollama_does(planned.kv, work.preset) if work.wishes.ollama_rules else planned.kv
        return _assembly(edit_metadata(noted, work.wishes.metadata), planned.tensors, rules, planned.notes)
    return _quantized(planned.kv, planned.tensors, work, planned.notes)


def _noted_as_ollama_does(kv: Sequence[KeyValue], preset: str) -> Sequence[KeyValue]:
    """The keys with F16 as the file type when nothing was asked for: Ollama's converter notes it for BF16 as well."""
    return kv if preset else [u32(_TYPE_KEY, _F16_FILE_TYPE) if item.key == _TYPE_KEY else item for item in kv]


def _from_adapter(work: AssembleWork, base: AdapterBaseFiles) -> Assembly:
    """An adapter keeps its precision unless told: it is small, and its pairs are multiplied before they are rounded."""
    from modelbuild.convert.lora import plan_adapter
    from modelbuild.convert.lora_base import base_of_checkpoint, base_of_header

    if base.checkpoint is not None:
        known = base_of_checkpoint(Checkpoint(base.checkpoint, base.origin))
    elif base.gguf is not None:
        known = base_of_header(open_gguf(base.gguf))
    else:
        raise AssertionError("an adapter has a base")
    planned = plan_adapter(Checkpoint(work.checkpoint or {}, work.origin), known, work.preset or "source")
    rule = f"preset {work.preset}" if work.preset else "source precision"
    return _assembly(planned.kv, planned.tensors, tuple(rule for _ in planned.tensors), planned.notes)


def _from_vision(work: AssembleWork) -> Assembly:
    """The projector keeps the checkpoint's precision: the runtime reads no other type of its convolutions."""
    from modelbuild.convert.projector import plan_projector

    planned = plan_projector(Checkpoint(work.checkpoint or {}, work.origin))
    return _assembly(planned.kv, planned.tensors, tuple("source precision" for _ in planned.tensors), planned.notes)


def _from_gguf(headers: Sequence[GgufHeader], work: AssembleWork) -> Assembly:
    """Shards are merged: the metadata of the first, the tensors of all."""
    kv = [raw(key, value) for key, value in headers[0].kv.items()]
    if not work.keeps_embedded:
        check_model_keys(headers[0].kv)
    _check_distinct(headers)
    pairs = [(header, index) for header in headers for index in range(len(header.tensors))]
    if work.keeps_embedded:
        # Ollama notes the weights of the first shard only; it counts them again whenever it reads the file.
        tensors = tuple(_stored(header, index, trim=False) for header, index in pairs)
        return _with_embedded(kv, tensors, work, count_parameters(headers[0]))
    tensors = tuple(_stored(header, index) for header, index in pairs)
    if work.preset != COPY_PRESET:
        return _quantized(kv, tensors, work, ())
    facts = order_tensors([_facts(tensor) for tensor in tensors])
    by_name = {tensor.name: tensor for tensor in tensors}
    file_type = headers[0].kv.get_u32(_TYPE_KEY)
    if file_type is None:
        file_type = _GUESSED | _guess_file_type(facts)
    ordered = tuple(by_name[item.name] for item in facts)
    edited = edit_metadata(_edit_keys(kv, file_type), work.wishes.metadata)
    return _assembly(edited, ordered, tuple("copied" for _ in ordered), ())


def _with_embedded(
    kv: Sequence[KeyValue], tensors: Sequence[PlannedTensor], work: AssembleWork, noted_weights: int
) -> Assembly:
    """A file that also holds tensors of no text model, which stay as they are, as Ollama's own writer makes it."""
    rules = {tensor.name: "copied" for tensor in tensors}
    matched, file_type = _NO_IMPORTANCE, None
    if work.preset != COPY_PRESET:
        preset = _preset_of(work)
        plain = [tensor for tensor in tensors if not tensor.name.startswith(EMBEDDED_PREFIXES)]
        text = _quantize(kv, plain, preset, work)
        packed = {tensor.name: tensor for tensor in text.tensors}
        tensors = [packed.get(tensor.name, tensor) for tensor in tensors]
        rules |= {tensor.name: rule for tensor, rule in zip(text.tensors, text.rules, strict=True)}
        matched, file_type = text.matched, preset.file_type
    arranged = arrange_keys(kv, work.added, file_type, noted_weights)
    edited = [*edit_metadata(arranged, work.wishes.metadata), *matched.keys]
    ordered = sorted(tensors, key=lambda tensor: tensor_order(tensor.name))
    layout = lay_out(edited, [(item.name, _gguf_shape(item), item.type) for item in ordered], pads_end=False)
    sorted_rules = tuple(rules[item.name] for item in ordered)
    return Assembly(tuple(edited), tuple(ordered), sorted_rules, layout, importance=matched.by_tensor)


def _check_distinct(headers: Sequence[GgufHeader]) -> None:
    seen: dict[str, Path] = {}
    for header in headers:
        for tensor in header.tensors:
            if tensor.name in seen:
                message = f"the tensor stands in {seen[tensor.name].name} already"
                raise InputError("DUPLICATE", message, path=header.path, key=tensor.name)
            seen[tensor.name] = header.path


def _quantized(
    kv: Sequence[KeyValue], tensors: Sequence[PlannedTensor], work: AssembleWork, notes: tuple[str, ...]
) -> Assembly:
    preset = _preset_of(work)
    text = _quantize(kv, tensors, preset, work)
    edited = [*edit_metadata(_edit_keys(kv, preset.file_type), work.wishes.metadata), *text.matched.keys]
    return replace(_assembly(edited, text.tensors, text.rules, notes), importance=text.matched.by_tensor)


_NO_IMPORTANCE = MatchedImportance({}, ())


@record
class _Quantized:
    """The tensors of a text model in file order, with the types they are to get, and the rule behind each."""

    tensors: tuple[PlannedTensor, ...]
    rules: tuple[str, ...]
    matched: MatchedImportance


def _quantize(
    kv: Sequence[KeyValue], tensors: Sequence[PlannedTensor], preset: Preset, work: AssembleWork
) -> _Quantized:
    facts = [_facts(tensor) for tensor in tensors]
    matched = _NO_IMPORTANCE if work.wishes.imatrix is None else match_importance(work.wishes.imatrix, facts)
    choices = _choose(preset, facts, model_facts(kv), work.wishes, matched)
    by_name = {tensor.name: tensor for tensor in tensors}
    ordered = tuple(_retyped(by_name[choice.name], choice, work) for choice in choices)
    return _Quantized(ordered, tuple(choice.rule for choice in choices), matched)


def _preset_of(work: AssembleWork) -> Preset:
    preset = find_preset(work.preset)
    if preset is None:
        raise AssertionError(f"the planner admits known presets only, not {work.preset}")
    return preset


def _choose(
    preset: Preset, facts: Sequence[TensorFacts], model: ModelFacts, wishes: Wishes, matched: MatchedImportance
) -> list[TypeChoice]:
    options = TypeOptions(
        tensor_types=wishes.rules(), importance=frozenset(matched.by_tensor), ollama_rules=wishes.ollama_rules
    )
    try:
        return choose_types(preset, facts, model, options)
    except (InputError, Problems) as error:
        raise wishes.place(error) from error


def _retyped(tensor: PlannedTensor, choice: TypeChoice, work: AssembleWork) -> PlannedTensor:
    if choice.type == tensor.type:
        return tensor
    if tensor.type not in _FLOAT_TYPES and not (work.allow_requantize and is_quantized(tensor.type)):
        raise UnsupportedError(
            "TYPE",
            f"the tensor is {tensor.type.name} already; packing it again as {choice.type.name} would lose quality",
            path=work.origin,
            key=tensor.name,
            hint="start from F32, F16 or BF16 weights, or add 'allow_requantize: true'",
        )
    source = tensor.source
    if work.intermediate and is_quantized(choice.type):
        source = Rounded(source, work.intermediate.upper())
    return replace(tensor, source=source, type=choice.type)


def _assembly(
    kv: Sequence[KeyValue], tensors: Sequence[PlannedTensor], rules: Sequence[str], notes: tuple[str, ...]
) -> Assembly:
    kv, layout = _lay_out(kv, tensors)
    return Assembly(tuple(kv), tuple(tensors), tuple(rules), layout, notes)


def _lay_out(kv: Sequence[KeyValue], tensors: Sequence[PlannedTensor]) -> tuple[Sequence[KeyValue], GgufLayout]:
    """The layout at the default alignment, and the keys without an alignment that the file would not have.

    llama-quantize keeps a key that says something else, so that its result cannot always be read again; here it stays
    only where a reader finds the same layout with it.
    """
    shapes = [(tensor.name, _gguf_shape(tensor), tensor.type) for tensor in tensors]
    claimed = next((item.value.decode() for item in kv if item.key == ALIGNMENT_KEY), DEFAULT_ALIGNMENT)
    if isinstance(claimed, int) and claimed != DEFAULT_ALIGNMENT:
        usual = [u32(ALIGNMENT_KEY, DEFAULT_ALIGNMENT) if item.key == ALIGNMENT_KEY else item for item in kv]
        wanted, read = lay_out(usual, shapes), lay_out(kv, shapes, claimed)
        if (wanted.data_offset, wanted.slots, wanted.file_size) == (read.data_offset, read.slots, read.file_size):
            return kv, read
        kv = [item for item in kv if item.key != ALIGNMENT_KEY]
    return kv, lay_out(kv, shapes)


def _edit_keys(kv: Sequence[KeyValue], file_type: int) -> list[KeyValue]:
    """llama-quantize's edits: the two general keys move to the end, split keys go."""
    dropped = (_VERSION_KEY, _TYPE_KEY, *_SPLIT_KEYS)
    kept = [item for item in kv if item.key not in dropped]
    return [*kept, u32(_VERSION_KEY, QUANTIZATION_VERSION), u32(_TYPE_KEY, file_type)]


def _stored(header: GgufHeader, index: int, *, trim: bool = True) -> PlannedTensor:
    info = header.tensors[index]
    shape = tuple(reversed(_without_trailing_ones(info.shape) if trim else info.shape))
    dtype = _FLOAT_TYPES.get(info.type, info.type.name)
    offset = header.data_offset + info.offset
    stored = StoredTensor(header.path, info.name, dtype, shape, offset, info.size_bytes)
    return PlannedTensor(info.name, Stored(stored), info.type)


def _without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _gguf_shape(tensor: PlannedTensor) -> tuple[int, ...]:
    return tuple(reversed(tensor.source.shape))


def _facts(tensor: PlannedTensor) -> TensorFacts:
    return TensorFacts(tensor.name, _gguf_shape(tensor), tensor.type)


def model_facts(kv: Sequence[KeyValue]) -> ModelFacts:
    """What the type policy wants to know about a model, from its keys."""
    values = {item.key: item.value for item in kv}
    arch = _plain(values.get("general.architecture"))
    if not isinstance(arch, str) or not arch:
        raise InputError("META", "general.architecture is missing", key="general.architecture")

    def first(name: str, default: int = 0) -> int:
        value = _plain(values.get(f"{arch}.{name}"))
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            value = value[0] if value else default
        return value if isinstance(value, int) else default

    heads = first("attention.head_count")
    return ModelFacts(
        architecture=arch,
        block_count=first("block_count"),
        expert_count=first("expert_count"),
        head_count=heads,
        head_count_kv=first("attention.head_count_kv", heads),
        nextn_predict_layers=first("nextn_predict_layers"),
    )


def _plain(value: object) -> object:
    decode = getattr(value, "decode", None)
    return decode() if callable(decode) and not isinstance(value, bytes) else value


def _guess_file_type(facts: Sequence[TensorFacts]) -> int:
    """The file type of the type that first reaches the highest count in output order."""
    counts: dict[GgmlType, int] = {}
    best, best_count = GgmlType.F32, 0
    for item in facts:
        counts[item.type] = counts.get(item.type, 0) + 1
        if counts[item.type] > best_count:
            best, best_count = item.type, counts[item.type]
    return _FILE_TYPE_OF.get(best, 0)


_FILE_TYPE_OF: Mapping[GgmlType, int] = {
    GgmlType.F32: 0, GgmlType.F16: 1, GgmlType.BF16: 32, GgmlType.Q4_0: 2, GgmlType.Q4_1: 3, GgmlType.Q5_0: 8,
    GgmlType.Q5_1: 9, GgmlType.Q8_0: 7, GgmlType.Q2_K: 10, GgmlType.Q3_K: 12, GgmlType.Q4_K: 15, GgmlType.Q5_K: 17,
    GgmlType.Q6_K: 18, GgmlType.TQ1_0: 36, GgmlType.TQ2_0: 37, GgmlType.IQ2_XXS: 19, GgmlType.IQ2_XS: 20,
    GgmlType.IQ2_S: 28, GgmlType.IQ3_XXS: 23, GgmlType.IQ1_S: 24, GgmlType.IQ1_M: 31, GgmlType.IQ4_NL: 25,
    GgmlType.IQ4_XS: 30, GgmlType.IQ3_S: 26, GgmlType.NVFP4: 39, GgmlType.Q1_0: 40, GgmlType.Q2_0: 41,
}  # fmt: skip
