"""Real llama.cpp, called through the shared object of the xllamacpp wheel: token ids, logits and embeddings of a GGUF.

Parameter structures differ between versions, so they are taken as they come and handed on whole: a buffer larger than
any of them is passed by value as the last argument, of which the callee reads what it knows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

Float32 = npt.NDArray[np.float32]


class Parameters(ctypes.Structure):
    """Some parameters: larger than each structure of that kind."""

    _fields_ = (("data", ctypes.c_uint64 * 128),)


class _Batch(ctypes.Structure):
    """Tokens of one sequence; without `wanted`, the logits of the last one are."""

    _fields_ = (
        ("count", ctypes.c_int32),
        ("tokens", ctypes.c_void_p),
        ("embeddings", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("sequence_counts", ctypes.c_void_p),
        ("sequences", ctypes.c_void_p),
        ("wanted", ctypes.c_void_p),
    )


#: Takes what the library would print.
QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)
_POINTER, _INT, _FLOATS = ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_float)
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "llama_model_default_params": (Parameters, []),
    "llama_context_default_params": (Parameters, []),
    "llama_model_load_from_file": (_POINTER, [ctypes.c_char_p, Parameters]),
    "llama_init_from_model": (_POINTER, [_POINTER, Parameters]),
    "llama_model_free": (None, [_POINTER]),
    "llama_free": (None, [_POINTER]),
    "llama_model_get_vocab": (_POINTER, [_POINTER]),
    "llama_vocab_n_tokens": (_INT, [_POINTER]),
    "llama_model_n_embd": (_INT, [_POINTER]),
    "llama_tokenize": (
        _INT,
        [_POINTER, ctypes.c_char_p, _INT, ctypes.POINTER(_INT), _INT, ctypes.c_bool, ctypes.c_bool],
    ),
    "llama_batch_get_one": (_Batch, [_POINTER, _INT]),
    "llama_decode": (_INT, [_POINTER, _Batch]),
    "llama_encode": (_INT, [_POINTER, _Batch]),
    "llama_get_logits_ith": (_FLOATS, [_POINTER, _INT]),
    "llama_get_logits": (_FLOATS, [_POINTER]),
    "llama_get_embeddings_seq": (_FLOATS, [_POINTER, _INT]),
    "llama_get_embeddings_ith": (_FLOATS, [_POINTER, _INT]),
    "llama_set_embeddings": (None, [_POINTER, ctypes.c_bool]),
    "llama_model_decoder_start_token": (_INT, [_POINTER]),
    "llama_adapter_lora_init": (_POINTER, [_POINTER, ctypes.c_char_p]),
    "llama_set_adapters_lora": (
        _INT,
        [_POINTER, ctypes.POINTER(_POINTER), ctypes.c_size_t, ctypes.POINTER(ctypes.c_float)],
    ),
    "llama_get_memory": (_POINTER, [_POINTER]),
    "llama_memory_clear": (None, [_POINTER, ctypes.c_bool]),
    "llama_log_set": (None, [_POINTER, _POINTER]),
    "llama_backend_init": (None, []),
}


@cache
def library() -> ctypes.CDLL:
    """The shared object with its functions declared."""
    package = pytest.importorskip("xllamacpp", reason="llama.cpp is the reference here")
    loaded = ctypes.CDLL(str(next(Path(package.__file__).parent.glob("xllamacpp*.so"))))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    loaded.llama_log_set(ctypes.cast(QUIET, _POINTER), None)
    loaded.llama_backend_init()
    return loaded


class LlamaRuntime:
    """A model that llama.cpp has loaded, with one context."""

    def __init__(self, model: int, context: int) -> None:
        self._library = library()
        self._model = model
        self._context = context
        self._vocabulary = self._library.llama_model_get_vocab(model)

    @property
    def pointer(self) -> int:
        """The loaded model, for other parts of the library."""
        return self._model

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return int(self._library.llama_model_n_embd(self._model))

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text; with `special` also what the tokenizer puts around it."""
        data = text.encode()
        ids = (_INT * (len(data) + 16))()
        count = self._library.llama_tokenize(self._vocabulary, data, len(data), ids, len(ids), special, True)
        assert count >= 0
        return list(ids[:count])

    def logits(self, tokens: Sequence[int]) -> Float32:
        """Logits after the last token."""
        self._run(tokens, self._library.llama_decode)
        count = self._library.llama_vocab_n_tokens(self._vocabulary)
        return np.ctypeslib.as_array(self._library.llama_get_logits_ith(self._context, -1), (count,)).copy()

    def all_logits(self, tokens: Sequence[int]) -> Float32:
        """Logits after each token of a new text, shape (tokens, vocabulary)."""
        self.forget()
        count, loaded = len(tokens), self._library
        sequence, ids, positions = _INT(0), (_INT * count)(*tokens), (_INT * count)(*range(count))
        counts, wanted = (_INT * count)(*[1] * count), (ctypes.c_int8 * count)(*[1] * count)
        sequences = (_POINTER * count)(*[ctypes.addressof(sequence)] * count)
        places = [ctypes.addressof(item) for item in (ids, positions, counts, sequences, wanted)]
        assert loaded.llama_decode(self._context, _Batch(count, places[0], None, *places[1:])) == 0
        shape = (count, loaded.llama_vocab_n_tokens(self._vocabulary))
        return np.ctypeslib.as_array(loaded.llama_get_logits(self._context), shape).copy()

    def forget(self) -> None:
        """Begin a new text."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)

    def continue_greedily(self, tokens: Sequence[int], count: int) -> list[int]:
        """The most likely next tokens of a new text, one after another."""
        self.forget()
        found = [int(np.argmax(self.logits(tokens)))]
        while len(found) < count:
            found.append(int(np.argmax(self.logits(found[-1:]))))
        return found

    def translation_logits(self, tokens: Sequence[int]) -> Float32:
        """Logits of the first word that a decoder says about an encoded text."""
        self._run(tokens, self._library.llama_encode)
        return self.logits([self._library.llama_model_decoder_start_token(self._model)])

    def embedding(self, tokens: Sequence[int]) -> Float32:
        """The pooled embedding of a text; of a model without pooling, that of the last token."""
        self._library.llama_set_embeddings(self._context, True)
        self._run(tokens, self._library.llama_encode)
        width = self._library.llama_model_n_embd(self._model)
        pooled = self._library.llama_get_embeddings_seq(self._context, 0)
        found = pooled or self._library.llama_get_embeddings_ith(self._context, -1)
        return np.ctypeslib.as_array(found, (width,)).copy()

    def use_adapter(self, path: Path, scale: float = 1.0) -> None:
        """Apply a LoRA adapter from now on."""
        adapter = self._library.llama_adapter_lora_init(self._model, str(path).encode())
        assert adapter, f"llama.cpp does not accept the adapter {path}"
        adapters, scales = (_POINTER * 1)(adapter), (ctypes.c_float * 1)(scale)
        assert self._library.llama_set_adapters_lora(self._context, adapters, 1, scales) == 0

    def _run(self, tokens: Sequence[int], function: object) -> None:
        array = (_INT * len(tokens))(*tokens)
        batch = self._library.llama_batch_get_one(ctypes.cast(array, _POINTER), len(tokens))
        assert callable(function)
        assert function(self._context, batch) == 0, "llama.cpp could not compute"


@contextmanager
def llama(path: Path) -> Iterator[LlamaRuntime]:
    """A GGUF file in llama.cpp; fails when it does not load."""
    loaded = library()
    model = loaded.llama_model_load_from_file(str(path).encode(), loaded.llama_model_default_params())
    assert model, f"llama.cpp does not load {path}"
    context = loaded.llama_init_from_model(model, loaded.llama_context_default_params())
    try:
        assert context
        yield LlamaRuntime(model, context)
    finally:
        if context:
            loaded.llama_free(context)
        loaded.llama_model_free(model)
