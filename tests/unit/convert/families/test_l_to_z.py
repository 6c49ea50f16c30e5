"""What single families do beyond their tables: other spellings of names, numbers by block, faults that are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modelbuild.convert import Checkpoint, Conversion
from modelbuild.convert.lora import plan_adapter
from modelbuild.convert.lora_base import base_of_checkpoint
from modelbuild.errors import InputError, UnsupportedError
from tests.adapters import random_pair, write_adapter
from tests.checkpoints import convert, keys_of
from tests.family_checkpoints import write_family_checkpoint
from tests.reference import tensor_bytes

Weights = dict[str, np.ndarray]


def contents_of(conversion: Conversion) -> dict[str, bytes]:
    return {tensor.name: tensor_bytes(tensor) for tensor in conversion.tensors}


def change_config(directory: Path, **changes: object) -> None:
    """Other settings; None removes one."""
    config = {**json.loads((directory / "config.json").read_text()), **changes}
    kept = {key: value for key, value in config.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(kept))


def as_plain_tensors(weights: Weights) -> Weights:
    """RWKV 7 as its first releases store it: narrow matrices with inputs as rows, vectors with axes of one."""
    plain: Weights = {"model.layers.0.attention.v1": np.zeros((4, 4), np.float32)}
    for name, values in weights.items():
        for layer, number in (("0.weight", "1"), ("2.weight", "2"), ("2.bias", "0")):
            if name.endswith(f"_lora.lora.{layer}"):
                name, values = name.replace(f"_lora.lora.{layer}", number), np.ascontiguousarray(values.T)
        if name.endswith(("k_k", "k_a", "feed_forward.x_k")):
            values = values.reshape(1, 1, -1)
        plain[name.replace("first.", "model.layers.0.").replace(".r_proj.", ".receptance.")] = values
    return plain


def with_long_norm_names(weights: Weights) -> Weights:
    """LLaDA with experts under the names of some releases."""
    return {
        name.replace("q_norm", "query_layernorm").replace("k_norm", "key_layernorm"): values
        for name, values in weights.items()
    }


@pytest.mark.parametrize(
    ("hf_class", "spelling"),
    [
        ("RWKV7ForCausalLM", as_plain_tensors),
        ("LLaDAMoEModelLM", with_long_norm_names),
    ],
)
def test_spellings_of_releases_are_one(tmp_path: Path, hf_class: str, spelling: Callable[[Weights], Weights]) -> None:
    """The same numbers under other names and in other layouts give the same file."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    expected = contents_of(convert(directory))

    save_file(spelling(load_file(directory / "model.safetensors")), directory / "model.safetensors")

    assert expected == contents_of(convert(directory))


@pytest.mark.parametrize(
    ("hf_class", "changes", "message"),
    [
        ("NemotronHForCausalLM", {"hybrid_override_pattern": "M*"}, "2 entries for 3 layers"),
        ("NemotronHForCausalLM", {"hybrid_override_pattern": "M*?"}, "unknown kind of block '?'"),
        ("PlamoForCausalLM", {"n_shared_head": 3}, "4 heads cannot share keys by 3"),
        ("OpenELMForCausalLM", {"num_kv_heads": [2]}, "a list of 2 numbers expected"),
        ("MapleForCausalLM", {"hidden_act": "gelu"}, "'silu' is expected, found 'gelu'"),
        ("RwkvHybridForCausalLM", {"wkv_version": 6}, "7 is expected"),
        ("Step3p5ForCausalLM", {"moe_layers_enum": "1,x"}, "numbers with commas between them"),
        ("Step3p5ForCausalLM", {"rope_theta": [1e4]}, "at least two numbers"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, hf_class: str, changes: dict[str, object], message: str) -> None:
    """A setting that the table or the runtime cannot follow is named before anything is read."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    change_config(directory, **changes)

    with pytest.raises(InputError) as caught:
        convert(directory)

    assert "CONFIG" == caught.value.code
    assert message in str(caught.value)


def test_gain_of_the_output_must_be_there(tmp_path: Path) -> None:
    """Talkie stores it as a tensor, and the runtime wants it as a key."""
    directory = write_family_checkpoint(tmp_path / "model", "TalkieForCausalLM")
    weights = load_file(directory / "model.safetensors")
    gain = weights.pop("lm_head_gain.w_g")

    assert keys_of(convert(directory))["talkie.logit_scale"] == pytest.approx(float(gain[0]))
    save_file(weights, directory / "model.safetensors")
    with pytest.raises(InputError, match=r"lm_head_gain\.w_g is missing"):
        convert(directory)


def test_heads_are_turned_the_other_way_round(tmp_path: Path) -> None:
    """The second half of each head of Talkie is negated, so that the usual rotation turns it back."""
    directory = write_family_checkpoint(tmp_path / "model", "TalkieForCausalLM")
    stored = load_file(directory / "model.safetensors")["model.blocks.1.attn.attn_key.weight"]

    made = np.frombuffer(contents_of(convert(directory, float_type="F32"))["blk.1.attn_k.weight"], "<f4")

    signs = np.tile(np.repeat([1, -1], 8), 4)[:, None]
    np.testing.assert_array_equal(made.reshape(stored.shape), stored * signs)


def test_end_of_an_answer_ends_the_text_of_laguna(tmp_path: Path) -> None:
    """It is a control token, and the second end; the template comes from its own file."""
    directory = write_family_checkpoint(tmp_path / "model", "LagunaForCausalLM")
    document = json.loads((directory / "tokenizer.json").read_text())
    document["added_tokens"][4].update(content="</assistant>", special=False)
    (directory / "tokenizer.json").write_text(json.dumps(document))
    (directory / "chat_template.jinja").write_text("the template")
    change_config(directory, eos_token_id=[256, 260], bos_token_id=256)

    keys = keys_of(convert(directory))

    assert (3, 260) == (keys["tokenizer.ggml.token_type"][260], keys["tokenizer.ggml.eot_token_id"])
    assert "the template" == keys["tokenizer.chat_template"]


def test_checkpoint_of_openelm_needs_the_tokenizer_of_another(tmp_path: Path) -> None:
    """Published ones have none; the error says whose it is."""
    directory = write_family_checkpoint(tmp_path / "model", "OpenELMForCausalLM")
    (directory / "tokenizer.model").unlink()

    with pytest.raises(InputError, match="uses that of Llama 2"):
        convert(directory)


def test_predicting_block_of_nemotron_counts_when_stored(tmp_path: Path) -> None:
    """Its two layers become one block, which attends and has experts."""
    directory = write_family_checkpoint(tmp_path / "model", "NemotronHPuzzleForCausalLM")
    change_config(
        directory, architectures=["NemotronHForCausalLM"], block_configs=None, hybrid_override_pattern="M*E",
        num_experts_per_tok=2, moe_intermediate_size=32, num_nextn_predict_layers=1,
    )  # fmt: skip
    weights = load_file(directory / "model.safetensors")
    without = keys_of(convert(directory))
    last = "backbone.layers.2."
    for name, values in list(weights.items()):
        if name.startswith(f"{last}mixer."):
            weights[name.replace(last, "mtp.layers.1.")] = values
        if name.startswith("backbone.layers.1."):
            weights[name.replace("backbone.layers.1.", "mtp.layers.0.")] = values
    vector = np.ones(64, np.float32)
    weights |= {f"mtp.layers.0.{name}.weight": vector for name in ("enorm", "hnorm")}
    weights |= {f"mtp.layers.1.{name}.weight": vector for name in ("norm", "final_layernorm")}
    weights["mtp.layers.0.eh_proj.weight"] = np.ones((64, 128), np.float32)

    save_file(weights, directory / "model.safetensors")
    keys = keys_of(convert(directory))

    assert (3, None) == (without["nemotron_h_moe.block_count"], without.get("nemotron_h_moe.nextn_predict_layers"))
    assert (4, 1) == (keys["nemotron_h_moe.block_count"], keys["nemotron_h_moe.nextn_predict_layers"])
    assert [0, 2, 0, 2] == keys["nemotron_h_moe.attention.head_count_kv"]


def as_three_parts(weights: Weights) -> Weights:
    """ruGPT-3 XL as it is stored: queries, keys and values by their names."""
    return {
        "_proj.".join((name[: name.index("qkv_")] + "qkv"[int(name[-1])], name.split("qkv_")[1][:-2]))
        if "qkv_" in name
        else name: values
        for name, values in weights.items()
    }


def test_three_parts_become_one_matrix(tmp_path: Path) -> None:
    """All queries, all keys, all values, and their biases likewise."""
    directory = write_family_checkpoint(tmp_path / "model", "RuGPT3XLForCausalLM")
    weights = as_three_parts(load_file(directory / "model.safetensors"))
    save_file(weights, directory / "model.safetensors")

    found = contents_of(convert(directory, float_type="F32"))

    for kind in ("weight", "bias"):
        parts = [weights[f"model.layers.1.self_attn.{part}_proj.{kind}"].astype(np.float32) for part in "qkv"]
        assert np.concatenate(parts).tobytes() == found[f"blk.1.attn_qkv.{kind}"]


@pytest.mark.parametrize("parts", ["q", "qkv"])
def test_adapter_of_a_part_of_a_matrix_is_refused(tmp_path: Path, parts: str) -> None:
    """The runtime knows the whole matrix only, of which the parts are changed with different inputs."""
    directory = write_family_checkpoint(tmp_path / "model", "RuGPT3XLForCausalLM")
    pairs = {f"model.layers.0.self_attn.{part}_proj": random_pair(64, 64) for part in parts}

    with pytest.raises((InputError, UnsupportedError)) as caught:
        plan_adapter(write_adapter(tmp_path / "a", pairs), base_of_checkpoint(Checkpoint.of_directory(directory)))

    assert "self_attn" in str(caught.value)
