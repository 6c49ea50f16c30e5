"""StableLM: Llama with layer norms and a part of each head rotated."""

from __future__ import annotations

from collections.abc import Callable

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import CONTEXT, EMBEDDING, FEED_FORWARD, block_count, file_type, head_counts
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings, gated_mlp
from modelbuild.convert.family import Family, Number, TensorRule, Value, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe


def rotary_dimensions(model: Model) -> int:
    """How many dimensions of a head are rotated."""
    return int(model.rope.full.number("partial_rotary_factor") * (model.hidden // model.heads))


def is_parallel(model: Model) -> bool:
    """Does one norm serve attention and feed-forward?"""
    return model.config.boolean("use_parallel_residual", True)


def _is_serial(model: Model, _block: int) -> bool:
    return not is_parallel(model)


def _norms_of_heads(name: str, count: Callable[[Model], int]) -> TensorRule:
    """A norm of its own for each head, all of them in one matrix."""
    source = f"{LAYER}self_attn.{name}_layernorm.norms.{{e}}"
    return TensorRule(source, f"{BLOCK}attn_{name}_norm", "head", weight="optional", count=count)


FAMILY = Family(
    classes=("StableLmForCausalLM", "StableLMEpochForCausalLM", "LlavaStableLMEpochForCausalLM"),
    architecture="stablelm",
    defaults={
        "max_position_embeddings": 4096,
        "num_key_value_heads": lambda config: config.get("num_attention_heads"),
        "layer_norm_eps": lambda config: config.get("norm_eps") or 1e-5,
        "partial_rotary_factor": lambda config: config.get("rope_pct") or 0.25,
        "use_parallel_residual": False,
        "rope_theta": 10000.0,
    },
    keys=(
        CONTEXT,
        EMBEDDING,
        block_count,
        FEED_FORWARD,
        Value("rope.dimension_count", rotary_dimensions),
        head_counts,
        Value("use_parallel_residual", is_parallel),
        Number("attention.layer_norm_epsilon", names.NORM_EPSILON),
        file_type,
    ),
    tensors=(
        *embeddings(norm_bias="required"),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", bias="required"),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm", bias="required", when=_is_serial),
        *attention(bias="optional", output_bias="absent"),
        _norms_of_heads("q", lambda model: model.heads),
        _norms_of_heads("k", lambda model: model.kv_heads),
        *gated_mlp(),
    ),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("stablelm2",),
)
