"""Apertus: Llama without permutation, with norms of queries and keys; the numbers of its activation become keys."""

from __future__ import annotations

from modelbuild.convert.families.llama import LLAMA_KEYS, same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings, head_norms
from modelbuild.convert.family import Extra, Family, TensorRule, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.rope import llama3_frequencies
from modelbuild.convert.scalars import read_scalar
from modelbuild.convert.tokenizers.llama import llama_tokenizer
from modelbuild.formats.gguf.writer import KeyValue, f32_array

_ACTIVATION = f"{LAYER}mlp.act_fn."
_NUMBERS = ("alpha_n", "alpha_p", "beta", "eps")


def _nothing(_source: Source, _model: Model, _block: int) -> tuple[Source, ...]:
    """They are no tensors of the result."""
    return ()


def _activation_key(model: Model, name: str) -> KeyValue:
    tensors = [model.stored.get(f"{_ACTIVATION}{name}".format(b=block)) for block in range(model.layers)]
    numbers = [read_scalar(tensor) for tensor in tensors if tensor is not None]
    return f32_array(f"xielu.{name}", numbers)


def _extras(model: Model) -> Extra:
    keys = tuple(_activation_key(model, name) for name in _NUMBERS)
    return Extra(llama3_frequencies(model).tensors, keys)


_RULES: tuple[TensorRule, ...] = tuple(exact(f"{_ACTIVATION}{name}", (), "1", _nothing) for name in _NUMBERS)

FAMILY = Family(
    classes=("ApertusForCausalLM",),
    architecture="apertus",
    defaults={
        "num_key_value_heads": same_heads,
        "max_position_embeddings": 65536,
        "rms_norm_eps": 1e-5,
        "rope_theta": 12000000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    },
    keys=LLAMA_KEYS,
    tensors=(
        *embeddings(),
        norm(f"{LAYER}attention_layernorm", f"{BLOCK}attn_norm"),
        norm(f"{LAYER}feedforward_layernorm", f"{BLOCK}ffn_norm"),
        *attention(bias="optional"),
        *head_norms(),
        matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden"),
        matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff"),
        *_RULES,
    ),
    extras=_extras,
    tokenizer=llama_tokenizer,
    pre_tokenizers=("tekken",),
)
