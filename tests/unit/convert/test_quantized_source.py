"""Checkpoints that are quantized already: their numbers, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.convert.mxfp4 import Mxfp4Repacked
from modelbuild.convert.packed_integers import UnpackedIntegers
from modelbuild.convert.planned import Stored, read_floats, row_count
from modelbuild.errors import InputError, UnsupportedError
from modelbuild.formats.safetensors import StoredTensor
from tests.checkpoints import convert, llama_config, llama_tensors, write_checkpoint
from tests.reference import read_span

UP = "model.layers.0.mlp.up_proj.weight"
COMPRESSED = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}}


def stored(path: Path, array: np.ndarray, dtype: str) -> Stored:
    offset = path.stat().st_size if path.exists() else 0
    with path.open("ab") as file:
        file.write(array.tobytes())
    return Stored(StoredTensor(path, "t", dtype, array.shape, offset, array.nbytes))


@settings(max_examples=30)
@given(st.sampled_from([2, 4, 8]), st.integers(1, 9), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_packed_integers_become_their_numbers(
    tmp_path_factory: pytest.TempPathFactory, bits: int, rows: int, groups: int, with_zero: bool, seed: int
) -> None:
    """Naively unpacked, less the zero of the group, times its scale."""
    random = np.random.default_rng(seed)
    per_word, group = 32 // bits, 32
    columns = groups * group
    values = random.integers(0, 1 << bits, (rows, columns))
    words = np.zeros((rows, columns // per_word), np.uint32)
    for column in range(columns):
        words[:, column // per_word] |= values[:, column].astype(np.uint32) << (bits * (column % per_word))
    scales = random.standard_normal((rows, groups)).astype(np.float32)
    zeros = random.integers(0, 1 << bits, (rows, groups))
    zero_words = np.zeros((-(-rows // per_word), groups), np.uint32)
    for row in range(rows):
        zero_words[row // per_word] |= zeros[row].astype(np.uint32) << (bits * (row % per_word))
    path = tmp_path_factory.mktemp("packed") / "data"
    zero = stored(path, zero_words, "I32") if with_zero else None
    source = UnpackedIntegers(stored(path, words, "I32"), stored(path, scales, "F32"), zero, bits, group, columns)

    subtracted = zeros if with_zero else np.full_like(zeros, 1 << (bits - 1))
    expected = (values - np.repeat(subtracted, group, 1)).astype(np.float32) * np.repeat(scales, group, 1)
    start = rows // 2
    assert np.array_equal(expected, read_floats(source, read_span, 0, rows))
    assert np.array_equal(expected[start:], read_floats(source, read_span, start, rows))


def test_mxfp4_keeps_every_value(tmp_path: Path) -> None:
    """Values decoded from the checkpoint's layout are those of the block format, in the same places."""
    random = np.random.default_rng(3)
    blocks = random.integers(0, 256, (2, 3, 4, 16), dtype=np.uint8)
    scales = random.integers(100, 150, (2, 3, 4), dtype=np.uint8)
    path = tmp_path / "data"
    source = Mxfp4Repacked(stored(path, blocks, "U8"), stored(path, scales, "U8"))

    codes = np.stack([blocks & 15, blocks >> 4], -1).reshape(6, 4, 32)
    packed = source.read_rows(read_span, 0, row_count(source)).reshape(6, 4, 17)
    nibbles = packed[:, :, 1:]

    assert (2, 3, 128) == source.shape
    assert np.array_equal(scales.reshape(6, 4), packed[:, :, 0])
    assert np.array_equal(codes, np.concatenate([nibbles & 15, nibbles >> 4], -1))
    assert np.array_equal(packed.reshape(6, -1)[2:5], source.read_rows(read_span, 2, 5))


@pytest.mark.parametrize("scale_shape", [(48, 1), (48,), (1,), ()])
def test_scales_may_be_for_rows_or_for_all(tmp_path: Path, scale_shape: tuple[int, ...]) -> None:
    """compressed-tensors names them weight_scale."""
    config = llama_config(quantization_config={**COMPRESSED, "format": "float-quantized"})
    tensors = {**llama_tensors(), UP: ("F8_E4M3", (48, 32)), f"{UP}_scale": ("F32", scale_shape)}
    conversion = convert(write_checkpoint(tmp_path / "m", config, tensors))

    (tensor,) = [tensor for tensor in conversion.tensors if tensor.name == "blk.0.ffn_up.weight"]
    assert (48, 32) == read_floats(tensor.source, read_span, 0, 48).shape


def test_packed_checkpoint_has_its_plain_tensors(tmp_path: Path) -> None:
    """Words, scales and stored shapes become one tensor, which stands after all others, as in the reference."""
    groups = {"group_0": {"weights": {"num_bits": 4, "group_size": 16}}}
    config = llama_config(quantization_config={**COMPRESSED, "config_groups": groups, "format": "pack-quantized"})
    tensors = {name: entry for name, entry in llama_tensors().items() if name != UP}
    tensors |= {f"{UP}_packed": ("I32", (48, 4)), f"{UP}_scale": ("BF16", (48, 2)), f"{UP}_shape": ("I32", (2,))}
    conversion = convert(write_checkpoint(tmp_path / "m", config, tensors))

    tensor = conversion.tensors[-1]
    assert "blk.0.ffn_up.weight" == tensor.name
    assert ("F32", (48, 32)) == (tensor.source.dtype, tensor.source.shape)
    assert 20 == len(conversion.tensors)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "nvfp4-pack-quantized"},
        {"format": "float-quantized", "config_groups": {"a": {}, "b": {}}},
        {"format": "pack-quantized", "config_groups": {"a": {"weights": {"num_bits": 3}}}},
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    ],
)
def test_other_layouts_are_refused_by_name(tmp_path: Path, changes: dict[str, object]) -> None:
    """Before any weights file is opened."""
    directory = write_checkpoint(tmp_path / "m", llama_config(quantization_config={**COMPRESSED, **changes}))
    (directory / "model.safetensors").write_bytes(b"garbage")

    with pytest.raises(UnsupportedError) as caught:
        convert(directory)

    assert "QUANTIZED" == caught.value.code


def test_scale_of_a_wrong_shape(tmp_path: Path) -> None:
    """It would scale other weights than it was made for."""
    config = llama_config(quantization_config={"quant_method": "fp8", "weight_block_size": [16, 16]})
    tensors = {**llama_tensors(), UP: ("F8_E4M3", (48, 32)), f"{UP}_scale_inv": ("F32", (2, 2))}

    with pytest.raises(InputError, match=r"unexpected fp8 scale shape \[2, 2\]; want \[3, 2\]"):
        convert(write_checkpoint(tmp_path / "m", config, tensors))
