"""From our errors to what the create API answers: an HTTP status and a text, in Ollama's words where it has some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath

from modelbuild.engine.gguf_wording import VALIDATION_FAULT
from modelbuild.errors import InputError, ModelbuildError, Problems, RecipeError, SpaceError
from modelbuild.recipe.request import CreateRequest, RequestError, is_path, unsupported_type

_INSUFFICIENT_STORAGE = 507
_MISSING_FILE = "no such file or directory"
#: Texts that the API gives without the explanation that ours have behind them.
_BRIEF_TEXTS = ("unknown architecture", "unknown tokenizer format")


def answer_for(error: ModelbuildError, request: CreateRequest) -> RequestError:
    """The answer for an error of planning or running a request; of several the first one."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, Problems):
        return answer_for(error.errors[0], request)
    cause = error.__cause__ if isinstance(error, RecipeError) and isinstance(error.__cause__, InputError) else error
    word = _WORDS.get(error.code)
    if word is not None:
        return word(error, request)
    if isinstance(error, SpaceError):
        return RequestError(_INSUFFICIENT_STORAGE, error.message)
    text = next((known for known in _BRIEF_TEXTS if cause.message.startswith(known)), cause.message)
    if is_path(request.from_) and isinstance(cause, InputError) and cause.path is not None:
        # Ollama knows no paths on the server, so the words are ours: which of the files, without its directory
        return RequestError(404 if text == _MISSING_FILE else 500, f"{PurePath(cause.path).name}: {text}")
    if text == _MISSING_FILE and isinstance(cause, InputError) and cause.path is not None:
        return RequestError(500, f"open {PurePath(cause.path).name}: {text}")
    return RequestError(500, text)


def _unknown_type(error: ModelbuildError, request: CreateRequest) -> RequestError:
    del error
    return unsupported_type(request.quantize)


def _requantize(error: ModelbuildError, request: CreateRequest) -> RequestError:
    del request
    if error.code == "REQUANTIZEDRAFT":
        found = error.message.partition("weights are ")[2].partition(" already")[0]
        return RequestError(500, f"draft quantization requires an unquantized draft model, got {found}")
    return RequestError(500, "quantization is only supported for F16, BF16 and F32 models")


def _missing(error: ModelbuildError, request: CreateRequest) -> RequestError:
    del error
    return RequestError(404, f'model "{request.from_.strip()}" not found')


def _refused(error: ModelbuildError, request: CreateRequest) -> RequestError:
    del error, request
    return RequestError(500, VALIDATION_FAULT)


_WORDS: Mapping[str, Callable[[ModelbuildError, CreateRequest], RequestError]] = {
    "UNKNOWN": _unknown_type,
    "REQUANTIZE": _requantize,
    "REQUANTIZEDRAFT": _requantize,
    "MISSING": _missing,
    "NETWORK": _missing,
    "ARCH": _refused,
}
