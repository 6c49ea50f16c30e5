"""Mistral 3 and Ministral 3: Llama's tensors, with attention that is scaled by position."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.families.llama import LLAMA_KEYS, LLAMA_TENSORS, MISTRAL_DEFAULTS
from modelbuild.convert.families.standard import rename_to_standard
from modelbuild.convert.family import Family
from modelbuild.convert.model import Model
from modelbuild.convert.rope import llama3_frequencies
from modelbuild.convert.tokenizers.llama import llama_tokenizer
from modelbuild.errors import UnsupportedError
from modelbuild.formats.gguf.writer import KeyValue, f32


def _position_keys(model: Model) -> Iterable[KeyValue]:
    if model.config.text("model_type") != "ministral3":
        return
    rope = model.rope.full
    if model.rope.kind != "yarn":
        raise rope.error("rope_type", "yarn expected for ministral3")
    yield f32(model.key("rope.scaling.yarn_log_multiplier"), rope.number("mscale_all_dim", positive=False))
    yield f32(model.key("attention.temperature_scale"), rope.number("llama_4_scaling_beta", positive=False))


def _refuse_mistral4(model: Model) -> None:
    if model.config.text("model_type") == "mistral4":
        message = "mistral4 is another architecture under the name of this class and cannot be converted yet"
        raise UnsupportedError("ARCHITECTURE", message, path=model.config.path, key="model_type")


FAMILY = Family(
    classes=("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"),
    architecture="mistral3",
    defaults=MISTRAL_DEFAULTS,
    keys=(*LLAMA_KEYS, _position_keys),
    tensors=LLAMA_TENSORS,
    rename=rename_to_standard,
    check=_refuse_mistral4,
    extras=llama3_frequencies,
    tokenizer=llama_tokenizer,
    pre_tokenizers=("tekken",),
)
