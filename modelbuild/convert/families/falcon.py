"""Falcon: queries, keys and values in one matrix, group by group; attention and feed-forward side by side."""

from __future__ import annotations

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import EMBEDDING, NORM_EPSILON, block_count, file_type
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Count, Family, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import concatenate, split_grouped
from modelbuild.errors import UnsupportedError

_LAYER = "transformer.h.{b}."
#: config.json does not tell how long a text the model was trained for.
_CONTEXT_LENGTH = 2048


def kv_heads(model: Model) -> int:
    """Key and value heads: one for all in the first models, a number in those with groups."""
    config = model.config
    old_name = config.optional_integer("n_head_kv", "head_count")
    if old_name is not None:
        return old_name
    if config.boolean("multi_query", True) and not config.boolean("new_decoder_architecture", False):
        return 1
    return config.integer("num_kv_heads", "head_count", model.heads)


def _head(model: Model) -> int:
    return model.hidden // model.heads


def _ungroup(source: Source, model: Model, _block: int) -> Source:
    """From the queries, key and value of each group to all queries, all keys, all values."""
    groups, head = kv_heads(model), _head(model)
    queries = model.heads // groups * head
    return concatenate(split_grouped(source, groups, (queries, head, head)))


def _check(model: Model) -> None:
    if model.config.boolean("alibi", False):
        raise UnsupportedError(
            "ARCHITECTURE",
            "the model tells positions by ALiBi; the runtime rotates heads for every Falcon",
            path=model.config.path,
            key="alibi",
        )
    groups = kv_heads(model)
    if not groups or model.heads % groups:
        raise model.config.error("num_kv_heads", f"{model.heads} heads do not fall into {groups} groups")


FAMILY = Family(
    classes=("FalconForCausalLM", "RWForCausalLM"),
    architecture="falcon",
    defaults={"layer_norm_epsilon": 1e-5},
    keys=(
        Value("context_length", _CONTEXT_LENGTH),
        Value("tensor_data_layout", "jploski"),
        EMBEDDING,
        Value("feed_forward_length", lambda model: 4 * model.hidden),
        block_count,
        Count("attention.head_count", names.HEAD_COUNT, "head_count"),
        Value("attention.head_count_kv", kv_heads),
        NORM_EPSILON,
        file_type,
    ),
    tensors=(
        matrix("transformer.word_embeddings", "token_embd", "? hidden"),
        norm("transformer.ln_f", "output_norm", bias="required"),
        matrix("lm_head", "output", "vocab hidden", weight="optional"),
        norm(f"{_LAYER}input_layernorm", f"{BLOCK}attn_norm", bias="required", unless=f"{_LAYER}ln_mlp.weight"),
        norm(f"{_LAYER}ln_mlp", f"{BLOCK}attn_norm", bias="required", unless=f"{_LAYER}input_layernorm.weight"),
        norm(f"{_LAYER}ln_attn", f"{BLOCK}attn_norm_2", bias="required", unless=f"{_LAYER}input_layernorm.weight"),
        matrix(f"{_LAYER}self_attention.query_key_value", f"{BLOCK}attn_qkv", "hidden+2*groups*head hidden", _ungroup),
        matrix(f"{_LAYER}self_attention.dense", f"{BLOCK}attn_output", "hidden hidden"),
        matrix(f"{_LAYER}mlp.dense_h_to_4h", f"{BLOCK}ffn_up", "4*hidden hidden"),
        matrix(f"{_LAYER}mlp.dense_4h_to_h", f"{BLOCK}ffn_down", "hidden 4*hidden"),
    ),
    check=_check,
    sizes={"groups": kv_heads, "head": _head},
    tokenizer=byte_level_bpe,
    pre_tokenizers=("falcon",),
)
