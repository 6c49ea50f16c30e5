"""Kimi Linear: blocks with a delta rule gated by channel (KDA) among blocks with latent attention, and experts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD, VOCAB_SIZE, per_layer
from modelbuild.convert.config import Config
from modelbuild.convert.families.deepseek import (
    LATENT_SIZES,
    key_size,
    kimi_tokenizer,
    latent_attention,
    latent_size,
    rope_size,
    value_size,
)
from modelbuild.convert.families.mamba import negative_exponential
from modelbuild.convert.families.standard import BLOCK, LAYER, block_norms, embeddings
from modelbuild.convert.family import Count, Family, Number, TensorRule, Transform, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.files import content_of
from modelbuild.convert.tokenizers.ranks import KIMI_RANKS
from modelbuild.convert.transforms import Reshaped
from modelbuild.formats.gguf.writer import KeyValue, u32

_ATTENTION, _MLP, _MOE = f"{LAYER}self_attn.", f"{LAYER}mlp.", f"{LAYER}block_sparse_moe."


def _linear(model: Model) -> Config:
    section = model.config.section("linear_attn_config")
    if section is None:
        raise model.config.error("linear_attn_config", "the key is missing")
    return section


def _full_blocks(model: Model) -> Sequence[int]:
    """Blocks with latent attention, which the configuration counts from one."""
    if model.is_of_header:
        return [number for number, attends in enumerate(model.attention_of_header) if attends]
    return [number - 1 for number in _linear(model).integers("full_attn_layers") or []]


def _attends(model: Model, block: int) -> bool:
    return block in _full_blocks(model)


def _mixes(model: Model, block: int) -> bool:
    return not _attends(model, block)


def _has_query_latent(model: Model, block: int) -> bool:
    return _attends(model, block) and model.config.get("q_lora_rank") is not None


def _has_queries(model: Model, block: int) -> bool:
    return not _has_query_latent(model, block)


def _width(model: Model) -> int:
    """Width of a head of the delta rule."""
    return _linear(model).integer("head_dim", "head_dimension")


def _kernel(model: Model) -> int:
    return _linear(model).integer("short_conv_kernel_size", "head_dimension")


def _first_experts(model: Model) -> int:
    return model.config.integer("first_k_dense_replace", default=0)


def _is_dense(model: Model, block: int) -> bool:
    return block < _first_experts(model)


def _is_sparse(model: Model, block: int) -> bool:
    return not _is_dense(model, block)


def _shared_width(model: Model) -> int:
    return model.config.integer("moe_intermediate_size", "feed_forward_length") * model.config.integer(
        "num_shared_experts", "expert_count", 1
    )


def _four_axes(source: Source, _model: Model, _block: int) -> Source:
    """Kernels of a convolution by channel, as the runtime wants them."""
    return Reshaped(source, (1, source.shape[0], 1, source.shape[-1]))


def convolutions(attention: str, when: Callable[[Model, int], bool]) -> tuple[TensorRule, ...]:
    """Of queries, keys and values, before the delta rule."""
    return tuple(
        exact(
            f"{attention}{name}_conv1d.weight",
            f"{BLOCK}ssm_conv1d_{name}.weight",
            "heads*kda 1 kernel",
            _four_axes,
            when=when,
        )
        for name in ("q", "k", "v")
    )


def delta_rule(attention: str, when: Callable[[Model, int], bool], decay: Transform) -> tuple[TensorRule, ...]:
    """What a block with the delta rule has beside queries, keys, values and output; gates are two narrow matrices."""
    return (
        *convolutions(attention, when),
        matrix(f"{attention}f_a_proj", f"{BLOCK}ssm_f_a", "kda hidden", when=when),
        matrix(f"{attention}f_b_proj", f"{BLOCK}ssm_f_b", "heads*kda kda", when=when),
        matrix(f"{attention}b_proj", f"{BLOCK}ssm_beta", "heads hidden", when=when),
        exact(f"{attention}A_log", f"{BLOCK}ssm_a", "1 1 heads 1", decay, when=when),
        exact(f"{attention}dt_bias", f"{BLOCK}ssm_dt.bias", "heads*kda", when=when),
        matrix(f"{attention}g_a_proj", f"{BLOCK}ssm_g_a", "kda hidden", when=when),
        matrix(f"{attention}g_b_proj", f"{BLOCK}ssm_g_b", "heads*kda kda", when=when),
        norm(f"{attention}o_norm", f"{BLOCK}ssm_norm", "kda", when=when),
    )


def _queries_shape(model: Model, block: int) -> str:
    return "heads*key hidden" if _attends(model, block) else "heads*kda hidden"


def _output_shape(model: Model, block: int) -> str:
    return "hidden heads*value" if _attends(model, block) else "hidden heads*kda"


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    """Beside a rank list, the last token is the one that the tokenizer's settings name, whatever config.json says."""
    yield from kimi_tokenizer(model)
    config = model.tokenizer_files.config
    decoder, wanted = config.get("added_tokens_decoder"), content_of(config.get("eos_token"))
    if not model.checkpoint.has(KIMI_RANKS) or wanted is None:
        return
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        if content_of(entry) == wanted and key.isascii() and key.isdecimal():
            yield u32("tokenizer.ggml.eos_token_id", int(key[:10]))


_LATENT = latent_attention(_ATTENTION, _attends, query_when=_has_query_latent)
_BOTH: tuple[TensorRule, ...] = (
    matrix(f"{_ATTENTION}q_proj", f"{BLOCK}attn_q", _queries_shape, when=_has_queries),
    matrix(f"{_ATTENTION}k_proj", f"{BLOCK}attn_k", "heads*kda hidden", when=_mixes),
    matrix(f"{_ATTENTION}v_proj", f"{BLOCK}attn_v", "heads*kda hidden", when=_mixes),
    matrix(f"{_ATTENTION}o_proj", f"{BLOCK}attn_output", _output_shape),
)
_EXPERTS: tuple[TensorRule, ...] = (
    matrix(f"{_MLP}gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}up_proj", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}down_proj", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
    matrix(f"{_MOE}gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
    exact(f"{_MOE}gate.e_score_correction.bias", f"{BLOCK}exp_probs_b.bias", "experts", when=_is_sparse),
    matrix(f"{_MOE}experts.{{e}}.w1", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=_is_sparse),
    matrix(f"{_MOE}experts.{{e}}.w2", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=_is_sparse),
    matrix(f"{_MOE}experts.{{e}}.w3", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=_is_sparse),
    matrix(f"{_MOE}shared_experts.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_MOE}shared_experts.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_MOE}shared_experts.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_is_sparse),
)

FAMILY = Family(
    classes=("KimiLinearForCausalLM", "KimiLinearModel"),
    architecture="kimi-linear",
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "first_k_dense_replace": 0},
    keys=(
        *COMMON_KEYS,
        VOCAB_SIZE,
        per_layer(
            "attention.head_count_kv",
            lambda model: [int(_attends(model, block)) for block in range(model.layers)],
        ),
        Value("ssm.conv_kernel", _kernel),
        Value("kda.head_dim", _width),
        Count("attention.q_lora_rank", "q_lora_rank", "embedding_length"),
        Value("attention.kv_lora_rank", latent_size),
        Value("rope.dimension_count", rope_size),
        Value("attention.key_length", lambda model: latent_size(model) + rope_size(model)),
        Value("attention.key_length_mla", lambda model: key_size(model) + rope_size(model)),
        Value("attention.value_length_mla", value_size),
        EXPERT_FEED_FORWARD,
        Count("expert_shared_count", "num_shared_experts", "expert_count"),
        Value("leading_dense_block_count", _first_experts),
        Number("expert_weights_scale", "routed_scaling_factor"),
    ),
    tensors=(
        *embeddings(),
        *block_norms(),
        *_BOTH,
        *delta_rule(_ATTENTION, _mixes, negative_exponential),
        *_LATENT,
        *_EXPERTS,
    ),
    sizes={**LATENT_SIZES, "kda": _width, "kernel": _kernel, "shared_ff": _shared_width},
    tokenizer=_tokenizer,
    pre_tokenizers=("kimi-k2",),
)
