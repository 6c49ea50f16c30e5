"""Checkpoints of one class come in several forms: wrapped, with parts that the runtime lacks, with further files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.checkpoints import convert, keys_of, write_safetensors
from tests.family_checkpoints import read_shapes, write_family_checkpoint

Shapes = dict[str, tuple[str, tuple[int, ...]]]


def names_of(directory: Path) -> set[str]:
    return {tensor.name for tensor in convert(directory).tensors}


def restore(directory: Path, shapes: Shapes) -> None:
    """Other tensors in place of those that the table asks for."""
    write_safetensors(directory / "model.safetensors", shapes)


@pytest.mark.parametrize(
    ("hf_class", "more"),
    [
        ("DeepseekV3ForCausalLM", "model.layers.2.eh_proj.weight"),
        ("YoutuForCausalLM", "lm_head.weight"),
        ("Sarashina2VisionForCausalLM", "norm.weight"),
        ("MiniCPMV4_6ForConditionalGeneration", "mtp.fc.weight"),
        ("MiniCPMV4_6ForConditionalGeneration", "model.merger.mlp.weight"),
    ],
)
def test_what_the_runtime_lacks_is_left_out(tmp_path: Path, hf_class: str, more: str) -> None:
    """Blocks for further tokens, an output that is the embedding again, parts of pictures: they change nothing."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    shapes = read_shapes(directory / "model.safetensors")
    plain = names_of(directory)

    restore(directory, {**shapes, more: ("F32", (4, 4))})

    assert plain == names_of(directory)


@pytest.mark.parametrize(
    ("hf_class", "prefix"),
    [("Sarashina2VisionForCausalLM", "llm."), ("Qwen3OmniMoeForConditionalGeneration", "thinker.")],
)
def test_language_model_inside_of_another(tmp_path: Path, hf_class: str, prefix: str) -> None:
    """The prefix of the part says nothing."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    shapes = read_shapes(directory / "model.safetensors")
    plain = names_of(directory)

    restore(directory, {f"{prefix}{name}": entry for name, entry in shapes.items()})

    assert plain == names_of(directory)


@pytest.mark.parametrize("hf_class", ["Lfm2Model", "Lfm2BidirectionalModel"])
def test_last_layer_of_a_model_for_retrieval(tmp_path: Path, hf_class: str) -> None:
    """It stands in a directory of its own; only one of the classes looks both ways."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    (directory / "modules.json").write_text("[]")
    (directory / "1_Dense").mkdir()
    write_safetensors(directory / "1_Dense/model.safetensors", {"linear.weight": ("F32", (8, 64))})

    conversion = convert(directory)

    first = conversion.tensors[0]
    assert ("dense_2.weight", (8, 64)) == (first.name, first.source.shape)
    assert 8 == keys_of(conversion)["lfm2.embedding_length_out"]
    assert (hf_class == "Lfm2BidirectionalModel") == ("lfm2.attention.causal" in keys_of(conversion))


def test_model_without_experts_is_dense_throughout(tmp_path: Path) -> None:
    """The runtime wants to know where experts begin: behind the last block."""
    keys = keys_of(convert(write_family_checkpoint(tmp_path / "model", "YoutuForCausalLM")))

    assert (2, 96, 0) == tuple(
        keys[f"deepseek2.{name}"]
        for name in ("leading_dense_block_count", "expert_feed_forward_length", "expert_shared_count")
    )


@pytest.mark.parametrize("hf_class", ["Qwen3OmniMoeForConditionalGeneration", "Qwen3ASRForConditionalGeneration"])
def test_end_of_a_message_ends_the_text(tmp_path: Path, hf_class: str) -> None:
    """Whatever the configuration says: it describes the whole, which also speaks."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {"260": {"content": "<|im_end|>", "special": True}}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))

    keys = keys_of(convert(directory))

    assert (260, 260) == (keys["tokenizer.ggml.bos_token_id"], keys["tokenizer.ggml.eos_token_id"])
