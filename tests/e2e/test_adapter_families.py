"""Adapters for every family: what the converted adapter changes is what merging it before the conversion changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modelbuild.convert import Checkpoint, Conversion, ConversionOptions, plan_conversion
from modelbuild.convert.lora import plan_adapter
from modelbuild.convert.lora_base import AdapterBase, base_of_checkpoint, base_of_header
from modelbuild.errors import UnsupportedError
from modelbuild.formats.gguf.reader import open_gguf
from tests.adapters import ALPHA, RANK, Pairs, changes_of, random_pair, values_of, write_adapter
from tests.family_checkpoints import CONFIGS, write_family_checkpoint
from tests.llama_runtime import llama
from tests.written import write_conversion

#: Modules that cannot have an adapter, because the conversion takes them apart and turns one part.
_LATENT = (
    "BailingMoeV3ForCausalLM",
    "Dots3NoteForCausalLM",
    "HYV4ForCausalLM",
    "DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM",
    "DeepseekV32ForCausalLM",
    "Glm4MoeLiteForCausalLM",
    "Glm5NextForConditionalGeneration",
    "GlmMoeDsaForCausalLM",
    "KimiLinearForCausalLM",
    "KimiVLForConditionalGeneration",
    "YoutuForCausalLM",
)
TAKEN_APART = dict.fromkeys(_LATENT, ("kv_b_proj",))
#: Classes that store inputs as rows, which the pairs of PEFT do not.
TURNED = ("GPT2LMHeadModel", "JAISLMHeadModel")
#: Classes whose configuration has numbers that go into the weights, which no key of a GGUF tells.
MULTIPLIED = ("JAISLMHeadModel", "FalconH1ForCausalLM")
#: No projections, although they are matrices.
_OTHER = ("norm", "embed", "conv", "wte", "wpe")
Weights = Mapping[str, np.ndarray]


def pairs_for(weights: Weights, *, turned: bool = False) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A random pair for each matrix that a library would make one for."""
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, values in weights.items():
        if values.ndim == 2 and name.endswith(".weight") and not any(part in name for part in _OTHER):
            inputs_first = turned and name != "lm_head.weight"
            rows, columns = reversed(values.shape) if inputs_first else values.shape
            pairs[name.removesuffix(".weight")] = random_pair(rows, columns, seed=len(pairs))
    return pairs


def without_taken_apart(base: AdapterBase, directory: Path, pairs: Pairs) -> tuple[Conversion, set[str]]:
    """The adapter of all modules that can have one, and the others, of which the errors speak one by one."""
    refused: set[str] = set()
    while True:
        left = {module: pair for module, pair in pairs.items() if module not in refused}
        try:
            return plan_adapter(write_adapter(directory, left), base), refused
        except UnsupportedError as error:
            (named,) = (module for module in left if f" {module} " in str(error))
            refused.add(named)


def merged(weights: Weights, pairs: Pairs, scale: float, *, turned: bool = False) -> dict[str, np.ndarray]:
    changed = dict(weights)
    for module, (a, b) in pairs.items():
        change = np.float32(scale) * (b @ a)
        inputs_first = turned and module != "lm_head"
        changed[f"{module}.weight"] = weights[f"{module}.weight"] + (change.T if inputs_first else change)
    return changed


def convert_f32(directory: Path) -> Conversion:
    return plan_conversion(Checkpoint.of_directory(directory), ConversionOptions(float_type="F32"))


@pytest.mark.parametrize("hf_class", CONFIGS)
def test_adapter_changes_what_merging_it_changes(tmp_path: Path, hf_class: str) -> None:
    """For each module that can have an adapter, the converted pair is the difference of two conversions."""
    directory = write_family_checkpoint(tmp_path / "base", hf_class)
    weights = load_file(directory / "model.safetensors")
    plain = values_of(convert_f32(directory))
    base = base_of_checkpoint(Checkpoint.of_directory(directory))
    turned = hf_class in TURNED
    pairs = pairs_for(weights, turned=turned)

    adapter, refused = without_taken_apart(base, tmp_path / "adapter", pairs)

    assert set(TAKEN_APART.get(hf_class, ())) == {module.rpartition(".")[2] for module in refused}
    pairs = {module: pair for module, pair in pairs.items() if module not in refused}
    save_file(merged(weights, pairs, ALPHA / RANK, turned=turned), directory / "model.safetensors")
    after = values_of(convert_f32(directory))
    changes = changes_of(adapter)
    assert {name for name in after if not np.array_equal(after[name], plain[name])} == set(changes)
    for name, change in changes.items():
        np.testing.assert_allclose(after[name] - plain[name], change, atol=1e-4, rtol=0, err_msg=name)


@pytest.mark.parametrize("hf_class", CONFIGS)
def test_header_of_a_gguf_tells_as_much_as_a_checkpoint(tmp_path: Path, hf_class: str) -> None:
    """The same adapter comes out whether the base is a checkpoint or the GGUF made of it."""
    directory = write_family_checkpoint(tmp_path / "base", hf_class)
    weights = load_file(directory / "model.safetensors")
    file = write_conversion(convert_f32(directory), tmp_path / "base.gguf")
    checkpoint = base_of_checkpoint(Checkpoint.of_directory(directory))
    header = base_of_header(open_gguf(file))
    pairs = pairs_for(weights, turned=hf_class in TURNED)
    if hf_class in MULTIPLIED:
        with pytest.raises(UnsupportedError, match="not in its GGUF"):
            plan_adapter(write_adapter(tmp_path / "adapter", pairs), header)
        return

    from_checkpoint, refused = without_taken_apart(checkpoint, tmp_path / "adapter", pairs)
    left = {module: pair for module, pair in pairs.items() if module not in refused}
    from_header = plan_adapter(write_adapter(tmp_path / "adapter", left), header)

    assert from_checkpoint.kv == from_header.kv
    assert from_checkpoint.tensors == from_header.tensors


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "hf_class",
    [
        "LlamaForCausalLM",
        "Qwen2MoeForCausalLM",
        "GPT2LMHeadModel",
        "Phi3ForCausalLM",
        "GPTNeoXForCausalLM",
        "Gemma2ForCausalLM",
    ],
)
def test_runtime_applies_what_was_trained(tmp_path: Path, hf_class: str) -> None:
    """Real llama.cpp with base and adapter gives the logits of the merged model: rows, fused rows, experts, turned."""
    directory = write_family_checkpoint(tmp_path / "base", hf_class)
    weights = {
        name: values / 8 if values.ndim > 1 else values
        for name, values in load_file(directory / "model.safetensors").items()
    }
    save_file(weights, directory / "model.safetensors")
    turned = hf_class in TURNED
    pairs = pairs_for(weights, turned=turned)
    adapter = plan_adapter(
        write_adapter(tmp_path / "adapter", pairs), base_of_checkpoint(Checkpoint.of_directory(directory))
    )
    plain = write_conversion(convert_f32(directory), tmp_path / "base.gguf")
    save_file(merged(weights, pairs, ALPHA / RANK, turned=turned), directory / "model.safetensors")
    whole = write_conversion(convert_f32(directory), tmp_path / "merged.gguf")
    tokens = [5, 99, 7, 7, 200, 31]

    with llama(whole) as model:
        wanted = model.logits(tokens)
    with llama(plain) as model:
        without = model.logits(tokens)
        model.forget()
        model.use_adapter(write_conversion(adapter, tmp_path / "adapter.gguf"))
        found = model.logits(tokens)

    scale = float(np.abs(wanted).max())
    assert float(np.abs(wanted - without).max()) > 0.05 * scale
    np.testing.assert_allclose(found / scale, wanted / scale, atol=5e-3, rtol=0)


@pytest.mark.llamacpp
@pytest.mark.parametrize("hf_class", ["DeepseekV2ForCausalLM", "MiniCPM3ForCausalLM"])
def test_remark_names_what_the_runtime_does_not_apply(tmp_path: Path, hf_class: str) -> None:
    """Changes of these matrices alone leave the logits of real llama.cpp as they are; of others there is no remark."""
    directory = write_family_checkpoint(tmp_path / "base", hf_class)
    weights = load_file(directory / "model.safetensors")
    base = base_of_checkpoint(Checkpoint.of_directory(directory))
    pairs = pairs_for(weights)
    latent = {name: pair for name, pair in pairs.items() if name.endswith(("q_a_proj", "kv_a_proj_with_mqa"))}
    other = {name: pair for name, pair in pairs.items() if name.endswith("mlp.down_proj")}
    plain = write_conversion(convert_f32(directory), tmp_path / "base.gguf")
    ineffective = plan_adapter(write_adapter(tmp_path / "latent", latent), base)
    effective = plan_adapter(write_adapter(tmp_path / "other", other), base)

    with llama(plain) as model:
        without = model.logits([5, 99, 7])
        model.forget()
        model.use_adapter(write_conversion(ineffective, tmp_path / "adapter.gguf"))
        found = model.logits([5, 99, 7])

    (note,) = ineffective.notes
    assert "attn_q_a, attn_kv_a_mqa" in note
    assert () == effective.notes
    np.testing.assert_array_equal(without, found)
