"""RWKV 7, also inside of Qwen 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

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
from modelbuild.convert.families.standard import BLOCK, transpose
from modelbuild.convert.family import (
    Family,
    KeyRule,
    Number,
    Presence,
    TensorRule,
    Transform,
    Value,
    exact,
    matrix,
    norm,
)
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.convert.tokenizers.rwkv import rwkv_world

#: A transform with one result.
OneSource = Callable[[Source, Model, int], Source]
_LAYER7 = "model.layers.{b}."
_TIME7, _CHANNEL7 = f"{_LAYER7}attention.", f"{_LAYER7}feed_forward."
_KINDS7 = "rwkvag"
_SPELLINGS = (
    ("blocks", "layers"), ("ffn", "feed_forward"), ("self_attn", "attention"), ("attn", "attention"),
    ("time_mixer.", ""), ("feed_forward_norm", "ln2"), ("g_norm", "ln_x"),
    ("attention.receptance.", "attention.r_proj."),
    ("attention.key.", "attention.k_proj."), ("attention.value.", "attention.v_proj."),
    ("attention.output.", "attention.o_proj."),
)  # fmt: skip
#: The first block mixes no values of its own: what the runtime asks for there stands in for it.
_FIRST = "first.attention."


def _rename7(name: str, _model: Model) -> str:
    """The spellings of several releases; the mixing vectors are numbered, the first block stands by itself."""
    for old, new in _SPELLINGS:
        name = name.replace(old, new)
    stem, _, kind = name.rpartition(".attention.x_")
    if stem and kind in tuple(_KINDS7):
        return f"{stem}.attention.mixed.{_KINDS7.index(kind)}"
    first = "model.layers.0.attention."
    if name.startswith((f"{first}v0", f"{first}v1", f"{first}v2", f"{first}v_lora")):
        return ""
    if name.startswith((f"{first}a0", f"{first}a1", f"{first}a2", f"{first}a_lora")):
        return name.replace(first, _FIRST)
    return name


def _has_gate(model: Model) -> bool:
    return model.config.boolean("wkv_has_gate", True)


def _count7(model: Model) -> int:
    """A vector for each kind; that of the gate is the last."""
    return len(_KINDS7) - (not _has_gate(model))


def _vector(name: str) -> Callable[[Model, int], str]:
    """A vector of the model's width, which some releases store with two axes of one before it."""

    def shape(model: Model, block: int) -> str:
        stored = model.stored.get(name.format(b=block))
        return "1 1 hidden" if stored is not None and len(stored.shape) == 3 else "hidden"

    return shape


def _width7(model: Model) -> int:
    return model.feed_forward or 4 * model.hidden


def _as_stored(source: Source, _model: Model, _block: int) -> Source:
    return source


def _twice(transform: OneSource) -> Transform:
    def both(source: Source, model: Model, block: int) -> tuple[Source, Source]:
        made = transform(source, model, block)
        return made, made

    return both


def _is_later(_model: Model, block: int) -> bool:
    return block > 0


def _low_rank(kind: str, *, bias: bool = True, first: bool = False) -> tuple[TensorRule, ...]:
    """Two narrow matrices and what is added: plain tensors with inputs as rows, or layers that stand as usual."""
    stem = f"{_FIRST if first else _TIME7}{kind}"
    when = _is_later if kind in "av" and not first else None

    def rule(
        source: str, number: int, shape: str, change: OneSource, weight: Presence = "required", unless: str = ""
    ) -> TensorRule:
        target = f"{BLOCK}time_mix_{kind}{number}.weight"
        targets = (f"blk.0.time_mix_v{number}.weight", f"blk.0.time_mix_a{number}.weight") if first else target
        made = _twice(change) if first else change
        return TensorRule(source, targets, shape, made, weight, suffixed=False, when=when, unless=unless)

    rank = f"{kind}_rank"
    rules = [
        rule(f"{stem}1", 1, f"hidden {rank}", transpose, weight="optional"),
        rule(f"{stem}_lora.lora.0.weight", 1, f"{rank} hidden", _as_stored, unless=f"{stem}1"),
        rule(f"{stem}2", 2, f"{rank} hidden", transpose, weight="optional"),
        rule(f"{stem}_lora.lora.2.weight", 2, f"hidden {rank}", _as_stored, unless=f"{stem}2"),
    ]
    if bias:
        rules += [
            rule(f"{stem}0", 0, "", flat, weight="optional"),
            rule(f"{stem}_lora.lora.2.bias", 0, "hidden", flat, unless=f"{stem}0"),
        ]
    return tuple(rules)


def _rank(keys: tuple[str, str], exponent: float, factor: float) -> Callable[[Model], int]:
    """Width of a pair of narrow matrices: given, or what the class derives from the width of the model."""

    def rank(model: Model) -> int:
        given = next((value for key in keys if (value := model.config.optional_integer(key, "embedding_length"))), None)
        return given or max(1, round(model.hidden**exponent * factor / 32)) * 32

    return rank


_RANKS = {
    "w_rank": _rank(("lora_rank_decay", "decay_low_rank_dim"), 0.5, 1.8),
    "a_rank": _rank(("lora_rank_iclr", "a_low_rank_dim"), 0.5, 1.8),
    "v_rank": _rank(("lora_rank_value_residual_mix", "v_low_rank_dim"), 0.5, 1.3),
    "g_rank": _rank(("lora_rank_gate", "gate_low_rank_dim"), 0.8, 0.6),
}


def _gates(model: Model, _block: int) -> bool:
    return _has_gate(model)


def _check_version(model: Model) -> None:
    if model.config.get("wkv_version") != 7:
        raise model.config.error("wkv_version", "7 is expected")


_HYBRID_RANKS: dict[str, Callable[[Model], int]] = {
    "w_rank": lambda _model: 64,
    "a_rank": lambda _model: 64,
    "v_rank": lambda _model: 32,
    "g_rank": lambda model: 128 if _has_gate(model) else 0,
}


def _time_keys(ranks: Mapping[str, Callable[[Model], int]]) -> tuple[KeyRule, ...]:
    return (
        Value("attention.decay_lora_rank", ranks["w_rank"]),
        Value("attention.iclr_lora_rank", ranks["a_rank"]),
        Value("attention.value_residual_mix_lora_rank", ranks["v_rank"]),
        Value("attention.gate_lora_rank", ranks["g_rank"]),
    )


_TIME_MIX7: tuple[TensorRule, ...] = (
    *_low_rank("w"),
    *_low_rank("a"),
    *_low_rank("a", first=True),
    *_low_rank("v"),
    exact(f"{_TIME7}k_k", f"{BLOCK}time_mix_k_k.weight", _vector(f"{_TIME7}k_k"), flat),
    exact(f"{_TIME7}k_a", f"{BLOCK}time_mix_k_a.weight", _vector(f"{_TIME7}k_a"), flat),
    exact(f"{_TIME7}r_k", f"{BLOCK}time_mix_r_k.weight", "wkv_heads wkv", flat),
    matrix(f"{_TIME7}r_proj", f"{BLOCK}time_mix_receptance", "hidden hidden"),
    matrix(f"{_TIME7}k_proj", f"{BLOCK}time_mix_key", "hidden hidden"),
    matrix(f"{_TIME7}v_proj", f"{BLOCK}time_mix_value", "hidden hidden"),
    matrix(f"{_TIME7}o_proj", f"{BLOCK}time_mix_output", "hidden hidden"),
)

FAMILIES = (
    Family(
        classes=("Rwkv7ForCausalLM", "RWKV7ForCausalLM"),
        architecture="rwkv7",
        keys=(
            CONTEXT,
            EMBEDDING,
            block_count,
            Number("attention.layer_norm_epsilon", ("layer_norm_epsilon", "norm_eps")),
            Value("wkv.head_size", head_size),
            *_time_keys(_RANKS),
            Value("feed_forward_length", _width7),
            file_type,
            NO_HEADS,
        ),
        tensors=(
            matrix("model.embeddings", "token_embd", "? hidden"),
            norm("model.layers.0.pre_norm", "token_embd_norm", bias="required"),
            norm("model.norm", "output_norm", bias="required"),
            matrix("lm_head", "output", "vocab hidden"),
            norm(f"{_LAYER7}attention_norm", f"{BLOCK}attn_norm", bias="required"),
            norm(f"{_LAYER7}ln2", f"{BLOCK}attn_norm_2", bias="required"),
            mixed(f"{_TIME7}mixed", _count7),
            *_TIME_MIX7,
            *_low_rank("g", bias=False),
            norm(f"{_TIME7}ln_x", f"{BLOCK}time_mix_ln", bias="required"),
            exact(f"{_CHANNEL7}x_k", f"{BLOCK}channel_mix_lerp_k.weight", _vector(f"{_CHANNEL7}x_k"), flat),
            matrix(f"{_CHANNEL7}key", f"{BLOCK}channel_mix_key", "wide hidden"),
            matrix(f"{_CHANNEL7}value", f"{BLOCK}channel_mix_value", "hidden wide"),
        ),
        rename=_rename7,
        sizes={**_RANKS, "wkv": head_size, "wkv_heads": state_heads, "wide": _width7},
        tokenizer=rwkv_world,
    ),
    Family(
        classes=("RwkvHybridForCausalLM",),
        architecture="arwkv7",
        keys=(
            CONTEXT,
            EMBEDDING,
            block_count,
            RMS_EPSILON,
            Value("wkv.head_size", head_size),
            *_time_keys(_HYBRID_RANKS),
            FEED_FORWARD,
            file_type,
            Value("token_shift_count", 1),
            NO_HEADS,
        ),
        tensors=(
            *QWEN_AROUND,
            mixed(f"{_TIME7}mixed", _count7),
            *_TIME_MIX7,
            *(replace(rule, when=_gates) for rule in _low_rank("g", bias=False)),
            norm(f"{_TIME7}ln_x", f"{BLOCK}time_mix_ln", weight="optional", bias="optional"),
        ),
        rename=_rename7,
        check=_check_version,
        sizes={**_HYBRID_RANKS, "wkv": head_size, "wkv_heads": state_heads},
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("qwen2",),
    ),
)
