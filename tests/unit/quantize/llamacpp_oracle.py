"""llama.cpp's own quantizers, called through the shared object of the xllamacpp wheel."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from modelbuild.formats.gguf.types import GgmlType, row_bytes

Float32 = npt.NDArray[np.float32]
Uint8 = npt.NDArray[np.uint8]
_FLOAT_POINTER = ctypes.POINTER(ctypes.c_float)


@cache
def _library() -> ctypes.CDLL:
    package = pytest.importorskip("xllamacpp", reason="llama.cpp is the reference here")
    path = next(Path(package.__file__).parent.glob("xllamacpp*.so"))
    library = ctypes.CDLL(str(path))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, _FLOAT_POINTER, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, _FLOAT_POINTER,
    ]  # fmt: skip
    return library


def _floats(values: Float32 | None) -> ctypes._Pointer[ctypes.c_float] | None:
    return None if values is None else values.ctypes.data_as(_FLOAT_POINTER)


def pack_with_llamacpp(rows: Float32, type_: GgmlType, importance: Float32 | None = None) -> Uint8:
    """Rows of float32 packed by ggml_quantize_chunk, shape (rows, row bytes)."""
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    importance = None if importance is None else np.ascontiguousarray(importance, dtype=np.float32)
    count, columns = rows.shape
    out = np.zeros((count, row_bytes(type_, columns)), np.uint8)
    written = _library().ggml_quantize_chunk(
        int(type_), _floats(rows), out.ctypes.data, 0, count, columns, _floats(importance)
    )
    assert out.size == written
    return out


#: Names of the scalar decoders; F16 and BF16 have other names in the library.
_DECODERS = {
    GgmlType.F16: "ggml_fp16_to_fp32_row",
    GgmlType.BF16: "ggml_bf16_to_fp32_row",
}


def unpack_with_llamacpp(data: Uint8, type_: GgmlType, columns: int) -> Float32:
    """Packed rows decoded by llama.cpp, shape (rows, columns)."""
    if type_ is GgmlType.F32:
        return data.view(np.float32)
    data = np.ascontiguousarray(data)
    out = np.empty((len(data), columns), np.float32)
    name = type_.name if not type_.name.endswith("_K") else type_.name[:-1] + "K"
    decode = getattr(
        _library(),
        _DECODERS.get(type_, f"dequantize_row_{name.lower() if '_K' not in name else name[0].lower() + name[1:]}"),
    )
    decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    decode.restype = None
    for row, line in zip(data, out, strict=True):
        decode(row.ctypes.data, line.ctypes.data, columns)
    return out
