"""Llama 4: experts in two fused tensors with inputs as rows; rotary pairs stand as the runtime reads them."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.families.llama import LLAMA_KEYS
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, block_norms, embeddings, halve_expert_rows
from modelbuild.convert.family import Count, Family, exact, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.rope import llama3_frequencies
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import Transposed
from modelbuild.formats.gguf.writer import KeyValue, u32

_FF = f"{LAYER}feed_forward."


def is_sparse(model: Model, block: int) -> bool:
    """Has this block experts? Listed, or every n-th one."""
    listed = model.config.integers("moe_layers")
    if listed is not None:
        return block in listed
    step = model.config.integer("interleave_moe_layer_step", default=1)
    return step > 0 and (block + 1) % step == 0


def is_dense(model: Model, block: int) -> bool:
    """Has this block one feed-forward part for all tokens?"""
    return not is_sparse(model, block)


def _transpose(source: Source, _model: Model, _block: int) -> Source:
    return Transposed(source)


def _transpose_and_halve(source: Source, model: Model, block: int) -> tuple[Source, Source]:
    return halve_expert_rows(Transposed(source), model, block)


def _no_window(model: Model) -> Iterable[KeyValue]:
    """Models whose blocks all see everything say so with a window of 0."""
    types = model.config.texts("layer_types")
    if types and all(kind == "full_attention" for kind in types):
        yield u32(model.key("attention.sliding_window"), 0)


FAMILY = Family(
    classes=("Llama4ForCausalLM", "Llama4ForConditionalGeneration"),
    architecture="llama4",
    defaults={
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
    },
    keys=(
        *LLAMA_KEYS,
        Count("feed_forward_length", "intermediate_size_mlp", "feed_forward_length"),
        Count("interleave_moe_layer_step", "interleave_moe_layer_step"),
        Count("expert_feed_forward_length", "intermediate_size", "feed_forward_length"),
        _no_window,
    ),
    tensors=(
        *embeddings(),
        *block_norms(),
        *attention(),
        matrix(f"{_FF}gate_proj", f"{BLOCK}ffn_gate", "dense_ff hidden", when=is_dense),
        matrix(f"{_FF}up_proj", f"{BLOCK}ffn_up", "dense_ff hidden", when=is_dense),
        matrix(f"{_FF}down_proj", f"{BLOCK}ffn_down", "hidden dense_ff", when=is_dense),
        matrix(f"{_FF}router", f"{BLOCK}ffn_gate_inp", "experts hidden", when=is_sparse),
        exact(
            f"{_FF}experts.gate_up_proj",
            (f"{BLOCK}ffn_gate_exps.weight", f"{BLOCK}ffn_up_exps.weight"),
            "experts hidden 2*ff",
            _transpose_and_halve,
            when=is_sparse,
        ),
        exact(
            f"{_FF}experts.down_proj", f"{BLOCK}ffn_down_exps.weight", "experts ff hidden", _transpose, when=is_sparse
        ),
        matrix(f"{_FF}shared_expert.gate_proj", f"{BLOCK}ffn_gate_shexp", "ff hidden", when=is_sparse),
        matrix(f"{_FF}shared_expert.up_proj", f"{BLOCK}ffn_up_shexp", "ff hidden", when=is_sparse),
        matrix(f"{_FF}shared_expert.down_proj", f"{BLOCK}ffn_down_shexp", "hidden ff", when=is_sparse),
    ),
    sizes={
        "dense_ff": lambda model: model.config.optional_integer("intermediate_size_mlp", "feed_forward_length"),
        "ff": lambda model: model.config.optional_integer("intermediate_size", "feed_forward_length"),
    },
    extras=llama3_frequencies,
    tokenizer=byte_level_bpe,
    pre_tokenizers=("llama4",),
)
