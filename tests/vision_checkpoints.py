"""Tiny checkpoints with a vision part: a text model of one block, and a tower of two or three."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.family_checkpoints import VOCABULARY, byte_tokenizer

TEXT, WIDTH, FORWARD, PATCH, SIDE, HEADS = 64, 32, 48, 4, 32, 2
PATCHES = (SIDE // PATCH) ** 2
ROW_END = 262
Shapes = Mapping[str, tuple[int, ...]]
_MEAN, _STD = [0.4, 0.5, 0.6], [0.3, 0.25, 0.2]


@dataclass(frozen=True, slots=True)
class VisionCheckpoint:
    """A checkpoint directory, its weights, and the picture that its tests show."""

    directory: Path
    weights: dict[str, np.ndarray]
    picture: np.ndarray

    @property
    def scaled(self) -> np.ndarray:
        """The picture as the encoder gets it."""
        return (self.picture.astype(np.float64) / 255 - _MEAN) / _STD


def write(directory: Path, config: Mapping[str, object], shapes: Shapes, **preprocessor: object) -> VisionCheckpoint:
    """The files of a checkpoint; the picture has the size that the encoder expects."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(11)
    weights = {}
    for name, shape in shapes.items():
        near_one = "norm" in name or "ln_" in name or "layrnorm" in name
        values = random.standard_normal(shape) * (0.15 if len(shape) > 1 else 0.1)
        is_scale = near_one and name.endswith("weight") and len(shape) == 1 and "soft_emb" not in name
        weights[name] = (values + is_scale).astype(np.float32)
    save_file(weights, directory / "model.safetensors")
    named = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "GPT2Tokenizer"}
    tokenizer = byte_tokenizer()
    added = tokenizer["added_tokens"]
    assert isinstance(added, list)
    added[ROW_END - 256]["content"] = "[IMG_BREAK]"
    for name, document in (
        ("config.json", config),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", named),
        ("preprocessor_config.json", {"image_mean": _MEAN, "image_std": _STD, **preprocessor}),
    ):
        (directory / name).write_text(json.dumps(document))
    picture = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return VisionCheckpoint(directory, weights, picture)


def with_bias(shapes: Shapes) -> Shapes:
    return {**shapes, **{f"{name.removesuffix('.weight')}.bias": shape[:1] for name, shape in shapes.items()}}


def layered(count: int, shapes: Shapes) -> Shapes:
    return {name.format(b=number): shape for number in range(count) for name, shape in shapes.items()}


TEXT_CONFIG = {
    "hidden_size": TEXT, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128, "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
}  # fmt: skip
_TEXT_LAYER = "model.layers.0."
TEXT_SHAPES: Shapes = {
    "model.embed_tokens.weight": (VOCABULARY, TEXT),
    "model.norm.weight": (TEXT,),
    f"{_TEXT_LAYER}input_layernorm.weight": (TEXT,),
    f"{_TEXT_LAYER}post_attention_layernorm.weight": (TEXT,),
    f"{_TEXT_LAYER}self_attn.q_proj.weight": (64, TEXT),
    f"{_TEXT_LAYER}self_attn.k_proj.weight": (32, TEXT),
    f"{_TEXT_LAYER}self_attn.v_proj.weight": (32, TEXT),
    f"{_TEXT_LAYER}self_attn.o_proj.weight": (TEXT, 64),
    f"{_TEXT_LAYER}mlp.gate_proj.weight": (96, TEXT),
    f"{_TEXT_LAYER}mlp.up_proj.weight": (96, TEXT),
    f"{_TEXT_LAYER}mlp.down_proj.weight": (TEXT, 96),
}
_TOWER = "vision_tower.vision_model."
_SIGLIP_LAYER = f"{_TOWER}encoder.layers.{{b}}."
_SIGLIP = with_bias({
    f"{_SIGLIP_LAYER}layer_norm1.weight": (WIDTH,),
    f"{_SIGLIP_LAYER}layer_norm2.weight": (WIDTH,),
    f"{_SIGLIP_LAYER}self_attn.q_proj.weight": (WIDTH, WIDTH),
    f"{_SIGLIP_LAYER}self_attn.k_proj.weight": (WIDTH, WIDTH),
    f"{_SIGLIP_LAYER}self_attn.v_proj.weight": (WIDTH, WIDTH),
    f"{_SIGLIP_LAYER}self_attn.out_proj.weight": (WIDTH, WIDTH),
    f"{_SIGLIP_LAYER}mlp.fc1.weight": (FORWARD, WIDTH),
    f"{_SIGLIP_LAYER}mlp.fc2.weight": (WIDTH, FORWARD),
})  # fmt: skip
VISION_CONFIG = {
    "hidden_size": WIDTH, "intermediate_size": FORWARD, "num_attention_heads": HEADS, "image_size": SIDE,
    "patch_size": PATCH,
}  # fmt: skip
_PROJECTOR = "multi_modal_projector."


def in_language_model(shapes: Shapes) -> Shapes:
    return {f"language_model.{name}": shape for name, shape in shapes.items()}


def llava(directory: Path, **changes: object) -> VisionCheckpoint:
    """LLaVA 1.5: CLIP of three blocks, of which two count."""
    shapes = {
        **in_language_model(TEXT_SHAPES),
        f"{_TOWER}embeddings.class_embedding": (WIDTH,),
        f"{_TOWER}embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        f"{_TOWER}embeddings.position_embedding.weight": (PATCHES + 1, WIDTH),
        **with_bias({f"{_TOWER}pre_layrnorm.weight": (WIDTH,), f"{_TOWER}post_layernorm.weight": (WIDTH,)}),
        **layered(3, _SIGLIP),
        **with_bias({f"{_PROJECTOR}linear_1.weight": (TEXT, WIDTH), f"{_PROJECTOR}linear_2.weight": (TEXT, TEXT)}),
    }
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {**TEXT_CONFIG, "architectures": ["LlamaForCausalLM"]},
        "vision_config": {**VISION_CONFIG, "model_type": "clip_vision_model", "num_hidden_layers": 3},
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        **changes,
    }
    return write(directory, config, shapes)


def gemma3(directory: Path) -> VisionCheckpoint:
    """Gemma 3: 64 patches become 4 tokens."""
    norms = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
    shapes = {
        **in_language_model(TEXT_SHAPES),
        **{f"language_model.{_TEXT_LAYER}{name}.weight": (TEXT,) for name in norms},
        **{f"language_model.{_TEXT_LAYER}self_attn.{name}_norm.weight": (16,) for name in "qk"},
        **with_bias({f"{_TOWER}embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH)}),
        f"{_TOWER}embeddings.position_embedding.weight": (PATCHES, WIDTH),
        **with_bias({f"{_TOWER}post_layernorm.weight": (WIDTH,)}),
        **layered(2, _SIGLIP),
        f"{_PROJECTOR}mm_input_projection_weight": (WIDTH, TEXT),
        f"{_PROJECTOR}mm_soft_emb_norm.weight": (WIDTH,),
    }
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {**TEXT_CONFIG, "sliding_window": 16, "model_type": "gemma3_text"},
        "vision_config": {**VISION_CONFIG, "model_type": "siglip_vision_model", "num_hidden_layers": 2},
    }
    return write(directory, config, shapes, image_seq_length=4)


def mistral3(directory: Path, *, newer: bool = False) -> VisionCheckpoint:
    """Mistral 3; `newer`: with the prefix that later releases put before all names."""
    layer = "vision_tower.transformer.layers.{b}."
    layers = {
        f"{layer}attention_norm.weight": (WIDTH,),
        f"{layer}ffn_norm.weight": (WIDTH,),
        **{f"{layer}attention.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"},
        f"{layer}feed_forward.gate_proj.weight": (FORWARD, WIDTH),
        f"{layer}feed_forward.up_proj.weight": (FORWARD, WIDTH),
        f"{layer}feed_forward.down_proj.weight": (WIDTH, FORWARD),
    }
    shapes = {
        **in_language_model(TEXT_SHAPES),
        "vision_tower.patch_conv.weight": (WIDTH, 3, PATCH, PATCH),
        "vision_tower.ln_pre.weight": (WIDTH,),
        **layered(2, layers),
        f"{_PROJECTOR}norm.weight": (WIDTH,),
        f"{_PROJECTOR}patch_merger.merging_layer.weight": (WIDTH, 4 * WIDTH),
        f"{_PROJECTOR}linear_1.weight": (TEXT, WIDTH),
        f"{_PROJECTOR}linear_2.weight": (TEXT, TEXT),
    }
    if newer:
        renamed = {name.replace("language_model.model.", "language_model."): shape for name, shape in shapes.items()}
        shapes = {f"model.{name}": shape for name, shape in renamed.items()}
    config = {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "text_config": {**TEXT_CONFIG, "model_type": "mistral"},
        "vision_config": {
            **VISION_CONFIG, "model_type": "pixtral", "num_hidden_layers": 2, "head_dim": WIDTH // HEADS,
            "hidden_act": "silu", "rope_theta": 10000.0,
        },
        "spatial_merge_size": 2,
    }  # fmt: skip
    return write(directory, config, shapes)


def qwen3_vl(directory: Path) -> VisionCheckpoint:
    """Qwen3-VL: three blocks, of which the second also leads to the text model."""
    layer, merger, deep = "model.visual.blocks.{b}.", "model.visual.merger.", "model.visual.deepstack_merger_list.0."
    layers = {
        f"{layer}norm1.weight": (WIDTH,),
        f"{layer}norm2.weight": (WIDTH,),
        f"{layer}attn.qkv.weight": (3 * WIDTH, WIDTH),
        f"{layer}attn.proj.weight": (WIDTH, WIDTH),
        f"{layer}mlp.linear_fc1.weight": (FORWARD, WIDTH),
        f"{layer}mlp.linear_fc2.weight": (WIDTH, FORWARD),
    }
    merged = {f"{place}linear_fc1.weight": (4 * WIDTH, 4 * WIDTH) for place in (merger, deep)}
    merged |= {f"{place}linear_fc2.weight": (TEXT, 4 * WIDTH) for place in (merger, deep)}
    text = {name.replace("model.", "model.language_model."): shape for name, shape in TEXT_SHAPES.items()}
    shapes = {
        **text,
        **{f"{_TEXT_LAYER.replace('model.', 'model.language_model.')}self_attn.{n}_norm.weight": (16,) for n in "qk"},
        "model.visual.patch_embed.proj.weight": (WIDTH, 3, 2, PATCH, PATCH),
        "model.visual.patch_embed.proj.bias": (WIDTH,),
        "model.visual.pos_embed.weight": (PATCHES, WIDTH),
        **layered(3, with_bias(layers)),
        **with_bias({**merged, f"{merger}norm.weight": (WIDTH,), f"{deep}norm.weight": (4 * WIDTH,)}),
    }
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "text_config": {
            **TEXT_CONFIG, "model_type": "qwen3_vl_text", "rms_norm_eps": 1e-6,
            "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2]},
        },
        "vision_config": {
            "model_type": "qwen3_vl", "depth": 3, "hidden_size": WIDTH, "intermediate_size": FORWARD,
            "num_heads": HEADS, "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "num_position_embeddings": PATCHES, "out_hidden_size": TEXT, "deepstack_visual_indexes": [1],
        },
    }  # fmt: skip
    return write(directory, config, shapes)


def qwen_vl(directory: Path, version: int, **vision_changes: object) -> VisionCheckpoint:
    """Qwen2-VL (2) or Qwen2.5-VL (25)."""
    layer, gated = "visual.blocks.{b}.", version == 25
    names = {"gate_proj": (FORWARD, WIDTH), "up_proj": (FORWARD, WIDTH), "down_proj": (WIDTH, FORWARD)}
    forward = names if gated else {"fc1": (FORWARD, WIDTH), "fc2": (WIDTH, FORWARD)}
    norms = {f"{layer}norm1.weight": (WIDTH,), f"{layer}norm2.weight": (WIDTH,)}
    last = {"visual.merger.ln_q.weight": (WIDTH,)}
    layers = {
        **(norms if gated else with_bias(norms)),
        **with_bias({f"{layer}attn.qkv.weight": (3 * WIDTH, WIDTH), f"{layer}attn.proj.weight": (WIDTH, WIDTH)}),
        **with_bias({f"{layer}mlp.{name}.weight": shape for name, shape in forward.items()}),
    }
    biases = {f"{_TEXT_LAYER}self_attn.{name}_proj.bias": (64 if name == "q" else 32,) for name in "qkv"}
    shapes = {
        **TEXT_SHAPES,
        **biases,
        "visual.patch_embed.proj.weight": (WIDTH, 3, 2, PATCH, PATCH),
        **layered(2, layers),
        **(last if gated else with_bias(last)),
        **with_bias({
            "visual.merger.mlp.0.weight": (4 * WIDTH, 4 * WIDTH),
            "visual.merger.mlp.2.weight": (TEXT, 4 * WIDTH),
        }),
    }  # fmt: skip
    vision = {"depth": 2, "num_heads": HEADS, "patch_size": PATCH, "spatial_merge_size": 2}
    second = {"hidden_size": WIDTH, "intermediate_size": FORWARD, "fullatt_block_indexes": [1], "window_size": 112}
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration" if gated else "Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl" if gated else "qwen2_vl",
        **TEXT_CONFIG,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 2, 2]},
        "vision_config": {
            **vision,
            **(second if gated else {"embed_dim": WIDTH, "hidden_size": TEXT}),
            **vision_changes,
        },
    }
    return write(directory, config, shapes)
