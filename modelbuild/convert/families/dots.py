"""dots.llm1: experts as DeepSeek's, attention as Qwen3's."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD
from modelbuild.convert.families.deepseek import DEEPSEEK_EXPERT_SIZES, DEEPSEEK_EXPERTS, first_experts
from modelbuild.convert.families.qwen import QWEN3_ATTENTION
from modelbuild.convert.families.standard import block_norms, embeddings
from modelbuild.convert.family import Count, Family, Number, Value
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe

FAMILY = Family(
    classes=("Dots1ForCausalLM",),
    architecture="dots1",
    defaults={
        "num_key_value_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 0,
        "routed_scaling_factor": 1.0,
    },
    keys=(
        *COMMON_KEYS,
        EXPERT_FEED_FORWARD,
        Value("leading_dense_block_count", first_experts),
        Count("expert_shared_count", "n_shared_experts", "expert_count"),
        Number("expert_weights_scale", "routed_scaling_factor"),
        Value("expert_weights_norm", lambda model: model.config.boolean("norm_topk_prob", False)),
    ),
    tensors=(*embeddings(), *block_norms(), *QWEN3_ATTENTION, *DEEPSEEK_EXPERTS),
    sizes=DEEPSEEK_EXPERT_SIZES,
    tokenizer=sentencepiece_or_bpe,
    pre_tokenizers=("qwen2",),
)
