"""Bailing 3 (Ling 3): a gated delta rule (KDA) in most blocks, latent attention with a gate in the others, experts."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD, VOCAB_SIZE, per_layer
from modelbuild.convert.families.deepseek import (
    LATENT_SIZES,
    key_size,
    latent_attention,
    latent_size,
    rope_size,
    value_size,
)
from modelbuild.convert.families.glm import NEXT_TOKEN_TENSORS, is_predicting, predicted_layers
from modelbuild.convert.families.kimi_linear import convolutions
from modelbuild.convert.families.mamba import as_column, negative_exponential
from modelbuild.convert.families.standard import BLOCK, LAYER
from modelbuild.convert.family import Count, Family, KeyRule, Number, TensorRule, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.value_transforms import Computed
from modelbuild.errors import UnsupportedError
from modelbuild.formats.gguf.writer import KeyValue, f32_array, i32_array

_ATTENTION, _MLP = f"{LAYER}attention.", f"{LAYER}mlp."


def _attends(model: Model, block: int) -> bool:
    """The last block of each group, those that make no whole group, and those for further tokens."""
    if model.is_of_header:
        return model.attention_of_header[block]
    group = model.config.integer("layer_group_size", "block_count")
    return block >= model.layers // group * group or (block + 1) % group == 0


def _mixes(model: Model, block: int) -> bool:
    return not _attends(model, block)


def _has_query_latent(model: Model, block: int) -> bool:
    return _attends(model, block) and model.config.get("q_lora_rank") is not None


def _has_queries(model: Model, block: int) -> bool:
    return not _has_query_latent(model, block)


def _is_dense(model: Model, block: int) -> bool:
    return block < model.config.integer("first_k_dense_replace", default=0)


def _is_sparse(model: Model, block: int) -> bool:
    return not _is_dense(model, block)


def _width(model: Model) -> int:
    return model.config.integer("head_dim", "head_dimension")


def _kernel(model: Model) -> int:
    return model.config.integer("short_conv_kernel_size", "head_dimension")


def _shared_width(model: Model) -> int | None:
    return model.config.optional_integer("moe_shared_expert_intermediate_size", "feed_forward_length")


def _queries_shape(model: Model, block: int) -> str:
    return "heads*key hidden" if _attends(model, block) else "heads*kda hidden"


def _decay(source: Source, model: Model, block: int) -> Source:
    """The decay is stored as its logarithm; the runtime takes the sign for granted."""
    return Computed(negative_exponential(as_column(source, model, block), model, block), factor=-1.0)


def _rename(name: str, model: Model) -> str:
    """One name stands for two gates: of the heads in blocks with attention, of the whole width in the others."""
    parts = name.split(".")
    if name.endswith(".attention.g_proj.weight") and parts[2].isdecimal() and _attends(model, int(parts[2])):
        return name.replace(".g_proj.", ".head_gate.")
    return name


def _check(model: Model) -> None:
    """Variants that the runtime does not compute."""
    config = model.config
    wanted = (
        ("no_kda_lora", config.get("no_kda_lora") is True),
        ("kda_safe_gate", config.get("kda_safe_gate") is True),
        ("gated_attention_proj_granularity_type", config.text("gated_attention_proj_granularity_type") == "head_wise"),
    )
    for key, holds in wanted:
        if not holds:
            message = "the runtime has no such variant of the architecture"
            raise UnsupportedError("ARCHITECTURE", message, path=config.path, key=key)


def _clamp_keys(model: Model) -> Iterable[KeyValue]:
    """Limits of the activation for each block; 0 is none."""
    for name, key in (
        ("swiglu_clamp_exp", "expert_swiglu_limit_list"),
        ("swiglu_clamp_shexp", "share_expert_swiglu_limit_list"),
    ):
        limits = model.config.get(key)
        if isinstance(limits, list):
            given = [float(limit or 0.0) for limit in limits if limit is None or type(limit) in (int, float)]
            yield f32_array(model.key(name), (given + [0.0] * model.block_count)[: model.block_count])


def _sections(model: Model) -> Iterable[KeyValue]:
    """Rotation along time, height and width, in the model that sees."""
    if "VL" not in model.hf_class:
        return
    sections = model.config.integers("mrope_section") or []
    if 2 * sum(sections[:3]) != rope_size(model):
        raise model.config.error("mrope_section", f"three numbers that sum to {rope_size(model) // 2} expected")
    yield i32_array(model.key("rope.dimension_sections"), [*sections[:3], 0])


_KEYS: tuple[KeyRule, ...] = (
    *COMMON_KEYS,
    per_layer(
        "attention.head_count_kv", lambda model: [int(_attends(model, block)) for block in range(model.block_count)]
    ),
    VOCAB_SIZE,
    Value("ssm.conv_kernel", _kernel),
    Value("kda.head_dim", _width),
    Value("kda.safe_gate", True),
    Value("kda.gate_lower_bound", lambda model: model.config.number("kda_lower_bound", positive=False)),
    Count("attention.q_lora_rank", "q_lora_rank", "embedding_length"),
    Value("attention.kv_lora_rank", latent_size),
    Value("rope.dimension_count", rope_size),
    Value("attention.key_length", lambda model: latent_size(model) + rope_size(model)),
    Value("attention.key_length_mla", lambda model: key_size(model) + rope_size(model)),
    Value("attention.value_length_mla", value_size),
    EXPERT_FEED_FORWARD,
    Value("expert_shared_feed_forward_length", _shared_width),
    Count("expert_shared_count", "num_shared_experts", "expert_count", 1),
    Count("leading_dense_block_count", "first_k_dense_replace", default=0),
    Number("expert_weights_scale", "routed_scaling_factor"),
    Value("expert_weights_norm", lambda model: model.config.boolean("norm_topk_prob", True)),
    _clamp_keys,
    Value("nextn_predict_layers", lambda model: predicted_layers(model) or None),
    _sections,
)
_DELTA_RULE: tuple[TensorRule, ...] = (
    *convolutions(_ATTENTION, _mixes),
    matrix(f"{_ATTENTION}k_proj", f"{BLOCK}attn_k", "heads*kda hidden", when=_mixes),
    matrix(f"{_ATTENTION}v_proj", f"{BLOCK}attn_v", "heads*kda hidden", when=_mixes),
    matrix(f"{_ATTENTION}f_proj", f"{BLOCK}ssm_f_a", "heads*kda hidden", when=_mixes),
    matrix(f"{_ATTENTION}b_proj", f"{BLOCK}ssm_beta", "heads hidden", when=_mixes),
    exact(f"{_ATTENTION}A_log", f"{BLOCK}ssm_a", "heads", _decay, when=_mixes),
    exact(f"{_ATTENTION}dt_bias", f"{BLOCK}ssm_dt.bias", "heads*kda", when=_mixes),
    matrix(f"{_ATTENTION}g_proj", f"{BLOCK}ssm_g_a", "heads*kda hidden", when=_mixes),
    norm(f"{_ATTENTION}o_norm", f"{BLOCK}ssm_norm", "kda", when=_mixes),
    matrix(f"{_ATTENTION}o_proj", f"{BLOCK}attn_output", "hidden heads*kda", when=_mixes),
)
_LATENT: tuple[TensorRule, ...] = (
    matrix(f"{_ATTENTION}q_proj", f"{BLOCK}attn_q", _queries_shape, when=_has_queries),
    *latent_attention(_ATTENTION, _attends, query_when=_has_query_latent),
    matrix(f"{_ATTENTION}head_gate", f"{BLOCK}attn_gate", "heads hidden", when=_attends),
    matrix(f"{_ATTENTION}dense", f"{BLOCK}attn_output", "hidden heads*value", when=_attends),
)
_EXPERTS: tuple[TensorRule, ...] = (
    matrix(f"{_MLP}gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}up_proj", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}down_proj", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
    matrix(f"{_MLP}gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
    exact(f"{_MLP}gate.expert_bias", f"{BLOCK}exp_probs_b.bias", "experts", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_experts.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_experts.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_experts.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_is_sparse),
)

FAMILY = Family(
    classes=("BailingMoeV3ForCausalLM", "BailingMoeV3VLForConditionalGeneration"),
    architecture="bailingmoe3",
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0},
    keys=_KEYS,
    tensors=(
        matrix("model.word_embeddings", "token_embd", "? hidden"),
        norm("model.norm", "output_norm"),
        matrix("lm_head", "output", "vocab hidden", weight="untied"),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm"),
        *_LATENT,
        *_DELTA_RULE,
        *_EXPERTS,
        *NEXT_TOKEN_TENSORS,
        norm(f"{LAYER}final_layernorm", f"{BLOCK}layer_output_norm", when=is_predicting),
    ),
    rename=_rename,
    drop=("linear_proj*",),
    check=_check,
    sizes={**LATENT_SIZES, "kda": _width, "kernel": _kernel, "shared_ff": _shared_width},
    block_count=lambda model: model.layers + predicted_layers(model),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("bailingmoe2",),
)
