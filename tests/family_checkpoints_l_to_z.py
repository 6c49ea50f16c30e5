"""What the classes with names from KimiVL to Youtu need beyond the base of `family_checkpoints`."""

from __future__ import annotations

from collections.abc import Mapping

_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_DEEP = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
}
_LATENT = {"kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
_RMS = {"rms_norm_eps": 1e-5, "rope_theta": 1e4}
_LFM2 = {
    "norm_eps": 1e-5,
    "rope_theta": 1e6,
    "conv_L_cache": 3,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 256,
    "layer_types": ["conv", "full_attention"],
    "block_auto_adjust_ff_dim": False,
    "block_ff_dim": 96,
}
_LINEAR = {
    "head_dim": 16,
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": [*["linear_attention"] * 3, "full_attention"],
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.5,
        "mrope_section": [1, 2, 1],
    },
}

CONFIGS: Mapping[str, Mapping[str, object]] = {
    "KimiVLForConditionalGeneration": {**_DEEP, **_LATENT, **_RMS, "q_lora_rank": 24, "num_key_value_heads": 4},
    "YoutuForCausalLM": {**_LATENT, **_RMS, "q_lora_rank": 24, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "Lfm2Model": _LFM2,
    "Lfm2BidirectionalModel": _LFM2,
    "LlavaStableLMEpochForCausalLM": {
        "rope_pct": 0.25,
        "norm_eps": 1e-5,
        "rope_theta": 1e4,
        "use_parallel_residual": False,
    },
    "MiniCPMV4_6ForConditionalGeneration": {
        **_LINEAR,
        "rms_norm_eps": 1e-6,
        "linear_conv_kernel_dim": 4,
        "rope_theta": 1e4,
    },
    "PaddleOCRVLForConditionalGeneration": {
        **_RMS,
        "head_dim": 16,
        "rope_scaling": {"type": "default", "mrope_section": [2, 3, 3]},
    },
    "Phi4ForCausalLMV": {**_RMS, "original_max_position_embeddings": 128},
    "Qwen3ASRForConditionalGeneration": {
        **_RMS,
        "head_dim": 16,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    },
    "Qwen3OmniMoeForConditionalGeneration": {
        **_MOE,
        "head_dim": 16,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    },
    "Sarashina2VisionForCausalLM": {**_RMS, "head_dim": 16},
    "SolarOpenForCausalLM": {
        **_DEEP,
        **_RMS,
        "head_dim": 16,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "partial_rotary_factor": 1.0,
    },
    "StepVLForConditionalGeneration": {**_RMS, "head_dim": 16},
}
SENTENCEPIECE = frozenset({"PaddleOCRVLForConditionalGeneration"})
WANTED_OPTIONAL: Mapping[str, tuple[str, ...]] = {"SolarOpenForCausalLM": ("e_score_correction.bias",)}
