"""DeciLM and Nemotron-NAS: Llama whose blocks differ: some have no attention, or a linear one, or no feed-forward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelbuild.convert.common_keys import (
    COMMON_KEYS,
    CONTEXT,
    EMBEDDING,
    RMS_EPSILON,
    VOCAB_SIZE,
    block_count,
    file_type,
)
from modelbuild.convert.families.standard import BLOCK, LAYER, embeddings
from modelbuild.convert.family import Family, KeyRule, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.rope import llama3_frequencies
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.convert.transforms import interleave_halves
from modelbuild.formats.gguf.writer import KeyValue, f32, i32_array

_MULTIPLE = 256


def _block_configs(model: Model) -> list[Mapping[str, object]] | None:
    """What the configuration says of each block: None for the first DeciLM, which has one shape for all."""
    blocks = model.config.get("block_configs")
    if blocks is None:
        return None
    if not isinstance(blocks, list) or len(blocks) != model.layers or not all(isinstance(one, dict) for one in blocks):
        raise model.config.error("block_configs", f"one object for each of the {model.layers} layers expected")
    return blocks


def _part(model: Model, block: int, name: str) -> Mapping[str, object]:
    blocks = _block_configs(model) or []
    part = blocks[block].get(name)
    if not isinstance(part, dict):
        raise model.config.error("block_configs", f"block {block} has no {name}")
    return part


def _kv_heads(model: Model, block: int) -> int:
    """Key and value heads of a block; 0 without attention."""
    if _block_configs(model) is None:
        listed = model.config.integers("num_key_value_heads_per_layer", "head_count")
        if listed is not None and len(listed) != model.layers:
            raise model.config.error("num_key_value_heads_per_layer", f"{model.layers} numbers expected")
        return model.kv_heads if listed is None else listed[block]
    group = _part(model, block, "attention").get("n_heads_in_group")
    if group is None:
        return 0
    if type(group) is not int or not 0 < group <= model.heads:
        raise model.config.error("block_configs", f"block {block}: n_heads_in_group is not a number of heads")
    return model.heads // group


def _heads(model: Model, block: int) -> int:
    """Query heads of a block; 0 where nothing stands in the place of attention."""
    if _block_configs(model) is None or _kv_heads(model, block):
        return model.heads
    return model.heads if _part(model, block, "attention").get("replace_with_linear") is True else 0


def _feed_forward(model: Model, block: int) -> int:
    """Width of a block's feed-forward part; 0 without one."""
    if _block_configs(model) is None:
        return model.config.integer("intermediate_size", "feed_forward_length")
    multiple = _part(model, block, "ffn").get("ffn_mult")
    if multiple is None:
        return 0
    if type(multiple) is not int and type(multiple) is not float:
        raise model.config.error("block_configs", f"block {block}: ffn_mult is not a number")
    width = int(2 * float(multiple) * model.hidden / 3)
    return -(-width // _MULTIPLE) * _MULTIPLE


def _attends(model: Model, block: int) -> bool:
    return _kv_heads(model, block) > 0


def _is_linear(model: Model, block: int) -> bool:
    return _heads(model, block) > 0 and not _attends(model, block)


def _has_norm(model: Model, block: int) -> bool:
    return _heads(model, block) > 0


def _has_mlp(model: Model, block: int) -> bool:
    return _feed_forward(model, block) > 0


def _hyper_parameters(model: Model) -> Iterable[KeyValue]:
    """All keys: lists where blocks differ, else Llama's with the heads of each block where these are given."""
    blocks = range(model.layers)
    if _block_configs(model) is None:
        for rule in COMMON_KEYS:
            yield from rule(model)
        if model.config.get("num_key_value_heads_per_layer") is not None:
            heads = [_kv_heads(model, block) for block in blocks]
            yield i32_array(model.key("attention.head_count_kv"), heads)
        return
    if model.rope.theta is not None:
        yield f32(model.key("rope.freq_base"), model.rope.theta)
    yield i32_array(model.key("attention.head_count_kv"), [_kv_heads(model, block) for block in blocks])
    yield i32_array(model.key("attention.head_count"), [_heads(model, block) for block in blocks])
    yield i32_array(model.key("feed_forward_length"), [_feed_forward(model, block) for block in blocks])
    for rule in _UNIFORM:
        yield from rule(model)


_UNIFORM: tuple[KeyRule, ...] = (
    block_count,
    CONTEXT,
    EMBEDDING,
    RMS_EPSILON,
    Value("attention.key_length", lambda model: model.hidden // model.heads),
    Value("attention.value_length", lambda model: model.hidden // model.heads),
    file_type,
)


def _permute(source: Source, model: Model, _block: int) -> Source:
    """Rotary halves to pairs; blocks differ in their heads, so the rows tell how many there are."""
    return interleave_halves(source, source.shape[0] // model.head_dim)


def _keys_shape(model: Model, block: int) -> str:
    if model.is_of_header:  # of the heads of all blocks it tells the largest number
        return "? hidden"
    return f"{_kv_heads(model, block)}*head hidden"


def _rows_shape(model: Model, block: int) -> str:
    return f"{_feed_forward(model, block)} hidden"


def _columns_shape(model: Model, block: int) -> str:
    return f"hidden {_feed_forward(model, block)}"


FAMILY = Family(
    classes=("DeciLMForCausalLM",),
    architecture="deci",
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0},
    keys=(_hyper_parameters, VOCAB_SIZE, Value("rope.dimension_count", lambda model: model.head_dim)),
    tensors=(
        *embeddings(),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", when=_has_norm),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm", when=_has_mlp),
        matrix(f"{LAYER}self_attn.q_proj", f"{BLOCK}attn_q", "q hidden", _permute, bias="optional", when=_attends),
        matrix(f"{LAYER}self_attn.k_proj", f"{BLOCK}attn_k", _keys_shape, _permute, bias="optional", when=_attends),
        matrix(f"{LAYER}self_attn.v_proj", f"{BLOCK}attn_v", _keys_shape, bias="optional", when=_attends),
        matrix(f"{LAYER}self_attn.o_proj", f"{BLOCK}attn_output", "hidden q", bias="optional", when=_attends),
        matrix(f"{LAYER}self_attn.linear_attn", f"{BLOCK}attn_output", "hidden hidden", when=_is_linear),
        matrix(f"{LAYER}mlp.gate_proj", f"{BLOCK}ffn_gate", _rows_shape, bias="optional", when=_has_mlp),
        matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", _rows_shape, bias="optional", when=_has_mlp),
        matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", _columns_shape, bias="optional", when=_has_mlp),
    ),
    extras=llama3_frequencies,
    tokenizer=sentencepiece_or_bpe,
    pre_tokenizers=("llama-bpe",),
)
