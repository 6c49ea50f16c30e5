"""Real llama.cpp's vision part, called through the shared object of the xllamacpp wheel: what it makes of a picture."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.llama_runtime import QUIET, LlamaRuntime, Parameters, library

_POINTER, _FLOATS = ctypes.c_void_p, ctypes.POINTER(ctypes.c_float)
_IMAGE_CHUNK = 1


class _Text(ctypes.Structure):
    """A prompt with a mark for each picture."""

    _fields_ = (("text", ctypes.c_char_p), ("add_special", ctypes.c_bool), ("parse_special", ctypes.c_bool))


_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "mtmd_context_params_default": (Parameters, []),
    "mtmd_init_from_file": (_POINTER, [ctypes.c_char_p, _POINTER, Parameters]),
    "mtmd_free": (None, [_POINTER]),
    "mtmd_bitmap_init": (_POINTER, [ctypes.c_uint32, ctypes.c_uint32, ctypes.c_char_p]),
    "mtmd_bitmap_free": (None, [_POINTER]),
    "mtmd_input_chunks_init": (_POINTER, []),
    "mtmd_input_chunks_free": (None, [_POINTER]),
    "mtmd_input_chunks_size": (ctypes.c_size_t, [_POINTER]),
    "mtmd_input_chunks_get": (_POINTER, [_POINTER, ctypes.c_size_t]),
    "mtmd_input_chunk_get_type": (ctypes.c_int, [_POINTER]),
    "mtmd_input_chunk_get_n_tokens": (ctypes.c_size_t, [_POINTER]),
    "mtmd_tokenize": (
        ctypes.c_int32,
        [_POINTER, _POINTER, ctypes.POINTER(_Text), ctypes.POINTER(_POINTER), ctypes.c_size_t],
    ),
    "mtmd_encode_chunk": (ctypes.c_int32, [_POINTER, _POINTER]),
    "mtmd_get_output_embd": (_FLOATS, [_POINTER]),
    "mtmd_default_marker": (ctypes.c_char_p, []),
    "mtmd_log_set": (None, [_POINTER, _POINTER]),
    "mtmd_helper_log_set": (None, [_POINTER, _POINTER]),
}


@cache
def _vision() -> ctypes.CDLL:
    loaded = library()
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    for name in ("mtmd_log_set", "mtmd_helper_log_set"):
        getattr(loaded, name)(ctypes.cast(QUIET, _POINTER), None)
    return loaded


def see(
    model: LlamaRuntime, projector: Path, picture: npt.NDArray[np.uint8], *, layers: int = 1
) -> npt.NDArray[np.float32]:
    """The tokens that a projector makes of a picture (rows, columns, 3): shape (tokens, width of the text model).

    layers: how many blocks of the text model get a part of each token; their widths stand one after another.
    """
    vision = _vision()
    context = vision.mtmd_init_from_file(str(projector).encode(), model.pointer, vision.mtmd_context_params_default())
    assert context, f"llama.cpp does not load the projector {projector}"
    rows, columns, _ = picture.shape
    bitmap = vision.mtmd_bitmap_init(columns, rows, picture.tobytes())
    chunks = vision.mtmd_input_chunks_init()
    try:
        text = _Text(vision.mtmd_default_marker(), False, True)
        assert 0 == vision.mtmd_tokenize(context, chunks, ctypes.byref(text), (_POINTER * 1)(bitmap), 1)
        parts = [vision.mtmd_input_chunks_get(chunks, place) for place in range(vision.mtmd_input_chunks_size(chunks))]
        seen = [part for part in parts if vision.mtmd_input_chunk_get_type(part) == _IMAGE_CHUNK]
        return np.concatenate([_encode(vision, context, part, model.width * layers) for part in seen])
    finally:
        vision.mtmd_input_chunks_free(chunks)
        vision.mtmd_bitmap_free(bitmap)
        vision.mtmd_free(context)


def _encode(vision: ctypes.CDLL, context: int, part: int, width: int) -> npt.NDArray[np.float32]:
    assert 0 == vision.mtmd_encode_chunk(context, part)
    count = vision.mtmd_input_chunk_get_n_tokens(part)
    return np.ctypeslib.as_array(vision.mtmd_get_output_embd(context), (count, width)).copy()
