"""The safetensors reader: agreement with the safetensors package, and refusal of every crafted file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from modelbuild.errors import InputError
from modelbuild.formats.safetensors import DTYPE_BITS, open_safetensors
from tests.unit.formats.crafted import LFS_POINTER, at_little_cost, verdict
from tests.unit.formats.memory_file import memory_file


def file(header: str | bytes, data_bytes: int = 0, length: int | None = None) -> bytes:
    """A file with this header text and as many zero bytes of data."""
    text = header.encode() if isinstance(header, str) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data_bytes)


def entry(dtype: str, shape: object, *offsets: int) -> dict[str, object]:
    """The description of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def tensors(**entries: object) -> str:
    """The header of some tensors."""
    return json.dumps(entries)


A = entry("F32", [2], 0, 8)
#: Case name to the file's bytes and the code it must give; "" is accepted.
CASES: dict[str, tuple[bytes, str]] = {
    "s01": (b"", "TRUNCATED"),
    "s02": (b"\0\0\0", "TRUNCATED"),
    "s03": (file("{}", length=2**62), "HEADER"),
    "s04": (file("{}", length=2**64 - 1), "HEADER"),
    "s05": (file("{}", length=100_000_001), "HEADER"),
    "s06": (file("{}", length=100), "TRUNCATED"),
    "s07": (file("{}", length=0), "TRUNCATED"),
    "s08": (LFS_POINTER, "HEADER"),
    "s09": (file("{}"), ""),
    "s10": (file(tensors(a=A), 8), ""),
    "s11": (file(tensors(a=A) + "   ", 8), ""),
    "s12": (file("   " + tensors(a=A), 8), "JSON"),
    "s13": (file("[1]"), "JSON"),
    "s14": (file('{"a":' + "[" * 50_000 + "]" * 50_000 + "}"), "JSON"),
    "s15": (file(b'{"\xff":1}'), "JSON"),
    "s16": (file('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', 8), "JSON"),
    "s17": (
        file(f'{{"a":{json.dumps(entry("F32", [1], 0, 4))},"a":{json.dumps(A)}}}', 8),
        "DUPLICATE",
    ),
    "s18": (file('{"a":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}', 8), "DUPLICATE"),
    "s19": (file(tensors(a=entry("F32", [2], 8, 0)), 8), "OFFSET"),
    "s20": (file(tensors(a=entry("F32", [4], 0, 16)), 8), "DATA"),
    "s21": (file(tensors(a=entry("F32", [3], 0, 8)), 8), "SHAPE"),
    "s22": (file(tensors(a=entry("F32", [-1], 0, 8)), 8), "SHAPE"),
    "s23": (file(tensors(a=entry("F32", [2**62, 2**62], 0, 0))), "SHAPE"),
    "s24": (file(tensors(a=entry("F32", [2**32, 2**32], 0, 0))), "SHAPE"),
    "s25": (file(tensors(a=entry("F32", [2], 8, 16)), 16), "OFFSET"),
    "s26": (file(tensors(a=A, b=entry("F32", [2], 16, 24)), 24), "OFFSET"),
    "s27": (file(tensors(a=A, b=A), 8), "OFFSET"),
    "s28": (file(tensors(a=A), 16), "DATA"),
    "s29": (file(tensors(a=A), 7), "DATA"),
    "s30": (file(tensors(a=entry("F99", [2], 0, 8)), 8), "TYPE"),
    "s31": (file(json.dumps({"../../x": A}), 8), ""),
    "s32": (file(tensors(__metadata__={"a": 1})), "METADATA"),
    "s33": (file(tensors(a=entry("F32", [0, 5], 0, 0))), ""),
    "s34": (file(tensors(a=entry("F32", [], 0, 4)), 4), ""),
    "s35": (file(tensors(a=entry("F32", [2.0], 0, 8)), 8), "SHAPE"),
    "s36": (file(tensors(a=entry("F32", [True], 0, 4)), 4), "SHAPE"),
    "s37": (file(tensors(a={**A, "more": 1}), 8), "ENTRY"),
    "s38": (file(tensors(a={"dtype": "F32", "shape": [2]}), 8), "ENTRY"),
    "s39": (file(tensors(a=entry("F32", [2], 0, 4, 8)), 8), "OFFSET"),
    "s40": (file('{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,8]}}' % ("1" * 10_000), 8), "JSON"),
    "s41": (file(tensors(b=entry("F32", [2], 8, 16), a=A), 16), ""),
    "s42": (file(json.dumps({"": A}), 8), "NAME"),
    "s43": (file(json.dumps({"a\0b": A}), 8), "NAME"),
    "surrogate": (file(f'{{"\\ud800":{json.dumps(A)}}}', 8), "JSON"),
    "long-name": (file(json.dumps({"n" * 4097: A}), 8), "NAME"),
    "entry-list": (file(tensors(a=[1])), "ENTRY"),
    "metadata-list": (file(tensors(__metadata__=[])), "METADATA"),
    "metadata-null": (file(tensors(__metadata__=None)), "METADATA"),
    "offset-true": (file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,true]}}', 1), "OFFSET"),
    "offset-negative": (file(tensors(a=entry("F32", [2], -8, 0))), "OFFSET"),
    "nine-dimensions": (file(tensors(a=entry("U8", [1] * 9, 0, 1)), 1), "SHAPE"),
    "half-byte": (file(tensors(a=entry("F4", [3], 0, 2)), 2), "SHAPE"),
    "whole-bytes": (file(tensors(a=entry("F4", [4], 0, 2)), 2), ""),
    "shape-text": (file(tensors(a=entry("U8", "1", 0, 1)), 1), "SHAPE"),
    "pickle": (b"\x80\x04\x95" + bytes(100), "TRUNCATED"),
    "many-lists": (file('{"a":[' + "[]," * (1 << 20) + "[]]}"), "HEADER"),
}  # fmt: skip
MEMORY_LIMIT_BYTES = 16 << 20


@pytest.mark.parametrize("case", CASES)
def test_crafted_file_gets_its_code(case: str, tmp_path: Path) -> None:
    """Each broken file is refused with the code of the rule it breaks, in bounded time and memory."""
    data, code = CASES[case]
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)

    assert code == at_little_cost(lambda: verdict(open_safetensors, path), MEMORY_LIMIT_BYTES)


def test_lfs_pointer_is_named(tmp_path: Path) -> None:
    """s08: whoever cloned without LFS is told so, and what to type."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(LFS_POINTER)

    with pytest.raises(InputError, match="Git LFS pointer") as caught:
        open_safetensors(path)

    assert "git lfs pull" in caught.value.hint


def test_every_truncation_is_refused() -> None:
    """A valid file cut at any byte is an InputError, never anything else."""
    data = file(tensors(__metadata__={"a": "b"}, a=A, b=entry("BF16", [2, 2], 8, 16)), 16)

    with memory_file() as cut:
        for length in range(len(data)):
            cut.write(data[:length])
            assert verdict(open_safetensors, cut.path) in {"TRUNCATED", "DATA"}, length


def test_reads_what_the_safetensors_package_writes(tmp_path: Path) -> None:
    """Names, shapes, dtypes, metadata and bytes agree with the independent implementation."""
    arrays = {
        "b": np.arange(6, dtype=np.float16).reshape(2, 3),
        "a": np.arange(3, dtype=np.int64),
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 5), np.uint8),
    }
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata={"format": "np", "note": "é"})

    header = open_safetensors(path)

    data = path.read_bytes()
    assert {"format": "np", "note": "é"} == header.metadata
    assert {"b": "F16", "a": "I64", "scalar": "F32", "empty": "U8"} == {n: t.dtype for n, t in header.items()}
    assert {name: array.shape for name, array in arrays.items()} == {n: t.shape for n, t in header.items()}
    for name, array in arrays.items():
        stored = header[name]
        assert array.tobytes() == data[stored.offset : stored.offset + stored.size_bytes]
    with safetensors.safe_open(path, "np") as other:
        assert set(other.keys()) == set(header)


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_element_sizes_agree_with_the_package(dtype: str, tmp_path: Path) -> None:
    """Eight elements of every dtype take the bytes that the independent implementation expects."""
    size_bytes = DTYPE_BITS[dtype]
    path = tmp_path / "m.safetensors"
    path.write_bytes(file(tensors(a=entry(dtype, [8], 0, size_bytes)), size_bytes))

    assert size_bytes == open_safetensors(path)["a"].size_bytes
    with safetensors.safe_open(path, "np") as other:
        assert dtype == other.get_slice("a").get_dtype()
