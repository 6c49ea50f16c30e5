"""dots3-note: latent attention of two sizes, with a window in most blocks and an indexer in the others, gated heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import sqrt

from modelbuild.convert.common_keys import head_counts, head_lengths
from modelbuild.convert.families.deepseek import DEEPSEEK_EXPERTS, LATENT_KEYS, LATENT_SIZES, first_experts
from modelbuild.convert.families.glm import NEXT_TOKEN_TENSORS, is_predicting, predicted_layers, with_special_ids
from modelbuild.convert.families.latent_sparse import INDEXER_TENSORS, indexer_keys, indexer_sizes
from modelbuild.convert.families.standard import BLOCK, LAYER, block_norms, embeddings
from modelbuild.convert.family import Family, KeyRule, Shape, TensorRule, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import Reshaped, Transposed, take_second_axis
from modelbuild.convert.value_transforms import Computed
from modelbuild.errors import UnsupportedError
from modelbuild.formats.gguf.writer import KeyValue, bool_array, i32_array, u32

_ATTENTION = f"{LAYER}self_attn."
_END_OF_TURN = {"eot": "<|endofassistant|>"}


def _has_window(model: Model, block: int) -> bool:
    """Also the block for a further token has one; no rule for adapters over a GGUF asks for this."""
    if model.is_of_header:
        return False
    kinds = model.config.texts("layer_types") or []
    if not is_predicting(model, block) and block >= len(kinds):
        raise model.config.error("layer_types", f"{len(kinds)} entries for {model.layers} layers")
    return is_predicting(model, block) or kinds[block] == "sliding_attention"


def _size(model: Model, block: int, key: str) -> int:
    """A size of attention, which blocks with a window have under a name of their own."""
    prefix = "swa_" if _has_window(model, block) else ""
    return model.config.integer(f"{prefix}{key}", "embedding_length")


def _heads(model: Model, block: int) -> int:
    return _size(model, block, "num_attention_heads")


def _shape(text: str) -> Shape:
    """A shape with this block's heads and sizes in it."""

    def shape(model: Model, block: int) -> str:
        if model.is_of_header:  # it tells only one of both sizes
            return "? ?"
        nope, rope = _size(model, block, "qk_nope_head_dim"), _size(model, block, "qk_rope_head_dim")
        return text.format(
            heads=_heads(model, block),
            nope=nope,
            rope=rope,
            key=nope + rope,
            value=_size(model, block, "v_head_dim"),
            rank=_size(model, block, "kv_lora_rank"),
        )

    return shape


def _split(source: Source, model: Model, block: int) -> tuple[Source, Source]:
    """Keys, transposed so that queries can absorb them, and values."""
    nope, value = _size(model, block, "qk_nope_head_dim"), _size(model, block, "v_head_dim")
    heads = Reshaped(source, (_heads(model, block), nope + value, source.shape[-1]))
    return Transposed(take_second_axis(heads, 0, nope)), take_second_axis(heads, nope, nope + value)


def _rescaled(source: Source, model: Model, rank: int) -> Source:
    """The norm takes over a factor that the original applies after it."""
    if not model.config.boolean("apply_mla_qkv_lora_rescale", False):
        return source
    return Computed(source, factor=sqrt(model.hidden / rank))


def _query_norm(source: Source, model: Model, _block: int) -> Source:
    return _rescaled(source, model, model.config.integer("q_lora_rank", "embedding_length"))


def _key_norm(source: Source, model: Model, block: int) -> Source:
    return _rescaled(source, model, _size(model, block, "kv_lora_rank"))


def _is_dense(model: Model, block: int) -> bool:
    return block < first_experts(model) or is_predicting(model, block)


def _is_sparse(model: Model, block: int) -> bool:
    return not _is_dense(model, block)


def _has_indexer(model: Model, block: int) -> bool:
    return not _has_window(model, block)


def _predicting(model: Model) -> int:
    """One block when it is stored: the configuration does not tell."""
    if model.is_of_header:
        return predicted_layers(model)
    return int(f"model.layers.{model.layers}.embed_tokens.weight" in model.stored)


def _rename(name: str, model: Model) -> str:
    """The embedding for a further token belongs to its block; a gate has two names."""
    if name == "lm_head.weight" and model.config.boolean("tie_word_embeddings", False):
        return ""
    name = name.replace("model.mtp.embed_tokens.", f"model.layers.{model.layers}.embed_tokens.")
    return name.replace(".self_attn.gate_proj.", ".self_attn.g_proj.")


def _check(model: Model) -> None:
    """Variants that the runtime does not compute."""
    config = model.config
    wanted: tuple[tuple[str, object], ...] = (
        ("use_dsa", True),
        ("normalization", "RMSNorm"),
        ("final_norm", "RMSNorm"),
        ("k_rope_only_layernorm", True),
        ("topk_method", "noaux_tc"),
        ("use_dynamic_rsf", False),
        ("moe_gating_fp32", False),
        ("attention_gate_type", "headwise"),
        ("swa_attention_gate_type", "headwise"),
        ("swa_q_lora_rank", config.get("q_lora_rank")),
        ("swa_qk_rope_head_dim", config.get("qk_rope_head_dim")),
    )
    for key, value in wanted:
        found = config.get(key)
        if found is not None and found != value:
            message = "the runtime has no such variant of the architecture"
            raise UnsupportedError("ARCHITECTURE", message, path=config.path, key=key)


def _head_counts(model: Model) -> Iterable[KeyValue]:
    yield i32_array(model.key("attention.head_count"), [_heads(model, block) for block in range(model.block_count)])
    yield u32(model.key("attention.head_count_kv"), 1)


def _window_keys(model: Model) -> Iterable[KeyValue]:
    config, prefix = model.config, model.key("attention.")
    rank, nope = config.integer("swa_kv_lora_rank"), config.integer("swa_qk_nope_head_dim")
    rope = config.integer("swa_qk_rope_head_dim")
    windows = [_has_window(model, block) for block in range(model.layers)]
    yield u32(f"{prefix}sliding_window", config.integer("sliding_window_size"))
    yield bool_array(f"{prefix}sliding_window_pattern", windows)
    yield u32(f"{prefix}kv_lora_rank_swa", rank)
    yield u32(f"{prefix}key_length_swa", rank + rope)
    yield u32(f"{prefix}value_length_swa", rank)
    yield u32(f"{prefix}key_length_mla_swa", nope + rope)
    yield u32(f"{prefix}value_length_mla_swa", config.integer("swa_v_head_dim"))
    if _predicting(model):
        yield u32(model.key("nextn_predict_layers"), _predicting(model))


def _indexer_types(model: Model) -> Iterable[KeyValue]:
    full = [not _has_window(model, block) for block in range(model.layers)]
    yield bool_array(model.key("attention.indexer.types"), full)


_KEYS: tuple[KeyRule, ...] = (
    *(_head_counts if rule is head_counts else rule for rule in LATENT_KEYS if rule is not head_lengths),
    _window_keys,
    indexer_keys,
    _indexer_types,
)
_LATENT: tuple[TensorRule, ...] = (
    matrix(f"{_ATTENTION}q_a_proj", f"{BLOCK}attn_q_a", "q_rank hidden"),
    norm(f"{_ATTENTION}q_a_layernorm", f"{BLOCK}attn_q_a_norm", "q_rank", _query_norm),
    matrix(f"{_ATTENTION}q_b_proj", f"{BLOCK}attn_q_b", _shape("{heads}*{key} q_rank")),
    matrix(f"{_ATTENTION}kv_a_proj_with_mqa", f"{BLOCK}attn_kv_a_mqa", _shape("{rank}+{rope} hidden")),
    norm(f"{_ATTENTION}kv_a_layernorm", f"{BLOCK}attn_kv_a_norm", _shape("{rank}"), _key_norm),
    norm(f"{_ATTENTION}k_rope_only_layernorm", f"{BLOCK}attn_k_norm", "rope"),
    matrix(
        f"{_ATTENTION}kv_b_proj",
        (f"{BLOCK}attn_k_b", f"{BLOCK}attn_v_b"),
        _shape("{heads}*{nope}+{heads}*{value} {rank}"),
        _split,
    ),
    matrix(f"{_ATTENTION}g_proj", f"{BLOCK}attn_gate", _shape("{heads} hidden")),
    matrix(f"{_ATTENTION}o_proj", f"{BLOCK}attn_output", _shape("hidden {heads}*{value}")),
)
_INDEXER = tuple(
    replace(rule, weight="required", bias="required" if rule.bias == "optional" else rule.bias, when=_has_indexer)
    for rule in INDEXER_TENSORS
)
_DENSE = tuple(f"{BLOCK}ffn_{name}" for name in ("gate", "up", "down"))
_EXPERTS = tuple(replace(rule, when=_is_dense if rule.target in _DENSE else _is_sparse) for rule in DEEPSEEK_EXPERTS)


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    return with_special_ids(byte_level_bpe(model), model, _END_OF_TURN)


FAMILY = Family(
    classes=("Dots3NoteForCausalLM", "Dots3NoteForConditionalGeneration", "Dots3NoteTextForCausalLM"),
    architecture="dots3note",
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0},
    keys=_KEYS,
    tensors=(*embeddings(), *block_norms(), *_LATENT, *_INDEXER, *_EXPERTS, *NEXT_TOKEN_TENSORS),
    rename=_rename,
    check=_check,
    sizes={**LATENT_SIZES, **indexer_sizes()},
    block_count=lambda model: model.layers + _predicting(model),
    tokenizer=_tokenizer,
    pre_tokenizers=("qwen2",),
)
