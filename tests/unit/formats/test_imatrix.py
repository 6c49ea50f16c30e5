"""Importance matrices of both forms, and the refusal of everything that would spoil a quantization."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from modelbuild.errors import ChangedError, InputError
from modelbuild.formats.gguf import writer
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, lay_out
from modelbuild.formats.imatrix import ImportanceMatrix, read_imatrix
from tests.unit.formats.memory_file import memory_file

KEYS = [
    writer.string("general.type", "imatrix"),
    writer.strings("imatrix.datasets", ["wiki.txt", "code.txt"]),
    writer.u32("imatrix.chunk_count", 120),
    writer.u32("imatrix.chunk_size", 512),
]
F32 = GgmlType.F32
Tensors = dict[str, tuple[tuple[int, ...], list[float]]]
DENSE: Tensors = {"w.weight.counts": ((1, 1), [4.0]), "w.weight.in_sum2": ((3, 1), [8.0, 0.0, 2.0])}


def write_gguf(path: Path, tensors: Tensors, keys: list[KeyValue] = KEYS, type_: GgmlType = F32) -> Path:
    """A matrix in the GGUF form."""
    layout = lay_out(keys, [(name, shape, type_) for name, (shape, _) in tensors.items()])
    data = bytearray(layout.file_size - layout.data_offset)
    for slot, (_, values) in zip(layout.slots, tensors.values(), strict=True):
        data[slot.offset : slot.offset + slot.size_bytes] = np.array(values, "<f4").tobytes()[: slot.size_bytes]
    path.write_bytes(layout.header + data)
    return path


def dat_entry(name: bytes, calls: int, values: list[float], *, name_length: int | None = None) -> bytes:
    """One entry of the older form."""
    length = len(name) if name_length is None else name_length
    numbers = struct.pack(f"<ii{len(values)}f", calls, len(values), *values)
    return struct.pack("<i", length) + name + numbers


def write_dat(path: Path, *parts: bytes, count: int | None = None) -> Path:
    """A matrix in the older form."""
    path.write_bytes(struct.pack("<i", len(parts) if count is None else count) + b"".join(parts))
    return path


def test_gguf_form(tmp_path: Path) -> None:
    """Sums are divided by the number of tokens; what was measured with is kept."""
    matrix = read_imatrix(write_gguf(tmp_path / "m.gguf", DENSE))

    assert (("wiki.txt", "code.txt"), 120, 512) == (matrix.datasets, matrix.chunk_count, matrix.chunk_size)
    assert ["w.weight"] == list(matrix)
    assert [2.0, 0.0, 0.5] == matrix["w.weight"].values.tolist()
    assert ((4,), np.float32, False) == (
        matrix["w.weight"].counts,
        matrix["w.weight"].values.dtype,
        matrix["w.weight"].is_zero,
    )


def test_experts_are_divided_one_by_one(tmp_path: Path) -> None:
    """Each expert has its own count, rounded; one that no token reached counts as evenly important."""
    tensors: Tensors = {
        "e.weight.in_sum2": ((2, 3), [2.0, 4.0, 7.0, 7.0, 9.0, 3.0]),
        "e.weight.counts": ((1, 3), [2.0, 0.0, 2.6]),
    }
    importance = read_imatrix(write_gguf(tmp_path / "m.gguf", tensors))["e.weight"]

    assert [1.0, 2.0, 1.0, 1.0, 3.0, 1.0] == importance.values.tolist()
    assert (2, 0, 3) == importance.counts


def test_older_form(tmp_path: Path) -> None:
    """Values are divided by the number of calls, and left alone without calls."""
    parts = dat_entry(b"a.weight", 4, [2.0, 8.0]), dat_entry(b"b.weight", 0, [3.0])
    tail = struct.pack("<ii", 77, 8) + b"wiki.txt"
    matrix = read_imatrix(write_dat(tmp_path / "m.dat", *parts, tail, count=2))

    assert ["a.weight", "b.weight"] == list(matrix)
    assert ([0.5, 2.0], [3.0]) == (matrix["a.weight"].values.tolist(), matrix["b.weight"].values.tolist())
    assert (77, ("wiki.txt",), 2) == (matrix.chunk_count, matrix.datasets, matrix.length_of("a.weight"))


def test_older_form_without_tail(tmp_path: Path) -> None:
    """Files from before the tail was added are read."""
    matrix = read_imatrix(write_dat(tmp_path / "m.dat", dat_entry(b"a", 1, [1.0])))

    assert (0, ()) == (matrix.chunk_count, matrix.datasets)


def test_all_zero_is_marked(tmp_path: Path) -> None:
    """An entry without any importance says so, for the quantizer to do without it."""
    assert read_imatrix(write_dat(tmp_path / "m.dat", dat_entry(b"a", 1, [0.0, 0.0])))["a"].is_zero


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_gguf_without_one_of_its_keys(tmp_path: Path, missing: int) -> None:
    """Each of the three keys is required, and named when it is missing."""
    keys = [item for index, item in enumerate(KEYS) if index != missing]

    with pytest.raises(InputError) as caught:
        read_imatrix(write_gguf(tmp_path / "m.gguf", DENSE, keys))

    assert ("META", KEYS[missing].key) == (caught.value.code, caught.value.key)


def test_gguf_of_another_kind(tmp_path: Path) -> None:
    """An adapter is no importance matrix."""
    keys = [writer.string("general.type", "adapter"), *KEYS[1:]]

    with pytest.raises(InputError, match="'adapter'") as caught:
        read_imatrix(write_gguf(tmp_path / "m.gguf", DENSE, keys))

    assert caught.value.code == "META"


BAD_TENSORS: dict[str, tuple[Tensors, str]] = {
    "no-counts": ({"w.in_sum2": ((2, 1), [1, 1])}, "w.in_sum2"),
    "no-sums": ({"w.counts": ((1, 1), [1])}, "w.counts"),
    "slices-differ": ({"w.in_sum2": ((2, 2), [1] * 4), "w.counts": ((1, 3), [1] * 3)}, "w.in_sum2"),
    "no-values": ({"w.in_sum2": ((0, 1), []), "w.counts": ((1, 1), [1])}, "w.in_sum2"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_gguf_tensors_that_do_not_fit_together(tmp_path: Path, case: str) -> None:
    """Sums and counts come in pairs, with one count for each matrix."""
    tensors, key = BAD_TENSORS[case]

    with pytest.raises(InputError) as caught:
        read_imatrix(write_gguf(tmp_path / "m.gguf", tensors))

    assert ("DATA", key) == (caught.value.code, caught.value.key)


def test_gguf_tensors_of_another_type(tmp_path: Path) -> None:
    """Only F32 is measured."""
    with pytest.raises(InputError, match="F16") as caught:
        read_imatrix(write_gguf(tmp_path / "m.gguf", DENSE, type_=GgmlType.F16))

    assert caught.value.code == "DATA"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("where", ["sums", "counts", "dat"])
def test_values_that_cannot_be(tmp_path: Path, value: float, where: str) -> None:
    """Mean squares and counts are finite and not negative; the error names the tensor."""
    tensors: Tensors = {
        "w.in_sum2": ((2, 1), [1.0, value if where == "sums" else 1.0]),
        "w.counts": ((1, 1), [value if where == "counts" else 1.0]),
    }
    if where == "dat":
        path = write_dat(tmp_path / "m.dat", dat_entry(b"w", 1, [1.0, value]))
    else:
        path = write_gguf(tmp_path / "m.gguf", tensors)

    with pytest.raises(InputError) as caught:
        read_imatrix(path)["w"]

    assert ("DATA", "w", path) == (caught.value.code, caught.value.key, caught.value.path)


A = dat_entry(b"a", 1, [1.0, 2.0])
BAD_DAT = {
    "q05-count": (struct.pack("<I", 2**31) + A, "DATA"),
    "q05-count-large": (struct.pack("<i", 2**31 - 1) + A, "DATA"),
    "q05-name-length": (struct.pack("<i", 1) + dat_entry(b"a", 1, [1.0], name_length=-1), "DATA"),
    "no-entries": (struct.pack("<i", 0), "DATA"),
    "calls-negative": (struct.pack("<i", 1) + dat_entry(b"a", -1, [1.0]), "DATA"),
    "no-values": (struct.pack("<i", 1) + dat_entry(b"a", 1, []), "DATA"),
    "name-empty": (struct.pack("<i", 1) + dat_entry(b"", 1, [1.0]), "DATA"),
    "values-huge": (struct.pack("<iic", 1, 1, b"a") + struct.pack("<ii", 1, 2**31 - 1), "DATA"),
    "twice": (struct.pack("<i", 2) + A + A, "DUPLICATE"),
    "q04-numpy": (b"\x93NUMPY\1\0v\0{'descr': '|O'}", "PICKLE"),
    "pickle": (b"\x80\x04\x95" + bytes(60), "MAGIC"),
    "zip": (b"PK\3\4" + bytes(60), "MAGIC"),
    "empty": (b"", "DATA"),
}


@pytest.mark.parametrize("case", BAD_DAT)
def test_bad_files_of_the_older_form(tmp_path: Path, case: str) -> None:
    """Lengths and counts are compared with the file's size before anything is read."""
    data, code = BAD_DAT[case]
    path = tmp_path / "m.dat"
    path.write_bytes(data)

    with pytest.raises(InputError) as caught:
        read_imatrix(path)

    assert (code, path) == (caught.value.code, caught.value.path)


def test_every_truncation_of_the_older_form() -> None:
    """A file cut anywhere is DATA, except where its optional tail begins."""
    data = struct.pack("<i", 2) + A + dat_entry(b"bb", 1, [1.0]) + struct.pack("<ii", 5, 4) + b"text"
    codes: list[str] = []
    with memory_file() as file:
        for length in range(len(data)):
            file.write(data[:length])
            codes.append(_code(file.path))

    assert [length for length, code in enumerate(codes) if not code] == [len(data) - 12, len(data) - 8]
    assert {"", "DATA"} == set(codes)


def _code(path: Path) -> str:
    try:
        read_imatrix(path)
    except InputError as error:
        return error.code
    return ""


def test_changed_file_is_noticed(tmp_path: Path) -> None:
    """Values are never taken from another file than the one whose directory was read."""
    path = write_dat(tmp_path / "m.dat", A)
    matrix: ImportanceMatrix = read_imatrix(path)
    write_dat(path, A, dat_entry(b"b", 1, [1.0]))

    with pytest.raises(ChangedError):
        matrix["a"]
