"""Rules that name tensors by pattern and give them a type: the user's own, and those that Ollama adds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from modelbuild.errors import InputError, printable
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.quantize.targets import TARGET_TYPES, find_type

#: Longer patterns are a mistake, and unbounded ones could make matching slow.
PATTERN_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class TensorRule:
    """Tensors whose name contains a match of the pattern get the type; case does not matter.

    required: a rule that decides no tensor is an error (the user's rules; Ollama's apply where they can).
    Raises InputError RULE for a pattern that is not a regular expression or a type that cannot be made.
    """

    pattern: str
    type: GgmlType
    required: bool = True
    _regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.type not in TARGET_TYPES:
            raise _bad_rule(self.pattern, f"tensors cannot be packed as {self.type.name}")
        object.__setattr__(self, "_regex", _compile(self.pattern))

    def matches(self, name: str) -> bool:
        """Does the rule speak of this tensor?"""
        return self._regex.search(name) is not None

    def __str__(self) -> str:
        return f"{printable(self.pattern)}={self.type.name}"


def make_tensor_rule(pattern: str, type_name: str) -> TensorRule:
    """The rule for a pattern and the name of a type in any case; InputError RULE when one of them is not sound."""
    type_ = find_type(type_name)
    if type_ is None:
        names = ", ".join(sorted(item.name for item in TARGET_TYPES))
        raise _bad_rule(pattern, f"unknown tensor type {printable(type_name)!r}", f"known types: {names}")
    return TensorRule(pattern, type_)


def _compile(pattern: str) -> re.Pattern[str]:
    if not pattern or len(pattern) > PATTERN_LIMIT:
        raise _bad_rule(pattern, f"a pattern has 1 to {PATTERN_LIMIT} characters, this one {len(pattern)}")
    try:
        # The reference lowers the case of the whole pattern, which also turns \D into \d; ignoring case does not.
        return re.compile(pattern, re.IGNORECASE | re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise _bad_rule(pattern, f"not a regular expression: {error}") from error


def _bad_rule(pattern: str, problem: str, hint: str = "") -> InputError:
    return InputError("RULE", problem, key=f"tensor_types {printable(pattern)}", hint=hint)


_Q8_0, _F16 = GgmlType.Q8_0, GgmlType.F16
_NEXTN = ((r"^blk\.[0-9]+\.nextn\.eh_proj\.weight$", _Q8_0),)
_GLM4 = ((r"^token_embd\.weight$", _F16), (r"^output\.weight$", _F16))
_DEEPSEEK2 = tuple(
    (rf"attn_{part}\.weight$", _Q8_0) for part in ("k_b", "q_a", "q_b", "v_b", "kv_a_mqa")
)  # fmt: skip
#: What Ollama's server passes to llama-quantize for its two 4-bit presets, by architecture
#: (ollama `server/quantization.go`, August 2026).
_OLLAMA_RULES: Mapping[str, tuple[tuple[str, GgmlType], ...]] = {
    "qwen35": _NEXTN,
    "qwen35moe": _NEXTN,
    "gemma3n": ((r"^per_layer_token_embd\.weight$", _F16),),
    "deepseek2": _DEEPSEEK2,
    "glmocr": _GLM4,
    "glm4": _GLM4,
}
_OLLAMA_PRESETS = ("Q4_K_S", "Q4_K_M")


def list_ollama_rules(preset_name: str, architecture: str) -> tuple[TensorRule, ...]:
    """The rules Ollama adds for a preset and an architecture, often none."""
    if preset_name not in _OLLAMA_PRESETS:
        return ()
    rules = _OLLAMA_RULES.get(architecture, ())
    return tuple(TensorRule(pattern, type_, required=False) for pattern, type_ in rules)
