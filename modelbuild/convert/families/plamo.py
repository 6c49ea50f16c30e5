"""PLaMo 1: attention and feed-forward beside each other, query heads that share keys in another order."""

from __future__ import annotations

from modelbuild.convert.common_keys import EMBEDDING, FEED_FORWARD, RMS_EPSILON, block_count, file_type
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Family, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.sentencepiece import sentencepiece
from modelbuild.convert.transforms import ColumnMap, regroup_rows

_LAYER = "model.layers.layers.{b}."
_CONTEXT_LENGTH = 4096


def _kv_heads(model: Model) -> int:
    """Query heads divided by how many share a key; the configuration's own number is wrong, that of a GGUF is not."""
    known = model.config.optional_integer("num_kv_heads", "head_count")
    sharing = model.config.integer("n_shared_head", "head_count", 8)
    if not known and (not sharing or model.heads % sharing):
        raise model.config.error("n_shared_head", f"{model.heads} heads cannot share keys by {sharing}")
    return known or model.heads // sharing


def _sharing(model: Model) -> int:
    return model.heads // _kv_heads(model)


def _rows(source: Source, model: Model, _block: int) -> Source:
    """Query heads that share a key stand together, as the runtime broadcasts keys."""
    return regroup_rows(source, (_sharing(model), _kv_heads(model), model.head_dim), (1, 0, 2))


def _columns(source: Source, model: Model, _block: int) -> Source:
    kv, size = _kv_heads(model), model.head_dim
    order = (
        (place * kv + head) * size + index
        for head in range(kv)
        for place in range(_sharing(model))
        for index in range(size)
    )
    return ColumnMap(source, tuple(order))


FAMILY = Family(
    classes=("PlamoForCausalLM",),
    architecture="plamo",
    keys=(
        Value("context_length", _CONTEXT_LENGTH),
        EMBEDDING,
        FEED_FORWARD,
        block_count,
        Value("attention.head_count", lambda model: model.heads),
        Value("attention.head_count_kv", _kv_heads),
        RMS_EPSILON,
        file_type,
    ),
    tensors=(
        matrix("model.embed_tokens", "token_embd", "? hidden"),
        norm("model.norm", "output_norm"),
        matrix("lm_head", "output", "vocab hidden"),
        norm(f"{_LAYER}norm", f"{BLOCK}attn_norm"),
        matrix(f"{_LAYER}self_attn.q_proj", f"{BLOCK}attn_q", "q hidden", _rows),
        matrix(f"{_LAYER}self_attn.k_proj", f"{BLOCK}attn_k", "kv hidden"),
        matrix(f"{_LAYER}self_attn.v_proj", f"{BLOCK}attn_v", "kv hidden"),
        matrix(f"{_LAYER}self_attn.o_proj", f"{BLOCK}attn_output", "hidden q", _columns),
        matrix(f"{_LAYER}mlp.gate_proj", f"{BLOCK}ffn_gate", "ff hidden"),
        matrix(f"{_LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden"),
        matrix(f"{_LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff"),
    ),
    sizes={"kv": lambda model: _kv_heads(model) * model.head_dim},
    tokenizer=sentencepiece,
)
