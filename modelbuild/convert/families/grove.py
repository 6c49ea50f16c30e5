"""GroveMoE: Qwen3's experts and, beside each group of two, a smaller one that they share."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD
from modelbuild.convert.families.qwen import QWEN3_ATTENTION, QWEN_DEFAULTS, expert_sizes
from modelbuild.convert.families.standard import BLOCK, LAYER, block_norms, embeddings
from modelbuild.convert.family import Family, TensorRule, Value, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe

_MLP = f"{LAYER}mlp."
#: Constants of the published model's code; config.json has none of them.
_PER_GROUP, _GROUP_SCALE = 2, 0.05


def _groups(model: Model) -> int:
    return model.experts // _PER_GROUP


def _chunk_width(model: Model) -> int:
    """Width of a shared small expert: that of a head."""
    return model.config.integer("head_dim", "head_dimension", 128)


FAMILY = Family(
    classes=("GroveMoeForCausalLM", "modeling_grove_moe.GroveMoeForCausalLM"),
    architecture="grovemoe",
    defaults={**QWEN_DEFAULTS, "num_key_value_heads": 4},
    keys=(
        *COMMON_KEYS,
        EXPERT_FEED_FORWARD,
        Value("expert_chunk_feed_forward_length", _chunk_width),
        Value("experts_per_group", _PER_GROUP),
        Value("expert_group_scale", _GROUP_SCALE),
    ),
    tensors=(
        *embeddings(),
        *block_norms(),
        *QWEN3_ATTENTION,
        matrix(f"{_MLP}gate", f"{BLOCK}ffn_gate_inp", "experts hidden"),
        matrix(f"{_MLP}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff"),
        matrix(f"{_MLP}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden"),
        matrix(f"{_MLP}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden"),
        TensorRule(f"{_MLP}chunk_experts.{{e}}.down_proj", f"{BLOCK}ffn_down_chexps", "hidden chunk", count=_groups),
        TensorRule(f"{_MLP}chunk_experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_chexps", "chunk hidden", count=_groups),
        TensorRule(f"{_MLP}chunk_experts.{{e}}.up_proj", f"{BLOCK}ffn_up_chexps", "chunk hidden", count=_groups),
    ),
    drop=("model.layers.*.expert_bias",),
    sizes={"expert_ff": expert_sizes, "chunk": _chunk_width},
    tokenizer=byte_level_bpe,
    pre_tokenizers=("qwen2",),
)
