"""Grok: norms around both parts of a block, capped logits; under the names of the first port and under newer ones."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings
from modelbuild.convert.family import Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.formats.gguf.writer import KeyValue, f32, string, u32

#: What the first port calls things, and the newer names.
_RENAMED = (
    ("transformer.in_out_embed.", "model.embed_tokens."),
    ("transformer.rms_norm.", "model.norm."),
    ("transformer.decoder_layer.", "model.layers."),
    (".multi_head_attention.query.", ".self_attn.q_proj."),
    (".multi_head_attention.key.", ".self_attn.k_proj."),
    (".multi_head_attention.value.", ".self_attn.v_proj."),
    (".multi_head_attention.linear.", ".self_attn.o_proj."),
    (".rms_norm.", ".pre_attn_norm."),
    (".rms_norm_1.", ".post_attn_norm."),
    (".rms_norm_2.", ".pre_moe_norm."),
    (".router.", ".block_sparse_moe.gate."),
    (".moe.", ".block_sparse_moe.experts."),
    (".linear.", ".w1."),
    (".linear_1.", ".w2."),
    (".linear_v.", ".w3."),
)
_YARN_KINDS = ("yarn", "original")  # the second is what the published model says for the first
_EXPERT = f"{LAYER}block_sparse_moe.experts.{{e}}."


def _rename(name: str, _model: Model) -> str:
    if name.startswith("transformer."):
        for old, new in _RENAMED:
            name = name.replace(old, new)
    return name


def _yarn_keys(model: Model) -> Iterable[KeyValue]:
    """Scaling of the rotary embedding, which this class keeps in the root of the configuration."""
    config, prefix = model.config, model.key("rope.scaling.")
    if config.text("rope_type") not in _YARN_KINDS:
        return
    yield string(f"{prefix}type", "yarn")
    yield f32(f"{prefix}factor", config.number("scaling_factor"))
    original = config.integer("original_max_position_embeddings", "context_length")
    yield u32(f"{prefix}original_context_length", original)
    for name, key in (
        ("yarn_ext_factor", "extrapolation_factor"),
        ("yarn_attn_factor", "attn_factor"),
        ("yarn_beta_fast", "beta_fast"),
        ("yarn_beta_slow", "beta_slow"),
    ):
        yield f32(f"{prefix}{name}", config.number(key, positive=False))


def _expert_width(model: Model) -> int | None:
    return model.config.optional_integer(("moe_intermediate_size", "intermediate_size"), "feed_forward_length")


FAMILY = Family(
    classes=("GrokForCausalLM", "Grok1ForCausalLM"),
    architecture="grok",
    defaults={"num_key_value_heads": same_heads, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
    keys=(
        *COMMON_KEYS,
        Number("attn_logit_softcapping", "attn_logit_softcapping", 30.0),
        Number("router_logit_softcapping", "router_logit_softcapping", 30.0),
        Number("final_logit_softcapping", "final_logit_softcapping"),
        EXPERT_FEED_FORWARD,
        _yarn_keys,
        Value("attention.temperature_length", lambda model: model.config.optional_integer("attn_temperature_len")),
        Value(
            "attention.output_scale",
            lambda model: model.config.number("attn_output_multiplier", model.head_dim**-0.5),
        ),
        Number("embedding_scale", "embedding_multiplier_scale"),
        Number("logit_scale", "output_multiplier_scale"),
    ),
    tensors=(
        *embeddings(output="optional"),
        norm(f"{LAYER}pre_attn_norm", f"{BLOCK}attn_norm"),
        *attention(),
        norm(f"{LAYER}post_attn_norm", f"{BLOCK}attn_output_norm"),
        norm(f"{LAYER}pre_moe_norm", f"{BLOCK}ffn_norm"),
        norm(f"{LAYER}post_moe_norm", f"{BLOCK}post_ffw_norm", unless=f"{LAYER}rms_norm_3.weight"),
        norm(f"{LAYER}rms_norm_3", f"{BLOCK}layer_output_norm", weight="optional"),
        matrix(f"{LAYER}mlp.gate_proj", f"{BLOCK}ffn_gate", "ff hidden", weight="optional"),
        matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden", weight="optional"),
        matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff", weight="optional"),
        matrix(f"{LAYER}block_sparse_moe.gate", f"{BLOCK}ffn_gate_inp", "experts hidden"),
        matrix(f"{_EXPERT}w1", f"{BLOCK}ffn_gate_exps", "expert_ff hidden"),
        matrix(f"{_EXPERT}w2", f"{BLOCK}ffn_down_exps", "hidden expert_ff"),
        matrix(f"{_EXPERT}w3", f"{BLOCK}ffn_up_exps", "expert_ff hidden"),
    ),
    rename=_rename,
    sizes={"expert_ff": _expert_width},
    tokenizer=sentencepiece_or_bpe,
    pre_tokenizers=("grok-2",),
)
