"""DBRX: queries, keys and values in one clamped matrix, the experts of a block below each other in three tall ones."""

from __future__ import annotations

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import block_count, file_type
from modelbuild.convert.config import Config, Default
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Count, Family, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import Reshaped, Transposed
from modelbuild.formats.gguf.types import GgmlType

_LAYER = "transformer.blocks.{b}."
_ATTENTION, _EXPERTS = f"{_LAYER}norm_attn_norm.attn.", f"{_LAYER}ffn.experts.mlp."
#: The library's norms have this epsilon; config.json does not tell it.
_EPSILON = 1e-5
_TYPES = {0: GgmlType.F32, 1: GgmlType.F16, 32: GgmlType.BF16}


def _inner(section: str, key: str, default: object) -> Default:
    """A setting that the configuration keeps in a section of its own."""

    def value(config: Config) -> object:
        inner = config.section(section)
        found = inner.get(key) if inner else None
        return default if found is None else found

    return value


def _experts(source: Source, model: Model, _block: int) -> Source:
    """Experts stand one below the other."""
    rows, columns = source.shape
    return Reshaped(source, (model.experts, rows // model.experts, columns))


def _transposed_experts(source: Source, model: Model, block: int) -> Source:
    return Transposed(_experts(source, model, block))


def _narrow_router(name: str, model: Model) -> GgmlType | None:
    """The reference narrows every matrix of this class, the router's too."""
    return _TYPES[model.file_type] if name.endswith("ffn_gate_inp.weight") and model.file_type in _TYPES else None


FAMILY = Family(
    classes=("DbrxForCausalLM",),
    architecture="dbrx",
    defaults={
        "hidden_size": lambda config: config.get("d_model"),
        "max_position_embeddings": lambda config: config.get("max_seq_len"),
        "intermediate_size": _inner("ffn_config", "ffn_hidden_size", 3584),
        "num_experts": _inner("ffn_config", "moe_num_experts", 4),
        "num_experts_per_tok": _inner("ffn_config", "moe_top_k", 1),
        "num_key_value_heads": _inner("attn_config", "kv_n_heads", 1),
        "rope_theta": _inner("attn_config", "rope_theta", 10000.0),
        "clip_qkv": _inner("attn_config", "clip_qkv", None),
        "d_model": 2048,
        "max_seq_len": 2048,
        "n_heads": 16,
        "n_layers": 24,
    },
    keys=(
        block_count,
        Count("context_length", "max_position_embeddings", "context_length"),
        Count("embedding_length", "hidden_size", "embedding_length"),
        Value("feed_forward_length", lambda model: model.feed_forward),
        Value("attention.head_count", lambda model: model.heads),
        Value("attention.head_count_kv", lambda model: model.kv_heads),
        Value("rope.freq_base", lambda model: model.config.number("rope_theta")),
        # The runtime does not load a file without the key.
        Value("attention.clamp_kqv", lambda model: model.config.number("clip_qkv")),
        Value("expert_count", lambda model: model.experts),
        Count("expert_used_count", names.EXPERT_USED_COUNT, "expert_count"),
        Value("attention.layer_norm_epsilon", _EPSILON),
        file_type,
    ),
    tensors=(
        matrix("transformer.wte", "token_embd", "? hidden"),
        norm("transformer.norm_f", "output_norm"),
        matrix("lm_head", "output", "vocab hidden"),
        norm(f"{_LAYER}norm_attn_norm.norm_1", f"{BLOCK}attn_norm"),
        norm(f"{_LAYER}norm_attn_norm.norm_2", f"{BLOCK}attn_output_norm"),
        matrix(f"{_ATTENTION}Wqkv", f"{BLOCK}attn_qkv", "q+2*kv hidden"),
        matrix(f"{_ATTENTION}out_proj", f"{BLOCK}attn_output", "hidden q"),
        matrix(f"{_LAYER}ffn.router.layer", f"{BLOCK}ffn_gate_inp", "experts hidden"),
        exact(f"{_EXPERTS}w1", f"{BLOCK}ffn_gate_exps.weight", "experts*ff hidden", _experts),
        exact(f"{_EXPERTS}v1", f"{BLOCK}ffn_up_exps.weight", "experts*ff hidden", _experts),
        exact(f"{_EXPERTS}w2", f"{BLOCK}ffn_down_exps.weight", "experts*ff hidden", _transposed_experts),
    ),
    force_type=_narrow_router,
    tokenizer=byte_level_bpe,
    pre_tokenizers=("dbrx",),
)
