"""`POST /api/pull` and `/api/push`: models to and from the registries that the operator named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import web

from modelbuild.errors import InputError
from modelbuild.formats.files import is_regular
from modelbuild.model_name import DEFAULT_HOST, ModelName, parse_name
from modelbuild.recipe.go_binding import Flag, Kind, Record, Text
from modelbuild.server.answers import Refusal
from modelbuild.server.bodies import read_object
from modelbuild.server.builds import Builds, Job, Worker
from modelbuild.server.create import answer_with
from modelbuild.server.models import local_name, text_of
from modelbuild.server.settings import ServerSettings
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from modelbuild.remote.registry import Registry

_FIELDS: Mapping[str, Kind] = {
    "model": Text(),
    "name": Text(),
    "insecure": Flag(),
    "username": Text(),
    "password": Text(),
    "stream": Flag(optional=True),
}
_PULL = Record("api.PullRequest", _FIELDS)
_PUSH = Record("api.PushRequest", _FIELDS)


class TransferRoutes:
    """The handlers of /api/pull and /api/push."""

    def __init__(self, settings: ServerSettings, store: Store, builds: Builds) -> None:
        self._settings = settings
        self._store = store
        self._builds = builds

    async def pull(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """Fetch a model."""
        del parameter
        body = await read_object(request, _PULL, self._settings.limits)
        text = local_name(text_of(body, "model") or text_of(body, "name"))
        try:
            wanted = parse_name(text)
        except InputError as error:
            raise Refusal(400, "invalid model name") from error
        name = await asyncio.to_thread(self._store.spelling, wanted)
        return await self._answer(request, body, f"pull {name}", lambda worker: self._pull(name, body, worker))

    async def push(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """Send a model."""
        del parameter
        body = await read_object(request, _PUSH, self._settings.limits)
        text = text_of(body, "model") or text_of(body, "name")
        if not text:
            raise Refusal(400, "model is required")
        return await self._answer(request, body, f"push {text}", lambda worker: self._push(text, body, worker))

    async def _answer(
        self, request: web.BaseRequest, body: dict[str, object], title: str, job: Job
    ) -> web.StreamResponse:
        # Whoever has another password gets an answer to that one.
        key = json.dumps([title, body.get("insecure"), text_of(body, "username"), text_of(body, "password")])
        build = self._builds.join(key, title, job)
        return await answer_with(request, self._builds, build, stream=body.get("stream") is not False)

    def _pull(self, name: ModelName, body: dict[str, object], worker: Worker) -> None:
        from modelbuild.engine.transfer import pull_model

        with self._registry(name, body, "pull model manifest: ") as registry:
            pull_model(name, registry, self._store, lambda status: worker.report(status.to_json()))

    def _push(self, text: str, body: dict[str, object], worker: Worker) -> None:
        from modelbuild.engine.transfer import push_model

        name = self._stored(text, worker)
        with self._registry(name, body) as registry:
            push_model(name, registry, self._store, lambda status: worker.report(status.to_json()))

    def _stored(self, text: str, worker: Worker) -> ModelName:
        """The stored model of a name; Refusal with Ollama's texts when there is none."""
        try:
            name = self._store.spelling(parse_name(text))
        except InputError as error:
            _report_missing(worker)
            tagged = text if ":" in text[text.rfind("/") + 1 :] else f"{text}:latest"
            raise Refusal(400, f"unqualified name: {DEFAULT_HOST}/library/{tagged}") from error
        path = self._store.manifest_path(name)
        if not is_regular(path):
            _report_missing(worker)
            raise Refusal(_unless_named(name, 404), f"open {path}: no such file or directory")
        return name

    def _registry(self, name: ModelName, body: dict[str, object], prefix: str = "") -> Registry:
        """A client for the registry of a name; Refusal unless the operator allowed it."""
        if name.host.lower() not in self._settings.allow_registries:
            hint = f"start the server with --allow-registry {name.host}"
            raise Refusal(_unless_named(name, 400), f"{prefix}this server may not contact {name.host}; {hint}")
        try:
            from modelbuild.remote.address import registry_address
            from modelbuild.remote.registry import Registry
        except ModuleNotFoundError as error:
            raise Refusal(501, "registries need the extra 'remote': pip install 'modelbuild[remote]'") from error
        user = text_of(body, "username")
        address = registry_address(name.host, insecure=body.get("insecure") is True)
        return Registry(address, (user, text_of(body, "password")) if user else None)


def _unless_named(name: ModelName, status: int) -> int:
    """A status for a request that names no registry; Ollama's 500 where it names one that does not do."""
    return status if name.host == DEFAULT_HOST else 500


def _report_missing(worker: Worker) -> None:
    for text in ("retrieving manifest", "couldn't retrieve manifest"):
        worker.report({"status": text})
