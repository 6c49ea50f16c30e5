"""Which type each tensor of a model gets: the policy of llama-quantize, decided from names and shapes alone.

Start at `choose_types`. The mixture rules proper are in `mixture`, what names mean in `tensor_names`.
Source: `src/llama-quant.cpp` of llama.cpp (October 2026); ours are the errors for rules without effect.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from modelbuild.errors import InputError, ProblemCollector, UnsupportedError
from modelbuild.formats.gguf.types import GgmlType, block_size, is_quantized
from modelbuild.quantize.facts import ModelFacts, TensorFacts, TypeChoice
from modelbuild.quantize.mixture import Mixture, MixtureContext
from modelbuild.quantize.presets import Preset
from modelbuild.quantize.targets import POLICY_NEEDS_IMPORTANCE, SEARCH_NEEDS_IMPORTANCE
from modelbuild.quantize.tensor_names import VALUE_LIKE, Category, categorize, file_order, why_kept
from modelbuild.quantize.tensor_rules import TensorRule, list_ollama_rules
from modelbuild.records import record

__all__ = ["ModelFacts", "TensorFacts", "TypeChoice", "TypeOptions", "choose_types", "order_tensors"]

_T = GgmlType
_OUTPUT = "output.weight"
_PER_LAYER_EMBEDDING = "per_layer_token_embd.weight"
#: What stands in for a type whose block does not divide the row.
_FALLBACKS: Mapping[GgmlType, GgmlType] = {
    _T.IQ1_S: _T.IQ4_NL, _T.IQ1_M: _T.IQ4_NL, _T.IQ2_XXS: _T.IQ4_NL, _T.IQ2_XS: _T.IQ4_NL, _T.IQ2_S: _T.IQ4_NL,
    _T.IQ3_XXS: _T.IQ4_NL, _T.IQ3_S: _T.IQ4_NL, _T.IQ4_XS: _T.IQ4_NL,
    _T.Q2_0: _T.Q4_0, _T.Q2_K: _T.Q4_0, _T.Q3_K: _T.Q4_0, _T.TQ1_0: _T.Q4_0, _T.TQ2_0: _T.Q4_0,
    _T.Q4_K: _T.Q5_0, _T.Q5_K: _T.Q5_1, _T.Q6_K: _T.Q8_0,
}  # fmt: skip
_SMALL_BLOCK = 32


@record
class TypeOptions:
    """Wishes beyond the preset; the defaults are llama-quantize without options.

    tensor_types: rules in order, the first match decides. pure: no mixture rules, everything gets the default type.
    output_type, embedding_type: for `output.weight` and the token embeddings, over all other rules.
    keep_output: leave `output.weight` as it is.
    importance: names of the tensors that have an importance matrix; empty when there is no matrix.
    ollama_rules: add the rules of Ollama's server, after the user's own.
    """

    tensor_types: Sequence[TensorRule] = ()
    pure: bool = False
    output_type: GgmlType | None = None
    embedding_type: GgmlType | None = None
    keep_output: bool = False
    importance: Collection[str] = frozenset()
    ollama_rules: bool = False


def order_tensors(facts: Iterable[TensorFacts]) -> list[TensorFacts]:
    """The tensors in the order in which llama-quantize stores them."""
    return sorted(facts, key=lambda tensor: file_order(tensor.name))


def choose_types(
    preset: Preset, facts: Iterable[TensorFacts], model: ModelFacts, options: TypeOptions | None = None
) -> list[TypeChoice]:
    """The type of every tensor, in output order, with the rule that decided.

    Raises InputError (RULE: a rule decides nothing; LAYER: a name without the layer the rules need; IMPORTANCE: types
    that need an importance matrix) or UnsupportedError (TYPE: no type fits the row), several together as Problems.
    """
    options = options or TypeOptions()
    tensors = order_tensors(facts)
    chooser = _Chooser(preset, model, options, tensors)
    problems = ProblemCollector()
    choices, lacking = [], []
    for tensor in tensors:
        with problems.collect():
            choice = chooser.choose(tensor)
            choices.append(choice)
            if choice.type != tensor.type and _lacks_importance(choice, preset, options.importance):
                lacking.append(choice)
    if lacking:
        problems.add(_importance_error(lacking, has_matrix=bool(options.importance)))
    problems.finish()
    chooser.refuse_idle_rules()
    return choices


class _Chooser:
    """Decides tensor after tensor in output order and remembers which rules were of use."""

    def __init__(self, preset: Preset, model: ModelFacts, options: TypeOptions, tensors: Sequence[TensorFacts]) -> None:
        self._preset = preset
        self._architecture = model.architecture
        self._options = options
        ollama = list_ollama_rules(preset.name, model.architecture) if options.ollama_rules else ()
        self._rules = (*options.tensor_types, *ollama)
        self._names = [tensor.name for tensor in tensors]
        self._deciding: set[int] = set()
        self._mixture = Mixture(_context(preset, model, options, self._names))

    def choose(self, tensor: TensorFacts) -> TypeChoice:
        """The type of one tensor."""
        kept = why_kept(tensor.name, tensor.shape, self._architecture)
        if not kept and self._options.keep_output and tensor.name == _OUTPUT:
            kept = "kept: keep output option"
        if kept:
            return TypeChoice(tensor.name, tensor.type, kept)
        category = categorize(tensor.name)
        forced = self._forced(tensor, category)
        if forced is not None:
            return forced
        default = self._preset.default
        if not is_quantized(default):
            return TypeChoice(tensor.name, default, "preset default")
        type_, why = self._ruled(tensor, category)
        type_, note = _fit(type_, tensor)
        return TypeChoice(tensor.name, type_, why + note)

    def _forced(self, tensor: TensorFacts, category: Category) -> TypeChoice | None:
        """The type the options give to embedding and output, past all other rules."""
        embedding, output = self._options.embedding_type, self._options.output_type
        if embedding is not None and category is Category.EMBEDDING:
            # A rule may still single out the per-layer embedding.
            if tensor.name != _PER_LAYER_EMBEDDING or self._find_rule(tensor.name) is None:
                return _exactly(embedding, tensor, "token embedding type option")
        elif output is not None and category is Category.OUTPUT:
            return _exactly(output, tensor, "output type option")
        return None

    def _ruled(self, tensor: TensorFacts, category: Category) -> tuple[GgmlType, str]:
        index = self._find_rule(tensor.name)
        if index is not None:
            self._deciding.add(index)
            rule = self._rules[index]
            return rule.type, f"rule {rule}" if rule.required else f"Ollama rule {rule}"
        if self._options.pure:
            return self._preset.default, "preset default"
        return self._mixture.choose(tensor, category)

    def _find_rule(self, name: str) -> int | None:
        return next((index for index, rule in enumerate(self._rules) if rule.matches(name)), None)

    def refuse_idle_rules(self) -> None:
        """Raise for each of the user's rules that decided no tensor."""
        problems = ProblemCollector()
        for index, rule in enumerate(self._rules):
            if rule.required and index not in self._deciding:
                problems.add(self._idle_rule(rule))
        problems.finish()

    def _idle_rule(self, rule: TensorRule) -> InputError:
        matching = [name for name in self._names if rule.matches(name)]
        if not matching:
            problem, hint = "matches no tensor of the model", "'modelbuild plan --tensors' lists their names"
        elif not is_quantized(self._preset.default):
            problem, hint = f"has no effect: preset {self._preset.name} packs nothing", "remove the rule or the preset"
        else:
            problem = f"has no effect: its tensors ({matching[0]}, ...) keep their type or an earlier rule decides"
            hint = "remove the rule, or put it before the more general one"
        return InputError("RULE", problem, key=f"tensor_types {rule}", hint=hint)


def _context(preset: Preset, model: ModelFacts, options: TypeOptions, names: Sequence[str]) -> MixtureContext:
    return MixtureContext(
        preset=preset,
        model=model,
        value_count=sum(categorize(name) in VALUE_LIKE for name in names),
        tied=_OUTPUT not in names,
        has_importance=bool(options.importance),
        output_type=options.output_type,
        embedding_type=options.embedding_type,
    )


def _exactly(type_: GgmlType, tensor: TensorFacts, why: str) -> TypeChoice:
    if tensor.row_length % block_size(type_):
        message = f"rows of {tensor.row_length} do not fit {type_.name} ({why})"
        raise UnsupportedError("TYPE", message, key=tensor.name, hint="name a type with smaller blocks, e.g. Q8_0")
    return TypeChoice(tensor.name, type_, why)


def _fit(type_: GgmlType, tensor: TensorFacts) -> tuple[GgmlType, str]:
    """A type whose blocks divide the row, and what to say when it is not the wanted one."""
    columns = tensor.row_length
    if columns % block_size(type_) == 0:
        return type_, ""
    fitting = type_ if block_size(type_) <= _SMALL_BLOCK else _FALLBACKS.get(type_)
    if fitting is None:
        message = f"rows of {columns} do not fit {type_.name}, and there is no type to fall back to"
        hint = "choose another preset, or give the tensor a type with a tensor_types rule"
        raise UnsupportedError("TYPE", message, key=tensor.name, hint=hint)
    if columns % block_size(fitting):
        fitting = _T.F16
    return fitting, f"; rows of {columns} do not fit {type_.name}"


def _lacks_importance(choice: TypeChoice, preset: Preset, importance: Collection[str]) -> bool:
    """Does the tensor need the importance that it does not have?"""
    if choice.name in importance:
        return False
    needs = choice.type in SEARCH_NEEDS_IMPORTANCE
    if categorize(choice.name) not in (Category.OUTPUT, Category.EMBEDDING):
        needs |= choice.type in POLICY_NEEDS_IMPORTANCE or (choice.type is _T.Q2_K and preset.name == "Q2_K_S")
    return needs


def _importance_error(choices: Sequence[TypeChoice], *, has_matrix: bool) -> InputError:
    """One error for all tensors: what they have in common is said once."""
    hint = "give one with imatrix: FILE, or choose a preset that needs none, e.g. Q3_K_M or IQ4_XS"
    if len(choices) == 1:
        choice = choices[0]
        missing = "the matrix has none for this tensor" if has_matrix else "there is no importance matrix"
        message = f"{choice.type.name} ({choice.rule}) needs an importance matrix, and {missing}"
        return InputError("IMPORTANCE", message, key=choice.name, hint=hint)
    missing = "the matrix has none for them" if has_matrix else "there is none"
    which = "; ".join(
        f"{type_.name}: {', '.join(_in_short([choice.name for choice in choices if choice.type is type_]))}"
        for type_ in dict.fromkeys(choice.type for choice in choices)
    )
    message = f"{len(choices)} tensors need an importance matrix, and {missing} ({which})"
    return InputError("IMPORTANCE", message, hint=hint)


def _in_short(names: Iterable[str]) -> list[str]:
    """Names, those that differ only in the number of the layer together: blk.*.ffn_up.weight (32)."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), []).append(name)
    return [each[0] if len(each) == 1 else f"{pattern} ({len(each)})" for pattern, each in groups.items()]
