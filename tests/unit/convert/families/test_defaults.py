"""What a configuration leaves out is what the library of the originals assumes; what a file lacks may be no loss."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.checkpoints import convert, keys_of, llama_config, llama_tensors, write_checkpoint, write_safetensors
from tests.family_checkpoints import read_shapes, write_family_checkpoint

#: Recorded from the reference converter with the configurations of `family_checkpoints`.
ASSUMED = (
    ("ArceeForCausalLM", "arcee.attention.layer_norm_rms_epsilon", 1e-5),
    ("Qwen2VLForConditionalGeneration", "qwen2vl.rope.freq_base", 1e6),
    ("Qwen2VLForConditionalGeneration", "qwen2vl.attention.layer_norm_rms_epsilon", 1e-5),
    ("Qwen3VLForConditionalGeneration", "qwen3vl.rope.freq_base", 5e6),
    ("Qwen3VLMoeForConditionalGeneration", "qwen3vlmoe.rope.freq_base", 5e6),
    ("PhiMoEForCausalLM", "phimoe.attention.sliding_window", 0),
    ("Cohere2ForCausalLM", "cohere2.attention.key_length", 16),
    ("NemotronForCausalLM", "nemotron.attention.key_length", 16),
)
#: The contexts that configurations leave out, with what they need to say of their version.
CONTEXTS = (
    ("Llama4ForCausalLM", {}, "llama4", 131072),
    ("ArceeForCausalLM", {}, "arcee", 4096),
    ("Cohere2ForCausalLM", {}, "cohere2", 8192),
    ("DeepseekV2ForCausalLM", {"model_type": "deepseek_v2"}, "deepseek2", 2048),
    ("DeepseekV3ForCausalLM", {"model_type": "deepseek_v3", "n_group": 1}, "deepseek2", 4096),
    ("Dots1ForCausalLM", {}, "dots1", 2048),
    ("Ernie4_5ForCausalLM", {}, "ernie4_5", 131072),
    ("Glm4ForCausalLM", {"model_type": "glm4"}, "glm4", 131072),
    ("Glm4MoeForCausalLM", {"model_type": "glm4_moe"}, "glm4moe", 131072),
    ("HunYuanDenseV1ForCausalLM", {}, "hunyuan-dense", 2048),
    ("Lfm2ForCausalLM", {}, "lfm2", 128000),
    ("NemotronForCausalLM", {}, "nemotron", 4096),
    ("OlmoeForCausalLM", {}, "olmoe", 4096),
    ("Qwen3NextForCausalLM", {}, "qwen3next", 32768),
    ("Qwen3VLForConditionalGeneration", {}, "qwen3vl", 128000),
    ("SeedOssForCausalLM", {}, "seed_oss", 524288),
)


@pytest.mark.parametrize(("hf_class", "key", "value"), ASSUMED)
def test_missing_settings_are_those_of_the_library(tmp_path: Path, hf_class: str, key: str, value: float) -> None:
    """A key that config.json leaves out has the class default."""
    keys = keys_of(convert(write_family_checkpoint(tmp_path / "model", hf_class)))

    assert keys[key] == pytest.approx(value)


@pytest.mark.parametrize(("hf_class", "changes", "architecture", "context"), CONTEXTS)
def test_missing_context_is_that_of_the_library(
    tmp_path: Path, hf_class: str, changes: Mapping[str, object], architecture: str, context: int
) -> None:
    """Without a context the runtime loads nothing."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    config = {**json.loads((directory / "config.json").read_text()), **changes}
    del config["max_position_embeddings"]
    (directory / "config.json").write_text(json.dumps(config))

    assert context == keys_of(convert(directory))[f"{architecture}.context_length"]


def test_linear_blocks_of_qwen3_next_follow_from_their_interval(tmp_path: Path) -> None:
    """A list of kinds is written even where the configuration has none."""
    directory = write_family_checkpoint(tmp_path / "model", "Qwen3NextForCausalLM")
    config = json.loads((directory / "config.json").read_text())
    del config["layer_types"]
    (directory / "config.json").write_text(json.dumps(config))

    assert [True, True, True, False] == keys_of(convert(directory))["qwen3next.attention.recurrent_layers"]


def test_exaone4_has_a_window_in_three_of_four_blocks(tmp_path: Path) -> None:
    """Unless the configuration says something else."""
    directory = write_family_checkpoint(tmp_path / "model", "Exaone4ForCausalLM")
    config = json.loads((directory / "config.json").read_text())
    del config["sliding_window"], config["sliding_window_pattern"]
    (directory / "config.json").write_text(json.dumps(config))

    keys = keys_of(convert(directory))

    assert 4096 == keys["exaone4.attention.sliding_window"]
    assert [True, True, True, False] == keys["exaone4.attention.sliding_window_pattern"]


def test_base_model_needs_no_output(tmp_path: Path) -> None:
    """A class of the bare model stores no output matrix, though its configuration says that it is not tied."""
    tensors = {name.removeprefix("model."): entry for name, entry in llama_tensors().items()}
    config = llama_config(architectures=["LlamaModel"], tie_word_embeddings=False)

    conversion = convert(write_checkpoint(tmp_path, config, tensors))

    assert "output.weight" not in [tensor.name for tensor in conversion.tensors]


@pytest.mark.parametrize("stored", [True, False])
def test_blocks_for_further_tokens_count_when_stored(tmp_path: Path, stored: bool) -> None:
    """A fine-tune often loses the blocks that predict further tokens, while its configuration still promises them."""
    directory = write_family_checkpoint(tmp_path / "model", "Qwen3_5ForCausalLM")
    layers = json.loads((directory / "config.json").read_text())["num_hidden_layers"]
    shapes = read_shapes(directory / "model.safetensors")
    if not stored:
        shapes = {name: entry for name, entry in shapes.items() if not name.startswith(f"model.layers.{layers}.")}
        write_safetensors(directory / "model.safetensors", shapes)

    keys = keys_of(convert(directory))

    assert (layers + stored, 1 if stored else None) == (
        keys["qwen35.block_count"],
        keys.get("qwen35.nextn_predict_layers"),
    )


def test_blocks_with_full_attention_may_be_described_one_by_one(tmp_path: Path) -> None:
    """Newer configurations of Gemma 4 give the width of their heads for each block."""
    directory = write_family_checkpoint(tmp_path / "model", "Gemma4ForCausalLM")
    config = json.loads((directory / "config.json").read_text())
    del config["global_head_dim"]
    (directory / "config.json").write_text(json.dumps({**config, "per_layer_config": {"1": {"head_dim": 16}}}))

    keys = keys_of(convert(directory))

    assert keys["gemma4.attention.key_length"] == 16
