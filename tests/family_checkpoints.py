"""Tiny checkpoints for every family, made from its own table: what the rules ask for, filled with random numbers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelbuild.convert import Checkpoint, Conversion
from modelbuild.convert.checkpoint import CONFIG
from modelbuild.convert.families import find_family
from modelbuild.convert.family import TensorRule
from modelbuild.convert.hub_config import read_hub_config
from modelbuild.convert.mapping import _is_needed, _places, expected_sizes
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.check_hash import BYTE_CHARS
from modelbuild.formats.gguf.writer import lay_out
from tests import family_checkpoints_a_to_k as earlier
from tests import family_checkpoints_l_to_z as later
from tests.checkpoints import LLAMA3_SPLIT, write_safetensors
from tests.reference import tensor_bytes

VOCABULARY = 288
_BASE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
    "bos_token_id": 256,
    "eos_token_id": 257,
}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LATENT = {"q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
_DEEP = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
}
_LONG = {"type": "longrope", "long_factor": [1.0, 1.5, 2.0, 2.5], "short_factor": [1.0, 1.0, 1.5, 1.5]}

_LINEAR = {
    "head_dim": 16,
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": [*["linear_attention"] * 3, "full_attention"],
}
_SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [1, 2, 1]}

#: What a class needs beyond `_BASE`; a value of None removes a key.
CONFIGS: Mapping[str, Mapping[str, object]] = {
    "LlamaForCausalLM": {},
    "MistralForCausalLM": {},
    "MixtralForCausalLM": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "LlamaBidirectionalModel": {},
    "SeedOssForCausalLM": {"head_dim": 16},
    "Gemma3TextModel": {"head_dim": 16, "sliding_window": 16, "num_hidden_layers": 6},  # one full attention layer
    "SmolLM3ForCausalLM": {"num_hidden_layers": 4},
    "ArceeForCausalLM": {},
    "GraniteForCausalLM": {"attention_multiplier": 0.1, "logits_scaling": 2.0},
    "GraniteMoeForCausalLM": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "GraniteMoeSharedForCausalLM": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 48,
    },
    "Llama4ForCausalLM": {
        "num_local_experts": 4,
        "intermediate_size_mlp": 128,
        "head_dim": 16,
        "interleave_moe_layer_step": 2,
        "num_hidden_layers": 4,
    },
    "Mistral3ForConditionalGeneration": {"model_type": "mistral3", "head_dim": 16},
    "InternLM2ForCausalLM": {},
    "InternLM3ForCausalLM": {"head_dim": 16},
    "ExaoneForCausalLM": {"activation_function": "silu"},
    "Exaone4ForCausalLM": {"sliding_window": 16, "sliding_window_pattern": "LLLG", "num_hidden_layers": 4},
    "MiniCPMForCausalLM": {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 32},
    "MiniCPM3ForCausalLM": {**_LATENT, "num_key_value_heads": 4, "rope_scaling": _LONG},
    "NemotronForCausalLM": {"partial_rotary_factor": 0.5},
    "Qwen2ForCausalLM": {},
    "Qwen2MoeForCausalLM": {**_MOE, "shared_expert_intermediate_size": 48},
    "Qwen3ForCausalLM": {"head_dim": 16},
    "Qwen3MoeForCausalLM": {**_MOE, "head_dim": 16},
    "GemmaForCausalLM": {"head_dim": 16},
    "Gemma2ForCausalLM": {"head_dim": 16},
    "Gemma3ForCausalLM": {"head_dim": 16, "sliding_window": 16},
    "Phi3ForCausalLM": {"sliding_window": None},
    "PhiMoEForCausalLM": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "DeepseekForCausalLM": _DEEP,
    "DeepseekV2ForCausalLM": {**_DEEP, **_LATENT},
    "DeepseekV3ForCausalLM": {**_DEEP, **_LATENT, "scoring_func": "sigmoid", "norm_topk_prob": True},
    "CohereForCausalLM": {},
    "Cohere2ForCausalLM": {"sliding_window": 16, "num_hidden_layers": 4},
    "OlmoForCausalLM": {},
    "Olmo2ForCausalLM": {},
    "Olmo3ForCausalLM": {"sliding_window": 16, "num_hidden_layers": 4},
    "OlmoeForCausalLM": {"num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2},
    "Glm4ForCausalLM": {"head_dim": 16},
    "Glm4MoeForCausalLM": {**_DEEP, "head_dim": 16, "num_hidden_layers": 3, "num_nextn_predict_layers": 1},
    "Lfm2ForCausalLM": {
        "layer_types": ["conv", "full_attention"],
        "block_auto_adjust_ff_dim": False,
        "block_ff_dim": 96,
    },
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1, **_MOE},
    "Qwen3NextForCausalLM": {**_MOE, **_LINEAR, "shared_expert_intermediate_size": 48},
    "Qwen3_5ForCausalLM": {**_LINEAR, "rope_parameters": _SECTIONS, "mtp_num_hidden_layers": 1},
    "Qwen3_5MoeForCausalLM": {**_MOE, **_LINEAR, "shared_expert_intermediate_size": 48, "rope_parameters": _SECTIONS},
    "Qwen2VLForConditionalGeneration": {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}},
    "Qwen3VLForConditionalGeneration": {
        "head_dim": 16,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    },
    "Qwen3VLMoeForConditionalGeneration": {
        **_MOE,
        "head_dim": 16,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    },
    "Gemma3nForCausalLM": {
        "head_dim": 16,
        "hidden_size_per_layer_input": 256,
        "laurel_rank": 64,
        "intermediate_size": [96] * 5,
        "num_hidden_layers": 5,
        "num_kv_shared_layers": 1,
        "layer_types": [*["sliding_attention"] * 4, "full_attention"],
        "sliding_window": 16,
    },
    "Gemma4ForCausalLM": {
        "head_dim": 16,
        "global_head_dim": 16,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 16,
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "GptOssForCausalLM": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "GPT2LMHeadModel": {"n_positions": 128},
    "PhiForCausalLM": {},
    "StableLmForCausalLM": {"use_parallel_residual": False},
    "Starcoder2ForCausalLM": {},
    "GPTBigCodeForCausalLM": {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 128},
    "BloomForCausalLM": {},
    "BaichuanForCausalLM": {"num_key_value_heads": None},
    "OrionForCausalLM": {},
    "MaincoderForCausalLM": {"head_dim": 16},
    "PanguEmbeddedForCausalLM": {},
    "DreamModel": {"mask_token_id": 258},
    "RND1": {**_MOE, "head_dim": 16},
    "MellumForCausalLM": {
        **_MOE,
        "head_dim": 16,
        "sliding_window": 16,
        "num_hidden_layers": 4,
        "layer_types": [*["sliding_attention"] * 3, "full_attention"],
    },
    "ChatGLMModel": {"ffn_hidden_size": 96, "multi_query_group_num": 2, "seq_length": 128},
    "GlmForCausalLM": {"head_dim": 16},
    "HunYuanDenseV1ForCausalLM": {"head_dim": 16},
    "Dots1ForCausalLM": {**_DEEP, "head_dim": 16, "num_key_value_heads": 4, "scoring_func": "sigmoid"},
    "Ernie4_5ForCausalLM": {"head_dim": 16},
    "Ernie4_5_MoeForCausalLM": {
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_intermediate_size": 32,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
        "moe_layer_interval": 1,
    },
    "GPTNeoXForCausalLM": {},
    "MambaForCausalLM": {"intermediate_size": 128},
    "FalconMambaForCausalLM": {"intermediate_size": 128, "model_type": "falcon_mamba"},
    "Mamba2ForCausalLM": {"intermediate_size": 128, "state_size": 16, "head_dim": 32},
    **earlier.CONFIGS,
    **later.CONFIGS,
}
#: Classes whose tokenizer can only be SentencePiece.
_SENTENCEPIECE = frozenset(
    {
        "InternLM2ForCausalLM",
        "InternLM3ForCausalLM",
        "MiniCPMForCausalLM",
        "MiniCPM3ForCausalLM",
        "BaichuanForCausalLM",
        "OrionForCausalLM",
        "PanguEmbeddedForCausalLM",
        "Ernie4_5ForCausalLM",
        "Ernie4_5_MoeForCausalLM",
        *earlier.SENTENCEPIECE,
        *later.SENTENCEPIECE,
    }
)
#: Optional tensors that llama.cpp wants.
_WANTED_OPTIONAL = {
    "PanguEmbeddedForCausalLM": (".bias",),
    "DreamModel": (".bias",),
    "HunYuanDenseV1ForCausalLM": ("_layernorm.weight",),
    "Ernie4_5_MoeForCausalLM": (
        "e_score_correction.bias",
        "shared_experts.gate_proj.weight",
        "shared_experts.up_proj.weight",
        "shared_experts.down_proj.weight",
    ),
    "DeepseekV3ForCausalLM": ("e_score_correction.bias",),
    "Lfm2MoeForCausalLM": ("expert_bias",),
    "GptOssForCausalLM": ("experts.gate_up_proj", "experts.down_proj"),
    "Glm4MoeForCausalLM": ("e_score_correction.bias",),
    "Qwen2ForCausalLM": (".bias",),
    "PhiMoEForCausalLM": (".bias",),
    "Gemma3nForCausalLM": (
        "per_layer_model_projection.weight",
        "per_layer_projection_norm.weight",
        "per_layer_input_gate.weight",
        "per_layer_projection.weight",
        "post_per_layer_input_norm.weight",
    ),
    "Gemma4ForCausalLM": ("k_proj.weight", "v_proj.weight", "k_norm.weight"),
    **earlier.WANTED_OPTIONAL,
    **later.WANTED_OPTIONAL,
}


def write_family_checkpoint(directory: Path, hf_class: str) -> Path:
    """A checkpoint of a class with every tensor its table requires."""
    directory.mkdir(parents=True)
    config = {**_BASE, "architectures": [hf_class], **CONFIGS[hf_class]}
    config = {key: value for key, value in config.items() if value is not None or key == "sliding_window"}
    (directory / CONFIG).write_text(json.dumps(config))
    if hf_class in later.TOKENIZERS:
        (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
        for name, data in later.TOKENIZERS[hf_class](VOCABULARY).items():
            (directory / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    elif hf_class in _SENTENCEPIECE:
        (directory / "tokenizer.model").write_bytes(sentencepiece_model())
        (directory / "tokenizer_config.json").write_text("{}")
    else:
        (directory / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
        kind = earlier.TOKENIZER_CLASSES.get(hf_class, "GPT2Tokenizer")
        settings = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": kind}
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    tensors = {**dict(_tensors(directory, hf_class)), **later.MORE_TENSORS.get(hf_class, {})}
    write_safetensors(directory / "model.safetensors", tensors)
    return directory


def read_shapes(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Element type and shape of each tensor of a safetensors file."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}


def write_gguf(conversion: Conversion, path: Path) -> None:
    """The conversion as a file."""
    tensors = [(item.name, tuple(reversed(item.source.shape)), item.type) for item in conversion.tensors]
    layout = lay_out(conversion.kv, tensors)
    with path.open("wb") as file:
        file.write(layout.header)
        for tensor, slot in zip(conversion.tensors, layout.slots, strict=True):
            file.seek(layout.data_offset + slot.offset)
            file.write(tensor_bytes(tensor))
        file.truncate(layout.file_size)


_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def byte_tokenizer() -> dict[str, object]:
    """All bytes as tokens, one merge, and special tokens with the spellings that families look for."""
    vocabulary = {char: number for number, char in enumerate(BYTE_CHARS)}
    named = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|user|>", "[gMASK]", "<|observation|>"]
    added = [{"id": 256 + number, "content": text, "special": True, **_PLAIN} for number, text in enumerate(named)]
    vocabulary["ab"] = 256 + len(named)
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False}
    return {
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, _BYTES]},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["a b"], "ignore_merges": True},
    }


def sentencepiece_model() -> bytes:
    """Unknown, begin, end, all bytes."""
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), *((f"<0x{byte:02X}>", 6) for byte in range(256)), ("\u2581", 1)]
    return b"".join(_piece(text, kind) for text, kind in pieces) + b"\x12\x05\x18\x02\x98\x02\x01"


def _piece(text: str, kind: int) -> bytes:
    data = text.encode()
    body = b"\x0a" + bytes([len(data)]) + data + b"\x15" + struct.pack("<f", 0.0) + b"\x18" + bytes([kind])
    return b"\x0a" + bytes([len(body)]) + body


def _tensors(directory: Path, hf_class: str) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    checkpoint = Checkpoint({path.name: path for path in directory.iterdir()}, str(directory))
    family = find_family(hf_class)
    assert family is not None, f"no family for {hf_class}"
    model = Model.of(family, read_hub_config(checkpoint), checkpoint)
    wanted = _WANTED_OPTIONAL.get(hf_class, ())
    for rule in family.tensors:
        for suffix, presence in ((".weight", rule.weight), (".bias", rule.bias)):
            name = rule.source + (suffix if rule.suffixed else "")
            for block, expert in _places(model, rule):
                is_wanted = presence != "absent" and name.endswith(wanted)
                if (is_wanted or _is_needed(model, rule, presence, block)) and (rule.suffixed or suffix == ".weight"):
                    yield name.format(b=block, e=expert), ("F32", _shape(model, rule, block, suffix))


def _shape(model: Model, rule: TensorRule, block: int, suffix: str) -> tuple[int, ...]:
    """Sizes that are left open are those of the vocabulary."""
    rows = model.config.integer("vocab_size", default=VOCABULARY)
    sizes = expected_sizes(model, rule, block, suffix)
    return tuple(rows if size is None else size for size in sizes)
