"""Compares conversions with recorded reference files: keys with type and value, tensors with type, shape and digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from modelbuild.convert import Conversion
from modelbuild.convert.planned import PlannedTensor, read_floats, row_count
from modelbuild.formats.elements import encode
from modelbuild.formats.gguf.types import GgmlType, ValueType
from modelbuild.formats.gguf.writer import KeyValue
from modelbuild.quantize import pack

_TYPE_NAMES = {
    ValueType.U8: "UINT8", ValueType.I8: "INT8", ValueType.U16: "UINT16", ValueType.I16: "INT16",
    ValueType.U32: "UINT32", ValueType.I32: "INT32", ValueType.F32: "FLOAT32", ValueType.BOOL: "BOOL",
    ValueType.STRING: "STRING", ValueType.ARRAY: "ARRAY", ValueType.U64: "UINT64", ValueType.I64: "INT64",
    ValueType.F64: "FLOAT64",
}  # fmt: skip
_ARRAY_HEAD_BYTES = 12


def read_reference(path: Path) -> Mapping[str, object]:
    """A recorded GGUF as JSON."""
    return json.loads(path.read_text("utf-8"))


def describe_key(item: KeyValue) -> dict[str, object]:
    """A key in the words of the recordings."""
    value = item.value
    if value.type is not ValueType.ARRAY:
        return {"key": item.key, "type": _TYPE_NAMES[value.type], "value": value.decode()}
    digest = hashlib.sha256(value.data[_ARRAY_HEAD_BYTES:]).hexdigest()
    element = _TYPE_NAMES[value.element_type]
    return {"key": item.key, "type": "ARRAY", "element_type": element, "length": value.length, "sha256": digest}


def describe_tensor(tensor: PlannedTensor, rows_at_once: int = 0) -> dict[str, object]:
    """A tensor in the words of the recordings; it is read in blocks of rows."""
    data = tensor_bytes(tensor, rows_at_once)
    shape = list(reversed(tensor.source.shape))
    digest = hashlib.sha256(data).hexdigest()
    return {"name": tensor.name, "shape": shape, "type": tensor.type.name, "nbytes": len(data), "sha256": digest}


def tensor_bytes(tensor: PlannedTensor, rows_at_once: int = 0) -> bytes:
    """The bytes that a tensor has in the result."""
    rows, columns = row_count(tensor.source), tensor.source.shape[-1]
    step = rows_at_once or max(1, 65_536 // columns)
    return b"".join(_pack_rows(tensor, start, min(rows, start + step)) for start in range(0, rows, step))


def _pack_rows(tensor: PlannedTensor, start: int, stop: int) -> bytes:
    if tensor.source.dtype == tensor.type.name:
        return np.ascontiguousarray(tensor.source.read_rows(read_span, start, stop)).tobytes()
    values = read_floats(tensor.source, read_span, start, stop)
    if tensor.type in (GgmlType.F32, GgmlType.F16, GgmlType.BF16):
        return np.ascontiguousarray(encode(values, tensor.type.name)).tobytes()
    return np.ascontiguousarray(pack(values, tensor.type)).tobytes()


def read_span(path: Path, offset: int, size: int) -> bytes:
    """Plain reading of a file."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def key_differences(conversion: Conversion, reference: Mapping[str, object]) -> list[str]:
    """One line for each key that is missing, foreign, different, or out of order."""
    wanted = {
        item["key"]: {k: v for k, v in item.items() if k != "value" or item["type"] != "ARRAY"}
        for item in reference["kv"]
    }
    found = {item.key: describe_key(item) for item in conversion.kv}
    lines = [f"missing {key}" for key in wanted if key not in found]
    lines += [f"foreign {key}" for key in found if key not in wanted]
    lines += [
        f"{key}: {found[key]} instead of {wanted[key]}" for key in wanted if key in found and found[key] != wanted[key]
    ]
    if not lines and list(wanted) != list(found):
        lines.append(f"order {list(found)} instead of {list(wanted)}")
    return lines


def tensor_differences(conversion: Conversion, reference: Mapping[str, object]) -> list[str]:
    """One line for each tensor that is missing, foreign, different, or out of order."""
    wanted = {item["name"]: item for item in reference["tensors"]}
    found = {tensor.name: tensor for tensor in conversion.tensors}
    lines = [f"missing {name}" for name in wanted if name not in found]
    lines += [f"foreign {name}" for name in found if name not in wanted]
    for name, expected in wanted.items():
        if name in found and (described := describe_tensor(found[name])) != expected:
            lines.append(f"{name}: {described} instead of {expected}")
    if not lines and list(wanted) != list(found):
        lines.append(f"order {list(found)} instead of {list(wanted)}")
    return lines
