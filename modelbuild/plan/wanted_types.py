"""Which type a model asks for, for its weights and its draft; and whether that, and wishes about types, make sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelbuild.errors import RecipeError, printable
from modelbuild.formats.gguf.types import is_quantized
from modelbuild.plan.weights_facts import WeightsFacts
from modelbuild.plan.weights_files import is_fp8
from modelbuild.recipe.resolved import ResolvedModel
from modelbuild.similar_names import similar_names

#: What FP8 weights become when no type is asked for.
_FP8_PRESET = "Q8_0"
#: Fields that say the type of the weights, or of the draft: where errors about it are.
_WEIGHTS_FIELDS, _DRAFT_FIELDS = ("quantize", "quantization"), ("draft_quantize",)


class WantedTypes:
    """The types that one model asks for, as names of presets; "" where it asks for none.

    RecipeError UNKNOWN for a type that does not exist.
    """

    def __init__(self, model: ResolvedModel) -> None:
        self._model = model

    @property
    def weights(self) -> str:
        """The type of the model's own weights."""
        return self._preset(self._model.quantize, _WEIGHTS_FIELDS)

    @property
    def draft(self) -> str:
        """The type of its draft."""
        return self._preset(self._model.draft_quantize, _DRAFT_FIELDS)

    def of_gguf(self, facts: WeightsFacts) -> str:
        """The type to make of a model's GGUF; one that was FP8 once becomes smaller even where none is asked for."""
        return self.weights or (_FP8_PRESET if facts.is_fp8 and not facts.is_quantized else "")

    def of_checkpoint(self, config: Mapping[str, object], *, is_draft: bool = False) -> str:
        """The type to make of a checkpoint, with its configuration."""
        return (self.draft if is_draft else self.weights) or (_FP8_PRESET if is_fp8(config) else "")

    def check_wishes(self) -> None:
        """Wishes about types have no effect where nothing is quantized; better to say so than to ignore them."""
        field = next((field for field in ("tensor_types", "imatrix") if getattr(self._model, field)), "")
        if not field:
            return
        from modelbuild.quantize.presets import find_preset

        preset = find_preset(self._model.quantize)
        if preset is None or not is_quantized(preset.default):
            message, hint = f"{field!r} has no effect without quantization", "add 'quantize: Q4_K_M', or remove it"
            raise self._error("CONFLICT", message, (field,), hint)

    def check_source(self, facts: WeightsFacts, preset: str, *, is_draft: bool = False) -> None:
        """Quantizing what is quantized already loses quality twice, so it has to be asked for."""
        if facts.is_quantized and not self._model.allow_requantize:
            message = f"the weights are {facts.described} already; making {preset} of them would lose quality twice"
            hint = "start from F32, F16 or BF16 weights, or add 'allow_requantize: true'"
            if is_draft:
                raise self._error("REQUANTIZEDRAFT", message, _DRAFT_FIELDS, hint)
            raise self._error("REQUANTIZE", message, _WEIGHTS_FIELDS, hint)

    def _preset(self, text: str, fields: Sequence[str]) -> str:
        if not text:
            return ""
        from modelbuild.quantize.presets import PRESETS, find_preset

        preset = find_preset(text)
        if preset is not None:
            return preset.name
        names = list(PRESETS)
        near = similar_names(text.upper(), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known types: {', '.join(names)}"
        raise self._error("UNKNOWN", f"unknown quantization type {printable(text)!r}", fields, hint)

    def _error(self, code: str, message: str, fields: Sequence[str], hint: str) -> RecipeError:
        """An error at the first of the fields that the recipe has, else at the model."""
        return RecipeError(code, message, self._model.position_of(*fields) or self._model.position, hint=hint)
