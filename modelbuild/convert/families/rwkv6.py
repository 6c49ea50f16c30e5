"""RWKV 6, also inside of Qwen 2."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import EMBEDDING, FEED_FORWARD, RMS_EPSILON, block_count, file_type
from modelbuild.convert.families.rwkv_state import (
    CONTEXT,
    NO_HEADS,
    QWEN_AROUND,
    flat,
    head_size,
    mixed,
    state_heads,
)
from modelbuild.convert.families.standard import BLOCK, LAYER, transpose
from modelbuild.convert.family import Family, Number, TensorRule, Transform, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.convert.tokenizers.rwkv import rwkv_world
from modelbuild.convert.transforms import Transposed, concatenate, take_rows
from modelbuild.convert.value_transforms import Computed
from modelbuild.formats.gguf.writer import KeyValue, u32

_WIDE = 4096
_LAYER6 = "rwkv.blocks.{b}."
_TIME6, _CHANNEL6 = f"{_LAYER6}attention.", f"{_LAYER6}feed_forward."
#: The order in which the runtime wants the vectors.
_KINDS6 = "wkvrg"


def _rename6(name: str, _model: Model) -> str:
    stem, _, kind = name.rpartition(".time_maa_")
    attends = stem.endswith((".attention", ".self_attn"))
    return f"{stem}.mixed.{_KINDS6.index(kind)}" if attends and kind in tuple(_KINDS6) else name


def _count6(_model: Model) -> int:
    return len(_KINDS6)


def _extra_size(model: Model) -> int:
    return 64 if model.hidden == _WIDE else 32


def _decay_size(model: Model) -> int:
    return 128 if model.hidden == _WIDE else 64


def _width6(model: Model) -> int:
    return model.feed_forward or int(model.hidden * 3.5) // 32 * 32


def _rescaled(source: Source, model: Model, block: int) -> Source:
    """Every few blocks values are halved, so that half precision holds them; the runtime halves the stream as well."""
    every = model.config.integer("rescale_every", "block_count", 4096)
    return Computed(source, factor=0.5 ** (block // every)) if block >= every else source


def _rescale_key(model: Model) -> Iterable[KeyValue]:
    yield u32(model.key("rescale_every_n_layers"), model.config.integer("rescale_every", default=0))


def _mixing(stem: str, change: Transform) -> tuple[TensorRule, ...]:
    """How inputs are mixed with the token before, and how fast the state fades."""
    return (
        mixed(f"{stem}mixed", _count6),
        exact(f"{stem}time_maa_x", f"{BLOCK}time_mix_lerp_x.weight", "1 1 hidden", flat),
        exact(f"{stem}time_maa_w1", f"{BLOCK}time_mix_w1.weight", "hidden 5*extra", change),
        exact(f"{stem}time_maa_w2", f"{BLOCK}time_mix_w2.weight", "5 extra hidden", change),
        exact(f"{stem}time_decay", f"{BLOCK}time_mix_decay.weight", "1 1 hidden", flat),
        exact(f"{stem}time_decay_w1", f"{BLOCK}time_mix_decay_w1.weight", "hidden decay", transpose),
        exact(f"{stem}time_decay_w2", f"{BLOCK}time_mix_decay_w2.weight", "decay hidden", transpose),
    )


# -- inside of Qwen 2 --------------------------------------------------------------------------------------------------

_ATTENTION = f"{LAYER}self_attn."
#: Where the vectors of RWKV 6 stand in these models, by their order in the runtime.
_PLACES = (3, 1, 2, 0, 4)


def _shift_size(model: Model) -> int:
    return model.config.integer("lora_rank_tokenshift", "embedding_length", 64 if model.hidden >= _WIDE else 32)


def _hybrid_decay_size(model: Model) -> int:
    return model.config.integer("lora_rank_decay", "embedding_length", 128 if model.hidden >= _WIDE else 64)


def _reordered(source: Source, _model: Model, _block: int) -> Source:
    """Transposed, and the part of each vector in the order of the runtime."""
    turned = Transposed(source)
    rows = turned.shape[0] // len(_PLACES)
    return concatenate(tuple(take_rows(turned, place * rows, (place + 1) * rows) for place in _PLACES))


FAMILIES = (
    Family(
        classes=("Rwkv6ForCausalLM",),
        architecture="rwkv6",
        defaults={"layer_norm_epsilon": 1e-5},
        keys=(
            CONTEXT,
            EMBEDDING,
            block_count,
            Number("attention.layer_norm_epsilon", "layer_norm_epsilon"),
            _rescale_key,
            Value("wkv.head_size", head_size),
            Value("time_mix_extra_dim", _extra_size),
            Value("time_decay_extra_dim", _decay_size),
            Value("feed_forward_length", _width6),
            file_type,
            NO_HEADS,
        ),
        tensors=(
            matrix("rwkv.embeddings", "token_embd", "? hidden"),
            norm("rwkv.blocks.0.pre_ln", "token_embd_norm", bias="required"),
            norm("rwkv.ln_out", "output_norm", bias="required"),
            matrix("head", "output", "vocab hidden"),
            norm(f"{_LAYER6}ln1", f"{BLOCK}attn_norm", bias="required"),
            norm(f"{_LAYER6}ln2", f"{BLOCK}attn_norm_2", bias="required"),
            *_mixing(_TIME6, transpose),
            exact(f"{_TIME6}time_faaaa", f"{BLOCK}time_mix_first.weight", "wkv_heads wkv"),
            matrix(f"{_TIME6}key", f"{BLOCK}time_mix_key", "hidden hidden"),
            matrix(f"{_TIME6}value", f"{BLOCK}time_mix_value", "hidden hidden"),
            matrix(f"{_TIME6}receptance", f"{BLOCK}time_mix_receptance", "hidden hidden"),
            matrix(f"{_TIME6}gate", f"{BLOCK}time_mix_gate", "hidden hidden"),
            matrix(f"{_TIME6}output", f"{BLOCK}time_mix_output", "hidden hidden", _rescaled),
            norm(f"{_TIME6}ln_x", f"{BLOCK}time_mix_ln", bias="required"),
            exact(f"{_CHANNEL6}time_maa_k", f"{BLOCK}channel_mix_lerp_k.weight", "1 1 hidden", flat),
            exact(f"{_CHANNEL6}time_maa_r", f"{BLOCK}channel_mix_lerp_r.weight", "1 1 hidden", flat),
            matrix(f"{_CHANNEL6}key", f"{BLOCK}channel_mix_key", "wide hidden"),
            matrix(f"{_CHANNEL6}receptance", f"{BLOCK}channel_mix_receptance", "hidden hidden"),
            matrix(f"{_CHANNEL6}value", f"{BLOCK}channel_mix_value", "hidden wide", _rescaled),
        ),
        rename=_rename6,
        sizes={
            "extra": _extra_size,
            "decay": _decay_size,
            "wkv": head_size,
            "wide": _width6,
            "wkv_heads": state_heads,
        },
        tokenizer=rwkv_world,
    ),
    Family(
        classes=("RWKV6Qwen2ForCausalLM",),
        architecture="rwkv6qwen2",
        keys=(
            CONTEXT,
            EMBEDDING,
            block_count,
            Value("wkv.head_size", lambda model: model.hidden // model.heads),
            Value("time_mix_extra_dim", _shift_size),
            Value("time_decay_extra_dim", _hybrid_decay_size),
            FEED_FORWARD,
            file_type,
            RMS_EPSILON,
            Value("token_shift_count", 1),
            Value("attention.head_count_kv", lambda model: model.kv_heads),
            NO_HEADS,
        ),
        tensors=(
            *QWEN_AROUND,
            *_mixing(_ATTENTION, _reordered),
            matrix(f"{_ATTENTION}q_proj", f"{BLOCK}time_mix_receptance", "hidden hidden", bias="optional"),
            matrix(f"{_ATTENTION}k_proj", f"{BLOCK}time_mix_key", "kv hidden", bias="optional"),
            matrix(f"{_ATTENTION}v_proj", f"{BLOCK}time_mix_value", "kv hidden", bias="optional"),
            matrix(f"{_ATTENTION}gate", f"{BLOCK}time_mix_gate", "hidden hidden"),
            matrix(f"{_ATTENTION}o_proj", f"{BLOCK}time_mix_output", "hidden hidden"),
        ),
        rename=_rename6,
        sizes={"extra": _shift_size, "decay": _hybrid_decay_size},
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("qwen2",),
    ),
)
