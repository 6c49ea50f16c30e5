"""Nemotron (Minitron): norms stored as the difference from one, squared activation without a gate."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import COMMON_KEYS, VOCAB_SIZE
from modelbuild.convert.families.llama import even_head_dim, same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings, plus_one
from modelbuild.convert.family import Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.rope import partial_factor
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.formats.gguf.writer import KeyValue, f32, string, u32

_PAD, _UNKNOWN = 0, 1


def _scaling(model: Model) -> Iterable[KeyValue]:
    factor = model.config.optional_number("factor") or model.rope.full.optional_number("factor")
    yield string(model.key("rope.scaling.type"), "none" if factor is None else "linear")
    if factor is not None:
        yield f32(model.key("rope.scaling.factor"), factor)


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    yield from sentencepiece_or_bpe(model)
    yield u32("tokenizer.ggml.padding_token_id", _PAD)
    yield u32("tokenizer.ggml.unknown_token_id", _UNKNOWN)


FAMILY = Family(
    classes=("NemotronForCausalLM",),
    architecture="nemotron",
    defaults={
        "num_key_value_heads": same_heads,
        "head_dim": even_head_dim,
        "max_position_embeddings": 4096,
        "norm_eps": 1e-5,
        "rope_theta": 10000.0,
    },
    keys=(
        *COMMON_KEYS,
        VOCAB_SIZE,
        Number("attention.layer_norm_epsilon", (*names.NORM_EPSILON, "norm_eps")),
        Value("rope.dimension_count", lambda model: int(partial_factor(model, 0.5) * model.hidden) // model.heads),
        _scaling,
    ),
    tensors=(
        *embeddings(norm_transform=plus_one, norm_bias="required"),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", transform=plus_one, bias="required"),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm", transform=plus_one, bias="required"),
        *attention(bias="optional"),
        matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden", bias="optional"),
        matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff", bias="optional"),
    ),
    tokenizer=_tokenizer,
)
