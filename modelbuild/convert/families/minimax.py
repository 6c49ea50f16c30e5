"""MiniMax 01 to M3: experts in most blocks.

01 and M1 have a linear attention in all blocks but every eighth; M3 looks at the blocks of tokens that an indexer
chooses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.config import Config
from modelbuild.convert.families.llama import MIXTRAL_EXPERTS
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    attention,
    block_norms,
    embeddings,
    head_norms,
    plus_one,
)
from modelbuild.convert.family import Count, Family, KeyRule, Number, TensorRule, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.scalars import zero_rows
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, i32_array, u32

_MOE, _A = f"{LAYER}block_sparse_moe.", f"{LAYER}self_attn."
_KEYS: tuple[KeyRule, ...] = (
    *COMMON_KEYS,
    Count("expert_feed_forward_length", "intermediate_size", "feed_forward_length"),
    Count("rope.dimension_count", "rotary_dim"),
)


# -- M3 ----------------------------------------------------------------------------------------------------------------


def _indexer(model: Model) -> Config:
    settings = model.config.section("sparse_attention_config")
    if settings is None:
        raise model.config.error("sparse_attention_config", "the key is missing")
    return settings


def _indexer_keys(model: Model) -> Iterable[KeyValue]:
    settings = _indexer(model)
    for key, name in (
        ("head_count", "sparse_num_index_heads"),
        ("key_length", "sparse_index_dim"),
        ("top_k", "sparse_topk_blocks"),
        ("block_size", "sparse_block_size"),
        ("local_blocks", "sparse_local_block"),
    ):
        yield u32(model.key(f"attention.indexer.{key}"), settings.integer(name))


def _index_size(model: Model) -> int:
    return _indexer(model).integer("sparse_index_dim", "head_dimension")


def _dense_blocks(model: Model) -> int:
    """Blocks without experts, all of them at the beginning."""
    flags = model.config.integers("moe_layer_freq")
    if flags is None:
        return model.config.integer("first_k_dense_replace", "block_count", 0)
    return next((number for number, flag in enumerate(flags) if flag), len(flags))


def _is_dense(model: Model, block: int) -> bool:
    return block < _dense_blocks(model)


def _is_sparse(model: Model, block: int) -> bool:
    return not _is_dense(model, block)


def _full_precision(name: str, _model: Model) -> GgmlType | None:
    return GgmlType.F32 if ".indexer." in name else None


def _sparse(rule: TensorRule) -> TensorRule:
    return matrix(rule.source, rule.target, rule.shape, when=_is_sparse)


# -- 01 and M1 ---------------------------------------------------------------------------------------------------------

#: The runtime counts blocks by this number unless it is told otherwise; the last of each group has full attention.
_GROUP = 8
_PARTS = ("full_attention", "linear_attention", "mlp")


def _is_full(_model: Model, block: int) -> bool:
    return block % _GROUP == _GROUP - 1


def _is_linear(model: Model, block: int) -> bool:
    return not _is_full(model, block)


def _check_01(model: Model) -> None:
    """Settings that no key tells must be those of the published models."""
    config = model.config
    kinds = config.integers("attn_type_list")
    if kinds is not None and kinds != [int(_is_full(model, block)) for block in range(model.layers)]:
        raise config.error("attn_type_list", f"full attention is expected in every block {_GROUP}, and only there")
    scale = config.number(f"layernorm_{_PARTS[0]}_alpha")
    for part in _PARTS:
        for kind, wanted in (("alpha", scale), ("beta", 1.0)):
            key = f"layernorm_{part}_{kind}"
            found = config.number(key)
            if found != wanted:
                raise config.error(key, f"{wanted} is expected, found {found}")


def _suppressed_tokens(model: Model) -> Iterable[KeyValue]:
    """Rows of nothing beyond the vocabulary would be as likely as any token."""
    embedding = model.stored.get("model.embed_tokens.weight")
    known = len(model.tokenizer_files.vocabulary)
    if embedding is not None and (rows := zero_rows(embedding, known)):
        yield i32_array("tokenizer.ggml.suppress_tokens", rows)


_BIAS = exact(f"{_MOE}e_score_correction.bias", f"{BLOCK}exp_probs_b.bias", "experts")

FAMILIES = (
    Family(
        classes=("MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"),
        architecture="minimax-01",
        keys=(
            *COMMON_KEYS,
            _suppressed_tokens,
            Number("residual_scale", f"layernorm_{_PARTS[0]}_alpha"),
            Count("rope.dimension_count", "rotary_dim"),
        ),
        tensors=(
            *embeddings(),
            *block_norms(),
            *(replace(rule, when=_is_full) for rule in attention()),
            matrix(f"{_A}qkv_proj", f"{BLOCK}attn_qkv", "3*q hidden", when=_is_linear),
            matrix(f"{_A}output_gate", f"{BLOCK}attn_gate", "q hidden", when=_is_linear),
            matrix(f"{_A}out_proj", f"{BLOCK}attn_output", "hidden q", when=_is_linear),
            norm(f"{_A}norm", f"{BLOCK}attn_norm_2", "q", when=_is_linear),
            *MIXTRAL_EXPERTS,
        ),
        check=_check_01,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("minimax-m2",),
    ),
    Family(
        classes=("MiniMaxM2ForCausalLM",),
        architecture="minimax-m2",
        keys=_KEYS,
        tensors=(
            *embeddings(),
            *block_norms(),
            *attention(),
            norm(f"{_A}q_norm", f"{BLOCK}attn_q_norm", "q"),
            norm(f"{_A}k_norm", f"{BLOCK}attn_k_norm", "kv"),
            *MIXTRAL_EXPERTS,
            _BIAS,
        ),
        tokenizer=byte_level_bpe,
        pre_tokenizers=("minimax-m2",),
    ),
    Family(
        classes=("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"),
        architecture="minimax-m3",
        keys=(
            *_KEYS,
            Count("expert_shared_count", "n_shared_experts", "expert_count"),
            Number("expert_weights_scale", "routed_scaling_factor"),
            Value("expert_weights_norm", True),
            _indexer_keys,
            Value("leading_dense_block_count", _dense_blocks),
        ),
        tensors=(
            *embeddings(norm_transform=plus_one),
            norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", transform=plus_one),
            norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm", transform=plus_one),
            *attention(),
            *head_norms(plus_one),
            matrix(f"{_A}index_q_proj", f"{BLOCK}indexer.q_proj", "index_heads*index hidden", when=_is_sparse),
            matrix(f"{_A}index_k_proj", f"{BLOCK}indexer.k_proj", "index hidden", when=_is_sparse),
            norm(f"{_A}index_q_norm", f"{BLOCK}indexer.q_norm", "index", plus_one, when=_is_sparse),
            norm(f"{_A}index_k_norm", f"{BLOCK}indexer.k_norm", "index", plus_one, when=_is_sparse),
            matrix(f"{LAYER}mlp.gate_proj", f"{BLOCK}ffn_gate", "dense_ff hidden", when=_is_dense),
            matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "dense_ff hidden", when=_is_dense),
            matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden dense_ff", when=_is_dense),
            *(_sparse(rule) for rule in MIXTRAL_EXPERTS),
            exact(f"{_MOE}e_score_correction.bias", f"{BLOCK}exp_probs_b.bias", "experts", when=_is_sparse),
            matrix(f"{_MOE}shared_experts.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=_is_sparse),
            matrix(f"{_MOE}shared_experts.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_is_sparse),
            matrix(f"{_MOE}shared_experts.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_is_sparse),
        ),
        sizes={
            "ff": lambda model: model.config.integer("intermediate_size", "feed_forward_length"),
            "dense_ff": lambda model: model.config.optional_integer(names.FEED_FORWARD_LENGTH, "feed_forward_length"),
            "shared_ff": lambda model: (
                model.config.integer("intermediate_size", "feed_forward_length")
                * model.config.integer("n_shared_experts", "expert_count", 1)
            ),
            "index": _index_size,
            "index_heads": lambda model: _indexer(model).integer("sparse_num_index_heads", "head_count"),
        },
        force_type=_full_precision,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("minimax-m2",),
    ),
)
