"""Stored models over HTTP: copy, delete, and the one use of `generate` that managing models needs."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from aiohttp import web

from modelbuild.errors import InputError
from modelbuild.model_name import ModelName, parse_name
from modelbuild.recipe.go_binding import Flag, Free, Record, Text
from modelbuild.recipe.reference import split_source
from modelbuild.server.answers import Refusal, empty_answer, json_answer
from modelbuild.server.bodies import read_object
from modelbuild.server.settings import Limits
from modelbuild.store.store import Store

_COPY = Record("api.CopyRequest", {"source": Text(), "destination": Text()})
_DELETE = Record("api.DeleteRequest", {"model": Text(), "name": Text()})
_GENERATE = Record("api.GenerateRequest", {"model": Text(), "prompt": Text(), "stream": Flag(), "keep_alive": Free()})


class ModelRoutes:
    """The handlers of /api/copy, /api/delete and /api/generate."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    async def copy(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """Give a model a second name."""
        del parameter
        body = await read_object(request, _COPY, self._limits)
        await asyncio.to_thread(self._copy, text_of(body, "source"), text_of(body, "destination"))
        return empty_answer()

    async def delete(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """Delete a model and what only it used."""
        del parameter
        body = await read_object(request, _DELETE, self._limits)
        await asyncio.to_thread(self._delete, text_of(body, "model") or text_of(body, "name"))
        return empty_answer()

    async def generate(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """Say that a model is not loaded any more, which clients ask for before they delete it; runs no model."""
        del parameter
        body = await read_object(request, _GENERATE, self._limits)
        model = text_of(body, "model")
        if not await asyncio.to_thread(self._is_stored, model):
            raise Refusal(404, f"model '{model}' not found")
        if body.get("prompt"):
            raise Refusal(501, "this server builds models; it does not run them")
        return json_answer(
            {"model": model, "created_at": now_rfc3339(), "response": "", "done": True, "done_reason": "unload"}
        )

    def _copy(self, source_text: str, target_text: str) -> None:
        source = self._parse(source_text, "source")
        target = self._parse(target_text, "destination")
        if not self._store.manifest_path(source).is_file():
            raise Refusal(404, f"model {quoted(source_text)} not found")
        self._store.copy(source, target)

    def _delete(self, text: str) -> None:
        if not text:
            raise Refusal(400, "model is required")
        name = self._parse(local_name(text), "name")
        if not self._store.manifest_path(name).is_file():
            raise Refusal(404, f"model '{text}' not found")
        self._store.remove(name)

    def _is_stored(self, text: str) -> bool:
        try:
            name = self._store.spelling(parse_name(text))
        except InputError:
            return False
        return self._store.manifest_path(name).is_file()

    def _parse(self, text: str, what: str) -> ModelName:
        try:
            return self._store.spelling(parse_name(text))
        except InputError as error:
            raise Refusal(400, f"{what} {quoted(text)} is invalid") from error


def text_of(body: dict[str, object], key: str) -> str:
    """A text field of a bound body; empty when it is absent."""
    return str(body.get(key) or "")


def local_name(text: str) -> str:
    """The name under which a reference with a source suffix is stored: `m:20b:cloud` as `m:20b-cloud`.

    Refusal 400 when it has two suffixes.
    """
    try:
        reference, source = split_source(text)
    except InputError as error:
        raise Refusal(400, f"use either :local or :cloud, not both: {quoted(text)}") from error
    if source != "cloud":
        return reference
    is_tagged = ":" in reference[reference.rfind("/") + 1 :]
    return f"{reference}-cloud" if is_tagged else f"{reference}:cloud"


def quoted(text: str) -> str:
    """A text in double quotes, its control characters escaped."""
    return json.dumps(text, ensure_ascii=False)


def now_rfc3339() -> str:
    """The time now, in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
