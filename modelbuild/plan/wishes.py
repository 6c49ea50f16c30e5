"""What a recipe wishes for the weights beyond a preset: types by name, an importance matrix, metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.errors import InputError, Position, Problems, RecipeError
from modelbuild.formats.gguf.types import ValueType
from modelbuild.formats.gguf.values import RawValue, encode_numbers, encode_scalar, encode_string, encode_strings
from modelbuild.plan.action import Json
from modelbuild.recipe.resolved import MetadataValue, ResolvedModel, TensorTypeRule
from modelbuild.records import record

if TYPE_CHECKING:
    from modelbuild.formats.gguf.writer import KeyValue
    from modelbuild.quantize.tensor_rules import TensorRule

#: Role of the input that is an importance matrix.
IMATRIX_ROLE = "imatrix"

_TYPES: Mapping[str, ValueType] = {
    "uint8": ValueType.U8, "int8": ValueType.I8, "uint16": ValueType.U16, "int16": ValueType.I16,
    "uint32": ValueType.U32, "int32": ValueType.I32, "uint64": ValueType.U64, "int64": ValueType.I64,
    "float32": ValueType.F32, "float64": ValueType.F64, "bool": ValueType.BOOL, "string": ValueType.STRING,
}  # fmt: skip


@record
class Wishes:
    """tensor_types: in order, the first that matches decides. imatrix: a file of importance values.

    metadata: GGUF keys to set, or to remove. ollama_rules: add the rules by architecture of Ollama's server, and note
    types as its converter does. quantize_at: where the recipe asks for the preset.
    """

    tensor_types: tuple[TensorTypeRule, ...] = ()
    imatrix: Path | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    ollama_rules: bool = False
    quantize_at: Position | None = None

    @classmethod
    def of(cls, model: ResolvedModel) -> Wishes:
        """The wishes of a model."""
        quantize_at = model.position_of("quantize", "quantization")
        return cls(model.tensor_types, model.imatrix, model.metadata, model.rewrite_gguf, quantize_at)

    def to_json(self) -> dict[str, Json]:
        """What of them belongs in an action key; the matrix is an input of its own."""
        return {
            "tensor_types": [[rule.pattern, rule.type] for rule in self.tensor_types],
            "metadata": {key: [item.type, item.value] for key, item in self.metadata.items()},
            "ollama_rules": self.ollama_rules,
        }

    def rules(self) -> list[TensorRule]:
        """The rules as the type policy takes them; RecipeError for one that is not sound."""
        from modelbuild.quantize.tensor_rules import make_tensor_rule

        rules = []
        for wish in self.tensor_types:
            try:
                rules.append(make_tensor_rule(wish.pattern, wish.type))
            except InputError as error:
                raise RecipeError(error.code, error.message, wish.position, hint=error.hint) from error
        return rules

    def place(self, error: InputError | Problems) -> InputError | RecipeError | Problems:
        """An error of the type policy with the position of the rule it speaks of, or of the preset."""
        if isinstance(error, Problems):
            return Problems(self.place(item) if isinstance(item, InputError) else item for item in error.errors)
        for wish, rule in zip(self.tensor_types, self.rules(), strict=True):
            if error.code == "RULE" and error.key == f"tensor_types {rule}":
                return RecipeError(error.code, f"the rule {error.message}", wish.position, hint=error.hint)
        if error.code == "IMPORTANCE" and self.quantize_at is not None:
            message = f"{error.where}: {error.message}" if error.where else error.message
            return RecipeError(error.code, message, self.quantize_at, hint=error.hint)
        return error


def edit_metadata(kv: Sequence[KeyValue], edits: Mapping[str, MetadataValue]) -> list[KeyValue]:
    """The entries with some set or removed; a set one moves to the end, as llama-quantize's --override-kv does it.

    Raises RecipeError META for a value that its type cannot hold.
    """
    from modelbuild.formats.gguf.writer import KeyValue

    kept = [item for item in kv if item.key not in edits]
    return [*kept, *(KeyValue(key, _encode(key, item)) for key, item in edits.items() if item.value is not None)]


def _encode(key: str, item: MetadataValue) -> RawValue:
    try:
        return _encode_value(item)
    except InputError as error:
        raise RecipeError("META", f"{key}: {error.message}", item.position, hint=error.hint) from error


def _encode_value(item: MetadataValue) -> RawValue:
    value, wanted = item.value, _TYPES[item.type] if item.type else None
    if value is None:
        raise AssertionError("a removed key has no value")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _encode_array(value, wanted)
    if wanted is not None and isinstance(value, str) != (wanted is ValueType.STRING):
        raise InputError("META", f"{value!r} is no {item.type}", hint="quote a text, or choose another type")
    if isinstance(value, str):
        return encode_string(value)
    return encode_scalar(_type_of(value) if wanted is None else wanted, value)


def _encode_array(values: Sequence[str | int | float | bool], wanted: ValueType | None) -> RawValue:
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if not isinstance(value, str)]
    is_text = bool(texts) if wanted is None else wanted is ValueType.STRING
    if not values or (texts and numbers) or bool(texts) != is_text:
        raise InputError("META", "an array holds values of one kind, at least one", hint="split the array")
    if texts:
        return encode_strings(texts)
    type_ = max((_type_of(value) for value in numbers), key=_WIDTH.index) if wanted is None else wanted
    return encode_numbers(type_, numbers)


def _type_of(value: float) -> ValueType:
    """The type llama.cpp's own tools give a value: 32 bits where that is enough."""
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, float):
        return ValueType.F32
    if value < 0:
        return ValueType.I32 if value >= -(1 << 31) else ValueType.I64
    return ValueType.U32 if value < 1 << 32 else ValueType.U64


#: For arrays of mixed numbers: the later one holds the earlier ones.
_WIDTH = [ValueType.BOOL, ValueType.U32, ValueType.I32, ValueType.U64, ValueType.I64, ValueType.F32]
