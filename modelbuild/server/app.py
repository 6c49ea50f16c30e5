"""The application: every request passes the guard, finds its handler, and gets an answer, whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from aiohttp import web

from modelbuild import __version__
from modelbuild.errors import ModelbuildError
from modelbuild.events import Event
from modelbuild.server import guard
from modelbuild.server.answers import (
    COMMON_HEADERS,
    SERVER_NAME,
    Refusal,
    empty_answer,
    json_answer,
    refusal_of,
    refuse,
    text_answer,
)
from modelbuild.server.blobs import BlobRoutes
from modelbuild.server.builds import Build, Builds
from modelbuild.server.create import CreateRoute, refusal_for_job
from modelbuild.server.guard import Asker, Guard, Verdict
from modelbuild.server.hub import Hub
from modelbuild.server.models import ModelRoutes
from modelbuild.server.observe import Observer, ObserveRoutes
from modelbuild.server.pages import PUBLIC_PATHS, page_table
from modelbuild.server.places import Places
from modelbuild.server.routes import PARAMETER, Handler, Routes
from modelbuild.server.settings import ServerSettings
from modelbuild.server.transfer import TransferRoutes
from modelbuild.store.store import Store

_log = logging.getLogger(__name__)
#: As other servers note it down.
_CLIENT_LEFT = 499
_GREETING = "Ollama is running"  # clients look for these words


class Application:
    """Answers the requests of one server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._guard = Guard(settings, PUBLIC_PATHS)
        self._hub = Hub()
        self._places = Places(settings)
        self._observer = Observer(self._hub, self._places)
        self._builds = Builds(settings.limits, lambda error: refusal_for_job(error, self._places), self._observer.watch)
        self._store = Store(settings.store, prune=settings.prune)
        self._routes = Routes(self._table(self._store))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to a request; never raises for what a client or the store did."""
        verdict = self._guard.judge(_asker(request))
        request[COMMON_HEADERS] = _common_headers(verdict)
        response = _rejected(verdict) if verdict.status else await self._dispatch(request)
        self._observer.count_request(response.status)
        if not response.prepared:
            response.headers.update(request[COMMON_HEADERS])
        return response

    async def start(self) -> None:
        """Clean the store as Ollama does when it starts, unless replaced blobs are to stay."""
        from modelbuild.engine.start_up import clean_store

        if self._settings.prune:
            await asyncio.to_thread(clean_store, self._store)

    def begin_elsewhere(self, title: str) -> Build:
        """Show a build that runs outside of the server, to those who look."""
        build = self._builds.adopt(title)
        self._observer.watch(build, None)
        return build

    def note(self, build: Build, event: Event | None) -> None:
        """Tell those who look what became of such a build."""
        self._observer.watch(build, event)

    async def shutdown(self) -> None:
        """End running builds; what they have made so far is kept for the next run."""
        await self._builds.shutdown()
        self._hub.close()

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            self._check_head(request)
            found = self._routes.find(request.method, request.rel_url.raw_path)
            if isinstance(found, web.Response):
                return found
            handler, parameter = found
            return await handler(request, parameter)
        except Refusal as refusal:
            return refuse(refusal)
        except ConnectionError:  # the client left before its answer began; nobody reads this one
            return web.Response(status=_CLIENT_LEFT)
        except ModelbuildError as error:
            _log.info("refused: %s", error)
            return refuse(refusal_of(error, self._places))

    def _check_head(self, request: web.BaseRequest) -> None:
        size = sum(len(name) + len(value) + 4 for name, value in request.raw_headers) + len(request.raw_path)
        if size > self._limits.head_bytes:
            raise Refusal(431, "the request head is too large", close=True)
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refusal(415, "only bodies without Content-Encoding are taken", close=True)

    def _table(self, store: Store) -> Mapping[str, Mapping[str, Handler]]:
        blobs = BlobRoutes(store.blobs, self._limits, self._observer.count_upload, keep_all=self._settings.rewrite_gguf)
        models = ModelRoutes(store, self._limits, self._places)
        create = CreateRoute(self._settings, store, self._builds)
        transfer = TransferRoutes(self._settings, store, self._builds)
        observe = ObserveRoutes(
            self._builds, self._observer, self._hub, {"store": self._settings.store, "cache": self._settings.cache}
        )
        return {
            **page_table(),
            "/builds": {"GET": observe.list_builds},
            "/events": {"GET": self._hub.stream},
            "/disk": {"GET": observe.disk},
            "/health": {"HEAD": observe.health, "GET": observe.health},
            "/metrics": {"GET": observe.metrics},
            "/": {"HEAD": _greet, "GET": _greet},
            "/api/version": {"HEAD": _version, "GET": _version},
            "/api/ps": {"GET": _loaded_models},
            "/api/status": {"GET": _cloud_status},
            "/api/tags": {"HEAD": models.tags, "GET": models.tags},
            "/api/show": {"POST": models.show},
            "/api/create": {"POST": create.post},
            "/api/pull": {"POST": transfer.pull},
            "/api/push": {"POST": transfer.push},
            "/api/copy": {"POST": models.copy},
            "/api/delete": {"DELETE": models.delete},
            "/api/generate": {"POST": models.generate},
            f"/api/blobs/{PARAMETER}": {"HEAD": blobs.head, "POST": blobs.post},
        }


async def _greet(request: web.BaseRequest, parameter: str) -> web.StreamResponse:
    del request, parameter
    return text_answer(_GREETING)


async def _version(request: web.BaseRequest, parameter: str) -> web.StreamResponse:
    del request, parameter
    return json_answer({"version": __version__})


async def _loaded_models(request: web.BaseRequest, parameter: str) -> web.StreamResponse:
    """Models in memory: this server runs none."""
    del request, parameter
    return json_answer({"models": []})


async def _cloud_status(request: web.BaseRequest, parameter: str) -> web.StreamResponse:
    del request, parameter
    return json_answer({"cloud": {"disabled": True, "source": "config"}})


def _asker(request: web.BaseRequest) -> Asker:
    headers = request.headers
    return Asker(
        method=request.method,
        path=request.rel_url.raw_path,
        hosts=headers.getall("Host", ()),
        origin=headers.get("Origin", ""),
        fetch_site=headers.get("Sec-Fetch-Site", "").lower(),
        from_browser=guard.browser_marks(headers),
        content_type=headers.get("Content-Type", ""),
        authorization=headers.get("Authorization", ""),
    )


def _rejected(verdict: Verdict) -> web.Response:
    if verdict.status == 204:
        response = empty_answer(204)
        response.headers["Access-Control-Allow-Methods"] = guard.ALLOWED_METHODS
        response.headers["Access-Control-Allow-Headers"] = guard.ALLOWED_HEADERS
        response.headers["Access-Control-Max-Age"] = str(guard.PREFLIGHT_MAX_AGE_S)
        return response
    response = refuse(Refusal(verdict.status, verdict.error)) if verdict.error else empty_answer(verdict.status)
    if verdict.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    response.force_close()  # its body, if any, is not read
    return response


def _common_headers(verdict: Verdict) -> dict[str, str]:
    headers = {"Server": SERVER_NAME}
    if verdict.origin:
        headers |= {"Access-Control-Allow-Origin": verdict.origin, "Vary": "Origin"}
    return headers
