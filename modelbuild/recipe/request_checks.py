"""What is wrong with the values of a create request, found in Ollama's order and said in its words.

In steps, so that a server can answer at the right moment, and of several faults with the one that Ollama names:
`parse_create_request` (before anything is streamed), `check_create_request` (the first thing a stream can answer),
and, once the file sets are known to be there, `check_info`, `check_quantize`, `check_texts`, `resolve_create_request`.
"""

from __future__ import annotations

from collections.abc import Callable

from modelbuild.errors import InputError
from modelbuild.model_name import ModelName, parse_name
from modelbuild.recipe.reference import split_source
from modelbuild.recipe.request import (
    AllowPath,
    CreateRequest,
    RequestError,
    is_path,
    is_remote_request,
    licenses_of,
    remote_host_of,
    unsupported_type,
)

#: Of a template, system prompt or licence.
TEXT_LIMIT_CHARS = 4 << 20
MESSAGE_LIMIT = 10_000
#: `info` fields by the type they must have.
_INFO_TEXTS = ("model_family", "base_name", "quantization_level", "parameter_size")
_INFO_NUMBERS = ("context_length", "embedding_length")
_LARGEST_INFO_NUMBER = 2**63 - 1


def check_create_request(
    request: CreateRequest, *, allow_path: AllowPath | None = None, has_model: Callable[[ModelName], bool] | None = None
) -> None:
    """RequestError for everything else about the base and the files that the request alone can tell.

    has_model: is a model stored?
    """
    if request.from_ and request.files:
        raise RequestError(400, "either 'from' or 'files' can be specified, but not both")
    if not request.from_ and request.files is None:
        raise RequestError(400, "neither 'from' or 'files' was specified")
    if request.from_:
        _check_from(request, allow_path)
    if has_model is not None and _needs_base(request, allow_path):
        _check_base(request, has_model)
    if not request.from_ and not request.files:
        raise RequestError(400, "unknown type")
    _check_limits(request)


def check_info(request: CreateRequest) -> None:
    """RequestError for values of `info` that are wrong."""
    info = request.info or {}
    for key in _INFO_TEXTS:
        if key in info and not isinstance(info[key], str):
            raise RequestError(400, f'info field "{key}" must be a string')
    for key in _INFO_NUMBERS:
        value = info.get(key)
        if key not in info:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise RequestError(400, f'info field "{key}" must be a number')
        if not 0 <= value <= _LARGEST_INFO_NUMBER or value != int(value):
            raise RequestError(400, f'info field "{key}" must be a non-negative integer')


def check_quantize(request: CreateRequest) -> None:
    """RequestError for a type in blanks; others are looked up when the weights are known."""
    if request.quantize != request.quantize.strip() and not is_remote_request(request):
        raise unsupported_type(request.quantize)


def check_texts(request: CreateRequest) -> None:
    """RequestError for a template or licences that are wrong."""
    _check_template(request.template)
    licenses_of(request)


def _check_from(request: CreateRequest, allow_path: AllowPath | None) -> None:
    if is_path(request.from_) and allow_path is not None and allow_path(request.from_.strip()) is not None:
        return
    try:
        reference, _ = split_source(request.from_)
        parse_name(reference)
    except InputError as error:
        raise RequestError(400, "invalid model name") from error
    remote_host_of(request)
    if is_remote_request(request) and request.draft_files:
        raise RequestError(400, "DRAFT cannot be used with remote models")


def _needs_base(request: CreateRequest, allow_path: AllowPath | None) -> bool:
    """Does `from` name a stored model?"""
    if not request.from_ or is_remote_request(request):
        return False
    return not is_path(request.from_) or allow_path is None or allow_path(request.from_.strip()) is None


def _check_base(request: CreateRequest, has_model: Callable[[ModelName], bool]) -> None:
    if not has_model(parse_name(split_source(request.from_)[0])):
        raise RequestError(404, f'model "{request.from_.strip()}" not found')


def _check_limits(request: CreateRequest) -> None:
    """Texts and messages beyond these are mistakes or attacks; Ollama has no limits."""
    texts = {"template": request.template, "system": request.system}
    licenses = request.license if isinstance(request.license, list) else [request.license]
    texts |= {f"license[{index}]": text for index, text in enumerate(licenses) if isinstance(text, str)}
    for field, text in texts.items():
        if len(text) > TEXT_LIMIT_CHARS:
            raise RequestError(400, f"{field} has {len(text):,} characters, at most {TEXT_LIMIT_CHARS:,} are allowed")
    if len(request.messages) > MESSAGE_LIMIT:
        raise RequestError(400, f"{len(request.messages):,} messages, at most {MESSAGE_LIMIT:,} are allowed")


def _check_template(template: str) -> None:
    if not template:
        return
    from modelbuild.template import TemplateError, check_template

    try:
        check_template(template)
    except TemplateError as error:
        raise RequestError(400, error.ollama_message) from error
