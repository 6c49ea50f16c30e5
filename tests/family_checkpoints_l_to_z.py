"""What the classes with names from KimiVL to Youtu need beyond the base of `family_checkpoints`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping

_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
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
_WINDOWS = {
    "head_dim": 16,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
    },
}
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


def _sentencepiece_as_json(count: int) -> Mapping[str, str]:
    """A vocabulary of SentencePiece in the form of tokenizer.json: bytes, and words up to the count."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]
    texts += [f"\u2581w{number}" for number in range(count - len(texts))]
    added = [{"id": number, "content": text, "special": True, **_PLAIN} for number, text in enumerate(texts[:3])]
    model = {"type": "BPE", "byte_fallback": True, "vocab": {text: n for n, text in enumerate(texts)}, "merges": []}
    return {"tokenizer.json": json.dumps({"added_tokens": added, "model": model})}


def _lines_of_tokens(count: int) -> Mapping[str, str]:
    """One token in each line; some are left to be padded."""
    tokens = [["<|plamo:unk|>", 0.0, "UNKNOWN"], ["<s>", 0.0, "CONTROL"], ["</s>", 0.0, "CONTROL"]]
    tokens += [["<|plamo:pad|>", 0.0, "NORMAL"], ["<|plamo:op|>", 0.0, "NORMAL"]]
    tokens += [[f"<0x{byte:02X}>", 0.0, "BYTE"] for byte in range(256)]
    tokens += [[chr(ord("a") + number), -float(number), "NORMAL"] for number in range(count - len(tokens) - 4)]
    return {"tokenizer.jsonl": "".join(f"{json.dumps([*token, 0])}\n" for token in tokens)}


def _lines_of_literals(count: int) -> Mapping[str, str]:
    """All bytes and some words, as literals with their lengths; some tokens are left to be padded."""
    texts = [bytes([byte]) for byte in range(256)] + [f"w{number}".encode() for number in range(count - 256 - 4)]
    lines = (f"{number} {text!r} {len(text)}\n" for number, text in enumerate(texts, start=1))
    return {"rwkv_vocab_v20230424.txt": "".join(lines)}


def _ranks(count: int) -> Mapping[str, str]:
    """All bytes and some words of them, with a rank each; the special tokens follow."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"ab", b"bc", b"abc", b"abcd"]
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    return {"qwen.tiktoken": "".join(lines)}


_STATES = {
    **_RMS,
    "layer_norm_epsilon": 1e-5,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "ssm_state_size": 16,
    "conv_kernel": 4,
    "num_hidden_layers": 3,
}
_NEMOTRON_EXPERTS = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "moe_shared_expert_intermediate_size": 48,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "n_group": 1,
    "topk_group": 1,
}

CONFIGS: Mapping[str, Mapping[str, object]] = {
    "KimiVLForConditionalGeneration": {**_DEEP, **_LATENT, **_RMS, "q_lora_rank": 24, "num_key_value_heads": 4},
    "YoutuForCausalLM": {**_LATENT, **_RMS, "q_lora_rank": 24, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "LagunaForCausalLM": {
        **_MOE,
        **_WINDOWS,
        "rms_norm_eps": 1e-5,
        "num_attention_heads_per_layer": [4, 6],
        "gating": True,
        "shared_expert_intermediate_size": 48,
        "moe_routed_scaling_factor": 2.5,
        "mlp_layer_types": ["dense", "sparse"],
    },
    "Lfm2Model": _LFM2,
    "Lfm2BidirectionalModel": _LFM2,
    "LLaDAModelLM": {
        **_RMS,
        "hidden_size": None,
        "intermediate_size": None,
        "max_position_embeddings": None,
        "num_hidden_layers": None,
        "num_attention_heads": None,
        "num_key_value_heads": None,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_model": 64,
        "mlp_hidden_size": 96,
        "max_sequence_length": 128,
    },
    "LLaDAMoEModelLM": {**_RMS, "num_experts": 4, "num_experts_per_tok": 2, "expert_intermediate_size": 32},
    "LlavaStableLMEpochForCausalLM": {
        "rope_pct": 0.25,
        "norm_eps": 1e-5,
        "rope_theta": 1e4,
        "use_parallel_residual": False,
    },
    "MapleForCausalLM": {
        **_MOE,
        **_RMS,
        "head_dim": 16,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "hidden_act": "silu",
        "nope_on_global_attention": True,
        "partial_rotary_factor": 0.5,
    },
    "MiniCPMV4_6ForConditionalGeneration": {
        **_LINEAR,
        "rms_norm_eps": 1e-6,
        "linear_conv_kernel_dim": 4,
        "rope_theta": 1e4,
    },
    "MPTForCausalLM": {
        "hidden_size": None,
        "intermediate_size": None,
        "num_hidden_layers": None,
        "num_attention_heads": None,
        "num_key_value_heads": None,
        "d_model": 64,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 128,
        "attn_config": {"alibi": True, "alibi_bias_max": 8, "clip_qkv": None},
    },
    "MiniMaxText01ForCausalLM": {
        **_RMS,
        "head_dim": 16,
        "num_hidden_layers": 8,
        "attn_type_list": [*[0] * 7, 1],
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rotary_dim": 8,
        **{f"layernorm_{part}_alpha": 3.5 for part in ("full_attention", "linear_attention", "mlp")},
        **{f"layernorm_{part}_beta": 1.0 for part in ("full_attention", "linear_attention", "mlp")},
    },
    "MiniMaxM2ForCausalLM": {
        **_RMS,
        "head_dim": 16,
        "intermediate_size": 32,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rotary_dim": 8,
        "scoring_func": "sigmoid",
    },
    "MiniMaxM3SparseForCausalLM": {
        **_RMS,
        "head_dim": 16,
        "intermediate_size": 32,
        "dense_intermediate_size": 96,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "rotary_dim": 8,
        "scoring_func": "sigmoid",
        "routed_scaling_factor": 2.0,
        "moe_layer_freq": [0, 1],
        "sparse_attention_config": {
            "sparse_num_index_heads": 2,
            "sparse_index_dim": 16,
            "sparse_topk_blocks": 2,
            "sparse_block_size": 16,
            "sparse_local_block": 1,
        },
    },
    "MuseGlimmerForConditionalGeneration": {
        **_RMS,
        "head_dim": 16,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "qk_scale_factor": 2.5,
        "output_multiplier": 0.5,
        "final_logit_softcapping": 30.0,
    },
    "NanbeigeForCausalLM": {**_RMS, "num_loops": 2, "head_dim": 16},
    "NemotronHForCausalLM": {**_STATES, "attention_head_dim": 16, "hybrid_override_pattern": "M*-"},
    "NemotronHPuzzleForCausalLM": {
        **_STATES,
        **_NEMOTRON_EXPERTS,
        "head_dim": 16,
        "moe_latent_size": 32,
        "block_configs": [
            {"block_type": "mamba"},
            {"block_type": "attention"},
            {"block_type": "moe", "moe_intermediate_size": 32, "num_experts_per_tok": 2},
        ],
    },
    "OpenELMForCausalLM": {
        "hidden_size": None,
        "intermediate_size": None,
        "num_hidden_layers": None,
        "num_attention_heads": None,
        "num_key_value_heads": None,
        "model_dim": 64,
        "head_dim": 16,
        "num_transformer_layers": 2,
        "num_query_heads": [4, 6],
        "num_kv_heads": [2, 3],
        "ffn_multipliers": [0.5, 1.5],
        "ffn_dim_divisor": 32,
        "max_context_length": 128,
        "rope_freq_constant": 10000,
    },
    "PaddleOCRVLForConditionalGeneration": {
        **_RMS,
        "head_dim": 16,
        "rope_scaling": {"type": "default", "mrope_section": [2, 3, 3]},
    },
    "Phi4ForCausalLMV": {**_RMS, "original_max_position_embeddings": 128},
    "Plamo2ForCausalLM": {
        **_RMS,
        "hidden_size_per_head": 16,
        "mamba_num_heads": 4,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_step": 2,
    },
    "Plamo3ForCausalLM": {
        **_RMS,
        "head_dim": 16,
        "window_size": 16,
        "sliding_window_pattern": 2,
        "rope_scaling_factor": 4,
        "initial_context_length": 64,
    },
    "PlamoForCausalLM": {**_RMS, "n_shared_head": 2},
    "PLMForCausalLM": {**_LATENT, **_RMS, "num_key_value_heads": 4, "tie_word_embeddings": True},
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
    "RuGPT3XLForCausalLM": {"num_key_value_heads": None, "layer_norm_eps": 1e-5},
    "QWenLMHeadModel": {"num_key_value_heads": None, "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000},
    "Rwkv6ForCausalLM": {"head_size": 16, "layer_norm_epsilon": 1e-5, "rescale_every": 1},
    "RWKV6Qwen2ForCausalLM": _RMS,
    "RwkvHybridForCausalLM": {**_RMS, "head_size": 16, "wkv_has_gate": False, "wkv_version": 7},
    "RWKV7ForCausalLM": {
        "head_dim": 16,
        "norm_eps": 1e-5,
        "decay_low_rank_dim": 32,
        "a_low_rank_dim": 32,
        "v_low_rank_dim": 32,
        "gate_low_rank_dim": 32,
    },
    "Sarashina2VisionForCausalLM": {**_RMS, "head_dim": 16},
    "SmallThinkerForCausalLM": {
        **_RMS,
        "intermediate_size": None,
        "head_dim": 16,
        "moe_num_primary_experts": 4,
        "moe_num_active_primary_experts": 2,
        "moe_ffn_hidden_size": 32,
        "moe_primary_router_apply_softmax": True,
        "sliding_window_layout": [0, 1, 1, 1],
        "sliding_window_size": 4096,
        "num_hidden_layers": 4,
    },
    "SolarOpenForCausalLM": {
        **_DEEP,
        **_RMS,
        "head_dim": 16,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "partial_rotary_factor": 1.0,
    },
    "Spark2_5ForCausalLM": {
        **_WINDOWS,
        "rms_norm_eps": 1e-5,
        "gate_attn_act_mode": "sigmoid",
        "headwise_attn_output_gate": True,
        "hidden_act": "gelu",
    },
    "Step3p5ForCausalLM": {
        "rms_norm_eps": 1e-5,
        "rope_theta": [5e6, 1e4],
        "rope_scaling": {"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 64},
        "num_key_value_heads": None,
        "num_attention_groups": 2,
        "attention_other_setting": {"num_attention_heads": 6, "num_attention_groups": 3},
        "head_dim": 16,
        "sliding_window": 16,
        "layer_types": ["full_attention", "sliding_attention"],
        "partial_rotary_factors": [0.5, 1.0],
        "moe_num_experts": 4,
        "moe_top_k": 2,
        "moe_intermediate_size": 32,
        "share_expert_dim": 48,
        "moe_router_activation": "sigmoid",
        "moe_router_scaling_factor": 3.0,
        "norm_expert_weight": True,
        "moe_layers_enum": "1",
        "swiglu_limits": [0, 7],
    },
    "StepVLForConditionalGeneration": {**_RMS, "head_dim": 16},
    "TalkieForCausalLM": {"head_dim": 16, "num_key_value_heads": 4, "rope_theta": 1e6},
    "XverseForCausalLM": {**_RMS, "num_key_value_heads": 4},
}
#: Classes with a tokenizer of their own: the files.
TOKENIZERS: Mapping[str, Callable[[int], Mapping[str, str | bytes]]] = {
    "Plamo2ForCausalLM": _lines_of_tokens,
    "Plamo3ForCausalLM": _lines_of_tokens,
    "QWenLMHeadModel": _ranks,
    "Rwkv6ForCausalLM": _lines_of_literals,
    "RWKV7ForCausalLM": _lines_of_literals,
    "XverseForCausalLM": _sentencepiece_as_json,
}
SENTENCEPIECE = frozenset({"OpenELMForCausalLM", "PaddleOCRVLForConditionalGeneration", "PlamoForCausalLM"})
WANTED_OPTIONAL: Mapping[str, tuple[str, ...]] = {"SolarOpenForCausalLM": ("e_score_correction.bias",)}
#: What a class stores although no rule makes a tensor of it.
MORE_TENSORS: Mapping[str, Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "TalkieForCausalLM": {"lm_head_gain.w_g": ("F32", (1,))}
}
