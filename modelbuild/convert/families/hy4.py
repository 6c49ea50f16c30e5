"""Hunyuan 4 (Hy4): latent attention with a gate and sinks, several residual streams, an indexer, stacked experts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from modelbuild.convert.common_keys import experts_used
from modelbuild.convert.config import Config
from modelbuild.convert.families.deepseek import (
    DEEPSEEK_EXPERTS,
    DEEPSEEK_TENSORS,
    LATENT_KEYS,
    LATENT_SIZES,
    is_sparse,
)
from modelbuild.convert.families.latent_sparse import INDEXER_TENSORS, indexer_sizes
from modelbuild.convert.families.standard import BLOCK, LAYER, halve_expert_rows
from modelbuild.convert.family import Family, KeyRule, Number, TensorRule, Value, exact, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, bool_array, f32_array, u32

_SIGMOID = 2
_SPARSE_KINDS = ("sparse_attention", "deepseek_sparse_attention")
_EXPERTS = f"{LAYER}mlp.experts."
_WIDE = ("hc_attn_fn.weight", "hc_ffn_fn.weight", "output_hc_fn.weight")


def _first_experts(config: Config) -> object:
    """Blocks with one feed-forward part for all tokens come first."""
    kinds = config.texts("mlp_layer_types") or []
    return next((number for number, kind in enumerate(kinds) if kind != "dense"), len(kinds))


def _experts_used(model: Model) -> Iterable[KeyValue]:
    """One group of experts is no group."""
    single = model.config.get("n_group") == 1 and model.config.get("topk_group") == 1
    for item in experts_used(model):
        if not (single and "group" in item.key):
            yield item


def _full_indexers(model: Model) -> list[bool] | None:
    """Blocks with an indexer of their own, the others use that of an earlier one; None without any."""
    kinds = model.config.texts("indexer_types")
    full: tuple[str, ...] = ("full",)
    if kinds is None:
        kinds, full = model.config.texts("layer_types"), _SPARSE_KINDS
        if kinds is None or not any(kind in full for kind in kinds):
            return None
    if len(kinds) < model.layers:
        raise model.config.error("indexer_types", f"{len(kinds)} entries for {model.layers} layers")
    return [kind in full for kind in kinds[: model.layers]]


def _has_indexer(model: Model, block: int) -> bool:
    full = _full_indexers(model)
    return full is not None and full[block]


def _indexer_keys(model: Model) -> Iterable[KeyValue]:
    full = _full_indexers(model)
    if full is None:
        return
    config, prefix = model.config, model.key("attention.indexer.")
    yield u32(f"{prefix}head_count", config.integer("index_n_heads", "head_count"))
    yield u32(f"{prefix}key_length", config.integer("index_head_dim", "head_dimension"))
    yield u32(f"{prefix}top_k", config.integer("index_topk"))
    yield bool_array(f"{prefix}types", full)


def _clamp_keys(model: Model) -> Iterable[KeyValue]:
    limit = model.config.optional_number("swiglu_limit", positive=False)
    if limit is not None and limit > 0:
        yield f32_array(model.key("swiglu_clamp_exp"), [limit] * model.layers)


def _rename(name: str, model: Model) -> str:
    """Without what predicts further tokens, which the runtime does not know; single tensors get a suffix."""
    if name.startswith("model.mtp_layers."):
        return ""
    if name == "lm_head.weight" and model.config.boolean("tie_word_embeddings", False):
        return ""
    return f"{name}.weight" if ".hc_" in name and not name.endswith(".weight") else name


def _force(name: str, model: Model) -> GgmlType | None:
    """What mixes the streams stays exact, and the output where the configuration wants it."""
    exact_output = name == "output.weight" and model.config.boolean("enable_lm_head_fp32", False)
    return GgmlType.F32 if exact_output or name.endswith(_WIDE) else None


def _mixing(name: str, target: str) -> tuple[TensorRule, ...]:
    """How a block's part reads from the residual streams and writes to them."""
    source = f"{LAYER}{name}.hc_pre.hc_"
    return (
        matrix(f"{source}fn", f"{BLOCK}{target}_fn", "2*streams streams*hidden"),
        matrix(f"{source}base", f"{BLOCK}{target}_base", "2*streams"),
        matrix(f"{source}scale", f"{BLOCK}{target}_scale", "2"),
    )


_STACKED: tuple[TensorRule, ...] = (
    exact(
        f"{_EXPERTS}gate_up_proj",
        (f"{BLOCK}ffn_gate_exps.weight", f"{BLOCK}ffn_up_exps.weight"),
        "experts 2*expert_ff hidden",
        halve_expert_rows,
        when=is_sparse,
    ),
    exact(f"{_EXPERTS}down_proj", f"{BLOCK}ffn_down_exps.weight", "experts hidden expert_ff", when=is_sparse),
)
_INDEXER = tuple(
    replace(rule, weight="required", bias="required" if rule.bias == "optional" else rule.bias, when=_has_indexer)
    for rule in INDEXER_TENSORS
)
_LISTED = {rule.source for rule in DEEPSEEK_EXPERTS if "{e}" in rule.source}
_KEYS: tuple[KeyRule, ...] = (
    *(_experts_used if rule is experts_used else rule for rule in LATENT_KEYS),
    Value("expert_gating_func", _SIGMOID),
    _clamp_keys,
    Value("hyper_connection.count", lambda model: model.config.integer("hc_mult", "head_count")),
    Number("hyper_connection.epsilon", "hc_eps"),
    Number("hyper_connection.magnitude", "hc_magnitude"),
    _indexer_keys,
)

FAMILY = Family(
    classes=("HYV4ForCausalLM",),
    architecture="hy_v4",
    defaults={"rms_norm_eps": 1e-6, "kv_lora_rank": 512, "first_k_dense_replace": _first_experts},
    keys=_KEYS,
    tensors=(
        *(rule for rule in DEEPSEEK_TENSORS if rule.source not in _LISTED),
        *_STACKED,
        *_INDEXER,
        exact(f"{LAYER}self_attn.learnable_sink_param", f"{BLOCK}attn_sinks.weight", "heads"),
        matrix(f"{LAYER}self_attn.linear_gate", f"{BLOCK}attn_gate", "heads*value hidden"),
        *_mixing("hc_attn_layer", "hc_attn"),
        *_mixing("hc_mlp_layer", "hc_ffn"),
        matrix("model.hc_head.hc_head_fn", "output_hc_fn", "streams streams*hidden"),
        matrix("model.hc_head.hc_head_base", "output_hc_base", "streams"),
        matrix("model.hc_head.hc_head_scale", "output_hc_scale", "1"),
    ),
    rename=_rename,
    force_type=_force,
    sizes={
        **LATENT_SIZES,
        **indexer_sizes(),
        "streams": lambda model: model.config.integer("hc_mult", "head_count"),
    },
    tokenizer=sentencepiece_or_bpe,
    pre_tokenizers=("hunyuan-dense",),
)
