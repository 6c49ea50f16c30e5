"""Gemma 3n and 4: embeddings of their own for each block, keys and values shared between blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

from modelbuild.convert.common_keys import COMMON_KEYS, SLIDING_WINDOW, per_layer, sliding_pattern, sliding_pattern_keys
from modelbuild.convert.config import Config, Default
from modelbuild.convert.families.gemma import gemma_tokenizer
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, gated_mlp
from modelbuild.convert.family import Count, Extra, Family, KeyRule, Number, TensorRule, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.gemma4 import gemma4_tokenizer
from modelbuild.convert.transforms import PaddedRows
from modelbuild.convert.value_transforms import constant
from modelbuild.errors import printable
from modelbuild.formats.gguf.writer import KeyValue, bool_array, f32, f32_array, i32_array, u32

_ALTUP_INPUTS = 4
#: What unrotated pairs are divided by, so that they do not turn at all.
_NO_ROTATION = 1e30


def _scale_names(name: str, _model: Model) -> str:
    return f"{name}.weight" if name.endswith("_scale") else name


def _pad(source: Source, model: Model, _block: int) -> Source:
    """Rows for tokens of pictures and sounds, whose embeddings come from elsewhere."""
    rows = model.config.integer("vocab_size", "vocab_size", 262400)
    return PaddedRows(source, rows) if source.shape[0] < rows else source


def _vocab(model: Model) -> int | None:
    """Rows after padding."""
    stored = model.embedding_rows
    return None if stored is None else max(stored, model.config.integer("vocab_size", "vocab_size", 262400))


def _per_layer_size(model: Model) -> int:
    return model.config.integer("hidden_size_per_layer_input", "feed_forward_length", 0)


def _altup_keys(model: Model) -> Iterable[KeyValue]:
    config = model.config
    inputs = config.integer("altup_num_inputs", default=_ALTUP_INPUTS)
    if inputs != _ALTUP_INPUTS:
        raise config.error("altup_num_inputs", f"{_ALTUP_INPUTS} expected, found {inputs}")
    yield u32(model.key("altup.active_idx"), config.integer("altup_active_idx", default=0))
    yield u32(model.key("altup.num_inputs"), inputs)
    yield u32(model.key("embedding_length_per_layer_input"), _per_layer_size(model))
    yield u32(model.key("attention.shared_kv_layers"), config.integer("num_kv_shared_layers", default=0))
    shares = config.numbers("activation_sparsity_pattern") or [0.0] * model.layers
    yield f32_array(model.key("activation_sparsity_scale"), [_quantile(model, share) for share in shares])


def _quantile(model: Model, share: float) -> float:
    """How many standard deviations a share of activations lies below; nothing lies below minus infinity."""
    if not 0.0 <= share < 1.0:
        raise model.config.error("activation_sparsity_pattern", f"{share} is no share")
    return NormalDist().inv_cdf(share) if share else -math.inf


def _base_keys(model: Model) -> Iterable[KeyValue]:
    yield f32(model.key("rope.freq_base"), model.rope.theta or 1e6)


def _flags(model: Model) -> list[bool]:
    flags = sliding_pattern(model)
    if flags is None:
        raise model.config.error("layer_types", "the key is missing")
    return flags


GEMMA_KEYS: tuple[KeyRule, ...] = (
    *COMMON_KEYS,
    _base_keys,
    Number("final_logit_softcapping", "final_logit_softcapping"),
    SLIDING_WINDOW,
)
_PER_LAYER = (
    matrix("model.per_layer_model_projection", "per_layer_model_proj", "layers*per_layer hidden", weight="optional"),
    norm("model.per_layer_projection_norm", "per_layer_proj_norm", "per_layer", weight="optional"),
    matrix(f"{LAYER}per_layer_input_gate", f"{BLOCK}inp_gate", "per_layer hidden", weight="optional"),
    matrix(f"{LAYER}per_layer_projection", f"{BLOCK}proj", "hidden per_layer", weight="optional"),
    norm(f"{LAYER}post_per_layer_input_norm", f"{BLOCK}post_norm", weight="optional"),
)
_NORMS = (
    norm("model.norm", "output_norm"),
    norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
    norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm"),
    norm(f"{LAYER}pre_feedforward_layernorm", f"{BLOCK}ffn_norm"),
    norm(f"{LAYER}post_feedforward_layernorm", f"{BLOCK}post_ffw_norm"),
)


def _three(_model: Model) -> int:
    return _ALTUP_INPUTS - 1


_ALTUP: tuple[TensorRule, ...] = (
    TensorRule("model.altup_projections.{e}", "altup_proj", "hidden hidden", count=_three),
    TensorRule("model.altup_unembed_projections.{e}", "altup_unembd_proj", "hidden hidden", count=_three),
    matrix(f"{LAYER}altup.correction_coefs", f"{BLOCK}altup_correct_coef", "4 4"),
    matrix(f"{LAYER}altup.correct_output_scale", f"{BLOCK}altup_correct_scale", "hidden"),
    matrix(f"{LAYER}altup.prediction_coefs", f"{BLOCK}altup_predict_coef", "16 4"),
    matrix(f"{LAYER}altup.modality_router", f"{BLOCK}altup_router", "4 hidden"),
    norm(f"{LAYER}altup.router_norm", f"{BLOCK}altup_router_norm"),
    matrix(f"{LAYER}laurel.linear_left", f"{BLOCK}laurel_l", "laurel hidden"),
    matrix(f"{LAYER}laurel.linear_right", f"{BLOCK}laurel_r", "hidden laurel"),
    norm(f"{LAYER}laurel.post_laurel_norm", f"{BLOCK}laurel_post_norm"),
)


# -- Gemma 4 -----------------------------------------------------------------------------------------------------------


def _scalar_names(name: str, _model: Model) -> str:
    return f"{name}.weight" if name.endswith(("per_dim_scale", "layer_scalar")) else name


def _wide_setting(name: str) -> Default:
    """What newer configurations say about blocks with full attention one by one; the first of them counts."""

    def value(config: Config) -> object:
        blocks, kinds = config.get("per_layer_config"), config.get("layer_types")
        if not isinstance(blocks, dict) or not isinstance(kinds, list):
            return None
        wide = [blocks.get(str(block)) for block, kind in enumerate(kinds) if kind == "full_attention"]
        return next((item[name] for item in wide if isinstance(item, dict) and name in item), None)

    return value


def _wide_dim(model: Model) -> int:
    return model.config.integer("global_head_dim", "head_dimension", 0) or model.head_dim


def _gemma4_keys(model: Model) -> Iterable[KeyValue]:
    config = model.config
    yield u32(model.key("attention.shared_kv_layers"), config.integer("num_kv_shared_layers", default=0))
    yield u32(model.key("embedding_length_per_layer_input"), _per_layer_size(model))
    yield bool_array(model.key("attention.sliding_window_pattern"), _flags(model))
    for suffix, size in (("", _wide_dim(model)), ("_swa", model.head_dim)):
        yield u32(model.key(f"attention.key_length{suffix}"), size)
        yield u32(model.key(f"attention.value_length{suffix}"), size)


def _suppressed_tokens(model: Model) -> Iterable[KeyValue]:
    """Tokens that the model with sound must never say, by the settings of its generation."""
    tokens = model.checkpoint.read_object("generation_config.json").get("suppress_tokens")
    if model.hf_class.startswith("Gemma4Unified") and isinstance(tokens, list):
        yield i32_array("tokenizer.ggml.suppress_tokens", [token for token in tokens if type(token) is int])


def _double_widths(model: Model) -> list[int] | None:
    """Blocks that share keys and values are twice as wide where the configuration says so."""
    if not model.config.boolean("use_double_wide_mlp", False):
        return None
    width = model.config.integer("intermediate_size", "feed_forward_length")
    first_shared = model.layers - model.config.integer("num_kv_shared_layers", default=0)
    return [width * (1 if block < first_shared else 2) for block in range(model.layers)]


def _kv_heads(model: Model) -> list[int] | None:
    wide = model.config.optional_integer("num_global_key_value_heads", "head_count")
    return None if wide is None else [model.kv_heads if sliding else wide for sliding in _flags(model)]


def _wide_kv_heads(model: Model) -> int:
    return model.config.optional_integer("num_global_key_value_heads", "head_count") or model.kv_heads


def _is_wide(model: Model, block: int) -> bool:
    """Does the block see everything? Its heads then have another size."""
    return not _flags(model)[block]


def _q_shape(model: Model, block: int) -> str:
    return "heads*wide hidden" if _is_wide(model, block) else "q hidden"


def _kv_shape(model: Model, block: int) -> str:
    return "wide_kv*wide hidden" if _is_wide(model, block) else "kv hidden"


def _output_shape(model: Model, block: int) -> str:
    return "hidden heads*wide" if _is_wide(model, block) else "hidden q"


def _norm_shape(model: Model, block: int) -> str:
    return "wide" if _is_wide(model, block) else "head"


def _wide_shape(model: Model, block: int) -> str:
    widths = _double_widths(model)
    return f"{widths[block]} hidden" if widths else "ff hidden"


def _narrow_shape(model: Model, block: int) -> str:
    widths = _double_widths(model)
    return f"hidden {widths[block]}" if widths else "hidden ff"


def _rotary_keys(model: Model) -> Iterable[KeyValue]:
    yield u32(model.key("rope.dimension_count"), _wide_dim(model))
    yield u32(model.key("rope.dimension_count_swa"), model.head_dim)


def _proportional_frequencies(model: Model) -> Extra:
    """Full-attention blocks rotate some pairs only, which the runtime can be told by frequencies of nothing."""
    if model.rope.kind != "proportional":
        found = printable(model.rope.kind or "nothing")
        raise model.rope.full.error("rope_type", f"proportional expected for full attention, found {found}")
    half = _wide_dim(model) // 2
    rotated = int(_wide_dim(model) * model.rope.full.number("partial_rotary_factor", 0.25) / 2)
    return Extra(tensors=(("rope_freqs.weight", constant([1.0] * rotated + [_NO_ROTATION] * (half - rotated))),))


_GEMMA4_DEFAULTS: dict[str, Default] = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "sliding_window": 512,
    "tie_word_embeddings": True,
    "global_head_dim": _wide_setting("head_dim"),
    "num_global_key_value_heads": _wide_setting("num_key_value_heads"),
}

FAMILIES = (
    Family(
        classes=("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
        architecture="gemma3n",
        defaults={
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "rope_local_base_freq": 10000.0,
            "sliding_window": 512,
            "final_logit_softcapping": 30.0,
            "hidden_size_per_layer_input": 256,
            "num_kv_shared_layers": 15,
        },
        keys=(*GEMMA_KEYS, _altup_keys, sliding_pattern_keys),
        tensors=(
            matrix("model.embed_tokens", "token_embd", "? hidden", _pad),
            matrix("model.embed_tokens_per_layer", "per_layer_token_embd", "? layers*per_layer", _pad),
            *_NORMS,
            *_PER_LAYER,
            *attention(),
            norm(f"{LAYER}self_attn.q_norm", f"{BLOCK}attn_q_norm", "head"),
            norm(f"{LAYER}self_attn.k_norm", f"{BLOCK}attn_k_norm", "head"),
            *gated_mlp(),
            *_ALTUP,
        ),
        sizes={
            "vocab": _vocab,
            "per_layer": _per_layer_size,
            "laurel": lambda model: model.config.optional_integer("laurel_rank", "embedding_length"),
        },
        drop=("lm_head.weight",),
        rename=_scale_names,
        tokenizer=gemma_tokenizer,
    ),
    Family(
        classes=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration"),
        architecture="gemma4",
        defaults=_GEMMA4_DEFAULTS,
        keys=(
            *GEMMA_KEYS,
            _gemma4_keys,
            Count(
                "expert_feed_forward_length",
                ("expert_intermediate_size", "moe_intermediate_size"),
                "feed_forward_length",
            ),
            per_layer("feed_forward_length", _double_widths),
            per_layer("attention.head_count_kv", _kv_heads),
            _rotary_keys,
            _suppressed_tokens,
        ),
        tensors=(
            matrix("model.embed_tokens", "token_embd", "? hidden"),
            matrix("model.embed_tokens_per_layer", "per_layer_token_embd", "? layers*per_layer", weight="optional"),
            *_NORMS,
            *_PER_LAYER,
            matrix(f"{LAYER}self_attn.q_proj", f"{BLOCK}attn_q", _q_shape),
            matrix(f"{LAYER}self_attn.k_proj", f"{BLOCK}attn_k", _kv_shape, weight="optional"),
            matrix(f"{LAYER}self_attn.v_proj", f"{BLOCK}attn_v", _kv_shape, weight="optional"),
            matrix(f"{LAYER}self_attn.o_proj", f"{BLOCK}attn_output", _output_shape),
            norm(f"{LAYER}self_attn.q_norm", f"{BLOCK}attn_q_norm", _norm_shape),
            norm(f"{LAYER}self_attn.k_norm", f"{BLOCK}attn_k_norm", _norm_shape, weight="optional"),
            matrix(f"{LAYER}mlp.gate_proj", f"{BLOCK}ffn_gate", _wide_shape),
            matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", _wide_shape),
            matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", _narrow_shape),
            matrix(f"{LAYER}layer_scalar", f"{BLOCK}layer_output_scale", "1", weight="optional"),
            matrix(f"{LAYER}router.proj", f"{BLOCK}ffn_gate_inp", "experts hidden", weight="optional"),
            exact(f"{LAYER}router.scale", f"{BLOCK}ffn_gate_inp.scale", "hidden", presence="optional"),
            exact(f"{LAYER}router.per_expert_scale", f"{BLOCK}ffn_down_exps.scale", "experts", presence="optional"),
            exact(
                f"{LAYER}experts.gate_up_proj",
                f"{BLOCK}ffn_gate_up_exps.weight",
                "experts ? hidden",
                presence="optional",
            ),
            exact(f"{LAYER}experts.down_proj", f"{BLOCK}ffn_down_exps.weight", "experts hidden ?", presence="optional"),
            norm(f"{LAYER}pre_feedforward_layernorm_2", f"{BLOCK}pre_ffw_norm_2", weight="optional"),
            norm(f"{LAYER}post_feedforward_layernorm_1", f"{BLOCK}post_ffw_norm_1", weight="optional"),
            norm(f"{LAYER}post_feedforward_layernorm_2", f"{BLOCK}post_ffw_norm_2", weight="optional"),
        ),
        sizes={"per_layer": _per_layer_size, "wide": _wide_dim, "wide_kv": _wide_kv_heads},
        drop=("lm_head.weight",),
        rename=_scalar_names,
        extras=_proportional_frequencies,
        tokenizer=gemma4_tokenizer,
    ),
)
