"""Planning a conversion: what it reads, what it decides, what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from modelbuild.convert import Checkpoint, ConversionOptions, plan_conversion
from modelbuild.errors import InputError, Problems, UnsupportedError, UsageError
from modelbuild.formats.files import InputFile
from modelbuild.formats.gguf.types import GgmlType
from tests.checkpoints import convert, keys_of, llama_config, llama_tensors, write_checkpoint, write_sparse
from tests.reference import tensor_bytes


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all reads."""
    sizes: list[int] = []
    read_at = InputFile.read_at

    def counted(self: InputFile, offset: int, size: int) -> bytes:
        sizes.append(size)
        return read_at(self, offset, size)

    monkeypatch.setattr(InputFile, "read_at", counted)
    return sizes


def test_planning_reads_headers_and_small_files_only(tmp_path: Path, bytes_read: list[int]) -> None:
    """Gigabytes of weights cost nothing to plan."""
    width = 1 << 24
    config = llama_config(intermediate_size=width)
    wide = {
        name: (dtype, tuple(width if size == 48 else size for size in shape))
        for name, (dtype, shape) in llama_tensors().items()
    }
    directory = write_checkpoint(tmp_path / "big", config, {})
    size_bytes = write_sparse(directory / "model.safetensors", wide)

    conversion = convert(directory)

    assert (
        5 << 30
        < size_bytes
        < sum(span.size_bytes for tensor in conversion.tensors for span in tensor.source.spans()) + 1
    )
    assert sum(bytes_read) < 100_000


def test_unsupported_class_is_refused_before_weights_are_opened(tmp_path: Path, bytes_read: list[int]) -> None:
    """The weights may be anything: the class alone decides, and near names are given."""
    directory = write_checkpoint(tmp_path / "m", llama_config(architectures=["LlamaForCausalLN"]))
    (directory / "model.safetensors").write_bytes(b"garbage")

    with pytest.raises(UnsupportedError, match='unsupported architecture "LlamaForCausalLN"') as caught:
        convert(directory)

    assert "ARCHITECTURE" == caught.value.code
    assert "LlamaForCausalLM" in caught.value.hint
    assert sum(bytes_read) < 10_000


@pytest.mark.parametrize(
    ("float_type", "expected", "file_type"),
    [("auto", GgmlType.BF16, 32), ("F32", GgmlType.F32, 0), ("F16", GgmlType.F16, 1), ("BF16", GgmlType.BF16, 32)],
)
def test_matrices_get_the_asked_type_and_norms_stay_f32(
    tmp_path: Path, float_type: str, expected: GgmlType, file_type: int
) -> None:
    """Vectors are always F32; `general.file_type` says what matrices are."""
    conversion = convert(write_checkpoint(tmp_path / "m"), float_type=float_type)

    types = {tensor.name: tensor.type for tensor in conversion.tensors}
    assert expected == types["blk.0.attn_q.weight"]
    assert GgmlType.F32 == types["blk.0.attn_norm.weight"]
    assert file_type == keys_of(conversion)["general.file_type"]


def test_source_precision_keeps_every_tensors_own(tmp_path: Path) -> None:
    """Without loss before quantization: F32 stays F32 beside BF16."""
    tensors = llama_tensors()
    tensors["model.layers.0.mlp.up_proj.weight"] = ("F32", (48, 32))
    conversion = convert(write_checkpoint(tmp_path / "m", tensors=tensors), float_type="source")

    types = {tensor.name: tensor.type for tensor in conversion.tensors}
    assert (GgmlType.F32, GgmlType.BF16) == (types["blk.0.ffn_up.weight"], types["blk.0.ffn_gate.weight"])


def test_queries_are_permuted_and_the_rest_is_copied(tmp_path: Path) -> None:
    """q and k go from halves to pairs, everything else is the checkpoint's bytes."""
    directory = write_checkpoint(tmp_path / "m")
    conversion = convert(directory)
    by_name = {tensor.name: tensor for tensor in conversion.tensors}
    stored = {tensor.name: tensor for tensor in Checkpoint.of_directory(directory).weights()}

    def stored_words(name: str) -> np.ndarray:
        tensor = stored[name]
        data = tensor.path.read_bytes()[tensor.offset : tensor.offset + tensor.size_bytes]
        return np.frombuffer(data, np.uint16).reshape(tensor.shape)

    q = stored_words("model.layers.0.self_attn.q_proj.weight").reshape(4, 2, 4, 32).swapaxes(1, 2)
    assert q.tobytes() == tensor_bytes(by_name["blk.0.attn_q.weight"], 3)
    v = stored_words("model.layers.0.self_attn.v_proj.weight")
    assert v.tobytes() == tensor_bytes(by_name["blk.0.attn_v.weight"], 5)


def test_result_does_not_depend_on_place_or_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files under another parent directory, listed in another order, give the same keys and tensors."""
    first = convert(write_checkpoint(tmp_path / "here" / "m"))
    second_directory = write_checkpoint(tmp_path / "there" / "m")
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: Path) -> None:
            with scandir(path) as entries:
                self._entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> object:
            return iter(self._entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    second = convert(second_directory)

    assert first.kv == second.kv
    assert [(t.name, t.type) for t in first.tensors] == [(t.name, t.type) for t in second.tensors]


def test_files_named_one_by_one_have_no_directory_name(tmp_path: Path) -> None:
    """A name is never made of a path the user did not choose as a name."""
    directory = write_checkpoint(tmp_path / "Some-7B-Instruct")
    files = dict(Checkpoint.of_directory(directory).files)

    named = keys_of(convert(directory))
    unnamed = keys_of(plan_conversion(Checkpoint(files, "files"), ConversionOptions()))

    assert "Some 7B Instruct" == named["general.name"]
    assert "general.name" not in unnamed


def test_missing_tensors_and_bad_tokenizer_are_reported_together(tmp_path: Path) -> None:
    """The user fixes both at once."""
    tensors = llama_tensors()
    del tensors["model.norm.weight"]
    directory = write_checkpoint(
        tmp_path / "m", tensors=tensors, tokenizer__json={"model": {"type": "BPE", "vocab": 1}}
    )

    with pytest.raises(Problems) as caught:
        convert(directory)

    assert ["ENTRY", "TOKENIZER"] == sorted(error.code for error in caught.value.errors)


def test_untied_model_without_output_is_incomplete(tmp_path: Path) -> None:
    """It would talk nonsense with the embedding as output."""
    directory = write_checkpoint(tmp_path / "m", llama_config(tie_word_embeddings=False))

    with pytest.raises(InputError, match=r"1 missing:\n    lm_head.weight"):
        convert(directory)


def test_more_rows_than_tokens_are_filled_with_placeholders(tmp_path: Path) -> None:
    """The runtime wants one token per row of the embedding."""
    conversion = convert(write_checkpoint(tmp_path / "m", tensors=llama_tensors(rows=16)))

    assert ["[PAD12]", "[PAD13]", "[PAD14]", "[PAD15]"] == keys_of(conversion)["tokenizer.ggml.tokens"][12:]


def test_fewer_rows_than_tokens_are_an_error(tmp_path: Path) -> None:
    """Some tokens would have no embedding."""
    directory = write_checkpoint(tmp_path / "m", tensors=llama_tensors(rows=8))

    with pytest.raises(InputError, match="12 tokens, but 8 rows"):
        convert(directory)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_methods_that_cannot_be_read_are_refused_by_name(tmp_path: Path, method: str) -> None:
    """Before any weights file is opened."""
    config = llama_config(quantization_config={"quant_method": method})
    directory = write_checkpoint(tmp_path / "m", config)
    (directory / "model.safetensors").write_bytes(b"garbage")

    with pytest.raises(UnsupportedError, match=method) as caught:
        convert(directory)

    assert "QUANTIZED" == caught.value.code


def test_unknown_pre_tokenizer_of_the_user_has_near_names(tmp_path: Path) -> None:
    """A mistake on the user's side, found before anything is read."""
    with pytest.raises(UsageError, match="llama-bpx") as caught:
        convert(write_checkpoint(tmp_path / "m"), pre_tokenizer="llama-bpx")

    assert "llama-bpe" in caught.value.hint


def test_code_of_the_checkpoint_is_mentioned_and_not_loaded(tmp_path: Path) -> None:
    """auto_map names Python files; they stay files."""
    config = llama_config(auto_map={"AutoModelForCausalLM": "evil.Model"})
    directory = write_checkpoint(tmp_path / "m", config, evil__py="import pathlib; pathlib.Path('ran').touch()")

    conversion = convert(directory)

    assert "auto_map" in conversion.notes[0]
    assert not (tmp_path / "ran").exists()


def test_llama3_scaling_adds_frequency_factors_in_front(tmp_path: Path) -> None:
    """One factor for each pair of dimensions: 1 for high frequencies, the factor for low ones."""
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    conversion = convert(write_checkpoint(tmp_path / "m", llama_config(rope_scaling=scaling)))

    factors = np.frombuffer(tensor_bytes(conversion.tensors[0]), np.float32)
    assert "rope_freqs.weight" == conversion.tensors[0].name
    assert (1.0, 8.0) == (factors[0], factors[-1])
    assert (4,) == factors.shape


def test_eight_bit_weights_become_numbers_with_their_scales(tmp_path: Path) -> None:
    """Scales of blocks are joined with their weights and are no tensors of the result."""
    config = llama_config(quantization_config={"quant_method": "fp8", "weight_block_size": [16, 16]})
    tensors = llama_tensors()
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = ("F8_E4M3", (48, 32))
    tensors[f"{name}_scale_inv"] = ("F32", (3, 2))
    conversion = convert(write_checkpoint(tmp_path / "m", config, tensors))

    (tensor,) = [tensor for tensor in conversion.tensors if tensor.name == "blk.0.ffn_up.weight"]
    assert ("F32", (48, 32)) == (tensor.source.dtype, tensor.source.shape)
    assert 20 == len(conversion.tensors)


def test_eight_bit_weights_without_scale_are_an_error(tmp_path: Path) -> None:
    """They would be off by orders of magnitude."""
    config = llama_config(quantization_config={"quant_method": "fp8", "weight_block_size": [16, 16]})
    tensors = llama_tensors()
    tensors["model.layers.0.mlp.up_proj.weight"] = ("F8_E4M3", (48, 32))

    with pytest.raises(InputError, match="missing fp8 scale companion for tensor"):
        convert(write_checkpoint(tmp_path / "m", config, tensors))
