"""Facts about a model from its GGUF keys, whether they were read from a file or are yet to be written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from modelbuild.engine.inspection import Fact
from modelbuild.formats.gguf.types import ValueType
from modelbuild.formats.gguf.values import RawValue
from modelbuild.template import detect_template

TEMPLATE_KEY = "tokenizer.chat_template"
_TOKENIZERS = {
    "gpt2": "byte-level BPE", "llama": "SentencePiece", "bert": "WordPiece", "t5": "Unigram", "gemma4": "BPE",
    "rwkv": "RWKV", "plamo2": "PLaMo 2", "none": "none",
}  # fmt: skip
#: Numbers of the architecture that tell models apart, by the name they are shown under.
_NUMBERS = {
    "blocks": "block_count",
    "context": "context_length",
    "width": "embedding_length",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "experts": "expert_count",
}

Keys = Mapping[str, RawValue]


def model_facts(keys: Keys) -> dict[str, Fact]:
    """What a text model is: architecture, name, sizes; keys that are missing or of an odd type are left out."""
    arch = text_of(keys, "general.architecture")
    facts: dict[str, Fact] = {"architecture": arch} if arch else {}
    name = text_of(keys, "general.name")
    if name:
        facts["name"] = name
    for label, key in _NUMBERS.items():
        number = _number(keys, f"{arch}.{key}")
        if number:
            facts[label] = number
    return facts


def tokenizer_facts(keys: Keys, pre_tokenizer_by: str = "", template_in: str = "") -> dict[str, Fact]:
    """Kind of tokenizer, number of tokens, pre-tokenizer with its evidence, chat template with its file."""
    facts: dict[str, Fact] = {}
    kind = text_of(keys, "tokenizer.ggml.model")
    if kind:
        facts["tokenizer"] = _TOKENIZERS.get(kind, kind)
    if "tokenizer.ggml.tokens" in keys:
        facts["tokens"] = keys["tokenizer.ggml.tokens"].length
    pre = text_of(keys, "tokenizer.ggml.pre")
    if pre:
        facts["pre_tokenizer"] = pre
    if pre_tokenizer_by:
        facts["pre_tokenizer_by"] = pre_tokenizer_by
    if template_in:
        facts["chat_template_in"] = template_in
    facts["chat_template"] = _describe_template(text_of(keys, TEMPLATE_KEY))
    return facts


def count_types(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Fact]:
    """Weights and tensors, and how many tensors there are of each type, from types and shapes."""
    weights, types = 0, dict[str, int]()
    for type_, shape in tensors:
        weights += prod(shape)
        types[type_] = types.get(type_, 0) + 1
    ordered = dict(sorted(types.items(), key=lambda item: (-item[1], item[0])))
    return {"parameters": weights, "tensors": sum(types.values()), "types": ordered}


def text_of(keys: Keys, key: str) -> str:
    """The text of a key; "" when it is missing or something else."""
    value = keys.get(key)
    return str(value.decode()) if value is not None and value.type is ValueType.STRING else ""


def _number(keys: Keys, key: str) -> int:
    """A number, or the largest of those that differ between blocks; 0 when there is none."""
    value = keys.get(key)
    found = None if value is None else value.decode()
    if isinstance(found, list):
        found = max((item for item in found if isinstance(item, int)), default=0)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def _describe_template(text: str) -> str:
    if not text:
        return "none"
    found = detect_template(text)
    return "none of the known ones; clients use it as it is" if found is None else found.evidence()
