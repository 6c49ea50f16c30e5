"""Hunyuan 3 (Hy3): Qwen3's attention, experts chosen by sigmoid with a correction, blocks for further tokens."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD
from modelbuild.convert.families.glm import NEXT_TOKEN_TENSORS, predicted_layers
from modelbuild.convert.families.qwen import QWEN3_ATTENTION
from modelbuild.convert.families.standard import BLOCK, LAYER, block_norms, embeddings
from modelbuild.convert.family import Family, Number, TensorRule, Value, exact, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe

_MLP = f"{LAYER}mlp."
_SIGMOID = 2


def _rename(name: str, model: Model) -> str:
    """The norm after a block for further tokens goes before the output."""
    parts = name.split(".")
    if name.startswith("model.layers.") and parts[2].isdecimal() and int(parts[2]) >= model.layers:
        return name.replace(".final_layernorm.", ".shared_head.norm.")
    return name


def _first_experts(model: Model) -> int:
    return model.config.integer("first_k_dense_replace", default=0)


def _is_dense(model: Model, block: int) -> bool:
    return block < _first_experts(model)


def _is_sparse(model: Model, block: int) -> bool:
    return not _is_dense(model, block)


def _expert_width(model: Model) -> int:
    return model.config.integer("moe_intermediate_size", "feed_forward_length")


def _shared_width(model: Model) -> int:
    return _expert_width(model) * model.config.integer("num_shared_experts", "expert_count", 1)


_EXPERTS: tuple[TensorRule, ...] = (
    matrix(f"{_MLP}gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}up_proj", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}down_proj", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
    matrix(f"{_MLP}router.gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
    exact(f"{_MLP}expert_bias", f"{BLOCK}exp_probs_b", "experts", presence="optional", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_mlp.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_mlp.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_mlp.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_is_sparse),
)

FAMILY = Family(
    classes=("HYV3ForCausalLM",),
    architecture="hy_v3",
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0},
    keys=(
        *COMMON_KEYS,
        EXPERT_FEED_FORWARD,
        Value("expert_shared_feed_forward_length", _shared_width),
        Value("expert_weights_norm", lambda model: model.config.boolean("route_norm", True)),
        Number("expert_weights_scale", "router_scaling_factor", 1.0),
        Value("expert_gating_func", _SIGMOID),
        Value("nextn_predict_layers", lambda model: predicted_layers(model) or None),
    ),
    tensors=(*embeddings(), *block_norms(), *QWEN3_ATTENTION, *_EXPERTS, *NEXT_TOKEN_TENSORS),
    rename=_rename,
    sizes={"expert_ff": _expert_width, "shared_ff": _shared_width},
    block_count=lambda model: model.layers + predicted_layers(model),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("hunyuan-dense",),
)
