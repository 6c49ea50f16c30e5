"""AFMoE (Trinity): gated attention, norms around both parts of a block, experts from a certain block on."""

from __future__ import annotations

from modelbuild.convert.common_keys import EXPERT_FEED_FORWARD, SLIDING_WINDOW
from modelbuild.convert.families.llama import LLAMA_KEYS
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings, head_norms
from modelbuild.convert.family import Count, Family, Number, TensorRule, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.rope import llama3_frequencies
from modelbuild.convert.tokenizers.llama import llama_tokenizer

_MLP = f"{LAYER}mlp."


def _is_dense(model: Model, block: int) -> bool:
    return block < model.config.integer("num_dense_layers", default=0)


def _is_sparse(model: Model, block: int) -> bool:
    return not _is_dense(model, block)


def _has_shared(model: Model, block: int) -> bool:
    return _is_sparse(model, block) and bool(_shared_experts(model))


def _shared_experts(model: Model) -> int:
    return model.config.integer("num_shared_experts", "expert_count", 0)


def _expert_width(model: Model) -> int:
    return model.config.integer("moe_intermediate_size", "feed_forward_length")


def _experts() -> tuple[TensorRule, ...]:
    return (
        matrix(f"{_MLP}gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
        matrix(f"{_MLP}up_proj", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
        matrix(f"{_MLP}down_proj", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
        matrix(f"{_MLP}router.gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
        exact(f"{_MLP}expert_bias", f"{BLOCK}exp_probs_b.bias", "experts", when=_is_sparse),
        matrix(f"{_MLP}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=_is_sparse),
        matrix(f"{_MLP}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=_is_sparse),
        matrix(f"{_MLP}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=_is_sparse),
        matrix(f"{_MLP}shared_experts.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=_has_shared),
        matrix(f"{_MLP}shared_experts.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_has_shared),
        matrix(f"{_MLP}shared_experts.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_has_shared),
    )


def _normalises(model: Model) -> bool | None:
    return None if model.config.get("route_norm") is None else model.config.boolean("route_norm", True)


FAMILY = Family(
    classes=("AfmoeForCausalLM",),
    architecture="afmoe",
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0},
    keys=(
        *LLAMA_KEYS,
        Count("expert_shared_count", "num_shared_experts", "expert_count"),
        EXPERT_FEED_FORWARD,
        Count("leading_dense_block_count", "num_dense_layers"),
        Value("expert_weights_norm", _normalises),
        Number("expert_weights_scale", "route_scale"),
        SLIDING_WINDOW,
    ),
    tensors=(
        *embeddings(),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm"),
        norm(f"{LAYER}pre_mlp_layernorm", f"{BLOCK}ffn_norm"),
        norm(f"{LAYER}post_mlp_layernorm", f"{BLOCK}post_ffw_norm"),
        *attention(),
        *head_norms(),
        matrix(f"{LAYER}self_attn.gate_proj", f"{BLOCK}attn_gate", "q hidden"),
        *_experts(),
    ),
    sizes={
        "expert_ff": _expert_width,
        "shared_ff": lambda model: _expert_width(model) * _shared_experts(model),
    },
    extras=llama3_frequencies,
    tokenizer=llama_tokenizer,
    pre_tokenizers=("afmoe",),
)
