"""The OpenAPI 3.1 document: operations from the table below, bodies from the published schemas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cache
from typing import Any

from modelbuild import __version__
from modelbuild.recipe.schema import load_schema
from modelbuild.records import record

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "minLength": 1, "description": "The name of a model."}
_DIGEST: Schema = {"type": "string", "pattern": "^sha256[:-][0-9a-fA-F]{64}$"}
_STATUS: Schema = {
    "type": "object",
    "description": "One progress line of create, pull and push.",
    "properties": {
        "status": {"type": "string", "description": "What is being done; the last line says success."},
        "digest": {"type": "string", "description": "The layer that is worked on."},
        "total": {"type": "integer", "description": "Its size in bytes."},
        "completed": {"type": "integer", "description": "Bytes done so far."},
        "error": {"type": "string", "description": "Why it failed; then this is the last line."},
    },
}
_ERROR: Schema = {
    "type": "object",
    "description": "What every refused request is answered with.",
    "properties": {"error": {"type": "string", "description": "What is wrong."}},
    "required": ["error"],
}


def _object(description: str, **properties: Schema) -> Schema:
    """An object; names of models have to be there."""
    record: dict[str, Any] = {"type": "object", "description": description, "properties": properties}
    required = [name for name, schema in properties.items() if schema is _NAME]
    return record | ({"required": required} if required else {})


_TRANSFER = _object(
    "",
    model=_NAME,
    stream={"type": "boolean"},
    insecure={"type": "boolean", "description": "Ask the registry without encryption."},
    username={"type": "string", "description": "Who asks the registry."},
    password={"type": "string", "description": "The password that belongs to it."},
)


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


@record
class Operation:
    """One method of one path. body: schema of the request; media: content type → schema of the answer."""

    method: str
    path: str
    summary: str
    body: Schema | None = None
    media: Mapping[str, Schema] = field(default_factory=dict)
    statuses: Mapping[int, str] = field(default_factory=lambda: {200: "done"})
    body_type: str = "application/json"


_JSON, _LINES = "application/json", "application/x-ndjson"
_STREAMED = {_LINES: _named("Status"), _JSON: _named("Status")}
_BAD = {400: "the request is not right"}
_MISSING = {404: "there is no such model"}
_NO_TRANSFER = {501: "the extra `remote` is not installed", 503: "too many models are being created or moved"}

OPERATIONS = (
    Operation("get", "/", "Say that a server is there", media={"text/plain": _TEXT}),
    Operation("get", "/api/version", "Version of the server", media={_JSON: _object("", version=_TEXT)}),
    Operation("get", "/api/tags", "List the stored models", media={_JSON: _named("Models")}),
    Operation(
        "post",
        "/api/show",
        "Everything about one model",
        _object("", model=_NAME, verbose={"type": "boolean", "description": "Include long arrays of the metadata."}),
        {_JSON: {"type": "object"}},
        {200: "the model", **_BAD, **_MISSING},
    ),
    Operation("get", "/api/ps", "Models in memory; always none", media={_JSON: _named("Models")}),
    Operation("get", "/api/status", "Whether cloud models can be used; they cannot", media={_JSON: {"type": "object"}}),
    Operation(
        "post",
        "/api/create",
        "Create a model, or replace it",
        _named("CreateRequest"),
        _STREAMED,
        {
            200: "status lines, or with `stream: false` the last of them; errors after the first line are a line",
            **_BAD,
            404: "the model in `from` is not stored",
            413: "the body is too large",
            500: "the model could not be made",
            503: "too many models are being created",
            507: "the disk is too full",
        },
    ),
    Operation(
        "post",
        "/api/copy",
        "Give a model a second name",
        _object("", source=_NAME, destination=_NAME),
        {},
        {200: "done", **_BAD, **_MISSING},
    ),
    Operation(
        "delete",
        "/api/delete",
        "Delete a model and the blobs that only it uses",
        _object("", model=_NAME),
        {},
        {200: "done", **_BAD, **_MISSING},
    ),
    Operation(
        "head",
        "/api/blobs/{digest}",
        "Whether a blob is there",
        statuses={
            200: "it is there",
            404: "it is not; `Upload-Offset` says how many bytes of it an unfinished upload has left",
            400: "that is no digest",
        },
    ),
    Operation(
        "post",
        "/api/blobs/{digest}",
        "Upload a blob; with the fields Upload-Offset and Upload-Complete, in parts or after a cut",
        {"type": "string", "contentMediaType": "application/octet-stream"},
        {},
        {
            200: "it was there already",
            201: "stored",
            202: "a part was taken, as `Upload-Complete: ?0` announced",
            400: "the body has another digest",
            408: "the body stopped arriving",
            409: "`Upload-Offset` is not where the upload stands, or the blob is on its way already",
            413: "the blob is too large",
            507: "the disk is too full",
        },
        "application/octet-stream",
    ),
    Operation(
        "post",
        "/api/generate",
        "Unload a model; the only use of this path here, since no model is run",
        _object("", model=_NAME),
        {_JSON: {"type": "object"}},
        {200: "unloaded", **_BAD, **_MISSING, 501: "models are not run by this server"},
    ),
    Operation(
        "post",
        "/api/pull",
        "Fetch a model from a registry",
        _TRANSFER,
        _STREAMED,
        {200: "status lines", **_BAD, 500: "the registry did not give it", **_NO_TRANSFER},
    ),
    Operation(
        "post",
        "/api/push",
        "Send a model to a registry",
        _TRANSFER,
        _STREAMED,
        {200: "status lines", **_BAD, **_MISSING, 500: "the registry did not take it", **_NO_TRANSFER},
    ),
    Operation("get", "/builds", "Running and recent builds with their actions", media={_JSON: {"type": "object"}}),
    Operation(
        "get",
        "/events",
        "What happens, as server-sent events: `build` holds a build as in /builds, `engine` one event",
        media={"text/event-stream": _named("Event")},
    ),
    Operation("get", "/disk", "Files and bytes of store and cache", media={_JSON: {"type": "object"}}),
    Operation("get", "/health", "Whether the server lives; needs no token", media={_JSON: {"type": "object"}}),
    Operation("get", "/metrics", "Numbers for Prometheus", media={"text/plain": _TEXT}),
)


@cache
def openapi_document() -> Mapping[str, object]:
    """The whole document."""
    paths: dict[str, dict[str, object]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "modelbuild",
            "version": __version__,
            "description": "Ollama's API for creating and managing models. Streams are JSON, one object a line.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


def _describe(operation: Operation) -> Mapping[str, object]:
    record: dict[str, object] = {
        "summary": operation.summary,
        "operationId": f"{operation.method}{operation.path.replace('/{digest}', '').replace('/', '-')}".rstrip("-"),
        "responses": {str(status): _answer(operation, status, text) for status, text in operation.statuses.items()},
    }
    if "{digest}" in operation.path:
        record["parameters"] = [{"name": "digest", "in": "path", "required": True, "schema": _DIGEST}]
    if operation.body is not None:
        record["requestBody"] = {"required": True, "content": {operation.body_type: {"schema": operation.body}}}
    return record


def _answer(operation: Operation, status: int, text: str) -> Mapping[str, object]:
    if status >= 400:
        media: Mapping[str, Schema] = {} if operation.method == "head" else {_JSON: _named("Error")}
    else:
        media = operation.media
    content = {kind: {"schema": schema} for kind, schema in media.items()}
    return {"description": text, **({"content": content} if content else {})}


def _schemas() -> Mapping[str, object]:
    create = load_schema("create-request.schema.json")
    return {
        "CreateRequest": _in_components({key: value for key, value in create.items() if key[0] != "$"}),
        **{name.capitalize(): _in_components(part) for name, part in create["$defs"].items()},
        "Status": _STATUS,
        "Error": _ERROR,
        "Models": _object("Stored models.", models={"type": "array", "items": {"type": "object"}}),
        "Event": {key: value for key, value in load_schema("events.schema.json").items() if key[0] != "$"},
    }


def _in_components(part: object) -> object:
    """A part of the request's schema with references into the document; unknown keys are ignored by servers."""
    if isinstance(part, list):
        return [_in_components(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {key: _in_components(value) for key, value in part.items()}
    if isinstance(made.get("$ref"), str):
        name = str(made["$ref"]).rpartition("/")[2].capitalize()
        made["$ref"] = f"#/components/schemas/{name}"
    if made.get("additionalProperties") is False:
        del made["additionalProperties"]
    if "digests" in str(made.get("x-expected")):
        made.pop("examples", None)  # none is true: a digest is of the reader's own file
    return made
