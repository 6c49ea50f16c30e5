"""The mixture rules: which tensors of a preset get more or fewer bits than its default type.

Source: `llama_tensor_get_type` in `src/llama-quant.cpp` of llama.cpp (October 2026). All divisions are integer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from modelbuild.errors import InputError
from modelbuild.formats.gguf.types import GgmlType, block_size
from modelbuild.quantize.facts import ModelFacts, TensorFacts
from modelbuild.quantize.presets import Preset
from modelbuild.quantize.tensor_names import VALUE_LIKE, Category, layer_of
from modelbuild.records import record

_T = GgmlType
#: Presets below 3 bits have a policy of their own.
_LOW = frozenset({"IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ2_S", "IQ2_M", "IQ1_M"})
_LOW_BIG = frozenset({"IQ2_S", "IQ2_M"})
_MORE_OUTPUT_BITS_ABOVE = _LOW | {"IQ3_XXS"}
_EIGHT_EXPERTS_Q5_OUT = frozenset({
    "Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS",
})  # fmt: skip
_LOW_EMBEDDING: Mapping[str, GgmlType] = {
    "IQ2_XXS": _T.Q2_K, "IQ2_XS": _T.Q2_K, "IQ1_S": _T.Q2_K, "IQ1_M": _T.Q2_K,
    "IQ2_S": _T.IQ3_S, "IQ2_M": _T.IQ3_S, "IQ3_XXS": _T.IQ3_S,
    "TQ1_0": _T.Q4_K, "TQ2_0": _T.Q4_K, "Q2_0": _T.Q4_K,
}  # fmt: skip
_ATTENTION_OUT: Mapping[str, GgmlType] = {
    "Q2_K": _T.Q3_K, "IQ3_XXS": _T.IQ3_S, "Q3_K_M": _T.Q4_K, "Q3_K_L": _T.Q5_K, "IQ3_M": _T.Q4_K,
}  # fmt: skip
_KEY_AND_QUERY: Mapping[str, GgmlType] = {"IQ3_XS": _T.IQ3_XXS, "IQ3_XXS": _T.IQ2_S}
_GLM5_NEXT_Q8 = ("attn_q_a", "attn_q_b", "nextn.eh_proj")
_SEVENTY_B = "70B model"
_EIGHT_EXPERTS = "8 experts"

#: A type and why; the type None stands for the preset's default.
Decision = tuple[GgmlType | None, str]
_DEFAULT: Decision = (None, "")


@record
class MixtureContext:
    """What the rules need besides the tensor.

    value_count: how many tensors of the model count as attention values. tied: there is no output tensor.
    has_importance: an importance matrix is in use. output_type, embedding_type: what the user asked for.
    """

    preset: Preset
    model: ModelFacts
    value_count: int
    tied: bool
    has_importance: bool
    output_type: GgmlType | None = None
    embedding_type: GgmlType | None = None

    @property
    def is_falcon(self) -> bool:
        """Falcon has its own rows in several tables."""
        return self.model.architecture == "falcon"

    @property
    def is_70b(self) -> bool:
        """Models whose attention values are cheap compared with the rest."""
        model = self.model
        layers = model.block_count - model.nextn_predict_layers
        if model.architecture in ("qwen2", "deci", "olmo"):
            return layers == 80
        if model.architecture in ("llama", "llama-embed"):
            return layers == 80 and model.expert_count != 8 and model.head_count != model.head_count_kv
        return model.architecture == "jais2" and layers == 68

    @property
    def shares_four(self) -> bool:
        """Do four or more query heads share a value head? Then better values are almost free."""
        return self.model.heads_per_kv_head >= 4


@record(frozen=False)
class Mixture:
    """Applies the rules to tensors in file order; it counts the tensors of some categories as it goes."""

    context: MixtureContext
    _seen: dict[Category, int] = field(default_factory=dict)

    def choose(self, tensor: TensorFacts, category: Category) -> tuple[GgmlType, str]:
        """The type of the next tensor and the rule that decided."""
        type_, why = self._decide(tensor, category)
        if type_ is None:
            return self.context.preset.default, "preset default"
        return type_, why

    def _decide(self, tensor: TensorFacts, category: Category) -> Decision:
        context = self.context
        if context.model.architecture == "glm5-next" and any(text in tensor.name for text in _GLM5_NEXT_Q8):
            return _T.Q8_0, "glm5-next attention"
        if category is Category.OUTPUT or (category is Category.EMBEDDING and context.tied):
            return _output(context, tensor.row_length, category)
        if context.preset.name == "MXFP4_MOE":
            return _mxfp4_moe(context, tensor, category)
        if category is Category.EMBEDDING:
            return _embedding(context)
        if context.preset.name in _LOW:
            return self._decide_low(category)
        return self._decide_usual(tensor, category)

    def _decide_usual(self, tensor: TensorFacts, category: Category) -> Decision:
        context = self.context
        if category in VALUE_LIKE:
            return _value(context, self._count(Category.VALUE))
        if category in (Category.KEY, Category.QUERY):
            return _key_or_query(context, category)
        if category is Category.DOWN:
            return _down(context, self._layer(tensor, category))
        if category is Category.ATTENTION_OUT:
            return _attention_out(context)
        if category in (Category.GATE, Category.UP):
            return _gate_or_up(context, self._layer(tensor, category), category)
        return _DEFAULT

    def _decide_low(self, category: Category) -> Decision:
        if category in VALUE_LIKE:
            self._count(Category.VALUE)
            return _low_value(self.context)
        if category is Category.DOWN:
            return _low_down(self.context, self._count(category))
        if category is Category.ATTENTION_OUT:
            return _low_attention_out(self.context)
        if category is Category.KEY and self.context.model.expert_count == 8:
            return _T.Q4_K, f"attention key: {_EIGHT_EXPERTS}"
        return _DEFAULT

    def _count(self, category: Category) -> int:
        index = self._seen.get(category, 0)
        self._seen[category] = index + 1
        return index

    def _layer(self, tensor: TensorFacts, category: Category) -> int:
        """The running number of a feed-forward tensor, or the layer in its name when there are experts."""
        index = self._count(category)
        model = self.context.model
        if model.expert_count <= 1:
            return index
        layer = layer_of(tensor.name)
        if layer is None or not 0 <= layer < model.block_count:
            found = "no layer number" if layer is None else f"layer {layer}"
            message = f"the type rules need a layer in [0, {model.block_count}) in the name, found {found}"
            raise InputError("LAYER", message, key=tensor.name, hint="give this tensor a type with a tensor_types rule")
        return layer


def _output(context: MixtureContext, row_length: int, category: Category) -> Decision:
    preset = context.preset
    what = "output" if category is Category.OUTPUT else "token embedding used as output"
    if context.output_type is not None:
        return context.output_type, f"{what}: output type option"
    if preset.name == "MXFP4_MOE":
        return _T.Q8_0, what
    if context.is_falcon or row_length % block_size(preset.default):
        return _T.Q8_0, f"{what}: " + ("falcon" if context.is_falcon else f"rows of {row_length}")
    if preset.name in _MORE_OUTPUT_BITS_ABOVE:
        return _T.Q5_K, what
    return (_T.Q8_0 if preset.default is _T.Q8_0 else _T.Q6_K), what


def _mxfp4_moe(context: MixtureContext, tensor: TensorFacts, category: Category) -> Decision:
    is_experts = len(tensor.shape) > 2 and tensor.shape[2] > 1
    if context.model.architecture == "bailingmoe3":
        is_experts = is_experts and category in (Category.UP, Category.GATE, Category.DOWN)
    return (_T.MXFP4, "experts") if is_experts else (_T.Q8_0, "not experts")


def _embedding(context: MixtureContext) -> Decision:
    if context.embedding_type is not None:
        return context.embedding_type, "token embedding: token embedding type option"
    return _LOW_EMBEDDING.get(context.preset.name), "token embedding"


# -- presets below 3 bits ------------------------------------------------------------------------------------------


def _low_value(context: MixtureContext) -> Decision:
    if context.shares_four or context.model.expert_count >= 4:
        return _T.Q4_K, "attention value: shared by heads or experts"
    return (_T.IQ3_S if context.preset.name in _LOW_BIG else _T.Q2_K), "attention value"


def _low_down(context: MixtureContext, index: int) -> Decision:
    if index >= context.model.block_count // 8:
        return _DEFAULT
    type_ = _T.IQ3_S if context.preset.name in _LOW_BIG else _T.Q2_K
    return type_, f"feed-forward down: first eighth ({index})"


def _low_attention_out(context: MixtureContext) -> Decision:
    if context.model.expert_count == 8:
        return _T.Q5_K, f"attention output: {_EIGHT_EXPERTS}"
    if context.preset.name in ("IQ1_S", "IQ1_M"):
        return _T.IQ2_XXS, "attention output"
    return (_T.IQ3_S if context.preset.name in _LOW_BIG else None), "attention output"


# -- all other presets ---------------------------------------------------------------------------------------------


def _value(context: MixtureContext, index: int) -> Decision:
    rule = _VALUE.get(context.preset.name)
    type_, why = rule(context, index) if rule else _DEFAULT
    if context.is_70b and (type_ or context.preset.default) in (_T.Q3_K, _T.Q4_K):
        type_, why = _T.Q5_K, _SEVENTY_B
    if context.model.expert_count == 8:
        type_, why = _T.Q8_0, _EIGHT_EXPERTS
    return type_, f"attention value: {why}"


_ValueRule = Callable[[MixtureContext, int], Decision]


def _when_shared(shared: GgmlType, otherwise: GgmlType | None = None) -> _ValueRule:
    def rule(context: MixtureContext, _index: int) -> Decision:
        if context.shares_four:
            return shared, "shared by 4 or more heads"
        return otherwise, "few heads share it"

    return rule


def _first(count: int, early: GgmlType, later: GgmlType | None = None) -> _ValueRule:
    def rule(_context: MixtureContext, index: int) -> Decision:
        return (early, f"first {count} ({index})") if index < count else (later, f"after the first {count} ({index})")

    return rule


def _always(type_: GgmlType) -> _ValueRule:
    return lambda _context, _index: (type_, "every layer")


def _value_more_bits(context: MixtureContext, index: int) -> Decision:
    return _more_bits(index, context.value_count, _T.Q6_K)


def _value_iq3_xxs(context: MixtureContext, index: int) -> Decision:
    return _when_shared(_T.Q4_K, _T.IQ3_XXS if context.has_importance else _T.IQ3_S)(context, index)


_VALUE: Mapping[str, _ValueRule] = {
    "Q2_K": _when_shared(_T.Q4_K, _T.Q3_K),
    "Q2_K_S": _when_shared(_T.Q4_K),
    "IQ3_XXS": _value_iq3_xxs,
    "IQ3_XS": _when_shared(_T.Q4_K),
    "IQ3_S": _when_shared(_T.Q4_K),
    "IQ3_M": _always(_T.Q4_K),
    "Q3_K_M": _first(2, _T.Q5_K, _T.Q4_K),
    "Q3_K_L": _always(_T.Q5_K),
    "IQ4_NL": _when_shared(_T.Q5_K),
    "IQ4_XS": _when_shared(_T.Q5_K),
    "Q4_K_M": _value_more_bits,
    "Q5_K_M": _value_more_bits,
    "Q4_K_S": _first(4, _T.Q5_K),
}


def _key_or_query(context: MixtureContext, category: Category) -> Decision:
    if category is Category.KEY and context.model.expert_count == 8:
        return _T.Q8_0, f"{category.value}: {_EIGHT_EXPERTS}"
    return _KEY_AND_QUERY.get(context.preset.name), category.value


def _down(context: MixtureContext, index: int) -> Decision:
    rule = _DOWN.get(context.preset.name)
    type_, why = rule(context, index, context.model.block_count) if rule else _DEFAULT
    return type_, f"feed-forward down: {why}"


_DownRule = Callable[[MixtureContext, int, int], Decision]


def _down_always(type_: GgmlType) -> _DownRule:
    return lambda _context, _index, _count: (type_, "every layer")


def _down_first_eighth(early: GgmlType, later: GgmlType | None = None) -> _DownRule:
    return lambda _context, index, count: _first_eighth(index, count, early, later)


def _down_first_eighth_if(matrix: bool, early: GgmlType, later: GgmlType | None = None) -> _DownRule:
    """For rules that hold only with, or only without, an importance matrix."""

    def rule(context: MixtureContext, index: int, count: int) -> Decision:
        return _first_eighth(index, count, early, later) if context.has_importance is matrix else _DEFAULT

    return rule


def _down_q3_k_m(context: MixtureContext, index: int, count: int) -> Decision:
    if index < count // 16:
        return _T.Q5_K, f"first sixteenth ({index} of {count})"
    if not context.is_falcon:
        return _T.Q4_K, "every layer"
    return _more_bits(index, count, _T.Q4_K, _T.Q3_K)


def _down_iq3_m(context: MixtureContext, index: int, count: int) -> Decision:
    if index < count // 8:
        return _T.Q4_K, f"first eighth ({index} of {count})"
    return _more_bits(index, count, _T.Q4_K) if context.model.expert_count == 8 else _DEFAULT


def _down_q3_k_l(context: MixtureContext, _index: int, _count: int) -> Decision:
    return (_T.Q4_K, "falcon") if context.is_falcon else (_T.Q5_K, "every layer")


def _down_q4_k_m(context: MixtureContext, index: int, count: int) -> Decision:
    if not context.is_falcon:
        return _more_bits(index, count, _T.Q6_K)
    if index < count // 16:
        return _T.Q6_K, f"first sixteenth ({index} of {count})"
    return _more_bits(index, count, _T.Q5_K, _T.Q4_K)


def _down_q4_k_s(context: MixtureContext, index: int, count: int) -> Decision:
    return _DEFAULT if context.is_falcon else _first_eighth(index, count, _T.Q5_K, None)


_DOWN: Mapping[str, _DownRule] = {
    "Q2_K": _down_always(_T.Q3_K),
    "Q2_K_S": _down_first_eighth(_T.Q4_K),
    "IQ3_XXS": _down_first_eighth_if(False, _T.Q4_K, _T.Q3_K),
    "Q3_K_M": _down_q3_k_m,
    "IQ3_M": _down_iq3_m,
    "Q3_K_L": _down_q3_k_l,
    "Q4_K_M": _down_q4_k_m,
    "IQ4_NL": _down_first_eighth_if(False, _T.Q5_K),
    "IQ4_XS": _down_first_eighth_if(False, _T.Q5_K),
    "Q5_K_M": lambda _context, index, count: _more_bits(index, count, _T.Q6_K),
    "Q4_K_S": _down_q4_k_s,
    "Q4_0": _down_first_eighth_if(True, _T.Q4_1),
    "Q5_0": _down_first_eighth_if(True, _T.Q5_1),
}


def _attention_out(context: MixtureContext) -> Decision:
    name = context.preset.name
    if context.is_falcon:
        return (_T.Q4_K if name == "Q3_K_L" else None), "attention output: falcon"
    if context.model.expert_count == 8:
        return (_T.Q5_K if name in _EIGHT_EXPERTS_Q5_OUT else None), f"attention output: {_EIGHT_EXPERTS}"
    return _ATTENTION_OUT.get(name), "attention output"


def _gate_or_up(context: MixtureContext, index: int, category: Category) -> Decision:
    count = context.model.block_count
    is_middle = count // 8 <= index < 7 * count // 8
    if context.preset.name == "IQ3_XS" and is_middle:
        return _T.IQ3_XXS, f"{category.value}: middle layers ({index} of {count})"
    return _DEFAULT


def _first_eighth(index: int, count: int, early: GgmlType, later: GgmlType | None) -> Decision:
    if index < count // 8:
        return early, f"first eighth ({index} of {count})"
    return later, f"after the first eighth ({index} of {count})"


def _more_bits(index: int, count: int, better: GgmlType, otherwise: GgmlType | None = None) -> Decision:
    """The first and last eighth and every third tensor between them get the better type."""
    eighth = count // 8
    if index < eighth or index >= 7 * count // 8 or (index - eighth) % 3 == 2:
        return better, f"more bits ({index} of {count})"
    return otherwise, f"usual bits ({index} of {count})"
