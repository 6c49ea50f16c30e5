"""A body of `POST /api/create`: bound as Ollama binds it, and resolved to what a recipe gives.

What is wrong with its values is found in between, by `modelbuild.recipe.request_checks`.
Source: behaviour of Ollama's create API, August 2026, measured; its public page where the two differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from modelbuild.digest import Digest
from modelbuild.errors import Blame, InputError, ModelbuildError, Position, printable
from modelbuild.late_pattern import late_pattern
from modelbuild.model_name import ModelName, parse_name
from modelbuild.recipe.go_binding import (
    Arguments,
    Base64,
    Dictionary,
    Flag,
    Free,
    Items,
    Kind,
    Record,
    Text,
    Whole,
    bind_request,
)
from modelbuild.recipe.messages import normalize_messages
from modelbuild.recipe.reference import normalize_remote_host, split_source
from modelbuild.recipe.resolved import FileEntry, FromName, FromPath, ResolvedModel
from modelbuild.records import record

#: A longer name of a file could only be a mistake or an attack; it is stored in the manifest.
FILE_NAME_LIMIT_BYTES = 1024
_PATH_STARTS = ("./", "../", "/", "~")
_CANONICAL_HEX = late_pattern(r"sha256[:-][0-9a-f]{64}", re.ASCII)
_ACCEPTED_DIGEST = late_pattern(r"sha256[:-][0-9a-fA-F]{64}", re.ASCII)
_STRING_MAP = Dictionary(Text(), "map[string]string")
_FREE_MAP = Dictionary(Free(), "map[string]interface {}")
_FUNCTION = Record("api.ToolCallFunction", {"index": Whole(), "name": Text(), "arguments": Arguments()})
_TOOL_CALL = Record("api.ToolCall", {"id": Text(), "function": _FUNCTION})
_MESSAGE = Record(
    "api.Alias",
    {
        "role": Text(),
        "content": Text(),
        "thinking": Text(),
        "images": Items(Base64("api.ImageData"), "[]api.ImageData"),
        "tool_calls": Items(_TOOL_CALL, "[]api.ToolCall"),
        "tool_name": Text(),
        "tool_call_id": Text(),
    },
    reads_itself=True,
)
_FIELDS: Mapping[str, Kind] = {
    "model": Text(),
    "stream": Flag(optional=True),
    "quantize": Text(),
    "from": Text(),
    "remote_host": Text(),
    "files": _STRING_MAP,
    "draft_files": _STRING_MAP,
    "draft_quantize": Text(),
    "adapters": _STRING_MAP,
    "template": Text(),
    "license": Free(),
    "system": Text(),
    "parameters": _FREE_MAP,
    "messages": Items(_MESSAGE, "[]api.Message"),
    "renderer": Text(),
    "parser": Text(),
    "requires": Text(),
    "info": _FREE_MAP,
    "name": Text(),
    "quantization": Text(),
}
CREATE_REQUEST = Record("api.CreateRequest", _FIELDS)

#: Gives the path that a `from` of a request may read, or None where requests may not name files.
AllowPath = Callable[[str], Path | None]


class RequestError(ModelbuildError):
    """What a create request is answered with: an HTTP status and the exact text."""

    blame = Blame.RECIPE
    exit_status = 2

    def __init__(self, status: int, message: str) -> None:
        super().__init__("REQUEST", message)
        self.status = status


@record
class CreateRequest:
    """A create request whose types and names are right; texts that are not given are empty.

    files, draft_files, adapters: name → digest as written, None when absent (which differs from an empty object).
    unknown: keys of the body that are no fields, which Ollama ignores.
    """

    name: ModelName
    stream: bool = True
    from_: str = ""
    remote_host: str = ""
    files: Mapping[str, str] | None = None
    draft_files: Mapping[str, str] | None = None
    adapters: Mapping[str, str] | None = None
    quantize: str = ""
    draft_quantize: str = ""
    template: str = ""
    system: str = ""
    license: object = None
    parameters: Mapping[str, object] | None = None
    messages: tuple[Mapping[str, object], ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: Mapping[str, object] | None = None
    unknown: tuple[str, ...] = ()


def parse_create_request(body: bytes, *, strict: bool = False) -> CreateRequest:
    """The request in a body; RequestError 400 for everything that is answered before any stream begins.

    strict: refuse unknown fields, too.
    """
    unknown: list[str] = []
    try:
        bound = bind_request(body, CREATE_REQUEST, unknown)
    except InputError as error:
        raise RequestError(400, error.message) from error
    files, drafts, adapters = (cast("dict[str, str | None] | None", bound.get(k)) for k in _FILE_FIELDS)
    _check_file_names(files)
    _check_file_names(drafts)
    if bound.get("draft_quantize") and not drafts:
        raise RequestError(400, "--draft-quantize requires a DRAFT model")
    if any(not digest for digest in (adapters or {}).values()):
        raise RequestError(400, "invalid digest format")
    try:
        name = parse_name(_string(bound, "model") or _string(bound, "name"))
    except InputError as error:
        raise RequestError(400, "invalid model name") from error
    if strict and unknown:
        raise RequestError(400, f'json: unknown field "{printable(unknown[0])}"')
    return _request(bound, name, tuple(dict.fromkeys(unknown)))


_FILE_FIELDS = ("files", "draft_files", "adapters")


def _request(bound: Mapping[str, object], name: ModelName, unknown: tuple[str, ...]) -> CreateRequest:
    messages = cast("list[Mapping[str, object] | None]", bound.get("messages") or [])
    return CreateRequest(
        name=name,
        stream=bound.get("stream") is not False,
        from_=_string(bound, "from"),
        remote_host=_string(bound, "remote_host"),
        files=cast("Mapping[str, str] | None", bound.get("files")),
        draft_files=cast("Mapping[str, str] | None", bound.get("draft_files")),
        adapters=cast("Mapping[str, str] | None", bound.get("adapters")),
        quantize=(_string(bound, "quantize") or _string(bound, "quantization")).upper(),
        draft_quantize=_string(bound, "draft_quantize").upper(),
        template=_string(bound, "template"),
        system=_string(bound, "system"),
        license=bound.get("license"),
        parameters=_numbers(cast("Mapping[str, object] | None", bound.get("parameters"))),
        messages=tuple(message or {} for message in messages),
        renderer=_string(bound, "renderer"),
        parser=_string(bound, "parser"),
        requires=_string(bound, "requires"),
        info=_numbers(cast("Mapping[str, object] | None", bound.get("info"))),
        unknown=unknown,
    )


def resolve_create_request(request: CreateRequest, *, allow_path: AllowPath | None = None) -> ResolvedModel:
    """The model of a request that has passed `check_create_request` and whose digests are all well-formed.

    allow_path: as for the check. Its position says "request" wherever a recipe would name a file.
    """
    is_remote = is_remote_request(request)
    base = None
    if request.from_:
        path = allow_path(request.from_.strip()) if allow_path is not None and is_path(request.from_) else None
        base = FromName(request.from_.strip(), REQUEST) if path is None else FromPath(path, REQUEST)
    return ResolvedModel(
        id="",
        name=request.name,
        position=REQUEST,
        base=base,
        files=() if is_remote or base is not None else _entries(request.files),
        adapters=() if is_remote else _entries(request.adapters),
        draft_files=() if is_remote else _entries(request.draft_files),
        quantize="" if is_remote else request.quantize,
        draft_quantize=request.draft_quantize,
        remote_host=remote_host_of(request),
        template=request.template,
        system=request.system,
        licenses=licenses_of(request),
        parameters=request.parameters,
        messages=normalize_messages(request.messages),
        renderer=request.renderer,
        parser=request.parser,
        requires=request.requires,
        info=request.info,
    )


def unsupported_type(text: str) -> RequestError:
    """The answer for a quantization type that does not exist; `text` in upper case."""
    known = "F32, F16, Q4_K_S, Q4_K_M, Q8_0"
    return RequestError(500, f"unsupported quantization type {text} - supported types are {known}")


#: Where errors of a request are: nowhere in a file.
REQUEST = Position("request", 1, 1)


def is_well_formed_digest(text: str) -> bool:
    """Is this a digest in any of the accepted spellings?"""
    return _ACCEPTED_DIGEST.fullmatch(text) is not None


def is_known_digest(text: str) -> bool:
    """Can a blob stand under this digest? Ollama does not fold the case, so one in upper case names no blob."""
    return _CANONICAL_HEX.fullmatch(text) is not None


def canonical_digest(text: str) -> Digest:
    """The canonical spelling of a well-formed digest."""
    return Digest("sha256:" + text[len("sha256:") :])


def _check_file_names(entries: Mapping[str, str | None] | None) -> None:
    for name, digest in sorted((entries or {}).items()):
        if not _is_valid_path(name):
            raise RequestError(400, "file path must be relative")
        if not digest:
            raise RequestError(400, "invalid digest format")


def _is_valid_path(name: str) -> bool:
    """Go's fs.ValidPath: relative, `/` between elements, none of them empty, `.` or `..`; `.` alone is valid."""
    if len(name.encode()) > FILE_NAME_LIMIT_BYTES:
        return False
    return name == "." or not any(part in ("", ".", "..") for part in name.split("/"))


def is_path(text: str) -> bool:
    """Does a text name a file rather than a model?"""
    return text.strip().startswith(_PATH_STARTS)


def is_remote_request(request: CreateRequest) -> bool:
    """Does the model run on another server? Then its file sets do not count."""
    return bool(request.from_) and (bool(request.remote_host) or split_source(request.from_)[1] == "cloud")


def remote_host_of(request: CreateRequest) -> str:
    """The normalized remote host that is asked for; empty when none is, or when a cloud suffix implies it."""
    if not request.from_ or not request.remote_host:
        return ""
    try:
        return normalize_remote_host(request.remote_host)
    except InputError as error:
        raise RequestError(400, "bad remote") from error


def licenses_of(request: CreateRequest) -> tuple[str, ...]:
    """One text per layer; Ollama decodes the value as text or as an array of texts, and words errors accordingly."""
    value = request.license
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise RequestError(500, f"json: cannot unmarshal {_go_type(value)} into Go value of type []string")
    for item in value:
        if item is not None and not isinstance(item, str):
            raise RequestError(500, f"json: cannot unmarshal {_go_type(item)} into Go value of type string")
    return tuple(item or "" for item in value)


def _go_type(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    names: dict[type, str] = {int: "number", float: "number", dict: "object", list: "array", str: "string"}
    return names[type(value)]


def _entries(entries: Mapping[str, str] | None) -> tuple[FileEntry, ...]:
    ordered = sorted((entries or {}).items(), key=lambda item: item[0].encode())
    return tuple(FileEntry(name, canonical_digest(digest), REQUEST) for name, digest in ordered)


def _numbers(values: Mapping[str, object] | None) -> dict[str, object] | None:
    """Whole doubles as integers, so that an action's options read like those of a recipe."""
    return None if values is None else cast("dict[str, object]", _whole(values))


def _whole(value: object) -> object:
    if isinstance(value, float) and value == int(value) and abs(value) < 2**53 and str(value) != "-0.0":
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _string(bound: Mapping[str, object], key: str) -> str:
    return str(bound.get(key) or "")
