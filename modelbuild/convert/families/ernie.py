"""ERNIE 4.5, dense and with experts; heads are stored in rotary pairs, as the runtime turns them."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.config import Default
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, block_norms, embeddings, gated_mlp, halve_rows
from modelbuild.convert.family import Count, Family, TensorRule, Value, exact, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.sentencepiece import sentencepiece
from modelbuild.convert.transforms import take_rows
from modelbuild.formats.gguf.writer import KeyValue, boolean

_DEFAULTS: dict[str, Default] = {
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}
_MLP = f"{LAYER}mlp."


def _rename(name: str, _model: Model) -> str:
    return name.replace("ernie.", "model.")


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    yield from sentencepiece(model)
    prefix = model.tokenizer_files.config.get("add_prefix_space")
    if isinstance(prefix, bool):
        yield boolean("tokenizer.ggml.add_space_prefix", prefix)


def _split_heads(source: Source, model: Model, _block: int) -> tuple[Source, ...]:
    q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
    return (
        take_rows(source, 0, q),
        take_rows(source, q, q + kv),
        take_rows(source, q + kv, q + 2 * kv),
    )


def _is_sparse(model: Model, block: int) -> bool:
    first = model.config.integer("moe_layer_start_index", default=1)
    last = model.config.optional_integer("moe_layer_end_index")
    step = model.config.integer("moe_layer_interval", default=1) or 1
    return (block + 1) % step == 0 and first <= block <= (model.layers - 1 if last in (None, _NO_END) else last)


def _is_dense(model: Model, block: int) -> bool:
    return not _is_sparse(model, block)


_NO_END = (1 << 32) - 1


def _experts(model: Model) -> int:
    return model.config.integer(("moe_num_experts", *names.EXPERT_COUNT), "expert_count", 64)


def _expert_width(model: Model) -> int:
    return model.config.integer("moe_intermediate_size", "feed_forward_length", 1536)


def _shared_experts(model: Model) -> int:
    return model.config.integer("moe_num_shared_experts", "expert_count", 2)


def _shared_width(model: Model) -> int | None:
    return _expert_width(model) * _shared_experts(model) or None


_DENSE: tuple[TensorRule, ...] = (
    *embeddings(),
    *block_norms(),
    *attention(bias="optional"),
)
_FUSED: tuple[TensorRule, ...] = (
    matrix(
        f"{LAYER}self_attn.qkv_proj",
        (f"{BLOCK}attn_q", f"{BLOCK}attn_k", f"{BLOCK}attn_v"),
        "q+2*kv hidden",
        _split_heads,
        weight="optional",
    ),
    matrix(f"{_MLP}up_gate_proj", (f"{BLOCK}ffn_gate", f"{BLOCK}ffn_up"), "2*ff hidden", halve_rows, weight="optional"),
)
_SPARSE: tuple[TensorRule, ...] = (
    matrix(f"{_MLP}gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}up_proj", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}down_proj", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
    matrix(f"{_MLP}gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
    exact(
        f"{_MLP}moe_statics.e_score_correction.bias",
        f"{BLOCK}exp_probs_b.bias",
        "1 experts",
        presence="optional",
        when=_is_sparse,
    ),
    TensorRule(
        f"{_MLP}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=_is_sparse, count=_experts
    ),
    TensorRule(
        f"{_MLP}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=_is_sparse, count=_experts
    ),
    TensorRule(
        f"{_MLP}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=_is_sparse, count=_experts
    ),
    matrix(
        f"{_MLP}shared_experts.gate_proj",
        f"{BLOCK}ffn_gate_shexp",
        "shared_ff hidden",
        weight="optional",
        when=_is_sparse,
    ),
    matrix(
        f"{_MLP}shared_experts.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", weight="optional", when=_is_sparse
    ),
    matrix(
        f"{_MLP}shared_experts.down_proj",
        f"{BLOCK}ffn_down_shexp",
        "hidden shared_ff",
        weight="optional",
        when=_is_sparse,
    ),
)


def _dense(classes: tuple[str, ...], architecture: str, defaults: dict[str, Default]) -> Family:
    return Family(
        classes=classes,
        architecture=architecture,
        defaults=defaults,
        keys=COMMON_KEYS,
        tensors=(*_DENSE, *gated_mlp(bias="optional")),
        rename=_rename,
        tokenizer=_tokenizer,
    )


FAMILIES = (
    _dense(("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"), "ernie4_5", {**_DEFAULTS, "num_key_value_heads": 2}),
    _dense(("PaddleOCRVLForConditionalGeneration",), "paddleocr", _DEFAULTS),
    Family(
        classes=("Ernie4_5_MoeForCausalLM",),
        architecture="ernie4_5-moe",
        defaults={**_DEFAULTS, "num_key_value_heads": 4, "head_dim": None},
        keys=(
            *COMMON_KEYS,
            Value("expert_count", _experts),
            Count("expert_used_count", "moe_k", "expert_count", 6),
            Count("interleave_moe_layer_step", "moe_layer_interval", default=1),
            Count("leading_dense_block_count", "moe_layer_start_index", default=1),
            Value("expert_feed_forward_length", _expert_width),
            Value("expert_shared_count", _shared_experts),
            Value("expert_shared_feed_forward_length", _shared_width),
        ),
        tensors=(*_DENSE, *_SPARSE),
        sizes={
            "experts": _experts,
            "expert_ff": _expert_width,
            "shared_ff": _shared_width,
        },
        rename=_rename,
        drop=("model.mtp_*",),
        tokenizer=_tokenizer,
    ),
)
