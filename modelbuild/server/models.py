"""Stored models over HTTP: list, show, copy, delete, and the one use of `generate` that managing models needs."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar, cast

from aiohttp import web

from modelbuild.errors import InputError
from modelbuild.model_name import ModelName, parse_name
from modelbuild.recipe.go_binding import Base64, Dictionary, Flag, Free, Items, Record, Text, Whole
from modelbuild.recipe.reference import split_source
from modelbuild.server.answers import Refusal, empty_answer, json_answer
from modelbuild.server.bodies import read_object
from modelbuild.server.places import Places
from modelbuild.server.settings import Limits
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from modelbuild.engine.model_answers import ModelLister

_T = TypeVar("_T")
#: This server asks no other one.
_CLOUD_DISABLED, _NO_DETAILS = "ollama cloud is disabled", "remote model details are unavailable"
_COPY = Record("api.CopyRequest", {"source": Text(), "destination": Text()})
_DELETE = Record("api.DeleteRequest", {"model": Text(), "name": Text()})
_SHOW = Record(
    "api.ShowRequest",
    {
        "model": Text(),
        "name": Text(),
        "system": Text(),
        "template": Text(),
        "verbose": Flag(),
        "options": Dictionary(Free(), "map[string]interface {}"),
    },
)
_GENERATE = Record(
    "api.GenerateRequest",
    {
        **dict.fromkeys(("model", "prompt", "suffix", "system", "template"), Text()),
        **dict.fromkeys(("stream", "truncate", "shift"), Flag(optional=True)),
        **dict.fromkeys(("raw", "logprobs", "_debug_render_only"), Flag()),
        **dict.fromkeys(("format", "keep_alive", "think"), Free()),
        "context": Items(Whole(), "[]int"),
        "images": Items(Base64("api.ImageData"), "[]api.ImageData"),
        "options": Dictionary(Free(), "map[string]interface {}"),
        "top_logprobs": Whole(),
    },
)


class ModelRoutes:
    """The handlers of /api/tags, /api/show, /api/copy, /api/delete and /api/generate."""

    def __init__(self, store: Store, limits: Limits, places: Places) -> None:
        self._store = store
        self._limits = limits
        self._places = places
        self._lister: ModelLister | None = None
        self._listing = threading.Lock()

    async def tags(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """The stored models, the most recent first."""
        del request, parameter
        return json_answer({"models": await asyncio.to_thread(self._list)})

    async def show(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """Everything about one model."""
        del parameter
        body = await read_object(request, _SHOW, self._limits)
        return json_answer(await asyncio.to_thread(self._show, body))

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
        if not model.strip():
            raise Refusal(404, f"model '{model}' not found")
        reference, source = split_reference(model)
        try:
            name = parse_name(reference)
        except InputError as error:
            raise Refusal(400, "invalid model name") from error
        is_remote = True if source == "cloud" else await asyncio.to_thread(self._is_remote, name)
        if is_remote is None or (is_remote and source == "local"):
            raise Refusal(404, f"model '{model}' not found")
        if is_remote:
            raise Refusal(403, f"{_CLOUD_DISABLED}: remote model is unavailable")
        if body.get("prompt"):
            raise Refusal(501, "this server builds models; it does not run them")
        return json_answer(
            {"model": model, "created_at": now_rfc3339(), "response": "", "done": True, "done_reason": "unload"}
        )

    def _list(self) -> list[dict[str, object]]:
        from modelbuild.engine.model_answers import ModelLister

        with self._listing:
            self._lister = self._lister or ModelLister(self._store)
            return self._lister.list_models()

    def _show(self, body: dict[str, object]) -> dict[str, object]:
        from modelbuild.engine.describe import describe_model
        from modelbuild.engine.model_answers import ShowOptions, show_model

        text = text_of(body, "model") or text_of(body, "name")
        if not text.strip():
            raise Refusal(400, "model is required")
        reference, source = split_reference(text)
        try:
            name = self._store.spelling(parse_name(reference))
        except InputError as error:
            raise Refusal(400, "invalid model name") from error
        if source == "cloud":
            raise Refusal(403, f"{_CLOUD_DISABLED}: {_NO_DETAILS}")
        missing = Refusal(404, f"model '{name}' not found")
        options = ShowOptions(
            system=text_of(body, "system"),
            parameters=cast("Mapping[str, object] | None", body.get("options")),
            verbose=body.get("verbose") is True,
            use_go_template=go_template_choice(os.environ.get("OLLAMA_GO_TEMPLATE", "")),
            blob_text=self._places.blob,
        )

        def look() -> dict[str, object] | None:
            config = describe_model(self._store, name).config
            if config.remote_host:
                raise Refusal(403, f"{_CLOUD_DISABLED}: {_NO_DETAILS}")
            return show_model(self._store, name, options)

        shown = self._while_steady(name, look)
        if shown is None:
            raise missing
        return shown

    def _while_steady(self, name: ModelName, look: Callable[[], _T]) -> _T | None:
        """What a look at a model gives, again when it was replaced meanwhile; None when there is no such model."""
        while (before := self._store.find(name)) is not None:
            try:
                return look()
            except (InputError, FileNotFoundError):
                if self._store.find(name) == before:
                    raise
        return None

    def _is_remote(self, name: ModelName) -> bool | None:
        """Does a stored model run elsewhere? None when there is no such model."""
        from modelbuild.engine.describe import describe_model

        name = self._store.spelling(name)
        config = self._while_steady(name, lambda: describe_model(self._store, name).config)
        return None if config is None else bool(config.remote_host and config.remote_model)

    def _copy(self, source_text: str, target_text: str) -> None:
        source = self._parse(source_text, "source")
        target = self._parse(target_text, "destination")
        if source == target:
            return
        if self._while_steady(source, lambda: self._store.copy(source, target)) is None:
            raise Refusal(404, f"model {quoted(source_text)} not found")

    def _delete(self, text: str) -> None:
        if not text.strip():
            raise Refusal(400, "model is required")
        name = self._parse(local_name(text), "name")
        try:
            self._store.remove(name)
        except InputError as error:
            raise Refusal(404, f"model '{text}' not found") from error

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
    reference, source = split_reference(text)
    if source != "cloud":
        return reference
    is_tagged = ":" in reference[reference.rfind("/") + 1 :]
    return f"{reference}-cloud" if is_tagged else f"{reference}:cloud"


def split_reference(text: str) -> tuple[str, str]:
    """A reference without its source suffix, and the source; Refusal 400 when it has two suffixes."""
    try:
        return split_source(text)
    except InputError as error:
        raise Refusal(400, f"use either :local or :cloud, not both: {quoted(text)}") from error


def go_template_choice(text: str) -> bool | None:
    """OLLAMA_GO_TEMPLATE: whether Go templates are used, None when it does not say."""
    value = text.strip().strip("\"'").lower()
    return None if not value else value not in ("0", "f", "false")


def quoted(text: str) -> str:
    """A text in double quotes, its control characters escaped."""
    return json.dumps(text, ensure_ascii=False)


def now_rfc3339() -> str:
    """The time now, in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
